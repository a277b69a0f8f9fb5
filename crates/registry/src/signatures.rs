// SPDX-License-Identifier: Apache-2.0
//! Signatures of images, by the extension that the containers family knows.
//!
//! They are kept with the image in the store, apart for each repository, where
//! every host that mounts the tree reads them; those of what is kept without a
//! tree, or not published yet, lie beside the registry's own state. Clients that
//! see the registry announce the extension look into no lookaside any more, so a
//! repository may name one whose signatures are shown as well.
//!
//! Where the repository asks the policy, a signature may come before its
//! manifest, and each one that comes has what waits judged again.
//!
//! # Source
//! containers/image "signature-protocols", `X-Registry-Supports-Signatures`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_image::SignatureBlob;
use gantry_oci::{Digest, ManifestDigest, Repository};
use gantry_trust::lookaside::Base;
use gantry_trust::{StoredSignature, openpgp};
use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use crate::errors::{ApiError, Code};
use crate::gate::{self, Gate};
use crate::manifests::Arriving;
use crate::pipeline::longest_match;
use crate::respond::Answer;
use crate::serve::Registry;
use crate::state::Member;

/// Announces the extension.
pub const ANNOUNCEMENT: HeaderName = HeaderName::from_static("x-registry-supports-signatures");

/// The only version and kind of signature that the extension has.
const SCHEMA_VERSION: u32 = 2;
const KIND: &str = "atomic";

/// How long the lookasides of one manifest may take to answer.
const LOOKASIDE_TIMEOUT: Duration = Duration::from_secs(15);

/// What is done with signatures of a repository's images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keeping {
    /// They are not taken. If other repositories keep them, clients learn that
    /// there are none here.
    #[default]
    Off,
    /// They are kept and given.
    Own,
    /// The same, and those of a lookaside are given too.
    Merged(Base),
}

/// Which repositories keep signatures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignatureRules {
    /// Where nothing else is said.
    pub default: Keeping,
    /// By repository, or by a prefix that ends in `/*`; the longest match counts.
    pub repositories: BTreeMap<String, Keeping>,
}

impl SignatureRules {
    pub(crate) fn of(&self, repository: &Repository) -> &Keeping {
        longest_match(&self.repositories, repository).unwrap_or(&self.default)
    }

    /// Whether any repository gives what lies in a lookaside.
    #[must_use]
    pub fn merges(&self) -> bool {
        let mut all = self.repositories.values().chain([&self.default]);
        all.any(|keeping| matches!(keeping, Keeping::Merged(_)))
    }

