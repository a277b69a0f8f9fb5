// SPDX-License-Identifier: Apache-2.0
//! `delete`: nothing remains of a container.

use std::time::{Duration, Instant};

use oci_spec::runtime::Hooks;

use super::error::{Doing as _, RuntimeError};
use super::groups::Groups;
use super::hooks;
use super::launch::{Context, parse_document, state_bytes};
use super::state::{Record, StateDir, Status, is_alive};

/// How long a killed process may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Removes a container that has ended; `force` ends it first, and does not mind if there is none.
///
/// # Errors
/// It runs; what is left of it cannot be removed.
pub fn delete(context: &Context<'_>, id: &str, force: bool) -> Result<(), RuntimeError> {
    let state = match StateDir::open(&context.root, id) {
        Err(RuntimeError::NotFound { .. }) if force => return Ok(()),
        other => other?,
    };
    let Some(record) = state.record()? else {
        // The runtime died before it made anything else.
        return if force {
            state.remove()
        } else {
            Err(RuntimeError::Status {
                verb: "delete",
                id: id.to_owned(),
                status: Status::Creating,
            })
        };
    };
    match state.status(&record)? {
        Status::Stopped => {}
        _ if force => end(&record)?,
        status => {
            return Err(RuntimeError::Status {
                verb: "delete",
                id: id.to_owned(),
                status,
            });
        }
    }
    let spec = state
        .config()
        .ok()
        .and_then(|bytes| parse_document(&bytes).ok());
    let hooks = spec.as_ref().and_then(|spec| spec.hooks().as_ref());
    remove(context, state, &record, hooks)
}

/// Removes what is kept of a container whose processes have ended, and runs its last hooks.
pub(super) fn remove(
    context: &Context<'_>,
    state: StateDir,
    record: &Record,
    hooks: Option<&Hooks>,
) -> Result<(), RuntimeError> {
    if let Some(groups) = Groups::remembered(record)? {
        groups.delete()?;
    }
    if let Some(class) = &record.resctrl {
        class.remove()?;
    }
    state.remove()?;
    if let Some(list) = hooks.and_then(|hooks| hooks.poststop().as_ref()) {
        let bytes = state_bytes(record, Status::Stopped)?;
        for sentence in hooks::run_all("poststop", Some(list), &bytes) {
            (context.warn)(&sentence);
        }
    }
    Ok(())
}

/// Kills every process of the container and waits for the first to end.
fn end(record: &Record) -> Result<(), RuntimeError> {
    if let Some(groups) = Groups::from_record(record)? {
        groups.kill()?;
    }
    if record.pid == 0 {
        return Ok(());
    }
    super::kill::signal_first(record, 9)?;
    let deadline = Instant::now() + END_TIMEOUT;
    while is_alive(record)? {
        if Instant::now() > deadline {
            return Err(gantry_sys::Errno::TIMEDOUT)
                .doing(|| format!("end process {} of container {}", record.pid, record.id));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
