// SPDX-License-Identifier: Apache-2.0
//! What the verbs share that change the policy: reading the file, and replacing it in one step.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_oci::{Kind, Limits};
use gantry_sys::publish;
use gantry_trust::Policy;
use gantry_trust::policy::{Edit, PolicyPlaces};
use rustix::fs::Mode;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::trust::{PolicyChoice, no_policy};

/// Whether the change is made.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct EditArgs {
    /// Print the file as it would be, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl EditArgs {
    /// Changes the policy file that holds.
    ///
    /// # Errors
    /// There is none, or the change makes no sense.
    pub fn apply(self, context: &Context, edit: &Edit) -> Outcome {
        let (path, policy) = places(context)?.load(&Limits::DEFAULT).map_err(no_policy)?;
        let edited = policy.edited(edit, &Limits::DEFAULT)?;
        self.write(&path, &edited)
    }

    /// Writes the policy, or prints it.
    ///
    /// # Errors
    /// The file cannot be replaced.
    pub fn write(self, path: &Path, policy: &Policy) -> Outcome {
        if self.dry_run {
            output::exact(policy.text())?;
        } else {
            replace(path, policy.text())
                .map_err(|failure| failure.context(format!("write policy {}", path.display())))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the policy may be, for verbs that change it.
///
/// # Errors
/// With `--insecure-policy` there is nothing to change.
pub fn places(context: &Context) -> Result<&PolicyPlaces, Failure> {
    match &context.policy {
        PolicyChoice::Search(places) => Ok(places),
        PolicyChoice::Insecure => Err(Failure::message(
            Kind::InvalidInput,
            "change the policy: --insecure-policy goes without one",
        )),
    }
}

/// Where a policy is written if there is none.
pub fn new_path(places: &PolicyPlaces) -> PathBuf {
    let system = Path::new("/etc/containers/policy.json");
    let mut candidates = places.candidates();
    if rustix::process::geteuid().is_root() && candidates.iter().any(|path| path == system) {
        return system.to_owned();
    }
    candidates.swap_remove(0)
}

/// Replaces what the path leads to, a link staying a link; mode and owner stay.
#[expect(
    clippy::disallowed_methods,
    reason = "the administrator's own file: what a link leads to is what is read, and to be replaced"
)]
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let old = match std::fs::canonicalize(path) {
        Ok(path) => Some((std::fs::metadata(&path)?, path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let path = old.as_ref().map_or(path, |(_, path)| path);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::message(
            Kind::InvalidInput,
            "the path names no file",
        ));
    };
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    std::fs::create_dir_all(dir)?;
    let dir = File::open(dir)?;
    let mode = old
        .as_ref()
        .map_or(0o644, |(metadata, _)| metadata.mode() & 0o7777);
    let temporary = format!(".policy-{}", std::process::id());
    publish::atomic_write(
        &dir,
        name.as_bytes(),
        temporary.as_bytes(),
        Mode::from_raw_mode(mode),
        bytes,
    )?;
    if let Some((metadata, _)) = &old {
        let owner = (Some(metadata.uid()), Some(metadata.gid()));
        // Whoever may not give the file away owns it now, as with any other editor.
        drop(std::os::unix::fs::chown(path, owner.0, owner.1));
    }
    Ok(())
}
