// SPDX-License-Identifier: Apache-2.0
//! What differs between two documents, in meaning.
//!
//! Lists that are sets are compared as sets, elements are found again by what they are known by
//! ([`identity`](super::identity)), and what is absent is what the specification says it is then.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::identity::{KnownList, known_list};
use super::path::JsonPath;

/// How a place differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// Only in the second document.
    Added {
        /// What.
        to: Value,
    },
    /// Only in the first document.
    Removed {
        /// What.
        from: Value,
    },
    /// In both, and different.
    Changed {
        /// In the first.
        from: Value,
        /// In the second.
        to: Value,
    },
    /// The same elements in another order.
    Reordered,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Where; an element's number is that in the first document, or of an added one in the second.
    #[serde(serialize_with = "as_text")]
    pub path: JsonPath,
    /// How.
    #[serde(flatten)]
    pub change: Change,
}

fn as_text<S: Serializer>(path: &JsonPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.change {
            Change::Added { to } => write!(f, "+ {path}: {to}"),
            Change::Removed { from } => write!(f, "- {path}: {from}"),
            Change::Changed { from, to } => write!(f, "~ {path}: {from} -> {to}"),
            Change::Reordered => write!(f, "~ {path}: another order"),
        }
    }
}

/// What an absent member means.
const DEFAULTS: [(&str, Value); 6] = [
    ("/process/terminal", Value::Bool(false)),
    ("/process/noNewPrivileges", Value::Bool(false)),
    ("/process/apparmorProfile", Value::String(String::new())),
    ("/process/selinuxLabel", Value::String(String::new())),
    ("/root/readonly", Value::Bool(false)),
    ("/linux/mountLabel", Value::String(String::new())),
];

/// No capabilities is not the same as nothing said of them, nor is an empty list of arguments.
const MEANINGFUL: [&str; 2] = ["/process/capabilities", "/process/args"];

/// Compares two documents.
#[must_use]
pub fn diff(from: &Value, to: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    values("", &JsonPath::root(), from, to, &mut differences);
    differences
}

/// Whether a member means no more than its absence.
fn is_nothing(pointer: &str, value: &Value) -> bool {
    if MEANINGFUL.contains(&pointer) {
        return false;
    }
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members
            .iter()
            .all(|(key, value)| is_nothing(&format!("{pointer}/{key}"), value)),
        other => DEFAULTS
            .iter()
            .any(|(place, default)| *place == pointer && default == other),
    }
}

fn values(pointer: &str, path: &JsonPath, from: &Value, to: &Value, out: &mut Vec<Difference>) {
    if from == to {
        return;
    }
    match (from, to) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let pointer = format!("{pointer}/{key}");
                let present = |value: &&Value| !is_nothing(&pointer, value);
                let old = old.get(key).filter(present);
                let new = new.get(key).filter(present);
                optional(&pointer, &path.key(key), old, new, out);
            }
        }
        (Value::Array(old), Value::Array(new)) => match known_list(pointer) {
            Some(known) => keyed(pointer, path, known, old, new, out),
            None => indexed(pointer, path, old, new, out),
        },
        _ => out.push(Difference {
            path: path.clone(),
            change: Change::Changed {
                from: from.clone(),
                to: to.clone(),
            },
        }),
    }
}

fn optional(
    pointer: &str,
    path: &JsonPath,
    from: Option<&Value>,
    to: Option<&Value>,
    out: &mut Vec<Difference>,
) {
    let change = match (from, to) {
        (None, None) => return,
        (Some(from), Some(to)) => return values(pointer, path, from, to, out),
        (Some(from), None) => Change::Removed { from: from.clone() },
        (None, Some(to)) => Change::Added { to: to.clone() },
    };
    out.push(Difference {
        path: path.clone(),
        change,
    });
}

fn indexed(
    pointer: &str,
    path: &JsonPath,
    from: &[Value],
    to: &[Value],
    out: &mut Vec<Difference>,
) {
    for index in 0..from.len().max(to.len()) {
        let pointer = format!("{pointer}/{index}");
        let (old, new) = (from.get(index), to.get(index));
        optional(&pointer, &path.index(index), old, new, out);
    }
}

/// An element's key and which of its namesakes it is: a list may hold two that are known by the same.
fn keys(known: KnownList, list: &[Value]) -> Vec<(String, usize)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    list.iter()
        .map(|element| {
            let key = known.identity.key(element).into_owned();
            let count = seen.entry(key.clone()).or_default();
            *count += 1;
            (key, *count)
        })
        .collect()
}

