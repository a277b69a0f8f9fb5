// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask fail-closed`: every system call of a verification fails, with every error; no image is admitted by it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::faults;
use gantry_testkit::scratch::scratch;

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program that refuses
    #[arg(long, default_value = "target/debug/gantry")]
    gantry: PathBuf,
    /// With how many kinds of errors, the most telling first
    #[arg(long, default_value_t = faults::ERRNOS.len())]
    errnos: usize,
    /// How many of the faults, in a hundred
    #[arg(long, default_value_t = 100)]
    share: usize,
}

/// Runs the campaign and prints what it found.
pub fn run(args: &Args) -> Result<()> {
    let dir = scratch();
    let gantry = std::path::absolute(&args.gantry)?;
    ensure!(
        gantry.is_file(),
        "{} is not built: cargo build -p gantry",
        gantry.display()
    );
    let denials =
        faults::denials(&gantry, dir.path())?.context("gpg or openssl is not installed")?;
    for denial in &denials.all {
        let one = std::slice::from_ref(denial);
        let report = faults::campaign(one, dir.path(), args.errnos, args.share)?;
        let (wrong, panics) = (&report.wrong, &report.panics);
        println!(
            "{}: {} faults, {} admitted, {} panics",
            denial.name,
            report.runs,
            wrong.len(),
            panics.len()
        );
        for line in wrong.iter().chain(panics) {
            println!("  {line}");
        }
        ensure!(report.wrong.is_empty(), "an image was admitted");
    }
    Ok(())
}
