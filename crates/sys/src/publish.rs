// SPDX-License-Identifier: Apache-2.0
//! Making staged things visible, and durable.
//!
//! ```text
//!   stage → syncfs (or fsync per file on network file systems) → rename_noreplace → sync_dir
//!                                                                atomic_write, replace_symlink
//! ```
//!
//! Publishing never overwrites content: a name that is already there is not an error, one copy
//! survives. Only tags and small state files are replaced, by rename over the old name.
//!
//! All names are single components relative to a directory descriptor.

use crate::error::{Context, Result, SysError, describe_fd, describe_name};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};

/// What publishing a staged name did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The name was free and now shows what was staged.
    New,
    /// The name was taken; the staged entry is where it was.
    Existed,
}

/// Moves `from` to `to` unless that name is taken.
///
/// Uses `renameat2(RENAME_NOREPLACE)`. Where the file system has no such flag (NFS, some FUSE),
/// files are linked and unlinked instead; directories are renamed plainly, which fails on a
/// directory that is not empty.
///
/// # Concurrency
/// Atomic; of several publishers exactly one sees [`Published::New`].
///
/// # Durability
/// None: sync the target directory.
///
/// # Errors
/// The kernel's refusal.
pub fn rename_noreplace(
    from_dir: impl AsFd,
    from: &[u8],
    to_dir: impl AsFd,
    to: &[u8],
) -> Result<Published> {
    let (from_dir, to_dir) = (from_dir.as_fd(), to_dir.as_fd());
    match rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Published::New),
        Err(Errno::EXIST) => Ok(Published::Existed),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rename_noreplace_without_flag(from_dir, from, to_dir, to)
        }
        Err(errno) => Err(two_names("renameat2", from_dir, from, to_dir, to, errno)),
    }
}

/// The fall-back of [`rename_noreplace`], callable by itself so that tests can take this road.
///
/// # Errors
/// The kernel's refusal.
pub fn rename_noreplace_without_flag(
    from_dir: BorrowedFd<'_>,
    from: &[u8],
    to_dir: BorrowedFd<'_>,
    to: &[u8],
) -> Result<Published> {
    match rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty()) {
        Ok(()) => {
            unlink(from_dir, from)?;
            Ok(Published::New)
        }
        Err(Errno::EXIST) => Ok(Published::Existed),
        // Directories cannot be linked.
        Err(Errno::PERM | Errno::ISDIR) => match rustix::fs::renameat(from_dir, from, to_dir, to) {
            Ok(()) => Ok(Published::New),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {
                Ok(Published::Existed)
            }
            Err(errno) => Err(two_names("renameat", from_dir, from, to_dir, to, errno)),
        },
        Err(errno) => Err(two_names("linkat", from_dir, from, to_dir, to, errno)),
    }
}

