// SPDX-License-Identifier: Apache-2.0
//! Generated policies, images and signatures: our verdict is skopeo's.
//!
//! `GANTRY_TRUST_CASES` sets how many (200), `GANTRY_TRUST_SEED` which. What skopeo and we mean to decide
//! differently is in docs/trust.md, and is not generated here.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use gantry_image::{ManifestBytes, SignatureBlob, UnverifiedManifest};
use gantry_oci::{Algorithm, Digest, Limits, Reference};
use gantry_testkit::dice::Dice;
use gantry_testkit::scratch::{Scratch, scratch};
use gantry_testkit::tool::{self, DockerRegistry};
use gantry_trust::extra::{Circumstances, Extra};
use gantry_trust::scope::PathTransport;
use gantry_trust::{FoundSignature, Policy, PreparedPolicy, Question, Subject, evaluate};
use serde_json::{Value, json};

/// Ends a test where those are missing that judge.
macro_rules! judges {
    () => {
        let missing = tool::missing(&["skopeo", "gpg", "docker-registry"]);
        if !missing.is_empty() {
            gantry_testkit::skip!("{} not installed", missing.join(", "));
        }
    };
}

mod places;
mod render;

const SIGNERS: [&str; 3] = ["alice", "bob", "carol"];

/// Keys, two images, a registry that has them, and signatures of much that can be said of them.
struct World {
    dir: Scratch,
    registry: DockerRegistry,
    images: [Image; 2],
    signatures: Vec<Signature>,
}

struct Image {
    dir: PathBuf,
    manifest: ManifestBytes,
}

struct Signature {
    what: String,
    bytes: Bytes,
}

impl World {
    fn new() -> Self {
        let dir = scratch();
        let registry = DockerRegistry::start(&dir.join("registry")).unwrap();
        let images = ["1", "2"].map(|salt| write_image(&dir.join(salt), salt));
        let gpg = dir.join("gpg");
        fs::create_dir(&gpg).unwrap();
        tool::run(Command::new("chmod").arg("700").arg(&gpg)).unwrap();
        for signer in SIGNERS {
            let id = format!("{signer}@example.com");
            run_gpg(
                &gpg,
                &["--quick-generate-key", &id, "ed25519", "sign", "never"],
                &[],
            );
            let key = run_gpg(&gpg, &["--export", &id], &[]);
            fs::write(dir.join(format!("{signer}.gpg")), key).unwrap();
        }
        let mut world = Self {
            dir,
            registry,
            images,
            signatures: Vec::new(),
        };
        for image in &world.images {
            for name in ["ns/app:v1", "ns/app:v2", "other:v1"] {
                let from = format!("dir:{}", image.dir.display());
                // The second image takes v2 over, so that each tag is one image.
                if image.dir.ends_with("2") != name.ends_with("v2") {
                    continue;
                }
                let to = format!("docker://{}/{name}", world.registry.address());
                let args = [
                    "copy",
                    "--preserve-digests",
                    "--insecure-policy",
                    "--dest-tls-verify=false",
                    "-q",
                    &from,
                    &to,
                ];
                tool::text("skopeo", args).unwrap();
            }
        }
        world.sign_much(&gpg);
        world
    }

    fn sign_much(&mut self, gpg: &Path) {
        let host = self.registry.address();
        let digest = self.images[0].manifest.digest().to_string();
        let names = [
            format!("{host}/ns/app:v1"),
            format!("{host}/ns/app:v2"),
            format!("{host}/ns/app"),
            format!("{host}/ns/app@{digest}"),
            format!("{host}/other:v1"),
            "mirror.example/ns/app:v1".into(),
            "fixed.example/a:v1".into(),
            "busybox:latest".into(),
            "not a reference".into(),
        ];
        for image in &self.images {
            let digest = image.manifest.digest().to_string();
            for signer in SIGNERS {
                for name in &names {
                    let payload = json!({
                        "critical": {"type": "atomic container signature",
                                     "image": {"docker-manifest-digest": digest},
                                     "identity": {"docker-reference": name}},
                        "optional": {"creator": "test", "timestamp": 1_600_000_000},
                    });
                    self.signatures.push(Signature {
                        what: format!("{signer} {name} {digest}"),
                        bytes: sign(gpg, signer, payload.to_string().as_bytes()),
                    });
                }
            }
        }
        // What is signed well and says nothing that counts.
        let digest = self.images[0].manifest.digest().to_string();
        let good = |kind: &str, more: Value| {
            let mut payload = json!({
                "critical": {"type": kind,
                             "image": {"docker-manifest-digest": digest},
                             "identity": {"docker-reference": format!("{host}/ns/app:v1")}},
                "optional": {},
            });
            for (name, value) in more.as_object().unwrap() {
                payload["critical"][name] = value.clone();
            }
            payload.to_string()
        };
        for text in [
            good("another type", json!({})),
            good("atomic container signature", json!({"unknown": 1})),
            "{}".into(),
            "hello".into(),
        ] {
            self.signatures.push(Signature {
                what: format!("alice, odd: {text}"),
                bytes: sign(gpg, "alice", text.as_bytes()),
            });
        }
        for bytes in [&b"junk"[..], b""] {
            self.signatures.push(Signature {
                what: format!("junk {bytes:?}"),
                bytes: Bytes::from_static(bytes),
            });
        }
    }
}

