// SPDX-License-Identifier: Apache-2.0
//! The asynchronous part of a command: one thread, started by the verbs that
//! need the network and by no other.

use std::time::Duration;

use gantry_oci::Kind;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Failure;

/// Runs a future to its end, or until the user interrupts it.
///
/// # Errors
/// The future's own; [`Kind::Cancelled`] after an interrupt.
pub fn run<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from(error).context("start the asynchronous runtime"))?;
    let outcome = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        tokio::select! {
            outcome = future => outcome,
            _ = interrupt.recv() => Err(Failure::message(Kind::Cancelled, "interrupted")),
            _ = terminate.recv() => Err(Failure::message(Kind::Cancelled, "terminated").status(143)),
        }
    });
    // Blocking work that was given up ends when its channel does.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}
