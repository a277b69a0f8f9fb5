// SPDX-License-Identifier: Apache-2.0
//! The seam between a requirement and the cryptography that checks it.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::claim::Claim;
use crate::refusal::{Reason, Refusal};
use crate::sigstore::attestation::Wanted;
use crate::stored::StoredSignature;

/// The keys or certificates of one requirement, ready to check signatures.
pub trait Mechanism: fmt::Debug + Send + Sync {
    /// Checks a signature and reads what it says. Whether that is about the
    /// image at hand is not asked here.
    ///
    /// # Errors
    /// Why the signature does not count.
    fn check(&self, signature: &StoredSignature, now: SystemTime) -> Result<Checked, Refusal>;

    /// Checks a signed statement about an image that is more than a plain signature.
    ///
    /// # Errors
    /// Why it counts for nothing; where a mechanism knows no statements, always.
    fn attest(
        &self,
        signature: &StoredSignature,
        wanted: Wanted<'_>,
        now: SystemTime,
    ) -> Result<Attested, Refusal> {
        let _ = (signature, wanted, now);
        let message = "signatures of this kind carry no statements";
        Err(Refusal::new(Reason::Unsupported, message))
    }
}

/// A good statement of the type about the manifest, both as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// Who signed.
    pub signer: Signer,
    /// As [`Checked::expires`].
    pub expires: Option<SystemTime>,
}

/// What a good signature says, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What was signed.
    pub claim: Claim,
    /// Who signed.
    pub signer: Signer,
    /// When: as the mechanism proves it, or else in the signer's words.
    pub made: Option<SystemTime>,
    /// When to look again at the latest: signature or key may have ended then.
    pub expires: Option<SystemTime>,
}

/// Who made a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// Fingerprint of an OpenPGP primary key, or `sha256:` and the digest of a
    /// public key (SPKI, DER). Two signatures with one of these are by one signer.
    pub id: String,
    /// Other names of the key that signed: the fingerprint of a subkey.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// For people: a user ID, the subject of a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// As people know them.
impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_ref().unwrap_or(&self.id))
    }
}

impl Signer {
    /// Whether `id` names this signer or the key that signed, however its letters are cased.
    #[must_use]
    pub fn is(&self, id: &str) -> bool {
        let mut ids = std::iter::once(&self.id).chain(&self.also);
        ids.any(|own| own.eq_ignore_ascii_case(id))
    }
}
