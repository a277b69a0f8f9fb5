// SPDX-License-Identifier: Apache-2.0
//! The profiles as tables: capabilities, hidden paths, limits, settings.
//!
//! | control | `production` | `compat` |
//! |---|---|---|
//! | capabilities | 7 | 11 |
//! | privileges by set-id files | no | yes |
//! | root | read-only; memory on `/run`, `/tmp`, `/var/tmp`; declared volumes writable | writable |
//! | system calls | allow-list, unknown ones do not exist | wider allow-list, namespaces allowed |
//! | hidden paths | union of what the engines hide, and kernel internals | podman's |
//! | processes, open files, core, locked memory | 1024, 1024:524288, 0, 64 KiB | 2048, inherited |
//! | settings of an own network | unprivileged ports and ping | none |

use crate::capability::CapabilitySet;
use crate::options::{Profile, Ulimit};

/// What the rest of the generator asks of a profile.
#[derive(Debug)]
pub(super) struct Defaults {
    pub capabilities: CapabilitySet,
    pub no_new_privileges: bool,
    pub writable: bool,
    pub masked_paths: Vec<&'static str>,
    pub readonly_paths: &'static [&'static str],
    pub ulimits: Vec<Ulimit>,
    pub pids_limit: i64,
    pub sysctls: &'static [(&'static str, &'static str)],
}

const PRODUCTION_CAPABILITIES: [&str; 7] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

const COMPAT_CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Hidden in every profile.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/dev/block",
];

/// Hidden in production on top: addresses and state of the kernel.
const MASKED_PRODUCTION: [&str; 17] = [
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/modules",
    "/proc/pressure",
    "/proc/swaps",
    "/proc/vmallocinfo",
    "/sys/fs/bpf",
    "/sys/fs/pstore",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/kernel/vmcoreinfo",
    "/sys/module",
];

/// Readable and no more.
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Settings of an own network that spare two capabilities.
const SYSCTLS_PRODUCTION: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

fn ulimit(name: &str, soft: u64, hard: u64) -> Ulimit {
    Ulimit {
        name: name.into(),
        soft,
        hard,
    }
}

pub(super) fn defaults(profile: Profile) -> Defaults {
    match profile {
        Profile::Production => Defaults {
            capabilities: CapabilitySet::of(&PRODUCTION_CAPABILITIES),
            no_new_privileges: true,
            writable: false,
            masked_paths: [MASKED.as_slice(), MASKED_PRODUCTION.as_slice()].concat(),
            readonly_paths: &READONLY,
            ulimits: vec![
                ulimit("core", 0, 0),
                ulimit("memlock", 64 << 10, 64 << 10),
                ulimit("nofile", 1024, 524_288),
            ],
            pids_limit: 1024,
            sysctls: &SYSCTLS_PRODUCTION,
        },
        Profile::Compat => Defaults {
            capabilities: CapabilitySet::of(&COMPAT_CAPABILITIES),
            no_new_privileges: false,
            writable: true,
            masked_paths: MASKED.to_vec(),
            readonly_paths: &READONLY,
            ulimits: Vec::new(),
            pids_limit: 2048,
            sysctls: &[],
        },
    }
}
