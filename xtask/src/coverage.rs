// SPDX-License-Identifier: Apache-2.0
//! Which part of the code that decides on trust its unit tests run: all of it, or the verb fails.
//!
//! Counted are regions (what runs together) and both outcomes of each branch, up to the tests at the foot of a file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::tool;
use serde_json::Value;

/// The files of which everything must be run.
const WHOLE: [&str; 3] = [
    "crates/trust/src/evaluate.rs",
    "crates/trust/src/identity.rs",
    "crates/trust/src/scope.rs",
];
const PACKAGE: &str = "gantry-trust";

/// Compiles the workspace's crates so that they count. Stable Rust does not count branches unless it is told so; what
/// is built here is measured and goes nowhere.
const WRAPPER: &str = "#!/bin/sh
RUSTC_BOOTSTRAP=1 exec \"$@\" -Cinstrument-coverage -Zcoverage-options=branch
";

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where counts go.
    #[arg(long, default_value = "target/coverage")]
    target: PathBuf,
}

/// Measures, and fails if a part was not run.
pub fn run(args: &Args) -> Result<()> {
    let Some(compiler) = Compiler::find()? else {
        println!(
            "coverage: skipped: llvm-cov of this compiler cannot be had (rustup component add llvm-tools)"
        );
        return Ok(());
    };
    let target = std::path::absolute(&args.target)?;
    fs::create_dir_all(&target)?;
    let program = compiler.build(&target)?;
    let report = compiler.measure(&program, &target)?;
    let mut missed = Vec::new();
    for name in WHOLE {
        let file = File::of(&report, name)?;
        println!("{}", file.line());
        missed.extend(file.missed());
    }
    for place in &missed {
        println!("not run: {place}");
    }
    let count = missed.len();
    ensure!(
        missed.is_empty(),
        "no test runs {count} places of what decides on trust"
    );
    println!("all of them are run by the tests");
    Ok(())
}

/// The project's compiler, which counts, and the tools that read what was counted.
struct Compiler {
    tools: PathBuf,
}

impl Compiler {
    /// None where the tools cannot be had.
    fn find() -> Result<Option<Self>> {
        let sysroot = tool::text("rustc", ["--print", "sysroot"])?;
        let about = tool::text("rustc", ["-vV"])?;
        let host = about.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("rustc names no host")?;
        let libraries = Path::new(&sysroot).join("lib/rustlib").join(host);
        let tools = libraries.join("bin");
        let is_there = || tools.join("llvm-cov").is_file() && tools.join("llvm-profdata").is_file();
        if !is_there() {
            // Beside the active toolchain, which is the project's own.
            if let Err(error) = tool::text("rustup", ["component", "add", "llvm-tools"]) {
                println!("coverage: {error:#}");
            }
        }
        Ok(is_there().then_some(Self { tools }))
    }

    /// The program of the package's unit tests. Dependencies are those of every other build; only the workspace's
    /// crates count.
    fn build(&self, target: &Path) -> Result<PathBuf> {
        let wrapper = target.join("rustc");
        fs::write(&wrapper, WRAPPER)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        let mut build = Command::new("cargo");
        build
            .args([
                "test",
                "--locked",
                "--package",
                PACKAGE,
                "--lib",
                "--no-run",
            ])
            .args(["--message-format", "json-render-diagnostics"])
            // A cache would not know the wrapper as a compiler.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
            .env("LLVM_PROFILE_FILE", "/dev/null");
        let messages = output(&mut build)?;
        let program = messages.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        });
        program.context("cargo names no program of tests")
    }

    /// Runs the tests and reads what they counted.
    fn measure(&self, program: &Path, target: &Path) -> Result<Value> {
        let (counts, merged) = (target.join("counts"), target.join("merged"));
        if counts.exists() {
            fs::remove_dir_all(&counts)?;
        }
        fs::create_dir(&counts)?;
        output(
            Command::new(program)
                .current_dir("crates/trust")
                .env("LLVM_PROFILE_FILE", counts.join("%p.profraw")),
        )?;
        let raw = fs::read_dir(&counts)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        let mut merge = Command::new(self.tools.join("llvm-profdata"));
        merge
            .args(["merge", "-sparse", "-o"])
            .arg(&merged)
            .args(raw);
        output(&mut merge)?;
        let mut export = Command::new(self.tools.join("llvm-cov"));
        export.arg("export").arg(program);
        export.arg("-instr-profile").arg(&merged);
        serde_json::from_str(&output(&mut export)?).context("read llvm-cov's report")
    }
}

/// One file of the report, up to its tests.
struct File<'a> {
    name: &'static str,
    of: &'a Value,
    tests_from: u64,
}

impl<'a> File<'a> {
    fn of(report: &'a Value, name: &'static str) -> Result<Self> {
        let files = report["data"][0]["files"].as_array();
        let is = |file: &&Value| {
            let path = file["filename"].as_str();
            path.is_some_and(|path| path.ends_with(name))
        };
        let of = files.and_then(|files| files.iter().find(is));
        let of = of.with_context(|| format!("the report says nothing of {name}"))?;
        let text = fs::read_to_string(name).with_context(|| format!("read {name}"))?;
        let tests_from = (1..)
            .zip(text.lines())
            .find(|(_, line)| *line == "#[cfg(test)]");
        let file = Self {
            name,
            of,
            tests_from: tests_from.map_or(u64::MAX, |(number, _)| number),
        };
        // A report without counts would be one without gaps.
        ensure!(file.regions().count() > 0, "{name} has no regions");
        ensure!(file.branches().count() > 0, "{name} has no branches");
        Ok(file)
    }

    fn parts(&self, kind: &str) -> impl Iterator<Item = &'a Value> {
        let parts = self.of[kind].as_array().map_or(&[][..], Vec::as_slice);
        let tests_from = self.tests_from;
        let is_before = move |part: &&Value| part[0].as_u64().is_some_and(|line| line < tests_from);
        parts.iter().filter(is_before)
    }

    /// `[line, column, count, has count, is entry, is gap]`
    fn regions(&self) -> impl Iterator<Item = &'a Value> {
        let begins = |part: &&Value| part[3] == true && part[4] == true && part[5] == false;
        self.parts("segments").filter(begins)
    }

    /// `[line, column, line, column, times true, times false, …]`
    fn branches(&self) -> impl Iterator<Item = &'a Value> {
        self.parts("branches")
    }

    fn line(&self) -> String {
        let (regions, branches) = (self.regions().count(), self.branches().count());
        format!("{}: {regions} regions, {branches} branches", self.name)
    }

    /// Where something was not run.
    fn missed(&self) -> Vec<String> {
        let place =
            |part: &Value, what: &str| format!("{}:{}:{} {what}", self.name, part[0], part[1]);
        let regions = self.regions().filter(|part| part[2] == 0);
        let mut missed: Vec<String> = regions.map(|part| place(part, "is not run")).collect();
        for part in self.branches() {
            for (position, outcome) in [(4, "is never true"), (5, "is never false")] {
                if part[position] == 0 {
                    missed.push(place(part, outcome));
                }
            }
        }
        missed
    }
}

fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8(tool::run(command)?.stdout)?)
}
