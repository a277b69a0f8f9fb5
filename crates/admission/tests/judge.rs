// SPDX-License-Identifier: Apache-2.0
//! What a daemon says of an image against what a registry has of it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_admission::{Asked, Content, Judge as _, PolicyJudge, Rules, Sources};
use gantry_image::{BlobStream, EndpointError, ImageSource, UnverifiedManifest, Wanted};
use gantry_oci::{Descriptor, Kind, Limits, ManifestDigest, Platform, Reference};
use gantry_testkit::image::{Image, Layer};
use gantry_testkit::tar;
use gantry_trust::admit::{QuestionKey, Remembered};
use gantry_trust::prepared::Real;
use gantry_trust::{Authority, Extra, NoMemory, Policy, extra};
use serde_json::{Value, json};

/// A registry in memory: manifests by digest, and one that its name leads to.
#[derive(Debug, Clone, Default)]
struct Memory {
    manifests: BTreeMap<String, Vec<u8>>,
    primary: String,
}

impl Memory {
    fn put(&mut self, image: &Image) {
        self.manifests
            .insert(image.digest(), image.manifest.clone());
        for child in &image.children {
            self.put(child);
        }
        self.primary = image.digest();
    }
}

impl Sources for Memory {
    fn open(&self, _: &Reference) -> Result<Box<dyn ImageSource>, EndpointError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl ImageSource for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn manifest(&self, wanted: Wanted<'_>) -> Result<UnverifiedManifest, EndpointError> {
        let digest = match wanted {
            Wanted::Primary => self.primary.clone(),
            Wanted::Digest(digest) => digest.to_string(),
        };
        let bytes = self.manifests.get(&digest);
        let bytes = bytes.ok_or_else(|| EndpointError::new(Kind::NotFound, "no such manifest"))?;
        Ok(UnverifiedManifest::new(
            Bytes::from(bytes.clone()),
            None,
            None,
        ))
    }

    async fn blob(&self, _: &Descriptor) -> Result<BlobStream, EndpointError> {
        Err(EndpointError::new(Kind::NotFound, "no blob is needed"))
    }
}

#[derive(Debug)]
struct Text(Value);

impl Rules for Text {
    fn load(&self) -> Result<Authority, String> {
        let text = Bytes::from(self.0.to_string());
        let policy = Policy::parse(text, &Limits::DEFAULT).map_err(|error| error.to_string())?;
        let policy = policy.load_keys(&Limits::DEFAULT);
        Ok(Authority::new(policy, Extra::default()))
    }
}

fn accepting() -> Value {
    json!({"default": [{"type": "insecureAcceptAnything"}]})
}

async fn judge(policy: Value, memory: &Memory, content: Content) -> (bool, String) {
    judge_with(Arc::new(Text(policy)), memory, content).await
}

async fn judge_with(rules: Arc<dyn Rules>, memory: &Memory, content: Content) -> (bool, String) {
    let judge = PolicyJudge {
        rules,
        memory: Arc::new(NoMemory),
        sources: Box::new(memory.clone()),
        platforms: vec![Platform::host()],
        limits: Limits::DEFAULT,
    };
    let judgement = judge
        .judge(&Asked {
            reference: Reference::parse_normalized("r.example/app:v1").unwrap(),
            content,
            namespace: None,
        })
        .await;
    (judgement.admitted, judgement.reason)
}

fn held(manifest: &str, image: &str) -> Content {
    Content::Held {
        manifest: manifest.parse::<ManifestDigest>().unwrap(),
        image: image.parse().unwrap(),
    }
}

fn image(contents: &str) -> Image {
    Image::new(&[Layer::gzip(&tar::join(&[tar::file("f", contents)]))])
}

