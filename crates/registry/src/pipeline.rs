// SPDX-License-Identifier: Apache-2.0
//! The way of a manifest from "pushed" to "every host runs it".
//!
//! ```text
//! receive   manifests::receive: strict document, every blob here     (nothing written)
//! decide    gate: the policy of the repository gives a Permit        (nothing visible)
//! explode   layers verified and unpacked into staging                (nothing visible)
//! publish   objects, then digests/<digest>/ by one rename, then the
//!           repository's marker, then the tag's link
//! ```
//!
//! An index gets a directory too, whose `rootfs` leads to the image for this
//! host's platform. What is not an image (a signature, an SBOM) has no tree;
//! it is kept and served, and its tags stand under `registry/tags`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gantry_image::select::choose_platform;
use gantry_image::{ManifestBytes, SignatureBlob};
use gantry_layer::compress::{self, Decoder};
use gantry_oci::{
    Descriptor, DiffId, Digest, Digester, Document, ImageConfig, Kind, Limits, Manifest,
    ManifestDigest, Platform, Repository, Tag,
};
use gantry_store::{
    BlobForm, Claim, CommitImage, Faces, ImageName, ImageRecord, Ingest, IngestError,
    IngestOptions, Pointer, Store, StoreError,
};

use crate::errors::{ApiError, Code};
use crate::gate::{Naming, Permit};
use crate::state::{self, Member, State};

/// Layers of one image unpacked at once: each already uses about two cores.
const LAYERS_AT_ONCE: usize = 2;

/// What becomes of the images of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Verified and unpacked, with these faces in the shared tree; refused if that fails.
    Explode(Faces),
    /// Kept and served as pushed: only digests and sizes are checked, and there is no tree.
    Keep,
}

/// Which treatment the images of a repository get.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Where nothing else is said.
    pub default: Treatment,
    /// By repository, or by a prefix that ends in `/*`; the longest match counts.
    pub repositories: BTreeMap<String, Treatment>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            default: Treatment::Explode(Faces::BOTH),
            repositories: BTreeMap::new(),
        }
    }
}

impl Rules {
    /// The treatment for a repository.
    #[must_use]
    pub fn of(&self, repository: &Repository) -> Treatment {
        longest_match(&self.repositories, repository).map_or(self.default, |own| *own)
    }
}

/// What a table says of a repository: by its name, or by the longest prefix
/// that ends in `/*`.
pub fn longest_match<'a, T>(
    table: &'a BTreeMap<String, T>,
    repository: &Repository,
) -> Option<&'a T> {
    let name = repository.as_str();
    if let Some(own) = table.get(name) {
        return Some(own);
    }
    let matching = table.iter().filter_map(|(pattern, value)| {
        let prefix = pattern.strip_suffix('*')?;
        (prefix.ends_with('/') && name.starts_with(prefix)).then_some((prefix.len(), value))
    });
    matching
        .max_by_key(|(length, _)| *length)
        .map(|(_, value)| value)
}

/// The store, and what is made of each image.
#[derive(Debug)]
pub struct Pipeline {
    store: Store,
    rules: Rules,
    limits: Limits,
}

fn own_name(repository: &Repository, tag: &Tag) -> ImageName {
    ImageName {
        host: None,
        repository: repository.clone(),
        pointer: Pointer::Tag(tag.clone()),
    }
}

fn of_store(doing: &str) -> impl Fn(StoreError) -> ApiError + '_ {
    move |error| ApiError::of_store(doing, &error)
}

impl Pipeline {
    /// A pipeline into `store`.
    pub fn new(store: Store, rules: Rules, limits: Limits) -> Self {
        Self {
            store,
            rules,
            limits,
        }
    }

    /// Where the store lies.
    pub fn root(&self) -> &Path {
        self.store.path()
    }

    /// What becomes of the images of a repository.
    pub fn treatment(&self, repository: &Repository) -> Treatment {
        self.rules.of(repository)
    }

