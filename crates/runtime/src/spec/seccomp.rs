// SPDX-License-Identifier: Apache-2.0
//! The system call filters.
//!
//! A call that is in no list *does not exist* (`ENOSYS`), so that a C library
//! that probes for a new call falls back to the old one. Calls that programs
//! expect to be refused rather than missing answer `EPERM`; `clone3`, whose
//! flags a filter cannot see, always answers `ENOSYS`.
//!
//! What production refuses and why:
//!
//! | calls | reason | relaxed by |
//! |---|---|---|
//! | `clone` with a namespace flag, `unshare`, `setns`, the mount family | a way to more kernel | `--cap-add SYS_ADMIN`, `--profile compat` |
//! | `socket` of other families than unix, inet, inet6, netlink (route, uevent) | `AF_ALG`, `AF_VSOCK`, `AF_PACKET` | `--profile compat`, `--cap-add NET_RAW` for packets |
//! | `bpf`, `perf_event_open`, `io_uring_*`, `userfaultfd`, `keyctl` | history of holes | `--security-opt seccomp=FILE` |
//! | `ptrace`, `process_vm_*` | others' memory, where Yama does not confine it | `--cap-add SYS_PTRACE` |
//!
//! # Source
//! `seccomp(2)`; runtime-spec "Seccomp".

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use crate::capability::CapabilitySet;
use crate::host::{Architecture, HostFacts};
use crate::options::Profile;

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSYS: u32 = 38;
const EPROTONOSUPPORT: u32 = 93;
const EAFNOSUPPORT: u32 = 97;

/// Every `CLONE_NEW*` bit that `clone` takes.
const CLONE_NAMESPACES: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

const AF_NETLINK: u64 = 16;
const AF_PACKET: u64 = 17;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const NETLINK_AUDIT: u64 = 9;
/// More than the kernel has (`AF_MAX` is 46), with room for a few.
const FAMILIES: u64 = 64;

/// Allowed for everybody.
const ALLOWED: &str = "
_llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget
capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr
fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue
futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall
mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev
pwritev2 read readahead readdir readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64
recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall
riscv_flush_icache riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signal signalfd signalfd4
sigpending sigprocmask sigreturn sigsuspend socketpair splice stat stat64 statfs statfs64
statmount statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill
time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed in compat: what nested, rootless engines need.
const COMPAT_ALLOWED: &str = "
chroot clone clone3 fsconfig fsmount fsopen fspick get_mempolicy keyctl mbind mount mount_setattr
move_mount name_to_handle_at open_tree personality pidfd_getfd pivot_root process_madvise
process_vm_readv process_vm_writev ptrace set_mempolicy set_mempolicy_home_node setns socketcall
umount umount2 unshare";

/// Refused rather than missing.
const REFUSED: &str = "
_sysctl acct add_key afs_syscall bdflush bpf clock_settime clock_settime64 create_module
delete_module fanotify_init finit_module get_kernel_syms init_module io_uring_enter
io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load lookup_dcookie
migrate_pages modify_ldt move_pages nfsservctl open_by_handle_at perf_event_open query_module
quotactl quotactl_fd reboot request_key setdomainname sethostname settimeofday stime swapoff
swapon sysfs syslog uselib userfaultfd ustat vhangup vm86 vm86old";

/// Refused in production on top of that.
const PRODUCTION_REFUSED: &str = "
chroot fsconfig fsmount fsopen fspick get_mempolicy keyctl mbind mount mount_setattr move_mount
open_tree open_tree_attr pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev
ptrace set_mempolicy set_mempolicy_home_node setns socketcall umount umount2 unshare";

/// Calls that come with a capability.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    (
        "SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node move_pages migrate_pages",
    ),
    ("SYS_PACCT", "acct"),
    (
        "SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("SYS_RAWIO", "ioperm iopl"),
    (
        "SYS_TIME",
        "clock_settime clock_settime64 settimeofday stime",
    ),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// `personality(2)` values that only ask or only set harmless flags.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn arg(index: usize, value: u64, op: LinuxSeccompOperator) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(op)
        .build()
        .expect("every member of the builder has a default")
}

/// Compares the bits of `mask` in the first argument with `value`.
fn masked(mask: u64, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(0usize)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
        .expect("every member of the builder has a default")
}

