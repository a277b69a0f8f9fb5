// SPDX-License-Identifier: Apache-2.0
//! images, tag, rmi, history, store check, store du, store gc, info.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{World, skopeo_push};
use gantry_testkit::fixtures;
use serde_json::json;

#[test]
fn images_have_podmans_members() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    assert_eq!(world.json(["images", "--json"]), json!([]));
    let id = world.gantry(["pull", &fixtures::reference("tiny").unwrap()]);
    world.gantry(["tag", "tiny", "h.example/a/b:v1", "c"]);
    let images = world.json(["images", "--json"]);
    let image = &images[0];
    assert_eq!(image["Id"], id.as_str());
    let names = json!([
        "h.example/a/b:v1",
        "localhost/c:latest",
        "localhost/tiny:latest"
    ]);
    assert_eq!(image["RepoTags"], names);
    assert_eq!(image["Names"], names);
    let digest = image["Digest"].as_str().unwrap();
    assert_eq!(image["RepoDigests"][0], format!("h.example/a/b@{digest}"));
    assert_eq!(image["Faces"], json!(["composefs"]));
    assert_eq!(image["Labels"]["fixture"], "tiny");
    assert!(image["Created"].as_i64().unwrap() > 1_600_000_000);
    assert!(image["Size"].as_u64().unwrap() > 1000);
    assert_eq!(world.gantry(["images", "-q"]), id[..12]);
    assert_eq!(world.gantry(["images", "-q", "--no-trunc", "b:v1"]), id);
    assert_eq!(world.gantry(["images", "-q", "nothing"]), "");
    let table = world.gantry(["images", "--digests"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("REPOSITORY") && lines[0].contains("DIGEST"));
    assert!(lines[1].starts_with("h.example/a/b") && lines[1].contains(digest));
    let history = world.json(["history", "--json", "tiny"]);
    assert!(!history.as_array().unwrap().is_empty());
}

#[test]
fn the_last_name_takes_the_image_with_it() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    let layout = fixtures::reference("tiny").unwrap();
    let id = world.gantry(["pull", "--faces", "both", &layout]);
    world.gantry(["tag", "tiny", "other"]);
    assert_eq!(
        world.gantry(["rmi", "tiny"]),
        "Untagged: localhost/tiny:latest"
    );
    world.gantry(["tag", "other", "third"]);
    let (status, error) = world.fails(["rmi", &id]);
    assert_eq!(status, 9, "{error}");
    common::assert_one_sentence(&error);
    let gone = world.gantry(["rmi", "--force", &id]);
    assert!(gone.ends_with(&format!("Deleted: {id}")), "{gone}");
    assert_eq!(world.json(["images", "--json"]), json!([]));
    assert_eq!(world.fails(["rmi", "third"]).0, 3);
    // Contents wait for the collector.
    let garbage = world.json(["store", "du", "--json"])["garbage_bytes"].clone();
    let would = world.json(["store", "gc", "--dry-run", "--json"]);
    let mut did = world.json(["store", "gc", "--json"]);
    let bytes = |what: &str| did[what].as_u64().unwrap();
    assert!(bytes("objects") > 0 && bytes("variants") > 0, "{did}");
    assert_eq!(bytes("object_bytes") + bytes("variant_bytes"), garbage);
    did["dry_run"] = json!(true);
    assert_eq!(would, did);
    let usage = world.json(["store", "du", "--json"]);
    assert_eq!(
        (&usage["objects"], &usage["garbage_bytes"]),
        (&json!(0), &json!(0))
    );
    world.assert_clean();
    // And all of it can come again.
    assert_eq!(world.gantry(["pull", &layout]), id);
    world.assert_clean();
}

