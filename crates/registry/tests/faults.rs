// SPDX-License-Identifier: Apache-2.0
//! A registry that is killed, or whose disk is full: afterwards it is the old state or the new, and the next push works.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use gantry_oci::Limits;
use gantry_registry::{Registry, ServeOptions, serve};
use gantry_store::{CreateOptions, Store};
use gantry_testkit::image::{Image, Layer, digest};
use gantry_testkit::scratch::{Disk, scratch};
use gantry_testkit::skip::is_root;
use gantry_testkit::{skip, tar, tool};
use rustix::process::{Pid, Signal};

/// Set for the program that is killed: the store to serve.
const VICTIM: &str = "GANTRY_REGISTRY_TEST_VICTIM";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Not a test by itself: what the others start again as another process.
#[test]
fn victim() {
    let Some(root) = std::env::var_os(VICTIM).map(PathBuf::from) else {
        return;
    };
    let options = CreateOptions {
        shared: true,
        ..CreateOptions::default()
    };
    let store = Store::open_or_create(&root, &options).unwrap();
    let mut registry = Registry::new(store, rules(), Limits::DEFAULT).unwrap();
    let policy = root.with_extension("policy");
    if policy.is_file() {
        registry = gate::gated(registry, &policy, gate::options());
    }
    let options = ServeOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: None,
        insecure_http: false,
    };
    let ready = |address: SocketAddr| {
        let port = root.with_extension("port");
        let line = format!("{address} {}", std::process::id());
        std::fs::write(port.with_extension("new"), line)?;
        std::fs::rename(port.with_extension("new"), port)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // Ends with whoever started it, whatever becomes of that.
    let (sender, parent_is_gone) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        drop(sender);
    });
    let stop = async move { drop(parent_is_gone.await) };
    let served = serve(registry.into(), &options, ready, stop);
    runtime.block_on(served).unwrap();
}

/// A server that is another process.
struct Victim {
    child: Child,
    address: SocketAddr,
    /// Of the server itself, which may be a child of ours or of strace's.
    pid: Pid,
}

impl Victim {
    fn start(root: &Path) -> Self {
        Self::wait(root, Command::new(std::env::current_exe().unwrap())).unwrap()
    }

    /// Dies at the `nth` call of `call` that a thread of it makes; nothing if it died before it served.
    fn doomed(root: &Path, call: &str, nth: usize) -> Option<Self> {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("trace={call}"))
            .arg("-e")
            .arg(format!("inject={call}:signal=KILL:when={nth}"))
            .arg(std::env::current_exe().unwrap());
        Self::wait(root, command)
    }

    fn wait(root: &Path, mut command: Command) -> Option<Self> {
        let port = root.with_extension("port");
        std::fs::remove_file(&port).ok();
        let mut child = command
            .args(["--exact", "victim", "--test-threads=1"])
            .env(VICTIM, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Ok(text) = std::fs::read_to_string(&port) {
                let (address, pid) = text.split_once(' ').unwrap();
                return Some(Self {
                    child,
                    address: address.parse().unwrap(),
                    pid: Pid::from_raw(pid.parse().unwrap()).unwrap(),
                });
            }
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "the server did not start");
            std::thread::yield_now();
        }
    }

    fn kill(mut self) {
        // It may be dead already.
        rustix::process::kill_process(self.pid, Signal::KILL).ok();
        self.child.wait().unwrap();
    }

    /// Pushes as a client does that is told nothing; whether the last request was answered with 201.
    fn push(&self, image: &Image) -> bool {
        let put = |path: &str, content_type: &str, body: &[u8]| -> Option<u16> {
            let mut connection = Connection::try_to(self.address)?;
            let length = body.len().to_string();
            let headers = [
                ("Content-Length", length.as_str()),
                ("Content-Type", content_type),
            ];
            let method =
                if path.ends_with(|c: char| c.is_ascii_hexdigit()) && path.contains("?digest=") {
                    "POST"
                } else {
                    "PUT"
                };
            connection.begin(method, path, &headers);
            connection.write(body);
            connection.answer(method).ok().map(|answer| answer.status)
        };
        let blobs = image.blobs.iter().all(|blob| {
            let path = format!("/v2/team/app/blobs/uploads/?digest={}", digest(blob));
            put(&path, "application/octet-stream", blob) == Some(201)
        });
        blobs
            && put(
                "/v2/team/app/manifests/now",
                &image.media_type,
                &image.manifest,
            ) == Some(201)
    }
}

