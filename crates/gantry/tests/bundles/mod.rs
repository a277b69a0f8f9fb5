// SPDX-License-Identifier: Apache-2.0
//! Bundles with one static busybox, and the runtime to run them.
#![allow(
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests; each test file uses a part"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::tool;
use serde_json::{Value, json};

/// Ends the test unless containers can be run here.
macro_rules! host {
    () => {
        match $crate::bundles::Host::new() {
            Ok(host) => host,
            Err(reason) => gantry_testkit::skip!("{reason}"),
        }
    };
}

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 37] = [
    "sh", "cat", "chmod", "cp", "dd", "df", "echo", "env", "false", "grep", "head", "hostname",
    "id", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "ps", "pwd", "readlink", "rm",
    "sed", "sleep", "sort", "stat", "test", "touch", "tr", "true", "tty", "umount", "unshare",
    "uname", "wc",
];

pub struct Host {
    dir: Scratch,
}

impl Host {
    /// A place for bundles, or why there can be no containers.
    pub fn new() -> Result<Self, String> {
        if !gantry_testkit::skip::is_root() {
            return Err("containers need root".to_owned());
        }
        if !Path::new(BUSYBOX).is_file() {
            return Err("busybox-static not installed".to_owned());
        }
        let dir = scratch();
        fill_rootfs(&dir.join("rootfs"));
        Ok(Self { dir })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("state")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// Where its containers are counted: tests run at the same time.
    pub fn cgroup(&self) -> String {
        let name = self.dir.path().file_name().unwrap().to_string_lossy();
        format!("/gantry-test{}", name.trim_start_matches('.'))
    }

    /// The runtime with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        command
            .arg("runtime")
            .arg("--root")
            .arg(self.root())
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// A bundle whose program is a shell that reads `script`.
    pub fn bundle(&self, script: &str, edit: impl FnOnce(&mut Value)) -> PathBuf {
        let path = self.dir.join("config.json");
        fs::remove_file(&path).ok();
        let mut spec = self.command(&["spec", "--bundle"]);
        succeed(spec.arg(self.dir.path()));
        let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        document["process"]["terminal"] = json!(false);
        document["process"]["args"] = json!(["sh", "-c", script]);
        document["linux"]["cgroupsPath"] = json!(self.cgroup());
        edit(&mut document);
        fs::write(&path, document.to_string()).unwrap();
        self.dir.path().to_owned()
    }

    /// Runs a bundle to its end.
    pub fn run(&self, script: &str, edit: impl FnOnce(&mut Value)) -> Output {
        let bundle = self.bundle(script, edit);
        self.command(&["run", "--bundle"])
            .arg(bundle)
            .arg("c")
            .output()
            .unwrap()
    }

    /// What a bundle printed before it ended well.
    pub fn output(&self, script: &str, edit: impl FnOnce(&mut Value)) -> String {
        let output = self.run(script, edit);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    pub fn ok(&self, words: &[&str]) -> String {
        succeed(&mut self.command(words))
    }

    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(words)).unwrap()
    }

    pub fn status(&self, words: &[&str]) -> i32 {
        self.command(words).output().unwrap().status.code().unwrap()
    }

    /// What it said when it failed.
    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// No process of a runtime's stays for whoever reaps orphans; one that has just lost its runtime may take a moment.
    pub fn assert_nobody_left(&self) {
        let root = self.root();
        let left = || {
            let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| {
                let path = entry.ok()?.path().join("cmdline");
                let text = String::from_utf8(fs::read(path).ok()?).ok()?;
                text.contains(root.to_str()?).then_some(text)
            });
            commands.collect::<Vec<_>>()
        };
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !left().is_empty() && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(left(), Vec::<String>::new());
    }

    /// No container, no mount, no control group of one.
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.root()).map_or_else(
            |_| Vec::new(),
            |entries| entries.map(|entry| entry.unwrap().file_name()).collect(),
        );
        assert!(left.is_empty(), "{left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = format!("{}/", self.dir.path().display());
        assert!(!mounts.contains(&below), "{mounts}");
        let name = self.cgroup();
        // Of version 2 alone there is one, of version 1 one below for each.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let hierarchies = hierarchies.map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let group = hierarchy.join(name.trim_start_matches('/'));
            assert!(!group.exists(), "{}", group.display());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Ok(left) = fs::read_dir(self.root()) else {
            return;
        };
        for entry in left.flatten() {
            let mut command = self.command(&["delete", "--force"]);
            drop(command.arg(entry.file_name()).output());
        }
    }
}

fn fill_rootfs(rootfs: &Path) {
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    for dir in ["etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
}

pub fn succeed(command: &mut Command) -> String {
    let output = tool::run(command).unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end_matches('\n')
        .to_owned()
}
