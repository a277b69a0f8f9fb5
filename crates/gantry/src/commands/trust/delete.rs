// SPDX-License-Identifier: Apache-2.0
//! `gantry trust delete`.

use gantry_trust::policy::Edit;

use super::edit::EditArgs;
use crate::context::Context;
use crate::exit::Outcome;

/// Forget what stands for a scope; what stands for the next wider one holds there then.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// The scope; "" stands for the whole transport
    scope: String,
    /// The transport
    #[arg(long, value_name = "NAME", default_value = "docker")]
    transport: String,
    /// Whether it is done.
    #[command(flatten)]
    edit: EditArgs,
}

impl Delete {
    /// Changes the policy.
    pub fn run(self, context: &Context) -> Outcome {
        let edit = Edit::Delete {
            transport: self.transport,
            scope: self.scope,
        };
        self.edit.apply(context, &edit)
    }
}
