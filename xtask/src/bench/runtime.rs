// SPDX-License-Identifier: Apache-2.0
//! Our OCI runtime beside crun and runc: one bundle, one root for state each, in turn.
//!
//! Starts are measured twice: one after the other, and a tenth of a second apart. Whoever moves a process between control
//! groups makes the kernel wait for a grace period, which the next one, if it comes at once, need not wait for again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::tool;
use serde_json::{Value, json};

use super::compare::{Contender, Pace, Report, Sample, compare, median};
use super::pull::version;
use super::{Bed, Cgroups, cgroups};

/// Between two starts that shall each pay for their own grace period.
const APART: Duration = Duration::from_millis(100);
/// Starts are short: they are run so many times as often as everything else.
const IN_A_ROW: usize = 30;
/// Likewise of those that stand apart.
const ONE_BY_ONE: usize = 8;
/// Where podman looks for its filter.
const PODMAN_FILTER: &str = "/usr/share/containers/seccomp.json";

/// A runtime: how it is called, and where it keeps its containers.
struct Runtime {
    name: &'static str,
    version: String,
    words: Vec<PathBuf>,
    root: PathBuf,
}

impl Runtime {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).arg("--root").arg(&self.root);
        command
    }

    fn run(&self, bundle: &Path) -> Command {
        let mut command = self.command();
        command.args(["run", "-b"]).arg(bundle).arg("bench");
        command
    }

    /// The container in which `exec` is measured; control groups are named by it.
    fn host_of_exec(&self) -> String {
        format!("bench-exec-{}", self.name)
    }

    fn exec(&self) -> Command {
        let mut command = self.command();
        command.args(["exec", &self.host_of_exec(), "/bin/true"]);
        command
    }
}

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    ensure!(
        cgroups() != Cgroups::None,
        "this host has no control groups that crun could use"
    );
    let missing = tool::missing(&["crun", "runc", "busybox", "time", "strip"]);
    ensure!(missing.is_empty(), "not installed: {}", missing.join(", "));
    // Runtimes keep their state in /run, which is memory.
    let state = tempfile::tempdir_in("/dev/shm").context("make a directory in memory")?;
    let runtime = |name, words: &[&Path]| {
        Ok::<_, anyhow::Error>(Runtime {
            name,
            version: match name {
                "gantry" => env!("CARGO_PKG_VERSION").to_owned(),
                _ => version(name)?,
            },
            words: words.iter().map(|word| word.to_path_buf()).collect(),
            root: state.path().join(name),
        })
    };
    let ours = runtime("gantry", &[&bed.gantry, "runtime".as_ref()])?;
    let peers = [
        runtime("crun", &["crun".as_ref()])?,
        runtime("runc", &["runc".as_ref()])?,
    ];
    let plain = write_bundle(bed, "plain", &["/bin/true"], None)?;
    let own = filter(bed, "compat", None)?;
    let own = write_bundle(bed, "own-filter", &["/bin/true"], Some(own))?;
    let idle = write_bundle(bed, "idle", &["/bin/sleep", "1000000"], None)?;

    start(bed, report, "run", (&ours, &peers), &|it| it.run(&plain))?;
    start(bed, report, "run, our filter", (&ours, &peers), &|it| {
        it.run(&own)
    })?;
    if Path::new(PODMAN_FILTER).exists() {
        let podman = filter(bed, "compat", Some(PODMAN_FILTER))?;
        let podman = write_bundle(bed, "podman-filter", &["/bin/true"], Some(podman))?;
        start(
            bed,
            report,
            "run, podman's filter",
            (&ours, &peers),
            &|it| it.run(&podman),
        )?;
    } else {
        report.note(format!("runtime: no {PODMAN_FILTER}, so not measured"));
    }
    exec(bed, report, (&ours, &peers), &idle)?;
    single_verbs(bed, report, (&ours, &peers), &plain)?;
    sizes(bed, report)
}

/// Measures a command of each in both paces, and says what each took of memory.
fn start(
    bed: &Bed,
    report: &mut Report,
    subject: &str,
    (ours, peers): (&Runtime, &[Runtime]),
    command: &dyn Fn(&Runtime) -> Command,
) -> Result<()> {
    println!("  {subject}: {:?}", command(ours));
    let mut peaks = Vec::new();
    for (pace, apart, times) in [
        ("in a row", Duration::ZERO, IN_A_ROW),
        ("0.1 s apart", APART, ONE_BY_ONE),
    ] {
        let contender = |runtime| contender(runtime, apart, command);
        let peers: Vec<_> = peers.iter().map(contender).collect();
        let subject = format!("{subject}, {pace}");
        let runs = bed.runs * times;
        peaks = compare(report, "runtime", &subject, runs, &contender(ours), &peers)?;
    }
    let peaks: Vec<String> = std::iter::once(ours)
        .chain(peers)
        .zip(&peaks)
        .map(|(runtime, sample)| format!("{} {:.1} MiB", runtime.name, sample.peak_mib))
        .collect();
    report.note(format!("runtime: {subject}: peak {}", peaks.join(", ")));
    Ok(())
}

