// SPDX-License-Identifier: Apache-2.0
//! Certificates that OpenSSL makes, and a log of our own making.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_oci::{Algorithm, Digest, Limits};
use gantry_testkit::{skip, tool};
use gantry_trust::sigstore::{self, LogKeys, SigstoreClaim, Verifier};
use gantry_trust::{Reason, Refusal, SigstoreSignature};
use serde_json::{Value, json};

const ISSUER: &str = "https://issuer.example";
const EMAIL: &str = "alice@example.org";
const HOST: &str = "build.example.org";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// 1.3.6.1.4.1.57264.1.8
const ISSUER_V2: &str = "1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:https://issuer.example";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

macro_rules! needs_openssl {
    () => {
        if tool::find("openssl").is_none() {
            skip!("openssl is not installed");
        }
    };
}

// === Keys and certificates ===

struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.0.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }

    fn info(&self) -> Vec<u8> {
        let info: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        info.as_ref().to_vec()
    }

    fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.info())
    }
}

fn pem(label: &str, contents: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(contents)
    )
}

fn der(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(base64).unwrap()
}

/// A directory in which OpenSSL keeps authorities.
struct Authorities(tempfile::TempDir);

impl Authorities {
    /// A root `root` for ten years.
    fn new() -> Self {
        let authorities = Self(tempfile::tempdir().unwrap());
        authorities.root("root", 3650);
        authorities
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    fn new_key(&self, name: &str) {
        openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &self.path(&format!("{name}.key")),
        ]);
    }

    fn root(&self, name: &str, days: u32) -> String {
        self.new_key(name);
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &self.path(&format!("{name}.key")),
            "-subj",
            &format!("/CN={name}"),
            "-days",
            &days.to_string(),
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-out",
            &self.path(&format!("{name}.pem")),
        ]);
        self.read(&format!("{name}.pem"))
    }

    /// A certificate for a key, by an authority, with the given extensions.
    fn issue(
        &self,
        by: &str,
        name: &str,
        public_key: &str,
        extensions: &[&str],
        days: u32,
    ) -> String {
        let (public, list, out) = (
            self.path("public"),
            self.path("extensions"),
            self.path(&format!("{name}.pem")),
        );
        std::fs::write(&public, public_key).unwrap();
        std::fs::write(&list, extensions.join("\n")).unwrap();
        openssl(&[
            "x509",
            "-new",
            "-force_pubkey",
            &public,
            "-subj",
            &format!("/CN={name}"),
            "-days",
            &days.to_string(),
            "-CA",
            &self.path(&format!("{by}.pem")),
            "-CAkey",
            &self.path(&format!("{by}.key")),
            "-extfile",
            &list,
            "-out",
            &out,
        ]);
        self.read(&format!("{name}.pem"))
    }

    fn intermediate(&self, by: &str, name: &str, extensions: &[&str]) -> String {
        self.new_key(name);
        let public = tool::text(
            "openssl",
            ["ec", "-in", &self.path(&format!("{name}.key")), "-pubout"],
        )
        .unwrap();
        self.issue(by, name, &format!("{public}\n"), extensions, 365)
    }
}

fn openssl(arguments: &[&str]) {
    tool::text("openssl", arguments).unwrap();
}

/// What Fulcio writes into a certificate.
fn fulcio_extensions() -> Vec<&'static str> {
    vec![
        "subjectAltName=critical,email:alice@example.org",
        "extendedKeyUsage=codeSigning",
        ISSUER_V2,
    ]
}

// === The log ===

/// The entry of a signature in the log, before it is encoded.
fn hashed_record(payload: &[u8], signature: &[u8], signer_pem: &str) -> Value {
    json!({
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": Digest::of(Algorithm::Sha256, payload).hex()}},
            "signature": {
                "content": STANDARD.encode(signature),
                "publicKey": {"content": STANDARD.encode(signer_pem)},
            },
        },
    })
}

