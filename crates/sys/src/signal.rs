// SPDX-License-Identifier: Apache-2.0
//! Signals as something to read, for programs with one thread and a poll loop.
#![expect(unsafe_code, reason = "sigprocmask and signalfd")]

use crate::error::{Context, Result, SysError, describe_fd};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Signals that are blocked for the calling thread and read from a descriptor instead.
///
/// A child that is spawned meanwhile starts with an empty mask: the standard library resets it.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Blocks the signals, for the calling thread and those it starts from now on.
    ///
    /// # Errors
    /// The kernel's refusal; `EINVAL` for a number that is no signal.
    ///
    /// # Source
    /// `signalfd(2)`, `sigprocmask(2)`.
    pub fn block(signals: &[u8]) -> Result<Self> {
        // JUSTIFICATION: rustix has no signal masks.
        // SAFETY: the set is initialised by sigemptyset before it is read, and outlives each call;
        // signalfd returns a descriptor that nobody else owns.
        let fd = unsafe {
            let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                if libc::sigaddset(set.as_mut_ptr(), i32::from(*signal)) != 0 {
                    return Err(last_error("sigaddset", signal.to_string()));
                }
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(last_error("sigprocmask", format!("{signals:?}")));
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(last_error("signalfd", format!("{signals:?}")));
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd })
    }

    /// Takes the number of a pending signal; `None` if none is pending.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn take(&self) -> Result<Option<u8>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(read) if read == info.len() => {
                // `ssi_signo` is the structure's first member.
                let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                Ok(u8::try_from(number).ok())
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno).call("read", || describe_fd(&self.fd)),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends a signal, real-time ones included, to the process of a pidfd.
///
/// # Errors
/// The kernel's refusal; `ESRCH` when the process has ended.
pub fn send(process: impl AsFd, signal: u8) -> Result<()> {
    let process = process.as_fd();
    // JUSTIFICATION: rustix's Signal cannot name real-time signals without unsafe code of the caller.
    // SAFETY: a system call on numbers and a null pointer, which asks for default information.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            i32::from(signal),
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if outcome == 0 {
        return Ok(());
    }
    Err(last_error(
        "pidfd_send_signal",
        format!("{}, {signal}", describe_fd(process)),
    ))
}

fn last_error(call: &'static str, arguments: String) -> SysError {
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    SysError::new(call, arguments, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_signal_is_read_and_not_delivered() {
        // A thread of its own: the mask is the thread's.
        std::thread::spawn(|| {
            let signals = SignalFd::block(&[10]).unwrap();
            assert_eq!(signals.take().unwrap(), None);
            // SAFETY: raises a signal that this thread has blocked.
            assert_eq!(unsafe { libc::raise(10) }, 0);
            assert_eq!(signals.take().unwrap(), Some(10));
            assert_eq!(signals.take().unwrap(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn signal_reaches_a_child_by_its_descriptor() {
        use std::os::unix::process::ExitStatusExt as _;
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        send(&fd, 15).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert!(send(&fd, 15).unwrap_err().is(Errno::SRCH));
    }
}
