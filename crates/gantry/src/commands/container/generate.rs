// SPDX-License-Identifier: Apache-2.0
//! `gantry generate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_oci::Kind;
use gantry_runtime::document::diff::diff;
use gantry_runtime::document::make::{Inputs, Made, make};
use gantry_runtime::document::validate::{Finding, Severity, validate};
use gantry_runtime::host::{HostFacts, probe_host};
use gantry_runtime::options::{ContainerName, RunOptions};
use gantry_runtime::prepare::Accounts;
use serde_json::Value;

use super::find::{self, FoundImage};
use super::flags::DocumentFlags;
use super::options::ContainerArgs;
use super::validate::read_document;
use super::{accounts, run};
use crate::commands::image::endpoint::PlainArgs;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Write an OCI runtime document, for any OCI runtime to run.
///
/// From an image of the store, options as `gantry run` and docker spell them, and flags as oci-runtime-tool names
/// them, to config.json on standard output. Without an image the program is sh, unless one is given. Options come
/// first, flags change what they made, in their order; of these, flags that remove all of something or set a default
/// act before the others.
///
/// Where both tools have a name, docker's meaning holds: --env, --env-file, --hostname and --privileged, which mean the
/// same to both; --label writes an annotation, as documents have no labels, and so does --annotation.
///
/// The same input gives the same bytes: there is no clock and no random number. What the document owes to the host
/// (capabilities, limits, control groups) is looked up here, or comes from --host-facts. Options that name files,
/// devices or variables of this host read these.
///
/// Flags and templates may ask for what the specification forbids: the document is written all the same, and a warning
/// says what `gantry validate` would say.
///
/// Nothing is mounted or run here, so no policy is asked: whether an image is admitted is decided where it runs.
///
/// What `gantry run` provides beside the document is put differently: volumes of the image are memory, and the files
/// hostname and hosts are the image's own.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Generate {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Take program, variables, user, directory and volumes from this image of the store
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Look for the image in this tree of another host first
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// The root file system: stands in the document [default: rootfs], and users are looked up there
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Start from this document in place of the profile's; options change what they change in that one
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Write to this file
    #[arg(long, value_name = "FILE", conflicts_with = "explain")]
    output: Option<PathBuf>,
    /// The container's id: names its control group, which is the runtime's choice without, and its host
    #[arg(long, visible_alias = "name", value_name = "ID")]
    id: Option<ContainerName>,
    /// The version of the runtime specification that the document names [default: 1.2.0]; crun 1.8 takes 1.0.2 at most
    #[arg(long, value_name = "VERSION")]
    oci_version: Option<String>,
    /// What the host can do, from this file rather than this host
    #[arg(long, value_name = "FILE")]
    host_facts: Option<PathBuf>,
    /// Print what this host can do, for --host-facts, and make nothing
    #[arg(long)]
    print_host_facts: bool,
    /// Print where each part comes from and what relaxes it, instead of the document
    #[arg(long)]
    explain: bool,
    /// Compare two documents and make none: one line a difference; status 0 if they mean the same, 1 if not
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    diff: Option<Vec<PathBuf>>,
    /// Print differences as JSON
    #[arg(long, requires = "diff")]
    json: bool,
    /// A word of the whole command line, in place of the image's; may be repeated
    #[arg(long = "args", value_name = "WORD", allow_hyphen_values = true, conflicts_with_all = ["entrypoint", "arguments"])]
    words: Vec<String>,
    /// What the container shall be.
    #[command(flatten, next_help_heading = "The container")]
    container: ContainerArgs,
    /// Parts of the document.
    #[command(flatten)]
    flags: DocumentFlags,
    /// The program's arguments, in place of the image's
    #[arg(last = true, value_name = "ARG")]
    arguments: Vec<String>,
}