fn run_gpg(home: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("gpg")
        .args([
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
            "--homedir",
        ])
        .arg(home)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn sign(home: &Path, signer: &str, payload: &[u8]) -> Bytes {
    let user = format!("{signer}@example.com");
    run_gpg(
        home,
        &["--local-user", &user, "--sign", "--output", "-"],
        payload,
    )
    .into()
}

/// A `dir:` image with one empty layer.
fn write_image(dir: &Path, salt: &str) -> Image {
    fs::create_dir(dir).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        fs::write(dir.join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let layer = [0_u8; 1024];
    let (layer_digest, layer_size) = put(&layer);
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"salt": salt}},
                        "rootfs": {"type": "layers", "diff_ids": [layer_digest]}});
    let (config_digest, config_size) = put(config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer_digest, "size": layer_size}],
    });
    let manifest = Bytes::from(manifest.to_string());
    fs::write(dir.join("manifest.json"), &manifest).unwrap();
    fs::write(dir.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    Image {
        dir: dir.to_owned(),
        manifest: UnverifiedManifest::new(manifest, None, None)
            .verify(None, &Limits::DEFAULT)
            .unwrap(),
    }
}

/// One generated case.
struct Case {
    policy: String,
    /// In the registry by this reference, or in the directory.
    reference: Option<String>,
    image: usize,
    signatures: Vec<usize>,
}

impl Case {
    fn generate(world: &World, dice: &mut Dice) -> Self {
        let host = world.registry.address();
        let digest = world.images[0].manifest.digest();
        let names = [
            (format!("{host}/ns/app:v1"), 0),
            (format!("{host}/ns/app:v2"), 1),
            (format!("{host}/ns/app@{digest}"), 0),
            (format!("{host}/other:v1"), 0),
        ];
        let (reference, image) = match dice.roll(6) {
            0 => (None, dice.roll(2)),
            _ => {
                let (name, image) = dice.one(&names);
                (Some(name.clone()), *image)
            }
        };
        let count = *dice.one(&[0, 1, 1, 2, 3]);
        Self {
            policy: generate_policy(world, dice),
            reference,
            image,
            signatures: (0..count).map(|_| likely(world, dice)).collect(),
        }
    }
}

/// A signature: mostly one that might count.
fn likely(world: &World, dice: &mut Dice) -> usize {
    match dice.roll(4) {
        0 => dice.roll(world.signatures.len()),
        // Of the first image, of any signer, by one of the first names.
        _ => dice.roll(3) * 9 + dice.roll(5),
    }
}

fn generate_policy(world: &World, dice: &mut Dice) -> String {
    let host = world.registry.address();
    let mut docker = serde_json::Map::new();
    let scopes = [
        String::new(),
        host.to_owned(),
        format!("{host}/ns"),
        format!("{host}/ns/app"),
        format!("{host}/ns/app:v1"),
        format!("{host}/n"),
        format!("{host}/ns/ap"),
        format!("{host}/ns/app@{}", world.images[0].manifest.digest()),
        "*.0.0.1".into(),
        "*.1".into(),
        "127.0.0.1".into(),
        "docker.io".into(),
    ];
    for _ in 0..dice.roll(5) {
        docker.insert(dice.one(&scopes).clone(), requirements(world, dice));
    }
    let mut dir = serde_json::Map::new();
    let path = world.images[0].dir.parent().unwrap();
    let paths = [
        String::new(),
        path.display().to_string(),
        path.join("1").display().to_string(),
        path.join("").display().to_string(),
        format!("{}x", path.display()),
    ];
    for _ in 0..dice.roll(3) {
        dir.insert(dice.one(&paths).clone(), requirements(world, dice));
    }
    let policy = json!({
        "default": requirements(world, dice),
        "transports": {"docker": docker, "dir": dir},
    });
    spoil(policy.to_string(), dice)
}

