// SPDX-License-Identifier: Apache-2.0
//! Options applied to a document that they were not meant for.
//!
//! A template stands where the profile's own document stood. What the options and the image changed
//! in that one (from `base` to `wanted`) is changed in the template, and nothing else.

use serde_json::{Map, Value};

use super::identity::{KnownList, known_list};

/// Changes in `mine` what differs between `base` and `wanted`.
pub fn merge(mine: &mut Value, base: &Value, wanted: &Value) {
    at("", mine, base, wanted);
}

fn at(pointer: &str, mine: &mut Value, base: &Value, wanted: &Value) {
    if base == wanted {
        return;
    }
    match (&mut *mine, base, wanted) {
        (Value::Object(mine), Value::Object(base), Value::Object(wanted)) => {
            members(pointer, mine, base, wanted);
        }
        (Value::Array(mine), Value::Array(base), Value::Array(wanted)) => {
            match known_list(pointer) {
                Some(known) => elements(known, mine, base, wanted),
                None => mine.clone_from(wanted),
            }
        }
        _ => *mine = wanted.clone(),
    }
}

fn members(
    pointer: &str,
    mine: &mut Map<String, Value>,
    base: &Map<String, Value>,
    wanted: &Map<String, Value>,
) {
    for (key, value) in wanted {
        let empty = match value {
            Value::Object(_) => Value::Object(Map::new()),
            Value::Array(_) => Value::Array(Vec::new()),
            _ => Value::Null,
        };
        let before = base.get(key).unwrap_or(&empty);
        if before != value {
            let place = mine.entry(key.clone()).or_insert_with(|| empty.clone());
            at(&format!("{pointer}/{key}"), place, before, value);
        }
    }
    mine.retain(|key, _| wanted.contains_key(key) || !base.contains_key(key));
}

fn elements(known: KnownList, mine: &mut Vec<Value>, base: &[Value], wanted: &[Value]) {
    let same = |a: &Value, b: &Value| known.identity.key(a) == known.identity.key(b);
    let gone = |element: &Value| {
        base.iter().any(|old| same(old, element)) && !wanted.iter().any(|new| same(new, element))
    };
    mine.retain(|element| !gone(element));
    for new in wanted.iter().filter(|new| !base.contains(new)) {
        match mine.iter_mut().find(|old| same(old, new)) {
            Some(old) => old.clone_from(new),
            // The template has done without it.
            None if base.iter().any(|old| same(old, new)) => {}
            None => mine.push(new.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_changed() {
        let base = json!({
            "a": 1, "gone": 2, "process": {"env": ["A=1", "B=1", "C=1"], "args": ["x"], "cwd": "/"},
            "mounts": [{"destination": "/p"}, {"destination": "/q"}],
        });
        let wanted = json!({
            "a": 1, "process": {"env": ["A=1", "B=2", "D=1"], "args": ["y"], "cwd": "/"},
            "mounts": [{"destination": "/p", "options": ["ro"]}, {"destination": "/n"}],
            "linux": {"sysctl": {"net.x": "1"}},
        });
        let mut mine = json!({
            "a": 7, "gone": 3, "process": {"env": ["B=9", "C=9", "E=9"], "args": ["z", "z"], "cwd": "/tmp"},
            "mounts": [{"destination": "/q", "type": "own"}, {"destination": "/r"}],
            "linux": {"sysctl": {"net.y": "1"}},
        });
        merge(&mut mine, &base, &wanted);
        assert_eq!(
            mine,
            json!({
                "a": 7, "process": {"env": ["B=2", "E=9", "D=1"], "args": ["y"], "cwd": "/tmp"},
                "mounts": [
                    {"destination": "/r"}, {"destination": "/n"},
                ],
                "linux": {"sysctl": {"net.x": "1", "net.y": "1"}},
            })
        );
        let before = mine.clone();
        merge(&mut mine, &wanted, &wanted);
        assert_eq!(mine, before);
    }
}
