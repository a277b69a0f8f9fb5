// SPDX-License-Identifier: Apache-2.0
//! Policy and rules as one plain policy.json: the floor below which no reader of the family goes.
//!
//! All that Gantry admits the floor admits, and it refuses as much of the rest
//! as the format has words for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Extra, Rule, Signers};
use crate::identity::SignedIdentity;
use crate::policy::{
    KeyType, Policy, Requirement, Scopes, SignedBy, SigstoreSigned, SigstoreSigners, Source,
};
use crate::scope;

/// A plain policy, and what it could not say.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The policy.
    pub policy: Floor,
    /// What the format has no words for, a sentence each.
    pub lost: BTreeSet<String>,
}

/// The document.
#[derive(Debug, Clone, Serialize)]
pub struct Floor {
    default: Vec<Requirement>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    transports: BTreeMap<String, Scopes>,
}

/// Renders policy and rules as one policy.
#[must_use]
pub fn render(policy: &Policy, extra: &Extra) -> Rendered {
    let mut lost = BTreeSet::new();
    let mut scopes: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (transport, of_transport) in policy.transports() {
        scopes.extend(of_transport.keys().map(|scope| (&**transport, &**scope)));
    }
    let of_rules = extra.rules.iter();
    scopes.extend(of_rules.map(|rule| (&*rule.transport, &*rule.scope)));

    let mut transports: BTreeMap<String, Scopes> = BTreeMap::new();
    for (transport, scope) in scopes {
        let wider = scope::wider(transport, scope);
        let own = policy.transports().get(transport);
        let base = wider.iter().find_map(|scope| own?.get(scope));
        let base = base.map_or(policy.default_requirements(), Vec::as_slice);
        let mut requirements = base.to_vec();
        for rule in &extra.rules {
            if rule.transport == transport && wider.contains(&rule.scope) {
                requirements.extend(rule.floor(&mut lost));
            }
        }
        let of_transport = transports.entry(transport.to_owned()).or_default();
        of_transport.insert(scope.to_owned(), requirements);
    }
    reject_revoked(extra, &mut transports, &mut lost);
    if !extra.revoked_keys.is_empty() {
        lost.insert("revoked keys are to be taken out of the key files".into());
    }
    if !extra.namespaces.is_empty() {
        lost.insert("policies of namespaces are left out".into());
    }
    Rendered {
        policy: Floor {
            default: policy.default_requirements().to_vec(),
            transports,
        },
        lost,
    }
}

/// A digest can be rejected together with a repository's name only.
fn reject_revoked(
    extra: &Extra,
    transports: &mut BTreeMap<String, Scopes>,
    lost: &mut BTreeSet<String>,
) {
    if extra.revoked_digests.is_empty() {
        return;
    }
    lost.insert(
        "revoked digests are rejected by digest in the repositories named, and not by tag".into(),
    );
    let Some(docker) = transports.get_mut("docker") else {
        return;
    };
    let named: Vec<String> = docker
        .keys()
        .filter(|scope| scope::is_name(scope))
        .cloned()
        .collect();
    for name in named {
        for digest in &extra.revoked_digests {
            docker.insert(format!("{name}@{digest}"), vec![Requirement::Reject]);
        }
    }
}

impl Rule {
    /// What policy.json can say of the rule.
    fn floor(&self, lost: &mut BTreeSet<String>) -> Vec<Requirement> {
        let file = self.file.display();
        for (name, asked) in [
            ("not-before", self.not_before.is_some()),
            ("max-age", self.max_age.is_some()),
            ("monotonic", self.monotonic),
            ("attestation", !self.attestations.is_empty()),
            ("max-severity", self.max_severity.is_some()),
        ] {
            if asked {
                lost.insert(format!("{name} of {file} is left out"));
            }
        }
        let Some(signers) = &self.signers else {
            return Vec::new();
        };
        let (requirements, exact) = signers.floor();
        if !exact {
            lost.insert(format!("signers of {file} are fewer than asked for"));
        }
        requirements
    }
}

impl Signers {
    /// So many of one kind must have signed even if all of the other kind did.
    fn floor(&self) -> (Vec<Requirement>, bool) {
        let (openpgp, sigstore) = (&self.rule.keys, &self.rule.sigstore_keys);
        let kinds = [
            (
                openpgp,
                sigstore.len(),
                simple as fn(Source, SignedIdentity) -> Requirement,
            ),
            (sigstore, openpgp.len(), sigstore_signed),
        ];
        let one_key_each = self.prepared().one_key_each;
        let mut requirements = Vec::new();
        for (files, others, make) in kinds {
            let needed = self.rule.at_least.saturating_sub(others);
            if needed == 0 || files.is_empty() || !one_key_each {
                // With several keys in a file the other kind may be enough, whatever the count of files.
                if others == 0 && !files.is_empty() {
                    requirements.push(make(Source::Files(files.clone()), self.identity.clone()));
                }
                continue;
            }
            if needed == files.len() {
                let each = files.iter().map(|file| Source::Files(vec![file.clone()]));
                requirements.extend(each.map(|source| make(source, self.identity.clone())));
            } else {
                requirements.push(make(Source::Files(files.clone()), self.identity.clone()));
            }
        }
        let all = openpgp.len() + sigstore.len();
        let exact = self.rule.at_least == all && one_key_each
            || self.rule.at_least == 1 && (openpgp.is_empty() || sigstore.is_empty());
        (requirements, exact)
    }
}

