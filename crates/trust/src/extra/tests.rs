// SPDX-License-Identifier: Apache-2.0
//! Each condition alone, and that all together only tighten.

use std::path::PathBuf;

use gantry_image::ManifestBytes;
use gantry_oci::{Limits, ManifestDigest, Reference};
use proptest::prelude::*;

use super::*;
use crate::evaluate::tests::{Believing, at, index_of, manifest, policy, signature};
use crate::evaluate::{FoundSignature, Outcome, Question, Verdict, evaluate};

/// The rules of these texts, in files of one directory.
pub(crate) fn rules(texts: &[&str]) -> Result<Extra, LoadExtraError> {
    let dir = tempfile::tempdir().unwrap();
    for (number, text) in texts.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{number:02}.toml")), text).unwrap();
    }
    std::fs::write(dir.path().join("README"), "not read").unwrap();
    std::fs::write(
        dir.path().join("reject.json"),
        r#"{"default":[{"type":"reject"}]}"#,
    )
    .unwrap();
    std::fs::write(
        dir.path().join("accept.json"),
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    let dirs = [dir.path().join("absent"), dir.path().to_owned()];
    load_dirs(&dirs, &Believing, &Limits::DEFAULT)
}

const SIGNED: &str =
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/a","/b"]}]}"#;
const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

struct Ask<'a> {
    policy: &'a str,
    reference: &'a str,
    circumstances: Circumstances<'a>,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            policy: SIGNED,
            reference: "h.io/a:v1",
            circumstances: Circumstances::default(),
        }
    }
}

impl Ask<'_> {
    fn verdict(
        &self,
        extra: &Extra,
        image: &ManifestBytes,
        signatures: &[FoundSignature],
    ) -> Verdict {
        let subject = Subject::docker(&Reference::parse_normalized(self.reference).unwrap());
        let question = Question {
            subject: &subject,
            manifest: image,
            chosen_from: None,
            signatures,
            now: at(1000),
            circumstances: self.circumstances,
        };
        evaluate(&policy(self.policy), extra, &question)
    }
}

#[test]
fn so_many_different_signers() {
    let image = manifest("1");
    let two = r#"[[rule]]
        signers = { at-least = 2, keys = ["/a", "/b"], sigstore-keys = ["/c"] }"#;
    let extra = rules(&[two]).unwrap();
    let by = |signer, expires| signature(signer, image.digest(), "h.io/a:v1", "-", expires);
    for (signatures, admitted, until) in [
        (vec![by("/a", "-")], false, None),
        (vec![by("/a", "-"), by("/a", "2000")], false, None),
        (vec![by("/a", "-"), by("/b", "-")], true, None),
        (vec![by("/a", "-"), by("/c", "2000")], true, Some(2000)),
        (vec![by("/a", "1500"), by("/c", "2000")], true, Some(1500)),
        (
            vec![by("/a", "1500"), by("/b", "1800"), by("/c", "2000")],
            true,
            Some(1800),
        ),
        (vec![by("/c", "-"), by("/d", "-")], false, None),
    ] {
        let verdict = Ask::default().verdict(&extra, &image, &signatures);
        assert_eq!(verdict.admitted, admitted, "{signatures:?}");
        if admitted {
            assert_eq!(verdict.holds_until, until.map(at), "{signatures:?}");
        }
    }
    let unmet = r#"[[rule]]
        signers = { at-least = 1, keys = ["/a", "/missing"] }"#;
    let verdict = Ask::default().verdict(&rules(&[unmet]).unwrap(), &image, &[by("/a", "-")]);
    assert!(!verdict.admitted);
    let refusal = verdict.conditions[0].refusal.as_ref().unwrap();
    assert_eq!(refusal.reason, Reason::NoKeys);
}

