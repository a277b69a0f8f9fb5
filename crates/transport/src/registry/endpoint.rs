// SPDX-License-Identifier: Apache-2.0
//! A registry as a source and as a destination of images.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gantry_image::convert::ManifestFormat;
use gantry_image::{
    BlobStream, Capabilities, Commit, Committed, EndpointError, ImageDestination, ImageSource,
    ImageWriter, Incoming, Layer, LayerAnswer, LayerForm, LayerSlot, LayerStream, ManifestBytes,
    Naming, Origin, SignatureBlob, UnverifiedManifest, VerifiedBlob, Wanted,
};
use gantry_oci::{Descriptor, Host, Kind, ManifestDigest, MediaType, Reference};

use super::client::{Login, Options, Registry, Repository, TlsVerify};
use super::error::RegistryError;
use super::manifests::ManifestName;
use super::mirrors::{Place, RegistriesConf};
use super::signatures;

/// How many layers a registry likes to take at once.
const PARALLEL_LAYERS: usize = 6;

/// An image in a registry, or in one of its mirrors.
#[derive(Debug)]
pub struct RegistrySource {
    reference: Reference,
    places: Vec<Repository>,
    /// The place that answered last; tried first.
    current: AtomicUsize,
}

fn manifest_name(reference: &Reference) -> Result<ManifestName, EndpointError> {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => Ok(ManifestName::Digest(*digest)),
        (None, Some(tag)) => Ok(ManifestName::Tag(tag.clone())),
        (None, None) => Err(EndpointError::new(
            Kind::InvalidInput,
            format!("reference {reference} has neither tag nor digest"),
        )),
    }
}

/// The options for one place. Credentials from the command line are for the
/// registry that the user named, not for a mirror elsewhere.
fn options_for(place: &Place, named: &Host, options: &Options) -> Options {
    let mut options = options.clone();
    if place.insecure && options.tls_verify == TlsVerify::Default {
        options.tls_verify = TlsVerify::Off;
    }
    if place.host != *named && matches!(options.login, Login::Given(_) | Login::Token(_)) {
        options.login = Login::Search;
    }
    options
}

impl RegistrySource {
    /// A source for `reference`; no connection is made.
    ///
    /// # Errors
    /// The registry is blocked, or `registries.conf` makes no sense for it.
    pub fn new(
        reference: Reference,
        options: &Options,
        conf: &RegistriesConf,
    ) -> Result<Self, RegistryError> {
        let reference = reference.or_latest();
        let places = conf
            .places(&reference)?
            .into_iter()
            .map(|place| {
                let options = options_for(&place, &reference.host, options);
                Registry::new(place.host, options).repository(place.repository)
            })
            .collect();
        Ok(Self {
            reference,
            places,
            current: AtomicUsize::new(0),
        })
    }

    /// The reference that is read.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The repository itself, after its mirrors.
    #[must_use]
    pub fn repository(&self) -> Option<&Repository> {
        self.places.last()
    }

    /// The places in the order to try: the one that answered last, then those
    /// behind it.
    fn order(&self) -> impl Iterator<Item = (usize, &Repository)> {
        let current = self.current.load(Ordering::Relaxed);
        self.places.iter().enumerate().skip(current)
    }

