// SPDX-License-Identifier: Apache-2.0
//! The gate: what is published, what waits, and who sees it meanwhile.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gate::*;
use common::*;
use gantry_oci::ManifestDigest;
use gantry_registry::{GateOptions, PushPolicy, WaitingLimits, list_waiting};
use gantry_testkit::image::{Image, Layer, digest};
use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::{skip, tar};
use gantry_trust::SigstoreSignature;
use gantry_trust::sigstore::{self, PrivateKey};
use serde_json::{Value, json};

/// A scratch directory with signers, or the end of the test.
macro_rules! world {
    () => {{
        let dir = scratch();
        match World::new(dir.path()) {
            Some(world) => (dir, world),
            None => skip!("gpg is not installed"),
        }
    }};
}

fn root(dir: &Scratch) -> std::path::PathBuf {
    dir.join("store")
}

/// What waits, as repository and tag.
fn waiting(root: &Path) -> Vec<String> {
    let all = list_waiting(root).unwrap();
    let name = |one: &gantry_registry::WaitingImage| match &one.tag {
        Some(tag) => format!("{}:{tag}", one.repository),
        None => format!("{}@", one.repository),
    };
    all.iter().map(name).collect()
}

/// Where nobody but the registry looks.
fn seen(root: &Path) -> Vec<String> {
    let mut seen = visible(root);
    seen.retain(|path| !path.starts_with("registry/repos"));
    seen
}

#[test]
fn enforced_what_is_not_admitted_leaves_nothing() {
    let (dir, world) = world!();
    let server = world.server(&root(&dir));
    let image = small_image("one");
    let name = "strict/app";
    server.push_blobs(name, &image);
    let before = visible(&root(&dir));
    let refused = |tag: &str| {
        server
            .put_manifest(name, tag, &image)
            .refuses(403, "DENIED")
    };
    for tag in ["v1", &image.digest()] {
        let message = refused(tag);
        assert!(message.contains("requires signedBy"), "{message}");
        assert!(message.contains("no signature"), "{message}");
        assert_eq!(visible(&root(&dir)), before);
        assert_eq!(staged(&root(&dir)), 0);
    }
    // The wrong signer, the wrong name, the wrong image.
    for signature in [
        world.sign(1, "strict/app:v9", &image.digest()),
        world.sign(0, "other/app:v1", &image.digest()),
    ] {
        let answer = server.put_signature(name, &image.digest(), &signature);
        assert_eq!(answer.status, 201, "{answer:?}");
        let message = refused("v1");
        assert!(
            message.contains("does not count") || message.contains("counts"),
            "{message}"
        );
    }
    assert!(!root(&dir).join("digests").join(image.digest()).exists());
    // The right one, before its image.
    let signature = world.sign(0, "strict/app:v1", &image.digest());
    assert_eq!(
        server
            .put_signature(name, &image.digest(), &signature)
            .status,
        201
    );
    assert!(!server.sees(name, "v1", &image));
    assert_eq!(server.put_manifest(name, "v1", &image).status, 201);
    assert!(server.sees(name, "v1", &image));
    assert_eq!(server.signatures(name, &image.digest()), 3);
    // Hosts have them with the image, under its repository.
    let digest: ManifestDigest = image.digest().parse().unwrap();
    let kept = server.store.signatures_of(&digest, &name.parse().unwrap());
    assert_eq!(kept.unwrap().len(), 3);
    // Another tag is another name, and is judged again; the digest is any tag's.
    let message = refused("v2");
    assert!(message.contains("v2"), "{message}");
    assert_eq!(
        server.put_manifest(name, &image.digest(), &image).status,
        201
    );
    // A policy that is tightened refuses the next push, and takes nothing away.
    world.want(&["a", "b"]);
    refused("v1");
    assert!(server.sees(name, "v1", &image));
    assert_sound(&server.store);
}

