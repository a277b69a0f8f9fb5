// SPDX-License-Identifier: Apache-2.0
//! From "somebody said so" to "these bytes are that digest".

use std::sync::Arc;

use bytes::Bytes;
use gantry_oci::{
    Algorithm, Descriptor, Digest, Document, Index, Kind, Limits, Manifest, ManifestDigest,
    MediaType,
};

/// A manifest or an index as a transport handed it over.
///
/// An allegation. Holding one says only that somebody sent these bytes.
#[derive(Debug, Clone)]
pub struct UnverifiedManifest {
    bytes: Bytes,
    content_type: Option<String>,
    claimed: Option<ManifestDigest>,
}

/// Why bytes were not accepted as a manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyManifestError {
    /// The bytes have another digest than the one asked for.
    #[error("manifest has digest {found} instead of the {expected} asked for")]
    Digest {
        /// What was asked for.
        expected: ManifestDigest,
        /// What came.
        found: ManifestDigest,
    },
    /// The peer stated a digest that its own bytes do not have.
    #[error("peer states digest {claimed} for a manifest with digest {found}")]
    Claim {
        /// What the peer stated.
        claimed: ManifestDigest,
        /// What came.
        found: ManifestDigest,
    },
    /// The bytes are fewer or more than the descriptor says.
    #[error("manifest {digest} has {found_bytes} bytes instead of {expected_bytes}")]
    Size {
        /// The manifest.
        digest: ManifestDigest,
        /// In the descriptor.
        expected_bytes: u64,
        /// What came.
        found_bytes: u64,
    },
    /// The descriptor and the document disagree on what it is.
    #[error("manifest {digest} is a {found} but was described as a {expected}")]
    Type {
        /// The manifest.
        digest: ManifestDigest,
        /// In the descriptor.
        expected: MediaType,
        /// In the document.
        found: MediaType,
    },
    /// Right digest, but not a document that can be used.
    #[error("read manifest {digest}")]
    Document {
        /// The manifest.
        digest: ManifestDigest,
        /// Why.
        source: gantry_oci::ParseDocumentError,
    },
}

impl VerifyManifestError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Document { source, .. } => source.kind(),
            _ => Kind::Corrupt,
        }
    }
}

impl From<VerifyManifestError> for crate::EndpointError {
    fn from(error: VerifyManifestError) -> Self {
        Self::with_source(error.kind(), "verify manifest", error)
    }
}

impl UnverifiedManifest {
    /// Bytes with what the peer said of them: the `Content-Type` and, where
    /// it stated one, the digest.
    #[must_use]
    pub fn new(
        bytes: Bytes,
        content_type: Option<String>,
        claimed: Option<ManifestDigest>,
    ) -> Self {
        Self {
            bytes,
            content_type,
            claimed,
        }
    }

    /// The bytes, unchecked; for showing, never for acting.
    #[must_use]
    pub fn unverified_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Checks the digest and parses strictly.
    ///
    /// With `expected` the bytes must have that digest. Without (a pull by
    /// tag) the digest is computed, and a digest stated by the peer must agree.
    ///
    /// # Errors
    /// [`VerifyManifestError`].
    pub fn verify(
        self,
        expected: Option<&ManifestDigest>,
        limits: &Limits,
    ) -> Result<ManifestBytes, VerifyManifestError> {
        let wanted = expected.or(self.claimed.as_ref());
        let algorithm = wanted.map_or(Algorithm::Sha256, |wanted| wanted.digest().algorithm());
        let digest = ManifestDigest::from_digest(Digest::of(algorithm, &self.bytes));
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(VerifyManifestError::Digest {
                expected: *expected,
                found: digest,
            });
        }
        // A claim in another algorithm than the one asked for is not compared.
        if let Some(claimed) = self
            .claimed
            .filter(|claimed| claimed.digest().algorithm() == algorithm)
        {
            if claimed != digest {
                return Err(VerifyManifestError::Claim {
                    claimed,
                    found: digest,
                });
            }
        }
        let document = Document::parse(&self.bytes, self.content_type.as_deref(), limits)
            .map_err(|source| VerifyManifestError::Document { digest, source })?;
        Ok(ManifestBytes {
            bytes: self.bytes,
            digest,
            document: Arc::new(document),
        })
    }

    /// As [`verify`](Self::verify), for an entry of an index: digest, size and
    /// media type must be those of `descriptor`.
    ///
    /// # Errors
    /// [`VerifyManifestError`].
    pub fn verify_entry(
        self,
        descriptor: &Descriptor,
        limits: &Limits,
    ) -> Result<ManifestBytes, VerifyManifestError> {
        let expected = ManifestDigest::from_digest(descriptor.digest);
        let manifest = self.verify(Some(&expected), limits)?;
        let found_bytes = manifest.bytes.len() as u64;
        if found_bytes != descriptor.size_bytes {
            return Err(VerifyManifestError::Size {
                digest: expected,
                expected_bytes: descriptor.size_bytes,
                found_bytes,
            });
        }
        let found = manifest.document.media_type();
        if found != descriptor.media_type {
            return Err(VerifyManifestError::Type {
                digest: expected,
                expected: descriptor.media_type.clone(),
                found,
            });
        }
        Ok(manifest)
    }
}

