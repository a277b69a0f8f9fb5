// SPDX-License-Identifier: Apache-2.0
//! `kill`: a signal to the container's first process, or to all of them.

use gantry_sys::{Errno, signal};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::{Doing as _, RuntimeError};
use super::groups::Groups;
use super::launch::Context;
use super::state::{Record, StateDir, Status, is_alive};

/// Names without `SIG`, by number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Reads a signal by number or name, with or without `SIG`, real-time ones included.
///
/// # Errors
/// It is none.
pub fn parse_signal(text: &str) -> Result<u8, RuntimeError> {
    let unknown = || RuntimeError::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<u8>() {
        return (number <= 64).then_some(number).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let name = match name {
        "IOT" => "ABRT",
        "POLL" => "IO",
        "CLD" => "CHLD",
        other => other,
    };
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return u8::try_from(index + 1).map_err(|_| unknown());
    }
    let offset = |rest: &str, base: i16, sign: i16| {
        let step = if rest.is_empty() {
            0
        } else {
            rest.get(1..)?.parse::<i16>().ok()?
        };
        u8::try_from(base + sign * step).ok()
    };
    let real_time = name
        .strip_prefix("RTMIN")
        .and_then(|rest| offset(rest, 34, 1))
        .or_else(|| {
            name.strip_prefix("RTMAX")
                .and_then(|rest| offset(rest, 64, -1))
        });
    real_time
        .filter(|number| (34..=64).contains(number))
        .ok_or_else(unknown)
}

/// Sends a signal.
///
/// # Errors
/// The container has no process to send it to.
pub fn kill(context: &Context<'_>, id: &str, number: u8, all: bool) -> Result<(), RuntimeError> {
    let state = StateDir::open(&context.root, id)?;
    let record = state.expect_record()?;
    let status = state.status(&record)?;
    if all {
        if let Some(groups) = Groups::from_record(&record)? {
            return Ok(groups.signal(number)?);
        }
    }
    match status {
        Status::Creating | Status::Stopped => Err(RuntimeError::Status {
            verb: "kill",
            id: id.to_owned(),
            status,
        }),
        _ => signal_first(&record, number),
    }
}

/// Sends a signal to the first process; that it has ended meanwhile is no matter.
pub(super) fn signal_first(record: &Record, number: u8) -> Result<(), RuntimeError> {
    let doing = || format!("send signal {number} to process {}", record.pid);
    let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(Errno::SRCH).doing(doing)?;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        other => other.doing(doing)?,
    };
    // The number may be somebody else's by now; the descriptor is not.
    if !is_alive(record)? {
        return Ok(());
    }
    match signal::send(&process, number) {
        Err(error) if error.is(Errno::SRCH) => Ok(()),
        other => other.doing(doing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_number_and_by_any_name() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("34", 34),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
            ("CLD", 17),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIG", "65", "-1", "RTMIN+31", "RTMAX-31", "NOPE", "9x"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
