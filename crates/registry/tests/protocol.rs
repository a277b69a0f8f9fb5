// SPDX-License-Identifier: Apache-2.0
//! The distribution protocol, request by request, against a server in this process.
//!
//! # Source
//! distribution-spec v1.1.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::*;
use gantry_oci::{Algorithm, Digest};
use gantry_registry::{ClientLimits, Tls};
use gantry_testkit::image::{self, CONFIG, Image, Layer, MANIFEST, descriptor, digest};
use gantry_testkit::scratch::scratch;
use gantry_testkit::{skip, tar, tool};
use serde_json::json;

const NOWHERE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn base_and_catalogue() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    assert_eq!(server.get("/v2/").status, 200);
    assert_eq!(server.head("/v2/").status, 200);
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!([]));
    // Blobs alone make no repository that others see.
    server.push_blob("c", b"blob");
    server.push("b/two", "v1", &small_image("x"));
    server.push("a", "v1", &small_image("x"));
    assert_eq!(
        server.get("/v2/_catalog?n=1").json()["repositories"],
        json!(["a"])
    );
    assert_eq!(
        server.get("/v2/_catalog?n=5&last=a").json()["repositories"],
        json!(["b/two"])
    );
    assert_eq!(server.get("/").status, 404);
    server
        .send("PATCH", "/v2/", &[], b"")
        .refuses(405, "UNSUPPORTED");
}

#[test]
fn blob_in_one_piece() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    let blob = b"some bytes".as_slice();
    let path = format!("/v2/team/app/blobs/{}", digest(blob));
    server.get(&path).refuses(404, "BLOB_UNKNOWN");
    assert_eq!(server.head(&path).status, 404);
    let answer = server.push_blob("team/app", blob);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), Some(path.as_str()));
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(digest(blob).as_str())
    );

    let answer = server.get(&path);
    assert_eq!((answer.status, answer.body.as_slice()), (200, blob));
    let etag = format!("\"{}\"", digest(blob));
    for (name, value) in [
        ("content-length", "10"),
        ("content-type", "application/octet-stream"),
        ("docker-content-digest", digest(blob).as_str()),
        ("accept-ranges", "bytes"),
        ("etag", etag.as_str()),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
        assert_eq!(server.head(&path).header(name), Some(value), "HEAD: {name}");
    }
    // Whole by POST alone, and the empty blob.
    for blob in [b"other".as_slice(), b""] {
        let path = format!("/v2/team/app/blobs/uploads/?digest={}", digest(blob));
        assert_eq!(server.send("POST", &path, &[], blob).status, 201);
        let path = format!("/v2/team/app/blobs/{}", digest(blob));
        assert_eq!(server.get(&path).body, blob);
    }
}

#[test]
fn ranges_of_a_blob() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    let blob: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
    server.push_blob("a", &blob);
    let path = format!("/v2/a/blobs/{}", digest(&blob));
    let get = |range: &str| server.send("GET", &path, &[("Range", range)], b"");
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, blob.len()),
        ("bytes=-7", blob.len() - 7, blob.len()),
        ("bytes=300000-2000000", 300_000, 2_000_001),
        ("bytes=9-99999999", 9, blob.len()),
    ] {
        let answer = get(range);
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == blob[from..to], "{range}");
        let wanted = format!("bytes {from}-{}/{}", to - 1, blob.len());
        assert_eq!(answer.header("content-range"), Some(wanted.as_str()));
    }
    let outside = get("bytes=99999999-");
    assert_eq!(outside.status, 416);
    assert_eq!(
        outside.header("content-range"),
        Some(format!("bytes */{}", blob.len()).as_str())
    );
    // Several ranges are answered with the whole, as RFC 9110 allows.
    assert_eq!(get("bytes=0-1,3-4").status, 200);
}

