// SPDX-License-Identifier: Apache-2.0
//! fs-verity: making a file's contents permanent, and asking the kernel for their digest.
//!
//! Parameters are pinned to SHA-256 with 4096-byte blocks and no salt, the ones that object ids
//! are computed with. Not every file system has it; [`Enabled::Unsupported`] says so.
//!
//! Source: `Documentation/filesystems/fsverity.rst`.
#![expect(unsafe_code, reason = "the fs-verity ioctls have no wrapper in rustix")]

use crate::error::{Result, SysError, describe_fd};
use rustix::io::Errno;
use rustix::ioctl::{Setter, Updater, ioctl, opcode};
use std::os::fd::AsFd;

/// What enabling did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabled {
    /// The file is now, or was already, sealed.
    Sealed,
    /// This kernel or file system has no fs-verity.
    Unsupported,
}

#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

#[repr(C)]
struct Digest {
    algorithm: u16,
    size: u16,
    bytes: [u8; 32],
}

/// The header alone counts in the number of `FS_IOC_MEASURE_VERITY`: the digest follows it.
#[repr(C)]
struct DigestHeader {
    algorithm: u16,
    size: u16,
}

const HASH_SHA256: u16 = 1;
const ENABLE: rustix::ioctl::Opcode = opcode::write::<EnableArg>(b'f', 133);
const MEASURE: rustix::ioctl::Opcode = opcode::read_write::<DigestHeader>(b'f', 134);

/// Seals the contents of `file`, which is open for reading and has no writer.
///
/// # Errors
/// The kernel's refusal, except the absence of fs-verity.
pub fn enable(file: impl AsFd) -> Result<Enabled> {
    let file = file.as_fd();
    let argument = EnableArg {
        version: 1,
        hash_algorithm: u32::from(HASH_SHA256),
        block_size: 4096,
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        reserved1: 0,
        sig_ptr: 0,
        reserved2: [0; 11],
    };
    // JUSTIFICATION: rustix offers the ioctl mechanism but not this request.
    // SAFETY: the opcode takes a pointer to `struct fsverity_enable_arg`, which `EnableArg` lays
    // out as the kernel header does; its two pointers are null with length zero.
    let outcome = unsafe { ioctl(file, Setter::<ENABLE, EnableArg>::new(argument)) };
    match outcome {
        Ok(()) | Err(Errno::EXIST) => Ok(Enabled::Sealed),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => Ok(Enabled::Unsupported),
        Err(errno) => Err(SysError::new(
            "ioctl(FS_IOC_ENABLE_VERITY)",
            describe_fd(file),
            errno,
        )),
    }
}

/// Asks for the digest of a sealed file; `None` where it is not sealed.
///
/// # Errors
/// The kernel's refusal.
pub fn measure(file: impl AsFd) -> Result<Option<[u8; 32]>> {
    let file = file.as_fd();
    let mut digest = Digest {
        algorithm: 0,
        size: 32,
        bytes: [0; 32],
    };
    // JUSTIFICATION: rustix offers the ioctl mechanism but not this request.
    // SAFETY: the opcode takes a pointer to `struct fsverity_digest` whose `size` says how many
    // bytes follow; `Digest` has exactly these 32.
    let outcome = unsafe { ioctl(file, Updater::<MEASURE, Digest>::new(&mut digest)) };
    match outcome {
        Ok(()) if digest.algorithm == HASH_SHA256 && digest.size == 32 => Ok(Some(digest.bytes)),
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOTTY | Errno::OVERFLOW) => Ok(None),
        Err(errno) => Err(SysError::new(
            "ioctl(FS_IOC_MEASURE_VERITY)",
            describe_fd(file),
            errno,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(size_of::<Digest>(), 36);
        assert_eq!(ENABLE, 0x4080_6685);
        assert_eq!(MEASURE, 0xc004_6686);
    }

    #[test]
    fn an_unsealed_file_measures_as_none_and_enabling_never_errs_for_want_of_support() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let file = std::fs::File::open(dir.path().join("f")).unwrap();
        assert_eq!(measure(&file).unwrap(), None);
        match enable(&file).unwrap() {
            Enabled::Sealed => assert!(measure(&file).unwrap().is_some()),
            Enabled::Unsupported => eprintln!("skipped: no fs-verity here"),
        }
    }
}
