// SPDX-License-Identifier: Apache-2.0
//! What a signature says, whatever its mechanism.

use gantry_oci::ManifestDigest;
use serde::Serialize;

/// What a signer said, after the signature over it was found good.
///
/// Holding one says: somebody with an accepted key or certificate signed
/// exactly this. It does not say that the image at hand is the one meant; a
/// requirement compares digest and reference with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The manifest that was signed.
    pub manifest_digest: ManifestDigest,
    /// The reference under which it was signed, as it was written. Absent
    /// only in sigstore bundles, whose statements need no name.
    pub docker_reference: Option<String>,
    /// Which tool made the signature, in its own words.
    pub creator: Option<String>,
    /// When it was made, in seconds of the Unix epoch, in the signer's words.
    pub timestamp_s: Option<i64>,
}