fn simple(keys: Source, identity: SignedIdentity) -> Requirement {
    Requirement::SignedBy(SignedBy {
        key_type: KeyType::GpgKeys,
        keys,
        identity,
    })
}

fn sigstore_signed(keys: Source, identity: SignedIdentity) -> Requirement {
    Requirement::SigstoreSigned(Box::new(SigstoreSigned {
        signers: SigstoreSigners::Keys(keys),
        rekor: None,
        identity,
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gantry_oci::Limits;

    use super::super::tests::rules;
    use super::*;

    fn floor(policy: &str, texts: &[&str]) -> (serde_json::Value, BTreeSet<String>) {
        let policy = Policy::parse(Bytes::from(policy.to_owned()), &Limits::DEFAULT).unwrap();
        let rendered = render(&policy, &rules(texts).unwrap());
        let json = serde_json::to_string(&rendered.policy).unwrap();
        assert!(Policy::parse(Bytes::from(json.clone()), &Limits::DEFAULT).is_ok());
        (serde_json::from_str(&json).unwrap(), rendered.lost)
    }

    #[test]
    fn rules_are_added_where_they_hold() {
        let (json, lost) = floor(
            r#"{"default":[{"type":"reject"}],"transports":{
                "docker":{"h.io":[{"type":"insecureAcceptAnything"}],"h.io/a/b":[{"type":"reject"}],"x.io":[{"type":"reject"}]},
                "dir":{"/srv":[{"type":"reject"}]}}}"#,
            &[r#"[[rule]]
              scope = "h.io/a"
              signers = { at-least = 2, keys = ["/k", "/l"] }
              [[rule]]
              scope = "*.io"
              signers = { at-least = 1, sigstore-keys = ["/s"], signed-identity = { type = "matchRepository" } }"#],
        );
        let accept = serde_json::json!({"type": "insecureAcceptAnything"});
        let reject = serde_json::json!({"type": "reject"});
        let by =
            |key| serde_json::json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": key});
        let sigstore = serde_json::json!({"type": "sigstoreSigned", "keyPath": "/s",
                                          "signedIdentity": {"type": "matchRepository"}});
        assert_eq!(
            json,
            serde_json::json!({
                "default": [reject],
                "transports": {
                    "docker": {
                        "*.io": [reject, sigstore],
                        "h.io": [accept, sigstore],
                        "h.io/a": [accept, by("/k"), by("/l"), sigstore],
                        "h.io/a/b": [reject, by("/k"), by("/l"), sigstore],
                        "x.io": [reject, sigstore],
                    },
                    "dir": {"/srv": [reject]},
                }
            })
        );
        assert_eq!(lost, BTreeSet::new());
    }

    #[test]
    fn what_the_format_cannot_say_is_told() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let text = format!(
            r#"[[rule]]
               scope = "h.io/a"
               max-age = "1d"
               signers = {{ at-least = 2, keys = ["/a", "/b", "/c"] }}
               [revoked]
               keys = ["0123456789abcdef0123456789abcdef01234567"]
               digests = ["{digest}"]"#
        );
        let (json, lost) = floor(r#"{"default":[{"type":"reject"}]}"#, &[&text]);
        let docker = &json["transports"]["docker"];
        assert_eq!(
            docker["h.io/a"][1]["keyPaths"],
            serde_json::json!(["/a", "/b", "/c"])
        );
        assert_eq!(docker[format!("h.io/a@{digest}")][0]["type"], "reject");
        let lost: Vec<String> = lost.into_iter().collect();
        let lost = lost.join("; ");
        for word in ["max-age", "fewer than", "revoked keys", "revoked digests"] {
            assert!(lost.contains(word), "{lost}");
        }
    }

    #[test]
    fn two_kinds_of_keys_ask_for_what_the_other_cannot_give() {
        let signers = |rule: &str| {
            let text = format!("[[rule]]\nsigners = {{ {rule} }}");
            let (json, _) = floor(
                r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
                &[&text],
            );
            let list = json["transports"]["docker"][""].as_array().unwrap().clone();
            list[1..]
                .iter()
                .map(|requirement| {
                    let keys = [&requirement["keyPath"], &requirement["keyPaths"]];
                    let keys = keys.iter().find(|keys| !keys.is_null()).unwrap();
                    format!("{} {keys}", requirement["type"].as_str().unwrap())
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            signers(r#"at-least = 1, keys = ["/a"], sigstore-keys = ["/s"]"#),
            [""; 0]
        );
        assert_eq!(
            signers(r#"at-least = 2, keys = ["/a"], sigstore-keys = ["/s"]"#),
            [r#"signedBy "/a""#, r#"sigstoreSigned "/s""#]
        );
        assert_eq!(
            signers(r#"at-least = 2, keys = ["/a", "/b"], sigstore-keys = ["/s"]"#),
            [r#"signedBy ["/a","/b"]"#]
        );
    }
}
