// SPDX-License-Identifier: Apache-2.0
//! Every bypass case of the corpus against the library: refused, and for its own reason.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use gantry_image::{ManifestBytes, SignatureBlob, UnverifiedManifest};
use gantry_oci::{Limits, Reference};
use gantry_testkit::corpus::bypass::{Because, Maker, Scene, Scenes};
use gantry_testkit::skip;
use gantry_trust::evaluate::Outcome;
use gantry_trust::extra::{self, Circumstances};
use gantry_trust::policy::PolicyPlaces;
use gantry_trust::prepared::Real;
use gantry_trust::{Authority, Denied, FoundSignature, NoMemory, Question, Subject, Verdict};

const LIMITS: Limits = Limits::DEFAULT;

/// What the library makes of a scene.
enum Judged {
    Admitted,
    Denied(Box<Denied>),
    /// Policy or rules cannot be used; what they say.
    Nothing(String),
}

fn manifest(maker: &Maker) -> ManifestBytes {
    let bytes = Bytes::from(maker.image().manifest.clone());
    let manifest = UnverifiedManifest::new(bytes, None, None);
    manifest.verify(None, &LIMITS).unwrap()
}

fn judge(scene: &Scene, manifest: &ManifestBytes, dir: &Path) -> Judged {
    scene.write(dir).unwrap();
    let places = PolicyPlaces {
        explicit: Some(dir.join("policy.json")),
        ..PolicyPlaces::default()
    };
    let policy = match places.load(&LIMITS) {
        Ok((_, policy)) => policy.load_keys(&LIMITS),
        Err(error) => return Judged::Nothing(sentence(&error)),
    };
    let rules = [dir.join(Scene::RULES)];
    let extra = match extra::load_dirs(&rules, &Real { limits: LIMITS }, &LIMITS) {
        Ok(extra) => extra,
        Err(error) => return Judged::Nothing(sentence(&error)),
    };
    let signatures: Vec<FoundSignature> = scene
        .signatures
        .iter()
        .map(|stored| FoundSignature {
            blob: SignatureBlob {
                format: "stored".into(),
                bytes: stored.clone().into(),
            },
            place: "the scene".into(),
        })
        .collect();
    let question = Question {
        subject: &Subject::docker(&Reference::parse_normalized(&scene.asked).unwrap()),
        manifest,
        chosen_from: None,
        signatures: &signatures,
        now: SystemTime::now(),
        circumstances: Circumstances::default(),
    };
    match Authority::new(policy, extra).admit(&question, &NoMemory) {
        Ok(admitted) => {
            assert_eq!(admitted.manifest_digest(), manifest.digest());
            Judged::Admitted
        }
        Err(denied) => Judged::Denied(Box::new(denied)),
    }
}

fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// What is wrong with a verdict, if it is another than expected.
fn differs(because: Because, judged: &Judged) -> Option<String> {
    let denied = match (because, judged) {
        (_, Judged::Admitted) => return Some("ADMITTED".into()),
        (Because::Nothing(words), Judged::Nothing(said)) if said.contains(words) => return None,
        (_, Judged::Nothing(said)) => return Some(said.clone()),
        (_, Judged::Denied(denied)) => denied,
    };
    (!fits(because, &denied.verdict)).then(|| format!("{denied}\n{:#?}", denied.verdict))
}

fn fits(because: Because, verdict: &Verdict) -> bool {
    let mut unmet = verdict.requirements.iter().filter(|one| !one.met);
    match because {
        Because::Nothing(_) => false,
        Because::Unsigned => unmet.any(|one| one.refusal.is_none() && one.signatures.is_empty()),
        Because::Requirement(word) => unmet.any(|one| {
            let refusal = one.refusal.as_ref();
            refusal.is_some_and(|refusal| refusal.reason.as_str() == word)
        }),
        Because::Signature(words) => {
            let by_age = verdict.conditions.iter().filter(|one| !one.met);
            unmet
                .flat_map(|one| &one.signatures)
                .filter_map(|signature| match &signature.outcome {
                    Outcome::Refused(refusal) => Some(refusal),
                    Outcome::Counts(_) => None,
                })
                .chain(by_age.filter_map(|one| one.refusal.as_ref()))
                .any(|refusal| words.contains(&refusal.reason.as_str()))
        }
        Because::Condition(name) => {
            let mut conditions = verdict.conditions.iter();
            unmet.next().is_none() && conditions.any(|one| !one.met && one.condition == name)
        }
    }
}

#[test]
fn each_case_is_refused_for_its_own_reason_and_each_family_is_admitted() {
    let Some(mut maker) = Maker::new("127.0.0.1:5000").unwrap() else {
        skip!("gpg or openssl is not installed");
    };
    let (dir, image) = (tempfile::tempdir().unwrap(), manifest(&maker));
    let scenes = Scenes::new(&mut maker).unwrap();
    let mut wrong = Vec::new();
    for (family, scene) in &scenes.families {
        match judge(scene, &image, &dir.path().join(format!("{family:?}"))) {
            Judged::Admitted => {}
            Judged::Denied(denied) => wrong.push(format!("{family:?}: {denied}")),
            Judged::Nothing(said) => wrong.push(format!("{family:?}: {said}")),
        }
    }
    for (case, scene) in &scenes.attacks {
        let judged = judge(scene, &image, &dir.path().join(case.id));
        if let Some(what) = differs(case.because, &judged) {
            wrong.push(format!("{} ({}): {what}", case.id, case.what));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
