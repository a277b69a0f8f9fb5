// SPDX-License-Identifier: Apache-2.0
//! From an image back to the tree that it was written from.
//!
//! The bytes may come from anywhere: every offset is checked before it is
//! followed, every count is capped, a directory is entered once. An image that
//! a kernel would mount but that no composefs tool would write is refused.

use std::collections::HashMap;

use gantry_oci::{Digest, Kind, Limits, ObjectId, PathComponent};

use super::format::*;
use super::write::is_whiteout;
use crate::tree::{
    DeviceNumber, FileContent, Metadata, Node, NodeId, NodeKind, Tree, TreeError, Xattrs,
};

/// Bytes that a tree may have for each byte of its image. Attributes and
/// blocks can be shared in an image, so it needs a cap of its own.
const EXPANSION: u64 = 64;

/// Why bytes are not a metadata image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadImageError {
    /// Not an image of this format at all, or of a later version.
    #[error("read metadata image: {what} is not supported")]
    Unsupported {
        /// What has an unknown value.
        what: &'static str,
    },
    /// Something points outside, contradicts itself, or is out of range.
    #[error("read metadata image: {what} at byte {offset} is invalid")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// The tree would have more nodes or bytes than allowed.
    #[error("read metadata image: tree is larger than allowed")]
    TooLarge,
    /// Two names in one directory are the same, or a directory has two names.
    #[error("read metadata image")]
    Tree(#[from] TreeError),
}

impl ReadImageError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::Invalid { .. } | Self::Tree(_) => Kind::Corrupt,
            Self::TooLarge => Kind::Unsafe,
        }
    }
}

// The same numbers as lengths of slices.
const BLOCK: usize = 4096;
const SUPER_AT: usize = 1024;
const XATTR_HEADER: usize = 12;
const XATTR_ENTRY: usize = 4;

/// Marks of whiteouts and of their directories, as they read without escape.
const WHITEOUT: &[u8] = b"trusted.overlay.whiteout";
const WHITEOUTS: &[u8] = b"trusted.overlay.whiteouts";

type Result<T> = std::result::Result<T, ReadImageError>;

/// Reads a whole metadata image.
///
/// The tree is the one that was written, with one exception that the format
/// leaves open: what carries overlay's escaped whiteout marks itself reads as a
/// whiteout, or as a directory with whiteouts, and loses them.
///
/// # Errors
/// [`Kind::Corrupt`] or [`Kind::Unsupported`] if no composefs tool would have
/// written the image; [`Kind::Unsafe`] over the limits.
pub fn read(image: &[u8], limits: &Limits) -> Result<Tree> {
    let mut reader = Reader::open(image, limits)?;
    let root = reader.inode(reader.root)?;
    let node = reader.node(&root)?;
    if !node.kind.is_directory() {
        return Err(root.invalid("root inode"));
    }
    let mut tree = Tree::new(node.metadata);
    let mut known = HashMap::from([(reader.root, tree.root())]);
    let mut pending = vec![(root, tree.root())];
    while let Some((inode, directory)) = pending.pop() {
        reader.directory(&inode, directory, &mut tree, &mut known, &mut pending)?;
    }
    Ok(tree)
}

struct Reader<'a> {
    image: &'a [u8],
    limits: &'a Limits,
    root: u64,
    inodes_at: u64,
    xattrs_at: u64,
    epoch: (i64, u32),
    names_left: u64,
    bytes_left: u64,
}

/// An inode's fixed part, decoded.
struct Inode {
    offset: u64,
    head_bytes: u64,
    layout: u16,
    xattr_bytes: u64,
    mode: u16,
    size_bytes: u64,
    union: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
}

impl Inode {
    fn invalid(&self, what: &'static str) -> ReadImageError {
        ReadImageError::Invalid {
            what,
            offset: self.offset,
        }
    }

    fn tail_at(&self) -> u64 {
        self.offset + self.head_bytes + self.xattr_bytes
    }
}

