// SPDX-License-Identifier: Apache-2.0
//! `gantry pull`.

use std::process::ExitCode;

use gantry_oci::{Kind, Reference};
use gantry_store::endpoint::StoreDestination;
use gantry_store::{CreateOptions, ImageName as StoreName, IngestOptions, Store};
use gantry_transport::copy::{self, CopyOptions};
use gantry_transport::{ImageName, ParseNameError, Selection};

use super::endpoint::{FacesArgs, JudgedSource, PlainArgs, PlannedStore, PlatformArgs, Side};
use crate::admission::Admission;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{lookup, network, output, progress};

/// How often to try again, unless told.
const RETRIES: u32 = 3;

/// Bring an image into the local store, verified and ready to run; prints its ID.
///
/// The image is HOST/NAME:TAG or HOST/NAME@DIGEST of a registry, with or without docker:// in front; NAME alone is
/// looked for in the registries that registries.conf lists. An image of an OCI layout, oci:DIRECTORY:REF, is named
/// localhost/DIRECTORY:REF; to give it another name, copy it to store:NAME instead.
#[derive(Debug, clap::Args)]
pub struct Pull {
    /// HOST/NAME:TAG, NAME, docker://HOST/NAME:TAG, oci:DIRECTORY or oci:DIRECTORY:REF
    image: String,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// How often to try again what failed temporarily
    #[arg(long, value_name = "N", default_value_t = RETRIES)]
    retry: u32,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// What the store makes of it.
    #[command(flatten)]
    faces: FacesArgs,
    /// Which platform of an index.
    #[command(flatten)]
    platform: PlatformArgs,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

impl Pull {
    /// Pulls, and prints the image's ID.
    pub fn run(self, context: &Context) -> Outcome {
        let admission = Admission::load(context)?.only_planned(self.dry_run);
        if let Some(id) = self.bring(context, &admission)? {
            output::line(id)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The verb without any option.
    #[must_use]
    pub fn plainly(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            quiet: false,
            retry: RETRIES,
            dry_run: false,
            faces: FacesArgs::default(),
            platform: PlatformArgs::default(),
            side: PlainArgs::default(),
        }
    }

    /// Pulls what is admitted, and answers the image's ID; `None` if that was only planned.
    ///
    /// # Errors
    /// The image is nowhere, the policy refuses it, or as the registry and the store say.
    pub fn bring(
        &self,
        context: &Context,
        admission: &Admission,
    ) -> Result<Option<String>, Failure> {
        let mut side = self.side.clone().resolve()?;
        side.options.retry.attempts = self.retry;
        let places = places(&self.image, side.conf.unqualified_search())?;
        let mut options = CopyOptions::new(self.platform.clone().resolve()?);
        options.retry.attempts = self.retry;
        let mut failures = Vec::new();
        for place in places {
            match self.from(place, &side, &options, context, admission) {
                Ok(id) => return Ok(id),
                Err(failure) if elsewhere(failure.kind()) => failures.push(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(nowhere(&self.image, failures))
    }

    fn from(
        &self,
        place: ImageName,
        side: &Side,
        options: &CopyOptions,
        context: &Context,
        admission: &Admission,
    ) -> Result<Option<String>, Failure> {
        let JudgedSource {
            asked,
            subjects,
            source,
        } = side.judged_source(place.clone(), context)?;
        let gate = admission.gate(subjects);
        if self.dry_run {
            let planned = PlannedStore(format!("store {}", context.root.display()));
            let plan = network::run(async {
                Ok(copy::plan(&*source, &planned, options, Some(&gate)).await?)
            });
            let plan = plan.map_err(|failure| gate.explained(failure, &asked))?;
            output::lines(&plan.to_string())?;
            return Ok(None);
        }
        let store = Store::open_or_create(&context.root, &CreateOptions::default())?;
        let names = vec![name_in(&store, &place)?];
        let ingest = IngestOptions {
            faces: self.faces.into(),
        };
        let destination = StoreDestination::new(store.clone(), names, ingest);
        let sink = progress::sink(context.progress, self.quiet);
        let report = network::run(async {
            Ok(copy::run(&*source, &destination, options, Some(&gate), sink).await?)
        });
        let report = report.map_err(|failure| gate.explained(failure, &asked))?;
        let record = store.image(&report.digest)?;
        let facts = record.as_ref().and_then(|record| record.image());
        let facts = facts.ok_or_else(|| {
            Failure::message(
                Kind::Internal,
                format!("image {} is gone after its pull", report.digest),
            )
        })?;
        Ok(Some(facts.image_id.hex()))
    }
}

/// The places that a text may mean, in the order in which they are tried.
fn places(text: &str, search: &[String]) -> Result<Vec<ImageName>, Failure> {
    match text.parse::<ImageName>() {
        Ok(ImageName::Store(_)) => {
            let message = format!("pull {text}: it is in the store already");
            return Err(Failure::message(Kind::InvalidInput, message));
        }
        Ok(name) => return Ok(vec![name]),
        Err(ParseNameError::NoTransport { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let parse = |text: &str| {
        Reference::parse_normalized(text)
            .map(|reference| ImageName::Docker(reference.or_latest()))
            .map_err(|error| Failure::from(error).context(format!("parse image name {text:?}")))
    };
    if lookup::has_host(text) {
        return Ok(vec![parse(text)?]);
    }
    // What is no name at all is not a question of registries.
    parse(text)?;
    if search.is_empty() {
        let message = format!(
            "pull {text}: the name has no registry in front, and registries.conf lists none to search"
        );
        return Err(Failure::message(Kind::InvalidInput, message).hint(
            "write the registry, or list some as unqualified-search-registries in registries.conf",
        ));
    }
    search
        .iter()
        .map(|host| parse(&format!("{host}/{text}")))
        .collect()
}

/// The name that an image from `place` gets.
fn name_in(store: &Store, place: &ImageName) -> Result<StoreName, Failure> {
    match place {
        ImageName::Docker(reference) => Ok(store.name_for(reference)),
        ImageName::OciLayout { path, selection } => {
            let dir = path.file_name().and_then(|name| name.to_str());
            let name = match (selection, dir) {
                // A whole reference stands in the layout.
                (Selection::Named(name), _) if lookup::has_host(name) => name.clone(),
                (Selection::Named(name), Some(dir)) => format!("{dir}:{name}"),
                (_, Some(dir)) => dir.to_owned(),
                (_, None) => String::new(),
            };
            lookup::new_name(store, &name).map_err(|failure| {
                failure.hint(format!("give it a name: gantry copy {place} store:NAME"))
            })
        }
        ImageName::Store(text) => lookup::new_name(store, text),
    }
}

/// Whether another registry may still have what this one could not give.
fn elsewhere(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::Denied | Kind::Unavailable)
}

fn nowhere(image: &str, mut failures: Vec<Failure>) -> Failure {
    match failures.pop() {
        Some(only) if failures.is_empty() => only,
        Some(last) => {
            for failure in failures {
                output::error_line(&failure.sentence());
            }
            last
        }
        None => Failure::message(Kind::NotFound, format!("pull {image}: there is no place")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(text: &str, search: &[&str]) -> Result<Vec<String>, Kind> {
        let search: Vec<String> = search.iter().map(|&host| host.to_owned()).collect();
        places(text, &search)
            .map(|places| places.iter().map(ToString::to_string).collect())
            .map_err(|failure| failure.kind())
    }

    #[test]
    fn names_are_read_as_podman_reads_them() {
        let both = ["a.example", "docker.io"];
        for (text, wanted) in [
            ("h.example/app", vec!["docker://h.example/app:latest"]),
            (
                "localhost:5000/app:v1",
                vec!["docker://localhost:5000/app:v1"],
            ),
            (
                "docker://debian",
                vec!["docker://docker.io/library/debian:latest"],
            ),
            ("oci:dir:v1", vec!["oci:dir:v1"]),
            (
                "debian:12",
                vec![
                    "docker://a.example/debian:12",
                    "docker://docker.io/library/debian:12",
                ],
            ),
        ] {
            assert_eq!(tried(text, &both).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn a_short_name_needs_a_place_to_look() {
        assert_eq!(tried("debian", &[]), Err(Kind::InvalidInput));
        assert_eq!(tried("Not A Name", &["a.b"]), Err(Kind::InvalidInput));
        assert_eq!(tried("store:x", &["a.b"]), Err(Kind::InvalidInput));
        assert_eq!(tried("dir:x", &["a.b"]), Err(Kind::Unsupported));
    }
}
