// SPDX-License-Identifier: Apache-2.0
//! Verbs about signatures.

pub mod generate_sigstore_key;
pub mod manifest_digest;
pub mod sign;
pub mod signers;
pub mod standalone_sign;
pub mod standalone_verify;
pub mod verify;
