// SPDX-License-Identifier: Apache-2.0
//! Files that the command line or an image names.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use gantry_oci::Kind;

use crate::exit::Failure;

/// Reads a file that has at most `max_bytes`.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read_capped(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Failure> {
    let read = || format!("read {}", path.display());
    let file = File::open(path).map_err(|error| Failure::from(error).context(read()))?;
    let mut bytes = Vec::new();
    let count = file
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::from(error).context(read()))?;
    if count as u64 > max_bytes {
        let sentence = format!("{}: larger than {max_bytes} bytes", read());
        return Err(Failure::message(Kind::Unsafe, sentence));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_file_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_capped(&path, 5).unwrap(), b"12345");
        assert_eq!(read_capped(&path, 4).unwrap_err().kind(), Kind::Unsafe);
    }
}
