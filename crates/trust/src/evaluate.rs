// SPDX-License-Identifier: Apache-2.0
//! From a policy, an image and its signatures to a [`Verdict`].
//!
//! Pure but for keys, which are read when they are first needed: signatures were
//! fetched by whoever asks, and the clock is part of the question. The verdict is
//! plain data that says all that was considered, so that `explain` prints what
//! `pull` acted on.
//!
//! A signature is looked at by each requirement alone:
//!
//! ```text
//!  good by its keys? ── about this manifest (or its index)? ── names this image? ── no rule against it? ── counts
//! ```
//!
//! A requirement is met if one signature counts; the image is admitted if all
//! requirements of the list are met.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry_image::{ManifestBytes, SignatureBlob};
use gantry_oci::{Digest, ManifestDigest};
use serde::{Serialize, Serializer};

use crate::claim::Claim;
use crate::extra::{Applicable, Circumstances, ConditionVerdict, Extra, Record};
use crate::identity::SignedIdentity;
use crate::mechanism::{Attested, Mechanism, Signer};
use crate::prepared::{PreparedPolicy, Ready, Test};
use crate::refusal::{Reason, Refusal};
use crate::scope::{Matched, Subject};
use crate::sigstore::attestation::Wanted;
use crate::stored::StoredSignature;

/// What is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The image's place and logical name.
    pub subject: &'a Subject,
    /// The image, or an index that is taken whole.
    pub manifest: &'a ManifestBytes,
    /// The index that the manifest was chosen from. A signature of it is one
    /// of all that it lists.
    pub chosen_from: Option<&'a ManifestBytes>,
    /// All signatures that were found, for either.
    pub signatures: &'a [FoundSignature],
    /// When.
    pub now: SystemTime,
    /// What else is known; rules of `trust.d` may ask for it.
    pub circumstances: Circumstances<'a>,
}

/// A signature and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSignature {
    /// The signature.
    pub blob: SignatureBlob,
    /// Where, for people: an address, a file, a tag.
    pub place: String,
}

/// Whether an image is admitted, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The verdict proper.
    pub admitted: bool,
    /// The image's transport, as policies spell it.
    pub transport: &'static str,
    /// The scopes that were looked for, the most specific first.
    pub candidates: Vec<String>,
    /// The scope that holds.
    pub matched: Matched,
    /// The requirements of that scope, in the policy's order.
    pub requirements: Vec<RequirementVerdict>,
    /// The conditions of `trust.d`, all of which must be met, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionVerdict>,
    /// The verdict of the namespace's own policy, which must admit the image, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Box<NamespaceVerdict>>,
    /// What to remember of an admission, for rules against stepping back.
    pub record: Record,
    /// Until when an admission holds if policy, keys and signatures stay as they are; for good if absent.
    #[serde(serialize_with = "unix_s", skip_serializing_if = "Option::is_none")]
    pub holds_until: Option<SystemTime>,
}

/// What a namespace's own policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceVerdict {
    /// Its verdict.
    Policy(Verdict),
    /// It cannot be used, so that it admits nothing.
    Refused(Refusal),
}

impl NamespaceVerdict {
    fn admitted(&self) -> bool {
        match self {
            Self::Policy(verdict) => verdict.admitted,
            Self::Refused(_) => false,
        }
    }

    fn holds_until(&self) -> Option<SystemTime> {
        match self {
            Self::Policy(verdict) => verdict.holds_until,
            Self::Refused(_) => None,
        }
    }
}

/// One requirement, and what each signature is to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequirementVerdict {
    /// Its type, as policies spell it.
    pub requirement: &'static str,
    /// Its identity rule, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<&'static str>,
    /// Whether it is met.
    pub met: bool,
    /// Why it is not met, whatever the signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Each signature.
    pub signatures: Vec<SignatureVerdict>,
}

/// One signature, as a requirement sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignatureVerdict {
    /// Where it was found.
    pub place: String,
    /// Whether it counts.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Whether a signature counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It does.
    Counts(Box<Counted>),
    /// It does not.
    Refused(Refusal),
}

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Who signed.
    pub signer: Signer,
    /// What was signed.
    pub claim: Claim,
    /// Whether the image itself was signed, or the index that it was chosen from.
    pub about: About,
    /// When it was made.
    #[serde(serialize_with = "unix_s", skip_serializing_if = "Option::is_none")]
    pub made: Option<SystemTime>,
    /// Until when it counts.
    #[serde(serialize_with = "unix_s", skip_serializing_if = "Option::is_none")]
    pub expires: Option<SystemTime>,
}

