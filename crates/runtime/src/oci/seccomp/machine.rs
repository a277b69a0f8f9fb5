// SPDX-License-Identifier: Apache-2.0
//! Machines: sets of call numbers with one way to pass arguments.

use oci_spec::runtime::Arch;

/// The machines whose calls are known, in the order of `table`'s columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit x86 with 32-bit pointers.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
    /// IBM Z.
    S390x,
    /// 64-bit POWER, little-endian.
    Ppc64le,
}

impl Machine {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::X86_64,
        Self::X86,
        Self::X32,
        Self::Aarch64,
        Self::Arm,
        Self::Riscv64,
        Self::S390x,
        Self::Ppc64le,
    ];

    /// The machine that this program was built for, if its calls are known.
    #[must_use]
    pub fn native() -> Option<Self> {
        Some(match std::env::consts::ARCH {
            "x86_64" if cfg!(target_pointer_width = "32") => Self::X32,
            "x86_64" => Self::X86_64,
            "x86" => Self::X86,
            "aarch64" => Self::Aarch64,
            "arm" => Self::Arm,
            "riscv64" => Self::Riscv64,
            "s390x" => Self::S390x,
            "powerpc64" if cfg!(target_endian = "little") => Self::Ppc64le,
            _ => return None,
        })
    }

    /// Its word in documents.
    #[must_use]
    pub const fn arch_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
            Self::Riscv64 => "SCMP_ARCH_RISCV64",
            Self::S390x => "SCMP_ARCH_S390X",
            Self::Ppc64le => "SCMP_ARCH_PPC64LE",
        }
    }

    /// The machine that the document's word means.
    #[must_use]
    pub fn of_arch(arch: Arch, native: Self) -> Option<Self> {
        Some(match arch {
            Arch::ScmpArchNative => native,
            Arch::ScmpArchX86_64 => Self::X86_64,
            Arch::ScmpArchX86 => Self::X86,
            Arch::ScmpArchX32 => Self::X32,
            Arch::ScmpArchAarch64 => Self::Aarch64,
            Arch::ScmpArchArm => Self::Arm,
            Arch::ScmpArchRiscv64 => Self::Riscv64,
            Arch::ScmpArchS390x => Self::S390x,
            Arch::ScmpArchPpc64le => Self::Ppc64le,
            _ => return None,
        })
    }

    /// True when a kernel of `self` may receive calls of `other`.
    #[must_use]
    pub fn receives(self, other: Self) -> bool {
        self == other
            || matches!(
                (self, other),
                (
                    Self::X86_64 | Self::X32,
                    Self::X86_64 | Self::X86 | Self::X32
                ) | (Self::Aarch64, Self::Arm)
            )
    }

    /// The column in `table`.
    pub(super) fn column(self) -> usize {
        Self::ALL
            .iter()
            .position(|machine| *machine == self)
            .expect("ALL holds every machine")
    }

    /// What `seccomp_data.arch` says (`AUDIT_ARCH_*`); x32 shares it with x86_64.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::S390x => 0x8000_0016,
            Self::Ppc64le => 0xc000_0015,
        }
    }

    /// True when the upper half of an argument counts.
    pub(super) fn has_wide_arguments(self) -> bool {
        !matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }

    /// True when the upper half of an argument comes first in memory.
    pub(super) fn is_big_endian(self) -> bool {
        self == Self::S390x
    }

    /// True when `socketcall` and `ipc` stand for other calls.
    pub(super) fn multiplexes(self) -> bool {
        matches!(self, Self::X86 | Self::S390x | Self::Ppc64le)
    }

    /// The numbers that belong to this machine among those with its `audit` value, both ends inclusive.
    ///
    /// The last number, -1, is what a tracer sets to skip a call, and belongs to none.
    pub(super) fn span(self) -> (u32, u32) {
        match self {
            Self::X86_64 => (0, X32_BIT - 1),
            Self::X32 => (X32_BIT, u32::MAX - 1),
            _ => (0, u32::MAX - 1),
        }
    }
}

/// What marks the numbers of x32.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Calls of 32-bit ARM that no header of system calls lists, above all others (`__ARM_NR_*`).
pub(super) const ARM_PRIVATE: [(&str, u32); 6] = [
    ("breakpoint", 0xf_0001),
    ("cacheflush", 0xf_0002),
    ("get_tls", 0xf_0006),
    ("set_tls", 0xf_0005),
    ("usr26", 0xf_0003),
    ("usr32", 0xf_0004),
];

/// Calls that `socketcall` (`linux/net.h`) and `ipc` (`linux/ipc.h`) stand for, by their first argument.
pub(super) const MULTIPLEXED: [(&str, &str, u32); 32] = [
    ("accept", "socketcall", 5),
    ("accept4", "socketcall", 18),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("getpeername", "socketcall", 7),
    ("getsockname", "socketcall", 6),
    ("getsockopt", "socketcall", 15),
    ("listen", "socketcall", 4),
    ("msgctl", "ipc", 14),
    ("msgget", "ipc", 13),
    ("msgrcv", "ipc", 12),
    ("msgsnd", "ipc", 11),
    ("recv", "socketcall", 10),
    ("recvfrom", "socketcall", 12),
    ("recvmmsg", "socketcall", 19),
    ("recvmsg", "socketcall", 17),
    ("semctl", "ipc", 3),
    ("semget", "ipc", 2),
    ("semop", "ipc", 1),
    ("semtimedop", "ipc", 4),
    ("send", "socketcall", 9),
    ("sendmmsg", "socketcall", 20),
    ("sendmsg", "socketcall", 16),
    ("sendto", "socketcall", 11),
    ("setsockopt", "socketcall", 14),
    ("shmat", "ipc", 21),
    ("shmctl", "ipc", 24),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shutdown", "socketcall", 13),
    ("socket", "socketcall", 1),
    ("socketpair", "socketcall", 8),
];
