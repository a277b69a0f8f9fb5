// SPDX-License-Identifier: Apache-2.0
//! Unmodified clients of other people, and what becomes of what they push: the trees beside those of umoci.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::process::Command;

use common::*;
use gantry_store::{FaceChoice, ImageName};
use gantry_testkit::image::{Image, Layer};
use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::skip::is_root;
use gantry_testkit::tree::{self, Ignore};
use gantry_testkit::{fixtures, skip as skip_test, tar, tool};
use serde_json::Value;

macro_rules! needs {
    ($($program:literal),+) => {
        let missing = tool::missing(&[$($program),+]);
        if !missing.is_empty() {
            skip_test!("{} not installed", missing.join(", "));
        }
    };
}

fn skopeo(arguments: &[&str]) -> Result<String, String> {
    tool::text("skopeo", [&["--insecure-policy"], arguments].concat())
        .map_err(|error| format!("{error:#}"))
}

struct World {
    dir: Scratch,
    server: Server,
}

impl World {
    fn new() -> Self {
        let dir = scratch();
        let server = Server::start(&dir.join("store"));
        Self { dir, server }
    }

    fn docker(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.server.address)
    }

    fn oci(&self, name: &str) -> String {
        format!("oci:{}", self.dir.join(name).display())
    }

    fn manifest(&self, repository: &str, tag: &str) -> (String, Value) {
        let answer = self
            .server
            .get(&format!("/v2/{repository}/manifests/{tag}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let media_type = answer.header("content-type").unwrap().to_owned();
        (media_type, answer.json())
    }

    fn is_exploded(&self, name: &str) -> bool {
        let link = self.server.store.path().join("images").join(name);
        link.join("manifest.json").is_file()
    }
}

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn skopeo_copies_in_every_format_and_compression() {
    needs!("skopeo");
    let world = World::new();
    // Plain, so that the client compresses as it is told; others each time, because it remembers what it has pushed.
    let image = |tag: &str| {
        let layer = |text: String| Layer::plain(tar::join(&[tar::file("a", text)]));
        let image = Image::new(&[layer(format!("below {tag}")), layer(format!("above {tag}"))]);
        image.write_layout(&world.dir.join(tag), "v1").unwrap();
        image
    };
    for (tag, options, media_type, layer_type) in [
        ("oci", &["--format", "oci"][..], OCI, "tar+gzip"),
        ("docker", &["--format", "v2s2"], DOCKER, "tar.gzip"),
        (
            "gzip",
            &[
                "--dest-compress-format",
                "gzip",
                "--dest-compress-level",
                "9",
            ],
            OCI,
            "tar+gzip",
        ),
        ("zstd", &["--dest-compress-format", "zstd"], OCI, "tar+zstd"),
        (
            "chunked",
            &["--dest-compress-format", "zstd:chunked"],
            OCI,
            "tar+zstd",
        ),
    ] {
        image(tag);
        let source = world.oci(&format!("{tag}:v1"));
        let to = world.docker(&format!("team/app:{tag}"));
        let arguments = [
            &["copy", "-q", "--dest-tls-verify=false"],
            options,
            &[&source, &to],
        ]
        .concat();
        skopeo(&arguments).unwrap();
        let (found, manifest) = world.manifest("team/app", tag);
        assert_eq!(found, media_type, "{tag}");
        let layer = manifest["layers"][1]["mediaType"].as_str().unwrap();
        assert!(layer.ends_with(layer_type), "{tag}: {layer}");
        assert!(world.is_exploded(&format!("team/app/{tag}")), "{tag}");
        // And back, by the same client, which verifies everything.
        let back = world.oci(&format!("back:{tag}"));
        skopeo(&["copy", "-q", "--src-tls-verify=false", &to, &back]).unwrap();
    }
    // Not compressed at all.
    let image = image("plain");
    let to = world.docker("team/app:plain");
    skopeo(&[
        "copy",
        "-q",
        "--dest-tls-verify=false",
        "--preserve-digests",
        &world.oci("plain:v1"),
        &to,
    ])
    .unwrap();
    assert_eq!(
        world.manifest("team/app", "plain").1,
        serde_json::from_slice::<Value>(&image.manifest).unwrap()
    );
    assert_sound(&world.server.store);
}

#[test]
fn skopeo_inspects_lists_and_deletes() {
    needs!("skopeo");
    let world = World::new();
    let image = small_image("skopeo");
    assert_eq!(world.server.push("team/app", "v1", &image).status, 201);
    assert_eq!(world.server.push("team/app", "v2", &image).status, 201);
    let name = world.docker("team/app:v1");
    let text = skopeo(&["inspect", "--tls-verify=false", &name]).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["Digest"], image.digest());
    assert_eq!(value["RepoTags"], serde_json::json!(["v1", "v2"]));
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &name]).unwrap();
    assert_eq!(raw.as_bytes(), image.manifest);
    let tags = skopeo(&["list-tags", "--tls-verify=false", &world.docker("team/app")]).unwrap();
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags["Tags"], serde_json::json!(["v1", "v2"]));
    // skopeo deletes the manifest that a tag names, and so all its tags.
    skopeo(&["delete", "--tls-verify=false", &name]).unwrap();
    let error = skopeo(&["inspect", "--tls-verify=false", &name]).unwrap_err();
    assert!(
        error.contains("manifest unknown") || error.contains("has no tag v1"),
        "{error}"
    );
    assert!(!world.is_exploded("team/app/v1"));
}

