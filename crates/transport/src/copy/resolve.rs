// SPDX-License-Identifier: Apache-2.0
//! From a reference to the verified manifests that will be copied.

use std::collections::HashSet;
use std::sync::Arc;

use gantry_image::progress::{Event, ProgressSink};
use gantry_image::{
    Checker, EndpointError, ImageSource, Incoming, Layer, ManifestBytes, VerifyingStream, Wanted,
    select,
};
use gantry_oci::{
    Descriptor, Document, ImageConfig, Kind, Limits, Manifest, ManifestDigest, Platform,
};

use super::{CopyOptions, Gate, MultiArch};

/// What a reference leads to.
#[derive(Debug)]
pub(super) enum Resolved {
    /// One image.
    One {
        manifest: ManifestBytes,
        /// The index that it was chosen from, and why.
        chosen: Option<(ManifestBytes, String)>,
    },
    /// An index, with the manifests of those entries that are copied.
    Index {
        index: ManifestBytes,
        entries: Vec<Option<Resolved>>,
    },
}

/// Fetches and verifies what the source's reference names.
pub(super) async fn resolve(
    source: &dyn ImageSource,
    options: &CopyOptions,
    gate: Option<&dyn Gate>,
    progress: &dyn ProgressSink,
) -> Result<Resolved, EndpointError> {
    let top = source
        .manifest(Wanted::Primary)
        .await?
        .verify(None, &options.limits)?;
    let choosing = top.as_index().is_some() && options.multi_arch == MultiArch::System;
    if let Some(gate) = gate.filter(|_| !choosing) {
        gate.admit(source, &top, None).await?;
    }
    if top.as_index().is_none() {
        return Ok(Resolved::One {
            manifest: top,
            chosen: None,
        });
    }
    match options.multi_arch {
        MultiArch::System => choose(source, top, options, gate, progress).await,
        MultiArch::IndexOnly => Ok(Resolved::Index {
            index: top,
            entries: Vec::new(),
        }),
        MultiArch::All => {
            let mut budget = options.limits.descriptors;
            all(
                source,
                top,
                options.limits.index_depth,
                &mut budget,
                &options.limits,
                gate,
            )
            .await
        }
    }
}

/// Follows indexes down to the manifest of one platform.
async fn choose(
    source: &dyn ImageSource,
    top: ManifestBytes,
    options: &CopyOptions,
    gate: Option<&dyn Gate>,
    progress: &dyn ProgressSink,
) -> Result<Resolved, EndpointError> {
    let mut current = top.clone();
    let mut reason = String::new();
    for _ in 0..options.limits.index_depth {
        let Some(index) = current.as_index() else {
            break;
        };
        let choice = select::choose_platform(index, &options.platform)?;
        reason = choice.reason.clone();
        progress.event(&Event::Chosen {
            digest: ManifestDigest::from_digest(choice.descriptor.digest),
            reason: choice.reason,
        });
        let chosen = entry(source, choice.descriptor, &options.limits).await?;
        if let Some(gate) = gate.filter(|_| chosen.as_index().is_none()) {
            gate.admit(source, &chosen, Some(&current)).await?;
        }
        current = chosen;
    }
    if current.as_index().is_some() {
        return Err(too_deep(&top));
    }
    Ok(Resolved::One {
        manifest: current,
        chosen: Some((top, reason)),
    })
}

fn too_deep(top: &ManifestBytes) -> EndpointError {
    EndpointError::new(
        Kind::Unsafe,
        format!("index {} leads to indexes too deeply", top.digest()),
    )
}

