// SPDX-License-Identifier: Apache-2.0
//! An image out of its layers, and its way to visibility.

use super::{Ingest, IngestError, Inner};
use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::name::ImageName;
use crate::open::{Seal, ensure_dir};
use crate::record::{
    ErofsFacts, Faces, ImageFacts, ImageRecord, LayerFacts, RecordContent, TreeFacts, encode,
};
use crate::trees;
use gantry_image::unverified::ManifestBytes;
use gantry_layer::changes::Changeset;
use gantry_layer::merge;
use gantry_layer::tree::{Metadata, NodeKind, Tree};
use gantry_oci::{
    ChainId, DiffId, Digest, ImageConfig, ImageId, Kind, LayerDigest, Manifest, ManifestDigest,
};
use gantry_sys::publish::{self, Published};
use gantry_sys::root::RootDir;

/// What a commit makes visible.
#[derive(Debug, Clone, Copy)]
pub struct CommitImage<'a> {
    /// The manifest.
    pub manifest: &'a ManifestBytes,
    /// The bytes of the configuration that it names.
    pub config: &'a [u8],
    /// Names that shall point at it.
    pub names: &'a [ImageName],
}

/// The parts of an image that is not there yet, or not with every face.
pub(super) struct Plan {
    pub(super) digest: ManifestDigest,
    image_id: ImageId,
    config: ImageConfig,
    layers: Vec<LayerFacts>,
    /// Faces to make now.
    pub(super) make: Faces,
    /// What stands in the store already, and stays.
    pub(super) former: Option<ImageRecord>,
    /// How it gets its name.
    pub(super) placing: Placing,
}

/// What becomes of what has the image's name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placing {
    /// It stays if it is good.
    Add,
    /// It goes: somebody knows that it is damaged.
    Replace,
}

impl Ingest {
    /// Makes an image of layers that were unpacked or held, and points names at it.
    ///
    /// An image that the store has keeps its files and gets the faces that it lacks.
    ///
    /// # Durability
    /// Everything is on stable storage on return.
    ///
    /// # Errors
    /// [`IngestError::Config`], [`IngestError::MissingLayer`], [`IngestError::Merge`] for what does
    /// not fit together; otherwise as the store says. Nothing is visible then.
    pub fn commit_image(&self, commit: &CommitImage<'_>) -> Result<ImageRecord, IngestError> {
        let inner = self.inner.as_ref();
        let _quiet = inner.quiesce();
        let plan = inner.plan(commit)?;
        let record = match &plan.former {
            Some(former) if plan.make == NO_FACES && !inner.lacks_seal(former) => {
                inner.publish_rest()?;
                former.clone()
            }
            _ => inner.make_image(commit, &plan)?,
        };
        for name in commit.names {
            inner.store.place_name(name, &record.digest)?;
        }
        Ok(record)
    }

    /// Keeps an index whose images (some of them) are in the store, and points names at it.
    ///
    /// # Durability
    /// Everything is on stable storage on return.
    ///
    /// # Errors
    /// [`IngestError::NotAnImage`] for a manifest; otherwise as the store says.
    pub fn commit_index(
        &self,
        index: &ManifestBytes,
        chosen: Option<ManifestDigest>,
        names: &[ImageName],
    ) -> Result<ImageRecord, IngestError> {
        let inner = self.inner.as_ref();
        let _quiet = inner.quiesce();
        let record = inner.make_index(index, chosen)?;
        for name in names {
            inner.store.place_name(name, &record.digest)?;
        }
        Ok(record)
    }
}

const NO_FACES: Faces = Faces {
    composefs: false,
    hardlink: false,
};

