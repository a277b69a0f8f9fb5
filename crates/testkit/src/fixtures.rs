// SPDX-License-Identifier: Apache-2.0
//! The images that `make fixtures` builds from Debian packages: one OCI layout a directory, its tag `latest`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where the fixtures lie: `$GANTRY_FIXTURES`, else `fixtures/` at the root of the workspace.
pub fn dir() -> PathBuf {
    std::env::var_os("GANTRY_FIXTURES")
        .map_or_else(|| workspace_root().join("fixtures"), PathBuf::from)
}

/// The root of the workspace that this crate was built in.
pub fn workspace_root() -> &'static Path {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).unwrap_or(crate_dir)
}

/// The layout of the fixture `name`; an error that says how to make it if it is not there.
pub fn layout(name: &str) -> Result<PathBuf> {
    let path = dir().join(name);
    if !path.join("index.json").is_file() {
        bail!(
            "no fixture {name} in {}: run `make fixtures`",
            dir().display()
        );
    }
    Ok(path)
}

/// The fixture as skopeo and our own transports spell it: `oci:PATH:latest`.
pub fn reference(name: &str) -> Result<String> {
    Ok(format!("oci:{}:latest", layout(name)?.display()))
}
