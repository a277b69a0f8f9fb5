// SPDX-License-Identifier: Apache-2.0
//! Manifests and indexes, parsed so that they have one meaning only.
//!
//! A byte string that two readers understand differently lets two hosts run
//! different images under one digest. [`Document::parse`] therefore refuses
//! duplicate members, documents that are a manifest and an index at once,
//! and a `mediaType` that contradicts the shape or the `Content-Type`.
//!
//! Digests are always of the bytes as received; a document is never
//! serialised again to compute one.
//!
//! # Source
//! image-spec v1.1 "Image Manifest", "Image Index"; Docker manifest v2
//! schema 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::{Descriptor, null_is_default};
use crate::limits::Limits;
use crate::media_type::MediaType;
use crate::strict_json;

/// An image manifest, or that of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type; OCI allows it to be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What kind of artifact this is, if it is not a runnable image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about (a signature, an SBOM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Arbitrary metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// What sigstore's tools attach as layers of a manifest whose configuration
/// pretends to be an image's.
const ATTACHMENTS: [&str; 2] = [
    "application/vnd.dev.cosign.simplesigning.v1+json",
    "application/vnd.dsse.envelope.v1+json",
];

impl Manifest {
    /// Whether this describes a runnable image rather than an artifact.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.config.media_type.is_image_config() && !self.holds_attachments()
    }

    /// Whether every layer is a signature or an attestation: there is nothing
    /// in it that anybody could unpack.
    fn holds_attachments(&self) -> bool {
        let is_attachment = |layer: &Descriptor| ATTACHMENTS.contains(&layer.media_type.as_str());
        !self.layers.is_empty() && self.layers.iter().all(is_attachment)
    }

    /// The media type, stated or implied by the configuration's family.
    #[must_use]
    pub fn effective_media_type(&self) -> MediaType {
        self.media_type.clone().unwrap_or(MediaType::OciManifest)
    }

    /// The artifact type as the referrers API lists it: stated, or the
    /// configuration's media type.
    #[must_use]
    pub fn effective_artifact_type(&self) -> &str {
        self.artifact_type
            .as_deref()
            .unwrap_or(self.config.media_type.as_str())
    }
}

/// A list of manifests, one for each platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type; OCI allows it to be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What kind of artifact this is, if it is not a list of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Arbitrary metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// The media type, stated or OCI's.
    #[must_use]
    pub fn effective_media_type(&self) -> MediaType {
        self.media_type.clone().unwrap_or(MediaType::OciIndex)
    }
}

