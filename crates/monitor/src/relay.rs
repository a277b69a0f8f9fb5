// SPDX-License-Identifier: Apache-2.0
//! The poll loop: output to the caller and to the log, input to the terminal, signals and sizes to the
//! program, until it has ended and its last byte is delivered.
//!
//! A slow reader slows the container and nobody else: nothing here waits but the poll. The caller's
//! descriptors are not ours to make non-blocking (their flags are shared with the caller's shell), so
//! they are written in pieces that a pipe which polls as writable takes whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_runtime::supervise::{Exit, MESSAGE_MAX_BYTES, MonitorPlan, Request, decode};
use gantry_sys::signal::{self, SignalFd};
use gantry_sys::{Errno, socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::log::{Log, StreamName};
use crate::start::{Sides, Started, set_size};

const BUFFER_BYTES: usize = 64 << 10;
/// POSIX's least `PIPE_BUF` is smaller, Linux's is this.
const PIECE_BYTES: usize = 4096;
/// How long a program that has ended may take to become our child.
const ADOPTION: Duration = Duration::from_secs(10);
const ADOPTION_STEP: Duration = Duration::from_micros(200);
/// Stands for a status that nobody knows.
const UNKNOWN: u8 = 255;

/// What the C library says for EROFS, which a program under the production profile is likeliest to meet.
const READ_ONLY: &[u8] = b"Read-only file system";
/// How much of a program's output is searched for it: programs that cannot write say so when they start.
const SEARCH_BYTES: usize = 64 << 10;

/// How a program ended, and what is worth telling about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub exit: Exit,
    /// It said that a file system is read-only.
    pub met_read_only: bool,
}

/// Bytes on their way from one descriptor to another.
struct Stream<'a> {
    source: Option<BorrowedFd<'a>>,
    sink: Option<BorrowedFd<'a>>,
    name: Option<StreamName>,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    /// How many bytes are still searched, and whether the search was successful.
    to_search: usize,
    met_read_only: bool,
}

impl<'a> Stream<'a> {
    fn new(
        source: Option<&'a OwnedFd>,
        sink: Option<&'a OwnedFd>,
        name: Option<StreamName>,
    ) -> Self {
        Self {
            source: source.map(AsFd::as_fd),
            sink: sink.map(AsFd::as_fd),
            name,
            buffer: if source.is_some() {
                vec![0; BUFFER_BYTES]
            } else {
                Vec::new()
            },
            from: 0,
            to: 0,
            to_search: name.map_or(0, |_| SEARCH_BYTES),
            met_read_only: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Nothing will come any more, and nothing is left to deliver.
    fn is_done(&self) -> bool {
        self.source.is_none() && self.is_empty()
    }

    /// What to wait for; `idle` stands for nothing.
    fn interest(&self, idle: BorrowedFd<'a>) -> PollFd<'a> {
        match (self.source, self.sink) {
            (Some(source), _) if self.is_empty() => PollFd::from_borrowed_fd(source, PollFlags::IN),
            (_, Some(sink)) if !self.is_empty() => PollFd::from_borrowed_fd(sink, PollFlags::OUT),
            _ => PollFd::from_borrowed_fd(idle, PollFlags::empty()),
        }
    }

    /// Does what the poll says can be done.
    fn step(&mut self, revents: PollFlags, log: &mut Option<Log>) {
        if revents.is_empty() {
            return;
        }
        if self.is_empty() {
            self.read(log);
        } else {
            self.write();
        }
    }

    /// Reads what is there; false if that was nothing.
    fn read(&mut self, log: &mut Option<Log>) -> bool {
        let Some(source) = self.source else {
            return false;
        };
        match rustix::io::read(source, &mut self.buffer) {
            Ok(0) => self.source = None,
            Ok(count) => {
                self.search(count);
                if let (Some(log), Some(name)) = (log, self.name) {
                    log.write(name, &self.buffer[..count]);
                }
                (self.from, self.to) = (0, if self.sink.is_some() { count } else { 0 });
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // EIO: the last process of a terminal has ended.
            Err(_) => self.source = None,
        }
        false
    }

    fn search(&mut self, count: usize) {
        let searched = count.min(self.to_search);
        self.to_search -= searched;
        let mut windows = self.buffer[..searched].windows(READ_ONLY.len());
        self.met_read_only |= windows.any(|window| window == READ_ONLY);
    }

    fn write(&mut self) {
        let Some(sink) = self.sink else {
            self.give_up();
            return;
        };
        let end = self.to.min(self.from + PIECE_BYTES);
        match rustix::io::write(sink, &self.buffer[self.from..end]) {
            Ok(count) => self.from += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.give_up(),
        }
    }

    /// Takes what is still there once nobody writes any more.
    fn finish(&mut self, log: &mut Option<Log>) {
        while self.source.is_some() && self.is_empty() {
            if !self.read(log) {
                self.source = None;
            }
        }
    }

    /// The reader is gone: what comes is read and dropped, so that the program goes on.
    fn give_up(&mut self) {
        self.sink = None;
        (self.from, self.to) = (0, 0);
    }
}

/// The container's process and those who have a say about it.
struct Watch<'a> {
    started: &'a Started,
    terminal: Option<&'a OwnedFd>,
    /// The caller still listens.
    attached: bool,
    /// When the program was first seen to have ended.
    ended: Option<Instant>,
    exit: Option<Exit>,
}

impl Watch<'_> {
    /// Passes on what others send to us.
    fn take_signals(&self, signals: &SignalFd) {
        while let Ok(Some(signal)) = signals.take() {
            self.send(signal);
        }
    }

    fn send(&self, signal: u8) {
        // It may have ended meanwhile.
        signal::send(&self.started.process, signal).ok();
    }

    fn take_request(&mut self, control: &OwnedFd) {
        let mut buffer = [0; MESSAGE_MAX_BYTES];
        match socket::receive(control, &mut buffer, true) {
            Ok((0, _)) => self.attached = false,
            Ok((length, _)) => match (decode(&buffer[..length]), self.terminal) {
                (Ok(Request::Signal(signal)), _) => self.send(signal),
                (Ok(Request::Resize(size)), Some(terminal)) => set_size(terminal, size),
                _ => {}
            },
            Err(error) if error.is(Errno::AGAIN) => {}
            Err(_) => self.attached = false,
        }
    }

    fn look(&mut self) {
        let id = WaitId::PidFd(self.started.process.as_fd());
        let status = match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => status,
            Ok(None) | Err(Errno::INTR) => return,
            // crun returns while a child of its, the program's parent, is still about to exit; only
            // then the program is ours. A runtime that stays keeps the status for itself.
            Err(Errno::CHILD)
                if self.ended.get_or_insert_with(Instant::now).elapsed() < ADOPTION =>
            {
                std::thread::sleep(ADOPTION_STEP);
                return;
            }
            Err(_) => {
                self.exit = Some(Exit::Code(UNKNOWN));
                return;
            }
        };
        let byte = |number: i32| u8::try_from(number).unwrap_or(UNKNOWN);
        self.exit = Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(byte(code)),
            (None, Some(signal)) => Exit::Signal(byte(signal)),
            (None, None) => Exit::Code(UNKNOWN),
        });
    }
}

