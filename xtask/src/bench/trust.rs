// SPDX-License-Identifier: Apache-2.0
//! What a verdict on trust costs: checking signatures at a pull, and finding an admission that is in force at a start.
//!
//! The cost is the difference between a command under a policy that asks for signatures and the same command with
//! `--insecure-policy`, in pairs, as a median: all else is the same in both. Nothing is unpacked and nothing is started
//! (`--dry-run`). Signatures lie in a directory, so that what is added is no network but for the question whether the
//! registry keeps signatures itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::gpg::Gpg;
use gantry_testkit::tool::{self, DockerRegistry};
use serde_json::{Value, json};

use super::Bed;
use super::compare::{Contender, Pace, Report, Sample, compare, median, once};
use super::pull::{version, wipe};
use super::push::skopeo_push;

/// Pairs for each figure, for one run of a longer bench.
const PAIRS: usize = 40;

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let missing = tool::missing(&["skopeo", "docker-registry", "gpg"]);
    ensure!(missing.is_empty(), "not installed: {}", missing.join(", "));
    wipe(bed, "trust")?;
    let gpg = Gpg::new()?.context("gpg is not installed")?;
    let registry = DockerRegistry::start(&bed.path("docker-registry"))?;
    skopeo_push("tiny", registry.address())?;
    let scene = Scene::new(bed, &gpg, format!("{}/set/tiny:latest", registry.address()))?;
    for case in scene.cases()? {
        case.write()?;
        scene.at_pull(&case, report)?;
        scene.at_start(&case, report)?;
    }
    scene.standalone(report)
}

/// One image in a registry, and keys.
struct Scene<'a> {
    bed: &'a Bed,
    gpg: &'a Gpg,
    name: String,
    manifest: PathBuf,
    digest: String,
}

/// A policy and the signatures that meet it.
struct Case {
    name: &'static str,
    dir: PathBuf,
    requirements: Value,
    signatures: Vec<Vec<u8>>,
    lookaside: String,
}

impl Case {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Policy, registries.d and lookaside.
    fn write(&self) -> Result<()> {
        let policy = json!({
            "default": [{"type": "reject"}],
            "transports": {"docker": {"": self.requirements}},
        });
        let signatures = self.path(&self.lookaside);
        fs::create_dir_all(&signatures)?;
        fs::create_dir_all(self.path("registries.d"))?;
        fs::write(self.path("policy.json"), policy.to_string())?;
        let lookaside = self.path("lookaside");
        let text = format!(
            "default-docker:\n  lookaside: file://{}\n",
            lookaside.display()
        );
        fs::write(self.path("registries.d/all.yaml"), text)?;
        for (number, signature) in (1..).zip(&self.signatures) {
            fs::write(signatures.join(format!("signature-{number}")), signature)?;
        }
        Ok(())
    }
}

impl<'a> Scene<'a> {
    fn new(bed: &'a Bed, gpg: &'a Gpg, name: String) -> Result<Self> {
        let dir = bed.path("trust");
        let manifest = dir.join("manifest.json");
        let source = format!("docker://{name}");
        let raw = ["inspect", "--raw", "--tls-verify=false", &source];
        let output = tool::run(Command::new("skopeo").args(raw))?;
        fs::write(&manifest, &output.stdout)?;
        Ok(Self {
            bed,
            gpg,
            name,
            manifest,
            digest: gantry_testkit::image::digest(&output.stdout),
        })
    }

    fn cases(&self) -> Result<Vec<Case>> {
        let (rsa, rsa_by) = self.signer("rsa4096")?;
        let (ed, ed_by) = self.signer("ed25519")?;
        let (sigstore, sigstore_by) = self.sigstore()?;
        Ok(vec![
            self.case("rsa4096", json!([rsa]), vec![rsa_by.clone()]),
            self.case("ed25519", json!([ed]), vec![ed_by.clone()]),
            self.case("two signers", json!([rsa, ed]), vec![rsa_by, ed_by]),
            self.case("sigstore key pair", json!([sigstore]), vec![sigstore_by]),
        ])
    }

