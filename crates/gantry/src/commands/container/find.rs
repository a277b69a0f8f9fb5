// SPDX-License-Identifier: Apache-2.0
//! Which image a container is made of, and where it lies.

use std::path::PathBuf;

use gantry_oci::{Host, Kind, ManifestDigest, Reference};
use gantry_runtime::container::{Container, ContainerRecord};
use gantry_store::{ImageName, ImageRecord, Pointer, RecordContent, Store};
use gantry_trust::Subject;

use crate::context::Context;
use crate::exit::Failure;
use crate::lookup::{self, Found};
use crate::stores;

/// An image, and the store that has it. Whether it may be used is not known yet.
#[derive(Debug, Clone)]
pub struct FoundImage {
    /// As it was asked for.
    pub asked: Option<String>,
    /// The store.
    pub store: Store,
    /// The image itself, never an index.
    pub record: ImageRecord,
    /// The index that its name led to, if it led to one.
    pub index: Option<ManifestDigest>,
    /// The name that led to it; none if it was found by image ID or digest.
    pub name: Option<ImageName>,
    /// Whether the store is a share of another host.
    pub shared: bool,
    /// The registry whose images the store's own names are, by this host's word.
    pub registry: Option<Host>,
}

/// Finds an image: in the shares that the command line names, in the own store, in the
/// configuration's shares, in this order. `None` if it is in none of them.
///
/// # Errors
/// An ambiguous name, or a store that is damaged.
pub fn find(
    context: &Context,
    shares: &[PathBuf],
    image: &str,
    search: &[String],
) -> Result<Option<FoundImage>, Failure> {
    find_in(places(context, shares)?, image, search)
}

/// As [`find`], in the own store alone.
///
/// # Errors
/// As there.
pub fn find_own(
    context: &Context,
    image: &str,
    search: &[String],
) -> Result<Option<FoundImage>, Failure> {
    let own = places(context, &[])?.into_iter().filter(|it| !it.shared);
    find_in(own, image, search)
}

fn find_in(
    places: impl IntoIterator<Item = Place>,
    image: &str,
    search: &[String],
) -> Result<Option<FoundImage>, Failure> {
    for place in places {
        match lookup::find(&place.store, place.local(image), search) {
            Ok(found) => return place.found(Some(image), found).map(Some),
            Err(failure) if failure.kind() == Kind::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

/// Says that an image is in none of the places that [`find`] looks at.
pub fn nowhere(context: &Context, shares: &[PathBuf], image: &str) -> Failure {
    let places: Vec<_> = shares
        .iter()
        .chain([&context.root])
        .chain(context.config.shares.iter().map(|share| &share.path))
        .map(|path| path.display().to_string())
        .collect();
    Failure::message(
        Kind::NotFound,
        format!("find image {image}: not in {}", places.join(", ")),
    )
}

/// The image that a container was made of, by digest, and the name that it was admitted under: by now that may lead
/// elsewhere.
///
/// # Errors
/// No store has it any more, or one is damaged.
pub fn image_of(
    context: &Context,
    named: &[PathBuf],
    container: &Container,
) -> Result<FoundImage, Failure> {
    let ContainerRecord {
        digest, reference, ..
    } = &container.record;
    let digest: ManifestDigest = digest
        .parse()
        .map_err(|error| Failure::new(Kind::Corrupt, error))?;
    let reference = reference.as_deref().map(Reference::parse_normalized);
    let name = reference.transpose()?.as_ref().map(ImageName::remote);
    for place in places(context, named)? {
        if let Some(record) = place.store.image(&digest)? {
            return place.found(None, Found { name, record });
        }
    }
    let message = format!(
        "find the image of container {}: {digest} is in no store",
        container.record.short_id()
    );
    Err(Failure::message(Kind::NotFound, message).hint("if a share has it, name it with --share"))
}

/// One store of those that are looked at.
struct Place {
    store: Store,
    shared: bool,
    registry: Option<Host>,
}

fn places(context: &Context, named: &[PathBuf]) -> Result<Vec<Place>, Failure> {
    let mut places: Vec<Place> = stores::shares(context, named)?
        .into_iter()
        .map(|share| Place {
            store: share.store,
            shared: true,
            registry: share.registry,
        })
        .collect();
    let own = stores::own(context)?.map(|store| Place {
        registry: stores::own_registry(context, &store),
        store,
        shared: false,
    });
    if let Some(own) = own {
        places.insert(named.len(), own);
    }
    Ok(places)
}

impl Place {
    /// What an image is called in this store: its registry is not written in front of its own names.
    fn local<'a>(&self, image: &'a str) -> &'a str {
        let registry = self.registry.as_ref();
        let rest = registry.and_then(|host| image.strip_prefix(host.as_str())?.strip_prefix('/'));
        rest.unwrap_or(image)
    }

    fn found(self, asked: Option<&str>, found: Found) -> Result<FoundImage, Failure> {
        let Found { name, record } = found;
        let index = match &record.content {
            RecordContent::Index { .. } => Some(record.digest),
            RecordContent::Image(_) => None,
        };
        let record = self.store.as_image(record)?;
        Ok(FoundImage {
            asked: asked.map(ToOwned::to_owned),
            record,
            index,
            name,
            store: self.store,
            shared: self.shared,
            registry: self.registry,
        })
    }
}

impl FoundImage {
    /// The names by which a policy may know it: the one that it was found by; of an image that was found by ID or
    /// digest, all that lead to it. None for an image without a name.
    ///
    /// # Errors
    /// A store that is damaged.
    pub fn subjects(&self) -> Result<Vec<Subject>, Failure> {
        subjects(
            &self.store,
            self.name.as_ref(),
            &[Some(self.record.digest), self.index],
            self.registry.as_ref(),
        )
    }
}

/// As [`FoundImage::subjects`], for whatever of `digests` a name may lead to.
///
/// # Errors
/// A store that is damaged.
pub fn subjects(
    store: &Store,
    name: Option<&ImageName>,
    digests: &[Option<ManifestDigest>],
    registry: Option<&Host>,
) -> Result<Vec<Subject>, Failure> {
    if let Some(name) = name {
        return Ok(vec![Subject::docker(&reference(name, registry)?)]);
    }
    let mut subjects = Vec::new();
    for named in store.names()? {
        let leads_here = digests.contains(&Some(named.digest));
        if leads_here || lists_one(store, &named.digest, digests)? {
            subjects.push(Subject::docker(&reference(&named.name, registry)?));
        }
    }
    Ok(subjects)
}

fn lists_one(
    store: &Store,
    index: &ManifestDigest,
    digests: &[Option<ManifestDigest>],
) -> Result<bool, Failure> {
    let content = store.image(index)?.map(|record| record.content);
    Ok(match content {
        Some(RecordContent::Index { present, .. }) => digests
            .iter()
            .flatten()
            .any(|digest| present.contains(digest)),
        _ => false,
    })
}

/// The logical reference of a name: one of the store's own is of its registry, or of this machine.
pub fn reference(name: &ImageName, registry: Option<&Host>) -> Result<Reference, Failure> {
    let host = match name.host.as_ref().or(registry) {
        Some(host) => host.clone(),
        None => lookup::LOCALHOST
            .parse()
            .map_err(|error| Failure::new(Kind::Internal, error))?,
    };
    let (tag, digest) = match &name.pointer {
        Pointer::Tag(tag) => (Some(tag.clone()), None),
        Pointer::Digest(digest) => (None, Some(*digest)),
    };
    Ok(Reference {
        host,
        repository: name.repository.clone(),
        tag,
        digest,
    })
}