/// Now and then a policy that is none, or one that is written otherwise and means the same.
fn spoil(text: String, dice: &mut Dice) -> String {
    match dice.roll(40) {
        0 => text.replacen("\"type\"", "\"Type\"", 1),
        1 => text.replacen("\"default\"", "\"x\":1,\"default\"", 1),
        2 => text.replacen("reject", "Reject", 1),
        3 => format!("\u{feff}{text}"),
        4 => text.replacen("{\"type\"", "{\"type\":\"reject\",\"type\"", 1),
        5 => text[..text.len() - 1].to_owned(),
        6 => format!("{text} "),
        7 => format!("{text}x"),
        8 => text.replacen("\"default\"", "\"\\u0064efault\"", 1),
        9 => text.replacen("[{", "[", 1),
        10 => text.replacen("GPGKeys", "signedByGPGKeys", 1),
        11 => text.replacen("\"keyPath\"", "\"keyData\":\"\",\"keyPath\"", 1),
        _ => text,
    }
}

fn requirements(world: &World, dice: &mut Dice) -> Value {
    let count = *dice.one(&[1, 1, 1, 2]);
    (0..count).map(|_| requirement(world, dice)).collect()
}

fn requirement(world: &World, dice: &mut Dice) -> Value {
    match dice.roll(12) {
        0 => return json!({"type": "insecureAcceptAnything"}),
        1 => return json!({"type": "reject"}),
        2 if dice.roll(3) == 0 => {
            return json!({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}});
        }
        _ => {}
    }
    let key = |dice: &mut Dice| {
        let signer = dice.one(&["alice", "alice", "bob", "carol", "missing"]);
        world
            .dir
            .join(format!("{signer}.gpg"))
            .display()
            .to_string()
    };
    let mut requirement = json!({"type": "signedBy", "keyType": "GPGKeys"});
    match dice.roll(4) {
        0 => requirement["keyPaths"] = json!([key(dice), key(dice)]),
        1 => {
            use base64::Engine as _;
            let data = fs::read(world.dir.join("alice.gpg")).unwrap();
            let data = base64::engine::general_purpose::STANDARD.encode(data);
            requirement["keyData"] = json!(data);
        }
        _ => requirement["keyPath"] = json!(key(dice)),
    }
    let host = world.registry.address();
    let identity = match dice.roll(9) {
        0..=2 => return requirement,
        3 => json!({"type": "matchExact"}),
        4 => json!({"type": "matchRepoDigestOrExact"}),
        5 => json!({"type": "matchRepository"}),
        6 => {
            let references = [
                format!("{host}/ns/app:v1"),
                "fixed.example/a:v1".into(),
                "busybox:latest".into(),
            ];
            json!({"type": "exactReference", "dockerReference": dice.one(&references)})
        }
        7 => {
            let repositories = [
                format!("{host}/ns/app"),
                "fixed.example/a".into(),
                "busybox".into(),
            ];
            json!({"type": "exactRepository", "dockerRepository": dice.one(&repositories)})
        }
        _ => {
            let prefixes = [
                host.to_owned(),
                format!("{host}/ns"),
                format!("{host}/n"),
                "mirror.example".into(),
            ];
            json!({"type": "remapIdentity", "prefix": dice.one(&prefixes), "signedPrefix": dice.one(&prefixes)})
        }
    };
    requirement["signedIdentity"] = identity;
    requirement
}

/// Our verdict, and in words why.
fn ours(world: &World, case: &Case) -> (bool, String) {
    let limits = Limits::DEFAULT;
    match Policy::parse(Bytes::from(case.policy.clone()), &limits) {
        Ok(policy) => judged(world, case, &policy.load_keys(&limits), &Extra::default()),
        Err(error) => (false, format!("no policy: {error}")),
    }
}

/// Our verdict by a policy and rules.
fn judged(world: &World, case: &Case, policy: &PreparedPolicy, extra: &Extra) -> (bool, String) {
    let image = &world.images[case.image];
    let subject = match &case.reference {
        Some(reference) => Subject::docker(&Reference::parse_normalized(reference).unwrap()),
        None => Subject::path(PathTransport::Dir, &image.dir),
    };
    let signatures: Vec<FoundSignature> = case
        .signatures
        .iter()
        .map(|&number| FoundSignature {
            blob: SignatureBlob {
                format: "simple-signing".into(),
                bytes: world.signatures[number].bytes.clone(),
            },
            place: world.signatures[number].what.clone(),
        })
        .collect();
    let question = Question {
        subject: &subject,
        manifest: &image.manifest,
        chosen_from: None,
        signatures: &signatures,
        now: SystemTime::now(),
        circumstances: Circumstances::default(),
    };
    let verdict = evaluate(policy, extra, &question);
    let why = serde_json::to_string_pretty(&verdict).unwrap();
    (verdict.admitted, why)
}