#[test]
fn blob_in_chunks_that_is_resumed() {
    let dir = scratch();
    let root = dir.join("store");
    let blob: Vec<u8> = (0..90_u8).collect();
    let location = {
        let server = Server::start(&root);
        let location = server.start_upload("a/b");
        let patch = |range: &str, part: &[u8]| {
            server.send("PATCH", &location, &[("Content-Range", range)], part)
        };
        let answer = patch("0-29", &blob[..30]);
        assert_eq!((answer.status, answer.header("range")), (202, Some("0-29")));
        assert_eq!(answer.header("location"), Some(location.as_str()));
        // Out of order, before and behind; nonsense; a range that the body contradicts.
        for range in ["0-29", "31-60", "60-89", "x", "40-30", "30-"] {
            let answer = patch(range, &blob[30..60]);
            answer.refuses(416, "BLOB_UPLOAD_INVALID");
        }
        patch("30-60", &blob[30..60]).refuses(400, "SIZE_INVALID");
        let status = server.get(&location);
        assert_eq!((status.status, status.header("range")), (204, Some("0-29")));
        // Without a range the bytes go to the end.
        let answer = server.send("PATCH", &location, &[], &blob[30..60]);
        assert_eq!(answer.header("range"), Some("0-59"));
        location
    };
    // Another process goes on.
    let server = Server::start(&root);
    assert_eq!(server.get(&location).header("range"), Some("0-59"));
    let end = format!("{location}?digest={}", digest(&blob));
    let answer = server.send("PUT", &end, &[("Content-Range", "60-89")], &blob[60..]);
    assert_eq!(answer.status, 201, "{answer:?}");
    let path = format!("/v2/a/b/blobs/{}", digest(&blob));
    assert_eq!(server.get(&path).body, blob);
    server.get(&location).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(uploads(&root), 0);
}

/// Files of unfinished uploads.
fn uploads(root: &std::path::Path) -> usize {
    std::fs::read_dir(root.join("registry/uploads"))
        .unwrap()
        .count()
}

#[test]
fn uploads_that_come_to_nothing_leave_nothing() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    // Cancelled.
    let location = server.start_upload("a");
    server.send("PATCH", &location, &[], b"bytes");
    assert_eq!(server.delete(&location).status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = server.send(method, &location, &[], b"");
        answer.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    }
    // Other bytes than their digest says.
    let end = format!("{}?digest={NOWHERE}", server.start_upload("a"));
    let message = server
        .send("PUT", &end, &[], b"x")
        .refuses(400, "DIGEST_INVALID");
    assert!(message.contains(&digest(b"x")), "{message}");
    let post = format!("/v2/a/blobs/uploads/?digest={NOWHERE}");
    server
        .send("POST", &post, &[], b"x")
        .refuses(400, "DIGEST_INVALID");
    server
        .get(&format!("/v2/a/blobs/{NOWHERE}"))
        .refuses(404, "BLOB_UNKNOWN");
    assert_eq!(uploads(&root), 0);
    // No digest, or none that can be one: the upload goes on.
    let location = server.start_upload("a");
    server
        .send("PUT", &location, &[], b"")
        .refuses(400, "DIGEST_INVALID");
    for bad in ["sha256:../../x", "md5:00", "x"] {
        let end = format!("{location}?digest={bad}");
        server
            .send("PUT", &end, &[], b"")
            .refuses(400, "DIGEST_INVALID");
    }
    assert_eq!(server.get(&location).status, 204);
    // Named badly.
    server
        .get("/v2/a/blobs/uploads/0123")
        .refuses(404, "BLOB_UPLOAD_UNKNOWN");
    server
        .send("POST", "/v2/UPPER/blobs/uploads/", &[], b"")
        .refuses(400, "NAME_INVALID");
}

#[test]
fn upload_that_ended_takes_no_more_bytes() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    let location = server.start_upload("a");
    let blob = b"the blob";
    // One request has the upload while a second waits for it.
    let mut first = server.connect();
    let end = format!("{location}?digest={}", digest(blob));
    first.begin("PUT", &end, &[("Content-Length", "8")]);
    first.write(&blob[..4]);
    let mut second = server.connect();
    second.begin("PATCH", &location, &[("Content-Length", "4")]);
    second.write(b"evil");
    // Whether it waits by now or comes later: it must not write to what became a blob.
    first.write(&blob[4..]);
    let outcomes = [
        first.answer("PUT").unwrap().status,
        second.answer("PATCH").unwrap().status,
    ];
    assert!(matches!(outcomes, [201, 404] | [400, 202]), "{outcomes:?}");
    let stored = server.get(&format!("/v2/a/blobs/{}", digest(blob)));
    assert!(stored.status == 404 || stored.body == blob);
}

