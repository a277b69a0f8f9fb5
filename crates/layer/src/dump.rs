// SPDX-License-Identifier: Apache-2.0
//! The textual form of a tree: one name a line, for people, tests and other
//! tools.
//!
//! Owns the writer ([`write()`]) and the strict parser ([`parse`]) of the format
//! that `mkcomposefs --from-file` reads and `composefs-info dump` prints:
//!
//! ```text
//! PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST [XATTR=VALUE]...
//! /etc 29 40755 2 0 0 0 0.0 - - -
//! /etc/os 4 100644 1 0 0 0 1700000000.5 - abc\n -
//! ```
//!
//! What it promises: parents come before children, names in byte order,
//! attributes sorted; parsing what was written gives an equal tree.
//!
//! What it does not: accept everything those tools do. Fields that contradict
//! each other, missing fields and a missing last newline are refused here.
//!
//! # Source
//! composefs-dump(5).

use std::collections::HashMap;
use std::io::{self, Write};

use gantry_oci::{Digest, Kind, Limits, ObjectId, PathComponent};

use crate::erofs::{decode_device, directory_size_bytes, encode_device};
use crate::tree::{DeviceNumber, FileContent, Metadata, Node, NodeId, NodeKind, Tree, TreeError};

const S_IFMT: u32 = 0o170_000;

/// Which bytes need escaping beside the unprintable ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    Plain,
    /// A field that says `-` when it is absent.
    Optional,
    /// A half of `name=value`.
    Equals,
}

/// Writes a tree as text.
///
/// # Errors
/// What the destination said.
pub fn write<W: Write>(tree: &Tree, out: &mut W) -> io::Result<()> {
    let mut first_paths: HashMap<NodeId, Box<[u8]>> = HashMap::new();
    let mut line = Vec::new();
    for entry in tree.walk() {
        line.clear();
        let path = [b"/", &*entry.path].concat();
        append_escaped(&mut line, &path, Escape::Plain);
        let mut target = None;
        if tree.names(entry.id) > 1 {
            match first_paths.get(&entry.id).cloned() {
                Some(first) => target = Some(first),
                None => {
                    first_paths.insert(entry.id, path.into());
                }
            }
        }
        append_fields(&mut line, tree, entry.id, target.as_deref())?;
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(())
}

fn append_fields(
    line: &mut Vec<u8>,
    tree: &Tree,
    id: NodeId,
    target: Option<&[u8]>,
) -> io::Result<()> {
    let Node { metadata, kind } = tree.node(id);
    let (type_bits, size_bytes, device) = match kind {
        NodeKind::Directory { .. } => (0o040_000, directory_size_bytes(tree, id), None),
        NodeKind::File(content) => (0o100_000, content.size_bytes(), None),
        NodeKind::Symlink(target) => (0o120_000, target.len() as u64, None),
        NodeKind::CharDevice(device) => (0o020_000, 0, Some(device)),
        NodeKind::BlockDevice(device) => (0o060_000, 0, Some(device)),
        NodeKind::Fifo => (0o010_000, 0, None),
        NodeKind::Socket => (0o140_000, 0, None),
    };
    let device = match device {
        None => 0,
        Some(device) => encode_device(device.major, device.minor).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "device number out of range")
        })?,
    };
    let link = if target.is_some() { "@" } else { "" };
    write!(
        line,
        " {size_bytes} {link}{:o} {} {} {} {device} {}.{} ",
        type_bits | u32::from(metadata.mode & 0o7777),
        tree.link_count(id),
        metadata.uid,
        metadata.gid,
        metadata.mtime_s,
        metadata.mtime_ns,
    )?;
    let (mut payload, mut content, mut digest) = (None, None, None);
    let object_path;
    match kind {
        NodeKind::Symlink(target) => payload = Some(&**target),
        NodeKind::File(FileContent::Inline(bytes)) if !bytes.is_empty() => content = Some(&**bytes),
        NodeKind::File(FileContent::Object {
            id,
            size_bytes: 1..,
        }) => {
            let hex = id.hex();
            object_path = format!("{}/{}", &hex[..2], &hex[2..]);
            payload = Some(object_path.as_bytes());
            digest = Some(hex);
        }
        _ => {}
    }
    append_optional(line, target.or(payload));
    line.push(b' ');
    append_optional(line, content);
    line.push(b' ');
    line.extend_from_slice(digest.as_deref().unwrap_or("-").as_bytes());
    for (name, value) in &metadata.xattrs {
        line.push(b' ');
        append_escaped(line, name, Escape::Equals);
        line.push(b'=');
        append_escaped(line, value, Escape::Equals);
    }
    Ok(())
}

