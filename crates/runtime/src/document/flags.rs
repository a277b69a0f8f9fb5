// SPDX-License-Identifier: Apache-2.0
//! The Linux flags of oci-runtime-tool's `generate`, a table entry each.
//!
//! An entry holds all that is known of a flag: the command line, its help, completion and the tests
//! are made from it. Flags are applied in the order of the command line, but for those that remove
//! all of something or set a default, which come first.
//!
//! Not in the table is what that tool spells as docker does, and means the same by: `--env`,
//! `--env-file`, `--hostname`, `--privileged`, `--label` (an annotation; a document has no labels).
//!
//! # Source
//! `oci-runtime-tool-generate(1)` of runtime-tools 0.9; runtime-spec 1.2 for the places.

use serde_json::Value;

use super::edit::Edit::{self, Append, Clear, Device, Drop, Members, Own, Put, Set};
use super::own;
use super::values as v;

/// When a flag is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Before all others.
    First,
    /// In the order of the command line.
    Normal,
    /// After all others.
    Last,
}

use When::{First, Last, Normal};

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// What its value is called; a switch has none, and takes `true` or `false` after a `=`.
    pub value: Option<&'static str>,
    /// When it is applied.
    pub when: When,
    /// What it does.
    pub edit: Edit,
    /// Where, as a JSON pointer.
    pub pointer: &'static str,
    /// For `--help`.
    pub help: &'static str,
}

/// A flag that was given, with its value.
#[derive(Debug, Clone)]
pub struct Given {
    /// Which.
    pub flag: &'static Flag,
    /// Its value.
    pub value: String,
}

