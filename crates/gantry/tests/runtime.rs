// SPDX-License-Identifier: Apache-2.0
//! `gantry runtime`: our own OCI runtime, called as podman and its kin call one.
#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod bundles;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bundles::Host;
use serde_json::{Value, json};

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn privileged_default_bundle_is_confined_as_its_document_says() {
    let host = host!();
    let told = host.output(
        "id; grep -E 'Cap|NoNewPrivs' /proc/self/status; hostname; ls /proc/self/fd; cat /proc/keys; \
         echo x > /forbidden || echo read-only; ls /dev/null /dev/ptmx /dev/shm; \
         cat /proc/1/cmdline | tr '\\0' ' '; exit 0",
        |_| (),
    );
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "uid=0(root) gid=0");
    assert!(lines.contains(&"CapInh:\t0000000000000000"), "{told}");
    assert!(lines.contains(&"CapBnd:\t0000000020000420"), "{told}");
    assert!(lines.contains(&"CapEff:\t0000000020000420"), "{told}");
    assert!(lines.contains(&"NoNewPrivs:\t1"), "{told}");
    assert!(lines.contains(&"gantry"), "{told}");
    assert!(lines.contains(&"read-only"), "{told}");
    // Standard streams, and the one that lists them.
    assert!(told.contains("\n0\n1\n2\n3\n"), "{told}");
    assert!(!told.contains("\n4\n"), "{told}");
    host.assert_nothing_left();
}

#[test]
fn privileged_status_is_the_programs_own() {
    let host = host!();
    assert_eq!(host.run("exit 7", |_| ()).status.code(), Some(7));
    assert_eq!(
        host.run("kill -9 $$; kill -9 -1; sleep 9", |document| {
            // The first process of a pid namespace is deaf to its own signals.
            remove_namespace(document, "pid");
        })
        .status
        .code(),
        Some(137)
    );
    host.assert_nothing_left();
}

fn remove_namespace(document: &mut Value, kind: &str) {
    let namespaces = document["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
}

#[test]
fn privileged_life_of_a_container_in_single_verbs() {
    let host = host!();
    let bundle = host.bundle("echo started; exec sleep 600", |_| ());
    let pid_file = host.path("pid");
    let out = host.path("out");
    let mut create = host.command(&[
        "create",
        "--pid-file",
        pid_file.to_str().unwrap(),
        "--bundle",
    ]);
    create
        .arg(&bundle)
        .arg("c")
        .stdout(fs::File::create(&out).unwrap())
        .stderr(Stdio::inherit());
    assert!(create.status().unwrap().success());
    let state = host.json(&["state", "c"]);
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "c");
    assert_eq!(state["bundle"], bundle.to_str().unwrap());
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap(),
        state["pid"].to_string()
    );
    // Not before it is started.
    assert_eq!(fs::read_to_string(&out).unwrap(), "");
    assert!(host.fails(&["delete", "c"]).contains("created"));
    host.ok(&["start", "c"]);
    wait_until("output", || {
        fs::read_to_string(&out).unwrap() == "started\n"
    });
    assert_eq!(host.json(&["state", "c"])["status"], "running");
    assert!(host.fails(&["start", "c"]).contains("running"));
    assert!(host.fails(&["delete", "c"]).contains("running"));
    assert_eq!(host.ok(&["list", "-q"]), "c");
    assert_eq!(
        host.json(&["list", "--format", "json"])[0]["status"],
        "running"
    );
    assert_eq!(
        host.json(&["ps", "--format", "json", "c"]),
        json!([state["pid"]])
    );

    assert_eq!(host.ok(&["exec", "c", "echo", "hello"]), "hello");
    assert_eq!(host.status(&["exec", "c", "sh", "-c", "exit 9"]), 9);
    assert_eq!(
        host.ok(&[
            "exec",
            "-u",
            "5:6",
            "-e",
            "A=b",
            "--cwd",
            "/proc",
            "c",
            "sh",
            "-c",
            "id; echo $A; pwd"
        ]),
        "uid=5 gid=6\nb\n/proc"
    );
    assert!(
        host.fails(&["exec", "c", "nope"])
            .contains("executable file not found in $PATH")
    );
    assert!(host.fails(&["exec", "c", "/etc"]).contains("exec:"));

    host.ok(&["kill", "c", "KILL"]);
    wait_until("the end", || {
        host.json(&["state", "c"])["status"] == "stopped"
    });
    assert_eq!(host.json(&["state", "c"])["pid"], 0);
    assert!(host.fails(&["exec", "c", "true"]).contains("stopped"));
    assert!(host.fails(&["kill", "c", "TERM"]).contains("stopped"));
    host.ok(&["delete", "c"]);
    assert!(host.fails(&["state", "c"]).contains("does not exist"));
    assert!(host.fails(&["delete", "c"]).contains("does not exist"));
    host.ok(&["delete", "--force", "c"]);
    host.assert_nothing_left();
}

