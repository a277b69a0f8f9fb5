// SPDX-License-Identifier: Apache-2.0
//! Mounts, by descriptor: each is made detached and attached by [`attach`], so nothing is visible
//! before it is complete and nothing needs to be undone by path.
//!
//! ```text
//!   erofs(file) ──┐ lowerdir+
//!                 ├── overlay ──▶ detached mount ──▶ attach(target)
//!   objects dir ──┘ datadir+
//! ```
//!
//! Kernels before 6.12 cannot mount EROFS from a plain file: a loop device that frees itself stands
//! in. Kernels before 6.7 know no `lowerdir+`: the classic `lowerdir=a::b` string stands in, and
//! layers must be attached somewhere. [`KernelFeatures`] says which.
//!
//! # Privileges
//! All of it needs `CAP_SYS_ADMIN` in the mount namespace.
#![expect(unsafe_code, reason = "unshare, mount_setattr and the loop ioctls")]

use crate::error::{Context, Result, SysError, describe_fd};
use crate::probe::KernelFeatures;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, NoArg, Setter, ioctl};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

pub use rustix::mount::MountAttrFlags;

/// How an EROFS image was brought to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErofsVia {
    /// The file itself.
    File,
    /// A loop device that frees itself at the last unmount.
    Loop,
}

/// Moves the calling thread into a mount namespace of its own from which nothing propagates.
///
/// # Errors
/// The kernel's refusal.
pub fn enter_private_namespace() -> Result<()> {
    // JUSTIFICATION: rustix marks the call unsafe for its FILES flag.
    // SAFETY: FILES is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .call("unshare", || "CLONE_NEWNS".to_owned())?;
    let propagation = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", propagation)
        .call("mount", || "\"/\", MS_REC|MS_PRIVATE".to_owned())
}

/// Mounts an EROFS image, detached, read-only.
///
/// # Errors
/// The kernel's refusal.
pub fn erofs(image: &Path, features: &KernelFeatures) -> Result<(OwnedFd, ErofsVia)> {
    if features.erofs_from_file {
        match erofs_from(image) {
            // The kernel has the version but not the option EROFS_FS_BACKED_BY_FILE, or the file
            // lies where the stack of file systems would become too deep.
            Err(error) if error.is(Errno::NOTBLK) || error.is(Errno::NOTSUP) => {}
            other => return other.map(|fd| (fd, ErofsVia::File)),
        }
    }
    erofs_by_loop(image).map(|fd| (fd, ErofsVia::Loop))
}

/// Mounts an EROFS image by a loop device, detached, read-only.
///
/// # Errors
/// The kernel's refusal.
pub fn erofs_by_loop(image: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(image, flags, Mode::empty())
        .call("open", || format!("{image:?}, O_RDONLY"))?;
    let (_device, path) = attach_loop(&file)?;
    // The device's own descriptor keeps it alive until the mount does.
    erofs_from(&path)
}

