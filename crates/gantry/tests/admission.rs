// SPDX-License-Identifier: Apache-2.0
//! The policy, wherever an image changes hands or runs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{World, assert_one_sentence, fail, skopeo, skopeo_push, succeed};
use gantry_testkit::gpg::Gpg;
use gantry_testkit::{image, tar};
use serde_json::json;

const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;

/// Accepts what stands under this scope of `docker`, and nothing else.
fn only(scope: &str) -> String {
    format!(
        r#"{{"default":[{{"type":"reject"}}],
            "transports":{{"docker":{{"{scope}":[{{"type":"insecureAcceptAnything"}}]}}}}}}"#
    )
}

/// A command in a world, with a run root of the world's own.
fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command.env("GANTRY_RUNROOT", world.dir.join("run"));
    command
}

/// Refused by the policy: one sentence with the image and the reason, a hint, status 4 or `run`'s 125.
fn refused(command: &mut Command, why: &str) {
    let (status, said) = fail(command);
    let of_run = command.get_args().any(|arg| arg == "run");
    assert_eq!(status, if of_run { 125 } else { 4 }, "{said}");
    assert_one_sentence(&said);
    assert!(said.contains("is not admitted"), "{said}");
    assert!(said.contains(why), "{said}");
    assert!(
        said.contains("hint: see why: gantry trust explain"),
        "{said}"
    );
}

/// Pushes an index with an image for this machine.
fn push_index(world: &World, to: &str) {
    let layers = [image::Layer::gzip(&tar::join(&[tar::file(
        "which", "ours",
    )]))];
    let only = image::Image::new(&layers);
    let mut entry = image::descriptor(&only.media_type, &only.manifest);
    let host = gantry_oci::Platform::host();
    entry["platform"] = json!({"os": "linux", "architecture": host.architecture});
    let index = json!({"schemaVersion": 2, "mediaType": image::INDEX, "manifests": [entry]});
    let index = index.to_string().into_bytes();
    let layout = world.dir.join("index");
    let blobs = only.blobs.iter().chain([&only.manifest, &index]);
    image::write_layout(&layout, &image::descriptor(image::INDEX, &index), blobs).unwrap();
    let from = format!("oci:{}", layout.display());
    skopeo(&["copy", "-q", "--all", "--dest-tls-verify=false", &from, to]);
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn without_a_policy_nothing_is_admitted() {
    needs!(["tiny"], []);
    let world = World::new();
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    let missing = world.dir.join("missing.json");
    let without = |args: &[&str]| {
        let mut command = command(&world, args);
        command.env("CONTAINERS_POLICY_JSON", &missing);
        command
    };
    for args in [
        &["pull", &tiny][..],
        &["pull", "--dry-run", &tiny],
        &["copy", &tiny, "store:tiny"],
        &["run", "--dry-run", "tiny"],
    ] {
        let (status, said) = fail(&mut without(args));
        assert_eq!(status, if args[0] == "run" { 125 } else { 4 }, "{said}");
        assert_one_sentence(&said);
        assert!(
            said.contains("admit no image: find a policy: none of"),
            "{said}"
        );
        assert!(said.contains("missing.json"), "{said}");
        assert!(said.contains("gantry trust default"), "{said}");
    }
    assert!(!world.root().exists(), "nothing was made");
    // An option of ours behind the image is the program's, for who passes words on.
    succeed(&mut command(
        &world,
        &["--insecure-policy", "pull", "--quiet", &tiny],
    ));
    let (status, said) = fail(&mut without(&[
        "run",
        "--dry-run",
        "tiny",
        "--insecure-policy",
    ]));
    assert_eq!(status, 125, "{said}");
    assert!(said.contains("admit no image"), "{said}");
    succeed(&mut without(&[
        "--insecure-policy",
        "pull",
        "--quiet",
        &tiny,
    ]));
    let policy = world.policy_file();
    let named = [
        "--policy",
        policy.to_str().unwrap(),
        "pull",
        "--quiet",
        &tiny,
    ];
    succeed(&mut without(&named));
    let (status, said) = fail(&mut without(&[
        "--insecure-policy",
        "--policy",
        "x",
        "images",
    ]));
    assert_eq!(status, 2, "{said}");
}

#[test]
fn rules_that_cannot_be_read_admit_nothing() {
    needs!(["tiny"], []);
    let world = World::new();
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    let rules = world.dir.join(".config/gantry/trust.d");
    fs::create_dir_all(&rules).unwrap();
    fs::write(rules.join("10.toml"), "no rule = ").unwrap();
    let (_, said) = fail(&mut command(&world, &["pull", &tiny]));
    assert_one_sentence(&said);
    assert!(said.contains("admit no image"), "{said}");
    assert!(said.contains("10.toml"), "{said}");
    fs::remove_file(rules.join("10.toml")).unwrap();
    succeed(&mut command(&world, &["pull", "--quiet", &tiny]));
}

#[test]
fn each_way_in_and_out_asks_under_the_images_own_name() {
    needs!(["tiny"], ["docker-registry", "skopeo"]);
    let world = World::new();
    let registry = world.registry("registry");
    let host = registry.address().to_owned();
    skopeo_push("tiny", &format!("docker://{host}/team/app:v1"), &[]);
    push_index(&world, &format!("docker://{host}/team/multi:v1"));
    let app = format!("docker://{host}/team/app:v1");
    let layout = format!("oci:{}", text(&world.dir.join("layout")));

    // A registry's image is judged by its reference.
    world.set_policy(&only(&format!("{host}/team")));
    succeed(&mut command(&world, &["pull", "--quiet", &app]));
    succeed(&mut command(&world, &["copy", &app, &layout]));
    let multi = format!("docker://{host}/team/multi:v1");
    let all = format!("oci:{}", text(&world.dir.join("all")));
    succeed(&mut command(&world, &["copy", "--all", &multi, &all]));
    // A layout's by its path, which is not `docker`.
    refused(
        &mut command(&world, &["pull", &layout]),
        "the policy's default",
    );
    refused(
        &mut command(&world, &["copy", &layout, "store:other"]),
        "the policy's default",
    );
    // A store's by its name there; under another name it is another image.
    let back = format!("docker://{host}/team/back:v1");
    succeed(&mut command(
        &world,
        &[
            "push",
            &format!("{host}/team/app:v1"),
            &back,
            "--tls-verify=false",
        ],
    ));
    succeed(&mut command(
        &world,
        &["tag", &format!("{host}/team/app:v1"), "alias:v1"],
    ));
    refused(
        &mut command(&world, &["push", "alias:v1", &back, "--tls-verify=false"]),
        "localhost/alias:v1",
    );
    refused(
        &mut command(&world, &["copy", "store:alias:v1", &all]),
        "localhost/alias:v1",
    );

    // A tightened policy holds for all of them, and says which scope it was.
    let tight = format!(
        r#"{{"default":[{{"type":"insecureAcceptAnything"}}],
             "transports":{{"docker":{{"{host}/team/app":[{{"type":"reject"}}]}}}}}}"#
    );
    world.set_policy(&tight);
    let scope = format!("policy scope {host}/team/app of transport docker requires reject");
    for args in [
        &["pull", &app][..],
        &["pull", "--dry-run", &app],
        &["copy", &app, &layout],
        &["copy", "--dry-run", &app, &layout],
        &["push", &format!("{host}/team/app:v1"), &back],
        &[
            "run",
            "--dry-run",
            "--pull",
            "never",
            &format!("{host}/team/app:v1"),
        ],
    ] {
        refused(&mut command(&world, args), &scope);
    }
    // An index that is copied whole is judged, and so is each image of it.
    let tight = tight.replace("team/app", "team/multi");
    world.set_policy(&tight);
    for args in [
        &["copy", "--all", &multi, &all][..],
        &["copy", "--multi-arch", "index-only", &multi, &all],
        &["pull", &multi],
    ] {
        refused(&mut command(&world, args), "team/multi of transport docker");
    }
    world.set_policy(&only(&format!("{host}/team")));
    succeed(&mut command(&world, &["pull", "--quiet", &multi]));
}

