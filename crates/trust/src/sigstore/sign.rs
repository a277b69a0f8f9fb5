// SPDX-License-Identifier: Apache-2.0
//! Making signatures with a private key, in both of the forms that cosign reads.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_oci::ManifestDigest;
use serde_json::json;

use super::dsse::{self, IN_TOTO_PAYLOAD_TYPE};
use super::private_key::{PrivateKey, SignError};
use super::{
    BUNDLE_MEDIA_TYPE, PAYLOAD_MEDIA_TYPE, SIGN_PREDICATE_TYPE, SIGNATURE_ANNOTATION, make_payload,
};
use crate::stored::SigstoreSignature;

/// Signs an image under a reference, as an attachment: what skopeo, podman and
/// both versions of cosign read.
///
/// # Errors
/// [`SignError`]
pub fn attachment(
    key: &PrivateKey,
    docker_reference: &str,
    digest: &ManifestDigest,
    creator: &str,
    now: SystemTime,
) -> Result<SigstoreSignature, SignError> {
    let payload = make_payload(docker_reference, digest, creator, now);
    let signature = STANDARD.encode(key.sign(&payload)?);
    Ok(SigstoreSignature {
        mime_type: PAYLOAD_MEDIA_TYPE.to_owned(),
        payload: payload.into(),
        annotations: BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), signature)]),
    })
}

/// Signs an image under a reference, as a bundle: what cosign 3 reads. Unlike
/// cosign's own it names the reference, as the subject's name.
///
/// # Errors
/// [`SignError`]
pub fn bundle(
    key: &PrivateKey,
    docker_reference: &str,
    digest: &ManifestDigest,
) -> Result<SigstoreSignature, SignError> {
    let algorithm = digest.digest().algorithm().name();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": docker_reference, "digest": {algorithm: digest.hex()}}],
        "predicateType": SIGN_PREDICATE_TYPE,
        "predicate": {},
    });
    let payload = statement.to_string().into_bytes();
    let signature = key.sign(&dsse::signed_text(IN_TOTO_PAYLOAD_TYPE, &payload))?;
    let bundle = json!({
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": STANDARD.encode(key.public().fingerprint().as_bytes())},
        },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&payload),
            "payloadType": IN_TOTO_PAYLOAD_TYPE,
            "signatures": [{"sig": STANDARD.encode(signature)}],
        },
    });
    Ok(SigstoreSignature {
        mime_type: BUNDLE_MEDIA_TYPE.to_owned(),
        payload: bundle.to_string().into_bytes().into(),
        annotations: BTreeMap::new(),
    })
}
