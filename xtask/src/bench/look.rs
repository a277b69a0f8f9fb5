// SPDX-License-Identifier: Apache-2.0
//! What does not unpack: blobs from a registry to a layout, and a look at an image without its layers.

use std::process::Command;

use anyhow::Result;
use gantry_testkit::fixtures;
use gantry_testkit::tool::DockerRegistry;

use super::Bed;
use super::compare::{Contender, Pace, Report, compare};
use super::pull::{version, wipe};
use super::push::skopeo_push;

pub fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let registry = DockerRegistry::start(&bed.path("docker-registry"))?;
    for image in ["jre", "sci"] {
        if fixtures::layout(image).is_err() {
            report.note(format!("no fixture {image}"));
            continue;
        }
        skopeo_push(image, registry.address())?;
        let source = format!("docker://{}/set/{image}:latest", registry.address());
        let [ours, skopeo] = ["gantry", "skopeo"].map(|program| copy(bed, program, &source));
        let peer = Contender {
            version: version("skopeo")?,
            ..skopeo
        };
        compare(report, "copy", image, bed.runs, &ours, &[peer])?;
    }
    let source = format!("docker://{}/set/jre:latest", registry.address());
    let [ours, skopeo] = ["gantry", "skopeo"].map(|program| inspect(bed, program, &source));
    let peer = Contender {
        version: version("skopeo")?,
        ..skopeo
    };
    compare(report, "inspect", "jre", bed.runs * 8, &ours, &[peer]).map(drop)
}

fn program(bed: &Bed, name: &str) -> Command {
    if name == "gantry" {
        bed.gantry()
    } else {
        Command::new(name)
    }
}

fn copy<'a>(bed: &'a Bed, name: &'static str, source: &'a str) -> Contender<'a> {
    Contender {
        name: "skopeo copy docker: oci:",
        version: String::new(),
        prepare: Box::new(move || wipe(bed, "layout")),
        commands: Box::new(move || {
            let mut command = program(bed, name);
            if name == "gantry" {
                command.args(["--progress", "none"]);
            }
            let target = format!("oci:{}:latest", bed.path("layout/image").display());
            command.args(["copy", "--src-tls-verify=false", source, &target]);
            vec![command]
        }),
        daemons: Vec::new(),
        pace: Pace::Long,
    }
}

fn inspect<'a>(bed: &'a Bed, name: &'static str, source: &'a str) -> Contender<'a> {
    Contender {
        name: "skopeo inspect",
        version: String::new(),
        prepare: Box::new(|| Ok(())),
        commands: Box::new(move || {
            let mut command = program(bed, name);
            command.args(["inspect", "--tls-verify=false", source]);
            vec![command]
        }),
        daemons: Vec::new(),
        pace: Pace::Brief,
    }
}
