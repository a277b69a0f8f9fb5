// SPDX-License-Identifier: Apache-2.0
//! Who gets to see a secret: the registry and its own token service, nobody
//! else. Each case has a second server that hopes to be sent one.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::PathBuf;

use common::image::{Image, image};
use common::server::{Reply, Request, Server, answer, not_found, serve_images};
use common::{block_on, copy, copy_options, quick, sentence};
use gantry_image::{ImageSource as _, Wanted};
use gantry_oci::{Kind, Reference};
use gantry_transport::Selection;
use gantry_transport::copy::CopyError;
use gantry_transport::oci_layout::{LayoutDestination, LayoutOptions, LayoutSource};
use gantry_transport::registry::client::Login;
use gantry_transport::registry::mirrors::RegistriesConf;
use gantry_transport::registry::{
    Credentials, Environment, Options, Registry, RegistryDestination, RegistrySource,
};

/// `user:hunter2` as Basic writes it.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";
const TOKEN: &str = "token-for-the-registry";
const REFRESH: &str = "refresh-token";

fn basic() -> Options {
    let credentials = Credentials::parse("user:hunter2").unwrap();
    Options {
        login: Login::Given(credentials),
        ..quick()
    }
}

fn identity() -> Options {
    Options {
        login: Login::Given(Credentials::IdentityToken(REFRESH.into())),
        ..quick()
    }
}

fn sample() -> Image {
    image(1, 20_000, 11)
}

/// A server that takes anything, answers everything with a 401 that asks for
/// a password, and must not have been sent a secret.
struct Stranger(Server);

impl Stranger {
    fn new() -> Self {
        Self::answering(|_| answer(401, &[("WWW-Authenticate", "Basic realm=\"give\"")], b""))
    }

    fn answering(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self(Server::start(handler))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.address())
    }

    fn saw_no_secret(&self) {
        let transcript = self.0.transcript();
        for secret in [
            "hunter2",
            "dxnlcjpodw50zxiy",
            TOKEN,
            REFRESH,
            "authorization",
        ] {
            assert!(
                !transcript.contains(secret),
                "the stranger saw {secret}: {transcript}"
            );
        }
    }
}

/// Adds the token service's answers to a registry: requests need the token,
/// which is given for Basic or for the refresh token.
fn guarded(request: &Request, realm: &str) -> Option<Reply> {
    if request.path() == "/v2/" {
        return Some(answer(401, &[("WWW-Authenticate", &challenge(realm))], b""));
    }
    if request.path() == "/token" {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let known = request.header("authorization") == Some(BASIC)
            || body.contains(&format!("refresh_token={REFRESH}"));
        return Some(if known {
            answer(
                200,
                &[],
                format!("{{\"token\":\"{TOKEN}\",\"expires_in\":300}}").as_bytes(),
            )
        } else {
            answer(401, &[], b"")
        });
    }
    let carried = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
    (!carried).then(|| answer(401, &[("WWW-Authenticate", &challenge(realm))], b""))
}

fn challenge(realm: &str) -> String {
    format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:app:pull\"")
}

/// A registry whose token service is itself, but for `special`, which is
/// asked once the request carries the token.
fn registry(special: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let images = vec![sample()];
    Server::start(move |request| {
        let realm = format!("http://{}/token", request.header("host").unwrap());
        guarded(request, &realm)
            .or_else(|| special(request))
            .unwrap_or_else(|| serve_images(&images, request))
    })
}

fn reference(server: &Server) -> Reference {
    Reference::parse_normalized(&format!("{}/app:latest", server.address())).unwrap()
}

fn pull(server: &Server, options: &Options) -> Result<(), CopyError> {
    pull_with(server, options, &RegistriesConf::default())
}

fn pull_with(server: &Server, options: &Options, conf: &RegistriesConf) -> Result<(), CopyError> {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let source = RegistrySource::new(reference(server), options, conf).unwrap();
        let layout = LayoutOptions {
            no_sync: true,
            ..LayoutOptions::default()
        };
        let destination =
            LayoutDestination::create(dir.path().to_owned(), Selection::Only, &layout)
                .await
                .unwrap();
        copy(&source, &destination, &copy_options()).await.map(drop)
    })
}

