// SPDX-License-Identifier: Apache-2.0
//! What sigstore's tools attach to a manifest in its own repository.
//!
//! ```text
//!  sha256-<hex>.sig    a manifest, one layer for each signature: payload, annotations   (cosign 2, skopeo)
//!  sha256-<hex>.att    a manifest, one layer for each attestation                       (cosign 2)
//!  referrers           manifests with `subject` and artifact type bundle, one layer     (cosign 3)
//!    or, where the registry has no such list: the index under the tag sha256-<hex>
//! ```
//!
//! Everything is read as it is: what it says, and whether that is believed, is
//! for `gantry_trust` to judge. Whoever may push can attach, so a layer that
//! is too large is passed over, while more signatures than the cap are an error.
//!
//! Attaching adds to what is there. Registries have no way to change a tag only if it is
//! still what it was. So a tag is compared right before it is written and read again right after, and
//! what is missing then is added again; of two that write at the very same moment, and read before either
//! of both writes is seen, one may still be lost. Referrers lists do not have this weakness.
//!
//! # Source
//! cosign `SIGNATURE_SPEC`, `BUNDLE_SPEC`; distribution-spec v1.1 "Listing
//! Referrers", "Referrers Tag Schema".

use bytes::Bytes;
use gantry_image::{
    BlobStream, Checker, EndpointError, ManifestBytes, UnverifiedManifest, VerifyingStream,
};
use gantry_oci::{Descriptor, Index, Kind, ManifestDigest, MediaType, Tag};
use gantry_trust::SigstoreSignature;
use gantry_trust::sigstore::{self, BUNDLE_MEDIA_TYPE};
use http::header::ACCEPT;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Repository, Request};
use super::error::RegistryError;
use super::manifests::ManifestName;
use super::pages::Pages;

/// The configuration of a manifest that has none.
const EMPTY_CONFIG: &[u8] = b"{}";
/// How often to change a tag that others change, too.
const ATTEMPTS: usize = 8;
/// Pages of referrers; the cap on signatures is reached long before where all are bundles.
const MOST_REFERRER_PAGES: usize = 256;

impl Repository {
    /// All signatures and attestations that are attached to a manifest.
    ///
    /// # Errors
    /// The registry's, and [`Kind::Unsafe`] for more than the cap. Nothing
    /// attached is not an error.
    pub async fn attached_signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<SigstoreSignature>, EndpointError> {
        let mut found = Vec::new();
        for suffix in [".sig", ".att"] {
            let name = attachment_name(digest, suffix)?;
            if let Some(manifest) = self.manifest_if_any(&name).await? {
                self.read_layers(&manifest, &mut found).await?;
            }
        }
        for entry in self.bundle_manifests(digest).await? {
            self.read_bundle(digest, &entry, &mut found).await?;
        }
        Ok(found)
    }

    /// Attaches signatures to a manifest that is in the repository: bundles as
    /// referrers, others under its tag. What is attached already is left.
    ///
    /// # Errors
    /// The registry's.
    pub async fn attach_signatures(
        &self,
        subject: &ManifestDigest,
        signatures: &[SigstoreSignature],
    ) -> Result<(), EndpointError> {
        let (bundles, attachments): (Vec<_>, Vec<_>) = signatures
            .iter()
            .partition(|signature| signature.mime_type == BUNDLE_MEDIA_TYPE);
        let (attestations, attachments): (Vec<_>, Vec<_>) = attachments
            .into_iter()
            .partition(|signature| signature.mime_type == sigstore::ENVELOPE_MEDIA_TYPE);
        for (suffix, signatures) in [(".sig", attachments), (".att", attestations)] {
            if !signatures.is_empty() {
                let name = attachment_name(subject, suffix)?;
                self.add(&name, &Addition::Layers(&signatures)).await?;
            }
        }
        if !bundles.is_empty() {
            self.attach_bundles(subject, &bundles).await?;
        }
        Ok(())
    }

    // === Reading ===

