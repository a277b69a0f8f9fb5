// SPDX-License-Identifier: Apache-2.0
//! Blobs: reading, pushing, mounting, removing.
//!
//! # Source
//! distribution-spec v1.1 "Pulling blobs", "Pushing Blobs", "Mounting a blob
//! from another repository", "Deleting Blobs".

use std::io::{Read as _, Seek as _, SeekFrom};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use gantry_oci::{Digest, Repository};
use http::{HeaderMap, Method, StatusCode, header};

use crate::errors::{ApiError, Code};
use crate::respond::Answer;
use crate::routes::Query;
use crate::serve::Registry;
use crate::state::Member;
use crate::upload::{self, Slot, UploadId};

/// Bytes read from a blob at once when it is sent.
const SEND_BYTES: usize = 256 << 10;

fn unknown(repository: &Repository, digest: &Digest) -> ApiError {
    ApiError::new(
        Code::BlobUnknown,
        format!("repository {repository} has no blob {digest}"),
    )
}

/// `GET` and `HEAD` of a blob, whole or a range of it.
pub fn get(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let file = registry
        .state
        .open(repository, Member::Blob, digest)
        .map_err(|error| ApiError::io("open the blob", &error))?
        .ok_or_else(|| unknown(repository, digest))?;
    let size = file
        .metadata()
        .map_err(|error| ApiError::io("look at the blob", &error))?
        .len();
    let range = match headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
    {
        Some(text) => parse_range(text, size),
        None => Range::Whole,
    };
    let (status, first, count) = match range {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Range::Outside => {
            return Ok(Answer::new(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"))
                .done());
        }
    };
    let mut answer = Answer::new(status)
        .digest(digest)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{digest}\""))
        .header(header::CACHE_CONTROL, "max-age=31536000, immutable");
    if status == StatusCode::PARTIAL_CONTENT {
        answer = answer.header(
            header::CONTENT_RANGE,
            format!("bytes {first}-{}/{size}", first + count - 1),
        );
    }
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        file_body(file, first, count)?
    };
    Ok(answer.body("application/octet-stream", count, body))
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part { first: u64, last: u64 },
    Outside,
}

/// Reads a header with one range; anything else means the whole, as RFC 9110
/// allows.
fn parse_range(text: &str, size: u64) -> Range {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|spec| spec.split_once('-'))
    else {
        return Range::Whole;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Range::Whole,
        (Ok(first), _) if first >= size => Range::Outside,
        (Ok(first), Ok(last)) => Range::Part {
            first,
            last: last.min(size - 1),
        },
        (Ok(first), Err(_)) if last.trim().is_empty() => Range::Part {
            first,
            last: size - 1,
        },
        (Err(_), Ok(0)) if first.trim().is_empty() => Range::Outside,
        (Err(_), Ok(_)) if first.trim().is_empty() && size == 0 => Range::Outside,
        (Err(_), Ok(count)) if first.trim().is_empty() => Range::Part {
            first: size.saturating_sub(count),
            last: size - 1,
        },
        _ => Range::Whole,
    }
}

/// Sends part of a file, read on the blocking pool piece by piece: a client that does not take what it asked for holds
/// one piece, not a thread.
fn file_body(mut file: std::fs::File, first: u64, count: u64) -> Result<Body, ApiError> {
    if first > 0 {
        file.seek(SeekFrom::Start(first))
            .map_err(|error| ApiError::io("read the blob", &error))?;
    }
    let pieces = futures_util::stream::try_unfold((file, count), |(file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || read_piece(file, left)).await;
        let (file, piece) = read.unwrap_or_else(|error| Err(std::io::Error::other(error)))?;
        let left = left - piece.len() as u64;
        Ok::<_, std::io::Error>(Some((piece, (file, left))))
    });
    Ok(Body::from_stream(pieces))
}

fn read_piece(mut file: std::fs::File, left: u64) -> std::io::Result<(std::fs::File, Bytes)> {
    let size = usize::try_from(left).map_or(SEND_BYTES, |left| left.min(SEND_BYTES));
    let mut buffer = vec![0; size];
    file.read_exact(&mut buffer)?;
    Ok((file, Bytes::from(buffer)))
}