/// What the bytes at a reference are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one exists per image at a time; a box would cost every reader"
)]
pub enum Document {
    /// One image, or an artifact.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why bytes are not a manifest or index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDocumentError {
    /// More bytes than the table of limits allows.
    #[error("manifest of {size_bytes} bytes is larger than the {limit_bytes} allowed")]
    TooLarge {
        /// How many there are.
        size_bytes: u64,
        /// How many may be.
        limit_bytes: u64,
    },
    /// Not JSON, or JSON with two meanings.
    #[error("manifest is not strict JSON")]
    Json(#[source] serde_json::Error),
    /// Valid JSON that lacks members or has ones of the wrong type.
    #[error("manifest does not have the members that its type needs")]
    Shape(#[source] serde_json::Error),
    /// Members of a manifest and of an index in one document.
    #[error("document is a manifest and an index at once")]
    Hybrid,
    /// Neither a manifest's nor an index's members.
    #[error("document has neither config and layers nor manifests")]
    Neither,
    /// The old format without a verifiable configuration.
    #[error(
        "manifest has schema version {version}; only version 2 is supported (push the image again with a current tool)"
    )]
    SchemaVersion {
        /// The version found.
        version: u64,
    },
    /// `mediaType`, `Content-Type` and shape do not agree.
    #[error("media type {stated:?} contradicts the document, which is {found}")]
    MediaType {
        /// What was stated.
        stated: String,
        /// What the members say.
        found: &'static str,
    },
    /// More descriptors or layers than the table of limits allows.
    #[error("document lists {count} {what}; at most {limit} are allowed")]
    TooMany {
        /// Descriptors or layers.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
}

impl ParseDocumentError {
    /// `Unsafe` for what looks like a trick, `Unsupported` for old formats,
    /// else `Corrupt`.
    #[must_use]
    pub fn kind(&self) -> crate::Kind {
        match self {
            Self::Hybrid | Self::TooLarge { .. } | Self::TooMany { .. } => crate::Kind::Unsafe,
            Self::SchemaVersion { .. } => crate::Kind::Unsupported,
            _ => crate::Kind::Corrupt,
        }
    }
}

/// The members by which a document's kind is told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<MediaType>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses a manifest or an index.
    ///
    /// `content_type` is the `Content-Type` that came with the bytes, if any;
    /// parameters after a semicolon are ignored, and so are generic types
    /// (`application/json`, `application/octet-stream`, `text/plain`).
    ///
    /// # Errors
    /// [`ParseDocumentError`]: too large, not strict JSON, two kinds at once,
    /// or contradictory media types.
    ///
    /// # Source
    /// image-spec v1.1 "Image Manifest", "Image Index"; advisory
    /// GHSA-77vh-xpmg-72qh on documents with two meanings.
    pub fn parse(
        data: &[u8],
        content_type: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, ParseDocumentError> {
        let size_bytes = data.len() as u64;
        if size_bytes > limits.manifest_bytes {
            return Err(ParseDocumentError::TooLarge {
                size_bytes,
                limit_bytes: limits.manifest_bytes,
            });
        }
        strict_json::check(data, limits.json_depth).map_err(ParseDocumentError::Json)?;
        let probe: Probe = serde_json::from_slice(data).map_err(ParseDocumentError::Shape)?;
        let document = Self::parse_shape(data, &probe, limits)?;
        for stated in probe
            .media_type
            .iter()
            .map(MediaType::as_str)
            .chain(content_type)
        {
            document.check_media_type(stated)?;
        }
        if let (Some(inner), Some(outer)) = (&probe.media_type, content_type.map(essence)) {
            if !is_generic(outer) && inner.as_str() != outer {
                return Err(ParseDocumentError::MediaType {
                    stated: crate::digest::excerpt(outer),
                    found: document.noun(),
                });
            }
        }
        Ok(document)
    }

    fn parse_shape(
        data: &[u8],
        probe: &Probe,
        limits: &Limits,
    ) -> Result<Self, ParseDocumentError> {
        if probe.schema_version != Some(2) || probe.fs_layers.is_some() {
            return Err(ParseDocumentError::SchemaVersion {
                version: probe.schema_version.unwrap_or(0).min(9999),
            });
        }
        let manifest_members = probe.config.is_some() || probe.layers.is_some();
        match (manifest_members, probe.manifests.is_some()) {
            (true, true) => Err(ParseDocumentError::Hybrid),
            (false, false) => Err(ParseDocumentError::Neither),
            (true, false) => {
                let manifest: Manifest =
                    serde_json::from_slice(data).map_err(ParseDocumentError::Shape)?;
                check_count("layers", manifest.layers.len(), limits.layers)?;
                Ok(Self::Manifest(manifest))
            }
            (false, true) => {
                let index: Index =
                    serde_json::from_slice(data).map_err(ParseDocumentError::Shape)?;
                check_count("manifests", index.manifests.len(), limits.descriptors)?;
                Ok(Self::Index(index))
            }
        }
    }

    fn check_media_type(&self, stated: &str) -> Result<(), ParseDocumentError> {
        let stated = essence(stated);
        let media_type = MediaType::from(stated);
        let fits = match self {
            Self::Manifest(_) => media_type.is_manifest(),
            Self::Index(_) => media_type.is_index(),
        };
        if fits || is_generic(stated) {
            return Ok(());
        }
        Err(ParseDocumentError::MediaType {
            stated: crate::digest::excerpt(stated),
            found: self.noun(),
        })
    }

    fn noun(&self) -> &'static str {
        match self {
            Self::Manifest(_) => "an image manifest",
            Self::Index(_) => "an image index",
        }
    }

    /// The media type, stated or implied.
    #[must_use]
    pub fn media_type(&self) -> MediaType {
        match self {
            Self::Manifest(manifest) => manifest.effective_media_type(),
            Self::Index(index) => index.effective_media_type(),
        }
    }

    /// The manifest that this document says something about.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }
}

fn check_count(what: &'static str, count: usize, limit: usize) -> Result<(), ParseDocumentError> {
    if count > limit {
        Err(ParseDocumentError::TooMany { what, count, limit })
    } else {
        Ok(())
    }
}

