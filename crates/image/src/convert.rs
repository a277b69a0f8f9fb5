// SPDX-License-Identifier: Apache-2.0
//! What must change of an image on its way, decided before a byte moves.
//!
//! [`plan`] is pure: a manifest, what the destination takes, and what the user
//! asked for go in; a [`Conversion`] comes out, which can be printed. After
//! the layers were moved, [`rewrite`] makes the new manifest.
//!
//! A configuration is never changed: its bytes, and with them the image ID,
//! stay the same in both families, since every reader ignores the members
//! that it does not know.
//!
//! # Source
//! image-spec v1.1 "Compatibility Matrix".

use std::fmt;

use gantry_oci::media_type::LayerCompression;
use gantry_oci::{Descriptor, Index, Kind, Manifest, MediaType};
use serde::Serialize;

use crate::error::EndpointError;
use crate::layer::LayerForm;
use crate::unverified::{ManifestBytes, UnverifiedManifest};
use crate::verify::VerifiedBlob;

/// A family of manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestFormat {
    /// OCI image manifest and index.
    Oci,
    /// Docker manifest version 2 schema 2, and manifest list.
    Docker,
}

impl ManifestFormat {
    /// The family of a document with this media type.
    #[must_use]
    pub fn of(media_type: &MediaType) -> Self {
        if media_type.is_docker() {
            Self::Docker
        } else {
            Self::Oci
        }
    }
}

impl fmt::Display for ManifestFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oci => "OCI",
            Self::Docker => "Docker v2s2",
        })
    }
}

/// What the user asked to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The family of the manifest at the destination.
    pub format: Option<ManifestFormat>,
    /// How layers shall be compressed there, where they must be written anew.
    pub compression: Option<LayerCompression>,
    /// Write anew every layer that is compressed otherwise than wished.
    pub force_compression: bool,
}

/// What happens to one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerStep {
    /// The blob stays as it is.
    Keep,
    /// The tar goes to a destination that keeps tars or files; the manifest
    /// stays as it is.
    GiveTar,
    /// The blob is read to its tar and written in another compression.
    Rewrite {
        /// Which bytes the source gives.
        #[serde(skip)]
        from: LayerForm,
        /// How it is written.
        #[serde(serialize_with = "compression_name")]
        to: LayerCompression,
    },
}

fn compression_name<S: serde::Serializer>(
    value: &LayerCompression,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match value {
        LayerCompression::None => "none",
        LayerCompression::Gzip => "gzip",
        LayerCompression::Zstd => "zstd",
    })
}

/// What changes of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conversion {
    /// The family at the destination.
    pub format: ManifestFormat,
    /// One step for each layer.
    pub layers: Vec<LayerStep>,
    /// Why the manifest changes; empty if it stays byte for byte.
    pub reasons: Vec<String>,
}

impl Conversion {
    /// Whether the manifest gets other bytes, hence another digest.
    #[must_use]
    pub fn changes_manifest(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Why an image cannot be brought into the form that is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The destination takes no family that the image can have.
    #[error("destination takes no {wanted} manifests")]
    Format {
        /// What would be needed.
        wanted: ManifestFormat,
    },
    /// Docker's family knows images only.
    #[error("an artifact of type {artifact_type:?} has no {wanted} form")]
    Artifact {
        /// What it is.
        artifact_type: String,
        /// What was asked for.
        wanted: ManifestFormat,
    },
    /// A layer's media type has no counterpart.
    #[error("layer of media type {media_type} has no {wanted} form")]
    Layer {
        /// What it is.
        media_type: MediaType,
        /// What was asked for.
        wanted: ManifestFormat,
    },
    /// The layer would have to be written anew, which the destination can't.
    #[error("destination takes a layer only under a digest known in advance, but {why}")]
    Unknown {
        /// Why it must be written anew.
        why: String,
    },
}

impl ConvertError {
    /// Always [`Kind::Unsupported`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Unsupported
    }
}

impl From<ConvertError> for EndpointError {
    fn from(error: ConvertError) -> Self {
        Self::with_source(error.kind(), "convert the image", error)
    }
}

/// What the destination takes, as far as a conversion depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts<'a> {
    /// Families of manifests.
    pub formats: &'a [ManifestFormat],
    /// Plain tars in place of compressed blobs.
    pub plain_tar: bool,
    /// Blobs whose digest is known only once they were written.
    pub computed: bool,
}

