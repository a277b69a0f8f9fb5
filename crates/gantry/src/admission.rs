// SPDX-License-Identifier: Apache-2.0
//! Which images are admitted on this host: the policy of this call, asked wherever an image is copied, mounted or run.
//!
//! ```text
//! pull, copy, push   Gatekeeper     before any blob; signatures of the source, under the logical reference
//! run, mount         RunnableImage  at each start; signatures that were kept with the image, no network
//! trust explain      Verdict        the same question, of which nothing follows
//! ```

mod stored;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_image::{EndpointError, ImageSource, ManifestBytes, SignatureBlob};
use gantry_oci::Limits;
use gantry_store::{ImageRecord, Store};
use gantry_transport::copy::Gate;
use gantry_trust::extra::Circumstances;
use gantry_trust::{
    AdmittedImage, Authority, Denied, FoundSignature, Memory, NoMemory, Question, Subject, Verdict,
};

use self::stored::StoredCase;
use crate::commands::container::find::FoundImage;
use crate::context::Context;
use crate::exit::Failure;
use crate::memory::HostMemory;
use crate::trust::Trust;

/// The policy of this call, and what it has admitted before.
#[derive(Debug)]
pub struct Admission {
    authority: Authority,
    memory: HostMemory,
    limits: Limits,
}

impl Admission {
    /// Reads policy and rules.
    ///
    /// # Errors
    /// There is no policy, or it cannot be relied on: nothing is admitted then.
    pub fn load(context: &Context) -> Result<Self, Failure> {
        let trust = Trust::load(context).map_err(|failure| failure.context("admit no image"))?;
        Ok(Self {
            authority: trust.authority(),
            memory: HostMemory::new(context),
            limits: Limits::DEFAULT,
        })
    }

    /// The same, keeping nothing of what it admits if that is only planned.
    pub fn only_planned(self, planned: bool) -> Self {
        if planned {
            let memory = self.memory.planning();
            return Self { memory, ..self };
        }
        self
    }

    /// Stands between a source and whatever is made of it.
    pub fn gate(&self, subjects: Vec<Subject>) -> Gatekeeper<'_> {
        Gatekeeper {
            admission: self,
            subjects,
            denied: AtomicBool::new(false),
        }
    }

    /// Admits an image of a store, so that it can be mounted and run.
    ///
    /// # Errors
    /// [`Kind::Denied`](gantry_oci::Kind::Denied) with the policy's reason; [`Kind::Corrupt`](gantry_oci::Kind::Corrupt) if the store's record is not that of the manifest;
    /// the store's own.
    pub fn runnable(&self, found: FoundImage) -> Result<RunnableImage, Failure> {
        let case = StoredCase::open(&found, &self.limits)?;
        match case.first(self, &|question| self.admit(question))? {
            Ok(proof) => Ok(RunnableImage { found, proof }),
            Err(denied) => Err(explained(denied_failure(denied), found.asked.as_deref())),
        }
    }

    /// The verdict about an image of a store, as [`runnable`](Self::runnable) comes to it, and its manifest.
    ///
    /// # Errors
    /// As there, but for a denial.
    pub fn explain_stored(
        &self,
        found: &FoundImage,
        namespace: Option<&str>,
    ) -> Result<(Verdict, ManifestBytes), Failure> {
        let case = StoredCase::open(found, &self.limits)?;
        let ask = |question: &Question<'_>| self.explain(question, namespace);
        let (Ok(verdict) | Err(verdict)) = case.first(self, &ask)?;
        Ok((verdict, case.into_manifest()))
    }

    /// The same of an image anywhere.
    pub fn explain_found(
        &self,
        subjects: &[Subject],
        evidence: Evidence<'_>,
        namespace: Option<&str>,
    ) -> Verdict {
        let ask = |question: &Question<'_>| self.explain(question, namespace);
        let (Ok(verdict) | Err(verdict)) = first_name(subjects, evidence, &ask);
        verdict
    }

    /// All that is considered, as an answer that is good if the image is admitted.
    fn explain(
        &self,
        question: &Question<'_>,
        namespace: Option<&str>,
    ) -> Result<Verdict, Verdict> {
        let mut question = *question;
        question.circumstances.namespace = namespace;
        let verdict = self.authority.explain(&question, &self.memory);
        if verdict.admitted {
            Ok(verdict)
        } else {
            Err(verdict)
        }
    }

    fn asks_for_signatures(&self, subjects: &[Subject]) -> bool {
        let asks = |subject| self.authority.asks_for_signatures(subject);
        subjects.iter().any(asks)
    }

    fn admit(&self, question: &Question<'_>) -> Result<AdmittedImage, Denied> {
        // What no signature decides is decided faster than remembered.
        let memory: &dyn Memory = match self.authority.asks_for_signatures(question.subject) {
            true => &self.memory,
            false => &NoMemory,
        };
        self.authority.admit(question, memory)
    }
}

