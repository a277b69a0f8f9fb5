// SPDX-License-Identifier: Apache-2.0
//! A policy with the keys that it names: all that an evaluation needs.
//!
//! A key file that cannot be read or makes no sense spoils the requirement
//! that names it and no other: that requirement is met by nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gantry_oci::{Algorithm, Digest, Digester, Limits};

use crate::identity::SignedIdentity;
use crate::keys::{Keys, absorb};
use crate::mechanism::Mechanism;
use crate::policy::{KeyType, Policy, Requirement, SigstoreSigners, Source};
use crate::refusal::{Reason, Refusal};
use crate::scope::{Matched, Subject};

pub use crate::keys::Material;
pub use crate::real::Real;

/// A policy that can be evaluated.
///
/// Its keys are read and prepared when they are first needed, and then kept:
/// the same value gives the same answers whatever becomes of the files.
#[derive(Debug, Clone)]
pub struct PreparedPolicy {
    policy: Policy,
    default: Vec<Ready>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Ready>>>,
    unnamed_bundles: Vec<String>,
}

/// A requirement with its keys.
#[derive(Debug, Clone)]
pub struct Ready {
    requirement: Requirement,
    keys: Arc<Keys<Test>>,
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
pub trait Mechanisms: fmt::Debug + Send + Sync {
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

impl Policy {
    /// Adds this machine's key files and our cryptography.
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
    pub fn new<M: Mechanisms + Clone + 'static>(policy: Policy, mechanisms: &M) -> Self {
        Self::with(
            policy,
            &(Arc::new(mechanisms.clone()) as Arc<dyn Mechanisms>),
        )
    }

    pub(crate) fn with(policy: Policy, mechanisms: &Arc<dyn Mechanisms>) -> Self {
        let ready = |requirement: &Requirement| Ready::new(requirement.clone(), mechanisms);
        let all = |list: &[Requirement]| list.iter().map(ready).collect();
        let default = all(policy.default_requirements());
        let transports = policy
            .transports()
            .iter()
            .map(|(transport, scopes)| {
                let scopes = scopes.iter();
                let scopes = scopes.map(|(scope, list)| (scope.clone(), all(list)));
                (transport.clone(), scopes.collect())
            })
            .collect();
        Self {
            policy,
            default,
            transports,
            unnamed_bundles: Vec::new(),
        }
    }

    /// Lets sigstore bundles that name no reference count for images under one
    /// of these `docker` scopes. The format has no such rule; Gantry's
    /// configuration does.
    #[must_use]
    pub fn with_unnamed_bundles(mut self, scopes: Vec<String>) -> Self {
        self.unnamed_bundles = scopes;
        self
    }

    /// The policy as it stands in its file.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// SHA-256 of the policy and of all key material, which is read for it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::new(Algorithm::Sha256);
        self.absorb_text(&mut digester);
        let scopes = self.transports.values().flat_map(BTreeMap::values);
        for ready in scopes.chain([&self.default]).flatten() {
            ready.keys.absorb(&mut digester);
        }
        digester.finish()
    }

    fn absorb_text(&self, digester: &mut Digester) {
        absorb(digester, self.policy.text());
        digester.update(&(self.unnamed_bundles.len() as u64).to_le_bytes());
        for scope in &self.unnamed_bundles {
            absorb(digester, scope.as_bytes());
        }
    }

