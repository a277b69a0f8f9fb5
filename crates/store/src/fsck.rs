// SPDX-License-Identifier: Apache-2.0
//! Looking for damage: every record, every name, every byte of every object.
//!
//! Reads only; runs beside writers. What a writer publishes or a collector removes meanwhile is
//! not damage: an image is checked against the objects as they are after it was read.

use crate::contents::objects_of;
use crate::error::{Doing as _, StoreError};
use crate::layout::{self, object_name};
use crate::open::Store;
use crate::record::{ImageRecord, RecordContent};
use crate::trees::composefs;
use crate::usage::Variant;
use gantry_oci::{DiffId, Digest, ManifestDigest, ObjectId};
use rustix::fs::{FileType, Mode, OFlags};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How thoroughly to look.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Read every object and every metadata image and compare digests.
    pub read_contents: bool,
    /// Threads that hash. Hashing is bound by the processor until the disk is.
    pub threads: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            read_contents: true,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What was looked at and what was wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Names.
    pub names: u64,
    /// Records of images and indexes.
    pub records: u64,
    /// Records of layers.
    pub layers: u64,
    /// Objects.
    pub objects: u64,
    /// Contents that are kept again with other metadata, for the hard-link face.
    pub variants: u64,
    /// Bytes that were hashed.
    pub hashed_bytes: u64,
    /// Damage; none means that the store is sound.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file or record, below the store's root.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// What would have to be brought again.
    pub damage: Damage,
}

/// What is damaged, as far as mending it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "kind", content = "id", rename_all = "kebab-case")]
pub enum Damage {
    /// The contents of an object are missing or wrong.
    Object(ObjectId),
    /// A variant of these contents is wrong.
    Variant(ObjectId),
    /// The record of a layer is missing or wrong.
    Layer(DiffId),
    /// The record of an image or index, or a file that follows from it.
    Image(ManifestDigest),
    /// A signature of this image or index.
    Signature(ManifestDigest),
    /// Something that nobody can know the right form of.
    Unknown,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, damage: Damage, path: impl Into<String>, problem: impl ToString) {
        self.problems.push(Problem {
            path: path.into(),
            problem: problem.to_string(),
            damage,
        });
    }

    fn add_error(&mut self, damage: Damage, path: impl Into<String>, error: &StoreError) {
        self.add(damage, path, chain(error));
    }
}

impl Store {
    /// Checks the whole store. `progress` is called with the number of objects done and of all.
    ///
    /// # Errors
    /// Only what keeps it from looking; damage is in the report.
    pub fn check(
        &self,
        options: &CheckOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        let wanted = self.check_layers(&mut report)?;
        let sealed = self.check_records(options, &mut report)?;
        self.check_names(&mut report)?;
        let contents = self.contents(&wanted, &sealed)?;
        let present: HashSet<ObjectId> = contents.iter().filter_map(Content::object).collect();
        report.objects = present.len() as u64;
        report.variants = (contents.len() - present.len()) as u64;
        for (id, (size_bytes, layer)) in &wanted {
            // Published after the listing, or really missing.
            let path = format!("{}/{}", layout::OBJECTS, object_name(id));
            if !present.contains(id)
                && self
                    .inner
                    .root
                    .stat(path.as_bytes())
                    .doing(|| path.clone())?
                    .is_none()
            {
                report.add(
                    Damage::Object(*id),
                    path,
                    format!("object is missing; {layer} needs its {size_bytes} bytes"),
                );
            }
        }
        self.check_contents(&contents, options, progress, &mut report);
        report.problems.sort();
        Ok(report)
    }

    /// Every file that holds contents, with the size that it should have.
    fn contents(
        &self,
        wanted: &HashMap<ObjectId, (u64, String)>,
        sealed: &BTreeSet<ObjectId>,
    ) -> Result<Vec<Content>, StoreError> {
        let size_of = |id: &ObjectId| wanted.get(id).map(|(size_bytes, _)| *size_bytes);
        let object = |id: ObjectId| Content {
            path: format!("{}/{}", layout::OBJECTS, object_name(&id)),
            expected_bytes: size_of(&id),
            sealed: sealed.contains(&id),
            damage: Damage::Object(id),
            id,
        };
        let variant = |variant: Variant| Content {
            path: variant.path,
            expected_bytes: size_of(&variant.id),
            sealed: false,
            damage: Damage::Variant(variant.id),
            id: variant.id,
        };
        let objects = self.objects()?.into_iter().map(object);
        Ok(objects
            .chain(self.variants()?.into_iter().map(variant))
            .collect())
    }

