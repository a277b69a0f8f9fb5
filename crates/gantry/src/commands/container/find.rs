// SPDX-License-Identifier: Apache-2.0
//! Which image a container is made of, and where it lies.

use std::path::PathBuf;

use gantry_oci::{Kind, ManifestDigest};
use gantry_runtime::container::Container;
use gantry_store::{ImageRecord, Store};

use crate::context::Context;
use crate::exit::Failure;
use crate::{lookup, stores};

/// An image, and the store that has it.
#[derive(Debug)]
pub struct FoundImage {
    /// The store.
    pub store: Store,
    /// The image itself, never an index.
    pub record: ImageRecord,
    /// Whether the store is a share of another host.
    pub shared: bool,
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
    let shared = stores::shares(context, shares)?;
    let (named, configured): (Vec<_>, Vec<_>) = shared
        .into_iter()
        .enumerate()
        .partition(|(at, _)| *at < shares.len());
    let own = stores::own(context)?;
    let places = named
        .into_iter()
        .map(|(_, share)| (share.store, true))
        .chain(own.map(|store| (store, false)))
        .chain(configured.into_iter().map(|(_, share)| (share.store, true)));
    for (store, shared) in places {
        match lookup::find(&store, image, search) {
            Ok(found) => {
                let record = store.as_image(found.record)?;
                return Ok(Some(FoundImage {
                    store,
                    record,
                    shared,
                }));
            }
            Err(failure) if failure.kind() == Kind::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

/// The image that a container was made of, by digest: its name may lead elsewhere by now.
///
/// # Errors
/// No store has it any more, or one is damaged.
pub fn image_of(
    context: &Context,
    named: &[PathBuf],
    container: &Container,
) -> Result<FoundImage, Failure> {
    let digest: ManifestDigest = container
        .record
        .digest
        .parse()
        .map_err(|error| Failure::new(Kind::Corrupt, error))?;
    let own = stores::own(context)?.map(|store| (store, false));
    let shares = stores::shares(context, named)?;
    let shares = shares.into_iter().map(|share| (share.store, true));
    for (store, shared) in own.into_iter().chain(shares) {
        if let Some(record) = store.image(&digest)? {
            return Ok(FoundImage {
                record: store.as_image(record)?,
                store,
                shared,
            });
        }
    }
    let message = format!(
        "find the image of container {}: {digest} is in no store",
        container.record.short_id()
    );
    Err(Failure::message(Kind::NotFound, message).hint("if a share has it, name it with --share"))
}
