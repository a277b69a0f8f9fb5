// SPDX-License-Identifier: Apache-2.0
//! Where a lookaside keeps the signatures of a manifest: a directory, or a web
//! server that shows one.
//!
//! ```text
//! BASE/<namespace>/<name>@<algorithm>=<hex>/signature-1
//!                                           signature-2 …
//! ```
//!
//! The host of the registry is no part of it. Numbers have no gaps: who reads
//! stops at the first that is absent.
//!
//! # Source
//! containers-registries.d(5); containers/image "signature-protocols".

use std::path::PathBuf;

use gantry_oci::{ManifestDigest, Repository};

/// The top of a lookaside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// A directory of this host.
    Directory(PathBuf),
    /// An `http` or `https` address, without a slash at its end.
    Web(String),
}

/// Why a text is no place for signatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no place for signatures: {why}")]
pub struct ParseBaseError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Base {
    /// Parses an address as configuration files write it.
    ///
    /// # Errors
    /// [`ParseBaseError`].
    pub fn parse(text: &str) -> Result<Self, ParseBaseError> {
        let error = |why| ParseBaseError {
            text: text.to_owned(),
            why,
        };
        if text.contains(['?', '#', '%', '@']) || text.contains(char::is_whitespace) {
            return Err(error("it has more than scheme, host and path"));
        }
        let (scheme, rest) = text.split_once("://").ok_or(error("it has no scheme"))?;
        let path = rest.trim_end_matches('/');
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Directory(if path.is_empty() {
                PathBuf::from("/")
            } else {
                PathBuf::from(path)
            })),
            "file" => Err(error("its path is not absolute")),
            "http" | "https" if path.is_empty() || path.starts_with('/') => {
                Err(error("it has no host"))
            }
            "http" | "https" => Ok(Self::Web(format!("{scheme}://{path}"))),
            _ => Err(error("its scheme is none of file, http and https")),
        }
    }
}

/// The directory of a manifest's signatures, below a base. Repository and
/// digest were parsed, so that it leads nowhere else.
#[must_use]
pub fn directory(repository: &Repository, digest: &ManifestDigest) -> String {
    format!(
        "{repository}@{}={}",
        digest.digest().algorithm().name(),
        digest.hex()
    )
}

/// The name of the `number`-th signature in it, from 1.
#[must_use]
pub fn file_name(number: usize) -> String {
    format!("signature-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_directories_or_addresses() {
        for (text, base) in [
            ("file:///var/sigs", Base::Directory("/var/sigs".into())),
            ("file:///var/sigs/", Base::Directory("/var/sigs".into())),
            ("file:///", Base::Directory("/".into())),
            (
                "http://s.example:8080/a/",
                Base::Web("http://s.example:8080/a".into()),
            ),
            ("https://s.example", Base::Web("https://s.example".into())),
        ] {
            assert_eq!(Base::parse(text), Ok(base), "{text}");
        }
        for text in [
            "",
            "/var/sigs",
            "file://host/x",
            "file:var",
            "ftp://a/b",
            "http://",
            "http:///x",
            "https://u:p@s.example/",
            "https://s.example/?a",
            "https://s.example/#a",
            "file:///a%2fb",
            "http://s.example/a b",
        ] {
            assert!(Base::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_the_familys() {
        let digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        assert_eq!(
            directory(&"ns/app".parse().unwrap(), &digest),
            format!("ns/app@sha256={}", "ab".repeat(32))
        );
        assert_eq!(file_name(1), "signature-1");
    }
}
