// SPDX-License-Identifier: Apache-2.0
//! Which images are admitted: showing, changing and explaining the policy.

pub mod serve;

use crate::context::Context;
use crate::exit::Outcome;

/// Say which images may run, and see why.
///
/// The policy is the policy.json that podman and skopeo read, too. Gantry's own rules, which
/// can only be stricter, lie in /etc/gantry/trust.d and ~/.config/gantry/trust.d.
#[derive(Debug, clap::Subcommand)]
pub enum TrustCommand {
    Serve(Box<serve::Serve>),
}

impl TrustCommand {
    /// Calls the verb.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Serve(verb) => verb.run(context),
        }
    }
}
