// SPDX-License-Identifier: Apache-2.0
//! `gantry rm`.

use std::time::Duration;

use gantry_runtime::container::{Containers, Status};

use super::monitor;
use super::stop::{self, SIGKILL};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Remove containers that have ended.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Names, IDs, or beginnings of IDs
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
    /// Kill those that run first
    #[arg(long, short)]
    force: bool,
    /// All that have ended; with --force, all
    #[arg(long, short, conflicts_with = "containers")]
    all: bool,
}

impl Rm {
    /// Removes them.
    pub fn run(self, context: &Context) -> Outcome {
        let containers = Containers::new(&context.root, &context.runroot);
        let chosen = if self.all {
            containers.list()?
        } else {
            self.containers
                .iter()
                .map(|wanted| containers.find(wanted))
                .collect::<Result<_, _>>()?
        };
        let mut failures = Vec::new();
        for container in chosen {
            let runs = container.status()?.is_alive();
            if runs && self.all && !self.force {
                continue;
            }
            let removed = if runs && self.force {
                stop::signal(&container, SIGKILL)
                    .and_then(|()| stop::wait(&container, Some(Duration::from_secs(10))))
            } else {
                Ok(true)
            }
            .and_then(|_| match container.status()? {
                Status::Lost => monitor::clean_up(&container),
                _ => Ok(()),
            })
            .and_then(|()| match containers.remove(&container) {
                Err(error) => Err(Failure::from(error).hint("--force kills it first")),
                Ok(()) => output::line(&container.record.id),
            });
            failures.extend(removed.err());
        }
        stop::first_of(failures)
    }
}
