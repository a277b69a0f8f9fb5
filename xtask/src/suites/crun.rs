// SPDX-License-Identifier: Apache-2.0
//! The test-suites of other runtimes, run with ours in the place of theirs, and with theirs beside it in the same run.
//!
//! | suite | what it is | what it needs |
//! |---|---|---|
//! | crun | its Python tests, whose containers run one static program of theirs | git, gcc, python3 |
//!
//! The sources are fetched from GitHub by the commit that stands here, which names every byte of them, and are kept in
//! `target/suites`; where GitHub cannot be reached the run is skipped, in so many words. `--from` names another
//! place that git can fetch from.
//!
//! A test that theirs passes and ours does not fails the run, unless [`EXPLAINED`] says why it may.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::fixtures::workspace_root;
use gantry_testkit::{scratch::scratch, skip::is_root, tool};

use crate::conformance_runtime::hide_unified_from_crun;

const REPOSITORY: &str = "https://github.com/containers/crun";
const COMMIT: &str = "ba38286f7d232be8087dbd393315bb05018da68c";

/// Tests that crun passes and ours may fail, and why.
const EXPLAINED: [(&str, &str); 16] = [
    (
        "test_commands/state-created",
        "takes the first answer of `state`, which is `creating` while a container is made",
    ),
    (
        "test_commands/version-command",
        "looks for crun's own words",
    ),
    (
        "test_delete/test_simple_delete",
        "uses delete --regex, a flag of crun's own",
    ),
    (
        "test_delete/test_multiple_containers_delete",
        "uses delete --regex, a flag of crun's own",
    ),
    (
        "test_devices/owner-device",
        "wants a node made for a container with users of its own; ours, as runc, binds the host's of that path",
    ),
    (
        "test_error_handling/error-log-invalid-path",
        "uses crun's own spelling of the log's kind",
    ),
    (
        "test_exec/exec_add_no_new_privileges",
        "names a capability that does not exist, which ours refuses",
    ),
    (
        "test_hooks/test-annotation-hook-stdout-stderr",
        "an annotation of crun's own",
    ),
    (
        "test_scheduler/scheduler-fifo",
        "real-time: a new group of version 1 has no budget for it",
    ),
    (
        "test_scheduler/scheduler-rr",
        "real-time: a new group of version 1 has no budget for it",
    ),
    (
        "test_scheduler/scheduler-flags",
        "real-time: a new group of version 1 has no budget for it",
    ),
    (
        "test_start/delete-in-created-state",
        "the specification forbids it without --force",
    ),
    ("test_start/start", "reads crun's own file of state"),
    (
        "test_start/uts-sysctl",
        "wants kernel.hostname refused even where the document has no hostname",
    ),
    ("test_uid_gid/keep-groups", "an annotation of crun's own"),
    (
        "test_uid_gid/regular-files-chowned",
        "wants the group of standard streams changed; ours, as runc, changes the user alone",
    ),
];

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program to examine; it is called by a link named gantry-runtime.
    #[arg(long, default_value = "target/debug/gantry")]
    gantry: PathBuf,
    /// Only files whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where git fetches the sources from, if not from GitHub.
    #[arg(long, default_value = REPOSITORY)]
    from: String,
}

/// What one test said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Passed,
    Skipped,
    Failed,
}

/// Runs the suite with both and prints where they differ.
pub fn run(args: &Args) -> Result<()> {
    ensure!(is_root(), "containers need root");
    ensure!(
        args.gantry.is_file(),
        "{} is not built",
        args.gantry.display()
    );
    let missing = tool::missing(&["git", "gcc", "python3", "crun"]);
    if !missing.is_empty() {
        println!("suites: skipped: not installed: {}", missing.join(", "));
        return Ok(());
    }
    let source = match fetch(&args.from) {
        Ok(source) => source,
        Err(error) => {
            println!("suites: skipped: {error:#}");
            return Ok(());
        }
    };
    let work = scratch();
    let init = work.join("init");
    // What their configure would find out.
    let facts = "#define HAVE_ERROR_H 1\n#define HAVE_LINUX_IOPRIO_H 1\n";
    fs::write(work.join("config.h"), facts)?;
    tool::run(
        Command::new("gcc")
            .args(["-static", "-O1", "-w", "-D_GNU_SOURCE", "-I"])
            .arg(work.path())
            .arg("-o")
            .arg(&init)
            .arg(source.join("tests/init.c")),
    )
    .context("compile the program of crun's containers")?;
    let ours = work.join("gantry-runtime");
    symlink(std::path::absolute(&args.gantry)?, &ours)?;
    let theirs = hide_unified_from_crun(work.path())?.context("crun is not installed")?;
    let ask = |runtime: &Path| {
        ask(
            &source.join("tests"),
            &args.only,
            runtime,
            &init,
            work.path(),
        )
    };
    let (ours, theirs) = (ask(&ours)?, ask(&theirs)?);
    report(&ours, &theirs)
}

