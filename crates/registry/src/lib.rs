// SPDX-License-Identifier: Apache-2.0
//! The registry daemon: receive, verify, explode, publish.
//!
//! ```text
//!  client ──blobs──▶ upload ──▶ blobs/            (hashed on the way, kept as pushed)
//!         ─manifest▶ manifests::receive           strict document, every blob present in this repository
//!                      └▶ gate                    the policy, where the repository asks it: publish, wait, refuse
//!                           └▶ pipeline::explode       layers verified and unpacked, privately
//!                                └▶ pipeline::publish  digests/<digest>/ by one rename, then the tag's link
//! ```
//!
//! A manifest PUT is answered after the image can be run on every host that
//! mounts the tree, or is refused and leaves nothing that can be seen by tag, by
//! digest, as a referrer or in the tree. In between there is only what waits
//! for a signature, which nobody sees either.
//!
//! What this crate does not do: it has no command line, reads no environment
//! and makes no async runtime; the program passes all of it in.
//!
//! # Source
//! distribution-spec v1.1.
#![forbid(unsafe_code)]

mod blobs;
mod errors;
mod gate;
mod manifests;
mod pipeline;
mod respond;
mod routes;
mod serve;
mod signatures;
mod state;
mod upload;

pub use gate::{
    Authorities, GateOptions, Lookasides, NoLookasides, PolicyRules, PushPolicy, WaitingImage,
    WaitingLimits, list_waiting,
};
pub use pipeline::{Rules, Treatment};
pub use serve::{ClientLimits, Registry, ServeError, ServeOptions, Tls, serve};
pub use signatures::{Keeping, SignatureRules};