fn erofs_from(source: &Path) -> Result<OwnedFd> {
    let context = Fs::open("erofs")?;
    context.set("source", source.as_os_str().as_bytes())?;
    context.flag("ro")?;
    context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// A layer of an overlay.
#[derive(Debug, Clone, Copy)]
pub enum OverlayLayer<'a> {
    /// A directory by its path.
    Path(&'a Path),
    /// A mount that is not attached anywhere.
    Detached(BorrowedFd<'a>),
}

/// What an overlay is made of.
#[derive(Debug, Clone)]
pub struct Overlay<'a> {
    /// Lower layers, the topmost first.
    pub lower: Vec<OverlayLayer<'a>>,
    /// Data-only layers: reached by redirects out of the lower ones only.
    pub data: Vec<&'a Path>,
    /// The writable layer and its work directory; the overlay is read-only without.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Refuses data without a matching fs-verity digest.
    pub require_verity: bool,
    /// A directory on which a detached layer may be attached for a moment, where the kernel takes
    /// layers by path only. The caller's mount namespace should be private.
    pub scratch: Option<&'a Path>,
}

/// Mounts an overlay, detached.
///
/// # Errors
/// The kernel's refusal; `ENOSYS` where a detached layer was given, the kernel wants paths and no
/// scratch directory was offered.
pub fn overlay(overlay: &Overlay<'_>, features: &KernelFeatures) -> Result<OwnedFd> {
    let context = Fs::open("overlay")?;
    // What `gantry` shows as the source in the mount table.
    context.set("source", b"gantry")?;
    let mut attached = Vec::new();
    let outcome = configure_overlay(&context, overlay, features, &mut attached);
    let outcome = outcome.and_then(|()| {
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        if overlay.upper.is_none() {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        context.mount(attributes)
    });
    // The overlay holds its own clone of each layer by now.
    for path in attached {
        unmount(path)?;
    }
    outcome
}

fn configure_overlay<'a>(
    context: &Fs,
    overlay: &Overlay<'a>,
    features: &KernelFeatures,
    attached: &mut Vec<&'a Path>,
) -> Result<()> {
    if features.overlay_layer_by_layer {
        for layer in &overlay.lower {
            match *layer {
                OverlayLayer::Path(path) => {
                    context.set("lowerdir+", path.as_os_str().as_bytes())?
                }
                OverlayLayer::Detached(fd) if features.overlay_layer_fd => {
                    context.set_fd("lowerdir+", fd)?;
                }
                OverlayLayer::Detached(fd) => {
                    let path = attach_for_a_moment(fd, overlay.scratch, attached)?;
                    context.set("lowerdir+", path.as_os_str().as_bytes())?;
                }
            }
        }
        for path in &overlay.data {
            context.set("datadir+", path.as_os_str().as_bytes())?;
        }
    } else {
        let mut text = Vec::new();
        for layer in &overlay.lower {
            let path = match *layer {
                OverlayLayer::Path(path) => path,
                OverlayLayer::Detached(fd) => attach_for_a_moment(fd, overlay.scratch, attached)?,
            };
            if !text.is_empty() {
                text.push(b':');
            }
            escape_layer(path, &mut text);
        }
        for path in &overlay.data {
            text.extend_from_slice(b"::");
            escape_layer(path, &mut text);
        }
        context.set("lowerdir", &text)?;
    }
    if let Some((upper, work)) = overlay.upper {
        context.set("upperdir", upper.as_os_str().as_bytes())?;
        context.set("workdir", work.as_os_str().as_bytes())?;
    } else {
        context.flag("ro")?;
    }
    if !overlay.data.is_empty() {
        context.set("metacopy", b"on")?;
        context.set("redirect_dir", b"on")?;
    }
    if overlay.require_verity {
        context.set("verity", b"require")?;
    }
    Ok(())
}

fn attach_for_a_moment<'a>(
    fd: BorrowedFd<'_>,
    scratch: Option<&'a Path>,
    attached: &mut Vec<&'a Path>,
) -> Result<&'a Path> {
    let path = scratch
        .ok_or_else(|| SysError::new("fsconfig", "lowerdir: detached".to_owned(), Errno::NOSYS))?;
    attach(fd, path)?;
    attached.push(path);
    Ok(path)
}

/// In the classic string a colon parts layers and a backslash escapes.
fn escape_layer(path: &Path, into: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b'\\') {
            into.push(b'\\');
        }
        into.push(*byte);
    }
}

/// Clones the mount at `path`, detached, with everything below it if `recursive`.
///
/// # Errors
/// The kernel's refusal.
pub fn clone_mount(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags)
        .call("open_tree", || format!("{path:?}, OPEN_TREE_CLONE"))
}

/// Mounts a new tmpfs of at most `size_bytes`, detached.
///
/// # Errors
/// The kernel's refusal.
pub fn tmpfs(size_bytes: u64, mode: u32) -> Result<OwnedFd> {
    let context = Fs::open("tmpfs")?;
    context.set("size", size_bytes.to_string().as_bytes())?;
    context.set("mode", format!("{mode:o}").as_bytes())?;
    context.mount(MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID)
}

