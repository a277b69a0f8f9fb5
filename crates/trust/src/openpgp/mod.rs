// SPDX-License-Identifier: Apache-2.0
//! OpenPGP signed messages, verified by a policy of our own.
//!
//! The library underneath does the mathematics. What is believed is decided
//! here, and is less than OpenPGP allows:
//!
//! ```text
//! message ─▶ literal data and exactly one signature, nothing else      packet
//!         ─▶ SHA-2, a strong key of the ring that the signature names   mod, certificate
//!         ─▶ the signature fits the text
//!         ─▶ the key is bound, for signing, alive and not revoked now   certificate
//!         ─▶ the signature is not over                                  mod
//!         ─▶ SignedText                                  only now is the text looked at
//! ```
//!
//! All of it is bounded by [`Limits`]; a panic in the library is a refusal.
//!
//! # Source
//! RFC 9580; containers-signature(5).

mod armor;
mod certificate;
mod packet;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gantry_oci::{Kind, Limits};
use pgp::packet::{Signature, SignatureType, SignatureVersion, SubpacketData};

use self::certificate::{Certificate, Key, check_form, created_s, expires_s, subpackets};
use self::packet::SignedMessage;
use crate::refusal::{Reason, Refusal};

/// How much the signer's clock may be ahead of ours.
const CLOCK_SKEW_S: u64 = 600;

/// The fingerprint of an OpenPGP key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(Box<[u8]>);

impl Fingerprint {
    /// Its bytes: 20 of them, or 32 for keys of version 6.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why key files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadKeysError {
    /// One of them has no public key, or is not what it should be.
    #[error("read OpenPGP keys of file {position}: {why}")]
    Malformed {
        /// Which one, from 1.
        position: usize,
        /// What is wrong.
        why: String,
    },
    /// Together they are larger than a requirement may be.
    #[error("OpenPGP keys have more than {most} {what}")]
    TooLarge {
        /// The cap.
        most: u64,
        /// Of what.
        what: &'static str,
    },
}

impl ReadKeysError {
    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Malformed { .. } => Kind::InvalidInput,
            Self::TooLarge { .. } => Kind::Unsafe,
        }
    }
}

/// Public keys of which any one may have made a signature.
///
/// Having one says that its files hold keys; whether a key may sign is asked
/// when it did, since time goes on.
#[derive(Debug)]
pub struct Keyring {
    certificates: Vec<Certificate>,
}

/// A text, and who signed it.
///
/// Made by [`Keyring::verify`] only. Holding one says: a key of that ring,
/// fit to sign at the time of asking, signed exactly this text, and the
/// signature is not over. It says nothing of what the text means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedText {
    /// What was signed.
    pub text: Bytes,
    /// The primary key of the signer.
    pub key: Fingerprint,
    /// The key that signed: the primary one or a subkey of it.
    pub signer: Fingerprint,
    /// When, by the signer's clock.
    pub created: SystemTime,
    /// Until when the signature holds, if it says so.
    pub expires: Option<SystemTime>,
    /// Until when all of this holds: no later than signature, key and what is said of the key. For good if absent.
    pub holds_until: Option<SystemTime>,
}

impl Keyring {
    /// Reads key files, binary or armoured, of one or more keys each.
    ///
    /// # Errors
    /// [`ReadKeysError`] if one of them has no key, or at a cap.
    pub fn parse(files: &[Bytes], limits: &Limits) -> Result<Self, ReadKeysError> {
        let size_bytes: u64 = files.iter().map(|file| file.len() as u64).sum();
        if size_bytes > limits.keyring_bytes {
            return Err(ReadKeysError::TooLarge {
                most: limits.keyring_bytes,
                what: "bytes",
            });
        }
        let mut certificates = Vec::new();
        let mut packets_left = limits.keyring_packets;
        for (position, file) in (1..).zip(files) {
            let malformed = |why| ReadKeysError::Malformed { position, why };
            let mut rest = armor::packets(file).map_err(malformed)?;
            let mut packets = Vec::new();
            while !rest.is_empty() {
                packets_left = packets_left.checked_sub(1).ok_or(ReadKeysError::TooLarge {
                    most: limits.keyring_packets as u64,
                    what: "packets",
                })?;
                packets.push(packet::take(&mut rest).map_err(|why| malformed(why.message))?);
            }
            let found = catch_unwind(AssertUnwindSafe(|| Certificate::read_all(packets)))
                .unwrap_or_else(|_| Err("the OpenPGP library gave up".into()))
                .map_err(malformed)?;
            if found.is_empty() {
                return Err(malformed("no public key that can be read".into()));
            }
            for certificate in found {
                add(&mut certificates, certificate);
            }
        }
        Ok(Self { certificates })
    }