    /// Publishes a document that was checked against its repository, as what it is permitted as, and moves the tag;
    /// `depth` is kept with it.
    ///
    /// # Errors
    /// What is wrong with the image, or with this registry; nothing is visible then.
    pub fn accept(
        &self,
        state: &State,
        permit: &Permit,
        manifest: &ManifestBytes,
        depth: usize,
    ) -> Result<(), ApiError> {
        let Naming {
            repository,
            tag,
            digest,
        } = permit.naming();
        if digest != manifest.digest() {
            let message = "the registry was to publish another manifest than it may";
            return Err(ApiError::new(Code::Unknown, message));
        }
        let tag = tag.as_ref();
        if let Some(tag) = tag {
            self.check_collision(state, repository, tag)?;
        }
        let treatment = self.rules.of(repository);
        match (manifest.document(), treatment) {
            (Document::Manifest(document), Treatment::Explode(faces)) if document.is_image() => {
                self.publish_image(state, permit, (manifest, depth), faces)?;
                self.forget_artifact_tag(repository, tag)
            }
            (Document::Index(index), Treatment::Explode(_)) if self.has_images(index) => {
                let admitted = self.admit(state, repository, manifest, depth)?;
                let chosen = choose_platform(index, &Platform::host())
                    .ok()
                    .map(|choice| ManifestDigest::from_digest(choice.descriptor.digest))
                    .filter(|digest| matches!(self.store.image(digest), Ok(Some(_))));
                let ingest = self
                    .store
                    .begin(IngestOptions::default())
                    .map_err(of_store("publish the index"))?;
                let commit = |names: &[ImageName]| ingest.commit_index(manifest, chosen, names);
                if let Err(error) = self.commit(permit, &commit) {
                    self.withdraw(state, repository, manifest, admitted);
                    return Err(ApiError::of_ingest("publish the index", &error));
                }
                self.forget_artifact_tag(repository, tag)
            }
            _ => {
                self.admit(state, repository, manifest, depth)?;
                tag.map_or(Ok(()), |tag| {
                    self.tag_artifact(state, repository, tag, manifest.digest())
                })
            }
        }
    }

    /// Explodes and publishes; once more if the store found that a layer of its own was damaged and has set it aside.
    fn publish_image(
        &self,
        state: &State,
        permit: &Permit,
        (manifest, depth): (&ManifestBytes, usize),
        faces: Faces,
    ) -> Result<(), ApiError> {
        let repository = &permit.naming().repository;
        let Document::Manifest(document) = manifest.document() else {
            return Ok(());
        };
        let mut again = true;
        loop {
            let (ingest, config) = self.explode(state, repository, document, faces)?;
            let admitted = self.admit(state, repository, manifest, depth)?;
            let commit = |names: &[ImageName]| {
                ingest.commit_image(&CommitImage {
                    manifest,
                    config: &config,
                    names,
                })
            };
            let error = match self.commit(permit, &commit) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            self.withdraw(state, repository, manifest, admitted);
            let damaged =
                matches!(&error, IngestError::Store(error) if error.kind() == Kind::Corrupt);
            if !(damaged && again) {
                return Err(ApiError::of_ingest("publish the image", &error));
            }
            tracing::warn!(%repository, digest = %manifest.digest(), "unpack again: {error}");
            again = false;
        }
    }

    /// Makes an image visible with the signatures that it was judged by, which are there before its name is.
    fn commit(
        &self,
        permit: &Permit,
        commit: &dyn Fn(&[ImageName]) -> Result<ImageRecord, IngestError>,
    ) -> Result<(), IngestError> {
        let Naming {
            repository,
            tag,
            digest,
        } = permit.naming();
        let names: Vec<ImageName> = tag.iter().map(|tag| own_name(repository, tag)).collect();
        if !permit.signatures().is_empty() {
            commit(&[])?;
            let signatures = permit.signatures();
            self.store
                .add_signatures_of(digest, repository, signatures)?;
        }
        commit(&names).map(drop)
    }

    fn has_images(&self, index: &gantry_oci::Index) -> bool {
        index.manifests.iter().any(|entry| {
            matches!(
                self.store.image(&ManifestDigest::from_digest(entry.digest)),
                Ok(Some(_))
            )
        })
    }