impl Inner {
    pub(super) fn plan(&self, commit: &CommitImage<'_>) -> Result<Plan, IngestError> {
        let digest = *commit.manifest.digest();
        let manifest = commit
            .manifest
            .as_manifest()
            .ok_or_else(|| IngestError::NotAnImage {
                manifest: *digest.digest(),
                why: "it is an index".to_owned(),
            })?;
        let (image_id, config) = self.read_config(&digest, manifest, commit.config)?;
        let layers = manifest
            .layers
            .iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(blob, diff_id)| LayerFacts {
                diff_id: *diff_id,
                digest: LayerDigest::from_digest(blob.digest),
                size_bytes: blob.size_bytes,
                media_type: blob.media_type.clone(),
            })
            .collect();
        // A damaged record is replaced by the one that is made now.
        let former = self.store.image(&digest).ok().flatten();
        let have = former
            .as_ref()
            .and_then(|record| record.image())
            .map_or(NO_FACES, |f| f.faces);
        let wanted = self.options.faces;
        let make = Faces {
            composefs: wanted.composefs && !have.composefs,
            hardlink: wanted.hardlink && !have.hardlink,
        };
        Ok(Plan {
            digest,
            image_id,
            config,
            layers,
            make,
            former,
            placing: Placing::Add,
        })
    }

    fn read_config(
        &self,
        digest: &ManifestDigest,
        manifest: &Manifest,
        bytes: &[u8],
    ) -> Result<(ImageId, ImageConfig), IngestError> {
        let expected = manifest.config.digest;
        let found = Digest::of(expected.algorithm(), bytes);
        if found != expected {
            return Err(IngestError::Config {
                manifest: *digest.digest(),
                why: format!("its digest is {found}, not {expected}"),
                kind: Kind::Corrupt,
            });
        }
        let stated = manifest.config.size_bytes;
        if bytes.len() as u64 != stated {
            return Err(IngestError::Config {
                manifest: *digest.digest(),
                why: format!("it has {} bytes, not {stated}", bytes.len()),
                kind: Kind::Corrupt,
            });
        }
        for layer in &manifest.layers {
            if layer.media_type.layer_compression().is_none() {
                return Err(IngestError::NotAnImage {
                    manifest: *digest.digest(),
                    why: format!("{} is no layer's media type", layer.media_type),
                });
            }
        }
        let config = ImageConfig::parse(bytes, manifest.layers.len(), self.store.limits())
            .map_err(|error| IngestError::Config {
                manifest: *digest.digest(),
                why: error.to_string(),
                kind: error.kind(),
            })?;
        Ok((ImageId::from_digest(expected), config))
    }

    /// The image is there; layers that were brought again need their records all the same.
    pub(super) fn publish_rest(&self) -> Result<(), IngestError> {
        if self.state().finished.values().any(|layer| !layer.published) {
            self.sync()?;
            self.publish_contents()?;
        }
        Ok(())
    }

    pub(super) fn make_image(
        &self,
        commit: &CommitImage<'_>,
        plan: &Plan,
    ) -> Result<ImageRecord, IngestError> {
        let stage = self.stage_dir()?;
        let tree = self.merge(plan)?;
        let facts = count(&tree);
        let mut erofs = None;
        if plan.make.composefs {
            erofs = Some(trees::composefs::write(&tree, &stage, self.sync_each)?);
        }
        if plan.make.hardlink {
            trees::hardlink::build(
                &tree,
                &trees::hardlink::Pool {
                    staged_objects: &self.objects,
                    staged_variants: &self.staging.subdir(layout::VARIANTS)?,
                    store: &self.store,
                    may_chown: self.may_chown,
                    sync_each: self.sync_each,
                },
                &stage,
            )?;
        }
        let sealed = self.seal_image_of(&tree, plan, &stage)?;
        drop(tree);
        let record = record_of(commit, plan, facts, erofs, sealed);
        let write = |name: &str, bytes: &[u8]| {
            publish::write_new_file(&stage, name.as_bytes(), layout::PUBLIC_FILE, bytes)
                .doing(|| format!("write {name} of {}", plan.digest))
        };
        if plan.former.is_none() {
            write(layout::MANIFEST_JSON, commit.manifest.bytes())?;
            write(layout::CONFIG_JSON, commit.config)?;
        }
        write(layout::RECORD_JSON, &encode(&record)?)?;
        self.sync()?;
        self.publish_contents()?;
        match plan.placing {
            Placing::Add => self.place_image(&stage, plan)?,
            Placing::Replace => self.replace_image(&stage, &plan.digest)?,
        }
        Ok(record)
    }

    /// Whether an image that is here should be sealed and is not.
    fn lacks_seal(&self, former: &ImageRecord) -> bool {
        let facts = former.image();
        let could_be = facts.is_some_and(|facts| !facts.sealed && facts.faces.composefs);
        could_be && self.store.seal() != Seal::Off
    }

    /// Seals what a composefs mount of the image reads, wherever it lies by now.
    fn seal_image_of(
        &self,
        tree: &Tree,
        plan: &Plan,
        stage: &RootDir,
    ) -> Result<bool, IngestError> {
        let former = plan.former.as_ref().and_then(ImageRecord::image);
        if plan.make.composefs {
            self.seal_tree(tree, stage)
        } else if former.is_some_and(|facts| facts.faces.composefs) {
            let path = format!("{}/{}", layout::DIGESTS, plan.digest);
            self.seal_tree(tree, &self.store.dir(&path)?)
        } else {
            Ok(false)
        }
    }

    fn merge(&self, plan: &Plan) -> Result<Tree, IngestError> {
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        for layer in &plan.layers {
            let diff_id = layer.diff_id;
            let changes = self.changes(&plan.digest, &diff_id)?;
            merge::apply(&mut tree, &changes, self.store.limits())
                .map_err(|source| IngestError::Merge { diff_id, source })?;
        }
        Ok(tree)
    }

    /// What a layer changes, out of memory or out of its record, staged or published.
    fn changes(
        &self,
        manifest: &ManifestDigest,
        diff_id: &DiffId,
    ) -> Result<Changeset, IngestError> {
        let staged = {
            let mut state = self.state();
            let layer = state.finished.get_mut(diff_id);
            if let Some(changes) = layer.and_then(|layer| layer.changes.take()) {
                return Ok(changes);
            }
            state
                .finished
                .get(diff_id)
                .is_some_and(|layer| !layer.published)
        };
        let changes = if staged {
            let dir = self.staging.subdir(layout::LAYERS)?;
            crate::layers::load_changes(&dir, diff_id, self.store.limits())?
        } else {
            let loaded = self.store.layer_changes(diff_id);
            if matches!(&loaded, Err(error) if error.kind() == Kind::Corrupt) {
                self.set_layer_aside(diff_id)?;
            }
            loaded?
        };
        changes.ok_or(IngestError::MissingLayer {
            manifest: *manifest.digest(),
            diff_id: *diff_id,
        })
    }

    /// Takes the name from a damaged record, so that whoever asks for the layer next brings it anew.
    fn set_layer_aside(&self, diff_id: &DiffId) -> Result<(), StoreError> {
        let action = || format!("set damaged record of layer {diff_id} aside");
        tracing::warn!(%diff_id, "the record of a layer is damaged");
        let layers = self.store.dir(layout::LAYERS)?;
        let name = layout::layer_name(diff_id);
        let grave = format!("damaged-{}", diff_id.hex());
        publish::rename(
            &layers,
            name.as_bytes(),
            &self.staging.dir,
            grave.as_bytes(),
        )
        .doing(action)
    }

    pub(super) fn stage_dir(&self) -> Result<RootDir, StoreError> {
        let serial = {
            let mut state = self.state();
            state.serial += 1;
            state.serial
        };
        self.staging.subdir(&format!("image-{serial}"))
    }

    /// The name of what `stage_dir` made last.
    pub(super) fn stage_name(&self) -> String {
        format!("image-{}", self.state().serial)
    }

    /// The image's directory appears whole; or, where it exists, gets a face and then the record.
    fn place_image(&self, stage: &RootDir, plan: &Plan) -> Result<(), StoreError> {
        let action = || format!("publish image {}", plan.digest);
        let digests = ensure_dir(&self.store.inner.root, layout::DIGESTS, layout::PUBLIC)?;
        let name = layout::digest_name(&plan.digest);
        if plan.former.is_none() {
            let serial = self.stage_name();
            // A directory without a valid record is the remains of a damaged image.
            if digests.stat(name.as_bytes()).doing(action)?.is_some()
                && self.store.image(&plan.digest).ok().flatten().is_none()
            {
                let grave = format!("damaged-{serial}");
                publish::rename(
                    &digests,
                    name.as_bytes(),
                    &self.staging.dir,
                    grave.as_bytes(),
                )
                .doing(action)?;
            }
            let outcome = publish::rename_noreplace(
                &self.staging.dir,
                serial.as_bytes(),
                &digests,
                name.as_bytes(),
            )
            .doing(action)?;
            if outcome == Published::New {
                return publish::sync_dir(&digests).doing(action);
            }
            // Another ingest was quicker with the same image.
        }
        let target = digests.open_dir(name.as_bytes()).doing(action)?;
        for face in [layout::IMAGE_EROFS, layout::ROOTFS] {
            if stage.stat(face.as_bytes()).doing(action)?.is_some() {
                publish::rename_noreplace(stage, face.as_bytes(), &target, face.as_bytes())
                    .doing(action)?;
            }
        }
        publish::sync_dir(&target).doing(action)?;
        publish::rename(
            stage,
            layout::RECORD_JSON.as_bytes(),
            &target,
            layout::RECORD_JSON.as_bytes(),
        )
        .doing(action)?;
        publish::sync_dir(&target).doing(action)
    }

    fn make_index(
        &self,
        index: &ManifestBytes,
        chosen: Option<ManifestDigest>,
    ) -> Result<ImageRecord, IngestError> {
        let record = self.index_record(index, chosen)?;
        if self.store.image(&record.digest).ok().flatten().as_ref() == Some(&record) {
            return Ok(record);
        }
        self.place_index(index, &record)?;
        Ok(record)
    }

    pub(super) fn index_record(
        &self,
        index: &ManifestBytes,
        chosen: Option<ManifestDigest>,
    ) -> Result<ImageRecord, IngestError> {
        let digest = *index.digest();
        let entries = index.as_index().ok_or_else(|| IngestError::NotAnImage {
            manifest: *digest.digest(),
            why: "it is no index".to_owned(),
        })?;
        let mut present = Vec::new();
        for entry in &entries.manifests {
            let entry = ManifestDigest::from_digest(entry.digest);
            if self.store.image(&entry)?.is_some() && !present.contains(&entry) {
                present.push(entry);
            }
        }
        Ok(ImageRecord {
            digest,
            media_type: index.media_type(),
            manifest_size_bytes: index.bytes().len() as u64,
            content: RecordContent::Index { chosen, present },
        })
    }

    /// Writes an index's directory, privately.
    pub(super) fn stage_index(
        &self,
        index: &ManifestBytes,
        record: &ImageRecord,
    ) -> Result<RootDir, IngestError> {
        let stage = self.stage_dir()?;
        let action = || format!("write index {}", record.digest);
        let write = |name: &str, bytes: &[u8]| {
            publish::write_new_file(&stage, name.as_bytes(), layout::PUBLIC_FILE, bytes)
                .doing(action)
        };
        write(layout::MANIFEST_JSON, index.bytes())?;
        write(layout::RECORD_JSON, &encode(record)?)?;
        if let RecordContent::Index {
            chosen: Some(chosen),
            ..
        } = record.content
        {
            let target = format!("../{chosen}/{}", layout::ROOTFS);
            let linked = self
                .store
                .image(&chosen)?
                .and_then(|r| r.image().map(|f| f.faces.hardlink));
            if linked == Some(true) {
                rustix::fs::symlinkat(target.as_str(), &stage, layout::ROOTFS).doing(action)?;
            }
        }
        self.sync()?;
        Ok(stage)
    }

    fn place_index(&self, index: &ManifestBytes, record: &ImageRecord) -> Result<(), IngestError> {
        let stage = self.stage_index(index, record)?;
        let serial = self.stage_name();
        let digest = record.digest;
        let action = || format!("publish index {digest}");
        let digests = ensure_dir(&self.store.inner.root, layout::DIGESTS, layout::PUBLIC)?;
        let name = layout::digest_name(&digest);
        let first = publish::rename_noreplace(
            &self.staging.dir,
            serial.as_bytes(),
            &digests,
            name.as_bytes(),
        )
        .doing(action)?;
        if first == Published::Existed {
            let target = digests.open_dir(name.as_bytes()).doing(action)?;
            for file in [layout::ROOTFS, layout::RECORD_JSON] {
                if stage.stat(file.as_bytes()).doing(action)?.is_some() {
                    publish::rename(&stage, file.as_bytes(), &target, file.as_bytes())
                        .doing(action)?;
                }
            }
            publish::sync_dir(&target).doing(action)?;
        }
        Ok(publish::sync_dir(&digests).doing(action)?)
    }
}