fn equal(index: usize, value: u64) -> LinuxSeccompArg {
    arg(index, value, LinuxSeccompOperator::ScmpCmpEq)
}

fn rule(
    names: impl IntoIterator<Item = impl Into<String>>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.into_iter().map(Into::into).collect())
        .set_action(action)
        .set_errno_ret(errno)
        .set_args((!args.is_empty()).then_some(args));
    rule
}

fn allow_when(name: &str, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule([name], LinuxSeccompAction::ScmpActAllow, None, args)
}

fn refuse_when(name: &str, errno: u32, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule([name], LinuxSeccompAction::ScmpActErrno, Some(errno), args)
}

/// `clone` without namespace flags is allowed, with one refused.
fn clone_rules() -> Vec<LinuxSyscall> {
    let all = CLONE_NAMESPACES.iter().fold(0, |all, bit| all | bit);
    let mut rules = vec![allow_when("clone", vec![masked(all, 0)])];
    rules.extend(
        CLONE_NAMESPACES
            .iter()
            .map(|bit| refuse_when("clone", EPERM, vec![masked(*bit, *bit)])),
    );
    rules
}

/// The families that production knows, and clear answers for the others.
fn production_socket_rules(capabilities: CapabilitySet) -> Vec<LinuxSyscall> {
    const AF_UNIX: u64 = 1;
    const AF_INET: u64 = 2;
    const AF_INET6: u64 = 10;
    const NETLINK_ROUTE: u64 = 0;
    const NETLINK_KOBJECT_UEVENT: u64 = 15;
    let mut rules = Vec::new();
    for family in [AF_UNIX, AF_INET, AF_INET6] {
        rules.push(allow_when("socket", vec![equal(0, family)]));
    }
    for protocol in 0..=NETLINK_KOBJECT_UEVENT {
        let args = vec![equal(0, AF_NETLINK), equal(2, protocol)];
        let allowed = matches!(protocol, NETLINK_ROUTE | NETLINK_KOBJECT_UEVENT)
            || (protocol == NETLINK_AUDIT && capabilities.has("AUDIT_WRITE"));
        rules.push(if allowed {
            allow_when("socket", args)
        } else {
            refuse_when("socket", EPROTONOSUPPORT, args)
        });
    }
    for family in 0..AF_PACKET {
        if ![AF_UNIX, AF_INET, AF_INET6, AF_NETLINK].contains(&family) {
            rules.push(refuse_when("socket", EAFNOSUPPORT, vec![equal(0, family)]));
        }
    }
    rules.push(if capabilities.has("NET_RAW") {
        allow_when("socket", vec![equal(0, AF_PACKET)])
    } else {
        refuse_when("socket", EPERM, vec![equal(0, AF_PACKET)])
    });
    let above = arg(0, AF_PACKET, LinuxSeccompOperator::ScmpCmpGt);
    rules.push(refuse_when("socket", EAFNOSUPPORT, vec![above]));
    rules
}

/// Every family but the two that are refused, and the audit protocol by capability.
fn compat_socket_rules(capabilities: CapabilitySet) -> Vec<LinuxSyscall> {
    let below = |family| arg(0, family, LinuxSeccompOperator::ScmpCmpLt);
    let mut rules = vec![
        allow_when("socket", vec![below(AF_NETLINK)]),
        allow_when("socket", vec![equal(0, AF_PACKET)]),
        refuse_when("socket", EAFNOSUPPORT, vec![equal(0, AF_ALG)]),
        allow_when("socket", vec![equal(0, AF_ALG + 1)]),
        refuse_when("socket", EPERM, vec![equal(0, AF_VSOCK)]),
    ];
    // One by one: the kernel looks at the lower half of the argument only, and what is refused is above all else with a
    // bit in the upper.
    for family in AF_VSOCK + 1..FAMILIES {
        rules.push(allow_when("socket", vec![equal(0, family)]));
    }
    for family in AF_PACKET + 1..AF_ALG {
        rules.push(allow_when("socket", vec![equal(0, family)]));
    }
    for protocol in 0..=31 {
        let args = vec![equal(0, AF_NETLINK), equal(2, protocol)];
        rules.push(
            if protocol == NETLINK_AUDIT && !capabilities.has("AUDIT_WRITE") {
                refuse_when("socket", EINVAL, args)
            } else {
                allow_when("socket", args)
            },
        );
    }
    rules
}