    /// A tag and a repository below its own may not need the same path in the tree.
    fn check_collision(
        &self,
        state: &State,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<(), ApiError> {
        let collides = |other: &Repository| {
            ApiError::new(
                Code::Denied,
                format!(
                    "tag {tag} of repository {repository} and repository {other} would need the same place in the \
                     shared tree; choose another tag or another repository name"
                ),
            )
        };
        let below = format!("{repository}/{tag}");
        for other in state
            .repositories()
            .map_err(|error| ApiError::io("list the repositories", &error))?
        {
            let name = other.as_str();
            if (name == below || name.starts_with(&format!("{below}/")))
                && !self.tags(&other)?.is_empty()
            {
                return Err(collides(&other));
            }
            // The other way round: this repository lies where another one has a tag.
            if let Some(rest) = repository
                .as_str()
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('/'))
            {
                let first = rest.split('/').next().unwrap_or_default();
                if first
                    .parse::<Tag>()
                    .is_ok_and(|taken| matches!(self.target(&other, &taken), Ok(Some(_))))
                {
                    return Err(collides(&other));
                }
            }
        }
        Ok(())
    }

    /// Makes the manifest readable in the repository; whether it was not before.
    fn admit(
        &self,
        state: &State,
        repository: &Repository,
        manifest: &ManifestBytes,
        depth: usize,
    ) -> Result<bool, ApiError> {
        let digest = manifest.digest().digest();
        let new = !state.has(repository, Member::Manifest, digest);
        let facts = format!("{}\n{depth}\n", manifest.media_type());
        state
            .put_bytes(digest, manifest.bytes())
            .and_then(|()| state.admit(repository, Member::Manifest, digest, &facts))
            .map_err(|error| ApiError::io("keep the manifest", &error))?;
        Ok(new)
    }

    /// Takes back what [`admit`](Self::admit) made readable.
    fn withdraw(
        &self,
        state: &State,
        repository: &Repository,
        manifest: &ManifestBytes,
        admitted: bool,
    ) {
        if !admitted {
            return;
        }
        if let Err(error) = state.dismiss(repository, Member::Manifest, manifest.digest().digest())
        {
            tracing::error!(%repository, digest = %manifest.digest(), "withdraw a manifest: {error}");
        }
    }

