// SPDX-License-Identifier: Apache-2.0
//! `gantry version`.

use std::process::ExitCode;

use serde::Serialize;

use crate::exit::Outcome;
use crate::output;

/// Print the version.
#[derive(Debug, clap::Args)]
pub struct Version {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    #[serde(rename = "ociRuntimeSpec")]
    runtime_spec: &'static str,
    #[serde(rename = "ociImageSpec")]
    image_spec: &'static str,
    #[serde(rename = "ociDistributionSpec")]
    distribution_spec: &'static str,
    platform: String,
}

impl Version {
    /// Prints it.
    pub fn run(self) -> Outcome {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            runtime_spec: "1.2",
            image_spec: "1.1",
            distribution_spec: "1.1",
            platform: gantry_oci::Platform::host().to_string(),
        };
        if self.json {
            output::json(&report)?;
        } else {
            output::line(format_args!(
                "gantry {} ({})",
                report.version, report.platform
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
