// SPDX-License-Identifier: Apache-2.0
//! The validation programs of runtime-tools, run against our OCI runtime and against crun in the same run.
//!
//! The programs are built from the Go module proxy on first use and kept in `target/conformance`; without Go the run is
//! skipped, in so many words. What counts is the name of a test, not how many lines there are: the number depends on
//! what a runtime offers. Whatever crun passes, ours has to pass, but for what [`CRUN_IS_WRONG`] lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::fixtures::workspace_root;
use gantry_testkit::{scratch::scratch, tool};

const MODULE: &str = "github.com/opencontainers/runtime-tools";
const VERSION: &str = "v0.9.0";
/// The release has no module file; these are the libraries of its day.
const REQUIRES: [&str; 2] = [
    "github.com/opencontainers/runtime-spec v1.0.3-0.20200710190001-3e4195d92445",
    "github.com/opencontainers/selinux v1.8.0",
];
/// Programs in which crun does what the specification forbids, and so comes to lines that ours does not have.
const CRUN_IS_WRONG: [(&str, &str); 1] = [(
    "process_capabilities_fail",
    "runs a container whose document names a capability that does not exist",
)];

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program to examine; it is called by a link named gantry-runtime.
    #[arg(long, default_value = "target/debug/gantry")]
    gantry: PathBuf,
    /// Only programs whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
}

/// What one program said of one runtime.
#[derive(Debug, Default)]
struct Verdict {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
}

/// Runs the programs and prints what crun passes and ours does not.
pub fn run(args: &Args) -> Result<()> {
    let Some(go) = tool::find("go")
        .or_else(|| Some("/usr/local/go/bin/go".into()).filter(|go: &PathBuf| go.is_file()))
    else {
        println!(
            "conformance of the runtime: skipped: Go is not installed (apt-get install golang-go)"
        );
        return Ok(());
    };
    ensure!(
        args.gantry.is_file(),
        "{} is not built: cargo build -p gantry",
        args.gantry.display()
    );
    ensure!(rustix::process::geteuid().is_root(), "containers need root");
    let suite = Suite::build(&go)?;
    let work = scratch();
    fs::copy(suite.dir.join("runtimetest"), work.join("runtimetest"))?;
    fs::copy(
        &suite.rootfs,
        work.join(suite.rootfs.file_name().context("the root's archive")?),
    )?;
    let ours = work.join("gantry-runtime");
    std::os::unix::fs::symlink(std::path::absolute(&args.gantry)?, &ours)?;
    let crun = hide_unified_from_crun(work.path())?;
    let mut worse = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for name in suite
        .programs
        .iter()
        .filter(|name| name.contains(&args.only))
    {
        let program = suite.dir.join(name);
        let (mine, theirs) = (
            ask(&program, &ours, work.path())?,
            crun.as_deref()
                .map(|crun| ask(&program, crun, work.path()))
                .transpose()?
                .unwrap_or_default(),
        );
        passed += mine.passed.len();
        failed += mine.failed.len();
        let missing: Vec<&String> = theirs.passed.difference(&mine.passed).collect();
        let excuse = CRUN_IS_WRONG.iter().find(|(known, _)| known == name);
        let mut line = format!(
            "{name}: {} passed, {} failed; crun {}, {}",
            mine.passed.len(),
            mine.failed.len(),
            theirs.passed.len(),
            theirs.failed.len()
        );
        match (missing.is_empty(), excuse) {
            (true, _) => {}
            (false, Some((_, reason))) => write!(line, " (crun {reason})")?,
            (false, None) => {
                write!(line, " WORSE: {missing:?}")?;
                worse.push(name);
            }
        }
        println!("{line}");
    }
    println!("conformance of the runtime: {passed} passed, {failed} failed");
    if crun.is_none() {
        println!("crun is not installed: nothing to compare with");
    }
    ensure!(worse.is_empty(), "crun passes more in {worse:?}");
    Ok(())
}

/// The built programs.
struct Suite {
    dir: PathBuf,
    programs: Vec<String>,
    rootfs: PathBuf,
}

