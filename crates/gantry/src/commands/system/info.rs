// SPDX-License-Identifier: Apache-2.0
//! `gantry info`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_store::{Seal, Store};
use gantry_sys::probe::KernelFeatures;
use rustix::fs::{Access, AtFlags, CWD};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Show where things lie, what this kernel can do, and what follows from it.
#[derive(Debug, clap::Args)]
pub struct Info {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    root: PathBuf,
    runroot: PathBuf,
    store: StoreReport,
    shares: Vec<ShareReport>,
    kernel: KernelFeatures,
    face: FaceReport,
    verity: VerityReport,
}

#[derive(Serialize, Default)]
struct StoreReport {
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<u64>,
    writable: bool,
    network_file_system: bool,
    /// Whether what comes in is sealed with fs-verity.
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<Seal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct ShareReport {
    path: PathBuf,
    store: StoreReport,
}

/// Which view of an image is mounted here, where the image has both.
#[derive(Serialize)]
struct FaceReport {
    serves: &'static str,
    why: &'static str,
}

/// Whether the kernel compares contents with their digests on every read.
#[derive(Serialize, Default)]
struct VerityReport {
    enforced: bool,
    why: &'static str,
}

impl Info {
    /// Prints it.
    pub fn run(self, context: &Context) -> Outcome {
        let kernel = KernelFeatures::probe();
        let shares = context.config.shares.iter();
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            root: context.root.clone(),
            runroot: context.runroot.clone(),
            store: store(&context.root),
            shares: shares
                .map(|share| ShareReport {
                    path: share.path.clone(),
                    store: store(&share.path),
                })
                .collect(),
            face: face(&kernel),
            kernel,
            verity: VerityReport::default(),
        };
        let report = Report {
            verity: verity(&report),
            ..report
        };
        if self.json {
            output::json(&report)?;
        } else {
            print(&report)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn store(path: &Path) -> StoreReport {
    let store = match Store::open_read_only(path) {
        Ok(store) => store,
        Err(error) => {
            return StoreReport {
                problem: Some(Failure::from(error).sentence()),
                ..StoreReport::default()
            };
        }
    };
    let writable = rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS);
    StoreReport {
        exists: true,
        id: Some(store.id().to_owned()),
        format: Some(store.format()),
        writable: writable.is_ok(),
        network_file_system: gantry_sys::publish::is_network_file_system(store.root())
            .unwrap_or(false),
        seal: Some(store.seal()),
        problem: None,
    }
}

fn verity(report: &Report) -> VerityReport {
    let kernel = report.kernel.overlay_verity;
    let (enforced, why) = match report.store.seal {
        Some(Seal::Require) if kernel => (
            true,
            "every image that came in since `gantry store seal` is sealed with fs-verity, and mounts ask for it",
        ),
        Some(Seal::Try) if kernel => (
            false,
            "for those images only that could be sealed with fs-verity; the others are verified when they come in and by `gantry store check`",
        ),
        Some(Seal::Require | Seal::Try) => (
            false,
            "this kernel's overlay cannot compare digests, or this process may not ask; contents are verified when they come in and by `gantry store check`",
        ),
        Some(Seal::Off) | None => (
            false,
            "contents are verified when they come in and by `gantry store check`; `gantry store seal` makes the kernel do it on every read",
        ),
    };
    VerityReport { enforced, why }
}

fn face(kernel: &KernelFeatures) -> FaceReport {
    let (serves, why) = if kernel.can_mount_composefs() {
        let why = if kernel.erofs_from_file {
            "EROFS mounts from a plain file, overlay has data-only layers"
        } else {
            "EROFS mounts through a loop device, overlay has data-only layers"
        };
        ("composefs", why)
    } else if !kernel.can_mount {
        ("hardlink", "this process may not mount")
    } else if !kernel.erofs {
        ("hardlink", "the kernel has no EROFS")
    } else {
        (
            "hardlink",
            "the kernel's overlay has no data-only layers (Linux 6.5)",
        )
    };
    FaceReport { serves, why }
}

fn print(report: &Report) -> Result<(), Failure> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let state = |store: &StoreReport| match (&store.id, &store.problem) {
        (Some(id), _) => format!(
            "format {}, {}{}, id {id}",
            store.format.unwrap_or_default(),
            if store.writable {
                "writable"
            } else {
                "read-only"
            },
            if store.network_file_system {
                ", on a network file system"
            } else {
                ""
            },
        ),
        (None, Some(problem)) => problem.clone(),
        (None, None) => String::new(),
    };
    let kernel = &report.kernel;
    // Whoever may not mount is not told.
    let has = |feature| match kernel.can_mount {
        true => yes(feature),
        false => "unknown".to_owned(),
    };
    let mut rows = vec![
        ("version", report.version.to_owned()),
        ("root", report.root.display().to_string()),
        ("  store", state(&report.store)),
        ("runroot", report.runroot.display().to_string()),
    ];
    for share in &report.shares {
        rows.push(("share", share.path.display().to_string()));
        rows.push(("  store", state(&share.store)));
    }
    rows.extend([
        (
            "kernel",
            format!("{}.{}", kernel.version.0, kernel.version.1),
        ),
        ("  may mount", yes(kernel.can_mount)),
        ("  EROFS", has(kernel.erofs)),
        ("  EROFS from a file", has(kernel.erofs_from_file)),
        ("  overlay", has(kernel.overlay)),
        ("  data-only layers", has(kernel.overlay_data_only)),
        (
            "face that serves",
            format!("{} ({})", report.face.serves, report.face.why),
        ),
        (
            "digests enforced",
            format!("{} ({})", yes(report.verity.enforced), report.verity.why),
        ),
    ]);
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(what, value)| vec![what.to_owned(), value])
        .collect();
    rows.iter()
        .try_for_each(|row| output::lines(&format!("{:20} {}", row[0], row[1])))
}
