// SPDX-License-Identifier: Apache-2.0
//! Signatures beside gpg, skopeo and podman: they accept ours, we accept theirs.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{OurRegistry, Web, World, fail, succeed};
use gantry_testkit::gpg::Gpg;
use gantry_testkit::skip;
use gantry_testkit::skip::is_root;
use gantry_testkit::{image, tar};
use serde_json::json;

const PEERS: [&str; 4] = ["skopeo", "docker-registry", "gpg", "python3"];

/// A world with a signer, an image and a configuration of where signatures are.
struct Signing {
    world: World,
    gpg: Gpg,
    key: String,
    layout: String,
    /// podman takes no longer one than 50 bytes.
    runroot: tempfile::TempDir,
}

impl Signing {
    fn new() -> Self {
        let world = World::new();
        let gpg = Gpg::new().unwrap().unwrap();
        let key = gpg
            .make_key("a@a.example", "rsa2048", "sign,cert", "0")
            .unwrap();
        let layer = image::Layer::gzip(&tar::join(&[tar::file("a", "signed")]));
        let dir = world.dir.join("layout");
        image::Image::new(&[layer])
            .write_layout(&dir, "v1")
            .unwrap();
        let signing = Self {
            layout: format!("oci:{}:v1", dir.display()),
            runroot: tempfile::Builder::new().tempdir_in("/tmp").unwrap(),
            world,
            gpg,
            key,
        };
        signing.export("key.gpg", &signing.key);
        signing
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn export(&self, file: &str, key: &str) {
        std::fs::write(self.path(file), self.gpg.export(key).unwrap()).unwrap();
    }

    /// Where signatures of a registry are read and written; the user's own configuration.
    fn configure(&self, host: &str, read: &str, write: &str) {
        let dir = self.path(".config/containers/registries.d");
        std::fs::create_dir_all(&dir).unwrap();
        let text =
            format!("docker:\n  {host}:\n    lookaside: {read}\n    lookaside-staging: {write}\n");
        std::fs::write(dir.join("test.yaml"), text).unwrap();
    }

    /// A policy that wants each of these keys for one registry, and nothing else.
    fn policy(&self, host: &str, keys: &[&str]) -> String {
        let wanted: Vec<_> = keys
            .iter()
            .map(|key| json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": self.path(key)}))
            .collect();
        let policy =
            json!({"default": [{"type": "reject"}], "transports": {"docker": {host: wanted}}});
        std::fs::write(self.path("policy.json"), policy.to_string()).unwrap();
        self.text("policy.json")
    }

    fn gantry(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        command.env("GNUPGHOME", self.gpg.home());
        command
    }

    /// Another tool, as this user.
    fn tool(&self, program: &str, args: &[&str]) -> Command {
        common::foreign(program, self.world.dir.path(), self.gpg.home(), args)
    }

    fn push(&self, name: &str, options: &[&str]) {
        let fixed = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
        let to = format!("docker://{name}");
        succeed(&mut self.tool("skopeo", &[&fixed, options, &[&self.layout, &to]].concat()));
    }

    fn podman_command(&self, args: &[&str]) -> Command {
        let (home, run) = (self.world.dir.path(), self.runroot.path());
        common::podman(home, run, self.gpg.home(), args)
    }

    fn podman(&self, args: &[&str]) {
        succeed(&mut self.podman_command(args));
    }

    /// podman's pull under a policy; false if it refuses because of it.
    fn podman_pulls(&self, name: &str, policy: &str) -> bool {
        let pull = [
            "pull",
            "-q",
            "--tls-verify=false",
            "--signature-policy",
            policy,
            name,
        ];
        let output = self.podman_command(&pull).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() || said.contains("ignature") || said.contains("policy"),
            "{said}"
        );
        output.status.success()
    }

    fn manifest(&self, name: &str) -> PathBuf {
        let raw = self
            .tool(
                "skopeo",
                &[
                    "inspect",
                    "--raw",
                    "--tls-verify=false",
                    &format!("docker://{name}"),
                ],
            )
            .output()
            .unwrap();
        assert!(raw.status.success());
        std::fs::write(self.path("manifest"), raw.stdout).unwrap();
        self.path("manifest")
    }
}

#[test]
fn privileged_foreign_tools_accept_what_we_sign() {
    needs!([""; 0], PEERS);
    needs!([""; 0], ["podman"]);
    if !is_root() {
        skip!("podman as another user needs a user's session");
    }
    let signing = Signing::new();
    let registry = signing.world.registry("docker-registry");
    let (host, sigs) = (registry.address(), signing.path("sigs"));
    let web = Web::start(&sigs);
    signing.configure(host, &web.address, &format!("file://{}", sigs.display()));
    let name = format!("{host}/team/app:v1");
    signing.push(&name, &[]);
    let policy = signing.policy(host, &["key.gpg"]);
    assert!(!signing.podman_pulls(&name, &policy), "unsigned");

    succeed(&mut signing.gantry(&["sign", &name, "--sign-by", &signing.key]));
    assert!(signing.podman_pulls(&name, &policy));

    let manifest = signing.manifest(&name);
    let manifest = manifest.display().to_string();
    let digest = signing.world.gantry(["manifest-digest", &manifest]);
    let stored = sigs.join(format!("team/app@{}/signature-1", digest.replace(':', "=")));
    let message = std::fs::read(&stored).unwrap();
    let keys = std::fs::read(signing.path("key.gpg")).unwrap();
    let text = Gpg::judge(&keys, &message, None)
        .unwrap()
        .expect("gpg accepts it");
    let payload: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        payload["critical"]["identity"]["docker-reference"],
        name.as_str()
    );
    let stored = stored.display().to_string();
    succeed(&mut signing.tool(
        "skopeo",
        &["standalone-verify", &manifest, &name, &signing.key, &stored],
    ));
    let ours = signing.text("ours.sig");
    succeed(&mut signing.gantry(&[
        "standalone-sign",
        &manifest,
        &name,
        &signing.key,
        "-o",
        &ours,
    ]));
    succeed(&mut signing.tool(
        "skopeo",
        &["standalone-verify", &manifest, &name, &signing.key, &ours],
    ));

