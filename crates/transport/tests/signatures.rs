// SPDX-License-Identifier: Apache-2.0
//! Signatures in lookasides and in registries that keep them, against a server that does as it is told.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::image::{Image, image};
use common::server::{Reply, Request, Server, answer, raw};
use common::{block_on, copy, copy_options, quick, sentence};
use gantry_image::{EndpointError, ImageSource as _, SignatureBlob};
use gantry_oci::{Kind, Limits, ManifestDigest, Reference};
use gantry_transport::Selection;
use gantry_transport::oci_layout::{LayoutDestination, LayoutOptions};
use gantry_transport::registry::mirrors::RegistriesConf;
use gantry_transport::registry::{LookasidePlaces, Options, RegistryDestination, RegistrySource};
use gantry_trust::lookaside::Base;

/// What an OpenPGP message begins with, and a word.
fn message(word: &str) -> Vec<u8> {
    [b"\xA3", word.as_bytes()].concat()
}

fn options(lookaside: &str) -> Options {
    Options {
        lookaside: LookasidePlaces {
            default: Some(Base::parse(lookaside).unwrap()),
            ..LookasidePlaces::default()
        },
        ..quick()
    }
}

fn reference(server: &Server) -> Reference {
    Reference::parse_normalized(&format!("{}/app:latest", server.address())).unwrap()
}

fn read(server: &Server, image: &Image, options: &Options) -> Result<Vec<Vec<u8>>, EndpointError> {
    let source =
        RegistrySource::new(reference(server), options, &RegistriesConf::default()).unwrap();
    let digest = ManifestDigest::from_digest(image.digest());
    let signatures = block_on(source.signatures(&digest))?;
    Ok(signatures
        .into_iter()
        .map(|signature| signature.bytes.to_vec())
        .collect())
}

fn file(image: &Image, number: usize) -> String {
    format!("app@sha256={}/signature-{number}", image.digest().hex())
}

