// SPDX-License-Identifier: Apache-2.0
//! Giving a new file the contents of another, sharing the blocks where the file system can.

use crate::error::{Context, Result, SysError, describe_fd};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// How the contents came into the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The blocks are shared (`FICLONE`): no room was taken.
    Shared,
    /// The bytes were copied.
    Bytes,
}

/// Fills the empty file `to` with the contents of `from`.
///
/// # Errors
/// The kernel's refusal; `to` may then hold a part.
pub fn copy_contents(from: impl AsFd, to: impl AsFd) -> Result<Copied> {
    let (from, to) = (from.as_fd(), to.as_fd());
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => Ok(Copied::Shared),
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => {
            copy_bytes(from, to)?;
            Ok(Copied::Bytes)
        }
        Err(errno) => Err(failed("ioctl(FICLONE)", from, to, errno)),
    }
}

fn copy_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    const CHUNK: usize = 1 << 30;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, CHUNK) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::PERM) => {
                return copy_by_hand(from, to);
            }
            Err(errno) => return Err(failed("copy_file_range", from, to, errno)),
        }
    }
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = rustix::io::read(from, &mut buffer).call("read", || describe_fd(from))?;
        let mut rest = &buffer[..count];
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let written = rustix::io::write(to, rest).call("write", || describe_fd(to))?;
            rest = &rest[written..];
        }
    }
}

fn failed(call: &'static str, from: BorrowedFd<'_>, to: BorrowedFd<'_>, errno: Errno) -> SysError {
    let args = format!("{}, {}", describe_fd(from), describe_fd(to));
    SysError::new(call, args, errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn contents_arrive_whole_by_every_road() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let source = dir.path().join("source");
        fs::write(&source, &bytes).unwrap();
        let roads: [fn(BorrowedFd<'_>, BorrowedFd<'_>) -> Result<()>; 3] = [
            |a, b| copy_contents(a, b).map(|_| ()),
            copy_bytes,
            copy_by_hand,
        ];
        for road in roads {
            let target = dir.path().join("target");
            let to = fs::File::create(&target).unwrap();
            road(fs::File::open(&source).unwrap().as_fd(), to.as_fd()).unwrap();
            assert_eq!(fs::read(&target).unwrap(), bytes);
        }
    }
}
