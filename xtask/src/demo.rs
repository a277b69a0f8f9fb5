// SPDX-License-Identifier: Apache-2.0
//! The demo: an image pushed by an ordinary client runs on a second host a moment later, and nothing was pulled there.
//!
//! ```text
//! skopeo, buildah ── push ──► gantry registry serve      the sharing host: DISK/share
//!                                       │ explodes
//!                                       ▼
//!                             DISK/share, bind-mounted read-only at DISK/second-host/share
//!                                       │
//!                             gantry run --share …        the second host: own store, own run root, both empty
//! ```
//!
//! Everything happens in a mount and a network namespace of its own: nothing is left mounted whatever happens, and the
//! loopback interface's counters tell exactly how many bytes went over "the network" while the second host started.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gantry_testkit::{fixtures, scratch::Disk, skip::is_root, tool};

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program to show.
    #[arg(long, default_value = "target/release/gantry")]
    gantry: PathBuf,
    /// Set by the program itself once it stands in its own namespaces.
    #[arg(long, hide = true)]
    isolated: bool,
}

const REPOSITORY: &str = "demo/app";

/// Runs the demo and prints its table.
pub fn run(args: &Args) -> Result<()> {
    if !is_root() {
        bail!(
            "the demo needs root: it makes mounts (a scratch file system, the share on the second host, the container's \
             root) and namespaces, and an unpacked image has files of many owners and device nodes"
        );
    }
    if !args.isolated {
        return isolate(args);
    }
    tool::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let mut stage = Stage::new(&args.gantry)?;
    let figures = play(&mut stage)?;
    println!("\n{}", figures.table());
    Ok(())
}

/// Executes this program again in namespaces of its own.
fn isolate(args: &Args) -> Result<()> {
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "--"])
        .arg(std::env::current_exe()?)
        .args(["demo", "--isolated", "--gantry"])
        .arg(&args.gantry)
        .status()
        .context("start unshare")?;
    ensure!(status.success(), "the demo failed");
    Ok(())
}

fn play(stage: &mut Stage) -> Result<Figures> {
    println!("== the sharing host: a registry on {}", stage.address);
    let mut bytes_pushed = 0;
    for (image, repository) in [("base", "demo/base"), ("python3", "demo/python3")] {
        bytes_pushed += stage.push_with_skopeo(image, repository)?;
    }
    bytes_pushed += stage.push_with_skopeo("app-v1", REPOSITORY)?;
    let accepted = Instant::now();
    println!("== the second host: own empty store, the share read-only, nothing pulled");
    let first = stage.run_on_second_host(accepted)?;
    ensure!(
        first.line == "gantry demo app v1",
        "the second host printed {:?}",
        first.line
    );
    bytes_pushed += stage.push_with_buildah("app-v2", REPOSITORY)?;
    let accepted = Instant::now();
    println!("== the second host again");
    let second = stage.run_on_second_host(accepted)?;
    ensure!(
        second.line == "gantry demo app v2",
        "the second host printed {:?}",
        second.line
    );
    let bare = stage.run_bare()?;
    let (disk_shared, disk_apart) = stage.disk()?;
    Ok(Figures {
        bytes_pushed,
        first,
        second,
        bare,
        store_bytes: tree_bytes(&stage.second_store())?,
        disk_shared,
        disk_apart,
    })
}

/// One start on the second host.
struct Start {
    line: String,
    to_first_line: Duration,
    network_bytes: u64,
}

struct Figures {
    bytes_pushed: u64,
    first: Start,
    second: Start,
    bare: Duration,
    store_bytes: u64,
    disk_shared: u64,
    disk_apart: u64,
}

