// SPDX-License-Identifier: Apache-2.0
//! The one table of caps on data that comes from outside.
//!
//! Every reader of untrusted bytes takes its caps from here; each cap has a
//! test beside the reader that enforces it. The values are far above what
//! real images use and far below what would hurt a host.

/// Caps on what one image may ask of the machine that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A manifest or index, in bytes. The neighbours refuse above 4 MiB too.
    pub manifest_bytes: u64,
    /// An image configuration, in bytes.
    pub config_bytes: u64,
    /// An OCI runtime document (`config.json`), in bytes.
    pub runtime_document_bytes: u64,
    /// Descriptors in one manifest or index.
    pub descriptors: usize,
    /// How deep JSON may nest.
    pub json_depth: usize,
    /// How deep indexes may point at indexes.
    pub index_depth: usize,
    /// Layers of one image. Overlay stacks end at 500; Docker stops at 127.
    pub layers: usize,
    /// One layer blob as transferred, in bytes.
    pub blob_bytes: u64,
    /// One layer's tar after decompression, in bytes.
    pub layer_bytes: u64,
    /// Decompressed bytes per compressed byte, once `ratio_floor_bytes` came out.
    pub ratio: u64,
    /// Decompressed bytes up to which the ratio does not matter.
    pub ratio_floor_bytes: u64,
    /// Largest zstd window, as a power of two.
    pub zstd_window_log: u32,
    /// Compressed members (gzip) or frames (zstd) in one blob.
    pub members: u64,
    /// Entries in one layer.
    pub entries: u64,
    /// Files, directories and links in one merged image.
    pub nodes: u64,
    /// One file's logical size, in bytes.
    pub file_bytes: u64,
    /// Logical bytes of all files of one layer: sparse files count in full.
    pub layer_logical_bytes: u64,
    /// One path name, in bytes (`PATH_MAX` less its final zero).
    pub path_bytes: usize,
    /// Components of one path.
    pub path_depth: usize,
    /// One symlink's target, in bytes.
    pub symlink_bytes: usize,
    /// One PAX or GNU extension header, in bytes.
    pub extension_bytes: u64,
    /// Extended attributes of one file.
    pub xattrs: usize,
    /// One extended attribute's value, in bytes (`XATTR_SIZE_MAX`).
    pub xattr_value_bytes: usize,
    /// All extended attributes of one file, names and values, in bytes.
    pub xattr_total_bytes: usize,
    /// Data segments of one sparse file.
    pub sparse_segments: usize,
    /// A policy, or one file of rules beside it, in bytes.
    pub policy_bytes: usize,
    /// One file of keys or certificates that a policy names, in bytes.
    pub key_file_bytes: usize,
    /// Contents up to this size live in the metadata image, in bytes; the
    /// composefs tools draw the line at the same place.
    pub inline_bytes: u64,
    /// Signatures of one manifest.
    pub signatures: usize,
    /// One signature as stored, in bytes.
    pub signature_bytes: u64,
    /// All signatures of one manifest as a registry gives them, in bytes.
    pub signature_list_bytes: u64,
    /// What an OpenPGP message holds after decompression, in bytes.
    pub openpgp_message_bytes: u64,
    /// All keys of one requirement, in bytes.
    pub keyring_bytes: u64,
    /// Packets in all keys of one requirement.
    pub keyring_packets: usize,
    /// Signatures by a key on its own parts that are tried before the key is
    /// given up.
    pub key_signatures: usize,
    /// Certificates in one file or chain.
    pub certificates: usize,
    /// Transparency log entries of one signature.
    pub log_entries: usize,
    /// Hashes in one inclusion proof: the depth of a log of 2^64 entries.
    pub log_path: usize,
    /// Signatures (the log's and its witnesses') of one checkpoint.
    pub log_signatures: usize,
}

impl Limits {
    /// The defaults, also as a constant.
    pub const DEFAULT: Self = Self {
        manifest_bytes: 4 << 20,
        config_bytes: 4 << 20,
        runtime_document_bytes: 4 << 20,
        descriptors: 4096,
        json_depth: 64,
        index_depth: 4,
        layers: 500,
        blob_bytes: 1 << 40,
        layer_bytes: 256 << 30,
        ratio: 200,
        ratio_floor_bytes: 1 << 30,
        zstd_window_log: 27,
        members: 1 << 20,
        entries: 2_000_000,
        nodes: 4_000_000,
        file_bytes: 1 << 40,
        layer_logical_bytes: 2 << 40,
        path_bytes: 4095,
        path_depth: 1024,
        symlink_bytes: 4095,
        extension_bytes: 1 << 20,
        xattrs: 256,
        xattr_value_bytes: 64 << 10,
        xattr_total_bytes: 256 << 10,
        sparse_segments: 1 << 20,
        policy_bytes: 4 << 20,
        key_file_bytes: 4 << 20,
        inline_bytes: 64,
        signatures: 128,
        signature_bytes: 4 << 20,
        signature_list_bytes: 4 << 20,
        openpgp_message_bytes: 1 << 20,
        keyring_bytes: 16 << 20,
        keyring_packets: 1 << 16,
        key_signatures: 512,
        certificates: 64,
        log_entries: 8,
        log_path: 64,
        log_signatures: 32,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
