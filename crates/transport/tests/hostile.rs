// SPDX-License-Identifier: Apache-2.0
//! Registries that fail, stall, lie and attack: each case ends in the right
//! image or in a typed error, soon.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::image::{Image, image, index};
use common::server::{Reply, Request, Server, Step, answer, cut, not_found, ranged, raw};
use common::{block_on, copy, copy_options, quick, sentence};
use gantry_oci::{Kind, Reference};
use gantry_transport::Selection;
use gantry_transport::oci_layout::{LayoutDestination, LayoutOptions};
use gantry_transport::registry::mirrors::RegistriesConf;
use gantry_transport::registry::{Registry, RegistrySource};

const LAYER_BYTES: usize = 200_000;

fn sample() -> Image {
    image(2, LAYER_BYTES, 7)
}

/// Pulls `latest` from a server into a layout; the layout's index must exist
/// exactly if the pull succeeded.
fn pull(server: &Server) -> Result<(), (Kind, String)> {
    pull_reference(server, "latest")
}

fn pull_reference(server: &Server, name: &str) -> Result<(), (Kind, String)> {
    let dir = tempfile::tempdir().unwrap();
    let separator = if name.starts_with("sha") { '@' } else { ':' };
    let reference =
        Reference::parse_normalized(&format!("{}/app{separator}{name}", server.address())).unwrap();
    let outcome = block_on(async {
        let source = RegistrySource::new(reference, &quick(), &RegistriesConf::default()).unwrap();
        let path = dir.path().join("layout");
        let options = LayoutOptions {
            no_sync: true,
            ..LayoutOptions::default()
        };
        let destination = LayoutDestination::create(path, Selection::Only, &options)
            .await
            .unwrap();
        copy(&source, &destination, &copy_options()).await
    });
    assert_eq!(
        dir.path().join("layout/index.json").exists(),
        outcome.is_ok()
    );
    assert_no_leftovers(&dir.path().join("layout/blobs"));
    outcome
        .map(drop)
        .map_err(|error| (error.kind(), sentence(&error)))
}

fn assert_no_leftovers(blobs: &Path) {
    for entry in std::fs::read_dir(blobs).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            !name.to_string_lossy().starts_with(".gantry"),
            "left behind: {name:?}"
        );
    }
}

/// A registry that misbehaves for the first layer's blob only.
fn bad_blob(misbehave: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Server {
    let image = sample();
    let (blob, digest) = (image.layers[0].clone(), image.layer(0).digest.to_string());
    Server::registry(vec![image], move |request| {
        request
            .path()
            .ends_with(&digest)
            .then(|| misbehave(request, &blob))
    })
}

/// A registry that misbehaves for the tag's manifest only.
fn bad_manifest(misbehave: impl Fn(&Request, &Image) -> Reply + Send + Sync + 'static) -> Server {
    let image = sample();
    let good = image.clone();
    Server::registry(vec![image], move |request| {
        request
            .path()
            .ends_with("/manifests/latest")
            .then(|| misbehave(request, &good))
    })
}

fn fails(server: &Server, kind: Kind, part: &str) {
    let started = Instant::now();
    let (found, text) = pull(server).unwrap_err();
    assert_eq!(found, kind, "{text}");
    assert!(text.contains(part), "{text:?} lacks {part:?}");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "took {:?}",
        started.elapsed()
    );
}

#[test]
fn good_registry_serves() {
    pull(&Server::registry(vec![sample()], |_| None)).unwrap();
}

#[test]
fn truncated_blob_is_resumed_from_where_it_broke() {
    for at in [0, 1, 5000, LAYER_BYTES / 2, LAYER_BYTES] {
        let server = bad_blob(move |request, blob| match request.earlier {
            0 => cut(answer(200, &[], blob), at),
            _ => ranged(request, blob),
        });
        pull(&server).unwrap_or_else(|(_, text)| panic!("cut at {at}: {text}"));
    }
}

#[test]
fn blob_that_breaks_every_few_kilobytes_arrives_without_waste() {
    let server = bad_blob(|request, blob| cut(ranged(request, blob), 9000));
    pull(&server).unwrap();
    let digest = sample().layer(0).digest.to_string();
    let tries = server.count(&digest);
    assert!(
        (LAYER_BYTES / 9000..=LAYER_BYTES / 9000 + 5).contains(&tries),
        "{tries} connections"
    );
}

