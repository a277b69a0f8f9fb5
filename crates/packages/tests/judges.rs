// SPDX-License-Identifier: Apache-2.0
//! The package managers' own databases, and what their own programs say of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_packages::{Files, Manager, Package};
use gantry_testkit::{skip, tool};
use proptest::prelude::*;

/// A directory of this host.
struct Directory(PathBuf);

impl Files for Directory {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.0.join(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().unwrap());
        entries.map(name).collect()
    }

    fn read(&self, path: &str, _: u64) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }
}

fn lines(packages: &[Package]) -> Vec<String> {
    let mut lines: Vec<String> = packages
        .iter()
        .map(|p| format!("{} {} {}", p.name, p.architecture, p.version))
        .collect();
    lines.sort();
    lines
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn this_hosts_packages_are_those_that_dpkg_lists() {
    if tool::find("dpkg-query").is_none() {
        skip!("dpkg-query not installed");
    }
    let format = "${db:Status-Status} ${Package} ${Architecture} ${Version}\n";
    let said = tool::text("dpkg-query", ["-W", "-f", format]).unwrap();
    let installed: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    let packages = gantry_packages::read(&Directory("/".into())).unwrap();
    let ours: Vec<Package> = packages
        .into_iter()
        .filter(|package| package.manager == Manager::Dpkg)
        .collect();
    assert!(ours.len() > 100);
    assert_eq!(lines(&ours), sorted(&installed.join("\n")));
}

/// A database with `count` packages that rpm's own programs made.
fn rpm_database(dir: &Path, count: usize) -> Vec<String> {
    let mut spec = "Name: many\nEpoch: 3\nVersion: 1.2\nRelease: 4\nSummary: x\nLicense: MIT\nBuildArch: noarch\n\
                    %description\nx\n%files\n"
        .to_owned();
    for number in 0..count {
        // Long enough that some headers need overflow pages.
        let long = "long description ".repeat(1 + 97 * (number % 7));
        spec += &format!(
            "%package part{number}\nSummary: y\n%description part{number}\n{long}\n%files part{number}\n"
        );
    }
    fs::write(dir.join("many.spec"), spec).unwrap();
    let top = format!("_topdir {}", dir.display());
    tool::run(
        Command::new("rpmbuild")
            .args(["--define", &top, "-bb"])
            .arg(dir.join("many.spec")),
    )
    .unwrap();
    let built = fs::read_dir(dir.join("RPMS/noarch")).unwrap();
    let rpms: Vec<PathBuf> = built.map(|entry| entry.unwrap().path()).collect();
    let root = dir.join("root");
    fs::create_dir(&root).unwrap();
    let rpm = || {
        let mut command = Command::new("rpm");
        command
            .arg("--root")
            .arg(&root)
            .args(["--dbpath", "/var/lib/rpm"]);
        command
    };
    tool::run(rpm().args(["-i", "--nodeps", "--justdb"]).args(rpms)).unwrap();
    let said = tool::run(rpm().args([
        "-qa",
        "--qf",
        "%{NAME} %{ARCH} %{EPOCH}:%{VERSION}-%{RELEASE}\n",
    ]));
    sorted(&String::from_utf8(said.unwrap().stdout).unwrap())
}

#[test]
fn privileged_rpms_packages_are_those_that_rpm_lists() {
    let missing = tool::missing(&["rpm", "rpmbuild"]);
    if !missing.is_empty() {
        skip!("{} not installed", missing.join(", "));
    }
    if !skip::is_root() {
        skip!("rpm --root needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let said = rpm_database(dir.path(), 120);
    assert_eq!(said.len(), 121);
    let root = dir.path().join("root");
    let packages = gantry_packages::read(&Directory(root.clone())).unwrap();
    assert_eq!(lines(&packages), said);
    assert!(
        packages
            .iter()
            .all(|p| p.source.is_none() || p.source.as_deref() == Some("many"))
    );

    // Whatever is changed or cut, the answer is a list or an error.
    let path = root.join("var/lib/rpm/rpmdb.sqlite");
    let database = fs::read(&path).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let damage = (
        proptest::collection::vec((0..database.len(), any::<u8>()), 1..40),
        0..=database.len(),
        any::<bool>(),
    );
    runner
        .run(&damage, |(changes, end, cut)| {
            let mut damaged = database.clone();
            for (at, byte) in changes {
                damaged[at] = byte;
            }
            if cut {
                damaged.truncate(end);
            }
            fs::write(&path, damaged).unwrap();
            drop(gantry_packages::read(&Directory(root.clone())));
            Ok(())
        })
        .unwrap();
}
