// SPDX-License-Identifier: Apache-2.0
//! Private keys: cosign's encrypted files, plain PKCS #8, and new ones.
//!
//! ```text
//! -----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----      (or COSIGN, as older tools write)
//! base64 of {"kdf": {"name": "scrypt", "params": {"N": …, "r": …, "p": …}, "salt": …},
//!            "cipher": {"name": "nacl/secretbox", "nonce": …}, "ciphertext": …}       → PKCS #8
//! ```

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    self as mathematics, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use gantry_oci::Kind;
use serde::{Deserialize, Serialize};

use super::json::Base64;
use super::key::{ParseKeyError, PublicKey};
use super::pem::{self, PemError};

const SIGSTORE_LABEL: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
const COSIGN_LABEL: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const PLAIN_LABEL: &str = "PRIVATE KEY";

/// What we ask of the derivation of a new file's key: what cosign asks.
const SCRYPT: ScryptParams = ScryptParams {
    n: 1 << 16,
    r: 8,
    p: 1,
};
/// The most memory that a file may ask for, in bytes: four times the usual.
const SCRYPT_BYTES: u64 = 256 << 20;
const SCRYPT_PARALLEL: u32 = 4;
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// A private key that may sign.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// Why a file gives no private key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadPrivateKeyError {
    /// The text is not one PEM block.
    #[error("read the private key")]
    Pem(#[from] PemError),
    /// The block is something else.
    #[error("the PEM block is {label:?}, not a private key of sigstore or PKCS #8")]
    Label {
        /// What it says it is.
        label: String,
    },
    /// The encrypted file has another shape, or an algorithm that is not known.
    #[error("read the encrypted private key: {why}")]
    Malformed {
        /// In what way.
        why: String,
    },
    /// It is encrypted, and there is no passphrase.
    #[error("the private key is encrypted, and no passphrase is given")]
    NoPassphrase,
    /// The passphrase does not fit.
    #[error("the passphrase does not open the private key")]
    WrongPassphrase,
    /// What is in it is no key that may sign.
    #[error(
        "the private key is of a kind that is not known: P-256, P-384, P-521, RSA and Ed25519 are"
    )]
    Unknown,
    /// Its public half is refused.
    #[error("the private key may not sign")]
    Unfit(#[source] ParseKeyError),
}

impl ReadPrivateKeyError {
    /// Denied for a passphrase that is missing or wrong, otherwise invalid input.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoPassphrase | Self::WrongPassphrase => Kind::Denied,
            _ => Kind::InvalidInput,
        }
    }
}

/// Why nothing was signed, or no key was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptography library fails to {doing}")]
pub struct SignError {
    doing: &'static str,
}

impl SignError {
    /// Always internal: no input leads there.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Internal
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    name: String,
    params: ScryptParams,
    salt: Base64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScryptParams {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cipher {
    name: String,
    nonce: Base64,
}

impl PrivateKey {
    /// Reads a file. `passphrase` matters to encrypted ones only.
    ///
    /// # Errors
    /// [`ReadPrivateKeyError`]
    pub fn parse(file: &[u8], passphrase: Option<&[u8]>) -> Result<Self, ReadPrivateKeyError> {
        let block = pem::parse_one(file)?;
        match block.label.as_str() {
            PLAIN_LABEL => Self::from_pkcs8(&block.contents),
            SIGSTORE_LABEL | COSIGN_LABEL => {
                let passphrase = passphrase.ok_or(ReadPrivateKeyError::NoPassphrase)?;
                Self::from_pkcs8(&decrypt(&block.contents, passphrase)?)
            }
            _ => Err(ReadPrivateKeyError::Label { label: block.label }),
        }
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, ReadPrivateKeyError> {
        let pair = pair(pkcs8).ok_or(ReadPrivateKeyError::Unknown)?;
        let public = pair.public().ok_or(ReadPrivateKeyError::Unknown)?;
        Ok(Self {
            public: PublicKey::parse_info(&public).map_err(ReadPrivateKeyError::Unfit)?,
            pair,
        })
    }

    /// Makes a key on P-256, and the file of it: encrypted, as cosign and
    /// skopeo read it.
    ///
    /// # Errors
    /// [`SignError`]
    pub fn generate(passphrase: &[u8]) -> Result<(Self, String), SignError> {
        let failed = SignError {
            doing: "make a key",
        };
        let pair = EcdsaKeyPair::generate(&mathematics::ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| failed)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| failed)?;
        let file = encrypt(pkcs8.as_ref(), passphrase)?;
        let pair = Pair::Ecdsa(pair);
        let public = pair
            .public()
            .and_then(|info| PublicKey::parse_info(&info).ok())
            .ok_or(failed)?;
        Ok((Self { pair, public }, file))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message with the hash that goes with the kind of key.
    ///
    /// # Errors
    /// [`SignError`]
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |_| SignError { doing: "sign" };
        let random = SystemRandom::new();
        Ok(match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&random, message)
                .map_err(failed)?
                .as_ref()
                .to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(
                    &mathematics::RSA_PKCS1_SHA256,
                    &random,
                    message,
                    &mut signature,
                )
                .map_err(failed)?;
                signature
            }
        })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public)
    }
}

impl Pair {
    /// The SubjectPublicKeyInfo.
    fn public(&self) -> Option<Vec<u8>> {
        let info: PublicKeyX509Der<'_> = match self {
            Self::Ecdsa(pair) => pair.public_key().as_der(),
            Self::Ed25519(pair) => pair.public_key().as_der(),
            Self::Rsa(pair) => pair.public_key().as_der(),
        }
        .ok()?;
        Some(info.as_ref().to_vec())
    }
}

