// SPDX-License-Identifier: Apache-2.0
//! `gantry mount`, `gantry unmount` and `gantry diff`, each test in a mount namespace of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{World, assert_one_sentence, fail, succeed};
use gantry_testkit::tool;
use serde_json::Value;

/// A world with the fixture `tiny`, and a run root of its own.
struct Host {
    world: World,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            world: World::new(),
        };
        let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
        host.gantry(&["copy", "--quiet", &tiny, "store:tiny"]);
        host
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        command.env("GANTRY_RUNROOT", self.world.dir.join("run"));
        command
    }

    fn gantry(&self, args: &[&str]) -> String {
        succeed(&mut self.command(args))
    }

    fn fails(&self, args: &[&str]) -> (i32, String) {
        fail(&mut self.command(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.gantry(args)).unwrap()
    }

    /// Removes the image, which nobody may hold: a monitor is the last to let go, a moment after its container.
    fn remove_tiny(&self) {
        wait_for("the end of the last lease", || {
            let removed = self.command(&["rmi", "tiny"]).output().unwrap();
            removed.status.success()
        });
    }

    fn listed(&self) -> Vec<Value> {
        self.json(&["mount", "--json"]).as_array().unwrap().clone()
    }

    fn leases(&self) -> usize {
        let leases = self.world.root().join("leases");
        fs::read_dir(leases).map_or(0, Iterator::count)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.world.dir.join(name);
        fs::create_dir(&dir).unwrap();
        dir
    }
}

/// Runs a test on a thread with a mount namespace of its own, whose children mount there.
fn privately(test: fn(&Host)) {
    std::thread::spawn(move || {
        gantry_sys::mount::enter_private_namespace().unwrap();
        test(&Host::new());
    })
    .join()
    .unwrap();
}