impl Figures {
    fn table(&self) -> String {
        let mb = |bytes: u64| format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10);
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        let rows = [
            (
                "bytes pushed (4 images, each layer once)",
                mb(self.bytes_pushed),
            ),
            (
                "bytes moved to the second host, v1",
                self.first.network_bytes.to_string(),
            ),
            (
                "bytes moved to the second host, v2",
                self.second.network_bytes.to_string(),
            ),
            (
                "bytes of images in its own store",
                self.store_bytes.to_string(),
            ),
            (
                "push accepted to first line, v1",
                ms(self.first.to_first_line),
            ),
            (
                "push accepted to first line, v2",
                ms(self.second.to_first_line),
            ),
            ("the same program without a container", ms(self.bare)),
            ("disk, every image unpacked on its own", mb(self.disk_apart)),
            ("disk, shared", mb(self.disk_shared)),
        ];
        let lines: Vec<_> = rows
            .iter()
            .map(|(what, value)| format!("| {what:<42} | {value:>12} |"))
            .collect();
        lines.join("\n")
    }
}

/// The two hosts, on a disk of their own.
struct Stage {
    gantry: PathBuf,
    address: String,
    // Ended before the disk is unmounted: fields are dropped in order.
    _registry: Daemon,
    share_mount: Mount,
    disk: Disk,
}