#[test]
fn privileged_failure_is_told_and_undone() {
    let host = host!();
    for (edit, said) in [
        (
            json!({"process": {"args": ["nope"]}}),
            "executable file not found in $PATH",
        ),
        (json!({"process": {"args": ["/etc"]}}), "permission denied"),
        (
            json!({"process": {"args": ["/nope"]}}),
            "no such file or directory",
        ),
        (json!({"root": {"path": "nowhere"}}), "root file system"),
        (
            json!({"mounts": [{"destination": "/m", "type": "bind", "source": "/nowhere"}]}),
            "/nowhere",
        ),
        (
            json!({"mounts": [{"destination": "/m", "type": "nofs"}]}),
            "nofs",
        ),
        (
            json!({"linux": {"sysctl": {"kernel.panic": "1"}}}),
            "belongs to no namespace",
        ),
        (
            json!({"hostname": "a", "linux": {"sysctl": {"kernel.hostname": "b"}}}),
            "conflicts with .hostname",
        ),
        (json!({"ociVersion": "2.0.0"}), ".ociVersion"),
    ] {
        let log = host.path("log");
        fs::remove_file(&log).ok();
        let bundle = host.bundle("true", |document| merge(document, &edit));
        let output = host
            .command(&[
                "--log",
                log.to_str().unwrap(),
                "--log-format",
                "json",
                "run",
                "--bundle",
            ])
            .arg(&bundle)
            .arg("c")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{edit}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(said), "{edit}: {stderr}");
        let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains(said), "{line}");
        host.assert_nothing_left();
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn privileged_terminal_goes_to_the_console_socket() {
    let host = host!();
    let bundle = host.bundle(
        "tty; stat -c %t:%T /dev/console; exec sleep 600",
        |document| {
            document["process"]["terminal"] = json!(true);
            document["process"]["consoleSize"] = json!({"height": 7, "width": 9});
        },
    );
    // Longer than a socket's address may be.
    let dir = host.path(&"d".repeat(120));
    fs::create_dir(&dir).unwrap();
    let listener = {
        let held = fs::File::open(&dir).unwrap();
        let path = format!("/proc/self/fd/{}/s", std::os::fd::AsRawFd::as_raw_fd(&held));
        UnixListener::bind(path).unwrap()
    };
    let mut command = host.command(&["run", "--detach", "--bundle"]);
    command
        .arg(&bundle)
        .arg("--console-socket")
        .arg(dir.join("s"))
        .arg("c");
    assert!(command.status().unwrap().success());
    let (connection, _) = listener.accept().unwrap();
    let (_, mut fds) = gantry_sys::socket::receive(&connection, &mut [0; 64], false).unwrap();
    let master = fds.pop().unwrap();
    let size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (7, 9));
    let mut told = String::new();
    wait_until("output", || {
        let mut buffer = [0; 256];
        let length = rustix::io::read(&master, &mut buffer).unwrap();
        told.push_str(&String::from_utf8_lossy(&buffer[..length]));
        told.lines().count() >= 2
    });
    assert_eq!(told, "/dev/pts/0\r\n88:0\r\n");
    host.ok(&["delete", "--force", "c"]);
    host.assert_nothing_left();
}

