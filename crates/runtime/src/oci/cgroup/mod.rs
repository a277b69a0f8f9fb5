// SPDX-License-Identifier: Apache-2.0
//! Control groups: where a container's processes are counted and limited.
//!
//! ```text
//! Spec, HostCgroups ── plan ──► CgroupPlan ── create ──► Cgroup ── join, freeze, kill, stats, update, delete
//!        pure: groups, settings, a reason on each      directories held by descriptors; to and from state.json
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`host`] | which hierarchies are mounted, and where this process is in them |
//! | [`mod@plan`] | from a document to groups and settings |
//! | `version_1`, `version_2` | what a limit is called there, and conversions between the two |
//! | [`devices`] | device rules as version 1's lists and as programs for version 2 |
//! | `entrance` | how a process comes into them |
//! | [`group`] | a container's groups, alive |
//! | [`stats`] | what they count, in runc's shape |
//! | [`systemd`] | groups that systemd makes: units over D-Bus |
//!
//! Rules for what the host lacks:
//!
//! | case | rule |
//! |---|---|
//! | both versions are mounted, version 1 with controllers | version 1 is used, version 2 is left alone |
//! | a limit whose controller the host does not have | an error: a limit is enforced or refused |
//! | no right to make a group in which nothing is limited (no delegation) | done without, and said once |
//! | a limit that the other version has no file for | an error; but kernel memory, which kernels stopped limiting by itself, swappiness and the choice not to kill, which limit nothing, are left out and said |
//! | no `cgroupsPath` | a group named by the container: below the caller's own in version 1, beside it in version 2 |
//!
//! # Source
//! runtime-spec "Control groups"; `Documentation/admin-guide/cgroup-v1`, `cgroup-v2.rst`.

pub mod devices;
mod dir;
mod entrance;
mod error;
pub mod group;
pub mod host;
pub mod plan;
mod remove;
pub mod stats;
pub mod systemd;
mod version_1;
mod version_2;

pub use entrance::{Doors, Entrance};
pub use error::{CgroupError, PlanError};
pub use group::{Cgroup, CgroupState};
pub use host::HostCgroups;
pub use plan::{CgroupPlan, Driver, plan, update};
