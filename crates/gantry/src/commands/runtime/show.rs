// SPDX-License-Identifier: Apache-2.0
//! `state`, `list` and `ps`.

use std::process::Command;

use gantry_runtime::oci::Context;
use gantry_runtime::oci::show::{list as all, processes, show};
use gantry_runtime::oci::state::StateDocument;

use super::words::Words;
use super::{Answer, Failure, id_and_rest};
use crate::output;

fn failed(failure: crate::exit::Failure) -> Failure {
    Failure::Usage(failure.sentence())
}

fn wants_json(words: &Words) -> Result<bool, Failure> {
    match words.text("format")? {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(Failure::Usage(format!(
            "--format: {other:?} is none of table and json"
        ))),
    }
}

pub(super) fn state(context: &Context<'_>, id: &str) -> Answer {
    let shown = show(context, id)?;
    output::json(&shown.record.document(shown.status)).map_err(failed)?;
    Ok(0)
}

pub(super) fn list(context: &Context<'_>, words: &Words) -> Answer {
    let shown = all(context)?;
    let documents: Vec<StateDocument<'_>> = shown
        .iter()
        .map(|one| one.record.document(one.status))
        .collect();
    if wants_json(words)? {
        output::json(&documents).map_err(failed)?;
    } else if words.has("quiet") {
        for one in &documents {
            output::line(one.id).map_err(failed)?;
        }
    } else {
        let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
        let rows = documents.iter().map(|one| {
            vec![
                one.id.to_owned(),
                one.pid.to_string(),
                one.status.to_string(),
                one.bundle.display().to_string(),
                one.created.to_owned(),
                one.owner.to_owned(),
            ]
        });
        output::table(&header, &rows.collect::<Vec<_>>()).map_err(failed)?;
    }
    Ok(0)
}

/// `ps` of the host, cut down to the container's processes.
pub(super) fn ps(context: &Context<'_>, words: &Words) -> Answer {
    let (id, rest) = id_and_rest(words)?;
    let pids = processes(context, id)?;
    if wants_json(words)? {
        output::json(&pids).map_err(failed)?;
        return Ok(0);
    }
    let mut command = Command::new("ps");
    if rest.is_empty() {
        command.arg("-ef");
    } else {
        command.args(rest);
    }
    let said = command
        .output()
        .map_err(|error| Failure::Usage(format!("run ps: {error}")))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    if !said.status.success() {
        let reason = String::from_utf8_lossy(&said.stderr).into_owned();
        return Err(Failure::Usage(format!("ps: {}", reason.trim())));
    }
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Failure::Usage("ps printed no column PID".to_owned()))?;
    output::line(header).map_err(failed)?;
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|text| text.parse().ok());
        if pid.is_some_and(|pid: u32| pids.contains(&pid)) {
            output::line(output::escape_controls(line)).map_err(failed)?;
        }
    }
    Ok(0)
}
