// SPDX-License-Identifier: Apache-2.0
//! Why the store could not do something.

use gantry_oci::{Digest, Kind};
use gantry_sys::SysError;
use std::io;
use std::path::PathBuf;

/// A failure of the store itself: places, records, references.
///
/// Failures of an ingest, which reads bytes from outside, are [`crate::IngestError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The kernel refused a call.
    #[error("{action}")]
    Sys {
        /// What was being done to what.
        action: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// Reading or writing failed.
    #[error("{action}")]
    Io {
        /// What was being done to what.
        action: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The directory is no store.
    #[error("open store {}: no store is there", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The store is of a format that this version does not know.
    #[error("open store {}: format {found} is not known", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What its marker says.
        found: u64,
    },
    /// The store was opened read-only.
    #[error("{action}: store is open read-only")]
    ReadOnly {
        /// What was asked.
        action: String,
    },
    /// The thing named is not in the store.
    #[error("find {what}: not in the store")]
    NotFound {
        /// The thing.
        what: String,
    },
    /// The name is taken by something of another sort.
    #[error("create {what}: {why}")]
    Conflict {
        /// The name.
        what: String,
        /// What stands in the way.
        why: String,
    },
    /// Something in the store is not what it should be.
    #[error("read {what}: {why}")]
    Corrupt {
        /// The thing.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// In use by somebody else.
    #[error("{action}: {why}")]
    Busy {
        /// What was asked.
        action: String,
        /// By whom.
        why: String,
    },
    /// The image has no face that could serve.
    #[error("plan root file system of {digest}: {why}")]
    NoFace {
        /// The manifest.
        digest: Digest,
        /// What would be needed.
        why: String,
    },
    /// Contents cannot be sealed here.
    #[error("seal {what}: its file system has no fs-verity")]
    NoVerity {
        /// What.
        what: String,
    },
    /// A layer cannot be read or given back.
    #[error("{action}")]
    Layer {
        /// What was being done to what.
        action: String,
        /// Coarse reason.
        kind: Kind,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sys { source, .. } => Kind::of_io(&source.source),
            Self::Io { source, .. } => Kind::of_io(source),
            Self::NotAStore { .. } | Self::NotFound { .. } => Kind::NotFound,
            Self::Format { .. } | Self::NoFace { .. } | Self::NoVerity { .. } => Kind::Unsupported,
            Self::ReadOnly { .. } => Kind::Denied,
            Self::Conflict { .. } => Kind::AlreadyExists,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Busy { .. } => Kind::Busy,
            Self::Layer { kind, .. } => *kind,
        }
    }
}

/// Says what was being done, where a lower layer says only how it failed.
pub(crate) trait Doing<T> {
    /// Wraps the error; `action` runs only on failure.
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, SysError> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sys {
            action: action(),
            source,
        })
    }
}

impl<T> Doing<T> for Result<T, io::Error> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            action: action(),
            source,
        })
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(io::Error::from).doing(action)
    }
}
