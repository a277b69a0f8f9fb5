// SPDX-License-Identifier: Apache-2.0
//! pull, push, copy and inspect, against docker-registry, skopeo, umoci and our own registry.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::process::Command;

use common::{OurRegistry, World, kinds, skopeo, skopeo_push};
use gantry_testkit::skip;
use gantry_testkit::skip::is_root;
use gantry_testkit::tree::{self, Ignore};
use gantry_testkit::{image, tar, tool};
use serde_json::{Value, json};

const PEERS: [&str; 2] = ["skopeo", "docker-registry"];

fn image_id(docker: &str) -> String {
    let manifest = skopeo(&["inspect", "--tls-verify=false", "--raw", docker]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let digest = manifest["config"]["digest"].as_str().unwrap();
    digest.strip_prefix("sha256:").unwrap().to_owned()
}

fn digest(docker: &str) -> String {
    let format = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    skopeo(&[&format[..], &[docker]].concat())
}

#[test]
fn images_are_pulled_whatever_their_compression() {
    needs!(["tiny", "app-v1"], PEERS);
    let world = World::new();
    let plain = format!("dir:{}", world.dir.join("plain").display());
    let layout = gantry_testkit::fixtures::reference("app-v1").unwrap();
    skopeo(&["copy", "-q", "--dest-decompress", &layout, &plain]);
    let mut ids = Vec::new();
    for compression in ["gzip", "zstd"] {
        // One registry each: skopeo would take over a blob of the same contents.
        let registry = world.registry(compression);
        let name = format!("{}/team/app:{compression}", registry.address());
        let docker = format!("docker://{name}");
        let wanted = ["--dest-compress-format", compression];
        let push = ["copy", "-q", "--dest-tls-verify=false", &plain, &docker];
        skopeo(&[&push[..], &wanted].concat());
        let id = world.gantry(["pull", &name]);
        assert_eq!(id, image_id(&docker));
        let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &docker]);
        assert!(raw.contains(&format!("tar+{compression}")), "{raw}");
        // By digest it is the same image, and nothing moves.
        let by_digest = format!("{}/team/app@{}", registry.address(), digest(&docker));
        let events = world.events(["pull", &by_digest]);
        assert_eq!(kinds(&events), ["resolved", "layer-held", "committed"]);
        assert_eq!(world.gantry(["pull", &docker]), id);
        ids.push(id);
        world.assert_clean();
    }
    // The same contents, whatever was around them.
    assert_eq!(ids[0], ids[1]);
    let images = world.json(["images", "--json"]);
    assert_eq!(images.as_array().unwrap().len(), 2);
    let usage = world.json(["store", "du", "--json"]);
    assert_eq!(usage["images"][0]["exclusive_bytes"], 0);
}

#[test]
fn what_is_pushed_back_moves_nothing_and_elsewhere_keeps_its_contents() {
    needs!(["app-v1"], PEERS);
    let world = World::new();
    let (here, there) = (world.registry("here"), world.registry("there"));
    let name = format!("{}/team/app:v1", here.address());
    let from = format!("docker://{name}");
    skopeo_push("app-v1", &from, &[]);
    world.gantry(["pull", &name]);
    let before = digest(&from);
    let events = world.events(["push", &name]);
    assert_eq!(kinds(&events), ["resolved", "layer-held", "committed"]);
    assert_eq!(digest(&from), before);
    for (tag, options) in [
        ("gzip", &[][..]),
        ("zstd", &["--compression-format", "zstd"]),
        ("docker", &["--format", "v2s2"]),
    ] {
        let to = format!("docker://{}/copy/app:{tag}", there.address());
        world.gantry([&["push", "app:v1", &to], options].concat());
        // The configuration with all its diffIDs is the same; every blob is what its digest says.
        let config =
            |docker: &str| skopeo(&["inspect", "--tls-verify=false", "--config", "--raw", docker]);
        assert_eq!(config(&to), config(&from), "{tag}");
        let out = format!("oci:{}:x", world.dir.join(tag).display());
        skopeo(&["copy", "-q", "--src-tls-verify=false", &to, &out]);
        // And what we read back from there is what we have.
        let events = world.events(["pull", &to]);
        assert!(!kinds(&events).contains(&"layer-started"), "{events:?}");
    }
    let (status, error) = world.fails(["push", &image_id(&from)]);
    assert_eq!(status, 2, "{error}");
    common::assert_one_sentence(&error);
}