fn append_optional(line: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => line.push(b'-'),
        Some(bytes) => append_escaped(line, bytes, Escape::Optional),
    }
}

fn append_escaped(line: &mut Vec<u8>, bytes: &[u8], escape: Escape) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if escape == Escape::Optional && bytes == b"-" {
        line.extend_from_slice(b"\\x2d");
        return;
    }
    for byte in bytes {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b'!'..=b'~' if escape != Escape::Equals || *byte != b'=' => line.push(*byte),
            _ => line.extend([
                b'\\',
                b'x',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
}

/// Why a text is not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse tree dump at line {line}: {problem}")]
pub struct ParseDumpError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: DumpProblem,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DumpProblem {
    /// The last line does not end.
    #[error("no newline at the end")]
    NoNewline,
    /// A line has fewer than eleven fields.
    #[error("field {0} is missing")]
    MissingField(&'static str),
    /// A field is not what it should be.
    #[error("field {0} is invalid")]
    InvalidField(&'static str),
    /// The root is not first, or comes twice, or is no directory.
    #[error("root directory is not first and single")]
    Root,
    /// A name's parent was not there before.
    #[error("parent directory is missing")]
    NoParent,
    /// A hard link's target is missing, or a link itself.
    #[error("hard link target is missing")]
    NoTarget,
    /// An attribute comes twice or has no equals sign.
    #[error("extended attribute is invalid")]
    Xattr,
    /// More names than allowed.
    #[error("too many names")]
    TooMany,
    /// The tree refused the name.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl ParseDumpError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.problem {
            DumpProblem::TooMany => Kind::Unsafe,
            DumpProblem::Tree(error) => error.kind(),
            _ => Kind::InvalidInput,
        }
    }
}

/// Reads the text form of a tree.
///
/// Link counts and directory sizes are not compared with the tree; they follow
/// from it.
///
/// # Errors
/// [`Kind::InvalidInput`] with the line that is wrong; [`Kind::Unsafe`] over
/// the limits.
pub fn parse(text: &[u8], limits: &Limits) -> Result<Tree, ParseDumpError> {
    let mut tree = None;
    let mut links = Vec::new();
    let mut lines = 0;
    for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        lines = at + 1;
        let fail = |problem| ParseDumpError {
            line: at + 1,
            problem,
        };
        if at as u64 >= limits.nodes {
            return Err(fail(DumpProblem::TooMany));
        }
        let line = line
            .strip_suffix(b"\n")
            .ok_or_else(|| fail(DumpProblem::NoNewline))?;
        if let Some((parent, name, target)) = parse_line(&mut tree, line, limits).map_err(fail)? {
            links.push((at + 1, parent, name, target));
        }
    }
    let mut tree = tree.ok_or(ParseDumpError {
        line: lines + 1,
        problem: DumpProblem::Root,
    })?;
    // Targets may come after the links that name them, but are never links.
    let targets: Vec<_> = links
        .iter()
        .map(|(_, _, _, target)| find(&tree, target))
        .collect();
    for ((line, parent, name, _), target) in links.into_iter().zip(targets) {
        let target = target.ok_or(ParseDumpError {
            line,
            problem: DumpProblem::NoTarget,
        })?;
        tree.link(parent, name, target)
            .map_err(|error| ParseDumpError {
                line,
                problem: error.into(),
            })?;
    }
    Ok(tree)
}

type Link = (NodeId, PathComponent, Vec<u8>);

/// Adds what a line says, or answers with the link it asks for.
fn parse_line(
    tree: &mut Option<Tree>,
    line: &[u8],
    limits: &Limits,
) -> Result<Option<Link>, DumpProblem> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut field = |name| fields.next().ok_or(DumpProblem::MissingField(name));
    let path = unescape(field("PATH")?, "PATH")?;
    let size_bytes: u64 = number(field("SIZE")?, "SIZE")?;
    let mode_text = field("MODE")?;
    let (is_link, mode_text) = match mode_text.strip_prefix(b"@") {
        Some(rest) => (true, rest),
        None => (false, mode_text),
    };
    let mode = ascii(mode_text)
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o177_777)
        .ok_or(DumpProblem::InvalidField("MODE"))?;
    let _links: u32 = number(field("NLINK")?, "NLINK")?;
    let uid = number(field("UID")?, "UID")?;
    let gid = number(field("GID")?, "GID")?;
    let device: u32 = number(field("RDEV")?, "RDEV")?;
    let (mtime_s, mtime_ns) = parse_mtime(field("MTIME")?)?;
    let payload = optional(field("PAYLOAD")?, "PAYLOAD")?;
    let content = optional(field("CONTENT")?, "CONTENT")?;
    let digest = optional(field("DIGEST")?, "DIGEST")?;
    let mut metadata = Metadata {
        mode: u16::try_from(mode & 0o7777).unwrap_or_default(),
        uid,
        gid,
        mtime_s,
        mtime_ns,
        ..Metadata::default()
    };
    for xattr in fields {
        let equals = xattr
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or(DumpProblem::Xattr)?;
        let name = unescape(&xattr[..equals], "XATTR")?;
        let value = unescape(&xattr[equals + 1..], "XATTR")?;
        if name.is_empty() || metadata.xattrs.insert(name.into(), value.into()).is_some() {
            return Err(DumpProblem::Xattr);
        }
    }
    if path == b"/" {
        if tree.is_some() || is_link || mode & S_IFMT != 0o040_000 {
            return Err(DumpProblem::Root);
        }
        *tree = Some(Tree::new(metadata));
        return Ok(None);
    }
    let tree = tree.as_mut().ok_or(DumpProblem::Root)?;
    let slash = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .ok_or(DumpProblem::InvalidField("PATH"))?;
    if path.len() > limits.path_bytes || path[0] != b'/' {
        return Err(DumpProblem::InvalidField("PATH"));
    }
    let name = PathComponent::try_from(&path[slash + 1..])
        .map_err(|_| DumpProblem::InvalidField("PATH"))?;
    let parent = find(tree, &path[..slash]).ok_or(DumpProblem::NoParent)?;
    if is_link {
        let target = payload.ok_or(DumpProblem::InvalidField("PAYLOAD"))?;
        return Ok(Some((parent, name, target)));
    }
    let kind = node_kind(mode, size_bytes, device, payload, content, digest)?;
    tree.insert(parent, name, Node::new(metadata, kind))?;
    Ok(None)
}

