// SPDX-License-Identifier: Apache-2.0
//! The runtime's side of a new container: what `create` and `run` have in common.
//!
//! ```text
//! state directory ─ control group ─ handles ─ clone ─ place it ─ record ─ answer init ─ done
//! ```
//!
//! Everything made on the way is undone when a later step fails.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_sys::clone::{self, Child, CloneRequest, Namespace};
use gantry_sys::mount::{self, AttributeChange, Propagation};
use gantry_sys::proc::Proc;
use gantry_sys::{Errno, socket};
use oci_spec::runtime::{Hooks, Spec};
use rustix::process::{WaitOptions, waitpid};

use super::cgroup::{Driver, Entrance};
use super::channel::{self, Control, FromInit, ToInit};
use super::error::{Doing as _, RuntimeError};
use super::exec::Agent;
use super::groups::{self, Groups};
use super::init::{self, Assignment};
use super::plan::{self, Facts, Plan};
use super::resctrl::{self, Resctrl};
use super::rootfs::{self, Sources};
use super::state::{self, Record, START_SOCKET, StateDir, Status};
use super::{clocks, facts, hooks, idmap, terminal};

/// What every verb is told.
pub struct Context<'a> {
    /// Where containers are kept.
    pub root: PathBuf,
    /// Who makes control groups; nobody where the caller does without.
    pub cgroups: Option<Driver>,
    /// Without root's rights; decided by looking if not said.
    pub rootless: Option<bool>,
    /// Says what could be done only in part.
    pub warn: &'a dyn Fn(&str),
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("root", &self.root)
            .field("cgroups", &self.cgroups)
            .field("rootless", &self.rootless)
            .finish_non_exhaustive()
    }
}

/// What `create` and `run` are told.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The bundle; absolute.
    pub bundle: PathBuf,
    /// The document, where it is not the bundle's.
    pub config: Option<PathBuf>,
    /// Who gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// The root is an initial ramdisk, which cannot be pivoted.
    pub no_pivot: bool,
    /// The caller's session keyring is kept.
    pub no_new_keyring: bool,
    /// Variables that the program gets beside those of the document.
    pub extra_env: Vec<String>,
}

/// A document with the bytes that it was read from.
#[derive(Debug)]
pub struct Document {
    /// As it was read.
    pub bytes: Vec<u8>,
    /// What it says.
    pub spec: Spec,
}

/// A container whose first process is there.
#[derive(Debug)]
pub struct Launched {
    /// Its place on disk.
    pub state: StateDir,
    /// What is kept of it.
    pub record: Record,
    /// What its document says.
    pub spec: Spec,
    /// Its first process.
    pub child: Child,
}

/// Reads a document.
///
/// # Errors
/// It is not there, too large, or no document.
pub fn read_document(path: &Path) -> Result<Document, RuntimeError> {
    use std::io::Read as _;
    let failed = |source| RuntimeError::Document {
        path: path.to_owned(),
        source,
    };
    let most = gantry_oci::Limits::DEFAULT.runtime_document_bytes;
    // Most documents fit, with room to see the end.
    let mut bytes = Vec::with_capacity(16 << 10);
    std::fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(failed(std::io::Error::other(format!(
            "larger than {most} bytes"
        ))));
    }
    let spec = parse_document(&bytes).map_err(|error| failed(error.into()))?;
    Ok(Document { bytes, spec })
}

/// Reads a document that was kept.
pub(super) fn parse_document(bytes: &[u8]) -> serde_json::Result<Spec> {
    serde_json::from_slice(bytes)
}

/// Clones the mount of the root file system.
pub(super) fn clone_root(path: &Path) -> Result<OwnedFd, RuntimeError> {
    let doing = || format!("open the root file system {}", path.display());
    let clone = mount::clone_mount(path, true).doing(doing)?;
    // Below a shared mount, as on every host with systemd, it is a peer, into which nobody can pivot.
    let change = AttributeChange {
        propagation: Some(Propagation::Private),
        recursive: true,
        ..AttributeChange::default()
    };
    mount::set_attributes(&clone, &change).doing(doing)?;
    Ok(clone)
}