#[test]
fn range_that_is_ignored_costs_bytes_and_no_harm() {
    let server = bad_blob(|request, blob| match request.earlier {
        0 => cut(answer(200, &[], blob), 100_000),
        _ => answer(200, &[], blob),
    });
    pull(&server).unwrap();
}

#[test]
fn blob_without_progress_ends() {
    let server = bad_blob(|_, blob| cut(answer(200, &[], blob), 0));
    fails(&server, Kind::Unavailable, "fetch blob");
}

#[test]
fn blob_that_stalls_is_resumed_or_given_up() {
    let once = bad_blob(|request, blob| match request.earlier {
        0 => [
            cut(answer(200, &[], blob), 50_000),
            vec![Step::Wait(Duration::from_secs(3))],
        ]
        .concat(),
        _ => ranged(request, blob),
    });
    pull(&once).unwrap();
    let always = bad_blob(|_, blob| {
        [
            cut(answer(200, &[], blob), 0),
            vec![Step::Wait(Duration::from_secs(3))],
        ]
        .concat()
    });
    fails(&always, Kind::Unavailable, "no progress");
}

#[test]
fn blob_in_a_trickle_is_given_up() {
    let server = bad_blob(|_, blob| {
        let mut steps = cut(answer(200, &[], blob), 0);
        for byte in &blob[..60] {
            steps.extend([
                Step::Wait(Duration::from_millis(50)),
                Step::Send(vec![*byte]),
            ]);
        }
        steps
    });
    fails(&server, Kind::Unavailable, "no progress");
}

#[test]
fn corrupt_blobs_are_corrupt() {
    let flipped = bad_blob(|request, blob| {
        let mut wrong = blob.to_vec();
        wrong[LAYER_BYTES / 2] ^= 1;
        ranged(request, &wrong)
    });
    fails(&flipped, Kind::Corrupt, "has digest");
    let other = bad_blob(|_, _| answer(200, &[], &sample().layers[1]));
    fails(&other, Kind::Corrupt, "");
    let shorter = bad_blob(|_, blob| answer(200, &[], &blob[..1000]));
    fails(&shorter, Kind::Corrupt, "announces 1000 bytes");
    let longer = bad_blob(|_, blob| answer(200, &[], &[blob, b"more"].concat()));
    fails(&longer, Kind::Corrupt, "announces");
}

#[test]
fn unframed_blobs_are_counted() {
    let longer = bad_blob(|_, blob| {
        raw(
            "HTTP/1.1 200 OK\nConnection: close",
            &[blob, b"more"].concat(),
        )
    });
    fails(&longer, Kind::Corrupt, "more than the");
    let shorter = bad_blob(|request, blob| match request.earlier {
        0 => raw("HTTP/1.1 200 OK\nConnection: close", &blob[..100_000]),
        _ => ranged(request, blob),
    });
    pull(&shorter).unwrap();
    let endless_chunks = bad_blob(|request, blob| match request.earlier {
        0 => {
            let chunk = [
                format!("{:x}\r\n", 70_000).as_bytes(),
                &blob[..70_000],
                b"\r\n",
            ]
            .concat();
            raw(
                "HTTP/1.1 200 OK\nConnection: close\nTransfer-Encoding: chunked",
                &chunk,
            )
        }
        _ => ranged(request, blob),
    });
    pull(&endless_chunks).unwrap();
}

#[test]
fn resumed_blob_with_other_contents_is_corrupt() {
    let server = bad_blob(|request, blob| match request.earlier {
        0 => cut(answer(200, &[], blob), 100_000),
        _ => {
            let mut other = blob.to_vec();
            other[150_000] ^= 1;
            ranged(request, &other)
        }
    });
    fails(&server, Kind::Corrupt, "has digest");
}

#[test]
fn wrong_ranges_are_refused() {
    let other_part = bad_blob(|request, blob| match request.earlier {
        0 => cut(answer(200, &[], blob), 100_000),
        _ => answer(206, &[("Content-Range", "bytes 5-9/10")], b"abcde"),
    });
    fails(&other_part, Kind::Corrupt, "another part");
    let no_more = bad_blob(|request, blob| match request.earlier {
        0 => cut(answer(200, &[], blob), 100_000),
        _ => answer(416, &[], b""),
    });
    fails(&no_more, Kind::Corrupt, "no more than");
}

