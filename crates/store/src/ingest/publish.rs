// SPDX-License-Identifier: Apache-2.0
//! Staged things get their names.

use super::{IngestError, Inner};
use crate::error::{Doing as _, StoreError};
use crate::layout::{self, layer_name, parse_object_name};
use crate::open::ensure_dir;
use gantry_oci::{DiffId, ObjectId};
use gantry_sys::publish::{self, Published};
use gantry_sys::root::RootDir;
use std::collections::HashSet;
use std::sync::{PoisonError, TryLockError};

impl Inner {
    /// Publishes the finished layers if nobody is writing contents right now; a waiter calls this.
    pub(super) fn publish_finished_if_quiet(&self) -> Result<(), IngestError> {
        let quiet = match self.quiet.try_write() {
            Ok(quiet) => quiet,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let unpublished = self.state().finished.values().any(|layer| !layer.published);
        if unpublished {
            self.sync()?;
            self.publish_contents()?;
        }
        drop(quiet);
        Ok(())
    }

    /// Waits for every write of this ingest; after that nothing writes until the guard goes.
    pub(super) fn quiesce(&self) -> std::sync::RwLockWriteGuard<'_, ()> {
        self.quiet.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one sync of a commit.
    pub(super) fn sync(&self) -> Result<(), IngestError> {
        if self.state().poisoned {
            return Err(IngestError::Poisoned);
        }
        if self.sync_each {
            return Ok(());
        }
        let outcome = publish::sync_file_system(&self.sync);
        if outcome.is_err() {
            // Pages may be gone: nothing staged may be trusted or synced again.
            self.state().poisoned = true;
        }
        Ok(outcome.doing(|| format!("sync store {}", self.store.path().display()))?)
    }

    /// Gives names to objects, variants and layer records, in this order.
    pub(super) fn publish_contents(&self) -> Result<(), IngestError> {
        let root = &self.store.inner.root;
        let replaced: HashSet<ObjectId> = {
            let state = self.state();
            state.damaged.intersection(&state.staged).copied().collect()
        };
        let objects = ensure_dir(root, layout::OBJECTS, layout::PUBLIC)?;
        self.publish_fans(&self.objects, &objects, &replaced)?;
        if let Ok(staged) = self.staging.dir.open_dir(layout::VARIANTS.as_bytes()) {
            let variants = ensure_dir(root, layout::VARIANTS, layout::PUBLIC)?;
            self.publish_fans(&staged, &variants, &HashSet::new())?;
        }
        {
            // From here on the store's own objects answer.
            let mut state = self.state();
            state.staged.clear();
            state.damaged.retain(|id| !replaced.contains(id));
        }
        self.publish_layers()?;
        self.order_before_records()?;
        Ok(())
    }

    fn publish_fans(
        &self,
        staged: &RootDir,
        target: &RootDir,
        damaged: &HashSet<ObjectId>,
    ) -> Result<(), StoreError> {
        let action = || "publish objects".to_owned();
        for fan in staged.list(b".").doing(action)? {
            if fan.len() != 2 {
                continue;
            }
            // A whole directory at once, if it is the first of its name.
            if publish::rename_noreplace(staged, &fan, target, &fan).doing(action)?
                == Published::New
            {
                if self.sync_each {
                    let published = target.open_dir(&fan).doing(action)?;
                    publish::sync_dir(&published).doing(action)?;
                }
                continue;
            }
            let from = staged.open_dir(&fan).doing(action)?;
            let to = target.open_dir(&fan).doing(action)?;
            for name in from.list(b".").doing(action)? {
                let replace =
                    parse_object_name(&fan, &name).is_some_and(|id| damaged.contains(&id));
                if replace {
                    publish::rename(&from, &name, &to, &name).doing(action)?;
                } else {
                    // Somebody else's equal object is as good as ours.
                    publish::rename_noreplace(&from, &name, &to, &name).doing(action)?;
                }
            }
            if self.sync_each {
                publish::sync_dir(&to).doing(action)?;
            }
        }
        if self.sync_each {
            publish::sync_dir(target).doing(action)?;
        }
        Ok(())
    }

    fn publish_layers(&self) -> Result<(), StoreError> {
        let unpublished: Vec<DiffId> = self
            .state()
            .finished
            .iter()
            .filter(|(_, layer)| !layer.published)
            .map(|(diff_id, _)| *diff_id)
            .collect();
        if unpublished.is_empty() {
            return Ok(());
        }
        let staged = self.staging.subdir(layout::LAYERS)?;
        let layers = ensure_dir(&self.store.inner.root, layout::LAYERS, layout::PUBLIC)?;
        for diff_id in unpublished {
            let name = layer_name(&diff_id);
            let action = || format!("publish layer {diff_id}");
            if self.state().renewed.remove(&diff_id) {
                publish::rename(&staged, name.as_bytes(), &layers, name.as_bytes())
                    .doing(action)?;
            } else {
                publish::rename_noreplace(&staged, name.as_bytes(), &layers, name.as_bytes())
                    .doing(action)?;
            }
            let lock = self.state().finished.get_mut(&diff_id).and_then(|layer| {
                layer.published = true;
                layer.lock.take()
            });
            if let Some(lock) = lock {
                self.release(&diff_id, lock);
            }
        }
        publish::sync_dir(&layers).doing(|| "publish layers".to_owned())
    }

    /// Makes sure that no record can survive a power cut that its contents' names did not.
    ///
    /// ext4 and XFS log changes of names in the order in which they were made, and syncing a
    /// directory flushes that log; elsewhere another sync of the file system says so for sure.
    fn order_before_records(&self) -> Result<(), StoreError> {
        const EXT4: i64 = 0xef53;
        const XFS: i64 = 0x5846_5342;
        if self.sync_each {
            return Ok(());
        }
        let action = || "order names before records".to_owned();
        let stat = rustix::fs::fstatfs(&self.sync).doing(action)?;
        if stat.f_type == EXT4 || stat.f_type == XFS {
            return Ok(());
        }
        publish::sync_file_system(&self.sync).doing(action)
    }
}
