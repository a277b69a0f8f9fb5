// SPDX-License-Identifier: Apache-2.0
//! How a flag changes a document.

use serde_json::{Map, Value, json};

use super::identity::{Identity, known_list};

/// Reads a flag's value.
pub type Parse = fn(&str) -> Result<Value, String>;

/// What a flag does at its pointer.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    /// Sets the value.
    Set(Parse),
    /// Puts an element into a list, in place of the one that is known by the same.
    Put(Parse),
    /// Adds an element at the end of a list.
    Append(Parse),
    /// Takes what is known by the same, or is the same, out of a list.
    Drop(Parse),
    /// Sets members of an object.
    Members(Parse),
    /// As [`Put`](Self::Put), but keeps the members that the new element has not; one with this
    /// member null takes it away instead.
    Device(Parse, &'static str),
    /// Removes all that is there.
    Clear,
    /// Something of its own.
    Own(fn(&mut Value, &str) -> Result<(), String>),
}

/// The place that a pointer names, made if it is not there.
///
/// # Errors
/// Something on the way is not an object.
pub(super) fn place<'a>(document: &'a mut Value, pointer: &str) -> Result<&'a mut Value, String> {
    let mut at = document;
    for part in pointer.split('/').skip(1) {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        let members = at
            .as_object_mut()
            .ok_or_else(|| format!("{pointer} of the template is not below objects"))?;
        at = members.entry(part).or_insert(Value::Null);
    }
    Ok(at)
}

/// The list that a pointer names, made if it is not there.
pub(super) fn list<'a>(
    document: &'a mut Value,
    pointer: &str,
) -> Result<&'a mut Vec<Value>, String> {
    let at = place(document, pointer)?;
    if at.is_null() {
        *at = json!([]);
    }
    at.as_array_mut()
        .ok_or_else(|| format!("{pointer} of the template is not a list"))
}

fn remove(document: &mut Value, pointer: &str) {
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && let Some(members) = document.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        members.remove(name);
    }
}

fn identity(pointer: &str) -> Identity {
    known_list(pointer).map_or(Identity::Whole, |known| known.identity)
}

fn put(list: &mut Vec<Value>, identity: Identity, new: Value) {
    let key = identity.key(&new).into_owned();
    match list.iter_mut().find(|old| identity.key(old) == key) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

fn put_device(list: &mut Vec<Value>, identity: Identity, mut new: Value, member: &str) {
    let key = identity.key(&new).into_owned();
    let at = list.iter().position(|old| identity.key(old) == key);
    if new[member].is_null() {
        let Some(at) = at else { return };
        if let Some(old) = list[at].as_object_mut() {
            old.remove(member);
        }
        let bare = list[at].as_object().is_none_or(|old| old.len() <= 2);
        if bare {
            list.remove(at);
        }
        return;
    }
    match at.and_then(|at| list[at].as_object_mut()) {
        Some(old) => {
            old.insert(member.to_owned(), new[member].take());
        }
        None => list.push(new),
    }
}

impl Edit {
    /// Changes the document.
    ///
    /// # Errors
    /// The value makes no sense, or the document has something else at that place.
    pub fn apply(self, document: &mut Value, pointer: &str, text: &str) -> Result<(), String> {
        match self {
            Self::Set(parse) => *place(document, pointer)? = parse(text)?,
            Self::Put(parse) => put(list(document, pointer)?, identity(pointer), parse(text)?),
            Self::Append(parse) => list(document, pointer)?.push(parse(text)?),
            Self::Drop(parse) => {
                let gone = parse(text)?;
                let known = identity(pointer);
                list(document, pointer)?.retain(|old| known.key(old) != known.key(&gone));
            }
            Self::Members(parse) => {
                let at = place(document, pointer)?;
                if at.is_null() {
                    *at = json!({});
                }
                let (Some(members), Value::Object(new)) = (at.as_object_mut(), parse(text)?) else {
                    return Err(format!("{pointer} of the template is not an object"));
                };
                members.extend(new);
            }
            Self::Device(parse, member) => {
                let new = parse(text)?;
                put_device(list(document, pointer)?, identity(pointer), new, member);
            }
            Self::Clear => {
                if text != "false" {
                    remove(document, pointer);
                }
            }
            Self::Own(change) => change(document, text)?,
        }
        Ok(())
    }
}