/// Makes a detached mount read-only and deaf to device nodes.
///
/// # Errors
/// The kernel's refusal.
pub fn set_read_only(mount: impl AsFd) -> Result<()> {
    let change = AttributeChange {
        set: MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV,
        recursive: true,
        ..AttributeChange::default()
    };
    set_attributes(mount, &change)
}

/// How events pass between a mount and its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the original to the copy.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn flag(self) -> u64 {
        let flag = match self {
            Self::Shared => MountPropagationFlags::SHARED,
            Self::Slave => MountPropagationFlags::DOWNSTREAM,
            Self::Private => MountPropagationFlags::PRIVATE,
            Self::Unbindable => MountPropagationFlags::UNBINDABLE,
        };
        u64::from(flag.bits())
    }
}

/// What shall be different about a mount.
#[derive(Debug, Clone, Copy)]
pub struct AttributeChange<'a> {
    /// What it gets. The three ways of access times are one choice, which `clear` must name too.
    pub set: MountAttrFlags,
    /// What it loses first.
    pub clear: MountAttrFlags,
    /// Its propagation, if that changes.
    pub propagation: Option<Propagation>,
    /// The user namespace whose mapping it shows owners through.
    pub id_mapping: Option<BorrowedFd<'a>>,
    /// The mounts below it too.
    pub recursive: bool,
}

impl Default for AttributeChange<'_> {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: None,
            id_mapping: None,
            recursive: false,
        }
    }
}

/// Changes the attributes of a mount.
///
/// # Errors
/// The kernel's refusal; `ENOSYS` before 5.12.
///
/// # Source
/// `mount_setattr(2)`.
pub fn set_attributes(mount: impl AsFd, change: &AttributeChange<'_>) -> Result<()> {
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let mount = mount.as_fd();
    let mut attributes = MountAttr {
        attr_set: u64::from(change.set.bits()),
        attr_clr: u64::from(change.clear.bits()),
        propagation: change.propagation.map_or(0, Propagation::flag),
        userns_fd: 0,
    };
    if let Some(namespace) = change.id_mapping {
        attributes.attr_set |= u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits());
        attributes.userns_fd = u64::from(namespace.as_raw_fd().unsigned_abs());
    }
    let mut flags = libc::AT_EMPTY_PATH;
    if change.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // JUSTIFICATION: rustix has no mount_setattr.
    // SAFETY: the path is an empty C string, the structure outlives the call and its size is given.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if outcome == 0 {
        return Ok(());
    }
    let args = format!("{}, {change:?}", describe_fd(mount));
    Err(SysError::new(
        "mount_setattr",
        args,
        crate::error::last_errno(),
    ))
}

/// Clones the mount that a descriptor leads to (from there on), detached.
///
/// # Errors
/// The kernel's refusal.
pub fn clone_mount_at(place: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let place = place.as_fd();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(place, "", flags).call("open_tree", || {
        format!("{}, OPEN_TREE_CLONE", describe_fd(place))
    })
}

/// Makes an attached mount the root of the calling process's mount namespace and drops what was
/// the root before.
///
/// # Errors
/// The kernel's refusal.
///
/// # Source
/// `pivot_root(2)`, "pivot_root(\".\", \".\")".
pub fn pivot_into(root: impl AsFd) -> Result<()> {
    let root = root.as_fd();
    let args = || describe_fd(root);
    rustix::process::fchdir(root).call("fchdir", args)?;
    rustix::process::pivot_root(".", ".").call("pivot_root", args)?;
    // The old root lies on top of the new one now.
    rustix::mount::unmount(".", UnmountFlags::DETACH).call("umount2", args)?;
    rustix::process::chdir("/").call("chdir", || "\"/\"".to_owned())
}

/// The same where the root cannot be pivoted (an initial ramdisk): moves the mount over the root.
///
/// # Errors
/// The kernel's refusal.
pub fn move_into(root: impl AsFd) -> Result<()> {
    let root = root.as_fd();
    let args = || describe_fd(root);
    rustix::process::fchdir(root).call("fchdir", args)?;
    rustix::mount::mount_move(".", "/").call("mount", || "MS_MOVE".to_owned())?;
    rustix::process::chroot(".").call("chroot", args)?;
    rustix::process::chdir("/").call("chdir", || "\"/\"".to_owned())
}