#[test]
fn an_image_without_a_name_is_judged_by_all_that_lead_to_it() {
    needs!(["tiny"], []);
    let world = World::new();
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    let id = succeed(&mut command(&world, &["pull", "--quiet", &tiny]));
    let plan = |what: &str| command(&world, &["run", "--dry-run", "--pull", "never", what]);
    world.set_policy(&only("localhost"));
    succeed(&mut plan(&id));
    succeed(&mut plan(&id[..12]));
    succeed(&mut command(&world, &["tag", &id, "h.example/other:v1"]));
    world.set_policy(&only("h.example"));
    succeed(&mut plan(&id));
    world.set_policy(&only("h.example/nothing"));
    refused(&mut plan(&id), "requires reject");
    // Without any name there is only what holds for all of the transport.
    let untag = |name: &str| fs::remove_file(world.root().join("remotes").join(name)).unwrap();
    untag("h.example/other/v1");
    let name = fs::read_dir(world.root().join("remotes/localhost")).unwrap();
    fs::remove_dir_all(name.map(|entry| entry.unwrap().path()).next().unwrap()).unwrap();
    world.set_policy(&only("localhost"));
    refused(&mut plan(&id), "requires reject");
    world.set_policy(&only(""));
    succeed(&mut plan(&id));
}

