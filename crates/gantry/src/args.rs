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

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a script that completes gantry's words in a shell
    Completion(commands::system::completion::Completion),
    /// Write manual pages
    Man(commands::system::man::Man),
    /// Copy an image from one place to another
    Copy(Box<commands::image::copy::Copy>),
    /// Delete an image from a registry
    Delete(commands::image::delete::Delete),
    /// Show how an image came about
    History(commands::image::history::History),
    /// List images
    Images(commands::image::images::Images),
    /// Show where things lie and what this kernel can do
    Info(commands::system::info::Info),
    /// Show what an image is, without fetching its layers
    Inspect(Box<commands::image::inspect::Inspect>),
    /// List the tags of a repository
    ListTags(commands::image::list_tags::ListTags),
    /// Bring an image into the local store
    Pull(Box<commands::image::pull::Pull>),
    /// Push an image of the local store to a registry
    Push(Box<commands::image::push::Push>),
    /// Serve and care for a registry
    #[command(subcommand)]
    Registry(commands::registry::RegistryCommand),
    /// Remove images from the local store
    Rmi(commands::image::rmi::Rmi),
    /// Check, measure and clean the local store
    #[command(subcommand)]
    Store(commands::store::StoreCommand),
    /// Give an image more names
    Tag(commands::image::tag::Tag),
    /// Run a program in a container
    Run(Box<commands::container::run::Run>),
    /// List containers
    Ps(commands::container::ps::Ps),
    /// Remove containers
    Rm(commands::container::rm::Rm),
    /// Ask containers to end, and kill those that do not
    Stop(commands::container::stop::Stop),
    /// Send a signal to containers
    Kill(commands::container::stop::Kill),
    /// Wait until containers have ended, and print their exit statuses
    Wait(commands::container::wait::Wait),
    /// Print what a container has written
    Logs(commands::container::logs::Logs),
    /// Print the version
    Version(commands::system::version::Version),
}
