// SPDX-License-Identifier: Apache-2.0
//! Reading the files that decide on trust: policies, rules, keys.

use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Read as _, Result};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Reads a regular file, or one that a link leads to, but no more than one byte past the cap.
///
/// Anything else is refused before it is read, and opening it does not wait: a pipe's other end might never come.
pub(crate) fn read_regular(path: &Path, cap: usize) -> Result<(Vec<u8>, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(cap as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "12345").unwrap();
        symlink("file", at("link")).unwrap();
        assert_eq!(read_regular(&at("link"), 5).unwrap().0, b"12345");
        // One byte tells that it is too large.
        assert_eq!(read_regular(&at("file"), 3).unwrap().0, b"1234");
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::RUSR).unwrap();
        symlink("pipe", at("pipe-link")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        let _listening = UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        for name in ["pipe", "pipe-link", "device", "directory"] {
            let error = read_regular(&at(name), 5).unwrap_err();
            assert_eq!(error.to_string(), "it is no regular file", "{name}");
        }
        for name in ["socket", "missing"] {
            assert!(read_regular(&at(name), 5).is_err(), "{name}");
        }
    }
}
