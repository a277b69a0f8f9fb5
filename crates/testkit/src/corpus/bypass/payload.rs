// SPDX-License-Identifier: Apache-2.0
//! P: the signed JSON. Signed well by the right key, and still saying nothing that counts.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Family::Signed;
use super::maker::Maker;
use super::scene::Scene;
use super::{Case, OTHER_DIGEST, PAYLOAD, case};

/// Signs this text instead of the good payload.
fn text(maker: &Maker, scene: &mut Scene, text: &str) -> Result<()> {
    scene.signatures = vec![maker.sign(text)?];
    Ok(())
}

/// Signs the good payload with something in its text exchanged.
fn replaced(maker: &Maker, scene: &mut Scene, from: &str, to: &str) -> Result<()> {
    let payload = maker.payload();
    ensure!(payload.contains(from), "{from} is not in {payload}");
    text(maker, scene, &payload.replacen(from, to, 1))
}

/// Signs the good payload with one value set, by its pointer.
fn set(maker: &Maker, scene: &mut Scene, pointer: &str, value: Value) -> Result<()> {
    let mut payload = maker.statement(&maker.digest(), &maker.name());
    let place = payload.pointer_mut(pointer);
    *place.ok_or_else(|| anyhow::anyhow!("{pointer} is not in the payload"))? = value;
    text(maker, scene, &payload.to_string())
}

/// Signs the good payload for another digest.
fn digest(maker: &Maker, scene: &mut Scene, digest: &str) -> Result<()> {
    text(
        maker,
        scene,
        &maker.statement(digest, &maker.name()).to_string(),
    )
}

const DIGEST: &str = "/critical/image/docker-manifest-digest";
const REFERENCE: &str = "/critical/identity/docker-reference";

