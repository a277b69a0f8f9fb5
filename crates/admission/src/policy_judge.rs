// SPDX-License-Identifier: Apache-2.0
//! The judge that asks the policy: finds the manifest and its signatures,
//! and asks [`Authority::admit`].
//!
//! What a daemon says of an image it holds is compared with the manifest:
//! the image's ID is the digest of the configuration that the manifest names,
//! or of the manifest or index itself, where a daemon keeps these.
//!
//! | the registry has | the daemon runs | judged is |
//! |---|---|---|
//! | a manifest | its configuration, or it | the manifest |
//! | an index | the configuration of one of its manifests | that manifest, chosen from the index |
//! | an index | the index | the index taken whole, or else each image in it |
//! | an index | (a cluster will) | the image for each platform of the nodes |
//!
//! The policy and its keys are read anew for each judgement, so that a policy
//! that was tightened holds from the next one on. An admission that was made by
//! the same policy, keys and signatures is not made again while it holds.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_image::select::choose_platform;
use gantry_image::{EndpointError, ImageSource, ManifestBytes, Wanted};
use gantry_oci::{Descriptor, ImageId, Limits, ManifestDigest, Platform, Reference};
use gantry_trust::evaluate::{NamespaceVerdict, Outcome, SignatureVerdict};
use gantry_trust::extra::Circumstances;
use gantry_trust::prepared::{Ready, Test};
use gantry_trust::scope::Matched;
use gantry_trust::{Authority, FoundSignature, Memory, Question, Refusal, Subject, Verdict};

use crate::judge::{Asked, Content, Judge, Judgement};

/// Images of one index that are fetched to find the one that a daemon runs.
const TRIED_IMAGES: usize = 64;

/// Where the policy comes from.
pub trait Rules: Send + Sync + fmt::Debug {
    /// Reads what holds now.
    ///
    /// # Errors
    /// A sentence; nothing is admitted then.
    fn load(&self) -> Result<Authority, String>;
}

/// Where images and their signatures come from.
pub trait Sources: Send + Sync + fmt::Debug {
    /// The source of a reference; no connection is made.
    ///
    /// # Errors
    /// As the transport says.
    fn open(&self, reference: &Reference) -> Result<Box<dyn ImageSource>, EndpointError>;
}

/// A judge by policy.
#[derive(Debug)]
pub struct PolicyJudge {
    /// The policy.
    pub rules: Arc<dyn Rules>,
    /// What was admitted before, which is not checked again while it holds.
    pub memory: Arc<dyn Memory + Send + Sync>,
    /// The registries.
    pub sources: Box<dyn Sources>,
    /// What a cluster's nodes run; an image must be admitted for each.
    pub platforms: Vec<Platform>,
    /// Caps on manifests.
    pub limits: Limits,
}

/// A manifest to evaluate, and the index that it was chosen from.
struct Candidate {
    manifest: ManifestBytes,
    chosen_from: Option<ManifestBytes>,
}

/// One image in a registry, being read.
struct Reading<'a> {
    source: Box<dyn ImageSource>,
    limits: &'a Limits,
}

type Sentence = String;

fn sentence(error: &dyn std::error::Error) -> Sentence {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Reading<'_> {
    async fn manifest(
        &self,
        wanted: Wanted<'_>,
        expected: Option<&ManifestDigest>,
    ) -> Result<ManifestBytes, Sentence> {
        let fetched = self.source.manifest(wanted).await;
        let unverified = fetched.map_err(|error| sentence(&error))?;
        unverified
            .verify(expected, self.limits)
            .map_err(|error| sentence(&error))
    }

    async fn entry(&self, entry: &Descriptor) -> Result<ManifestBytes, Sentence> {
        let digest = ManifestDigest::from_digest(entry.digest);
        self.manifest(Wanted::Digest(&digest), Some(&digest)).await
    }

    async fn signatures(&self, candidate: &Candidate) -> Result<Vec<FoundSignature>, Sentence> {
        let mut found = Vec::new();
        let manifests = [Some(&candidate.manifest), candidate.chosen_from.as_ref()];
        for manifest in manifests.into_iter().flatten() {
            let blobs = self.source.signatures(manifest.digest()).await;
            let place = self.source.describe();
            found.extend(
                blobs
                    .map_err(|error| sentence(&error))?
                    .into_iter()
                    .map(|blob| FoundSignature {
                        blob,
                        place: place.clone(),
                    }),
            );
        }
        Ok(found)
    }

    /// What would run where whatever is served now is pulled for each platform.
    async fn served(
        &self,
        expected: Option<&ManifestDigest>,
        platforms: &[Platform],
    ) -> Result<Vec<Candidate>, Sentence> {
        let top = self.manifest(Wanted::Primary, expected).await?;
        let Some(index) = top.as_index() else {
            return Ok(vec![Candidate::alone(top)]);
        };
        let mut candidates = Vec::new();
        for platform in platforms {
            let choice = choose_platform(index, platform).map_err(|error| sentence(&error))?;
            candidates.push(Candidate {
                manifest: self.entry(choice.descriptor).await?,
                chosen_from: Some(top.clone()),
            });
        }
        Ok(candidates)
    }

    /// What a daemon runs that says that its `image` came as `digest`.
    async fn held(&self, digest: &ManifestDigest, image: &ImageId) -> Result<Held, Sentence> {
        let top = self.manifest(Wanted::Digest(digest), Some(digest)).await?;
        let is_top = top.digest().digest() == image.digest();
        let Some(index) = top.as_index() else {
            if is_top || is_of(&top, image) {
                return Ok(Held::One(Candidate::alone(top)));
            }
            return Err(format!(
                "image {image} of the daemon is not that of manifest {digest}"
            ));
        };
        if is_top {
            return Ok(Held::Index(top));
        }
        let host = Platform::host();
        let likely = choose_platform(index, &host)
            .ok()
            .map(|choice| choice.position);
        let others = (0..index.manifests.len()).filter(|&position| Some(position) != likely);
        for position in likely.into_iter().chain(others).take(TRIED_IMAGES) {
            // An entry that the registry does not have is not what the daemon pulled.
            let Ok(manifest) = self.entry(&index.manifests[position]).await else {
                continue;
            };
            if is_of(&manifest, image) {
                return Ok(Held::One(Candidate {
                    manifest,
                    chosen_from: Some(top.clone()),
                }));
            }
        }
        Err(format!(
            "image {image} of the daemon is not one of those in index {digest}"
        ))
    }
}

