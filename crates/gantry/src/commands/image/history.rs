// SPDX-License-Identifier: Apache-2.0
//! `gantry history`.

use std::process::ExitCode;

use gantry_oci::config::History as Step;
use gantry_store::Store;
use serde::Serialize;

use super::endpoint;
use crate::context::Context;
use crate::exit::Outcome;
use crate::{lookup, output, when};

/// How much of a command a table shows.
const COMMAND_WIDTH: usize = 60;

/// Show how an image of the local store came about, the last step first.
#[derive(Debug, clap::Args)]
pub struct History {
    /// The image: a name, an image ID or a digest
    image: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Do not shorten commands
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    created: Option<String>,
    created_by: String,
    /// Bytes of the layer as it was moved; 0 for a step that made none.
    size: u64,
    comment: String,
}

impl History {
    /// Prints it.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open_read_only(&context.root)?;
        let found = lookup::find(&store, &self.image, &endpoint::search_registries()?)?;
        let record = store.as_image(found.record)?;
        let config = store.config(&record)?;
        let mut sizes = record
            .image()
            .into_iter()
            .flat_map(|facts| facts.layers.iter().map(|layer| layer.size_bytes));
        let mut rows: Vec<Row> = config
            .history
            .into_iter()
            .map(|step| {
                let size = match step.empty_layer {
                    Some(true) => 0,
                    _ => sizes.next().unwrap_or(0),
                };
                row(step, size)
            })
            .collect();
        rows.reverse();
        if self.json {
            output::json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let cells: Vec<Vec<String>> = rows.into_iter().map(|row| self.cells(row)).collect();
        output::table(&["CREATED", "CREATED BY", "SIZE", "COMMENT"], &cells)?;
        Ok(ExitCode::SUCCESS)
    }

    fn cells(&self, row: Row) -> Vec<String> {
        let created = row.created.as_deref().and_then(when::parse);
        let mut command = row.created_by;
        if !self.no_trunc && command.chars().count() > COMMAND_WIDTH {
            command = command.chars().take(COMMAND_WIDTH - 1).collect();
            command.push('…');
        }
        vec![
            created.map_or_else(|| "<unknown>".to_owned(), when::ago),
            command,
            output::human_bytes(row.size),
            row.comment,
        ]
    }
}

fn row(step: Step, size: u64) -> Row {
    Row {
        created: step.created,
        created_by: step.created_by.unwrap_or_default(),
        size,
        comment: step.comment.unwrap_or_default(),
    }
}
