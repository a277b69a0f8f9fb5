// SPDX-License-Identifier: Apache-2.0
//! The `signedIdentity` rules: whether the reference that a signature names is
//! that of the image at hand.
//!
//! Compared is always the *logical* reference, what the user or the pod asked
//! for: never a mirror's name, never a short name. A reference with both a tag
//! and a digest is one by digest, as its tag decided nothing.
//!
//! # Source
//! containers-policy.json(5), "signedBy".

use std::fmt;

use gantry_oci::{Host, Reference, Repository};

/// Which reference a signature must name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignedIdentity {
    /// The same, tag included; of an image by digest, the same repository.
    #[default]
    MatchRepoDigestOrExact,
    /// The same, tag included; of an image by digest, a signature that names that digest.
    MatchExact,
    /// The same repository, whatever the tag.
    MatchRepository,
    /// This one, whatever the image is called.
    ExactReference(Reference),
    /// Any in this repository, whatever the image is called.
    ExactRepository(Reference),
    /// The image's with another beginning, then as the default rule.
    Remap {
        /// What the image's name begins with.
        prefix: RemapPrefix,
        /// What it is in signatures.
        signed_prefix: RemapPrefix,
    },
}

/// A registry, or a repository or namespace in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemapPrefix(String);

impl RemapPrefix {
    /// Parses `host[:port]` or `host[:port]/path`; the error is a sentence's end.
    ///
    /// # Errors
    /// Anything else, a tag or a digest included.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, path) = match text.split_once('/') {
            Some((host, path)) => (host, Some(path)),
            None => (text, None),
        };
        let good = host.parse::<Host>().is_ok()
            && path.is_none_or(|path| path.parse::<Repository>().is_ok());
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is neither a registry nor a name with one"
            ))
        }
    }

    /// The rest of a name behind this prefix; a component is never cut.
    fn strip<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(&self.0)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

impl fmt::Display for RemapPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SignedIdentity {
    /// The word in the file.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::MatchRepoDigestOrExact => "matchRepoDigestOrExact",
            Self::MatchExact => "matchExact",
            Self::MatchRepository => "matchRepository",
            Self::ExactReference(_) => "exactReference",
            Self::ExactRepository(_) => "exactRepository",
            Self::Remap { .. } => "remapIdentity",
        }
    }

    /// Whether a signature that names `signed` is for `image`, the logical
    /// reference of the image at hand. The error says why not.
    ///
    /// # Errors
    /// A sentence for people: what was wanted and what the signature names.
    pub fn accepts(&self, image: Option<&Reference>, signed: &str) -> Result<(), String> {
        let signed = Reference::parse_normalized(signed)
            .map_err(|error| format!("signed reference is none: {error}"))?;
        let image = || {
            let image = image.ok_or_else(|| {
                let rule = self.type_name();
                format!(
                    "{rule} compares with the image's name in a registry, and this one has none"
                )
            })?;
            Ok::<_, String>(logical(image))
        };
        let (good, wanted) = match self {
            Self::MatchRepoDigestOrExact => {
                let image = image()?;
                (repo_digest_or_exact(&image, &signed), image.to_string())
            }
            Self::MatchExact => {
                let image = image()?;
                (signed == image, image.to_string())
            }
            Self::MatchRepository => {
                let image = image()?;
                (same_repository(&signed, &image), image.name())
            }
            Self::ExactReference(wanted) => (signed == *wanted, wanted.to_string()),
            Self::ExactRepository(wanted) => (same_repository(&signed, wanted), wanted.name()),
            Self::Remap {
                prefix,
                signed_prefix,
            } => {
                let image = remap(image()?, prefix, signed_prefix)?;
                (repo_digest_or_exact(&image, &signed), image.to_string())
            }
        };
        if good {
            return Ok(());
        }
        Err(format!(
            "signed as {signed}, but {} wants {wanted}",
            self.type_name()
        ))
    }
}

/// What an image was asked for by: a tag beside a digest decided nothing.
pub(crate) fn logical(image: &Reference) -> Reference {
    let mut image = image.clone().or_latest();
    if image.digest.is_some() {
        image.tag = None;
    }
    image
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    one.host == other.host && one.repository == other.repository
}

fn repo_digest_or_exact(image: &Reference, signed: &Reference) -> bool {
    if signed.tag.is_none() && signed.digest.is_none() {
        return false;
    }
    match image.digest {
        // That the manifest has the digest is known, and that the signature speaks of it is checked elsewhere.
        Some(_) => same_repository(image, signed),
        None => image == signed,
    }
}

