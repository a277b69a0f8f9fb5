// SPDX-License-Identifier: Apache-2.0
//! Checkpoint and restore, through CRIU.
//!
//! ```text
//! checkpoint: state ─ plan again ─ words ──► criu dump ──► IMAGES/…, descriptors.json
//! restore:    plan ─ state ─ groups ─ clone ──► private mounts, root ─ criu restore ──► our child
//! ```
//!
//! The program is called by its command line, which is what its manual promises to keep; its other way in, messages of
//! protobuf over a socket, would take a library more and gives one thing beside: callbacks, by which a terminal's other
//! end could be handed over. So containers with a terminal are refused.
//!
//! Control groups are ours: the restored processes begin in groups that were made as for a new container, unless a mode
//! of CRIU's own is asked for.
//!
//! # Source
//! `criu(8)`; the command line of runc.

pub mod checkpoint;
pub mod restore;
mod words;

use std::path::{Path, PathBuf};

use super::error::RuntimeError;

pub use words::{ManageCgroups, PageServer};

/// What standard streams were, beside the images; runc's name and form.
const DESCRIPTORS: &str = "descriptors.json";

/// What both ways have in common.
#[derive(Debug, Clone, Default)]
pub struct CriuOptions {
    /// CRIU, where it is not found by its name.
    pub program: Option<PathBuf>,
    /// Where the images are; absolute.
    pub images: PathBuf,
    /// Where logs and statistics go; where the images are if not said.
    pub work: Option<PathBuf>,
    /// Connections of TCP are kept.
    pub tcp_established: bool,
    /// Those that are being made are passed over.
    pub tcp_skip_in_flight: bool,
    /// Unix sockets may have their other end outside.
    pub ext_unix_sockets: bool,
    /// Session and process group may be somebody else's.
    pub shell_job: bool,
    /// Locks of files are kept.
    pub file_locks: bool,
    /// What becomes of control groups.
    pub manage_cgroups: ManageCgroups,
    /// Memory that is in an earlier image is removed from it.
    pub auto_dedup: bool,
    /// Memory is fetched when it is needed.
    pub lazy_pages: bool,
    /// Network namespaces are kept empty.
    pub empty_network: bool,
}

impl CriuOptions {
    fn work(&self) -> &Path {
        self.work.as_deref().unwrap_or(&self.images)
    }

    /// Where the program is.
    fn find(&self, search: &[PathBuf]) -> Result<PathBuf, RuntimeError> {
        let named = self.program.as_deref().unwrap_or_else(|| Path::new("criu"));
        if named.components().count() > 1 {
            return Ok(named.to_owned());
        }
        let mut places = search.iter().map(|dir| dir.join(named));
        places.find(|path| path.is_file()).ok_or(RuntimeError::Unsupported(
            "checkpoint and restore need the program criu, which is not installed (Debian's package criu)",
        ))
    }
}

/// What CRIU said went wrong: the first error of its log that says what, as later ones follow from it.
fn reason(log: &str) -> Option<&str> {
    // What it tries beforehand, to see what this kernel has.
    const TRIED: [&str; 3] = ["FAILED", "/tun.c:", ": rlimit: "];
    let is_news = |line: &&str| !TRIED.iter().any(|tried| line.contains(tried));
    let mut errors = log
        .lines()
        .filter(|line| line.contains("Error ("))
        .filter(is_news);
    // `(00.1)      1: Error (criu/x.c:7): what`
    errors
        .next()?
        .split_once("Error (")?
        .1
        .split_once("): ")
        .map(|(_, text)| text)
}

fn failed(doing: &'static str, options: &CriuOptions, log: &str) -> RuntimeError {
    let path = options.work().join(log);
    let text = std::fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = reason(&text).unwrap_or("it does not say why");
    RuntimeError::Criu {
        doing,
        reason: reason.to_owned(),
        log: path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_error_that_says_what_is_told() {
        let log = "(00.01) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: no\n\
                   (00.02) Error (criu/files-reg.c:1790): Can't lookup mount=24 for fd=0 path=/x\n\
                   (00.03)      1: Warn  (criu/x.c:2): something\n\
                   (00.03)      1: Error (criu/y.c:2): what follows\n\
                   (00.04) Error (criu/cr-dump.c:2128): Dumping FAILED.\n";
        assert_eq!(reason(log), Some("Can't lookup mount=24 for fd=0 path=/x"));
        assert_eq!(reason("nothing\n"), None);
    }

    #[test]
    fn missing_program_is_a_clear_refusal() {
        let error = CriuOptions::default()
            .find(&["/no/such/dir".into()])
            .unwrap_err();
        assert!(error.to_string().contains("not installed"), "{error}");
    }
}
