// SPDX-License-Identifier: Apache-2.0
//! Content digests: an algorithm and the bytes it yields.
//!
//! A digest is parsed once into fixed-size bytes and never joined to a path or
//! a URL as the text it came in.
//!
//! # Source
//! image-spec v1.1 "Digests".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A registered digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: 32 bytes.
    Sha256,
    /// SHA-512: 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name used before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many bytes a digest of this algorithm has.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A content digest.
///
/// Holding one says that it is well formed. It says nothing about any bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    // Bytes past the algorithm's size are always zero, so that the derived
    // comparisons and hash hold.
    bytes: [u8; 64],
}

impl Digest {
    /// Makes a SHA-256 digest from its bytes.
    #[must_use]
    pub fn sha256(value: [u8; 32]) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&value);
        Self {
            algorithm: Algorithm::Sha256,
            bytes,
        }
    }

    /// Makes a SHA-512 digest from its bytes.
    #[must_use]
    pub fn sha512(value: [u8; 64]) -> Self {
        Self {
            algorithm: Algorithm::Sha512,
            bytes: value,
        }
    }

    /// Digests a slice at once.
    #[must_use]
    pub fn of(algorithm: Algorithm, data: &[u8]) -> Self {
        let mut digester = Digester::new(algorithm);
        digester.update(data);
        digester.finish()
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes: 32 for SHA-256, 64 for SHA-512.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.size_bytes()]
    }

    /// The bytes in lower-case hexadecimal, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(2 * self.as_bytes().len());
        for byte in self.as_bytes() {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    /// The first twelve hexadecimal digits: for people, never for identity.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.hex();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDigestError {
    /// There is no `algorithm:` in front.
    #[error("digest {text:?} lacks an algorithm before a colon")]
    NoAlgorithm {
        /// What was given, cut to a printable length.
        text: String,
    },
    /// The algorithm is not one of the registered ones that Gantry supports.
    #[error("digest algorithm {algorithm:?} is not supported (sha256 and sha512 are)")]
    UnknownAlgorithm {
        /// What was given, cut to a printable length.
        algorithm: String,
    },
    /// The hexadecimal part has the wrong length or alphabet.
    #[error("digest {text:?} is not {expected} lower-case hexadecimal digits after the colon")]
    NotHex {
        /// What was given, cut to a printable length.
        text: String,
        /// How many digits the algorithm has.
        expected: usize,
    },
}

impl ParseDigestError {
    /// Always invalid input.
    #[must_use]
    pub fn kind(&self) -> crate::Kind {
        crate::Kind::InvalidInput
    }
}

/// Cuts hostile text to what an error message may carry.
pub(crate) fn excerpt(text: &str) -> String {
    let mut out: String = text.chars().take(80).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, hex) = text
            .split_once(':')
            .ok_or_else(|| ParseDigestError::NoAlgorithm {
                text: excerpt(text),
            })?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other => {
                return Err(ParseDigestError::UnknownAlgorithm {
                    algorithm: excerpt(other),
                });
            }
        };
        let not_hex = || ParseDigestError::NotHex {
            text: excerpt(text),
            expected: 2 * algorithm.size_bytes(),
        };
        if hex.len() != 2 * algorithm.size_bytes() {
            return Err(not_hex());
        }
        let mut bytes = [0; 64];
        for (slot, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (high, low) = (
                nibble(pair[0]).ok_or_else(not_hex)?,
                nibble(pair[1]).ok_or_else(not_hex)?,
            );
            *slot = high << 4 | low;
        }
        Ok(Self { algorithm, bytes })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest over bytes as they come.
#[derive(Debug, Clone)]
pub struct Digester(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Digester {
    /// Starts with no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Inner::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Inner::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes in more bytes.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            Inner::Sha256(inner) => inner.update(data),
            Inner::Sha512(inner) => inner.update(data),
        }
    }

    /// The digest of all bytes taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            Inner::Sha256(inner) => Digest::sha256(inner.finalize().into()),
            Inner::Sha512(inner) => Digest::sha512(inner.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        assert_eq!(
            EMPTY.parse::<Digest>().unwrap(),
            Digest::of(Algorithm::Sha256, b"")
        );
        let long = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
    }

    #[test]
    fn digest_that_is_malformed_is_refused() {
        let hex = &EMPTY[7..];
        for bad in [
            "",
            "sha256",
            "sha256:",
            ":",
            hex,
            "sha256:../../x",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{hex}0"),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("SHA256:{hex}"),
            &format!("sha256:{hex}?x="),
            &format!("unknown:{hex}"),
            &format!("sha512:{hex}"),
            &format!(" sha256:{hex}"),
            &format!("sha256:{hex}\n"),
            &format!("sha256:{}é", &hex[2..]),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was accepted");
        }
    }
}
