// SPDX-License-Identifier: Apache-2.0
//! Where images come from and go to, and the step from an allegation to a
//! verified image.
//!
//! This crate owns the vocabulary that every transport shares and no
//! transport itself:
//!
//! ```text
//!  ImageSource ──manifest──▶ UnverifiedManifest ──verify──▶ ManifestBytes
//!       │                                                        │ select (an index → one manifest)
//!       │                                                        ▼ convert (what changes on the way)
//!       │                                     ImageDestination::begin ──▶ ImageWriter
//!       └──layer──▶ LayerStream ───────────▶ LayerSlot::fill ──▶ VerifiedBlob
//!                                                                │
//!                                             ImageWriter::commit ──▶ visible, by name and digest
//! ```
//!
//! What it promises: a [`ManifestBytes`], a [`VerifiedBytes`] or a
//! [`VerifiedBlob`] exists only if the bytes were counted and hashed here and
//! agreed with what was asked for. What it does not: to say whether an image
//! is trusted; that is a policy's business.
//!
//! The traits are asynchronous because their other side is often a network;
//! the crate itself starts no task and needs no particular runtime.

#![forbid(unsafe_code)]

pub mod blob;
pub mod convert;
pub mod destination;
pub mod error;
pub mod layer;
pub mod progress;
pub mod select;
pub mod signature;
pub mod source;
pub mod unverified;
pub mod verify;

pub use blob::BlobStream;
pub use destination::{
    Capabilities, Commit, Committed, ImageDestination, ImageWriter, Incoming, LayerAnswer,
    LayerSlot, Naming, SignedIndex,
};
pub use error::EndpointError;
pub use layer::{Layer, LayerForm, LayerStream};
pub use signature::SignatureBlob;
pub use source::{ImageSource, Origin, Wanted};
pub use unverified::{ManifestBytes, UnverifiedManifest};
pub use verify::{Checker, VerifiedBlob, VerifiedBytes, VerifyError, Verifying, VerifyingStream};
