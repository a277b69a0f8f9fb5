// SPDX-License-Identifier: Apache-2.0
//! From options and an image to an OCI runtime document, a bundle and a running container.
//!
//! | module | owns |
//! |---|---|
//! | [`options`] | what an operator may ask, as checked values |
//! | [`host`] | what this host can do, as one value |
//! | [`spec`] | the runtime document: pure, reproducible, explained |
//! | [`identity`] | users and groups against the rootfs, strictly |
//! | [`capability`] | capability sets |
#![forbid(unsafe_code)]

pub mod capability;
pub mod host;
pub mod identity;
pub mod options;
pub mod spec;
