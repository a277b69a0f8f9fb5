// SPDX-License-Identifier: Apache-2.0
//! Admissions, remembered ones, and those that may not be stepped back from.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gantry_image::ManifestBytes;
use gantry_oci::Limits;

use super::*;
use crate::evaluate::FoundSignature;
use crate::evaluate::tests::{Believing, at, index_of, manifest, policy, signature};
use crate::extra::{Circumstances, Severity};
use crate::mechanism::Mechanism;
use crate::policy::Policy;
use crate::prepared::{Mechanisms, Real, SigstoreMaterial};

const SIGNED: &str = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"h.io":
    [{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"}]}}}"#;

#[derive(Debug, Default)]
struct Shelf(RefCell<HashMap<String, Remembered>>);

impl Memory for Shelf {
    fn recall(&self, key: &QuestionKey) -> Option<Remembered> {
        self.0.borrow().get(&key.hex()).cloned()
    }

    fn remember(&self, key: &QuestionKey, admission: &Remembered) {
        self.0.borrow_mut().insert(key.hex(), admission.clone());
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
                last: Last::Unknown,
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
    assert_eq!(
        *admitted.authority(),
        authority.digest_for(&asked.subject, None)
    );
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

/// Cryptography that counts how often it is asked to make sense of keys.
#[derive(Debug, Clone, Default)]
struct Counting(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Counting {
    fn prepared(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Mechanisms for Counting {
    fn read(&self, path: &Path) -> Result<Bytes, Refusal> {
        Believing.read(path)
    }

    fn openpgp(&self, keys: &[Bytes]) -> Result<Arc<dyn Mechanism>, Refusal> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Believing.openpgp(keys)
    }

    fn count_openpgp(&self, file: &Bytes) -> usize {
        Believing.count_openpgp(file)
    }

    fn sigstore(
        &self,
        signers: SigstoreMaterial<'_>,
        rekor: Option<Vec<Bytes>>,
    ) -> Result<Arc<dyn Mechanism>, Refusal> {
        Believing.sigstore(signers, rekor)
    }
}

#[test]
fn keys_are_made_sense_of_only_where_signatures_are_checked() {
    let text = r#"{"default":[{"type":"reject"}],"transports":{"docker":{
        "h.io":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"}],
        "other.io":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/b"}]}}}"#;
    let counting = Counting::default();
    let shelf = Shelf::default();
    let asked = Asked::new("h.io/a:v1", &[good("/a")]);
    let ask = || {
        let policy = Policy::parse(Bytes::from(text), &Limits::DEFAULT).unwrap();
        let authority = Authority::new(PreparedPolicy::new(policy, &counting), Extra::default());
        assert!(authority.asks_for_signatures(&asked.subject));
        authority.admit(&asked.question(), &shelf).unwrap()
    };
    assert!(!ask().is_remembered());
    assert_eq!(counting.prepared(), 1);
    let again = ask();
    assert!(again.is_remembered());
    assert_eq!(again.signers(), ["/a"]);
    assert_eq!(counting.prepared(), 1);
}

#[test]
fn only_the_keys_that_hold_for_an_image_are_in_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("own"), dir.path().join("other"));
    let text = format!(
        r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{
            "h.io":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":{own:?}}}],
            "other.io":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":{other:?}}}]}}}}}}"#
    );
    let rules = format!(
        "[[rule]]\nscope = \"h.io\"\nsigners = {{ at-least = 1, keys = [{own:?}] }}\n\
         [[rule.attestation]]\npredicate-type = \"p\"\nkeys = [{:?}]\n\
         [namespace.ns]\npolicy = \"ns.json\"\n",
        dir.path().join("builder")
    );
    let rule_dir = dir.path().join("trust.d");
    std::fs::create_dir(&rule_dir).unwrap();
    std::fs::write(rule_dir.join("a.toml"), rules).unwrap();
    let subject = Asked::new("h.io/a:v1", &[]).subject;
    let digest = |namespace| {
        let policy = Policy::parse(Bytes::from(text.clone()), &Limits::DEFAULT).unwrap();
        let limits = Limits::DEFAULT;
        let dirs = [rule_dir.clone()];
        let extra = crate::extra::load_dirs(&dirs, &Real { limits }, &limits).unwrap();
        let policy = policy.load_keys(&limits);
        Authority::new(policy, extra).digest_for(&subject, namespace)
    };
    let first = digest(None);
    std::fs::write(&other, "another image's").unwrap();
    assert_eq!(digest(None), first);
    let mut digests = vec![first];
    for changed in ["own", "builder"] {
        std::fs::write(dir.path().join(changed), "key").unwrap();
        digests.push(digest(None));
    }
    // The same length, and whatever its times are.
    std::fs::write(&own, "yek").unwrap();
    digests.push(digest(None));
    digests.push(digest(Some("ns")));
    std::fs::write(
        rule_dir.join("ns.json"),
        r#"{"default":[{"type":"reject"}]}"#,
    )
    .unwrap();
    assert_eq!(digest(None), digests[3]);
    digests.push(digest(Some("ns")));
    digests.sort_by_key(Digest::hex);
    let all = digests.len();
    digests.dedup();
    assert_eq!(digests.len(), all);
}

/// Remembers the last image of one name, and can be spoiled.
#[derive(Debug, Default)]
struct Ledger {
    shelf: Shelf,
    last: Cell<Option<Record>>,
    /// Somebody else admits these, one before each advance.
    meanwhile: RefCell<Vec<Record>>,
    broken: Cell<bool>,
}

impl Memory for Ledger {
    fn recall(&self, key: &QuestionKey) -> Option<Remembered> {
        self.shelf.recall(key)
    }

    fn remember(&self, key: &QuestionKey, admission: &Remembered) {
        self.shelf.remember(key, admission);
    }

    fn last(&self, _subject: &Subject) -> Last {
        self.last.get().map_or(Last::Nothing, Last::Image)
    }

    fn advance(&self, subject: &Subject, last: &Last, next: &Record) -> Advance {
        if let Some(other) = self.meanwhile.borrow_mut().pop() {
            self.last.set(Some(other));
        }
        if self.broken.get() {
            Advance::Failed
        } else if self.last(subject) == *last {
            self.last.set(Some(*next));
            Advance::Done
        } else {
            Advance::Overtaken
        }
    }
}

fn monotonic() -> Authority {
    let rule = crate::extra::tests::rules(&["[[rule]]\nmonotonic = true"]);
    Authority::new(policy(SIGNED), rule.unwrap())
}

fn signed(salt: &str, reference: &str, made: &str) -> Asked {
    let manifest = manifest(salt);
    let by_a = signature("/a", manifest.digest(), reference, made, "-");
    Asked {
        manifest,
        ..Asked::new(reference, &[by_a])
    }
}

#[test]
fn a_name_does_not_go_back_to_what_was_signed_before() {
    let (authority, ledger) = (monotonic(), Ledger::default());
    let (old, new) = (
        signed("1", "h.io/a:v1", "500"),
        signed("2", "h.io/a:v1", "600"),
    );
    let ask = |asked: &Asked| authority.admit(&asked.question(), &ledger);
    assert!(!ask(&old).unwrap().is_remembered());
    // The first image of a name and the same again are one question.
    assert!(ask(&old).unwrap().is_remembered());
    ask(&new).unwrap();
    assert_eq!(ledger.last.get().unwrap().made, Some(at(600)));
    let denied = ask(&old).unwrap_err();
    assert!(
        denied.to_string().contains("signed before the image"),
        "{denied}"
    );
    assert!(ask(&new).unwrap().is_remembered());
    // A newer signature of the old image lets it come again.
    ask(&signed("1", "h.io/a:v1", "700")).unwrap();
    ask(&new).unwrap_err();
    // By digest one gets what one asks for, and nothing is noted.
    let digest = new.manifest.digest();
    let by_digest = Asked {
        subject: Subject::docker(
            &Reference::parse_normalized(&format!("h.io/a@{digest}")).unwrap(),
        ),
        ..new.clone()
    };
    ask(&by_digest).unwrap();
    assert_eq!(ledger.last.get().unwrap().made, Some(at(700)));
}

#[test]
fn a_step_that_nobody_keeps_is_not_taken() {
    let authority = monotonic();
    let asked = signed("1", "h.io/a:v1", "500");
    let denied = authority.admit(&asked.question(), &NoMemory).unwrap_err();
    assert!(denied.to_string().contains("is not known"), "{denied}");
    let ledger = Ledger::default();
    ledger.broken.set(true);
    authority.admit(&asked.question(), &ledger).unwrap_err();
    ledger.broken.set(false);
    authority.admit(&asked.question(), &ledger).unwrap();
    // What is on record already needs no keeping.
    ledger.broken.set(true);
    authority.admit(&asked.question(), &ledger).unwrap();
}

#[test]
fn whoever_was_overtaken_asks_again() {
    let authority = monotonic();
    let asked = signed("1", "h.io/a:v1", "500");
    let other = |made| Record {
        manifest_digest: *manifest("9").digest(),
        made: Some(at(made)),
    };
    let ledger = Ledger::default();
    ledger.meanwhile.borrow_mut().push(other(400));
    authority.admit(&asked.question(), &ledger).unwrap();
    assert_eq!(ledger.last.get().unwrap().made, Some(at(500)));
    let ledger = Ledger::default();
    ledger.meanwhile.borrow_mut().push(other(600));
    authority.admit(&asked.question(), &ledger).unwrap_err();
    assert_eq!(ledger.last.get(), Some(other(600)));
    // Nobody waits for ever.
    let ledger = Ledger::default();
    ledger.meanwhile.borrow_mut().extend((0..100).map(other));
    authority.admit(&asked.question(), &ledger).unwrap_err();
}

#[test]
fn an_index_is_one_image_to_a_name() {
    let (authority, ledger) = (monotonic(), Ledger::default());
    let (one, two) = (manifest("1"), manifest("2"));
    let index = index_of(&[&one, &two]);
    let signatures = [
        signature("/a", one.digest(), "h.io/a:v1", "500", "-"),
        signature("/a", two.digest(), "h.io/a:v1", "600", "-"),
    ];
    let ask = |manifest: &ManifestBytes, chosen_from: Option<&ManifestBytes>| {
        let asked = Asked {
            manifest: manifest.clone(),
            chosen_from: chosen_from.cloned(),
            ..Asked::new("h.io/a:v1", &signatures)
        };
        authority.admit(&asked.question(), &ledger)
    };
    for _ in 0..2 {
        ask(&one, Some(&index)).unwrap();
        ask(&two, Some(&index)).unwrap();
    }
    let last = ledger.last.get().unwrap();
    assert_eq!(
        (last.manifest_digest, last.made),
        (*index.digest(), Some(at(600)))
    );
    ask(&one, None).unwrap_err();
    ask(&two, None).unwrap();
    // What is on record now is one image, and the others of its index are not.
    assert_eq!(ledger.last.get().unwrap().manifest_digest, *two.digest());
    ask(&two, Some(&index)).unwrap();
    ask(&one, Some(&index)).unwrap_err();
}
