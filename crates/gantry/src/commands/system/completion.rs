// SPDX-License-Identifier: Apache-2.0
//! `gantry completion`.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::exit::Outcome;

/// Print a script that completes gantry's words in a shell.
#[derive(Debug, clap::Args)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completion {
    /// Prints the script.
    pub fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut crate::args::Cli::command(),
            "gantry",
            &mut script,
        );
        crate::output::line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
