// SPDX-License-Identifier: Apache-2.0
//! What the registry keeps on disk beside the store's own files.
//!
//! ```text
//! <root>/blobs/<alg>/<2 hex>/<hex>                         blobs as they were pushed
//! <root>/registry/uploads/<uuid>                           unfinished uploads; other names: files being written
//! <root>/registry/repos/<repository, / as +>/
//!     blobs/<alg>:<hex>                                    empty: the blob may be read here
//!     manifests/<alg>:<hex>                                media type, depth: so may the manifest
//!     referrers/<alg>:<hex of subject>/<alg>:<hex>         a descriptor: that manifest speaks of the subject
//!     signatures/<alg>:<hex of manifest>/<sha256 hex>      of what has no tree, or not yet; others are in the store, with the image
//! <root>/registry/waiting/…                                what waits for a signature: see `gate::waiting`
//! <root>/registry/unpacked/<alg>:<hex>                     a diffID: what that blob was found to unpack to
//! ```
//!
//! Blobs are shared by all repositories; a repository sees those that it has a
//! marker for, so that knowing a digest gives nobody another team's bytes.
//! Manifests are kept as blobs too. Tags are not here: a tag is the store's
//! `images/<repository>/<tag>`, which other hosts see, so there is one truth.
//!
//! Each fact is a file of its own, made by one rename or one exclusive create.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use gantry_oci::{Algorithm, DiffId, Digest, Limits, Repository};

/// Stands for `/` in a repository's name. No name has it, and it is as short, so that the longest name is a file name.
const SLASH: char = '+';

/// A repository as one file name.
pub fn file_name(repository: &Repository) -> String {
    repository.as_str().replace('/', &SLASH.to_string())
}

/// The repository that has this file name.
pub fn repository_of(file_name: &str) -> Option<Repository> {
    file_name.replace(SLASH, "/").parse().ok()
}

/// The files below one root.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

/// The two kinds of things that belong to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A blob.
    Blob,
    /// A manifest or index.
    Manifest,
}

impl Member {
    fn dir(self) -> &'static str {
        match self {
            Self::Blob => "blobs",
            Self::Manifest => "manifests",
        }
    }
}