#[test]
fn what_a_permissive_tool_brought_is_refused_at_the_start() {
    needs!(["tiny"], []);
    let world = World::new();
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    let bring = |args: &[&str]| succeed(command(&world, args).arg("--insecure-policy"));
    world.set_policy(REJECT);
    bring(&["pull", "--quiet", &tiny]);
    let plan = |what: &str| command(&world, &["run", "--dry-run", "--pull", "never", what]);
    refused(&mut plan("tiny"), "the policy's default requires reject");
    bring(&["tag", "tiny", "docker.io/library/good:v1"]);
    refused(&mut plan("good:v1"), "docker.io/library/good:v1");
    world.set_policy(ACCEPT);
    succeed(&mut plan("tiny"));
}

#[test]
fn a_share_has_the_name_that_this_host_gives_it() {
    needs!(["tiny"], []);
    let world = World::new();
    let share = world.dir.join("share");
    let tiny = gantry_testkit::fixtures::reference("tiny").unwrap();
    // The tree of a registry has names of its own.
    let mut pull = world.command_in(&share, ["pull", "--quiet", &tiny]);
    let id = succeed(&mut pull);
    let digests = fs::read_dir(share.join("digests")).unwrap();
    let digest = digests
        .map(|entry| entry.unwrap().file_name())
        .next()
        .unwrap();
    fs::create_dir_all(share.join("images/team/app")).unwrap();
    let target = PathBuf::from("../../../digests").join(digest);
    symlink(target, share.join("images/team/app/v1")).unwrap();

    let config = world.dir.join("gantry.toml");
    let on_second = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        command.arg("--root").arg(world.dir.join("second"));
        command.arg("--config-file").arg(&config).args(args);
        let environment = world.command([""; 0]);
        let environment = environment.get_envs();
        command.env_clear();
        for (name, value) in environment.filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        command.env("GANTRY_RUNROOT", world.dir.join("run"));
        command
    };
    let plan = |image: &str| on_second(&["run", "--dry-run", "--pull", "never", image]);
    let path = text(&share);
    fs::write(&config, format!("shares = [{path:?}]")).unwrap();
    world.set_policy(&only("localhost/team"));
    succeed(&mut plan("team/app:v1"));
    world.set_policy(&only("registry.example:5000/team"));
    refused(&mut plan("team/app:v1"), "localhost/team/app:v1");
    fs::write(
        &config,
        format!("shares = [{{ path = {path:?}, registry = \"registry.example:5000\" }}]"),
    )
    .unwrap();
    succeed(&mut plan("team/app:v1"));
    succeed(&mut plan("registry.example:5000/team/app:v1"));
    succeed(&mut plan(&id));
    let mut named = on_second(&["run", "--dry-run", "--share", &path, "team/app:v1"]);
    succeed(&mut named);
    world.set_policy(&only("localhost/team"));
    refused(
        &mut plan("team/app:v1"),
        "registry.example:5000/team/app:v1",
    );
    refused(&mut named, "registry.example:5000/team/app:v1");
}

#[test]
fn a_record_that_is_not_the_manifests_is_refused() {
    needs!(["tiny", "app-v1"], []);
    let world = World::new();
    for fixture in ["tiny", "app-v1"] {
        let from = gantry_testkit::fixtures::reference(fixture).unwrap();
        succeed(&mut command(
            &world,
            &["copy", &from, &format!("store:{fixture}")],
        ));
    }
    let digest = |name: &str| {
        let link = world
            .root()
            .join("remotes/localhost")
            .join(name)
            .join("latest");
        let target = fs::read_link(link).unwrap();
        world
            .root()
            .join("digests")
            .join(target.file_name().unwrap())
    };
    let (tiny, app) = (digest("tiny"), digest("app-v1"));
    // Whoever may write to the store exchanges what is mounted, and leaves the manifest that is admitted.
    let mut body: serde_json::Value =
        serde_json::from_slice(&fs::read(tiny.join("record.json")).unwrap()).unwrap();
    let mut other: serde_json::Value =
        serde_json::from_slice(&fs::read(app.join("record.json")).unwrap()).unwrap();
    let record = other["body"].take();
    let own = body["body"].take();
    let mut swapped = record;
    swapped["digest"] = own["digest"].clone();
    swapped["manifest_size_bytes"] = own["manifest_size_bytes"].clone();
    let text = serde_json::to_string(&swapped).unwrap();
    let checksum = gantry_oci::Digest::of(gantry_oci::Algorithm::Sha256, text.as_bytes());
    let whole = format!("{{\"format\":1,\"checksum\":\"{checksum}\",\"body\":{text}}}\n");
    fs::write(tiny.join("record.json"), whole).unwrap();
    for file in ["config.json", "image.erofs"] {
        fs::copy(app.join(file), tiny.join(file)).unwrap();
    }
    let (status, said) = fail(&mut command(&world, &["run", "--dry-run", "tiny"]));
    assert_eq!(status, 125, "{said}");
    assert!(
        said.contains("has another configuration than its manifest"),
        "{said}"
    );
}

