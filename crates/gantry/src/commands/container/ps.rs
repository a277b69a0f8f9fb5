// SPDX-License-Identifier: Apache-2.0
//! `gantry ps`.

use std::process::ExitCode;

use gantry_runtime::container::{Container, Containers, Status};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{output, when};

const SHORT_ID: usize = 12;

/// List containers.
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Also those that have ended
    #[arg(long, short)]
    all: bool,
    /// Only IDs
    #[arg(long, short)]
    quiet: bool,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One row; the members are named as podman's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    id: String,
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageDigest")]
    digest: String,
    command: Vec<String>,
    created: u64,
    state: &'static str,
    status: String,
    exited: bool,
    exit_code: Option<u8>,
    pid: Option<u32>,
    auto_remove: bool,
}

impl Ps {
    /// Lists them.
    pub fn run(self, context: &Context) -> Outcome {
        let mut rows = Vec::new();
        for container in Containers::new(&context.root, &context.runroot).list()? {
            let status = container.status()?;
            if self.all || status.is_alive() {
                rows.push(row(container, status));
            }
        }
        if self.json {
            output::json(&rows)?;
        } else if self.quiet {
            rows.iter().try_for_each(|row| output::line(self.id(row)))?;
        } else {
            self.table(&rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn id<'a>(&self, row: &'a Row) -> &'a str {
        let length = if self.no_trunc {
            row.id.len()
        } else {
            SHORT_ID
        };
        row.id.get(..length).unwrap_or(&row.id)
    }

    fn table(&self, rows: &[Row]) -> Result<(), Failure> {
        let header = [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "NAMES",
        ];
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                vec![
                    self.id(row).to_owned(),
                    output::escape_controls(&row.image),
                    output::escape_controls(&row.command.join(" ")),
                    when::ago(i64::try_from(row.created).unwrap_or(0)),
                    row.status.clone(),
                    row.names.join(","),
                ]
            })
            .collect();
        output::table(&header, &rows)
    }
}

fn row(container: Container, status: Status) -> Row {
    let record = container.record;
    let ago = |seconds: u64| when::ago(i64::try_from(seconds).unwrap_or(0));
    let (state, text) = match status {
        Status::Starting => ("starting", "Starting".to_owned()),
        Status::Running(process) => (
            "running",
            format!(
                "Up {}",
                ago(process.started_unix_s).trim_end_matches(" ago")
            ),
        ),
        Status::Exited(exit) => (
            "exited",
            format!("Exited ({}) {}", exit.exit.status(), ago(exit.ended_unix_s)),
        ),
        Status::Unwatched(process) => (
            "unwatched",
            format!(
                "Up {}, but its monitor was killed",
                ago(process.started_unix_s).trim_end_matches(" ago")
            ),
        ),
        Status::Lost => (
            "lost",
            "Lost: its monitor was killed, or the machine went down".to_owned(),
        ),
    };
    Row {
        id: record.id,
        names: record.name.iter().map(ToString::to_string).collect(),
        image: record.image,
        digest: record.digest,
        command: record.command,
        created: record.created_unix_s,
        state,
        status: text,
        exited: matches!(status, Status::Exited(_)),
        exit_code: match status {
            Status::Exited(exit) => Some(exit.exit.status()),
            _ => None,
        },
        pid: status.process().map(|process| process.pid),
        auto_remove: record.remove,
    }
}