    fn check_layers(
        &self,
        report: &mut CheckReport,
    ) -> Result<HashMap<ObjectId, (u64, String)>, StoreError> {
        let mut wanted = HashMap::new();
        for diff_id in self.layers()? {
            report.layers += 1;
            let path = format!("{}/{diff_id}", layout::LAYERS);
            match self.layer_objects(&diff_id) {
                Ok(None) => {}
                Ok(Some(objects)) => {
                    for (id, size_bytes) in objects {
                        wanted
                            .entry(id)
                            .or_insert_with(|| (size_bytes, format!("layer {diff_id}")));
                    }
                }
                Err(error) => report.add_error(Damage::Layer(diff_id), path, &error),
            }
        }
        Ok(wanted)
    }

    /// Answers which objects must be sealed.
    fn check_records(
        &self,
        options: &CheckOptions,
        report: &mut CheckReport,
    ) -> Result<BTreeSet<ObjectId>, StoreError> {
        let mut sealed = BTreeSet::new();
        for name in self.list(layout::DIGESTS)? {
            let path = format!("{}/{name}", layout::DIGESTS);
            let Ok(digest) = name.parse() else {
                report.add(Damage::Unknown, path, "name is no digest");
                continue;
            };
            report.records += 1;
            match self.image(&digest) {
                Ok(Some(record)) => {
                    self.check_image(&path, &record, options, report);
                    // A layer that cannot be read is in the report already.
                    if record.image().is_some_and(|facts| facts.sealed)
                        && let Ok(tree) = self.tree(&record)
                    {
                        sealed.extend(objects_of(&tree));
                    }
                }
                // Removed meanwhile, unless the directory still stands.
                Ok(None) => {
                    if self
                        .inner
                        .root
                        .stat(path.as_bytes())
                        .doing(|| path.clone())?
                        .is_some()
                    {
                        report.add(Damage::Image(digest), path, "record is missing");
                    }
                }
                Err(error) => report.add_error(
                    Damage::Image(digest),
                    format!("{path}/{}", layout::RECORD_JSON),
                    &error,
                ),
            }
        }
        Ok(sealed)
    }

    fn check_image(
        &self,
        path: &str,
        record: &ImageRecord,
        options: &CheckOptions,
        report: &mut CheckReport,
    ) {
        let image = Damage::Image(record.digest);
        let file = |name: &str| format!("{path}/{name}");
        match self.manifest(&record.digest) {
            Ok(Some(_)) => {}
            Ok(None) => report.add(image, file(layout::MANIFEST_JSON), "file is missing"),
            Err(error) => report.add_error(image, file(layout::MANIFEST_JSON), &error),
        }
        self.check_signatures(&record.digest, report);
        let facts = match &record.content {
            RecordContent::Image(facts) => facts,
            RecordContent::Index { present, .. } => {
                for entry in present {
                    if !matches!(self.image(entry), Ok(Some(_))) {
                        report.add(
                            Damage::Image(*entry),
                            path,
                            format!("image {entry} of the index is missing or damaged"),
                        );
                    }
                }
                return;
            }
        };
        if let Err(error) = self.config(record) {
            report.add_error(image, file(layout::CONFIG_JSON), &error);
        }
        for layer in &facts.layers {
            if !matches!(self.has_layer(&layer.diff_id), Ok(true)) {
                report.add(
                    Damage::Layer(layer.diff_id),
                    path,
                    format!("layer {} is missing", layer.diff_id),
                );
            }
        }
        if facts.faces.composefs {
            let file = file(layout::IMAGE_EROFS);
            match self.inner.root.open_file(file.as_bytes()) {
                Err(error) => report.add(image, file, chain(&error)),
                Ok(erofs) if facts.sealed && !is_sealed(&erofs, facts.erofs.map(|f| f.verity)) => {
                    report.add(image, file, NOT_SEALED);
                }
                Ok(mut erofs) => {
                    let found = options.read_contents.then(|| composefs::hash(&mut erofs));
                    match found {
                        Some(Ok(found)) if Some(found) != facts.erofs => {
                            report.add(image, file, format!("its digest is {}", found.verity));
                        }
                        Some(Err(error)) => report.add(image, file, error),
                        Some(Ok(found)) => report.hashed_bytes += found.size_bytes,
                        None => {}
                    }
                }
            }
        }
        if facts.faces.hardlink {
            let tree = file(layout::ROOTFS);
            match self.inner.root.stat(tree.as_bytes()) {
                Ok(Some(stat)) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
                _ => report.add(image, tree, "tree is missing"),
            }
        }
    }

