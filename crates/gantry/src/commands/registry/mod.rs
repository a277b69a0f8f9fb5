// SPDX-License-Identifier: Apache-2.0
//! Verbs of the registry.

pub mod serve;

use crate::context::Context;
use crate::exit::Outcome;

/// Serve and care for a registry.
#[derive(Debug, clap::Subcommand)]
pub enum RegistryCommand {
    Serve(serve::Serve),
}

impl RegistryCommand {
    /// Calls the verb.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Serve(verb) => verb.run(context),
        }
    }
}
