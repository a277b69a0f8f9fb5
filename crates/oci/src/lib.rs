// SPDX-License-Identifier: Apache-2.0
//! Documents of the OCI and Docker image formats: digests, references,
//! descriptors, manifests, indexes and image configurations.
//!
//! This crate owns the vocabulary that every other crate speaks. It is pure:
//! it parses bytes into values and values into text, and does no input or
//! output, reads no clock and no environment.
//!
//! What it promises: a value of one of its types is *well formed*. It says
//! nothing about whether the bytes a [`Descriptor`] speaks of exist or match;
//! that is for `gantry-image` to prove.
//!
//! # Source
//! image-spec v1.1, distribution-spec v1.1, Docker image manifest version 2
//! schema 2.
#![forbid(unsafe_code)]

pub mod age;
pub mod config;
pub mod descriptor;
pub mod digest;
pub mod document;
pub mod ids;
pub mod kind;
pub mod limits;
pub mod media_type;
pub mod path;
pub mod platform;
pub mod reference;
pub mod rfc3339;
pub mod strict_json;

pub use age::Age;
pub use config::{ImageConfig, ProcessConfig};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Digester, ParseDigestError};
pub use document::{Document, Index, Manifest, ParseDocumentError};
pub use ids::{ChainId, DiffId, ImageId, LayerDigest, ManifestDigest, ObjectId};
pub use kind::Kind;
pub use limits::Limits;
pub use media_type::MediaType;
pub use path::{PathComponent, RelPath};
pub use platform::Platform;
pub use reference::{Host, Reference, Repository, Tag};
