// SPDX-License-Identifier: Apache-2.0
//! The stories of the bypass corpus: what changes between a verdict and the use of an image.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{World, assert_one_sentence, fail, skopeo, succeed};
use gantry_testkit::corpus::bypass::{Family, Maker, PolicyFile, STORIES, Scene, Scenes};
use gantry_testkit::image::{Image, Layer};
use gantry_testkit::tool::DockerRegistry;
use gantry_testkit::{image, tar};
use serde_json::json;

const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

/// A registry with a signed image, and a policy that wants it signed.
struct Place {
    world: World,
    registry: DockerRegistry,
    maker: Maker,
    scene: Scene,
}

impl Place {
    fn new() -> Self {
        Self::with(Family::Signed)
    }

    fn with(family: Family) -> Self {
        let world = World::new();
        let registry = world.registry("registry");
        let mut maker = Maker::new(registry.address()).unwrap().unwrap();
        let scene = Scenes::of(family, &mut maker).unwrap();
        scene.write(&world.dir.join("scene")).unwrap();
        let place = Self {
            world,
            registry,
            maker,
            scene,
        };
        let image = place.maker.image().clone();
        place.push(&image, &place.maker.name());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.dir.join(name)
    }

    fn push(&self, image: &Image, name: &str) {
        let layout = self.path("layouts").join(image.digest().replace(':', "-"));
        image.write_layout(&layout, "v1").unwrap();
        let (from, to) = (
            format!("oci:{}:v1", layout.display()),
            format!("docker://{name}"),
        );
        skopeo(&[
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &from,
            &to,
        ]);
    }

    fn in_store(&self, store: &str, args: &[&str]) -> Command {
        let mut command = self.world.command_in(&self.path(store), args);
        command
            .env("HOME", self.path("scene/home"))
            .env("CONTAINERS_POLICY_JSON", self.path("scene/policy.json"))
            .env("GANTRY_RUNROOT", self.path("run"));
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        self.in_store("store", args)
    }

    fn bring(&self, store: &str) {
        let name = self.maker.name();
        succeed(&mut self.in_store(store, &["--insecure-policy", "pull", "--quiet", &name]));
    }

    fn plan(&self, image: &str) -> Command {
        self.command(&["run", "--dry-run", "--pull", "never", image])
    }

    /// Signatures for a manifest, and no others.
    fn keep(&self, digest: &str, signatures: &[Vec<u8>]) {
        let below = format!("scene/lookaside/team/app@{}", digest.replacen(':', "=", 1));
        let dir = self.path(&below);
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        for (number, signature) in signatures.iter().enumerate() {
            fs::write(dir.join(format!("signature-{}", number + 1)), signature).unwrap();
        }
    }

    /// A signature by the trusted key that this digest is this reference.
    fn says(&self, digest: &str, reference: &str) -> Vec<u8> {
        let statement = self.maker.statement(digest, reference);
        self.maker.sign(&statement.to_string()).unwrap()
    }

    fn lookaside_at(&self, address: &str) {
        let file = self.path("scene/home/.config/containers/registries.d/test.yaml");
        fs::write(file, format!("default-docker:\n  lookaside: {address}\n")).unwrap();
    }

    /// The file of a blob in the registry's own directory.
    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let below = format!(
            "registry/data/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        );
        self.path(&below)
    }
}

/// Another image than the corpus's.
fn other() -> Image {
    Image::new(&[Layer::gzip(&tar::join(&[tar::file("who", "another")]))])
}

/// Refused by the policy.
fn refused(command: &mut Command, why: &str) {
    let (status, said) = fail(command);
    let of_run = command.get_args().any(|arg| arg == "run");
    assert_eq!(status, if of_run { 125 } else { 4 }, "{said}");
    assert_one_sentence(&said);
    assert!(
        said.contains("is not admitted") && said.contains(why),
        "{said}"
    );
}

/// Ended without success, by whatever check was first; it did not panic.
fn stopped(command: &mut Command) -> String {
    let (status, said) = fail(command);
    assert!(!matches!(status, -1 | 101), "{said}");
    assert_one_sentence(&said);
    said
}

/// Nothing has a name in a store, and no manifest is in it.
fn has_nothing(store: &Path) -> bool {
    fn files(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).into_iter().flatten().map(Result::unwrap);
        let count = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => 1,
        };
        entries.map(count).sum()
    }
    files(&store.join("remotes")) == 0 && files(&store.join("digests")) == 0
}

