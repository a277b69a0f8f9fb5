// SPDX-License-Identifier: Apache-2.0
//! Public keys: which there are, and what a good signature by one is.

use std::fmt;

use aws_lc_rs::digest::{self, Digest as MessageDigest};
use aws_lc_rs::signature::{self as mathematics, UnparsedPublicKey, VerificationAlgorithm};
use gantry_oci::{Algorithm, Digest, Kind};

use super::der::{self, DerError, Reader};
use super::pem::{self, PemError};

/// 1.2.840.10045.2.1
const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// 1.3.132.0.34
const P384: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x22];
/// 1.3.132.0.35
const P521: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x23];
/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2B, 0x65, 0x70];

/// RSA keys below are too weak, those above make a verdict too dear.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const ED25519_BYTES: usize = 32;

/// The kinds of key that may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on NIST P-256, with SHA-256.
    P256,
    /// ECDSA on NIST P-384, with SHA-384 (cosign 3) or SHA-256 (cosign 2, skopeo).
    P384,
    /// ECDSA on NIST P-521, with SHA-512 (cosign 3) or SHA-256 (cosign 2, skopeo).
    P521,
    /// RSA of 2048 to 8192 bits with SHA-256, PKCS #1 v1.5 or PSS.
    Rsa,
    /// Ed25519 of the message itself.
    Ed25519,
}

/// A public key.
///
/// Holding one says that it is well formed, of a kind that may sign, and
/// strong enough; not whose it is.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key_type: KeyType,
    /// The SubjectPublicKeyInfo, which is also what a log keeps.
    info: Vec<u8>,
    /// The point, the RSAPublicKey or the 32 bytes.
    key: Vec<u8>,
}

