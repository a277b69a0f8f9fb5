// SPDX-License-Identifier: Apache-2.0
//! Whole policies over signatures that cosign made.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use gantry_image::{ManifestBytes, UnverifiedManifest};
use gantry_oci::{Limits, Reference};
use gantry_trust::evaluate::Outcome;
use gantry_trust::extra::Circumstances;
use gantry_trust::{
    Extra, FoundSignature, Policy, PreparedPolicy, Question, Reason, SigstoreSignature,
    StoredSignature, Subject, evaluate,
};
use serde_json::{Value, json};

/// What the signatures say that they are of, with a tag.
const NAME: &str = "127.0.0.1:5077/v/p256-2:v1";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn manifest() -> ManifestBytes {
    let bytes = std::fs::read(vectors().join("manifest.json")).unwrap();
    UnverifiedManifest::new(bytes.into(), None, None)
        .verify(None, &Limits::DEFAULT)
        .unwrap()
}

fn found(name: &str) -> FoundSignature {
    let text = std::fs::read(vectors().join(format!("{name}.json"))).unwrap();
    let signature: SigstoreSignature = serde_json::from_slice(&text).unwrap();
    FoundSignature {
        blob: StoredSignature::Sigstore(signature).to_blob(),
        place: name.to_owned(),
    }
}

fn policy(requirement: &Value) -> PreparedPolicy {
    let text = json!({"default": [requirement]}).to_string();
    Policy::parse(Bytes::from(text), &Limits::DEFAULT)
        .unwrap()
        .load_keys(&Limits::DEFAULT)
}

fn by_key(key: &str, identity: Value) -> Value {
    let path = vectors().join(format!("{key}.pub"));
    json!({"type": "sigstoreSigned", "keyPath": path, "signedIdentity": identity})
}

/// Whether the image is admitted; if not, why its one signature does not count.
fn judge(policy: &PreparedPolicy, image: &str, signature: &str) -> Result<(), Option<Reason>> {
    let reference = Reference::parse_normalized(image).unwrap();
    let verdict = evaluate(
        policy,
        &Extra::default(),
        &Question {
            subject: &Subject::docker(&reference),
            manifest: &manifest(),
            chosen_from: None,
            signatures: &[found(signature)],
            now: SystemTime::now(),
            circumstances: Circumstances::default(),
        },
    );
    let outcome = verdict.requirements[0]
        .signatures
        .first()
        .map(|signature| &signature.outcome);
    match (verdict.admitted, outcome) {
        (true, Some(Outcome::Counts(_))) => Ok(()),
        (false, Some(Outcome::Refused(refusal))) => Err(Some(refusal.reason)),
        (false, None) => Err(None),
        other => panic!("{other:?}"),
    }
}

#[test]
fn attachments_are_judged_by_key_and_identity() {
    let repository = json!({"type": "matchRepository"});
    let good = policy(&by_key("p256", repository.clone()));
    assert_eq!(judge(&good, NAME, "p256.cosign2"), Ok(()));
    // Cosign signs the repository without a tag, which is not the exact name.
    let exact = policy(&by_key("p256", json!({"type": "matchRepoDigestOrExact"})));
    assert_eq!(
        judge(&exact, NAME, "p256.cosign2"),
        Err(Some(Reason::OtherIdentity))
    );
    assert_eq!(
        judge(&good, "127.0.0.1:5077/other:v1", "p256.cosign2"),
        Err(Some(Reason::OtherIdentity))
    );
    let other = policy(&by_key("p384", repository));
    assert_eq!(
        judge(&other, NAME, "p256.cosign2"),
        Err(Some(Reason::UnknownKey))
    );
}

#[test]
fn bundles_that_name_no_reference_count_only_where_the_configuration_says_so() {
    let requirement = by_key("p256", json!({"type": "matchRepository"}));
    assert_eq!(
        judge(&policy(&requirement), NAME, "p256.cosign3"),
        Err(Some(Reason::OtherIdentity))
    );
    let scoped = policy(&requirement).with_unnamed_bundles(vec!["127.0.0.1:5077".into()]);
    assert_eq!(judge(&scoped, NAME, "p256.cosign3"), Ok(()));
    assert_eq!(
        judge(&scoped, "127.0.0.1:5078/v/p256-2:v1", "p256.cosign3"),
        Err(Some(Reason::OtherIdentity))
    );
}

#[test]
fn material_that_is_unusable_meets_nothing() {
    let rsa = vectors().join("rsa.pub");
    let p256 = vectors().join("p256.pub");
    for requirement in [
        json!({"type": "sigstoreSigned", "keyData": "aGk="}),
        json!({"type": "sigstoreSigned", "keyPaths": [p256, "/missing"]}),
        json!({"type": "sigstoreSigned", "keyPath": p256, "rekorPublicKeyPath": rsa}),
        json!({"type": "sigstoreSigned", "pki": {"caRootsPath": p256, "subjectEmail": "a@example.org"}}),
        json!({"type": "sigstoreSigned", "rekorPublicKeyPath": p256, "fulcio": {
            "caPath": p256, "oidcIssuer": "https://issuer.example", "subjectEmail": "a@example.org"
        }}),
    ] {
        assert!(
            judge(&policy(&requirement), NAME, "p256.cosign2").is_err(),
            "{requirement}"
        );
    }
}
