// SPDX-License-Identifier: Apache-2.0
//! Layers: decompression, tar, changesets, trees, merging, EROFS.
#![forbid(unsafe_code)]

pub mod dump;
pub mod erofs;
pub mod tree;
pub mod verity;
