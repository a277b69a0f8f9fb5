// SPDX-License-Identifier: Apache-2.0
//! Against other people's programs: Debian's docker-registry and skopeo.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use common::image::{Image, image, index, write_layout};
use common::{block_on, copy, copy_options, quick};
use gantry_image::convert::{ManifestFormat, Wishes};
use gantry_oci::media_type::LayerCompression;
use gantry_oci::{Kind, Platform, Reference};
use gantry_testkit::skip;
use gantry_testkit::tool::{self, DockerRegistry};
use gantry_transport::copy::{CopyError, CopyOptions, CopyReport, MultiArch};
use gantry_transport::inspect::{self, InspectOptions};
use gantry_transport::oci_layout::{LayoutDestination, LayoutOptions, LayoutSource};
use gantry_transport::registry::mirrors::RegistriesConf;
use gantry_transport::registry::{Registry, RegistryDestination, RegistrySource};
use gantry_transport::{ImageName, Selection};

/// Why a test cannot run here.
fn lacking() -> Option<String> {
    let missing = tool::missing(&["skopeo", "docker-registry"]);
    (!missing.is_empty()).then(|| format!("{} not installed", missing.join(", ")))
}

macro_rules! needs_peers {
    () => {
        if let Some(reason) = lacking() {
            skip!("{reason}");
        }
    };
}

struct World {
    dir: tempfile::TempDir,
    registry: DockerRegistry,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = DockerRegistry::start(&dir.path().join("registry")).unwrap();
        Self { dir, registry }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// `docker://127.0.0.1:PORT/…`
    fn docker(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.registry.address())
    }

    fn oci(&self, name: &str) -> String {
        format!("oci:{}", self.path(name).display())
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse_normalized(&format!("{}/{name}", self.registry.address())).unwrap()
    }
}

fn skopeo(arguments: &[&str]) -> String {
    tool::text("skopeo", [&["--insecure-policy"], arguments].concat()).unwrap()
}

/// Copies between two names, as the command does.
fn transfer(from: &str, to: &str, options: &CopyOptions) -> Result<CopyReport, CopyError> {
    let conf = RegistriesConf::default();
    block_on(async {
        let source: Box<dyn gantry_image::ImageSource> = match from.parse().unwrap() {
            ImageName::Docker(reference) => {
                Box::new(RegistrySource::new(reference, &quick(), &conf).unwrap())
            }
            ImageName::OciLayout { path, selection } => Box::new(LayoutSource::new(
                path,
                selection,
                &LayoutOptions::default(),
            )),
            ImageName::Store(_) => unreachable!(),
        };
        let destination: Box<dyn gantry_image::ImageDestination> = match to.parse().unwrap() {
            ImageName::Docker(reference) => {
                Box::new(RegistryDestination::new(reference, &quick(), &conf))
            }
            ImageName::OciLayout { path, selection } => Box::new(
                LayoutDestination::create(path, selection, &LayoutOptions::default())
                    .await
                    .unwrap(),
            ),
            ImageName::Store(_) => unreachable!(),
        };
        copy(&*source, &*destination, options).await
    })
}

fn layout(dir: &Path, images: &[(&str, &Image)]) -> String {
    write_layout(dir, images);
    format!("oci:{}", dir.display())
}

#[test]
fn what_we_push_skopeo_pulls_and_the_other_way_round() {
    needs_peers!();
    let world = World::new();
    let image = image(3, 300_000, 1);
    let source = layout(&world.path("source"), &[("v1", &image)]);
    let pushed = transfer(
        &format!("{source}:v1"),
        &world.docker("team/app:v1"),
        &copy_options(),
    )
    .unwrap();
    assert_eq!(*pushed.digest.digest(), image.digest());
    assert_eq!(pushed.images[0].layers_moved, 3);
    let theirs = world.oci("theirs:v1");
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &world.docker("team/app:v1"),
        &theirs,
    ]);
    // Read what skopeo wrote, and pull it from the registry ourselves.
    let again = transfer(&theirs, &world.oci("again:v1"), &copy_options()).unwrap();
    assert_eq!(*again.digest.digest(), image.digest());
    let pulled = transfer(
        &world.docker("team/app:v1"),
        &world.oci("pulled:v1"),
        &copy_options(),
    )
    .unwrap();
    assert_eq!(*pulled.digest.digest(), image.digest());
    // Let skopeo push what we wrote, and pull by digest.
    let ours = world.oci("pulled:v1");
    skopeo(&[
        "copy",
        "-q",
        "--dest-tls-verify=false",
        &ours,
        &world.docker("team/back:v1"),
    ]);
    let by_digest = world.docker(&format!("team/back@{}", image.digest()));
    let last = transfer(&by_digest, &world.oci("last"), &copy_options()).unwrap();
    assert_eq!(*last.digest.digest(), image.digest());
}

