// SPDX-License-Identifier: Apache-2.0
//! What the planner has to know of this machine, looked at once and only as far as the document asks.

use std::collections::BTreeMap;

use oci_spec::runtime::Process;
use rustix::thread::CapabilitySet as Bits;

use super::confine::hard_limit;
use super::error::{Doing as _, RuntimeError};
use super::plan::Facts;

/// Whether root here is root of a user namespace alone, as below podman of a user: with every capability, and no right over
/// the host's devices and limits.
#[must_use]
pub fn is_nested() -> bool {
    /// The first user namespace has this number on every kernel.
    const FIRST: u64 = 0xEFFF_FFFD;
    // A kernel without user namespaces has nothing to look at.
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|stat| stat.st_ino != FIRST)
}

/// Whether the kernel has SELinux. Its file system is looked for among the mounts, not below its path: an enforced policy may
/// refuse that to us, too.
fn has_selinux() -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| mounts_selinux(&text))
}

fn mounts_selinux(mountinfo: &str) -> bool {
    mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .any(|(_, rest)| rest.starts_with("selinuxfs "))
}

/// Looks.
///
/// # Errors
/// The kernel's refusal.
pub fn probe(process: Option<&Process>, rootless: Option<bool>) -> Result<Facts, RuntimeError> {
    let held = rustix::thread::capabilities(None).doing(|| "read capabilities")?;
    let rootless = rootless.unwrap_or(!held.effective.contains(Bits::SYS_ADMIN));
    let nested = is_nested();
    let may_raise_limits = held.effective.contains(Bits::SYS_RESOURCE) && !rootless && !nested;
    let asks = |what: fn(&Process) -> bool| process.is_some_and(what);
    let hard_limits = if may_raise_limits {
        BTreeMap::new()
    } else {
        let listed = process.and_then(|process| process.rlimits().as_ref());
        listed
            .into_iter()
            .flatten()
            .filter_map(|limit| {
                let name = limit.typ().to_string();
                let most = hard_limit(&name)?;
                Some((name, most))
            })
            .collect()
    };
    let own_oom_score_adj =
        if may_raise_limits || !asks(|process| process.oom_score_adj().is_some()) {
            0
        } else {
            std::fs::read_to_string("/proc/self/oom_score_adj")
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0)
        };
    let selinux = asks(|process| process.selinux_label().is_some());
    let apparmor = asks(|process| process.apparmor_profile().is_some());
    Ok(Facts {
        rootless,
        nested,
        may_raise_limits,
        hard_limits,
        own_oom_score_adj,
        selinux: selinux && has_selinux(),
        apparmor: apparmor
            && std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y')),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selinux_is_found_by_its_mount() {
        let line = |kind: &str| format!("31 24 0:21 / /sys/fs/selinux rw - {kind} selinuxfs rw\n");
        assert!(mounts_selinux(&line("selinuxfs")));
        assert!(!mounts_selinux(&line("tmpfs")));
        assert!(!mounts_selinux(""));
    }
}
