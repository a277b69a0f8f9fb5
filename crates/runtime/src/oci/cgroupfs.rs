// SPDX-License-Identifier: Apache-2.0
//! The container's view of its control groups.
//!
//! | host | own cgroup namespace | without |
//! |---|---|---|
//! | version 2 alone | `cgroup2`, whose root is the container's group | `cgroup2`, whose root is the host's |
//! | version 1, or both | a tmpfs with one mount a hierarchy of version 1 | the same, with binds of the container's own groups |

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_sys::mount::{self, AttributeChange, Fs, MountAttrFlags, Propagation};
use gantry_sys::{Errno, SysError};
use rustix::fs::{Mode, OFlags};

use super::error::{Doing as _, RuntimeError};
use super::plan::MountStep;
use super::rootfs::Rootfs;

const HOST: &str = "/sys/fs/cgroup";
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// One hierarchy of version 1, as `/proc/self/cgroup` tells it.
struct Hierarchy {
    /// `cpu,cpuacct`, or `name=systemd`.
    controllers: String,
    /// The container's group in it.
    path: String,
}

impl Hierarchy {
    fn dir(&self) -> &str {
        self.controllers
            .strip_prefix("name=")
            .unwrap_or(&self.controllers)
    }
}

fn hierarchies(text: &str) -> Vec<Hierarchy> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            (!controllers.is_empty()).then(|| Hierarchy {
                controllers: controllers.to_owned(),
                path: path.to_owned(),
            })
        })
        .collect()
}

pub(super) fn mount(rootfs: &Rootfs, step: &MountStep, private: bool) -> Result<(), RuntimeError> {
    let doing = || {
        format!(
            "mount control groups at {} ({})",
            step.target.display(),
            step.reason
        )
    };
    let attributes = step.options.attributes.set;
    let stat = rustix::fs::statfs(HOST).doing(doing)?;
    if stat.f_type == CGROUP2_MAGIC {
        let made = version_2(attributes).doing(doing)?;
        let target = rootfs.target(&made, step)?;
        return mount::attach_at(&made, &target).doing(doing);
    }
    let fs = Fs::open("tmpfs").doing(doing)?;
    fs.set("source", b"tmpfs").doing(doing)?;
    fs.set("mode", b"755").doing(doing)?;
    let base = fs
        .mount(attributes - MountAttrFlags::MOUNT_ATTR_RDONLY)
        .doing(doing)?;
    let target = rootfs.target(&base, step)?;
    mount::attach_at(&base, &target).doing(doing)?;
    let listed = fs::read_to_string("/proc/self/cgroup").doing(doing)?;
    for hierarchy in hierarchies(&listed) {
        let made = if private {
            version_1(&hierarchy, attributes)
        } else {
            bound(&hierarchy, attributes)
        };
        let made = match made {
            // Known to the kernel and mounted nowhere on this host.
            Err(error) if error.is(Errno::NOENT) => continue,
            other => other.doing(doing)?,
        };
        let place = place_below(&base, hierarchy.dir()).doing(doing)?;
        mount::attach_at(&made, &place).doing(doing)?;
        link_each(&base, &hierarchy).doing(doing)?;
    }
    if attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        let change = AttributeChange {
            set: MountAttrFlags::MOUNT_ATTR_RDONLY,
            ..AttributeChange::default()
        };
        mount::set_attributes(&base, &change).doing(doing)?;
    }
    Ok(())
}

/// A new directory of the tmpfs that holds the hierarchies: nobody else has been there yet.
fn place_below(base: &OwnedFd, name: &str) -> Result<OwnedFd, SysError> {
    let failed = |call| move |errno| SysError::new(call, format!("tmpfs, {name:?}"), errno);
    match rustix::fs::mkdirat(base, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("mkdirat")(errno)),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(base, name, flags, Mode::empty()).map_err(failed("openat"))
}

fn version_2(attributes: MountAttrFlags) -> Result<OwnedFd, SysError> {
    let fresh = Fs::open("cgroup2").and_then(|fs| {
        fs.set("source", b"cgroup")?;
        fs.mount(attributes)
    });
    match fresh {
        // Without a network and cgroup namespace of one's own a user may not mount it anew. What the
        // host shows is then shown, and never writable.
        Err(error) if error.is(Errno::PERM) || error.is(Errno::BUSY) => {
            let clone = mount::clone_mount(HOST.as_ref(), true)?;
            restrict(&clone, attributes | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
            Ok(clone)
        }
        other => other,
    }
}

fn version_1(hierarchy: &Hierarchy, attributes: MountAttrFlags) -> Result<OwnedFd, SysError> {
    let fs = Fs::open("cgroup")?;
    fs.set("source", b"cgroup")?;
    match hierarchy.controllers.strip_prefix("name=") {
        Some(name) => {
            fs.flag("none")?;
            fs.set("name", name.as_bytes())?;
        }
        None => hierarchy
            .controllers
            .split(',')
            .try_for_each(|name| fs.flag(name))?,
    }
    fs.mount(attributes)
}

/// Where the host has a hierarchy mounted, the container's own group of it.
fn bound(hierarchy: &Hierarchy, attributes: MountAttrFlags) -> Result<OwnedFd, SysError> {
    let base = Path::new(HOST).join(hierarchy.dir());
    let source: PathBuf = base.join(hierarchy.path.trim_start_matches('/'));
    let clone = mount::clone_mount(&source, false)?;
    restrict(&clone, attributes)?;
    Ok(clone)
}

fn restrict(clone: &OwnedFd, attributes: MountAttrFlags) -> Result<(), SysError> {
    let change = AttributeChange {
        set: attributes,
        propagation: Some(Propagation::Private),
        recursive: true,
        ..AttributeChange::default()
    };
    mount::set_attributes(clone, &change)
}

/// `cpu` and `cpuacct` beside `cpu,cpuacct`, as on the host.
fn link_each(base: &OwnedFd, hierarchy: &Hierarchy) -> Result<(), SysError> {
    let dir = hierarchy.dir();
    if !dir.contains(',') {
        return Ok(());
    }
    for name in dir.split(',') {
        match rustix::fs::symlinkat(dir, base, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(SysError::new("symlinkat", name.to_owned(), errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_version_1_are_read_and_version_2_is_left_out() {
        let text = "12:cpu,cpuacct:/a\n3:name=systemd:/b:c\n0::/d\n";
        let found = hierarchies(text);
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.dir(), one.path.as_str()))
            .collect();
        assert_eq!(told, [("cpu,cpuacct", "/a"), ("systemd", "/b:c")]);
    }
}
