// SPDX-License-Identifier: Apache-2.0
//! The OCI runtime's one call, and the terminal that it hands over meanwhile.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio};

use gantry_runtime::driver::{
    CONSOLE_SOCKET, OURS as OUR_RUNTIME, OciRuntime as _, PID_FILE, RUNTIME_LOG, RuncLike,
};
use gantry_runtime::oci::seal::sealed_clone;
use gantry_runtime::supervise::{FailureReason, MonitorPlan, WindowSize, Work};
use gantry_sys::root::RootDir;
use gantry_sys::{Errno, socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Failure, OURS, quiet, quiet_from};

/// The most that is read of what a runtime writes.
const RUNTIME_LOG_MAX_BYTES: u64 = 64 << 10;

/// A container whose program runs.
#[derive(Debug)]
pub(crate) struct Started {
    /// The program's process.
    pub pid: u32,
    /// The same, for good.
    pub process: OwnedFd,
}

/// Our ends of the container's standard streams, and the caller's.
#[derive(Debug)]
pub(crate) struct Sides {
    /// The terminal's master side.
    pub terminal: Option<OwnedFd>,
    /// Reading ends of pipes; none with a terminal.
    pub output: Option<OwnedFd>,
    /// Likewise.
    pub errors: Option<OwnedFd>,
    /// The caller's.
    pub stdin: Option<OwnedFd>,
    /// The caller's.
    pub stdout: OwnedFd,
    /// The caller's.
    pub stderr: OwnedFd,
}

/// Calls the runtime and waits until the program runs.
pub(crate) fn start(
    plan: &MonitorPlan,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<(Started, Sides), Failure> {
    // Our own runtime starts a second time, from a sealed file, unless it was started from one.
    let is_ours = RuncLike::of(&plan.run).name() == OUR_RUNTIME;
    let sealed = is_ours
        .then(|| sealed_clone(&plan.run.program).ok())
        .flatten();
    let mut command = match &sealed {
        Some(file) => {
            let place = format!("/proc/self/fd/{}", file.as_raw_fd());
            quiet_from(place.as_ref(), &plan.run)
        }
        None => quiet(&plan.run),
    };
    command.current_dir(&plan.dir);
    let mut sides = Sides {
        terminal: None,
        output: None,
        errors: None,
        stdin: None,
        stdout,
        stderr,
    };
    let listener = if plan.terminal.is_some() {
        sides.stdin = plan.interactive.then_some(stdin);
        let listener =
            RootDir::open_trusted(&plan.dir).and_then(|dir| socket::listen(&dir, CONSOLE_SOCKET));
        Some(listener.map_err(|error| Failure::refused("offer a terminal", &error))?)
    } else {
        let (output, errors) = (output_pipe()?, output_pipe()?);
        if plan.interactive {
            command.stdin(Stdio::from(stdin));
        }
        command
            .stdout(Stdio::from(output.1))
            .stderr(Stdio::from(errors.1));
        (sides.output, sides.errors) = (Some(output.0), Some(errors.0));
        None
    };
    let spawned = command.spawn();
    // Our copies of the pipes' writing ends go with it.
    drop((command, sealed));
    let mut child = spawned.map_err(|error| {
        Failure::refused(
            &format!("execute OCI runtime {}", plan.run.program.display()),
            &error,
        )
    })?;
    if let (Some(listener), Some(size)) = (listener, plan.terminal) {
        sides.terminal = receive_terminal(&listener, &child, size)?;
    }
    let status = child
        .wait()
        .map_err(|error| Failure::refused("wait for the OCI runtime", &error))?;
    if !status.success() {
        let said = what_it_said(&plan.dir.join(RUNTIME_LOG), sides.errors.take());
        return Err(runtime_failure(plan, &format!("{status}"), said));
    }
    Ok((find_process(plan)?, sides))
}

/// A pipe whose reading end does not wait.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    let failed =
        |errno: Errno| Failure::refused("make a pipe for output", &std::io::Error::from(errno));
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(failed)?;
    Ok((reader, writer))
}

