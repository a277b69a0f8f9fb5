// SPDX-License-Identifier: Apache-2.0
//! `make fuzz`: libFuzzer on each target of gantry-fuzz, from real inputs on.
//!
//! What it learns is kept below `target/fuzz/corpus`, so that the next run goes on from there; what breaks a target is
//! below `target/fuzz/found`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::tool;

/// What tells libFuzzer which branches an input takes, as cargo-fuzz asks for it; and what sees memory misused.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address";

/// What an input may cost: more is a find.
const BOUNDS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"];

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which targets; all if none is named
    targets: Vec<String>,
    /// How long each is fed, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How many are fed at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// Builds, feeds all targets, and prints a line for each.
pub fn run(args: &Args) -> Result<()> {
    let Some(host) = nightly() else {
        println!("fuzz: skipped: no nightly compiler is there (rustup toolchain install nightly)");
        return Ok(());
    };
    ensure!(args.jobs > 0, "--jobs is 0");
    let dir = std::path::absolute("target/fuzz")?;
    let program = build(&host, &dir)?;
    let seeds = dir.join("seeds");
    let write = [
        "run",
        "--locked",
        "-qp",
        "gantry-fuzz",
        "--example",
        "seeds",
    ];
    tool::run(Command::new("cargo").args(write).arg(&seeds))?;
    let targets = chosen(&seeds, &args.targets)?;
    let fuzzer = Fuzzer {
        program,
        dir,
        seconds: args.seconds,
    };
    let mut broken = Vec::new();
    for some in targets.chunks(args.jobs) {
        let started = some
            .iter()
            .map(|target| fuzzer.start(target))
            .collect::<Result<Vec<_>>>()?;
        for run in started {
            let (target, outcome) = run.finish()?;
            println!("{target}: {}", outcome.line());
            if outcome.broken {
                broken.push(target);
            }
        }
    }
    ensure!(
        broken.is_empty(),
        "broken: {}; inputs and logs are below target/fuzz",
        broken.join(", ")
    );
    Ok(())
}

/// What the nightly compiler builds for; none where it is missing.
fn nightly() -> Option<String> {
    let about = tool::text("rustup", ["run", "nightly", "rustc", "-vV"]).ok()?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
}

fn build(host: &str, dir: &Path) -> Result<PathBuf> {
    let status = Command::new("rustup")
        .args(["run", "nightly", "cargo", "build", "--release", "--locked"])
        // With a target, build scripts are built without the flags.
        .args(["--manifest-path", "fuzz/Cargo.toml", "--target", host])
        .arg("--target-dir")
        .arg(dir)
        .env("RUSTFLAGS", RUSTFLAGS)
        .status()?;
    ensure!(status.success(), "build the fuzzer: {status}");
    Ok(dir.join(host).join("release/gantry-libfuzzer"))
}

/// The targets that have seeds, or those of them that are named.
fn chosen(seeds: &Path, named: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(seeds)? {
        all.push(entry?.file_name().to_string_lossy().into_owned());
    }
    all.sort();
    let unknown = named.iter().find(|name| !all.contains(name));
    if let Some(unknown) = unknown {
        anyhow::bail!("no target {unknown}; there are {}", all.join(", "));
    }
    Ok(if named.is_empty() {
        all
    } else {
        named.to_owned()
    })
}

struct Fuzzer {
    program: PathBuf,
    dir: PathBuf,
    seconds: u32,
}

/// A target that is being fed.
struct Run {
    target: String,
    child: std::process::Child,
    log: PathBuf,
}

impl Fuzzer {
    fn start(&self, target: &str) -> Result<Run> {
        let (corpus, found) = (self.dir.join("corpus").join(target), self.dir.join("found"));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&found)?;
        let log = self.dir.join(format!("{target}.log"));
        let file = fs::File::create(&log)?;
        let child = Command::new(&self.program)
            .arg(corpus)
            .arg(self.dir.join("seeds").join(target))
            .args(BOUNDS)
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-artifact_prefix={}/{target}-", found.display()))
            .arg("-print_final_stats=1")
            .env("GANTRY_FUZZ_TARGET", target)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        Ok(Run {
            target: target.to_owned(),
            child,
            log,
        })
    }
}

impl Run {
    fn finish(mut self) -> Result<(String, Outcome)> {
        let status = self.child.wait()?;
        let log = fs::read(&self.log)?;
        let outcome = Outcome::of(status.success(), &String::from_utf8_lossy(&log));
        Ok((self.target, outcome))
    }
}

/// What libFuzzer says at its end.
#[derive(Debug, PartialEq)]
struct Outcome {
    broken: bool,
    executions: Option<String>,
    peak_mb: Option<String>,
    coverage: Option<String>,
    why: Option<String>,
}

impl Outcome {
    fn of(success: bool, log: &str) -> Self {
        let stat = |name: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let coverage = log.lines().rev().find_map(|line| {
            let (_, rest) = line.split_once(" cov: ")?;
            rest.split(' ').next().map(str::to_owned)
        });
        let why = log
            .lines()
            .find(|line| line.contains("ERROR: ") || line.contains("panicked at"));
        Self {
            broken: !success,
            executions: stat("stat::number_of_executed_units:"),
            peak_mb: stat("stat::peak_rss_mb:"),
            coverage,
            why: (!success).then(|| why.unwrap_or("it failed").to_owned()),
        }
    }

    fn line(&self) -> String {
        let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
        let (executions, coverage, peak) =
            (or(&self.executions), or(&self.coverage), or(&self.peak_mb));
        let said = format!("{executions} inputs, {coverage} edges, {peak} MB");
        match &self.why {
            Some(why) => format!("{said}; BROKEN: {why}"),
            None => said,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "#8192\tpulse  cov: 611 ft: 2013 corp: 40/9Kb\n#90000\tDONE   cov: 700 ft: 3 corp: 50/10Kb\n\
        stat::number_of_executed_units: 90000\nstat::peak_rss_mb:              71\n";

    #[test]
    fn the_end_of_a_log_is_read() {
        let line = Outcome::of(true, END).line();
        assert_eq!(line, "90000 inputs, 700 edges, 71 MB");
        let log = format!("==1== ERROR: libFuzzer: deadly signal\n{END}");
        let outcome = Outcome::of(false, &log);
        assert!(outcome.broken && outcome.line().ends_with("deadly signal"));
        assert!(Outcome::of(false, "").line().ends_with("it failed"));
    }
}
