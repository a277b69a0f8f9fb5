// SPDX-License-Identifier: Apache-2.0
//! Small images in memory, well formed or hostile, and OCI layouts of them.

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use gantry_oci::{Algorithm, Digest};
use serde_json::{Value, json};

/// Media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer, plain.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer, gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a layer, zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// The SHA-256 digest of some bytes, as text.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

/// Compresses as gzip does, quickly.
#[must_use]
#[expect(clippy::expect_used, reason = "a Vec takes everything")]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("write to memory");
    encoder.finish().expect("write to memory")
}

/// Compresses as zstd does, quickly.
#[must_use]
#[expect(clippy::expect_used, reason = "a Vec takes everything")]
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("write to memory")
}

/// A layer: a blob, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The bytes that travel.
    pub blob: Vec<u8>,
    /// What the manifest calls them.
    pub media_type: String,
    /// What the configuration says that they unpack to.
    pub diff_id: String,
    /// Annotations of the descriptor.
    pub annotations: Vec<(String, String)>,
}

impl Layer {
    /// A blob, and the tar that is said to be in it.
    #[must_use]
    pub fn new(media_type: &str, blob: Vec<u8>, tar: &[u8]) -> Self {
        Self {
            blob,
            media_type: media_type.to_owned(),
            diff_id: digest(tar),
            annotations: Vec::new(),
        }
    }

    /// A tar in gzip.
    #[must_use]
    pub fn gzip(tar: &[u8]) -> Self {
        Self::new(LAYER_GZIP, gzip(tar), tar)
    }

    /// A tar in zstd.
    #[must_use]
    pub fn zstd(tar: &[u8]) -> Self {
        Self::new(LAYER_ZSTD, zstd(tar), tar)
    }

    /// A tar as it is.
    #[must_use]
    pub fn plain(tar: Vec<u8>) -> Self {
        let diff_id = digest(&tar);
        Self {
            diff_id,
            ..Self::new(LAYER, tar, b"")
        }
    }

    /// The descriptor in a manifest.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        let mut descriptor = descriptor(&self.media_type, &self.blob);
        for (name, value) in &self.annotations {
            descriptor["annotations"][name] = json!(value);
        }
        descriptor
    }
}

/// A descriptor of some bytes.
#[must_use]
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// An image: a manifest and the blobs that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Configuration and layers.
    pub blobs: Vec<Vec<u8>>,
    /// What an index names.
    pub children: Vec<Image>,
}

impl Image {
    /// An OCI image of these layers, for this machine's platform.
    #[must_use]
    pub fn new(layers: &[Layer]) -> Self {
        Self::with_config(layers, &config(layers))
    }

    /// An OCI image with a configuration of one's own.
    #[must_use]
    pub fn with_config(layers: &[Layer], config: &[u8]) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config),
            "layers": layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        });
        Self::with_manifest(MANIFEST, manifest.to_string().into(), layers, config)
    }

    /// The same in Docker's words.
    #[must_use]
    pub fn docker(layers: &[Layer]) -> Self {
        const TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
        let config = config(layers);
        let layer = |layer: &Layer| {
            let mut descriptor = layer.descriptor();
            descriptor["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
            descriptor
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": TYPE,
            "config": descriptor("application/vnd.docker.container.image.v1+json", &config),
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        Self::with_manifest(TYPE, manifest.to_string().into(), layers, &config)
    }

    /// Any manifest over the blobs of these layers and this configuration.
    #[must_use]
    pub fn with_manifest(
        media_type: &str,
        manifest: Vec<u8>,
        layers: &[Layer],
        config: &[u8],
    ) -> Self {
        let blobs =
            std::iter::once(config.to_vec()).chain(layers.iter().map(|layer| layer.blob.clone()));
        Self {
            manifest,
            media_type: media_type.to_owned(),
            blobs: blobs.collect(),
            children: Vec::new(),
        }
    }

    /// An index of these images; `entries` describes them, truly or not.
    #[must_use]
    pub fn index(children: &[Self], entries: &[Value]) -> Self {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        Self {
            manifest: index.to_string().into(),
            media_type: INDEX.to_owned(),
            blobs: Vec::new(),
            children: children.to_vec(),
        }
    }

    /// An honest descriptor of the manifest, for this machine's platform.
    #[must_use]
    pub fn entry(&self) -> Value {
        let platform = gantry_oci::Platform::host();
        let mut entry = descriptor(&self.media_type, &self.manifest);
        entry["platform"] = json!({"os": platform.os, "architecture": platform.architecture});
        entry
    }

    /// All bytes that belong to the image: blobs, manifest, and those of children.
    fn everything(&self) -> Vec<&Vec<u8>> {
        let children = self.children.iter().flat_map(Self::everything);
        self.blobs
            .iter()
            .chain([&self.manifest])
            .chain(children)
            .collect()
    }

    /// The manifest's digest.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Writes an OCI layout whose one image has the name `name`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write_layout(&self, dir: &Path, name: &str) -> Result<()> {
        let mut entry = descriptor(&self.media_type, &self.manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        write_layout(dir, &entry, self.everything())
    }
}

/// Writes an OCI layout: its one entry, and blobs under their digests.
///
/// # Errors
/// The directory cannot be written.
pub fn write_layout<'a>(
    dir: &Path,
    entry: &Value,
    blobs: impl IntoIterator<Item = &'a Vec<u8>>,
) -> Result<()> {
    let blob_dir = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blob_dir)?;
    for blob in blobs {
        std::fs::write(
            blob_dir.join(digest(blob).trim_start_matches("sha256:")),
            blob,
        )?;
    }
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    std::fs::write(dir.join("index.json"), index.to_string())?;
    Ok(())
}

/// A configuration of these layers.
#[must_use]
pub fn config(layers: &[Layer]) -> Vec<u8> {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let platform = gantry_oci::Platform::host();
    json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into()
}