#[test]
fn skopeo_reports_what_is_refused() {
    needs!("skopeo");
    let world = World::new();
    let tar = tar::join(&[tar::file("../escape", "x")]);
    let before = visible(world.server.store.path());
    Image::new(&[Layer::gzip(&tar)])
        .write_layout(&world.dir.join("layout"), "v1")
        .unwrap();
    let to = world.docker("team/app:v1");
    let error = skopeo(&[
        "copy",
        "-q",
        "--dest-tls-verify=false",
        &world.oci("layout:v1"),
        &to,
    ])
    .unwrap_err();
    assert!(error.contains("../escape"), "{error}");
    assert_eq!(visible(world.server.store.path()), before);
}

#[test]
fn skopeo_copies_an_index_and_mounts_across_repositories() {
    needs!("skopeo");
    let world = World::new();
    let other = {
        let image = small_image("other");
        let mut entry = image.entry();
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
        (image, entry)
    };
    let image = small_image("this");
    let entries = [other.1, image.entry()];
    let index = Image::index(&[other.0, image], &entries);
    index.write_layout(&world.dir.join("layout"), "v1").unwrap();
    let to = world.docker("team/app:v1");
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--dest-tls-verify=false",
        &world.oci("layout:v1"),
        &to,
    ])
    .unwrap();
    assert_eq!(
        world.manifest("team/app", "v1").1["manifests"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(world.is_exploded("team/app/v1"));
    let second = world.docker("team/copy:v1");
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &to,
        &second,
    ])
    .unwrap();
    assert!(world.is_exploded("team/copy/v1"));
    assert_sound(&world.server.store);
}

