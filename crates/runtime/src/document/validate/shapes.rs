// SPDX-License-Identifier: Apache-2.0
//! The members of a runtime document for Linux, as a table; a line is a member.
//!
//! # Source
//! runtime-spec 1.2 `config.md`, `config-linux.md`, `schema/`; members of 1.3 are known, too.

use super::schema::Shape::{self, Any, Bool, Int, List, Map, NotEmpty, Object, OneOf, Path, Text};
use super::schema::{Member, may, need};
use crate::rlimit;

const I64: Shape = Int(i64::MIN as i128, i64::MAX as i128);
const U64: Shape = Int(0, u64::MAX as i128);
const I32: Shape = Int(i32::MIN as i128, i32::MAX as i128);
const U32: Shape = Int(0, u32::MAX as i128);
/// Bytes, or -1 for no limit.
const LIMIT: Shape = Int(-1, i64::MAX as i128);
const WEIGHT: Shape = Int(10, 1000);
const TEXTS: Shape = List(&Text);

const VERSION: &str = "config.md, Specification version";
const ROOT: &str = "config.md, Root";
const MOUNTS: &str = "config.md, Mounts";
const PROCESS: &str = "config.md, Process";
const POSIX_PROCESS: &str = "config.md, POSIX process";
const LINUX_PROCESS: &str = "config.md, Linux Process";
const USER: &str = "config.md, POSIX-platform User";
const HOSTNAME: &str = "config.md, Hostname";
const DOMAINNAME: &str = "config.md, Domainname";
const PLATFORM: &str = "config.md, Platform-specific configuration";
const HOOKS: &str = "config.md, POSIX-platform Hooks";
const ANNOTATIONS: &str = "config.md, Annotations";
const NAMESPACES: &str = "config-linux.md, Namespaces";
const MAPPINGS: &str = "config-linux.md, User namespace mappings";
const OFFSETS: &str = "config-linux.md, Offset for Time Namespace";
const DEVICES: &str = "config-linux.md, Devices";
const CGROUPS: &str = "config-linux.md, Control groups";
const RULES: &str = "config-linux.md, Allowed Device list";
const MEMORY: &str = "config-linux.md, Memory";
const CPU: &str = "config-linux.md, CPU";
const BLOCK: &str = "config-linux.md, Block IO";
const HUGE: &str = "config-linux.md, Huge page limits";
const NETWORK: &str = "config-linux.md, Network";
const PIDS: &str = "config-linux.md, PIDs";
const RDMA: &str = "config-linux.md, RDMA";
const UNIFIED: &str = "config-linux.md, Unified";
const RDT: &str = "config-linux.md, IntelRdt";
const NET_DEVICES: &str = "config-linux.md, Network Devices";
const POLICY: &str = "config-linux.md, Memory policy";
const SYSCTL: &str = "config-linux.md, Sysctl";
const SECCOMP: &str = "config-linux.md, Seccomp";
const PROPAGATION: &str = "config-linux.md, Rootfs Mount Propagation";
const MASKED: &str = "config-linux.md, Masked Paths";
const READONLY: &str = "config-linux.md, Readonly Paths";
const LABEL: &str = "config-linux.md, Mount Label";
const PERSONALITY: &str = "config-linux.md, Personality";

pub(super) const SPEC: &[Member] = &[
    need("ociVersion", Text, VERSION),
    need("root", Object(ROOT_MEMBERS), ROOT),
    may("process", Object(PROCESS_MEMBERS), PROCESS),
    may("hostname", Text, HOSTNAME),
    may("domainname", Text, DOMAINNAME),
    may("mounts", List(&Object(MOUNT)), MOUNTS),
    may("hooks", Object(HOOK_STAGES), HOOKS),
    may("annotations", Map(&Text), ANNOTATIONS),
    may("linux", Object(LINUX), PLATFORM),
    may("solaris", Any, PLATFORM),
    may("windows", Any, PLATFORM),
    may("vm", Any, PLATFORM),
    may("zos", Any, PLATFORM),
    may("freebsd", Any, PLATFORM),
];

const ROOT_MEMBERS: &[Member] = &[need("path", Text, ROOT), may("readonly", Bool, ROOT)];