fn log_id(log: &Key) -> String {
    Digest::of(Algorithm::Sha256, &log.info()).hex()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What the log signs, in its canonical form.
fn promised(log: &Key, body: &[u8], time: SystemTime) -> String {
    format!(
        r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":77}}"#,
        STANDARD.encode(body),
        seconds(time),
        log_id(log)
    )
}

/// The annotation of an attachment.
fn annotation(log: &Key, body: &Value, time: SystemTime) -> Value {
    let body = serde_json::to_vec(body).unwrap();
    let text = promised(log, &body, time);
    json!({
        "SignedEntryTimestamp": STANDARD.encode(log.sign(text.as_bytes())),
        "Payload": serde_json::from_str::<Value>(&text).unwrap(),
    })
}

fn node(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let bytes: Vec<u8> = std::iter::once(prefix).chain(parts.concat()).collect();
    Digest::of(Algorithm::Sha256, &bytes).as_bytes().to_vec()
}

/// A tree by RFC 9162's recursive definition: its root, and the path of one leaf.
fn tree(leaves: &[Vec<u8>], index: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    if let [leaf] = leaves {
        return (node(0, &[leaf]), Vec::new());
    }
    let half = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(half);
    let ((left_root, left_path), (right_root, right_path)) = (
        tree(left, index.min(half - 1)),
        tree(right, index.saturating_sub(half).min(right.len() - 1)),
    );
    let root = node(1, &[&left_root, &right_root]);
    let (mut path, sibling) = if index < half {
        (left_path, right_root)
    } else {
        (right_path, left_root)
    };
    path.push(sibling);
    (root, path)
}

/// The entry of a bundle: leaf `index` of a tree of `size` leaves.
fn entry(log: &Key, body: &Value, time: SystemTime, index: usize, size: usize) -> Value {
    let body_bytes = serde_json::to_vec(body).unwrap();
    let mut leaves: Vec<Vec<u8>> = (0..size)
        .map(|n| format!("entry {n}").into_bytes())
        .collect();
    leaves[index] = body_bytes.clone();
    let (root, path) = tree(&leaves, index);
    let note = format!("log.example - 1\n{size}\n{}\n", STANDARD.encode(&root));
    let mut signature = vec![0xA1, 0xB2, 0xC3, 0xD4];
    signature.extend(log.sign(note.as_bytes()));
    let promise = log.sign(promised(log, &body_bytes, time).as_bytes());
    json!({
        "logIndex": "77",
        "logId": {"keyId": STANDARD.encode(Digest::of(Algorithm::Sha256, &log.info()).as_bytes())},
        "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
        "integratedTime": seconds(time).to_string(),
        "inclusionPromise": {"signedEntryTimestamp": STANDARD.encode(promise)},
        "inclusionProof": {
            "logIndex": index.to_string(),
            "rootHash": STANDARD.encode(&root),
            "treeSize": size.to_string(),
            "hashes": path.iter().map(|hash| STANDARD.encode(hash)).collect::<Vec<_>>(),
            "checkpoint": {"envelope": format!("{note}\n\u{2014} log.example {}\n", STANDARD.encode(&signature))},
        },
        "canonicalizedBody": STANDARD.encode(&body_bytes),
    })
}

// === Signatures ===

fn payload() -> Vec<u8> {
    let now = SystemTime::now();
    sigstore::make_payload(
        "registry.example/app:v1",
        &DIGEST.parse().unwrap(),
        "test",
        now,
    )
}

fn attachment(payload: &[u8], annotations: &[(&str, String)]) -> SigstoreSignature {
    SigstoreSignature {
        mime_type: sigstore::PAYLOAD_MEDIA_TYPE.into(),
        payload: Bytes::copy_from_slice(payload),
        annotations: annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    }
}

/// An attachment that Fulcio's and Rekor's users make, taken apart.
struct Keyless {
    payload: Vec<u8>,
    signature: Vec<u8>,
    certificate: String,
    chain: Option<String>,
    log_entry: Value,
}

impl Keyless {
    fn signature(&self) -> SigstoreSignature {
        let mut annotations = vec![
            (
                sigstore::SIGNATURE_ANNOTATION,
                STANDARD.encode(&self.signature),
            ),
            (sigstore::CERTIFICATE_ANNOTATION, self.certificate.clone()),
            (sigstore::LOG_ANNOTATION, self.log_entry.to_string()),
        ];
        annotations.extend(
            self.chain
                .clone()
                .map(|chain| (sigstore::CHAIN_ANNOTATION, chain)),
        );
        attachment(&self.payload, &annotations)
    }
}

fn keyless(log: &Key, key: &Key, certificate: &str, time: SystemTime) -> Keyless {
    let payload = payload();
    let signature = key.sign(&payload);
    let body = hashed_record(&payload, &signature, certificate);
    Keyless {
        log_entry: annotation(log, &body, time),
        certificate: certificate.to_owned(),
        chain: None,
        payload,
        signature,
    }
}

fn fulcio(roots: &str, log: &Key) -> Verifier {
    let log = LogKeys::parse(&[log.public_pem().into()]).unwrap();
    Verifier::fulcio(roots.as_bytes(), ISSUER, EMAIL, log, &Limits::DEFAULT).unwrap()
}

fn verify(
    signature: &SigstoreSignature,
    verifier: &Verifier,
    now: SystemTime,
) -> Result<SigstoreClaim, Refusal> {
    sigstore::verify(signature, verifier, now, &Limits::DEFAULT)
}

fn reason(found: Result<SigstoreClaim, Refusal>) -> Result<(), Reason> {
    found.map(drop).map_err(|refusal| refusal.reason)
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

#[test]
fn a_certificate_of_fulcio_in_the_log_counts() {
    needs_openssl!();
    let authorities = Authorities::new();
    let (key, log) = (Key::new(), Key::new());
    let certificate = authorities.issue("root", "leaf", &key.public_pem(), &fulcio_extensions(), 1);
    let time = soon();
    let signed = keyless(&log, &key, &certificate, time);
    let verifier = fulcio(&authorities.read("root.pem"), &log);
    // The certificate is long over when it is judged: what counts is when it signed.
    let found = verify(&signed.signature(), &verifier, soon() + 1000 * DAY).unwrap();
    assert_eq!(
        found.claim.docker_reference.as_deref(),
        Some("registry.example/app:v1")
    );
    assert_eq!(
        found.signer.to_string(),
        "alice@example.org (by https://issuer.example)"
    );
    assert_eq!(seconds(found.logged_at.unwrap()), seconds(time));
}

#[test]
fn certificates_that_fulcio_would_not_make_do_not_count() {
    needs_openssl!();
    use Reason::{Certificate, Expired, KeyUnfit};
    let authorities = Authorities::new();
    authorities.root("other", 3650);
    authorities.root("brief", 5);
    let (key, log) = (Key::new(), Key::new());
    // "https://other.example" and "https://issuer.example", as bytes.
    let (v1_other, v1) = (
        "1.3.6.1.4.1.57264.1.1=DER:68747470733a2f2f6f746865722e6578616d706c65",
        "1.3.6.1.4.1.57264.1.1=DER:68747470733a2f2f6973737565722e6578616d706c65",
    );
    let (san, purpose) = (
        "subjectAltName=email:alice@example.org",
        "extendedKeyUsage=codeSigning",
    );
    type Case<'a> = (
        &'a str,
        &'a str,
        &'a [&'a str],
        Duration,
        Result<(), Reason>,
    );
    let table: &[Case<'_>] = &[
        ("good", "root", &[san, purpose, ISSUER_V2], DAY / 2, Ok(())),
        (
            "the old issuer",
            "root",
            &[san, purpose, v1],
            DAY / 2,
            Ok(()),
        ),
        (
            "both issuers",
            "root",
            &[san, purpose, v1, ISSUER_V2],
            DAY / 2,
            Ok(()),
        ),
        ("no purpose", "root", &[san, ISSUER_V2], DAY / 2, Ok(())),
        (
            "any purpose",
            "root",
            &[san, "extendedKeyUsage=anyExtendedKeyUsage", ISSUER_V2],
            DAY / 2,
            Ok(()),
        ),
        (
            "two names",
            "root",
            &[
                "subjectAltName=email:bob@example.org,email:alice@example.org",
                purpose,
                ISSUER_V2,
            ],
            DAY / 2,
            Ok(()),
        ),
        (
            "another purpose",
            "root",
            &[san, "extendedKeyUsage=serverAuth", ISSUER_V2],
            DAY / 2,
            Err(KeyUnfit),
        ),
        (
            "no issuer",
            "root",
            &[san, purpose],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "another issuer",
            "root",
            &[san, purpose, v1_other],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "two issuers",
            "root",
            &[san, purpose, v1_other, ISSUER_V2],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "an issuer that is no text",
            "root",
            &[san, purpose, "1.3.6.1.4.1.57264.1.8=DER:0101ff"],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "another name",
            "root",
            &["subjectAltName=email:bob@example.org", purpose, ISSUER_V2],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "a longer name",
            "root",
            &[
                "subjectAltName=email:alice@example.org.evil",
                purpose,
                ISSUER_V2,
            ],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "the name as a host",
            "root",
            &["subjectAltName=DNS:alice@example.org", purpose, ISSUER_V2],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "no name",
            "root",
            &[purpose, ISSUER_V2],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "an unknown critical extension",
            "root",
            &[san, purpose, ISSUER_V2, "1.2.3.4=critical,DER:0500"],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "another root",
            "other",
            &[san, purpose, ISSUER_V2],
            DAY / 2,
            Err(Certificate),
        ),
        (
            "signed after its end",
            "root",
            &[san, purpose, ISSUER_V2],
            20 * DAY,
            Err(Expired),
        ),
        (
            "a root that was over",
            "brief",
            &[san, purpose, ISSUER_V2],
            7 * DAY,
            Err(Certificate),
        ),
        (
            "a root that was not over",
            "brief",
            &[san, purpose, ISSUER_V2],
            4 * DAY,
            Ok(()),
        ),
    ];
    for (what, by, extensions, after, expected) in table {
        let certificate = authorities.issue(by, "leaf", &key.public_pem(), extensions, 10);
        let signed = keyless(&log, &key, &certificate, SystemTime::now() + *after);
        let roots = match *by {
            "brief" => authorities.read("brief.pem"),
            _ => authorities.read("root.pem"),
        };
        let found = verify(
            &signed.signature(),
            &fulcio(&roots, &log),
            SystemTime::now(),
        );
        assert_eq!(reason(found), *expected, "{what}");
    }
}

