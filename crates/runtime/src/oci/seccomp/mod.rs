// SPDX-License-Identifier: Apache-2.0
//! From `linux.seccomp` to a program for the kernel, and handing its listener over.
//!
//! ```text
//! LinuxSeccomp ── rules ──► for each machine: number → what to do ── assemble ──► Program ── sys::seccomp::install
//!                  │ names against `table`, comparisons, multiplexed calls       │ one search tree for each machine
//! ```
//!
//! Pure: no C library and nothing of the host. What the document leaves open is decided as libseccomp and runc do, whose
//! verdicts the tests compare call by call:
//!
//! | question | rule |
//! |---|---|
//! | a name that no table has | skipped, and listed in [`Program::skipped`] |
//! | a rule that does what happens anyway | skipped, before all else |
//! | several rules for one call, one of them without comparisons | that one decides, the first if there are several |
//! | several rules with comparisons | the first that matches, in the document's order |
//! | two comparisons of one argument in one rule | each comparison becomes a rule of its own (any of them may hold) |
//! | a call numbered above all that the filter names on its machine | `ENOSYS`, unless the default action lets calls pass or says `ENOSYS` itself: a C library that probes for a call newer than the filter must hear that it does not exist |
//! | a machine that the document does not list | the thread is killed; the native one is always listed |
//! | a machine whose calls this kernel cannot receive | left out |
//! | 32-bit machines, x32 among them | the lower half of an argument is compared |
//! | no `flags` | `SPEC_ALLOW`, as kernels do by themselves since 5.16; an empty list is none |
//! | `socketcall`, `ipc` | a rule for a call that they stand for goes for them too; its comparisons cannot, so it is carried over only without them or when it is stricter than what happens anyway |
//!
//! # Source
//! runtime-spec 1.3 "Seccomp"; `seccomp(2)`; `Documentation/networking/filter.rst`.

mod assemble;
pub mod listener;
mod machine;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_sys::seccomp::{FilterFlags, INSTRUCTIONS_MAX, Instruction};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};
use serde::{Deserialize, Serialize};

pub use machine::Machine;

/// The actions that documents may name.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The comparisons that documents may name.
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The flags that documents may name, and the kernel's.
pub const FLAGS: [(&str, FilterFlags); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", FilterFlags::LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", FilterFlags::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", FilterFlags::TSYNC),
    // Only filters with a listener may have it.
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        FilterFlags::WAIT_KILLABLE_RECV.with(FilterFlags::NEW_LISTENER),
    ),
];

/// A filter, ready for [`gantry_sys::seccomp::install`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What the kernel runs at each call.
    pub filter: Vec<Instruction>,
    /// How it is installed.
    pub flags: FilterFlags,
    /// Who answers for calls that the filter refers to user space.
    pub listener: Option<Listener>,
    /// Names that no machine of this host has, in the document's order.
    pub skipped: Vec<String>,
}

/// The agent that answers notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The socket on which it listens.
    pub path: PathBuf,
    /// What it wants to be told, opaque.
    pub metadata: Option<String>,
}

/// Why a filter cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileError {
    /// Calls would wait for an agent that is told by such calls.
    #[error("compile seccomp filter: SCMP_ACT_NOTIFY cannot be the default action")]
    NotifyByDefault,
    /// The runtime itself needs this call to hand the listener over.
    #[error("compile seccomp filter: SCMP_ACT_NOTIFY cannot be used for {name}")]
    NotifyOnHandOver {
        /// The call.
        name: String,
    },
    /// Nobody would answer.
    #[error("compile seccomp filter: SCMP_ACT_NOTIFY needs listenerPath")]
    NoListener,
    /// The kernel knows no such number.
    #[error("compile seccomp filter: {errno} is no error number")]
    Errno {
        /// The number.
        errno: u32,
    },
    /// Calls have six arguments.
    #[error("compile seccomp filter: {name} has no argument {index}")]
    Argument {
        /// The call.
        name: String,
        /// The argument, from zero.
        index: usize,
    },
    /// The kernel's cap.
    #[error(
        "compile seccomp filter: {instructions} instructions, of which the kernel takes {INSTRUCTIONS_MAX}"
    )]
    TooLong {
        /// How many it would take.
        instructions: usize,
    },
}

impl CompileError {
    /// The reason, coarsely.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

/// Makes the filter of a document for a machine.
///
/// # Errors
/// What the specification or the kernel cannot express; see [`CompileError`].
pub fn compile(seccomp: &LinuxSeccomp, native: Machine) -> Result<Program, CompileError> {
    let rules = rules::resolve(seccomp, native)?;
    let filter = assemble::program(&rules);
    if filter.len() > INSTRUCTIONS_MAX {
        return Err(CompileError::TooLong {
            instructions: filter.len(),
        });
    }
    let notifies = rules.notifies;
    let listener = match (notifies, seccomp.listener_path()) {
        (true, None) => return Err(CompileError::NoListener),
        (true, Some(path)) => Some(Listener {
            path: path.clone(),
            metadata: seccomp.listener_metadata().clone(),
        }),
        (false, _) => None,
    };
    Ok(Program {
        filter,
        flags: flags(seccomp, notifies),
        listener,
        skipped: rules.skipped,
    })
}

fn flags(seccomp: &LinuxSeccomp, notifies: bool) -> FilterFlags {
    let mut flags = match seccomp.flags() {
        None => FilterFlags::SPEC_ALLOW,
        Some(list) => list.iter().fold(FilterFlags::EMPTY, |flags, flag| {
            flags.with(match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => FilterFlags::LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => FilterFlags::TSYNC,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FilterFlags::SPEC_ALLOW,
                // Without a listener the kernel refuses it, and nobody waits.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => {
                    FilterFlags::WAIT_KILLABLE_RECV
                }
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FilterFlags::EMPTY,
            })
        }),
    };
    if notifies {
        flags = flags.with(FilterFlags::NEW_LISTENER);
        if flags.has(FilterFlags::TSYNC) {
            flags = flags.with(FilterFlags::TSYNC_ESRCH);
        }
    }
    flags
}

/// The largest error number that the kernel returns (`MAX_ERRNO`).
const ERRNO_MAX: u32 = 4095;
const EPERM: u32 = 1;

/// What the kernel is to be answered for an action.
fn action_code(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, CompileError> {
    let number = errno.unwrap_or(EPERM);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno if number > ERRNO_MAX => {
            return Err(CompileError::Errno { errno: number });
        }
        LinuxSeccompAction::ScmpActErrno => ERRNO | number,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
        // The number is a message for the tracer, of sixteen bits.
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | (number & 0xffff),
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
    })
}

const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = 38;