    /// Verifies and unpacks the layers that the store does not have; answers the
    /// transaction and the configuration's bytes.
    fn explode(
        &self,
        state: &State,
        repository: &Repository,
        manifest: &Manifest,
        faces: Faces,
    ) -> Result<(Ingest, Vec<u8>), ApiError> {
        let config_bytes = self.read_config(state, repository, manifest)?;
        let config = ImageConfig::parse(&config_bytes, manifest.layers.len(), &self.limits)
            .map_err(|error| {
                ApiError::of_image(error.kind(), "refuse the image's configuration", &error)
            })?;
        let mut layers = Vec::new();
        for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            if blob.media_type.layer_compression().is_none() {
                return Err(ApiError::new(
                    Code::ManifestInvalid,
                    format!(
                        "layer {} has media type {}, which is no layer's",
                        blob.digest, blob.media_type
                    ),
                ));
            }
            layers.push((blob, *diff_id));
        }
        let ingest = self
            .store
            .begin(IngestOptions { faces })
            .map_err(of_store("unpack the image"))?;
        self.unpack_all(state, repository, &ingest, &layers)?;
        Ok((ingest, config_bytes))
    }

    fn read_config(
        &self,
        state: &State,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<Vec<u8>, ApiError> {
        use io::Read as _;
        let failed = |error: io::Error| ApiError::io("read the image's configuration", &error);
        let missing = || {
            ApiError::new(
                Code::ManifestBlobUnknown,
                format!(
                    "the image's configuration {} is not in repository {repository}",
                    manifest.config.digest
                ),
            )
        };
        if manifest.config.size_bytes > self.limits.config_bytes {
            return Err(ApiError::new(
                Code::SizeInvalid,
                format!(
                    "the image's configuration is larger than the {} bytes allowed",
                    self.limits.config_bytes
                ),
            ));
        }
        let file = state
            .open(repository, Member::Blob, &manifest.config.digest)
            .map_err(failed)?
            .ok_or_else(missing)?;
        let mut bytes = Vec::new();
        file.take(self.limits.config_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(bytes)
    }

    /// Unpacks layers, a few at once, the largest first.
    fn unpack_all(
        &self,
        state: &State,
        repository: &Repository,
        ingest: &Ingest,
        layers: &[(&Descriptor, DiffId)],
    ) -> Result<(), ApiError> {
        let mut order: Vec<&(&Descriptor, DiffId)> = layers.iter().collect();
        order.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.size_bytes));
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), ApiError> {
            while let Some((blob, diff_id)) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                unpack(state, repository, ingest, blob, *diff_id, &self.limits)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..LAYERS_AT_ONCE.min(order.len()))
                .map(|_| scope.spawn(work))
                .collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| {
                    Err(ApiError::new(
                        Code::Unknown,
                        "the registry failed to unpack a layer",
                    ))
                })
            })
        })
    }

    fn artifact_tags(&self, repository: &Repository) -> PathBuf {
        self.store
            .path()
            .join("registry/tags")
            .join(state::file_name(repository))
    }

    fn tag_artifact(
        &self,
        state: &State,
        repository: &Repository,
        tag: &Tag,
        digest: &ManifestDigest,
    ) -> Result<(), ApiError> {
        let path = self.artifact_tags(repository).join(tag.as_str());
        state
            .write_durably(&path, digest.to_string().as_bytes())
            .map_err(|error| ApiError::io("tag the manifest", &error))?;
        // The tag may have been an image's before.
        self.store
            .untag(&own_name(repository, tag))
            .map(drop)
            .map_err(of_store("move the tag"))
    }

    fn forget_artifact_tag(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
    ) -> Result<(), ApiError> {
        let Some(tag) = tag else { return Ok(()) };
        match std::fs::remove_file(self.artifact_tags(repository).join(tag.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ApiError::io("move the tag", &error))
            }
            _ => Ok(()),
        }
    }

    /// The signatures that the store keeps with an image of a repository.
    pub fn signatures(
        &self,
        repository: &Repository,
        digest: &ManifestDigest,
    ) -> Result<Vec<Bytes>, ApiError> {
        let found = self.store.signatures_of(digest, repository);
        let found = found.map_err(of_store("read signatures"))?;
        Ok(found.into_iter().map(|signature| signature.bytes).collect())
    }

    /// Keeps a signature with its image; false if the image has no tree here.
    pub fn add_signature(
        &self,
        repository: &Repository,
        digest: &ManifestDigest,
        signature: &SignatureBlob,
    ) -> Result<bool, ApiError> {
        let doing = of_store("keep the signature");
        if self.store.image(digest).map_err(&doing)?.is_none() {
            return Ok(false);
        }
        let signatures = std::slice::from_ref(signature);
        let added = self.store.add_signatures_of(digest, repository, signatures);
        added.map(|()| true).map_err(doing)
    }

    /// Where a tag leads.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn target(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<ManifestDigest>, ApiError> {
        if let Ok(text) = std::fs::read_to_string(self.artifact_tags(repository).join(tag.as_str()))
        {
            return Ok(text.parse().ok());
        }
        self.store
            .target(&own_name(repository, tag))
            .map_err(of_store("read the tag"))
    }

    /// Removes a tag; whether it was there.
    ///
    /// # Errors
    /// The tree cannot be changed.
    pub fn untag(&self, repository: &Repository, tag: &Tag) -> Result<bool, ApiError> {
        let artifact = self.artifact_tags(repository).join(tag.as_str()).is_file();
        self.forget_artifact_tag(repository, Some(tag))?;
        let image = self
            .store
            .untag(&own_name(repository, tag))
            .map_err(of_store("remove the tag"))?;
        Ok(artifact || image)
    }

    /// The tags of a repository, in no order.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, ApiError> {
        let io = |error: io::Error| ApiError::io("list the tags", &error);
        let mut tags = Vec::new();
        let dir = self.store.path().join("images").join(repository.as_str());
        for dir in [dir, self.artifact_tags(repository)] {
            let entries = match std::fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io(error)),
            };
            for entry in entries {
                let entry = entry.map_err(io)?;
                // Directories are other repositories, whose names begin with this one.
                if entry.file_type().map_err(io)?.is_dir() {
                    continue;
                }
                tags.extend(
                    entry
                        .file_name()
                        .to_str()
                        .and_then(|name| name.parse::<Tag>().ok()),
                );
            }
        }
        tags.sort();
        tags.dedup();
        Ok(tags)
    }
}