fn node_kind(
    mode: u32,
    size_bytes: u64,
    device: u32,
    payload: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    digest: Option<Vec<u8>>,
) -> Result<NodeKind, DumpProblem> {
    let is_device = matches!(mode & S_IFMT, 0o020_000 | 0o060_000);
    if !is_device && device != 0 {
        return Err(DumpProblem::InvalidField("RDEV"));
    }
    let (major, minor) = decode_device(device);
    let number = DeviceNumber { major, minor };
    let plain = |kind| match (&payload, &content, &digest) {
        (None, None, None) => Ok(kind),
        _ => Err(DumpProblem::InvalidField("PAYLOAD")),
    };
    match mode & S_IFMT {
        0o040_000 => plain(NodeKind::directory()),
        0o020_000 => plain(NodeKind::CharDevice(number)),
        0o060_000 => plain(NodeKind::BlockDevice(number)),
        0o010_000 => plain(NodeKind::Fifo),
        0o140_000 => plain(NodeKind::Socket),
        0o120_000 => match (payload, content, digest) {
            (Some(target), None, None) if target.len() as u64 == size_bytes && size_bytes > 0 => {
                Ok(NodeKind::Symlink(target.into()))
            }
            (Some(_), None, None) => Err(DumpProblem::InvalidField("SIZE")),
            _ => Err(DumpProblem::InvalidField("PAYLOAD")),
        },
        0o100_000 => match (payload, content, digest) {
            (None, None, None) if size_bytes == 0 => Ok(NodeKind::File(FileContent::empty())),
            (None, Some(bytes), None) if bytes.len() as u64 == size_bytes => {
                Ok(NodeKind::File(FileContent::Inline(bytes.into())))
            }
            (Some(path), None, Some(digest)) if size_bytes > 0 => {
                let id = parse_object(&path, &digest).ok_or(DumpProblem::InvalidField("DIGEST"))?;
                Ok(NodeKind::File(FileContent::Object { id, size_bytes }))
            }
            (_, Some(_), _) => Err(DumpProblem::InvalidField("CONTENT")),
            _ => Err(DumpProblem::InvalidField("PAYLOAD")),
        },
        _ => Err(DumpProblem::InvalidField("MODE")),
    }
}

