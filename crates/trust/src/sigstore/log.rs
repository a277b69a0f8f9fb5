// SPDX-License-Identifier: Apache-2.0
//! Proofs that a transparency log (Rekor) has an entry, checked offline.
//!
//! ```text
//!  signed entry timestamp   the log signed {body, time, id, index}: it promised to include the entry, and says when
//!  inclusion proof          hashes that lead from the body to a root  ┐
//!  checkpoint               the log signed that root                  ┘ the entry is in the log
//! ```
//!
//! An entry proves something about a signature only if its body has the same
//! signature, the same key or certificate and the same digest; each of the
//! three is compared. The time comes from the signed entry timestamp alone: an
//! inclusion proof does not cover it.
//!
//! # Source
//! Rekor's `hashedrekord` 0.0.1 and 0.0.2 and `dsse` 0.0.1 and 0.0.2; RFC 9162
//! section 2.1.3.2; the C2SP formats "signed note" and "tlog checkpoint"; RFC
//! 8785, of which only the case at hand is needed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_oci::{Algorithm, Digest, Limits, strict_json};
use serde::Deserialize;
use serde_json::Value;

use super::json::{Base64, Number};
use super::key::PublicKey;
use super::payload::excerpt;
use super::pem;
use crate::refusal::{Reason, Refusal};

/// What an entry must be about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged<'a> {
    pub(super) signature: &'a [u8],
    /// The SubjectPublicKeyInfo, or the certificate.
    pub(super) signer: &'a [u8],
    /// SHA-256 of what was signed: of an envelope's payload, not of its encoding.
    pub(super) payload: &'a Digest,
}

fn refuse(why: impl AsRef<str>) -> Refusal {
    Refusal::new(Reason::Log, format!("the log entry {}", why.as_ref()))
}

// === Attachments: a signed entry timestamp beside the signature ===

