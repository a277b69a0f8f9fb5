// SPDX-License-Identifier: Apache-2.0
//! One file for each verb, in a folder for each noun.

pub mod system;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Outcome;

/// Calls the verb.
pub fn dispatch(command: Command, _context: &Context) -> Outcome {
    match command {
        Command::Completion(verb) => verb.run(),
        Command::Man(verb) => verb.run(),
        Command::Version(verb) => verb.run(),
    }
}