#[test]
fn privileged_what_the_store_gives_back_unpacks_as_it_was() {
    needs!(["corner"], ["umoci"]);
    if !is_root() {
        skip!("owners and devices need root");
    }
    let world = World::new();
    let layout = gantry_testkit::fixtures::reference("corner").unwrap();
    world.gantry(["pull", "--faces", "both", &layout]);
    let out = world.dir.join("out");
    world.gantry(["copy", "store:corner", &format!("oci:{}:x", out.display())]);
    // umoci compares each diffID.
    let bundle = world.dir.join("bundle");
    let image = format!("{}:x", out.display());
    let mut umoci = Command::new("umoci");
    tool::run(umoci.args(["unpack", "--image", &image]).arg(&bundle)).unwrap();
    let links = world.root().join("remotes/localhost/corner/latest/rootfs/");
    let ignore = Ignore {
        root: true,
        our_hard_links: true,
        ..Ignore::default()
    };
    tree::assert_same(&links, &bundle.join("rootfs"), &ignore);
    world.assert_clean();
}

/// What this skopeo does not know yet (`LayersData` came with 1.10).
fn without_news(mut ours: Value, theirs: &Value) -> Value {
    if theirs.get("LayersData").is_none() {
        ours.as_object_mut().unwrap().remove("LayersData");
    }
    ours
}

#[test]
fn inspect_prints_what_skopeo_prints() {
    needs!(["tiny", "app-v1"], PEERS);
    let world = World::new();
    let registry = world.registry("registry");
    for fixture in ["tiny", "app-v1"] {
        for (tag, options) in [("oci", &[][..]), ("docker", &["--format", "v2s2"])] {
            let docker = format!("docker://{}/{fixture}:{tag}", registry.address());
            skopeo_push(fixture, &docker, options);
            let theirs = skopeo(&["inspect", "--tls-verify=false", &docker]);
            let theirs: Value = serde_json::from_str(&theirs).unwrap();
            let ours = without_news(world.json(["inspect", &docker]), &theirs);
            assert_eq!(ours, theirs);
            for options in [&["--raw"][..], &["--config"], &["--config", "--raw"]] {
                let arguments = [&["inspect", "--tls-verify=false"], options, &[&docker]].concat();
                let ours = world.gantry([&["inspect"], options, &[&docker]].concat());
                assert_eq!(ours, skopeo(&arguments), "{options:?}");
            }
            // The store says the same of what it got, but for the registry's name and tags.
            world.gantry(["pull", &docker]);
            let stored = world.json(["inspect", &format!("store:{fixture}:{tag}")]);
            for member in ["Digest", "Created", "Labels", "Layers", "Env"] {
                assert_eq!(stored[member], theirs[member], "{member}");
            }
        }
    }
}

#[test]
fn our_registry_serves_pulls_and_a_shared_tree() {
    needs!(["tiny"], ["skopeo"]);
    let world = World::new();
    let registry = OurRegistry::start(&world);
    let name = format!("{}/demo/tiny:v1", registry.address);
    skopeo_push("tiny", &format!("docker://{name}"), &[]);
    let share = registry.root.display().to_string();
    // On the share before anything is pulled; and with no store at all.
    let shared = world.json(["images", "--json", "--share", &share]);
    assert_eq!(shared[0]["Names"], serde_json::json!(["demo/tiny:v1"]));
    assert_eq!(shared[0]["ReadOnly"], true);
    assert!(!world.root().exists());
    let id = world.gantry(["pull", &name]);
    assert_eq!(shared[0]["Id"], id.as_str());
    let again = format!("{}/demo/again:v2", registry.address);
    world.gantry(["push", &name, &again]);
    // Within one registry blobs are mounted, and the digest stays.
    let docker = |name: &str| format!("docker://{name}");
    assert_eq!(digest(&docker(&again)), digest(&docker(&name)));
    let both = world.json(["images", "--json", "--share", &share]);
    assert_eq!(both.as_array().unwrap().len(), 2, "{both}");
}