    // Two companies, and a policy that wants both.
    let other = signing
        .gpg
        .make_key("b@b.example", "ed25519", "sign,cert", "0")
        .unwrap();
    signing.export("other.gpg", &other);
    let both = signing.policy(host, &["key.gpg", "other.gpg"]);
    assert!(!signing.podman_pulls(&name, &both), "signed by one of two");
    let by_policy = ["--policy", &both, "verify", &name];
    let (_, said) = fail(&mut signing.gantry(&by_policy));
    assert!(said.contains("the policy does not admit it"), "{said}");
    succeed(&mut signing.gantry(&["sign", &name, "--sign-by", &other]));
    assert!(signing.podman_pulls(&name, &both));
    let said = succeed(&mut signing.gantry(&by_policy));
    assert!(said.starts_with("admitted: "), "{said}");

    // podman signs what it pushes.
    let pushed = format!("{host}/team/pushed:v1");
    signing.podman(&[
        "push",
        "-q",
        "--tls-verify=false",
        "--remove-signatures",
        "--sign-by",
        &signing.key,
        &name,
        &pushed,
    ]);
    succeed(&mut signing.gantry(&["verify", &pushed, "--key", &signing.text("key.gpg")]));

    // On the way, for another reference.
    let signed = format!("{host}/team/app:v2");
    succeed(&mut signing.gantry(&[
        "copy",
        &signing.layout,
        &format!("docker://{signed}"),
        "--sign-by",
        &signing.key,
    ]));
    let policy = signing.policy(host, &["key.gpg"]);
    assert!(signing.podman_pulls(&signed, &policy));
}