fn put(dir: &Path, image: &Image, number: usize, bytes: &[u8]) {
    let path = dir.join(file(image, number));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn extension_list(image: &Image, contents: &[&[u8]]) -> Vec<u8> {
    let list: Vec<String> = contents
        .iter()
        .map(|content| {
            format!(
                r#"{{"schemaVersion":2,"name":"{}@{}","type":"atomic","content":"{}"}}"#,
                image.digest(),
                "0".repeat(32),
                STANDARD.encode(content)
            )
        })
        .collect();
    format!(r#"{{"signatures":[{}]}}"#, list.join(",")).into_bytes()
}

fn ping(request: &Request) -> Option<Reply> {
    (request.path() == "/v2/")
        .then(|| answer(200, &[("X-Registry-Supports-Signatures", "1")], b"{}"))
}

#[test]
fn a_lookaside_is_read_until_a_number_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(1, 100, 1);
    for (number, word) in [(1, "one"), (2, "two"), (4, "four")] {
        put(dir.path(), &image, number, &message(word));
    }
    let registry = Server::registry(vec![image.clone()], |_| None);
    let found = read(
        &registry,
        &image,
        &options(&format!("file://{}", dir.path().display())),
    );
    assert_eq!(found.unwrap(), [message("one"), message("two")]);

    let (served, top) = (image.clone(), "/sigs/");
    let web = Server::start(move |request: &Request| {
        let name = request.path().strip_prefix(top).unwrap_or_default();
        match (1..=2).find(|number| name == file(&served, *number)) {
            Some(number) => answer(200, &[], &message(&number.to_string())),
            None => answer(404, &[], b""),
        }
    });
    let found = read(
        &registry,
        &image,
        &options(&format!("http://{}/sigs", web.address())),
    );
    assert_eq!(found.unwrap(), [message("1"), message("2")]);
    assert!(!web.transcript().contains("authorization"));
}

#[test]
fn what_a_lookaside_must_not_do() {
    let image = image(1, 100, 1);
    let registry = Server::registry(vec![image.clone()], |_| None);
    let many = answer(200, &[], &message("x"));
    let large = answer(200, &[], &vec![0xA3; 5 << 20]);
    let elsewhere = answer(302, &[("Location", "file:///etc/passwd")], b"");
    let secret = answer(302, &[("Location", "http://user:word@127.0.0.1/x")], b"");
    let link_local = answer(302, &[("Location", "http://169.254.169.254/latest")], b"");
    let round = answer(302, &[("Location", "/again")], b"");
    for (what, reply, kind) in [
        ("gives one under every number", many, None),
        ("gives a large one", large, None),
        ("says no", answer(403, &[], b""), None),
        ("is broken", answer(500, &[], b""), Some(Kind::Unavailable)),
        ("leads to a file", elsewhere, Some(Kind::Unsafe)),
        ("leads with a password", secret, Some(Kind::Unsafe)),
        (
            "leads to a link-local address",
            link_local,
            Some(Kind::Unsafe),
        ),
        ("leads round", round, Some(Kind::Unsafe)),
    ] {
        let distinct = Mutex::new(0_u32);
        let web = Server::start(move |request: &Request| {
            // Not the same twice, which would be one.
            if what.starts_with("gives one") {
                let mut next = distinct.lock().unwrap();
                *next += 1;
                assert!(request.path().contains("signature-"));
                return answer(200, &[], &message(&next.to_string()));
            }
            reply.clone()
        });
        let error = read(
            &registry,
            &image,
            &options(&format!("http://{}", web.address())),
        )
        .expect_err(what);
        if let Some(kind) = kind {
            assert_eq!(error.kind(), kind, "{what}: {}", sentence(&error));
        }
        let most = Limits::DEFAULT.signatures + 1;
        assert!(web.requests().len() <= most, "{what}");
    }
}

#[test]
fn what_a_directory_must_not_do() {
    let image = image(1, 100, 1);
    let registry = Server::registry(vec![image.clone()], |_| None);
    let read_from = |prepare: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file(&image, 1));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        prepare(&path);
        read(
            &registry,
            &image,
            &options(&format!("file://{}", dir.path().display())),
        )
    };
    let pipe = read_from(&|path| {
        let (kind, mode) = (rustix::fs::FileType::Fifo, 0o644.into());
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    });
    assert_eq!(pipe.unwrap_err().kind(), Kind::Unsafe);
    let directory = read_from(&|path| std::fs::create_dir(path).unwrap());
    assert_eq!(directory.unwrap_err().kind(), Kind::Unsafe);
    let large = read_from(&|path| std::fs::write(path, vec![0xA3; 5 << 20]).unwrap());
    assert_eq!(large.unwrap_err().kind(), Kind::Unsafe);
    let garbage = read_from(&|path| std::fs::write(path, b"garbage").unwrap());
    assert_eq!(garbage.unwrap(), [b"garbage"], "for a policy to refuse");
}

#[test]
fn a_registry_that_keeps_signatures_does_not_hide_a_lookaside() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(1, 100, 1);
    put(dir.path(), &image, 1, &message("both"));
    put(dir.path(), &image, 2, &message("beside"));
    let list = extension_list(&image, &[&message("in"), &message("both")]);
    let registry = Server::registry(vec![image.clone()], move |request| {
        ping(request).or_else(|| {
            let ours = request
                .path()
                .starts_with("/extensions/v2/app/signatures/sha256:");
            ours.then(|| answer(200, &[("Content-Type", "application/json")], &list))
        })
    });
    let found = read(
        &registry,
        &image,
        &options(&format!("file://{}", dir.path().display())),
    );
    assert_eq!(
        found.unwrap(),
        [message("in"), message("both"), message("beside")]
    );
}