fn push(server: &Server, options: &Options) -> Result<(), CopyError> {
    let dir = tempfile::tempdir().unwrap();
    common::image::write_layout(dir.path(), &[("v1", &sample())]);
    block_on(async {
        let source = LayoutSource::new(
            dir.path().to_owned(),
            Selection::Only,
            &LayoutOptions::default(),
        );
        let destination =
            RegistryDestination::new(reference(server), options, &RegistriesConf::default());
        copy(&source, &destination, &copy_options()).await.map(drop)
    })
}

#[test]
fn registry_with_its_own_token_service_works() {
    for options in [basic(), identity()] {
        let server = registry(|_| None);
        pull(&server, &options).unwrap();
        assert_eq!(server.count("/token"), 1, "one token for all requests");
        let asked = server
            .requests()
            .into_iter()
            .find(|request| request.path() == "/token")
            .unwrap();
        let words = format!("{}{}", asked.target, String::from_utf8_lossy(&asked.body));
        assert!(words.contains("scope=repository%3Aapp%3Apull"), "{words}");
        assert!(words.contains("service=test"), "{words}");
    }
}

#[test]
fn registry_with_basic_works() {
    let images = vec![sample()];
    let server = Server::start(move |request| {
        if request.header("authorization") == Some(BASIC) {
            serve_images(&images, request)
        } else {
            answer(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], b"")
        }
    });
    pull(&server, &basic()).unwrap();
    let error = pull(&server, &quick()).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        sentence(&error).contains("requires a login"),
        "{}",
        sentence(&error)
    );
    let wrong = Options {
        login: Login::Given(Credentials::parse("user:wrong").unwrap()),
        ..quick()
    };
    let error = pull(&server, &wrong).unwrap_err();
    assert!(
        sentence(&error).contains("does not accept"),
        "{}",
        sentence(&error)
    );
}

#[test]
fn expired_token_is_fetched_anew() {
    let server = registry(|request| {
        let expired = request.path().contains("/blobs/") && request.earlier < 1;
        let realm = format!("http://{}/token", request.header("host").unwrap());
        expired.then(|| {
            answer(
                401,
                &[(
                    "WWW-Authenticate",
                    &format!("{},error=\"invalid_token\"", challenge(&realm)),
                )],
                b"",
            )
        })
    });
    pull(&server, &basic()).unwrap();
}

#[test]
fn endless_401_ends() {
    let server = registry(|request| {
        let realm = format!("http://{}/token", request.header("host").unwrap());
        Some(answer(
            401,
            &[("WWW-Authenticate", &challenge(&realm))],
            b"",
        ))
    });
    let error = pull(&server, &basic()).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        server.requests().len() < 12,
        "{} requests",
        server.requests().len()
    );
}

#[test]
fn realm_elsewhere_gets_no_password_and_no_refresh_token() {
    for options in [basic(), identity()] {
        let stranger = Stranger::new();
        let realm = stranger.url("/token");
        let images = vec![sample()];
        let server = Server::start(move |request| {
            guarded(request, &realm).unwrap_or_else(|| serve_images(&images, request))
        });
        let error = pull(&server, &options).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(
            sentence(&error).contains("withheld"),
            "{}",
            sentence(&error)
        );
        assert!(!stranger.0.requests().is_empty(), "it is asked without");
        stranger.saw_no_secret();
    }
}

#[test]
fn realm_elsewhere_may_give_an_anonymous_token() {
    let stranger =
        Stranger::answering(|_| answer(200, &[], format!("{{\"token\":\"{TOKEN}\"}}").as_bytes()));
    let realm = stranger.url("/token");
    let images = vec![sample()];
    let server = Server::start(move |request| {
        guarded(request, &realm).unwrap_or_else(|| serve_images(&images, request))
    });
    pull(&server, &basic()).unwrap();
    stranger.saw_no_secret();
}

#[test]
fn redirect_of_the_token_service_is_not_followed() {
    let stranger = Stranger::new();
    let target = stranger.url("/token");
    let server = Server::start(move |request| match request.path() {
        "/token" => answer(307, &[("Location", &target)], b""),
        _ => {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            answer(401, &[("WWW-Authenticate", &challenge(&realm))], b"")
        }
    });
    pull(&server, &basic()).unwrap_err();
    assert!(stranger.0.requests().is_empty());
}

