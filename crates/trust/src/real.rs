// SPDX-License-Identifier: Apache-2.0
//! The seam's real side: key files of this machine, and our cryptography.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gantry_oci::Limits;

use crate::file::read_regular;
use crate::mechanism::{Attested, Checked, Mechanism, Signer};
use crate::openpgp::Keyring;
use crate::prepared::{Mechanisms, SigstoreMaterial};
use crate::refusal::{Reason, Refusal};
use crate::sigstore::attestation::{self, Wanted};
use crate::sigstore::{self, LogKeys, MakeVerifierError, Verifier};
use crate::simple;
use crate::stored::{SigstoreSignature, StoredSignature};

/// This machine's files and our cryptography.
#[derive(Debug, Clone, Copy)]
pub struct Real {
    /// Caps on what is read.
    pub limits: Limits,
}

impl Mechanisms for Real {
    fn read(&self, path: &Path) -> Result<Bytes, Refusal> {
        read_key_file(path, &self.limits)
    }

    fn openpgp(&self, keys: &[Bytes]) -> Result<Arc<dyn Mechanism>, Refusal> {
        let keyring = Keyring::parse(keys, &self.limits)
            .map_err(|error| Refusal::new(Reason::NoKeys, error.to_string()))?;
        Ok(Arc::new(OpenPgp {
            keyring,
            limits: self.limits,
        }))
    }

    fn count_openpgp(&self, file: &Bytes) -> usize {
        let keyring = Keyring::parse(std::slice::from_ref(file), &self.limits);
        keyring.map_or(0, |keyring| keyring.fingerprints().count())
    }

    fn sigstore(
        &self,
        signers: SigstoreMaterial<'_>,
        rekor: Option<Vec<Bytes>>,
    ) -> Result<Arc<dyn Mechanism>, Refusal> {
        let verifier = self.verifier(signers, rekor).map_err(|error| {
            let message = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Refusal::new(Reason::NoKeys, message)
        })?;
        Ok(Arc::new(Sigstore {
            verifier,
            limits: self.limits,
        }))
    }
}

impl Real {
    fn verifier(
        &self,
        signers: SigstoreMaterial<'_>,
        rekor: Option<Vec<Bytes>>,
    ) -> Result<Verifier, MakeVerifierError> {
        let log = rekor.map(|keys| LogKeys::parse(&keys)).transpose()?;
        match signers {
            SigstoreMaterial::Keys(keys) => Verifier::keys(&keys, log),
            SigstoreMaterial::Fulcio {
                ca,
                oidc_issuer,
                subject_email,
            } => {
                let log = log.ok_or(MakeVerifierError::NoKey)?;
                let ca = joined(&ca);
                Verifier::fulcio(&ca, oidc_issuer, subject_email, log, &self.limits)
            }
            SigstoreMaterial::Pki {
                roots,
                intermediates,
                subject_hostname,
                subject_email,
            } => {
                let (roots, intermediates) = (joined(&roots), joined(&intermediates));
                let intermediates = (!intermediates.is_empty()).then_some(&*intermediates);
                Verifier::pki(
                    &roots,
                    intermediates,
                    subject_hostname.map(ToOwned::to_owned),
                    subject_email.map(ToOwned::to_owned),
                    &self.limits,
                )
            }
        }
    }
}

/// PEM files as one. A last line need not end, and the next file begins a line of its own.
fn joined(files: &[Bytes]) -> Vec<u8> {
    files.join(&b'\n')
}

/// Sigstore signatures by keys or certificates.
#[derive(Debug)]
struct Sigstore {
    verifier: Verifier,
    limits: Limits,
}

impl Sigstore {
    fn read(signature: &StoredSignature) -> Result<&SigstoreSignature, Refusal> {
        match signature {
            StoredSignature::Sigstore(signature) => Ok(signature),
            StoredSignature::Simple(_) => Err(Refusal::new(
                Reason::Unsupported,
                "a simple signature, and sigstore is asked for",
            )),
        }
    }
}