/// The object that both fields must agree on.
fn parse_object(path: &[u8], digest: &[u8]) -> Option<ObjectId> {
    let hex = ascii(digest)?;
    let digest: Digest = format!("sha256:{hex}").parse().ok()?;
    let agrees = path.len() == 65
        && path[..2] == hex.as_bytes()[..2]
        && path[2] == b'/'
        && path[3..] == hex.as_bytes()[2..];
    agrees.then(|| ObjectId::from_digest(digest))
}

fn parse_mtime(field: &[u8]) -> Result<(i64, u32), DumpProblem> {
    let invalid = DumpProblem::InvalidField("MTIME");
    let (seconds, nanoseconds) = ascii(field)
        .and_then(|text| text.split_once('.'))
        .ok_or(DumpProblem::InvalidField("MTIME"))?;
    match (canonical(seconds), canonical(nanoseconds)) {
        (Some(seconds), Some(nanoseconds @ ..=999_999_999)) => Ok((seconds, nanoseconds)),
        _ => Err(invalid),
    }
}

fn find(tree: &Tree, path: &[u8]) -> Option<NodeId> {
    if path.is_empty() {
        return Some(tree.root());
    }
    let path = path.strip_prefix(b"/")?;
    path.split(|byte| *byte == b'/')
        .try_fold(tree.root(), |at, name| tree.child(at, name))
}

fn ascii(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field)
        .ok()
        .filter(|text| text.is_ascii())
}

/// Parses a number that is written the only way it can be.
fn canonical<N: std::str::FromStr + std::fmt::Display>(text: &str) -> Option<N> {
    text.parse::<N>()
        .ok()
        .filter(|number| number.to_string() == text)
}

fn number<N: std::str::FromStr + std::fmt::Display>(
    field: &[u8],
    name: &'static str,
) -> Result<N, DumpProblem> {
    ascii(field)
        .and_then(canonical)
        .ok_or(DumpProblem::InvalidField(name))
}

fn optional(field: &[u8], name: &'static str) -> Result<Option<Vec<u8>>, DumpProblem> {
    if field == b"-" {
        Ok(None)
    } else {
        unescape(field, name).map(Some)
    }
}

fn unescape(field: &[u8], name: &'static str) -> Result<Vec<u8>, DumpProblem> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.iter();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'\\' => match rest.next() {
                Some(b'\\') => b'\\',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'x') => match (
                    rest.next().and_then(hex_digit),
                    rest.next().and_then(hex_digit),
                ) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(DumpProblem::InvalidField(name)),
                },
                _ => return Err(DumpProblem::InvalidField(name)),
            },
            b'!'..=b'~' => *byte,
            _ => return Err(DumpProblem::InvalidField(name)),
        };
        bytes.push(byte);
    }
    Ok(bytes)
}

