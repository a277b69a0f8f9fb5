// SPDX-License-Identifier: Apache-2.0
//! `exec`: one more process in a container that runs.
//!
//! ```text
//! state ─ pidfd of init, its start time compared ─ pid namespace for children ─ clone
//!   child: control groups ─ user namespace, then all others in one step ─ limits, identity, filter ─ program
//! ```
//!
//! A user without privileges may enter nothing before the container's user namespace: a process between the two does
//! that, and clones the child as its own sibling.
//!
//! From the moment at which the child is in the container's pid namespace, others there can see it: it is
//! not dumpable, runs from a sealed file, holds no descriptor of the host that the kernel would let
//! them take, and becomes the program by the same steps as init does.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use gantry_sys::clone::{self, Child, CloneRequest, Namespace, NamespaceSet};
use gantry_sys::mount::{Fs, MountAttrFlags};
use gantry_sys::{Errno, task};
use oci_spec::runtime::{Process, Spec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cgroup::{Cgroup, Doors, Entrance};
use super::channel::{self, Channel, Control, FromInit, ToInit};
use super::confine::{self, Program};
use super::error::{Doing as _, RuntimeError};
use super::filter;
use super::foreground::Foreground;
use super::groups::Groups;
use super::launch::{Context, not_dumpable, parse_document};
use super::plan::{self, ProcessPlan};
use super::seccomp::{self, listener};
use super::state::{self, Record, StateDir, Status, is_alive};
use super::{facts, init, label, middle, terminal};

/// What `exec` is told.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// Who gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// Returns once the program runs.
    pub detach: bool,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// A group below the container's own.
    pub cgroup: Option<String>,
    /// Variables that the program gets beside those of the document.
    pub extra_env: Vec<String>,
    /// Works in a paused container, too: it runs when that is resumed.
    pub ignore_paused: bool,
}

/// The document of a container, as it was when the container was made.
///
/// # Errors
/// There is no such container.
pub fn document(context: &Context<'_>, id: &str) -> Result<Spec, RuntimeError> {
    let state = StateDir::open(&context.root, id)?;
    parse_document(&state.config()?)
        .map_err(std::io::Error::from)
        .doing(|| "read the document that was kept")
}

/// Runs a process in a container; answers its status, 0 if detached.
///
/// # Errors
/// The container does not run; anything on the way.
pub fn exec(
    context: &Context<'_>,
    id: &str,
    spec: &Spec,
    process: &Process,
    options: &ExecOptions,
) -> Result<u8, RuntimeError> {
    let state = StateDir::open(&context.root, id)?;
    let record = state.expect_record()?;
    let status = state.status(&record)?;
    if !matches!(status, Status::Running | Status::Created) {
        return Err(RuntimeError::Status {
            verb: "exec in",
            id: id.to_owned(),
            status,
        });
    }
    let facts = facts::probe(Some(process), context.rootless)?;
    let (plan, warnings) = plan::process(spec, process, &facts)?;
    warnings.iter().for_each(|warning| (context.warn)(warning));
    let groups = Groups::from_record(&record)?;
    let is_frozen = |groups: &Cgroup| Ok::<_, RuntimeError>(groups.is_frozen()?);
    if !options.ignore_paused && groups.as_ref().map(is_frozen).transpose()? == Some(true) {
        return Err(RuntimeError::Status {
            verb: "exec in",
            id: id.to_owned(),
            status: Status::Paused,
        });
    }

    let mut foreground = if options.detach {
        None
    } else {
        Some(Foreground::begin()?)
    };
    let console = match (&options.console_socket, plan.terminal.is_some()) {
        (Some(path), true) => Some(terminal::connect(path)?),
        (Some(_), false) => {
            return Err(RuntimeError::Usage(
                "a console socket, but the process wants no terminal".to_owned(),
            ));
        }
        (None, true) => match &mut foreground {
            Some(foreground) => Some(foreground.offer_terminal()?),
            None => {
                return Err(RuntimeError::Usage(
                    "the process wants a terminal: name a console socket".to_owned(),
                ));
            }
        },
        (None, false) => None,
    };
    let target = Target::open(&record)?;
    let (control, channel) = channel::pair().doing(|| "make a channel")?;
    let deny_groups = target.kinds.contains(Namespace::User)
        && std::fs::read_to_string(format!("/proc/{}/setgroups", record.pid))
            .is_ok_and(|text| text.trim() == "deny");
    let entrance = match &groups {
        Some(groups) => groups.entrance(options.cgroup.as_deref())?,
        None => Entrance::Told,
    };
    let (group, doors) = entrance.split();
    let assignment = Assignment {
        plan: &plan,
        doors,
        filter: filter::compile(spec)?,
        channel,
        console,
        deny_groups,
        preserve_fds: options.preserve_fds,
        extra_env: options.extra_env.clone(),
        new_keyring: !facts.rootless,
        id,
    };
    if let Some(processors) = &plan.cpu_affinity.initial {
        confine::set_affinity(processors)?;
    }
    let agent = Agent {
        listener: assignment
            .filter
            .as_ref()
            .and_then(|program| program.listener.clone()),
        record: &record,
        status,
    };
    not_dumpable()?;
    let child = if facts.rootless && target.kinds.contains(Namespace::User) {
        target.clone_below_users(assignment, group.as_ref(), &control)?
    } else {
        target.clone_into(assignment, group.as_ref(), &control)?
    };
    let outcome = follow(&child, options, &plan, &control, &agent);
    if let Err(error) = outcome {
        // It may have ended by itself.
        gantry_sys::signal::send(&child.pidfd, 9).ok();
        rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty()).ok();
        return Err(error);
    }
    match foreground {
        Some(foreground) => foreground.wait(&child),
        None => Ok(0),
    }
}

