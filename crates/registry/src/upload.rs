// SPDX-License-Identifier: Apache-2.0
//! Uploads: bytes that arrive, in one request or in several, until their
//! digest is known.
//!
//! ```text
//! POST ──▶ registry/uploads/<uuid>, empty
//! PATCH ──▶ longer, hashed as it comes     (as often as the client likes; also after a restart)
//! PUT ?digest= ──▶ compared, synced, moved to blobs/
//! DELETE, or a week without a word ──▶ removed
//! ```
//!
//! One request at a time writes to an upload; how far it is can be asked at any
//! time. An upload at rest costs a table entry and its file, no descriptor.
//!
//! The bytes go to a file as they arrive and are hashed on the way; nothing is
//! held in memory beyond one buffer. After a restart the file is there and the
//! hash is not: then the file is read once more at the end.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use gantry_oci::{Algorithm, Digest, Digester, Kind, Limits};
use http::StatusCode;
use tokio::sync::{Mutex, MutexGuard};

use crate::errors::{ApiError, Code};
use crate::serve::ClientLimits;
use crate::state::State;

/// How long an upload may rest before it is removed.
const REST: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often it is looked for such uploads.
const REAP_EVERY: Duration = Duration::from_secs(3600);
/// Bytes collected before they are hashed and written together.
const BATCH_BYTES: usize = 256 << 10;

/// A name of an upload: 32 hexadecimal digits that cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

impl UploadId {
    /// Makes a new one from the system's random source.
    ///
    /// # Errors
    /// The random source cannot be read.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// Reads one from a request.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An upload, shared by the requests that name it.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    /// What [`Upload`] has, to be read without waiting for a writer.
    size_bytes: AtomicU64,
    upload: Mutex<Upload>,
}

/// What a request that writes to an upload works on.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    size_bytes: u64,
    /// `None` if the file has bytes that this process did not hash.
    digester: Option<Digester>,
    /// The file was moved or removed: a request that waited has nothing left to write to.
    over: bool,
}

/// All uploads.
#[derive(Debug)]
pub struct Uploads {
    dir: PathBuf,
    limits: Limits,
    clients: ClientLimits,
    table: StdMutex<Table>,
}

#[derive(Debug)]
struct Table {
    slots: HashMap<UploadId, Arc<Slot>>,
    reaped: Instant,
}

fn slot(path: PathBuf, size_bytes: u64) -> Arc<Slot> {
    let digester = (size_bytes == 0).then(|| Digester::new(Algorithm::Sha256));
    Arc::new(Slot {
        size_bytes: AtomicU64::new(size_bytes),
        upload: Mutex::new(Upload {
            path: path.clone(),
            size_bytes,
            digester,
            over: false,
        }),
        path,
    })
}