/// Decides what changes of an image.
///
/// The source's family is kept if the destination takes it and nobody asked
/// otherwise. A layer is written anew if the source no longer has the blob, or
/// if the user forces another compression.
///
/// # Errors
/// [`ConvertError`].
pub fn plan(
    manifest: &Manifest,
    forms: &[LayerForm],
    accepts: Accepts<'_>,
    wishes: Wishes,
) -> Result<Conversion, ConvertError> {
    let mut reasons = Vec::new();
    let layers = manifest
        .layers
        .iter()
        .enumerate()
        .map(|(position, layer)| {
            let form = forms
                .get(position)
                .copied()
                .unwrap_or(LayerForm::AsDescribed);
            plan_layer(position, layer, form, accepts, wishes, &mut reasons)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let source = ManifestFormat::of(&manifest.effective_media_type());
    let has_zstd = manifest
        .layers
        .iter()
        .zip(&layers)
        .any(|(layer, step)| match step {
            LayerStep::Rewrite { to, .. } => *to == LayerCompression::Zstd,
            _ => layer.media_type.layer_compression() == Some(LayerCompression::Zstd),
        });
    let writes_zstd = layers
        .iter()
        .any(|step| matches!(step, LayerStep::Rewrite { to, .. } if *to == LayerCompression::Zstd));
    let format = choose_format(source, has_zstd, writes_zstd, accepts, wishes)?;
    if format != source {
        reasons.push(format!("the manifest becomes {format}"));
        if format == ManifestFormat::Docker && (!manifest.is_image() || manifest.subject.is_some())
        {
            return Err(ConvertError::Artifact {
                artifact_type: manifest.effective_artifact_type().to_owned(),
                wanted: format,
            });
        }
        for (layer, step) in manifest.layers.iter().zip(&layers) {
            new_media_type(layer, *step, format)?;
        }
    }
    Ok(Conversion {
        format,
        layers,
        reasons,
    })
}

fn plan_layer(
    position: usize,
    layer: &Descriptor,
    form: LayerForm,
    accepts: Accepts<'_>,
    wishes: Wishes,
    reasons: &mut Vec<String>,
) -> Result<LayerStep, ConvertError> {
    let now = layer.media_type.layer_compression();
    let forced = wishes
        .compression
        .filter(|wish| wishes.force_compression && now.is_some() && now != Some(*wish));
    let (to, why) = match (form, forced) {
        (LayerForm::AsDescribed, None) => return Ok(LayerStep::Keep),
        (LayerForm::PlainTar, None) if accepts.plain_tar => return Ok(LayerStep::GiveTar),
        (_, Some(wish)) => (wish, "another compression was asked for".to_owned()),
        (LayerForm::PlainTar, None) => {
            let to = wishes.compression.or(now).unwrap_or(LayerCompression::Gzip);
            (to, "the source keeps its tar but not its blob".to_owned())
        }
    };
    if !accepts.computed {
        return Err(ConvertError::Unknown {
            why: format!("layer {position} is written anew: {why}"),
        });
    }
    reasons.push(format!("layer {position} is written anew: {why}"));
    Ok(LayerStep::Rewrite { from: form, to })
}

fn choose_format(
    source: ManifestFormat,
    has_zstd: bool,
    writes_zstd: bool,
    accepts: Accepts<'_>,
    wishes: Wishes,
) -> Result<ManifestFormat, ConvertError> {
    let takes = |format: &ManifestFormat| accepts.formats.contains(format);
    if let Some(wanted) = wishes.format {
        return if takes(&wanted) {
            Ok(wanted)
        } else {
            Err(ConvertError::Format { wanted })
        };
    }
    // Docker's family has no zstd layers, though some builders write them;
    // what is kept as it is may stay so.
    let preferred = if writes_zstd || (has_zstd && wishes.force_compression) {
        ManifestFormat::Oci
    } else {
        source
    };
    [preferred, ManifestFormat::Oci, ManifestFormat::Docker]
        .into_iter()
        .find(takes)
        .ok_or(ConvertError::Format { wanted: source })
}

/// The media type of a layer in `format`, after `step`.
fn new_media_type(
    layer: &Descriptor,
    step: LayerStep,
    format: ManifestFormat,
) -> Result<MediaType, ConvertError> {
    use LayerCompression as C;
    use ManifestFormat as F;
    use MediaType as M;
    let unknown = || ConvertError::Layer {
        media_type: layer.media_type.clone(),
        wanted: format,
    };
    let compression = match step {
        LayerStep::Rewrite { to, .. } => to,
        _ => layer.media_type.layer_compression().ok_or_else(unknown)?,
    };
    let foreign = matches!(
        layer.media_type,
        M::OciForeignLayer
            | M::OciForeignLayerGzip
            | M::OciForeignLayerZstd
            | M::DockerForeignLayer
    );
    Ok(match (format, foreign, compression) {
        (F::Oci, false, C::None) => M::OciLayer,
        (F::Oci, false, C::Gzip) => M::OciLayerGzip,
        (F::Oci, false, C::Zstd) => M::OciLayerZstd,
        (F::Oci, true, C::None) => M::OciForeignLayer,
        (F::Oci, true, C::Gzip) => M::OciForeignLayerGzip,
        (F::Oci, true, C::Zstd) => M::OciForeignLayerZstd,
        (F::Docker, false, C::None) => M::DockerLayer,
        (F::Docker, false, C::Gzip) => M::DockerLayerGzip,
        (F::Docker, true, C::Gzip) => M::DockerForeignLayer,
        (F::Docker, _, C::Zstd) | (F::Docker, true, C::None) => return Err(unknown()),
    })
}

/// What became of a layer that was planned to be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewritten {
    /// This was written.
    As(VerifiedBlob),
    /// Nothing: the destination had the blob that the source's manifest
    /// describes, although the source has it no more.
    Kept,
}

impl LayerStep {
    /// Whether the step only makes a blob like the one that the source has
    /// lost: where the destination has that one, nothing need be written.
    #[must_use]
    pub fn restores(self, layer: &Descriptor) -> bool {
        matches!(self, Self::Rewrite { from: LayerForm::PlainTar, to }
            if layer.media_type.layer_compression() == Some(to))
    }
}

/// Makes the manifest that the plan leads to. `written` tells, for each layer
/// that was to be written anew, what became of it.
///
/// # Errors
/// [`ConvertError`], or [`Kind::Internal`] if a written layer is missing.
pub fn rewrite(
    manifest: &Manifest,
    conversion: &Conversion,
    written: &[Option<Rewritten>],
) -> Result<ManifestBytes, EndpointError> {
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for (position, (layer, step)) in manifest.layers.iter().zip(&conversion.layers).enumerate() {
        let mut new = layer.clone();
        if ManifestFormat::of(&layer.media_type) != conversion.format
            || matches!(step, LayerStep::Rewrite { .. })
        {
            new.media_type = new_media_type(layer, *step, conversion.format)?;
        }
        let rewritten = written.get(position).copied().flatten();
        if let (LayerStep::Rewrite { .. }, None) = (step, rewritten) {
            return Err(EndpointError::new(
                Kind::Internal,
                format!("layer {position} was planned to be written and was not"),
            ));
        }
        if let (LayerStep::Rewrite { .. }, Some(Rewritten::As(blob))) = (step, rewritten) {
            new.digest = *blob.digest();
            new.size_bytes = blob.size_bytes();
            new.data = None;
            new.urls = Vec::new();
        }
        layers.push(new);
    }
    let mut new = Manifest {
        layers,
        ..manifest.clone()
    };
    match conversion.format {
        ManifestFormat::Oci => {
            new.media_type = Some(MediaType::OciManifest);
            if new.config.media_type == MediaType::DockerConfig {
                new.config.media_type = MediaType::OciConfig;
            }
        }
        ManifestFormat::Docker => {
            new.media_type = Some(MediaType::DockerManifest);
            new.config.media_type = MediaType::DockerConfig;
            new.annotations.clear();
            new.artifact_type = None;
            for descriptor in new.layers.iter_mut().chain([&mut new.config]) {
                descriptor.annotations.clear();
                descriptor.artifact_type = None;
                descriptor.data = None;
            }
        }
    }
    encode(&new)
}

/// Makes the index whose entries were rewritten: `replaced` holds, for each
/// entry, its new manifest, or `None` if it stays.
///
/// # Errors
/// [`Kind::Internal`] if the result cannot be encoded.
pub fn rewrite_index(
    index: &Index,
    format: ManifestFormat,
    replaced: &[Option<ManifestBytes>],
) -> Result<ManifestBytes, EndpointError> {
    let mut new = index.clone();
    for (entry, manifest) in new.manifests.iter_mut().zip(replaced) {
        if let Some(manifest) = manifest {
            let fresh = manifest.descriptor();
            entry.media_type = fresh.media_type;
            entry.digest = fresh.digest;
            entry.size_bytes = fresh.size_bytes;
            entry.data = None;
        }
    }
    new.media_type = Some(match format {
        ManifestFormat::Oci => MediaType::OciIndex,
        ManifestFormat::Docker => MediaType::DockerManifestList,
    });
    if format == ManifestFormat::Docker {
        new.annotations.clear();
        new.artifact_type = None;
    }
    encode(&new)
}

fn encode(document: &impl Serialize) -> Result<ManifestBytes, EndpointError> {
    let bytes = serde_json::to_vec(document).map_err(|error| {
        EndpointError::with_source(Kind::Internal, "encode the converted manifest", error)
    })?;
    Ok(UnverifiedManifest::new(bytes.into(), None, None)
        .verify(None, &gantry_oci::Limits::DEFAULT)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Checker;
    use gantry_oci::Algorithm;

    const BOTH: &[ManifestFormat] = &[ManifestFormat::Oci, ManifestFormat::Docker];

    fn accepts(formats: &[ManifestFormat]) -> Accepts<'_> {
        Accepts {
            formats,
            plain_tar: false,
            computed: true,
        }
    }

    fn manifest(media_type: MediaType, config: MediaType, layers: &[MediaType]) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type),
            artifact_type: None,
            config: Descriptor::of(config, b"{}"),
            layers: layers
                .iter()
                .map(|layer| Descriptor::of(layer.clone(), b"layer"))
                .collect(),
            subject: None,
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        }
    }

    fn oci(layers: &[MediaType]) -> Manifest {
        manifest(MediaType::OciManifest, MediaType::OciConfig, layers)
    }

    fn blob(data: &[u8]) -> VerifiedBlob {
        let mut checker = Checker::computing(Algorithm::Sha256);
        checker.update(data).unwrap();
        checker.finish().unwrap()
    }

    #[test]
    fn nothing_changes_where_nothing_must() {
        let conversion = plan(
            &oci(&[MediaType::OciLayerZstd]),
            &[LayerForm::AsDescribed],
            accepts(BOTH),
            Wishes::default(),
        )
        .unwrap();
        assert!(!conversion.changes_manifest());
        assert_eq!(conversion.layers, [LayerStep::Keep]);
    }

    #[test]
    fn docker_becomes_oci_and_keeps_its_blobs() {
        let source = manifest(
            MediaType::DockerManifest,
            MediaType::DockerConfig,
            &[
                MediaType::DockerLayerGzip,
                MediaType::DockerForeignLayer,
                MediaType::DockerLayer,
            ],
        );
        let wishes = Wishes {
            format: Some(ManifestFormat::Oci),
            ..Wishes::default()
        };
        let conversion =
            plan(&source, &[LayerForm::AsDescribed; 3], accepts(BOTH), wishes).unwrap();
        assert_eq!(conversion.reasons, ["the manifest becomes OCI"]);
        let new = rewrite(&source, &conversion, &[None, None, None]).unwrap();
        let new = new.as_manifest().unwrap();
        assert_eq!(new.media_type, Some(MediaType::OciManifest));
        assert_eq!(new.config.media_type, MediaType::OciConfig);
        assert_eq!(new.config.digest, source.config.digest);
        let types: Vec<_> = new
            .layers
            .iter()
            .map(|layer| layer.media_type.clone())
            .collect();
        assert_eq!(
            types,
            [
                MediaType::OciLayerGzip,
                MediaType::OciForeignLayerGzip,
                MediaType::OciLayer
            ]
        );
        assert_eq!(new.layers[0].digest, source.layers[0].digest);
    }

    #[test]
    fn destination_of_one_family_forces_it() {
        let conversion = plan(
            &oci(&[MediaType::OciLayerGzip]),
            &[LayerForm::AsDescribed],
            accepts(&[ManifestFormat::Docker]),
            Wishes::default(),
        )
        .unwrap();
        assert_eq!(conversion.format, ManifestFormat::Docker);
        let new = rewrite(&oci(&[MediaType::OciLayerGzip]), &conversion, &[None]).unwrap();
        assert_eq!(new.media_type(), MediaType::DockerManifest);
        assert!(new.as_manifest().unwrap().annotations.is_empty());
    }

    #[test]
    fn zstd_layers_and_artifacts_have_no_docker_form() {
        let only_docker = accepts(&[ManifestFormat::Docker]);
        let zstd = plan(
            &oci(&[MediaType::OciLayerZstd]),
            &[LayerForm::AsDescribed],
            only_docker,
            Wishes::default(),
        );
        assert!(matches!(zstd.unwrap_err(), ConvertError::Layer { .. }));
        let artifact = manifest(MediaType::OciManifest, MediaType::OciEmpty, &[]);
        let error = plan(&artifact, &[], only_docker, Wishes::default()).unwrap_err();
        assert!(matches!(error, ConvertError::Artifact { .. }));
        // Written anew as gzip, the layer has one.
        let wishes = Wishes {
            compression: Some(LayerCompression::Gzip),
            force_compression: true,
            ..Wishes::default()
        };
        assert!(
            plan(
                &oci(&[MediaType::OciLayerZstd]),
                &[LayerForm::AsDescribed],
                only_docker,
                wishes
            )
            .is_ok()
        );
    }

    #[test]
    fn tar_goes_to_who_takes_it_and_is_compressed_for_others() {
        let source = oci(&[MediaType::OciLayerGzip]);
        let store = Accepts {
            plain_tar: true,
            computed: false,
            formats: BOTH,
        };
        let conversion = plan(&source, &[LayerForm::PlainTar], store, Wishes::default()).unwrap();
        assert_eq!(conversion.layers, [LayerStep::GiveTar]);
        assert!(!conversion.changes_manifest());
        let conversion = plan(
            &source,
            &[LayerForm::PlainTar],
            accepts(BOTH),
            Wishes::default(),
        )
        .unwrap();
        assert_eq!(
            conversion.layers,
            [LayerStep::Rewrite {
                from: LayerForm::PlainTar,
                to: LayerCompression::Gzip
            }]
        );
        let new = rewrite(&source, &conversion, &[Some(Rewritten::As(blob(b"new")))]).unwrap();
        assert_eq!(
            new.as_manifest().unwrap().layers[0].digest,
            *blob(b"new").digest()
        );
        // The destination still has the blob that the store has not.
        let step = conversion.layers[0];
        assert!(step.restores(&source.layers[0]));
        let kept = rewrite(&source, &conversion, &[Some(Rewritten::Kept)]).unwrap();
        assert_eq!(kept.as_manifest().unwrap().layers, source.layers);
        assert!(rewrite(&source, &conversion, &[None]).is_err());
        let neither = Accepts {
            plain_tar: false,
            computed: false,
            formats: BOTH,
        };
        assert!(plan(&source, &[LayerForm::PlainTar], neither, Wishes::default()).is_err());
    }

    #[test]
    fn forced_zstd_makes_docker_images_oci() {
        let source = manifest(
            MediaType::DockerManifest,
            MediaType::DockerConfig,
            &[MediaType::DockerLayerGzip],
        );
        let wishes = Wishes {
            compression: Some(LayerCompression::Zstd),
            force_compression: true,
            ..Wishes::default()
        };
        let unforced = Wishes {
            force_compression: false,
            ..wishes
        };
        let of_tar = plan(&source, &[LayerForm::PlainTar], accepts(BOTH), unforced).unwrap();
        assert_eq!(of_tar.format, ManifestFormat::Oci);
        assert!(!of_tar.layers[0].restores(&source.layers[0]));
        let conversion = plan(&source, &[LayerForm::AsDescribed], accepts(BOTH), wishes).unwrap();
        assert_eq!(conversion.format, ManifestFormat::Oci);
        let new = rewrite(&source, &conversion, &[Some(Rewritten::As(blob(b"new")))]).unwrap();
        assert_eq!(
            new.as_manifest().unwrap().layers[0].media_type,
            MediaType::OciLayerZstd
        );
    }

    #[test]
    fn index_points_at_the_rewritten_manifests() {
        let kept = Descriptor::of(MediaType::OciManifest, b"kept");
        let old = Descriptor::of(MediaType::OciManifest, b"old");
        let index = Index {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            artifact_type: None,
            manifests: vec![kept.clone(), old],
            subject: None,
            annotations: Default::default(),
        };
        let fresh = encode(&oci(&[])).unwrap();
        let new = rewrite_index(&index, ManifestFormat::Oci, &[None, Some(fresh.clone())]).unwrap();
        let entries = &new.as_index().unwrap().manifests;
        assert_eq!(entries[0], kept);
        assert_eq!(entries[1].digest, *fresh.digest().digest());
    }
}
