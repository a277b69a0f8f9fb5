// SPDX-License-Identifier: Apache-2.0
//! OCI runtime documents as JSON: read with care, judged, compared, made.
//!
//! | module | owns |
//! |---|---|
//! | [`make`] | from options and flags to a document that stands alone |
//! | [`validate`] | the specification's rules, each with its section |
//! | [`diff`] | what differs between two documents, in meaning |
//! | [`flags`], [`edit`] | oci-runtime-tool's flags, a table entry each, and what they do |
//! | [`identity`], [`merge`] | which lists are sets; options applied to a template |
//!
//! [`spec`](crate::spec) makes documents from typed parts. What works on documents that somebody
//! else wrote works on JSON: a member that we do not know must survive, and one of the wrong type
//! must be named, not be the end of the reading.
//!
//! # Source
//! runtime-spec 1.2 "Configuration", "Linux Container Configuration".

pub mod diff;
pub mod edit;
pub mod flags;
pub mod identity;
pub mod make;
pub mod merge;
mod own;
pub mod path;
pub mod validate;
mod values;

use std::io::Read;

use gantry_oci::{Kind, Limits, strict_json};
use serde_json::Value;

/// Why bytes are no document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadDocumentError {
    /// The bytes could not be read.
    #[error("read the document")]
    Io(#[source] std::io::Error),
    /// Larger than any document is.
    #[error("read the document: larger than {max_bytes} bytes")]
    TooLarge {
        /// The cap.
        max_bytes: u64,
    },
    /// No JSON, or JSON that two readers may understand differently.
    #[error("read the document as JSON")]
    Json(#[source] serde_json::Error),
}

impl ReadDocumentError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => Kind::of_io(error),
            Self::TooLarge { .. } => Kind::Unsafe,
            Self::Json(_) => Kind::InvalidInput,
        }
    }
}

/// Reads a document: within the caps on size and depth, and with no member twice in one object.
///
/// # Errors
/// Each of these, and the reader's own.
pub fn read(reader: impl Read, limits: &Limits) -> Result<Value, ReadDocumentError> {
    let max_bytes = limits.runtime_document_bytes;
    let mut bytes = Vec::new();
    let count = reader
        .take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(ReadDocumentError::Io)?;
    if count as u64 > max_bytes {
        return Err(ReadDocumentError::TooLarge { max_bytes });
    }
    strict_json::check(&bytes, limits.json_depth).map_err(ReadDocumentError::Json)?;
    serde_json::from_slice(&bytes).map_err(ReadDocumentError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_and_double_members_are_refused() {
        let limits = Limits {
            runtime_document_bytes: 64,
            json_depth: 4,
            ..Limits::DEFAULT
        };
        let read = |text: &str| read(text.as_bytes(), &limits);
        assert!(read(r#"{"a": [1, {"b": null}]}"#).is_ok());
        let large = format!("\"{}\"", "x".repeat(63));
        assert_eq!(read(&large).unwrap_err().kind(), Kind::Unsafe);
        for bad in ["", "{", "[[[[[1]]]]]", r#"{"a":1,"a":2}"#, "{} {}", "[NaN]"] {
            assert_eq!(read(bad).unwrap_err().kind(), Kind::InvalidInput, "{bad}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(super::read(deep.as_bytes(), &Limits::DEFAULT).is_err());
    }
}
