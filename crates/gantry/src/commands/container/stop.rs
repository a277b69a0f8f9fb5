// SPDX-License-Identifier: Apache-2.0
//! `gantry stop`, `gantry kill`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use gantry_oci::Kind;
use gantry_runtime::container::{Container, Containers};
use gantry_runtime::options::SignalNumber;
use gantry_sys::{Errno, signal as sys_signal};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// The signal that nobody survives.
pub const SIGKILL: u8 = 9;
/// How often is looked whether a container has ended: its monitor has to clean up after the program.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Ask containers to end, and kill those that do not.
#[derive(Debug, clap::Args)]
pub struct Stop {
    /// Names, IDs, or beginnings of IDs
    #[arg(required = true)]
    containers: Vec<String>,
    /// How long to wait before killing [default: what the container was started with, or 10]
    #[arg(long, short, value_name = "SECONDS")]
    time: Option<u64>,
}

/// Send a signal to containers.
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// Names, IDs, or beginnings of IDs
    #[arg(required = true)]
    containers: Vec<String>,
    /// Which
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL")]
    signal: SignalNumber,
}

impl Stop {
    /// Stops them, all at once.
    pub fn run(self, context: &Context) -> Outcome {
        let containers = find_all(context, &self.containers)?;
        let mut failures = Vec::new();
        let mut asked = Vec::new();
        for container in containers {
            if !container.status()?.is_alive() {
                output::line(&container.record.id)?;
                continue;
            }
            match signal(&container, container.record.stop_signal) {
                Ok(()) => asked.push(container),
                Err(failure) => failures.push(failure),
            }
        }
        let began = Instant::now();
        for container in asked {
            let patience = self.time.unwrap_or(container.record.stop_timeout_s);
            let left = Duration::from_secs(patience).saturating_sub(began.elapsed());
            let ended = wait(&container, Some(left)).and_then(|ended| {
                if !ended {
                    signal(&container, SIGKILL)?;
                    wait(&container, None)?;
                }
                output::line(&container.record.id)
            });
            failures.extend(ended.err());
        }
        first_of(failures)
    }
}

impl Kill {
    /// Sends it.
    pub fn run(self, context: &Context) -> Outcome {
        let mut failures = Vec::new();
        for container in find_all(context, &self.containers)? {
            let sent =
                signal(&container, self.signal.0).and_then(|()| output::line(&container.record.id));
            failures.extend(sent.err());
        }
        first_of(failures)
    }
}

/// Finds each of them before anything is done to any.
fn find_all(context: &Context, wanted: &[String]) -> Result<Vec<Container>, Failure> {
    let containers = Containers::new(&context.root, &context.runroot);
    let found = wanted.iter().map(|wanted| containers.find(wanted));
    Ok(found.collect::<Result<_, _>>()?)
}

/// Prints all failures but the first, which the caller's exit status tells.
pub fn first_of(failures: Vec<Failure>) -> Outcome {
    let mut failures = failures.into_iter();
    let first = failures.next();
    for failure in failures {
        output::error_line(&failure.sentence());
    }
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Sends a signal to a container's program.
///
/// # Errors
/// The container does not run, or the kernel refuses.
pub fn signal(container: &Container, signal: u8) -> Result<(), Failure> {
    let id = container.record.short_id();
    let context = || format!("send signal {signal} to container {id}");
    let not_running = || Failure::message(Kind::Busy, format!("{}: it does not run", context()));
    let Some(process) = container.status()?.process() else {
        return Err(not_running());
    };
    let pid = i32::try_from(process.pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(not_running)?;
    let fd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Err(not_running()),
        other => {
            other.map_err(|errno| Failure::from(std::io::Error::from(errno)).context(context()))?
        }
    };
    // The number may have been given to another process; the descriptor holds on to the one we compare.
    if !process.is_alive()? {
        return Err(not_running());
    }
    match sys_signal::send(&fd, signal) {
        Err(error) if error.is(Errno::SRCH) => Err(not_running()),
        other => other.map_err(|error| Failure::from(error).context(context())),
    }
}

/// Waits until a container has ended and is cleaned up; false if it has not after `at_most`.
///
/// # Errors
/// Its files cannot be read.
pub fn wait(container: &Container, at_most: Option<Duration>) -> Result<bool, Failure> {
    let began = Instant::now();
    loop {
        // One that removes itself is gone in the end.
        let gone = !container.home.state_dir.exists();
        if gone || !container.status()?.is_alive() {
            return Ok(true);
        }
        if at_most.is_some_and(|at_most| began.elapsed() >= at_most) {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
