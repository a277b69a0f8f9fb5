// SPDX-License-Identifier: Apache-2.0
//! OpenPGP's frames: where a packet begins and ends, and the one form of
//! message that is accepted.
//!
//! # Source
//! RFC 9580 §4.2 "Packet Headers", §5.6 "Compressed Data", §5.9 "Literal
//! Data", §10.3 "Message Grammar".

use std::io::Read;

use bytes::{Bytes, BytesMut};
use flate2::bufread::{DeflateDecoder, ZlibDecoder};
use gantry_oci::Limits;
use pgp::packet::{OnePassSignature, PacketHeader, Signature};
use pgp::types::Tag;

use crate::refusal::{Reason, Refusal};

/// Packet types by their numbers.
pub(super) mod tag {
    pub(in super::super) const SIGNATURE: u8 = 2;
    pub(in super::super) const ONE_PASS_SIGNATURE: u8 = 4;
    pub(in super::super) const SECRET_KEY: u8 = 5;
    pub(in super::super) const PUBLIC_KEY: u8 = 6;
    pub(in super::super) const SECRET_SUBKEY: u8 = 7;
    pub(in super::super) const COMPRESSED_DATA: u8 = 8;
    pub(in super::super) const LITERAL_DATA: u8 = 11;
    pub(in super::super) const USER_ID: u8 = 13;
    pub(in super::super) const PUBLIC_SUBKEY: u8 = 14;
    pub(in super::super) const USER_ATTRIBUTE: u8 = 17;
}

/// One packet: its type and its body, whatever the encoding of the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Malformed, message)
}

/// Takes the first packet off `rest`.
pub(super) fn take(rest: &mut Bytes) -> Result<Packet, Refusal> {
    let first = byte(rest)?;
    if first & 0x80 == 0 {
        return Err(malformed(format!(
            "{first:#04x} starts no OpenPGP packet (is it armoured?)"
        )));
    }
    if first & 0x40 == 0 {
        let tag = first >> 2 & 0x0F;
        let length = match first & 3 {
            0 => number(rest, 1)?,
            1 => number(rest, 2)?,
            2 => number(rest, 4)?,
            _ => rest.len(),
        };
        return Ok(Packet {
            tag,
            body: body(rest, length)?,
        });
    }
    let tag = first & 0x3F;
    let mut parts = BytesMut::new();
    loop {
        match byte(rest)? {
            part @ 224..=254 => parts.extend_from_slice(&body(rest, 1 << (part & 0x1F))?),
            last => {
                let length = match last {
                    255 => number(rest, 4)?,
                    192..=223 => (usize::from(last) - 192) * 256 + number(rest, 1)? + 192,
                    short => usize::from(short),
                };
                let last = body(rest, length)?;
                let body = if parts.is_empty() {
                    last
                } else {
                    parts.extend_from_slice(&last);
                    parts.freeze()
                };
                return Ok(Packet { tag, body });
            }
        }
    }
}

fn byte(rest: &mut Bytes) -> Result<u8, Refusal> {
    Ok(body(rest, 1)?[0])
}

fn number(rest: &mut Bytes, length: usize) -> Result<usize, Refusal> {
    let number = body(rest, length)?
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    usize::try_from(number).map_err(|_| malformed("an OpenPGP packet is longer than any memory"))
}

fn body(rest: &mut Bytes, length: usize) -> Result<Bytes, Refusal> {
    if length > rest.len() {
        return Err(malformed("an OpenPGP packet ends before its length"));
    }
    Ok(rest.split_to(length))
}

/// The header that the library wants beside a body.
pub(super) fn header(tag: Tag, body: &Bytes) -> PacketHeader {
    PacketHeader::new_fixed(tag, u32::try_from(body.len()).unwrap_or(u32::MAX))
}

/// A signed message taken apart: what was signed, and one signature.
#[derive(Debug)]
pub(super) struct SignedMessage {
    pub(super) text: Bytes,
    pub(super) signature: Signature,
}

impl SignedMessage {
    /// Accepts literal data with exactly one signature, before or after it,
    /// all of it perhaps in one compressed packet, and nothing else.
    pub(super) fn parse(message: &Bytes, limits: &Limits) -> Result<Self, Refusal> {
        if message.len() as u64 > limits.signature_bytes {
            return Err(Refusal::new(
                Reason::TooLarge,
                format!(
                    "the signature has more than {} bytes",
                    limits.signature_bytes
                ),
            ));
        }
        let mut packets = split(message, 3)?;
        if let [packet] = &packets[..] {
            if packet.tag == tag::COMPRESSED_DATA {
                packets = split(&decompress(&packet.body, limits)?, 3)?;
            }
        }
        let tags: Vec<u8> = packets.iter().map(|packet| packet.tag).collect();
        let (one_pass, literal, signature) = match &packets[..] {
            [one_pass, literal, signature]
                if tags == [tag::ONE_PASS_SIGNATURE, tag::LITERAL_DATA, tag::SIGNATURE] =>
            {
                (Some(one_pass), literal, signature)
            }
            [signature, literal] if tags == [tag::SIGNATURE, tag::LITERAL_DATA] => {
                (None, literal, signature)
            }
            _ => {
                return Err(malformed(format!(
                    "not a signed message with exactly one signature: packets of types {tags:?}"
                )));
            }
        };
        let signature = parse_signature(&signature.body)
            .ok_or_else(|| malformed("the signature packet cannot be read"))?;
        if let Some(packet) = one_pass {
            check_one_pass(&packet.body, &signature)?;
        }
        Ok(Self {
            text: literal_text(&literal.body)?,
            signature,
        })
    }
}

