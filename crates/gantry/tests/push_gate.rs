// SPDX-License-Identifier: Apache-2.0
//! The registry's gate beside skopeo, podman and cosign: they push as they always do.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{OurRegistry, World, fail, succeed};
use gantry_testkit::cosign::{self, Cosign};
use gantry_testkit::gpg::Gpg;
use gantry_testkit::skip;
use gantry_testkit::skip::is_root;
use gantry_testkit::{image, tar};
use serde_json::{Value, json};

/// What the registry is called in policies; clients of these tests know its port only.
const NAME: &str = "registry.test";

const CONFIG: &str = r#"
[registry]
name = "registry.test"
signatures = true
[registry.waiting]
look-every = "1s"
[registry.repository."strict/*"]
policy = "enforce"
[registry.repository."staged/*"]
policy = "staged"
"#;

/// A registry with a gate, two signers and an image.
struct Gated {
    world: World,
    gpg: Gpg,
    keys: [String; 2],
    registry: OurRegistry,
    layout: String,
    runroot: tempfile::TempDir,
}

impl Gated {
    fn new(config: &str) -> Self {
        let world = World::new();
        let gpg = Gpg::new().unwrap().unwrap();
        let keys = ["a", "b"].map(|name| {
            let user = format!("{name}@{name}.example");
            let key = gpg.make_key(&user, "rsa2048", "sign,cert", "0").unwrap();
            std::fs::write(world.dir.join(name), gpg.export(&key).unwrap()).unwrap();
            key
        });
        let layer = image::Layer::gzip(&tar::join(&[tar::file("a", "signed")]));
        let dir = world.dir.join("layout");
        image::Image::new(&[layer])
            .write_layout(&dir, "v1")
            .unwrap();
        let registries_d = world.dir.join("registries.d");
        std::fs::create_dir_all(&registries_d).unwrap();
        let registry = OurRegistry::start_gated(&world, config, &registries_d);
        let gated = Self {
            layout: format!("oci:{}:v1", dir.display()),
            runroot: tempfile::Builder::new().tempdir_in("/tmp").unwrap(),
            world,
            gpg,
            keys,
            registry,
        };
        gated.want(&["a"]);
        gated
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.dir.join(name)
    }

