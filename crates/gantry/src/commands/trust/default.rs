// SPDX-License-Identifier: Apache-2.0
//! `gantry trust default`.

use clap::ValueEnum;
use gantry_oci::Limits;
use gantry_trust::Policy;
use gantry_trust::policy::{Edit, Requirement};

use super::edit::{self, EditArgs};
use crate::context::Context;
use crate::exit::Outcome;

/// Say what holds where nothing else is said.
///
/// Where there is no policy yet, one is written: to the file that --policy names, or else
/// /etc/containers/policy.json, or ~/.config/containers/policy.json of a user.
#[derive(Debug, clap::Args)]
pub struct DefaultVerb {
    /// Whether all images are admitted, or none
    #[arg(value_enum)]
    what: What,
    /// Whether it is done.
    #[command(flatten)]
    edit: EditArgs,
}

/// The two defaults.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum What {
    /// All are
    #[value(alias = "insecureAcceptAnything")]
    Accept,
    /// None is
    Reject,
}

impl DefaultVerb {
    /// Changes the policy, or writes a new one.
    pub fn run(self, context: &Context) -> Outcome {
        let requirement = match self.what {
            What::Accept => Requirement::InsecureAcceptAnything,
            What::Reject => Requirement::Reject,
        };
        let places = edit::places(context)?;
        if places.find()?.is_some() {
            return self.edit.apply(context, &Edit::Default(vec![requirement]));
        }
        let policy = Policy::with_default(&[requirement], &Limits::DEFAULT)?;
        self.edit.write(&edit::new_path(places), &policy)
    }
}