#[test]
fn layers_that_are_there_do_not_move() {
    needs_peers!();
    let world = World::new();
    let image = image(2, 100_000, 2);
    let source = layout(&world.path("source"), &[("v1", &image)]);
    transfer(&source, &world.docker("a:v1"), &copy_options()).unwrap();
    let second = transfer(&source, &world.docker("a:v2"), &copy_options()).unwrap();
    assert_eq!(
        (second.images[0].layers_moved, second.images[0].bytes_moved),
        (0, 0)
    );
    // From another repository of the same registry they are mounted.
    let mounted = transfer(
        &world.docker("a:v1"),
        &world.docker("b:v1"),
        &copy_options(),
    )
    .unwrap();
    assert_eq!(mounted.images[0].layers_moved, 0);
    assert_eq!(
        skopeo(&[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &world.docker("b:v1")
        ]),
        image.digest().to_string()
    );
    let twice = transfer(&world.docker("a:v1"), &world.oci("out"), &copy_options()).unwrap();
    let again = transfer(&world.docker("a:v1"), &world.oci("out"), &copy_options()).unwrap();
    assert_eq!(
        (twice.images[0].layers_moved, again.images[0].layers_moved),
        (2, 0)
    );
}

#[test]
fn index_is_copied_whole_or_by_platform() {
    needs_peers!();
    let world = World::new();
    let amd64 = image(1, 50_000, 3);
    let arm64 = common::image::from_tars(vec![common::image::tar("arm", b"arm")], "arm64");
    let dir = world.path("source");
    write_layout(&dir, &[("amd64", &amd64), ("arm64", &arm64)]);
    let list = index(&[(&amd64, "amd64"), (&arm64, "arm64")]);
    let descriptor = gantry_oci::Descriptor::of(gantry_oci::MediaType::OciIndex, &list);
    std::fs::write(
        dir.join("blobs/sha256").join(descriptor.digest.hex()),
        &list,
    )
    .unwrap();
    std::fs::write(
        dir.join("index.json"),
        serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string(),
    )
    .unwrap();
    let source = format!("oci:{}", dir.display());
    let all = CopyOptions {
        multi_arch: MultiArch::All,
        ..copy_options()
    };
    let pushed = transfer(&source, &world.docker("multi:v1"), &all).unwrap();
    assert_eq!(*pushed.digest.digest(), descriptor.digest);
    assert_eq!(pushed.images.len(), 2);
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--src-tls-verify=false",
        &world.docker("multi:v1"),
        &world.oci("all:v1"),
    ]);
    let back = transfer(&world.oci("all:v1"), &world.docker("multi:v2"), &all).unwrap();
    assert_eq!(*back.digest.digest(), descriptor.digest);
    // One platform.
    let arm = CopyOptions {
        platform: Platform::parse("linux/arm64/v8").unwrap(),
        ..copy_options()
    };
    let one = transfer(&world.docker("multi:v1"), &world.oci("one"), &arm).unwrap();
    assert_eq!(*one.digest.digest(), arm64.digest());
    let none = CopyOptions {
        platform: Platform::new("linux", "s390x"),
        ..copy_options()
    };
    let error = transfer(&world.docker("multi:v1"), &world.oci("none"), &none).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    // skopeo inspects the index under its own digest; so do we.
    let inspected = ours(&world, "multi:v1", false);
    assert_eq!(
        inspected,
        skopeo(&["inspect", "--tls-verify=false", &world.docker("multi:v1")])
    );
}

/// Our text, without what the skopeo of this machine does not know yet
/// (`LayersData` came with 1.10).
fn as_this_skopeo(mut inspection: inspect::Inspection) -> String {
    let version = skopeo(&["--version"]);
    let minor = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse::<u32>().ok())
        .unwrap();
    if version.starts_with("skopeo version 1.") && minor < 10 {
        inspection.layers_data.clear();
    }
    inspection.to_json().unwrap()
}

/// Our `inspect` of an image of the registry.
fn ours(world: &World, name: &str, no_tags: bool) -> String {
    block_on(async {
        let source =
            RegistrySource::new(world.reference(name), &quick(), &RegistriesConf::default())
                .unwrap();
        let options = InspectOptions::new(Platform::new("linux", "amd64"));
        as_this_skopeo(
            inspect::inspect_registry(&source, no_tags, &options)
                .await
                .unwrap(),
        )
    })
}

