// SPDX-License-Identifier: Apache-2.0
//! policy.json: what the containers/image family reads, to the letter.
//!
//! ```text
//! {"default": [REQUIREMENT…],
//!  "transports": {"docker": {"": [REQUIREMENT…], "host/ns/repo:tag": [REQUIREMENT…]}}}
//! ```
//!
//! One list is picked for an image, that of the most specific scope
//! ([`scope`](crate::scope)); all of its requirements must be met. A file with
//! a member that is unknown, doubled or of a wrong type anywhere is no policy
//! at all, and nothing is admitted.
//!
//! # Source
//! containers-policy.json(5).

mod edit;
mod find;
mod parse;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use gantry_oci::{Kind, Limits};

pub use edit::{Edit, EditPolicyError};
pub use find::{LoadPolicyError, PolicyPlaces};
pub(crate) use find::{ReadError, read_guarded};

use crate::identity::SignedIdentity;
use crate::scope::{Matched, Subject};

/// A policy as it stands in its file; no key was read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    text: Bytes,
    default: Vec<Requirement>,
    transports: BTreeMap<String, Scopes>,
}

/// The scopes of one transport, each with its requirements.
pub type Scopes = BTreeMap<String, Vec<Requirement>>;

/// One requirement of a list, all of which must be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Met by every image, signed or not.
    InsecureAcceptAnything,
    /// Met by none.
    Reject,
    /// A simple signature by one of these keys.
    SignedBy(SignedBy),
    /// Declared by the format and implemented by nobody: met by none.
    SignedBaseLayer(SignedIdentity),
    /// A sigstore signature by one of these keys or certificates.
    SigstoreSigned(Box<SigstoreSigned>),
}

/// The `signedBy` requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// What the keys are; only [`KeyType::GpgKeys`] can be met.
    pub key_type: KeyType,
    /// Where the keys are; any of them will do.
    pub keys: Source,
    /// Which reference the signature must name.
    pub identity: SignedIdentity,
}

/// The `keyType` of `signedBy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// OpenPGP keys.
    GpgKeys,
    /// OpenPGP keys that are signed by these keys; declared, never implemented.
    SignedByGpgKeys,
    /// X.509 certificates; declared, never implemented.
    X509Certificates,
    /// X.509 certificates by these authorities; declared, never implemented.
    SignedByX509Cas,
}

impl KeyType {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GpgKeys => "GPGKeys",
            Self::SignedByGpgKeys => "signedByGPGKeys",
            Self::X509Certificates => "X509Certificates",
            Self::SignedByX509Cas => "signedByX509CAs",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [
            Self::GpgKeys,
            Self::SignedByGpgKeys,
            Self::X509Certificates,
            Self::SignedByX509Cas,
        ]
        .into_iter()
        .find(|key_type| key_type.as_str() == word)
    }
}

/// Where key material is: in files, or in the policy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Files, at least one where the format says `…Paths`.
    Files(Vec<PathBuf>),
    /// Contents.
    Inline(Vec<Bytes>),
}

/// The `sigstoreSigned` requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigstoreSigned {
    /// Who may sign.
    pub signers: SigstoreSigners,
    /// Public keys of transparency logs, one of which must have recorded the signature.
    pub rekor: Option<Source>,
    /// Which reference the signature must name.
    pub identity: SignedIdentity,
}

/// Who may make a sigstore signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigstoreSigners {
    /// The holders of these public keys.
    Keys(Source),
    /// Whoever Fulcio gave a certificate for this address.
    Fulcio {
        /// Fulcio's roots.
        ca: Source,
        /// Who vouched for the address.
        oidc_issuer: String,
        /// The address.
        subject_email: String,
    },
    /// The holders of certificates that lead to these roots.
    Pki {
        /// The roots.
        roots: Source,
        /// Certificates between the signers' and the roots.
        intermediates: Option<Source>,
        /// The certificate must be for this host.
        subject_hostname: Option<String>,
        /// The certificate must be for this address.
        subject_email: Option<String>,
    },
}

impl Requirement {
    /// The word in the file.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::InsecureAcceptAnything => "insecureAcceptAnything",
            Self::Reject => "reject",
            Self::SignedBy(_) => "signedBy",
            Self::SignedBaseLayer(_) => "signedBaseLayer",
            Self::SigstoreSigned(_) => "sigstoreSigned",
        }
    }
}

/// Why a file is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePolicyError {
    /// It is larger than any policy.
    #[error("policy has {size_bytes} bytes, more than the {max_bytes} allowed")]
    TooLarge {
        /// What was given.
        size_bytes: usize,
        /// The cap.
        max_bytes: usize,
    },
    /// It is no JSON, or JSON that may mean two things.
    #[error("read JSON")]
    Json(#[source] serde_json::Error),
    /// A part of it is not by the rules.
    #[error("{place}: {problem}")]
    Value {
        /// Where: `transports, docker, example.com, requirement 1`.
        place: Place,
        /// What is wrong.
        problem: String,
    },
}

impl ParsePolicyError {
    /// Always invalid input.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

/// Where in a policy something stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place(Vec<String>);

impl Place {
    fn below(&self, step: impl Into<String>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("policy");
        }
        f.write_str(&self.0.join(", "))
    }
}

impl Policy {
    /// Parses a policy file.
    ///
    /// # Errors
    /// [`ParsePolicyError`]; there is no policy then, and nothing may be admitted.
    pub fn parse(text: Bytes, limits: &Limits) -> Result<Self, ParsePolicyError> {
        parse::parse(text, limits)
    }

    /// The policy that admits everything: skopeo's `--insecure-policy`.
    #[must_use]
    pub fn insecure() -> Self {
        Self {
            text: Bytes::from_static(br#"{"default":[{"type":"insecureAcceptAnything"}]}"#),
            default: vec![Requirement::InsecureAcceptAnything],
            transports: BTreeMap::new(),
        }
    }

    /// The file's bytes.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// What holds where no scope matches.
    #[must_use]
    pub fn default_requirements(&self) -> &[Requirement] {
        &self.default
    }

    /// The scopes by transport, those of transports that nobody knows included.
    #[must_use]
    pub fn transports(&self) -> &BTreeMap<String, Scopes> {
        &self.transports
    }

    /// The one list that holds for a subject, and the scope that it stands under.
    #[must_use]
    pub fn requirements_for(&self, subject: &Subject) -> (Matched, &[Requirement]) {
        let scopes = self.transports.get(subject.transport());
        let found = scopes.and_then(|scopes| {
            let mut candidates = subject.candidates();
            candidates.find_map(|candidate| Some((candidate, scopes.get(candidate)?)))
        });
        match found {
            Some((scope, requirements)) => (Matched::Scope(scope.to_owned()), requirements),
            None => (Matched::Default, &self.default),
        }
    }
}
