// SPDX-License-Identifier: Apache-2.0
//! The metadata image: a whole tree, without its contents, as one EROFS file.
//!
//! Owns the writer ([`write()`]) and a bounded reader ([`read`]) of the image
//! that a host mounts. File contents are not inside: a regular file is a hole
//! of the right size whose overlay attributes point into the object directory,
//! so an overlay mount with that directory as data-only lower layer shows them.
//!
//! ```text
//! 0       composefs header, 32 bytes
//! 1024    EROFS superblock, 128 bytes
//! 1152    inodes, breadth first, each 32-byte aligned: inode (32 or 64 bytes),
//!         extended attributes, then its tail (last entries, target, contents)
//!         shared extended attributes: those that two inodes or more have
//!         4096-byte blocks: directory entries that are no tail, long symlinks
//! ```
//!
//! What is added to a tree so that overlay shows it as it is:
//!
//! | in the tree | in the image |
//! |---|---|
//! | contents in an object | `trusted.overlay.metacopy` with the object's digest, `trusted.overlay.redirect` = `/xx/...` |
//! | `trusted.overlay.*` | the same with `overlay.` once more |
//! | character device 0:0 | an empty file with escaped whiteout attributes, its directory marked |
//! | the root | `trusted.overlay.opaque`, and a whiteout for each of `00` to `ff` that hides the object directories |
//!
//! What it promises: one tree gives one image, byte for byte the one that
//! composefs's own `mkcomposefs` writes, so digests can be compared between
//! tools. A node with several names is placed where a depth-first walk meets
//! it first.
//!
//! What it does not: compress, or hold contents beyond a few bytes.
//!
//! # Source
//! Linux `fs/erofs/erofs_fs.h`, `Documentation/filesystems/erofs.rst`,
//! `Documentation/filesystems/overlayfs.rst` "Data-only lower layers",
//! "Nesting overlayfs mounts"; composefs image format version 1.

mod format;

mod read;
mod write;

pub(crate) use format::{decode_device, encode_device};
pub use read::{ReadImageError, read};
pub(crate) use write::directory_size_bytes;
pub use write::{ErofsSummary, WriteImageError, write};
