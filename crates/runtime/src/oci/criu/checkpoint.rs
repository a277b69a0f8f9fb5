// SPDX-License-Identifier: Apache-2.0
//! `checkpoint`: a container's processes become files.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gantry_sys::root::RootDir;
use rustix::fs::FileType;

use super::super::error::{Doing as _, RuntimeError};
use super::super::launch::{Context, parse_document};
use super::super::plan::{self, Plan};
use super::super::show::show;
use super::super::state::{Record, StateDir, Status};
use super::super::{delete, facts};
use super::words::{self, DUMP_LOG, Dump, PageServer};
use super::{CriuOptions, DESCRIPTORS, failed};

/// What `checkpoint` is told beside.
#[derive(Debug, Clone, Default)]
pub struct CheckpointOptions {
    /// The container goes on.
    pub leave_running: bool,
    /// Memory only, in advance of the checkpoint; the container goes on.
    pub pre_dump: bool,
    /// Files that were removed are linked again meanwhile.
    pub link_remap: bool,
    /// An earlier image, relative to the images.
    pub parent: Option<PathBuf>,
    /// Where memory is sent.
    pub page_server: Option<PageServer>,
}

/// Writes a container's processes into images; the container ends by it unless it is to go on.
///
/// # Errors
/// It does not run; CRIU is not there, or refuses.
pub fn checkpoint(
    context: &Context<'_>,
    id: &str,
    options: &CriuOptions,
    wanted: &CheckpointOptions,
    search: &[PathBuf],
) -> Result<(), RuntimeError> {
    let shown = show(context, id)?;
    if shown.status != Status::Running {
        return Err(RuntimeError::Status {
            verb: "checkpoint",
            id: id.to_owned(),
            status: shown.status,
        });
    }
    let record = shown.record;
    let plan = plan_again(context, id, &record)?;
    if plan.process.terminal.is_some() {
        return Err(RuntimeError::Unsupported(
            "a container with a terminal cannot be checkpointed: the terminal's other end is another program's",
        ));
    }
    let program = options.find(search)?;
    for dir in [&options.images, &options.work().to_owned()] {
        std::fs::create_dir_all(dir).doing(|| format!("create {}", dir.display()))?;
    }
    if !wanted.pre_dump {
        keep_streams(&record, &options.images)?;
    }
    let mounted = mounted_files(&plan, record.pid)?;
    let outside = words::joined(&plan)?
        .into_iter()
        .map(|(kind, _)| {
            let path = format!("/proc/{}/ns/{}", record.pid, kind.link());
            let metadata = std::fs::metadata(&path).doing(|| format!("look at {path}"))?;
            Ok((kind, metadata.ino()))
        })
        .collect::<Result<Vec<_>, RuntimeError>>()?;
    let dump = Dump {
        pid: record.pid,
        in_advance: wanted.pre_dump,
        leave_running: wanted.leave_running,
        link_remap: wanted.link_remap,
        parent: wanted.parent.as_deref(),
        page_server: wanted.page_server.as_ref(),
        mounted: &mounted,
        outside: &outside,
    };
    let status = Command::new(&program)
        .args(words::dump(options, &plan, &dump))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .doing(|| format!("run {}", program.display()))?;
    if !status.success() {
        return Err(failed("checkpoint the container", options, DUMP_LOG));
    }
    if wanted.leave_running || wanted.pre_dump {
        return Ok(());
    }
    // Whoever waited for its end may have removed it already.
    delete::delete(context, id, true)
}

/// The plan of a container that is there.
fn plan_again(context: &Context<'_>, id: &str, record: &Record) -> Result<Plan, RuntimeError> {
    let state = StateDir::open(&context.root, id)?;
    let spec = parse_document(&state.config()?)
        .map_err(std::io::Error::from)
        .doing(|| "read the document that was kept")?;
    let facts = facts::probe(spec.process().as_ref(), context.rootless)?;
    if facts.rootless {
        return Err(RuntimeError::Unsupported(
            "checkpoint and restore take root's rights",
        ));
    }
    Ok(plan::plan(&spec, &record.bundle, &facts)?)
}

/// Remembers what standard streams were: pipes of the caller get new ends when the container is restored.
fn keep_streams(record: &Record, images: &Path) -> Result<(), RuntimeError> {
    let doing = || "look at the container's standard streams";
    let streams = (0..3)
        .map(|fd| std::fs::read_link(format!("/proc/{}/fd/{fd}", record.pid)))
        .map(|link| Ok(link.doing(doing)?.to_string_lossy().into_owned()))
        .collect::<Result<Vec<String>, RuntimeError>>()?;
    let text = serde_json::to_vec(&streams)
        .map_err(std::io::Error::from)
        .doing(doing)?;
    let path = images.join(DESCRIPTORS);
    std::fs::write(&path, text).doing(|| format!("write {}", path.display()))
}

/// The places in a container at which something of the host is mounted: what is hidden is shown as the host's null
/// device if it is a file, and as memory, which is the container's own, if it is a directory.
fn mounted_files(plan: &Plan, pid: u32) -> Result<Vec<PathBuf>, RuntimeError> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let root = RootDir::open_trusted(format!("/proc/{pid}/root").as_ref())
        .doing(|| "open the container's root")?;
    let is_own = |place: &PathBuf| -> Result<bool, RuntimeError> {
        if !plan.masked_paths.iter().any(|step| step.path == *place) {
            return Ok(false);
        }
        let stat = root.stat(place.as_os_str().as_bytes());
        let stat = stat.doing(|| format!("look at {} of the container", place.display()))?;
        Ok(stat.is_none_or(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
    };
    let mut places = Vec::new();
    for place in text.lines().filter_map(mount_point) {
        if !is_own(&place)? {
            places.push(place);
        }
    }
    Ok(places)
}

/// The fifth field, in which blanks and their kin are `\` and three octal digits.
fn mount_point(line: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let field = line.split(' ').nth(4)?.as_bytes();
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        let digits = field.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let value =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*byte));
        at += if value.is_some() { 4 } else { 1 };
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let line = "70 43 0:40 / /a\\040b\\134c rw,relatime - proc proc rw";
        assert_eq!(mount_point(line), Some("/a b\\c".into()));
        assert_eq!(mount_point("70 43"), None);
    }
}