/// A flag whose value makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} {value:?}: {problem}")]
pub struct FlagError {
    /// Which flag.
    pub flag: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Applies flags to a document.
///
/// # Errors
/// A value that makes no sense, or a document with something else where a flag wants to write.
pub fn apply(document: &mut Value, given: &[Given]) -> Result<(), FlagError> {
    for when in [First, Normal, Last] {
        for Given { flag, value } in given.iter().filter(|given| given.flag.when == when) {
            flag.edit
                .apply(document, flag.pointer, value)
                .map_err(|problem| FlagError {
                    flag: flag.name,
                    value: value.clone(),
                    problem,
                })?;
        }
    }
    Ok(())
}

/// Sets a text.
pub(super) fn set(
    document: &mut Value,
    pointer: &'static str,
    text: &str,
) -> Result<(), FlagError> {
    Set(v::text)
        .apply(document, pointer, text)
        .map_err(|problem| FlagError {
            flag: pointer,
            value: text.into(),
            problem,
        })
}

/// Every flag, by subject.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    Flag { name: "domainname", value: Some("NAME"), when: Normal, edit: Set(v::text), pointer: "/domainname", help: "NIS domain name of the container" },
    Flag { name: "rootfs-path", value: Some("PATH"), when: Normal, edit: Set(v::text), pointer: "/root/path", help: "Root file system, absolute or relative to the bundle" },
    Flag { name: "rootfs-readonly", value: None, when: Normal, edit: Set(v::boolean), pointer: "/root/readonly", help: "Make the root read-only" },
    Flag { name: "os", value: Some("OS"), when: Normal, edit: Own(own::system), pointer: "", help: "Operating system; linux is the only one" },
    Flag { name: "process-terminal", value: None, when: Normal, edit: Set(v::boolean), pointer: "/process/terminal", help: "Give the process a terminal" },
    Flag { name: "process-consolesize", value: Some("WIDTH:HEIGHT"), when: Normal, edit: Set(v::console), pointer: "/process/consoleSize", help: "First size of the terminal" },
    Flag { name: "process-cwd", value: Some("PATH"), when: Normal, edit: Set(v::text), pointer: "/process/cwd", help: "Working directory" },
    Flag { name: "process-uid", value: Some("UID"), when: Normal, edit: Set(v::id), pointer: "/process/user/uid", help: "User id" },
    Flag { name: "process-gid", value: Some("GID"), when: Normal, edit: Set(v::id), pointer: "/process/user/gid", help: "Group id" },
    Flag { name: "process-groups", value: Some("GID"), when: Normal, edit: Put(v::id), pointer: "/process/user/additionalGids", help: "Add a supplementary group" },
    Flag { name: "process-umask", value: Some("MODE"), when: Normal, edit: Set(v::mode), pointer: "/process/user/umask", help: "File mode creation mask; octal after a 0" },
    Flag { name: "process-username", value: Some("NAME"), when: Normal, edit: Set(v::text), pointer: "/process/user/username", help: "User name; a member that Linux runtimes ignore" },
    Flag { name: "process-no-new-privileges", value: None, when: Normal, edit: Set(v::boolean), pointer: "/process/noNewPrivileges", help: "No privileges from set-id files" },
    Flag { name: "process-rlimits-add", value: Some("RLIMIT:HARD:SOFT"), when: Normal, edit: Put(v::rlimit), pointer: "/process/rlimits", help: "Set a resource limit" },
    Flag { name: "process-rlimits-remove", value: Some("RLIMIT"), when: Normal, edit: Drop(v::type_only), pointer: "/process/rlimits", help: "Remove a resource limit" },
    Flag { name: "process-rlimits-remove-all", value: None, when: First, edit: Clear, pointer: "/process/rlimits", help: "Remove all resource limits" },
    Flag { name: "process-cap-drop-all", value: None, when: First, edit: Own(own::cap_drop_all), pointer: "/process/capabilities", help: "Drop every capability" },
    Flag { name: "process-cap-add", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_add), pointer: "/process/capabilities", help: "Add to all five sets" },
    Flag { name: "process-cap-add-ambient", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_add_ambient), pointer: "/process/capabilities/ambient", help: "Add to the ambient set" },
    Flag { name: "process-cap-add-bounding", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_add_bounding), pointer: "/process/capabilities/bounding", help: "Add to the bounding set" },
    Flag { name: "process-cap-add-effective", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_add_effective), pointer: "/process/capabilities/effective", help: "Add to the effective set" },
    Flag { name: "process-cap-add-inheritable", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_add_inheritable), pointer: "/process/capabilities/inheritable", help: "Add to the inheritable set" },
    Flag { name: "process-cap-add-permitted", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_add_permitted), pointer: "/process/capabilities/permitted", help: "Add to the permitted set" },
    Flag { name: "process-cap-drop", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_drop), pointer: "/process/capabilities", help: "Drop from all five sets" },
    Flag { name: "process-cap-drop-ambient", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_drop_ambient), pointer: "/process/capabilities/ambient", help: "Drop from the ambient set" },
    Flag { name: "process-cap-drop-bounding", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_drop_bounding), pointer: "/process/capabilities/bounding", help: "Drop from the bounding set" },
    Flag { name: "process-cap-drop-effective", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_drop_effective), pointer: "/process/capabilities/effective", help: "Drop from the effective set" },
    Flag { name: "process-cap-drop-inheritable", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_drop_inheritable), pointer: "/process/capabilities/inheritable", help: "Drop from the inheritable set" },
    Flag { name: "process-cap-drop-permitted", value: Some("CAP,…"), when: Normal, edit: Own(own::cap_drop_permitted), pointer: "/process/capabilities/permitted", help: "Drop from the permitted set" },
    Flag { name: "mounts-add", value: Some("JSON"), when: Normal, edit: Put(v::mount), pointer: "/mounts", help: "Add a mount, in place of one at the same destination" },
    Flag { name: "mounts-remove", value: Some("PATH"), when: Normal, edit: Drop(v::destination), pointer: "/mounts", help: "Remove the mount at a destination" },
    Flag { name: "mounts-remove-all", value: None, when: First, edit: Clear, pointer: "/mounts", help: "Remove all mounts" },
    Flag { name: "hooks-prestart-add", value: Some("JSON"), when: Normal, edit: Put(v::hook), pointer: "/hooks/prestart", help: "Add a prestart hook, in place of one with the same path" },
    Flag { name: "hooks-prestart-remove-all", value: None, when: First, edit: Clear, pointer: "/hooks/prestart", help: "Remove all prestart hooks" },
    Flag { name: "hooks-poststart-add", value: Some("JSON"), when: Normal, edit: Put(v::hook), pointer: "/hooks/poststart", help: "Add a poststart hook" },
    Flag { name: "hooks-poststart-remove-all", value: None, when: First, edit: Clear, pointer: "/hooks/poststart", help: "Remove all poststart hooks" },
    Flag { name: "hooks-poststop-add", value: Some("JSON"), when: Normal, edit: Put(v::hook), pointer: "/hooks/poststop", help: "Add a poststop hook" },
    Flag { name: "hooks-poststop-remove-all", value: None, when: First, edit: Clear, pointer: "/hooks/poststop", help: "Remove all poststop hooks" },
    Flag { name: "linux-apparmor", value: Some("PROFILE"), when: Normal, edit: Set(v::text), pointer: "/process/apparmorProfile", help: "AppArmor profile" },
    Flag { name: "linux-selinux-label", value: Some("LABEL"), when: Normal, edit: Set(v::text), pointer: "/process/selinuxLabel", help: "SELinux label of the process" },
    Flag { name: "linux-mount-label", value: Some("LABEL"), when: Normal, edit: Set(v::text), pointer: "/linux/mountLabel", help: "SELinux label of mounts" },
    Flag { name: "linux-oom-score-adj", value: Some("NUMBER"), when: Normal, edit: Set(v::signed), pointer: "/process/oomScoreAdj", help: "How readily the kernel kills the process" },
    Flag { name: "linux-rootfs-propagation", value: Some("MODE"), when: Normal, edit: Set(v::propagation), pointer: "/linux/rootfsPropagation", help: "(r)shared, (r)slave, (r)private or (r)unbindable" },
    Flag { name: "linux-masked-paths", value: Some("PATH"), when: Normal, edit: Put(v::text), pointer: "/linux/maskedPaths", help: "Hide a path" },
    Flag { name: "linux-readonly-paths", value: Some("PATH"), when: Normal, edit: Put(v::text), pointer: "/linux/readonlyPaths", help: "Make a path read-only" },
    Flag { name: "linux-sysctl", value: Some("KEY=VALUE"), when: Normal, edit: Members(v::pair), pointer: "/linux/sysctl", help: "Set a kernel setting of the container's namespaces" },
    Flag { name: "linux-namespace-add", value: Some("TYPE[:PATH]"), when: Normal, edit: Put(v::namespace), pointer: "/linux/namespaces", help: "Make a namespace, or join the one at a path" },
    Flag { name: "linux-namespace-remove", value: Some("TYPE"), when: Normal, edit: Drop(v::type_only), pointer: "/linux/namespaces", help: "Stay in the namespace of the caller" },
    Flag { name: "linux-namespace-remove-all", value: None, when: First, edit: Clear, pointer: "/linux/namespaces", help: "Stay in all namespaces of the caller" },
    Flag { name: "linux-uidmappings", value: Some("HOST:CONTAINER:SIZE"), when: Normal, edit: Own(own::map_uids), pointer: "/linux/uidMappings", help: "Map user ids; implies a user namespace" },
    Flag { name: "linux-gidmappings", value: Some("HOST:CONTAINER:SIZE"), when: Normal, edit: Own(own::map_gids), pointer: "/linux/gidMappings", help: "Map group ids; implies a user namespace" },
    Flag { name: "linux-device-add", value: Some("TYPE:MAJOR:MINOR:PATH[:OPTION…]"), when: Normal, edit: Put(v::device), pointer: "/linux/devices", help: "Make a device node; options are fileMode=, uid=, gid=" },
    Flag { name: "linux-device-remove", value: Some("PATH"), when: Normal, edit: Drop(v::device_path), pointer: "/linux/devices", help: "Make no device node at a path" },
    Flag { name: "linux-device-remove-all", value: None, when: First, edit: Clear, pointer: "/linux/devices", help: "Make no device nodes but the default ones" },
    Flag { name: "linux-device-cgroup-add", value: Some("allow|deny[,KEY=VALUE…]"), when: Normal, edit: Append(v::device_rule), pointer: "/linux/resources/devices", help: "Add a rule on devices; keys are type, major, minor, access" },
    Flag { name: "linux-device-cgroup-remove", value: Some("allow|deny[,KEY=VALUE…]"), when: Normal, edit: Drop(v::device_rule), pointer: "/linux/resources/devices", help: "Remove a rule on devices" },
    Flag { name: "linux-cgroups-path", value: Some("PATH"), when: Normal, edit: Set(v::text), pointer: "/linux/cgroupsPath", help: "Control group" },
    Flag { name: "linux-cpu-shares", value: Some("NUMBER"), when: Normal, edit: Set(v::unsigned), pointer: "/linux/resources/cpu/shares", help: "Relative share of processor time" },
    Flag { name: "linux-cpu-quota", value: Some("MICROSECONDS"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/cpu/quota", help: "Processor time in one period" },
    Flag { name: "linux-cpu-period", value: Some("MICROSECONDS"), when: Normal, edit: Set(v::unsigned), pointer: "/linux/resources/cpu/period", help: "Length of a period" },
    Flag { name: "linux-realtime-runtime", value: Some("MICROSECONDS"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/cpu/realtimeRuntime", help: "Realtime processor time in one period" },
    Flag { name: "linux-realtime-period", value: Some("MICROSECONDS"), when: Normal, edit: Set(v::unsigned), pointer: "/linux/resources/cpu/realtimePeriod", help: "Length of a realtime period" },
    Flag { name: "linux-cpus", value: Some("LIST"), when: Normal, edit: Set(v::text), pointer: "/linux/resources/cpu/cpus", help: "Processors to run on" },
    Flag { name: "linux-mems", value: Some("LIST"), when: Normal, edit: Set(v::text), pointer: "/linux/resources/cpu/mems", help: "Memory nodes to use" },
    Flag { name: "linux-mem-limit", value: Some("BYTES"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/memory/limit", help: "Limit of memory" },
    Flag { name: "linux-mem-reservation", value: Some("BYTES"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/memory/reservation", help: "Soft limit of memory" },
    Flag { name: "linux-mem-swap", value: Some("BYTES"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/memory/swap", help: "Limit of memory and swap together" },
    Flag { name: "linux-mem-swappiness", value: Some("NUMBER"), when: Normal, edit: Set(v::unsigned), pointer: "/linux/resources/memory/swappiness", help: "How readily memory is swapped, 0 to 100" },
    Flag { name: "linux-mem-kernel-limit", value: Some("BYTES"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/memory/kernel", help: "Limit of kernel memory" },
    Flag { name: "linux-mem-kernel-tcp", value: Some("BYTES"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/memory/kernelTCP", help: "Limit of kernel memory for TCP" },
    Flag { name: "linux-disable-oom-kill", value: None, when: Normal, edit: Set(v::boolean), pointer: "/linux/resources/memory/disableOOMKiller", help: "Stop processes that run out of memory instead of killing one" },
    Flag { name: "linux-pids-limit", value: Some("NUMBER"), when: Normal, edit: Set(v::signed), pointer: "/linux/resources/pids/limit", help: "Limit of processes" },
    Flag { name: "linux-blkio-weight", value: Some("WEIGHT"), when: Normal, edit: Set(v::unsigned), pointer: "/linux/resources/blockIO/weight", help: "Relative weight of block I/O, 10 to 1000" },
    Flag { name: "linux-blkio-leaf-weight", value: Some("WEIGHT"), when: Normal, edit: Set(v::unsigned), pointer: "/linux/resources/blockIO/leafWeight", help: "Weight against the control groups below" },
    Flag { name: "linux-blkio-weight-device", value: Some("MAJOR:MINOR:WEIGHT"), when: Normal, edit: Device(v::weight, "weight"), pointer: "/linux/resources/blockIO/weightDevice", help: "Weight for a device; -1 removes it" },
    Flag { name: "linux-blkio-leaf-weight-device", value: Some("MAJOR:MINOR:WEIGHT"), when: Normal, edit: Device(v::leaf_weight, "leafWeight"), pointer: "/linux/resources/blockIO/weightDevice", help: "Leaf weight for a device; -1 removes it" },
    Flag { name: "linux-blkio-read-bps-device", value: Some("MAJOR:MINOR:RATE"), when: Normal, edit: Device(v::rate, "rate"), pointer: "/linux/resources/blockIO/throttleReadBpsDevice", help: "Bytes read in a second; -1 removes it" },
    Flag { name: "linux-blkio-write-bps-device", value: Some("MAJOR:MINOR:RATE"), when: Normal, edit: Device(v::rate, "rate"), pointer: "/linux/resources/blockIO/throttleWriteBpsDevice", help: "Bytes written in a second; -1 removes it" },
    Flag { name: "linux-blkio-read-iops-device", value: Some("MAJOR:MINOR:RATE"), when: Normal, edit: Device(v::rate, "rate"), pointer: "/linux/resources/blockIO/throttleReadIOPSDevice", help: "Reads in a second; -1 removes it" },
    Flag { name: "linux-blkio-write-iops-device", value: Some("MAJOR:MINOR:RATE"), when: Normal, edit: Device(v::rate, "rate"), pointer: "/linux/resources/blockIO/throttleWriteIOPSDevice", help: "Writes in a second; -1 removes it" },
    Flag { name: "linux-hugepage-limits-add", value: Some("PAGESIZE:LIMIT"), when: Normal, edit: Put(v::huge_pages), pointer: "/linux/resources/hugepageLimits", help: "Limit huge pages of a size, in bytes" },
    Flag { name: "linux-hugepage-limits-drop", value: Some("PAGESIZE"), when: Normal, edit: Drop(v::page_size), pointer: "/linux/resources/hugepageLimits", help: "Remove the limit of huge pages of a size" },
    Flag { name: "linux-network-classid", value: Some("NUMBER"), when: Normal, edit: Set(v::id), pointer: "/linux/resources/network/classID", help: "Class of the container's packets" },
    Flag { name: "linux-network-priorities", value: Some("NAME:PRIORITY"), when: Normal, edit: Device(v::priority, "priority"), pointer: "/linux/resources/network/priorities", help: "Priority on an interface; -1 removes it" },
    Flag { name: "linux-intelRdt-closid", value: Some("NAME"), when: Normal, edit: Set(v::text), pointer: "/linux/intelRdt/closID", help: "Class of service for caches" },
    Flag { name: "linux-intelRdt-l3CacheSchema", value: Some("SCHEMA"), when: Normal, edit: Set(v::text), pointer: "/linux/intelRdt/l3CacheSchema", help: "Shares of the L3 caches" },
    Flag { name: "linux-seccomp-remove-all", value: None, when: First, edit: Clear, pointer: "/linux/seccomp/syscalls", help: "Remove all rules of the system call filter" },
    Flag { name: "linux-seccomp-default", value: Some("ACTION"), when: First, edit: Own(own::seccomp_default), pointer: "/linux/seccomp/defaultAction", help: "Default action; rules with that action are removed" },
    Flag { name: "linux-seccomp-default-force", value: Some("ACTION"), when: First, edit: Own(own::seccomp_default_force), pointer: "/linux/seccomp/defaultAction", help: "Default action; rules stay" },
    Flag { name: "linux-seccomp-arch", value: Some("ARCH,…"), when: Normal, edit: Own(own::seccomp_arch), pointer: "/linux/seccomp/architectures", help: "Filter this architecture's system calls, too" },
    Flag { name: "linux-seccomp-allow", value: Some("CALL,…"), when: Normal, edit: Own(own::seccomp_allow), pointer: "/linux/seccomp/syscalls", help: "Allow system calls, or CALL:INDEX:VALUE:VALUETWO:OP" },
    Flag { name: "linux-seccomp-errno", value: Some("CALL,…"), when: Normal, edit: Own(own::seccomp_errno), pointer: "/linux/seccomp/syscalls", help: "Refuse system calls with an error" },
    Flag { name: "linux-seccomp-kill", value: Some("CALL,…"), when: Normal, edit: Own(own::seccomp_kill), pointer: "/linux/seccomp/syscalls", help: "Kill for system calls" },
    Flag { name: "linux-seccomp-trace", value: Some("CALL,…"), when: Normal, edit: Own(own::seccomp_trace), pointer: "/linux/seccomp/syscalls", help: "Tell a tracer of system calls" },
    Flag { name: "linux-seccomp-trap", value: Some("CALL,…"), when: Normal, edit: Own(own::seccomp_trap), pointer: "/linux/seccomp/syscalls", help: "Send SIGSYS for system calls" },
    Flag { name: "linux-seccomp-remove", value: Some("CALL,…"), when: Normal, edit: Own(own::seccomp_remove), pointer: "/linux/seccomp/syscalls", help: "Remove every rule on system calls" },
    Flag { name: "linux-seccomp-only", value: None, when: Last, edit: Own(own::seccomp_only), pointer: "/linux/seccomp", help: "Make the system call filter alone" },
];

#[cfg(test)]
mod tests;
