// SPDX-License-Identifier: Apache-2.0
//! R scopes · A several requirements · U rules of trust.d: what is asked for, and where that stands.

use anyhow::Result;
use serde_json::json;

use super::Because::{Condition, Nothing, Requirement, Signature, Unsigned};
use super::Family::{Accepted, Both, Hub, Ruled, Signed};
use super::scene::{PolicyFile, Scene};
use super::{Because, Case, EXPIRED, REVOKED, UNKNOWN, case};

/// The policy is this text.
fn text(scene: &mut Scene, text: impl Into<Vec<u8>>) -> Result<()> {
    scene.policy = PolicyFile::Text(text.into());
    Ok(())
}

/// The same scope is judged so, and everything else is accepted.
fn scopes(scene: &mut Scene, pairs: &[(&str, &str)]) -> Result<()> {
    let host = scene.host.clone();
    let mut docker = serde_json::Map::new();
    for (scope, verdict) in pairs {
        docker.insert(scope.replace("HOST", &host), json!([{"type": verdict}]));
    }
    let policy = json!({"default": [{"type": ACCEPT}], "transports": {"docker": docker}});
    text(scene, policy.to_string())
}

/// Only this scope is accepted.
fn only(scene: &mut Scene, transport: &str, scope: &str) -> Result<()> {
    let scope = scope.replace("HOST", &scene.host);
    let policy = json!({"default": [{"type": REJECT}],
        "transports": {transport: {scope: [{"type": ACCEPT}]}}});
    text(scene, policy.to_string())
}

const ACCEPT: &str = "insecureAcceptAnything";
const REJECT: &str = "reject";
const NO_RULES: Because = Nothing("10.toml");
const REJECTED: Because = Requirement("rejected");
const FROM_2024_S: u64 = 1_717_200_000;

