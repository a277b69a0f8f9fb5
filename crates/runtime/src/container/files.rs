// SPDX-License-Identifier: Apache-2.0
//! Small files and directories, on disk and in memory.

use std::fs;
use std::io;
use std::path::Path;

use gantry_sys::root::RootDir;
use gantry_sys::{Errno, publish};
use rustix::fs::Mode;
use serde::{Serialize, de::DeserializeOwned};

use super::error::{ContainerError, Result, io_error, sys_error};

/// The most that is read of any of these files.
const FILE_MAX_BYTES: u64 = 1 << 20;
const PRIVATE_DIR: Mode = Mode::RWXU;
/// For files that nobody else reads.
pub(crate) const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);

pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Ok(());
    };
    let action = || format!("remove {}", dir.display());
    match RootDir::open_trusted(parent) {
        Ok(parent) => parent
            .remove_all(name.as_encoded_bytes())
            .map(drop)
            .map_err(sys_error(action())),
        Err(error) if error.is(Errno::NOENT) => Ok(()),
        Err(error) => Err(sys_error(action())(error)),
    }
}

pub(crate) fn remove_stale(link: &Path) -> Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", link)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a directory and its parents, closed to everybody else.
pub(crate) fn make_private_dirs(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR.as_raw_mode())
        .create(dir)
        .map_err(io_error("create directory", dir))
}

/// Writes a record by a rename: durably on disk, where a half-written one would stand in the way after
/// a power cut, and unsynced in memory, where nothing is left after one.
pub(crate) fn write_json<T: Serialize>(
    dir: &Path,
    name: &str,
    value: &T,
    durable: bool,
) -> Result<()> {
    let path = dir.join(name);
    let damaged = |source| ContainerError::Damaged {
        path: path.clone(),
        source,
    };
    let bytes = serde_json::to_vec(value).map_err(damaged)?;
    let (name, staged) = (name.as_bytes(), format!(".{name}"));
    RootDir::open_trusted(dir)
        .and_then(|dir| match durable {
            true => publish::atomic_write(&dir, name, staged.as_bytes(), PRIVATE_FILE, &bytes),
            false => {
                publish::atomic_write_volatile(&dir, name, staged.as_bytes(), PRIVATE_FILE, &bytes)
            }
        })
        .map_err(sys_error(format!("write {}", path.display())))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        other => other.and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)),
    }
    .map_err(io_error("read", path))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| ContainerError::Damaged {
            path: path.to_owned(),
            source,
        })
}
