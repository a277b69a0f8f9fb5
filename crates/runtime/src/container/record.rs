// SPDX-License-Identifier: Apache-2.0
//! What is written about a container, and what follows from it.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry_sys::SysError;
use gantry_sys::proc::Proc;
use serde::{Deserialize, Serialize};

use crate::options::ContainerName;
use crate::supervise::Exit;

/// What is written about a container when it is made, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<ContainerName>,
    /// The image as it was asked for.
    pub image: String,
    /// The image's manifest.
    pub digest: String,
    /// The reference under which it was admitted; absent for an image without a name.
    #[serde(default)]
    pub reference: Option<String>,
    /// The program with its arguments, as asked for; empty for the image's own.
    pub command: Vec<String>,
    /// When it was made: seconds since 1970.
    pub created_unix_s: u64,
    /// Removed once it has ended.
    pub remove: bool,
    /// The signal that asks the program to end.
    pub stop_signal: u8,
    /// How long `stop` waits before it kills, in seconds.
    pub stop_timeout_s: u64,
}

impl ContainerRecord {
    /// The first twelve digits of the id, for people.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// A process, so that another one of the same number is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRecord {
    /// As the host numbers it.
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
    /// Seconds since 1970.
    pub started_unix_s: u64,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitRecord {
    /// By itself or by a signal.
    pub exit: Exit,
    /// Seconds since 1970.
    pub ended_unix_s: u64,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Somebody is making it.
    Starting,
    /// Its program runs.
    Running(ProcessRecord),
    /// Its program has ended.
    Exited(ExitRecord),
    /// Its program runs, but its monitor was killed: nobody will know how it ends.
    Unwatched(ProcessRecord),
    /// Its monitor was killed, or the machine went down: nobody knows how it ended.
    Lost,
}

impl Status {
    /// The program's process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<ProcessRecord> {
        match self {
            Self::Running(process) | Self::Unwatched(process) => Some(*process),
            Self::Starting | Self::Exited(_) | Self::Lost => None,
        }
    }

    /// Whether it may still do something.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Starting) || self.process().is_some()
    }
}

impl ProcessRecord {
    /// Whether this very process still exists.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn is_alive(&self) -> std::result::Result<bool, SysError> {
        Ok(Proc::open()?.start_time(self.pid)? == Some(self.start_time))
    }
}

/// Seconds since 1970.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