/// Moves `from` to `to`, replacing what was there.
///
/// # Errors
/// The kernel's refusal.
pub fn rename(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> Result<()> {
    let (from_dir, to_dir) = (from_dir.as_fd(), to_dir.as_fd());
    rustix::fs::renameat(from_dir, from, to_dir, to)
        .map_err(|errno| two_names("renameat", from_dir, from, to_dir, to, errno))
}

/// Swaps two names in one step; `false` where the file system has no such call (NFS, some FUSE).
///
/// # Durability
/// None: sync both directories.
///
/// # Errors
/// The kernel's refusal.
pub fn exchange(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> Result<bool> {
    let (from_dir, to_dir) = (from_dir.as_fd(), to_dir.as_fd());
    match rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(two_names("renameat2", from_dir, from, to_dir, to, errno)),
    }
}

/// Replaces the file `name` of `dir` by `bytes` in one step.
///
/// `temporary` is a name in the same directory that nobody else uses.
///
/// # Durability
/// The contents are synced before the rename and the directory after it.
///
/// # Errors
/// The kernel's refusal; the old file is then as it was.
pub fn atomic_write(
    dir: impl AsFd,
    name: &[u8],
    temporary: &[u8],
    mode: Mode,
    bytes: &[u8],
) -> Result<()> {
    let dir = dir.as_fd();
    write_new_file(dir, temporary, mode, bytes)?;
    rename_or_remove(dir, temporary, name)?;
    sync_dir(dir)
}

/// Writes the file `name` in one step as [`atomic_write`] does, for contents that mean nothing once
/// the machine went down.
///
/// # Durability
/// None: after a power cut the file may be absent, empty, or there.
///
/// # Errors
/// The kernel's refusal; the old file is then as it was.
pub fn atomic_write_volatile(
    dir: impl AsFd,
    name: &[u8],
    temporary: &[u8],
    mode: Mode,
    bytes: &[u8],
) -> Result<()> {
    let dir = dir.as_fd();
    create_file(dir, temporary, mode, bytes)?;
    rename_or_remove(dir, temporary, name)
}

/// Gives a file its name; one that cannot get it is removed.
fn rename_or_remove(dir: BorrowedFd<'_>, temporary: &[u8], name: &[u8]) -> Result<()> {
    rename(dir, temporary, dir, name).inspect_err(|_| {
        unlink(dir, temporary).ok();
    })
}

/// Creates the file `name` of `dir` with `bytes`, synced; the name must be free.
///
/// # Errors
/// The kernel's refusal; the file is then removed.
pub fn write_new_file(dir: impl AsFd, name: &[u8], mode: Mode, bytes: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    let file = create_file(dir, name, mode, bytes)?;
    file.sync_all()
        .map_err(|error| remove_failed(dir, name, &error))
}

fn create_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    mode: Mode,
    bytes: &[u8],
) -> Result<std::fs::File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, name, flags, mode).call("openat", || one_name(dir, name))?;
    let mut file = std::fs::File::from(file);
    rustix::fs::fchmod(&file, mode)
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(bytes))
        .map_err(|error| remove_failed(dir, name, &error))?;
    Ok(file)
}

fn remove_failed(dir: BorrowedFd<'_>, name: &[u8], error: &std::io::Error) -> SysError {
    unlink(dir, name).ok();
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    SysError::new("write", one_name(dir, name), errno)
}

/// Points the symlink `name` of `dir` at `target` in one step, replacing a former one.
///
/// `temporary` is a name in the same directory that nobody else uses.
///
/// # Durability
/// The directory is synced on return.
///
/// # Errors
/// The kernel's refusal; the old link is then as it was.
pub fn replace_symlink(dir: impl AsFd, name: &[u8], temporary: &[u8], target: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    rustix::fs::symlinkat(target, dir, temporary).call("symlinkat", || {
        format!("{}, {}", describe_name(target), one_name(dir, temporary))
    })?;
    rename_or_remove(dir, temporary, name)?;
    sync_dir(dir)
}

/// Waits until the directory's entries are on stable storage.
///
/// # Errors
/// The kernel's refusal; what it reports once is lost data, never to be retried and trusted.
pub fn sync_dir(dir: impl AsFd) -> Result<()> {
    let dir = dir.as_fd();
    rustix::fs::fsync(dir).call("fsync", || describe_fd(dir))
}

/// Waits until everything written so far to the file system of `fd` is on stable storage.
///
/// # Durability
/// Reports write-back errors since `fd` was opened (Linux 5.8): open it *before* writing.
///
/// # Errors
/// The kernel's refusal.
pub fn sync_file_system(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd();
    rustix::fs::syncfs(fd).call("syncfs", || describe_fd(fd))
}

