// SPDX-License-Identifier: Apache-2.0
//! What is mounted in the container.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use serde::Serialize;

use super::namespaces::{NamespacePlan, mappings};
use super::options::MountOptions;
use super::{Facts, PlanError, absolute};
use gantry_sys::clone::Namespace;

/// Consecutive ids inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct IdMapping {
    /// The first id in the container.
    pub container: u32,
    /// The first id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Through which mapping a mount shows owners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum MountMapping {
    /// The container's own.
    Container,
    /// One of its own.
    Own {
        /// Users.
        uids: Vec<IdMapping>,
        /// Groups.
        gids: Vec<IdMapping>,
    },
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute.
        source: PathBuf,
        /// With everything below it.
        recursive: bool,
    },
    /// A file system.
    FileSystem {
        /// Its type.
        name: String,
        /// Its source, as the mount table shows it.
        source: Option<String>,
    },
    /// The container's control groups, in whichever versions the host has.
    ControlGroups {
        /// Seen from a namespace of the container's own.
        private: bool,
    },
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountStep {
    /// Absolute, in the container.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
    /// How.
    pub options: MountOptions,
    /// Owners shown through a mapping.
    pub mapping: Option<MountMapping>,
    /// The SELinux context of its files.
    pub label: Option<String>,
    /// No component of the target may be a symlink.
    pub no_symlinks: bool,
    /// Where the document says so.
    pub reason: String,
}

/// Below these an image has nothing to say: what is mounted there decides what the container may do.
fn is_kernels(target: &Path) -> bool {
    ["/proc", "/sys", "/dev"]
        .iter()
        .any(|base| target.starts_with(base))
}

/// A source of a file system is a path only for those on block devices and the like.
fn source_text(source: &Path) -> String {
    source.to_string_lossy().into_owned()
}

pub(super) fn plan(
    spec: &Spec,
    bundle: &Path,
    facts: &Facts,
    namespaces: &NamespacePlan,
    warnings: &mut Vec<String>,
) -> Result<Vec<MountStep>, PlanError> {
    let mut label = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.mount_label().clone())
        .filter(|label| !label.is_empty());
    // It confines nothing by itself, other than the label of the process.
    if label.is_some() && !facts.selinux {
        warnings
            .push("mountLabel: left out, since this kernel does not enforce SELinux".to_owned());
        label = None;
    }
    spec.mounts()
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, mount)| step(index, mount, bundle, label.as_ref(), namespaces))
        .collect()
}

fn step(
    index: usize,
    mount: &Mount,
    bundle: &Path,
    label: Option<&String>,
    namespaces: &NamespacePlan,
) -> Result<MountStep, PlanError> {
    let reason = format!(".mounts[{index}]");
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or(&[]));
    let target = mount.destination();
    // Old documents name targets relative to the root.
    let target = Path::new("/").join(target);
    let name = mount.typ().as_deref().unwrap_or("none");
    let kind = match options.bind {
        _ if options.remount => {
            return Err(PlanError::new(
                reason,
                "remount: there is nothing to mount again",
            ));
        }
        Some(recursive) => bind(mount, bundle, recursive, &reason)?,
        None if name == "bind" => bind(mount, bundle, false, &reason)?,
        None if name == "cgroup" || name == "cgroup2" => MountKind::ControlGroups {
            private: namespaces.is_private(Namespace::Cgroup),
        },
        None => MountKind::FileSystem {
            name: name.to_owned(),
            source: mount.source().as_deref().map(source_text),
        },
    };
    if let MountKind::FileSystem { name, .. } = &kind {
        check_file_system(name, &target, namespaces, &reason)?;
    }
    let own = (
        mappings(mount.uid_mappings().as_ref()),
        mappings(mount.gid_mappings().as_ref()),
    );
    let mapping = match own {
        (uids, gids) if !uids.is_empty() && !gids.is_empty() => {
            Some(MountMapping::Own { uids, gids })
        }
        (uids, gids) if !uids.is_empty() || !gids.is_empty() => {
            return Err(PlanError::new(
                reason,
                "uidMappings and gidMappings belong together",
            ));
        }
        _ if options.id_mapped.is_some() => {
            if !namespaces.has_users() {
                return Err(PlanError::new(
                    reason,
                    "idmap without mappings needs a user namespace of the container",
                ));
            }
            Some(MountMapping::Container)
        }
        _ => None,
    };
    if mapping.is_some() && !matches!(kind, MountKind::Bind { .. }) {
        return Err(PlanError::new(
            reason,
            "only binds can be shown through a mapping",
        ));
    }
    Ok(MountStep {
        no_symlinks: is_kernels(&target),
        target,
        kind,
        label: label.cloned(),
        options,
        mapping,
        reason,
    })
}

fn bind(
    mount: &Mount,
    bundle: &Path,
    recursive: bool,
    reason: &str,
) -> Result<MountKind, PlanError> {
    let source = mount
        .source()
        .as_ref()
        .filter(|source| !source.as_os_str().is_empty())
        .ok_or_else(|| PlanError::new(format!("{reason}.source"), "a bind needs one"))?;
    // Relative sources begin at the bundle.
    let source = absolute(&bundle.join(source), reason)?;
    Ok(MountKind::Bind { source, recursive })
}

/// The two file systems that show the container's own namespaces need those to be its own, or they
/// would show the host's and could change it.
fn check_file_system(
    name: &str,
    target: &Path,
    namespaces: &NamespacePlan,
    reason: &str,
) -> Result<(), PlanError> {
    let at_kernels = |path: &str| target == Path::new(path);
    if name == "proc" && !at_kernels("/proc") && target.starts_with("/proc") {
        return Err(PlanError::new(reason, "a procfs below /proc"));
    }
    // A procfs of the host's own processes or a sysfs of its network cannot be mounted from within
    // a user namespace; the kernel says so better than a rule here would.
    if name == "mqueue" && namespaces.has_users() && !namespaces.is_private(Namespace::Ipc) {
        return Err(PlanError::new(
            reason,
            "mqueue needs an IPC namespace of the container's own",
        ));
    }
    Ok(())
}
