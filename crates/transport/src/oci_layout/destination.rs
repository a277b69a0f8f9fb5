// SPDX-License-Identifier: Apache-2.0
//! A layout as a destination of images.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use gantry_image::convert::ManifestFormat;
use gantry_image::{
    BlobStream, Capabilities, Checker, Commit, Committed, EndpointError, ImageDestination,
    ImageWriter, Incoming, Layer, LayerAnswer, LayerForm, LayerSlot, LayerStream, ManifestBytes,
    Naming, SignatureBlob, VerifiedBlob,
};
use gantry_oci::{Algorithm, Descriptor, ImageConfig, Kind, MediaType, Platform};
use tokio::sync::mpsc;

use super::files::Files;
use super::source::blocking;
use super::{LayoutOptions, REF_NAME, insert};
use crate::name::{ImageName, Selection};

/// A name in a layout that images are written to.
#[derive(Debug)]
pub struct LayoutDestination {
    place: Place,
}

#[derive(Debug, Clone)]
struct Place {
    files: Files,
    name: Option<String>,
}

impl LayoutDestination {
    /// Makes the directory a layout, or checks that it is one.
    ///
    /// # Errors
    /// [`Kind::InvalidInput`] for a position instead of a name; the directory
    /// cannot be created, or is a layout of another version.
    pub async fn create(
        path: PathBuf,
        selection: Selection,
        options: &LayoutOptions,
    ) -> Result<Self, EndpointError> {
        let planned = Self::planned(path, selection, options)?;
        let creating = planned.place.files.clone();
        blocking(move || creating.create()).await?;
        Ok(planned)
    }

    /// The same without touching the directory: good for planning a copy, not for doing it.
    ///
    /// # Errors
    /// [`Kind::InvalidInput`] for a position instead of a name.
    pub fn planned(
        path: PathBuf,
        selection: Selection,
        options: &LayoutOptions,
    ) -> Result<Self, EndpointError> {
        let name = match selection {
            Selection::Only => None,
            Selection::Named(name) => Some(name),
            Selection::Position(_) => {
                return Err(EndpointError::new(
                    Kind::InvalidInput,
                    "an image is written by name, not by position",
                ));
            }
        };
        Ok(Self {
            place: Place {
                files: Files::new(path, options),
                name,
            },
        })
    }
}

impl Place {
    /// Writes a manifest and, if it is the named one, its entry in the index.
    async fn put(
        self,
        manifest: ManifestBytes,
        naming: Naming,
        platform: Option<Platform>,
    ) -> Result<Committed, EndpointError> {
        let digest = *manifest.digest();
        blocking(move || {
            self.files.put_small(digest.digest(), manifest.bytes())?;
            if naming == Naming::ByDigest {
                return Ok(());
            }
            let mut entry = Descriptor {
                platform,
                ..manifest.descriptor()
            };
            entry
                .annotations
                .extend(self.name.map(|name| (REF_NAME.to_owned(), name)));
            self.files.change_index(|index| insert(index, entry))
        })
        .await?;
        Ok(Committed { digest })
    }
}

#[async_trait]
impl ImageDestination for LayoutDestination {
    fn describe(&self) -> String {
        let selection = self
            .place
            .name
            .clone()
            .map_or(Selection::Only, Selection::Named);
        ImageName::OciLayout {
            path: self.place.files.dir().to_owned(),
            selection,
        }
        .to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            formats: vec![ManifestFormat::Oci],
            indexes: true,
            plain_tar: false,
            computed: true,
            artifacts: true,
            origins: false,
            parallel_layers: 6,
        }
    }

    async fn begin(&self, incoming: Arc<Incoming>) -> Result<Box<dyn ImageWriter>, EndpointError> {
        let platform = incoming.image_config.as_ref().map(ImageConfig::platform);
        Ok(Box::new(LayoutWriter {
            place: self.place.clone(),
            platform,
        }))
    }

    async fn put_index(
        &self,
        index: &ManifestBytes,
        signatures: Vec<SignatureBlob>,
        naming: Naming,
    ) -> Result<Committed, EndpointError> {
        must_be_unsigned(&signatures)?;
        self.place.clone().put(index.clone(), naming, None).await
    }
}

fn must_be_unsigned(signatures: &[SignatureBlob]) -> Result<(), EndpointError> {
    if signatures.is_empty() {
        return Ok(());
    }
    Err(EndpointError::new(
        Kind::Unsupported,
        "an OCI layout has no place for signatures; use --remove-signatures to leave them behind",
    ))
}

struct LayoutWriter {
    place: Place,
    platform: Option<Platform>,
}

struct LayoutSlot {
    files: Files,
    descriptor: Descriptor,
}

/// Writes a stream under a private name on the blocking pool, checks it, and
/// gives it the name of its digest.
async fn write(
    files: Files,
    mut blob: BlobStream,
    mut checker: Checker,
) -> Result<VerifiedBlob, EndpointError> {
    const AHEAD: usize = 4;
    let (sender, mut receiver) = mpsc::channel::<bytes::Bytes>(AHEAD);
    let writing = blocking(move || {
        let mut staged = files.stage()?;
        while let Some(chunk) = receiver.blocking_recv() {
            checker.update(&chunk)?;
            staged.write_all(&chunk)?;
        }
        let verified = checker.finish()?;
        Ok((files, staged, verified))
    });
    let feeding = async {
        while let Some(chunk) = blob.next().await {
            // A writer that gave up tells why itself.
            if sender.send(chunk?).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<_, EndpointError>(())
    };
    let (fed, written) = futures_util::future::join(feeding, writing).await;
    // The source's failure is the cause of the writer's.
    fed?;
    let (files, staged, verified) = written?;
    blocking(move || files.publish(staged, verified.digest())).await?;
    Ok(verified)
}

#[async_trait]
impl LayerSlot for LayoutSlot {
    async fn fill(self: Box<Self>, stream: LayerStream) -> Result<VerifiedBlob, EndpointError> {
        match stream.form {
            LayerForm::AsDescribed => {
                write(self.files, stream.blob, Checker::of(&self.descriptor)).await
            }
            LayerForm::PlainTar => Err(EndpointError::new(
                Kind::Unsupported,
                format!(
                    "write layer {}: a layout takes the blob as described",
                    self.descriptor.digest
                ),
            )),
        }
    }
}

#[async_trait]
impl ImageWriter for LayoutWriter {
    async fn ask_layer(&self, layer: &Layer) -> Result<LayerAnswer, EndpointError> {
        let (files, descriptor) = (self.place.files.clone(), layer.descriptor.clone());
        let slot = LayoutSlot {
            files: files.clone(),
            descriptor: descriptor.clone(),
        };
        let held =
            blocking(move || Ok(files.has_blob(&descriptor.digest, descriptor.size_bytes))).await?;
        Ok(if held {
            LayerAnswer::Held
        } else {
            LayerAnswer::Wanted(Box::new(slot))
        })
    }

    async fn put_computed(
        &self,
        _media_type: &MediaType,
        blob: BlobStream,
    ) -> Result<VerifiedBlob, EndpointError> {
        write(
            self.place.files.clone(),
            blob,
            Checker::computing(Algorithm::Sha256),
        )
        .await
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<Committed, EndpointError> {
        must_be_unsigned(&commit.signatures)?;
        let (files, config) = (self.place.files.clone(), commit.config);
        blocking(move || files.put_small(config.digest(), config.bytes())).await?;
        self.place
            .put(commit.manifest, commit.naming, self.platform)
            .await
    }
}