#[test]
fn privileged_hooks_run_at_their_stages_in_order() {
    let host = host!();
    let trace = host.path("trace");
    fs::write(&trace, "").unwrap();
    let hook = |stage: &str| {
        let script = format!(
            "s=$(cat); echo \"{stage} $(echo $s | sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') $(readlink /proc/self/ns/mnt)\" >> {}",
            trace.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let bundle = host.bundle("echo program >> /trace", |document| {
        document["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /trace"]}],
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
        let mounts = document["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/trace", "type": "bind", "source": trace, "options": ["bind"]}));
    });
    // The container keeps the streams that it was created with.
    let mut create = host.command(&["create", "--bundle", bundle.to_str().unwrap(), "c"]);
    create.stdout(Stdio::null()).stderr(Stdio::inherit());
    assert!(create.status().unwrap().success());
    let ours = fs::read_link("/proc/self/ns/mnt")
        .unwrap()
        .display()
        .to_string();
    let told = fs::read_to_string(&trace).unwrap();
    let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert_eq!(lines[0], ["prestart", "creating", &ours]);
    assert_eq!(lines[1], ["createRuntime", "creating", &ours]);
    assert_eq!(lines[2][..2], ["createContainer", "creating"]);
    assert_ne!(lines[2][2], ours);
    host.ok(&["start", "c"]);
    wait_until("the end", || {
        host.json(&["state", "c"])["status"] == "stopped"
    });
    host.ok(&["delete", "c"]);
    let told = fs::read_to_string(&trace).unwrap();
    let mut names: Vec<&str> = told
        .lines()
        .skip(3)
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(names.remove(0), "startContainer");
    assert_eq!(names.pop(), Some("poststop"));
    names.sort_unstable();
    assert_eq!(names, ["poststart", "program"]);
    host.assert_nothing_left();
}

#[test]
fn privileged_failing_hook_ends_the_container_before_its_program() {
    let host = host!();
    for stage in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let mark = host.path("mark");
        fs::write(&mark, "").unwrap();
        let bundle = host.bundle("echo ran > /mark", |document| {
            document["hooks"] = json!({ stage: [{"path": "/bin/false"}] });
            if stage == "startContainer" {
                document["hooks"] = json!({ stage: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 1"]}] });
            }
            let mounts = document["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/mark", "type": "bind", "source": mark, "options": ["bind"]}));
        });
        let said = host.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
        assert!(said.contains(stage), "{said}");
        assert_eq!(fs::read_to_string(&mark).unwrap(), "");
        host.assert_nothing_left();
    }
}