impl Stage {
    fn new(gantry: &Path) -> Result<Self> {
        ensure!(
            gantry.is_file(),
            "no program {}: run `make build`",
            gantry.display()
        );
        let missing = tool::missing(&["skopeo", "buildah", "crun"]);
        ensure!(
            missing.is_empty(),
            "not installed: {}; run `make setup`",
            missing.join(", ")
        );
        let disk = Disk::new(24 << 30).context("make a scratch file system")?;
        let path = |name: &str| disk.path().join(name);
        for dir in ["share", "second-host/share", "buildah", "tmp"] {
            fs::create_dir_all(path(dir))?;
        }
        fs::write(
            path("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )?;
        let port_file = path("port");
        let registry = Daemon::start(
            Command::new(gantry)
                .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
                .arg(path("share"))
                .arg("--port-file")
                .arg(&port_file),
        )?;
        let port = wait_for_port(&port_file)?;
        let share_mount = Mount::read_only(&path("share"), &path("second-host/share"))?;
        let address = format!("127.0.0.1:{port}");
        Ok(Self {
            gantry: gantry.to_owned(),
            address,
            _registry: registry,
            share_mount,
            disk,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    fn second_store(&self) -> PathBuf {
        self.path("second-host/store")
    }

    /// Pushes a fixture and returns the bytes that a client sends for an image that the registry does not know.
    fn push_with_skopeo(&self, fixture: &str, repository: &str) -> Result<u64> {
        let destination = format!("docker://{}/{repository}:latest", self.address);
        println!("   skopeo copy {fixture} {destination}");
        let before = loopback_bytes()?;
        let mut command = Command::new("skopeo");
        command.args([
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &fixtures::reference(fixture)?,
            &destination,
        ]);
        tool::run(&mut command)?;
        Ok(loopback_bytes()? - before)
    }

    fn push_with_buildah(&self, fixture: &str, repository: &str) -> Result<u64> {
        let destination = format!("docker://{}/{repository}:latest", self.address);
        println!("   buildah push {fixture} {destination}");
        let image = self.buildah(&["pull", "-q", &fixtures::reference(fixture)?])?;
        let before = loopback_bytes()?;
        self.buildah(&[
            "push",
            "-q",
            "--tls-verify=false",
            image.trim(),
            &destination,
        ])?;
        Ok(loopback_bytes()? - before)
    }

    fn buildah(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(self.path("buildah/root"))
            .arg("--runroot")
            .arg(self.path("buildah/run"));
        command
            .args(["--storage-driver", "overlay"])
            .args(args)
            .env("TMPDIR", self.path("tmp"));
        Ok(String::from_utf8(tool::run(&mut command)?.stdout)?)
    }

    fn run_on_second_host(&self, accepted: Instant) -> Result<Start> {
        let before = loopback_bytes()?;
        let mut command = Command::new(&self.gantry);
        command
            .arg("--policy")
            .arg(self.path("policy.json"))
            .arg("--root")
            .arg(self.second_store())
            .arg("--runroot")
            .arg(self.path("second-host/run"));
        command
            .args(["run", "--rm", "--network", "none", "--share"])
            .arg(&self.share_mount.0);
        command.arg(format!("{REPOSITORY}:latest"));
        println!(
            "   gantry run --rm --share {} {REPOSITORY}:latest",
            self.share_mount.0.display()
        );
        let (line, at) = first_line(&mut command)?;
        println!("   {line}");
        Ok(Start {
            line,
            to_first_line: at.duration_since(accepted),
            network_bytes: loopback_bytes()? - before,
        })
    }

    /// The same program, straight from the exploded tree.
    fn run_bare(&self) -> Result<Duration> {
        let rootfs = self
            .share_mount
            .0
            .join("images")
            .join(REPOSITORY)
            .join("latest/rootfs");
        let start = Instant::now();
        let (_, at) = first_line(
            Command::new("chroot")
                .arg(rootfs)
                .args(["python3", "/srv/app/main.py"]),
        )?;
        Ok(at.duration_since(start))
    }

    /// Bytes on disk: what the share takes beside its compressed blobs, and what every image unpacked alone would.
    fn disk(&self) -> Result<(u64, u64)> {
        let mut apart = 0;
        for entry in fs::read_dir(self.path("share/digests"))? {
            apart += disk_bytes(&[&entry?.path().join("rootfs")])?;
        }
        let share =
            ["objects", "variants", "digests", "layers"].map(|name| self.path("share").join(name));
        Ok((disk_bytes(&share.each_ref().map(PathBuf::as_path))?, apart))
    }
}

/// A process that ends with the value, by a signal that lets it clean up.
pub struct Daemon(Child);

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self(child))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended already.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        drop(self.0.wait());
    }
}

/// A bind mount that ends with the value.
struct Mount(PathBuf);

impl Mount {
    fn read_only(source: &Path, target: &Path) -> Result<Self> {
        tool::run(Command::new("mount").arg("--bind").arg(source).arg(target))?;
        let mount = Self(target.to_owned());
        tool::run(
            Command::new("mount")
                .args(["-o", "remount,bind,ro"])
                .arg(target),
        )?;
        Ok(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(tool::run(Command::new("umount").arg(&self.0)));
    }
}

/// The port that a daemon writes to `file` once it listens.
pub fn wait_for_port(file: &Path) -> Result<u16> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        // The daemon writes the file by a rename once it listens, so that it is never seen half written.
        if let Ok(text) = fs::read_to_string(file) {
            return text.trim().parse().context("read the port file");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("the registry did not come up")
}

/// Runs a command to its successful end; its first line of output, and when that came.
pub fn first_line(command: &mut Command) -> Result<(String, Instant)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let at = Instant::now();
    stdout.read_to_end(&mut Vec::new())?;
    let status = child.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok((line.trim_end().to_owned(), at))
}

/// Bytes that the loopback interface received since it came up.
fn loopback_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let counters = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"));
    let received = counters.and_then(|counters| counters.split_whitespace().next());
    received
        .context("no loopback interface")?
        .parse()
        .context("read the loopback counters")
}

/// Sizes of the regular files below `root`, which need not exist.
pub fn tree_bytes(root: &Path) -> Result<u64> {
    let mut sum = 0;
    walk(root, &mut |metadata| {
        sum += if metadata.is_file() {
            metadata.len()
        } else {
            0
        }
    })?;
    Ok(sum)
}

/// Room that the trees take on disk, every inode counted once.
pub fn disk_bytes(roots: &[&Path]) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut sum, mut seen) = (0, std::collections::BTreeSet::new());
    for root in roots {
        walk(root, &mut |metadata| {
            if seen.insert((metadata.dev(), metadata.ino())) {
                sum += metadata.blocks() * 512;
            }
        })?;
    }
    Ok(sum)
}

fn walk(path: &Path, visit: &mut dyn FnMut(&fs::Metadata)) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    visit(&metadata);
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), visit)?;
        }
    }
    Ok(())
}
