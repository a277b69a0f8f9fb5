// SPDX-License-Identifier: Apache-2.0
//! New processes in new namespaces.
//!
//! A process that has one thread may clone itself and go on in ordinary Rust on both sides: the
//! child has its own copy of everything. A process with several threads may not, and is refused.
//!
//! # Source
//! `clone(2)`, `setns(2)`, `unshare(2)`, `namespaces(7)`.
#![expect(unsafe_code, reason = "clone3, clone, unshare")]

use crate::error::{Context, Result, SysError, describe_fd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// A kind of namespace, in the order in which they are joined: the user namespace decides about
/// the others, and the mount namespace hides the paths of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// Users and groups.
    User,
    /// Control groups.
    Cgroup,
    /// Inter-process communication.
    Ipc,
    /// Host name.
    Uts,
    /// Network.
    Network,
    /// Process ids, of children.
    Pid,
    /// Clocks, of children.
    Time,
    /// Mounts.
    Mount,
}

impl Namespace {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Cgroup,
        Self::Ipc,
        Self::Uts,
        Self::Network,
        Self::Pid,
        Self::Time,
        Self::Mount,
    ];

    /// The kernel's flag.
    #[must_use]
    pub const fn flag(self) -> u32 {
        match self {
            Self::User => UnshareFlags::NEWUSER.bits(),
            Self::Cgroup => UnshareFlags::NEWCGROUP.bits(),
            Self::Ipc => UnshareFlags::NEWIPC.bits(),
            Self::Uts => UnshareFlags::NEWUTS.bits(),
            Self::Network => UnshareFlags::NEWNET.bits(),
            Self::Pid => UnshareFlags::NEWPID.bits(),
            Self::Time => UnshareFlags::NEWTIME.bits(),
            Self::Mount => UnshareFlags::NEWNS.bits(),
        }
    }

    /// The name of the link in `/proc/PID/ns`.
    #[must_use]
    pub const fn link(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::Mount => "mnt",
        }
    }
}

/// Some kinds of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespaceSet(u32);

impl NamespaceSet {
    /// Whether a kind is a member.
    #[must_use]
    pub const fn contains(self, namespace: Namespace) -> bool {
        self.0 & namespace.flag() != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Namespace> for NamespaceSet {
    fn from_iter<I: IntoIterator<Item = Namespace>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | kind.flag()))
    }
}

/// How a process shall be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneRequest<'a> {
    /// The namespaces that it gets for itself. Not those of time, which only `unshare` makes.
    pub new: NamespaceSet,
    /// A directory of a version 2 hierarchy: the control group that it starts in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make it a sibling, a child of our own parent.
    pub sibling: bool,
    /// What of ours it does not keep: our end of what it hears us through, or it never notices that we
    /// are gone.
    pub closed: Option<BorrowedFd<'a>>,
}

/// A process that was made.
#[derive(Debug)]
pub struct Child {
    /// Its number, as we see it.
    pub pid: Pid,
    /// The same, for good.
    pub pidfd: OwnedFd,
}

/// What a process ends with that panicked, as every Rust program does.
const PANICKED: u8 = 101;

