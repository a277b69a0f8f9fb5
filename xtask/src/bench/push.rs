// SPDX-License-Identifier: Apache-2.0
//! Push of the whole set into an empty registry, with explode, beside what gives other tools the same trees.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use gantry_testkit::tool::DockerRegistry;
use gantry_testkit::{fixtures, tool};

use super::compare::{Report, Sample, cpu_ms};
use super::pull::{podman_command, version, wipe, wipe_podman};
use super::{Bed, image_set};
use crate::demo::{Daemon, disk_bytes, wait_for_port};

const MB: u64 = 1_000_000;

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let images = image_set();
    let subject = format!("{} images", images.len());
    let (ours, share) = push_to_ours(bed, &images)?;
    let objects = disk_bytes(&[&share.join("objects")])?;
    let faces = disk_bytes(&[
        &share.join("objects"),
        &share.join("variants"),
        &share.join("digests"),
        &share.join("layers"),
    ])?;
    let blobs = disk_bytes(&[&share.join("blobs")])?;
    let trees = trees_bytes(&share)?;
    report.note(format!(
        "push: {} MB of trees, {} MB objects, {} MB with both faces and records, {} MB compressed blobs, {:.1} s per 8 GB of trees",
        trees / MB,
        objects / MB,
        faces / MB,
        blobs / MB,
        ours.wall_ms / 1e3 * 8e9 / approximate(trees)
    ));
    let podman = push_and_pull(bed, &images)?;
    let peer_disk = disk_bytes(&[&bed.path("podman"), &bed.path("docker-registry-set")])?;
    report.note(format!(
        "push: docker-registry and podman's store take {} MB",
        peer_disk / MB
    ));
    report.record_named(
        "push",
        &subject,
        ("docker-registry + podman pull", &version("podman", "")?),
        1,
        ours,
        podman,
    )?;
    wipe_podman(bed)?;
    let ostree = ostree(bed, &share)?;
    report.note(format!(
        "push: ostree's repository and checkouts take {} MB",
        disk_bytes(&[&bed.path("ostree")])? / MB
    ));
    report.record_named(
        "push",
        &subject,
        ("ostree commit + checkout -H", &ostree_version()?),
        1,
        ours,
        ostree,
    )?;
    wipe(bed, "ostree")
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

fn push_to_ours(bed: &Bed, images: &[&str]) -> Result<(Sample, std::path::PathBuf)> {
    wipe(bed, "share")?;
    let share = bed.path("share");
    let port_file = bed.path("share.port");
    fs::remove_file(&port_file).ok();
    let mut command = Command::new(&bed.gantry);
    command
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(&share);
    let daemon = Daemon::start(command.arg("--port-file").arg(&port_file))?;
    let address = format!("127.0.0.1:{}", wait_for_port(&port_file)?);
    let before = cpu_ms(daemon.pid())?;
    let start = Instant::now();
    for image in images {
        skopeo_push(image, &address)?;
    }
    let wall_ms = start.elapsed().as_secs_f64() * 1e3;
    let cpu_ms = cpu_ms(daemon.pid())? - before;
    let peak_mib = peak_mib(daemon.pid())?;
    Ok((
        Sample {
            wall_ms,
            cpu_ms,
            peak_mib,
        },
        share,
    ))
}

/// Pushes a fixture as `set/NAME:latest`.
pub fn skopeo_push(image: &str, address: &str) -> Result<()> {
    let destination = format!("docker://{address}/set/{image}:latest");
    let source = fixtures::reference(image)?;
    tool::text(
        "skopeo",
        [
            "copy",
            "-q",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &source,
            &destination,
        ],
    )
    .map(drop)
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
    let start = Instant::now();
    for image in images {
        skopeo_push(image, registry.address())?;
        let name = format!("{}/set/{image}:latest", registry.address());
        tool::run(podman_command(bed).args(["pull", "-q", "--tls-verify=false", &name]))?;
    }
    Ok(Sample {
        wall_ms: start.elapsed().as_secs_f64() * 1e3,
        ..Sample::default()
    })
}

/// Commits every exploded tree to an empty repository and checks it out as hard links.
fn ostree(bed: &Bed, share: &Path) -> Result<Sample> {
    wipe(bed, "ostree")?;
    let repository = format!("--repo={}", bed.path("ostree/repo").display());
    tool::text("ostree", ["init", "--mode=bare", &repository])?;
    // It refuses device nodes.
    let skip = bed.path("ostree/skip");
    let names = [
        "console", "full", "null", "ptmx", "random", "tty", "urandom", "zero",
    ];
    fs::write(&skip, names.map(|name| format!("/dev/{name}\n")).concat())?;
    let skip = format!("--skip-list={}", skip.display());
    let start = Instant::now();
    for (index, tree) in trees(share)?.iter().enumerate() {
        let (branch, tree) = (
            format!("tree{index}"),
            format!("--tree=dir={}", tree.display()),
        );
        tool::text(
            "ostree",
            [
                "commit",
                &repository,
                "--no-bindings",
                "-b",
                &branch,
                &skip,
                &tree,
            ],
        )?;
        let checkout = bed.path("ostree").join(&branch).display().to_string();
        tool::text(
            "ostree",
            ["checkout", &repository, "-H", &branch, &checkout],
        )?;
    }
    Ok(Sample {
        wall_ms: start.elapsed().as_secs_f64() * 1e3,
        ..Sample::default()
    })
}

fn ostree_version() -> Result<String> {
    let text = tool::text("ostree", ["--version"])?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version: "));
    Ok(line.unwrap_or("unknown").trim_matches('\'').to_owned())
}

/// The exploded root file systems of a shared tree.
fn trees(share: &Path) -> Result<Vec<std::path::PathBuf>> {
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
