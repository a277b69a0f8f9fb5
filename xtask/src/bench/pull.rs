// SPDX-License-Identifier: Apache-2.0
//! Pull into an empty store from a `docker-registry` on the loopback interface.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gantry_testkit::tool::DockerRegistry;
use gantry_testkit::{fixtures, tool};

use super::Bed;
use super::compare::{Contender, Pace, Report, compare};
use super::push::skopeo_push;

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let registry = DockerRegistry::start(&bed.path("docker-registry"))?;
    let containerd = Containerd::start(bed)?;
    for image in ["jre", "sci", "jre-zstd", "sci-zstd"] {
        if fixtures::layout(image).is_err() {
            report.note(format!("no fixture {image}"));
            continue;
        }
        let name = format!("{}/set/{image}:latest", registry.address());
        skopeo_push(image, registry.address())?;
        let ours = ours(bed, &name);
        let peers = [podman(bed, &name)?, ctr(&containerd, &name)?];
        compare(report, "pull", image, bed.runs, &ours, &peers)?;
    }
    Ok(())
}

fn ours<'a>(bed: &'a Bed, name: &'a str) -> Contender<'a> {
    Contender {
        name: "gantry pull",
        version: env!("CARGO_PKG_VERSION").into(),
        prepare: Box::new(|| wipe(bed, "ours")),
        commands: Box::new(move || {
            let mut command = bed.gantry();
            command.arg("--root").arg(bed.path("ours")).args([
                "--progress",
                "none",
                "pull",
                "--tls-verify=false",
            ]);
            command.arg(format!("docker://{name}"));
            vec![command]
        }),
        daemons: Vec::new(),
        pace: Pace::Long,
    }
}

/// `podman` with a store of its own.
pub fn podman_command(bed: &Bed) -> Command {
    let mut command = Command::new("podman");
    command
        .arg("--root")
        .arg(bed.path("podman/root"))
        .arg("--runroot")
        .arg(bed.path("podman/run"));
    command.args([
        "--storage-driver",
        "overlay",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "none",
    ]);
    command
}

/// Empties podman's store.
pub fn wipe_podman(bed: &Bed) -> Result<()> {
    drop(tool::run(
        Command::new("umount").arg(bed.path("podman/root/overlay")),
    ));
    wipe(bed, "podman")
}

fn podman<'a>(bed: &'a Bed, name: &'a str) -> Result<Contender<'a>> {
    Ok(Contender {
        name: "podman pull",
        version: version("podman")?,
        prepare: Box::new(|| wipe_podman(bed)),
        commands: Box::new(move || {
            let mut command = podman_command(bed);
            command.args(["pull", "-q", "--tls-verify=false", name]);
            vec![command]
        }),
        daemons: Vec::new(),
        pace: Pace::Long,
    })
}

fn ctr<'a>(containerd: &'a Containerd, name: &'a str) -> Result<Contender<'a>> {
    Ok(Contender {
        name: "ctr image pull",
        version: version("containerd")?,
        prepare: Box::new(move || containerd.forget(name)),
        commands: Box::new(move || {
            let mut command = containerd.ctr();
            command.args([
                "images",
                "pull",
                "--plain-http",
                "--snapshotter",
                "overlayfs",
                name,
            ]);
            vec![command]
        }),
        daemons: vec![containerd.child.id()],
        pace: Pace::Long,
    })
}

/// The version number that `program --version` prints.
pub fn version(program: &str) -> Result<String> {
    let text = tool::text(program, ["--version"])?;
    let number = text.split_whitespace().find(|word| {
        word.trim_start_matches('v')
            .starts_with(|first: char| first.is_ascii_digit())
    });
    Ok(number.unwrap_or("unknown").to_owned())
}

/// Deletes a directory of the bed and makes it anew.
pub fn wipe(bed: &Bed, name: &str) -> Result<()> {
    let path = bed.path(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    Ok(fs::create_dir_all(path)?)
}

/// A containerd without its Kubernetes half, on a socket of its own.
struct Containerd {
    child: Child,
    socket: String,
}

impl Containerd {
    fn start(bed: &Bed) -> Result<Self> {
        let dir = bed.path("containerd");
        fs::create_dir_all(&dir)?;
        let socket = dir.join("socket").display().to_string();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{socket}\"\n",
            dir.display()
        );
        fs::write(dir.join("config.toml"), config)?;
        let mut command = Command::new("containerd");
        command
            .arg("-c")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let containerd = Self {
            child: command.spawn()?,
            socket,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while tool::run(containerd.ctr().args(["images", "ls"])).is_err() {
            if Instant::now() > deadline {
                bail!("containerd did not come up");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(containerd)
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.args(["-a", &self.socket, "-n", "bench"]);
        command
    }

    fn forget(&self, name: &str) -> Result<()> {
        drop(tool::run(self.ctr().args(["images", "rm", "--sync", name])));
        let listed = tool::run(self.ctr().args(["content", "ls", "-q"]))?;
        for digest in String::from_utf8(listed.stdout)?.lines() {
            tool::run(self.ctr().args(["content", "rm", digest]))?;
        }
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended already.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        drop(self.child.wait());
    }
}
