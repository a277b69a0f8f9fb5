// SPDX-License-Identifier: Apache-2.0
//! Attackers who rename while containers are made: whatever the moment, the runtime fails or does what it was to do, and nothing of
//! the host is written or shown. Each test names the record that it is about.
#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod bundles;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bundles::Host;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

/// Exchanges two names all the time.
struct Racer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Racer {
    fn start(one: &Path, other: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, one, other) = (Arc::clone(&stop), one.to_owned(), other.to_owned());
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !seen.load(Ordering::Relaxed) {
                // One of them is gone for a moment where the runtime makes what is missing.
                swaps +=
                    u64::from(renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok());
            }
            swaps
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; it has to have raced.
    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let swaps = self.thread.take().unwrap().join().unwrap();
        assert!(swaps > 1000, "{swaps} renames are no race");
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Rounds of each race; more with `GANTRY_RACES`.
fn rounds() -> usize {
    let asked = std::env::var("GANTRY_RACES").ok();
    asked.map_or(60, |text| text.parse().unwrap())
}

fn add_mount(document: &mut Value, mount: Value) {
    document["mounts"].as_array_mut().unwrap().push(mount);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of the host with a file, at which nothing may change.
fn canary(host: &Host) -> PathBuf {
    let path = host.path("canary");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "untouched").unwrap();
    path
}

fn assert_untouched(canary: &Path) {
    let names: Vec<_> = fs::read_dir(canary)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["file"]);
    assert_eq!(
        fs::read_to_string(canary.join("file")).unwrap(),
        "untouched"
    );
}