/// `DELETE` of a blob.
pub fn delete(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
) -> Result<Response, ApiError> {
    let removed = registry
        .state
        .dismiss(repository, Member::Blob, digest)
        .map_err(|error| ApiError::io("remove the blob", &error))?;
    if !removed {
        return Err(unknown(repository, digest));
    }
    Ok(Answer::new(StatusCode::ACCEPTED).done())
}

fn upload_location(repository: &Repository, id: &UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{}", id.as_str())
}

fn created(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
) -> Result<Response, ApiError> {
    registry
        .state
        .admit(repository, Member::Blob, digest, "")
        .map_err(|error| ApiError::io("note the blob", &error))?;
    Ok(Answer::new(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{repository}/blobs/{digest}"))
        .digest(digest)
        .done())
}

fn accepted(repository: &Repository, id: &UploadId, size: u64) -> Response {
    Answer::new(StatusCode::ACCEPTED)
        .header(header::LOCATION, upload_location(repository, id))
        .header(header::RANGE, format!("0-{}", size.saturating_sub(1)))
        .header(
            header::HeaderName::from_static("docker-upload-uuid"),
            id.as_str(),
        )
        .done()
}

fn digest_parameter(query: &Query) -> Result<Option<Digest>, ApiError> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|e| ApiError::new(Code::DigestInvalid, format!("{e}")))
    };
    query.get("digest").map(parse).transpose()
}

/// `POST` of an upload: starts one, or takes the blob from another
/// repository, or takes it whole.
pub async fn start(
    registry: &Registry,
    repository: &Repository,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if let Some(mounted) = mount(registry, repository, query)? {
        return Ok(mounted);
    }
    let digest = digest_parameter(query)?;
    let id = registry.uploads.start()?;
    let Some(digest) = digest else {
        return Ok(accepted(repository, &id, 0));
    };
    let finished = write(registry, repository, &id, headers, body, Some(&digest)).await;
    if finished.is_err() {
        // The client was not told its name, so nobody can go on with it.
        if let Some(slot) = registry.uploads.find(&id) {
            let mut upload = slot.lock(registry.clients.idle).await?;
            registry.uploads.discard(&id, &mut upload);
        }
    }
    finished
}

/// A blob of another repository, if the request asks for one that is there.
/// Otherwise the request is an ordinary start, as the specification wants.
fn mount(
    registry: &Registry,
    repository: &Repository,
    query: &Query,
) -> Result<Option<Response>, ApiError> {
    let Some(digest) = query
        .get("mount")
        .and_then(|text| text.parse::<Digest>().ok())
    else {
        return Ok(None);
    };
    let held = match query.get("from").map(str::parse::<Repository>) {
        Some(Ok(from)) => registry.state.has(&from, Member::Blob, &digest),
        _ => false,
    };
    if !held || !registry.state.blob_path(&digest).is_file() {
        return Ok(None);
    }
    created(registry, repository, &digest).map(Some)
}

fn find(registry: &Registry, id: &UploadId) -> Result<std::sync::Arc<Slot>, ApiError> {
    registry.uploads.find(id).ok_or_else(upload::unknown)
}

/// `GET` of an upload: how far it is.
pub fn status(
    registry: &Registry,
    repository: &Repository,
    id: &UploadId,
) -> Result<Response, ApiError> {
    let size = find(registry, id)?.size_bytes();
    Ok(Answer::new(StatusCode::NO_CONTENT)
        .header(header::LOCATION, upload_location(repository, id))
        .header(header::RANGE, format!("0-{}", size.saturating_sub(1)))
        .header(
            header::HeaderName::from_static("docker-upload-uuid"),
            id.as_str(),
        )
        .done())
}

/// `PATCH` of an upload: more bytes.
pub async fn patch(
    registry: &Registry,
    repository: &Repository,
    id: &UploadId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    write(registry, repository, id, headers, body, None).await
}

