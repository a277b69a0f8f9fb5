// SPDX-License-Identifier: Apache-2.0
//! From a tree to an image: number the inodes, lay them out, write them down.
//!
//! Three passes over the same list, in memory of some tens of bytes an inode;
//! the image itself is never held. Extended attributes are derived anew in
//! each pass from the tree, because storing them would cost more than that.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::{self, Write};

use gantry_oci::{Algorithm, Kind, ObjectId, PathComponent};

use super::format::*;
use crate::tree::{FileContent, Metadata, NodeId, NodeKind, Tree};
use crate::verity::ObjectHasher;

/// The largest contents that an image may carry itself, in bytes.
const INLINE_LIMIT: usize = 4096;
/// All extended attributes of one inode as stored: what other readers accept.
const XATTR_BODY_LIMIT: u64 = u16::MAX as u64;
/// An inode may share this many extended attributes; the rest are its own.
const SHARED_LIMIT: u32 = 0x80;
/// Chunk maps longer than this might not fit beside their inode.
const CHUNKS_LIMIT: u64 = 1000;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErofsSummary {
    /// The fs-verity digest of the image: what composefs calls its image ID.
    pub id: ObjectId,
    /// Length of the image.
    pub size_bytes: u64,
    /// Inodes in it, with the whiteouts that hide the object directories.
    pub inodes: u64,
}

/// Why a tree could not be written as an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteImageError {
    /// The destination failed.
    #[error("write metadata image")]
    Io(#[from] io::Error),
    /// A node holds what the format cannot express.
    #[error("write metadata image: {path:?} {problem}")]
    Inexpressible {
        /// One path of the node, printably.
        path: String,
        /// What is wrong with it.
        problem: Inexpressible,
    },
    /// More inodes or bytes than 32-bit block addresses reach.
    #[error("write metadata image: tree is too large for the format")]
    TooLarge,
}

/// What the format has no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inexpressible {
    /// An extended attribute's name is empty, has a zero byte or more than 255 bytes.
    XattrName,
    /// An extended attribute's value is longer than 65,535 bytes.
    XattrValue,
    /// All extended attributes together are longer than 65,535 bytes.
    XattrTotal,
    /// A symlink's target is empty, has a zero byte or more than 4,095 bytes.
    SymlinkTarget,
    /// A device number's major has more than 12 bits or its minor more than 20.
    DeviceNumber,
    /// The nanoseconds are a second or more.
    Mtime,
    /// Contents that should be an object are in the tree.
    InlineContent,
    /// A file is longer than its map of holes can say.
    FileSize,
    /// An object is named by something else than 32 bytes of SHA-256.
    ObjectId,
}

impl std::fmt::Display for Inexpressible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::XattrName => "has an extended attribute with an invalid name",
            Self::XattrValue => "has an extended attribute longer than 65535 bytes",
            Self::XattrTotal => "has extended attributes of more than 65535 bytes together",
            Self::SymlinkTarget => "has an invalid symlink target",
            Self::DeviceNumber => "has a device number out of range",
            Self::Mtime => "has a modification time with a second or more of nanoseconds",
            Self::InlineContent => "carries contents that are too long to be inline",
            Self::FileSize => "is too long",
            Self::ObjectId => "has an object not named by SHA-256",
        })
    }
}

impl WriteImageError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => Kind::of_io(error),
            Self::Inexpressible { .. } => Kind::InvalidInput,
            Self::TooLarge => Kind::Unsafe,
        }
    }
}

/// Writes a tree as a metadata image, from front to back.
///
/// The same tree gives the same bytes, on every host and in every order that
/// it was built.
///
/// # Durability
/// None; the caller syncs.
///
/// # Errors
/// [`Kind::InvalidInput`] if a node holds what the format cannot express;
/// [`Kind::Unsafe`] if there are too many; else what the destination said.
pub fn write<W: Write>(tree: &Tree, out: &mut W) -> Result<ErofsSummary, WriteImageError> {
    let mut image = Image::number(tree)?;
    let shared = image.share_xattrs()?;
    let layout = image.lay_out(&shared)?;
    image.write(&shared, &layout, Out::new(out))
}

/// One inode of the image.
struct Inode {
    /// The node, or nothing for a whiteout that hides an object directory.
    node: Option<NodeId>,
    parent: u32,
    links: u32,
    mode: u16,
    compact: bool,
    /// Whether a child is an escaped whiteout.
    has_whiteouts: bool,
    padding: u16,
    xattr_bytes: u32,
    /// Blocks of data apart from the inode, and bytes of it behind the inode.
    blocks: u32,
    tail_bytes: u32,
    slot: u32,
}

/// One extended attribute as stored.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Xattr<'t> {
    name: Cow<'t, [u8]>,
    value: Value<'t>,
}

