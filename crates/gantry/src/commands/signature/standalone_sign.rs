// SPDX-License-Identifier: Apache-2.0
//! `gantry standalone-sign`.

use std::path::PathBuf;
use std::process::ExitCode;

use gantry_oci::{Algorithm, Digest, ManifestDigest, Reference};

use super::signers::{SimpleSigning, by_gpg, first_line, read};
use crate::exit::{Failure, Outcome};

/// Sign a manifest in a file, into a file.
#[derive(Debug, clap::Args)]
pub struct StandaloneSign {
    /// The manifest, exactly as a registry gives it
    manifest: PathBuf,
    /// The reference that it is signed for
    reference: String,
    /// The key of the GnuPG home
    fingerprint: String,
    /// Where the signature goes
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The key's passphrase is the first line of this file [default: the GnuPG agent asks]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl StandaloneSign {
    /// Signs.
    pub fn run(self) -> Outcome {
        let digest = Digest::of(Algorithm::Sha256, &read(&self.manifest)?);
        let passphrase = self.passphrase_file.as_deref().map(first_line);
        let signing = SimpleSigning {
            signers: vec![by_gpg(&self.fingerprint, passphrase.transpose()?)],
            reference: Reference::parse_normalized(&self.reference)?.or_latest(),
        };
        for signature in signing.sign_digest(&ManifestDigest::from_digest(digest))? {
            std::fs::write(&self.output, &signature.bytes).map_err(|error| {
                Failure::from(error).context(format!("write {}", self.output.display()))
            })?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