macro_rules! tools {
    () => {
        needs!([""; 0], ["docker-registry", "skopeo", "gpg", "openssl"]);
    };
}

#[test]
fn each_story_of_the_corpus_is_told() {
    let told = [
        ("bypass_places.rs", include_str!("bypass_places.rs")),
        ("admission.rs", include_str!("admission.rs")),
        ("fail_closed.rs", include_str!("fail_closed.rs")),
    ];
    for story in STORIES {
        let (file, name) = story.test.split_once("::").unwrap();
        let text = told.iter().find(|(known, _)| *known == file).unwrap().1;
        assert!(text.contains(&format!("#[test]\nfn {name}()")), "{story:?}");
    }
}

#[test]
fn a_tag_that_is_moved_is_judged_anew() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    succeed(&mut place.command(&["pull", "--quiet", &name]));
    let before = place.world.dir.join("store/remotes");
    let link = || fs::read_link(walk(&before)).unwrap();
    let verified = link();
    place.push(&other(), &name);
    refused(
        &mut place.command(&["pull", "--quiet", &name]),
        "it has no signature",
    );
    refused(
        &mut place.command(&["run", "--pull", "always", &name]),
        "it has no signature",
    );
    assert_eq!(link(), verified, "the name leads to what was verified");
    succeed(&mut place.plan(&name));
}

/// The one symbolic link below a directory.
fn walk(dir: &Path) -> PathBuf {
    let entry = fs::read_dir(dir).unwrap().next().unwrap().unwrap();
    match entry.file_type().unwrap().is_symlink() {
        true => entry.path(),
        false => walk(&entry.path()),
    }
}

#[test]
fn a_registry_that_serves_other_bytes_is_not_believed() {
    tools!();
    let place = Place::new();
    let (name, image) = (place.maker.name(), place.maker.image().clone());
    let pull = || place.command(&["pull", "--quiet", &name]);
    for (what, digest, bytes) in [
        ("manifest", image.digest(), other().manifest),
        (
            "configuration",
            image::digest(&image.blobs[0]),
            other().blobs[0].clone(),
        ),
        (
            "layer",
            image::digest(&image.blobs[1]),
            other().blobs[1].clone(),
        ),
    ] {
        let file = place.blob(&digest);
        let good = fs::read(&file).unwrap();
        fs::write(&file, bytes).unwrap();
        let said = stopped(&mut pull());
        assert!(has_nothing(&place.path("store")), "{what}: {said}");
        stopped(&mut place.command(&["run", &name]));
        fs::write(&file, good).unwrap();
    }
    succeed(&mut pull());
}

#[test]
fn what_is_changed_in_a_store_does_not_run() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    succeed(&mut place.command(&["pull", "--quiet", &name]));
    succeed(&mut place.plan(&name));
    let digest = place.maker.digest();
    let kept = place.path("store/digests").join(&digest);
    let manifest = fs::read_dir(&kept)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let manifest = manifest
        .into_iter()
        .find(|file| fs::read(file).is_ok_and(|bytes| bytes == place.maker.image().manifest));
    let manifest = manifest.unwrap();
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, other().manifest).unwrap();
    stopped(&mut place.plan(&name));
    fs::write(&manifest, &good).unwrap();
    succeed(&mut place.plan(&name));
}

#[test]
fn a_name_that_is_bent_to_another_image_is_judged_by_that_image() {
    tools!();
    let place = Place::new();
    let (name, host) = (place.maker.name(), place.registry.address());
    succeed(&mut place.command(&["pull", "--quiet", &name]));
    let evil = format!("{host}/evil/app:v1");
    place.push(&other(), &evil);
    succeed(&mut place.command(&["--insecure-policy", "pull", "--quiet", &evil]));
    let remotes = place.path("store/remotes");
    let at = |below: &str| walk(&find(&remotes, below));
    let (trusted, bad) = (at("team"), at("evil"));
    let target = fs::read_link(bad).unwrap();
    fs::remove_file(&trusted).unwrap();
    symlink(target, &trusted).unwrap();
    refused(&mut place.plan(&name), "it has no signature");
    if gantry_testkit::skip::is_root() {
        refused(&mut place.command(&["mount", &name]), "it has no signature");
    }
}