#[test]
fn gc_removes_the_names_that_no_rule_keeps() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    let id = world.gantry(["pull", &fixtures::reference("tiny").unwrap()]);
    for tag in ["team/app:v1", "team/app:v2", "team/app:v3", "team/other:v1"] {
        world.gantry(["tag", "tiny", tag]);
    }
    world.gantry(["rmi", "tiny"]);
    let would = world.json(["store", "gc", "--keep-newest", "1", "--dry-run", "--json"]);
    let names = |report: &serde_json::Value| -> Vec<String> {
        let names = report["names"].as_array().unwrap().iter();
        names
            .map(|gone| gone["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&would),
        ["localhost/team/app:v1", "localhost/team/app:v2"]
    );
    assert_eq!(would["images"], json!([]));
    let young = ["store", "gc", "--keep-younger", "1d", "--json"];
    assert_eq!(names(&world.json(young)), [""; 0]);

    world.configure(
        "[[retention]]\nnames = \"*/other:*\"\nkeep-all = true\n\
         [[retention]]\nnames = \"*team/*\"\nkeep-newest = 0\n",
    );
    let did = world.json(["store", "gc", "--json"]);
    assert_eq!(names(&did).len(), 3);
    assert_eq!(did["images"], json!([]), "team/other leads to it");
    assert_eq!(
        world.gantry(["images", "-q", "--no-trunc", "team/other:v1"]),
        id
    );
    let last = world.json([
        "store",
        "gc",
        "--keep-newest",
        "0",
        "--names",
        "*other*",
        "--json",
    ]);
    assert_eq!(last["images"].as_array().unwrap().len(), 1);
    assert_eq!(world.json(["images", "--json"]), json!([]));
    world.assert_clean();
}

#[test]
fn versions_of_an_image_share_what_did_not_change() {
    needs!(["app-v1", "app-v2"], [""; 0]);
    let world = World::new();
    for fixture in ["app-v1", "app-v2"] {
        world.gantry(["pull", &fixtures::reference(fixture).unwrap()]);
    }
    let usage = world.json(["store", "du", "--json"]);
    let bytes = |name: &str| usage[name].as_u64().unwrap();
    for image in usage["images"].as_array().unwrap() {
        let (exclusive, shared) = (&image["exclusive_bytes"], &image["shared_bytes"]);
        assert!(
            exclusive.as_u64().unwrap() < shared.as_u64().unwrap() / 10,
            "{image}"
        );
    }
    assert!(
        bytes("saved_bytes") > bytes("object_bytes") * 9 / 10,
        "{usage}"
    );
    assert_eq!(bytes("garbage_bytes"), 0);
    let table = world.gantry(["store", "du"]);
    assert!(table.contains("localhost/app-v2:latest"), "{table}");
}

#[test]
fn check_finds_damage_and_says_where() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    world.gantry(["pull", &fixtures::reference("tiny").unwrap()]);
    world.assert_clean();
    let fan = fs::read_dir(world.root().join("objects"))
        .unwrap()
        .find_map(|fan| fs::read_dir(fan.unwrap().path()).unwrap().next())
        .unwrap()
        .unwrap()
        .path();
    fs::set_permissions(&fan, fs::Permissions::from_mode(0o644)).unwrap();
    let mut contents = fs::read(&fan).unwrap();
    contents[0] ^= 1;
    fs::write(&fan, contents).unwrap();
    let output = world
        .command(["store", "check", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = report["problems"][0]["path"].as_str().unwrap();
    assert_eq!(world.root().join(path), fan);
    // A quick look does not read contents, and misses a flipped bit but no missing file.
    world.gantry(["store", "check", "--quick"]);
    fs::remove_file(&fan).unwrap();
    let (status, error) = world.fails(["store", "check", "--quick"]);
    assert_eq!(status, 5);
    common::assert_one_sentence(&error);
}

/// Flips a bit of every object of the store.
fn damage_contents(root: &Path) -> u64 {
    let mut damaged = 0;
    for fan in fs::read_dir(root.join("objects")).unwrap() {
        for object in fs::read_dir(fan.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let mut contents = fs::read(&path).unwrap();
            contents[0] ^= 1;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, contents).unwrap();
            damaged += 1;
        }
    }
    damaged
}

#[test]
fn repair_fetches_what_is_lost_from_where_the_image_came_from() {
    needs!(["tiny"], ["skopeo", "docker-registry"]);
    let world = World::new();
    let registry = world.registry("registry");
    let name = format!("{}/team/tiny:v1", registry.address());
    skopeo_push("tiny", &format!("docker://{name}"), &[]);
    let id = world.gantry(["pull", &name]);
    assert_eq!(world.gantry(["store", "repair"]), "nothing is damaged");
    let objects = damage_contents(&world.root());
    let planned = world.gantry(["store", "repair", "--dry-run"]);
    assert_eq!(planned.matches("bring object").count() as u64, objects);
    let report = world.json(["store", "repair", "--json"]);
    assert_eq!(report["objects"], objects, "{report}");
    assert_eq!(report["unmended"], json!([]));
    world.assert_clean();

    // Nothing but the name is left.
    fs::remove_dir_all(world.root().join("digests")).unwrap();
    fs::remove_dir_all(world.root().join("layers")).unwrap();
    world.gantry(["store", "repair"]);
    world.assert_clean();
    assert_eq!(world.gantry(["images", "-q", "--no-trunc"]), id);
}

#[test]
fn repair_takes_from_peers_and_from_named_places_and_says_what_is_left() {
    needs!(["tiny"], [""; 0]);
    let (world, peer) = (World::new(), World::new());
    let layout = fixtures::reference("tiny").unwrap();
    for world in [&world, &peer] {
        world.gantry(["pull", &layout]);
    }
    let objects = damage_contents(&world.root());
    // The name of what came from a directory leads nowhere.
    let (status, error) = world.fails(["store", "repair"]);
    assert_eq!(status, 5, "{error}");
    common::assert_one_sentence(&error);
    let peer = peer.root().display().to_string();
    let report = world.json(["store", "repair", "--json", "--peer", &peer]);
    assert_eq!(
        (&report["objects"], &report["layers"]),
        (&json!(objects), &json!(0))
    );
    world.assert_clean();
    damage_contents(&world.root());
    let report = world.json(["store", "repair", "--json", "--from", &layout]);
    assert_eq!(report["unmended"], json!([]), "{report}");
    world.assert_clean();
}

#[test]
fn info_tells_what_serves_and_what_is_enforced() {
    let world = World::new();
    let info = world.json(["info", "--json"]);
    assert_eq!(info["store"]["exists"], false);
    assert_eq!(info["verity"]["enforced"], false);
    assert!(["composefs", "hardlink"].contains(&info["face"]["serves"].as_str().unwrap()));
    assert!(!world.root().exists());
    let text = world.gantry(["info"]);
    assert!(text.contains("digests enforced     no"), "{text}");
}
