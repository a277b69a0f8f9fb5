// SPDX-License-Identifier: Apache-2.0
//! Sigstore signatures: what cosign and skopeo attach to images.
//!
//! ```text
//!  attachment   payload (names digest and reference) + annotations: signature, certificate, chain, log entry
//!  bundle       one document: envelope or signature, certificate or hint, log entries
//!
//!  Verifier::Keys    one of these keys made it            (+ one of these logs has it, if the requirement names logs)
//!  Verifier::Fulcio  the log has it; at the log's time its certificate led to the root and named issuer and subject
//!  Verifier::Pki     its certificate leads to a root now and names the subject
//! ```
//!
//! Nothing is believed before the signature over it was found good, except
//! what must be read to find that out. All is computed from what the signature
//! carries: no log, no certificate service is ever asked.
//!
//! # What is not done
//! Timestamps of RFC 3161 authorities are not read, so a bundle whose only proof of time
//! is such a one does not satisfy a `fulcio` requirement. Ed25519 signatures
//! are of the message, not of its hash. Certificate logs are not asked for.
//!
//! # Source
//! containers-policy.json(5) `sigstoreSigned`, and containers/image's verdicts;
//! cosign's `SIGNATURE_SPEC`, `BUNDLE_SPEC`; sigstore's bundle format.

pub mod attestation;
mod bundle;
mod certificate;
mod der;
mod dsse;
mod json;
pub mod key;
mod log;
mod params;
mod payload;
mod pem;
pub mod private_key;
pub mod sign;

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_oci::{Algorithm, Digest, Kind, Limits, ManifestDigest};

pub use bundle::{BUNDLE_MEDIA_TYPE, SIGN_PREDICATE_TYPE, bundle_annotations};
pub use certificate::{Intermediates, ParseCertificatesError, Roots};
pub use dsse::{ENVELOPE_MEDIA_TYPE, IN_TOTO_PAYLOAD_TYPE};
pub use key::{ParseKeyError, PublicKey};
pub use params::{ParseParamsError, SigningParams};
pub use payload::make_payload;
pub use pem::PemError;
pub use private_key::PrivateKey;

use crate::claim::Claim;
use crate::refusal::{Reason, Refusal};
use crate::stored::SigstoreSignature;
use bundle::{Bundle, Content};
use certificate::Sent;
use dsse::Envelope;
use log::{Entry, Logged};

/// The media type of an attachment's payload.
pub const PAYLOAD_MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature, in base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The annotation with the log's entry and its signed timestamp.
pub const LOG_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// The annotation with the signer's certificate, in PEM.
pub const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// The annotation with the certificates above it, in PEM.
pub const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";

/// The tag under which something is attached to a manifest: `sha256-…` and a
/// suffix, which is `.sig`, `.att` or, for the list of what refers to it, nothing.
#[must_use]
pub fn attachment_tag(digest: &ManifestDigest, suffix: &str) -> String {
    let algorithm = digest.digest().algorithm().name();
    format!("{algorithm}-{}{suffix}", digest.hex())
}

/// The keys of a transparency log; any of them may have signed a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKeys(Vec<PublicKey>);

/// What one `sigstoreSigned` requirement accepts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Verifier {
    /// A signature by one of these keys.
    Keys {
        /// The keys; never none.
        keys: Vec<PublicKey>,
        /// The log that must have the signature, if there is one that must.
        log: Option<LogKeys>,
    },
    /// A signature by a certificate that Fulcio gave to a subject.
    Fulcio {
        /// Fulcio's certificates.
        roots: Roots,
        /// Who vouched for the subject.
        oidc_issuer: String,
        /// Whose signature is wanted.
        subject_email: String,
        /// The log that must have the signature, and says when it was made.
        log: LogKeys,
    },
    /// A signature by a certificate of an authority of one's own.
    Pki {
        /// The authority.
        roots: Roots,
        /// What may stand between.
        intermediates: Intermediates,
        /// A host that the certificate must be for.
        subject_hostname: Option<String>,
        /// A mail address that the certificate must be for.
        subject_email: Option<String>,
    },
}

