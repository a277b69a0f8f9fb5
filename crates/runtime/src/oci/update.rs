// SPDX-License-Identifier: Apache-2.0
//! `update`: other limits for a container that is there.

use oci_spec::runtime::LinuxResources;

use super::error::RuntimeError;
use super::groups::Groups;
use super::launch::Context;
use super::show::show;
use super::state::Status;

/// Changes the limits that `resources` has; others stay as they are.
///
/// What was left out is said by the context's `warn`.
///
/// # Errors
/// The container has ended or has no control groups; a limit that this host does not enforce; the kernel's refusal.
pub fn update(
    context: &Context<'_>,
    id: &str,
    resources: &LinuxResources,
) -> Result<(), RuntimeError> {
    let shown = show(context, id)?;
    if [Status::Stopped, Status::Creating].contains(&shown.status) {
        return Err(RuntimeError::Status {
            verb: "update",
            id: id.to_owned(),
            status: shown.status,
        });
    }
    let Some(groups) = Groups::from_record(&shown.record)? else {
        return Err(RuntimeError::Unsupported(
            "a container without control groups has no limits",
        ));
    };
    groups
        .update(resources)?
        .iter()
        .for_each(|note| (context.warn)(note));
    Ok(())
}
