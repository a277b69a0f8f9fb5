// SPDX-License-Identifier: Apache-2.0
//! The container's first process, from its clone to its program.
//!
//! One straight line. Everything was decided before the clone; what fails is told over the channel,
//! with the step that failed, and ends the process. When the runtime is gone, so is this.
//!
//! # Source
//! runtime-spec 1.2 "Lifecycle"; `namespaces(7)`, `pivot_root(2)`, `capabilities(7)`.

use std::collections::btree_map::Entry;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use gantry_sys::clone::{self, Namespace};
use gantry_sys::mount::{self, AttributeChange, MountAttrFlags, Propagation};
use gantry_sys::root::TargetKind;
use gantry_sys::{Errno, socket, task};
use oci_spec::runtime::Hooks;
use rustix::event::{PollFd, PollFlags, poll};

use super::cgroup::Doors;
use super::channel::Channel;
use super::confine::{self, Program};
use super::error::{Doing as _, RuntimeError};
use super::plan::Plan;
use super::rootfs::{self, Rootfs, Sources};
use super::state::{Record, Status};
use super::{hooks, label, terminal};

/// Everything that init is given.
#[derive(Debug)]
pub(super) struct Assignment<'a> {
    pub plan: &'a Plan,
    pub hooks: Option<&'a Hooks>,
    pub record: Record,
    pub channel: Channel,
    /// The control groups that this process enters by itself.
    pub doors: Option<Doors>,
    /// The runtime puts this process into its control groups: nothing that shows them may be made before.
    pub is_put_in_groups: bool,
    /// Namespaces that are joined here.
    pub joined: Vec<(Namespace, OwnedFd)>,
    /// The clone of the root's mount; none if this process has to make it.
    pub root: Option<OwnedFd>,
    /// Clones of what binds show; those that are missing are made here.
    pub sources: Sources,
    /// Whom the terminal goes to.
    pub console: Option<OwnedFd>,
    /// Where `start` will knock; none goes on at once.
    pub start: Option<OwnedFd>,
    /// The filter of system calls.
    pub filter: Option<super::seccomp::Program>,
    /// The runtime waits for the mounts, to run hooks.
    pub runtime_hooks: bool,
    /// This process may make device nodes.
    pub may_make_nodes: bool,
    /// The runtime could not make the time namespace.
    pub makes_clocks: bool,
    /// The user namespace does not let groups be set.
    pub deny_groups: bool,
    pub no_pivot: bool,
    pub new_keyring: bool,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// Variables of socket activation.
    pub extra_env: Vec<String>,
}

/// Whom failures are told.
enum Listener {
    /// The runtime that made us.
    Runtime(Channel),
    /// The runtime that started us.
    Starter(OwnedFd),
}

impl Listener {
    fn failed(&self, sentence: &str) {
        match self {
            Self::Runtime(channel) => channel.failed(sentence),
            Self::Starter(connection) => {
                let mut to = std::fs::File::from(match connection.try_clone() {
                    Ok(connection) => connection,
                    Err(_) => return,
                });
                to.write_all(format!("F{sentence}").as_bytes()).ok();
            }
        }
    }
}

/// Becomes the container's program, or ends.
pub(super) fn run(assignment: Assignment<'_>) -> u8 {
    let new_keyring = assignment.new_keyring;
    let prepared = match prepare(assignment, new_keyring) {
        Ok(prepared) => prepared,
        Err((channel, error)) => {
            channel.failed(&error.sentence());
            return 1;
        }
    };
    let (error, listener) = begin(prepared);
    listener.failed(&error.sentence());
    1
}

/// What is left to do once everything is in place.
struct Prepared<'a> {
    assignment: Assignment<'a>,
    program: Program,
    entered: bool,
}

/// From the clone to the moment at which `create` is done.
fn prepare(
    mut given: Assignment<'_>,
    new_keyring: bool,
) -> Result<Prepared<'_>, (Channel, RuntimeError)> {
    match steps(&mut given, new_keyring) {
        Ok((program, entered)) => Ok(Prepared {
            assignment: given,
            program,
            entered,
        }),
        Err(error) => Err((given.channel, error)),
    }
}

