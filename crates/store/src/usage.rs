// SPDX-License-Identifier: Apache-2.0
//! What images take on disk, and what sharing saves.
//!
//! An object that several images refer to is counted once for the store, as shared for each of
//! them, and as exclusive for none. An image refers to every object of its layers, also to those
//! that a later layer hides: they are needed to give the layers back.

use crate::error::{Doing as _, StoreError};
use crate::layout::{self, object_name};
use crate::name::ImageName;
use crate::open::Store;
use crate::record::ImageFacts;
use gantry_oci::{DiffId, ManifestDigest, ObjectId};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Bytes are bytes on disk (allocated blocks), not lengths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// One row an image.
    pub images: Vec<ImageUsage>,
    /// Objects that images refer to, each counted once.
    pub object_bytes: u64,
    /// The same, each counted as often as images refer to it.
    pub unshared_bytes: u64,
    /// Objects that nothing refers to, and variants that no tree links to.
    pub garbage_bytes: u64,
    /// Metadata images, records, manifests and configurations.
    pub metadata_bytes: u64,
    /// Contents kept again because the hard-link face needs other metadata.
    pub variant_bytes: u64,
    /// Number of objects.
    pub objects: u64,
}

impl Usage {
    /// What images would take more if each had its own copy.
    #[must_use]
    pub fn saved_bytes(&self) -> u64 {
        self.unshared_bytes.saturating_sub(self.object_bytes)
    }

    /// Everything together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.object_bytes + self.garbage_bytes + self.metadata_bytes + self.variant_bytes
    }
}

/// One image's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// The manifest.
    pub digest: ManifestDigest,
    /// Its names.
    pub names: Vec<String>,
    /// Logical size of its tree.
    pub tree_bytes: u64,
    /// Objects that only this image refers to.
    pub exclusive_bytes: u64,
    /// Objects that others refer to as well.
    pub shared_bytes: u64,
}