    fn case(&self, name: &'static str, requirements: Value, signatures: Vec<Vec<u8>>) -> Case {
        Case {
            name,
            // In an address there are no spaces.
            dir: self.path(&name.replace(' ', "-")),
            requirements,
            signatures,
            lookaside: format!("lookaside/set/tiny@{}", self.digest.replace(':', "=")),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bed.path("trust").join(name)
    }

    /// A key that gpg makes: what a policy asks for, and its signature.
    fn signer(&self, algorithm: &'static str) -> Result<(Value, Vec<u8>)> {
        let key = self.gpg.make_key(algorithm, algorithm, "sign,cert", "0")?;
        let file = self.path(&format!("{algorithm}.gpg"));
        fs::write(&file, self.gpg.export(&key)?)?;
        let payload = json!({
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": self.digest},
                "identity": {"docker-reference": self.name},
            },
            "optional": {},
        });
        let signature = self.gpg.sign(&key, payload.to_string().as_bytes(), &[])?;
        fs::write(self.path(&format!("{algorithm}.sig")), &signature)?;
        let requirement = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": file});
        Ok((requirement, signature))
    }

    /// A key pair of sigstore, and the signature that our command makes with it in a store.
    fn sigstore(&self) -> Result<(Value, Vec<u8>)> {
        let (prefix, phrase) = (self.path("team"), self.path("phrase"));
        fs::write(&phrase, "bench\n")?;
        let mut make = self.bed.gantry();
        make.args(["generate-sigstore-key", "--output-prefix"])
            .arg(&prefix)
            .arg("--passphrase-file")
            .arg(&phrase);
        tool::run(&mut make)?;
        let root = self.path("signing");
        let in_store = |args: &[&str]| {
            let mut command = self.bed.gantry();
            command.arg("--root").arg(&root).args(args);
            command
        };
        let source = format!("docker://{}", self.name);
        tool::run(&mut in_store(&[
            "pull",
            "--quiet",
            "--tls-verify=false",
            &source,
        ]))?;
        let stored = format!("store:{}", self.name);
        let mut sign = in_store(&["sign", &stored, "--key"]);
        sign.arg(prefix.with_extension("private"))
            .arg("--sign-passphrase-file")
            .arg(&phrase);
        tool::run(&mut sign)?;
        let kept = root.join("digests").join(&self.digest).join("signatures");
        let mut files = fs::read_dir(kept)?;
        let file = files.next().context("the store keeps no signature")??;
        let requirement =
            json!({"type": "sigstoreSigned", "keyPath": prefix.with_extension("pub")});
        Ok((requirement, fs::read(file.path())?))
    }

    /// Our command with a store and a run root of the case's own, under its policy or under none.
    fn command(&self, case: &Case, checked: bool, args: &[&str]) -> Command {
        let mut command = Command::new(&self.bed.gantry);
        command
            .arg("--registries.d")
            .arg(case.path("registries.d"))
            .arg("--root")
            .arg(case.path("store"))
            .arg("--runroot")
            .arg(case.path("run"));
        if checked {
            command.arg("--policy").arg(case.path("policy.json"));
        } else {
            command.arg("--insecure-policy");
        }
        command.args(args);
        command
    }

    /// Nothing is remembered.
    fn at_pull(&self, case: &Case, report: &mut Report) -> Result<()> {
        let source = format!("docker://{}", self.name);
        let args = ["pull", "--dry-run", "--tls-verify=false", &source];
        let forget = || match fs::remove_dir_all(case.path("run")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        };
        let subject = format!("pull, {}", case.name);
        self.added(&subject, "target 5", report, case, &args, &forget)
    }

