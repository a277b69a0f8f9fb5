// SPDX-License-Identifier: Apache-2.0
//! Care of the store.

pub mod check;
pub mod du;
pub mod gc;
pub mod repair;
pub mod seal;

use crate::context::Context;
use crate::exit::Outcome;

/// Check, mend, measure and clean the local store.
#[derive(Debug, clap::Subcommand)]
pub enum StoreCommand {
    Check(check::Check),
    Du(du::Du),
    Gc(gc::Gc),
    Repair(Box<repair::Repair>),
    Seal(seal::Seal),
}

impl StoreCommand {
    /// Calls the verb.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Check(verb) => verb.run(context),
            Self::Du(verb) => verb.run(context),
            Self::Gc(verb) => verb.run(context),
            Self::Repair(verb) => verb.run(context),
            Self::Seal(verb) => verb.run(context),
        }
    }
}