    /// The primary keys.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.certificates.iter().map(Certificate::fingerprint)
    }

    /// Verifies a signed message, and gives what was signed.
    ///
    /// # Errors
    /// The [`Refusal`] says why the message does not count.
    pub fn verify(
        &self,
        message: &Bytes,
        now: SystemTime,
        limits: &Limits,
    ) -> Result<SignedText, Refusal> {
        catch_unwind(AssertUnwindSafe(|| {
            self.verify_strictly(message, now, limits)
        }))
        .unwrap_or_else(|_| {
            Err(Refusal::new(
                Reason::Malformed,
                "the OpenPGP library gave up on the message",
            ))
        })
    }

    fn verify_strictly(
        &self,
        message: &Bytes,
        now: SystemTime,
        limits: &Limits,
    ) -> Result<SignedText, Refusal> {
        let SignedMessage { text, signature } = SignedMessage::parse(message, limits)?;
        check_data_signature(&signature)?;
        let key = self.find_signer(&signature, &text)?;
        key.check_fit(now, limits)?;
        let created_s = check_times(&signature, key, seconds(now))?;
        let expires_s = expires_s(&signature, created_s);
        let change_s = key.certificate().next_change(seconds(now));
        Ok(SignedText {
            text,
            key: key.certificate().fingerprint(),
            signer: key.fingerprint(),
            created: at(created_s),
            expires: expires_s.map(at),
            holds_until: expires_s.into_iter().chain(change_s).min().map(at),
        })
    }

    /// The key that the signature names and that made it.
    fn find_signer(&self, signature: &Signature, text: &[u8]) -> Result<Key<'_>, Refusal> {
        let named = || {
            self.certificates
                .iter()
                .flat_map(Certificate::keys)
                .filter(|key| key.is_named_by(signature))
        };
        if named().next().is_none() {
            return Err(Refusal::new(
                Reason::UnknownKey,
                format!(
                    "made by the key {}, which is not accepted",
                    issuer(signature)
                ),
            ));
        }
        let mut weak = None;
        for key in named() {
            match key.check_strength() {
                Err(refusal) => weak = Some(refusal),
                Ok(()) if key.made(signature, text) => return Ok(key),
                Ok(()) => {}
            }
        }
        Err(weak.unwrap_or_else(|| {
            Refusal::new(
                Reason::Bad,
                format!("the signature of key {} does not fit", issuer(signature)),
            )
        }))
    }
}

/// Whether bytes are a signed message of the one form that is accepted, and
/// its signature one that may count. Says nothing of who made it.
///
/// # Errors
/// The [`Refusal`] that every keyring would give.
pub fn check_message(message: &Bytes, limits: &Limits) -> Result<(), Refusal> {
    let parsed = catch_unwind(|| SignedMessage::parse(message, limits));
    let SignedMessage { signature, .. } = parsed.unwrap_or_else(|_| {
        Err(Refusal::new(
            Reason::Malformed,
            "the OpenPGP library gave up on the message",
        ))
    })?;
    check_data_signature(&signature)
}

/// Adds a certificate, or what is new of it: a revocation in one file counts
/// for the key in another.
fn add(certificates: &mut Vec<Certificate>, new: Certificate) {
    let name = new.fingerprint();
    match certificates
        .iter_mut()
        .find(|known| known.fingerprint() == name)
    {
        Some(known) => known.merge(new),
        None => certificates.push(new),
    }
}

/// What must hold of the signature itself, before any key is looked at.
fn check_data_signature(signature: &Signature) -> Result<(), Refusal> {
    let version = signature.version();
    if !matches!(version, SignatureVersion::V4 | SignatureVersion::V6) {
        return Err(Refusal::new(
            Reason::Weak,
            format!("a signature of the old version {version:?}"),
        ));
    }
    match signature.typ() {
        Some(SignatureType::Binary) => {}
        other => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!("not a signature of binary data but of type {other:?}"),
            ));
        }
    }
    if created_s(signature).is_none() {
        return Err(Refusal::new(
            Reason::Malformed,
            "the signature does not say when it was made",
        ));
    }
    check_form(signature, "the signature")
}

/// Whether the signature holds at `now_s`; gives when it was made.
fn check_times(signature: &Signature, key: Key<'_>, now_s: u64) -> Result<u64, Refusal> {
    let expired = |why: &str| {
        Err(Refusal::new(
            Reason::Expired,
            format!("the signature {why}"),
        ))
    };
    let created_s = created_s(signature).unwrap_or_default();
    if created_s < key.created_s() {
        return expired("is older than its key");
    }
    if created_s > now_s + CLOCK_SKEW_S {
        return expired("is not yet valid");
    }
    match expires_s(signature, created_s) {
        Some(end) if end <= now_s => expired("has expired"),
        _ => Ok(created_s),
    }
}

/// Who a signature says made it, for people.
fn issuer(signature: &Signature) -> String {
    let (mut fingerprint, mut id) = (None, None);
    for data in subpackets(signature, true) {
        match data {
            SubpacketData::IssuerFingerprint(issuer) => fingerprint = Some(issuer.as_bytes()),
            SubpacketData::IssuerKeyId(issuer) => id = Some(issuer.as_ref()),
            _ => {}
        }
    }
    fingerprint.or(id).map_or_else(
        || "that it does not name".to_owned(),
        |bytes| Fingerprint(bytes.into()).to_string(),
    )
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
