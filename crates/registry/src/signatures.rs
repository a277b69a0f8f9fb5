// SPDX-License-Identifier: Apache-2.0
//! Signatures of images, by the extension that the containers family knows.
//!
//! They are kept with the image in the store, where every host that mounts the
//! tree reads them; those of what is kept without a tree lie beside the
//! registry's own state. Clients that see the registry announce the extension
//! look into no lookaside any more, so a repository may name one whose
//! signatures are shown as well.
//!
//! # Source
//! containers/image "signature-protocols", `X-Registry-Supports-Signatures`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_image::SignatureBlob;
use gantry_oci::{Digest, ManifestDigest, Repository};
use gantry_trust::{StoredSignature, lookaside, openpgp};
use http::{HeaderName, StatusCode};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::errors::{ApiError, Code};
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

/// What is done with signatures of a repository's images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keeping {
    /// They are not taken. If other repositories keep them, clients learn that
    /// there are none here.
    #[default]
    Off,
    /// They are kept and given.
    Own,
    /// The same, and those of a lookaside directory are given too.
    Merged(PathBuf),
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
    fn of(&self, repository: &Repository) -> &Keeping {
        longest_match(&self.repositories, repository).unwrap_or(&self.default)
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

/// `GET` of a manifest's signatures.
pub fn get(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Response, ApiError> {
    must_exist(registry, repository, digest)?;
    let signatures = all(registry, repository, digest)?
        .into_iter()
        .map(|content| to_wire(digest, &content))
        .collect();
    Ok(Answer::new(StatusCode::OK).json("application/json", &List { signatures }))
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

/// The signatures that the repository gives for a manifest, each once. Only
/// those of the kind that the extension carries.
fn all(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Vec<Bytes>, ApiError> {
    let keeping = registry.signatures.of(repository);
    if *keeping == Keeping::Off {
        return Ok(Vec::new());
    }
    let read = |error: std::io::Error| ApiError::io("read signatures", &error);
    let mut found = registry
        .state
        .signatures(repository, digest.digest(), &registry.limits)
        .map_err(read)?;
    found.extend(registry.pipeline.signatures(digest)?);
    if let Keeping::Merged(top) = keeping {
        let directory = top.join(lookaside::directory(repository, digest));
        for number in 1..=registry.limits.signatures {
            let path = directory.join(lookaside::file_name(number));
            match read_file(&path, registry.limits.signature_bytes).map_err(read)? {
                Some(signature) => found.push(signature),
                None => break,
            }
        }
    }
    let mut distinct: Vec<Bytes> = Vec::new();
    for signature in found {
        let Ok(StoredSignature::Simple(message)) = StoredSignature::parse(&signature) else {
            continue;
        };
        if !distinct.contains(&message) {
            distinct.push(message);
        }
    }
    Ok(distinct)
}

/// A signature of a lookaside, if it is there; what is no file or too large
/// for anybody to read is an error.
fn read_file(path: &Path, limit_bytes: u64) -> std::io::Result<Option<Bytes>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from);
    let file = match opened {
        Ok(file) => std::fs::File::from(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let size = if file.metadata()?.is_file() {
        file.take(limit_bytes + 1).read_to_end(&mut bytes)?
    } else {
        usize::MAX
    };
    if size as u64 > limit_bytes {
        let message = format!("{} is no signature", path.display());
        return Err(std::io::Error::other(message));
    }
    Ok(Some(bytes.into()))
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
    let registry = Arc::clone(registry);
    let (repository, digest) = (repository.clone(), *digest);
    let work = tokio::task::spawn_blocking(move || accept(&registry, &repository, &digest, &bytes));
    work.await
        .unwrap_or_else(|error| Err(ApiError::internal("keep the signature", &error)))
}

fn accept(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
    body: &[u8],
) -> Result<Response, ApiError> {
    if *registry.signatures.of(repository) == Keeping::Off {
        let message = format!("repository {repository} keeps no signatures");
        return Err(ApiError::new(Code::Unsupported, message));
    }
    must_exist(registry, repository, digest)?;
    let content = parse(digest, body, registry)?;
    let known = all(registry, repository, digest)?;
    if !known.contains(&content) {
        check_room(digest, &known, &content, registry)?;
        let signature = SignatureBlob {
            format: "simple-signing".into(),
            bytes: content,
        };
        if !registry.pipeline.add_signature(digest, &signature)? {
            registry
                .state
                .add_signature(repository, digest.digest(), &signature.bytes)
                .map_err(|error| ApiError::io("keep the signature", &error))?;
        }
    }
    Ok(Answer::new(StatusCode::CREATED).done())
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
