// SPDX-License-Identifier: Apache-2.0
//! Certificates of signers: whether they lead to a root, and whom they name.
//!
//! Chains are built and checked by `webpki`. What that library does not read
//! (mail addresses, Fulcio's issuer) is read here, from the same bytes, after
//! the chain was found good.
//!
//! A certificate's purposes are judged as containers/image judges them: one
//! that lists purposes must list code signing (or any), one that lists none may
//! sign. Proofs of a certificate log (SCT) are not asked for, again as there: a
//! signature whose whole certificate is in Rekor is public already.
//!
//! # Source
//! RFC 5280; Fulcio's "oid-info" (1.3.6.1.4.1.57264.1.1 and .1.8).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_oci::{Kind, Limits};
use rustls_pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter};

use super::der::{self, DerError, Reader};
use super::key::{ParseKeyError, PublicKey};
use super::payload::excerpt;
use super::pem::{self, Around, PemError};
use crate::refusal::{Reason, Refusal};

/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 0x13];
/// 1.3.6.1.4.1.57264.1.1: the issuer's bytes as they are.
const FULCIO_ISSUER: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x83, 0xBF, 0x30, 0x01, 0x01];
/// 1.3.6.1.4.1.57264.1.8: the issuer as a UTF8String.
const FULCIO_ISSUER_V2: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x83, 0xBF, 0x30, 0x01, 0x08];
/// 1.3.6.1.5.5.7.3.3
const CODE_SIGNING: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// 2.5.29.37.0
const ANY_PURPOSE: &[u8] = &[0x55, 0x1D, 0x25, 0x00];
/// rfc822Name of a GeneralName.
const MAIL_ADDRESS: u8 = der::context_primitive(1);

/// What may have signed a certificate.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Certificates that a requirement trusts as the ends of chains.
#[derive(Clone)]
pub struct Roots(Vec<Root>);

#[derive(Clone)]
struct Root {
    anchor: TrustAnchor<'static>,
    validity: Validity,
}