/// All packets of `bytes`, which must not be more than `most`.
fn split(bytes: &Bytes, most: usize) -> Result<Vec<Packet>, Refusal> {
    let mut rest = bytes.clone();
    let mut packets = Vec::new();
    while !rest.is_empty() {
        if packets.len() == most {
            return Err(malformed("more packets than one signed message has"));
        }
        packets.push(take(&mut rest)?);
    }
    Ok(packets)
}

/// A signature's body as the library reads it, if it leaves nothing over.
pub(super) fn parse_signature(body: &Bytes) -> Option<Signature> {
    let mut reader = &body[..];
    let signature = Signature::try_from_reader(header(Tag::Signature, body), &mut reader).ok()?;
    (reader.is_empty() && signature.config().is_some()).then_some(signature)
}

fn check_one_pass(body: &Bytes, signature: &Signature) -> Result<(), Refusal> {
    let mut reader = &body[..];
    let one_pass =
        OnePassSignature::try_from_reader(header(Tag::OnePassSignature, body), &mut reader)
            .ok()
            .filter(|_| reader.is_empty())
            .ok_or_else(|| malformed("the one-pass packet cannot be read"))?;
    if one_pass.is_nested() {
        return Err(malformed(
            "the one-pass packet announces a second signature",
        ));
    }
    if !one_pass.matches(signature) {
        return Err(malformed("one-pass packet and signature do not fit"));
    }
    Ok(())
}

fn literal_text(body: &Bytes) -> Result<Bytes, Refusal> {
    let mut rest = body.clone();
    let format = byte(&mut rest)?;
    if !matches!(format, b'b' | b't' | b'u') {
        return Err(malformed(format!(
            "literal data of the unknown format {format:#04x}"
        )));
    }
    let name = byte(&mut rest)?;
    self::body(&mut rest, usize::from(name) + 4)?;
    Ok(rest)
}

fn decompress(body: &Bytes, limits: &Limits) -> Result<Bytes, Refusal> {
    let mut rest = body.clone();
    let algorithm = byte(&mut rest)?;
    let cap = limits.openpgp_message_bytes;
    let mut text = Vec::new();
    let (outcome, left) = match algorithm {
        0 => return Ok(rest),
        1 => {
            let mut reader = DeflateDecoder::new(&rest[..]).take(cap + 1);
            let outcome = reader.read_to_end(&mut text);
            (outcome, reader.into_inner().into_inner())
        }
        2 => {
            let mut reader = ZlibDecoder::new(&rest[..]).take(cap + 1);
            let outcome = reader.read_to_end(&mut text);
            (outcome, reader.into_inner().into_inner())
        }
        other => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!("compression algorithm {other} is not supported"),
            ));
        }
    };
    outcome.map_err(|error| malformed(format!("decompress the message: {error}")))?;
    if text.len() as u64 > cap {
        return Err(Refusal::new(
            Reason::TooLarge,
            format!("the message decompresses to more than {cap} bytes"),
        ));
    }
    if !left.is_empty() {
        return Err(malformed("bytes follow the compressed message"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_under_every_encoding_of_its_length() {
        let long = vec![7; 300];
        let mut partial = vec![0xCB, 0xE1, 1, 2, 1, 3];
        let mut cases: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (vec![0xAC, 2, 1, 2], vec![1, 2]),
            (vec![0xAD, 0, 2, 1, 2], vec![1, 2]),
            (vec![0xAE, 0, 0, 0, 2, 1, 2], vec![1, 2]),
            (vec![0xAF, 1, 2], vec![1, 2]),
            (vec![0xCB, 2, 1, 2], vec![1, 2]),
            (vec![0xCB, 255, 0, 0, 0, 2, 1, 2], vec![1, 2]),
            ([vec![0xCB, 192, 108], long.clone()].concat(), long),
        ];
        cases.push((std::mem::take(&mut partial), vec![1, 2, 3]));
        for (bytes, body) in cases {
            let mut rest = Bytes::from(bytes.clone());
            let packet = take(&mut rest).unwrap();
            assert_eq!((packet.tag, &packet.body[..]), (11, &body[..]), "{bytes:?}");
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_packet_that_is_cut_is_refused() {
        for bytes in [
            &b""[..],
            b"-",
            &[0xAC],
            &[0xAC, 3, 1, 2],
            &[0xAE, 255, 255, 255, 255, 1],
            &[0xCB, 255, 255, 255, 255, 255, 1],
            &[0xCB, 0xFE, 1],
            &[0xCB, 0xE1, 1, 2],
        ] {
            let refusal = take(&mut Bytes::copy_from_slice(bytes)).unwrap_err();
            assert_eq!(refusal.reason, Reason::Malformed, "{bytes:?}");
        }
    }
}
