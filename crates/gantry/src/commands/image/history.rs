// SPDX-License-Identifier: Apache-2.0
//! `gantry history`.

use std::process::ExitCode;

use gantry_layer::changes::{Change, Operation};
use gantry_layer::tree::NodeKind;
use gantry_oci::DiffId;
use gantry_oci::config::History as Step;
use gantry_store::Store;
use serde::Serialize;

use super::endpoint;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
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

/// A step, with the members of `podman history --format json`.
#[derive(Serialize)]
struct Row {
    created: Option<String>,
    #[serde(rename = "CreatedBy")]
    created_by: String,
    /// Bytes of the files that the layer brings; 0 for a step that made none.
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
        let facts = record.image();
        let mut layers = facts.into_iter().flat_map(|facts| &facts.layers);
        let mut rows = Vec::new();
        for step in config.history {
            let layer = match step.empty_layer {
                Some(true) => None,
                _ => layers.next(),
            };
            let size = layer.map_or(Ok(0), |layer| file_bytes(&store, &layer.diff_id))?;
            rows.push(row(step, size));
        }
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

fn file_bytes(store: &Store, layer: &DiffId) -> Result<u64, Failure> {
    let Some(changes) = store.layer_changes(layer)? else {
        return Ok(0);
    };
    let size = |change: &Change| match &change.operation {
        Operation::Upsert {
            kind: NodeKind::File(content),
            ..
        } => content.size_bytes(),
        _ => 0,
    };
    Ok(changes
        .changes
        .iter()
        .map(size)
        .fold(0, u64::saturating_add))
}

fn row(step: Step, size: u64) -> Row {
    Row {
        created: step.created,
        created_by: step.created_by.unwrap_or_default(),
        size,
        comment: step.comment.unwrap_or_default(),
    }
}