fn remap(
    image: Reference,
    prefix: &RemapPrefix,
    signed_prefix: &RemapPrefix,
) -> Result<Reference, String> {
    let name = image.name();
    let Some(rest) = prefix.strip(&name) else {
        return Ok(image);
    };
    let mapped = format!("{signed_prefix}{rest}");
    // Only a name that needs no completion: nobody wrote `library/`.
    match Reference::parse_normalized(&mapped) {
        Ok(reference) if reference.name() == mapped => Ok(Reference {
            tag: image.tag,
            digest: image.digest,
            ..reference
        }),
        _ => Err(format!(
            "remapIdentity makes {mapped} of {name}, which is no full name"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn reference(text: &str) -> Reference {
        Reference::parse_normalized(text).unwrap()
    }

    fn prefix(text: &str) -> RemapPrefix {
        RemapPrefix::parse(text).unwrap()
    }

    /// Every rule against every way to ask for an image and every name that
    /// may have been signed: y accepted, - refused.
    #[test]
    fn truth_table() {
        let by_digest = format!("h.io/ns/app@{DIGEST}");
        let by_both = format!("h.io/ns/app:v1@{DIGEST}");
        let images = [
            "h.io/ns/app:v1",
            &by_digest,
            &by_both,
            "h.io/ns/app",
            "mirror.io/copy/ns/app:v1",
        ];
        let signed = [
            "h.io/ns/app:v1",
            "h.io/ns/app:v2",
            "h.io/ns/app",
            "h.io/ns/app:latest",
            &by_digest,
            &by_both,
            "h.io/ns/other:v1",
            "mirror.io/copy/ns/app:v1",
        ];
        let remap = SignedIdentity::Remap {
            prefix: prefix("mirror.io/copy"),
            signed_prefix: prefix("h.io"),
        };
        #[rustfmt::skip]
        let table = [
            // image by:                                        tag         digest      both        neither     mirror
            (SignedIdentity::MatchRepoDigestOrExact,           ["y-------", "yy-yyy--", "yy-yyy--", "---y----", "-------y"]),
            (SignedIdentity::MatchExact,                       ["y-------", "----y---", "----y---", "---y----", "-------y"]),
            (SignedIdentity::MatchRepository,                  ["yyyyyy--", "yyyyyy--", "yyyyyy--", "yyyyyy--", "-------y"]),
            (SignedIdentity::ExactReference(reference("h.io/ns/app:v1")),
                                                               ["y-------", "y-------", "y-------", "y-------", "y-------"]),
            (SignedIdentity::ExactReference(reference(&by_both)),
                                                               ["-----y--", "-----y--", "-----y--", "-----y--", "-----y--"]),
            (SignedIdentity::ExactRepository(reference("h.io/ns/app")),
                                                               ["yyyyyy--", "yyyyyy--", "yyyyyy--", "yyyyyy--", "yyyyyy--"]),
            (remap,                                            ["y-------", "yy-yyy--", "yy-yyy--", "---y----", "y-------"]),
        ];
        for (rule, rows) in table {
            for (image, row) in images.into_iter().zip(rows) {
                let found: String = signed
                    .iter()
                    .map(
                        |signed| match rule.accepts(Some(&reference(image)), signed) {
                            Ok(()) => 'y',
                            Err(_) => '-',
                        },
                    )
                    .collect();
                assert_eq!(found, row, "{rule:?} for image {image}");
            }
        }
    }

    #[test]
    fn names_are_compared_as_normalised() {
        let rule = SignedIdentity::MatchExact;
        let image = reference("busybox");
        for (signed, good) in [
            ("busybox:latest", true),
            ("docker.io/library/busybox:latest", true),
            ("index.docker.io/library/busybox:latest", true),
            ("docker.io/busybox:latest", true),
            ("docker.io/other/busybox:latest", false),
            ("docker.io./library/busybox:latest", false),
            ("docker.io:443/library/busybox:latest", false),
            ("d\u{43e}cker.io/library/busybox:latest", false),
            ("docker.io/library/Busybox:latest", false),
            ("busybox", false),
            ("", false),
        ] {
            let accepted = rule.accepts(Some(&image), signed);
            assert_eq!(accepted.is_ok(), good, "{signed:?}: {accepted:?}");
        }
    }

    #[test]
    fn an_image_without_a_name_matches_fixed_names_only() {
        let fixed = SignedIdentity::ExactReference(reference("h.io/a:v1"));
        assert!(fixed.accepts(None, "h.io/a:v1").is_ok());
        for rule in [
            SignedIdentity::MatchExact,
            SignedIdentity::MatchRepoDigestOrExact,
            SignedIdentity::MatchRepository,
            SignedIdentity::Remap {
                prefix: prefix("h.io"),
                signed_prefix: prefix("h.io"),
            },
        ] {
            let problem = rule.accepts(None, "h.io/a:v1").unwrap_err();
            assert!(problem.contains("this one has none"), "{problem}");
        }
    }

    #[test]
    fn a_remapped_prefix_ends_where_a_component_does() {
        let of = |from, to| SignedIdentity::Remap {
            prefix: prefix(from),
            signed_prefix: prefix(to),
        };
        for (rule, image, signed, good) in [
            (of("m.io/a/b", "h.io/x"), "m.io/a/b:1", "h.io/x:1", true),
            (of("m.io/a/b", "h.io/x"), "m.io/a/b/c:1", "h.io/x/c:1", true),
            (of("m.io/a/b", "h.io/x"), "m.io/a/bc:1", "h.io/xc:1", false),
            (of("m.io/a/b", "h.io/x"), "m.io/a/bc:1", "m.io/a/bc:1", true),
            (of("m.io:5000", "h.io"), "m.io:5000/a:1", "h.io/a:1", true),
            (of("m.io", "h.io"), "m.io:5000/a:1", "h.io:5000/a:1", false),
            // Nothing is completed: docker.io/a is not docker.io/library/a.
            (
                of("m.io", "docker.io"),
                "m.io/a:1",
                "docker.io/library/a:1",
                false,
            ),
            (of("m.io", "docker.io"), "m.io/a/b:1", "a/b:1", true),
        ] {
            let accepted = rule.accepts(Some(&reference(image)), signed);
            assert_eq!(accepted.is_ok(), good, "{rule:?} {image}: {accepted:?}");
        }
        for bad in ["", "/", "h.io/", "h.io/a:1", "h.io/A", "h.io//a", "h_o"] {
            assert!(RemapPrefix::parse(bad).is_err(), "{bad:?}");
        }
    }
}
