// SPDX-License-Identifier: Apache-2.0
//! Readers of signatures, keys, policies and what stands beside them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gantry_admission::docker::{call, create};
use gantry_admission::kubernetes::review;
use gantry_oci::{Limits, Reference};
use gantry_trust::extra::RuleFile;
use gantry_trust::openpgp::{self, Keyring};
use gantry_trust::registries_d::RegistriesD;
use gantry_trust::sigstore::{self, LogKeys, PrivateKey, PublicKey, Verifier, attestation};
use gantry_trust::{Policy, SigstoreSignature, StoredSignature, Subject, simple};
use serde_json::Value;

const LIMITS: Limits = Limits::DEFAULT;

/// A day in 2030, after all that the corpus makes: what is found comes again.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000)
}

/// Two parts: the first is as long as the first two bytes say.
fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else {
        return (&[], data);
    };
    let length = usize::from(u16::from_le_bytes(*length));
    rest.split_at_checked(length).unwrap_or((rest, &[]))
}

/// Keys, and a message.
pub(crate) fn openpgp(data: &[u8]) {
    let (keys, message) = halves(data);
    let message = Bytes::copy_from_slice(message);
    let checked = openpgp::check_message(&message, &LIMITS);
    let keys = Bytes::copy_from_slice(keys);
    if let Ok(ring) = Keyring::parse(std::slice::from_ref(&keys), &LIMITS) {
        assert!(ring.fingerprints().next().is_some(), "a ring without a key");
        // The same key twice is the same ring.
        assert!(Keyring::parse(&[keys.clone(), keys], &LIMITS).is_ok());
        if let Ok(signed) = ring.verify(&message, now(), &LIMITS) {
            assert!(checked.is_ok(), "verified what is no message");
            assert!(signed.created <= now(), "made in the future");
            let trusted: Vec<_> = ring.fingerprints().collect();
            assert!(
                trusted.contains(&signed.key),
                "by a key that is not in the ring"
            );
        }
    }
}

/// A payload is accepted only if a reader that knows nothing of our rules finds the same in it.
pub(crate) fn payload(data: &[u8]) {
    let Ok(claim) = simple::parse_payload(data) else {
        return;
    };
    let value: Value =
        serde_json::from_slice(data).unwrap_or_else(|error| panic!("no JSON: {error}"));
    let members = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_object)
            .map(serde_json::Map::len)
    };
    assert_eq!((members(""), members("/critical")), (Some(2), Some(3)));
    assert_eq!(value["critical"]["type"], "atomic container signature");
    let digest = value["critical"]["image"]["docker-manifest-digest"].as_str();
    assert_eq!(digest, Some(&*claim.manifest_digest.to_string()));
    let reference = value["critical"]["identity"]["docker-reference"].as_str();
    assert_eq!(reference, claim.docker_reference.as_deref());
}

/// What is stored again means the same, or nothing.
pub(crate) fn stored(data: &[u8]) {
    let Ok(signature) = StoredSignature::parse(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let again = signature.to_stored();
    if let Ok(reread) = StoredSignature::parse(&again) {
        assert_eq!(reread, signature);
        assert_eq!(reread.to_stored(), again);
    }
}

/// A policy is one with a default and no empty list, and another reader reads the same members.
pub(crate) fn policy(data: &[u8]) {
    let Ok(policy) = Policy::parse(Bytes::copy_from_slice(data), &LIMITS) else {
        return;
    };
    let value: Value =
        serde_json::from_slice(data).unwrap_or_else(|error| panic!("no JSON: {error}"));
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    assert!(count(&value["default"]) > 0);
    assert_eq!(
        policy.default_requirements().len(),
        count(&value["default"])
    );
    let transports = value["transports"].as_object();
    assert_eq!(
        policy.transports().len(),
        transports.map_or(0, serde_json::Map::len)
    );
    for (transport, scopes) in policy.transports() {
        for (scope, requirements) in scopes {
            assert_eq!(
                requirements.len(),
                count(&value["transports"][transport][scope])
            );
            assert!(!requirements.is_empty());
        }
    }
    for name in [
        "h.io/a/b:v1",
        "docker.io/library/a:latest",
        "localhost:5000/x:y",
    ] {
        if let Ok(reference) = Reference::parse_normalized(name) {
            assert!(
                !policy
                    .requirements_for(&Subject::docker(&reference))
                    .1
                    .is_empty()
            );
        }
    }
}

/// A file of rules.
pub(crate) fn trust_d(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        drop(RuleFile::parse(text));
    }
}

