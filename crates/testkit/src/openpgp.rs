// SPDX-License-Identifier: Apache-2.0
//! OpenPGP messages and keys taken apart into packets, and put together otherwise than any tool would.

use anyhow::{Result, bail, ensure};

/// The packets of a message or a key, whose lengths are all definite, with their headers.
///
/// # Errors
/// A length is of another form, or the bytes end within a packet.
pub fn packets(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let [first, one, two, ..] = *bytes else {
            bail!("a packet of {} bytes", bytes.len());
        };
        let (header, length) = match (first & 0x40 == 0, first & 3) {
            (true, 0) => (2, usize::from(one)),
            (true, 1) => (3, usize::from(u16::from_be_bytes([one, two]))),
            (false, _) if one < 192 => (2, usize::from(one)),
            (false, _) if one < 224 => (3, (usize::from(one) - 192) * 256 + usize::from(two) + 192),
            other => bail!("a length of form {other:?}"),
        };
        ensure!(header + length <= bytes.len(), "a packet without its end");
        let (packet, after) = bytes.split_at(header + length);
        packets.push(packet.to_vec());
        bytes = after;
    }
    Ok(packets)
}

/// A packet of the new form with a length of five bytes.
///
/// # Panics
/// More than 4 GiB.
#[must_use]
#[expect(clippy::expect_used, reason = "no test makes one of 4 GiB")]
pub fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a length of 32 bits");
    [&[0xC0 | tag, 255][..], &length.to_be_bytes(), body].concat()
}

/// What is in one of [`packets`].
#[must_use]
pub fn body(packet: &[u8]) -> &[u8] {
    let header = if packet[0] & 0x40 == 0 && packet[0] & 3 == 1 {
        3
    } else {
        2
    };
    &packet[header..]
}
