// SPDX-License-Identifier: Apache-2.0
//! `gantry trust render`.

use std::process::ExitCode;

use crate::context::Context;
use crate::exit::Outcome;
use crate::output;
use crate::trust::Trust;

/// Print policy and rules as one plain policy.json, for tools that read nothing else.
///
/// It is never laxer than the policy, and as strict as the format can be: k of n signers become
/// any one of n, and where k is n, all of them. What the format has no words for is told on standard error.
#[derive(Debug, clap::Args)]
pub struct Render {}

impl Render {
    /// Prints it.
    pub fn run(self, context: &Context) -> Outcome {
        let trust = Trust::load(context)?;
        let rendered = gantry_trust::extra::render(trust.policy.policy(), &trust.extra);
        output::json(&rendered.policy)?;
        for lost in &rendered.lost {
            output::note_line(lost);
        }
        Ok(ExitCode::SUCCESS)
    }
}