    /// Whether the extension is announced: one answer is for all repositories.
    pub fn announced(&self) -> bool {
        let mut all = self.repositories.values().chain([&self.default]);
        all.any(|keeping| *keeping != Keeping::Off)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Signature {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    content: String,
}

#[derive(Debug, Serialize)]
struct List {
    signatures: Vec<Signature>,
}

/// `GET` of a manifest's signatures. Where the repository asks the policy, a
/// client looks for them before its manifest is there.
pub async fn get(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Response, ApiError> {
    if registry.gate_of(repository).is_none() {
        must_exist(registry, repository, digest)?;
    }
    let mut found = Vec::new();
    let keeping = registry.signatures.of(repository);
    if *keeping != Keeping::Off {
        found = simple(own(registry, repository, digest)?);
    }
    if let Keeping::Merged(base) = keeping {
        let turn = registry.lookups.acquire().await;
        let read = read_lookasides(registry, std::slice::from_ref(base), repository, digest).await;
        drop(turn);
        let unread = |why| ApiError::unavailable("the lookaside cannot be read", why);
        for signature in simple(read.map_err(unread)?) {
            if !found.contains(&signature) {
                found.push(signature);
            }
        }
    }
    let signatures = found.iter().map(|content| to_wire(digest, content));
    let signatures = signatures.collect();
    Ok(Answer::new(StatusCode::OK).json("application/json", &List { signatures }))
}

/// Reads lookasides, for as long as a client has patience.
///
/// # Errors
/// Why one cannot be read, for the log: what is there must not be hidden by an answer without it.
pub(crate) async fn read_lookasides(
    registry: &Registry,
    bases: &[Base],
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Vec<Bytes>, String> {
    let reading = async {
        let mut all = Vec::new();
        for base in bases {
            all.extend(registry.lookasides.read(base, repository, digest).await?);
        }
        Ok(all)
    };
    let read = tokio::time::timeout(LOOKASIDE_TIMEOUT, reading).await;
    read.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
}

fn to_wire(digest: &ManifestDigest, content: &[u8]) -> Signature {
    let hex = Digest::of(gantry_oci::Algorithm::Sha256, content).hex();
    Signature {
        schema_version: SCHEMA_VERSION,
        name: format!("{digest}@{}", &hex[..32]),
        kind: KIND.to_owned(),
        content: STANDARD.encode(content),
    }
}

fn must_exist(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<(), ApiError> {
    if registry
        .state
        .has(repository, Member::Manifest, digest.digest())
    {
        return Ok(());
    }
    let message = format!("repository {repository} has no manifest {digest}");
    Err(ApiError::new(Code::ManifestUnknown, message))
}

/// All signatures of a manifest that are kept here for a repository, as they are stored.
pub(crate) fn own(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Vec<Bytes>, ApiError> {
    let read = |error: std::io::Error| ApiError::io("read signatures", &error);
    let mut found = registry
        .state
        .signatures(repository, digest.digest(), &registry.limits)
        .map_err(read)?;
    found.extend(registry.pipeline.signatures(repository, digest)?);
    Ok(found)
}

/// Those of the kind that the extension carries, each once.
fn simple(stored: Vec<Bytes>) -> Vec<Bytes> {
    let mut distinct: Vec<Bytes> = Vec::new();
    for signature in stored {
        let Ok(StoredSignature::Simple(message)) = StoredSignature::parse(&signature) else {
            continue;
        };
        if !distinct.contains(&message) {
            distinct.push(message);
        }
    }
    distinct
}

/// `PUT` of one signature.
pub async fn put(
    registry: &Arc<Registry>,
    repository: &Repository,
    digest: &ManifestDigest,
    body: Body,
) -> Result<Response, ApiError> {
    let mut arriving = Arriving::new(registry);
    arriving.read(body).await?;
    let bytes = arriving.take();
    let work = {
        let registry = Arc::clone(registry);
        let (repository, digest) = (repository.clone(), *digest);
        tokio::task::spawn_blocking(move || accept(&registry, &repository, &digest, &bytes))
    };
    work.await
        .unwrap_or_else(|error| Err(ApiError::internal("keep the signature", &error)))?;
    gate::review_about(registry, repository, digest).await?;
    Ok(Answer::new(StatusCode::CREATED).done())
}

fn accept(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
    body: &[u8],
) -> Result<(), ApiError> {
    if *registry.signatures.of(repository) == Keeping::Off {
        let message = format!("repository {repository} keeps no signatures");
        return Err(ApiError::new(Code::Unsupported, message));
    }
    let content = parse(digest, body, registry)?;
    let exists = must_exist(registry, repository, digest);
    if let (Err(absent), gate) = (&exists, registry.gate_of(repository)) {
        match gate {
            Some(gate) => check_pending(registry, gate, repository, digest)?,
            None => return Err(ApiError::new(Code::ManifestUnknown, absent.message())),
        }
    }
    let known = simple(own(registry, repository, digest)?);
    if known.contains(&content) {
        return Ok(());
    }
    check_room(digest, &known, &content, registry)?;
    let signature = SignatureBlob {
        format: "simple-signing".into(),
        bytes: content,
    };
    if exists.is_ok()
        && registry
            .pipeline
            .add_signature(repository, digest, &signature)?
    {
        return Ok(());
    }
    registry
        .state
        .add_signature(repository, digest.digest(), &signature.bytes)
        .map_err(|error| ApiError::io("keep the signature", &error))
}

/// Whether signatures of a manifest that is not here may be kept.
fn check_pending(
    registry: &Registry,
    gate: &Gate,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<(), ApiError> {
    let room = gate.has_room_for_pending(registry, repository, digest);
    if room.map_err(|error| ApiError::io("count signatures", &error))? {
        return Ok(());
    }
    let message =
        format!("repository {repository} has signatures of too many manifests that it has not");
    Err(ApiError::new(Code::TooManyRequests, message))
}

/// The signature in a request, if it is one of this manifest. What it says is
/// for those to judge who have the keys.
fn parse(digest: &ManifestDigest, body: &[u8], registry: &Registry) -> Result<Bytes, ApiError> {
    let refuse = |why: String| ApiError::new(Code::ManifestInvalid, why);
    let signature: Signature = serde_json::from_slice(body)
        .map_err(|error| refuse(format!("the signature is not of the right form: {error}")))?;
    if signature.schema_version != SCHEMA_VERSION || signature.kind != KIND {
        return Err(refuse(format!(
            "a signature has schemaVersion {SCHEMA_VERSION} and type {KIND}"
        )));
    }
    let name = signature.name.split_once('@');
    if name.is_none_or(|(named, _)| named != digest.to_string()) {
        return Err(refuse(format!(
            "a signature of {digest} is named {digest}@…"
        )));
    }
    let content = STANDARD
        .decode(&signature.content)
        .map_err(|error| refuse(format!("the signature's content is not base64: {error}")))?;
    let content = Bytes::from(content);
    match StoredSignature::parse(&content) {
        Ok(StoredSignature::Simple(message)) => {
            openpgp::check_message(&message, &registry.limits)
                .map_err(|refusal| refuse(refusal.to_string()))?;
            Ok(message)
        }
        Ok(StoredSignature::Sigstore(_)) => Err(refuse("only simple signatures are kept".into())),
        Err(refusal) => Err(refuse(refusal.to_string())),
    }
}

/// Whether clients would still read the list with one more.
fn check_room(
    digest: &ManifestDigest,
    known: &[Bytes],
    new: &Bytes,
    registry: &Registry,
) -> Result<(), ApiError> {
    let sizes = known.iter().chain([new]);
    let wire_bytes: usize = sizes.map(|one| one.len().div_ceil(3) * 4 + 256).sum();
    if known.len() < registry.limits.signatures
        && wire_bytes as u64 <= registry.limits.signature_list_bytes
    {
        return Ok(());
    }
    let message = format!("manifest {digest} has as many signatures as clients read");
    Err(ApiError::new(Code::SizeInvalid, message))
}
