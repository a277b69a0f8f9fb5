// SPDX-License-Identifier: Apache-2.0
//! Starting containers from the shared tree: time, bytes moved, and the page cache that they share.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::{fixtures, tool};
use serde_json::json;

use super::compare::{Contender, Report, compare};
use super::pull::{podman_command, version, wipe, wipe_podman};
use super::push::skopeo_push;
use super::{Bed, image_set};
use crate::demo::{Daemon, tree_bytes, wait_for_port};

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    wipe(bed, "share")?;
    wipe(bed, "second-host")?;
    let port_file = bed.path("share.port");
    fs::remove_file(&port_file).ok();
    let mut command = Command::new(&bed.gantry);
    command
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(bed.path("share"));
    let _registry = Daemon::start(command.arg("--port-file").arg(&port_file))?;
    let address = format!("127.0.0.1:{}", wait_for_port(&port_file)?);
    skopeo_push("tiny", &address)?;
    starts(bed, report)?;
    let moved = tree_bytes(&bed.path("second-host/store"))?;
    report.note(format!(
        "start: {moved} bytes of images in the second host's store"
    ));
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
    Ok(())
}

fn starts(bed: &Bed, report: &mut Report) -> Result<()> {
    wipe_podman(bed)?;
    let image = tool::run(podman_command(bed).args(["pull", "-q", &fixtures::reference("tiny")?]))?;
    let image = String::from_utf8(image.stdout)?.trim().to_owned();
    let bundle = bed.path("bundle");
    write_bundle(&bundle, &bed.path("share/images/set/tiny/latest/rootfs"))?;
    let contender = |name, version, command: Box<dyn Fn() -> Command>| Contender {
        name,
        version,
        prepare: Box::new(|| Ok(())),
        commands: Box::new(move || vec![command()]),
        daemons: Vec::new(),
    };
    let ours = {
        let (gantry, share) = (bed.gantry.clone(), bed.path("share"));
        let (store, runroot) = (bed.path("second-host/store"), bed.path("second-host/run"));
        contender(
            "gantry run --rm",
            env!("CARGO_PKG_VERSION").into(),
            Box::new(move || {
                let mut command = Command::new(&gantry);
                command
                    .arg("--root")
                    .arg(&store)
                    .arg("--runroot")
                    .arg(&runroot);
                command
                    .args(["run", "--rm", "--network", "none", "--share"])
                    .arg(&share)
                    .args(["set/tiny:latest", "true"]);
                command
            }),
        )
    };
    let crun = contender(
        "crun run, same root",
        version("crun", "")?,
        Box::new(move || {
            let mut command = Command::new("crun");
            command
                .args(["--cgroup-manager=cgroupfs", "run", "-b"])
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
        version("podman", "")?,
        Box::new(move || {
            let mut command = Command::new("podman");
            command
                .args(&podman_base)
                .args(["run", "--rm", "--network", "none", &image, "true"]);
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
}

/// crun's own default document, running `true` in a read-only root.
fn write_bundle(bundle: &Path, rootfs: &Path) -> Result<()> {
    fs::create_dir_all(bundle)?;
    fs::remove_file(bundle.join("config.json")).ok();
    tool::run(Command::new("crun").args(["spec", "-b"]).arg(bundle))
        .or_else(|_| tool::run(Command::new("crun").arg("spec").current_dir(bundle)))?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    config["root"] = json!({"path": rootfs, "readonly": true});
    Ok(fs::write(path, serde_json::to_vec(&config)?)?)
}

/// Pages of the shared files in memory after the first of ten containers and after the last.
fn page_cache(bed: &Bed, report: &mut Report, services: &[&str]) -> Result<()> {
    tool::run(&mut Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache")?;
    let mut resident = Vec::new();
    for service in services {
        let mut command = Command::new(&bed.gantry);
        command
            .arg("--root")
            .arg(bed.path("second-host/store"))
            .arg("--runroot")
            .arg(bed.path("second-host/run"));
        command
            .args(["run", "--rm", "--network", "none", "--share"])
            .arg(bed.path("share"));
        let script = "find /usr/lib/jvm -type f -exec cat {} + >/dev/null";
        tool::run(
            command
                .arg(format!("set/{service}:latest"))
                .args(["sh", "-c", script]),
        )?;
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
