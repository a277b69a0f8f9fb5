// SPDX-License-Identifier: Apache-2.0
//! `gantry generate` and `gantry validate`, with the OCI runtimes as judges of what is made.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{World, assert_one_sentence, fail, succeed};
use gantry_testkit::tool;
use serde_json::Value;

/// Writes a file of the world and answers its path.
fn file(world: &World, name: &str, text: &str) -> PathBuf {
    let path = world.dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn generate(world: &World, args: &[&str]) -> Value {
    let text = world.gantry([&["generate"], args].concat());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn same_command_line_gives_same_bytes() {
    let world = World::new();
    let facts = world.gantry(["generate", "--print-host-facts"]);
    let facts = file(&world, "facts.json", &facts);
    let args = [
        "generate",
        "--host-facts",
        facts.to_str().unwrap(),
        "-m",
        "64m",
        "--",
        "id",
    ];
    let args = if facts_have_memory(&facts) {
        &args[..]
    } else {
        &args[..3]
    };
    let first = world.gantry(args);
    assert_eq!(world.gantry(args), first);
    let path = world.dir.join("out.json");
    let to_file = [
        &["generate", "--output", path.to_str().unwrap()],
        &args[1..],
    ]
    .concat();
    world.gantry(to_file);
    assert_eq!(
        fs::read_to_string(path).unwrap().trim_end(),
        first.trim_end()
    );
}

fn facts_have_memory(path: &Path) -> bool {
    fs::read_to_string(path).unwrap().contains("\"memory\"")
}

#[test]
fn both_spellings_reach_the_document() {
    let world = World::new();
    let document = generate(
        &world,
        &[
            "-e",
            "A=1",
            "-h",
            "web",
            "--label",
            "org.example=x",
            "--read-only",
            "--privileged=false",
            "--process-uid",
            "7",
            "--process-rlimits-add",
            "RLIMIT_CORE:2:1",
            "--rootfs-path",
            "/srv/root",
            "--linux-namespace-remove",
            "ipc",
            "--linux-oom-score-adj",
            "-5",
            "--oci-version",
            "1.0.2",
            "--args",
            "sh",
            "--args",
            "-c",
        ],
    );
    for (pointer, value) in [
        ("/hostname", Value::from("web")),
        ("/annotations/org.example", "x".into()),
        ("/root/readonly", true.into()),
        ("/root/path", "/srv/root".into()),
        ("/process/user/uid", 7.into()),
        ("/process/oomScoreAdj", (-5).into()),
        ("/process/args/1", "-c".into()),
        ("/ociVersion", "1.0.2".into()),
    ] {
        assert_eq!(document.pointer(pointer), Some(&value), "{pointer}");
    }
}

#[test]
fn users_are_looked_up_in_the_root_or_the_sentence_says_how() {
    let world = World::new();
    let (status, error) = fail(&mut world.command(["generate", "--user", "app"]));
    assert_eq!(status, 3);
    assert!(
        error.contains("app") && error.contains("--rootfs"),
        "{error}"
    );
    let root = world.dir.join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "app:x:12:34::/:/bin/sh\n").unwrap();
    let document = generate(
        &world,
        &["--user", "app", "--rootfs", root.to_str().unwrap()],
    );
    assert_eq!(document["process"]["user"]["uid"], 12);
    assert_eq!(document["root"]["path"], root.to_str().unwrap());
}

/// Whichever face the store has: files of the tree, or metadata and objects.
#[test]
fn users_of_an_image_are_looked_up_in_the_store() {
    needs!(["tiny"], [""; 0]);
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    for face in ["hardlink", "composefs"] {
        let world = World::new();
        world.gantry(["pull", "--quiet", "--faces", face, &tiny]);
        let document = generate(&world, &["--image", "tiny", "--user", "root:root"]);
        assert_eq!(document["process"]["user"]["gid"], 0, "{face}");
        let args = [
            "generate",
            "--image",
            "tiny",
            "--user",
            "nobody-of-that-name",
        ];
        assert_eq!(fail(&mut world.command(args)).0, 3, "{face}");
    }
}

#[test]
fn nonsense_is_one_sentence_and_status_2() {
    let world = World::new();
    for args in [
        &["--process-uid", "x"][..],
        &["--mounts-add", "{"],
        &["--os", "plan9"],
        &[
            "--linux-seccomp-remove-all",
            "--linux-seccomp-default",
            "maybe",
        ],
        &["--user", "0x0"],
    ] {
        let (status, error) = fail(&mut world.command([&["generate"], args].concat()));
        assert_eq!(status, 2, "{args:?}: {error}");
    }
    let bad = file(&world, "bad.json", "{\"a\":1,\"a\":2}");
    let (status, error) = fail(&mut world.command([Path::new("validate"), &bad]));
    assert_eq!(status, 2);
    assert_one_sentence(&error);
    assert_eq!(fail(&mut world.command(["validate", "/nope"])).0, 3);
}

#[test]
fn document_that_breaks_a_rule_is_written_with_a_warning() {
    let world = World::new();
    let output = world
        .command(["generate", "--process-cwd", "tmp"])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (document, warning) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success() && document.contains("\"cwd\": \"tmp\""));
    assert!(warning.contains(".process.cwd"), "{warning}");
    let filter = world
        .command(["generate", "--linux-seccomp-only"])
        .output()
        .unwrap();
    assert_eq!(text(filter.stderr), "");
    assert!(text(filter.stdout).contains("defaultAction"));
}

