// SPDX-License-Identifier: Apache-2.0
//! What a process sets of itself before it becomes somebody else's program: personality, priorities,
//! memory policy, keyring, signals, descriptors, and the program itself.
#![expect(unsafe_code, reason = "calls that rustix lacks")]

use crate::error::{Result, SysError, describe_fd, last_errno};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd as _};

fn call(name: &'static str, outcome: libc::c_long, args: impl FnOnce() -> String) -> Result<i64> {
    if outcome < 0 {
        return Err(SysError::new(name, args(), last_errno()));
    }
    Ok(outcome)
}

/// Sets the execution domain.
///
/// # Errors
/// The kernel's refusal.
///
/// # Source
/// `personality(2)`.
pub fn set_personality(persona: u32) -> Result<()> {
    // JUSTIFICATION: rustix has no personality.
    // SAFETY: a system call on a number.
    let outcome = unsafe { libc::syscall(libc::SYS_personality, u64::from(persona)) };
    call("personality", outcome, || format!("{persona:#x}")).map(drop)
}

/// Sets the I/O priority: class 1 is real time, 2 best effort, 3 idle.
///
/// # Errors
/// The kernel's refusal.
///
/// # Source
/// `ioprio_set(2)`.
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    const WHO_PROCESS: i32 = 1;
    let value = (i32::from(class) << 13) | i32::from(level);
    // JUSTIFICATION: rustix has no ioprio_set.
    // SAFETY: a system call on numbers.
    let outcome = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) };
    call("ioprio_set", outcome, || format!("{class}, {level}")).map(drop)
}

/// How a process is scheduled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Niceness.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Of deadline scheduling, in nanoseconds.
    pub runtime_ns: u64,
    /// Likewise.
    pub deadline_ns: u64,
    /// Likewise.
    pub period_ns: u64,
}

/// Sets policy and priority of the calling process.
///
/// # Errors
/// The kernel's refusal.
///
/// # Source
/// `sched_setattr(2)`.
pub fn set_scheduling(scheduling: &Scheduling) -> Result<()> {
    #[repr(C)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    const SIZE: u32 = 48;
    const _: () = assert!(size_of::<SchedAttr>() == SIZE as usize);
    let attributes = SchedAttr {
        size: SIZE,
        policy: scheduling.policy,
        flags: scheduling.flags,
        nice: scheduling.nice,
        priority: scheduling.priority,
        runtime: scheduling.runtime_ns,
        deadline: scheduling.deadline_ns,
        period: scheduling.period_ns,
    };
    // JUSTIFICATION: rustix has no sched_setattr.
    // SAFETY: the structure has the kernel's layout, says its size, and outlives the call.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    call("sched_setattr", outcome, || format!("{scheduling:?}")).map(drop)
}

/// Sets where memory comes from.
///
/// # Errors
/// The kernel's refusal.
///
/// # Source
/// `set_mempolicy(2)`.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> Result<()> {
    const BITS: u32 = usize::BITS;
    let longest = nodes.iter().max().map_or(0, |node| node / BITS + 1);
    let mut mask = vec![0_usize; longest as usize];
    for node in nodes {
        mask[(node / BITS) as usize] |= 1 << (node % BITS);
    }
    let pointer = if mask.is_empty() {
        std::ptr::null()
    } else {
        mask.as_ptr()
    };
    // The kernel reads one bit less than it is told.
    let bits = if mask.is_empty() {
        0
    } else {
        mask.len() * BITS as usize + 1
    };
    // JUSTIFICATION: rustix has no set_mempolicy.
    // SAFETY: the mask holds as many bits as are announced, rounded to words, and outlives the call.
    let outcome = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    call("set_mempolicy", outcome, || format!("{mode:#x}, {nodes:?}")).map(drop)
}

/// Joins a new session keyring of that name and lets whoever possesses it search it.
///
/// # Errors
/// The kernel's refusal.
///
/// # Source
/// `keyctl(2)`.
pub fn join_new_keyring(name: &CStr) -> Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    const DESCRIBE: i32 = 6;
    const SETPERM: i32 = 5;
    const SEARCH_BY_ANYONE: u32 = 0x0808_0000;
    // JUSTIFICATION: rustix has no keyctl.
    // SAFETY: the name is a C string that outlives the call.
    let outcome = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    let keyring = call("keyctl", outcome, || {
        format!("JOIN_SESSION_KEYRING, {name:?}")
    })?;
    let mut text = [0_u8; 256];
    // SAFETY: the kernel writes at most as many bytes as it is told that there are.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            DESCRIBE,
            keyring,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    call("keyctl", outcome, || format!("DESCRIBE, {keyring}"))?;
    // `type;uid;gid;permissions;description`
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    let held = String::from_utf8_lossy(&text[..end])
        .split(';')
        .nth(3)
        .and_then(|field| u32::from_str_radix(field, 16).ok());
    if let Some(held) = held {
        // SAFETY: a system call on numbers.
        let outcome =
            unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, keyring, held | SEARCH_BY_ANYONE) };
        call("keyctl", outcome, || format!("SETPERM, {keyring}"))?;
    }
    Ok(())
}

