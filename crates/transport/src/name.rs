// SPDX-License-Identifier: Apache-2.0
//! Transport names: `docker://host/app:v1`, `oci:dir:ref`, `store:app:v1`.
//!
//! The spelling is skopeo's. `store:` is our own store; transports that skopeo
//! has and we do not have yet are refused by name, so that nobody looks for a
//! typing error.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use gantry_oci::reference::ParseReferenceError;
use gantry_oci::{Kind, Reference};

/// Which image of an OCI layout is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The only one; when writing, one without a name.
    Only,
    /// The one whose `org.opencontainers.image.ref.name` is this.
    Named(String),
    /// The one at this place of `index.json`, from 0. For reading only.
    Position(usize),
}

/// Where an image is, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// In a registry.
    Docker(Reference),
    /// In a directory.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// Which of its images.
        selection: Selection,
    },
    /// In our store, by whatever the store finds it by: a name, an image ID, a digest.
    Store(String),
}

/// Why a text is not a transport name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNameError {
    /// No transport in front.
    #[error("image name {text:?} has no transport in front (docker://, oci: or store:)")]
    NoTransport {
        /// What was given.
        text: String,
    },
    /// A transport that exists elsewhere.
    #[error("transport {transport}: is not supported (docker://, oci: and store: are)")]
    Unsupported {
        /// Its name.
        transport: String,
    },
    /// `docker:` without the two slashes.
    #[error("image name {text:?} lacks the two slashes of docker://")]
    NoSlashes {
        /// What was given.
        text: String,
    },
    /// An OCI layout without a directory, or a malformed ref name.
    #[error("image name {text:?} is not of the form oci:DIRECTORY[:REF] or oci:DIRECTORY:@NUMBER")]
    Layout {
        /// What was given.
        text: String,
    },
    /// `store:` and nothing behind it.
    #[error("image name \"store:\" names no image")]
    EmptyStore,
    /// A malformed reference.
    #[error("parse image name {text:?}")]
    Reference {
        /// What was given.
        text: String,
        /// Why.
        source: ParseReferenceError,
    },
}

impl ParseNameError {
    /// [`Kind::Unsupported`] for other transports, else [`Kind::InvalidInput`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unsupported { .. } => Kind::Unsupported,
            _ => Kind::InvalidInput,
        }
    }
}

/// Transports of the neighbours that we know by name only.
const ELSEWHERE: &[&str] = &[
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

impl FromStr for ImageName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reference = |rest: &str| {
            Reference::parse_normalized(rest)
                .map(Reference::or_latest)
                .map_err(|source| ParseNameError::Reference {
                    text: text.into(),
                    source,
                })
        };
        let no_transport = || ParseNameError::NoTransport { text: text.into() };
        let (transport, rest) = text.split_once(':').ok_or_else(no_transport)?;
        match transport {
            "docker" => {
                let rest = rest
                    .strip_prefix("//")
                    .ok_or_else(|| ParseNameError::NoSlashes { text: text.into() })?;
                reference(rest).map(Self::Docker)
            }
            "oci" => parse_layout(rest).ok_or_else(|| ParseNameError::Layout { text: text.into() }),
            "store" if rest.is_empty() => Err(ParseNameError::EmptyStore),
            "store" => Ok(Self::Store(rest.into())),
            other if ELSEWHERE.contains(&other) => Err(ParseNameError::Unsupported {
                transport: other.into(),
            }),
            _ => Err(no_transport()),
        }
    }
}

fn parse_layout(rest: &str) -> Option<ImageName> {
    let (path, selection) = match rest.split_once(':') {
        None => (rest, Selection::Only),
        Some((path, "")) => (path, Selection::Only),
        Some((path, name)) => match name.strip_prefix('@') {
            Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => {
                (path, Selection::Position(number.parse().ok()?))
            }
            Some(_) => return None,
            None if is_ref_name(name) => (path, Selection::Named(name.into())),
            None => return None,
        },
    };
    (!path.is_empty()).then(|| ImageName::OciLayout {
        path: path.into(),
        selection,
    })
}

/// image-spec v1.1 "Pre-Defined Annotation Keys": words of letters and digits
/// with separators between them, and slashes between those.
#[must_use]
pub fn is_ref_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric();
    let component = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().copied().is_some_and(word)
            && bytes.last().copied().is_some_and(word)
            && bytes.split(|b| word(*b)).all(|separator| {
                matches!(
                    separator,
                    b"" | b"-" | b"." | b"_" | b":" | b"@" | b"+" | b"--"
                )
            })
    };
    text.len() <= 1024 && text.split('/').all(component)
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(reference) => write!(f, "docker://{reference}"),
            Self::Store(name) => write!(f, "store:{name}"),
            Self::OciLayout { path, selection } => {
                write!(f, "oci:{}", path.display())?;
                match selection {
                    Selection::Only => Ok(()),
                    Selection::Named(name) => write!(f, ":{name}"),
                    Selection::Position(position) => write!(f, ":@{position}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_their_normal_form() {
        for (text, normal) in [
            (
                "docker://debian",
                "docker://docker.io/library/debian:latest",
            ),
            (
                "docker://localhost:5000/a/b:v1",
                "docker://localhost:5000/a/b:v1",
            ),
            ("store:demo.example/app:v1", "store:demo.example/app:v1"),
            ("store:sha256:0123abcd", "store:sha256:0123abcd"),
            ("oci:dir", "oci:dir"),
            ("oci:/a/dir:", "oci:/a/dir"),
            ("oci:dir:v1.0", "oci:dir:v1.0"),
            ("oci:dir:host/app:v1", "oci:dir:host/app:v1"),
            ("oci:dir:@3", "oci:dir:@3"),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), normal);
        }
    }

    #[test]
    fn each_mistake_has_its_own_sentence() {
        let error = |text: &str| text.parse::<ImageName>().unwrap_err();
        assert!(matches!(
            error("debian"),
            ParseNameError::NoTransport { .. }
        ));
        assert!(matches!(
            error("debian:12"),
            ParseNameError::NoTransport { .. }
        ));
        assert!(matches!(error("store:"), ParseNameError::EmptyStore));
        assert!(matches!(
            error("docker:debian"),
            ParseNameError::NoSlashes { .. }
        ));
        assert!(matches!(
            error("docker://Debian"),
            ParseNameError::Reference { .. }
        ));
        for text in [
            "oci:",
            "oci::ref",
            "oci:dir:-x",
            "oci:dir:@x",
            "oci:dir:a//b",
        ] {
            assert!(
                matches!(error(text), ParseNameError::Layout { .. }),
                "{text}"
            );
        }
        let error = error("docker-archive:x.tar");
        assert_eq!(error.kind(), Kind::Unsupported);
        assert_eq!(
            error.to_string(),
            "transport docker-archive: is not supported (docker://, oci: and store: are)"
        );
    }
}
