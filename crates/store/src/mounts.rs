// SPDX-License-Identifier: Apache-2.0
//! Mounts that outlive the command that made them.
//!
//! ```text
//! RUNROOT/mounts/
//!   lock            held (OFD) while anything here is changed
//!   ID.json         one mount: what, where, which mount it is, how often it was asked for
//!   ID/             where it is, unless the caller named a directory
//! ```
//!
//! The record is written before the mount is attached and removed after it is gone. Both the record and the lease
//! that keeps an image from being collected carry the same id, so whatever a kill leaves is found and cleaned by the
//! next call: a record whose mount is not there any more has ended, however it ended.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use gantry_oci::ManifestDigest;
use gantry_sys::Errno;
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::mounted::{self, MountId};
use gantry_sys::root::RootDir;
use gantry_sys::{SysError, mount, publish};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::error::{Doing as _, StoreError};
use crate::lease::Owner;
use crate::open::{Store, random_id};

const RECORD_MAX_BYTES: u64 = 64 << 10;
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
/// The process whose life is the boot's: a mount has no process of its own.
const INIT: u32 = 1;

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mounted {
    /// An image.
    Image(ManifestDigest),
    /// The root of a container that does not run, by its id.
    Container(String),
    /// The root of a running container as its programs see it, by its id.
    Live(String),
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountRecord {
    /// By which it can be named.
    pub id: String,
    /// As the operator spelled it.
    pub asked: String,
    /// What it is.
    pub what: Mounted,
    /// The store that has the image.
    pub store: PathBuf,
    /// Whether a lease in that store holds the image.
    pub leased: bool,
    /// Where it is.
    pub target: PathBuf,
    /// Whether the directory is ours and goes with the mount.
    pub own_target: bool,
    /// Which mount it is.
    pub mount: MountId,
    /// The mount namespace that it is in.
    pub namespace: u64,
    /// How often it was asked for, and not given back.
    pub count: u32,
    /// A directory that serves this mount alone and goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
}

/// What shall be mounted, and where.
#[derive(Debug)]
pub struct MountRequest<'a> {
    /// As the operator spelled it.
    pub asked: &'a str,
    /// What it is.
    pub what: Mounted,
    /// The store that has the image.
    pub store: &'a Store,
    /// The image to keep from being collected.
    pub image: ManifestDigest,
    /// Where, if the caller has a place.
    pub target: Option<&'a Path>,
    /// A directory that serves this mount alone and shall go with it.
    pub scratch: Option<PathBuf>,
}

/// The mounts of this host.
#[derive(Debug, Clone)]
pub struct Mounts {
    dir: PathBuf,
}

/// The right to change what is mounted, and the list as it is.
#[derive(Debug)]
pub struct LockedMounts<'a> {
    mounts: &'a Mounts,
    dir: RootDir,
    namespace: u64,
    records: Vec<MountRecord>,
    _lock: OfdLock,
}

impl Mounts {
    /// Names the place; nothing is touched.
    #[must_use]
    pub fn new(runroot: &Path) -> Self {
        Self {
            dir: runroot.join("mounts"),
        }
    }

    /// Lists what is mounted, without cleaning up.
    ///
    /// # Errors
    /// A damaged record, the kernel's refusal.
    pub fn list(&self) -> Result<Vec<MountRecord>, StoreError> {
        let dir = match RootDir::open_trusted(&self.dir) {
            Err(error) if error.is(Errno::NOENT) => return Ok(Vec::new()),
            other => other.doing(|| "list mounts".to_owned())?,
        };
        let here = mounted::namespace_id().doing(|| "list mounts".to_owned())?;
        let mut records = self.read(&dir)?;
        let mut outcome = Ok(());
        records.retain(|record| match record.ended(here) {
            Ok(ended) => !ended,
            Err(error) => {
                outcome = Err(error);
                true
            }
        });
        outcome.map(|()| records)
    }