#[test]
fn repositories_without_a_policy_are_as_they_were() {
    let (dir, world) = world!();
    std::fs::write(world.policy(), "{").unwrap();
    let server = world.server(&root(&dir));
    let image = small_image("one");
    let answer = server.push("free/app", "v1", &image);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("warning"), None);
    assert!(server.sees("free/app", "v1", &image));
    let (nowhere, signature) = (digest(b"x"), world.sign(0, "free/app:v1", &digest(b"x")));
    server
        .put_signature("free/app", &nowhere, &signature)
        .refuses(404, "MANIFEST_UNKNOWN");
    server
        .get(&format!("/extensions/v2/free/app/signatures/{nowhere}"))
        .refuses(404, "MANIFEST_UNKNOWN");
}

#[test]
fn staged_what_waits_is_seen_by_nobody_and_survives() {
    let (dir, world) = world!();
    world.want(&["a", "b"]);
    let (root, name) = (root(&dir), "staged/app");
    let image = small_image("one");
    let manifest = format!("/v2/{name}/manifests/{}", image.digest());
    let assert_hidden = |server: &Server| {
        assert_eq!(waiting(&root), ["staged/app:v1"]);
        assert!(!server.sees(name, "v1", &image));
        server.get(&manifest).refuses(404, "MANIFEST_UNKNOWN");
        assert_eq!(server.head(&manifest).status, 404);
        server
            .get(&format!("/v2/{name}/blobs/{}", image.digest()))
            .refuses(404, "BLOB_UNKNOWN");
        let mount = format!(
            "/v2/free/app/blobs/uploads/?mount={}&from={name}",
            image.digest()
        );
        assert_eq!(server.send("POST", &mount, &[], b"").status, 202);
        assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!([]));
        let tags = server.get(&format!("/v2/{name}/tags/list"));
        assert_eq!(tags.json()["tags"], json!([]));
        for place in ["images", "digests"] {
            let entries = std::fs::read_dir(root.join(place)).map(Iterator::count);
            assert!(matches!(entries, Err(_) | Ok(0)), "{place}: {entries:?}");
        }
    };
    {
        let server = world.server(&root);
        server.push_blobs(name, &image);
        let answer = server.put_manifest(name, "v1", &image);
        assert_eq!(answer.status, 201);
        assert_eq!(
            answer.header("docker-content-digest"),
            Some(image.digest().as_str())
        );
        let warning = answer.header("warning").unwrap();
        assert!(
            warning.starts_with("299 - \"not published yet: "),
            "{warning}"
        );
        assert_hidden(&server);
        // The client looks which signatures are there before it adds its own.
        assert_eq!(server.signatures(name, &image.digest()), 0);
        let first = world.sign(0, "staged/app:v1", &image.digest());
        assert_eq!(
            server.put_signature(name, &image.digest(), &first).status,
            201
        );
        assert_hidden(&server);
    }
    let server = world.server(&root);
    assert_hidden(&server);
    let reason = &list_waiting(&root).unwrap()[0].reason;
    assert!(reason.contains("requires signedBy"), "{reason}");
    let second = world.sign(1, "staged/app:v1", &image.digest());
    assert_eq!(
        server.put_signature(name, &image.digest(), &second).status,
        201
    );
    assert!(server.sees(name, "v1", &image));
    assert_eq!(waiting(&root), [""; 0]);
    assert_eq!(server.signatures(name, &image.digest()), 2);
    assert_eq!(
        server.get("/v2/_catalog").json()["repositories"],
        json!([name])
    );
    assert_sound(&server.store);
    // What was rejected for good need not wait.
    world.want(&[]);
    std::fs::write(world.policy(), r#"{"default":[{"type":"reject"}]}"#).unwrap();
    server
        .put_manifest(name, "v3", &image)
        .refuses(403, "DENIED");
    assert_eq!(waiting(&root), [""; 0]);
}