#[test]
fn clients_that_stall_or_leave_are_let_go() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::with(&root, None, |registry| {
        registry.with_clients(ClientLimits {
            idle: Duration::from_millis(300),
            uploads: 3,
            connections: 4,
            ..ClientLimits::default()
        })
    });
    // In the middle of a chunk: what arrived stays, and the next request goes on.
    let location = server.start_upload("a");
    let mut stalled = server.connect();
    stalled.begin("PATCH", &location, &[("Content-Length", "100")]);
    stalled.write(b"0123456789");
    let answer = stalled.answer("PATCH").unwrap();
    answer.refuses(408, "BLOB_UPLOAD_INVALID");
    assert_eq!(server.get(&location).header("range"), Some("0-9"));
    // In the middle of a manifest; of a head; before a head: all four connections are free again.
    let mut manifest = server.connect();
    manifest.begin("PUT", "/v2/a/manifests/v1", &[("Content-Length", "100")]);
    let mut head = server.connect();
    head.write(b"GET /v2/ HTTP/1.1\r\nHost: te");
    let mut mute = server.connect();
    manifest
        .answer("PUT")
        .unwrap()
        .refuses(408, "MANIFEST_INVALID");
    assert!(
        head.answer("GET")
            .map_or(true, |answer| answer.status == 408)
    );
    assert!(
        mute.answer("GET")
            .map_or(true, |answer| answer.status == 408)
    );
    // One who leaves in the middle of a blob that nobody else knows.
    let post = format!("/v2/a/blobs/uploads/?digest={}", digest(b"0123456789"));
    let mut left = server.connect();
    left.begin("POST", &post, &[("Content-Length", "10")]);
    left.write(b"01234");
    left.shut();
    // Gone before the answer, if there is one.
    drop(left.answer("POST"));
    // Uploads in progress are counted; ending some makes room.
    let more = [server.start_upload("a"), server.start_upload("a")];
    let answer = server.send("POST", "/v2/a/blobs/uploads/", &[], b"");
    answer.refuses(429, "TOOMANYREQUESTS");
    for location in &more {
        assert_eq!(server.delete(location).status, 204);
    }
    server.start_upload("a");
    assert_eq!(uploads(&root), 2);
}

#[test]
fn manifests_that_arrive_share_a_bound() {
    let dir = scratch();
    let image = small_image("x");
    let server = Server::with(&dir.join("store"), None, |registry| {
        registry.with_clients(ClientLimits {
            manifest_bytes: image.manifest.len() as u64,
            ..ClientLimits::default()
        })
    });
    let large = Image {
        manifest: vec![b' '; image.manifest.len() + 1],
        ..image.clone()
    };
    for _ in 0..2 {
        server
            .put_manifest("a", "v1", &large)
            .refuses(429, "TOOMANYREQUESTS");
        // What was counted was given back.
        assert_eq!(server.push("a", "v1", &image).status, 201);
    }
}

#[test]
fn blob_of_another_repository_is_mounted_and_never_leaks() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    let blob = b"of the team";
    server.push_blob("team/secret", blob);
    let named = |from: &str| format!("/v2/other/blobs/uploads/?mount={}{from}", digest(blob));
    // Without the name of a repository that has it the digest opens nothing.
    for from in [
        "",
        "&from=",
        "&from=team/none",
        "&from=../team/secret",
        "&from=other",
    ] {
        let answer = server.send("POST", &named(from), &[], b"");
        assert_eq!(answer.status, 202, "{from}");
        assert_eq!(
            server.delete(answer.header("location").unwrap()).status,
            204
        );
        let path = format!("/v2/other/blobs/{}", digest(blob));
        server.get(&path).refuses(404, "BLOB_UNKNOWN");
    }
    let path = format!("/v2/other/blobs/uploads/?mount={NOWHERE}&from=team/secret");
    assert_eq!(server.send("POST", &path, &[], b"").status, 202);
    let answer = server.send("POST", &named("&from=team/secret"), &[], b"");
    let path = format!("/v2/other/blobs/{}", digest(blob));
    assert_eq!(
        (answer.status, answer.header("location")),
        (201, Some(path.as_str()))
    );
    assert_eq!(server.get(&path).body, blob);
    // Each repository has its own hold on it.
    assert_eq!(server.delete(&path).status, 202);
    server.get(&path).refuses(404, "BLOB_UNKNOWN");
    server.delete(&path).refuses(404, "BLOB_UNKNOWN");
    let path = format!("/v2/team/secret/blobs/{}", digest(blob));
    assert_eq!(server.get(&path).status, 200);
}

