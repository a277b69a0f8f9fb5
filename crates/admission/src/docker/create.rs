// SPDX-License-Identifier: Apache-2.0
//! The body of a container's creation, read as dockerd reads it.
//!
//! Go's JSON decoder finds a field whatever the case of its name is, folds
//! two letters from outside ASCII onto ours, and lets the last of equal names
//! win. A name that occurs twice after folding is refused, so that there is
//! one reading.

use std::collections::HashMap;

use gantry_oci::strict_json;
use serde_json::{Map, Value};

/// Nesting that no body of Docker's own clients comes near.
const DEPTH: usize = 32;

/// The images that a container would be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its root file system.
    pub image: String,
    /// Those that are mounted into it.
    pub mounted: Vec<String>,
}

/// Why a body was not understood: one sentence.
pub type Unclear = String;

/// Reads a body.
///
/// # Errors
/// What is no JSON object with one reading, or names no image.
pub fn read(body: &[u8]) -> Result<Wanted, Unclear> {
    if body.is_empty() {
        // Older daemons leave out what is over a mebibyte, and every daemon what does not say that it is JSON.
        return Err("the daemon did not hand over what the container is made of".to_owned());
    }
    strict_json::check(body, DEPTH).map_err(|error| format!("read the request: {error}"))?;
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("read the request: {error}"))?;
    let container = Members::of(&value, "the request")?;
    let image = container.text("image")?;
    if image.is_empty() {
        return Err("the container names no image".to_owned());
    }
    let mut mounted = Vec::new();
    // Old clients put the members of HostConfig beside it.
    let host = container.object("hostconfig")?;
    for members in [Some(&container), host.as_ref()].into_iter().flatten() {
        mounted_images(members, &mut mounted)?;
    }
    Ok(Wanted { image, mounted })
}

/// The images that `HostConfig` mounts, of a request or of a container that exists.
///
/// # Errors
/// A mount with two readings.
pub fn mounted(host_config: &Value) -> Result<Vec<String>, Unclear> {
    let mut found = Vec::new();
    if !host_config.is_null() {
        mounted_images(&Members::of(host_config, "HostConfig")?, &mut found)?;
    }
    Ok(found)
}

fn mounted_images(members: &Members<'_>, found: &mut Vec<String>) -> Result<(), Unclear> {
    let mounts = match members.get("mounts") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(mounts)) => mounts,
        Some(_) => return Err("the list of mounts is none".to_owned()),
    };
    for mount in mounts.iter().filter(|mount| !mount.is_null()) {
        let mount = Members::of(mount, "a mount")?;
        if mount.text("type")?.eq_ignore_ascii_case("image") {
            found.push(mount.text("source")?);
        }
    }
    Ok(())
}

/// The members of an object by folded name.
struct Members<'a>(HashMap<String, &'a Value>);

impl<'a> Members<'a> {
    fn of(value: &'a Value, what: &str) -> Result<Self, Unclear> {
        let object = value
            .as_object()
            .ok_or_else(|| format!("{what} is no object"))?;
        Self::fold(object).map_err(|name| format!("{what} has the member {name:?} more than once"))
    }

    fn fold(object: &'a Map<String, Value>) -> Result<Self, String> {
        let mut members = HashMap::with_capacity(object.len());
        for (name, value) in object {
            let folded = fold(name);
            if members.insert(folded.clone(), value).is_some() {
                return Err(folded);
            }
        }
        Ok(Self(members))
    }

    fn get(&self, folded: &str) -> Option<&'a Value> {
        self.0.get(folded).copied()
    }

    /// A text; empty where it is absent or null, as in Go.
    fn text(&self, folded: &str) -> Result<String, Unclear> {
        match self.get(folded) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("the member {folded:?} is no text")),
        }
    }

    fn object(&self, folded: &str) -> Result<Option<Members<'a>>, Unclear> {
        match self.get(folded) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Members::of(value, folded).map(Some),
        }
    }
}

/// A name with the case taken from it: ASCII's letters, and the two that Unicode folds onto one of these.
fn fold(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '\u{212a}' => 'k',
            '\u{17f}' => 's',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(image: &str, mounted: &[&str]) -> Wanted {
        Wanted {
            image: image.into(),
            mounted: mounted.iter().map(|&image| image.into()).collect(),
        }
    }

    #[test]
    fn the_image_is_found_whatever_the_case() {
        for body in [
            r#"{"Image":"a"}"#,
            r#"{"image":"a"}"#,
            r#"{"IMAGE":"a","Labels":{"image":"b","Image":"c"}}"#,
            r#"{"\u0049mage":"a"}"#,
            r#"{"Image":"a","HostConfig":null}"#,
            r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Source":"/b"}]}}"#,
        ] {
            assert_eq!(read(body.as_bytes()), Ok(wanted("a", &[])), "{body}");
        }
    }

    #[test]
    fn mounted_images_are_found() {
        for body in [
            r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"image","Source":"b"}]}}"#,
            r#"{"Image":"a","hoſtconfig":{"mountſ":[null,{"type":"IMAGE","ſource":"b"}]}}"#,
            r#"{"Image":"a","Mounts":[{"Type":"image","Source":"b"}]}"#,
        ] {
            assert_eq!(read(body.as_bytes()), Ok(wanted("a", &["b"])), "{body}");
        }
    }

    #[test]
    fn two_readings_are_refused() {
        let deep = format!(
            "{{\"Image\":\"a\",\"x\":{}1{}}}",
            "[".repeat(40),
            "]".repeat(40)
        );
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"Image":""}"#,
            r#"{"Image":null}"#,
            r#"{"Image":["a"]}"#,
            r#"{"Image":"a","Image":"b"}"#,
            r#"{"Image":"a","image":"b"}"#,
            r#"{"Image":"a","\u0069mage":"b"}"#,
            r#"{"Image":"a"}{"Image":"b"}"#,
            r#"{"Image":"a"} x"#,
            r#"{"Image":"a","HostConfig":{},"hostconfig":{}}"#,
            r#"{"Image":"a","HostConfig":{},"Hoſtconfig":{}}"#,
            r#"{"Image":"a","HostConfig":[]}"#,
            r#"{"Image":"a","HostConfig":{"Mounts":{}}}"#,
            r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","type":"image"}]}}"#,
            r#"{"Image":"a","HostConfig":{"Mounts":[1]}}"#,
            r#"{"Image":"a""#,
            &deep,
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
        assert!(read(b"{\"Image\":\"\xff\"}").is_err());
        assert!(read(b"\xef\xbb\xbf{\"Image\":\"a\"}").is_err());
    }
}