/// Why bytes are not a public key that may sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// The text is not one PEM block.
    #[error("read the public key")]
    Pem(#[from] PemError),
    /// The block is something else.
    #[error("the PEM block is {label:?}, not a public key")]
    Label {
        /// What it says it is.
        label: String,
    },
    /// The bytes are not a SubjectPublicKeyInfo.
    #[error("read the public key: {0}")]
    Encoding(&'static str),
    /// The algorithm or the curve is not one that sigstore uses.
    #[error("the key is of a kind that is not known: P-256, P-384, P-521, RSA and Ed25519 are")]
    Unknown,
    /// The RSA modulus is too short, or absurdly long.
    #[error("the RSA key has {bits} bits; 2048 to 8192 are accepted")]
    Bits {
        /// How many it has.
        bits: usize,
    },
}

impl From<DerError> for ParseKeyError {
    fn from(error: DerError) -> Self {
        Self::Encoding(error.0)
    }
}

impl ParseKeyError {
    /// Always invalid input.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

impl PublicKey {
    /// Reads a file: one `PUBLIC KEY` block, and nothing else.
    ///
    /// # Errors
    /// [`ParseKeyError`]
    pub fn parse_pem(text: &[u8]) -> Result<Self, ParseKeyError> {
        let block = pem::parse_one(text)?;
        if block.label != "PUBLIC KEY" {
            return Err(ParseKeyError::Label { label: block.label });
        }
        Self::parse_info(&block.contents)
    }

    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`ParseKeyError`]
    pub fn parse_info(info: &[u8]) -> Result<Self, ParseKeyError> {
        let mut fields = Reader::new(Reader::only(info, der::SEQUENCE)?);
        let mut algorithm = Reader::new(fields.expect(der::SEQUENCE)?);
        let key = fields.bit_string()?;
        fields.end()?;
        let key_type = match algorithm.expect(der::OBJECT_IDENTIFIER)? {
            EC_PUBLIC_KEY => curve(algorithm.expect(der::OBJECT_IDENTIFIER)?, key)?,
            RSA => {
                if !algorithm.expect(der::NULL)?.is_empty() {
                    return Err(ParseKeyError::Encoding("a NULL with contents"));
                }
                let bits = modulus_bits(key)?;
                if !RSA_BITS.contains(&bits) {
                    return Err(ParseKeyError::Bits { bits });
                }
                KeyType::Rsa
            }
            ED25519 if key.len() == ED25519_BYTES => KeyType::Ed25519,
            ED25519 => return Err(ParseKeyError::Encoding("an Ed25519 key of another length")),
            _ => return Err(ParseKeyError::Unknown),
        };
        algorithm.end()?;
        Ok(Self {
            key_type,
            info: info.to_vec(),
            key: key.to_vec(),
        })
    }

    /// Which kind it is.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The SubjectPublicKeyInfo.
    #[must_use]
    pub fn info(&self) -> &[u8] {
        &self.info
    }

    /// The file form.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.info)
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what logs and bundles call a key by.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.info)
    }

    /// Whether `signature` is a good one over `message` by this key, in any of
    /// the ways that tools sign with its kind.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.algorithms().iter().any(|algorithm| {
            UnparsedPublicKey::new(*algorithm, &self.key)
                .verify(message, signature)
                .is_ok()
        })
    }

    /// Whether `signature` is a good one over bytes of which only the SHA-256
    /// is known. An Ed25519 key hashes by itself, so for it the answer is no.
    #[must_use]
    pub fn verify_sha256(&self, sha256: &[u8], signature: &[u8]) -> bool {
        let Ok(digest) = MessageDigest::import_less_safe(sha256, &digest::SHA256) else {
            return false;
        };
        self.sha256_algorithms().iter().any(|algorithm| {
            UnparsedPublicKey::new(*algorithm, &self.key)
                .verify_digest(&digest, signature)
                .is_ok()
        })
    }

    fn algorithms(&self) -> &'static [&'static dyn VerificationAlgorithm] {
        match self.key_type {
            KeyType::P384 => &[
                &mathematics::ECDSA_P384_SHA384_ASN1,
                &mathematics::ECDSA_P384_SHA256_ASN1,
            ],
            KeyType::P521 => &[
                &mathematics::ECDSA_P521_SHA512_ASN1,
                &mathematics::ECDSA_P521_SHA256_ASN1,
            ],
            KeyType::Ed25519 => &[&mathematics::ED25519],
            KeyType::P256 | KeyType::Rsa => self.sha256_algorithms(),
        }
    }

    fn sha256_algorithms(&self) -> &'static [&'static dyn VerificationAlgorithm] {
        match self.key_type {
            KeyType::P256 => &[&mathematics::ECDSA_P256_SHA256_ASN1],
            KeyType::P384 => &[&mathematics::ECDSA_P384_SHA256_ASN1],
            KeyType::P521 => &[&mathematics::ECDSA_P521_SHA256_ASN1],
            KeyType::Rsa => &[
                &mathematics::RSA_PKCS1_2048_8192_SHA256,
                &mathematics::RSA_PSS_2048_8192_SHA256,
            ],
            KeyType::Ed25519 => &[],
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.key_type, self.fingerprint())
    }
}

/// The curve by its identifier; the key must be an uncompressed point of it.
fn curve(identifier: &[u8], point: &[u8]) -> Result<KeyType, ParseKeyError> {
    let (key_type, coordinate_bytes) = match identifier {
        P256 => (KeyType::P256, 32),
        P384 => (KeyType::P384, 48),
        P521 => (KeyType::P521, 66),
        _ => return Err(ParseKeyError::Unknown),
    };
    if point.len() != 1 + 2 * coordinate_bytes || point[0] != 4 {
        return Err(ParseKeyError::Encoding(
            "a point that is not written in full",
        ));
    }
    Ok(key_type)
}

/// How many bits the modulus of an RSAPublicKey has.
fn modulus_bits(key: &[u8]) -> Result<usize, DerError> {
    let mut fields = Reader::new(Reader::only(key, der::SEQUENCE)?);
    let modulus = fields.expect(der::INTEGER)?;
    fields.expect(der::INTEGER)?;
    fields.end()?;
    let magnitude = match modulus {
        [0, magnitude @ ..] => magnitude,
        magnitude => magnitude,
    };
    match (modulus.first(), magnitude.first()) {
        (Some(0), Some(0x80..)) | (Some(1..0x80), _) => {}
        _ => return Err(DerError("a modulus that is negative or could be shorter")),
    }
    let leading = magnitude.first().map_or(0, |byte| byte.leading_zeros());
    Ok(8 * magnitude.len() - usize::try_from(leading).unwrap_or_default())
}
