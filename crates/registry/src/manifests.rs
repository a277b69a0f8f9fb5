// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes, tags, referrers, the catalogue.
//!
//! # Source
//! distribution-spec v1.1 "Pulling manifests", "Pushing Manifests", "Listing
//! Tags", "Listing Referrers", "Deleting tags", "Deleting Manifests".

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_image::{ManifestBytes, UnverifiedManifest};
use gantry_oci::{Descriptor, Digest, Document, ManifestDigest, MediaType, Repository, Tag};
use http::{Method, StatusCode, header};
use serde::Serialize;

use crate::errors::{ApiError, Code};
use crate::gate::{self, Gate, Naming, Permit, PushPolicy, Pushed, WaitingManifest};
use crate::pipeline::Treatment;
use crate::respond::Answer;
use crate::routes::{ManifestName, Query};
use crate::serve::Registry;
use crate::state::Member;

/// Entries in one page of a listing, at most and by default.
const PAGE: usize = 1000;

fn unknown(repository: &Repository, name: &ManifestName) -> ApiError {
    let text = match name {
        ManifestName::Tag(tag) => format!("repository {repository} has no tag {tag}"),
        ManifestName::Digest(digest) => format!("repository {repository} has no manifest {digest}"),
    };
    ApiError::new(Code::ManifestUnknown, text)
}

fn resolve(
    registry: &Registry,
    repository: &Repository,
    name: &ManifestName,
) -> Result<ManifestDigest, ApiError> {
    let digest = match name {
        ManifestName::Digest(digest) => Some(*digest),
        ManifestName::Tag(tag) => registry.pipeline.target(repository, tag)?,
    };
    digest
        .filter(|digest| {
            registry
                .state
                .has(repository, Member::Manifest, digest.digest())
        })
        .ok_or_else(|| unknown(repository, name))
}

/// `GET` and `HEAD` of a manifest or index.
pub fn get(
    registry: &Registry,
    repository: &Repository,
    name: &ManifestName,
    method: &Method,
) -> Result<Response, ApiError> {
    let digest = resolve(registry, repository, name)?;
    let (bytes, media_type) =
        load(registry, repository, &digest)?.ok_or_else(|| unknown(repository, name))?;
    let size = bytes.len() as u64;
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(bytes)
    };
    Ok(Answer::new(StatusCode::OK)
        .digest(digest.digest())
        .header(header::ETAG, format!("\"{digest}\""))
        .body(&media_type, size, body))
}

/// A manifest's bytes and media type.
fn load(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Option<(Vec<u8>, String)>, ApiError> {
    let io = |error: std::io::Error| ApiError::io("read the manifest", &error);
    let facts = registry.state.manifest_facts(repository, digest.digest());
    let Some((media_type, _)) = facts.map_err(io)? else {
        return Ok(None);
    };
    let bytes = std::fs::read(registry.state.blob_path(digest.digest())).map_err(io)?;
    Ok(Some((bytes, media_type)))
}

/// `PUT` of a manifest or index: the gate.
pub async fn put(
    registry: &Arc<Registry>,
    repository: &Repository,
    name: &ManifestName,
    content_type: Option<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let mut arriving = Arriving::new(registry);
    arriving.read(body).await?;
    let bytes = arriving.take();
    // What is judged takes its turn at unpacking after that.
    let turns = match registry.gate_of(repository) {
        Some(gate) => gate.judging(),
        None => Arc::clone(&registry.explosions),
    };
    let turn = turns.acquire_owned().await;
    let accepted = {
        let registry = Arc::clone(registry);
        let (repository, name) = (repository.clone(), name.clone());
        // Unpacking belongs on the blocking pool; the request goes on to its end even if the client leaves.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            accept(&registry, &repository, &name, bytes, content_type)
        })
    };
    let accepted = accepted
        .await
        .unwrap_or_else(|error| Err(ApiError::internal("accept the manifest", &error)))?;
    if let Some(about) = &accepted.evidence_about {
        gate::review_about(registry, repository, about).await?;
    }
    Ok(accepted.answer(repository))
}

/// What became of a manifest that was not refused.
struct Accepted {
    manifest: ManifestBytes,
    /// Why it is not published yet.
    waits: Option<String>,
    /// The manifest that it holds signatures of.
    evidence_about: Option<ManifestDigest>,
}

