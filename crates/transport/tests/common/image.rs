// SPDX-License-Identifier: Apache-2.0
//! Small images made by hand.

use std::io::Write as _;
use std::path::Path;

use gantry_oci::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

/// An image's parts, in memory.
#[derive(Debug, Clone)]
pub struct Image {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    pub tars: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
    pub media_type: MediaType,
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A tar of one file.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = header.to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().div_ceil(512) * 512 + 1024, 0);
    out
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// An OCI image of some layers, each of one file of `layer_bytes` bytes.
pub fn image(layers: usize, layer_bytes: usize, seed: u64) -> Image {
    let tars: Vec<Vec<u8>> = (0..layers)
        .map(|n| tar(&format!("file{n}"), &noise(layer_bytes, seed + n as u64)))
        .collect();
    from_tars(tars, "amd64")
}

pub fn from_tars(tars: Vec<Vec<u8>>, architecture: &str) -> Image {
    let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    let diff_ids: Vec<Digest> = tars
        .iter()
        .map(|tar| Descriptor::of(MediaType::OciLayer, tar).digest)
        .collect();
    let config = json!({
        "created": "2024-05-06T07:08:09.100000000Z",
        "author": "Test <test@example.org>",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "1000:1000",
            "Env": ["PATH=/bin", "A=<&>"],
            "Entrypoint": ["/bin/app"],
            "Cmd": ["--serve"],
            "WorkingDir": "/srv",
            "Labels": {"b": "2", "a": "1 & 2"},
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT"
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "build", "comment": "c"},
                    {"created_by": "env", "empty_layer": true}]
    });
    with_config(serde_json::to_vec(&config).unwrap(), layers, tars)
}

pub fn with_config(config: Vec<u8>, layers: Vec<Vec<u8>>, tars: Vec<Vec<u8>>) -> Image {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OciManifest,
        "config": Descriptor::of(MediaType::OciConfig, &config),
        "layers": layers.iter().map(|layer| Descriptor::of(MediaType::OciLayerGzip, layer)).collect::<Vec<_>>(),
    });
    Image {
        config,
        layers,
        tars,
        manifest: serde_json::to_vec(&manifest).unwrap(),
        media_type: MediaType::OciManifest,
    }
}

impl Image {
    /// The same image in Docker's family.
    pub fn docker(&self) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::DockerManifest,
            "config": Descriptor::of(MediaType::DockerConfig, &self.config),
            "layers": self.layers.iter().map(|layer| Descriptor::of(MediaType::DockerLayerGzip, layer)).collect::<Vec<_>>(),
        });
        Self {
            manifest: serde_json::to_vec(&manifest).unwrap(),
            media_type: MediaType::DockerManifest,
            ..self.clone()
        }
    }

    pub fn digest(&self) -> Digest {
        Descriptor::of(self.media_type.clone(), &self.manifest).digest
    }

    pub fn descriptor(&self) -> Descriptor {
        Descriptor::of(self.media_type.clone(), &self.manifest)
    }

    pub fn layer(&self, position: usize) -> Descriptor {
        Descriptor::of(MediaType::OciLayerGzip, &self.layers[position])
    }

    /// Its blobs by digest, the manifest among them.
    pub fn blobs(&self) -> Vec<(Digest, Vec<u8>)> {
        let all = self.layers.iter().chain([&self.config, &self.manifest]);
        all.map(|blob| {
            (
                Descriptor::of(MediaType::OciLayer, blob).digest,
                blob.clone(),
            )
        })
        .collect()
    }
}

/// Writes images into a layout, each under a name.
pub fn write_layout(dir: &Path, images: &[(&str, &Image)]) {
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut entries: Vec<Value> = Vec::new();
    for (name, image) in images {
        for (digest, blob) in image.blobs() {
            std::fs::write(dir.join("blobs/sha256").join(digest.hex()), blob).unwrap();
        }
        let mut entry = serde_json::to_value(image.descriptor()).unwrap();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        entries.push(entry);
    }
    let index = json!({"schemaVersion": 2, "manifests": entries});
    std::fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// An index over images, each with a platform.
pub fn index(entries: &[(&Image, &str)]) -> Vec<u8> {
    let manifests: Vec<Value> = entries
        .iter()
        .map(|(image, architecture)| {
            let mut entry = serde_json::to_value(image.descriptor()).unwrap();
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    serde_json::to_vec(
        &json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex, "manifests": manifests}),
    )
    .unwrap()
}
