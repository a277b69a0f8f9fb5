// SPDX-License-Identifier: Apache-2.0
//! trust show, set, delete, default, explain, render; podman and skopeo read what they write.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::process::Command;

use common::World;
use gantry_testkit::fixtures;
use gantry_testkit::tool;
use serde_json::json;

const HAND: &str = "{ \"default\" : [{\"type\":\"reject\"}],\n  \"transports\": {\n    \
                    \"docker\":   {\"h.io\": [ {\"type\":\"reject\"} ]} } }\n";

#[test]
fn a_first_policy_is_written_where_one_is_read() {
    let world = World::new();
    let policy = world.dir.join("etc/policy.json");
    let file = policy.to_str().unwrap();
    let (status, error) = world.fails(["--policy", file, "trust", "show"]);
    assert_eq!(status, 4, "{error}");
    assert!(error.contains("gantry trust default"), "{error}");
    let would = world.gantry(["--policy", file, "trust", "default", "reject", "--dry-run"]);
    assert!(!policy.exists());
    world.gantry(["--policy", file, "trust", "default", "reject"]);
    assert_eq!(fs::read_to_string(&policy).unwrap(), format!("{would}\n"));
    let shown = world.json(["--signature-policy", file, "trust", "show", "--json"]);
    assert_eq!(
        shown["scopes"][0]["requirements"],
        json!([{"type": "reject"}])
    );
    let (status, _) = world.fails(["--insecure-policy", "trust", "default", "accept"]);
    assert_eq!(status, 2);
}

#[test]
fn edits_leave_the_rest_and_the_mode_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let (policy, link) = (world.dir.join("policy.json"), world.dir.join("link.json"));
    fs::write(&policy, HAND).unwrap();
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&policy, &link).unwrap();
    let trust = |args: &[&str]| {
        let all = [&["--policy", link.to_str().unwrap(), "trust"], args].concat();
        world.gantry(all)
    };
    let key = world.dir.join("key.gpg");
    let key = key.to_str().unwrap();
    trust(&[
        "set",
        "h.io/team",
        "-f",
        key,
        "--identity",
        "matchRepository",
    ]);
    let text = fs::read_to_string(&policy).unwrap();
    assert!(
        text.starts_with(HAND.split_once(" ]}").unwrap().0),
        "{text}"
    );
    assert!(text.ends_with("} }\n"), "{text}");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        fs::metadata(&policy).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let shown: serde_json::Value = serde_json::from_str(&trust(&["show", "--json"])).unwrap();
    assert_eq!(
        shown["scopes"][2],
        json!({"transport": "docker", "scope": "h.io/team", "requirements": [
            {"type": "signedBy", "keyType": "GPGKeys", "keyPath": key,
             "signedIdentity": {"type": "matchRepository"}}]})
    );
    trust(&["delete", "h.io/team"]);
    assert_eq!(fs::read_to_string(&policy).unwrap(), HAND);
    assert_eq!(format!("{}\n", trust(&["show", "--raw"])), HAND);
    let args = [
        "--policy",
        link.to_str().unwrap(),
        "trust",
        "delete",
        "h.io/team",
    ];
    assert_eq!(world.fails(args).0, 3);
}

#[test]
fn podman_and_skopeo_read_what_is_written() {
    needs!(["tiny"], ["skopeo", "podman"]);
    let world = World::new();
    let policy = world.dir.join("policy.json");
    let file = policy.to_str().unwrap();
    let layout = fixtures::reference("tiny").unwrap();
    let out = format!("dir:{}", world.dir.join("out").display());
    let copies = || {
        let skopeo = tool::find("skopeo").unwrap();
        let args = ["--policy", file, "copy", "-q", &layout, &out];
        Command::new(skopeo)
            .args(args)
            .output()
            .unwrap()
            .status
            .success()
    };
    world.gantry(["--policy", file, "trust", "default", "accept"]);
    assert!(copies());
    world.gantry([
        "--policy",
        file,
        "trust",
        "set",
        "--transport",
        "oci",
        "",
        "-t",
        "reject",
    ]);
    assert!(!copies());
    world.gantry([
        "--policy",
        file,
        "trust",
        "set",
        "h.io/team",
        "-f",
        "/k.gpg",
    ]);
    let podman = tool::find("podman").unwrap();
    let args = ["image", "trust", "show", "--json", "--policypath", file];
    let output = tool::run(Command::new(podman).args(args)).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("h.io/team") && text.contains("\"type\": \"signed"),
        "{text}"
    );
}

#[test]
fn explain_says_what_decided() {
    needs!(["tiny"], [""; 0]);
    let world = World::new();
    let policy = world.dir.join("policy.json");
    let file = policy.to_str().unwrap();
    fs::write(&policy, HAND).unwrap();
    let layout = fixtures::reference("tiny").unwrap();
    let output = world
        .command(["--policy", file, "trust", "explain", &layout])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.starts_with("refused: manifest sha256:"), "{text}");
    assert!(
        text.contains("scope default: found\nrequirement reject: not met"),
        "{text}"
    );
    world.gantry([
        "--policy",
        file,
        "trust",
        "set",
        "--transport",
        "oci",
        "",
        "-t",
        "accept",
    ]);
    let verdict = world.json(["--policy", file, "trust", "explain", "--json", &layout]);
    assert_eq!(verdict["admitted"], json!(true));
    assert_eq!(verdict["matched"], json!({"scope": ""}));
    // A rule beside the policy is stricter, and an image of the store has a name.
    let rules = world.dir.join(".config/gantry/trust.d");
    fs::create_dir_all(&rules).unwrap();
    fs::write(rules.join("a.toml"), "[[rule]]\nmax-severity = \"low\"\n").unwrap();
    world.gantry(["--insecure-policy", "pull", &layout]);
    world.gantry(["--policy", file, "trust", "default", "accept"]);
    world.gantry(["--policy", file, "trust", "delete", "h.io"]);
    let output = world
        .command(["--policy", file, "trust", "explain", "tiny"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(
        text.contains("scope docker localhost/tiny:latest: not in the policy"),
        "{text}"
    );
    assert!(text.contains("condition max-severity of"), "{text}");
    let output = world
        .command(["--policy", file, "trust", "render"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("max-severity"),
        "{output:?}"
    );
}
