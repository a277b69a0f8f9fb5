// SPDX-License-Identifier: Apache-2.0
//! Nobody in a container can write to the program that made it.
//!
//! The attack (CVE-2019-5736): the container's program is `/proc/self/exe`, or something in the
//! container opens `/proc/PID/exe` of a process that is about to become one of the container's. Either
//! is a handle on our file on the host. The defence: the file that we run from cannot be written
//! through any handle, because it is under fs-verity, or because the mount that the handle leads to
//! is read-only and attached nowhere, so that nobody can change that.
//!
//! # Source
//! `open_tree(2)`, `mount_setattr(2)`, `execveat(2)`; rule R5 of the threat model.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use gantry_sys::mount::{self, AttributeChange, MountAttrFlags};
use gantry_sys::task::{self, Words};
use gantry_sys::{Errno, SysError};
use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, StatxAttributes,
    StatxFlags,
};

use super::error::{Doing as _, RuntimeError};

const SELF: &str = "/proc/self/exe";

/// Sees to it that this process runs from a file that cannot be written through it: returns if it
/// does, and executes the same program with the same arguments from such a file if it does not.
///
/// # Errors
/// The kernel's refusal.
pub fn ensure_sealed() -> Result<(), RuntimeError> {
    if is_sealed()? {
        return Ok(());
    }
    match sealed_clone(SELF.as_ref()) {
        Ok(clone) => execute_self(&clone),
        // Without the right to clone mounts: a copy, unless there is nothing to protect.
        Err(error) if error.is(Errno::PERM) || error.is(Errno::NOSYS) => {
            if is_foreign()? {
                return Ok(());
            }
            execute_self(&copy()?)
        }
        Err(error) => Err(error).doing(|| "seal the runtime's own program"),
    }
}

/// A clone of a program's mount through which nobody can write to it. Whoever executes the runtime from there spares
/// it the second start.
///
/// # Privileges
/// `CAP_SYS_ADMIN`.
///
/// # Errors
/// The kernel's refusal.
pub fn sealed_clone(program: &Path) -> Result<OwnedFd, SysError> {
    let change = AttributeChange {
        set: MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID,
        ..AttributeChange::default()
    };
    let clone = mount::clone_mount(program, false)?;
    mount::set_attributes(&clone, &change)?;
    Ok(clone)
}

fn is_sealed() -> Result<bool, RuntimeError> {
    let doing = || "look at the runtime's own program";
    let mount = rustix::fs::statvfs(SELF).doing(doing)?;
    let wanted = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID;
    if mount.f_flag.contains(wanted) {
        return Ok(true);
    }
    let file = rustix::fs::statx(CWD, SELF, AtFlags::empty(), StatxFlags::empty());
    if file.is_ok_and(|file| file.stx_attributes.contains(StatxAttributes::VERITY)) {
        return Ok(true);
    }
    // A sealed copy in memory.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(SELF, flags, Mode::empty()).doing(doing)?;
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
    Ok(seals.contains(SealFlags::WRITE))
}

/// Whether the file is somebody else's, so that neither we nor a container of ours may write to it.
fn is_foreign() -> Result<bool, RuntimeError> {
    let stat = rustix::fs::stat(SELF).doing(|| "look at the runtime's own program")?;
    let writable = rustix::fs::access(SELF, rustix::fs::Access::WRITE_OK).is_ok();
    Ok(!writable && stat.st_uid != rustix::process::geteuid().as_raw())
}

fn copy() -> Result<OwnedFd, RuntimeError> {
    let doing = || "copy the runtime's own program";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("gantry-runtime", flags).doing(doing)?;
    let mut from = std::fs::File::open(SELF).doing(doing)?;
    let mut to = std::fs::File::from(memory);
    std::io::copy(&mut from, &mut to).doing(doing)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&to, seals).doing(doing)?;
    Ok(to.into())
}

fn execute_self(file: &OwnedFd) -> Result<(), RuntimeError> {
    let word = |bytes: Vec<u8>| CString::new(bytes).map_err(std::io::Error::from);
    let args = std::env::args_os()
        .map(|arg| word(arg.into_vec()))
        .collect::<Result<Vec<_>, _>>()
        .doing(|| "read the command line")?;
    let env = std::env::vars_os()
        .map(|(name, value)| {
            let mut bytes = name.into_vec();
            bytes.push(b'=');
            bytes.extend(value.into_vec());
            word(bytes)
        })
        .collect::<Result<Vec<_>, _>>()
        .doing(|| "read the environment")?;
    let error = task::execute_file(file, &Words::new(args), &Words::new(env));
    Err(error).doing(|| "execute the runtime's own program, sealed")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn privileged_program_runs_from_its_clone_and_is_not_written_there() {
        if !gantry_testkit::skip::is_root() {
            gantry_testkit::skip!("mounts are root's to clone");
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        let clone = sealed_clone(&program).unwrap();
        let place = format!("/proc/self/fd/{}", clone.as_raw_fd());
        assert!(Command::new(&place).status().unwrap().success());
        let write = |path: &Path| std::fs::OpenOptions::new().append(true).open(path);
        let error = write(place.as_ref()).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::ROFS));
        assert!(write(&program).is_ok(), "its own place is as before");
    }
}