#[test]
fn manifest_by_tag_and_by_digest() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let image = small_image("one");
    let by_digest = format!("/v2/team/app/manifests/{}", image.digest());
    server
        .get("/v2/team/app/manifests/v1")
        .refuses(404, "MANIFEST_UNKNOWN");
    server.get(&by_digest).refuses(404, "MANIFEST_UNKNOWN");
    let answer = server.push("team/app", "v1", &image);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("location"), Some(by_digest.as_str()));
    for path in ["/v2/team/app/manifests/v1", &by_digest] {
        let answer = server.get(path);
        assert_eq!((answer.status, &answer.body), (200, &image.manifest));
        let length = image.manifest.len().to_string();
        for (name, value) in [
            ("content-type", MANIFEST),
            ("content-length", &length),
            ("docker-content-digest", &image.digest()),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
            assert_eq!(server.head(path).header(name), Some(value), "HEAD: {name}");
        }
    }
    // The tree.
    let link = std::fs::read_link(root.join("images/team/app/v1")).unwrap();
    assert!(
        link.ends_with(format!("digests/{}", image.digest())),
        "{link:?}"
    );
    if skip::is_root() {
        let text = root.join("images/team/app/v1/rootfs/etc/text");
        assert_eq!(std::fs::read_to_string(text).unwrap(), "one");
    }
    // Not in another repository, even by digest.
    let other = format!("/v2/team/other/manifests/{}", image.digest());
    server.get(&other).refuses(404, "MANIFEST_UNKNOWN");

    // A second push moves the link; the former stays, by digest and in the tree.
    let second = small_image("two");
    assert_eq!(server.push("team/app", "v1", &second).status, 201);
    let link = std::fs::read_link(root.join("images/team/app/v1")).unwrap();
    assert!(
        link.ends_with(format!("digests/{}", second.digest())),
        "{link:?}"
    );
    assert_eq!(server.get(&by_digest).body, image.manifest);
    assert!(root.join("digests").join(image.digest()).is_dir());
    assert_sound(&server.store);
}

#[test]
fn manifest_that_is_pushed_by_the_wrong_digest_or_without_its_blobs() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let before = visible(&root);
    let image = small_image("x");
    server
        .put_manifest("a", "v1", &image)
        .refuses(404, "MANIFEST_BLOB_UNKNOWN");
    server.push_blobs("b", &image);
    // What another repository has does not count.
    server
        .put_manifest("a", "v1", &image)
        .refuses(404, "MANIFEST_BLOB_UNKNOWN");
    server.push_blobs("a", &image);
    server
        .put_manifest("a", NOWHERE, &image)
        .refuses(400, "DIGEST_INVALID");
    server
        .put_manifest("a", "sha256:x", &image)
        .refuses(400, "DIGEST_INVALID");
    server
        .put_manifest("a", "-x", &image)
        .refuses(404, "MANIFEST_INVALID");
    server
        .put_manifest("A", "x", &image)
        .refuses(400, "NAME_INVALID");
    // A wrong size.
    let wrong = String::from_utf8(image.manifest.clone()).unwrap();
    let wrong = Image {
        manifest: wrong.replacen("\"size\":", "\"size\":1", 1).into(),
        ..image.clone()
    };
    server
        .put_manifest("a", "v1", &wrong)
        .refuses(400, "SIZE_INVALID");
    // Too large to be one.
    let large = Image {
        manifest: vec![b' '; (4 << 20) + 1],
        ..image.clone()
    };
    server
        .put_manifest("a", "v1", &large)
        .refuses(413, "SIZE_INVALID");
    assert_eq!(visible(&root), before);
    assert_eq!(staged(&root), 0);
    assert_eq!(
        server.put_manifest("a", &image.digest(), &image).status,
        201
    );
    assert_eq!(server.get("/v2/a/tags/list").json()["tags"], json!([]));
}

