// SPDX-License-Identifier: Apache-2.0
//! `restore`: files become a container's processes again.
//!
//! ```text
//! runtime                                    between                        CRIU, by execution of it
//!   state, control groups ── clone ─────►    waits
//!   put it into the groups ── byte ─────►    cgroup namespace, private mounts,
//!                                            root mounted ─────────────────► makes the first process
//!   ◄──────────────────────────────────────────────────────── it is our own child; CRIU ends
//! ```

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_sys::clone::{self, Child, CloneRequest, Namespace};
use gantry_sys::mount;
use gantry_sys::proc::Proc;
use gantry_sys::root::{RootDir, TargetKind};
use gantry_sys::task::{self, Words};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::super::delete;
use super::super::error::{Doing as _, RuntimeError};
use super::super::facts;
use super::super::foreground::Foreground;
use super::super::groups::{self, Groups};
use super::super::launch::{self, Context, CreateOptions};
use super::super::plan::{self, MountKind, Plan};
use super::super::run::RunMode;
use super::super::state::{self, StateDir};
use super::words::{self, RESTORE_LOG, Restore};
use super::{CriuOptions, DESCRIPTORS, failed};

/// What `restore` is told beside.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// An AppArmor or SELinux profile in place of the one of the images.
    pub lsm_profile: Option<String>,
    /// A context for mounts likewise.
    pub lsm_mount_context: Option<String>,
}

/// Where the root is mounted meanwhile, below the container's state.
const ROOT: &str = "criu-root";
const PID: &str = "criu.pid";
/// Where CRIU puts the old root for a moment.
const SCRATCH: &str = "/tmp";

/// Restores a container; answers the status of its program, 0 if detached.
///
/// # Errors
/// There is one of that id; CRIU is not there, or refuses. Nothing is left behind.
pub fn restore(
    context: &Context<'_>,
    id: &str,
    create: &CreateOptions,
    mode: RunMode,
    options: &CriuOptions,
    wanted: &RestoreOptions,
    search: &[PathBuf],
) -> Result<u8, RuntimeError> {
    state::check_id(id)?;
    let path = create.config.as_ref().map_or_else(
        || create.bundle.join("config.json"),
        |path| create.bundle.join(path),
    );
    let document = launch::read_document(&path)?;
    let facts = facts::probe(document.spec.process().as_ref(), context.rootless)?;
    if facts.rootless {
        return Err(RuntimeError::Unsupported(
            "checkpoint and restore take root's rights",
        ));
    }
    let plan = plan::plan(&document.spec, &create.bundle, &facts)?;
    let program = options.find(search)?;
    if create.console_socket.is_some() || plan.process.terminal.is_some() {
        return Err(RuntimeError::Unsupported(
            "a container with a terminal cannot be restored",
        ));
    }
    let linux = document.spec.linux().as_ref();
    if linux.is_some_and(|linux| linux.intel_rdt().is_some()) {
        return Err(RuntimeError::Unsupported(
            "a container in a class of resctrl cannot be restored yet",
        ));
    }
    if document.spec.hooks().is_some() {
        (context.warn)("hooks are not run when a container is restored, but for poststop");
    }
    let foreground = if mode.detach {
        None
    } else {
        Some(Foreground::begin()?)
    };
    let mut made = Made {
        state: Some(StateDir::create(&context.root, id)?),
        groups: None,
        child: None,
        warn: context.warn,
    };
    let mut record = launch::new_record(id, &create.bundle, &document.spec, &plan);
    let groups = groups::plan(&document.spec, id, context, &facts)?;
    record.cgroup = groups.as_ref().map(Groups::to_json).transpose()?;
    made.state()?.write_config(&document.bytes)?;
    made.state()?.write_record(&record)?;
    made.groups = groups.map(Groups::create).transpose()?;
    let dir = context.root.join(id);
    let child = run_criu(&program, &dir, &plan, options, wanted, &mut made)?;
    record.pid = child.pid.as_raw_nonzero().get().unsigned_abs();
    if let Some(groups) = &made.groups {
        record.cgroup = Some(groups.to_json()?);
    }
    made.child = Some(child);
    record.start_time = Proc::open()
        .and_then(|proc| proc.start_time(record.pid))
        .doing(|| "look at the restored process")?
        .unwrap_or(0);
    made.state()?.write_record(&record)?;
    if let Some(path) = &create.pid_file {
        state::write_pid_file(path, record.pid)?;
    }
    let (Some(state), Some(child)) = (made.state.take(), made.child.take()) else {
        return Err(gantry_sys::Errno::INVAL).doing(|| "keep the state");
    };
    made.groups = None;
    let Some(foreground) = foreground else {
        return Ok(0);
    };
    let status = foreground.wait(&child)?;
    if !mode.keep {
        delete::remove(context, state, &record, document.spec.hooks().as_ref())?;
    }
    Ok(status)
}

