// SPDX-License-Identifier: Apache-2.0
//! What a mounted rootfs tells about its container, and what it lacks.
//!
//! The monitor calls these functions inside its own mount namespace, between mounting the rootfs and
//! writing the document. Every name comes from an image or an option, so every look-up is confined to
//! the rootfs ([`RootDir`]), and files are read with a cap and only if they are regular.

use std::path::Path;

use gantry_oci::Kind;
use gantry_sys::root::{RootDir, type_at};
use gantry_sys::{Errno, SysError};
use oci_spec::runtime::Spec;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use std::io::Read as _;

use crate::identity::{
    self, IdOrName, Identity, ResolveIdentityError, UserRequest, resolve_identity,
};

/// Why a rootfs and a document do not go together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The user, or one of the groups, cannot be resolved.
    #[error("decide who runs the program")]
    Identity(#[from] ResolveIdentityError),
    /// The program is not there.
    #[error("find program {program:?} in the image{}", searched(path))]
    NoProgram {
        /// As written.
        program: String,
        /// The search path, unless the program is a path.
        path: Option<String>,
    },
    /// The program is there and cannot be executed.
    #[error("execute {program:?} of the image: it is {what}")]
    NotExecutable {
        /// As written.
        program: String,
        /// What it is instead.
        what: &'static str,
    },
    /// The image has a symlink where the kernel's file systems belong: runtimes have followed such
    /// links out of the root (CVE-2026-41579, CVE-2026-47766 and others before).
    #[error("use the image's root file system: its /{name} is {what}, not a directory")]
    Reserved {
        /// Which.
        name: &'static str,
        /// What it is instead.
        what: &'static str,
    },
    /// A file of the image is too large for what it is.
    #[error("read /etc/{name} of the image: larger than {max_bytes} bytes")]
    TooLarge {
        /// Which.
        name: &'static str,
        /// The cap.
        max_bytes: u64,
    },
    /// The kernel refused.
    #[error("look into the image's root file system")]
    Sys(#[from] SysError),
}

fn searched(path: &Option<String>) -> String {
    path.as_ref()
        .map(|path| format!(", searching {path}"))
        .unwrap_or_default()
}

impl PrepareError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Identity(error) => error.kind(),
            Self::NoProgram { .. } => Kind::NotFound,
            Self::NotExecutable { .. } => Kind::InvalidInput,
            Self::TooLarge { .. } | Self::Reserved { .. } => Kind::Unsafe,
            Self::Sys(error) => Kind::of_io(&error.source),
        }
    }

    /// The exit status by which podman's users know it, if it is about the program.
    #[must_use]
    pub fn status(&self) -> Option<u8> {
        match self {
            Self::NoProgram { .. } => Some(127),
            Self::NotExecutable { .. } => Some(126),
            _ => None,
        }
    }
}

/// Refuses a root in which a place of the kernel's file systems is anything but a directory or absent.
///
/// # Errors
/// [`PrepareError::Reserved`], the kernel's refusal.
pub fn check_reserved(root: &RootDir) -> Result<(), PrepareError> {
    for name in ["proc", "sys", "dev"] {
        let what = match type_at(root, name.as_bytes())? {
            None | Some(FileType::Directory) => continue,
            Some(FileType::Symlink) => "a symbolic link",
            Some(_) => "a file",
        };
        return Err(PrepareError::Reserved { name, what });
    }
    Ok(())
}

/// Reads a small regular file; empty if there is none.
fn read_account_file(root: &RootDir, name: &'static str) -> Result<Vec<u8>, PrepareError> {
    let path = format!("etc/{name}");
    let file = match root.open_file(path.as_bytes()) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let max_bytes = identity::MAX_FILE_BYTES;
    let too_large = || PrepareError::TooLarge { name, max_bytes };
    let read = |error: std::io::Error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        PrepareError::Sys(SysError::new("read", path.clone(), errno))
    };
    if !file.metadata().map_err(read)?.is_file() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    let count = file
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if count as u64 > max_bytes {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Not there, for one of the reasons that a path of an image may have.
fn is_absent(error: &SysError) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NXIO]
        .iter()
        .any(|errno| error.is(*errno))
}

/// The two files that name users and groups; empty where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// `etc/passwd`.
    pub passwd: Vec<u8>,
    /// `etc/group`.
    pub group: Vec<u8>,
}

/// Reads both files of a rootfs.
///
/// # Errors
/// Files of absurd size, the kernel's refusal.
pub fn read_accounts(root: &RootDir) -> Result<Accounts, PrepareError> {
    Ok(Accounts {
        passwd: read_account_file(root, "passwd")?,
        group: read_account_file(root, "group")?,
    })
}

