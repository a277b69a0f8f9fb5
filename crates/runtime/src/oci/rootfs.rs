// SPDX-License-Identifier: Apache-2.0
//! The container's root file system: everything between a clone of its mount and the moment before
//! it becomes the root.
//!
//! Mounts are made detached and attached to open descriptors; no path of the container is ever resolved
//! but below its root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use gantry_sys::mount::{self, AttributeChange, Fs, MountAttrFlags, Propagation};
use gantry_sys::root::{RootDir, TargetKind};
use gantry_sys::{Errno, SysError};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use super::error::{Doing as _, RuntimeError};
use super::plan::{
    Attributes, DeviceKind, DeviceStep, LinkStep, MountKind, MountStep, PathStep, SysctlStep,
};
use crate::volume;

/// Detached mounts of the sources of binds, by the index of their step.
pub(super) type Sources = BTreeMap<usize, OwnedFd>;

/// The root, attached, and what is known about what lies in it.
#[derive(Debug)]
pub(super) struct Rootfs {
    root: RootDir,
    mounted: OwnedFd,
    /// The container's procfs, where it is mounted.
    proc: Option<OwnedFd>,
    /// The container's devpts.
    devpts: Option<OwnedFd>,
    /// Attached empty directory that others are clones of.
    empty: Option<OwnedFd>,
    /// Mounts that become read-only once nothing more is to be made in them.
    readonly_later: Vec<OwnedFd>,
    /// The directory in which something was made last, by its path: the next is likely to be made there, too.
    last_parent: Option<(PathBuf, OwnedFd)>,
}

/// Clones what a bind shall show, detached, with its attributes: only the container's own mapping is
/// left for later.
pub(super) fn open_source(
    step: &MountStep,
    mapping: Option<BorrowedFd<'_>>,
    early: bool,
) -> Result<Option<OwnedFd>, RuntimeError> {
    let MountKind::Bind { source, recursive } = &step.kind else {
        return Ok(None);
    };
    let doing = || format!("open {} to bind it ({})", source.display(), step.reason);
    let clone = mount::clone_mount(source, *recursive).doing(doing)?;
    // Peers of the host's mount only where the document asks for it.
    if early && step.options.propagation.is_empty() {
        let change = AttributeChange {
            propagation: Some(Propagation::Private),
            recursive: *recursive,
            ..AttributeChange::default()
        };
        mount::set_attributes(&clone, &change).doing(doing)?;
    }
    if let (Some(_), Some(namespace)) = (&step.mapping, mapping) {
        let change = AttributeChange {
            id_mapping: Some(namespace),
            recursive: step.options.id_mapped == Some(true),
            ..AttributeChange::default()
        };
        mount::set_attributes(&clone, &change).doing(|| {
            format!(
                "show {} through a mapping of ids ({})",
                source.display(),
                step.reason
            )
        })?;
    }
    Ok(Some(clone))
}

fn change(attributes: Attributes, recursive: bool) -> AttributeChange<'static> {
    AttributeChange {
        set: attributes.set,
        clear: attributes.clear,
        recursive,
        ..AttributeChange::default()
    }
}

