// SPDX-License-Identifier: Apache-2.0
//! The copy engine: any source to any destination.
//!
//! ```text
//! resolve   fetch the manifest, verify it; choose from an index        (source)
//!    ▼
//! gate      is this image allowed here? no blob is fetched before      (policy)
//!    ▼
//! plan      what changes, what each layer needs; pure, printable
//!    ▼
//! run       layers, several at once, streaming; configuration; commit  (destination)
//! ```
//!
//! [`plan`] does all but the last step, for a dry run; [`run`] does all.
//! Manifests and configurations are small and held in memory, within caps;
//! layers are not.

mod plan;
mod recompress;
mod resolve;
mod run;

pub use gantry_image::progress::{Event, ProgressSink, Silent};
pub use plan::{CopyPlan, ImagePlan, PlannedLayer, plan};
pub(crate) use resolve::entry as resolve_entry;
pub use run::{CopyReport, ImageReport, run};

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_image::convert::Wishes;
use gantry_image::{EndpointError, ImageSource, ManifestBytes, SignatureBlob};
use gantry_oci::{Kind, Limits, Platform};

use crate::registry::RetryPolicy;

/// Which images of an index are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MultiArch {
    /// The one for [`CopyOptions::platform`].
    #[default]
    System,
    /// All, and the index.
    All,
    /// The index alone; its images must be at the destination, or are never
    /// asked for.
    IndexOnly,
}

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The platform to choose from an index.
    pub platform: Platform,
    /// Which images of an index are copied.
    pub multi_arch: MultiArch,
    /// What shall be changed.
    pub wishes: Wishes,
    /// Fail rather than change a manifest.
    pub preserve_digests: bool,
    /// Leave signatures behind.
    pub remove_signatures: bool,
    /// Who signs what arrives, beside the signatures that it has.
    pub signers: Vec<Arc<dyn Sign>>,
    /// Layers moved at once, at most.
    pub parallel_layers: usize,
    /// When to try a layer again.
    pub retry: RetryPolicy,
    /// Caps on manifests and configurations.
    pub limits: Limits,
}

impl CopyOptions {
    /// The defaults, for a platform.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            multi_arch: MultiArch::System,
            wishes: Wishes::default(),
            preserve_digests: false,
            remove_signatures: false,
            signers: Vec::new(),
            parallel_layers: 6,
            retry: RetryPolicy::default(),
            limits: Limits::DEFAULT,
        }
    }
}

/// Signs manifests as they are at the destination, images and indexes.
#[async_trait]
pub trait Sign: fmt::Debug + Send + Sync {
    /// Makes signatures of a manifest.
    ///
    /// # Errors
    /// No key, or nobody who gives its passphrase.
    async fn sign(&self, manifest: &ManifestBytes) -> Result<Vec<SignatureBlob>, EndpointError>;
}

/// Decides whether an image may be copied, before any blob of it is fetched.
///
/// Called for every image, and for every index that is kept. An index that an
/// image is only chosen from is not asked about: what runs is the image.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Admits the image, or an index that is kept, or says why not. An image
    /// that an index lists comes with that index.
    ///
    /// # Errors
    /// [`Kind::Denied`] with the reason.
    async fn admit(
        &self,
        source: &dyn ImageSource,
        manifest: &ManifestBytes,
        listed_in: Option<&ManifestBytes>,
    ) -> Result<(), EndpointError>;
}

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The source could not be read, or the destination not be written.
    #[error("copy {from} to {to}")]
    Failed {
        /// The source.
        from: String,
        /// The destination.
        to: String,
        /// Why.
        source: EndpointError,
    },
    /// Digests were to be preserved, and cannot be.
    #[error("copy {from} to {to} with its digest: {}", .reasons.join("; "))]
    DigestWouldChange {
        /// The source.
        from: String,
        /// The destination.
        to: String,
        /// Why the manifest would change.
        reasons: Vec<String>,
    },
}

impl CopyError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Failed { source, .. } => source.kind(),
            Self::DigestWouldChange { .. } => Kind::Unsupported,
        }
    }
}
