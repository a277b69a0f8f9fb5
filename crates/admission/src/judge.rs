// SPDX-License-Identifier: Apache-2.0
//! The seam between those who ask and those who know the policy.

use std::fmt;

use async_trait::async_trait;
use gantry_oci::{ImageId, ManifestDigest, Reference};

/// What is known of the image that would run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nothing but its name: whatever the registry serves under it now.
    Served,
    /// A daemon holds an image with this ID and says that it came as this
    /// manifest or index. An allegation: the judge compares the two.
    Held {
        /// The manifest or index.
        manifest: ManifestDigest,
        /// The daemon's name for what it runs: the digest of the
        /// configuration, or of the manifest or index itself.
        image: ImageId,
    },
    /// A daemon built, imported or loaded it; no registry speaks for it.
    Local {
        /// The daemon's name for what it runs.
        image: ImageId,
    },
}

/// One image that a verdict is wanted about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Under which reference it would run.
    pub reference: Reference,
    /// Which image that is.
    pub content: Content,
    /// For whom, where a cluster has policies for each namespace.
    pub namespace: Option<String>,
}

/// A verdict and its grounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the policy admits the image.
    pub admitted: bool,
    /// One sentence: the requirement that was met, or what is wrong.
    pub reason: String,
    /// The policy's scope that decided.
    pub scope: Option<String>,
    /// The manifest or index that was judged.
    pub digest: Option<ManifestDigest>,
}

impl Judgement {
    /// A refusal before any policy was asked.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self {
            admitted: false,
            reason: reason.into(),
            scope: None,
            digest: None,
        }
    }
}

/// Whoever knows the policy and finds the signatures.
///
/// There is no third outcome: what cannot be judged is refused.
#[async_trait]
pub trait Judge: Send + Sync + fmt::Debug {
    /// Judges one image.
    async fn judge(&self, asked: &Asked) -> Judgement;
}