fn architectures(profile: Profile, architecture: Architecture) -> Vec<Arch> {
    match (profile, architecture) {
        // The 32-bit and x32 tables are two more doors; nothing 64-bit needs them.
        (Profile::Production, Architecture::X86_64) => vec![Arch::ScmpArchX86_64],
        (Profile::Compat, Architecture::X86_64) => {
            vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
        }
        (Profile::Production, Architecture::Aarch64) => vec![Arch::ScmpArchAarch64],
        (Profile::Compat, Architecture::Aarch64) => {
            vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
        }
        (_, Architecture::Other) => Vec::new(),
    }
}

/// Builds the filter of a profile for a set of capabilities.
pub(super) fn filter(
    profile: Profile,
    capabilities: CapabilitySet,
    host: &HostFacts,
) -> LinuxSeccomp {
    let mut allowed: Vec<&str> = ALLOWED.split_whitespace().collect();
    let mut refused: Vec<&str> = REFUSED.split_whitespace().collect();
    match profile {
        Profile::Production => refused.extend(PRODUCTION_REFUSED.split_whitespace()),
        Profile::Compat => allowed.extend(COMPAT_ALLOWED.split_whitespace()),
    }
    for (capability, calls) in WITH_CAPABILITY {
        if capabilities.has(capability) {
            allowed.extend(calls.split_whitespace());
        }
    }
    let mut rules = Vec::new();
    if profile == Profile::Production {
        if host.ptrace_scope >= 1 {
            // Yama confines it to children.
            allowed.push("ptrace");
        }
        if capabilities.has("SYS_ADMIN") {
            allowed.push("clone");
            allowed.push("clone3");
        } else {
            rules.extend(clone_rules());
            rules.push(refuse_when("clone3", ENOSYS, Vec::new()));
        }
        rules.extend(
            PERSONALITIES
                .iter()
                .map(|value| allow_when("personality", vec![equal(0, *value)])),
        );
        rules.extend(production_socket_rules(capabilities));
    } else {
        rules.extend(compat_socket_rules(capabilities));
    }
    allowed.sort_unstable();
    allowed.dedup();
    refused.sort_unstable();
    refused.dedup();
    refused.retain(|name| allowed.binary_search(name).is_err());

    let mut syscalls = vec![
        rule(allowed, LinuxSeccompAction::ScmpActAllow, None, Vec::new()),
        rule(
            refused,
            LinuxSeccompAction::ScmpActErrno,
            Some(EPERM),
            Vec::new(),
        ),
    ];
    syscalls.extend(rules);
    let architectures = architectures(profile, host.architecture);
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(ENOSYS))
        .set_architectures((!architectures.is_empty()).then_some(architectures))
        .set_syscalls(Some(syscalls));
    seccomp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_disjoint() {
        let allowed: Vec<_> = ALLOWED.split_whitespace().collect();
        assert!(allowed.is_sorted());
        for name in REFUSED
            .split_whitespace()
            .chain(PRODUCTION_REFUSED.split_whitespace())
        {
            assert!(
                !allowed.contains(&name),
                "{name} is both allowed and refused"
            );
        }
        for dangerous in [
            "clone",
            "clone3",
            "socket",
            "personality",
            "mount",
            "ptrace",
            "bpf",
        ] {
            assert!(!allowed.contains(&dangerous), "{dangerous}");
        }
    }

    #[test]
    fn capability_moves_its_calls_from_refused_to_allowed() {
        let host = crate::spec::tests::host();
        let names = |seccomp: &LinuxSeccomp, index: usize| {
            seccomp.syscalls().as_ref().unwrap()[index].names().clone()
        };
        let without = filter(Profile::Production, CapabilitySet::EMPTY, &host);
        let with = filter(
            Profile::Production,
            CapabilitySet::of(&["SYS_ADMIN"]),
            &host,
        );
        let mount = "mount".to_owned();
        assert!(names(&without, 1).contains(&mount) && !names(&without, 0).contains(&mount));
        assert!(names(&with, 0).contains(&mount) && !names(&with, 1).contains(&mount));
    }
}