#[test]
fn redirected_blob_and_manifest_carry_no_token() {
    for (part, status) in [
        ("/blobs/", 307),
        ("/blobs/", 302),
        ("/manifests/", 307),
        ("/manifests/", 301),
    ] {
        let images = vec![sample()];
        let stranger = Stranger::answering(move |request| serve_images(&images, request));
        let address = stranger.0.address().to_owned();
        let server = registry(move |request| {
            let target = format!("http://{address}{}", request.target);
            request
                .path()
                .contains(part)
                .then(|| answer(status, &[("Location", &target)], b""))
        });
        pull(&server, &basic()).unwrap();
        assert!(!stranger.0.requests().is_empty());
        stranger.saw_no_secret();
    }
}

#[test]
fn redirect_target_that_asks_for_a_password_gets_none() {
    let stranger = Stranger::new();
    let target = stranger.url("/blob");
    let server = registry(move |request| {
        request
            .path()
            .contains("/blobs/")
            .then(|| answer(307, &[("Location", &target)], b""))
    });
    let error = pull(&server, &basic()).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    stranger.saw_no_secret();
}

#[test]
fn redirect_with_credentials_inside_is_refused() {
    let stranger = Stranger::new();
    let target = stranger
        .url("/blob")
        .replace("http://", "http://user:hunter2@");
    let server = registry(move |request| {
        request
            .path()
            .contains("/blobs/")
            .then(|| answer(307, &[("Location", &target)], b""))
    });
    assert_eq!(pull(&server, &basic()).unwrap_err().kind(), Kind::Unsafe);
    assert!(stranger.0.requests().is_empty());
}

#[test]
fn redirect_to_another_repository_carries_no_token() {
    let server = registry(|request| match request.path() {
        path if path.contains("/app/blobs/") => {
            let target = request.target.replace("/app/", "/other/");
            Some(answer(307, &[("Location", &target)], b""))
        }
        _ => None,
    });
    // The token is for `app`; the server must not see it at `other`.
    pull(&server, &basic()).unwrap_err();
    for request in server.requests() {
        assert!(
            !request.target.contains("/other/") || request.header("authorization").is_none(),
            "{request:?}"
        );
    }
}

#[test]
fn upload_location_elsewhere_carries_no_token() {
    let stranger = Stranger::answering(|request| match request.method.as_str() {
        "PATCH" => answer(202, &[("Location", "/upload/2")], b""),
        "PUT" => answer(201, &[], b""),
        _ => not_found(),
    });
    let target = stranger.url("/upload/1");
    let server = registry(
        move |request| match (request.method.as_str(), request.path()) {
            ("HEAD", _) => Some(answer(404, &[], b"")),
            ("POST", _) => Some(answer(202, &[("Location", &target)], b"")),
            ("PUT", path) if path.contains("/manifests/") => Some(answer(201, &[], b"")),
            _ => None,
        },
    );
    push(&server, &basic()).unwrap();
    assert!(
        stranger
            .0
            .requests()
            .iter()
            .any(|request| request.method == "PATCH")
    );
    stranger.saw_no_secret();
}

#[test]
fn redirect_of_a_push_stays_with_the_registry() {
    for part in ["/blobs/uploads/", "/manifests/"] {
        let stranger = Stranger::new();
        let target = stranger.url("/v2/app/x");
        let server = registry(move |request| {
            let path = request.path();
            match request.method.as_str() {
                "HEAD" => Some(answer(404, &[], b"")),
                "GET" => None,
                _ if path.contains(part) => Some(answer(307, &[("Location", &target)], b"")),
                "POST" => Some(answer(202, &[("Location", "/v2/app/blobs/uploads/1")], b"")),
                "PATCH" => Some(answer(202, &[("Location", "/v2/app/blobs/uploads/1")], b"")),
                _ => Some(answer(201, &[], b"")),
            }
        });
        let error = push(&server, &basic()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsafe, "{}", sentence(&error));
        assert!(stranger.0.requests().is_empty());
    }
}