impl Accepted {
    fn answer(&self, repository: &Repository) -> Response {
        let digest = self.manifest.digest();
        let location = format!("/v2/{repository}/manifests/{digest}");
        let mut answer = Answer::new(StatusCode::CREATED)
            .header(header::LOCATION, location)
            .digest(digest.digest());
        if let Some(subject) = self.manifest.document().subject() {
            answer = answer.header(
                header::HeaderName::from_static("oci-subject"),
                subject.digest.to_string(),
            );
        }
        if let Some(reason) = &self.waits {
            answer = answer.header(header::WARNING, warning(reason));
        }
        answer.done()
    }
}

/// A warning as the distribution specification has it: clients show it to people.
fn warning(reason: &str) -> String {
    let text = format!("not published yet: {reason}");
    let quoted = text.chars().take(2000).map(|letter| match letter {
        '"' | '\\' => '\'',
        ' '..='~' => letter,
        _ => '?',
    });
    format!("299 - \"{}\"", quoted.collect::<String>())
}

/// A manifest on its way into memory, counted against what all of them may take together.
pub(crate) struct Arriving<'r> {
    registry: &'r Registry,
    bytes: Vec<u8>,
    counted: u64,
}

impl<'r> Arriving<'r> {
    pub(crate) fn new(registry: &'r Registry) -> Self {
        Self {
            registry,
            bytes: Vec::new(),
            counted: 0,
        }
    }

    /// Reads a body, which must be there after a while: a client that trickles holds memory as one that stalls does.
    pub(crate) async fn read(&mut self, body: Body) -> Result<(), ApiError> {
        let idle = self.registry.clients.idle;
        let read = tokio::time::timeout(idle, self.read_all(body)).await;
        read.unwrap_or_else(|_| {
            let message = format!(
                "the manifest did not arrive within {} seconds",
                idle.as_secs_f32()
            );
            Err(ApiError::new(Code::ManifestInvalid, message)
                .with_status(StatusCode::REQUEST_TIMEOUT))
        })
    }

