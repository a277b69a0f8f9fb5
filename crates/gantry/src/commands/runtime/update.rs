// SPDX-License-Identifier: Apache-2.0
//! `update`: other limits.

use std::io::Read as _;

use gantry_oci::Limits;
use gantry_runtime::oci::{Context, update};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::words::Words;
use super::{Answer, Failure, one_id};

/// A flag, and the member below `linux.resources` that it changes.
const MEMBERS: [(&str, &[&str], Shape); 14] = [
    ("blkio-weight", &["blockIO", "weight"], Shape::Number),
    ("cpu-period", &["cpu", "period"], Shape::Number),
    ("cpu-quota", &["cpu", "quota"], Shape::Number),
    ("cpu-burst", &["cpu", "burst"], Shape::Number),
    ("cpu-share", &["cpu", "shares"], Shape::Number),
    ("cpu-rt-period", &["cpu", "realtimePeriod"], Shape::Number),
    ("cpu-rt-runtime", &["cpu", "realtimeRuntime"], Shape::Number),
    ("cpu-idle", &["cpu", "idle"], Shape::Number),
    ("cpuset-cpus", &["cpu", "cpus"], Shape::Text),
    ("cpuset-mems", &["cpu", "mems"], Shape::Text),
    ("memory", &["memory", "limit"], Shape::Bytes),
    (
        "memory-reservation",
        &["memory", "reservation"],
        Shape::Bytes,
    ),
    ("memory-swap", &["memory", "swap"], Shape::Bytes),
    ("pids-limit", &["pids", "limit"], Shape::Number),
];

#[derive(Debug, Clone, Copy)]
enum Shape {
    Number,
    Text,
    /// With a unit, `64m`.
    Bytes,
}

pub(super) fn update(context: &Context<'_>, words: &Words) -> Answer {
    let id = one_id(words)?;
    let mut document = match words.text("resources")? {
        None => json!({}),
        Some(file) => read(file)?,
    };
    for (flag, path, shape) in MEMBERS {
        if let Some(text) = words.text(flag)? {
            let value = value(flag, text, shape)?;
            set(&mut document, path, value);
        }
    }
    let resources: LinuxResources = serde_json::from_value(document)
        .map_err(|error| Failure::Usage(format!("limits cannot be read: {error}")))?;
    update::update(context, id, &resources)?;
    Ok(0)
}

fn read(file: &str) -> Result<Value, Failure> {
    let failed = |error: std::io::Error| Failure::Usage(format!("read {file:?}: {error}"));
    let most = Limits::DEFAULT.runtime_document_bytes;
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    }
    .map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| failed(error.into()))
}

fn value(flag: &str, text: &str, shape: Shape) -> Result<Value, Failure> {
    let refuse = || Failure::Usage(format!("flag --{flag}: {text:?} is no such number"));
    Ok(match shape {
        Shape::Text => text.into(),
        Shape::Number => text.parse::<i64>().map_err(|_| refuse())?.into(),
        Shape::Bytes => bytes(text).ok_or_else(refuse)?.into(),
    })
}

/// A number with a unit of 1024, or -1 for no limit.
fn bytes(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let plain = plain.strip_suffix('i').unwrap_or(plain);
    let (number, shift) = match plain.chars().last()? {
        'k' => (&plain[..plain.len() - 1], 10),
        'm' => (&plain[..plain.len() - 1], 20),
        'g' => (&plain[..plain.len() - 1], 30),
        't' => (&plain[..plain.len() - 1], 40),
        _ => (plain, 0),
    };
    let number: i64 = number.parse().ok()?;
    if number < -1 || (number == -1 && shift != 0) {
        return None;
    }
    number.checked_mul(1 << shift)
}

/// Sets a member, making those above it.
fn set(document: &mut Value, path: &[&str], value: Value) {
    let mut place = document;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[*key];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("64m", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("5", Some(5)),
            ("5b", Some(5)),
            ("-1", Some(-1)),
            ("-1m", None),
            ("", None),
            ("m", None),
            ("9999999999g", None),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
    }

    #[test]
    fn members_are_set_beside_others() {
        let mut document = json!({"memory": {"swap": 5}});
        set(&mut document, &["memory", "limit"], 3.into());
        set(&mut document, &["cpu", "cpus"], "0".into());
        let want = json!({"memory": {"swap": 5, "limit": 3}, "cpu": {"cpus": "0"}});
        assert_eq!(document, want);
    }
}
