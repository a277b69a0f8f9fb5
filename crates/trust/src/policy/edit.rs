// SPDX-License-Identifier: Apache-2.0
//! Edits of a policy file that leave every byte alone which they are not about.
//!
//! The text was parsed strictly before, so that finding a member's span needs
//! only to know where strings and brackets end. What is written is parsed
//! again: an edit never makes a file that is no policy.

use std::ops::Range;

use bytes::Bytes;
use gantry_oci::{Kind, Limits};
use serde::Serialize;

use super::{ParsePolicyError, Policy, Requirement};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// These requirements, and no others, for a scope.
    Set {
        /// The transport.
        transport: String,
        /// The scope; empty for the transport's default.
        scope: String,
        /// At least one.
        requirements: Vec<Requirement>,
    },
    /// No requirements for a scope: the next wider one holds there.
    Delete {
        /// The transport.
        transport: String,
        /// The scope; empty for the transport's default.
        scope: String,
    },
    /// These requirements where no scope matches.
    Default(Vec<Requirement>),
}

/// Why a policy was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditPolicyError {
    /// The scope to delete is not there.
    #[error("delete scope {scope:?} of transport {transport}: the policy has none")]
    NoScope {
        /// The transport.
        transport: String,
        /// The scope.
        scope: String,
    },
    /// The result would be no policy.
    #[error("change policy")]
    Result(#[source] ParsePolicyError),
}

impl EditPolicyError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoScope { .. } => Kind::NotFound,
            Self::Result(_) => Kind::InvalidInput,
        }
    }
}

impl Policy {
    /// The policy with a change made, its text as it was everywhere else.
    ///
    /// # Errors
    /// [`EditPolicyError`].
    pub fn edited(&self, edit: &Edit, limits: &Limits) -> Result<Self, EditPolicyError> {
        let text = String::from_utf8_lossy(self.text()).into_owned();
        let text = match edit {
            Edit::Default(requirements) => set(&text, &["default"], requirements),
            Edit::Set {
                transport,
                scope,
                requirements,
            } => set(&text, &["transports", transport, scope], requirements),
            Edit::Delete { transport, scope } => delete(&text, &["transports", transport, scope])
                .ok_or_else(|| EditPolicyError::NoScope {
                transport: transport.clone(),
                scope: scope.clone(),
            })?,
        };
        Self::parse(Bytes::from(text), limits).map_err(EditPolicyError::Result)
    }

    /// A new policy with nothing but a default.
    ///
    /// # Errors
    /// [`EditPolicyError::Result`] if there are no requirements.
    pub fn with_default(
        requirements: &[Requirement],
        limits: &Limits,
    ) -> Result<Self, EditPolicyError> {
        let style = Style::new();
        let text = format!(
            "{{\n    \"default\": {}\n}}\n",
            style.write(&requirements, "    ")
        );
        Self::parse(Bytes::from(text), limits).map_err(EditPolicyError::Result)
    }
}

/// Puts a value at a path of members, making those that are not there.
fn set(text: &str, path: &[&str], value: &impl Serialize) -> String {
    let style = Style::of(text);
    let mut object = Object::at(text, skip_space(text, 0));
    let mut rest = path;
    while let [name, below @ ..] = rest {
        match object.find(name) {
            None => return object.insert(text, name, &Below(below, value), &style),
            Some(member) if below.is_empty() => {
                let value = style.write(value, indent_of(text, member.key.start));
                return splice(text, member.value.clone(), &value);
            }
            Some(member) => object = Object::at(text, member.value.start),
        }
        rest = below;
    }
    text.to_owned()
}

/// Takes a member away; none if it is not there.
fn delete(text: &str, path: &[&str]) -> Option<String> {
    let (name, above) = path.split_last()?;
    let mut object = Object::at(text, skip_space(text, 0));
    for name in above {
        object = Object::at(text, object.find(name)?.value.start);
    }
    let mut members = object.members.iter();
    let position = members.position(|member| member.name == *name)?;
    let member = &object.members[position];
    let span = match (position, object.members.get(position + 1)) {
        (_, Some(next)) => member.key.start..next.key.start,
        (0, None) => object.span.start + 1..object.span.end - 1,
        (_, None) => object.members[position - 1].value.end..member.value.end,
    };
    Some(splice(text, span, ""))
}

fn splice(text: &str, span: Range<usize>, new: &str) -> String {
    [&text[..span.start], new, &text[span.end..]].concat()
}

/// A value inside of objects with one member each.
struct Below<'a, T>(&'a [&'a str], &'a T);

impl<T: Serialize> Serialize for Below<'_, T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [] => self.1.serialize(to),
            [name, below @ ..] => to.collect_map([(name, Below(below, self.1))]),
        }
    }
}

/// How a file is laid out.
struct Style {
    /// What a level is indented by; nothing where all is on one line.
    unit: Option<String>,
    colon: String,
}

