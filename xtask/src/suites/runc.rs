// SPDX-License-Identifier: Apache-2.0
//! runc's integration tests, of the release that Debian 12 has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::{busybox, tool};

use super::{Said, Source, Suite, Verdicts, files, read_verdict, take};

/// Tests that runc passes and ours may fail, and why.
const EXPLAINED: &[(&str, &str)] = &[
    ("help/runc -h", "looks for runc's own words"),
    ("help/runc command -h", "looks for runc's own words"),
    ("help/runc foo -h", "looks for runc's own words"),
    ("version/runc version", "looks for runc's own words"),
];

pub(super) const SUITE: Suite = Suite {
    source: Source {
        name: "runc",
        repository: "https://github.com/opencontainers/runc",
        // v1.1.5
        commit: "f19387a6bec4944c770f7668ab51c4348d9c2f38",
        dir: "tests/integration",
    },
    needs: &["git", "bats", "jq", "python3", "script", "gawk", "runc"],
    explained: EXPLAINED,
};

/// Runs the suite with ours and with runc.
pub(super) fn run(
    source: &Path,
    work: &Path,
    gantry: &Path,
    only: &str,
) -> Result<(Verdicts, Verdicts)> {
    let integration = source.join(SUITE.source.dir);
    stand_in(&integration, work)?;
    let ours = work.join("gantry-runtime");
    symlink(gantry, &ours)?;
    let theirs = tool::find("runc").context("runc is not installed")?;
    Ok((
        ask(&integration, work, &ours, only)?,
        ask(&integration, work, &theirs, only)?,
    ))
}

/// Their images come from the network and their programs are written in Go: a file system of busybox is in the place of both
/// images, and `recvtty.py` takes their terminals. Tests of seccomp's agent and of
/// Debian's own programs fail with both runtimes.
fn stand_in(integration: &Path, work: &Path) -> Result<()> {
    let image = work.join("image.tar");
    let rootfs = work.join("image");
    for dir in ["bin", "dev", "etc", "home", "root", "tmp", "usr", "var"] {
        fs::create_dir_all(rootfs.join(dir))?;
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(busybox::BUSYBOX, rootfs.join("bin/busybox"))
        .context("busybox-static is not installed")?;
    let applets = tool::run(Command::new(busybox::BUSYBOX).arg("--list"))?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        if applet != "busybox" {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(rootfs.join("etc/group"), "root:x:0:\n")?;
    tool::run(
        Command::new("tar")
            .arg("-C")
            .arg(&rootfs)
            .arg("-cf")
            .arg(&image)
            .arg("."),
    )?;
    let images = format!(
        "#!/bin/sh\necho BUSYBOX_IMAGE={0}\necho HELLO_IMAGE={0}\necho DEBIAN_IMAGE={0}\n",
        image.display()
    );
    program(&integration.join("get-images.sh"), &images)?;
    let receiver = work.join("recvtty.py");
    fs::write(&receiver, include_str!("recvtty.py"))?;
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/python3 {} \"$@\"\n",
        receiver.display()
    );
    let dir = integration.join("../../contrib/cmd/recvtty");
    fs::create_dir_all(&dir)?;
    program(&dir.join("recvtty"), &script)
}

fn program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn ask(integration: &Path, work: &Path, runtime: &Path, only: &str) -> Result<Verdicts> {
    let mut verdicts = BTreeMap::new();
    for (name, file) in files(integration, "bats", only)? {
        // Their containers want the terminal that a test's caller has.
        let said = work.join("said");
        let bats = format!(
            "exec timeout --kill-after=5 400 bats --tap {} >{} 2>&1",
            file.display(),
            said.display()
        );
        let status = Command::new("script")
            .args(["--quiet", "--return", "--command", &bats, "/dev/null"])
            .env("RUNC", runtime)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("start script")?;
        let text = fs::read_to_string(&said)?;
        ensure!(
            text.lines().any(|line| line.starts_with("1..")),
            "{name}: bats said nothing: {text}"
        );
        take(&mut verdicts, &name, &text, status, read_line);
    }
    Ok(verdicts)
}

/// `ok 3 name`, `ok 3 name # skip why`, `not ok 3 name`.
fn read_line(line: &str) -> Option<(&str, Said)> {
    let (passed, rest) = read_verdict(line)?;
    Some(match rest.split_once(" # skip") {
        Some((name, _)) => (name, Said::Skipped),
        None if passed => (rest, Said::Passed),
        None => (rest, Said::Failed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_bats_are_read() {
        for (line, wanted) in [
            ("ok 1 runc run", Some(("runc run", Said::Passed))),
            ("ok 2 a b # skip no criu", Some(("a b", Said::Skipped))),
            ("not ok 3 c [d]", Some(("c [d]", Said::Failed))),
            ("# (in test file)", None),
        ] {
            assert_eq!(read_line(line), wanted);
        }
    }
}
