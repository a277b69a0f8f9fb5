// SPDX-License-Identifier: Apache-2.0
//! How an image becomes a root file system.
//!
//! The store only plans; mounting happens in the process that will hold the mount.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::open::Store;
use crate::record::ImageRecord;
use gantry_sys::rootfs::{RootfsLower, RootfsPlan, RootfsUpper};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Which face serves a root file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FaceChoice {
    /// composefs where the image has it and the kernel can mount it, else hard links.
    #[default]
    Best,
    /// composefs or nothing.
    Composefs,
    /// Hard links or nothing.
    Hardlink,
}

/// Whether the kernel compares contents with their digests whenever they are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DigestChoice {
    /// Where the image is sealed and the kernel can.
    #[default]
    Best,
    /// In any case, or there is no mount.
    Require,
}

impl Store {
    /// Plans the root file system of an image; an index stands for its image of this platform.
    ///
    /// # Errors
    /// [`StoreError::NoFace`] if no face of the image can serve here.
    pub fn rootfs_plan(
        &self,
        record: &ImageRecord,
        choice: FaceChoice,
        digests: DigestChoice,
        upper: Option<RootfsUpper>,
    ) -> Result<RootfsPlan, StoreError> {
        let record = self.as_image(record.clone())?;
        let digest = record.digest;
        let no_face = |why: &str| StoreError::NoFace {
            digest: *digest.digest(),
            why: why.to_owned(),
        };
        let facts = record.image().ok_or_else(|| no_face("it is an index"))?;
        let faces = facts.faces;
        let can_mount = || self.features().can_mount_composefs();
        let composefs = match choice {
            FaceChoice::Best => faces.composefs && (can_mount() || !faces.hardlink),
            FaceChoice::Composefs if !faces.composefs => {
                return Err(no_face("it has no composefs face"));
            }
            FaceChoice::Composefs => true,
            FaceChoice::Hardlink => false,
        };
        if !composefs && !faces.hardlink {
            return Err(no_face("it has no hard-link face"));
        }
        let sealed = facts.sealed && self.features().overlay_verity;
        if digests == DigestChoice::Require && !(composefs && sealed) {
            return Err(no_face(if !facts.sealed {
                "its contents are not sealed with fs-verity, as the policy wants; see \"gantry store seal\""
            } else if composefs {
                "the policy wants its digests compared on every read, which this kernel's overlay cannot do"
            } else {
                "the policy wants its digests compared on every read, which a tree of hard links cannot do"
            }));
        }
        let dir = self.path().join(layout::DIGESTS).join(digest.to_string());
        let lower = if composefs {
            RootfsLower::Composefs {
                image: dir.join(layout::IMAGE_EROFS),
                objects: vec![self.path().join(layout::OBJECTS)],
                verity: facts
                    .erofs
                    .filter(|_| sealed)
                    .map(|erofs| erofs.verity.digest().hex()),
            }
        } else {
            RootfsLower::Directory {
                path: dir.join(layout::ROOTFS),
            }
        };
        Ok(RootfsPlan { lower, upper })
    }

    /// Mounts an image read-only, detached, in the mount namespace of the caller.
    ///
    /// # Privileges
    /// `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// As [`rootfs_plan`](Self::rootfs_plan); the kernel's refusal.
    pub fn mount(
        &self,
        record: &ImageRecord,
        choice: FaceChoice,
        scratch: Option<&Path>,
    ) -> Result<OwnedFd, StoreError> {
        self.rootfs_plan(record, choice, DigestChoice::Best, None)?
            .mount(self.features(), scratch)
            .doing(|| format!("mount image {}", record.digest))
    }
}
