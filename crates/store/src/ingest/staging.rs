// SPDX-License-Identifier: Apache-2.0
//! A private place for work that nobody sees yet.
//!
//! `staging/<boot id>/<id>/` belongs to whoever holds the lock on its file `lock`. A directory
//! whose lock is free has lost its owner, by a kill or a power cut, and is reclaimed by the next
//! process that opens the store, of this host or another.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::open::{Store, ensure_dir, random_id};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::root::{RootDir, remove_tree};
use std::os::fd::AsFd as _;

/// Guards the moment between the making of a staging directory and the locking of its lock.
const GUARD: &str = "staging";

/// A staging directory; deleted when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) dir: RootDir,
    parent: RootDir,
    id: String,
    /// Dropped last: until then nobody else deletes.
    _lock: OfdLock,
}

impl Staging {
    pub(crate) fn create(store: &Store) -> Result<Self, StoreError> {
        let action = || "create staging directory".to_owned();
        let parent = format!("{}/{}", layout::STAGING, Store::boot_id()?);
        let parent = ensure_dir(&store.inner.root, &parent, layout::PRIVATE)?;
        let id = random_id()?;
        let guard = wait_for_guard(store)?;
        rustix::fs::mkdirat(&parent, id.as_str(), layout::PRIVATE).doing(action)?;
        let dir = parent.open_dir(id.as_bytes()).doing(action)?;
        let lock = OfdLock::try_lock_at(&dir, layout::LOCK, LockMode::Exclusive)
            .doing(action)?
            .ok_or_else(|| StoreError::Busy {
                action: action(),
                why: "a new lock is held".to_owned(),
            })?;
        drop(guard);
        Ok(Self {
            dir,
            parent,
            id,
            _lock: lock,
        })
    }

    /// Makes (or opens) a directory in here.
    pub(crate) fn subdir(&self, name: &str) -> Result<RootDir, StoreError> {
        ensure_dir(&self.dir, name, layout::PUBLIC)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be deleted now is reclaimed by the next open.
        if let Err(error) = remove_tree(self.parent.as_fd(), self.id.as_bytes()) {
            tracing::warn!(%error, "staging directory is left for the next open");
        }
    }
}

fn wait_for_guard(store: &Store) -> Result<OfdLock, StoreError> {
    let locks = ensure_dir(&store.inner.root, layout::LOCKS, layout::PRIVATE)?;
    let flags =
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::NOFOLLOW;
    let file = locks
        .open(GUARD.as_bytes(), flags, layout::PRIVATE_FILE)
        .doing(|| "open the staging lock".to_owned())?;
    OfdLock::lock(file, LockMode::Exclusive).doing(|| "take the staging lock".to_owned())
}

impl Store {
    /// Deletes staging directories whose owners are gone.
    pub(crate) fn reclaim_staging(&self) -> Result<(), StoreError> {
        for boot in self.list(layout::STAGING)? {
            let path = format!("{}/{boot}", layout::STAGING);
            let Ok(parent) = self.inner.root.open_dir(path.as_bytes()) else {
                continue;
            };
            let ids = parent.list(b".").doing(|| format!("list {path}"))?;
            for id in ids {
                self.reclaim_one(&parent, &id)?;
            }
            // Only a directory that is empty goes; somebody may be making one in it right now.
            rustix::fs::unlinkat(
                &self.inner.root,
                path.as_str(),
                rustix::fs::AtFlags::REMOVEDIR,
            )
            .ok();
        }
        Ok(())
    }

    fn reclaim_one(&self, parent: &RootDir, id: &[u8]) -> Result<(), StoreError> {
        let action = || format!("reclaim staging {}", String::from_utf8_lossy(id));
        let guard = wait_for_guard(self)?;
        let lock = match parent.open_dir(id) {
            Ok(dir) => match OfdLock::try_lock_at(&dir, layout::LOCK, LockMode::Exclusive) {
                Ok(Some(lock)) => Some(lock),
                Ok(None) => return Ok(()),
                Err(error) => return Err(error).doing(action),
            },
            Err(error) if error.is(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) if error.is(rustix::io::Errno::NOTDIR) => None,
            Err(error) => return Err(error).doing(action),
        };
        drop(guard);
        let outcome = remove_tree(parent.as_fd(), id);
        drop(lock);
        match outcome {
            Err(error) if !error.is(rustix::io::Errno::NOENT) => Err(error).doing(action),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::CreateOptions;

    #[test]
    fn live_staging_is_kept_and_dead_staging_reclaimed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let store = Store::create(&path, &CreateOptions::default()).unwrap();
        let live = Staging::create(&store).unwrap();
        let boot = path.join("staging").join(Store::boot_id().unwrap());
        let dead = boot.join("0123");
        std::fs::create_dir_all(dead.join("objects/aa")).unwrap();
        let other_boot = path.join("staging/another-boot/x");
        std::fs::create_dir_all(&other_boot).unwrap();
        drop(Store::open(&path).unwrap());
        assert!(!dead.exists());
        assert!(!other_boot.exists());
        assert!(boot.join(&live.id).exists());
        drop(live);
        drop(Store::open(&path).unwrap());
        assert_eq!(std::fs::read_dir(path.join("staging")).unwrap().count(), 0);
    }
}
