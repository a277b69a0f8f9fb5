// SPDX-License-Identifier: Apache-2.0
//! cosign, versions 2 and 3, as `cargo xtask tools` builds them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tool;

/// The passphrase of every private key in tests.
pub const PASSPHRASE: &str = "secret";

/// One version of cosign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosign {
    program: PathBuf,
    /// 2 or 3.
    pub major: u32,
}

/// The versions that the tools directory holds: major number, version.
pub const VERSIONS: [(u32, &str); 2] = [(2, "v2.6.5"), (3, "v3.1.3")];

/// How to get what a test lacks.
pub const HOW: &str = "cosign is not built: cargo xtask tools";

/// Nobody but the key that is named.
const TRUSTED_ROOT: &str =
    r#"{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;

/// Where tools are kept that are built once for all clones.
#[must_use]
pub fn tools_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    cache
        .unwrap_or_else(|| PathBuf::from("/var/cache"))
        .join("gantry/tools")
}

impl Cosign {
    /// Both versions, or none.
    #[must_use]
    pub fn both() -> Option<[Self; 2]> {
        let [second, third] = VERSIONS.map(|(major, version)| Self {
            program: tools_dir().join(format!("cosign-{version}")),
            major,
        });
        (second.program.is_file() && third.program.is_file()).then_some([second, third])
    }

    /// Runs a command in a directory, without any service on the network.
    ///
    /// # Errors
    /// It fails.
    pub fn run<I: AsRef<OsStr>>(
        &self,
        dir: &Path,
        arguments: impl IntoIterator<Item = I>,
    ) -> Result<String> {
        let output = tool::run(
            Command::new(&self.program)
                .args(arguments)
                .current_dir(dir)
                .env("HOME", dir)
                .env("COSIGN_PASSWORD", PASSPHRASE),
        )?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Signs an image by digest with a key: an attachment, or a bundle where
    /// this version makes one.
    ///
    /// # Errors
    /// It fails.
    pub fn sign(&self, dir: &Path, key: &Path, image: &str, bundle: bool) -> Result<()> {
        let key = key.display().to_string();
        let mut arguments = vec!["sign", "--yes", "--key", &key, "--tlog-upload=false"];
        if self.major >= 3 {
            arguments.push("--use-signing-config=false");
            if !bundle {
                arguments.push("--new-bundle-format=false");
            }
        }
        arguments.push(image);
        self.run(dir, arguments).map(drop)
    }

    /// Verifies an image's attachment or bundle by a key.
    ///
    /// # Errors
    /// It refuses.
    pub fn verify(&self, dir: &Path, key: &Path, image: &str, bundle: bool) -> Result<String> {
        let key = key.display().to_string();
        let mut arguments = vec!["verify", "--key", &key, "--insecure-ignore-tlog=true"];
        // Without it cosign asks its makers' server whom to trust.
        let root = dir.join("trusted-root.json");
        let root_text = root.display().to_string();
        if bundle {
            std::fs::write(&root, TRUSTED_ROOT)?;
            arguments.extend(["--new-bundle-format=true", "--trusted-root", &root_text]);
        } else {
            arguments.push("--new-bundle-format=false");
        }
        arguments.push(image);
        self.run(dir, arguments)
    }
}
