// SPDX-License-Identifier: Apache-2.0
//! Operations that cannot leave a directory.
//!
//! The attack: a path is resolved by a privileged process while one of its components is, or
//! becomes, a symlink that leads elsewhere. The defence: every path is resolved below an open
//! directory by `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, or, where that call is missing,
//! by a walker that opens one component at a time and resolves symlinks itself; what changes a
//! directory then takes the parent's descriptor and a single name.
//!
//! Not promised: that the name still leads to the same entry a moment later. Hold the descriptor.

use crate::error::{Context, Result, SysError, describe_fd, describe_name};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Symlinks followed in one resolution, as in the kernel.
const SYMLINKS_MAX: usize = 40;

/// Set once `openat2` was found missing (or denied by a filter that knows no better).
static WITHOUT_OPENAT2: AtomicBool = AtomicBool::new(false);

/// What is made where a mount has no place yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// A directory below which every path given to it stays.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

impl RootDir {
    /// Opens `path`, which is trusted and resolved by the ordinary rules.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open_trusted(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .call("open", || format!("{path:?}, O_DIRECTORY"))
            .map(|fd| Self { fd })
    }

    /// Confines to a directory that is open for reading.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens an entry, following symlinks as if this directory were `/`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if !WITHOUT_OPENAT2.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.fd, path, flags, mode, resolve) {
                Err(Errno::NOSYS) => WITHOUT_OPENAT2.store(true, Ordering::Relaxed),
                // The kernel saw a rename race it could not judge; it asks to try again.
                Err(Errno::AGAIN) => return self.walk(path, flags, mode),
                other => {
                    return other.call("openat2", || {
                        format!(
                            "{}, {}, {flags:?}",
                            describe_fd(&self.fd),
                            describe_name(path)
                        )
                    });
                }
            }
        }
        self.walk(path, flags, mode)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open_file(&self, path: &[u8]) -> Result<std::fs::File> {
        // O_NONBLOCK: a fifo in the place of a file must not hang us.
        self.open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
            .map(Into::into)
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open_dir(&self, path: &[u8]) -> Result<Self> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map(Self::from_fd)
    }

    /// Creates the directories of `path` that are missing and opens the last.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn ensure_dir(&self, path: &[u8], mode: Mode) -> Result<Self> {
        let mut dir = self.open_dir(b".")?;
        for name in components(path) {
            match rustix::fs::mkdirat(&dir.fd, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(dir.failed("mkdirat", name, errno)),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = rustix::fs::openat(&dir.fd, name, flags, Mode::empty())
                .map_err(|errno| dir.failed("openat", name, errno))?;
            dir = Self { fd: next };
        }
        Ok(dir)
    }

    /// Opens the place of a mount (as `O_PATH`), making it and the directories above it if missing.
    ///
    /// Symlinks are followed as if this directory were `/`, a dangling one too, whose target is then
    /// made; unless `no_symlinks`, when any symlink is `ELOOP`. Whoever renames meanwhile cannot lead
    /// out: each step is one name in a directory that is open.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn ensure_target(
        &self,
        path: &[u8],
        kind: TargetKind,
        no_symlinks: bool,
    ) -> Result<OwnedFd> {
        if !WITHOUT_OPENAT2.load(Ordering::Relaxed) {
            let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            if no_symlinks {
                resolve |= ResolveFlags::NO_SYMLINKS;
            }
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::NOSYS) => WITHOUT_OPENAT2.store(true, Ordering::Relaxed),
                Err(Errno::NOENT) => {
                    if let Some(made) = self.make_last(path, kind, resolve) {
                        return Ok(made);
                    }
                }
                Err(Errno::AGAIN) => {}
                other => return other.map_err(|errno| self.failed("openat2", path, errno)),
            }
        }
        self.make_target(path, kind, no_symlinks)
    }

    /// Makes the last name of a path whose directory is there: what is missing more often than not. `None` where more
    /// is needed, or something stands in the way.
    fn make_last(&self, path: &[u8], kind: TargetKind, resolve: ResolveFlags) -> Option<OwnedFd> {
        let at = path.iter().rposition(|byte| *byte == b'/')?;
        let name = checked_name(&path[at + 1..]).ok()?;
        let parent = if at == 0 { b"/" } else { &path[..at] };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat2(&self.fd, parent, flags, Mode::empty(), resolve).ok()?;
        make_one(parent.as_fd(), name, kind).ok()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, name, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&made).ok()?;
        // Somebody may have put something else there in between.
        (FileType::from_raw_mode(stat.st_mode) != FileType::Symlink).then_some(made)
    }

    fn make_target(&self, path: &[u8], kind: TargetKind, no_symlinks: bool) -> Result<OwnedFd> {
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut chain = vec![self.reopen()?];
        let mut rest: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut symlinks = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                if chain.len() > 1 {
                    chain.pop();
                }
                continue;
            }
            let dir = chain.last().unwrap_or(&self.fd).as_fd();
            let failed = |call, errno| SysError::new(call, one(dir, &name), errno);
            let mut opened = rustix::fs::openat(dir, name.as_slice(), step, Mode::empty());
            if matches!(opened, Err(Errno::NOENT)) {
                let kind = if rest.is_empty() {
                    kind
                } else {
                    TargetKind::Directory
                };
                match make_one(dir, &name, kind) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed("mkdirat", errno)),
                }
                opened = rustix::fs::openat(dir, name.as_slice(), step, Mode::empty());
            }
            let opened = opened.map_err(|errno| failed("openat", errno))?;
            let stat = rustix::fs::fstat(&opened).map_err(|errno| failed("fstat", errno))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                chain.push(opened);
                continue;
            }
            symlinks += 1;
            if no_symlinks || symlinks > SYMLINKS_MAX {
                return Err(failed("openat", Errno::LOOP));
            }
            let target = rustix::fs::readlinkat(&opened, "", Vec::new())
                .map_err(|errno| failed("readlinkat", errno))?
                .into_bytes();
            if target.starts_with(b"/") {
                chain.truncate(1);
            }
            for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(part.to_vec());
            }
        }
        chain.pop().map_or_else(|| self.reopen(), Ok)
    }

    /// Describes the entry itself, not what a symlink leads to; `None` if there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        let outcome = self.with_parent(path, |parent, name| {
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .call("fstatat", || one(parent, name))
        });
        absent_is_none(outcome)
    }

    /// Reads a symlink's target; `None` if there is no such entry.
    ///
    /// # Errors
    /// The kernel's refusal; `EINVAL` if it is no symlink.
    pub fn read_link(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let outcome = self.with_parent(path, |parent, name| {
            rustix::fs::readlinkat(parent, name, Vec::new())
                .map(std::ffi::CString::into_bytes)
                .call("readlinkat", || one(parent, name))
        });
        absent_is_none(outcome)
    }

    /// Removes a file or a symlink; false if there was none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_file(&self, path: &[u8]) -> Result<bool> {
        let outcome = self.with_parent(path, |parent, name| {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())
                .call("unlinkat", || one(parent, name))
        });
        absent_is_none(outcome).map(|done| done.is_some())
    }

    /// Removes an entry with everything below it; false if there was none.
    ///
    /// # Errors
    /// The kernel's first refusal.
    pub fn remove_all(&self, path: &[u8]) -> Result<bool> {
        let outcome = self.with_parent(path, remove_tree);
        absent_is_none(outcome).map(|done| done.is_some())
    }

    /// Lists the names of the directory `path`, without `.` and `..`, in byte order.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        list_dir(&self.open_dir(path)?.fd)
    }

    /// Another descriptor of the same directory.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn try_clone(&self) -> Result<Self> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .call("fcntl", || {
                format!("{}, F_DUPFD_CLOEXEC", describe_fd(&self.fd))
            })
            .map(Self::from_fd)
    }

    fn with_parent<T>(
        &self,
        path: &[u8],
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        match trimmed.iter().rposition(|byte| *byte == b'/') {
            None => act(self.fd.as_fd(), checked_name(trimmed)?),
            Some(at) => {
                let parent = self.open_dir(if at == 0 { b"/" } else { &trimmed[..at] })?;
                act(parent.fd.as_fd(), checked_name(&trimmed[at + 1..])?)
            }
        }
    }

    /// Resolves without `openat2`: opens one component at a time, keeps the chain of directories
    /// for `..`, and reads symlinks itself.
    fn walk(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let mut chain = vec![self.reopen()?];
        let mut rest: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut symlinks = 0;
        while let Some(name) = rest.pop_front() {
            let dir = chain.last().unwrap_or(&self.fd).as_fd();
            if name == b".." {
                if chain.len() > 1 {
                    chain.pop();
                }
                continue;
            }
            if let Some(target) = self.link_to_follow(dir, &name, rest.is_empty(), flags)? {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(self.failed("openat", path, Errno::LOOP));
                }
                if target.starts_with(b"/") {
                    chain.truncate(1);
                }
                for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(part.to_vec());
                }
                continue;
            }
            if rest.is_empty() {
                return rustix::fs::openat(dir, name.as_slice(), flags | OFlags::NOFOLLOW, mode)
                    .map_err(|errno| self.failed("openat", path, errno));
            }
            let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = rustix::fs::openat(dir, name.as_slice(), step, Mode::empty())
                .map_err(|errno| self.failed("openat", path, errno))?;
            chain.push(next);
        }
        let last = chain.last().unwrap_or(&self.fd);
        rustix::fs::openat(last, ".", flags - OFlags::CREATE, mode)
            .map_err(|errno| self.failed("openat", path, errno))
    }

    fn link_to_follow(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        is_last: bool,
        flags: OFlags,
    ) -> Result<Option<Vec<u8>>> {
        if is_last && flags.contains(OFlags::NOFOLLOW) {
            return Ok(None);
        }
        match rustix::fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("readlinkat", name, errno)),
        }
    }

    fn reopen(&self) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
            .map_err(|errno| self.failed("openat", b".", errno))
    }

    fn failed(&self, call: &'static str, name: &[u8], errno: Errno) -> SysError {
        SysError::new(call, one(self.fd.as_fd(), name), errno)
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes what a mount needs to lie on, where nothing is.
fn make_one(dir: BorrowedFd<'_>, name: &[u8], kind: TargetKind) -> rustix::io::Result<()> {
    match kind {
        TargetKind::Directory => rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        TargetKind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

/// Removes the entry `name` of `parent` with everything below it, never following a symlink.
///
/// # Errors
/// The kernel's first refusal.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other.call("unlinkat", || one(parent, name)),
    }
    // An explicit stack: hostile trees may be deeper than ours should be.
    let mut stack = vec![(open_plain_dir(parent, name)?, name.to_vec())];
    while let Some((dir, _)) = stack.last() {
        let mut child = None;
        for entry in list_dir(dir)? {
            match rustix::fs::unlinkat(dir, entry.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    match rustix::fs::unlinkat(dir, entry.as_slice(), AtFlags::REMOVEDIR) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(Errno::NOTEMPTY | Errno::EXIST) => {
                            child = Some(entry);
                            break;
                        }
                        Err(errno) => {
                            return Err(SysError::new("unlinkat", one(dir.as_fd(), &entry), errno));
                        }
                    }
                }
                Err(errno) => {
                    return Err(SysError::new("unlinkat", one(dir.as_fd(), &entry), errno));
                }
            }
        }
        if let Some(entry) = child {
            let opened = open_plain_dir(dir.as_fd(), &entry)?;
            stack.push((opened, entry));
            continue;
        }
        let Some((_, done)) = stack.pop() else { break };
        let holder = stack.last().map_or(parent, |(dir, _)| dir.as_fd());
        match rustix::fs::unlinkat(holder, done.as_slice(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(SysError::new("unlinkat", one(holder, &done), errno)),
        }
    }
    Ok(())
}

