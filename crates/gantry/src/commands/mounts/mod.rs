// SPDX-License-Identifier: Apache-2.0
//! Verbs about what is mounted on this host to be looked at.

pub mod mount;
mod scratch;
pub mod unmount;
pub mod view;

use std::io;
use std::path::{Path, PathBuf};

/// The directory that an operator means, without links.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own path, in no image's tree"
)]
fn resolve_dir(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}
