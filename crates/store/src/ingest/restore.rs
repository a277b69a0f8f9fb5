// SPDX-License-Identifier: Apache-2.0
//! An ingest that mends: layers are brought although they are here, images made although they are here.
//!
//! What is damaged is never taken away before what replaces it is complete: objects and records are
//! replaced by a rename, an image's directory by an exchange of names. Only where the file system
//! cannot exchange names (NFS) is there a moment without the image.

use super::commit::{CommitImage, Placing};
use super::writer::create_in_fan;
use super::{Ingest, IngestError, Inner, LayerClaim, lock_name};
use crate::error::{Doing as _, StoreError};
use crate::layout::{self, object_name};
use crate::open::{Store, ensure_dir};
use crate::record::{Faces, ImageRecord};
use crate::trees::composefs;
use gantry_image::unverified::ManifestBytes;
use gantry_oci::{DiffId, ManifestDigest, ObjectId};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::publish::{self, Published};
use gantry_sys::root::RootDir;
use rustix::fs::{AtFlags, Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;

impl Ingest {
    /// Asks for a layer that the store has, to bring it again.
    ///
    /// # Concurrency
    /// Waits while another ingest unpacks the same layer.
    pub(crate) fn claim_again(&self, diff_id: DiffId) -> Result<LayerClaim, IngestError> {
        let inner = self.inner.as_ref();
        let name = lock_name(&diff_id);
        loop {
            let lock = OfdLock::try_lock_at(&inner.locks, &name, LockMode::Exclusive)
                .doing(|| format!("lock layer {diff_id}"))?;
            if let Some(lock) = lock {
                inner.state().renewed.insert(diff_id);
                return Ok(self.wanted(diff_id, Some(lock)));
            }
            inner.publish_finished_if_quiet()?;
            std::thread::sleep(super::POLL);
        }
    }

    /// Takes the contents of a damaged object from another store, if they are good there.
    ///
    /// # Errors
    /// The kernel's refusal; bytes that are not this object's are `false`, as is a store without it.
    pub(crate) fn take_object(&self, id: &ObjectId, peer: &Store) -> Result<bool, IngestError> {
        let inner = self.inner.as_ref();
        let mut theirs = match peer.object(id) {
            Ok(file) => file,
            Err(error) if error.kind() == gantry_oci::Kind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let action = || format!("copy object {id} from {}", peer.path().display());
        let name = object_name(id);
        let file = create_in_fan(&inner.objects, &name, 0o444).doing(action)?;
        let mut file = File::from(file);
        if composefs::copy(&mut theirs, &mut file)
            .doing(action)?
            .verity
            != *id
        {
            inner.objects.remove_file(name.as_bytes()).doing(action)?;
            return Ok(false);
        }
        inner.dress_as_before(&file, &name).doing(action)?;
        if inner.sync_each {
            file.sync_all().doing(action)?;
        }
        inner.state().staged.insert(*id);
        Ok(true)
    }

    /// The objects that this ingest was told are damaged and that nothing has replaced so far.
    pub(crate) fn still_damaged(&self) -> BTreeSet<ObjectId> {
        let state = self.inner.state();
        state.damaged.difference(&state.staged).copied().collect()
    }

    /// Publishes what was brought so far, sealed if other contents are.
    pub(crate) fn publish_now(&self, seal: bool) -> Result<(), IngestError> {
        let inner = self.inner.as_ref();
        let _quiet = inner.quiesce();
        if seal {
            inner.seal_staged()?;
        }
        inner.sync()?;
        inner.publish_contents()?;
        Ok(())
    }

    /// Moves damaged files out of the store; they are deleted with this ingest.
    pub(crate) fn set_aside(&self, path: &str) -> Result<(), StoreError> {
        let inner = self.inner.as_ref();
        let grave = {
            let mut state = inner.state();
            state.serial += 1;
            format!("damaged-{}", state.serial)
        };
        let moved = rustix::fs::renameat(
            &inner.store.inner.root,
            path,
            &inner.staging.dir,
            grave.as_str(),
        );
        match moved {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).doing(|| format!("set {path} aside")),
        }
    }

    /// Makes an image again from its layers, in place of what has its name.
    pub(crate) fn restore_image(
        &self,
        commit: &CommitImage<'_>,
        faces: Faces,
    ) -> Result<ImageRecord, IngestError> {
        let inner = self.inner.as_ref();
        let _quiet = inner.quiesce();
        let mut plan = inner.plan(commit)?;
        plan.former = None;
        plan.make = faces;
        plan.placing = Placing::Replace;
        inner.make_image(commit, &plan)
    }

    /// Makes an index again, in place of what has its name.
    pub(crate) fn restore_index(
        &self,
        index: &ManifestBytes,
        chosen: Option<ManifestDigest>,
    ) -> Result<ImageRecord, IngestError> {
        let inner = self.inner.as_ref();
        let _quiet = inner.quiesce();
        let record = inner.index_record(index, chosen)?;
        let stage = inner.stage_index(index, &record)?;
        inner.replace_image(&stage, &record.digest)?;
        Ok(record)
    }
}

impl Inner {
    /// Gives a staged object the owner, mode and time of the one that it replaces: hard-link trees
    /// that are made later find it fit or unfit by these.
    fn dress_as_before(&self, file: &File, name: &str) -> rustix::io::Result<()> {
        let path = format!("{}/{name}", layout::OBJECTS);
        let former: Stat =
            match rustix::fs::statat(&self.store.inner.root, path, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return rustix::fs::fchmod(file, Mode::from_raw_mode(0o444)),
                other => other?,
            };
        if self.may_chown {
            let (uid, gid) = (Uid::from_raw(former.st_uid), Gid::from_raw(former.st_gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(
            file,
            Mode::from_raw_mode(former.st_mode & 0o777) | Mode::from_raw_mode(0o444),
        )?;
        let nanoseconds = u32::try_from(former.st_mtime_nsec).unwrap_or(0);
        rustix::fs::futimens(file, &super::writer::times(former.st_mtime, nanoseconds))
    }

    /// Puts a staged directory in the place of the image's; signatures that are good move along.
    pub(super) fn replace_image(
        &self,
        stage: &RootDir,
        digest: &ManifestDigest,
    ) -> Result<(), StoreError> {
        let action = || format!("replace image {digest}");
        let digests = ensure_dir(&self.store.inner.root, layout::DIGESTS, layout::PUBLIC)?;
        let name = layout::digest_name(digest);
        let serial = self.stage_name();
        let (staged, name) = (serial.as_bytes(), name.as_bytes());
        let former = digests.stat(name).doing(action)?.is_some();
        if former {
            let old = digests.open_dir(name).doing(action)?;
            carry_signatures(&old, stage).doing(action)?;
            let staging = &self.staging.dir;
            if !publish::exchange(staging, staged, &digests, name).doing(action)? {
                let grave = format!("former-{serial}");
                publish::rename(&digests, name, staging, grave.as_bytes()).doing(action)?;
                publish::rename(staging, staged, &digests, name).doing(action)?;
            }
            // What was signed between the two looks.
            carry_signatures(&old, stage).doing(action)?;
        } else {
            let placed = publish::rename_noreplace(&self.staging.dir, staged, &digests, name)
                .doing(action)?;
            if placed == Published::Existed {
                return Err(StoreError::Busy {
                    action: action(),
                    why: "somebody else brings it".to_owned(),
                });
            }
        }
        publish::sync_dir(&digests).doing(action)
    }
}

/// Links the signatures of one directory of an image into another's. They are named by their
/// digests, so that a damaged one is noticed by whoever reads it.
fn carry_signatures(from: &RootDir, to: &RootDir) -> gantry_sys::Result<()> {
    let signatures = layout::SIGNATURES.as_bytes();
    if from.stat(signatures)?.is_none() {
        return Ok(());
    }
    let from = from.open_dir(signatures)?;
    let to = to.ensure_dir(signatures, layout::PUBLIC)?;
    let of = layout::OF.as_bytes();
    if from.stat(of)?.is_some() {
        let (from, to) = (from.open_dir(of)?, to.ensure_dir(of, layout::PUBLIC)?);
        for repository in from.list(b".")? {
            let own = to.ensure_dir(&repository, layout::PUBLIC)?;
            link_all(&from.open_dir(&repository)?, &own)?;
        }
        publish::sync_dir(&to)?;
    }
    link_all(&from, &to)
}

fn link_all(from: &RootDir, to: &RootDir) -> gantry_sys::Result<()> {
    for name in from.list(b".")? {
        if name == layout::OF.as_bytes() {
            continue;
        }
        match rustix::fs::linkat(from, &name[..], to, &name[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
            Err(errno) => {
                return Err(gantry_sys::SysError::new(
                    "linkat",
                    "a signature".to_owned(),
                    errno,
                ));
            }
        }
    }
    publish::sync_dir(to)
}
