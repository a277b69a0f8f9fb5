// SPDX-License-Identifier: Apache-2.0
//! The store as a source and a destination of copies: the one bridge from async to the
//! synchronous store.
//!
//! Every call into the store runs on the blocking pool of the program's runtime. Bytes cross in a
//! few chunks; the end of a blob is said explicitly, so a copy that is cancelled midway never looks
//! like a blob that ended.

use crate::error::StoreError;
use crate::ingest::{BlobForm, Claim, CommitImage, Ingest, IngestError, IngestOptions, LayerClaim};
use crate::layout;
use crate::name::ImageName;
use crate::open::Store;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_image::convert::ManifestFormat;
use gantry_image::destination::{Capabilities, Incoming, Naming};
use gantry_image::destination::{Commit, Committed};
use gantry_image::{
    BlobStream, EndpointError, ImageDestination, ImageSource, ImageWriter, Layer, LayerAnswer,
    LayerForm, LayerSlot, LayerStream, ManifestBytes, Origin, SignatureBlob, SignedIndex,
    UnverifiedManifest, VerifiedBlob, Wanted,
};
use gantry_oci::{Descriptor, Kind, LayerDigest, ManifestDigest};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// Chunks between the network and the thread that inflates.
const CHUNKS: usize = 16;
const CHUNK_BYTES: usize = 128 << 10;
/// Layers at once: three threads each, and their buffers, bound memory.
const PARALLEL_LAYERS: usize = 4;

impl From<StoreError> for EndpointError {
    fn from(error: StoreError) -> Self {
        Self::with_source(error.kind(), "use the store", error)
    }
}

impl From<IngestError> for EndpointError {
    fn from(error: IngestError) -> Self {
        Self::with_source(error.kind(), "bring an image into the store", error)
    }
}

/// What every store takes; a copy can be planned by it before there is a store.
#[must_use]
pub fn capabilities() -> Capabilities {
    Capabilities {
        formats: vec![ManifestFormat::Oci, ManifestFormat::Docker],
        indexes: true,
        plain_tar: true,
        computed: false,
        artifacts: false,
        origins: true,
        parallel_layers: PARALLEL_LAYERS,
    }
}

/// Copies into a store.
#[derive(Debug)]
pub struct StoreDestination {
    store: Store,
    names: Vec<ImageName>,
    options: IngestOptions,
}

impl StoreDestination {
    /// Whatever is committed with a name gets these.
    #[must_use]
    pub fn new(store: Store, names: Vec<ImageName>, options: IngestOptions) -> Self {
        Self {
            store,
            names,
            options,
        }
    }

    fn names_for(&self, naming: Naming) -> Vec<ImageName> {
        match naming {
            Naming::Named => self.names.clone(),
            Naming::ByDigest => Vec::new(),
        }
    }
}

