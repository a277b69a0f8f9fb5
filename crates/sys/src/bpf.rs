// SPDX-License-Identifier: Apache-2.0
//! Programs that decide on a control group's use of devices.
//!
//! # Source
//! `bpf(2)`; `Documentation/bpf/standardization/instruction-set.rst`.
#![expect(unsafe_code, reason = "bpf(2) has no wrapper in rustix")]

use crate::error::{Result, SysError, describe_fd};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// One instruction of an eBPF program, as the kernel reads it (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The registers: destination in the lower four bits, source in the upper (on little-endian machines).
    pub registers: u8,
    /// How far to jump, or where to read.
    pub offset: i16,
    /// The operand.
    pub operand: i32,
}

const PROG_LOAD: i64 = 5;
const PROG_ATTACH: i64 = 8;
const PROG_DETACH: i64 = 9;
const PROG_QUERY: i64 = 16;
const PROG_GET_FD_BY_ID: i64 = 13;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loading reads.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kernel_version: u32,
    prog_flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    flags: u32,
}

fn bpf<T>(command: i64, attr: &mut T, args: impl FnOnce() -> String) -> Result<i32> {
    // JUSTIFICATION: neither rustix nor libc wraps bpf(2).
    // SAFETY: `attr` is a prefix of `union bpf_attr` with the size that is said; the kernel takes what is missing for
    // zero. Every pointer in it is to memory of the caller of this function that lives until the call returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        let source = std::io::Error::last_os_error();
        let args = args();
        return Err(SysError {
            call: "bpf",
            args,
            source,
        });
    }
    i32::try_from(answer).map_err(|_| SysError::new("bpf", String::new(), Errno::BADF))
}

fn raw(fd: impl AsFd) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).expect("descriptors are not negative")
}

/// Loads a program that decides on the use of devices.
///
/// # Privileges
/// `CAP_BPF` (or `CAP_SYS_ADMIN`) in the first user namespace.
///
/// # Errors
/// The kernel's refusal: `EINVAL` or `EACCES` for a program that its verifier does not accept.
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd> {
    let mut name = [0; 16];
    name[..6].copy_from_slice(b"gantry");
    // Its functions for which a licence matters are not used.
    let license = c"Apache-2.0";
    let describe = || {
        format!(
            "BPF_PROG_LOAD, CGROUP_DEVICE, {} instructions",
            instructions.len()
        )
    };
    let Ok(instruction_count) = u32::try_from(instructions.len()) else {
        return Err(SysError::new("bpf", describe(), Errno::TOOBIG));
    };
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kernel_version: 0,
        prog_flags: 0,
        name,
    };
    let fd = bpf(PROG_LOAD, &mut attr, describe)?;
    // JUSTIFICATION: the kernel answers a number.
    // SAFETY: a successful load returns a new descriptor (close-on-exec), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a program decide for a control group of version 2, beside those that do already: all must agree.
///
/// # Errors
/// The kernel's refusal: `EPERM` where an ancestor reserved the decision.
pub fn attach_device_program(group: impl AsFd, program: impl AsFd) -> Result<()> {
    let (group, program) = (group.as_fd(), program.as_fd());
    let mut attr = AttachAttr {
        target_fd: raw(group),
        program_fd: raw(program),
        attach_type: ATTACH_TYPE_DEVICE,
        flags: ALLOW_MULTI,
    };
    let args = || format!("BPF_PROG_ATTACH, {}", describe_fd(group));
    bpf(PROG_ATTACH, &mut attr, args).map(|_| ())
}

/// Takes a program's decision away from a control group.
///
/// # Errors
/// The kernel's refusal; `ENOENT` when it did not decide there.
pub fn detach_device_program(group: impl AsFd, program: impl AsFd) -> Result<()> {
    let (group, program) = (group.as_fd(), program.as_fd());
    let mut attr = AttachAttr {
        target_fd: raw(group),
        program_fd: raw(program),
        attach_type: ATTACH_TYPE_DEVICE,
        flags: 0,
    };
    let args = || format!("BPF_PROG_DETACH, {}", describe_fd(group));
    bpf(PROG_DETACH, &mut attr, args).map(|_| ())
}

/// The programs that decide for a control group itself, in the order of their attachment.
///
/// # Errors
/// The kernel's refusal.
pub fn device_programs(group: impl AsFd) -> Result<Vec<OwnedFd>> {
    const MANY: usize = 64;
    let group = group.as_fd();
    let mut ids = [0_u32; MANY];
    let mut attr = QueryAttr {
        target_fd: raw(group),
        attach_type: ATTACH_TYPE_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
        padding: 0,
    };
    let args = || format!("BPF_PROG_QUERY, {}", describe_fd(group));
    bpf(PROG_QUERY, &mut attr, args)?;
    let count = usize::try_from(attr.count).unwrap_or(MANY).min(MANY);
    let mut programs = Vec::with_capacity(count);
    for id in &ids[..count] {
        let mut attr = IdAttr {
            id: *id,
            next_id: 0,
            flags: 0,
        };
        let fd = match bpf(PROG_GET_FD_BY_ID, &mut attr, || {
            format!("PROG_GET_FD_BY_ID, {id}")
        }) {
            // It went away in between.
            Err(error) if error.is(Errno::NOENT) => continue,
            other => other?,
        };
        // JUSTIFICATION: the kernel answers a number.
        // SAFETY: a successful call returns a new descriptor (close-on-exec), which nobody else owns.
        programs.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(programs)
}
