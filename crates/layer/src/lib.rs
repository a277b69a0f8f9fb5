// SPDX-License-Identifier: Apache-2.0
//! Layers: decompression, tar, changesets, trees, merging, EROFS.
