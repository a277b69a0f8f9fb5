// SPDX-License-Identifier: Apache-2.0
//! `checkpoint` and `restore`.

use std::path::PathBuf;

use gantry_runtime::oci::Context;
use gantry_runtime::oci::criu::checkpoint::{CheckpointOptions, checkpoint as write};
use gantry_runtime::oci::criu::restore::{RestoreOptions, restore as read};
use gantry_runtime::oci::criu::{CriuOptions, ManageCgroups};

use super::words::Words;
use super::{Answer, Failure, create, one_id};

const IMAGES: &str = "checkpoint";

fn options(global: &Words, words: &Words) -> Result<CriuOptions, Failure> {
    let absolute = |path: &std::ffi::OsStr| {
        std::path::absolute(path).map_err(|error| Failure::Usage(format!("{path:?}: {error}")))
    };
    let manage_cgroups = match words.text("manage-cgroups-mode")? {
        None | Some("") => ManageCgroups::default(),
        Some(text) => text.parse()?,
    };
    let empty_network = match words.text("empty-ns")? {
        None => false,
        Some("network") => true,
        Some(other) => {
            return Err(Failure::Usage(format!(
                "--empty-ns: network is the only one, not {other:?}"
            )));
        }
    };
    Ok(CriuOptions {
        program: global
            .get("criu")
            .filter(|path| !path.is_empty())
            .map(Into::into),
        images: absolute(words.get("image-path").unwrap_or(IMAGES.as_ref()))?,
        work: words
            .get("work-path")
            .filter(|path| !path.is_empty())
            .map(absolute)
            .transpose()?,
        tcp_established: words.has("tcp-established"),
        tcp_skip_in_flight: words.has("tcp-skip-in-flight"),
        ext_unix_sockets: words.has("ext-unix-sk"),
        shell_job: words.has("shell-job"),
        file_locks: words.has("file-locks"),
        manage_cgroups,
        auto_dedup: words.has("auto-dedup"),
        lazy_pages: words.has("lazy-pages"),
        empty_network,
    })
}

/// Where programs are looked for: the caller's path, and where Debian puts this one.
fn search() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .collect();
    dirs.push("/usr/sbin".into());
    dirs
}

/// `checkpoint`.
pub(super) fn checkpoint(context: &Context<'_>, global: &Words, words: &Words) -> Answer {
    let wanted = CheckpointOptions {
        leave_running: words.has("leave-running"),
        pre_dump: words.has("pre-dump"),
        link_remap: words.has("link-remap"),
        parent: words
            .get("parent-path")
            .filter(|path| !path.is_empty())
            .map(Into::into),
        page_server: words.text("page-server")?.map(str::parse).transpose()?,
    };
    write(
        context,
        one_id(words)?,
        &options(global, words)?,
        &wanted,
        &search(),
    )?;
    Ok(0)
}

/// `restore`.
pub(super) fn restore(context: &Context<'_>, global: &Words, words: &Words) -> Answer {
    let text = |name: &str| -> Result<Option<String>, Failure> {
        Ok(words
            .text(name)?
            .filter(|text| !text.is_empty())
            .map(str::to_owned))
    };
    let wanted = RestoreOptions {
        lsm_profile: text("lsm-profile")?,
        lsm_mount_context: text("lsm-mount-context")?,
    };
    let made = create::options(words)?;
    let mode = create::mode(words);
    let criu = options(global, words)?;
    Ok(read(
        context,
        one_id(words)?,
        &made,
        mode,
        &criu,
        &wanted,
        &search(),
    )?)
}
