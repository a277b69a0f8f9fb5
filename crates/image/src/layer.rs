// SPDX-License-Identifier: Apache-2.0
//! One layer as a copy speaks of it.

use gantry_oci::{Descriptor, DiffId};

use crate::blob::BlobStream;

/// A layer of an image on its way: where it stands, what blob it is, and
/// which tar that blob must turn out to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Place among the layers, the base being 0.
    pub position: usize,
    /// The blob as the source's manifest describes it.
    pub descriptor: Descriptor,
    /// The digest of the tar inside, as the image's configuration says.
    /// `None` only for artifacts, whose blobs are not file system layers.
    pub diff_id: Option<DiffId>,
}

/// Which bytes a source gives for a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerForm {
    /// The very blob that the descriptor names.
    AsDescribed,
    /// The tar inside it, whose digest is the diffID. A store that keeps
    /// files rather than blobs gives this.
    PlainTar,
}

/// The bytes of a layer, and what they claim to be.
#[derive(Debug)]
pub struct LayerStream {
    /// What the digest of `blob` must be compared with: the descriptor's
    /// digest and size, or the diffID.
    pub form: LayerForm,
    /// The bytes.
    pub blob: BlobStream,
}

impl LayerStream {
    /// The blob that the descriptor names.
    #[must_use]
    pub fn as_described(blob: BlobStream) -> Self {
        Self {
            form: LayerForm::AsDescribed,
            blob,
        }
    }

    /// The tar whose digest is the diffID.
    #[must_use]
    pub fn plain_tar(blob: BlobStream) -> Self {
        Self {
            form: LayerForm::PlainTar,
            blob,
        }
    }
}
