// SPDX-License-Identifier: Apache-2.0
//! F: the policy's file. What is no policy to the letter is none, and admits nothing.

use anyhow::Result;
use serde_json::{Value, json};

use super::Because::{Nothing, Requirement};
use super::Family::{Accepted, Signed};
use super::maker::base64;
use super::scene::{PolicyFile, Scene};
use super::{Because, Case, case};

/// The policy is this text.
fn text(scene: &mut Scene, text: impl Into<Vec<u8>>) -> Result<()> {
    scene.policy = PolicyFile::Text(text.into());
    Ok(())
}

/// Text around the policy.
fn around(scene: &mut Scene, before: &str, after: &str) -> Result<()> {
    let text = [before.as_bytes(), scene.text()?, after.as_bytes()].concat();
    scene.policy = PolicyFile::Text(text);
    Ok(())
}

/// The one requirement is this; `{}` in it stands for the good one's members.
fn requirement(scene: &mut Scene, edit: impl FnOnce(&mut Value)) -> Result<()> {
    scene.edit_requirements(|requirements| edit(&mut requirements[0]))
}

const ACCEPT: &str = "insecureAcceptAnything";
const NO_POLICY: Because = Nothing("polic");

pub(super) const CASES: &[Case] = &[
    case("F01", Accepted, "no policy", NO_POLICY, |_, scene| {
        scene.policy = PolicyFile::Missing;
        Ok(())
    }),
    case("F02", Accepted, "an empty policy", NO_POLICY, |_, scene| {
        text(scene, "")
    }),
    case(
        "F03",
        Accepted,
        "a policy of spaces",
        NO_POLICY,
        |_, scene| text(scene, "  \n"),
    ),
    case(
        "F04",
        Accepted,
        "a policy without a default",
        NO_POLICY,
        |_, scene| text(scene, "{}"),
    ),
    case(
        "F05",
        Accepted,
        "a default of null",
        NO_POLICY,
        |_, scene| text(scene, r#"{"default":null}"#),
    ),
    case(
        "F06",
        Accepted,
        "an empty default",
        NO_POLICY,
        |_, scene| text(scene, r#"{"default":[]}"#),
    ),
    case(
        "F07",
        Accepted,
        "an empty list for the scope",
        NO_POLICY,
        |_, scene| scene.edit_requirements(|requirements| *requirements = json!([])),
    ),
    case(
        "F08",
        Accepted,
        "a byte-order mark",
        NO_POLICY,
        |_, scene| around(scene, "\u{feff}", ""),
    ),
    case("F09", Accepted, "UTF-16", NO_POLICY, |_, scene| {
        let wide = String::from_utf8(scene.text()?.to_owned())?;
        text(
            scene,
            wide.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>(),
        )
    }),
    case(
        "F10",
        Accepted,
        "bytes that are no UTF-8",
        NO_POLICY,
        |_, scene| {
            let bytes = [&scene.text()?[..scene.text()?.len() - 1], b",\"\xff\":1}"].concat();
            text(scene, bytes)
        },
    ),
    case(
        "F11",
        Accepted,
        "a member in other letters",
        NO_POLICY,
        |_, scene| scene.replace("\"default\"", "\"Default\""),
    ),
    case(
        "F12",
        Accepted,
        "a type in other letters",
        NO_POLICY,
        |_, scene| scene.replace(ACCEPT, "InsecureAcceptAnything"),
    ),
    case("F13", Accepted, "an unknown type", NO_POLICY, |_, scene| {
        scene.replace(ACCEPT, "accept")
    }),
    case(
        "F14",
        Accepted,
        "an unknown member of a requirement",
        NO_POLICY,
        |_, scene| requirement(scene, |it| it["x"] = json!(1)),
    ),
    case(
        "F15",
        Accepted,
        "an unknown member of the policy",
        NO_POLICY,
        |_, scene| scene.edit(|it| it["x"] = json!(1)),
    ),
    case(
        "F16",
        Accepted,
        "the default twice",
        NO_POLICY,
        |_, scene| {
            scene.replace(
                "{\"default\"",
                "{\"default\":[{\"type\":\"insecureAcceptAnything\"}],\"default\"",
            )
        },
    ),
    case(
        "F17",
        Accepted,
        "the default twice, once by an escape",
        NO_POLICY,
        |_, scene| {
            scene.replace(
                "{\"default\"",
                "{\"\\u0064efault\":[{\"type\":\"insecureAcceptAnything\"}],\"default\"",
            )
        },
    ),
    case("F18", Accepted, "a scope twice", NO_POLICY, |_, scene| {
        let (once, host) = (format!("{{\"{}\"", scene.host), scene.host.clone());
        scene.replace(
            &once,
            &format!("{{\"{host}\":[{{\"type\":\"reject\"}}],\"{host}\""),
        )
    }),
    case(
        "F19",
        Accepted,
        "a transport twice",
        NO_POLICY,
        |_, scene| {
            scene.replace(
                "{\"docker\"",
                "{\"docker\":{\"\":[{\"type\":\"reject\"}]},\"docker\"",
            )
        },
    ),
    case("F20", Accepted, "a type twice", NO_POLICY, |_, scene| {
        scene.replace(
            "{\"type\":\"insecure",
            "{\"type\":\"reject\",\"type\":\"insecure",
        )
    }),
    case(
        "F21",
        Accepted,
        "text behind the policy",
        NO_POLICY,
        |_, scene| around(scene, "", "x"),
    ),
    case(
        "F22",
        Accepted,
        "two policies in one file",
        NO_POLICY,
        |_, scene| {
            let again = String::from_utf8(scene.text()?.to_owned())?;
            around(scene, "", &again)
        },
    ),
    case("F23", Accepted, "a comment", NO_POLICY, |_, scene| {
        around(scene, "// who may run\n", "")
    }),
    case(
        "F24",
        Accepted,
        "a zero byte behind the policy",
        NO_POLICY,
        |_, scene| around(scene, "", "\0"),
    ),
    case(
        "F25",
        Accepted,
        "a policy cut short",
        NO_POLICY,
        |_, scene| {
            let short = scene.text()?[..scene.text()?.len() - 1].to_owned();
            text(scene, short)
        },
    ),
    case(
        "F26",
        Accepted,
        "transports of null",
        NO_POLICY,
        |_, scene| {
            text(
                scene,
                format!(r#"{{"default":[{{"type":"{ACCEPT}"}}],"transports":null}}"#),
            )
        },
    ),
    case("F27", Accepted, "scopes of null", NO_POLICY, |_, scene| {
        scene.edit(|it| it["transports"]["docker"] = json!(null))
    }),
    case(
        "F28",
        Accepted,
        "a requirement beside its list",
        NO_POLICY,
        |_, scene| scene.edit_requirements(|requirements| *requirements = json!({"type": ACCEPT})),
    ),
    case(
        "F29",
        Accepted,
        "a requirement of null",
        NO_POLICY,
        |_, scene| {
            scene.edit_requirements(|requirements| *requirements = json!([null, {"type": ACCEPT}]))
        },
    ),
    case(
        "F30",
        Accepted,
        "nested deeper than anybody reads",
        NO_POLICY,
        |_, scene| {
            text(
                scene,
                format!(
                    "{{\"default\":{}{}}}",
                    "[".repeat(100_000),
                    "]".repeat(100_000)
                ),
            )
        },
    ),
    case(
        "F31",
        Accepted,
        "a policy larger than any",
        NO_POLICY,
        |_, scene| around(scene, "", &" ".repeat(17 << 20)),
    ),
    case(
        "F32",
        Accepted,
        "everybody may write to it",
        NO_POLICY,
        |_, scene| {
            scene.policy = PolicyFile::Open(scene.text()?.to_owned());
            Ok(())
        },
    ),
    case("F33", Accepted, "a directory", NO_POLICY, |_, scene| {
        scene.policy = PolicyFile::Directory;
        Ok(())
    }),
    case(
        "F34",
        Accepted,
        "a link to nothing",
        NO_POLICY,
        |_, scene| {
            scene.policy = PolicyFile::Dangling;
            Ok(())
        },
    ),
    case(
        "F35",
        Accepted,
        "a link to itself",
        NO_POLICY,
        |_, scene| {
            scene.policy = PolicyFile::Loop;
            Ok(())
        },
    ),
    case(
        "F36",
        Accepted,
        "a file without end",
        NO_POLICY,
        |_, scene| {
            scene.policy = PolicyFile::Endless;
            Ok(())
        },
    ),
    case(
        "F37",
        Signed,
        "keys from two sources",
        NO_POLICY,
        |maker, scene| {
            let data = base64(&maker.alice.public);
            requirement(scene, |it| it["keyData"] = json!(data))
        },
    ),
    case("F38", Signed, "keys from nowhere", NO_POLICY, |_, scene| {
        requirement(scene, |it| {
            drop(it.as_object_mut().map(|it| it.remove("keyPath")))
        })
    }),
    case("F39", Signed, "keys in no base64", NO_POLICY, |_, scene| {
        requirement(scene, |it| {
            *it = json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": "*"})
        })
    }),
    case(
        "F40",
        Signed,
        "no file in a list of files",
        NO_POLICY,
        |_, scene| {
            requirement(scene, |it| {
                *it = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []})
            })
        },
    ),
    case(
        "F41",
        Signed,
        "an unknown type of keys",
        NO_POLICY,
        |_, scene| requirement(scene, |it| it["keyType"] = json!("gpgkeys")),
    ),
    case("F42", Signed, "no type of keys", NO_POLICY, |_, scene| {
        requirement(scene, |it| {
            drop(it.as_object_mut().map(|it| it.remove("keyType")))
        })
    }),
    case(
        "F43",
        Signed,
        "a type of keys that no program knows",
        Requirement("unsupported"),
        |_, scene| requirement(scene, |it| it["keyType"] = json!("X509Certificates")),
    ),
    case(
        "F44",
        Signed,
        "an identity of null",
        NO_POLICY,
        |_, scene| requirement(scene, |it| it["signedIdentity"] = json!(null)),
    ),
    case(
        "F45",
        Signed,
        "an unknown identity",
        NO_POLICY,
        |_, scene| {
            requirement(scene, |it| {
                it["signedIdentity"] = json!({"type": "matchAnything"})
            })
        },
    ),
    case(
        "F46",
        Signed,
        "an identity with an unknown member",
        NO_POLICY,
        |_, scene| {
            requirement(scene, |it| {
                it["signedIdentity"] = json!({"type": "matchExact", "x": 1})
            })
        },
    ),
    case("F47", Signed, "half a remapping", NO_POLICY, |_, scene| {
        requirement(scene, |it| {
            it["signedIdentity"] = json!({"type": "remapIdentity", "prefix": "a.example"})
        })
    }),
    case(
        "F48",
        Signed,
        "an exact reference without a tag",
        NO_POLICY,
        |_, scene| {
            requirement(scene, |it| {
                it["signedIdentity"] =
                    json!({"type": "exactReference", "dockerReference": "a.example/b"})
            })
        },
    ),
    case(
        "F49",
        Signed,
        "an acceptance hidden in a requirement",
        NO_POLICY,
        |_, scene| requirement(scene, |it| it["or"] = json!({"type": ACCEPT})),
    ),
    case(
        "F50",
        Accepted,
        "a signed base layer",
        Requirement("unsupported"),
        |_, scene| {
            requirement(
                scene,
                |it| {
                    *it = json!({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}})
                },
            )
        },
    ),
];
