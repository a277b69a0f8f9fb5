// SPDX-License-Identifier: Apache-2.0
//! Every bypass case of the corpus by every way in and out: refused, nothing stored, mounted, sent or started.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{World, assert_one_sentence, fail, skopeo, succeed};
use gantry_testkit::corpus::bypass::{Because, Maker, Scene, Scenes};
use gantry_testkit::skip::is_root;
use gantry_testkit::tool::DockerRegistry;

/// A registry with the corpus's image, and where each scene has its own directory.
struct Arena {
    world: World,
    registry: DockerRegistry,
    scenes: Scenes,
}

impl Arena {
    fn new() -> Option<Self> {
        let world = World::new();
        let registry = world.registry("registry");
        let mut maker = Maker::new(registry.address()).unwrap()?;
        let layout = world.dir.join("layout");
        maker.image().write_layout(&layout, "v1").unwrap();
        let from = format!("oci:{}:v1", layout.display());
        let to = format!("docker://{}", maker.name());
        skopeo(&[
            "copy",
            "-q",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &from,
            &to,
        ]);
        let scenes = Scenes::new(&mut maker).unwrap();
        Some(Self {
            world,
            registry,
            scenes,
        })
    }
}

/// One scene, written down, and a store that the image came into by a tool that asks nobody.
struct Stage<'a> {
    arena: &'a Arena,
    dir: PathBuf,
    asked: &'a str,
}

impl<'a> Stage<'a> {
    fn set(arena: &'a Arena, name: &str, scene: &'a Scene) -> Self {
        let dir = arena.world.dir.join(name);
        scene.write(&dir).unwrap();
        let stage = Self {
            arena,
            dir,
            asked: &scene.asked,
        };
        let mut bring = stage.command("store", &["--insecure-policy", "pull", "--quiet"]);
        succeed(bring.arg(stage.docker()));
        stage
    }

    fn docker(&self) -> String {
        format!("docker://{}", self.asked)
    }

    /// The command under the scene's policy, with one of the scene's stores.
    fn command(&self, store: &str, args: &[&str]) -> Command {
        let mut command = self.arena.world.command_in(&self.dir.join(store), args);
        command
            .env("HOME", self.dir.join("home"))
            .env("CONTAINERS_POLICY_JSON", self.dir.join("policy.json"))
            .env("GANTRY_RUNROOT", self.dir.join("run"));
        command
    }

    /// The ways in and out; `run` is how a program is run.
    fn ways(&self, run: &[&str]) -> Vec<(&'static str, Command)> {
        let (from, name) = (self.docker(), self.asked);
        let layout = format!("oci:{}", self.dir.join("layout").display());
        let copy = format!("docker://{}/team/copy:v1", self.arena.registry.address());
        let mut ways = vec![
            ("pull", self.command("pulled", &["pull", "--quiet", &from])),
            (
                "copy",
                self.command(
                    "pulled",
                    &["copy", "--quiet", "--remove-signatures", &from, &layout],
                ),
            ),
            (
                "push",
                self.command(
                    "store",
                    &["push", "--quiet", "--remove-signatures", name, &copy],
                ),
            ),
            (
                "explain",
                self.command("store", &["trust", "explain", "--json", &from]),
            ),
            (
                "run",
                self.command("store", &[run, &["--pull", "never", name]].concat()),
            ),
        ];
        if is_root() {
            ways.push(("mount", self.command("store", &["mount", name])));
        }
        ways
    }

    /// What there is after a refusal that should not be.
    fn left_behind(&self) -> Vec<PathBuf> {
        let names = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten();
        [
            "pulled/remotes",
            "pulled/digests",
            "layout/blobs",
            "layout/blobs/sha256",
            "run/containers",
            "run/mounts",
            "run/verdicts",
        ]
        .into_iter()
        .flat_map(|below| names(self.dir.join(below)))
        .map(|entry| entry.unwrap().path())
        .chain(Some(self.dir.join("layout/index.json")).filter(|index| index.exists()))
        .collect()
    }
}

/// The end of a way that must be a refusal; what is wrong if it is another.
fn judged(way: &str, command: &mut Command, because: Because) -> Option<String> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let of_run = way == "run";
    let good = match (because, output.status.code()) {
        (_, Some(0) | None | Some(101)) => false,
        (Because::Nothing(words), Some(_)) => {
            said.contains(words) && (way.starts_with("explain") || said.contains("admit no image"))
        }
        (_, Some(4)) if way.starts_with("explain") => true,
        (_, Some(status)) => {
            status == if of_run { 125 } else { 4 } && said.contains("is not admitted")
        }
    };
    if good && !way.starts_with("explain") {
        assert_one_sentence(&said);
        assert!(output.stdout.is_empty(), "{way}: {output:?}");
    }
    (!good).then(|| format!("{way}: {output:?}"))
}

/// Does something for each item, two at a time; what went wrong.
fn each<T: Sync>(items: &[T], act: impl Fn(&T) -> Vec<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut wrong = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(act(item));
        }
        wrong
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        let found = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        found.collect()
    })
}

#[test]
fn every_case_is_refused_by_every_way_and_leaves_nothing() {
    needs!([""; 0], ["docker-registry", "skopeo", "gpg", "openssl"]);
    let arena = Arena::new().unwrap();
    let reachable: Vec<_> = arena
        .scenes
        .attacks
        .iter()
        .filter(|(case, _)| case.family.is_reachable())
        .collect();
    assert!(reachable.len() >= 200, "{}", reachable.len());
    let wrong = each(&reachable, |(case, scene)| {
        let stage = Stage::set(&arena, case.id, scene);
        let mut wrong: Vec<String> = stage
            .ways(&["run", "--rm"])
            .into_iter()
            .filter_map(|(way, mut command)| judged(way, &mut command, case.because))
            .collect();
        let left = stage.left_behind();
        if !left.is_empty() {
            wrong.push(format!("left {left:?}"));
        }
        if let Err(error) = fs::remove_dir_all(&stage.dir) {
            wrong.push(format!("cannot be removed: {error}"));
        }
        wrong
            .iter()
            .map(|what| format!("{} ({}), {what}", case.id, case.what))
            .collect()
    });
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let tags = format!("docker://{}/team/copy", arena.registry.address());
    let (_, said) = fail(Command::new("skopeo").args(["list-tags", "--tls-verify=false", &tags]));
    assert!(said.contains("404"), "a push sent something: {said}");
    assert!(mounts_below(arena.world.dir.path()).is_empty());
}

/// What is mounted below a directory.
fn mounts_below(dir: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = format!("{}/", dir.display());
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places
        .filter(|place| place.starts_with(&below))
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn what_each_family_starts_from_is_admitted_by_every_way() {
    needs!([""; 0], ["docker-registry", "skopeo", "gpg", "openssl"]);
    let arena = Arena::new().unwrap();
    let families: Vec<_> = arena
        .scenes
        .families
        .iter()
        .filter(|(family, _)| family.is_reachable())
        .collect();
    let wrong = each(&families, |(family, scene)| {
        let stage = Stage::set(&arena, &format!("{family:?}"), scene);
        let mut wrong = Vec::new();
        // The image has no program; that it is admitted shows before.
        for (way, mut command) in stage.ways(&["run", "--dry-run"]) {
            let output = command.output().unwrap();
            if !output.status.success() {
                wrong.push(format!("{family:?}, {way}: {output:?}"));
            }
            if way == "mount" {
                succeed(&mut stage.command("store", &["unmount", stage.asked]));
            }
        }
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
