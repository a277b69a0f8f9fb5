// SPDX-License-Identifier: Apache-2.0
//! `gantry wait`.

use std::process::ExitCode;

use gantry_runtime::container::{Containers, Status};

use super::stop;
use crate::context::Context;
use crate::exit::Outcome;
use crate::output;

/// Stands for a status that nobody knows, as in podman.
const UNKNOWN: i32 = -1;

/// Wait until containers have ended, and print their exit statuses.
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// Names, IDs, or beginnings of IDs
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Wait {
    /// Waits.
    pub fn run(self, context: &Context) -> Outcome {
        let containers = Containers::new(&context.root, &context.runroot);
        for wanted in &self.containers {
            let container = containers.find(wanted)?;
            stop::wait(&container, None)?;
            output::line(match container.status()? {
                Status::Exited(exit) => i32::from(exit.exit.status()),
                _ => UNKNOWN,
            })?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