#[test]
fn certificates_between_leaf_and_root_are_judged_too() {
    needs_openssl!();
    const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE";
    let authorities = Authorities::new();
    let (key, log) = (Key::new(), Key::new());
    type Case<'a> = (&'a str, &'a [&'a str], Result<(), Reason>);
    let table: &[Case<'_>] = &[
        ("good", &[AUTHORITY, "extendedKeyUsage=codeSigning"], Ok(())),
        ("without purposes", &[AUTHORITY], Ok(())),
        (
            "for servers",
            &[AUTHORITY, "extendedKeyUsage=serverAuth"],
            Err(Reason::KeyUnfit),
        ),
        (
            "no authority",
            &["basicConstraints=critical,CA:FALSE"],
            Err(Reason::Certificate),
        ),
        ("says nothing", &[], Err(Reason::Certificate)),
    ];
    for (what, extensions, expected) in table {
        let between = authorities.intermediate("root", "between", extensions);
        let certificate = authorities.issue(
            "between",
            "leaf",
            &key.public_pem(),
            &fulcio_extensions(),
            1,
        );
        let mut signed = keyless(&log, &key, &certificate, soon());
        signed.chain = Some(format!("{between}{}", authorities.read("root.pem")));
        let verifier = fulcio(&authorities.read("root.pem"), &log);
        assert_eq!(
            reason(verify(&signed.signature(), &verifier, soon())),
            *expected,
            "{what}"
        );
        // The last of the chain is taken for a root that nobody asked for.
        signed.chain = Some(between);
        assert!(
            verify(&signed.signature(), &verifier, soon()).is_err(),
            "{what}"
        );
        signed.chain = None;
        assert!(
            verify(&signed.signature(), &verifier, soon()).is_err(),
            "{what}"
        );
    }
}

