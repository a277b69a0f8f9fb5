// SPDX-License-Identifier: Apache-2.0
//! Staging file contents: hashed on the thread that reads the tar, written by another.
//!
//! Contents are read into large batches that go round between the two threads; a batch carries
//! the bytes of many small files, or a piece of a big one. What the store (or this ingest) already
//! has is hashed and forgotten: its bytes are overwritten by the next file's.
//!
//! ```text
//!   put(): read → hash → known? ──yes──▶ drop
//!                          └─no──▶ batch ──full──▶ writer: create, write, fchown, utimens, close
//! ```
//!
//! One writer per layer works in order, so a big file's pieces need no bookkeeping, and the number
//! of batches bounds the memory.

use super::Inner;
use crate::layout::{self, object_name};
use gantry_layer::tree::Metadata;
use gantry_layer::verity::ObjectHasher;
use gantry_oci::ObjectId;
use gantry_sys::root::RootDir;
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of one batch.
const BATCH_BYTES: usize = 1 << 20;
/// Batches of one layer: the parser may be this far ahead of the disk.
const BATCHES: usize = 6;
/// A flush is worth its while for so many bytes.
const FLUSH_BYTES: usize = 64 << 20;
/// Zeros of so many bytes are worth a hole.
const HOLE_BYTES: usize = 64 << 10;
static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];
/// Files in one batch: very small ones must not make it wait too long.
const BATCH_FILES: usize = 256;

/// What a staged object's inode shall say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    mode: u32,
    owner: Option<(u32, u32)>,
    mtime: Option<(i64, u32)>,
}

impl Attributes {
    /// For the hard-link face an object carries the metadata of the first file that brought it, as
    /// far as an object may: always readable, never setuid.
    pub(crate) fn of(metadata: &Metadata, hardlink: bool) -> Self {
        if !hardlink {
            return Self {
                mode: 0o444,
                owner: None,
                mtime: None,
            };
        }
        Self {
            mode: u32::from(metadata.mode) & 0o777 | 0o444,
            owner: Some((metadata.uid, metadata.gid)),
            mtime: Some((metadata.mtime_s, metadata.mtime_ns)),
        }
    }
}

#[derive(Debug)]
enum Step {
    Whole {
        id: ObjectId,
        start: usize,
        end: usize,
        attributes: Attributes,
    },
    Begin,
    Append {
        start: usize,
        end: usize,
    },
    /// Ends a big file: kept under its id, or found to be known.
    End {
        kept: Option<(ObjectId, Attributes)>,
    },
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    used: usize,
    steps: Vec<Step>,
}

/// The hashing end.
pub(crate) struct Hasher<'a> {
    ingest: &'a Inner,
    batch: Batch,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
    /// Contents that were new, in bytes and files.
    pub(crate) new_bytes: u64,
    pub(crate) new_files: u64,
}

/// The writing end.
pub(crate) struct Writer<'a> {
    ingest: &'a Inner,
    full: Receiver<Batch>,
    empty: SyncSender<Batch>,
    /// Told whenever enough was written to be worth flushing.
    flush: Option<SyncSender<()>>,
    unflushed: usize,
}

pub(crate) fn pair(ingest: &Inner) -> (Hasher<'_>, Writer<'_>) {
    let (full_in, full_out) = sync_channel(BATCHES);
    let (empty_in, empty_out) = sync_channel(BATCHES);
    for _ in 1..BATCHES {
        empty_in.try_send(Batch::default()).ok();
    }
    let hasher = Hasher {
        ingest,
        batch: Batch::default(),
        full: full_in,
        empty: empty_out,
        new_bytes: 0,
        new_files: 0,
    };
    let writer = Writer {
        ingest,
        full: full_out,
        empty: empty_in,
        flush: None,
        unflushed: 0,
    };
    (hasher, writer)
}

