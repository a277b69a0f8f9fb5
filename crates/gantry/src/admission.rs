// SPDX-License-Identifier: Apache-2.0
//! Which images are admitted on this host: the policy of this call, asked wherever an image is copied, mounted or run.
//!
//! ```text
//! pull, copy, push   Gatekeeper     before any blob; signatures of the source, under the logical reference
//! run, mount         RunnableImage  at each start; signatures that were kept with the image, no network
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_image::{EndpointError, ImageSource, ManifestBytes, SignatureBlob, UnverifiedManifest};
use gantry_oci::{ChainId, DiffId, Digest, Kind, Limits, ManifestDigest};
use gantry_store::{ImageRecord, RecordContent, Store};
use gantry_transport::copy::Gate;
use gantry_trust::extra::Circumstances;
use gantry_trust::{
    AdmittedImage, Authority, Denied, FoundSignature, Memory, NoMemory, Question, Subject,
};

use crate::commands::container::find::FoundImage;
use crate::context::Context;
use crate::exit::Failure;
use crate::trust::Trust;
use crate::verdicts::Verdicts;

/// The policy of this call, and what it has admitted before.
#[derive(Debug)]
pub struct Admission {
    authority: Authority,
    verdicts: Verdicts,
    limits: Limits,
}

impl Admission {
    /// Reads policy, rules and keys.
    ///
    /// # Errors
    /// There is no policy, or it cannot be relied on: nothing is admitted then.
    pub fn load(context: &Context) -> Result<Self, Failure> {
        let Trust { policy, extra, .. } =
            Trust::load(context).map_err(|failure| failure.context("admit no image"))?;
        Ok(Self {
            authority: Authority::new(policy, extra),
            verdicts: Verdicts::new(&context.runroot),
            limits: Limits::DEFAULT,
        })
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
    /// [`Kind::Denied`] with the policy's reason; [`Kind::Corrupt`] if the store's record is not that of the manifest;
    /// the store's own.
    pub fn runnable(&self, found: FoundImage) -> Result<RunnableImage, Failure> {
        let store = &found.store;
        let manifest = self.stored_manifest(store, &found.record.digest)?;
        check_record(store, &found.record, &manifest)?;
        let index = match &found.index {
            Some(digest) => Some(self.stored_manifest(store, digest)?),
            None => None,
        };
        let subjects = found.subjects()?;
        for subject in &subjects {
            check_pinned(subject, &manifest, index.as_ref())?;
        }
        let first = match self.stored(store, &subjects, &manifest, index.as_ref())? {
            Ok(proof) => return Ok(RunnableImage { found, proof }),
            Err(denied) => denied,
        };
        // It may be the index that was signed, from which this image was chosen when it was pulled.
        if index.is_none() {
            for digest in indexes_of(store, manifest.digest())? {
                let index = self.stored_manifest(store, &digest)?;
                if let Ok(proof) = self.stored(store, &subjects, &manifest, Some(&index))? {
                    return Ok(RunnableImage { found, proof });
                }
            }
        }
        Err(explained(denied_failure(first), found.asked.as_deref()))
    }

    fn stored_manifest(
        &self,
        store: &Store,
        digest: &ManifestDigest,
    ) -> Result<ManifestBytes, Failure> {
        let record = store.image(digest)?;
        let found = record.zip(store.manifest(digest)?);
        let (record, bytes) = found
            .ok_or_else(|| Failure::message(Kind::Corrupt, format!("manifest {digest} is gone")))?;
        let media_type = record.media_type.as_str().to_owned();
        let manifest = UnverifiedManifest::new(bytes.into(), Some(media_type), None);
        Ok(manifest.verify(Some(digest), &self.limits)?)
    }

    /// The verdict about an image of a store, by the signatures that are kept with it.
    fn stored(
        &self,
        store: &Store,
        subjects: &[Subject],
        manifest: &ManifestBytes,
        index: Option<&ManifestBytes>,
    ) -> Result<Result<AdmittedImage, Denied>, Failure> {
        let mut signatures = Vec::new();
        if self.asks_for_signatures(subjects) {
            for about in std::iter::once(manifest).chain(index) {
                let kept = store.signatures(about.digest())?;
                let place = format!("store {}", store.path().display());
                found_at(&place, kept, &mut signatures);
            }
        }
        Ok(self.decide(subjects, manifest, index, &signatures))
    }

    fn asks_for_signatures(&self, subjects: &[Subject]) -> bool {
        let asks = |subject| self.authority.asks_for_signatures(subject);
        subjects.iter().any(asks)
    }

    /// Admits the image under the first of the names that it may have here; if under none, the first denial stands.
    fn decide(
        &self,
        subjects: &[Subject],
        manifest: &ManifestBytes,
        chosen_from: Option<&ManifestBytes>,
        signatures: &[FoundSignature],
    ) -> Result<AdmittedImage, Denied> {
        let ask = |subject: &Subject| {
            // What no signature decides is decided faster than remembered.
            let memory: &dyn Memory = match self.authority.asks_for_signatures(subject) {
                true => &self.verdicts,
                false => &NoMemory,
            };
            let question = Question {
                subject,
                manifest,
                chosen_from,
                signatures,
                now: SystemTime::now(),
                circumstances: Circumstances::default(),
            };
            self.authority.admit(&question, memory)
        };
        let unnamed = Subject::docker_unnamed();
        let (first, others) = subjects.split_first().unwrap_or((&unnamed, &[]));
        ask(first).or_else(|denied| {
            others
                .iter()
                .find_map(|other| ask(other).ok())
                .ok_or(denied)
        })
    }
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
        let mut signatures = Vec::new();
        if self.admission.asks_for_signatures(&self.subjects) {
            for about in std::iter::once(manifest).chain(listed_in) {
                let kept = source.signatures(about.digest()).await?;
                found_at(&source.describe(), kept, &mut signatures);
            }
        }
        let decided = self
            .admission
            .decide(&self.subjects, manifest, listed_in, &signatures);
        decided.map(drop).map_err(|denied| {
            self.denied.store(true, Ordering::Relaxed);
            EndpointError::new(denied.kind(), denied.to_string())
        })
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

/// The indexes of a store that list an image.
fn indexes_of(store: &Store, digest: &ManifestDigest) -> Result<Vec<ManifestDigest>, Failure> {
    let mut indexes = Vec::new();
    for candidate in store.digests()? {
        let content = store.image(&candidate)?.map(|record| record.content);
        if let Some(RecordContent::Index { present, .. }) = content {
            indexes.extend(present.contains(digest).then_some(candidate));
        }
    }
    Ok(indexes)
}

/// Holds a store's record to the manifest: a record is what mounts go by, and the manifest is what was admitted.
fn check_record(
    store: &Store,
    record: &ImageRecord,
    manifest: &ManifestBytes,
) -> Result<(), Failure> {
    let differs = |what: &str| {
        let digest = manifest.digest();
        let message =
            format!("the store's record of image {digest} has another {what} than its manifest");
        Err(Failure::message(Kind::Corrupt, message)
            .hint("find what is damaged: gantry store check"))
    };
    let (Some(facts), Some(document)) = (record.image(), manifest.as_manifest()) else {
        return differs("kind");
    };
    if *facts.image_id.digest() != document.config.digest {
        return differs("configuration");
    }
    let blobs = facts.layers.iter().map(|layer| layer.digest.digest());
    if !blobs.eq(document.layers.iter().map(|layer| &layer.digest)) {
        return differs("list of layers");
    }
    let diff_ids: Vec<DiffId> = facts.layers.iter().map(|layer| layer.diff_id).collect();
    let chain = ChainId::of(&diff_ids);
    if store.config(record)?.rootfs.diff_ids != diff_ids || chain != facts.chain_id {
        return differs("tree");
    }
    Ok(())
}

/// A name by digest must lead to that digest, or to an index with it, whatever the link in the store says.
fn check_pinned(
    subject: &Subject,
    manifest: &ManifestBytes,
    index: Option<&ManifestBytes>,
) -> Result<(), Failure> {
    let pinned = subject
        .reference()
        .and_then(|reference| reference.digest.as_ref());
    let Some(pinned) = pinned.map(ManifestDigest::digest) else {
        return Ok(());
    };
    let is = |manifest: &ManifestBytes| *pinned == Digest::of(pinned.algorithm(), manifest.bytes());
    if is(manifest) || index.is_some_and(is) {
        return Ok(());
    }
    let message = format!("the store gives {} for {pinned}", manifest.digest());
    Err(Failure::message(Kind::Corrupt, message))
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