#[test]
fn inspect_equals_skopeo_byte_for_byte() {
    needs_peers!();
    let world = World::new();
    let oci = image(2, 10_000, 4);
    let bare = common::image::with_config(
        serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [gantry_oci::Descriptor::of(gantry_oci::MediaType::OciLayer, &oci.tars[0]).digest]}
        })
        .to_string()
        .into_bytes(),
        oci.layers[..1].to_vec(),
        oci.tars[..1].to_vec(),
    );
    let docker = oci.docker();
    let dir = world.path("source");
    write_layout(&dir, &[("oci", &oci), ("bare", &bare), ("docker", &docker)]);
    for (name, image) in [("oci", &oci), ("bare", &bare), ("docker", &docker)] {
        let from = format!("oci:{}:{name}", dir.display());
        let to = world.docker(&format!("{name}:v1"));
        transfer(&from, &to, &copy_options()).unwrap();
        transfer(&from, &world.docker(&format!("{name}:v2")), &copy_options()).unwrap();
        for (arguments, no_tags) in [(&[][..], false), (&["--no-tags"], true)] {
            let theirs = skopeo(&[&["inspect", "--tls-verify=false"], arguments, &[&to]].concat());
            assert_eq!(
                ours(&world, &format!("{name}:v1"), no_tags),
                theirs,
                "{name}"
            );
        }
        let source = RegistrySource::new(
            world.reference(&format!("{name}:v1")),
            &quick(),
            &RegistriesConf::default(),
        )
        .unwrap();
        let options = InspectOptions::new(Platform::new("linux", "amd64"));
        let raw = block_on(inspect::raw(&source, &options)).unwrap();
        assert_eq!(raw.bytes(), &image.manifest);
        assert_eq!(
            String::from_utf8_lossy(raw.bytes()),
            skopeo(&["inspect", "--tls-verify=false", "--raw", &to]),
        );
        let config = block_on(inspect::config(&source, &options)).unwrap();
        assert_eq!(
            config,
            skopeo(&["inspect", "--tls-verify=false", "--config", &to]),
            "{name}"
        );
        let config = block_on(inspect::raw_config(&source, &options)).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&config),
            skopeo(&["inspect", "--tls-verify=false", "--config", "--raw", &to])
        );
    }
    // A layout has neither name nor tags.
    let source = LayoutSource::new(
        dir.clone(),
        Selection::Named("oci".into()),
        &LayoutOptions::default(),
    );
    let options = InspectOptions::new(Platform::new("linux", "amd64"));
    let inspected = block_on(inspect::inspect(
        &source,
        String::new(),
        Vec::new(),
        &options,
    ))
    .unwrap();
    assert_eq!(
        as_this_skopeo(inspected),
        skopeo(&["inspect", &format!("oci:{}:oci", dir.display())])
    );
}

