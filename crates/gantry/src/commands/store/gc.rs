// SPDX-License-Identifier: Apache-2.0
//! `gantry store gc`.

use std::process::ExitCode;

use gantry_store::Store;
use serde::Serialize;

use crate::context::Context;
use crate::exit::Outcome;
use crate::output::{self, human_bytes};
use crate::progress::Counter;

/// Delete what no name and no container leads to: images, their layers, and the contents that only they had.
///
/// Waits for nobody: while an image is being brought in, it ends with status 9.
#[derive(Debug, clap::Args)]
pub struct Gc {
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    #[serde(flatten)]
    collection: &'a gantry_store::Collection,
}

impl Gc {
    /// Collects.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open(&context.root)?;
        let counter = Counter::new(context.progress, "collect garbage");
        let collection = store.collect_with(self.dry_run, &|done, all| counter.at(done, all));
        counter.finish();
        let collection = collection?;
        if self.json {
            output::json(&Report {
                dry_run: self.dry_run,
                collection: &collection,
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        for digest in &collection.images {
            output::line(format_args!("image {digest}"))?;
        }
        output::line(format_args!(
            "{}: images {}, layers {}, objects {} ({}), variants {} ({})",
            if self.dry_run {
                "would delete"
            } else {
                "deleted"
            },
            collection.images.len(),
            collection.layers.len(),
            collection.objects,
            human_bytes(collection.object_bytes),
            collection.variants,
            human_bytes(collection.variant_bytes)
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
