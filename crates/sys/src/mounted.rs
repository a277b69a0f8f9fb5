// SPDX-License-Identifier: Apache-2.0
//! Mounts that are attached somewhere: which one it is, whether it is still the same, and how to
//! reach into another mount namespace for one.
#![expect(unsafe_code, reason = "unshare of one thread's file system state")]

use crate::error::{Context, Result, SysError, describe_fd};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Asks for a number that no other mount gets until the next boot; Linux 6.8 and later answer.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Which mount a file stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountId {
    /// The kernel's number.
    pub id: u64,
    /// Whether the number is never given again before the next boot.
    pub unique: bool,
}

impl MountId {
    fn of(stat: &Statx) -> Result<Self> {
        let mask = StatxFlags::from_bits_retain(stat.stx_mask);
        let unique = mask.contains(MNT_ID_UNIQUE);
        if !unique && !mask.contains(StatxFlags::MNT_ID) {
            let args = "STATX_MNT_ID".to_owned();
            return Err(SysError::new("statx", args, Errno::NOTSUP));
        }
        Ok(Self {
            id: stat.stx_mnt_id,
            unique,
        })
    }

    /// The mount that is open as `mount`, detached or not. Attaching it does not change the number.
    ///
    /// # Errors
    /// The kernel's refusal; `ENOTSUP` before Linux 5.8.
    pub fn of_fd(mount: impl AsFd) -> Result<Self> {
        let mount = mount.as_fd();
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(mount, "", flags, StatxFlags::MNT_ID | MNT_ID_UNIQUE)
            .call("statx", || describe_fd(mount))?;
        Self::of(&stat)
    }

    /// The uppermost mount at `path`, whose last component is not followed; `None` if nothing is there.
    ///
    /// # Errors
    /// The kernel's refusal; `ENOTSUP` before Linux 5.8.
    pub fn of_path(path: &Path) -> Result<Option<Self>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID | MNT_ID_UNIQUE) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            other => Self::of(&other.call("statx", || format!("{path:?}"))?).map(Some),
        }
    }
}

/// The calling thread's mount namespace, as the kernel numbers it.
///
/// # Errors
/// The kernel's refusal.
pub fn namespace_id() -> Result<u64> {
    let path = "/proc/thread-self/ns/mnt";
    let stat = rustix::fs::stat(path).call("stat", || format!("{path:?}"))?;
    Ok(stat.st_ino)
}

/// Unmounts what is at `path`, unless somebody uses it.
///
/// # Errors
/// `EBUSY` if it is used; the kernel's refusal.
pub fn unmount_unused(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)
        .call("umount2", || format!("{path:?}, UMOUNT_NOFOLLOW"))
}

/// Clones, detached, the mount that is the root of another mount namespace, without what is
/// mounted below it. What is written to the clone is written to the original.
///
/// # Privileges
/// `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT`, here and there.
///
/// # Concurrency
/// A thread of its own visits the namespace; the caller's stays as it is.
///
/// # Errors
/// The kernel's refusal.
pub fn clone_root_of(namespace: impl AsFd) -> Result<OwnedFd> {
    let namespace = namespace.as_fd();
    std::thread::scope(|scope| {
        let visitor = scope.spawn(|| {
            // JUSTIFICATION: only a thread that shares its root and working directory with no other
            // may change its mount namespace; rustix marks the call unsafe for its FILES flag.
            // SAFETY: FILES is not among the flags.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
                .call("unshare", || "CLONE_FS".to_owned())?;
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
                .call("setns", || {
                    format!("{}, CLONE_NEWNS", describe_fd(namespace))
                })?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            rustix::mount::open_tree(CWD, "/", flags)
                .call("open_tree", || "\"/\", OPEN_TREE_CLONE".to_owned())
        });
        let stopped = || SysError::new("clone", "a thread".to_owned(), Errno::AGAIN);
        visitor.join().map_err(|_| stopped())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount;

    /// Runs `test` on a thread with a mount namespace of its own, if it may have one.
    fn privileged(test: fn()) {
        std::thread::spawn(move || match mount::enter_private_namespace() {
            Ok(()) => test(),
            Err(error) => assert!(error.is(Errno::PERM), "{error}"),
        })
        .join()
        .unwrap();
    }

    #[test]
    fn nothing_at_a_path_is_no_mount() {
        assert_eq!(MountId::of_path(Path::new("/no/such/file")).unwrap(), None);
        let root = MountId::of_path(Path::new("/")).unwrap().unwrap();
        assert_eq!(
            root.id,
            MountId::of_path(Path::new("/")).unwrap().unwrap().id
        );
    }

    #[test]
    fn privileged_a_mount_keeps_its_number_when_attached() {
        privileged(|| {
            let dir = tempfile::tempdir().unwrap();
            let below = MountId::of_path(dir.path()).unwrap().unwrap();
            let detached = mount::tmpfs(1 << 16, 0o755).unwrap();
            let id = MountId::of_fd(&detached).unwrap();
            mount::attach(&detached, dir.path()).unwrap();
            assert_eq!(MountId::of_path(dir.path()).unwrap(), Some(id));
            let used = std::fs::File::open(dir.path()).unwrap();
            assert!(unmount_unused(dir.path()).unwrap_err().is(Errno::BUSY));
            drop((used, detached));
            unmount_unused(dir.path()).unwrap();
            assert_eq!(MountId::of_path(dir.path()).unwrap(), Some(below));
        });
    }

    #[test]
    fn privileged_the_root_of_another_namespace_can_be_cloned() {
        privileged(|| {
            let here = namespace_id().unwrap();
            let there = std::fs::File::open("/proc/self/ns/mnt").unwrap();
            let root = clone_root_of(&there).unwrap();
            assert_eq!(namespace_id().unwrap(), here, "the caller did not move");
            let names = crate::root::RootDir::from_fd(
                rustix::fs::openat(
                    &root,
                    ".",
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
                    rustix::fs::Mode::empty(),
                )
                .unwrap(),
            )
            .list(b".")
            .unwrap();
            assert!(names.contains(&b"etc".to_vec()));
        });
    }
}
