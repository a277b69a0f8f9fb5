// SPDX-License-Identifier: Apache-2.0
//! Layers: decompression, tar, changesets, trees, merging, EROFS.
#![forbid(unsafe_code)]

pub mod changes;
pub mod compress;
pub mod diff;
pub mod dump;
pub mod erofs;
pub mod merge;
pub mod record;
pub mod tar;
pub mod tree;
pub mod verity;
