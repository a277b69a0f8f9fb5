// SPDX-License-Identifier: Apache-2.0
//! Installing system call filters.
//!
//! What a filter says is somebody else's matter: here it is a list of instructions that the kernel checks.
//!
//! # Source
//! `seccomp(2)`; `linux/filter.h`.
#![expect(unsafe_code, reason = "seccomp(2) has no wrapper in rustix")]

use crate::error::{Result, SysError};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{FromRawFd as _, OwnedFd};

/// One instruction of a classic BPF program, as the kernel reads it (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a test holds.
    pub jump_true: u8,
    /// How many to skip when it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// The most instructions that the kernel takes in one filter (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// How a filter is installed: `SECCOMP_FILTER_FLAG_*`, combined with [`FilterFlags::with`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterFlags(u32);

impl FilterFlags {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// For all threads of the process (Linux 3.17).
    pub const TSYNC: Self = Self(1);
    /// What is refused is logged (4.14).
    pub const LOG: Self = Self(1 << 1);
    /// Without the mitigation against speculative store bypass (4.17).
    pub const SPEC_ALLOW: Self = Self(1 << 2);
    /// Answer with a descriptor on which notifications arrive (5.0).
    pub const NEW_LISTENER: Self = Self(1 << 3);
    /// A thread that cannot follow [`FilterFlags::TSYNC`] is `ESRCH`, not its number; needed with a listener (5.7).
    pub const TSYNC_ESRCH: Self = Self(1 << 4);
    /// Only a fatal signal interrupts a call of which the listener has read (5.19).
    pub const WAIT_KILLABLE_RECV: Self = Self(1 << 5);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when every flag of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Filters the calls of this thread and of what it becomes, from now on.
///
/// Allocates nothing unless it fails, and makes the one call.
///
/// # Privileges
/// `CAP_SYS_ADMIN` in the user namespace, or `no_new_privs`.
///
/// # Errors
/// The kernel's refusal: `EINVAL` for a bad program or a flag that it does not know, `EACCES` without the privilege,
/// `EBUSY` for a second listener.
///
/// # Source
/// `seccomp(2)`, `SECCOMP_SET_MODE_FILTER`.
pub fn install(filter: &[Instruction], flags: FilterFlags) -> Result<Option<OwnedFd>> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const Instruction,
    }
    let describe = || {
        format!(
            "SECCOMP_SET_MODE_FILTER, {:#x}, {} instructions",
            flags.0,
            filter.len()
        )
    };
    let Ok(length) = u16::try_from(filter.len()) else {
        return Err(SysError::new("seccomp", describe(), Errno::INVAL));
    };
    let program = Program {
        length,
        filter: filter.as_ptr(),
    };
    // JUSTIFICATION: neither rustix nor libc wraps seccomp(2).
    // SAFETY: `program` has the layout of `struct sock_fprog` and points to `length` instructions with the layout of
    // `struct sock_filter`, which live until the call returns; the kernel copies and does not write.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags.0,
            &raw const program,
        )
    };
    if answer < 0 {
        let source = std::io::Error::last_os_error();
        return Err(SysError {
            call: "seccomp",
            args: describe(),
            source,
        });
    }
    if flags.has(FilterFlags::TSYNC) && !flags.has(FilterFlags::NEW_LISTENER) && answer > 0 {
        // The number of a thread that has a filter of its own.
        return Err(SysError::new("seccomp", describe(), Errno::SRCH));
    }
    if !flags.has(FilterFlags::NEW_LISTENER) {
        return Ok(None);
    }
    let Ok(raw) = i32::try_from(answer) else {
        return Err(SysError::new("seccomp", describe(), Errno::BADF));
    };
    // JUSTIFICATION: the kernel answers a number.
    // SAFETY: with NEW_LISTENER a successful call returns a new descriptor, which nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }))
}

/// True when the kernel knows an action (`SECCOMP_RET_*`).
#[must_use]
pub fn knows_action(action: u32) -> bool {
    // JUSTIFICATION: neither rustix nor libc wraps seccomp(2).
    // SAFETY: the kernel reads four bytes from a local that outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    answer == 0
}

/// True when the kernel knows every one of `flags`.
///
/// Asks with a filter that is nowhere: a known flag gets as far as reading it.
#[must_use]
pub fn knows_flags(flags: FilterFlags) -> bool {
    // JUSTIFICATION: neither rustix nor libc wraps seccomp(2).
    // SAFETY: a null pointer is what the kernel is to stumble over; nothing is read or written.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags.0,
            std::ptr::null::<u8>(),
        )
    };
    answer < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: u16 = 0x20;
    const RETURN: u16 = 0x06;
    const JUMP_EQUAL: u16 = 0x15;

    fn instruction(code: u16, jump_true: u8, jump_false: u8, operand: u32) -> Instruction {
        Instruction {
            code,
            jump_true,
            jump_false,
            operand,
        }
    }

    #[test]
    fn filter_binds_the_thread_that_installs_it() {
        // `getpid` has no other user in this thread; a refused number is the kernel's answer to it.
        let number = u32::try_from(libc::SYS_getppid).unwrap();
        let filter = [
            instruction(LOAD, 0, 0, 0),
            instruction(JUMP_EQUAL, 0, 1, number),
            instruction(RETURN, 0, 0, 0x0005_0000 | 99),
            instruction(RETURN, 0, 0, 0x7fff_0000),
        ];
        let answer = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            assert!(install(&filter, FilterFlags::LOG).unwrap().is_none());
            // SAFETY: getppid takes nothing and cannot fail but by the filter.
            let answer = unsafe { libc::syscall(libc::SYS_getppid) };
            (answer, std::io::Error::last_os_error().raw_os_error())
        })
        .join()
        .unwrap();
        assert_eq!(answer, (-1, Some(99)));
        assert!(std::os::unix::process::parent_id() > 0);
    }

    #[test]
    fn listener_is_a_descriptor() {
        let filter = [instruction(RETURN, 0, 0, 0x7fff_0000)];
        let got = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            install(&filter, FilterFlags::NEW_LISTENER).unwrap()
        })
        .join()
        .unwrap();
        assert!(got.is_some());
    }

    #[test]
    fn kernel_is_asked_what_it_knows() {
        assert!(knows_action(0x7fff_0000) && !knows_action(0x1234_0000));
        assert!(knows_flags(FilterFlags::LOG.with(FilterFlags::SPEC_ALLOW)));
        assert!(!knows_flags(FilterFlags(1 << 31)));
        let refused = install(&[], FilterFlags::EMPTY).unwrap_err();
        assert!(refused.is(Errno::INVAL) || refused.is(Errno::ACCESS));
    }
}