    /// Takes the right to change what is mounted, and cleans up after those that were killed and
    /// those that called `umount`.
    ///
    /// # Errors
    /// A damaged record, the kernel's refusal.
    pub fn lock(&self) -> Result<LockedMounts<'_>, StoreError> {
        let action = || "list mounts".to_owned();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE_DIR)
            .create(&self.dir)
            .doing(|| format!("create directory {}", self.dir.display()))?;
        let dir = RootDir::open_trusted(&self.dir).doing(action)?;
        let path = self.dir.join("lock");
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .doing(|| format!("open {}", path.display()))?;
        let lock = OfdLock::lock(file.into(), LockMode::Exclusive).doing(action)?;
        let mut locked = LockedMounts {
            mounts: self,
            namespace: mounted::namespace_id().doing(action)?,
            records: self.read(&dir)?,
            dir,
            _lock: lock,
        };
        locked.sweep()?;
        Ok(locked)
    }

    fn read(&self, dir: &RootDir) -> Result<Vec<MountRecord>, StoreError> {
        let action = || "list mounts".to_owned();
        let mut records = Vec::new();
        for name in dir.list(b".").doing(action)? {
            if name.starts_with(b".") || !name.ends_with(b".json") {
                continue;
            }
            let path = self.dir.join(String::from_utf8_lossy(&name).as_ref());
            let bytes = match read_small(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.doing(|| format!("read {}", path.display()))?,
            };
            let record = serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt {
                what: format!("mount record {}", path.display()),
                why: error.to_string(),
            })?;
            records.push(record);
        }
        records.sort_by(|a: &MountRecord, b| a.target.cmp(&b.target));
        Ok(records)
    }
}

