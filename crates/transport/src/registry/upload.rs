// SPDX-License-Identifier: Apache-2.0
//! Uploads: mount a blob, or stream it.
//!
//! ```text
//! POST uploads/?mount=…&from=…   201 → done, nothing moved
//! POST uploads/                  202 → Location
//! PATCH Location   (the stream)  202 → Location
//! PUT Location?digest=…          201 → done
//! ```
//!
//! The digest is stated only after the last byte was verified here, so that a
//! blob that turned out wrong on the way is never committed under any name.

use futures_util::StreamExt as _;
use gantry_image::{BlobStream, Checker, EndpointError, VerifiedBlob, VerifyingStream};
use gantry_oci::{Algorithm, Descriptor, Digest, Kind, Repository as RepositoryName};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, StatusCode};
use reqwest::{Body, Url};

use super::client::{Repository, Request};
use super::error::RegistryError;

impl Repository {
    /// Asks the registry to take a blob over from another of its repositories.
    /// `false` if it would rather have the bytes.
    pub(crate) async fn mount_blob(
        &self,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, RegistryError> {
        let what = format!("mount blob {digest} from {from} in {}", self.full_name());
        let mut url = self.url("blobs/uploads/").await?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.as_str());
        let mut scope = self.scope("pull,push");
        scope.mount_from = Some(from.clone());
        let mut request = Request::new(what.clone(), Method::POST, url, scope);
        request.headers.insert(CONTENT_LENGTH, 0.into());
        let response = self.registry.send(&request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                // The registry opened an upload instead, which nobody will use.
                let location = self.registry.resolve_location(&response, &what)?;
                self.cancel(location).await;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Uploads a blob that must turn out as described.
    pub(crate) async fn push_blob(
        &self,
        descriptor: &Descriptor,
        blob: BlobStream,
    ) -> Result<VerifiedBlob, EndpointError> {
        let what = format!("push blob {} to {}", descriptor.digest, self.full_name());
        self.push(
            what,
            blob,
            Checker::of(descriptor),
            Some(descriptor.size_bytes),
        )
        .await
    }

    /// Uploads a blob whose digest is found out on the way.
    pub(crate) async fn push_computed(
        &self,
        blob: BlobStream,
    ) -> Result<VerifiedBlob, EndpointError> {
        let what = format!("push a blob to {}", self.full_name());
        self.push(what, blob, Checker::computing(Algorithm::Sha256), None)
            .await
    }

    async fn push(
        &self,
        what: String,
        blob: BlobStream,
        checker: Checker,
        size_bytes: Option<u64>,
    ) -> Result<VerifiedBlob, EndpointError> {
        let start = self.start(&what).await?;
        let (location, verified) = match self
            .stream(&what, start.clone(), blob, checker, size_bytes)
            .await
        {
            Ok(done) => done,
            Err(error) => {
                self.cancel(start).await;
                return Err(error);
            }
        };
        self.finish(&what, location, &verified).await?;
        Ok(verified)
    }

    async fn start(&self, what: &str) -> Result<Url, RegistryError> {
        let url = self.url("blobs/uploads/").await?;
        let mut request = Request::new(what.into(), Method::POST, url, self.scope("pull,push"));
        request.headers.insert(CONTENT_LENGTH, 0.into());
        let response = self.registry.send(&request).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.registry.resolve_location(&response, what),
            _ => Err(self.registry.status_error(response, what).await),
        }
    }

    async fn stream(
        &self,
        what: &str,
        location: Url,
        blob: BlobStream,
        checker: Checker,
        size_bytes: Option<u64>,
    ) -> Result<(Url, VerifiedBlob), EndpointError> {
        let stream = VerifyingStream::new(blob, checker);
        let outcome = stream.outcome();
        // The HTTP client wraps what the stream fails with; keep the original.
        let failure = std::sync::Arc::new(std::sync::Mutex::new(None));
        let slot = failure.clone();
        let body = stream.map(move |chunk| {
            chunk.map_err(|error| {
                let kind = error.kind();
                if let Ok(mut slot) = slot.lock() {
                    *slot = Some(error);
                }
                std::io::Error::other(format!("source failed ({kind:?})"))
            })
        });
        let mut request = Request::new(
            what.into(),
            Method::PATCH,
            location,
            self.scope("pull,push"),
        )
        .header(CONTENT_TYPE, "application/octet-stream")?;
        // An empty body of known length would never be polled, hence never
        // verified; it goes as a stream of unknown length.
        if let Some(size_bytes) = size_bytes.filter(|size_bytes| *size_bytes > 0) {
            request.headers.insert(CONTENT_LENGTH, size_bytes.into());
        }
        let answer = self
            .registry
            .send_stream(&request, Body::wrap_stream(body))
            .await;
        if let Some(error) = failure.lock().ok().and_then(|mut slot| slot.take()) {
            return Err(error);
        }
        let response = answer?;
        if !matches!(
            response.status(),
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED
        ) {
            let expired = response.status() == StatusCode::UNAUTHORIZED;
            let error = EndpointError::from(self.registry.status_error(response, what).await);
            // The token ran out while the layers before were moving; the next
            // attempt starts with a fresh one.
            return Err(if expired {
                EndpointError::with_source(
                    Kind::Unavailable,
                    format!("{what}: the login expired"),
                    error,
                )
            } else {
                error
            });
        }
        let verified = outcome.get().ok_or_else(|| {
            EndpointError::new(
                Kind::Corrupt,
                format!("{what}: the registry took only a part of it"),
            )
        })?;
        Ok((self.registry.resolve_location(&response, what)?, verified))
    }

    async fn finish(
        &self,
        what: &str,
        mut location: Url,
        blob: &VerifiedBlob,
    ) -> Result<(), RegistryError> {
        location
            .query_pairs_mut()
            .append_pair("digest", &blob.digest().to_string());
        let mut request = Request::new(what.into(), Method::PUT, location, self.scope("pull,push"))
            .header(CONTENT_TYPE, "application/octet-stream")?;
        request.headers.insert(CONTENT_LENGTH, 0.into());
        request.patience = Some(self.registry.options().pace.commit);
        let response = self.registry.send(&request).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(self.registry.status_error(response, what).await),
        }
    }

    /// Gives an upload up. The registry forgets it by itself in time; this
    /// only spares it the wait.
    async fn cancel(&self, location: Url) {
        let what = format!("cancel an upload to {}", self.full_name());
        let request = Request::new(what, Method::DELETE, location, self.scope("pull,push"));
        if let Err(error) = self.registry.send_once_quietly(&request).await {
            tracing::debug!(%error, "cancel upload");
        }
    }
}