/// Why a requirement's material makes no verifier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeVerifierError {
    /// There is no key at all.
    #[error("no public key is given")]
    NoKey,
    /// There is neither a host nor a mail address, so anybody would do.
    #[error("a pki requirement names neither subjectHostname nor subjectEmail")]
    NoSubject,
    /// Issuer or subject of a Fulcio requirement is empty.
    #[error("a fulcio requirement needs oidcIssuer and subjectEmail")]
    NoIdentity,
    /// One of the keys is none.
    #[error("public key {number}")]
    Key {
        /// Which, from 1.
        number: usize,
        /// In what way.
        source: ParseKeyError,
    },
    /// One of the log's keys is none, or of a kind that logs do not use.
    #[error("rekor public key {number}")]
    LogKey {
        /// Which, from 1.
        number: usize,
        /// In what way.
        source: ParseKeyError,
    },
    /// The certificates are none.
    #[error("read the certificates of {what}")]
    Certificates {
        /// Of which member.
        what: &'static str,
        /// In what way.
        source: ParseCertificatesError,
    },
}

impl MakeVerifierError {
    /// Always invalid input.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

impl LogKeys {
    /// Reads the files of `rekorPublicKeyPath` and its siblings.
    ///
    /// # Errors
    /// [`MakeVerifierError::LogKey`], also for RSA, which no log uses;
    /// [`MakeVerifierError::NoKey`].
    pub fn parse(files: &[Bytes]) -> Result<Self, MakeVerifierError> {
        let keys = parse_keys(files, |number, source| MakeVerifierError::LogKey {
            number,
            source,
        })?;
        match keys
            .iter()
            .position(|key| key.key_type() == key::KeyType::Rsa)
        {
            Some(position) => Err(MakeVerifierError::LogKey {
                number: position + 1,
                source: ParseKeyError::Unknown,
            }),
            None => Ok(Self(keys)),
        }
    }
}

fn parse_keys(
    files: &[Bytes],
    error: impl Fn(usize, ParseKeyError) -> MakeVerifierError,
) -> Result<Vec<PublicKey>, MakeVerifierError> {
    if files.is_empty() {
        return Err(MakeVerifierError::NoKey);
    }
    files
        .iter()
        .enumerate()
        .map(|(position, file)| {
            PublicKey::parse_pem(file).map_err(|source| error(position + 1, source))
        })
        .collect()
}

impl Verifier {
    /// A verifier for `keyPath` and its siblings.
    ///
    /// # Errors
    /// [`MakeVerifierError`]; one bad key spoils all, so that it is noticed
    /// before it is needed.
    pub fn keys(files: &[Bytes], log: Option<LogKeys>) -> Result<Self, MakeVerifierError> {
        let keys = parse_keys(files, |number, source| MakeVerifierError::Key {
            number,
            source,
        })?;
        Ok(Self::Keys { keys, log })
    }

    /// A verifier for `fulcio`.
    ///
    /// # Errors
    /// [`MakeVerifierError`]
    pub fn fulcio(
        authority: &[u8],
        oidc_issuer: impl Into<String>,
        subject_email: impl Into<String>,
        log: LogKeys,
        limits: &Limits,
    ) -> Result<Self, MakeVerifierError> {
        let (oidc_issuer, subject_email) = (oidc_issuer.into(), subject_email.into());
        if oidc_issuer.is_empty() || subject_email.is_empty() {
            return Err(MakeVerifierError::NoIdentity);
        }
        let roots =
            Roots::parse(authority, limits).map_err(|source| MakeVerifierError::Certificates {
                what: "fulcio",
                source,
            })?;
        Ok(Self::Fulcio {
            roots,
            oidc_issuer,
            subject_email,
            log,
        })
    }

