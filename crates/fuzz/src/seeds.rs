// SPDX-License-Identifier: Apache-2.0
//! Real inputs of each target: the bypass corpus, and what cosign made.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use gantry_oci::Limits;
use gantry_testkit::corpus::bypass::{Maker, PolicyFile, Scene, Scenes};
use gantry_trust::Keyring;

use crate::trust::now;

/// A key of the vectors.
pub(crate) const P256: &str = include_str!("../../trust/tests/vectors/p256.pub");
/// The image that all vectors are of.
pub(crate) const VECTOR_DIGEST: &str =
    "sha256:6e5258116902fbc1a0d9b305833c16a3fa4b723454a3d1ad4f88c6ed95b74a1e";

/// What is larger tells a fuzzer nothing.
const SEED_MAX_BYTES: usize = 16 << 10;

/// Inputs by target.
pub type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// Real inputs of each target; `None` where a tool that makes them is missing.
///
/// # Errors
/// A tool fails.
pub fn seeds() -> Result<Option<Seeds>> {
    let Some(mut maker) = Maker::new("registry.example")? else {
        return Ok(None);
    };
    let scenes = Scenes::new(&mut maker)?;
    let mut seeds = Collected::default();
    seeds.add("payload", maker.payload().into());
    let all = scenes
        .families
        .values()
        .chain(scenes.attacks.iter().map(|(_, scene)| scene));
    for scene in all {
        seeds.scene(scene);
    }
    seeds.vectors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../trust/tests/vectors"))?;
    for pod in [
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","kind":{"group":"","version":"v1","kind":"Pod"},"operation":"CREATE","namespace":"a","object":{"spec":{"containers":[{"image":"a/b:c"}],"initContainers":[],"volumes":[{"image":{"reference":"x"}}]}}}}"#,
        r#"{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","spec":{"containers":[{"image":"a/b:c"}],"namespace":"a"}}"#,
        r#"{"Image":"a/b:c","HostConfig":{"Mounts":[{"Type":"image","Source":"x"}],"Binds":["/a:/b"]}}"#,
        "/v1.43/containers/create?name=a&platform=",
    ] {
        seeds.add("reviews", pod.into());
    }
    for number in 0..64_u8 {
        let bytes: Vec<u8> = (0..24)
            .map(|at: u8| {
                number
                    .wrapping_mul(31)
                    .wrapping_add(at.wrapping_mul(number))
            })
            .collect();
        seeds.add("scopes", bytes.clone());
        seeds.add("identity", bytes);
    }
    Ok(Some(seeds.0))
}

#[derive(Default)]
struct Collected(Seeds);

impl Collected {
    fn add(&mut self, target: &'static str, seed: Vec<u8>) {
        let known = self.0.entry(target).or_default();
        if seed.len() <= SEED_MAX_BYTES && !known.contains(&seed) {
            known.push(seed);
        }
    }

    fn scene(&mut self, scene: &Scene) {
        if let PolicyFile::Text(text) = &scene.policy {
            self.add("policy", text.clone());
        }
        if let Some(rules) = &scene.rules {
            self.add("trust_d", rules.clone());
        }
        self.add("reference", scene.asked.clone().into());
        self.add("registries_d", format!("default-docker:\n  lookaside: https://{}\ndocker:\n  {}:\n    use-sigstore-attachments: true\n", scene.host, scene.asked).into());
        for (name, bytes) in &scene.files {
            let extension = Path::new(name)
                .extension()
                .and_then(|extension| extension.to_str());
            if matches!(extension, Some("pub" | "pem")) {
                self.add("keys", bytes.clone());
            }
        }
        let ring = scene.files.get("key.gpg").cloned().unwrap_or_default();
        let keyring = Keyring::parse(&[ring.clone().into()], &Limits::DEFAULT);
        for signature in &scene.signatures {
            self.add("stored", signature.clone());
            let message = Bytes::from(signature.clone());
            let verified = keyring
                .as_ref()
                .map(|ring| ring.verify(&message, now(), &Limits::DEFAULT));
            if let Ok(Ok(signed)) = verified {
                self.add("payload", signed.text.to_vec());
            }
            if let Ok(length) = u16::try_from(ring.len()) {
                self.add(
                    "openpgp",
                    [&length.to_le_bytes()[..], &ring, signature].concat(),
                );
            }
        }
    }

    fn vectors(&mut self, dir: &Path) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let text = std::fs::read(&path)?;
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("pub" | "key") => self.add("keys", text),
                Some("json") => {
                    let Ok(signature) =
                        serde_json::from_slice::<gantry_trust::SigstoreSignature>(&text)
                    else {
                        continue;
                    };
                    let kind = u8::from(signature.mime_type.contains("bundle"));
                    if kind == 0 {
                        self.add("payload", signature.payload.to_vec());
                    }
                    let mut seed = [&[kind], &signature.payload[..]].concat();
                    for annotation in signature.annotations.values() {
                        seed.push(0);
                        seed.extend(annotation.as_bytes());
                    }
                    self.add("sigstore", seed);
                    self.add("stored", [b"\0sigstore-json\n", &text[..]].concat());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
