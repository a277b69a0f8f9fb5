// SPDX-License-Identifier: Apache-2.0
//! `start`: the program of a created container.

use std::io::Read as _;

use gantry_sys::Errno;
use gantry_sys::socket;

use super::error::{Doing as _, RuntimeError};
use super::hooks;
use super::launch::{Context, parse_document, state_bytes};
use super::state::{START_SOCKET, StateDir, Status};

/// Lets the program run; returns once it does.
///
/// # Errors
/// The container waits for no start; its program cannot be executed.
pub fn start(context: &Context<'_>, id: &str) -> Result<(), RuntimeError> {
    let state = StateDir::open(&context.root, id)?;
    let record = state.expect_record()?;
    let status = state.status(&record)?;
    let refused = |status| RuntimeError::Status {
        verb: "start",
        id: id.to_owned(),
        status,
    };
    if status != Status::Created {
        return Err(refused(status));
    }
    let connection = match socket::connect_at(&state, START_SOCKET) {
        Err(error) if error.is(Errno::CONNREFUSED) || error.is(Errno::NOENT) => {
            return Err(refused(state.status(&record)?));
        }
        other => other.doing(|| "knock at the container")?,
    };
    let mut said = Vec::new();
    let read = std::fs::File::from(connection).read_to_end(&mut said);
    match (read, said.split_first()) {
        // It took our connection, and its end closed by becoming the program.
        (_, Some((b'S', []))) => {}
        (_, Some((b'S', rest))) => {
            let sentence = String::from_utf8_lossy(rest.strip_prefix(b"F").unwrap_or(rest));
            return Err(RuntimeError::Init(sentence.into_owned()));
        }
        // Somebody else's connection was taken first.
        _ => return Err(refused(Status::Running)),
    }
    match rustix::fs::unlinkat(&state, START_SOCKET, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        other => other.doing(|| "forget the socket for start")?,
    }
    let spec = parse_document(&state.config()?)
        .map_err(std::io::Error::from)
        .doing(|| "read the document that was kept")?;
    if let Some(list) = spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.poststart().as_ref())
    {
        let bytes = state_bytes(&record, Status::Running)?;
        for sentence in hooks::run_all("poststart", Some(list), &bytes) {
            (context.warn)(&sentence);
        }
    }
    Ok(())
}