#[test]
fn a_keyless_signature_of_which_any_part_is_changed_does_not_count() {
    needs_openssl!();
    use Reason::{Certificate, Log, Malformed, TooLarge, Unsupported};
    type Edit = Box<dyn Fn(&mut Keyless)>;
    let authorities = Authorities::new();
    let (key, log, other) = (Key::new(), Key::new(), Key::new());
    let root = authorities.read("root.pem");
    let certificate = authorities.issue("root", "leaf", &key.public_pem(), &fulcio_extensions(), 1);
    let twin = authorities.issue("root", "twin", &key.public_pem(), &fulcio_extensions(), 1);
    let edit = |edit: fn(&mut Keyless)| -> Edit { Box::new(edit) };
    let body = |edit: fn(&mut Value)| -> Edit {
        let log = Key(EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            log.0.to_pkcs8v1().unwrap().as_ref(),
        )
        .unwrap());
        Box::new(move |signed| {
            let bytes = STANDARD
                .decode(signed.log_entry["Payload"]["body"].as_str().unwrap())
                .unwrap();
            let mut body: Value = serde_json::from_slice(&bytes).unwrap();
            edit(&mut body);
            signed.log_entry = annotation(&log, &body, soon());
        })
    };
    let table: Vec<(&str, Edit, Reason)> = vec![
        ("payload", edit(|s| s.payload.push(b' ')), Log),
        ("signature", edit(|s| s.signature[20] ^= 1), Log),
        (
            "certificate",
            Box::new(move |s| s.certificate.clone_from(&twin)),
            Log,
        ),
        (
            "certificate in other words",
            edit(|s| s.certificate.insert_str(0, "text\n")),
            Certificate,
        ),
        (
            "two certificates",
            edit(|s| s.certificate = s.certificate.repeat(2)),
            Certificate,
        ),
        (
            "no certificate",
            edit(|s| s.certificate.clear()),
            Certificate,
        ),
        (
            "a key instead",
            edit(|s| s.certificate = s.certificate.replace("CERTIFICATE", "PUBLIC KEY")),
            Certificate,
        ),
        (
            "a chain of garbage",
            edit(|s| s.chain = Some("x".into())),
            Certificate,
        ),
        (
            "a chain without end",
            edit(|s| s.chain = Some(s.certificate.repeat(Limits::DEFAULT.certificates + 1))),
            TooLarge,
        ),
        (
            "time",
            edit(|s| s.log_entry["Payload"]["integratedTime"] = json!(1)),
            Log,
        ),
        (
            "index",
            edit(|s| s.log_entry["Payload"]["logIndex"] = json!(78)),
            Log,
        ),
        (
            "log",
            edit(|s| s.log_entry["Payload"]["logID"] = json!("00")),
            Log,
        ),
        (
            "a log that breaks out",
            edit(|s| s.log_entry["Payload"]["logID"] = json!("\",\"x\":\"")),
            Log,
        ),
        (
            "timestamp",
            edit(|s| s.log_entry["SignedEntryTimestamp"] = json!("AAAA")),
            Log,
        ),
        (
            "another member",
            edit(|s| s.log_entry["more"] = json!(1)),
            Log,
        ),
        (
            "another member inside",
            edit(|s| s.log_entry["Payload"]["more"] = json!(1)),
            Log,
        ),
        (
            "no payload",
            edit(|s| drop(s.log_entry.as_object_mut().unwrap().remove("Payload"))),
            Log,
        ),
        ("no entry", edit(|s| s.log_entry = json!(null)), Log),
        (
            "the log's word about another kind",
            body(|b| b["kind"] = json!("intoto")),
            Unsupported,
        ),
        (
            "the log's word about another version",
            body(|b| b["apiVersion"] = json!("0.0.9")),
            Unsupported,
        ),
        (
            "the log's word about another hash",
            body(|b| b["spec"]["data"]["hash"]["value"] = json!("00".repeat(32))),
            Log,
        ),
        (
            "the log's word about another algorithm",
            body(|b| b["spec"]["data"]["hash"]["algorithm"] = json!("sha512")),
            Log,
        ),
        (
            "the log's word about another signature",
            body(|b| b["spec"]["signature"]["content"] = json!("AAAA")),
            Log,
        ),
        (
            "the log's word about another certificate",
            body(|b| {
                b["spec"]["signature"]["publicKey"]["content"] =
                    json!(STANDARD.encode(Key::new().public_pem()));
            }),
            Log,
        ),
        (
            "the log's word about nothing",
            body(|b| b["spec"] = json!({})),
            Log,
        ),
    ];
    let verifier = fulcio(&root, &log);
    let good = || keyless(&log, &key, &certificate, soon());
    assert!(verify(&good().signature(), &verifier, soon()).is_ok());
    for (what, edit, expected) in &table {
        let mut signed = good();
        edit(&mut signed);
        assert_eq!(
            reason(verify(&signed.signature(), &verifier, soon())),
            Err(*expected),
            "{what}"
        );
    }

    // Consistent, but by a key that is not the certificate's, or a log that is not asked for.
    let forged = keyless(&log, &other, &certificate, soon());
    assert_eq!(
        reason(verify(&forged.signature(), &verifier, soon())),
        Err(Reason::Bad)
    );
    let elsewhere = keyless(&other, &key, &certificate, soon());
    assert_eq!(
        reason(verify(&elsewhere.signature(), &verifier, soon())),
        Err(Log)
    );
    for name in [
        sigstore::CERTIFICATE_ANNOTATION,
        sigstore::LOG_ANNOTATION,
        sigstore::SIGNATURE_ANNOTATION,
    ] {
        let mut signature = good().signature();
        signature.annotations.remove(name);
        let expected = match name {
            sigstore::CERTIFICATE_ANNOTATION => Certificate,
            sigstore::LOG_ANNOTATION => Log,
            _ => Malformed,
        };
        assert_eq!(
            reason(verify(&signature, &verifier, soon())),
            Err(expected),
            "{name}"
        );
    }
}

