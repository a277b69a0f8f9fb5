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
use crate::verity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
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
        /// The fs-verity digest of the EROFS file, in hexadecimal: the kernel is made to refuse another file, and
        /// contents whose digests are not those that the file records. None asks for no digests.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verity: Option<String>,
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
                verity,
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
                let metadata = match verity {
                    None => mount::erofs(image, features)?.0,
                    Some(digest) => mount_sealed(image, digest, features)?,
                };
                self.overlay(
                    OverlayLayer::Detached(metadata.as_fd()),
                    objects,
                    verity.is_some(),
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

/// Mounts the EROFS file that has this digest, by the kernel's word.
fn mount_sealed(image: &Path, digest: &str, features: &KernelFeatures) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(image, flags, Mode::empty())
        .map_err(|errno| SysError::new("open", format!("{image:?}, O_RDONLY"), errno))?;
    let found = verity::measure(&file)?.map(|bytes| {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
        hex.collect::<String>()
    });
    if found.as_deref() != Some(digest) {
        let found = found.unwrap_or_else(|| "none".to_owned());
        let args = format!("{image:?}: fs-verity digest is {found}, not {digest}");
        return Err(SysError::new(
            "ioctl(FS_IOC_MEASURE_VERITY)",
            args,
            Errno::BADMSG,
        ));
    }
    // Whatever gets that name meanwhile: this very file.
    let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
    mount::erofs(Path::new(&opened), features).map(|(mount, _)| mount)
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
                verity: None,
            },
            upper: None,
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(
            text,
            r#"{"lower":{"kind":"composefs","image":"/s/digests/sha256:aa/image.erofs","objects":["/s/objects"]}}"#
        );
        assert_eq!(serde_json::from_str::<RootfsPlan>(&text).unwrap(), plan);
    }
}