#[test]
fn differences_are_told_by_place_and_status() {
    let world = World::new();
    let one = file(&world, "one.json", &world.gantry(["generate"]));
    let two = file(
        &world,
        "two.json",
        &world.gantry(["generate", "--process-cwd", "/tmp"]),
    );
    let diff = |a: &Path, b: &Path| {
        let args = [Path::new("generate"), Path::new("--diff"), a, b];
        world.command(args).output().unwrap()
    };
    assert!(diff(&one, &one).status.success());
    let output = diff(&one, &two);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "~ .process.cwd: \"/\" -> \"/tmp\"\n");
}

#[test]
fn template_is_changed_where_options_say_so() {
    let world = World::new();
    let mut template = generate(&world, &[]);
    template["process"]["cwd"] = "/own".into();
    let path = file(&world, "template.json", &template.to_string());
    let document = generate(&world, &["--template", path.to_str().unwrap(), "-e", "A=1"]);
    assert_eq!(document["process"]["cwd"], "/own");
    assert!(
        document["process"]["env"]
            .as_array()
            .unwrap()
            .contains(&"A=1".into())
    );
}

#[test]
fn verdict_is_a_status_and_json() {
    let world = World::new();
    let good = world.gantry(["generate"]);
    let bundle = world.dir.join("bundle");
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("config.json"), &good).unwrap();
    let validate = |args: &[&str]| {
        let output = world
            .command([&["validate"], args].concat())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let bundle_text = bundle.to_str().unwrap();
    let (status, text) = validate(&[bundle_text]);
    assert!(status == 1 && text.contains(".root.path"), "{text}");
    fs::create_dir(bundle.join("rootfs")).unwrap();
    assert_eq!(validate(&[bundle_text]).0, 0);
    let bad = good.replace("\"cwd\": \"/\"", "\"cwd\": 1");
    let bad = file(&world, "bad.json", &bad);
    let (status, text) = validate(&["--json", bad.to_str().unwrap()]);
    let verdict: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &verdict["valid"]), (1, &Value::Bool(false)));
    assert_eq!(verdict["findings"][0]["path"], ".process.cwd");
}

/// A bundle's root is the image's tree of hard links, mounted by nobody: a copy of it.
fn unpack(world: &World, bundle: &Path) {
    let digests = world.root().join("digests");
    let tree = fs::read_dir(digests)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("rootfs"))
        .find(|path| path.is_dir())
        .unwrap();
    succeed(
        Command::new("cp")
            .arg("-a")
            .arg(tree)
            .arg(bundle.join("rootfs")),
    );
}

#[test]
fn privileged_runtimes_start_what_is_made() {
    if !gantry_testkit::skip::is_root() {
        gantry_testkit::skip!("containers need root");
    }
    needs!(["tiny"], ["crun"]);
    let world = World::new();
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    world.gantry(["pull", "--quiet", "--faces", "both", &tiny]);
    let bundle = world.dir.join("bundle");
    fs::create_dir(&bundle).unwrap();
    unpack(&world, &bundle);
    let table: [&[&str]; 5] = [
        &[],
        &["--profile", "compat"],
        &["--user", "7:8", "--read-only", "--cap-add", "NET_RAW"],
        &[
            "--process-rlimits-add",
            "RLIMIT_NOFILE:1000:500",
            "--linux-namespace-remove",
            "ipc",
        ],
        &[
            "--linux-seccomp-errno",
            "mkdir",
            "--tmpfs",
            "/cache",
            "-e",
            "A=1",
            "-w",
            "/tmp",
        ],
    ];
    for runtime in ["crun", "runc"]
        .into_iter()
        .filter(|name| tool::find(name).is_some())
    {
        for (at, options) in table.iter().enumerate() {
            let fixed = [
                "--image",
                "tiny",
                "--oci-version",
                "1.0.2",
                "--entrypoint",
                "/bin/sh",
            ];
            let args = [
                &["generate"],
                &fixed[..],
                options,
                &["--", "-c", "echo started"],
            ]
            .concat();
            fs::write(bundle.join("config.json"), world.gantry(args)).unwrap();
            succeed(&mut world.command([Path::new("validate"), &bundle]));
            start(&world, runtime, &bundle, at);
        }
    }
}

/// Runs the bundle in a mount namespace that has one version of control groups, as `run` does.
fn start(world: &World, runtime: &str, bundle: &Path, at: usize) {
    let id = format!("gantry-generate-{}-{runtime}-{at}", std::process::id());
    let root = world.dir.join(format!("state-{runtime}"));
    // crun writes into the place where the hierarchy was, which is memory of the host's.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null || exec \"$@\"; \"$@\"; status=$?; \
                  rm -rf /sys/fs/cgroup/unified/gantry-generate-*; exit $status";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", runtime, "--root"])
        .arg(root)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(id)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "started\n"),
        "{runtime} {at}: {}",
        text(&output.stderr)
    );
}
