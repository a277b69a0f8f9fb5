// SPDX-License-Identifier: Apache-2.0
//! The arrows that must not exist between crates, held to what cargo resolves.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use gantry_testkit::fixtures::workspace_root;
use serde_json::Value;

const HTTP_TLS_CRYPTO: &[&str] = &[
    "axum",
    "aws-lc-rs",
    "aws-lc-sys",
    "h2",
    "hyper",
    "hyper-util",
    "native-tls",
    "openssl",
    "pgp",
    "reqwest",
    "ring",
    "rustls",
    "tokio-rustls",
];
const ASYNC_RUNTIMES: &[&str] = &["async-std", "smol", "tokio"];

/// (crate, what must not be reachable from it, why).
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "gantry-store",
        HTTP_TLS_CRYPTO,
        "the store never talks to a network",
    ),
    (
        "gantry-admission",
        &["gantry-store", "gantry-transport"],
        "the program says where images are",
    ),
    ("gantry-oci", ASYNC_RUNTIMES, "documents are pure"),
    ("gantry-trust", ASYNC_RUNTIMES, "a verdict is computed"),
    ("gantry-sys", ASYNC_RUNTIMES, "kernel calls are synchronous"),
    ("gantry-layer", ASYNC_RUNTIMES, "layers are a pure core"),
    (
        "gantry-runtime",
        ASYNC_RUNTIMES,
        "what forks has one thread",
    ),
    (
        "gantry-monitor",
        ASYNC_RUNTIMES,
        "what forks has one thread",
    ),
];

/// Licences under which Gantry may be given away; an expression needs one of each alternative.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates of which others want two versions; none of these choices is ours.
const TWO_VERSIONS: &[&str] = &[
    "base64",
    "block-buffer",
    "const-oid",
    "cpufeatures",
    "crypto-common",
    "digest",
    "getrandom",
    "rand",
    "rand_chacha",
    "rand_core",
    "serdect",
    "sha2",
    "syn",
    "winnow",
];

/// Programs, on which nothing else is built.
const TOPS: &[&str] = &[
    "gantry",
    "gantry-admission",
    "gantry-cri",
    "gantry-registry",
];

/// Package name to the names of its normal and build dependencies, as resolved with every default feature.
struct Graph(BTreeMap<String, BTreeSet<String>>);

/// What cargo resolves for this platform.
fn metadata() -> Value {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        // Without a platform cargo wants the manifests of other systems' crates, which nobody has fetched.
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            &platform,
        ])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The packages that are built here, of those that the lock file names.
fn resolved(metadata: &Value) -> impl Iterator<Item = &Value> {
    let used: BTreeSet<&str> = array(&metadata["resolve"]["nodes"])
        .map(|node| text(&node["id"]))
        .collect();
    array(&metadata["packages"]).filter(move |package| used.contains(text(&package["id"])))
}

impl Graph {
    fn load() -> Self {
        let metadata = metadata();
        let name_of: BTreeMap<&str, &str> = array(&metadata["packages"])
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let nodes = array(&metadata["resolve"]["nodes"]).map(|node| {
            let shipped = array(&node["deps"]).filter(|dependency| {
                array(&dependency["dep_kinds"]).any(|kind| kind["kind"].as_str() != Some("dev"))
            });
            let names = shipped
                .map(|dependency| name_of[text(&dependency["pkg"])].to_owned())
                .collect();
            (name_of[text(&node["id"])].to_owned(), names)
        });
        Self(nodes.collect())
    }

    fn reachable<'a>(&'a self, from: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut pending = vec![from];
        while let Some(name) = pending.pop() {
            let dependencies = self.0.get(name).into_iter().flatten();
            pending.extend(
                dependencies
                    .map(String::as_str)
                    .filter(|name| found.insert(*name)),
            );
        }
        found
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn forbidden_edges_do_not_exist() {
    let graph = Graph::load();
    for (crate_name, forbidden, why) in FORBIDDEN {
        assert!(graph.0.contains_key(*crate_name), "no crate {crate_name}");
        let reachable = graph.reachable(crate_name);
        let found: Vec<_> = forbidden
            .iter()
            .filter(|name| reachable.contains(**name))
            .collect();
        assert!(
            found.is_empty(),
            "{crate_name} reaches {found:?}, but {why}"
        );
    }
}

#[test]
fn nothing_is_built_on_a_program() {
    let graph = Graph::load();
    for (name, dependencies) in &graph.0 {
        let tops: Vec<_> = TOPS
            .iter()
            .filter(|top| dependencies.contains(**top))
            .collect();
        // The umbrella command starts the daemons; their readers are fuzzed.
        if !["gantry", "gantry-fuzz"].contains(&&**name) {
            assert!(tops.is_empty(), "{name} depends on {tops:?}");
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_outside_sys() {
    let crates = workspace_root().join("crates");
    let roots = std::fs::read_dir(&crates)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain([workspace_root().join("xtask")]);
    for directory in roots.filter(|path| !path.ends_with("sys")) {
        for root in ["src/lib.rs", "src/main.rs"].map(|root| directory.join(root)) {
            if root.exists() {
                assert!(
                    forbids_unsafe(&root),
                    "{} lacks #![forbid(unsafe_code)]",
                    root.display()
                );
            }
        }
    }
}

fn forbids_unsafe(root: &Path) -> bool {
    std::fs::read_to_string(root)
        .unwrap()
        .lines()
        .any(|line| line == "#![forbid(unsafe_code)]")
}

/// Whether an expression of licences can be met: `AND` of `OR`s, with or without parentheses.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(" / ", "/").replace('/', " OR ");
    if let Some((open, rest)) = flat.split_once('(') {
        let Some((inner, after)) = rest.split_once(')') else {
            return false;
        };
        let met = if is_allowed(inner) { "MIT" } else { "none" };
        return is_allowed(&format!("{open}{met}{after}"));
    }
    flat.split(" AND ").all(|all| {
        all.split(" OR ").any(|one| {
            let plain = one.split(" WITH ").next().unwrap_or(one);
            LICENCES.contains(&plain.trim())
        })
    })
}

#[test]
fn licences_go_with_ours() {
    assert!(is_allowed("ISC AND (Apache-2.0 OR GPL-3.0)"));
    assert!(!is_allowed("MIT AND GPL-3.0") && !is_allowed("GPL-2.0 OR AGPL-3.0"));
    let metadata = metadata();
    let refused: Vec<_> = resolved(&metadata)
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn there_is_one_version_of_each_crate() {
    let metadata = metadata();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in resolved(&metadata) {
        let of_name = versions.entry(text(&package["name"])).or_default();
        of_name.insert(text(&package["version"]));
    }
    let twice: Vec<_> = versions
        .iter()
        .filter(|(name, versions)| versions.len() > 1 && !TWO_VERSIONS.contains(name))
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
    let needless: Vec<_> = TWO_VERSIONS
        .iter()
        .filter(|name| {
            versions
                .get(*name)
                .is_none_or(|versions| versions.len() < 2)
        })
        .collect();
    assert!(needless.is_empty(), "not two any more: {needless:?}");
}
