// SPDX-License-Identifier: Apache-2.0
//! Admission: the one place where a verdict becomes a permission.
//!
//! ```text
//!  Question ──▶ Authority::admit ──▶ AdmittedImage    what is copied, mounted, run, published
//!                     │        └───▶ Denied           one sentence, and the whole verdict
//!                     ▼
//!                  Memory: an admission of the same question, still in force
//! ```
//!
//! Nothing but [`Authority::admit`] makes an [`AdmittedImage`], and what acts
//! on an image takes one. Denials are never remembered: they are rare, and
//! who is refused wants to know why.

use std::fmt;
use std::time::SystemTime;

use gantry_oci::{Algorithm, Digest, Digester, Kind, ManifestDigest, Reference};

use crate::evaluate::{Outcome, Question, RequirementVerdict, Verdict, evaluate};
use crate::extra::{Extra, Record};
use crate::prepared::{PreparedPolicy, Ready, Test, absorb};
use crate::refusal::Refusal;
use crate::scope::{Matched, Subject};

/// Changes whenever the same question may get another answer from other code.
const VERSION: &[u8] = b"gantry verdict 1\0";

/// Who decides: a policy, the rules beside it, and all their keys.
#[derive(Debug, Clone)]
pub struct Authority {
    policy: PreparedPolicy,
    extra: Extra,
    digest: Digest,
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

    /// SHA-256 of policy, rules and keys: see [`Authority::digest`].
    #[must_use]
    pub fn authority(&self) -> &Digest {
        &self.authority
    }

    /// Until when it is admitted; for good if absent, as long as authority and signatures are the same.
    #[must_use]
    pub fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }

    /// What rules against stepping back need to know next time.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// When it was decided. A clock that was set back before it has forgotten it.
    pub decided: SystemTime,
    /// Until when it holds.
    pub holds_until: Option<SystemTime>,
    /// When the newest signature that counted was made.
    pub made: Option<SystemTime>,
}

/// Where admissions are remembered. What it says is believed: it belongs to
/// the host's root and to nobody else.
pub trait Memory: fmt::Debug {
    /// The admission under this key, if there is one.
    fn recall(&self, key: &QuestionKey) -> Option<Remembered>;