/// The annotation `dev.sigstore.cosign/bundle`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotation {
    #[serde(rename = "SignedEntryTimestamp")]
    signed_entry_timestamp: Base64,
    #[serde(rename = "Payload")]
    payload: AnnotationPayload,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnnotationPayload {
    body: Base64,
    #[serde(rename = "integratedTime")]
    integrated_time: i64,
    #[serde(rename = "logIndex")]
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

/// Checks the annotation that cosign 2 and skopeo leave beside a signature,
/// and returns the time at which the log took the entry.
pub(super) fn verify_annotation(
    text: &str,
    keys: &[PublicKey],
    logged: Logged<'_>,
    limits: &Limits,
) -> Result<SystemTime, Refusal> {
    strict_json::check(text.as_bytes(), limits.json_depth)
        .map_err(|error| refuse(format!("is not strict JSON: {error}")))?;
    let Annotation {
        signed_entry_timestamp,
        payload,
    } = serde_json::from_str(text)
        .map_err(|error| refuse(format!("has not the members that it must have: {error}")))?;
    let time = verify_promise(
        &Promise {
            body: &payload.body.0,
            integrated_time_s: payload.integrated_time,
            log_id: &payload.log_id,
            log_index: payload.log_index,
        },
        &signed_entry_timestamp.0,
        keys,
    )?;
    verify_body(&payload.body.0, logged, limits)?;
    Ok(time)
}

// === Bundles: an entry with its promise and its proof ===

/// One of a bundle's `tlogEntries`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Entry {
    // Numbers that are zero are left out.
    #[serde(default)]
    log_index: Number,
    log_id: LogId,
    kind_version: KindVersion,
    #[serde(default)]
    integrated_time: Number,
    #[serde(default)]
    inclusion_promise: Option<InclusionPromise>,
    #[serde(default)]
    inclusion_proof: Option<InclusionProof>,
    canonicalized_body: Base64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LogId {
    key_id: Base64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindVersion {
    kind: String,
    version: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct InclusionPromise {
    signed_entry_timestamp: Base64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct InclusionProof {
    #[serde(default)]
    log_index: Number,
    root_hash: Base64,
    tree_size: Number,
    #[serde(default)]
    hashes: Vec<Base64>,
    checkpoint: Checkpoint,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    envelope: String,
}

/// Checks one entry of a bundle: its proof, its promise if it has one, its
/// body. Returns the time, if the entry has a promise that proves one.
pub(super) fn verify_entry(
    entry: &Entry,
    keys: &[PublicKey],
    logged: Logged<'_>,
    limits: &Limits,
) -> Result<Option<SystemTime>, Refusal> {
    let body = &entry.canonicalized_body.0;
    let proof = entry
        .inclusion_proof
        .as_ref()
        .ok_or_else(|| refuse("has no inclusion proof"))?;
    verify_proof(proof, body, keys, limits)?;
    let time = match &entry.inclusion_promise {
        None => None,
        Some(promise) => Some(verify_promise(
            &Promise {
                body,
                integrated_time_s: entry.integrated_time.0,
                log_id: &hex(&entry.log_id.key_id.0),
                log_index: entry.log_index.0,
            },
            &promise.signed_entry_timestamp.0,
            keys,
        )?),
    };
    let (kind, version) = verify_body(body, logged, limits)?;
    if entry.kind_version.kind != kind || entry.kind_version.version != version {
        return Err(refuse("has a body of another kind than it states"));
    }
    Ok(time)
}

fn verify_proof(
    proof: &InclusionProof,
    body: &[u8],
    keys: &[PublicKey],
    limits: &Limits,
) -> Result<(), Refusal> {
    if proof.hashes.len() > limits.log_path {
        return Err(Refusal::new(
            Reason::TooLarge,
            format!(
                "the inclusion proof has {} hashes; {} are allowed",
                proof.hashes.len(),
                limits.log_path
            ),
        ));
    }
    let size = u64::try_from(proof.tree_size.0).map_err(|_| refuse("has a negative tree size"))?;
    let index = u64::try_from(proof.log_index.0).map_err(|_| refuse("has a negative index"))?;
    let root = root_of(body, index, size, &proof.hashes)
        .ok_or_else(|| refuse("has an inclusion proof of the wrong length"))?;
    if proof.root_hash.0 != root.as_bytes() {
        return Err(refuse("has an inclusion proof that leads to another root"));
    }
    let checkpoint = parse_checkpoint(&proof.checkpoint.envelope, limits).map_err(refuse)?;
    if checkpoint.size != size || checkpoint.root != root.as_bytes() {
        return Err(refuse("has a checkpoint of another root"));
    }
    let text = checkpoint.text.as_bytes();
    let signed = checkpoint
        .signatures
        .iter()
        .any(|signature| keys.iter().any(|key| key.verify(text, signature)));
    if !signed {
        return Err(refuse(
            "has a checkpoint that none of the log's keys signed",
        ));
    }
    Ok(())
}

/// The root of a tree of `size` leaves in which `body` is leaf `index`, or
/// nothing if that many hashes cannot lead there.
fn root_of(body: &[u8], index: u64, size: u64, hashes: &[Base64]) -> Option<Digest> {
    if index >= size {
        return None;
    }
    let mut hash = hash(0, &[body]);
    let (mut node, mut last) = (index, size - 1);
    for sibling in hashes {
        if last == 0 || sibling.0.len() != Algorithm::Sha256.size_bytes() {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = self::hash(1, &[&sibling.0, hash.as_bytes()]);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = self::hash(1, &[hash.as_bytes(), &sibling.0]);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// A node of the tree: 0 for a leaf, 1 for what joins two.
fn hash(prefix: u8, parts: &[&[u8]]) -> Digest {
    let mut bytes = vec![prefix];
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Digest::of(Algorithm::Sha256, &bytes)
}

struct Note<'a> {
    /// What is signed: with its last line feed.
    text: &'a str,
    size: u64,
    root: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

/// A checkpoint: origin, size, root and more lines; a blank line; signatures.
fn parse_checkpoint<'a>(envelope: &'a str, limits: &Limits) -> Result<Note<'a>, &'static str> {
    const KEY_HINT_BYTES: usize = 4;
    let end = envelope
        .find("\n\n")
        .ok_or("has a checkpoint without signatures")?;
    let (text, tail) = (&envelope[..=end], &envelope[end + 2..]);
    let mut lines = text.lines();
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err("has a checkpoint without origin, size and root");
    };
    if origin.is_empty() {
        return Err("has a checkpoint without origin");
    }
    let size = match size.parse::<u64>() {
        Ok(number) if number.to_string() == size => number,
        _ => return Err("has a checkpoint whose size is no number"),
    };
    let root = STANDARD
        .decode(root)
        .map_err(|_| "has a checkpoint whose root is not base64")?;
    let mut signatures = Vec::new();
    for line in tail.lines() {
        if signatures.len() == limits.log_signatures {
            return Err("has a checkpoint with too many signatures");
        }
        let signature = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(_, base64)| STANDARD.decode(base64).ok())
            .filter(|bytes| bytes.len() > KEY_HINT_BYTES)
            .ok_or("has a checkpoint with a line that is no signature")?;
        signatures.push(signature[KEY_HINT_BYTES..].to_vec());
    }
    Ok(Note {
        text,
        size,
        root,
        signatures,
    })
}

// === The promise ===

struct Promise<'a> {
    body: &'a [u8],
    integrated_time_s: i64,
    log_id: &'a str,
    log_index: i64,
}

fn verify_promise(
    promise: &Promise<'_>,
    signature: &[u8],
    keys: &[PublicKey],
) -> Result<SystemTime, Refusal> {
    // The canonical form sorts members and writes strings of plain letters and
    // whole numbers as they are; an identifier of other letters is none.
    if !promise.log_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refuse("names a log that is no key's fingerprint"));
    }
    let text = format!(
        r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
        STANDARD.encode(promise.body),
        promise.integrated_time_s,
        promise.log_id,
        promise.log_index,
    );
    if !keys
        .iter()
        .any(|key| key.verify(text.as_bytes(), signature))
    {
        return Err(refuse("has a timestamp that none of the log's keys signed"));
    }
    u64::try_from(promise.integrated_time_s)
        .ok()
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| refuse("has a time that is no time"))
}