impl Hasher<'_> {
    /// Hands the last batch over.
    pub(crate) fn finish(mut self) -> io::Result<(u64, u64)> {
        self.flush()?;
        Ok((self.new_files, self.new_bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.batch.steps.is_empty() {
            self.batch.used = 0;
            return Ok(());
        }
        // The writer goes only after an error, which it reports itself.
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "writing objects stopped");
        let batch = std::mem::take(&mut self.batch);
        self.full.send(batch).map_err(|_| gone())?;
        self.batch = self.empty.recv().map_err(|_| gone())?;
        self.batch.used = 0;
        self.batch.steps.clear();
        Ok(())
    }

    /// Makes room for at least `wanted` bytes, and gives the room.
    fn room(&mut self, wanted: usize) -> io::Result<()> {
        if self.batch.bytes.len() < BATCH_BYTES {
            self.batch.bytes.resize(BATCH_BYTES, 0);
        }
        if BATCH_BYTES - self.batch.used < wanted || self.batch.steps.len() >= BATCH_FILES {
            self.flush()?;
            if self.batch.bytes.len() < BATCH_BYTES {
                self.batch.bytes.resize(BATCH_BYTES, 0);
            }
        }
        Ok(())
    }

    fn put_small(
        &mut self,
        attributes: Attributes,
        size: usize,
        content: &mut dyn Read,
    ) -> io::Result<ObjectId> {
        self.room(size)?;
        let start = self.batch.used;
        let end = start + size;
        let bytes = &mut self.batch.bytes[start..end];
        content.read_exact(bytes)?;
        let mut hasher = ObjectHasher::new();
        hasher.update(bytes);
        let id = hasher.finish();
        if self.ingest.stages(&id, size as u64)? {
            self.batch.used = end;
            self.batch.steps.push(Step::Whole {
                id,
                start,
                end,
                attributes,
            });
            self.new_files += 1;
            self.new_bytes += size as u64;
        }
        Ok(id)
    }

    fn put_big(
        &mut self,
        attributes: Attributes,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> io::Result<ObjectId> {
        self.room(0)?;
        self.batch.steps.push(Step::Begin);
        let mut hasher = ObjectHasher::new();
        let mut left = size_bytes;
        while left > 0 {
            self.room(1)?;
            let start = self.batch.used;
            let space = BATCH_BYTES - start;
            let want = usize::try_from(left).map_or(space, |left| left.min(space));
            let bytes = &mut self.batch.bytes[start..start + want];
            content.read_exact(bytes)?;
            hasher.update(bytes);
            self.batch.used += want;
            self.batch.steps.push(Step::Append {
                start,
                end: start + want,
            });
            left -= want as u64;
        }
        let id = hasher.finish();
        let kept = self.ingest.stages(&id, size_bytes)?;
        if kept {
            self.new_files += 1;
            self.new_bytes += size_bytes;
        }
        self.batch.steps.push(Step::End {
            kept: kept.then_some((id, attributes)),
        });
        Ok(id)
    }
}

impl gantry_layer::tar::ObjectSink for Hasher<'_> {
    fn put(
        &mut self,
        metadata: &Metadata,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> io::Result<ObjectId> {
        let attributes = Attributes::of(metadata, self.ingest.options.faces.hardlink);
        match usize::try_from(size_bytes) {
            Ok(size) if size <= BATCH_BYTES => self.put_small(attributes, size, content),
            _ => self.put_big(attributes, size_bytes, content),
        }
    }
}

impl Writer<'_> {
    /// Makes the writer say when there is something to flush, in time to do so beside further writing.
    pub(crate) fn flushes(&mut self) -> Receiver<()> {
        let (sender, receiver) = sync_channel(1);
        self.flush = Some(sender);
        receiver
    }

    /// Writes until the hashing end has gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut big = None;
        while let Ok(batch) = self.full.recv() {
            for step in &batch.steps {
                self.step(step, &batch.bytes, &mut big)?;
            }
            self.unflushed += batch.used;
            self.empty.send(batch).ok();
            if let Some(flush) = &self.flush
                && self.unflushed >= FLUSH_BYTES
            {
                // Full while a flush is awaited already.
                flush.try_send(()).ok();
                self.unflushed = 0;
            }
        }
        // The parser stopped within a big file: what is there has no name of an object.
        if let Some((_, name)) = big {
            self.ingest
                .objects
                .remove_file(name.as_bytes())
                .map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn step(&self, step: &Step, bytes: &[u8], big: &mut Option<(File, String)>) -> io::Result<()> {
        match step {
            Step::Whole {
                id,
                start,
                end,
                attributes,
            } => {
                let name = object_name(id);
                let file = create_in_fan(&self.ingest.objects, &name, attributes.mode)?;
                let mut file = File::from(file);
                file.write_all(&bytes[*start..*end])?;
                self.ingest.seal(&file, *attributes)
            }
            Step::Begin => {
                let name = self.ingest.next_big_name();
                let file = create(&self.ingest.objects, &name, 0o600)?;
                *big = Some((file.into(), name));
                Ok(())
            }
            Step::Append { start, end } => match big {
                Some((file, _)) => write_with_holes(file, &bytes[*start..*end]),
                None => Err(io::ErrorKind::InvalidInput.into()),
            },
            Step::End { kept } => {
                let Some((mut file, name)) = big.take() else {
                    return Err(io::ErrorKind::InvalidInput.into());
                };
                let Some((id, attributes)) = kept else {
                    return Ok(rustix::fs::unlinkat(
                        &self.ingest.objects,
                        name.as_str(),
                        rustix::fs::AtFlags::empty(),
                    )?);
                };
                // The file may end in a hole.
                let size_bytes = file.stream_position()?;
                file.set_len(size_bytes)?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(attributes.mode))?;
                self.ingest.seal(&file, *attributes)?;
                rename_in_fan(&self.ingest.objects, &name, &object_name(id))
            }
        }
    }
}

