// SPDX-License-Identifier: Apache-2.0
//! crun's Python tests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use gantry_testkit::tool;

use super::{Said, Source, Suite, Verdicts, files, read_verdict, take};
use crate::conformance_runtime::hide_unified_from_crun;

pub(super) const SUITE: Suite = Suite {
    source: Source {
        name: "crun",
        repository: "https://github.com/containers/crun",
        commit: "ba38286f7d232be8087dbd393315bb05018da68c",
        dir: "tests",
    },
    needs: &["git", "gcc", "python3", "crun"],
    explained: EXPLAINED,
};

/// Tests that crun passes and ours may fail, and why.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "test_commands/state-created",
        "takes the first answer of `state`, which is `creating` while a container is made",
    ),
    (
        "test_commands/start-command",
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

/// Runs the suite with ours and with crun.
pub(super) fn run(
    source: &Path,
    work: &Path,
    gantry: &Path,
    only: &str,
) -> Result<(Verdicts, Verdicts)> {
    let tests = source.join(SUITE.source.dir);
    let init = work.join("init");
    // What their configure would find out.
    let facts = "#define HAVE_ERROR_H 1\n#define HAVE_LINUX_IOPRIO_H 1\n";
    fs::write(work.join("config.h"), facts)?;
    tool::run(
        Command::new("gcc")
            .args(["-static", "-O1", "-w", "-D_GNU_SOURCE", "-I"])
            .arg(work)
            .arg("-o")
            .arg(&init)
            .arg(tests.join("init.c")),
    )
    .context("compile the program of crun's containers")?;
    let ours = work.join("gantry-runtime");
    symlink(gantry, &ours)?;
    let theirs = hide_unified_from_crun(work)?.context("crun is not installed")?;
    let ask = |runtime: &Path| ask(&tests, only, runtime, &init, work);
    Ok((ask(&ours)?, ask(&theirs)?))
}

/// Runs every file with one runtime.
fn ask(tests: &Path, only: &str, runtime: &Path, init: &Path, work: &Path) -> Result<Verdicts> {
    let mut verdicts = BTreeMap::new();
    for (name, file) in files(tests, "py", only)? {
        if !name.starts_with("test_") {
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
        let text = String::from_utf8_lossy(&output.stdout);
        take(&mut verdicts, &name, &text, output.status, read_line);
    }
    Ok(verdicts)
}

/// `ok 3 - name # 0.1s`, `ok 3 - name #SKIP why`, `not ok 3 - name`.
fn read_line(line: &str) -> Option<(&str, Said)> {
    let (passed, rest) = read_verdict(line)?;
    let rest = rest.strip_prefix("- ")?;
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
}