#[test]
fn image_whose_layers_lie_is_refused_and_leaves_nothing() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let tar = tar::join(&[tar::file("a", [b'a'; 3000])]);
    let good = Layer::gzip(&tar);
    let other = Layer::gzip(&tar::join(&[tar::file("a", [b'b'; 3000])]));
    let lying = Layer {
        diff_id: good.diff_id.clone(),
        ..other.clone()
    };
    let before = visible(&root);
    let answer = server.push("a", "v1", &Image::new(std::slice::from_ref(&lying)));
    let message = answer.refuses(400, "MANIFEST_INVALID");
    assert!(message.contains(&good.diff_id), "{message}");
    assert_eq!(visible(&root), before);
    // The same while the store has the layer that it claims to be.
    assert_eq!(server.push("b", "v1", &Image::new(&[good])).status, 201);
    let before = visible(&root);
    let answer = server.push("a", "v1", &Image::new(&[lying]));
    let message = answer.refuses(400, "MANIFEST_INVALID");
    assert!(message.contains(&other.diff_id), "{message}");
    assert_eq!(visible(&root), before);
    assert_eq!(staged(&root), 0);
    // Kept as it came where the rules say so, and without a tree.
    let lying = small_image("x");
    let unusable = Image::with_config(&[other], b"{}");
    for (tag, image) in [("v1", &lying), ("v2", &unusable)] {
        assert_eq!(server.push("kept/a", tag, image).status, 201);
        assert!(!root.join("images/kept").exists());
        let path = format!("/v2/kept/a/manifests/{tag}");
        assert_eq!(server.get(&path).body, image.manifest);
    }
    assert_eq!(
        server.get("/v2/kept/a/tags/list").json()["tags"],
        json!(["v1", "v2"])
    );
}

#[test]
fn other_compressions_types_and_digests() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let tar = |text: &str| tar::join(&[tar::file("a", text)]);
    for (tag, image) in [
        ("gzip", Image::new(&[Layer::gzip(&tar("1"))])),
        ("zstd", Image::new(&[Layer::zstd(&tar("2"))])),
        ("plain", Image::new(&[Layer::plain(tar("3"))])),
        ("docker", Image::docker(&[Layer::gzip(&tar("4"))])),
        ("none", Image::new(&[])),
    ] {
        let answer = server.push("a", tag, &image);
        assert_eq!(answer.status, 201, "{tag}: {answer:?}");
        let answer = server.get(&format!("/v2/a/manifests/{tag}"));
        assert_eq!(
            answer.header("content-type"),
            Some(image.media_type.as_str())
        );
        assert!(root.join("images/a").join(tag).is_symlink(), "{tag}");
    }
    // SHA-512, for a blob and for a manifest.
    let digest_512 = |bytes: &[u8]| Digest::of(Algorithm::Sha512, bytes).to_string();
    let blob = b"strong";
    let post = format!("/v2/a/blobs/uploads/?digest={}", digest_512(blob));
    assert_eq!(server.send("POST", &post, &[], blob).status, 201);
    assert_eq!(
        server
            .get(&format!("/v2/a/blobs/{}", digest_512(blob)))
            .body,
        blob
    );
    let image = small_image("512");
    server.push_blobs("a", &image);
    let name = digest_512(&image.manifest);
    let answer = server.put_manifest("a", &name, &image);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), Some(name.as_str()));
    assert_eq!(
        server.get(&format!("/v2/a/manifests/{name}")).body,
        image.manifest
    );
    assert_sound(&server.store);
}

#[test]
fn indexes_name_what_the_repository_has() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let image = small_image("x");
    let index = Image::index(std::slice::from_ref(&image), &[image.entry()]);
    server
        .put_manifest("a", "v1", &index)
        .refuses(404, "MANIFEST_BLOB_UNKNOWN");
    server.push_blobs("a", &image);
    assert_eq!(
        server.put_manifest("a", &image.digest(), &image).status,
        201
    );
    assert_eq!(server.put_manifest("a", "v1", &index).status, 201);
    let answer = server.get("/v2/a/manifests/v1");
    assert_eq!(answer.header("content-type"), Some(image::INDEX));
    assert_eq!(answer.body, index.manifest);
    if skip::is_root() {
        let text = std::fs::read_to_string(root.join("images/a/v1/rootfs/etc/text")).unwrap();
        assert_eq!(text, "x");
    }
    assert_sound(&server.store);
}

#[test]
fn tags_come_in_pages() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    server.get("/v2/a/tags/list").refuses(404, "NAME_UNKNOWN");
    let image = small_image("x");
    server.push_blobs("a", &image);
    for tag in ["c", "a", "B", "d"] {
        assert_eq!(server.put_manifest("a", tag, &image).status, 201);
    }
    let all = server.get("/v2/a/tags/list");
    assert_eq!(
        all.json(),
        json!({"name": "a", "tags": ["B", "a", "c", "d"]})
    );
    assert_eq!(all.header("link"), None);
    let mut seen = Vec::new();
    let mut next = Some("/v2/a/tags/list?n=2".to_owned());
    while let Some(path) = next {
        let answer = server.get(&path);
        seen.extend(answer.json()["tags"].as_array().unwrap().clone());
        next = answer.header("link").map(|link| {
            let (path, rest) = link.trim_start_matches('<').split_once('>').unwrap();
            assert_eq!(rest, "; rel=\"next\"");
            path.to_owned()
        });
    }
    assert_eq!(seen, ["B", "a", "c", "d"]);
    assert_eq!(server.get("/v2/a/tags/list?n=0").json()["tags"], json!([]));
    assert_eq!(server.get("/v2/a/tags/list?n=x").status, 400);
    // A repository below another is none of its tags.
    assert_eq!(server.push("a/e", "v1", &image).status, 201);
    assert_eq!(
        server.get("/v2/a/tags/list?last=c").json()["tags"],
        json!(["d"])
    );
}