/// Clones the calling process; the copy runs `body` and ends with the status that it answers.
///
/// # Privileges
/// `CAP_SYS_ADMIN` for every namespace but that of users.
///
/// # Errors
/// The kernel's refusal; `EBUSY` when the process has several threads; `ENOSYS` when a control
/// group was asked for and the kernel has no `clone3`.
///
/// # Panics
/// Not here: a copy that panics says so on standard error and ends with 101.
///
/// # Source
/// `clone(2)`; the sibling keeps the exit signal of the caller.
pub fn clone_process(request: &CloneRequest<'_>, body: impl FnOnce() -> u8) -> Result<Child> {
    let tasks = rustix::fs::stat("/proc/self/task")
        .call("stat", || "\"/proc/self/task\"".to_owned())?
        .st_nlink;
    // Two links of the directory itself and one of each thread.
    if tasks > 3 {
        return Err(SysError::new(
            "clone3",
            format!("{} threads", tasks - 2),
            Errno::BUSY,
        ));
    }
    let mut pidfd: i32 = -1;
    let pid = match raw_clone3(request, &mut pidfd) {
        Err(Errno::NOSYS) if request.cgroup.is_none() => raw_clone(request, &mut pidfd),
        other => other,
    }
    .call("clone3", || format!("{:#x}", request.new.0))?;
    let Some(pid) = Pid::from_raw(pid) else {
        if let Some(ours) = request.closed {
            // JUSTIFICATION: the descriptor's owner is a value of the parent's.
            // SAFETY: the child's table is its own, and its copy of the owner is never dropped: it
            // ends by `exit_now`.
            unsafe { libc::close(ours.as_raw_fd()) };
        }
        run_copy(body)
    };
    // SAFETY: the kernel made this descriptor for us in the call that answered `pid`.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// Does what the copy is for, and ends. A panic that went on would undo what the parent has made, by the parent's own values on
/// this stack.
fn run_copy(body: impl FnOnce() -> u8) -> ! {
    let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    exit_now(status.unwrap_or(PANICKED))
}

fn flags(request: &CloneRequest<'_>) -> u64 {
    let mut flags = u64::from(request.new.0) | u64::from(libc::CLONE_PIDFD.unsigned_abs());
    if request.sibling {
        flags |= u64::from(libc::CLONE_PARENT.unsigned_abs());
    }
    flags
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn raw_clone3(request: &CloneRequest<'_>, pidfd: &mut i32) -> rustix::io::Result<i32> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut arguments = CloneArgs {
        flags: flags(request),
        pidfd: std::ptr::from_mut(pidfd) as u64,
        exit_signal: if request.sibling {
            0
        } else {
            u64::from(libc::SIGCHLD.unsigned_abs())
        },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = request.cgroup {
        arguments.flags |= INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // JUSTIFICATION: rustix has no safe clone3.
    // SAFETY: no stack and no CLONE_VM: the child is a copy with its own memory, as after fork, and
    // the caller has a single thread, so no lock is held by one that the copy lacks. The structure
    // has the kernel's layout and outlives the call.
    let outcome =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    outcome_of(outcome)
}

/// The older call, for kernels and filters without the newer one.
fn raw_clone(request: &CloneRequest<'_>, pidfd: &mut i32) -> rustix::io::Result<i32> {
    let mut flags = flags(request);
    if !request.sibling {
        flags |= u64::from(libc::SIGCHLD.unsigned_abs());
    }
    // JUSTIFICATION: libc's wrapper wants a stack and a function.
    // SAFETY: as for clone3; the pidfd is stored where the third argument points. The last two are
    // zero on every architecture, whatever their order.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            0_usize,
            std::ptr::from_mut(pidfd),
            0_usize,
            0_usize,
        )
    };
    outcome_of(outcome)
}

fn outcome_of(outcome: libc::c_long) -> rustix::io::Result<i32> {
    if outcome < 0 {
        return Err(crate::error::last_errno());
    }
    i32::try_from(outcome).map_err(|_| Errno::OVERFLOW)
}

/// Ends the calling process at once: no destructors, no buffers, nothing of the copied caller's.
pub fn exit_now(status: u8) -> ! {
    // JUSTIFICATION: std::process::exit runs the handlers that the caller registered.
    // SAFETY: the call does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Leaves namespaces for new ones.
///
/// # Errors
/// The kernel's refusal.
pub fn unshare(kinds: NamespaceSet) -> Result<()> {
    // JUSTIFICATION: rustix marks the call unsafe for its FILES flag.
    // SAFETY: only namespaces are among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::from_bits_retain(kinds.0)) }
        .call("unshare", || format!("{:#x}", kinds.0))
}

/// Opens a namespace by its path, and proves that it is one.
///
/// # Errors
/// The kernel's refusal; `EINVAL` for what is no namespace.
pub fn open_namespace(path: &std::path::Path) -> Result<OwnedFd> {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    // O_NONBLOCK: a fifo in the place of a namespace must not hang us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd =
        rustix::fs::openat(CWD, path, flags, Mode::empty()).call("open", || format!("{path:?}"))?;
    let stat = rustix::fs::fstatfs(&fd).call("fstatfs", || describe_fd(&fd))?;
    if stat.f_type == NSFS_MAGIC {
        Ok(fd)
    } else {
        Err(SysError::new("fstatfs", describe_fd(&fd), Errno::INVAL))
    }
}

/// Enters a namespace.
///
/// # Errors
/// The kernel's refusal; `EINVAL` when it is of another kind.
pub fn join(namespace: impl AsFd, kind: Namespace) -> Result<()> {
    setns(namespace.as_fd(), kind.flag())
}

/// Enters the namespaces of a process, in one step.
///
/// # Errors
/// The kernel's refusal; `EINVAL` where the kernel (before 5.8) takes no pidfd.
pub fn join_process(process: impl AsFd, kinds: NamespaceSet) -> Result<()> {
    setns(process.as_fd(), kinds.0)
}

fn setns(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    // JUSTIFICATION: rustix has two calls for the two kinds of descriptor, with flag types that lack
    // the time namespace.
    // SAFETY: a system call on two numbers.
    let outcome = unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags) };
    if outcome == 0 {
        return Ok(());
    }
    Err(SysError::new(
        "setns",
        format!("{}, {flags:#x}", describe_fd(fd)),
        crate::error::last_errno(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitOptions, waitpid};

    #[test]
    fn several_threads_are_refused() {
        // The test harness has a thread of its own beside this one.
        let error = clone_process(&CloneRequest::default(), || 0).unwrap_err();
        assert!(error.is(Errno::BUSY), "{error}");
    }

    #[test]
    fn copy_that_panics_ends_by_itself() {
        // The harness has threads: what is tested is the copy's way out, in a copy that is allowed to be one.
        let mut pidfd = -1;
        let pid = raw_clone3(&CloneRequest::default(), &mut pidfd).unwrap();
        if pid == 0 {
            run_copy(|| std::panic::resume_unwind(Box::new(())));
        }
        // SAFETY: made for us by the call.
        drop(unsafe { OwnedFd::from_raw_fd(pidfd) });
        let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty())
            .unwrap()
            .unwrap();
        assert_eq!(status.exit_status(), Some(i32::from(PANICKED)));
    }

    #[test]
    fn both_calls_make_a_process_with_a_descriptor() {
        for call in [raw_clone3, raw_clone] {
            let mut pidfd = -1;
            // A copy that only ends: allowed even of a process with threads.
            let pid = call(&CloneRequest::default(), &mut pidfd).unwrap();
            if pid == 0 {
                exit_now(7);
            }
            assert!(pidfd > 2);
            // SAFETY: made for us by the call.
            drop(unsafe { OwnedFd::from_raw_fd(pidfd) });
            let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty())
                .unwrap()
                .unwrap();
            assert_eq!(status.exit_status(), Some(7));
        }
    }

    #[test]
    fn sizes_and_flags_are_the_kernels() {
        assert_eq!(size_of::<CloneArgs>(), 88);
        let set: NamespaceSet = Namespace::ALL.into_iter().collect();
        assert_eq!(set.0, 0x7e02_0080);
        assert!(set.contains(Namespace::Time));
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        assert!(open_namespace("/proc/self/ns/net".as_ref()).is_ok());
        let error = open_namespace("/etc/passwd".as_ref()).unwrap_err();
        assert!(error.is(Errno::INVAL), "{error}");
    }
}