#[test]
fn unasked_encoding_is_refused() {
    let server = bad_blob(|_, blob| answer(200, &[("Content-Encoding", "gzip")], blob));
    fails(&server, Kind::Corrupt, "unasked encoding");
}

#[test]
fn temporary_failures_are_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let once = bad_blob(move |request, blob| match request.earlier {
            0 | 1 => answer(status, &[("Retry-After", "0")], b"<html>"),
            _ => ranged(request, blob),
        });
        pull(&once).unwrap_or_else(|(_, text)| panic!("{status}: {text}"));
        let always = bad_manifest(move |_, _| {
            answer(
                status,
                &[],
                br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
            )
        });
        fails(&always, Kind::Unavailable, "slow down");
        assert_eq!(always.count("/manifests/latest"), 4);
    }
}

#[test]
fn final_failures_are_not() {
    for (status, kind) in [
        (404, Kind::NotFound),
        (403, Kind::Denied),
        (405, Kind::Unsupported),
        (418, Kind::InvalidInput),
    ] {
        let server = bad_manifest(move |_, _| {
            answer(
                status,
                &[],
                br#"{"errors":[{"code":"X","message":"no\u001b[31m"}]}"#,
            )
        });
        fails(&server, kind, "X: no");
        assert_eq!(server.count("/manifests/latest"), 1);
    }
}

#[test]
fn absurd_waits_are_refused_and_garbage_ignored() {
    let long = bad_manifest(|_, _| answer(429, &[("Retry-After", "1000000000")], b""));
    fails(&long, Kind::Unavailable, "wait 1000000000 s");
    assert_eq!(long.count("/manifests/latest"), 1);
    let garbage = bad_manifest(|request, image| match request.earlier {
        0 => answer(503, &[("Retry-After", "soon")], b""),
        _ => answer(200, &[], &image.manifest),
    });
    pull(&garbage).unwrap();
}

#[test]
fn registry_that_is_down_or_mute() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let reference = Reference::parse_normalized(&format!("127.0.0.1:{port}/app:v1")).unwrap();
    let registry = Registry::new(reference.host, quick());
    let error = block_on(registry.repository(reference.repository).tags()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        sentence(&error).contains("reach registry 127.0.0.1"),
        "{}",
        sentence(&error)
    );
    let mute = Server::start(|_| vec![Step::Wait(Duration::from_secs(5))]);
    let mut options = quick();
    options.retry.attempts = 0;
    options.pace.answer = Duration::from_millis(200);
    let reference = Reference::parse_normalized(&format!("{}/app:v1", mute.address())).unwrap();
    let registry = Registry::new(reference.host, options);
    assert_eq!(
        block_on(registry.repository(reference.repository).tags())
            .unwrap_err()
            .kind(),
        Kind::Unavailable
    );
}

#[test]
fn redirects_are_followed_within_reason() {
    let other = bad_blob(|_, blob| answer(200, &[], blob));
    let target = format!(
        "http://{}/v2/app/blobs/{}",
        other.address(),
        sample().layer(0).digest
    );
    let elsewhere = bad_blob(move |_, _| answer(307, &[("Location", &target)], b""));
    pull(&elsewhere).unwrap();
    let cycle = bad_blob(|request, _| answer(302, &[("Location", &request.target)], b""));
    fails(&cycle, Kind::Unsafe, "too many redirects");
    for target in [
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "http://u:p@127.0.0.1/",
        "ftp://x/",
        "http://[",
    ] {
        let server = bad_blob(move |_, _| answer(302, &[("Location", target)], b""));
        fails(&server, Kind::Unsafe, "refuse to follow");
    }
    let nowhere = bad_blob(|_, _| answer(302, &[], b""));
    fails(&nowhere, Kind::Corrupt, "Location");
}

#[test]
fn resumption_resolves_the_redirect_anew() {
    let image = sample();
    let digest = image.layer(0).digest.to_string();
    let blob = image.layers[0].clone();
    // Each address of the second server works once, as signed ones that expire.
    let store = Server::start(move |request| match request.earlier {
        0 => cut(ranged(request, &blob), 60_000),
        _ => answer(400, &[], b"expired"),
    });
    let address = store.address().to_owned();
    let server = Server::registry(vec![image], move |request| {
        request.path().ends_with(&digest).then(|| {
            let target = format!("http://{address}/signed?number={}", request.earlier);
            answer(307, &[("Location", &target)], b"")
        })
    });
    pull(&server).unwrap();
}

