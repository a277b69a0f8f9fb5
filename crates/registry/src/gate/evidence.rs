// SPDX-License-Identifier: Apache-2.0
//! The signatures of a manifest, wherever a client of this registry would find them.
//!
//! | where | which |
//! |---|---|
//! | the extension | simple ones that were uploaded to this repository, before the manifest or after it |
//! | the store | those that were published with the manifest in this repository |
//! | tags `sha256-….sig`, `sha256-….att` | attachments of sigstore |
//! | referrers | bundles of sigstore |
//! | lookasides | those that the registry's configuration and `registries.d` name for this repository |
//!
//! Whoever may push to the repository can add some, so more than the cap are an error, as they are for a client.

use bytes::Bytes;
use gantry_image::{ManifestBytes, SignatureBlob, UnverifiedManifest};
use gantry_oci::{Descriptor, Digest, ManifestDigest, Reference, Repository, Tag};
use gantry_trust::sigstore::{BUNDLE_MEDIA_TYPE, attachment_tag};
use gantry_trust::{FoundSignature, SigstoreSignature, StoredSignature};

use super::decide::{Trouble, evidence_about};
use crate::serve::Registry;
use crate::signatures::{self, Keeping};
use crate::state::Member;

/// Attachments of one manifest that are held in memory, in bytes.
const ATTACHED_BYTES: usize = 32 << 20;

/// All that were found.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Each once.
    pub found: Vec<FoundSignature>,
}

impl Evidence {
    /// As they are kept.
    pub fn blobs(&self) -> Vec<SignatureBlob> {
        self.found.iter().map(|found| found.blob.clone()).collect()
    }

    fn add(&mut self, stored: &Bytes, place: &str, cap: usize) -> Result<(), Trouble> {
        // What is no signature counts for nothing, whoever put it there.
        let Ok(signature) = StoredSignature::parse(stored) else {
            return Ok(());
        };
        let blob = signature.to_blob();
        if self.found.iter().any(|known| known.blob == blob) {
            return Ok(());
        }
        if self.found.len() == cap {
            return Err(Trouble {
                outward: "it has more signatures than anybody reads",
                internal: format!("more than {cap} signatures, the last {place}"),
            });
        }
        let place = place.to_owned();
        self.found.push(FoundSignature { blob, place });
        Ok(())
    }
}

fn here(error: impl std::fmt::Display) -> Trouble {
    Trouble {
        outward: "the signatures in this registry cannot be read",
        internal: error.to_string(),
    }
}

/// Collects the signatures of a manifest, which need not be here. Blocks, and must run beside the runtime's threads.
///
/// # Errors
/// [`Trouble`]; the manifest must not be judged by a part of its signatures.
pub fn collect(
    registry: &Registry,
    reference: &Reference,
    digest: &ManifestDigest,
) -> Result<Evidence, Trouble> {
    let repository = &reference.repository;
    let cap = registry.limits.signatures;
    let mut evidence = Evidence::default();
    let own = signatures::own(registry, repository, digest);
    for stored in own.map_err(|error| here(error.for_log()))? {
        evidence.add(&stored, "registry", cap)?;
    }
    for (place, signature) in attached(registry, repository, digest)? {
        let stored = StoredSignature::Sigstore(signature).to_stored();
        evidence.add(&stored, &place, cap)?;
    }
    let beside = beside(registry, reference, digest);
    let beside = beside.map_err(|internal| Trouble {
        outward: "the lookaside for its signatures cannot be read",
        internal,
    })?;
    for stored in beside {
        evidence.add(&stored, "lookaside", cap)?;
    }
    Ok(evidence)
}