#[test]
fn signers_sign_the_image_by_its_name() {
    let image = manifest("1");
    let rule =
        |identity| format!("[[rule]]\nsigners = {{ at-least = 1, keys = [\"/z\"]{identity} }}");
    let signatures = [
        signature("/a", image.digest(), "h.io/a:v1", "-", "-"),
        signature("/z", image.digest(), "h.io/a:v2", "-", "-"),
        signature("/z", manifest("2").digest(), "h.io/a:v1", "-", "-"),
    ];
    for (identity, admitted) in [
        ("", false),
        (r#", signed-identity = { type = "matchRepository" }"#, true),
    ] {
        let extra = rules(&[&rule(identity)]).unwrap();
        let verdict = Ask::default().verdict(&extra, &image, &signatures);
        assert_eq!(verdict.admitted, admitted);
    }
}

#[test]
fn age_of_signatures() {
    let image = manifest("1");
    for (rule, made, admitted, until) in [
        ("max-age = \"100s\"", "950", true, Some(1050)),
        ("max-age = \"100s\"", "900", false, None),
        ("max-age = \"100s\"", "-", false, None),
        ("not-before = 1970-01-01T00:15:00Z", "900", true, None),
        ("not-before = 1970-01-01T00:15:00Z", "899", false, None),
        ("not-before = 1970-01-01T00:15:00Z", "-", false, None),
        (
            "not-before = 1970-01-01T00:15:00Z\nmax-age = \"1d\"",
            "900",
            true,
            Some(87300),
        ),
    ] {
        let extra = rules(&[&format!("[[rule]]\n{rule}")]).unwrap();
        let by = |expires| [signature("/a", image.digest(), "h.io/a:v1", made, expires)];
        let verdict = Ask::default().verdict(&extra, &image, &by("-"));
        assert_eq!(verdict.admitted, admitted, "{rule} {made}");
        if admitted {
            assert_eq!(verdict.holds_until, until.map(at));
            let verdict = Ask::default().verdict(&extra, &image, &by("1001"));
            assert_eq!(verdict.holds_until, Some(at(1001)));
        }
        // Where the policy asks for no signature, one is needed all the same.
        let accept = Ask {
            policy: ACCEPT,
            ..Ask::default()
        };
        assert!(!accept.verdict(&extra, &image, &by("-")).admitted);
        let signed = format!("[[rule]]\n{rule}\nsigners = {{ at-least = 1, keys = [\"/a\"] }}");
        let verdict = accept.verdict(&rules(&[&signed]).unwrap(), &image, &by("-"));
        assert_eq!(verdict.admitted, admitted, "{signed} {made}");
    }
}

#[test]
fn revoked_keys_and_digests() {
    let image = manifest("1");
    let key = "0123456789ABCDEF0123456789ABCDEF01234567";
    let text = r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/a"]}]}"#;
    let ask = Ask {
        policy: &text.replace("/a", key),
        ..Ask::default()
    };
    let good = [signature(key, image.digest(), "h.io/a:v1", "-", "-")];
    assert!(ask.verdict(&Extra::default(), &image, &good).admitted);
    let revoked = format!("[revoked]\nkeys = [\"{}\"]", key.to_lowercase());
    let verdict = ask.verdict(&rules(&[&revoked]).unwrap(), &image, &good);
    assert!(!verdict.admitted);
    let Outcome::Refused(refusal) = &verdict.requirements[0].signatures[0].outcome else {
        panic!("{verdict:?}");
    };
    assert_eq!(refusal.reason, Reason::Revoked);

    let config = image.as_manifest().unwrap().config.digest;
    let other = gantry_oci::Digest::of(gantry_oci::Algorithm::Sha512, image.bytes());
    for digest in [*image.digest().digest(), config, other] {
        let extra = rules(&[&format!("[revoked]\ndigests = [\"{digest}\"]")]).unwrap();
        let verdict = ask.verdict(&extra, &image, &good);
        assert!(!verdict.admitted, "{digest}");
        assert_eq!(verdict.conditions[0].condition, "revoked");
        let accept = Ask {
            policy: ACCEPT,
            ..Ask::default()
        };
        assert!(!accept.verdict(&extra, &image, &[]).admitted);
    }
    let unrelated = format!("[revoked]\ndigests = [\"{}\"]", manifest("2").digest());
    assert!(
        ask.verdict(&rules(&[&unrelated]).unwrap(), &image, &good)
            .admitted
    );
}

#[test]
fn no_step_back() {
    let (image, newer) = (manifest("1"), manifest("2"));
    let extra = rules(&["[[rule]]\nmonotonic = true"]).unwrap();
    let made = |time| [signature("/a", image.digest(), "h.io/a:v1", time, "-")];
    let last = |manifest: &ManifestBytes, made| {
        Last::Image(Record {
            manifest_digest: *manifest.digest(),
            made: Some(at(made)),
        })
    };
    for (last, time, admitted) in [
        (Last::Nothing, "500", true),
        (Last::Nothing, "-", false),
        (Last::Unknown, "500", false),
        (last(&newer, 600), "500", false),
        (last(&newer, 500), "500", true),
        (last(&newer, 400), "500", true),
        (last(&image, 600), "500", true),
    ] {
        let ask = Ask {
            circumstances: Circumstances {
                last,
                ..Circumstances::default()
            },
            ..Ask::default()
        };
        let verdict = ask.verdict(&extra, &image, &made(time));
        assert_eq!(verdict.admitted, admitted, "{last:?} {time}");
        if admitted {
            assert_eq!(verdict.record.made, Some(at(500)));
        }
        // By digest there is no stepping back: one gets what one asks for.
        let by_digest = Ask {
            reference: &format!("h.io/a@{}", image.digest()),
            ..ask
        };
        assert!(by_digest.verdict(&extra, &image, &made("500")).admitted);
    }
}

#[test]
fn a_scan_that_nobody_made_is_as_bad_as_any() {
    let image = manifest("1");
    let extra = rules(&["[[rule]]\nmax-severity = \"medium\""]).unwrap();
    for (scan, admitted) in [
        (None, false),
        (Some(Severity::None), true),
        (Some(Severity::Medium), true),
        (Some(Severity::High), false),
    ] {
        let ask = Ask {
            policy: ACCEPT,
            circumstances: Circumstances {
                scan,
                ..Circumstances::default()
            },
            ..Ask::default()
        };
        let verdict = ask.verdict(&extra, &image, &[]);
        assert_eq!(verdict.admitted, admitted, "{scan:?}");
    }
}

#[test]
fn an_attestation_must_be_of_the_type_by_the_key_about_the_image() {
    let image = manifest("1");
    let rule = "[[rule]]\n[[rule.attestation]]\npredicate-type = \"slsa\"\nkeys = [\"/k\"]";
    let ask = Ask {
        policy: ACCEPT,
        ..Ask::default()
    };
    let by = |signer, digest: &ManifestDigest, predicate| {
        signature(signer, digest, predicate, "attests", "-")
    };
    let mut junk = by("/k", image.digest(), "slsa");
    junk.blob.bytes = "junk".into();
    for (found, admitted) in [
        (by("/k", image.digest(), "slsa"), true),
        (by("/k", image.digest(), "vuln"), false),
        (by("/other", image.digest(), "slsa"), false),
        (by("/k", manifest("2").digest(), "slsa"), false),
        (junk.clone(), false),
        (signature("/k", image.digest(), "slsa", "-", "-"), false),
    ] {
        let verdict = ask.verdict(
            &rules(&[rule]).unwrap(),
            &image,
            std::slice::from_ref(&found),
        );
        assert_eq!(verdict.admitted, admitted, "{found:?}");
    }
    assert!(!ask.verdict(&rules(&[rule]).unwrap(), &image, &[]).admitted);
    // Said of the index, it is said of what that lists and of nothing else.
    let (listing, other) = (index_of(&[&image]), index_of(&[&manifest("2")]));
    for (index, admitted) in [(&listing, true), (&other, false)] {
        let subject = Subject::docker(&Reference::parse_normalized(ask.reference).unwrap());
        let question = Question {
            subject: &subject,
            manifest: &image,
            chosen_from: Some(index),
            signatures: &[by("/k", index.digest(), "slsa")],
            now: at(1000),
            circumstances: Circumstances::default(),
        };
        let verdict = evaluate(&policy(ACCEPT), &rules(&[rule]).unwrap(), &question);
        assert_eq!(verdict.admitted, admitted);
    }
    let missing = rule.replace("/k", "/missing");
    let good = by("/k", image.digest(), "slsa");
    assert!(
        !ask.verdict(&rules(&[&missing]).unwrap(), &image, &[good])
            .admitted
    );
}

#[test]
fn every_rule_whose_scope_matches_holds() {
    let image = manifest("1");
    let refuse = |scope: &str| format!("[[rule]]\nscope = \"{scope}\"\nmax-severity = \"none\"\n");
    let accept = Ask {
        policy: ACCEPT,
        ..Ask::default()
    };
    for (scope, admitted) in [
        ("", false),
        ("h.io", false),
        ("h.io/a", false),
        ("h.io/a:v1", false),
        ("*.io", false),
        ("h.io/b", true),
        ("h", true),
    ] {
        let extra = rules(&["", &refuse(scope)]).unwrap();
        let verdict = accept.verdict(&extra, &image, &[]);
        assert_eq!(verdict.admitted, admitted, "{scope}");
    }
    let other = rules(&["[[rule]]\ntransport = \"oci\"\nmax-severity = \"none\""]).unwrap();
    assert!(accept.verdict(&other, &image, &[]).admitted);
}

#[test]
fn a_namespace_has_a_policy_beside_the_common_one() {
    let image = manifest("1");
    let extra = rules(&[
        "[namespace.strict]\npolicy = \"reject.json\"\n[namespace.lax]\npolicy = \"accept.json\"",
        "[namespace.broken]\npolicy = \"absent.json\"",
    ])
    .unwrap();
    for (policy, namespace, admitted) in [
        (ACCEPT, None, true),
        (ACCEPT, Some("lax"), true),
        (ACCEPT, Some("strict"), false),
        (ACCEPT, Some("broken"), false),
        (ACCEPT, Some("unknown"), true),
        (ACCEPT, Some("../strict"), true),
        (SIGNED, Some("lax"), false),
    ] {
        let ask = Ask {
            policy,
            circumstances: Circumstances {
                namespace,
                ..Circumstances::default()
            },
            ..Ask::default()
        };
        let verdict = ask.verdict(&extra, &image, &[]);
        assert_eq!(verdict.admitted, admitted, "{namespace:?}");
    }
    let twice = "[namespace.a]\npolicy = \"accept.json\"";
    assert!(rules(&[twice, twice]).is_err());
}

#[test]
fn a_file_that_cannot_be_used_spoils_all() {
    use std::os::unix::fs::PermissionsExt as _;
    assert!(matches!(
        rules(&["", "x = 1"]),
        Err(LoadExtraError::File { .. })
    ));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    let load = || load_dirs(&[dir.path().to_owned()], &Believing, &Limits::DEFAULT);
    std::fs::write(&file, b"\xff").unwrap();
    assert!(load().is_err());
    std::fs::write(&file, "").unwrap();
    let empty = load().unwrap().digest;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load().is_err());
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(matches!(load(), Err(LoadExtraError::Read { .. })));
    let not_a_dir: PathBuf = "/dev/null".into();
    assert!(load_dirs(&[not_a_dir], &Believing, &Limits::DEFAULT).is_err());
    assert_ne!(rules(&["[[rule]]"]).unwrap().digest, empty);
}