    /// A verifier for `pki`.
    ///
    /// # Errors
    /// [`MakeVerifierError`]
    pub fn pki(
        roots: &[u8],
        intermediates: Option<&[u8]>,
        subject_hostname: Option<String>,
        subject_email: Option<String>,
        limits: &Limits,
    ) -> Result<Self, MakeVerifierError> {
        let given = |name: Option<String>| name.filter(|name| !name.is_empty());
        let (subject_hostname, subject_email) = (given(subject_hostname), given(subject_email));
        if subject_hostname.is_none() && subject_email.is_none() {
            return Err(MakeVerifierError::NoSubject);
        }
        let roots =
            Roots::parse(roots, limits).map_err(|source| MakeVerifierError::Certificates {
                what: "pki, roots",
                source,
            })?;
        let intermediates = intermediates
            .map(|text| Intermediates::parse(text, limits))
            .transpose()
            .map_err(|source| MakeVerifierError::Certificates {
                what: "pki, intermediates",
                source,
            })?
            .unwrap_or_default();
        Ok(Self::Pki {
            roots,
            intermediates,
            subject_hostname,
            subject_email,
        })
    }
}

/// Who made a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// A key, by the SHA-256 of its SubjectPublicKeyInfo.
    Key(Digest),
    /// A certificate, by its SHA-256, with the name that was asked for.
    Certificate {
        /// SHA-256 of the certificate.
        fingerprint: Digest,
        /// The mail address or the host.
        subject: String,
        /// Who vouched for it, where Fulcio did.
        issuer: Option<String>,
    },
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(fingerprint) => write!(f, "key {fingerprint}"),
            Self::Certificate {
                subject,
                issuer: Some(issuer),
                ..
            } => write!(f, "{subject} (by {issuer})"),
            Self::Certificate { subject, .. } => f.write_str(subject),
        }
    }
}

/// What a sigstore signature says, and who says it.
///
/// Holding one says: what [`verify`] was asked for made exactly this claim. It
/// does not say that the image at hand is the one meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigstoreClaim {
    /// What was signed.
    pub claim: Claim,
    /// By whom.
    pub signer: Signer,
    /// When the log took it, where a log was asked for and proves a time.
    pub logged_at: Option<SystemTime>,
    /// Until when this holds: the first end of a certificate that it rests on; for good if absent.
    pub holds_until: Option<SystemTime>,
}

/// Verifies one signature of an image: an attachment or a bundle.
///
/// `now` matters to certificates of a [`Verifier::Pki`] only; Fulcio's are
/// judged at the time that the log proves.
///
/// # Errors
/// Why the signature does not count.
pub fn verify(
    signature: &SigstoreSignature,
    verifier: &Verifier,
    now: SystemTime,
    limits: &Limits,
) -> Result<SigstoreClaim, Refusal> {
    match signature.mime_type.as_str() {
        PAYLOAD_MEDIA_TYPE => verify_attachment(signature, verifier, now, limits),
        BUNDLE_MEDIA_TYPE => verify_bundle(signature, verifier, now, limits),
        other => Err(Refusal::new(
            Reason::Unsupported,
            format!(
                "an attachment of type {:?} is no signature",
                payload::excerpt(other)
            ),
        )),
    }
}

fn verify_attachment(
    signature: &SigstoreSignature,
    verifier: &Verifier,
    now: SystemTime,
    limits: &Limits,
) -> Result<SigstoreClaim, Refusal> {
    let base64 = annotation(signature, SIGNATURE_ANNOTATION).ok_or_else(|| {
        Refusal::new(
            Reason::Malformed,
            "there is no signature beside the payload",
        )
    })?;
    let bytes = STANDARD
        .decode(base64)
        .map_err(|_| Refusal::new(Reason::Malformed, "the signature is not base64"))?;
    let evidence = Evidence::of_annotations(signature, verifier, limits)?;
    let payload = &signature.payload;
    let proven = evidence.prove(
        verifier,
        &Signed {
            signature: &bytes,
            payload: Digest::of(Algorithm::Sha256, payload),
            is_good: &|key| key.verify(payload, &bytes),
        },
        now,
        limits,
    )?;
    Ok(proven.claims(payload::parse(payload, limits)?))
}

