// SPDX-License-Identifier: Apache-2.0
//! The small set of reasons that every error of Gantry answers to.

/// Why an operation failed, coarsely: what a caller at an edge branches on.
///
/// Each crate's errors answer `kind()`. The three edges (gRPC status,
/// distribution error code, exit status) translate this and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller's words do not make sense (a malformed name, a bad option).
    InvalidInput,
    /// The thing named does not exist.
    NotFound,
    /// The thing to be made is there already.
    AlreadyExists,
    /// Not allowed: by policy, by credentials or by file permissions.
    Denied,
    /// Bytes are not what their digest, size or format says.
    Corrupt,
    /// Looks like an attack: an escape, a bomb, a parser trick.
    Unsafe,
    /// The kernel or the peer lacks what would be needed.
    Unsupported,
    /// Somebody else holds it; later may work.
    Busy,
    /// No space, inodes or quota left.
    NoSpace,
    /// The peer did not answer or answered with a temporary failure.
    Unavailable,
    /// The caller gave up.
    Cancelled,
    /// The operating system said so, with this `errno`.
    Os(i32),
    /// A bug in Gantry.
    Internal,
}

impl Kind {
    /// Classifies an I/O error.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        match error.kind() {
            E::NotFound => Self::NotFound,
            E::PermissionDenied | E::ReadOnlyFilesystem => Self::Denied,
            E::AlreadyExists => Self::AlreadyExists,
            E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Self::NoSpace,
            E::InvalidData | E::UnexpectedEof => Self::Corrupt,
            E::InvalidInput => Self::InvalidInput,
            E::Unsupported => Self::Unsupported,
            E::ResourceBusy => Self::Busy,
            E::ConnectionRefused
            | E::ConnectionReset
            | E::ConnectionAborted
            | E::TimedOut
            | E::HostUnreachable
            | E::NetworkUnreachable
            | E::NotConnected
            | E::BrokenPipe => Self::Unavailable,
            E::Interrupted => Self::Cancelled,
            _ => error.raw_os_error().map_or(Self::Internal, Self::Os),
        }
    }
}
