// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes and configurations that try something.

use gantry_oci::Kind::{Corrupt, NotFound, Unsafe, Unsupported};
use serde_json::{Value, json};

use super::{Case, accept, reject};
use crate::image::{self, CONFIG, Image, LAYER_GZIP, Layer, MANIFEST, descriptor, digest};
use crate::tar::{file, join};

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        shapes(),
        json_texts(),
        descriptors(),
        configurations(),
        indexes(),
    ]
    .concat()
}

/// The tree of every image here that is accepted.
const TREE: &[&str] = &["/a \"x\""];

fn layer() -> Layer {
    Layer::gzip(&join(&[file("a", "x")]))
}

/// An image whose manifest was changed as a value.
fn manifest(change: fn(&mut Value)) -> Image {
    let image = Image::new(&[layer()]);
    let mut value: Value = serde_json::from_slice(&image.manifest).unwrap_or_default();
    change(&mut value);
    Image {
        manifest: value.to_string().into(),
        ..image
    }
}

/// The same over a layer that no other case has: a store does not read again what it knows.
fn manifest_of(id: &str, change: fn(&mut Value)) -> Image {
    let image = Image::new(&[Layer::gzip(&join(&[file("a", id)]))]);
    let mut value: Value = serde_json::from_slice(&image.manifest).unwrap_or_default();
    change(&mut value);
    Image {
        manifest: value.to_string().into(),
        ..image
    }
}

/// An image whose manifest was changed as a text.
fn text(change: fn(String) -> String) -> Image {
    let image = Image::new(&[layer()]);
    let text = change(String::from_utf8_lossy(&image.manifest).into_owned());
    Image {
        manifest: text.into(),
        ..image
    }
}

/// An image whose manifest is these bytes.
fn bytes(manifest: impl Into<Vec<u8>>) -> Image {
    Image {
        manifest: manifest.into(),
        ..Image::new(&[layer()])
    }
}

/// An image whose configuration was changed as a value.
fn config(change: fn(&mut Value)) -> Image {
    let layers = [layer()];
    let mut value: Value = serde_json::from_slice(&image::config(&layers)).unwrap_or_default();
    change(&mut value);
    Image::with_config(&layers, value.to_string().as_bytes())
}

/// An image whose configuration is these bytes.
fn config_bytes(bytes: &[u8]) -> Image {
    Image::with_config(&[layer()], bytes)
}

fn shapes() -> Vec<Case> {
    vec![
        reject("J1", "a manifest and an index at once", Unsafe, |_| {
            manifest(|m| m["manifests"] = json!([]))
        }),
        accept(
            "J2",
            "a manifest that does not say what it is",
            |_| manifest(|m| drop(m.as_object_mut().and_then(|m| m.remove("mediaType")))),
            TREE,
        ),
        reject(
            "J2b",
            "a manifest that calls itself an index",
            Corrupt,
            |_| manifest(|m| m["mediaType"] = json!(image::INDEX)),
        ),
        reject("J2c", "a media type in capitals", Corrupt, |_| {
            manifest(|m| m["mediaType"] = json!(MANIFEST.to_uppercase()))
        }),
        reject(
            "J2d",
            "a manifest that comes as one of Docker's",
            Corrupt,
            |_| Image {
                media_type: "application/vnd.docker.distribution.manifest.v2+json".to_owned(),
                ..Image::new(&[layer()])
            },
        ),
        reject("J2e", "a manifest that comes as an index", Corrupt, |_| {
            Image {
                media_type: image::INDEX.to_owned(),
                ..Image::new(&[layer()])
            }
        }),
        reject("J5", "more layers than any image has", Unsafe, |_| {
            manifest(|m| m["layers"] = json!(vec![m["layers"][0].clone(); 501]))
        }),
        reject("J13", "annotations of 4 MiB", Unsafe, |_| {
            manifest(|m| m["annotations"] = json!({"a": "x".repeat(4 << 20)}))
        }),
        accept(
            "J13b",
            "annotations with control characters",
            |_| manifest(|m| m["annotations"] = json!({"\u{1b}]0;x\u{7}": "\u{1b}[2J\0\n"})),
            TREE,
        ),
        reject("J14", "schema 1", Unsupported, |_| {
            bytes(
                r#"{"schemaVersion":1,"name":"a","tag":"b","architecture":"amd64","fsLayers":[],"history":[]}"#,
            )
        }),
        reject(
            "J14b",
            "schema 1 in the clothes of schema 2",
            Unsupported,
            |_| manifest(|m| m["fsLayers"] = json!([])),
        ),
        reject("J14c", "schema version 3", Unsupported, |_| {
            manifest(|m| m["schemaVersion"] = json!(3))
        }),
        reject("J14d", "a schema version that is a text", Corrupt, |_| {
            manifest(|m| m["schemaVersion"] = json!("2"))
        }),
        reject("J14e", "no schema version", Unsupported, |_| {
            manifest(|m| drop(m.as_object_mut().and_then(|m| m.remove("schemaVersion"))))
        }),
        accept(
            "J15",
            "an image that has an artifact type too",
            |_| manifest(|m| m["artifactType"] = json!("application/vnd.example")),
            TREE,
        ),
        reject(
            "J15b",
            "a layer of a type that is no layer's",
            Unsupported,
            |_| {
                manifest_of("J15b", |m| {
                    m["layers"][0]["mediaType"] = json!("application/vnd.example")
                })
            },
        ),
        reject("J26", "an encrypted layer", Unsupported, |_| {
            manifest_of("J26", |m| {
                m["layers"][0]["mediaType"] = json!(format!("{LAYER_GZIP}+encrypted"))
            })
        }),
        accept(
            "J23",
            "a subject that nobody has",
            |_| manifest(|m| m["subject"] = descriptor(MANIFEST, b"nobody's")),
            TREE,
        ),
        reject("J29", "layers that are null", Corrupt, |_| {
            manifest(|m| m["layers"] = Value::Null)
        }),
        accept(
            "J29b",
            "annotations that are null",
            |_| manifest(|m| m["annotations"] = Value::Null),
            TREE,
        ),
        reject("J29c", "a configuration that is null", Corrupt, |_| {
            manifest(|m| m["config"] = Value::Null)
        }),
        reject("J30", "layers that are an object", Corrupt, |_| {
            manifest(|m| m["layers"] = json!({}))
        }),
        reject("J31", "a media type that is a number", Corrupt, |_| {
            manifest(|m| m["mediaType"] = json!(2))
        }),
    ]
}