const PROCESS_MEMBERS: &[Member] = &[
    may("terminal", Bool, PROCESS),
    may("consoleSize", Object(CONSOLE), PROCESS),
    need("cwd", Path, PROCESS),
    may("env", TEXTS, PROCESS),
    may("args", NotEmpty(&Text), PROCESS),
    may("commandLine", Text, PROCESS),
    may("rlimits", List(&Object(RLIMIT)), POSIX_PROCESS),
    may("user", Object(USER_MEMBERS), USER),
    may("apparmorProfile", Text, LINUX_PROCESS),
    may("capabilities", Object(CAPABILITIES), LINUX_PROCESS),
    may("noNewPrivileges", Bool, LINUX_PROCESS),
    may("oomScoreAdj", Int(-1000, 1000), LINUX_PROCESS),
    may("scheduler", Object(SCHEDULER), LINUX_PROCESS),
    may("selinuxLabel", Text, LINUX_PROCESS),
    may("ioPriority", Object(IO_PRIORITY), LINUX_PROCESS),
    may("execCPUAffinity", Object(AFFINITY), LINUX_PROCESS),
];

const CONSOLE: &[Member] = &[
    need("height", Int(0, u16::MAX as i128), PROCESS),
    need("width", Int(0, u16::MAX as i128), PROCESS),
];

const RLIMIT: &[Member] = &[
    need("type", OneOf(&rlimit::NAMES), POSIX_PROCESS),
    need("soft", U64, POSIX_PROCESS),
    need("hard", U64, POSIX_PROCESS),
];

const USER_MEMBERS: &[Member] = &[
    may("uid", U32, USER),
    may("gid", U32, USER),
    may("umask", Int(0, 0o777), USER),
    may("additionalGids", List(&U32), USER),
    may("username", Text, USER),
];

const CAPABILITIES: &[Member] = &[
    may("effective", TEXTS, LINUX_PROCESS),
    may("bounding", TEXTS, LINUX_PROCESS),
    may("inheritable", TEXTS, LINUX_PROCESS),
    may("permitted", TEXTS, LINUX_PROCESS),
    may("ambient", TEXTS, LINUX_PROCESS),
];

const SCHEDULER: &[Member] = &[
    need("policy", OneOf(POLICIES), LINUX_PROCESS),
    may("nice", Int(-20, 19), LINUX_PROCESS),
    may("priority", I32, LINUX_PROCESS),
    may("flags", List(&OneOf(SCHEDULER_FLAGS)), LINUX_PROCESS),
    may("runtime", U64, LINUX_PROCESS),
    may("deadline", U64, LINUX_PROCESS),
    may("period", U64, LINUX_PROCESS),
];

const POLICIES: &[&str] = &[
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
];