fn count(verdicts: &BTreeMap<String, Said>, said: Said) -> usize {
    verdicts
        .values()
        .filter(|verdict| **verdict == said)
        .count()
}

fn report(ours: &BTreeMap<String, Said>, theirs: &BTreeMap<String, Said>) -> Result<()> {
    let mut worse = Vec::new();
    for (name, said) in ours {
        let other = theirs.get(name);
        if Some(said) == other {
            continue;
        }
        let reason = EXPLAINED.iter().find(|(known, _)| known == name);
        let reason = reason.map_or("", |(_, reason)| reason);
        println!("{name}: ours {said:?}, crun {other:?} {reason}");
        if *said == Said::Failed && other == Some(&Said::Passed) && reason.is_empty() {
            worse.push(name);
        }
    }
    for (who, verdicts) in [("ours", ours), ("crun", theirs)] {
        println!(
            "suites: crun's tests, {who}: {} passed, {} skipped, {} failed",
            count(verdicts, Said::Passed),
            count(verdicts, Said::Skipped),
            count(verdicts, Said::Failed)
        );
    }
    ensure!(!ours.is_empty(), "no test said anything");
    ensure!(worse.is_empty(), "crun passes more: {worse:?}");
    Ok(())
}

/// The sources at the commit; fetched once.
fn fetch(from: &str) -> Result<PathBuf> {
    let dir = workspace_root()
        .join("target/suites")
        .join(format!("crun-{}", &COMMIT[..12]));
    if dir.join("tests/init.c").is_file() {
        return Ok(dir);
    }
    fs::create_dir_all(&dir)?;
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(&dir).args(words);
        command.env("GIT_TERMINAL_PROMPT", "0");
        tool::run(&mut command)
    };
    git(&["init", "-q"])?;
    git(&["fetch", "-q", "--depth=1", from, COMMIT])
        .with_context(|| format!("fetch crun's sources from {from}"))?;
    git(&["checkout", "-q", COMMIT, "--", "tests"])?;
    Ok(dir)
}

/// Runs every file with one runtime.
fn ask(
    tests: &Path,
    only: &str,
    runtime: &Path,
    init: &Path,
    work: &Path,
) -> Result<BTreeMap<String, Said>> {
    let mut verdicts = BTreeMap::new();
    let mut files: Vec<PathBuf> = fs::read_dir(tests)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for file in files {
        let name = file
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_python = file.extension().is_some_and(|extension| extension == "py");
        if !is_python || !name.starts_with("test_") || !name.contains(only) {
            continue;
        }
        let output = Command::new("timeout")
            .args(["--kill-after=5", "180", "python3"])
            .arg(&file)
            .current_dir(work)
            .env("OCI_RUNTIME", runtime)
            .env("INIT", init)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {}", file.display()))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some((test, said)) = read_line(line) {
                verdicts.insert(format!("{name}/{test}"), said);
            }
        }
    }
    Ok(verdicts)
}

/// `ok 3 - name # 0.1s`, `ok 3 - name #SKIP why`, `not ok 3 - name`.
fn read_line(line: &str) -> Option<(&str, Said)> {
    let (passed, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    let (_, rest) = rest.split_once(" - ")?;
    let (name, more) = rest.split_once(" #").unwrap_or((rest, ""));
    let said = match (passed, more.starts_with("SKIP")) {
        (true, true) => Said::Skipped,
        (true, false) => Said::Passed,
        (false, _) => Said::Failed,
    };
    Some((name, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_suite_are_read() {
        for (line, wanted) in [
            ("ok 1 - a # 0.1s", Some(("a", Said::Passed))),
            ("ok 2 - b #SKIP no BPF # 0.0s", Some(("b", Said::Skipped))),
            ("not ok 3 - c # 1s", Some(("c", Said::Failed))),
            ("1..3", None),
        ] {
            assert_eq!(read_line(line), wanted);
        }
    }

    #[test]
    fn only_what_crun_passes_and_ours_fails_is_worse() {
        let said = |said| BTreeMap::from([("t".to_owned(), said)]);
        assert!(report(&said(Said::Failed), &said(Said::Passed)).is_err());
        assert!(report(&said(Said::Failed), &said(Said::Failed)).is_ok());
        assert!(report(&said(Said::Skipped), &said(Said::Passed)).is_ok());
    }
}
