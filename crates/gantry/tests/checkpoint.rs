// SPDX-License-Identifier: Apache-2.0
//! `gantry runtime checkpoint` and `restore`, with the CRIU that is installed.
#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod bundles;

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

/// CRIU that works on this kernel, or why there is none. `GANTRY_CRIU` names one that is not installed.
fn criu() -> Result<String, String> {
    let program = std::env::var("GANTRY_CRIU").unwrap_or_else(|_| "criu".to_owned());
    let check = Command::new(&program).arg("check").output();
    let output = check.map_err(|_| "criu not installed".to_owned())?;
    if output.status.success() {
        return Ok(program);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = said
        .lines()
        .find(|line| line.contains("Error"))
        .unwrap_or("it does not say why")
        .to_owned();
    Err(format!("criu check: {reason}"))
}

/// A container that counts, and what it printed so far.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";

fn wait_for(what: &str, mut found: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !found() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn privileged_container_goes_on_where_its_checkpoint_was() {
    let host = host!();
    let program = match criu() {
        Ok(program) => program,
        Err(reason) => gantry_testkit::skip!("{reason}"),
    };
    let images = host.path("images");
    let bundle = host.bundle(COUNT, |document| {
        document["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/shown", "type": "none", "source": host.path("rootfs/etc").to_str().unwrap(), "options": ["bind"],
        }));
    });
    let mut run = host.command(&["run", "--bundle"]);
    let mut first = run
        .arg(&bundle)
        .arg("c")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = first.stdout.take().unwrap();
    let mut said = [0; 4];
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"1\n2\n");
    let words = [
        "--criu",
        &program,
        "checkpoint",
        "--image-path",
        images.to_str().unwrap(),
    ];
    // It goes on once, and ends the second time.
    host.ok(&[&words[..], &["--leave-running", "c"]].concat());
    assert_eq!(host.json(&["state", "c"])["status"], "running");
    host.ok(&[&words[..], &["c"]].concat());
    assert!(host.fails(&["state", "c"]).contains("does not exist"));
    let mut rest = String::from("1\n2\n");
    stdout.read_to_string(&mut rest).unwrap();
    first.wait().unwrap();
    let last: u32 = rest.lines().last().unwrap().parse().unwrap();

    let out = host.path("out");
    let mut restore = host.command(&["--criu", &program, "restore", "--detach", "--image-path"]);
    let pid_file = host.path("pid");
    restore
        .arg(&images)
        .arg("--bundle")
        .arg(&bundle)
        .arg("--pid-file")
        .arg(&pid_file)
        .arg("c");
    // Pipes again, as they were: a shell reads what comes.
    let mut reader = Command::new("sh")
        .args(["-c", "cat > \"$0\"", out.to_str().unwrap()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = reader.stdin.take().unwrap();
    let status = restore
        .stdout(pipe.try_clone_pipe())
        .stderr(fs::File::create(host.path("err")).unwrap())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    // Both hold an end, without whose end the reader does not end.
    drop((pipe, restore));
    let said = fs::read_to_string(host.path("err")).unwrap();
    assert!(status.success(), "{said}");
    wait_for("the next number", || {
        fs::read_to_string(&out).is_ok_and(|text| text.lines().count() > 3)
    });
    let next: u32 = fs::read_to_string(&out)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(next, last + 1);
    let state = host.json(&["state", "c"]);
    assert_eq!(state["status"], "running");
    assert_eq!(
        state["pid"].to_string(),
        fs::read_to_string(&pid_file).unwrap()
    );
    assert_eq!(
        host.ok(&["exec", "c", "cat", "/shown/passwd"]),
        "root:x:0:0::/root:/bin/sh"
    );
    // It is in control groups of its own, as the first one was.
    host.ok(&["pause", "c"]);
    host.ok(&["resume", "c"]);
    host.ok(&["delete", "--force", "c"]);
    reader.wait().unwrap();
    host.assert_nothing_left();
}

trait Pipe {
    fn try_clone_pipe(&self) -> Stdio;
}

impl Pipe for std::process::ChildStdin {
    fn try_clone_pipe(&self) -> Stdio {
        use std::os::fd::AsFd as _;
        self.as_fd().try_clone_to_owned().unwrap().into()
    }
}

#[test]
fn privileged_checkpoint_that_cannot_be_is_a_sentence() {
    let host = host!();
    let bundle = host.bundle("sleep 600", |_| ());
    host.command(&["create", "--bundle"])
        .arg(&bundle)
        .arg("c")
        .status()
        .unwrap();
    assert!(host.fails(&["checkpoint", "c"]).contains("created"));
    host.ok(&["start", "c"]);
    let images = host.path("images");
    let images = images.to_str().unwrap();
    let said = host.fails(&[
        "--criu",
        "no-such-criu",
        "checkpoint",
        "--image-path",
        images,
        "c",
    ]);
    assert!(said.contains("Debian's package criu"), "{said}");
    let said = host.fails(&[
        "--criu",
        "/bin/false",
        "checkpoint",
        "--image-path",
        images,
        "c",
    ]);
    assert!(said.contains("dump.log"), "{said}");
    assert_eq!(host.json(&["state", "c"])["status"], "running");
    let said = host.fails(&["checkpoint", "--manage-cgroups-mode", "all", "c"]);
    assert!(said.contains("soft"), "{said}");
    host.ok(&["delete", "--force", "c"]);
    // What cannot be restored leaves nothing.
    let mut restore = host.command(&[
        "--criu",
        "/bin/false",
        "restore",
        "--image-path",
        images,
        "--bundle",
    ]);
    let output = restore.arg(&bundle).arg("c").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("restore.log"),
        "{said}"
    );
    host.assert_nothing_left();
}
