// SPDX-License-Identifier: Apache-2.0
//! Why a verb of the runtime failed.

use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_sys::{Errno, SysError};

use super::cgroup::group::UpdateError;
use super::cgroup::{self, CgroupError};
use super::plan::PlanError;
use super::seccomp::CompileError;
use super::seccomp::listener::HandOverError;
use super::state::Status;

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The id is none.
    #[error("container id {id:?}: letters, digits and `_+-.`, at most 1024, not `.` or `..`")]
    InvalidId {
        /// As given.
        id: String,
    },
    /// There is one already.
    #[error("container with id {id} exists already")]
    Exists {
        /// Its id.
        id: String,
    },
    /// There is none.
    #[error("container {id} does not exist")]
    NotFound {
        /// Its id.
        id: String,
    },
    /// The container's state forbids it.
    #[error("cannot {verb} container {id}: it is {status}")]
    Status {
        /// What was asked.
        verb: &'static str,
        /// Its id.
        id: String,
        /// What it is.
        status: Status,
    },
    /// The document could not be read.
    #[error("read {path:?}")]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The document cannot be carried out.
    #[error("runtime document")]
    Plan(#[from] PlanError),
    /// The kernel refused.
    #[error("{doing}")]
    Kernel {
        /// What was being done.
        doing: String,
        /// What was refused.
        #[source]
        source: SysError,
    },
    /// The operating system refused.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The program of the container cannot be executed.
    #[error("exec: {program:?}: {reason}")]
    Program {
        /// As given.
        program: String,
        /// In the words that callers look for.
        reason: String,
    },
    /// A hook failed.
    #[error("{stage} hook {path:?}: {reason}")]
    Hook {
        /// When it ran.
        stage: &'static str,
        /// The program.
        path: PathBuf,
        /// How it failed.
        reason: String,
    },
    /// CRIU refused.
    #[error("{doing}: CRIU says: {reason} (see {log:?})")]
    Criu {
        /// What was being done.
        doing: &'static str,
        /// In its words.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The container's first process failed before it became its program.
    #[error("{0}")]
    Init(String),
    /// It ended without a word.
    #[error("the container's first process ended early: {0}")]
    Died(String),
    /// The filter of system calls cannot be made.
    #[error(transparent)]
    Filter(#[from] CompileError),
    /// The control groups cannot be had.
    #[error("control groups")]
    GroupPlan(#[from] cgroup::PlanError),
    /// The control groups refuse.
    #[error(transparent)]
    Group(#[from] CgroupError),
    /// The limits cannot be changed.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The agent that answers for system calls cannot be told.
    #[error(transparent)]
    Agent(#[from] HandOverError),
    /// This machine cannot do it.
    #[error("{0}")]
    Unsupported(&'static str),
    /// What was asked makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl RuntimeError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::InvalidId { .. } | Self::Plan(_) | Self::Usage(_) => Kind::InvalidInput,
            Self::GroupPlan(error) => error.kind(),
            Self::Group(error) => error.kind(),
            Self::Update(error) => error.kind(),
            Self::Filter(error) => error.kind(),
            Self::Agent(error) => error.kind(),
            Self::Unsupported(_) | Self::Criu { .. } => Kind::Unsupported,
            Self::Exists { .. } => Kind::AlreadyExists,
            Self::NotFound { .. } | Self::Program { .. } => Kind::NotFound,
            Self::Status { .. } => Kind::Busy,
            Self::Document { source, .. } | Self::Io { source, .. } => Kind::of_io(source),
            Self::Kernel { source, .. } => Kind::of_io(&source.source),
            Self::Hook { .. } | Self::Init(_) | Self::Died(_) => Kind::InvalidInput,
        }
    }

    /// The kernel said that the user may not.
    pub(super) fn is_access(&self) -> bool {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source) == Some(Errno::ACCESS),
            Self::Kernel { source, .. } => source.is(Errno::ACCESS),
            _ => false,
        }
    }

    /// The whole chain as one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// Says what was being done when the kernel refused.
pub(super) trait Doing<T> {
    /// `doing` runs only on failure.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, RuntimeError>;
}

impl<T> Doing<T> for Result<T, SysError> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, RuntimeError> {
        self.map_err(|source| RuntimeError::Kernel {
            doing: doing().into(),
            source,
        })
    }
}

impl<T> Doing<T> for Result<T, gantry_sys::Errno> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, RuntimeError> {
        self.map_err(std::io::Error::from).doing(doing)
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, RuntimeError> {
        self.map_err(|source| RuntimeError::Io {
            doing: doing().into(),
            source,
        })
    }
}
