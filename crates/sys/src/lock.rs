// SPDX-License-Identifier: Apache-2.0
//! Open file description locks.
//!
//! Never `flock`: it does not exclude the POSIX record locks that other tools take on the same
//! file, and never plain POSIX locks: any `close` of the file by the same process drops them.
//! A lock here belongs to the open file, so two handles in one process exclude each other and a
//! dead process's lock ends with its last descriptor. On NFS both become byte-range locks under
//! the server's lease.
//!
//! Locks save duplicate work and guard deletion; nothing that readers need depends on them.
#![expect(unsafe_code, reason = "fcntl(F_OFD_SETLK) has no wrapper in rustix")]

use crate::error::{Context, Result, SysError, describe_fd, describe_name};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Whether other holders may share the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Any number of holders.
    Shared,
    /// One holder.
    Exclusive,
}

/// A held lock on a whole file; it ends when this value is dropped.
#[derive(Debug)]
pub struct OfdLock {
    file: OwnedFd,
}

impl OfdLock {
    /// Takes the lock on `file` unless somebody else holds it.
    ///
    /// # Errors
    /// The kernel's refusal; a lock held elsewhere is `Ok(Err(file))`, which gives the file back.
    pub fn try_lock(file: OwnedFd, mode: LockMode) -> Result<Result<Self, OwnedFd>> {
        match set_lock(file.as_fd(), mode, libc::F_OFD_SETLK) {
            Ok(()) => Ok(Ok(Self { file })),
            Err(error) if error.is(Errno::AGAIN) || error.is(Errno::ACCESS) => Ok(Err(file)),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock on `file`, waiting for as long as another holds it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn lock(file: OwnedFd, mode: LockMode) -> Result<Self> {
        loop {
            match set_lock(file.as_fd(), mode, libc::F_OFD_SETLKW) {
                Ok(()) => return Ok(Self { file }),
                Err(error) if error.is(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the exclusive lock on the file `name` of `dir`, creating the file, unless it is held.
    ///
    /// A file that its last holder unlinked meanwhile is noticed and created anew, so lock files
    /// may be removed by their holder.
    ///
    /// # Errors
    /// The kernel's refusal; `Ok(None)` is a lock held elsewhere.
    pub fn try_lock_at(dir: impl AsFd, name: &str, mode: LockMode) -> Result<Option<Self>> {
        let dir = dir.as_fd();
        loop {
            let file = open_lock_file(dir, name)?;
            let Ok(lock) = Self::try_lock(file, mode)? else {
                return Ok(None);
            };
            if lock.is_linked_as(dir, name)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Unlinks the lock's file, then releases the lock.
    ///
    /// # Errors
    /// The kernel's refusal to unlink; the lock ends either way.
    pub fn remove(self, dir: impl AsFd, name: &str) -> Result<()> {
        let dir = dir.as_fd();
        rustix::fs::unlinkat(dir, name, AtFlags::empty()).call("unlinkat", || {
            format!("{}, {}", describe_fd(dir), describe_name(name.as_bytes()))
        })
    }

    /// The locked file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn is_linked_as(&self, dir: BorrowedFd<'_>, name: &str) -> Result<bool> {
        let ours = rustix::fs::fstat(&self.file).call("fstat", || describe_fd(&self.file))?;
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok(named.st_ino == ours.st_ino && named.st_dev == ours.st_dev),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(SysError::new(
                "fstatat",
                describe_name(name.as_bytes()),
                errno,
            )),
        }
    }
}

fn open_lock_file(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).call("openat", || {
        format!(
            "{}, {}, O_RDWR|O_CREAT",
            describe_fd(dir),
            describe_name(name.as_bytes())
        )
    })
}

fn set_lock(fd: BorrowedFd<'_>, mode: LockMode, command: libc::c_int) -> Result<()> {
    let kind = match mode {
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Exclusive => libc::F_WRLCK,
    };
    // JUSTIFICATION: rustix::fs::fcntl_lock sets traditional POSIX locks only. `flock` has private
    // padding on some targets, hence the zeroed value.
    // SAFETY: all-zero bytes are a valid `struct flock`: integers only.
    let mut whole_file: libc::flock = unsafe { std::mem::zeroed() };
    whole_file.l_type = libc::c_short::try_from(kind).unwrap_or(libc::c_short::MAX);
    whole_file.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    // SAFETY: `fd` is open for the borrow's life; the third argument is the `struct flock` that
    // both commands read; l_pid is zero as they demand.
    let outcome = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw const whole_file) };
    if outcome == 0 {
        return Ok(());
    }
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Err(SysError::new(
        "fcntl",
        format!("{}, F_OFD_SETLK, {mode:?}", describe_fd(fd)),
        errno,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn exclusive_lock_excludes_another_handle_of_the_same_process() {
        let (_keep, dir) = dir();
        let held = OfdLock::try_lock_at(&dir, "a", LockMode::Exclusive)
            .unwrap()
            .unwrap();
        assert!(
            OfdLock::try_lock_at(&dir, "a", LockMode::Exclusive)
                .unwrap()
                .is_none()
        );
        assert!(
            OfdLock::try_lock_at(&dir, "a", LockMode::Shared)
                .unwrap()
                .is_none()
        );
        drop(held);
        assert!(
            OfdLock::try_lock_at(&dir, "a", LockMode::Exclusive)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn shared_locks_coexist_and_exclude_exclusive() {
        let (_keep, dir) = dir();
        let one = OfdLock::try_lock_at(&dir, "a", LockMode::Shared)
            .unwrap()
            .unwrap();
        let two = OfdLock::try_lock_at(&dir, "a", LockMode::Shared)
            .unwrap()
            .unwrap();
        assert!(
            OfdLock::try_lock_at(&dir, "a", LockMode::Exclusive)
                .unwrap()
                .is_none()
        );
        drop((one, two));
        assert!(
            OfdLock::try_lock_at(&dir, "a", LockMode::Exclusive)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_lock_file_removed_by_its_holder_is_created_anew() {
        let (keep, dir) = dir();
        let waiting = open_lock_file(dir.as_fd(), "a").unwrap();
        let held = OfdLock::try_lock_at(&dir, "a", LockMode::Exclusive)
            .unwrap()
            .unwrap();
        held.remove(&dir, "a").unwrap();
        assert!(!keep.path().join("a").exists());
        let stale = OfdLock::try_lock(waiting, LockMode::Exclusive)
            .unwrap()
            .unwrap();
        assert!(!stale.is_linked_as(dir.as_fd(), "a").unwrap());
        assert!(
            OfdLock::try_lock_at(&dir, "a", LockMode::Exclusive)
                .unwrap()
                .is_some()
        );
    }
}