impl Uploads {
    /// The uploads below `state`, also those that an earlier process started.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn new(state: &State, limits: Limits, clients: ClientLimits) -> io::Result<Self> {
        let dir = state.uploads();
        let mut slots = HashMap::new();
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            match entry.file_name().to_str().and_then(UploadId::parse) {
                Some(id) => drop(slots.insert(id, slot(entry.path(), entry.metadata()?.len()))),
                // A file that an earlier process was writing when it ended.
                None => std::fs::remove_file(entry.path())?,
            }
        }
        let uploads = Self {
            dir,
            limits,
            clients,
            table: StdMutex::new(Table {
                slots,
                reaped: Instant::now(),
            }),
        };
        reap(&mut uploads.table());
        Ok(uploads)
    }

    /// The same with other bounds on clients.
    #[must_use]
    pub fn with_clients(self, clients: ClientLimits) -> Self {
        Self { clients, ..self }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // A panic while the lock was held left the map as it was: every change is one call.
        self.table
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Starts one.
    ///
    /// # Errors
    /// Its file cannot be made, or there are too many.
    pub fn start(&self) -> Result<UploadId, ApiError> {
        let failed = |error: io::Error| ApiError::io("start an upload", &error);
        let id = UploadId::random().map_err(failed)?;
        let path = self.dir.join(id.as_str());
        let mut table = self.table();
        if table.reaped.elapsed() > REAP_EVERY {
            reap(&mut table);
        }
        if table.slots.len() >= self.clients.uploads {
            return Err(ApiError::new(
                Code::TooManyRequests,
                format!(
                    "{} uploads are in progress, and no more are allowed; end or cancel some",
                    table.slots.len()
                ),
            ));
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        table.slots.insert(id.clone(), slot(path, 0));
        Ok(id)
    }

    /// Finds one, also one that an earlier process started.
    pub fn find(&self, id: &UploadId) -> Option<Arc<Slot>> {
        self.table().slots.get(id).map(Arc::clone)
    }

    /// Gives up an upload: it and its file are gone.
    pub fn discard(&self, id: &UploadId, upload: &mut Upload) {
        upload.discard();
        self.table().slots.remove(id);
    }

    /// Forgets an upload that became a blob.
    fn forget(&self, id: &UploadId) {
        self.table().slots.remove(id);
    }

    /// Takes a request's body to its end. What arrived before the client broke off stays, so that it can go on from there.
    ///
    /// # Errors
    /// The client broke off or fell silent, sent more than a blob may have, or the disk is full: then the upload is
    /// gone, so that it does not hold the space that it asked for in vain.
    pub async fn append<S, E>(
        &self,
        id: &UploadId,
        slot: &Slot,
        upload: &mut Upload,
        body: S,
    ) -> Result<(), ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::error::Error,
    {
        let result = upload.append(body, &self.limits, self.clients.idle).await;
        slot.size_bytes.store(upload.size_bytes, Ordering::Relaxed);
        if matches!(&result, Err(error) if error.is_no_space()) {
            self.discard(id, upload);
        }
        result
    }

    /// Compares the digest and moves the bytes under it.
    ///
    /// # Durability
    /// The bytes and their name are on stable storage on return.
    ///
    /// # Errors
    /// The bytes have another digest (they are then removed), or the disk failed.
    pub fn finish(
        &self,
        id: &UploadId,
        upload: &mut Upload,
        digest: &Digest,
        state: &State,
    ) -> Result<(), ApiError> {
        let found = upload
            .digest(digest.algorithm())
            .map_err(|error| ApiError::io("read the upload back", &error))?;
        if found != *digest {
            self.discard(id, upload);
            return Err(ApiError::new(
                Code::DigestInvalid,
                format!("the bytes that arrived have digest {found}, not {digest}"),
            ));
        }
        File::open(&upload.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| state.adopt(&upload.path, digest))
            .map_err(|error| ApiError::io("keep the blob", &error))?;
        upload.over = true;
        self.forget(id);
        Ok(())
    }
}

/// Removes the uploads that nobody has written to for long, and that nobody writes to now.
fn reap(table: &mut Table) {
    table.reaped = Instant::now();
    table.slots.retain(|id, slot| {
        let Ok(mut upload) = slot.upload.try_lock() else {
            return true;
        };
        let age = std::fs::metadata(&slot.path)
            .and_then(|meta| meta.modified())
            .map(|modified| {
                SystemTime::now()
                    .duration_since(modified)
                    .unwrap_or_default()
            });
        match age {
            Ok(age) if age <= REST => true,
            Ok(_) => {
                tracing::info!(id = id.as_str(), "an upload rested too long");
                upload.discard();
                false
            }
            // Removed behind our back.
            Err(_) => false,
        }
    });
}

impl Slot {
    /// How many bytes have arrived.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// The right to write, once nobody else does.
    ///
    /// # Errors
    /// Another request goes on writing, or has ended the upload meanwhile.
    pub async fn lock(&self, patience: Duration) -> Result<MutexGuard<'_, Upload>, ApiError> {
        let upload = tokio::time::timeout(patience, self.upload.lock())
            .await
            .map_err(|_| {
                ApiError::new(
                    Code::TooManyRequests,
                    "another request is still writing to this upload; try again",
                )
            })?;
        if upload.over {
            return Err(unknown());
        }
        Ok(upload)
    }
}

