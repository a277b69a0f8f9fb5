// SPDX-License-Identifier: Apache-2.0
//! A container's root, mounted nowhere: for looking at from within one call.
//!
//! Nothing of it runs and nobody else sees it, so no policy is asked.

use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_runtime::container::Container;
use gantry_store::{DigestChoice, FaceChoice, RootfsUpper};
use gantry_sys::mount::set_read_only;
use gantry_sys::root::RootDir;
use rustix::fs::{Mode, OFlags};

use super::scratch::{Scratch, Snapshot};
use crate::commands::container::find::FoundImage;
use crate::context::Context;
use crate::exit::Failure;

/// The root of a container that wrote something.
pub struct View {
    /// The root, read-only.
    pub root: RootDir,
    /// Where the container's own files lie.
    pub upper: PathBuf,
    /// Goes after the root.
    _snapshot: Snapshot,
}

impl View {
    /// Opens it; `None` if the container has no writable layer, and so is its image.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn of(
        context: &Context,
        image: &FoundImage,
        container: &Container,
    ) -> Result<Option<Self>, Failure> {
        let Some(snapshot) = Snapshot::of(container)? else {
            return Ok(None);
        };
        if !rustix::process::geteuid().is_root() {
            let message = "it takes root to mount what a container wrote";
            return Err(Failure::message(Kind::Denied, message).hint("use sudo"));
        }
        let upper = RootfsUpper {
            upper: snapshot.upper().to_owned(),
            work: snapshot.work(),
        };
        let scratch = Scratch::new(context)?;
        let mount = image
            .store
            .rootfs_plan(
                &image.record,
                FaceChoice::Best,
                DigestChoice::Best,
                Some(upper),
            )?
            .mount(image.store.features(), Some(scratch.path()))?;
        set_read_only(&mount)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&mount, ".", flags, Mode::empty())
            .map_err(|errno| Failure::from(std::io::Error::from(errno)))?;
        Ok(Some(Self {
            root: RootDir::from_fd(root),
            upper: snapshot.upper().to_owned(),
            _snapshot: snapshot,
        }))
    }
}
