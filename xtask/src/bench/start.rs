// SPDX-License-Identifier: Apache-2.0
//! Starting containers from the shared tree: time, bytes moved, and the page cache that they share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::{fixtures, tool};
use serde_json::json;

use super::compare::{Contender, Pace, Report, Sample, compare, median};
use super::pull::{podman_command, version, wipe, wipe_podman};
use super::push::{serve, skopeo_push};
use super::{Bed, Cgroups, cgroups, image_set};
use crate::demo::{first_line, tree_bytes};

/// Between two starts. Moving a process between control groups waits for a grace period of the kernel's, about ten
/// milliseconds, unless somebody else has just waited: whoever comes second would start for less.
const APART: Duration = Duration::from_millis(100);

/// For podman, whose own would have to be raised.
const LOW_LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    wipe(bed, "share")?;
    wipe(bed, "second-host")?;
    write_runtime(bed)?;
    let (_registry, address) = serve(bed)?;
    skopeo_push("tiny", &address)?;
    starts(bed, report)?;
    if fixtures::layout("app-v2").is_ok() {
        first_lines(bed, report, &address)?;
    }
    let services: Vec<_> = image_set()
        .into_iter()
        .filter(|name| name.starts_with("jre-"))
        .collect();
    if services.len() == 10 {
        for service in &services {
            skopeo_push(service, &address)?;
        }
        page_cache(bed, report, &services)?;
    }
    let moved = tree_bytes(&bed.path("second-host/store"))?;
    report.note(format!(
        "start: {moved} bytes of images in the second host's store"
    ));
    Ok(())
}

/// `gantry run` on the second host, which has nothing but the shared tree.
fn run_command(bed: &Bed, image: &str) -> Command {
    let mut command = bed.gantry();
    command
        .arg("--root")
        .arg(bed.path("second-host/store"))
        .arg("--runroot")
        .arg(bed.path("second-host/run"));
    command.args(["run", "--rm", "--network", "none", "--runtime"]);
    command
        .arg(runtime(bed))
        .arg("--share")
        .arg(bed.path("share"));
    command.arg(format!("set/{image}:latest"));
    command
}

/// The runtime that `gantry run` is given: crun, told to leave control groups alone where it must.
fn runtime(bed: &Bed) -> PathBuf {
    match cgroups() {
        Cgroups::V1 | Cgroups::V2 => "crun".into(),
        Cgroups::None => bed.path("crun-without-cgroups"),
    }
}

