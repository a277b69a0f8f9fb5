// SPDX-License-Identifier: Apache-2.0
//! A group's directory, held by a descriptor.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use gantry_sys::{Errno, SysError};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::CgroupError;

/// A directory of a hierarchy.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    /// For messages.
    pub(super) path: PathBuf,
}

const CGROUP1_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const OPEN: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn failed(action: &'static str, path: &Path, call: &'static str, errno: Errno) -> CgroupError {
    CgroupError::File {
        action,
        path: path.to_owned(),
        source: SysError::new(call, format!("{path:?}"), errno),
    }
}

impl Dir {
    /// Opens the root of a hierarchy, and proves that it is one.
    pub(super) fn root(mount: &Path) -> Result<Self, CgroupError> {
        const ACTION: &str = "open control groups at";
        let fd = rustix::fs::openat(CWD, mount, OPEN, Mode::empty())
            .map_err(|errno| failed(ACTION, mount, "openat", errno))?;
        let stat =
            rustix::fs::fstatfs(&fd).map_err(|errno| failed(ACTION, mount, "fstatfs", errno))?;
        if stat.f_type != CGROUP1_MAGIC && stat.f_type != CGROUP2_MAGIC {
            return Err(failed(ACTION, mount, "fstatfs", Errno::XDEV));
        }
        Ok(Self {
            fd,
            path: mount.to_owned(),
        })
    }

    /// Opens a group; `None` when there is none.
    pub(super) fn child(&self, name: &str) -> Result<Option<Self>, CgroupError> {
        let path = self.path.join(name);
        match rustix::fs::openat(&self.fd, name, OPEN, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(failed("open control group", &path, "openat", errno)),
        }
    }

    /// Opens the group at a path below this one.
    pub(super) fn descendant(&self, path: &str) -> Result<Option<Self>, CgroupError> {
        let whole = self.path.join(path);
        match rustix::fs::openat(&self.fd, path, OPEN, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: whole })),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(failed("open control group", &whole, "openat", errno)),
        }
    }

    /// Makes a group, or opens the one that is there; true when it was made.
    pub(super) fn ensure_child(&self, name: &str) -> Result<(Self, bool), CgroupError> {
        let path = self.path.join(name);
        let made = match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failed("make control group", &path, "mkdirat", errno)),
        };
        let fd = rustix::fs::openat(&self.fd, name, OPEN, Mode::empty())
            .map_err(|errno| failed("open control group", &path, "openat", errno))?;
        Ok((Self { fd, path }, made))
    }

    /// Another descriptor of the same group.
    pub(super) fn try_clone(&self) -> Result<OwnedFd, CgroupError> {
        self.fd.try_clone().map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::MFILE);
            failed("open control group", &self.path, "fcntl", errno)
        })
    }

    /// Opens one of the group's files for writing.
    pub(super) fn open_to_write(&self, file: &str) -> Result<File, CgroupError> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.fd, file, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| failed("open", &self.path.join(file), "openat", errno))
    }

    /// Removes a group below this one; false when it is busy, true when it is gone.
    pub(super) fn remove_child(&self, name: &str) -> Result<bool, CgroupError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(errno) => Err(failed(
                "remove control group",
                &self.path.join(name),
                "unlinkat",
                errno,
            )),
        }
    }

    /// A file's text; `None` when the group has no such file, or is gone.
    pub(super) fn read(&self, file: &str) -> Result<Option<String>, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fail = |call, errno| failed("read", &self.path.join(file), call, errno);
        let fd = match rustix::fs::openat(&self.fd, file, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
            Err(errno) => return Err(fail("openat", errno)),
        };
        let mut text = String::new();
        match File::from(fd).read_to_string(&mut text) {
            Ok(_) => Ok(Some(text)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NODEV) => Ok(None),
                errno => Err(fail("read", errno.unwrap_or(Errno::ILSEQ))),
            },
        }
    }

    /// Writes a value in one call; false when there is no such file.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<bool, SysError> {
        self.write_each(file, [value])
    }

    /// Writes values, each in one call; false when there is no such file.
    pub(super) fn write_each<'a>(
        &self,
        file: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<bool, SysError> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let failed = |call, value: &str, errno| {
            let action = format!("{:?}, {value:?}", self.path.join(file));
            SysError::new(call, action, errno)
        };
        let mut values = values.into_iter().peekable();
        let fd = match rustix::fs::openat(&self.fd, file, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => {
                let first = values.peek().copied().unwrap_or_default();
                return Err(failed("openat", first, errno));
            }
        };
        let mut file = File::from(fd);
        for value in values {
            file.write_all(value.as_bytes()).map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                failed("write", value, errno)
            })?;
        }
        Ok(true)
    }

    /// The names of the groups directly below.
    pub(super) fn children(&self) -> Result<Vec<String>, CgroupError> {
        let fail = |errno| failed("list", &self.path, "getdents64", errno);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(fail)? {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed under our eyes.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(fail(errno)),
            };
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if entry.file_type() == rustix::fs::FileType::Directory
                && let Some(name) = name.to_str().filter(|name| ![".", ".."].contains(name))
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
