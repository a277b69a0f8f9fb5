// SPDX-License-Identifier: Apache-2.0
//! Labels of Linux security modules, for the program that is executed next.
//!
//! They are written below a procfs that is ours, by a path without symlinks and mounts, so that the
//! kernel itself reads them and nothing that stands in for it.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use gantry_sys::{Errno, SysError};
use rustix::fs::OFlags;

use super::error::{Doing as _, RuntimeError};
use super::plan::ProcessPlan;

/// Tells the kernel which label the next program gets.
pub(super) fn prepare(
    process: &ProcessPlan,
    open_proc: impl Fn(&str, OFlags) -> Result<OwnedFd, SysError>,
) -> Result<(), RuntimeError> {
    let pid = rustix::process::getpid();
    let write = |paths: &[&str], text: &str| {
        let mut outcome = Err(Errno::NOENT).doing(|| "label the program");
        for path in paths {
            let path = format!("{pid}/attr/{path}");
            outcome = match open_proc(&path, OFlags::WRONLY) {
                Err(error) if error.is(Errno::NOENT) => Err(error).doing(|| "label the program"),
                Err(error) => return Err(error).doing(|| format!("label the program {text:?}")),
                Ok(file) => {
                    return std::fs::File::from(file)
                        .write_all(text.as_bytes())
                        .doing(|| format!("label the program {text:?}"));
                }
            };
        }
        outcome
    };
    if let Some(profile) = &process.apparmor {
        write(&["apparmor/exec", "exec"], &format!("exec {profile}"))?;
    }
    if let Some(label) = &process.selinux {
        write(&["exec"], label)?;
    }
    Ok(())
}