/// Does what only the runtime can, then answers the process until it is its program.
fn follow(
    child: &Child,
    options: &ExecOptions,
    plan: &ProcessPlan,
    control: &channel::Control,
    agent: &Agent<'_>,
) -> Result<(), RuntimeError> {
    let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
    // It works meanwhile: if it has ended, nothing else can be done with it, and it has said why.
    settle(pid, options, plan)
        .map_err(|error| control.reason_of_end().map_or(error, RuntimeError::Init))?;
    control
        .send(ToInit::Placed(pid))
        .doing(|| "talk to the process")?;
    loop {
        match control.receive().doing(|| "listen to the process")? {
            FromInit::Failed(sentence) => return Err(RuntimeError::Init(sentence)),
            FromInit::Closed => return Ok(()),
            FromInit::Listener(listener) => agent.hand_over(pid, &listener)?,
            FromInit::Prepared | FromInit::Ready => {}
        }
    }
}

fn settle(pid: u32, options: &ExecOptions, plan: &ProcessPlan) -> Result<(), RuntimeError> {
    if let Some(score) = plan.oom_score_adj {
        super::launch::set_oom_score(pid, score)?;
    }
    match &options.pid_file {
        Some(path) => state::write_pid_file(path, pid),
        None => Ok(()),
    }
}

/// Who answers for calls that a filter refers to user space.
pub(super) struct Agent<'a> {
    pub(super) listener: Option<seccomp::Listener>,
    pub(super) record: &'a Record,
    pub(super) status: Status,
}

impl Agent<'_> {
    pub(super) fn hand_over(&self, pid: u32, fd: &OwnedFd) -> Result<(), RuntimeError> {
        let Some(wanted) = &self.listener else {
            return Ok(());
        };
        let state = self.record.document(self.status);
        listener::hand_over(wanted, &self.record.oci_version, pid, &state, fd.as_fd())?;
        Ok(())
    }
}

/// The container's first process, and which namespaces of it are not ours.
struct Target {
    process: OwnedFd,
    pid: u32,
    kinds: NamespaceSet,
}

impl Target {
    fn open(record: &Record) -> Result<Self, RuntimeError> {
        let doing = || format!("find process {} of container {}", record.pid, record.id);
        let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(Errno::SRCH).doing(doing)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).doing(doing)?;
        // The number may be somebody else's by now; the descriptor is then, too.
        if !is_alive(record)? {
            return Err(Errno::SRCH).doing(doing);
        }
        let link = |pid: &str, kind: Namespace| {
            rustix::fs::readlink(format!("/proc/{pid}/ns/{}", kind.link()), Vec::new())
        };
        let mut kinds = Vec::new();
        for kind in Namespace::ALL {
            let theirs = match link(&record.pid.to_string(), kind) {
                // A kind that this kernel does not have.
                Err(Errno::NOENT) => continue,
                other => other.doing(doing)?,
            };
            if theirs != link("self", kind).doing(doing)? {
                kinds.push(kind);
            }
        }
        Ok(Self {
            process,
            pid: record.pid,
            kinds: kinds.into_iter().collect(),
        })
    }

    fn without(&self, kinds: &[Namespace]) -> NamespaceSet {
        Namespace::ALL
            .into_iter()
            .filter(|kind| self.kinds.contains(*kind) && !kinds.contains(kind))
            .collect()
    }

    /// Clones into the container's pid and time namespaces, which only children are in.
    fn clone_into(
        &self,
        assignment: Assignment<'_>,
        group: Option<&OwnedFd>,
        control: &Control,
    ) -> Result<Child, RuntimeError> {
        let doing = || format!("enter the namespaces of process {}", self.pid);
        let has_users = self.kinds.contains(Namespace::User);
        let for_children = if has_users {
            [Namespace::Pid].as_slice()
        } else {
            &[Namespace::Pid, Namespace::Time]
        };
        let for_children: NamespaceSet = for_children
            .iter()
            .copied()
            .filter(|kind| self.kinds.contains(*kind))
            .collect();
        if !for_children.is_empty() {
            clone::join_process(&self.process, for_children).doing(doing)?;
        }
        let mut rest = self.without(&[Namespace::Pid]);
        if !has_users {
            rest = self.without(&[Namespace::Pid, Namespace::Time]);
        }
        let process = &self.process;
        let request = CloneRequest {
            closed: Some(control.as_fd()),
            cgroup: group.map(AsFd::as_fd),
            ..CloneRequest::default()
        };
        let entry = Entry {
            process,
            kinds: rest,
            users: has_users,
        };
        clone::clone_process(&request, || run(assignment, &entry)).doing(doing)
    }

    /// The same for a user without privileges, whom only the container's user namespace gives any.
    fn clone_below_users(
        &self,
        assignment: Assignment<'_>,
        group: Option<&OwnedFd>,
        control: &Control,
    ) -> Result<Child, RuntimeError> {
        let first: NamespaceSet = [Namespace::User, Namespace::Pid]
            .into_iter()
            .filter(|kind| self.kinds.contains(*kind))
            .collect();
        let entry = Entry {
            process: &self.process,
            kinds: self.without(&[Namespace::User, Namespace::Pid]),
            users: true,
        };
        let request = CloneRequest {
            sibling: true,
            closed: Some(control.as_fd()),
            cgroup: group.map(AsFd::as_fd),
            ..CloneRequest::default()
        };
        let doing = || "enter the container's user namespace";
        middle::stand_between(doing, || {
            clone::join_process(entry.process, first).doing(doing)?;
            clone::clone_process(&request, || run(assignment, &entry)).doing(doing)
        })
    }
}