/// Resolves a user, and extra groups, against the rootfs.
///
/// # Errors
/// A name that is not there, files of absurd shape, the kernel's refusal.
pub fn find_identity(
    root: &RootDir,
    user: &UserRequest,
    extra_groups: &[IdOrName],
) -> Result<Identity, PrepareError> {
    let Accounts { passwd, group } = read_accounts(root)?;
    Ok(resolve_identity(user, extra_groups, &passwd, &group)?)
}

/// Lists the targets of memory file systems that hold something in the rootfs.
///
/// # Errors
/// The kernel's refusal.
pub fn find_occupied(root: &RootDir, spec: &Spec) -> Result<Vec<String>, PrepareError> {
    let mut occupied = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let copied = mount.options().iter().flatten().any(|o| o == "tmpcopyup");
        let target = mount.destination().to_string_lossy();
        if copied && holds_something(root, &target)? {
            occupied.push(target.into_owned());
        }
    }
    Ok(occupied)
}

fn holds_something(root: &RootDir, target: &str) -> Result<bool, PrepareError> {
    match root.list(target.as_bytes()) {
        Ok(names) => Ok(!names.is_empty()),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Lists what has to be made in the rootfs before the container can start: mount points that are
/// not there, and the working directory. Mount points below another mount are that mount's matter.
///
/// # Errors
/// The kernel's refusal.
pub fn find_missing(root: &RootDir, spec: &Spec) -> Result<Vec<String>, PrepareError> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let targets = mounts.iter().map(|mount| mount.destination().as_path());
    let cwd = spec
        .process()
        .as_ref()
        .map(|process| process.cwd().as_path());
    let mut missing = Vec::new();
    for target in targets.chain(cwd) {
        let covered = mounts.iter().any(|mount| {
            let over = mount.destination().as_path();
            target != over && target.starts_with(over) || cwd == Some(target) && target == over
        });
        if !covered && !exists(root, target)? {
            missing.push(target.to_string_lossy().into_owned());
        }
    }
    Ok(missing)
}

fn exists(root: &RootDir, path: &Path) -> Result<bool, PrepareError> {
    let text = path.to_string_lossy();
    match root.open(text.as_bytes(), OFlags::PATH, Mode::empty()) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the working directory, owned by the container's user, as podman does.
///
/// # Errors
/// The kernel's refusal; `ENOTDIR` for a symlink on the way.
pub fn make_workdir(root: &RootDir, spec: &Spec, identity: &Identity) -> Result<(), PrepareError> {
    let Some(process) = spec.process() else {
        return Ok(());
    };
    let cwd = process.cwd();
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let covered = mounts
        .iter()
        .any(|mount| cwd.starts_with(mount.destination()));
    if covered || exists(root, cwd)? {
        return Ok(());
    }
    let dir = root.ensure_dir(cwd.to_string_lossy().as_bytes(), Mode::from_raw_mode(0o755))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::fs::fchown(&dir, Some(uid), Some(gid))
        .map_err(|errno| SysError::new("fchown", cwd.display().to_string(), errno).into())
}

/// Looks for the program as the runtime will, where the rootfs alone decides.
///
/// A program that a mount may bring is not judged.
///
/// # Errors
/// [`PrepareError::NoProgram`], [`PrepareError::NotExecutable`], the kernel's refusal.
pub fn find_program(root: &RootDir, spec: &Spec) -> Result<(), PrepareError> {
    let Some(process) = spec.process() else {
        return Ok(());
    };
    let Some(program) = process.args().iter().flatten().next() else {
        return Ok(());
    };
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let on_a_mount = |path: &str| {
        mounts
            .iter()
            .any(|mount| Path::new(path).starts_with(mount.destination()))
    };
    let (candidates, path) = if program.contains('/') {
        let base = if program.starts_with('/') {
            String::new()
        } else {
            process.cwd().to_string_lossy().into_owned()
        };
        (vec![format!("{base}/{program}")], None)
    } else {
        let path = process
            .env()
            .iter()
            .flatten()
            .find_map(|pair| pair.strip_prefix("PATH="))
            .unwrap_or_default();
        let candidates = path
            .split(':')
            .map(|dir| format!("{dir}/{program}"))
            .collect();
        (candidates, Some(path.to_owned()))
    };
    let mut unfit = None;
    for candidate in &candidates {
        if on_a_mount(candidate) {
            return Ok(());
        }
        match judge_program(root, candidate)? {
            Program::Absent => {}
            Program::Fit => return Ok(()),
            Program::Unfit(what) => unfit = unfit.or(Some(what)),
        }
    }
    let program = program.clone();
    Err(match unfit {
        Some(what) => PrepareError::NotExecutable { program, what },
        None => PrepareError::NoProgram { program, path },
    })
}

enum Program {
    Absent,
    Fit,
    Unfit(&'static str),
}

fn judge_program(root: &RootDir, path: &str) -> Result<Program, PrepareError> {
    let file = match root.open(path.as_bytes(), OFlags::PATH, Mode::empty()) {
        Err(error) if is_absent(&error) => return Ok(Program::Absent),
        other => other?,
    };
    let stat =
        rustix::fs::fstat(&file).map_err(|errno| SysError::new("fstat", path.to_owned(), errno))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_mode & 0o111 != 0 => Program::Fit,
        FileType::RegularFile => Program::Unfit("not marked as executable"),
        FileType::Directory => Program::Unfit("a directory"),
        _ => Program::Unfit("not a regular file"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn spec(args: &[&str], cwd: &str, mounts: &[(&str, &[&str])]) -> Spec {
        let mounts: Vec<_> = mounts
            .iter()
            .map(|(target, options)| json!({"destination": target, "options": options}))
            .collect();
        serde_json::from_value(json!({
            "ociVersion": "1.0.2",
            "process": {"args": args, "cwd": cwd, "env": ["PATH=/bin:/opt/bin"], "user": {"uid": 0, "gid": 0}},
            "mounts": mounts,
        }))
        .unwrap()
    }

    fn image() -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "etc", "tmp/kept", "proc"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for (name, mode) in [("bin/sh", 0o755), ("bin/data", 0o644)] {
            fs::write(dir.path().join(name), "x").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let root = RootDir::open_trusted(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn program_is_found_or_judged() {
        let (dir, root) = image();
        symlink("/bin/sh", dir.path().join("bin/link")).unwrap();
        // Leads out of the image unless the look-up is confined.
        symlink("../../../../../../bin/ls", dir.path().join("bin/escape")).unwrap();
        let judge = |program: &str| {
            find_program(&root, &spec(&[program], "/bin", &[("/mnt", &[])]))
                .map_err(|error| error.to_string())
        };
        for program in ["sh", "/bin/sh", "./sh", "link", "/mnt/anything"] {
            assert_eq!(judge(program), Ok(()), "{program}");
        }
        for (program, text) in [
            (
                "nope",
                "find program \"nope\" in the image, searching /bin:/opt/bin",
            ),
            ("/bin/nope", "find program \"/bin/nope\" in the image"),
            (
                "data",
                "execute \"data\" of the image: it is not marked as executable",
            ),
            ("/etc", "execute \"/etc\" of the image: it is a directory"),
            (
                "escape",
                "find program \"escape\" in the image, searching /bin:/opt/bin",
            ),
        ] {
            assert_eq!(judge(program), Err(text.to_owned()), "{program}");
        }
    }

    #[test]
    fn missing_and_occupied_are_told_apart() {
        let (_dir, root) = image();
        let spec = spec(
            &["sh"],
            "/srv/app",
            &[
                ("/proc", &[]),
                ("/dev", &[]),
                ("/dev/pts", &[]),
                ("/etc/hosts", &[]),
                ("/tmp", &["tmpcopyup"]),
                ("/run", &["tmpcopyup"]),
            ],
        );
        assert_eq!(
            find_missing(&root, &spec).unwrap(),
            ["/dev", "/etc/hosts", "/run", "/srv/app"]
        );
        assert_eq!(find_occupied(&root, &spec).unwrap(), ["/tmp"]);
    }

    #[test]
    fn symlink_in_the_place_of_dev_is_refused() {
        let (dir, root) = image();
        check_reserved(&root).unwrap();
        symlink("/elsewhere", dir.path().join("dev")).unwrap();
        let error = check_reserved(&root).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsafe);
        assert_eq!(
            error.to_string(),
            "use the image's root file system: its /dev is a symbolic link, not a directory"
        );
    }

    #[test]
    fn account_file_that_is_no_file_counts_as_none() {
        let (dir, root) = image();
        assert_eq!(read_account_file(&root, "passwd").unwrap(), b"");
        fs::create_dir(dir.path().join("etc/passwd")).unwrap();
        assert_eq!(read_account_file(&root, "passwd").unwrap(), b"");
        symlink(
            "../../../../../../../etc/group",
            dir.path().join("etc/group"),
        )
        .unwrap();
        assert_eq!(read_account_file(&root, "group").unwrap(), b"");
    }
}
