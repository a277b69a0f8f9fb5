// SPDX-License-Identifier: Apache-2.0
//! Layer records: what the store keeps of a layer to give its exact tar back.
//!
//! ```text
//! "GANTRYLR"  version: 1 byte = 1
//! then one zstd stream of
//!     0x01  count: u32   the next `count` bytes of the tar, literally
//!     0x02  object id: 32 bytes   size: u64   runs: u32   (offset: u64  size: u64) × runs
//!           the next bytes of the tar are these runs of that object
//!     0x00  SHA-256 of the stream up to and with this byte     end; nothing follows
//! ```
//!
//! Numbers are little-endian. Literal bytes are headers, padding and contents
//! of at most 64 bytes; runs are in order and do not overlap, several only
//! where the file is sparse. The record is read by the same header state
//! machine as a tar ([`crate::tar`]), so a layer means the same when it
//! arrives and ever after.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use gantry_oci::{Algorithm, Digest, Digester, Kind, Limits, ObjectId};

use crate::changes::Changeset;
use crate::tar::sparse::Extent;
use crate::tar::{ReadLayerError, Segment, Source, read_changes};
use crate::tree::{FileContent, Metadata};

const MAGIC: &[u8; 8] = b"GANTRYLR";
const VERSION: u8 = 1;
const END: u8 = 0;
const RAW: u8 = 1;
const OBJECT: u8 = 2;
/// Literal bytes are written in pieces of this size.
const PIECE: usize = 64 << 10;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It cannot be read, an object of it cannot, or the tar cannot be written.
    #[error("read layer record")]
    Io(#[from] io::Error),
    /// It is not a record, or one of a later version.
    #[error("layer record does not begin as one of version {VERSION}")]
    NotARecord,
    /// Its bytes are not what was written.
    #[error("layer record is damaged: {what}")]
    Damaged {
        /// How that shows.
        what: &'static str,
    },
    /// The tar in it is refused.
    #[error("layer record holds a tar that is refused")]
    Tar(#[source] Box<ReadLayerError>),
}

impl RecordError {
    /// `Corrupt`, but for failed input and output.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => Kind::of_io(error),
            _ => Kind::Corrupt,
        }
    }
}

/// Gives objects' contents.
pub trait ObjectSource {
    /// Opens an object.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    fn open(&self, id: &ObjectId) -> io::Result<Box<dyn ReadSeek + '_>>;
}

/// A reader that can go elsewhere.
pub trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// Writes a record while its layer is read.
pub(crate) struct Writer<W: Write> {
    stream: zstd::stream::write::Encoder<'static, W>,
    digester: Digester,
    pending: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&[VERSION])?;
        let stream = zstd::stream::write::Encoder::new(out, 1)?;
        Ok(Self {
            stream,
            digester: Digester::new(Algorithm::Sha256),
            pending: Vec::with_capacity(PIECE),
        })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digester.update(bytes);
        self.stream.write_all(bytes)
    }

    fn flush_pending(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(self.pending.len()).map_err(io::Error::other)?;
        self.put(&[RAW])?;
        self.put(&count.to_le_bytes())?;
        let mut pending = std::mem::take(&mut self.pending);
        let result = self.put(&pending);
        pending.clear();
        self.pending = pending;
        result
    }

    pub(crate) fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.pending.len()));
            self.pending.extend_from_slice(now);
            if self.pending.len() == PIECE {
                self.flush_pending()?;
            }
            bytes = later;
        }
        Ok(())
    }

    pub(crate) fn object(&mut self, id: &ObjectId, extent: &Extent) -> io::Result<()> {
        self.flush_pending()?;
        let runs = u32::try_from(extent.segments.len()).map_err(io::Error::other)?;
        self.put(&[OBJECT])?;
        self.put(id.digest().as_bytes())?;
        self.put(&extent.size_bytes.to_le_bytes())?;
        self.put(&runs.to_le_bytes())?;
        for segment in &extent.segments {
            self.put(&segment.offset.to_le_bytes())?;
            self.put(&segment.size_bytes.to_le_bytes())?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush_pending()?;
        self.put(&[END])?;
        let sum = self.digester.clone().finish();
        self.stream.write_all(sum.as_bytes())?;
        self.stream.finish()?.flush()
    }
}

/// One part of a record.
enum Part {
    Raw(u32),
    Object { id: ObjectId, extent: Extent },
    End,
}

struct Parts<R: Read> {
    stream: zstd::stream::read::Decoder<'static, BufReader<R>>,
    digester: Digester,
    limits: Limits,
}

impl<R: Read> Parts<R> {
    fn new(mut record: R, limits: Limits) -> Result<Self, RecordError> {
        let mut head = [0; 9];
        match record.read_exact(&mut head) {
            Ok(()) if head[..8] == *MAGIC && head[8] == VERSION => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => return Err(RecordError::NotARecord),
        }
        let mut stream = zstd::stream::read::Decoder::new(record)?;
        stream.window_log_max(limits.zstd_window_log)?;
        Ok(Self {
            stream,
            digester: Digester::new(Algorithm::Sha256),
            limits,
        })
    }

    fn get(&mut self, out: &mut [u8]) -> Result<(), RecordError> {
        self.stream.read_exact(out).map_err(damaged)?;
        self.digester.update(out);
        Ok(())
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut bytes = [0; N];
        self.get(&mut bytes)?;
        Ok(bytes)
    }

