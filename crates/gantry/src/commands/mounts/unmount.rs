// SPDX-License-Identifier: Apache-2.0
//! `gantry unmount`.

use std::path::Path;
use std::process::ExitCode;

use gantry_oci::Kind;
use gantry_store::{MountRecord, Mounted, Mounts};

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Unmount what was mounted with mount.
///
/// What was mounted several times without a directory stays until it was given back as often.
#[derive(Debug, clap::Args)]
pub struct Unmount {
    /// Unmount even what a program uses; it sees the files until it closes them
    #[arg(long, short)]
    force: bool,
    /// Everything, whatever its uses
    #[arg(long, short, conflicts_with = "mounts")]
    all: bool,
    /// Only say what would be unmounted
    #[arg(long)]
    dry_run: bool,
    /// Directories, or images and containers as they were named to mount
    #[arg(value_name = "DIR|IMAGE|CONTAINER", required_unless_present = "all")]
    mounts: Vec<String>,
}

impl Unmount {
    /// Unmounts; what cannot be does not keep the others.
    pub fn run(self, context: &Context) -> Outcome {
        let mounts = Mounts::new(&context.runroot);
        let mut locked = mounts.lock()?;
        let mut chosen = Vec::new();
        let mut last = None;
        let mut failed = |failure: Failure| {
            if let Some(earlier) = last.replace(failure) {
                output::error_line(&Failure::sentence(&earlier));
            }
        };
        if self.all {
            chosen.extend_from_slice(locked.records());
        }
        for wanted in &self.mounts {
            match find(locked.records(), wanted) {
                Ok(record) => chosen.push(record.clone()),
                Err(failure) => failed(failure),
            }
        }
        for record in &chosen {
            if self.dry_run {
                output::line(record.target.display())?;
                continue;
            }
            match locked.release(&record.id, self.all || self.force, self.force) {
                Ok(true) => output::line(record.target.display())?,
                Ok(false) => {}
                Err(error) => failed(match error.kind() {
                    Kind::Busy => Failure::from(error).hint("--force unmounts it all the same"),
                    _ => error.into(),
                }),
            }
        }
        last.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

/// The one mount that a text means: by directory, else by what was mounted.
fn find<'a>(records: &'a [MountRecord], wanted: &str) -> Result<&'a MountRecord, Failure> {
    let path = super::resolve_dir(Path::new(wanted)).ok();
    let at = |record: &&MountRecord| {
        record.target == Path::new(wanted) || path.as_deref() == Some(&record.target)
    };
    if let Some(record) = records.iter().find(at) {
        return Ok(record);
    }
    let is = |record: &&MountRecord| {
        record.asked == wanted
            || match &record.what {
                Mounted::Image(digest) => digest.to_string() == wanted,
                Mounted::Container(id) | Mounted::Live(id) => {
                    wanted.len() >= 3 && id.starts_with(wanted)
                }
            }
    };
    let mut found = records.iter().filter(is);
    match (found.next(), found.next()) {
        (Some(record), None) => Ok(record),
        (Some(one), Some(other)) => Err(Failure::message(
            Kind::InvalidInput,
            format!(
                "unmount {wanted}: it is mounted at {} and at {}",
                one.target.display(),
                other.target.display()
            ),
        )
        .hint("name the directory")),
        (None, _) => Err(Failure::message(
            Kind::NotFound,
            format!("unmount {wanted}: it is not mounted"),
        )
        .hint("gantry mount lists what is")),
    }
}
