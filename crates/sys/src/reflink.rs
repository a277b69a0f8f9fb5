// SPDX-License-Identifier: Apache-2.0
//! Giving a new file the contents of another, sharing the blocks where the file system can.

use crate::error::{Context, Result, SysError, describe_fd};
use rustix::fs::SeekFrom;
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

/// Copies what is data and leaves holes where the source has them.
fn copy_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    copy_data(from, to, copy_range)
}

type CopyRange = fn(BorrowedFd<'_>, BorrowedFd<'_>, u64, u64) -> Result<()>;

fn copy_data(from: BorrowedFd<'_>, to: BorrowedFd<'_>, copy: CopyRange) -> Result<()> {
    let stat = rustix::fs::fstat(from).call("fstat", || describe_fd(from))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // A file system that does not tell holes has none.
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size);
        copy(from, to, start, end.max(start + 1).min(size))?;
        at = end.max(start + 1);
    }
    rustix::fs::ftruncate(to, size).call("ftruncate", || describe_fd(to))
}

fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    const CHUNK: u64 = 1 << 30;
    let (mut read, mut written) = (start, start);
    while read < end {
        let count = usize::try_from((end - read).min(CHUNK)).unwrap_or(0);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), count) {
            // The source was cut meanwhile.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::PERM) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(errno) => return Err(failed("copy_file_range", from, to, errno)),
        }
    }
    Ok(())
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count =
            rustix::io::pread(from, &mut buffer[..want], at).call("pread", || describe_fd(from))?;
        let mut rest = &buffer[..count];
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let written = rustix::io::pwrite(to, rest, at).call("pwrite", || describe_fd(to))?;
            rest = &rest[written..];
            at += written as u64;
        }
    }
    Ok(())
}

fn failed(call: &'static str, from: BorrowedFd<'_>, to: BorrowedFd<'_>, errno: Errno) -> SysError {
    let args = format!("{}, {}", describe_fd(from), describe_fd(to));
    SysError::new(call, args, errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Seek as _, Write as _};
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn contents_arrive_whole_by_every_road() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let source = dir.path().join("source");
        fs::write(&source, &bytes).unwrap();
        // A hole in the middle, some data, a hole at the end.
        let mut file = fs::File::options().write(true).open(&source).unwrap();
        file.seek(std::io::SeekFrom::Start(8 << 20)).unwrap();
        file.write_all(b"data").unwrap();
        file.set_len(16 << 20).unwrap();
        let bytes = fs::read(&source).unwrap();
        let roads: [fn(BorrowedFd<'_>, BorrowedFd<'_>) -> Result<()>; 3] = [
            |a, b| copy_contents(a, b).map(|_| ()),
            copy_bytes,
            |a, b| copy_data(a, b, copy_by_hand),
        ];
        for road in roads {
            let target = dir.path().join("target");
            let to = fs::File::create(&target).unwrap();
            road(fs::File::open(&source).unwrap().as_fd(), to.as_fd()).unwrap();
            assert!(fs::read(&target).unwrap() == bytes);
            let blocks = |path| fs::metadata(path).unwrap().blocks();
            // Wherever this file system has holes at all.
            assert!(blocks(&target) <= blocks(&source) + 64);
        }
    }
}