#[test]
fn what_a_registry_that_keeps_signatures_must_not_say() {
    let image = image(1, 100, 1);
    let many: Vec<Vec<u8>> = (0..=Limits::DEFAULT.signatures)
        .map(|number| message(&number.to_string()))
        .collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    for (what, body, error) in [
        ("nothing", br#"{"signatures":[]}"#.to_vec(), false),
        ("null", b"null".to_vec(), true),
        (
            "no base64",
            br#"{"signatures":[{"schemaVersion":2,"name":"","type":"atomic","content":"%"}]}"#
                .to_vec(),
            true,
        ),
        (
            "another kind",
            br#"{"signatures":[{"schemaVersion":3,"name":"","type":"new","content":"%"}]}"#
                .to_vec(),
            false,
        ),
        ("too many", extension_list(&image, &many), true),
        ("too much", vec![b' '; 5 << 20], true),
    ] {
        let registry = Server::registry(vec![image.clone()], move |request| {
            ping(request).or_else(|| {
                request
                    .path()
                    .starts_with("/extensions/")
                    .then(|| answer(200, &[], &body))
            })
        });
        let found = read(&registry, &image, &quick());
        assert_eq!(found.is_err(), error, "{what}");
        assert!(found.is_err() || found.unwrap().is_empty(), "{what}");
    }
}

/// A registry that takes whatever is pushed, and remembers in which order.
fn sink(holds: Image, keeps_signatures: bool) -> (Server, Arc<Mutex<Vec<String>>>) {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let order = log.clone();
    let server = Server::start(move |request: &Request| {
        if request.method == "PUT" {
            order.lock().unwrap().push(request.path().to_owned());
        }
        match (request.method.as_str(), request.path()) {
            (_, "/v2/") if keeps_signatures => {
                answer(200, &[("X-Registry-Supports-Signatures", "1")], b"{}")
            }
            (_, "/v2/") => answer(200, &[], b"{}"),
            ("HEAD", path) if path.contains("/blobs/") => {
                let blobs = holds.blobs();
                let blob = blobs
                    .iter()
                    .find(|(digest, _)| path.ends_with(&digest.to_string()));
                let size = blob.map_or(0, |(_, blob)| blob.len());
                raw(
                    &format!(
                        "HTTP/1.1 200 OK
Connection: close
Content-Length: {size}"
                    ),
                    b"",
                )
            }
            ("GET", _) => answer(404, &[], b""),
            ("PUT", _) => answer(201, &[], b""),
            _ => answer(500, &[], b""),
        }
    });
    (server, log)
}

#[test]
fn signatures_are_written_before_the_name() {
    let image = image(1, 100, 1);
    let from = tempfile::tempdir().unwrap();
    put(from.path(), &image, 1, &message("one"));
    put(from.path(), &image, 2, &message("two"));
    let registry = Server::registry(vec![image.clone()], |_| None);
    let source = RegistrySource::new(
        reference(&registry),
        &options(&format!("file://{}", from.path().display())),
        &RegistriesConf::default(),
    )
    .unwrap();
    let digest = image.digest();

    // Into a registry that keeps them.
    let (server, log) = sink(image.clone(), true);
    let destination =
        RegistryDestination::new(reference(&server), &quick(), &RegistriesConf::default());
    block_on(copy(&source, &destination, &copy_options())).unwrap();
    let extension = format!("/extensions/v2/app/signatures/{digest}");
    assert_eq!(
        *log.lock().unwrap(),
        [
            format!("/v2/app/manifests/{digest}"),
            extension.clone(),
            extension,
            "/v2/app/manifests/latest".to_owned()
        ]
    );

    // Beside one that does not: after those that are there, and none twice.
    let to = tempfile::tempdir().unwrap();
    put(to.path(), &image, 1, &message("two"));
    put(to.path(), &image, 2, &message("theirs"));
    let (server, _) = sink(image.clone(), false);
    let beside = options(&format!("file://{}", to.path().display()));
    let destination =
        RegistryDestination::new(reference(&server), &beside, &RegistriesConf::default());
    for _ in 0..2 {
        block_on(copy(&source, &destination, &copy_options())).unwrap();
    }
    let directory = to.path().join(file(&image, 1)).parent().unwrap().to_owned();
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["signature-1", "signature-2", "signature-3"]);
    assert_eq!(
        std::fs::read(to.path().join(file(&image, 3))).unwrap(),
        message("one")
    );

    // Where they have no place the copy fails, unless they may stay behind.
    let layout = tempfile::tempdir().unwrap();
    let unwritable = options("http://127.0.0.1:1/sigs");
    let web = RegistryDestination::new(reference(&server), &unwritable, &RegistriesConf::default());
    let oci = block_on(LayoutDestination::create(
        layout.path().join("l"),
        Selection::Named("v1".into()),
        &LayoutOptions::default(),
    ))
    .unwrap();
    let destinations: [&dyn gantry_image::ImageDestination; 2] = [&web, &oci];
    for destination in destinations {
        let error = block_on(copy(&source, destination, &copy_options())).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{}", sentence(&error));
        let mut options = copy_options();
        options.remove_signatures = true;
        block_on(copy(&source, destination, &options)).unwrap();
    }
}