/// What is undone when a later step fails.
struct Made<'a> {
    state: Option<StateDir>,
    groups: Option<Groups>,
    child: Option<Child>,
    warn: &'a dyn Fn(&str),
}

impl Made<'_> {
    fn state(&self) -> Result<&StateDir, RuntimeError> {
        self.state
            .as_ref()
            .ok_or(gantry_sys::Errno::INVAL)
            .doing(|| "keep the state")
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // It may have ended by itself.
            gantry_sys::signal::send(&child.pidfd, 9).ok();
            waitpid(Some(child.pid), WaitOptions::empty()).ok();
        }
        let undone = [
            self.groups.take().map(|groups| groups.delete()),
            self.state.take().map(StateDir::remove),
        ];
        for error in undone.into_iter().flatten().filter_map(Result::err) {
            (self.warn)(&error.sentence());
        }
    }
}

/// Lets CRIU make the processes; answers the first.
fn run_criu(
    program: &Path,
    dir: &Path,
    plan: &Plan,
    options: &CriuOptions,
    wanted: &RestoreOptions,
    made: &mut Made<'_>,
) -> Result<Child, RuntimeError> {
    prepare_root(plan)?;
    let (root, pid_file) = (dir.join(ROOT), dir.join(PID));
    std::fs::create_dir(&root).doing(|| format!("create {}", root.display()))?;
    std::fs::create_dir_all(options.work())
        .doing(|| format!("create {}", options.work().display()))?;
    let mut outside: Vec<(Namespace, OwnedFd)> = Vec::new();
    for (kind, path) in words::joined(plan)? {
        let namespace = clone::open_namespace(path)
            .doing(|| format!("open the {} namespace {}", kind.link(), path.display()))?;
        outside.push((kind, namespace));
    }
    let numbers: Vec<_> = outside
        .iter()
        .map(|(kind, fd)| (*kind, fd.as_raw_fd()))
        .collect();
    let streams = read_streams(&options.images)?;
    let words = words::restore(
        options,
        plan,
        &Restore {
            root: &root,
            pid_file: &pid_file,
            streams: &streams,
            outside: &numbers,
            lsm_profile: wanted.lsm_profile.as_deref(),
            lsm_mount_context: wanted.lsm_mount_context.as_deref(),
        },
    );
    let command = Command::new(program, words)?;
    let doing = || "clone the process that becomes CRIU";
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(doing)?;
    let (mut go, mut told) = (File::from(writer), File::from(reader));
    let between = clone::clone_process(&CloneRequest::default(), || {
        let outcome = become_criu(plan, &root, &outside, &mut told, &command);
        // Nobody else hears it: what CRIU says goes to its log.
        std::io::stderr()
            .write_all(format!("{}\n", outcome.sentence()).as_bytes())
            .ok();
        1
    })
    .doing(doing)?;
    let pid = between.pid.as_raw_nonzero().get().unsigned_abs();
    let placed = match &mut made.groups {
        Some(groups) => groups.join(pid),
        None => Ok(()),
    };
    if placed.is_ok() {
        go.write_all(b"g").doing(doing)?;
    }
    drop(go);
    let ended = waitpid(Some(between.pid), WaitOptions::empty()).doing(doing)?;
    placed?;
    std::fs::remove_dir(&root).doing(|| format!("remove {}", root.display()))?;
    if ended.is_none_or(|(_, status)| status.exit_status() != Some(0)) {
        return Err(failed("restore the container", options, RESTORE_LOG));
    }
    let pid = std::fs::read_to_string(&pid_file).doing(|| "read the pid that CRIU left")?;
    let found = pid.trim().parse().ok().and_then(Pid::from_raw);
    let pid = found
        .ok_or(gantry_sys::Errno::SRCH)
        .doing(|| "read the pid that CRIU left")?;
    // Our own child, which nobody else can reap.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(|| "hold the restored process")?;
    Ok(Child { pid, pidfd })
}

