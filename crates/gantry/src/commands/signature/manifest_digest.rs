// SPDX-License-Identifier: Apache-2.0
//! `gantry manifest-digest`.

use std::path::PathBuf;
use std::process::ExitCode;

use gantry_oci::{Algorithm, Digest};

use super::signers::read;
use crate::exit::Outcome;
use crate::output;

/// Print the digest of a manifest in a file.
#[derive(Debug, clap::Args)]
pub struct ManifestDigest {
    /// The manifest, exactly as a registry gives it
    manifest: PathBuf,
}

impl ManifestDigest {
    /// Prints it.
    pub fn run(self) -> Outcome {
        output::line(Digest::of(Algorithm::Sha256, &read(&self.manifest)?))?;
        Ok(ExitCode::SUCCESS)
    }
}