/// What a signature is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The manifest at hand.
    Manifest,
    /// The index that it was chosen from.
    Index,
}

/// Seconds since the epoch: what a program reads.
pub(crate) fn unix_s<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    let seconds = time.map(|time| match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i128::from(since.as_secs()),
        Err(before) => -i128::from(before.duration().as_secs()),
    });
    seconds.serialize(to)
}

impl SignatureVerdict {
    /// Whether it counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.counted().is_some()
    }

    /// What it says, if it counts.
    #[must_use]
    pub fn counted(&self) -> Option<&Counted> {
        match &self.outcome {
            Outcome::Counts(counted) => Some(counted),
            Outcome::Refused(_) => None,
        }
    }
}

impl RequirementVerdict {
    /// The signatures that count.
    pub fn counted(&self) -> impl Iterator<Item = &Counted> {
        self.signatures.iter().filter_map(SignatureVerdict::counted)
    }

    /// Until when it is met: as long as the signature that counts longest.
    fn holds_until(&self) -> Option<SystemTime> {
        let mut longest = None;
        for counted in self.counted() {
            longest = longest.max(Some(counted.expires?));
        }
        longest
    }
}

impl Verdict {
    /// Who signed, for people: of each requirement the first whose signature counts.
    #[must_use]
    pub fn signers(&self) -> Vec<String> {
        let counted = self.requirements.iter();
        let counted = counted.filter_map(|requirement| requirement.counted().next());
        counted.map(|counted| counted.signer.to_string()).collect()
    }
}

/// Decides, and permits nothing: who acts on a verdict asks
/// [`Authority::admit`](crate::Authority::admit).
#[must_use]
pub fn evaluate(policy: &PreparedPolicy, extra: &Extra, question: &Question<'_>) -> Verdict {
    let mut verdict = evaluate_one(policy, extra, question);
    let name = question.circumstances.namespace;
    let Some(own) = name.and_then(|name| extra.namespace_policy(name)) else {
        return verdict;
    };
    let own = match own {
        Ok(policy) => NamespaceVerdict::Policy(evaluate_one(policy, extra, question)),
        Err(refusal) => NamespaceVerdict::Refused(refusal.clone()),
    };
    verdict.admitted &= own.admitted();
    verdict.holds_until = earliest([verdict.holds_until, own.holds_until()].into_iter());
    verdict.namespace = Some(Box::new(own));
    verdict
}

fn evaluate_one(policy: &PreparedPolicy, extra: &Extra, question: &Question<'_>) -> Verdict {
    let subject = question.subject;
    let (matched, list) = policy.requirements_for(subject);
    let rules = extra.applicable(subject);
    let bench = Bench {
        question,
        rules: &rules,
        unnamed: policy.accepts_unnamed_bundles(subject),
    };
    let requirements: Vec<RequirementVerdict> =
        list.iter().map(|ready| bench.requirement(ready)).collect();
    let counted: Vec<&Counted> = requirements
        .iter()
        .flat_map(RequirementVerdict::counted)
        .collect();
    let conditions = rules.conditions(question, &counted, &|mechanism, identity| {
        bench.signatures(mechanism, identity)
    });
    let by_condition = conditions.iter().flat_map(ConditionVerdict::counted);
    let all = counted.into_iter().chain(by_condition);
    let record = Record {
        manifest_digest: *question.top().digest(),
        made: all.filter_map(|counted| counted.made).max(),
    };
    let met = requirements.iter().map(RequirementVerdict::holds_until);
    let asked = conditions.iter().map(|condition| condition.holds_until);
    Verdict {
        admitted: requirements.iter().all(|requirement| requirement.met)
            && conditions.iter().all(|condition| condition.met),
        transport: subject.transport(),
        candidates: subject.candidates().map(ToOwned::to_owned).collect(),
        matched,
        holds_until: earliest(met.chain(asked)),
        requirements,
        conditions,
        namespace: None,
        record,
    }
}

