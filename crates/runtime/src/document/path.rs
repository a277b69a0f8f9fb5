// SPDX-License-Identifier: Apache-2.0
//! Where in a document something stands, in the spelling that `jq` takes.

use std::fmt;

/// A place in a document: `.process.args[0]`, `.linux.sysctl["net.core.somaxconn"]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonPath(String);

impl JsonPath {
    /// The document itself.
    #[must_use]
    pub fn root() -> Self {
        Self(String::new())
    }

    /// The place that a JSON pointer names; a part that is a number is an index.
    #[must_use]
    pub fn of_pointer(pointer: &str) -> Self {
        pointer
            .split('/')
            .skip(1)
            .fold(Self::root(), |path, part| match part.parse() {
                Ok(index) => path.index(index),
                Err(_) => path.key(part),
            })
    }

    /// A member of it.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        Self(if plain {
            format!("{}.{key}", self.0)
        } else {
            let dot = if self.0.is_empty() { "." } else { "" };
            format!("{}{dot}[{key:?}]", self.0)
        })
    }

    /// An element of it.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let dot = if self.0.is_empty() { "." } else { "" };
        Self(format!("{}{dot}[{index}]", self.0))
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_jq() {
        let root = JsonPath::root();
        for (path, text) in [
            (root.clone(), "."),
            (root.key("a").key("b").index(3), ".a.b[3]"),
            (root.key("net.x"), ".[\"net.x\"]"),
            (root.key("l").key("a \"b\"\n"), ".l[\"a \\\"b\\\"\\n\"]"),
            (root.index(0), ".[0]"),
            (JsonPath::of_pointer("/process/args/0"), ".process.args[0]"),
        ] {
            assert_eq!(path.to_string(), text);
        }
    }
}