fn json_texts() -> Vec<Case> {
    vec![
        reject("J3", "a member twice", Corrupt, |_| {
            text(|t| t.replacen('{', "{\"schemaVersion\":2,", 1))
        }),
        reject("J3b", "a descriptor's member twice", Corrupt, |_| {
            text(|t| t.replacen("\"size\":", "\"size\":1,\"size\":", 1))
        }),
        reject("J3c", "a member twice, once in escapes", Corrupt, |_| {
            text(|t| t.replacen('{', "{\"layer\\u0073\":[],", 1))
        }),
        reject("J3d", "an annotation twice", Corrupt, |_| {
            text(|t| t.replacen('{', "{\"annotations\":{\"a\":\"1\",\"a\":\"2\"},", 1))
        }),
        reject("J3e", "a member twice where nobody looks", Corrupt, |_| {
            text(|t| t.replacen('{', "{\"x\":[{\"a\":1,\"a\":1}],", 1))
        }),
        reject("J4", "100,000 brackets", Corrupt, |_| {
            text(|t| {
                t.replacen(
                    '{',
                    &format!("{{\"x\":{}{},", "[".repeat(100_000), "]".repeat(100_000)),
                    1,
                )
            })
        }),
        reject("J4b", "100,000 brackets that never close", Corrupt, |_| {
            bytes("[".repeat(100_000))
        }),
        reject("J21", "a byte order mark", Corrupt, |_| {
            text(|t| format!("\u{feff}{t}"))
        }),
        reject("J21b", "UTF-16", Corrupt, |_| {
            let image = Image::new(&[layer()]);
            bytes(
                image
                    .manifest
                    .iter()
                    .flat_map(|byte| [*byte, 0])
                    .collect::<Vec<u8>>(),
            )
        }),
        reject("J21c", "bytes after the document", Corrupt, |_| {
            text(|t| t + "{}")
        }),
        reject("J21d", "a comment", Corrupt, |_| {
            text(|t| format!("// x\n{t}"))
        }),
        reject("J21e", "NaN", Corrupt, |_| {
            text(|t| t.replacen('{', "{\"x\":NaN,", 1))
        }),
        reject("J21f", "half of a surrogate pair", Corrupt, |_| {
            text(|t| t.replacen('{', "{\"x\":\"\\ud800\",", 1))
        }),
        reject("J21g", "a byte that is no UTF-8", Corrupt, |_| {
            let text = Image::new(&[layer()]).manifest;
            bytes([&b"{\"x\":\"\xff\","[..], &text[1..]].concat())
        }),
        reject("J21h", "a trailing comma", Corrupt, |_| {
            text(|t| format!("{},}}", t.trim_end_matches('}')))
        }),
        reject("J22", "a number beyond all bounds", Corrupt, |_| {
            text(|t| t.replacen('{', "{\"x\":1e999,", 1))
        }),
        reject("J50", "no bytes", Corrupt, |_| bytes("")),
        reject("J50b", "null", Corrupt, |_| bytes("null")),
        reject("J50c", "a list", Corrupt, |_| bytes("[]")),
        reject("J50d", "nothing in it", Unsupported, |_| bytes("{}")),
        reject("J50e", "HTML", Corrupt, |_| bytes("<html></html>")),
    ]
}