/// A file of registries.d.
pub(crate) fn registries_d(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(places) = RegistriesD::parse(text, Path::new("/x.yaml")) {
            if let Ok(reference) = Reference::parse_normalized("h.io/a/b:v1") {
                std::hint::black_box(places.lookaside(&reference));
            }
        }
    }
}

/// A signature of sigstore's, by keys that the corpus has and by a log; the first byte says of which type it is.
pub(crate) fn sigstore(data: &[u8]) {
    const TYPES: [&str; 3] = [
        sigstore::PAYLOAD_MEDIA_TYPE,
        sigstore::BUNDLE_MEDIA_TYPE,
        "application/vnd.dsse.envelope.v1+json",
    ];
    const ANNOTATIONS: [&str; 4] = [
        sigstore::SIGNATURE_ANNOTATION,
        sigstore::CERTIFICATE_ANNOTATION,
        sigstore::CHAIN_ANNOTATION,
        sigstore::LOG_ANNOTATION,
    ];
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let mut parts = rest.split(|byte| *byte == 0);
    let payload = parts.next().unwrap_or_default();
    let annotations = ANNOTATIONS
        .into_iter()
        .zip(parts)
        .filter(|(_, part)| !part.is_empty());
    let annotations = annotations
        .map(|(name, part)| (name.to_owned(), String::from_utf8_lossy(part).into_owned()));
    let signature = SigstoreSignature {
        mime_type: TYPES[usize::from(*kind) % TYPES.len()].to_owned(),
        payload: Bytes::copy_from_slice(payload),
        annotations: annotations.collect(),
    };
    for log in [false, true] {
        let key = Bytes::from_static(crate::seeds::P256.as_bytes());
        let log = log
            .then(|| LogKeys::parse(std::slice::from_ref(&key)))
            .transpose();
        let verifier = log.and_then(|log| Verifier::keys(&[key], log));
        let verifier = verifier.unwrap_or_else(|error| panic!("the corpus's key: {error}"));
        if let Ok(found) = sigstore::verify(&signature, &verifier, now(), &LIMITS) {
            // Nobody signs but cosign in the vectors.
            assert_eq!(
                found.claim.manifest_digest.to_string(),
                crate::seeds::VECTOR_DIGEST
            );
        }
        drop(attestation::read(&signature, &verifier, now(), &LIMITS));
    }
}

/// Keys and certificates of sigstore's, as files.
pub(crate) fn keys(data: &[u8]) {
    if let Ok(key) = PublicKey::parse_pem(data) {
        let again = PublicKey::parse_pem(key.to_pem().as_bytes());
        assert_eq!(again.map(|key| key.fingerprint()), Ok(key.fingerprint()));
    }
    drop(Verifier::pki(
        data,
        Some(data),
        Some("h.io".into()),
        None,
        &LIMITS,
    ));
    // With a passphrase it would be scrypt's time that is measured.
    drop(PrivateKey::parse(data, None));
}

/// A reference is written as it is read.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(reference) = Reference::parse_normalized(text) else {
        return;
    };
    let written = reference.to_string();
    let again = Reference::parse_normalized(&written);
    assert_eq!(again.as_ref(), Ok(&reference), "{written}");
    let candidates: Vec<String> = Subject::docker(&reference.or_latest())
        .candidates()
        .map(str::to_owned)
        .collect();
    assert!(candidates.len() > 2 && candidates.last().is_some_and(String::is_empty));
}

/// What Docker and Kubernetes send.
pub(crate) fn reviews(data: &[u8]) {
    drop(review::read_image_review(data));
    drop(review::read_admission_review(data));
    drop(create::read(data));
    if let Ok(text) = std::str::from_utf8(data) {
        for method in ["GET", "POST"] {
            drop(call::Call::read(method, text));
        }
    }
}
