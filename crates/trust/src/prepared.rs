// SPDX-License-Identifier: Apache-2.0
//! A policy with the keys that it names: all that an evaluation needs, so that
//! evaluating reads no file.
//!
//! A key file that cannot be read or makes no sense spoils the requirement
//! that names it and no other: that requirement is met by nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gantry_oci::{Algorithm, Digest, Digester, Limits};

use crate::identity::SignedIdentity;
use crate::mechanism::{Attested, Checked, Mechanism, Signer};
use crate::openpgp::Keyring;
use crate::policy::{KeyType, Policy, Requirement, SigstoreSigners, Source};
use crate::refusal::{Reason, Refusal};
use crate::scope::{Matched, Subject};
use crate::sigstore::attestation::{self, Wanted};
use crate::sigstore::{self, LogKeys, MakeVerifierError, Verifier};
use crate::simple;
use crate::stored::{SigstoreSignature, StoredSignature};

/// A policy that can be evaluated.
///
/// Holding one says that every key file was read or found unusable.
#[derive(Debug, Clone)]
pub struct PreparedPolicy {
    policy: Policy,
    default: Vec<Ready>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Ready>>>,
    unnamed_bundles: Vec<String>,
    digest: Digest,
}

/// A requirement with its keys.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its type, as policies spell it.
    pub type_name: &'static str,
    /// What it takes.
    pub test: Test,
}

/// What it takes to meet a requirement.
#[derive(Debug, Clone)]
pub enum Test {
    /// Nothing.
    Accept,
    /// It cannot be met.
    Refuse(Refusal),
    /// A good signature of the image under its name.
    Signature(Arc<dyn Mechanism>, SignedIdentity),
}

/// What key files hold, and what their contents are good for.
pub trait Mechanisms {
    /// Reads one file of keys.
    ///
    /// # Errors
    /// The requirement that names the file cannot be met.
    fn read(&self, path: &Path) -> Result<Bytes, Refusal>;

    /// Checks simple signatures by any of these keys.
    ///
    /// # Errors
    /// These are no keys.
    fn openpgp(&self, keys: &[Bytes]) -> Result<Arc<dyn Mechanism>, Refusal>;

    /// How many keys a file of OpenPGP keys holds; none if it is no such file.
    fn count_openpgp(&self, file: &Bytes) -> usize;

    /// Checks sigstore signatures, recorded in a log with one of the `rekor` keys if these are given.
    ///
    /// # Errors
    /// This is no key material.
    fn sigstore(
        &self,
        signers: SigstoreMaterial<'_>,
        rekor: Option<Vec<Bytes>>,
    ) -> Result<Arc<dyn Mechanism>, Refusal>;
}

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
                let ca = ca.concat();
                Verifier::fulcio(&ca, oidc_issuer, subject_email, log, &self.limits)
            }
            SigstoreMaterial::Pki {
                roots,
                intermediates,
                subject_hostname,
                subject_email,
            } => {
                let (roots, intermediates) = (roots.concat(), intermediates.concat());
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

/// Keys and certificates end at times that the verifiers do not tell. An
/// answer that rests on one is good for so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(3600);

fn ask_again(now: SystemTime, expires: Option<SystemTime>) -> Option<SystemTime> {
    let later = now.checked_add(ASK_AGAIN_AFTER);
    expires.into_iter().chain(later).min()
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

    /// Keys never end, and a certificate of Fulcio's is judged at the log's time; others end now.
    fn expires(&self, now: SystemTime) -> Option<SystemTime> {
        match self.verifier {
            Verifier::Pki { .. } => ask_again(now, None),
            Verifier::Keys { .. } | Verifier::Fulcio { .. } => None,
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
            expires: self.expires(now),
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
            expires: self.expires(now),
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
            expires: ask_again(now, signed.expires),
        })
    }
}

/// Refused is what cannot be read, is not a plain file, is too large, or has a
/// path that depends on the current directory.
fn read_key_file(path: &Path, limits: &Limits) -> Result<Bytes, Refusal> {
    let unusable = |problem: String| {
        let path = path.display();
        Refusal::new(Reason::NoKeys, format!("read keys {path}: {problem}"))
    };
    if !path.is_absolute() {
        return Err(unusable("the path is not absolute".into()));
    }
    let read = || -> std::io::Result<Vec<u8>> {
        // Opening a pipe would wait for somebody to write.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        let cap = limits.key_file_bytes as u64 + 1;
        File::open(path)?.take(cap).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| unusable(error.to_string()))?;
    if bytes.len() > limits.key_file_bytes {
        let problem = format!("more than {} bytes", limits.key_file_bytes);
        return Err(unusable(problem));
    }
    Ok(bytes.into())
}

