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
//! The bytes go to a file as they arrive and are hashed on the way; nothing is
//! held in memory beyond one buffer. After a restart the file is there and the
//! hash is not: then the file is read once more at the end.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use gantry_oci::{Algorithm, Digest, Digester, Limits};
use tokio::sync::Mutex;

use crate::errors::{ApiError, Code};
use crate::state::State;

/// How long an upload may rest before it is removed.
const REST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes collected before they are hashed and written together.
const BATCH_BYTES: usize = 1 << 20;

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

/// One upload in progress.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    /// `None` if the file has bytes that this process did not see.
    digester: Option<Digester>,
}

/// All uploads.
#[derive(Debug)]
pub struct Uploads {
    dir: PathBuf,
    limits: Limits,
    open: StdMutex<HashMap<UploadId, Arc<Mutex<Upload>>>>,
}

impl Uploads {
    /// The uploads below `state`; those that rested for a week are removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn new(state: &State, limits: Limits) -> io::Result<Self> {
        let dir = state.uploads();
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let age = SystemTime::now()
                .duration_since(entry.metadata()?.modified()?)
                .unwrap_or_default();
            if age > REST {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            dir,
            limits,
            open: StdMutex::default(),
        })
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<UploadId, Arc<Mutex<Upload>>>> {
        // A panic while the lock was held left the map as it was: every change is one call.
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Starts one.
    ///
    /// # Errors
    /// Its file cannot be made.
    pub fn start(&self) -> io::Result<UploadId> {
        let id = UploadId::random()?;
        let path = self.dir.join(id.as_str());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        let upload = Upload {
            path,
            file,
            size_bytes: 0,
            digester: Some(Digester::new(Algorithm::Sha256)),
        };
        self.table()
            .insert(id.clone(), Arc::new(Mutex::new(upload)));
        Ok(id)
    }

    /// Finds one, also one that an earlier process started.
    ///
    /// # Errors
    /// Its file cannot be opened.
    pub fn find(&self, id: &UploadId) -> io::Result<Option<Arc<Mutex<Upload>>>> {
        let mut table = self.table();
        if let Some(upload) = table.get(id) {
            return Ok(Some(Arc::clone(upload)));
        }
        let path = self.dir.join(id.as_str());
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size_bytes = file.metadata()?.len();
        let upload = Arc::new(Mutex::new(Upload {
            path,
            file,
            size_bytes,
            digester: None,
        }));
        table.insert(id.clone(), Arc::clone(&upload));
        Ok(Some(upload))
    }

    /// Forgets one whose file is gone or moved.
    pub fn forget(&self, id: &UploadId) {
        self.table().remove(id);
    }

    /// The caps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Upload {
    /// How many bytes have arrived.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes a request's body to its end. What arrived before an error stays,
    /// so that the client can go on from there.
    ///
    /// # Errors
    /// The client broke off, sent more than a blob may have, or the disk is full.
    pub async fn append<S, E>(&mut self, mut body: S, limits: &Limits) -> Result<(), ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::error::Error,
    {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        loop {
            let chunk = match body.next().await {
                Some(Ok(chunk)) => Some(chunk),
                None => None,
                Some(Err(error)) => {
                    self.write(&mut batch)?;
                    tracing::debug!("upload broke off: {error}");
                    return Err(ApiError::new(
                        Code::BlobUploadInvalid,
                        "the connection broke before the upload's end",
                    ));
                }
            };
            let Some(chunk) = chunk else {
                return self.write(&mut batch);
            };
            if self.size_bytes + (batch.len() + chunk.len()) as u64 > limits.blob_bytes {
                return Err(ApiError::new(
                    Code::SizeInvalid,
                    format!(
                        "the blob is larger than the {} bytes allowed",
                        limits.blob_bytes
                    ),
                )
                .with_status(http::StatusCode::PAYLOAD_TOO_LARGE));
            }
            batch.extend_from_slice(&chunk);
            if batch.len() >= BATCH_BYTES {
                self.write(&mut batch)?;
            }
        }
    }

    fn write(&mut self, batch: &mut Vec<u8>) -> Result<(), ApiError> {
        let result = tokio::task::block_in_place(|| {
            self.file.write_all(batch)?;
            if let Some(digester) = &mut self.digester {
                digester.update(batch);
            }
            Ok(())
        });
        if let Err(error) = &result {
            // Part of the batch may be in the file; cut it back to what was hashed.
            if let Err(cut) = self.file.set_len(self.size_bytes) {
                tracing::warn!("cut an upload back: {cut}");
            }
            batch.clear();
            return Err(ApiError::io("write the upload", error));
        }
        self.size_bytes += batch.len() as u64;
        batch.clear();
        Ok(())
    }

    /// Compares the digest and moves the bytes under it.
    ///
    /// # Durability
    /// The bytes and their name are on stable storage on return.
    ///
    /// # Errors
    /// The bytes have another digest (they are then removed), or the disk failed.
    pub fn finish(&mut self, digest: &Digest, state: &State) -> Result<(), ApiError> {
        let found = tokio::task::block_in_place(|| self.digest(digest.algorithm()))
            .map_err(|error| ApiError::io("read the upload back", &error))?;
        if found != *digest {
            self.discard();
            return Err(ApiError::new(
                Code::DigestInvalid,
                format!("the bytes that arrived have digest {found}, not {digest}"),
            ));
        }
        tokio::task::block_in_place(|| {
            self.file.sync_all()?;
            state.adopt(&self.path, digest)
        })
        .map_err(|error| ApiError::io("keep the blob", &error))
    }

    fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        if let (Algorithm::Sha256, Some(digester)) = (algorithm, self.digester.take()) {
            return Ok(digester.finish());
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

    /// Removes the file.
    pub fn discard(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("remove an upload: {error}");
        }
    }
}
