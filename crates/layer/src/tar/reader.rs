// SPDX-License-Identifier: Apache-2.0
//! The header state machine. It runs over a tar that arrives and over the
//! record of one, so that both are understood by the same code.

use std::io;

use gantry_oci::{Limits, RelPath};

use super::header::{BLOCK, Dialect, Header, number};
use super::pax::{self, Pax};
use super::sparse::{Expand, Extent};
use super::{ReadLayerError, printable};
use crate::changes::{Change, Changeset, Operation};
use crate::tree::{DeviceNumber, FileContent, Metadata, NodeKind};

/// Numbers above this do not fit in a ustar size field; only then may an
/// extended header give a size.
const USTAR_SIZE_MAX: u64 = 0o77_777_777_777;
const WHITEOUT: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";

/// Where a tar's bytes come from.
pub trait Source {
    /// Bytes passed so far.
    fn position(&self) -> u64;

    /// Fills `out` with bytes that are kept literally; fewer at the end only.
    fn raw(&mut self, out: &mut [u8]) -> io::Result<usize>;

    /// Passes a file's contents and names them.
    fn object(
        &mut self,
        metadata: &Metadata,
        extent: &Extent,
        limits: &Limits,
    ) -> Result<FileContent, ReadLayerError>;
}

/// Reads to the end; the entries, and how many xattrs were dropped.
pub fn read_changes<S: Source>(
    source: &mut S,
    limits: &Limits,
) -> Result<(Changeset, u64), ReadLayerError> {
    let mut reader = Reader {
        source,
        limits,
        changes: Vec::new(),
        dropped_xattrs: 0,
        entries: 0,
        logical: 0,
    };
    reader.run()?;
    Ok((
        Changeset {
            changes: reader.changes,
        },
        reader.dropped_xattrs,
    ))
}

struct Reader<'a, S> {
    source: &'a mut S,
    limits: &'a Limits,
    changes: Vec<Change>,
    dropped_xattrs: u64,
    entries: u64,
    /// Logical bytes of all files: sparse ones cost nothing on the tape.
    logical: u64,
}

/// What extension headers said of the entry that follows them.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }
}

/// An entry with all its headers applied.
struct Entry {
    name: Vec<u8>,
    link_name: Vec<u8>,
    type_flag: u8,
    /// Bytes of data on the tape.
    size: u64,
    metadata: Metadata,
    device: DeviceNumber,
}

impl Entry {
    fn refuse(&self, what: impl Into<String>) -> ReadLayerError {
        ReadLayerError::Entry {
            name: printable(&self.name),
            what: what.into(),
        }
    }
}