#[test]
fn a_tag_leads_to_what_was_pushed_last() {
    let (dir, world) = world!();
    let (root, name) = (root(&dir), "staged/app");
    let server = world.server(&root);
    let (old, new) = (small_image("old"), small_image("new"));
    let sign = |image: &Image, tag: &str| {
        let signature = world.sign(0, &format!("{name}:{tag}"), &image.digest());
        let answer = server.put_signature(name, &image.digest(), &signature);
        assert_eq!(answer.status, 201, "{answer:?}");
    };
    let points_at = |image: &Image| {
        let answer = server.get(&format!("/v2/{name}/manifests/v1"));
        (answer.status == 200) && digest(&answer.body) == image.digest()
    };
    // The newer one is published while the older one waits: the older one's signature comes too late.
    assert_eq!(server.push(name, "v1", &old).status, 201);
    sign(&new, "v1");
    assert_eq!(server.push(name, "v1", &new).status, 201);
    assert!(points_at(&new));
    assert_eq!(waiting(&root), [""; 0]);
    sign(&old, "v1");
    assert!(points_at(&new));
    // Both wait: the tag is the newer one's.
    let (third, fourth) = (small_image("third"), small_image("fourth"));
    server.push(name, "v1", &third);
    server.push(name, "v1", &fourth);
    sign(&third, "v1");
    assert!(points_at(&new));
    sign(&fourth, "v1");
    assert!(points_at(&fourth));
    // Deleted while it waits, by tag and by digest: no signature brings it back.
    for by_digest in [false, true] {
        let image = small_image(&format!("gone {by_digest}"));
        server.push(name, "gone", &image);
        let which = if by_digest {
            image.digest()
        } else {
            "gone".to_owned()
        };
        let path = format!("/v2/{name}/manifests/{which}");
        assert_eq!(server.delete(&path).status, 202);
        server.delete(&path).refuses(404, "MANIFEST_UNKNOWN");
        sign(&image, "gone");
        assert!(!server.sees(name, "gone", &image));
    }
    assert_sound(&server.store);
}

#[test]
fn what_cannot_be_judged_is_not_published() {
    let (dir, world) = world!();
    let root = root(&dir);
    let shelf = Arc::new(Shelf::empty());
    let often = GateOptions {
        look_every: Duration::from_millis(50),
        ..options()
    };
    let server = world.server_with(&root, often, Some(Arc::clone(&shelf)));
    let image = small_image("one");
    let sign = |name: &str| world.sign(0, name, &image.digest()).into();
    server.push_blobs("strict/app", &image);
    server.push_blobs("staged/app", &image);
    // A lookaside that fails hides nothing that decides, even if what is here would do.
    let own = world.sign(0, "strict/app:v1", &image.digest());
    server.put_signature("strict/app", &image.digest(), &own);
    shelf.set(Err("connect to /gantry-scratch/host".to_owned()));
    let message = server
        .put_manifest("strict/app", "v1", &image)
        .refuses(403, "DENIED");
    assert!(message.contains("lookaside"), "{message}");
    assert_eq!(server.put_manifest("staged/app", "v1", &image).status, 201);
    let reason = &list_waiting(&root).unwrap()[0].reason;
    assert!(reason.contains("lookaside"), "{reason}");
    // More signatures than anybody reads are none.
    let many = (0..200_u16).map(|n| [&[0xA3_u8][..], &n.to_le_bytes()].concat().into());
    shelf.set(Ok(many.collect()));
    server
        .put_manifest("strict/app", "v1", &image)
        .refuses(403, "DENIED");
    // It answers: the next look publishes what waits, without anybody's word.
    shelf.set(Ok(vec![sign("strict/app:v1"), sign("staged/app:v1")]));
    assert_eq!(server.put_manifest("strict/app", "v1", &image).status, 201);
    wait_until("the next look", || waiting(&root).is_empty());
    assert!(server.sees("staged/app", "v1", &image));
    let digest: ManifestDigest = image.digest().parse().unwrap();
    let kept = server
        .store
        .signatures_of(&digest, &"staged/app".parse().unwrap());
    assert_eq!(
        kept.unwrap().len(),
        2,
        "hosts have no lookaside when they start it"
    );
    // A policy that cannot be read admits nothing, and one that is mended is read.
    let policy = std::fs::read(world.policy()).unwrap();
    let other = small_image("two");
    server.push_blobs("strict/app", &other);
    shelf.set(Ok(vec![
        world.sign(0, "strict/app:v2", &other.digest()).into(),
    ]));
    for broken in [Some("{"), None] {
        match broken {
            Some(text) => std::fs::write(world.policy(), text).unwrap(),
            None => std::fs::remove_file(world.policy()).unwrap(),
        }
        let message = server
            .put_manifest("strict/app", "v2", &other)
            .refuses(403, "DENIED");
        assert!(message.contains("policy cannot be read"), "{message}");
    }
    std::fs::write(world.policy(), policy).unwrap();
    assert_eq!(server.put_manifest("strict/app", "v2", &other).status, 201);
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A manifest of one signature, as sigstore's tools attach it.
fn attachment(signature: &SigstoreSignature, subject: Option<&Image>) -> Image {
    let config = b"{}".to_vec();
    let config_type = match subject {
        Some(_) => "application/vnd.oci.empty.v1+json",
        None => "application/vnd.oci.image.config.v1+json",
    };
    let mut layer = gantry_testkit::image::descriptor(&signature.mime_type, &signature.payload);
    layer["annotations"] = json!(signature.annotations);
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": gantry_testkit::image::descriptor(config_type, &config),
        "layers": [layer],
    });
    if let Some(subject) = subject {
        manifest["subject"] =
            gantry_testkit::image::descriptor(&subject.media_type, &subject.manifest);
        manifest["artifactType"] = json!(signature.mime_type);
    }
    let mut image = Image::new(&[]);
    image.media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    image.manifest = manifest.to_string().into();
    image.blobs = vec![config, signature.payload.to_vec()];
    image
}