/// Gives every signal its default effect and blocks none, as a new program expects it.
///
/// # Errors
/// The kernel's refusal of the mask; signals that cannot be changed are passed over.
///
/// # Source
/// `signal(7)`.
pub fn reset_signals() -> Result<()> {
    // JUSTIFICATION: rustix has neither dispositions nor masks.
    // SAFETY: default dispositions only; the set is initialised before it is read.
    unsafe {
        for number in 1..=libc::SIGRTMAX() {
            libc::signal(number, libc::SIG_DFL);
        }
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) != 0 {
            return Err(SysError::new(
                "sigprocmask",
                "SIG_SETMASK".to_owned(),
                last_errno(),
            ));
        }
    }
    Ok(())
}

/// Marks every descriptor from `first` on to be closed by the next program.
///
/// # Errors
/// The kernel's refusal.
///
/// # Source
/// `close_range(2)`; where it is missing (before 5.11), the list in `/proc/self/fd`.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOEXEC: u32 = 4;
    // JUSTIFICATION: rustix has no close_range.
    // SAFETY: with this flag no descriptor is closed, so none is taken from its owner.
    let outcome = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOEXEC) };
    match call("close_range", outcome, || format!("{first}.., CLOEXEC")) {
        Err(error) if error.is(Errno::NOSYS) || error.is(Errno::INVAL) => mark_each_from(first),
        other => other.map(drop),
    }
}

fn mark_each_from(first: u32) -> Result<()> {
    let failed = |error: std::io::Error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        SysError::new("getdents64", "\"/proc/self/fd\"".to_owned(), errno)
    };
    for entry in std::fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(number) = name.to_str().and_then(|text| text.parse::<i32>().ok()) else {
            continue;
        };
        if number.unsigned_abs() >= first {
            // SAFETY: sets a flag; the descriptor of this listing, which is gone by then, says EBADF.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// The arguments and the environment of a program, ready for the kernel.
#[derive(Debug, Clone, Default)]
pub struct Words(Vec<CString>);

impl Words {
    /// Takes the words as they are.
    #[must_use]
    pub fn new(words: Vec<CString>) -> Self {
        Self(words)
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        self.0
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    }
}

/// Becomes the program at `path`; returns only when that failed.
///
/// # Source
/// `execve(2)`.
#[must_use]
pub fn execute(path: &CStr, args: &Words, env: &Words) -> SysError {
    let (arguments, environment) = (args.pointers(), env.pointers());
    // JUSTIFICATION: std's Command searches PATH and changes signals.
    // SAFETY: both arrays end with a null pointer and point to C strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    SysError::new("execve", format!("{path:?}"), last_errno())
}

/// Becomes the program that a descriptor leads to; returns only when that failed.
///
/// # Source
/// `execveat(2)`.
#[must_use]
pub fn execute_file(file: impl AsFd, args: &Words, env: &Words) -> SysError {
    let file = file.as_fd();
    let (arguments, environment) = (args.pointers(), env.pointers());
    // JUSTIFICATION: rustix has no execveat outside its runtime feature.
    // SAFETY: as for execve; the path is an empty C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    SysError::new("execveat", describe_fd(file), last_errno())
}

/// Asks for a signal when the parent ends, and checks that it has not ended yet.
///
/// # Errors
/// The kernel's refusal.
pub fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| SysError::new("prctl", "PR_SET_PDEATHSIG".to_owned(), errno))
}

/// Switches a network interface of the calling process's namespace on.
///
/// # Errors
/// The kernel's refusal; `ENAMETOOLONG`.
///
/// # Source
/// `netdevice(7)`.
pub fn interface_up(name: &str) -> Result<()> {
    let args = || format!("{name:?}");
    let mut request: libc::ifreq = {
        // SAFETY: the structure is plain numbers, for which zeros are values.
        unsafe { std::mem::zeroed() }
    };
    if name.len() >= request.ifr_name.len() {
        return Err(SysError::new("ioctl", args(), Errno::NAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| SysError::new("socket", "AF_INET".to_owned(), errno))?;
    // JUSTIFICATION: rustix has no interface requests.
    // SAFETY: both requests read and write one `struct ifreq`, which outlives the calls; the flags are
    // the union's member of the request in between.
    unsafe {
        let outcome = libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request);
        call("ioctl(SIOCGIFFLAGS)", outcome.into(), args)?;
        request.ifr_ifru.ifru_flags |= 1; // IFF_UP
        let outcome = libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request);
        call("ioctl(SIOCSIFFLAGS)", outcome.into(), args)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_marked_by_either_way() {
        for mark in [close_on_exec_from, mark_each_from] {
            let file = std::fs::File::open("/dev/null").unwrap();
            rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
            mark(file.as_raw_fd().unsigned_abs()).unwrap();
            let flags = rustix::io::fcntl_getfd(file.as_fd()).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn failed_execution_says_what_was_tried() {
        let error = execute(c"/no/such/program", &Words::default(), &Words::default());
        assert!(error.is(Errno::NOENT));
        assert_eq!(error.to_string(), "execve(\"/no/such/program\")");
    }

    #[test]
    fn memory_policy_is_set_and_reset() {
        std::thread::spawn(|| {
            const DEFAULT: u32 = 0;
            const BIND: u32 = 2;
            match set_memory_policy(BIND, &[0]) {
                Err(error) if error.is(Errno::NOSYS) => return,
                other => other.unwrap(),
            }
            assert!(set_memory_policy(BIND, &[]).is_err());
            set_memory_policy(DEFAULT, &[]).unwrap();
        })
        .join()
        .unwrap();
    }
}
