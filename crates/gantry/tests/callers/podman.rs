// SPDX-License-Identifier: Apache-2.0
//! podman, with a store and a state of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::skip;
use serde_json::{Value, json};

use super::{Told, feed, image, obstacle, ok, runtime, tell, wait_until};

struct Podman {
    dir: Scratch,
    runtime: PathBuf,
}

/// A podman with the image `busybox`, or the end of the test.
macro_rules! podman {
    () => {
        match obstacle(&["podman", "conmon"]) {
            Some(reason) => skip!("{reason}"),
            None => Podman::new(),
        }
    };
}

impl Podman {
    fn new() -> Self {
        let dir = scratch();
        let runtime = runtime(dir.path());
        // The first container of a pod has an image of podman's own making elsewhere; here the only one there is.
        let settings = "[engine]\ninfra_image = \"localhost/busybox:latest\"\n";
        fs::write(dir.join("containers.conf"), settings).unwrap();
        fs::write(dir.join("policy.json"), ACCEPT).unwrap();
        let podman = Self { dir, runtime };
        // The first container of a pod runs what its image says.
        let import = [
            "import",
            "-q",
            "-c=CMD=[\"sleep\",\"1000000\"]",
            "-",
            "busybox",
        ];
        let told = feed(podman.command(&import), &image());
        assert_eq!(told.status, 0, "{told:?}");
        podman
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (flag, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(flag).arg(self.dir.join(name));
        }
        command
            .args(["--storage-driver", "vfs", "--events-backend", "file"])
            .args(["--cgroup-manager", "cgroupfs", "--runtime"])
            .arg(&self.runtime)
            .args(words)
            .env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command
    }

    fn ok(&self, words: &[&str]) -> String {
        ok(self.command(words))
    }

    fn tell(&self, words: &[&str]) -> Told {
        tell(self.command(words))
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(words)).unwrap()
    }

    /// Starts a container that sleeps.
    fn sleeping(&self, name: &str, more: &[&str]) {
        let mut words = vec!["run", "-d", "--network=none", "--name", name];
        words.extend(more);
        words.extend(["busybox", "sleep", "1000000"]);
        self.ok(&words);
    }

    fn status(&self, name: &str) -> String {
        self.ok(&["inspect", "--format", "{{.State.Status}}", name])
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for words in [["pod", "rm", "-f", "-a"], ["rm", "-f", "-a", "-t=0"]] {
            drop(self.command(&words).output());
        }
    }
}

const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

#[test]
fn privileged_podman_runs_and_removes() {
    let podman = podman!();
    let run = ["run", "--rm", "--network=none", "busybox"];
    let told = podman.tell(&[&run[..], &["sh", "-c", "echo out; echo err >&2; exit 3"]].concat());
    assert_eq!(
        (told.status, told.stdout.as_str(), told.stderr.as_str()),
        (3, "out", "err")
    );
    let told = podman.tell(&[&run[..], &["no-such-program"]].concat());
    assert_eq!(told.status, 127, "{told:?}");
    let told = podman.tell(&[&run[..], &["/etc"]].concat());
    assert_eq!(told.status, 126, "{told:?}");
    let fed = podman.command(&["run", "--rm", "-i", "--network=none", "busybox", "cat"]);
    assert_eq!(feed(fed, b"through").stdout, "through");
    let limited = podman.ok(&[
        "run", "--rm", "--network=none", "--memory=64m", "--pids-limit=33", "--read-only",
        "--cap-drop=all", "--user=7", "--workdir=/tmp", "--hostname=h", "--tmpfs=/scratch",
        "busybox", "sh", "-c", "id -u; pwd; grep CapEff /proc/self/status; touch /x || echo refused; touch /scratch/x && cat /proc/sys/kernel/hostname",
    ]);
    assert_eq!(limited, "7\n/tmp\nCapEff:\t0000000000000000\nrefused\nh");
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
}

