// SPDX-License-Identifier: Apache-2.0
//! Admission: the one place where a verdict becomes a permission.
//!
//! ```text
//!  Question ──▶ Authority::admit ──▶ AdmittedImage    what is copied, mounted, run, published
//!                     │        └───▶ Denied           one sentence, and the whole verdict
//!                     ▼
//!                  Memory: an admission of the same question, still in force;
//!                          what was last admitted under each name
//! ```
//!
//! Nothing but [`Authority::admit`] makes an [`AdmittedImage`], and what acts
//! on an image takes one. Denials are never remembered: they are rare, and
//! who is refused wants to know why.
//!
//! An admission is remembered under a digest of all that it was made of: the
//! question, the policy, the rules, the bytes of the keys that hold for this
//! image. Whoever changes any of these asks anew. It ends when the first of the
//! signatures, keys and certificates ends that it rests on.

use std::fmt;
use std::time::SystemTime;

use gantry_oci::{Algorithm, Digest, Digester, Kind, ManifestDigest, Reference};

use crate::evaluate::{Outcome, Question, RequirementVerdict, Verdict, evaluate};
use crate::extra::{Circumstances, Extra, Last, REVOKED, Record};
use crate::keys::absorb;
use crate::prepared::{PreparedPolicy, Ready, Test};
use crate::refusal::{Reason, Refusal};
use crate::scope::{Matched, Subject};

/// Changes whenever the same question may get another answer from other code.
const VERSION: &[u8] = b"gantry verdict 2\0";

/// How often to begin again where others keep admitting images under the same name.
const STEPS: usize = 16;

/// Who decides: a policy, the rules beside it, and all their keys.
#[derive(Debug, Clone)]
pub struct Authority {
    policy: PreparedPolicy,
    extra: Extra,
}

/// An image that the policy of this host admits.
///
/// Holding one says: at the time of the question, [`Authority`] admitted
/// exactly the manifest with this digest, at this place and under this name,
/// with signatures that were checked then, or a memory of that is still in
/// force.
///
/// It does not say that the image is here, whole or harmless, nor that the
/// name still leads to it: whoever acts on it takes the digest from here. And
/// it ends: past [`holds_until`](Self::holds_until), or with another
/// [`authority`](Self::authority), the question is to be asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedImage {
    manifest_digest: ManifestDigest,
    subject: Subject,
    matched: Matched,
    authority: Digest,
    holds_until: Option<SystemTime>,
    record: Record,
    signers: Vec<String>,
    remembered: bool,
}

impl AdmittedImage {
    /// The manifest, or the index if that was the question.
    #[must_use]
    pub fn manifest_digest(&self) -> &ManifestDigest {
        &self.manifest_digest
    }

    /// The place and name that it was admitted for.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The logical reference that it was admitted under, if it has one.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        self.subject.reference()
    }

    /// The scope of the policy that admitted it.
    #[must_use]
    pub fn matched(&self) -> &Matched {
        &self.matched
    }

    /// SHA-256 of policy, rules and the keys that hold for it: see [`Authority::digest_for`].
    #[must_use]
    pub fn authority(&self) -> &Digest {
        &self.authority
    }

    /// Until when it is admitted; for good if absent, as long as authority and signatures are the same.
    #[must_use]
    pub fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }

    /// What rules against stepping back need to know next time; it is in [`Memory`] already.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Who signed, for people; nobody where the policy asks for no signature.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.signers
    }

    /// Whether no signature was checked this time, as a memory was in force.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        self.remembered
    }
}

/// An image that is refused. Its text is one sentence: which image, which
/// scope, what is required, why that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// As people call the image.
    pub image: String,
    /// All that was considered.
    pub verdict: Box<Verdict>,
}

impl Denied {
    /// Always denied.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }

