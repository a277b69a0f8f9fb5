// SPDX-License-Identifier: Apache-2.0
//! The last step but one: identity, privileges and the filter of system calls, in the order that the
//! kernel wants.
//!
//! A filter may be installed by who has `CAP_SYS_ADMIN` or can gain no privileges any more. With
//! `noNewPrivileges` it comes last, so that it has to allow nothing but the execution; without, it comes
//! before the privileges go.

use std::os::fd::{AsFd as _, BorrowedFd};

use gantry_sys::SysError;
use oci_spec::runtime::Spec;

use super::confine;
use super::error::{Doing as _, RuntimeError};
use super::plan::ProcessPlan;
use super::seccomp::{self, Machine, Program};

/// Compiles the document's filter, before there is a process that needs it.
pub(super) fn compile(spec: &Spec) -> Result<Option<Program>, RuntimeError> {
    let Some(seccomp) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref())
    else {
        return Ok(None);
    };
    let native = Machine::native().ok_or(RuntimeError::Unsupported(
        "filters of system calls are not made for this machine",
    ))?;
    Ok(Some(seccomp::compile(seccomp, native)?))
}

/// Gives up everything that the document does not give.
pub(super) fn confine(
    process: &ProcessPlan,
    filter: Option<&Program>,
    deny_groups: bool,
    entered: bool,
    listener: impl Fn(BorrowedFd<'_>) -> Result<(), SysError>,
) -> Result<(), RuntimeError> {
    if !process.no_new_privileges {
        install(filter, &listener)?;
    }
    confine::become_user(process, deny_groups)?;
    if !entered {
        confine::enter_directory(&process.cwd)?;
    }
    gantry_sys::task::reset_signals().doing(|| "reset signals")?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).doing(|| "give up new privileges")?;
        install(filter, &listener)?;
    }
    Ok(())
}

fn install(
    filter: Option<&Program>,
    listener: &impl Fn(BorrowedFd<'_>) -> Result<(), SysError>,
) -> Result<(), RuntimeError> {
    let Some(program) = filter else {
        return Ok(());
    };
    let made = gantry_sys::seccomp::install(&program.filter, program.flags)
        .doing(|| "install the filter of system calls")?;
    match made {
        Some(fd) => listener(fd.as_fd()).doing(|| "hand over the filter's listener"),
        None => Ok(()),
    }
}