impl Suite {
    fn build(go: &Path) -> Result<Self> {
        let base = workspace_root()
            .join("target/conformance")
            .join(format!("runtime-tools-{VERSION}"));
        let dir = base.join("bin");
        let source = base.join("source");
        fs::create_dir_all(&dir)?;
        fs::create_dir_all(&source)?;
        let go = |args: &[&str]| {
            let mut command = Command::new(go);
            command
                .args(args)
                .current_dir(&source)
                .env("GOFLAGS", "-mod=mod")
                .env("CGO_ENABLED", "0");
            command
        };
        let requires = REQUIRES.map(|line| format!("require {line}\n")).concat();
        fs::write(
            source.join("go.mod"),
            format!("module suite\ngo 1.21\nrequire {MODULE} {VERSION}\n{requires}"),
        )?;
        let module = tool::run(&mut go(&["list", "-m", "-f", "{{.Dir}}", MODULE]))
            .context("fetch runtime-tools")?;
        let module = PathBuf::from(String::from_utf8(module.stdout)?.trim());
        let mut programs = Vec::new();
        let mut imports =
            format!("//go:build tools\npackage suite\nimport _ \"{MODULE}/cmd/runtimetest\"\n");
        for entry in fs::read_dir(module.join("validation"))? {
            let entry = entry?;
            let name = entry
                .file_name()
                .into_string()
                .ok()
                .context("a name of the suite")?;
            if name != "util" && entry.path().is_dir() {
                writeln!(imports, "import _ \"{MODULE}/validation/{name}\"")?;
                programs.push(name);
            }
        }
        programs.sort_unstable();
        fs::write(source.join("tools.go"), imports)?;
        if programs.iter().any(|name| !dir.join(name).is_file()) {
            tool::run(&mut go(&["mod", "tidy"])).context("find the suite's libraries")?;
            let to = dir.to_str().context("the target directory")?;
            let (tool_path, all) = (
                format!("{MODULE}/cmd/runtimetest"),
                format!("{MODULE}/validation/..."),
            );
            tool::run(&mut go(&[
                "build",
                "-o",
                &format!("{to}/"),
                &tool_path,
                &all,
            ]))
            .context("build the suite")?;
        }
        let machine = if cfg!(target_arch = "x86_64") {
            "amd64"
        } else {
            "arm64"
        };
        let rootfs = module.join(format!("rootfs-{machine}.tar.gz"));
        ensure!(
            rootfs.is_file(),
            "runtime-tools has no root file system for {machine}"
        );
        Ok(Self {
            dir,
            programs,
            rootfs,
        })
    }
}

/// crun refuses a host that has both versions of control groups mounted.
pub(crate) fn hide_unified_from_crun(work: &Path) -> Result<Option<PathBuf>> {
    let Some(crun) = tool::find("crun") else {
        return Ok(None);
    };
    if !Path::new("/sys/fs/cgroup/unified").is_dir() {
        return Ok(Some(crun));
    }
    let path = work.join("crun");
    let script = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec {} \"$@\"' crun \"$@\"\n",
        crun.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(Some(path))
}

/// Runs a program and reads its lines; one that breaks off has said what it has said.
fn ask(program: &Path, runtime: &Path, work: &Path) -> Result<Verdict> {
    let output = Command::new("timeout")
        .args(["--kill-after=5", "60"])
        .arg(program)
        .current_dir(work)
        .env("RUNTIME", runtime)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(read_tap(&String::from_utf8_lossy(&output.stdout)))
}

/// Containers are called by random ids, which some names hold.
fn without_ids(name: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
    let words = name.split(' ').map(|word| {
        let bare = word.trim_matches(['"', '\'', ',', ':']);
        Some(bare).filter(is_id).map_or(word, |_| "ID")
    });
    words.collect::<Vec<_>>().join(" ")
}

fn read_tap(text: &str) -> Verdict {
    let mut verdicts: BTreeMap<String, bool> = BTreeMap::new();
    for line in text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.contains("# SKIP"))
    {
        let (ok, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => continue,
        };
        let name = rest
            .split_once(' ')
            .map_or(rest, |(_, name)| name.trim_start_matches("- "));
        let all = verdicts.entry(without_ids(name)).or_insert(true);
        *all &= ok;
    }
    let (passed, failed): (Vec<_>, Vec<_>) = verdicts.into_iter().partition(|(_, ok)| *ok);
    let names = |list: Vec<(String, bool)>| list.into_iter().map(|(name, _)| name).collect();
    Verdict {
        passed: names(passed),
        failed: names(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_passes_when_all_its_lines_do() {
        let verdict = read_tap(
            "TAP version 13\nok 1 - a\nnot ok 2 - b\n  ---\nok 3 - b\nok 4 # SKIP c\n1..4\n",
        );
        assert_eq!(verdict.passed.into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(verdict.failed.into_iter().collect::<Vec<_>>(), ["b"]);
    }
}
