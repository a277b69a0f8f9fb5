// SPDX-License-Identifier: Apache-2.0
//! Small helpers to make answers.

use axum::body::Body;
use axum::response::Response;
use gantry_oci::Digest;
use http::header::{HeaderName, HeaderValue};
use http::{StatusCode, header};

/// The header that carries a digest.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An answer being made.
#[derive(Debug)]
pub struct Answer(Response);

impl Answer {
    /// An answer without a body.
    pub fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Self(response).header(
            HeaderName::from_static("docker-distribution-api-version"),
            "registry/2.0",
        )
    }

    /// Adds a header. A value that no header can carry is left out: all of
    /// ours are made of checked names and digests.
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    /// Adds the digest.
    pub fn digest(self, digest: &Digest) -> Self {
        self.header(CONTENT_DIGEST, digest.to_string())
    }

    /// Adds a body of known size.
    pub fn body(self, content_type: &str, size_bytes: u64, body: Body) -> Response {
        let mut response = self
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_LENGTH, size_bytes.to_string())
            .0;
        *response.body_mut() = body;
        response
    }

    /// Adds a JSON body.
    pub fn json(self, content_type: &str, value: &impl serde::Serialize) -> Response {
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        self.body(content_type, bytes.len() as u64, Body::from(bytes))
    }

    /// The answer as it is.
    pub fn done(self) -> Response {
        self.0
    }
}
