// SPDX-License-Identifier: Apache-2.0
//! One container's places, and what it is doing.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_sys::Errno;
use gantry_sys::lock::{LockMode, OfdLock};
use rustix::fs::{Mode, OFlags};

use super::error::{Result, io_error, sys_error};
use super::files::{read_json, remove_dir, write_json};
use super::record::{ContainerRecord, ExitRecord, ProcessRecord, Status};

pub(crate) const LOCK: &str = "lock";
const PROCESS: &str = "process.json";
const EXIT: &str = "exit.json";

/// One container's places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// In memory.
    pub state_dir: PathBuf,
    /// On disk, if it has any.
    pub data_dir: Option<PathBuf>,
}

impl Home {
    /// Where its records lie.
    pub(crate) fn records(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(&self.state_dir)
    }

    /// Writes how the program ended.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn put_exit(&self, record: &ExitRecord) -> Result<()> {
        write_json(self.records(), EXIT, record, self.data_dir.is_some())
    }

    /// Writes which process the program is.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn put_process(&self, record: &ProcessRecord) -> Result<()> {
        write_json(&self.state_dir, PROCESS, record, false)
    }

    /// The file that holds the container's output.
    #[must_use]
    pub fn log(&self) -> Option<PathBuf> {
        self.data_dir.as_ref().map(|dir| dir.join("log"))
    }

    /// Deletes both directories, and the reservation of the name.
    ///
    /// # Errors
    /// The kernel's first refusal; the rest is still tried.
    pub fn remove(&self, name_link: Option<&Path>) -> Result<()> {
        let mut outcome = Ok(());
        // The record goes last: what is half removed can still be seen and removed.
        let dirs = [Some(&self.state_dir), self.data_dir.as_ref()];
        for dir in dirs.into_iter().flatten() {
            outcome = outcome.and(remove_dir(dir));
        }
        if let Some(link) = name_link {
            outcome = outcome.and(match fs::remove_file(link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(io_error("remove", link)(error))
                }
                _ => Ok(()),
            });
        }
        outcome
    }
}

/// A container that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What was written about it.
    pub record: ContainerRecord,
    /// Its places.
    pub home: Home,
}

impl Container {
    /// Whether somebody is responsible for it.
    fn is_held(&self) -> Result<bool> {
        let path = self.home.state_dir.join(LOCK);
        let file = match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            other => other.map_err(|errno| io_error("open", &path)(errno.into()))?,
        };
        let outcome: std::result::Result<OfdLock, OwnedFd> =
            OfdLock::try_lock(file, LockMode::Exclusive)
                .map_err(sys_error(format!("look at lock {}", path.display())))?;
        Ok(outcome.is_err())
    }

    /// What it is doing.
    ///
    /// # Errors
    /// A damaged file, the kernel's refusal.
    pub fn status(&self) -> Result<Status> {
        let exit = || read_json::<ExitRecord>(&self.home.records().join(EXIT));
        if let Some(exit) = exit()? {
            return Ok(Status::Exited(exit));
        }
        let held = self.is_held()?;
        let process = read_json::<ProcessRecord>(&self.home.state_dir.join(PROCESS))?;
        if held {
            return Ok(process.map_or(Status::Starting, Status::Running));
        }
        // It may have ended between the two looks.
        if let Some(exit) = exit()? {
            return Ok(Status::Exited(exit));
        }
        match process {
            Some(process)
                if process
                    .is_alive()
                    .map_err(sys_error("look at the container's process"))? =>
            {
                Ok(Status::Unwatched(process))
            }
            _ => Ok(Status::Lost),
        }
    }
}
