// SPDX-License-Identifier: Apache-2.0
//! Which namespaces are made, which are joined, and who is who in them.

use std::path::PathBuf;

use gantry_sys::clone::{Namespace, NamespaceSet};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};
use serde::Serialize;

use super::mounts::IdMapping;
use super::{Facts, PlanError};

/// One namespace of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamespaceStep {
    /// Its kind.
    pub kind: Namespace,
    /// The one that is joined; none makes a new one.
    pub path: Option<PathBuf>,
}

/// A clock of a time namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NamespacePlan {
    /// In the order in which they are joined.
    pub steps: Vec<NamespaceStep>,
    /// Users of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Groups likewise.
    pub gid_mappings: Vec<IdMapping>,
    /// Clocks of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
}

impl NamespacePlan {
    fn find(&self, kind: Namespace) -> Option<&NamespaceStep> {
        self.steps.iter().find(|step| step.kind == kind)
    }

    /// Whether a new one of that kind is made.
    #[must_use]
    pub fn is_private(&self, kind: Namespace) -> bool {
        self.find(kind).is_some_and(|step| step.path.is_none())
    }

    /// Whether one of that kind is joined.
    #[must_use]
    pub fn is_joined(&self, kind: Namespace) -> bool {
        self.find(kind).is_some_and(|step| step.path.is_some())
    }

    /// Whether the container's mounts are in a namespace of its own or somebody else's; otherwise they are attached
    /// nowhere.
    #[must_use]
    pub fn has_mounts(&self) -> bool {
        self.find(Namespace::Mount).is_some()
    }

    /// Whether the container's users are others than the host's.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.find(Namespace::User).is_some()
    }

    /// What one clone makes: all but the control group's, which depends on where the process is, that of time, which
    /// only later children are in, and, with new users, that of message queues, whose owner has to be somebody by then.
    #[must_use]
    pub fn cloned(&self) -> NamespaceSet {
        self.steps
            .iter()
            .filter(|step| step.path.is_none())
            .map(|step| step.kind)
            .filter(|kind| !matches!(kind, Namespace::Cgroup | Namespace::Time))
            .filter(|kind| *kind != Namespace::Ipc || !self.is_private(Namespace::User))
            .collect()
    }

    /// Those that are joined by path.
    pub fn joined(&self) -> impl Iterator<Item = (Namespace, &PathBuf)> {
        self.steps
            .iter()
            .filter_map(|step| Some((step.kind, step.path.as_ref()?)))
    }
}

fn kind_of(kind: LinuxNamespaceType) -> Namespace {
    match kind {
        LinuxNamespaceType::Mount => Namespace::Mount,
        LinuxNamespaceType::Cgroup => Namespace::Cgroup,
        LinuxNamespaceType::Uts => Namespace::Uts,
        LinuxNamespaceType::Ipc => Namespace::Ipc,
        LinuxNamespaceType::User => Namespace::User,
        LinuxNamespaceType::Pid => Namespace::Pid,
        LinuxNamespaceType::Network => Namespace::Network,
        LinuxNamespaceType::Time => Namespace::Time,
    }
}

pub(super) fn mappings(list: Option<&Vec<LinuxIdMapping>>) -> Vec<IdMapping> {
    list.into_iter()
        .flatten()
        .map(|mapping| IdMapping {
            container: mapping.container_id(),
            host: mapping.host_id(),
            size: mapping.size(),
        })
        .collect()
}

/// The kernel takes 340 lines; a mapping longer than its 4096 bytes would be cut by nobody.
fn check_mappings(place: &str, list: &[IdMapping]) -> Result<(), PlanError> {
    const LINES_MAX: usize = 340;
    if list.len() > LINES_MAX {
        let rule = format!(
            "{} lines are more than the {LINES_MAX} that the kernel takes",
            list.len()
        );
        return Err(PlanError::new(place, rule));
    }
    for (index, mapping) in list.iter().enumerate() {
        let ends = [mapping.container, mapping.host].map(|first| first.checked_add(mapping.size));
        if mapping.size == 0 || ends.contains(&None) {
            let place = format!("{place}[{index}]");
            return Err(PlanError::new(
                place,
                "has no size, or ends beyond the last id",
            ));
        }
    }
    Ok(())
}

pub(super) fn plan(spec: &Spec, facts: &Facts) -> Result<NamespacePlan, PlanError> {
    let Some(linux) = spec.linux().as_ref() else {
        return Err(PlanError::new(".linux", "missing"));
    };
    let mut plan = NamespacePlan::default();
    for (index, wanted) in linux.namespaces().iter().flatten().enumerate() {
        let place = format!(".linux.namespaces[{index}]");
        let kind = kind_of(wanted.typ());
        if plan.find(kind).is_some() {
            return Err(PlanError::new(
                place,
                format!("a second {} namespace", kind.link()),
            ));
        }
        let path = wanted
            .path()
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = &path {
            super::absolute(path, &format!("{place}.path"))?;
        }
        plan.steps.push(NamespaceStep { kind, path });
    }
    plan.steps.sort_by_key(|step| step.kind);
    plan.uid_mappings = mappings(linux.uid_mappings().as_ref());
    plan.gid_mappings = mappings(linux.gid_mappings().as_ref());
    check_mappings(".linux.uidMappings", &plan.uid_mappings)?;
    check_mappings(".linux.gidMappings", &plan.gid_mappings)?;
    if plan.is_private(Namespace::User) {
        for (place, list) in [
            (".linux.uidMappings", &plan.uid_mappings),
            (".linux.gidMappings", &plan.gid_mappings),
        ] {
            if list.is_empty() {
                return Err(PlanError::new(
                    place,
                    "a new user namespace needs a mapping",
                ));
            }
        }
    } else if !plan.is_joined(Namespace::User) {
        if !plan.uid_mappings.is_empty() || !plan.gid_mappings.is_empty() {
            return Err(PlanError::new(
                ".linux.uidMappings",
                "mappings without a user namespace",
            ));
        }
        if facts.rootless {
            return Err(PlanError::new(
                ".linux.namespaces",
                "without root a container needs a user namespace",
            ));
        }
    }
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let place = format!(".linux.timeOffsets[{clock:?}]");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(PlanError::new(place, "is no clock with an offset"));
        }
        if !plan.is_private(Namespace::Time) {
            return Err(PlanError::new(
                place,
                "needs a time namespace of the container's own",
            ));
        }
        plan.time_offsets.push(TimeOffset {
            clock: clock.clone(),
            secs: offset.secs().unwrap_or(0),
            nanosecs: offset.nanosecs().unwrap_or(0),
        });
    }
    plan.time_offsets
        .sort_by(|one, other| one.clock.cmp(&other.clock));
    Ok(plan)
}
