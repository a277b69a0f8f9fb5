// SPDX-License-Identifier: Apache-2.0
//! `trust.d`: what policy.json cannot say, in files of our own that only tighten.
//!
//! ```text
//! policy.json ──▶ requirements met? ──┐
//! trust.d     ──▶ conditions met? ────┴─▶ admitted
//!             └─▶ filters: signatures by revoked keys, too old or made too early count for nothing
//! ```
//!
//! Every rule whose scope matches holds, not only the most specific one. A rule
//! can take signatures away and ask for more; nothing in it admits an image that
//! the policy alone would refuse. What a rule needs and nobody has at hand (a
//! scan, an attestation) is missing, and the image is refused.
//!
//! # Source
//! docs/trust.md, "trust.d".

mod file;
mod load;
mod render;
mod step;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_image::ManifestBytes;
use gantry_oci::{Algorithm, Digest, Digester};
use serde::{Deserialize, Serialize};

use crate::evaluate::{Counted, Question, SignatureVerdict};
use crate::identity::SignedIdentity;
use crate::keys::{Keys, absorb};
use crate::mechanism::{Checked, Mechanism, Signer};
use crate::prepared::PreparedPolicy;
use crate::refusal::{Reason, Refusal};
use crate::scope::Subject;

pub use file::{AttestationRule, RuleFile, SignersRule};
pub use load::{LoadExtraError, load_dirs};
pub use render::{Floor, Rendered, render};
pub use step::{Last, Record};

/// The condition that a digest was not revoked.
pub(crate) const REVOKED: &str = "revoked";

/// The rules of all files, with the keys that they name.
#[derive(Debug, Clone)]
pub struct Extra {
    rules: Vec<Rule>,
    revoked_keys: Vec<String>,
    revoked_digests: BTreeSet<Digest>,
    namespaces: BTreeMap<String, Result<PreparedPolicy, Refusal>>,
    /// SHA-256 of the files; keys are not in it.
    digest: Digest,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            revoked_keys: Vec::new(),
            revoked_digests: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            digest: Digest::of(Algorithm::Sha256, b""),
        }
    }
}

/// One rule, with its keys.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The file that it stands in.
    pub file: PathBuf,
    /// The transport that it is for.
    pub transport: String,
    /// The scope that it is for; empty for the whole transport.
    pub scope: String,
    /// So many different signers.
    pub signers: Option<Signers>,
    /// What was signed earlier does not count.
    pub not_before: Option<SystemTime>,
    /// What was signed longer ago does not count.
    pub max_age: Option<Duration>,
    /// No step back to what was signed before the last image admitted under the same name.
    pub monotonic: bool,
    /// Statements that must be there.
    pub attestations: Vec<Attestations>,
    /// The worst that a scan may have found.
    pub max_severity: Option<Severity>,
}

/// k of n.
#[derive(Debug, Clone)]
pub struct Signers {
    /// As it stands in the file.
    pub rule: SignersRule,
    /// Which reference they must name.
    pub identity: SignedIdentity,
    keys: Arc<Keys<PreparedSigners>>,
}

/// The keys of [`Signers`].
#[derive(Debug)]
struct PreparedSigners {
    /// What checks signatures; a signature that one of them accepts is good.
    mechanisms: Result<Vec<Arc<dyn Mechanism>>, Refusal>,
    /// Whether no file has two keys, so that files are signers.
    one_key_each: bool,
}

/// A statement that must be there.
#[derive(Debug, Clone)]
pub struct Attestations {
    /// As it stands in the file.
    pub rule: AttestationRule,
    keys: Arc<Keys<Result<Arc<dyn Mechanism>, Refusal>>>,
}

/// How bad a vulnerability is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// There is none.
    None,
    /// Hardly any.
    Negligible,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

/// What is known about an image besides its signatures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// The namespace that asks: a Kubernetes namespace, a tenant.
    pub namespace: Option<&'a str>,
    /// The last image that was admitted under this name.
    pub last: Last,
    /// The worst finding of a scan of this manifest.
    pub scan: Option<Severity>,
}