    /// Whether no signature could change it: the policy rejects the image whoever signs, or what it is made of was revoked.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let rejected = |refusal: &Option<Refusal>| {
            let reason = refusal.as_ref().map(|refusal| refusal.reason);
            reason == Some(Reason::Rejected)
        };
        let verdict = &self.verdict;
        verdict
            .requirements
            .iter()
            .any(|one| !one.met && rejected(&one.refusal))
            || verdict
                .conditions
                .iter()
                .any(|one| !one.met && one.condition == REVOKED)
    }

    /// The same sentence for somebody on the other side of a network: nothing of this host's files is in it.
    #[must_use]
    pub fn outward(&self) -> String {
        let verdict = &self.verdict;
        let unmet = verdict.requirements.iter().find(|one| !one.met);
        let why = if let Some(requirement) = unmet {
            let scope = scope_words(verdict.transport, &verdict.matched);
            let why = match &requirement.refusal {
                Some(refusal) => outward_refusal(refusal),
                None => why(requirement),
            };
            format!("{scope} requires {}, and {why}", requirement.requirement)
        } else if let Some(condition) = verdict.conditions.iter().find(|one| !one.met) {
            let why = condition.refusal.as_ref().map(outward_refusal);
            let why = why.unwrap_or_else(|| "that is not met".to_owned());
            format!("trust.d requires {}, and {why}", condition.condition)
        } else {
            "the policy of its namespace refuses it".to_owned()
        };
        format!("image {} is not admitted: {why}", self.image)
    }
}

/// Why keys cannot be used names the files that they are in.
fn outward_refusal(refusal: &Refusal) -> String {
    match refusal.reason {
        Reason::NoKeys => "the keys for it cannot be used".to_owned(),
        _ => refusal.message.clone(),
    }
}

impl std::error::Error for Denied {}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, verdict } = self;
        write!(f, "image {image} is not admitted: ")?;
        let unmet = verdict.requirements.iter().find(|one| !one.met);
        if let Some(requirement) = unmet {
            let scope = scope_words(verdict.transport, &verdict.matched);
            let wanted = requirement.requirement;
            return write!(f, "{scope} requires {wanted}, and {}", why(requirement));
        }
        let unmet = verdict.conditions.iter().find(|one| !one.met);
        if let Some(condition) = unmet {
            match &condition.file {
                Some(file) => write!(f, "{}", file.display())?,
                None => write!(f, "trust.d")?,
            }
            write!(f, " requires {}", condition.condition)?;
            return match &condition.refusal {
                Some(refusal) => write!(f, ", and {refusal}"),
                None => Ok(()),
            };
        }
        write!(f, "the policy of its namespace refuses it")
    }
}

fn scope_words(transport: &str, matched: &Matched) -> String {
    match matched {
        Matched::Scope(scope) if scope.is_empty() => {
            format!("the policy's default of transport {transport}")
        }
        Matched::Scope(scope) => format!("policy scope {scope} of transport {transport}"),
        Matched::Default => "the policy's default".to_owned(),
    }
}

fn why(requirement: &RequirementVerdict) -> String {
    if let Some(refusal) = &requirement.refusal {
        return refusal.to_string();
    }
    let refusals: Vec<&Refusal> = requirement
        .signatures
        .iter()
        .filter_map(|signature| match &signature.outcome {
            Outcome::Counts(_) => None,
            Outcome::Refused(refusal) => Some(refusal),
        })
        .collect();
    match refusals.as_slice() {
        [] => "it has no signature".to_owned(),
        [only] => format!("its only signature does not count: {only}"),
        [first, ..] => format!(
            "none of its {} signatures counts, the first because: {first}",
            refusals.len()
        ),
    }
}

/// What an admission was remembered under: a digest over all that it was made
/// of. SHA-256, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuestionKey(Digest);

impl QuestionKey {
    /// 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

/// An admission as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// When it was decided. A clock that was set back before it has forgotten it.
    pub decided: SystemTime,
    /// Until when it holds.
    pub holds_until: Option<SystemTime>,
    /// When the newest signature that counted was made.
    pub made: Option<SystemTime>,
    /// Who signed, for people.
    pub signers: Vec<String>,
}

/// Where admissions are remembered. What it says is believed: it belongs to
/// the host's root and to nobody else.
pub trait Memory: fmt::Debug {
    /// The admission under this key, if there is one.
    fn recall(&self, key: &QuestionKey) -> Option<Remembered>;

    /// Keeps an admission; one that cannot be kept is decided again next time.
    fn remember(&self, key: &QuestionKey, admission: &Remembered);

    /// What was last admitted under this name. Asked for only where a rule
    /// forbids to step back.
    fn last(&self, subject: &Subject) -> Last {
        let _ = subject;
        Last::Unknown
    }

