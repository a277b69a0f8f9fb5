// SPDX-License-Identifier: Apache-2.0
//! Documents of `gantry generate` beside those of `podman create`: every difference is in a table, with its reason.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "podman/differences.rs"]
mod differences;
#[path = "podman/flat.rs"]
mod flat;
#[path = "podman/lines.rs"]
mod lines;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::{World, succeed};
use differences::{DIFFERENCES, Difference};
use lines::{LINES, Line};
use serde_json::Value;

/// The table is about these: newer ones have other defaults.
const MAJOR: &str = "4.";

/// podman with storage of its own.
struct Podman {
    dir: PathBuf,
    /// It takes no longer path than 50 characters.
    run: tempfile::TempDir,
    image: String,
}

impl Podman {
    fn new(world: &World) -> Self {
        let mut podman = Self {
            dir: world.dir.join("podman"),
            run: tempfile::tempdir().unwrap(),
            image: String::new(),
        };
        let layout = gantry_testkit::fixtures::layout("tiny").unwrap();
        let from = format!("oci:{}", layout.display());
        podman.image = succeed(podman.command().args(["pull", "-q", &from]));
        podman
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        let dir = |name: &str| self.dir.join(name);
        command
            .arg("--root")
            .arg(dir("root"))
            .arg("--runroot")
            .arg(self.run.path())
            .arg("--tmpdir")
            .arg(dir("tmp"))
            .args([
                "--storage-driver",
                "vfs",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "none",
            ])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.dir);
        command
    }

    /// The document that `init` writes. Whether the runtime takes it is another matter.
    fn document(&self, line: &Line) -> Value {
        let options = line
            .options
            .iter()
            .filter(|word| !word.starts_with("--profile"));
        // Neither needs a network of podman's making.
        let network = (!line.options.contains(&"--network")).then_some("--network=none");
        let id = succeed(
            self.command()
                .args(["create"])
                .args(network)
                .args(options)
                .arg(&self.image)
                .args(line.program),
        );
        self.command().args(["init", &id]).output().unwrap();
        let path = self
            .dir
            .join(format!("root/vfs-containers/{id}/userdata/config.json"));
        let document =
            fs::read(&path).unwrap_or_else(|error| panic!("{line:?}: {path:?}: {error}"));
        self.command()
            .args(["rm", "--force", "--time", "0", &id])
            .output()
            .unwrap();
        let text = String::from_utf8(document).unwrap();
        // What is only this container's own.
        let text = text.replace(&id, "ID").replace(&id[..12], "ID");
        let text = text.replace(self.run.path().to_str().unwrap(), "PODMAN");
        let text = text.replace(self.dir.to_str().unwrap(), "PODMAN");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // vfs mounts what it shows.
        self.command().args(["umount", "--all"]).output().ok();
    }
}

fn ours(world: &World, line: &Line) -> Value {
    let network = (!line.options.contains(&"--network")).then_some("--network=none");
    let mut command = world.command(["generate", "--id", "ID", "--image", "tiny"]);
    command.args(network).args(line.options);
    if !line.program.is_empty() {
        command.arg("--").args(line.program);
    }
    serde_json::from_str(&succeed(&mut command)).unwrap()
}

/// Both filters are compared by podman's own tests and ours (golden files); here by whether there is one.
fn without_filter(mut document: Value) -> BTreeSet<String> {
    if let Some(filter) = document.pointer_mut("/linux/seccomp") {
        *filter = "a filter".into();
    }
    flat::flatten(&document)
}

fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or("")) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

fn explained(pattern: &str, line: &str) -> bool {
    !pattern.is_empty() && pattern.split(" | ").any(|one| fits(one, line))
}

#[test]
fn privileged_documents_differ_from_podmans_as_listed() {
    if !gantry_testkit::skip::is_root() {
        gantry_testkit::skip!("podman's storage is root's");
    }
    needs!(["tiny"], ["podman"]);
    let version =
        succeed(Command::new("podman").args(["version", "--format", "{{.Client.Version}}"]));
    if !version.starts_with(MAJOR) {
        gantry_testkit::skip!("the table is about podman {MAJOR}x, here is {version}");
    }
    let world = World::new();
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    world.gantry(["pull", "--quiet", "--faces", "hardlink", &tiny]);
    let podman = Podman::new(&world);
    let mut used = vec![false; DIFFERENCES.len()];
    let mut new = Vec::new();
    for line in &LINES {
        let (theirs, own) = (
            without_filter(podman.document(line)),
            without_filter(ours(&world, line)),
        );
        for (sign, text) in theirs
            .difference(&own)
            .map(|text| ('-', text))
            .chain(own.difference(&theirs).map(|text| ('+', text)))
        {
            let side = |difference: &Difference| {
                if sign == '-' {
                    difference.podman
                } else {
                    difference.gantry
                }
            };
            let mut known = false;
            for (difference, used) in DIFFERENCES.iter().zip(&mut used) {
                let this = explained(side(difference), text);
                *used |= this;
                known |= this;
            }
            if !known {
                new.push(format!("{sign} {text}    # {:?}", line.options));
            }
        }
    }
    new.sort();
    assert!(
        new.is_empty(),
        "{} differences that no row explains:\n{}",
        new.len(),
        new.join("\n")
    );
    let stale: Vec<_> = DIFFERENCES
        .iter()
        .zip(used)
        .filter(|(_, used)| !used)
        .collect();
    assert!(stale.is_empty(), "rows that explain nothing: {stale:?}");
}

/// `GANTRY_BLESS=1` writes it.
#[test]
fn page_shows_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/podman.md");
    let page = fs::read_to_string(path).unwrap();
    let (head, rest) = page.split_once("<!-- table -->\n").unwrap();
    let (old, tail) = rest.split_once("<!-- end -->\n").unwrap();
    let cell = |patterns: &str| match patterns {
        "" => String::new(),
        _ => format!("`{}`", patterns.replace(" | ", "` `")),
    };
    let mut new = String::from("| podman's alone | ours alone | why |\n|---|---|---|\n");
    for Difference {
        podman,
        gantry,
        why,
    } in DIFFERENCES
    {
        new.push_str(&format!(
            "| {} | {} | {why} |\n",
            cell(podman),
            cell(gantry)
        ));
    }
    if std::env::var_os("GANTRY_BLESS").is_some() {
        fs::write(
            path,
            format!("{head}<!-- table -->\n{new}<!-- end -->\n{tail}"),
        )
        .unwrap();
    } else {
        assert_eq!(old, new, "run with GANTRY_BLESS=1 and read the diff");
    }
}

#[test]
fn patterns_fit_what_they_say() {
    for (pattern, line, fit) in [
        ("a = *", "a = 1", true),
        ("a = *", "b = 1", false),
        ("*.b*c", "a.bxxc", true),
        ("*.b*c", "a.bxx", false),
        ("a", "ab", false),
        ("", "", false),
        ("x | a*", "ab", true),
    ] {
        assert_eq!(explained(pattern, line), fit, "{pattern} {line}");
    }
}
