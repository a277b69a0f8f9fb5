// SPDX-License-Identifier: Apache-2.0
//! From a request line to a handler.
//!
//! Repository names contain slashes, so the path is taken apart from its end;
//! every part becomes a checked type here, before any handler sees it.
//!
//! # Source
//! distribution-spec v1.1 "Endpoints".

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gantry_oci::{Digest, ManifestDigest, Repository, Tag};
use http::{Method, Request, StatusCode, header};

use crate::errors::{ApiError, Code};
use crate::respond::Answer;
use crate::serve::Registry;
use crate::upload::UploadId;
use crate::{blobs, manifests, signatures};

/// Query parameters, decoded; the first of equal names counts.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query string apart.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let decode = |text: &str| percent_decode(&text.replace('+', " ")).unwrap_or_default();
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode_keeping_plus(value)))
                .collect(),
        )
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Media types have a `+` in them that clients often do not encode.
fn decode_keeping_plus(text: &str) -> String {
    percent_decode(text).unwrap_or_default()
}

/// Decodes `%XX`; `None` if it is malformed or not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair = [rest.next()?, rest.next()?];
            let hex = std::str::from_utf8(&pair)
                .ok()
                .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A manifest as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(ManifestDigest),
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Base,
    Catalog,
    Tags(Repository),
    Manifest(Repository, ManifestName),
    Blob(Repository, Digest),
    Uploads(Repository),
    Upload(Repository, UploadId),
    Referrers(Repository, Digest),
    Signatures(Repository, Digest),
}

fn parse_target(path: &str) -> Result<Option<Target>, ApiError> {
    let Some(path) = percent_decode(path) else {
        return Ok(None);
    };
    if let Some(rest) = path.strip_prefix("/extensions/v2/") {
        let (head, last) = rest.rsplit_once('/').unwrap_or_default();
        let Some(name) = head.strip_suffix("/signatures") else {
            return Ok(None);
        };
        return Ok(Some(Target::Signatures(repository(name)?, digest(last)?)));
    }
    let Some(rest) = path.strip_prefix("/v2") else {
        return Ok(None);
    };
    let rest = match rest {
        "" | "/" => return Ok(Some(Target::Base)),
        "/_catalog" => return Ok(Some(Target::Catalog)),
        _ => rest.strip_prefix('/').unwrap_or_default(),
    };
    let (head, last) = rest.rsplit_once('/').unwrap_or(("", rest));
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Ok(Some(Target::Tags(repository(name)?)));
    }
    if let Some(name) = rest
        .strip_suffix("/blobs/uploads/")
        .or_else(|| rest.strip_suffix("/blobs/uploads"))
    {
        return Ok(Some(Target::Uploads(repository(name)?)));
    }
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        let id = UploadId::parse(last).ok_or_else(|| {
            ApiError::new(Code::BlobUploadUnknown, "that is not the name of an upload")
        })?;
        return Ok(Some(Target::Upload(repository(name)?, id)));
    }
    if let Some(name) = head.strip_suffix("/blobs") {
        return Ok(Some(Target::Blob(repository(name)?, digest(last)?)));
    }
    if let Some(name) = head.strip_suffix("/manifests") {
        return Ok(Some(Target::Manifest(
            repository(name)?,
            manifest_name(last)?,
        )));
    }
    if let Some(name) = head.strip_suffix("/referrers") {
        return Ok(Some(Target::Referrers(repository(name)?, digest(last)?)));
    }
    Ok(None)
}

fn repository(text: &str) -> Result<Repository, ApiError> {
    text.parse()
        .map_err(|error| ApiError::new(Code::NameInvalid, format!("{error}")))
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse()
        .map_err(|error| ApiError::new(Code::DigestInvalid, format!("{error}")))
}

fn manifest_name(text: &str) -> Result<ManifestName, ApiError> {
    if text.contains(':') {
        return Ok(ManifestName::Digest(ManifestDigest::from_digest(digest(
            text,
        )?)));
    }
    // A text that breaks the grammar of tags can name nothing that exists.
    text.parse().map(ManifestName::Tag).map_err(|error| {
        ApiError::new(Code::ManifestInvalid, format!("{error}")).with_status(StatusCode::NOT_FOUND)
    })
}

/// Answers every request.
pub async fn handle(registry: &Arc<Registry>, request: Request<Body>) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let started = std::time::Instant::now();
    let response = route(registry, request)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    tracing::info!(
        target: "gantry_registry::access",
        %method,
        path,
        status = response.status().as_u16(),
        elapsed_ms = started.elapsed().as_secs_f64() * 1e3,
    );
    response
}