/// A value, of which the two frequent kinds are only described.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Value<'t> {
    Bytes(&'t [u8]),
    Metacopy(&'t [u8]),
    Redirect(&'t [u8]),
}

impl Value<'_> {
    fn source(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) | Self::Metacopy(bytes) | Self::Redirect(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Metacopy(digest) => 4 + digest.len(),
            Self::Redirect(digest) => 2 + 2 * digest.len(),
        }
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            // struct ovl_metacopy: version, length, flags, SHA-256.
            Self::Metacopy(digest) => {
                out.extend_from_slice(&[0, 36, 0, 1]);
                out.extend_from_slice(digest);
            }
            Self::Redirect(digest) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                for (at, byte) in digest.iter().enumerate() {
                    if at < 2 {
                        out.push(b'/');
                    }
                    out.push(DIGITS[usize::from(byte >> 4)]);
                    out.push(DIGITS[usize::from(byte & 15)]);
                }
            }
        }
    }

    /// Compares as the stored bytes would, which all grow with these.
    fn cmp(&self, other: &Self) -> Ordering {
        self.len()
            .cmp(&other.len())
            .then_with(|| self.source().cmp(other.source()))
    }
}

impl<'t> Xattr<'t> {
    fn new(name: &'t [u8], value: Value<'t>) -> Self {
        Self {
            name: Cow::Borrowed(name),
            value,
        }
    }

    fn stored_bytes(&self) -> u64 {
        let (_, rest) = split_xattr_name(&self.name);
        (XATTR_ENTRY_BYTES + rest.len() as u64 + self.value.len() as u64).next_multiple_of(4)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (index, rest) = split_xattr_name(&self.name);
        let start = out.len();
        // Both lengths were checked when the attributes were first met.
        let name_len = u8::try_from(rest.len()).unwrap_or(u8::MAX);
        let value_len = u16::try_from(self.value.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&[name_len, index]);
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(rest);
        self.value.append_to(out);
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    }
}

/// Where each shared attribute lies, and all of them in their order.
struct Shared<'t> {
    offsets: HashMap<Xattr<'t>, Use>,
    order: Vec<Xattr<'t>>,
    bytes: u64,
}

#[derive(Default)]
struct Use {
    count: u32,
    offset: u32,
}

impl Shared<'_> {
    fn offset(&self, xattr: &Xattr<'_>) -> Option<u32> {
        self.offsets
            .get(xattr)
            .filter(|usage| usage.count > 1)
            .map(|usage| usage.offset)
    }

    /// Which of an inode's attributes are shared, in their order.
    fn split<'a>(
        &self,
        xattrs: &'a [Xattr<'a>],
    ) -> impl Iterator<Item = (&'a Xattr<'a>, Option<u32>)> {
        let mut taken = 0;
        xattrs.iter().map(move |xattr| {
            let offset = if taken < SHARED_LIMIT {
                self.offset(xattr)
            } else {
                None
            };
            taken += u32::from(offset.is_some());
            (xattr, offset)
        })
    }
}

struct Layout {
    inodes_end: u64,
    data_start: u64,
    data_blocks: u64,
}

struct Entry<'t> {
    name: &'t [u8],
    inode: u32,
}

impl Entry<'_> {
    fn stored_bytes(&self) -> usize {
        DIRENT_BYTES + self.name.len()
    }
}

const fn stub_names() -> [[u8; 2]; 256] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut names = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        names[at] = [DIGITS[at / 16], DIGITS[at % 16]];
        at += 1;
    }
    names
}

/// Names of the directories that objects lie in.
static STUB_NAMES: [[u8; 2]; 256] = stub_names();

struct Image<'t> {
    tree: &'t Tree,
    inodes: Vec<Inode>,
    /// Inode of each node of the tree, by arena position.
    inode_of: Vec<u32>,
    /// Inode of each entry of `STUB_NAMES`; zero where the tree has the name.
    stubs: Vec<u32>,
    /// The earliest time: inodes that have it need not store it.
    epoch: (i64, u32),
    escapes_whiteouts: bool,
    has_acl: bool,
}

impl<'t> Image<'t> {
    /// Lists the inodes breadth first.
    fn number(tree: &'t Tree) -> Result<Self, WriteImageError> {
        let root = tree.root();
        let mut image = Self {
            tree,
            inodes: Vec::with_capacity(tree.len() + STUB_NAMES.len()),
            inode_of: vec![0; tree.arena_len()],
            stubs: vec![0; STUB_NAMES.len()],
            epoch: (i64::MAX, 0),
            escapes_whiteouts: false,
            has_acl: false,
        };
        let primary = primary_names(tree);
        image.add(Some(root), 0)?;
        let mut at = 0;
        while at < image.inodes.len() {
            if let Some(directory) = image.inodes[at]
                .node
                .filter(|id| tree.node(*id).kind.is_directory())
            {
                image.add_children(at, directory, &primary)?;
            }
            at += 1;
        }
        Ok(image)
    }

