// SPDX-License-Identifier: Apache-2.0
//! `gantry standalone-verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use gantry_oci::{Algorithm, Digest, Kind, Limits, ManifestDigest, Reference};
use gantry_trust::StoredSignature;

use super::signers::read;
use super::verify::{Keys, refused};
use crate::exit::{Failure, Outcome};
use crate::output;

/// Verify a signature in a file, of a manifest in a file.
#[derive(Debug, clap::Args)]
pub struct StandaloneVerify {
    /// The manifest, exactly as a registry gives it
    manifest: PathBuf,
    /// The reference that it must be signed for
    reference: String,
    /// The fingerprints that may have signed, with commas between; or "any", of the key files
    fingerprints: String,
    /// The signature
    signature: PathBuf,
    /// A file with public keys
    #[arg(long, value_name = "FILE", required = true)]
    public_key_file: Vec<PathBuf>,
}

impl StandaloneVerify {
    /// Verifies.
    pub fn run(self) -> Outcome {
        let digest = Digest::of(Algorithm::Sha256, &read(&self.manifest)?);
        let reference = Reference::parse_normalized(&self.reference)?.or_latest();
        let keys = Keys::read(&self.public_key_file)?;
        let stored = read(&self.signature)?.into();
        let signature = StoredSignature::parse(&stored).map_err(|why| refused(&why))?;
        let (claim, signer) = keys
            .check(&signature, &Limits::DEFAULT)
            .map_err(|why| refused(&why))?;
        let denied = |why: String| Failure::message(Kind::Denied, why);
        let wanted = |text: &str| {
            let own = [&signer.key, &signer.signer].map(ToString::to_string);
            own.iter().any(|own| own.eq_ignore_ascii_case(text))
        };
        if self.fingerprints != "any" && !self.fingerprints.split(',').any(wanted) {
            return Err(denied(format!("the signature is by key {}", signer.key)));
        }
        let signed = claim.docker_reference.unwrap_or_default();
        if signed != reference.to_string() {
            return Err(denied(format!(
                "the signature is for {:?}, not for {reference}",
                output::escape_controls(&signed)
            )));
        }
        let digest = ManifestDigest::from_digest(digest);
        if claim.manifest_digest != digest {
            return Err(denied(format!(
                "the signature is of {}, not of {digest}",
                claim.manifest_digest
            )));
        }
        output::line(format!(
            "signature verified using fingerprint {}, digest {digest}",
            signer.signer
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