/// The contents of key material, in the order of its [`Source`]; what could not be read says why.
pub type Material = Result<Vec<Bytes>, Refusal>;

impl Policy {
    /// Reads the keys that the policy names.
    ///
    /// Nothing fails here: a requirement whose keys are unusable is never met,
    /// and says why when it is evaluated.
    #[must_use]
    pub fn load_keys(self, limits: &Limits) -> PreparedPolicy {
        PreparedPolicy::new(self, &Real { limits: *limits })
    }
}

impl PreparedPolicy {
    /// Prepares a policy with other files or other cryptography than this machine's.
    #[must_use]
    pub fn new(policy: Policy, mechanisms: &dyn Mechanisms) -> Self {
        let mut digester = Digester::new(Algorithm::Sha256);
        digester.update(b"gantry policy 1\0");
        absorb(&mut digester, policy.text());
        let mut prepare = |requirement: &Requirement| {
            let mut load = |source: &Source| {
                let material = load(source, mechanisms);
                absorb_material(&mut digester, &material);
                material
            };
            Ready {
                type_name: requirement.type_name(),
                test: test(requirement, &mut load, mechanisms).unwrap_or_else(Test::Refuse),
            }
        };
        let mut prepare_all = |list: &[Requirement]| list.iter().map(&mut prepare).collect();
        let default = prepare_all(policy.default_requirements());
        let transports = policy
            .transports()
            .iter()
            .map(|(transport, scopes)| {
                let scopes = scopes
                    .iter()
                    .map(|(scope, list)| (scope.clone(), prepare_all(list)));
                (transport.clone(), scopes.collect())
            })
            .collect();
        Self {
            policy,
            default,
            transports,
            unnamed_bundles: Vec::new(),
            digest: digester.finish(),
        }
    }

    /// Lets sigstore bundles that name no reference count for images under one
    /// of these `docker` scopes. The format has no such rule; Gantry's
    /// configuration does.
    #[must_use]
    pub fn with_unnamed_bundles(mut self, scopes: Vec<String>) -> Self {
        let mut digester = Digester::new(Algorithm::Sha256);
        absorb(&mut digester, self.digest.as_bytes());
        for scope in &scopes {
            absorb(&mut digester, scope.as_bytes());
        }
        self.digest = digester.finish();
        self.unnamed_bundles = scopes;
        self
    }

    /// The policy as it stands in its file.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// SHA-256 of the policy and of all key material: as long as it is the
    /// same, the same question gets the same answer, until that expires.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The one list that holds for a subject, and the scope that it stands under.
    #[must_use]
    pub fn requirements_for(&self, subject: &Subject) -> (Matched, &[Ready]) {
        let (matched, _) = self.policy.requirements_for(subject);
        let ready = match &matched {
            Matched::Default => &self.default,
            Matched::Scope(scope) => &self.transports[subject.transport()][scope],
        };
        (matched, ready)
    }

    /// Whether a bundle that names no reference may count.
    #[must_use]
    pub fn accepts_unnamed_bundles(&self, subject: &Subject) -> bool {
        let mut scopes = self.unnamed_bundles.iter();
        subject.transport() == "docker"
            && scopes.any(|scope| subject.candidates().any(|candidate| candidate == scope))
    }
}

/// Lengths in front keep two texts from being mistaken for others with the same joint.
pub(crate) fn absorb(digester: &mut Digester, bytes: &[u8]) {
    digester.update(&(bytes.len() as u64).to_le_bytes());
    digester.update(bytes);
}

pub(crate) fn absorb_material(digester: &mut Digester, material: &Material) {
    match material {
        Ok(contents) => {
            digester.update(b"+");
            digester.update(&(contents.len() as u64).to_le_bytes());
            for content in contents {
                absorb(digester, content);
            }
        }
        Err(_) => digester.update(b"-"),
    }
}

fn load(source: &Source, mechanisms: &dyn Mechanisms) -> Material {
    match source {
        Source::Inline(contents) => Ok(contents.clone()),
        Source::Files(paths) => paths.iter().map(|path| mechanisms.read(path)).collect(),
    }
}