/// Writes, and leaves out what is nothing but zeros: a sparse file must not fill the disk, least of all one that a few
/// bytes of a layer describe.
fn write_with_holes(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let is_hole = |piece: &[u8]| *piece == ZEROS[..piece.len()];
        let pieces = rest.chunks(HOLE_BYTES);
        let hole = rest.chunks(HOLE_BYTES).next().is_some_and(is_hole);
        let run: usize = pieces
            .take_while(|piece| is_hole(piece) == hole)
            .map(<[u8]>::len)
            .sum();
        let (now, later) = rest.split_at(run);
        if hole {
            let distance = i64::try_from(run).map_err(io::Error::other)?;
            file.seek_relative(distance)?;
        } else {
            file.write_all(now)?;
        }
        rest = later;
    }
    Ok(())
}

impl Inner {
    /// Owner, time and, where one sync at the end would not do, durability of a written file.
    fn seal(&self, file: &File, attributes: Attributes) -> io::Result<()> {
        if let Some((uid, gid)) = attributes.owner
            && self.may_chown
            && (uid, gid) != (0, 0)
        {
            // A chown clears no bits here: objects are never setuid.
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        if attributes.mode & self.umask != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode))?;
        }
        if let Some((seconds, nanoseconds)) = attributes.mtime {
            rustix::fs::futimens(file, &times(seconds, nanoseconds))?;
        }
        if self.sync_each {
            file.sync_all()?;
        }
        Ok(())
    }
}

pub(crate) fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn create(dir: &RootDir, name: &str, mode: u32) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir.as_fd(), name, flags, Mode::from_raw_mode(mode))
}

/// Creates `xx/…`, and the directory `xx` with it if it is the first in there.
pub(crate) fn create_in_fan(dir: &RootDir, name: &str, mode: u32) -> io::Result<OwnedFd> {
    match create(dir, name, mode) {
        Err(Errno::NOENT) => {
            make_fan(dir, name)?;
            Ok(create(dir, name, mode)?)
        }
        other => Ok(other?),
    }
}

pub(crate) fn rename_in_fan(dir: &RootDir, from: &str, name: &str) -> io::Result<()> {
    match rustix::fs::renameat(dir, from, dir, name) {
        Err(Errno::NOENT) => {
            make_fan(dir, name)?;
            Ok(rustix::fs::renameat(dir, from, dir, name)?)
        }
        other => Ok(other?),
    }
}

fn make_fan(dir: &RootDir, name: &str) -> io::Result<()> {
    let fan = &name[..2];
    match rustix::fs::mkdirat(dir, fan, layout::PUBLIC) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(rustix::fs::chmodat(
        dir,
        fan,
        layout::PUBLIC,
        rustix::fs::AtFlags::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_readable_by_all_and_never_setuid() {
        let metadata = Metadata {
            mode: 0o4711,
            uid: 5,
            ..Metadata::default()
        };
        let attributes = Attributes::of(&metadata, true);
        assert_eq!((attributes.mode, attributes.owner), (0o755, Some((5, 0))));
        let attributes = Attributes::of(&metadata, false);
        assert_eq!(
            (attributes.mode, attributes.owner, attributes.mtime),
            (0o444, None, None)
        );
    }
}
