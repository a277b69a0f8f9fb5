// SPDX-License-Identifier: Apache-2.0
//! Envelopes and the statements in them.
//!
//! # Source
//! The DSSE protocol, version 1.0.2; in-toto attestation framework, Statement
//! v1 (and v0.1, which cosign 2 wrote).

use std::collections::BTreeMap;

use gantry_oci::{Algorithm, Digest, Limits, ManifestDigest, strict_json};
use serde::Deserialize;
use serde_json::Value;

use super::json::Base64;
use super::payload::excerpt;
use crate::refusal::{Reason, Refusal};

/// The media type of an envelope that stands alone.
pub const ENVELOPE_MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// What the envelopes hold that mean something here.
pub const IN_TOTO_PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

const STATEMENT_TYPES: [&str; 2] = [
    "https://in-toto.io/Statement/v1",
    "https://in-toto.io/Statement/v0.1",
];

/// A payload with its type and its signatures.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Envelope {
    payload: Base64,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    sig: Base64,
    #[serde(default, rename = "keyid")]
    _key_id: Option<String>,
}

impl Envelope {
    /// Reads an envelope that stands alone.
    pub(super) fn parse(text: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let refuse = |error: serde_json::Error| {
            Refusal::new(Reason::Malformed, format!("read the envelope: {error}"))
        };
        strict_json::check(text, limits.json_depth).map_err(refuse)?;
        serde_json::from_slice(text).map_err(refuse)
    }

    /// The one signature.
    pub(super) fn signature(&self) -> Result<&[u8], Refusal> {
        match self.signatures.as_slice() {
            [signature] => Ok(&signature.sig.0),
            signatures => Err(Refusal::new(
                Reason::Malformed,
                format!("the envelope has {} signatures, not one", signatures.len()),
            )),
        }
    }

    /// SHA-256 of the payload.
    pub(super) fn payload_digest(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.payload.0)
    }

    /// What is signed.
    pub(super) fn signed_text(&self) -> Vec<u8> {
        signed_text(&self.payload_type, &self.payload.0)
    }

    /// Reads the statement, after the signature over it was found good.
    pub(super) fn statement(&self, limits: &Limits) -> Result<Statement, Refusal> {
        let refuse =
            |why: String| Refusal::new(Reason::Payload, format!("the signed statement {why}"));
        if self.payload_type != IN_TOTO_PAYLOAD_TYPE {
            return Err(refuse(format!(
                "is of type {:?}, not in-toto",
                excerpt(&self.payload_type)
            )));
        }
        strict_json::check(&self.payload.0, limits.json_depth)
            .map_err(|error| refuse(format!("is not strict JSON: {error}")))?;
        let statement: Statement = serde_json::from_slice(&self.payload.0)
            .map_err(|error| refuse(format!("has not the members that it must have: {error}")))?;
        if !STATEMENT_TYPES.contains(&statement.statement_type.as_str()) {
            return Err(refuse(format!(
                "is of version {:?}",
                excerpt(&statement.statement_type)
            )));
        }
        Ok(statement)
    }
}

/// The pre-authentication encoding of a payload.
pub(super) fn signed_text(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    text.extend_from_slice(payload);
    text
}

/// What is said of something. Members that are not known are, by in-toto's
/// rules, ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    #[serde(rename = "subject")]
    pub(super) subjects: Vec<Subject>,
    pub(super) predicate_type: String,
    #[serde(default)]
    pub(super) predicate: Value,
}

/// Of what it is said.
#[derive(Debug, Deserialize)]
pub(super) struct Subject {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl Subject {
    /// The digest of one algorithm, if it is there and well formed.
    pub(super) fn manifest_digest(&self, algorithm: Algorithm) -> Option<ManifestDigest> {
        let hex = self.digest.get(algorithm.name())?;
        format!("{}:{hex}", algorithm.name()).parse().ok()
    }
}