/// Lists the names of an open directory, without `.` and `..`, in byte order.
///
/// # Errors
/// The kernel's refusal.
pub fn list_dir(dir: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let dir = dir.as_fd();
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).call("getdents64", || describe_fd(dir))? {
        let entry = entry.call("getdents64", || describe_fd(dir))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The type of the entry itself, not of what a symlink leads to; `None` if there is none.
///
/// # Errors
/// The kernel's refusal.
pub fn type_at(dir: impl AsFd, name: &[u8]) -> Result<Option<FileType>> {
    let dir = dir.as_fd();
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(SysError::new("fstatat", one(dir, name), errno)),
    }
}

fn open_plain_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).call("openat", || one(parent, name))
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

fn checked_name(name: &[u8]) -> Result<&[u8]> {
    if name.is_empty() || name == b"." || name == b".." {
        return Err(SysError::new("resolve", describe_name(name), Errno::INVAL));
    }
    Ok(name)
}

fn absent_is_none<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn one(dir: BorrowedFd<'_>, name: &[u8]) -> String {
    format!("{}, {}", describe_fd(dir), describe_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    type Open = fn(&RootDir, &[u8]) -> Result<OwnedFd>;
    const RESOLVERS: [Open; 2] = [
        |root, path| root.open(path, OFlags::RDONLY, Mode::empty()),
        |root, path| root.walk(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
    ];

    fn read(fd: OwnedFd) -> String {
        let mut text = String::new();
        fs::File::from(fd).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn no_path_leaves_the_root_by_either_resolver() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("secret"), "outside").unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        fs::write(root.join("a/b/f"), "f").unwrap();
        symlink("/secret", root.join("absolute")).unwrap();
        symlink("../../../../secret", root.join("a/b/dots")).unwrap();
        symlink("/", root.join("a/slash")).unwrap();
        symlink(outer.path().join("secret"), root.join("real")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let root = RootDir::open_trusted(&root).unwrap();
        for open in RESOLVERS {
            for path in [
                "absolute",
                "a/b/dots",
                "../../secret",
                "a/slash/secret",
                "/secret",
            ] {
                assert_eq!(
                    read(open(&root, path.as_bytes()).unwrap()),
                    "inside",
                    "{path}"
                );
            }
            assert_eq!(read(open(&root, b"a/../a/./b/f").unwrap()), "f");
            assert!(open(&root, b"real").unwrap_err().is(Errno::NOENT));
            assert!(open(&root, b"loop").unwrap_err().is(Errno::LOOP));
            assert!(open(&root, b"secret/x").unwrap_err().is(Errno::NOTDIR));
        }
    }

    #[test]
    fn removal_does_not_follow_symlinks_and_reaches_deep() {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir_all(outer.path().join("keep/x")).unwrap();
        let deep = vec!["d"; 200].join("/");
        fs::create_dir_all(outer.path().join("gone").join(&deep)).unwrap();
        symlink("../keep", outer.path().join("gone/link")).unwrap();
        let root = RootDir::open_trusted(outer.path()).unwrap();
        assert!(root.remove_all(b"gone").unwrap());
        assert!(!root.remove_all(b"gone").unwrap());
        assert!(outer.path().join("keep/x").exists());
        assert_eq!(root.list(b".").unwrap(), [b"keep".to_vec()]);
    }

    #[test]
    fn place_of_a_mount_is_made_inside_by_either_resolver() {
        use std::os::unix::fs::MetadataExt as _;
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../run/x/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("/../../../../outside", root.join("escape")).unwrap();
        symlink("/run", root.join("dev")).unwrap();
        let inside = RootDir::open_trusted(&root).unwrap();
        for make in [RootDir::ensure_target, RootDir::make_target] {
            let made = |path: &str, kind, target: &str| {
                let fd = make(&inside, path.as_bytes(), kind, false).unwrap();
                let found = rustix::fs::fstat(&fd).unwrap();
                let expected = fs::symlink_metadata(root.join(target)).unwrap();
                assert_eq!(found.st_ino, expected.ino(), "{path}");
            };
            // A dangling symlink's target is made where the link leads inside the root.
            made("/etc/resolv.conf", TargetKind::File, "run/x/resolv.conf");
            made("/escape/a", TargetKind::Directory, "outside/a");
            made("/../../new/../other/b", TargetKind::Directory, "other/b");
            made("/", TargetKind::Directory, "");
            for refused in ["/dev", "/dev/shm", "/etc/resolv.conf"] {
                let error = make(&inside, refused.as_bytes(), TargetKind::Directory, true);
                assert!(error.unwrap_err().is(Errno::LOOP), "{refused}");
            }
        }
        assert!(!outer.path().join("outside").exists());
    }

    #[test]
    fn ensure_dir_refuses_a_symlink_on_the_way() {
        let outer = tempfile::tempdir().unwrap();
        symlink("/tmp", outer.path().join("a")).unwrap();
        let root = RootDir::open_trusted(outer.path()).unwrap();
        root.ensure_dir(b"a/b", Mode::RWXU).unwrap_err();
        root.ensure_dir(b"x/y/z", Mode::RWXU).unwrap();
        assert!(outer.path().join("x/y/z").is_dir());
    }
}
