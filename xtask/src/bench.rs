// SPDX-License-Identifier: Apache-2.0
//! The figures: our programs beside other people's, interleaved in one run, as ratios of medians.
//!
//! Everything lies on a scratch ext4 (loop device, direct I/O, noatime), in a mount namespace that has one version of
//! control groups (crun refuses both side by side, podman 5 too). The registry is on the same machine: no latency, no bandwidth
//! limit, so a pull is CPU and file system only. All that a bench starts stands in one scheduling group of high weight, so
//! that what else runs on the machine disturbs ours and the peers as little, and as equally, as can be. Results go to `target/bench/results.jsonl`, one line a figure.

mod compare;
mod look;
mod pull;
mod push;
mod runtime;
mod start;
mod trust;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use gantry_testkit::{fixtures, scratch::Disk, skip::is_root, tool};

use compare::Report;

/// Options of the benches.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which benches; all without.
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// The program to measure.
    #[arg(long, default_value = "target/release/gantry")]
    gantry: PathBuf,
    /// Runs of each contender; starts are run eight times as often.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where the results are appended.
    #[arg(long, default_value = "target/bench/results.jsonl")]
    results: PathBuf,
    /// Set by the program itself once it stands in its own namespace.
    #[arg(long, hide = true)]
    isolated: bool,
}

/// One group of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// Pull into an empty store.
    Pull,
    /// Copy of blobs to a layout, and inspect.
    Look,
    /// Push of the whole set, with explode.
    Push,
    /// Start of a container, and the page cache that ten of them share.
    Start,
    /// Our OCI runtime beside crun and runc; needs no image.
    Runtime,
    /// Verdicts on trust, at a pull and at a start.
    Trust,
}

/// What every bench works with.
struct Bed {
    gantry: PathBuf,
    runs: usize,
    disk: Disk,
}

impl Bed {
    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    /// Our command, under the policy of the bed.
    fn gantry(&self) -> Command {
        let mut command = Command::new(&self.gantry);
        command.arg("--policy").arg(self.path("policy.json"));
        command
    }
}

/// Runs the benches asked for and prints their table.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        is_root(),
        "the benches need root: they mount a scratch file system and start containers"
    );
    if !args.isolated {
        return isolate();
    }
    ensure!(
        args.gantry.is_file(),
        "no program {}: run `make build`",
        args.gantry.display()
    );
    let asked = |bench| args.benches.is_empty() || args.benches.contains(&bench);
    if [Bench::Pull, Bench::Look, Bench::Push, Bench::Start]
        .map(asked)
        .contains(&true)
    {
        let missing = tool::missing(&[
            "skopeo",
            "podman",
            "crun",
            "ctr",
            "containerd",
            "docker-registry",
            "ostree",
        ]);
        ensure!(
            missing.is_empty(),
            "not installed: {}; run `make bench`",
            missing.join(", ")
        );
    }
    let gantry = fs_absolute(&args.gantry)?;
    let bed = Bed {
        gantry,
        runs: args.runs,
        disk: Disk::new(60 << 30)?,
    };
    std::fs::write(bed.path("policy.json"), ACCEPT)?;
    let mut report = Report::create(&args.results)?;
    println!("{}", machine()?);
    let mut failed = Vec::new();
    for (bench, name, run) in [
        (
            Bench::Pull,
            "pull",
            pull::run as fn(&Bed, &mut Report) -> Result<()>,
        ),
        (Bench::Look, "look", look::run),
        (Bench::Push, "push", push::run),
        (Bench::Start, "start", start::run),
        (Bench::Runtime, "runtime", runtime::run),
        (Bench::Trust, "trust", trust::run),
    ] {
        if asked(bench) {
            if let Err(error) = run(&bed, &mut report) {
                println!("bench {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    println!("\n{}", report.table());
    if !failed.is_empty() {
        bail!("these benches did not end: {}", failed.join(", "));
    }
    Ok(())
}

/// What each of our commands is judged by, unless a bench is about that.
const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

fn fs_absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("find {}", path.display()))
}

/// Executes this program again in a mount namespace with one version of control groups: the second, or, where root
/// may not raise the limit on locked memory as crun does before it loads its program for devices, the first. Where that is
/// not there either, no contender uses control groups.
fn isolate() -> Result<()> {
    const SCRIPT: &str = "if (ulimit -H -l unlimited && ulimit -S -l unlimited) 2>/dev/null; then
    umount -R -l /sys/fs/cgroup 2>/dev/null || :
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    export GANTRY_BENCH_CGROUPS=v2
elif [ -d /sys/fs/cgroup/memory ]; then
    umount /sys/fs/cgroup/unified 2>/dev/null || :
    export GANTRY_BENCH_CGROUPS=v1
else
    umount -R -l /sys/fs/cgroup 2>/dev/null || :
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    export GANTRY_BENCH_CGROUPS=none
fi
[ ! -w /proc/self/autogroup ] || echo -20 > /proc/self/autogroup
exec \"$@\"";
    let status = Command::new("setsid")
        .args([
            "--wait",
            "setpriv",
            "--pdeathsig",
            "TERM",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--",
            "sh",
            "-ec",
            SCRIPT,
            "sh",
        ])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--isolated")
        .status()
        .context("start unshare")?;
    ensure!(status.success(), "the benches failed");
    Ok(())
}

/// Which control groups containers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cgroups {
    V2,
    /// Root may not raise limits here either.
    V1,
    /// Likewise.
    None,
}

fn cgroups() -> Cgroups {
    match std::env::var("GANTRY_BENCH_CGROUPS").as_deref() {
        Ok("v1") => Cgroups::V1,
        Ok("none") => Cgroups::None,
        _ => Cgroups::V2,
    }
}

/// Machine, kernel and load, to stand beside every figure.
fn machine() -> Result<String> {
    let cpus = std::thread::available_parallelism()?;
    let kernel = tool::text("uname", ["-srm"])?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let cgroups = match cgroups() {
        Cgroups::V2 => "version 2 of control groups",
        Cgroups::V1 => "version 1 of control groups",
        Cgroups::None => "no control groups",
    };
    Ok(format!(
        "machine: {cpus} CPUs, {kernel}, ext4 on a loop device, {cgroups}; load before {load}"
    ))
}

/// The images that a bench of the whole set uses, each once.
fn image_set() -> Vec<&'static str> {
    const SET: &[&str] = &[
        "base", "python3", "app-v1", "app-v2", "app-v3", "app-v4", "app-v5", "nginx", "postgres",
        "jre", "jre-00", "jre-01", "jre-02", "jre-03", "jre-04", "jre-05", "jre-06", "jre-07",
        "jre-08", "jre-09", "sci",
    ];
    SET.iter()
        .copied()
        .filter(|name| fixtures::layout(name).is_ok())
        .collect()
}
