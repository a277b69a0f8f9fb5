// SPDX-License-Identifier: Apache-2.0
//! A directory of small files that is this user's alone.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_sys::root::RootDir;
use rustix::fs::{Mode, OFlags};

/// What its files may be read and written by.
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// Where such a directory is, or will be.
#[derive(Debug)]
pub(super) struct PrivateDir(PathBuf);

impl PrivateDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The directory, if it is there.
    ///
    /// # Errors
    /// It cannot be read, or is not this user's alone.
    pub(super) fn open(&self) -> io::Result<Option<RootDir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&self.0, flags, Mode::empty()) {
            Ok(dir) => File::from(dir),
            Err(error) if error == rustix::io::Errno::NOENT => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !is_ours(&dir.metadata()?) {
            return Err(not_ours(&self.0));
        }
        Ok(Some(RootDir::from_fd(dir.into())))
    }

    /// The directory, made if it is not there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn ensure(&self) -> io::Result<RootDir> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(&self.0)?;
        self.open()?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// One file of such a directory; none if it is not there.
///
/// # Errors
/// It cannot be read, is longer than `max_bytes`, no file, or not this user's alone.
pub(super) fn read(dir: &RootDir, name: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match dir.open(name.as_bytes(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(error) if error.is(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || !is_ours(&metadata) {
        return Err(not_ours(Path::new(name)));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} has more than {max_bytes} bytes"),
        ));
    }
    Ok(Some(bytes))
}

/// Owned by the user of this process and by nobody else to read or write.
fn is_ours(metadata: &std::fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0
}

fn not_ours(path: &Path) -> io::Error {
    let why = format!("{} is not ours alone", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Nanoseconds of the Unix epoch, as files have times.
///
/// # Errors
/// A time that no file can hold.
pub(super) fn to_ns(time: SystemTime) -> io::Result<u64> {
    let since = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    u64::try_from(since.as_nanos()).map_err(io::Error::other)
}

/// The time of so many nanoseconds.
pub(super) fn from_ns(ns: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_nanos(ns))
}
