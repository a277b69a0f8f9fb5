// SPDX-License-Identifier: Apache-2.0
//! Descriptors: what a document says about other bytes.
//!
//! # Source
//! image-spec v1.1 "Content Descriptors".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::platform::Platform;

/// An allegation: somewhere there are `size_bytes` bytes with this digest.
///
/// Holding one says that its fields are well formed. It does not say that the
/// bytes exist, that they have that size or digest, or that the media type
/// describes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What the bytes are.
    #[serde(rename = "mediaType")]
    pub media_type: MediaType,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// Where else they may be fetched; never followed without being asked to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Arbitrary metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The bytes themselves in base64, where they are few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The artifact's type, when this points at a manifest of one.
    #[serde(
        rename = "artifactType",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_type: Option<String>,
    /// What the manifest pointed at runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of these bytes.
    #[must_use]
    pub fn of(media_type: MediaType, data: &[u8]) -> Self {
        let digest = Digest::of(crate::Algorithm::Sha256, data);
        Self::new(media_type, digest, data.len() as u64)
    }

    /// A descriptor with the three mandatory members.
    #[must_use]
    pub fn new(media_type: MediaType, digest: Digest, size_bytes: u64) -> Self {
        Self {
            media_type,
            digest,
            size_bytes,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            artifact_type: None,
            platform: None,
        }
    }
}

/// Reads `null` as the empty value: several builders write it.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
