// SPDX-License-Identifier: Apache-2.0
//! The `gantry` command: arguments in, one library call, exit status out.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod config;
mod context;
mod exit;
mod input;
mod lookup;
mod network;
mod output;
mod progress;
mod stores;
mod when;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
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
