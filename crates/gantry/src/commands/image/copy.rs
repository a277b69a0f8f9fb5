// SPDX-License-Identifier: Apache-2.0
//! `gantry copy`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use gantry_image::convert::{ManifestFormat, Wishes};
use gantry_oci::Reference;
use gantry_oci::media_type::LayerCompression;
use gantry_transport::ImageName;
use gantry_transport::copy::{self, CopyOptions, MultiArch};

use super::endpoint::{DestinationArgs, FacesArgs, JudgedSource, PlatformArgs, Side, SourceArgs};
use crate::admission::Admission;
use crate::commands::signature::signers::SignersArgs;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::{network, output, progress};

/// Copy an image from one place to another.
///
/// Places are spelled as skopeo spells them: docker://HOST/NAME:TAG, oci:DIRECTORY or
/// oci:DIRECTORY:REF, and store:NAME for the local store.
#[derive(Debug, clap::Args)]
pub struct Copy {
    /// Where from
    source: String,
    /// Where to
    destination: String,
    /// Copy all images of an index, and the index
    #[arg(long, short, conflicts_with = "multi_arch")]
    all: bool,
    /// Which images of an index to copy
    #[arg(long, value_enum, default_value_t = Which::System)]
    multi_arch: Which,
    /// The family of the manifest at the destination [default: as it is]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Fail rather than change a manifest
    #[arg(long)]
    preserve_digests: bool,
    /// Leave signatures behind
    #[arg(long)]
    remove_signatures: bool,
    /// Who signs it.
    #[command(flatten)]
    signers: SignersArgs,
    /// How layers are compressed that must be written anew
    #[arg(long, value_enum, value_name = "HOW")]
    dest_compress_format: Option<Compression>,
    /// Compress every layer so
    #[arg(long, requires = "dest_compress_format")]
    dest_force_compress_format: bool,
    /// Layers to move at once
    #[arg(long, value_name = "N", default_value_t = 6)]
    image_parallel_copies: usize,
    /// How often to try again what failed temporarily
    #[arg(long, value_name = "N", default_value_t = 3)]
    retry_times: u32,
    /// What it tells.
    #[command(flatten)]
    telling: TellingArgs,
    /// What a store makes of it.
    #[command(flatten)]
    faces: FacesArgs,
    /// Which platform of an index.
    #[command(flatten)]
    platform: PlatformArgs,
    /// The source's options.
    #[command(flatten, next_help_heading = "Source")]
    from: SourceArgs,
    /// The destination's options.
    #[command(flatten, next_help_heading = "Destination")]
    to: DestinationArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// The one for this platform
    System,
    /// All, and the index
    All,
    /// The index alone
    IndexOnly,
}

/// Families of manifests.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// OCI image manifest
    Oci,
    /// Docker manifest version 2 schema 2
    V2s2,
}

/// Compressions of layers.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Compression {
    /// RFC 1952
    Gzip,
    /// RFC 8878
    Zstd,
    /// Plain tar
    None,
}

impl Copy {
    /// Copies.
    pub fn run(self, context: &Context) -> Outcome {
        let (source, destination): (ImageName, ImageName) =
            (self.source.parse()?, self.destination.parse()?);
        let mut options = CopyOptions::new(self.platform.clone().resolve()?);
        options.multi_arch = match self.multi_arch {
            _ if self.all => MultiArch::All,
            Which::System => MultiArch::System,
            Which::All => MultiArch::All,
            Which::IndexOnly => MultiArch::IndexOnly,
        };
        options.wishes = wishes(
            self.format,
            self.dest_compress_format,
            self.dest_force_compress_format,
        );
        options.preserve_digests = self.preserve_digests;
        options.remove_signatures = self.remove_signatures;
        options.signers = self.signers.resolve(reference_of(&destination))?;
        options.parallel_layers = self.image_parallel_copies.clamp(1, 64);
        options.retry.attempts = self.retry_times;
        let (mut from, mut to) = (self.from.resolve()?, self.to.resolve()?);
        for side in [&mut from, &mut to] {
            side.options.retry.attempts = self.retry_times;
        }
        let source = from.judged_source(source, context)?;
        self.telling
            .carry_out(context, source, (&to, destination, self.faces), &options)
    }
}

/// What a destination is called in a registry, for who signs.
pub fn reference_of(destination: &ImageName) -> Option<&Reference> {
    match destination {
        ImageName::Docker(reference) => Some(reference),
        _ => None,
    }
}

/// What a copy tells, and whether it happens at all.
#[derive(Debug, clap::Args)]
pub struct TellingArgs {
    /// Write the digest at the destination to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

impl TellingArgs {
    /// Copies what the policy admits, or prints the plan.
    ///
    /// # Errors
    /// As the policy, the engine and the two sides say; the digest cannot be written.
    pub fn carry_out(
        &self,
        context: &Context,
        from: JudgedSource,
        (side, destination, faces): (&Side, ImageName, FacesArgs),
        options: &CopyOptions,
    ) -> Outcome {
        let sink = progress::sink(context.progress, self.quiet);
        let admission = Admission::load(context)?.only_planned(self.dry_run);
        let JudgedSource {
            asked,
            subjects,
            source,
        } = from;
        let gate = admission.gate(subjects);
        let digest = network::run(async {
            if self.dry_run {
                let destination = side.planned(destination, context)?;
                let plan = copy::plan(&*source, &*destination, options, Some(&gate)).await?;
                output::lines(&plan.to_string())?;
                return Ok(None);
            }
            let destination = side.destination(destination, context, faces.into()).await?;
            let report = copy::run(&*source, &*destination, options, Some(&gate), sink).await?;
            Ok::<_, Failure>(Some(report.digest))
        });
        let digest = digest.map_err(|failure| gate.explained(failure, &asked))?;
        if let (Some(digest), Some(path)) = (digest, &self.digestfile) {
            std::fs::write(path, digest.to_string()).map_err(|error| {
                Failure::from(error).context(format!("write {}", path.display()))
            })?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What the options ask for, as the engine takes it.
pub fn wishes(format: Option<Format>, compression: Option<Compression>, force: bool) -> Wishes {
    Wishes {
        format: format.map(|format| match format {
            Format::Oci => ManifestFormat::Oci,
            Format::V2s2 => ManifestFormat::Docker,
        }),
        compression: compression.map(|compression| match compression {
            Compression::Gzip => LayerCompression::Gzip,
            Compression::Zstd => LayerCompression::Zstd,
            Compression::None => LayerCompression::None,
        }),
        force_compression: force,
    }
}
