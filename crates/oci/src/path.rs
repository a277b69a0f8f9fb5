// SPDX-License-Identifier: Apache-2.0
//! Names inside an image, checked once.
//!
//! File names in layers are bytes, not text: they are kept exactly as they
//! came. A [`PathComponent`] cannot hold a slash, a NUL, `.` or `..`; a
//! [`RelPath`] is a sequence of components. Neither can leave the directory
//! that it is resolved in, except through a symlink on the way, which is for
//! the resolver to refuse.

use std::fmt;

use crate::limits::Limits;

/// One name in a directory: 1 to 255 bytes, no slash, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathComponent(Box<[u8]>);

/// Why bytes are not a name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePathError {
    /// No bytes.
    #[error("file name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("path {path:?} has a component {component:?}, which could leave the root")]
    DotComponent {
        /// The path, printably.
        path: String,
        /// `.` or `..`.
        component: &'static str,
    },
    /// A slash in a single component, or a NUL.
    #[error("file name {name:?} has a forbidden byte")]
    ForbiddenByte {
        /// The name, printably.
        name: String,
    },
    /// More than 255 bytes in a component.
    #[error("file name {name:?} is longer than 255 bytes")]
    ComponentTooLong {
        /// Its beginning, printably.
        name: String,
    },
    /// The whole is longer or deeper than the table of limits allows.
    #[error("path {path:?} is longer or deeper than allowed")]
    TooLong {
        /// Its beginning, printably.
        path: String,
    },
}

impl ParsePathError {
    /// `Unsafe` for what looks like an escape, else `InvalidInput`.
    #[must_use]
    pub fn kind(&self) -> crate::Kind {
        match self {
            Self::DotComponent { .. } | Self::ForbiddenByte { .. } => crate::Kind::Unsafe,
            _ => crate::Kind::InvalidInput,
        }
    }
}

/// Renders hostile bytes for a message: lossy, escaped, at most 80 characters.
fn printable(bytes: &[u8]) -> String {
    crate::digest::excerpt(&String::from_utf8_lossy(&bytes[..bytes.len().min(320)]))
}

impl PathComponent {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as the operating system's string.
    #[must_use]
    pub fn as_os_str(&self) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(&self.0)
    }
}

impl TryFrom<&[u8]> for PathComponent {
    type Error = ParsePathError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        match bytes {
            b"" => Err(ParsePathError::Empty),
            b"." => Err(ParsePathError::DotComponent {
                path: ".".into(),
                component: ".",
            }),
            b".." => Err(ParsePathError::DotComponent {
                path: "..".into(),
                component: "..",
            }),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => {
                Err(ParsePathError::ForbiddenByte {
                    name: printable(bytes),
                })
            }
            _ if bytes.len() > 255 => Err(ParsePathError::ComponentTooLong {
                name: printable(bytes),
            }),
            _ => Ok(Self(bytes.into())),
        }
    }
}

impl TryFrom<&str> for PathComponent {
    type Error = ParsePathError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::try_from(text.as_bytes())
    }
}

impl std::borrow::Borrow<[u8]> for PathComponent {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for PathComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for PathComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A path below some root: components without `.` and `..`; empty is the root
/// itself.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RelPath {
    // Components joined by single slashes; no leading or trailing slash.
    joined: Box<[u8]>,
}

impl RelPath {
    /// The root itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a name as archives write it: leading and repeated slashes,
    /// trailing slashes and `.` components are dropped; `..` is refused.
    ///
    /// # Errors
    /// [`ParsePathError`]: `..`, a NUL, a component or a whole too long or too deep.
    pub fn from_archive_name(name: &[u8], limits: &Limits) -> Result<Self, ParsePathError> {
        let too_long = || ParsePathError::TooLong {
            path: printable(name),
        };
        if name.len() > limits.path_bytes {
            return Err(too_long());
        }
        if name.contains(&0) {
            return Err(ParsePathError::ForbiddenByte {
                name: printable(name),
            });
        }
        let mut joined = Vec::with_capacity(name.len());
        let mut depth = 0;
        for component in name.split(|b| *b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => {
                    return Err(ParsePathError::DotComponent {
                        path: printable(name),
                        component: "..",
                    });
                }
                _ if component.len() > 255 => {
                    return Err(ParsePathError::ComponentTooLong {
                        name: printable(component),
                    });
                }
                _ => {}
            }
            depth += 1;
            if depth > limits.path_depth {
                return Err(too_long());
            }
            if !joined.is_empty() {
                joined.push(b'/');
            }
            joined.extend_from_slice(component);
        }
        Ok(Self {
            joined: joined.into(),
        })
    }

    /// Whether this is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.joined.is_empty()
    }

    /// The components, joined by slashes, without one in front.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.joined
    }

    /// The components as bytes, from the root down. Each is a valid
    /// [`PathComponent`].
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.joined.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// The last component and what is before it; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, PathComponent)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = match self.joined.iter().rposition(|b| *b == b'/') {
            Some(at) => (&self.joined[..at], &self.joined[at + 1..]),
            None => (&self.joined[..0], &self.joined[..]),
        };
        Some((
            Self {
                joined: parent.into(),
            },
            PathComponent(name.into()),
        ))
    }

    /// This path with one more component.
    #[must_use]
    pub fn join(&self, name: &PathComponent) -> Self {
        let mut joined = Vec::with_capacity(self.joined.len() + 1 + name.0.len());
        joined.extend_from_slice(&self.joined);
        if !joined.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(&name.0);
        Self {
            joined: joined.into(),
        }
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.joined))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_name_is_normalised() {
        for (given, wanted) in [
            ("a", "/a"),
            ("./a", "/a"),
            ("/a", "/a"),
            ("//a//b/", "/a/b"),
            ("a/./b", "/a/b"),
            ("", "/"),
            (".", "/"),
            ("./", "/"),
            ("/.", "/"),
            ("...", "/..."),
            ("a\\..\\b", "/a\\..\\b"),
        ] {
            let path = RelPath::from_archive_name(given.as_bytes(), &Limits::DEFAULT).unwrap();
            assert_eq!(path.to_string(), wanted, "{given:?}");
            assert_eq!(path.is_root(), wanted == "/");
        }
    }

    #[test]
    fn archive_name_that_escapes_is_refused() {
        let deep = "d/".repeat(1025);
        let long = "x".repeat(256);
        for bad in [
            "..",
            "../a",
            "a/../b",
            "a/..",
            "/..",
            "a/b/../../..",
            "a\0b",
            &deep,
            &long,
        ] {
            assert!(
                RelPath::from_archive_name(bad.as_bytes(), &Limits::DEFAULT).is_err(),
                "{bad:?} was accepted"
            );
        }
    }

    #[test]
    fn component_is_one_name() {
        for bad in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(
                PathComponent::try_from(bad).is_err(),
                "{bad:?} was accepted"
            );
        }
        assert!(PathComponent::try_from(&[0xff_u8, b'\n'][..]).is_ok());
        let path = RelPath::root()
            .join(&"a".try_into().unwrap())
            .join(&"b".try_into().unwrap());
        let (parent, name) = path.split_last().unwrap();
        assert_eq!(
            (parent.to_string(), name.as_bytes()),
            ("/a".into(), &b"b"[..])
        );
        assert_eq!(path.components().collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(RelPath::root().split_last().is_none());
    }
}
