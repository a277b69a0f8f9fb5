// SPDX-License-Identifier: Apache-2.0
//! The writing end of a transport.
//!
//! The life of one image at its destination:
//!
//! ```text
//! ImageDestination::begin(Incoming) ──▶ ImageWriter         nothing visible yet
//!     for each layer, several at once:
//!         ImageWriter::ask_layer ──▶ Held                    no byte is fetched
//!                               └──▶ Wanted(LayerSlot)
//!                                         LayerSlot::fill(LayerStream) ──▶ VerifiedBlob
//! ImageWriter::commit(Commit)                                visible, by one step
//! (or the writer is dropped                                  and nothing remains but garbage)
//! ```
//!
//! Manifest and configuration are known before the first layer is asked for,
//! so a destination that unpacks knows every diffID from the start.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_oci::{ImageConfig, Kind, ManifestDigest, MediaType};

use crate::blob::BlobStream;
use crate::convert::ManifestFormat;
use crate::error::EndpointError;
use crate::layer::{Layer, LayerStream};
use crate::signature::SignatureBlob;
use crate::source::Origin;
use crate::unverified::ManifestBytes;
use crate::verify::{VerifiedBlob, VerifiedBytes};

/// What a destination can take; a copy is planned by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Families of manifests that it keeps.
    pub formats: Vec<ManifestFormat>,
    /// Whether it keeps indexes.
    pub indexes: bool,
    /// Whether [`LayerSlot::fill`] takes a plain tar and checks the diffID,
    /// whatever the descriptor says of compression.
    pub plain_tar: bool,
    /// Whether [`ImageWriter::put_computed`] works.
    pub computed: bool,
    /// Whether it keeps things that are not images (artifacts, whose blobs
    /// have no diffIDs).
    pub artifacts: bool,
    /// Whether it keeps the index that an image was chosen from, and the
    /// signatures of that index.
    pub origins: bool,
    /// How many layers it likes to be written at once, at most.
    pub parallel_layers: usize,
}

/// An image that is about to arrive: all that is known before its layers.
#[derive(Debug)]
pub struct Incoming {
    /// The manifest as the source has it.
    pub manifest: ManifestBytes,
    /// The configuration's bytes.
    pub config: VerifiedBytes,
    /// The configuration, if it is an image's rather than an artifact's.
    pub image_config: Option<ImageConfig>,
    /// The layers in order, the base first. A blob that stands in the
    /// manifest twice stands here twice.
    pub layers: Vec<Layer>,
    /// Where the blobs may be mounted from.
    pub origin: Option<Origin>,
}

/// The answer to "do you need this layer?".
pub enum LayerAnswer {
    /// The destination has it, or took it over by itself; no bytes needed.
    Held,
    /// Its bytes are wanted. The slot may hold a lock that makes another
    /// process wait for ours: fill it or drop it.
    Wanted(Box<dyn LayerSlot>),
}

impl fmt::Debug for LayerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "Held",
            Self::Wanted(_) => "Wanted(..)",
        })
    }
}

/// The right, and the duty, to write one layer.
#[async_trait]
pub trait LayerSlot: Send {
    /// Takes the layer's bytes, to the last one, and keeps them privately.
    ///
    /// The implementation verifies: digest and size against the descriptor
    /// for [`AsDescribed`](crate::LayerForm::AsDescribed), the diffID for
    /// [`PlainTar`](crate::LayerForm::PlainTar), and the diffID in any case
    /// where it unpacks. What it returns can be made by verifying only.
    ///
    /// # Errors
    /// The stream's own error, unchanged in kind; [`Kind::Corrupt`] if digest,
    /// size or diffID differ. The layer may then be asked for again.
    async fn fill(self: Box<Self>, stream: LayerStream) -> Result<VerifiedBlob, EndpointError>;
}

/// Whether a commit moves the destination's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The destination's name (tag, ref name, …) points at this manifest now.
    Named,
    /// Reachable by digest only: an instance whose index follows.
    ByDigest,
}

/// What makes an image whole.
#[derive(Debug)]
pub struct Commit {
    /// The manifest as it shall be kept; differs from the incoming one only
    /// where a conversion was planned.
    pub manifest: ManifestBytes,
    /// The configuration that the manifest names.
    pub config: VerifiedBytes,
    /// Signatures to keep beside it.
    pub signatures: Vec<SignatureBlob>,
    /// The index from which this manifest was chosen, for a destination that
    /// [keeps](Capabilities::origins) it: its digest resolves there, too, and
    /// what only the index's signature admits is admitted there.
    pub chosen_from: Option<SignedIndex>,
    /// Whether the name moves.
    pub naming: Naming,
}

/// An index that an image was chosen from.
#[derive(Debug)]
pub struct SignedIndex {
    /// The index.
    pub index: ManifestBytes,
    /// Its own signatures.
    pub signatures: Vec<SignatureBlob>,
}

/// What a commit made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The digest under which it can be found.
    pub digest: ManifestDigest,
}

/// A place for one image or one index.
///
/// Methods may run at the same time, also for several images at once.
#[async_trait]
pub trait ImageDestination: Send + Sync + fmt::Debug {
    /// The reference in the transport's own spelling, for people.
    fn describe(&self) -> String;

    /// What it can take.
    fn capabilities(&self) -> Capabilities;

    /// Starts to receive an image. Nothing becomes visible.
    async fn begin(&self, incoming: Arc<Incoming>) -> Result<Box<dyn ImageWriter>, EndpointError>;

    /// Keeps an index whose entries were committed before, or of which the
    /// caller wants only those that were; `signatures` are kept beside it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if it keeps no indexes, or no signatures.
    async fn put_index(
        &self,
        index: &ManifestBytes,
        signatures: Vec<SignatureBlob>,
        naming: Naming,
    ) -> Result<Committed, EndpointError>;
}

/// One image being received.
///
/// Dropping it gives up: what arrived stays private and is reclaimed.
#[async_trait]
pub trait ImageWriter: Send + Sync {
    /// Asks for a layer before any byte of it is fetched. A blob that stands
    /// in the manifest several times is asked for once.
    ///
    /// May wait while another process fetches the same layer, and then
    /// answers [`LayerAnswer::Held`].
    async fn ask_layer(&self, layer: &Layer) -> Result<LayerAnswer, EndpointError>;

    /// Takes a blob whose digest nobody knows yet, because it is being
    /// compressed on the way, and tells what it turned out to be.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where [`Capabilities::computed`] is false.
    async fn put_computed(
        &self,
        media_type: &MediaType,
        blob: BlobStream,
    ) -> Result<VerifiedBlob, EndpointError> {
        drop(blob);
        Err(EndpointError::new(
            Kind::Unsupported,
            format!("write a {media_type} blob of unknown digest"),
        ))
    }

    /// Makes the image visible, by one step, after all its layers were
    /// filled or held.
    async fn commit(self: Box<Self>, commit: Commit) -> Result<Committed, EndpointError>;
}
