// SPDX-License-Identifier: Apache-2.0
//! The reading end of a transport.

use std::fmt;

use async_trait::async_trait;
use gantry_oci::{Descriptor, ManifestDigest, Repository};

use crate::blob::BlobStream;
use crate::error::EndpointError;
use crate::layer::{Layer, LayerForm, LayerStream};
use crate::signature::SignatureBlob;
use crate::unverified::UnverifiedManifest;

/// Which manifest of a source is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The one that the source's reference names: a manifest or an index.
    Primary,
    /// The one with this digest, mostly an entry of the primary index.
    Digest(&'a ManifestDigest),
}

/// Where a source's blobs live, for a destination that can take them over
/// without their bytes passing through us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Host and port of the registry, as a reference spells it.
    pub host: String,
    /// The repository that holds the blobs.
    pub repository: Repository,
}

/// One image, or one index of images, that can be read.
///
/// Everything returned is an allegation; the caller verifies. All methods may
/// run at the same time; several blobs may be open at once.
#[async_trait]
pub trait ImageSource: Send + Sync + fmt::Debug {
    /// The reference in the transport's own spelling, for people.
    fn describe(&self) -> String;

    /// Where a registry may mount blobs from.
    fn origin(&self) -> Option<Origin> {
        None
    }

    /// Fetches a manifest or an index, at most the size cap of it.
    ///
    /// # Errors
    /// [`NotFound`](gantry_oci::Kind::NotFound) if the source has no such
    /// manifest; otherwise as the transport says.
    async fn manifest(&self, wanted: Wanted<'_>) -> Result<UnverifiedManifest, EndpointError>;

    /// Opens a blob: a configuration, or a layer exactly as described.
    ///
    /// A broken connection is mended inside, as long as bytes keep coming; an
    /// error in the stream is final.
    ///
    /// # Errors
    /// [`NotFound`](gantry_oci::Kind::NotFound) if the source has no such
    /// blob; otherwise as the transport says.
    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, EndpointError>;

    /// Tells in which form [`layer`](Self::layer) would give this layer.
    async fn layer_form(&self, layer: &Layer) -> Result<LayerForm, EndpointError> {
        let _ = layer;
        Ok(LayerForm::AsDescribed)
    }

    /// Opens a layer, in the form that [`layer_form`](Self::layer_form) told.
    async fn layer(&self, layer: &Layer) -> Result<LayerStream, EndpointError> {
        Ok(LayerStream::as_described(
            self.blob(&layer.descriptor).await?,
        ))
    }

    /// The indexes here that list a manifest, of a source that can be asked
    /// so: what is said of one of them is said of what it lists.
    async fn indexes_of(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<UnverifiedManifest>, EndpointError> {
        let _ = digest;
        Ok(Vec::new())
    }

    /// The signatures that are kept for a manifest; none is not an error.
    async fn signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        let _ = digest;
        Ok(Vec::new())
    }
}
