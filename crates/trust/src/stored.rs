// SPDX-License-Identifier: Apache-2.0
//! How one signature is framed where it is stored: in a lookaside, a store, a
//! directory image.
//!
//! A plain OpenPGP message has no frame; its first byte gives it away.
//! Everything else is a zero byte, the name of a format, a line feed, and the
//! payload.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_image::SignatureBlob;
use serde::{Deserialize, Serialize};

use crate::refusal::{Reason, Refusal};

/// The format name of simple signing.
pub const SIMPLE_SIGNING: &str = "simple-signing";
/// The format name of sigstore signatures.
pub const SIGSTORE_JSON: &str = "sigstore-json";

/// One signature, unread but for its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredSignature {
    /// An OpenPGP message around a simple-signing payload.
    Simple(Bytes),
    /// A payload with what sigstore says of it, or a whole sigstore bundle.
    Sigstore(SigstoreSignature),
}

/// A sigstore signature as an attachment has it: one layer of the signature
/// manifest, or one bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigstoreSignature {
    /// The media type of the payload.
    #[serde(rename = "mimeType")]
    pub mime_type: String,
    /// The payload: what was signed, or the bundle.
    #[serde(with = "standard_base64")]
    pub payload: Bytes,
    /// Signature, certificate, chain, log entry.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

mod standard_base64 {
    use super::{Bytes, Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Bytes::from)
            .map_err(serde::de::Error::custom)
    }
}

impl StoredSignature {
    /// The name of the format.
    #[must_use]
    pub fn format(&self) -> &'static str {
        match self {
            Self::Simple(_) => SIMPLE_SIGNING,
            Self::Sigstore(_) => SIGSTORE_JSON,
        }
    }

    /// Reads what stands in a lookaside, a store or a directory image.
    ///
    /// # Errors
    /// [`Reason::Malformed`] or [`Reason::Unsupported`]; the caller shows the
    /// signature as one that does not count.
    pub fn parse(stored: &Bytes) -> Result<Self, Refusal> {
        match stored.first() {
            None => Err(Refusal::new(Reason::Malformed, "the signature is empty")),
            Some(0) => Self::parse_framed(stored),
            Some(&first) if starts_openpgp(first) => Ok(Self::Simple(stored.clone())),
            Some(first) => Err(Refusal::new(
                Reason::Malformed,
                format!(
                    "first byte {first:#04x} starts neither a format name nor an OpenPGP message"
                ),
            )),
        }
    }

    fn parse_framed(stored: &Bytes) -> Result<Self, Refusal> {
        let end = stored
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(|| Refusal::new(Reason::Malformed, "the format name has no end"))?;
        let payload = stored.slice(end + 1..);
        match &stored[1..end] {
            // A frame in a frame would be peeled once by whoever carries it and once more by whoever judges it.
            name if name == SIMPLE_SIGNING.as_bytes() => match payload.first() {
                None | Some(0) => Err(Refusal::new(
                    Reason::Malformed,
                    "there is no OpenPGP message in the frame",
                )),
                Some(_) => Ok(Self::Simple(payload)),
            },
            name if name == SIGSTORE_JSON.as_bytes() => serde_json::from_slice(&payload)
                .map(Self::Sigstore)
                .map_err(|error| {
                    Refusal::new(Reason::Malformed, format!("read sigstore JSON: {error}"))
                }),
            name => Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "signature format {:?} is not known",
                    name.escape_ascii().to_string()
                ),
            )),
        }
    }

    /// The bytes to store. Simple signatures get no frame, as older readers
    /// know none.
    #[must_use]
    pub fn to_stored(&self) -> Bytes {
        match self {
            Self::Simple(message) => message.clone(),
            Self::Sigstore(signature) => {
                let mut stored = format!("\0{SIGSTORE_JSON}\n").into_bytes();
                let json = serde_json::to_vec(signature).expect("strings and bytes become JSON");
                stored.extend_from_slice(&json);
                stored.into()
            }
        }
    }

    /// The form in which transports carry it.
    #[must_use]
    pub fn to_blob(&self) -> SignatureBlob {
        SignatureBlob {
            format: self.format().into(),
            bytes: self.to_stored(),
        }
    }
}

/// Whether a byte starts an OpenPGP packet that a signed message may start
/// with: compressed data, one-pass signature, signature; old and new headers.
fn starts_openpgp(first: u8) -> bool {
    matches!(
        first,
        0xA0..=0xA3 | 0xC8 | 0x90..=0x92 | 0xC4 | 0x88..=0x8B | 0xC2
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_openpgp_message_has_no_frame() {
        let stored = Bytes::from_static(&[0xA3, 1, 2]);
        let signature = StoredSignature::parse(&stored).unwrap();
        assert_eq!(signature, StoredSignature::Simple(stored.clone()));
        assert_eq!(signature.to_stored(), stored);
    }

    #[test]
    fn a_framed_simple_signature_is_read() {
        let stored = Bytes::from_static(b"\0simple-signing\n\xA3x");
        let wanted = StoredSignature::Simple(Bytes::from_static(b"\xA3x"));
        assert_eq!(StoredSignature::parse(&stored).unwrap(), wanted);
    }

    #[test]
    fn a_sigstore_signature_comes_back_as_it_was() {
        let signature = StoredSignature::Sigstore(SigstoreSignature {
            mime_type: "application/vnd.dev.cosign.simplesigning.v1+json".into(),
            payload: Bytes::from_static(b"{}"),
            annotations: [("dev.cosignproject.cosign/signature".into(), "c2ln".into())].into(),
        });
        let stored = signature.to_stored();
        assert!(stored.starts_with(b"\0sigstore-json\n{"));
        assert_eq!(StoredSignature::parse(&stored).unwrap(), signature);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (stored, reason) in [
            (&b""[..], Reason::Malformed),
            (b"-----BEGIN PGP MESSAGE-----", Reason::Malformed),
            (b"\0simple-signing\n", Reason::Malformed),
            (
                b"\0simple-signing\n\0simple-signing\n\xA3x",
                Reason::Malformed,
            ),
            (b"\0sigstore-json", Reason::Malformed),
            (b"\0sigstore-json\n{", Reason::Malformed),
            (
                b"\0sigstore-json\n{\"mimeType\":\"a\",\"payload\":\"%\"}",
                Reason::Malformed,
            ),
            (b"\0cbor\nx", Reason::Unsupported),
        ] {
            let refusal = StoredSignature::parse(&Bytes::copy_from_slice(stored)).unwrap_err();
            assert_eq!(refusal.reason, reason, "{stored:?}");
        }
    }
}