#[test]
fn privileged_foreground_passes_signals_on_and_loses_no_end() {
    let host = host!();
    let bundle = host.bundle(
        "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
        |_| (),
    );
    let out = host.path("out");
    let mut child = host
        .command(&["run", "--bundle"])
        .arg(&bundle)
        .arg("c")
        .stdout(fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    wait_until("ready", || fs::read_to_string(&out).unwrap() == "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(fs::read_to_string(&out).unwrap(), "ready\ngot\n");
    // The shortest program there is, many times: its end may come before anything else.
    for _ in 0..20 {
        assert_eq!(host.run("exit 3", |_| ()).status.code(), Some(3));
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_descriptors_are_passed_only_when_asked() {
    let host = host!();
    let bundle = host.bundle("ls /proc/self/fd | tr '\\n' ' '; cat <&3", |_| ());
    let script = format!(
        "exec 3<<<three 4</etc/passwd; exec {} --root {} run --preserve-fds 1 --bundle {} c",
        format_args!("{} runtime", env!("CARGO_BIN_EXE_gantry")),
        host.root().display(),
        bundle.display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "0 1 2 3 4 three\n"
    );
    host.assert_nothing_left();
}

/// A container that sleeps, and is ended whatever happens.
fn sleeping(host: &Host, edit: impl FnOnce(&mut Value)) {
    let bundle = host.bundle("exec sleep 600", edit);
    let mut run = host.command(&["run", "--detach", "--bundle"]);
    assert!(
        run.arg(bundle)
            .arg("c")
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn privileged_paused_container_stands_still_until_it_is_resumed() {
    let host = host!();
    sleeping(&host, |_| ());
    assert!(host.fails(&["resume", "c"]).contains("running"));
    host.ok(&["pause", "c"]);
    assert_eq!(host.json(&["state", "c"])["status"], "paused");
    assert!(host.fails(&["pause", "c"]).contains("paused"));
    assert!(host.fails(&["exec", "c", "true"]).contains("paused"));
    host.ok(&["resume", "c"]);
    assert_eq!(host.json(&["state", "c"])["status"], "running");
    host.ok(&["pause", "c"]);
    // Frozen processes die, too.
    host.ok(&["delete", "--force", "c"]);
    host.assert_nothing_left();
}

/// Every member of `wanted` is in `have`, however deep.
fn assert_members(have: &Value, wanted: &Value, path: &str) {
    if let Some(members) = wanted.as_object() {
        for (key, value) in members {
            let below = have
                .get(key)
                .unwrap_or_else(|| panic!("{path}/{key} is missing in {have}"));
            assert_members(below, value, &format!("{path}/{key}"));
        }
    }
}

#[test]
fn privileged_limits_change_and_are_told_as_runc_tells_them() {
    let host = host!();
    let limits = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}});
    sleeping(&host, |document| {
        document["linux"]["resources"] = limits.clone()
    });
    let stats = || host.json(&["events", "--stats", "c"]);
    let told = stats();
    assert_eq!((&told["type"], &told["id"]), (&json!("stats"), &json!("c")));
    assert_eq!(told["data"]["pids"], json!({"current": 1, "limit": 20}));
    assert_eq!(told["data"]["memory"]["usage"]["limit"], json!(64 << 20));

    host.ok(&["update", "--memory", "32m", "--pids-limit", "7", "c"]);
    let told = stats();
    assert_eq!(told["data"]["pids"]["limit"], 7);
    assert_eq!(told["data"]["memory"]["usage"]["limit"], json!(32 << 20));
    let file = host.path("limits.json");
    fs::write(&file, r#"{"pids": {"limit": 9}}"#).unwrap();
    host.ok(&["update", "-r", file.to_str().unwrap(), "c"]);
    assert_eq!(stats()["data"]["pids"]["limit"], 9);
    assert!(
        host.fails(&["update", "--memory", "1x", "c"])
            .contains("no such number")
    );

    if gantry_testkit::tool::find("runc").is_some() {
        // The members that runc tells of a container of its own, with the same limits.
        let root = host.path("runc");
        let runc = |words: &[&str]| {
            let mut command = std::process::Command::new("runc");
            let output = command
                .arg("--root")
                .arg(&root)
                .args(words)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(output.status.success(), "{words:?} {output:?}");
            output.stdout
        };
        let bundle = host.bundle("exec sleep 600", |document| {
            document["linux"]["resources"] = limits.clone();
            document["linux"]["cgroupsPath"] = format!("{}-runc", host.cgroup()).into();
        });
        let mut run = std::process::Command::new("runc");
        run.arg("--root")
            .arg(&root)
            .args(["run", "-d", "-b"])
            .arg(&bundle)
            .arg("r");
        assert!(
            run.stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        let theirs: Value = serde_json::from_slice(&runc(&["events", "--stats", "r"])).unwrap();
        runc(&["delete", "--force", "r"]);
        let mut shape = theirs["data"].clone();
        // Numbers of zero are left out by both, and are not zero at the same moments.
        for member in ["cpu/usage", "memory/raw", "blkio"] {
            if let Some(place) = shape.pointer_mut(&format!("/{member}")) {
                *place = json!({});
            }
        }
        // So is the cache: what was in memory before is counted where it was read first. It has a number of its own to be held to.
        shape["memory"].as_object_mut().unwrap().remove("cache");
        let memory = &told["data"]["memory"];
        let raw = memory["raw"].as_object().unwrap();
        let cache = raw.get("cache").or_else(|| raw.get("file")).unwrap();
        assert_eq!(memory.get("cache").unwrap_or(&json!(0)), cache);
        assert_members(&told["data"], &shape, "");
    }
    host.ok(&["delete", "--force", "c"]);
    host.assert_nothing_left();
}

#[test]
fn privileged_events_end_with_the_container_and_tell_of_kills_for_memory() {
    let host = host!();
    let bundle = host.bundle(
        "sleep 1; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1",
        |document| {
            document["linux"]["resources"] =
                json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        },
    );
    let mut run = host.command(&["run", "--detach", "--bundle"]);
    assert!(
        run.arg(bundle)
            .arg("c")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let told = host.ok(&["events", "--interval", "100ms", "c"]);
    let kinds: Vec<String> = told
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(kinds.iter().any(|kind| kind == "oom"), "{kinds:?}");
    assert!(
        kinds.iter().filter(|kind| *kind == "stats").count() > 5,
        "{kinds:?}"
    );
    host.ok(&["delete", "--force", "c"]);
    host.assert_nothing_left();
}

#[test]
fn privileged_root_below_a_shared_mount_is_pivoted_into() {
    let host = host!();
    let bundle = host.bundle("exit 4", |_| ());
    let runtime = format!(
        "{} runtime --root {} run --bundle {} c",
        env!("CARGO_BIN_EXE_gantry"),
        host.root().display(),
        bundle.display()
    );
    // As systemd leaves every host.
    let mut shared = std::process::Command::new("unshare");
    shared.args(["--mount", "--propagation", "shared", "sh", "-c"]);
    let output = shared
        .arg(format!("mount --make-rshared / && {runtime}"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    host.assert_nothing_left();
}

/// Users of the container are users 100000 and up of the host.
fn with_users(document: &mut Value) {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    document["linux"]["uidMappings"] = map.clone();
    document["linux"]["gidMappings"] = map;
    let namespaces = document["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
}

fn with_mount(document: &mut Value, mount: Value) {
    document["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn privileged_users_of_the_container_are_others_of_the_host() {
    let host = host!();
    let told = host.output(
        "cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g /dev/mqueue /dev/shm /proc/self/fd; echo x > /dev/null",
        with_users,
    );
    assert_eq!(told, " 0 100000 65536\n0:0\n0:0\n0:0");
    host.assert_nothing_left();
}

#[test]
fn privileged_mounts_are_shown_through_mappings() {
    let host = host!();
    let source = host.path("owned");
    fs::create_dir(&source).unwrap();
    std::os::unix::fs::chown(&source, Some(5), Some(6)).unwrap();
    let mapping = |first| json!([{"containerID": 0, "hostID": first, "size": 100}]);
    let told = host.output("stat -c %u:%g /m", |document| {
        with_mount(
            document,
            json!({"destination": "/m", "type": "bind", "source": source,
            "options": ["bind"], "uidMappings": mapping(1000), "gidMappings": mapping(2000)}),
        );
    });
    assert_eq!(told, "1005:2006");
    let told = host.output("stat -c %u:%g /m; touch /m/new; stat -c %u:%g /m/new", |document| {
        with_users(document);
        with_mount(document, json!({"destination": "/m", "type": "bind", "source": source, "options": ["rbind", "ridmap"]}));
        std::os::unix::fs::chown(&source, Some(0), Some(0)).unwrap();
    });
    assert_eq!(told, "0:0\n0:0");
    let made = fs::metadata(source.join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0);
    host.assert_nothing_left();
}

#[test]
fn privileged_clocks_are_the_containers_own() {
    let host = host!();
    for users in [false, true] {
        let told = host.output("cat /proc/uptime", |document| {
            let namespaces = document["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "time"}));
            document["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
            if users {
                with_users(document);
            }
        });
        assert!(
            told.split('.').next().unwrap().parse::<u64>().unwrap() > 1_000_000_000,
            "{told}"
        );
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_namespaces_of_others_are_joined() {
    let host = host!();
    let mut other = std::process::Command::new("unshare")
        .args(["-Unr", "--uts", "sleep", "600"])
        .spawn()
        .unwrap();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", other.id());
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    wait_until("the other's namespace", || {
        fs::read_link(path("user")).is_ok_and(|link| link != own)
    });
    wait_until("the other's map", || {
        fs::read_to_string(format!("/proc/{}/uid_map", other.id())).is_ok_and(|map| !map.is_empty())
    });
    let told = host.output(
        "readlink /proc/self/ns/net; readlink /proc/self/ns/user",
        |document| {
            let namespaces = document["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.push(json!({"type": "network", "path": path("net")}));
            namespaces.push(json!({"type": "user", "path": path("user")}));
            // Its only group is root's.
            document["mounts"]
                .as_array_mut()
                .unwrap()
                .retain(|mount| mount["destination"] != "/dev/pts");
        },
    );
    let expected =
        ["net", "user"].map(|kind| fs::read_link(path(kind)).unwrap().display().to_string());
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    other.kill().unwrap();
    other.wait().unwrap();
    host.assert_nothing_left();
}

#[test]
fn privileged_mount_options_hold() {
    let host = host!();
    let source = host.path("plain");
    fs::create_dir(&source).unwrap();
    let told = host.output(
        "grep -E ' /(m|bin) ' /proc/self/mounts | cut -d' ' -f2,4 2>/dev/null || grep -E ' /(m|bin) ' /proc/self/mounts; \
         touch /m/x 2>/dev/null || echo refused; ls /bin/sh",
        |document| {
            with_mount(document, json!({"destination": "/m", "type": "bind", "source": source,
                "options": ["rbind", "rro", "rnosuid", "rnodev"]}));
            with_mount(document, json!({"destination": "/bin", "type": "tmpfs", "source": "tmpfs",
                "options": ["tmpcopyup", "ro"]}));
        },
    );
    assert!(told.contains("ro,nosuid,nodev"), "{told}");
    assert!(told.contains("refused"), "{told}");
    assert!(told.ends_with("/bin/sh"), "{told}");
    host.assert_nothing_left();
}

#[test]
fn privileged_system_calls_are_filtered_with_and_without_new_privileges() {
    let host = host!();
    for no_new_privileges in [false, true] {
        let told = host.output("mkdir /tmp/x || echo refused; grep Seccomp: /proc/self/status", |document| {
            document["process"]["noNewPrivileges"] = json!(no_new_privileges);
            document["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
        });
        assert_eq!(told, "refused\nSeccomp:\t2");
    }
    host.assert_nothing_left();
}

/// What is copied up is what was there: a place that is made for the mount is everybody's, as every tmpfs is.
#[test]
fn privileged_tmpfs_has_the_mode_of_what_it_copies_up() {
    let host = host!();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    fs::create_dir(host.rootfs().join("there")).unwrap();
    fs::set_permissions(host.rootfs().join("there"), mode).unwrap();
    let told = host.output("stat -c %a /there /new", |document| {
        for destination in ["/there", "/new"] {
            with_mount(
                document,
                json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
            );
        }
    });
    assert_eq!(told, "750\n1777");
    host.assert_nothing_left();
}

/// podman makes all of a read-only container's tmpfs read-only, `/dev` with its devices and mounts among them.
#[test]
fn privileged_readonly_tmpfs_is_filled_before_it_is_closed() {
    let host = host!();
    let script = "echo x > /dev/null; ls -d /dev/pts/ptmx /t/below > /dev/null && touch /dev/x /t/x /t/below/x; exit 0";
    let output = host.run(script, |document| {
        for mount in document["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push(json!("ro"));
            }
        }
        for (destination, options) in [("/t", json!(["ro"])), ("/t/below", json!([]))] {
            with_mount(
                document,
                json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}),
            );
        }
    });
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    host.assert_nothing_left();
}

/// What hooks are told of the root is its path: the mounts are there, too, before it becomes the root.
#[test]
fn privileged_hooks_find_the_mounts_below_the_path_of_the_root() {
    let host = host!();
    let script = "test -e rootfs/proc/self/status && test -c rootfs/dev/null && echo seen > seen";
    let bundle = host.bundle("ls /seen; exit 3", |document| {
        document["hooks"] =
            json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    let mut run = host.command(&["run", "--bundle"]);
    let output = run.arg(&bundle).arg("c").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(fs::read_to_string(bundle.join("seen")).unwrap(), "seen\n");
    host.assert_nothing_left();
}
