// SPDX-License-Identifier: Apache-2.0
//! The developers' programs, behind `cargo xtask`; the Makefile calls them.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a program for developers, whose output is its purpose"
)]

mod bench;
mod conformance;
mod conformance_runtime;
mod coverage;
mod demo;
mod fail_closed;
mod fixtures;
mod fuzz;
mod stress;
mod suites;
mod tools;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// The developers' programs.
#[derive(Debug, Parser)]
enum Args {
    /// Measures our programs beside other people's.
    Bench(bench::Args),
    /// Runs the distribution specification's conformance suite against our registry.
    Conformance(conformance::Args),
    /// Runs the validation programs of runtime-tools against our OCI runtime and crun.
    ConformanceRuntime(conformance_runtime::Args),
    /// Proves that tests run every branch of what decides on trust.
    Coverage(coverage::Args),
    /// Pushes an image and runs it on a second host that pulls nothing.
    Demo(demo::Args),
    /// Makes every system call of a verification fail, with every error; no image may be admitted by it.
    FailClosed(fail_closed::Args),
    /// Builds the images that tests, demo and benches use.
    Fixtures(fixtures::Args),
    /// Feeds every reader of untrusted bytes to libFuzzer.
    Fuzz(fuzz::Args),
    /// Runs many short containers and looks for what they leave.
    Stress(stress::Args),
    /// Runs crun's own tests against our OCI runtime and crun.
    Suites(suites::Args),
    /// Builds the judges that no distribution packages (cosign 2 and 3).
    Tools(tools::Args),
    /// Runs the tasks of vm/tasks in a Debian guest.
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse() {
        Args::Bench(args) => bench::run(&args),
        Args::Conformance(args) => conformance::run(&args),
        Args::ConformanceRuntime(args) => conformance_runtime::run(&args),
        Args::Coverage(args) => coverage::run(&args),
        Args::Demo(args) => demo::run(&args),
        Args::FailClosed(args) => fail_closed::run(&args),
        Args::Fixtures(args) => fixtures::run(&args),
        Args::Fuzz(args) => fuzz::run(&args),
        Args::Stress(args) => stress::run(&args),
        Args::Suites(args) => suites::run(&args),
        Args::Tools(args) => tools::run(&args),
        Args::Vm(args) => vm::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
