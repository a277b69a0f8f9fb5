// SPDX-License-Identifier: Apache-2.0
//! What a copy will do, as data.

use std::fmt;
use std::sync::Arc;

use gantry_image::convert::{self, Accepts, Conversion, LayerStep, ManifestFormat};
use gantry_image::progress::Silent;
use gantry_image::{
    Capabilities, EndpointError, ImageDestination, ImageSource, Incoming, Layer, LayerForm,
    ManifestBytes,
};
use gantry_oci::{Digest, Kind, Manifest, ManifestDigest};
use serde::Serialize;

use super::resolve::{self, Resolved};
use super::{CopyError, CopyOptions, Gate};

/// One layer of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedLayer {
    /// The blob at the source.
    pub digest: Digest,
    /// Its size, as described.
    pub size_bytes: u64,
    /// What happens to it, if the destination has it not.
    pub step: LayerStep,
}

/// One image of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImagePlan {
    /// The manifest at the source.
    pub digest: ManifestDigest,
    /// Why this one, if it was chosen from an index.
    pub chosen: Option<String>,
    /// The family at the destination.
    pub format: ManifestFormat,
    /// Why the manifest changes; empty if it does not.
    pub changes: Vec<String>,
    /// The layers, base first.
    pub layers: Vec<PlannedLayer>,
}

/// What a copy will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyPlan {
    /// The source.
    pub from: String,
    /// The destination.
    pub to: String,
    /// The index that is kept, if one is.
    pub index: Option<ManifestDigest>,
    /// The images.
    pub images: Vec<ImagePlan>,
}

impl fmt::Display for CopyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "copy {} to {}", self.from, self.to)?;
        if let Some(index) = &self.index {
            writeln!(f, "  index {index}")?;
        }
        for image in &self.images {
            writeln!(f, "  image {} as {}", image.digest, image.format)?;
            if let Some(reason) = &image.chosen {
                writeln!(f, "    chosen: {reason}")?;
            }
            for change in &image.changes {
                writeln!(f, "    change: {change}")?;
            }
            for layer in &image.layers {
                let step = match layer.step {
                    LayerStep::Keep => "as it is",
                    LayerStep::GiveTar => "as a tar",
                    LayerStep::Rewrite { .. } => "written anew",
                };
                writeln!(
                    f,
                    "    layer {} ({} bytes) {step}",
                    layer.digest, layer.size_bytes
                )?;
            }
        }
        Ok(())
    }
}

/// One image ready to be copied.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) incoming: Arc<Incoming>,
    pub(super) conversion: Conversion,
}

impl Prepared {
    pub(super) fn manifest(&self) -> Result<&Manifest, EndpointError> {
        manifest_of(&self.incoming.manifest)
    }

    /// Why the manifest changes whatever the destination has: a layer that is
    /// to be written anew may be there as it was.
    pub(super) fn certain_changes(&self) -> &[String] {
        let layers = self.incoming.layers.iter().zip(&self.conversion.layers);
        let mut anew = layers.filter(|(_, step)| matches!(step, LayerStep::Rewrite { .. }));
        let family = ManifestFormat::of(&self.incoming.manifest.media_type());
        if self.conversion.format == family
            && anew.all(|(layer, step)| step.restores(&layer.descriptor))
        {
            return &[];
        }
        &self.conversion.reasons
    }

    fn describe(&self, chosen: Option<String>) -> ImagePlan {
        let layers = self
            .incoming
            .layers
            .iter()
            .zip(&self.conversion.layers)
            .map(|(layer, step)| PlannedLayer {
                digest: layer.descriptor.digest,
                size_bytes: layer.descriptor.size_bytes,
                step: *step,
            });
        ImagePlan {
            digest: *self.incoming.manifest.digest(),
            chosen,
            format: self.conversion.format,
            changes: self.conversion.reasons.clone(),
            layers: layers.collect(),
        }
    }
}

fn manifest_of(bytes: &ManifestBytes) -> Result<&Manifest, EndpointError> {
    bytes
        .as_manifest()
        .ok_or_else(|| EndpointError::new(Kind::Internal, "an index where an image was resolved"))
}

/// Fetches an image's configuration and decides what changes.
pub(super) async fn prepare(
    source: &dyn ImageSource,
    capabilities: &Capabilities,
    bytes: &ManifestBytes,
    options: &CopyOptions,
) -> Result<Prepared, EndpointError> {
    let manifest = manifest_of(bytes)?;
    if !manifest.is_image() && !capabilities.artifacts {
        return Err(EndpointError::new(
            Kind::Unsupported,
            format!(
                "manifest {} is an artifact of type {:?}, and the destination keeps images only",
                bytes.digest(),
                crate::registry::error::printable(manifest.effective_artifact_type())
            ),
        ));
    }
    for layer in &manifest.layers {
        if layer.size_bytes > options.limits.blob_bytes {
            return Err(EndpointError::new(
                Kind::Unsafe,
                format!(
                    "layer {} of {} bytes is larger than any allowed",
                    layer.digest, layer.size_bytes
                ),
            ));
        }
    }
    let incoming = resolve::incoming(source, bytes, manifest, &options.limits).await?;
    let forms = forms(source, &incoming.layers).await?;
    let accepts = Accepts {
        formats: &capabilities.formats,
        plain_tar: capabilities.plain_tar,
        computed: capabilities.computed,
    };
    let conversion = convert::plan(manifest, &forms, accepts, options.wishes)?;
    Ok(Prepared {
        incoming: Arc::new(incoming),
        conversion,
    })
}

async fn forms(
    source: &dyn ImageSource,
    layers: &[Layer],
) -> Result<Vec<LayerForm>, EndpointError> {
    let mut forms = Vec::with_capacity(layers.len());
    for layer in layers {
        forms.push(source.layer_form(layer).await?);
    }
    Ok(forms)
}

/// Plans a copy without doing it: manifests and configurations are fetched,
/// nothing is written.
///
/// # Errors
/// [`CopyError`].
pub async fn plan(
    source: &dyn ImageSource,
    destination: &dyn ImageDestination,
    options: &CopyOptions,
    gate: Option<&dyn Gate>,
) -> Result<CopyPlan, CopyError> {
    let mut plan = CopyPlan {
        from: source.describe(),
        to: destination.describe(),
        index: None,
        images: Vec::new(),
    };
    let failed = |source| CopyError::Failed {
        from: plan.from.clone(),
        to: plan.to.clone(),
        source,
    };
    let capabilities = destination.capabilities();
    let resolved = resolve::resolve(source, options, gate, &Silent)
        .await
        .map_err(failed)?;
    let mut images = Vec::new();
    let mut pending = vec![resolved];
    while let Some(next) = pending.pop() {
        match next {
            Resolved::One { manifest, chosen } => {
                let prepared = prepare(source, &capabilities, &manifest, options)
                    .await
                    .map_err(failed)?;
                images.push(prepared.describe(chosen.map(|(_, reason)| reason)));
            }
            Resolved::Index { index, entries } => {
                plan.index = Some(*index.digest());
                pending.extend(entries.into_iter().flatten());
            }
        }
    }
    plan.images = images;
    Ok(plan)
}
