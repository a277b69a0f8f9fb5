// SPDX-License-Identifier: Apache-2.0
//! What happens during a copy, as plain data.
//!
//! A front end draws bars from these, writes them as lines of JSON, or drops
//! them. They are told in order for one layer, and interleaved between layers.

use gantry_oci::{Digest, ManifestDigest};
use serde::Serialize;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The reference was resolved to a manifest that will be copied.
    Resolved {
        /// The manifest's digest.
        digest: ManifestDigest,
        /// Layers that it has.
        layers: usize,
        /// Bytes of all its layers, as described.
        size_bytes: u64,
    },
    /// An index's entry was chosen.
    Chosen {
        /// The chosen manifest.
        digest: ManifestDigest,
        /// Why this one.
        reason: String,
    },
    /// The destination has this layer; nothing is moved.
    LayerHeld {
        /// The layer's blob.
        digest: Digest,
        /// Bytes that need not move.
        size_bytes: u64,
    },
    /// Bytes of a layer begin to move.
    LayerStarted {
        /// The layer's blob.
        digest: Digest,
        /// How many bytes are expected.
        size_bytes: u64,
    },
    /// Some more bytes of a layer came.
    LayerBytes {
        /// The layer's blob.
        digest: Digest,
        /// Bytes since the last event of this layer.
        count: u64,
    },
    /// A layer is at the destination and verified.
    LayerFinished {
        /// The layer's blob.
        digest: Digest,
    },
    /// Something temporary failed and is tried again. Bytes counted so far for
    /// this layer start over.
    Retrying {
        /// The layer's blob; `None` for something else.
        digest: Option<Digest>,
        /// How many attempts failed.
        attempt: u32,
        /// After this pause.
        delay_ms: u64,
        /// What failed.
        error: String,
    },
    /// A manifest or an index is visible at the destination.
    Committed {
        /// Its digest there.
        digest: ManifestDigest,
    },
}

/// Hears what happens. Called from several tasks and threads; must not block.
pub trait ProgressSink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl ProgressSink for Silent {
    fn event(&self, _event: &Event) {}
}

impl<F: Fn(&Event) + Send + Sync> ProgressSink for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}