fn pair(pkcs8: &[u8]) -> Option<Pair> {
    let curves = [
        &mathematics::ECDSA_P256_SHA256_ASN1_SIGNING,
        &mathematics::ECDSA_P384_SHA384_ASN1_SIGNING,
        &mathematics::ECDSA_P521_SHA512_ASN1_SIGNING,
    ];
    curves
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_pkcs8(curve, pkcs8).ok())
        .map(Pair::Ecdsa)
        .or_else(|| {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
                .ok()
                .map(Pair::Ed25519)
        })
        .or_else(|| rsa::KeyPair::from_pkcs8(pkcs8).ok().map(Pair::Rsa))
}

fn decrypt(text: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, ReadPrivateKeyError> {
    let malformed = |why: String| ReadPrivateKeyError::Malformed { why };
    let file: Encrypted =
        serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
    for (name, known) in [
        (&file.kdf.name, "scrypt"),
        (&file.cipher.name, "nacl/secretbox"),
    ] {
        if name != known {
            return Err(malformed(format!("{name:?} is not known; {known} is")));
        }
    }
    let nonce: [u8; NONCE_BYTES] = file
        .cipher
        .nonce
        .0
        .try_into()
        .map_err(|_| malformed("the nonce has another length".into()))?;
    let key = derive(passphrase, &file.kdf.salt.0, file.kdf.params).map_err(malformed)?;
    XSalsa20Poly1305::new(&key.into())
        .decrypt(&nonce.into(), file.ciphertext.0.as_slice())
        .map_err(|_| ReadPrivateKeyError::WrongPassphrase)
}

fn encrypt(pkcs8: &[u8], passphrase: &[u8]) -> Result<String, SignError> {
    let failed = SignError {
        doing: "encrypt a key",
    };
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    rand::fill(&mut salt).map_err(|_| failed)?;
    rand::fill(&mut nonce).map_err(|_| failed)?;
    let key = derive(passphrase, &salt, SCRYPT).map_err(|_| failed)?;
    let ciphertext = XSalsa20Poly1305::new(&key.into())
        .encrypt(&nonce.into(), pkcs8)
        .map_err(|_| failed)?;
    let file = Encrypted {
        kdf: Kdf {
            name: "scrypt".into(),
            params: SCRYPT,
            salt: Base64(salt.to_vec()),
        },
        cipher: Cipher {
            name: "nacl/secretbox".into(),
            nonce: Base64(nonce.to_vec()),
        },
        ciphertext: Base64(ciphertext),
    };
    let text = serde_json::to_vec(&file).map_err(|_| failed)?;
    // The older label: skopeo's older versions read no other.
    Ok(pem::write(COSIGN_LABEL, &text))
}

fn derive(passphrase: &[u8], salt: &[u8], asked: ScryptParams) -> Result<[u8; 32], String> {
    let ScryptParams { n, r, p } = asked;
    let memory_bytes = n
        .checked_mul(u64::from(r))
        .and_then(|blocks| blocks.checked_mul(128));
    if !n.is_power_of_two()
        || memory_bytes.is_none_or(|bytes| bytes > SCRYPT_BYTES)
        || p > SCRYPT_PARALLEL
    {
        return Err("scrypt is asked for too much".into());
    }
    let log_n = u8::try_from(n.trailing_zeros()).map_err(|error| error.to_string())?;
    let mut key = [0; 32];
    let params = scrypt::Params::new(log_n, r, p, key.len()).map_err(|error| error.to_string())?;
    scrypt::scrypt(passphrase, salt, &params, &mut key).map_err(|error| error.to_string())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_with_its_passphrase_only() {
        let (key, file) = PrivateKey::generate(b"secret").unwrap();
        let again = PrivateKey::parse(file.as_bytes(), Some(b"secret")).unwrap();
        assert_eq!(key.public(), again.public());
        assert!(key.public().verify(b"x", &again.sign(b"x").unwrap()));
        assert!(matches!(
            PrivateKey::parse(file.as_bytes(), Some(b"Secret")),
            Err(ReadPrivateKeyError::WrongPassphrase)
        ));
        assert!(matches!(
            PrivateKey::parse(file.as_bytes(), None),
            Err(ReadPrivateKeyError::NoPassphrase)
        ));
    }

    #[test]
    fn files_that_ask_for_too_much_or_the_unknown_are_refused() {
        let (_, file) = PrivateKey::generate(b"secret").unwrap();
        let text = pem::parse_one(file.as_bytes()).unwrap().contents;
        let text = String::from_utf8(text).unwrap();
        for (from, to) in [
            (r#""N":65536"#, r#""N":4194304"#),
            (r#""N":65536"#, r#""N":65535"#),
            (r#""N":65536"#, r#""N":0"#),
            (r#""r":8"#, r#""r":4000000000"#),
            (r#""r":8"#, r#""r":0"#),
            (r#""p":1"#, r#""p":5"#),
            (r#""p":1"#, r#""p":0"#),
            ("scrypt", "argon2"),
            ("nacl/secretbox", "aes"),
            (r#""nonce":""#, r#""nonce":"AAAA"#),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            let file = pem::write(SIGSTORE_LABEL, changed.as_bytes());
            let refused = PrivateKey::parse(file.as_bytes(), Some(b"secret"));
            assert!(
                matches!(refused, Err(ReadPrivateKeyError::Malformed { .. })),
                "{to}: {refused:?}"
            );
        }
    }
}
