// SPDX-License-Identifier: Apache-2.0
//! The signatures that belong to a registry's image.
//!
//! They are kept beside the registry, in a lookaside, or in it, by an
//! extension that it announces. Other readers look into one of the two; we read
//! both, so that switching on the one hides nothing in the other. Written is
//! to the registry if it keeps signatures, and to the lookaside otherwise.
//! Sigstore's signatures are attached in the registry, where `registries.d`
//! says so, and are read in addition.
//!
//! # Source
//! containers/image "signature-protocols": lookaside and
//! `X-Registry-Supports-Signatures`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_image::{EndpointError, SignatureBlob};
use gantry_oci::{
    Algorithm, Digest, Kind, Limits, ManifestDigest, Reference, Repository as RepositoryName,
};
use gantry_trust::lookaside::{self, Base};
use gantry_trust::{Reason, Refusal, SigstoreSignature, StoredSignature};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use reqwest::Url;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::client::{Repository, Request};
use super::error::RegistryError;

/// The only version and kind of signature that the extension has.
const SCHEMA_VERSION: u32 = 2;
const KIND: &str = "atomic";

#[derive(Debug, Serialize, Deserialize)]
struct ExtensionSignature {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    content: String,
}

#[derive(Debug, Default, Deserialize)]
struct ExtensionList {
    #[serde(default)]
    signatures: Vec<ExtensionSignature>,
}

/// All signatures of a manifest, wherever they are kept; each once.
pub(super) async fn read(
    place: &Repository,
    reference: &Reference,
    digest: &ManifestDigest,
) -> Result<Vec<SignatureBlob>, EndpointError> {
    let limits = &place.registry.options().limits;
    let mut found = Found::new(limits);
    if place.registry.keeps_signatures(place.scope("pull")).await? {
        for signature in place.extension_signatures(digest).await? {
            found.add(signature)?;
        }
    }
    let places = &place.registry.options().lookaside;
    let here = Reference {
        host: place.registry.host().clone(),
        repository: place.name.clone(),
        ..reference.clone()
    };
    let mut read = Vec::new();
    for name in [reference, &here] {
        let Some(base) = places.reads(name) else {
            continue;
        };
        let below = lookaside::directory(&name.repository, digest);
        if read.contains(&(base, below.clone())) {
            continue;
        }
        read_lookaside(place, base, &below, &mut found).await?;
        read.push((base, below));
    }
    if [reference, &here]
        .into_iter()
        .any(|name| places.attaches(name))
    {
        for signature in place.attached_signatures(digest).await? {
            found.add(StoredSignature::Sigstore(signature).to_stored())?;
        }
    }
    Ok(found.signatures)
}

/// What was found so far.
struct Found<'a> {
    limits: &'a Limits,
    signatures: Vec<SignatureBlob>,
}

impl<'a> Found<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            signatures: Vec::new(),
        }
    }

    fn add(&mut self, stored: Bytes) -> Result<(), EndpointError> {
        if self.signatures.iter().any(|known| known.bytes == stored) {
            return Ok(());
        }
        if self.signatures.len() == self.limits.signatures {
            return Err(EndpointError::new(
                Kind::Unsafe,
                format!(
                    "a manifest has more than {} signatures",
                    self.limits.signatures
                ),
            ));
        }
        self.signatures.push(blob(stored));
        Ok(())
    }
}

/// Bytes from a lookaside or a registry as a signature. What cannot be read is
/// kept as well, for who judges signatures to say so.
fn blob(stored: Bytes) -> SignatureBlob {
    match StoredSignature::parse(&stored) {
        Ok(signature) => signature.to_blob(),
        Err(Refusal {
            reason: Reason::Unsupported,
            ..
        }) => SignatureBlob {
            format: "unsupported".into(),
            bytes: stored,
        },
        Err(_) => SignatureBlob {
            format: "malformed".into(),
            bytes: stored,
        },
    }
}

/// Simple signatures, and those of sigstore.
fn sorted(
    reference: &Reference,
    signatures: &[SignatureBlob],
) -> Result<(Vec<SignatureBlob>, Vec<SigstoreSignature>), EndpointError> {
    let (mut simple, mut attached) = (Vec::new(), Vec::new());
    for signature in signatures {
        match StoredSignature::parse(&signature.bytes) {
            Ok(StoredSignature::Simple(_)) => simple.push(signature.clone()),
            Ok(StoredSignature::Sigstore(signature)) => attached.push(signature),
            Err(_) => {
                return Err(EndpointError::new(
                    Kind::Unsupported,
                    format!(
                        "push a signature of format {} to {reference}: it has no place there",
                        super::error::printable(&signature.format)
                    ),
                ));
            }
        }
    }
    Ok((simple, attached))
}