/// Where a chunk says that it belongs: its first and its last byte.
fn content_range(headers: &HeaderMap) -> Result<Option<(u64, u64)>, ApiError> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let range = text
        .trim_start_matches("bytes ")
        .trim_start_matches("bytes=");
    let range = range.split_once('/').map_or(range, |(range, _)| range);
    let ends = range.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some((first, last))
    });
    match ends {
        Some(ends) => Ok(Some(ends)),
        None => Err(ApiError::new(
            Code::BlobUploadInvalid,
            format!("{text:.40} is no range of bytes"),
        )
        .with_status(StatusCode::RANGE_NOT_SATISFIABLE)),
    }
}

/// Takes a request's bytes to the end of an upload, and ends that if there is a digest.
async fn write(
    registry: &Registry,
    repository: &Repository,
    id: &UploadId,
    headers: &HeaderMap,
    body: Body,
    digest: Option<&Digest>,
) -> Result<Response, ApiError> {
    let slot = find(registry, id)?;
    let mut upload = slot.lock(registry.clients.idle).await?;
    let before = upload.size_bytes();
    let range = content_range(headers)?;
    if let Some((first, last)) = range.filter(|(first, _)| *first != before) {
        return Err(ApiError::new(
            Code::BlobUploadInvalid,
            format!("bytes {first} to {last} do not follow the {before} bytes that have arrived"),
        )
        .with_status(StatusCode::RANGE_NOT_SATISFIABLE));
    }
    let uploads = &registry.uploads;
    uploads
        .append(id, &slot, &mut upload, body.into_data_stream())
        .await?;
    let count = upload.size_bytes() - before;
    if range.is_some_and(|(first, last)| last - first != count.wrapping_sub(1)) {
        upload.cut(&slot, before)?;
        return Err(ApiError::new(
            Code::SizeInvalid,
            format!("the chunk has {count} bytes, which its range contradicts"),
        ));
    }
    match digest {
        None => Ok(accepted(repository, id, upload.size_bytes())),
        Some(digest) => tokio::task::block_in_place(|| {
            uploads.finish(id, &mut upload, digest, &registry.state)?;
            created(registry, repository, digest)
        }),
    }
}

/// `PUT` of an upload: the last bytes, if any, and the digest.
pub async fn finish(
    registry: &Registry,
    repository: &Repository,
    id: &UploadId,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let digest = digest_parameter(query)?.ok_or_else(|| {
        ApiError::new(
            Code::DigestInvalid,
            "the request to end an upload names no digest",
        )
    })?;
    write(registry, repository, id, headers, body, Some(&digest)).await
}

/// `DELETE` of an upload: gives up.
pub async fn cancel(registry: &Registry, id: &UploadId) -> Result<Response, ApiError> {
    let slot = find(registry, id)?;
    let mut upload = slot.lock(registry.clients.idle).await?;
    registry.uploads.discard(id, &mut upload);
    Ok(Answer::new(StatusCode::NO_CONTENT).done())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (text, size, wanted) in [
            ("bytes=0-0", 10, Range::Part { first: 0, last: 0 }),
            ("bytes=2-", 10, Range::Part { first: 2, last: 9 }),
            ("bytes=2-99", 10, Range::Part { first: 2, last: 9 }),
            ("bytes=-3", 10, Range::Part { first: 7, last: 9 }),
            ("bytes=-30", 10, Range::Part { first: 0, last: 9 }),
            ("bytes=10-", 10, Range::Outside),
            ("bytes=10-12", 10, Range::Outside),
            ("bytes=-0", 10, Range::Outside),
            ("bytes=0-", 0, Range::Outside),
            ("bytes=-1", 0, Range::Outside),
            ("bytes=5-2", 10, Range::Whole),
            ("bytes=0-1,3-4", 10, Range::Whole),
            ("lines=0-1", 10, Range::Whole),
            ("bytes=a-b", 10, Range::Whole),
            ("bytes=99999999999999999999-", 10, Range::Whole),
        ] {
            assert_eq!(parse_range(text, size), wanted, "{text} of {size}");
        }
    }
}
