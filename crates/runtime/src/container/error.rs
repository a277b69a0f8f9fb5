// SPDX-License-Identifier: Apache-2.0
//! Why a container's files cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use gantry_oci::Kind;
use gantry_sys::SysError;

/// Why a container's files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The name belongs to another container.
    #[error("name container {name}: the name is in use by container {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// The first digits of the other's id.
        holder: String,
    },
    /// Nothing of that name or id.
    #[error("find container {wanted:?}: there is none")]
    Unknown {
        /// As given.
        wanted: String,
    },
    /// Several ids begin so.
    #[error("find container {wanted:?}: several ids begin so")]
    Ambiguous {
        /// As given.
        wanted: String,
    },
    /// The container runs.
    #[error("remove container {id}: it runs")]
    Running {
        /// The first digits of its id.
        id: String,
    },
    /// A file that is not what was written.
    #[error("read {path}: it is damaged")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel refused.
    #[error("{action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{action}")]
    Sys {
        /// What was being done.
        action: String,
        /// Why it failed.
        #[source]
        source: SysError,
    },
}

impl ContainerError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NameTaken { .. } => Kind::AlreadyExists,
            Self::Unknown { .. } => Kind::NotFound,
            Self::Ambiguous { .. } => Kind::InvalidInput,
            Self::Running { .. } => Kind::Busy,
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Sys { source, .. } => Kind::of_io(&source.source),
        }
    }
}

pub(crate) type Result<T, E = ContainerError> = std::result::Result<T, E>;

pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ContainerError {
    let path = path.to_owned();
    move |source| ContainerError::Io {
        action,
        path,
        source,
    }
}

pub(crate) fn sys_error(action: impl Into<String>) -> impl FnOnce(SysError) -> ContainerError {
    let action = action.into();
    move |source| ContainerError::Sys { action, source }
}