impl Generate {
    /// Makes a document, or compares two.
    pub fn run(self, context: &Context) -> Outcome {
        if let Some([from, to]) = self.diff.as_deref() {
            return compare(from, to, self.json);
        }
        if self.print_host_facts {
            output::json(&probe_host())?;
            return Ok(ExitCode::SUCCESS);
        }
        self.container.check()?;
        let made = self.make(context)?;
        if self.explain {
            run::explain(&made.explanations, &made.notes)?;
            return Ok(ExitCode::SUCCESS);
        }
        for note in &made.notes {
            tracing::info!("{note}");
        }
        warn(&made.document);
        match &self.output {
            None => output::json(&made.document)?,
            Some(path) => write(path, &made.document)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn make(&self, context: &Context) -> Result<Made, Failure> {
        let found = self.image.as_deref().map(|image| self.find(context, image));
        let found = found.transpose()?;
        let config = found
            .as_ref()
            .map(|found| found.store.config(&found.record))
            .transpose()?;
        let template = self.template.as_deref().map(read_document).transpose()?;
        let rootfs = match &self.rootfs {
            None => "rootfs",
            Some(path) => path.to_str().ok_or_else(|| {
                Failure::message(Kind::InvalidInput, "--rootfs: the path is not UTF-8")
            })?,
        };
        let accounts = self.accounts(found.as_ref())?;
        let options = self.options(context)?;
        let host = self.host()?;
        let inputs = Inputs {
            image: config.as_ref(),
            options: &options,
            flags: &self.flags.0,
            host: &host,
            id: self.id.as_ref().map(ContainerName::as_str),
            rootfs: self.rootfs.is_some().then_some(rootfs),
            accounts: accounts.as_ref(),
            template: template.as_ref(),
            version: self.oci_version.as_deref(),
        };
        make(&inputs).map_err(|error| {
            let hint = error.hint();
            let failure = Failure::new(error.kind(), error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }

    fn options(&self, context: &Context) -> Result<RunOptions, Failure> {
        let mut options = self
            .container
            .clone()
            .resolve(context, self.arguments.clone())?;
        if !self.words.is_empty() {
            options.entrypoint = Some(self.words.clone());
        }
        Ok(options)
    }

    fn host(&self) -> Result<HostFacts, Failure> {
        let Some(path) = &self.host_facts else {
            return Ok(probe_host());
        };
        serde_json::from_value(read_document(path)?).map_err(|error| {
            Failure::new(Kind::InvalidInput, error)
                .context(format!("read {}", path.display()))
                .hint("gantry generate --print-host-facts prints those of a host")
        })
    }

    /// Where users are looked up: the root, if it was named, else the image.
    fn accounts(&self, found: Option<&FoundImage>) -> Result<Option<Accounts>, Failure> {
        match (&self.rootfs, found) {
            (Some(path), None) => accounts::of_directory(path).map(Some),
            (Some(path), Some(_)) if path.is_dir() => accounts::of_directory(path).map(Some),
            (_, Some(found)) => accounts::of_image(found).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn find(&self, context: &Context, image: &str) -> Result<FoundImage, Failure> {
        let search = PlainArgs::default().resolve()?.conf;
        find::find(context, &self.share, image, search.unqualified_search())?.ok_or_else(|| {
            Failure::message(Kind::NotFound, format!("find image {image} in the store"))
                .hint(format!("gantry pull {image}"))
        })
    }
}

/// Flags and templates can ask for what no runtime takes; whoever does shall know. A filter alone is
/// no document.
fn warn(document: &Value) {
    if document.get("ociVersion").is_none() {
        return;
    }
    let findings = validate(document);
    let errors = findings.iter().filter(|f| f.severity == Severity::Error);
    for Finding {
        path,
        problem,
        rule,
        ..
    } in errors
    {
        tracing::warn!("the document is not valid: {path}: {problem} ({rule})");
    }
}

fn write(path: &Path, document: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Kind::Internal, error))?;
    std::fs::write(path, text + "\n")
        .map_err(|error| Failure::from(error).context(format!("write {}", path.display())))
}

fn compare(from: &Path, to: &Path, json: bool) -> Outcome {
    let differences = diff(&read_document(from)?, &read_document(to)?);
    if json {
        output::json(&differences)?;
    } else {
        for difference in &differences {
            output::line(output::escape_controls(&difference.to_string()))?;
        }
    }
    Ok(ExitCode::from(u8::from(!differences.is_empty())))
}