// === The body ===

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    api_version: String,
    kind: String,
    spec: Value,
}

/// What an entry says, whatever its version.
struct Said {
    signature: Vec<u8>,
    /// The key's or certificate's encoding.
    signer: Vec<u8>,
    payload: Vec<u8>,
}

/// Compares the body with the signature at hand; returns its kind and version.
fn verify_body(
    body: &[u8],
    logged: Logged<'_>,
    limits: &Limits,
) -> Result<(String, String), Refusal> {
    strict_json::check(body, limits.json_depth)
        .map_err(|error| refuse(format!("has a body that is not strict JSON: {error}")))?;
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| refuse(format!("has a body of another shape: {error}")))?;
    let read = match (body.kind.as_str(), body.api_version.as_str()) {
        ("hashedrekord", "0.0.1") => said_by::<HashedRekord1>(body.spec),
        ("hashedrekord", "0.0.2") => said_by::<HashedRekord2>(body.spec),
        ("dsse", "0.0.1") => said_by::<Dsse1>(body.spec),
        ("dsse", "0.0.2") => said_by::<Dsse2>(body.spec),
        (kind, version) => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "log entries of kind {:?}, version {:?}, are not known",
                    excerpt(kind),
                    excerpt(version)
                ),
            ));
        }
    };
    let said = read.map_err(|why| refuse(format!("has a body of another shape: {why}")))?;
    if said.signature != logged.signature {
        return Err(refuse("is of another signature"));
    }
    if said.signer != logged.signer {
        return Err(refuse("is of another key or certificate"));
    }
    if said.payload != logged.payload.as_bytes() {
        return Err(refuse("is of another payload"));
    }
    Ok((body.kind, body.api_version))
}

fn said_by<T>(spec: Value) -> Result<Said, String>
where
    T: for<'de> Deserialize<'de> + TryInto<Said, Error = &'static str>,
{
    let spec: T = serde_json::from_value(spec).map_err(|error| error.to_string())?;
    spec.try_into().map_err(str::to_owned)
}

