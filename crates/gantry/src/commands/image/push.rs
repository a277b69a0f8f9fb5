// SPDX-License-Identifier: Apache-2.0
//! `gantry push`.

use gantry_oci::{Kind, Reference};
use gantry_store::{ImageName as StoreName, Pointer, Store};
use gantry_transport::copy::{CopyOptions, MultiArch};
use gantry_transport::{ImageName, ParseNameError};

use super::copy::{Compression, Format, TellingArgs, reference_of, wishes};
use super::endpoint::{FacesArgs, JudgedSource, PlainArgs};
use crate::commands::signature::signers::SignersArgs;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::lookup;

/// Push an image of the local store to a registry.
///
/// The store keeps no compressed blobs: layers are compressed on the way, so the manifest that the registry gets may
/// have another digest than the one that was pulled. The contents of the layers (their diffIDs) are the same.
#[derive(Debug, clap::Args)]
pub struct Push {
    /// The image: a name, an image ID or a digest
    image: String,
    /// Where to: HOST/NAME:TAG, docker://HOST/NAME:TAG or oci:DIRECTORY:REF [default: the image's own name]
    destination: Option<String>,
    /// Push all images of an index that are here, and the index
    #[arg(long, short)]
    all: bool,
    /// The family of the manifest at the destination [default: as it is]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How layers are compressed [default: as they were]
    #[arg(long, value_enum, value_name = "HOW")]
    compression_format: Option<Compression>,
    /// Leave signatures behind
    #[arg(long)]
    remove_signatures: bool,
    /// Who signs it.
    #[command(flatten)]
    signers: SignersArgs,
    /// How often to try again what failed temporarily
    #[arg(long, value_name = "N", default_value_t = 3)]
    retry: u32,
    /// What it tells.
    #[command(flatten)]
    telling: TellingArgs,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

impl Push {
    /// Pushes.
    pub fn run(self, context: &Context) -> Outcome {
        let mut side = self.side.clone().resolve()?;
        side.options.retry.attempts = self.retry;
        let store = Store::open_read_only(&context.root)?;
        let found = lookup::find(&store, &self.image, side.conf.unqualified_search())?;
        let destination = match &self.destination {
            Some(text) => destination(text)?,
            None => own_name(&self.image, found.name.as_ref())?,
        };
        let mut options = CopyOptions::new(gantry_oci::Platform::host());
        options.retry.attempts = self.retry;
        options.remove_signatures = self.remove_signatures;
        options.signers = self.signers.resolve(reference_of(&destination))?;
        options.wishes = wishes(self.format, self.compression_format, false);
        if self.all {
            options.multi_arch = MultiArch::All;
        }
        let source = JudgedSource::of_store(context, store, &self.image, found)?;
        let to = (&side, destination, FacesArgs::default());
        self.telling.carry_out(context, source, to, &options)
    }
}

/// Where a text leads; without a transport it is a registry.
fn destination(text: &str) -> Result<ImageName, Failure> {
    match text.parse::<ImageName>() {
        Ok(ImageName::Store(_)) => Err(Failure::message(
            Kind::InvalidInput,
            format!("push to {text}: to name an image of the store, use gantry tag"),
        )),
        Ok(name) => Ok(name),
        Err(ParseNameError::NoTransport { .. }) => Reference::parse_normalized(text)
            .map(|reference| ImageName::Docker(reference.or_latest()))
            .map_err(|error| Failure::from(error).context(format!("parse destination {text:?}"))),
        Err(error) => Err(error.into()),
    }
}

/// The registry that an image's name names.
fn own_name(image: &str, name: Option<&StoreName>) -> Result<ImageName, Failure> {
    match name {
        Some(StoreName {
            host: Some(host),
            repository,
            pointer,
        }) if host.as_str() != lookup::LOCALHOST => Ok(ImageName::Docker(Reference {
            host: host.clone(),
            repository: repository.clone(),
            tag: match pointer {
                Pointer::Tag(tag) => Some(tag.clone()),
                Pointer::Digest(_) => None,
            },
            digest: match pointer {
                Pointer::Tag(_) => None,
                Pointer::Digest(digest) => Some(*digest),
            },
        })),
        _ => Err(Failure::message(
            Kind::InvalidInput,
            format!("push {image}: its name has no registry, so say where to"),
        )
        .hint(format!("gantry push {image} HOST/NAME:TAG"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_default_to_registries() {
        for (text, wanted) in [
            ("h.example/app", "docker://h.example/app:latest"),
            ("docker://h.example/app:v1", "docker://h.example/app:v1"),
            ("oci:dir:v1", "oci:dir:v1"),
        ] {
            assert_eq!(destination(text).unwrap().to_string(), wanted);
        }
        assert_eq!(
            destination("store:x").unwrap_err().kind(),
            Kind::InvalidInput
        );
    }

    #[test]
    fn a_name_without_a_registry_leads_nowhere() {
        let name = |text| StoreName::remote(&Reference::parse_normalized(text).unwrap());
        let there = own_name("x", Some(&name("h.example/app:v1"))).unwrap();
        assert_eq!(there.to_string(), "docker://h.example/app:v1");
        assert!(own_name("x", Some(&name("localhost/app:v1"))).is_err());
        assert!(own_name("x", None).is_err());
    }
}
