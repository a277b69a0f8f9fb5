// SPDX-License-Identifier: Apache-2.0
//! The test-suites of other runtimes, run with ours in the place of theirs, and with theirs beside it in the same run.
//!
//! | suite | what it is | what it needs |
//! |---|---|---|
//! | crun | its Python tests, whose containers run one static program of theirs | git, gcc, python3 |
//! | runc | its integration tests, of the release in Debian 12; busybox is in the place of their images | git, bats, jq, python3 |
//!
//! The sources are fetched from GitHub by the commit that stands with each suite, which names every byte of them, and are kept in
//! `target/suites`; where GitHub cannot be reached the suite is skipped, in so many words. `--from` names another
//! place that git can fetch from.
//!
//! A test that theirs passes and ours does not fails the run, unless the suite's `EXPLAINED` says why it may, and
//! `docs/suites.md` at more length.

mod crun;
mod runc;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::fixtures::workspace_root;
use gantry_testkit::{scratch::scratch, skip::is_root, tool};

/// The status of timeout(1) for what it ended.
const TIMED_OUT: i32 = 124;

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose; both without.
    #[arg(value_enum)]
    suite: Option<Name>,
    /// The program to examine; it is called by a link named gantry-runtime.
    #[arg(long, default_value = "target/debug/gantry")]
    gantry: PathBuf,
    /// Only files whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where git fetches the suite's sources from, if not from GitHub.
    #[arg(long, requires = "suite")]
    from: Option<String>,
}

/// A suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    Crun,
    Runc,
}

/// What a suite is.
struct Suite {
    source: Source,
    /// Programs without which it is skipped; the other runtime is one.
    needs: &'static [&'static str],
    /// Tests that theirs passes and ours may fail, and why.
    explained: &'static [(&'static str, &'static str)],
}

/// Where its sources are.
struct Source {
    /// Of the runtime.
    name: &'static str,
    repository: &'static str,
    commit: &'static str,
    /// What of them is needed.
    dir: &'static str,
}

/// What one test said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Passed,
    Skipped,
    Failed,
}

/// What all said, by file and name.
type Verdicts = BTreeMap<String, Said>;

/// Runs the suites with both and prints where they differ.
pub fn run(args: &Args) -> Result<()> {
    ensure!(is_root(), "containers need root");
    let gantry = std::path::absolute(&args.gantry)?;
    ensure!(gantry.is_file(), "{} is not built", gantry.display());
    let mut outcome = Ok(());
    for name in [Name::Crun, Name::Runc] {
        if args.suite.is_some_and(|suite| suite != name) {
            continue;
        }
        let suite = match name {
            Name::Crun => crun::SUITE,
            Name::Runc => runc::SUITE,
        };
        let Some(source) = prepare(&suite, args.from.as_deref()) else {
            continue;
        };
        let work = scratch();
        let ask = match name {
            Name::Crun => crun::run,
            Name::Runc => runc::run,
        };
        let (ours, theirs) = ask(&source, work.path(), &gantry, &args.only)?;
        outcome = outcome.and(report(&suite, &ours, &theirs));
    }
    outcome
}

/// The sources; nothing where the suite cannot run here, which is said.
fn prepare(suite: &Suite, from: Option<&str>) -> Option<PathBuf> {
    let missing = tool::missing(suite.needs);
    let name = suite.source.name;
    if !missing.is_empty() {
        println!(
            "suites: {name} skipped: not installed: {}",
            missing.join(", ")
        );
        return None;
    }
    fetch(&suite.source, from.unwrap_or(suite.source.repository))
        .inspect_err(|error| println!("suites: {name} skipped: {error:#}"))
        .ok()
}

fn count(verdicts: &Verdicts, said: Said) -> usize {
    verdicts
        .values()
        .filter(|verdict| **verdict == said)
        .count()
}

fn report(suite: &Suite, ours: &Verdicts, theirs: &Verdicts) -> Result<()> {
    let mut worse = Vec::new();
    let name = suite.source.name;
    for (test, said) in ours {
        let other = theirs.get(test);
        if Some(said) == other {
            continue;
        }
        let reason = suite.explained.iter().find(|(known, _)| known == test);
        let reason = reason.map_or("", |(_, reason)| reason);
        println!("{test}: ours {said:?}, {name} {other:?} {reason}");
        if *said == Said::Failed && other == Some(&Said::Passed) && reason.is_empty() {
            worse.push(test);
        }
    }
    for (who, verdicts) in [("ours", ours), (name, theirs)] {
        println!(
            "suites: {name}'s tests, {who}: {} passed, {} skipped, {} failed",
            count(verdicts, Said::Passed),
            count(verdicts, Said::Skipped),
            count(verdicts, Said::Failed)
        );
    }
    ensure!(!ours.is_empty(), "no test of {name}'s said anything");
    ensure!(worse.is_empty(), "{name} passes more: {worse:?}");
    Ok(())
}

/// The sources at the commit; fetched once.
fn fetch(source: &Source, from: &str) -> Result<PathBuf> {
    let dir = workspace_root().join("target/suites").join(format!(
        "{}-{}",
        source.name,
        &source.commit[..12]
    ));
    if dir.join(source.dir).is_dir() {
        return Ok(dir);
    }
    std::fs::create_dir_all(&dir)?;
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(&dir).args(words);
        command.env("GIT_TERMINAL_PROMPT", "0");
        tool::run(&mut command)
    };
    git(&["init", "-q"])?;
    git(&["fetch", "-q", "--depth=1", from, source.commit])
        .with_context(|| format!("fetch {}'s sources from {from}", source.name))?;
    git(&["checkout", "-q", source.commit, "--", source.dir])?;
    Ok(dir)
}

/// A line of TAP up to its name: whether it passed, and the rest after the number.
fn read_verdict(line: &str) -> Option<(bool, &str)> {
    let (passed, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    Some((passed, rest.split_once(' ')?.1))
}

/// Takes what one file of a suite said, and whether it ended in time.
fn take(
    verdicts: &mut Verdicts,
    file: &str,
    text: &str,
    status: ExitStatus,
    read_line: fn(&str) -> Option<(&str, Said)>,
) {
    for (test, said) in text.lines().filter_map(read_line) {
        verdicts.insert(format!("{file}/{test}"), said);
    }
    if status.code() == Some(TIMED_OUT) {
        verdicts.insert(format!("{file}/in time"), Said::Failed);
    }
}

/// The test files of a directory, in their order, by name.
fn files(dir: &Path, extension: &str, only: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.unwrap_or_default().to_owned();
        if path.extension().is_some_and(|own| own == extension) && name.contains(only) {
            files.push((name, path));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_theirs_passes_and_ours_fails_is_worse() {
        let said = |said| BTreeMap::from([("t".to_owned(), said)]);
        let report = |ours, theirs| report(&crun::SUITE, &said(ours), &said(theirs));
        assert!(report(Said::Failed, Said::Passed).is_err());
        assert!(report(Said::Failed, Said::Failed).is_ok());
        assert!(report(Said::Skipped, Said::Passed).is_ok());
    }
}
