// SPDX-License-Identifier: Apache-2.0
//! Everything between a plan and an OCI bundle that a runtime can start.
//!
//! ```text
//! private mount namespace ─ hidden mounts away
//!   └─ rootfs, read-only ─ is anything missing, or is it writable?
//!        └─ yes: again, with an upper directory (on disk if writable, else in memory)
//!             └─ volumes filled ─ identity ─ config.json, hostname, hosts
//! ```

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gantry_runtime::spec::{self, RootfsFacts};
use gantry_runtime::supervise::{ContainerWork, WindowSize};
use gantry_runtime::{prepare, volume};
use gantry_sys::Errno;
use gantry_sys::mount;
use gantry_sys::root::RootDir;
use gantry_sys::rootfs::{RootfsPlan, RootfsUpper};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::Failure;

/// Room for the few directories that a read-only rootfs may lack.
const SCAFFOLD_MAX_BYTES: u64 = 1 << 20;

fn io_failure(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let doing = format!("{doing} {}", path.display());
    move |error| Failure::refused(&doing, &error)
}

/// Makes the bundle; answers a mount of the image that is not needed any more.
pub(crate) fn stage(
    work: &ContainerWork,
    dir: &Path,
    terminal: Option<WindowSize>,
) -> Result<OwnedFd, Failure> {
    let (root, image) = mount_rootfs(work)?;
    fill_volumes(work, &root)?;
    write_bundle(work, dir, &root, terminal)?;
    Ok(image)
}

/// Enters a mount namespace that looks as the runtime needs it.
pub(crate) fn enter(hidden_mounts: &[PathBuf]) -> Result<(), Failure> {
    mount::enter_private_namespace()
        .map_err(|error| Failure::refused("make a mount namespace", &error))?;
    for path in hidden_mounts {
        match mount::unmount(path) {
            Err(error) if !error.is(Errno::INVAL) && !error.is(Errno::NOENT) => {
                return Err(Failure::refused("hide a mount from the runtime", &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn mount_rootfs(work: &ContainerWork) -> Result<(RootDir, OwnedFd), Failure> {
    let read_only = RootfsPlan {
        lower: work.rootfs.lower.clone(),
        upper: None,
    };
    // Looked at while it is attached nowhere.
    let (image, root) = mount(work, &read_only)?;
    prepare::check_reserved(&root)?;
    let upper = match &work.rootfs.upper {
        Some(upper) => upper.clone(),
        None if prepare::find_missing(&root, work.draft.spec())?.is_empty() => {
            attach(&image, &work.rootfs_dir)?;
            return Ok((root, image));
        }
        None => mount_scaffold(work)?,
    };
    make_upper(&upper, &root)?;
    let writable = RootfsPlan {
        lower: work.rootfs.lower.clone(),
        upper: Some(upper),
    };
    let (mounted, root) = mount(work, &writable)?;
    attach(&mounted, &work.rootfs_dir)?;
    Ok((root, image))
}

fn mount(work: &ContainerWork, rootfs: &RootfsPlan) -> Result<(OwnedFd, RootDir), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::refused("mount the image", error);
    let mounted = rootfs
        .mount(&work.features, Some(&work.rootfs_dir))
        .map_err(|error| failed(&error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&mounted, ".", flags, Mode::empty())
        .map_err(|errno| failed(&std::io::Error::from(errno)))?;
    Ok((mounted, RootDir::from_fd(root)))
}

fn attach(mounted: &OwnedFd, target: &Path) -> Result<(), Failure> {
    mount::attach(mounted, target).map_err(|error| Failure::refused("mount the image", &error))
}

/// Memory for the mount points that the image lacks: the runtime makes them there, and the root is
/// read-only again before the program runs.
fn mount_scaffold(work: &ContainerWork) -> Result<RootfsUpper, Failure> {
    let path = &work.scaffold_dir;
    mount::tmpfs(SCAFFOLD_MAX_BYTES, 0o700)
        .and_then(|mounted| mount::attach(&mounted, path))
        .map_err(|error| Failure::refused("mount memory for missing directories", &error))?;
    Ok(RootfsUpper {
        upper: path.join("upper"),
        work: path.join("work"),
    })
}

/// The root directory of an overlay looks like its upper directory, so that has to look like the
/// image's.
fn make_upper(upper: &RootfsUpper, image: &RootDir) -> Result<(), Failure> {
    let like = rustix::fs::fstat(image)
        .map_err(|errno| Failure::refused("look at the image", &std::io::Error::from(errno)))?;
    for (path, mode) in [(&upper.upper, like.st_mode & 0o7777), (&upper.work, 0o700)] {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        made.map_err(io_failure("create", path))?;
        let dir = RootDir::open_trusted(path)
            .map_err(|error| Failure::refused("open the writable layer", &error))?;
        let owner = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
        rustix::fs::fchown(&dir, Some(owner.0), Some(owner.1))
            .and_then(|()| rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)))
            .map_err(|errno| io_failure("set the owner of", path)(errno.into()))?;
    }
    Ok(())
}

/// Volumes that exist (a container that is started again) keep what they hold.
fn fill_volumes(work: &ContainerWork, root: &RootDir) -> Result<(), Failure> {
    for wanted in &work.draft.volumes {
        let dir = wanted.dir.join("merged");
        if dir.exists() {
            continue;
        }
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&dir);
        made.map_err(io_failure("create", &dir))?;
        RootDir::open_trusted(&dir)
            .and_then(|to| volume::fill(root, &wanted.target, &to))
            .map_err(|error| Failure::refused(&format!("fill volume {}", wanted.target), &error))?;
    }
    Ok(())
}

fn write_bundle(
    work: &ContainerWork,
    dir: &Path,
    root: &RootDir,
    terminal: Option<WindowSize>,
) -> Result<(), Failure> {
    let identity = prepare::find_identity(root, work.draft.user(), work.draft.extra_groups())?;
    let facts = RootfsFacts {
        occupied: prepare::find_occupied(root, work.draft.spec())?,
        identity,
    };
    let mut spec = work.draft.clone().finish(&facts);
    if let (Some(process), Some(size)) = (spec.process_mut(), terminal) {
        // The program may ask before we have the terminal.
        process.set_console_size(Some(size.to_document()));
    }
    prepare::find_program(root, &spec)?;
    prepare::make_workdir(root, &spec, &facts.identity)?;
    for file in &work.draft.files {
        write(&dir.join(&file.name), 0o644, file.content.as_bytes())?;
    }
    let document = spec::to_bytes(&spec)
        .map_err(|error| Failure::refused("write the runtime document", &error))?;
    write(&dir.join("config.json"), 0o600, &document)
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(io_failure("write", path))
}