    /// The registry's policy asks for each of these signers.
    fn want(&self, signers: &[&str]) {
        let identity =
            json!({"type": "remapIdentity", "prefix": NAME, "signedPrefix": self.registry.address});
        let wanted: Vec<Value> = signers
            .iter()
            .map(|signer| {
                json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": self.path(signer),
                       "signedIdentity": identity})
            })
            .collect();
        let policy =
            json!({"default": [{"type": "reject"}], "transports": {"docker": {NAME: wanted}}});
        self.world.set_policy(&policy.to_string());
    }

    fn docker(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.registry.address)
    }

    fn tool(&self, program: &str, args: &[&str]) -> Command {
        common::foreign(program, self.world.dir.path(), self.gpg.home(), args)
    }

    fn skopeo(&self, name: &str, options: &[&str]) -> Command {
        let fixed = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
        let to = self.docker(name);
        self.tool("skopeo", &[&fixed, options, &[&self.layout, &to]].concat())
    }

    fn podman(&self, args: &[&str]) -> Command {
        let (home, run) = (self.world.dir.path(), self.runroot.path());
        common::podman(home, run, self.gpg.home(), args)
    }

    /// Whether clients find it, and the share has it; both or neither.
    #[track_caller]
    fn is_published(&self, name: &str) -> bool {
        let raw = ["inspect", "--raw", "--tls-verify=false", &self.docker(name)];
        let served = self.tool("skopeo", &raw).output().unwrap().status.success();
        let place = self
            .registry
            .root
            .join("images")
            .join(name.replace(':', "/"));
        assert_eq!(served, place.is_symlink(), "{name}");
        served
    }

    fn waiting(&self) -> Vec<Value> {
        let mut list = self
            .world
            .command_in(&self.registry.root, ["registry", "waiting", "--json"]);
        let all: Value = serde_json::from_str(&succeed(&mut list)).unwrap();
        all.as_array().unwrap().clone()
    }

    fn wait_until_published(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.waiting().is_empty() {
            assert!(Instant::now() < deadline, "{name}: {:?}", self.waiting());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(self.is_published(name));
    }

    /// The digest of the image.
    fn digest(&self) -> String {
        let index = std::fs::read(self.path("layout").join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        index["manifests"][0]["digest"].as_str().unwrap().to_owned()
    }

    /// Signs the image of the layout as `name`, into a lookaside directory.
    fn sign_beside(&self, signer: usize, name: &str, lookaside: &Path) {
        let layout = self.path("layout");
        let digest = self.digest();
        let manifest = layout.join("blobs").join(digest.replace(':', "/"));
        let (repository, _) = name.split_once(':').unwrap();
        let directory = lookaside.join(format!("{repository}@{}", digest.replace(':', "=")));
        std::fs::create_dir_all(&directory).unwrap();
        let number = std::fs::read_dir(&directory).unwrap().count() + 1;
        let out = self.path("new-signature");
        let reference = format!("{}/{name}", self.registry.address);
        let (manifest, out_text) = (manifest.display().to_string(), out.display().to_string());
        let sign = [
            "standalone-sign",
            &manifest,
            &reference,
            &self.keys[signer],
            "-o",
            &out_text,
        ];
        succeed(&mut self.tool("skopeo", &sign));
        std::fs::rename(out, directory.join(format!("signature-{number}"))).unwrap();
    }
}

impl OurRegistry {
    /// With the policy of this world, and a directory that says where signatures lie.
    fn start_gated(world: &World, config: &str, registries_d: &Path) -> Self {
        let (policy, registries_d) = (
            world.policy_file().display().to_string(),
            registries_d.display().to_string(),
        );
        let options = ["--policy", &policy, "--registries.d", &registries_d];
        Self::start_options(world, config, &options)
    }
}

/// The command with a configuration file.
fn configured(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    command
        .arg("--config-file")
        .arg(config)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", config.parent().unwrap());
    command
}

const PEERS: [&str; 2] = ["skopeo", "gpg"];

#[test]
fn skopeo_signs_after_it_pushed() {
    needs!([""; 0], PEERS);
    let gated = Gated::new(CONFIG);
    gated.want(&["a", "b"]);
    let name = "staged/app:v1";
    // Unsigned, and signed by one of two.
    succeed(&mut gated.skopeo(name, &[]));
    assert!(!gated.is_published(name));
    succeed(&mut gated.skopeo(name, &["--sign-by", &gated.keys[0]]));
    assert!(!gated.is_published(name));
    let waiting = gated.waiting();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(waiting[0]["repository"], "staged/app");
    assert_eq!(waiting[0]["tag"], "v1");
    let reason = waiting[0]["reason"].as_str().unwrap();
    assert!(reason.contains("signedBy"), "{reason}");
    let mut list = gated
        .world
        .command_in(&gated.registry.root, ["registry", "waiting"]);
    let table = succeed(&mut list);
    assert!(
        table.contains("staged/app") && table.contains(reason),
        "{table}"
    );
    // By the other, too.
    succeed(&mut gated.skopeo(name, &["--sign-by", &gated.keys[1]]));
    assert!(gated.is_published(name));
    assert_eq!(gated.waiting(), [] as [Value; 0]);

    // Enforced, a push that brings its signature behind it fails, in one sentence.
    let strict = "strict/app:v1";
    let said = gated
        .skopeo(strict, &["--sign-by", &gated.keys[0]])
        .output()
        .unwrap();
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("denied") && said.contains("signedBy"),
        "{said}"
    );
    assert!(!gated.is_published(strict));
    assert!(!gated.registry.root.join("images/strict").exists());
}

