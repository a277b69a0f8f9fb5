// SPDX-License-Identifier: Apache-2.0
//! `gantry generate-sigstore-key`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_trust::sigstore::PrivateKey;

use super::signers::{first_line, sigstore_passphrase};
use crate::exit::{Failure, Outcome};
use crate::output;

/// Make a key pair for sigstore signatures: PREFIX.private, encrypted, and PREFIX.pub.
///
/// skopeo and cosign read both. Files that are there already are left, and nothing is made.
#[derive(Debug, clap::Args)]
pub struct GenerateSigstoreKey {
    /// The beginning of both files' names
    #[arg(long, value_name = "PREFIX")]
    output_prefix: PathBuf,
    /// The passphrase is the first line of this file [default: $COSIGN_PASSWORD]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl GenerateSigstoreKey {
    /// Makes it.
    pub fn run(self) -> Outcome {
        let named = self
            .passphrase_file
            .as_deref()
            .map(first_line)
            .transpose()?;
        let passphrase = named.or_else(sigstore_passphrase).ok_or_else(|| {
            Failure::message(
                gantry_oci::Kind::InvalidInput,
                "make a key without a passphrase: give one with --passphrase-file or in COSIGN_PASSWORD",
            )
        })?;
        let (key, file) = PrivateKey::generate(passphrase.as_bytes())?;
        let name = |suffix: &str| {
            let mut name = self.output_prefix.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (private, public) = (name(".private"), name(".pub"));
        create(&private, 0o600, &file)?;
        create(&public, 0o644, &key.public().to_pem())?;
        output::line(format!("{}\n{}", private.display(), public.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        Failure::from(error).context(format!("write {}", path.display()))
    })
}
