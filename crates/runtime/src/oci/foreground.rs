// SPDX-License-Identifier: Apache-2.0
//! A runtime that stays while its container's process runs: passes signals on, relays a terminal, and
//! ends as the process did.
//!
//! Signals are blocked before the clone, so that none is lost between it and the loop: the end of the
//! process above all, which is read from its pidfd.

use std::os::fd::OwnedFd;

use gantry_sys::clone::Child;
use gantry_sys::signal::{self, SignalFd};
use gantry_sys::{Errno, socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitOptions, waitpid};
use rustix::termios::{OptionalActions, Termios};

use super::error::{Doing as _, RuntimeError};

const CHLD: u8 = 17;
const URG: u8 = 23;
const WINCH: u8 = 28;
/// Not those that stand for a fault of our own, nor the two that cannot be blocked.
const NOT_BLOCKED: [u8; 8] = [4, 5, 7, 8, 9, 11, 19, 31];

/// Signals that wait to be passed on.
#[derive(Debug)]
pub(super) struct Foreground {
    signals: SignalFd,
    terminal: Option<Relay>,
}

#[derive(Debug)]
struct Relay {
    /// The runtime's end of the pair by which the terminal arrives.
    arrival: OwnedFd,
    master: Option<OwnedFd>,
    /// How our own terminal was.
    before: Option<Termios>,
    /// Typed and not taken yet.
    typed: Vec<u8>,
    /// Our standard input may have more.
    reads: bool,
    /// Somebody has the terminal open.
    open: bool,
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing else can be done for a terminal that is gone.
            rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

impl Foreground {
    /// Blocks signals; to be called before the clone.
    pub(super) fn begin() -> Result<Self, RuntimeError> {
        let signals: Vec<u8> = (1..=31)
            .filter(|number| !NOT_BLOCKED.contains(number))
            .collect();
        Ok(Self {
            signals: SignalFd::block(&signals).doing(|| "block signals")?,
            terminal: None,
        })
    }

    /// Offers to relay a terminal; answers the end of the pair over which it is to be sent.
    pub(super) fn offer_terminal(&mut self) -> Result<OwnedFd, RuntimeError> {
        let (arrival, theirs) = socket::message_pair().doing(|| "make a pair of sockets")?;
        self.terminal = Some(Relay {
            arrival,
            master: None,
            before: None,
            typed: Vec::new(),
            reads: true,
            open: true,
        });
        Ok(theirs)
    }

    /// The process turned out to have no terminal of its own.
    pub(super) fn forget_terminal(&mut self) {
        self.terminal = None;
    }

    /// Waits for the process to end; answers its status, 128 and the signal's number if one ended it.
    pub(super) fn wait(mut self, child: &Child) -> Result<u8, RuntimeError> {
        if let Some(relay) = &mut self.terminal {
            relay.receive()?;
        }
        loop {
            let ended = self.turn(child)?;
            while let Some(number) = self.signals.take().doing(|| "read signals")? {
                self.pass_on(child, number)?;
            }
            if ended {
                break;
            }
        }
        if let Some(relay) = &mut self.terminal {
            // What the process wrote last is still in the terminal.
            while relay.show()? {}
        }
        let reaped =
            waitpid(Some(child.pid), WaitOptions::empty()).doing(|| "ask how the process ended")?;
        Ok(reaped.map_or(0, |(_, status)| status_of(status)))
    }

    fn pass_on(&mut self, child: &Child, number: u8) -> Result<(), RuntimeError> {
        match number {
            CHLD | URG => Ok(()),
            WINCH if self.terminal.is_some() => {
                if let Some(relay) = &self.terminal {
                    relay.resize();
                }
                Ok(())
            }
            _ => match signal::send(&child.pidfd, number) {
                Err(error) if error.is(Errno::SRCH) => Ok(()),
                other => other.doing(|| format!("pass signal {number} on")),
            },
        }
    }

    /// Waits for something to do and relays; true when the process has ended.
    fn turn(&mut self, child: &Child) -> Result<bool, RuntimeError> {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::new(&child.pidfd, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        if let Some(relay) = &self.terminal {
            if let Some(master) = relay.master.as_ref().filter(|_| relay.open) {
                let mut wanted = PollFlags::IN;
                if !relay.typed.is_empty() {
                    wanted |= PollFlags::OUT;
                }
                fds.push(PollFd::new(master, wanted));
                if relay.typed.is_empty() && relay.reads {
                    fds.push(PollFd::new(&stdin, PollFlags::IN));
                }
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(false),
            other => other.doing(|| "wait")?,
        };
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if let Some(relay) = &mut self.terminal {
            if ready.get(2).is_some_and(|events| !events.is_empty()) {
                relay.open = relay.show()? || !ready[2].contains(PollFlags::HUP);
                relay.pass_typed()?;
            }
            if ready.get(3).is_some_and(|events| !events.is_empty()) {
                relay.read_typed()?;
            }
        }
        Ok(!ready[0].is_empty())
    }
}

impl Relay {
    fn receive(&mut self) -> Result<(), RuntimeError> {
        let doing = || "receive the terminal";
        let (_, mut fds) = socket::receive(&self.arrival, &mut [0; 64], false).doing(doing)?;
        let master = fds.pop().ok_or(Errno::BADF).doing(doing)?;
        rustix::io::ioctl_fionbio(&master, true).doing(doing)?;
        self.master = Some(master);
        self.resize();
        let stdin = rustix::stdio::stdin();
        if let Ok(before) = rustix::termios::tcgetattr(stdin) {
            let mut raw = before.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)
                .doing(|| "set our own terminal")?;
            self.before = Some(before);
        }
        Ok(())
    }

    fn resize(&self) {
        let (Some(master), Ok(size)) = (
            &self.master,
            rustix::termios::tcgetwinsize(rustix::stdio::stdin()),
        ) else {
            return;
        };
        rustix::termios::tcsetwinsize(master, size).ok();
    }

    /// Shows what the terminal has; false when there was nothing.
    fn show(&mut self) -> Result<bool, RuntimeError> {
        let Some(master) = &self.master else {
            return Ok(false);
        };
        let mut buffer = [0; 8192];
        let length = match rustix::io::read(master, &mut buffer) {
            Ok(length) => length,
            // Nothing is there, or nobody has it open any more.
            Err(Errno::AGAIN | Errno::IO | Errno::INTR) => 0,
            Err(errno) => return Err(errno).doing(|| "read the terminal"),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match rustix::io::write(rustix::stdio::stdout(), rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Nobody looks any more; the process goes on.
                Err(_) => break,
            }
        }
        Ok(length > 0)
    }

    fn read_typed(&mut self) -> Result<(), RuntimeError> {
        const END_OF_INPUT: u8 = 4;
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => {
                // What a terminal's user would type.
                self.typed.push(END_OF_INPUT);
                self.reads = false;
            }
            Ok(length) => self.typed.extend_from_slice(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno).doing(|| "read standard input"),
        }
        self.pass_typed()
    }

    fn pass_typed(&mut self) -> Result<(), RuntimeError> {
        let Some(master) = self.master.as_ref().filter(|_| !self.typed.is_empty()) else {
            return Ok(());
        };
        match rustix::io::write(master, &self.typed) {
            Ok(written) => drop(self.typed.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::IO) => self.typed.clear(),
            Err(errno) => return Err(errno).doing(|| "write to the terminal"),
        }
        Ok(())
    }
}

fn status_of(status: rustix::process::WaitStatus) -> u8 {
    let number = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => number(code),
        (None, Some(signal)) => number(signal).saturating_add(128),
        _ => 0,
    }
}
