// SPDX-License-Identifier: Apache-2.0
//! OCI image layouts: images in a directory.
//!
//! ```text
//! <dir>/oci-layout             {"imageLayoutVersion":"1.0.0"}; locked while index.json is changed
//! <dir>/index.json             the images, by ref name
//! <dir>/blobs/<alg>/<hex>      or the same below a shared blob directory
//! ```
//!
//! # What is promised
//! A blob appears under its digest only after its bytes were verified, and by
//! a rename; `index.json` is replaced by a rename too, after what it names is
//! on the disk. Several programs of ours may write into one layout at once.
//! A layout from elsewhere is hostile until proven: its index is parsed
//! strictly and within limits, its digests are parsed before they become
//! file names, and its blobs are verified by whoever reads them.
//!
//! # What is not
//! Nothing is ever deleted from a layout: an image whose name moved on stays
//! there without a name, as skopeo leaves it.
//!
//! # Source
//! image-spec v1.1 "Image Layout".

mod destination;
mod files;
mod source;

pub use destination::LayoutDestination;
pub use source::LayoutSource;

use gantry_image::EndpointError;
use gantry_oci::{Descriptor, Document, Index, Kind, Limits};

use crate::name::Selection;

/// The annotation that names an image of a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How to use a layout.
#[derive(Debug, Clone, Default)]
pub struct LayoutOptions {
    /// Where blobs lie instead of the layout's own `blobs`.
    pub shared_blob_dir: Option<std::path::PathBuf>,
    /// Caps on what is read.
    pub limits: Limits,
    /// Do not wait for the disk before an image gets its name.
    pub no_sync: bool,
}

/// Parses `index.json`.
fn parse_index(data: &[u8], limits: &Limits) -> Result<Index, EndpointError> {
    let wrong = |error: gantry_oci::ParseDocumentError| {
        EndpointError::with_source(error.kind(), "read index.json", error)
    };
    match Document::parse(data, None, limits).map_err(wrong)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(EndpointError::new(
            Kind::Corrupt,
            "index.json is an image manifest instead of an index",
        )),
    }
}

/// Finds the entry that is meant.
fn select<'a>(index: &'a Index, selection: &Selection) -> Result<&'a Descriptor, EndpointError> {
    let not_found = |message: String| EndpointError::new(Kind::NotFound, message);
    match selection {
        Selection::Only => match &index.manifests[..] {
            [only] => Ok(only),
            [] => Err(not_found("the layout has no images".into())),
            several => Err(EndpointError::new(
                Kind::InvalidInput,
                format!(
                    "the layout has {} images; name one of {}",
                    several.len(),
                    names(index)
                ),
            )),
        },
        Selection::Named(wanted) => index
            .manifests
            .iter()
            .find(|entry| entry.annotations.get(REF_NAME) == Some(wanted))
            .ok_or_else(|| {
                not_found(format!(
                    "the layout has no image {wanted:?}, but {}",
                    names(index)
                ))
            }),
        Selection::Position(position) => index.manifests.get(*position).ok_or_else(|| {
            not_found(format!(
                "the layout has no image number {position}, but {}",
                index.manifests.len()
            ))
        }),
    }
}

/// The images of an index, for people.
fn names(index: &Index) -> String {
    const SHOWN: usize = 10;
    let all: Vec<String> = index
        .manifests
        .iter()
        .enumerate()
        .map(|(position, entry)| match entry.annotations.get(REF_NAME) {
            Some(name) => name.chars().filter(|c| !c.is_control()).take(80).collect(),
            None => format!("@{position}"),
        })
        .collect();
    match all.len() {
        0 => "none".into(),
        count if count > SHOWN => format!("{} and {} more", all[..SHOWN].join(", "), count - SHOWN),
        _ => all.join(", "),
    }
}

/// Puts an entry into an index: its name leaves the entry that had it, and an
/// unnamed entry of the same digest makes room.
fn insert(index: &mut Index, entry: Descriptor) {
    if let Some(name) = entry.annotations.get(REF_NAME) {
        for other in &mut index.manifests {
            if other.annotations.get(REF_NAME) == Some(name) {
                other.annotations.remove(REF_NAME);
            }
        }
    }
    let same = index
        .manifests
        .iter_mut()
        .find(|other| other.digest == entry.digest && !other.annotations.contains_key(REF_NAME));
    match same {
        Some(slot) => *slot = entry,
        None => index.manifests.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_oci::{Digest, MediaType};

    fn entry(number: u8, name: Option<&str>) -> Descriptor {
        let mut entry = Descriptor::new(MediaType::OciManifest, Digest::sha256([number; 32]), 1);
        entry
            .annotations
            .extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
        entry
    }

    fn index(entries: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: entries,
            subject: None,
            annotations: Default::default(),
        }
    }

    #[test]
    fn table_of_selections() {
        let two = index(vec![entry(1, Some("a")), entry(2, None)]);
        let found = |index: &Index, selection| {
            select(index, &selection)
                .map(|e| e.digest.as_bytes()[0])
                .map_err(|e| e.kind())
        };
        assert_eq!(found(&two, Selection::Named("a".into())), Ok(1));
        assert_eq!(
            found(&two, Selection::Named("b".into())),
            Err(Kind::NotFound)
        );
        assert_eq!(found(&two, Selection::Position(1)), Ok(2));
        assert_eq!(found(&two, Selection::Position(2)), Err(Kind::NotFound));
        assert_eq!(found(&two, Selection::Only), Err(Kind::InvalidInput));
        assert_eq!(
            found(&index(vec![entry(3, Some("x"))]), Selection::Only),
            Ok(3)
        );
        assert_eq!(found(&index(vec![]), Selection::Only), Err(Kind::NotFound));
        let error = select(&two, &Selection::Only).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the layout has 2 images; name one of a, @1"
        );
    }

    #[test]
    fn name_moves_and_unnamed_twins_merge() {
        let mut all = index(vec![]);
        insert(&mut all, entry(1, Some("v1")));
        insert(&mut all, entry(2, Some("v1")));
        assert_eq!(all.manifests, [entry(1, None), entry(2, Some("v1"))]);
        insert(&mut all, entry(1, Some("v2")));
        assert_eq!(all.manifests, [entry(1, Some("v2")), entry(2, Some("v1"))]);
        insert(&mut all, entry(1, Some("v2")));
        assert_eq!(all.manifests.len(), 2);
    }
}