/// An image with what was found of it.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The image.
    pub manifest: &'a ManifestBytes,
    /// The index that its name led to.
    pub chosen_from: Option<&'a ManifestBytes>,
    /// The signatures of both.
    pub signatures: &'a [FoundSignature],
}

/// The answer under the first of the names that it may have here; if no answer is good, the first one stands.
fn first_name<T, E>(
    subjects: &[Subject],
    evidence: Evidence<'_>,
    ask: &dyn Fn(&Question<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let Evidence {
        manifest,
        chosen_from,
        signatures,
    } = evidence;
    let ask = |subject: &Subject| {
        ask(&Question {
            subject,
            manifest,
            chosen_from,
            signatures,
            now: SystemTime::now(),
            circumstances: Circumstances::default(),
        })
    };
    let unnamed = Subject::docker_unnamed();
    let (first, others) = subjects.split_first().unwrap_or((&unnamed, &[]));
    ask(first).or_else(|bad| others.iter().find_map(|other| ask(other).ok()).ok_or(bad))
}

/// Decides for one source, before any blob of it is fetched.
#[derive(Debug)]
pub struct Gatekeeper<'a> {
    admission: &'a Admission,
    subjects: Vec<Subject>,
    denied: AtomicBool,
}

impl Gatekeeper<'_> {
    /// Says how to learn more, if it was this gate that an image did not pass.
    pub fn explained(&self, failure: Failure, image: &str) -> Failure {
        if self.denied.load(Ordering::Relaxed) {
            return explained(failure, Some(image));
        }
        failure
    }
}

#[async_trait]
impl Gate for Gatekeeper<'_> {
    async fn admit(
        &self,
        source: &dyn ImageSource,
        manifest: &ManifestBytes,
        listed_in: Option<&ManifestBytes>,
    ) -> Result<(), EndpointError> {
        let mut decided = self.decide(source, manifest, listed_in).await?;
        let asks = || self.admission.asks_for_signatures(&self.subjects);
        if decided.is_err() && listed_in.is_none() && asks() {
            // It may be the index that was signed, from which this image was chosen when it came to the source.
            for index in source.indexes_of(manifest.digest()).await? {
                let index = index.verify(None, &self.admission.limits)?;
                let next = self.decide(source, manifest, Some(&index)).await?;
                if next.is_ok() {
                    decided = next;
                    break;
                }
            }
        }
        decided.map(drop).map_err(|denied| {
            self.denied.store(true, Ordering::Relaxed);
            EndpointError::new(denied.kind(), denied.to_string())
        })
    }
}

impl Gatekeeper<'_> {
    async fn decide(
        &self,
        source: &dyn ImageSource,
        manifest: &ManifestBytes,
        chosen_from: Option<&ManifestBytes>,
    ) -> Result<Result<AdmittedImage, Denied>, EndpointError> {
        let mut signatures = Vec::new();
        if self.admission.asks_for_signatures(&self.subjects) {
            for about in std::iter::once(manifest).chain(chosen_from) {
                let kept = source.signatures(about.digest()).await?;
                found_at(&source.describe(), kept, &mut signatures);
            }
        }
        let evidence = Evidence {
            manifest,
            chosen_from,
            signatures: &signatures,
        };
        Ok(first_name(&self.subjects, evidence, &|question| {
            self.admission.admit(question)
        }))
    }
}

/// An image of a store that may be mounted and run.
///
/// Holding one says: the policy of this call admits the manifest that the store's record names, under the name that it
/// was asked for by, and configuration and layers of the record are those of the manifest. It does not say that the
/// bytes of its tree are whole; objects are named by their digests, which the kernel or `gantry store check` compares.
#[derive(Debug)]
pub struct RunnableImage {
    found: FoundImage,
    proof: AdmittedImage,
}

impl RunnableImage {
    /// The store that has it.
    pub fn store(&self) -> &Store {
        &self.found.store
    }

    /// The image itself, never an index.
    pub fn record(&self) -> &ImageRecord {
        &self.found.record
    }

    /// Whether the store is a share of another host.
    pub fn is_shared(&self) -> bool {
        self.found.shared
    }

    /// By whose word it may run.
    pub fn proof(&self) -> &AdmittedImage {
        &self.proof
    }
}

fn found_at(place: &str, blobs: Vec<SignatureBlob>, signatures: &mut Vec<FoundSignature>) {
    for blob in blobs {
        let place = format!("{place}, signature {}", signatures.len() + 1);
        signatures.push(FoundSignature { blob, place });
    }
}

fn denied_failure(denied: Denied) -> Failure {
    Failure::new(denied.kind(), denied)
}

fn explained(failure: Failure, image: Option<&str>) -> Failure {
    match image {
        Some(image) => failure.hint(format!("see why: gantry trust explain {image}")),
        None => failure,
    }
}
