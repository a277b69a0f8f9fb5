// SPDX-License-Identifier: Apache-2.0
//! `gantry verify`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use bytes::Bytes;
use gantry_image::{ImageSource, Wanted};
use gantry_oci::{Kind, Limits, ManifestDigest, Reference};
use gantry_trust::identity::SignedIdentity;
use gantry_trust::{Claim, Keyring, Reason, Refusal, SignedText, StoredSignature, simple};
use serde::Serialize;

use super::sign::{expected_digest, place_of, reference_of};
use super::signers::read;
use crate::commands::image::endpoint::PlainArgs;
use crate::commands::trust::explain::{self, Explain};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{network, output};

/// Verify an image: by the policy, or its signatures with keys in files; fails unless it is admitted, or one counts.
///
/// With --key, of an index its own signatures are meant; name an image of it by its digest. Without, gantry trust explain says
/// the same in more words.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// HOST/NAME:TAG, docker://HOST/NAME:TAG or store:NAME
    image: String,
    /// A file with public OpenPGP keys; any of them may have signed
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Signed for this reference [default: the image's own]
    #[arg(long, value_name = "REFERENCE", requires = "key")]
    identity: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

/// What was found of one signature.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    counts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Public keys from files.
#[derive(Debug)]
pub struct Keys(Keyring);

impl Keys {
    /// Reads key files.
    ///
    /// # Errors
    /// One cannot be read, or has no key.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let files = paths.iter().map(|path| read(path).map(Bytes::from));
        let files: Vec<Bytes> = files.collect::<Result<_, _>>()?;
        Ok(Self(Keyring::parse(&files, &Limits::DEFAULT)?))
    }

    /// What a signature says, if one of the keys made it.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn check(
        &self,
        signature: &StoredSignature,
        limits: &Limits,
    ) -> Result<(Claim, SignedText), Refusal> {
        let StoredSignature::Simple(message) = signature else {
            return Err(Refusal::new(
                Reason::Unsupported,
                "not an OpenPGP signature",
            ));
        };
        let signed = self.0.verify(message, SystemTime::now(), limits)?;
        Ok((simple::parse_payload(&signed.text)?, signed))
    }
}

/// A refusal as the failure of a verb.
pub fn refused(refusal: &Refusal) -> Failure {
    Failure::message(Kind::Denied, refusal.to_string())
}

impl Verify {
    /// Verifies, and prints what was found.
    pub fn run(self, context: &Context) -> Outcome {
        if self.key.is_empty() {
            return self.by_policy(context);
        }
        let keys = Keys::read(&self.key)?;
        let side = self.side.clone().resolve()?;
        let name = place_of(&self.image)?;
        let reference = match &self.identity {
            Some(text) => Some(Reference::parse_normalized(text)?.or_latest()),
            None => reference_of(&name, context, &side)?,
        };
        let expected = expected_digest(&name);
        let source = side.source(name, context)?;
        let read = read_signatures(&*source, expected.as_ref(), &self.image);
        let (digest, signatures) = network::run(read)?;
        let findings: Vec<Finding> = signatures
            .iter()
            .map(|stored| {
                let judged = judge(&keys, stored, &digest, reference.as_ref());
                judged.unwrap_or_else(|refusal| Finding {
                    counts: false,
                    key: None,
                    reference: None,
                    reason: Some(refusal.reason.as_str()),
                    message: Some(refusal.message),
                })
            })
            .collect();
        self.print(&findings)?;
        if findings.iter().any(|finding| finding.counts) {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::message(
            Kind::Denied,
            format!(
                "verify {}: none of {} signatures of {digest} counts",
                self.image,
                findings.len()
            ),
        ))
    }

    fn by_policy(self, context: &Context) -> Outcome {
        let place = place_of(&self.image)?.to_string();
        let (verdict, image) = Explain::about(place, self.side).ask(context)?;
        if self.json {
            output::json(&verdict)?;
        } else {
            output::lines(&explain::text(&verdict, &image))?;
        }
        if verdict.admitted {
            return Ok(ExitCode::SUCCESS);
        }
        let message = format!("verify {}: the policy does not admit it", self.image);
        Err(Failure::message(Kind::Denied, message))
    }

    fn print(&self, findings: &[Finding]) -> Result<(), Failure> {
        if self.json {
            return output::json(&findings);
        }
        for finding in findings {
            let words = [&finding.key, &finding.reference, &finding.message];
            let words: Vec<String> = words
                .into_iter()
                .flatten()
                .map(|word| output::escape_controls(word))
                .collect();
            let verdict = if finding.counts { "counts" } else { "refused" };
            output::line(format!("{verdict}  {}", words.join("  ")))?;
        }
        Ok(())
    }
}

async fn read_signatures(
    source: &dyn ImageSource,
    expected: Option<&ManifestDigest>,
    image: &str,
) -> Result<(ManifestDigest, Vec<Bytes>), Failure> {
    let manifest = source.manifest(Wanted::Primary).await?;
    let manifest = manifest
        .verify(expected, &Limits::DEFAULT)
        .map_err(|error| Failure::from(error).context(format!("read the manifest of {image}")))?;
    let signatures = source.signatures(manifest.digest()).await?;
    let stored = signatures.into_iter().map(|signature| signature.bytes);
    Ok((*manifest.digest(), stored.collect()))
}

fn judge(
    keys: &Keys,
    stored: &Bytes,
    digest: &ManifestDigest,
    reference: Option<&Reference>,
) -> Result<Finding, Refusal> {
    let signature = StoredSignature::parse(stored)?;
    let (claim, signed) = keys.check(&signature, &Limits::DEFAULT)?;
    if claim.manifest_digest != *digest {
        return Err(Refusal::new(
            Reason::OtherDigest,
            format!("made for {}", claim.manifest_digest),
        ));
    }
    let named = claim.docker_reference.unwrap_or_default();
    SignedIdentity::MatchRepoDigestOrExact
        .accepts(reference, &named)
        .map_err(|why| Refusal::new(Reason::OtherIdentity, why))?;
    Ok(Finding {
        counts: true,
        key: Some(signed.signer.to_string()),
        reference: Some(named),
        reason: None,
        message: None,
    })
}
