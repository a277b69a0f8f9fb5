// SPDX-License-Identifier: Apache-2.0
//! `gantry man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::exit::{Failure, Outcome};

/// Write manual pages, one for each verb, into a directory.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Where to write them
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    /// Writes the pages.
    pub fn run(self) -> Outcome {
        let context = || format!("write manual pages to {}", self.directory.display());
        std::fs::create_dir_all(&self.directory)
            .map_err(|e| Failure::from(e).context(context()))?;
        clap_mangen::generate_to(crate::args::Cli::command(), &self.directory)
            .map_err(|e| Failure::from(e).context(context()))?;
        Ok(ExitCode::SUCCESS)
    }
}
