// SPDX-License-Identifier: Apache-2.0
//! containerd, with its shim of version 2 and ours in the place of runc.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use gantry_testkit::image::{Image, Layer};
use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::{skip, tool};

use super::{Told, image, obstacle, ok, runtime, tell, wait_until};

struct Containerd {
    dir: Scratch,
    runtime: PathBuf,
    daemon: Child,
}

impl Containerd {
    fn start() -> Result<Self, String> {
        let tools = ["containerd", "containerd-shim-runc-v2", "ctr"];
        if let Some(reason) = obstacle(&tools) {
            return Err(reason);
        }
        let dir = scratch();
        let runtime = runtime(dir.path());
        let place = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            place("root"),
            place("state"),
            place("sock"),
            place("sock.ttrpc")
        );
        fs::write(dir.join("config.toml"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let daemon = Command::new(tool::find("containerd").unwrap())
            .arg("--config")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self {
            dir,
            runtime,
            daemon,
        };
        wait_until("containerd answers", || {
            containerd.tell(&["version"]).status == 0
        });
        containerd.import();
        Ok(containerd)
    }

    /// What it imports is the archive of a layout.
    fn import(&self) {
        let layout = self.dir.join("layout");
        Image::new(&[Layer::gzip(&image())])
            .write_layout(&layout, "latest")
            .unwrap();
        let packed = self.dir.join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&layout).arg("-cf").arg(&packed).arg(".");
        ok(tar);
        let packed = packed.to_str().unwrap();
        self.ok(&["image", "import", "--index-name", IMAGE, packed]);
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.dir.join("sock"))
            .args(words);
        command
    }

    fn run(&self, more: &[&str], id: &str, program: &[&str]) -> Command {
        let mut command = self.command(&["run"]);
        command
            .args([
                "--snapshotter",
                "native",
                "--runtime",
                "io.containerd.runc.v2",
            ])
            .arg("--runc-binary")
            .arg(&self.runtime)
            .args(more)
            .args([IMAGE, id])
            .args(program);
        command
    }

    fn tell(&self, words: &[&str]) -> Told {
        tell(self.command(words))
    }

    fn ok(&self, words: &[&str]) -> String {
        ok(self.command(words))
    }

    /// Status of a task, by the list.
    fn status(&self, id: &str) -> Option<String> {
        let list = self.ok(&["task", "ls"]);
        let mut rows = list.lines().map(|line| line.split_whitespace());
        rows.find_map(|mut row| (row.next() == Some(id)).then(|| row.last().unwrap().to_owned()))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let listed = self.tell(&["task", "ls", "-q"]).stdout;
        for id in listed.lines() {
            self.tell(&["task", "rm", "-f", id]);
        }
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

const IMAGE: &str = "test/busybox:latest";

#[test]
fn privileged_containerd_runs_and_acts_on_tasks() {
    let containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(reason) => skip!("{reason}"),
    };
    let script = ["sh", "-c", "echo out; exit 3"];
    let told = tell(containerd.run(&["--rm"], "short", &script));
    assert_eq!((told.status, told.stdout.as_str()), (3, "out"), "{told:?}");

    let limits = ["-d", "--memory-limit", "67108864"];
    ok(containerd.run(&limits, "c", &["sleep", "1000000"]));
    assert_eq!(containerd.status("c").as_deref(), Some("RUNNING"));
    let exec = |program: &[&str]| {
        let words = ["task", "exec", "--exec-id", "e", "c"];
        containerd.tell(&[&words[..], program].concat())
    };
    let told = exec(&["sh", "-c", "echo in; exit 4"]);
    assert_eq!((told.status, told.stdout.as_str()), (4, "in"), "{told:?}");
    assert_ne!(exec(&["no-such-program"]).status, 0);
    containerd.ok(&["task", "pause", "c"]);
    assert_eq!(containerd.status("c").as_deref(), Some("PAUSED"));
    containerd.ok(&["task", "resume", "c"]);
    assert_eq!(containerd.status("c").as_deref(), Some("RUNNING"));
    let metrics = containerd.ok(&["task", "metrics", "c"]);
    let limit = metrics
        .lines()
        .find(|line| line.contains("limit") && line.contains("memory"));
    assert!(
        limit.is_some_and(|line| line.contains("67108864")),
        "{metrics}"
    );
    assert_eq!(containerd.ok(&["task", "ps", "c"]).lines().count(), 2);
    containerd.ok(&["task", "kill", "-s", "KILL", "c"]);
    wait_until("the task has ended", || {
        containerd.status("c").as_deref() == Some("STOPPED")
    });
    let told = containerd.tell(&["task", "rm", "c"]);
    assert!(told.stderr.contains("exit code 137"), "{told:?}");
    containerd.ok(&["container", "rm", "c"]);
    assert_eq!(containerd.ok(&["container", "ls", "-q"]), "");
}
