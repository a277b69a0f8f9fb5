// SPDX-License-Identifier: Apache-2.0
//! Push of the whole set into an empty registry, with explode, beside what gives other tools the same trees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::tool::DockerRegistry;
use gantry_testkit::{fixtures, tool};

use super::compare::{Contender, Pace, Report, Sample, once};
use super::pull::{podman_command, version, wipe, wipe_podman};
use super::{Bed, image_set};
use crate::demo::{Daemon, disk_bytes, wait_for_port};

const MB: u64 = 1_000_000;

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let images = image_set();
    ensure!(!images.is_empty(), "no fixtures");
    let subject = format!("{} images", images.len());
    let (ours, share) = push_to_ours(bed, &images)?;
    describe(report, &ours, &share)?;
    let podman = push_and_pull(bed, &images)?;
    let [podman_bytes, registry_bytes] =
        ["podman", "docker-registry-set"].map(|dir| disk_bytes(&[&bed.path(dir)]));
    report.note(format!(
        "push: podman's store takes {} MB, docker-registry {} MB",
        podman_bytes? / MB,
        registry_bytes? / MB
    ));
    let peer = ("docker-registry + podman pull", &*version("podman")?);
    report.record("push", &subject, peer, 1, ours, podman)?;
    wipe_podman(bed)?;
    wipe(bed, "docker-registry-set")?;
    let ostree = ostree(bed, &share)?;
    report.note(format!(
        "push: ostree's repository and checkouts take {} MB",
        disk_bytes(&[&bed.path("ostree")])? / MB
    ));
    let peer = ("ostree commit + checkout -H", &*ostree_version()?);
    report.record("push", &subject, peer, 1, ours, ostree)?;
    ["ostree", "ostree-trees", "share"]
        .iter()
        .try_for_each(|dir| wipe(bed, dir))
}

/// What the shared tree takes, beside what it holds.
fn describe(report: &mut Report, ours: &Sample, share: &Path) -> Result<()> {
    let trees = trees_bytes(share)?;
    let unique = contents_bytes(&share.join("objects"))?;
    let mut composefs = disk_bytes(&[&share.join("objects"), &share.join("layers")])?;
    for entry in fs::read_dir(share.join("digests"))? {
        let image = entry?.path();
        for name in ["image.erofs", "manifest.json", "config.json", "record.json"] {
            composefs += disk_bytes(&[&image.join(name)])?;
        }
    }
    let all = ["objects", "variants", "digests", "layers"].map(|name| share.join(name));
    let both = disk_bytes(&all.each_ref().map(PathBuf::as_path))?;
    let blobs = disk_bytes(&[&share.join("blobs")])?;
    report.note(format!(
        "push: {} MB of trees in {:.1} s, {:.1} s per 8 GB; {} MB of unique contents; composefs face with records {} MB \
         ({:.3}), both faces {} MB, compressed blobs {} MB",
        trees / MB,
        ours.wall_ms / 1e3,
        ours.wall_ms / 1e3 * 8e9 / approximate(trees),
        unique / MB,
        composefs / MB,
        approximate(composefs) / approximate(unique),
        both / MB,
        blobs / MB,
    ));
    Ok(())
}

/// Room that the files of a pool take, without its directories.
fn contents_bytes(pool: &Path) -> Result<u64> {
    let mut sum = 0;
    for fan in fs::read_dir(pool)? {
        for file in fs::read_dir(fan?.path())? {
            sum += disk_bytes(&[&file?.path()])?;
        }
    }
    Ok(sum)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

fn push_to_ours(bed: &Bed, images: &[&str]) -> Result<(Sample, PathBuf)> {
    wipe(bed, "share")?;
    let share = bed.path("share");
    let (daemon, address) = serve(bed)?;
    let mut sample = once(&Contender {
        name: "gantry registry serve",
        version: String::new(),
        prepare: Box::new(|| Ok(())),
        commands: Box::new(|| {
            images
                .iter()
                .map(|image| skopeo_command(image, &address))
                .collect()
        }),
        daemons: vec![daemon.pid()],
        pace: Pace::Long,
    })?;
    sample.peak_mib = peak_mib(daemon.pid())?;
    Ok((sample, share))
}

/// Our registry over the directory `share` of the bed; its address.
pub fn serve(bed: &Bed) -> Result<(Daemon, String)> {
    let port_file = bed.path("share.port");
    fs::remove_file(&port_file).ok();
    let mut command = bed.gantry();
    command
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(bed.path("share"));
    let daemon = Daemon::start(command.arg("--port-file").arg(&port_file))?;
    let address = format!("127.0.0.1:{}", wait_for_port(&port_file)?);
    Ok((daemon, address))
}

/// Pushes a fixture as `set/NAME:latest`.
pub fn skopeo_push(image: &str, address: &str) -> Result<()> {
    fixtures::layout(image)?;
    tool::run(&mut skopeo_command(image, address)).map(drop)
}

fn skopeo_command(image: &str, address: &str) -> Command {
    let source = format!("oci:{}:latest", fixtures::dir().join(image).display());
    let destination = format!("docker://{address}/set/{image}:latest");
    let mut command = Command::new("skopeo");
    command.args([
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
    ]);
    command.args([source, destination]);
    command
}

fn peak_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    let kib: f64 = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(kib / 1024.0)
}