/// What a rule asked for, and whether it is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionVerdict {
    /// The file that the rule stands in; absent where several add up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// What it asks for, as the file spells it.
    pub condition: &'static str,
    /// Whether it is met.
    pub met: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Each signature, where signatures are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<SignatureVerdict>,
    /// Until when it is met.
    #[serde(
        serialize_with = "crate::evaluate::unix_s",
        skip_serializing_if = "Option::is_none"
    )]
    pub holds_until: Option<SystemTime>,
}

impl Extra {
    /// Adds to a digest all that the answer about a subject, asked by a namespace, depends on.
    pub(crate) fn absorb(
        &self,
        subject: &Subject,
        namespace: Option<&str>,
        digester: &mut Digester,
    ) {
        absorb(digester, self.digest.as_bytes());
        for rule in self.applicable(subject).rules() {
            if let Some(signers) = &rule.signers {
                signers.keys.absorb(digester);
            }
            for attestations in &rule.attestations {
                attestations.keys.absorb(digester);
            }
        }
        match namespace.and_then(|name| self.namespace_policy(name)) {
            None => digester.update(b"0"),
            Some(Err(_)) => digester.update(b"-"),
            Some(Ok(policy)) => policy.absorb(subject, digester),
        }
    }

    /// The rules, in the order of their files.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules that hold for a subject.
    #[must_use]
    pub fn applicable(&self, subject: &Subject) -> Applicable<'_> {
        let matches = |rule: &&Rule| {
            rule.transport == subject.transport()
                && subject.candidates().any(|scope| scope == rule.scope)
        };
        Applicable {
            rules: self.rules.iter().filter(matches).collect(),
            revoked_keys: &self.revoked_keys,
            revoked_digests: &self.revoked_digests,
        }
    }

    /// Whether a namespace has a policy of its own, which may ask for anything.
    pub(crate) fn has_namespaces(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// The policy of a namespace, which must admit the image, too.
    #[must_use]
    pub fn namespace_policy(&self, name: &str) -> Option<&Result<PreparedPolicy, Refusal>> {
        self.namespaces.get(name)
    }
}

/// The rules that hold for one subject.
#[derive(Debug, Clone)]
pub struct Applicable<'a> {
    rules: Vec<&'a Rule>,
    revoked_keys: &'a [String],
    revoked_digests: &'a BTreeSet<Digest>,
}