    fn next(&mut self) -> Result<Part, RecordError> {
        match self.number::<1>()? {
            [RAW] => Ok(Part::Raw(u32::from_le_bytes(self.number()?))),
            [OBJECT] => {
                let id = ObjectId::from_digest(Digest::sha256(self.number()?));
                let size_bytes = u64::from_le_bytes(self.number()?);
                let runs = u32::from_le_bytes(self.number()?);
                if runs as usize > self.limits.sparse_segments {
                    return Err(RecordError::Damaged {
                        what: "an object of too many runs",
                    });
                }
                let (mut map, mut packed) = (Vec::new(), 0_u64);
                for _ in 0..runs {
                    map.push(u64::from_le_bytes(self.number()?));
                    let size = u64::from_le_bytes(self.number()?);
                    packed = packed.saturating_add(size);
                    map.push(size);
                }
                let extent =
                    Extent::checked(size_bytes, packed, &map, &self.limits).map_err(|_| {
                        RecordError::Damaged {
                            what: "runs that overlap",
                        }
                    })?;
                Ok(Part::Object { id, extent })
            }
            [END] => {
                let wanted = self.digester.clone().finish();
                let mut sum = [0; 32];
                self.stream.read_exact(&mut sum).map_err(damaged)?;
                if wanted != Digest::sha256(sum) {
                    return Err(RecordError::Damaged {
                        what: "its checksum is wrong",
                    });
                }
                if self.stream.read(&mut [0]).map_err(damaged)? != 0 {
                    return Err(RecordError::Damaged {
                        what: "it goes on after its end",
                    });
                }
                Ok(Part::End)
            }
            _ => Err(RecordError::Damaged {
                what: "an unknown part",
            }),
        }
    }
}

/// The decompressor's errors are the record's damage.
fn damaged(error: io::Error) -> RecordError {
    match error.raw_os_error() {
        Some(_) => RecordError::Io(error),
        None => RecordError::Damaged {
            what: "it does not decompress",
        },
    }
}

/// A record as a tar to the header state machine.
struct Stored<R: Read> {
    parts: Parts<R>,
    /// Literal bytes left of the current part.
    left: usize,
    ended: bool,
    position: u64,
    failure: Option<RecordError>,
}

impl<R: Read> Stored<R> {
    /// Keeps the typed error for later; the state machine only sees that it is over.
    fn fail(&mut self, error: RecordError) -> io::Error {
        self.failure.get_or_insert(error);
        io::ErrorKind::InvalidData.into()
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        let mut filled = 0;
        while filled < out.len() && !self.ended {
            if self.left == 0 {
                match self.parts.next()? {
                    Part::Raw(count) => self.left = count as usize,
                    Part::End => self.ended = true,
                    Part::Object { .. } => {
                        return Err(RecordError::Damaged {
                            what: "an object among headers",
                        });
                    }
                }
                continue;
            }
            let count = self.left.min(out.len() - filled);
            self.parts.get(&mut out[filled..filled + count])?;
            self.left -= count;
            filled += count;
        }
        Ok(filled)
    }

    fn expect_object(&mut self, wanted: &Extent) -> Result<ObjectId, RecordError> {
        if self.left != 0 {
            return Err(RecordError::Damaged {
                what: "literal bytes in place of an object",
            });
        }
        match self.parts.next()? {
            Part::Object { id, extent } if extent == *wanted => Ok(id),
            _ => Err(RecordError::Damaged {
                what: "another object than its header says",
            }),
        }
    }
}

impl<R: Read> Source for Stored<R> {
    fn position(&self) -> u64 {
        self.position
    }

    fn raw(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill(out).map_err(|error| self.fail(error))?;
        self.position += count as u64;
        Ok(count)
    }

    fn object(
        &mut self,
        _: &Metadata,
        extent: &Extent,
        _: &Limits,
    ) -> Result<FileContent, ReadLayerError> {
        let id = self
            .expect_object(extent)
            .map_err(|error| self.fail(error))?;
        self.position += extent.packed_bytes();
        Ok(FileContent::Object {
            id,
            size_bytes: extent.size_bytes,
        })
    }
}

/// Reads what a recorded layer does to a tree.
///
/// # Errors
/// [`RecordError`].
pub fn load<R: Read>(record: R, limits: &Limits) -> Result<Changeset, RecordError> {
    let parts = Parts::new(record, *limits)?;
    let mut stored = Stored {
        parts,
        left: 0,
        ended: false,
        position: 0,
        failure: None,
    };
    match read_changes(&mut stored, limits) {
        Ok((changes, _)) if stored.ended => Ok(changes),
        Ok(_) => Err(RecordError::Damaged {
            what: "its end is missing",
        }),
        Err(error) => Err(stored
            .failure
            .unwrap_or_else(|| RecordError::Tar(Box::new(error)))),
    }
}

/// Writes the layer's tar again, bit by bit; its digest is the diffID.
///
/// # Errors
/// [`RecordError`]; what was written is then of no use.
pub fn rebuild_tar<R: Read, W: Write>(
    record: R,
    objects: &dyn ObjectSource,
    limits: &Limits,
    mut out: W,
) -> Result<(), RecordError> {
    let mut parts = Parts::new(record, *limits)?;
    let mut buffer = vec![0; PIECE];
    loop {
        match parts.next()? {
            Part::End => return Ok(out.flush()?),
            Part::Raw(count) => {
                let mut left = count as usize;
                while left > 0 {
                    let now = left.min(buffer.len());
                    parts.get(&mut buffer[..now])?;
                    out.write_all(&buffer[..now])?;
                    left -= now;
                }
            }
            Part::Object { id, extent } => {
                let mut object = objects.open(&id)?;
                for Segment { offset, size_bytes } in extent.segments {
                    object.seek(SeekFrom::Start(offset))?;
                    if io::copy(&mut (&mut object).take(size_bytes), &mut out)? != size_bytes {
                        return Err(RecordError::Damaged {
                            what: "an object is shorter than it says",
                        });
                    }
                }
            }
        }
    }
}