fn unpack(
    state: &State,
    repository: &Repository,
    ingest: &Ingest,
    blob: &Descriptor,
    diff_id: DiffId,
    limits: &Limits,
) -> Result<(), ApiError> {
    let refuse = |error: IngestError| ApiError::of_ingest("refuse the image", &error);
    let open = || {
        let failed = |error: io::Error| ApiError::io("open a layer", &error);
        let file = state.open(repository, Member::Blob, &blob.digest);
        file.map_err(failed)?.ok_or_else(|| {
            ApiError::new(
                Code::ManifestBlobUnknown,
                format!("layer {} left repository {repository}", blob.digest),
            )
        })
    };
    match ingest.claim(diff_id).map_err(refuse)? {
        Claim::Held if state.diff_id_of(&blob.digest) == Some(diff_id) => return Ok(()),
        Claim::Held => check_diff_id(open()?, blob, diff_id, limits)?,
        Claim::Wanted(claim) => {
            claim
                .unpack(open()?, BlobForm::AsDescribed(blob))
                .map_err(refuse)?;
        }
    }
    state.note_diff_id(&blob.digest, &diff_id);
    Ok(())
}

/// Holds a blob to the diffID that the configuration states. The store has a layer of that diffID already, so nothing
/// else would read the blob: an image would be accepted whose blobs are something else than what it runs here.
fn check_diff_id(
    file: File,
    blob: &Descriptor,
    diff_id: DiffId,
    limits: &Limits,
) -> Result<(), ApiError> {
    use io::BufRead as _;
    let refuse = |why: String| {
        let message = format!("refuse the image: layer {}: {why}", blob.digest);
        ApiError::new(Code::ManifestInvalid, message)
    };
    let digest = || -> io::Result<Digest> {
        let mut file = io::BufReader::with_capacity(1 << 18, file);
        let compression = compress::detect(file.fill_buf()?);
        let mut tar = Decoder::new(file, compression, *limits)?;
        let mut digester = Digester::new(diff_id.digest().algorithm());
        let mut buffer = vec![0; 1 << 18];
        loop {
            match io::Read::read(&mut tar, &mut buffer)? {
                0 => return Ok(digester.finish()),
                count => digester.update(&buffer[..count]),
            }
        }
    };
    match digest() {
        Ok(found) if found == *diff_id.digest() => Ok(()),
        Ok(found) => Err(refuse(format!("its diffID is {found}, not {diff_id}"))),
        Err(error) if error.raw_os_error().is_some() => Err(ApiError::io("read a layer", &error)),
        Err(error) => Err(refuse(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pattern_decides_the_treatment() {
        let rules = Rules {
            default: Treatment::Explode(Faces::BOTH),
            repositories: [
                ("team/*".to_owned(), Treatment::Explode(Faces::COMPOSEFS)),
                ("team/web/*".to_owned(), Treatment::Keep),
                ("team/web/app".to_owned(), Treatment::Explode(Faces::BOTH)),
                ("te*".to_owned(), Treatment::Keep),
            ]
            .into(),
        };
        for (name, treatment) in [
            ("team/db", Treatment::Explode(Faces::COMPOSEFS)),
            ("team/web/other", Treatment::Keep),
            ("team/web/app", Treatment::Explode(Faces::BOTH)),
            ("team", Treatment::Explode(Faces::BOTH)),
            ("test", Treatment::Explode(Faces::BOTH)),
        ] {
            assert_eq!(rules.of(&name.parse().unwrap()), treatment, "{name}");
        }
    }
}
