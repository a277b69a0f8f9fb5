// SPDX-License-Identifier: Apache-2.0
//! Sealing contents with fs-verity, so that the kernel itself refuses changed bytes whenever they are read.
//!
//! A sealed file can be deleted and renamed but never written again; its digest is its object id. An
//! image counts as sealed when its EROFS file and every object that it needs are: mounts then make
//! the kernel compare all of them.

use super::{Ingest, IngestError, Inner};
use crate::contents::objects_of;
use crate::error::{Doing as _, StoreError};
use crate::layout::{self, object_name};
use crate::open::Seal;
use crate::record::{ImageRecord, RecordContent, encode};
use gantry_layer::tree::Tree;
use gantry_oci::{ManifestDigest, ObjectId};
use gantry_sys::publish;
use gantry_sys::root::RootDir;
use gantry_sys::verity::{self, Enabled};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Files sealed at once: sealing waits for the disk.
const THREADS: usize = 8;

impl Ingest {
    /// Asks whether this store's file system can seal, with a file of one byte.
    ///
    /// # Errors
    /// [`StoreError::NoVerity`] if it cannot.
    pub fn can_seal(&self) -> Result<(), StoreError> {
        let inner = self.inner.as_ref();
        let action = || "try fs-verity".to_owned();
        let dir = &inner.staging.dir;
        publish::write_new_file(dir, b"verity", layout::PUBLIC_FILE, b"x").doing(action)?;
        let file = dir.open_file(b"verity").doing(action)?;
        let enabled = verity::enable(&file).doing(action)?;
        dir.remove_file(b"verity").doing(action)?;
        match enabled {
            Enabled::Sealed => Ok(()),
            Enabled::Unsupported => Err(inner.cannot_seal()),
        }
    }

    /// Seals an image that is in the store, and says so in its record; `false` if it was sealed already, or has
    /// nothing that could be.
    ///
    /// # Errors
    /// [`StoreError::NoVerity`]; [`StoreError::NotFound`] for what is not here.
    pub fn seal_image(&self, digest: &ManifestDigest) -> Result<bool, IngestError> {
        let inner = self.inner.as_ref();
        let _quiet = inner.quiesce();
        let record = inner.store.image(digest)?;
        let mut record = record.ok_or_else(|| StoreError::NotFound {
            what: format!("image {digest}"),
        })?;
        let RecordContent::Image(facts) = &mut record.content else {
            return Ok(false);
        };
        if facts.sealed || !facts.faces.composefs {
            return Ok(false);
        }
        facts.sealed = true;
        let tree = inner.store.tree(&record)?;
        let image = inner.store.dir(&format!("{}/{digest}", layout::DIGESTS))?;
        let sealed = inner.seal_all(&objects_of(&tree))? && inner.seal_erofs(&image)?;
        if !sealed {
            return Err(inner.cannot_seal().into());
        }
        inner.replace_record(&image, &record)?;
        Ok(true)
    }
}

impl Inner {
    /// Seals what an image consists of, if the store's images are sealed; says whether it is sealed now.
    pub(super) fn seal_tree(&self, tree: &Tree, image: &RootDir) -> Result<bool, IngestError> {
        let seal = self.store.seal();
        if seal == Seal::Off {
            return Ok(false);
        }
        let sealed = self.seal_all(&objects_of(tree))? && self.seal_erofs(image)?;
        if !sealed && seal == Seal::Require {
            return Err(self.cannot_seal().into());
        }
        Ok(sealed)
    }

    /// Seals what a repair brought: it replaces what was sealed.
    pub(super) fn seal_staged(&self) -> Result<(), IngestError> {
        let staged: BTreeSet<ObjectId> = self.state().staged.iter().copied().collect();
        self.seal_all(&staged)?;
        Ok(())
    }

    fn cannot_seal(&self) -> StoreError {
        StoreError::NoVerity {
            what: format!("store {}", self.store.path().display()),
        }
    }

    fn seal_erofs(&self, image: &RootDir) -> Result<bool, StoreError> {
        let file = image
            .open_file(layout::IMAGE_EROFS.as_bytes())
            .doing(|| "open metadata image".to_owned())?;
        let enabled = verity::enable(&file).doing(|| "seal metadata image".to_owned())?;
        Ok(enabled == Enabled::Sealed)
    }

    /// Seals objects, staged or published; `false` as soon as one cannot be.
    fn seal_all(&self, objects: &BTreeSet<ObjectId>) -> Result<bool, StoreError> {
        let objects: Vec<&ObjectId> = objects.iter().collect();
        let next = AtomicUsize::new(0);
        let unsupported = AtomicBool::new(false);
        let work = || -> Result<(), StoreError> {
            while !unsupported.load(Ordering::Relaxed) {
                let Some(id) = objects.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let file = self.object(id)?;
                let enabled = verity::enable(&file).doing(|| format!("seal object {id}"))?;
                if enabled == Enabled::Unsupported {
                    unsupported.store(true, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS.min(objects.len()))
                .map(|_| scope.spawn(work))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(StoreError::Io {
                        action: "seal objects".to_owned(),
                        source: std::io::Error::other("a thread panicked"),
                    })
                })
            })
        })?;
        Ok(!unsupported.into_inner())
    }

    fn object(&self, id: &ObjectId) -> Result<File, StoreError> {
        match self.objects.open_file(object_name(id).as_bytes()) {
            Err(error) if error.is(rustix::io::Errno::NOENT) => self.store.object(id),
            other => other.doing(|| format!("open object {id}")),
        }
    }

    fn replace_record(&self, image: &RootDir, record: &ImageRecord) -> Result<(), StoreError> {
        let temporary = format!(".record-{}", crate::open::random_id()?);
        publish::atomic_write(
            image,
            layout::RECORD_JSON.as_bytes(),
            temporary.as_bytes(),
            layout::PUBLIC_FILE,
            &encode(record)?,
        )
        .doing(|| format!("write record of {}", record.digest))
    }
}
