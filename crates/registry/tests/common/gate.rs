// SPDX-License-Identifier: Apache-2.0
//! A registry that asks a policy, and signers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_oci::{Limits, ManifestDigest, Reference, Repository};
use gantry_registry::{
    Authorities, GateOptions, Keeping, Lookasides, PolicyRules, PushPolicy, Registry,
    SignatureRules, WaitingLimits,
};
use gantry_testkit::gpg::Gpg;
use gantry_testkit::image::Image;
use gantry_trust::lookaside::Base;
use gantry_trust::{Authority, Extra, NoMemory, Policy};
use serde_json::{Value, json};

use super::{Answer, Server};

/// What clients call the registry.
pub const NAME: &str = "registry.example:5000";

/// A policy in a file, read at each question.
#[derive(Debug)]
pub struct PolicyFile(pub PathBuf);

impl Authorities for PolicyFile {
    fn load(&self) -> Result<Authority, String> {
        let limits = Limits::DEFAULT;
        let policy = Policy::load(&self.0, &limits).map_err(|error| error.to_string())?;
        Ok(Authority::new(policy.load_keys(&limits), Extra::default()))
    }
}

/// A lookaside in memory.
#[derive(Debug)]
pub struct Shelf(pub Mutex<Result<Vec<Bytes>, String>>);

impl Shelf {
    pub fn empty() -> Self {
        Self(Mutex::new(Ok(Vec::new())))
    }

    pub fn set(&self, holds: Result<Vec<Bytes>, String>) {
        *self.0.lock().unwrap() = holds;
    }
}

#[async_trait]
impl Lookasides for Shelf {
    fn place_of(&self, _reference: &Reference) -> Result<Option<Base>, String> {
        Ok(Some(Base::Web("https://signatures.example".to_owned())))
    }

    async fn read(
        &self,
        _base: &Base,
        _repository: &Repository,
        _digest: &ManifestDigest,
    ) -> Result<Vec<Bytes>, String> {
        self.0.lock().unwrap().clone()
    }
}

/// The rules of these tests: `strict/*` enforces, `staged/*` lets wait, the rest asks nothing.
pub fn options() -> GateOptions {
    GateOptions {
        name: NAME.parse().unwrap(),
        rules: PolicyRules {
            default: PushPolicy::Off,
            repositories: [
                ("strict/*".to_owned(), PushPolicy::Enforce),
                ("staged/*".to_owned(), PushPolicy::Staged),
            ]
            .into(),
        },
        waiting: WaitingLimits::default(),
        look_every: Duration::from_secs(3600),
    }
}

/// Gives a registry the gate.
pub fn gated(registry: Registry, policy: &Path, options: GateOptions) -> Registry {
    let signatures = SignatureRules {
        default: Keeping::Own,
        repositories: [("deaf/*".to_owned(), Keeping::Off)].into(),
    };
    registry.with_signatures(signatures).with_gate(
        options,
        Arc::new(PolicyFile(policy.to_owned())),
        Arc::new(NoMemory),
    )
}

/// Two signers, and a policy file that may want both.
pub struct World {
    pub gpg: Gpg,
    pub keys: Vec<String>,
    pub dir: PathBuf,
}

impl World {
    /// `None` without gpg.
    pub fn new(dir: &Path) -> Option<Self> {
        let gpg = Gpg::new().unwrap()?;
        let keys: Vec<String> = ["a", "b"]
            .iter()
            .map(|name| {
                let user = format!("{name}@{name}.example");
                let key = gpg.make_key(&user, "ed25519", "sign,cert", "0").unwrap();
                std::fs::write(dir.join(format!("{name}.gpg")), gpg.export(&key).unwrap()).unwrap();
                key
            })
            .collect();
        let world = Self {
            gpg,
            keys,
            dir: dir.to_owned(),
        };
        world.want(&["a"]);
        Some(world)
    }

    pub fn policy(&self) -> PathBuf {
        self.dir.join("policy.json")
    }

    /// The policy asks for a signature by each of these.
    pub fn want(&self, signers: &[&str]) {
        let wanted: Vec<Value> = signers
            .iter()
            .map(|signer| {
                let path = self.dir.join(format!("{signer}.gpg"));
                json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": path})
            })
            .collect();
        let policy =
            json!({"default": [{"type": "reject"}], "transports": {"docker": {NAME: wanted}}});
        std::fs::write(self.policy(), policy.to_string()).unwrap();
    }

    /// A simple signature by the `signer`-th key.
    pub fn sign(&self, signer: usize, name: &str, digest: &str) -> Vec<u8> {
        let payload = json!({
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": digest},
                "identity": {"docker-reference": format!("{NAME}/{name}")},
            },
            "optional": {"creator": "test", "timestamp": 1_700_000_000},
        });
        let text = payload.to_string();
        self.gpg
            .sign(&self.keys[signer], text.as_bytes(), &[])
            .unwrap()
    }

    pub fn server(&self, root: &Path) -> Server {
        self.server_with(root, options(), None)
    }

    pub fn server_with(
        &self,
        root: &Path,
        options: GateOptions,
        lookaside: Option<Arc<Shelf>>,
    ) -> Server {
        Server::with(root, None, |registry| {
            let registry = gated(registry, &self.policy(), options);
            match lookaside {
                Some(shelf) => registry.with_lookasides(shelf),
                None => registry,
            }
        })
    }
}

/// A signature as the extension carries it.
pub fn wire(digest: &str, signature: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "name": format!("{digest}@{}", "0".repeat(32)),
        "type": "atomic",
        "content": STANDARD.encode(signature),
    })
}

impl Server {
    pub fn put_signature(&self, repository: &str, digest: &str, signature: &[u8]) -> Answer {
        self.put_wire(repository, digest, &wire(digest, signature))
    }

    pub fn put_wire(&self, repository: &str, digest: &str, body: &Value) -> Answer {
        let path = format!("/extensions/v2/{repository}/signatures/{digest}");
        self.send("PUT", &path, &[], body.to_string().as_bytes())
    }

    /// How many signatures the extension gives.
    pub fn signatures(&self, repository: &str, digest: &str) -> usize {
        let answer = self.get(&format!("/extensions/v2/{repository}/signatures/{digest}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["signatures"].as_array().unwrap().len()
    }

    /// Whether clients and hosts see the image under this tag; both or neither do.
    #[track_caller]
    pub fn sees(&self, repository: &str, tag: &str, image: &Image) -> bool {
        let root = self.store.path();
        let digest = image.digest();
        let by_tag = self
            .get(&format!("/v2/{repository}/manifests/{tag}"))
            .status
            == 200;
        let on_share = root.join("images").join(repository).join(tag).is_symlink();
        assert_eq!(by_tag, on_share, "clients and the share differ about {tag}");
        if by_tag {
            let by_digest = self.get(&format!("/v2/{repository}/manifests/{digest}"));
            assert_eq!(by_digest.status, 200);
        }
        by_tag
    }
}