fn descriptors() -> Vec<Case> {
    vec![
        reject("J7", "a negative size", Corrupt, |_| {
            manifest(|m| m["layers"][0]["size"] = json!(-1))
        }),
        reject("J7b", "a size of 2^64", Corrupt, |_| {
            text(|t| t.replacen("\"size\":", "\"size\":18446744073709551616,\"x\":", 1))
        }),
        reject("J7c", "a size with a fraction", Corrupt, |_| {
            manifest(|m| m["layers"][0]["size"] = json!(1.5))
        }),
        reject("J7d", "a size that is a text", Corrupt, |_| {
            manifest(|m| m["layers"][0]["size"] = json!("1"))
        }),
        reject("J7e", "a size that is none", Corrupt, |_| {
            manifest(|m| {
                drop(
                    m["layers"][0]
                        .as_object_mut()
                        .and_then(|l| l.remove("size")),
                )
            })
        }),
        reject("J8", "a digest that is a path", Corrupt, |_| {
            manifest(|m| m["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd"))
        }),
        reject("J8b", "a digest in capitals", Corrupt, |_| {
            manifest(|m| m["layers"][0]["digest"] = json!(format!("sha256:{}", "A".repeat(64))))
        }),
        reject("J8c", "a digest that is too short", Corrupt, |_| {
            manifest(|m| m["layers"][0]["digest"] = json!("sha256:00"))
        }),
        reject(
            "J8d",
            "a digest of an algorithm that is broken",
            Corrupt,
            |_| {
                manifest(|m| {
                    m["layers"][0]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e")
                })
            },
        ),
        reject("J8e", "a digest that is nothing", Corrupt, |_| {
            manifest(|m| m["config"]["digest"] = json!(""))
        }),
        reject("J8f", "a blob that nobody has", NotFound, |_| {
            manifest_of("J8f", |m| {
                m["layers"][0]["digest"] = json!(digest(b"nobody's"))
            })
        }),
        reject(
            "J9",
            "a layer's size that is one too small",
            Corrupt,
            |_| {
                manifest_of("J9", |m| {
                    m["layers"][0]["size"] =
                        json!(m["layers"][0]["size"].as_u64().map(|size| size - 1))
                })
            },
        ),
        reject(
            "J9b",
            "a configuration's size that is one too large",
            Corrupt,
            |_| {
                manifest(|m| {
                    m["config"]["size"] = json!(m["config"]["size"].as_u64().map(|size| size + 1))
                })
            },
        ),
        reject("J10", "a layer as the configuration", Corrupt, |_| {
            manifest(|m| {
                m["config"]["digest"] = m["layers"][0]["digest"].clone();
                m["config"]["size"] = m["layers"][0]["size"].clone();
            })
        }),
        accept(
            "J11",
            "URLs elsewhere, which nobody follows",
            |_| {
                manifest(|m| {
                    m["layers"][0]["urls"] = json!([
                        "file:///etc/passwd",
                        "http://user:secret@169.254.169.254/",
                        "javascript:x"
                    ]);
                })
            },
            TREE,
        ),
        accept(
            "J12",
            "inline data that is something else is not read",
            |_| manifest(|m| m["config"]["data"] = json!("e30=")),
            TREE,
        ),
        accept(
            "J41",
            "a layer twice",
            |_| Image::new(&[layer(), layer()]),
            TREE,
        ),
    ]
}