#[test]
fn privileged_podman_acts_on_a_container_that_runs() {
    let podman = podman!();
    podman.sleeping("c", &[]);
    let runtime = podman.ok(&["inspect", "--format", "{{.OCIRuntime}}", "c"]);
    assert_eq!(runtime, podman.runtime.to_str().unwrap());

    let told = podman.tell(&[
        "exec",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "7:9",
        "c",
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $A; exit 5",
    ]);
    assert_eq!((told.status, told.stdout.as_str()), (5, "7\n9\n/tmp\nb"));
    // Nothing of the runtime's own between the lines of a program.
    assert_eq!(told.stderr, "");
    let fed = podman.command(&["exec", "-i", "c", "cat"]);
    assert_eq!(feed(fed, b"through").stdout, "through");
    let told = podman.tell(&["exec", "-t", "c", "readlink", "/proc/self/fd/0"]);
    assert_eq!((told.status, told.stdout.as_str()), (0, "/dev/pts/0"));
    assert_eq!(podman.tell(&["exec", "c", "no-such-program"]).status, 127);
    podman.ok(&["exec", "-d", "c", "touch", "/detached"]);
    wait_until("the detached process", || {
        podman.tell(&["exec", "c", "ls", "/detached"]).status == 0
    });

    podman.ok(&["pause", "c"]);
    assert_eq!(podman.status("c"), "paused");
    assert_ne!(podman.tell(&["exec", "c", "true"]).status, 0);
    podman.ok(&["unpause", "c"]);
    assert_eq!(podman.status("c"), "running");

    let stats = podman.json(&["stats", "--no-stream", "--format", "json", "c"]);
    assert_eq!(stats[0]["pids"], "1", "{stats}");
    let top = podman.ok(&["top", "c", "pid", "args"]);
    assert!(top.contains("sleep 1000000"), "{top}");

    fs::write(podman.dir.join("in"), "copied").unwrap();
    let inside = podman.dir.join("in");
    podman.ok(&["cp", inside.to_str().unwrap(), "c:/tmp/in"]);
    assert_eq!(podman.ok(&["exec", "c", "cat", "/tmp/in"]), "copied");
    let outside = podman.dir.join("out");
    podman.ok(&["cp", "c:/tmp/in", outside.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(outside).unwrap(), "copied");

    podman.ok(&["restart", "-t=0", "c"]);
    assert_eq!(podman.ok(&["exec", "c", "echo", "again"]), "again");
    podman.ok(&["kill", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]), "137");
    podman.ok(&["start", "c"]);
    podman.ok(&["stop", "-t=0", "c"]);
    assert_eq!(podman.status("c"), "exited");
    podman.ok(&["rm", "c"]);
}

#[test]
fn privileged_podman_keeps_logs_and_asks_for_health() {
    let podman = podman!();
    podman.ok(&[
        "run",
        "--network=none",
        "--name=l",
        "busybox",
        "sh",
        "-c",
        "echo one; echo two",
    ]);
    assert_eq!(podman.ok(&["logs", "l"]), "one\ntwo");
    // Its timer is systemd's; asked by hand the probe is an exec.
    podman.sleeping(
        "h",
        &[
            "--health-interval=disable",
            "--health-cmd=ls /healthy",
            "--health-retries=1",
        ],
    );
    assert_eq!(podman.tell(&["healthcheck", "run", "h"]).status, 1);
    let health = ["inspect", "--format", "{{.State.Health.Status}}", "h"];
    assert_eq!(podman.ok(&health), "unhealthy");
    podman.ok(&["exec", "h", "touch", "/healthy"]);
    assert_eq!(podman.tell(&["healthcheck", "run", "h"]).status, 0);
    assert_eq!(podman.ok(&health), "healthy");
}

/// The containers of a pod join the namespaces of its first one, with `shareProcessNamespace` that of pids, too.
#[test]
fn privileged_podman_plays_a_pod_of_two_containers() {
    if let Some(stray) = stray_hierarchy() {
        skip!(
            "{stray} is a plain directory that crun or runc left where no hierarchy is mounted: podman cannot remove its groups there"
        );
    }
    let podman = podman!();
    for share in [false, true] {
        let container = |name: &str| {
            json!({"name": name, "image": "localhost/busybox:latest", "command": ["sleep", "1000000"],
                   "resources": {"limits": {"memory": "64Mi"}}})
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two"},
            "spec": {"shareProcessNamespace": share, "containers": [container("a"), container("b")]},
        });
        let path = podman.dir.join("pod.yaml");
        fs::write(&path, pod.to_string()).unwrap();
        let path = path.to_str().unwrap();
        podman.ok(&["play", "kube", "--network=none", path]);
        let link = |name: &str, kind: &str| {
            podman.ok(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")])
        };
        for kind in ["net", "ipc", "uts"] {
            assert_eq!(link("two-a", kind), link("two-b", kind), "{kind}");
        }
        assert_ne!(link("two-a", "mnt"), link("two-b", "mnt"));
        assert_eq!(link("two-a", "pid") == link("two-b", "pid"), share);
        let seen = podman.ok(&[
            "exec",
            "two-a",
            "sh",
            "-c",
            "ps | grep -c '[s]leep 1000000'",
        ]);
        assert_eq!(seen, if share { "3" } else { "1" });
        podman.ok(&["kill", "two-a"]);
        assert_eq!(podman.ok(&["wait", "two-a"]), "137");
        assert_eq!(podman.status("two-b"), "running");
        podman.ok(&["play", "kube", "--down", path]);
        assert_eq!(podman.ok(&["ps", "-aq"]), "");
    }
}

/// A directory among the hierarchies of version 1 that is none.
fn stray_hierarchy() -> Option<String> {
    let base = Path::new("/sys/fs/cgroup");
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|stat| stat.dev());
    let mounted = device(&base.join("memory")) != device(base);
    let entries = fs::read_dir(base).ok()?.flatten().map(|entry| entry.path());
    let stray = |path: &PathBuf| mounted && path.is_dir() && device(path) == device(base);
    let strays: Vec<PathBuf> = entries
        .filter(stray)
        .filter(|path| !path.is_symlink())
        .collect();
    strays.first().map(|path| path.display().to_string())
}
