// SPDX-License-Identifier: Apache-2.0
//! Volumes that an image declares: directories of the container's own that begin with what the image
//! has there.
//!
//! The contents are copied, as docker and podman do for their anonymous volumes. An overlay would
//! be cheaper, but the kernel stacks two such file systems at most, and the rootfs is two already
//! (EROFS from a file below an overlay).

use gantry_sys::reflink::copy_contents;
use gantry_sys::root::{RootDir, type_at};
use gantry_sys::{Errno, SysError, xattr};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use std::os::fd::AsFd;

/// How deep a volume of an image may be.
const DEPTH_MAX: usize = 256;
/// The device number by which an overlay knows that a name was deleted.
const WHITEOUT: u64 = 0;

/// Fills the empty directory `to` with the tree at `target` of the rootfs, owner, mode, times and
/// attributes included; does nothing if there is no such directory. Device nodes, pipes and sockets
/// stay behind.
///
/// # Privileges
/// Those that giving files away needs.
///
/// # Errors
/// The kernel's refusal.
pub fn fill(root: &RootDir, target: &str, to: &RootDir) -> Result<(), SysError> {
    match root.open_dir(target.as_bytes()) {
        Ok(from) => copy_dir(&from, to, Copied::Volume, 0),
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::NOTDIR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies what a container wrote so far, an overlay's upper directory, into the empty directory `to`,
/// with everything that means something to the overlay. Contents are shared where the file system can.
///
/// What the container writes meanwhile may be in the copy, or not, or in part.
///
/// # Privileges
/// Those that giving files away and making device nodes need.
///
/// # Errors
/// The kernel's refusal.
pub fn copy_upper(upper: &RootDir, to: &RootDir) -> Result<(), SysError> {
    copy_dir(upper, to, Copied::Upper, 0)
}

/// What is being copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// A plain tree; what steers an overlay is not part of it.
    Volume,
    /// An overlay's upper directory, whiteouts included.
    Upper,
}

/// Copies what is in one directory into another, which is empty, likewise.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn copy_tree(from: &RootDir, to: &RootDir) -> Result<(), SysError> {
    copy_dir(from, to, Copied::Volume, 0)
}

fn failed(call: &'static str, name: &[u8], errno: Errno) -> SysError {
    SysError::new(call, String::from_utf8_lossy(name).into_owned(), errno)
}

fn copy_dir(from: &RootDir, to: &RootDir, what: Copied, depth: usize) -> Result<(), SysError> {
    if depth > DEPTH_MAX {
        return Err(failed("copy volume", b".", Errno::NAMETOOLONG));
    }
    for name in from.list(b".")? {
        let name = name.as_slice();
        match type_at(from, name)? {
            Some(FileType::Directory) => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)
                    .map_err(|errno| failed("mkdirat", name, errno))?;
                copy_dir(&enter(from, name)?, &enter(to, name)?, what, depth + 1)?;
            }
            Some(FileType::RegularFile) => copy_file(from, to, name, what)?,
            Some(FileType::Symlink) => copy_symlink(from, to, name)?,
            Some(FileType::CharacterDevice) if what == Copied::Upper => {
                copy_whiteout(from, to, name)?;
            }
            _ => {}
        }
    }
    // After its entries, whose making changes the time.
    let stat = rustix::fs::fstat(from).map_err(|errno| failed("fstat", b".", errno))?;
    copy_metadata(from, b".", to, &stat, what)
}

/// Any other device node stays behind.
fn copy_whiteout(from: &RootDir, to: &RootDir, name: &[u8]) -> Result<(), SysError> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("fstatat", name, errno))?;
    if stat.st_rdev != WHITEOUT {
        return Ok(());
    }
    rustix::fs::mknodat(to, name, FileType::CharacterDevice, Mode::empty(), WHITEOUT)
        .map_err(|errno| failed("mknodat", name, errno))
}

fn enter(dir: &RootDir, name: &[u8]) -> Result<RootDir, SysError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map(RootDir::from_fd)
        .map_err(|errno| failed("openat", name, errno))
}

fn copy_file(from: &RootDir, to: &RootDir, name: &[u8], what: Copied) -> Result<(), SysError> {
    let open = |dir: &RootDir, flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed("openat", name, errno))
    };
    let source = open(from, OFlags::RDONLY)?;
    let copy = open(to, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    copy_contents(&source, &copy)?;
    let stat = rustix::fs::fstat(&source).map_err(|errno| failed("fstat", name, errno))?;
    copy_metadata(from, name, &copy, &stat, what)
}

fn copy_symlink(from: &RootDir, to: &RootDir, name: &[u8]) -> Result<(), SysError> {
    let target = rustix::fs::readlinkat(from, name, Vec::new())
        .map_err(|errno| failed("readlinkat", name, errno))?;
    rustix::fs::symlinkat(&target, to, name).map_err(|errno| failed("symlinkat", name, errno))?;
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("fstatat", name, errno))?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("fchownat", name, errno))?;
    rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("utimensat", name, errno))
}

/// Owner first: giving a file away clears set-id bits and capabilities.
fn copy_metadata(
    from: &RootDir,
    name: &[u8],
    to: impl AsFd,
    stat: &Stat,
    what: Copied,
) -> Result<(), SysError> {
    let to = to.as_fd();
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid)).map_err(|errno| failed("fchown", name, errno))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(|errno| failed("fchmod", name, errno))?;
    for (key, value) in xattr::list_at(from, name)? {
        let steers = key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.");
        if what == Copied::Upper || !steers {
            xattr::set(to, &key, &value)?;
        }
    }
    rustix::fs::futimens(to, &times(stat)).map_err(|errno| failed("futimens", name, errno))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_mtime, stat.st_mtime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn volume_begins_with_the_images_files() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = image.path().join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("sub/file"), "contents").unwrap();
        fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", data.join("link")).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).unwrap();
        let (root, to) = (
            RootDir::open_trusted(image.path()).unwrap(),
            RootDir::open_trusted(volume.path()).unwrap(),
        );
        fill(&root, "/data", &to).unwrap();
        let copied = volume.path().join("sub/file");
        assert_eq!(fs::read_to_string(&copied).unwrap(), "contents");
        let (old, new) = (
            fs::metadata(data.join("sub/file")).unwrap(),
            fs::metadata(&copied).unwrap(),
        );
        assert_eq!(
            (old.mode(), old.mtime(), old.mtime_nsec()),
            (new.mode(), new.mtime(), new.mtime_nsec())
        );
        assert_eq!(fs::metadata(volume.path()).unwrap().mode() & 0o7777, 0o1777);
        let link = fs::read_link(volume.path().join("link")).unwrap();
        assert_eq!(link.to_str(), Some("/etc/passwd"));
    }

    #[test]
    fn volume_without_a_directory_in_the_image_is_empty() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(image.path().join("file"), "").unwrap();
        let (root, to) = (
            RootDir::open_trusted(image.path()).unwrap(),
            RootDir::open_trusted(volume.path()).unwrap(),
        );
        fill(&root, "/none", &to).unwrap();
        fill(&root, "/file", &to).unwrap();
        assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 0);
    }
}
