// SPDX-License-Identifier: Apache-2.0
//! Layers that the store keeps as records and objects, and giving their tars back.

use crate::error::{Doing as _, StoreError};
use crate::layout::{self, layer_name, object_name};
use crate::open::Store;
use gantry_layer::changes::{Change, Changeset, Operation};
use gantry_layer::record::{self, ObjectSource, ReadSeek};
use gantry_layer::tree::{FileContent, NodeKind};
use gantry_oci::{DiffId, Limits, ObjectId};
use gantry_sys::root::RootDir;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};

const BUFFER_BYTES: usize = 256 << 10;
/// Buffers between the thread that rebuilds a tar and its reader.
const BUFFERS: usize = 4;

impl Store {
    /// Loads what a layer changes; `None` if the store has no such layer.
    ///
    /// # Errors
    /// [`StoreError::Layer`] if its record is damaged.
    pub fn layer_changes(&self, diff_id: &DiffId) -> Result<Option<Changeset>, StoreError> {
        match self.inner.root.open_dir(layout::LAYERS.as_bytes()) {
            Ok(layers) => load_changes(&layers, diff_id, self.limits()),
            Err(error) if error.is(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error).doing(|| format!("open record of layer {diff_id}")),
        }
    }

    /// The objects that a layer refers to, with their sizes; `None` if the store has no such layer.
    pub(crate) fn layer_objects(
        &self,
        diff_id: &DiffId,
    ) -> Result<Option<Vec<(ObjectId, u64)>>, StoreError> {
        Ok(self.layer_changes(diff_id)?.map(|layer| {
            let object = |change: &Change| match &change.operation {
                Operation::Upsert {
                    kind: NodeKind::File(FileContent::Object { id, size_bytes }),
                    ..
                } => Some((*id, *size_bytes)),
                _ => None,
            };
            layer.changes.iter().filter_map(object).collect()
        }))
    }

    /// Lists the layers that the store can give back.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn layers(&self) -> Result<Vec<DiffId>, StoreError> {
        let names = self.list(layout::LAYERS)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Writes the exact tar of a layer, as it was before compression.
    ///
    /// The bytes are not compared with the diffID: whoever passes them on knows what it expects.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Layer`] if its record is damaged or an object is
    /// missing; the writer's error.
    pub fn write_layer_tar(&self, diff_id: &DiffId, out: &mut dyn Write) -> Result<(), StoreError> {
        let record = open_record(&self.dir(layout::LAYERS)?, diff_id)?.ok_or_else(|| {
            StoreError::NotFound {
                what: format!("layer {diff_id}"),
            }
        })?;
        let objects = Objects {
            dir: self.dir(layout::OBJECTS)?,
        };
        record::rebuild_tar(record, &objects, self.limits(), out).map_err(|source| {
            StoreError::Layer {
                action: format!("rebuild layer {diff_id}"),
                kind: source.kind(),
                source: source.into(),
            }
        })
    }

    /// Gives the exact tar of a layer as a reader; a thread rebuilds it as far ahead as a few
    /// buffers go, and ends with the reader.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; everything else comes out of the reader.
    pub fn layer_tar(&self, diff_id: &DiffId) -> Result<LayerTar, StoreError> {
        if !self.has_layer(diff_id)? {
            return Err(StoreError::NotFound {
                what: format!("layer {diff_id}"),
            });
        }
        let (sender, receiver) = sync_channel::<io::Result<Vec<u8>>>(BUFFERS);
        let (store, diff_id) = (self.clone(), *diff_id);
        std::thread::Builder::new()
            .name("layer-tar".to_owned())
            .spawn(move || {
                let failed = sender.clone();
                let mut out = io::BufWriter::with_capacity(BUFFER_BYTES, Sender(sender));
                let outcome = store
                    .write_layer_tar(&diff_id, &mut out)
                    .map_err(io::Error::other)
                    .and_then(|()| out.flush());
                if let Err(error) = outcome {
                    // A reader that has gone does not want to know.
                    failed.send(Err(error)).ok();
                }
                // Dropping a writer with buffered bytes would flush them again.
                drop(out.into_parts());
            })
            .doing(|| format!("rebuild layer {diff_id}"))?;
        Ok(LayerTar {
            buffers: receiver,
            buffer: Vec::new(),
            at: 0,
        })
    }
}

/// Loads what a layer changes from its record in `dir`; `None` if there is none.
pub(crate) fn load_changes(
    dir: &RootDir,
    diff_id: &DiffId,
    limits: &Limits,
) -> Result<Option<Changeset>, StoreError> {
    let Some(record) = open_record(dir, diff_id)? else {
        return Ok(None);
    };
    record::load(record, limits)
        .map(Some)
        .map_err(|source| StoreError::Layer {
            action: format!("read record of layer {diff_id}"),
            kind: source.kind(),
            source: source.into(),
        })
}

fn open_record(dir: &RootDir, diff_id: &DiffId) -> Result<Option<BufReader<File>>, StoreError> {
    match dir.open_file(layer_name(diff_id).as_bytes()) {
        Ok(file) => Ok(Some(BufReader::with_capacity(BUFFER_BYTES, file))),
        Err(error) if error.is(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error).doing(|| format!("open record of layer {diff_id}")),
    }
}

/// A layer's tar, rebuilt while it is read.
#[derive(Debug)]
pub struct LayerTar {
    buffers: Receiver<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    at: usize,
}

impl Read for LayerTar {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.buffer.len() {
            match self.buffers.recv() {
                Ok(next) => self.buffer = next?,
                Err(_) => return Ok(0),
            }
            self.at = 0;
        }
        let rest = &self.buffer[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

struct Sender(std::sync::mpsc::SyncSender<io::Result<Vec<u8>>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .send(Ok(bytes.to_vec()))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The store's objects, as the record reader wants them.
struct Objects {
    dir: RootDir,
}

impl ObjectSource for Objects {
    fn open(&self, id: &ObjectId) -> io::Result<Box<dyn ReadSeek + '_>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.dir, object_name(id), flags, Mode::empty())?;
        Ok(Box::new(File::from(file)))
    }
}
