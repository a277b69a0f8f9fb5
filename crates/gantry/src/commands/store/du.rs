// SPDX-License-Identifier: Apache-2.0
//! `gantry store du`.

use std::process::ExitCode;

use gantry_store::{Store, Usage};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output::{self, human_bytes};
use crate::progress::Counter;

/// Show what images take on disk, and what sharing saves.
///
/// An object that several images need is counted once for the store, as shared for each of them, and as exclusive for
/// none: removing one image and collecting garbage gives its exclusive bytes back.
#[derive(Debug, clap::Args)]
pub struct Du {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    usage: &'a Usage,
    saved_bytes: u64,
    total_bytes: u64,
}

impl Du {
    /// Measures.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open_read_only(&context.root)?;
        let counter = Counter::new(context.progress, "measure images");
        let usage = store.usage_with(&|done, all| counter.at(done, all));
        counter.finish();
        let usage = usage?;
        if self.json {
            output::json(&Report {
                saved_bytes: usage.saved_bytes(),
                total_bytes: usage.total_bytes(),
                usage: &usage,
            })?;
        } else {
            print(&usage)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(usage: &Usage) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = usage
        .images
        .iter()
        .map(|image| {
            let name = match image.names.as_slice() {
                [] => "<none>".to_owned(),
                [only] => only.clone(),
                [first, rest @ ..] => format!("{first} (+{})", rest.len()),
            };
            vec![
                name,
                image.digest.digest().short(),
                human_bytes(image.tree_bytes),
                human_bytes(image.exclusive_bytes),
                human_bytes(image.shared_bytes),
            ]
        })
        .collect();
    output::table(&["IMAGE", "DIGEST", "SIZE", "EXCLUSIVE", "SHARED"], &rows)?;
    output::line("")?;
    let row = |what: &str, bytes: u64, remark: &str| {
        vec![what.to_owned(), human_bytes(bytes), remark.to_owned()]
    };
    let rows = [
        row("contents", usage.object_bytes, "each object once"),
        row(
            "for hard links",
            usage.variant_bytes,
            "contents kept again with other metadata",
        ),
        row("metadata", usage.metadata_bytes, ""),
        row(
            "garbage",
            usage.garbage_bytes,
            "of no image; gantry store gc deletes it",
        ),
        row("on disk", usage.total_bytes(), ""),
        row(
            "saved",
            usage.saved_bytes(),
            "by sharing contents between images",
        ),
    ];
    output::table(&["TOTAL", "", ""], &rows)
}