fn contender<'a>(
    runtime: &'a Runtime,
    apart: Duration,
    command: &'a dyn Fn(&Runtime) -> Command,
) -> Contender<'a> {
    Contender {
        name: runtime.name,
        version: runtime.version.clone(),
        prepare: Box::new(move || {
            std::thread::sleep(apart);
            Ok(())
        }),
        commands: Box::new(move || vec![command(runtime)]),
        daemons: Vec::new(),
        pace: Pace::Brief,
    }
}

fn exec(
    bed: &Bed,
    report: &mut Report,
    (ours, peers): (&Runtime, &[Runtime]),
    idle: &Path,
) -> Result<()> {
    let all = || std::iter::once(ours).chain(peers);
    let measured = all()
        .try_for_each(|runtime| {
            let mut command = runtime.command();
            command
                .args(["run", "--detach", "-b"])
                .arg(idle)
                .arg(runtime.host_of_exec());
            quiet(&mut command)
        })
        .and_then(|()| start(bed, report, "exec", (ours, peers), &Runtime::exec));
    for runtime in all() {
        let host = runtime.host_of_exec();
        quiet(runtime.command().args(["delete", "--force", &host]))?;
    }
    measured
}

/// `create`, `start` and `delete` as container managers call them.
fn single_verbs(
    bed: &Bed,
    report: &mut Report,
    (ours, peers): (&Runtime, &[Runtime]),
    bundle: &Path,
) -> Result<()> {
    const ID: &str = "bench-verbs";
    let runs = bed.runs * ONE_BY_ONE;
    let all: Vec<&Runtime> = std::iter::once(ours).chain(peers).collect();
    let mut samples = vec![Vec::new(); all.len()];
    for _ in 0..runs {
        for (runtime, samples) in all.iter().zip(&mut samples) {
            std::thread::sleep(APART);
            let begin = Instant::now();
            quiet(runtime.command().args(["create", "-b"]).arg(bundle).arg(ID))?;
            quiet(runtime.command().args(["start", ID]))?;
            quiet(runtime.command().args(["delete", "--force", ID]))?;
            samples.push(Sample {
                wall_ms: begin.elapsed().as_secs_f64() * 1e3,
                ..Sample::default()
            });
        }
    }
    for (peer, samples_of_peer) in peers.iter().zip(&samples[1..]) {
        let who = (peer.name, peer.version.as_str());
        let (ours, theirs) = (median(&samples[0]), median(samples_of_peer));
        let subject = "create, start, delete --force";
        report.record("runtime", subject, who, runs, ours, theirs)?;
    }
    Ok(())
}

/// Runs a command whose container may live on: it must hold nothing that we would wait for.
fn quiet(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(Stdio::inherit()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// crun's own default document, with a program that ends at once and perhaps a filter.
fn write_bundle(bed: &Bed, name: &str, args: &[&str], filter: Option<Value>) -> Result<PathBuf> {
    let bundle = bed.path("runtime").join(name);
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin)?;
    let busybox = tool::find("busybox").context("busybox is not installed")?;
    fs::copy(busybox, bin.join("busybox"))?;
    for applet in ["true", "sleep"] {
        let link = bin.join(applet);
        if !link.exists() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    let file = bundle.join("config.json");
    fs::remove_file(&file).ok();
    tool::run(Command::new("crun").arg("spec").current_dir(&bundle))?;
    let mut document: Value = serde_json::from_slice(&fs::read(&file)?)?;
    document["process"]["terminal"] = json!(false);
    document["process"]["args"] = json!(args);
    if let Some(filter) = filter {
        document["linux"]["seccomp"] = filter;
    }
    fs::write(&file, serde_json::to_vec_pretty(&document)?)?;
    Ok(bundle)
}

/// The filter of one of our profiles, or of a file, as documents hold it: the same for all.
fn filter(bed: &Bed, profile: &str, file: Option<&str>) -> Result<Value> {
    let mut command = bed.gantry();
    command.args(["generate", "--oci-version", "1.0.2", "--profile", profile]);
    if let Some(file) = file {
        command.args(["--security-opt", &format!("seccomp={file}")]);
    }
    let output = tool::run(command.args(["--", "true"]))?;
    let mut document: Value = serde_json::from_slice(&output.stdout)?;
    let filter = document["linux"]["seccomp"].take();
    ensure!(filter.is_object(), "{profile} has no filter");
    Ok(filter)
}

/// What the programs take on disk without symbols.
fn sizes(bed: &Bed, report: &mut Report) -> Result<()> {
    let mut told = Vec::new();
    let mut whole = 0.0;
    for name in ["gantry", "gantry-monitor"] {
        let program = bed.gantry.with_file_name(name);
        if !program.exists() {
            continue;
        }
        let stripped = bed.path("runtime").join(name);
        tool::run(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
        let kilobytes = fs::metadata(&stripped)?.len().div_ceil(1000);
        let megabytes = f64::from(u32::try_from(kilobytes)?) / 1e3;
        whole += megabytes;
        told.push(format!("{name} {megabytes:.1}"));
    }
    report.note(format!(
        "runtime: stripped programs, MB: {}; together {whole:.1}",
        told.join(", ")
    ));
    Ok(())
}