#[async_trait]
impl ImageDestination for StoreDestination {
    fn describe(&self) -> String {
        match self.names.first() {
            Some(name) => format!("store {}: {name}", self.store.path().display()),
            None => format!("store {}", self.store.path().display()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    async fn begin(&self, _incoming: Arc<Incoming>) -> Result<Box<dyn ImageWriter>, EndpointError> {
        let (store, options) = (self.store.clone(), self.options);
        let ingest = blocking(move || store.begin(options)).await??;
        Ok(Box::new(StoreWriter {
            store: self.store.clone(),
            ingest,
            names: self.names.clone(),
        }))
    }

    async fn put_index(
        &self,
        index: &ManifestBytes,
        signatures: Vec<SignatureBlob>,
        naming: Naming,
    ) -> Result<Committed, EndpointError> {
        let (store, options, names) = (self.store.clone(), self.options, self.names_for(naming));
        let index = index.clone();
        let digest = *index.digest();
        blocking(move || -> Result<(), IngestError> {
            let ingest = store.begin(options)?;
            let chosen = choose(&store, &index)?;
            if !signatures.is_empty() {
                ingest.commit_index(&index, chosen, &[])?;
                store.add_signatures(index.digest(), &signatures)?;
            }
            ingest.commit_index(&index, chosen, &names)?;
            Ok(())
        })
        .await??;
        Ok(Committed { digest })
    }
}

/// The entry for this host, among those that the store has.
pub(crate) fn choose(
    store: &Store,
    index: &ManifestBytes,
) -> Result<Option<ManifestDigest>, StoreError> {
    let Some(entries) = index.as_index() else {
        return Ok(None);
    };
    let wanted = gantry_oci::Platform::host();
    let Ok(choice) = gantry_image::select::choose_platform(entries, &wanted) else {
        return Ok(None);
    };
    let digest = ManifestDigest::from_digest(choice.descriptor.digest);
    Ok(store.image(&digest)?.map(|record| record.digest))
}

struct StoreWriter {
    store: Store,
    ingest: Ingest,
    names: Vec<ImageName>,
}

#[async_trait]
impl ImageWriter for StoreWriter {
    async fn ask_layer(&self, layer: &Layer) -> Result<LayerAnswer, EndpointError> {
        // A layer that the store has would be taken unseen, whatever it is called.
        let known = layer.descriptor.media_type.layer_compression();
        let diff_id = layer.diff_id.filter(|_| known.is_some()).ok_or_else(|| {
            EndpointError::new(
                Kind::Unsupported,
                format!(
                    "unpack {}: it is no file system layer",
                    layer.descriptor.digest
                ),
            )
        })?;
        let ingest = self.ingest.clone();
        let claim = blocking(move || ingest.claim(diff_id)).await??;
        Ok(match claim {
            Claim::Held => LayerAnswer::Held,
            Claim::Wanted(claim) => LayerAnswer::Wanted(Box::new(StoreSlot {
                claim,
                descriptor: layer.descriptor.clone(),
            })),
        })
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<Committed, EndpointError> {
        let digest = *commit.manifest.digest();
        blocking(move || -> Result<(), IngestError> {
            let names = match commit.naming {
                Naming::Named => self.names.as_slice(),
                Naming::ByDigest => &[],
            };
            let image = |names| CommitImage {
                manifest: &commit.manifest,
                config: commit.config.bytes(),
                names,
            };
            // Whatever may admit it is there before the name is.
            if !commit.signatures.is_empty() || commit.chosen_from.is_some() {
                self.ingest.commit_image(&image(&[]))?;
                self.store.add_signatures(&digest, &commit.signatures)?;
            }
            if let Some(SignedIndex { index, signatures }) = &commit.chosen_from {
                self.ingest.commit_index(index, Some(digest), &[])?;
                self.store.add_signatures(index.digest(), signatures)?;
            }
            self.ingest.commit_image(&image(names))?;
            Ok(())
        })
        .await??;
        Ok(Committed { digest })
    }
}

pub(crate) struct StoreSlot {
    pub(crate) claim: LayerClaim,
    pub(crate) descriptor: Descriptor,
}

#[async_trait]
impl LayerSlot for StoreSlot {
    async fn fill(self: Box<Self>, stream: LayerStream) -> Result<VerifiedBlob, EndpointError> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let reader = ChunkReader {
            chunks: receiver,
            chunk: Bytes::new(),
            ended: false,
        };
        let form = stream.form;
        let unpacked = spawn_blocking(move || match form {
            LayerForm::AsDescribed => self
                .claim
                .unpack(reader, BlobForm::AsDescribed(&self.descriptor)),
            LayerForm::PlainTar => self.claim.unpack(reader, BlobForm::PlainTar),
        });
        pump(stream.blob, sender).await;
        let info = joined(unpacked.await)??;
        Ok(info.blob)
    }
}

enum Chunk {
    Bytes(Bytes),
    Failed(EndpointError),
    End,
}

/// Passes chunks on until the stream or the reader ends.
async fn pump(mut blob: BlobStream, sender: mpsc::Sender<Chunk>) {
    while let Some(next) = blob.next().await {
        let (chunk, last) = match next {
            Ok(bytes) => (Chunk::Bytes(bytes), false),
            Err(error) => (Chunk::Failed(error), true),
        };
        if sender.send(chunk).await.is_err() || last {
            return;
        }
    }
    // A reader that has gone knows why.
    sender.send(Chunk::End).await.ok();
}

struct ChunkReader {
    chunks: mpsc::Receiver<Chunk>,
    chunk: Bytes,
    ended: bool,
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => self.chunk = bytes,
                Some(Chunk::Failed(error)) => {
                    self.ended = true;
                    return Err(error.into());
                }
                Some(Chunk::End) => self.ended = true,
                None => {
                    self.ended = true;
                    let cancelled = EndpointError::new(Kind::Cancelled, "read blob: cancelled");
                    return Err(cancelled.into());
                }
            }
        }
        let count = self.chunk.len().min(into.len());
        into[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

/// Copies out of a store.
#[derive(Debug)]
pub struct StoreSource {
    store: Store,
    name: String,
    digest: ManifestDigest,
    origin: Option<Origin>,
}

impl StoreSource {
    /// Reads the image (or index) with this digest; `name` is what people see.
    #[must_use]
    pub fn new(store: Store, name: String, digest: ManifestDigest) -> Self {
        Self {
            store,
            name,
            digest,
            origin: None,
        }
    }

    /// Says where the image was pulled from: that registry may have its blobs still, and give them
    /// to another of its repositories.
    #[must_use]
    pub fn pulled_as(self, name: Option<&ImageName>) -> Self {
        let origin = name.and_then(|name| {
            Some(Origin {
                host: name.host.as_ref()?.to_string(),
                repository: name.repository.clone(),
            })
        });
        Self { origin, ..self }
    }
}

#[async_trait]
impl ImageSource for StoreSource {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn origin(&self) -> Option<Origin> {
        self.origin.clone()
    }

    async fn manifest(&self, wanted: Wanted<'_>) -> Result<UnverifiedManifest, EndpointError> {
        let digest = match wanted {
            Wanted::Primary => self.digest,
            Wanted::Digest(digest) => *digest,
        };
        let store = self.store.clone();
        let found = blocking(move || -> Result<_, StoreError> {
            let record = store.image(&digest)?;
            Ok(record.zip(store.manifest(&digest)?))
        })
        .await??;
        let (record, bytes) = found.ok_or_else(|| {
            EndpointError::new(
                Kind::NotFound,
                format!("find manifest {digest}: not in the store"),
            )
        })?;
        let media_type = record.media_type.as_str().to_owned();
        Ok(UnverifiedManifest::new(
            bytes.into(),
            Some(media_type),
            Some(digest),
        ))
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, EndpointError> {
        let (store, digest) = (self.store.clone(), descriptor.digest);
        let found = blocking(move || -> Result<_, StoreError> {
            if let Some(config) = store.find_config(&digest)? {
                return Ok(Some(Found::Bytes(config)));
            }
            let path = layout::blob_path(&LayerDigest::from_digest(digest));
            Ok(store
                .root()
                .open_file(path.as_bytes())
                .ok()
                .map(Found::File))
        })
        .await??;
        match found {
            Some(Found::Bytes(bytes)) => Ok(BlobStream::from_bytes(bytes.into())),
            Some(Found::File(file)) => Ok(stream_of(Some(descriptor.size_bytes), file)),
            None => Err(EndpointError::new(
                Kind::NotFound,
                format!("find blob {digest}: not in the store"),
            )),
        }
    }

    async fn layer_form(&self, layer: &Layer) -> Result<LayerForm, EndpointError> {
        let path = layout::blob_path(&LayerDigest::from_digest(layer.descriptor.digest));
        let store = self.store.clone();
        let kept = blocking(move || store.root().stat(path.as_bytes())).await?;
        Ok(match kept {
            Ok(Some(_)) => LayerForm::AsDescribed,
            _ => LayerForm::PlainTar,
        })
    }

    async fn layer(&self, layer: &Layer) -> Result<LayerStream, EndpointError> {
        if self.layer_form(layer).await? == LayerForm::AsDescribed {
            return Ok(LayerStream::as_described(
                self.blob(&layer.descriptor).await?,
            ));
        }
        let diff_id = layer.diff_id.ok_or_else(|| {
            EndpointError::new(
                Kind::NotFound,
                format!("find blob {}: not in the store", layer.descriptor.digest),
            )
        })?;
        let store = self.store.clone();
        let tar = blocking(move || store.layer_tar(&diff_id)).await??;
        Ok(LayerStream::plain_tar(stream_of(None, tar)))
    }

    async fn indexes_of(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<UnverifiedManifest>, EndpointError> {
        let (store, digest) = (self.store.clone(), *digest);
        let indexes = blocking(move || store.indexes_of(&digest)).await??;
        let mut found = Vec::new();
        for index in &indexes {
            found.push(self.manifest(Wanted::Digest(index)).await?);
        }
        Ok(found)
    }

    async fn signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        let (store, digest) = (self.store.clone(), *digest);
        Ok(blocking(move || store.signatures(&digest)).await??)
    }
}

enum Found {
    Bytes(Vec<u8>),
    File(std::fs::File),
}

/// Turns a reader into a stream; a thread of the blocking pool reads ahead a few chunks.
fn stream_of(size_bytes: Option<u64>, mut reader: impl Read + Send + 'static) -> BlobStream {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, EndpointError>>(CHUNKS);
    spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let next = match reader.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    Ok(chunk.into())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(EndpointError::io("read blob of the store", error)),
            };
            let failed = next.is_err();
            if sender.blocking_send(next).is_err() || failed {
                return;
            }
        }
    });
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    BlobStream::new(size_bytes, chunks)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EndpointError> {
    joined(spawn_blocking(work).await)
}

fn joined<T>(outcome: Result<T, tokio::task::JoinError>) -> Result<T, EndpointError> {
    outcome.map_err(|error| {
        let kind = if error.is_cancelled() {
            Kind::Cancelled
        } else {
            Kind::Internal
        };
        EndpointError::with_source(kind, "use the store", error)
    })
}
