// SPDX-License-Identifier: Apache-2.0
//! Sigstore signatures beside cosign and skopeo: they accept ours.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{OurRegistry, World, fail, skopeo, succeed};
use gantry_testkit::cosign::{self, Cosign};
use gantry_testkit::skip;
use gantry_testkit::{image, tar};
use serde_json::json;

const PEERS: [&str; 2] = ["skopeo", "docker-registry"];

/// A world with a key pair, an image and a configuration that attaches signatures.
struct Signing {
    world: World,
    layout: String,
}

impl Signing {
    fn new(host: &str, world: World) -> Self {
        let layer = image::Layer::gzip(&tar::join(&[tar::file("a", "signed")]));
        let dir = world.dir.join("layout");
        image::Image::new(&[layer])
            .write_layout(&dir, "v1")
            .unwrap();
        let signing = Self {
            layout: format!("oci:{}:v1", dir.display()),
            world,
        };
        let registries = signing.path(".config/containers/registries.d");
        std::fs::create_dir_all(&registries).unwrap();
        let text = format!("docker:\n  {host}:\n    use-sigstore-attachments: true\n");
        std::fs::write(registries.join("test.yaml"), text).unwrap();
        std::fs::write(signing.path("passphrase"), "secret\n").unwrap();
        for name in ["key", "other"] {
            signing.gantry(&[
                "generate-sigstore-key",
                "--output-prefix",
                &signing.text(name),
                "--passphrase-file",
                &signing.text("passphrase"),
            ]);
        }
        signing
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn gantry(&self, args: &[&str]) -> String {
        succeed(&mut self.world.command(args))
    }

    /// Copies the image to a registry, signed by the key.
    fn push(&self, name: &str, options: &[&str]) {
        let (key, passphrase) = (self.text("key.private"), self.text("passphrase"));
        let to = format!("docker://{name}");
        let signed = [
            "--sign-by-sigstore-private-key",
            &key,
            "--sign-passphrase-file",
            &passphrase,
        ];
        self.gantry(&[&["copy", &self.layout, &to], &signed[..], options].concat());
    }

    /// Whether skopeo copies out of the registry, under a policy that wants a key; nothing where it was built without
    /// sigstore, as Debian's is.
    fn skopeo_accepts(&self, name: &str, host: &str, key: &str) -> Option<bool> {
        let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {host: [
            {"type": "sigstoreSigned", "keyPath": self.path(key)}
        ]}}});
        std::fs::write(self.path("policy.json"), policy.to_string()).unwrap();
        let mut command = Command::new("skopeo");
        command
            .args(["--policy", &self.text("policy.json")])
            .args([
                "--registries.d",
                &self.text(".config/containers/registries.d"),
            ])
            .args([
                "copy",
                "-q",
                "--src-tls-verify=false",
                &format!("docker://{name}"),
            ])
            .arg(format!("dir:{}", self.text("out")))
            .env("HOME", self.world.dir.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("sigstore disabled") {
            skip::report("skopeo_accepts", "this skopeo was built without sigstore");
            return None;
        }
        assert!(
            output.status.success() || said.contains("ejected"),
            "{said}"
        );
        Some(output.status.success())
    }

    /// `HOST/NAME@sha256:…`
    fn by_digest(&self, name: &str) -> String {
        let from = format!("docker://{name}");
        let ask = [
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &from,
        ];
        let digest = skopeo(&ask);
        format!("{}@{}", name.rsplit_once(':').unwrap().0, digest.trim())
    }

    fn dir(&self) -> &Path {
        self.world.dir.path()
    }
}

#[test]
fn skopeo_and_cosign_accept_what_we_sign() {
    needs!([""; 0], PEERS);
    let world = World::new();
    let registry = world.registry("docker-registry");
    let host = registry.address().to_owned();
    let signing = Signing::new(&host, world);
    accepts(&signing, &host, true);
}

