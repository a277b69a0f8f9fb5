// SPDX-License-Identifier: Apache-2.0
//! Numbers of the on-disk format that writer and reader share.

pub(super) const BLOCK_BYTES: u64 = 4096;
/// Inodes are addressed in units of this many bytes.
pub(super) const SLOT_BYTES: u64 = 32;
pub(super) const SUPER_OFFSET: u64 = 1024;
pub(super) const SUPER_BYTES: u64 = 128;
pub(super) const SUPER_MAGIC: u32 = 0xE0F5_E1E2;
/// Inodes carry times; extended attributes carry a name filter.
pub(super) const FEATURES_COMPATIBLE: u32 = 0x2 | 0x4;
pub(super) const BLOCK_BITS: u32 = 12;

pub(super) const HEADER_MAGIC: u32 = 0xD078_629A;
pub(super) const HEADER_VERSION: u32 = 1;
pub(super) const HEADER_FLAG_ACL: u32 = 1;

pub(super) const COMPACT_BYTES: u64 = 32;
pub(super) const EXTENDED_BYTES: u64 = 64;
pub(super) const DIRENT_BYTES: usize = 12;
pub(super) const XATTR_HEADER_BYTES: u64 = 12;
pub(super) const XATTR_ENTRY_BYTES: u64 = 4;

pub(super) const LAYOUT_PLAIN: u16 = 0;
pub(super) const LAYOUT_INLINE: u16 = 2;
pub(super) const LAYOUT_CHUNKS: u16 = 4;
pub(super) const CHUNK_BITS_MAX: u32 = 31;
/// A chunk that is a hole.
pub(super) const CHUNK_HOLE: u32 = u32::MAX;

pub(super) const S_IFMT: u16 = 0o170_000;
pub(super) const S_IFSOCK: u16 = 0o140_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFIFO: u16 = 0o010_000;

/// The file type that a directory entry repeats from the inode's mode.
pub(super) fn dirent_type(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFSOCK => 6,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// Prefixes that are stored as one byte, in the order they are tried.
pub(super) const XATTR_PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

pub(super) const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";
/// What an attribute of that prefix is renamed to below.
pub(super) const ESCAPED_PREFIX: &[u8] = b"trusted.overlay.overlay.";
pub(super) const METACOPY: &[u8] = b"trusted.overlay.metacopy";
pub(super) const REDIRECT: &[u8] = b"trusted.overlay.redirect";
pub(super) const OPAQUE: &[u8] = b"trusted.overlay.opaque";
pub(super) const ESCAPED_WHITEOUT: &[u8] = b"trusted.overlay.overlay.whiteout";
pub(super) const ESCAPED_WHITEOUTS: &[u8] = b"trusted.overlay.overlay.whiteouts";
pub(super) const ESCAPED_OPAQUE: &[u8] = b"trusted.overlay.overlay.opaque";
pub(super) const USER_WHITEOUT: &[u8] = b"user.overlay.whiteout";
pub(super) const USER_WHITEOUTS: &[u8] = b"user.overlay.whiteouts";
pub(super) const USER_OPAQUE: &[u8] = b"user.overlay.opaque";
pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// The byte for a name's prefix, and the rest of the name.
pub(super) fn split_xattr_name(name: &[u8]) -> (u8, &[u8]) {
    XATTR_PREFIXES
        .iter()
        .find_map(|(prefix, index)| Some((*index, name.strip_prefix(*prefix)?)))
        .unwrap_or((0, name))
}

/// The bit that a name clears in the filter of its inode.
pub(super) fn filter_bit(index: u8, rest: &[u8]) -> u32 {
    const SEED: u32 = 0x25BB_E08F;
    1 << (xxh32(rest, SEED.wrapping_add(u32::from(index))) % 32)
}

/// Encodes a device number as the kernel's 32-bit form; `None` if it has no
/// such form.
pub(crate) fn encode_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20)
        .then_some((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}

/// The inverse of [`encode_device`].
pub(crate) fn decode_device(code: u32) -> (u32, u32) {
    ((code >> 8) & 0xfff, (code & 0xff) | (code >> 12) & 0xf_ff00)
}

/// Size of a hole's one chunk, as a power of two above the block size, and
/// how many chunks of it cover the file.
pub(super) fn chunking(size_bytes: u64) -> (u32, u64) {
    let bits = (64 - size_bytes.saturating_sub(1).leading_zeros())
        .clamp(BLOCK_BITS, BLOCK_BITS + CHUNK_BITS_MAX);
    (bits - BLOCK_BITS, size_bytes.div_ceil(1 << bits))
}

const PRIMES: [u32; 5] = [
    0x9E37_79B1,
    0x85EB_CA77,
    0xC2B2_AE3D,
    0x27D4_EB2F,
    0x1656_67B1,
];

/// XXH32, as its specification has it.
fn xxh32(data: &[u8], seed: u32) -> u32 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    let mut rest = data;
    let mut hash = seed.wrapping_add(p5);
    if data.len() >= 16 {
        let mut lanes = [
            seed.wrapping_add(p1).wrapping_add(p2),
            seed.wrapping_add(p2),
            seed,
            seed.wrapping_sub(p1),
        ];
        let mut stripes = data.chunks_exact(16);
        for stripe in &mut stripes {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(4)) {
                *lane = lane
                    .wrapping_add(word(input).wrapping_mul(p2))
                    .rotate_left(13)
                    .wrapping_mul(p1);
            }
        }
        rest = stripes.remainder();
        hash = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0, |sum, (lane, by)| sum.wrapping_add(lane.rotate_left(by)));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the specification takes the length modulo 2^32"
    )]
    let length = data.len() as u32;
    hash = hash.wrapping_add(length);
    let mut words = rest.chunks_exact(4);
    for input in &mut words {
        hash = hash
            .wrapping_add(word(input).wrapping_mul(p3))
            .rotate_left(17)
            .wrapping_mul(p4);
    }
    for byte in words.remainder() {
        hash = hash
            .wrapping_add(u32::from(*byte).wrapping_mul(p5))
            .rotate_left(11)
            .wrapping_mul(p1);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(p2);
    hash = (hash ^ hash >> 13).wrapping_mul(p3);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh32_gives_published_values() {
        assert_eq!(xxh32(b"", 0), 0x02CC_5D05);
        assert_eq!(xxh32(b"a", 0), 0x550D_7456);
        assert_eq!(xxh32(b"abc", 0), 0x32D1_53FF);
        assert_eq!(
            xxh32(b"Nobody inspects the spammish repetition", 0),
            0xE229_3B2F
        );
    }

    #[test]
    fn device_numbers_survive_encoding() {
        for (major, minor) in [
            (0, 0),
            (1, 3),
            (4095, 0),
            (0, 1_048_575),
            (8, 257),
            (4095, 1_048_575),
        ] {
            assert_eq!(
                decode_device(encode_device(major, minor).unwrap()),
                (major, minor)
            );
        }
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }

    #[test]
    fn one_chunk_covers_a_file_as_long_as_it_can() {
        assert_eq!(chunking(1), (0, 1));
        assert_eq!(chunking(4096), (0, 1));
        assert_eq!(chunking(4097), (1, 1));
        assert_eq!(chunking(1 << 43), (31, 1));
        assert_eq!(chunking((1 << 43) + 1), (31, 2));
    }
}
