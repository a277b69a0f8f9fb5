// SPDX-License-Identifier: Apache-2.0
//! Names that point at images, and finding images by them.
//!
//! A name is a relative symlink to a directory in `digests/`. Moving it is one rename, so a reader
//! (on any host) sees the old image or the new one. The link's text is parsed, never followed.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::name::{ImageName, Pointer};
use crate::open::{Store, random_id};
use crate::record::{ImageRecord, RecordContent, decode};
use gantry_oci::reference::LocalName;
use gantry_oci::{Host, ImageConfig, ManifestDigest, Reference};
use gantry_sys::publish;
use gantry_sys::root::{RootDir, type_at};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

/// Records grow with the number of layers, not with files.
const RECORD_MAX_BYTES: u64 = 4 << 20;
/// Components of a repository name; the grammar's 255 bytes allow no more.
const REPOSITORY_DEPTH_MAX: usize = 128;

/// A name and what it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The name.
    pub name: ImageName,
    /// Its target.
    pub digest: ManifestDigest,
}

impl Store {
    /// Lists every name, in order.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a link that does not lead into `digests/`; the kernel's refusal.
    pub fn names(&self) -> Result<Vec<NamedImage>, StoreError> {
        let mut found = Vec::new();
        let own = self.inner.root.open_dir(layout::IMAGES.as_bytes());
        self.collect_names(own, None, &mut found)?;
        for host in self.list(layout::REMOTES)? {
            let path = format!("{}/{host}", layout::REMOTES);
            let dir = self.inner.root.open_dir(path.as_bytes());
            self.collect_names(dir, Some(&host), &mut found)?;
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn collect_names(
        &self,
        base: gantry_sys::Result<RootDir>,
        host: Option<&str>,
        found: &mut Vec<NamedImage>,
    ) -> Result<(), StoreError> {
        let base = match base {
            Err(error) if error.is(Errno::NOENT) => return Ok(()),
            other => other.doing(|| "open the names of images".to_owned())?,
        };
        let mut open = vec![String::new()];
        while let Some(repository) = open.pop() {
            let here = if repository.is_empty() {
                "."
            } else {
                &repository
            };
            let dir = match base.open_dir(here.as_bytes()) {
                // Untagged meanwhile.
                Err(error) if error.is(Errno::NOENT) => continue,
                other => other.doing(|| format!("open {here}"))?,
            };
            let names = dir.list(b".").doing(|| format!("list {here}"))?;
            for name in names
                .into_iter()
                .filter_map(|name| String::from_utf8(name).ok())
            {
                match type_at(&dir, name.as_bytes()).doing(|| format!("stat {name}"))? {
                    Some(FileType::Directory)
                        if repository.split('/').count() < REPOSITORY_DEPTH_MAX =>
                    {
                        open.push(if repository.is_empty() {
                            name
                        } else {
                            format!("{repository}/{name}")
                        });
                    }
                    Some(FileType::Symlink) => {
                        let Some(parsed) = ImageName::from_path(host, &repository, &name) else {
                            continue;
                        };
                        if let Some(digest) = self.target(&parsed)? {
                            found.push(NamedImage {
                                name: parsed,
                                digest,
                            });
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What a name points at; `None` if there is no such name.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a link that does not lead into `digests/`.
    pub fn target(&self, name: &ImageName) -> Result<Option<ManifestDigest>, StoreError> {
        let path = format!("{}/{}", name.dir(), name.file());
        let target = match self.inner.root.read_link(path.as_bytes()) {
            // A repository stands there, not a tag.
            Err(error) if error.is(Errno::INVAL) => return Ok(None),
            other => other.doing(|| format!("read name {name}"))?,
        };
        let Some(target) = target else {
            return Ok(None);
        };
        parse_target(&target)
            .map(Some)
            .ok_or_else(|| StoreError::Corrupt {
                what: format!("name {name}"),
                why: format!(
                    "link {:?} leads elsewhere",
                    String::from_utf8_lossy(&target)
                ),
            })
    }

    /// Finds an image by one of the store's names; `None` if there is no such name.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the name or its record is damaged.
    pub fn resolve(&self, name: &ImageName) -> Result<Option<ImageRecord>, StoreError> {
        let digest = match (self.target(name)?, &name.pointer) {
            (Some(digest), _) => digest,
            // By digest the name need not exist, if the image does under this repository.
            (None, Pointer::Digest(digest)) if self.repository_has(name, digest)? => *digest,
            (None, _) => return Ok(None),
        };
        self.image(&digest)
    }

    /// Finds an image as a person names it: among the store's own names if the reference's host is
    /// the registry of this store, else among what was pulled.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_reference(
        &self,
        reference: &Reference,
    ) -> Result<Option<ImageRecord>, StoreError> {
        self.resolve(&self.name_for(reference))
    }

    /// The name that a reference has in this store.
    #[must_use]
    pub fn name_for(&self, reference: &Reference) -> ImageName {
        if self.registry() == Some(&reference.host) {
            ImageName::own(&LocalName {
                repository: reference.repository.clone(),
                tag: reference.tag.clone(),
                digest: reference.digest,
            })
        } else {
            ImageName::remote(reference)
        }
    }

    /// Lists the store's own repositories' names for `host`, or its own for none.
    fn repository_has(
        &self,
        name: &ImageName,
        digest: &ManifestDigest,
    ) -> Result<bool, StoreError> {
        let names = self.list(&name.dir())?;
        for file in names {
            let host = name.host.as_ref().map(Host::as_str);
            let Some(sibling) = ImageName::from_path(host, name.repository.as_str(), &file) else {
                continue;
            };
            let Some(target) = self.target(&sibling)? else {
                continue;
            };
            if target == *digest || self.index_holds(&target, digest)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn index_holds(
        &self,
        index: &ManifestDigest,
        digest: &ManifestDigest,
    ) -> Result<bool, StoreError> {
        let record = self.image(index)?;
        Ok(record.is_some_and(|record| match record.content {
            RecordContent::Index { present, .. } => present.contains(digest),
            RecordContent::Image(_) => false,
        }))
    }

    /// Lists every manifest and index of the store, named or not.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn digests(&self) -> Result<Vec<ManifestDigest>, StoreError> {
        let names = self.list(layout::DIGESTS)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The indexes here that list an image that is here, too.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a record is damaged.
    pub fn indexes_of(&self, image: &ManifestDigest) -> Result<Vec<ManifestDigest>, StoreError> {
        let mut indexes = Vec::new();
        for candidate in self.digests()? {
            let content = self.image(&candidate)?.map(|record| record.content);
            if let Some(RecordContent::Index { present, .. }) = content {
                indexes.extend(present.contains(image).then_some(candidate));
            }
        }
        Ok(indexes)
    }

    /// Loads the record of a manifest or index; `None` if it is not here.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the record is damaged.
    pub fn image(&self, digest: &ManifestDigest) -> Result<Option<ImageRecord>, StoreError> {
        let path = format!("{}/{digest}/{}", layout::DIGESTS, layout::RECORD_JSON);
        let Some(bytes) = self.read_small(&path, RECORD_MAX_BYTES)? else {
            return Ok(None);
        };
        let record: ImageRecord = decode(&bytes, &path)?;
        if record.digest != *digest {
            return Err(StoreError::Corrupt {
                what: path,
                why: format!("it is the record of {}", record.digest),
            });
        }
        Ok(Some(record))
    }

    /// Finds images by the beginning of their image ID or digest, as a person types it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a record is damaged.
    pub fn find_by_prefix(&self, prefix: &str) -> Result<Vec<ImageRecord>, StoreError> {
        let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        let mut found = Vec::new();
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(found);
        }
        for digest in self.digests()? {
            let Some(record) = self.image(&digest)? else {
                continue;
            };
            let by_id = record
                .image()
                .is_some_and(|facts| facts.image_id.hex().starts_with(hex));
            if by_id || digest.hex().starts_with(hex) {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Reads the exact bytes of a manifest or index; `None` if it is not here.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they do not have that digest.
    pub fn manifest(&self, digest: &ManifestDigest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = format!("{}/{digest}/{}", layout::DIGESTS, layout::MANIFEST_JSON);
        let Some(bytes) = self.read_small(&path, self.limits().manifest_bytes)? else {
            return Ok(None);
        };
        verify_bytes(&bytes, digest.digest(), &path)?;
        Ok(Some(bytes))
    }

    /// Reads the exact bytes of an image's configuration.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Corrupt`] if they do not have the recorded digest.
    pub fn config_bytes(&self, record: &ImageRecord) -> Result<Vec<u8>, StoreError> {
        let path = format!(
            "{}/{}/{}",
            layout::DIGESTS,
            record.digest,
            layout::CONFIG_JSON
        );
        let missing = || StoreError::NotFound {
            what: format!("configuration of {}", record.digest),
        };
        let facts = record.image().ok_or_else(missing)?;
        let bytes = self
            .read_small(&path, self.limits().config_bytes)?
            .ok_or_else(missing)?;
        verify_bytes(&bytes, facts.image_id.digest(), &path)?;
        Ok(bytes)
    }

    /// Reads the configuration with this digest, whichever image it belongs to.
    pub(crate) fn find_config(
        &self,
        digest: &gantry_oci::Digest,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        for manifest in self.digests()? {
            if let Some(record) = self.image(&manifest)?
                && record
                    .image()
                    .is_some_and(|facts| facts.image_id.digest() == digest)
            {
                return self.config_bytes(&record).map(Some);
            }
        }
        Ok(None)
    }

    /// Loads an image's configuration.
    ///
    /// # Errors
    /// As [`config_bytes`](Self::config_bytes).
    pub fn config(&self, record: &ImageRecord) -> Result<ImageConfig, StoreError> {
        let bytes = self.config_bytes(record)?;
        let layers = record.image().map_or(0, |facts| facts.layers.len());
        ImageConfig::parse(&bytes, layers, self.limits()).map_err(|source| StoreError::Layer {
            action: format!("read configuration of {}", record.digest),
            kind: source.kind(),
            source: source.into(),
        })
    }

    /// Follows an index to the image for this host's platform.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if that image is not here.
    pub fn as_image(&self, record: ImageRecord) -> Result<ImageRecord, StoreError> {
        let RecordContent::Index { chosen, .. } = &record.content else {
            return Ok(record);
        };
        let missing = || StoreError::NotFound {
            what: format!("an image of index {} for this platform", record.digest),
        };
        let chosen = chosen.ok_or_else(missing)?;
        self.image(&chosen)?.ok_or_else(missing)
    }

    /// Points a name at an image of the store, moving it if it exists.
    ///
    /// # Durability
    /// The name is on stable storage on return.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the image is not here; [`StoreError::Conflict`] if a repository
    /// has the name of the tag or a tag that of a repository.
    pub fn tag(&self, name: &ImageName, digest: &ManifestDigest) -> Result<(), StoreError> {
        self.must_be_writable(|| format!("tag {name}"))?;
        if self.image(digest)?.is_none() {
            return Err(StoreError::NotFound {
                what: format!("image {digest}"),
            });
        }
        self.place_name(name, digest)
    }

    pub(crate) fn place_name(
        &self,
        name: &ImageName,
        digest: &ManifestDigest,
    ) -> Result<(), StoreError> {
        let conflict = |why: &str| StoreError::Conflict {
            what: format!("name {name}"),
            why: why.to_owned(),
        };
        let path = name.dir();
        let dir = match self.inner.root.ensure_dir(path.as_bytes(), layout::PUBLIC) {
            Err(error) if error.is(Errno::NOTDIR) || error.is(Errno::LOOP) => {
                return Err(conflict("a tag stands where its repository would"));
            }
            other => other.doing(|| format!("create name {name}"))?,
        };
        let up = "../".repeat(path.split('/').count());
        let target = format!("{up}{}/{digest}", layout::DIGESTS);
        let temporary = format!(".{}", random_id()?);
        match publish::replace_symlink(
            &dir,
            name.file().as_bytes(),
            temporary.as_bytes(),
            target.as_bytes(),
        ) {
            Err(error) if error.is(Errno::ISDIR) || error.is(Errno::NOTEMPTY) => {
                return Err(conflict("a repository stands where the tag would"));
            }
            other => other.doing(|| format!("create name {name}"))?,
        }
        // The directories on the way may be new.
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            let dir = self.dir(parent)?;
            publish::sync_dir(&dir).doing(|| format!("create name {name}"))?;
            above = parent;
        }
        Ok(())
    }

    /// Removes a name; false if there was none. The image stays until it is removed or collected.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn untag(&self, name: &ImageName) -> Result<bool, StoreError> {
        self.must_be_writable(|| format!("untag {name}"))?;
        if self.target(name)?.is_none() {
            return Ok(false);
        }
        let path = name.dir();
        let action = || format!("remove name {name}");
        let removed = self
            .inner
            .root
            .remove_file(format!("{path}/{}", name.file()).as_bytes())
            .doing(action)?;
        if let Ok(dir) = self.inner.root.open_dir(path.as_bytes()) {
            publish::sync_dir(&dir).doing(action)?;
        }
        // Empty directories go too, as far up as they are empty.
        let mut here = path.as_str();
        while let Some((parent, last)) = here.rsplit_once('/') {
            let Ok(dir) = self.inner.root.open_dir(parent.as_bytes()) else {
                break;
            };
            if rustix::fs::unlinkat(&dir, last, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            here = parent;
        }
        Ok(removed)
    }
}

fn verify_bytes(bytes: &[u8], digest: &gantry_oci::Digest, what: &str) -> Result<(), StoreError> {
    let found = gantry_oci::Digest::of(digest.algorithm(), bytes);
    if found == *digest {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        what: what.to_owned(),
        why: format!("its digest is {found}"),
    })
}

/// `../../digests/<alg>:<hex>` and nothing else.
fn parse_target(target: &[u8]) -> Option<ManifestDigest> {
    let mut rest = std::str::from_utf8(target).ok()?;
    while let Some(up) = rest.strip_prefix("../") {
        rest = up;
    }
    rest.strip_prefix(layout::DIGESTS)?
        .strip_prefix('/')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_into_digests_count() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let good = format!("../../digests/{digest}");
        assert_eq!(parse_target(good.as_bytes()), digest.parse().ok());
        for bad in ["/etc", "../../digests/x", "digests/", "../digests/../x"] {
            assert_eq!(parse_target(bad.as_bytes()), None, "{bad}");
        }
    }
}
