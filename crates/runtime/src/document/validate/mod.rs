// SPDX-License-Identifier: Apache-2.0
//! Whether a document says what the runtime specification lets it say.
//!
//! ```text
//!  bytes ── document::read ──► Value ──┬── schema: members, types, words, ranges ──┬──► Findings
//!                                      └── rules: what one part demands of another ┘
//! ```
//!
//! Both halves are tables: of shapes (`schema`) and of functions (`RULES`). A part that has the
//! wrong shape is reported by the schema and passed over by the rules, so one mistake is told once.
//!
//! An *error* is what the specification forbids or what no kernel can do; a *warning* is what it
//! advises against, or lets every runtime decide. Members that it does not define are warnings, as
//! its section "Extensibility" tells runtimes to ignore them.
//!
//! # Source
//! runtime-spec 1.3, its JSON schema; `capabilities(7)`, `user_namespaces(7)`.

mod bundle;
mod extras;
mod linux;
mod process;
mod resources;
mod schema;
mod shapes;
mod top;

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

pub use bundle::check_root;
pub use shapes::{MEMORY_FLAGS, MEMORY_MODES};

use super::path::JsonPath;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The document is not valid.
    Error,
    /// It is, and should be different.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub path: JsonPath,
    /// What is wrong.
    pub problem: String,
    /// The file and section of the specification, or the manual page, that says so.
    pub rule: &'static str,
}

fn as_text<S: Serializer>(path: &JsonPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (severity, path) = (self.severity, &self.path);
        write!(f, "{severity}: {path}: {} ({})", self.problem, self.rule)
    }
}

/// So many findings are told; a hostile document could have millions.
pub const MAX_FINDINGS: usize = 1000;

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn push(
        &mut self,
        severity: Severity,
        path: JsonPath,
        rule: &'static str,
        problem: impl Into<String>,
    ) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push(Finding {
                severity,
                path,
                problem: problem.into(),
                rule,
            });
        }
    }

    fn error(&mut self, path: JsonPath, rule: &'static str, problem: impl Into<String>) {
        self.push(Severity::Error, path, rule, problem);
    }

    fn warn(&mut self, path: JsonPath, rule: &'static str, problem: impl Into<String>) {
        self.push(Severity::Warning, path, rule, problem);
    }
}

/// The rules across members, in the order of the specification.
const RULES: [fn(Document<'_>, &mut Findings); 25] = [
    top::version,
    top::root,
    top::mounts,
    top::mount_mappings,
    top::names,
    top::hooks,
    process::arguments,
    process::environment,
    process::console,
    process::limits,
    process::capabilities,
    process::scheduler,
    linux::namespaces,
    linux::mappings,
    linux::time_offsets,
    linux::devices,
    linux::sysctls,
    linux::paths,
    extras::net_devices,
    extras::memory_policy,
    extras::intel_rdt,
    linux::seccomp,
    linux::seccomp_listener,
    resources::memory_and_cpu,
    resources::controllers,
];

/// A document, for rules: what is absent or has the wrong type answers as nothing.
#[derive(Debug, Clone, Copy)]
struct Document<'a> {
    value: &'a Value,
    /// A bit for each of [`NAMESPACE_TYPES`](shapes::NAMESPACE_TYPES): rules ask often, and a
    /// hostile document has many.
    namespaces: u8,
}

impl<'a> Document<'a> {
    fn new(value: &'a Value) -> Self {
        let mut document = Self {
            value,
            namespaces: 0,
        };
        for (_, namespace) in document.list("/linux/namespaces") {
            document.namespaces |= bit(namespace["type"].as_str().unwrap_or_default());
        }
        document
    }

    fn at(self, pointer: &str) -> Option<&'a Value> {
        self.value.pointer(pointer)
    }

    fn text(self, pointer: &str) -> Option<&'a str> {
        self.at(pointer)?.as_str()
    }

    /// The elements of a list, each with its place.
    fn list(self, pointer: &str) -> impl Iterator<Item = (JsonPath, &'a Value)> {
        let path = JsonPath::of_pointer(pointer);
        self.at(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
            .map(move |(index, value)| (path.index(index), value))
    }

    /// The members of an object, each with its place.
    fn map(self, pointer: &str) -> impl Iterator<Item = (JsonPath, &'a String, &'a Value)> {
        let path = JsonPath::of_pointer(pointer);
        self.at(pointer)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(move |(key, value)| (path.key(key), key, value))
    }

    /// Whether the container has, or joins, a namespace of that type.
    fn has_namespace(self, kind: &str) -> bool {
        self.namespaces & bit(kind) != 0
    }
}

/// The bit of a type of namespace; none for what is none.
fn bit(kind: &str) -> u8 {
    let at = shapes::NAMESPACE_TYPES
        .iter()
        .position(|known| *known == kind);
    at.map_or(0, |at| 1 << at)
}

/// Judges a document; errors first, then warnings, each in the document's order of rules.
#[must_use]
pub fn validate(document: &Value) -> Vec<Finding> {
    let mut findings = Findings::default();
    schema::check(document, &mut findings);
    let document = Document::new(document);
    for rule in RULES {
        rule(document, &mut findings);
    }
    let mut findings = findings.0;
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Whether none of the findings is an error.
#[must_use]
pub fn is_valid(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.severity != Severity::Error)
}

#[cfg(test)]
mod tests;
