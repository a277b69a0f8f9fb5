// SPDX-License-Identifier: Apache-2.0
//! `features`: what this runtime can do, as the specification words it.
//!
//! # Source
//! runtime-spec 1.3 "Features Structure".

use gantry_runtime::capability::CapabilitySet;
use gantry_runtime::document::validate::{MEMORY_FLAGS, MEMORY_MODES};
use gantry_runtime::oci::seccomp::{self, Machine};
use serde_json::json;

use super::{Answer, Failure};
use crate::output;

const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "tmpcopyup",
];

pub(super) fn features() -> Answer {
    let capabilities: Vec<String> = CapabilitySet::ALL
        .iter()
        .map(gantry_runtime::capability::Capability::name)
        .collect();
    let supported: Vec<&str> = seccomp::FLAGS
        .iter()
        .filter(|(_, flag)| gantry_sys::seccomp::knows_flags(*flag))
        .map(|(name, _)| *name)
        .collect();
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "seccomp": {
                "enabled": Machine::native().is_some(),
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": Machine::ALL.map(Machine::arch_name),
                "knownFlags": seccomp::FLAGS.map(|(name, _)| name),
                "supportedFlags": supported,
            },
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": MEMORY_MODES, "flags": MEMORY_FLAGS},
            "netDevices": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {"org.gantry.version": env!("CARGO_PKG_VERSION")},
    });
    output::json(&document).map_err(|failure| Failure::Usage(failure.sentence()))?;
    Ok(0)
}
