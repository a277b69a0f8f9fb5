// SPDX-License-Identifier: Apache-2.0
//! Removing images, and collecting what nothing refers to.
//!
//! Roots are names, leases, and the entries of indexes that are roots. Everything else goes in the
//! opposite order of its coming: image directories, layer records, objects and variants. A kill
//! between two steps leaves garbage, never a dangling reference.
//!
//! Deleting excludes ingests by one lock: an ingest holds it shared from before it looks for known
//! contents until after it published the record that refers to them.

use crate::error::{Doing as _, StoreError};
use crate::ingest::COLLECT_LOCK;
use crate::layout::{self, object_name};
use crate::name::ImageName;
use crate::open::{Store, ensure_dir};
use crate::record::RecordContent;
use crate::retention::DatedName;
use crate::usage::Variant;
use gantry_oci::{DiffId, ManifestDigest, ObjectId};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::publish;
use rustix::fs::{AtFlags, FileType};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};

/// How to collect.
#[derive(Debug, Clone, Default)]
pub struct CollectOptions {
    /// Names that go first, unless they moved meanwhile; what only they lead to is garbage.
    pub forget: Vec<DatedName>,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What collecting removes, or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collection {
    /// Images and indexes that no name, lease or index leads to.
    pub images: Vec<ManifestDigest>,
    /// Layers of no image.
    pub layers: Vec<DiffId>,
    /// Objects of no layer.
    pub objects: u64,
    /// The bytes that these take on disk.
    pub object_bytes: u64,
    /// Variants that no tree links to.
    pub variants: u64,
    /// The bytes that these take on disk.
    pub variant_bytes: u64,
}

/// The right to delete: nobody is bringing anything in.
struct CollectLock(#[expect(dead_code, reason = "held")] OfdLock);

impl Store {
    /// Removes an image that nothing holds, with the names that lead to it if `names` is set.
    ///
    /// Its layers and objects stay until [`collect`](Self::collect).
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Busy`] if a name, a lease or an index holds it.
    pub fn remove_image(&self, digest: &ManifestDigest, names: bool) -> Result<(), StoreError> {
        self.must_be_writable(|| format!("remove image {digest}"))?;
        let lock = self.lock_for_deletion(|| format!("remove image {digest}"))?;
        let busy = |why: String| StoreError::Busy {
            action: format!("remove image {digest}"),
            why,
        };
        if self.image(digest).is_ok_and(|record| record.is_none()) {
            return Err(StoreError::NotFound {
                what: format!("image {digest}"),
            });
        }
        if let Some((_, label)) = self.leased()?.into_iter().find(|(held, _)| held == digest) {
            return Err(busy(format!("{label} uses it")));
        }
        for other in self.digests()? {
            let Ok(Some(record)) = self.image(&other) else {
                continue;
            };
            if let RecordContent::Index { present, .. } = record.content
                && present.contains(digest)
            {
                return Err(busy(format!("index {other} refers to it")));
            }
        }
        for named in self
            .names()?
            .into_iter()
            .filter(|named| named.digest == *digest)
        {
            if !names {
                return Err(busy(format!("name {} leads to it", named.name)));
            }
            self.untag(&named.name)?;
        }
        self.delete_image(&lock, digest)
    }

    /// Removes everything that no name, lease or index leads to; only says what, if `dry_run`.
    ///
    /// # Errors
    /// As [`collect_with`](Self::collect_with).
    pub fn collect(&self, dry_run: bool) -> Result<Collection, StoreError> {
        let options = CollectOptions {
            dry_run,
            ..CollectOptions::default()
        };
        self.collect_with(&options, &|_, _| {})
    }

    /// The same; `progress` is called with how many hundredths are done, and a hundred: half of them for reading what
    /// the layers in use need, half for deleting.
    ///
    /// # Concurrency
    /// Excludes ingests while it runs.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while an ingest runs; [`StoreError::Corrupt`] or
    /// [`StoreError::Layer`] for a damaged record of something that is in use: nothing is removed
    /// on a guess.
    pub fn collect_with(
        &self,
        options: &CollectOptions,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Collection, StoreError> {
        self.must_be_writable(|| "collect garbage".to_owned())?;
        let lock = self.lock_for_deletion(|| "collect garbage".to_owned())?;
        if !options.dry_run {
            for name in &options.forget {
                self.untag_unmoved(name)?;
            }
        }
        let live = self.live_images(if options.dry_run {
            &options.forget
        } else {
            &[]
        })?;
        let mut collection = Collection::default();
        let mut live_layers = HashSet::new();
        for digest in self.digests()? {
            if !live.contains(&digest) {
                collection.images.push(digest);
                continue;
            }
            let record = self.image(&digest)?;
            if let Some(facts) = record.as_ref().and_then(|record| record.image()) {
                live_layers.extend(facts.layers.iter().map(|layer| layer.diff_id));
            }
        }
        let mut live_objects = HashSet::new();
        let layers = self.layers()?;
        for (done, diff_id) in (1..).zip(&layers) {
            progress(done * 50 / layers.len() as u64, 100);
            if !live_layers.contains(diff_id) {
                collection.layers.push(*diff_id);
            } else if let Some(objects) = self.layer_objects(diff_id)? {
                live_objects.extend(objects.into_iter().map(|(id, _)| id));
            }
        }
        let dead: HashMap<ObjectId, u64> = self
            .object_sizes()?
            .into_iter()
            .filter(|(id, _)| !live_objects.contains(id))
            .collect();
        collection.objects = dead.len() as u64;
        collection.object_bytes = dead.values().sum();
        if options.dry_run {
            let links = self.links_of_trees(&collection.images)?;
            for variant in self.dead_variants(&links)? {
                collection.variants += 1;
                collection.variant_bytes += variant.bytes;
            }
            return Ok(collection);
        }
        for digest in &collection.images {
            self.delete_image(&lock, digest)?;
        }
        self.delete_layers(&lock, &collection.layers)?;
        for (done, id) in (1..).zip(dead.keys()) {
            progress(50 + done * 50 / collection.objects, 100);
            let path = format!("{}/{}", layout::OBJECTS, object_name(id));
            self.inner
                .root
                .remove_file(path.as_bytes())
                .doing(|| format!("remove object {id}"))?;
        }
        // The trees that linked to them are gone by now.
        for variant in self.dead_variants(&HashMap::new())? {
            self.inner
                .root
                .remove_file(variant.path.as_bytes())
                .doing(|| format!("remove {}", variant.path))?;
            collection.variants += 1;
            collection.variant_bytes += variant.bytes;
        }
        Ok(collection)
    }

    /// Variants that have no name but their own, were these links gone.
    fn dead_variants(&self, going: &HashMap<u64, u64>) -> Result<Vec<Variant>, StoreError> {
        let mut variants = self.variants()?;
        variants.retain(|variant| {
            let going = going.get(&variant.inode).copied().unwrap_or(0);
            variant.links.saturating_sub(going) <= 1
        });
        Ok(variants)
    }

    /// How many names each inode has in the hard-link trees of these images.
    fn links_of_trees(&self, images: &[ManifestDigest]) -> Result<HashMap<u64, u64>, StoreError> {
        let mut links = HashMap::new();
        let tree = |digest| format!("{}/{digest}/{}", layout::DIGESTS, layout::ROOTFS);
        let mut open: Vec<Vec<u8>> = images
            .iter()
            .map(|digest| tree(digest).into_bytes())
            .collect();
        while let Some(path) = open.pop() {
            // There is no such tree, or an index's link to one.
            let Ok(dir) = self.inner.root.open_dir(&path) else {
                continue;
            };
            for name in dir.list(b".").doing(|| "list a tree".to_owned())? {
                let stat = rustix::fs::statat(&dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                    .doing(|| "stat in a tree".to_owned())?;
                if FileType::from_raw_mode(stat.st_mode).is_dir() {
                    open.push([path.as_slice(), b"/", &name].concat());
                } else if stat.st_nlink > 1 {
                    *links.entry(stat.st_ino).or_default() += 1;
                }
            }
        }
        Ok(links)
    }

    fn lock_for_deletion(&self, action: impl Fn() -> String) -> Result<CollectLock, StoreError> {
        let locks = ensure_dir(&self.inner.root, layout::LOCKS, layout::PRIVATE)?;
        OfdLock::try_lock_at(&locks, COLLECT_LOCK, LockMode::Exclusive)
            .doing(&action)?
            .map(CollectLock)
            .ok_or_else(|| StoreError::Busy {
                action: action(),
                why: "an image is being brought in".to_owned(),
            })
    }

    fn live_images(&self, forget: &[DatedName]) -> Result<BTreeSet<ManifestDigest>, StoreError> {
        let forget: HashSet<&ImageName> = forget.iter().map(|dated| &dated.name).collect();
        let mut live: BTreeSet<ManifestDigest> = self
            .names()?
            .into_iter()
            .filter(|named| !forget.contains(&named.name))
            .map(|named| named.digest)
            .collect();
        live.extend(self.leased()?.into_iter().map(|(digest, _)| digest));
        let mut open: Vec<ManifestDigest> = live.iter().copied().collect();
        while let Some(digest) = open.pop() {
            let Some(record) = self.image(&digest)? else {
                continue;
            };
            if let RecordContent::Index { present, .. } = record.content {
                open.extend(present.iter().filter(|entry| live.insert(**entry)));
            }
        }
        Ok(live)
    }

    /// Takes the image out of sight by one rename, then deletes it.
    fn delete_image(&self, _lock: &CollectLock, digest: &ManifestDigest) -> Result<(), StoreError> {
        let action = || format!("remove image {digest}");
        let staging = crate::ingest::staging::Staging::create(self)?;
        let digests = self.dir(layout::DIGESTS)?;
        publish::rename(
            &digests,
            layout::digest_name(digest).as_bytes(),
            &staging.dir,
            b"removed",
        )
        .doing(action)?;
        publish::sync_dir(&digests).doing(action)
    }

    fn delete_layers(&self, _lock: &CollectLock, layers: &[DiffId]) -> Result<(), StoreError> {
        for diff_id in layers {
            let path = format!("{}/{}", layout::LAYERS, layout::layer_name(diff_id));
            self.inner
                .root
                .remove_file(path.as_bytes())
                .doing(|| format!("remove layer {diff_id}"))?;
        }
        if layers.is_empty() {
            return Ok(());
        }
        // Records go for good before the objects that they name.
        publish::sync_dir(self.dir(layout::LAYERS)?).doing(|| "remove layers".to_owned())
    }
}