fn configurations() -> Vec<Case> {
    vec![
        reject("J16", "fewer diffIDs than layers", Corrupt, |_| {
            config(|c| c["rootfs"]["diff_ids"] = json!([]))
        }),
        reject("J16b", "more diffIDs than layers", Corrupt, |_| {
            config(|c| c["rootfs"]["diff_ids"] = json!([digest(b"1"), digest(b"2")]))
        }),
        reject("J16c", "diffIDs in another order", Corrupt, |_| {
            let layers = ["J16c-1", "J16c-2"].map(|text| Layer::gzip(&join(&[file("a", text)])));
            let swapped = [layers[1].clone(), layers[0].clone()];
            Image::with_config(&layers, &image::config(&swapped))
        }),
        reject("J16d", "a diffID that is a path", Corrupt, |_| {
            config(|c| c["rootfs"]["diff_ids"] = json!(["../../x"]))
        }),
        accept(
            "J17",
            "a history of other layers",
            |_| {
                config(|c| {
                    c["history"] =
                        json!([{"created_by": "x"}, {"created_by": "y"}, {"empty_layer": true}])
                })
            },
            TREE,
        ),
        accept(
            "J18",
            "no platform",
            |_| {
                config(|c| {
                    if let Some(members) = c.as_object_mut() {
                        members.remove("os");
                        members.remove("architecture");
                    }
                })
            },
            TREE,
        ),
        accept(
            "J18b",
            "a platform of junk",
            |_| {
                config(|c| {
                    c["os"] = json!("../../linux\n");
                    c["variant"] = json!("\u{1b}[2J");
                })
            },
            TREE,
        ),
        accept(
            "J19",
            "hostile values, which are checked where they are used",
            |_| {
                config(|c| {
                    c["config"] = json!({
                        "User": "4294967296:../../etc", "WorkingDir": "/proc/self/fd/9/../..",
                        "Env": ["*", "=x", "NOEQUALS", "LD_PRELOAD=/x", ""], "Entrypoint": [""], "Cmd": ["\u{1b}[2J"],
                        "Volumes": {"/../..": {}, "/proc": {}, "": {}}, "ExposedPorts": {"-1/x": {}, "99999999": {}},
                        "Labels": {"io.gantry.x": "y", "\u{1b}": "\0"}, "StopSignal": "SIG\n9",
                        "Healthcheck": {"Test": [1], "Interval": -1},
                    });
                })
            },
            TREE,
        ),
        reject("J19b", "values of the wrong type", Corrupt, |_| {
            config(|c| c["config"] = json!({"Env": {"A": "b"}}))
        }),
        accept(
            "J20",
            "times that are none",
            |_| config(|c| c["created"] = json!("yesterday")),
            TREE,
        ),
        reject(
            "J32",
            "a configuration that nests 100 deep",
            Corrupt,
            |_| config(|c| c["x"] = (0..100).fold(json!(1), |inner, _| json!([inner]))),
        ),
        reject("J33", "a configuration of 4 MiB and some", Unsafe, |_| {
            config(|c| c["x"] = json!("x".repeat(4 << 20)))
        }),
        reject("J34", "a configuration that is no JSON", Corrupt, |_| {
            config_bytes(b"configuration")
        }),
        reject("J35", "a configuration without layers", Corrupt, |_| {
            config_bytes(b"{}")
        }),
        reject("J36", "a root file system of another type", Corrupt, |_| {
            config(|c| c["rootfs"]["type"] = json!("windows"))
        }),
        reject(
            "J45",
            "a configuration behind a byte order mark",
            Corrupt,
            |_| {
                let config = image::config(&[layer()]);
                config_bytes(&[b"\xef\xbb\xbf", &config[..]].concat())
            },
        ),
        reject("J46", "a configuration's member twice", Corrupt, |_| {
            let config = image::config(&[layer()]);
            config_bytes(&[b"{\"os\":\"other\",", &config[1..]].concat())
        }),
        reject("J47", "an empty configuration", Corrupt, |_| {
            config_bytes(b"")
        }),
    ]
}

fn one() -> Image {
    Image::new(&[layer()])
}

fn index_with(change: fn(&mut Value)) -> Image {
    let mut entry = one().entry();
    change(&mut entry);
    Image::index(&[one()], &[entry])
}

fn indexes() -> Vec<Case> {
    vec![
        accept("J60", "an index of one image", |_| index_with(|_| ()), TREE),
        reject("J5b", "more entries than any index has", Unsafe, |_| {
            Image::index(&[one()], &vec![one().entry(); 4097])
        }),
        reject("J6", "an entry that nobody has", NotFound, |_| {
            index_with(|e| e["digest"] = json!(digest(b"nobody's")))
        }),
        reject("J9c", "an entry of another size", Corrupt, |_| {
            index_with(|e| e["size"] = json!(1))
        }),
        reject("J9d", "an entry of another type", Corrupt, |_| {
            index_with(|e| {
                e["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json")
            })
        }),
        reject("J9e", "an image that is called an index", Corrupt, |_| {
            index_with(|e| e["mediaType"] = json!(image::INDEX))
        }),
        reject("J9f", "a configuration as an entry", Unsupported, |_| {
            let config = &one().blobs[0];
            let mut entry = descriptor(CONFIG, config);
            entry["platform"] = one().entry()["platform"].clone();
            Image::index(&[one()], &[entry])
        }),
        accept(
            "J18c",
            "two entries for one platform: the first counts",
            |_| {
                let second = Image::new(&[Layer::gzip(&join(&[file("a", "second")]))]);
                Image::index(&[one(), second.clone()], &[one().entry(), second.entry()])
            },
            TREE,
        ),
        reject("J6b", "an index as deep as no reader goes", Unsafe, |_| {
            (0..12).fold(one(), |inner, _| {
                let entry = inner.entry();
                Image::index(&[inner], &[entry])
            })
        }),
    ]
}