/// CVE-2021-30465, CVE-2024-45310: a volume whose directory becomes a symlink while mounts are made in it.
#[test]
fn privileged_volume_that_is_swapped_leads_nowhere() {
    let host = host!();
    let canary = canary(&host);
    let volume = host.path("volume");
    fs::create_dir_all(volume.join("a")).unwrap();
    symlink(&canary, volume.join("trap")).unwrap();
    let racer = Racer::start(&volume.join("a"), &volume.join("trap"));
    for round in 0..rounds() {
        let output = host.run("cat /proc/self/mountinfo", |document| {
            add_mount(document, json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind"]}));
            let target = format!("/v/a/b{}", round % 7);
            add_mount(document, json!({"destination": target, "type": "tmpfs", "source": "t"}));
        });
        // The link's target, taken inside the root, is a fine place; the host's is never what is shown.
        let mounts = text(&output.stdout);
        let shown = |line: &str| line.split(' ').nth(3).map(str::to_owned);
        let leads_out = |root: String| root.contains("/canary");
        assert!(!mounts.lines().filter_map(shown).any(leads_out), "{mounts}");
        assert_untouched(&canary);
    }
    racer.end();
    host.assert_nothing_left();
}

/// CVE-2019-19921: the image's `/proc` becomes a symlink, so that what is written below it arrives elsewhere.
#[test]
fn privileged_proc_that_is_swapped_is_refused_or_real() {
    let host = host!();
    let fake = host.rootfs().join("tmp/fake");
    let parameter = "sys/net/ipv4/ping_group_range";
    fs::create_dir_all(fake.join("sys/net/ipv4")).unwrap();
    fs::write(fake.join(parameter), "untouched").unwrap();
    symlink("/tmp/fake", host.rootfs().join("trap")).unwrap();
    let racer = Racer::start(&host.rootfs().join("proc"), &host.rootfs().join("trap"));
    let mut real = 0;
    for _ in 0..rounds() {
        let output = host.run(
            &format!("cat /proc/{parameter} /proc/self/mounts"),
            |document| {
                document["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "5 7"});
            },
        );
        // A mount whose place is renamed afterwards goes with its place, and the program finds the image's directory: that is
        // what the image wants. No /proc of the kernel's lies there, and nothing was written to it.
        let told = text(&output.stdout);
        real += usize::from(told.starts_with("5\t7\n"));
        assert!(!told.contains(" /tmp/fake proc "), "{told}");
        assert_eq!(
            fs::read_to_string(fake.join(parameter)).unwrap(),
            "untouched"
        );
    }
    racer.end();
    assert!(real > 0, "no container had a /proc of the kernel's");
    host.assert_nothing_left();
}

/// CVE-2025-52881, CVE-2025-62596: a volume over a part of `/proc` whose file becomes a symlink to another file of the kernel's.
#[test]
fn privileged_parameter_that_is_swapped_is_the_one_that_is_written() {
    let host = host!();
    let volume = host.path("volume");
    fs::create_dir_all(volume.join("ipv4")).unwrap();
    let name = "ipv4/ping_group_range";
    fs::write(volume.join(name), "untouched").unwrap();
    symlink("/proc/sys/net/unix/max_dgram_qlen", volume.join("trap")).unwrap();
    let racer = Racer::start(&volume.join(name), &volume.join("trap"));
    let script = "cat /proc/sys/net/unix/max_dgram_qlen; exit 0";
    let before = host.output(script, |_| ());
    for _ in 0..rounds() {
        let output = host.run(script, |document| {
            add_mount(
                document,
                json!({"destination": "/proc/sys/net", "type": "bind", "source": volume, "options": ["bind"]}),
            );
            document["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "5 7"});
        });
        // A mount over /proc is none that a parameter is written through.
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("sysctl"), "{output:?}");
    }
    racer.end();
    assert_eq!(host.output(script, |_| ()), before);
    let file = [name, "trap"].map(|name| fs::read_to_string(volume.join(name)));
    assert!(file.iter().flatten().any(|text| text == "untouched"));
    host.assert_nothing_left();
}

/// Without file systems of its own, `/dev` is the image's.
fn without_dev(document: &mut Value) {
    let mounts = document["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    document["root"]["readonly"] = json!(false);
}

/// CVE-2025-31133, CVE-2025-62161: the image's null device becomes something else while files are masked.
#[test]
fn privileged_null_device_that_is_swapped_masks_or_fails() {
    let host = host!();
    let trap = host.rootfs().join("dev/trap");
    symlink("/proc/sys/kernel/core_pattern", &trap).unwrap();
    fs::write(host.rootfs().join("dev/null"), "planted").unwrap();
    let racer = Racer::start(&host.rootfs().join("dev/null"), &trap);
    for _ in 0..rounds() {
        let output = host.run("cat /proc/keys; stat -c %t:%T /proc/keys; grep core_pattern /proc/self/mountinfo; exit 0", |document| {
            without_dev(document);
            document["linux"]["maskedPaths"] = json!(["/proc/keys"]);
        });
        if output.status.success() {
            assert_eq!(text(&output.stdout), "1:3\n");
        }
    }
    racer.end();
    host.assert_nothing_left();
}

/// CVE-2025-52565: the image's `/dev/console`, on which the terminal is put, becomes a symlink to a file of the kernel's.
#[test]
fn privileged_console_that_is_swapped_is_the_terminal() {
    let host = host!();
    let (console, trap) = (
        host.rootfs().join("dev/console"),
        host.rootfs().join("dev/trap"),
    );
    fs::write(&console, "").unwrap();
    symlink("/proc/sys/kernel/core_pattern", &trap).unwrap();
    let racer = Racer::start(&console, &trap);
    let socket = host.path("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let told = host.path("told");
    for _ in 0..rounds() {
        fs::write(&told, "").unwrap();
        // What was found is told by a file: the terminal is nobody's.
        let script = "{ grep core_pattern /proc/self/mountinfo; grep ' /dev/console ' /proc/self/mountinfo; } > /told";
        let bundle = host.bundle(script, |document| {
            without_dev(document);
            document["process"]["terminal"] = json!(true);
            add_mount(document, json!({"destination": "/told", "type": "bind", "source": told, "options": ["bind"]}));
        });
        let mut run = host.command(&["run", "--console-socket"]);
        run.arg(&socket)
            .arg("--detach")
            .arg("--bundle")
            .arg(bundle)
            .arg("c");
        let output: Output = run.stdout(Stdio::null()).output().unwrap();
        if output.status.success() {
            drop(listener.accept().unwrap());
        } else {
            // It may have been connected to and given up.
            listener.set_nonblocking(true).unwrap();
            drop(listener.accept());
            listener.set_nonblocking(false).unwrap();
        }
        host.ok(&["delete", "--force", "c"]);
        let told = fs::read_to_string(&told).unwrap();
        // What is mounted there, if anything was, is a terminal of a devpts.
        assert!(!told.contains("core_pattern"), "{told}");
        assert!(
            told.lines().all(|line| line.contains(" - devpts ")),
            "{told}"
        );
    }
    racer.end();
    host.assert_nothing_left();
}

/// CVE-2016-9962: what exec brings is nobody's to trace, read or take descriptors of before it is the program that was asked for.
#[test]
fn privileged_process_of_exec_cannot_be_looked_into() {
    let host = host!();
    let script = "echo > /seen; while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; \
        case $(readlink $p/exe) in */busybox) echo program >> /seen;; '') ;; *) echo runtime $p >> /seen;; esac; \
        for f in $p/fd/*; do case $(readlink $f) in *state*|*gantry*) echo descriptor $f >> /seen;; esac; done; \
        done 2>/dev/null; done";
    let bundle = host.bundle(script, |document| {
        document["root"]["readonly"] = json!(false);
    });
    let mut run = host.command(&["run", "--detach", "--bundle"]);
    run.arg(bundle)
        .arg("c")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(run.status().unwrap().success());
    for round in 0..rounds() {
        // Some end at once, some are there to be seen.
        host.ok(&[
            "exec",
            "c",
            "sleep",
            if round % 10 == 0 { "0.1" } else { "0" },
        ]);
    }
    host.ok(&["delete", "--force", "c"]);
    let seen = fs::read_to_string(host.rootfs().join("seen")).unwrap();
    assert!(seen.contains("program"), "it never looked: {seen}");
    assert!(
        !seen.contains("runtime") && !seen.contains("descriptor"),
        "{seen}"
    );
    host.assert_nothing_left();
}
