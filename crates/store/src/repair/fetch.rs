// SPDX-License-Identifier: Apache-2.0
//! Carrying a repair out: contents and layers first, then what is made of them.

use super::{DamagedImage, RepairPlan};
use crate::endpoint::{StoreSlot, StoreSource, blocking, choose};
use crate::error::{Doing as _, StoreError};
use crate::ingest::{CommitImage, Ingest, IngestOptions};
use crate::layout;
use crate::name::ImageName;
use crate::open::Store;
use crate::record::{Faces, RecordContent};
use gantry_image::verify::{Checker, VerifyingStream};
use gantry_image::{
    EndpointError, ImageSource, Layer, LayerSlot as _, ManifestBytes, UnverifiedManifest,
    VerifiedBytes, Wanted,
};
use gantry_oci::{
    Descriptor, DiffId, ImageConfig, Kind, LayerDigest, Manifest, ManifestDigest, ObjectId,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Where images came from.
pub trait Origins: Send + Sync {
    /// Sources that may have an image, the best first. `names` lead to it in this store.
    fn sources(&self, digest: &ManifestDigest, names: &[ImageName]) -> Vec<Arc<dyn ImageSource>>;
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Objects that were replaced.
    pub objects: u64,
    /// Layers that were brought, whole.
    pub layers: u64,
    /// Images and indexes that were made again.
    pub images: u64,
    /// Signatures that were removed.
    pub signatures: u64,
    /// What is as it was.
    pub unmended: Vec<Unmended>,
}

/// Something that could not be mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unmended {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// Mends what `plan` says; `progress` is called with the steps done and all steps.
///
/// Objects are looked for in `peers` first. One thing that cannot be mended keeps nothing else from
/// being mended.
///
/// # Concurrency
/// Runs beside ingests and readers; holds collecting off.
///
/// # Errors
/// What keeps it from working at all: a store that is read-only, a full disk.
pub async fn repair(
    store: &Store,
    plan: &RepairPlan,
    peers: &[Store],
    origins: &dyn Origins,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<RepairReport, EndpointError> {
    let mut job = Job::begin(store, plan, peers, origins, progress).await?;
    job.objects(plan).await?;
    job.layers(plan).await?;
    job.contents_are_there(plan).await?;
    for path in &plan.variants {
        let (ingest, path) = (job.ingest.clone(), path.clone());
        blocking(move || ingest.set_aside(&path)).await??;
        job.step();
    }
    job.images(plan).await?;
    job.signatures(plan).await?;
    Ok(job.report)
}

struct Job<'a> {
    store: Store,
    ingest: Ingest,
    peers: &'a [Store],
    origins: &'a dyn Origins,
    progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Faces of an image whose record is lost.
    faces: Faces,
    /// Whether any image is sealed, and so must be what it needs.
    sealed: bool,
    names: HashMap<ManifestDigest, Vec<ImageName>>,
    /// The images that have a layer, and how their manifests describe it.
    layers: BTreeMap<DiffId, Vec<(ManifestDigest, Descriptor)>>,
    /// Layers that this job brought.
    brought: HashSet<DiffId>,
    done: u64,
    all: u64,
    report: RepairReport,
}

impl<'a> Job<'a> {
    async fn begin(
        store: &Store,
        plan: &RepairPlan,
        peers: &'a [Store],
        origins: &'a dyn Origins,
        progress: &'a (dyn Fn(u64, u64) + Sync),
    ) -> Result<Self, EndpointError> {
        let damaged = plan.objects.iter().map(|object| object.id).collect();
        let known = store.clone();
        let (ingest, known) = blocking(move || {
            let known_images = Known::of(&known)?;
            let faces = known_images.faces;
            let ingest = known.begin_replacing(IngestOptions { faces }, damaged)?;
            Ok::<_, StoreError>((ingest, known_images))
        })
        .await??;
        let all = plan.objects.len()
            + plan.layers.len()
            + plan.variants.len()
            + plan.images.len()
            + plan.signatures.len();
        Ok(Self {
            store: store.clone(),
            ingest,
            peers,
            origins,
            progress,
            faces: known.faces,
            sealed: known.sealed,
            names: known.names,
            layers: known.layers,
            brought: HashSet::new(),
            done: 0,
            all: all as u64,
            report: RepairReport::default(),
        })
    }

    fn step(&mut self) {
        self.done += 1;
        (self.progress)(self.done, self.all);
    }

    fn unmended(&mut self, what: String, why: &EndpointError) {
        self.report.unmended.push(Unmended {
            what,
            why: crate::fsck::chain(why),
        });
    }

    /// Everything that may have this image: peers, then where it came from.
    fn sources(&self, digest: &ManifestDigest) -> Vec<Arc<dyn ImageSource>> {
        let peers = self.peers.iter().map(|peer| {
            let name = format!("store {}", peer.path().display());
            Arc::new(StoreSource::new(peer.clone(), name, *digest)) as Arc<dyn ImageSource>
        });
        let names = self.names.get(digest).map_or(&[][..], Vec::as_slice);
        peers.chain(self.origins.sources(digest, names)).collect()
    }

    async fn objects(&mut self, plan: &RepairPlan) -> Result<(), EndpointError> {
        for object in &plan.objects {
            for peer in self.peers {
                let (ingest, id, peer) = (self.ingest.clone(), object.id, peer.clone());
                if blocking(move || ingest.take_object(&id, &peer)).await?? {
                    break;
                }
            }
            self.step();
        }
        Ok(())
    }

    /// Brings the layers whose records are lost, and those that hold what is lost.
    async fn layers(&mut self, plan: &RepairPlan) -> Result<(), EndpointError> {
        for diff_id in &plan.layers {
            if let Err(error) = self.layer(diff_id).await {
                self.unmended(format!("layer {diff_id}"), &error);
            }
            self.step();
        }
        let mut tried = BTreeSet::new();
        while let Some(diff_id) = best_layer(plan, &self.ingest.still_damaged(), &tried) {
            tried.insert(diff_id);
            if self.brought.contains(&diff_id) {
                continue;
            }
            if let Err(error) = self.layer(&diff_id).await {
                self.unmended(format!("contents of layer {diff_id}"), &error);
            }
        }
        Ok(())
    }

    async fn contents_are_there(&mut self, plan: &RepairPlan) -> Result<(), EndpointError> {
        let lost = self.ingest.still_damaged();
        self.report.objects = (plan.objects.len() - lost.len()) as u64;
        for id in lost {
            self.report.unmended.push(Unmended {
                what: format!("object {id}"),
                why: "no peer and no layer gave it; if no layer needs it, \"gantry store gc\" deletes it"
                    .to_owned(),
            });
        }
        let (ingest, sealed) = (self.ingest.clone(), self.sealed);
        Ok(blocking(move || ingest.publish_now(sealed)).await??)
    }

    /// Brings a layer from whichever source gives it.
    async fn layer(&mut self, diff_id: &DiffId) -> Result<(), EndpointError> {
        let of = self.layers.get(diff_id).cloned().unwrap_or_default();
        let mut failed = nobody(format!("bring layer {diff_id}"));
        for (image, descriptor) in of {
            let mut sources = self.sources(&image);
            sources.extend(self.kept_blob(&image, &descriptor));
            match self.layer_from(diff_id, &descriptor, &sources).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// This store itself, if it serves the blob.
    fn kept_blob(&self, image: &ManifestDigest, blob: &Descriptor) -> Option<Arc<dyn ImageSource>> {
        let path = layout::blob_path(&LayerDigest::from_digest(blob.digest));
        let kept = self.store.root().stat(path.as_bytes());
        kept.ok().flatten()?;
        let name = format!("blob {}", blob.digest);
        Some(Arc::new(StoreSource::new(self.store.clone(), name, *image)))
    }

    async fn layer_from(
        &mut self,
        diff_id: &DiffId,
        descriptor: &Descriptor,
        sources: &[Arc<dyn ImageSource>],
    ) -> Result<(), EndpointError> {
        let layer = Layer {
            position: 0,
            descriptor: descriptor.clone(),
            diff_id: Some(*diff_id),
        };
        let mut failed = nobody(format!("bring layer {diff_id}"));
        for source in sources {
            let stream = match source.layer(&layer).await {
                Ok(stream) => stream,
                Err(error) => {
                    failed = error;
                    continue;
                }
            };
            let (ingest, wanted) = (self.ingest.clone(), *diff_id);
            let claim = blocking(move || ingest.claim_again(wanted)).await??;
            let descriptor = descriptor.clone();
            match Box::new(StoreSlot { claim, descriptor }).fill(stream).await {
                Ok(_) => {
                    self.brought.insert(*diff_id);
                    self.report.layers += 1;
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Makes images again, and then the indexes that list what is there.
    async fn images(&mut self, plan: &RepairPlan) -> Result<(), EndpointError> {
        let mut indexes = Vec::new();
        for damaged in &plan.images {
            let sources = self.sources(&damaged.digest);
            let outcome = match self.manifest(&damaged.digest, &sources).await {
                Ok(manifest) if manifest.as_index().is_some() => {
                    indexes.push(manifest);
                    continue;
                }
                Ok(manifest) => self.image(damaged, manifest, &sources).await,
                Err(error) => Err(error),
            };
            self.remade(&damaged.digest, outcome);
        }
        for index in indexes {
            let digest = *index.digest();
            let (store, ingest) = (self.store.clone(), self.ingest.clone());
            let outcome = blocking(move || {
                let chosen = choose(&store, &index)?;
                ingest.restore_index(&index, chosen)
            });
            let outcome = outcome.await?;
            self.remade(&digest, outcome.map(drop).map_err(EndpointError::from));
        }
        Ok(())
    }

    fn remade(&mut self, digest: &ManifestDigest, outcome: Result<(), EndpointError>) {
        match outcome {
            Ok(()) => self.report.images += 1,
            Err(error) => self.unmended(format!("image {digest}"), &error),
        }
        self.step();
    }

    /// Makes an image again.
    async fn image(
        &mut self,
        damaged: &DamagedImage,
        manifest: ManifestBytes,
        sources: &[Arc<dyn ImageSource>],
    ) -> Result<(), EndpointError> {
        let digest = damaged.digest;
        let ingest = self.ingest.clone();
        let Some(document) = manifest.as_manifest() else {
            return Err(nobody(format!("make {digest} again")));
        };
        let config = self.config(&digest, document, sources).await?;
        self.layers_of(&config, document, sources).await?;
        let faces = damaged.faces.unwrap_or(self.faces);
        blocking(move || {
            let commit = CommitImage {
                manifest: &manifest,
                config: config.bytes(),
                names: &[],
            };
            ingest.restore_image(&commit, faces)
        })
        .await??;
        Ok(())
    }

    /// The manifest's bytes: the store's own, if they are good.
    async fn manifest(
        &self,
        digest: &ManifestDigest,
        sources: &[Arc<dyn ImageSource>],
    ) -> Result<ManifestBytes, EndpointError> {
        let (store, wanted) = (self.store.clone(), *digest);
        let own = blocking(move || {
            let record = store.image(&wanted).ok().flatten();
            let media_type = record.map(|record| record.media_type.as_str().to_owned());
            Some((store.manifest(&wanted).ok().flatten()?, media_type))
        });
        let verify = |unverified: UnverifiedManifest| {
            unverified
                .verify(Some(digest), self.store.limits())
                .map_err(|error| {
                    EndpointError::with_source(error.kind(), format!("read {digest}"), error)
                })
        };
        let mut failed = nobody(format!("bring manifest {digest}"));
        if let Some((bytes, media_type)) = own.await? {
            match verify(UnverifiedManifest::new(bytes.into(), media_type, None)) {
                Ok(manifest) => return Ok(manifest),
                Err(error) => failed = error,
            }
        }
        for source in sources {
            let fetched = source.manifest(Wanted::Digest(digest)).await;
            match fetched.and_then(verify) {
                Ok(manifest) => return Ok(manifest),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The configuration's bytes: the store's own, if they are good.
    async fn config(
        &self,
        digest: &ManifestDigest,
        manifest: &Manifest,
        sources: &[Arc<dyn ImageSource>],
    ) -> Result<VerifiedBytes, EndpointError> {
        let limit_bytes = self.store.limits().config_bytes;
        let path = format!("{}/{digest}/{}", layout::DIGESTS, layout::CONFIG_JSON);
        let store = self.store.clone();
        let own = blocking(move || store.read_small(&path, limit_bytes).ok().flatten()).await?;
        if let Some(bytes) = own
            && let Ok(config) = VerifiedBytes::verify(bytes.into(), &manifest.config)
        {
            return Ok(config);
        }
        let mut failed = nobody(format!("bring configuration {}", manifest.config.digest));
        for source in sources {
            let blob = match source.blob(&manifest.config).await {
                Ok(blob) => blob,
                Err(error) => {
                    failed = error;
                    continue;
                }
            };
            let checked = VerifyingStream::new(blob, Checker::of(&manifest.config));
            match checked.collect_small(limit_bytes).await {
                Ok(config) => return Ok(config),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Brings those layers of an image that the store cannot read.
    async fn layers_of(
        &mut self,
        config: &VerifiedBytes,
        manifest: &Manifest,
        sources: &[Arc<dyn ImageSource>],
    ) -> Result<(), EndpointError> {
        let parsed = ImageConfig::parse(config.bytes(), manifest.layers.len(), self.store.limits())
            .map_err(|error| {
                let action = format!("read configuration {}", manifest.config.digest);
                EndpointError::with_source(error.kind(), action, error)
            })?;
        for (descriptor, diff_id) in manifest.layers.iter().zip(&parsed.rootfs.diff_ids) {
            let (store, wanted) = (self.store.clone(), *diff_id);
            let readable = blocking(move || matches!(store.layer_changes(&wanted), Ok(Some(_))));
            if readable.await? || self.brought.contains(diff_id) {
                continue;
            }
            self.layer_from(diff_id, descriptor, sources).await?;
        }
        Ok(())
    }

    /// Removes damaged signatures, and takes those that sources have.
    async fn signatures(&mut self, plan: &RepairPlan) -> Result<(), EndpointError> {
        let mut lost: BTreeMap<ManifestDigest, Vec<String>> = BTreeMap::new();
        for damaged in &plan.signatures {
            let (store, path) = (self.store.clone(), damaged.path.clone());
            blocking(move || {
                let removed = store.root().remove_file(path.as_bytes());
                removed.doing(|| format!("remove {path}"))
            })
            .await??;
            lost.entry(damaged.digest)
                .or_default()
                .push(damaged.path.clone());
            self.report.signatures += 1;
            self.step();
        }
        for (digest, paths) in lost {
            for source in self.sources(&digest) {
                // One source that fails is no reason not to ask the others.
                let found = match source.signatures(&digest).await {
                    Ok(found) => found,
                    Err(error) => {
                        let source = source.describe();
                        tracing::warn!(%error, %source, "signatures were not read");
                        continue;
                    }
                };
                let (store, paths) = (self.store.clone(), paths.clone());
                blocking(move || store.put_back_signatures(&digest, &paths, &found)).await??;
            }
        }
        Ok(())
    }
}

/// The layer that has most of what is lost.
fn best_layer(
    plan: &RepairPlan,
    lost: &BTreeSet<ObjectId>,
    tried: &BTreeSet<DiffId>,
) -> Option<DiffId> {
    let mut counts: BTreeMap<DiffId, usize> = BTreeMap::new();
    let objects = plan
        .objects
        .iter()
        .filter(|object| lost.contains(&object.id));
    for layer in objects.flat_map(|object| &object.layers) {
        if !tried.contains(layer) {
            *counts.entry(*layer).or_default() += 1;
        }
    }
    let best = counts.into_iter().max_by_key(|(_, count)| *count);
    best.map(|(layer, _)| layer)
}

fn nobody(action: String) -> EndpointError {
    EndpointError::new(
        Kind::NotFound,
        format!("{action}: nothing is known that has it; name a source with --from"),
    )
}

/// What the store says of its images.
struct Known {
    faces: Faces,
    sealed: bool,
    names: HashMap<ManifestDigest, Vec<ImageName>>,
    layers: BTreeMap<DiffId, Vec<(ManifestDigest, Descriptor)>>,
}

impl Known {
    fn of(store: &Store) -> Result<Self, StoreError> {
        let mut names: HashMap<ManifestDigest, Vec<ImageName>> = HashMap::new();
        for named in store.names()? {
            names.entry(named.digest).or_default().push(named.name);
        }
        let mut faces = None;
        let mut sealed = false;
        let mut layers: BTreeMap<DiffId, Vec<(ManifestDigest, Descriptor)>> = BTreeMap::new();
        for digest in store.digests()? {
            let Ok(Some(record)) = store.image(&digest) else {
                continue;
            };
            let facts = match record.content {
                RecordContent::Image(facts) => facts,
                // What leads to an index leads to its images.
                RecordContent::Index { present, .. } => {
                    let of_index = names.get(&digest).cloned().unwrap_or_default();
                    for entry in present {
                        names.entry(entry).or_default().extend(of_index.clone());
                    }
                    continue;
                }
            };
            sealed |= facts.sealed;
            faces = Some(faces.map_or(facts.faces, |known: Faces| known.union(facts.faces)));
            for layer in &facts.layers {
                let blob = Descriptor::new(
                    layer.media_type.clone(),
                    *layer.digest.digest(),
                    layer.size_bytes,
                );
                layers
                    .entry(layer.diff_id)
                    .or_default()
                    .push((digest, blob));
            }
        }
        Ok(Self {
            faces: faces.unwrap_or_default(),
            sealed,
            names,
            layers,
        })
    }
}