fn earliest(times: impl Iterator<Item = Option<SystemTime>>) -> Option<SystemTime> {
    times.flatten().min()
}

/// Where signatures are looked at: the question, and what holds for all of them.
struct Bench<'a> {
    question: &'a Question<'a>,
    rules: &'a Applicable<'a>,
    unnamed: bool,
}

impl Bench<'_> {
    fn requirement(&self, ready: &Ready) -> RequirementVerdict {
        let mut verdict = RequirementVerdict {
            requirement: ready.type_name(),
            identity: None,
            met: false,
            refusal: None,
            signatures: Vec::new(),
        };
        match ready.test() {
            Test::Accept => verdict.met = true,
            Test::Refuse(refusal) => verdict.refusal = Some(refusal.clone()),
            Test::Signature(mechanism, identity) => {
                verdict.identity = Some(identity.type_name());
                verdict.signatures = self.signatures(&**mechanism, identity);
                verdict.met = verdict.signatures.iter().any(SignatureVerdict::counts);
            }
        }
        verdict
    }

    fn signatures(
        &self,
        mechanism: &dyn Mechanism,
        identity: &SignedIdentity,
    ) -> Vec<SignatureVerdict> {
        let judge = |found: &FoundSignature| SignatureVerdict {
            place: found.place.clone(),
            outcome: match self.signature(&found.blob, mechanism, identity) {
                Ok(counted) => Outcome::Counts(Box::new(counted)),
                Err(refusal) => Outcome::Refused(refusal),
            },
        };
        self.question.signatures.iter().map(judge).collect()
    }

    fn signature(
        &self,
        blob: &SignatureBlob,
        mechanism: &dyn Mechanism,
        identity: &SignedIdentity,
    ) -> Result<Counted, Refusal> {
        let stored = StoredSignature::parse(&blob.bytes)?;
        let checked = mechanism.check(&stored, self.question.now)?;
        let about = self.question.about(&checked.claim.manifest_digest)?;
        self.names_the_image(&checked.claim, identity)?;
        let expires = self.rules.filter(&checked, self.question.now)?;
        Ok(Counted {
            signer: checked.signer,
            claim: checked.claim,
            about,
            made: checked.made,
            expires,
        })
    }

    fn names_the_image(&self, claim: &Claim, identity: &SignedIdentity) -> Result<(), Refusal> {
        let Some(signed) = &claim.docker_reference else {
            if self.unnamed {
                return Ok(());
            }
            return Err(Refusal::new(
                Reason::OtherIdentity,
                "the signature names no image, and unnamed-bundles does not list this one's scope",
            ));
        };
        identity
            .accepts(self.question.subject.reference(), signed)
            .map_err(|problem| Refusal::new(Reason::OtherIdentity, problem))
    }
}

impl Question<'_> {
    /// What a name led to: the manifest, or the index that it was chosen from.
    pub(crate) fn top(&self) -> &ManifestBytes {
        self.chosen_from.unwrap_or(self.manifest)
    }

    /// A good statement of this type about the image, if the signature is one.
    pub(crate) fn attested(
        &self,
        found: &FoundSignature,
        mechanism: &dyn Mechanism,
        predicate_type: &str,
        rules: &Applicable<'_>,
    ) -> Option<Attested> {
        let stored = StoredSignature::parse(&found.blob.bytes).ok()?;
        let index = self.chosen_from.filter(|index| lists(index, self.manifest));
        let manifests = std::iter::once(self.manifest).chain(index);
        let mut attested = manifests.filter_map(|manifest| {
            let wanted = Wanted {
                predicate_type,
                manifest_digest: manifest.digest(),
            };
            mechanism.attest(&stored, wanted, self.now).ok()
        });
        attested.find(|attested| rules.revoked_key(&attested.signer).is_none())
    }

    fn about(&self, signed: &ManifestDigest) -> Result<About, Refusal> {
        if is_digest_of(signed, self.manifest) {
            return Ok(About::Manifest);
        }
        match self.chosen_from {
            Some(index) if is_digest_of(signed, index) && lists(index, self.manifest) => {
                Ok(About::Index)
            }
            _ => Err(Refusal::new(
                Reason::OtherDigest,
                format!(
                    "made for manifest {signed}, and this is {}",
                    self.manifest.digest()
                ),
            )),
        }
    }
}

