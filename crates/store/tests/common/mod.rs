// SPDX-License-Identifier: Apache-2.0
//! Small images made of lines, and bringing them into a store.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "shared by several test programs, none of which uses all of it"
)]

use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_image::{ManifestBytes, UnverifiedManifest};
use gantry_oci::{Algorithm, Descriptor, DiffId, Digest, Limits, MediaType};
use gantry_store::{
    BlobForm, Claim, CommitImage, CreateOptions, Faces, ImageName, ImageRecord, IngestError,
    IngestOptions, Store,
};
use std::io::Write as _;
use std::path::Path;

/// A tar written by hand, so that it can say anything.
#[derive(Default, Clone)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// What a header says besides its name.
#[derive(Clone)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (u64, u32),
    pub xattrs: Vec<(&'static str, &'static [u8])>,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1_600_000_000, 0),
            xattrs: Vec::new(),
        }
    }
}

pub fn mode(mode: u32) -> Meta {
    Meta {
        mode,
        ..Meta::default()
    }
}

impl Tar {
    pub fn dir(self, name: &str, meta: Meta) -> Self {
        self.entry(b'5', name, "", &meta, &[], (0, 0))
    }

    pub fn file(self, name: &str, meta: Meta, content: &[u8]) -> Self {
        self.entry(b'0', name, "", &meta, content, (0, 0))
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, &mode(0o777), &[], (0, 0))
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, &Meta::default(), &[], (0, 0))
    }

    pub fn char_device(self, name: &str, major: u32, minor: u32) -> Self {
        self.entry(b'3', name, "", &mode(0o660), &[], (major, minor))
    }

    pub fn fifo(self, name: &str) -> Self {
        self.entry(b'6', name, "", &mode(0o600), &[], (0, 0))
    }

    pub fn entry(
        mut self,
        kind: u8,
        name: &str,
        link: &str,
        meta: &Meta,
        content: &[u8],
        device: (u32, u32),
    ) -> Self {
        let mut pax = Vec::new();
        if meta.mtime.1 != 0 {
            let value = format!("{}.{:09}", meta.mtime.0, meta.mtime.1);
            pax_record(&mut pax, "mtime", value.as_bytes());
        }
        for (key, value) in &meta.xattrs {
            pax_record(&mut pax, &format!("SCHILY.xattr.{key}"), value);
        }
        if !pax.is_empty() {
            self.header(b'x', "pax", "", &Meta::default(), pax.len(), (0, 0));
            self.data(&pax);
        }
        self.header(kind, name, link, meta, content.len(), device);
        self.data(content);
        self
    }

    fn header(
        &mut self,
        kind: u8,
        name: &str,
        link: &str,
        meta: &Meta,
        size: usize,
        device: (u32, u32),
    ) {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, &format!("{:07o}", meta.mode));
        put(108, &format!("{:07o}", meta.uid));
        put(116, &format!("{:07o}", meta.gid));
        put(124, &format!("{size:011o}"));
        put(136, &format!("{:011o}", meta.mtime.0));
        put(148, "        ");
        put(157, link);
        put(257, "ustar\x0000");
        put(329, &format!("{:07o}", device.0));
        put(337, &format!("{:07o}", device.1));
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.bytes.extend_from_slice(&header);
    }

    fn data(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

fn pax_record(into: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    into.extend_from_slice(format!("{length} {key}=").as_bytes());
    into.extend_from_slice(value);
    into.push(b'\n');
}

/// A layer as a registry has it.
#[derive(Clone)]
pub struct TestLayer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub descriptor: Descriptor,
    pub diff_id: DiffId,
}

pub fn layer(tar: Tar) -> TestLayer {
    let tar = tar.finish();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar).unwrap();
    let blob = encoder.finish().unwrap();
    TestLayer {
        descriptor: Descriptor::of(MediaType::OciLayerGzip, &blob),
        diff_id: DiffId::from_digest(Digest::of(Algorithm::Sha256, &tar)),
        tar,
        blob,
    }
}