/// Waits for the runtime to hand over the terminal, or to end without having done so.
fn receive_terminal(
    listener: &OwnedFd,
    child: &Child,
    size: WindowSize,
) -> Result<Option<OwnedFd>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::refused("receive the terminal", error);
    let runtime = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(|errno| failed(&std::io::Error::from(errno)))?;
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&runtime, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.map_err(|errno| failed(&std::io::Error::from(errno)))?,
        };
        if fds[0].revents().contains(PollFlags::IN) {
            break;
        }
        if !fds[1].revents().is_empty() {
            // Its exit status says why.
            return Ok(None);
        }
    }
    let connection = socket::accept(listener).map_err(|error| failed(&error))?;
    let (_, mut fds) =
        socket::receive(&connection, &mut [0; 4096], false).map_err(|error| failed(&error))?;
    let Some(master) = fds.pop() else {
        return Err(failed(&std::io::Error::other(
            "the runtime's message carried no descriptor",
        )));
    };
    rustix::io::ioctl_fionbio(&master, true)
        .map_err(|errno| failed(&std::io::Error::from(errno)))?;
    set_size(&master, size);
    Ok(Some(master))
}

/// Sets a terminal's size; one that has none does not mind.
pub(crate) fn set_size(terminal: &OwnedFd, size: WindowSize) {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal.as_fd(), size).ok();
}

fn find_process(plan: &MonitorPlan) -> Result<Started, Failure> {
    let path = plan.dir.join(PID_FILE);
    let failed =
        |error: &dyn std::error::Error| Failure::refused("find the container's process", error);
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let pid = text
        .trim()
        .parse::<i32>()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| failed(&std::io::Error::other(format!("pid file says {text:?}"))))?;
    // It is our child and nobody reaps it but us, so the number is still its own.
    let process = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|errno| failed(&std::io::Error::from(errno)))?;
    Ok(Started {
        pid: pid.as_raw_nonzero().get().unsigned_abs(),
        process,
    })
}

/// The last error of the runtime's log, else the last line that it wrote elsewhere.
fn what_it_said(log: &Path, errors: Option<OwnedFd>) -> Option<String> {
    let read = |mut from: Box<dyn std::io::Read>| {
        let mut bytes = Vec::new();
        // What could be read is what can be told; the pipe does not wait.
        from.by_ref()
            .take(RUNTIME_LOG_MAX_BYTES)
            .read_to_end(&mut bytes)
            .ok();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let of_log = fs::File::open(log).ok().and_then(|file| {
        let text = read(Box::new(file));
        text.lines().rev().find_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            let message = value.get("msg")?.as_str()?.trim().to_owned();
            (!message.is_empty()).then_some(message)
        })
    });
    of_log.or_else(|| {
        let text = read(Box::new(fs::File::from(errors?)));
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().to_owned())
    })
}

/// Podman's statuses for what a runtime says about the program.
fn runtime_failure(plan: &MonitorPlan, status: &str, said: Option<String>) -> Failure {
    let name = plan
        .run
        .program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let said = said.unwrap_or_else(|| format!("it ended with {status} and said nothing"));
    let lower = said.to_lowercase();
    let about_program = lower.contains("exec") || lower.contains("$path");
    let (status, reason) = if about_program && lower.contains("permission denied") {
        (126, FailureReason::Invalid)
    } else if about_program && (lower.contains("not found") || lower.contains("no such file")) {
        (127, FailureReason::NotFound)
    } else {
        (OURS, FailureReason::Refused)
    };
    let what = match plan.work {
        Work::Container(_) => "the container",
        Work::Exec => "the program",
    };
    let failure = Failure::new(status, reason, format!("start {what} with {name}: {said}"));
    if status == OURS {
        failure.hint("--runtime names another OCI runtime; --profile compat confines less")
    } else {
        failure
    }
}
