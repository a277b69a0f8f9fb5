// SPDX-License-Identifier: Apache-2.0
//! Names of images in a store.
//!
//! ```text
//! images/<repository>/<tag>             the store's own (a registry's) names
//! remotes/<host>/<repository>/<tag>     where it was pulled from
//! remotes/<host>/<repository>/@<digest>
//! ```

use gantry_oci::reference::LocalName;
use gantry_oci::{Host, ManifestDigest, Reference, Repository, Tag};
use std::fmt;

/// A name that may point at an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    /// The registry it came from; none for the store's own names.
    pub host: Option<Host>,
    /// The repository.
    pub repository: Repository,
    /// Tag or digest.
    pub pointer: Pointer,
}

/// What stands behind the repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pointer {
    /// A tag, which may move.
    Tag(Tag),
    /// A digest, which cannot.
    Digest(ManifestDigest),
}

impl ImageName {
    /// The name under which a pull of `reference` is kept: its digest wins over its tag, and no
    /// tag means `latest`.
    #[must_use]
    pub fn remote(reference: &Reference) -> Self {
        Self {
            host: Some(reference.host.clone()),
            repository: reference.repository.clone(),
            pointer: pointer(reference.tag.as_ref(), reference.digest.as_ref()),
        }
    }

    /// One of the store's own names.
    #[must_use]
    pub fn own(name: &LocalName) -> Self {
        Self {
            host: None,
            repository: name.repository.clone(),
            pointer: pointer(name.tag.as_ref(), name.digest.as_ref()),
        }
    }

    /// The directory of the name, below the store's root.
    pub(crate) fn dir(&self) -> String {
        match &self.host {
            None => format!("{}/{}", crate::layout::IMAGES, self.repository),
            Some(host) => format!("{}/{host}/{}", crate::layout::REMOTES, self.repository),
        }
    }

    /// The last component.
    pub(crate) fn file(&self) -> String {
        match &self.pointer {
            Pointer::Tag(tag) => tag.to_string(),
            Pointer::Digest(digest) => format!("@{digest}"),
        }
    }

    /// Reads a name back from its path below the root; `None` for what is no name.
    pub(crate) fn from_path(host: Option<&str>, repository: &str, file: &str) -> Option<Self> {
        let pointer = match file.strip_prefix('@') {
            Some(digest) => Pointer::Digest(digest.parse().ok()?),
            None => Pointer::Tag(file.parse().ok()?),
        };
        Some(Self {
            host: host.map(str::parse).transpose().ok()?,
            repository: repository.parse().ok()?,
            pointer,
        })
    }
}

fn pointer(tag: Option<&Tag>, digest: Option<&ManifestDigest>) -> Pointer {
    match (tag, digest) {
        (_, Some(digest)) => Pointer::Digest(*digest),
        (Some(tag), None) => Pointer::Tag(tag.clone()),
        (None, None) => Pointer::Tag(latest()),
    }
}

#[expect(clippy::expect_used, reason = "a constant of the grammar")]
fn latest() -> Tag {
    "latest".parse().expect("'latest' is a tag")
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        match &self.pointer {
            Pointer::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Pointer::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_place_and_come_back_from_it() {
        for (text, dir, file) in [
            ("debian", "remotes/docker.io/library/debian", "latest"),
            ("localhost:5000/a/b:v1", "remotes/localhost:5000/a/b", "v1"),
        ] {
            let name = ImageName::remote(&Reference::parse_normalized(text).unwrap());
            assert_eq!((name.dir().as_str(), name.file().as_str()), (dir, file));
            let mut parts = dir.splitn(3, '/').skip(1);
            let back = ImageName::from_path(parts.next(), parts.next().unwrap(), file);
            assert_eq!(back, Some(name));
        }
        let own = ImageName::own(&"demo/app:v2".parse().unwrap());
        assert_eq!(
            (own.dir().as_str(), own.file().as_str()),
            ("images/demo/app", "v2")
        );
        assert_eq!(own.to_string(), "demo/app:v2");
        assert_eq!(ImageName::from_path(None, "a", ".."), None);
        assert_eq!(ImageName::from_path(None, "..", "a"), None);
    }
}