/// What is undone if the container does not come to be.
struct Undo<'a> {
    state: Option<StateDir>,
    resctrl: Option<Resctrl>,
    cgroup: Option<Groups>,
    child: Option<Child>,
    warn: &'a dyn Fn(&str),
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // It may have ended by itself.
            gantry_sys::signal::send(&child.pidfd, 9).ok();
            waitpid(Some(child.pid), WaitOptions::empty()).ok();
        }
        let undone = [
            self.resctrl.take().map(|class| class.remove()),
            self.cgroup.take().map(|groups| groups.delete()),
            self.state.take().map(StateDir::remove),
        ];
        for error in undone.into_iter().flatten().filter_map(Result::err) {
            (self.warn)(&error.sentence());
        }
    }
}

/// Makes a container up to the moment at which its program waits for `start` (`waits`), or runs. Without a
/// console socket a terminal is sent to `relay`.
///
/// # Errors
/// Anything on the way; nothing is left behind.
pub fn launch(
    context: &Context<'_>,
    id: &str,
    options: &CreateOptions,
    waits: bool,
    relay: Option<OwnedFd>,
) -> Result<Launched, RuntimeError> {
    state::check_id(id)?;
    let path = match &options.config {
        Some(path) => options.bundle.join(path),
        None => options.bundle.join("config.json"),
    };
    let document = read_document(&path)?;
    let facts = facts::probe(document.spec.process().as_ref(), context.rootless)?;
    let plan = plan::plan(&document.spec, &options.bundle, &facts)?;
    plan.warnings
        .iter()
        .for_each(|warning| (context.warn)(warning));
    let has_terminal = plan.process.terminal.is_some();
    match (&options.console_socket, has_terminal) {
        (None, true) if relay.is_none() => {
            return Err(RuntimeError::Usage(
                "the process wants a terminal: name a console socket".to_owned(),
            ));
        }
        (Some(_), false) => {
            return Err(RuntimeError::Usage(
                "a console socket, but the process wants no terminal".to_owned(),
            ));
        }
        _ => {}
    }

    let state = StateDir::create(&context.root, id)?;
    let mut undo = Undo {
        state: Some(state),
        resctrl: None,
        cgroup: None,
        child: None,
        warn: context.warn,
    };
    let mut record = new_record(id, &options.bundle, &document.spec, &plan);
    record.resctrl = resctrl::plan(&document.spec, id, resctrl::mounted)?;
    let groups = groups::plan(&document.spec, id, context, &facts)?;
    record.cgroup = groups.as_ref().map(Groups::to_json).transpose()?;
    {
        let state = undo
            .state
            .as_ref()
            .ok_or(Errno::INVAL)
            .doing(|| "keep the state")?;
        state.write_config(&document.bytes)?;
        state.write_record(&record)?;
    }
    undo.cgroup = groups.map(Groups::create).transpose()?;
    if let Some(class) = &record.resctrl {
        undo.resctrl = Some(class.clone());
        class.create()?;
    }

    let made = make(
        options,
        waits,
        relay,
        &document.spec,
        &plan,
        &facts,
        &mut record,
        &mut undo,
    );
    let child = made?;
    let state = undo
        .state
        .take()
        .ok_or(Errno::INVAL)
        .doing(|| "keep the state")?;
    undo.cgroup = None;
    undo.resctrl = None;
    Ok(Launched {
        state,
        record,
        spec: document.spec,
        child,
    })
}

/// What is known of a container before it has a process.
pub(super) fn new_record(id: &str, bundle: &Path, spec: &Spec, plan: &Plan) -> Record {
    let annotations = spec.annotations().iter().flatten();
    Record {
        oci_version: spec.version().clone(),
        id: id.to_owned(),
        pid: 0,
        bundle: bundle.to_owned(),
        rootfs: plan.rootfs.path.clone(),
        created: gantry_oci::rfc3339::format(
            rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec,
        ),
        owner: String::new(),
        annotations: annotations
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect::<BTreeMap<_, _>>(),
        start_time: 0,
        resctrl: None,
        cgroup: None,
    }
}

