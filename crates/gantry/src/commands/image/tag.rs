// SPDX-License-Identifier: Apache-2.0
//! `gantry tag`.

use std::process::ExitCode;

use gantry_store::Store;

use super::endpoint;
use crate::context::Context;
use crate::exit::Outcome;
use crate::lookup;

/// Give an image of the local store more names.
///
/// A name that another image has moves. A name without a registry in front is one of this machine: localhost/NAME.
#[derive(Debug, clap::Args)]
pub struct Tag {
    /// The image: a name, an image ID or a digest
    image: String,
    /// The new names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Tag {
    /// Names it.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open(&context.root)?;
        let search = endpoint::search_registries()?;
        let found = lookup::find(&store, &self.image, &search)?;
        // All are read before the first one is written.
        let names = self
            .names
            .iter()
            .map(|name| lookup::new_name(&store, name))
            .collect::<Result<Vec<_>, _>>()?;
        for name in &names {
            store.tag(name, &found.record.digest)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