macro_rules! needs_mounts {
    ($tools:expr) => {
        if !gantry_testkit::skip::is_root() {
            gantry_testkit::skip!("mounting needs root");
        }
        needs!(["tiny"], $tools);
    };
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn privileged_an_image_is_mounted_once_and_counted() {
    needs_mounts!([""; 0]);
    privately(|host| {
        let place = host.gantry(&["mount", "tiny"]);
        assert_eq!(host.gantry(&["mount", "tiny"]), place);
        assert!(Path::new(&place).join("bin").is_dir());
        assert!(
            fs::write(Path::new(&place).join("new"), "").is_err(),
            "read-only"
        );
        let listed = host.listed();
        assert_eq!((listed.len(), &listed[0]["count"]), (1, &2.into()));
        assert_eq!(listed[0]["kind"], "image");
        // What is mounted stays, whatever is removed meanwhile.
        assert!(
            host.fails(&["rmi", "--force", "tiny"])
                .1
                .contains("uses it")
        );
        assert_eq!(host.gantry(&["unmount", "tiny"]), "");
        assert!(Path::new(&place).join("bin").is_dir());
        assert_eq!(host.gantry(&["unmount", "tiny"]), place);
        assert!(!Path::new(&place).exists());
        assert_eq!((host.listed().len(), host.leases()), (0, 0));
        host.gantry(&["rmi", "tiny"]);
    });
}

#[test]
fn privileged_a_directory_can_be_named_and_may_be_in_use() {
    needs_mounts!([""; 0]);
    privately(|host| {
        let dir = host.dir("here");
        let path = text(&dir);
        assert_eq!(host.gantry(&["mount", "tiny", &path]), path);
        let used = fs::File::open(dir.join("bin")).unwrap();
        let (status, said) = host.fails(&["unmount", &path]);
        assert_one_sentence(&said);
        assert!(said.contains("a program uses it") && status == 9, "{said}");
        assert_eq!(host.gantry(&["unmount", "--dry-run", &path]), path);
        assert_eq!(host.gantry(&["unmount", "--force", &path]), path);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        drop(used);
        let (_, said) = host.fails(&["unmount", &path]);
        assert!(said.contains("it is not mounted"), "{said}");
        let (_, said) = host.fails(&["mount", "tiny", "/no/such/directory"]);
        assert_one_sentence(&said);
        let (_, said) = host.fails(&["mount", "nothing-of-that-name"]);
        assert_one_sentence(&said);
        assert_eq!(host.leases(), 0);
    });
}

#[test]
fn privileged_what_others_unmounted_is_forgotten() {
    needs_mounts!([""; 0]);
    privately(|host| {
        let dir = host.dir("here");
        host.gantry(&["mount", "tiny", &text(&dir)]);
        let place = host.gantry(&["mount", "tiny"]);
        assert_eq!(host.leases(), 2);
        tool::run(Command::new("umount").args([&text(&dir), &place])).unwrap();
        // Listing changes nothing; the next change cleans up.
        assert_eq!((host.listed().len(), host.leases()), (0, 2));
        host.gantry(&["unmount", "--all"]);
        assert_eq!((host.leases(), Path::new(&place).exists()), (0, false));
        host.gantry(&["rmi", "tiny"]);
    });
}

#[test]
fn privileged_mounts_of_another_namespace_are_left_alone() {
    needs_mounts!([""; 0]);
    privately(|host| {
        let place = host.gantry(&["mount", "tiny"]);
        std::thread::scope(|scope| {
            let elsewhere = scope.spawn(|| {
                gantry_sys::mount::enter_private_namespace().unwrap();
                tool::run(Command::new("umount").arg(&place)).unwrap();
                let (_, said) = host.fails(&["unmount", "tiny"]);
                assert!(said.contains("another mount namespace"), "{said}");
            });
            elsewhere.join().unwrap();
        });
        assert_eq!(host.gantry(&["unmount", "tiny"]), place);
    });
}

#[test]
fn privileged_a_container_is_mounted_ended_running_and_live() {
    needs_mounts!(["crun"]);
    privately(|host| {
        let script = "echo one >/one; rm /etc/passwd; echo up; while [ ! -e /stop ]; do sleep 0.05; done; echo two >/two";
        let args = [
            "run",
            "-d",
            "--name",
            "box",
            "--writable",
            "tiny",
            "sh",
            "-c",
            script,
        ];
        host.gantry(&args);
        wait_for("the program", || {
            host.gantry(&["logs", "box"]).contains("up")
        });

        let snapshot = PathBuf::from(host.gantry(&["mount", "box"]));
        assert_eq!(fs::read_to_string(snapshot.join("one")).unwrap(), "one\n");
        assert!(
            !snapshot.join("etc/passwd").exists(),
            "deleted in the container"
        );
        assert!(snapshot.join("bin/busybox").exists());

        let live = PathBuf::from(host.gantry(&["mount", "--live", "box"]));
        fs::write(live.join("stop"), "").unwrap();
        wait_for("what was written through the live mount", || {
            live.join("two").exists()
        });
        assert!(!snapshot.join("two").exists(), "a snapshot stays as it was");
        host.gantry(&["wait", "box"]);

        let ended = PathBuf::from(host.gantry(&["mount", "box", &text(&host.dir("ended"))]));
        assert_eq!(fs::read_to_string(ended.join("two")).unwrap(), "two\n");
        assert!(ended.join("stop").exists());
        assert!(fs::write(ended.join("x"), "").is_err(), "read-only");
        let (_, said) = host.fails(&["rm", "box"]);
        assert_one_sentence(&said);
        assert!(said.contains("it is mounted at"), "{said}");
        let (_, said) = host.fails(&["mount", "--live", "box"]);
        assert!(said.contains("does not run"), "{said}");

        host.gantry(&["unmount", "--all"]);
        host.gantry(&["rm", "box"]);
        let left = fs::read_dir(host.world.root().join("containers")).unwrap();
        assert_eq!(left.count(), 0);
        host.remove_tiny();
    });
}

#[test]
fn privileged_what_a_container_changed_is_listed_as_docker_lists_it() {
    needs_mounts!(["crun"]);
    privately(|host| {
        let change = "echo x >/new; rm /etc/passwd; chmod 700 /tmp; mkdir -p /d/e; mv /etc/group /d/e/; rm -r /root; mkdir /root";
        let script = format!("{change}; echo up; exec sleep 60");
        host.gantry(&[
            "run",
            "-d",
            "--name",
            "box",
            "--writable",
            "tiny",
            "sh",
            "-c",
            &script,
        ]);
        wait_for("the program", || {
            host.gantry(&["logs", "box"]).contains("up")
        });
        let wanted = "A /d\nA /d/e\nA /d/e/group\nD /etc/group\nD /etc/passwd\nA /new\nC /tmp";
        assert_eq!(host.gantry(&["diff", "box"]), wanted, "while it runs");
        host.gantry(&["stop", "--time", "0", "box"]);
        assert_eq!(host.gantry(&["diff", "box"]), wanted, "once it has ended");
        let report = host.json(&["diff", "--json", "box"]);
        let tmp = report["files"].as_array().unwrap().last().unwrap();
        assert_eq!(tmp["differs"], serde_json::json!(["mode"]));
        assert_eq!(host.gantry(&["diff", "--packages", "box"]), "");
        let (status, _) = host.fails(&["diff", "--exit-code", "box"]);
        assert_eq!(status, 1);
        // What is read-only cannot differ.
        host.gantry(&["run", "-d", "--name", "plain", "tiny", "true"]);
        host.gantry(&["wait", "plain"]);
        assert_eq!(host.gantry(&["diff", "--exit-code", "plain"]), "");
        host.gantry(&["rm", "box", "plain"]);
        host.remove_tiny();
    });
}

#[test]
fn images_are_compared_by_files_packages_and_metadata() {
    needs!(["app-v1", "app-v2", "base", "python3"], [""; 0]);
    let world = World::new();
    for name in ["app-v1", "app-v2", "base", "python3"] {
        let from = gantry_testkit::fixtures::reference(name).unwrap();
        world.gantry(["copy", "--quiet", &from, &format!("store:{name}")]);
    }
    assert_eq!(world.gantry(["diff", "--exit-code", "base", "base"]), "");
    let report = world.json(["diff", "--json", "base", "python3"]);
    let added = |name: &str| {
        let packages = report["packages"].as_array().unwrap();
        let row = packages.iter().find(|row| row["name"] == name).unwrap();
        assert_eq!(
            (row["manager"].as_str(), &row["from"]),
            (Some("dpkg"), &serde_json::json!([]))
        );
        row["to"][0].as_str().unwrap().to_owned()
    };
    assert!(added("python3").starts_with("3."));
    let files = report["files"].as_array().unwrap();
    let python = files
        .iter()
        .find(|row| row["path"] == "/usr/bin/python3")
        .unwrap();
    assert_eq!(
        (python["change"].as_str(), python["kind"].as_str()),
        (Some("added"), Some("symlink"))
    );
    // The tree that is compared is the one that is mounted.
    let versions = world.json(["diff", "--json", "app-v1", "app-v2"]);
    assert_eq!(versions["packages"], serde_json::json!([]));
    assert!(!versions["files"].as_array().unwrap().is_empty());
    let (_, said) = world.fails(["diff", "base"]);
    assert_one_sentence(&said);
}
