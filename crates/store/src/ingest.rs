// SPDX-License-Identifier: Apache-2.0
//! Bringing an image into the store: the only way that anything becomes visible.
//!
//! ```text
//!  Store::begin ─▶ Ingest
//!     claim(diffID) ─▶ Held                      the store has it; no byte is needed
//!                   └▶ Wanted(LayerClaim)        ours to write; others wait
//!                        LayerClaim::unpack      digest, inflate │ tar, diffID, object ids │ write
//!     commit_image                               merge, EROFS, hard links → one syncfs → publish
//! ```
//!
//! Order of publishing, so that a kill or a power cut at any point leaves the old state or the new:
//! contents are synced; objects, variants and layer records get their names; the image's directory
//! is renamed into place and its parent synced; names move last.
//!
//! A repair ([`crate::repair`]) is an ingest that replaces what it was told is damaged rather than
//! take it for what its name says.
//!
//! Locks here save duplicate work only. One layer is unpacked by one ingest at a time, over all
//! processes of all hosts; whoever waits for another while holding layers of its own publishes
//! those first, and does the work itself rather than wait in a circle.

mod commit;
mod pipe;
mod publish;
mod restore;
mod seal;
pub(crate) mod staging;
mod unpack;
pub(crate) mod writer;

use crate::error::{Doing as _, StoreError};
use crate::layout::{self, layer_name, object_name};
use crate::open::{Store, ensure_dir};
use crate::record::Faces;
use gantry_image::VerifiedBlob;
use gantry_layer::changes::Changeset;
use gantry_layer::compress::DecompressError;
use gantry_oci::{DiffId, Digest, Kind, ObjectId};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::root::RootDir;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use staging::Staging;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use commit::CommitImage;
pub use unpack::BlobForm;

/// Held shared by every ingest, exclusively by whoever deletes.
pub(crate) const COLLECT_LOCK: &str = "collect";
/// How often a waiter looks whether a layer's writer is done.
const POLL: Duration = Duration::from_millis(20);
/// How long somebody who holds claims of its own waits for another before doing the work twice.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an ingest makes.
#[derive(Debug, Clone, Copy, Default)]
pub struct IngestOptions {
    /// The faces that each committed image gets.
    pub faces: Faces,
}

/// Why bytes from outside could not become an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob broke off, or is not what its descriptor says, or does not decompress.
    #[error("read blob of layer {diff_id}")]
    Blob {
        /// The layer.
        diff_id: DiffId,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The tar cannot be unpacked.
    #[error("unpack layer {diff_id}")]
    Unpack {
        /// The layer.
        diff_id: DiffId,
        /// The cause.
        #[source]
        source: gantry_layer::tar::ReadLayerError,
    },
    /// The tar is another than the configuration says.
    #[error("unpack layer {expected}: its diffID is {found}")]
    WrongDiffId {
        /// What the configuration says.
        expected: DiffId,
        /// What was unpacked.
        found: Digest,
    },
    /// Contents could not be written.
    #[error("write contents of layer {diff_id}")]
    Write {
        /// The layer.
        diff_id: DiffId,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An earlier write failed; what is staged cannot be trusted any more.
    #[error("commit: an earlier write failed")]
    Poisoned,
    /// The layers do not fit together.
    #[error("merge layer {diff_id}")]
    Merge {
        /// The layer.
        diff_id: DiffId,
        /// The cause.
        #[source]
        source: gantry_layer::merge::MergeError,
    },
    /// The configuration cannot be read, or is another than the manifest says.
    #[error("read configuration of {manifest}: {why}")]
    Config {
        /// The manifest.
        manifest: Digest,
        /// What is wrong.
        why: String,
        /// Coarse reason.
        kind: Kind,
    },
    /// A layer of the manifest was neither unpacked nor known.
    #[error("commit {manifest}: layer {diff_id} is missing")]
    MissingLayer {
        /// The manifest.
        manifest: Digest,
        /// The layer.
        diff_id: DiffId,
    },
    /// The manifest describes something else than an image.
    #[error("commit {manifest}: {why}")]
    NotAnImage {
        /// The manifest.
        manifest: Digest,
        /// What it is.
        why: String,
    },
}

impl IngestError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Blob { source, .. } => blob_kind(source),
            Self::Unpack { source, .. } => source.kind(),
            Self::WrongDiffId { .. } => Kind::Corrupt,
            Self::Write { source, .. } => Kind::of_io(source),
            Self::Poisoned => Kind::Unavailable,
            Self::Merge { source, .. } => source.kind(),
            Self::Config { kind, .. } => *kind,
            Self::MissingLayer { .. } => Kind::NotFound,
            Self::NotAnImage { .. } => Kind::Unsupported,
        }
    }
}

