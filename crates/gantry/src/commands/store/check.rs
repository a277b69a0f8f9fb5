// SPDX-License-Identifier: Apache-2.0
//! `gantry store check`.

use std::process::ExitCode;

use gantry_oci::Kind;
use gantry_store::{CheckOptions, CheckReport, Store};

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::progress::Counter;

/// Look for damage: every record, every name, every byte of every object.
///
/// Changes nothing, and runs beside everything else. Ends with status 5 if something is wrong, which "gantry store
/// repair" may mend. A tree of another host is
/// checked with --root DIR.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Read contents and compare their digests (the default)
    #[arg(long, conflicts_with = "quick")]
    deep: bool,
    /// Look at records, names and sizes only
    #[arg(long)]
    quick: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Checks.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open_read_only(&context.root)?;
        let options = CheckOptions {
            read_contents: self.deep || !self.quick,
            ..CheckOptions::default()
        };
        let counter = Counter::new(context.progress, "check objects");
        let report = store.check(&options, &|done, all| counter.at(done, all));
        counter.finish();
        let report = report?;
        if self.json {
            output::json(&report)?;
        } else {
            print(&report)?;
        }
        if report.is_clean() {
            return Ok(ExitCode::SUCCESS);
        }
        let message = format!(
            "check store {}: {} found",
            store.path().display(),
            many(report.problems.len() as u64, "problem")
        );
        Err(Failure::message(Kind::Corrupt, message))
    }
}

fn print(report: &CheckReport) -> Result<(), Failure> {
    for problem in &report.problems {
        output::lines(&format!("{}: {}", problem.path, problem.problem))?;
    }
    let hashed = match report.hashed_bytes {
        0 => String::new(),
        bytes => format!(", {} read", output::human_bytes(bytes)),
    };
    output::line(format_args!(
        "checked {}, {}, {}, {}, {}{hashed}",
        many(report.names, "name"),
        many(report.records, "record"),
        many(report.layers, "layer"),
        many(report.objects, "object"),
        many(report.variants, "variant"),
    ))
}

/// A count and its noun.
pub fn many(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
