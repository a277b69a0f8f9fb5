// SPDX-License-Identifier: Apache-2.0
//! Image records: the small checksummed file that makes an image one.
//!
//! # Format
//! One JSON object, `{"format":1,"checksum":"sha256:…","body":{…}}` and a newline. The checksum is
//! over the exact bytes of `body`. A reader refuses a record whose checksum or format differs, and
//! knows every member of the body: an unknown one is an error, because it may change the meaning.

use crate::error::StoreError;
use gantry_oci::{
    Algorithm, ChainId, DiffId, Digest, ImageId, LayerDigest, ManifestDigest, MediaType, ObjectId,
    Platform,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const FORMAT: u64 = 1;

/// Views over the objects that a store makes of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faces {
    /// One EROFS file with all metadata, mounted over the objects.
    pub composefs: bool,
    /// A tree of hard links that needs no software of ours.
    pub hardlink: bool,
}

impl Faces {
    /// Both.
    pub const BOTH: Self = Self {
        composefs: true,
        hardlink: true,
    };
    /// The composefs face alone.
    pub const COMPOSEFS: Self = Self {
        composefs: true,
        hardlink: false,
    };
    /// The hard-link face alone.
    pub const HARDLINK: Self = Self {
        composefs: false,
        hardlink: true,
    };

    /// Whether every face of `wanted` is among these.
    #[must_use]
    pub fn contains(self, wanted: Self) -> bool {
        (self.composefs || !wanted.composefs) && (self.hardlink || !wanted.hardlink)
    }

    /// The faces of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            composefs: self.composefs || other.composefs,
            hardlink: self.hardlink || other.hardlink,
        }
    }
}

impl Default for Faces {
    /// Our own mounts need the composefs face only.
    fn default() -> Self {
        Self::COMPOSEFS
    }
}

/// What the store knows of one manifest or index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// The digest of its bytes, the name of its directory.
    pub digest: ManifestDigest,
    /// Its media type.
    pub media_type: MediaType,
    /// The size of its bytes.
    pub manifest_size_bytes: u64,
    /// Image or index.
    pub content: RecordContent,
}

/// What a record describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RecordContent {
    /// One image.
    Image(Box<ImageFacts>),
    /// A list of images.
    Index {
        /// The entry for this host's platform, if it is here.
        chosen: Option<ManifestDigest>,
        /// Entries that are here.
        present: Vec<ManifestDigest>,
    },
}

/// What the store knows of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFacts {
    /// Digest of the configuration.
    pub image_id: ImageId,
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, as the configuration says.
    pub created: Option<String>,
    /// Layers, the base first.
    pub layers: Vec<LayerFacts>,
    /// The chain of all layers; none for an image without layers.
    pub chain_id: Option<ChainId>,
    /// The faces that stand beside this record.
    pub faces: Faces,
    /// What the tree holds.
    pub tree: TreeFacts,
    /// The EROFS file, if there is that face.
    pub erofs: Option<ErofsFacts>,
    /// Whether the EROFS file and all contents are sealed with fs-verity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFacts {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob that the manifest names.
    pub digest: LayerDigest,
    /// Size of that blob.
    pub size_bytes: u64,
    /// Its media type.
    pub media_type: MediaType,
}

/// Counts over a merged tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeFacts {
    /// Regular files (a hard link counts once).
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else.
    pub others: u64,
    /// Logical bytes of the files.
    pub size_bytes: u64,
}

/// The EROFS file of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErofsFacts {
    /// Its size.
    pub size_bytes: u64,
    /// Its fs-verity digest.
    pub verity: ObjectId,
}

impl ImageRecord {
    /// The image's facts, unless this is an index.
    #[must_use]
    pub fn image(&self) -> Option<&ImageFacts> {
        match &self.content {
            RecordContent::Image(facts) => Some(facts),
            RecordContent::Index { .. } => None,
        }
    }
}

#[derive(Serialize)]
struct Sealed<'a> {
    format: u64,
    checksum: Digest,
    body: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opened<'a> {
    format: u64,
    checksum: Digest,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Writes a record's bytes.
pub(crate) fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, StoreError> {
    seal(body).map_err(|source| StoreError::Io {
        action: "encode record".to_owned(),
        source: source.into(),
    })
}

fn seal<T: Serialize>(body: &T) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::value::to_raw_value(body)?;
    let checksum = Digest::of(Algorithm::Sha256, body.get().as_bytes());
    let sealed = Sealed {
        format: FORMAT,
        checksum,
        body: &body,
    };
    let mut bytes = serde_json::to_vec(&sealed)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a record's bytes.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &str,
) -> Result<T, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt {
        what: what.to_owned(),
        why,
    };
    let opened: Opened<'_> =
        serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    if opened.format != FORMAT {
        return Err(corrupt(format!("format {} is not known", opened.format)));
    }
    let found = Digest::of(opened.checksum.algorithm(), opened.body.get().as_bytes());
    if found != opened.checksum {
        return Err(corrupt(format!(
            "checksum is {found}, not {}",
            opened.checksum
        )));
    }
    serde_json::from_str(opened.body.get()).map_err(|error| corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let body = TreeFacts {
            files: 3,
            size_bytes: 99,
            ..TreeFacts::default()
        };
        let bytes = encode(&body).unwrap();
        assert_eq!(decode::<TreeFacts>(&bytes, "it").unwrap(), body);
        for at in 0..bytes.len() - 1 {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            if let Ok(found) = decode::<TreeFacts>(&torn, "it") {
                assert_eq!(found, body, "byte {at}");
            }
            decode::<TreeFacts>(&bytes[..at], "it").unwrap_err();
        }
    }

    #[test]
    fn faces_contain_their_subsets() {
        assert!(Faces::BOTH.contains(Faces::HARDLINK));
        assert!(!Faces::COMPOSEFS.contains(Faces::HARDLINK));
        assert_eq!(Faces::COMPOSEFS.union(Faces::HARDLINK), Faces::BOTH);
    }
}
