// SPDX-License-Identifier: Apache-2.0
//! The fs-verity digest of a stream: the name of an object.
//!
//! Owns [`ObjectHasher`], which computes what the kernel would report for a
//! file with these contents if fs-verity were enabled on it with SHA-256,
//! 4096-byte blocks and no salt. The digest is therefore the same whether or
//! not the file system under the store can enforce it.
//!
//! ```text
//! data     |block 0|block 1| ... |block n|     last block padded with zeros
//!             |       |             |          SHA-256 of each
//! level 0  |h0 h1 ... h127|h128 ...        |   128 hashes a block, padded
//!             |              |
//! level 1  |h0 h1 ...                      |   ... until one hash is left
//!                    root
//! digest = SHA-256(descriptor{version, algorithm, block size, size, root})
//! ```
//!
//! The memory used does not depend on the length of the stream: a level keeps
//! a running hash of its unfinished block, not the block. Whole blocks are
//! hashed where they lie in the caller's slice.
//!
//! # Source
//! Linux `Documentation/filesystems/fsverity.rst` "Merkle tree" and "fs-verity
//! descriptor".

use gantry_oci::{Digest as ContentDigest, ObjectId};
use sha2::{Digest as _, Sha256};
use std::sync::OnceLock;

/// The block size of the Merkle tree, in bytes.
pub const BLOCK_BYTES: usize = 4096;

const HASH_BYTES: usize = 32;
const HASHES_PER_BLOCK: usize = BLOCK_BYTES / HASH_BYTES;
const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

type Hash = [u8; HASH_BYTES];

/// The hash of a block of zeros.
fn zeros_hash() -> &'static Hash {
    static HASH: OnceLock<Hash> = OnceLock::new();
    HASH.get_or_init(|| Sha256::digest(ZEROS).into())
}

/// Computes an [`ObjectId`] from contents that arrive piece by piece.
///
/// How the contents are cut into pieces has no influence on the result. Pieces
/// of many blocks are the fastest.
#[derive(Clone)]
pub struct ObjectHasher {
    block: Sha256,
    in_block: usize,
    size_bytes: u64,
    levels: Vec<Level>,
}

/// One level of the Merkle tree, of which only the open block is kept.
#[derive(Clone)]
struct Level {
    open: Sha256,
    in_open: usize,
    /// Hashes this level ever received, and the first of them: a level that
    /// only ever has one is the root.
    total: u64,
    first: Hash,
}

impl ObjectHasher {
    /// Begins with no contents.
    #[must_use]
    pub fn new() -> Self {
        Self {
            block: Sha256::new(),
            in_block: 0,
            size_bytes: 0,
            levels: Vec::new(),
        }
    }

    /// The object ID of contents that are in memory.
    #[must_use]
    pub fn hash(contents: &[u8]) -> ObjectId {
        let mut hasher = Self::new();
        hasher.update(contents);
        hasher.finish()
    }

    /// Appends to the contents.
    pub fn update(&mut self, mut data: &[u8]) {
        self.size_bytes += data.len() as u64;
        if self.in_block > 0 {
            let (head, rest) = data.split_at(data.len().min(BLOCK_BYTES - self.in_block));
            self.block.update(head);
            self.in_block += head.len();
            data = rest;
            if self.in_block < BLOCK_BYTES {
                return;
            }
            let hash = self.block.finalize_reset().into();
            self.in_block = 0;
            self.push(0, hash);
        }
        let mut blocks = data.chunks_exact(BLOCK_BYTES);
        for block in &mut blocks {
            // Sparse files are mostly these; elsewhere the first byte decides.
            let hash = if block == ZEROS {
                *zeros_hash()
            } else {
                Sha256::digest(block).into()
            };
            self.push(0, hash);
        }
        let tail = blocks.remainder();
        if !tail.is_empty() {
            self.block.update(tail);
            self.in_block = tail.len();
        }
    }

    /// How many bytes were given so far.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Ends the contents and names them.
    #[must_use]
    pub fn finish(mut self) -> ObjectId {
        let root = self.root();
        let mut descriptor = [0_u8; 256];
        descriptor[0] = 1; // version
        descriptor[1] = 1; // FS_VERITY_HASH_ALG_SHA256
        descriptor[2] = 12; // log2 of the block size
        descriptor[8..16].copy_from_slice(&self.size_bytes.to_le_bytes());
        descriptor[16..16 + HASH_BYTES].copy_from_slice(&root);
        ObjectId::from_digest(ContentDigest::sha256(Sha256::digest(descriptor).into()))
    }