/// Relays until the end; answers how the program ended.
pub(crate) fn relay(
    plan: &MonitorPlan,
    control: &OwnedFd,
    signals: &SignalFd,
    started: &Started,
    sides: &Sides,
) -> Ending {
    // A log that cannot be written must not keep the container from running.
    let mut log = plan.log.as_ref().and_then(|plan| Log::open(plan).ok());
    let terminal = sides.terminal.as_ref();
    let output = sides.output.as_ref().or(terminal);
    let errors = sides.errors.as_ref();
    let input = terminal.and(sides.stdin.as_ref());
    let mut streams = [
        Stream::new(output, Some(&sides.stdout), Some(StreamName::Stdout)),
        Stream::new(errors, Some(&sides.stderr), Some(StreamName::Stderr)),
        Stream::new(input, terminal, None),
    ];
    let mut watch = Watch {
        started,
        terminal,
        attached: true,
        ended: None,
        exit: None,
    };
    loop {
        if let Some(exit) = watch.exit {
            streams[..2].iter_mut().for_each(|s| s.finish(&mut log));
            if streams[..2].iter().all(Stream::is_done) {
                return Ending {
                    exit,
                    met_read_only: streams.iter().any(|stream| stream.met_read_only),
                };
            }
        }
        // Stands where nothing is waited for; never in error itself.
        let idle = signals.as_fd();
        let when = |wanted: bool, fd| match wanted {
            true => PollFd::from_borrowed_fd(fd, PollFlags::IN),
            false => PollFd::from_borrowed_fd(idle, PollFlags::empty()),
        };
        let mut fds = [
            when(true, signals.as_fd()),
            when(watch.attached, control.as_fd()),
            when(watch.exit.is_none(), started.process.as_fd()),
            streams[0].interest(idle),
            streams[1].interest(idle),
            streams[2].interest(idle),
        ];
        if poll(&mut fds, None).is_err() {
            // Interrupted, or the kernel is out of memory: the next turn may do better.
            continue;
        }
        let ready = fds.map(|fd| fd.revents());
        if !ready[0].is_empty() {
            watch.take_signals(signals);
        }
        if !ready[1].is_empty() {
            watch.take_request(control);
            if !watch.attached {
                streams[..2].iter_mut().for_each(Stream::give_up);
            }
        }
        if !ready[2].is_empty() {
            watch.look();
        }
        for (stream, revents) in streams.iter_mut().zip(&ready[3..]) {
            stream.step(*revents, &mut log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        (reader.into(), writer.into())
    }

    fn pump(stream: &mut Stream<'_>) {
        for _ in 0..100 {
            let before = stream.is_empty();
            stream.step(PollFlags::IN, &mut None);
            if before && stream.is_empty() {
                return;
            }
        }
    }

    #[test]
    fn bytes_are_delivered_in_order_and_to_the_last() {
        let (source, writer) = pipe();
        let (mut reader, sink) = std::io::pipe().unwrap();
        let sink: OwnedFd = sink.into();
        let sent: Vec<u8> = (0..30_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::File::from(writer).write_all(&sent).unwrap();
        let mut stream = Stream::new(Some(&source), Some(&sink), None);
        while !stream.is_done() {
            stream.finish(&mut None);
            pump(&mut stream);
        }
        drop(sink);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == sent);
    }

    #[test]
    fn reader_that_is_gone_does_not_end_the_stream() {
        let (source, writer) = pipe();
        let (reader, sink) = std::io::pipe().unwrap();
        drop(reader);
        let sink: OwnedFd = sink.into();
        let mut stream = Stream::new(Some(&source), Some(&sink), None);
        let mut writer = std::fs::File::from(writer);
        for _ in 0..3 {
            writer.write_all(b"nobody reads this").unwrap();
            pump(&mut stream);
            assert!(stream.is_empty() && stream.source.is_some());
        }
        drop(writer);
        stream.finish(&mut None);
        assert!(stream.is_done());
    }
}
