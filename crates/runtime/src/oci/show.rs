// SPDX-License-Identifier: Apache-2.0
//! `state`, `list` and `ps`: what there is.

use super::error::{Doing as _, RuntimeError};
use super::groups::Groups;
use super::launch::Context;
use super::state::{self, Record, StateDir, Status};

/// One container with what it is doing.
#[derive(Debug)]
pub struct Shown {
    /// What is kept of it.
    pub record: Record,
    /// What it is doing.
    pub status: Status,
}

/// Looks a container up.
///
/// # Errors
/// There is none.
pub fn show(context: &Context<'_>, id: &str) -> Result<Shown, RuntimeError> {
    let state = StateDir::open(&context.root, id)?;
    let record = state.expect_record()?;
    let mut status = state.status(&record)?;
    if status == Status::Running {
        if let Some(groups) = Groups::from_record(&record)? {
            if groups.is_frozen()? {
                status = Status::Paused;
            }
        }
    }
    Ok(Shown { record, status })
}

/// Every container, by id. What vanishes meanwhile is left out.
///
/// # Errors
/// The kernel's refusal.
pub fn list(context: &Context<'_>) -> Result<Vec<Shown>, RuntimeError> {
    let mut all = Vec::new();
    for id in state::list(&context.root)? {
        match show(context, &id) {
            Err(RuntimeError::NotFound { .. }) => {}
            other => all.push(other?),
        }
    }
    Ok(all)
}

/// The processes of a container, by their numbers on the host.
///
/// # Errors
/// There is no such container; the kernel's refusal.
pub fn processes(context: &Context<'_>, id: &str) -> Result<Vec<u32>, RuntimeError> {
    let shown = show(context, id)?;
    if let Some(groups) = Groups::from_record(&shown.record)? {
        return Ok(groups.pids()?);
    }
    if shown.status == Status::Stopped {
        return Ok(Vec::new());
    }
    in_pid_namespace_of(shown.record.pid)
}

/// Without control groups: whoever is in the same pid namespace as the first process.
fn in_pid_namespace_of(first: u32) -> Result<Vec<u32>, RuntimeError> {
    let doing = || "look at processes";
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(std::process::id());
    let wanted = namespace(first);
    if wanted.is_none() || wanted == own {
        return Ok(vec![first]);
    }
    let mut pids: Vec<u32> = std::fs::read_dir("/proc")
        .doing(doing)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid) == wanted)
        .collect();
    pids.sort_unstable();
    Ok(pids)
}