    /// Adds to a digest all that the answer about a subject depends on: as long
    /// as that is the same, the same question gets the same answer, until that expires.
    pub(crate) fn absorb(&self, subject: &Subject, digester: &mut Digester) {
        self.absorb_text(digester);
        // Which list holds follows from policy and subject; the keys of others decide nothing.
        let (_, list) = self.requirements_for(subject);
        for ready in list {
            ready.keys.absorb(digester);
        }
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

impl Ready {
    fn new(requirement: Requirement, mechanisms: &Arc<dyn Mechanisms>) -> Self {
        let keys = Keys::new(requirement.sources(), mechanisms);
        Self {
            requirement,
            keys: Arc::new(keys),
        }
    }

    /// Its type, as policies spell it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.requirement.type_name()
    }

    /// Whether signatures may meet it. No key is read to tell.
    #[must_use]
    pub fn takes_signatures(&self) -> bool {
        match &self.requirement {
            Requirement::SignedBy(signed_by) => signed_by.key_type == KeyType::GpgKeys,
            Requirement::SigstoreSigned(_) => true,
            Requirement::InsecureAcceptAnything
            | Requirement::Reject
            | Requirement::SignedBaseLayer(_) => false,
        }
    }

    /// What it takes, its keys read and prepared.
    #[must_use]
    pub fn test(&self) -> &Test {
        self.keys.prepared(|material, mechanisms| {
            let mut material = material.iter().cloned();
            // As many as there are sources, and asked for in their order.
            let mut next = || material.next().unwrap_or_else(|| Ok(Vec::new()));
            test(&self.requirement, &mut next, mechanisms).unwrap_or_else(Test::Refuse)
        })
    }
}

impl Requirement {
    /// Where its keys are.
    fn sources(&self) -> Vec<Source> {
        match self {
            Self::InsecureAcceptAnything | Self::Reject | Self::SignedBaseLayer(_) => Vec::new(),
            Self::SignedBy(signed_by) => vec![signed_by.keys.clone()],
            Self::SigstoreSigned(sigstore) => {
                let mut sources: Vec<Source> = sigstore.rekor.iter().cloned().collect();
                match &sigstore.signers {
                    SigstoreSigners::Keys(keys) => sources.push(keys.clone()),
                    SigstoreSigners::Fulcio { ca, .. } => sources.push(ca.clone()),
                    SigstoreSigners::Pki {
                        roots,
                        intermediates,
                        ..
                    } => {
                        sources.push(roots.clone());
                        sources.extend(intermediates.clone());
                    }
                }
                sources
            }
        }
    }
}

/// `next` gives what [`Requirement::sources`] hold, in their order.
fn test(
    requirement: &Requirement,
    next: &mut dyn FnMut() -> Material,
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
            if signed_by.key_type != KeyType::GpgKeys {
                let key_type = signed_by.key_type.as_str();
                let message = format!("keyType {key_type} is implemented by nobody");
                return Err(Refusal::new(Reason::Unsupported, message));
            }
            Test::Signature(mechanisms.openpgp(&next()?)?, signed_by.identity.clone())
        }
        Requirement::SigstoreSigned(sigstore) => {
            let rekor = sigstore.rekor.as_ref().map(|_| next()).transpose()?;
            let material = SigstoreMaterial::load(&sigstore.signers, next)?;
            let verifier = mechanisms.sigstore(material, rekor)?;
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
        next: &mut dyn FnMut() -> Material,
    ) -> Result<Self, Refusal> {
        Ok(match signers {
            SigstoreSigners::Keys(_) => Self::Keys(next()?),
            SigstoreSigners::Fulcio {
                ca: _,
                oidc_issuer,
                subject_email,
            } => Self::Fulcio {
                ca: next()?,
                oidc_issuer,
                subject_email,
            },
            SigstoreSigners::Pki {
                roots: _,
                intermediates,
                subject_hostname,
                subject_email,
            } => Self::Pki {
                roots: next()?,
                intermediates: match intermediates {
                    Some(_) => next()?,
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
        let subject = Subject::tarball();
        let of = |policy: &PreparedPolicy| {
            let mut digester = Digester::new(Algorithm::Sha256);
            policy.absorb(&subject, &mut digester);
            (digester.finish(), policy.digest())
        };
        let digest = |text: &str| {
            let text = Bytes::copy_from_slice(text.as_bytes());
            let policy = Policy::parse(text, &Limits::DEFAULT).unwrap();
            of(&policy.load_keys(&Limits::DEFAULT))
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
        let unnamed = |scopes: &[&str]| {
            let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            of(&plain.clone().with_unnamed_bundles(scopes))
        };
        assert_ne!(unnamed(&["a", "b"]), unnamed(&["ab"]));
    }
}