#[test]
fn tags_and_manifests_are_deleted() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let image = small_image("x");
    server.push("a", "one", &image);
    server.push("a", "two", &image);
    assert_eq!(server.delete("/v2/a/manifests/one").status, 202);
    server
        .delete("/v2/a/manifests/one")
        .refuses(404, "MANIFEST_UNKNOWN");
    server
        .get("/v2/a/manifests/one")
        .refuses(404, "MANIFEST_UNKNOWN");
    assert!(!root.join("images/a/one").exists());
    assert_eq!(server.get("/v2/a/manifests/two").status, 200);
    let path = format!("/v2/a/manifests/{}", image.digest());
    assert_eq!(server.delete(&path).status, 202);
    server.delete(&path).refuses(404, "MANIFEST_UNKNOWN");
    server
        .get("/v2/a/manifests/two")
        .refuses(404, "MANIFEST_UNKNOWN");
    assert_eq!(server.get("/v2/a/tags/list").json()["tags"], json!([]));
    assert!(!root.join("images/a/two").is_symlink());
    assert_eq!(server.push("a", "two", &image).status, 201);
    assert_sound(&server.store);
}

#[test]
fn referrers_of_a_manifest() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    let subject = small_image("subject");
    let list = |query: &str| {
        let answer = server.get(&format!("/v2/a/referrers/{}{query}", subject.digest()));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(image::INDEX));
        (
            answer.header("oci-filters-applied").map(str::to_owned),
            answer.json()["manifests"].clone(),
        )
    };
    assert_eq!(list(""), (None, json!([])));
    let empty = b"{}".as_slice();
    let artifact = |kind: &str| {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": descriptor("application/vnd.oci.empty.v1+json", empty),
            "layers": [descriptor("application/vnd.oci.empty.v1+json", empty)],
            "subject": descriptor(MANIFEST, &subject.manifest),
            "annotations": {"by": "test"},
        });
        Image {
            manifest: manifest.to_string().into(),
            media_type: MANIFEST.to_owned(),
            blobs: vec![empty.to_vec()],
            children: Vec::new(),
        }
    };
    let (sbom, signature) = (
        artifact("application/sbom"),
        artifact("application/signature"),
    );
    for image in [&sbom, &signature] {
        server.push_blobs("a", image);
        let answer = server.put_manifest("a", &image.digest(), image);
        assert_eq!(answer.status, 201);
        assert_eq!(
            answer.header("oci-subject"),
            Some(subject.digest().as_str())
        );
    }
    let (filters, all) = list("");
    assert_eq!((filters, all.as_array().unwrap().len()), (None, 2));
    let (filters, one) = list("?artifactType=application/sbom");
    assert_eq!(filters.as_deref(), Some("artifactType"));
    assert_eq!(one[0]["digest"], json!(sbom.digest()));
    assert_eq!(one[0]["artifactType"], json!("application/sbom"));
    assert_eq!(one[0]["annotations"]["by"], json!("test"));
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(
        server
            .delete(&format!("/v2/a/manifests/{}", sbom.digest()))
            .status,
        202
    );
    assert_eq!(list("").1.as_array().unwrap().len(), 1);
    let other = server.get(&format!("/v2/b/referrers/{}", subject.digest()));
    assert_eq!(other.json()["manifests"], json!([]));
    server
        .get("/v2/a/referrers/sha256:x")
        .refuses(400, "DIGEST_INVALID");
}

