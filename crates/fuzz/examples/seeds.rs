// SPDX-License-Identifier: Apache-2.0
//! Writes the real inputs of each target into a directory of its own, as libFuzzer reads them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).context("name a directory")?;
    let dir = PathBuf::from(dir);
    let seeds = gantry_fuzz::seeds()?.context("gpg or openssl is not installed")?;
    for (target, inputs) in seeds {
        let below = dir.join(target);
        fs::create_dir_all(&below)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(below.join(format!("seed-{number}")), input)?;
        }
    }
    Ok(())
}