fn config_digest(image: &Image) -> String {
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_daemon_is_believed_what_the_registry_confirms() {
    let (one, two) = (image("one"), image("two"));
    let index = Image::index(&[one.clone(), two.clone()], &[one.entry(), two.entry()]);
    let mut memory = Memory::default();
    for image in [&one, &two, &index] {
        memory.put(image);
    }
    let other = image("other");
    for (manifest, id, admitted) in [
        (one.digest(), config_digest(&one), true),
        (one.digest(), one.digest(), true),
        (index.digest(), config_digest(&one), true),
        (index.digest(), config_digest(&two), true),
        (index.digest(), index.digest(), true),
        // Another image under a digest that is there.
        (one.digest(), config_digest(&two), false),
        (one.digest(), two.digest(), false),
        (index.digest(), config_digest(&other), false),
        (index.digest(), one.digest(), false),
        // A digest that the registry does not have.
        (other.digest(), config_digest(&other), false),
    ] {
        let (found, reason) = judge(accepting(), &memory, held(&manifest, &id)).await;
        assert_eq!(found, admitted, "{manifest} {id}: {reason}");
    }
}

#[tokio::test]
async fn bytes_under_another_digest_are_refused() {
    let (one, two) = (image("one"), image("two"));
    let mut memory = Memory::default();
    memory.manifests.insert(one.digest(), two.manifest.clone());
    let claim = held(&one.digest(), &config_digest(&two));
    let (admitted, reason) = judge(accepting(), &memory, claim).await;
    assert!(!admitted && reason.contains("digest"), "{reason}");
}

#[tokio::test]
async fn an_image_without_origin_is_admitted_by_its_scope_only() {
    let local = || Content::Local {
        image: config_digest(&image("one")).parse().unwrap(),
    };
    let signed = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": "aGk="}]);
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let memory = Memory::default();
    for (policy, admitted) in [
        (json!({"default": accept}), true),
        (json!({"default": signed}), false),
        (json!({"default": [{"type": "reject"}]}), false),
        (
            json!({"default": [{"type": "insecureAcceptAnything"}, {"type": "reject"}]}),
            false,
        ),
    ] {
        let (found, reason) = judge(policy.clone(), &memory, local()).await;
        assert_eq!(found, admitted, "{policy}: {reason}");
    }
}

#[tokio::test]
async fn without_a_policy_or_a_signature_nothing_is_admitted() {
    let one = image("one");
    let mut memory = Memory::default();
    memory.put(&one);
    let signed =
        json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": "aGk="}]});
    for (policy, says) in [
        (signed, "OpenPGP keys"),
        (json!({"default": []}), ""),
        (json!({}), ""),
        (json!("no policy"), ""),
        (json!({"default": [{"type": "reject"}]}), "rejects"),
    ] {
        for content in [Content::Served, held(&one.digest(), &config_digest(&one))] {
            let (admitted, reason) = judge(policy.clone(), &memory, content).await;
            assert!(!admitted && reason.contains(says), "{policy}: {reason}");
        }
    }
}

#[tokio::test]
async fn what_is_served_is_judged_for_the_nodes_platform() {
    let one = image("one");
    let foreign = json!({"platform": {"os": "linux", "architecture": "s390x"}});
    let entry = |platform: &Value| {
        let mut entry = one.entry();
        entry["platform"] = platform["platform"].clone();
        entry
    };
    let host = Platform::host();
    let own = json!({"platform": {"os": host.os, "architecture": host.architecture}});
    for (platform, admitted) in [(own, true), (foreign, false)] {
        let mut memory = Memory::default();
        memory.put(&Image::index(
            std::slice::from_ref(&one),
            &[entry(&platform)],
        ));
        let (found, reason) = judge(accepting(), &memory, Content::Served).await;
        assert_eq!(found, admitted, "{reason}");
    }
}

/// Remembers that somebody signed whatever is asked about.
#[derive(Debug)]
struct Remembering;

impl gantry_trust::Memory for Remembering {
    fn recall(&self, _: &QuestionKey) -> Option<Remembered> {
        Some(Remembered {
            decided: SystemTime::UNIX_EPOCH,
            holds_until: None,
            made: None,
            signers: vec!["alice".to_owned()],
        })
    }

    fn remember(&self, _: &QuestionKey, _: &Remembered) {}
}

#[tokio::test]
async fn what_was_admitted_before_is_not_checked_again() {
    let one = image("one");
    let mut memory = Memory::default();
    memory.put(&one);
    let signed =
        json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": "aGk="}]});
    let judge = PolicyJudge {
        rules: Arc::new(Text(signed)),
        memory: Arc::new(Remembering),
        sources: Box::new(memory),
        platforms: vec![Platform::host()],
        limits: Limits::DEFAULT,
    };
    let asked = Asked {
        reference: Reference::parse_normalized("r.example/app:v1").unwrap(),
        content: held(&one.digest(), &config_digest(&one)),
        namespace: None,
    };
    let judgement = judge.judge(&asked).await;
    assert!(judgement.admitted, "{judgement:?}");
    assert_eq!(judgement.reason, "signed by alice");
    // What nobody signed is not remembered, but judged by what the daemon says of it.
    let local = Asked {
        content: Content::Local {
            image: config_digest(&one).parse().unwrap(),
        },
        ..asked
    };
    assert!(!judge.judge(&local).await.admitted);
}

/// A policy that accepts anything, and rules of `trust.d`.
#[derive(Debug)]
struct Ruled(std::path::PathBuf);

impl Rules for Ruled {
    fn load(&self) -> Result<Authority, String> {
        let limits = Limits::DEFAULT;
        let extra = extra::load_dirs(std::slice::from_ref(&self.0), &Real { limits }, &limits);
        let policy = Policy::insecure().load_keys(&limits);
        Ok(Authority::new(
            policy,
            extra.map_err(|error| error.to_string())?,
        ))
    }
}

#[tokio::test]
async fn rules_hold_here_too() {
    let one = image("one");
    let mut memory = Memory::default();
    memory.put(&one);
    let id = config_digest(&one);
    let revoked = format!("[revoked]\ndigests = [\"{}\"]\n", one.digest());
    let monotonic = "[[rule]]\nscope = \"r.example\"\nmonotonic = true\n".to_owned();
    let revoked_id = format!("[revoked]\ndigests = [\"{id}\"]\n");
    let anywhere = "[[rule]]\nscope = \"\"\nmax-severity = \"low\"\n".to_owned();
    for (rule, content, admitted) in [
        (String::new(), held(&one.digest(), &id), true),
        (revoked, held(&one.digest(), &id), false),
        (
            revoked_id,
            Content::Local {
                image: id.parse().unwrap(),
            },
            false,
        ),
        (monotonic, held(&one.digest(), &id), false),
        (anywhere.clone(), held(&one.digest(), &id), false),
        (
            anywhere,
            Content::Local {
                image: id.parse().unwrap(),
            },
            false,
        ),
        (
            String::new(),
            Content::Local {
                image: id.parse().unwrap(),
            },
            true,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rule.toml"), &rule).unwrap();
        let rules = Arc::new(Ruled(dir.path().to_owned()));
        let (found, reason) = judge_with(rules, &memory, content).await;
        assert_eq!(found, admitted, "{rule}: {reason}");
        assert!(
            !reason.contains("TOML") && !reason.contains("toml"),
            "{reason}"
        );
    }
}
