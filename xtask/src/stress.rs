// SPDX-License-Identifier: Apache-2.0
//! Many short containers, one after the other and by several callers at once: none hangs, none fails, nothing is left.
//!
//! The program is a copy of our own, so that a build meanwhile does not mix two. The directory above the callers' control groups
//! stays by the rule of every runtime (whoever names it owns it), hence it is we who take it away, in each hierarchy.
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
    let (started, stalled) = (Instant::now(), stalled());
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
            .try_fold(Slowest::default(), |slowest, outcome| {
                outcome.map(|call| slowest.max(call))
            })
    })?;
    let elapsed = started.elapsed();
    let stalled = self::stalled().saturating_sub(stalled);
    let after = bed.look()?;
    // After the look, which counts what is below them: one that holds something stays and is an error.
    let parents = bed.remove_parents()?;
    println!(
        "stress runtime: {} containers by {} callers in {:.1} s, {:.1} ms each, the slowest {} ms",
        args.count,
        args.callers,
        elapsed.as_secs_f64(),
        elapsed.as_secs_f64() * 1e3 / args.count as f64,
        slowest.duration.as_millis()
    );
    println!(
        "stress runtime: for {:.0} % of that time something waited for a processor",
        100.0 * stalled.as_secs_f64() / elapsed.as_secs_f64()
    );
    if !slowest.seen.is_empty() {
        println!(
            "stress runtime: the slowest after {SLOW:?}:{}",
            slowest.seen
        );
    }
    println!("stress runtime: {after:?}; {parents} parent groups removed");
    ensure!(before == after, "something is left: {before:?} before");
    ensure!(
        parents > 0,
        "no container was in a control group of its caller"
    );
    Ok(())
}

/// A call that takes longer is looked at once.
const SLOW: Duration = Duration::from_secs(1);

/// The longest call, and what its processes were doing when it became slow.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Slowest {
    duration: Duration,
    seen: String,
}

/// How long something has waited for a processor since the machine started; nothing where the kernel does not count it.
fn stalled() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("some ")?.rsplit_once("total="))
        .and_then(|(_, total)| total.parse().ok());
    Duration::from_micros(total.unwrap_or(0))
}

/// A process and all below it: where each waits, how long it ran, and how long it was ready to run and did not.
fn describe(pid: &str) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let schedstat = read("schedstat");
    let mut milliseconds = schedstat
        .split_whitespace()
        .map(|text| text.parse::<u64>().unwrap_or(0) / 1_000_000);
    let mut text = format!(
        "\n  {pid} {} {}: ran {} ms, ready for {} ms",
        read("comm").trim(),
        read("wchan"),
        milliseconds.next().unwrap_or(0),
        milliseconds.next().unwrap_or(0)
    );
    for child in read(&format!("task/{pid}/children")).split_whitespace() {
        text += &describe(child);
    }
    text
}

/// What containers leave when they leave something.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// Below our directory: others mount on this machine, too.
    mounts: usize,
    /// Control groups below the parents of our callers', in every hierarchy and at every depth.
    groups: usize,
    states: usize,
    /// Descriptors of this process.
    descriptors: usize,
    /// Processes that came to us, ended or not.
    orphans: Vec<String>,
    /// Processes that name our state directory.
    runtimes: Vec<String>,
}

/// Takes the parents away where the run fails before it gets to do so.
impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.remove_parents());
    }
}

struct Bed {
    dir: Scratch,
    gantry: PathBuf,
    count: usize,
    patience: Duration,
}

impl Bed {
    fn make(gantry: PathBuf, args: &Args) -> Result<Self> {
        let dir = scratch();
        let copy = dir.join("gantry");
        fs::copy(&gantry, &copy).with_context(|| format!("copy {}", gantry.display()))?;
        let bed = Self {
            dir,
            gantry: copy,
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

    /// Takes numbers until there are no more; answers the longest call.
    fn call(&self, caller: usize, next: &AtomicUsize) -> Result<Slowest> {
        let mut slowest = Slowest::default();
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
            let mut seen = String::new();
            let status = loop {
                // Its end is looked for often enough not to be what is measured.
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if started.elapsed() > SLOW && seen.is_empty() {
                    seen = describe(&child.id().to_string());
                }
                if started.elapsed() > self.patience {
                    child.kill()?;
                    child.wait()?;
                    bail!("container {number} hung; after {SLOW:?}:{seen}");
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            ensure!(
                status.code() == Some(STATUS),
                "container {number} ended with {status}"
            );
            let duration = started.elapsed();
            slowest = slowest.max(Slowest { duration, seen });
        }
    }

    /// The group above those of the callers in each hierarchy that has it.
    fn parents(&self) -> Result<Vec<PathBuf>> {
        let top = Path::new("/sys/fs/cgroup");
        let mut hierarchies = vec![top.to_owned()];
        for entry in fs::read_dir(top)? {
            let path = entry?.path();
            // Two names of one hierarchy (`cpu`, `cpu,cpuacct`) are one directory and a link.
            if !path.is_symlink() {
                hierarchies.push(path);
            }
        }
        let group = self.group();
        Ok(hierarchies
            .into_iter()
            .map(|hierarchy| hierarchy.join(&group))
            .filter(|group| group.is_dir())
            .collect())
    }

    /// Answers how many there were.
    fn remove_parents(&self) -> Result<usize> {
        let parents = self.parents()?;
        for group in &parents {
            fs::remove_dir(group).with_context(|| format!("remove {}", group.display()))?;
        }
        Ok(parents.len())
    }

    fn look(&self) -> Result<Left> {
        let groups = self.parents()?.iter().map(|group| count_below(group)).sum();
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

fn count_below(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + count_below(&entry.path()))
        .sum()
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
