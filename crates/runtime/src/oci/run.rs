// SPDX-License-Identifier: Apache-2.0
//! `run`: create and start in one, and, unless detached, until the end.

use super::delete;
use super::error::RuntimeError;
use super::foreground::Foreground;
use super::hooks;
use super::launch::{Context, CreateOptions, Launched, launch, state_bytes};
use super::state::Status;

/// What `run` is told beside `create`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunMode {
    /// Returns once the program runs.
    pub detach: bool,
    /// Keeps the container when its program has ended.
    pub keep: bool,
}

/// Runs a container; answers the status of its program, 0 if detached.
///
/// # Errors
/// Anything on the way; nothing is left behind.
pub fn run(
    context: &Context<'_>,
    id: &str,
    options: &CreateOptions,
    mode: RunMode,
) -> Result<u8, RuntimeError> {
    if mode.detach {
        let launched = launch(context, id, options, false, None)?;
        after_start(context, &launched)?;
        return Ok(0);
    }
    let mut foreground = Foreground::begin()?;
    let relay = match options.console_socket {
        Some(_) => None,
        None => Some(foreground.offer_terminal()?),
    };
    let launched = launch(context, id, options, false, relay)?;
    after_start(context, &launched)?;
    if launched
        .spec
        .process()
        .as_ref()
        .and_then(oci_spec::runtime::Process::terminal)
        != Some(true)
    {
        foreground.forget_terminal();
    }
    let status = foreground.wait(&launched.child)?;
    if !mode.keep {
        let hooks = launched.spec.hooks().as_ref();
        delete::remove(context, launched.state, &launched.record, hooks)?;
    }
    Ok(status)
}

fn after_start(context: &Context<'_>, launched: &Launched) -> Result<(), RuntimeError> {
    let list = launched
        .spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.poststart().as_ref());
    if let Some(list) = list {
        let state = state_bytes(&launched.record, Status::Running)?;
        for sentence in hooks::run_all("poststart", Some(list), &state) {
            (context.warn)(&sentence);
        }
    }
    Ok(())
}