/// Makes a mount, attached or not, the root of the calling process alone.
///
/// # Errors
/// The kernel's refusal.
pub fn enter(root: impl AsFd) -> Result<()> {
    let root = root.as_fd();
    let args = || describe_fd(root);
    rustix::process::fchdir(root).call("fchdir", args)?;
    rustix::process::chroot(".").call("chroot", args)?;
    rustix::process::chdir("/").call("chdir", || "\"/\"".to_owned())
}

/// Changes how events pass, for the root of the calling process's namespace and all below it.
///
/// # Errors
/// The kernel's refusal.
pub fn set_root_propagation(propagation: Propagation) -> Result<()> {
    let flags = match propagation {
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    rustix::mount::mount_change("/", flags | MountPropagationFlags::REC)
        .call("mount", || format!("\"/\", {propagation:?}, MS_REC"))
}

/// Attaches a detached mount to the directory (or file) `target`.
///
/// # Errors
/// The kernel's refusal.
pub fn attach(mount: impl AsFd, target: &Path) -> Result<()> {
    let mount = mount.as_fd();
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", CWD, target, flags).call("move_mount", || {
        format!("{}, {target:?}", describe_fd(mount))
    })
}

/// Attaches a detached mount to an open directory.
///
/// # Errors
/// The kernel's refusal.
pub fn attach_at(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let (mount, target) = (mount.as_fd(), target.as_fd());
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).call("move_mount", || {
        format!("{}, {}", describe_fd(mount), describe_fd(target))
    })
}

/// Detaches the mount at `path`; it ends with its last user.
///
/// # Errors
/// The kernel's refusal.
pub fn unmount(path: &Path) -> Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    rustix::mount::unmount(path, flags).call("umount2", || format!("{path:?}, MNT_DETACH"))
}

/// A file system being configured.
#[derive(Debug)]
pub struct Fs {
    fd: OwnedFd,
    kind: String,
}

impl Fs {
    /// Begins with a file system type.
    ///
    /// # Errors
    /// The kernel's refusal; `ENODEV` for a type that it does not know.
    pub fn open(kind: &str) -> Result<Self> {
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .call("fsopen", || format!("{kind:?}"))
            .map(|fd| Self {
                fd,
                kind: kind.to_owned(),
            })
    }

    /// Sets an option.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        rustix::mount::fsconfig_set_string(&self.fd, key, value).map_err(|errno| {
            self.failed(
                "FSCONFIG_SET_STRING",
                key,
                &String::from_utf8_lossy(value),
                errno,
            )
        })
    }

    /// Sets an option to what a descriptor leads to.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_fd(&self, key: &str, value: BorrowedFd<'_>) -> Result<()> {
        rustix::mount::fsconfig_set_fd(&self.fd, key, value)
            .map_err(|errno| self.failed("FSCONFIG_SET_FD", key, &describe_fd(value), errno))
    }

    /// Sets an option that has no value.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn flag(&self, key: &str) -> Result<()> {
        rustix::mount::fsconfig_set_flag(&self.fd, key)
            .map_err(|errno| self.failed("FSCONFIG_SET_FLAG", key, "", errno))
    }

    /// Makes the file system and a mount of it, detached.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        rustix::mount::fsconfig_create(&self.fd)
            .map_err(|errno| self.failed("FSCONFIG_CMD_CREATE", "", "", errno))?;
        rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .call("fsmount", || format!("{:?}", self.kind))
    }

    /// Adds what the kernel wrote into the context's log, which says more than the errno.
    fn failed(&self, command: &str, key: &str, value: &str, errno: Errno) -> SysError {
        let mut args = format!("{}, {command}, {key:?}, {value:?}", self.kind);
        let mut line = [0; 1024];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut line) {
            args.push_str("; kernel: ");
            args.push_str(String::from_utf8_lossy(&line[..length]).trim_end());
        }
        SysError::new("fsconfig", args, errno)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const LOOP_CONFIGURE: rustix::ioctl::Opcode = 0x4c0a;
