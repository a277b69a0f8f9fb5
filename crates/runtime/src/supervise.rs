// SPDX-License-Identifier: Apache-2.0
//! What the command and the monitor say to each other.
//!
//! ```text
//! command ── socket pair (messages) ──────────────────────────────► gantry-monitor ID
//!         1. Begin {plan}, with descriptors: lock, stdin, stdout, stderr
//!         ◄─ Started {pid}        or Failed {…}
//!         2. Signal, Resize …
//!         ◄─ Hint, then Exited {…}
//! ```
//!
//! The plan lies in a file of the container's state directory, complete and printable; the message
//! names it. The lock's descriptor is the container's life: whoever holds it (first the command, then
//! both, then the monitor) keeps the container from being taken for dead.

use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_sys::probe::KernelFeatures;
use gantry_sys::rootfs::RootfsPlan;
use oci_spec::runtime::BoxBuilder;
use serde::{Deserialize, Serialize};

use crate::driver::CommandLine;
use crate::spec::Draft;

/// The longest message in either direction.
pub const MESSAGE_MAX_BYTES: usize = 16 << 10;
/// The longest plan that a monitor reads.
pub const PLAN_MAX_BYTES: u64 = 8 << 20;
/// The plan's name in the container's state directory.
pub const PLAN_FILE: &str = "plan.json";

/// Everything that a monitor does, as plain data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorPlan {
    /// The container's id.
    pub id: String,
    /// Where the runtime is started and leaves what it has to say: the bundle, or an exec's own directory.
    pub dir: PathBuf,
    /// Mount points to unmount in the monitor's namespace first.
    pub hidden_mounts: Vec<PathBuf>,
    /// Starts the program.
    pub run: CommandLine,
    /// The terminal, if the program has one.
    pub terminal: Option<WindowSize>,
    /// Standard input reaches the program.
    pub interactive: bool,
    /// Where output is kept.
    pub log: Option<LogPlan>,
    /// What is made before the program is started, and removed after it.
    pub work: Work,
}

/// What a monitor is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A container's first program, and so the container.
    Container(Box<ContainerWork>),
    /// One more program in a container that runs; only the directory is removed after it.
    Exec,
}

/// What makes a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerWork {
    /// State on disk, if the container has any; removed with the container.
    pub data_dir: Option<PathBuf>,
    /// The container's name, whose reservation ends with the container.
    pub name_link: Option<PathBuf>,
    /// Leave nothing behind once the container has ended.
    pub remove: bool,
    /// The root file system.
    pub rootfs: RootfsPlan,
    /// Where it is mounted.
    pub rootfs_dir: PathBuf,
    /// Where memory for what the image lacks is mounted.
    pub scaffold_dir: PathBuf,
    /// What the kernel can do.
    pub features: KernelFeatures,
    /// The runtime document, but for what the rootfs must tell.
    pub draft: Draft,
    /// Removes what the runtime keeps.
    pub delete: CommandLine,
    /// The control group of this name, and the runtime's directory, are all that it keeps; if the
    /// group can be removed in every hierarchy, nobody is in it and the runtime need not be asked.
    pub control_group: Option<String>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

impl WindowSize {
    /// Where nobody knows a better one.
    pub const DEFAULT: Self = Self {
        rows: 24,
        columns: 80,
    };

    /// As a runtime document says it: the program may look at its terminal before we have it and could set its size.
    #[must_use]
    pub fn to_document(self) -> oci_spec::runtime::Box {
        BoxBuilder::default()
            .height(u64::from(self.rows))
            .width(u64::from(self.columns))
            .build()
            .expect("both members are set")
    }
}

/// Where output is kept, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPlan {
    /// The current file; older ones stand beside it with `.1`, `.2` … behind the name.
    pub path: PathBuf,
    /// The size at which a new file begins.
    pub file_max_bytes: u64,
    /// How many older files are kept.
    pub older_files: u32,
}

/// From the command to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Begins; with the descriptors of the lock, standard input, output and error, in this order.
    Begin {
        /// The plan's file.
        plan: PathBuf,
    },
    /// Instead of beginning: removes what a monitor that was killed has left of a container whose
    /// program has ended, and ends.
    CleanUp {
        /// The plan's file.
        plan: PathBuf,
    },
    /// Passes a signal to the container's process.
    Signal(u8),
    /// The terminal has another size.
    Resize(WindowSize),
}

/// From the monitor to the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The program runs.
    Started {
        /// Its process, as the host numbers it.
        pid: u32,
    },
    /// The program never ran; nothing is left behind.
    Failed(StartFailure),
    /// Before the end of a program that failed: what may have stood in its way.
    Hint(String),
    /// The program has ended, and the container is cleaned up.
    Exited(Exit),
}

/// Why a program never ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// The exit status that podman's users expect: 125, 126 or 127.
    pub status: u8,
    /// What an edge branches on, by its name.
    pub reason: FailureReason,
    /// One sentence.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

/// The kinds of failure that a monitor tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureReason {
    /// The plan, the image or the options make no sense together.
    Invalid,
    /// A user, group or program is not in the image.
    NotFound,
    /// The image looks like an attack.
    Unsafe,
    /// The kernel or the runtime refused.
    Refused,
}

impl FailureReason {
    /// The kind of the same meaning.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Invalid => Kind::InvalidInput,
            Self::NotFound => Kind::NotFound,
            Self::Unsafe => Kind::Unsafe,
            Self::Refused => Kind::Unsupported,
        }
    }
}

/// How a container's program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// By itself, with a status.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

impl Exit {
    /// The status that a shell shows: the program's own, or 128 and the signal's number.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Writes a message.
///
/// # Errors
/// Only if a path in it is not UTF-8.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(message)
}

/// Reads a message.
///
/// # Errors
/// It is none.
pub fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        for request in [
            Request::Begin {
                plan: "/run/p".into(),
            },
            Request::Signal(15),
            Request::Resize(WindowSize {
                rows: 24,
                columns: 80,
            }),
        ] {
            let bytes = encode(&request).unwrap();
            assert_eq!(decode::<Request>(&bytes).unwrap(), request);
        }
        let exited = Report::Exited(Exit::Signal(9));
        assert_eq!(encode(&exited).unwrap(), br#"{"exited":{"signal":9}}"#);
    }

    #[test]
    fn exits_have_the_shells_statuses() {
        assert_eq!(Exit::Code(3).status(), 3);
        assert_eq!(Exit::Signal(9).status(), 137);
        assert_eq!(Exit::Signal(200).status(), 255);
    }
}
