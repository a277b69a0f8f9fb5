// SPDX-License-Identifier: Apache-2.0
//! Docker, to whose daemon ours is one more runtime.

use gantry_testkit::docker::{Dockerd, Options};
use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::skip;
use serde_json::Value;

use super::{Told, feed, image, obstacle, ok, runtime, tell, wait_until};

struct Docker {
    // Ended before its directory goes.
    daemon: Dockerd,
    _dir: Scratch,
}

impl Docker {
    /// A daemon with the image `busybox`.
    fn start(remapped: Option<&str>) -> Result<Self, String> {
        if let Some(reason) = obstacle(&["dockerd", "containerd"]) {
            return Err(reason);
        }
        let dir = scratch();
        let mut args = vec![
            format!("--add-runtime=gantry={}", runtime(dir.path()).display()),
            "--default-runtime=gantry".to_owned(),
        ];
        args.extend(remapped.map(|user| format!("--userns-remap={user}")));
        let options = Options {
            args,
            // By the user's name in the one file, by the group's in the other.
            subordinate_ids: remapped.map(|names| names.replace(':', RANGE) + RANGE),
            ..Options::default()
        };
        let daemon = Dockerd::start_with(&dir.join("docker"), options)
            .map_err(|error| format!("no dockerd here: {error:#}"))?;
        let told = feed(daemon.docker(["import", "-", "busybox"]), &image());
        assert_eq!(told.status, 0, "{told:?}");
        Ok(Self { daemon, _dir: dir })
    }

    fn ok(&self, words: &[&str]) -> String {
        ok(self.daemon.docker(words))
    }

    fn tell(&self, words: &[&str]) -> Told {
        tell(self.daemon.docker(words))
    }

    fn sleeping(&self, name: &str, more: &[&str]) {
        let mut words = vec!["run", "-d", "--network=none", "--name", name];
        words.extend(more);
        words.extend(["busybox", "sleep", "1000000"]);
        self.ok(&words);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let listed = self.tell(&["ps", "-aq"]).stdout;
        for id in listed.lines() {
            self.tell(&["rm", "-f", id]);
        }
    }
}

const RANGE: &str = ":200000:65536\n";

/// Ends the test where no daemon can run.
macro_rules! docker {
    ($remapped:expr) => {
        match Docker::start($remapped) {
            Ok(docker) => docker,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn privileged_docker_runs_and_acts_on_containers() {
    let docker = docker!(None);
    let script = "echo out; echo err >&2; exit 3";
    let told = docker.tell(&[
        "run",
        "--rm",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        (told.status, told.stdout.as_str(), told.stderr.as_str()),
        (3, "out", "err")
    );
    let told = docker.tell(&[
        "run",
        "--rm",
        "--network=none",
        "busybox",
        "no-such-program",
    ]);
    assert_eq!(told.status, 127, "{told:?}");

    docker.sleeping("box", &["--memory=64m", "--memory-swap=64m"]);
    assert_eq!(
        docker.ok(&["inspect", "-f", "{{.HostConfig.Runtime}}", "box"]),
        "gantry"
    );
    let told = docker.tell(&[
        "exec",
        "-u",
        "7",
        "-w",
        "/tmp",
        "box",
        "sh",
        "-c",
        "id -u; pwd; exit 5",
    ]);
    assert_eq!(
        (told.status, told.stdout.as_str(), told.stderr.as_str()),
        (5, "7\n/tmp", "")
    );
    let fed = docker.daemon.docker(["exec", "-i", "box", "cat"]);
    assert_eq!(feed(fed, b"through").stdout, "through");
    let stats: Value = serde_json::from_str(&docker.ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{json .}}",
        "box",
    ]))
    .unwrap();
    assert!(
        stats["MemUsage"].as_str().unwrap().ends_with("/ 64MiB"),
        "{stats}"
    );
    assert_eq!(stats["PIDs"], "1");
    docker.ok(&[
        "update",
        "--memory=96m",
        "--memory-swap=96m",
        "--pids-limit=40",
        "box",
    ]);
    let stats = docker.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "box"]);
    assert!(stats.ends_with("/ 96MiB"), "{stats}");
    docker.ok(&["pause", "box"]);
    assert_eq!(
        docker.ok(&["inspect", "-f", "{{.State.Status}}", "box"]),
        "paused"
    );
    docker.ok(&["unpause", "box"]);
    assert!(docker.ok(&["top", "box"]).contains("sleep 1000000"));
    docker.ok(&["restart", "-t", "0", "box"]);
    assert_eq!(docker.ok(&["exec", "box", "echo", "again"]), "again");
    docker.ok(&["kill", "box"]);
    assert_eq!(docker.ok(&["wait", "box"]), "137");
    assert!(docker.ok(&["logs", "box"]).is_empty());
    docker.ok(&["rm", "box"]);
}

#[test]
fn privileged_docker_puts_its_init_before_the_program() {
    let docker = docker!(None);
    docker.sleeping("box", &["--init"]);
    let first = docker.ok(&["exec", "box", "cat", "/proc/1/cmdline"]);
    assert!(first.starts_with("/sbin/docker-init"), "{first:?}");
    // An orphan is reaped by it.
    let script = "sh -c 'true & exit' & wait";
    docker.ok(&["exec", "box", "sh", "-c", script]);
    wait_until("no zombie is left", || {
        let states = docker.ok(&[
            "exec",
            "box",
            "sh",
            "-c",
            "grep -h State /proc/[0-9]*/status || :",
        ]);
        !states.contains("zombie")
    });
}

#[test]
fn privileged_docker_maps_the_users_of_containers() {
    let docker = docker!(Some("nobody:nogroup"));
    let run = ["run", "--rm", "--network=none", "busybox"];
    let told = docker.ok(&[&run[..], &["cat", "/proc/self/uid_map"]].concat());
    assert_eq!(
        told.split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "65536"]
    );
    docker.sleeping("box", &[]);
    let told = docker.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "id -u; touch /mine && ls -ln /mine",
    ]);
    assert!(told.starts_with("0\n"), "{told}");
    assert!(told.contains(" 0 "), "{told}");
}