#[test]
fn we_accept_what_foreign_tools_sign() {
    needs!([""; 0], PEERS);
    let signing = Signing::new();
    let registry = signing.world.registry("docker-registry");
    let (host, sigs) = (registry.address(), signing.path("sigs"));
    let web = Web::start(&sigs);
    signing.configure(host, &web.address, &format!("file://{}", sigs.display()));
    let (name, key) = (format!("{host}/team/app:v1"), signing.text("key.gpg"));
    signing.push(&name, &[]);
    let (_, said) = fail(&mut signing.gantry(&["verify", &name, "--key", &key]));
    assert!(said.contains("none of 0 signatures"), "{said}");

    signing.push(&name, &["--sign-by", &signing.key]);
    let said = succeed(&mut signing.gantry(&["verify", &name, "--key", &key]));
    assert!(
        said.contains(&signing.key) && said.contains(&name),
        "{said}"
    );
    let docker = format!("docker://{name}");
    let (_, said) = fail(&mut signing.gantry(&[
        "verify",
        &docker,
        "--key",
        &key,
        "--identity",
        "a.example/b:v1",
    ]));
    assert!(said.contains("none of 1 signatures"), "{said}");
    let other = signing
        .gpg
        .make_key("b@b.example", "ed25519", "sign,cert", "0")
        .unwrap();
    signing.export("other.gpg", &other);
    fail(&mut signing.gantry(&["verify", &name, "--key", &signing.text("other.gpg")]));

    let manifest = signing.manifest(&name).display().to_string();
    let theirs = signing.text("theirs.sig");
    succeed(&mut signing.tool(
        "skopeo",
        &[
            "standalone-sign",
            &manifest,
            &name,
            &signing.key,
            "-o",
            &theirs,
        ],
    ));
    for fingerprints in ["any", &signing.key, &format!("{other},{}", signing.key)] {
        let verify = [
            "standalone-verify",
            &manifest,
            &name,
            fingerprints,
            &theirs,
            "--public-key-file",
            &key,
        ];
        succeed(&mut signing.gantry(&verify));
    }
    for (reference, fingerprints) in [("a.example/b:v1", "any"), (&name, other.as_str())] {
        let verify = [
            "standalone-verify",
            &manifest,
            reference,
            fingerprints,
            &theirs,
            "--public-key-file",
            &key,
        ];
        let (status, _) = fail(&mut signing.gantry(&verify));
        assert_eq!(status, 4);
    }
}

#[test]
fn privileged_our_registry_keeps_signatures_and_hides_none() {
    needs!([""; 0], PEERS);
    needs!([""; 0], ["podman"]);
    if !is_root() {
        skip!("podman as another user needs a user's session");
    }
    let signing = Signing::new();
    let beside = signing.path("beside");
    let config = format!(
        "[registry]\nsignatures = true\n[registry.repository.\"old/*\"]\nlookaside = \"file://{}\"\n\
         [registry.repository.\"none/*\"]\nsignatures = false\n",
        beside.display()
    );
    let registry = OurRegistry::start_with(&signing.world, &config);
    let (host, key) = (&registry.address, signing.text("key.gpg"));
    signing.configure(
        host,
        &format!("file://{}", signing.text("unused")),
        &format!("file://{}", beside.display()),
    );
    let policy = signing.policy(host, &["key.gpg"]);

    // skopeo signs into the registry, podman and we read from there.
    let name = format!("{host}/team/app:v1");
    signing.push(&name, &["--sign-by", &signing.key]);
    assert!(!beside.exists(), "skopeo writes to the registry");
    assert!(signing.podman_pulls(&name, &policy));
    succeed(&mut signing.gantry(&["verify", &name, "--key", &key]));

    // Every host that mounts the tree has it.
    let shared = [
        "verify",
        "store:team/app:v1",
        "--key",
        &key,
        "--identity",
        &name,
    ];
    succeed(&mut signing.world.command_in(&registry.root, shared));
    let manifest = signing.manifest(&name).display().to_string();
    let digest = signing.world.gantry(["manifest-digest", &manifest]);
    let tree = registry
        .root
        .join("digests")
        .join(&digest)
        .join("signatures");
    assert_eq!(std::fs::read_dir(tree).unwrap().count(), 1);

    // A pull keeps it, a copy carries it, a check looks at it.
    succeed(&mut signing.gantry(&["pull", &name]));
    succeed(&mut signing.gantry(&["verify", &format!("store:{name}"), "--key", &key]));
    signing.world.assert_clean();
    let again = format!("{host}/team/again:v1");
    let (from, to) = (format!("docker://{name}"), format!("docker://{again}"));
    succeed(&mut signing.gantry(&["copy", &from, &to]));
    succeed(&mut signing.gantry(&["verify", &again, "--key", &key, "--identity", &name]));

    // Signed in the store, at any time.
    let other = signing
        .gpg
        .make_key("b@b.example", "ed25519", "sign,cert", "0")
        .unwrap();
    signing.export("other.gpg", &other);
    succeed(&mut signing.gantry(&["sign", &format!("store:{name}"), "--sign-by", &other]));
    succeed(&mut signing.gantry(&[
        "verify",
        &format!("store:{name}"),
        "--key",
        &signing.text("other.gpg"),
    ]));
    let kept = signing
        .world
        .root()
        .join("digests")
        .join(&digest)
        .join("signatures");
    let damaged = std::fs::read_dir(&kept)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(damaged, b"other").unwrap();
    let (_, said) = fail(&mut signing.gantry(&["store", "check"]));
    assert!(!said.is_empty());
    succeed(&mut signing.gantry(&["rmi", &name]));
    succeed(&mut signing.gantry(&["store", "gc"]));
    assert!(!kept.exists());

    // Those of a lookaside are not hidden from clients that look into none any more.
    let old = format!("{host}/old/app:v1");
    signing.push(&old, &[]);
    assert!(!signing.podman_pulls(&old, &policy));
    let directory = beside.display().to_string();
    succeed(&mut signing.gantry(&[
        "sign",
        &old,
        "--sign-by",
        &signing.key,
        "--directory",
        &directory,
    ]));
    assert!(signing.podman_pulls(&old, &policy));

    // Where they are not kept, a push of one fails and a pull finds none.
    let none = format!("{host}/none/app:v1");
    signing.push(&none, &[]);
    fail(&mut signing.gantry(&["sign", &none, "--sign-by", &signing.key]));
    assert!(!signing.podman_pulls(&none, &policy));
}