#[test]
fn sigstore_signatures_come_before_and_after() {
    let (dir, world) = world!();
    let (key, public) = {
        let (key, file) = PrivateKey::generate(b"word").unwrap();
        drop(file);
        let public = key.public().to_pem();
        (key, public)
    };
    std::fs::write(dir.join("key.pub"), public).unwrap();
    let policy = json!({"default": [{"type": "sigstoreSigned", "keyPath": dir.join("key.pub"),
        "signedIdentity": {"type": "matchRepository"}}]});
    std::fs::write(world.policy(), policy.to_string()).unwrap();
    let server = world.server(&root(&dir));
    for (repository, waits) in [("strict/app", false), ("staged/app", true)] {
        for bundled in [false, true] {
            let image = small_image(&format!("{repository} {bundled}"));
            let digest: ManifestDigest = image.digest().parse().unwrap();
            let reference = format!("{NAME}/{repository}:v1");
            let now = std::time::SystemTime::now();
            let (signature, tag) = if bundled {
                let bundle = sigstore::sign::bundle(&key, &reference, &digest).unwrap();
                (attachment(&bundle, Some(&image)), None)
            } else {
                let signature = sigstore::sign::attachment(&key, &reference, &digest, "test", now);
                let signature = attachment(&signature.unwrap(), None);
                (signature, Some(sigstore::attachment_tag(&digest, ".sig")))
            };
            let tag = tag.unwrap_or_else(|| signature.digest());
            let publish = |what: &str| match what {
                "image" => server.push(repository, "v1", &image),
                _ => server.push(repository, &tag, &signature),
            };
            let order = if waits {
                ["image", "signature"]
            } else {
                ["signature", "image"]
            };
            // Nothing but signatures passes for one.
            server.push_blobs(repository, &signature);
            if !waits {
                server
                    .put_manifest(repository, "latest", &signature)
                    .refuses(403, "DENIED");
            }
            for what in order {
                let answer = publish(what);
                assert_eq!(answer.status, 201, "{repository} {what}: {answer:?}");
            }
            let served = server.get(&format!("/v2/{repository}/manifests/v1"));
            assert_eq!(gantry_testkit::image::digest(&served.body), image.digest());
            assert!(server.sees(repository, "v1", &image));
        }
    }
    assert_sound(&server.store);
}