/// A command of podman's or buildah's with storage of its own.
fn contained(program: &str, dir: &Path, run: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(tool::find(program).unwrap());
    command
        .arg("--root")
        .arg(dir.join("containers"))
        .arg("--runroot")
        .arg(run)
        .args(["--storage-driver", "vfs"])
        .args(arguments);
    let output = tool::run(&mut command).unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn privileged_podman_pushes_and_pulls() {
    needs!("podman");
    if !is_root() {
        skip_test!("podman as another user needs a user's session");
    }
    let world = World::new();
    let image = small_image("podman");
    assert_eq!(world.server.push("team/first", "v1", &image).status, 201);
    // podman takes no longer run root than 50 bytes.
    let run = tempfile::TempDir::new_in("/tmp").unwrap();
    let podman = |arguments: &[&str]| contained("podman", world.dir.path(), run.path(), arguments);
    let first = format!("{}/team/first:v1", world.server.address);
    let id = podman(&["pull", "-q", "--tls-verify=false", &first]);
    let name = format!("{}/team/podman", world.server.address);
    for format in ["oci", "docker"] {
        let to = format!("{name}:{format}");
        podman(&[
            "push",
            "-q",
            "--tls-verify=false",
            "--format",
            format,
            &id,
            &to,
        ]);
        let text = world
            .server
            .store
            .path()
            .join(format!("images/team/podman/{format}/rootfs/etc/text"));
        assert_eq!(std::fs::read_to_string(text).unwrap(), "podman");
    }
    podman(&["rmi", "-f", &id]);
    assert_eq!(
        podman(&["pull", "-q", "--tls-verify=false", &format!("{name}:oci")]),
        id
    );
    assert_sound(&world.server.store);
}

#[test]
fn privileged_buildah_pushes_what_it_built() {
    needs!("buildah");
    if !is_root() {
        skip_test!("buildah as another user needs a user namespace");
    }
    let world = World::new();
    let file = world.dir.join("file");
    std::fs::write(&file, "built").unwrap();
    // podman takes no longer run root than 50 bytes.
    let run = tempfile::TempDir::new_in("/tmp").unwrap();
    let buildah =
        |arguments: &[&str]| contained("buildah", world.dir.path(), run.path(), arguments);
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", "-q", &container, file.to_str().unwrap(), "/built"]);
    buildah(&["config", "--cmd", "/built", &container]);
    buildah(&["commit", "-q", &container, "localhost/built:v1"]);
    buildah(&[
        "push",
        "-q",
        "--tls-verify=false",
        "localhost/built:v1",
        &world.docker("team/built:v1"),
    ]);
    let text = world
        .server
        .store
        .path()
        .join("images/team/built/v1/rootfs/built");
    assert_eq!(std::fs::read_to_string(text).unwrap(), "built");
    assert_sound(&world.server.store);
}

#[test]
fn privileged_pushed_fixtures_are_what_umoci_unpacks() {
    needs!("skopeo", "umoci");
    if !is_root() {
        skip_test!("owners and devices need root");
    }
    // More by GANTRY_REGISTRY_TEST_FIXTURES="base jre …"; the store's tests look at some others.
    let wanted = std::env::var("GANTRY_REGISTRY_TEST_FIXTURES")
        .unwrap_or_else(|_| "tiny corner app-v2".to_owned());
    let world = World::new();
    for fixture in wanted.split_whitespace() {
        let layout = match fixtures::reference(fixture) {
            Ok(layout) => layout,
            Err(error) => skip_test!("{error}"),
        };
        let to = world.docker(&format!("fixtures/{fixture}:latest"));
        skopeo(&["copy", "-q", "--dest-tls-verify=false", &layout, &to]).unwrap();
        let bundle = world.dir.join(format!("bundle-{fixture}"));
        let mut umoci = Command::new("umoci");
        let from = layout.trim_start_matches("oci:");
        tool::run(umoci.args(["unpack", "--image", from]).arg(&bundle)).unwrap();
        let theirs = tree::snapshot(&bundle.join("rootfs")).unwrap();

        let store = &world.server.store;
        let tag = store
            .path()
            .join(format!("images/fixtures/{fixture}/latest"));
        let digest = std::fs::read_link(&tag).unwrap();
        assert!(
            digest
                .to_string_lossy()
                .starts_with("../../../digests/sha256:"),
            "{digest:?}"
        );
        let ours = tree::snapshot(&tag.join("rootfs/")).unwrap();
        // Equal files may share an inode in the hard-link face.
        let shared = Ignore {
            root: true,
            our_hard_links: true,
            ..Ignore::default()
        };
        tree::assert_same_snapshots(fixture, &ours, &theirs, &shared);

        let features = gantry_sys::probe::KernelFeatures::probe();
        if !features.can_mount_composefs() {
            skip_test!("no EROFS, or overlay without data-only layers: {features:?}");
        }
        let name = ImageName::own(&format!("fixtures/{fixture}:latest").parse().unwrap());
        let record = store.resolve(&name).unwrap().unwrap();
        let target = world.dir.join(format!("mounted-{fixture}"));
        std::fs::create_dir(&target).unwrap();
        let store = store.clone();
        let mounted = std::thread::spawn(move || {
            gantry_sys::mount::enter_private_namespace().unwrap();
            let mount = store.mount(&record, FaceChoice::Composefs, None).unwrap();
            gantry_sys::mount::attach(&mount, &target).unwrap();
            tree::snapshot(&target).unwrap()
        });
        let exact = Ignore {
            root: true,
            ..Ignore::default()
        };
        tree::assert_same_snapshots(fixture, &mounted.join().unwrap(), &theirs, &exact);
    }
    assert_sound(&world.server.store);
}
