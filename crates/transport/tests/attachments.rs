// SPDX-License-Identifier: Apache-2.0
//! What sigstore's tools attach: written by them and read by us, and the other way round.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::image::{image, write_layout};
use common::server::{Request, Server, answer};
use common::{block_on, quick};
use gantry_image::ManifestBytes;
use gantry_oci::{Kind, Limits, Reference};
use gantry_testkit::cosign::{self, Cosign};
use gantry_testkit::skip;
use gantry_testkit::tool::{self, DockerRegistry};
use gantry_transport::registry::manifests::ManifestName;
use gantry_transport::registry::{Options, Registry, Repository};
use gantry_trust::SigstoreSignature;
use gantry_trust::sigstore::{self, BUNDLE_MEDIA_TYPE, PAYLOAD_MEDIA_TYPE, Verifier};

macro_rules! needs_peers {
    () => {
        let missing = tool::missing(&["skopeo", "docker-registry"]);
        if !missing.is_empty() {
            skip!("{} not installed", missing.join(", "));
        }
    };
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trust/tests/vectors")
}

fn vector(name: &str) -> SigstoreSignature {
    let text = std::fs::read(vectors().join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A registry with one image.
struct World {
    dir: tempfile::TempDir,
    registry: DockerRegistry,
    manifest: ManifestBytes,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = DockerRegistry::start(&dir.path().join("registry")).unwrap();
        let layout = dir.path().join("layout");
        write_layout(&layout, &[("v1", &image(1, 1000, 7))]);
        let to = format!("docker://{}/team/app:v1", registry.address());
        let from = format!("oci:{}:v1", layout.display());
        tool::text(
            "skopeo",
            [
                "copy",
                "--insecure-policy",
                "--preserve-digests",
                "--dest-tls-verify=false",
                &from,
                &to,
            ],
        )
        .unwrap();
        let repository = repository(registry.address(), quick());
        let name = ManifestName::Tag("v1".parse().unwrap());
        let manifest = block_on(repository.manifest(&name)).unwrap();
        let manifest = manifest.verify(None, &Limits::DEFAULT).unwrap();
        Self {
            dir,
            registry,
            manifest,
        }
    }

    fn repository(&self) -> Repository {
        repository(self.registry.address(), quick())
    }

    /// `127.0.0.1:PORT/team/app@sha256:…`
    fn image(&self) -> String {
        format!(
            "{}/team/app@{}",
            self.registry.address(),
            self.manifest.digest()
        )
    }

    fn attached(&self) -> Vec<SigstoreSignature> {
        block_on(
            self.repository()
                .attached_signatures(self.manifest.digest()),
        )
        .unwrap()
    }

    fn attach(&self, signatures: &[SigstoreSignature]) {
        block_on(
            self.repository()
                .attach_signatures(self.manifest.digest(), signatures),
        )
        .unwrap();
    }
}

fn repository(address: &str, options: Options) -> Repository {
    let reference = Reference::parse_normalized(&format!("{address}/team/app")).unwrap();
    Registry::new(reference.host, options).repository(reference.repository)
}

#[test]
fn nothing_attached_is_no_error() {
    needs_peers!();
    assert_eq!(World::new().attached(), []);
}

#[test]
fn what_is_attached_comes_back_and_is_attached_once() {
    needs_peers!();
    let world = World::new();
    let all = [
        "p256.cosign2",
        "rsa.cosign2",
        "p256.cosign2-attestation",
        "p256.cosign3",
        "p384.cosign3",
    ]
    .map(vector);
    world.attach(&all[..1]);
    assert_eq!(world.attached(), &all[..1]);
    world.attach(&all);
    world.attach(&all);
    assert_eq!(world.attached(), all);
}

#[test]
fn more_signatures_than_the_cap_are_an_error_and_too_large_ones_are_passed_over() {
    needs_peers!();
    let world = World::new();
    world.attach(&["p256.cosign2", "rsa.cosign2", "p256.cosign3"].map(vector));
    let read = |limits: Limits| {
        let repository = repository(world.registry.address(), Options { limits, ..quick() });
        block_on(repository.attached_signatures(world.manifest.digest()))
    };
    let few = Limits {
        signatures: 2,
        ..Limits::DEFAULT
    };
    assert_eq!(read(few).unwrap_err().kind(), Kind::Unsafe);
    let small = Limits {
        signature_bytes: 400,
        ..Limits::DEFAULT
    };
    assert_eq!(read(small).unwrap().len(), 2);
}

#[test]
fn what_cosign_signs_is_read_and_counts() {
    needs_peers!();
    let Some(versions) = Cosign::both() else {
        skip!("{}", cosign::HOW);
    };
    let world = World::new();
    let verifier = Verifier::keys(
        &[std::fs::read(vectors().join("p256.pub")).unwrap().into()],
        None,
    )
    .unwrap();
    let key = vectors().join("p256.key");
    for cosign in &versions {
        cosign
            .sign(world.dir.path(), &key, &world.image(), false)
            .unwrap();
    }
    versions[1]
        .sign(world.dir.path(), &key, &world.image(), true)
        .unwrap();
    let attached = world.attached();
    let types: Vec<_> = attached
        .iter()
        .map(|signature| signature.mime_type.as_str())
        .collect();
    assert!(
        types.contains(&PAYLOAD_MEDIA_TYPE) && types.contains(&BUNDLE_MEDIA_TYPE),
        "{types:?}"
    );
    for signature in &attached {
        let found =
            sigstore::verify(signature, &verifier, SystemTime::now(), &Limits::DEFAULT).unwrap();
        assert_eq!(found.claim.manifest_digest, *world.manifest.digest());
    }
}

#[test]
fn what_we_attach_to_another_copy_of_an_image_cosign_accepts() {
    needs_peers!();
    let Some(versions) = Cosign::both() else {
        skip!("{}", cosign::HOW);
    };
    let (key, public, wrong) = (
        vectors().join("p256.key"),
        vectors().join("p256.pub"),
        vectors().join("p384.pub"),
    );
    for (signer, bundle, judges) in [
        (&versions[0], false, &versions[..]),
        (&versions[1], true, &versions[1..]),
    ] {
        let (world, other) = (World::new(), World::new());
        assert_eq!(world.manifest.digest(), other.manifest.digest());
        let dir = world.dir.path();
        signer.sign(dir, &key, &world.image(), bundle).unwrap();
        other.attach(&world.attached());
        for judge in judges {
            let verify = |key| judge.verify(dir, key, &other.image(), bundle);
            verify(&public).unwrap();
            verify(&wrong).unwrap_err();
        }
    }
}

/// Stands before a registry: passes on what `special` does not answer, and lets it do something else besides.
fn before(
    registry: String,
    special: impl Fn(&Request, &dyn Fn(&Request) -> Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Server {
    let pass = move |request: &Request| -> Vec<u8> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&registry).unwrap();
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
        let others = request
            .headers
            .iter()
            .filter(|(name, _)| name != "connection");
        for (name, value) in others {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&request.body).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        reply
    };
    Server::start(move |request| {
        let reply = special(request, &pass).unwrap_or_else(|| pass(request));
        vec![common::server::Step::Send(reply)]
    })
}

#[test]
fn what_another_writer_overwrites_is_attached_again() {
    needs_peers!();
    let ours = || [vector("p256.cosign2")];
    let theirs = vector("rsa.cosign2");
    for (what, overwritten, attached) in [
        ("after the first write", 1, true),
        ("before the first write", 0, true),
        ("after every write", usize::MAX, false),
    ] {
        let world = World::new();
        // What somebody else writes, who has read that nothing is attached yet.
        let elsewhere = gantry_oci::Digest::of(gantry_oci::Algorithm::Sha256, b"elsewhere");
        let elsewhere = gantry_oci::ManifestDigest::from_digest(elsewhere);
        let repository = world.repository();
        block_on(repository.attach_signatures(&elsewhere, std::slice::from_ref(&theirs))).unwrap();
        let tag = |digest| sigstore::attachment_tag(digest, ".sig");
        let name = ManifestName::Tag(tag(&elsewhere).parse().unwrap());
        let other = block_on(repository.manifest(&name)).unwrap();
        let other = other.verify(None, &Limits::DEFAULT).unwrap();
        let path = format!("/v2/team/app/manifests/{}", tag(world.manifest.digest()));
        let writes = std::sync::atomic::AtomicUsize::new(0);
        let proxy = before(world.registry.address().to_owned(), move |request, pass| {
            if request.target != path {
                return None;
            }
            let overwrite = || {
                let length = other.bytes().len().to_string();
                let headers = [
                    ("host", "r.example"),
                    ("content-type", "application/vnd.oci.image.manifest.v1+json"),
                    ("content-length", &length),
                ];
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let reply = pass(&Request {
                    method: "PUT".to_owned(),
                    headers: headers.to_vec(),
                    body: other.bytes().to_vec(),
                    ..request.clone()
                });
                assert!(reply.starts_with(b"HTTP/1.1 201"), "{reply:?}");
            };
            if request.method == "PUT" {
                let reply = pass(request);
                if writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < overwritten {
                    overwrite();
                }
                return Some(reply);
            }
            // The second look is the one right before the write.
            if overwritten == 0 && request.earlier == 1 {
                overwrite();
            }
            None
        });
        let repository = repository_at(proxy.address());
        let outcome = block_on(repository.attach_signatures(world.manifest.digest(), &ours()));
        assert_eq!(outcome.is_ok(), attached, "{what}");
        if let Err(error) = outcome {
            assert_eq!(error.kind(), Kind::Busy, "{what}");
            continue;
        }
        let all = world.attached();
        assert!(all.contains(&theirs) && all.contains(&ours()[0]), "{what}");
        assert_eq!(all.len(), 2, "{what}");
    }
}

fn repository_at(address: &str) -> Repository {
    repository(address, quick())
}

#[test]
fn all_pages_of_referrers_are_read_and_no_more() {
    needs_peers!();
    let bundles = ["p256.cosign3", "p384.cosign3"].map(vector);
    let world = World::new();
    world.attach(&bundles);
    // The registry has no list of its own: ours is cut into pages, with other things between.
    let list = sigstore::attachment_tag(world.manifest.digest(), "");
    let name = ManifestName::Tag(list.parse().unwrap());
    let index = block_on(world.repository().manifest(&name)).unwrap();
    let index = index.verify(None, &Limits::DEFAULT).unwrap();
    let entries = index.as_index().unwrap().manifests.clone();
    assert_eq!(entries.len(), 2);
    let pages = move |links: &'static [&'static str]| {
        let entries = entries.clone();
        before(world.registry.address().to_owned(), move |request, _| {
            if !request.path().contains("/referrers/") {
                return None;
            }
            let page = request.target.split_once("page=");
            let page: usize = page.map_or(0, |(_, number)| number.parse().unwrap());
            let mut entry = entries
                .get(page / 2)
                .cloned()
                .into_iter()
                .collect::<Vec<_>>();
            if page % 2 == 1 {
                for entry in &mut entry {
                    entry.artifact_type = Some("application/spdx+json".to_owned());
                }
            }
            let body = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": entry,
            });
            let link = links
                .get(page)
                .map(|link| format!("<{link}>; rel=\"next\""));
            let headers = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
            let link = link.as_deref().map(|link| ("Link", link));
            let headers: Vec<_> = headers.into_iter().chain(link).collect();
            let reply = answer(200, &headers, body.to_string().as_bytes());
            let [common::server::Step::Send(bytes)] = &reply[..] else {
                unreachable!()
            };
            Some(bytes.clone())
        })
    };
    let read = |links| {
        let server = pages(links);
        let repository = repository_at(server.address());
        block_on(repository.attached_signatures(world.manifest.digest()))
    };
    assert_eq!(read(&[]).unwrap(), &bundles[..1]);
    assert_eq!(read(&["?page=1", "?page=2"]).unwrap(), bundles);
    assert_eq!(read(&["?page=1", "?page=2", "?page=3"]).unwrap(), bundles);
    for circle in [&["?page=1", "?page=1"][..], &["/v2/team/other/referrers/x"]] {
        read(circle).unwrap_err();
    }
}
