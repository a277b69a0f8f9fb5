// SPDX-License-Identifier: Apache-2.0
//! The caller's side while a container runs in the foreground: signals and window sizes to the
//! monitor, standard input to the container, the end back.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, OwnedFd};

use gantry_oci::Kind;
use gantry_runtime::supervise::{
    Exit, MESSAGE_MAX_BYTES, Report, Request, StartFailure, WindowSize, decode, encode,
};
use gantry_sys::Errno;
use gantry_sys::signal::SignalFd;
use gantry_sys::socket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::monitor::Launched;
use crate::exit::Failure;
use crate::output;

const SIGINT: u8 = 2;
const SIGWINCH: u8 = 28;
/// Passed on to the container: hang-up, interrupt, quit, the users' two, terminate; and a terminal's
/// new size.
const SIGNALS: [u8; 7] = [1, SIGINT, 3, 10, 12, 15, SIGWINCH];

/// Signals as they arrive, from before the monitor is started on.
///
/// # Errors
/// The kernel's refusal.
pub fn block_signals() -> Result<SignalFd, Failure> {
    Ok(SignalFd::block(&SIGNALS)?)
}

/// The size of the caller's terminal, if there is one.
#[must_use]
pub fn window_size() -> Option<WindowSize> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin()));
    size.ok()
        .filter(|size| size.ws_row > 0)
        .map(|size| WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        })
}

/// The caller's terminal in raw mode, until the value is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Drain, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone.
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before).ok();
    }
}

/// Waits until the program runs.
///
/// # Errors
/// Why it does not.
pub fn wait_for_start(launched: &Launched) -> Result<(), Failure> {
    match next_report(&launched.control)? {
        Report::Failed(failure) => Err(start_failure(failure)),
        // It runs, or has run and ended already.
        Report::Started { .. } | Report::Hint(_) | Report::Exited(_) => Ok(()),
    }
}

/// Stays with the container until it has ended.
///
/// # Errors
/// The program never ran, or the monitor was killed.
pub fn attach(
    mut launched: Launched,
    signals: &SignalFd,
    terminal: bool,
    sig_proxy: bool,
) -> Result<Exit, Failure> {
    let raw = terminal.then(RawTerminal::enter).flatten();
    if let Some(input) = launched.input.take() {
        forward_input(input);
    }
    let mut attached = Attached {
        launched,
        started: false,
        interrupted: false,
        terminal,
        sig_proxy,
        hint: None,
    };
    let outcome = attached.watch(signals);
    // Before anything is printed.
    drop(raw);
    let (exit, hint) = outcome?;
    // For people: a script that reads the program's errors gets those and nothing else.
    if let Some(hint) = hint.filter(|_| std::io::stderr().is_terminal()) {
        output::hint_line(&hint);
    }
    Ok(exit)
}

/// A thread of its own: reading may wait for ever, and ends with the process.
fn forward_input(mut input: File) {
    std::thread::spawn(move || {
        // The container may close its input at any time.
        std::io::copy(&mut std::io::stdin().lock(), &mut input).ok();
    });
}

struct Attached {
    launched: Launched,
    started: bool,
    interrupted: bool,
    terminal: bool,
    sig_proxy: bool,
    hint: Option<String>,
}

impl Attached {
    fn watch(&mut self, signals: &SignalFd) -> Result<(Exit, Option<String>), Failure> {
        loop {
            let mut fds = [
                PollFd::new(&self.launched.control, PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other.map_err(|errno| Failure::from(std::io::Error::from(errno)))?,
            };
            let (control, signal) = (fds[0].revents(), fds[1].revents());
            if !signal.is_empty() {
                while let Some(signal) = signals.take()? {
                    self.pass(signal)?;
                }
            }
            if !control.is_empty() {
                match next_report(&self.launched.control)? {
                    Report::Started { .. } => self.started = true,
                    Report::Failed(failure) => return Err(start_failure(failure)),
                    Report::Hint(hint) => self.hint = Some(hint),
                    Report::Exited(exit) => return Ok((exit, self.hint.take())),
                }
            }
        }
    }

    fn pass(&mut self, signal: u8) -> Result<(), Failure> {
        let request = match signal {
            SIGWINCH => match window_size().filter(|_| self.terminal) {
                Some(size) => Request::Resize(size),
                None => return Ok(()),
            },
            // A runtime that hangs takes no signals; whoever insists gets away.
            SIGINT if !self.started && self.interrupted => {
                self.launched.monitor.kill().ok();
                return Err(Failure::message(Kind::Cancelled, "interrupted").status(130));
            }
            _ if !self.sig_proxy => {
                return Err(Failure::message(Kind::Cancelled, "detached by a signal")
                    .status(signal.saturating_add(128)));
            }
            signal => {
                self.interrupted |= signal == SIGINT;
                Request::Signal(signal)
            }
        };
        let message = encode(&request).map_err(|error| Failure::new(Kind::Internal, error))?;
        // It may be on its way out; its last report is still to come.
        socket::send(&self.launched.control, &message, &[]).ok();
        Ok(())
    }
}

fn next_report(control: &OwnedFd) -> Result<Report, Failure> {
    let mut buffer = [0; MESSAGE_MAX_BYTES];
    let (length, _) = socket::receive(control, &mut buffer, false)?;
    if length == 0 {
        return Err(Failure::message(
            Kind::Internal,
            "watch the container: its monitor was killed",
        ));
    }
    decode(&buffer[..length]).map_err(|error| Failure::new(Kind::Internal, error))
}

fn start_failure(failure: StartFailure) -> Failure {
    let told = Failure::message(failure.reason.kind(), failure.message).status(failure.status);
    match failure.hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}
