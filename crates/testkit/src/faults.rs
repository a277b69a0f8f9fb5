// SPDX-License-Identifier: Apache-2.0
//! One system call of a program fails, and then the next one: what a program decides although something failed.
//!
//! strace counts the calls of a run and makes the n-th call of a name fail. A verdict that fails to be made must be a
//! refusal, so the program must never succeed; [`campaign`] says where it did. [`denials`] are the images that our own
//! program refuses, each for a reason that is read from another file, so that each file's failure is tried.
//!
//! `ENOENT` is not tried: that a file is not there is an answer, by which rules and policies are looked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use crate::corpus::bypass::{self, Family, Maker, Scene, Scenes};
use crate::tool::{self, DockerRegistry};

/// What a call may fail with, the most telling first.
pub const ERRNOS: [&str; 24] = [
    "EIO",
    "EACCES",
    "EMFILE",
    "ENOMEM",
    "EPERM",
    "ENOSYS",
    "EINTR",
    "ESTALE",
    "ELOOP",
    "ENOTDIR",
    "ENFILE",
    "EINVAL",
    "EBADF",
    "EFAULT",
    "EBUSY",
    "ENODEV",
    "EISDIR",
    "ENOSPC",
    "EROFS",
    "EOVERFLOW",
    "EOPNOTSUPP",
    "ETIMEDOUT",
    "ECONNRESET",
    "ECONNREFUSED",
];

/// How long a run may take before it is ended, which is a refusal.
const DEADLINE_S: &str = "20";

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The call's name.
    pub call: String,
    /// Which of its calls, from 1; in each thread.
    pub number: usize,
    /// What it fails with.
    pub errno: &'static str,
}

/// A command whose every run must be a refusal.
#[derive(Debug)]
pub struct Denial {
    /// What refuses.
    pub name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, PathBuf)>,
}

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many runs there were.
    pub runs: usize,
    /// Those that ended in success.
    pub wrong: Vec<String>,
    /// Those that ended in a panic, which is a refusal without a sentence.
    pub panics: Vec<String>,
}