const SCHEDULER_FLAGS: &[&str] = &[
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

const IO_PRIORITY: &[Member] = &[
    need("class", OneOf(IO_CLASSES), LINUX_PROCESS),
    may("priority", Int(0, 7), LINUX_PROCESS),
];

const IO_CLASSES: &[&str] = &["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];

const AFFINITY: &[Member] = &[
    may("initial", Text, LINUX_PROCESS),
    may("final", Text, LINUX_PROCESS),
];

const MOUNT: &[Member] = &[
    need("destination", Text, MOUNTS),
    may("source", Text, MOUNTS),
    may("options", TEXTS, MOUNTS),
    may("type", Text, MOUNTS),
    may("uidMappings", List(&Object(MAPPING)), MOUNTS),
    may("gidMappings", List(&Object(MAPPING)), MOUNTS),
];

const HOOK_STAGES: &[Member] = &[
    may("prestart", List(&Object(HOOK)), HOOKS),
    may("createRuntime", List(&Object(HOOK)), HOOKS),
    may("createContainer", List(&Object(HOOK)), HOOKS),
    may("startContainer", List(&Object(HOOK)), HOOKS),
    may("poststart", List(&Object(HOOK)), HOOKS),
    may("poststop", List(&Object(HOOK)), HOOKS),
];

const HOOK: &[Member] = &[
    need("path", Path, HOOKS),
    may("args", TEXTS, HOOKS),
    may("env", TEXTS, HOOKS),
    may("timeout", Int(1, i32::MAX as i128), HOOKS),
];

const LINUX: &[Member] = &[
    may("namespaces", List(&Object(NAMESPACE)), NAMESPACES),
    may("uidMappings", List(&Object(MAPPING)), MAPPINGS),
    may("gidMappings", List(&Object(MAPPING)), MAPPINGS),
    may("timeOffsets", Map(&Object(OFFSET)), OFFSETS),
    may("devices", List(&Object(DEVICE)), DEVICES),
    may("netDevices", Map(&Object(NET_DEVICE)), NET_DEVICES),
    may("cgroupsPath", Text, "config-linux.md, Cgroups Path"),
    may("resources", Object(RESOURCES), CGROUPS),
    may("intelRdt", Object(INTEL_RDT), RDT),
    may("memoryPolicy", Object(MEMORY_POLICY), POLICY),
    may("sysctl", Map(&Text), SYSCTL),
    may("seccomp", Object(SECCOMP_MEMBERS), SECCOMP),
    may("rootfsPropagation", OneOf(PROPAGATIONS), PROPAGATION),
    may("maskedPaths", List(&Path), MASKED),
    may("readonlyPaths", List(&Path), READONLY),
    may("mountLabel", Text, LABEL),
    may("personality", Object(PERSONALITY_MEMBERS), PERSONALITY),
];

const NET_DEVICE: &[Member] = &[may("name", Text, NET_DEVICES)];

const MEMORY_POLICY: &[Member] = &[
    need("mode", OneOf(MEMORY_MODES), POLICY),
    may("nodes", Text, POLICY),
    may("flags", List(&OneOf(MEMORY_FLAGS)), POLICY),
];

/// The modes of a memory policy, `linux.memoryPolicy.mode`.
pub const MEMORY_MODES: &[&str] = &[
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];

/// The flags of a memory policy, `linux.memoryPolicy.flags`.
pub const MEMORY_FLAGS: &[&str] = &[
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

/// The recursive forms are in no list of the specification, and in every runtime.
const PROPAGATIONS: &[&str] = &[
    "shared",
    "slave",
    "private",
    "unbindable",
    "rshared",
    "rslave",
    "rprivate",
    "runbindable",
];

const NAMESPACE: &[Member] = &[
    need("type", OneOf(NAMESPACE_TYPES), NAMESPACES),
    may("path", Path, NAMESPACES),
];

pub(super) const NAMESPACE_TYPES: &[&str] = &[
    "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
];

const MAPPING: &[Member] = &[
    need("containerID", U32, MAPPINGS),
    need("hostID", U32, MAPPINGS),
    need("size", U32, MAPPINGS),
];

const OFFSET: &[Member] = &[
    may("secs", I64, OFFSETS),
    may("nanosecs", Int(0, 999_999_999), OFFSETS),
];

const DEVICE: &[Member] = &[
    need("type", OneOf(&["c", "b", "u", "p"]), DEVICES),
    need("path", Path, DEVICES),
    may("major", Int(0, u32::MAX as i128), DEVICES),
    may("minor", Int(0, u32::MAX as i128), DEVICES),
    may("fileMode", Int(0, 0o7777), DEVICES),
    may("uid", U32, DEVICES),
    may("gid", U32, DEVICES),
];

const RESOURCES: &[Member] = &[
    may("devices", List(&Object(DEVICE_RULE)), RULES),
    may("memory", Object(MEMORY_MEMBERS), MEMORY),
    may("cpu", Object(CPU_MEMBERS), CPU),
    may("blockIO", Object(BLOCK_IO), BLOCK),
    may("hugepageLimits", List(&Object(HUGE_LIMIT)), HUGE),
    may("network", Object(NETWORK_MEMBERS), NETWORK),
    may("pids", Object(&[need("limit", I64, PIDS)]), PIDS),
    may("rdma", Map(&Object(RDMA_MEMBERS)), RDMA),
    may("unified", Map(&Text), UNIFIED),
];

const DEVICE_RULE: &[Member] = &[
    need("allow", Bool, RULES),
    may("type", OneOf(&["a", "c", "b"]), RULES),
    may("major", LIMIT, RULES),
    may("minor", LIMIT, RULES),
    may("access", Text, RULES),
];

const MEMORY_MEMBERS: &[Member] = &[
    may("limit", LIMIT, MEMORY),
    may("reservation", LIMIT, MEMORY),
    may("swap", LIMIT, MEMORY),
    may("kernel", LIMIT, MEMORY),
    may("kernelTCP", LIMIT, MEMORY),
    may("swappiness", Int(0, 100), MEMORY),
    may("disableOOMKiller", Bool, MEMORY),
    may("useHierarchy", Bool, MEMORY),
    may("checkBeforeUpdate", Bool, MEMORY),
];

const CPU_MEMBERS: &[Member] = &[
    may("shares", U64, CPU),
    may("quota", I64, CPU),
    may("burst", U64, CPU),
    may("period", U64, CPU),
    may("realtimeRuntime", I64, CPU),
    may("realtimePeriod", U64, CPU),
    may("cpus", Text, CPU),
    may("mems", Text, CPU),
    may("idle", Int(0, 1), CPU),
];

const BLOCK_IO: &[Member] = &[
    may("weight", WEIGHT, BLOCK),
    may("leafWeight", WEIGHT, BLOCK),
    may("weightDevice", List(&Object(WEIGHT_DEVICE)), BLOCK),
    may("throttleReadBpsDevice", List(&Object(THROTTLE)), BLOCK),
    may("throttleWriteBpsDevice", List(&Object(THROTTLE)), BLOCK),
    may("throttleReadIOPSDevice", List(&Object(THROTTLE)), BLOCK),
    may("throttleWriteIOPSDevice", List(&Object(THROTTLE)), BLOCK),
];

const WEIGHT_DEVICE: &[Member] = &[
    need("major", I64, BLOCK),
    need("minor", I64, BLOCK),
    may("weight", WEIGHT, BLOCK),
    may("leafWeight", WEIGHT, BLOCK),
];

const THROTTLE: &[Member] = &[
    need("major", I64, BLOCK),
    need("minor", I64, BLOCK),
    need("rate", U64, BLOCK),
];

const HUGE_LIMIT: &[Member] = &[need("pageSize", Text, HUGE), need("limit", U64, HUGE)];

const NETWORK_MEMBERS: &[Member] = &[
    may("classID", U32, NETWORK),
    may("priorities", List(&Object(PRIORITY)), NETWORK),
];

const PRIORITY: &[Member] = &[need("name", Text, NETWORK), need("priority", U32, NETWORK)];

const RDMA_MEMBERS: &[Member] = &[may("hcaHandles", U32, RDMA), may("hcaObjects", U32, RDMA)];

const INTEL_RDT: &[Member] = &[
    may("closID", Text, RDT),
    may("schemata", TEXTS, RDT),
    may("l3CacheSchema", Text, RDT),
    may("memBwSchema", Text, RDT),
    // Until 1.2.
    may("enableCMT", Bool, RDT),
    may("enableMBM", Bool, RDT),
    may("enableMonitoring", Bool, RDT),
];

const SECCOMP_MEMBERS: &[Member] = &[
    need("defaultAction", OneOf(ACTIONS), SECCOMP),
    may("defaultErrnoRet", U32, SECCOMP),
    may("flags", List(&OneOf(SECCOMP_FLAGS)), SECCOMP),
    may("listenerPath", Text, SECCOMP),
    may("listenerMetadata", Text, SECCOMP),
    may("architectures", List(&OneOf(ARCHITECTURES)), SECCOMP),
    may("syscalls", List(&Object(SYSCALL)), SECCOMP),
];

const SYSCALL: &[Member] = &[
    need("names", NotEmpty(&Text), SECCOMP),
    need("action", OneOf(ACTIONS), SECCOMP),
    may("errnoRet", U32, SECCOMP),
    may("args", List(&Object(ARGUMENT)), SECCOMP),
];

const ARGUMENT: &[Member] = &[
    need("index", Int(0, 5), SECCOMP),
    need("value", U64, SECCOMP),
    may("valueTwo", U64, SECCOMP),
    need("op", OneOf(OPERATORS), SECCOMP),
];

const ACTIONS: &[&str] = &[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];

const SECCOMP_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

const OPERATORS: &[&str] = &[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

const PERSONALITY_MEMBERS: &[Member] = &[
    need("domain", OneOf(&["LINUX", "LINUX32"]), PERSONALITY),
    may("flags", TEXTS, PERSONALITY),
];
