// SPDX-License-Identifier: Apache-2.0
//! One file of `trust.d`, parsed and nothing read besides.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_oci::{Digest, PathComponent};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Severity;
use crate::identity::SignedIdentity;
use crate::scope;

/// One file of `trust.d`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleFile {
    /// `[[rule]]`.
    pub rule: Vec<RuleText>,
    /// `[revoked]`.
    pub revoked: Revoked,
    /// `[namespace.NAME]`.
    pub namespace: BTreeMap<String, Namespace>,
}

/// One `[[rule]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleText {
    #[serde(default)]
    pub(super) scope: String,
    #[serde(default = "docker")]
    pub(super) transport: String,
    pub(super) signers: Option<SignersRule>,
    #[serde(default, deserialize_with = "time")]
    pub(super) not_before: Option<SystemTime>,
    #[serde(default, deserialize_with = "age")]
    pub(super) max_age: Option<Duration>,
    #[serde(default)]
    pub(super) monotonic: bool,
    #[serde(default)]
    pub(super) attestation: Vec<AttestationRule>,
    pub(super) max_severity: Option<Severity>,
}

/// `signers`: so many different ones of these.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignersRule {
    /// How many.
    pub at_least: usize,
    /// Files of OpenPGP keys.
    #[serde(default)]
    pub keys: Vec<PathBuf>,
    /// Files of sigstore public keys.
    #[serde(default)]
    pub sigstore_keys: Vec<PathBuf>,
    /// Which reference they must name, as `signedIdentity` of policy.json.
    #[serde(default)]
    pub signed_identity: Option<serde_json::Value>,
}

/// `[[rule.attestation]]`: a statement about the image, by one of these keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AttestationRule {
    /// The statement's type.
    pub predicate_type: String,
    /// Files of sigstore public keys.
    pub keys: Vec<PathBuf>,
}

/// `[revoked]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoked {
    /// Fingerprints of OpenPGP keys, `sha256:` digests of sigstore public keys.
    pub(super) keys: Vec<KeyId>,
    /// Of indexes, manifests, configurations, layers.
    pub(super) digests: Vec<Digest>,
}

/// A fingerprint (40 or 64 digits) or the digest of a public key.
#[derive(Debug, Clone)]
pub struct KeyId(pub(super) String);

/// One `[namespace.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    pub(super) policy: PathBuf,
}

fn docker() -> String {
    "docker".into()
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // People paste fingerprints with spaces, as gpg prints them.
        let id: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let fingerprint = matches!(id.len(), 40 | 64) && hex(&id);
        let of_key = id
            .strip_prefix("sha256:")
            .is_some_and(|digits| digits.len() == 64 && hex(digits));
        if fingerprint || of_key {
            return Ok(Self(id));
        }
        Err(D::Error::custom(format!(
            "{text:?} is neither a fingerprint of 40 or 64 digits nor the sha256: digest of a public key"
        )))
    }
}

impl RuleFile {
    /// Parses one file.
    ///
    /// # Errors
    /// A sentence: unknown members, values that make no sense.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for rule in &file.rule {
            rule.validate()?;
        }
        for (name, namespace) in &file.namespace {
            PathComponent::try_from(name.as_str())
                .map_err(|error| format!("namespace {name:?}: {error}"))?;
            if steps_up(&namespace.policy) {
                return Err(format!("namespace {name:?}: its policy's path has a `..`"));
            }
        }
        Ok(file)
    }
}

fn steps_up(path: &Path) -> bool {
    path.components().any(|step| step == Component::ParentDir)
}

impl RuleText {
    fn validate(&self) -> Result<(), String> {
        scope::validate(&self.transport, &self.scope)
            .map_err(|problem| format!("scope {:?} {problem}", self.scope))?;
        if let Some(signers) = &self.signers {
            if signers.at_least == 0 {
                return Err("signers: at-least is 0, which asks for nothing".into());
            }
            if signers.keys.is_empty() && signers.sigstore_keys.is_empty() {
                return Err("signers: neither keys nor sigstore-keys names a file".into());
            }
            signers.identity()?;
        }
        for attestation in &self.attestation {
            if attestation.keys.is_empty() {
                return Err("attestation: keys names no file".into());
            }
        }
        Ok(())
    }
}

impl SignersRule {
    pub(super) fn identity(&self) -> Result<SignedIdentity, String> {
        match &self.signed_identity {
            None => Ok(SignedIdentity::default()),
            Some(value) => SignedIdentity::parse_json(&value.to_string())
                .map_err(|error| format!("signed-identity: {error}")),
        }
    }
}

