// SPDX-License-Identifier: Apache-2.0
//! The payload of simple signing: a small JSON document that says "this
//! digest is that reference".
//!
//! ```json
//! {"critical": {"identity": {"docker-reference": "registry.example/app:v1"},
//!               "image": {"docker-manifest-digest": "sha256:…"},
//!               "type": "atomic container signature"},
//!  "optional": {"creator": "gantry 0.1.0", "timestamp": 1600000000}}
//! ```
//!
//! Reading is strict: in `critical` a member that is unknown or stands twice
//! makes the whole invalid, since a reader that passes over it would believe
//! something else than the signer said.
//!
//! # Source
//! containers-signature(5).

use std::time::SystemTime;

use gantry_oci::{ManifestDigest, Reference, strict_json};
use serde_json::{Map, Value, json};

use crate::claim::Claim;
use crate::refusal::{Reason, Refusal};

/// What `critical.type` must be.
const TYPE: &str = "atomic container signature";

/// How deep a payload may nest: what signers add under `optional` is theirs.
const DEPTH: usize = 16;

fn refuse(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Payload, message)
}

/// Reads what a verified signature signed.
///
/// # Errors
/// [`Reason::Payload`].
pub fn parse_payload(text: &[u8]) -> Result<Claim, Refusal> {
    let not_json = |error| refuse(format!("the payload is not JSON with one meaning: {error}"));
    strict_json::check(text, DEPTH).map_err(not_json)?;
    let payload: Value = serde_json::from_slice(text).map_err(not_json)?;
    let [critical, optional] = members(&payload, "the payload", ["critical", "optional"])?;
    let [kind, image, identity] = members(critical, "critical", ["type", "image", "identity"])?;
    let [digest] = members(image, "critical.image", ["docker-manifest-digest"])?;
    let [reference] = members(identity, "critical.identity", ["docker-reference"])?;
    let kind = string(kind, "critical.type")?;
    if kind != TYPE {
        return Err(refuse(format!("critical.type is {:?}", excerpt(kind))));
    }
    let digest = string(digest, "docker-manifest-digest")?;
    let manifest_digest = digest
        .parse()
        .map_err(|error| refuse(format!("docker-manifest-digest: {error}")))?;
    let optional = object(optional, "optional")?;
    Ok(Claim {
        manifest_digest,
        docker_reference: Some(string(reference, "docker-reference")?.to_owned()),
        creator: optional
            .get("creator")
            .map(|creator| string(creator, "optional.creator").map(str::to_owned))
            .transpose()?,
        timestamp_s: optional
            .get("timestamp")
            .map(|timestamp| {
                timestamp
                    .as_i64()
                    .ok_or_else(|| refuse("optional.timestamp is not a whole number"))
            })
            .transpose()?,
    })
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Refusal> {
    value
        .as_object()
        .ok_or_else(|| refuse(format!("{what} is not an object")))
}

fn string<'a>(value: &'a Value, what: &str) -> Result<&'a str, Refusal> {
    value
        .as_str()
        .ok_or_else(|| refuse(format!("{what} is not a string")))
}

/// The members of an object that has exactly these.
fn members<'a, const N: usize>(
    value: &'a Value,
    what: &str,
    names: [&str; N],
) -> Result<[&'a Value; N], Refusal> {
    let object = object(value, what)?;
    if let Some(unknown) = object.keys().find(|key| !names.contains(&key.as_str())) {
        return Err(refuse(format!(
            "{what} has the unknown member {:?}",
            excerpt(unknown)
        )));
    }
    if let Some(missing) = names.iter().find(|name| !object.contains_key(**name)) {
        return Err(refuse(format!("{what} lacks {missing}")));
    }
    Ok(names.map(|name| &object[name]))
}

fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Writes what a signer of `digest` under `reference` signs; `creator` names
/// the tool.
#[must_use]
pub fn make_payload(
    reference: &Reference,
    digest: &ManifestDigest,
    creator: &str,
    now: SystemTime,
) -> Vec<u8> {
    let timestamp_s = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    json!({
        "critical": {
            "identity": { "docker-reference": reference.to_string() },
            "image": { "docker-manifest-digest": digest.to_string() },
            "type": TYPE,
        },
        "optional": { "creator": creator, "timestamp": timestamp_s },
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn good() -> Value {
        json!({
            "critical": {
                "identity": { "docker-reference": "registry.example/app:v1" },
                "image": { "docker-manifest-digest": format!("sha256:{}", "ab".repeat(32)) },
                "type": TYPE,
            },
            "optional": { "creator": "us", "timestamp": 5, "more": [1] },
        })
    }

    #[test]
    fn what_is_made_is_read() {
        let reference = Reference::parse_normalized("registry.example/app:v1").unwrap();
        let digest: ManifestDigest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let claim = parse_payload(&make_payload(&reference, &digest, "us", now)).unwrap();
        assert_eq!(
            claim,
            Claim {
                manifest_digest: digest,
                docker_reference: Some("registry.example/app:v1".into()),
                creator: Some("us".into()),
                timestamp_s: Some(7),
            }
        );
    }

    #[test]
    fn optional_members_are_optional_and_others_are_passed_over() {
        let mut payload = good();
        assert_eq!(
            parse_payload(payload.to_string().as_bytes())
                .unwrap()
                .timestamp_s,
            Some(5)
        );
        payload["optional"] = json!({});
        let claim = parse_payload(payload.to_string().as_bytes()).unwrap();
        assert_eq!((claim.creator, claim.timestamp_s), (None, None));
    }

    #[test]
    fn a_payload_with_anything_amiss_is_refused() {
        let critical = |edit: fn(&mut Value)| {
            let mut payload = good();
            edit(&mut payload["critical"]);
            payload.to_string()
        };
        let optional = |value: Value| {
            let mut payload = good();
            payload["optional"] = value;
            payload.to_string()
        };
        let text = good().to_string();
        let once = "\"critical\":{";
        for (what, payload) in [
            ("empty", String::new()),
            ("null", "null".into()),
            ("no member", "{}".into()),
            ("bytes after it", format!("{text}x")),
            (
                "critical twice",
                text.replacen(once, &format!("\"critical\":{{}},{once}"), 1),
            ),
            (
                "critical twice, escaped",
                text.replacen(once, &format!("\"cr\\u0069tical\":{{}},{once}"), 1),
            ),
            (
                "type twice",
                text.replacen(once, &format!("{once}\"type\":\"x\","), 1),
            ),
            ("optional twice", text.replacen('{', "{\"optional\":{},", 1)),
            ("unknown at the top", text.replacen('{', "{\"more\":{},", 1)),
            ("critical in capitals", text.replace("critical", "Critical")),
            ("critical null", critical(|value| *value = Value::Null)),
            (
                "critical as a list",
                critical(|value| {
                    *value = json!([value["identity"], value["image"], value["type"]]);
                }),
            ),
            (
                "unknown in critical",
                critical(|value| value["more"] = json!(1)),
            ),
            (
                "unknown in image",
                critical(|value| value["image"]["more"] = json!(1)),
            ),
            (
                "unknown in identity",
                critical(|value| value["identity"]["more"] = json!(1)),
            ),
            (
                "other type",
                critical(|value| value["type"] = json!("cosign container image signature")),
            ),
            (
                "type absent",
                critical(|value| {
                    value.as_object_mut().unwrap().remove("type");
                }),
            ),
            (
                "digest in capitals",
                critical(|value| {
                    value["image"]["docker-manifest-digest"] =
                        json!(format!("sha256:{}", "AB".repeat(32)));
                }),
            ),
            (
                "digest of another algorithm",
                critical(|value| {
                    value["image"]["docker-manifest-digest"] =
                        json!(format!("md5:{}", "ab".repeat(16)));
                }),
            ),
            (
                "digest too short",
                critical(|value| {
                    value["image"]["docker-manifest-digest"] = json!("sha256:ab");
                }),
            ),
            (
                "reference no string",
                critical(|value| value["identity"]["docker-reference"] = json!(1)),
            ),
            (
                "optional absent",
                text.replace("\"optional\"", "\"critical2\""),
            ),
            ("optional null", optional(Value::Null)),
            ("creator no string", optional(json!({"creator": 1}))),
            ("timestamp a fraction", optional(json!({"timestamp": 1.5}))),
            ("timestamp a string", optional(json!({"timestamp": "1"}))),
            (
                "too deep",
                optional((0..20).fold(json!({}), |value, _| json!({ "a": value }))),
            ),
        ] {
            let refusal = parse_payload(payload.as_bytes()).expect_err(what);
            assert_eq!(refusal.reason, Reason::Payload, "{what}");
        }
    }
}