fn remove_tree(dir: &Path) -> Result<(), SysError> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Ok(());
    };
    match RootDir::open_trusted(parent) {
        Err(error) if error.is(Errno::NOENT) => Ok(()),
        other => other?.remove_all(name.as_encoded_bytes()).map(drop),
    }
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(RECORD_MAX_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl MountRecord {
    /// Whether the mount is not there any more. Of another namespace's nobody here can tell.
    fn ended(&self, here: u64) -> Result<bool, StoreError> {
        if self.namespace != here {
            return Ok(false);
        }
        let found = MountId::of_path(&self.target)
            .doing(|| format!("look for the mount at {}", self.target.display()))?;
        Ok(found != Some(self.mount))
    }
}

impl LockedMounts<'_> {
    /// What is mounted.
    #[must_use]
    pub fn records(&self) -> &[MountRecord] {
        &self.records
    }

    /// One more use of what is mounted at a place of ours already; `None` if it is not.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn again(&mut self, what: &Mounted) -> Result<Option<MountRecord>, StoreError> {
        let namespace = self.namespace;
        let same = |record: &&mut MountRecord| {
            record.own_target && record.namespace == namespace && record.what == *what
        };
        let Some(record) = self.records.iter_mut().find(same) else {
            return Ok(None);
        };
        record.count += 1;
        let record = record.clone();
        self.write(&record)?;
        Ok(Some(record))
    }

    /// Attaches a detached mount, and keeps its image from being collected until it is unmounted.
    ///
    /// # Errors
    /// The kernel's refusal; nothing stays then.
    pub fn attach(
        &mut self,
        mount: &OwnedFd,
        request: &MountRequest<'_>,
    ) -> Result<MountRecord, StoreError> {
        let id = random_id()?;
        let target = match request.target {
            Some(target) => target.to_owned(),
            None => self.mounts.dir.join(&id),
        };
        let action = || format!("mount {} at {}", request.asked, target.display());
        let record = MountRecord {
            id,
            asked: request.asked.to_owned(),
            what: request.what.clone(),
            store: request.store.path().to_owned(),
            leased: request.store.is_writable(),
            own_target: request.target.is_none(),
            mount: MountId::of_fd(mount).doing(action)?,
            namespace: self.namespace,
            count: 1,
            target: target.clone(),
            scratch: request.scratch.clone(),
        };
        self.write(&record)?;
        let attached = self.hold_and_attach(mount, request, &record);
        if attached.is_err() {
            // The first failure is the one to tell.
            self.forget(&record).ok();
        } else {
            self.records.push(record.clone());
        }
        attached.map(|()| record)
    }

    fn hold_and_attach(
        &self,
        mount: &OwnedFd,
        request: &MountRequest<'_>,
        record: &MountRecord,
    ) -> Result<(), StoreError> {
        let target = &record.target;
        if record.leased {
            let owner = Owner {
                label: format!("the mount at {}", target.display()),
                pid: INIT,
            };
            request
                .store
                .lease_as(&record.id, &request.image, owner, None)?;
        }
        if record.own_target {
            fs::DirBuilder::new()
                .mode(PRIVATE_DIR)
                .create(target)
                .doing(|| format!("create directory {}", target.display()))?;
        }
        mount::attach(mount, target)
            .doing(|| format!("mount {} at {}", request.asked, target.display()))
    }

    /// Gives one use back, and unmounts after the last; with `all`, whatever uses are left. With
    /// `detach` a mount that is in use disappears from its place and ends with its last user.
    ///
    /// True if it is unmounted.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if it is in use, or in another mount namespace.
    pub fn release(&mut self, id: &str, all: bool, detach: bool) -> Result<bool, StoreError> {
        let Some(at) = self.records.iter().position(|record| record.id == id) else {
            return Err(StoreError::NotFound {
                what: format!("mount {id}"),
            });
        };
        let mut record = self.records[at].clone();
        if record.count > 1 && !all {
            record.count -= 1;
            self.write(&record)?;
            self.records[at] = record;
            return Ok(false);
        }
        let action = || format!("unmount {}", record.target.display());
        let busy = |why: &str| StoreError::Busy {
            action: action(),
            why: why.to_owned(),
        };
        if record.namespace != self.namespace {
            return Err(busy("it is in another mount namespace"));
        }
        if detach {
            mount::unmount(&record.target).doing(action)?;
        } else if let Err(error) = mounted::unmount_unused(&record.target) {
            if error.is(Errno::BUSY) {
                return Err(busy("a program uses it"));
            }
            return Err(error).doing(action);
        }
        self.records.remove(at);
        self.forget(&record)?;
        Ok(true)
    }

    fn sweep(&mut self) -> Result<(), StoreError> {
        for record in std::mem::take(&mut self.records) {
            if record.ended(self.namespace)? {
                self.forget(&record)?;
            } else {
                self.records.push(record);
            }
        }
        Ok(())
    }

    /// Ends the lease, then what is known of the mount. A store that is gone has no lease.
    fn forget(&self, record: &MountRecord) -> Result<(), StoreError> {
        if record.leased {
            match Store::open(&record.store) {
                Ok(store) => drop(store.release(&record.id)?),
                Err(StoreError::NotAStore { .. } | StoreError::ReadOnly { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if record.own_target {
            match fs::remove_dir(&record.target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let action = || format!("remove directory {}", record.target.display());
                    return Err(error).doing(action);
                }
                _ => {}
            }
        }
        if let Some(scratch) = &record.scratch {
            remove_tree(scratch).doing(|| format!("remove {}", scratch.display()))?;
        }
        self.dir
            .remove_file(format!("{}.json", record.id).as_bytes())
            .map(drop)
            .doing(|| format!("forget the mount at {}", record.target.display()))
    }

    fn write(&self, record: &MountRecord) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record).map_err(|error| StoreError::Corrupt {
            what: format!("mount record {}", record.id),
            why: error.to_string(),
        })?;
        // Nothing is mounted after the next boot: the record need not survive a power cut.
        publish::atomic_write_volatile(
            &self.dir,
            format!("{}.json", record.id).as_bytes(),
            format!(".{}", record.id).as_bytes(),
            PRIVATE_FILE,
            &bytes,
        )
        .doing(|| format!("write down the mount at {}", record.target.display()))
    }
}
