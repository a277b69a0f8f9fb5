// SPDX-License-Identifier: Apache-2.0
//! Reading layers: one strict tar reader for store, registry and scanner.
//!
//! ```text
//!  tar ──▶ Tape (buffer, diffID) ──▶ header state machine ──▶ Changeset
//!             │                            └─ contents ──▶ ObjectSink (above 64 bytes)
//!             └─ everything else ──▶ layer record (see `record`)
//! ```
//!
//! Understood: ustar, GNU long names and base-256 numbers, PAX, sparse files
//! in all four forms, hard links, devices, FIFOs, whiteouts. An archive that
//! two readers could understand differently is refused, not repaired: wrong
//! checksums, malformed or contradicting extensions, names with `..`, data
//! where none may be, anything behind the end.
//!
//! Of extended attributes the image's own are kept: `user.*`, `trusted.*`,
//! file capabilities, POSIX ACLs. Those that would steer the overlay file
//! system (`trusted.overlay.*`, `user.overlay.*`) and those that are the host's
//! to give (`security.selinux`, `security.ima`, …) are dropped and counted: a
//! tar made from an overlay's upper directory has them without ill intent.
//!
//! Why not a library: the raw bytes between contents must be kept (a layer is
//! given back bit by bit), times need nanoseconds before 1970, and sparse
//! files must come out right; no crate does the three together.
//!
//! # Source
//! POSIX.1-2017 pax; GNU tar manual "Basic Tar Format", "Storing Sparse
//! Files"; image-spec v1.1 "Image Layer Filesystem Changeset".

mod header;
mod pax;
mod reader;
pub(crate) mod sparse;
mod tape;

use std::io::{self, Read, Write};

use gantry_oci::{DiffId, Kind, Limits, ObjectId};

use crate::changes::Changeset;
use crate::compress::DecompressError;
use crate::tree::Metadata;

pub(crate) use reader::{Source, read_changes};
pub use sparse::Segment;

/// Takes files' contents.
pub trait ObjectSink {
    /// Keeps one file's contents, all `size_bytes` of them, and names them.
    ///
    /// `metadata` is that of the entry, for those who want it on the inode.
    ///
    /// # Errors
    /// Those of `content`, unchanged, and of keeping it.
    fn put(
        &mut self,
        metadata: &Metadata,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> io::Result<ObjectId>;
}

/// What a layer turned out to be.
#[derive(Debug)]
pub struct LayerSummary {
    /// The digest of all its bytes, SHA-256.
    pub diff_id: DiffId,
    /// The number of its bytes.
    pub size_bytes: u64,
    /// What it does to a tree.
    pub changes: Changeset,
    /// Extended attributes that were left out.
    pub dropped_xattrs: u64,
}

/// Why a tar is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadLayerError {
    /// The bytes could not be read, or the contents not kept.
    #[error("read layer")]
    Io(#[from] io::Error),
    /// The archive ends within an entry.
    #[error("layer ends within an entry, at byte {offset}")]
    Truncated {
        /// Where.
        offset: u64,
    },
    /// A header is damaged.
    #[error("tar header at byte {offset} has {what}")]
    Header {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry that readers could understand in two ways, or that tries to escape.
    #[error("entry {name:?} has {what}")]
    Entry {
        /// The entry, printably.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// More of something than the table of limits allows.
    #[error("layer has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The cap.
        limit: u64,
    },
    /// Bytes that are not zero after the archive's end.
    #[error("layer goes on after its end, at byte {offset}")]
    TrailingData {
        /// Where.
        offset: u64,
    },
}

impl ReadLayerError {
    /// `Corrupt` for damage, `Unsafe` for what looks like a trick.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => match DecompressError::find(error) {
                Some(error) => error.kind(),
                None => Kind::of_io(error),
            },
            Self::Truncated { .. } | Self::Header { .. } => Kind::Corrupt,
            Self::Entry { .. } | Self::TooMany { .. } | Self::TrailingData { .. } => Kind::Unsafe,
        }
    }
}

/// Reads a layer's uncompressed tar to its end.
///
/// Contents above [`Limits::inline_bytes`] go to `sink`; everything else, with
/// references to them, to `record`, from which the tar can be made again.
///
/// # Errors
/// [`ReadLayerError`]. What `sink` and `record` got is then of no use.
pub fn read_layer<R: Read, S: ObjectSink + ?Sized, W: Write>(
    tar: R,
    limits: &Limits,
    sink: &mut S,
    record: W,
) -> Result<LayerSummary, ReadLayerError> {
    let mut source = tape::Live::new(tar, sink, crate::record::Writer::new(record)?);
    let (changes, dropped_xattrs) = read_changes(&mut source, limits)?;
    let (digest, size_bytes) = source.finish()?;
    Ok(LayerSummary {
        diff_id: DiffId::from_digest(digest),
        size_bytes,
        changes,
        dropped_xattrs,
    })
}

/// Renders hostile bytes for a message.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}
