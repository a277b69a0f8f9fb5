// SPDX-License-Identifier: Apache-2.0
//! `gantry rmi`.

use std::process::ExitCode;

use gantry_oci::{Kind, ManifestDigest};
use gantry_store::{ImageName, ImageRecord, RecordContent, Store};

use super::endpoint;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{lookup, output};

/// Remove names of images from the local store, and each image whose last name goes.
///
/// Contents that no other image shares stay on disk until `gantry store gc`. An image that a container uses stays.
#[derive(Debug, clap::Args)]
pub struct Rmi {
    /// Names, image IDs or digests
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image with all its names
    #[arg(long, short)]
    force: bool,
}

impl Rmi {
    /// Removes them; what cannot be removed does not keep the others.
    pub fn run(self, context: &Context) -> Outcome {
        let store = Store::open(&context.root)?;
        let search = endpoint::search_registries()?;
        let mut last = None;
        for image in &self.images {
            if let Err(failure) = self.remove(&store, image, &search) {
                if let Some(earlier) = last.replace(failure) {
                    output::error_line(&earlier.sentence());
                }
            }
        }
        last.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    fn remove(&self, store: &Store, text: &str, search: &[String]) -> Result<(), Failure> {
        let found = lookup::find(store, text, search)?;
        let digest = found.record.digest;
        let names: Vec<ImageName> = store
            .names()?
            .into_iter()
            .filter(|named| named.digest == digest)
            .map(|named| named.name)
            .collect();
        if let (Some(name), false) = (&found.name, self.force) {
            if names.iter().any(|other| other != name) {
                store.untag(name)?;
                return output::line(format_args!("Untagged: {name}"));
            }
        } else if names.len() > 1 && !self.force {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let message = format!("remove image {text}: it has the names {}", names.join(", "));
            return Err(
                Failure::message(Kind::Busy, message).hint("--force removes it with all of them")
            );
        }
        let removed = plan(store, found.record)?;
        for digest in &removed {
            let id = store.image(digest)?;
            let id = id.as_ref().and_then(|record| record.image());
            let id = id.map(|facts| facts.image_id.hex());
            store.remove_image(digest, true)?;
            if let Some(id) = id {
                for name in &names {
                    output::line(format_args!("Untagged: {name}"))?;
                }
                output::line(format_args!("Deleted: {id}"))?;
            }
        }
        Ok(())
    }
}

/// What goes, in order: indexes without a name that lead to the image, the image, and, of an index, its images that
/// nothing else leads to.
fn plan(store: &Store, record: ImageRecord) -> Result<Vec<ManifestDigest>, Failure> {
    let named: Vec<ManifestDigest> = store.names()?.iter().map(|named| named.digest).collect();
    let mut indexes = Vec::new();
    for digest in store.digests()? {
        if let Some(ImageRecord {
            content: RecordContent::Index { present, .. },
            ..
        }) = store.image(&digest)?
        {
            indexes.push((digest, present));
        }
    }
    let mut removed = Vec::new();
    match &record.content {
        RecordContent::Image(_) => {
            let nameless = indexes.iter().filter(|(index, present)| {
                present.contains(&record.digest) && !named.contains(index)
            });
            removed.extend(nameless.map(|(index, _)| *index));
            removed.push(record.digest);
        }
        RecordContent::Index { present, .. } => {
            removed.push(record.digest);
            let elsewhere = |image: &ManifestDigest| {
                named.contains(image)
                    || indexes
                        .iter()
                        .any(|(index, held)| *index != record.digest && held.contains(image))
            };
            removed.extend(present.iter().filter(|image| !elsewhere(image)));
        }
    }
    Ok(removed)
}
