// SPDX-License-Identifier: Apache-2.0
//! Doing it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use gantry_image::convert::{self, LayerStep, ManifestFormat, Rewritten};
use gantry_image::progress::{Event, ProgressSink};
use gantry_image::{
    Commit, Committed, EndpointError, ImageDestination, ImageSource, ImageWriter, Layer,
    LayerAnswer, LayerStream, ManifestBytes, Naming, SignatureBlob, SignedIndex, VerifiedBlob,
};
use gantry_oci::{Digest, Kind, ManifestDigest};
use serde::Serialize;

use super::plan::{Prepared, prepare};
use super::resolve::{self, Resolved};
use super::{CopyError, CopyOptions, Gate, recompress};

/// What became of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageReport {
    /// The manifest at the source.
    pub source_digest: ManifestDigest,
    /// The manifest at the destination.
    pub digest: ManifestDigest,
    /// Layers that it has.
    pub layers: usize,
    /// Of these, the distinct ones that were moved.
    pub layers_moved: usize,
    /// Bytes of these.
    pub bytes_moved: u64,
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    /// What the destination's name points at now.
    pub digest: ManifestDigest,
    /// The images that were copied.
    pub images: Vec<ImageReport>,
}

/// Copies an image or an index.
///
/// Several layers move at once; each is tried again if what failed was
/// temporary. Nothing becomes visible at the destination under its name before
/// all of it is there.
///
/// # Errors
/// [`CopyError`].
///
/// # Concurrency
/// Dropping the future gives up: what arrived stays private.
pub async fn run(
    source: &dyn ImageSource,
    destination: &dyn ImageDestination,
    options: &CopyOptions,
    gate: Option<&dyn Gate>,
    progress: Arc<dyn ProgressSink>,
) -> Result<CopyReport, CopyError> {
    let (from, to) = (source.describe(), destination.describe());
    let job = Job {
        source,
        destination,
        options,
        progress,
    };
    job.run(gate).await.map_err(|error| match error {
        JobError::Endpoint(source) => CopyError::Failed { from, to, source },
        JobError::DigestWouldChange(reasons) => CopyError::DigestWouldChange { from, to, reasons },
    })
}

enum JobError {
    Endpoint(EndpointError),
    DigestWouldChange(Vec<String>),
}

impl From<EndpointError> for JobError {
    fn from(error: EndpointError) -> Self {
        Self::Endpoint(error)
    }
}

struct Job<'a> {
    source: &'a dyn ImageSource,
    destination: &'a dyn ImageDestination,
    options: &'a CopyOptions,
    progress: Arc<dyn ProgressSink>,
}

/// What one layer led to.
struct LayerOutcome {
    moved: Option<VerifiedBlob>,
    /// For a layer that was planned to be written anew.
    written: Option<Rewritten>,
}