    /// Pads what is open at each level and returns the one hash at the top.
    fn root(&mut self) -> Hash {
        if self.in_block > 0 {
            self.block.update(&ZEROS[self.in_block..]);
            let hash = self.block.finalize_reset().into();
            self.push(0, hash);
        }
        let mut at = 0;
        loop {
            // Nothing at all is an empty file, whose root is zeros by definition.
            let Some(level) = self.levels.get_mut(at) else {
                return [0; HASH_BYTES];
            };
            if level.total == 1 {
                return level.first;
            }
            if level.in_open > 0 {
                level.open.update(&ZEROS[level.in_open * HASH_BYTES..]);
                let hash = level.close();
                self.push(at + 1, hash);
            }
            at += 1;
        }
    }

    /// Adds a hash at a level and carries upwards while blocks fill.
    fn push(&mut self, mut at: usize, mut hash: Hash) {
        loop {
            if at == self.levels.len() {
                self.levels.push(Level {
                    open: Sha256::new(),
                    in_open: 0,
                    total: 0,
                    first: hash,
                });
            }
            let level = &mut self.levels[at];
            level.open.update(hash);
            level.in_open += 1;
            level.total += 1;
            if level.in_open < HASHES_PER_BLOCK {
                return;
            }
            hash = level.close();
            at += 1;
        }
    }
}

impl Level {
    fn close(&mut self) -> Hash {
        self.in_open = 0;
        self.open.finalize_reset().into()
    }
}

impl Default for ObjectHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ObjectHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectHasher")
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Contents whose blocks all differ: byte `i` is `i % 251`.
    fn pattern(size: usize) -> Vec<u8> {
        (0_u8..251).cycle().take(size).collect()
    }

    /// `(size, digest)` as printed by fsverity-utils 1.6, `fsverity digest`.
    const KNOWN: [(usize, &str); 11] = [
        (
            0,
            "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
        ),
        (
            1,
            "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551",
        ),
        (
            4095,
            "5f4953aad672b0188023d6cd6fbce9d09508eb7dad165b6298ce0086bc1e72db",
        ),
        (
            4096,
            "13e9b8848ae484a36acb3f3cac0ceb2f7601e96633d15c92f9bd3dd44e492157",
        ),
        (
            4097,
            "b0d074abef4d544404facfab6ba242f6a8ccbde90f1325cd286f3c8aa8d0f8aa",
        ),
        (
            8192,
            "e48d50c56c4f0178a98a035cb91d66be328eeff78bbddaa35c5ec4cc0d8340c0",
        ),
        (
            524_288,
            "d82861203d50ae9b60948504a704f35f5118bd229aeb1a22d6dae47b1767c4c4",
        ),
        (
            524_289,
            "4dc6905041c9c4ee73e13b53f63f5d289c46da359b664a965ead7f8cc4d799d4",
        ),
        (
            600_000,
            "06d5be5c1f84f55006b5826aec720b80e5d95f30e170be7e1d6aae61755f1ae4",
        ),
        (
            67_108_864,
            "196650e8bd05f8516c0ede56deeb4d1ff2be9809dc2d827261db4a7773957567",
        ),
        (
            67_108_865,
            "acba6554fbff4e8b2fc0361086b9e8ed6afbbd3196ade159c0f3e2bf9ecb2ed1",
        ),
    ];

    #[test]
    fn known_contents_have_the_digests_of_the_kernels_tool() {
        for (size, expected) in KNOWN {
            assert_eq!(
                ObjectHasher::hash(&pattern(size)).hex(),
                expected,
                "{size} bytes"
            );
        }
    }

    #[test]
    fn three_gigabytes_of_zeros_have_the_digest_of_the_kernels_tool() {
        let zeros = vec![0; 1 << 20];
        let mut hasher = ObjectHasher::new();
        let mut left = 3_000_000_001_usize;
        while left > 0 {
            let piece = left.min(zeros.len());
            hasher.update(&zeros[..piece]);
            left -= piece;
        }
        assert_eq!(hasher.size_bytes(), 3_000_000_001);
        assert_eq!(
            hasher.finish().hex(),
            "c8f91afe13942bc7c489e51a81b43c1b3a5260bfe06fc1700b51c26a05dc090a"
        );
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_digest(
            size in 0_usize..600_000,
            cuts in prop::collection::vec(1_usize..20_000, 1..40),
        ) {
            let data = pattern(size);
            let mut hasher = ObjectHasher::new();
            let mut rest = data.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                hasher.update(piece);
                rest = after;
            }
            prop_assert_eq!(hasher.finish(), ObjectHasher::hash(&data));
        }
    }
}
