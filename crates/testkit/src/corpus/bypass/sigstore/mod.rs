// SPDX-License-Identifier: Apache-2.0
//! S attachments · B bundles · C certificates · L the log: sigstore's signatures, made by OpenSSL.

mod cases;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Family::{self, Bundled, Certified, Logged};
use super::maker::{Maker, base64};
use super::scene::{DIR, Scene};

pub(super) use cases::CASES;

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOG: &str = "dev.sigstore.cosign/bundle";

/// An attachment as it is stored, before it is written down.
#[derive(Debug, Clone)]
struct Attachment {
    mime_type: String,
    payload: Vec<u8>,
    annotations: serde_json::Map<String, Value>,
}

impl Attachment {
    fn new(maker: &Maker, key: &str, payload: &Value) -> Result<Self> {
        let payload = payload.to_string().into_bytes();
        let signature = base64(maker.sign_bytes(key, &payload)?);
        let mut attachment = Self {
            mime_type: PAYLOAD_TYPE.into(),
            payload,
            annotations: serde_json::Map::new(),
        };
        attachment.set(SIGNATURE, signature);
        Ok(attachment)
    }

    fn good(maker: &Maker) -> Result<Self> {
        Self::new(maker, "team", &statement(maker))
    }

    fn set(&mut self, annotation: &str, value: impl Into<String>) {
        self.annotations
            .insert(annotation.into(), Value::String(value.into()));
    }

    fn json(&self) -> Value {
        json!({"mimeType": self.mime_type, "payload": base64(&self.payload),
               "annotations": self.annotations})
    }

    fn stored(&self) -> Vec<u8> {
        framed(&self.json())
    }
}

fn framed(attachment: &Value) -> Vec<u8> {
    [b"\0sigstore-json\n", attachment.to_string().as_bytes()].concat()
}

/// What cosign signs.
fn statement(maker: &Maker) -> Value {
    let mut statement = maker.statement(&maker.digest(), &maker.name());
    statement["critical"]["type"] = json!("cosign container image signature");
    statement
}

/// Takes an attachment that was made of the good statement and this change to it.
fn stating(maker: &Maker, scene: &mut Scene, edit: fn(&mut Value)) -> Result<()> {
    let mut statement = statement(maker);
    edit(&mut statement);
    scene.signatures = vec![Attachment::new(maker, "team", &statement)?.stored()];
    Ok(())
}

/// Takes the good attachment with a change to what is stored.
fn stored(maker: &Maker, scene: &mut Scene, edit: fn(&mut Value)) -> Result<()> {
    let mut attachment = Attachment::good(maker)?.json();
    edit(&mut attachment);
    scene.signatures = vec![framed(&attachment)];
    Ok(())
}

/// What is signed of a bundle's statement.
fn signed_text(payload: &str) -> Vec<u8> {
    let (kind, length) = (STATEMENT_TYPE, payload.len());
    format!("DSSEv1 {} {kind} {length} {payload}", kind.len()).into()
}

fn bundle_statement(maker: &Maker) -> Value {
    let digest = maker.digest();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": maker.name(), "digest": {"sha256": digest.trim_start_matches("sha256:")}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    })
}

fn bundle_of(maker: &Maker, key: &str, statement: &Value) -> Result<Value> {
    let payload = statement.to_string();
    let signature = base64(maker.sign_bytes(key, &signed_text(&payload))?);
    Ok(json!({
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": "x"}},
        "dsseEnvelope": {"payload": base64(payload), "payloadType": STATEMENT_TYPE,
                         "signatures": [{"sig": signature}]},
    }))
}

fn framed_bundle(bundle: &str) -> Vec<u8> {
    framed(&json!({"mimeType": BUNDLE_TYPE, "payload": base64(bundle), "annotations": {}}))
}

/// Takes a bundle of the good statement with this change to it.
fn bundle_stating(maker: &Maker, scene: &mut Scene, edit: fn(&mut Value)) -> Result<()> {
    let mut statement = bundle_statement(maker);
    edit(&mut statement);
    let bundle = bundle_of(maker, "team", &statement)?;
    scene.signatures = vec![framed_bundle(&bundle.to_string())];
    Ok(())
}

/// Takes the good bundle with this change to it.
fn bundled(maker: &Maker, scene: &mut Scene, edit: fn(&mut Value)) -> Result<()> {
    let mut bundle = bundle_of(maker, "team", &bundle_statement(maker))?;
    edit(&mut bundle);
    scene.signatures = vec![framed_bundle(&bundle.to_string())];
    Ok(())
}

/// A certificate authority of one's own; made once.
fn authority(maker: &Maker, name: &str) -> Result<String> {
    let (key, file) = (maker.private_key(name)?, format!("{name}.pem"));
    if !maker.path(&file).exists() {
        let subject = format!("/CN={name}");
        maker.openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-subj",
            &subject,
            "-days",
            "3650",
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-out",
            &file,
        ])?;
    }
    Ok(file)
}

