// SPDX-License-Identifier: Apache-2.0
//! Which lists of a document are sets, and by what their elements are known.

use std::borrow::Cow;

use serde_json::Value;

/// What makes two elements of a list the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// All of it.
    Whole,
    /// What stands before the first `=`.
    Name,
    /// These members.
    Members(&'static [&'static str]),
}

/// A list whose elements have an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownList {
    /// What its elements are known by.
    pub identity: Identity,
    /// Whether their order means something.
    pub ordered: bool,
}

use Identity::{Members, Name, Whole};

const DEVICE: Identity = Members(&["major", "minor"]);

/// Pointers, with `*` for any one part; lists that are not here are compared element by element.
///
/// # Source
/// Mounts and hooks are carried out "in the listed order" (config.md); the environment has none
/// (POSIX, "Environment Variable Definition"); the others are sets to the kernel.
const LISTS: [(&str, Identity, bool); 31] = [
    ("/mounts", Members(&["destination"]), true),
    ("/hooks/*", Members(&["path"]), true),
    ("/process/env", Name, false),
    ("/process/capabilities/*", Whole, false),
    ("/process/rlimits", Members(&["type"]), false),
    ("/process/user/additionalGids", Whole, false),
    ("/process/scheduler/flags", Whole, false),
    ("/linux/namespaces", Members(&["type"]), false),
    ("/linux/uidMappings", Whole, false),
    ("/linux/gidMappings", Whole, false),
    ("/mounts/*/uidMappings", Whole, false),
    ("/mounts/*/gidMappings", Whole, false),
    ("/linux/devices", Members(&["path"]), false),
    ("/linux/maskedPaths", Whole, false),
    ("/linux/readonlyPaths", Whole, false),
    ("/linux/personality/flags", Whole, false),
    ("/linux/resources/devices", Whole, true),
    (
        "/linux/resources/hugepageLimits",
        Members(&["pageSize"]),
        false,
    ),
    (
        "/linux/resources/network/priorities",
        Members(&["name"]),
        false,
    ),
    ("/linux/resources/blockIO/weightDevice", DEVICE, false),
    (
        "/linux/resources/blockIO/throttleReadBpsDevice",
        DEVICE,
        false,
    ),
    (
        "/linux/resources/blockIO/throttleWriteBpsDevice",
        DEVICE,
        false,
    ),
    (
        "/linux/resources/blockIO/throttleReadIOPSDevice",
        DEVICE,
        false,
    ),
    (
        "/linux/resources/blockIO/throttleWriteIOPSDevice",
        DEVICE,
        false,
    ),
    ("/linux/seccomp/architectures", Whole, false),
    ("/linux/seccomp/flags", Whole, false),
    ("/linux/seccomp/syscalls/*/names", Whole, false),
    // The list of rules is in the order of the filter, and a section of its own, too.
    ("/architectures", Whole, false),
    ("/flags", Whole, false),
    ("/syscalls/*/names", Whole, false),
    ("/seccomp/syscalls/*/names", Whole, false),
];

/// What is known of the list at a pointer.
#[must_use]
pub fn known_list(pointer: &str) -> Option<KnownList> {
    let fits = |pattern: &str| {
        let (mut parts, mut wanted) = (pointer.split('/'), pattern.split('/'));
        loop {
            match (parts.next(), wanted.next()) {
                (None, None) => return true,
                (Some(part), Some(want)) if want == "*" || part == want => {}
                _ => return false,
            }
        }
    };
    LISTS
        .iter()
        .find(|(pattern, ..)| fits(pattern))
        .map(|(_, identity, ordered)| KnownList {
            identity: *identity,
            ordered: *ordered,
        })
}

impl Identity {
    /// What an element is known by; equal texts are one element.
    #[must_use]
    pub fn key(self, element: &Value) -> Cow<'_, str> {
        match (self, element) {
            (Name, Value::String(text)) => {
                Cow::Borrowed(text.split_once('=').map_or(text.as_str(), |(name, _)| name))
            }
            (Members(names), Value::Object(members)) => {
                let parts = names.iter().map(|name| members.get(*name));
                let texts: Vec<_> = parts
                    .map(|part| part.map(ToString::to_string).unwrap_or_default())
                    .collect();
                Cow::Owned(texts.join(" "))
            }
            (_, other) => Cow::Owned(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_found_by_pattern() {
        assert!(known_list("/mounts").unwrap().ordered);
        assert_eq!(
            known_list("/process/capabilities/ambient")
                .unwrap()
                .identity,
            Whole
        );
        for unknown in [
            "/mounts/0",
            "/mounts/0/options",
            "/process/args",
            "",
            "/linux/seccomp/syscalls",
        ] {
            assert_eq!(known_list(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn elements_are_known_by_their_part() {
        assert_eq!(Name.key(&json!("A=1")), Name.key(&json!("A=2")));
        let one = json!({"major": 1, "minor": 2, "rate": 3});
        assert_eq!(
            DEVICE.key(&one),
            DEVICE.key(&json!({"minor": 2, "major": 1}))
        );
        assert_ne!(Whole.key(&json!(1)), Whole.key(&json!("1")));
    }
}