#[test]
fn a_certificate_of_ones_own_authority_counts_while_it_lives() {
    needs_openssl!();
    let authorities = Authorities::new();
    let key = Key::new();
    let between =
        authorities.intermediate("root", "between", &["basicConstraints=critical,CA:TRUE"]);
    let names =
        "subjectAltName=email:alice@example.org,DNS:build.example.org,DNS:*.wild.example.org";
    let certificate = authorities.issue("between", "leaf", &key.public_pem(), &[names], 10);
    let root = authorities.read("root.pem");
    let payload = payload();
    let signature = attachment(
        &payload,
        &[
            (
                sigstore::SIGNATURE_ANNOTATION,
                STANDARD.encode(key.sign(&payload)),
            ),
            (sigstore::CERTIFICATE_ANNOTATION, certificate),
        ],
    );
    let judge =
        |intermediates: Option<&str>, host: Option<&str>, email: Option<&str>, after: Duration| {
            let verifier = Verifier::pki(
                root.as_bytes(),
                intermediates.map(str::as_bytes),
                host.map(str::to_owned),
                email.map(str::to_owned),
                &Limits::DEFAULT,
            )
            .unwrap();
            reason(verify(&signature, &verifier, SystemTime::now() + after))
        };
    let between = Some(between.as_str());
    assert_eq!(judge(between, None, Some(EMAIL), DAY), Ok(()));
    assert_eq!(judge(between, Some(HOST), None, DAY), Ok(()));
    assert_eq!(
        judge(between, Some("a.wild.example.org"), Some(EMAIL), DAY),
        Ok(())
    );
    assert_eq!(
        judge(between, Some(HOST), Some("bob@example.org"), DAY),
        Err(Reason::Certificate)
    );
    assert_eq!(
        judge(between, Some("other.example.org"), Some(EMAIL), DAY),
        Err(Reason::Certificate)
    );
    assert_eq!(
        judge(between, Some("not a host"), None, DAY),
        Err(Reason::Certificate)
    );
    assert_eq!(
        judge(None, None, Some(EMAIL), DAY),
        Err(Reason::Certificate)
    );
    assert_eq!(
        judge(between, None, Some(EMAIL), 11 * DAY),
        Err(Reason::Expired)
    );
    // The verdict says when it ends, to the second.
    let verifier = Verifier::pki(
        root.as_bytes(),
        between.map(str::as_bytes),
        None,
        Some(EMAIL.to_owned()),
        &Limits::DEFAULT,
    )
    .unwrap();
    let until = verify(&signature, &verifier, SystemTime::now()).unwrap();
    let until = until.holds_until.unwrap();
    assert!(until < SystemTime::now() + 11 * DAY);
    let last = until - Duration::from_secs(1);
    assert!(verify(&signature, &verifier, last).is_ok());
    assert_eq!(
        reason(verify(&signature, &verifier, until)),
        Err(Reason::Expired)
    );
    assert!(
        Verifier::pki(
            root.as_bytes(),
            None,
            None,
            Some(String::new()),
            &Limits::DEFAULT
        )
        .is_err()
    );
}