/// The directory of this name somewhere below another.
fn find(dir: &Path, name: &str) -> PathBuf {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let dirs: Vec<PathBuf> = entries
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect();
    let here = dirs.iter().find(|path| path.file_name().unwrap() == name);
    here.cloned()
        .unwrap_or_else(|| dirs.iter().map(|dir| find(dir, name)).next().unwrap())
}

#[test]
fn an_alias_with_the_trusted_name_brings_no_trust() {
    tools!();
    let place = Place::new();
    let (name, evil) = (
        place.maker.name(),
        format!("{}/evil/app:v1", place.registry.address()),
    );
    place.push(&other(), &evil);
    succeed(&mut place.command(&["--insecure-policy", "pull", "--quiet", &evil]));
    refused(&mut place.plan(&evil), "it has no signature");
    succeed(&mut place.command(&["tag", &evil, &name]));
    refused(&mut place.plan(&name), "it has no signature");
}

#[test]
fn a_layout_brings_no_trust_to_a_name() {
    tools!();
    let place = Place::new();
    let (name, to) = (place.maker.name(), format!("store:{}", place.maker.name()));
    let layout = place.path("evil");
    other().write_layout(&layout, "v1").unwrap();
    let from = format!("oci:{}:v1", layout.display());
    refused(
        &mut place.command(&["copy", "--quiet", &from, &to]),
        "the policy's default",
    );
    refused(
        &mut place.command(&["pull", "--quiet", &from]),
        "the policy's default",
    );
    // A policy that accepts layouts lets it in, and out again under no name that it has not earned.
    let mut scene = place.scene.clone();
    scene
        .edit(|policy| {
            policy["transports"]["oci"] = json!({"": [{"type": "insecureAcceptAnything"}]})
        })
        .unwrap();
    fs::remove_dir_all(place.path("scene")).unwrap();
    scene.write(&place.path("scene")).unwrap();
    succeed(&mut place.command(&["copy", "--quiet", &from, &to]));
    refused(&mut place.plan(&name), "it has no signature");
    for gone in [
        "dir:/x",
        "docker-archive:/x",
        "containers-storage:x",
        "docker-daemon:x:y",
    ] {
        stopped(&mut place.command(&["copy", "--quiet", gone, &to]));
    }
}

#[test]
fn a_copy_in_the_store_inherits_no_name() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    succeed(&mut place.command(&["pull", "--quiet", &name]));
    let (from, to) = (format!("store:{name}"), "store:localhost/mine:v1");
    succeed(&mut place.command(&["copy", "--quiet", &from, to]));
    refused(&mut place.plan("localhost/mine:v1"), "the policy's default");
    let same_registry = format!("{}/team/mine:v1", place.registry.address());
    succeed(&mut place.command(&["tag", &name, &same_registry]));
    refused(
        &mut place.plan(&same_registry),
        "its only signature does not count",
    );
}

#[test]
fn a_share_without_signatures_is_not_believed() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    place.bring("signed share");
    place.keep(&place.maker.digest(), &[]);
    place.bring("share");
    let run = |share: &str| {
        let share = place.path(share).display().to_string();
        place.command(&[
            "run",
            "--dry-run",
            "--pull",
            "never",
            "--share",
            &share,
            &name,
        ])
    };
    refused(&mut run("share"), "it has no signature");
    succeed(&mut run("signed share"));
}

