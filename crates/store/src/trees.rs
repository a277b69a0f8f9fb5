// SPDX-License-Identifier: Apache-2.0
//! Faces: what a merged tree becomes on disk.

pub(crate) mod composefs;
pub(crate) mod hardlink;
