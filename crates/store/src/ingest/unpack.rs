// SPDX-License-Identifier: Apache-2.0
//! One layer: three threads between the network and the disk, and one that makes the disk begin early.
//!
//! ```text
//!   blob ─▶ [digest, inflate] ─pipe─▶ [tar, diffID, object ids, record] ─batches─▶ [write]
//! ```

use super::writer::pair;
use super::{FinishedLayer, IngestError, Inner, LayerClaim, LayerInfo, pipe};
use crate::error::Doing as _;
use crate::layout::{self, layer_name};
use gantry_image::{Checker, VerifiedBlob, Verifying};
use gantry_layer::compress::{self, Decoder};
use gantry_layer::tar::{self, LayerSummary, ReadLayerError};
use gantry_oci::{Descriptor, DiffId, Limits};
use gantry_sys::publish;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::thread;

const READ_BYTES: usize = 256 << 10;

/// What the bytes of a layer claim to be.
#[derive(Debug, Clone, Copy)]
pub enum BlobForm<'a> {
    /// The blob that a descriptor names; its digest and size are checked.
    AsDescribed(&'a Descriptor),
    /// The tar itself; the diffID vouches for it.
    PlainTar,
}

impl LayerClaim {
    /// Unpacks the layer privately: nothing of it is visible before the commit.
    ///
    /// # Concurrency
    /// Blocks; uses three further threads. Several layers may be unpacked at once.
    ///
    /// # Errors
    /// [`IngestError::Blob`], [`IngestError::Unpack`] and [`IngestError::WrongDiffId`] for what is
    /// wrong with the bytes: the layer may be claimed again. [`IngestError::Write`] for what is
    /// wrong with the disk: the ingest is then spent.
    pub fn unpack<R: Read + Send>(
        mut self,
        blob: R,
        form: BlobForm<'_>,
    ) -> Result<LayerInfo, IngestError> {
        let ingest = self.ingest.clone();
        let inner = ingest.inner.as_ref();
        if inner.state().poisoned {
            return Err(IngestError::Poisoned);
        }
        let busy = inner.quiet.read().unwrap_or_else(PoisonError::into_inner);
        let diff_id = self.diff_id;
        let (summary, (new_files, new_bytes), blob) = inner.unpack(diff_id, blob, form)?;
        let info = LayerInfo {
            diff_id,
            new_files,
            new_bytes,
            blob,
        };
        let layer = FinishedLayer {
            changes: Some(summary.changes),
            lock: self.lock.take(),
            published: false,
        };
        inner.state().finished.insert(diff_id, layer);
        drop(busy);
        Ok(info)
    }
}

impl Inner {
    fn unpack<R: Read + Send>(
        &self,
        diff_id: DiffId,
        blob: R,
        form: BlobForm<'_>,
    ) -> Result<(LayerSummary, (u64, u64), VerifiedBlob), IngestError> {
        let limits = *self.store.limits();
        let mut record = self.create_record(&diff_id)?;
        let checker = match form {
            BlobForm::AsDescribed(descriptor) => Checker::of(descriptor),
            BlobForm::PlainTar => Checker::new(*diff_id.digest(), None),
        };
        let (feed, drain) = pipe::pipe();
        let (mut hasher, mut writer) = pair(self);
        let flushes = writer.flushes();
        let (inflated, parsed, written, stored) = thread::scope(|scope| {
            let inflating = scope.spawn(move || inflate(blob, checker, &limits, feed));
            let writing = scope.spawn(move || writer.run());
            scope.spawn(move || self.flush(&flushes));
            let parsed = tar::read_layer(drain, &limits, &mut hasher, &mut record);
            let stored = hasher.finish();
            (join(inflating.join()), parsed, join(writing.join()), stored)
        });
        if let Err(source) = written {
            self.state().poisoned = true;
            return Err(IngestError::Write { diff_id, source });
        }
        let blob = inflated.map_err(|source| IngestError::Blob { diff_id, source })?;
        let summary =
            parsed.map_err(|source: ReadLayerError| IngestError::Unpack { diff_id, source })?;
        if summary.diff_id != diff_id {
            return Err(IngestError::WrongDiffId {
                expected: diff_id,
                found: *summary.diff_id.digest(),
            });
        }
        let counts = stored.map_err(|source| IngestError::Write { diff_id, source })?;
        self.finish_record(record)
            .map_err(|source| IngestError::Write { diff_id, source })?;
        Ok((summary, counts, blob))
    }

    /// Sends what is written to the disk early, so that the sync of the commit finds little left.
    ///
    /// A kindness only: it has a descriptor of its own, so that an error that it meets is reported to the commit's
    /// sync all the same.
    fn flush(&self, flushes: &Receiver<()>) {
        let root = self.store.inner.root.open_dir(b".");
        while flushes.recv().is_ok() {
            if let (false, Ok(root)) = (self.sync_each, &root)
                && let Err(error) = publish::sync_file_system(root)
            {
                tracing::debug!(%error, "an early flush failed");
                return;
            }
        }
    }

    fn create_record(&self, diff_id: &DiffId) -> Result<BufWriter<File>, IngestError> {
        let dir = self.staging.subdir(layout::LAYERS)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let file = dir
            .open(layer_name(diff_id).as_bytes(), flags, layout::PUBLIC_FILE)
            .doing(|| format!("create record of layer {diff_id}"))?;
        Ok(BufWriter::with_capacity(READ_BYTES, file.into()))
    }

    fn finish_record(&self, mut record: BufWriter<File>) -> io::Result<()> {
        record.flush()?;
        rustix::fs::fchmod(record.get_ref(), layout::PUBLIC_FILE)?;
        if self.sync_each {
            record.get_ref().sync_all()?;
        }
        Ok(())
    }
}

fn inflate(
    blob: impl Read,
    checker: Checker,
    limits: &Limits,
    feed: pipe::Feed,
) -> io::Result<VerifiedBlob> {
    let mut verifying = Verifying::new(blob, checker);
    decode(&mut verifying, limits, feed)?;
    verifying.finish()
}

fn decode(blob: impl Read, limits: &Limits, feed: pipe::Feed) -> io::Result<()> {
    let mut blob = BufReader::with_capacity(READ_BYTES, blob);
    let compression = match blob.fill_buf() {
        Ok(head) => compress::detect(head),
        Err(error) => {
            feed.break_off();
            return Err(error);
        }
    };
    feed.pump(Decoder::new(blob, compression, *limits)?)
}

fn join<T>(outcome: thread::Result<io::Result<T>>) -> io::Result<T> {
    outcome.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}
