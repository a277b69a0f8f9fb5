// SPDX-License-Identifier: Apache-2.0
//! What the guest runs: our programs, the compiled tests of some crates, the tasks.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::fixtures::workspace_root;
use gantry_testkit::{scratch::scratch, tool};
use serde_json::Value;

/// Packages and their test files that run in the guest as they run here.
const TESTS: [(&str, &[&str]); 2] = [
    ("gantry-runtime", &["cgroups"]),
    ("gantry", &["runtime", "runtime_attacks", "runtime_races"]),
];

/// The task that runs them.
pub(super) const TESTS_TASK: &str = "tests";

/// Files by the name that they have on the disk.
#[derive(Debug)]
pub(super) struct Programs {
    /// Ours, which tests and tasks call.
    own: Vec<PathBuf>,
    /// Compiled tests.
    tests: Vec<(String, PathBuf)>,
}

/// Builds our programs and, if they are asked for, the tests: all, or the one that is named.
pub(super) fn build(asks_tests: bool, only: Option<&str>) -> Result<Programs> {
    let mut own = Vec::new();
    cargo(
        &["build", "-p", "gantry-monitor", "-p", "gantry"],
        &mut |artifact| own.push(artifact.1),
    )?;
    let mut tests = Vec::new();
    for (package, files) in TESTS {
        let is_wanted = |file: &&str| asks_tests && only.is_none_or(|only| only == *file);
        let files: Vec<&str> = files.iter().copied().filter(is_wanted).collect();
        if files.is_empty() {
            continue;
        }
        let mut words = vec!["test", "--no-run", "-p", package];
        words.extend(files.iter().flat_map(|file| ["--test", file]));
        cargo(&words, &mut |artifact| {
            // Programs that tests call are built by the way.
            if files.contains(&artifact.0.as_str()) {
                tests.push(artifact);
            }
        })?;
    }
    if let Some(name) = only {
        ensure!(!tests.is_empty(), "the task tests runs no program {name}");
    }
    Ok(Programs { own, tests })
}

/// Runs cargo and tells of each program that it made: target and path.
fn cargo(words: &[&str], take: &mut dyn FnMut((String, PathBuf))) -> Result<()> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(words)
        .args(["--locked", "--message-format=json-render-diagnostics"])
        .current_dir(workspace_root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(
        output.status.success(),
        "cargo {}: {}",
        words.join(" "),
        output.status
    );
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line).context("read what cargo says")?;
        let name = message["target"]["name"].as_str();
        if let (Some(name), Some(path)) = (name, message["executable"].as_str()) {
            take((name.to_owned(), path.into()));
        }
    }
    Ok(())
}

/// Makes the disk for one boot.
pub(super) fn make(image: &Path, programs: &Programs, tasks: &[&str], filter: &str) -> Result<()> {
    let staging = scratch();
    let source = workspace_root().join("vm");
    for name in ["run.sh", "lib.sh"] {
        let to = name.replace("run.sh", "run");
        fs::copy(source.join(name), staging.join(to)).with_context(|| format!("copy vm/{name}"))?;
    }
    for dir in ["tasks", "programs", "tests"] {
        fs::create_dir(staging.join(dir))?;
    }
    for task in tasks {
        let name = format!("{task}.sh");
        fs::copy(
            source.join("tasks").join(&name),
            staging.join("tasks").join(&name),
        )?;
    }
    let mut paths = String::new();
    for path in &programs.own {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("a program called {}", path.display()))?;
        strip(path, &staging.join("programs").join(name))?;
        writeln!(paths, "{name} {}", path.display())?;
    }
    for (name, path) in &programs.tests {
        strip(path, &staging.join("tests").join(name))?;
    }
    fs::write(staging.join("paths"), paths)?;
    fs::write(staging.join("filter"), filter)?;
    fs::write(staging.join("order"), tasks.join("\n") + "\n")?;
    tool::run(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(staging.path())
            .arg(image)
            .arg("1G"),
    )
    .map(drop)
}

/// Debugging information is nine tenths of a program.
fn strip(from: &Path, to: &Path) -> Result<()> {
    tool::run(Command::new("strip").arg("-o").arg(to).arg(from)).map(drop)
}