#[test]
fn privileged_podman_pulls_what_we_push_and_lists_it_as_we_do() {
    needs!(["tiny"], ["skopeo", "docker-registry", "podman"]);
    if !is_root() {
        skip!("podman as another user needs a user's session");
    }
    let world = World::new();
    let registry = world.registry("registry");
    let name = format!("{}/team/tiny:v1", registry.address());
    let layout = gantry_testkit::fixtures::reference("tiny").unwrap();
    world.gantry(["pull", &layout]);
    world.gantry(["push", "tiny", &name]);
    let id = world.gantry(["pull", &name]);
    // podman takes no longer one than 50 bytes.
    let runroot = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(world.dir.join("podman"));
        command.arg("--runroot").arg(runroot.path());
        command.args(["--storage-driver", "vfs"]).args(arguments);
        let output = tool::run(&mut command).unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(podman(&["pull", "-q", "--tls-verify=false", &name]), id);
    let theirs: Value = serde_json::from_str(&podman(&["images", "--format", "json"])).unwrap();
    let ours = world.json(["images", "--json", &name]);
    for member in [
        "Id",
        "RepoDigests",
        "Names",
        "Digest",
        "Created",
        "CreatedAt",
        "Labels",
    ] {
        assert_eq!(ours[0][member], theirs[0][member], "{member}");
    }
    let theirs = podman(&["history", "--format", "json", &id]);
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let ours = world.json(["history", "--json", &name]);
    for member in ["created", "CreatedBy"] {
        assert_eq!(ours[0][member], theirs[0][member], "{member}");
    }
}

#[test]
fn an_index_is_pulled_for_this_machine_and_copied_whole() {
    needs!([""; 0], PEERS);
    let world = World::new();
    let host = gantry_oci::Platform::host();
    let layer = |text: &str| {
        let file = tar::file("which", text);
        image::Layer::gzip(&tar::join(&[file]))
    };
    let (ours, other) = ([layer("ours")], [layer("other")]);
    let foreign = image::config(&other);
    let foreign = String::from_utf8(foreign).unwrap();
    let foreign = foreign.replace(&host.architecture, "s390x");
    let ours = image::Image::new(&ours);
    let other = image::Image::with_config(&other, foreign.as_bytes());
    let entry = |image: &image::Image, architecture: &str| {
        let mut entry = image::descriptor(&image.media_type, &image.manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let manifests = [entry(&other, "s390x"), entry(&ours, &host.architecture)];
    let index = json!({"schemaVersion": 2, "mediaType": image::INDEX, "manifests": manifests});
    let index = index.to_string().into_bytes();
    let layout = world.dir.join("layout");
    let blobs = ours.blobs.iter().chain(&other.blobs);
    let manifests = [&ours.manifest, &other.manifest, &index];
    let top = image::descriptor(image::INDEX, &index);
    image::write_layout(&layout, &top, blobs.chain(manifests)).unwrap();
    let layout = format!("oci:{}", layout.display());
    let registry = world.registry("registry");
    let name = format!("{}/multi", registry.address());
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--dest-tls-verify=false",
        &layout,
        &format!("docker://{name}:v1"),
    ]);

    // One image comes, and both digests lead to it.
    world.gantry(["pull", &format!("{name}:v1")]);
    let images = world.json(["images", "--json"]);
    assert_eq!(images.as_array().unwrap().len(), 1, "{images}");
    assert_eq!(images[0]["Digest"], ours.digest());
    let by = |digest: &str| format!("{name}@{digest}");
    let digests = images[0]["RepoDigests"].as_array().unwrap();
    for digest in [ours.digest(), image::digest(&index)] {
        assert!(digests.contains(&json!(by(&digest))), "{images}");
    }
    world.gantry(["pull", &by(&image::digest(&index))]);
    world.gantry(["pull", "--platform", "linux/s390x", &by(&other.digest())]);
    world.assert_clean();
    world.gantry(["rmi", "--force", &ours.digest(), &other.digest()]);
    assert_eq!(world.json(["images", "--json"]), json!([]));
    world.gantry(["store", "gc"]);
    assert_eq!(world.json(["store", "du", "--json"])["objects"], 0);

    // All of it, and back.
    world.gantry([
        "copy",
        "--all",
        &format!("docker://{name}:v1"),
        "store:all:v1",
    ]);
    let images = world.json(["images", "--json"]);
    assert_eq!(images[0]["Names"], json!(["localhost/all:v1"]), "{images}");
    let elsewhere = world.registry("elsewhere");
    let there = format!("docker://{}/all:v1", elsewhere.address());
    world.gantry(["push", "--all", "all:v1", &there]);
    let out = format!("oci:{}:x", world.dir.join("out").display());
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--src-tls-verify=false",
        &there,
        &out,
    ]);
    world.gantry(["rmi", "all:v1"]);
    assert_eq!(world.json(["images", "--json"]), json!([]));
    world.assert_clean();
}