/// Whether a read-only mount is one in which other places are made after it: nothing else could ever be in it.
fn is_filled_later(step: &MountStep) -> bool {
    matches!(&step.kind, MountKind::FileSystem { name, .. } if name == "tmpfs")
        && step
            .options
            .attributes
            .set
            .contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The kernel labels the first two by itself, and the third is made with its IPC namespace, before anybody can say how.
fn takes_context(name: &str) -> bool {
    !matches!(name, "proc" | "sysfs" | "mqueue")
}

fn set_label(made: &OwnedFd, label: &str) -> Result<(), SysError> {
    const NAME: &str = "security.selinux";
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(made, ".", flags, Mode::empty())
        .and_then(|dir| {
            rustix::fs::fsetxattr(dir, NAME, label.as_bytes(), rustix::fs::XattrFlags::empty())
        })
        .map_err(|errno| SysError::new("fsetxattr", format!("{NAME}, {label:?}"), errno))
}

impl Rootfs {
    /// Leaves the clone of the root's mount detached: without a mount namespace of the container, mounts
    /// are made in that tree (Linux 6.15), and go with the last process that has it as its root.
    pub(super) fn detached(clone: OwnedFd) -> Result<Self, RuntimeError> {
        Self::of(clone)
    }

    /// Attaches the clone of the root's mount over the root of this mount namespace, from which
    /// everything of the host can still be reached.
    pub(super) fn attach(clone: OwnedFd) -> Result<Self, RuntimeError> {
        let doing = || "attach the root file system";
        mount::attach(&clone, "/".as_ref()).doing(doing)?;
        Self::of(clone)
    }

    fn of(clone: OwnedFd) -> Result<Self, RuntimeError> {
        let doing = || "open the root file system";
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&clone, ".", flags, Mode::empty()).doing(doing)?;
        Ok(Self {
            root: RootDir::from_fd(root),
            mounted: clone,
            proc: None,
            devpts: None,
            empty: None,
            readonly_later: Vec::new(),
            last_parent: None,
        })
    }

    /// Makes one mount. A bind's source was opened before.
    pub(super) fn mount(
        &mut self,
        step: &MountStep,
        source: Option<OwnedFd>,
    ) -> Result<(), RuntimeError> {
        let doing = || format!("mount {} ({})", step.target.display(), step.reason);
        // It may come to lie over the one that is remembered.
        self.last_parent = None;
        let made = match &step.kind {
            MountKind::ControlGroups { private } => {
                return super::cgroupfs::mount(self, step, *private);
            }
            MountKind::Bind { .. } => source
                .ok_or(Errno::BADF)
                .doing(|| format!("bind {}: no source", step.target.display()))?,
            MountKind::FileSystem { name, source } => self
                .new_file_system(name, source.as_deref(), step)
                .doing(doing)?,
        };
        // Of a directory that is made for the mount there is nothing to copy, its mode included.
        let has_contents = step.options.copy_up && self.find(&step.target).doing(doing)?.is_some();
        let target = self.target(&made, step)?;
        if has_contents {
            self.copy_up(step, &target, &made)?;
        }
        let is_bind = matches!(step.kind, MountKind::Bind { .. });
        let mut attributes = step.options.attributes;
        if is_filled_later(step) {
            attributes.set.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
        }
        if (is_bind || step.options.copy_up) && !attributes.is_empty() {
            mount::set_attributes(&made, &change(attributes, false)).doing(doing)?;
        }
        if !step.options.recursive.is_empty() {
            mount::set_attributes(&made, &change(step.options.recursive, true)).doing(doing)?;
        }
        mount::attach_at(&made, &target).doing(doing)?;
        for (propagation, recursive) in &step.options.propagation {
            let change = AttributeChange {
                propagation: Some(*propagation),
                recursive: *recursive,
                ..AttributeChange::default()
            };
            mount::set_attributes(&made, &change).doing(doing)?;
        }
        self.remember(step, made);
        Ok(())
    }

    fn remember(&mut self, step: &MountStep, made: OwnedFd) {
        let MountKind::FileSystem { name, .. } = &step.kind else {
            return;
        };
        if name == "proc" && step.target == Path::new("/proc") {
            self.proc = Some(made);
        } else if name == "devpts" && step.target == Path::new("/dev/pts") {
            self.devpts = Some(made);
        } else if is_filled_later(step) {
            self.readonly_later.push(made);
        }
    }

    /// Shows the root with its mounts at the path that hooks know it by, too; gone with everything of the host.
    pub(super) fn show_at(&self, path: &Path) -> Result<(), RuntimeError> {
        let doing = || format!("show hooks the root file system at {}", path.display());
        let clone = mount::clone_mount_at(&self.mounted, true).doing(doing)?;
        mount::attach(&clone, path).doing(doing)
    }

    /// Nothing more is made in the mounts that the document wants read-only and empty at first.
    pub(super) fn close(&mut self) -> Result<(), RuntimeError> {
        let attributes = AttributeChange {
            set: MountAttrFlags::MOUNT_ATTR_RDONLY,
            ..AttributeChange::default()
        };
        self.readonly_later
            .drain(..)
            .try_for_each(|mount| mount::set_attributes(&mount, &attributes))
            .doing(|| "make mounts read-only that were filled")
    }

    fn new_file_system(
        &self,
        name: &str,
        source: Option<&str>,
        step: &MountStep,
    ) -> Result<OwnedFd, SysError> {
        let fs = Fs::open(name)?;
        // A source of /dev/… names a device of the host; elsewhere it is a mere label.
        fs.set("source", source.unwrap_or(name).as_bytes())?;
        for option in &step.options.data {
            match option.split_once('=') {
                Some((key, value)) => fs.set(key, value.as_bytes())?,
                None => fs.flag(option)?,
            }
        }
        if let Some(label) = step.label.as_ref().filter(|_| takes_context(name)) {
            fs.set("context", label.as_bytes())?;
        }
        let mut attributes = step.options.attributes.set;
        if step.options.copy_up || is_filled_later(step) {
            attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
        }
        let made = fs.mount(attributes)?;
        if let Some(label) = step.label.as_ref().filter(|_| name == "mqueue") {
            set_label(&made, label)?;
        }
        Ok(made)
    }

    /// The place of a mount, made if it is missing: a directory, or a file for what is none.
    pub(super) fn target(&self, made: &OwnedFd, step: &MountStep) -> Result<OwnedFd, RuntimeError> {
        let doing = || {
            format!(
                "find the place of {} ({})",
                step.target.display(),
                step.reason
            )
        };
        let stat = rustix::fs::fstat(made).doing(doing)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => TargetKind::Directory,
            _ => TargetKind::File,
        };
        self.ensure(&step.target, kind, step.no_symlinks)
            .doing(doing)
    }

    pub(super) fn ensure(
        &self,
        path: &Path,
        kind: TargetKind,
        no_symlinks: bool,
    ) -> Result<OwnedFd, SysError> {
        self.root
            .ensure_target(path.as_os_str().as_bytes(), kind, no_symlinks)
    }

    fn copy_up(
        &self,
        step: &MountStep,
        target: &OwnedFd,
        made: &OwnedFd,
    ) -> Result<(), RuntimeError> {
        let doing = || {
            format!(
                "copy what is at {} ({})",
                step.target.display(),
                step.reason
            )
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = rustix::fs::openat(target, ".", flags, Mode::empty()).doing(doing)?;
        let to = rustix::fs::openat(made, ".", flags, Mode::empty()).doing(doing)?;
        volume::copy_tree(&RootDir::from_fd(from), &RootDir::from_fd(to))
            .map_err(std::io::Error::other)
            .doing(doing)
    }

    /// Makes a device node, or binds the host's where nodes cannot be made.
    pub(super) fn device(&mut self, step: &DeviceStep, may_make: bool) -> Result<(), RuntimeError> {
        let doing = || format!("make device {} ({})", step.path.display(), step.reason);
        let (parent, name) = self.parent(&step.path).doing(doing)?;
        let kind = match step.kind {
            DeviceKind::Character => FileType::CharacterDevice,
            DeviceKind::Block => FileType::BlockDevice,
            DeviceKind::Fifo => FileType::Fifo,
        };
        let number = if kind == FileType::Fifo {
            0
        } else {
            rustix::fs::makedev(step.major, step.minor)
        };
        let mode = Mode::from_raw_mode(step.mode);
        if may_make || kind == FileType::Fifo {
            match rustix::fs::mknodat(parent, name, kind, mode, number) {
                Ok(()) => {}
                Err(Errno::EXIST) => return check_device(parent, name, step, kind, number),
                Err(errno) => return Err(errno).doing(doing),
            }
            if step.uid != 0 || step.gid != 0 {
                rustix::fs::chownat(
                    parent,
                    name,
                    Some(Uid::from_raw(step.uid)),
                    Some(Gid::from_raw(step.gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .doing(doing)?;
            }
            return Ok(());
        }
        let clone = open_host_device(&step.path, kind, number).doing(doing)?;
        // It lies on the host's own file system, which may allow more than a device needs.
        let attributes = AttributeChange {
            set: MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
            ..AttributeChange::default()
        };
        mount::set_attributes(&clone, &attributes).doing(doing)?;
        let target = self
            .ensure(&step.path, TargetKind::File, true)
            .doing(doing)?;
        mount::attach_at(&clone, &target).doing(doing)
    }

    fn parent<'a>(&mut self, path: &'a Path) -> Result<(BorrowedFd<'_>, &'a [u8]), SysError> {
        let invalid = || SysError::new("resolve", format!("{path:?}"), Errno::INVAL);
        let name = path.file_name().ok_or_else(invalid)?;
        let parent = path.parent().ok_or_else(invalid)?;
        let known = self.last_parent.take().filter(|(known, _)| known == parent);
        let held = match known {
            Some(held) => held,
            None => {
                let no_symlinks = parent.starts_with("/dev");
                let dir = self.ensure(parent, TargetKind::Directory, no_symlinks)?;
                (parent.to_owned(), dir)
            }
        };
        let (_, dir) = &*self.last_parent.insert(held);
        Ok((dir.as_fd(), name.as_bytes()))
    }

    /// Makes a symlink; what the image has there already stays.
    pub(super) fn link(&mut self, step: &LinkStep) -> Result<(), RuntimeError> {
        let doing = || format!("make link {}", step.path);
        let (parent, name) = self.parent(step.path.as_ref()).doing(doing)?;
        match rustix::fs::symlinkat(step.target, parent, name) {
            Err(Errno::EXIST) => Ok(()),
            other => other.doing(doing),
        }
    }

    /// Writes a kernel parameter by the container's own procfs.
    pub(super) fn sysctl(&self, step: &SysctlStep) -> Result<(), RuntimeError> {
        let doing = || {
            format!(
                "write {:?} to sysctl {} ({})",
                step.value, step.path, step.reason
            )
        };
        let file = self
            .open_proc(&format!("sys/{}", step.path), OFlags::WRONLY)
            .doing(doing)?;
        fs::File::from(file)
            .write_all(step.value.as_bytes())
            .doing(doing)
    }

    /// Opens a file of a procfs that is ours: the container's, or a new one where it has none.
    pub(super) fn open_proc(&self, path: &str, flags: OFlags) -> Result<OwnedFd, SysError> {
        let own;
        let proc = match &self.proc {
            Some(proc) => proc,
            None => {
                own = Fs::open("proc")?.mount(MountAttrFlags::empty())?;
                &own
            }
        };
        open_below_proc(Some(proc), path, flags)
    }

    /// Makes a path read-only, with everything mounted below it; one that is not there is no matter.
    pub(super) fn make_readonly(&self, step: &PathStep) -> Result<(), RuntimeError> {
        let doing = || format!("make {} read-only ({})", step.path.display(), step.reason);
        let Some(place) = self.find(&step.path).doing(doing)? else {
            return Ok(());
        };
        let clone = mount::clone_mount_at(&place, true).doing(doing)?;
        let change = AttributeChange {
            set: MountAttrFlags::MOUNT_ATTR_RDONLY,
            recursive: true,
            ..AttributeChange::default()
        };
        mount::set_attributes(&clone, &change).doing(doing)?;
        mount::attach_at(&clone, &place).doing(doing)
    }

    /// Hides a path: a file behind the null device, a directory behind an empty one.
    pub(super) fn mask(&mut self, step: &PathStep, null: &OwnedFd) -> Result<(), RuntimeError> {
        let doing = || format!("hide {} ({})", step.path.display(), step.reason);
        let Some(place) = self.find(&step.path).doing(doing)? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&place).doing(doing)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let clone = mount::clone_mount_at(null, false).doing(doing)?;
            return mount::attach_at(&clone, &place).doing(doing);
        }
        if let Some(empty) = &self.empty {
            let clone = mount::clone_mount_at(empty, false).doing(doing)?;
            return mount::attach_at(&clone, &place).doing(doing);
        }
        let fs = Fs::open("tmpfs").doing(doing)?;
        fs.set("source", b"tmpfs").doing(doing)?;
        fs.set("size", b"0").doing(doing)?;
        fs.set("nr_inodes", b"1").doing(doing)?;
        fs.set("mode", b"755").doing(doing)?;
        let empty = fs
            .mount(
                MountAttrFlags::MOUNT_ATTR_RDONLY
                    | MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC,
            )
            .doing(doing)?;
        mount::attach_at(&empty, &place).doing(doing)?;
        self.empty = Some(empty);
        Ok(())
    }

    /// Opens what the container has as `/dev/null`.
    pub(super) fn open_null(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.root.open(b"/dev/null", flags, Mode::empty()).ok()
    }

    fn find(&self, path: &Path) -> Result<Option<OwnedFd>, SysError> {
        match self
            .root
            .open(path.as_os_str().as_bytes(), OFlags::PATH, Mode::empty())
        {
            Ok(place) => Ok(Some(place)),
            Err(error)
                if [Errno::NOENT, Errno::NOTDIR, Errno::ACCESS]
                    .iter()
                    .any(|errno| error.is(*errno)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The container's devpts, in which terminals are made.
    pub(super) fn devpts(&self) -> Option<BorrowedFd<'_>> {
        self.devpts.as_ref().map(|fd| fd.as_fd())
    }

    /// Binds an open terminal over `/dev/console`.
    pub(super) fn bind_console(&self, terminal: &OwnedFd) -> Result<(), RuntimeError> {
        let doing = || "bind the terminal at /dev/console";
        let clone = mount::clone_mount_at(terminal, false).doing(doing)?;
        let target = self
            .ensure("/dev/console".as_ref(), TargetKind::File, true)
            .doing(doing)?;
        mount::attach_at(&clone, &target).doing(doing)
    }

    pub(super) fn as_mount(&self) -> &OwnedFd {
        &self.mounted
    }
}

/// What stands in the place of a device has to be that device.
fn check_device(
    parent: BorrowedFd<'_>,
    name: &[u8],
    step: &DeviceStep,
    kind: FileType,
    number: u64,
) -> Result<(), RuntimeError> {
    let doing = || {
        format!(
            "make device {}: something else is there",
            step.path.display()
        )
    };
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
    if FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == number {
        return Ok(());
    }
    Err(Errno::EXIST).doing(doing)
}

/// The host's device, proven to be that device.
fn open_host_device(path: &Path, kind: FileType, number: u64) -> Result<OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let args = || format!("{path:?}");
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| SysError::new("openat", args(), errno))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| SysError::new("fstat", args(), errno))?;
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != number {
        return Err(SysError::new("fstat", args(), Errno::NXIO));
    }
    mount::clone_mount_at(&file, false)
}

/// The host's null device, proven to be it: what masks files. Taken before the container's root
/// is in sight.
pub(super) fn open_null() -> Result<OwnedFd, RuntimeError> {
    let path = PathBuf::from("/dev/null");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let doing = || "open the host's /dev/null";
    let file = rustix::fs::openat(CWD, &path, flags, Mode::empty()).doing(doing)?;
    let stat = rustix::fs::fstat(&file).doing(doing)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null {
        Ok(file)
    } else {
        Err(Errno::NXIO).doing(doing)
    }
}

/// Opens a file of a procfs that is ours, by names that are neither symlinks nor mounted on.
pub(super) fn open_below_proc(
    proc: Option<&OwnedFd>,
    path: &str,
    flags: OFlags,
) -> Result<OwnedFd, SysError> {
    let failed = |errno| SysError::new("openat2", format!("procfs, {path:?}"), errno);
    let proc = proc.ok_or(Errno::BADF).map_err(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC;
    match rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve) {
        // A fixed name below a procfs that nobody else can have mounted on yet.
        Err(Errno::NOSYS) => rustix::fs::openat(proc, path, flags, Mode::empty()),
        other => other,
    }
    .map_err(failed)
}