fn versions() -> [Image; 2] {
    ["1", "2"].map(|version| {
        let base = tar::join(&[tar::dir("etc/"), tar::file("etc/base", [b'b'; 3000])]);
        let own = tar::join(&[tar::file("own", version.repeat(200_000))]);
        Image::new(&[Layer::gzip(&base), Layer::gzip(&own)])
    })
}

/// The old image or the new, whole, in the tree and by the protocol; and the same push works now.
fn assert_old_or_new(root: &Path, accepted: bool, what: &str) {
    let [old, new] = versions();
    let server = Server::start(root);
    assert_eq!(staged(root), 0, "{what}: staging was not reclaimed");
    let link = std::fs::read_link(root.join("images/team/app/now")).unwrap();
    let served = server.get("/v2/team/app/manifests/now");
    assert_eq!(served.status, 200, "{what}: {served:?}");
    let found = digest(&served.body);
    assert!(
        link.ends_with(Path::new("digests").join(&found)),
        "{what}: {link:?} but {found}"
    );
    assert!([old.digest(), new.digest()].contains(&found), "{what}");
    assert!(
        !accepted || found == new.digest(),
        "{what}: what was accepted is lost"
    );
    let image = [&old, &new]
        .into_iter()
        .find(|image| image.digest() == found)
        .unwrap();
    for blob in &image.blobs {
        let answer = server.get(&format!("/v2/team/app/blobs/{}", digest(blob)));
        assert!(answer.body == *blob, "{what}: a blob is damaged");
    }
    assert_sound(&server.store);
    let answer = server.push("team/app", "now", &new);
    assert_eq!(answer.status, 201, "{what}: {answer:?}");
    assert_sound(&server.store);
    let unfinished = std::fs::read_dir(root.join("registry/uploads")).unwrap();
    for entry in unfinished {
        let name = entry.unwrap().file_name();
        assert_eq!(name.len(), 32, "{what}: {name:?} was left behind");
    }
}