fn rule_text() -> impl Strategy<Value = String> {
    let scope = prop::sample::select(vec!["", "h.io", "h.io/a", "other.io", "*.io"]);
    let lines = prop::sample::subsequence(
        vec![
            "signers = { at-least = 1, keys = [\"/a\"] }",
            "not-before = 1970-01-01T00:08:00Z",
            "max-age = \"600s\"",
            "monotonic = true",
            "max-severity = \"medium\"",
        ],
        0..=5,
    );
    (scope, lines)
        .prop_map(|(scope, lines)| format!("[[rule]]\nscope = \"{scope}\"\n{}\n", lines.join("\n")))
}

fn found() -> impl Strategy<Value = FoundSignature> {
    let word = |words: &[&'static str]| prop::sample::select(words.to_vec());
    let image = prop::sample::select(vec!["1", "2"]);
    (
        word(&["/a", "/b", "/c"]),
        image,
        word(&["h.io/a:v1", "h.io/a:v2", "-"]),
        word(&["-", "100", "450", "900"]),
        word(&["-", "999", "2000"]),
    )
        .prop_map(|(signer, image, reference, made, expires)| {
            signature(signer, manifest(image).digest(), reference, made, expires)
        })
}

proptest! {
    /// Whatever rules there are: what is admitted with them is admitted without.
    #[test]
    fn rules_only_tighten(
        texts in prop::collection::vec(rule_text(), 0..4),
        signatures in prop::collection::vec(found(), 0..4),
        base in prop::sample::select(vec![SIGNED, ACCEPT, r#"{"default":[{"type":"reject"}]}"#]),
        scan in prop::option::of(prop::sample::select(vec![Severity::Low, Severity::High])),
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let extra = rules(&texts).unwrap();
        let image = manifest("1");
        let circumstances = Circumstances { scan, ..Circumstances::default() };
        let ask = Ask { policy: base, circumstances, ..Ask::default() };
        let with = ask.verdict(&extra, &image, &signatures);
        let without = ask.verdict(&Extra::default(), &image, &signatures);
        prop_assert!(!with.admitted || without.admitted);
        if let (true, Some(end)) = (with.admitted, without.holds_until) {
            prop_assert!(with.holds_until.is_some_and(|until| until <= end));
        }
    }
}
