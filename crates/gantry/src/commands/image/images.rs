// SPDX-License-Identifier: Apache-2.0
//! `gantry images`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use gantry_store::ImageName;

use super::listing::{self, Listed};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{lookup, output, stores, when};

const SHORT_ID: usize = 12;

/// List the images of the local store and of shared trees.
#[derive(Debug, clap::Args)]
pub struct Images {
    /// Only images of these names: NAME or NAME:TAG, with or without what stands in front
    names: Vec<String>,
    /// As JSON, with the members of podman images --format json
    #[arg(long)]
    json: bool,
    /// Only image IDs
    #[arg(long, short)]
    quiet: bool,
    /// Do not shorten image IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Also list this tree of another host [default: the shares of the configuration]
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
}

impl Images {
    /// Lists them.
    pub fn run(self, context: &Context) -> Outcome {
        let mut images = Vec::new();
        if let Some(store) = stores::own(context)? {
            images.extend(listing::images(&store, None)?);
        }
        let shares = stores::shares(context, &self.share)?;
        for share in &shares {
            images.extend(listing::images(&share.store, Some(&share.path))?);
        }
        for image in &mut images {
            image.rows.retain(|name| self.wants(name));
        }
        if !self.names.is_empty() {
            images.retain(|image| !image.rows.is_empty());
        }
        if self.json {
            output::json(&images)?;
        } else if self.quiet {
            let mut seen = BTreeSet::new();
            for image in images.iter().filter(|image| seen.insert(&image.id)) {
                output::line(self.id(image))?;
            }
        } else {
            self.table(&images, !shares.is_empty())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, name: &ImageName) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| matches(wanted, name))
    }

    fn id<'a>(&self, image: &'a Listed) -> &'a str {
        let length = if self.no_trunc {
            image.id.len()
        } else {
            SHORT_ID
        };
        image.id.get(..length).unwrap_or(&image.id)
    }

    fn table(&self, images: &[Listed], shares: bool) -> Result<(), Failure> {
        let mut header = vec!["REPOSITORY", "TAG"];
        header.extend(self.digests.then_some("DIGEST"));
        header.extend(["IMAGE ID", "CREATED", "SIZE"]);
        header.extend(shares.then_some("SHARE"));
        let mut rows = Vec::new();
        for image in images {
            let none = || "<none>".to_owned();
            let mut names: Vec<_> = image
                .rows
                .iter()
                .map(|name| {
                    let tag = lookup::tag_of(name).map_or_else(none, ToOwned::to_owned);
                    (lookup::repository_of(name), tag)
                })
                .collect();
            if names.is_empty() {
                names.push((none(), none()));
            }
            for (repository, tag) in names {
                let mut row = vec![repository, tag];
                row.extend(self.digests.then(|| image.digest.to_string()));
                row.push(self.id(image).to_owned());
                row.push(when::ago(image.created));
                row.push(output::human_bytes(image.size));
                let share = image.share.as_ref();
                row.extend(
                    shares.then(|| share.map_or_else(String::new, |dir| dir.display().to_string())),
                );
                rows.push(row);
            }
        }
        output::table(&header, &rows)
    }
}

/// Whether `wanted` is the name, its end, or either without the tag.
fn matches(wanted: &str, name: &ImageName) -> bool {
    let (repository, tag) = match wanted.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (wanted, None),
    };
    let full = lookup::repository_of(name);
    lookup::ends_with(&full, repository) && (tag.is_none() || tag == lookup::tag_of(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_whole_components() {
        let reference = gantry_oci::Reference::parse_normalized("h.example:5000/team/app:v1");
        let name = ImageName::remote(&reference.unwrap());
        for (wanted, matching) in [
            ("app", true),
            ("app:v1", true),
            ("app:v2", false),
            ("team/app", true),
            ("h.example:5000/team/app", true),
            ("h.example:5000/team/app:v1", true),
            ("pp", false),
            ("team", false),
        ] {
            assert_eq!(matches(wanted, &name), matching, "{wanted}");
        }
    }
}
