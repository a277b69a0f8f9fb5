// SPDX-License-Identifier: Apache-2.0
//! Reviews as an API server sends them, over TLS, about images in a real registry.
//!
//! No API server is packaged for Debian; the objects are written by the specification of the API, and the client is
//! Python's.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Kept, Server, World};
use gantry_admission::kubernetes::{Options, Webhooks};
use gantry_admission::{Bounds, Clerk, Journal, Listen, Tls};
use gantry_testkit::image::{Image, Layer};
use gantry_testkit::scratch::scratch;
use gantry_testkit::{skip, tar, tool};
use serde_json::{Value, json};

/// Sends standard input and prints status and answer. Arguments: address, path, CA, certificate and key of the client.
const CLIENT: &str = r#"
import http.client, ssl, sys
address, path, ca, cert, key = sys.argv[1:6]
context = ssl.create_default_context(cafile=ca)
if cert: context.load_cert_chain(cert, key)
connection = http.client.HTTPSConnection(address, context=context, timeout=30)
connection.request("POST", path, sys.stdin.buffer.read(), {"Content-Type": "application/json"})
answer = connection.getresponse()
print(answer.status)
print(answer.read().decode())
"#;

struct Cluster {
    world: World,
    journal: Arc<Kept>,
    server: Server,
    dir: gantry_testkit::scratch::Scratch,
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    tool::run(command.current_dir(dir).args(arguments.split_whitespace())).unwrap();
}

impl Cluster {
    fn start(bounds: Bounds, options: Options, audit: bool) -> Option<Self> {
        if !tool::missing(&["openssl", "python3", "skopeo"]).is_empty() {
            return None;
        }
        let dir = scratch();
        let world = World::start(dir.path())?;
        let at = dir.path();
        std::fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        for (arguments, end) in [
            (
                "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca",
                "",
            ),
            (
                "req -newkey rsa:2048 -nodes -keyout end.key -out end.csr -subj /CN=end",
                "",
            ),
            (
                "x509 -req -in end.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out end.crt -days 2",
                " -extfile ext",
            ),
        ] {
            openssl(at, &format!("{arguments}{end}"));
        }
        let journal = Arc::new(Kept::default());
        let clerk = Clerk::new(
            Arc::new(world.judge()),
            Arc::clone(&journal) as Arc<dyn Journal>,
            bounds,
            audit,
        );
        let tls = Tls {
            certificate: dir.join("end.crt"),
            key: dir.join("end.key"),
            client_authorities: Some(dir.join("ca.crt")),
        };
        let listen = Listen::Address("127.0.0.1:0".parse().unwrap(), Some(tls));
        let webhooks = Arc::new(Webhooks::new(Arc::new(clerk), options));
        Some(Self {
            server: Server::start(webhooks, listen, bounds),
            world,
            journal,
            dir,
        })
    }

    fn push(&self, name: &str, image: &Image) -> String {
        let layout = self.dir.join(name.replace(['/', ':'], "-"));
        image.write_layout(&layout, "x").unwrap();
        let reference = format!("{}/{name}", self.world.registry.address());
        let mut skopeo = Command::new("skopeo");
        skopeo
            .args([
                "--insecure-policy",
                "copy",
                "--all",
                "--dest-tls-verify=false",
            ])
            .arg(format!("oci:{}:x", layout.display()))
            .arg(format!("docker://{reference}"));
        tool::run(&mut skopeo).unwrap();
        reference
    }

    /// Status and body; status 0 where there was no answer.
    fn post(&self, path: &str, body: &[u8], with_certificate: bool) -> (u16, String) {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let (certificate, key) = if with_certificate {
            (file("end.crt"), file("end.key"))
        } else {
            (String::new(), String::new())
        };
        let address = self.server.address().unwrap().to_string();
        let mut child = Command::new("python3")
            .args([
                "-c",
                CLIENT,
                &address,
                path,
                &file("ca.crt"),
                &certificate,
                &key,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (status, body) = text.split_once('\n').unwrap_or(("0", ""));
        (status.parse().unwrap(), body.to_owned())
    }

    fn review(&self, kind: (&str, &str), operation: &str, object: &Value, old: &Value) -> Value {
        let (group, kind) = kind;
        let review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
                "kind": {"group": group, "version": "v1", "kind": kind},
                "resource": {"group": group, "version": "v1", "resource": "x"},
                "requestKind": {"group": group, "version": "v1", "kind": kind},
                "requestResource": {"group": group, "version": "v1", "resource": "x"},
                "name": "web", "namespace": "shop", "operation": operation,
                "userInfo": {"username": "jane", "uid": "1", "groups": ["system:authenticated"]},
                "object": object, "oldObject": old, "dryRun": false,
                "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            },
        });
        let (status, body) =
            self.post("/validate?timeout=10s", review.to_string().as_bytes(), true);
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(
            answer["response"]["uid"],
            "0df28fbd-5f5f-11e8-bc74-36e6bb280816"
        );
        answer["response"].clone()
    }

    fn creates(&self, kind: (&str, &str), object: &Value) -> Value {
        self.review(kind, "CREATE", object, &Value::Null)
    }
}

fn image(contents: &str) -> Image {
    Image::new(&[Layer::gzip(&tar::join(&[tar::file("f", contents)]))])
}

const POD: (&str, &str) = ("", "Pod");

fn pod(image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"containers": [{"name": "main", "image": image}], "restartPolicy": "Always"},
    })
}

