// SPDX-License-Identifier: Apache-2.0
//! Many short containers, one after the other and by several callers at once: none hangs, none fails, nothing is left.
//!
//! What is left shows in five places: mounts, control groups, the runtime's state, processes that nobody waits for (they come to
//! this process, which is the subreaper of all that it starts), and processes of the runtime that go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::{busybox, skip::is_root, tool};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::{Value, json};

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is put under stress.
    #[arg(value_enum)]
    subject: Subject,
    /// How many containers in all.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// How many callers at once.
    #[arg(long, default_value_t = 1)]
    callers: usize,
    /// The program.
    #[arg(long, default_value = "target/debug/gantry")]
    gantry: PathBuf,
    /// A call that takes longer hangs.
    #[arg(long, default_value_t = 60)]
    patience_s: u64,
}

/// What can be put under stress.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Subject {
    /// `gantry runtime run`.
    Runtime,
}

/// The status of each container's program, to be told from every failure.
const STATUS: i32 = 7;

/// Runs the containers and compares the machine before and after.
pub fn run(args: &Args) -> Result<()> {
    let Subject::Runtime = args.subject;
    ensure!(is_root(), "containers need root");
    let gantry = std::path::absolute(&args.gantry)?;
    ensure!(gantry.is_file(), "{} is not built", gantry.display());
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become the parent of orphans")?;
    let bed = Bed::make(gantry, args)?;
    let before = bed.look()?;
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let slowest = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..args.callers)
            .map(|caller| {
                let (bed, next) = (&bed, &next);
                scope.spawn(move || bed.call(caller, next))
            })
            .collect();
        callers
            .into_iter()
            .map(|caller| match caller.join() {
                Ok(outcome) => outcome,
                Err(_) => bail!("a caller panicked"),
            })
            .try_fold(Duration::ZERO, |slowest, outcome| {
                outcome.map(|duration| slowest.max(duration))
            })
    })?;
    let elapsed = started.elapsed();
    let after = bed.look()?;
    println!(
        "stress runtime: {} containers by {} callers in {:.1} s, {:.1} ms each, the slowest {} ms",
        args.count,
        args.callers,
        elapsed.as_secs_f64(),
        elapsed.as_secs_f64() * 1e3 / args.count as f64,
        slowest.as_millis()
    );
    println!("stress runtime: {after:?}");
    ensure!(before == after, "something is left: {before:?} before");
    Ok(())
}

/// What containers leave when they leave something.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// Below our directory: others mount on this machine, too.
    mounts: usize,
    groups: usize,
    states: usize,
    /// Descriptors of this process.
    descriptors: usize,
    /// Processes that came to us, ended or not.
    orphans: Vec<String>,
    /// Processes that name our state directory.
    runtimes: Vec<String>,
}

struct Bed {
    dir: Scratch,
    gantry: PathBuf,
    count: usize,
    patience: Duration,
}

impl Bed {
    fn make(gantry: PathBuf, args: &Args) -> Result<Self> {
        let bed = Self {
            dir: scratch(),
            gantry,
            count: args.count,
            patience: Duration::from_secs(args.patience_s),
        };
        let rootfs = bed.dir.join("rootfs");
        fs::create_dir(&rootfs)?;
        let archive = bed.dir.join("rootfs.tar");
        fs::write(&archive, busybox::archive(&["sh"], &[])?)?;
        tool::run(
            Command::new("tar")
                .arg("-C")
                .arg(&rootfs)
                .arg("-xf")
                .arg(&archive),
        )?;
        tool::run(bed.runtime(&["spec", "--bundle"]).arg(bed.dir.path()))?;
        let made = fs::read(bed.dir.join("config.json"))?;
        for caller in 0..args.callers {
            let mut document: Value = serde_json::from_slice(&made)?;
            document["root"]["path"] = json!(rootfs);
            document["process"]["terminal"] = json!(false);
            document["process"]["args"] = json!(["sh", "-c", format!("exit {STATUS}")]);
            document["linux"]["cgroupsPath"] = json!(format!("/{}/{caller}", bed.group()));
            let bundle = bed.bundle(caller);
            fs::create_dir(&bundle)?;
            fs::write(bundle.join("config.json"), document.to_string())?;
        }
        Ok(bed)
    }

    /// Unique, so that what is left of it is ours.
    fn group(&self) -> String {
        format!("gantry-stress-{}", std::process::id())
    }

    fn bundle(&self, caller: usize) -> PathBuf {
        self.dir.join(format!("bundle-{caller}"))
    }

    fn runtime(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.gantry);
        command
            .args(["runtime", "--root"])
            .arg(self.dir.join("state"))
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Takes numbers until there are no more; answers the longest time of a call.
    fn call(&self, caller: usize, next: &AtomicUsize) -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return Ok(slowest);
            }
            let started = Instant::now();
            let mut child = self
                .runtime(&["run", "--bundle"])
                .arg(self.bundle(caller))
                .arg(format!("c{number}"))
                .spawn()
                .context("start the runtime")?;
            let status = loop {
                // Its end is looked for often enough not to be what is measured.
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if started.elapsed() > self.patience {
                    child.kill()?;
                    child.wait()?;
                    bail!("container {number} hung");
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            ensure!(
                status.code() == Some(STATUS),
                "container {number} ended with {status}"
            );
            slowest = slowest.max(started.elapsed());
        }
    }

    fn look(&self) -> Result<Left> {
        // The directory above the callers' groups stays by the rule of every runtime: whoever names it owns it.
        let name = self.group();
        let own = Path::new("/sys/fs/cgroup").join(&name);
        let hierarchies = fs::read_dir("/sys/fs/cgroup")?.flatten();
        let groups = hierarchies
            .map(|entry| entry.path().join(&name))
            .chain([own])
            .map(|group| count_directories(&group))
            .sum();
        let state = self.dir.join("state");
        Ok(Left {
            mounts: fs::read_to_string("/proc/self/mountinfo")?
                .lines()
                .filter(|line| line.contains(&*self.dir.path().to_string_lossy()))
                .count(),
            groups,
            states: fs::read_dir(&state).map_or(0, Iterator::count),
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            orphans: orphans()?,
            runtimes: processes_that_name(&state)?,
        })
    }
}

fn count_directories(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .count()
}

/// Children that none of our calls is.
fn orphans() -> Result<Vec<String>> {
    let mut found = Vec::new();
    let own = format!("/proc/self/task/{}/children", std::process::id());
    for pid in fs::read_to_string(own)?.split_whitespace() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // The keeper of the scratch file system is a child, too.
        if name.trim() == "sh" {
            continue;
        }
        let number = pid.parse().ok().and_then(Pid::from_raw);
        if let Some(number) = number {
            waitpid(Some(number), WaitOptions::NOHANG).ok();
        }
        found.push(format!("{pid} {}", name.trim()));
    }
    Ok(found)
}

fn processes_that_name(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let name = dir.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if words.windows(name.len()).any(|window| window == name) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}
