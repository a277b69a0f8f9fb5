// SPDX-License-Identifier: Apache-2.0
//! `gantry run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use gantry_oci::Kind;
use gantry_runtime::options::{ContainerName, parse_hostname};
use gantry_runtime::spec::Explanation;
use gantry_store::FaceChoice;

use super::attach;
use super::find;
use super::launch::{self, LaunchOptions};
use super::options::ContainerArgs;
use crate::admission::{Admission, RunnableImage};
use crate::commands::image::endpoint::PlainArgs;
use crate::commands::image::pull::Pull;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// The status of Gantry's own failures, as podman's and docker's users know it.
const OURS: u8 = 125;

/// Run a program in a container.
///
/// The image is looked for in the trees that --share names, in the local store, and in the configuration's shares;
/// from a share nothing is copied. The exit status is the program's own, 128 + n after signal n, 127 if the program is
/// not in the image, 126 if it cannot be executed, and 125 if the container could not be started.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Remove the container once it has ended
    #[arg(long)]
    rm: bool,
    /// Print the container's ID and return once the program runs
    #[arg(long, short)]
    detach: bool,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    name: Option<ContainerName>,
    /// Look for the image in this tree of another host first
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// When to pull the image into the local store
    #[arg(long, value_enum, default_value_t = PullWhen::Missing)]
    pull: PullWhen,
    /// Which view of the image serves as root
    #[arg(long, value_enum, default_value_t = FaceArg::Best)]
    face: FaceArg,
    /// The OCI runtime, by name or path [default: gantry, our own]
    #[arg(long, value_name = "NAME|PATH")]
    runtime: Option<String>,
    /// Pass signals on to the program
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Write the container's ID to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Print where each part of the container's confinement comes from and what relaxes it, and run nothing
    #[arg(long)]
    explain: bool,
    /// Print, as JSON, all that the monitor would do, and run nothing
    #[arg(long, conflicts_with = "explain")]
    dry_run: bool,
    /// The NIS domain, as the container sees it
    #[arg(long, value_name = "NAME", value_parser = parse_hostname)]
    domainname: Option<String>,
    /// What the container shall be.
    #[command(flatten, next_help_heading = "The container")]
    container: ContainerArgs,
    /// The image, and the program's arguments in place of the image's
    #[command(flatten)]
    words: ImageWords,
}

/// An image and what stands behind it. That is the program's, whatever it looks like: an option there must not become
/// one of ours.
#[derive(Debug, Clone, clap::Args)]
struct ImageWords {
    /// The image, then the program's arguments in place of the image's
    // One argument, as the second of two would begin to trail only at the first word that is no option of ours.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "ARG"], num_args = 1..)]
    words: Vec<String>,
}

impl ImageWords {
    fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn args(&self) -> Vec<String> {
        self.words.iter().skip(1).cloned().collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullWhen {
    /// If it is nowhere here
    Missing,
    /// Before every start
    Always,
    /// Not at all
    Never,
}

/// A view of an image, as options spell it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FaceArg {
    /// composefs where the kernel can, else hard links
    Best,
    /// EROFS metadata over the shared objects
    Composefs,
    /// The tree of hard links
    Hardlink,
}

impl From<FaceArg> for FaceChoice {
    fn from(face: FaceArg) -> Self {
        match face {
            FaceArg::Best => Self::Best,
            FaceArg::Composefs => Self::Composefs,
            FaceArg::Hardlink => Self::Hardlink,
        }
    }
}

impl Run {
    /// Runs.
    pub fn run(self, context: &Context) -> Outcome {
        self.launch(context)
            .map_err(|failure| failure.or_status(OURS))
    }

    fn launch(self, context: &Context) -> Outcome {
        self.container.check()?;
        if !rustix::process::geteuid().is_root() && !self.dry_run && !self.explain {
            return Err(Failure::message(
                Kind::Denied,
                "run a container: it takes root to mount an image and to make namespaces",
            )
            .hint("use sudo; containers of other users are not supported yet"));
        }
        let only_planned = self.dry_run || self.explain;
        let admission = Admission::load(context)?.only_planned(only_planned);
        let image = self.image(context, &admission)?;
        let mut options = self.container.clone().resolve(context, self.words.args())?;
        options.domainname.clone_from(&self.domainname);
        let terminal = options.terminal;
        let launch_options = LaunchOptions {
            image: self.words.image().to_owned(),
            name: self.name.clone(),
            remove: self.rm,
            detached: self.detach,
            runtime: self.runtime.clone(),
            face: self.face.into(),
            size: attach::window_size(),
        };
        let launch = launch::plan(context, &image, &options, &launch_options)?;
        if self.dry_run {
            output::json(&launch.plan)?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.explain {
            explain(&launch.explanations, &launch.notes)?;
            return Ok(ExitCode::SUCCESS);
        }
        // From here on no signal may come between what is made and what removes it.
        let signals = attach::block_signals()?;
        if let Some(path) = &self.cidfile {
            write_cidfile(path, &launch.plan.id)?;
        }
        let launched = launch.begin(&image, self.detach).inspect_err(|_| {
            if let Some(path) = &self.cidfile {
                // The first failure is the one to tell.
                std::fs::remove_file(path).ok();
            }
        })?;
        if self.detach {
            attach::wait_for_start(&launched)?;
            output::line(&launched.id)?;
            return Ok(ExitCode::SUCCESS);
        }
        let exit = attach::attach(launched, &signals, terminal, self.sig_proxy)?;
        Ok(ExitCode::from(exit.status()))
    }

    fn image(&self, context: &Context, admission: &Admission) -> Result<RunnableImage, Failure> {
        let search = PlainArgs::default().resolve()?.conf;
        let find = || {
            find::find(
                context,
                &self.share,
                self.words.image(),
                search.unqualified_search(),
            )
        };
        if self.pull != PullWhen::Always {
            if let Some(found) = find()? {
                return admission.runnable(found);
            }
            if self.pull == PullWhen::Never {
                return Err(self.nowhere(context));
            }
        }
        Pull::plainly(self.words.image())
            .bring(context, admission)
            .map_err(|failure| {
                let tried = self.nowhere(context).sentence();
                failure.context(format!("{tried}, and pulling it failed"))
            })?;
        admission.runnable(find()?.ok_or_else(|| self.nowhere(context))?)
    }

    fn nowhere(&self, context: &Context) -> Failure {
        find::nowhere(context, &self.share, self.words.image())
    }
}

/// Prints where each part comes from.
pub(super) fn explain(explanations: &[Explanation], notes: &[String]) -> Result<(), Failure> {
    let rows: Vec<_> = explanations
        .iter()
        .map(|part| {
            vec![
                output::escape_controls(&part.control),
                output::escape_controls(&part.value),
                format!("{:?}", part.origin).to_lowercase(),
                part.relaxed_by.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["CONTROL", "VALUE", "FROM", "RELAXED BY"], &rows)?;
    notes
        .iter()
        .try_for_each(|note| output::line(format!("note: {}", output::escape_controls(note))))
}

fn write_cidfile(path: &std::path::Path, id: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(id.as_bytes()))
        .map_err(|error| Failure::from(error).context(format!("write {}", path.display())))
}
