// SPDX-License-Identifier: Apache-2.0
//! The plan of a container's root file system, and its application.
//!
//! The store makes a [`RootfsPlan`] (plain data); the monitor, in its private mount namespace,
//! carries it out:
//!
//! ```text
//! RootfsPlan ──mount()──▶ detached mount ──mount::attach()──▶ bundle/rootfs
//! ```
//!
//! Without an upper directory the root is read-only. Device nodes of an image never work: the
//! container's `/dev` is made by the OCI runtime.

use crate::error::{Result, SysError};
use crate::mount::{self, Overlay, OverlayLayer};
use crate::probe::KernelFeatures;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// How a root file system is put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootfsPlan {
    /// The image's own files.
    pub lower: RootfsLower,
    /// Where changes go; none makes the root read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<RootfsUpper>,
}

/// The read-only part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RootfsLower {
    /// An EROFS file that holds all metadata, and directories that hold the contents.
    Composefs {
        /// The EROFS file.
        image: PathBuf,
        /// Object directories, searched in order.
        objects: Vec<PathBuf>,
        /// Let the kernel refuse contents whose fs-verity digest is not the recorded one.
        #[serde(default)]
        require_verity: bool,
    },
    /// A complete tree.
    Directory {
        /// Its root.
        path: PathBuf,
    },
}

/// The writable part, on a file system of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootfsUpper {
    /// Holds the changes.
    pub upper: PathBuf,
    /// Empty, same file system.
    pub work: PathBuf,
}

impl RootfsPlan {
    /// Mounts the plan, detached.
    ///
    /// `scratch` is an empty directory that older kernels need for a moment; see
    /// [`Overlay::scratch`].
    ///
    /// # Privileges
    /// `CAP_SYS_ADMIN`; the mount namespace should be private.
    ///
    /// # Errors
    /// The kernel's refusal; `ENOTSUP` when it lacks what the plan needs.
    pub fn mount(&self, features: &KernelFeatures, scratch: Option<&Path>) -> Result<OwnedFd> {
        match &self.lower {
            RootfsLower::Composefs {
                image,
                objects,
                require_verity,
            } => {
                if !features.can_mount_composefs() {
                    let args = format!("{image:?}: no EROFS, or overlay without data-only layers");
                    let errno = if features.can_mount {
                        Errno::NOTSUP
                    } else {
                        Errno::PERM
                    };
                    return Err(SysError::new("mount", args, errno));
                }
                let (metadata, _) = mount::erofs(image, features)?;
                self.overlay(
                    OverlayLayer::Detached(metadata.as_fd()),
                    objects,
                    *require_verity,
                    features,
                    scratch,
                )
            }
            RootfsLower::Directory { path } if self.upper.is_none() => {
                let clone = mount::clone_mount(path, false)?;
                mount::set_read_only(&clone)?;
                Ok(clone)
            }
            RootfsLower::Directory { path } => {
                self.overlay(OverlayLayer::Path(path), &[], false, features, scratch)
            }
        }
    }

    fn overlay(
        &self,
        lower: OverlayLayer<'_>,
        objects: &[PathBuf],
        require_verity: bool,
        features: &KernelFeatures,
        scratch: Option<&Path>,
    ) -> Result<OwnedFd> {
        let overlay = Overlay {
            lower: vec![lower],
            data: objects.iter().map(PathBuf::as_path).collect(),
            upper: self
                .upper
                .as_ref()
                .map(|upper| (upper.upper.as_path(), upper.work.as_path())),
            require_verity,
            scratch,
        };
        mount::overlay(&overlay, features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_is_plain_json() {
        let plan = RootfsPlan {
            lower: RootfsLower::Composefs {
                image: "/s/digests/sha256:aa/image.erofs".into(),
                objects: vec!["/s/objects".into()],
                require_verity: false,
            },
            upper: None,
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(
            text,
            r#"{"lower":{"kind":"composefs","image":"/s/digests/sha256:aa/image.erofs","objects":["/s/objects"],"require_verity":false}}"#
        );
        assert_eq!(serde_json::from_str::<RootfsPlan>(&text).unwrap(), plan);
    }
}