#[test]
fn passphrases_and_plain_key_files_sign() {
    needs!([""; 0], PEERS);
    let signing = Signing::new();
    std::fs::write(signing.path("manifest"), b"{}").unwrap();
    let manifest = signing.text("manifest");
    let phrase = signing.text("phrase");
    std::fs::write(&phrase, "a long word\nand no more\n").unwrap();
    let make = [
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "a long word",
        "--quick-gen-key",
        "p@p.example",
    ];
    signing
        .gpg
        .run(&[&make[..], &["rsa2048", "sign,cert", "0"]].concat(), b"")
        .unwrap();
    let locked = signing.gpg.fingerprints("p@p.example").unwrap().remove(0);
    signing.export("locked.gpg", &locked);
    let (out, public) = (signing.text("out.sig"), signing.text("locked.gpg"));
    let sign = [
        "standalone-sign",
        &manifest,
        "a.example/b:v1",
        &locked,
        "-o",
        &out,
        "--passphrase-file",
        &phrase,
    ];
    let wrong = signing.text("wrong");
    std::fs::write(&wrong, "another\n").unwrap();
    let mut with_wrong = sign;
    with_wrong[7] = &wrong;
    // The agent keeps a passphrase that it learnt when the key was made.
    drop(
        Command::new("gpgconf")
            .env("GNUPGHOME", signing.gpg.home())
            .args(["--kill", "gpg-agent"])
            .status(),
    );
    let (status, said) = fail(&mut signing.gantry(&with_wrong));
    assert_eq!(status, 4, "{said}");
    succeed(&mut signing.gantry(&sign));
    let verify = [
        "standalone-verify",
        &manifest,
        "a.example/b:v1",
        "any",
        &out,
        "--public-key-file",
        &public,
    ];
    succeed(&mut signing.gantry(&verify));

    // Plain files: the keys that gpg exports, with and without a passphrase.
    let export = |key: &str, phrase: &str, file: &str| {
        let options = [
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            phrase,
            "--armor",
            "--export-secret-keys",
            key,
        ];
        std::fs::write(signing.path(file), signing.gpg.run(&options, b"").unwrap()).unwrap();
        signing.text(file)
    };
    let plain = export(&signing.key, "", "plain.asc");
    let secret = export(&locked, "a long word", "locked.asc");
    signing
        .world
        .gantry(["copy", &signing.layout, "store:localhost/app:v1"]);
    for (key, public, options) in [
        (&plain, "key.gpg", vec![]),
        (
            &secret,
            "locked.gpg",
            vec!["--sign-passphrase-file", phrase.as_str()],
        ),
    ] {
        let sign = ["sign", "store:localhost/app:v1", "--sign-by-key-file", key];
        succeed(&mut signing.gantry(&[&sign[..], &options].concat()));
        let public = signing.text(public);
        succeed(&mut signing.gantry(&["verify", "store:localhost/app:v1", "--key", &public]));
    }
}
