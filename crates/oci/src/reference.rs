// SPDX-License-Identifier: Apache-2.0
//! References: where an image is said to be.
//!
//! `[host[:port]/]path[:tag][@digest]`. A first component is a host if it has
//! a dot or a colon, or is `localhost`; else the host is `docker.io`, and a
//! single component there gets `library/` in front: the rules that Docker set
//! and everybody keeps.
//!
//! # Source
//! distribution-spec v1.1 "Pulling manifests" (name and tag grammar); the
//! reference grammar of the Docker distribution project.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{ParseDigestError, excerpt};
use crate::ids::ManifestDigest;

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseReferenceError {
    /// The host part is not a name or address with an optional port.
    #[error("registry host {text:?} is not a host name or address with an optional port")]
    Host {
        /// What was given.
        text: String,
    },
    /// The repository breaks the grammar.
    #[error(
        "repository name {text:?} is not made of lower-case letters, digits and single separators (., _, __, -) \
         between slashes, at most 255 bytes"
    )]
    Repository {
        /// What was given.
        text: String,
    },
    /// The tag breaks the grammar.
    #[error("tag {text:?} is not 1 to 128 letters, digits, underscores, dots and dashes")]
    Tag {
        /// What was given.
        text: String,
    },
    /// The digest breaks the grammar.
    #[error("reference {text:?} ends in a malformed digest")]
    Digest {
        /// The whole reference.
        text: String,
        /// Why.
        source: ParseDigestError,
    },
}

impl ParseReferenceError {
    /// Always invalid input.
    #[must_use]
    pub fn kind(&self) -> crate::Kind {
        crate::Kind::InvalidInput
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $check:path, $error:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseReferenceError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $check(text) { Ok(Self(text.into())) } else { Err(ParseReferenceError::$error { text: excerpt(text) }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseReferenceError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_newtype! {
    /// A registry: `host[:port]`, `[v6]:port`.
    Host, is_host, Host
}
text_newtype! {
    /// A repository within a registry: `library/debian`.
    Repository, is_repository, Repository
}
text_newtype! {
    /// A tag: at most 128 characters.
    Tag, is_tag, Tag
}

impl Host {
    /// The name or address without the port.
    #[must_use]
    pub fn name(&self) -> &str {
        split_port(&self.0).map_or(&self.0, |(name, _)| name)
    }

    /// Whether this is a loopback name or address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let name = self.name().trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || name.ends_with(".localhost")
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl Repository {
    /// The components between the slashes.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

fn split_port(text: &str) -> Option<(&str, &str)> {
    let (name, port) = text.rsplit_once(':')?;
    // A colon inside brackets belongs to an address, not to a port.
    (!port.contains(']')).then_some((name, port))
}

fn is_host(text: &str) -> bool {
    let (name, port) = match split_port(text) {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let port_ok = port.is_none_or(|p| {
        !p.is_empty()
            && p.len() <= 5
            && p.bytes().all(|b| b.is_ascii_digit())
            && p.parse::<u16>().is_ok_and(|n| n > 0)
    });
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name_ok = match name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.len() <= 253 && name.split('.').all(label_ok),
    };
    port_ok && name_ok
}

fn is_repository(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_repository_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_repository_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(|b| alphanumeric(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Where an image is said to be: registry, repository, and a tag, a digest,
/// both or neither.
///
/// Holding one says that it is well formed, nothing more.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// The registry.
    pub host: Host,
    /// The repository in it.
    pub repository: Repository,
    /// The tag, if one was given.
    pub tag: Option<Tag>,
    /// The digest, if one was given; it wins over the tag.
    pub digest: Option<ManifestDigest>,
}

impl Reference {
    /// Parses what a person writes, filling in `docker.io` and `library/`.
    ///
    /// # Errors
    /// [`ParseReferenceError`] names the part that breaks the grammar.
    pub fn parse_normalized(text: &str) -> Result<Self, ParseReferenceError> {
        let parts = Parts::split(text)?;
        let (host, path) = match parts.name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            _ => ("docker.io", parts.name.to_owned()),
        };
        let host = if host == "index.docker.io" {
            "docker.io"
        } else {
            host
        };
        let path = if host == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        Ok(Self {
            host: host.parse()?,
            repository: path.parse()?,
            tag: parts.tag,
            digest: parts.digest,
        })
    }

    /// This reference with tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(Tag("latest".into()));
        }
        self
    }

    /// `host/repository` without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

/// The pieces of a reference before the name is split into host and path.
struct Parts<'a> {
    name: &'a str,
    tag: Option<Tag>,
    digest: Option<ManifestDigest>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, ParseReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ParseReferenceError::Digest {
                        text: excerpt(text),
                        source,
                    })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse()?)),
            _ => (rest, None),
        };
        Ok(Self { name, tag, digest })
    }
}