fn write_runtime(bed: &Bed) -> Result<()> {
    if cgroups() == Cgroups::None {
        fs::write(
            runtime(bed),
            "#!/bin/sh\nexec crun --cgroup-manager=disabled \"$@\"\n",
        )?;
        fs::set_permissions(runtime(bed), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// From the end of a push of another version to the first line of its container on the second host, beside the same
/// program in the same tree by `chroot`.
fn first_lines(bed: &Bed, report: &mut Report, address: &str) -> Result<()> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let runs = bed.runs * 2;
    for run in 0..runs {
        let image = ["app-v1", "app-v2"][run % 2];
        skopeo_push(image, address)?;
        let accepted = Instant::now();
        let (line, at) = first_line(&mut run_command(bed, image))?;
        ours.push(wall(at.duration_since(accepted)));
        let rootfs = bed
            .path("share/images/set")
            .join(image)
            .join("latest/rootfs");
        let start = Instant::now();
        let mut command = Command::new("chroot");
        command.arg(rootfs).args(["python3", "/srv/app/main.py"]);
        let (same, at) = first_line(&mut command)?;
        ensure!(line == same, "{image} printed {line:?}, in chroot {same:?}");
        bare.push(wall(at.duration_since(start)));
    }
    // The first push unpacks, the others move the tag; the first run reads a cold cache on both sides.
    let (ours, bare) = (median(&ours), median(&bare));
    report.note(format!(
        "start: from push accepted to the first line on the second host {:.1} ms beyond chroot",
        ours.wall_ms - bare.wall_ms
    ));
    report.record(
        "start",
        "push to first line, app",
        ("chroot", ""),
        runs,
        ours,
        bare,
    )
}

fn wall(time: Duration) -> Sample {
    Sample {
        wall_ms: time.as_secs_f64() * 1e3,
        ..Sample::default()
    }
}

fn starts(bed: &Bed, report: &mut Report) -> Result<()> {
    wipe_podman(bed)?;
    let image = tool::run(podman_command(bed).args(["pull", "-q", &fixtures::reference("tiny")?]))?;
    let image = String::from_utf8(image.stdout)?.trim().to_owned();
    let bundle = bed.path("bundle");
    write_bundle(
        bed,
        &bundle,
        &bed.path("share/images/set/tiny/latest/rootfs"),
    )?;
    let contender = |name, version, command: Box<dyn Fn() -> Command>| Contender {
        name,
        version,
        prepare: Box::new(|| {
            std::thread::sleep(APART);
            Ok(())
        }),
        commands: Box::new(move || vec![command()]),
        daemons: Vec::new(),
        pace: Pace::Detached,
    };
    let ours = Contender {
        name: "gantry run --rm",
        version: env!("CARGO_PKG_VERSION").into(),
        prepare: Box::new(|| {
            std::thread::sleep(APART);
            Ok(())
        }),
        commands: Box::new(|| {
            let mut command = run_command(bed, "tiny");
            command.arg("true");
            vec![command]
        }),
        daemons: Vec::new(),
        pace: Pace::Detached,
    };
    let crun = contender(
        "crun run, same bundle",
        version("crun")?,
        Box::new(move || {
            let mut command = Command::new("crun");
            let manager = match cgroups() {
                Cgroups::V1 | Cgroups::V2 => "--cgroup-manager=cgroupfs",
                Cgroups::None => "--cgroup-manager=disabled",
            };
            command
                .args([manager, "run", "-b"])
                .arg(&bundle)
                .arg("bench");
            command
        }),
    );
    let podman_base: Vec<_> = podman_command(bed)
        .get_args()
        .map(ToOwned::to_owned)
        .collect();
    let podman = contender(
        "podman run --rm --network none",
        version("podman")?,
        Box::new(move || {
            let mut command = Command::new("podman");
            command
                .args(&podman_base)
                .args(["run", "--rm", "--network", "none"])
                .args(match cgroups() {
                    Cgroups::V2 => &[][..],
                    Cgroups::V1 => &LOW_LIMITS,
                    Cgroups::None => &["--cgroups=disabled", LOW_LIMITS[0], LOW_LIMITS[1]],
                })
                .args([&image, "true"]);
            command
        }),
    );
    compare(
        report,
        "start",
        "run --rm tiny true",
        bed.runs * 8,
        &ours,
        &[crun, podman],
    )
    .map(drop)
}

/// The document that `gantry run` gives its runtime, but for the files that are made for the container, over a copy of
/// the tree of hard links (the runtime makes the mount points that it lacks).
fn write_bundle(bed: &Bed, bundle: &Path, rootfs: &Path) -> Result<()> {
    fs::create_dir_all(bundle)?;
    let mut command = bed.gantry();
    command
        .arg("--root")
        .arg(bed.path("second-host/store"))
        .args(["generate", "--oci-version", "1.0.2", "--share"])
        .arg(bed.path("share"))
        .args(["--image", "set/tiny:latest", "--", "true"]);
    let mut config: serde_json::Value = serde_json::from_slice(&tool::run(&mut command)?.stdout)?;
    config["root"]["path"] = json!("rootfs");
    let copy = bundle.join("rootfs");
    if !copy.exists() {
        tool::run(Command::new("cp").arg("-al").arg(rootfs).arg(copy))?;
    }
    Ok(fs::write(
        bundle.join("config.json"),
        serde_json::to_vec(&config)?,
    )?)
}

/// Pages of the shared files in memory after the first of ten containers and after the last.
fn page_cache(bed: &Bed, report: &mut Report, services: &[&str]) -> Result<()> {
    tool::run(&mut Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache")?;
    let mut resident = Vec::new();
    for service in services {
        let script = "find /usr/lib/jvm -type f -exec cat {} + >/dev/null";
        tool::run(run_command(bed, service).args(["sh", "-c", script]))?;
        resident.push(resident_mib(&bed.path("share"))?);
    }
    let (one, ten) = (
        resident.first().copied().unwrap_or_default(),
        resident.last().copied().unwrap_or_default(),
    );
    ensure!(one > 0.0, "no page of the share is in memory");
    report.note(format!("start: JRE in the page cache after one container {one:.1} MiB, after ten {ten:.1} MiB ({:.3})", ten / one));
    Ok(())
}

/// Pages of all objects and variants in memory, each inode once.
fn resident_mib(share: &Path) -> Result<f64> {
    // Only what stands in the two pools: the trees' names lead to the same inodes.
    const SCRIPT: &str = r#"find "$1/objects" "$1/variants" -type f -print0 2>/dev/null | xargs -0 fincore -b -n -r -o RES"#;
    let list = tool::run(Command::new("sh").args(["-c", SCRIPT, "sh"]).arg(share))?;
    let bytes: f64 = String::from_utf8(list.stdout)?
        .lines()
        .filter_map(|line| line.trim().parse::<f64>().ok())
        .sum();
    Ok(bytes / 1024.0 / 1024.0)
}
