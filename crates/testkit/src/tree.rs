// SPDX-License-Identifier: Apache-2.0
//! What a directory tree holds, and how two trees differ.
//!
//! Every property that a container can see is compared: type, permission bits, owner, modification time to the
//! nanosecond, xattrs, device numbers, link targets, contents, and which names share one inode. Link *counts* are not
//! (a hard-link store has more names than the tree); the groups of names inside the tree are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// A tree as a map from path (relative, the root being the empty path) to what stands there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot(pub BTreeMap<PathBuf, Entry>);

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What kind of node it is, with what only that kind has.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Extended attributes as far as the caller may see them.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first name (in path order) of the inode, if another name in the tree shares it.
    pub hard_link_of: Option<PathBuf>,
}

/// What kind of node an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file: size and SHA-256 in hex.
    File {
        /// Size.
        size_bytes: u64,
        /// Digest of the contents.
        sha256: String,
    },
    /// A symbolic link and its target.
    Symlink(PathBuf),
    /// A character device.
    CharDevice(u64),
    /// A block device.
    BlockDevice(u64),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What to leave out of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    /// Modification times of directories (a tool that writes into a directory after setting its time changes it).
    pub directory_mtimes: bool,
    /// The fraction of a second of every time.
    pub nanoseconds: bool,
    /// Names of xattrs, e.g. the security label that the host's policy adds.
    pub xattrs: Vec<OsString>,
    /// The root directory's own entry.
    pub root: bool,
    /// Names that share an inode in our tree and not in theirs: a store of hard links may give equal files one.
    pub our_hard_links: bool,
}

/// Reads the whole tree below `root`, without following symlinks or crossing into what is mounted there.
pub fn snapshot(root: &Path) -> Result<Snapshot> {
    let mut entries = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = root.join(&relative);
        let metadata =
            fs::symlink_metadata(&path).with_context(|| format!("stat {}", path.display()))?;
        if metadata.is_dir() {
            for child in fs::read_dir(&path).with_context(|| format!("list {}", path.display()))? {
                pending.push(relative.join(child?.file_name()));
            }
        } else if metadata.nlink() > 1 {
            inodes
                .entry((metadata.dev(), metadata.ino()))
                .or_default()
                .push(relative.clone());
        }
        let entry =
            read_entry(&path, &metadata).with_context(|| format!("read {}", path.display()))?;
        entries.insert(relative, entry);
    }
    for mut names in inodes.into_values().filter(|names| names.len() > 1) {
        names.sort();
        for name in &names {
            if let Some(entry) = entries.get_mut(name) {
                entry.hard_link_of = Some(names[0].clone());
            }
        }
    }
    Ok(Snapshot(entries))
}

fn read_entry(path: &Path, metadata: &Metadata) -> Result<Entry> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink(fs::read_link(path)?)
    } else if file_type.is_char_device() {
        Kind::CharDevice(metadata.rdev())
    } else if file_type.is_block_device() {
        Kind::BlockDevice(metadata.rdev())
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        let mut hasher = Sha256::new();
        let size_bytes = io::copy(&mut fs::File::open(path)?, &mut HashWriter(&mut hasher))?;
        Kind::File {
            size_bytes,
            sha256: hex(&hasher.finalize()),
        }
    };
    Ok(Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        xattrs: xattrs(path)?,
        hard_link_of: None,
    })
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
        value.truncate(length);
        found.insert(OsString::from_vec(name.to_vec()), value);
    }
    Ok(found)
}

/// One difference between two trees, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "/{}: {}",
            self.path.as_os_str().as_bytes().escape_ascii(),
            self.what
        )
    }
}

/// Lists how `ours` differs from `theirs`, in path order.
pub fn compare(ours: &Snapshot, theirs: &Snapshot, ignore: &Ignore) -> Vec<Difference> {
    let mut differences = Vec::new();
    let paths: std::collections::BTreeSet<_> = ours.0.keys().chain(theirs.0.keys()).collect();
    for path in paths {
        let what = match (ours.0.get(path), theirs.0.get(path)) {
            _ if ignore.root && path.as_os_str().is_empty() => continue,
            (Some(our), Some(their)) => differing_fields(our, their, ignore),
            (Some(our), None) => vec![format!("only ours: {:?}", our.kind)],
            (None, Some(their)) => vec![format!("only theirs: {:?}", their.kind)],
            (None, None) => continue,
        };
        differences.extend(what.into_iter().map(|what| Difference {
            path: path.clone(),
            what,
        }));
    }
    differences
}