impl Mechanism for Sigstore {
    fn check(&self, signature: &StoredSignature, now: SystemTime) -> Result<Checked, Refusal> {
        let signature = Self::read(signature)?;
        let found = sigstore::verify(signature, &self.verifier, now, &self.limits)?;
        let said = found.claim.timestamp_s.and_then(|seconds| {
            let seconds = u64::try_from(seconds).ok()?;
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        });
        Ok(Checked {
            claim: found.claim,
            signer: signer(&found.signer),
            made: found.logged_at.or(said),
            expires: found.holds_until,
        })
    }

    fn attest(
        &self,
        signature: &StoredSignature,
        wanted: Wanted<'_>,
        now: SystemTime,
    ) -> Result<Attested, Refusal> {
        let signature = Self::read(signature)?;
        let found = attestation::verify(signature, &self.verifier, wanted, now, &self.limits)?;
        Ok(Attested {
            signer: signer(&found.signer),
            expires: found.holds_until,
        })
    }
}

/// A key is known by its digest, a certificate by whom it is for: each signature may have another.
fn signer(signer: &sigstore::Signer) -> Signer {
    match signer {
        sigstore::Signer::Key(fingerprint) => Signer {
            id: fingerprint.to_string(),
            also: Vec::new(),
            name: None,
        },
        sigstore::Signer::Certificate {
            fingerprint,
            subject,
            issuer,
        } => Signer {
            id: match issuer {
                Some(issuer) => format!("{subject} by {issuer}"),
                None => subject.clone(),
            },
            also: vec![fingerprint.to_string()],
            name: Some(subject.clone()),
        },
    }
}

/// Simple signatures by the keys of a ring.
#[derive(Debug)]
struct OpenPgp {
    keyring: Keyring,
    limits: Limits,
}

impl Mechanism for OpenPgp {
    fn check(&self, signature: &StoredSignature, now: SystemTime) -> Result<Checked, Refusal> {
        let StoredSignature::Simple(message) = signature else {
            let message = "a sigstore signature, and simple signing is asked for";
            return Err(Refusal::new(Reason::Unsupported, message));
        };
        let signed = self.keyring.verify(message, now, &self.limits)?;
        Ok(Checked {
            claim: simple::parse_payload(&signed.text)?,
            signer: Signer {
                id: signed.key.to_string(),
                also: vec![signed.signer.to_string()],
                name: None,
            },
            made: Some(signed.created),
            expires: signed.holds_until,
        })
    }
}

/// Refused is what cannot be read, is no regular file, is too large, or has a
/// path that depends on the current directory.
fn read_key_file(path: &Path, limits: &Limits) -> Result<Bytes, Refusal> {
    let unusable = |problem: String| {
        let path = path.display();
        Refusal::new(Reason::NoKeys, format!("read keys {path}: {problem}"))
    };
    if !path.is_absolute() {
        return Err(unusable("the path is not absolute".into()));
    }
    let (bytes, _) =
        read_regular(path, limits.key_file_bytes).map_err(|error| unusable(error.to_string()))?;
    if bytes.len() > limits.key_file_bytes {
        let problem = format!("more than {} bytes", limits.key_file_bytes);
        return Err(unusable(problem));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_certificates_do_not_run_into_each_other() {
        let files = [
            Bytes::from("-----END A-----"),
            Bytes::from("-----BEGIN B-----\n"),
        ];
        assert_eq!(joined(&files), b"-----END A-----\n-----BEGIN B-----\n");
        assert_eq!(joined(&[]), b"");
    }

    #[test]
    fn key_files_past_the_rules_are_unusable() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "12345").unwrap();
        let limits = |key_file_bytes| Limits {
            key_file_bytes,
            ..Limits::DEFAULT
        };
        assert_eq!(read_key_file(&key, &limits(5)).unwrap(), "12345");
        for (path, cap) in [
            (&*key, 4),
            (dir.path(), 5),
            (&dir.path().join("missing"), 5),
            (Path::new("Cargo.toml"), 1 << 20),
            (Path::new("/dev/zero"), 5),
        ] {
            let refusal = read_key_file(path, &limits(cap)).unwrap_err();
            assert_eq!(refusal.reason, Reason::NoKeys, "{path:?}");
        }
    }
}