impl Style {
    /// As the first member of the outermost object shows.
    fn of(text: &str) -> Self {
        let object = Object::at(text, skip_space(text, 0));
        let Some(first) = object.members.first() else {
            return Self::new();
        };
        let before = &text[object.span.start + 1..first.key.start];
        let unit = before.rsplit_once('\n').map(|(_, unit)| unit.to_owned());
        Self {
            unit,
            colon: text[first.key.end..first.value.start].to_owned(),
        }
    }

    fn new() -> Self {
        Self {
            unit: Some("    ".into()),
            colon: ": ".into(),
        }
    }

    /// A value whose first line stands behind something.
    fn write(&self, value: &impl Serialize, indent: &str) -> String {
        let Some(unit) = &self.unit else {
            return serde_json::to_string(value).expect("names and texts become JSON");
        };
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(unit.as_bytes());
        let mut writer = serde_json::Serializer::with_formatter(&mut text, formatter);
        value
            .serialize(&mut writer)
            .expect("names and texts become JSON");
        // A line break in a string is an escape, so that each of these ends a line.
        String::from_utf8_lossy(&text).replace('\n', &format!("\n{indent}"))
    }
}

/// An object's place in a text, and its members'.
struct Object {
    span: Range<usize>,
    members: Vec<Member>,
}

struct Member {
    name: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl Object {
    /// Of the object that starts here, in a text that is known to be JSON.
    fn at(text: &str, start: usize) -> Self {
        let bytes = text.as_bytes();
        let mut members = Vec::new();
        let mut at = skip_space(text, start + 1);
        while bytes[at] != b'}' {
            let key = at..end_of_value(text, at);
            let value = skip_space(text, skip_space(text, key.end) + 1);
            let value = value..end_of_value(text, value);
            at = skip_space(text, value.end);
            if bytes[at] == b',' {
                at = skip_space(text, at + 1);
            }
            members.push(Member {
                name: serde_json::from_str(&text[key.clone()]).expect("a key is a string"),
                key,
                value,
            });
        }
        Self {
            span: start..at + 1,
            members,
        }
    }

    fn find(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The text with one more member, at the end.
    fn insert(&self, text: &str, name: &str, value: &impl Serialize, style: &Style) -> String {
        let key = serde_json::to_string(name).expect("a name becomes JSON");
        if let Some(last) = self.members.last() {
            let before = &text[..last.key.start];
            let space = &before[before.trim_end().len()..];
            let value = style.write(value, indent_of(text, last.key.start));
            let new = format!(",{space}{key}{}{value}", style.colon);
            return splice(text, last.value.end..last.value.end, &new);
        }
        let outer = indent_of(text, self.span.start);
        let new = match &style.unit {
            None => format!("{{{key}{}{}}}", style.colon, style.write(value, "")),
            Some(unit) => {
                let inner = format!("{outer}{unit}");
                let value = style.write(value, &inner);
                format!("{{\n{inner}{key}{}{value}\n{outer}}}", style.colon)
            }
        };
        splice(text, self.span.clone(), &new)
    }
}

/// The white space that a line begins with.
fn indent_of(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = &text[start..at];
    &line[..line.len() - line.trim_start().len()]
}

fn skip_space(text: &str, from: usize) -> usize {
    let rest = &text[from..];
    let space = |c| matches!(c, ' ' | '\t' | '\r' | '\n');
    from + rest.find(|c| !space(c)).unwrap_or(rest.len())
}

/// The end of the string, array, object or word that starts here.
fn end_of_value(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, start);
    loop {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        let ends =
            |byte: &u8| matches!(byte, b',' | b'}' | b']' | b':') || byte.is_ascii_whitespace();
        if depth == 0 && bytes.get(at).is_none_or(ends) {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::parse(Bytes::from(text.to_owned()), &Limits::DEFAULT).unwrap()
    }

    fn edited(text: &str, edit: &Edit) -> String {
        let policy = policy(text).edited(edit, &Limits::DEFAULT).unwrap();
        String::from_utf8(policy.text().to_vec()).unwrap()
    }

    fn set(transport: &str, scope: &str, requirement: Requirement) -> Edit {
        Edit::Set {
            transport: transport.into(),
            scope: scope.into(),
            requirements: vec![requirement],
        }
    }

    fn delete(transport: &str, scope: &str) -> Edit {
        Edit::Delete {
            transport: transport.into(),
            scope: scope.into(),
        }
    }

    /// A file that somebody wrote by hand.
    const ODD: &str = "{\n  \"transports\" : {\"docker\": {\n      \"h.io\"  : [ {\"type\" : \"reject\" } ],\n\
        \t\"\": [\n{\"type\":\"insecureAcceptAnything\"}] }},\n\n  \"default\": [{\"type\":\"reject\"} ]\n}\n\n";

    #[test]
    fn what_an_edit_is_not_about_keeps_its_bytes() {
        let accept = || Requirement::InsecureAcceptAnything;
        let new = "[\n    {\n      \"type\": \"insecureAcceptAnything\"\n    }\n  ]";
        assert_eq!(
            edited(ODD, &Edit::Default(vec![accept()])),
            ODD.replace("[{\"type\":\"reject\"} ]\n}", &format!("{new}\n}}"))
        );
        let new = new.replace("\n", "\n    ");
        assert_eq!(
            edited(ODD, &set("docker", "h.io", accept())),
            ODD.replace("[ {\"type\" : \"reject\" } ]", &new)
        );
        assert_eq!(
            edited(ODD, &delete("docker", "h.io")),
            ODD.replace("\"h.io\"  : [ {\"type\" : \"reject\" } ],\n\t", "")
        );
        assert_eq!(
            edited(ODD, &delete("docker", "")),
            ODD.replace(",\n\t\"\": [\n{\"type\":\"insecureAcceptAnything\"}]", "")
        );
        let last = "[\n{\"type\":\"insecureAcceptAnything\"}]";
        let added = edited(ODD, &set("docker", "new", accept()));
        let (before, after) = ODD.split_once(last).unwrap();
        assert!(
            added.starts_with(&format!("{before}{last},\n\t\"new\" : [")),
            "{added}"
        );
        assert!(added.ends_with(after));
    }

    #[test]
    fn missing_members_are_made() {
        let compact = r#"{"default":[{"type":"reject"}]}"#;
        assert_eq!(
            edited(compact, &set("docker", "h.io", Requirement::Reject)),
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"h.io":[{"type":"reject"}]}}}"#
        );
        let plain = "{\n\t\"default\": [{\"type\": \"reject\"}],\n\t\"transports\": {}\n}\n";
        assert_eq!(
            edited(plain, &set("dir", "/a", Requirement::Reject)),
            "{\n\t\"default\": [{\"type\": \"reject\"}],\n\t\"transports\": {\n\t\t\"dir\": {\n\t\t\t\"/a\": [\n\
             \t\t\t\t{\n\t\t\t\t\t\"type\": \"reject\"\n\t\t\t\t}\n\t\t\t]\n\t\t}\n\t}\n}\n"
        );
        let emptied = r#"{"transports":{"docker":{}},"default":[{"type":"reject"}]}"#;
        assert_eq!(
            edited(emptied, &set("docker", "", Requirement::Reject)),
            emptied.replace("{}", r#"{"":[{"type":"reject"}]}"#)
        );
    }

