// SPDX-License-Identifier: Apache-2.0
//! K: whose key it is, and whether it may sign.

use anyhow::{Context as _, Result};

use super::Family::{Either, Signed};
use super::maker::{Maker, Person};
use super::scene::{DIR, Scene};
use super::{Because, Case, EXPIRED, NO_KEYS, REVOKED, UNFIT, UNKNOWN, UNSUPPORTED, WEAK, case};
use crate::openpgp::packets;

const DAY_S: u64 = 24 * 60 * 60;
/// A day in 2024.
const THEN_S: u64 = 1_717_200_000;

/// Trusts a key, and takes what it signed.
fn trust(maker: &Maker, scene: &mut Scene, key: &Person, options: &[&str]) -> Result<()> {
    let payload = maker.payload();
    let message = maker.gpg.sign(&key.key, payload.as_bytes(), options)?;
    scene.files.insert("key.gpg", key.public.clone());
    scene.signatures = vec![message];
    Ok(())
}

impl Maker {
    fn person(&self, algorithm: &str, usage: &str, expire: &str) -> Result<Person> {
        let name = format!("{algorithm} {usage} {expire} {}", self.gpg.count()?);
        let key = self.gpg.make_key(&name, algorithm, usage, expire)?;
        let public = self.gpg.export(&key)?;
        Ok(Person { key, public })
    }

    /// A new key of RSA, which takes any hash.
    pub(super) fn rsa(&self) -> Result<Person> {
        self.person("rsa2048", "sign,cert", "0")
    }

    /// Does something at a time of its own.
    pub(super) fn at<T>(
        &mut self,
        seconds: u64,
        act: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.gpg.set_time(Some(seconds));
        let done = act(self);
        self.gpg.set_time(None);
        done
    }

    fn now_s(&self) -> Result<u64> {
        let now = std::time::SystemTime::now();
        Ok(now.duration_since(std::time::UNIX_EPOCH)?.as_secs())
    }
}

/// A key of 2024 with which the image was signed, then revoked for a reason.
fn revoked(maker: &mut Maker, scene: &mut Scene, reason: u8) -> Result<()> {
    let mut key = maker.at(THEN_S, |maker| {
        let key = maker.person("ed25519", "sign,cert", "0")?;
        trust(maker, scene, &key, &[])?;
        Ok(key)
    })?;
    maker.at(THEN_S + DAY_S, |maker| {
        maker.gpg.revoke(&key.key, None, reason)
    })?;
    key.public = maker.gpg.export(&key.key)?;
    scene.files.insert("key.gpg", key.public);
    Ok(())
}

/// A key with a subkey that signed the image, then something done to it.
fn with_subkey(
    maker: &mut Maker,
    scene: &mut Scene,
    expire: [&str; 2],
    act: impl FnOnce(&mut Maker, &str) -> Result<()>,
) -> Result<()> {
    let key = maker.at(THEN_S, |maker| {
        let key = maker.person("ed25519", "cert", expire[0])?.key;
        let subkey = maker.gpg.add_subkey(&key, "rsa2048", "sign", expire[1])?;
        let payload = maker.payload();
        let message = maker
            .gpg
            .sign(&format!("{subkey}!"), payload.as_bytes(), &[])?;
        scene.signatures = vec![message];
        Ok(key)
    })?;
    maker.at(THEN_S + DAY_S, |maker| act(maker, &key))?;
    scene.files.insert("key.gpg", maker.gpg.export(&key)?);
    Ok(())
}

/// Somebody's signing subkey under another's key, with a binding of `which` of the two.
fn stolen(maker: &mut Maker, scene: &mut Scene, own_binding: bool) -> Result<()> {
    let (victims, message) = {
        let key = maker.person("ed25519", "cert", "0")?.key;
        let subkey = maker.gpg.add_subkey(&key, "ed25519", "sign", "0")?;
        let payload = maker.payload();
        let message = maker
            .gpg
            .sign(&format!("{subkey}!"), payload.as_bytes(), &[])?;
        (packets(&maker.gpg.export(&key)?)?, message)
    };
    let thief = maker.person("ed25519", "cert", "0")?.key;
    maker.gpg.add_subkey(&thief, "ed25519", "sign", "0")?;
    let thiefs = packets(&maker.gpg.export(&thief)?)?;
    let at = |packets: &[Vec<u8>], number: usize| -> Result<Vec<u8>> {
        Ok(packets
            .get(number)
            .context("a key of five packets")?
            .clone())
    };
    let binding = at(if own_binding { &thiefs } else { &victims }, 4)?;
    let keys = [
        at(&thiefs, 0)?,
        at(&thiefs, 1)?,
        at(&thiefs, 2)?,
        at(&victims, 3)?,
        binding,
    ];
    scene.files.insert("key.gpg", keys.concat());
    scene.signatures = vec![message];
    Ok(())
}