fn verify_bundle(
    signature: &SigstoreSignature,
    verifier: &Verifier,
    now: SystemTime,
    limits: &Limits,
) -> Result<SigstoreClaim, Refusal> {
    let Bundle {
        certificate,
        entries,
        content,
    } = Bundle::parse(&signature.payload, limits)?;
    let evidence = Evidence::of_bundle(certificate.as_deref(), &entries);
    match &content {
        Content::Dsse(envelope) => {
            let proven = evidence.prove_envelope(envelope, verifier, now, limits)?;
            Ok(proven.claims(bundle::claim(&envelope.statement(limits)?)?))
        }
        Content::Message {
            manifest_digest,
            signature,
        } => {
            let digest = *manifest_digest.digest();
            let proven = evidence.prove(
                verifier,
                &Signed {
                    signature,
                    payload: digest,
                    is_good: &|key| key.verify_sha256(digest.as_bytes(), signature),
                },
                now,
                limits,
            )?;
            Ok(proven.claims(Claim {
                manifest_digest: *manifest_digest,
                docker_reference: None,
                creator: None,
                timestamp_s: None,
            }))
        }
    }
}

fn annotation<'a>(signature: &'a SigstoreSignature, name: &str) -> Option<&'a str> {
    signature.annotations.get(name).map(String::as_str)
}

/// A signature, and what tells whether a key made it.
struct Signed<'a> {
    signature: &'a [u8],
    /// SHA-256 of the payload, by which a log knows it.
    payload: Digest,
    is_good: &'a dyn Fn(&PublicKey) -> bool,
}

/// What came with a signature to prove whose it is.
struct Evidence<'a> {
    certificate: Option<Sent>,
    log: LogEvidence<'a>,
}