fn hex_digit(byte: &u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = "b0d074abef4d544404facfab6ba242f6a8ccbde90f1325cd286f3c8aa8d0f8aa";

    /// One of everything, exactly as it is to be written.
    fn golden() -> String {
        let (head, tail) = OBJECT.split_at(2);
        format!(
            "/ 4096 40755 3 0 0 0 0.0 - - -\n\
             /a\\x20dir 61 41777 2 0 0 0 1700000000.5 - - - user.k\\x3d=v\\x3d\\x20\\n\\x00\n\
             /a\\x20dir/dash 1 100644 1 0 0 0 0.0 - \\x2d -\n\
             /a\\x20dir/object 4097 100755 2 1 2 0 -7.999999999 {head}/{tail} - {OBJECT}\n\
             /again 4097 @100755 2 1 2 0 -7.999999999 /a\\x20dir/object - {OBJECT}\n\
             /empty 0 100600 1 4294967295 0 0 0.0 - - -\n\
             /fifo 0 10644 1 0 0 0 0.0 - - -\n\
             /link 5 120777 1 0 0 0 0.0 a\\\\\\xffb\\t - -\n\
             /null 0 20666 1 0 0 259 0.0 - - -\n\
             /sda 0 60660 1 0 0 2048 0.0 - - -\n\
             /sock 0 140755 1 0 0 0 0.0 - - -\n"
        )
    }

    #[test]
    fn golden_text_is_written_again_as_it_was_read() {
        let tree = parse(golden().as_bytes(), &Limits::DEFAULT).unwrap();
        assert_eq!(tree.len(), 10);
        let mut text = Vec::new();
        write(&tree, &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), golden());
    }

    #[test]
    fn wrong_lines_are_refused_with_their_number() {
        let root = "/ 0 40755 2 0 0 0 0.0 - - -\n";
        let far = "9".repeat(30);
        for (line, bad) in [
            (1, "/a 0 40755 2 0 0 0 0.0 - - -\n".to_owned()),
            (1, "/ 0 100755 2 0 0 0 0.0 - - -\n".to_owned()),
            (1, String::new()),
            (2, format!("{root}{root}")),
            (2, format!("{root}/a 0 100644 1 0 0 0 0.0 - - -")),
            (2, format!("{root}/a 0 100644 1 0 0 0 0.0 - -\n")),
            (2, format!("{root}a 0 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/.. 0 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a/b 0 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a/ 0 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a 1 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a 2 100644 1 0 0 0 0.0 - x -\n")),
            (
                2,
                format!("{root}/a 5 100644 1 0 0 0 0.0 xx/yy - {OBJECT}\n"),
            ),
            (2, format!("{root}/a 5 100644 1 0 0 0 0.0 - - {OBJECT}\n")),
            (2, format!("{root}/a 2 120777 1 0 0 0 0.0 x - -\n")),
            (2, format!("{root}/a 0 120777 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a 0 100644 1 0 0 5 0.0 - - -\n")),
            (2, format!("{root}/a 0 190644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a 0 644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a 0 100644 1 0 0 0 0.1000000000 - - -\n")),
            (2, format!("{root}/a 0 100644 1 0 0 0 0 - - -\n")),
            (2, format!("{root}/a 0 100644 1 +1 0 0 0.0 - - -\n")),
            (2, format!("{root}/a {far} 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a 0 100644 1 0 0 0 0.0 - - - user.a\n")),
            (
                2,
                format!("{root}/a 0 100644 1 0 0 0 0.0 - - - user.a=1 user.a=2\n"),
            ),
            (2, format!("{root}/a\\q 0 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a\\x4 0 100644 1 0 0 0 0.0 - - -\n")),
            (2, format!("{root}/a 0 @100644 1 0 0 0 0.0 /b - -\n")),
            (2, format!("{root}/a 0 @100644 1 0 0 0 0.0 / - -\n")),
            (2, format!("{root}/a 0 @100644 1 0 0 0 0.0 /a - -\n")),
        ] {
            let error = parse(bad.as_bytes(), &Limits::DEFAULT)
                .map(|_| ())
                .unwrap_err();
            assert_eq!(
                (error.line, error.kind()),
                (line, Kind::InvalidInput),
                "{bad:?}: {error}"
            );
        }
        let limits = Limits {
            nodes: 3,
            ..Limits::DEFAULT
        };
        assert_eq!(
            parse(golden().as_bytes(), &limits).unwrap_err().kind(),
            Kind::Unsafe
        );
    }
}