/// Certificates that a requirement has for the middle of chains.
#[derive(Clone, Default)]
pub struct Intermediates(Vec<CertificateDer<'static>>);

/// Why a file is not one of certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseCertificatesError {
    /// It is not PEM.
    #[error("read certificates")]
    Pem(#[from] PemError),
    /// There is none in it.
    #[error("there is no certificate in the file")]
    None,
    /// Something that is no certificate is in it.
    #[error("the file holds a block {label:?}, which is no certificate")]
    Label {
        /// What it says it is.
        label: String,
    },
    /// The certificate makes no sense.
    #[error("certificate {number} of the file is malformed: {why}")]
    Malformed {
        /// Which, from 1.
        number: usize,
        /// In what way.
        why: String,
    },
    /// It may not sign certificates, so it cannot be the end of a chain.
    #[error("certificate {number} of the file is no authority's")]
    NoAuthority {
        /// Which, from 1.
        number: usize,
    },
}

impl ParseCertificatesError {
    /// Always invalid input.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

/// Reads a file of certificates that a person keeps.
fn parse_file(text: &[u8], limits: &Limits) -> Result<Vec<Vec<u8>>, ParseCertificatesError> {
    let blocks = pem::parse(text, Around::Text, limits.certificates)?;
    if blocks.is_empty() {
        return Err(ParseCertificatesError::None);
    }
    blocks
        .into_iter()
        .map(|block| match block.label.as_str() {
            "CERTIFICATE" => Ok(block.contents),
            _ => Err(ParseCertificatesError::Label { label: block.label }),
        })
        .collect()
}

impl Roots {
    /// Reads a PEM file of authorities.
    ///
    /// # Errors
    /// [`ParseCertificatesError`]
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Self, ParseCertificatesError> {
        let certificates = parse_file(text, limits)?;
        let root = |(position, bytes): (usize, Vec<u8>)| {
            let number = position + 1;
            let malformed = |why: String| ParseCertificatesError::Malformed { number, why };
            let fields = Fields::parse(&bytes).map_err(|error| malformed(error.to_string()))?;
            if !fields.is_authority() {
                return Err(ParseCertificatesError::NoAuthority { number });
            }
            let certificate = CertificateDer::from(bytes.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| malformed(error.to_string()))?;
            Ok(Root {
                validity: fields.validity,
                anchor: anchor.to_owned(),
            })
        };
        certificates
            .into_iter()
            .enumerate()
            .map(root)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Intermediates {
    /// Reads a PEM file of certificates.
    ///
    /// # Errors
    /// [`ParseCertificatesError`]
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Self, ParseCertificatesError> {
        let certificates = parse_file(text, limits)?;
        Ok(Self(
            certificates.into_iter().map(CertificateDer::from).collect(),
        ))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

impl fmt::Debug for Intermediates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intermediates({})", self.0.len())
    }
}

fn refuse(why: impl AsRef<str>) -> Refusal {
    Refusal::new(
        Reason::Certificate,
        format!("the certificate {}", why.as_ref()),
    )
}

/// A certificate that a signer sent, and what leads from it upwards.
#[derive(Debug)]
pub(super) struct Sent {
    leaf: CertificateDer<'static>,
    above: Vec<CertificateDer<'static>>,
}

impl Sent {
    /// Reads the annotations beside a signature. The last certificate of the
    /// chain is the signer's idea of a root, and is left out.
    pub(super) fn parse_annotations(
        certificate: &str,
        chain: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let leaf = pem::parse_one(certificate.as_bytes())
            .map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let mut above = match chain {
            None | Some("") => Vec::new(),
            Some(chain) => pem::parse(chain.as_bytes(), Around::Nothing, limits.certificates)
                .map_err(|error| match error {
                    PemError::TooMany { limit } => Refusal::new(
                        Reason::TooLarge,
                        format!("the chain has more than {limit} certificates"),
                    ),
                    error => refuse(format!("has a chain that cannot be read: {error}")),
                })?,
        };
        above.pop();
        if std::iter::once(&leaf)
            .chain(&above)
            .any(|block| block.label != "CERTIFICATE")
        {
            return Err(refuse("is a PEM block of something else"));
        }
        Ok(Self {
            leaf: leaf.contents.into(),
            above: above
                .into_iter()
                .map(|block| block.contents.into())
                .collect(),
        })
    }

    /// Takes the one certificate of a bundle.
    pub(super) fn alone(certificate: &[u8]) -> Self {
        Self {
            leaf: certificate.to_vec().into(),
            above: Vec::new(),
        }
    }

    /// The certificate's encoding.
    pub(super) fn leaf(&self) -> &[u8] {
        &self.leaf
    }

    /// Checks that the certificate leads to one of `roots` at `time`, and may
    /// sign code.
    pub(super) fn verify_chain(
        &self,
        roots: &Roots,
        intermediates: &Intermediates,
        time: SystemTime,
    ) -> Result<Verified<'_>, Refusal> {
        let since_epoch = time
            .duration_since(UNIX_EPOCH)
            .map_err(|_| refuse("cannot be judged at a time before 1970"))?;
        let certificate = EndEntityCert::try_from(&self.leaf)
            .map_err(|error| refuse(format!("is malformed: {error}")))?;
        let fields =
            Fields::parse(&self.leaf).map_err(|error| refuse(format!("is malformed: {error}")))?;
        let anchors: Vec<_> = roots
            .0
            .iter()
            .filter(|root| root.validity.contains(since_epoch))
            .map(|root| root.anchor.clone())
            .collect();
        let between: Vec<_> = intermediates.0.iter().chain(&self.above).cloned().collect();
        // Which of them the chain was made of is not told: the first end of any is early enough.
        let of_roots = roots.0.iter().map(|root| root.validity);
        let of_others = between.iter().filter_map(|certificate| {
            let fields = Fields::parse(certificate).ok()?;
            Some(fields.validity)
        });
        let all = of_roots.chain(of_others).chain([fields.validity]);
        let holds_until = all.filter_map(|one| one.end_after(since_epoch)).min();
        certificate
            .verify_for_usage(
                ALGORITHMS,
                &anchors,
                &between,
                UnixTime::since_unix_epoch(since_epoch),
                CodeSigning,
                None,
                None,
            )
            .map_err(chain_refusal)?;
        Ok(Verified {
            certificate,
            fields,
            holds_until,
        })
    }
}

fn chain_refusal(error: webpki::Error) -> Refusal {
    use webpki::Error as E;
    let reason = match error {
        E::CertExpired { .. } | E::CertNotValidYet { .. } => Reason::Expired,
        E::RequiredEkuNotFoundContext(_) => Reason::KeyUnfit,
        _ => Reason::Certificate,
    };
    Refusal::new(
        reason,
        format!("the certificate does not lead to a root: {error}"),
    )
}

/// Accepts certificates for code signing, for any purpose, and without purposes.
struct CodeSigning;

impl ExtendedKeyUsageValidator for CodeSigning {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let (code_signing, any) = (
            KeyPurposeId::new(CODE_SIGNING),
            KeyPurposeId::new(ANY_PURPOSE),
        );
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?;
            if purpose == code_signing || purpose == any {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(
            webpki::RequiredEkuNotFoundContext {
                required: webpki::KeyUsage::required(CODE_SIGNING),
                present,
            },
        ))
    }
}

/// A certificate that leads to a root and may sign code.
pub(super) struct Verified<'a> {
    certificate: EndEntityCert<'a>,
    fields: Fields<'a>,
    holds_until: Option<SystemTime>,
}

impl Verified<'_> {
    /// Until when the answer is the same: no certificate that it may rest on ends before.
    pub(super) fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }

    /// The certificate's key.
    pub(super) fn key(&self) -> Result<PublicKey, Refusal> {
        PublicKey::parse_info(self.fields.key_info).map_err(|error| {
            let reason = match error {
                ParseKeyError::Bits { .. } => Reason::Weak,
                ParseKeyError::Unknown => Reason::Unsupported,
                _ => Reason::Certificate,
            };
            Refusal::new(reason, format!("the certificate's key: {error}"))
        })
    }

    /// Checks which of Fulcio's issuers vouched for the subject.
    pub(super) fn verify_issuer(&self, wanted: &str) -> Result<(), Refusal> {
        let first = self.fields.extension(FULCIO_ISSUER);
        let second = self
            .fields
            .extension(FULCIO_ISSUER_V2)
            .map(|value| Reader::only(value, der::UTF8_STRING))
            .transpose()
            .map_err(|error| refuse(format!("has a malformed issuer: {error}")))?;
        let found = match (first, second) {
            (Some(first), Some(second)) if first != second => {
                return Err(refuse("names two issuers of its subject"));
            }
            (Some(found), _) | (_, Some(found)) => found,
            (None, None) => return Err(refuse("names no issuer of its subject")),
        };
        if found != wanted.as_bytes() {
            let found = String::from_utf8_lossy(found);
            return Err(refuse(format!(
                "has issuer {:?}, not {wanted:?}",
                excerpt(&found)
            )));
        }
        Ok(())
    }

    /// Checks that one of the subject's mail addresses is the wanted one.
    pub(super) fn verify_email(&self, wanted: &str) -> Result<(), Refusal> {
        let found = self.emails()?;
        if !found.iter().any(|email| email == wanted) {
            let found: Vec<_> = found.iter().map(|email| excerpt(email)).collect();
            return Err(refuse(format!("is for {found:?}, not for {wanted:?}")));
        }
        Ok(())
    }

    /// Checks that the subject's names include a host.
    pub(super) fn verify_hostname(&self, wanted: &str) -> Result<(), Refusal> {
        let name = ServerName::try_from(wanted)
            .map_err(|_| refuse(format!("cannot be for {wanted:?}, which is no host name")))?;
        self.certificate
            .verify_is_valid_for_subject_name(&name)
            .map_err(|error| refuse(format!("is not for {wanted:?}: {error}")))
    }

    /// The mail addresses, as they are written.
    pub(super) fn emails(&self) -> Result<Vec<String>, Refusal> {
        let Some(names) = self.fields.extension(SUBJECT_ALT_NAME) else {
            return Ok(Vec::new());
        };
        let malformed = |error: DerError| refuse(format!("has malformed names: {error}"));
        let mut names = Reader::new(Reader::only(names, der::SEQUENCE).map_err(malformed)?);
        let mut emails = Vec::new();
        while !names.is_empty() {
            let (tag, name) = names.any().map_err(malformed)?;
            if tag == MAIL_ADDRESS {
                if !name.is_ascii() {
                    return Err(refuse("has a mail address that is not ASCII"));
                }
                emails.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(emails)
    }
}

/// The parts of a certificate that are read here.
struct Fields<'a> {
    validity: Validity,
    key_info: &'a [u8],
    extensions: Vec<Extension<'a>>,
}

