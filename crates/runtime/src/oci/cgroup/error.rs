// SPDX-License-Identifier: Apache-2.0
//! Why control groups cannot be planned or used.

use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_sys::SysError;

/// Why a document's limits cannot be planned on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A limit was asked for that nothing here enforces.
    #[error("limit {member}: the host has no usable {controller} controller")]
    NoController {
        /// The document's member.
        member: String,
        /// What is missing.
        controller: String,
    },
    /// This version of control groups cannot say it.
    #[error("limit {member}: {problem}")]
    Unsupported {
        /// The document's member.
        member: String,
        /// Why not.
        problem: String,
    },
    /// A device rule that is none, or that would not be heeded.
    #[error("restrict devices by {rule}: {problem}")]
    Device {
        /// The rule.
        rule: String,
        /// What is wrong.
        problem: String,
    },
    /// A path that is none.
    #[error("read cgroupsPath {path:?}: {problem}")]
    Path {
        /// As given.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// An annotation that sets a property of the unit.
    #[error("read annotation {name}: {problem}")]
    Annotation {
        /// Which.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl PlanError {
    /// The reason, coarsely.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoController { .. } | Self::Unsupported { .. } => Kind::Unsupported,
            Self::Device { .. } | Self::Path { .. } | Self::Annotation { .. } => Kind::InvalidInput,
        }
    }
}

/// Why a container's control groups cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The kernel refused.
    #[error("{action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: SysError,
    },
    /// The kernel refused a limit.
    #[error("set {member}: write {value:?} to {path}")]
    Limit {
        /// The document's member.
        member: String,
        /// What was written.
        value: String,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: SysError,
    },
    /// A limit's file is not there.
    #[error("set {member}: this kernel has no {file} in {path}")]
    NoFile {
        /// The document's member.
        member: String,
        /// What is missing.
        file: String,
        /// Where.
        path: PathBuf,
    },
    /// A limit's controller is not delegated to the group.
    #[error("use the {controller} controller in {path}: it is not enabled there")]
    NotEnabled {
        /// Which.
        controller: String,
        /// Where.
        path: PathBuf,
    },
    /// A limit below what is used already.
    #[error("set {member}: {used_bytes} bytes are in use already")]
    InUse {
        /// The document's member.
        member: String,
        /// How much.
        used_bytes: u64,
    },
    /// The kernel refused the program.
    #[error("restrict devices in {path}")]
    Devices {
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: SysError,
    },
    /// Neither frozen nor thawed in time.
    #[error("{action} {path}: it does not come to that")]
    Stuck {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// A group that was there before, and cannot be a container's.
    #[error("control group {path}: {why}")]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The manager refused.
    #[error("{action} systemd unit {unit}")]
    Systemd {
        /// What was being done.
        action: &'static str,
        /// To what.
        unit: String,
        /// Why it failed.
        #[source]
        source: super::systemd::BusError,
    },
}

impl CgroupError {
    /// The reason, coarsely.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { source, .. }
            | Self::Limit { source, .. }
            | Self::Devices { source, .. } => Kind::of_io(&source.source),
            Self::NoFile { .. } | Self::NotEnabled { .. } => Kind::Unsupported,
            Self::InUse { .. } | Self::Stuck { .. } | Self::Unfit { .. } => Kind::Busy,
            Self::Systemd { source, .. } => source.kind(),
        }
    }

    /// True when the kernel says that one may not.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        use gantry_sys::Errno;
        match self {
            Self::File { source, .. }
            | Self::Limit { source, .. }
            | Self::Devices { source, .. } => {
                [Errno::ACCESS, Errno::PERM, Errno::ROFS].contains(&source.errno())
            }
            _ => false,
        }
    }
}
