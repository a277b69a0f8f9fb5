// SPDX-License-Identifier: Apache-2.0
//! Verbs of the registry.

mod gate;
pub mod serve;
pub mod waiting;

use crate::context::Context;
use crate::exit::Outcome;

/// Serve and care for a registry.
#[derive(Debug, clap::Subcommand)]
pub enum RegistryCommand {
    Serve(serve::Serve),
    Waiting(waiting::WaitingVerb),
}

impl RegistryCommand {
    /// Calls the verb.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Serve(verb) => verb.run(context),
            Self::Waiting(verb) => verb.run(context),
        }
    }
}