#[expect(clippy::too_many_arguments, reason = "one step of launch, named")]
fn make(
    options: &CreateOptions,
    waits: bool,
    relay: Option<OwnedFd>,
    spec: &Spec,
    plan: &Plan,
    facts: &Facts,
    record: &mut Record,
    undo: &mut Undo<'_>,
) -> Result<Child, RuntimeError> {
    let state = undo
        .state
        .as_ref()
        .ok_or(Errno::INVAL)
        .doing(|| "keep the state")?;
    let console = match &options.console_socket {
        Some(path) => Some(terminal::connect(path)?),
        None => relay,
    };
    let start = waits
        .then(|| socket::listen(state, START_SOCKET).doing(|| "offer a socket for start"))
        .transpose()?;
    let mut joined = Vec::new();
    for (kind, path) in plan.namespaces.joined() {
        let namespace = clone::open_namespace(path)
            .doing(|| format!("open the {} namespace {}", kind.link(), path.display()))?;
        joined.push((kind, namespace));
    }
    let (root, sources) = if facts.rootless {
        (None, Sources::new())
    } else {
        let sources = if plan.opens_early() {
            open_sources(plan)?
        } else {
            Sources::new()
        };
        (Some(clone_root(&plan.rootfs.path)?), sources)
    };
    let hooks = spec.hooks().as_ref();
    let runtime_hooks = hooks.is_some_and(|hooks| {
        [hooks.create_runtime(), prestart(hooks)]
            .iter()
            .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
    });
    let deny_groups = idmap::denies_groups(plan, facts);
    let (control, channel) = channel::pair().doing(|| "make a channel")?;
    let filter = super::filter::compile(spec)?;
    let listener = filter.as_ref().and_then(|program| program.listener.clone());
    let entrance = match &undo.cgroup {
        Some(groups) => groups.entrance()?,
        None => Entrance::Told,
    };
    let is_put_in_groups = undo.cgroup.is_some() && matches!(entrance, Entrance::Told);
    let assignment = Assignment {
        plan,
        hooks,
        record: record.clone(),
        channel,
        doors: None,
        is_put_in_groups,
        joined: Vec::new(),
        root,
        sources,
        console,
        start,
        filter,
        runtime_hooks,
        may_make_nodes: !facts.rootless && !facts.nested && !plan.namespaces.has_users(),
        makes_clocks: facts.rootless,
        deny_groups,
        no_pivot: options.no_pivot,
        new_keyring: !options.no_new_keyring,
        preserve_fds: options.preserve_fds,
        extra_env: options.extra_env.clone(),
    };
    if !facts.rootless {
        not_dumpable()?;
    }
    let child = clone_init(plan, joined, assignment, entrance, &control)?;
    record.pid = child.pid.as_raw_nonzero().get().unsigned_abs();
    undo.child = Some(child);
    if let Some(groups) = &mut undo.cgroup {
        if is_put_in_groups {
            groups.join(record.pid)?;
            record.cgroup = Some(groups.to_json()?);
        }
        groups.notes().iter().for_each(|note| (undo.warn)(note));
    }
    let settled = settle(options, plan, facts, deny_groups, record, undo);
    // Init works meanwhile: if it has ended, nothing else can be done with it, and it has said why.
    settled.map_err(|error| control.reason_of_end().map_or(error, RuntimeError::Init))?;
    control
        .send(ToInit::Placed(record.pid))
        .doing(|| "talk to init")?;
    let agent = Agent {
        listener,
        record,
        status: Status::Creating,
    };
    follow(&control, hooks, &agent, waits, undo)?;
    undo.child.take().ok_or(Errno::INVAL).doing(|| "keep init")
}

pub(super) fn set_oom_score(pid: u32, score: i32) -> Result<(), RuntimeError> {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
        .doing(|| format!("set the OOM score to {score}"))
}

/// What only the runtime can do for a first process that is there.
fn settle(
    options: &CreateOptions,
    plan: &Plan,
    facts: &Facts,
    deny_groups: bool,
    record: &mut Record,
    undo: &Undo<'_>,
) -> Result<(), RuntimeError> {
    idmap::apply(plan, record.pid, deny_groups)?;
    if facts.rootless {
        not_dumpable()?;
    }
    if let Some(score) = plan.process.oom_score_adj {
        set_oom_score(record.pid, score)?;
    }
    if let Some(class) = &record.resctrl {
        class.join(record.pid)?;
    }
    super::network::move_devices(plan, record.pid)?;
    record.start_time = Proc::open()
        .and_then(|proc| proc.start_time(record.pid))
        .doing(|| "look at init")?
        .unwrap_or(0);
    let state = undo
        .state
        .as_ref()
        .ok_or(Errno::INVAL)
        .doing(|| "keep the state")?;
    state.write_record(record)?;
    if let Some(path) = &options.pid_file {
        state::write_pid_file(path, record.pid)?;
    }
    Ok(())
}

fn prestart(hooks: &Hooks) -> &Option<Vec<oci_spec::runtime::Hook>> {
    hooks.prestart()
}

