// SPDX-License-Identifier: Apache-2.0
//! Why a signature does not count.

use std::fmt;

use serde::Serialize;

/// The coarse reason of a [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The bytes are not a signature of this kind, or not exactly one.
    Malformed,
    /// A cap of [`Limits`](gantry_oci::Limits) was reached.
    TooLarge,
    /// None of the requirement's keys made it.
    UnknownKey,
    /// The key or certificate may not sign (its flags, a missing binding).
    KeyUnfit,
    /// The key, certificate or signature is over, or not yet valid.
    Expired,
    /// The key was revoked.
    Revoked,
    /// A hash or a key that is too weak.
    Weak,
    /// The signature does not fit the bytes.
    Bad,
    /// The signed text is not a payload by the rules.
    Payload,
    /// It was made for another manifest.
    OtherDigest,
    /// It was made for another reference.
    OtherIdentity,
    /// The certificate does not lead to a root, or names somebody else.
    Certificate,
    /// The transparency log's proof is absent or does not fit.
    Log,
    /// Something that this version does not know.
    Unsupported,
    /// The policy says so, whatever is signed.
    Rejected,
    /// The keys that would be needed cannot be read.
    NoKeys,
}

impl Reason {
    /// A word for machines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::UnknownKey => "unknown-key",
            Self::KeyUnfit => "key-unfit",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Weak => "weak",
            Self::Bad => "bad",
            Self::Payload => "payload",
            Self::OtherDigest => "other-digest",
            Self::OtherIdentity => "other-identity",
            Self::Certificate => "certificate",
            Self::Log => "log",
            Self::Unsupported => "unsupported",
            Self::Rejected => "rejected",
            Self::NoKeys => "no-keys",
        }
    }
}

/// Why a signature does not count: a reason to branch on, a sentence to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// For machines and tests.
    pub reason: Reason,
    /// For people: lower case, no final stop, no bytes of the signer's unescaped.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
