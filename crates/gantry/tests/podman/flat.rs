// SPDX-License-Identifier: Apache-2.0
//! A document as a set of lines, `PLACE = VALUE`: what is a set to the kernel has places made of names, so that an order
//! which means nothing makes no difference.

use std::collections::BTreeSet;

use serde_json::Value;

/// Lists whose elements are known by a member.
const NAMED: [(&str, &str); 5] = [
    ("mounts", "destination"),
    ("namespaces", "type"),
    ("rlimits", "type"),
    ("devices", "path"),
    ("hugepageLimits", "pageSize"),
];
/// Lists that are sets of words.
const SETS: [&str; 10] = [
    "options",
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
    "maskedPaths",
    "readonlyPaths",
    "additionalGids",
    "env",
];

/// What a runtime takes where nothing is said.
const DEFAULTS: [(&str, bool); 3] = [
    (".root.readonly", false),
    (".process.terminal", false),
    (".process.noNewPrivileges", false),
];

pub fn flatten(document: &Value) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    walk(String::new(), "", document, &mut lines);
    lines
}

fn walk(place: String, name: &str, value: &Value, lines: &mut BTreeSet<String>) {
    let empty = match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Null => true,
        _ => false,
    };
    if empty {
        return;
    }
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                walk(format!("{place}.{key}"), key, member, lines);
            }
        }
        Value::Array(items) => {
            let known = NAMED.iter().find(|(list, _)| *list == name);
            for (index, item) in items.iter().enumerate() {
                match known.and_then(|(_, member)| item[*member].as_str()) {
                    Some(key) => walk(format!("{place}[{key}]"), "", item, lines),
                    None if SETS.contains(&name) => walk(format!("{place}[]"), "", item, lines),
                    None => walk(format!("{place}[{index}]"), "", item, lines),
                }
            }
        }
        other => {
            let default = DEFAULTS
                .iter()
                .any(|(known, is)| *known == place && is == other);
            if default {
                return;
            }
            let text = other
                .as_str()
                .map_or_else(|| other.to_string(), str::to_owned);
            lines.insert(format!("{place} = {text}"));
        }
    }
}