async fn read_lookaside(
    place: &Repository,
    base: &Base,
    below: &str,
    found: &mut Found<'_>,
) -> Result<(), EndpointError> {
    let limit_bytes = found.limits.signature_bytes;
    for number in 1.. {
        let name = format!("{below}/{}", lookaside::file_name(number));
        let signature = match base {
            Base::Directory(top) => {
                let path = top.join(&name);
                blocking(move || read_file(&path, limit_bytes)).await?
            }
            Base::Web(top) => fetch(place, top, &name, limit_bytes).await?,
        };
        match signature {
            Some(signature) if number <= found.limits.signatures => found.add(signature)?,
            Some(_) => {
                return Err(EndpointError::new(
                    Kind::Unsafe,
                    format!(
                        "the lookaside has more than {} signatures of one manifest",
                        found.limits.signatures
                    ),
                ));
            }
            None => break,
        }
    }
    Ok(())
}

async fn fetch(
    place: &Repository,
    top: &str,
    name: &str,
    limit_bytes: u64,
) -> Result<Option<Bytes>, RegistryError> {
    let address = format!("{top}/{name}");
    let what = format!("fetch signature {address}");
    let url: Url = address.parse().map_err(|error| RegistryError::Malformed {
        what: what.clone(),
        why: format!("it is no address: {error}"),
    })?;
    let scope = place.scope("pull");
    place
        .registry
        .fetch_elsewhere(&what, url, scope, limit_bytes)
        .await
}

fn read_file(path: &Path, limit_bytes: u64) -> Result<Option<Bytes>, EndpointError> {
    let error = |source| EndpointError::io(format!("read signature {}", path.display()), source);
    // Not blocking, so that opening a pipe that lies there is no trap.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from);
    let file = match opened {
        Ok(file) => std::fs::File::from(file),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error(source)),
    };
    if !file.metadata().map_err(error)?.is_file() {
        return Err(EndpointError::new(
            Kind::Unsafe,
            format!("signature {} is not a file", path.display()),
        ));
    }
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(EndpointError::new(
            Kind::Unsafe,
            format!(
                "signature {} has more than {limit_bytes} bytes",
                path.display()
            ),
        ));
    }
    Ok(Some(bytes.into()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EndpointError> + Send + 'static,
) -> Result<T, EndpointError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        EndpointError::with_source(Kind::Internal, "wait for a thread that reads files", error)
    })?
}

/// Adds signatures to those of a manifest; what is there already is left.
pub(super) async fn write(
    repository: &Repository,
    reference: &Reference,
    digest: &ManifestDigest,
    signatures: &[SignatureBlob],
) -> Result<(), EndpointError> {
    let (simple, attached) = sorted(reference, signatures)?;
    if !attached.is_empty() {
        if !repository.registry.options().lookaside.attaches(reference) {
            return Err(EndpointError::new(
                Kind::Unsupported,
                format!(
                    "attach sigstore signatures to {reference}: registries.d does not say use-sigstore-attachments: true"
                ),
            ));
        }
        repository.attach_signatures(digest, &attached).await?;
    }
    if simple.is_empty() {
        return Ok(());
    }
    let signatures = &simple[..];
    let options = repository.registry.options();
    let asked = repository
        .registry
        .keeps_signatures(repository.scope("pull"));
    if asked.await? {
        return Ok(repository
            .put_extension_signatures(digest, signatures)
            .await?);
    }
    let base = options.lookaside.writes(reference);
    match base {
        Some(Base::Directory(top)) => {
            let (top, limits) = (top.clone(), options.limits);
            let (name, digest) = (reference.repository.clone(), *digest);
            let signatures = signatures.to_vec();
            blocking(move || add_to_lookaside(&top, &name, &digest, &signatures, &limits)).await
        }
        Some(Base::Web(top)) => Err(EndpointError::new(
            Kind::Unsupported,
            format!(
                "write signatures of {reference}: {top} is read only; name a file: directory as lookaside-staging in registries.d"
            ),
        )),
        None => Err(EndpointError::new(
            Kind::Unsupported,
            format!(
                "write signatures of {reference}: the registry keeps none, and registries.d names no lookaside"
            ),
        )),
    }
}

/// Adds signatures to those of a manifest in a lookaside directory; what is
/// there already is left.
///
/// # Errors
/// They cannot be written, or are more than anybody reads.
pub fn add_to_lookaside(
    top: &Path,
    repository: &RepositoryName,
    digest: &ManifestDigest,
    signatures: &[SignatureBlob],
    limits: &Limits,
) -> Result<(), EndpointError> {
    let directory = top.join(lookaside::directory(repository, digest));
    let signatures: Vec<Bytes> = signatures
        .iter()
        .map(|signature| signature.bytes.clone())
        .collect();
    add_files(&directory, &signatures, limits)
}