fn blob_kind(error: &io::Error) -> Kind {
    let inner = error.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<DecompressError>()) {
        return error.kind();
    }
    match gantry_image::error::kind_of_io(error) {
        // What decompressors say of damaged data.
        Kind::InvalidInput | Kind::Internal => Kind::Corrupt,
        kind => kind,
    }
}

/// What is known of a layer after it was unpacked, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// The layer.
    pub diff_id: DiffId,
    /// Files whose contents were new to the store.
    pub new_files: u64,
    /// Bytes of those contents.
    pub new_bytes: u64,
    /// The proof that the bytes were what they claimed to be.
    pub blob: VerifiedBlob,
}

/// The answer to "do you need this layer?".
#[derive(Debug)]
pub enum Claim {
    /// The store, or this ingest, has it.
    Held,
    /// It is the caller's to bring.
    Wanted(LayerClaim),
}

/// The right to bring one layer; dropping it lets others.
#[derive(Debug)]
pub struct LayerClaim {
    ingest: Ingest,
    diff_id: DiffId,
    lock: Option<OfdLock>,
}

/// A transaction that brings images in. Dropping the last handle gives up what was not committed.
///
/// Cheap to clone; its methods may run on many threads at once.
#[derive(Debug, Clone)]
pub struct Ingest {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    store: Store,
    pub(crate) options: IngestOptions,
    /// Contents that are being staged.
    pub(crate) objects: RootDir,
    locks: RootDir,
    /// Opened before the first write, so that syncing reports every lost page.
    sync: RootDir,
    umask: u32,
    may_chown: bool,
    sync_each: bool,
    big_files: AtomicU64,
    state: Mutex<State>,
    /// Read by whoever writes contents, written by whoever publishes them.
    quiet: RwLock<()>,
    // Dropped in this order: the directory goes while deletion by others is still held off.
    staging: Staging,
    _collect: OfdLock,
}

#[derive(Default)]
struct State {
    /// Contents written by this ingest and not yet published.
    staged: HashSet<ObjectId>,
    /// Objects of the store with the right name and the wrong contents: to be replaced.
    damaged: HashSet<ObjectId>,
    /// Layers whose records are to be replaced, whatever stands there.
    renewed: HashSet<DiffId>,
    finished: HashMap<DiffId, FinishedLayer>,
    claims: usize,
    poisoned: bool,
    serial: u64,
}

struct FinishedLayer {
    /// Taken by the first commit that merges it; a later one reads the record.
    changes: Option<Changeset>,
    /// Set until the layer's record is published.
    lock: Option<OfdLock>,
    published: bool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("store", &self.store.path())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Begins to bring images in.
    ///
    /// # Concurrency
    /// Waits while somebody collects garbage.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]; the kernel's refusal.
    pub fn begin(&self, options: IngestOptions) -> Result<Ingest, StoreError> {
        self.begin_replacing(options, HashSet::new())
    }

    /// Begins an ingest to which these objects are not what their names say.
    pub(crate) fn begin_replacing(
        &self,
        options: IngestOptions,
        damaged: HashSet<ObjectId>,
    ) -> Result<Ingest, StoreError> {
        self.must_be_writable(|| "begin an ingest".to_owned())?;
        let action = || "begin an ingest".to_owned();
        let locks = ensure_dir(&self.inner.root, layout::LOCKS, layout::PRIVATE)?;
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::NOFOLLOW;
        let file = locks
            .open(COLLECT_LOCK.as_bytes(), flags, layout::PRIVATE_FILE)
            .doing(action)?;
        let collect = OfdLock::lock(file, LockMode::Shared).doing(action)?;
        let staging = Staging::create(self)?;
        let inner = Inner {
            store: self.clone(),
            options,
            objects: staging.subdir(layout::OBJECTS)?,
            locks,
            sync: self.inner.root.open_dir(b".").doing(action)?,
            umask: umask(),
            may_chown: rustix::process::geteuid().is_root(),
            sync_each: gantry_sys::publish::is_network_file_system(&self.inner.root)
                .doing(action)?,
            big_files: AtomicU64::new(0),
            state: Mutex::new(State {
                damaged,
                ..State::default()
            }),
            quiet: RwLock::new(()),
            staging,
            _collect: collect,
        };
        Ok(Ingest {
            inner: Arc::new(inner),
        })
    }