#[test]
fn one_image_of_an_index_signs_for_itself_alone() {
    tools!();
    let place = Place::new();
    let (ours, theirs) = (other(), place.maker.image().clone());
    let mut foreign = theirs.entry();
    foreign["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let index = Image::index(&[ours.clone(), theirs.clone()], &[ours.entry(), foreign]);
    let name = format!("{}/team/app:multi", place.registry.address());
    place.push(&index, &name);
    let pull = || place.command(&["pull", "--quiet", &name]);
    // The other one of the index, an image that is in no index, and another index.
    place.keep(&theirs.digest(), &[place.says(&theirs.digest(), &name)]);
    refused(&mut pull(), "it has no signature");
    place.keep(&index.digest(), &[place.says(&theirs.digest(), &name)]);
    refused(&mut pull(), "its only signature does not count");
    let another = Image::index(std::slice::from_ref(&ours), &[ours.entry()]);
    place.keep(&ours.digest(), &[place.says(&another.digest(), &name)]);
    refused(&mut pull(), "none of its 2 signatures counts");
    // In a store, an index that nobody signed makes nothing of an image that it lists.
    succeed(&mut place.command(&["--insecure-policy", "pull", "--quiet", &name]));
    refused(&mut place.plan(&name), "does not count");
    // The image alone, or the whole index.
    place.keep(&ours.digest(), &[place.says(&ours.digest(), &name)]);
    succeed(&mut pull());
    place.keep(&ours.digest(), &[]);
    place.keep(&index.digest(), &[place.says(&index.digest(), &name)]);
    succeed(&mut place.in_store("fresh", &["pull", "--quiet", &name]));
}

#[test]
fn a_mirror_has_no_say_in_the_name() {
    tools!();
    let place = Place::new();
    let (host, digest) = (place.registry.address(), place.maker.digest());
    let conf = place.path("registries.conf");
    fs::write(&conf, format!("[[registry]]\nprefix = \"registry.example\"\nlocation = \"registry.example\"\n[[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true\n")).unwrap();
    let name = "registry.example/team/app:v1";
    let mut scene = place.scene.clone();
    scene
        .replace(&format!("\"{host}\""), "\"registry.example\"")
        .unwrap();
    fs::remove_dir_all(place.path("scene")).unwrap();
    scene.write(&place.path("scene")).unwrap();
    let pull = || {
        let mut pull = place.command(&["pull", "--quiet", name]);
        pull.env("CONTAINERS_REGISTRIES_CONF", &conf);
        pull
    };
    refused(&mut pull(), "signed as");
    place.keep(
        &digest,
        &[place.says(&digest, "registry.example/team/other:v1")],
    );
    refused(&mut pull(), "signed as");
    place.keep(&digest, &[place.says(&digest, name)]);
    succeed(&mut pull());
}

/// What a web server answers: status line, a header, a body.
type Answer = (&'static str, String, Vec<u8>);

/// A web server that answers each path as it is told, and counts.
struct Web {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Web {
    fn start(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                count.fetch_add(1, Ordering::Relaxed);
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, header, body) = answer(&path);
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                drop((&stream).write_all(&[head.as_bytes(), &body].concat()));
            }
        });
        Self { address, asked }
    }
}

#[test]
fn a_lookaside_leads_to_no_other_kind_of_place() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    let stored = place.path("good.sig");
    fs::write(&stored, &place.scene.signatures[0]).unwrap();
    for target in [
        format!("file://{}", stored.display()),
        "ftp://127.0.0.1/x".to_owned(),
        "/again".to_owned(),
    ] {
        let location = format!("Location: {target}\r\n");
        let web = Web::start(move |_| ("302 Found", location.clone(), Vec::new()));
        place.lookaside_at(&web.address);
        stopped(&mut place.command(&["pull", "--quiet", &name]));
        assert!(has_nothing(&place.path("store")), "{target}");
        let asked = web.asked.load(Ordering::Relaxed);
        assert!((1..60).contains(&asked), "{target}: {asked} requests");
    }
    // What lies at the end of an honest redirection is judged as anything else.
    let good = place.scene.signatures[0].clone();
    let web = Web::start(move |path| match path {
        path if path.ends_with("signature-1") => {
            ("302 Found", "Location: /moved\r\n".to_owned(), Vec::new())
        }
        "/moved" => ("200 OK", String::new(), good.clone()),
        _ => ("404 Not Found", String::new(), Vec::new()),
    });
    place.lookaside_at(&web.address);
    succeed(&mut place.command(&["pull", "--quiet", &name]));
}

#[test]
fn a_lookaside_without_end_is_left() {
    tools!();
    let place = Place::new();
    let number = AtomicUsize::new(0);
    let bad = place.maker.sign_by(&place.maker.mallory, "{}").unwrap();
    let web = Web::start(move |_| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let body = [&bad[..], number.to_string().as_bytes()].concat();
        ("200 OK", String::new(), body)
    });
    place.lookaside_at(&web.address);
    let said = stopped(&mut place.command(&["pull", "--quiet", &place.maker.name()]));
    assert!(said.contains("more than"), "{said}");
    let asked = web.asked.load(Ordering::Relaxed);
    assert!(asked <= 130, "{asked} requests");
}