fn record_of(
    commit: &CommitImage<'_>,
    plan: &Plan,
    tree: TreeFacts,
    erofs: Option<ErofsFacts>,
    sealed: bool,
) -> ImageRecord {
    let former = plan.former.as_ref().and_then(ImageRecord::image);
    let diff_ids: Vec<DiffId> = plan.layers.iter().map(|layer| layer.diff_id).collect();
    ImageRecord {
        digest: plan.digest,
        media_type: commit.manifest.media_type(),
        manifest_size_bytes: commit.manifest.bytes().len() as u64,
        content: RecordContent::Image(Box::new(ImageFacts {
            image_id: plan.image_id,
            platform: plan.config.platform(),
            created: plan.config.created.clone(),
            layers: plan.layers.clone(),
            chain_id: ChainId::of(&diff_ids),
            faces: plan
                .make
                .union(former.map_or(NO_FACES, |facts| facts.faces)),
            tree,
            erofs: erofs.or_else(|| former.and_then(|facts| facts.erofs)),
            sealed,
        })),
    }
}

fn count(tree: &Tree) -> TreeFacts {
    let mut facts = TreeFacts::default();
    let mut seen = vec![false; tree.arena_len()];
    let mut open = vec![tree.root()];
    while let Some(id) = open.pop() {
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        match &tree.node(id).kind {
            NodeKind::Directory { children } => {
                facts.directories += 1;
                open.extend(children.values().copied());
            }
            NodeKind::File(content) => {
                facts.files += 1;
                facts.size_bytes += content.size_bytes();
            }
            _ => facts.others += 1,
        }
    }
    facts
}