#[test]
fn sparse_files_stay_sparse() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let size = 256_u64 << 20;
    let records = [
        ("GNU.sparse.size", size.to_string()),
        ("GNU.sparse.map", format!("100000,4,{},0", size)),
    ];
    // The second has an inode of its own in the hard-link face.
    let tar = tar::join(&[
        tar::pax(&records),
        tar::file("disk", "data"),
        tar::pax(&records),
        tar::owner(tar::file("other", "data"), 1, 1),
    ]);
    assert_eq!(
        server
            .push("a", "v1", &Image::new(&[Layer::gzip(&tar)]))
            .status,
        201
    );
    let mut allocated = 0;
    let fans = ["objects", "variants"].map(|name| std::fs::read_dir(root.join(name)));
    for fan in fans.into_iter().flatten().flatten() {
        for object in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            let object = object.unwrap();
            let metadata = object.metadata().unwrap();
            assert_eq!(metadata.len(), size);
            allocated += metadata.blocks() * 512;
            let bytes = std::fs::read(object.path()).unwrap();
            assert_eq!(&bytes[99_999..100_005], b"\0data\0");
        }
    }
    assert!(allocated < 1 << 20, "{allocated} bytes on disk");
    assert_sound(&server.store);
}

#[test]
fn two_pushes_of_one_image_at_once() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let images: Vec<Image> = (0..4)
        .map(|number| small_image(&format!("image {}", number / 2)))
        .collect();
    std::thread::scope(|scope| {
        for (number, image) in images.iter().enumerate() {
            let server = &server;
            scope.spawn(move || {
                for round in 0..5 {
                    let tag = format!("v{round}");
                    let answer = server.push(&format!("team/app{}", number % 2), &tag, image);
                    assert_eq!(answer.status, 201, "{answer:?}");
                }
            });
        }
    });
    for tag in ["team/app0/v0", "team/app1/v4"] {
        assert!(
            root.join("images")
                .join(tag)
                .join("manifest.json")
                .is_file()
        );
    }
    assert_eq!((uploads(&root), staged(&root)), (0, 0));
    assert_sound(&server.store);
}

#[test]
fn tag_and_repository_that_would_need_one_place() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    let image = small_image("x");
    assert_eq!(server.push("a", "b", &image).status, 201);
    server.push("a/b", "c", &image).refuses(403, "DENIED");
    assert_eq!(server.push("c/d", "e", &image).status, 201);
    server.push("c", "d", &image).refuses(403, "DENIED");
}

#[test]
fn names_of_any_length_that_the_grammar_allows() {
    let dir = scratch();
    let server = Server::start(&dir.join("store"));
    let image = small_image("x");
    let deep = format!("{}a", "a/".repeat(127));
    let tag = "t".repeat(128);
    let wide = "n".repeat(255);
    for name in [deep.as_str(), wide.as_str()] {
        let answer = server.push(name, &tag, &image);
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(
            server.get(&format!("/v2/{name}/tags/list")).json()["tags"],
            json!([tag])
        );
    }
    assert_eq!(
        server.get("/v2/_catalog").json()["repositories"],
        json!([deep, wide])
    );
    let path = format!("/v2/{}a/blobs/uploads/", "a/".repeat(128));
    server
        .send("POST", &path, &[], b"")
        .refuses(400, "NAME_INVALID");
}

#[test]
fn requests_that_no_client_sends() {
    let dir = scratch();
    let root = dir.join("store");
    std::fs::create_dir_all(dir.join("outside")).unwrap();
    let server = Server::start(&root);
    let before = visible(dir.path());
    for path in [
        "/v2/../../outside/tags/list",
        "/v2/%2e%2e/%2e%2e/outside/tags/list",
        "/v2/a/blobs/uploads/../../../../outside",
        "/v2/a/manifests/..%2f..%2f..%2foutside",
        "/v2/a/blobs/sha256:..%2f..%2foutside",
        "/v2/a%00b/tags/list",
        "/v2/a+b/tags/list",
        "/v2//tags/list",
        "/v2/a/referrers/..",
    ] {
        for method in ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"] {
            let answer = server.send(method, path, &[], b"x");
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path}: {answer:?}"
            );
        }
    }
    assert_eq!(visible(dir.path()), before);
    // Heads without end, and bodies that are shorter or longer than they say.
    let mut long = server.connect();
    long.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n");
    for number in 0..20_000 {
        long.write(format!("X-{number}: {}\r\n", "y".repeat(100)).as_bytes());
    }
    assert!(
        long.answer("GET")
            .map_or(true, |answer| (400..500).contains(&answer.status))
    );
    let mut twice = server.connect();
    twice.write(b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!");
    assert!(
        twice
            .answer("POST")
            .map_or(true, |answer| (400..500).contains(&answer.status))
    );
    let location = server.start_upload("a");
    let mut short = server.connect();
    short.begin(
        "PUT",
        &format!("{location}?digest={}", digest(b"hello")),
        &[("Content-Length", "50")],
    );
    short.write(b"hello");
    short.shut();
    drop(short.answer("PUT"));
    server
        .get(&format!("/v2/a/blobs/{}", digest(b"hello")))
        .refuses(404, "BLOB_UNKNOWN");
    let message = server
        .send("GET", &format!("/v2/a/blobs/{NOWHERE}"), &[], b"")
        .refuses(404, "BLOB_UNKNOWN");
    assert!(!message.contains('\u{1b}'));
}