pub(super) const CASES: &[Case] = &[
    case(
        "R01",
        Accepted,
        "the default rejects",
        REJECTED,
        |_, scene| text(scene, format!(r#"{{"default":[{{"type":"{REJECT}"}}]}}"#)),
    ),
    case(
        "R02",
        Accepted,
        "the transport's default rejects",
        REJECTED,
        |_, scene| scopes(scene, &[("", REJECT)]),
    ),
    case(
        "R03",
        Accepted,
        "a wildcard rejects",
        REJECTED,
        |_, scene| scopes(scene, &[("*.0.0.1", REJECT), ("", ACCEPT), ("*.1", ACCEPT)]),
    ),
    case(
        "R04",
        Accepted,
        "the registry rejects",
        REJECTED,
        |_, scene| {
            scopes(
                scene,
                &[("HOST", REJECT), ("*.0.0.1", ACCEPT), ("", ACCEPT)],
            )
        },
    ),
    case(
        "R05",
        Accepted,
        "the namespace rejects",
        REJECTED,
        |_, scene| {
            scopes(
                scene,
                &[("HOST/team", REJECT), ("HOST", ACCEPT), ("", ACCEPT)],
            )
        },
    ),
    case(
        "R06",
        Accepted,
        "the repository rejects",
        REJECTED,
        |_, scene| {
            scopes(
                scene,
                &[
                    ("HOST/team/app", REJECT),
                    ("HOST/team", ACCEPT),
                    ("HOST", ACCEPT),
                ],
            )
        },
    ),
    case(
        "R07",
        Accepted,
        "the image rejects",
        REJECTED,
        |_, scene| {
            scopes(
                scene,
                &[
                    ("HOST/team/app:v1", REJECT),
                    ("HOST/team/app", ACCEPT),
                    ("HOST/team", ACCEPT),
                ],
            )
        },
    ),
    case(
        "R08",
        Accepted,
        "a part of a component is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "HOST/te"),
    ),
    case(
        "R09",
        Accepted,
        "a part of the repository is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "HOST/team/ap"),
    ),
    case(
        "R10",
        Accepted,
        "another tag is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "HOST/team/app:v2"),
    ),
    case(
        "R11",
        Accepted,
        "a part of the tag is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "HOST/team/app:v"),
    ),
    case(
        "R12",
        Accepted,
        "the registry without its port is accepted",
        REJECTED,
        |_, scene| {
            let host = scene.host.split(':').next().unwrap_or_default().to_owned();
            only(scene, "docker", &host)
        },
    ),
    case(
        "R13",
        Accepted,
        "the registry with another port is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "127.0.0.1:1"),
    ),
    case(
        "R14",
        Accepted,
        "another transport is accepted",
        REJECTED,
        |_, scene| only(scene, "atomic", "HOST"),
    ),
    case(
        "R15",
        Accepted,
        "a daemon's images are accepted",
        REJECTED,
        |_, scene| only(scene, "docker-daemon", ""),
    ),
    case(
        "R16",
        Accepted,
        "a store's images are accepted",
        REJECTED,
        |_, scene| only(scene, "containers-storage", ""),
    ),
    case(
        "R17",
        Accepted,
        "local images are accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "localhost"),
    ),
    case(
        "R18",
        Accepted,
        "the name without its registry is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "team/app"),
    ),
    case(
        "R19",
        Accepted,
        "a scope with a slash behind it",
        REJECTED,
        |_, scene| only(scene, "docker", "HOST/"),
    ),
    case(
        "R20",
        Accepted,
        "a wildcard behind the registry",
        REJECTED,
        |_, scene| only(scene, "docker", "HOST/*"),
    ),
    case(
        "R21",
        Accepted,
        "another wildcard is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "*.0.2"),
    ),
    case(
        "R22",
        Hub,
        "the short name is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "app"),
    ),
    case(
        "R23",
        Hub,
        "the hub's other name is accepted",
        REJECTED,
        |_, scene| only(scene, "docker", "index.docker.io"),
    ),
    case(
        "R24",
        Hub,
        "a wildcard of the hub's own name",
        REJECTED,
        |_, scene| only(scene, "docker", "*.docker.io"),
    ),
    case("A01", Both, "only the first signed", UNKNOWN, |_, scene| {
        scene.signatures.truncate(1);
        Ok(())
    }),
    case(
        "A02",
        Both,
        "only the second signed",
        UNKNOWN,
        |_, scene| {
            scene.signatures.remove(0);
            Ok(())
        },
    ),
    case("A03", Both, "one signed twice", UNKNOWN, |_, scene| {
        let first = scene.signatures[0].clone();
        scene.signatures[1] = first;
        Ok(())
    }),
    case("A04", Both, "nobody signed", Unsigned, |_, scene| {
        scene.signatures.clear();
        Ok(())
    }),
    case(
        "A05",
        Signed,
        "unsigned, and anything is accepted beside",
        Unsigned,
        |_, scene| {
            scene.signatures.clear();
            scene.edit_requirements(|all| {
                *all = json!([{"type": ACCEPT}, all[0].clone(), {"type": ACCEPT}])
            })
        },
    ),
    case(
        "A06",
        Accepted,
        "accepted and rejected",
        REJECTED,
        |_, scene| {
            scene.edit_requirements(|all| *all = json!([{"type": ACCEPT}, {"type": REJECT}]))
        },
    ),
    case(
        "A07",
        Signed,
        "signed and rejected",
        REJECTED,
        |_, scene| scene.edit_requirements(|all| *all = json!([all[0].clone(), {"type": REJECT}])),
    ),
    case(
        "A08",
        Both,
        "both signed, one for another image",
        UNKNOWN,
        |maker, scene| {
            let other = maker.statement(&format!("sha256:{}", "0".repeat(64)), &maker.name());
            scene.signatures[1] = maker.sign_by(&maker.bob, &other.to_string())?;
            Ok(())
        },
    ),
    case(
        "U01",
        Ruled,
        "the key is revoked",
        REVOKED,
        |maker, scene| {
            scene.rule(format!("[revoked]\nkeys = [\"{}\"]\n", maker.alice.key));
            Ok(())
        },
    ),
    case(
        "U02",
        Ruled,
        "the manifest is revoked",
        Condition("revoked"),
        |maker, scene| {
            scene.rule(format!("[revoked]\ndigests = [\"{}\"]\n", maker.digest()));
            Ok(())
        },
    ),
    case(
        "U03",
        Ruled,
        "the configuration is revoked",
        Condition("revoked"),
        |maker, scene| {
            let digest = crate::image::digest(&maker.image().blobs[0]);
            scene.rule(format!("[revoked]\ndigests = [\"{digest}\"]\n"));
            Ok(())
        },
    ),
    case(
        "U04",
        Ruled,
        "a layer is revoked",
        Condition("revoked"),
        |maker, scene| {
            let digest = crate::image::digest(&maker.image().blobs[1]);
            scene.rule(format!("[revoked]\ndigests = [\"{digest}\"]\n"));
            Ok(())
        },
    ),
    case(
        "U05",
        Accepted,
        "revoked by digest, while the tag is accepted",
        Condition("revoked"),
        |maker, scene| {
            scopes(scene, &[("HOST/team/app:v1", ACCEPT)])?;
            scene.rule(format!("[revoked]\ndigests = [\"{}\"]\n", maker.digest()));
            Ok(())
        },
    ),
    case(
        "U06",
        Ruled,
        "signed before anything counts",
        EXPIRED,
        |_, scene| {
            scene.rule("[[rule]]\nnot-before = 2099-01-01T00:00:00Z\n");
            Ok(())
        },
    ),
    case("U07", Ruled, "signed long ago", EXPIRED, |maker, scene| {
        let message = maker.at(FROM_2024_S, |maker| {
            let made = [
                "--passphrase",
                "",
                "--quick-gen-key",
                "old",
                "ed25519",
                "sign,cert",
                "0",
            ];
            maker.gpg.run(&made, b"")?;
            maker.gpg.sign("old", maker.payload().as_bytes(), &[])
        })?;
        scene.files.insert("key.gpg", maker.gpg.export("old")?);
        scene.signatures = vec![message];
        scene.rule("[[rule]]\nmax-age = \"90d\"\n");
        Ok(())
    }),
    case(
        "U08",
        Ruled,
        "one signer where two are wanted",
        Condition("signers"),
        |maker, scene| {
            scene.files.insert("other.gpg", maker.bob.public.clone());
            scene.rule("[[rule]]\nsigners = { at-least = 2, keys = [\"@DIR@/key.gpg\", \"@DIR@/other.gpg\"] }\n");
            Ok(())
        },
    ),
    case(
        "U09",
        Ruled,
        "one signer twice where two are wanted",
        Condition("signers"),
        |maker, scene| {
            scene.files.insert("other.gpg", maker.bob.public.clone());
            scene.signatures.push(maker.sign(&maker.payload())?);
            scene.rule("[[rule]]\nsigners = { at-least = 2, keys = [\"@DIR@/key.gpg\", \"@DIR@/other.gpg\"] }\n");
            Ok(())
        },
    ),
    case(
        "U10",
        Ruled,
        "one key in two files where two are wanted",
        Condition("signers"),
        |maker, scene| {
            scene.files.insert("other.gpg", maker.alice.public.clone());
            scene.rule("[[rule]]\nsigners = { at-least = 2, keys = [\"@DIR@/key.gpg\", \"@DIR@/other.gpg\"] }\n");
            Ok(())
        },
    ),
    case(
        "U11",
        Ruled,
        "a file of signers is missing",
        Condition("signers"),
        |_, scene| {
            scene.rule("[[rule]]\nsigners = { at-least = 1, keys = [\"@DIR@/missing.gpg\", \"@DIR@/key.gpg\"] }\n");
            Ok(())
        },
    ),
    case(
        "U12",
        Ruled,
        "no statement where one is wanted",
        Condition("attestation"),
        |maker, scene| {
            scene.files.insert("team.pub", maker.public_pem("team")?);
            scene.rule("[[rule]]\n[[rule.attestation]]\npredicate-type = \"https://slsa.dev/provenance/v1\"\nkeys = [\"@DIR@/team.pub\"]\n");
            Ok(())
        },
    ),
    case(
        "U13",
        Ruled,
        "no scan where one is wanted",
        Condition("max-severity"),
        |_, scene| {
            scene.rule("[[rule]]\nmax-severity = \"critical\"\n");
            Ok(())
        },
    ),
    case("U14", Ruled, "a rule is no TOML", NO_RULES, |_, scene| {
        scene.rule("[[rule]\n");
        Ok(())
    }),
    case(
        "U15",
        Ruled,
        "a rule has an unknown member",
        NO_RULES,
        |_, scene| {
            scene.rule("[[rule]]\nat_least = 2\n");
            Ok(())
        },
    ),
    case(
        "U16",
        Ruled,
        "everybody may write to the rules",
        NO_RULES,
        |_, scene| {
            scene.rules_are_open = true;
            Ok(())
        },
    ),
    case(
        "U17",
        Ruled,
        "a namespace with a way up",
        NO_RULES,
        |_, scene| {
            scene.rule("[namespace.\"../team\"]\npolicy = \"a.json\"\n");
            Ok(())
        },
    ),
    case(
        "U18",
        Ruled,
        "a namespace's policy with a way up",
        NO_RULES,
        |_, scene| {
            scene.rule("[namespace.team]\npolicy = \"../a.json\"\n");
            Ok(())
        },
    ),
    case("U19", Ruled, "nobody is enough", NO_RULES, |_, scene| {
        scene.rule("[[rule]]\nsigners = { at-least = 0, keys = [\"@DIR@/key.gpg\"] }\n");
        Ok(())
    }),
    case("U20", Ruled, "an age of nothing", NO_RULES, |_, scene| {
        scene.rule("[[rule]]\nmax-age = \"0d\"\n");
        Ok(())
    }),
    case(
        "U21",
        Accepted,
        "nobody signed, and the rule limits the age",
        Signature(&["expired"]),
        |_, scene| {
            scene.rule("[[rule]]\nmax-age = \"90d\"\n");
            Ok(())
        },
    ),
    case("U22", Ruled, "the rules are bytes", NO_RULES, |_, scene| {
        scene.rule(*b"\xff\xfe");
        Ok(())
    }),
];