    /// Puts `next` in the place of `last`, so that no later process and no
    /// later boot misses it.
    fn advance(&self, subject: &Subject, last: &Last, next: &Record) -> Advance {
        let _ = (subject, last, next);
        Advance::Failed
    }
}

/// What became of a [`Memory::advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// It is kept.
    Done,
    /// Something else is in that place by now, and is to be asked about.
    Overtaken,
    /// It cannot be kept; the image is not admitted, or it could be replaced by an older one.
    Failed,
}

/// Remembers nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMemory;

impl Memory for NoMemory {
    fn recall(&self, _key: &QuestionKey) -> Option<Remembered> {
        None
    }

    fn remember(&self, _key: &QuestionKey, _admission: &Remembered) {}
}

impl Authority {
    /// A policy and the rules beside it, which only tighten.
    #[must_use]
    pub fn new(policy: PreparedPolicy, extra: Extra) -> Self {
        Self { policy, extra }
    }

    /// SHA-256 over all that an answer about a subject depends on besides the
    /// question: policy, rules, and the keys that hold for it.
    #[must_use]
    pub fn digest_for(&self, subject: &Subject, namespace: Option<&str>) -> Digest {
        let mut digester = Digester::new(Algorithm::Sha256);
        digester.update(VERSION);
        self.policy.absorb(subject, &mut digester);
        self.extra.absorb(subject, namespace, &mut digester);
        digester.finish()
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &PreparedPolicy {
        &self.policy
    }

    /// The rules beside it.
    #[must_use]
    pub fn extra(&self) -> &Extra {
        &self.extra
    }

    /// Whether the verdict about this place and name may depend on signatures.
    /// Where it does not, none need be looked for.
    #[must_use]
    pub fn asks_for_signatures(&self, subject: &Subject) -> bool {
        let (_, list) = self.policy.requirements_for(subject);
        list.iter().any(Ready::takes_signatures)
            || self.extra.applicable(subject).rules().next().is_some()
            || self.extra.has_namespaces()
    }

    /// Whether an image of which nothing is known but the digest of its
    /// configuration may run: the policy accepts anything here, and no rule asks for more.
    #[must_use]
    pub fn accepts_anything(&self, subject: &Subject, configuration: &Digest) -> bool {
        let (_, list) = self.policy.requirements_for(subject);
        let rules = self.extra.applicable(subject);
        let accepts = |ready: &Ready| matches!(ready.test(), Test::Accept);
        list.iter().all(accepts) && rules.rules().next().is_none() && !rules.revokes(configuration)
    }

    /// Decides: the only maker of [`AdmittedImage`].
    ///
    /// Where a rule forbids to step back, what was admitted before is asked of
    /// `memory`, whatever the question says of it, and the admission is kept
    /// there before it is given.
    ///
    /// # Concurrency
    /// Of several that admit images under one name at once, each has seen what
    /// the one before it admitted.
    ///
    /// # Errors
    /// [`Denied`], which nobody may turn into anything else than a refusal.
    pub fn admit(
        &self,
        question: &Question<'_>,
        memory: &dyn Memory,
    ) -> Result<AdmittedImage, Denied> {
        let subject = question.subject;
        let after = |last| question.after(last);
        if !subject.can_step() || !self.extra.applicable(subject).is_monotonic() {
            return self.decide(&after(Last::Nothing), memory);
        }
        for _ in 0..STEPS {
            let last = memory.last(subject);
            let question = after(last);
            let admitted = self.decide(&question, memory)?;
            let Some(next) = last.followed_by(&admitted.record, &question) else {
                return Ok(admitted);
            };
            match memory.advance(subject, &last, &next) {
                Advance::Done => return Ok(admitted),
                Advance::Overtaken => {}
                Advance::Failed => break,
            }
        }
        // What cannot be kept was for nothing: the rule is not met.
        self.decide(&after(Last::Unknown), memory)
    }

    /// All that [`admit`](Self::admit) would consider now. Permits nothing and keeps nothing.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>, memory: &dyn Memory) -> Verdict {
        let question = question.after(memory.last(question.subject));
        evaluate(&self.policy, &self.extra, &question)
    }