    /// What arrived.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).into()
    }

    async fn read_all(&mut self, body: Body) -> Result<(), ApiError> {
        let limit = self.registry.limits.manifest_bytes;
        let mut stream = body.into_data_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| {
                ApiError::new(Code::ManifestInvalid, "the manifest did not arrive whole")
            })?;
            if (self.bytes.len() + chunk.len()) as u64 > limit {
                let message = format!("the manifest is larger than the {limit} bytes allowed");
                let error = ApiError::new(Code::SizeInvalid, message);
                return Err(error.with_status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            let size = chunk.len() as u64;
            self.counted += size;
            let all = self
                .registry
                .manifest_bytes
                .fetch_add(size, Ordering::Relaxed)
                + size;
            if all > self.registry.clients.manifest_bytes {
                return Err(ApiError::new(
                    Code::TooManyRequests,
                    "too many manifests are arriving; try again",
                ));
            }
            self.bytes.extend_from_slice(&chunk);
        }
        Ok(())
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.registry
            .manifest_bytes
            .fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Receives, asks the gate, explodes, publishes.
fn accept(
    registry: &Registry,
    repository: &Repository,
    name: &ManifestName,
    bytes: Bytes,
    content_type: Option<String>,
) -> Result<Accepted, ApiError> {
    let (expected, tag) = match name {
        ManifestName::Tag(tag) => (None, Some(tag)),
        ManifestName::Digest(digest) => (Some(digest), None),
    };
    let manifest = UnverifiedManifest::new(bytes, content_type, None)
        .verify(expected, &registry.limits)
        .map_err(|error| match error {
            gantry_image::unverified::VerifyManifestError::Digest { .. } => {
                ApiError::new(Code::DigestInvalid, format!("{error}"))
            }
            _ => ApiError::of_image(error.kind(), "refuse the manifest", &error),
        })?;
    let naming = Naming {
        repository: repository.clone(),
        tag: tag.cloned(),
        digest: *manifest.digest(),
    };
    let mut accepted = Accepted {
        evidence_about: None,
        waits: None,
        manifest,
    };
    let Some(gate) = registry.gate_of(repository) else {
        let permit = Permit::without_policy(PushPolicy::Off, naming);
        let permit = permit.ok_or_else(|| ApiError::new(Code::Denied, "not permitted"))?;
        publish(registry, &permit, &accepted.manifest)?;
        return Ok(accepted);
    };
    // Members of what will wait may wait, too.
    let depth = check_members(registry, repository, &accepted.manifest, Some(gate))?;
    accepted.evidence_about = gate::evidence_about(&accepted.manifest, tag);
    let document = WaitingManifest {
        manifest: accepted.manifest.clone(),
        depth,
    };
    if let Pushed::Waits(reason) = gate::push(registry, gate, naming, document)? {
        accepted.waits = Some(reason);
    }
    Ok(accepted)
}

/// Publishes what is permitted, if all that it names is here.
pub(crate) fn publish(
    registry: &Registry,
    permit: &Permit,
    manifest: &ManifestBytes,
) -> Result<(), ApiError> {
    let repository = &permit.naming().repository;
    let depth = check_members(registry, repository, manifest, None)?;
    registry
        .pipeline
        .accept(&registry.state, permit, manifest, depth)?;
    note_subject(registry, repository, manifest)
}

/// Checks that everything the document points at is in this repository, with the size and type it says; manifests may
/// also wait in a gate. Answers over how many indexes the document leads to images.
fn check_members(
    registry: &Registry,
    repository: &Repository,
    manifest: &ManifestBytes,
    gate: Option<&Gate>,
) -> Result<usize, ApiError> {
    let missing = |what: &str, digest: &Digest| {
        ApiError::new(
            Code::ManifestBlobUnknown,
            format!(
                "the manifest names {what} {digest}, which repository {repository} does not have"
            ),
        )
    };
    let check_size = |descriptor: &Descriptor, size: u64| {
        if size == descriptor.size_bytes {
            return Ok(());
        }
        Err(ApiError::new(
            Code::SizeInvalid,
            format!(
                "blob {} has {size} bytes, not {}",
                descriptor.digest, descriptor.size_bytes
            ),
        ))
    };
    let keep = registry.pipeline.treatment(repository) == Treatment::Keep;
    match manifest.document() {
        Document::Manifest(document) => {
            for blob in std::iter::once(&document.config).chain(&document.layers) {
                let present = registry.state.has(repository, Member::Blob, &blob.digest);
                // Its licence may keep it from being pushed; without it there is nothing to unpack.
                if !present && keep && blob.media_type.is_non_distributable() {
                    continue;
                }
                if !present {
                    return Err(missing("blob", &blob.digest));
                }
                check_size(blob, blob_size(registry, &blob.digest)?)?;
            }
            Ok(0)
        }
        Document::Index(index) => {
            let mut depth = 1;
            for entry in &index.manifests {
                let (media_type, below, size) = member(registry, repository, &entry.digest, gate)?
                    .ok_or_else(|| missing("manifest", &entry.digest))?;
                if entry.media_type.as_str() != media_type {
                    return Err(ApiError::new(
                        Code::ManifestInvalid,
                        format!(
                            "manifest {} is a {media_type}, not a {}",
                            entry.digest, entry.media_type
                        ),
                    ));
                }
                check_size(entry, size)?;
                depth = depth.max(below + 1);
            }
            if depth > registry.limits.index_depth {
                return Err(ApiError::new(
                    Code::ManifestInvalid,
                    format!(
                        "the index leads to its images over {depth} indexes; at most {} are allowed",
                        registry.limits.index_depth
                    ),
                ));
            }
            Ok(depth)
        }
    }
}

fn blob_size(registry: &Registry, digest: &Digest) -> Result<u64, ApiError> {
    let metadata = std::fs::metadata(registry.state.blob_path(digest));
    let metadata = metadata.map_err(|error| ApiError::io("look at a blob", &error))?;
    Ok(metadata.len())
}

/// Media type, depth and size of a manifest that an index names, if it is here.
fn member(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
    gate: Option<&Gate>,
) -> Result<Option<(String, usize, u64)>, ApiError> {
    let failed = |error: std::io::Error| ApiError::io("look at a manifest", &error);
    let facts = registry.state.manifest_facts(repository, digest);
    if let Some((media_type, depth)) = facts.map_err(failed)? {
        return Ok(Some((media_type, depth, blob_size(registry, digest)?)));
    }
    let Some(gate) = gate.filter(|gate| gate.policy(repository) == PushPolicy::Staged) else {
        return Ok(None);
    };
    let digest = ManifestDigest::from_digest(*digest);
    let found = gate.waiting_manifest(repository, &digest, &registry.limits);
    Ok(found.map_err(failed)?.map(|found| {
        let size = found.manifest.bytes().len() as u64;
        (found.manifest.media_type().to_string(), found.depth, size)
    }))
}

/// An entry of the referrers list.
fn referrer_descriptor(manifest: &ManifestBytes) -> Descriptor {
    let mut descriptor = manifest.descriptor();
    let (artifact_type, annotations) = match manifest.document() {
        Document::Manifest(document) => (
            Some(document.effective_artifact_type().to_owned()),
            document.annotations.clone(),
        ),
        Document::Index(index) => (index.artifact_type.clone(), index.annotations.clone()),
    };
    descriptor.artifact_type = artifact_type;
    descriptor.annotations = annotations;
    descriptor
}

fn note_subject(
    registry: &Registry,
    repository: &Repository,
    manifest: &ManifestBytes,
) -> Result<(), ApiError> {
    let Some(subject) = manifest.document().subject() else {
        return Ok(());
    };
    let descriptor = serde_json::to_vec(&referrer_descriptor(manifest))
        .map_err(|error| ApiError::internal("describe the manifest", &error))?;
    registry
        .state
        .add_referrer(
            repository,
            &subject.digest,
            manifest.digest().digest(),
            &descriptor,
        )
        .map_err(|error| ApiError::io("note the manifest's subject", &error))
}

/// `DELETE` of a tag, or of a manifest with all its tags.
pub fn delete(
    registry: &Registry,
    repository: &Repository,
    name: &ManifestName,
) -> Result<Response, ApiError> {
    let withdrawn = gate::withdraw(registry, repository, name)?;
    let digest = match name {
        ManifestName::Tag(tag) => {
            if !(registry.pipeline.untag(repository, tag)? | withdrawn) {
                return Err(unknown(repository, name));
            }
            return Ok(Answer::new(StatusCode::ACCEPTED).done());
        }
        ManifestName::Digest(digest) => digest,
    };
    let (bytes, media_type) = match load(registry, repository, digest)? {
        Some(found) => found,
        None if withdrawn => return Ok(Answer::new(StatusCode::ACCEPTED).done()),
        None => return Err(unknown(repository, name)),
    };
    for tag in registry.pipeline.tags(repository)? {
        if registry.pipeline.target(repository, &tag)? == Some(*digest) {
            registry.pipeline.untag(repository, &tag)?;
        }
    }
    let io = |error: std::io::Error| ApiError::io("remove the manifest", &error);
    if let Ok(document) = Document::parse(&bytes, Some(&media_type), &registry.limits) {
        if let Some(subject) = document.subject() {
            registry
                .state
                .remove_referrer(repository, &subject.digest, digest.digest())
                .map_err(io)?;
        }
    }
    registry
        .state
        .dismiss(repository, Member::Manifest, digest.digest())
        .map_err(io)?;
    registry
        .state
        .remove_signatures(repository, digest.digest())
        .map_err(io)?;
    Ok(Answer::new(StatusCode::ACCEPTED).done())
}

/// The part of a sorted list that a request asks for, and the last name of it
/// if there is more.
fn page<'a>(all: &'a [String], query: &Query) -> Result<(&'a [String], Option<&'a str>), ApiError> {
    let size = match query.get("n") {
        None => PAGE,
        Some(text) => {
            let n: u64 = text.parse().map_err(|_| {
                ApiError::new(
                    Code::Unsupported,
                    format!("parameter n is {text:.20}, not a number of entries"),
                )
                .with_status(StatusCode::BAD_REQUEST)
            })?;
            usize::try_from(n).unwrap_or(PAGE).min(PAGE)
        }
    };
    let first = query
        .get("last")
        .map_or(0, |last| all.partition_point(|name| name.as_str() <= last));
    let rest = &all[first..];
    let shown = &rest[..size.min(rest.len())];
    let more = (shown.len() < rest.len())
        .then(|| shown.last().map(String::as_str))
        .flatten();
    Ok((shown, more))
}

