// SPDX-License-Identifier: Apache-2.0
//! M: what surrounds a signature. Exactly one form counts: a binary message with one literal packet and one signature.

use anyhow::Result;

use super::Because::{Signature, Unsigned};
use super::Family::Signed;
use super::scene::Scene;
use super::{Case, MALFORMED, UNKNOWN, UNSUPPORTED, WEAK, case};
use crate::openpgp::{body, packet};

/// Puts one message in the place of the good one.
fn only(scene: &mut Scene, message: Vec<u8>) -> Result<()> {
    scene.signatures = vec![message];
    Ok(())
}

/// The good message with one byte changed, at a part of its length in hundredths.
fn changed(scene: &mut Scene, hundredths: usize) -> Result<()> {
    let message = &mut scene.signatures[0];
    let at = (message.len() * hundredths / 100).min(message.len() - 1);
    message[at] ^= 1;
    Ok(())
}

const DAMAGED: super::Because =
    Signature(&["malformed", "bad", "unsupported", "unknown-key", "weak"]);

pub(super) const CASES: &[Case] = &[
    case("M01", Signed, "no signature", Unsigned, |_, scene| {
        scene.signatures.clear();
        Ok(())
    }),
    case("M02", Signed, "an empty file", MALFORMED, |_, scene| {
        only(scene, vec![])
    }),
    case(
        "M03",
        Signed,
        "a changed first byte",
        DAMAGED,
        |_, scene| changed(scene, 0),
    ),
    case(
        "M04",
        Signed,
        "a changed byte in the first quarter",
        DAMAGED,
        |_, scene| changed(scene, 25),
    ),
    case(
        "M05",
        Signed,
        "a changed byte in the middle",
        DAMAGED,
        |_, scene| changed(scene, 50),
    ),
    case(
        "M06",
        Signed,
        "a changed byte in the last quarter",
        DAMAGED,
        |_, scene| changed(scene, 75),
    ),
    case("M07", Signed, "a changed last byte", DAMAGED, |_, scene| {
        changed(scene, 100)
    }),
    case(
        "M08",
        Signed,
        "a message cut short",
        MALFORMED,
        |_, scene| {
            scene.signatures[0].pop();
            Ok(())
        },
    ),
    case(
        "M09",
        Signed,
        "a byte behind the message",
        MALFORMED,
        |_, scene| {
            scene.signatures[0].push(b'x');
            Ok(())
        },
    ),
    case(
        "M10",
        Signed,
        "zeros behind the message",
        MALFORMED,
        |_, scene| {
            scene.signatures[0].extend([0; 64]);
            Ok(())
        },
    ),
    case(
        "M11",
        Signed,
        "two messages in one file",
        MALFORMED,
        |_, scene| {
            let twice = scene.signatures[0].repeat(2);
            only(scene, twice)
        },
    ),
    case(
        "M12",
        Signed,
        "a clear-text signature",
        MALFORMED,
        |maker, scene| only(scene, maker.by_gpg(&["--clear-sign"])?),
    ),
    case(
        "M13",
        Signed,
        "a detached signature",
        MALFORMED,
        |maker, scene| only(scene, maker.by_gpg(&["--detach-sign"])?),
    ),
    case(
        "M14",
        Signed,
        "an armoured message",
        MALFORMED,
        |maker, scene| only(scene, maker.by_gpg(&["--armor", "--sign"])?),
    ),
    case(
        "M15",
        Signed,
        "the payload itself",
        MALFORMED,
        |maker, scene| only(scene, maker.payload().into()),
    ),
    case(
        "M16",
        Signed,
        "literal data that nobody signed",
        MALFORMED,
        |maker, scene| {
            let [_, literal, _] = maker.packets()?;
            only(scene, literal)
        },
    ),
    case(
        "M17",
        Signed,
        "encrypted and not signed",
        MALFORMED,
        |maker, scene| {
            let message = maker.gpg.run(
                &[
                    "--passphrase",
                    "x",
                    "--pinentry-mode",
                    "loopback",
                    "--output",
                    "-",
                    "--symmetric",
                ],
                maker.payload().as_bytes(),
            )?;
            only(scene, message)
        },
    ),
    case(
        "M18",
        Signed,
        "signed and encrypted",
        MALFORMED,
        |maker, scene| {
            let options = [
                "--passphrase",
                "x",
                "--pinentry-mode",
                "loopback",
                "--sign",
                "--symmetric",
            ];
            only(scene, maker.by_gpg(&options)?)
        },
    ),
    case(
        "M19",
        Signed,
        "two signers in one message",
        MALFORMED,
        |maker, scene| {
            let mallory = maker.mallory.key.clone();
            only(
                scene,
                maker.by_gpg(&["--local-user", &mallory, "-z0", "--sign"])?,
            )
        },
    ),
    case(
        "M20",
        Signed,
        "two signers in one compressed message",
        MALFORMED,
        |maker, scene| {
            let mallory = maker.mallory.key.clone();
            only(scene, maker.by_gpg(&["--local-user", &mallory, "--sign"])?)
        },
    ),
    case(
        "M21",
        Signed,
        "a good and a foreign signature, old style",
        MALFORMED,
        |maker, scene| {
            let [_, literal, good] = maker.packets()?;
            let [_, _, foreign] = maker.packets_by(&maker.mallory)?;
            only(scene, [good, foreign, literal].concat())
        },
    ),
    case(
        "M22",
        Signed,
        "a foreign and a good signature, old style",
        MALFORMED,
        |maker, scene| {
            let [_, literal, good] = maker.packets()?;
            let [_, _, foreign] = maker.packets_by(&maker.mallory)?;
            only(scene, [foreign, good, literal].concat())
        },
    ),
    case(
        "M23",
        Signed,
        "the same signature twice",
        MALFORMED,
        |maker, scene| {
            let [_, literal, good] = maker.packets()?;
            only(scene, [&good[..], &good, &literal].concat())
        },
    ),
    case(
        "M24",
        Signed,
        "a one-pass packet around a whole message",
        MALFORMED,
        |maker, scene| {
            let [one_pass, literal, good] = maker.packets()?;
            only(
                scene,
                [&one_pass[..], &one_pass, &literal, &good, &good].concat(),
            )
        },
    ),
    case(
        "M25",
        Signed,
        "a one-pass packet that announces another",
        MALFORMED,
        |maker, scene| {
            let [mut one_pass, literal, good] = maker.packets()?;
            if let Some(last) = one_pass.last_mut() {
                *last = 0;
            }
            only(scene, [one_pass, literal, good].concat())
        },
    ),
    case(
        "M26",
        Signed,
        "a one-pass packet of another hash",
        MALFORMED,
        |maker, scene| {
            let [mut one_pass, literal, good] = maker.packets()?;
            one_pass[4] = if one_pass[4] == 8 { 9 } else { 8 };
            only(scene, [one_pass, literal, good].concat())
        },
    ),
    case(
        "M27",
        Signed,
        "a one-pass packet and no signature",
        MALFORMED,
        |maker, scene| {
            let [one_pass, literal, _] = maker.packets()?;
            only(scene, [one_pass, literal].concat())
        },
    ),
    case(
        "M28",
        Signed,
        "two texts under one signature",
        MALFORMED,
        |maker, scene| {
            let [one_pass, literal, good] = maker.packets()?;
            let other = packet(11, b"b\0\0\0\0\0{}");
            only(scene, [one_pass, literal, other, good].concat())
        },
    ),
    case(
        "M29",
        Signed,
        "another text under the signature",
        Signature(&["bad"]),
        |maker, scene| {
            let [one_pass, _, good] = maker.packets()?;
            let other = packet(11, b"b\0\0\0\0\0{\"critical\":{}}");
            only(scene, [one_pass, other, good].concat())
        },
    ),
    case(
        "M30",
        Signed,
        "a compressed message in a compressed one",
        MALFORMED,
        |_, scene| {
            let message = packet(
                8,
                &[
                    &[0],
                    &packet(8, &[&[0], &scene.signatures[0][..]].concat())[..],
                ]
                .concat(),
            );
            only(scene, message)
        },
    ),
    case(
        "M31",
        Signed,
        "a compressed bomb",
        Signature(&["too-large"]),
        |maker, scene| {
            let text = vec![b' '; 32 << 20];
            let bomb = maker
                .gpg
                .sign(&maker.alice.key, &text, &["--compress-level", "9"])?;
            anyhow::ensure!(bomb.len() < 1 << 20, "a bomb of {} bytes", bomb.len());
            only(scene, bomb)
        },
    ),
    case(
        "M32",
        Signed,
        "compressed by bzip2",
        UNSUPPORTED,
        |maker, scene| {
            only(
                scene,
                maker.by_gpg(&["--compress-algo", "bzip2", "--sign"])?,
            )
        },
    ),
    case(
        "M33",
        Signed,
        "text that may be changed on the way",
        UNSUPPORTED,
        |maker, scene| only(scene, maker.by_gpg(&["--textmode", "--sign"])?),
    ),
    case(
        "M34",
        Signed,
        "a marker before the message",
        MALFORMED,
        |_, scene| {
            let message = [&packet(10, b"PGP")[..], &scene.signatures[0]].concat();
            only(scene, message)
        },
    ),
    case(
        "M35",
        Signed,
        "padding behind the message",
        MALFORMED,
        |maker, scene| {
            let message = [maker.packets()?.concat(), packet(21, b"....")].concat();
            only(scene, message)
        },
    ),
    case(
        "M36",
        Signed,
        "a signature packet with a tail",
        MALFORMED,
        |maker, scene| {
            let [one_pass, literal, good] = maker.packets()?;
            let longer = packet(2, &[body(&good), b"x"].concat());
            only(scene, [one_pass, literal, longer].concat())
        },
    ),
    case(
        "M37",
        Signed,
        "a critical notation that nobody knows",
        UNSUPPORTED,
        |maker, scene| {
            only(
                scene,
                maker.by_gpg(&["--set-notation", "!a@b=c", "--sign"])?,
            )
        },
    ),
    case(
        "M38",
        Signed,
        "a signature of version 3",
        WEAK,
        |maker, scene| {
            let [_, literal, _] = maker.packets()?;
            let third = packet(
                2,
                &[&[3, 5, 0, 0, 0, 0, 0], &[1; 8][..], &[1, 8, 0, 0, 0, 1, 1]].concat(),
            );
            only(scene, [third, literal].concat())
        },
    ),
    case("M39", Signed, "hashed by SHA-1", WEAK, |maker, scene| {
        let key = maker.rsa()?;
        scene.files.insert("key.gpg", key.public.clone());
        only(
            scene,
            maker.gpg.sign(
                &key.key,
                maker.payload().as_bytes(),
                &["--digest-algo", "SHA1"],
            )?,
        )
    }),
    case("M40", Signed, "hashed by MD5", WEAK, |maker, scene| {
        let key = maker.rsa()?;
        scene.files.insert("key.gpg", key.public.clone());
        only(
            scene,
            maker.gpg.sign(
                &key.key,
                maker.payload().as_bytes(),
                &["--digest-algo", "MD5"],
            )?,
        )
    }),
    case(
        "M41",
        Signed,
        "hashed by RIPEMD-160",
        WEAK,
        |maker, scene| {
            let key = maker.rsa()?;
            scene.files.insert("key.gpg", key.public.clone());
            only(
                scene,
                maker.gpg.sign(
                    &key.key,
                    maker.payload().as_bytes(),
                    &["--digest-algo", "RIPEMD160"],
                )?,
            )
        },
    ),
    case(
        "M42",
        Signed,
        "a foreign signature under our one-pass packet",
        UNKNOWN,
        |maker, scene| {
            let [one_pass, literal, _] = maker.packets()?;
            let [_, _, foreign] = maker.packets_by(&maker.mallory)?;
            only(scene, [one_pass, literal, foreign].concat())
        },
    ),
    case(
        "M43",
        Signed,
        "a frame of an unknown format",
        UNSUPPORTED,
        |_, scene| {
            let message = [b"\0other\n", &scene.signatures[0][..]].concat();
            only(scene, message)
        },
    ),
    case(
        "M44",
        Signed,
        "a frame without its end",
        MALFORMED,
        |_, scene| only(scene, b"\0simple-signing".to_vec()),
    ),
    case(
        "M45",
        Signed,
        "a frame around a frame",
        MALFORMED,
        |_, scene| {
            let message = [
                b"\0simple-signing\n\0simple-signing\n",
                &scene.signatures[0][..],
            ]
            .concat();
            only(scene, message)
        },
    ),
    case(
        "M46",
        Signed,
        "a frame's name in other letters",
        UNSUPPORTED,
        |_, scene| {
            let message = [b"\0Simple-Signing\n", &scene.signatures[0][..]].concat();
            only(scene, message)
        },
    ),
    case("M47", Signed, "a public key", MALFORMED, |maker, scene| {
        only(scene, maker.alice.public.clone())
    }),
    case(
        "M48",
        Signed,
        "a message behind a byte-order mark",
        MALFORMED,
        |_, scene| {
            let message = ["\u{feff}".as_bytes(), &scene.signatures[0]].concat();
            only(scene, message)
        },
    ),
    case(
        "M49",
        Signed,
        "a message larger than any",
        Signature(&["too-large", "malformed"]),
        |_, scene| {
            let message = packet(8, &vec![0; 3 << 20]);
            only(scene, message)
        },
    ),
];