/// skopeo's verdict, and what it said.
fn skopeos(world: &World, case: &Case, number: usize) -> (bool, String) {
    let dir = world.dir.join(format!("case-{number}"));
    let image = &world.images[case.image];
    let digest = image.manifest.digest();
    // The registry keeps no signatures; a lookaside of this case's own does.
    let (source, store) = match &case.reference {
        Some(reference) => {
            let name = Reference::parse_normalized(reference).unwrap().repository;
            let below = format!("lookaside/{name}@sha256={}", digest.hex());
            (format!("docker://{reference}"), dir.join(below))
        }
        None => {
            // A scope speaks of the directory's own path, so that the signatures go in there.
            (format!("dir:{}", image.dir.display()), image.dir.clone())
        }
    };
    fs::create_dir_all(&store).unwrap();
    let files: Vec<PathBuf> = (1..=case.signatures.len())
        .map(|position| store.join(format!("signature-{position}")))
        .collect();
    for (file, &number) in files.iter().zip(&case.signatures) {
        fs::write(file, &world.signatures[number].bytes).unwrap();
    }
    let output = skopeo_copy(world, &dir, &case.policy, &source, &dir.join("lookaside"));
    if case.reference.is_none() {
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
    }
    fs::remove_dir_all(&dir).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let judged = [
        "Source image rejected",
        "invalid policy",
        "Error loading trust policy",
        "rror reading signature",
    ];
    assert!(
        output.status.success() || judged.iter().any(|words| said.contains(words)),
        "skopeo failed for another reason: {said}"
    );
    (output.status.success(), said)
}

/// Lets skopeo copy a source into `dir`, by a policy and signatures in a lookaside directory.
fn skopeo_copy(world: &World, dir: &Path, policy: &str, source: &str, lookaside: &Path) -> Output {
    fs::create_dir_all(dir.join("registries.d")).unwrap();
    let lookaside = lookaside.display();
    let config = format!(
        "default-docker:\n  lookaside: file://{lookaside}\n  sigstore: file://{lookaside}\n"
    );
    fs::write(dir.join("registries.d/default.yaml"), config).unwrap();
    fs::write(dir.join("policy.json"), policy).unwrap();
    Command::new("skopeo")
        .arg("--registries.d")
        .arg(dir.join("registries.d"))
        .arg("--policy")
        .arg(dir.join("policy.json"))
        .args([
            "copy",
            "-q",
            "--remove-signatures",
            "--src-tls-verify=false",
            source,
        ])
        .arg(format!("dir:{}", dir.join("out").display()))
        .env("HOME", world.dir.path())
        .output()
        .unwrap()
}

/// A file that is no signature spoils all others for skopeo; for us it does not count.
fn is_explained(said: &str, ours: bool) -> bool {
    ours && said.contains("unrecognized signature format")
}

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

#[test]
fn our_verdict_is_skopeos() {
    judges!();
    let world = World::new();
    let cases = usize::try_from(setting("GANTRY_TRUST_CASES", 200)).unwrap();
    let seed = setting("GANTRY_TRUST_SEED", 0x6761_6e74_7279);
    let (mut admitted, mut differ) = (0, Vec::new());
    let mut dice = Dice(seed | 1);
    let generated: Vec<Case> = (0..cases)
        .map(|_| Case::generate(&world, &mut dice))
        .collect();
    // Cases in the directory share its place for signatures; the others run side by side.
    let next = AtomicUsize::new(0);
    let (directory, registry): (Vec<usize>, Vec<usize>) =
        (0..cases).partition(|&number| generated[number].reference.is_none());
    let judge = |number: usize| {
        let case = &generated[number];
        let (ours, why) = ours(&world, case);
        let (skopeos, said) = skopeos(&world, case, number);
        let found: Vec<&str> = case
            .signatures
            .iter()
            .map(|&n| &*world.signatures[n].what)
            .collect();
        let report = format!(
            "case {number}: {:?}\npolicy {}\nsignatures {found:#?}\nours {ours}: {why}\nskopeo {skopeos}: {said}",
            case.reference, case.policy
        );
        (ours, ours == skopeos || is_explained(&said, ours), report)
    };
    let worker = || {
        let mut verdicts = Vec::new();
        while let Some(&number) = registry.get(next.fetch_add(1, Ordering::Relaxed)) {
            verdicts.push(judge(number));
        }
        verdicts
    };
    let verdicts = std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        let mut verdicts: Vec<_> = directory.iter().map(|&number| judge(number)).collect();
        for worker in workers {
            verdicts.extend(worker.join().unwrap());
        }
        verdicts
    });
    for (ours, same, report) in verdicts {
        admitted += usize::from(ours);
        if !same {
            differ.push(report);
        }
    }
    assert!(
        differ.is_empty(),
        "{} of {cases} differ:\n{}",
        differ.len(),
        differ.join("\n\n")
    );
    // A generator that only makes refusals would prove little.
    assert!(
        admitted * 20 > cases && admitted * 10 < cases * 9,
        "{admitted} of {cases} admitted"
    );
}
