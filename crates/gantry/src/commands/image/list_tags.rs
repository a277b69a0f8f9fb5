// SPDX-License-Identifier: Apache-2.0
//! `gantry list-tags`.

use std::process::ExitCode;

use gantry_oci::Kind;
use gantry_transport::ImageName;
use gantry_transport::registry::Registry;
use serde::Serialize;

use super::endpoint::PlainArgs;
use crate::exit::{Failure, Outcome};
use crate::{network, output};

/// List the tags of a repository, as JSON.
#[derive(Debug, clap::Args)]
pub struct ListTags {
    /// docker://HOST/NAME
    repository: String,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    repository: String,
    tags: Vec<String>,
}

impl ListTags {
    /// Prints them.
    pub fn run(self) -> Outcome {
        let ImageName::Docker(reference) = self.repository.parse()? else {
            let message = format!(
                "list tags of {}: only repositories of registries have tags",
                self.repository
            );
            return Err(Failure::message(Kind::Unsupported, message));
        };
        let side = self.side.resolve()?;
        let name = reference.name();
        let repository =
            Registry::new(reference.host, side.options).repository(reference.repository);
        let tags = network::run(async { Ok(repository.tags().await?) })?;
        output::json_text(&gantry_transport::inspect::indented(&Listing {
            repository: name,
            tags,
        })?)?;
        Ok(ExitCode::SUCCESS)
    }
}
