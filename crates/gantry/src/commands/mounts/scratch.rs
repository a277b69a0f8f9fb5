// SPDX-License-Identifier: Apache-2.0
//! Directories that a mount needs beside its place.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use gantry_runtime::container::Container;
use gantry_runtime::volume;
use gantry_sys::root::RootDir;

use crate::commands::container::launch::random_id;
use crate::context::Context;
use crate::exit::Failure;

/// An empty directory that kernels before 6.7 need for a moment.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(context: &Context) -> Result<Self, Failure> {
        let name = format!(".{}", random_id()?);
        let dir = context.runroot.join("mounts").join(name);
        make_dir(&dir)?;
        Ok(Self(dir))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An empty directory that stays does no harm.
        fs::remove_dir(&self.0).ok();
    }
}

/// A container's writable layer as it was; removed when dropped, unless it was kept.
pub(super) struct Snapshot {
    dir: PathBuf,
    upper: PathBuf,
    kept: bool,
}

impl Snapshot {
    /// Copies the layer of a container that runs; of one that has ended, the layer itself serves, beside a work directory of
    /// this mount's own. `None` if the container has no such layer.
    pub(super) fn of(container: &Container) -> Result<Option<Self>, Failure> {
        let Some(data_dir) = &container.home.data_dir else {
            return Ok(None);
        };
        let written = data_dir.join("upper");
        if !written.is_dir() {
            return Ok(None);
        }
        let dir = data_dir.join(format!("mount-{}", &random_id()?[..16]));
        make_dir(&dir.join("work"))?;
        let mut snapshot = Self {
            dir,
            upper: written,
            kept: false,
        };
        if container.status()?.is_alive() {
            let from = RootDir::open_trusted(&snapshot.upper)?;
            snapshot.upper = snapshot.dir.join("upper");
            make_dir(&snapshot.upper)?;
            let to = RootDir::open_trusted(&snapshot.upper)?;
            volume::copy_upper(&from, &to)?;
        }
        Ok(Some(snapshot))
    }

    pub(super) fn upper(&self) -> &Path {
        &self.upper
    }

    pub(super) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.kept {
            // What matters has been said; the container's own directory goes with the container.
            fs::remove_dir_all(&self.dir).ok();
        }
    }
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Failure::from(error).context(format!("create {}", dir.display())))
}
