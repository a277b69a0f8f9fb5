// SPDX-License-Identifier: Apache-2.0
//! Capability sets as bit masks, and their names.
//!
//! # Source
//! `capabilities(7)`; runtime-spec "Linux process capabilities".

use std::fmt;

use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

/// Names in the kernel's order: the index is the capability's number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability, by its kernel number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Finds a capability by name, with or without `CAP_`, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let index = NAMES.iter().position(|known| *known == bare)?;
        u8::try_from(index).ok().map(Self)
    }

    /// The name with its `CAP_`.
    #[must_use]
    pub fn name(self) -> String {
        format!("CAP_{}", NAMES[usize::from(self.0)])
    }
}

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// Every capability that this version knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// Reads the kernel's mask, dropping bits that have no name here.
    #[must_use]
    pub const fn from_mask(mask: u64) -> Self {
        Self(mask & Self::ALL.0)
    }

    /// The kernel's mask.
    #[must_use]
    pub const fn mask(self) -> u64 {
        self.0
    }

    /// Makes a set of names that are known to exist.
    ///
    /// # Panics
    /// On an unknown name; meant for tables in the source.
    #[must_use]
    pub(crate) fn of(names: &[&str]) -> Self {
        let mut set = Self::EMPTY;
        for name in names {
            set.insert(Capability::find(name).expect("the table holds capability names"));
        }
        set
    }

    /// Adds one.
    pub fn insert(&mut self, capability: Capability) {
        self.0 |= 1 << capability.0;
    }

    /// Removes one.
    pub fn remove(&mut self, capability: Capability) {
        self.0 &= !(1 << capability.0);
    }

    /// Whether it is a member.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// Whether a capability of that name is a member.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        Capability::find(name).is_some_and(|capability| self.contains(capability))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those here and not there.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The members in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0u8..64)
            .filter(move |number| self.0 & (1 << number) != 0)
            .map(Capability)
    }

    /// The runtime document's form.
    pub(crate) fn to_oci(self) -> oci::Capabilities {
        self.iter()
            .filter_map(|capability| NAMES[usize::from(capability.0)].parse().ok())
            .collect()
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, capability) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(NAMES[usize::from(capability.0)])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_found_by_any_spelling() {
        for spelling in ["CAP_NET_RAW", "net_raw", "Net_Raw", "cap_net_raw"] {
            assert_eq!(Capability::find(spelling), Some(Capability(13)));
        }
        for wrong in ["", "CAP_", "NET RAW", "CAP_CAP_CHOWN", "ALL"] {
            assert_eq!(Capability::find(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_capability_has_a_form_in_the_document() {
        assert_eq!(CapabilitySet::ALL.to_oci().len(), NAMES.len());
    }

    #[test]
    fn mask_bits_without_name_are_dropped() {
        assert_eq!(CapabilitySet::from_mask(u64::MAX), CapabilitySet::ALL);
    }
}