#[test]
fn conversions_are_read_by_skopeo() {
    needs_peers!();
    let world = World::new();
    let image = image(2, 200_000, 5);
    let source = layout(&world.path("source"), &[("v1", &image)]);
    let docker = CopyOptions {
        wishes: Wishes {
            format: Some(ManifestFormat::Docker),
            ..Wishes::default()
        },
        ..copy_options()
    };
    let pushed = transfer(&source, &world.docker("docker:v1"), &docker).unwrap();
    assert!(
        skopeo(&[
            "inspect",
            "--tls-verify=false",
            "--raw",
            &world.docker("docker:v1")
        ])
        .contains("docker.distribution.manifest.v2")
    );
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &world.docker("docker:v1"),
        &world.oci("from-docker:v1"),
    ]);
    // A layout keeps OCI only.
    let converted = transfer(
        &world.docker("docker:v1"),
        &world.oci("converted:v1"),
        &copy_options(),
    )
    .unwrap();
    assert_ne!(converted.digest, pushed.digest);
    let preserve = CopyOptions {
        preserve_digests: true,
        ..copy_options()
    };
    let error = transfer(
        &world.docker("docker:v1"),
        &world.oci("preserved:v1"),
        &preserve,
    )
    .unwrap_err();
    assert!(
        matches!(error, CopyError::DigestWouldChange { .. }),
        "{error}"
    );
    // Written anew with zstd; skopeo checks every digest on the way out.
    let zstd = Wishes {
        compression: Some(LayerCompression::Zstd),
        force_compression: true,
        ..Wishes::default()
    };
    let zstd = CopyOptions {
        wishes: zstd,
        ..copy_options()
    };
    transfer(&source, &world.docker("zstd:v1"), &zstd).unwrap();
    let raw = skopeo(&[
        "inspect",
        "--tls-verify=false",
        "--raw",
        &world.docker("zstd:v1"),
    ]);
    assert!(raw.contains("tar+zstd"), "{raw}");
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &world.docker("zstd:v1"),
        &world.oci("from-zstd:v1"),
    ]);
    // And back to gzip, to plain tar.
    let gzip = Wishes {
        compression: Some(LayerCompression::Gzip),
        force_compression: true,
        ..Wishes::default()
    };
    transfer(
        &world.docker("zstd:v1"),
        &world.oci("gzip:v1"),
        &CopyOptions {
            wishes: gzip,
            ..copy_options()
        },
    )
    .unwrap();
    let plain = Wishes {
        compression: Some(LayerCompression::None),
        force_compression: true,
        ..Wishes::default()
    };
    transfer(
        &world.docker("zstd:v1"),
        &world.oci("plain:v1"),
        &CopyOptions {
            wishes: plain,
            ..copy_options()
        },
    )
    .unwrap();
    let tar = gantry_oci::Descriptor::of(gantry_oci::MediaType::OciLayer, &image.tars[0]);
    let path = world
        .path("plain")
        .join("blobs/sha256")
        .join(tar.digest.hex());
    assert_eq!(std::fs::read(path).unwrap(), image.tars[0]);
}

#[test]
fn tags_and_deletion() {
    needs_peers!();
    let world = World::new();
    let image = image(1, 1000, 6);
    let source = layout(&world.path("source"), &[("v1", &image)]);
    for tag in ["a", "b", "c"] {
        transfer(
            &source,
            &world.docker(&format!("app:{tag}")),
            &copy_options(),
        )
        .unwrap();
    }
    let reference = world.reference("app:a");
    let repository = Registry::new(reference.host, quick()).repository(reference.repository);
    let mut tags = block_on(repository.tags()).unwrap();
    tags.sort();
    assert_eq!(tags, ["a", "b", "c"]);
    let digest = gantry_oci::ManifestDigest::from_digest(image.digest());
    block_on(repository.delete_manifest(&digest)).unwrap();
    let error = transfer(&world.docker("app:b"), &world.oci("gone"), &copy_options()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let reference = world.reference("none");
    let repository = Registry::new(reference.host, quick()).repository(reference.repository);
    assert_eq!(
        block_on(repository.tags()).unwrap_err().kind(),
        Kind::NotFound
    );
}

#[test]
fn push_of_a_corrupt_layout_publishes_nothing() {
    needs_peers!();
    let world = World::new();
    let image = image(2, 50_000, 8);
    let dir = world.path("source");
    let source = layout(&dir, &[("v1", &image)]);
    let path = dir.join("blobs/sha256").join(image.layer(1).digest.hex());
    let mut blob = image.layers[1].clone();
    blob[20_000] ^= 1;
    std::fs::write(&path, blob).unwrap();
    let error = transfer(&source, &world.docker("bad:v1"), &copy_options()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{}", common::sentence(&error));
    let reference = world.reference("bad");
    let repository = Registry::new(reference.host, quick()).repository(reference.repository);
    let answer = block_on(repository.has_blob(&image.layer(1))).unwrap();
    assert!(!answer, "the corrupt blob was committed");
    assert!(block_on(repository.tags()).map_or(true, |tags| tags.is_empty()));
}

#[test]
fn empty_and_repeated_layers_are_copied() {
    needs_peers!();
    let world = World::new();
    let tar = common::image::tar("f", b"x");
    let image = common::image::from_tars(vec![tar.clone(), tar], "amd64");
    let source = layout(&world.path("source"), &[("v1", &image)]);
    let pushed = transfer(&source, &world.docker("twice:v1"), &copy_options()).unwrap();
    assert_eq!(
        (pushed.images[0].layers, pushed.images[0].layers_moved),
        (2, 1)
    );
    let none = common::image::from_tars(vec![], "amd64");
    let source = layout(&world.path("none"), &[("v1", &none)]);
    transfer(&source, &world.docker("none:v1"), &copy_options()).unwrap();
    transfer(
        &world.docker("none:v1"),
        &world.oci("none-back"),
        &copy_options(),
    )
    .unwrap();
}