    async fn try_places<T, F>(
        &self,
        mut attempt: impl FnMut(Repository) -> F,
    ) -> Result<T, EndpointError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut last = None;
        for (position, place) in self.order() {
            match attempt(place.clone()).await {
                Ok(value) => {
                    self.current.store(position, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => {
                    if position + 1 < self.places.len() {
                        tracing::warn!(%error, "mirror {} does not serve it", place.full_name());
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.map_or_else(
            || {
                EndpointError::new(
                    Kind::Internal,
                    format!("no place to read {} from", self.reference),
                )
            },
            EndpointError::from,
        ))
    }
}

#[async_trait]
impl ImageSource for RegistrySource {
    fn describe(&self) -> String {
        format!("docker://{}", self.reference)
    }

    fn origin(&self) -> Option<Origin> {
        let place = self.places.get(self.current.load(Ordering::Relaxed))?;
        Some(Origin {
            host: place.registry.host().to_string(),
            repository: place.name.clone(),
        })
    }

    async fn manifest(&self, wanted: Wanted<'_>) -> Result<UnverifiedManifest, EndpointError> {
        let name = match wanted {
            Wanted::Primary => manifest_name(&self.reference)?,
            Wanted::Digest(digest) => ManifestName::Digest(*digest),
        };
        self.try_places(|place| {
            let name = name.clone();
            async move { place.manifest(&name).await }
        })
        .await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, EndpointError> {
        self.try_places(|place| {
            let descriptor = descriptor.clone();
            async move { place.blob(&descriptor).await }
        })
        .await
    }

    async fn signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        let current = self.current.load(Ordering::Relaxed);
        match self.places.get(current) {
            Some(place) => signatures::read(place, &self.reference, digest).await,
            None => Ok(Vec::new()),
        }
    }
}

/// A name in a registry that images are pushed to.
#[derive(Debug)]
pub struct RegistryDestination {
    reference: Reference,
    repository: Repository,
}

impl RegistryDestination {
    /// A destination for `reference`; no connection is made.
    #[must_use]
    pub fn new(reference: Reference, options: &Options, conf: &RegistriesConf) -> Self {
        let reference = reference.or_latest();
        let mut options = options.clone();
        if conf.is_insecure(&reference) && options.tls_verify == TlsVerify::Default {
            options.tls_verify = TlsVerify::Off;
        }
        let repository =
            Registry::new(reference.host.clone(), options).repository(reference.repository.clone());
        Self {
            reference,
            repository,
        }
    }
}

impl RegistryDestination {
    /// Adds signatures to those of a manifest that is there.
    ///
    /// # Errors
    /// There is no place for them, or as the registry says.
    pub async fn add_signatures(
        &self,
        digest: &ManifestDigest,
        signatures: &[SignatureBlob],
    ) -> Result<(), EndpointError> {
        signatures::write(&self.repository, &self.reference, digest, signatures).await
    }
}

/// Puts a manifest with its signatures: they are there before the name is.
async fn put_signed(
    repository: &Repository,
    reference: &Reference,
    manifest: &ManifestBytes,
    signatures: &[SignatureBlob],
    naming: Naming,
) -> Result<Committed, EndpointError> {
    if !signatures.is_empty() {
        put_manifest(repository, reference, manifest, Naming::ByDigest).await?;
        signatures::write(repository, reference, manifest.digest(), signatures).await?;
    }
    put_manifest(repository, reference, manifest, naming).await
}

async fn put_manifest(
    repository: &Repository,
    reference: &Reference,
    manifest: &ManifestBytes,
    naming: Naming,
) -> Result<Committed, EndpointError> {
    let digest = *manifest.digest();
    let mut names = Vec::new();
    if naming == Naming::Named {
        if let Some(expected) = reference.digest.filter(|expected| *expected != digest) {
            return Err(EndpointError::new(
                Kind::InvalidInput,
                format!("push to {reference}: the manifest has digest {digest}, not {expected}"),
            ));
        }
        names.extend(reference.tag.clone().map(ManifestName::Tag));
    }
    if names.is_empty() {
        names.push(ManifestName::Digest(digest));
    }
    for name in names {
        repository.put_manifest(&name, manifest).await?;
    }
    Ok(Committed { digest })
}

#[async_trait]
impl ImageDestination for RegistryDestination {
    fn describe(&self) -> String {
        format!("docker://{}", self.reference)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            formats: vec![ManifestFormat::Oci, ManifestFormat::Docker],
            indexes: true,
            plain_tar: false,
            computed: true,
            artifacts: true,
            origins: false,
            parallel_layers: PARALLEL_LAYERS,
        }
    }

    async fn begin(&self, incoming: Arc<Incoming>) -> Result<Box<dyn ImageWriter>, EndpointError> {
        Ok(Box::new(RegistryWriter {
            reference: self.reference.clone(),
            repository: self.repository.clone(),
            incoming,
        }))
    }

    async fn put_index(
        &self,
        index: &ManifestBytes,
        signatures: Vec<SignatureBlob>,
        naming: Naming,
    ) -> Result<Committed, EndpointError> {
        let (repository, reference) = (&self.repository, &self.reference);
        put_signed(repository, reference, index, &signatures, naming).await
    }
}

struct RegistryWriter {
    reference: Reference,
    repository: Repository,
    incoming: Arc<Incoming>,
}

struct RegistrySlot {
    repository: Repository,
    descriptor: Descriptor,
}

#[async_trait]
impl LayerSlot for RegistrySlot {
    async fn fill(self: Box<Self>, stream: LayerStream) -> Result<VerifiedBlob, EndpointError> {
        match stream.form {
            LayerForm::AsDescribed => {
                self.repository
                    .push_blob(&self.descriptor, stream.blob)
                    .await
            }
            LayerForm::PlainTar => Err(EndpointError::new(
                Kind::Unsupported,
                format!(
                    "push layer {}: a registry takes the blob as described",
                    self.descriptor.digest
                ),
            )),
        }
    }
}

#[async_trait]
impl ImageWriter for RegistryWriter {
    async fn ask_layer(&self, layer: &Layer) -> Result<LayerAnswer, EndpointError> {
        let descriptor = &layer.descriptor;
        if self.repository.has_blob(descriptor).await? {
            return Ok(LayerAnswer::Held);
        }
        let same_host = self.incoming.origin.as_ref().filter(|origin| {
            origin.host == self.reference.host.as_str()
                && origin.repository != self.reference.repository
        });
        if let Some(origin) = same_host {
            if self
                .repository
                .mount_blob(&descriptor.digest, &origin.repository)
                .await?
            {
                return Ok(LayerAnswer::Held);
            }
        }
        Ok(LayerAnswer::Wanted(Box::new(RegistrySlot {
            repository: self.repository.clone(),
            descriptor: descriptor.clone(),
        })))
    }

    async fn put_computed(
        &self,
        _media_type: &MediaType,
        blob: BlobStream,
    ) -> Result<VerifiedBlob, EndpointError> {
        self.repository.push_computed(blob).await
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<Committed, EndpointError> {
        let bytes = commit.config.bytes();
        let config = Descriptor::new(
            MediaType::OciConfig,
            *commit.config.digest(),
            bytes.len() as u64,
        );
        if !self.repository.has_blob(&config).await? {
            self.repository
                .push_blob(&config, BlobStream::from_bytes(bytes.clone()))
                .await?;
        }
        put_signed(
            &self.repository,
            &self.reference,
            &commit.manifest,
            &commit.signatures,
            commit.naming,
        )
        .await
    }
}