impl<'a> Applicable<'a> {
    /// The rules.
    pub fn rules(&self) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().copied()
    }

    /// Whether a good signature may count, and until when.
    ///
    /// # Errors
    /// Why it counts for nothing.
    pub fn filter(
        &self,
        checked: &Checked,
        now: SystemTime,
    ) -> Result<Option<SystemTime>, Refusal> {
        if let Some(id) = self.revoked_key(&checked.signer) {
            let message = format!("trust.d revokes the key {id}");
            return Err(Refusal::new(Reason::Revoked, message));
        }
        let mut expires = checked.expires;
        for rule in &self.rules {
            if rule.not_before.is_none() && rule.max_age.is_none() {
                continue;
            }
            let made = checked.made.ok_or_else(|| {
                let message = "nobody says when it was made, and trust.d limits its age";
                Refusal::new(Reason::Expired, message)
            })?;
            if rule.not_before.is_some_and(|not_before| made < not_before) {
                let message = "made before the time that trust.d sets";
                return Err(Refusal::new(Reason::Expired, message));
            }
            if let Some(max_age) = rule.max_age {
                let too_old = Refusal::new(Reason::Expired, "older than trust.d allows");
                let over = made.checked_add(max_age).filter(|over| *over > now);
                let over = over.ok_or(too_old)?;
                expires = Some(expires.map_or(over, |expires| expires.min(over)));
            }
        }
        Ok(expires)
    }

    /// Whether this digest is revoked.
    pub(crate) fn revokes(&self, digest: &Digest) -> bool {
        self.revoked_digests.contains(digest)
    }

    /// Whether a rule asks what was admitted before.
    #[must_use]
    pub fn is_monotonic(&self) -> bool {
        self.rules.iter().any(|rule| rule.monotonic)
    }

    /// The revoked key that a signer used, if it is one.
    pub(crate) fn revoked_key(&self, signer: &Signer) -> Option<&'a str> {
        let mut revoked = self.revoked_keys.iter();
        revoked.find(|id| signer.is(id)).map(String::as_str)
    }

    /// The conditions that no signature of the policy's requirements decides.
    /// `counted` are the signatures that counted there; `judge` looks at all
    /// signatures with other keys.
    #[must_use]
    pub fn conditions(
        &self,
        question: &Question<'_>,
        counted: &[&Counted],
        judge: &dyn Fn(&dyn Mechanism, &SignedIdentity) -> Vec<SignatureVerdict>,
    ) -> Vec<ConditionVerdict> {
        let mut verdicts: Vec<ConditionVerdict> = self.revoked(question).into_iter().collect();
        for rule in &self.rules {
            let signers = rule
                .signers
                .as_ref()
                .map(|signers| rule.judge_signers(signers, judge));
            let by_signers = signers.iter().flat_map(ConditionVerdict::counted);
            let all: Vec<&Counted> = counted.iter().copied().chain(by_signers).collect();
            verdicts.extend(rule.judge_age(&all));
            verdicts.extend(rule.judge_step(question, &all));
            verdicts.extend(rule.judge_scan(question));
            let attested = rule.attestations.iter();
            verdicts.extend(attested.map(|wanted| rule.judge_attestation(wanted, question, self)));
            verdicts.extend(signers);
        }
        verdicts
    }

    /// A revoked digest may be that of the index, the manifest, the configuration or a layer.
    fn revoked(&self, question: &Question<'_>) -> Option<ConditionVerdict> {
        let manifests = [Some(question.manifest), question.chosen_from];
        let mut digests = manifests.into_iter().flatten().flat_map(digests_of);
        let digest = digests.find(|digest| self.revoked_digests.contains(digest))?;
        let message = format!("trust.d revokes {digest}");
        Some(ConditionVerdict {
            file: None,
            ..condition(REVOKED, Err(Refusal::new(Reason::Revoked, message)))
        })
    }
}