pub(super) const CASES: &[Case] = &[
    case(
        "K01",
        Signed,
        "a key that nobody asks for",
        UNKNOWN,
        |maker, scene| {
            scene.signatures = vec![maker.sign_by(&maker.mallory, &maker.payload())?];
            Ok(())
        },
    ),
    case(
        "K02",
        Signed,
        "a key that is over",
        EXPIRED,
        |maker, scene| {
            maker.at(THEN_S, |maker| {
                let key = maker.person("ed25519", "sign,cert", "10d")?;
                trust(maker, scene, &key, &[])
            })
        },
    ),
    case(
        "K03",
        Signed,
        "a signature that is over",
        EXPIRED,
        |maker, scene| {
            maker.at(THEN_S, |maker| {
                let key = maker.person("ed25519", "sign,cert", "0")?;
                trust(maker, scene, &key, &["--default-sig-expire", "2d"])
            })
        },
    ),
    case(
        "K04",
        Signed,
        "a key that was revoked as compromised",
        REVOKED,
        |maker, scene| revoked(maker, scene, 1),
    ),
    case(
        "K05",
        Signed,
        "a key that was revoked as superseded",
        REVOKED,
        |maker, scene| revoked(maker, scene, 2),
    ),
    case(
        "K06",
        Signed,
        "a key that was revoked without a reason",
        REVOKED,
        |maker, scene| revoked(maker, scene, 0),
    ),
    case(
        "K07",
        Signed,
        "a subkey that was revoked",
        REVOKED,
        |maker, scene| {
            with_subkey(maker, scene, ["0", "0"], |maker, key| {
                maker.gpg.revoke(key, Some(1), 0)
            })
        },
    ),
    case(
        "K08",
        Signed,
        "a subkey that is over",
        EXPIRED,
        |maker, scene| with_subkey(maker, scene, ["0", "20d"], |_, _| Ok(())),
    ),
    case(
        "K09",
        Signed,
        "a living subkey of a key that is over",
        EXPIRED,
        |maker, scene| with_subkey(maker, scene, ["5d", "0"], |_, _| Ok(())),
    ),
    case(
        "K10",
        Signed,
        "a subkey that is for encryption only by now",
        UNFIT,
        |maker, scene| {
            with_subkey(maker, scene, ["0", "0"], |maker, key| {
                let answers = "key 1\nchange-usage\nS\nE\nQ\nsave\n";
                let arguments = [
                    "--command-fd",
                    "0",
                    "--pinentry-mode",
                    "loopback",
                    "--edit-key",
                    key,
                ];
                maker.gpg.run(&arguments, answers.as_bytes()).map(drop)
            })
        },
    ),
    case(
        "K11",
        Signed,
        "another's subkey with a binding of one's own",
        UNFIT,
        |maker, scene| stolen(maker, scene, true),
    ),
    case(
        "K12",
        Signed,
        "another's subkey with its old binding",
        UNFIT,
        |maker, scene| stolen(maker, scene, false),
    ),
    case("K13", Signed, "RSA of 1024 bits", WEAK, |maker, scene| {
        let key = maker.person("rsa1024", "sign,cert", "0")?;
        trust(maker, scene, &key, &["--digest-algo", "SHA256"])
    }),
    case("K14", Signed, "DSA of 1024 bits", WEAK, |maker, scene| {
        let key = maker.person("dsa1024", "sign,cert", "0")?;
        trust(maker, scene, &key, &["--digest-algo", "SHA256"])
    }),
    case(
        "K15",
        Signed,
        "a curve that we do not know",
        UNSUPPORTED,
        |maker, scene| {
            let key = maker.person("brainpoolP256r1", "sign,cert", "0")?;
            trust(maker, scene, &key, &[])
        },
    ),
    case(
        "K16",
        Signed,
        "a key that vouches for itself by SHA-1",
        WEAK,
        |maker, scene| {
            let make = [
                "--passphrase",
                "",
                "--cert-digest-algo",
                "SHA1",
                "--quick-gen-key",
                "sha1",
                "rsa2048",
                "sign,cert",
                "0",
            ];
            maker.gpg.run(&make, b"")?;
            let key = Person {
                key: "sha1".into(),
                public: maker.gpg.export("sha1")?,
            };
            trust(maker, scene, &key, &[])
        },
    ),
    case(
        "K17",
        Signed,
        "a clock that is a year behind: the key is not made yet",
        Because::Signature(&["expired", "key-unfit"]),
        |maker, scene| {
            let soon = maker.now_s()? + 365 * DAY_S;
            maker.at(soon, |maker| {
                let key = maker.person("ed25519", "sign,cert", "0")?;
                trust(maker, scene, &key, &[])
            })
        },
    ),
    case(
        "K18",
        Signed,
        "a clock that is a year behind: the signature is not made yet",
        EXPIRED,
        |maker, scene| {
            let key = maker.person("ed25519", "sign,cert", "0")?;
            let soon = maker.now_s()? + 365 * DAY_S;
            maker.at(soon, |maker| trust(maker, scene, &key, &[]))
        },
    ),
    case(
        "K19",
        Signed,
        "a clock that is a year ahead: the key is over",
        EXPIRED,
        |maker, scene| {
            let then = maker.now_s()? - 366 * DAY_S;
            maker.at(then, |maker| {
                let key = maker.person("ed25519", "sign,cert", "365d")?;
                trust(maker, scene, &key, &[])
            })
        },
    ),
    case("K20", Signed, "no file of keys", NO_KEYS, |_, scene| {
        scene.files.remove("key.gpg");
        Ok(())
    }),
    case(
        "K21",
        Signed,
        "an empty file of keys",
        NO_KEYS,
        |_, scene| {
            scene.files.insert("key.gpg", Vec::new());
            Ok(())
        },
    ),
    case(
        "K22",
        Signed,
        "a file of keys that is text",
        NO_KEYS,
        |_, scene| {
            scene.files.insert("key.gpg", b"any".to_vec());
            Ok(())
        },
    ),
    case(
        "K23",
        Signed,
        "a file of keys that ends in a key",
        NO_KEYS,
        |maker, scene| {
            let half = maker.alice.public.len() / 2;
            scene
                .files
                .insert("key.gpg", maker.alice.public[..half].to_vec());
            Ok(())
        },
    ),
    case(
        "K24",
        Signed,
        "a private key as the public one",
        NO_KEYS,
        |maker, scene| {
            let key = maker.alice.key.clone();
            let export = [
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
                "--export-secret-keys",
                &key,
            ];
            scene.files.insert("key.gpg", maker.gpg.run(&export, b"")?);
            Ok(())
        },
    ),
    case(
        "K25",
        Signed,
        "the signature as the file of keys",
        NO_KEYS,
        |_, scene| {
            let message = scene.signatures[0].clone();
            scene.files.insert("key.gpg", message);
            Ok(())
        },
    ),
    case(
        "K26",
        Signed,
        "a path of keys that is relative",
        NO_KEYS,
        |_, scene| scene.replace(&format!("{DIR}/key.gpg"), "key.gpg"),
    ),
    case(
        "K27",
        Signed,
        "a path of keys that is a directory",
        NO_KEYS,
        |_, scene| scene.replace(&format!("{DIR}/key.gpg"), DIR),
    ),
    case(
        "K28",
        Signed,
        "a path of keys that is a device",
        NO_KEYS,
        |_, scene| scene.replace(&format!("{DIR}/key.gpg"), "/dev/zero"),
    ),
    case(
        "K29",
        Either,
        "one of two files of keys is missing",
        NO_KEYS,
        |_, scene| {
            scene.files.remove("key.gpg");
            Ok(())
        },
    ),
    case(
        "K30",
        Either,
        "the key is revoked in the other file",
        REVOKED,
        |maker, scene| {
            let key = maker.at(THEN_S, |maker| {
                let key = maker.person("ed25519", "sign,cert", "0")?;
                trust(maker, scene, &key, &[])?;
                Ok(key)
            })?;
            maker.at(THEN_S + DAY_S, |maker| maker.gpg.revoke(&key.key, None, 1))?;
            scene.files.insert("other.gpg", maker.gpg.export(&key.key)?);
            Ok(())
        },
    ),
    case(
        "K31",
        Either,
        "signed by neither",
        UNKNOWN,
        |maker, scene| {
            scene.signatures = vec![maker.sign_by(&maker.mallory, &maker.payload())?];
            Ok(())
        },
    ),
    case(
        "K32",
        Signed,
        "another key of the same user ID",
        UNKNOWN,
        |maker, scene| {
            let again = [
                "--passphrase",
                "",
                "--quick-gen-key",
                "alice",
                "ed25519",
                "sign,cert",
                "0",
            ];
            maker.gpg.run(&again, b"")?;
            let keys = maker.gpg.fingerprints("=alice")?;
            let other = keys.iter().rev().find(|key| **key != maker.alice.key);
            let key = other.context("a second key of one name")?.clone();
            scene.signatures = vec![maker.gpg.sign(&key, maker.payload().as_bytes(), &[])?];
            Ok(())
        },
    ),
];
