// SPDX-License-Identifier: Apache-2.0
//! Extended attributes by directory descriptor and single name, never following a symlink.
//!
//! Linux has `setxattrat` only since 6.13; before, the way that follows nothing is the `l` family
//! on `/proc/self/fd/DIR/NAME`: the magic link leads to the directory that is held open, and the
//! last component is not followed.

use crate::error::{Context, Result, describe_fd, describe_name};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Attribute names with their values.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The longest value and the longest list that Linux gives (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const SIZE_MAX: usize = 65_536;

/// Sets one attribute of the entry `name` in `dir`.
///
/// # Errors
/// The kernel's refusal.
pub fn set_at(dir: impl AsFd, name: &[u8], key: &[u8], value: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    rustix::fs::lsetxattr(proc_path(dir, name), key, value, XattrFlags::empty())
        .call("lsetxattr", || args(dir, name, key))
}

/// Sets one attribute of an open file.
///
/// # Errors
/// The kernel's refusal.
pub fn set(fd: impl AsFd, key: &[u8], value: &[u8]) -> Result<()> {
    let fd = fd.as_fd();
    rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty())
        .call("fsetxattr", || args(fd, b"", key))
}

/// Reads every attribute of the entry `name` in `dir`; none where the file system has none.
///
/// # Errors
/// The kernel's refusal.
pub fn list_at(dir: impl AsFd, name: &[u8]) -> Result<Xattrs> {
    let dir = dir.as_fd();
    let path = proc_path(dir, name);
    let length = match rustix::fs::llistxattr_query(path.as_slice()) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno).call("llistxattr", || args(dir, name, b"")),
    };
    let mut xattrs = Xattrs::new();
    if length == 0 {
        return Ok(xattrs);
    }
    let mut names = vec![0_u8; SIZE_MAX];
    let length = rustix::fs::llistxattr(path.as_slice(), names.as_mut_slice())
        .call("llistxattr", || args(dir, name, b""))?;
    for key in names[..length]
        .split(|byte| *byte == 0)
        .filter(|key| !key.is_empty())
    {
        let mut value = vec![0_u8; SIZE_MAX];
        match rustix::fs::lgetxattr(path.as_slice(), key, value.as_mut_slice()) {
            Ok(length) => {
                xattrs.insert(key.into(), value[..length].into());
            }
            // Removed meanwhile, or a name that listing shows and reading denies.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno).call("lgetxattr", || args(dir, name, key)),
        }
    }
    Ok(xattrs)
}

fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn args(dir: BorrowedFd<'_>, name: &[u8], key: &[u8]) -> String {
    format!(
        "{}, {}, {}",
        describe_fd(dir),
        describe_name(name),
        describe_name(key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn attributes_are_set_on_the_entry_and_never_through_a_symlink() {
        let base = if std::path::Path::new("/var/tmp").exists() {
            "/var/tmp"
        } else {
            "/tmp"
        };
        let dir = tempfile::tempdir_in(base).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        if let Err(error) = set_at(&fd, b"file", b"user.a", b"1") {
            eprintln!("skipped: no user xattrs here: {error}");
            return;
        }
        assert_eq!(
            list_at(&fd, b"file")
                .unwrap()
                .get(b"user.a".as_slice())
                .unwrap()
                .as_ref(),
            b"1"
        );
        // user.* is not allowed on symlinks: the call must fail instead of reaching the file.
        set_at(&fd, b"link", b"user.b", b"2").unwrap_err();
        assert!(
            !list_at(&fd, b"file")
                .unwrap()
                .contains_key(b"user.b".as_slice())
        );
        assert!(list_at(&fd, b"link").unwrap().is_empty());
    }
}
