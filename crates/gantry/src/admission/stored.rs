// SPDX-License-Identifier: Apache-2.0
//! The question about an image of a store: what its name led to, held to the manifest, and the signatures beside it.

use gantry_image::{ManifestBytes, SignatureBlob, UnverifiedManifest};
use gantry_oci::{ChainId, DiffId, Digest, Kind, Limits, ManifestDigest, Repository};
use gantry_store::{ImageRecord, Store};
use gantry_trust::{Question, Subject};

use super::{Admission, Evidence, first_name, found_at};
use crate::commands::container::find::FoundImage;
use crate::exit::Failure;

/// An image of a store whose record is that of its manifest, with its names.
#[derive(Debug)]
pub(super) struct StoredCase<'a> {
    store: &'a Store,
    limits: &'a Limits,
    subjects: Vec<Subject>,
    manifest: ManifestBytes,
    index: Option<ManifestBytes>,
}

impl<'a> StoredCase<'a> {
    /// Reads the documents and holds the record to them.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if they do not fit; the store's own.
    pub(super) fn open(found: &'a FoundImage, limits: &'a Limits) -> Result<Self, Failure> {
        let store = &found.store;
        let manifest = read_manifest(store, &found.record, limits)?;
        check_record(store, &found.record, &manifest)?;
        let index = found.index.as_ref();
        let index = index.map(|digest| read_index(store, digest, limits));
        let (index, subjects) = (index.transpose()?, found.subjects()?);
        for subject in &subjects {
            check_pinned(subject, &manifest, index.as_ref())?;
        }
        Ok(Self {
            store,
            limits,
            subjects,
            manifest,
            index,
        })
    }

    /// The first good answer, under any of its names; if there is none, the first answer. It may be the index that
    /// was signed, from which this image was chosen when it was pulled.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn first<T, E>(
        &self,
        admission: &Admission,
        ask: &dyn Fn(&Question<'_>) -> Result<T, E>,
    ) -> Result<Result<T, E>, Failure> {
        let first = self.ask(admission, self.index.as_ref(), ask)?;
        if first.is_ok() || self.index.is_some() || !admission.asks_for_signatures(&self.subjects) {
            return Ok(first);
        }
        for digest in self.store.indexes_of(self.manifest.digest())? {
            let index = read_index(self.store, &digest, self.limits)?;
            let next = self.ask(admission, Some(&index), ask)?;
            if next.is_ok() {
                return Ok(next);
            }
        }
        Ok(first)
    }

    /// The manifest.
    pub(super) fn into_manifest(self) -> ManifestBytes {
        self.manifest
    }

    /// The signatures beside it. One image may have many names on a share; those count that were pushed under one of
    /// the names that it is asked for by.
    fn kept(&self, digest: &ManifestDigest) -> Result<Vec<SignatureBlob>, Failure> {
        let mut repositories: Vec<&Repository> = Vec::new();
        for reference in self.subjects.iter().filter_map(Subject::reference) {
            if !repositories.contains(&&reference.repository) {
                repositories.push(&reference.repository);
            }
        }
        if repositories.is_empty() {
            return Ok(self.store.signatures(digest)?);
        }
        let mut all: Vec<SignatureBlob> = Vec::new();
        for repository in repositories {
            let own = self.store.signatures_of(digest, repository)?;
            all.extend(own);
        }
        Ok(all)
    }

    fn ask<T, E>(
        &self,
        admission: &Admission,
        index: Option<&ManifestBytes>,
        ask: &dyn Fn(&Question<'_>) -> Result<T, E>,
    ) -> Result<Result<T, E>, Failure> {
        let mut signatures = Vec::new();
        if admission.asks_for_signatures(&self.subjects) {
            for about in std::iter::once(&self.manifest).chain(index) {
                let kept = self.kept(about.digest())?;
                let place = format!(
                    "store {}, of {}",
                    self.store.path().display(),
                    about.digest()
                );
                found_at(&place, kept, &mut signatures);
            }
        }
        let evidence = Evidence {
            manifest: &self.manifest,
            chosen_from: index,
            signatures: &signatures,
        };
        Ok(first_name(&self.subjects, evidence, ask))
    }
}

fn read_index(
    store: &Store,
    digest: &ManifestDigest,
    limits: &Limits,
) -> Result<ManifestBytes, Failure> {
    let record = store.image(digest)?.ok_or_else(|| gone(digest))?;
    read_manifest(store, &record, limits)
}

fn read_manifest(
    store: &Store,
    record: &ImageRecord,
    limits: &Limits,
) -> Result<ManifestBytes, Failure> {
    let digest = &record.digest;
    let bytes = store.manifest(digest)?.ok_or_else(|| gone(digest))?;
    let media_type = record.media_type.as_str().to_owned();
    let manifest = UnverifiedManifest::new(bytes.into(), Some(media_type), None);
    Ok(manifest.verify(Some(digest), limits)?)
}

fn gone(digest: &ManifestDigest) -> Failure {
    Failure::message(Kind::Corrupt, format!("manifest {digest} is gone"))
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