/// The program and its words, ready before there is a process that needs them.
struct Command {
    path: std::ffi::CString,
    args: Words,
    env: Words,
}

impl Command {
    fn new(program: &Path, words: Vec<String>) -> Result<Self, RuntimeError> {
        use std::os::unix::ffi::OsStrExt as _;
        let word = |bytes: &[u8]| {
            std::ffi::CString::new(bytes)
                .map_err(std::io::Error::from)
                .doing(|| "read CRIU's arguments")
        };
        let path = word(program.as_os_str().as_bytes())?;
        let mut args = vec![path.clone()];
        for text in words {
            args.push(word(text.as_bytes())?);
        }
        let env = std::env::var_os("PATH").unwrap_or_default();
        let search = [b"PATH=", env.as_bytes()].concat();
        Ok(Self {
            path,
            args: Words::new(args),
            env: Words::new(vec![word(&search)?]),
        })
    }
}

/// The process between, until it is CRIU; answers only why not.
fn become_criu(
    plan: &Plan,
    root: &Path,
    outside: &[(Namespace, OwnedFd)],
    told: &mut File,
    command: &Command,
) -> RuntimeError {
    let mut steps = || -> Result<(), RuntimeError> {
        let mut byte = [0];
        told.read_exact(&mut byte)
            .doing(|| "wait for the runtime")?;
        if plan.namespaces.is_private(Namespace::Cgroup) {
            clone::unshare([Namespace::Cgroup].into_iter().collect())
                .doing(|| "make a cgroup namespace")?;
        }
        mount::enter_private_namespace().doing(|| "keep mounts from the host")?;
        let clone = launch::clone_root(&plan.rootfs.path)?;
        mount::attach(&clone, root).doing(|| format!("mount the root at {}", root.display()))?;
        for (_, namespace) in outside {
            rustix::io::fcntl_setfd(namespace, rustix::io::FdFlags::empty())
                .doing(|| "pass a namespace on")?;
        }
        task::reset_signals().doing(|| "reset signals")
    };
    match steps() {
        Ok(()) => RuntimeError::Kernel {
            doing: "become CRIU".to_owned(),
            source: task::execute(&command.path, &command.args, &command.env),
        },
        Err(error) => error,
    }
}

/// Makes what CRIU mounts on, as the runtime does for a new container: the root may be a fresh one.
fn prepare_root(plan: &Plan) -> Result<(), RuntimeError> {
    let root = RootDir::open_trusted(&plan.rootfs.path)
        .doing(|| format!("open the root file system {}", plan.rootfs.path.display()))?;
    let above = |path: &Path| {
        plan.mounts.iter().any(|step| {
            step.target != path && path.starts_with(&step.target) && step.target != Path::new("/")
        })
    };
    for step in plan.mounts.iter().filter(|step| !above(&step.target)) {
        let is_file = matches!(&step.kind, MountKind::Bind { source, .. } if source.is_file());
        let kind = if is_file {
            TargetKind::File
        } else {
            TargetKind::Directory
        };
        ensure(&root, &step.target, kind)?;
    }
    ensure(&root, Path::new(SCRATCH), TargetKind::Directory)
}

fn ensure(root: &RootDir, path: &Path, kind: TargetKind) -> Result<(), RuntimeError> {
    use std::os::unix::ffi::OsStrExt as _;
    root.ensure_target(path.as_os_str().as_bytes(), kind, false)
        .doing(|| format!("make {} in the root file system", path.display()))
        .map(drop)
}

fn read_streams(images: &Path) -> Result<Vec<String>, RuntimeError> {
    let path = images.join(DESCRIPTORS);
    let bytes = match std::fs::read(&path) {
        // Images that another program made may do without.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("read {}", path.display()))?,
    };
    serde_json::from_slice(&bytes)
        .map_err(std::io::Error::from)
        .doing(|| format!("read {}", path.display()))
}