fn prepare(root: &Path) {
    let server = Server::start(root);
    let answer = server.push("team/app", "now", &versions()[0]);
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[test]
fn server_that_is_killed_between_two_steps_of_a_push() {
    let dir = scratch();
    let new = &versions()[1];
    for step in 0..6 {
        let root = dir.join(format!("store{step}"));
        prepare(&root);
        let server = Victim::start(&root);
        let mut connection = Connection::to(server.address);
        match step {
            0 => {}
            // A blob is half there, by a stream and by chunks; all blobs are; the manifest is half there, and whole.
            1 => {
                let path = format!(
                    "/v2/team/app/blobs/uploads/?digest={}",
                    digest(&new.blobs[2])
                );
                connection.begin(
                    "POST",
                    &path,
                    &[("Content-Length", &new.blobs[2].len().to_string())],
                );
                connection.write(&new.blobs[2][..100]);
            }
            2 => {
                let answer = connection.send("POST", "/v2/team/app/blobs/uploads/", &[], b"");
                let location = answer.header("location").unwrap().to_owned();
                let answer = connection.send("PATCH", &location, &[], &new.blobs[2][..100]);
                assert_eq!(answer.status, 202);
            }
            _ => {
                for blob in &new.blobs {
                    let path = format!("/v2/team/app/blobs/uploads/?digest={}", digest(blob));
                    assert_eq!(connection.send("POST", &path, &[], blob).status, 201);
                }
            }
        }
        if step >= 4 {
            let length = new.manifest.len().to_string();
            let headers = [
                ("Content-Type", new.media_type.as_str()),
                ("Content-Length", &length),
            ];
            connection.begin("PUT", "/v2/team/app/manifests/now", &headers);
            let count = if step == 4 { 100 } else { new.manifest.len() };
            connection.write(&new.manifest[..count]);
        }
        server.kill();
        assert_old_or_new(&root, false, &format!("step {step}"));
    }
}

#[test]
fn server_that_is_killed_at_calls_of_the_kernel() {
    if let Some(missing) = tool::missing(&["strace"]).first() {
        skip!("{missing} is not installed");
    }
    let dir = scratch();
    let new = &versions()[1];
    let mut deaths = 0;
    for call in [
        "fsync",
        "rename",
        "renameat2",
        "linkat",
        "syncfs",
        "symlinkat",
        "ftruncate",
        "unlink",
    ] {
        for nth in [1, 2, 4, 7] {
            let root = dir.join(format!("{call}-{nth}"));
            prepare(&root);
            let what = format!("{call} {nth}");
            let Some(server) = Victim::doomed(&root, call, nth) else {
                deaths += 1;
                assert_old_or_new(&root, false, &what);
                continue;
            };
            let accepted = server.push(new);
            deaths += usize::from(!accepted);
            server.kill();
            assert_old_or_new(&root, accepted, &what);
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
    assert!(deaths > 8, "only {deaths} pushes were cut");
}

/// An image that waits for one signature, which comes; killed at some point of either.
struct Staged {
    image: Image,
    signature: Vec<u8>,
}

impl Staged {
    const REPOSITORY: &str = "staged/app";

    /// Whether both requests were answered with 201.
    fn send(&self, server: &Victim) -> bool {
        let put = |path: &str, content_type: &str, body: &[u8]| -> Option<u16> {
            let mut connection = Connection::try_to(server.address)?;
            let length = body.len().to_string();
            let headers = [
                ("Content-Length", length.as_str()),
                ("Content-Type", content_type),
            ];
            connection.begin("PUT", path, &headers);
            connection.write(body);
            connection.answer("PUT").ok().map(|answer| answer.status)
        };
        let manifest = format!("/v2/{}/manifests/v1", Self::REPOSITORY);
        let digest = self.image.digest();
        let signature = format!("/extensions/v2/{}/signatures/{digest}", Self::REPOSITORY);
        let wire = gate::wire(&digest, &self.signature).to_string();
        put(&manifest, &self.image.media_type, &self.image.manifest) == Some(201)
            && put(&signature, "application/json", wire.as_bytes()) == Some(201)
    }

    /// It waits or is published, whole; and the same once more publishes it.
    fn assert_waits_or_published(&self, world: &gate::World, root: &Path, done: bool, what: &str) {
        let server = world.server(root);
        let repository = Self::REPOSITORY;
        let sees = || server.sees(repository, "v1", &self.image);
        let digest_text = self.image.digest();
        let settle = || {
            let deadline = Instant::now() + TIMEOUT;
            while !gantry_registry::list_waiting(root).unwrap().is_empty() {
                assert!(Instant::now() < deadline, "{what}: it is listed for ever");
                std::thread::yield_now();
            }
        };
        // What is signed and listed is published by the look that a start begins with.
        if server.signatures(repository, &digest_text) == 1 {
            settle();
        }
        assert!(!done || sees(), "{what}: what was published is lost");
        assert_eq!(staged(root), 0, "{what}: staging was not reclaimed");
        if sees() {
            for blob in &self.image.blobs {
                let answer = server.get(&format!("/v2/{repository}/blobs/{}", digest(blob)));
                assert!(answer.body == *blob, "{what}: a blob is damaged");
            }
        } else {
            let images = root.join("images").join(repository);
            assert!(
                std::fs::read_dir(images).map_or(0, Iterator::count) == 0,
                "{what}"
            );
        }
        assert_sound(&server.store);
        let again = server.put_manifest(repository, "v1", &self.image);
        assert_eq!(again.status, 201, "{what}: {again:?}");
        let again = server.put_signature(repository, &digest_text, &self.signature);
        assert_eq!(again.status, 201, "{what}: {again:?}");
        assert!(sees(), "{what}: it waits for ever");
        settle();
        assert_sound(&server.store);
    }
}

#[test]
fn server_that_is_killed_between_waiting_and_published() {
    if let Some(missing) = tool::missing(&["strace", "gpg"]).first() {
        skip!("{missing} is not installed");
    }
    let dir = scratch();
    let world = gate::World::new(dir.path()).unwrap();
    let image = versions()[1].clone();
    let case = Staged {
        signature: world.sign(0, "staged/app:v1", &image.digest()),
        image,
    };
    let mut deaths = 0;
    for (call, nths) in [
        ("fsync", &[1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16][..]),
        ("rename", &[1, 2, 3, 4, 5, 6, 7]),
        ("renameat2", &[1, 2, 3]),
        ("syncfs", &[1]),
        ("symlinkat", &[1]),
        ("unlink", &[1, 2]),
    ] {
        for &nth in nths {
            let root = dir.join(format!("{call}-{nth}"));
            std::fs::copy(world.policy(), root.with_extension("policy")).unwrap();
            world
                .server(&root)
                .push_blobs(Staged::REPOSITORY, &case.image);
            let what = format!("{call} {nth}");
            let done = match Victim::doomed(&root, call, nth) {
                Some(server) => {
                    let done = case.send(&server);
                    server.kill();
                    done
                }
                None => false,
            };
            deaths += usize::from(!done);
            case.assert_waits_or_published(&world, &root, done, &what);
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
    assert!(deaths > 10, "only {deaths} servers were killed in time");
}

#[test]
fn privileged_full_disk_is_said_and_leaves_nothing() {
    if !is_root() {
        skip!("needs root to mount a loop device");
    }
    let disk = match Disk::new(64 << 20) {
        Ok(disk) => disk,
        Err(error) => skip!("no loop mounts here: {error:#}"),
    };
    let root = disk.path().join("store");
    let server = Server::start(&root);
    assert_eq!(server.push("team/app", "now", &versions()[0]).status, 201);
    let before = visible(&root);
    // More than there is, in one request and in chunks.
    let noise: Vec<u8> = (0..20_u64 << 20)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let large = noise.repeat(4);
    let post = format!("/v2/team/app/blobs/uploads/?digest={}", digest(&large));
    for _ in 0..2 {
        let message = server
            .send("POST", &post, &[], &large)
            .refuses(507, "UNKNOWN");
        assert!(message.contains("no space left"), "{message}");
        let location = server.start_upload("team/app");
        server
            .send("PATCH", &location, &[], &large)
            .refuses(507, "UNKNOWN");
        assert_eq!(
            std::fs::read_dir(root.join("registry/uploads"))
                .unwrap()
                .count(),
            0
        );
    }
    // A blob that fits and a tree that does not.
    let text = |n: u32| format!("{n:>100}\n").repeat(80_000);
    let files: Vec<_> = (0..12)
        .map(|n| tar::file(format!("f{n}"), text(n)))
        .collect();
    let wide = Image::new(&[Layer::gzip(&tar::join(&files))]);
    server.push_blobs("team/app", &wide);
    for _ in 0..2 {
        let message = server
            .put_manifest("team/app", "now", &wide)
            .refuses(507, "UNKNOWN");
        assert!(message.contains("no space left"), "{message}");
        assert_eq!(visible(&root), before);
        assert_eq!(staged(&root), 0);
    }
    // What is there is served, and something small still goes in.
    assert_eq!(server.get("/v2/team/app/manifests/now").status, 200);
    assert_eq!(server.push("team/app", "now", &versions()[1]).status, 201);
    // Not a byte left: the tag does not move; after something was removed it does.
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &noise[..4096]).is_ok() {}
    let before = visible(&root);
    let third = small_image("third");
    let refused = third.blobs.iter().any(|blob| {
        let path = format!("/v2/team/app/blobs/uploads/?digest={}", digest(blob));
        server.send("POST", &path, &[], blob).status == 507
    });
    let refused = refused || server.put_manifest("team/app", "now", &third).status == 507;
    assert!(refused, "nothing was written to a full disk");
    assert_eq!(visible(&root), before);
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(server.push("team/app", "now", &third).status, 201);
    assert_sound(&server.store);
}

#[test]
fn client_that_leaves_while_its_image_is_unpacked() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let image = &versions()[1];
    server.push_blobs("team/app", image);
    let length = image.manifest.len().to_string();
    let headers = [
        ("Content-Type", image.media_type.as_str()),
        ("Content-Length", &length),
    ];
    let mut connection = server.connect();
    connection.begin("PUT", "/v2/team/app/manifests/now", &headers);
    connection.write(&image.manifest);
    drop(connection);
    // Whatever became of it, the same push is accepted beside it or after it.
    let answer = server.put_manifest("team/app", "now", image);
    assert_eq!(answer.status, 201, "{answer:?}");
    drop(server);
    let server = Server::start(&root);
    assert_eq!(staged(&root), 0);
    assert_eq!(
        server.get("/v2/team/app/manifests/now").body,
        image.manifest
    );
    assert_sound(&server.store);
}
