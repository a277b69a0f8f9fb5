// SPDX-License-Identifier: Apache-2.0
//! `gantry validate`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_oci::Limits;
use gantry_runtime::document;
use gantry_runtime::document::validate::{Finding, check_root, is_valid, validate};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Failure, Outcome};
use crate::output;

const DOCUMENT: &str = "config.json";

/// Judge an OCI runtime document by the rules of the runtime specification, 1.3, for Linux.
///
/// One line a finding: how bad it is, the place in the document as jq spells it, what is wrong, and the section that
/// says so. An error is what the specification forbids or no kernel does; a warning is what it advises against, and
/// does not count. The exit status is 0 for a valid document, 1 for another one, 2 for what is no JSON.
#[derive(Debug, clap::Args)]
pub struct Validate {
    /// A bundle, whose root file system must be there too, or a document; - for standard input
    path: PathBuf,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    findings: &'a [Finding],
}

/// Opens and reads a document; `-` is standard input.
///
/// # Errors
/// The file is not there, too large, or no JSON.
pub fn read_document(path: &Path) -> Result<Value, Failure> {
    let limits = Limits::default();
    let read = if path == Path::new("-") {
        document::read(std::io::stdin().lock(), &limits)
    } else {
        let open = || format!("open {}", path.display());
        let file = File::open(path).map_err(|error| Failure::from(error).context(open()))?;
        document::read(file, &limits)
    };
    read.map_err(|error| Failure::new(error.kind(), error).context(path.display().to_string()))
}

impl Validate {
    /// Judges.
    pub fn run(self) -> Outcome {
        let bundle = self.path.is_dir().then_some(&self.path);
        let document = match bundle {
            Some(bundle) => read_document(&bundle.join(DOCUMENT))?,
            None => read_document(&self.path)?,
        };
        let mut findings = validate(&document);
        if let Some(bundle) = bundle {
            findings.extend(check_root(&document, bundle));
        }
        let valid = is_valid(&findings);
        if self.json {
            let findings = &findings;
            output::json(&Verdict { valid, findings })?;
        } else {
            for finding in &findings {
                output::line(output::escape_controls(&finding.to_string()))?;
            }
        }
        Ok(ExitCode::from(u8::from(!valid)))
    }
}