#[test]
fn a_lookaside_that_fails_says_nothing() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    let good = place.scene.signatures[0].clone();
    for (first, second) in [
        ("500 Internal Server Error", "404 Not Found"),
        ("200 OK", "500 Internal Server Error"),
        ("200 OK", "403 Forbidden"),
        ("204 No Content", "404 Not Found"),
    ] {
        let good = good.clone();
        let web = Web::start(move |path| match path.ends_with("signature-1") {
            true if first == "200 OK" => (first, String::new(), good.clone()),
            true => (first, String::new(), Vec::new()),
            false => (second, String::new(), Vec::new()),
        });
        place.lookaside_at(&web.address);
        let mut pull = place.command(&["pull", "--quiet", "--retry", "0", &name]);
        stopped(&mut pull);
        assert!(has_nothing(&place.path("store")), "{first}, {second}");
    }
    place.lookaside_at("http://127.0.0.1:1");
    stopped(&mut place.command(&["pull", "--quiet", "--retry", "0", &name]));
}

#[test]
fn a_signature_that_is_no_file_is_none() {
    tools!();
    let place = Place::new();
    let digest = place.maker.digest();
    let file = place
        .path(&format!(
            "scene/lookaside/team/app@{}",
            digest.replacen(':', "=", 1)
        ))
        .join("signature-1");
    let pull = || place.command(&["pull", "--quiet", &place.maker.name()]);
    fs::remove_file(&file).unwrap();
    succeed(Command::new("mkfifo").arg(&file));
    stopped(&mut pull());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    stopped(&mut pull());
    fs::remove_dir(&file).unwrap();
    symlink("/dev/zero", &file).unwrap();
    stopped(&mut pull());
    fs::remove_file(&file).unwrap();
    symlink(&file, &file).unwrap();
    stopped(&mut pull());
}

#[test]
fn no_environment_and_no_option_loosens_the_policy_by_accident() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    place.keep(&place.maker.digest(), &[]);
    let home = place.path("scene/home/.config/containers");
    fs::write(home.join("policy.json"), ACCEPT).unwrap();
    let pull = |options: &[&str]| place.command(&[options, &["pull", "--quiet", &name]].concat());
    // The named one holds, though another place has a policy that accepts.
    refused(&mut pull(&[]), "it has no signature");
    for missing in ["", "/nowhere/policy.json", "relative.json"] {
        let said = stopped(pull(&[]).env("CONTAINERS_POLICY_JSON", missing));
        assert!(said.contains("admit no image"), "{said}");
        if missing.is_empty() {
            assert_eq!(fail(&mut pull(&["--policy", missing])).0, 2);
            continue;
        }
        let said = stopped(&mut pull(&["--policy", missing]));
        assert!(said.contains("admit no image"), "{said}");
    }
    let policy = place.path("scene/policy.json").display().to_string();
    let accepts = home.join("policy.json");
    refused(
        pull(&["--policy", &policy]).env("CONTAINERS_POLICY_JSON", &accepts),
        "it has no signature",
    );
    for both in [
        &["--insecure-policy", "--policy", &policy][..],
        &["--policy", &policy, "--policy", &policy],
        &["--policy", &policy, "--signature-policy", &policy],
    ] {
        let (status, said) = fail(&mut pull(both));
        assert_eq!(status, 2, "{said}");
    }
}

#[test]
fn a_policy_that_is_exchanged_meanwhile_is_one_or_the_other() {
    tools!();
    let place = Place::new();
    let name = place.maker.name();
    place.keep(&place.maker.digest(), &[]);
    place.bring("store");
    let policy = place.path("scene/policy.json");
    let text = fs::read_to_string(&policy).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Written in place, so that a reader finds any beginning of it.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::write(&policy, "").unwrap();
                for end in (0..text.len()).step_by(40) {
                    fs::write(&policy, &text[..end]).unwrap();
                }
                fs::write(&policy, &text).unwrap();
            }
        });
        let ends: Vec<_> = (0..40)
            .map(|_| place.plan(&name).output().unwrap())
            .collect();
        stop.store(true, Ordering::Relaxed);
        for output in ends {
            assert!(
                !matches!(output.status.code(), None | Some(0 | 101)),
                "{output:?}"
            );
        }
    });
    assert_eq!(
        place.scene.policy,
        PolicyFile::Text(place.scene.text().unwrap().to_vec())
    );
}