#[test]
fn files_that_hold_no_authority_make_no_verifier() {
    needs_openssl!();
    let authorities = Authorities::new();
    let key = Key::new();
    let leaf = authorities.issue("root", "leaf", &key.public_pem(), &fulcio_extensions(), 1);
    let root = authorities.read("root.pem");
    let log = || LogKeys::parse(&[key.public_pem().into()]).unwrap();
    let make = |text: &str| {
        Verifier::fulcio(text.as_bytes(), ISSUER, EMAIL, log(), &Limits::DEFAULT).is_ok()
    };
    assert!(make(&format!("# our root\n{root}\nand again\n{root}")));
    for (what, text) in [
        ("nothing", String::new()),
        ("a leaf", leaf),
        ("a key", key.public_pem()),
        (
            "a certificate of garbage",
            pem("CERTIFICATE", b"\x30\x03abc"),
        ),
        ("too many", root.repeat(Limits::DEFAULT.certificates + 1)),
    ] {
        assert!(!make(&text), "{what}");
    }
    for (issuer, email) in [("", EMAIL), (ISSUER, "")] {
        assert!(Verifier::fulcio(root.as_bytes(), issuer, email, log(), &Limits::DEFAULT).is_err());
    }
}

// === Bundles ===

fn bundle(key: &Key, certificate: Option<&str>, entries: &[Value]) -> Value {
    let (payload, signature) = statement(key);
    let mut material = match certificate {
        Some(certificate) => {
            json!({"certificate": {"rawBytes": STANDARD.encode(der(certificate))}})
        }
        None => json!({"publicKey": {"hint": "x"}}),
    };
    material["tlogEntries"] = json!(entries);
    json!({
        "mediaType": sigstore::BUNDLE_MEDIA_TYPE,
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": STANDARD.encode(&payload),
            "payloadType": sigstore::IN_TOTO_PAYLOAD_TYPE,
            "signatures": [{"sig": STANDARD.encode(&signature)}],
        },
    })
}

thread_local! {
    /// ECDSA signs differently each time; a bundle and its entry must agree.
    static SIGNED: std::cell::RefCell<Vec<(Vec<u8>, Vec<u8>)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A statement about the image, and the signature of a key over it, the same each time.
fn statement(key: &Key) -> (Vec<u8>, Vec<u8>) {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "registry.example/app:v1", "digest": {"sha256": &DIGEST[7..]}}],
        "predicateType": sigstore::SIGN_PREDICATE_TYPE,
        "predicate": {},
    });
    let payload = serde_json::to_vec(&statement).unwrap();
    let kind = sigstore::IN_TOTO_PAYLOAD_TYPE;
    let mut text = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    text.extend(&payload);
    let info = key.info();
    let signature = SIGNED.with_borrow_mut(|signed| {
        if let Some((_, signature)) = signed.iter().find(|(known, _)| *known == info) {
            return signature.clone();
        }
        let signature = key.sign(&text);
        signed.push((info, signature.clone()));
        signature
    });
    (payload, signature)
}

fn dsse_record(key: &Key, signer_pem: &str) -> Value {
    let (payload, signature) = statement(key);
    json!({
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "00"},
            "payloadHash": {"algorithm": "sha256", "value": Digest::of(Algorithm::Sha256, &payload).hex()},
            "signatures": [{"signature": STANDARD.encode(signature), "verifier": STANDARD.encode(signer_pem)}],
        },
    })
}

