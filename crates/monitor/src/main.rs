// SPDX-License-Identifier: Apache-2.0
//! The supervisor of one container, or of one more program in a container.
//!
//! ```text
//! gantry run ── spawn, socket on descriptor 0 ──► gantry-monitor ID
//!    1. leaves the caller's session; becomes the reaper of whatever the runtime leaves behind
//!    2. receives its plan and four descriptors                       [main]
//!    3. private mount namespace, rootfs, volumes, config.json        [job, stage]
//!    4. the OCI runtime, the terminal                                [start]
//!    5. one poll loop: output, input, signals, the end               [relay]
//!    6. removes what was made, says how it ended                     [job]
//! ```
//!
//! It has one thread. Killing whoever started it does not touch the container. Whatever kills *it*
//! leaves nothing mounted (its namespace goes with it) and frees the lock, by which others see that
//! the container is lost.
#![forbid(unsafe_code)]

mod job;
mod log;
mod relay;
mod stage;
mod start;

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use gantry_runtime::driver::CommandLine;
use gantry_runtime::prepare::PrepareError;
use gantry_runtime::supervise::{
    Exit, FailureReason, MESSAGE_MAX_BYTES, MonitorPlan, PLAN_MAX_BYTES, Report, Request,
    StartFailure, decode, encode,
};
use gantry_sys::signal::SignalFd;
use gantry_sys::{SysError, socket};

use job::Job;

/// What somebody may send to stop us is read, and passed on to the container: hang-up, interrupt,
/// quit, the two of users, terminate.
const SIGNALS: [u8; 6] = [1, 2, 3, 10, 12, 15];

/// Ends the monitor before there is anybody who could be told.
const USAGE: u8 = 2;
/// The status of a failure of ours, as podman's users know it.
const OURS: u8 = 125;

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
        let reason = match &error {
            PrepareError::NoProgram { .. } | PrepareError::Identity(_) => FailureReason::NotFound,
            PrepareError::NotExecutable { .. } => FailureReason::Invalid,
            PrepareError::TooLarge { .. } | PrepareError::Reserved { .. } => FailureReason::Unsafe,
            _ => return Self::refused("prepare the container", &error),
        };
        let status = error.status().unwrap_or(OURS);
        let mut message = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            message.push_str(&format!(": {cause}"));
        }
        Self::new(status, reason, message)
    }
}

fn main() -> ExitCode {
    match prologue() {
        Ok((control, Task::Begin(plan, begin))) => supervise(&control, &plan, begin),
        Ok((_, Task::CleanUp(plan))) => {
            Job::new(&plan).clean_up_after_another();
            ExitCode::SUCCESS
        }
        // Whoever started us sees the socket close.
        Err(_) => ExitCode::from(USAGE),
    }
}

/// What the first message asks.
enum Task {
    Begin(Box<MonitorPlan>, Begin),
    CleanUp(Box<MonitorPlan>),
}

/// What arrives with the first message.
struct Begin {
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
        signals,
        _lock: lock,
        stdin,
        stdout,
        stderr,
    };
    Ok((control, Task::Begin(Box::new(plan), begin)))
}

fn read_plan(path: &Path) -> std::io::Result<MonitorPlan> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(PLAN_MAX_BYTES)
        .read_to_end(&mut bytes)?;
    decode(&bytes).map_err(std::io::Error::other)
}

fn supervise(control: &OwnedFd, plan: &MonitorPlan, begin: Begin) -> ExitCode {
    let mut job = Job::new(plan);
    let report = |report: &Report| {
        if let Ok(message) = encode(report) {
            // Nobody listens any more: the exit record remains.
            socket::send(control, &message, &[]).ok();
        }
    };
    match run(control, plan, begin, &mut job, &report) {
        Ok(exit) => {
            report(&Report::Exited(exit));
            ExitCode::SUCCESS
        }
        Err(Failure(failure)) => {
            job.fail();
            report(&Report::Failed(failure));
            ExitCode::from(OURS)
        }
    }
}

/// Prepares, starts, watches; answers how the program ended once everything is cleaned up.
fn run(
    control: &OwnedFd,
    plan: &MonitorPlan,
    begin: Begin,
    job: &mut Job<'_>,
    report: &dyn Fn(&Report),
) -> Result<Exit, Failure> {
    job.prepare()?;
    let (started, sides) = start::start(plan, begin.stdin, begin.stdout, begin.stderr)?;
    job.record_start(started.pid)?;
    report(&Report::Started { pid: started.pid });
    let ending = relay::relay(plan, control, &begin.signals, &started, &sides);
    if let Some(hint) = job.hint(&ending) {
        report(&Report::Hint(hint));
    }
    job.end(ending.exit);
    Ok(ending.exit)
}

/// A program without our environment, our input or our output.
fn quiet(line: &CommandLine) -> Command {
    quiet_from(&line.program, line)
}

/// The same, executed from another place than the one that it is called by.
fn quiet_from(program: &Path, line: &CommandLine) -> Command {
    let mut command = Command::new(program);
    command
        .arg0(&line.program)
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