const LOOP_CLR_FD: rustix::ioctl::Opcode = 0x4c01;
const LOOP_CTL_GET_FREE: rustix::ioctl::Opcode = 0x4c82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Others race for the same free device.
const LOOP_ATTEMPTS: u32 = 64;

/// Binds `file` read-only to a free loop device which frees itself at its last close.
///
/// # Errors
/// The kernel's refusal; `EBUSY` when others were always quicker.
pub fn attach_loop(file: impl AsFd) -> Result<(OwnedFd, PathBuf)> {
    let file = file.as_fd();
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = rustix::fs::open("/dev/loop-control", flags, Mode::empty())
        .call("open", || "\"/dev/loop-control\"".to_owned())?;
    for _ in 0..LOOP_ATTEMPTS {
        // SAFETY: the request takes no argument and answers with a number.
        let number = unsafe { ioctl(&control, GetFree(NoArg::new())) }
            .call("ioctl(LOOP_CTL_GET_FREE)", || describe_fd(&control))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(device) => device,
            Err(Errno::NOENT | Errno::NXIO) => continue,
            Err(errno) => return Err(SysError::new("open", format!("{path:?}"), errno)),
        };
        match configure_loop(&device, file) {
            Ok(()) => return Ok((device, path)),
            Err(Errno::BUSY) => {}
            Err(errno) => {
                let args = format!("{path:?}, {}", describe_fd(file));
                return Err(SysError::new("ioctl(LOOP_CONFIGURE)", args, errno));
            }
        }
    }
    Err(SysError::new(
        "ioctl(LOOP_CONFIGURE)",
        describe_fd(file),
        Errno::BUSY,
    ))
}

/// Frees a loop device that was bound without being mounted.
///
/// # Errors
/// The kernel's refusal.
pub fn detach_loop(device: impl AsFd) -> Result<()> {
    let device = device.as_fd();
    // SAFETY: the request takes an integer that it ignores.
    unsafe { ioctl(device, IntegerSetter::<LOOP_CLR_FD>::new_usize(0)) }
        .call("ioctl(LOOP_CLR_FD)", || describe_fd(device))
}

fn configure_loop(device: &OwnedFd, file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size: 0,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // JUSTIFICATION: rustix offers the ioctl mechanism but not this request.
    // SAFETY: the request reads one `struct loop_config`, which `LoopConfig` lays out as
    // linux/loop.h does; the descriptor in it stays open during the call.
    unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }
}

/// `LOOP_CTL_GET_FREE` answers by its return value, which rustix's pattern drops.
struct GetFree(NoArg<LOOP_CTL_GET_FREE>);

// SAFETY: the request neither reads nor writes memory; its output is the call's return value.
unsafe impl rustix::ioctl::Ioctl for GetFree {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> rustix::ioctl::Opcode {
        self.0.opcode()
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        self.0.as_ptr()
    }

    unsafe fn output_from_ptr(
        output: rustix::ioctl::IoctlOutput,
        _: *mut core::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn colons_of_layer_paths_are_escaped() {
        let mut text = Vec::new();
        escape_layer(Path::new("/a:b\\c"), &mut text);
        assert_eq!(text, b"/a\\:b\\\\c");
    }

    #[test]
    fn privileged_loop_device_binds_and_frees_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![7_u8; 1 << 20]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let (device, name) = match attach_loop(&file) {
            Ok(found) => found,
            Err(error) => {
                eprintln!("skipped: no loop device: {error}: {}", error.source);
                return;
            }
        };
        let mut head = [0; 16];
        rustix::io::pread(&device, &mut head, 0).unwrap();
        assert_eq!(head, [7; 16]);
        drop(device);
        let size = std::fs::read_to_string(format!(
            "/sys/block/{}/size",
            name.file_name().unwrap().to_str().unwrap()
        ));
        assert_ne!(size.unwrap_or_default().trim(), "2048");
    }
}