/// A `Content-Type` without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "application/octet-stream" | "text/plain"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn parse(text: &str, content_type: Option<&str>) -> Result<Document, ParseDocumentError> {
        Document::parse(text.as_bytes(), content_type, &Limits::DEFAULT)
    }

    #[test]
    fn document_is_told_by_its_members() {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{D},"layers":[{D}]}}"#);
        assert!(matches!(parse(&manifest, None), Ok(Document::Manifest(_))));
        assert!(parse(&manifest, Some(MANIFEST)).is_ok());
        assert!(parse(&manifest, Some("application/json; charset=utf-8")).is_ok());
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{D}],"annotations":null}}"#);
        assert!(matches!(parse(&index, None), Ok(Document::Index(_))));
    }

    #[test]
    fn a_manifest_of_attachments_only_is_no_image() {
        let layer = |media_type: &str| {
            let layer = D.replace("application/vnd.oci.image.config.v1+json", media_type);
            assert_ne!(layer, D);
            layer
        };
        let signature = layer(ATTACHMENTS[0]);
        let tar = layer("application/vnd.oci.image.layer.v1.tar");
        for (layers, image) in [
            (String::new(), true),
            (tar.clone(), true),
            (format!("{tar},{signature}"), true),
            (signature.clone(), false),
            (format!("{signature},{}", layer(ATTACHMENTS[1])), false),
        ] {
            let text = format!(r#"{{"schemaVersion":2,"config":{D},"layers":[{layers}]}}"#);
            let Ok(Document::Manifest(manifest)) = parse(&text, None) else {
                panic!("{text}");
            };
            assert_eq!(manifest.is_image(), image, "{text}");
        }
    }

    #[test]
    fn document_with_two_meanings_is_refused() {
        let index_type = "application/vnd.oci.image.index.v1+json";
        let manifest = format!(r#"{{"schemaVersion":2,"config":{D},"layers":[{D}]}}"#);
        for (text, content_type) in [
            (
                format!(r#"{{"schemaVersion":2,"config":{D},"layers":[],"manifests":[]}}"#),
                None,
            ),
            (
                format!(r#"{{"schemaVersion":2,"layers":[],"manifests":[{D}]}}"#),
                None,
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"mediaType":"{index_type}","config":{D},"layers":[]}}"#
                ),
                None,
            ),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","manifests":[]}}"#),
                None,
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"mediaType":"application/x","config":{D},"layers":[]}}"#
                ),
                None,
            ),
            (manifest.clone(), Some(index_type)),
            (
                format!(
                    r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{D},"layers":[]}}"#
                ),
                Some("application/vnd.docker.distribution.manifest.v2+json"),
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{D},"config":{D},"layers":[]}}"#),
                None,
            ),
            (
                format!(r#"{{"schemaVersion":1,"config":{D},"layers":[]}}"#),
                None,
            ),
            (
                r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.into(),
                None,
            ),
            (r#"{"schemaVersion":2}"#.into(), None),
            (r#"{"config":{}}"#.into(), None),
            ("[]".into(), None),
            (format!("{manifest} x"), None),
            (manifest.replace("\"size\":2", "\"size\":-1"), None),
            (manifest.replace("\"size\":2", "\"size\":1.5"), None),
            (manifest.replace("\"size\":2", "\"size\":\"2\""), None),
            (manifest.replace("sha256:e3b0", "sha256:../0"), None),
            (manifest.replace("sha256:", "md5:"), None),
        ] {
            assert!(
                parse(&text, content_type).is_err(),
                "{text} as {content_type:?} was accepted"
            );
        }
    }

    #[test]
    fn document_past_the_limits_is_refused() {
        let limits = Limits {
            layers: 2,
            manifest_bytes: 4096,
            ..Limits::DEFAULT
        };
        let layers = [D; 3].join(",");
        let text = format!(r#"{{"schemaVersion":2,"config":{D},"layers":[{layers}]}}"#);
        assert!(matches!(
            Document::parse(text.as_bytes(), None, &limits),
            Err(ParseDocumentError::TooMany { count: 3, .. })
        ));
        let big = vec![b' '; 4097];
        assert!(matches!(
            Document::parse(&big, None, &limits),
            Err(ParseDocumentError::TooLarge { .. })
        ));
    }
}
