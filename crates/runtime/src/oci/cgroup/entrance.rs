// SPDX-License-Identifier: Apache-2.0
//! How a process comes into the groups of a container.
//!
//! A process that somebody else moves, by `cgroup.procs`, has to hold still meanwhile, and with it every fork, execution
//! and exit of the machine: the kernel waits for a grace period, some ten milliseconds, before it moves the first one.
//! A thread that moves itself needs none of that, and a process with one thread is moved by it whole. So:
//!
//! | version | entrance |
//! |---|---|
//! | 2 | the process is cloned into the group |
//! | 1 | it writes itself into `tasks` of each group, by descriptors that were opened for it before the clone |
//! | either, by systemd | it is told to, with the pid |
//!
//! # Source
//! `clone(2)` `CLONE_INTO_CGROUP`; `Documentation/admin-guide/cgroup-v1/cgroups.rst` (a `0` is the writer itself);
//! `cgroup_procs_write_start` of the kernel, which takes no lock for it since 5.5.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use gantry_sys::{Errno, SysError};

use super::dir::Dir;
use super::{Cgroup, CgroupError};

const TASKS: &str = "tasks";
/// The writer itself.
const SELF: &[u8] = b"0";

/// The way into a container's groups.
#[derive(Debug)]
pub enum Entrance {
    /// Its life begins there.
    Cloned(OwnedFd),
    /// It enters by itself, before it does anything else.
    Entered(Doors),
    /// Whoever makes it puts it there; or there is no group.
    Told,
}

impl Entrance {
    /// The group that it is cloned into, and what it has to enter itself: one of the two, or neither.
    #[must_use]
    pub fn split(self) -> (Option<OwnedFd>, Option<Doors>) {
        match self {
            Self::Cloned(group) => (Some(group), None),
            Self::Entered(doors) => (None, Some(doors)),
            Self::Told => (None, None),
        }
    }
}

/// Open files by which the process that has them enters groups of version 1.
#[derive(Debug)]
pub struct Doors(Vec<(File, PathBuf)>);

impl Doors {
    /// Enters every group. The calling process must have one thread.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn enter(self) -> Result<(), CgroupError> {
        for (mut door, path) in self.0 {
            door.write_all(SELF).map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                failed(path, "write", errno)
            })?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// The way into these groups, or into those of that name below them, which have to be there.
    ///
    /// # Errors
    /// The kernel's refusal, or that there is no such group.
    pub fn entrance(&self, below: Option<&str>) -> Result<Entrance, CgroupError> {
        if self.is_pending() {
            return Ok(Entrance::Told);
        }
        if self.state().unified {
            let mut dirs = self.at(below, Dir::try_clone)?;
            return Ok(dirs.pop().map_or(Entrance::Told, Entrance::Cloned));
        }
        let doors = self.at(below, |dir| {
            let door = dir.open_to_write(TASKS)?;
            Ok((door, dir.path.clone()))
        })?;
        Ok(match doors.as_slice() {
            [] => Entrance::Told,
            _ => Entrance::Entered(Doors(doors)),
        })
    }
}

fn failed(path: PathBuf, call: &'static str, errno: Errno) -> CgroupError {
    CgroupError::File {
        action: "join control group",
        source: SysError::new(call, format!("\"{TASKS}\", \"0\""), errno),
        path,
    }
}
