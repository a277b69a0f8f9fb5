// SPDX-License-Identifier: Apache-2.0
//! `gantry delete`.

use std::process::ExitCode;

use gantry_image::{ImageSource as _, Wanted};
use gantry_oci::{Kind, Limits};
use gantry_transport::ImageName;
use gantry_transport::registry::{Registry, RegistrySource};

use super::endpoint::PlainArgs;
use crate::exit::{Failure, Outcome};
use crate::network;

/// Delete an image from a registry, by the digest that its name leads to.
///
/// All tags that point at the same digest go with it.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// docker://HOST/NAME:TAG
    image: String,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

impl Delete {
    /// Deletes it.
    pub fn run(self) -> Outcome {
        let ImageName::Docker(reference) = self.image.parse()? else {
            let message = format!(
                "delete {}: only images of registries can be deleted so",
                self.image
            );
            return Err(Failure::message(Kind::Unsupported, message));
        };
        let side = self.side.resolve()?;
        network::run(async {
            // The digest is that of the bytes, not what the registry says it is.
            let source =
                RegistrySource::new(reference.clone(), &side.options, &Default::default())?;
            let manifest = source
                .manifest(Wanted::Primary)
                .await?
                .verify(reference.digest.as_ref(), &Limits::DEFAULT)?;
            let registry = Registry::new(reference.host, side.options);
            Ok(registry
                .repository(reference.repository)
                .delete_manifest(manifest.digest())
                .await?)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
