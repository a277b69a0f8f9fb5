// SPDX-License-Identifier: Apache-2.0
//! One static busybox as a root file system, for tests that ask what a container sees and not what is in an image.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tar;

/// Debian's busybox-static.
pub const BUSYBOX: &str = "/bin/busybox";

/// The archive of a root file system with busybox under the names `applets`, and `files`.
///
/// # Errors
/// busybox-static is not installed.
pub fn archive(applets: &[&str], files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let program = std::fs::read(Path::new(BUSYBOX)).context("busybox-static is not installed")?;
    let mut parts = vec![
        tar::dir("bin"),
        tar::dir("etc"),
        tar::mode(tar::dir("tmp"), 0o1777),
        tar::mode(tar::file("bin/busybox", program), 0o755),
    ];
    parts.extend(
        applets
            .iter()
            .map(|applet| tar::symlink(format!("bin/{applet}"), "busybox")),
    );
    parts.extend(
        files
            .iter()
            .map(|(name, contents)| tar::file(name, contents)),
    );
    Ok(tar::join(&parts))
}