fn listing(path: &str, query: &Query, next: Option<&str>, body: &impl Serialize) -> Response {
    let mut answer = Answer::new(StatusCode::OK);
    if let Some(last) = next {
        let n = query
            .get("n")
            .and_then(|n| n.parse::<usize>().ok())
            .unwrap_or(PAGE)
            .min(PAGE);
        answer = answer.header(
            header::LINK,
            format!("<{path}?n={n}&last={last}>; rel=\"next\""),
        );
    }
    answer.json("application/json", body)
}

/// `GET` of the tags.
pub fn tags(
    registry: &Registry,
    repository: &Repository,
    query: &Query,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a Repository,
        tags: &'a [String],
    }
    if !registry.state.has_repository(repository) {
        return Err(ApiError::new(
            Code::NameUnknown,
            format!("there is no repository {repository}"),
        ));
    }
    let mut all: Vec<String> = registry
        .pipeline
        .tags(repository)?
        .iter()
        .map(Tag::to_string)
        .collect();
    all.sort();
    let (shown, next) = page(&all, query)?;
    Ok(listing(
        &format!("/v2/{repository}/tags/list"),
        query,
        next,
        &Body {
            name: repository,
            tags: shown,
        },
    ))
}

/// `GET` of the repositories.
pub fn catalog(registry: &Registry, query: &Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Body<'a> {
        repositories: &'a [String],
    }
    let all = registry
        .state
        .repositories()
        .map_err(|error| ApiError::io("list the repositories", &error))?;
    let all: Vec<String> = all
        .iter()
        .filter(|repository| registry.state.has_manifests(repository))
        .map(Repository::to_string)
        .collect();
    let (shown, next) = page(&all, query)?;
    Ok(listing(
        "/v2/_catalog",
        query,
        next,
        &Body {
            repositories: shown,
        },
    ))
}