impl Job<'_> {
    async fn run(&self, gate: Option<&dyn Gate>) -> Result<CopyReport, JobError> {
        let resolved = resolve::resolve(self.source, self.options, gate, &*self.progress).await?;
        let mut images = Vec::new();
        let top = Box::pin(self.copy(resolved, Naming::Named, &mut images)).await?;
        Ok(CopyReport {
            digest: *top.digest(),
            images,
        })
    }

    /// Copies what was resolved; returns its manifest as it is at the
    /// destination.
    async fn copy(
        &self,
        resolved: Resolved,
        naming: Naming,
        images: &mut Vec<ImageReport>,
    ) -> Result<ManifestBytes, JobError> {
        match resolved {
            Resolved::One { manifest, chosen } => {
                let (bytes, report) = self
                    .image(&manifest, chosen.map(|(index, _)| index), naming)
                    .await?;
                images.push(report);
                Ok(bytes)
            }
            Resolved::Index { index, entries } => {
                let capabilities = self.destination.capabilities();
                if !capabilities.indexes {
                    let message = format!(
                        "keep index {}: the destination keeps single images only",
                        index.digest()
                    );
                    return Err(EndpointError::new(Kind::Unsupported, message).into());
                }
                let mut copied: HashMap<Digest, ManifestBytes> = HashMap::new();
                let descriptors = index
                    .as_index()
                    .map(|index| index.manifests.clone())
                    .unwrap_or_default();
                for (entry, descriptor) in entries.into_iter().zip(&descriptors) {
                    if let Some(entry) = entry {
                        let bytes = Box::pin(self.copy(entry, Naming::ByDigest, images)).await?;
                        copied.insert(descriptor.digest, bytes);
                    }
                }
                let after = self.index_after(index.clone(), &copied)?;
                let changed = (after.digest() != index.digest())
                    .then(|| format!("index {} must be rewritten", index.digest()));
                let mut signatures = self.signatures(&index, changed.as_slice()).await?;
                self.sign(&after, &mut signatures).await?;
                self.commit_index(&after, signatures, naming).await?;
                Ok(after)
            }
        }
    }

    /// The index as it must be, given what its images became.
    fn index_after(
        &self,
        index: ManifestBytes,
        copied: &HashMap<Digest, ManifestBytes>,
    ) -> Result<ManifestBytes, JobError> {
        let Some(document) = index.as_index() else {
            return Ok(index);
        };
        let replaced: Vec<Option<ManifestBytes>> = document
            .manifests
            .iter()
            .map(|entry| {
                copied
                    .get(&entry.digest)
                    .filter(|new| *new.digest().digest() != entry.digest)
                    .cloned()
            })
            .collect();
        let source = convert::ManifestFormat::of(&index.media_type());
        let formats = self.destination.capabilities().formats;
        let wanted = self.options.wishes.format.unwrap_or(source);
        let format = [wanted, source]
            .into_iter()
            .find(|format| formats.contains(format))
            .or(formats.first().copied());
        let format = format.unwrap_or(source);
        if replaced.iter().all(Option::is_none) && format == source {
            return Ok(index);
        }
        if self.options.preserve_digests {
            return Err(JobError::DigestWouldChange(vec![format!(
                "index {} must be rewritten",
                index.digest()
            )]));
        }
        Ok(convert::rewrite_index(document, format, &replaced)?)
    }

    async fn commit_index(
        &self,
        index: &ManifestBytes,
        signatures: Vec<SignatureBlob>,
        naming: Naming,
    ) -> Result<(), EndpointError> {
        let committed = self.destination.put_index(index, signatures, naming);
        let Committed { digest } = committed.await?;
        self.progress.event(&Event::Committed { digest });
        Ok(())
    }

    /// The signatures that a manifest has and that go along with it. One that
    /// changes would leave them behind without a word, so that is refused.
    async fn signatures(
        &self,
        manifest: &ManifestBytes,
        changes: &[String],
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        if self.options.remove_signatures {
            return Ok(Vec::new());
        }
        let signatures = self.source.signatures(manifest.digest()).await?;
        if !signatures.is_empty() && !changes.is_empty() {
            return Err(would_not_fit(manifest, changes));
        }
        Ok(signatures)
    }

    /// Adds the signatures that are made now.
    async fn sign(
        &self,
        manifest: &ManifestBytes,
        signatures: &mut Vec<SignatureBlob>,
    ) -> Result<(), EndpointError> {
        for signer in &self.options.signers {
            signatures.extend(signer.sign(manifest).await?);
        }
        Ok(())
    }

    async fn image(
        &self,
        bytes: &ManifestBytes,
        chosen_from: Option<ManifestBytes>,
        naming: Naming,
    ) -> Result<(ManifestBytes, ImageReport), JobError> {
        let capabilities = self.destination.capabilities();
        let prepared = prepare(self.source, &capabilities, bytes, self.options).await?;
        if self.options.preserve_digests && prepared.conversion.changes_manifest() {
            return Err(JobError::DigestWouldChange(prepared.conversion.reasons));
        }
        resolve::note_platform(&prepared.incoming, &self.options.platform);
        let layers = &prepared.incoming.layers;
        self.progress.event(&Event::Resolved {
            digest: *bytes.digest(),
            layers: layers.len(),
            size_bytes: layers
                .iter()
                .map(|layer| layer.descriptor.size_bytes)
                .fold(0, u64::saturating_add),
        });
        let changes = prepared.certain_changes();
        let mut signatures = self.signatures(bytes, changes).await?;
        let writer = self.destination.begin(prepared.incoming.clone()).await?;
        let width = self
            .options
            .parallel_layers
            .min(capabilities.parallel_layers)
            .max(1);
        let outcomes = self.layers(&*writer, &prepared, width).await?;
        let manifest = if prepared.conversion.changes_manifest() {
            let written: Vec<Option<Rewritten>> = layers
                .iter()
                .map(|layer| {
                    outcomes
                        .get(&layer.descriptor.digest)
                        .and_then(|outcome| outcome.written)
                })
                .collect();
            let kept = written
                .iter()
                .all(|written| matches!(written, None | Some(Rewritten::Kept)));
            if kept && prepared.conversion.format == ManifestFormat::of(&bytes.media_type()) {
                bytes.clone()
            } else {
                convert::rewrite(prepared.manifest()?, &prepared.conversion, &written)?
            }
        } else {
            bytes.clone()
        };
        let changed = manifest.digest() != bytes.digest();
        if changed && !signatures.is_empty() {
            return Err(would_not_fit(bytes, &prepared.conversion.reasons).into());
        }
        self.sign(&manifest, &mut signatures).await?;
        let commit = Commit {
            manifest: manifest.clone(),
            config: prepared.incoming.config.clone(),
            signatures,
            chosen_from: match chosen_from.filter(|_| !changed && capabilities.origins) {
                Some(index) => Some(SignedIndex {
                    signatures: self.signatures(&index, &[]).await?,
                    index,
                }),
                None => None,
            },
            naming,
        };
        let Committed { digest } = writer.commit(commit).await?;
        self.progress.event(&Event::Committed { digest });
        let moved = outcomes.values().filter_map(|outcome| outcome.moved);
        let report = ImageReport {
            source_digest: *bytes.digest(),
            digest,
            layers: layers.len(),
            layers_moved: moved.clone().count(),
            bytes_moved: moved
                .map(|blob| blob.size_bytes())
                .fold(0, u64::saturating_add),
        };
        Ok((manifest, report))
    }

    /// Moves the distinct layers, `width` at once, the largest first, so that
    /// it is not the last one alone that everybody waits for.
    async fn layers(
        &self,
        writer: &dyn ImageWriter,
        prepared: &Prepared,
        width: usize,
    ) -> Result<HashMap<Digest, LayerOutcome>, EndpointError> {
        let mut distinct: HashMap<Digest, (&Layer, LayerStep)> = HashMap::new();
        for (layer, step) in prepared
            .incoming
            .layers
            .iter()
            .zip(&prepared.conversion.layers)
        {
            distinct
                .entry(layer.descriptor.digest)
                .or_insert((layer, *step));
        }
        let mut waiting: Vec<(&Layer, LayerStep)> = distinct.into_values().collect();
        waiting.sort_by_key(|(layer, _)| {
            (
                layer.descriptor.size_bytes,
                std::cmp::Reverse(layer.position),
            )
        });
        let mut moving = FuturesUnordered::new();
        let mut outcomes = HashMap::new();
        loop {
            while moving.len() < width {
                let Some((layer, step)) = waiting.pop() else {
                    break;
                };
                moving.push(self.layer(writer, layer, step));
            }
            match moving.next().await {
                Some(outcome) => {
                    let (digest, outcome) = outcome?;
                    outcomes.insert(digest, outcome);
                }
                None => return Ok(outcomes),
            }
        }
    }

    /// Moves one layer, trying again what is worth it.
    async fn layer(
        &self,
        writer: &dyn ImageWriter,
        layer: &Layer,
        step: LayerStep,
    ) -> Result<(Digest, LayerOutcome), EndpointError> {
        let digest = layer.descriptor.digest;
        let retry = &self.options.retry;
        let mut failures = 0;
        loop {
            let error = match self.layer_once(writer, layer, step).await {
                Ok(outcome) => return Ok((digest, outcome)),
                Err(error) => error,
            };
            failures += 1;
            if failures > retry.attempts || !error.is_temporary() {
                return Err(error);
            }
            let delay = retry.pause(failures);
            self.progress.event(&Event::Retrying {
                digest: Some(digest),
                attempt: failures,
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                error: error.to_string(),
            });
            tokio::time::sleep(delay).await;
        }
    }

    async fn layer_once(
        &self,
        writer: &dyn ImageWriter,
        layer: &Layer,
        step: LayerStep,
    ) -> Result<LayerOutcome, EndpointError> {
        let digest = layer.descriptor.digest;
        let size_bytes = layer.descriptor.size_bytes;
        if let LayerStep::Rewrite { to, .. } = step {
            // The slot is not used: what will be written has another digest.
            if step.restores(&layer.descriptor)
                && matches!(writer.ask_layer(layer).await?, LayerAnswer::Held)
            {
                self.progress
                    .event(&Event::LayerHeld { digest, size_bytes });
                return Ok(LayerOutcome {
                    moved: None,
                    written: Some(Rewritten::Kept),
                });
            }
            self.progress
                .event(&Event::LayerStarted { digest, size_bytes });
            let stream = self.open(layer).await?;
            let (media_type, blob) = recompress::stream(stream, layer, to, &self.options.limits)?;
            let written = writer.put_computed(&media_type, blob).await?;
            self.progress.event(&Event::LayerFinished { digest });
            return Ok(LayerOutcome {
                moved: Some(written),
                written: Some(Rewritten::As(written)),
            });
        }
        match writer.ask_layer(layer).await? {
            LayerAnswer::Held => {
                self.progress
                    .event(&Event::LayerHeld { digest, size_bytes });
                Ok(LayerOutcome {
                    moved: None,
                    written: None,
                })
            }
            LayerAnswer::Wanted(slot) => {
                self.progress
                    .event(&Event::LayerStarted { digest, size_bytes });
                let stream = self.open(layer).await?;
                let moved = slot.fill(stream).await?;
                self.progress.event(&Event::LayerFinished { digest });
                Ok(LayerOutcome {
                    moved: Some(moved),
                    written: None,
                })
            }
        }
    }

    /// Opens a layer at the source, counting what passes.
    async fn open(&self, layer: &Layer) -> Result<LayerStream, EndpointError> {
        let LayerStream { form, blob } = self.source.layer(layer).await?;
        let (progress, digest) = (self.progress.clone(), layer.descriptor.digest);
        let blob = blob.counted(move |count| {
            progress.event(&Event::LayerBytes {
                digest,
                count: count as u64,
            })
        });
        Ok(LayerStream { form, blob })
    }
}

fn would_not_fit(manifest: &ManifestBytes, changes: &[String]) -> EndpointError {
    EndpointError::new(
        Kind::InvalidInput,
        format!(
            "keep the signatures of {}: they would not fit what it becomes ({}); use --remove-signatures to leave them behind",
            manifest.digest(),
            changes.join("; ")
        ),
    )
}
