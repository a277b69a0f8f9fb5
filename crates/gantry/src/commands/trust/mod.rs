// SPDX-License-Identifier: Apache-2.0
//! Which images are admitted: showing, changing and explaining the policy.

pub mod default;
pub mod delete;
pub mod edit;
pub mod explain;
pub mod render;
pub mod serve;
pub mod set;
pub mod show;

use crate::context::Context;
use crate::exit::Outcome;

/// Say which images may run, and see why.
///
/// The policy is the policy.json that podman and skopeo read, too. Gantry's own rules, which
/// can only be stricter, lie in /etc/gantry/trust.d and ~/.config/gantry/trust.d.
#[derive(Debug, clap::Subcommand)]
pub enum TrustCommand {
    Show(show::Show),
    Set(Box<set::Set>),
    Delete(delete::Delete),
    Default(default::DefaultVerb),
    Explain(Box<explain::Explain>),
    Render(render::Render),
    Serve(Box<serve::Serve>),
}

impl TrustCommand {
    /// Calls the verb.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Show(verb) => verb.run(context),
            Self::Set(verb) => verb.run(context),
            Self::Delete(verb) => verb.run(context),
            Self::Default(verb) => verb.run(context),
            Self::Explain(verb) => verb.run(context),
            Self::Render(verb) => verb.run(context),
            Self::Serve(verb) => verb.run(context),
        }
    }
}
