// SPDX-License-Identifier: Apache-2.0
//! Armour around public keys, taken off. Signatures are never armoured.
//!
//! # Source
//! RFC 9580 §6 "Radix-64 Conversions"; the checksum is ignored as it asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// The packets of a key file: itself if it is binary, or those of all its
/// armoured blocks. The sentence says why there are none.
pub(super) fn packets(file: &Bytes) -> Result<Bytes, String> {
    if file.first().is_some_and(|first| first & 0x80 != 0) {
        return Ok(file.clone());
    }
    let text = std::str::from_utf8(file).map_err(|_| "neither OpenPGP packets nor text")?;
    let mut packets = BytesMut::new();
    let mut lines = text.lines().map(str::trim);
    while lines.any(|line| line == BEGIN) {
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != END).collect();
        packets.extend_from_slice(&decode(&block)?);
    }
    if packets.is_empty() {
        return Err("no public key block in it".into());
    }
    Ok(packets.freeze())
}

/// The bytes between two armour lines.
fn decode(block: &[&str]) -> Result<Vec<u8>, String> {
    let headers = block
        .iter()
        .position(|line| line.is_empty())
        .ok_or("no empty line after the armour's headers")?;
    let encoded: String = block[headers..]
        .iter()
        .filter(|line| !line.starts_with('='))
        .copied()
        .collect();
    STANDARD
        .decode(encoded)
        .map_err(|error| format!("decode the armour: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_joined_and_binary_is_left_alone() {
        let binary = Bytes::from_static(&[0x99, 1]);
        assert_eq!(packets(&binary).unwrap(), binary);
        let text = format!(
            "my key\n{BEGIN}\r\nVersion: x\r\n\r\nAQID\r\n=abcd\r\n{END}\r\n\n{BEGIN}\n\nBAU=\n{END}\n"
        );
        assert_eq!(packets(&text.into()).unwrap(), &[1, 2, 3, 4, 5][..]);
    }

    #[test]
    fn what_has_no_block_is_an_error() {
        for text in [
            String::new(),
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAQID\n".into(),
            format!("{BEGIN}\nAQID\n{END}\n"),
            format!("{BEGIN}\n\n%%\n{END}\n"),
            format!("{BEGIN}\n\n{END}\n"),
        ] {
            assert!(packets(&text.clone().into()).is_err(), "{text:?}");
        }
    }
}
