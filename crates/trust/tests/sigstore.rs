// SPDX-License-Identifier: Apache-2.0
//! Signatures that cosign made, kept in `vectors/`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use gantry_oci::{Limits, ManifestDigest};
use gantry_trust::sigstore::{
    self, MakeVerifierError, ParseKeyError, PrivateKey, Signer, SigstoreClaim, Verifier,
    attestation, sign,
};
use gantry_trust::{Reason, Refusal, SigstoreSignature};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:6e5258116902fbc1a0d9b305833c16a3fa4b723454a3d1ad4f88c6ed95b74a1e";
const KEYS: [&str; 4] = ["p256", "p384", "p521", "rsa"];
const CHECKED: &str = "https://example.org/checked/v1";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn signature(name: &str) -> SigstoreSignature {
    let text = std::fs::read(vectors().join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn public_key(name: &str) -> Bytes {
    std::fs::read(vectors().join(format!("{name}.pub")))
        .unwrap()
        .into()
}

fn verifier(keys: &[&str]) -> Verifier {
    let keys: Vec<_> = keys.iter().map(|name| public_key(name)).collect();
    Verifier::keys(&keys, None).unwrap()
}

fn verify(signature: &SigstoreSignature, keys: &[&str]) -> Result<SigstoreClaim, Refusal> {
    sigstore::verify(
        signature,
        &verifier(keys),
        SystemTime::now(),
        &Limits::DEFAULT,
    )
}

fn digest() -> ManifestDigest {
    DIGEST.parse().unwrap()
}

/// The signature with its payload, which is JSON, changed.
fn edited(name: &str, edit: impl FnOnce(&mut Value)) -> SigstoreSignature {
    let mut signature = signature(name);
    let mut payload: Value = serde_json::from_slice(&signature.payload).unwrap();
    edit(&mut payload);
    signature.payload = serde_json::to_vec(&payload).unwrap().into();
    signature
}

/// A base64 text with one bit of its bytes changed.
fn flipped(text: &str) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut bytes = base64.decode(text).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    base64.encode(bytes)
}

#[test]
fn attachments_by_each_kind_of_key_count() {
    for key in KEYS {
        for tool in ["cosign2", "cosign3-attachment"] {
            let found = verify(&signature(&format!("{key}.{tool}")), &[key]).unwrap();
            assert_eq!(found.claim.manifest_digest, digest());
            let reference = found.claim.docker_reference.unwrap();
            assert!(reference.starts_with("127.0.0.1:5077/v/"), "{reference}");
            assert!(matches!(found.signer, Signer::Key(_)));
            assert_eq!(found.logged_at, None);
        }
    }
}

#[test]
fn bundles_by_each_kind_of_key_count_and_name_no_reference() {
    for key in KEYS {
        let found = verify(&signature(&format!("{key}.cosign3")), &[key]).unwrap();
        assert_eq!(found.claim.manifest_digest, digest());
        assert_eq!(found.claim.docker_reference, None);
    }
}

#[test]
fn a_bundle_around_the_manifest_itself_counts() {
    let found = verify(&signature("p256.cosign3-blob"), &["p256"]).unwrap();
    assert_eq!(found.claim.manifest_digest, digest());
    assert_eq!(found.claim.docker_reference, None);
}

#[test]
fn any_of_several_keys_may_have_signed() {
    let found = verify(&signature("p384.cosign2"), &["p256", "p384", "rsa"]).unwrap();
    let alone = verify(&signature("p384.cosign2"), &["p384"]).unwrap();
    assert_eq!(found.signer, alone.signer);
}

#[test]
fn a_signature_by_another_key_does_not_count() {
    for name in ["p256.cosign2", "p256.cosign3", "p256.cosign3-blob"] {
        for key in ["p384", "p521", "rsa", "ed25519"] {
            let refusal = verify(&signature(name), &[key]).unwrap_err();
            assert_eq!(refusal.reason, Reason::UnknownKey, "{name} {key}");
        }
    }
}

#[test]
fn a_changed_attachment_does_not_count() {
    const ANNOTATION: &str = sigstore::SIGNATURE_ANNOTATION;
    for key in KEYS {
        let good = signature(&format!("{key}.cosign2"));
        let mut changed = good.clone();
        let text = &good.annotations[ANNOTATION];
        changed.annotations.insert(ANNOTATION.into(), flipped(text));
        assert_eq!(
            verify(&changed, &[key]).unwrap_err().reason,
            Reason::UnknownKey
        );

        let mut changed = good.clone();
        let mut payload = good.payload.to_vec();
        payload.push(b' ');
        changed.payload = payload.into();
        assert_eq!(
            verify(&changed, &[key]).unwrap_err().reason,
            Reason::UnknownKey
        );

        for text in [
            format!("{text}="),
            format!(" {text}"),
            text.replace('=', ""),
        ] {
            let mut changed = good.clone();
            changed.annotations.insert(ANNOTATION.into(), text);
            let reason = verify(&changed, &[key]).map_err(|refusal| refusal.reason);
            // A signature of a length that needs no padding loses nothing.
            assert!(matches!(reason, Err(Reason::Malformed)) || changed == good);
        }

        let mut changed = good.clone();
        changed.annotations.clear();
        assert_eq!(
            verify(&changed, &[key]).unwrap_err().reason,
            Reason::Malformed
        );

        let mut changed = good;
        changed.mime_type = "application/octet-stream".into();
        assert_eq!(
            verify(&changed, &[key]).unwrap_err().reason,
            Reason::Unsupported
        );
    }
}

#[test]
fn a_changed_bundle_does_not_count() {
    use Reason::{Malformed, TooLarge, UnknownKey, Unsupported};
    type Edit = fn(&mut Value);
    let table: &[(&str, Edit, Reason)] = &[
        (
            "payload",
            |b| {
                let payload = flipped(b["dsseEnvelope"]["payload"].as_str().unwrap());
                b["dsseEnvelope"]["payload"] = json!(payload);
            },
            UnknownKey,
        ),
        (
            "payload type",
            |b| b["dsseEnvelope"]["payloadType"] = json!("text/plain"),
            UnknownKey,
        ),
        (
            "signature",
            |b| {
                let signature =
                    flipped(b["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap());
                b["dsseEnvelope"]["signatures"][0]["sig"] = json!(signature);
            },
            UnknownKey,
        ),
        (
            "two signatures",
            |b| {
                let signature = b["dsseEnvelope"]["signatures"][0].clone();
                b["dsseEnvelope"]["signatures"]
                    .as_array_mut()
                    .unwrap()
                    .push(signature);
            },
            Malformed,
        ),
        (
            "no signature",
            |b| b["dsseEnvelope"]["signatures"] = json!([]),
            Malformed,
        ),
        (
            "no envelope",
            |b| drop(b.as_object_mut().unwrap().remove("dsseEnvelope")),
            Malformed,
        ),
        (
            "two contents",
            |b| {
                b["messageSignature"] = json!({
                    "messageDigest": {"algorithm": "SHA2_256", "digest": ""}, "signature": ""
                })
            },
            Malformed,
        ),
        (
            "no material",
            |b| b["verificationMaterial"] = json!({}),
            Malformed,
        ),
        (
            "key and certificate",
            |b| b["verificationMaterial"]["certificate"] = json!({"rawBytes": ""}),
            Malformed,
        ),
        (
            "a chain, as in 0.2",
            |b| {
                b["verificationMaterial"] = json!({"x509CertificateChain": {"certificates": []}});
            },
            Malformed,
        ),
        ("another member", |b| b["more"] = json!(1), Malformed),
        (
            "version 0.2",
            |b| b["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2"),
            Unsupported,
        ),
        (
            "too many entries",
            |b| {
                let entry = json!({
                    "logId": {"keyId": ""}, "kindVersion": {"kind": "dsse", "version": "0.0.1"}, "canonicalizedBody": ""
                });
                b["verificationMaterial"]["tlogEntries"] =
                    json!(vec![entry; Limits::DEFAULT.log_entries + 1]);
            },
            TooLarge,
        ),
    ];
    for (what, edit, reason) in table {
        let refusal = verify(&edited("p256.cosign3", edit), &["p256"]).unwrap_err();
        assert_eq!(refusal.reason, *reason, "{what}: {refusal}");
    }
    let unchanged = edited("p256.cosign3", |_| ());
    assert!(verify(&unchanged, &["p256"]).is_ok());
}

#[test]
fn a_bundle_of_two_meanings_is_malformed() {
    let mut twice = signature("p256.cosign3");
    let text = String::from_utf8(twice.payload.to_vec()).unwrap();
    let text = text.replacen('{', r#"{"mediaType":"x","#, 1);
    twice.payload = text.into_bytes().into();
    assert_eq!(
        verify(&twice, &["p256"]).unwrap_err().reason,
        Reason::Malformed
    );
}

#[test]
fn a_changed_message_bundle_does_not_count() {
    for member in ["digest", "signature"] {
        let changed = edited("p256.cosign3-blob", |bundle| {
            let place = match member {
                "digest" => &mut bundle["messageSignature"]["messageDigest"]["digest"],
                _ => &mut bundle["messageSignature"]["signature"],
            };
            *place = json!(flipped(place.as_str().unwrap()));
        });
        assert_eq!(
            verify(&changed, &["p256"]).unwrap_err().reason,
            Reason::UnknownKey
        );
    }
    let changed = edited("p256.cosign3-blob", |bundle| {
        bundle["messageSignature"]["messageDigest"]["algorithm"] = json!("SHA2_384");
    });
    assert_eq!(
        verify(&changed, &["p256"]).unwrap_err().reason,
        Reason::Unsupported
    );
}

#[test]
fn without_a_log_entry_a_requirement_with_a_log_is_not_met() {
    let log = sigstore::LogKeys::parse(&[public_key("p256")]).unwrap();
    let verifier = Verifier::keys(&[public_key("p256")], Some(log)).unwrap();
    for name in ["p256.cosign2", "p256.cosign3", "p256.cosign3-blob"] {
        let refusal = sigstore::verify(
            &signature(name),
            &verifier,
            SystemTime::now(),
            &Limits::DEFAULT,
        )
        .unwrap_err();
        assert_eq!(refusal.reason, Reason::Log, "{name}");
    }
}

#[test]
fn attestations_of_both_forms_count() {
    for name in ["p256.cosign2-attestation", "p256.cosign3-attestation"] {
        let verify = |key: &str, predicate_type, digest: &str| {
            attestation::verify(
                &signature(name),
                &verifier(&[key]),
                attestation::Wanted {
                    predicate_type,
                    manifest_digest: &digest.parse().unwrap(),
                },
                SystemTime::now(),
                &Limits::DEFAULT,
            )
            .map_err(|refusal| refusal.reason)
        };
        let found = verify("p256", CHECKED, DIGEST).unwrap();
        assert_eq!(found.predicate, json!({"buildType": "test"}));
        assert_eq!(verify("rsa", CHECKED, DIGEST), Err(Reason::UnknownKey));
        assert_eq!(
            verify("p256", "https://example.org/other", DIGEST),
            Err(Reason::Payload)
        );
        let other = DIGEST.replace("6e52", "6e53");
        assert_eq!(verify("p256", CHECKED, &other), Err(Reason::OtherDigest));
    }
}

#[test]
fn an_attestation_is_no_signature_and_a_signature_no_attestation() {
    let refusal = verify(&signature("p256.cosign3-attestation"), &["p256"]).unwrap_err();
    assert_eq!(refusal.reason, Reason::Payload);
    let refusal = verify(&signature("p256.cosign2-attestation"), &["p256"]).unwrap_err();
    assert_eq!(refusal.reason, Reason::Unsupported);
    for (name, reason) in [
        ("p256.cosign2", Reason::Unsupported),
        ("p256.cosign3", Reason::Payload),
        ("p256.cosign3-blob", Reason::Payload),
    ] {
        let wanted = attestation::Wanted {
            predicate_type: CHECKED,
            manifest_digest: &digest(),
        };
        let refusal = attestation::verify(
            &signature(name),
            &verifier(&["p256"]),
            wanted,
            SystemTime::now(),
            &Limits::DEFAULT,
        )
        .unwrap_err();
        assert_eq!(refusal.reason, reason, "{name}");
    }
}

// Made by OpenSSL: RSA of 1024 bits, secp256k1, and a compressed point of P-256.
const SHORT_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCjG5mxDtj5oJayNeJehmU5tyTp
veej85pTb6jcdpUoFCH1/D9JlAFJ4M0NfdE9j3sOLipc2C279nN1xUy1DK56+DqC
FM0FZdcXIvz/6TlSFSvgmgMI2cv3zMFbTMXnkaiaciHWvFLLLOcaT1dIblSxIsr/
z2aMYVag2+OPWzzCqQIDAQAB
-----END PUBLIC KEY-----
";
const OTHER_CURVE: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEG0yWJx+v+Jn1fIRBn6VWyaar/vAFlcpl
OVyDY1Qaw0V3nsix5evfTr24X3/JztW26yfTT5hbvLUr2SYRQnKT7g==
-----END PUBLIC KEY-----
";
const COMPRESSED: &str = "-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgACgu32TsKElgnmPMr2E4kbDkv0UKXs
NlEdTZXYtulBnmE=
-----END PUBLIC KEY-----
";

#[test]
fn ed25519_signatures_of_a_hash_do_not_count() {
    // Cosign signs SHA-512 of the payload with such keys (Ed25519ph), which containers/image does not know either.
    for tool in ["cosign2", "cosign3", "cosign3-attachment"] {
        let refusal = verify(&signature(&format!("ed25519.{tool}")), &["ed25519"]).unwrap_err();
        assert_eq!(refusal.reason, Reason::UnknownKey, "{tool}");
    }
}

#[test]
fn keys_that_are_none_or_too_weak_make_no_verifier() {
    let good = String::from_utf8(public_key("p256").to_vec()).unwrap();
    let source = |text: String| match Verifier::keys(&[public_key("rsa"), text.into()], None) {
        Err(MakeVerifierError::Key { number: 2, source }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(source(SHORT_RSA.into()), ParseKeyError::Bits { bits: 1024 });
    assert_eq!(source(OTHER_CURVE.into()), ParseKeyError::Unknown);
    assert!(matches!(
        source(COMPRESSED.into()),
        ParseKeyError::Encoding(_)
    ));
    assert!(matches!(
        source(format!("text\n{good}")),
        ParseKeyError::Pem(_)
    ));
    assert!(matches!(
        source(format!("{good}{good}")),
        ParseKeyError::Pem(_)
    ));
    assert!(matches!(
        source(good.replace("PUBLIC", "PRIVATE")),
        ParseKeyError::Label { .. }
    ));
    assert!(matches!(
        Verifier::keys(&[], None),
        Err(MakeVerifierError::NoKey)
    ));
    assert!(matches!(
        sigstore::LogKeys::parse(&[public_key("rsa")]),
        Err(MakeVerifierError::LogKey { number: 1, .. })
    ));
}

#[test]
fn private_keys_of_cosign_sign_what_their_public_halves_verify() {
    let now = SystemTime::now();
    for name in ["p256", "p384", "p521", "rsa", "ed25519"] {
        let file = std::fs::read(vectors().join(format!("{name}.key"))).unwrap();
        let key = PrivateKey::parse(&file, Some(b"secret")).unwrap();
        assert_eq!(key.public().to_pem().as_bytes(), public_key(name));
        for signature in [
            sign::attachment(&key, "registry.example/app:v1", &digest(), "test", now).unwrap(),
            sign::bundle(&key, "registry.example/app:v1", &digest()).unwrap(),
        ] {
            let found = verify(&signature, &[name]).unwrap();
            assert_eq!(found.claim.manifest_digest, digest());
            let reference = found.claim.docker_reference.as_deref();
            assert_eq!(reference, Some("registry.example/app:v1"));
            assert!(verify(&signature, &[if name == "rsa" { "p256" } else { "rsa" }]).is_err());
        }
        assert!(PrivateKey::parse(&file, Some(b"wrong")).is_err());
    }
}