impl State {
    /// The registry's files below a store's root, which exists.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn new(root: &Path) -> io::Result<Self> {
        let state = Self {
            root: root.to_owned(),
        };
        for dir in ["blobs", "registry/uploads", "registry/repos"] {
            make_dirs(&state.root.join(dir))?;
        }
        Ok(state)
    }

    /// Where a blob lies.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root
            .join("blobs")
            .join(digest.algorithm().name())
            .join(&hex[..2])
            .join(hex)
    }

    /// Where unfinished uploads lie.
    pub fn uploads(&self) -> PathBuf {
        self.root.join("registry/uploads")
    }

    fn repo(&self, repository: &Repository) -> PathBuf {
        self.root.join("registry/repos").join(file_name(repository))
    }

    fn marker(&self, repository: &Repository, member: Member, digest: &Digest) -> PathBuf {
        self.repo(repository)
            .join(member.dir())
            .join(digest.to_string())
    }

    /// Whether anything was ever pushed to the repository.
    pub fn has_repository(&self, repository: &Repository) -> bool {
        self.repo(repository).is_dir()
    }

    /// Whether the repository has a manifest: one that has not is the remains of a push that failed, or was emptied.
    pub fn has_manifests(&self, repository: &Repository) -> bool {
        let manifests = std::fs::read_dir(self.repo(repository).join(Member::Manifest.dir()));
        manifests.is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The repositories, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn repositories(&self) -> io::Result<Vec<Repository>> {
        let names = list_dir(&self.root.join("registry/repos"))?;
        let mut all: Vec<Repository> = names
            .iter()
            .filter_map(|name| repository_of(name))
            .collect();
        all.sort();
        Ok(all)
    }

    /// Whether the repository has this blob or manifest.
    pub fn has(&self, repository: &Repository, member: Member, digest: &Digest) -> bool {
        self.marker(repository, member, digest).is_file()
    }

    /// A manifest's media type, and over how many indexes it leads to images: 0 for an image.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn manifest_facts(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> io::Result<Option<(String, usize)>> {
        let text = self.marker_text(repository, Member::Manifest, digest)?;
        Ok(text.map(|text| {
            let mut lines = text.lines();
            let media_type = lines.next().unwrap_or_default().to_owned();
            let depth = lines.next().and_then(|depth| depth.parse().ok());
            (media_type, depth.unwrap_or(0))
        }))
    }

    fn marker_text(
        &self,
        repository: &Repository,
        member: Member,
        digest: &Digest,
    ) -> io::Result<Option<String>> {
        optional(std::fs::read_to_string(
            self.marker(repository, member, digest),
        ))
    }

    /// Gives the repository a blob or manifest that is on disk.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub fn admit(
        &self,
        repository: &Repository,
        member: Member,
        digest: &Digest,
        text: &str,
    ) -> io::Result<()> {
        let marker = self.marker(repository, member, digest);
        if member == Member::Blob && marker.is_file() {
            return Ok(());
        }
        self.write_durably(&marker, text.as_bytes())
    }

    /// Takes a blob or manifest from the repository; whether it was there.
    ///
    /// # Errors
    /// The marker cannot be removed.
    pub fn dismiss(
        &self,
        repository: &Repository,
        member: Member,
        digest: &Digest,
    ) -> io::Result<bool> {
        let marker = self.marker(repository, member, digest);
        Ok(optional(std::fs::remove_file(marker))?.is_some())
    }

    /// Opens a blob that the repository has; `None` if it has not.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(
        &self,
        repository: &Repository,
        member: Member,
        digest: &Digest,
    ) -> io::Result<Option<File>> {
        if !self.has(repository, member, digest) {
            return Ok(None);
        }
        optional(File::open(self.blob_path(digest)))
    }

    /// Puts small bytes under their digest, durably.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn put_bytes(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.blob_path(digest);
        if path.is_file() {
            return Ok(());
        }
        self.write_durably(&path, bytes)
    }

    /// Moves a finished upload, already synced, under its digest. Bytes that lie there are replaced: these are known
    /// to be right.
    ///
    /// # Errors
    /// The rename fails.
    pub fn adopt(&self, upload: &Path, digest: &Digest) -> io::Result<()> {
        let path = self.blob_path(digest);
        make_parent(&path)?;
        std::fs::rename(upload, &path)?;
        sync_parent(&path)
    }

    fn unpacked_path(&self, blob: &Digest) -> PathBuf {
        self.root.join("registry/unpacked").join(blob.to_string())
    }

    /// What a blob was found to unpack to.
    pub fn diff_id_of(&self, blob: &Digest) -> Option<DiffId> {
        let text = std::fs::read_to_string(self.unpacked_path(blob)).ok()?;
        text.parse().ok()
    }

    /// Notes what a blob was found to unpack to. A note that is lost costs another look at the blob.
    pub fn note_diff_id(&self, blob: &Digest, diff_id: &DiffId) {
        let path = self.unpacked_path(blob);
        let note = || -> io::Result<()> {
            make_parent(&path)?;
            let mut file = tempfile::NamedTempFile::new_in(self.uploads())?;
            file.write_all(diff_id.to_string().as_bytes())?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        if let Err(error) = note() {
            tracing::warn!("note what {blob} unpacks to: {error}");
        }
    }

    /// Notes that a manifest speaks of `subject`.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn add_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
        descriptor: &[u8],
    ) -> io::Result<()> {
        self.write_durably(
            &self
                .referrers_dir(repository, subject)
                .join(referrer.to_string()),
            descriptor,
        )
    }

    /// Forgets that a manifest speaks of `subject`.
    ///
    /// # Errors
    /// The note cannot be removed.
    pub fn remove_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> io::Result<()> {
        optional(std::fs::remove_file(
            self.referrers_dir(repository, subject)
                .join(referrer.to_string()),
        ))
        .map(drop)
    }

    /// The descriptors of what speaks of `subject`, in the order of their digests.
    ///
    /// # Errors
    /// The notes cannot be read.
    pub fn referrers(&self, repository: &Repository, subject: &Digest) -> io::Result<Vec<Vec<u8>>> {
        let Some(entries) = optional(std::fs::read_dir(self.referrers_dir(repository, subject)))?
        else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            // A name that is no digest is a write that did not end.
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<Digest>().is_ok())
            {
                names.push(entry.path());
            }
        }
        names.sort();
        let mut all = Vec::new();
        for name in names {
            all.extend(optional(std::fs::read(name))?);
        }
        Ok(all)
    }

    /// The signatures of a manifest that has no tree, in the order of their digests.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn signatures(
        &self,
        repository: &Repository,
        manifest: &Digest,
        limits: &Limits,
    ) -> io::Result<Vec<Bytes>> {
        let Some(entries) = optional(std::fs::read_dir(self.signatures_dir(repository, manifest)))?
        else {
            return Ok(Vec::new());
        };
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        paths.truncate(limits.signatures);
        let mut signatures = Vec::new();
        for path in paths {
            signatures.extend(optional(std::fs::read(path))?.map(Bytes::from));
        }
        Ok(signatures)
    }

    /// Keeps a signature of a manifest that has no tree, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add_signature(
        &self,
        repository: &Repository,
        manifest: &Digest,
        signature: &[u8],
    ) -> io::Result<()> {
        let name = Digest::of(Algorithm::Sha256, signature).hex();
        let directory = self.signatures_dir(repository, manifest);
        self.write_durably(&directory.join(name), signature)
    }

    /// The manifests that a repository has signatures of here, and when the last of each came.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn signed(&self, repository: &Repository) -> io::Result<Vec<(Digest, SystemTime)>> {
        let directory = self.repo(repository).join("signatures");
        let mut all = Vec::new();
        for name in list_dir(&directory)? {
            let Ok(digest) = name.parse() else { continue };
            // A rename into a directory is its last change.
            if let Some(metadata) = optional(std::fs::metadata(directory.join(&name)))? {
                all.push((digest, metadata.modified()?));
            }
        }
        Ok(all)
    }

    /// Forgets the signatures of a manifest that has no tree.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn remove_signatures(&self, repository: &Repository, manifest: &Digest) -> io::Result<()> {
        let directory = self.signatures_dir(repository, manifest);
        optional(std::fs::remove_dir_all(directory)).map(drop)
    }

    /// Temporary file, sync, rename, sync of the directory: old or new after any cut. The temporary file stands among
    /// the uploads, where the next start removes it if this one dies.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        make_parent(path)?;
        let mut file = tempfile::NamedTempFile::new_in(self.uploads())?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_parent(path)
    }

    fn signatures_dir(&self, repository: &Repository, manifest: &Digest) -> PathBuf {
        self.repo(repository)
            .join("signatures")
            .join(manifest.to_string())
    }

    fn referrers_dir(&self, repository: &Repository, subject: &Digest) -> PathBuf {
        self.repo(repository)
            .join("referrers")
            .join(subject.to_string())
    }
}

/// The names in a directory, in no order; none if it is not there.
pub fn list_dir(path: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = optional(std::fs::read_dir(path))? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// "Not there" as `None`.
pub fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_dirs(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), make_dirs)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