enum LogEvidence<'a> {
    /// The annotation, if it is there.
    Annotation(Option<&'a str>),
    /// The entries of a bundle.
    Entries(&'a [Entry]),
}

/// Whose signature it is, and when it was made.
struct Proven {
    signer: Signer,
    logged_at: Option<SystemTime>,
    holds_until: Option<SystemTime>,
}

impl Proven {
    fn claims(self, claim: Claim) -> SigstoreClaim {
        SigstoreClaim {
            claim,
            signer: self.signer,
            logged_at: self.logged_at,
            holds_until: self.holds_until,
        }
    }
}

impl<'a> Evidence<'a> {
    /// What stands beside an attachment. A certificate is read only for those who
    /// ask for one: with a key it means nothing.
    fn of_annotations(
        signature: &'a SigstoreSignature,
        verifier: &Verifier,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let certificate = match verifier {
            Verifier::Keys { .. } => None,
            Verifier::Fulcio { .. } | Verifier::Pki { .. } => {
                let chain = annotation(signature, CHAIN_ANNOTATION);
                annotation(signature, CERTIFICATE_ANNOTATION)
                    .map(|certificate| Sent::parse_annotations(certificate, chain, limits))
                    .transpose()?
            }
        };
        Ok(Self {
            certificate,
            log: LogEvidence::Annotation(annotation(signature, LOG_ANNOTATION)),
        })
    }

    fn of_bundle(certificate: Option<&[u8]>, entries: &'a [Entry]) -> Self {
        Self {
            certificate: certificate.map(Sent::alone),
            log: LogEvidence::Entries(entries),
        }
    }

    fn prove_envelope(
        &self,
        envelope: &Envelope,
        verifier: &Verifier,
        now: SystemTime,
        limits: &Limits,
    ) -> Result<Proven, Refusal> {
        let signature = envelope.signature()?;
        let text = envelope.signed_text();
        let signed = Signed {
            signature,
            payload: envelope.payload_digest(),
            is_good: &|key| key.verify(&text, signature),
        };
        self.prove(verifier, &signed, now, limits)
    }

    /// Holds the evidence against what is asked for.
    fn prove(
        &self,
        verifier: &Verifier,
        signed: &Signed<'_>,
        now: SystemTime,
        limits: &Limits,
    ) -> Result<Proven, Refusal> {
        match verifier {
            Verifier::Keys { keys, log } => {
                let key = keys
                    .iter()
                    .find(|key| (signed.is_good)(key))
                    .ok_or_else(|| not_by_any(keys))?;
                let logged_at = match log {
                    None => None,
                    Some(log) => self.logged(log, key.info(), signed, limits)?,
                };
                Ok(Proven {
                    signer: Signer::Key(key.fingerprint()),
                    logged_at,
                    holds_until: None,
                })
            }
            Verifier::Fulcio {
                roots,
                oidc_issuer,
                subject_email,
                log,
            } => {
                let sent = self.certificate()?;
                let time = self
                    .logged(log, sent.leaf(), signed, limits)?
                    .ok_or_else(|| {
                        Refusal::new(Reason::Log, "the log entry does not prove when it was made")
                    })?;
                let certificate = sent.verify_chain(roots, &Intermediates::default(), time)?;
                certificate.verify_issuer(oidc_issuer)?;
                certificate.verify_email(subject_email)?;
                good_by(&certificate.key()?, signed)?;
                Ok(Proven {
                    signer: Signer::Certificate {
                        fingerprint: Digest::of(Algorithm::Sha256, sent.leaf()),
                        subject: subject_email.clone(),
                        issuer: Some(oidc_issuer.clone()),
                    },
                    logged_at: Some(time),
                    // It was good at the log's time, and will have been.
                    holds_until: None,
                })
            }
            Verifier::Pki {
                roots,
                intermediates,
                subject_hostname,
                subject_email,
            } => {
                let sent = self.certificate()?;
                let certificate = sent.verify_chain(roots, intermediates, now)?;
                if let Some(email) = subject_email {
                    certificate.verify_email(email)?;
                }
                if let Some(hostname) = subject_hostname {
                    certificate.verify_hostname(hostname)?;
                }
                good_by(&certificate.key()?, signed)?;
                let subject = subject_email.as_ref().or(subject_hostname.as_ref());
                Ok(Proven {
                    signer: Signer::Certificate {
                        fingerprint: Digest::of(Algorithm::Sha256, sent.leaf()),
                        subject: subject.cloned().unwrap_or_default(),
                        issuer: None,
                    },
                    logged_at: None,
                    holds_until: certificate.holds_until(),
                })
            }
        }
    }

    fn certificate(&self) -> Result<&Sent, Refusal> {
        self.certificate.as_ref().ok_or_else(|| {
            Refusal::new(
                Reason::Certificate,
                "there is no certificate with the signature",
            )
        })
    }

    /// Checks that a log has the signature. Of a bundle's entries one must be
    /// good; the first that is decides about the time.
    fn logged(
        &self,
        log: &LogKeys,
        signer: &[u8],
        signed: &Signed<'_>,
        limits: &Limits,
    ) -> Result<Option<SystemTime>, Refusal> {
        let logged = Logged {
            signature: signed.signature,
            signer,
            payload: &signed.payload,
        };
        let absent = || Refusal::new(Reason::Log, "there is no log entry with the signature");
        match self.log {
            LogEvidence::Annotation(text) => {
                log::verify_annotation(text.ok_or_else(absent)?, &log.0, logged, limits).map(Some)
            }
            LogEvidence::Entries(entries) => {
                let mut refusal = absent();
                for entry in entries {
                    match log::verify_entry(entry, &log.0, logged, limits) {
                        Ok(time) => return Ok(time),
                        Err(because) => refusal = because,
                    }
                }
                Err(refusal)
            }
        }
    }
}

/// Two reasons look alike to mathematics: another key made it, or the bytes were
/// changed. What is said is what is more likely.
fn not_by_any(keys: &[PublicKey]) -> Refusal {
    let keys: Vec<_> = keys.iter().map(|key| key.fingerprint().short()).collect();
    Refusal::new(
        Reason::UnknownKey,
        format!(
            "no accepted key ({}) made a signature over these bytes",
            keys.join(", ")
        ),
    )
}

fn good_by(key: &PublicKey, signed: &Signed<'_>) -> Result<(), Refusal> {
    if (signed.is_good)(key) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::Bad,
        "the certificate's key did not make a signature over these bytes",
    ))
}