pub(super) const CASES: &[Case] = &[
    case(
        "P01",
        Signed,
        "nothing is signed",
        PAYLOAD,
        |maker, scene| text(maker, scene, ""),
    ),
    case("P02", Signed, "null", PAYLOAD, |maker, scene| {
        text(maker, scene, "null")
    }),
    case(
        "P03",
        Signed,
        "an array around it",
        PAYLOAD,
        |maker, scene| text(maker, scene, &format!("[{}]", maker.payload())),
    ),
    case("P04", Signed, "a string of it", PAYLOAD, |maker, scene| {
        text(maker, scene, &json!(maker.payload()).to_string())
    }),
    case(
        "P05",
        Signed,
        "a byte-order mark before it",
        PAYLOAD,
        |maker, scene| text(maker, scene, &format!("\u{feff}{}", maker.payload())),
    ),
    case("P06", Signed, "text behind it", PAYLOAD, |maker, scene| {
        text(maker, scene, &format!("{}x", maker.payload()))
    }),
    case("P07", Signed, "two payloads", PAYLOAD, |maker, scene| {
        text(maker, scene, &maker.payload().repeat(2))
    }),
    case(
        "P08",
        Signed,
        "a zero byte behind it",
        PAYLOAD,
        |maker, scene| text(maker, scene, &format!("{}\0", maker.payload())),
    ),
    case("P09", Signed, "a comment in it", PAYLOAD, |maker, scene| {
        replaced(maker, scene, "{\"critical\"", "{/**/\"critical\"")
    }),
    case("P10", Signed, "in UTF-16", PAYLOAD, |maker, scene| {
        let wide: Vec<u8> = maker
            .payload()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        scene.signatures = vec![maker.gpg.sign(&maker.alice.key, &wide, &[])?];
        Ok(())
    }),
    case(
        "P11",
        Signed,
        "critical twice, the good one last",
        PAYLOAD,
        |maker, scene| {
            replaced(
                maker,
                scene,
                "{\"critical\"",
                "{\"critical\":{},\"critical\"",
            )
        },
    ),
    case(
        "P12",
        Signed,
        "critical twice, the good one first",
        PAYLOAD,
        |maker, scene| {
            let good = maker.payload();
            text(
                maker,
                scene,
                &format!("{},\"critical\":{{}}}}", &good[..good.len() - 1]),
            )
        },
    ),
    case(
        "P13",
        Signed,
        "critical twice, once by an escape",
        PAYLOAD,
        |maker, scene| {
            replaced(
                maker,
                scene,
                "{\"critical\"",
                "{\"\\u0063ritical\":{},\"critical\"",
            )
        },
    ),
    case(
        "P14",
        Signed,
        "the digest twice",
        PAYLOAD,
        |maker, scene| {
            replaced(
                maker,
                scene,
                "{\"docker-manifest-digest\"",
                "{\"docker-manifest-digest\":\"\",\"docker-manifest-digest\"",
            )
        },
    ),
    case(
        "P15",
        Signed,
        "the reference twice",
        PAYLOAD,
        |maker, scene| {
            let twice = "{\"docker-reference\":\"a.example/b:c\",\"docker-reference\"";
            replaced(maker, scene, "{\"docker-reference\"", twice)
        },
    ),
    case("P16", Signed, "the type twice", PAYLOAD, |maker, scene| {
        replaced(maker, scene, "\"type\"", "\"type\":\"x\",\"type\"")
    }),
    case(
        "P17",
        Signed,
        "something twice under optional",
        PAYLOAD,
        |maker, scene| {
            replaced(
                maker,
                scene,
                "\"optional\":{",
                "\"optional\":{\"a\":1,\"a\":2,",
            )
        },
    ),
    case(
        "P18",
        Signed,
        "critical is null",
        PAYLOAD,
        |maker, scene| set(maker, scene, "/critical", json!(null)),
    ),
    case(
        "P19",
        Signed,
        "critical is missing",
        PAYLOAD,
        |maker, scene| text(maker, scene, "{\"optional\":{}}"),
    ),
    case(
        "P20",
        Signed,
        "critical in other letters",
        PAYLOAD,
        |maker, scene| replaced(maker, scene, "\"critical\"", "\"Critical\""),
    ),
    case(
        "P21",
        Signed,
        "optional is missing",
        PAYLOAD,
        |maker, scene| {
            let critical = maker.statement(&maker.digest(), &maker.name())["critical"].take();
            text(maker, scene, &json!({"critical": critical}).to_string())
        },
    ),
    case(
        "P22",
        Signed,
        "optional is null",
        PAYLOAD,
        |maker, scene| set(maker, scene, "/optional", json!(null)),
    ),
    case(
        "P23",
        Signed,
        "an unknown member",
        PAYLOAD,
        |maker, scene| replaced(maker, scene, "{\"critical\"", "{\"x\":1,\"critical\""),
    ),
    case(
        "P24",
        Signed,
        "an unknown member in critical",
        PAYLOAD,
        |maker, scene| replaced(maker, scene, "\"type\"", "\"x\":1,\"type\""),
    ),
    case(
        "P25",
        Signed,
        "an unknown member beside the digest",
        PAYLOAD,
        |maker, scene| {
            replaced(
                maker,
                scene,
                "{\"docker-manifest-digest\"",
                "{\"x\":1,\"docker-manifest-digest\"",
            )
        },
    ),
    case(
        "P26",
        Signed,
        "an unknown member beside the reference",
        PAYLOAD,
        |maker, scene| {
            replaced(
                maker,
                scene,
                "{\"docker-reference\"",
                "{\"x\":1,\"docker-reference\"",
            )
        },
    ),
    case("P27", Signed, "another type", PAYLOAD, |maker, scene| {
        set(maker, scene, "/critical/type", json!("something else"))
    }),
    case(
        "P28",
        Signed,
        "the type in other letters",
        PAYLOAD,
        |maker, scene| {
            set(
                maker,
                scene,
                "/critical/type",
                json!("Atomic Container Signature"),
            )
        },
    ),
    case("P29", Signed, "sigstore's type", PAYLOAD, |maker, scene| {
        set(
            maker,
            scene,
            "/critical/type",
            json!("cosign container image signature"),
        )
    }),
    case(
        "P30",
        Signed,
        "the type is null",
        PAYLOAD,
        |maker, scene| set(maker, scene, "/critical/type", json!(null)),
    ),
    case(
        "P31",
        Signed,
        "the digest of another manifest",
        OTHER_DIGEST,
        |maker, scene| digest(maker, scene, &format!("sha256:{}", "0".repeat(64))),
    ),
    case(
        "P32",
        Signed,
        "the digest of the configuration",
        OTHER_DIGEST,
        |maker, scene| {
            let config = crate::image::digest(&maker.image().blobs[0]);
            digest(maker, scene, &config)
        },
    ),
    case(
        "P33",
        Signed,
        "the digest of a layer",
        OTHER_DIGEST,
        |maker, scene| {
            let layer = crate::image::digest(&maker.image().blobs[1]);
            digest(maker, scene, &layer)
        },
    ),
    case(
        "P34",
        Signed,
        "SHA-512 of another manifest",
        OTHER_DIGEST,
        |maker, scene| digest(maker, scene, &format!("sha512:{}", "0".repeat(128))),
    ),
    case(
        "P35",
        Signed,
        "the digest in capitals",
        PAYLOAD,
        |maker, scene| {
            let capitals = maker.digest().to_uppercase().replace("SHA256", "sha256");
            digest(maker, scene, &capitals)
        },
    ),
    case(
        "P36",
        Signed,
        "the algorithm in capitals",
        PAYLOAD,
        |maker, scene| {
            let capitals = maker.digest().replace("sha256", "SHA256");
            digest(maker, scene, &capitals)
        },
    ),
    case("P37", Signed, "a digest of MD5", PAYLOAD, |maker, scene| {
        digest(maker, scene, &format!("md5:{}", "0".repeat(32)))
    }),
    case(
        "P38",
        Signed,
        "a digest without its algorithm",
        PAYLOAD,
        |maker, scene| {
            let bare = maker.digest().replace("sha256:", "");
            digest(maker, scene, &bare)
        },
    ),
    case(
        "P39",
        Signed,
        "the beginning of the digest",
        PAYLOAD,
        |maker, scene| {
            let short = maker.digest()[..40].to_owned();
            digest(maker, scene, &short)
        },
    ),
    case(
        "P40",
        Signed,
        "a space behind the digest",
        PAYLOAD,
        |maker, scene| {
            let longer = format!("{} ", maker.digest());
            digest(maker, scene, &longer)
        },
    ),
    case("P41", Signed, "an empty digest", PAYLOAD, |maker, scene| {
        digest(maker, scene, "")
    }),
    case(
        "P42",
        Signed,
        "the digest is null",
        PAYLOAD,
        |maker, scene| set(maker, scene, DIGEST, json!(null)),
    ),
    case(
        "P43",
        Signed,
        "a list of digests",
        PAYLOAD,
        |maker, scene| {
            let list = json!([maker.digest()]);
            set(maker, scene, DIGEST, list)
        },
    ),
    case(
        "P44",
        Signed,
        "the reference is null",
        PAYLOAD,
        |maker, scene| set(maker, scene, REFERENCE, json!(null)),
    ),
    case(
        "P45",
        Signed,
        "the reference is a number",
        PAYLOAD,
        |maker, scene| set(maker, scene, REFERENCE, json!(1)),
    ),
    case(
        "P46",
        Signed,
        "the time is a string",
        PAYLOAD,
        |maker, scene| set(maker, scene, "/optional/timestamp", json!("1600000000")),
    ),
    case(
        "P47",
        Signed,
        "the creator is a number",
        PAYLOAD,
        |maker, scene| set(maker, scene, "/optional/creator", json!(1)),
    ),
    case(
        "P48",
        Signed,
        "nested deeper than anybody reads",
        PAYLOAD,
        |maker, scene| {
            let deep = format!(
                "\"optional\":{{\"a\":{}{},",
                "[".repeat(5000),
                "]".repeat(5000)
            );
            replaced(maker, scene, "\"optional\":{", &deep)
        },
    ),
];