impl Store {
    /// Measures the store.
    ///
    /// # Errors
    /// As [`usage_with`](Self::usage_with).
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.usage_with(&|_, _| {})
    }

    /// Measures the store; `progress` is called with the number of images looked at and of all.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Layer`] for a damaged record; the kernel's refusal.
    pub fn usage_with(&self, progress: &dyn Fn(u64, u64)) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        let sizes = self.object_sizes()?;
        let mut names: BTreeMap<ManifestDigest, Vec<ImageName>> = BTreeMap::new();
        for named in self.names()? {
            names.entry(named.digest).or_default().push(named.name);
        }
        let mut layers = HashMap::new();
        let mut references: HashMap<ObjectId, u32> = HashMap::new();
        let mut images = Vec::new();
        let digests = self.digests()?;
        for (done, digest) in (1..).zip(&digests) {
            progress(done, digests.len() as u64);
            usage.metadata_bytes +=
                self.disk_bytes_below(&format!("{}/{digest}", layout::DIGESTS))?;
            let Some(record) = self.image(digest)? else {
                continue;
            };
            let Some(facts) = record.image() else {
                continue;
            };
            let objects = self.objects_of(facts, &mut layers)?;
            for id in &objects {
                *references.entry(*id).or_default() += 1;
            }
            images.push((*digest, facts.tree.size_bytes, objects));
        }
        for (digest, tree_bytes, objects) in images {
            let mut row = ImageUsage {
                digest,
                names: names
                    .remove(&digest)
                    .unwrap_or_default()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                tree_bytes,
                exclusive_bytes: 0,
                shared_bytes: 0,
            };
            for id in &objects {
                let bytes = sizes.get(id).copied().unwrap_or(0);
                match references.get(id) {
                    Some(1) => row.exclusive_bytes += bytes,
                    _ => row.shared_bytes += bytes,
                }
            }
            usage.unshared_bytes += row.exclusive_bytes + row.shared_bytes;
            usage.images.push(row);
        }
        for (id, bytes) in &sizes {
            match references.get(id) {
                Some(_) => usage.object_bytes += bytes,
                None => usage.garbage_bytes += bytes,
            }
        }
        usage.objects = sizes.len() as u64;
        for variant in self.variants()? {
            match variant.links {
                ..2 => usage.garbage_bytes += variant.bytes,
                _ => usage.variant_bytes += variant.bytes,
            }
        }
        usage.metadata_bytes += self.disk_bytes_below(layout::LAYERS)?;
        Ok(usage)
    }

    /// The objects that an image needs.
    pub(crate) fn objects_of(
        &self,
        facts: &ImageFacts,
        layers: &mut HashMap<DiffId, HashSet<ObjectId>>,
    ) -> Result<HashSet<ObjectId>, StoreError> {
        let mut objects = HashSet::new();
        for layer in &facts.layers {
            if let Some(known) = layers.get(&layer.diff_id) {
                objects.extend(known);
                continue;
            }
            let of_layer =
                self.layer_objects(&layer.diff_id)?
                    .ok_or_else(|| StoreError::Corrupt {
                        what: format!("image {}", facts.image_id),
                        why: format!("layer {} is missing", layer.diff_id),
                    })?;
            let of_layer: HashSet<ObjectId> = of_layer.into_iter().map(|(id, _)| id).collect();
            objects.extend(&of_layer);
            layers.insert(layer.diff_id, of_layer);
        }
        Ok(objects)
    }

    /// Every object with the bytes that it takes on disk.
    pub(crate) fn object_sizes(&self) -> Result<HashMap<ObjectId, u64>, StoreError> {
        let mut sizes = HashMap::new();
        for id in self.objects()? {
            let path = format!("{}/{}", layout::OBJECTS, object_name(&id));
            match rustix::fs::statat(&self.inner.root, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    sizes.insert(id, disk_bytes(&stat));
                }
                // Collected meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).doing(|| format!("stat {path}")),
            }
        }
        Ok(sizes)
    }

    /// Every object's id.
    pub(crate) fn objects(&self) -> Result<Vec<ObjectId>, StoreError> {
        let mut ids = Vec::new();
        for fan in self.list(layout::OBJECTS)? {
            for name in self.list(&format!("{}/{fan}", layout::OBJECTS))? {
                ids.extend(layout::parse_object_name(fan.as_bytes(), name.as_bytes()));
            }
        }
        Ok(ids)
    }

    /// Every variant.
    #[allow(
        clippy::useless_conversion,
        reason = "a count of links has 32 bits on some machines"
    )]
    pub(crate) fn variants(&self) -> Result<Vec<Variant>, StoreError> {
        let mut variants = Vec::new();
        for fan in self.list(layout::VARIANTS)? {
            let dir = self.dir(&format!("{}/{fan}", layout::VARIANTS))?;
            for name in self.list(&format!("{}/{fan}", layout::VARIANTS))? {
                let parsed = layout::parse_variant_name(fan.as_bytes(), name.as_bytes());
                let Some(id) = parsed else { continue };
                match rustix::fs::statat(&dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => variants.push(Variant {
                        path: format!("{}/{fan}/{name}", layout::VARIANTS),
                        id,
                        inode: stat.st_ino,
                        links: u64::from(stat.st_nlink),
                        bytes: disk_bytes(&stat),
                    }),
                    // Collected meanwhile.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno).doing(|| format!("stat {fan}/{name}")),
                }
            }
        }
        Ok(variants)
    }

    /// Bytes on disk of the files below a directory that are linked nowhere else. The hard-link
    /// face's trees count their directories only; its files are objects and variants.
    fn disk_bytes_below(&self, path: &str) -> Result<u64, StoreError> {
        let mut total = 0;
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let dir = match self.inner.root.open_dir(path.as_bytes()) {
                Err(error) if error.is(Errno::NOENT) => continue,
                other => other.doing(|| format!("open {path}"))?,
            };
            let stat = rustix::fs::fstat(&dir).doing(|| format!("stat {path}"))?;
            total += disk_bytes(&stat);
            let is_tree = path.ends_with(layout::ROOTFS);
            for name in dir.list(b".").doing(|| format!("list {path}"))? {
                let Ok(stat) = rustix::fs::statat(&dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                else {
                    continue;
                };
                if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
                    if let (false, Ok(name)) = (is_tree, String::from_utf8(name)) {
                        open.push(format!("{path}/{name}"));
                    }
                } else {
                    total += disk_bytes(&stat);
                }
            }
        }
        Ok(total)
    }
}

/// Contents kept again with other metadata.
pub(crate) struct Variant {
    /// Where, below the store's root.
    pub(crate) path: String,
    /// Whose contents these are.
    pub(crate) id: ObjectId,
    pub(crate) inode: u64,
    /// Names of the file: its own, and those in trees.
    pub(crate) links: u64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
}

fn disk_bytes(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}