#[test]
fn signatures_that_lie_beside_come_first_or_later() {
    needs!([""; 0], PEERS);
    needs!([""; 0], ["python3"]);
    let gated = Gated::new(CONFIG);
    let beside = gated.path("beside");
    std::fs::create_dir_all(&beside).unwrap();
    let registries_d = gated.path("registries.d").join("here.yaml");
    let configure = |base: &str| {
        let text = format!("docker:\n  {NAME}:\n    lookaside: {base}\n");
        std::fs::write(&registries_d, text).unwrap();
    };
    let web = common::Web::start(&beside);
    for (number, base) in [format!("file://{}", beside.display()), web.address.clone()]
        .iter()
        .enumerate()
    {
        configure(base);
        let (strict, staged) = (
            format!("strict/n{number}:v1"),
            format!("staged/n{number}:v1"),
        );
        fail(&mut gated.skopeo(&strict, &[]));
        gated.sign_beside(0, &strict, &beside);
        succeed(&mut gated.skopeo(&strict, &[]));
        assert!(gated.is_published(&strict));
        succeed(&mut gated.skopeo(&staged, &[]));
        assert!(!gated.is_published(&staged));
        // Nobody tells the registry; it looks.
        gated.sign_beside(0, &staged, &beside);
        gated.wait_until_published(&staged);
    }
    // A lookaside that is not there hides nothing and admits nothing.
    drop(web);
    gated.sign_beside(0, "strict/n2:v1", &beside);
    let (_, said) = fail(&mut gated.skopeo("strict/n2:v1", &[]));
    assert!(said.contains("lookaside"), "{said}");
    configure(&format!("file://{}", beside.display()));
    succeed(&mut gated.skopeo("strict/n2:v1", &[]));
}

#[test]
fn the_extension_gives_what_a_web_server_has() {
    needs!([""; 0], PEERS);
    needs!([""; 0], ["python3"]);
    let place = World::new();
    let web = common::Web::start(&place.dir.join("beside"));
    let config = format!(
        "[registry]\nsignatures = true\n[registry.repository.\"old/*\"]\nlookaside = \"{}\"\n",
        web.address
    );
    let gated = Gated::new(&config);
    let name = "old/app:v1";
    succeed(&mut gated.skopeo(name, &["--sign-by", &gated.keys[0]]));
    gated.sign_beside(1, name, &place.dir.join("beside"));
    let verify = |signer: &str| {
        let key = gated.path(signer).display().to_string();
        let image = format!("{}/{name}", gated.registry.address);
        gated.world.command(["verify", &image, "--key", &key])
    };
    for signer in ["a", "b"] {
        succeed(&mut verify(signer));
    }
    // It answers not at all rather than with a part.
    drop(web);
    let (_, said) = fail(&mut verify("a"));
    assert!(said.contains("503"), "{said}");
}