/// An index of two images, as a builder pushes it.
fn two_platforms(text: &str) -> (Image, [Image; 2]) {
    let members = ["one", "two"].map(|name| small_image(&format!("{text} {name}")));
    let entries: Vec<Value> = members
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(image, architecture)| {
            let mut entry = image.entry();
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    (Image::index(&members, &entries), members)
}

#[test]
fn an_index_is_admitted_itself_or_by_all_its_members() {
    let (dir, world) = world!();
    let root = root(&dir);
    let server = world.server(&root);
    let push = |repository: &str, index: &Image, members: &[Image]| -> Vec<u16> {
        let mut answers: Vec<u16> = members
            .iter()
            .map(|member| server.push(repository, &member.digest(), member).status)
            .collect();
        answers.push(server.put_manifest(repository, "v1", index).status);
        answers
    };
    let sign = |repository: &str, image: &Image| {
        let signature = world.sign(0, &format!("{repository}:v1"), &image.digest());
        let answer = server.put_signature(repository, &image.digest(), &signature);
        assert_eq!(answer.status, 201, "{answer:?}");
    };
    // Staged: only the index is signed, and its members come with it.
    let (index, members) = two_platforms("a");
    assert_eq!(push("staged/a", &index, &members), [201, 201, 201]);
    assert_eq!(waiting(&root), ["staged/a@", "staged/a@", "staged/a:v1"]);
    sign("staged/a", &index);
    assert_eq!(waiting(&root), [""; 0]);
    assert!(server.sees("staged/a", "v1", &index));
    for member in &members {
        let path = format!("/v2/staged/a/manifests/{}", member.digest());
        assert_eq!(server.get(&path).status, 200);
    }
    // Staged: only the members are; the last of them publishes the index.
    let (index, members) = two_platforms("b");
    assert_eq!(push("staged/b", &index, &members), [201, 201, 201]);
    sign("staged/b", &members[0]);
    assert_eq!(waiting(&root), ["staged/b@", "staged/b:v1"]);
    assert!(!server.sees("staged/b", "v1", &index));
    sign("staged/b", &members[1]);
    assert_eq!(waiting(&root), [""; 0]);
    assert!(server.sees("staged/b", "v1", &index));
    // Enforced: a member must be signed when it comes.
    let (index, members) = two_platforms("c");
    sign("strict/c", &index);
    assert_eq!(push("strict/c", &index, &members), [403, 403, 404]);
    for member in &members {
        sign("strict/c", member);
    }
    assert_eq!(push("strict/c", &index, &members), [201, 201, 201]);
    assert!(server.sees("strict/c", "v1", &index));
    // Enforced: an index that is not signed itself, by its members.
    let (index, members) = two_platforms("d");
    for member in &members {
        sign("strict/d", member);
    }
    assert_eq!(push("strict/d", &index, &members), [201, 201, 201]);
    assert_sound(&server.store);
}

#[test]
fn what_waits_is_bounded_and_ends() {
    let (dir, world) = world!();
    let root = root(&dir);
    let tight = |age| GateOptions {
        waiting: WaitingLimits {
            per_repository: 2,
            in_all: 3,
            age,
        },
        ..options()
    };
    let week = Duration::from_secs(7 * 86_400);
    {
        let server = world.server_with(&root, tight(week), None);
        for (repository, tag, status) in [
            ("staged/a", "v1", 201),
            ("staged/a", "v2", 201),
            ("staged/a", "v3", 429),
            ("staged/a", "v2", 201),
            ("staged/b", "v1", 201),
            ("staged/c", "v1", 429),
        ] {
            let image = small_image(&format!("{repository} {tag}"));
            let answer = server.push(repository, tag, &image);
            assert_eq!(answer.status, status, "{repository}:{tag} {answer:?}");
        }
        // So are signatures of what never comes.
        for (number, status) in [(1, 201), (2, 201), (3, 429), (2, 201)] {
            let digest = digest(format!("{number}").as_bytes());
            let signature = world.sign(0, "staged/d:v1", &digest);
            let answer = server.put_signature("staged/d", &digest, &signature);
            assert_eq!(answer.status, status, "{number}: {answer:?}");
        }
        assert_eq!(waiting(&root).len(), 3);
    }
    let server = world.server_with(&root, tight(Duration::ZERO), None);
    wait_until("the sweep", || waiting(&root).is_empty());
    let left = || -> usize {
        let repositories = std::fs::read_dir(root.join("registry/waiting")).unwrap();
        let manifests = repositories.map(|one| one.unwrap().path().join("manifests"));
        manifests
            .map(|dir| std::fs::read_dir(dir).unwrap().count())
            .sum()
    };
    wait_until("the sweep of manifests", || left() == 0);
    let signed = root.join("registry/repos/staged+d/signatures");
    wait_until("the sweep of signatures", || {
        std::fs::read_dir(&signed).unwrap().count() == 0
    });
    drop(server);
    // A repository that lets nothing wait any more publishes nothing of what did.
    let server = world.server_with(&root, tight(week), None);
    let image = small_image("late");
    assert_eq!(server.push("staged/a", "v1", &image).status, 201);
    drop(server);
    let mut off = tight(week);
    off.rules.repositories.clear();
    off.rules.default = PushPolicy::Off;
    let server = world.server_with(&root, off, None);
    let signature = world.sign(0, "staged/a:v1", &image.digest());
    server.put_signature("staged/a", &image.digest(), &signature);
    wait_until("the look", || {
        list_waiting(&root).unwrap()[0]
            .reason
            .contains("push it again")
    });
    assert!(!server.sees("staged/a", "v1", &image));
}

#[test]
fn an_image_that_cannot_be_unpacked_is_told_to_who_signs_it() {
    let (dir, world) = world!();
    let root = root(&dir);
    let server = world.server(&root);
    let before = seen(&root);
    // The layer is not what the configuration says.
    let layer = Layer::gzip(&tar::join(&[tar::file("a", "one")]));
    let other = Layer::gzip(&tar::join(&[tar::file("a", "two")]));
    let config = gantry_testkit::image::config(&[other]);
    let image = Image::with_config(&[layer], &config);
    assert_eq!(server.push("staged/app", "v1", &image).status, 201);
    let signature = world.sign(0, "staged/app:v1", &image.digest());
    let message = server
        .put_signature("staged/app", &image.digest(), &signature)
        .refuses(400, "MANIFEST_INVALID");
    let reason = &list_waiting(&root).unwrap()[0].reason;
    assert_eq!(*reason, message);
    assert!(!server.sees("staged/app", "v1", &image));
    let mut after = seen(&root);
    after.retain(|path| !path.starts_with("registry/waiting"));
    assert_eq!(after, before);
}

#[test]
fn the_extension_takes_signatures_and_nothing_else() {
    let (dir, world) = world!();
    let server = world.server(&root(&dir));
    let image = small_image("one");
    assert_eq!(server.push("free/app", "v1", &image).status, 201);
    let digest = image.digest();
    let good = world.sign(0, "free/app:v1", &digest);
    let changed = |member: &str, value: Value| {
        let mut body = wire(&digest, &good);
        body[member] = value;
        body
    };
    let missing = |member: &str| {
        let mut body = wire(&digest, &good);
        body.as_object_mut().unwrap().remove(member);
        body
    };
    for body in [
        changed("schemaVersion", json!(1)),
        changed("schemaVersion", json!("2")),
        changed("type", json!("other")),
        changed("name", json!("x")),
        changed("name", json!(format!("{NAME}@{digest}"))),
        changed(
            "name",
            json!(format!("sha256:{}@{}", "0".repeat(64), "0".repeat(32))),
        ),
        changed("content", json!("%%")),
        changed("content", json!("")),
        changed("content", json!("dGV4dA==")),
        missing("schemaVersion"),
        missing("name"),
        missing("type"),
        missing("content"),
        json!([]),
    ] {
        let answer = server.put_wire("free/app", &digest, &body);
        answer.refuses(400, "MANIFEST_INVALID");
    }
    let path = format!("/extensions/v2/free/app/signatures/{digest}");
    server
        .send("PUT", &path, &[], b"")
        .refuses(400, "MANIFEST_INVALID");
    server
        .send("POST", &path, &[], b"")
        .refuses(405, "UNSUPPORTED");
    server.delete(&path).refuses(405, "UNSUPPORTED");
    let wrong = "/extensions/v2/free/app/signatures/sha256:0";
    server.get(wrong).refuses(400, "DIGEST_INVALID");
    server
        .get("/extensions/v2/A/signatures/x")
        .refuses(400, "NAME_INVALID");
    assert_eq!(server.signatures("free/app", &digest), 0);
    server
        .put_signature("deaf/app", &digest, &good)
        .refuses(405, "UNSUPPORTED");
    // Once is once, also under another name; another signature of the same bytes is another.
    for _ in 0..2 {
        assert_eq!(server.put_signature("free/app", &digest, &good).status, 201);
    }
    let renamed = changed("name", json!(format!("{digest}@{}", "f".repeat(32))));
    assert_eq!(server.put_wire("free/app", &digest, &renamed).status, 201);
    assert_eq!(server.signatures("free/app", &digest), 1);
    let answer = server.get(&path).json();
    let given = &answer["signatures"][0];
    assert_eq!(given["content"], wire(&digest, &good)["content"]);
    assert_eq!(
        (&given["schemaVersion"], &given["type"]),
        (&json!(2), &json!("atomic"))
    );
    assert!(
        given["name"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{digest}@"))
    );
    assert_eq!(
        server.get("/v2/").header("x-registry-supports-signatures"),
        Some("1")
    );
}

#[test]
fn who_fills_one_repository_takes_no_place_in_another() {
    let (dir, world) = world!();
    let server = world.server(&root(&dir));
    let image = small_image("one");
    let digest = image.digest();
    for repository in ["evil/app", "free/app"] {
        assert_eq!(server.push(repository, "v1", &image).status, 201);
    }
    // What they say is judged by who reads them.
    let mut full = None;
    for number in 0..140 {
        let signature = world.sign(1, &format!("evil/app:v{number}"), &digest);
        let answer = server.put_signature("evil/app", &digest, &signature);
        if answer.status != 201 {
            full = Some((number, answer.refuses(400, "SIZE_INVALID")));
            break;
        }
    }
    let (number, _) = full.expect("there is a cap");
    assert_eq!(number, 128);
    assert_eq!(server.signatures("free/app", &digest), 0);
    let own = world.sign(0, "free/app:v1", &digest);
    assert_eq!(server.put_signature("free/app", &digest, &own).status, 201);
    assert_eq!(server.signatures("free/app", &digest), 1);
    // Hosts that start it by that name read what was pushed there; who knows no name reads of each in turn.
    let digest: ManifestDigest = digest.parse().unwrap();
    let named = server
        .store
        .signatures_of(&digest, &"free/app".parse().unwrap())
        .unwrap();
    assert_eq!(
        named.iter().map(|one| &one.bytes[..]).collect::<Vec<_>>(),
        [&own[..]]
    );
    let all = server.store.signatures(&digest).unwrap();
    assert_eq!(all.len(), 128);
    assert!(all.iter().any(|one| one.bytes[..] == own[..]));
    assert_sound(&server.store);
}