fn keyed(
    pointer: &str,
    path: &JsonPath,
    known: KnownList,
    from: &[Value],
    to: &[Value],
    out: &mut Vec<Difference>,
) {
    let (old_keys, new_keys) = (keys(known, from), keys(known, to));
    let place = |keys: &[(String, usize)]| -> BTreeMap<_, _> {
        let pairs = keys.iter().cloned().enumerate();
        pairs.map(|(index, key)| (key, index)).collect()
    };
    let (old_at, new_at) = (place(&old_keys), place(&new_keys));
    for (index, key) in old_keys.iter().enumerate() {
        let new = new_at.get(key).map(|at| &to[*at]);
        let pointer = format!("{pointer}/{index}");
        optional(&pointer, &path.index(index), Some(&from[index]), new, out);
    }
    for (index, key) in new_keys.iter().enumerate() {
        if !old_at.contains_key(key) {
            optional(pointer, &path.index(index), None, Some(&to[index]), out);
        }
    }
    let common_old = old_keys.iter().filter(|key| new_at.contains_key(*key));
    let common_new = new_keys.iter().filter(|key| old_at.contains_key(*key));
    if known.ordered && !common_old.eq(common_new) {
        out.push(Difference {
            path: path.clone(),
            change: Change::Reordered,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(from: Value, to: Value) -> Vec<String> {
        diff(&from, &to).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sets_have_no_order_and_lists_do() {
        let table = [
            (
                json!({"process": {"env": ["A=1", "B=2"]}}),
                json!({"process": {"env": ["B=2", "A=1"]}}),
                vec![],
            ),
            (
                json!({"process": {"env": ["A=1", "B=2"]}}),
                json!({"process": {"env": ["B=3"]}}),
                vec![
                    "- .process.env[0]: \"A=1\"",
                    "~ .process.env[1]: \"B=2\" -> \"B=3\"",
                ],
            ),
            (
                json!({"process": {"args": ["a", "b"]}}),
                json!({"process": {"args": ["b", "a"]}}),
                vec![
                    "~ .process.args[0]: \"a\" -> \"b\"",
                    "~ .process.args[1]: \"b\" -> \"a\"",
                ],
            ),
            (
                json!({"mounts": [{"destination": "/a"}, {"destination": "/b"}]}),
                json!({"mounts": [{"destination": "/b"}, {"destination": "/a"}, {"destination": "/c"}]}),
                vec![
                    "+ .mounts[2]: {\"destination\":\"/c\"}",
                    "~ .mounts: another order",
                ],
            ),
            (
                json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}]}}),
                json!({"linux": {"namespaces": [{"type": "ipc", "path": "/x"}, {"type": "pid"}]}}),
                vec!["+ .linux.namespaces[1].path: \"/x\""],
            ),
            (
                json!({"linux": {"sysctl": {"net.a": "1"}}}),
                json!({"linux": {}}),
                vec!["- .linux: {\"sysctl\":{\"net.a\":\"1\"}}"],
            ),
        ];
        for (from, to, expected) in table {
            assert_eq!(lines(from.clone(), to.clone()), expected, "{from} {to}");
        }
    }

    #[test]
    fn absent_is_the_default() {
        let table = [
            (
                json!({"root": {"path": "x", "readonly": false}}),
                json!({"root": {"path": "x"}}),
            ),
            (
                json!({"mounts": [], "linux": {"resources": {"memory": {}}}}),
                json!({}),
            ),
            (
                json!({"process": {"capabilities": {"ambient": []}}}),
                json!({"process": {"capabilities": {}}}),
            ),
        ];
        for (one, other) in table {
            assert_eq!(lines(one.clone(), other.clone()), [""; 0]);
            assert_eq!(lines(other, one), [""; 0]);
        }
        let (one, other) = (
            json!({"process": {"capabilities": {}}}),
            json!({"process": {}}),
        );
        assert_eq!(lines(one, other).len(), 1);
    }

    #[test]
    fn namesakes_are_compared_in_turn() {
        let from = json!({"mounts": [{"destination": "/a"}, {"destination": "/a", "type": "x"}]});
        let to = json!({"mounts": [{"destination": "/a"}]});
        assert_eq!(lines(from.clone(), to).len(), 1);
        assert_eq!(lines(from.clone(), from), [""; 0]);
    }
}