/// Whether the bytes have this digest, which may be of another algorithm than the one they were asked for by.
fn is_digest_of(digest: &ManifestDigest, manifest: &ManifestBytes) -> bool {
    let algorithm = digest.digest().algorithm();
    if algorithm == manifest.digest().digest().algorithm() {
        return digest == manifest.digest();
    }
    *digest.digest() == Digest::of(algorithm, manifest.bytes())
}

/// Whether an index lists a manifest.
fn lists(index: &ManifestBytes, manifest: &ManifestBytes) -> bool {
    let entries = index.as_index().map(|index| index.manifests.as_slice());
    let mut entries = entries.unwrap_or_default().iter();
    entries.any(|entry| is_digest_of(&ManifestDigest::from_digest(entry.digest), manifest))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use gantry_image::UnverifiedManifest;
    use gantry_oci::{Algorithm, Limits, Reference};

    use super::*;
    use crate::mechanism::Checked;
    use crate::policy::Policy;
    use crate::prepared::{Mechanisms, SigstoreMaterial};

    /// Cryptography that believes: a signature is a line of text, a key the signer's name.
    #[derive(Debug, Clone)]
    pub(crate) struct Believing;

    #[derive(Debug)]
    struct Named(Vec<String>);

    impl Mechanisms for Believing {
        fn read(&self, path: &Path) -> Result<Bytes, Refusal> {
            match path.to_str() {
                Some(path) if !path.contains("missing") => Ok(Bytes::from(path.to_owned())),
                _ => Err(Refusal::new(Reason::NoKeys, "no such file")),
            }
        }

        fn openpgp(&self, keys: &[Bytes]) -> Result<Arc<dyn Mechanism>, Refusal> {
            let name = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
            Ok(Arc::new(Named(keys.iter().map(name).collect())))
        }

        fn count_openpgp(&self, _file: &Bytes) -> usize {
            1
        }

        fn sigstore(
            &self,
            signers: SigstoreMaterial<'_>,
            _rekor: Option<Vec<Bytes>>,
        ) -> Result<Arc<dyn Mechanism>, Refusal> {
            match signers {
                SigstoreMaterial::Keys(keys) => self.openpgp(&keys),
                _ => Err(Refusal::new(Reason::NoKeys, "no keys")),
            }
        }
    }

    impl Mechanism for Named {
        fn check(&self, signature: &StoredSignature, now: SystemTime) -> Result<Checked, Refusal> {
            let StoredSignature::Simple(message) = signature else {
                return Err(Refusal::new(Reason::Unsupported, "not simple"));
            };
            let text = String::from_utf8_lossy(&message[1..]).into_owned();
            let words: Vec<&str> = text.split(' ').collect();
            let [signer, digest, reference, made, expires] = words[..] else {
                return Err(Refusal::new(Reason::Malformed, "not five words"));
            };
            if !self.0.iter().any(|key| key == signer) {
                return Err(Refusal::new(Reason::UnknownKey, signer));
            }
            let time = |word: &str| Some(at(word.parse().ok()?));
            if time(expires).is_some_and(|expires| expires <= now) {
                return Err(Refusal::new(Reason::Expired, signer));
            }
            Ok(Checked {
                claim: Claim {
                    manifest_digest: digest.parse().unwrap(),
                    docker_reference: (reference != "-").then(|| reference.to_owned()),
                    creator: None,
                    timestamp_s: None,
                },
                signer: Signer {
                    id: signer.to_owned(),
                    also: Vec::new(),
                    name: None,
                },
                made: time(made),
                expires: time(expires),
            })
        }

        fn attest(
            &self,
            signature: &StoredSignature,
            wanted: Wanted<'_>,
            _now: SystemTime,
        ) -> Result<Attested, Refusal> {
            attested(&self.0, signature, wanted)
                .ok_or_else(|| Refusal::new(Reason::UnknownKey, "no statement"))
        }
    }

    /// A signature whose time of making is `attests` is a statement of the type in its reference's place.
    fn attested(
        keys: &[String],
        signature: &StoredSignature,
        wanted: Wanted<'_>,
    ) -> Option<Attested> {
        let StoredSignature::Simple(message) = signature else {
            return None;
        };
        let text = String::from_utf8_lossy(&message[1..]).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let [signer, digest, predicate, "attests", _] = words[..] else {
            return None;
        };
        let good = keys.iter().any(|key| key == signer)
            && predicate == wanted.predicate_type
            && digest == wanted.manifest_digest.to_string();
        good.then(|| Attested {
            signer: Signer {
                id: signer.to_owned(),
                also: Vec::new(),
                name: None,
            },
            expires: None,
        })
    }

    pub(crate) fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    pub(crate) fn policy(text: &str) -> PreparedPolicy {
        let text = Bytes::copy_from_slice(text.as_bytes());
        let policy = Policy::parse(text, &Limits::DEFAULT).unwrap();
        PreparedPolicy::new(policy, &Believing)
    }

    pub(crate) fn manifest(salt: &str) -> ManifestBytes {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},
            "layers":[],"annotations":{{"salt":"{salt}"}}}}"#,
            Digest::of(Algorithm::Sha256, b"{}")
        );
        verified(text)
    }

    fn verified(text: String) -> ManifestBytes {
        UnverifiedManifest::new(text.into(), None, None)
            .verify(None, &Limits::DEFAULT)
            .unwrap()
    }

    pub(crate) fn index_of(manifests: &[&ManifestBytes]) -> ManifestBytes {
        let entries: Vec<String> = manifests
            .iter()
            .map(|manifest| serde_json::to_string(&manifest.descriptor()).unwrap())
            .collect();
        verified(format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            entries.join(",")
        ))
    }

    /// A signature that [`Believing`] reads: `-` for what is absent.
    pub(crate) fn signature(
        signer: &str,
        digest: &impl std::fmt::Display,
        reference: &str,
        made: &str,
        expires: &str,
    ) -> FoundSignature {
        let text = format!("\u{0}simple-signing\n?{signer} {digest} {reference} {made} {expires}");
        FoundSignature {
            blob: SignatureBlob {
                format: "simple-signing".into(),
                bytes: text.into(),
            },
            place: format!("memory of {signer}"),
        }
    }

    pub(crate) fn ask(
        policy: &PreparedPolicy,
        reference: &str,
        manifest: &ManifestBytes,
        signatures: &[FoundSignature],
    ) -> Verdict {
        let subject = Subject::docker(&Reference::parse_normalized(reference).unwrap());
        let question = Question {
            subject: &subject,
            manifest,
            chosen_from: None,
            signatures,
            now: at(1000),
            circumstances: Circumstances::default(),
        };
        evaluate(policy, &Extra::default(), &question)
    }

    /// The reasons of the first requirement's signatures; none for one that counts.
    fn reasons(verdict: &Verdict) -> Vec<Option<Reason>> {
        let signatures = verdict.requirements[0].signatures.iter();
        signatures
            .map(|signature| match &signature.outcome {
                Outcome::Counts(_) => None,
                Outcome::Refused(refusal) => Some(refusal.reason),
            })
            .collect()
    }

    const SIGNED: &str = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"h.io":
        [{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/a","/b"]}]}}}"#;

    #[test]
    fn requirements_without_signatures() {
        let image = manifest("1");
        for (requirement, met, reason) in [
            (r#"{"type":"insecureAcceptAnything"}"#, true, None),
            (r#"{"type":"reject"}"#, false, Some(Reason::Rejected)),
            (
                r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#,
                false,
                Some(Reason::Unsupported),
            ),
            (
                r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/missing"}"#,
                false,
                Some(Reason::NoKeys),
            ),
            (
                r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/a"}"#,
                false,
                Some(Reason::Unsupported),
            ),
            (
                r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/a","subjectEmail":"e"}}"#,
                false,
                Some(Reason::NoKeys),
            ),
            (
                r#"{"type":"sigstoreSigned","keyPath":"/a","rekorPublicKeyPath":"/missing"}"#,
                false,
                Some(Reason::NoKeys),
            ),
        ] {
            let policy = policy(&format!(r#"{{"default":[{requirement}]}}"#));
            let good = signature("/a", image.digest(), "h.io/a:v1", "-", "-");
            let verdict = ask(&policy, "h.io/a:v1", &image, &[good]);
            assert_eq!(verdict.admitted, met, "{requirement}");
            assert_eq!(verdict.matched, Matched::Default);
            let refusal = verdict.requirements[0].refusal.as_ref();
            assert_eq!(refusal.map(|refusal| refusal.reason), reason);
            assert_eq!(verdict.holds_until, None);
        }
    }

    #[test]
    fn one_signature_that_counts_is_enough() {
        let (image, other) = (manifest("1"), manifest("2"));
        let policy = policy(SIGNED);
        let digest = image.digest();
        let signatures = [
            signature("/a", other.digest(), "h.io/a:v1", "-", "-"),
            signature("/c", digest, "h.io/a:v1", "-", "-"),
            signature("/a", digest, "h.io/a:v2", "-", "-"),
            signature("/a", digest, "h.io/a:v1", "-", "900"),
            signature("/a", digest, "-", "-", "-"),
            FoundSignature {
                blob: SignatureBlob {
                    format: "junk".into(),
                    bytes: Bytes::from_static(b"junk"),
                },
                place: "nowhere".into(),
            },
        ];
        let verdict = ask(&policy, "h.io/a:v1", &image, &signatures);
        assert!(!verdict.admitted);
        assert_eq!(
            reasons(&verdict),
            [
                Some(Reason::OtherDigest),
                Some(Reason::UnknownKey),
                Some(Reason::OtherIdentity),
                Some(Reason::Expired),
                Some(Reason::OtherIdentity),
                Some(Reason::Malformed),
            ]
        );
        assert!(!ask(&policy, "h.io/a:v1", &image, &[]).admitted);
        let good = signature("/b", digest, "h.io/a:v1", "-", "-");
        let verdict = ask(
            &policy,
            "h.io/a:v1",
            &image,
            &[&signatures[..], &[good]].concat(),
        );
        assert!(verdict.admitted);
        assert_eq!(verdict.matched, Matched::Scope("h.io".into()));
        assert_eq!(
            verdict.candidates,
            ["h.io/a:v1", "h.io/a", "h.io", "*.io", ""]
        );
        let counted: Vec<&Counted> = verdict.requirements[0].counted().collect();
        assert_eq!(counted.len(), 1);
        assert_eq!(counted[0].signer.id, "/b");
        assert_eq!(counted[0].about, About::Manifest);
    }

    #[test]
    fn all_requirements_must_be_met() {
        let image = manifest("1");
        let policy = policy(
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"},
                           {"type":"signedBy","keyType":"GPGKeys","keyPath":"/b"}]}"#,
        );
        let by = |signer| signature(signer, image.digest(), "h.io/a:v1", "-", "-");
        for (signatures, admitted) in [
            (vec![], false),
            (vec![by("/a")], false),
            (vec![by("/b")], false),
            (vec![by("/a"), by("/a")], false),
            (vec![by("/b"), by("/a")], true),
        ] {
            let verdict = ask(&policy, "h.io/a:v1", &image, &signatures);
            assert_eq!(verdict.admitted, admitted, "{signatures:?}");
        }
    }

    #[test]
    fn an_admission_holds_until_the_first_requirement_would_fail() {
        let image = manifest("1");
        let policy = policy(
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"},
                           {"type":"signedBy","keyType":"GPGKeys","keyPaths":["/b","/c"]}]}"#,
        );
        let by = |signer, expires| signature(signer, image.digest(), "h.io/a:v1", "-", expires);
        for (signatures, until) in [
            (vec![by("/a", "-"), by("/b", "-")], None),
            (vec![by("/a", "2000"), by("/b", "-")], Some(2000)),
            (vec![by("/a", "2000"), by("/b", "1500")], Some(1500)),
            (
                vec![by("/a", "2000"), by("/b", "1500"), by("/c", "1800")],
                Some(1800),
            ),
            (
                vec![by("/a", "2000"), by("/b", "1500"), by("/c", "-")],
                Some(2000),
            ),
        ] {
            let verdict = ask(&policy, "h.io/a:v1", &image, &signatures);
            assert!(verdict.admitted);
            assert_eq!(verdict.holds_until, until.map(at));
        }
    }

    #[test]
    fn a_signed_index_signs_what_it_lists() {
        let (image, other) = (manifest("1"), manifest("2"));
        let policy = policy(SIGNED);
        let subject = Subject::docker(&Reference::parse_normalized("h.io/a:v1").unwrap());
        let admitted = |chosen_from: Option<&ManifestBytes>, signed: &ManifestBytes| {
            let signatures = [signature("/a", signed.digest(), "h.io/a:v1", "-", "-")];
            let question = Question {
                subject: &subject,
                manifest: &image,
                chosen_from,
                signatures: &signatures,
                now: at(1000),
                circumstances: Circumstances::default(),
            };
            let verdict = evaluate(&policy, &Extra::default(), &question);
            let about = verdict.requirements[0].counted().next().map(|c| c.about);
            assert_eq!(verdict.admitted, about.is_some());
            about
        };
        let (listing, not_listing) = (index_of(&[&other, &image]), index_of(&[&other]));
        assert_eq!(admitted(Some(&listing), &listing), Some(About::Index));
        assert_eq!(admitted(Some(&listing), &image), Some(About::Manifest));
        assert_eq!(admitted(Some(&listing), &other), None);
        assert_eq!(admitted(Some(&not_listing), &not_listing), None);
        // An index that is none lists nothing.
        assert_eq!(admitted(Some(&other), &other), None);
        assert_eq!(admitted(None, &listing), None);
    }

    #[test]
    fn a_digest_of_another_algorithm_is_compared_by_the_bytes() {
        let (image, other) = (manifest("1"), manifest("2"));
        let policy = policy(SIGNED);
        for (bytes, admitted) in [(image.bytes(), true), (other.bytes(), false)] {
            let digest = Digest::of(Algorithm::Sha512, bytes);
            let signatures = [signature("/a", &digest, "h.io/a:v1", "-", "-")];
            let verdict = ask(&policy, "h.io/a:v1", &image, &signatures);
            assert_eq!(verdict.admitted, admitted);
        }
    }

    #[test]
    fn a_signature_without_a_name_counts_only_where_configured() {
        let image = manifest("1");
        let signatures = [signature("/a", image.digest(), "-", "-", "-")];
        for (scopes, admitted) in [
            (vec![], false),
            (vec!["h.io/other"], false),
            (vec!["h.io/a"], true),
            (vec!["h.io"], true),
            (vec!["*.io"], true),
        ] {
            let scopes = scopes.into_iter().map(ToOwned::to_owned).collect();
            let policy = policy(SIGNED).with_unnamed_bundles(scopes);
            let verdict = ask(&policy, "h.io/a:v1", &image, &signatures);
            assert_eq!(verdict.admitted, admitted, "{policy:?}");
        }
    }

    #[test]
    fn times_are_seconds_on_both_sides_of_the_epoch() {
        let json = |time| unix_s(&time, serde_json::value::Serializer).unwrap();
        let before = UNIX_EPOCH - Duration::from_secs(90);
        assert_eq!(json(Some(before)), -90);
        assert_eq!(json(Some(at(90))), 90);
        assert!(json(None).is_null());
    }

    #[test]
    fn a_verdict_is_plain_data() {
        let image = manifest("1");
        let signatures = [
            signature("/a", image.digest(), "h.io/a:v1", "500", "2000"),
            signature("/c", image.digest(), "h.io/a:v1", "-", "-"),
        ];
        let verdict = ask(&policy(SIGNED), "h.io/a:v1", &image, &signatures);
        let json = serde_json::to_value(&verdict).unwrap();
        let digest = image.digest().to_string();
        assert_eq!(
            json,
            serde_json::json!({
                "admitted": true,
                "transport": "docker",
                "candidates": ["h.io/a:v1", "h.io/a", "h.io", "*.io", ""],
                "matched": {"scope": "h.io"},
                "requirements": [{
                    "requirement": "signedBy",
                    "identity": "matchRepoDigestOrExact",
                    "met": true,
                    "signatures": [
                        {"place": "memory of /a", "counts": {
                            "signer": {"id": "/a"},
                            "claim": {"manifest_digest": digest, "docker_reference": "h.io/a:v1",
                                      "creator": null, "timestamp_s": null},
                            "about": "manifest", "made": 500, "expires": 2000}},
                        {"place": "memory of /c", "refused": {"reason": "unknown-key", "message": "/c"}},
                    ],
                }],
                "record": {"manifest_digest": digest, "made": 500},
                "holds_until": 2000,
            })
        );
    }
}