/// A registry with one image, a lookaside whose signatures a case decides, and a policy that wants one key.
struct Signed {
    world: World,
    gpg: Gpg,
    key: String,
    host: String,
    digest: String,
    _registry: gantry_testkit::tool::DockerRegistry,
}

impl Signed {
    fn new() -> Self {
        let world = World::new();
        let gpg = Gpg::new().unwrap().unwrap();
        let key = gpg
            .make_key("a@a.example", "rsa2048", "sign,cert", "0")
            .unwrap();
        let registry = world.registry("registry");
        let host = registry.address().to_owned();
        skopeo_push("tiny", &format!("docker://{host}/team/app:v1"), &[]);
        let raw = format!("docker://{host}/team/app:v1");
        let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &raw]);
        let digest =
            gantry_oci::Digest::of(gantry_oci::Algorithm::Sha256, manifest.as_bytes()).to_string();
        let dir = world.dir.join(".config/containers/registries.d");
        fs::create_dir_all(&dir).unwrap();
        let lookaside = world.dir.join("lookaside");
        fs::create_dir(&lookaside).unwrap();
        let text = format!(
            "docker:\n  {host}:\n    lookaside: file://{}\n",
            lookaside.display()
        );
        fs::write(dir.join("test.yaml"), text).unwrap();
        fs::write(world.dir.join("key.gpg"), gpg.export(&key).unwrap()).unwrap();
        let signed = Self {
            world,
            gpg,
            key,
            host,
            digest,
            _registry: registry,
        };
        signed.want("key.gpg");
        signed
    }

    fn want(&self, key: &str) {
        let path = self.world.dir.join(key);
        let wanted = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": path}]);
        let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {&self.host: wanted}}});
        self.world.set_policy(&policy.to_string());
    }

    fn payload(&self, digest: &str, reference: &str) -> String {
        json!({
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": digest},
                "identity": {"docker-reference": reference},
            },
            "optional": {},
        })
        .to_string()
    }

    fn name(&self) -> String {
        format!("{}/team/app:v1", self.host)
    }

    fn sign(&self, payload: &str) -> Vec<u8> {
        self.gpg.sign(&self.key, payload.as_bytes(), &[]).unwrap()
    }

    fn good(&self) -> Vec<u8> {
        self.sign(&self.payload(&self.digest, &self.name()))
    }

    /// These signatures, and no others, in the lookaside.
    fn keep(&self, signatures: &[Vec<u8>]) {
        let dir = format!("lookaside/team/app@{}", self.digest.replace(':', "="));
        let dir = self.world.dir.join(dir);
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        for (number, signature) in signatures.iter().enumerate() {
            fs::write(dir.join(format!("signature-{}", number + 1)), signature).unwrap();
        }
    }
}

#[test]
fn a_verdict_is_remembered_and_a_tightened_policy_is_not_fooled() {
    needs!(["tiny"], ["docker-registry", "skopeo", "gpg"]);
    let signed = Signed::new();
    signed.keep(&[signed.good()]);
    let verdicts = signed.world.dir.join("run/verdicts");
    let count = || fs::read_dir(&verdicts).map_or(0, Iterator::count);
    let plan = || {
        let name = signed.name();
        command(
            &signed.world,
            &["run", "--dry-run", "--pull", "never", &name],
        )
    };
    let from = format!("docker://{}", signed.name());
    succeed(&mut command(&signed.world, &["pull", "--quiet", &from]));
    assert_eq!(count(), 1, "the pull's verdict");
    succeed(&mut plan());
    assert_eq!(count(), 1, "the same question at the start");
    // Without its signatures in the lookaside it still runs: they are kept with the image.
    signed.keep(&[]);
    succeed(&mut plan());
    // Other keys, no key, a policy that rejects: each refuses the next start.
    let key = signed.world.dir.join("key.gpg");
    let good = fs::read(&key).unwrap();
    let other = signed
        .gpg
        .make_key("c@c.example", "rsa2048", "sign,cert", "0")
        .unwrap();
    fs::write(&key, signed.gpg.export(&other).unwrap()).unwrap();
    refused(&mut plan(), "requires signedBy");
    fs::remove_file(&key).unwrap();
    refused(&mut plan(), "read keys");
    fs::write(&key, &good).unwrap();
    succeed(&mut plan());
    signed.world.set_policy(REJECT);
    refused(&mut plan(), "requires reject");
    signed.want("key.gpg");
    // A signature in the store that is damaged is not passed over.
    let digests = signed.world.root().join("digests");
    let kept = digests.join(&signed.digest).join("signatures");
    let file = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "x").unwrap();
    let (status, said) = fail(&mut plan());
    assert_eq!(status, 125, "{said}");
    fs::remove_file(&file).unwrap();
    refused(&mut plan(), "it has no signature");
}
