// SPDX-License-Identifier: Apache-2.0
//! The `gantry` command: arguments in, one library call, exit status out.
#![forbid(unsafe_code)]

mod admission;
mod args;
mod commands;
mod config;
mod context;
mod exit;
mod input;
mod lookup;
mod memory;
mod network;
mod output;
mod progress;
mod stores;
mod trust;
mod when;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// The words for the OCI runtime, when the program is called by its name or its verb comes first.
fn runtime_words() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os();
    let name = words.next()?;
    if Path::new(&name).file_name()? != commands::runtime::NAME && words.next()? != "runtime" {
        return None;
    }
    Some(words.collect())
}

fn main() -> ExitCode {
    // Before anything is started: what clones into containers has one thread.
    if let Some(words) = runtime_words() {
        return commands::runtime::main(&words);
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage(&error, args::verb().as_deref()),
    };
    output::start_logging(&cli.global);
    match context::Context::new(&cli.global)
        .and_then(|context| commands::dispatch(cli.command, &context))
    {
        Ok(code) => code,
        Err(failure) => exit::report(&failure),
    }
}