/// `GET` of what speaks of a manifest.
pub fn referrers(
    registry: &Registry,
    repository: &Repository,
    subject: &Digest,
    query: &Query,
) -> Result<Response, ApiError> {
    let notes = registry
        .state
        .referrers(repository, subject)
        .map_err(|error| ApiError::io("list the referrers", &error))?;
    let wanted = query
        .get("artifactType")
        .filter(|wanted| !wanted.is_empty());
    // A note that is damaged is left out rather than failing the list.
    let manifests: Vec<Descriptor> = notes
        .iter()
        .filter_map(|note| serde_json::from_slice::<Descriptor>(note).ok())
        .filter(|entry| {
            registry
                .state
                .has(repository, Member::Manifest, &entry.digest)
        })
        .filter(|entry| wanted.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted)))
        .collect();
    let index = gantry_oci::Index {
        schema_version: 2,
        media_type: Some(MediaType::OciIndex),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let mut answer = Answer::new(StatusCode::OK);
    if wanted.is_some() {
        answer = answer.header(
            header::HeaderName::from_static("oci-filters-applied"),
            "artifactType",
        );
    }
    Ok(answer.json(MediaType::OciIndex.as_str(), &index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(query: &str) -> Result<(Vec<String>, Option<String>), ApiError> {
        let all: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        page(&all, &Query::parse(Some(query)))
            .map(|(shown, next)| (shown.to_vec(), next.map(String::from)))
    }

    #[test]
    fn pages_follow_each_other() {
        assert_eq!(
            shown("n=2").unwrap(),
            (vec!["a".into(), "b".into()], Some("b".into()))
        );
        assert_eq!(shown("n=2&last=b").unwrap(), (vec!["c".into()], None));
        assert_eq!(shown("last=bb").unwrap(), (vec!["c".into()], None));
        assert_eq!(shown("n=0").unwrap(), (vec![], None));
        assert_eq!(shown("n=18446744073709551615").unwrap().0.len(), 3);
        for bad in ["n=-1", "n=x", "n=99999999999999999999"] {
            assert!(shown(bad).is_err(), "{bad} was accepted");
        }
    }
}