/// Fetches an entry of an index.
pub(crate) async fn entry(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    limits: &Limits,
) -> Result<ManifestBytes, EndpointError> {
    let what = |why: &str| {
        EndpointError::new(
            Kind::Unsupported,
            format!(
                "index entry {} is a {}, {why}",
                descriptor.digest, descriptor.media_type
            ),
        )
    };
    if !descriptor.media_type.is_manifest() && !descriptor.media_type.is_index() {
        return Err(what("neither a manifest nor an index"));
    }
    if descriptor.size_bytes > limits.manifest_bytes {
        return Err(EndpointError::new(
            Kind::Unsafe,
            format!(
                "index entry {} has {} bytes, more than any manifest",
                descriptor.digest, descriptor.size_bytes
            ),
        ));
    }
    let digest = ManifestDigest::from_digest(descriptor.digest);
    Ok(source
        .manifest(Wanted::Digest(&digest))
        .await?
        .verify_entry(descriptor, limits)?)
}

/// Fetches everything that an index leads to. `budget` bounds how much that
/// may be in all, however the indexes are nested.
async fn all(
    source: &dyn ImageSource,
    top: ManifestBytes,
    depth: usize,
    budget: &mut usize,
    limits: &Limits,
    gate: Option<&dyn Gate>,
) -> Result<Resolved, EndpointError> {
    let Document::Index(index) = top.document() else {
        return Ok(Resolved::One {
            manifest: top,
            chosen: None,
        });
    };
    let depth = depth.checked_sub(1).ok_or_else(|| too_deep(&top))?;
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(index.manifests.len());
    for descriptor in &index.manifests {
        if !seen.insert(descriptor.digest) {
            entries.push(None);
            continue;
        }
        *budget = budget.checked_sub(1).ok_or_else(|| {
            EndpointError::new(
                Kind::Unsafe,
                format!("index {} leads to too many images", top.digest()),
            )
        })?;
        let manifest = entry(source, descriptor, limits).await?;
        if let Some(gate) = gate {
            gate.admit(source, &manifest, Some(&top)).await?;
        }
        entries.push(Some(
            Box::pin(all(source, manifest, depth, budget, limits, gate)).await?,
        ));
    }
    Ok(Resolved::Index {
        index: top,
        entries,
    })
}

/// Fetches the configuration and puts together what a destination is told.
pub(super) async fn incoming(
    source: &dyn ImageSource,
    bytes: &ManifestBytes,
    manifest: &Manifest,
    limits: &Limits,
) -> Result<Incoming, EndpointError> {
    let limit_bytes = limits.config_bytes;
    if manifest.config.size_bytes > limit_bytes {
        return Err(EndpointError::new(
            Kind::Unsafe,
            format!(
                "image config {} is larger than the {limit_bytes} bytes allowed",
                manifest.config.digest
            ),
        ));
    }
    let blob = source.blob(&manifest.config).await?;
    let config = VerifyingStream::new(blob, Checker::of(&manifest.config))
        .collect_small(limit_bytes)
        .await?;
    let image_config = if manifest.is_image() {
        let parsed =
            ImageConfig::parse(config.bytes(), manifest.layers.len(), limits).map_err(|error| {
                EndpointError::with_source(
                    error.kind(),
                    format!("read image config {}", config.digest()),
                    error,
                )
            })?;
        Some(parsed)
    } else {
        None
    };
    let diff_id = |position: usize| {
        image_config
            .as_ref()
            .and_then(|config| config.rootfs.diff_ids.get(position).copied())
    };
    let layers = manifest
        .layers
        .iter()
        .enumerate()
        .map(|(position, descriptor)| Layer {
            position,
            descriptor: descriptor.clone(),
            diff_id: diff_id(position),
        })
        .collect();
    Ok(Incoming {
        manifest: bytes.clone(),
        config,
        image_config,
        layers,
        origin: source.origin(),
    })
}

/// Says so if an image's own configuration contradicts the platform that was
/// asked for; the index has the last word.
pub(super) fn note_platform(incoming: &Arc<Incoming>, wanted: &Platform) {
    if let Some(config) = &incoming.image_config {
        if config.os != wanted.os || config.architecture != wanted.architecture {
            tracing::info!(
                "image {} is for {}, not for {wanted}",
                incoming.manifest.digest(),
                crate::registry::error::printable(&config.platform().to_string())
            );
        }
    }
}
