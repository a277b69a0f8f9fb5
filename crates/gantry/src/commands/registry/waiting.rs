// SPDX-License-Identifier: Apache-2.0
//! `gantry registry waiting`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_registry::WaitingImage;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{output, when};

/// List what was pushed and waits for a signature, and why it is not published.
///
/// Reads the list of the registry in --root, which may be running.
#[derive(Debug, clap::Args)]
pub struct WaitingVerb {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One name that waits, for programs.
#[derive(Serialize)]
struct Row<'a> {
    repository: String,
    tag: Option<String>,
    digest: String,
    /// RFC 3339.
    since: String,
    reason: &'a str,
}

impl WaitingVerb {
    /// Lists.
    pub fn run(self, context: &Context) -> Outcome {
        let all = gantry_registry::list_waiting(&context.root).map_err(|error| {
            Failure::from(error).context(format!("list what waits in {}", context.root.display()))
        })?;
        if self.json {
            let rows: Vec<Row<'_>> = all.iter().map(row).collect();
            output::json(&rows)?;
        } else {
            let rows: Vec<Vec<String>> = all.iter().map(cells).collect();
            output::table(&["REPOSITORY", "TAG", "DIGEST", "PUSHED", "REASON"], &rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

fn row(waiting: &WaitingImage) -> Row<'_> {
    Row {
        repository: waiting.repository.to_string(),
        tag: waiting.tag.as_ref().map(ToString::to_string),
        digest: waiting.digest.to_string(),
        since: when::format(seconds(waiting.since)),
        reason: &waiting.reason,
    }
}

fn cells(waiting: &WaitingImage) -> Vec<String> {
    vec![
        waiting.repository.to_string(),
        waiting
            .tag
            .as_ref()
            .map_or("-".to_owned(), ToString::to_string),
        waiting.digest.to_string(),
        when::ago(seconds(waiting.since)),
        waiting.reason.clone(),
    ]
}