    async fn manifest_if_any(
        &self,
        name: &ManifestName,
    ) -> Result<Option<ManifestBytes>, EndpointError> {
        match self.manifest(name).await {
            Ok(manifest) => Ok(Some(manifest.verify(None, self.limits())?)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn read_layers(
        &self,
        manifest: &ManifestBytes,
        found: &mut Vec<SigstoreSignature>,
    ) -> Result<(), EndpointError> {
        let layers = manifest
            .as_manifest()
            .map_or(&[][..], |manifest| &manifest.layers);
        for layer in layers {
            if found.len() == self.limits().signatures {
                return Err(self.too_many());
            }
            if layer.size_bytes > self.limits().signature_bytes {
                tracing::warn!(
                    "attachment {} in {} is passed over: it has {} bytes",
                    layer.digest,
                    self.full_name(),
                    layer.size_bytes
                );
                continue;
            }
            found.push(SigstoreSignature {
                mime_type: layer.media_type.as_str().to_owned(),
                payload: self.small_blob(layer).await?,
                annotations: layer.annotations.clone(),
            });
        }
        Ok(())
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, EndpointError> {
        let stream = self.blob(descriptor).await?;
        let verified = VerifyingStream::new(stream, Checker::of(descriptor))
            .collect_small(self.limits().signature_bytes)
            .await?;
        Ok(verified.bytes().clone())
    }

    /// The bundles among the manifests that refer to this one.
    async fn bundle_manifests(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<Descriptor>, EndpointError> {
        let listed = match self.referrers(digest).await? {
            Some(listed) => listed,
            None => self
                .referrers_tag(digest)
                .await?
                .map_or_else(Vec::new, |index| index.manifests),
        };
        Ok(listed.into_iter().filter(is_bundle).collect())
    }

    /// The bundles in the registry's list of referrers, all pages of it;
    /// `None` if the registry has no such lists.
    async fn referrers(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Option<Vec<Descriptor>>, EndpointError> {
        let what = format!("list what refers to {digest} in {}", self.full_name());
        let mut url = self.url(&format!("referrers/{digest}")).await?;
        url.query_pairs_mut()
            .append_pair("artifactType", BUNDLE_MEDIA_TYPE);
        let mut pages = Pages::new(what.clone(), url, MOST_REFERRER_PAGES);
        let mut found = Vec::new();
        let mut first = true;
        while let Some(url) = pages.turn()? {
            let request = Request::new(what.clone(), Method::GET, url, self.scope("pull"))
                .header(ACCEPT, MediaType::OciIndex.as_str())?;
            let response = self.registry.send(&request).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND
                | StatusCode::BAD_REQUEST
                | StatusCode::METHOD_NOT_ALLOWED
                    if first =>
                {
                    return Ok(None);
                }
                _ => return Err(self.registry.status_error(response, &what).await.into()),
            }
            first = false;
            pages.follow(response.headers())?;
            let limit_bytes = self.limits().manifest_bytes;
            let body = self
                .registry
                .read_small(response, limit_bytes, &what)
                .await?;
            let page = UnverifiedManifest::new(body, None, None).verify(None, self.limits())?;
            let entries = page.as_index().map(|index| index.manifests.as_slice());
            let entries = entries.unwrap_or_default().iter();
            found.extend(entries.filter(|entry| is_bundle(entry)).cloned());
            if found.len() > self.limits().signatures {
                return Err(self.too_many());
            }
        }
        Ok(Some(found))
    }

    async fn referrers_tag(&self, digest: &ManifestDigest) -> Result<Option<Index>, EndpointError> {
        let name = attachment_name(digest, "")?;
        let index = self.manifest_if_any(&name).await?;
        Ok(index.and_then(|index| index.as_index().cloned()))
    }

    async fn read_bundle(
        &self,
        subject: &ManifestDigest,
        entry: &Descriptor,
        found: &mut Vec<SigstoreSignature>,
    ) -> Result<(), EndpointError> {
        let name = ManifestName::Digest(ManifestDigest::from_digest(entry.digest));
        let manifest = match self.manifest(&name).await {
            Ok(manifest) => manifest.verify_entry(entry, self.limits())?,
            // Lists outlive what they list.
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let refers = manifest
            .as_manifest()
            .and_then(|manifest| manifest.subject.as_ref())
            .is_some_and(|found| found.digest == *subject.digest());
        if refers {
            self.read_layers(&manifest, found).await?;
        }
        Ok(())
    }

    // === Writing ===

    /// Changes what a tag leads to until it has what is to be added.
    ///
    /// Somebody else may have read the same state and written another one, so it is compared once more before it is
    /// written, and read again after that: whoever was overwritten sees it and adds anew.
    async fn add(&self, name: &ManifestName, addition: &Addition<'_>) -> Result<(), EndpointError> {
        for _ in 0..ATTEMPTS {
            let before = self.manifest_if_any(name).await?;
            let wanted = match addition {
                Addition::Layers(signatures) => {
                    self.with_layers(before.as_ref(), signatures).await?
                }
                Addition::Referrer(entry) => with_referrer(before.as_ref(), entry),
            };
            let Some(wanted) = wanted else { return Ok(()) };
            let now = self.manifest_if_any(name).await?;
            let digest =
                |manifest: &Option<ManifestBytes>| manifest.as_ref().map(|it| *it.digest());
            if digest(&now) == digest(&before) {
                self.put_made(name, &wanted).await?;
            }
        }
        let message = format!(
            "change {name} in {}: others keep changing it",
            self.full_name()
        );
        Err(EndpointError::new(Kind::Busy, message))
    }

    /// The attached signatures with these among them; none if they are there already.
    async fn with_layers(
        &self,
        before: Option<&ManifestBytes>,
        signatures: &[&SigstoreSignature],
    ) -> Result<Option<Value>, EndpointError> {
        let (mut layers, mut config) = match before {
            None => (
                Vec::new(),
                json!({"rootfs": {"type": "layers", "diff_ids": []}}),
            ),
            Some(manifest) => self.attached(manifest).await?,
        };
        let count = layers.len();
        for signature in signatures {
            let layer = describe(signature);
            if layers.contains(&layer) {
                continue;
            }
            self.push_small(&layer, &signature.payload).await?;
            if let Some(diff_ids) = config["rootfs"]["diff_ids"].as_array_mut() {
                diff_ids.push(json!(layer.digest));
            }
            layers.push(layer);
        }
        if layers.len() == count {
            return Ok(None);
        }
        let config = config.to_string().into_bytes();
        let described = Descriptor::of(MediaType::OciConfig, &config);
        self.push_small(&described, &config.into()).await?;
        Ok(Some(json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OciManifest,
            "config": described,
            "layers": layers,
        })))
    }

    /// Layers and configuration of what is attached already.
    async fn attached(
        &self,
        manifest: &ManifestBytes,
    ) -> Result<(Vec<Descriptor>, Value), EndpointError> {
        let manifest = manifest.as_manifest().ok_or_else(|| {
            EndpointError::new(
                Kind::Corrupt,
                format!("the signatures in {} are an index", self.full_name()),
            )
        })?;
        let config = self.small_blob(&manifest.config).await?;
        let config: Value = serde_json::from_slice(&config).map_err(|error| {
            EndpointError::with_source(
                Kind::Corrupt,
                format!("read the signatures' configuration in {}", self.full_name()),
                error,
            )
        })?;
        if config["rootfs"]["diff_ids"].is_array() {
            return Ok((manifest.layers.clone(), config));
        }
        Err(EndpointError::new(
            Kind::Corrupt,
            format!(
                "the signatures' configuration in {} lists no layers",
                self.full_name()
            ),
        ))
    }

    async fn attach_bundles(
        &self,
        subject: &ManifestDigest,
        bundles: &[&SigstoreSignature],
    ) -> Result<(), EndpointError> {
        let mut known = Vec::new();
        for entry in self.bundle_manifests(subject).await? {
            self.read_bundle(subject, &entry, &mut known).await?;
        }
        let name = ManifestName::Digest(*subject);
        let manifest = self.manifest(&name).await?;
        let described = manifest.verify(Some(subject), self.limits())?.descriptor();
        let config = Descriptor::of(MediaType::OciEmpty, EMPTY_CONFIG);
        for bundle in bundles {
            if known.iter().any(|known| known.payload == bundle.payload) {
                continue;
            }
            let mut layer = describe(bundle);
            layer.annotations.clear();
            self.push_small(&config, &Bytes::from_static(EMPTY_CONFIG))
                .await?;
            self.push_small(&layer, &bundle.payload).await?;
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MediaType::OciManifest,
                "artifactType": BUNDLE_MEDIA_TYPE,
                "config": config,
                "layers": [layer],
                "subject": described,
                "annotations": sigstore::bundle_annotations(&bundle.payload),
            });
            let bytes = manifest.to_string().into_bytes();
            let mut entry = Descriptor::of(MediaType::OciManifest, &bytes);
            let name = ManifestName::Digest(ManifestDigest::from_digest(entry.digest));
            self.put_made(&name, &manifest).await?;
            if self.referrers(subject).await?.is_none() {
                // The list that stands in for the registry's own.
                entry.artifact_type = Some(BUNDLE_MEDIA_TYPE.to_owned());
                let list = attachment_name(subject, "")?;
                self.add(&list, &Addition::Referrer(&entry)).await?;
            }
        }
        Ok(())
    }

    async fn put_made(&self, name: &ManifestName, document: &Value) -> Result<(), EndpointError> {
        let bytes = document.to_string().into_bytes();
        let document =
            UnverifiedManifest::new(bytes.into(), None, None).verify(None, self.limits())?;
        Ok(self.put_manifest(name, &document).await?)
    }

    async fn push_small(
        &self,
        descriptor: &Descriptor,
        bytes: &Bytes,
    ) -> Result<(), EndpointError> {
        if !self.has_blob(descriptor).await? {
            self.push_blob(descriptor, BlobStream::from_bytes(bytes.clone()))
                .await?;
        }
        Ok(())
    }

    fn too_many(&self) -> EndpointError {
        let most = self.limits().signatures;
        let message = format!(
            "a manifest in {} has more than {most} signatures",
            self.full_name()
        );
        EndpointError::new(Kind::Unsafe, message)
    }

    fn limits(&self) -> &gantry_oci::Limits {
        &self.registry.options().limits
    }
}

/// What is added to what a tag leads to.
enum Addition<'a> {
    /// Attached signatures.
    Layers(&'a [&'a SigstoreSignature]),
    /// A manifest that refers to another one.
    Referrer(&'a Descriptor),
}

/// A list of what refers to a manifest with one more entry; none if it is there already.
fn with_referrer(before: Option<&ManifestBytes>, entry: &Descriptor) -> Option<Value> {
    let before = before.and_then(|index| index.as_index());
    let mut manifests = before.map_or_else(Vec::new, |index| index.manifests.clone());
    if manifests.iter().any(|known| known.digest == entry.digest) {
        return None;
    }
    manifests.push(entry.clone());
    Some(json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OciIndex,
        "manifests": manifests,
    }))
}

fn is_bundle(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref() == Some(BUNDLE_MEDIA_TYPE)
}

/// The layer that a signature becomes.
fn describe(signature: &SigstoreSignature) -> Descriptor {
    let media_type = MediaType::from(signature.mime_type.as_str());
    Descriptor {
        annotations: signature.annotations.clone(),
        ..Descriptor::of(media_type, &signature.payload)
    }
}

fn attachment_name(digest: &ManifestDigest, suffix: &str) -> Result<ManifestName, RegistryError> {
    let text = sigstore::attachment_tag(digest, suffix);
    text.parse::<Tag>()
        .map(ManifestName::Tag)
        .map_err(|error| RegistryError::Malformed {
            what: format!("name what is attached to {digest}"),
            why: error.to_string(),
        })
}
