// SPDX-License-Identifier: Apache-2.0
//! From a runtime document to everything that init will do: pure, printable, complete before there is
//! an init.
//!
//! ```text
//!  Spec ──┐
//!         ├─ plan ──► Plan ── lines ──► one line a step, with its reason
//!  Facts ─┘   pure      └─► init
//! ```
//!
//! # Source
//! runtime-spec 1.3 "Configuration", "Linux Container Configuration".

mod devices;
mod mounts;
mod namespaces;
mod net_devices;
mod options;
mod print;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_sys::mount::Propagation;
use oci_spec::runtime::Spec;
use serde::Serialize;

pub use devices::{DeviceKind, DeviceStep, LinkStep};
pub use mounts::{IdMapping, MountKind, MountMapping, MountStep};
pub use namespaces::{NamespacePlan, NamespaceStep};
pub use net_devices::NetDeviceStep;
pub use options::{Attributes, MountOptions};
pub use process::{CapabilityMasks, MemoryPolicy, ProcessPlan, RlimitStep, process};

/// What the planner has to know of the machine and of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The runtime's user may not do what root may: it has no right outside a user namespace.
    pub rootless: bool,
    /// It has every right, but in a user namespace of somebody's: none over the host's devices.
    pub nested: bool,
    /// Limits and scores may be raised.
    pub may_raise_limits: bool,
    /// The hard limits of the runtime itself, of those that the document lists; empty if it may raise them.
    pub hard_limits: BTreeMap<String, u64>,
    /// The score of the runtime itself, below which it may not go without that right.
    pub own_oom_score_adj: i32,
    /// The kernel enforces SELinux labels.
    pub selinux: bool,
    /// The kernel enforces AppArmor profiles.
    pub apparmor: bool,
}

/// Why a document cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {rule}")]
pub struct PlanError {
    /// The place in the document, as jq spells it.
    pub path: String,
    /// What is wrong there.
    pub rule: String,
}

impl PlanError {
    pub(super) fn new(path: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            rule: rule.into(),
        }
    }
}

/// A path of the container that is hidden or made read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathStep {
    /// Absolute, in the container.
    pub path: PathBuf,
    /// Where the document says so.
    pub reason: String,
}

/// A kernel parameter of the container's namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SysctlStep {
    /// Relative to `/proc/sys`.
    pub path: String,
    /// What is written.
    pub value: String,
    /// Where the document says so.
    pub reason: String,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootfsStep {
    /// On the host.
    pub path: PathBuf,
    /// Read-only before the program runs.
    pub readonly: bool,
    /// How events pass between the container's root and the host.
    pub propagation: Option<Propagation>,
}

/// Everything that init does, in the order of the members.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Namespaces made and joined.
    pub namespaces: NamespacePlan,
    /// The host's name in the container.
    pub hostname: Option<String>,
    /// Likewise the NIS domain's.
    pub domainname: Option<String>,
    /// Network devices of the host that the container gets.
    pub net_devices: Vec<NetDeviceStep>,
    /// The root file system.
    pub rootfs: RootfsStep,
    /// What is mounted, in order.
    pub mounts: Vec<MountStep>,
    /// Nodes in `/dev`; none when `/dev` is the host's.
    pub devices: Vec<DeviceStep>,
    /// Symlinks in `/dev`.
    pub links: Vec<LinkStep>,
    /// Kernel parameters.
    pub sysctls: Vec<SysctlStep>,
    /// Paths that are read-only.
    pub readonly_paths: Vec<PathStep>,
    /// Paths that are hidden.
    pub masked_paths: Vec<PathStep>,
    /// What the process is and may do.
    pub process: ProcessPlan,
    /// What could not be done as written and is done less, one sentence each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether what binds show is opened before the container's mounts are parted from the host's: where its users may
    /// not open it, and where events shall pass.
    #[must_use]
    pub fn opens_early(&self) -> bool {
        let passes = matches!(
            self.rootfs.propagation,
            Some(Propagation::Shared | Propagation::Slave)
        );
        let mapped = self.mounts.iter().any(|step| step.mapping.is_some());
        passes || mapped || self.namespaces.has_users() || !self.namespaces.has_mounts()
    }
}

