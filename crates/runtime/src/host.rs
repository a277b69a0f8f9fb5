// SPDX-License-Identifier: Apache-2.0
//! What this host can do for a container, as one plain value.
//!
//! [`probe_host`] is the only function of the crate's specification side that
//! looks at the machine; everything after it is pure and can be tested with a
//! value made by hand.
//!
//! The rule for what the host cannot do: a *default* of a profile that cannot
//! be had is clamped or left out, and a note says so once; what the *operator*
//! asked for and cannot be had is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::process::getrlimit;
use serde::{Deserialize, Serialize};

use crate::capability::CapabilitySet;
use crate::rlimit;

/// How control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cgroups {
    /// Not at all.
    None,
    /// Version 1, or both versions side by side.
    V1 {
        /// The controllers of version 1.
        controllers: BTreeSet<String>,
        /// Whether version 2 is mounted beside them.
        hybrid: bool,
        /// Whether swap can be limited.
        swap: bool,
    },
    /// Version 2 alone.
    V2 {
        /// The controllers.
        controllers: BTreeSet<String>,
        /// Whether swap can be limited.
        swap: bool,
    },
}

impl Cgroups {
    /// Whether a controller of that name can be used.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        match self {
            Self::None => false,
            Self::V1 { controllers, .. } | Self::V2 { controllers, .. } => {
                controllers.contains(controller)
            }
        }
    }

    /// Whether swap can be limited.
    #[must_use]
    pub fn has_swap(&self) -> bool {
        match self {
            Self::None => false,
            Self::V1 { swap, .. } | Self::V2 { swap, .. } => *swap,
        }
    }
}

/// The processor's family, as far as the system call filter needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// Any other.
    Other,
}

/// What the host can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The capabilities that can be given away.
    pub capabilities: CapabilitySet,
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// The hard limits above which nothing can be raised; empty where this
    /// process may raise them.
    pub rlimits_hard: BTreeMap<String, u64>,
    /// The processor's family.
    pub architecture: Architecture,
    /// Processors whose thermal counters must be hidden.
    pub thermal_cpus: u32,
    /// Yama's `ptrace_scope`; 0 without Yama.
    pub ptrace_scope: u8,
    /// Whether SELinux labels mean something.
    pub selinux: bool,
    /// Whether AppArmor profiles mean something.
    pub apparmor: bool,
    /// The host's own name.
    pub hostname: String,
    /// Whether there is an `/etc/resolv.conf`.
    pub resolv_conf: bool,
}

fn read_small(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn probe_capabilities() -> CapabilitySet {
    let mask = read_small("/proc/self/status").and_then(|status| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    CapabilitySet::from_mask(mask.unwrap_or(0))
}

fn probe_cgroups(base: &Path) -> Cgroups {
    if let Some(controllers) = read_small(base.join("cgroup.controllers")) {
        return Cgroups::V2 {
            controllers: controllers.split_whitespace().map(str::to_owned).collect(),
            swap: Path::new("/proc/swaps").exists(),
        };
    }
    let Ok(entries) = fs::read_dir(base) else {
        return Cgroups::None;
    };
    let mut controllers = BTreeSet::new();
    let mut hybrid = false;
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        match name.as_str() {
            "unified" => hybrid = true,
            "systemd" => {}
            joined => controllers.extend(joined.split(',').map(str::to_owned)),
        }
    }
    if controllers.is_empty() {
        return Cgroups::None;
    }
    Cgroups::V1 {
        hybrid,
        swap: base.join("memory/memory.memsw.limit_in_bytes").exists(),
        controllers,
    }
}

/// Looks at the machine.
///
/// # Concurrency
/// Reads a few files of `/proc` and `/sys`; takes a fraction of a millisecond.
#[must_use]
pub fn probe_host() -> HostFacts {
    let capabilities = probe_capabilities();
    let rlimits_hard = if capabilities.has("SYS_RESOURCE") {
        BTreeMap::new()
    } else {
        rlimit::options()
            .map(|(name, resource)| {
                let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
                (name.to_owned(), hard)
            })
            .collect()
    };
    let thermal = Path::new("/sys/devices/system/cpu/cpu0/thermal_throttle").exists();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    HostFacts {
        capabilities,
        cgroups: probe_cgroups(Path::new("/sys/fs/cgroup")),
        rlimits_hard,
        architecture: match std::env::consts::ARCH {
            "x86_64" => Architecture::X86_64,
            "aarch64" => Architecture::Aarch64,
            _ => Architecture::Other,
        },
        thermal_cpus: if thermal {
            u32::try_from(cpus).unwrap_or(u32::MAX)
        } else {
            0
        },
        ptrace_scope: read_small("/proc/sys/kernel/yama/ptrace_scope")
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        apparmor: Path::new("/sys/kernel/security/apparmor/profiles").exists(),
        hostname: read_small("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .unwrap_or_default(),
        resolv_conf: Path::new("/etc/resolv.conf").exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_probed() {
        let facts = probe_host();
        assert!(!facts.hostname.is_empty());
        if !facts.capabilities.has("SYS_RESOURCE") {
            assert!(facts.rlimits_hard.contains_key("nofile"));
        }
    }
}
