// SPDX-License-Identifier: Apache-2.0
//! Manifests: fetch, look, put, delete.

use gantry_image::{ManifestBytes, UnverifiedManifest};
use gantry_oci::{ManifestDigest, MediaType, Tag};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode};
use reqwest::Response;

use super::client::{Repository, Request};
use super::error::RegistryError;

/// A tag or a digest: what follows `/manifests/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(ManifestDigest),
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// What we can read, best first.
const ACCEPTED: &[MediaType] = &[
    MediaType::OciManifest,
    MediaType::DockerManifest,
    MediaType::OciIndex,
    MediaType::DockerManifestList,
];

const DIGEST_HEADER: &str = "docker-content-digest";

impl Repository {
    /// Fetches a manifest or an index, unchecked.
    ///
    /// # Errors
    /// [`RegistryError`]; its kind is `NotFound` if there is none.
    pub async fn manifest(&self, name: &ManifestName) -> Result<UnverifiedManifest, RegistryError> {
        let what = format!("fetch manifest {name} of {}", self.full_name());
        let response = self.ask_manifest(Method::GET, name, &what).await?;
        if response.status() != StatusCode::OK {
            return Err(self.registry.status_error(response, &what).await);
        }
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let claimed = stated_digest(&response, &what)?;
        let limit_bytes = self.registry.options().limits.manifest_bytes;
        let bytes = self
            .registry
            .read_small(response, limit_bytes, &what)
            .await?;
        Ok(UnverifiedManifest::new(bytes, content_type, claimed))
    }

    /// Asks for a manifest's digest without its bytes. What comes is the
    /// registry's word.
    ///
    /// # Errors
    /// [`RegistryError`]; its kind is `NotFound` if there is none.
    pub async fn manifest_digest(
        &self,
        name: &ManifestName,
    ) -> Result<Option<ManifestDigest>, RegistryError> {
        let what = format!("look for manifest {name} of {}", self.full_name());
        let response = self.ask_manifest(Method::HEAD, name, &what).await?;
        if response.status() != StatusCode::OK {
            return Err(self.registry.status_error(response, &what).await);
        }
        stated_digest(&response, &what)
    }

    async fn ask_manifest(
        &self,
        method: Method,
        name: &ManifestName,
        what: &str,
    ) -> Result<Response, RegistryError> {
        let url = self.url(&format!("manifests/{name}")).await?;
        let mut request = Request::new(what.into(), method, url, self.scope("pull"));
        for accepted in ACCEPTED {
            request = request.header(ACCEPT, accepted.as_str())?;
        }
        self.registry.send(&request).await
    }

    /// Puts a manifest or an index.
    ///
    /// # Errors
    /// [`RegistryError`], with the registry's reasons where it refuses.
    pub async fn put_manifest(
        &self,
        name: &ManifestName,
        manifest: &ManifestBytes,
    ) -> Result<(), RegistryError> {
        let what = format!("push manifest {name} to {}", self.full_name());
        let url = self.url(&format!("manifests/{name}")).await?;
        let mut request = Request::new(what.clone(), Method::PUT, url, self.scope("pull,push"))
            .header(CONTENT_TYPE, manifest.media_type().as_str())?;
        request.body = Some(manifest.bytes().clone());
        request.patience = Some(self.registry.options().pace.commit);
        let response = self.registry.send(&request).await?;
        if !matches!(
            response.status(),
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED
        ) {
            return Err(self.registry.status_error(response, &what).await);
        }
        match stated_digest(&response, &what)? {
            Some(found)
                if found != *manifest.digest()
                    && found.digest().algorithm() == manifest.digest().digest().algorithm() =>
            {
                Err(RegistryError::Malformed {
                    what,
                    why: format!(
                        "the registry stored {found} instead of {}",
                        manifest.digest()
                    ),
                })
            }
            _ => Ok(()),
        }
    }

    /// Deletes a manifest by its digest; tags that point at it go too.
    ///
    /// # Errors
    /// [`RegistryError`]; many registries have deletion switched off.
    pub async fn delete_manifest(&self, digest: &ManifestDigest) -> Result<(), RegistryError> {
        let what = format!("delete manifest {digest} of {}", self.full_name());
        let url = self.url(&format!("manifests/{digest}")).await?;
        let request = Request::new(
            what.clone(),
            Method::DELETE,
            url,
            self.scope("pull,push,delete"),
        );
        let response = self.registry.send(&request).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.registry.status_error(response, &what).await),
        }
    }
}

/// The `Docker-Content-Digest` of an answer: absent, or well formed. An
/// algorithm that we don't know counts as absent.
fn stated_digest(response: &Response, what: &str) -> Result<Option<ManifestDigest>, RegistryError> {
    let mut values = response.headers().get_all(DIGEST_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = |why: String| RegistryError::Malformed {
        what: what.into(),
        why,
    };
    if values.any(|other| other != value) {
        return Err(malformed(
            "the registry states two digests for one manifest".into(),
        ));
    }
    let text = value
        .to_str()
        .map_err(|_| malformed("the registry states a digest that is not text".into()))?;
    match text.parse() {
        Ok(digest) => Ok(Some(digest)),
        Err(gantry_oci::ParseDigestError::UnknownAlgorithm { .. }) => Ok(None),
        Err(error) => Err(malformed(error.to_string())),
    }
}
