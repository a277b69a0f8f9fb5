// SPDX-License-Identifier: Apache-2.0
//! Signatures and policy: from a verified manifest to an admitted image, or a
//! refusal with its reason.
//!
//! ```text
//!  SignatureBlob ──StoredSignature::parse──▶ StoredSignature        bytes, unread
//!                                               │ a mechanism (OpenPGP, sigstore) and the keys of a requirement
//!                                               ▼
//!                                             Claim                 "this key says: that digest is that reference"
//!                                               │ the requirement's identity rule, the manifest's digest
//!                                               ▼
//!                                             counts, or a Refusal
//!                                               │ all requirements of the image's scope, the rules of trust.d
//!                                               ▼
//!                                             AdmittedImage, or Denied
//! ```
//!
//! The library reads no environment, no clock and no network: its callers
//! pass in the policy's path, the time and the signatures that were found.

#![forbid(unsafe_code)]

pub mod admit;
pub mod claim;
pub mod evaluate;
pub mod extra;
mod file;
pub mod identity;
mod keys;
pub mod lookaside;
pub mod mechanism;
pub mod openpgp;
pub mod policy;
pub mod prepared;
mod real;
pub mod refusal;
pub mod registries_d;
pub mod scope;
pub mod sign;
pub mod sigstore;
pub mod simple;
pub mod stored;

pub use admit::{AdmittedImage, Advance, Authority, Denied, Memory, NoMemory};
pub use claim::Claim;
pub use evaluate::{FoundSignature, Question, Verdict, evaluate};
pub use extra::Extra;
pub use mechanism::{Attested, Checked, Mechanism, Signer};
pub use openpgp::{Fingerprint, Keyring, ReadKeysError, SignedText};
pub use policy::Policy;
pub use prepared::PreparedPolicy;
pub use refusal::{Reason, Refusal};
pub use scope::Subject;
pub use stored::{SigstoreSignature, StoredSignature};