    #[test]
    fn what_is_not_there_is_not_deleted_and_nothing_bad_is_written() {
        for edit in [delete("docker", "h.io/a"), delete("dir", "/a")] {
            let error = policy(ODD).edited(&edit, &Limits::DEFAULT).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound);
        }
        for edit in [
            Edit::Default(Vec::new()),
            set("dir", "relative", Requirement::Reject),
        ] {
            let error = policy(ODD).edited(&edit, &Limits::DEFAULT).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput);
        }
    }

    #[test]
    fn a_new_policy_is_plain() {
        let policy = Policy::with_default(&[Requirement::Reject], &Limits::DEFAULT).unwrap();
        assert_eq!(
            *policy.text(),
            "{\n    \"default\": [\n        {\n            \"type\": \"reject\"\n        }\n    ]\n}\n"
        );
    }

    fn scope() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "a", "h.io/b", "\"", "\\", "{", "]:,", "é\n"])
            .prop_map(ToOwned::to_owned)
    }

    fn one_edit() -> impl Strategy<Value = Edit> {
        let transport = prop::sample::select(vec!["docker", "x}\"", "atomic"]);
        let requirement = prop::sample::select(vec![
            Requirement::Reject,
            Requirement::InsecureAcceptAnything,
        ]);
        (transport, scope(), requirement, 0..3_u8).prop_filter_map(
            "a scope that the transport can have",
            |(transport, scope, requirement, what)| {
                crate::scope::validate(transport, &scope).ok()?;
                let transport = transport.to_owned();
                Some(match what {
                    0 => Edit::Default(vec![requirement]),
                    1 => Edit::Delete { transport, scope },
                    _ => Edit::Set {
                        transport,
                        scope,
                        requirements: vec![requirement],
                    },
                })
            },
        )
    }

    proptest! {
        /// After any edits the file says what a model says.
        #[test]
        fn edits_mean_what_they_say(
            edits in prop::collection::vec(one_edit(), 0..8),
            start in prop::sample::select(vec![ODD, r#"{"default":[{"type":"reject"}]}"#, "{ \"default\" :\r\n[{\"type\":\"reject\"}]}"]),
        ) {
            let mut policy = policy(start);
            let (mut default, mut transports) = (policy.default.clone(), policy.transports.clone());
            for edit in edits {
                match policy.edited(&edit, &Limits::DEFAULT) {
                    Ok(edited) => policy = edited,
                    Err(error) => {
                        prop_assert_eq!(error.kind(), Kind::NotFound);
                        continue;
                    }
                }
                match edit {
                    Edit::Default(requirements) => default = requirements,
                    Edit::Set { transport, scope, requirements } => {
                        transports.entry(transport).or_default().insert(scope, requirements);
                    }
                    Edit::Delete { transport, scope } => {
                        let removed = transports.get_mut(&transport).and_then(|scopes| scopes.remove(&scope));
                        prop_assert!(removed.is_some());
                    }
                }
                prop_assert_eq!(&policy.default, &default);
                prop_assert_eq!(&policy.transports, &transports);
            }
        }
    }
}