/// A manifest or an index whose bytes have its digest.
///
/// Holding one says: the bytes hash to [`digest`](Self::digest), and they are
/// a strict document of one kind, within the limits. It does not say that
/// blobs exist, nor that anybody trusts the image. Made by
/// [`UnverifiedManifest::verify`] only.
#[derive(Debug, Clone)]
pub struct ManifestBytes {
    bytes: Bytes,
    digest: ManifestDigest,
    /// Shared: a manifest is passed around more often than it is read.
    document: Arc<Document>,
}

impl ManifestBytes {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their digest.
    #[must_use]
    pub fn digest(&self) -> &ManifestDigest {
        &self.digest
    }

    /// What they say.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The manifest, unless this is an index.
    #[must_use]
    pub fn as_manifest(&self) -> Option<&Manifest> {
        match &*self.document {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        }
    }

    /// The index, unless this is a manifest.
    #[must_use]
    pub fn as_index(&self) -> Option<&Index> {
        match &*self.document {
            Document::Index(index) => Some(index),
            Document::Manifest(_) => None,
        }
    }

    /// The media type, stated or implied.
    #[must_use]
    pub fn media_type(&self) -> MediaType {
        self.document.media_type()
    }

    /// A descriptor of these bytes.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(
            self.media_type(),
            *self.digest.digest(),
            self.bytes.len() as u64,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Bytes {
        Bytes::from_static(
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
        )
    }

    fn digest_of(bytes: &[u8]) -> ManifestDigest {
        ManifestDigest::from_digest(Digest::of(Algorithm::Sha256, bytes))
    }

    #[test]
    fn by_tag_the_digest_is_computed() {
        let manifest = UnverifiedManifest::new(index(), None, None)
            .verify(None, &Limits::DEFAULT)
            .unwrap();
        assert_eq!(*manifest.digest(), digest_of(&index()));
        assert!(manifest.as_index().is_some());
        assert!(manifest.as_manifest().is_none());
    }

    #[test]
    fn other_content_under_an_asked_digest_is_refused() {
        let other = digest_of(b"other");
        // The peer's header repeats what was asked for; the bytes decide.
        let error = UnverifiedManifest::new(index(), None, Some(other))
            .verify(Some(&other), &Limits::DEFAULT)
            .unwrap_err();
        assert!(
            matches!(error, VerifyManifestError::Digest { .. }),
            "{error}"
        );
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    #[test]
    fn lying_claim_is_refused_by_tag() {
        let error = UnverifiedManifest::new(index(), None, Some(digest_of(b"other")))
            .verify(None, &Limits::DEFAULT)
            .unwrap_err();
        assert!(
            matches!(error, VerifyManifestError::Claim { .. }),
            "{error}"
        );
    }

    #[test]
    fn sha512_digest_is_checked_with_sha512() {
        let expected = ManifestDigest::from_digest(Digest::of(Algorithm::Sha512, &index()));
        // A registry may state its own sha256 beside it.
        let manifest = UnverifiedManifest::new(index(), None, Some(digest_of(b"unrelated")))
            .verify(Some(&expected), &Limits::DEFAULT)
            .unwrap();
        assert_eq!(*manifest.digest(), expected);
    }

    #[test]
    fn entry_must_have_the_size_and_type_described() {
        let good = Descriptor::of(MediaType::OciIndex, &index());
        let fetch = || UnverifiedManifest::new(index(), None, None);
        assert!(fetch().verify_entry(&good, &Limits::DEFAULT).is_ok());
        let longer = Descriptor {
            size_bytes: good.size_bytes + 1,
            ..good.clone()
        };
        assert!(matches!(
            fetch().verify_entry(&longer, &Limits::DEFAULT).unwrap_err(),
            VerifyManifestError::Size { .. }
        ));
        let typed = Descriptor {
            media_type: MediaType::OciManifest,
            ..good
        };
        assert!(matches!(
            fetch().verify_entry(&typed, &Limits::DEFAULT).unwrap_err(),
            VerifyManifestError::Type { .. }
        ));
    }
}
