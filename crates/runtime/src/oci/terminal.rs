// SPDX-License-Identifier: Apache-2.0
//! The terminal of a process of the container.
//!
//! It is made in the container's own devpts, by descriptor: the other end of the pair is asked for by
//! `TIOCGPTPEER`, so that no path under the container's control is ever opened (CVE-2025-52565).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_sys::socket;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::error::{Doing as _, RuntimeError};

/// What goes with the descriptor of the terminal, as runc sends it.
const NAME: &[u8] = b"/dev/ptmx";

/// Connects to whoever wants the terminal.
pub(super) fn connect(path: &Path) -> Result<OwnedFd, RuntimeError> {
    socket::connect(path).doing(|| format!("connect to the console socket {}", path.display()))
}

/// Makes a terminal, hands its master side over, and makes its other side the standard streams and
/// the controlling terminal of this process, which leads a session.
pub(super) fn make(
    devpts: Option<BorrowedFd<'_>>,
    console: &OwnedFd,
    size: Option<(u16, u16)>,
    uid: u32,
) -> Result<OwnedFd, RuntimeError> {
    let doing = || "make a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = match devpts {
        Some(devpts) => rustix::fs::openat(devpts, "ptmx", flags, Mode::empty()),
        None => rustix::fs::openat(CWD, "/dev/ptmx", flags, Mode::empty()),
    }
    .doing(doing)?;
    rustix::pty::unlockpt(&master).doing(doing)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let other = rustix::pty::ioctl_tiocgptpeer(&master, flags).doing(doing)?;
    if let Some((rows, columns)) = size {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size).doing(doing)?;
    }
    // The user of the container opens it again by /dev/stdin and the like.
    rustix::fs::fchown(&other, Some(Uid::from_raw(uid)), None).ok();
    socket::send(console, NAME, &[master.as_fd()]).doing(|| "hand over the terminal")?;
    Ok(other)
}

/// Makes an open terminal the standard streams and the controlling terminal.
pub(super) fn adopt(terminal: &OwnedFd) -> Result<(), RuntimeError> {
    let doing = || "take the terminal";
    rustix::process::ioctl_tiocsctty(terminal).doing(doing)?;
    rustix::stdio::dup2_stdin(terminal).doing(doing)?;
    rustix::stdio::dup2_stdout(terminal).doing(doing)?;
    rustix::stdio::dup2_stderr(terminal).doing(doing)
}

/// Standard streams that are the host's null device become the container's: nothing of the host's mounts is held open,
/// without which no process can be checkpointed. `open` opens the container's.
pub(super) fn own_null(open: impl Fn() -> Option<OwnedFd>) -> Result<(), RuntimeError> {
    let null = rustix::fs::makedev(1, 3);
    let is_null = |fd: BorrowedFd<'_>| {
        rustix::fs::fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == null
        })
    };
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ]
    .map(is_null);
    if streams == [false; 3] {
        return Ok(());
    }
    // Where the container has none, or something else in its place, the host's stays.
    let Some(own) = open().filter(|own| is_null(own.as_fd())) else {
        return Ok(());
    };
    let doing = || "open the container's /dev/null";
    if streams[0] {
        rustix::stdio::dup2_stdin(&own).doing(doing)?;
    }
    if streams[1] {
        rustix::stdio::dup2_stdout(&own).doing(doing)?;
    }
    if streams[2] {
        rustix::stdio::dup2_stderr(&own).doing(doing)?;
    }
    Ok(())
}

/// Gives pipes and files that are the standard streams to the container's user, who opens them again
/// by `/dev/stdout` and the like. What cannot be given stays.
pub(super) fn give_streams(uid: u32) {
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    let null = rustix::fs::makedev(1, 3);
    for stream in streams {
        let Ok(stat) = rustix::fs::fstat(stream) else {
            continue;
        };
        if stat.st_uid == uid || stat.st_rdev == null {
            continue;
        }
        rustix::fs::chownat(
            stream,
            "",
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(stat.st_gid)),
            AtFlags::EMPTY_PATH,
        )
        .ok();
    }
}
