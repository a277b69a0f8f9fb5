// SPDX-License-Identifier: Apache-2.0
//! Media types of manifests, configurations and layers.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a layer blob is compressed, as its media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// A plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

macro_rules! media_types {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The media type of a descriptor or document.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum MediaType {
            $($(#[$doc])* $name,)*
            /// Anything else; the specification asks to carry it unchanged.
            Other(Box<str>),
        }

        impl MediaType {
            /// The text form.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for MediaType {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    other => Self::Other(other.into()),
                }
            }
        }
    };
}

media_types! {
    /// OCI image manifest.
    OciManifest = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    OciIndex = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    OciConfig = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, plain tar.
    OciLayer = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    OciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    OciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// OCI layer that must not be distributed, plain tar (deprecated).
    OciForeignLayer = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    /// OCI layer that must not be distributed, gzip (deprecated).
    OciForeignLayerGzip = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    /// OCI layer that must not be distributed, zstd (deprecated).
    OciForeignLayerZstd = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
    /// The empty JSON object, for artifacts without a configuration.
    OciEmpty = "application/vnd.oci.empty.v1+json";
    /// Docker manifest, version 2 schema 2.
    DockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image configuration.
    DockerConfig = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, plain tar.
    DockerLayer = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd (written by some builders).
    DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker layer that must not be distributed.
    DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// Docker manifest, version 2 schema 1 (refused).
    DockerSchema1 = "application/vnd.docker.distribution.manifest.v1+json";
    /// Docker manifest, version 2 schema 1, signed (refused).
    DockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
}

impl MediaType {
    /// Whether this is an image manifest, OCI's or Docker's.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// Whether this is an index or a manifest list.
    #[must_use]
    pub fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerManifestList)
    }

    /// Whether this is a layer that its owner may not push: it may be missing
    /// where its image is.
    #[must_use]
    pub fn is_non_distributable(&self) -> bool {
        matches!(
            self,
            Self::OciForeignLayer
                | Self::OciForeignLayerGzip
                | Self::OciForeignLayerZstd
                | Self::DockerForeignLayer
        )
    }

    /// Whether this is a configuration of a runnable image.
    #[must_use]
    pub fn is_image_config(&self) -> bool {
        matches!(self, Self::OciConfig | Self::DockerConfig)
    }

    /// How the layer is compressed; `None` if this is not a file system layer.
    #[must_use]
    pub fn layer_compression(&self) -> Option<LayerCompression> {
        match self {
            Self::OciLayer | Self::OciForeignLayer | Self::DockerLayer => {
                Some(LayerCompression::None)
            }
            Self::OciLayerGzip
            | Self::OciForeignLayerGzip
            | Self::DockerLayerGzip
            | Self::DockerForeignLayer => Some(LayerCompression::Gzip),
            Self::OciLayerZstd | Self::OciForeignLayerZstd | Self::DockerLayerZstd => {
                Some(LayerCompression::Zstd)
            }
            _ => None,
        }
    }

    /// Whether the document family is Docker's rather than OCI's.
    #[must_use]
    pub fn is_docker(&self) -> bool {
        self.as_str().starts_with("application/vnd.docker.")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        if text.len() > 255 || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(serde::de::Error::custom(
                "media type is longer than 255 bytes or has unprintable characters",
            ));
        }
        Ok(Self::from(&*text))
    }
}
