// SPDX-License-Identifier: Apache-2.0
//! Blobs: streaming one, and mending its connection on the way.
//!
//! There is no time limit on a blob as a whole. It must bring
//! [`Pace::window_bytes`](super::Pace) in each window of waiting; else the
//! connection is given up like one that broke. Then the registry is asked
//! anew, from the first missing byte, through a new redirect (the address of
//! the last one may have expired). As long as each connection brought something
//! this goes on; failures without progress are counted against the retry policy.
//!
//! Bytes are counted here and hashed by whoever consumes the stream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use gantry_image::{BlobStream, EndpointError};
use gantry_oci::{Descriptor, Digest};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;

use super::client::{Repository, Request};
use super::error::RegistryError;

impl Repository {
    /// Tells whether the repository has a blob.
    ///
    /// # Errors
    /// [`RegistryError`]; `Corrupt` if it has one of another size.
    pub async fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        let what = format!(
            "look for blob {} in {}",
            descriptor.digest,
            self.full_name()
        );
        let url = self.url(&format!("blobs/{}", descriptor.digest)).await?;
        let response = self
            .registry
            .send(&Request::new(
                what.clone(),
                Method::HEAD,
                url,
                self.scope("pull,push"),
            ))
            .await?;
        match response.status() {
            StatusCode::OK => match length(response.headers(), CONTENT_LENGTH) {
                Some(found) if found != descriptor.size_bytes => Err(RegistryError::Malformed {
                    what,
                    why: format!(
                        "the registry has {found} bytes instead of {}",
                        descriptor.size_bytes
                    ),
                }),
                _ => Ok(true),
            },
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.registry.status_error(response, &what).await),
        }
    }

    /// Opens a blob. The first connection is made before this returns.
    ///
    /// # Errors
    /// [`RegistryError`]; its kind is `NotFound` if there is none.
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, RegistryError> {
        let mut download = Download {
            repository: self.clone(),
            what: format!("fetch blob {} of {}", descriptor.digest, self.full_name()),
            digest: descriptor.digest,
            size_bytes: descriptor.size_bytes,
            offset: 0,
            connection: None,
            failures: 0,
            progress: 0,
        };
        download.connection = Some(download.connect().await?);
        let steps = stream::unfold(Some(download), |download| async {
            let mut download = download?;
            match download.next_chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(download))),
                Ok(None) => None,
                Err(error) => Some((Err(EndpointError::from(error)), None)),
            }
        });
        Ok(BlobStream::new(Some(descriptor.size_bytes), steps))
    }
}

struct Download {
    repository: Repository,
    what: String,
    digest: Digest,
    size_bytes: u64,
    /// Bytes handed on.
    offset: u64,
    connection: Option<Connection>,
    /// Failures in a row without progress.
    failures: u32,
    /// Bytes that came since the last failure.
    progress: u64,
}

struct Connection {
    response: Response,
    /// Bytes that the server sends again and that are dropped.
    skip: u64,
    /// Time spent waiting in this window, and bytes that came in it.
    waited: Duration,
    arrived: u64,
}

