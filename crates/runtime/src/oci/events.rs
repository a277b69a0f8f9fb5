// SPDX-License-Identifier: Apache-2.0
//! `events`: what a container uses, and what it was killed for.
//!
//! One JSON value a line, in runc's shape: `{"type": "stats", "id": …, "data": …}` at each interval, and
//! `{"type": "oom", "id": …}` when the kernel has killed one of its processes for want of memory, which is looked at
//! several times a second.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;

use super::cgroup::stats::Stats;
use super::error::{Doing as _, RuntimeError};
use super::groups::Groups;
use super::launch::Context;
use super::show::show;
use super::state::Status;
use gantry_sys::Errno;

/// One line.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    /// `stats` or `oom`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The container.
    pub id: &'a str,
    /// What it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Stats>,
}

/// How often it is looked whether a process was killed.
const LOOK: Duration = Duration::from_millis(200);

/// Tells `tell` one look, or with an interval everything until the container ends or `tell` has enough.
///
/// # Errors
/// The container has ended already; the kernel's refusal.
pub fn events(
    context: &Context<'_>,
    id: &str,
    interval: Option<Duration>,
    mut tell: impl FnMut(&Event<'_>) -> bool,
) -> Result<(), RuntimeError> {
    let shown = show(context, id)?;
    if [Status::Stopped, Status::Creating].contains(&shown.status) {
        return Err(RuntimeError::Status {
            verb: "watch",
            id: id.to_owned(),
            status: shown.status,
        });
    }
    let Some(groups) = Groups::from_record(&shown.record)? else {
        return Err(RuntimeError::Unsupported(
            "nobody counts what a container without control groups uses",
        ));
    };
    let stats = || -> Result<Event<'_>, RuntimeError> {
        let data = Some(groups.stats()?);
        Ok(Event {
            kind: "stats",
            id,
            data,
        })
    };
    let Some(interval) = interval else {
        tell(&stats()?);
        return Ok(());
    };
    let doing = || "watch the container's first process";
    let pid = i32::try_from(shown.record.pid).ok().and_then(Pid::from_raw);
    let process = match pidfd_open(pid.ok_or(Errno::SRCH).doing(doing)?, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        other => other.doing(doing)?,
    };
    let mut killed = groups.killed_for_memory()?;
    let mut waited = Duration::ZERO;
    loop {
        let step = LOOK.min(interval.saturating_sub(waited));
        let timeout = Timespec::try_from(step)
            .map_err(|_| Errno::INVAL)
            .doing(doing)?;
        let mut polled = [PollFd::new(&process, PollFlags::IN)];
        let ended = match poll(&mut polled, Some(&timeout)) {
            Err(Errno::INTR) => false,
            other => other.doing(doing)? > 0,
        };
        let now = groups.killed_for_memory()?;
        if now > killed {
            killed = now;
            let event = Event {
                kind: "oom",
                id,
                data: None,
            };
            if !tell(&event) {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        waited += step;
        if waited >= interval {
            waited = Duration::ZERO;
            if !tell(&stats()?) {
                return Ok(());
            }
        }
    }
}
