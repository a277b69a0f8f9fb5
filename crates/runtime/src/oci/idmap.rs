// SPDX-License-Identifier: Apache-2.0
//! Who is who in a new user namespace, and mounts that are shown through such a mapping.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::process::Command;

use gantry_sys::Errno;
use gantry_sys::clone::{self, CloneRequest, Namespace};
use rustix::process::{WaitOptions, waitpid};

use super::error::{Doing as _, RuntimeError};
use super::plan::{Facts, IdMapping, MountMapping, MountStep, Plan};

/// The two files of a process that say it.
const FILES: [(&str, &str); 2] = [("uid_map", "newuidmap"), ("gid_map", "newgidmap")];

fn lines(map: &[IdMapping]) -> String {
    map.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{} {} {}", line.container, line.host, line.size).ok();
        text
    })
}

/// A user may write a map of one line with the own id, and no group may be set afterwards; more takes
/// the help of programs that know what belongs to the user.
fn is_own(map: &[IdMapping], id: u32) -> bool {
    matches!(map, [one] if one.host == id && one.size == 1)
}

/// Whether processes of the container may not set their groups.
pub(super) fn denies_groups(plan: &Plan, facts: &Facts) -> bool {
    facts.rootless
        && plan.namespaces.is_private(Namespace::User)
        && is_own(
            &plan.namespaces.gid_mappings,
            rustix::process::getegid().as_raw(),
        )
}

/// Tells the kernel who is who in the new user namespace of a process.
pub(super) fn apply(plan: &Plan, pid: u32, deny_groups: bool) -> Result<(), RuntimeError> {
    if !plan.namespaces.is_private(Namespace::User) {
        return Ok(());
    }
    write_maps(
        pid,
        [&plan.namespaces.uid_mappings, &plan.namespaces.gid_mappings],
        deny_groups,
    )
}

fn write_maps(pid: u32, maps: [&Vec<IdMapping>; 2], deny_groups: bool) -> Result<(), RuntimeError> {
    if deny_groups {
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny").doing(|| "forbid groups")?;
    }
    let own = [
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    ];
    for (((file, helper), map), own) in FILES.into_iter().zip(maps).zip(own) {
        let doing = || format!("map the ids of the user namespace ({file})");
        match std::fs::write(format!("/proc/{pid}/{file}"), lines(map)) {
            Err(error)
                if Errno::from_io_error(&error) == Some(Errno::PERM) && !is_own(map, own) =>
            {
                ask_helper(helper, pid, map)?;
            }
            other => other.doing(doing)?,
        }
    }
    Ok(())
}

fn ask_helper(helper: &str, pid: u32, map: &[IdMapping]) -> Result<(), RuntimeError> {
    let doing = || format!("run {helper}");
    let mut command = Command::new(helper);
    command.arg(pid.to_string());
    for line in map {
        command.args([line.container, line.host, line.size].map(|number| number.to_string()));
    }
    let output = command.output().doing(doing)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(std::io::Error::other(said)).doing(doing)
}

/// The user namespace whose mapping a mount is shown through.
pub(super) fn users_of(plan: &Plan, step: &MountStep) -> Result<Option<OwnedFd>, RuntimeError> {
    match &step.mapping {
        None => Ok(None),
        Some(MountMapping::Own { uids, gids }) => make_users([uids, gids]).map(Some),
        Some(MountMapping::Container) => {
            let joined = plan
                .namespaces
                .joined()
                .find(|(kind, _)| *kind == Namespace::User);
            match joined {
                Some((_, path)) => clone::open_namespace(path)
                    .doing(|| "open the container's user namespace")
                    .map(Some),
                None => make_users([&plan.namespaces.uid_mappings, &plan.namespaces.gid_mappings])
                    .map(Some),
            }
        }
    }
}

/// Makes a user namespace that has that mapping and no process.
fn make_users(maps: [&Vec<IdMapping>; 2]) -> Result<OwnedFd, RuntimeError> {
    let doing = || "make a user namespace for a mapping";
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(doing)?;
    let request = CloneRequest {
        new: [Namespace::User].into_iter().collect(),
        ..CloneRequest::default()
    };
    let child = clone::clone_process(&request, || {
        // Nobody writes: the end comes by a signal, or with the runtime.
        gantry_sys::task::die_with_parent().ok();
        rustix::io::read(&reader, &mut [0; 1]).ok();
        0
    })
    .doing(doing)?;
    let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
    let outcome = write_maps(pid, maps, false)
        .and_then(|()| clone::open_namespace(format!("/proc/{pid}/ns/user").as_ref()).doing(doing));
    // Its end is all that is wanted of it.
    drop(writer);
    gantry_sys::signal::send(&child.pidfd, 9).ok();
    waitpid(Some(child.pid), WaitOptions::empty()).ok();
    outcome
}