async fn route(registry: &Arc<Registry>, request: Request<Body>) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let Some(target) = parse_target(parts.uri.path())? else {
        return Ok(Answer::new(StatusCode::NOT_FOUND).done());
    };
    let query = Query::parse(parts.uri.query());
    let headers = &parts.headers;
    let read = parts.method == Method::GET || parts.method == Method::HEAD;
    match (target, parts.method.as_str()) {
        (Target::Base, _) if read => {
            let mut answer = Answer::new(StatusCode::OK);
            if registry.signatures.announced() {
                answer = answer.header(signatures::ANNOUNCEMENT, "1");
            }
            Ok(answer.json("application/json", &serde_json::json!({})))
        }
        (Target::Signatures(name, digest), _) if read => {
            signatures::get(registry, &name, &ManifestDigest::from_digest(digest)).await
        }
        (Target::Signatures(name, digest), "PUT") => {
            signatures::put(registry, &name, &ManifestDigest::from_digest(digest), body).await
        }
        (Target::Catalog, _) if read => manifests::catalog(registry, &query),
        (Target::Tags(name), _) if read => manifests::tags(registry, &name, &query),
        (Target::Referrers(name, subject), _) if read => {
            manifests::referrers(registry, &name, &subject, &query)
        }
        (Target::Blob(name, digest), _) if read => {
            blobs::get(registry, &name, &digest, &parts.method, headers)
        }
        (Target::Blob(name, digest), "DELETE") => blobs::delete(registry, &name, &digest),
        (Target::Uploads(name), "POST") => {
            blobs::start(registry, &name, &query, headers, body).await
        }
        (Target::Upload(name, id), _) if read => blobs::status(registry, &name, &id),
        (Target::Upload(name, id), "PATCH") => {
            blobs::patch(registry, &name, &id, headers, body).await
        }
        (Target::Upload(name, id), "PUT") => {
            blobs::finish(registry, &name, &id, &query, headers, body).await
        }
        (Target::Upload(_, id), "DELETE") => blobs::cancel(registry, &id).await,
        (Target::Manifest(name, which), _) if read => {
            manifests::get(registry, &name, &which, &parts.method)
        }
        (Target::Manifest(name, which), "PUT") => {
            let content_type = headers
                .get(header::CONTENT_TYPE)
                .and_then(|value| value.to_str().ok());
            manifests::put(
                registry,
                &name,
                &which,
                content_type.map(str::to_owned),
                body,
            )
            .await
        }
        (Target::Manifest(name, which), "DELETE") => manifests::delete(registry, &name, &which),
        (_, method) => Err(ApiError::new(
            Code::Unsupported,
            format!("method {method:.20} is not offered for this path"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn paths_are_taken_apart_from_their_end() {
        let repository = |name: &str| name.parse::<Repository>().unwrap();
        let digest: Digest = DIGEST.parse().unwrap();
        let tag: Tag = "v1".parse().unwrap();
        for (path, wanted) in [
            ("/v2/", Target::Base),
            ("/v2", Target::Base),
            ("/v2/_catalog", Target::Catalog),
            ("/v2/a/b/tags/list", Target::Tags(repository("a/b"))),
            (
                "/v2/tags/list/tags/list",
                Target::Tags(repository("tags/list")),
            ),
            (
                "/v2/a/manifests/v1",
                Target::Manifest(repository("a"), ManifestName::Tag(tag.clone())),
            ),
            (
                "/v2/manifests/manifests/v1",
                Target::Manifest(repository("manifests"), ManifestName::Tag(tag)),
            ),
            (
                &format!("/v2/a/blobs/{DIGEST}"),
                Target::Blob(repository("a"), digest),
            ),
            (
                &format!("/v2/a/blobs/{}", DIGEST.replace(':', "%3A")),
                Target::Blob(repository("a"), digest),
            ),
            (
                &format!("/v2/a/referrers/{DIGEST}"),
                Target::Referrers(repository("a"), digest),
            ),
            (
                &format!("/extensions/v2/a/b/signatures/{DIGEST}"),
                Target::Signatures(repository("a/b"), digest),
            ),
            ("/v2/a/blobs/uploads/", Target::Uploads(repository("a"))),
            (
                "/v2/blobs/uploads/blobs/uploads/00112233445566778899aabbccddeeff",
                Target::Upload(
                    repository("blobs/uploads"),
                    UploadId::parse("00112233445566778899aabbccddeeff").unwrap(),
                ),
            ),
        ] {
            assert_eq!(parse_target(path).unwrap(), Some(wanted), "{path}");
        }
    }

    #[test]
    fn hostile_paths_name_nothing() {
        for path in [
            "/v2/../etc/passwd",
            "/v2/a/../b/tags/list",
            "/v2/A/tags/list",
            "/v2/a/blobs/sha256:../../x",
            "/v2/a/blobs/uploads/../../../x",
            "/v2/a/blobs/uploads/00",
            "/v2/a/manifests/..",
            "/extensions/v2/a/signatures/..",
            "/extensions/v2/../signatures/sha256:x",
            "/extensions/v2/signatures/x",
            "/extensions/v3/a/signatures/x",
            "/v2//tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2/a%00/tags/list",
            "/v2/a/manifests/-x",
            "/v2/a/manifests/sha256:x",
            "/",
            "/v1/",
            "/v2/%zz/tags/list",
            "/v2/a",
        ] {
            assert!(
                !matches!(parse_target(path), Ok(Some(_))),
                "{path} was accepted"
            );
        }
    }

    #[test]
    fn query_keeps_the_plus_of_media_types() {
        let query = Query::parse(Some("artifactType=application/vnd.x+json&n=%31&n=2&last="));
        assert_eq!(query.get("artifactType"), Some("application/vnd.x+json"));
        assert_eq!(query.get("n"), Some("1"));
        assert_eq!(query.get("last"), Some(""));
        assert_eq!(query.get("x"), None);
    }
}