    fn check_signatures(&self, digest: &ManifestDigest, report: &mut CheckReport) {
        match self.damaged_signatures(digest) {
            Ok(damaged) => {
                for (path, why) in damaged {
                    report.add(Damage::Signature(*digest), path, why);
                }
            }
            Err(error) => {
                let path = format!("{}/{digest}/{}", layout::DIGESTS, layout::SIGNATURES);
                report.add_error(Damage::Unknown, path, &error);
            }
        }
    }

    fn check_names(&self, report: &mut CheckReport) -> Result<(), StoreError> {
        let names = match self.names() {
            Ok(names) => names,
            Err(error @ StoreError::Corrupt { .. }) => {
                report.add_error(Damage::Unknown, layout::IMAGES, &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for named in names {
            report.names += 1;
            if matches!(self.image(&named.digest), Ok(None)) {
                let path = format!("{}/{}", named.name.dir(), named.name.file());
                report.add(
                    Damage::Image(named.digest),
                    path,
                    format!("image {} is missing", named.digest),
                );
            }
        }
        Ok(())
    }

    fn check_contents(
        &self,
        contents: &[Content],
        options: &CheckOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
        report: &mut CheckReport,
    ) {
        let next = AtomicUsize::new(0);
        let hashed = AtomicU64::new(0);
        let problems = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..options.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(content) = contents.get(at) else {
                            break;
                        };
                        match self.check_content(content, options.read_contents) {
                            Ok(bytes) => {
                                hashed.fetch_add(bytes, Ordering::Relaxed);
                            }
                            Err(problem) => problems
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(problem),
                        }
                        progress(at as u64 + 1, contents.len() as u64);
                    }
                });
            }
        });
        report.hashed_bytes += hashed.into_inner();
        report.problems.extend(
            problems
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Answers how many bytes were read.
    fn check_content(&self, content: &Content, read: bool) -> Result<u64, Problem> {
        let path = &content.path;
        let problem = |problem: String| Problem {
            path: path.clone(),
            problem,
            damage: content.damage,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.inner.root, path.as_str(), flags, Mode::empty()) {
            // Collected meanwhile; if a layer wants it, that is reported as missing.
            Err(rustix::io::Errno::NOENT) => return Ok(0),
            other => other.map_err(|errno| problem(format!("open: {errno}")))?,
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| problem(format!("stat: {errno}")))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(problem("it is no file".to_owned()));
        }
        let unreadable = stat.st_mode & 0o6000 != 0 || stat.st_mode & 0o004 == 0;
        if content.object().is_some() && unreadable {
            return Err(problem(format!("its mode is {:o}", stat.st_mode & 0o7777)));
        }
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if let Some(expected) = content.expected_bytes
            && expected != size_bytes
        {
            return Err(problem(format!(
                "it has {size_bytes} bytes, not {expected}"
            )));
        }
        if content.sealed && !is_sealed(&file, Some(content.id)) {
            return Err(problem(NOT_SEALED.to_owned()));
        }
        if !read {
            return Ok(0);
        }
        let found =
            composefs::hash(&mut File::from(file)).map_err(|error| problem(error.to_string()))?;
        if found.verity == content.id {
            Ok(size_bytes)
        } else {
            Err(problem(format!("its digest is {}", found.verity)))
        }
    }
}

const NOT_SEALED: &str = "it is not sealed with fs-verity, as its image's record says";

/// Whether the kernel vouches for these contents.
fn is_sealed(file: impl std::os::fd::AsFd, wanted: Option<ObjectId>) -> bool {
    let Ok(Some(found)) = gantry_sys::verity::measure(file) else {
        return false;
    };
    wanted == Some(ObjectId::from_digest(Digest::sha256(found)))
}

/// A file that holds contents.
struct Content {
    /// Where, below the store's root.
    path: String,
    /// What its digest must be.
    id: ObjectId,
    /// Whether a sealed image needs it.
    sealed: bool,
    /// The size that a layer says.
    expected_bytes: Option<u64>,
    /// What it is if it is wrong.
    damage: Damage,
}

impl Content {
    /// The object that this is, unless it is a variant of one.
    fn object(&self) -> Option<ObjectId> {
        matches!(self.damage, Damage::Object(_)).then_some(self.id)
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
