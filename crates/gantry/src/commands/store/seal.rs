// SPDX-License-Identifier: Apache-2.0
//! `gantry store seal`.

use std::process::ExitCode;

use gantry_oci::Kind;
use gantry_store::{IngestOptions, Seal as StoreSeal, Store};
use serde::Serialize;

use super::check::many;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::progress::Counter;

/// Seal contents with fs-verity: the kernel itself refuses changed bytes whenever they are read.
///
/// Decides for everything that comes into the store from now on, by whichever tool, and seals the images that are here.
/// Mounts of sealed images make the kernel compare digests (Linux 6.6). It takes a file system that has fs-verity (ext4
/// with that feature, f2fs, btrfs); elsewhere contents are verified when they come in and by "gantry store check".
#[derive(Debug, clap::Args)]
pub struct Seal {
    /// When to seal
    #[arg(value_enum, default_value_t = Mode::Require)]
    mode: Mode,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Never; what is sealed stays so
    Off,
    /// Where the file system can
    Try,
    /// Always: what cannot be sealed does not come in
    Require,
}

#[derive(Serialize)]
struct Report {
    mode: Mode,
    /// Images that were sealed now.
    sealed: u64,
}

impl Seal {
    /// Decides, and seals.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open(&context.root)?;
        let mut report = Report {
            mode: self.mode,
            sealed: 0,
        };
        if self.mode != Mode::Off {
            report.sealed = self.seal_all(&store, context)?;
        }
        // After all of it could be: a store that cannot does not promise.
        store.set_seal(match self.mode {
            Mode::Off => StoreSeal::Off,
            Mode::Try => StoreSeal::Try,
            Mode::Require => StoreSeal::Require,
        })?;
        if self.json {
            output::json(&report)?;
        } else {
            output::line(format_args!("sealed {}", many(report.sealed, "image")))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn seal_all(&self, store: &Store, context: &Context) -> Result<u64, Failure> {
        let ingest = store.begin(IngestOptions::default())?;
        match ingest.can_seal() {
            Err(error) if self.mode == Mode::Try && error.kind() == Kind::Unsupported => {
                return Ok(0);
            }
            other => other?,
        }
        let digests = store.digests()?;
        let counter = Counter::new(context.progress, "seal images");
        let mut sealed = 0;
        for (done, digest) in (1..).zip(&digests) {
            sealed += u64::from(ingest.seal_image(digest)?);
            counter.at(done, digests.len() as u64);
        }
        counter.finish();
        Ok(sealed)
    }
}
