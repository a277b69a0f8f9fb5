// SPDX-License-Identifier: Apache-2.0
//! `gantry sign`.

use std::path::PathBuf;
use std::process::ExitCode;

use gantry_image::{ImageSource, SignatureBlob, Wanted};
use gantry_oci::{Host, Kind, Limits, ManifestDigest, Reference};
use gantry_store::{ImageName as StoreName, Pointer, Store};
use gantry_transport::registry::{RegistryDestination, add_to_lookaside};
use gantry_transport::{ImageName, ParseNameError};

use super::signers::{SignersArgs, Signing};
use crate::commands::image::endpoint::{PlainArgs, Side};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{lookup, network, output};

/// Sign images that a registry or the local store has.
///
/// The signature goes where readers look for it: into the registry if it keeps signatures, else into the directory that
/// registries.d names for it; sigstore signatures are attached to the image in the registry; for an image of the store, beside it. Of an index, the index and each of its images are
/// signed. Several keys make several signatures.
#[derive(Debug, clap::Args)]
pub struct Sign {
    /// HOST/NAME:TAG, docker://HOST/NAME:TAG or store:NAME
    #[arg(required = true)]
    images: Vec<String>,
    /// Write the signatures into this lookaside directory instead
    #[arg(long, short, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print what would be signed, and sign nothing
    #[arg(long)]
    dry_run: bool,
    /// Who signs.
    #[command(flatten)]
    signers: SignersArgs,
    /// How the registry is reached.
    #[command(flatten)]
    side: PlainArgs,
}

impl Sign {
    /// Signs.
    pub fn run(self, context: &Context) -> Outcome {
        if self.signers.is_empty() {
            return Err(Failure::message(
                Kind::InvalidInput,
                "sign with no key: name one with --sign-by, --sign-by-key-file or --sign-by-sigstore-private-key",
            ));
        }
        let side = self.side.clone().resolve()?;
        let signers = self.signers.signers()?;
        for image in &self.images {
            let name = place_of(image)?;
            let place = reference_of(&name, context, &side)?;
            let signing = Signing {
                signers: signers.clone(),
                reference: self.signers.identity(place.as_ref())?,
            };
            self.sign(&signing, name, &side, context)
                .map_err(|failure| failure.context(format!("sign {image}")))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn sign(
        &self,
        signing: &Signing,
        name: ImageName,
        side: &Side,
        context: &Context,
    ) -> Result<(), Failure> {
        let source = side.source(name.clone(), context)?;
        let expected = expected_digest(&name);
        let digests = network::run(to_sign(&*source, expected.as_ref()))?;
        for digest in &digests {
            if !self.dry_run {
                let signatures = signing.sign_digest(digest)?;
                self.place(&name, digest, &signatures, side, context)?;
            }
            output::line(format!("{digest} as {}", signing.reference))?;
        }
        Ok(())
    }

    /// Puts signatures where they belong.
    fn place(
        &self,
        name: &ImageName,
        digest: &ManifestDigest,
        signatures: &[SignatureBlob],
        side: &Side,
        context: &Context,
    ) -> Result<(), Failure> {
        match (name, &self.directory) {
            (ImageName::Docker(reference), Some(directory)) => {
                let (repository, limits) = (&reference.repository, &Limits::DEFAULT);
                let added = add_to_lookaside(directory, repository, digest, signatures, limits);
                Ok(added?)
            }
            (ImageName::Docker(reference), None) => {
                let options = side.registry_options(context)?;
                let to = RegistryDestination::new(reference.clone(), &options, &side.conf);
                network::run(async { Ok(to.add_signatures(digest, signatures).await?) })
            }
            (ImageName::Store(_), None) => {
                let store = Store::open(&context.root)?;
                Ok(store.add_signatures(digest, signatures)?)
            }
            (other, _) => Err(Failure::message(
                Kind::Unsupported,
                format!("{other} has no place for signatures"),
            )),
        }
    }
}

/// A name as the verbs about signatures take it: without a transport it is a registry's.
///
/// # Errors
/// It does not parse.
pub fn place_of(text: &str) -> Result<ImageName, Failure> {
    match text.parse() {
        Ok(name) => Ok(name),
        Err(ParseNameError::NoTransport { .. }) => Ok(ImageName::Docker(
            Reference::parse_normalized(text)?.or_latest(),
        )),
        Err(error) => Err(error.into()),
    }
}

/// The digest that a name states.
pub fn expected_digest(name: &ImageName) -> Option<ManifestDigest> {
    match name {
        ImageName::Docker(reference) => reference.digest,
        _ => None,
    }
}

/// What an image is called in a registry. What came from none is of `localhost`.
///
/// # Errors
/// The store has no such image.
pub fn reference_of(
    name: &ImageName,
    context: &Context,
    side: &Side,
) -> Result<Option<Reference>, Failure> {
    match name {
        ImageName::Docker(reference) => Ok(Some(reference.clone())),
        ImageName::Store(text) => {
            let store = Store::open_read_only(&context.root)?;
            let found = lookup::find(&store, text, side.conf.unqualified_search())?;
            found.name.as_ref().map(of_store).transpose()
        }
        ImageName::OciLayout { .. } => Ok(None),
    }
}

fn of_store(name: &StoreName) -> Result<Reference, Failure> {
    let local = || lookup::LOCALHOST.parse::<Host>();
    let (tag, digest) = match &name.pointer {
        Pointer::Tag(tag) => (Some(tag.clone()), None),
        Pointer::Digest(digest) => (None, Some(*digest)),
    };
    Ok(Reference {
        host: name.host.clone().map_or_else(local, Ok)?,
        repository: name.repository.clone(),
        tag,
        digest,
    })
}

/// The manifest that a source gives, and if it is an index, those that it lists.
async fn to_sign(
    source: &dyn ImageSource,
    expected: Option<&ManifestDigest>,
) -> Result<Vec<ManifestDigest>, Failure> {
    let manifest = source.manifest(Wanted::Primary).await?;
    let manifest = manifest.verify(expected, &Limits::DEFAULT)?;
    let mut digests = vec![*manifest.digest()];
    if let Some(index) = manifest.as_index() {
        let images = index.manifests.iter();
        digests.extend(images.map(|image| ManifestDigest::from_digest(image.digest)));
    }
    Ok(digests)
}