/// The `N` bytes at a place in a slice that is known to be long enough.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes
        .get(offset..offset + N)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(at(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(at(bytes, offset))
}

impl<'a> Reader<'a> {
    fn open(image: &'a [u8], limits: &'a Limits) -> Result<Self> {
        let head = image.get(..BLOCK).ok_or(ReadImageError::Invalid {
            what: "image size",
            offset: 0,
        })?;
        let superblock = &head[SUPER_AT..];
        let unsupported = |what| Err(ReadImageError::Unsupported { what });
        if u32_at(head, 0) != HEADER_MAGIC
            || u32_at(head, 4) != HEADER_VERSION
            || u32_at(head, 12) > 1
        {
            return unsupported("composefs header");
        }
        if u32_at(superblock, 0) != SUPER_MAGIC {
            return unsupported("superblock magic");
        }
        if u32_at(superblock, 8) != FEATURES_COMPATIBLE || u32_at(superblock, 80) != 0 {
            return unsupported("feature set");
        }
        if u32::from(superblock[12]) != BLOCK_BITS || superblock[13] != 0 {
            return unsupported("block size");
        }
        let epoch = (
            i64::from_le_bytes(at(superblock, 24)),
            u32_at(superblock, 32),
        );
        Ok(Self {
            image,
            limits,
            root: u64::from(u16_at(superblock, 14)),
            inodes_at: u64::from(u32_at(superblock, 40)) * BLOCK_BYTES,
            xattrs_at: u64::from(u32_at(superblock, 44)) * BLOCK_BYTES,
            epoch,
            names_left: limits.nodes,
            bytes_left: (image.len() as u64).saturating_mul(EXPANSION),
        })
    }

    fn bytes(&self, what: &'static str, offset: u64, len: u64) -> Result<&'a [u8]> {
        let range = usize::try_from(offset).ok().zip(
            offset
                .checked_add(len)
                .and_then(|end| usize::try_from(end).ok()),
        );
        range
            .and_then(|(start, end)| self.image.get(start..end))
            .ok_or(ReadImageError::Invalid { what, offset })
    }

    /// Takes from the allowance before something is copied.
    fn spend(&mut self, bytes: u64) -> Result<()> {
        self.bytes_left = self
            .bytes_left
            .checked_sub(bytes)
            .ok_or(ReadImageError::TooLarge)?;
        Ok(())
    }

    fn inode(&self, number: u64) -> Result<Inode> {
        let invalid = ReadImageError::Invalid {
            what: "inode number",
            offset: number,
        };
        let offset = number
            .checked_mul(SLOT_BYTES)
            .and_then(|at| at.checked_add(self.inodes_at))
            .ok_or(invalid)?;
        let short = self.bytes("inode", offset, COMPACT_BYTES)?;
        let form = u16_at(short, 0);
        let (head_bytes, raw) = match form & 1 {
            0 => (COMPACT_BYTES, short),
            _ => (EXTENDED_BYTES, self.bytes("inode", offset, EXTENDED_BYTES)?),
        };
        let xattr_bytes = match u64::from(u16_at(raw, 2)) {
            0 => 0,
            count => XATTR_HEADER_BYTES + 4 * (count - 1),
        };
        let mode = u16_at(raw, 4);
        let inode = match form & 1 {
            0 => Inode {
                offset,
                head_bytes,
                layout: form >> 1,
                xattr_bytes,
                mode,
                size_bytes: u64::from(u32_at(raw, 8)),
                union: u32_at(raw, 16),
                uid: u32::from(u16_at(raw, 24)),
                gid: u32::from(u16_at(raw, 26)),
                mtime: self.epoch,
            },
            _ => Inode {
                offset,
                head_bytes,
                layout: form >> 1,
                xattr_bytes,
                mode,
                size_bytes: u64_at(raw, 8),
                union: u32_at(raw, 16),
                uid: u32_at(raw, 24),
                gid: u32_at(raw, 28),
                mtime: (i64::from_le_bytes(at(raw, 32)), u32_at(raw, 40)),
            },
        };
        if inode.mtime.1 >= 1_000_000_000 {
            return Err(inode.invalid("modification time"));
        }
        Ok(inode)
    }

    /// The node that an inode stands for; directories come without entries.
    fn node(&mut self, inode: &Inode) -> Result<Node> {
        let Attributes {
            mut xattrs,
            metacopy,
            redirect,
        } = self.xattrs(inode)?;
        if inode.mode & S_IFMT != S_IFREG && (metacopy.is_some() || redirect.is_some()) {
            return Err(inode.invalid("redirect"));
        }
        let (major, minor) = decode_device(inode.union);
        let mut kind = match inode.mode & S_IFMT {
            S_IFDIR => NodeKind::directory(),
            S_IFREG => NodeKind::File(self.content(inode, metacopy, redirect)?),
            S_IFLNK => NodeKind::Symlink(self.symlink(inode)?),
            S_IFCHR => NodeKind::CharDevice(DeviceNumber { major, minor }),
            S_IFBLK => NodeKind::BlockDevice(DeviceNumber { major, minor }),
            S_IFIFO => NodeKind::Fifo,
            S_IFSOCK => NodeKind::Socket,
            _ => return Err(inode.invalid("mode")),
        };
        let is_empty = |value: Option<&Box<[u8]>>| value.is_some_and(|value| value.is_empty());
        if kind == NodeKind::File(FileContent::empty())
            && is_empty(xattrs.get(WHITEOUT))
            && is_empty(xattrs.get(USER_WHITEOUT))
        {
            xattrs.remove(WHITEOUT);
            xattrs.remove(USER_WHITEOUT);
            kind = NodeKind::CharDevice(DeviceNumber::default());
        }
        let (mtime_s, mtime_ns) = inode.mtime;
        let metadata = Metadata {
            mode: inode.mode & 0o7777,
            uid: inode.uid,
            gid: inode.gid,
            mtime_s,
            mtime_ns,
            xattrs,
        };
        Ok(Node::new(metadata, kind))
    }

    fn content(
        &mut self,
        inode: &Inode,
        metacopy: Option<&[u8]>,
        redirect: Option<&[u8]>,
    ) -> Result<FileContent> {
        match (inode.layout, metacopy, redirect) {
            (LAYOUT_PLAIN | LAYOUT_INLINE, None, None) if inode.size_bytes <= BLOCK_BYTES => {
                Ok(FileContent::Inline(self.data(inode)?.into()))
            }
            (LAYOUT_CHUNKS, Some(metacopy), Some(redirect)) if inode.size_bytes > 0 => {
                let (bits, chunks) = chunking(inode.size_bytes);
                let map = self.bytes("chunk map", inode.tail_at(), chunks.saturating_mul(4))?;
                if inode.union != bits || map.iter().any(|byte| *byte != 0xff) {
                    return Err(inode.invalid("chunk map"));
                }
                let digest = metacopy
                    .strip_prefix(&[0, 36, 0, 1])
                    .and_then(|digest| <[u8; 32]>::try_from(digest).ok());
                let digest =
                    Digest::sha256(digest.ok_or_else(|| inode.invalid("metacopy attribute"))?);
                let hex = digest.hex();
                if redirect != format!("/{}/{}", &hex[..2], &hex[2..]).as_bytes() {
                    return Err(inode.invalid("redirect"));
                }
                Ok(FileContent::Object {
                    id: ObjectId::from_digest(digest),
                    size_bytes: inode.size_bytes,
                })
            }
            _ => Err(inode.invalid("file contents")),
        }
    }

    fn symlink(&mut self, inode: &Inode) -> Result<Box<[u8]>> {
        if !(1..BLOCK_BYTES).contains(&inode.size_bytes) {
            return Err(inode.invalid("symlink size"));
        }
        let target = self.data(inode)?;
        if target.contains(&0) {
            Err(inode.invalid("symlink target"))
        } else {
            Ok(target.into())
        }
    }

    /// The data of an inode that is neither a hole nor compressed.
    fn data(&mut self, inode: &Inode) -> Result<Vec<u8>> {
        // What cannot be in the image is refused before it is paid for.
        if inode.size_bytes > self.image.len() as u64 {
            return Err(inode.invalid("size"));
        }
        self.spend(inode.size_bytes)?;
        let tail_bytes = match inode.layout {
            LAYOUT_PLAIN => 0,
            LAYOUT_INLINE => inode.size_bytes % BLOCK_BYTES,
            _ => return Err(inode.invalid("data layout")),
        };
        let whole = inode.size_bytes - tail_bytes;
        let mut data = Vec::new();
        if whole > 0 {
            data.extend_from_slice(self.bytes(
                "data block",
                u64::from(inode.union) * BLOCK_BYTES,
                whole,
            )?);
        }
        if tail_bytes > 0 {
            let start = inode.tail_at();
            if start % BLOCK_BYTES + tail_bytes > BLOCK_BYTES {
                return Err(inode.invalid("tail"));
            }
            data.extend_from_slice(self.bytes("tail", start, tail_bytes)?);
        }
        Ok(data)
    }

    /// The attributes of an inode, without overlay's escaping.
    fn xattrs(&mut self, inode: &Inode) -> Result<Attributes<'a>> {
        let mut attributes = Attributes {
            xattrs: Xattrs::new(),
            metacopy: None,
            redirect: None,
        };
        if inode.xattr_bytes == 0 {
            return Ok(attributes);
        }
        let body_at = inode.offset + inode.head_bytes;
        let body = self.bytes("extended attributes", body_at, inode.xattr_bytes)?;
        let own_at = XATTR_HEADER + 4 * usize::from(body[4]);
        let invalid = || inode.invalid("extended attributes");
        let shared = body.get(XATTR_HEADER..own_at).ok_or_else(invalid)?;
        let mut total = 0;
        for word in shared.chunks_exact(4) {
            let offset = self.xattrs_at + 4 * u64::from(u32_at(word, 0));
            let head = self.bytes("shared attribute", offset, XATTR_ENTRY_BYTES)?;
            let len = XATTR_ENTRY_BYTES + u64::from(head[0]) + u64::from(u16_at(head, 2));
            let entry = self.bytes("shared attribute", offset, len)?;
            total += self.add_xattr(inode, entry, &mut attributes)?;
        }
        let mut own = &body[own_at..];
        while own.len() >= XATTR_ENTRY {
            let len = XATTR_ENTRY + usize::from(own[0]) + usize::from(u16_at(own, 2));
            let entry = own.get(..len).ok_or_else(invalid)?;
            total += self.add_xattr(inode, entry, &mut attributes)?;
            own = own.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        if total > self.limits.xattr_total_bytes
            || attributes.xattrs.len() > self.limits.xattrs.saturating_add(8)
        {
            return Err(ReadImageError::TooLarge);
        }
        Ok(attributes)
    }

    fn add_xattr(
        &mut self,
        inode: &Inode,
        entry: &'a [u8],
        attributes: &mut Attributes<'a>,
    ) -> Result<usize> {
        let (name, value) = entry[4..].split_at(usize::from(entry[0]));
        let prefix = match entry[1] {
            0 => b"".as_slice(),
            index => XATTR_PREFIXES
                .iter()
                .find_map(|(prefix, known)| (*known == index).then_some(*prefix))
                .ok_or_else(|| inode.invalid("attribute prefix"))?,
        };
        let mut full = [prefix, name].concat();
        let total = full.len() + value.len();
        self.spend(total as u64)?;
        let fresh = if let Some(rest) = full.strip_prefix(ESCAPED_PREFIX) {
            full = [OVERLAY_PREFIX, rest].concat();
            attributes
                .xattrs
                .insert(full.into(), value.into())
                .is_none()
        } else if full == METACOPY {
            attributes.metacopy.replace(value).is_none()
        } else if full == REDIRECT {
            attributes.redirect.replace(value).is_none()
        } else if full == OPAQUE {
            inode.offset == self.inodes_at + self.root * SLOT_BYTES && value == b"y"
        } else if full.is_empty() || full.contains(&0) || full.starts_with(OVERLAY_PREFIX) {
            false
        } else {
            attributes
                .xattrs
                .insert(full.into(), value.into())
                .is_none()
        };
        if fresh {
            Ok(total)
        } else {
            Err(inode.invalid("extended attribute"))
        }
    }

    /// Adds the entries of a directory to the tree.
    fn directory(
        &mut self,
        inode: &Inode,
        directory: NodeId,
        tree: &mut Tree,
        known: &mut HashMap<u64, NodeId>,
        pending: &mut Vec<(Inode, NodeId)>,
    ) -> Result<()> {
        let data = self.data(inode)?;
        let mut last: Vec<u8> = Vec::new();
        let mut whiteouts = false;
        for block in data.chunks(BLOCK) {
            for (name, number, kind) in
                entries(block).ok_or_else(|| inode.invalid("directory block"))?
            {
                self.names_left = self
                    .names_left
                    .checked_sub(1)
                    .ok_or(ReadImageError::TooLarge)?;
                if name <= last.as_slice() {
                    return Err(inode.invalid("order of names"));
                }
                last = name.to_vec();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let child = self.inode(number)?;
                if dirent_type(child.mode) != kind {
                    return Err(child.invalid("entry type"));
                }
                if child.mode & S_IFMT == S_IFCHR && child.union == 0 {
                    // One of those that hide the object directories.
                    if directory == tree.root() && name.len() == 2 {
                        continue;
                    }
                    return Err(child.invalid("whiteout"));
                }
                let name = PathComponent::try_from(name).map_err(|_| inode.invalid("name"))?;
                if let Some(id) = known.get(&number) {
                    whiteouts |= is_whiteout(&tree.node(*id).kind);
                    tree.link(directory, name, *id)?;
                    continue;
                }
                let node = self.node(&child)?;
                whiteouts |= is_whiteout(&node.kind);
                let is_directory = node.kind.is_directory();
                let id = tree.insert(directory, name, node)?;
                known.insert(number, id);
                if is_directory {
                    pending.push((child, id));
                }
            }
        }
        if whiteouts {
            let xattrs = &mut tree.metadata_mut(directory).xattrs;
            for name in [WHITEOUTS, OPAQUE, USER_WHITEOUTS, USER_OPAQUE] {
                xattrs.remove(name);
            }
        }
        Ok(())
    }
}

/// The attributes of an inode; the two that make it point at an object apart.
struct Attributes<'a> {
    xattrs: Xattrs,
    metacopy: Option<&'a [u8]>,
    redirect: Option<&'a [u8]>,
}

/// Name, inode number and type of each entry in a block; nothing if it does
/// not add up.
fn entries(block: &[u8]) -> Option<Vec<(&[u8], u64, u8)>> {
    let first = usize::from(u16_at(block.get(..DIRENT_BYTES)?, 8));
    if first % DIRENT_BYTES != 0 || first == 0 {
        return None;
    }
    let heads = block.get(..first)?.chunks_exact(DIRENT_BYTES);
    let mut found = Vec::with_capacity(heads.len());
    for (at, head) in heads.enumerate() {
        let start = usize::from(u16_at(head, 8));
        let name = match block.get((at + 1) * DIRENT_BYTES..first)? {
            [] => block.get(start..)?.split(|byte| *byte == 0).next()?,
            next => block.get(start..usize::from(u16_at(next, 8)))?,
        };
        found.push((name, u64_at(head, 0), head[10]));
    }
    Some(found)
}
