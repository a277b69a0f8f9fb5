// SPDX-License-Identifier: Apache-2.0
//! S attachments · B bundles · C certificates · L the log.

use serde_json::json;

use super::{
    Attachment, BUNDLE_TYPE, CERTIFICATE, CHAIN, LEAF, SIGNATURE, authority, bundle_of,
    bundle_statement, bundle_stating, bundled, certificate, certified, framed_bundle, logged,
    statement, stating, stored,
};
use crate::corpus::bypass::Family::{Attached, Bundled, Certified, Logged, Signed};
use crate::corpus::bypass::maker::base64;
use crate::corpus::bypass::{
    Because, Case, EXPIRED, MALFORMED, NO_KEYS, OTHER_DIGEST, OTHER_IDENTITY, PAYLOAD, UNFIT,
    UNKNOWN, UNSUPPORTED, case,
};

const CERTIFICATES: Because = Because::Signature(&["certificate"]);
const IN_LOG: Because = Because::Signature(&["log"]);

pub(in crate::corpus::bypass) const CASES: &[Case] = &[
    case(
        "S01",
        Attached,
        "no signature",
        Because::Unsigned,
        |_, scene| {
            scene.signatures.clear();
            Ok(())
        },
    ),
    case("S02", Attached, "another key", UNKNOWN, |maker, scene| {
        scene.signatures = vec![Attachment::new(maker, "stranger", &statement(maker))?.stored()];
        Ok(())
    }),
    case(
        "S03",
        Attached,
        "a payload that is longer by a space",
        UNKNOWN,
        |maker, scene| {
            let mut attachment = Attachment::good(maker)?;
            attachment.payload.push(b' ');
            scene.signatures = vec![attachment.stored()];
            Ok(())
        },
    ),
    case(
        "S04",
        Attached,
        "the signature of another payload",
        UNKNOWN,
        |maker, scene| {
            let mut attachment = Attachment::good(maker)?;
            attachment.set(SIGNATURE, base64(maker.sign_bytes("team", b"{}")?));
            scene.signatures = vec![attachment.stored()];
            Ok(())
        },
    ),
    case(
        "S05",
        Attached,
        "a signature that is no base64",
        MALFORMED,
        |maker, scene| stored(maker, scene, |it| it["annotations"][SIGNATURE] = json!("*")),
    ),
    case(
        "S06",
        Attached,
        "no signature beside the payload",
        MALFORMED,
        |maker, scene| stored(maker, scene, |it| it["annotations"] = json!({})),
    ),
    case(
        "S07",
        Attached,
        "an unknown member",
        MALFORMED,
        |maker, scene| stored(maker, scene, |it| it["x"] = json!(1)),
    ),
    case(
        "S08",
        Attached,
        "another media type",
        UNSUPPORTED,
        |maker, scene| {
            stored(maker, scene, |it| {
                it["mimeType"] = json!("application/json")
            })
        },
    ),
    case(
        "S09",
        Attached,
        "the media type of a bundle",
        MALFORMED,
        |maker, scene| stored(maker, scene, |it| it["mimeType"] = json!(BUNDLE_TYPE)),
    ),
    case(
        "S10",
        Attached,
        "a payload that is no base64",
        MALFORMED,
        |maker, scene| stored(maker, scene, |it| it["payload"] = json!("*")),
    ),
    case(
        "S11",
        Attached,
        "the payload twice",
        MALFORMED,
        |maker, scene| {
            let text = Attachment::good(maker)?.json().to_string();
            let text = text.replacen('{', "{\"payload\":\"e30=\",", 1);
            scene.signatures = vec![[b"\0sigstore-json\n", text.as_bytes()].concat()];
            Ok(())
        },
    ),
    case(
        "S12",
        Attached,
        "another manifest",
        OTHER_DIGEST,
        |maker, scene| {
            stating(maker, scene, |it| {
                it["critical"]["image"]["docker-manifest-digest"] =
                    json!(format!("sha256:{}", "0".repeat(64)));
            })
        },
    ),
    case(
        "S13",
        Attached,
        "another reference",
        OTHER_IDENTITY,
        |maker, scene| {
            stating(maker, scene, |it| {
                it["critical"]["identity"]["docker-reference"] =
                    json!("registry.example/team/app:v1");
            })
        },
    ),
    case(
        "S14",
        Attached,
        "the type of simple signing",
        PAYLOAD,
        |maker, scene| {
            stating(maker, scene, |it| {
                it["critical"]["type"] = json!("atomic container signature")
            })
        },
    ),
    case(
        "S15",
        Attached,
        "an unknown member in critical",
        PAYLOAD,
        |maker, scene| stating(maker, scene, |it| it["critical"]["x"] = json!(1)),
    ),
    case(
        "S16",
        Attached,
        "critical is null",
        PAYLOAD,
        |maker, scene| stating(maker, scene, |it| it["critical"] = json!(null)),
    ),
    case(
        "S17",
        Attached,
        "a simple signature by a trusted person",
        UNSUPPORTED,
        |maker, scene| {
            scene.signatures = vec![maker.sign(&maker.payload())?];
            Ok(())
        },
    ),
    case(
        "S18",
        Signed,
        "a sigstore signature by a trusted key",
        UNSUPPORTED,
        |maker, scene| {
            scene.signatures = vec![Attachment::good(maker)?.stored()];
            Ok(())
        },
    ),
    case(
        "S19",
        Attached,
        "no file of the key",
        NO_KEYS,
        |_, scene| {
            scene.files.remove("team.pub");
            Ok(())
        },
    ),
    case(
        "S20",
        Attached,
        "a private key as the public one",
        NO_KEYS,
        |maker, scene| {
            let file = maker.path(&maker.private_key("team")?);
            scene.files.insert("team.pub", std::fs::read(file)?);
            Ok(())
        },
    ),
    case(
        "S21",
        Attached,
        "a certificate as the key",
        NO_KEYS,
        |maker, scene| {
            let leaf = certificate(maker, "root", "team", LEAF, "30")?;
            scene.files.insert("team.pub", leaf.into());
            Ok(())
        },
    ),
    case(
        "S22",
        Attached,
        "two keys in the key's file",
        NO_KEYS,
        |maker, scene| {
            let two = [maker.public_pem("stranger")?, maker.public_pem("team")?].concat();
            scene.files.insert("team.pub", two);
            Ok(())
        },
    ),
    case(
        "S23",
        Attached,
        "RSA of 1024 bits",
        NO_KEYS,
        |maker, scene| {
            maker.openssl(&["genrsa", "-out", "weak.key", "1024"])?;
            scene.files.insert("team.pub", maker.public_pem("weak")?);
            let good = statement(maker);
            scene.signatures = vec![Attachment::new(maker, "weak", &good)?.stored()];
            Ok(())
        },
    ),
    case(
        "S24",
        Attached,
        "a certificate that the signer sent of himself",
        UNKNOWN,
        |maker, scene| {
            let mut attachment = Attachment::new(maker, "stranger", &statement(maker))?;
            attachment.set(
                CERTIFICATE,
                certificate(maker, "foreign", "stranger", LEAF, "30")?,
            );
            scene.signatures = vec![attachment.stored()];
            Ok(())
        },
    ),
    case("B01", Bundled, "another key", UNKNOWN, |maker, scene| {
        let bundle = bundle_of(maker, "stranger", &bundle_statement(maker))?;
        scene.signatures = vec![framed_bundle(&bundle.to_string())];
        Ok(())
    }),
    case(
        "B02",
        Bundled,
        "the media type of version 0.2",
        UNSUPPORTED,
        |maker, scene| {
            bundled(maker, scene, |it| {
                it["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2")
            })
        },
    ),
    case(
        "B03",
        Bundled,
        "another payload type",
        UNKNOWN,
        |maker, scene| {
            bundled(maker, scene, |it| {
                it["dsseEnvelope"]["payloadType"] = json!("text/plain")
            })
        },
    ),
    case(
        "B04",
        Bundled,
        "another statement under the signature",
        UNKNOWN,
        |maker, scene| {
            bundled(maker, scene, |it| {
                it["dsseEnvelope"]["payload"] = json!(base64("{}"))
            })
        },
    ),
    case(
        "B05",
        Bundled,
        "two signatures",
        MALFORMED,
        |maker, scene| {
            bundled(maker, scene, |it| {
                let signature = it["dsseEnvelope"]["signatures"][0].clone();
                it["dsseEnvelope"]["signatures"] = json!([signature.clone(), signature]);
            })
        },
    ),
    case("B06", Bundled, "no signature", MALFORMED, |maker, scene| {
        bundled(maker, scene, |it| {
            it["dsseEnvelope"]["signatures"] = json!([])
        })
    }),
    case(
        "B07",
        Bundled,
        "an unknown member",
        MALFORMED,
        |maker, scene| bundled(maker, scene, |it| it["x"] = json!(1)),
    ),
    case("B08", Bundled, "two contents", MALFORMED, |maker, scene| {
        bundled(maker, scene, |it| {
            it["messageSignature"] =
                json!({"messageDigest": {"algorithm": "SHA2_256", "digest": ""}, "signature": ""});
        })
    }),
    case(
        "B09",
        Bundled,
        "a member twice",
        MALFORMED,
        |maker, scene| {
            let bundle = bundle_of(maker, "team", &bundle_statement(maker))?.to_string();
            let twice = bundle.replacen('{', "{\"dsseEnvelope\":{},", 1);
            scene.signatures = vec![framed_bundle(&twice)];
            Ok(())
        },
    ),
    case(
        "B10",
        Bundled,
        "another image",
        OTHER_DIGEST,
        |maker, scene| {
            bundle_stating(maker, scene, |it| {
                it["subject"][0]["digest"]["sha256"] = json!("0".repeat(64))
            })
        },
    ),
    case(
        "B11",
        Bundled,
        "another reference",
        OTHER_IDENTITY,
        |maker, scene| {
            bundle_stating(maker, scene, |it| {
                it["subject"][0]["name"] = json!("registry.example/team/app:v1")
            })
        },
    ),
    case(
        "B12",
        Bundled,
        "no reference",
        OTHER_IDENTITY,
        |maker, scene| {
            bundle_stating(maker, scene, |it| {
                drop(
                    it["subject"][0]
                        .as_object_mut()
                        .map(|subject| subject.remove("name")),
                );
            })
        },
    ),
    case(
        "B13",
        Bundled,
        "a statement of something else",
        PAYLOAD,
        |maker, scene| {
            bundle_stating(maker, scene, |it| {
                it["predicateType"] = json!("https://slsa.dev/provenance/v1")
            })
        },
    ),
    case(
        "B14",
        Bundled,
        "a statement of an unknown version",
        PAYLOAD,
        |maker, scene| {
            bundle_stating(maker, scene, |it| {
                it["_type"] = json!("https://in-toto.io/Statement/v9")
            })
        },
    ),
    case(
        "B15",
        Bundled,
        "a statement about nothing",
        PAYLOAD,
        |maker, scene| bundle_stating(maker, scene, |it| it["subject"] = json!([])),
    ),
    case(
        "C01",
        Certified,
        "no certificate",
        CERTIFICATES,
        |maker, scene| {
            scene.signatures = vec![Attachment::good(maker)?.stored()];
            Ok(())
        },
    ),
    case(
        "C02",
        Certified,
        "a certificate that is over",
        EXPIRED,
        |maker, scene| {
            // OpenSSL counts days from now on; a certificate of no days is over when it is made.
            let leaf = certificate(maker, "root", "team", LEAF, "0")?;
            std::thread::sleep(std::time::Duration::from_millis(1100));
            certified(maker, scene, &leaf)
        },
    ),
    case(
        "C03",
        Certified,
        "a certificate of another authority",
        CERTIFICATES,
        |maker, scene| {
            let leaf = certificate(maker, "foreign", "team", LEAF, "30")?;
            certified(maker, scene, &leaf)
        },
    ),
    case(
        "C04",
        Certified,
        "another authority that comes along",
        CERTIFICATES,
        |maker, scene| {
            let leaf = certificate(maker, "foreign", "team", LEAF, "30")?;
            certified(maker, scene, &leaf)?;
            let mut attachment = Attachment::good(maker)?;
            attachment.set(CERTIFICATE, leaf);
            let root = std::fs::read_to_string(maker.path(&authority(maker, "foreign")?))?;
            attachment.set(CHAIN, root);
            scene.signatures = vec![attachment.stored()];
            Ok(())
        },
    ),
    case(
        "C05",
        Certified,
        "a certificate of somebody else",
        CERTIFICATES,
        |maker, scene| {
            let other = LEAF.replace("alice@", "mallory@");
            let leaf = certificate(maker, "root", "team", &other, "30")?;
            certified(maker, scene, &leaf)
        },
    ),
    case(
        "C06",
        Certified,
        "a certificate of nobody",
        CERTIFICATES,
        |maker, scene| {
            let leaf = certificate(maker, "root", "team", "extendedKeyUsage=codeSigning", "30")?;
            certified(maker, scene, &leaf)
        },
    ),
    case(
        "C07",
        Certified,
        "a certificate for another key",
        Because::Signature(&["bad"]),
        |maker, scene| {
            let leaf = certificate(maker, "root", "stranger", LEAF, "30")?;
            certified(maker, scene, &leaf)
        },
    ),
    case(
        "C08",
        Certified,
        "a certificate that is none",
        Because::Signature(&["certificate", "malformed"]),
        |maker, scene| {
            certified(
                maker,
                scene,
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            )
        },
    ),
    case("C09", Certified, "no file of roots", NO_KEYS, |_, scene| {
        scene.files.remove("roots.pem");
        Ok(())
    }),
    case(
        "C10",
        Certified,
        "a server's certificate",
        UNFIT,
        |maker, scene| {
            let server = LEAF.replace("codeSigning", "serverAuth");
            let leaf = certificate(maker, "root", "team", &server, "30")?;
            certified(maker, scene, &leaf)
        },
    ),
    case("L01", Logged, "not in the log", IN_LOG, |maker, scene| {
        scene.signatures = vec![Attachment::good(maker)?.stored()];
        Ok(())
    }),
    case("L02", Logged, "in another log", IN_LOG, |maker, scene| {
        logged(maker, scene, |entry| entry.log = "stranger", |_| ())
    }),
    case(
        "L03",
        Logged,
        "the entry of another payload",
        IN_LOG,
        |maker, scene| logged(maker, scene, |entry| entry.payload = b"{}".to_vec(), |_| ()),
    ),
    case(
        "L04",
        Logged,
        "the entry of another signature",
        IN_LOG,
        |maker, scene| {
            let other = base64(maker.sign_bytes("team", b"{}")?);
            logged(maker, scene, |entry| entry.signature = other, |_| ())
        },
    ),
    case(
        "L05",
        Logged,
        "the entry of another key",
        IN_LOG,
        |maker, scene| {
            let other = maker.public_pem("stranger")?;
            logged(maker, scene, |entry| entry.signer = other, |_| ())
        },
    ),
    case(
        "L06",
        Logged,
        "another kind of entry",
        UNSUPPORTED,
        |maker, scene| logged(maker, scene, |entry| entry.kind = "intoto", |_| ()),
    ),
    case(
        "L07",
        Logged,
        "another time than the log's",
        IN_LOG,
        |maker, scene| {
            logged(
                maker,
                scene,
                |_| (),
                |it| it["Payload"]["integratedTime"] = json!(1_600_000_000),
            )
        },
    ),
    case(
        "L08",
        Logged,
        "another place than the log's",
        IN_LOG,
        |maker, scene| {
            logged(
                maker,
                scene,
                |_| (),
                |it| it["Payload"]["logIndex"] = json!(1),
            )
        },
    ),
    case(
        "L09",
        Logged,
        "an entry without its promise",
        IN_LOG,
        |maker, scene| {
            logged(
                maker,
                scene,
                |_| (),
                |it| it["SignedEntryTimestamp"] = json!(""),
            )
        },
    ),
    case(
        "L10",
        Logged,
        "no file of the log's key",
        NO_KEYS,
        |_, scene| {
            scene.files.remove("log.pub");
            Ok(())
        },
    ),
];