/// What gives a host the same trees today: push to the reference server, pull each image.
fn push_and_pull(bed: &Bed, images: &[&str]) -> Result<Sample> {
    wipe(bed, "docker-registry-set")?;
    wipe_podman(bed)?;
    let registry = DockerRegistry::start(&bed.path("docker-registry-set"))?;
    once(&Contender {
        name: "docker-registry + podman pull",
        version: String::new(),
        prepare: Box::new(|| Ok(())),
        commands: Box::new(|| {
            let address = registry.address();
            let both = |image: &&str| {
                let mut pull = podman_command(bed);
                pull.args(["pull", "-q", "--tls-verify=false"]);
                pull.arg(format!("{address}/set/{image}:latest"));
                [skopeo_command(image, address), pull]
            };
            images.iter().flat_map(both).collect()
        }),
        daemons: vec![registry.pid()],
        pace: Pace::Long,
    })
}

/// Commits every exploded tree to an empty repository and checks it out as hard links.
fn ostree(bed: &Bed, share: &Path) -> Result<Sample> {
    wipe(bed, "ostree")?;
    let repository = format!("--repo={}", bed.path("ostree/repo").display());
    tool::text("ostree", ["init", "--mode=bare", &repository])?;
    let trees = trees_of_files(bed, share)?;
    once(&Contender {
        name: "ostree commit + checkout -H",
        version: String::new(),
        prepare: Box::new(|| Ok(())),
        commands: Box::new(|| {
            let both = |(index, tree): (usize, &PathBuf)| {
                let branch = format!("tree{index}");
                let (mut commit, mut checkout) = (Command::new("ostree"), Command::new("ostree"));
                commit.args(["commit", &repository, "--no-bindings", "-b", &branch]);
                commit.arg(format!("--tree=dir={}", tree.display()));
                checkout.args(["checkout", &repository, "-H", &branch]);
                checkout.arg(bed.path("ostree").join(&branch));
                [commit, checkout]
            };
            trees.iter().enumerate().flat_map(both).collect()
        }),
        daemons: Vec::new(),
        pace: Pace::Long,
    })
}

/// The exploded trees without their device nodes, which ostree refuses: hard links of hard links.
fn trees_of_files(bed: &Bed, share: &Path) -> Result<Vec<PathBuf>> {
    wipe(bed, "ostree-trees")?;
    let mut copies = Vec::new();
    for (index, tree) in trees(share)?.iter().enumerate() {
        let copy = bed.path("ostree-trees").join(index.to_string());
        tool::run(Command::new("cp").arg("-al").arg(tree).arg(&copy))?;
        tool::run(
            Command::new("find")
                .arg(&copy)
                .args(["!", "-type", "f", "!", "-type", "d", "!", "-type", "l"])
                .arg("-delete"),
        )?;
        copies.push(copy);
    }
    Ok(copies)
}

fn ostree_version() -> Result<String> {
    let text = tool::text("ostree", ["--version"])?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version: "));
    Ok(line.unwrap_or("unknown").trim_matches('\'').to_owned())
}

/// The exploded root file systems of a shared tree.
fn trees(share: &Path) -> Result<Vec<PathBuf>> {
    let mut trees = Vec::new();
    for entry in fs::read_dir(share.join("digests"))? {
        let rootfs = entry?.path().join("rootfs");
        if rootfs.is_dir() {
            trees.push(rootfs);
        }
    }
    trees.sort();
    Ok(trees)
}

/// Room that all trees would take, each on its own.
fn trees_bytes(share: &Path) -> Result<u64> {
    trees(share)?.iter().map(|tree| disk_bytes(&[tree])).sum()
}
