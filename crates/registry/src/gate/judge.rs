// SPDX-License-Identifier: Apache-2.0
//! Asking the policy about a manifest that was pushed.
//!
//! | pushed | admitted if |
//! |---|---|
//! | an image, or another artifact | it is admitted under its name |
//! | an index | it is admitted itself; members that wait are then admitted as chosen from it |
//! | an index that is not | each manifest that it lists is admitted under the index's name |
//!
//! The name is the registry's own, the repository, and the tag or else the digest.

use std::time::SystemTime;

use gantry_image::ManifestBytes;
use gantry_oci::{Descriptor, ManifestDigest, Reference};
use gantry_trust::extra::Circumstances;
use gantry_trust::{AdmittedImage, Authority, Denied, Question, Subject};

use super::Gate;
use super::decide::{Admission, Naming, Opinion, Proof, Trouble};
use super::evidence::{self, Evidence};
use crate::serve::Registry;
use crate::state::Member;

/// Members of an index that are judged one by one.
const MEMBERS: usize = 64;

/// Reads the policy.
///
/// # Errors
/// [`Trouble`].
pub fn authority(gate: &Gate) -> Result<Authority, Trouble> {
    gate.authorities.load().map_err(|internal| Trouble {
        outward: "the registry's policy cannot be read",
        internal,
    })
}

/// What the policy says. Blocks, and must run beside the runtime's threads.
pub fn judge(
    registry: &Registry,
    gate: &Gate,
    authority: &Authority,
    naming: &Naming,
    manifest: &ManifestBytes,
) -> Opinion {
    let case = Case {
        registry,
        gate,
        authority,
        naming,
        manifest,
    };
    case.judge().unwrap_or_else(Opinion::Unknown)
}

struct Case<'a> {
    registry: &'a Registry,
    gate: &'a Gate,
    authority: &'a Authority,
    naming: &'a Naming,
    manifest: &'a ManifestBytes,
}