/// The same in the words of the log's second version.
fn dsse_record_v2(key: &Key) -> Value {
    let (payload, signature) = statement(key);
    json!({
        "apiVersion": "0.0.2",
        "kind": "dsse",
        "spec": {"dsseV002": {
            "payloadHash": {"algorithm": "SHA2_256", "digest": STANDARD.encode(Digest::of(Algorithm::Sha256, &payload).as_bytes())},
            "signatures": [{
                "content": STANDARD.encode(signature),
                "verifier": {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "publicKey": {"rawBytes": STANDARD.encode(key.info())}},
            }],
        }},
    })
}

fn stored(bundle: &Value) -> SigstoreSignature {
    SigstoreSignature {
        mime_type: sigstore::BUNDLE_MEDIA_TYPE.into(),
        payload: serde_json::to_vec(bundle).unwrap().into(),
        annotations: Default::default(),
    }
}

fn keyed(key: &Key, log: &Key) -> Verifier {
    let log = LogKeys::parse(&[Key::new().public_pem().into(), log.public_pem().into()]).unwrap();
    Verifier::keys(
        &[Key::new().public_pem().into(), key.public_pem().into()],
        Some(log),
    )
    .unwrap()
}

#[test]
fn a_bundle_with_its_place_in_the_log_counts_wherever_that_is() {
    let (key, log) = (Key::new(), Key::new());
    let verifier = keyed(&key, &log);
    for size in 1..=9 {
        for index in 0..size {
            for record in [dsse_record(&key, &key.public_pem()), dsse_record_v2(&key)] {
                let entry = entry(&log, &record, soon(), index, size);
                let found = verify(&stored(&bundle(&key, None, &[entry])), &verifier, soon());
                assert_eq!(reason(found), Ok(()), "{index} of {size}");
            }
        }
    }
}

#[test]
fn a_bundle_with_a_certificate_of_fulcio_counts() {
    needs_openssl!();
    let authorities = Authorities::new();
    let (key, log) = (Key::new(), Key::new());
    let certificate = authorities.issue("root", "leaf", &key.public_pem(), &fulcio_extensions(), 1);
    let verifier = fulcio(&authorities.read("root.pem"), &log);
    let record = dsse_record(&key, &certificate);
    let good = entry(&log, &record, soon(), 2, 5);
    let judge = |entry: &Value| {
        let bundle = bundle(&key, Some(&certificate), std::slice::from_ref(entry));
        reason(verify(&stored(&bundle), &verifier, soon() + 1000 * DAY))
    };
    assert_eq!(judge(&good), Ok(()));
    let mut timeless = good.clone();
    timeless.as_object_mut().unwrap().remove("inclusionPromise");
    assert_eq!(judge(&timeless), Err(Reason::Log));
    let late = entry(&log, &record, soon() + 3 * DAY, 2, 5);
    assert_eq!(judge(&late), Err(Reason::Expired));
}