/// Adds each signature that is not there under the next free number. The file
/// appears whole, under a number that nobody else took meanwhile.
fn add_files(directory: &Path, signatures: &[Bytes], limits: &Limits) -> Result<(), EndpointError> {
    let error = |path: &Path, source| {
        EndpointError::io(format!("write signature {}", path.display()), source)
    };
    std::fs::create_dir_all(directory).map_err(|source| error(directory, source))?;
    for signature in signatures {
        let mut number = 1;
        loop {
            if number > limits.signatures {
                return Err(EndpointError::new(
                    Kind::InvalidInput,
                    format!(
                        "{} has {} signatures; no more are read",
                        directory.display(),
                        limits.signatures
                    ),
                ));
            }
            let path = directory.join(lookaside::file_name(number));
            match read_file(&path, limits.signature_bytes)? {
                Some(known) if known == *signature => break,
                Some(_) => number += 1,
                None => match publish(&path, signature) {
                    Ok(()) => break,
                    // Somebody was faster; look what it is.
                    Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(error(&path, source)),
                },
            }
        }
    }
    Ok(())
}

/// Makes a file appear with all its bytes, unless one of that name is there.
fn publish(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let name = format!(".new-{}-{}", std::process::id(), digest.short());
    let staged: PathBuf = path.with_file_name(name);
    let write = || {
        let mut file = std::fs::File::create(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::hard_link(&staged, path)
    };
    let outcome = write();
    let removed = std::fs::remove_file(&staged);
    outcome.and(removed)
}

impl Repository {
    /// The signatures of a manifest in a lookaside; the registry itself is not asked.
    ///
    /// # Errors
    /// It cannot be read, or has more than anybody reads. That there are none is not an error.
    pub async fn lookaside_signatures(
        &self,
        base: &Base,
        digest: &ManifestDigest,
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        let mut found = Found::new(&self.registry.options().limits);
        let below = lookaside::directory(&self.name, digest);
        read_lookaside(self, base, &below, &mut found).await?;
        Ok(found.signatures)
    }

    /// The signatures that the registry itself keeps for a manifest.
    async fn extension_signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<Bytes>, RegistryError> {
        let what = format!("fetch signatures of {digest} of {}", self.full_name());
        let url = self.extension_url(digest).await?;
        let request = Request::new(what.clone(), Method::GET, url, self.scope("pull"));
        let response = self.registry.send(&request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Vec::new()),
            _ => return Err(self.registry.status_error(response, &what).await),
        }
        let limits = &self.registry.options().limits;
        let body = self
            .registry
            .read_small(response, limits.signature_list_bytes, &what)
            .await?;
        let malformed = |why: String| RegistryError::Malformed {
            what: what.clone(),
            why,
        };
        let list: ExtensionList =
            serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
        list.signatures
            .into_iter()
            .filter(|signature| {
                signature.schema_version == SCHEMA_VERSION && signature.kind == KIND
            })
            .map(|signature| {
                let content = STANDARD.decode(&signature.content);
                content
                    .map(Bytes::from)
                    .map_err(|error| malformed(error.to_string()))
            })
            .collect()
    }

    /// Gives the registry the signatures that it does not have.
    async fn put_extension_signatures(
        &self,
        digest: &ManifestDigest,
        signatures: &[SignatureBlob],
    ) -> Result<(), RegistryError> {
        let known = self.extension_signatures(digest).await?;
        for signature in signatures.iter().map(|signature| &signature.bytes) {
            if known.contains(signature) {
                continue;
            }
            let what = format!("push a signature of {digest} to {}", self.full_name());
            // Of its contents, so that to repeat it adds nothing.
            let hex = Digest::of(Algorithm::Sha256, signature).hex();
            let body = ExtensionSignature {
                schema_version: SCHEMA_VERSION,
                name: format!("{digest}@{}", &hex[..32]),
                kind: KIND.into(),
                content: STANDARD.encode(signature),
            };
            let body = serde_json::to_vec(&body).map_err(|error| RegistryError::Malformed {
                what: what.clone(),
                why: error.to_string(),
            })?;
            let url = self.extension_url(digest).await?;
            let mut request = Request::new(what.clone(), Method::PUT, url, self.scope("pull,push"))
                .header(CONTENT_TYPE, "application/json")?;
            request.body = Some(body.into());
            let response = self.registry.send(&request).await?;
            if !matches!(response.status(), StatusCode::CREATED | StatusCode::OK) {
                return Err(self.registry.status_error(response, &what).await);
            }
        }
        Ok(())
    }

    async fn extension_url(&self, digest: &ManifestDigest) -> Result<Url, RegistryError> {
        self.url_below("/extensions/v2", &format!("signatures/{digest}"))
            .await
    }
}
