// SPDX-License-Identifier: Apache-2.0
//! What sigstore's tools attach: written by them and read by us, and the other way round.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::image::{image, write_layout};
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
