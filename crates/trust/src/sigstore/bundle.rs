// SPDX-License-Identifier: Apache-2.0
//! Sigstore bundles, version 0.3: what cosign 3 attaches to an image.
//!
//! A bundle is one JSON document with a signature, whose it is (a certificate,
//! or a hint at a key) and entries of transparency logs. The signature is over
//! an envelope (DSSE) around a statement (in-toto), or over the image's
//! manifest itself.
//!
//! A statement names what it is about by digest and perhaps by name. Cosign
//! writes no name, so such a bundle says of an image only that it was signed,
//! not as what; whether that is enough, a requirement decides
//! ([`Claim::docker_reference`] is absent then). Gantry writes the reference as
//! the subject's name.
//!
//! # Source
//! Sigstore's `protobuf-specs`, `sigstore_bundle.proto` in its JSON form.

use std::collections::BTreeMap;

use gantry_oci::{Algorithm, Digest, Limits, ManifestDigest, strict_json};
use serde::Deserialize;
use serde_json::Value;

use super::dsse::{Envelope, Statement};
use super::json::Base64;
use super::log::Entry;
use super::payload::excerpt;
use crate::claim::Claim;
use crate::refusal::{Reason, Refusal};

/// The media type of a bundle, which is also the artifact type of its manifest.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What a statement says that is a plain signature of an image.
pub const SIGN_PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    media_type: String,
    verification_material: Material,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
    #[serde(default)]
    message_signature: Option<MessageSignature>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    #[serde(default)]
    certificate: Option<Certificate>,
    #[serde(default)]
    public_key: Option<Hint>,
    #[serde(default)]
    tlog_entries: Vec<Entry>,
    // Timestamps of other authorities prove nothing here, and harm nothing.
    #[serde(default, rename = "timestampVerificationData")]
    _timestamps: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Certificate {
    raw_bytes: Base64,
}

/// Which key it may be. It is the signer's word, and every key is tried.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    #[serde(default, rename = "hint")]
    _hint: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MessageSignature {
    message_digest: MessageDigest,
    signature: Base64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageDigest {
    algorithm: String,
    digest: Base64,
}

/// A bundle that was taken apart, and of which nothing is proven.
#[derive(Debug)]
pub(super) struct Bundle {
    /// The certificate's encoding, if the signer sent one.
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) entries: Vec<Entry>,
    pub(super) content: Content,
}

/// What was signed.
#[derive(Debug)]
pub(super) enum Content {
    /// An envelope.
    Dsse(Envelope),
    /// A manifest of which the bundle has the SHA-256.
    Message {
        manifest_digest: ManifestDigest,
        signature: Vec<u8>,
    },
}

impl Bundle {
    pub(super) fn parse(text: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let refuse = |why: String| Refusal::new(Reason::Malformed, format!("the bundle {why}"));
        strict_json::check(text, limits.json_depth)
            .map_err(|error| refuse(format!("is not strict JSON: {error}")))?;
        let document: Document = serde_json::from_slice(text)
            .map_err(|error| refuse(format!("has not the members that it must have: {error}")))?;
        if document.media_type != BUNDLE_MEDIA_TYPE {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "bundles of type {:?} are not known; version 0.3 is",
                    excerpt(&document.media_type)
                ),
            ));
        }
        let Material {
            certificate,
            public_key,
            tlog_entries,
            ..
        } = document.verification_material;
        if certificate.is_some() == public_key.is_some() {
            return Err(refuse(
                "has not exactly one of a certificate and a key".into(),
            ));
        }
        if tlog_entries.len() > limits.log_entries {
            return Err(Refusal::new(
                Reason::TooLarge,
                format!(
                    "the bundle has {} log entries; {} are allowed",
                    tlog_entries.len(),
                    limits.log_entries
                ),
            ));
        }
        let content = match (document.dsse_envelope, document.message_signature) {
            (Some(envelope), None) => Content::Dsse(envelope),
            (None, Some(signature)) => message(signature)?,
            _ => {
                return Err(refuse(
                    "has not exactly one of an envelope and a signature".into(),
                ));
            }
        };
        Ok(Self {
            certificate: certificate.map(|certificate| certificate.raw_bytes.0),
            entries: tlog_entries,
            content,
        })
    }
}

fn message(signature: MessageSignature) -> Result<Content, Refusal> {
    let MessageDigest { algorithm, digest } = signature.message_digest;
    let sha256: [u8; 32] = match (algorithm.as_str(), digest.0.try_into()) {
        ("SHA2_256", Ok(sha256)) => sha256,
        ("SHA2_256", Err(_)) => {
            return Err(Refusal::new(
                Reason::Malformed,
                "the bundle's SHA-256 has another length",
            ));
        }
        (other, _) => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "signatures over a {:?} of the manifest are not known",
                    excerpt(other)
                ),
            ));
        }
    };
    Ok(Content::Message {
        manifest_digest: ManifestDigest::from_digest(Digest::sha256(sha256)),
        signature: signature.signature.0,
    })
}

/// Reads the claim out of a statement, after the signature over it was found good.
pub(super) fn claim(statement: &Statement) -> Result<Claim, Refusal> {
    let refuse = |why: String| Refusal::new(Reason::Payload, format!("the signed statement {why}"));
    if statement.predicate_type != SIGN_PREDICATE_TYPE {
        return Err(refuse(format!(
            "is no signature but an attestation of type {:?}",
            excerpt(&statement.predicate_type)
        )));
    }
    let [subject] = statement.subjects.as_slice() else {
        return Err(refuse(format!(
            "is about {} things, not about one image",
            statement.subjects.len()
        )));
    };
    let manifest_digest = subject
        .manifest_digest(Algorithm::Sha256)
        .or_else(|| subject.manifest_digest(Algorithm::Sha512))
        .ok_or_else(|| refuse("names no manifest".into()))?;
    Ok(Claim {
        manifest_digest,
        docker_reference: subject.name.clone().filter(|name| !name.is_empty()),
        creator: None,
        timestamp_s: None,
    })
}

/// What the manifest says in which a registry keeps a bundle: cosign finds
/// bundles by it. A bundle that cannot be read says nothing.
#[must_use]
pub fn bundle_annotations(bundle: &[u8]) -> BTreeMap<&'static str, String> {
    const CONTENT: &str = "dev.sigstore.bundle.content";
    const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
    let limits = Limits::DEFAULT;
    match Bundle::parse(bundle, &limits).map(|bundle| bundle.content) {
        Ok(Content::Dsse(envelope)) => {
            let mut annotations = BTreeMap::from([(CONTENT, "dsse-envelope".into())]);
            if let Ok(statement) = envelope.statement(&limits) {
                annotations.insert(PREDICATE_TYPE, statement.predicate_type);
            }
            annotations
        }
        Ok(Content::Message { .. }) => BTreeMap::from([(CONTENT, "message-signature".into())]),
        Err(_) => BTreeMap::new(),
    }
}