#[test]
fn reviews_get_the_policys_verdict() {
    let Some(cluster) = Cluster::start(Bounds::default(), Options::default(), false) else {
        skip!("openssl, python3, skopeo or docker-registry not installed");
    };
    let good = cluster.push("good/app:v1", &image("good"));
    let evil = cluster.push("evil/app:v1", &image("evil"));
    let scope = good.rsplit_once('/').unwrap().0;
    cluster.world.accept(&[scope]);

    assert_eq!(cluster.creates(POD, &pod(&good))["allowed"], true);
    let refused = cluster.creates(POD, &pod(&evil));
    assert_eq!(refused["allowed"], false);
    assert_eq!(refused["status"]["code"], 403);
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(
        message.contains(&evil) && message.contains("rejects"),
        "{message}"
    );

    // One bad image anywhere is enough.
    let deployment = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let main = json!([{"name": "main", "image": good}]);
    for (kind, object) in [
        (
            ("apps", "Deployment"),
            deployment(json!({"containers": [{"image": evil}]})),
        ),
        (
            ("batch", "Job"),
            deployment(json!({"containers": main, "initContainers": [{"image": evil}]})),
        ),
        (
            POD,
            json!({"spec": {"containers": main, "ephemeralContainers": [{"image": evil}]}}),
        ),
        (
            POD,
            json!({"spec": {"containers": main, "volumes": [{"name": "v", "image": {"reference": evil}}]}}),
        ),
        // Not in the registry; of a kind that is not known; no reference.
        (POD, pod(&good.replace(":v1", ":v9"))),
        (
            ("example.com", "Rollout"),
            deployment(json!({"containers": main})),
        ),
        (POD, pod("Not A Reference")),
    ] {
        assert_eq!(cluster.creates(kind, &object)["allowed"], false, "{object}");
    }
    assert_eq!(
        cluster.creates(
            ("apps", "Deployment"),
            &deployment(json!({"containers": main}))
        )["allowed"],
        true
    );

    // A pod that runs a refused image can be changed otherwise, and removed.
    for operation in ["UPDATE", "DELETE"] {
        let review = cluster.review(POD, operation, &pod(&evil), &pod(&evil));
        assert_eq!(review["allowed"], true, "{operation}");
    }
    assert_eq!(
        cluster.review(POD, "UPDATE", &pod(&evil), &pod(&good))["allowed"],
        false
    );

    let image_review = |images: &[&str]| {
        let containers: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
        let review = json!({
            "apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "spec": {"containers": containers, "namespace": "shop",
                "annotations": {"x.image-policy.k8s.io/break-glass": "true"}},
        });
        let (status, body) = cluster.post("/image-policy", review.to_string().as_bytes(), true);
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["kind"], "ImageReview");
        answer["status"].clone()
    };
    assert_eq!(image_review(&[&good])["allowed"], true);
    let refused = image_review(&[&good, &evil]);
    assert_eq!(refused["allowed"], false);
    assert!(refused["reason"].as_str().unwrap().contains("rejects"));

    let decisions = cluster.journal.0.lock().unwrap();
    let last = decisions.last().unwrap();
    assert_eq!(
        (last.entry, last.namespace.as_deref()),
        ("image-review", Some("shop"))
    );
    assert_eq!(last.images.len(), 2);
}

#[test]
fn what_is_no_review_gets_no_verdict() {
    let bounds = Bounds {
        body_bytes: 64 << 10,
        ..Bounds::default()
    };
    let Some(cluster) = Cluster::start(bounds, Options::default(), false) else {
        skip!("openssl, python3, skopeo or docker-registry not installed");
    };
    for (path, body, status) in [
        ("/validate", &b"{}"[..], 400),
        ("/validate", b"", 400),
        ("/validate", b"\xff", 400),
        ("/image-policy", b"{\"kind\":\"ImageReview\"}", 400),
        ("/", b"{}", 404),
        ("/healthz", b"", 405),
        ("/validate", &[b' '; 65 << 10], 413),
    ] {
        assert_eq!(cluster.post(path, body, true).0, status, "{path}");
    }
    // Nobody but the API server.
    assert_eq!(cluster.post("/validate", b"{}", false).0, 0);
}

#[test]
fn a_verdict_that_is_late_is_a_refusal() {
    let bounds = Bounds {
        deadline: Duration::from_millis(500),
        ..Bounds::default()
    };
    let Some(cluster) = Cluster::start(bounds, Options::default(), false) else {
        skip!("openssl, python3, skopeo or docker-registry not installed");
    };
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    cluster.world.accept(&[&address]);
    let begun = Instant::now();
    let refused = cluster.creates(POD, &pod(&format!("{address}/app:v1")));
    assert_eq!(refused["allowed"], false);
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.contains("no verdict within"), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn digests_can_be_required_and_refusals_only_written_down() {
    let options = Options {
        require_digest: true,
    };
    let Some(cluster) = Cluster::start(Bounds::default(), options, true) else {
        skip!("openssl, python3, skopeo or docker-registry not installed");
    };
    let pinned = image("good");
    let good = cluster.push("good/app:v1", &pinned);
    let (scope, _) = good.rsplit_once(':').unwrap();
    cluster.world.accept(&[scope]);
    let by_digest = format!("{scope}@{}", pinned.digest());
    let allowed = cluster.creates(POD, &pod(&by_digest));
    assert_eq!(
        (&allowed["allowed"], &allowed["warnings"]),
        (&json!(true), &Value::Null)
    );
    let audited = cluster.creates(POD, &pod(&good));
    assert_eq!(audited["allowed"], true);
    assert!(
        audited["warnings"][0].as_str().unwrap().contains("digest"),
        "{audited}"
    );
    let decisions = cluster.journal.0.lock().unwrap();
    let admitted: Vec<bool> = decisions.iter().map(|decision| decision.admitted).collect();
    assert_eq!(admitted, [true, false]);
}