    fn decide(
        &self,
        question: &Question<'_>,
        memory: &dyn Memory,
    ) -> Result<AdmittedImage, Denied> {
        let namespace = question.circumstances.namespace;
        let authority = self.digest_for(question.subject, namespace);
        let key = key_of(&authority, question);
        let admitted = |matched, known: Remembered, record, remembered| AdmittedImage {
            manifest_digest: *question.manifest.digest(),
            subject: question.subject.clone(),
            matched,
            authority,
            holds_until: known.holds_until,
            record,
            signers: known.signers,
            remembered,
        };
        if let Some(known) = memory.recall(&key).filter(|it| it.in_force(question.now)) {
            let (matched, _) = self.policy.requirements_for(question.subject);
            let record = Record {
                manifest_digest: *question.top().digest(),
                made: known.made,
            };
            return Ok(admitted(matched, known, record, true));
        }
        let verdict = evaluate(&self.policy, &self.extra, question);
        if !verdict.admitted {
            return Err(Denied {
                image: image_words(question),
                verdict: Box::new(verdict),
            });
        }
        let decided = Remembered {
            decided: question.now,
            holds_until: verdict.holds_until,
            made: verdict.record.made,
            signers: verdict.signers(),
        };
        // Next time it will be the last one itself.
        let again = question.after(Last::Nothing);
        memory.remember(&key_of(&authority, &again), &decided);
        Ok(admitted(verdict.matched, decided, verdict.record, false))
    }

    /// What an answer to a question is remembered under.
    #[must_use]
    pub fn key(&self, question: &Question<'_>) -> QuestionKey {
        let namespace = question.circumstances.namespace;
        key_of(&self.digest_for(question.subject, namespace), question)
    }
}

/// A digest over the authority and everything of the question but the time,
/// which stands beside what is remembered.
fn key_of(authority: &Digest, question: &Question<'_>) -> QuestionKey {
    // Every member is named, so that a new one cannot be forgotten here.
    let Question {
        subject,
        manifest,
        chosen_from,
        signatures,
        now: _,
        circumstances,
    } = question;
    let Circumstances {
        namespace,
        last,
        scan,
    } = circumstances;
    let mut digester = Digester::new(Algorithm::Sha256);
    absorb(&mut digester, authority.as_bytes());
    absorb(&mut digester, subject.transport().as_bytes());
    for candidate in subject.candidates() {
        absorb(&mut digester, candidate.as_bytes());
    }
    absorb_text(&mut digester, subject.reference());
    absorb_text(&mut digester, Some(manifest.digest()));
    absorb_text(&mut digester, chosen_from.map(|index| index.digest()));
    // The order in which they were found decides nothing.
    let mut found: Vec<Digest> = signatures
        .iter()
        .map(|found| {
            let mut digester = Digester::new(Algorithm::Sha256);
            absorb(&mut digester, found.blob.format.as_bytes());
            absorb(&mut digester, &found.blob.bytes);
            digester.finish()
        })
        .collect();
    found.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    digester.update(&(found.len() as u64).to_le_bytes());
    for digest in &found {
        absorb(&mut digester, digest.as_bytes());
    }
    absorb_text(&mut digester, *namespace);
    absorb_text(&mut digester, last.key(question));
    absorb_text(&mut digester, scan.map(|scan| format!("{scan:?}")));
    QuestionKey(digester.finish())
}

impl Remembered {
    fn in_force(&self, now: SystemTime) -> bool {
        self.decided <= now && self.holds_until.is_none_or(|until| now < until)
    }
}

fn absorb_text(digester: &mut Digester, text: Option<impl fmt::Display>) {
    match text {
        Some(text) => absorb(digester, format!("+{text}").as_bytes()),
        None => absorb(digester, b"-"),
    }
}

fn image_words(question: &Question<'_>) -> String {
    let digest = question.manifest.digest();
    let subject = question.subject;
    match (subject.reference(), subject.candidates().next()) {
        (Some(reference), _) if reference.digest.is_some() => reference.to_string(),
        (Some(reference), _) => format!("{reference} ({digest})"),
        (None, Some(place)) if !place.is_empty() => {
            format!("{}:{place} ({digest})", subject.transport())
        }
        (None, _) => digest.to_string(),
    }
}

#[cfg(test)]
mod tests;