    /// Whether the store can give this layer's tar, and so needs no blob for it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn has_layer(&self, diff_id: &DiffId) -> Result<bool, StoreError> {
        let path = format!("{}/{}", layout::LAYERS, layer_name(diff_id));
        self.inner
            .root
            .stat(path.as_bytes())
            .map(|found| found.is_some())
            .doing(|| format!("look for layer {diff_id}"))
    }
}

/// The process's mask, without changing it: `umask(2)` can only set. All bits if it cannot be told.
fn umask() -> u32 {
    let status = gantry_sys::proc::Proc::open().and_then(|proc| proc.read("self/status"));
    status
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o777)
}

/// The file whose lock says that somebody brings this layer.
fn lock_name(diff_id: &DiffId) -> String {
    format!(
        "layer-{}-{}",
        diff_id.digest().algorithm().name(),
        diff_id.hex()
    )
}

impl Ingest {
    /// The store that it brings images into.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Asks for a layer before any byte of it is fetched.
    ///
    /// # Concurrency
    /// Waits while another ingest (of any process) unpacks the same layer, and then mostly answers
    /// [`Claim::Held`]. Publishes what this ingest has finished if it must wait, so that two
    /// ingests never wait for each other.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn claim(&self, diff_id: DiffId) -> Result<Claim, IngestError> {
        let since = Instant::now();
        let name = lock_name(&diff_id);
        loop {
            if self.inner.state().finished.contains_key(&diff_id)
                || self.inner.store.has_layer(&diff_id)?
            {
                return Ok(Claim::Held);
            }
            let lock = OfdLock::try_lock_at(&self.inner.locks, &name, LockMode::Exclusive)
                .doing(|| format!("lock layer {diff_id}"))?;
            if let Some(lock) = lock {
                // Published between the look and the lock.
                if self.inner.store.has_layer(&diff_id)? {
                    lock.remove(&self.inner.locks, &name).ok();
                    return Ok(Claim::Held);
                }
                return Ok(Claim::Wanted(self.wanted(diff_id, Some(lock))));
            }
            let holds_claims = self.inner.state().claims > 0;
            if holds_claims && since.elapsed() > PATIENCE {
                return Ok(Claim::Wanted(self.wanted(diff_id, None)));
            }
            self.inner.publish_finished_if_quiet()?;
            std::thread::sleep(POLL);
        }
    }

    fn wanted(&self, diff_id: DiffId, lock: Option<OfdLock>) -> LayerClaim {
        self.inner.state().claims += 1;
        LayerClaim {
            ingest: self.clone(),
            diff_id,
            lock,
        }
    }
}

impl LayerClaim {
    /// The layer.
    #[must_use]
    pub fn diff_id(&self) -> DiffId {
        self.diff_id
    }
}

impl Drop for LayerClaim {
    fn drop(&mut self) {
        self.ingest.inner.state().claims -= 1;
        if let Some(lock) = self.lock.take() {
            self.ingest.inner.release(&self.diff_id, lock);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two field updates leaves nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, diff_id: &DiffId, lock: OfdLock) {
        let name = lock_name(diff_id);
        if let Err(error) = lock.remove(&self.locks, &name) {
            tracing::debug!(%error, "lock file stays");
        }
    }

    /// Decides whether contents are to be written: true for the first who asks about contents that
    /// the store lacks.
    fn stages(&self, id: &ObjectId, size_bytes: u64) -> io::Result<bool> {
        {
            let mut state = self.state();
            if state.staged.contains(id) {
                return Ok(false);
            }
            if state.damaged.contains(id) {
                return Ok(state.staged.insert(*id));
            }
        }
        let path = format!("{}/{}", layout::OBJECTS, object_name(id));
        let damaged =
            match rustix::fs::statat(&self.store.inner.root, path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if u64::try_from(stat.st_size) == Ok(size_bytes) => return Ok(false),
                Ok(_) => true,
                Err(Errno::NOENT) => false,
                Err(errno) => return Err(errno.into()),
            };
        let mut state = self.state();
        if damaged {
            state.damaged.insert(*id);
        }
        Ok(state.staged.insert(*id))
    }

    fn next_big_name(&self) -> String {
        format!("big-{}", self.big_files.fetch_add(1, Ordering::Relaxed))
    }
}
