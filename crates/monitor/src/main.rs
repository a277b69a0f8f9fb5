// SPDX-License-Identifier: Apache-2.0
//! The supervisor of one container.
//!
//! ```text
//! gantry run ── spawn, socket on descriptor 0 ──► gantry-monitor ID
//!    1. leaves the caller's session; becomes the reaper of whatever the runtime leaves behind
//!    2. receives its plan and four descriptors                       [main]
//!    3. private mount namespace, rootfs, volumes, config.json        [stage]
//!    4. the OCI runtime, the terminal                                [start]
//!    5. one poll loop: output, input, signals, the end               [relay]
//!    6. removes what was made, says how it ended
//! ```
//!
//! It has one thread. Killing whoever started it does not touch the container. Whatever kills *it*
//! leaves nothing mounted (its namespace goes with it) and frees the lock, by which others see that
//! the container is lost.
#![forbid(unsafe_code)]

mod log;
mod relay;
mod stage;
mod start;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::SystemTime;

use gantry_runtime::container::{ExitRecord, Home, ProcessRecord, unix_seconds};
use gantry_runtime::driver::CommandLine;
use gantry_runtime::prepare::PrepareError;
use gantry_runtime::supervise::{
    Exit, FailureReason, MESSAGE_MAX_BYTES, MonitorPlan, PLAN_MAX_BYTES, Report, Request,
    StartFailure, decode, encode,
};
use gantry_sys::proc::Proc;
use gantry_sys::signal::SignalFd;
use gantry_sys::{SysError, socket};

/// What somebody may send to stop us is read, and passed on to the container: hang-up, interrupt,
/// quit, the two of users, terminate.
const SIGNALS: [u8; 6] = [1, 2, 3, 10, 12, 15];

/// Ends the monitor before there is anybody who could be told.
const USAGE: u8 = 2;
/// The status of a failure of ours, as podman's users know it.
const OURS: u8 = 125;

const READ_ONLY_HINT: &str = "the container's root is read-only: --tmpfs DIR or --volume HOST:DIR give the program \
     a place to write, --writable a layer of its own";

/// Why the program never ran.
#[derive(Debug)]
pub(crate) struct Failure(StartFailure);

impl Failure {
    fn new(status: u8, reason: FailureReason, message: String) -> Self {
        Self(StartFailure {
            status,
            reason,
            message,
            hint: None,
        })
    }

    /// The kernel, the runtime or the plan stands in the way.
    fn refused(doing: &str, error: &dyn std::error::Error) -> Self {
        let mut message = format!("{doing}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::new(OURS, FailureReason::Refused, message)
    }

    fn hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(hint.to_owned());
        self
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        let (status, reason) = match &error {
            PrepareError::NoProgram { .. } => (127, FailureReason::NotFound),
            PrepareError::NotExecutable { .. } => (126, FailureReason::Invalid),
            PrepareError::Identity(_) => (OURS, FailureReason::NotFound),
            PrepareError::TooLarge { .. } | PrepareError::Reserved { .. } => {
                (OURS, FailureReason::Unsafe)
            }
            _ => return Self::refused("prepare the container", &error),
        };
        let mut message = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            message.push_str(&format!(": {cause}"));
        }
        Self::new(status, reason, message)
    }
}

fn main() -> ExitCode {
    match prologue() {
        Ok((control, Task::Begin(begin))) => supervise(control, *begin),
        Ok((_, Task::CleanUp(plan))) => clean_up_after_another(&plan),
        // Whoever started us sees the socket close.
        Err(_) => ExitCode::from(USAGE),
    }
}

/// What the first message asks.
enum Task {
    Begin(Box<Begin>),
    CleanUp(Box<MonitorPlan>),
}

/// What arrives with the first message.
struct Begin {
    plan: MonitorPlan,
    signals: SignalFd,
    /// Held until this process ends.
    _lock: OwnedFd,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn prologue() -> Result<(OwnedFd, Task), SysError> {
    let failed = |call: &'static str, errno| SysError::new(call, String::new(), errno);
    // Fails where we lead a session already, which is as good.
    rustix::process::setsid().ok();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| failed("prctl", errno))?;
    let signals = SignalFd::block(&SIGNALS)?;
    let control = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)
        .map_err(|errno| failed("fcntl", errno))?;
    let mut buffer = vec![0; MESSAGE_MAX_BYTES];
    let (length, fds) = socket::receive(&control, &mut buffer, false)?;
    let malformed = || failed("recvmsg", gantry_sys::Errno::PROTO);
    let plan = match decode(&buffer[..length]) {
        Ok(Request::Begin { plan }) => plan,
        Ok(Request::CleanUp { plan }) => {
            let plan = read_plan(&plan).map_err(|_| malformed())?;
            return Ok((control, Task::CleanUp(Box::new(plan))));
        }
        _ => return Err(malformed()),
    };
    let [lock, stdin, stdout, stderr]: [OwnedFd; 4] = fds.try_into().map_err(|_| malformed())?;
    let plan = read_plan(&plan).map_err(|_| malformed())?;
    let begin = Begin {
        plan,
        signals,
        _lock: lock,
        stdin,
        stdout,
        stderr,
    };
    Ok((control, Task::Begin(Box::new(begin))))
}