    fn add_children(
        &mut self,
        at: usize,
        directory: NodeId,
        primary: &HashMap<NodeId, (NodeId, &PathComponent)>,
    ) -> Result<(), WriteImageError> {
        let parent = u32::try_from(at).map_err(|_| WriteImageError::TooLarge)?;
        let mut stubs = STUB_NAMES.iter().enumerate().filter(|_| at == 0).peekable();
        for (name, id) in self.tree.children(directory) {
            while let Some((stub, stub_name)) =
                stubs.next_if(|(_, stub)| stub.as_slice() <= name.as_bytes())
            {
                if stub_name.as_slice() != name.as_bytes() {
                    self.stubs[stub] = self.add(None, parent)?;
                }
            }
            let kind = &self.tree.node(id).kind;
            if kind.is_directory() {
                self.inodes[at].links = self.inodes[at].links.saturating_add(1);
            }
            if primary
                .get(&id)
                .is_some_and(|first| *first != (directory, name))
            {
                continue;
            }
            if is_whiteout(kind) {
                self.inodes[at].has_whiteouts = true;
                self.escapes_whiteouts = true;
            }
            self.inode_of[id.index()] = self.add(Some(id), parent)?;
        }
        for (stub, _) in stubs {
            self.stubs[stub] = self.add(None, parent)?;
        }
        Ok(())
    }

    fn add(&mut self, node: Option<NodeId>, parent: u32) -> Result<u32, WriteImageError> {
        let index = u32::try_from(self.inodes.len()).map_err(|_| WriteImageError::TooLarge)?;
        let metadata = self.metadata(node);
        self.epoch = self.epoch.min((metadata.mtime_s, metadata.mtime_ns));
        let (mode, links) = match node {
            None => (S_IFCHR | 0o644, 1),
            Some(id) => {
                let kind = &self.tree.node(id).kind;
                let links = if kind.is_directory() {
                    2
                } else {
                    self.tree.names(id)
                };
                (file_type(kind) | metadata.mode & 0o7777, links)
            }
        };
        self.has_acl |= node.is_some()
            && [ACL_ACCESS, ACL_DEFAULT]
                .iter()
                .any(|acl| metadata.xattrs.contains_key(*acl));
        self.inodes.push(Inode {
            node,
            parent,
            links,
            mode,
            compact: false,
            has_whiteouts: false,
            padding: 0,
            xattr_bytes: 0,
            blocks: 0,
            tail_bytes: 0,
            slot: 0,
        });
        Ok(index)
    }