#[test]
fn two_pulls_at_once_both_succeed() {
    needs!(["tiny", "base"], [""; 0]);
    let world = World::new();
    let layout = gantry_testkit::fixtures::reference("base").unwrap();
    let start = || {
        let mut command = world.command(["pull", &layout]);
        command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let pulls: Vec<_> = (0..4).map(|_| start()).collect();
    let ids = pulls.into_iter().map(|pull| {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    });
    let ids: std::collections::BTreeSet<_> = ids.collect();
    assert_eq!(ids.len(), 1);
    world.assert_clean();
    let usage = world.json(["store", "du", "--json"]);
    assert_eq!(usage["garbage_bytes"], 0);
}

#[test]
fn dry_runs_change_nothing() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    let layout = gantry_testkit::fixtures::reference("tiny").unwrap();
    let plan = world.gantry(["pull", "--dry-run", &layout]);
    assert!(plan.contains("layer sha256:"), "{plan}");
    let out = world.dir.join("out");
    world.gantry([
        "copy",
        "--dry-run",
        &layout,
        &format!("oci:{}:x", out.display()),
    ]);
    world.gantry(["copy", "--dry-run", &layout, "store:x"]);
    assert!(!world.root().exists() && !out.exists());
    world.gantry(["pull", &layout]);
    let plan = world.gantry(["push", "--dry-run", "tiny", "127.0.0.1:1/x:v1"]);
    assert!(plan.contains("written anew"), "{plan}");
}

#[test]
fn names_are_found_as_podman_finds_them() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    let layout = gantry_testkit::fixtures::reference("tiny").unwrap();
    let id = world.gantry(["pull", &layout]);
    world.gantry(["copy", &layout, "store:h.example:5000/team/app:v1"]);
    let digest = |name: &str| {
        let inspected = world.json(["inspect", &format!("store:{name}")]);
        inspected["Digest"].as_str().unwrap().to_owned()
    };
    let wanted = digest("localhost/tiny:latest");
    for name in [
        "tiny",
        "tiny:latest",
        "h.example:5000/team/app:v1",
        "team/app:v1",
        "app:v1",
    ] {
        assert_eq!(digest(name), wanted, "{name}");
    }
    assert_eq!(digest(&id), wanted);
    assert_eq!(digest(&id[..8]), wanted);
    assert_eq!(digest(&wanted), wanted);
    for name in ["store:app", "store:pp:v1", "store:none"] {
        assert_eq!(world.fails(["inspect", name]).0, 3, "{name}");
    }
    // A short name is no place to pull from.
    assert_eq!(world.fails(["pull", "debian"]).0, 2);
    // registries.conf says where to look.
    let conf = world.dir.join("registries.conf");
    std::fs::write(&conf, "unqualified-search-registries = [\"127.0.0.1:1\"]").unwrap();
    let mut pull = world.command(["pull", "--retry", "0", "debian"]);
    let (status, error) = common::fail(pull.env("CONTAINERS_REGISTRIES_CONF", &conf));
    assert_eq!(status, 7);
    assert!(error.contains("127.0.0.1:1/debian"), "{error}");
}