#[test]
fn our_registry_keeps_what_is_attached() {
    needs!([""; 0], PEERS);
    let world = World::new();
    let registry = OurRegistry::start(&world);
    let host = registry.address.clone();
    let signing = Signing::new(&host, world);
    accepts(&signing, &host, false);
}

fn accepts(signing: &Signing, host: &str, foreign_registry: bool) {
    let name = format!("{host}/team/app:v1");
    signing.push(&name, &[]);
    assert_ne!(signing.skopeo_accepts(&name, host, "key.pub"), Some(false));
    assert_ne!(signing.skopeo_accepts(&name, host, "other.pub"), Some(true));

    let Some(versions) = Cosign::both() else {
        skip!("{}", cosign::HOW);
    };
    let image = signing.by_digest(&name);
    let (key, other) = (signing.path("key.pub"), signing.path("other.pub"));
    for judge in &versions {
        judge.verify(signing.dir(), &key, &image, false).unwrap();
        judge
            .verify(signing.dir(), &other, &image, false)
            .unwrap_err();
    }

    let name = format!("{host}/team/bundled:v1");
    signing.push(&name, &["--sign-bundle"]);
    let image = signing.by_digest(&name);
    versions[1]
        .verify(signing.dir(), &key, &image, true)
        .unwrap();
    versions[1]
        .verify(signing.dir(), &other, &image, true)
        .unwrap_err();

    // A key of ours in cosign's hands, where the registry is nobody's doing.
    if foreign_registry {
        let name = format!("{host}/team/cosigned:v1");
        signing.push(&name, &[]);
        let image = signing.by_digest(&name);
        versions[0]
            .sign(signing.dir(), &signing.path("key.private"), &image, false)
            .unwrap();
        versions[0]
            .verify(signing.dir(), &key, &image, false)
            .unwrap();
    }
}

#[test]
fn a_parameter_file_signs_and_what_asks_a_server_is_refused() {
    needs!([""; 0], PEERS);
    let world = World::new();
    let registry = world.registry("docker-registry");
    let host = registry.address().to_owned();
    let signing = Signing::new(&host, world);
    let name = format!("{host}/team/app:v1");
    let to = format!("docker://{name}");
    signing.gantry(&["copy", &signing.layout, &to]);
    let accepted = || signing.skopeo_accepts(&name, &host, "key.pub");
    assert_ne!(accepted(), Some(true));
    let params = format!(
        "privateKeyFile: {}\nprivateKeyPassphraseFile: {}\n",
        signing.text("key.private"),
        signing.text("passphrase")
    );
    std::fs::write(signing.path("params.yaml"), &params).unwrap();
    let file = signing.text("params.yaml");
    signing.gantry(&["sign", &name, "--sign-by-sigstore", &file]);
    assert_ne!(accepted(), Some(false));
    if let Some([_, third]) = Cosign::both() {
        let (key, image) = (signing.path("key.pub"), signing.by_digest(&name));
        third.verify(signing.dir(), &key, &image, false).unwrap();
    }

    std::fs::write(
        signing.path("params.yaml"),
        params + "rekorURL: https://rekor.example\n",
    )
    .unwrap();
    let sign = ["sign", &name, "--sign-by-sigstore", &file];
    let (_, said) = fail(&mut signing.world.command(sign));
    assert!(said.contains("rekorURL"), "{said}");
}

#[test]
fn where_nothing_is_attached_signing_says_so() {
    needs!([""; 0], PEERS);
    let world = World::new();
    let registry = world.registry("docker-registry");
    let signing = Signing::new("elsewhere.example", world);
    let to = format!("docker://{}/team/app:v1", registry.address());
    let (key, passphrase) = (signing.text("key.private"), signing.text("passphrase"));
    let copy = [
        "copy",
        &signing.layout,
        &to,
        "--key",
        &key,
        "--sign-passphrase-file",
        &passphrase,
    ];
    let (_, said) = fail(&mut signing.world.command(copy));
    assert!(said.contains("use-sigstore-attachments"), "{said}");
    assert!(signing.path("key.private").exists());
}