#[test]
fn a_bundle_of_whose_log_entry_any_part_is_changed_does_not_count() {
    use Reason::{Log, TooLarge};
    let (key, log) = (Key::new(), Key::new());
    let verifier = keyed(&key, &log);
    let record = dsse_record(&key, &key.public_pem());
    let good = entry(&log, &record, soon(), 2, 5);
    let judge = |entries: &[Value]| {
        reason(verify(
            &stored(&bundle(&key, None, entries)),
            &verifier,
            soon(),
        ))
    };
    assert_eq!(judge(std::slice::from_ref(&good)), Ok(()));
    type Edit = fn(&mut Value);
    let table: &[(&str, Edit, Reason)] = &[
        (
            "no proof",
            |e| drop(e.as_object_mut().unwrap().remove("inclusionProof")),
            Log,
        ),
        (
            "index of the proof",
            |e| e["inclusionProof"]["logIndex"] = json!("3"),
            Log,
        ),
        (
            "index past the end",
            |e| e["inclusionProof"]["logIndex"] = json!("5"),
            Log,
        ),
        (
            "negative index",
            |e| e["inclusionProof"]["logIndex"] = json!("-1"),
            Log,
        ),
        (
            "size",
            |e| e["inclusionProof"]["treeSize"] = json!("6"),
            Log,
        ),
        (
            "no size",
            |e| e["inclusionProof"]["treeSize"] = json!("0"),
            Log,
        ),
        (
            "root",
            |e| e["inclusionProof"]["rootHash"] = json!(STANDARD.encode([0; 32])),
            Log,
        ),
        (
            "a hash less",
            |e| drop(e["inclusionProof"]["hashes"].as_array_mut().unwrap().pop()),
            Log,
        ),
        (
            "a hash more",
            |e| {
                e["inclusionProof"]["hashes"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!(STANDARD.encode([0; 32])))
            },
            Log,
        ),
        (
            "a short hash",
            |e| e["inclusionProof"]["hashes"][0] = json!("AAAA"),
            Log,
        ),
        (
            "another hash",
            |e| e["inclusionProof"]["hashes"][0] = json!(STANDARD.encode([0; 32])),
            Log,
        ),
        (
            "hashes without end",
            |e| e["inclusionProof"]["hashes"] = json!(vec![STANDARD.encode([0; 32]); 65]),
            TooLarge,
        ),
        (
            "an unsigned checkpoint",
            |e| {
                edit_note(e, |note| {
                    note.split_once("\n\n").unwrap().0.to_owned() + "\n\n"
                })
            },
            Log,
        ),
        ("no checkpoint", |e| edit_note(e, |_| String::new()), Log),
        (
            "another origin",
            |e| edit_note(e, |note| note.replacen("log", "fog", 1)),
            Log,
        ),
        (
            "another size in the checkpoint",
            |e| edit_note(e, |note| note.replacen("\n5\n", "\n6\n", 1)),
            Log,
        ),
        (
            "a size that could be shorter",
            |e| edit_note(e, |note| note.replacen("\n5\n", "\n05\n", 1)),
            Log,
        ),
        (
            "a line more in the checkpoint",
            |e| edit_note(e, |note| note.replacen("\n\n", "\nmore\n\n", 1)),
            Log,
        ),
        (
            "a signature that is none",
            |e| edit_note(e, |note| note.replace("\u{2014} ", "- ")),
            Log,
        ),
        (
            "signatures without end",
            |e| {
                edit_note(e, |note| {
                    let (text, signature) = note.split_once("\n\n").unwrap();
                    format!(
                        "{text}\n\n{}",
                        "\u{2014} x AAAAAAAA\n".repeat(32) + signature
                    )
                })
            },
            Log,
        ),
        ("time", |e| e["integratedTime"] = json!("1"), Log),
        ("index", |e| e["logIndex"] = json!("78"), Log),
        ("log", |e| e["logId"]["keyId"] = json!("AAAA"), Log),
        (
            "promise",
            |e| e["inclusionPromise"]["signedEntryTimestamp"] = json!("AAAA"),
            Log,
        ),
        ("body", |e| e["canonicalizedBody"] = json!("e30="), Log),
        (
            "kind",
            |e| e["kindVersion"]["kind"] = json!("hashedrekord"),
            Log,
        ),
        (
            "version",
            |e| e["kindVersion"]["version"] = json!("0.0.2"),
            Log,
        ),
    ];
    for (what, edit, expected) in table {
        let mut changed = good.clone();
        edit(&mut changed);
        assert_ne!(changed, good, "{what}");
        assert_eq!(
            judge(std::slice::from_ref(&changed)),
            Err(*expected),
            "{what}"
        );
        // A good entry beside it is enough, in any order.
        assert_eq!(judge(&[changed.clone(), good.clone()]), Ok(()), "{what}");
        assert_eq!(judge(&[good.clone(), changed]), Ok(()), "{what}");
    }
    assert_eq!(judge(&[]), Err(Log));

    for (what, record) in [
        ("another key", dsse_record(&key, &Key::new().public_pem())),
        (
            "another signature",
            dsse_record(&Key::new(), &key.public_pem()),
        ),
        ("two signatures", {
            let mut record = dsse_record(&key, &key.public_pem());
            let signature = record["spec"]["signatures"][0].clone();
            record["spec"]["signatures"]
                .as_array_mut()
                .unwrap()
                .push(signature);
            record
        }),
    ] {
        assert_eq!(
            judge(&[entry(&log, &record, soon(), 2, 5)]),
            Err(Log),
            "{what}"
        );
    }
    let elsewhere = entry(
        &Key::new(),
        &dsse_record(&key, &key.public_pem()),
        soon(),
        2,
        5,
    );
    assert_eq!(judge(&[elsewhere]), Err(Log));
}

fn edit_note(entry: &mut Value, edit: impl FnOnce(&str) -> String) {
    let note = &mut entry["inclusionProof"]["checkpoint"]["envelope"];
    *note = json!(edit(note.as_str().unwrap()));
}

#[test]
fn a_key_in_the_log_counts_as_an_attachment_too() {
    let (key, log) = (Key::new(), Key::new());
    let verifier = keyed(&key, &log);
    let payload = payload();
    let signature = key.sign(&payload);
    let with = |body: &Value| {
        let entry = annotation(&log, body, soon()).to_string();
        let annotations = [
            (sigstore::SIGNATURE_ANNOTATION, STANDARD.encode(&signature)),
            (sigstore::LOG_ANNOTATION, entry),
        ];
        verify(&attachment(&payload, &annotations), &verifier, soon())
    };
    let good = hashed_record(&payload, &signature, &key.public_pem());
    assert!(with(&good).unwrap().logged_at.is_some());
    let other = hashed_record(&payload, &signature, &Key::new().public_pem());
    assert_eq!(reason(with(&other)), Err(Reason::Log));
}
