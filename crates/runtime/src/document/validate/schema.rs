// SPDX-License-Identifier: Apache-2.0
//! The shape of a document: which members there are, of which type, with which words and ranges.

use serde_json::Value;

use super::shapes::SPEC;
use super::{Findings, JsonPath};

/// What a value must look like.
#[derive(Debug)]
pub(super) enum Shape {
    /// Anything.
    Any,
    /// `true` or `false`.
    Bool,
    /// A string without NUL, as most end in a system call.
    Text,
    /// An absolute path.
    Path,
    /// A whole number from one to another.
    Int(i128, i128),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An array.
    List(&'static Shape),
    /// An array with at least one element.
    NotEmpty(&'static Shape),
    /// An object with names of the author's choice.
    Map(&'static Shape),
    /// An object with these members.
    Object(&'static [Member]),
}

/// A member of an object.
#[derive(Debug)]
pub(super) struct Member {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// The section that defines it.
    pub rule: &'static str,
}

pub(super) const fn need(name: &'static str, shape: Shape, rule: &'static str) -> Member {
    Member {
        name,
        shape,
        required: true,
        rule,
    }
}

pub(super) const fn may(name: &'static str, shape: Shape, rule: &'static str) -> Member {
    Member {
        name,
        shape,
        required: false,
        rule,
    }
}

const EXTENSIBILITY: &str = "config.md, Extensibility";

/// Checks the whole document against [`SPEC`].
pub(super) fn check(document: &Value, findings: &mut Findings) {
    let walk = Walk {
        rule: "config.md, Configuration",
    };
    walk.value(&Shape::Object(SPEC), document, &JsonPath::root(), findings);
}

#[derive(Debug, Clone, Copy)]
struct Walk {
    rule: &'static str,
}

impl Walk {
    fn value(self, shape: &Shape, value: &Value, path: &JsonPath, findings: &mut Findings) {
        let problem = match (shape, value) {
            (Shape::Any, _) | (Shape::Bool, Value::Bool(_)) => None,
            (Shape::Text, Value::String(text)) => text_problem(text),
            (Shape::Path, Value::String(text)) => text_problem(text).or_else(|| {
                (!text.starts_with('/')).then(|| format!("{text:?} is not an absolute path"))
            }),
            (Shape::Int(low, high), Value::Number(number)) => int_problem(number, *low, *high),
            (Shape::OneOf(words), Value::String(text)) => (!words.contains(&text.as_str()))
                .then(|| format!("{text:?} is none of {}", words.join(", "))),
            (Shape::List(item) | Shape::NotEmpty(item), Value::Array(items)) => {
                for (index, element) in items.iter().enumerate() {
                    self.value(item, element, &path.index(index), findings);
                }
                (matches!(shape, Shape::NotEmpty(_)) && items.is_empty())
                    .then(|| "it is empty".to_owned())
            }
            (Shape::Map(item), Value::Object(members)) => {
                for (key, element) in members {
                    self.value(item, element, &path.key(key), findings);
                    if key.is_empty() || key.contains('\0') {
                        let problem = "a name is empty or holds a NUL character";
                        findings.error(path.key(key), self.rule, problem);
                    }
                }
                None
            }
            (Shape::Object(known), Value::Object(members)) => {
                self.members(known, members, path, findings);
                None
            }
            _ => Some(format!("{} is not {}", kind_of(value), wanted(shape))),
        };
        if let Some(problem) = problem {
            findings.error(path.clone(), self.rule, problem);
        }
    }

    fn members(
        self,
        known: &'static [Member],
        members: &serde_json::Map<String, Value>,
        path: &JsonPath,
        findings: &mut Findings,
    ) {
        for member in known {
            let place = path.key(member.name);
            let walk = Self { rule: member.rule };
            match members.get(member.name) {
                Some(value) => walk.value(&member.shape, value, &place, findings),
                None if member.required => findings.error(place, member.rule, "it is required"),
                None => {}
            }
        }
        for name in members.keys() {
            if known.iter().all(|member| member.name != name) {
                let problem = "the specification knows no such member; runtimes ignore it";
                findings.warn(path.key(name), EXTENSIBILITY, problem);
            }
        }
    }
}

fn text_problem(text: &str) -> Option<String> {
    text.contains('\0')
        .then(|| "it holds a NUL character".to_owned())
}

fn int_problem(number: &serde_json::Number, low: i128, high: i128) -> Option<String> {
    let whole = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from));
    match whole {
        None => Some(format!("{number} is not a whole number of 64 bits")),
        Some(whole) if whole < low || whole > high => {
            Some(format!("{number} is not between {low} and {high}"))
        }
        Some(_) => None,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Any => "a value",
        Shape::Bool => "a boolean",
        Shape::Text | Shape::Path | Shape::OneOf(_) => "a string",
        Shape::Int(..) => "a whole number",
        Shape::List(_) | Shape::NotEmpty(_) => "an array",
        Shape::Map(_) | Shape::Object(_) => "an object",
    }
}
