// SPDX-License-Identifier: Apache-2.0
//! Unix sockets that carry messages and descriptors between our processes.

use crate::error::{Context, Result, SysError, describe_fd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// The most descriptors that one message carries here.
pub const FDS_MAX: usize = 8;

/// Makes a connected pair that keeps messages apart.
///
/// # Errors
/// The kernel's refusal.
pub fn message_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .call("socketpair", || "AF_UNIX, SOCK_SEQPACKET".to_owned())
}

/// Sends one message with descriptors; both arrive together.
///
/// # Errors
/// The kernel's refusal; `EPIPE` when the other end is gone (no signal is raised).
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let socket = socket.as_fd();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let action = || format!("{}, {} bytes", describe_fd(socket), message.len());
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(SysError::new("sendmsg", action(), Errno::TOOBIG));
    }
    let parts = [IoSlice::new(message)];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)
        .call("sendmsg", action)?;
    Ok(())
}

/// Receives one message into `buffer`: its length and the descriptors that came with it.
///
/// A length of zero is the end: nobody here sends empty messages.
///
/// # Errors
/// The kernel's refusal; `EAGAIN` when `nonblocking` and nothing is there; `EMSGSIZE` for a message
/// that does not fit.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    nonblocking: bool,
) -> Result<(usize, Vec<OwnedFd>)> {
    let socket = socket.as_fd();
    let action = || describe_fd(socket);
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if nonblocking {
        flags |= RecvFlags::DONTWAIT;
    }
    let mut parts = [IoSliceMut::new(buffer)];
    let received =
        rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut parts, &mut control, flags))
            .call("recvmsg", action)?;
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(SysError::new("recvmsg", action(), Errno::MSGSIZE));
    }
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((received.bytes, fds))
}

/// Listens on a name of a directory, which must not exist there; for one connection that is accepted
/// without waiting.
///
/// The directory's own path may be longer than an address holds.
///
/// # Errors
/// The kernel's refusal.
pub fn listen(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    let action = || format!("{}, {name:?}", describe_fd(dir));
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    let address = SocketAddrUnix::new(path.as_str()).call("bind", action)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .call("socket", || "AF_UNIX, SOCK_STREAM".to_owned())?;
    rustix::net::bind(&socket, &address).call("bind", action)?;
    rustix::net::listen(&socket, 1).call("listen", action)?;
    Ok(socket)
}

/// Connects to the socket at `path`; its directory's own path may be longer than an address holds.
///
/// # Errors
/// The kernel's refusal.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let action = || format!("{path:?}");
    let invalid = || SysError::new("connect", action(), Errno::INVAL);
    let name = path.file_name().ok_or_else(invalid)?;
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty()).call("open", action)?;
    connect_at(&dir, &name.to_string_lossy())
}

/// Connects to the socket `name` of a directory.
///
/// # Errors
/// The kernel's refusal.
pub fn connect_at(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    let action = || format!("{}, {name:?}", describe_fd(dir));
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    let address = SocketAddrUnix::new(path.as_str()).call("connect", action)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .call("socket", || "AF_UNIX, SOCK_STREAM".to_owned())?;
    rustix::net::connect(&socket, &address).call("connect", action)?;
    Ok(socket)
}

/// Accepts a connection of [`listen`]'s socket; the connection blocks.
///
/// # Errors
/// The kernel's refusal; `EAGAIN` when nobody has connected.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd> {
    let listener = listener.as_fd();
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC)
        .call("accept4", || describe_fd(listener))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn message_and_descriptor_arrive_together() {
        let (left, right) = message_pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&left, b"take this", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        let (length, mut fds) = receive(&right, &mut buffer, false).unwrap();
        assert_eq!(&buffer[..length], b"take this");
        std::fs::File::from(fds.pop().unwrap())
            .write_all(b"through")
            .unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), fds.len()), ("through", 0));
        assert!(
            receive(&right, &mut buffer, true)
                .unwrap_err()
                .is(Errno::AGAIN)
        );
        drop(left);
        assert_eq!(receive(&right, &mut buffer, false).unwrap().0, 0);
    }

    #[test]
    fn socket_of_a_deep_directory_can_be_reached_from_within_it() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let fd = std::fs::File::open(&deep).unwrap();
        let listener = listen(&fd, "s").unwrap();
        assert!(accept(&listener).unwrap_err().is(Errno::AGAIN));
        let through = format!("/proc/self/fd/{}/s", fd.as_raw_fd());
        let client = std::os::unix::net::UnixStream::connect(through).unwrap();
        accept(&listener).unwrap();
        drop(client);
    }

    #[test]
    fn message_that_does_not_fit_is_an_error() {
        let (left, right) = message_pair().unwrap();
        send(&left, &[1; 100], &[]).unwrap();
        let error = receive(&right, &mut [0; 10], false).unwrap_err();
        assert!(error.is(Errno::MSGSIZE));
    }
}