fn read_plan(path: &Path) -> std::io::Result<MonitorPlan> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(PLAN_MAX_BYTES)
        .read_to_end(&mut bytes)?;
    decode(&bytes).map_err(std::io::Error::other)
}

fn supervise(control: OwnedFd, begin: Begin) -> ExitCode {
    let plan = begin.plan.clone();
    let home = Home {
        state_dir: plan.state_dir.clone(),
        data_dir: plan.data_dir.clone(),
    };
    let report = |report: &Report| {
        if let Ok(message) = encode(report) {
            // Nobody listens any more: the exit record remains.
            socket::send(&control, &message, &[]).ok();
        }
    };
    // To end a mount takes the kernel milliseconds: this one ends with the process.
    let mut image = None;
    match run(&control, begin, &home, &report, &mut image) {
        Ok(exit) => {
            report(&Report::Exited(exit));
            ExitCode::SUCCESS
        }
        Err(Failure(failure)) => {
            clean_up(&plan, &home, true);
            report(&Report::Failed(failure));
            ExitCode::from(OURS)
        }
    }
}

/// The other monitor's mounts went with it; what the runtime keeps, and its control groups, did not.
fn clean_up_after_another(plan: &MonitorPlan) -> ExitCode {
    if stage::enter(plan).is_err() {
        return ExitCode::from(OURS);
    }
    let home = Home {
        state_dir: plan.state_dir.clone(),
        data_dir: plan.data_dir.clone(),
    };
    clean_up(plan, &home, false);
    ExitCode::SUCCESS
}

/// Prepares, starts, watches; answers how the program ended once everything is cleaned up.
fn run(
    control: &OwnedFd,
    begin: Begin,
    home: &Home,
    report: &dyn Fn(&Report),
    image: &mut Option<OwnedFd>,
) -> Result<Exit, Failure> {
    let plan = &begin.plan;
    *image = Some(stage::stage(plan)?);
    let (started, sides) = start::start(plan, begin.stdin, begin.stdout, begin.stderr)?;
    if let Some(record) = process_record(started.pid) {
        home.put_process(&record)
            .map_err(|error| Failure::refused("record the container's process", &error))?;
    }
    report(&Report::Started { pid: started.pid });
    let ending = relay::relay(plan, control, &begin.signals, &started, &sides);
    let exit = ending.exit;
    if ending.met_read_only && !plan.draft.writable && exit != Exit::Code(0) {
        report(&Report::Hint(READ_ONLY_HINT.to_owned()));
    }
    let ended_unix_s = unix_seconds(SystemTime::now());
    clean_up(plan, home, plan.remove);
    if !plan.remove {
        // Last: whoever reads it may remove the container. One that cannot be written leaves the
        // container "lost", which is true.
        let record = ExitRecord { exit, ended_unix_s };
        home.put_exit(&record).ok();
    }
    Ok(exit)
}

/// `None` if it has ended already.
fn process_record(pid: u32) -> Option<ProcessRecord> {
    let start_time = Proc::open().ok()?.start_time(pid).ok()??;
    Some(ProcessRecord {
        pid,
        start_time,
        started_unix_s: unix_seconds(SystemTime::now()),
    })
}

/// Takes everything back; goes on after failures. Mounts end with this process.
fn clean_up(plan: &MonitorPlan, home: &Home, remove: bool) {
    let runtime_dir = plan.state_dir.join("oci");
    if !delete_lightly(plan, &runtime_dir) {
        if runtime_dir.exists() {
            quiet(&plan.delete).status().ok();
        }
        // A runtime that fails early may leave the group behind.
        plan.control_group.as_deref().map(remove_control_group);
    }
    if remove {
        home.remove(plan.name_link.as_deref()).ok();
    }
}

/// Removes what the runtime keeps without executing it; false if that is not all.
fn delete_lightly(plan: &MonitorPlan, runtime_dir: &Path) -> bool {
    plan.control_group
        .as_deref()
        .is_some_and(remove_control_group)
        && std::fs::remove_dir_all(runtime_dir).is_ok()
}

/// Removes a control group from every hierarchy; false if somebody is in it, or below it.
fn remove_control_group(name: &str) -> bool {
    let base = Path::new("/sys/fs/cgroup");
    let below = std::fs::read_dir(base).into_iter().flatten().flatten();
    let mut hierarchies: Vec<_> = below.map(|entry| entry.path()).collect();
    hierarchies.push(base.to_owned());
    hierarchies.iter().fold(true, |all, hierarchy| {
        let gone = match std::fs::remove_dir(hierarchy.join(name)) {
            Ok(()) => true,
            Err(error) => matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ),
        };
        all && gone
    })
}

/// A program without our environment, our input or our output.
fn quiet(line: &CommandLine) -> Command {
    let mut command = Command::new(&line.program);
    command
        .args(&line.args)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
