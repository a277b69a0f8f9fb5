// SPDX-License-Identifier: Apache-2.0
//! From what a person types to an image of a store, and to the names that new images get.
//!
//! A name is looked for among the store's own names first, then as it is written, then with the
//! hosts that podman would put in front of a short name, then as the end of any longer name, and
//! last as the beginning of an image ID or digest.

use gantry_oci::reference::LocalName;
use gantry_oci::{Kind, Reference};
use gantry_store::{ImageName, ImageRecord, Pointer, Store};

use crate::exit::Failure;

/// The host of names that no registry gave, as podman and buildah spell it.
pub const LOCALHOST: &str = "localhost";

/// An image of a store, and how it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The name that led to it; none if it was found by image ID or digest.
    pub name: Option<ImageName>,
    /// What the name leads to: an image or an index.
    pub record: ImageRecord,
}

/// Finds an image. `search` are the registries that a short name may stand for.
///
/// # Errors
/// [`Kind::NotFound`]; [`Kind::InvalidInput`] if several images match equally well; the store's.
pub fn find(store: &Store, text: &str, search: &[String]) -> Result<Found, Failure> {
    for name in candidates(store, text, search) {
        if let Some(record) = store.resolve(&name)? {
            return Ok(Found {
                name: Some(name),
                record,
            });
        }
    }
    if let Some(found) = by_end(store, text)? {
        return Ok(found);
    }
    if let Some(record) = by_id(store, text)? {
        return Ok(Found { name: None, record });
    }
    Err(Failure::message(
        Kind::NotFound,
        format!("find image {text}: not in store {}", store.path().display()),
    )
    .hint(format!("bring it with: gantry pull {text}")))
}

/// The name that a person means for a new image: without a host it is one of this machine.
///
/// # Errors
/// [`Kind::InvalidInput`] if the text is no reference.
pub fn new_name(store: &Store, text: &str) -> Result<ImageName, Failure> {
    let reference = if has_host(text) {
        Reference::parse_normalized(text)
    } else {
        Reference::parse_normalized(&format!("{LOCALHOST}/{text}"))
    };
    let reference =
        reference.map_err(|error| Failure::from(error).context(format!("parse name {text:?}")))?;
    Ok(store.name_for(&reference.or_latest()))
}

/// Whether the text begins with a registry.
#[must_use]
pub fn has_host(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == LOCALHOST)
}

fn candidates(store: &Store, text: &str, search: &[String]) -> Vec<ImageName> {
    let own = text
        .parse::<LocalName>()
        .ok()
        .map(|name| ImageName::own(&name));
    let remote = references(text, search);
    own.into_iter()
        .chain(remote.iter().map(|reference| store.name_for(reference)))
        .collect()
}

/// What a text may stand for, the likeliest first.
fn references(text: &str, search: &[String]) -> Vec<Reference> {
    let prefixes = [LOCALHOST.to_owned()];
    let prefixes = prefixes.iter().chain(search);
    let short = prefixes
        .filter(|_| !has_host(text))
        .filter_map(|host| Reference::parse_normalized(&format!("{host}/{text}")).ok());
    short
        .chain(Reference::parse_normalized(text).ok())
        .map(Reference::or_latest)
        .collect()
}

/// Finds the one name whose end is `text`, component by component.
fn by_end(store: &Store, text: &str) -> Result<Option<Found>, Failure> {
    let Ok(wanted) = text.parse::<LocalName>() else {
        return Ok(None);
    };
    let pointer = ImageName::own(&wanted).pointer;
    let mut matching: Vec<_> = store
        .names()?
        .into_iter()
        .filter(|named| {
            named.name.pointer == pointer
                && ends_with(named.name.repository.as_str(), wanted.repository.as_str())
        })
        .collect();
    matching.sort_by_key(|named| named.digest);
    matching.dedup_by_key(|named| named.digest);
    if let [first, second, ..] = matching.as_slice() {
        return Err(ambiguous(
            text,
            &first.name.to_string(),
            &second.name.to_string(),
        ));
    }
    let Some(named) = matching.pop() else {
        return Ok(None);
    };
    Ok(store.image(&named.digest)?.map(|record| Found {
        name: Some(named.name),
        record,
    }))
}

/// Whether a repository is `end`, or ends so with whole components.
#[must_use]
pub fn ends_with(repository: &str, end: &str) -> bool {
    repository
        .strip_suffix(end)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

fn by_id(store: &Store, text: &str) -> Result<Option<ImageRecord>, Failure> {
    let mut matching = store.find_by_prefix(text)?;
    // One configuration under two manifests (gzip and zstd, say) is one tree.
    let id = |record: &ImageRecord| {
        let of_image = record.image().map(|facts| *facts.image_id.digest());
        of_image.unwrap_or(*record.digest.digest())
    };
    matching.sort_by_key(id);
    matching.dedup_by_key(|record| id(record));
    if let [first, second, ..] = matching.as_slice() {
        return Err(ambiguous(
            text,
            &first.digest.to_string(),
            &second.digest.to_string(),
        ));
    }
    Ok(matching.pop())
}

fn ambiguous(text: &str, one: &str, other: &str) -> Failure {
    Failure::message(
        Kind::InvalidInput,
        format!("find image {text}: it may be {one} or {other}"),
    )
}

/// `host/repository` of a name, as tables show it.
#[must_use]
pub fn repository_of(name: &ImageName) -> String {
    match &name.host {
        Some(host) => format!("{host}/{}", name.repository),
        None => name.repository.to_string(),
    }
}

/// The tag of a name, if that is what it has.
#[must_use]
pub fn tag_of(name: &ImageName) -> Option<&str> {
    match &name.pointer {
        Pointer::Tag(tag) => Some(tag.as_str()),
        Pointer::Digest(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_tried_in_order() {
        let search = ["quay.io".to_owned(), "docker.io".to_owned()];
        let names = |text| -> Vec<String> {
            references(text, &search)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            names("app:v1"),
            [
                "localhost/app:v1",
                "quay.io/app:v1",
                "docker.io/library/app:v1",
                "docker.io/library/app:v1"
            ]
        );
        assert_eq!(names("a.example/app"), ["a.example/app:latest"]);
        assert_eq!(names("localhost/app"), ["localhost/app:latest"]);
        assert_eq!(names("Not A Name"), [""; 0]);
    }

    #[test]
    fn ends_are_whole_components() {
        assert!(ends_with("team/app", "app"));
        assert!(ends_with("app", "app"));
        assert!(ends_with("a/team/app", "team/app"));
        assert!(!ends_with("team/myapp", "app"));
    }

    #[test]
    fn a_host_has_a_dot_or_a_colon() {
        for (text, wanted) in [
            ("debian", false),
            ("team/app", false),
            ("localhost/app", true),
            ("a.b/app", true),
            ("host:5000/app", true),
            ("app:v1", false),
        ] {
            assert_eq!(has_host(text), wanted, "{text}");
        }
    }
}