    /// Keeps an admission; one that cannot be kept is decided again next time.
    fn remember(&self, key: &QuestionKey, admission: &Remembered);
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
        let mut digester = Digester::new(Algorithm::Sha256);
        absorb(&mut digester, policy.digest().as_bytes());
        absorb(&mut digester, extra.digest().as_bytes());
        Self {
            policy,
            extra,
            digest: digester.finish(),
        }
    }

    /// SHA-256 over policy, rules and keys.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
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
        let by_signature = |ready: &Ready| matches!(ready.test, Test::Signature(..));
        list.iter().any(by_signature) || self.extra.applicable(subject).rules().next().is_some()
    }

    /// Decides: the only maker of [`AdmittedImage`].
    ///
    /// # Errors
    /// [`Denied`], which nobody may turn into anything else than a refusal.
    pub fn admit(
        &self,
        question: &Question<'_>,
        memory: &dyn Memory,
    ) -> Result<AdmittedImage, Denied> {
        let key = self.key(question);
        let admitted = |matched, holds_until, made, remembered| AdmittedImage {
            manifest_digest: *question.manifest.digest(),
            subject: question.subject.clone(),
            matched,
            authority: self.digest,
            holds_until,
            record: Record {
                manifest_digest: *question.manifest.digest(),
                made,
            },
            remembered,
        };
        if let Some(known) = memory.recall(&key).filter(|it| it.in_force(question.now)) {
            let (matched, _) = self.policy.requirements_for(question.subject);
            return Ok(admitted(matched, known.holds_until, known.made, true));
        }
        let verdict = evaluate(&self.policy, &self.extra, question);
        if !verdict.admitted {
            return Err(Denied {
                image: image_words(question),
                verdict: Box::new(verdict),
            });
        }
        let remembered = Remembered {
            decided: question.now,
            holds_until: verdict.holds_until,
            made: verdict.record.made,
        };
        memory.remember(&key, &remembered);
        Ok(admitted(
            verdict.matched,
            remembered.holds_until,
            remembered.made,
            false,
        ))
    }

    /// A digest over the authority and everything of the question but the
    /// time, which stands beside what is remembered.
    #[must_use]
    pub fn key(&self, question: &Question<'_>) -> QuestionKey {
        // Every member is named, so that a new one cannot be forgotten here.
        let Question {
            subject,
            manifest,
            chosen_from,
            signatures,
            now: _,
            circumstances,
        } = question;
        let mut digester = Digester::new(Algorithm::Sha256);
        digester.update(VERSION);
        absorb(&mut digester, self.digest.as_bytes());
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
        absorb_text(&mut digester, circumstances.namespace);
        let last = circumstances.last.map(|last| format!("{last:?}"));
        absorb_text(&mut digester, last);
        let scan = circumstances.scan.map(|scan| format!("{scan:?}"));
        absorb_text(&mut digester, scan);
        QuestionKey(digester.finish())
    }
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
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use gantry_image::ManifestBytes;

    use super::*;
    use crate::evaluate::FoundSignature;
    use crate::evaluate::tests::{at, manifest, policy, signature};
    use crate::extra::{Circumstances, Severity};

    const SIGNED: &str = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"h.io":
        [{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"}]}}}"#;

    #[derive(Debug, Default)]
    struct Shelf(RefCell<HashMap<String, Remembered>>);

    impl Memory for Shelf {
        fn recall(&self, key: &QuestionKey) -> Option<Remembered> {
            self.0.borrow().get(&key.hex()).copied()
        }

        fn remember(&self, key: &QuestionKey, admission: &Remembered) {
            self.0.borrow_mut().insert(key.hex(), *admission);
        }
    }

    /// A question that owns its parts.
    #[derive(Clone)]
    struct Asked {
        subject: Subject,
        manifest: ManifestBytes,
        chosen_from: Option<ManifestBytes>,
        signatures: Vec<FoundSignature>,
        now: SystemTime,
        scan: Option<Severity>,
        namespace: Option<&'static str>,
    }

    impl Asked {
        fn new(reference: &str, signatures: &[FoundSignature]) -> Self {
            let reference = Reference::parse_normalized(reference).unwrap();
            Self {
                subject: Subject::docker(&reference),
                manifest: manifest("1"),
                chosen_from: None,
                signatures: signatures.to_vec(),
                now: at(1000),
                scan: None,
                namespace: None,
            }
        }

        fn question(&self) -> Question<'_> {
            Question {
                subject: &self.subject,
                manifest: &self.manifest,
                chosen_from: self.chosen_from.as_ref(),
                signatures: &self.signatures,
                now: self.now,
                circumstances: Circumstances {
                    scan: self.scan,
                    namespace: self.namespace,
                    last: None,
                },
            }
        }
    }

    fn authority(text: &str) -> Authority {
        Authority::new(policy(text), Extra::default())
    }

    fn good(signer: &str) -> FoundSignature {
        signature(signer, manifest("1").digest(), "h.io/a:v1", "500", "2000")
    }

    #[test]
    fn an_admission_says_what_was_admitted() {
        let authority = authority(SIGNED);
        let asked = Asked::new("h.io/a:v1", &[good("/a")]);
        let admitted = authority.admit(&asked.question(), &NoMemory).unwrap();
        assert_eq!(admitted.manifest_digest(), manifest("1").digest());
        assert_eq!(admitted.reference().unwrap().to_string(), "h.io/a:v1");
        assert_eq!(*admitted.matched(), Matched::Scope("h.io".into()));
        assert_eq!(admitted.authority(), authority.digest());
        assert_eq!(admitted.holds_until(), Some(at(2000)));
        assert_eq!(admitted.record().made, Some(at(500)));
        assert!(!admitted.is_remembered());
    }

    #[test]
    fn a_denial_says_image_scope_requirement_and_reason() {
        let other = signature("/a", manifest("2").digest(), "h.io/a:v1", "500", "2000");
        let digest = *manifest("1").digest();
        let by_digest = format!("h.io/a@{digest}");
        for (text, reference, signatures, wanted) in [
            (
                SIGNED,
                "h.io/a:v1",
                vec![],
                format!(
                    "image h.io/a:v1 ({digest}) is not admitted: policy scope h.io of transport docker requires signedBy, \
                     and it has no signature"
                ),
            ),
            (
                SIGNED,
                by_digest.as_str(),
                vec![good("/b")],
                format!(
                    "image {by_digest} is not admitted: policy scope h.io of transport docker requires signedBy, and its \
                     only signature does not count: /b"
                ),
            ),
            (
                SIGNED,
                "h.io/a:v1",
                vec![other, good("/b")],
                format!(
                    "image h.io/a:v1 ({digest}) is not admitted: policy scope h.io of transport docker requires signedBy, \
                     and none of its 2 signatures counts, the first because: made for manifest {}, and this is {digest}",
                    manifest("2").digest()
                ),
            ),
            (
                SIGNED,
                "other.io/a:v1",
                vec![good("/a")],
                format!(
                    "image other.io/a:v1 ({digest}) is not admitted: the policy's default requires reject, and the policy \
                     rejects every image here"
                ),
            ),
        ] {
            let asked = Asked::new(reference, &signatures);
            let denied = authority(text).admit(&asked.question(), &NoMemory);
            let denied = denied.unwrap_err();
            assert_eq!(denied.to_string(), wanted);
            assert_eq!(denied.kind(), Kind::Denied);
        }
    }

    #[test]
    fn a_memory_serves_until_it_ends_and_after_its_beginning() {
        let authority = authority(SIGNED);
        let shelf = Shelf::default();
        let mut asked = Asked::new("h.io/a:v1", &[good("/a")]);
        let mut ask = |now| {
            asked.now = at(now);
            authority.admit(&asked.question(), &shelf)
        };
        assert!(!ask(1000).unwrap().is_remembered());
        let again = ask(1500).unwrap();
        assert!(again.is_remembered());
        assert_eq!(again.holds_until(), Some(at(2000)));
        assert_eq!(again.record().made, Some(at(500)));
        assert_eq!(*again.matched(), Matched::Scope("h.io".into()));
        // A clock that was set back, and one that went past the end.
        assert!(!ask(999).unwrap().is_remembered());
        ask(2000).unwrap_err();
        ask(3000).unwrap_err();
    }

    #[test]
    fn a_denial_is_not_remembered() {
        let shelf = Shelf::default();
        let asked = Asked::new("h.io/a:v1", &[]);
        authority(SIGNED)
            .admit(&asked.question(), &shelf)
            .unwrap_err();
        assert!(shelf.0.borrow().is_empty());
    }

    #[test]
    fn whatever_the_verdict_depends_on_is_in_the_key() {
        let signatures = [good("/a"), good("/b")];
        let first = Asked::new("h.io/a:v1", &signatures);
        let key = |authority: &Authority, asked: &Asked| authority.key(&asked.question()).hex();
        let this = authority(SIGNED);
        let mut keys = vec![key(&this, &first)];
        assert_eq!(keys[0].len(), 64);
        let swapped = Asked::new("h.io/a:v1", &[good("/b"), good("/a")]);
        let later = Asked {
            now: at(1500),
            ..first.clone()
        };
        assert_eq!(key(&this, &swapped), keys[0]);
        assert_eq!(key(&this, &later), keys[0]);
        let unnamed = policy(SIGNED).with_unnamed_bundles(vec!["h.io".into()]);
        keys.push(key(&authority(&format!("{SIGNED} ")), &first));
        keys.push(key(&Authority::new(unnamed, Extra::default()), &first));
        let changed = |change: &dyn Fn(&mut Asked)| {
            let mut asked = first.clone();
            change(&mut asked);
            asked
        };
        for asked in [
            Asked::new("h.io/a:v2", &signatures),
            Asked::new("h.io/b:v1", &signatures),
            changed(&|asked| asked.subject = Subject::atomic(asked.subject.reference().unwrap())),
            changed(&|asked| asked.subject = Subject::tarball()),
            changed(&|asked| asked.manifest = manifest("2")),
            changed(&|asked| asked.chosen_from = Some(manifest("2"))),
            changed(&|asked| asked.signatures.truncate(1)),
            changed(&|asked| asked.signatures.push(good("/a"))),
            changed(&|asked| asked.signatures[0].blob.format = "x".into()),
            changed(&|asked| asked.scan = Some(Severity::Low)),
            changed(&|asked| asked.namespace = Some("ns")),
        ] {
            keys.push(key(&this, &asked));
        }
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