enum Held {
    One(Candidate),
    Index(ManifestBytes),
}

impl Candidate {
    fn alone(manifest: ManifestBytes) -> Self {
        Self {
            manifest,
            chosen_from: None,
        }
    }
}

/// Whether a manifest names the configuration whose digest is the image's ID.
fn is_of(manifest: &ManifestBytes, image: &ImageId) -> bool {
    manifest
        .as_manifest()
        .is_some_and(|manifest| manifest.config.digest == *image.digest())
}

impl PolicyJudge {
    async fn judge_inner(&self, asked: &Asked) -> Result<Judgement, Sentence> {
        let rules = Arc::clone(&self.rules);
        let authority = tokio::task::spawn_blocking(move || rules.load())
            .await
            .map_err(|error| sentence(&error))??;
        let authority = Arc::new(authority);
        let (subject, namespace) = (
            Subject::docker(&asked.reference),
            asked.namespace.as_deref(),
        );
        if let Some(refused) = settled(&authority, &subject, asked) {
            return Ok(refused);
        }
        let reading = Reading {
            source: self
                .sources
                .open(&asked.reference)
                .map_err(|error| sentence(&error))?,
            limits: &self.limits,
        };
        let candidates = match &asked.content {
            Content::Served => {
                let expected = asked.reference.digest.as_ref();
                reading.served(expected, &self.platforms).await?
            }
            Content::Held { manifest, image } => match reading.held(manifest, image).await? {
                Held::One(candidate) => vec![candidate],
                Held::Index(index) => {
                    let whole = Candidate::alone(index.clone());
                    let judgement = self
                        .admit(&authority, &subject, &reading, whole, namespace)
                        .await?;
                    if judgement.admitted {
                        return Ok(judgement);
                    }
                    images_in(&reading, &index).await?
                }
            },
            Content::Local { .. } => Vec::new(),
        };
        let mut last = Judgement::refused("there is nothing that could be judged");
        for candidate in candidates {
            last = self
                .admit(&authority, &subject, &reading, candidate, namespace)
                .await?;
            if !last.admitted {
                break;
            }
        }
        Ok(last)
    }

    async fn admit(
        &self,
        authority: &Arc<Authority>,
        subject: &Subject,
        reading: &Reading<'_>,
        candidate: Candidate,
        namespace: Option<&str>,
    ) -> Result<Judgement, Sentence> {
        let signatures = if authority.asks_for_signatures(subject) {
            reading.signatures(&candidate).await?
        } else {
            Vec::new()
        };
        let (authority, subject) = (Arc::clone(authority), subject.clone());
        let (memory, namespace) = (Arc::clone(&self.memory), namespace.map(str::to_owned));
        // Public-key cryptography, and as much of it as there are signatures.
        let judged = tokio::task::spawn_blocking(move || {
            let question = Question {
                subject: &subject,
                manifest: &candidate.manifest,
                chosen_from: candidate.chosen_from.as_ref(),
                signatures: &signatures,
                now: SystemTime::now(),
                circumstances: Circumstances {
                    namespace: namespace.as_deref(),
                    ..Circumstances::default()
                },
            };
            let digest = Some(*candidate.manifest.digest());
            match authority.admit(&question, &*memory) {
                Ok(admitted) => Judgement {
                    admitted: true,
                    reason: grounds(admitted.signers()),
                    scope: Some(scope(admitted.matched())),
                    digest,
                },
                Err(denied) => Judgement {
                    admitted: false,
                    reason: reason(&denied.verdict),
                    scope: Some(scope(&denied.verdict.matched)),
                    digest,
                },
            }
        });
        judged.await.map_err(|error| sentence(&error))
    }
}

