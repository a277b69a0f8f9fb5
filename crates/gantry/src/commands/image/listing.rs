// SPDX-License-Identifier: Apache-2.0
//! The images of a store as a list, spelled as `podman images --format json` spells it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gantry_oci::{Digest, ManifestDigest};
use gantry_store::{ImageName, ImageRecord, RecordContent, Store};
use serde::Serialize;

use crate::exit::Failure;
use crate::{lookup, when};

/// One image.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    /// The image ID in hexadecimal: the digest of the configuration.
    pub id: String,
    /// `host/name:tag`, each.
    pub repo_tags: Vec<String>,
    /// `host/name@digest`, each.
    pub repo_digests: Vec<String>,
    /// Tags and digests together, as they stand in the store.
    pub names: Vec<String>,
    /// The manifest.
    pub digest: Digest,
    /// When it was made, in seconds since 1970; 0 if it does not say.
    pub created: i64,
    /// The same as RFC 3339 text.
    pub created_at: String,
    /// Bytes of its files.
    pub size: u64,
    /// What it is labelled with.
    pub labels: BTreeMap<String, String>,
    /// CPU architecture.
    pub arch: String,
    /// Operating system.
    pub os: String,
    /// The views that the store has of it.
    pub faces: Vec<&'static str>,
    /// Whether it lies in a tree of another host.
    pub read_only: bool,
    /// That tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<PathBuf>,
    /// For tables.
    #[serde(skip)]
    pub rows: Vec<ImageName>,
}

/// Lists the images of a store, the newest first. A record that cannot be read is told of and left out.
///
/// # Errors
/// The names cannot be read.
pub fn images(store: &Store, share: Option<&Path>) -> Result<Vec<Listed>, Failure> {
    let mut names: BTreeMap<ManifestDigest, BTreeSet<ImageName>> = BTreeMap::new();
    let mut indexes: BTreeMap<ManifestDigest, BTreeSet<ManifestDigest>> = BTreeMap::new();
    let mut records = BTreeMap::new();
    let readable = |found: Result<Option<ImageRecord>, _>| match found {
        Ok(record) => record,
        Err(error) => {
            let sentence = Failure::from(error).sentence();
            crate::output::error_line(&format!("left out: {sentence}"));
            None
        }
    };
    for digest in store.digests()? {
        records.extend(readable(store.image(&digest)).map(|record| (digest, record)));
    }
    for named in store.names()? {
        let image = match records.get(&named.digest).map(|record| &record.content) {
            Some(RecordContent::Index { chosen, .. }) => chosen.unwrap_or(named.digest),
            _ => named.digest,
        };
        names.entry(image).or_default().insert(named.name);
    }
    let mut lone = BTreeSet::new();
    for record in records.values() {
        if let RecordContent::Index { chosen, present } = &record.content {
            // One image of an index alone is what a pull for one platform leaves.
            lone.extend(chosen.filter(|_| present.len() == 1));
            for image in present {
                indexes.entry(*image).or_default().insert(record.digest);
            }
        }
    }
    let mut listed = Vec::new();
    for record in records.values() {
        let names = names.remove(&record.digest).unwrap_or_default();
        let digests = indexes.remove(&record.digest).unwrap_or_default();
        // What an index holds for other platforms is shown with the index, or not at all.
        let of_index =
            record.image().is_none() || (!digests.is_empty() && !lone.contains(&record.digest));
        if names.is_empty() && of_index {
            continue;
        }
        listed.push(describe(store, record, names, &digests, share));
    }
    listed.sort_by(|a, b| {
        b.created
            .cmp(&a.created)
            .then_with(|| a.names.cmp(&b.names))
    });
    Ok(listed)
}

fn describe(
    store: &Store,
    record: &ImageRecord,
    names: BTreeSet<ImageName>,
    indexes: &BTreeSet<ManifestDigest>,
    share: Option<&Path>,
) -> Listed {
    let facts = record.image();
    let labels = store
        .config(record)
        .map(|config| config.config.labels)
        .unwrap_or_default();
    let created = facts
        .and_then(|facts| when::parse(facts.created.as_deref()?))
        .unwrap_or(0);
    let repositories: BTreeSet<String> = names.iter().map(lookup::repository_of).collect();
    let repo_digests = repositories
        .iter()
        .flat_map(|name| {
            let digests = std::iter::once(&record.digest).chain(indexes);
            digests.map(move |digest| format!("{name}@{digest}"))
        })
        .collect();
    let tagged = names.iter().filter(|name| lookup::tag_of(name).is_some());
    let mut faces = Vec::new();
    if let Some(facts) = facts {
        faces.extend(facts.faces.composefs.then_some("composefs"));
        faces.extend(facts.faces.hardlink.then_some("hardlink"));
    }
    Listed {
        id: facts.map_or_else(|| record.digest.hex(), |facts| facts.image_id.hex()),
        repo_tags: tagged.map(ToString::to_string).collect(),
        repo_digests,
        names: names.iter().map(ToString::to_string).collect(),
        digest: *record.digest.digest(),
        created,
        created_at: when::format(created),
        size: facts.map_or(0, |facts| facts.tree.size_bytes),
        labels,
        arch: facts.map_or_else(String::new, |facts| facts.platform.architecture.clone()),
        os: facts.map_or_else(String::new, |facts| facts.platform.os.clone()),
        faces,
        read_only: share.is_some(),
        share: share.map(Path::to_owned),
        rows: names.into_iter().collect(),
    }
}
