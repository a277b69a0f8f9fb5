// SPDX-License-Identifier: Apache-2.0
//! The signatures that stand beside an image, as bytes.
//!
//! ```text
//! digests/<alg>:<hex>/signatures/<sha256 of the signature>
//!                                of/<repository, / as +>/<sha256 of the signature>
//! ```
//!
//! Those on top came with a pull or were made here. A registry keeps what was
//! pushed apart by repository: one image may be in many, and who may push to one
//! of them takes no places in another.
//!
//! They come and go without the image's record: one is added when somebody
//! signs, whenever that is, and all go with the image's directory. A file's
//! name is the digest of its bytes, so that adding is idempotent and a reader
//! needs no lock. What they say is nobody's business here.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::open::{Store, ensure_dir};
use bytes::Bytes;
use gantry_image::SignatureBlob;
use gantry_oci::{Algorithm, Digest, ManifestDigest, Repository};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::publish;
use gantry_sys::root::RootDir;
use rustix::fs::OFlags;

/// Held, in `locks/`, by who adds signatures to whatever image.
const LOCK: &str = "signatures";
/// The format of a signature without a frame.
const UNFRAMED: &str = "simple-signing";
/// Stands for `/` in a repository's name, which cannot have it.
const SLASH: char = '+';

impl Store {
    /// Reads the signatures of a manifest or an index: those on top, then in turns one of each
    /// repository, as many as the limits allow.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one is damaged, or if there are more on top than the limits allow.
    pub fn signatures(&self, digest: &ManifestDigest) -> Result<Vec<SignatureBlob>, StoreError> {
        let mut all = self.read_signatures(&directory(digest, None))?;
        let mut repositories = Vec::new();
        for directory in self.signature_directories(digest)? {
            repositories.push(self.read_signatures(&directory)?.into_iter());
        }
        while all.len() < self.limits().signatures && !repositories.is_empty() {
            let room = self.limits().signatures - all.len();
            let turn: Vec<_> = repositories.iter_mut().filter_map(Iterator::next).collect();
            if turn.is_empty() {
                break;
            }
            for signature in turn.into_iter().take(room) {
                add_new(&mut all, signature);
            }
        }
        Ok(all)
    }

    /// Reads what belongs to an image under a repository's name: the signatures that were pushed there, then those on top.
    ///
    /// # Errors
    /// As [`signatures`](Self::signatures).
    pub fn signatures_of(
        &self,
        digest: &ManifestDigest,
        repository: &Repository,
    ) -> Result<Vec<SignatureBlob>, StoreError> {
        let mut all = self.read_signatures(&directory(digest, Some(repository)))?;
        for signature in self.read_signatures(&directory(digest, None))? {
            add_new(&mut all, signature);
        }
        Ok(all)
    }

    fn read_signatures(&self, directory: &str) -> Result<Vec<SignatureBlob>, StoreError> {
        let limits = *self.limits();
        let mut signatures = Vec::new();
        for name in self.signature_names(directory)? {
            let path = format!("{directory}/{name}");
            if signatures.len() == limits.signatures {
                return Err(StoreError::Corrupt {
                    what: directory.to_owned(),
                    why: format!("it has more than {} signatures", limits.signatures),
                });
            }
            // Removed with its image meanwhile.
            let Some(bytes) = self.read_small(&path, limits.signature_bytes)? else {
                continue;
            };
            let found = Digest::of(Algorithm::Sha256, &bytes).hex();
            if found != name {
                return Err(StoreError::Corrupt {
                    what: path,
                    why: format!("its digest is {found}"),
                });
            }
            signatures.push(blob(bytes.into()));
        }
        Ok(signatures)
    }

    /// Adds signatures to a manifest or an index that is here; those that it has are left.
    ///
    /// # Durability
    /// They are on stable storage on return.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without the image; [`StoreError::Conflict`] past the limits.
    pub fn add_signatures(
        &self,
        digest: &ManifestDigest,
        signatures: &[SignatureBlob],
    ) -> Result<(), StoreError> {
        self.add(digest, None, signatures)
    }

    /// The same for signatures that were pushed to a repository.
    ///
    /// # Errors
    /// As [`add_signatures`](Self::add_signatures).
    pub fn add_signatures_of(
        &self,
        digest: &ManifestDigest,
        repository: &Repository,
        signatures: &[SignatureBlob],
    ) -> Result<(), StoreError> {
        self.add(digest, Some(repository), signatures)
    }

    fn add(
        &self,
        digest: &ManifestDigest,
        repository: Option<&Repository>,
        signatures: &[SignatureBlob],
    ) -> Result<(), StoreError> {
        let action = || format!("add signatures to {digest}");
        self.must_be_writable(action)?;
        if signatures.is_empty() {
            return Ok(());
        }
        if self.image(digest)?.is_none() {
            return Err(StoreError::NotFound {
                what: format!("image {digest}"),
            });
        }
        // Held open: if the image is removed meanwhile, they go with it.
        let image = self
            .dir(layout::DIGESTS)?
            .open_dir(layout::digest_name(digest).as_bytes())
            .doing(action)?;
        let ensure = |dir: &RootDir, name: &str| {
            let dir = dir.ensure_dir(name.as_bytes(), layout::PUBLIC);
            dir.doing(action)
        };
        let mut dir = ensure(&image, layout::SIGNATURES)?;
        if let Some(repository) = repository {
            let all = ensure(&dir, layout::OF)?;
            let own = ensure(&all, &file_name(repository))?;
            publish::sync_dir(&dir).doing(action)?;
            publish::sync_dir(&all).doing(action)?;
            dir = own;
        }
        // Of two that add at once the later counts what the earlier added.
        let _counting = self.lock_signatures()?;
        let mut known = self.signature_names(&directory(digest, repository))?;
        let limits = self.limits();
        for signature in signatures {
            let name = Digest::of(Algorithm::Sha256, &signature.bytes).hex();
            if known.contains(&name) {
                continue;
            }
            let full = known.len() >= limits.signatures;
            if full || signature.bytes.len() as u64 > limits.signature_bytes {
                return Err(StoreError::Conflict {
                    what: format!("signature of {digest}"),
                    why: "an image has at most as many and as large ones as are read".to_owned(),
                });
            }
            let temporary = format!(".new-{}-{name}", std::process::id());
            dir.remove_file(temporary.as_bytes()).doing(action)?;
            publish::atomic_write(
                &dir,
                name.as_bytes(),
                temporary.as_bytes(),
                layout::PUBLIC_FILE,
                &signature.bytes,
            )
            .doing(action)?;
            known.push(name);
        }
        publish::sync_dir(&image).doing(action)
    }

