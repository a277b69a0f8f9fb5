// SPDX-License-Identifier: Apache-2.0
//! What the runtime and the container's first process say to each other, over one pair of sockets
//! that keeps messages apart.
//!
//! ```text
//!  runtime                       init
//!     ── Placed ─────────────────►       all is done that only the runtime can do for it, and this is its pid
//!     ◄───────────── Prepared ──         only if the runtime has hooks to run now
//!     ── GoOn ───────────────────►
//!     ◄──────────────── Ready ──         only of `create`: it waits for `start`
//!     ◄──────────────── Failed ──        or: it closes by becoming the program
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_sys::{Errno, SysError, socket};

/// No message is longer; an error that is gets cut.
const MESSAGE_MAX_BYTES: usize = 16 << 10;

/// From the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToInit {
    /// With the pid, as the runtime sees it.
    Placed(u32),
    GoOn,
}

/// From init.
#[derive(Debug)]
pub(super) enum FromInit {
    /// Mounts are made, the root is not pivoted yet.
    Prepared,
    /// Waits for `start`.
    Ready,
    /// A seccomp listener, to be handed to the agent.
    Listener(OwnedFd),
    /// Over.
    Failed(String),
    /// The other end is gone: init became its program, or died.
    Closed,
}

/// The runtime's end.
#[derive(Debug)]
pub(super) struct Control(OwnedFd);

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Init's end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// Makes both.
pub(super) fn pair() -> Result<(Control, Channel), SysError> {
    socket::message_pair().map(|(one, other)| (Control(one), Channel(other)))
}

impl Control {
    pub(super) fn send(&self, message: ToInit) -> Result<(), SysError> {
        let (byte, pid) = match message {
            ToInit::Placed(pid) => (b'p', pid),
            ToInit::GoOn => (b'g', 0),
        };
        let [a, b, c, d] = pid.to_ne_bytes();
        match socket::send(&self.0, &[byte, a, b, c, d], &[]) {
            // Whatever ended init is what is to be told.
            Err(error) if error.is(Errno::PIPE) => Ok(()),
            other => other,
        }
    }

    /// Why init has ended, if it has and said so.
    pub(super) fn reason_of_end(&self) -> Option<String> {
        match self.take(true) {
            Ok(FromInit::Failed(sentence)) => Some(sentence),
            _ => None,
        }
    }

    /// Waits for what init says next.
    pub(super) fn receive(&self) -> Result<FromInit, SysError> {
        self.take(false)
    }

    fn take(&self, nonblocking: bool) -> Result<FromInit, SysError> {
        let mut buffer = vec![0; MESSAGE_MAX_BYTES];
        let mut received = socket::receive(&self.0, &mut buffer, nonblocking);
        if matches!(&received, Err(error) if error.is(Errno::CONNRESET)) {
            // Init ended before it heard what it was told last; the kernel says so once, before what init said.
            received = socket::receive(&self.0, &mut buffer, nonblocking);
        }
        let (length, mut fds) = received?;
        Ok(match buffer[..length].split_first() {
            None => FromInit::Closed,
            Some((b'P', _)) => FromInit::Prepared,
            Some((b'R', _)) => FromInit::Ready,
            Some((b'L', _)) => match fds.pop() {
                Some(listener) => FromInit::Listener(listener),
                None => FromInit::Failed("seccomp listener: none was sent".to_owned()),
            },
            Some((_, text)) => FromInit::Failed(String::from_utf8_lossy(text).into_owned()),
        })
    }
}

impl Channel {
    /// Waits until it has its place; answers its pid. `EPIPE` when the runtime is gone.
    pub(super) fn wait_placed(&self) -> Result<u32, SysError> {
        self.wait(b'p')
    }

    /// Waits until the runtime's hooks have run.
    pub(super) fn wait_go_on(&self) -> Result<(), SysError> {
        self.wait(b'g').map(drop)
    }

    fn wait(&self, wanted: u8) -> Result<u32, SysError> {
        let mut buffer = [0; 8];
        let (length, _) = socket::receive(&self.0, &mut buffer, false)?;
        match buffer[..length] {
            [byte, a, b, c, d] if byte == wanted => Ok(u32::from_ne_bytes([a, b, c, d])),
            [] => Err(SysError::new("recvmsg", "runtime".to_owned(), Errno::PIPE)),
            _ => Err(SysError::new("recvmsg", "runtime".to_owned(), Errno::PROTO)),
        }
    }

    pub(super) fn prepared(&self) -> Result<(), SysError> {
        socket::send(&self.0, b"P", &[])
    }

    pub(super) fn ready(&self) -> Result<(), SysError> {
        socket::send(&self.0, b"R", &[])
    }

    pub(super) fn listener(&self, listener: BorrowedFd<'_>) -> Result<(), SysError> {
        socket::send(&self.0, b"L", &[listener])
    }

    /// Says why it is over; nobody may be there to hear it.
    pub(super) fn failed(&self, sentence: &str) {
        let mut message = vec![b'F'];
        let most = sentence.len().min(MESSAGE_MAX_BYTES - 1);
        message.extend_from_slice(&sentence.as_bytes()[..most]);
        socket::send(&self.0, &message, &[]).ok();
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order_and_the_end_is_seen() {
        let (control, channel) = pair().unwrap();
        control.send(ToInit::Placed(7)).unwrap();
        control.send(ToInit::GoOn).unwrap();
        assert_eq!(channel.wait_placed().unwrap(), 7);
        channel.wait_go_on().unwrap();
        assert_eq!(control.reason_of_end(), None);
        channel.ready().unwrap();
        channel.failed(&"x".repeat(1 << 20));
        assert!(matches!(control.receive().unwrap(), FromInit::Ready));
        let FromInit::Failed(text) = control.receive().unwrap() else {
            panic!("no failure");
        };
        assert_eq!(text.len(), MESSAGE_MAX_BYTES - 1);
        channel.failed("over");
        assert_eq!(control.reason_of_end().as_deref(), Some("over"));
        drop(channel);
        assert_eq!(control.reason_of_end(), None);
        assert!(matches!(control.receive().unwrap(), FromInit::Closed));
        assert!(control.send(ToInit::GoOn).is_ok());
    }

    #[test]
    fn what_init_said_is_heard_although_it_heard_nothing() {
        let (control, channel) = pair().unwrap();
        control.send(ToInit::Placed(7)).unwrap();
        channel.failed("no such mount");
        drop(channel);
        let FromInit::Failed(text) = control.receive().unwrap() else {
            panic!("no failure");
        };
        assert_eq!(text, "no such mount");
        assert!(matches!(control.receive().unwrap(), FromInit::Closed));
    }

    #[test]
    fn runtime_that_dies_is_noticed() {
        let (control, channel) = pair().unwrap();
        drop(control);
        assert!(channel.wait_placed().unwrap_err().is(Errno::PIPE));
    }
}
