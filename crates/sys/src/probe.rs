// SPDX-License-Identifier: Apache-2.0
//! What this kernel can do, asked once and handed to whoever plans.

use crate::mount::Fs;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd as _;

/// Facts about the running kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelFeatures {
    /// Major and minor version.
    pub version: (u32, u32),
    /// `openat2(2)` (5.6, unless a filter hides it).
    pub openat2: bool,
    /// This process may mount.
    pub can_mount: bool,
    /// EROFS is known, or can be loaded.
    pub erofs: bool,
    /// EROFS mounts from a plain file (6.12, an option of the kernel's configuration).
    pub erofs_from_file: bool,
    /// Overlay is known, or can be loaded.
    pub overlay: bool,
    /// Overlay has data-only lower layers (6.5).
    pub overlay_data_only: bool,
    /// Overlay takes `lowerdir+` and `datadir+` (6.7).
    pub overlay_layer_by_layer: bool,
    /// Overlay takes layers as descriptors (6.13).
    pub overlay_layer_fd: bool,
    /// Overlay can be made to compare fs-verity digests (6.6).
    pub overlay_verity: bool,
}

impl KernelFeatures {
    /// Asks the kernel. Changes nothing; may load the modules of the two file systems.
    #[must_use]
    pub fn probe() -> Self {
        let version = version();
        let overlay = Fs::open("overlay");
        let erofs = Fs::open("erofs");
        let root = rustix::fs::open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        // Layers are looked up when they are configured, so asking needs no mount.
        let by_layer = overlay
            .as_ref()
            .is_ok_and(|fs| fs.set("lowerdir+", b"/").is_ok());
        let by_fd = by_layer
            && root.is_ok_and(|root| {
                Fs::open("overlay").is_ok_and(|fs| fs.set_fd("lowerdir+", root.as_fd()).is_ok())
            });
        Self {
            version,
            openat2: has_openat2(),
            can_mount: !matches!(&overlay, Err(error) if error.is(Errno::PERM)),
            erofs: erofs.is_ok(),
            erofs_from_file: erofs.is_ok() && version >= (6, 12),
            overlay: overlay.is_ok(),
            overlay_data_only: overlay.is_ok() && version >= (6, 5),
            overlay_layer_by_layer: by_layer,
            overlay_layer_fd: by_fd,
            overlay_verity: overlay
                .as_ref()
                .is_ok_and(|fs| fs.set("verity", b"require").is_ok()),
        }
    }

    /// True when a composefs image can be mounted here.
    #[must_use]
    pub fn can_mount_composefs(&self) -> bool {
        self.can_mount && self.erofs && self.overlay_data_only
    }
}

fn version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn has_openat2() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, ".", flags, Mode::empty(), ResolveFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_survive_the_way_to_another_process() {
        let features = KernelFeatures::probe();
        assert!(features.version.0 >= 4, "{features:?}");
        let text = serde_json::to_string(&features).unwrap();
        assert_eq!(
            serde_json::from_str::<KernelFeatures>(&text).unwrap(),
            features
        );
    }
}
