// SPDX-License-Identifier: Apache-2.0
//! Containers of a user without privileges, who has subordinate ids.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::{skip, subordinate};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Told, feed, image, obstacle, ok, tell};

const IDS: &str = "nobody:100000:65536\n";
/// Debian's nobody and nogroup.
const NOBODY: u32 = 65534;

/// A home of the user's with our runtime in it.
struct Home(Scratch);

impl Home {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Home {
    /// podman leaves a process that keeps the user's namespaces.
    fn drop(&mut self) {
        let kept = fs::read_to_string(self.path().join("run/libpod/tmp/pause.pid"));
        if let Some(pid) = kept
            .ok()
            .and_then(|text| Pid::from_raw(text.trim().parse().ok()?))
        {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

fn home() -> Home {
    let dir = scratch();
    for name in ["run", "tmp"] {
        fs::create_dir(dir.join(name)).unwrap();
        chown(dir.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let runtime = dir.join("gantry-runtime");
    fs::copy(env!("CARGO_BIN_EXE_gantry"), &runtime).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Home(dir)
}

fn user(home: &Path, program: &str, words: &[&str]) -> Command {
    let mut command = subordinate::user_command(home, IDS, program).unwrap();
    command.args(words).env("TMPDIR", "/mnt/tmp");
    command
}

fn runtime(home: &Path, words: &[&str]) -> Command {
    let mut command = user(home, "/mnt/gantry-runtime", &["--root", "/mnt/state"]);
    command.args(words);
    command
}

fn obstacle_to_users(programs: &[&str]) -> Option<String> {
    obstacle(&[&["setpriv", "unshare", "newuidmap", "newgidmap"], programs].concat()).or_else(
        || {
            let dir = scratch();
            let tried = subordinate::command(dir.path(), IDS, "true");
            match tried.map(tell) {
                Ok(told) if told.status == 0 => None,
                Ok(told) => Some(format!("no subordinate ids for tests: {}", told.stderr)),
                Err(error) => Some(format!("no subordinate ids for tests: {error:#}")),
            }
        },
    )
}

/// A bundle of the user's whose program is `sh -c SCRIPT`.
fn bundle(home: &Path, script: &str, mappings: &Value) {
    let rootfs = home.join("rootfs");
    if !rootfs.exists() {
        fs::create_dir(&rootfs).unwrap();
        chown(&rootfs, Some(NOBODY), Some(NOBODY)).unwrap();
        let told = feed(user(home, "tar", &["-C", "rootfs", "-xf", "-"]), &image());
        assert_eq!(told.status, 0, "{told:?}");
    }
    fs::remove_file(home.join("config.json")).ok();
    ok(runtime(home, &["spec", "--rootless", "--bundle", "/mnt"]));
    let path = home.join("config.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    document["process"]["terminal"] = json!(false);
    document["process"]["args"] = json!(["sh", "-c", script]);
    document["linux"]["uidMappings"] = mappings.clone();
    document["linux"]["gidMappings"] = mappings.clone();
    fs::write(path, document.to_string()).unwrap();
}

#[test]
fn privileged_user_runs_with_the_ids_that_newuidmap_gives() {
    if let Some(reason) = obstacle_to_users(&[]) {
        skip!("{reason}");
    }
    let home = home();
    let all = json!([
        {"containerID": 0, "hostID": NOBODY, "size": 1},
        {"containerID": 1, "hostID": 100_000, "size": 65_536},
    ]);
    let run = |script: &str, mappings: &Value| -> Told {
        bundle(home.path(), script, mappings);
        tell(runtime(home.path(), &["run", "--bundle", "/mnt", "c"]))
    };
    let told = run(
        "cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups",
        &all,
    );
    assert_eq!(told.status, 0, "{told:?}");
    let told: Vec<&str> = told.stdout.split_whitespace().collect();
    assert_eq!(
        told,
        [
            "0", "65534", "1", "1", "100000", "65536", "0", "65534", "1", "1", "100000", "65536",
            "allow"
        ]
    );
    // Other users are to be had, and the ids are the user's own to give.
    bundle(home.path(), "exec sleep 1000000", &all);
    ok(runtime(
        home.path(),
        &["run", "--detach", "--bundle", "/mnt", "c"],
    ));
    let told = ok(runtime(home.path(), &["exec", "-u", "7:8", "c", "id"]));
    assert_eq!(told, "uid=7(user) gid=8");
    ok(runtime(home.path(), &["delete", "--force", "c"]));

    // More than is the user's: newuidmap says no, and nothing is left.
    let told = run(
        "true",
        &json!([{"containerID": 0, "hostID": 0, "size": 1000}]),
    );
    assert_eq!(told.status, 1);
    assert!(told.stderr.contains("newuidmap"), "{told:?}");
    assert_eq!(fs::read_dir(home.path().join("state")).unwrap().count(), 0);

    // The user's own id alone takes no help, and gives no groups.
    let own = json!([{"containerID": 0, "hostID": NOBODY, "size": 1}]);
    let told = run("id -u; cat /proc/self/setgroups", &own);
    assert_eq!(
        (told.status, told.stdout.as_str()),
        (0, "0\ndeny"),
        "{told:?}"
    );
}

#[test]
fn privileged_podman_of_a_user_runs_and_execs() {
    if let Some(reason) = obstacle_to_users(&["podman", "conmon"]) {
        skip!("{reason}");
    }
    let home = home();
    fs::create_dir_all(home.path().join(".config/containers")).unwrap();
    chown(home.path().join(".config"), Some(NOBODY), Some(NOBODY)).unwrap();
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    fs::write(home.path().join(".config/containers/policy.json"), policy).unwrap();
    // podman asks no runtime what it can: that stands here, by the runtime's name.
    let settings = r#"
        [engine]
        runtime = "gantry"
        runtime_supports_nocgroup = ["gantry"]
        runtime_supports_json = ["gantry"]
        [engine.runtimes]
        gantry = ["/mnt/gantry-runtime"]
    "#;
    fs::write(
        home.path().join(".config/containers/containers.conf"),
        settings,
    )
    .unwrap();
    let podman = |words: &[&str]| {
        let mut command = user(home.path(), "podman", &["--storage-driver", "vfs"]);
        command
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .args(words);
        command
    };
    let told = feed(podman(&["import", "-q", "-", "busybox"]), &image());
    if told.status != 0 {
        skip!("no podman for users here: {}", told.stderr);
    }
    let run = [
        "run",
        "--rm",
        "--network=none",
        "--cgroups=disabled",
        "busybox",
    ];
    let told = tell(podman(
        &[
            &run[..],
            &["sh", "-c", "id -u; cat /proc/self/uid_map; exit 3"],
        ]
        .concat(),
    ));
    assert_eq!(told.status, 3, "{told:?}");
    let words: Vec<&str> = told.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "65534", "1", "1", "100000", "65536"]);
    // And one that goes on, with an exec of another user's.
    let sleeping = [
        "run",
        "-d",
        "--network=none",
        "--name=box",
        "busybox",
        "sleep",
        "1000000",
    ];
    ok(podman(&sleeping));
    let told = tell(podman(&["exec", "-u", "7:8", "box", "id"]));
    assert_eq!(
        (told.status, told.stdout.as_str()),
        (0, "uid=7(user) gid=8"),
        "{told:?}"
    );
    assert_eq!(told.stderr, "");
    ok(podman(&["rm", "-f", "-t=0", "box"]));
}