#[derive(Clone, Copy)]
struct Extension<'a> {
    identifier: &'a [u8],
    value: &'a [u8],
}

impl<'a> Fields<'a> {
    fn parse(certificate: &'a [u8]) -> Result<Self, DerError> {
        let mut outer = Reader::new(Reader::only(certificate, der::SEQUENCE)?);
        let mut fields = Reader::new(outer.expect(der::SEQUENCE)?);
        outer.expect(der::SEQUENCE)?;
        outer.bit_string()?;
        outer.end()?;
        fields.optional(der::context_constructed(0))?;
        fields.expect(der::INTEGER)?;
        fields.expect(der::SEQUENCE)?;
        fields.expect(der::SEQUENCE)?;
        let validity = Validity::parse(fields.expect(der::SEQUENCE)?)?;
        fields.expect(der::SEQUENCE)?;
        let key_info = fields.whole(der::SEQUENCE)?;
        fields.optional(der::context_primitive(1))?;
        fields.optional(der::context_primitive(2))?;
        let extensions = match fields.optional(der::context_constructed(3))? {
            None => Vec::new(),
            Some(extensions) => parse_extensions(Reader::only(extensions, der::SEQUENCE)?)?,
        };
        fields.end()?;
        Ok(Self {
            validity,
            key_info,
            extensions,
        })
    }

