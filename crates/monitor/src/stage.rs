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
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gantry_runtime::spec::{self, RootfsFacts};
use gantry_runtime::supervise::MonitorPlan;
use gantry_runtime::{prepare, volume};
use gantry_sys::Errno;
use gantry_sys::mount;
use gantry_sys::root::RootDir;
use gantry_sys::rootfs::{RootfsPlan, RootfsUpper};
use rustix::fs::{Gid, Mode, Uid};

use crate::Failure;

/// Room for the few directories that a read-only rootfs may lack.
const SCAFFOLD_MAX_BYTES: u64 = 1 << 20;

fn rootfs(plan: &MonitorPlan) -> PathBuf {
    plan.state_dir.join("rootfs")
}

fn scaffold(plan: &MonitorPlan) -> PathBuf {
    plan.state_dir.join("scaffold")
}

fn io_failure(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let doing = format!("{doing} {}", path.display());
    move |error| Failure::refused(&doing, &error)
}

/// Makes the bundle.
pub(crate) fn stage(plan: &MonitorPlan) -> Result<(), Failure> {
    enter(plan)?;
    let root = mount_rootfs(plan)?;
    fill_volumes(plan, &root)?;
    write_bundle(plan, &root)
}

/// Enters a mount namespace that looks as the runtime needs it.
pub(crate) fn enter(plan: &MonitorPlan) -> Result<(), Failure> {
    mount::enter_private_namespace()
        .map_err(|error| Failure::refused("make a mount namespace", &error))?;
    for path in &plan.hidden_mounts {
        match mount::unmount(path) {
            Err(error) if !error.is(Errno::INVAL) && !error.is(Errno::NOENT) => {
                return Err(Failure::refused("hide a mount from the runtime", &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes the mounts back; false if one of them stays.
pub(crate) fn unmount(plan: &MonitorPlan) -> bool {
    [rootfs(plan), scaffold(plan)].iter().all(|path| {
        !path.exists()
            || match mount::unmount(path) {
                Ok(()) => true,
                // Nothing is mounted there.
                Err(error) => error.is(Errno::INVAL) || error.is(Errno::NOENT),
            }
    })
}

fn mount_rootfs(plan: &MonitorPlan) -> Result<RootDir, Failure> {
    let target = rootfs(plan);
    fs::create_dir(&target).map_err(io_failure("create", &target))?;
    let read_only = RootfsPlan {
        lower: plan.rootfs.lower.clone(),
        upper: None,
    };
    let root = mount_at(plan, &read_only, &target)?;
    prepare::check_reserved(&root)?;
    let upper = match &plan.rootfs.upper {
        Some(upper) => upper.clone(),
        None if prepare::find_missing(&root, plan.draft.spec())?.is_empty() => return Ok(root),
        None => mount_scaffold(plan)?,
    };
    make_upper(&upper, &target)?;
    drop(root);
    mount::unmount(&target).map_err(|error| Failure::refused("mount the image again", &error))?;
    let writable = RootfsPlan {
        lower: plan.rootfs.lower.clone(),
        upper: Some(upper),
    };
    mount_at(plan, &writable, &target)
}

fn mount_at(plan: &MonitorPlan, rootfs: &RootfsPlan, target: &Path) -> Result<RootDir, Failure> {
    rootfs
        .mount(&plan.features, Some(target))
        .and_then(|mounted| mount::attach(&mounted, target))
        .and_then(|()| RootDir::open_trusted(target))
        .map_err(|error| Failure::refused("mount the image", &error))
}

/// Memory for the mount points that the image lacks: the runtime makes them there, and the root is
/// read-only again before the program runs.
fn mount_scaffold(plan: &MonitorPlan) -> Result<RootfsUpper, Failure> {
    let path = scaffold(plan);
    fs::create_dir(&path).map_err(io_failure("create", &path))?;
    mount::tmpfs(SCAFFOLD_MAX_BYTES, 0o700)
        .and_then(|mounted| mount::attach(&mounted, &path))
        .map_err(|error| Failure::refused("mount memory for missing directories", &error))?;
    Ok(RootfsUpper {
        upper: path.join("upper"),
        work: path.join("work"),
    })
}

/// The root directory of an overlay looks like its upper directory, so that has to look like the
/// image's.
fn make_upper(upper: &RootfsUpper, image: &Path) -> Result<(), Failure> {
    let like = fs::metadata(image).map_err(io_failure("look at", image))?;
    for (path, mode) in [(&upper.upper, like.mode() & 0o7777), (&upper.work, 0o700)] {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        made.map_err(io_failure("create", path))?;
        let dir = RootDir::open_trusted(path)
            .map_err(|error| Failure::refused("open the writable layer", &error))?;
        let owner = (Uid::from_raw(like.uid()), Gid::from_raw(like.gid()));
        rustix::fs::fchown(&dir, Some(owner.0), Some(owner.1))
            .and_then(|()| rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)))
            .map_err(|errno| io_failure("set the owner of", path)(errno.into()))?;
    }
    Ok(())
}

/// Volumes that exist (a container that is started again) keep what they hold.
fn fill_volumes(plan: &MonitorPlan, root: &RootDir) -> Result<(), Failure> {
    for wanted in &plan.draft.volumes {
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

fn write_bundle(plan: &MonitorPlan, root: &RootDir) -> Result<(), Failure> {
    let identity = prepare::find_identity(root, &plan.draft)?;
    let facts = RootfsFacts {
        occupied: prepare::find_occupied(root, plan.draft.spec())?,
        identity,
    };
    let spec = plan.draft.clone().finish(&facts);
    prepare::find_program(root, &spec)?;
    prepare::make_workdir(root, &spec, &facts.identity)?;
    for file in &plan.draft.files {
        write(
            &plan.state_dir.join(&file.name),
            0o644,
            file.content.as_bytes(),
        )?;
    }
    let document = spec::to_bytes(&spec)
        .map_err(|error| Failure::refused("write the runtime document", &error))?;
    write(&plan.state_dir.join("config.json"), 0o600, &document)
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