fn steps(given: &mut Assignment<'_>, new_keyring: bool) -> Result<(Program, bool), RuntimeError> {
    let plan = given.plan;
    let process = &plan.process;
    let own = |kind| plan.namespaces.is_private(kind);
    let mut placed = false;

    // First of all, so that all that is made here is counted.
    if let Some(doors) = given.doors.take() {
        doors.enter()?;
    }
    // Namespaces of others, the user namespace first: it decides about the rest.
    for (kind, namespace) in std::mem::take(&mut given.joined) {
        clone::join(&namespace, kind).doing(|| format!("join the {} namespace", kind.link()))?;
    }
    // In a new user namespace we are nobody until the runtime has said who is who.
    if plan.namespaces.has_users() {
        wait_until_placed(given, &mut placed)?;
        // Whoever made a namespace that is joined decided about groups.
        given.deny_groups |= plan.namespaces.is_joined(Namespace::User)
            && std::fs::read_to_string("/proc/self/setgroups")
                .is_ok_and(|text| text.trim() == "deny");
        become_root(given.deny_groups)?;
    }
    if own(Namespace::Ipc) && own(Namespace::User) {
        clone::unshare([Namespace::Ipc].into_iter().collect()).doing(|| "make an IPC namespace")?;
    }
    rustix::process::setsid().doing(|| "begin a session")?;
    if new_keyring {
        join_keyring(&given.record.id)?;
    }
    if own(Namespace::Time) && given.makes_clocks {
        super::clocks::make(&plan.namespaces)?;
    }
    if own(Namespace::Network) {
        task::interface_up("lo").doing(|| "switch the loopback interface on")?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).doing(|| format!("set hostname {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .doing(|| format!("set domainname {name:?}"))?;
    }

    // What of the host is shown, while its mounts are still what they are outside.
    if plan.opens_early() {
        for (index, step) in plan.mounts.iter().enumerate() {
            if let Entry::Vacant(place) = given.sources.entry(index) {
                if let Some(source) = rootfs::open_source(step, None, true)? {
                    place.insert(source);
                }
            }
        }
    }
    let root = match given.root.take() {
        Some(root) => root,
        None => super::launch::clone_root(&plan.rootfs.path)?,
    };
    let null = rootfs::open_null()?;
    let mut rootfs = if plan.namespaces.has_mounts() {
        mount::set_root_propagation(Propagation::Private).doing(|| "keep mounts from the host")?;
        Rootfs::attach(root)?
    } else {
        Rootfs::detached(root)?
    };

    // The control group's namespace begins where the process is.
    if given.is_put_in_groups {
        wait_until_placed(given, &mut placed)?;
    }
    if own(Namespace::Cgroup) {
        clone::unshare([Namespace::Cgroup].into_iter().collect())
            .doing(|| "make a cgroup namespace")?;
    }

    // Nothing masks the modes that the document asks for.
    rustix::process::umask(rustix::fs::Mode::empty());
    for (index, step) in plan.mounts.iter().enumerate() {
        let source = match given.sources.remove(&index) {
            None => rootfs::open_source(step, None, false)?,
            early => early,
        };
        rootfs.mount(step, source)?;
    }
    for step in &plan.devices {
        rootfs.device(step, given.may_make_nodes)?;
    }
    for step in &plan.links {
        rootfs.link(step)?;
    }
    if let (Some(size), Some(console)) = (process.terminal, given.console.take()) {
        let terminal = terminal::make(rootfs.devpts(), &console, size, process.uid)?;
        terminal::adopt(&terminal)?;
        rootfs.bind_console(&terminal)?;
    } else {
        terminal::give_streams(process.uid);
        terminal::own_null(|| rootfs.open_null())?;
    }
    // A directory that is missing is made, as every runtime does.
    rootfs
        .ensure(&process.cwd, TargetKind::Directory, false)
        .doing(|| format!("make directory {}", process.cwd.display()))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));

    // What the runtime did meanwhile: scores, network devices, what is kept of the container.
    wait_until_placed(given, &mut placed)?;

    // Hooks that see the mounts and still the host.
    if given.runtime_hooks {
        given.channel.prepared().doing(|| "talk to the runtime")?;
        given
            .channel
            .wait_go_on()
            .doing(|| "wait for the runtime's hooks")?;
    }
    if plan.namespaces.has_mounts() && given.hooks.is_some_and(has_create_container) {
        rootfs.show_at(&plan.rootfs.path)?;
    }
    run_hooks(
        given,
        "createContainer",
        Hooks::create_container,
        Status::Creating,
    )?;

    rootfs.close()?;
    for step in &plan.sysctls {
        rootfs.sysctl(step)?;
    }
    for step in &plan.readonly_paths {
        rootfs.make_readonly(step)?;
    }
    for step in &plan.masked_paths {
        rootfs.mask(step, &null)?;
    }
    label::prepare(process, |path, flags| rootfs.open_proc(path, flags))?;

    // The old root goes.
    if !plan.namespaces.has_mounts() {
        mount::enter(rootfs.as_mount()).doing(|| "enter the root file system")?;
    } else if given.no_pivot {
        mount::move_into(rootfs.as_mount()).doing(|| "move into the root file system")?;
    } else {
        mount::pivot_into(rootfs.as_mount()).doing(|| "pivot into the root file system")?;
    }
    let change = AttributeChange {
        set: if plan.rootfs.readonly {
            MountAttrFlags::MOUNT_ATTR_RDONLY
        } else {
            MountAttrFlags::empty()
        },
        propagation: plan.rootfs.propagation,
        ..AttributeChange::default()
    };
    if plan.rootfs.readonly || plan.rootfs.propagation.is_some() {
        mount::set_attributes(rootfs.as_mount(), &change).doing(|| "finish the root's mount")?;
    }
    drop((rootfs, null));

    confine::limit(process)?;
    // As root, since the user may have to be let in; again as the user if that fails.
    let entered = match confine::enter_directory(&process.cwd) {
        Ok(()) => true,
        Err(error) if error.is_access() => false,
        Err(error) => return Err(error),
    };
    let path = confine::find_program(process)?;
    let mut extra = std::mem::take(&mut given.extra_env);
    extra.extend(confine::home(process));
    let program = Program::new(process, path, extra)?;
    Ok((program, entered))
}

