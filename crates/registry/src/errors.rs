// SPDX-License-Identifier: Apache-2.0
//! From a failure to the answer that the distribution specification gives it.
//!
//! An error has two messages: what the client may read, and what stays in the
//! log (paths, hosts, the chain of causes). The translation to code and status
//! happens here and nowhere else.
//!
//! # Source
//! distribution-spec v1.1 "Error Codes".

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gantry_oci::Kind;
use gantry_store::{IngestError, StoreError};
use http::StatusCode;
use serde::Serialize;

use crate::respond::Answer as Reply;

/// A code of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The blob is not in this repository.
    BlobUnknown,
    /// The upload cannot go on as asked.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// The digest is malformed, or not that of the bytes.
    DigestInvalid,
    /// The manifest names a blob that is not in this repository.
    ManifestBlobUnknown,
    /// The manifest, or the image that it describes, is not acceptable.
    ManifestInvalid,
    /// The manifest is not in this repository.
    ManifestUnknown,
    /// The repository's name breaks the grammar.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// The size is not that of the bytes, or beyond the limits.
    SizeInvalid,
    /// Refused.
    Denied,
    /// Not offered.
    Unsupported,
    /// Come back later.
    TooManyRequests,
    /// Our fault.
    Unknown,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown
            | Self::ManifestBlobUnknown => StatusCode::NOT_FOUND,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    status: StatusCode,
    message: String,
    internal: Option<String>,
}

impl ApiError {
    /// A failure that the client may read about.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            message: message.into(),
            internal: None,
        }
    }

    /// The same with another status than the code's usual one.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// A failure of ours: the client reads what was being done, the log why it failed.
    pub fn internal(doing: &str, error: &dyn std::error::Error) -> Self {
        Self::of(Code::Unknown, doing, error)
    }

    /// A failed input or output of ours.
    pub fn io(doing: &str, error: &std::io::Error) -> Self {
        match Kind::of_io(error) {
            Kind::NoSpace => Self::no_space(doing, error),
            _ => Self::internal(doing, error),
        }
    }

    /// What the client reads.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// All that is known.
    pub fn for_log(&self) -> String {
        match &self.internal {
            Some(internal) => format!("{}: {internal}", self.message),
            None => self.message.clone(),
        }
    }

    /// Something that we depend on does not answer: what, for the client, and why, for the log.
    pub fn unavailable(what: &str, internal: String) -> Self {
        let answer = Self::new(Code::Unknown, format!("{what}; try again"));
        Self {
            internal: Some(internal),
            ..answer.with_status(StatusCode::SERVICE_UNAVAILABLE)
        }
    }

    /// Whether the cause is a full disk of ours.
    pub fn is_no_space(&self) -> bool {
        self.status == StatusCode::INSUFFICIENT_STORAGE
    }

    fn of(code: Code, doing: &str, error: &dyn std::error::Error) -> Self {
        Self {
            internal: Some(chain(error)),
            ..Self::new(code, format!("the registry failed to {doing}"))
        }
    }

    fn no_space(doing: &str, error: &dyn std::error::Error) -> Self {
        let mut answer = Self::of(Code::Unknown, doing, error);
        answer.message = format!("the registry has no space left to {doing}");
        answer.status = StatusCode::INSUFFICIENT_STORAGE;
        answer
    }

    /// A failure to bring an image into the store: the image's fault, or this registry's.
    pub fn of_ingest(doing: &str, error: &IngestError) -> Self {
        match error {
            IngestError::Store(inner) => Self::of_store(doing, inner),
            IngestError::Write { source, .. } => Self::io(doing, source),
            _ => Self::of_image(error.kind(), doing, error),
        }
    }

    /// A failure of the store: never the client's fault, so it reads no more than what was being done.
    pub fn of_store(doing: &str, error: &StoreError) -> Self {
        match error.kind() {
            Kind::NoSpace => Self::no_space(doing, error),
            kind @ (Kind::Busy | Kind::Unavailable | Kind::Cancelled) => {
                Self::of_image(kind, doing, error)
            }
            _ => Self::internal(doing, error),
        }
    }

    /// A failure to accept an image, by its kind: what lies in the image is told to
    /// the client, what lies in this registry is not.
    pub fn of_image(kind: Kind, doing: &str, error: &dyn std::error::Error) -> Self {
        match kind {
            Kind::InvalidInput
            | Kind::Corrupt
            | Kind::Unsafe
            | Kind::Unsupported
            | Kind::AlreadyExists => {
                Self::new(Code::ManifestInvalid, format!("{doing}: {}", chain(error)))
            }
            Kind::Denied => Self::new(Code::Denied, format!("{doing}: {}", chain(error))),
            Kind::NoSpace => Self::no_space(doing, error),
            Kind::Busy | Kind::Unavailable | Kind::Cancelled => Self {
                internal: Some(chain(error)),
                ..Self::new(
                    Code::TooManyRequests,
                    format!("the registry is busy and could not {doing}; try again"),
                )
            },
            Kind::NotFound | Kind::Os(_) | Kind::Internal => Self::internal(doing, error),
        }
    }
}

/// An error and its causes in one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[derive(Serialize)]
struct Answer<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
    detail: Option<()>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self.internal {
            Some(internal) => {
                tracing::error!(code = self.code.text(), "{}: {internal}", self.message)
            }
            None => tracing::info!(code = self.code.text(), "{}", self.message),
        }
        let entry = Entry {
            code: self.code.text(),
            message: &self.message,
            detail: None,
        };
        let body = serde_json::to_vec(&Answer { errors: [entry] }).unwrap_or_default();
        let mut answer = Reply::new(self.status);
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            answer = answer.header(http::header::RETRY_AFTER, "1");
        }
        answer.body("application/json", body.len() as u64, Body::from(body))
    }
}