    /// The admission of the pull is in force.
    fn at_start(&self, case: &Case, report: &mut Report) -> Result<()> {
        let source = format!("docker://{}", self.name);
        let pull = ["pull", "--quiet", "--tls-verify=false", &source];
        tool::run(&mut self.command(case, true, &pull))?;
        let args = ["run", "--dry-run", "--pull", "never", &self.name];
        let verdicts = || fs::read_dir(case.path("run/verdicts")).map_or(0, Iterator::count);
        tool::run(&mut self.command(case, true, &args))?;
        ensure!(
            verdicts() == 1,
            "the start asks another question than the pull"
        );
        let subject = format!("start, {}", case.name);
        self.added(&subject, "target 1", report, case, &args, &|| Ok(()))?;
        ensure!(verdicts() == 1, "a start was not warm");
        Ok(())
    }

    fn added(
        &self,
        subject: &str,
        target: &str,
        report: &mut Report,
        case: &Case,
        args: &[&str],
        prepare: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let contender = |checked| Contender {
            name: "the same with --insecure-policy",
            version: env!("CARGO_PKG_VERSION").into(),
            prepare: Box::new(prepare),
            commands: Box::new(move || vec![self.command(case, checked, args)]),
            daemons: Vec::new(),
            pace: Pace::Brief,
        };
        let (with, without) = (contender(true), contender(false));
        let (mut checked, mut plain, mut added) = (Vec::new(), Vec::new(), Vec::new());
        let pairs = self.bed.runs * PAIRS;
        for pair in 0..pairs {
            // Who goes first changes, so that neither always finds what the other left in the caches.
            let (one, other) = if pair % 2 == 0 {
                let one = once(&with)?;
                (one, once(&without)?)
            } else {
                let other = once(&without)?;
                (once(&with)?, other)
            };
            added.push(Sample {
                wall_ms: one.wall_ms - other.wall_ms,
                ..Sample::default()
            });
            checked.push(one);
            plain.push(other);
        }
        let who = (with.name, with.version.as_str());
        report.record(
            "trust",
            subject,
            who,
            pairs,
            median(&checked),
            median(&plain),
        )?;
        let added = median(&added).wall_ms;
        report.note(format!(
            "trust: {subject}: {added:.2} ms are added ({target} ms)"
        ));
        Ok(())
    }

    /// One signature in a file, by program.
    fn standalone(&self, report: &mut Report) -> Result<()> {
        for algorithm in ["rsa4096", "ed25519"] {
            let fingerprint = self.gpg.fingerprints(algorithm)?;
            let fingerprint = fingerprint.first().context("the key is gone")?;
            let signature = self.path(&format!("{algorithm}.sig"));
            let verify = |program: &Path| {
                let mut command = Command::new(program);
                command
                    .arg("standalone-verify")
                    .arg(&self.manifest)
                    .args([&self.name, fingerprint])
                    .arg(&signature)
                    .env("GNUPGHOME", self.gpg.home());
                command
            };
            let ours = self.judge(
                "gantry standalone-verify",
                env!("CARGO_PKG_VERSION"),
                || {
                    let mut command = verify(&self.bed.gantry);
                    let key = self.path(&format!("{algorithm}.gpg"));
                    command.arg("--public-key-file").arg(key);
                    command
                },
            );
            let skopeo_version = version("skopeo")?;
            let skopeo = self.judge("skopeo standalone-verify", &skopeo_version, || {
                verify(Path::new("skopeo"))
            });
            let gpg_version = version("gpg")?;
            let gpg = self.judge("gpg --verify", &gpg_version, || {
                let mut command = Command::new("gpg");
                command
                    .args(["--batch", "--verify"])
                    .arg(&signature)
                    .env("GNUPGHOME", self.gpg.home());
                command
            });
            let subject = format!("one file, {algorithm}");
            let runs = self.bed.runs * 8;
            compare(report, "trust", &subject, runs, &ours, &[skopeo, gpg])?;
        }
        Ok(())
    }

    fn judge<'b>(
        &self,
        name: &'static str,
        version: &str,
        command: impl Fn() -> Command + 'b,
    ) -> Contender<'b> {
        Contender {
            name,
            version: version.to_owned(),
            prepare: Box::new(|| Ok(())),
            commands: Box::new(move || vec![command()]),
            daemons: Vec::new(),
            pace: Pace::Brief,
        }
    }
}
