// SPDX-License-Identifier: Apache-2.0
//! A process between the runtime and one in a user namespace that exists already.
//!
//! Whoever makes namespaces in a user namespace, or enters those of it without privileges outside, has to be in it; but the
//! runtime itself has to stay outside. A process between them joins, clones the one that is wanted as its own sibling,
//! says which process that is, and ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use gantry_sys::clone::{self, Child, CloneRequest, Namespace};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::channel::Control;
use super::error::{Doing as _, RuntimeError};
use super::init::{self, Assignment};
use super::plan::Plan;

pub(super) fn clone_in_users(
    plan: &Plan,
    joined: Vec<(Namespace, OwnedFd)>,
    mut assignment: Assignment<'_>,
    group: Option<OwnedFd>,
    control: &Control,
) -> Result<Child, RuntimeError> {
    let doing = || "clone the container's first process";
    let (before, after): (Vec<_>, Vec<_>) = joined
        .into_iter()
        .partition(|(kind, _)| matches!(kind, Namespace::User | Namespace::Pid));
    assignment.joined = after;
    let request = CloneRequest {
        new: plan.namespaces.cloned(),
        cgroup: group.as_ref().map(|group| group.as_fd()),
        sibling: true,
        closed: Some(control.as_fd()),
    };
    stand_between(doing, move || {
        for (kind, namespace) in &before {
            clone::join(namespace, *kind)
                .doing(|| format!("join the {} namespace", kind.link()))?;
        }
        clone::clone_process(&request, || init::run(assignment)).doing(doing)
    })
}

/// Does `make` in a process of its own, and answers the sibling that it cloned.
pub(super) fn stand_between(
    doing: impl Fn() -> &'static str,
    make: impl FnOnce() -> Result<Child, RuntimeError>,
) -> Result<Child, RuntimeError> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(&doing)?;
    let (reader, mut writer) = (File::from(reader), File::from(writer));
    let middle = clone::clone_process(&CloneRequest::default(), move || {
        let said = match make() {
            Ok(child) => format!("+{}\n", child.pid.as_raw_nonzero()),
            Err(error) => format!("-{}\n", error.sentence().replace('\n', " ")),
        };
        // The runtime that does not hear it sees an empty answer.
        writer.write_all(said.as_bytes()).ok();
        0
    })
    .doing(&doing)?;
    let mut said = String::new();
    // To the end of the line: the sibling holds the other end, too, until it becomes its program.
    let read = BufReader::new(reader).read_line(&mut said);
    waitpid(Some(middle.pid), WaitOptions::empty()).doing(&doing)?;
    read.doing(&doing)?;
    let said = said.trim_end();
    let pid = said
        .strip_prefix('+')
        .and_then(|text| text.parse().ok())
        .and_then(Pid::from_raw);
    let Some(pid) = pid else {
        let sentence = said.strip_prefix('-').unwrap_or("it ended without a word");
        return Err(RuntimeError::Init(sentence.to_owned()));
    };
    // Our own child, which nobody else can reap.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(&doing)?;
    Ok(Child { pid, pidfd })
}