/// The answer to the name of an upload that is over, or never was.
pub fn unknown() -> ApiError {
    ApiError::new(
        Code::BlobUploadUnknown,
        "there is no such upload; start it again",
    )
}

impl Upload {
    /// How many bytes have arrived.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn append<S, E>(
        &mut self,
        mut body: S,
        limits: &Limits,
        idle: Duration,
    ) -> Result<(), ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::error::Error,
    {
        // Opened by the first bytes: many requests have none.
        let mut file = None;
        let mut batch = Vec::new();
        loop {
            let chunk = match tokio::time::timeout(idle, body.next()).await {
                Ok(Some(Ok(chunk))) => Some(chunk),
                Ok(None) => None,
                Ok(Some(Err(error))) => {
                    self.write(&mut file, &mut batch)?;
                    tracing::debug!("upload broke off: {error}");
                    return Err(ApiError::new(
                        Code::BlobUploadInvalid,
                        "the connection broke before the upload's end",
                    ));
                }
                Err(_) => {
                    self.write(&mut file, &mut batch)?;
                    return Err(ApiError::new(
                        Code::BlobUploadInvalid,
                        format!("nothing arrived for {} seconds", idle.as_secs_f32()),
                    )
                    .with_status(StatusCode::REQUEST_TIMEOUT));
                }
            };
            let Some(chunk) = chunk else {
                return self.write(&mut file, &mut batch);
            };
            if self.size_bytes + (batch.len() + chunk.len()) as u64 > limits.blob_bytes {
                return Err(ApiError::new(
                    Code::SizeInvalid,
                    format!(
                        "the blob is larger than the {} bytes allowed",
                        limits.blob_bytes
                    ),
                )
                .with_status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            batch.extend_from_slice(&chunk);
            if batch.len() >= BATCH_BYTES {
                self.write(&mut file, &mut batch)?;
            }
        }
    }

    fn write(&mut self, file: &mut Option<File>, batch: &mut Vec<u8>) -> Result<(), ApiError> {
        if batch.is_empty() {
            return Ok(());
        }
        let result = tokio::task::block_in_place(|| {
            let file = match file {
                Some(file) => file,
                None => file.insert(OpenOptions::new().append(true).open(&self.path)?),
            };
            let written = file.write_all(batch);
            if written.is_err() {
                // Part of the batch may be in the file; cut it back to what was hashed.
                file.set_len(self.size_bytes)?;
            }
            written
        });
        result.map_err(|error| ApiError::io("write the upload", &error))?;
        if let Some(digester) = &mut self.digester {
            digester.update(batch);
        }
        self.size_bytes += batch.len() as u64;
        batch.clear();
        Ok(())
    }

    /// Forgets the bytes from `size_bytes` on.
    ///
    /// # Errors
    /// The file cannot be cut.
    pub fn cut(&mut self, slot: &Slot, size_bytes: u64) -> Result<(), ApiError> {
        OpenOptions::new()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_len(size_bytes))
            .map_err(|error| ApiError::io("cut the upload", &error))?;
        self.size_bytes = size_bytes;
        self.digester = (size_bytes == 0).then(|| Digester::new(Algorithm::Sha256));
        slot.size_bytes.store(size_bytes, Ordering::Relaxed);
        Ok(())
    }

    fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        if let (Algorithm::Sha256, Some(digester)) = (algorithm, &self.digester) {
            return Ok(digester.clone().finish());
        }
        let mut digester = Digester::new(algorithm);
        let mut file = File::open(&self.path)?;
        let mut buffer = vec![0; BATCH_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digester.finish()),
                count => digester.update(&buffer[..count]),
            }
        }
    }

    fn discard(&mut self) {
        self.over = true;
        match std::fs::remove_file(&self.path) {
            Err(error) if Kind::of_io(&error) != Kind::NotFound => {
                tracing::warn!("remove an upload: {error}");
            }
            _ => {}
        }
    }
}
