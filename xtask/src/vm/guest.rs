// SPDX-License-Identifier: Apache-2.0
//! The guest: built once, kept for all clones of the repository.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use gantry_testkit::fixtures::workspace_root;

/// What a machine boots.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) disk: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

/// Builds the guest unless one was built by the very same script.
pub(super) fn ensure(again: bool) -> Result<Guest> {
    let script = workspace_root().join("vm/root.sh");
    let text = fs::read(&script).with_context(|| format!("read {}", script.display()))?;
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let dir = cache.join(crate::fixtures::hex_digest(&text));
    let guest = Guest {
        disk: dir.join("disk.ext4"),
        kernel: dir.join("vmlinuz"),
        initrd: dir.join("initrd"),
    };
    if again && dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("forget {}", dir.display()))?;
    }
    if guest.disk.is_file() {
        return Ok(guest);
    }
    println!("vm: building the guest (some minutes, once)");
    let started = Instant::now();
    let staging = tempfile::tempdir_in(&cache)?;
    let status = Command::new("bash")
        .arg(&script)
        .arg(staging.path())
        .status()
        .context("start bash")?;
    ensure!(status.success(), "vm/root.sh: {status}");
    forget_others(&cache, staging.path());
    fs::rename(staging.keep(), &dir).with_context(|| format!("keep {}", dir.display()))?;
    println!("vm: guest built in {} s", started.elapsed().as_secs());
    Ok(guest)
}

/// Guests of scripts that are no more, each a gigabyte.
fn forget_others(cache: &std::path::Path, staging: &std::path::Path) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path != staging && path.join("disk.ext4").is_file() {
            // It is only space.
            drop(fs::remove_dir_all(&path));
        }
    }
}

fn cache_dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("gantry/vm"))
}
