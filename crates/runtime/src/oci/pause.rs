// SPDX-License-Identifier: Apache-2.0
//! `pause` and `resume`: every process of a container stands still, and goes on.

use super::cgroup::{Cgroup, CgroupError};
use super::error::RuntimeError;
use super::groups::Groups;
use super::launch::Context;
use super::show::show;
use super::state::Status;

/// Freezes a container's processes.
///
/// # Errors
/// It is neither created nor running; it has no control group that can be frozen.
pub fn pause(context: &Context<'_>, id: &str) -> Result<(), RuntimeError> {
    turn(
        context,
        id,
        "pause",
        &[Status::Created, Status::Running],
        Cgroup::freeze,
    )
}

/// Lets them go on.
///
/// # Errors
/// It is not paused.
pub fn resume(context: &Context<'_>, id: &str) -> Result<(), RuntimeError> {
    turn(context, id, "resume", &[Status::Paused], Cgroup::thaw)
}

fn turn(
    context: &Context<'_>,
    id: &str,
    verb: &'static str,
    from: &[Status],
    act: fn(&Cgroup) -> Result<(), CgroupError>,
) -> Result<(), RuntimeError> {
    let shown = show(context, id)?;
    let status = shown.status;
    if !from.contains(&status) {
        let id = id.to_owned();
        return Err(RuntimeError::Status { verb, id, status });
    }
    match Groups::from_record(&shown.record)? {
        Some(groups) => Ok(act(&groups)?),
        None => Err(RuntimeError::Unsupported(
            "a container without control groups cannot be paused",
        )),
    }
}