    /// Owner and time: those of the root for what is not in the tree.
    fn metadata(&self, node: Option<NodeId>) -> &'t Metadata {
        &self.tree.node(node.unwrap_or(self.tree.root())).metadata
    }

    fn refuse(&self, node: Option<NodeId>, problem: Inexpressible) -> WriteImageError {
        let path = self
            .tree
            .walk()
            .find(|entry| Some(entry.id) == node)
            .map(|entry| format!("/{}", entry.path_lossy()));
        WriteImageError::Inexpressible {
            path: path.unwrap_or_default(),
            problem,
        }
    }

    /// The attributes of an inode as they are to be stored, sorted by name.
    fn xattrs(&self, inode: &Inode, out: &mut Vec<Xattr<'t>>) {
        out.clear();
        let xattrs = &self.metadata(inode.node).xattrs;
        let Some(id) = inode.node else {
            let label = xattrs.get_key_value(b"security.selinux".as_slice());
            out.extend(label.map(|(name, value)| Xattr::new(name, Value::Bytes(value))));
            return;
        };
        out.extend(xattrs.iter().map(|(name, value)| {
            let name = match name.strip_prefix(OVERLAY_PREFIX) {
                Some(rest) => Cow::Owned([ESCAPED_PREFIX, rest].concat()),
                None => Cow::Borrowed(&**name),
            };
            Xattr {
                name,
                value: Value::Bytes(value),
            }
        }));
        let kind = &self.tree.node(id).kind;
        if let NodeKind::File(FileContent::Object {
            id,
            size_bytes: 1..,
        }) = kind
        {
            let digest = id.digest().as_bytes();
            set(out, METACOPY, Value::Metacopy(digest));
            set(out, REDIRECT, Value::Redirect(digest));
        }
        if is_whiteout(kind) {
            set(out, ESCAPED_WHITEOUT, Value::Bytes(b""));
            set(out, USER_WHITEOUT, Value::Bytes(b""));
        }
        if inode.has_whiteouts {
            set(out, ESCAPED_WHITEOUTS, Value::Bytes(b""));
            set(out, USER_WHITEOUTS, Value::Bytes(b""));
            set(out, ESCAPED_OPAQUE, Value::Bytes(b"x"));
            set(out, USER_OPAQUE, Value::Bytes(b"x"));
        }
        if id == self.tree.root() {
            set(out, OPAQUE, Value::Bytes(b"y"));
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Finds the attributes that several inodes have, and gives them places.
    fn share_xattrs(&self) -> Result<Shared<'t>, WriteImageError> {
        let mut offsets: HashMap<Xattr<'t>, Use> = HashMap::with_capacity(2 * self.inodes.len());
        let mut xattrs = Vec::new();
        for inode in &self.inodes {
            self.xattrs(inode, &mut xattrs);
            for xattr in xattrs.drain(..) {
                let problem = match (xattr.name.len(), xattr.value.len()) {
                    (0 | 256.., _) => Some(Inexpressible::XattrName),
                    (_, 0x1_0000..) => Some(Inexpressible::XattrValue),
                    _ if xattr.name.contains(&0) => Some(Inexpressible::XattrName),
                    _ => None,
                };
                if let Some(problem) = problem {
                    return Err(self.refuse(inode.node, problem));
                }
                offsets.entry(xattr).or_default().count += 1;
            }
        }
        let mut order: Vec<_> = offsets
            .iter()
            .filter(|(_, usage)| usage.count > 1)
            .map(|(xattr, _)| xattr.clone())
            .collect();
        order.sort_unstable_by(|a, b| b.name.cmp(&a.name).then_with(|| b.value.cmp(&a.value)));
        let mut bytes = 0;
        for xattr in &order {
            if let Some(usage) = offsets.get_mut(xattr) {
                usage.offset = u32::try_from(bytes).map_err(|_| WriteImageError::TooLarge)?;
            }
            bytes += xattr.stored_bytes();
        }
        Ok(Shared {
            offsets,
            order,
            bytes,
        })
    }

    /// Decides form, size and place of each inode.
    fn lay_out(&mut self, shared: &Shared<'t>) -> Result<Layout, WriteImageError> {
        let mut position = SUPER_OFFSET + SUPER_BYTES;
        let mut data_blocks = 0;
        let mut xattrs = Vec::new();
        let mut entries = Vec::new();
        for at in 0..self.inodes.len() {
            let (blocks, tail_bytes) = self.data_shape(at, &mut entries)?;
            let inode = &self.inodes[at];
            self.xattrs(inode, &mut xattrs);
            let xattr_bytes = xattr_body_bytes(&xattrs, shared);
            if xattr_bytes > XATTR_BODY_LIMIT {
                return Err(self.refuse(inode.node, Inexpressible::XattrTotal));
            }
            let size_bytes = self.size_bytes(inode, blocks, tail_bytes);
            let compact = self.fits_compact(inode, size_bytes);
            let head_bytes = if compact {
                COMPACT_BYTES
            } else {
                EXTENDED_BYTES
            } + xattr_bytes;
            let aligned = position.next_multiple_of(SLOT_BYTES);
            let place = place_tail(
                inode.mode & S_IFMT == S_IFLNK,
                aligned,
                head_bytes,
                tail_bytes,
            );
            let blocks = blocks + u64::from(place.spilled);
            let tail_bytes = if place.spilled { 0 } else { tail_bytes };
            let start = aligned + place.padding;
            let too_large = |_| WriteImageError::TooLarge;
            let inode = &mut self.inodes[at];
            inode.compact = compact;
            inode.xattr_bytes = u32::try_from(xattr_bytes).map_err(too_large)?;
            inode.padding = u16::try_from(start - position).map_err(too_large)?;
            inode.blocks = u32::try_from(blocks).map_err(too_large)?;
            inode.tail_bytes = u32::try_from(tail_bytes).map_err(too_large)?;
            inode.slot = u32::try_from(start / SLOT_BYTES).map_err(too_large)?;
            data_blocks += blocks;
            position = start + head_bytes + tail_bytes;
        }
        let inodes_end = position.next_multiple_of(SLOT_BYTES);
        let data_start = (inodes_end + shared.bytes).next_multiple_of(BLOCK_BYTES);
        if data_start / BLOCK_BYTES + data_blocks > u64::from(u32::MAX) {
            return Err(WriteImageError::TooLarge);
        }
        Ok(Layout {
            inodes_end,
            data_start,
            data_blocks,
        })
    }

    /// Blocks and tail of an inode's data, before it has a place.
    fn data_shape(
        &self,
        at: usize,
        entries: &mut Vec<Entry<'t>>,
    ) -> Result<(u64, u64), WriteImageError> {
        let inode = &self.inodes[at];
        let Some(id) = inode.node else {
            return Ok((0, 0));
        };
        if self.metadata(inode.node).mtime_ns >= 1_000_000_000 {
            return Err(self.refuse(inode.node, Inexpressible::Mtime));
        }
        let problem = match &self.tree.node(id).kind {
            NodeKind::Directory { .. } => {
                self.entries(at, entries);
                return Ok(directory_shape(entries));
            }
            NodeKind::Symlink(target)
                if matches!(target.len(), 1..=4095) && !target.contains(&0) =>
            {
                return Ok((0, target.len() as u64));
            }
            NodeKind::Symlink(_) => Inexpressible::SymlinkTarget,
            NodeKind::File(FileContent::Inline(bytes)) if bytes.len() <= INLINE_LIMIT => {
                let (blocks, tail) = (
                    bytes.len() as u64 / BLOCK_BYTES,
                    bytes.len() as u64 % BLOCK_BYTES,
                );
                return Ok(if tail > BLOCK_BYTES / 2 {
                    (blocks + 1, 0)
                } else {
                    (blocks, tail)
                });
            }
            NodeKind::File(FileContent::Inline(_)) => Inexpressible::InlineContent,
            NodeKind::File(FileContent::Object { size_bytes: 0, .. }) => return Ok((0, 0)),
            NodeKind::File(FileContent::Object { id, size_bytes }) => match chunking(*size_bytes).1
            {
                _ if id.digest().algorithm() != Algorithm::Sha256 => Inexpressible::ObjectId,
                chunks @ ..=CHUNKS_LIMIT => return Ok((0, 4 * chunks)),
                _ => Inexpressible::FileSize,
            },
            NodeKind::CharDevice(device) | NodeKind::BlockDevice(device) => {
                match encode_device(device.major, device.minor) {
                    Some(_) => return Ok((0, 0)),
                    None => Inexpressible::DeviceNumber,
                }
            }
            NodeKind::Fifo | NodeKind::Socket => return Ok((0, 0)),
        };
        Err(self.refuse(inode.node, problem))
    }

    /// The size that `stat` will report.
    fn size_bytes(&self, inode: &Inode, blocks: u64, tail_bytes: u64) -> u64 {
        match inode.node.map(|id| &self.tree.node(id).kind) {
            Some(NodeKind::Directory { .. }) => blocks * BLOCK_BYTES + tail_bytes,
            Some(NodeKind::File(content)) => content.size_bytes(),
            Some(NodeKind::Symlink(target)) => target.len() as u64,
            _ => 0,
        }
    }

    fn fits_compact(&self, inode: &Inode, size_bytes: u64) -> bool {
        let metadata = self.metadata(inode.node);
        let short = u32::from(u16::MAX);
        (metadata.mtime_s, metadata.mtime_ns) == self.epoch
            && inode.links <= short
            && metadata.uid <= short
            && metadata.gid <= short
            && size_bytes <= u64::from(u32::MAX)
    }

    /// All entries of a directory, with `.`, `..` and stubs, in byte order.
    fn entries(&self, at: usize, out: &mut Vec<Entry<'t>>) {
        out.clear();
        let inode = &self.inodes[at];
        let Some(id) = inode.node else { return };
        let children = self.tree.children(id);
        out.extend(children.map(|(name, id)| Entry {
            name: name.as_bytes(),
            inode: self.inode_of[id.index()],
        }));
        if at == 0 {
            let stubs = STUB_NAMES
                .iter()
                .zip(&self.stubs)
                .filter(|(_, inode)| **inode != 0);
            out.extend(stubs.map(|(name, inode)| Entry {
                name,
                inode: *inode,
            }));
        }
        let own = self.inode_of[id.index()];
        out.extend([
            Entry {
                name: b".",
                inode: own,
            },
            Entry {
                name: b"..",
                inode: inode.parent,
            },
        ]);
        // Mostly sorted already, which this sort is quick with.
        out.sort_by(|a, b| a.name.cmp(b.name));
    }

    fn write<W: Write>(
        &self,
        shared: &Shared<'t>,
        layout: &Layout,
        mut out: Out<'_, W>,
    ) -> Result<ErofsSummary, WriteImageError> {
        self.write_head(layout, &mut out)?;
        let mut next_block = layout.data_start / BLOCK_BYTES;
        let mut xattrs = Vec::new();
        let mut entries = Vec::new();
        for (at, inode) in self.inodes.iter().enumerate() {
            out.pad(u64::from(inode.padding))?;
            self.xattrs(inode, &mut xattrs);
            self.write_inode(at, next_block, &mut out);
            write_xattrs(&xattrs, shared, layout.inodes_end, &mut out.pending);
            self.write_tail(at, &mut entries, &mut out.pending);
            out.flush_if_full()?;
            next_block += u64::from(inode.blocks);
        }
        out.align(SLOT_BYTES)?;
        for xattr in &shared.order {
            xattr.encode(&mut out.pending);
            out.flush_if_full()?;
        }
        out.align(BLOCK_BYTES)?;
        for at in 0..self.inodes.len() {
            self.write_blocks(at, &mut entries, &mut out)?;
        }
        let (id, size_bytes) = out.finish()?;
        Ok(ErofsSummary {
            id,
            size_bytes,
            inodes: self.inodes.len() as u64,
        })
    }

    fn write_head<W: Write>(&self, layout: &Layout, out: &mut Out<'_, W>) -> io::Result<()> {
        let flags = if self.has_acl { HEADER_FLAG_ACL } else { 0 };
        for word in [
            HEADER_MAGIC,
            HEADER_VERSION,
            flags,
            u32::from(self.escapes_whiteouts),
        ] {
            out.pending.extend_from_slice(&word.to_le_bytes());
        }
        out.align(SUPER_OFFSET)?;
        let superblock = &mut out.pending;
        let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        superblock.extend_from_slice(&SUPER_MAGIC.to_le_bytes());
        superblock.extend_from_slice(&[0; 4]); // no checksum
        superblock.extend_from_slice(&FEATURES_COMPATIBLE.to_le_bytes());
        superblock.extend_from_slice(&[12, 0]); // log2 of the block size; no extension
        superblock.extend_from_slice(
            &u16::try_from(self.inodes[0].slot)
                .unwrap_or(u16::MAX)
                .to_le_bytes(),
        );
        superblock.extend_from_slice(&(self.inodes.len() as u64).to_le_bytes());
        superblock.extend_from_slice(&self.epoch.0.to_le_bytes());
        superblock.extend_from_slice(&self.epoch.1.to_le_bytes());
        superblock.extend_from_slice(&low(layout.data_start / BLOCK_BYTES + layout.data_blocks));
        superblock.extend_from_slice(&[0; 4]); // inodes are counted from block 0
        superblock.extend_from_slice(&low(layout.inodes_end / BLOCK_BYTES));
        out.align(SUPER_OFFSET + SUPER_BYTES)
    }

    fn write_inode<W: Write>(&self, at: usize, next_block: u64, out: &mut Out<'_, W>) {
        let inode = &self.inodes[at];
        let metadata = self.metadata(inode.node);
        let kind = inode.node.map(|id| &self.tree.node(id).kind);
        let size_bytes =
            self.size_bytes(inode, u64::from(inode.blocks), u64::from(inode.tail_bytes));
        let chunked = matches!(
            kind,
            Some(NodeKind::File(FileContent::Object {
                size_bytes: 1..,
                ..
            }))
        );
        let layout = match inode.tail_bytes {
            _ if chunked => LAYOUT_CHUNKS,
            0 => LAYOUT_PLAIN,
            _ => LAYOUT_INLINE,
        };
        let union = match kind {
            Some(NodeKind::CharDevice(device) | NodeKind::BlockDevice(device)) => {
                encode_device(device.major, device.minor).unwrap_or(0)
            }
            _ if chunked => chunking(size_bytes).0,
            _ if inode.blocks > 0 => u32::try_from(next_block).unwrap_or(u32::MAX),
            _ => 0,
        };
        let xattr_count = match inode.xattr_bytes {
            0 => 0,
            bytes => (bytes - 12) / 4 + 1,
        };
        let short = |value: u32| u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
        let number = u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes();
        let form = layout << 1 | u16::from(!inode.compact);
        let pending = &mut out.pending;
        pending.extend_from_slice(&form.to_le_bytes());
        pending.extend_from_slice(&short(xattr_count));
        pending.extend_from_slice(&inode.mode.to_le_bytes());
        if inode.compact {
            pending.extend_from_slice(&short(inode.links));
            pending.extend_from_slice(&u32::try_from(size_bytes).unwrap_or(u32::MAX).to_le_bytes());
            pending.extend_from_slice(&[0; 4]);
            pending.extend_from_slice(&union.to_le_bytes());
            pending.extend_from_slice(&number);
            pending.extend_from_slice(&short(metadata.uid));
            pending.extend_from_slice(&short(metadata.gid));
            pending.extend_from_slice(&[0; 4]);
        } else {
            pending.extend_from_slice(&[0; 2]);
            pending.extend_from_slice(&size_bytes.to_le_bytes());
            pending.extend_from_slice(&union.to_le_bytes());
            pending.extend_from_slice(&number);
            pending.extend_from_slice(&metadata.uid.to_le_bytes());
            pending.extend_from_slice(&metadata.gid.to_le_bytes());
            pending.extend_from_slice(&metadata.mtime_s.to_le_bytes());
            pending.extend_from_slice(&metadata.mtime_ns.to_le_bytes());
            pending.extend_from_slice(&inode.links.to_le_bytes());
            pending.extend_from_slice(&[0; 16]);
        }
    }

    /// What stands directly behind an inode and its attributes.
    fn write_tail(&self, at: usize, entries: &mut Vec<Entry<'t>>, out: &mut Vec<u8>) {
        let inode = &self.inodes[at];
        let Some(id) = inode.node.filter(|_| inode.tail_bytes > 0) else {
            return;
        };
        match &self.tree.node(id).kind {
            NodeKind::Directory { .. } => {
                self.entries(at, entries);
                let mut rest = entries.as_slice();
                for _ in 0..inode.blocks {
                    rest = &rest[first_block(rest)..];
                }
                self.encode_entries(rest, out);
            }
            NodeKind::Symlink(target) => out.extend_from_slice(target),
            NodeKind::File(FileContent::Inline(bytes)) => {
                out.extend_from_slice(&bytes[bytes.len() - inode.tail_bytes as usize..]);
            }
            _ => {
                for _ in 0..inode.tail_bytes / 4 {
                    out.extend_from_slice(&CHUNK_HOLE.to_le_bytes());
                }
            }
        }
    }

    /// The data of an inode that has blocks of its own.
    fn write_blocks<W: Write>(
        &self,
        at: usize,
        entries: &mut Vec<Entry<'t>>,
        out: &mut Out<'_, W>,
    ) -> io::Result<()> {
        let inode = &self.inodes[at];
        let Some(id) = inode.node.filter(|_| inode.blocks > 0) else {
            return Ok(());
        };
        match &self.tree.node(id).kind {
            NodeKind::Directory { .. } => {
                self.entries(at, entries);
                let mut rest = entries.as_slice();
                for _ in 0..inode.blocks {
                    let (block, after) = rest.split_at(first_block(rest));
                    self.encode_entries(block, &mut out.pending);
                    out.align(BLOCK_BYTES)?;
                    rest = after;
                }
            }
            NodeKind::Symlink(data) | NodeKind::File(FileContent::Inline(data)) => {
                out.pending
                    .extend_from_slice(&data[..data.len() - inode.tail_bytes as usize]);
                out.align(BLOCK_BYTES)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// One block of a directory: fixed-size entries, then their names.
    fn encode_entries(&self, entries: &[Entry<'t>], out: &mut Vec<u8>) {
        let mut name_at = entries.len() * DIRENT_BYTES;
        for entry in entries {
            let target = &self.inodes[entry.inode as usize];
            out.extend_from_slice(&u64::from(target.slot).to_le_bytes());
            out.extend_from_slice(&u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(&[dirent_type(target.mode), 0]);
            name_at += entry.name.len();
        }
        for entry in entries {
            out.extend_from_slice(entry.name);
        }
    }
}

/// The size that a directory of a tree will have in the image.
pub(crate) fn directory_size_bytes(tree: &Tree, directory: NodeId) -> u64 {
    let mut entries: Vec<_> = tree
        .children(directory)
        .map(|(name, _)| Entry {
            name: name.as_bytes(),
            inode: 0,
        })
        .collect();
    if directory == tree.root() {
        let free = STUB_NAMES
            .iter()
            .filter(|name| tree.child(directory, name.as_slice()).is_none());
        entries.extend(free.map(|name| Entry { name, inode: 0 }));
    }
    entries.extend([b".".as_slice(), b".."].map(|name| Entry { name, inode: 0 }));
    entries.sort_by(|a, b| a.name.cmp(b.name));
    let (blocks, tail_bytes) = directory_shape(&entries);
    blocks * BLOCK_BYTES + tail_bytes
}

/// For each node with several names, the one that a depth-first walk meets
/// first.
fn primary_names(tree: &Tree) -> HashMap<NodeId, (NodeId, &PathComponent)> {
    let mut primary = HashMap::new();
    let mut open: Vec<_> = tree
        .node(tree.root())
        .children()
        .map(|all| (tree.root(), all.iter()))
        .into_iter()
        .collect();
    while let Some((directory, entries)) = open.last_mut() {
        let Some((name, id)) = entries.next() else {
            open.pop();
            continue;
        };
        if let Some(children) = tree.node(*id).children() {
            open.push((*id, children.iter()));
        } else if tree.names(*id) > 1 {
            primary.entry(*id).or_insert((*directory, name));
        }
    }
    primary
}

pub(super) fn is_whiteout(kind: &NodeKind) -> bool {
    matches!(kind, NodeKind::CharDevice(device) if device.major == 0 && device.minor == 0)
}

/// The type bits of the mode in the image, where a whiteout is a file.
fn file_type(kind: &NodeKind) -> u16 {
    match kind {
        NodeKind::Directory { .. } => S_IFDIR,
        NodeKind::File(_) => S_IFREG,
        NodeKind::Symlink(_) => S_IFLNK,
        NodeKind::CharDevice(_) if is_whiteout(kind) => S_IFREG,
        NodeKind::CharDevice(_) => S_IFCHR,
        NodeKind::BlockDevice(_) => S_IFBLK,
        NodeKind::Fifo => S_IFIFO,
        NodeKind::Socket => S_IFSOCK,
    }
}

fn set<'t>(xattrs: &mut Vec<Xattr<'t>>, name: &'static [u8], value: Value<'t>) {
    match xattrs.iter_mut().find(|xattr| *xattr.name == *name) {
        Some(xattr) => xattr.value = value,
        None => xattrs.push(Xattr::new(name, value)),
    }
}

fn xattr_body_bytes(xattrs: &[Xattr<'_>], shared: &Shared<'_>) -> u64 {
    if xattrs.is_empty() {
        return 0;
    }
    let entries = shared
        .split(xattrs)
        .map(|(xattr, offset)| offset.map_or(xattr.stored_bytes(), |_| 4));
    XATTR_HEADER_BYTES + entries.sum::<u64>()
}

fn write_xattrs(xattrs: &[Xattr<'_>], shared: &Shared<'_>, inodes_end: u64, out: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    let bits = xattrs.iter().fold(0, |bits, xattr| {
        let (index, rest) = split_xattr_name(&xattr.name);
        bits | filter_bit(index, rest)
    });
    let split: Vec<_> = shared.split(xattrs).collect();
    let count = split.iter().filter(|(_, offset)| offset.is_some()).count();
    out.extend_from_slice(&(!bits).to_le_bytes());
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
    out.extend_from_slice(&[0; 7]);
    for offset in split.iter().filter_map(|(_, offset)| *offset) {
        // Counted in words from the block that the shared area begins in.
        let word = (inodes_end % BLOCK_BYTES + u64::from(offset)) / 4;
        out.extend_from_slice(&u32::try_from(word).unwrap_or(u32::MAX).to_le_bytes());
    }
    for (xattr, _) in split.iter().filter(|(_, offset)| offset.is_none()) {
        xattr.encode(out);
    }
}

/// How many entries fit into one block, from the first on.
fn first_block(entries: &[Entry<'_>]) -> usize {
    let mut bytes = 0;
    entries
        .iter()
        .take_while(|entry| {
            bytes += entry.stored_bytes();
            bytes as u64 <= BLOCK_BYTES
        })
        .count()
}

/// Whole blocks and tail of a directory; more than half a block is no tail.
fn directory_shape(entries: &[Entry<'_>]) -> (u64, u64) {
    let mut blocks = 0;
    let mut rest = entries;
    loop {
        let (block, after) = rest.split_at(first_block(rest));
        if after.is_empty() {
            let bytes = block.iter().map(Entry::stored_bytes).sum::<usize>() as u64;
            return if bytes > BLOCK_BYTES / 2 {
                (blocks + 1, 0)
            } else {
                (blocks, bytes)
            };
        }
        blocks += 1;
        rest = after;
    }
}

struct Place {
    padding: u64,
    /// Whether the tail must go to a block of its own after all.
    spilled: bool,
}

/// Moves an inode so that its tail does not cross a block boundary.
fn place_tail(symlink: bool, position: u64, head_bytes: u64, tail_bytes: u64) -> Place {
    let to_next_block = position.next_multiple_of(BLOCK_BYTES) - position;
    if symlink {
        // Inode and target stay in one block together, if they can at all.
        let total = head_bytes + tail_bytes;
        let crosses = position / BLOCK_BYTES != (position + total - 1) / BLOCK_BYTES;
        return Place {
            padding: if crosses { to_next_block } else { 0 },
            spilled: total >= BLOCK_BYTES,
        };
    }
    let room = |position: u64| BLOCK_BYTES - (position + head_bytes) % BLOCK_BYTES;
    if tail_bytes <= room(position) {
        return Place {
            padding: 0,
            spilled: false,
        };
    }
    let padding = room(position).next_multiple_of(SLOT_BYTES);
    if tail_bytes <= room(position + padding) {
        return Place {
            padding,
            spilled: false,
        };
    }
    Place {
        padding: to_next_block,
        spilled: true,
    }
}

/// The destination, with what is gathered for it and what it was given.
struct Out<'w, W> {
    inner: &'w mut W,
    hasher: ObjectHasher,
    pending: Vec<u8>,
}

impl<'w, W: Write> Out<'w, W> {
    const FULL_BYTES: usize = 128 << 10;

    fn new(inner: &'w mut W) -> Self {
        Self {
            inner,
            hasher: ObjectHasher::new(),
            pending: Vec::with_capacity(2 * Self::FULL_BYTES),
        }
    }

    fn position(&self) -> u64 {
        self.hasher.size_bytes() + self.pending.len() as u64
    }

    fn pad(&mut self, bytes: u64) -> io::Result<()> {
        // Never more than a block.
        let bytes = usize::try_from(bytes).unwrap_or(0);
        self.pending.resize(self.pending.len() + bytes, 0);
        self.flush_if_full()
    }

    fn align(&mut self, to: u64) -> io::Result<()> {
        let position = self.position();
        self.pad(position.next_multiple_of(to) - position)
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.pending.len() >= Self::FULL_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.pending);
        self.inner.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<(ObjectId, u64)> {
        self.flush()?;
        self.inner.flush()?;
        let size_bytes = self.hasher.size_bytes();
        Ok((self.hasher.finish(), size_bytes))
    }
}
