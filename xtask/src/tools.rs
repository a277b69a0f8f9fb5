// SPDX-License-Identifier: Apache-2.0
//! Judges that no distribution packages: built once from the Go module proxy, kept for all clones.
//!
//! Two versions of cosign take four to seven minutes of two cores. Without Go or its proxy they are left out, in so many words; the
//! tests that need them then say so too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use gantry_testkit::cosign::{VERSIONS, tools_dir};
use gantry_testkit::tool;

/// Options of the build.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Build again what is there.
    #[arg(long)]
    again: bool,
}

/// Builds what is not there.
pub fn run(args: &Args) -> Result<()> {
    let Some(go) = tool::find("go")
        .or_else(|| Some("/usr/local/go/bin/go".into()).filter(|go: &PathBuf| go.is_file()))
    else {
        println!("tools: skipped: Go is not installed (apt-get install golang-go)");
        return Ok(());
    };
    let dir = tools_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    for (major, version) in VERSIONS {
        let program = dir.join(format!("cosign-{version}"));
        if program.is_file() && !args.again {
            continue;
        }
        let started = Instant::now();
        // A proxy that does not answer is no fault of the code under test.
        match build_cosign(&go, &dir, major, version, &program) {
            Ok(()) => println!(
                "tools: cosign {version} built in {} s",
                started.elapsed().as_secs()
            ),
            Err(error) => println!("tools: skipped: cosign {version}: {error:#}"),
        }
    }
    Ok(())
}

fn build_cosign(go: &Path, dir: &Path, major: u32, version: &str, program: &Path) -> Result<()> {
    let staging = tempfile::tempdir_in(dir)?;
    let module = format!("github.com/sigstore/cosign/v{major}/cmd/cosign@{version}");
    tool::run(
        Command::new(go)
            .args(["install", "-trimpath", "-ldflags=-s -w", &module])
            .env("GOBIN", staging.path())
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "auto"),
    )
    .with_context(|| format!("build cosign {version}"))?;
    fs::rename(staging.path().join("cosign"), program)
        .with_context(|| format!("keep {}", program.display()))
}