    fn extension(&self, identifier: &[u8]) -> Option<&'a [u8]> {
        self.extensions
            .iter()
            .find(|extension| extension.identifier == identifier)
            .map(|extension| extension.value)
    }

    /// Whether the basic constraints say so.
    fn is_authority(&self) -> bool {
        let stated = self.extension(BASIC_CONSTRAINTS).and_then(|value| {
            let mut constraints = Reader::new(Reader::only(value, der::SEQUENCE).ok()?);
            constraints.optional(der::BOOLEAN).ok()?
        });
        stated == Some(&[0xFF])
    }
}

fn parse_extensions(list: &[u8]) -> Result<Vec<Extension<'_>>, DerError> {
    let mut list = Reader::new(list);
    let mut extensions: Vec<Extension<'_>> = Vec::new();
    while !list.is_empty() {
        let mut extension = Reader::new(list.expect(der::SEQUENCE)?);
        let identifier = extension.expect(der::OBJECT_IDENTIFIER)?;
        extension.optional(der::BOOLEAN)?;
        let value = extension.expect(der::OCTET_STRING)?;
        extension.end()?;
        if extensions
            .iter()
            .any(|other| other.identifier == identifier)
        {
            return Err(DerError("an extension that occurs twice"));
        }
        extensions.push(Extension { identifier, value });
    }
    Ok(extensions)
}

/// From when to when, both included, in seconds of the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    from_s: i64,
    to_s: i64,
}

impl Validity {
    fn parse(fields: &[u8]) -> Result<Self, DerError> {
        let mut fields = Reader::new(fields);
        let validity = Self {
            from_s: parse_time(fields.any()?)?,
            to_s: parse_time(fields.any()?)?,
        };
        fields.end()?;
        Ok(validity)
    }

    fn contains(self, since_epoch: Duration) -> bool {
        i64::try_from(since_epoch.as_secs())
            .is_ok_and(|now_s| (self.from_s..=self.to_s).contains(&now_s))
    }

    /// The first moment at which it is over, if that is still to come.
    fn end_after(self, since_epoch: Duration) -> Option<SystemTime> {
        let end = Duration::from_secs(u64::try_from(self.to_s).ok()?.checked_add(1)?);
        (end > since_epoch).then(|| UNIX_EPOCH.checked_add(end))?
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn parse_time((tag, text): (u8, &[u8])) -> Result<i64, DerError> {
    const WRONG: DerError = DerError("a time that is none");
    let digits = text.strip_suffix(b"Z").ok_or(WRONG)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0_i64, |number, digit| 10 * number + i64::from(digit - b'0'))
    };
    let (year, rest) = match (tag, digits.len()) {
        (der::UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (der::GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return Err(WRONG),
    };
    let part = |at: usize, range: std::ops::RangeInclusive<i64>| {
        Some(number(&rest[at..at + 2]))
            .filter(|part| range.contains(part))
            .ok_or(WRONG)
    };
    let (month, day) = (part(0, 1..=12)?, part(2, 1..=31)?);
    let (hour, minute, second) = (part(4, 0..=23)?, part(6, 0..=59)?, part(8, 0..=59)?);
    // Days of the proleptic Gregorian calendar, in years that begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_of_the_epoch() {
        for (tag, text, seconds) in [
            (der::UTC_TIME, &b"700101000000Z"[..], Ok(0)),
            (der::UTC_TIME, b"240229235959Z", Ok(1_709_251_199)),
            (der::UTC_TIME, b"491231235959Z", Ok(2_524_607_999)),
            (der::UTC_TIME, b"500101000000Z", Ok(-631_152_000)),
            (der::GENERALIZED_TIME, b"20500101000000Z", Ok(2_524_608_000)),
            (
                der::GENERALIZED_TIME,
                b"99991231235959Z",
                Ok(253_402_300_799),
            ),
            (der::UTC_TIME, b"7001010000Z", Err(())),
            (der::UTC_TIME, b"701301000000Z", Err(())),
            (der::UTC_TIME, b"700101000000+0100", Err(())),
            (der::UTC_TIME, b"70010100000\xB2Z", Err(())),
            (der::GENERALIZED_TIME, b"700101000000Z", Err(())),
            (der::NULL, b"700101000000Z", Err(())),
        ] {
            assert_eq!(parse_time((tag, text)).map_err(drop), seconds, "{text:?}");
        }
    }
}