impl<S: Source> Reader<'_, S> {
    fn run(&mut self) -> Result<(), ReadLayerError> {
        let mut extensions = Extensions::default();
        let mut block = [0; BLOCK];
        loop {
            let offset = self.source.position();
            if !self.block(&mut block)? || block == [0; BLOCK] {
                if !extensions.is_empty() {
                    return Err(ReadLayerError::Header {
                        offset,
                        what: "an extended header in front of nothing",
                    });
                }
                return self.only_zeros_follow();
            }
            let header = Header(&block);
            let bad = |what| ReadLayerError::Header { offset, what };
            if !header.checksum_fits() {
                return Err(bad("a wrong checksum"));
            }
            match header.dialect() {
                Dialect::Unknown => return Err(bad("an unknown magic")),
                Dialect::Old if matches!(header.type_flag(), b'x' | b'g' | b'L' | b'K') => {
                    return Err(bad("an extension that is not of its dialect"));
                }
                Dialect::Old if !header.is_plain_old() => {
                    return Err(bad("fields that are not of its dialect"));
                }
                _ => {}
            }
            if !header.numbers_are_well_formed() {
                return Err(bad("a malformed number"));
            }
            let size = header
                .size()
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| bad("a malformed size"))?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(ReadLayerError::TooMany {
                    what: "entries",
                    limit: self.limits.entries,
                });
            }
            match header.type_flag() {
                b'x' => {
                    if extensions.pax.is_some() {
                        return Err(bad("two extended headers in a row"));
                    }
                    let data = self.extension(size, offset)?;
                    let pax = pax::parse(&data, self.limits)
                        .map_err(|what| named("extended header", what))?;
                    extensions.pax = Some(pax);
                }
                b'g' => {
                    let data = self.extension(size, offset)?;
                    pax::check_global(&data).map_err(|what| named("global header", what))?;
                }
                b'L' => set_once(
                    &mut extensions.long_name,
                    self.long_text(size, offset)?,
                    offset,
                )?,
                b'K' => set_once(
                    &mut extensions.long_link,
                    self.long_text(size, offset)?,
                    offset,
                )?,
                _ => {
                    let entry =
                        self.entry(&header, size, std::mem::take(&mut extensions), offset)?;
                    self.take(entry.0, entry.1, &block)?;
                }
            }
        }
    }

    /// Reads a block; whether there was one.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, ReadLayerError> {
        match self.source.raw(block)? {
            0 => Ok(false),
            BLOCK => Ok(true),
            _ => Err(ReadLayerError::Truncated {
                offset: self.source.position(),
            }),
        }
    }

    /// Reads bytes that must be there.
    fn exact(&mut self, out: &mut [u8]) -> Result<(), ReadLayerError> {
        if self.source.raw(out)? == out.len() {
            return Ok(());
        }
        Err(ReadLayerError::Truncated {
            offset: self.source.position(),
        })
    }

    fn padding(&mut self, size: u64) -> Result<(), ReadLayerError> {
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if rest == 0 {
            return Ok(());
        }
        self.exact(&mut [0; BLOCK][rest..])
    }

    fn extension(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, ReadLayerError> {
        let fits = usize::try_from(size)
            .ok()
            .filter(|_| size <= self.limits.extension_bytes);
        let Some(fits) = fits else {
            return Err(ReadLayerError::Header {
                offset,
                what: "an extension larger than allowed",
            });
        };
        // Whole blocks: some readers go on to the first NUL, past the size.
        let mut data = vec![0; fits.next_multiple_of(BLOCK)];
        self.exact(&mut data)?;
        if data[fits..].iter().any(|byte| *byte != 0) {
            return Err(ReadLayerError::Header {
                offset,
                what: "an extension with more behind its end",
            });
        }
        data.truncate(fits);
        Ok(data)
    }

    /// GNU's long names end in a NUL, and only there.
    fn long_text(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, ReadLayerError> {
        let mut data = self.extension(size, offset)?;
        while data.last() == Some(&0) {
            data.pop();
        }
        if data.is_empty() || data.contains(&0) {
            return Err(ReadLayerError::Header {
                offset,
                what: "a malformed long name",
            });
        }
        Ok(data)
    }

    fn only_zeros_follow(&mut self) -> Result<(), ReadLayerError> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let offset = self.source.position();
            let count = self.source.raw(&mut buffer)?;
            if buffer[..count].iter().any(|byte| *byte != 0) {
                return Err(ReadLayerError::TrailingData { offset });
            }
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Applies the extensions to a header.
    fn entry(
        &mut self,
        header: &Header<'_>,
        header_size: u64,
        extensions: Extensions,
        offset: u64,
    ) -> Result<(Entry, pax::PaxSparse), ReadLayerError> {
        let bad = |what| ReadLayerError::Header { offset, what };
        let pax = extensions.pax.unwrap_or_default();
        if pax.path.is_some() && extensions.long_name.is_some()
            || pax.link_path.is_some() && extensions.long_link.is_some()
        {
            return Err(bad("names in two kinds of extensions"));
        }
        let name = pax
            .path
            .or(extensions.long_name)
            .unwrap_or_else(|| header.name());
        let link_name = pax
            .link_path
            .or(extensions.long_link)
            .unwrap_or_else(|| header.link_name().to_vec());
        let size = match pax.size {
            Some(size) if size == header_size => size,
            Some(size) if size > USTAR_SIZE_MAX && header_size == 0 => size,
            Some(_) => return Err(bad("another size than its extended header")),
            None => header_size,
        };
        let id = |stated: Option<u64>, field: Option<i128>, what| {
            let value = stated.map(i128::from).or(field);
            // The last id means "none" to the kernel.
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| bad(what))
        };
        let (mtime_s, mtime_ns) = match pax.mtime {
            Some(time) => time,
            None => {
                let seconds = header.mtime().and_then(|time| i64::try_from(time).ok());
                let plausible = |time: &i64| (-(1 << 53)..1 << 53).contains(time);
                (
                    seconds
                        .filter(plausible)
                        .ok_or_else(|| bad("a malformed time"))?,
                    0,
                )
            }
        };
        let mode = header
            .mode()
            .filter(|mode| *mode >= 0)
            .ok_or_else(|| bad("a malformed mode"))?;
        let metadata = Metadata {
            mode: u16::try_from(mode & 0o7777).unwrap_or(0),
            uid: id(pax.uid, header.uid(), "a user id that no system has")?,
            gid: id(pax.gid, header.gid(), "a group id that no system has")?,
            mtime_s,
            mtime_ns,
            xattrs: pax.xattrs,
        };
        self.dropped_xattrs += pax.dropped_xattrs;
        let type_flag = header.type_flag();
        let device = match type_flag {
            b'3' | b'4' => {
                device(header).ok_or_else(|| bad("a device number that no kernel has"))?
            }
            _ => DeviceNumber::default(),
        };
        Ok((
            Entry {
                name,
                link_name,
                type_flag,
                size,
                metadata,
                device,
            },
            pax.sparse,
        ))
    }

    /// Reads an entry's data and notes what it does.
    fn take(
        &mut self,
        mut entry: Entry,
        sparse: pax::PaxSparse,
        block: &[u8; BLOCK],
    ) -> Result<(), ReadLayerError> {
        if sparse.is_used() && !matches!(entry.type_flag, b'0' | 0) {
            return Err(entry.refuse("sparse records though it is no file"));
        }
        match entry.type_flag {
            // Old tars write a directory as a file with a slash behind its name.
            0 if entry.name.last() == Some(&b'/') => self.no_data(&entry)?,
            // Of any other type it is a directory to GNU tar, a file to Go.
            b'0'..=b'4' | b'6' | b'7' | b'S' if entry.name.last() == Some(&b'/') => {
                return Err(entry.refuse("a slash behind its name though it is no directory"));
            }
            b'0' | 0 | b'7' | b'S' => return self.file(entry, sparse, block),
            b'1'..=b'6' => self.no_data(&entry)?,
            other => {
                return Err(entry.refuse(format!(
                    "type {:?}, which is not supported",
                    char::from(other)
                )));
            }
        }
        let path = self.path(&entry, &entry.name)?;
        let kind = match entry.type_flag {
            b'1' => {
                let target = self.path(&entry, &entry.link_name)?;
                if target.is_root() || path.is_root() {
                    return Err(entry.refuse("a hard link of the root"));
                }
                return self.note(path, Operation::HardLink { target }, &entry);
            }
            b'2' => {
                let target = std::mem::take(&mut entry.link_name);
                if target.is_empty()
                    || target.contains(&0)
                    || target.len() > self.limits.symlink_bytes
                {
                    return Err(
                        entry.refuse("a symlink target that is empty, too long or has a NUL")
                    );
                }
                NodeKind::Symlink(target.into())
            }
            b'3' => NodeKind::CharDevice(entry.device),
            b'4' => NodeKind::BlockDevice(entry.device),
            b'6' => NodeKind::Fifo,
            _ => NodeKind::directory(),
        };
        let metadata = std::mem::take(&mut entry.metadata);
        self.note(path, Operation::Upsert { metadata, kind }, &entry)
    }

    fn no_data(&self, entry: &Entry) -> Result<(), ReadLayerError> {
        if entry.size == 0 {
            return Ok(());
        }
        Err(entry.refuse("data though it is no file"))
    }

    fn path(&self, entry: &Entry, name: &[u8]) -> Result<RelPath, ReadLayerError> {
        RelPath::from_archive_name(name, self.limits)
            .map_err(|error| entry.refuse(format!("a bad name: {error}")))
    }

    fn file(
        &mut self,
        mut entry: Entry,
        sparse: pax::PaxSparse,
        block: &[u8; BLOCK],
    ) -> Result<(), ReadLayerError> {
        if let Some(name) = &sparse.name {
            entry.name.clone_from(name);
        }
        let extent = self.extent(&entry, &sparse, block)?;
        if extent.size_bytes > self.limits.file_bytes {
            return Err(ReadLayerError::TooMany {
                what: "bytes in one file",
                limit: self.limits.file_bytes,
            });
        }
        self.logical = self.logical.saturating_add(extent.size_bytes);
        if self.logical > self.limits.layer_logical_bytes {
            let limit = self.limits.layer_logical_bytes;
            return Err(ReadLayerError::TooMany {
                what: "bytes in all files",
                limit,
            });
        }
        let path = self.path(&entry, &entry.name)?;
        if path.is_root() {
            return Err(entry.refuse("the root's name though it is no directory"));
        }
        let whiteout = path
            .split_last()
            .is_some_and(|(_, name)| name.as_bytes().starts_with(WHITEOUT));
        if whiteout && extent.size_bytes > self.limits.inline_bytes {
            return Err(entry.refuse("data though it is a whiteout"));
        }
        let content = if extent.size_bytes > self.limits.inline_bytes {
            self.source.object(&entry.metadata, &extent, self.limits)?
        } else {
            self.inline(&extent)?
        };
        self.padding(entry.size)?;
        let metadata = std::mem::take(&mut entry.metadata);
        self.note(
            path,
            Operation::Upsert {
                metadata,
                kind: NodeKind::File(content),
            },
            &entry,
        )
    }

    fn inline(&mut self, extent: &Extent) -> Result<FileContent, ReadLayerError> {
        // At most `inline_bytes`, checked by the caller.
        let mut packed = vec![0; usize::try_from(extent.packed_bytes()).unwrap_or(0)];
        self.exact(&mut packed)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut Expand::new(&mut &packed[..], extent), &mut bytes)?;
        Ok(FileContent::Inline(bytes.into()))
    }

    /// Where the file's bytes are, by whichever sparse form it uses.
    fn extent(
        &mut self,
        entry: &Entry,
        sparse: &pax::PaxSparse,
        block: &[u8; BLOCK],
    ) -> Result<Extent, ReadLayerError> {
        let checked = |real: u64, packed: u64, map: &[u64], limits: &Limits| {
            Extent::checked(real, packed, map, limits).map_err(|what| entry.refuse(what))
        };
        if entry.type_flag == b'S' {
            let (real, map) = self.old_gnu_map(entry, block)?;
            return checked(real, entry.size, &map, self.limits);
        }
        if !sparse.is_used() {
            return Ok(Extent::whole(entry.size));
        }
        let real = sparse
            .real_size
            .ok_or_else(|| entry.refuse("a sparse map without a size"))?;
        match (sparse.major, sparse.minor) {
            (Some(1), Some(0)) if sparse.map.is_none() && sparse.pairs.is_empty() => {
                let (map, used) = self.map_in_data(entry)?;
                checked(real, entry.size - used, &map, self.limits)
            }
            (None | Some(0), _) => {
                let map = match &sparse.map {
                    Some(_) if !sparse.pairs.is_empty() => {
                        return Err(entry.refuse("two sparse maps"));
                    }
                    Some(text) => text
                        .split(|b| *b == b',')
                        .map(pax::decimal)
                        .take(2 * self.limits.sparse_segments + 2)
                        .collect::<Option<Vec<u64>>>()
                        .ok_or_else(|| entry.refuse("a malformed sparse map"))?,
                    None => sparse.pairs.clone(),
                };
                if sparse
                    .blocks
                    .is_some_and(|blocks| blocks != map.len() as u64 / 2)
                {
                    return Err(entry.refuse("a sparse map of another length than it says"));
                }
                checked(real, entry.size, &map, self.limits)
            }
            _ => Err(entry.refuse("an unknown version of sparse maps")),
        }
    }

    /// Form 1.0: decimal numbers, one a line, in whole blocks before the data.
    fn map_in_data(&mut self, entry: &Entry) -> Result<(Vec<u64>, u64), ReadLayerError> {
        let malformed = || entry.refuse("a malformed sparse map");
        let mut used = 0;
        let mut numbers: Vec<u64> = Vec::new();
        let mut digits: Option<u64> = None;
        let mut wanted: Option<u64> = None;
        let mut block = [0; BLOCK];
        loop {
            used += BLOCK as u64;
            if used > entry.size {
                return Err(malformed());
            }
            self.exact(&mut block)?;
            for byte in &block {
                if wanted == Some(0) {
                    break;
                }
                match byte {
                    b'0'..=b'9' => {
                        let value = digits.unwrap_or(0).checked_mul(10).ok_or_else(malformed)?;
                        digits = Some(
                            value
                                .checked_add(u64::from(byte - b'0'))
                                .ok_or_else(malformed)?,
                        );
                    }
                    b'\n' => {
                        let value = digits.take().ok_or_else(malformed)?;
                        wanted = Some(match wanted {
                            None if value > self.limits.sparse_segments as u64 => {
                                return Err(malformed());
                            }
                            None => 2 * value,
                            Some(left) => {
                                numbers.push(value);
                                left - 1
                            }
                        });
                    }
                    _ => return Err(malformed()),
                }
            }
            if wanted == Some(0) {
                return Ok((numbers, used));
            }
        }
    }

    /// The old form: four pairs in the header, 21 in each block that follows.
    fn old_gnu_map(
        &mut self,
        entry: &Entry,
        block: &[u8; BLOCK],
    ) -> Result<(u64, Vec<u64>), ReadLayerError> {
        let malformed = || entry.refuse("a malformed sparse map");
        let header = Header(block);
        if header.dialect() != Dialect::Gnu {
            return Err(malformed());
        }
        let (pairs, mut more, real) = header.sparse();
        let real = real
            .and_then(|real| u64::try_from(real).ok())
            .ok_or_else(malformed)?;
        let mut map = Vec::new();
        read_pairs(pairs, &mut map).ok_or_else(malformed)?;
        while more {
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            read_pairs(&block[..504], &mut map).ok_or_else(malformed)?;
            more = block[504] != 0;
            if map.len() / 2 > self.limits.sparse_segments {
                return Err(malformed());
            }
        }
        Ok((real, map))
    }

    /// Notes an entry, turning whiteouts into what they mean.
    fn note(
        &mut self,
        path: RelPath,
        operation: Operation,
        entry: &Entry,
    ) -> Result<(), ReadLayerError> {
        let Some((parent, name)) = path.split_last() else {
            if !matches!(&operation, Operation::Upsert { kind, .. } if kind.is_directory()) {
                return Err(entry.refuse("the root's name though it is no directory"));
            }
            self.changes.push(Change { path, operation });
            return Ok(());
        };
        // What aufs left behind means nothing to anybody else.
        if parent
            .components()
            .any(|component| component.starts_with(AUFS))
        {
            return Ok(());
        }
        if parent
            .components()
            .any(|component| component.starts_with(WHITEOUT))
        {
            return Err(entry.refuse("a whiteout as its parent"));
        }
        let change = match name.as_bytes().strip_prefix(WHITEOUT) {
            None => Change { path, operation },
            Some(b".wh..opq") => Change {
                path: parent,
                operation: Operation::Opaque,
            },
            Some(hidden) if hidden.starts_with(WHITEOUT) => return Ok(()),
            Some(hidden) => {
                let hidden = hidden
                    .try_into()
                    .map_err(|_| entry.refuse("a whiteout of no name"))?;
                Change {
                    path: parent.join(&hidden),
                    operation: Operation::Whiteout,
                }
            }
        };
        self.changes.push(change);
        Ok(())
    }
}

fn named(name: &str, what: String) -> ReadLayerError {
    ReadLayerError::Entry {
        name: name.to_owned(),
        what,
    }
}

fn set_once(slot: &mut Option<Vec<u8>>, value: Vec<u8>, offset: u64) -> Result<(), ReadLayerError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ReadLayerError::Header {
            offset,
            what: "two long names in a row",
        }),
    }
}

fn device(header: &Header<'_>) -> Option<DeviceNumber> {
    let (major, minor) = header.device()?;
    let fits =
        |value: i128, bits: u32| u32::try_from(value).ok().filter(|value| *value < 1 << bits);
    Some(DeviceNumber {
        major: fits(major, 12)?,
        minor: fits(minor, 20)?,
    })
}

/// Reads pairs of 12-byte numbers until an empty one.
fn read_pairs(data: &[u8], map: &mut Vec<u64>) -> Option<()> {
    for pair in data.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        for field in [&pair[..12], &pair[12..]] {
            map.push(u64::try_from(number(field)?).ok()?);
        }
    }
    Some(())
}