    /// The files that are named as signatures and are none, with what is wrong with each.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn damaged_signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut paths = Vec::new();
        let mut directories = vec![directory(digest, None)];
        directories.extend(self.signature_directories(digest)?);
        for directory in directories {
            let names = self.signature_names(&directory)?;
            paths.extend(
                names
                    .into_iter()
                    .map(|name| (format!("{directory}/{name}"), name)),
            );
        }
        let mut damaged = Vec::new();
        for (path, name) in paths {
            match self.read_small(&path, self.limits().signature_bytes) {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    let found = Digest::of(Algorithm::Sha256, &bytes).hex();
                    if found != name {
                        damaged.push((path, format!("its digest is {found}")));
                    }
                }
                Err(StoreError::Corrupt { why, .. }) => damaged.push((path, why)),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// Puts signatures back to where they were lost from, if they are among those that were found elsewhere.
    ///
    /// # Errors
    /// As [`add_signatures`](Self::add_signatures).
    pub(crate) fn put_back_signatures(
        &self,
        digest: &ManifestDigest,
        lost: &[String],
        found: &[SignatureBlob],
    ) -> Result<(), StoreError> {
        for signature in found {
            let name = Digest::of(Algorithm::Sha256, &signature.bytes).hex();
            let signatures = std::slice::from_ref(signature);
            for path in lost.iter().filter(|path| path.ends_with(&name)) {
                let mut above = path.rsplit('/').skip(1);
                let repository = above.next().map(|name| name.replace(SLASH, "/"));
                let repository = repository.and_then(|name| name.parse().ok());
                match (above.next(), repository) {
                    (Some(layout::OF), Some(repository)) => {
                        self.add(digest, Some(&repository), signatures)?;
                    }
                    _ => self.add(digest, None, signatures)?,
                }
            }
        }
        Ok(())
    }

    fn lock_signatures(&self) -> Result<OfdLock, StoreError> {
        let action = || "take the lock on signatures".to_owned();
        let locks = ensure_dir(self.root(), layout::LOCKS, layout::PRIVATE)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        let file = locks
            .open(LOCK.as_bytes(), flags, layout::PRIVATE_FILE)
            .doing(action)?;
        OfdLock::lock(file, LockMode::Exclusive).doing(action)
    }

    /// The directories with what was pushed to repositories of a registry.
    fn signature_directories(&self, digest: &ManifestDigest) -> Result<Vec<String>, StoreError> {
        let all = self.list(&format!("{}/{}", directory(digest, None), layout::OF))?;
        let repositories = all
            .iter()
            .filter_map(|name| name.replace(SLASH, "/").parse::<Repository>().ok());
        Ok(repositories
            .map(|repository| directory(digest, Some(&repository)))
            .collect())
    }

    /// The names of complete signatures.
    fn signature_names(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        let names = self.list(directory)?;
        Ok(names.into_iter().filter(|name| is_name(name)).collect())
    }
}

fn directory(digest: &ManifestDigest, repository: Option<&Repository>) -> String {
    let name = layout::digest_name(digest);
    let top = format!("{}/{name}/{}", layout::DIGESTS, layout::SIGNATURES);
    match repository {
        Some(repository) => format!("{top}/{}/{}", layout::OF, file_name(repository)),
        None => top,
    }
}

/// A repository as one file name, and as short.
fn file_name(repository: &Repository) -> String {
    repository.as_str().replace('/', &SLASH.to_string())
}

fn add_new(all: &mut Vec<SignatureBlob>, signature: SignatureBlob) {
    if !all.iter().any(|known| known.bytes == signature.bytes) {
        all.push(signature);
    }
}

fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The frame begins with a zero and the format's name; without one it is a
/// simple signature.
fn blob(bytes: Bytes) -> SignatureBlob {
    let framed = bytes.strip_prefix(b"\0").and_then(|rest| {
        let end = rest.iter().take(64).position(|byte| *byte == b'\n')?;
        std::str::from_utf8(&rest[..end]).ok()
    });
    SignatureBlob {
        format: framed.unwrap_or(UNFRAMED).into(),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_names_the_format() {
        for (bytes, format) in [
            (&b"\xA3x"[..], "simple-signing"),
            (b"\0sigstore-json\n{}", "sigstore-json"),
            (b"\0no end", "simple-signing"),
            (b"", "simple-signing"),
        ] {
            assert_eq!(&*blob(Bytes::from_static(bytes)).format, format);
        }
    }
}
