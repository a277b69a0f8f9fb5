// SPDX-License-Identifier: Apache-2.0
//! The payload of an attachment: what cosign 2 and skopeo sign.
//!
//! ```json
//! {"critical": {"type": "cosign container image signature",
//!               "image": {"docker-manifest-digest": "sha256:…"},
//!               "identity": {"docker-reference": "registry.example/app:v1"}},
//!  "optional": null}
//! ```
//!
//! `critical` has exactly these members, once each; `optional` is there, an
//! object or null, and only `creator` and `timestamp` mean something.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry_oci::{Limits, ManifestDigest, strict_json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::claim::Claim;
use crate::refusal::{Reason, Refusal};

const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    // A `Value` must be there, unlike an `Option`.
    optional: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    r#type: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

/// Reads a payload, after the signature over it was found good.
pub(super) fn parse(text: &[u8], limits: &Limits) -> Result<Claim, Refusal> {
    let refuse = |why: String| Refusal::new(Reason::Payload, format!("the signed payload {why}"));
    strict_json::check(text, limits.json_depth)
        .map_err(|error| refuse(format!("is not strict JSON: {error}")))?;
    let payload: Payload = serde_json::from_slice(text)
        .map_err(|error| refuse(format!("has not the members that it must have: {error}")))?;
    let Critical {
        r#type,
        image,
        identity,
    } = payload.critical;
    if r#type != TYPE {
        return Err(refuse(format!("has type {:?}", excerpt(&r#type))));
    }
    let manifest_digest: ManifestDigest = image
        .docker_manifest_digest
        .parse()
        .map_err(|error| refuse(format!("names no manifest: {error}")))?;
    let (creator, timestamp_s) = optional(payload.optional).map_err(refuse)?;
    Ok(Claim {
        manifest_digest,
        docker_reference: Some(identity.docker_reference),
        creator,
        timestamp_s,
    })
}

fn optional(optional: Value) -> Result<(Option<String>, Option<i64>), String> {
    let mut members = match optional {
        Value::Null => Map::new(),
        Value::Object(members) => members,
        _ => return Err("has an optional part that is no object".into()),
    };
    let creator = match members.remove("creator") {
        None => None,
        Some(Value::String(creator)) => Some(creator),
        Some(_) => return Err("has a creator that is no text".into()),
    };
    let timestamp_s = match members.remove("timestamp") {
        None => None,
        Some(value) => Some(
            whole_number(&value).ok_or("has a timestamp that is not a whole number of seconds")?,
        ),
    };
    Ok((creator, timestamp_s))
}

/// An integer, also one written with a fraction of zero, as others accept it.
fn whole_number(value: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| {
        let float = value.as_f64()?;
        (float.fract() == 0.0 && float.abs() < EXACT)
            .then(|| format!("{float:.0}").parse().ok())
            .flatten()
    })
}

/// Writes a payload.
#[must_use]
pub fn make_payload(
    docker_reference: &str,
    digest: &ManifestDigest,
    creator: &str,
    now: SystemTime,
) -> Vec<u8> {
    let timestamp_s = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": docker_reference },
            "image": { "docker-manifest-digest": digest },
            "type": TYPE,
        },
        "optional": { "creator": creator, "timestamp": timestamp_s },
    });
    payload.to_string().into_bytes()
}

/// A signer's word, short enough for a sentence.
pub(super) fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(80).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn good() -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r.example/a"}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"{TYPE}"}},"optional":null}}"#
        )
    }

    #[test]
    fn a_payload_comes_back_as_it_was_made() {
        let digest: ManifestDigest = DIGEST.parse().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let text = make_payload("r.example/a:v1", &digest, "gantry 1", now);
        let wanted = Claim {
            manifest_digest: digest,
            docker_reference: Some("r.example/a:v1".into()),
            creator: Some("gantry 1".into()),
            timestamp_s: Some(1_700_000_000),
        };
        assert_eq!(parse(&text, &Limits::DEFAULT).unwrap(), wanted);
    }

    #[test]
    fn what_cosign_writes_is_read() {
        let claim = parse(good().as_bytes(), &Limits::DEFAULT).unwrap();
        assert_eq!(claim.docker_reference.as_deref(), Some("r.example/a"));
        assert_eq!((claim.creator, claim.timestamp_s), (None, None));
    }

    #[test]
    fn optional_members_are_tolerated_and_two_are_typed() {
        for (optional, accepted) in [
            (r#"{"x":1,"y":[{}]}"#, true),
            (r#"{"timestamp":17.0}"#, true),
            (r#"{"timestamp":17.5}"#, false),
            (r#"{"timestamp":"17"}"#, false),
            (r#"{"timestamp":1e300}"#, false),
            (r#"{"creator":null}"#, false),
            (r#"{"x":1,"x":1}"#, false),
            ("[]", false),
            ("3", false),
        ] {
            let text = good().replace("null", optional);
            assert_eq!(
                parse(text.as_bytes(), &Limits::DEFAULT).is_ok(),
                accepted,
                "{optional}"
            );
        }
    }

    #[test]
    fn a_payload_with_any_other_member_is_refused() {
        for (from, to) in [
            (TYPE, "atomic container signature"),
            (r#"{"critical":"#, r#"{"more":1,"critical":"#),
            (r#""type":"#, r#""more":1,"type":"#),
            (r#""docker-reference":"#, r#""more":1,"docker-reference":"#),
            (
                r#""docker-manifest-digest":"#,
                r#""more":1,"docker-manifest-digest":"#,
            ),
            (r#""docker-reference":"r.example/a""#, ""),
            (r#","optional":null"#, ""),
            (r#""type":"#, r#""Type":"#),
            ("sha256:e3", "sha256:../e3"),
            (
                "r.example/a\"",
                "r.example/a\",\"docker-reference\":\"r.example/b\"",
            ),
            ("null}", "null} x"),
        ] {
            let text = good().replacen(from, to, 1);
            assert_ne!(text, good(), "{from}");
            let refusal = parse(text.as_bytes(), &Limits::DEFAULT).unwrap_err();
            assert_eq!(refusal.reason, Reason::Payload, "{text}");
        }
    }
}