/// The signatures that lie in lookasides.
fn beside(
    registry: &Registry,
    reference: &Reference,
    digest: &ManifestDigest,
) -> Result<Vec<Bytes>, String> {
    let repository = &reference.repository;
    let mut bases = Vec::new();
    if let Keeping::Merged(base) = registry.signatures.of(repository) {
        bases.push(base.clone());
    }
    let configured = registry.lookasides.place_of(reference)?;
    bases.extend(configured.filter(|base| !bases.contains(base)));
    let read = signatures::read_lookasides(registry, &bases, repository, digest);
    tokio::runtime::Handle::current().block_on(read)
}

/// What sigstore's tools attach, with its place.
fn attached(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Vec<(String, SigstoreSignature)>, Trouble> {
    let mut all = Vec::new();
    for suffix in [".sig", ".att"] {
        let text = attachment_tag(digest, suffix);
        let Ok(tag) = text.parse::<Tag>() else {
            continue;
        };
        let target = registry.pipeline.target(repository, &tag);
        let Some(attachment) = target.map_err(|error| here(error.for_log()))? else {
            continue;
        };
        let Some(manifest) = published(registry, repository, &attachment)? else {
            continue;
        };
        if evidence_about(&manifest, Some(&tag)) == Some(*digest) {
            layers(registry, repository, &manifest, &text, &mut all)?;
        }
    }
    let notes = registry.state.referrers(repository, digest.digest());
    for note in notes.map_err(here)? {
        // A note that is damaged lists nothing.
        let Ok(entry) = serde_json::from_slice::<Descriptor>(&note) else {
            continue;
        };
        if entry.artifact_type.as_deref() != Some(BUNDLE_MEDIA_TYPE) {
            continue;
        }
        let bundle = ManifestDigest::from_digest(entry.digest);
        let Some(manifest) = published(registry, repository, &bundle)? else {
            continue;
        };
        if evidence_about(&manifest, None) == Some(*digest) {
            let place = format!("referrer {bundle}");
            layers(registry, repository, &manifest, &place, &mut all)?;
        }
    }
    Ok(all)
}

/// A manifest that clients of the repository can read.
pub(super) fn published(
    registry: &Registry,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<Option<ManifestBytes>, Trouble> {
    let facts = registry.state.manifest_facts(repository, digest.digest());
    let Some((media_type, _)) = facts.map_err(here)? else {
        return Ok(None);
    };
    let bytes = std::fs::read(registry.state.blob_path(digest.digest())).map_err(here)?;
    let manifest = UnverifiedManifest::new(bytes.into(), Some(media_type), None);
    let manifest = manifest.verify(Some(digest), &registry.limits);
    manifest.map(Some).map_err(here)
}

fn layers(
    registry: &Registry,
    repository: &Repository,
    manifest: &ManifestBytes,
    place: &str,
    all: &mut Vec<(String, SigstoreSignature)>,
) -> Result<(), Trouble> {
    use std::io::Read as _;
    let layers = manifest.as_manifest().map(|manifest| &manifest.layers[..]);
    for layer in layers.unwrap_or_default() {
        // As a client does: one that is too large is no signature.
        if layer.size_bytes > registry.limits.signature_bytes {
            continue;
        }
        let file = registry.state.open(repository, Member::Blob, &layer.digest);
        let Some(file) = file.map_err(here)? else {
            continue;
        };
        let mut payload = Vec::new();
        file.take(layer.size_bytes + 1)
            .read_to_end(&mut payload)
            .map_err(here)?;
        if Digest::of(layer.digest.algorithm(), &payload) != layer.digest {
            return Err(here(format!("blob {} is damaged", layer.digest)));
        }
        let held: usize = all.iter().map(|(_, one)| one.payload.len()).sum();
        if all.len() > registry.limits.signatures || held > ATTACHED_BYTES {
            return Err(Trouble {
                outward: "it has more signatures than anybody reads",
                internal: format!("{} attachments of {held} bytes", all.len()),
            });
        }
        let signature = SigstoreSignature {
            mime_type: layer.media_type.as_str().to_owned(),
            payload: payload.into(),
            annotations: layer.annotations.clone(),
        };
        all.push((place.to_owned(), signature));
    }
    Ok(())
}