/// A repository with optional tag and digest and no host: what a registry's
/// own names look like, `demo/app:v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalName {
    /// The repository.
    pub repository: Repository,
    /// The tag, if one was given.
    pub tag: Option<Tag>,
    /// The digest, if one was given.
    pub digest: Option<ManifestDigest>,
}

impl FromStr for LocalName {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = Parts::split(text)?;
        Ok(Self {
            repository: parts.name.parse()?,
            tag: parts.tag,
            digest: parts.digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reference_is_normalised_as_docker_does() {
        for (given, wanted) in [
            ("debian", "docker.io/library/debian"),
            ("debian:12", "docker.io/library/debian:12"),
            ("index.docker.io/debian", "docker.io/library/debian"),
            ("user/app", "docker.io/user/app"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c"),
            ("[::1]:5000/app", "[::1]:5000/app"),
            (
                "quay.io/a__b/c-d--e.f:T_1.x-y",
                "quay.io/a__b/c-d--e.f:T_1.x-y",
            ),
            ("UPPER.example/app", "UPPER.example/app"),
        ] {
            assert_eq!(
                Reference::parse_normalized(given).unwrap().to_string(),
                wanted,
                "{given:?}"
            );
        }
        let both = format!("a.b/c:t@{DIGEST}");
        assert_eq!(
            Reference::parse_normalized(&both).unwrap().to_string(),
            both
        );
        assert_eq!(
            Reference::parse_normalized("debian")
                .unwrap()
                .or_latest()
                .tag
                .unwrap()
                .as_str(),
            "latest"
        );
    }

    #[test]
    fn reference_that_breaks_the_grammar_is_refused() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = format!("a.b/{}", "n".repeat(256));
        for bad in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "Debian",
            "docker.io/Debian",
            "a..b/c/d",
            "a/..",
            "a/../b",
            "a/_b",
            "a/b_",
            "a/b___c",
            "a/b..c",
            "a.b/",
            "a:",
            "a:tag with space",
            "a:-t",
            "a:.t",
            &long_tag,
            &long_name,
            "host:99999/a",
            "host:0/a",
            "host:/a",
            "[::1/a",
            "[zz]:1/a",
            "a@",
            "a@sha256:x",
            "a@md5:00",
            "-bad.example/a",
            "a.b/c%2f",
            "a\0b",
            "é/a",
            "a:t@sha256:",
        ] {
            assert!(
                Reference::parse_normalized(bad).is_err(),
                "{bad:?} was accepted"
            );
        }
    }

    #[test]
    fn local_name_has_no_host() {
        let name: LocalName = "demo/app:v1".parse().unwrap();
        assert_eq!(
            (name.repository.as_str(), name.tag.unwrap().as_str()),
            ("demo/app", "v1")
        );
        assert!("localhost:5000/app".parse::<LocalName>().is_err());
        assert!(
            "127.0.0.1/app".parse::<LocalName>().is_ok(),
            "a dotted component is a fine repository"
        );
    }

    #[test]
    fn host_knows_loopback() {
        for (text, wanted) in [
            ("localhost", true),
            ("localhost:1", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("10.0.0.1", false),
            ("example.com", false),
            ("localhost.example", false),
            ("[::2]:5000", false),
        ] {
            assert_eq!(
                text.parse::<Host>().unwrap().is_loopback(),
                wanted,
                "{text}"
            );
        }
    }
}