impl Denial {
    /// The command, below another program.
    #[must_use]
    pub fn below(&self, wrapper: &[&str]) -> Command {
        let mut words = wrapper.iter().map(ToString::to_string);
        let program = words.next();
        let mut command =
            Command::new(program.as_deref().map_or(self.program.as_path(), Path::new));
        if program.is_some() {
            command.args(words).arg(&self.program);
        }
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// How often each call is made, in the thread that makes it most often.
    ///
    /// # Errors
    /// strace cannot be run.
    pub fn calls(&self, log: &Path) -> Result<BTreeMap<String, usize>> {
        let file = log.display().to_string();
        let output = self.below(&["strace", "-f", "-qq", "-o", &file]).output()?;
        ensure!(
            !output.status.success(),
            "{} is no denial: {output:?}",
            self.name
        );
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in fs::read_to_string(log)?.lines() {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(call)) = (words.next(), words.next()) else {
                continue;
            };
            if let Some((name, _)) = call.split_once('(') {
                *counts
                    .entry((name.to_owned(), thread.to_owned()))
                    .or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((name, _), count) in counts {
            let known: &mut usize = most.entry(name).or_default();
            *known = count.max(*known);
        }
        Ok(most)
    }

    fn run(&self, fault: &Fault) -> Result<Output> {
        let Fault {
            call,
            number,
            errno,
        } = fault;
        let inject = format!("inject={call}:error={errno}:when={number}");
        let trace = format!("trace={call}");
        let wrapper = [
            "timeout",
            "-k",
            "1",
            DEADLINE_S,
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        Ok(self.below(&wrapper).output()?)
    }
}

/// Whether calls of this name can fail by the kernel's word: those of an exit cannot, and starting the program is not ours.
fn can_fail(call: &str) -> bool {
    !matches!(
        call,
        "exit" | "exit_group" | "execve" | "rt_sigreturn" | "restart_syscall" | "arch_prctl"
    )
}

/// Makes calls of each denial fail, `share` of all faults in a hundred, with the first `errnos` of [`ERRNOS`].
///
/// # Errors
/// strace cannot be run.
pub fn campaign(denials: &[Denial], dir: &Path, errnos: usize, share: usize) -> Result<Report> {
    let mut faults: Vec<(&Denial, Fault)> = Vec::new();
    let mut number_of_all = 0;
    for denial in denials {
        for (call, count) in denial.calls(&dir.join("calls"))? {
            for number in (1..=count).filter(|_| can_fail(&call)) {
                for errno in ERRNOS.into_iter().take(errnos) {
                    // Multiplied by a number without a common divisor, so that a share holds of every call.
                    number_of_all += 1;
                    if number_of_all * 37 % 100 < share {
                        faults.push((
                            denial,
                            Fault {
                                call: call.clone(),
                                number,
                                errno,
                            },
                        ));
                    }
                }
            }
        }
    }
    let queue = Mutex::new(faults.iter());
    let report = Mutex::new(Report::default());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || -> Result<()> {
        while let Some((denial, fault)) = next() {
            let output = denial.run(fault)?;
            let said = String::from_utf8_lossy(&output.stderr);
            let line = format!("{} with {fault:?}: {} {said}", denial.name, output.status);
            let mut report = report.lock().map_err(|_| anyhow!("a worker panicked"))?;
            report.runs += 1;
            match output.status.code() {
                Some(0) => report.wrong.push(line),
                Some(101) => report.panics.push(line),
                _ => {}
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    report
        .into_inner()
        .map_err(|_| anyhow!("a worker panicked"))
}

/// A registry with an image, and refusals of it; `None` where a tool is missing.
#[derive(Debug)]
pub struct Denials {
    /// The refusals.
    pub all: Vec<Denial>,
    _registry: DockerRegistry,
}

/// Sets up, below `dir`, images that `gantry` refuses.
///
/// # Errors
/// A tool fails.
pub fn denials(gantry: &Path, dir: &Path) -> Result<Option<Denials>> {
    let registry = DockerRegistry::start(&dir.join("registry"))?;
    let Some(mut maker) = Maker::new(registry.address())? else {
        return Ok(None);
    };
    let layout = dir.join("layout");
    maker.image().write_layout(&layout, "v1")?;
    let (from, to) = (
        format!("oci:{}:v1", layout.display()),
        format!("docker://{}", maker.name()),
    );
    let push = [
        "--insecure-policy",
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &to,
    ];
    tool::text("skopeo", push)?;

    let accepted = Scenes::of(Family::Accepted, &mut maker)?;
    let mut unsigned = Scenes::of(Family::Signed, &mut maker)?;
    unsigned.signatures.clear();
    let mut rejected = accepted.clone();
    rejected.edit_requirements(|all| *all = json!([{"type": "reject"}]))?;
    let mut revoked = accepted;
    revoked.rule(format!("[revoked]\ndigests = [\"{}\"]\n", maker.digest()));
    let revoked_key = case("K30", &mut maker)?;
    let (run, pull) = (
        &["run", "--dry-run", "--pull", "never"][..],
        &["pull", "--quiet", "--retry", "0"][..],
    );
    let mut all = Vec::new();
    for (name, scene, verb) in [
        ("an unsigned image is run", &unsigned, run),
        ("an unsigned image is pulled", &unsigned, pull),
        ("rules refuse what the policy accepts", &revoked, run),
        ("a key is revoked in the second file", &revoked_key, run),
        (
            "the user's policy rejects what the system's may accept",
            &rejected,
            run,
        ),
    ] {
        let dir = dir.join(name.replace([' ', '\''], "-"));
        scene.write(&dir)?;
        let mut denial = Denial {
            name,
            program: gantry.to_owned(),
            args: Vec::new(),
            envs: vec![
                ("HOME".into(), dir.join("home")),
                ("CONTAINERS_REGISTRIES_CONF".into(), "/dev/null".into()),
                ("GANTRY_RUNROOT".into(), dir.join("run")),
            ],
        };
        let policy = dir.join("policy.json");
        if name.starts_with("the user's") {
            fs::rename(policy, dir.join("home/.config/containers/policy.json"))?;
        } else {
            denial.envs.push(("CONTAINERS_POLICY_JSON".into(), policy));
        }
        let store = dir.join("store").display().to_string();
        let fixed = ["--root", &store, "--config-file", "/dev/null"];
        let args = |words: &[&str]| {
            [&fixed, words, &[&*maker.name()]]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        if verb == run {
            denial.args = args(&["--insecure-policy", "pull", "--quiet"]);
            tool::run(&mut denial.below(&[]))?;
        }
        denial.args = args(verb);
        all.push(denial);
    }
    Ok(Some(Denials {
        all,
        _registry: registry,
    }))
}

/// One case's scene.
fn case(id: &str, maker: &mut Maker) -> Result<Scene> {
    let case = bypass::cases().find(|case| case.id == id);
    let case = case.with_context(|| format!("no case {id}"))?;
    let mut scene = Scenes::of(case.family, maker)?;
    (case.attack)(maker, &mut scene)?;
    Ok(scene)
}