/// From the moment of `start` to the program; answers only why not.
fn begin(prepared: Prepared<'_>) -> (RuntimeError, Listener) {
    let Prepared {
        assignment: mut given,
        program,
        entered,
    } = prepared;
    if let Some(start) = given.start.take() {
        if let Err(error) = given.channel.ready().doing(|| "talk to the runtime") {
            return (error, Listener::Runtime(given.channel));
        }
        match wait_for_start(&start) {
            Ok(connection) => {
                drop(start);
                let error = confine_and_execute(&given, &program, entered);
                (error, Listener::Starter(connection))
            }
            Err(error) => (error, Listener::Runtime(given.channel)),
        }
    } else {
        let error = confine_and_execute(&given, &program, entered);
        (error, Listener::Runtime(given.channel))
    }
}

fn confine_and_execute(given: &Assignment<'_>, program: &Program, entered: bool) -> RuntimeError {
    match confined(given, entered) {
        Ok(()) => program.execute(),
        Err(error) => error,
    }
}

fn confined(given: &Assignment<'_>, entered: bool) -> Result<(), RuntimeError> {
    let process = &given.plan.process;
    run_hooks(
        given,
        "startContainer",
        Hooks::start_container,
        Status::Created,
    )?;
    task::close_on_exec_from(3 + given.preserve_fds).doing(|| "close descriptors")?;
    super::filter::confine(
        process,
        given.filter.as_ref(),
        given.deny_groups,
        entered,
        |fd| given.channel.listener(fd),
    )
}

fn wait_until_placed(given: &mut Assignment<'_>, placed: &mut bool) -> Result<(), RuntimeError> {
    if !*placed {
        given.record.pid = given
            .channel
            .wait_placed()
            .doing(|| "wait for the runtime")?;
        *placed = true;
    }
    Ok(())
}

/// In a new user namespace: its root, where it has one.
pub(super) fn become_root(deny_groups: bool) -> Result<(), RuntimeError> {
    use rustix::process::{Gid, Uid};
    let doing = || "become root of the user namespace";
    let ignore_unmapped = |outcome: rustix::io::Result<()>| match outcome {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    };
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    if !deny_groups {
        ignore_unmapped(rustix::thread::set_thread_groups(&[])).doing(doing)?;
    }
    ignore_unmapped(rustix::thread::set_thread_res_gid(gid, gid, gid)).doing(doing)?;
    ignore_unmapped(rustix::thread::set_thread_res_uid(uid, uid, uid)).doing(doing)
}

pub(super) fn join_keyring(id: &str) -> Result<(), RuntimeError> {
    let name = std::ffi::CString::new(format!("_ses.{id}")).map_err(std::io::Error::from);
    let name = name.doing(|| "name the keyring")?;
    match task::join_new_keyring(&name) {
        // Kernels without keys, and hosts whose filter or quota forbids them: there is nothing to share.
        Err(error)
            if [Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::DQUOT]
                .iter()
                .any(|errno| error.is(*errno)) =>
        {
            Ok(())
        }
        other => other.doing(|| "join a new keyring"),
    }
}

fn has_create_container(hooks: &Hooks) -> bool {
    let list = hooks.create_container().as_ref();
    list.is_some_and(|list| !list.is_empty())
}

fn run_hooks(
    given: &Assignment<'_>,
    stage: &'static str,
    of_stage: impl Fn(&Hooks) -> &Option<Vec<oci_spec::runtime::Hook>>,
    status: Status,
) -> Result<(), RuntimeError> {
    let Some(list) = given.hooks.and_then(|hooks| of_stage(hooks).as_ref()) else {
        return Ok(());
    };
    let state = serde_json::to_vec(&given.record.document(status))
        .map_err(std::io::Error::from)
        .doing(|| "describe the container")?;
    // Its directory is that of the bundle as long as there is one to see.
    let bundle = (status == Status::Creating).then_some(given.record.bundle.as_path());
    hooks::run(stage, Some(list), &state, bundle)
}

fn wait_for_start(start: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    let doing = || "wait for start";
    loop {
        let mut fds = [PollFd::new(start, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.doing(doing)?,
        };
        match socket::accept(start) {
            Err(error) if error.is(Errno::AGAIN) => {}
            other => {
                let connection = other.doing(doing)?;
                rustix::io::write(&connection, b"S").doing(doing)?;
                return Ok(connection);
            }
        }
    }
}