/// A TOML time with an offset.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
    let time = toml::value::Datetime::deserialize(from)?;
    let seconds = unix_seconds(&time)
        .ok_or_else(|| D::Error::custom(format!("{time} is no time with a date and an offset")))?;
    let time = u64::try_from(seconds)
        .ok()
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    time.map(Some)
        .ok_or_else(|| D::Error::custom("the time is before 1970"))
}

fn unix_seconds(time: &toml::value::Datetime) -> Option<i64> {
    let (date, clock) = (time.date?, time.time?);
    let offset_minutes = match time.offset? {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    // Days by counting from a 1 March, so that leap days come last in their years.
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let shifted = (month + 9) % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * shifted + 2) / 5 + day - 1;
    let days = days - 719_468;
    let (hour, minute, second) = (
        i64::from(clock.hour),
        i64::from(clock.minute),
        i64::from(clock.second),
    );
    Some(((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second)
}

/// `90d`, `12h`, `30m`, `45s`.
fn age<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let age: gantry_oci::Age = text.parse().map_err(D::Error::custom)?;
    Ok(Some(age.duration()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_read() {
        let file = RuleFile::parse(
            r#"
            [[rule]]
            scope = "h.io/prod"
            signers = { at-least = 2, keys = ["/a", "/b"], sigstore-keys = ["/c"],
                        signed-identity = { type = "matchRepository" } }
            not-before = 2026-01-01T00:00:00Z
            max-age = "90d"
            monotonic = true
            max-severity = "high"
            [[rule.attestation]]
            predicate-type = "https://slsa.dev/provenance/v1"
            keys = ["/d"]

            [[rule]]
            transport = "oci"
            scope = "/srv"
            max-age = "12h"

            [revoked]
            keys = ["0123 4567 89ab cdef 0123  4567 89ab cdef 0123 4567"]
            digests = ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]

            [namespace.team-a]
            policy = "team-a.json"
            "#,
        )
        .unwrap();
        assert_eq!(file.rule.len(), 2);
        let rule = &file.rule[0];
        assert_eq!(
            rule.not_before,
            Some(UNIX_EPOCH + Duration::from_secs(1_767_225_600))
        );
        assert_eq!(rule.max_age, Some(Duration::from_secs(90 * 86400)));
        assert_eq!(rule.max_severity, Some(Severity::High));
        let identity = rule.signers.as_ref().unwrap().identity().unwrap();
        assert_eq!(identity, SignedIdentity::MatchRepository);
        assert_eq!(
            file.revoked.keys[0].0,
            "0123456789abcdef0123456789abcdef01234567"
        );
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:30:15Z", 951_827_415),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2024-12-31T23:59:59Z", 1_735_689_599),
            ("2026-07-01T02:00:00+02:00", 1_782_864_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(
                unix_seconds(&text.parse().unwrap()),
                Some(seconds),
                "{text}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "x = 1",
            "[[rule]]\nx = 1",
            "[[rule]]\nscope = \"a\"\ntransport = \"dir\"",
            "[[rule]]\nsigners = { at-least = 0, keys = [\"/a\"] }",
            "[[rule]]\nsigners = { at-least = 1 }",
            "[[rule]]\nsigners = { keys = [\"/a\"] }",
            "[[rule]]\nsigners = { at-least = 1, keys = [\"/a\"], signed-identity = { type = \"x\" } }",
            "[[rule]]\nnot-before = 2026-01-01",
            "[[rule]]\nnot-before = 2026-01-01T00:00:00",
            "[[rule]]\nnot-before = 1950-01-01T00:00:00Z",
            "[[rule]]\nnot-before = \"2026-01-01T00:00:00Z\"",
            "[[rule]]\nmax-age = \"90\"",
            "[[rule]]\nmax-age = \"0d\"",
            "[[rule]]\nmax-age = \"d\"",
            "[[rule]]\nmax-age = \"\"",
            "[[rule]]\nmax-age = \"-1d\"",
            "[[rule]]\nmax-age = \"1y\"",
            "[[rule]]\nmax-age = \"99999999999999999d\"",
            "[[rule]]\nmax-severity = \"worst\"",
            "[[rule]]\nattestation = [{ predicate-type = \"x\", keys = [] }]",
            "[revoked]\nkeys = [\"0123456789abcdef\"]",
            "[revoked]\nkeys = [\"sha256:00\"]",
            "[revoked]\ndigests = [\"e3b0\"]",
            "[namespace.a]",
            "[namespace.\"a/b\"]\npolicy = \"x\"",
            "[namespace.\"..\"]\npolicy = \"x\"",
            "[namespace.a]\npolicy = \"../x\"",
            "[namespace.a]\npolicy = \"/etc/../x\"",
        ] {
            assert!(RuleFile::parse(bad).is_err(), "{bad}");
        }
    }
}
