// SPDX-License-Identifier: Apache-2.0
//! Handing a filter's listener to the agent that answers for its calls.
//!
//! The process that installs the filter says the descriptor's number to the runtime with one `write`, which is why that
//! call cannot be referred to the agent; the runtime takes a duplicate (`pidfd_getfd(2)`) and sends it on.
//!
//! # Source
//! runtime-spec "The Container Process State", "Seccomp"; `unix(7)`, `SCM_RIGHTS`.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_sys::SysError;
use serde::Serialize;

use super::Listener;

/// What the descriptor is called in the message.
const DESCRIPTOR: &str = "seccompFd";

/// What the agent is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a, S> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a S,
}

/// Why the agent does not have the listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// Nobody listens.
    #[error("connect to the seccomp agent at {path}")]
    Connect {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A state that is no JSON: a bug.
    #[error("render the state for the seccomp agent")]
    Render(#[source] serde_json::Error),
    /// The agent went away.
    #[error("send the listener to the seccomp agent at {path}")]
    Send {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SysError,
    },
}

impl HandOverError {
    /// The reason, coarsely.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect { source, .. } => Kind::of_io(source),
            Self::Render(_) => Kind::Internal,
            Self::Send { source, .. } => Kind::of_io(&source.source),
        }
    }
}

/// Sends the listener of the process `pid` to its agent, with the container's state (which says `ociVersion`).
///
/// # Errors
/// The agent cannot be reached.
pub fn hand_over(
    listener: &Listener,
    oci_version: &str,
    pid: u32,
    state: &impl Serialize,
    fd: BorrowedFd<'_>,
) -> Result<(), HandOverError> {
    let message = ContainerProcessState {
        oci_version,
        fds: [DESCRIPTOR],
        pid,
        metadata: listener.metadata.as_deref(),
        state,
    };
    let message = serde_json::to_vec(&message).map_err(HandOverError::Render)?;
    let socket = UnixStream::connect(&listener.path).map_err(|source| HandOverError::Connect {
        path: listener.path.clone(),
        source,
    })?;
    gantry_sys::socket::send(&socket, &message, &[fd]).map_err(|source| HandOverError::Send {
        path: listener.path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixListener;

    #[test]
    fn agent_gets_the_descriptor_and_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let agent = UnixListener::bind(&path).unwrap();
        let listener = Listener {
            path,
            metadata: Some("mine".to_owned()),
        };
        let (reader, writer) = std::io::pipe().unwrap();
        let state = serde_json::json!({"id": "c", "status": "creating"});
        hand_over(&listener, "1.2.0", 7, &state, writer.as_fd()).unwrap();
        let (socket, _) = agent.accept().unwrap();
        let mut buffer = [0; 1024];
        let (length, fds) = gantry_sys::socket::receive(&socket, &mut buffer, false).unwrap();
        let message: serde_json::Value = serde_json::from_slice(&buffer[..length]).unwrap();
        let want = serde_json::json!({
            "ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 7, "metadata": "mine", "state": state,
        });
        assert_eq!((message, fds.len()), (want, 1));
        drop(reader);
    }

    #[test]
    fn absent_agent_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener {
            path: dir.path().join("agent"),
            metadata: None,
        };
        let (_reader, writer) = std::io::pipe().unwrap();
        let error = hand_over(&listener, "1.2.0", 7, &(), writer.as_fd()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
}
