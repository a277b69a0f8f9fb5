// SPDX-License-Identifier: Apache-2.0
//! Registries, OCI layouts, and the engine that copies between them.
//!
//! ```text
//!  name        "docker://…", "oci:…" ──▶ ImageName
//!  registry    RegistrySource, RegistryDestination, list_tags, delete
//!  oci_layout  LayoutSource, LayoutDestination
//!  copy        plan (pure) ──▶ run: any ImageSource to any ImageDestination
//!  inspect     what an image is, without its layers
//! ```
//!
//! What it promises: no byte of a layer is kept in memory longer than it takes
//! to pass it on; nothing is handed to a destination's visible side that was
//! not verified; credentials never leave the origin that they are for.
//!
//! What it does not: it reads neither environment nor clock for decisions;
//! files to read and options come from the caller.

#![forbid(unsafe_code)]

pub mod copy;
pub mod inspect;
pub mod name;
pub mod oci_layout;
pub mod registry;

pub use name::{ImageName, ParseNameError, Selection};