#[derive(Clone)]
pub struct TestImage {
    pub layers: Vec<TestLayer>,
    pub config: Vec<u8>,
    pub manifest: ManifestBytes,
}

pub fn image(layers: Vec<TestLayer>) -> TestImage {
    let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/sh"]}},"rootfs":{{"type":"layers","diff_ids":{}}}}}"#,
        serde_json::to_string(&diff_ids).unwrap()
    )
    .into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": Descriptor::of(MediaType::OciConfig, &config),
        "layers": layers.iter().map(|l| &l.descriptor).collect::<Vec<_>>(),
    });
    let manifest = verified(serde_json::to_vec(&manifest).unwrap());
    TestImage {
        layers,
        config,
        manifest,
    }
}

pub fn verified(bytes: Vec<u8>) -> ManifestBytes {
    UnverifiedManifest::new(bytes.into(), None, None)
        .verify(None, &Limits::DEFAULT)
        .unwrap()
}

/// A bit of everything that a tree can hold.
pub fn base_tar() -> Tar {
    let deep: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    Tar::default()
        .dir("bin/", mode(0o755))
        .file("bin/tool", mode(0o4755), &[7; 5000])
        .file("bin/plain", mode(0o755), &[8; 5000])
        .hard_link("bin/plain-too", "bin/plain")
        .dir("etc/", mode(0o755))
        .file("etc/empty", mode(0o644), b"")
        .file("etc/also-empty", mode(0o600), b"")
        .file("etc/short", mode(0o644), b"short")
        .file(
            "etc/shadow",
            Meta {
                mode: 0o640,
                gid: 42,
                mtime: (1_500_000_000, 123_456_789),
                ..Meta::default()
            },
            &[9; 300],
        )
        .file(
            "etc/owned",
            Meta {
                uid: 1000,
                gid: 1000,
                ..Meta::default()
            },
            &[8; 5000],
        )
        .symlink("etc/link", "../bin/tool")
        .dir(
            "data/",
            Meta {
                mode: 0o1777,
                mtime: (1_400_000_000, 5),
                ..Meta::default()
            },
        )
        .file("data/big", mode(0o644), &deep.repeat(8))
        .file(
            "data/attributes",
            Meta {
                xattrs: vec![("user.test", b"value"), ("trusted.test", b"\0\xff")],
                ..Meta::default()
            },
            &[10; 200],
        )
        .fifo("data/fifo")
        .char_device("data/null", 1, 3)
}

pub fn store(dir: &Path) -> Store {
    Store::open_or_create(&dir.join("store"), &CreateOptions::default()).unwrap()
}

pub fn name(text: &str) -> ImageName {
    ImageName::own(&text.parse().unwrap())
}

pub fn import(
    store: &Store,
    image: &TestImage,
    faces: Faces,
    names: &[ImageName],
) -> Result<ImageRecord, IngestError> {
    let ingest = store.begin(IngestOptions { faces })?;
    for layer in &image.layers {
        if let Claim::Wanted(claim) = ingest.claim(layer.diff_id)? {
            claim.unpack(
                layer.blob.as_slice(),
                BlobForm::AsDescribed(&layer.descriptor),
            )?;
        }
    }
    ingest.commit_image(&CommitImage {
        manifest: &image.manifest,
        config: &image.config,
        names,
    })
}

/// Everything visible in a store: what a failure must leave as it was.
pub fn visible(store: &Store) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![store.path().to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(store.path()).unwrap().to_owned();
            if relative.starts_with("locks") || relative.starts_with("staging") {
                continue;
            }
            found.push(relative.display().to_string());
            if path.is_dir() && !path.is_symlink() && !relative.ends_with("rootfs") {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn staging_is_empty(store: &Store) -> bool {
    std::fs::read_dir(store.path().join("staging"))
        .unwrap()
        .all(|boot| {
            std::fs::read_dir(boot.unwrap().path())
                .unwrap()
                .next()
                .is_none()
        })
}

pub fn assert_sound(store: &Store) {
    let report = store
        .check(&gantry_store::CheckOptions::default(), &|_, _| {})
        .unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
}