/// All that an image is made of, by digest.
fn digests_of(manifest: &ManifestBytes) -> Vec<Digest> {
    let mut digests = vec![*manifest.digest().digest()];
    // Whoever asks in sha512 for what was revoked in sha256 must not get it.
    let other = match manifest.digest().digest().algorithm() {
        Algorithm::Sha256 => Algorithm::Sha512,
        Algorithm::Sha512 => Algorithm::Sha256,
    };
    digests.push(Digest::of(other, manifest.bytes()));
    if let Some(manifest) = manifest.as_manifest() {
        digests.push(manifest.config.digest);
        digests.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    digests
}

fn condition(name: &'static str, outcome: Result<(), Refusal>) -> ConditionVerdict {
    ConditionVerdict {
        file: None,
        condition: name,
        met: outcome.is_ok(),
        refusal: outcome.err(),
        signatures: Vec::new(),
        holds_until: None,
    }
}

impl ConditionVerdict {
    /// The signatures that count.
    pub fn counted(&self) -> impl Iterator<Item = &Counted> {
        self.signatures.iter().filter_map(SignatureVerdict::counted)
    }
}

impl Rule {
    fn condition(&self, name: &'static str, outcome: Result<(), Refusal>) -> ConditionVerdict {
        ConditionVerdict {
            file: Some(self.file.clone()),
            ..condition(name, outcome)
        }
    }

    fn judge_signers(
        &self,
        signers: &Signers,
        judge: &dyn Fn(&dyn Mechanism, &SignedIdentity) -> Vec<SignatureVerdict>,
    ) -> ConditionVerdict {
        let mechanisms = match &signers.prepared().mechanisms {
            Ok(mechanisms) => mechanisms,
            Err(refusal) => return self.condition("signers", Err(refusal.clone())),
        };
        let by_each = mechanisms
            .iter()
            .map(|mechanism| judge(&**mechanism, &signers.identity));
        // A signature counts if one mechanism accepts it; else the last one's refusal stands.
        let signatures = by_each.reduce(|best, next| {
            best.into_iter()
                .zip(next)
                .map(|(best, next)| if best.counts() { best } else { next })
                .collect()
        });
        let signatures = signatures.unwrap_or_default();
        let mut until: BTreeMap<&str, Option<SystemTime>> = BTreeMap::new();
        for counted in signatures.iter().filter_map(SignatureVerdict::counted) {
            let longest = until.entry(&counted.signer.id).or_insert(counted.expires);
            *longest = (*longest).and_then(|longest| Some(longest.max(counted.expires?)));
        }
        let wanted = signers.rule.at_least;
        let found = until.len();
        let outcome = if found >= wanted {
            Ok(())
        } else {
            let message = format!("signed by {found} of the {wanted} different signers wanted");
            Err(Refusal::new(Reason::UnknownKey, message))
        };
        // With the `wanted` that hold longest it holds until the first of these ends.
        let mut ends: Vec<SystemTime> = until.values().copied().flatten().collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        let for_good = found - ends.len();
        let holds_until = wanted
            .checked_sub(for_good + 1)
            .and_then(|position| ends.get(position).copied());
        ConditionVerdict {
            signatures,
            holds_until,
            ..self.condition("signers", outcome)
        }
    }

    /// A limit on the age of signatures needs one to limit.
    fn judge_age(&self, counted: &[&Counted]) -> Option<ConditionVerdict> {
        let name = match (self.max_age, self.not_before) {
            (Some(_), _) => "max-age",
            (None, Some(_)) => "not-before",
            (None, None) => return None,
        };
        let outcome = if counted.is_empty() {
            let message = "no signature counts whose age could be known";
            Err(Refusal::new(Reason::Expired, message))
        } else {
            Ok(())
        };
        Some(self.condition(name, outcome))
    }

    fn judge_scan(&self, question: &Question<'_>) -> Option<ConditionVerdict> {
        let max = self.max_severity?;
        let outcome = match question.circumstances.scan {
            None => Err("no scan of this image is at hand".to_owned()),
            Some(worst) if worst > max => Err(format!(
                "a scan found a vulnerability of severity {worst:?}, more than {max:?}"
            )),
            Some(_) => Ok(()),
        };
        let outcome = outcome.map_err(|message| Refusal::new(Reason::Rejected, message));
        Some(self.condition("max-severity", outcome))
    }

    fn judge_attestation(
        &self,
        wanted: &Attestations,
        question: &Question<'_>,
        rules: &Applicable<'_>,
    ) -> ConditionVerdict {
        let mechanism = match wanted.mechanism() {
            Ok(mechanism) => &**mechanism,
            Err(refusal) => return self.condition("attestation", Err(refusal.clone())),
        };
        let predicate = &wanted.rule.predicate_type;
        let signatures = question.signatures.iter();
        let good: Vec<_> = signatures
            .filter_map(|found| question.attested(found, mechanism, predicate, rules))
            .collect();
        if good.is_empty() {
            let message = format!("no statement of type {predicate} by the keys named");
            let refusal = Refusal::new(Reason::UnknownKey, message);
            return self.condition("attestation", Err(refusal));
        }
        let ends: Option<Vec<_>> = good.iter().map(|attested| attested.expires).collect();
        ConditionVerdict {
            holds_until: ends.and_then(|ends| ends.into_iter().max()),
            ..self.condition("attestation", Ok(()))
        }
    }
}