impl Download {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.connection.is_none() {
                match self.connect().await {
                    Ok(connection) => self.connection = Some(connection),
                    Err(error) => {
                        self.note_failure(error).await?;
                        continue;
                    }
                }
            }
            let Some(connection) = self.connection.as_mut() else {
                continue;
            };
            match connection.chunk(&self.repository, &self.what).await {
                Ok(Some(chunk)) => {
                    if let Some(fresh) = connection.unskipped(chunk) {
                        return self.account(fresh).map(Some);
                    }
                }
                Ok(None) if self.offset >= self.size_bytes => return Ok(None),
                Ok(None) => {
                    let why = format!(
                        "the connection ended after {} of {} bytes",
                        self.offset, self.size_bytes
                    );
                    self.note_failure(RegistryError::Malformed {
                        what: self.what.clone(),
                        why,
                    })
                    .await?;
                }
                Err(error) => self.note_failure(error).await?,
            }
        }
    }

    fn account(&mut self, chunk: Bytes) -> Result<Bytes, RegistryError> {
        let count = chunk.len() as u64;
        self.offset = self.offset.saturating_add(count);
        self.progress = self.progress.saturating_add(count);
        if self.offset > self.size_bytes {
            return Err(RegistryError::Malformed {
                what: self.what.clone(),
                why: format!(
                    "the registry sends more than the {} bytes described",
                    self.size_bytes
                ),
            });
        }
        Ok(chunk)
    }

    /// Drops the connection; decides whether to go on, and waits if nothing
    /// had come.
    async fn note_failure(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let options = self.repository.registry.options();
        self.connection = None;
        let moved = self.progress >= options.pace.window_bytes.min(self.size_bytes / 4).max(1);
        self.progress = 0;
        if moved {
            self.failures = 0;
            tracing::debug!(offset = self.offset, %error, "resume blob {}", self.digest);
            return Ok(());
        }
        self.failures += 1;
        let ended_early =
            matches!(error, RegistryError::Malformed { .. }) && self.offset < self.size_bytes;
        if self.failures > options.retry.attempts || !(error.is_temporary() || ended_early) {
            return Err(error);
        }
        self.repository
            .registry
            .pause_before_retry(self.failures, &error)
            .await
    }

    async fn connect(&self) -> Result<Connection, RegistryError> {
        let url = self
            .repository
            .url(&format!("blobs/{}", self.digest))
            .await?;
        let scope = self.repository.scope("pull");
        let mut request =
            Request::new(self.what.clone(), Method::GET, url, scope).header(ACCEPT, "*/*")?;
        if self.offset > 0 {
            request = request.header(RANGE, &format!("bytes={}-", self.offset))?;
        }
        let response = self.repository.registry.send(&request).await?;
        let skip = self.judge(&response)?;
        match skip {
            Some(skip) => Ok(Connection {
                response,
                skip,
                waited: Duration::ZERO,
                arrived: 0,
            }),
            None => Err(self
                .repository
                .registry
                .status_error(response, &self.what)
                .await),
        }
    }

    /// How many bytes of the answer we have already; `None` for an answer
    /// that is no blob.
    fn judge(&self, response: &Response) -> Result<Option<u64>, RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: self.what.clone(),
            why,
        };
        let skip = match response.status() {
            StatusCode::OK => self.offset,
            StatusCode::PARTIAL_CONTENT if self.offset > 0 => {
                let range = content_range(response.headers()).ok_or_else(|| {
                    malformed("the registry sends a part without saying which".into())
                })?;
                if range.0 != self.offset || range.1.is_some_and(|total| total != self.size_bytes) {
                    return Err(malformed(
                        "the registry sends another part than the one asked for".into(),
                    ));
                }
                0
            }
            StatusCode::RANGE_NOT_SATISFIABLE if self.offset > 0 => {
                return Err(malformed(format!(
                    "the registry has no more than {} bytes of it",
                    self.offset
                )));
            }
            _ => return Ok(None),
        };
        if let Some(encoding) = response
            .headers()
            .get(CONTENT_ENCODING)
            .filter(|value| *value != "identity")
        {
            return Err(malformed(format!(
                "the registry sends it in the unasked encoding {encoding:?}"
            )));
        }
        let expected = self
            .size_bytes
            .saturating_sub(self.offset)
            .saturating_add(skip);
        match length(response.headers(), CONTENT_LENGTH) {
            Some(found) if found != expected => Err(malformed(format!(
                "the registry announces {found} bytes where the descriptor says {expected}"
            ))),
            _ => Ok(Some(skip)),
        }
    }
}

impl Connection {
    /// The next bytes, within what is left of the window.
    async fn chunk(
        &mut self,
        repository: &Repository,
        what: &str,
    ) -> Result<Option<Bytes>, RegistryError> {
        let pace = repository.registry.options().pace;
        let stalled = || RegistryError::Stalled {
            what: what.into(),
            after: pace.window,
        };
        let left = pace.window.saturating_sub(self.waited);
        let start = Instant::now();
        let chunk = match tokio::time::timeout(left, self.response.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(source)) => {
                return Err(RegistryError::Http {
                    what: what.into(),
                    source: source.into(),
                });
            }
            Err(_) => return Err(stalled()),
        };
        self.waited += start.elapsed();
        self.arrived += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.arrived >= pace.window_bytes {
            self.waited = Duration::ZERO;
            self.arrived = 0;
        }
        Ok(chunk)
    }

    /// What of a chunk is new.
    fn unskipped(&mut self, mut chunk: Bytes) -> Option<Bytes> {
        let skip = usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        self.skip -= skip as u64;
        let fresh = chunk.split_off(skip);
        (!fresh.is_empty()).then_some(fresh)
    }
}

fn length(headers: &HeaderMap, name: http::header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// First byte and, if stated, total of `Content-Range: bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let range = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, value.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        for value in ["bytes */10", "bytes -5/10", "bits 5-9/10", "bytes 5-9", ""] {
            assert_eq!(range(value), None, "{value}");
        }
    }
}