#[test]
fn lying_digests_are_corrupt() {
    let lie = format!("sha256:{}", "0".repeat(64));
    let header = lie.clone();
    let claim = bad_manifest(move |_, image| {
        answer(200, &[("Docker-Content-Digest", &header)], &image.manifest)
    });
    fails(&claim, Kind::Corrupt, "peer states digest");
    let two = bad_manifest(move |_, image| {
        let right = image.digest().to_string();
        answer(
            200,
            &[
                ("Docker-Content-Digest", &right),
                ("Docker-Content-Digest", &lie),
            ],
            &image.manifest,
        )
    });
    fails(&two, Kind::Corrupt, "two digests");
    let traversal = bad_manifest(|_, image| {
        answer(
            200,
            &[("Docker-Content-Digest", "sha256:../../x")],
            &image.manifest,
        )
    });
    fails(&traversal, Kind::Corrupt, "digest");
}

#[test]
fn pinned_digest_is_what_is_pulled() {
    let (wanted, other) = (sample(), image(1, 100, 99));
    let digest = wanted.digest().to_string();
    let header = digest.clone();
    let server = Server::registry(vec![wanted], move |request| {
        request.path().contains("/manifests/").then(|| {
            answer(
                200,
                &[
                    ("Docker-Content-Digest", &header),
                    ("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
                ],
                &other.manifest,
            )
        })
    });
    let (kind, text) = pull_reference(&server, &digest).unwrap_err();
    assert_eq!(kind, Kind::Corrupt, "{text}");
}

#[test]
fn oversize_bodies_are_cut() {
    let manifest = bad_manifest(|_, _| answer(200, &[], &vec![b' '; (4 << 20) + 1]));
    fails(&manifest, Kind::Unsafe, "larger than");
    let endless =
        bad_manifest(|_, _| raw("HTTP/1.1 200 OK\nConnection: close", &vec![b' '; 6 << 20]));
    fails(&endless, Kind::Unsafe, "larger than");
    let error_body = bad_manifest(|_, _| answer(404, &[], &vec![b' '; 8 << 20]));
    fails(&error_body, Kind::NotFound, "404");
    let header =
        bad_manifest(|_, image| answer(200, &[("X-Huge", &"x".repeat(1 << 20))], &image.manifest));
    fails(&header, Kind::Unavailable, "fetch manifest");
}

#[test]
fn oversize_config_is_refused_before_it_is_fetched() {
    let server = bad_manifest(|_, image| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        manifest["config"]["size"] = serde_json::json!(10_u64 << 30);
        answer(200, &[], manifest.to_string().as_bytes())
    });
    fails(&server, Kind::Unsafe, "image config");
    assert_eq!(server.count("/blobs/"), 0);
}

#[test]
fn documents_with_two_meanings_are_refused() {
    type Change = fn(&mut serde_json::Value);
    let changed = |change: Change| {
        bad_manifest(move |_, image| {
            let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
            change(&mut manifest);
            answer(
                200,
                &[("Content-Type", "application/vnd.oci.image.manifest.v1+json")],
                manifest.to_string().as_bytes(),
            )
        })
    };
    fails(
        &changed(|m| m["manifests"] = serde_json::json!([])),
        Kind::Unsafe,
        "at once",
    );
    fails(
        &changed(|m| m["mediaType"] = serde_json::json!("application/vnd.oci.image.index.v1+json")),
        Kind::Corrupt,
        "media type",
    );
    fails(
        &changed(|m| {
            m["mediaType"] =
                serde_json::json!("application/vnd.docker.distribution.manifest.v2+json")
        }),
        Kind::Corrupt,
        "media type",
    );
    fails(
        &changed(|m| m["schemaVersion"] = serde_json::json!(1)),
        Kind::Unsupported,
        "schema version",
    );
    fails(
        &changed(|m| m["layers"][0]["digest"] = serde_json::json!("sha256:../../etc/passwd")),
        Kind::Corrupt,
        "",
    );
    fails(
        &changed(|m| m["layers"][0]["size"] = serde_json::json!(-1)),
        Kind::Corrupt,
        "",
    );
    fails(
        &changed(|m| m["layers"][0]["size"] = serde_json::json!(u64::MAX)),
        Kind::Unsafe,
        "larger than any",
    );
    fails(
        &changed(|m| m["layers"] = serde_json::json!([])),
        Kind::Corrupt,
        "diffIDs",
    );
    let twice = bad_manifest(|_, image| {
        let text = String::from_utf8(image.manifest.clone()).unwrap();
        answer(
            200,
            &[],
            text.replacen('{', "{\"schemaVersion\":2,", 1).as_bytes(),
        )
    });
    fails(&twice, Kind::Corrupt, "twice");
    let typed = bad_manifest(|_, image| {
        answer(
            200,
            &[("Content-Type", "application/vnd.oci.image.index.v1+json")],
            &image.manifest,
        )
    });
    fails(&typed, Kind::Corrupt, "contradicts");
}