fn test(
    requirement: &Requirement,
    load: &mut dyn FnMut(&Source) -> Material,
    mechanisms: &dyn Mechanisms,
) -> Result<Test, Refusal> {
    Ok(match requirement {
        Requirement::InsecureAcceptAnything => Test::Accept,
        Requirement::Reject => Test::Refuse(Refusal::new(
            Reason::Rejected,
            "the policy rejects every image here",
        )),
        Requirement::SignedBaseLayer(_) => Test::Refuse(Refusal::new(
            Reason::Unsupported,
            "signedBaseLayer is implemented by nobody",
        )),
        Requirement::SignedBy(signed_by) => {
            let keys = load(&signed_by.keys)?;
            if signed_by.key_type != KeyType::GpgKeys {
                let key_type = signed_by.key_type.as_str();
                let message = format!("keyType {key_type} is implemented by nobody");
                return Err(Refusal::new(Reason::Unsupported, message));
            }
            Test::Signature(mechanisms.openpgp(&keys)?, signed_by.identity.clone())
        }
        Requirement::SigstoreSigned(sigstore) => {
            // All is loaded before anything may fail: the digest is over all.
            let rekor = sigstore.rekor.as_ref().map(&mut *load).transpose();
            let material = SigstoreMaterial::load(&sigstore.signers, load);
            let verifier = mechanisms.sigstore(material?, rekor?)?;
            Test::Signature(verifier, sigstore.identity.clone())
        }
    })
}

/// The material of [`SigstoreSigners`], read.
#[derive(Debug)]
pub enum SigstoreMaterial<'a> {
    /// Public keys.
    Keys(Vec<Bytes>),
    /// See [`SigstoreSigners::Fulcio`].
    Fulcio {
        /// Fulcio's roots.
        ca: Vec<Bytes>,
        /// Who vouched for the address.
        oidc_issuer: &'a str,
        /// The address.
        subject_email: &'a str,
    },
    /// See [`SigstoreSigners::Pki`].
    Pki {
        /// The roots.
        roots: Vec<Bytes>,
        /// Certificates between the signers' and the roots.
        intermediates: Vec<Bytes>,
        /// The certificate must be for this host.
        subject_hostname: Option<&'a str>,
        /// The certificate must be for this address.
        subject_email: Option<&'a str>,
    },
}

impl<'a> SigstoreMaterial<'a> {
    fn load(
        signers: &'a SigstoreSigners,
        load: &mut dyn FnMut(&Source) -> Material,
    ) -> Result<Self, Refusal> {
        Ok(match signers {
            SigstoreSigners::Keys(source) => Self::Keys(load(source)?),
            SigstoreSigners::Fulcio {
                ca,
                oidc_issuer,
                subject_email,
            } => Self::Fulcio {
                ca: load(ca)?,
                oidc_issuer,
                subject_email,
            },
            SigstoreSigners::Pki {
                roots,
                intermediates,
                subject_hostname,
                subject_email,
            } => Self::Pki {
                roots: load(roots)?,
                intermediates: match intermediates {
                    Some(source) => load(source)?,
                    None => Vec::new(),
                },
                subject_hostname: subject_hostname.as_deref(),
                subject_email: subject_email.as_deref(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::tests::policy;

    #[test]
    fn digest_changes_with_policy_and_keys() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let text = format!(
            r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":{key:?}}},
                            {{"type":"sigstoreSigned","keyData":"aGk=","rekorPublicKeyPath":{key:?}}}]}}"#
        );
        let digest = |text: &str| {
            let text = Bytes::copy_from_slice(text.as_bytes());
            let policy = Policy::parse(text, &Limits::DEFAULT).unwrap();
            *policy.load_keys(&Limits::DEFAULT).digest()
        };
        let missing = digest(&text);
        std::fs::write(&key, "one").unwrap();
        let one = digest(&text);
        assert_eq!(digest(&text), one);
        assert_ne!(missing, one);
        std::fs::write(&key, "two").unwrap();
        assert_ne!(digest(&text), one);
        std::fs::write(&key, "one").unwrap();
        assert_ne!(digest(&format!("{text} ")), one);
        assert_ne!(digest(&text.replace("aGk=", "aG8=")), one);
        let plain = policy(r#"{"default":[{"type":"reject"}]}"#);
        let of = |scopes: &[&str]| {
            let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            *plain.clone().with_unnamed_bundles(scopes).digest()
        };
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
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