/// True when `fd` lies on a network (or FUSE) file system, where `syncfs` promises nothing.
///
/// # Errors
/// The kernel's refusal.
pub fn is_network_file_system(fd: impl AsFd) -> Result<bool> {
    const MAGICS: [u64; 10] = [
        0x6969,      // NFS
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB2
        0x00c3_6400, // Ceph
        0x6573_5546, // FUSE: GlusterFS and kin
        0x0102_1997, // 9p
        0x5346_414f, // AFS
        0x0bd0_0bd0, // Lustre
        0x4750_4653, // GPFS
        0x0116_1970, // GFS2
    ];
    let fd = fd.as_fd();
    let stat = rustix::fs::fstatfs(fd).call("fstatfs", || describe_fd(fd))?;
    // The magics have 32 bits; the field is signed.
    let magic = u64::from_ne_bytes(stat.f_type.to_ne_bytes()) & 0xffff_ffff;
    Ok(MAGICS.contains(&magic))
}

/// Unlinks the file `name` of `dir`.
///
/// # Errors
/// The kernel's refusal.
pub fn unlink(dir: impl AsFd, name: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).call("unlinkat", || one_name(dir, name))
}

fn one_name(dir: BorrowedFd<'_>, name: &[u8]) -> String {
    format!("{}, {}", describe_fd(dir), describe_name(name))
}

fn two_names(
    call: &'static str,
    from_dir: BorrowedFd<'_>,
    from: &[u8],
    to_dir: BorrowedFd<'_>,
    to: &[u8],
    errno: Errno,
) -> SysError {
    let args = format!("{}, {}", one_name(from_dir, from), one_name(to_dir, to));
    SysError::new(call, args, errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    type Rename = fn(BorrowedFd<'_>, &[u8], BorrowedFd<'_>, &[u8]) -> Result<Published>;

    #[test]
    fn renaming_never_replaces_by_either_road() {
        let roads: [Rename; 2] = [
            |a, b, c, d| rename_noreplace(a, b, c, d),
            rename_noreplace_without_flag,
        ];
        for road in roads {
            let dir = tempfile::tempdir().unwrap();
            let fd = fs::File::open(dir.path()).unwrap();
            for (name, text) in [("one", "1"), ("two", "2")] {
                fs::write(dir.path().join(name), text).unwrap();
            }
            assert_eq!(
                road(fd.as_fd(), b"one", fd.as_fd(), b"new").unwrap(),
                Published::New
            );
            assert_eq!(
                road(fd.as_fd(), b"two", fd.as_fd(), b"new").unwrap(),
                Published::Existed
            );
            assert_eq!(fs::read(dir.path().join("new")).unwrap(), b"1");
            assert!(!dir.path().join("one").exists());
            assert!(dir.path().join("two").exists());

            fs::create_dir_all(dir.path().join("d1/x")).unwrap();
            fs::create_dir_all(dir.path().join("d2/y")).unwrap();
            assert_eq!(
                road(fd.as_fd(), b"d1", fd.as_fd(), b"d").unwrap(),
                Published::New
            );
            assert_eq!(
                road(fd.as_fd(), b"d2", fd.as_fd(), b"d").unwrap(),
                Published::Existed
            );
            assert!(dir.path().join("d/x").exists());
        }
    }

    #[test]
    fn atomic_write_replaces_and_leaves_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        atomic_write(&fd, b"f", b".f.tmp", mode, b"old").unwrap();
        atomic_write(&fd, b"f", b".f.tmp", mode, b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::create_dir(dir.path().join("d")).unwrap();
        atomic_write(&fd, b"d", b".d.tmp", mode, b"x").unwrap_err();
        assert!(!dir.path().join(".d.tmp").exists());
    }

    #[test]
    fn replace_symlink_moves_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        for target in ["a", "../b"] {
            replace_symlink(&fd, b"tag", b".tag.tmp", target.as_bytes()).unwrap();
            assert_eq!(
                fs::read_link(dir.path().join("tag")).unwrap().to_str(),
                Some(target)
            );
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn local_file_systems_are_not_network_ones() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_network_file_system(fs::File::open(dir.path()).unwrap()).unwrap());
    }
}