#[test]
fn privileged_podman_signs_what_it_pushes() {
    needs!([""; 0], PEERS);
    needs!([""; 0], ["podman"]);
    if !is_root() {
        skip!("podman as another user needs a user's session");
    }
    let gated = Gated::new(CONFIG);
    let image = format!("{}/staged/app:v1", gated.registry.address);
    let accept = gated.path("accept.json");
    std::fs::write(
        &accept,
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    let accept = accept.display().to_string();
    succeed(&mut gated.skopeo("free/app:v1", &[]));
    let free = format!("{}/free/app:v1", gated.registry.address);
    let pull = ["pull", "-q", "--tls-verify=false", "--signature-policy"];
    let loaded = succeed(&mut gated.podman(&[&pull[..], &[&accept, &free]].concat()));
    let push = ["push", "-q", "--tls-verify=false"];
    succeed(&mut gated.podman(&[&push[..], &[&loaded, &image]].concat()));
    assert!(!gated.is_published("staged/app:v1"));
    let sign = [
        "--remove-signatures",
        "--sign-by",
        &gated.keys[0],
        &loaded,
        &image,
    ];
    succeed(&mut gated.podman(&[&push[..], &sign].concat()));
    assert!(gated.is_published("staged/app:v1"));
    // Its own pull accepts what the gate did.
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {gated.registry.address.clone():
        [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": gated.path("a")}]}}});
    let strict = gated.path("strict.json");
    std::fs::write(&strict, policy.to_string()).unwrap();
    let strict = strict.display().to_string();
    succeed(&mut gated.podman(&[&pull[..], &[&strict, &image]].concat()));
    // A host that mounts the tree starts it by the same policy, without any network.
    let mut explain = configured(&gated.world.dir.join("registry.toml"));
    explain
        .env("CONTAINERS_POLICY_JSON", gated.world.policy_file())
        .arg("--root")
        .arg(&gated.registry.root)
        .args(["trust", "explain", "store:staged/app:v1"]);
    let said = succeed(&mut explain);
    assert!(said.contains("admitted"), "{said}");
}

#[test]
fn cosign_signs_what_waits() {
    needs!([""; 0], PEERS);
    let Some(versions) = Cosign::both() else {
        skip!("{}", cosign::HOW);
    };
    let config = format!("{CONFIG}\n[trust]\nunnamed-bundles = [\"{NAME}/staged\"]\n");
    let gated = Gated::new(&config);
    std::fs::write(gated.path("passphrase"), "secret\n").unwrap();
    let (prefix, passphrase) = (gated.path("key"), gated.path("passphrase"));
    gated.world.gantry([
        "generate-sigstore-key".as_ref(),
        "--output-prefix".as_ref(),
        prefix.as_os_str(),
        "--passphrase-file".as_ref(),
        passphrase.as_os_str(),
    ]);
    for (version, bundle) in [
        (&versions[0], false),
        (&versions[1], false),
        (&versions[1], true),
    ] {
        let repository = format!("staged/c{}-{bundle}", version.major);
        let place = format!("{}/{repository}", gated.registry.address);
        let policy = json!({"default": [{"type": "sigstoreSigned", "keyPath": gated.path("key.pub"),
            "signedIdentity": {"type": "exactRepository", "dockerRepository": place}}]});
        gated.world.set_policy(&policy.to_string());
        let name = format!("{repository}:v1");
        succeed(&mut gated.skopeo(&name, &[]));
        assert!(!gated.is_published(&name));
        let image = format!("{place}@{}", gated.digest());
        let key = gated.path("key.private");
        let signed = version.sign(gated.world.dir.path(), &key, &image, bundle);
        if bundle {
            // It looks for the image first, which nobody sees. docs/trust.md says so.
            let error = format!("{:#}", signed.unwrap_err());
            assert!(error.contains("404"), "{error}");
            assert!(!gated.is_published(&name));
            continue;
        }
        signed.unwrap();
        assert!(gated.is_published(&name), "{name}: {:?}", gated.waiting());
        let key = gated.path("key.pub");
        version
            .verify(gated.world.dir.path(), &key, &image, bundle)
            .unwrap();
    }
}

#[test]
fn our_own_copy_signs_on_the_way() {
    needs!([""; 0], PEERS);
    let gated = Gated::new(CONFIG);
    let to = gated.docker("staged/app:v1");
    let copy = |options: &[&str]| {
        let mut command = gated
            .world
            .command([&["copy", "--insecure-policy", &gated.layout, &to], options].concat());
        command.env("GNUPGHOME", gated.gpg.home());
        command
    };
    succeed(&mut copy(&[]));
    assert!(!gated.is_published("staged/app:v1"));
    succeed(&mut copy(&["--sign-by", &gated.keys[0]]));
    assert!(gated.is_published("staged/app:v1"));
    gated.wait_until_published("staged/app:v1");
}

#[test]
fn a_registry_without_a_name_asks_no_policy() {
    let world = World::new();
    let config = world.dir.join("gantry.toml");
    for (policy, refused) in [("enforce", true), ("staged", true), ("off", false)] {
        let text = format!("[registry.repository.\"a/*\"]\npolicy = \"{policy}\"\n");
        std::fs::write(&config, text).unwrap();
        let listen = if refused {
            "127.0.0.1:0"
        } else {
            "203.0.113.1:1"
        };
        let mut serve = configured(&config);
        serve.arg("--root").arg(world.root());
        let (_, said) = fail(serve.args(["registry", "serve", "--listen", listen]));
        assert_eq!(
            said.contains("what clients call this registry"),
            refused,
            "{said}"
        );
    }
    std::fs::write(&config, "[registry]\npolicy = \"maybe\"\n").unwrap();
    let (_, said) = fail(configured(&config).args(["registry", "serve"]));
    assert!(said.contains("parse configuration"), "{said}");
}