#[derive(Deserialize)]
struct HashedRekord1 {
    data: HashedData,
    signature: HashedSignature,
}

#[derive(Deserialize)]
struct HashedData {
    hash: NamedHash,
}

#[derive(Deserialize)]
struct NamedHash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashedSignature {
    content: Base64,
    public_key: PemKey,
}

#[derive(Deserialize)]
struct PemKey {
    content: Base64,
}

impl TryFrom<HashedRekord1> for Said {
    type Error = &'static str;

    fn try_from(spec: HashedRekord1) -> Result<Self, Self::Error> {
        Ok(Self {
            signature: spec.signature.content.0,
            signer: unwrap_pem(&spec.signature.public_key.content.0)?,
            payload: named_sha256(&spec.data.hash)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse1 {
    payload_hash: NamedHash,
    signatures: Vec<DsseSignature1>,
}

#[derive(Deserialize)]
struct DsseSignature1 {
    signature: Base64,
    verifier: Base64,
}

impl TryFrom<Dsse1> for Said {
    type Error = &'static str;

    fn try_from(spec: Dsse1) -> Result<Self, Self::Error> {
        let signature = only(spec.signatures)?;
        Ok(Self {
            signature: signature.signature.0,
            signer: unwrap_pem(&signature.verifier.0)?,
            payload: named_sha256(&spec.payload_hash)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashedRekord2 {
    hashed_rekord_v002: HashedRekord2Inner,
}

#[derive(Deserialize)]
struct HashedRekord2Inner {
    data: RawHash,
    signature: RawSignature,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse2 {
    dsse_v002: Dsse2Inner,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse2Inner {
    payload_hash: RawHash,
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
struct RawHash {
    algorithm: String,
    digest: Base64,
}

#[derive(Deserialize)]
struct RawSignature {
    content: Base64,
    verifier: RawVerifier,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVerifier {
    #[serde(default)]
    public_key: Option<RawBytes>,
    #[serde(default, rename = "x509Certificate")]
    certificate: Option<RawBytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBytes {
    raw_bytes: Base64,
}

impl TryFrom<HashedRekord2> for Said {
    type Error = &'static str;

    fn try_from(spec: HashedRekord2) -> Result<Self, Self::Error> {
        let HashedRekord2Inner { data, signature } = spec.hashed_rekord_v002;
        said_raw(data, signature)
    }
}

impl TryFrom<Dsse2> for Said {
    type Error = &'static str;

    fn try_from(spec: Dsse2) -> Result<Self, Self::Error> {
        let Dsse2Inner {
            payload_hash,
            signatures,
        } = spec.dsse_v002;
        said_raw(payload_hash, only(signatures)?)
    }
}

fn said_raw(hash: RawHash, signature: RawSignature) -> Result<Said, &'static str> {
    if hash.algorithm != "SHA2_256" {
        return Err("the hash is not SHA-256");
    }
    let signer = match (
        signature.verifier.public_key,
        signature.verifier.certificate,
    ) {
        (Some(signer), None) | (None, Some(signer)) => signer.raw_bytes.0,
        _ => return Err("there is not exactly one key or certificate"),
    };
    Ok(Said {
        signature: signature.content.0,
        signer,
        payload: hash.digest.0,
    })
}

fn only<T>(mut signatures: Vec<T>) -> Result<T, &'static str> {
    match signatures.len() {
        1 => signatures.pop().ok_or("there is no signature"),
        _ => Err("there is not exactly one signature"),
    }
}

fn unwrap_pem(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    pem::parse_one(text)
        .map(|block| block.contents)
        .map_err(|_| "the key or certificate is not one PEM block")
}

fn named_sha256(hash: &NamedHash) -> Result<Vec<u8>, &'static str> {
    if hash.algorithm != Algorithm::Sha256.name() {
        return Err("the hash is not SHA-256");
    }
    format!("sha256:{}", hash.value)
        .parse::<Digest>()
        .map(|digest| digest.as_bytes().to_vec())
        .map_err(|_| "the hash is not 64 hexadecimal digits")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
