// SPDX-License-Identifier: Apache-2.0
//! One error for every call: its name, its arguments and the errno, so that a failure reads like a
//! line of strace.

use rustix::io::Errno;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd};

/// The result of a system call wrapper.
pub type Result<T, E = SysError> = std::result::Result<T, E>;

/// A system call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}({args})")]
pub struct SysError {
    /// The call, as the manual names it.
    pub call: &'static str,
    /// The arguments, rendered when the call failed: descriptors as number and path.
    pub args: String,
    /// What the kernel answered.
    #[source]
    pub source: std::io::Error,
}

impl SysError {
    /// Wraps an errno with the call that met it.
    #[must_use]
    pub fn new(call: &'static str, args: String, errno: Errno) -> Self {
        Self {
            call,
            args,
            source: errno.into(),
        }
    }

    /// The errno, or `EIO` for a failure that the kernel did not number.
    #[must_use]
    pub fn errno(&self) -> Errno {
        Errno::from_io_error(&self.source).unwrap_or(Errno::IO)
    }

    /// True when the errno is `errno`.
    #[must_use]
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == errno
    }
}

impl From<SysError> for std::io::Error {
    fn from(error: SysError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Adds the call and its arguments to a bare errno.
pub(crate) trait Context<T> {
    /// Names the call; `args` runs only on failure.
    fn call(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn call(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| SysError::new(call, args(), errno))
    }
}

/// The errno that a call of `libc` left behind.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Renders a descriptor as its number and the path it had, `7</srv/store>`.
#[must_use]
pub fn describe_fd(fd: impl AsFd) -> String {
    let raw = fd.as_fd().as_raw_fd();
    if raw == rustix::fs::CWD.as_raw_fd() {
        return "AT_FDCWD".to_owned();
    }
    let mut text = raw.to_string();
    if let Ok(path) = rustix::fs::readlink(format!("/proc/self/fd/{raw}"), Vec::new()) {
        write!(text, "<{}>", path.to_string_lossy()).ok();
    }
    text
}

/// Renders a file name for an error message.
#[must_use]
pub fn describe_name(name: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_like_strace() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let error = Err::<(), _>(Errno::NOENT)
            .call("openat", || {
                format!("{}, {}", describe_fd(&fd), describe_name(b"a\n"))
            })
            .unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("openat("), "{text}");
        assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
        assert!(text.ends_with("\"a\\n\")"), "{text}");
        assert!(error.is(Errno::NOENT));
    }
}