/// Every image of an index that a daemon keeps whole: any of them may be the one that runs.
async fn images_in(
    reading: &Reading<'_>,
    index: &ManifestBytes,
) -> Result<Vec<Candidate>, Sentence> {
    let entries = index.as_index().map(|index| index.manifests.as_slice());
    let entries = entries.unwrap_or_default();
    if entries.len() > TRIED_IMAGES {
        return Err(format!(
            "an index of {} images is not signed as a whole",
            entries.len()
        ));
    }
    let mut candidates = Vec::new();
    for entry in entries.iter().filter(|entry| runs_somewhere(entry)) {
        candidates.push(Candidate {
            manifest: reading.entry(entry).await?,
            chosen_from: Some(index.clone()),
        });
    }
    Ok(candidates)
}

/// Builders put what they attest beside images, for a platform that no machine is.
fn runs_somewhere(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_none_or(|platform| {
        (platform.os.as_str(), platform.architecture.as_str()) != ("unknown", "unknown")
    })
}

/// The judgement that needs no manifest: everything is rejected, or nobody can have signed.
fn settled(authority: &Authority, subject: &Subject, asked: &Asked) -> Option<Judgement> {
    let (matched, list) = authority.policy().requirements_for(subject);
    let judgement = |admitted, reason: String| Judgement {
        admitted,
        reason,
        scope: Some(scope(&matched)),
        digest: None,
    };
    let whatever = list.iter().filter(|ready| !ready.takes_signatures());
    let refused = whatever.map(Ready::test).find_map(|test| match test {
        Test::Refuse(refusal) => Some(refusal.to_string()),
        _ => None,
    });
    if let Some(reason) = refused {
        return Some(judgement(false, reason));
    }
    let Content::Local { image } = &asked.content else {
        return None;
    };
    // A namespace's policy is not asked about images of a daemon.
    let accepts = asked.namespace.is_none() && authority.accepts_anything(subject, image.digest());
    Some(if accepts {
        judgement(
            true,
            "the policy accepts what the daemon made or loaded itself".to_owned(),
        )
    } else {
        let reason =
            "the daemon made or loaded the image itself, so that no registry has signatures of it";
        judgement(false, reason.to_owned())
    })
}

fn scope(matched: &Matched) -> String {
    match matched {
        Matched::Default => "default".to_owned(),
        Matched::Scope(scope) if scope.is_empty() => "docker".to_owned(),
        Matched::Scope(scope) => scope.clone(),
    }
}

/// The grounds of an admission in one sentence.
fn grounds(signers: &[String]) -> String {
    match signers {
        [] => "the policy accepts it unsigned".to_owned(),
        signers => format!("signed by {}", signers.join(" and ")),
    }
}

/// What is missing, in one sentence.
fn reason(verdict: &Verdict) -> String {
    if let Some(unmet) = verdict.requirements.iter().find(|one| !one.met) {
        return why_not(unmet.requirement, unmet.refusal.as_ref(), &unmet.signatures);
    }
    if let Some(unmet) = verdict.conditions.iter().find(|one| !one.met) {
        return why_not(unmet.condition, unmet.refusal.as_ref(), &unmet.signatures);
    }
    match verdict.namespace.as_deref() {
        Some(NamespaceVerdict::Refused(refusal)) => {
            format!("the namespace's policy cannot be used: {refusal}")
        }
        Some(NamespaceVerdict::Policy(own)) => {
            format!("by the namespace's policy: {}", reason(own))
        }
        None => "the policy refuses it".to_owned(),
    }
}

fn why_not(name: &str, refusal: Option<&Refusal>, signatures: &[SignatureVerdict]) -> String {
    if let Some(refusal) = refusal {
        return format!("{name}: {refusal}");
    }
    let whys: Vec<String> = signatures
        .iter()
        .filter_map(|signature| match &signature.outcome {
            Outcome::Refused(refusal) => Some(refusal.to_string()),
            Outcome::Counts(_) => None,
        })
        .collect();
    match whys.as_slice() {
        [] => format!("{name} is required and no signature was found"),
        whys => format!(
            "{name} is required and no signature counts: {}",
            whys.join("; ")
        ),
    }
}

#[async_trait]
impl Judge for PolicyJudge {
    async fn judge(&self, asked: &Asked) -> Judgement {
        self.judge_inner(asked)
            .await
            .unwrap_or_else(Judgement::refused)
    }
}
