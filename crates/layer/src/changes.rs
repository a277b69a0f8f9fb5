// SPDX-License-Identifier: Apache-2.0
//! What one layer does to a tree, as data.
//!
//! # Source
//! image-spec v1.1 "Image Layer Filesystem Changeset".

use gantry_oci::RelPath;

use crate::tree::{Metadata, NodeKind};

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where; for [`Operation::Opaque`] the directory itself.
    pub path: RelPath,
    /// What.
    pub operation: Operation,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes a node, or gives a directory that is there new metadata.
    Upsert {
        /// Owner, mode, times, extended attributes.
        metadata: Metadata,
        /// What it is; a directory comes without entries.
        kind: NodeKind,
    },
    /// Gives a file that is there, or came earlier, another name.
    HardLink {
        /// The file.
        target: RelPath,
    },
    /// Takes away what lower layers had here.
    Whiteout,
    /// Takes away everything that lower layers had in this directory.
    Opaque,
}

/// All entries of a layer, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changeset {
    /// The entries.
    pub changes: Vec<Change>,
}
