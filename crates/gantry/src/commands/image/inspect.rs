// SPDX-License-Identifier: Apache-2.0
//! `gantry inspect`.

use std::process::ExitCode;

use gantry_transport::ImageName;
use gantry_transport::inspect::{self, InspectOptions};
use gantry_transport::registry::RegistrySource;

use super::endpoint::{PlainArgs, PlatformArgs};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{network, output};

/// Show what an image is, without fetching its layers.
///
/// The JSON has the members and the form of `skopeo inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// docker://HOST/NAME:TAG, oci:DIRECTORY, oci:DIRECTORY:REF or store:NAME
    image: String,
    /// Show the manifest as it is, or with --config the configuration
    #[arg(long)]
    raw: bool,
    /// Show the configuration
    #[arg(long = "config")]
    show_config: bool,
    /// Do not list the repository's tags
    #[arg(long, short)]
    no_tags: bool,
    /// Which platform of an index.
    #[command(flatten)]
    platform: PlatformArgs,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

enum Text {
    /// Ends with a line break of ours.
    Json(String),
    /// To be written as it is.
    Exact(bytes::Bytes),
}

impl Inspect {
    /// Prints it.
    pub fn run(self, context: &Context) -> Outcome {
        let name: ImageName = self.image.parse()?;
        let options = InspectOptions::new(self.platform.clone().resolve()?);
        let side = self.side.clone().resolve()?;
        let text = network::run(async {
            if let (ImageName::Docker(reference), false, false) =
                (&name, self.raw, self.show_config)
            {
                let source = RegistrySource::new(reference.clone(), &side.options, &side.conf)?;
                let inspection = inspect::inspect_registry(&source, self.no_tags, &options).await?;
                return Ok(Text::Json(inspection.to_json()?));
            }
            let source = side.source(name, context)?;
            Ok::<_, Failure>(match (self.raw, self.show_config) {
                (true, true) => Text::Exact(inspect::raw_config(&*source, &options).await?),
                (true, false) => {
                    Text::Exact(inspect::raw(&*source, &options).await?.bytes().clone())
                }
                (false, true) => Text::Json(inspect::config(&*source, &options).await?),
                (false, false) => {
                    let inspection =
                        inspect::inspect(&*source, String::new(), Vec::new(), &options).await?;
                    Text::Json(inspection.to_json()?)
                }
            })
        })?;
        match text {
            Text::Json(text) => output::json_text(&text)?,
            Text::Exact(bytes) => output::exact(&bytes)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