/// Answers init until it is where it shall be.
fn follow(
    control: &Control,
    hooks: Option<&Hooks>,
    agent: &Agent<'_>,
    waits: bool,
    undo: &mut Undo<'_>,
) -> Result<(), RuntimeError> {
    let record = agent.record;
    loop {
        match control.receive().doing(|| "listen to init")? {
            FromInit::Prepared => {
                if let Some(hooks) = hooks {
                    let state = state_bytes(record, Status::Creating)?;
                    let bundle = Some(record.bundle.as_path());
                    hooks::run("prestart", prestart(hooks).as_ref(), &state, bundle)?;
                    hooks::run(
                        "createRuntime",
                        hooks.create_runtime().as_ref(),
                        &state,
                        bundle,
                    )?;
                }
                control.send(ToInit::GoOn).doing(|| "talk to init")?;
            }
            FromInit::Listener(listener) => agent.hand_over(record.pid, &listener)?,
            FromInit::Ready => return Ok(()),
            FromInit::Failed(sentence) => return Err(RuntimeError::Init(sentence)),
            FromInit::Closed if waits => return Err(died(undo)),
            FromInit::Closed => {
                // The channel of a program that runs is closed by its execution; that of a process
                // which was killed, too.
                return Ok(());
            }
        }
    }
}

fn died(undo: &mut Undo<'_>) -> RuntimeError {
    let status = undo.child.take().and_then(|child| {
        let (_, status) = waitpid(Some(child.pid), WaitOptions::empty()).ok()??;
        Some(format!("{status:?}"))
    });
    RuntimeError::Died(status.unwrap_or_else(|| "no status".to_owned()))
}

/// The container's state for hooks.
///
/// # Errors
/// None that a state can have.
pub fn state_bytes(record: &Record, status: Status) -> Result<Vec<u8>, RuntimeError> {
    serde_json::to_vec(&record.document(status))
        .map_err(std::io::Error::from)
        .doing(|| "describe the container")
}

fn open_sources(plan: &Plan) -> Result<Sources, RuntimeError> {
    let mut sources = Sources::new();
    for (index, step) in plan.mounts.iter().enumerate() {
        let users = idmap::users_of(plan, step)?;
        if let Some(source) = rootfs::open_source(
            step,
            users.as_ref().map(|namespace| namespace.as_fd()),
            true,
        )? {
            sources.insert(index, source);
        }
    }
    Ok(sources)
}

/// Nobody in the container may look into what is still the runtime.
pub(super) fn not_dumpable() -> Result<(), RuntimeError> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .doing(|| "protect this process")
}

/// Clones, by way of whatever the namespaces need.
fn clone_init(
    plan: &Plan,
    joined: Vec<(Namespace, OwnedFd)>,
    mut assignment: Assignment<'_>,
    entrance: Entrance,
    control: &Control,
) -> Result<Child, RuntimeError> {
    let doing = || "clone the container's first process";
    let (group, doors) = entrance.split();
    assignment.doors = doors;
    let users_joined = plan.namespaces.is_joined(Namespace::User);
    let mut pid_namespace = None;
    let mut rest = Vec::new();
    for (kind, namespace) in joined {
        if kind == Namespace::Pid && !users_joined {
            pid_namespace = Some(namespace);
        } else {
            rest.push((kind, namespace));
        }
    }
    if users_joined {
        return super::middle::clone_in_users(plan, rest, assignment, group, control);
    }
    assignment.joined = rest;
    let own_time = plan.namespaces.is_private(Namespace::Time) && !assignment.makes_clocks;
    let request = CloneRequest {
        new: plan.namespaces.cloned(),
        cgroup: group.as_ref().map(AsFd::as_fd),
        sibling: false,
        closed: Some(control.as_fd()),
    };
    let go = || clone::clone_process(&request, || init::run(assignment)).doing(doing);
    let go = || {
        let Some(namespace) = &pid_namespace else {
            return go();
        };
        // Only children are in it; those after init shall be where we are.
        let own = clone::open_namespace("/proc/self/ns/pid".as_ref()).doing(doing)?;
        clone::join(namespace, Namespace::Pid).doing(|| "join the pid namespace")?;
        let child = go();
        clone::join(&own, Namespace::Pid).doing(|| "leave the pid namespace")?;
        child
    };
    if own_time {
        clocks::around(&plan.namespaces, go)
    } else {
        go()
    }
}