#[test]
fn tag_that_moves_during_a_pull_yields_one_image() {
    let (first, second) = (sample(), image(1, 5000, 3));
    let old = first.clone();
    let server = Server::registry(vec![second, first], move |request| {
        (request.path().ends_with("/manifests/latest") && request.earlier == 0)
            .then(|| answer(200, &[], &old.manifest))
    });
    pull(&server).unwrap();
}

#[test]
fn index_bombs_end() {
    // An index that names itself cannot exist; one that claims so is refused.
    let image = sample();
    let bytes = index(&[(&image, "amd64")]);
    let text = String::from_utf8(bytes).unwrap();
    let nested = text.replace("image.manifest.v1", "image.index.v1");
    let server = Server::registry(vec![image], move |request| {
        request
            .path()
            .ends_with("/manifests/latest")
            .then(|| answer(200, &[], nested.as_bytes()))
    });
    fails(&server, Kind::Corrupt, "");
}

#[test]
fn hostile_pagination_ends() {
    let list = |respond: fn(&Request) -> Reply| {
        let server = Server::start(move |request| {
            if request.path() == "/v2/" {
                answer(200, &[], b"{}")
            } else {
                respond(request)
            }
        });
        let reference = Reference::parse_normalized(&format!("{}/app", server.address())).unwrap();
        let registry = Registry::new(reference.host, quick());
        block_on(registry.repository(reference.repository).tags())
            .map_err(|error| (error.kind(), sentence(&error)))
    };
    let pages = list(|request| match request.target.as_str() {
        "/v2/app/tags/list" => answer(
            200,
            &[("Link", "</v2/app/tags/list?last=b>; rel=\"next\"")],
            br#"{"name":"app","tags":["a","b"]}"#,
        ),
        _ => answer(200, &[], br#"{"name":"app","tags":["c"]}"#),
    });
    assert_eq!(pages.unwrap(), ["a", "b", "c"]);
    assert_eq!(
        list(|_| answer(200, &[], br#"{"name":"app","tags":null}"#)).unwrap(),
        Vec::<String>::new()
    );
    let round = list(|_| {
        answer(
            200,
            &[("Link", "</v2/app/tags/list>; rel=\"next\"")],
            br#"{"tags":["a"]}"#,
        )
    });
    assert_eq!(round.unwrap_err().0, Kind::Unsafe);
    for next in [
        "http://evil.example/v2/app/tags/list",
        "/v2/other/tags/list",
        "file:///x",
        "//127.0.0.2/v2/app/tags/list",
    ] {
        let link = format!("<{next}>; rel=\"next\"");
        let server = Server::start(move |_| answer(200, &[("Link", &link)], br#"{"tags":["a"]}"#));
        let reference = Reference::parse_normalized(&format!("{}/app", server.address())).unwrap();
        let registry = Registry::new(reference.host, quick());
        let error = block_on(registry.repository(reference.repository).tags()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsafe, "{next}");
    }
    assert_eq!(
        list(|_| answer(200, &[], b"<html>")).unwrap_err().0,
        Kind::Corrupt
    );
    assert_eq!(list(|_| not_found()).unwrap_err().0, Kind::NotFound);
}

#[test]
fn image_that_is_not_there_says_so() {
    let server = Server::registry(vec![sample()], |_| None);
    let (kind, text) = pull_reference(&server, "v9").unwrap_err();
    assert_eq!(kind, Kind::NotFound);
    assert!(text.contains("fetch manifest v9"), "{text}");
}
