// SPDX-License-Identifier: Apache-2.0
//! I: the reference that a signature names, and the rule that it is held to.

use anyhow::Result;
use serde_json::{Value, json};

use super::Family::{Hub, Pinned, Remapped, Signed};
use super::maker::Maker;
use super::scene::Scene;
use super::{Case, OTHER_DIGEST, OTHER_IDENTITY, case};

/// Signs for another reference, in which `HOST` is the registry.
fn named(maker: &Maker, scene: &mut Scene, reference: &str) -> Result<()> {
    let reference = reference.replace("HOST", maker.host());
    scene.signatures = vec![maker.sign(&maker.payload_for(&reference))?];
    Ok(())
}

/// Holds signatures to this rule.
fn rule(scene: &mut Scene, rule: &Value) -> Result<()> {
    let host = scene.host.clone();
    let text = rule.to_string().replace("HOST", &host);
    let rule: Value = serde_json::from_str(&text)?;
    scene.edit_requirements(|requirements| requirements[0]["signedIdentity"] = rule)
}

pub(super) const CASES: &[Case] = &[
    case(
        "I01",
        Signed,
        "another tag",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/app:v2"),
    ),
    case(
        "I02",
        Signed,
        "the tag in capitals",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/app:V1"),
    ),
    case("I03", Signed, "no tag", OTHER_IDENTITY, |maker, scene| {
        named(maker, scene, "HOST/team/app")
    }),
    case(
        "I04",
        Signed,
        "another repository",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/other:v1"),
    ),
    case(
        "I05",
        Signed,
        "a repository below",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/app/app:v1"),
    ),
    case(
        "I06",
        Signed,
        "the repository above",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team:v1"),
    ),
    case(
        "I07",
        Signed,
        "a longer repository",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/apps:v1"),
    ),
    case(
        "I08",
        Signed,
        "another registry",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "registry.example/team/app:v1"),
    ),
    case(
        "I09",
        Signed,
        "another port",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "127.0.0.1:1/team/app:v1"),
    ),
    case("I10", Signed, "no port", OTHER_IDENTITY, |maker, scene| {
        named(maker, scene, "127.0.0.1/team/app:v1")
    }),
    case(
        "I11",
        Signed,
        "a short name",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "team/app:v1"),
    ),
    case(
        "I12",
        Signed,
        "localhost",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "localhost/team/app:v1"),
    ),
    case(
        "I13",
        Signed,
        "the name that it will be copied to",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/copy:v1"),
    ),
    case(
        "I14",
        Signed,
        "the digest of the image instead of the tag",
        OTHER_IDENTITY,
        |maker, scene| {
            let reference = format!("HOST/team/app@{}", maker.digest());
            named(maker, scene, &reference)
        },
    ),
    case(
        "I15",
        Signed,
        "tag and digest",
        OTHER_IDENTITY,
        |maker, scene| {
            let reference = format!("HOST/team/app:v1@{}", maker.digest());
            named(maker, scene, &reference)
        },
    ),
    case(
        "I16",
        Signed,
        "an empty reference",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, ""),
    ),
    case(
        "I17",
        Signed,
        "a transport before it",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "docker://HOST/team/app:v1"),
    ),
    case(
        "I18",
        Signed,
        "a user before it",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "user@HOST/team/app:v1"),
    ),
    case(
        "I19",
        Signed,
        "a space behind it",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/app:v1 "),
    ),
    case(
        "I20",
        Signed,
        "an empty component",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST//team/app:v1"),
    ),
    case(
        "I21",
        Signed,
        "a way up and down",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/x/../team/app:v1"),
    ),
    case(
        "I22",
        Signed,
        "the repository in capitals",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/Team/app:v1"),
    ),
    case(
        "I23",
        Signed,
        "letters that look alike",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/te\u{430}m/app:v1"),
    ),
    case(
        "I24",
        Signed,
        "a percent sign",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team%2fapp:v1"),
    ),
    case(
        "I25",
        Signed,
        "a zero byte behind it",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/app:v1\u{0}"),
    ),
    case(
        "I26",
        Signed,
        "matchExact, and another tag",
        OTHER_IDENTITY,
        |maker, scene| {
            rule(scene, &json!({"type": "matchExact"}))?;
            named(maker, scene, "HOST/team/app:v2")
        },
    ),
    case(
        "I27",
        Signed,
        "matchRepository, and another repository",
        OTHER_IDENTITY,
        |maker, scene| {
            rule(scene, &json!({"type": "matchRepository"}))?;
            named(maker, scene, "HOST/team/other:v1")
        },
    ),
    case(
        "I28",
        Signed,
        "exactReference of another, and the image's own",
        OTHER_IDENTITY,
        |_, scene| {
            rule(
                scene,
                &json!({"type": "exactReference", "dockerReference": "HOST/team/app:v2"}),
            )
        },
    ),
    case(
        "I29",
        Signed,
        "exactRepository of another, and the image's own",
        OTHER_IDENTITY,
        |_, scene| {
            rule(
                scene,
                &json!({"type": "exactRepository", "dockerRepository": "HOST/team/other"}),
            )
        },
    ),
    case(
        "I30",
        Signed,
        "exactRepository of the namespace",
        OTHER_IDENTITY,
        |_, scene| {
            rule(
                scene,
                &json!({"type": "exactRepository", "dockerRepository": "HOST/team"}),
            )
        },
    ),
    case(
        "I31",
        Pinned,
        "by digest, signed for another repository",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/other:v1"),
    ),
    case(
        "I32",
        Pinned,
        "by digest, signed without a tag",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/app"),
    ),
    case(
        "I33",
        Pinned,
        "by digest, signed for another image of the tag",
        OTHER_DIGEST,
        |maker, scene| {
            let payload = maker.statement(&format!("sha256:{}", "1".repeat(64)), &maker.name());
            scene.signatures = vec![maker.sign(&payload.to_string())?];
            Ok(())
        },
    ),
    case(
        "I34",
        Pinned,
        "by digest under matchExact, signed for a tag",
        OTHER_IDENTITY,
        |_, scene| rule(scene, &json!({"type": "matchExact"})),
    ),
    case(
        "I35",
        Pinned,
        "by digest under matchExact, signed for another digest of that name",
        OTHER_IDENTITY,
        |maker, scene| {
            rule(scene, &json!({"type": "matchExact"}))?;
            let reference = format!("HOST/team/app@sha256:{}", "1".repeat(64));
            named(maker, scene, &reference)
        },
    ),
    case(
        "I36",
        Remapped,
        "signed as what it is called here",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "HOST/team/app:v1"),
    ),
    case(
        "I37",
        Remapped,
        "a prefix that ends within a component",
        OTHER_IDENTITY,
        |_, scene| {
            rule(
                scene,
                &json!({"type": "remapIdentity", "prefix": "HOST/te", "signedPrefix": "vendor.example/te"}),
            )
        },
    ),
    case(
        "I38",
        Remapped,
        "a prefix that ends within the port",
        OTHER_IDENTITY,
        |_, scene| {
            let short = scene.host[..scene.host.len() - 1].to_owned();
            rule(
                scene,
                &json!({"type": "remapIdentity", "prefix": short, "signedPrefix": "vendor.example"}),
            )
        },
    ),
    case(
        "I39",
        Remapped,
        "another tag of the mapped name",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "vendor.example/team/app:v2"),
    ),
    case(
        "I40",
        Remapped,
        "a neighbour of the mapped name",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "vendor.example/teams/app:v1"),
    ),
    case(
        "I41",
        Remapped,
        "mapped the other way round",
        OTHER_IDENTITY,
        |_, scene| {
            rule(
                scene,
                &json!({"type": "remapIdentity", "prefix": "vendor.example/team", "signedPrefix": "HOST/team"}),
            )
        },
    ),
    case(
        "I42",
        Hub,
        "without the library, where the name has none",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "docker.io/other/app:v1"),
    ),
    case(
        "I43",
        Hub,
        "a homograph of the hub",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "d\u{43e}cker.io/library/app:v1"),
    ),
    case(
        "I44",
        Hub,
        "a final stop behind the hub's name",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "docker.io./library/app:v1"),
    ),
    case("I45", Hub, "another hub", OTHER_IDENTITY, |maker, scene| {
        named(maker, scene, "docker.example/library/app:v1")
    }),
    case(
        "I46",
        Hub,
        "the hub with a port",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "docker.io:443/library/app:v1"),
    ),
    case(
        "I47",
        Hub,
        "a first component that is no host",
        OTHER_IDENTITY,
        |maker, scene| named(maker, scene, "library/app/app:v1"),
    ),
];