#[test]
fn mirror_elsewhere_gets_no_command_line_credentials() {
    let mirror = Stranger::new();
    let server = registry(|_| None);
    // Another name for this host, so that it is another registry.
    let address = mirror.0.address().replace("127.0.0.1", "localhost");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{address}\"\n",
        server.address()
    );
    std::fs::write(&path, text).unwrap();
    let environment = Environment {
        registries_conf: Some(path),
        ..Environment::default()
    };
    let conf = RegistriesConf::load(&environment).unwrap();
    pull_with(&server, &basic(), &conf).unwrap();
    assert!(!mirror.0.requests().is_empty(), "the mirror is asked first");
    mirror.saw_no_secret();
}

#[test]
fn foreign_urls_are_not_followed() {
    let stranger = Stranger::new();
    let url = stranger.url("/layer");
    let image = sample();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["mediaType"] =
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    manifest["layers"][0]["urls"] = serde_json::json!([url]);
    let digest = image.layer(0).digest.to_string();
    let server = registry(move |request| match request.path() {
        path if path.ends_with("/manifests/latest") => {
            Some(answer(200, &[], manifest.to_string().as_bytes()))
        }
        path if path.ends_with(&digest) => Some(not_found()),
        _ => None,
    });
    assert_eq!(pull(&server, &basic()).unwrap_err().kind(), Kind::NotFound);
    assert!(stranger.0.requests().is_empty());
}

#[test]
fn tag_pages_elsewhere_are_not_asked() {
    let stranger = Stranger::new();
    let link = format!(
        "<{}>; rel=\"next\"",
        stranger.url("/v2/app/tags/list?last=a")
    );
    let server = registry(move |request| {
        request
            .path()
            .ends_with("/tags/list")
            .then(|| answer(200, &[("Link", &link)], br#"{"tags":["a"]}"#))
    });
    let reference = reference(&server);
    let registry = Registry::new(reference.host, basic());
    let error = block_on(registry.repository(reference.repository).tags()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsafe);
    assert!(stranger.0.requests().is_empty());
}

#[test]
fn token_bodies_have_a_cap() {
    let server = Server::start(|request| match request.path() {
        "/token" => answer(200, &[], &vec![b' '; (1 << 20) + 1]),
        _ => {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            answer(401, &[("WWW-Authenticate", &challenge(&realm))], b"")
        }
    });
    let error = pull(&server, &basic()).unwrap_err();
    assert!(
        sentence(&error).contains("too large"),
        "{}",
        sentence(&error)
    );
}

#[test]
fn failing_token_service_is_named() {
    let server = Server::start(|request| match request.path() {
        "/token" => answer(500, &[], b"oops"),
        _ => {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            answer(401, &[("WWW-Authenticate", &challenge(&realm))], b"")
        }
    });
    let error = pull(&server, &basic()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        sentence(&error).contains("token service 127.0.0.1 answers 500"),
        "{}",
        sentence(&error)
    );
}

#[test]
fn credentials_come_from_auth_json_by_repository() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("auth.json");
    let server = registry(|_| None);
    let key = format!("{}/app", server.address());
    std::fs::write(
        &path,
        serde_json::json!({"auths": {key: {"auth": "dXNlcjpodW50ZXIy"}}}).to_string(),
    )
    .unwrap();
    let options = Options {
        auth_files: vec![path],
        ..quick()
    };
    pull(&server, &options).unwrap();
    // Another repository of the same registry has no entry.
    let other = Reference::parse_normalized(&format!("{}/other:v1", server.address())).unwrap();
    let source = RegistrySource::new(other, &options, &RegistriesConf::default()).unwrap();
    let error = block_on(source.manifest(Wanted::Primary)).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
}

#[test]
fn errors_and_debug_forms_hold_no_secret() {
    let server = registry(|request| request.path().contains("/blobs/").then(not_found));
    let error = pull(&server, &basic()).unwrap_err();
    let source =
        RegistrySource::new(reference(&server), &basic(), &RegistriesConf::default()).unwrap();
    drop(block_on(source.manifest(Wanted::Primary)).unwrap());
    let text = format!("{error:?} {} {source:?} {:?}", sentence(&error), basic());
    for secret in ["hunter2", "dXNlcjpodW50ZXIy", TOKEN] {
        assert!(!text.contains(secret), "{text}");
    }
}
