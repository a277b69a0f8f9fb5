// SPDX-License-Identifier: Apache-2.0
//! Subordinate ids (`/etc/subuid`, `/etc/subgid`) for one command, without touching the machine's own files.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Who is a user in tests: every system has one.
pub const USER: &str = "nobody";
/// Where [`user_command`] shows its directory.
pub const HOME: &str = "/mnt";

/// The command `program`, which sees `ids` in both files; it runs in a mount namespace of its own.
///
/// # Errors
/// This machine has no such files to put ours over.
pub fn command(dir: &Path, ids: &str, program: &str) -> Result<Command> {
    const SCRIPT: &str =
        r#"mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && exec "$@""#;
    for path in ["/etc/subuid", "/etc/subgid"] {
        ensure!(Path::new(path).is_file(), "there is no {path}");
    }
    let file = dir.join("subordinate-ids");
    std::fs::write(&file, ids).with_context(|| format!("write {}", file.display()))?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", SCRIPT])
        .arg(file)
        .arg(program);
    Ok(command)
}

/// The command `program` as [`USER`] with `ids`, whose home is `dir`, shown at [`HOME`].
///
/// # Errors
/// As of [`command`].
pub fn user_command(dir: &Path, ids: &str, program: &str) -> Result<Command> {
    const SCRIPT: &str = r#"mount --bind "$0" "$HOME" && cd "$HOME" && exec setpriv --reuid "$USER" --regid nogroup --clear-groups "$@""#;
    let mut command = command(dir, ids, "sh")?;
    command
        .args(["-c", SCRIPT])
        .arg(dir)
        .arg(program)
        .env("HOME", HOME)
        .env("USER", USER)
        .env("XDG_RUNTIME_DIR", Path::new(HOME).join("run"))
        .env_remove("DBUS_SESSION_BUS_ADDRESS");
    Ok(command)
}