/// A certificate for the key `of`, by an authority.
fn certificate(maker: &Maker, by: &str, of: &str, extensions: &str, days: &str) -> Result<String> {
    let authority = authority(maker, by)?;
    std::fs::write(maker.path("public.pem"), maker.public_pem(of)?)?;
    std::fs::write(maker.path("extensions"), extensions)?;
    let key = maker.private_key(by)?;
    let made = maker.openssl(&[
        "x509",
        "-new",
        "-force_pubkey",
        "public.pem",
        "-subj",
        "/CN=leaf",
        "-days",
        days,
        "-CA",
        &authority,
        "-CAkey",
        &key,
        "-extfile",
        "extensions",
    ])?;
    String::from_utf8(made).context("a certificate as text")
}

const LEAF: &str = "subjectAltName=email:alice@example.org\nextendedKeyUsage=codeSigning\nkeyUsage=digitalSignature";

/// Takes an attachment with a certificate.
fn certified(maker: &Maker, scene: &mut Scene, certificate: &str) -> Result<()> {
    let mut attachment = Attachment::good(maker)?;
    attachment.set(CERTIFICATE, certificate);
    scene.signatures = vec![attachment.stored()];
    Ok(())
}

/// What a log has of a signature.
struct LogEntry {
    log: &'static str,
    kind: &'static str,
    payload: Vec<u8>,
    signature: String,
    signer: Vec<u8>,
    time_s: u64,
}

impl LogEntry {
    fn of(maker: &Maker, attachment: &Attachment) -> Result<Self> {
        let signature = attachment.annotations[SIGNATURE].as_str();
        Ok(Self {
            log: "log",
            kind: "hashedrekord",
            payload: attachment.payload.clone(),
            signature: signature.unwrap_or_default().to_owned(),
            signer: maker.public_pem("team")?,
            time_s: 1_750_000_000,
        })
    }

    /// The annotation that an attachment carries.
    fn annotation(&self, maker: &Maker) -> Result<Value> {
        let hash = crate::image::digest(&self.payload);
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": self.kind,
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": hash.trim_start_matches("sha256:")}},
                "signature": {"content": self.signature, "publicKey": {"content": base64(&self.signer)}},
            },
        });
        let id = crate::image::digest(&maker.public_der(self.log)?);
        let text = format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":77}}"#,
            base64(body.to_string()),
            self.time_s,
            id.trim_start_matches("sha256:")
        );
        let promise = base64(maker.sign_bytes(self.log, text.as_bytes())?);
        Ok(
            json!({"SignedEntryTimestamp": promise, "Payload": serde_json::from_str::<Value>(&text)?}),
        )
    }
}

/// Takes the good attachment with a log entry that was made of this change to it, and then changed so.
fn logged(
    maker: &Maker,
    scene: &mut Scene,
    entry: impl FnOnce(&mut LogEntry),
    annotation: impl FnOnce(&mut Value),
) -> Result<()> {
    let mut attachment = Attachment::good(maker)?;
    let mut made = LogEntry::of(maker, &attachment)?;
    entry(&mut made);
    let mut text = made.annotation(maker)?;
    annotation(&mut text);
    attachment.set(LOG, text.to_string());
    scene.signatures = vec![attachment.stored()];
    Ok(())
}

/// The requirement of a family; its signature and files go into the scene.
pub(super) fn scene(family: Family, maker: &mut Maker, scene: &mut Scene) -> Result<Value> {
    scene.files.insert("team.pub", maker.public_pem("team")?);
    let mut requirement = json!({"type": "sigstoreSigned", "keyPath": format!("{DIR}/team.pub"),
        "signedIdentity": {"type": "matchRepoDigestOrExact"}});
    match family {
        Bundled => bundled(maker, scene, |_| ())?,
        Certified => {
            let root = authority(maker, "root")?;
            scene
                .files
                .insert("roots.pem", std::fs::read(maker.path(&root))?);
            let leaf = certificate(maker, "root", "team", LEAF, "30")?;
            certified(maker, scene, &leaf)?;
            requirement = json!({"type": "sigstoreSigned", "pki": {
                "caRootsPath": format!("{DIR}/roots.pem"), "subjectEmail": "alice@example.org"}});
        }
        Logged => {
            scene.files.insert("log.pub", maker.public_pem("log")?);
            requirement["rekorPublicKeyPath"] = json!(format!("{DIR}/log.pub"));
            logged(maker, scene, |_| (), |_| ())?;
        }
        _ => scene.signatures = vec![Attachment::good(maker)?.stored()],
    }
    Ok(requirement)
}
