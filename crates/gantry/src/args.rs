// SPDX-License-Identifier: Apache-2.0
//! The command line, from the outermost options to the list of verbs. Each
//! verb's own options stand beside its code, under `commands/`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Containers in production: push once, verified once, run everywhere at once.
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What applies to every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every verb takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the store lies [default: /var/lib/gantry, or the XDG data directory of a user]
    #[arg(long, global = true, value_name = "DIR", env = "GANTRY_ROOT")]
    pub root: Option<PathBuf>,
    /// Where the state of running containers lies [default: /run/gantry, or the XDG runtime directory]
    #[arg(long, global = true, value_name = "DIR", env = "GANTRY_RUNROOT")]
    pub runroot: Option<PathBuf>,
    /// The configuration file [default: /etc/gantry/gantry.toml, or the XDG configuration directory]
    #[arg(
        long = "config-file",
        global = true,
        value_name = "FILE",
        env = "GANTRY_CONFIG"
    )]
    pub config: Option<PathBuf>,
    /// The directory that says where signatures are kept, instead of the usual ones
    #[arg(
        long = "registries.d",
        global = true,
        value_name = "DIR",
        env = "GANTRY_REGISTRIES_D"
    )]
    pub registries_d: Option<PathBuf>,
    /// The policy that says which images are admitted [default: the containers family's policy.json]
    #[arg(
        long,
        visible_alias = "signature-policy",
        global = true,
        value_name = "FILE"
    )]
    pub policy: Option<PathBuf>,
    /// Admit any image, without policy and rules
    #[arg(long, global = true, conflicts_with = "policy")]
    pub insecure_policy: bool,
    /// How to show progress
    #[arg(long, global = true, value_name = "HOW", value_enum, default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "GANTRY_LOG",
        default_value = "warn"
    )]
    pub log: String,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = clap::ColorChoice::Auto)]
    pub color: clap::ColorChoice,
}

/// The first word of the command line that is a verb, for when the line as a whole makes no sense.
pub fn verb() -> Option<String> {
    use clap::CommandFactory as _;
    let known = Cli::command();
    std::env::args()
        .skip(1)
        .find(|word| known.find_subcommand(word).is_some())
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, nothing elsewhere
    Auto,
    /// Bars
    Bar,
    /// One JSON object a line, on standard error
    Json,
    /// Nothing
    None,
}

/// The verbs. Each says itself, in the comment on its type, what it is for.
#[derive(Debug, Subcommand)]
pub enum Command {
    Completion(commands::system::completion::Completion),
    Man(commands::system::man::Man),
    Copy(Box<commands::image::copy::Copy>),
    Delete(commands::image::delete::Delete),
    Diff(commands::image::diff::Diff),
    Generate(Box<commands::container::generate::Generate>),
    History(commands::image::history::History),
    Images(commands::image::images::Images),
    Info(commands::system::info::Info),
    Inspect(Box<commands::image::inspect::Inspect>),
    ListTags(commands::image::list_tags::ListTags),
    Pull(Box<commands::image::pull::Pull>),
    Push(Box<commands::image::push::Push>),
    #[command(subcommand)]
    Registry(commands::registry::RegistryCommand),
    Rmi(commands::image::rmi::Rmi),
    Runtime(commands::runtime::Runtime),
    Sign(Box<commands::signature::sign::Sign>),
    Verify(Box<commands::signature::verify::Verify>),
    StandaloneSign(commands::signature::standalone_sign::StandaloneSign),
    StandaloneVerify(commands::signature::standalone_verify::StandaloneVerify),
    ManifestDigest(commands::signature::manifest_digest::ManifestDigest),
    GenerateSigstoreKey(commands::signature::generate_sigstore_key::GenerateSigstoreKey),
    #[command(subcommand)]
    Store(commands::store::StoreCommand),
    Tag(commands::image::tag::Tag),
    Mount(commands::mounts::mount::Mount),
    #[command(visible_alias = "umount")]
    Unmount(commands::mounts::unmount::Unmount),
    Run(Box<commands::container::run::Run>),
    Exec(commands::container::exec::Exec),
    Ps(commands::container::ps::Ps),
    Rm(commands::container::rm::Rm),
    Stop(commands::container::stop::Stop),
    Kill(commands::container::stop::Kill),
    Wait(commands::container::wait::Wait),
    Logs(commands::container::logs::Logs),
    #[command(subcommand)]
    Trust(commands::trust::TrustCommand),
    Validate(commands::container::validate::Validate),
    Version(commands::system::version::Version),
}
