// SPDX-License-Identifier: Apache-2.0
//! The few facts that are read from `/proc`.
//!
//! The handle is checked to be a real procfs: in a hostile mount table `/proc` may be anything.

use crate::error::{Context, Result, SysError, describe_fd, describe_name};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io::Read as _;
use std::os::fd::OwnedFd;

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// Most files of a process are shorter.
const READ_BYTES: usize = 4096;

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `Z` …
    pub state: char,
    /// In clock ticks since boot.
    pub start_time: u64,
}

impl ProcessStat {
    /// It has ended, and nobody has asked how.
    #[must_use]
    pub const fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// A checked handle on `/proc`.
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
}

impl Proc {
    /// Opens `/proc` and proves that it is a procfs.
    ///
    /// # Errors
    /// The kernel's refusal; `EXDEV` when something else is mounted there.
    pub fn open() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, "/proc", flags, Mode::empty())
            .call("open", || "\"/proc\"".to_owned())?;
        let stat = rustix::fs::fstatfs(&root).call("fstatfs", || describe_fd(&root))?;
        if stat.f_type != PROC_SUPER_MAGIC {
            return Err(SysError::new("fstatfs", describe_fd(&root), Errno::XDEV));
        }
        Ok(Self { root })
    }

    /// Reads the file at `path` below `/proc`, without crossing mounts or magic links.
    ///
    /// # Errors
    /// The kernel's refusal; text that is not UTF-8 is `EILSEQ`.
    pub fn read(&self, path: &str) -> Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let file = match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
            // `/proc/sys` and kin are fixed names below a checked procfs.
            Err(Errno::NOSYS) => rustix::fs::openat(&self.root, path, flags, Mode::empty()),
            other => other,
        }
        .call("openat2", || describe_name(path.as_bytes()))?;
        // These files do not know their length, and asking for a little each time makes the kernel write it anew.
        let mut text = String::with_capacity(READ_BYTES);
        std::fs::File::from(file)
            .read_to_string(&mut text)
            .map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::ILSEQ);
                SysError::new("read", describe_name(path.as_bytes()), errno)
            })?;
        Ok(text)
    }

    /// The id of this boot: a UUID that every process of the machine reads alike.
    ///
    /// # Errors
    /// The kernel's refusal, or a text that is no UUID (`EILSEQ`).
    pub fn boot_id(&self) -> Result<String> {
        let text = self.read("sys/kernel/random/boot_id")?;
        let id = text.trim();
        let well_formed = id.len() == 36
            && id
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if well_formed {
            Ok(id.to_owned())
        } else {
            Err(SysError::new(
                "read",
                "\"boot_id\"".to_owned(),
                Errno::ILSEQ,
            ))
        }
    }

    /// The start time of a process in clock ticks since boot, which together with the pid and the
    /// boot id names it for good; `None` when there is no such process.
    ///
    /// # Errors
    /// The kernel's refusal, or a line that cannot be read (`EILSEQ`).
    pub fn start_time(&self, pid: u32) -> Result<Option<u64>> {
        Ok(self.process(pid)?.map(|process| process.start_time))
    }

    /// What a process is doing; `None` when there is no such process.
    ///
    /// # Errors
    /// The kernel's refusal, or a line that cannot be read (`EILSEQ`).
    ///
    /// # Source
    /// `proc_pid_stat(5)`.
    pub fn process(&self, pid: u32) -> Result<Option<ProcessStat>> {
        let text = match self.read(&format!("{pid}/stat")) {
            Ok(text) => text,
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The second field is the command in parentheses and may hold anything; the third field
        // comes after the last closing one.
        text.rsplit_once(')')
            .and_then(|(_, rest)| {
                let mut fields = rest.split_ascii_whitespace();
                Some(ProcessStat {
                    state: fields.next()?.chars().next()?,
                    start_time: fields.nth(18)?.parse().ok()?,
                })
            })
            .map(Some)
            .ok_or_else(|| SysError::new("read", format!("\"{pid}/stat\""), Errno::ILSEQ))
    }

    /// True when the kernel knows the file system type `name`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn has_file_system(&self, name: &str) -> Result<bool> {
        let text = self.read("filesystems")?;
        Ok(text
            .lines()
            .any(|line| line.split_ascii_whitespace().next_back() == Some(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_a_start_time_and_an_absent_one_none() {
        let proc = Proc::open().unwrap();
        assert!(proc.start_time(std::process::id()).unwrap().is_some());
        assert_eq!(proc.start_time(u32::MAX).unwrap(), None);
        assert_eq!(proc.boot_id().unwrap().len(), 36);
        assert!(!proc.has_file_system("no-such-fs").unwrap());
    }
}
