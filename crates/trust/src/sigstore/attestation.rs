// SPDX-License-Identifier: Apache-2.0
//! Attestations: signed statements about an image that are more than "signed".
//!
//! They lie in an attachment of their own (tag `sha256-….att`, one envelope a
//! layer) or in bundles, beside the signatures.

use std::time::SystemTime;

use gantry_oci::{Algorithm, Limits, ManifestDigest};
use serde_json::Value;

use super::bundle::{Bundle, Content};
use super::dsse::{ENVELOPE_MEDIA_TYPE, Envelope};
use super::payload::excerpt;
use super::{BUNDLE_MEDIA_TYPE, Evidence, Signer, Verifier};
use crate::refusal::{Reason, Refusal};
use crate::stored::SigstoreSignature;

/// What an attestation must be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The type of its predicate, exactly.
    pub predicate_type: &'a str,
    /// The manifest that must be one of its subjects.
    pub manifest_digest: &'a ManifestDigest,
}

/// A statement about manifests by somebody who is accepted.
///
/// Holding one says: the verifier's key or subject signed a statement of this
/// type about these manifests. What the predicate says is for the caller to
/// judge.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    /// What kind of statement it is.
    pub predicate_type: String,
    /// What it is about. Subjects that are no manifests are left out.
    pub manifest_digests: Vec<ManifestDigest>,
    /// What it says.
    pub predicate: Value,
    /// Who says it.
    pub signer: Signer,
    /// When the log took it, where a log was asked for and proves a time.
    pub logged_at: Option<SystemTime>,
    /// As [`SigstoreClaim::holds_until`](super::SigstoreClaim::holds_until).
    pub holds_until: Option<SystemTime>,
}

/// Verifies one attestation, an envelope of an attachment or a bundle, whatever
/// it is about.
///
/// # Errors
/// Why it does not count: as for [`verify`](super::verify).
pub fn read(
    attestation: &SigstoreSignature,
    verifier: &Verifier,
    now: SystemTime,
    limits: &Limits,
) -> Result<Attestation, Refusal> {
    match attestation.mime_type.as_str() {
        ENVELOPE_MEDIA_TYPE => {
            let envelope = Envelope::parse(&attestation.payload, limits)?;
            let evidence = Evidence::of_annotations(attestation, verifier, limits)?;
            read_envelope(&envelope, &evidence, verifier, now, limits)
        }
        BUNDLE_MEDIA_TYPE => {
            let Bundle {
                certificate,
                entries,
                content,
            } = Bundle::parse(&attestation.payload, limits)?;
            let Content::Dsse(envelope) = content else {
                return Err(Refusal::new(
                    Reason::Payload,
                    "the bundle is a signature, not an attestation",
                ));
            };
            let evidence = Evidence::of_bundle(certificate.as_deref(), &entries);
            read_envelope(&envelope, &evidence, verifier, now, limits)
        }
        other => Err(Refusal::new(
            Reason::Unsupported,
            format!(
                "an attachment of type {:?} is no attestation",
                excerpt(other)
            ),
        )),
    }
}

fn read_envelope(
    envelope: &Envelope,
    evidence: &Evidence<'_>,
    verifier: &Verifier,
    now: SystemTime,
    limits: &Limits,
) -> Result<Attestation, Refusal> {
    let proven = evidence.prove_envelope(envelope, verifier, now, limits)?;
    let statement = envelope.statement(limits)?;
    let manifest_digests = statement
        .subjects
        .iter()
        .flat_map(|subject| {
            [Algorithm::Sha256, Algorithm::Sha512]
                .into_iter()
                .filter_map(|algorithm| subject.manifest_digest(algorithm))
        })
        .collect();
    Ok(Attestation {
        predicate_type: statement.predicate_type,
        manifest_digests,
        predicate: statement.predicate,
        signer: proven.signer,
        logged_at: proven.logged_at,
        holds_until: proven.holds_until,
    })
}

/// Verifies one attestation that must be of a type and about a manifest.
///
/// # Errors
/// As [`read`], and [`Reason::Payload`] for another type of predicate,
/// [`Reason::OtherDigest`] for other subjects.
pub fn verify(
    attestation: &SigstoreSignature,
    verifier: &Verifier,
    wanted: Wanted<'_>,
    now: SystemTime,
    limits: &Limits,
) -> Result<Attestation, Refusal> {
    let found = read(attestation, verifier, now, limits)?;
    if found.predicate_type != wanted.predicate_type {
        return Err(Refusal::new(
            Reason::Payload,
            format!(
                "the attestation is of type {:?}, not {:?}",
                excerpt(&found.predicate_type),
                wanted.predicate_type
            ),
        ));
    }
    if !found.manifest_digests.contains(wanted.manifest_digest) {
        return Err(Refusal::new(
            Reason::OtherDigest,
            format!("the attestation is not about {}", wanted.manifest_digest),
        ));
    }
    Ok(found)
}