/// Decides.
///
/// `bundle` is absolute; relative paths of the document begin there.
///
/// # Errors
/// The document asks for what makes no sense or cannot be had here.
pub fn plan(spec: &Spec, bundle: &Path, facts: &Facts) -> Result<Plan, PlanError> {
    let mut warnings = Vec::new();
    check_version(spec.version())?;
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| PlanError::new(".root", "missing"))?;
    let namespaces = namespaces::plan(spec, facts)?;
    let process = match spec.process() {
        Some(process) => process::plan(spec, process, facts, &mut warnings)?,
        None => return Err(PlanError::new(".process", "missing")),
    };
    let uts = gantry_sys::clone::Namespace::Uts;
    let has_uts = namespaces.is_private(uts) || namespaces.is_joined(uts);
    let named = |path: &str, name: &Option<String>| match name {
        Some(name) if !name.is_empty() && !has_uts => Err(PlanError::new(
            path,
            format!("{name:?} needs a UTS namespace of the container's own"),
        )),
        Some(name) if name.is_empty() => Ok(None),
        other => Ok(other.clone()),
    };
    let hostname = named(".hostname", spec.hostname())?;
    let domainname = named(".domainname", spec.domainname())?;
    let mounts = mounts::plan(spec, bundle, facts, &namespaces, &mut warnings)?;
    let (devices, links) = devices::plan(spec, &mounts)?;
    let linux = spec.linux().as_ref();
    let sysctls = sysctls(spec, &namespaces)?;
    for (name, taken) in [("hostname", &hostname), ("domainname", &domainname)] {
        let path = format!("kernel/{name}");
        // The same said twice is no conflict.
        let differs = |value: &str| taken.as_ref().is_some_and(|taken| taken != value);
        if let Some(step) = sysctls
            .iter()
            .find(|step| step.path == path && differs(&step.value))
        {
            return Err(PlanError::new(
                step.reason.clone(),
                format!("conflicts with .{name}"),
            ));
        }
    }
    let paths = |what: &str, list: Option<&Vec<String>>| {
        list.into_iter()
            .flatten()
            .enumerate()
            .map(|(index, path)| {
                let reason = format!(".linux.{what}[{index}]");
                absolute(path.as_ref(), &reason).map(|path| PathStep { path, reason })
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let readonly_paths = paths(
        "readonlyPaths",
        linux.and_then(|linux| linux.readonly_paths().as_ref()),
    )?;
    let masked_paths = paths(
        "maskedPaths",
        linux.and_then(|linux| linux.masked_paths().as_ref()),
    )?;
    let propagation = linux
        .and_then(|linux| linux.rootfs_propagation().as_deref())
        .filter(|text| !text.is_empty())
        .map(|text| {
            let bare = text.strip_prefix('r').unwrap_or(text);
            options::propagation(bare).ok_or_else(|| {
                PlanError::new(".linux.rootfsPropagation", format!("{text:?} is none"))
            })
        })
        .transpose()?;
    let net_devices = net_devices::plan(spec, &namespaces)?;
    Ok(Plan {
        namespaces,
        net_devices,
        hostname,
        domainname,
        rootfs: RootfsStep {
            path: bundle.join(root.path()),
            readonly: root.readonly().unwrap_or(false),
            propagation,
        },
        mounts,
        devices,
        links,
        sysctls,
        readonly_paths,
        masked_paths,
        process,
        warnings,
    })
}

/// Version 1 in any form is understood: what later versions add is left alone by earlier ones.
fn check_version(version: &str) -> Result<(), PlanError> {
    let known = version.split('.').count() >= 3 && version.starts_with("1.");
    if known {
        return Ok(());
    }
    Err(PlanError::new(
        ".ociVersion",
        format!("{version:?} is no version 1 of the runtime specification"),
    ))
}

fn absolute(path: &Path, place: &str) -> Result<PathBuf, PlanError> {
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(PlanError::new(place, format!("{path:?} is not absolute")))
    }
}

/// A parameter may be set only where a namespace of the container's own keeps it from the host.
fn sysctls(spec: &Spec, namespaces: &NamespacePlan) -> Result<Vec<SysctlStep>, PlanError> {
    use gantry_sys::clone::Namespace;
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let listed = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.sysctl().as_ref());
    let mut steps = Vec::new();
    for (name, value) in listed.into_iter().flatten() {
        let reason = format!(".linux.sysctl[{name:?}]");
        // Both spellings of sysctl(8): a name with slashes first keeps its dots.
        let slashes = name.find('/').unwrap_or(usize::MAX);
        let dots = name.find('.').unwrap_or(usize::MAX);
        let path = if slashes < dots {
            name.clone()
        } else {
            name.chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect()
        };
        let strange = path.is_empty()
            || path
                .split('/')
                .any(|part| part.is_empty() || part == "." || part == "..");
        if strange {
            return Err(PlanError::new(reason, "is no name of a parameter"));
        }
        let dotted = path.replace('/', ".");
        let needed = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            Namespace::Ipc
        } else if dotted.starts_with("net.") {
            Namespace::Network
        } else if dotted.starts_with("user.") {
            Namespace::User
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            Namespace::Uts
        } else {
            return Err(PlanError::new(
                reason,
                "belongs to no namespace: it would be the host's",
            ));
        };
        // A joined namespace is somebody's own, too; only the host's is not.
        if !namespaces.is_private(needed) && !namespaces.is_joined(needed) {
            return Err(PlanError::new(
                reason,
                format!("needs a {} namespace of the container's own", needed.link()),
            ));
        }
        steps.push(SysctlStep {
            path,
            value: value.clone(),
            reason,
        });
    }
    steps.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(steps)
}

#[cfg(test)]
mod tests;
