// SPDX-License-Identifier: Apache-2.0
//! `gantry rm`.

use std::time::Duration;

use gantry_oci::Kind;
use gantry_runtime::container::{Container, Containers, Status};
use gantry_store::{MountRecord, Mounted, Mounts};

use super::monitor;
use super::stop::{self, SIGKILL};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// How long a container that was killed has for its monitor to clean up.
const END_WITHIN: Duration = Duration::from_secs(10);

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
        let mounts = Mounts::new(&context.runroot).list()?;
        let mut failures = Vec::new();
        for container in chosen {
            let runs = container.status()?.is_alive();
            if runs && self.all && !self.force {
                continue;
            }
            failures.extend(self.remove(&containers, &container, runs, &mounts).err());
        }
        stop::first_of(failures)
    }

    fn remove(
        &self,
        containers: &Containers,
        container: &Container,
        runs: bool,
        mounts: &[MountRecord],
    ) -> Result<(), Failure> {
        if runs && self.force {
            stop::signal(container, SIGKILL)?;
            stop::wait(container, Some(END_WITHIN))?;
        }
        if container.status()? == Status::Lost {
            monitor::clean_up(container)?;
        }
        refuse_mounted(mounts, container)?;
        containers
            .remove(container)
            .map_err(|error| Failure::from(error).hint("--force kills it first"))?;
        output::line(&container.record.id)
    }
}

/// What a container wrote must not go while somebody looks at it.
fn refuse_mounted(mounts: &[MountRecord], container: &Container) -> Result<(), Failure> {
    let of = |record: &&MountRecord| match &record.what {
        Mounted::Container(id) => *id == container.record.id,
        Mounted::Live(_) | Mounted::Image(_) => false,
    };
    let Some(record) = mounts.iter().find(of) else {
        return Ok(());
    };
    let (id, target) = (container.record.short_id(), record.target.display());
    let message = format!("remove container {id}: it is mounted at {target}");
    Err(Failure::message(Kind::Busy, message).hint(format!("gantry unmount {target}")))
}