impl Case<'_> {
    fn judge(&self) -> Result<Opinion, Trouble> {
        let evidence = self.evidence(self.naming.tag.is_none(), &self.naming.digest)?;
        let subject = self.subject(&self.naming.digest, self.naming.tag.is_none());
        let admitted = self.admit(&subject, self.manifest, None, &evidence);
        let Some(index) = self.manifest.as_index() else {
            return Ok(match admitted {
                Ok(admitted) => Opinion::Admitted(itself(admitted, &evidence), Vec::new()),
                Err(denied) => Opinion::Denied(Box::new(denied)),
            });
        };
        match admitted {
            Ok(admitted) => self.with_members(admitted, &index.manifests, &evidence),
            Err(denied) => self.by_members(denied, &subject, &index.manifests, &evidence),
        }
    }

    /// The name that clients ask by.
    fn subject(&self, digest: &ManifestDigest, by_digest: bool) -> Subject {
        Subject::docker(&self.reference(digest, by_digest))
    }

    fn reference(&self, digest: &ManifestDigest, by_digest: bool) -> Reference {
        Reference {
            host: self.gate.options.name.clone(),
            repository: self.naming.repository.clone(),
            tag: self.naming.tag.clone().filter(|_| !by_digest),
            digest: by_digest.then_some(*digest),
        }
    }

    fn evidence(&self, by_digest: bool, digest: &ManifestDigest) -> Result<Evidence, Trouble> {
        let reference = self.reference(digest, by_digest);
        if self
            .authority
            .asks_for_signatures(&Subject::docker(&reference))
        {
            evidence::collect(self.registry, &reference, digest)
        } else {
            Ok(Evidence::default())
        }
    }

    fn admit(
        &self,
        subject: &Subject,
        manifest: &ManifestBytes,
        chosen_from: Option<&ManifestBytes>,
        evidence: &Evidence,
    ) -> Result<AdmittedImage, Denied> {
        let question = Question {
            subject,
            manifest,
            chosen_from,
            signatures: &evidence.found,
            now: SystemTime::now(),
            circumstances: Circumstances::default(),
        };
        self.authority.admit(&question, &*self.gate.memory)
    }

    /// The index is admitted; so must be what waits of it.
    fn with_members(
        &self,
        admitted: AdmittedImage,
        entries: &[Descriptor],
        evidence: &Evidence,
    ) -> Result<Opinion, Trouble> {
        let mut members = Vec::new();
        for entry in entries {
            let digest = ManifestDigest::from_digest(entry.digest);
            if self.is_published(&digest) {
                continue;
            }
            let Some(manifest) = self.waiting(&digest)? else {
                return Err(absent(&digest));
            };
            let mut own = self.evidence(true, &digest)?;
            let kept = own.blobs();
            own.found.extend(evidence.found.iter().cloned());
            let subject = self.subject(&digest, true);
            match self.admit(&subject, &manifest, Some(self.manifest), &own) {
                Ok(admitted) => members.push(Admission {
                    proof: Proof::Itself(Box::new(admitted)),
                    signatures: kept,
                }),
                Err(denied) => return Ok(Opinion::Denied(Box::new(denied))),
            }
        }
        Ok(Opinion::Admitted(itself(admitted, evidence), members))
    }

    /// The index is not admitted, but perhaps each manifest in it is, under the index's name.
    fn by_members(
        &self,
        denied: Denied,
        subject: &Subject,
        entries: &[Descriptor],
        evidence: &Evidence,
    ) -> Result<Opinion, Trouble> {
        if denied.is_final() || entries.is_empty() || entries.len() > MEMBERS {
            return Ok(Opinion::Denied(Box::new(denied)));
        }
        let (mut proofs, mut members) = (Vec::new(), Vec::new());
        for entry in entries {
            let digest = ManifestDigest::from_digest(entry.digest);
            let published = self.published(&digest)?;
            let waiting = match &published {
                Some(_) => None,
                None => self.waiting(&digest)?,
            };
            let Some(manifest) = published.as_ref().or(waiting.as_ref()) else {
                return Err(absent(&digest));
            };
            let mut own = self.evidence(true, &digest)?;
            let kept = own.blobs();
            if waiting.is_some() {
                // It needs leave of its own, by its digest.
                let subject = self.subject(&digest, true);
                match self.admit(&subject, manifest, None, &own) {
                    Ok(admitted) => members.push(Admission {
                        proof: Proof::Itself(Box::new(admitted)),
                        signatures: kept,
                    }),
                    Err(_) => return Ok(Opinion::Denied(Box::new(denied))),
                }
            }
            own.found.extend(evidence.found.iter().cloned());
            match self.admit(subject, manifest, Some(self.manifest), &own) {
                Ok(admitted) => proofs.push(admitted),
                Err(_) => return Ok(Opinion::Denied(Box::new(denied))),
            }
        }
        let admission = Admission {
            proof: Proof::Members(self.naming.digest, proofs),
            signatures: evidence.blobs(),
        };
        Ok(Opinion::Admitted(admission, members))
    }

    fn is_published(&self, digest: &ManifestDigest) -> bool {
        let state = &self.registry.state;
        state.has(&self.naming.repository, Member::Manifest, digest.digest())
    }

    fn published(&self, digest: &ManifestDigest) -> Result<Option<ManifestBytes>, Trouble> {
        evidence::published(self.registry, &self.naming.repository, digest)
    }

    fn waiting(&self, digest: &ManifestDigest) -> Result<Option<ManifestBytes>, Trouble> {
        let repository = &self.naming.repository;
        let limits = &self.registry.limits;
        let found = self.gate.waiting.manifest(repository, digest, limits);
        found
            .map(|found| found.map(|found| found.manifest))
            .map_err(|error| Trouble {
                outward: "what waits in this registry cannot be read",
                internal: error.to_string(),
            })
    }
}

fn itself(admitted: AdmittedImage, evidence: &Evidence) -> Admission {
    Admission {
        proof: Proof::Itself(Box::new(admitted)),
        signatures: evidence.blobs(),
    }
}

fn absent(digest: &ManifestDigest) -> Trouble {
    Trouble {
        outward: "a manifest that it lists is not here",
        internal: format!("manifest {digest} is neither published nor waiting"),
    }
}