#[test]
fn a_manifest_that_changes_does_not_leave_its_signatures_silently() {
    let image = image(1, 100, 1);
    let from = tempfile::tempdir().unwrap();
    put(from.path(), &image, 1, &message("one"));
    let registry = Server::registry(vec![image.clone()], |_| None);
    let lookaside = options(&format!("file://{}", from.path().display()));
    let source =
        RegistrySource::new(reference(&registry), &lookaside, &RegistriesConf::default()).unwrap();
    let (server, _) = sink(image.clone(), true);
    let destination =
        RegistryDestination::new(reference(&server), &quick(), &RegistriesConf::default());
    let mut options = copy_options();
    options.wishes.format = Some(gantry_image::convert::ManifestFormat::Docker);
    let error = block_on(copy(&source, &destination, &options)).unwrap_err();
    assert!(
        sentence(&error).contains("--remove-signatures"),
        "{}",
        sentence(&error)
    );
    assert_eq!(server.count("blobs"), 0, "before any layer moves");
    options.remove_signatures = true;
    block_on(copy(&source, &destination, &options)).unwrap();
}

#[test]
fn who_signs_signs_what_arrives() {
    #[derive(Debug)]
    struct Word;
    #[async_trait::async_trait]
    impl gantry_transport::copy::Sign for Word {
        async fn sign(
            &self,
            manifest: &gantry_image::ManifestBytes,
        ) -> Result<Vec<SignatureBlob>, EndpointError> {
            Ok(vec![SignatureBlob {
                format: "simple-signing".into(),
                bytes: message(&manifest.digest().to_string()).into(),
            }])
        }
    }
    let image = image(1, 100, 1);
    let registry = Server::registry(vec![image.clone()], |_| None);
    let source =
        RegistrySource::new(reference(&registry), &quick(), &RegistriesConf::default()).unwrap();
    let to = tempfile::tempdir().unwrap();
    let (server, _) = sink(image.clone(), false);
    let beside = options(&format!("file://{}", to.path().display()));
    let destination =
        RegistryDestination::new(reference(&server), &beside, &RegistriesConf::default());
    let mut options = copy_options();
    options.signers = vec![Arc::new(Word)];
    options.wishes.format = Some(gantry_image::convert::ManifestFormat::Docker);
    let report = block_on(copy(&source, &destination, &options)).unwrap();
    assert_ne!(*report.digest.digest(), image.digest());
    let path = format!("app@sha256={}/signature-1", report.digest.hex());
    assert_eq!(
        std::fs::read(to.path().join(path)).unwrap(),
        message(&report.digest.to_string())
    );
}