#[test]
fn damage_in_our_own_store_is_mended_or_kept_to_ourselves() {
    let dir = scratch();
    let root = dir.join("store");
    let server = Server::start(&root);
    let image = small_image("x");
    assert_eq!(server.push("a", "v1", &image).status, 201);
    // Another image with the same layers: the store must read its records.
    let other = |command: &str| {
        let text = String::from_utf8(image.blobs[0].clone()).unwrap();
        let config: Vec<u8> = text.replace("/bin/sh", command).into();
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        manifest["config"] = descriptor(CONFIG, &config);
        Image {
            manifest: manifest.to_string().into(),
            blobs: [vec![config], image.blobs[1..].to_vec()].concat(),
            ..image.clone()
        }
    };
    let records = || {
        let layers = std::fs::read_dir(root.join("layers")).unwrap();
        layers
            .map(|layer| layer.unwrap().path())
            .collect::<Vec<_>>()
    };
    std::fs::write(&records()[0], b"damaged").unwrap();
    let answer = server.push("a", "v2", &other("/bin/true"));
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_sound(&server.store);
    // What cannot be mended is no fault of the client's, and names no path.
    let record = &records()[0];
    std::fs::remove_file(record).unwrap();
    std::fs::create_dir(record).unwrap();
    let answer = server.push("a", "v3", &other("/bin/false"));
    let message = answer.refuses(500, "UNKNOWN");
    assert!(!message.contains("layers/"), "{message}");
    assert!(!root.join("images/a/v3").exists());
    let path = format!("/v2/a/manifests/{}", other("/bin/false").digest());
    server.get(&path).refuses(404, "MANIFEST_UNKNOWN");
}

#[test]
fn registry_with_a_certificate() {
    let missing = tool::missing(&["openssl", "skopeo"]);
    if !missing.is_empty() {
        skip!("{} not installed", missing.join(", "));
    }
    let dir = scratch();
    let tls = Tls {
        certificate: dir.join("end.crt"),
        key: dir.join("end.key"),
    };
    let mut openssl = std::process::Command::new("openssl");
    let arguments = "req -x509 -newkey rsa:2048 -nodes -keyout end.key -out end.crt -days 2 -subj /CN=127.0.0.1 \
                     -addext subjectAltName=IP:127.0.0.1";
    tool::run(
        openssl
            .current_dir(dir.path())
            .args(arguments.split_whitespace()),
    )
    .unwrap();
    let server = Server::with(&dir.join("store"), Some(tls), |registry| registry);
    std::fs::create_dir(dir.join("certs")).unwrap();
    std::fs::copy(dir.join("end.crt"), dir.join("certs/ca.crt")).unwrap();
    small_image("x")
        .write_layout(&dir.join("layout"), "latest")
        .unwrap();
    // Who speaks plain HTTP, or stalls in the handshake, disturbs nobody.
    let mut plain = server.connect();
    plain.begin("GET", "/v2/", &[]);
    let _stalled = server.connect();
    let certs = dir.join("certs").display().to_string();
    let copy = |from: String, to: String| {
        let arguments = [
            "copy",
            "--insecure-policy",
            "-q",
            "--src-cert-dir",
            &certs,
            "--dest-cert-dir",
            &certs,
            &from,
            &to,
        ];
        tool::text("skopeo", arguments).unwrap();
    };
    let remote = format!("docker://{}/team/app:v1", server.address);
    copy(
        format!("oci:{}:latest", dir.join("layout").display()),
        remote.clone(),
    );
    copy(remote, format!("oci:{}:latest", dir.join("back").display()));
    let blobs = |name: &str| {
        std::fs::read_dir(dir.join(name).join("blobs/sha256"))
            .unwrap()
            .count()
    };
    assert_eq!(blobs("back"), blobs("layout"));
}