/// What the new process is given.
struct Assignment<'a> {
    plan: &'a ProcessPlan,
    /// The control groups that this process enters by itself.
    doors: Option<Doors>,
    filter: Option<seccomp::Program>,
    channel: Channel,
    console: Option<OwnedFd>,
    deny_groups: bool,
    preserve_fds: u32,
    extra_env: Vec<String>,
    new_keyring: bool,
    id: &'a str,
}

/// What of the container the new process has yet to enter.
struct Entry<'a> {
    process: &'a OwnedFd,
    kinds: NamespaceSet,
    /// It has come, or comes with these, to other users, whose root it has to become.
    users: bool,
}

fn run(mut assignment: Assignment<'_>, entry: &Entry<'_>) -> u8 {
    let error = match steps(&mut assignment, entry) {
        Ok(program) => program.execute(),
        Err(error) => error,
    };
    assignment.channel.failed(&error.sentence());
    1
}

fn steps(given: &mut Assignment<'_>, entry: &Entry<'_>) -> Result<Program, RuntimeError> {
    let plan = given.plan;
    if let Some(doors) = given.doors.take() {
        doors.enter()?;
    }
    if !entry.kinds.is_empty() {
        clone::join_process(entry.process, entry.kinds)
            .doing(|| "join the container's namespaces")?;
    }
    if entry.users {
        init::become_root(given.deny_groups)?;
    }
    rustix::process::setsid().doing(|| "begin a session")?;
    if given.new_keyring {
        init::join_keyring(given.id)?;
    }
    if let Some(processors) = &plan.cpu_affinity.last {
        confine::set_affinity(processors)?;
    }
    if let (Some(size), Some(console)) = (plan.terminal, &given.console) {
        let terminal = terminal::make(None, console, size, plan.uid)?;
        terminal::adopt(&terminal)?;
    } else {
        terminal::give_streams(plan.uid);
    }
    let proc = if plan.apparmor.is_some() || plan.selinux.is_some() {
        let fs = Fs::open("proc").doing(|| "open a procfs")?;
        Some(
            fs.mount(MountAttrFlags::empty())
                .doing(|| "open a procfs")?,
        )
    } else {
        None
    };
    label::prepare(plan, |path, flags| {
        super::rootfs::open_below_proc(proc.as_ref(), path, flags)
    })?;
    drop(proc);
    confine::limit(plan)?;
    let entered = match confine::enter_directory(&plan.cwd) {
        Ok(()) => true,
        Err(error) if error.is_access() => false,
        Err(error) => return Err(error),
    };
    let path = confine::find_program(plan)?;
    let mut extra = given.extra_env.clone();
    extra.extend(confine::home(plan));
    let program = Program::new(plan, path, extra)?;
    given
        .channel
        .wait_placed()
        .doing(|| "wait for the runtime")?;
    task::close_on_exec_from(3 + given.preserve_fds).doing(|| "close descriptors")?;
    filter::confine(
        plan,
        given.filter.as_ref(),
        given.deny_groups,
        entered,
        |fd| given.channel.listener(fd),
    )?;
    Ok(program)
}
