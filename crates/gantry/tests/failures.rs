// SPDX-License-Identifier: Apache-2.0
//! What goes wrong: kills, full disks, registries that are down, readers that leave.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use common::{World, assert_one_sentence, skopeo_push};
use gantry_testkit::scratch::Disk;
use gantry_testkit::skip::is_root;
use gantry_testkit::{fixtures, image, skip, tar, tool};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const PEERS: [&str; 2] = ["skopeo", "docker-registry"];

/// Pulls, and sends a signal after so many lines of progress; the status, and whether it came in time.
fn pull_until(world: &World, name: &str, lines: usize, signal: Signal) -> std::process::ExitStatus {
    let mut child = world
        .command(["pull", "--progress", "json", name])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    for _ in 0..lines {
        line.clear();
        if log.read_line(&mut line).unwrap() == 0 {
            break;
        }
    }
    // A child that has ended is still there to be signalled until somebody waits for it.
    kill_process(Pid::from_child(&child), signal).unwrap();
    log.read_to_end(&mut Vec::new()).unwrap();
    child.wait().unwrap()
}

/// Staging directories of any boot.
fn staged(world: &World) -> usize {
    let boots = fs::read_dir(world.root().join("staging")).unwrap();
    boots
        .map(|boot| fs::read_dir(boot.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn a_killed_pull_leaves_nothing_and_the_next_one_works() {
    needs!(["app-v1"], PEERS);
    let world = World::new();
    let registry = world.registry("registry");
    let name = format!("{}/app:v1", registry.address());
    skopeo_push("app-v1", &format!("docker://{name}"), &[]);
    let mut killed = 0;
    for lines in [0, 1, 2, 5, 20, 60, 150, 400, 700, 1000] {
        let status = pull_until(&world, &name, lines, Signal::KILL);
        if status.success() {
            break;
        }
        killed += 1;
        if !world.root().join("gantry-store.json").exists() {
            continue;
        }
        assert_eq!(
            world.json(["images", "--json"]),
            json!([]),
            "after {lines} lines"
        );
        world.assert_clean();
    }
    assert!(killed > 3, "only {killed} pulls were killed");
    world.gantry(["pull", &name]);
    world.assert_clean();
    // What the dead left is gone.
    assert_eq!(staged(&world), 0);
    let garbage = world.json(["store", "gc", "--dry-run", "--json"]);
    assert_eq!(garbage["objects"], 0);
}

#[test]
fn an_interrupted_pull_gives_up_at_once() {
    needs!(["app-v1"], PEERS);
    let world = World::new();
    let registry = world.registry("registry");
    let name = format!("{}/app:v1", registry.address());
    skopeo_push("app-v1", &format!("docker://{name}"), &[]);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let status = pull_until(&world, &name, 10, signal);
        assert_eq!(status.code(), Some(code), "{status}");
        assert_eq!(world.json(["images", "--json"]), json!([]));
        assert_eq!(staged(&world), 0);
        world.assert_clean();
    }
    world.gantry(["pull", &name]);
    world.assert_clean();
}

#[test]
fn each_mistake_has_its_sentence_and_its_status() {
    needs!(["tiny"], PEERS);
    let world = World::new();
    let registry = world.registry("registry");
    let known = format!("{}/tiny:v1", registry.address());
    skopeo_push("tiny", &format!("docker://{known}"), &[]);
    let unknown = format!("{}/none:v1", registry.address());
    let untagged = format!("{}/tiny:v9", registry.address());
    let cases: [(&[&str], i32); 10] = [
        (&["pull", &unknown], 3),
        (&["pull", &untagged], 3),
        (&["pull", "--platform", "linux/s390x/x/y", &known], 2),
        (&["pull", "127.0.0.1:1/a:v1", "--retry", "0"], 7),
        (&["pull", "Not A Name"], 2),
        (&["pull", "docker-archive:x"], 6),
        (&["pull", "oci:/none"], 3),
        (&["push", "none", "127.0.0.1:1/a:v1"], 3),
        (&["inspect", "store:none"], 3),
        (&["pull", "--creds", "nonsense", &known], 2),
    ];
    for (arguments, wanted) in cases {
        let (status, error) = world.fails(arguments);
        assert_eq!(status, wanted, "{arguments:?}: {error}");
        assert_one_sentence(&error);
    }
    // Down after it was there.
    drop(registry);
    let (status, error) = world.fails(["pull", "--retry", "0", &known]);
    assert_eq!(status, 7, "{error}");
    assert_one_sentence(&error);
    if world.root().exists() {
        assert_eq!(world.json(["images", "--json"]), json!([]));
        world.assert_clean();
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure_to_explain() {
    let world = World::new();
    let mut child = world
        .command(["info"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.as_mut().unwrap();
    drop(child.stdout.take());
    let mut error = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut error).unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), error.as_str()),
        (Some(141), "")
    );
    // A full device is one.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = world.command(["info"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert_one_sentence(&String::from_utf8(output.stderr).unwrap());
}

/// Whether a terminal would obey anything in there.
fn assert_printable(what: &[&str], bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let bad = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(bad, None, "{what:?}: {text:?}");
}

#[test]
fn what_an_image_says_never_reaches_a_terminal_as_it_is() {
    let world = World::new();
    let file = tar::file("f", "x");
    let layers = [image::Layer::gzip(&tar::join(&[file]))];
    let mut config: serde_json::Value = serde_json::from_slice(&image::config(&layers)).unwrap();
    let hostile = "\u{1b}]0;owned\u{7}\u{9b}31m\u{7f}\r";
    config["config"]["Labels"] = json!({hostile: hostile});
    config["config"]["Env"] = json!([hostile]);
    config["author"] = json!(hostile);
    config["architecture"] = json!(hostile);
    config["history"] = json!([{"created_by": hostile, "comment": hostile, "created": hostile}]);
    let image = image::Image::with_config(&layers, config.to_string().as_bytes());
    let dir = world.dir.join("layout");
    image.write_layout(&dir, "x").unwrap();
    let layout = format!("oci:{}:x", dir.display());
    world.gantry(["pull", &layout]);
    let labels = &world.json(["images", "--json"])[0]["Labels"];
    assert_eq!(labels[hostile], hostile);
    let store = format!("store:layout:x{hostile}");
    for arguments in [
        &["images"][..],
        &["images", "--json"],
        &["images", hostile],
        &["history", "layout:x"],
        &["history", "--json", "--no-trunc", "layout:x"],
        &["inspect", "store:layout:x"],
        &["inspect", "--config", "store:layout:x"],
        &["inspect", &store],
        &[
            "copy",
            "--dry-run",
            "store:layout:x",
            "docker://127.0.0.1:1/x:v1",
        ],
        &[
            "copy",
            "store:layout:x",
            &format!("oci:{}/{hostile}", dir.display()),
        ],
        &["pull", hostile],
        &["tag", "layout:x", hostile],
        &["store", "du"],
        &["store", "check"],
        &["info", "--runroot", hostile],
        &[
            "--progress",
            "json",
            "push",
            "--retry",
            "0",
            "layout:x",
            "127.0.0.1:1/x:v1",
        ],
    ] {
        let output = world.command(arguments).output().unwrap();
        assert_printable(arguments, &output.stdout);
        assert_printable(arguments, &output.stderr);
    }
}

#[test]
fn privileged_a_full_disk_is_said_and_survived() {
    needs!(["tiny", "base"], [""; 0]);
    if !is_root() {
        skip!("needs root to mount a loop device");
    }
    let disk = match Disk::new(48 << 20) {
        Ok(disk) => disk,
        Err(error) => skip!("no loop mounts here: {error:#}"),
    };
    let world = World::new();
    let root = disk.path().join("store");
    let (big, small) = (
        fixtures::reference("base").unwrap(),
        fixtures::reference("tiny").unwrap(),
    );
    let (status, error) = common::fail(&mut world.command_in(&root, ["pull", &big]));
    assert_eq!(status, 8, "{error}");
    assert_one_sentence(&error);
    let check = |what: &str| {
        let report = common::succeed(&mut world.command_in(&root, ["store", "check", "--json"]));
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["problems"], json!([]), "{what}");
    };
    check("after the failure");
    common::succeed(&mut world.command_in(&root, ["pull", &small]));
    check("after the next pull");
    let images = common::succeed(&mut world.command_in(&root, ["images", "--json"]));
    let images: serde_json::Value = serde_json::from_str(&images).unwrap();
    assert_eq!(images.as_array().unwrap().len(), 1);
}

#[test]
fn privileged_a_store_is_read_from_a_read_only_mount() {
    needs!(["tiny"], ["unshare", "mount"]);
    if !is_root() {
        skip!("needs root to mount");
    }
    let world = World::new();
    let layout = fixtures::reference("tiny").unwrap();
    let id = world.gantry(["pull", &layout]);
    let mounted = world.dir.join("mounted");
    fs::create_dir(&mounted).unwrap();
    let script =
        "set -e; mount --bind \"$1\" \"$2\"; mount -o remount,bind,ro \"$2\"; shift 2; exec \"$@\"";
    let run = |args: &[&str]| {
        let gantry = world.command_in(&mounted, args);
        let mut command = Command::new(tool::find("unshare").unwrap());
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(world.root())
            .arg(&mounted)
            .arg(gantry.get_program())
            .args(gantry.get_args())
            .env("HOME", world.dir.path())
            .env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
        command
    };
    assert_eq!(
        common::succeed(&mut run(&["images", "-q", "--no-trunc"])),
        id
    );
    for arguments in [
        &["inspect", "store:tiny"][..],
        &["store", "check"],
        &["store", "du"],
        &["history", "tiny"],
    ] {
        common::succeed(&mut run(arguments));
    }
    let info = common::succeed(&mut run(&["info", "--json"]));
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["store"]["writable"], false);
    for arguments in [
        &["pull", &layout][..],
        &["tag", "tiny", "x"],
        &["rmi", "tiny"],
        &["store", "gc"],
    ] {
        let (status, error) = common::fail(&mut run(arguments));
        assert_eq!(status, 4, "{arguments:?}: {error}");
        assert_one_sentence(&error);
    }
}