fn differing_fields(ours: &Entry, theirs: &Entry, ignore: &Ignore) -> Vec<String> {
    fn check<T: PartialEq + fmt::Debug>(found: &mut Vec<String>, field: &str, our: &T, their: &T) {
        if our != their {
            found.push(format!("{field}: ours {our:?}, theirs {their:?}"));
        }
    }
    let mut found = Vec::new();
    let mtime = |entry: &Entry| {
        let nanoseconds = if ignore.nanoseconds { 0 } else { entry.mtime.1 };
        let skipped = ignore.directory_mtimes && entry.kind == Kind::Directory;
        (!skipped).then_some((entry.mtime.0, nanoseconds))
    };
    let xattrs = |entry: &Entry| {
        let mut xattrs = entry.xattrs.clone();
        xattrs.retain(|name, _| !ignore.xattrs.contains(name));
        xattrs
    };
    check(&mut found, "kind", &ours.kind, &theirs.kind);
    check(
        &mut found,
        "mode",
        &format!("{:04o}", ours.mode),
        &format!("{:04o}", theirs.mode),
    );
    check(
        &mut found,
        "owner",
        &(ours.uid, ours.gid),
        &(theirs.uid, theirs.gid),
    );
    check(&mut found, "mtime", &mtime(ours), &mtime(theirs));
    check(&mut found, "xattrs", &xattrs(ours), &xattrs(theirs));
    if !(ignore.our_hard_links && theirs.hard_link_of.is_none()) {
        check(
            &mut found,
            "hard link of",
            &ours.hard_link_of,
            &theirs.hard_link_of,
        );
    }
    found
}

/// Fails the test with the first differences if the two trees are not equal.
///
/// # Panics
/// If they differ, or cannot be read.
pub fn assert_same(ours: &Path, theirs: &Path, ignore: &Ignore) {
    let read = |path: &Path| snapshot(path).unwrap_or_else(|error| panic!("{error:#}"));
    let what = format!("{} and {}", ours.display(), theirs.display());
    assert_same_snapshots(&what, &read(ours), &read(theirs), ignore);
}

/// Fails the test with the first differences if the two snapshots are not equal; `what` names them.
///
/// # Panics
/// If they differ.
pub fn assert_same_snapshots(what: &str, ours: &Snapshot, theirs: &Snapshot, ignore: &Ignore) {
    let differences = compare(ours, theirs, ignore);
    let shown: Vec<_> = differences
        .iter()
        .take(40)
        .map(ToString::to_string)
        .collect();
    assert!(
        differences.is_empty(),
        "{what} differ in {} places:\n{}",
        differences.len(),
        shown.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;

    fn tree_with(build: impl Fn(&Path)) -> Snapshot {
        let scratch = scratch();
        build(scratch.path());
        let mut snapshot = snapshot(scratch.path()).unwrap();
        snapshot.0.remove(Path::new(""));
        for entry in snapshot.0.values_mut() {
            entry.mtime = (0, 0);
        }
        snapshot
    }

    #[test]
    fn hard_link_groups_are_told_from_copies() {
        let linked = tree_with(|root| {
            fs::write(root.join("a"), b"x").unwrap();
            fs::hard_link(root.join("a"), root.join("b")).unwrap();
        });
        let copied = tree_with(|root| {
            fs::write(root.join("a"), b"x").unwrap();
            fs::write(root.join("b"), b"x").unwrap();
        });
        let differences = compare(&linked, &copied, &Ignore::default());
        assert_eq!(differences.len(), 2);
        assert!(
            differences
                .iter()
                .all(|difference| difference.what.starts_with("hard link of"))
        );
        let lenient = Ignore {
            our_hard_links: true,
            ..Ignore::default()
        };
        assert_eq!(compare(&linked, &copied, &lenient), []);
        assert_eq!(compare(&copied, &linked, &lenient).len(), 2);
    }

    #[test]
    fn a_name_outside_the_tree_is_no_link_group() {
        let outside = scratch();
        let linked = tree_with(|root| {
            fs::write(root.join("a"), b"x").unwrap();
            fs::hard_link(root.join("a"), outside.join(root.file_name().unwrap())).unwrap();
        });
        assert_eq!(linked.0[Path::new("a")].hard_link_of, None);
    }

    #[test]
    fn missing_names_contents_and_modes_are_reported() {
        use std::os::unix::fs::PermissionsExt as _;
        let ours = tree_with(|root| {
            fs::write(root.join("a"), b"x").unwrap();
            fs::write(root.join("c"), b"x").unwrap();
        });
        let theirs = tree_with(|root| {
            fs::write(root.join("a"), b"y").unwrap();
            fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o4711)).unwrap();
        });
        let found: Vec<_> = compare(&ours, &theirs, &Ignore::default())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("/a: kind"));
        assert!(found[1].starts_with("/a: mode: ours \"0644\", theirs \"4711\""));
        assert!(found[2].starts_with("/c: only ours"));
    }
}
