// SPDX-License-Identifier: Apache-2.0
//! The content-addressed store: objects, images, names, leases, faces, mounts.
//!
//! One store is one directory ([`layout`] draws it). File contents are immutable objects named by
//! their fs-verity digest; everything else about an image (names, owners, modes, times, xattrs,
//! shape) lives in one EROFS file, or in a tree of hard links, or both. Readers take no locks, and
//! a read-only mount of another host's store is as good as the store itself.
//!
//! ```text
//! Store::open ─▶ begin ─▶ Ingest: claim → unpack (each layer) → commit_image
//!            └─▶ names, resolve, image, config, rootfs_plan, mount, layer_tar
//!            └─▶ check, plan_repair, usage, remove_image, collect, lease
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`layout`] | where everything lies |
//! | [`open`] | creating, opening, opening read-only |
//! | [`ingest`] | the only way in |
//! | [`record`] | the checksummed records |
//! | [`refs`], [`name`] | names and how they lead to images |
//! | [`layers`] | layers as records; giving tars back |
//! | [`contents`] | what is in an image or a container, as data |
//! | [`signatures`] | what others say of an image |
//! | [`mount`] | how an image becomes a root file system |
//! | [`mounts`] | mounts that outlive the command that made them |
//! | [`lease`] | what must not be deleted |
//! | [`fsck`], [`usage`], [`remove`], [`retention`] | care |
//! | [`mod@repair`] | bringing again what is damaged (async) |
//! | [`endpoint`] | the store as a source and a destination of copies (async) |
#![forbid(unsafe_code)]

pub mod contents;
pub mod endpoint;
pub mod error;
pub mod fsck;
pub mod ingest;
pub mod layers;
pub mod layout;
pub mod lease;
pub mod mount;
pub mod mounts;
pub mod name;
pub mod open;
pub mod record;
pub mod refs;
pub mod remove;
pub mod repair;
pub mod retention;
pub mod signatures;
mod trees;
pub mod usage;

pub use error::StoreError;
pub use fsck::{CheckOptions, CheckReport, Damage, Problem};
pub use gantry_sys::rootfs::{RootfsLower, RootfsPlan, RootfsUpper};
pub use ingest::{
    BlobForm, Claim, CommitImage, Ingest, IngestError, IngestOptions, LayerClaim, LayerInfo,
};
pub use lease::{Lease, Owner};
pub use mount::{DigestChoice, FaceChoice};
pub use mounts::{MountRecord, MountRequest, Mounted, Mounts};
pub use name::{ImageName, Pointer};
pub use open::{CreateOptions, Seal, Store};
pub use record::{Faces, ImageFacts, ImageRecord, RecordContent};
pub use refs::NamedImage;
pub use remove::{CollectOptions, Collection};
pub use repair::RepairPlan;
pub use usage::{ImageUsage, Usage};
