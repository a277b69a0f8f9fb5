// SPDX-License-Identifier: Apache-2.0
//! The programs that call an OCI runtime, unchanged, with ours: podman, containerd and Docker as Debian ships them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod containerd;
mod docker;
mod podman;
mod rootless;

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gantry_testkit::{busybox, skip, tool};

/// Programs of the image that all of them run.
const APPLETS: [&str; 16] = [
    "sh", "cat", "echo", "env", "false", "grep", "id", "kill", "ls", "ps", "pwd", "readlink",
    "sleep", "touch", "true", "wc",
];

/// Why there can be no containers here, if there can be none.
fn obstacle(programs: &[&str]) -> Option<String> {
    if !skip::is_root() {
        return Some("containers need root".to_owned());
    }
    let missing = tool::missing(programs);
    if !missing.is_empty() {
        return Some(format!("not installed: {}", missing.join(", ")));
    }
    (!Path::new(busybox::BUSYBOX).is_file()).then(|| "busybox-static not installed".to_owned())
}

/// The program under the name by which it is a runtime.
fn runtime(dir: &Path) -> PathBuf {
    let link = dir.join("gantry-runtime");
    symlink(env!("CARGO_BIN_EXE_gantry"), &link).unwrap();
    link
}

fn image() -> Vec<u8> {
    let passwd = "root:x:0:0::/root:/bin/sh\nuser:x:7:8::/tmp:/bin/sh\n";
    busybox::archive(&APPLETS, &[("etc/passwd", passwd)]).unwrap()
}

/// What a command of theirs came to.
#[derive(Debug)]
struct Told {
    status: i32,
    stdout: String,
    stderr: String,
}

/// Runs a command to its end. What it prints goes to files: a container that it leaves behind would hold pipes open.
fn tell(command: Command) -> Told {
    feed(command, b"")
}

/// Runs to success, and answers what it printed.
fn ok(command: Command) -> String {
    let shown = format!("{command:?}");
    let told = tell(command);
    assert_eq!(told.status, 0, "{shown}: {told:?}");
    told.stdout
}

fn feed(mut command: Command, input: &[u8]) -> Told {
    let [stdout, stderr] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let mut stdin = tempfile::tempfile().unwrap();
    stdin.write_all(input).unwrap();
    stdin.rewind().unwrap();
    let status = command
        .stdin(stdin)
        .stdout(stdout.try_clone().unwrap())
        .stderr(stderr.try_clone().unwrap())
        .status()
        .unwrap();
    let text = |mut file: File| {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text.trim_end().to_owned()
    };
    Told {
        status: status.code().unwrap_or(-1),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
