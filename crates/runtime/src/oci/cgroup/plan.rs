// SPDX-License-Identifier: Apache-2.0
//! From a document to groups and settings: pure, printable.

use std::path::PathBuf;

use gantry_sys::bpf::Instruction;
use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use super::systemd::{BusAddress, UnitPlan};
use super::{HostCgroups, PlanError, devices, version_1, version_2};
use crate::options::without_steps;

/// Who makes the groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// This program.
    Files,
    /// systemd, as units.
    Systemd(BusAddress),
}

/// A container's groups and what is set there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// True where version 2 limits.
    pub unified: bool,
    /// One in each hierarchy.
    pub groups: Vec<GroupPlan>,
    /// What is written there, in order.
    pub settings: Vec<Setting>,
    /// Which devices may be used; none where nobody decides.
    pub devices: Option<Devices>,
    /// The unit, where systemd makes the groups.
    pub unit: Option<UnitPlan>,
    /// What was left out, and why: to be said once.
    pub notes: Vec<String>,
    /// True when groups may be done without: nothing is limited, and one may not make them.
    pub optional: bool,
}

/// A group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// The hierarchy's controllers; of version 2, those to be enabled.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The group, below the mount.
    pub path: String,
}

/// One thing that a member of the document asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Whose it is.
    pub controller: String,
    /// The document's member, below `linux.resources`.
    pub member: String,
    /// What is done.
    pub action: Action,
}

/// What is done in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Writes a value to the first of these files that is there: the kernel's configuration decides.
    Write(Vec<FileValue>),
    /// Writes it if the file is there.
    Wish(FileValue),
    /// Refuses a limit below what this file says is in use.
    CheckUse {
        /// Where it is said.
        file: String,
        /// The limit.
        limit_bytes: u64,
    },
}

/// A file of a group, and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileValue {
    /// The file.
    pub file: String,
    /// The value.
    pub value: String,
}

/// How devices are restricted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Devices {
    /// Lines for version 1's files, in order.
    Lists(Vec<FileValue>),
    /// A program for a group of version 2.
    Program(Vec<Instruction>),
}

/// Settings as they are gathered.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    host: &'a dyn ControllerSet,
    list: Vec<Setting>,
    notes: Vec<String>,
    missing: Option<PlanError>,
}

/// Which controllers there are.
pub(super) trait ControllerSet: std::fmt::Debug {
    fn has(&self, controller: &str) -> bool;
}

impl ControllerSet for HostCgroups {
    fn has(&self, controller: &str) -> bool {
        if self.is_unified() {
            // Files of the group itself, which no controller brings.
            controller == "cgroup"
                || self
                    .unified
                    .as_ref()
                    .is_some_and(|unified| unified.has(controller))
        } else {
            self.hierarchies
                .iter()
                .any(|hierarchy| hierarchy.has(controller))
        }
    }
}

impl ControllerSet for [GroupPlan] {
    fn has(&self, controller: &str) -> bool {
        controller == "cgroup"
            || self
                .iter()
                .any(|group| group.controllers.iter().any(|have| have == controller))
    }
}

impl<'a> Settings<'a> {
    fn new(host: &'a dyn ControllerSet) -> Self {
        Self {
            host,
            list: Vec::new(),
            notes: Vec::new(),
            missing: None,
        }
    }

    fn push(&mut self, controller: &str, member: &str, action: Action) {
        if self.host.has(controller) {
            self.list.push(Setting {
                controller: controller.to_owned(),
                member: member.to_owned(),
                action,
            });
        } else if !matches!(action, Action::Wish(_)) && self.missing.is_none() {
            self.missing = Some(PlanError::NoController {
                member: member.to_owned(),
                controller: controller.to_owned(),
            });
        }
    }

    /// Asked for: set, or an error.
    pub(super) fn add(
        &mut self,
        controller: &str,
        member: &str,
        file: impl Into<String>,
        value: impl ToString,
    ) {
        let value = FileValue {
            file: file.into(),
            value: value.to_string(),
        };
        self.push(controller, member, Action::Write(vec![value]));
    }

    /// Asked for, in the first of several files.
    pub(super) fn either<const N: usize>(
        &mut self,
        controller: &str,
        member: &str,
        choices: [(&str, String); N],
    ) {
        let choices = choices.map(|(file, value)| FileValue {
            file: file.to_owned(),
            value,
        });
        self.push(controller, member, Action::Write(choices.to_vec()));
    }

    /// Set where the kernel has it.
    pub(super) fn wish(
        &mut self,
        controller: &str,
        member: &str,
        file: impl Into<String>,
        value: impl ToString,
    ) {
        let value = FileValue {
            file: file.into(),
            value: value.to_string(),
        };
        self.push(controller, member, Action::Wish(value));
    }

    pub(super) fn check_use(&mut self, controller: &str, member: &str, file: &str, limit: i64) {
        if let Ok(limit_bytes) = u64::try_from(limit) {
            let file = file.to_owned();
            self.push(controller, member, Action::CheckUse { file, limit_bytes });
        }
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn finish(self) -> Result<(Vec<Setting>, Vec<String>), PlanError> {
        match self.missing {
            Some(error) => Err(error),
            None => Ok((self.list, self.notes)),
        }
    }
}

/// The value of `pids.max`: as podman and Docker have it, nothing and less is no limit.
pub(super) fn pids_max(limit: i64) -> String {
    if limit > 0 {
        limit.to_string()
    } else {
        "max".to_owned()
    }
}

pub(super) fn rdma(resources: &LinuxResources, settings: &mut Settings<'_>) {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    for (name, limits) in devices {
        let of = |key: &str, limit: Option<u32>| {
            limit
                .map(|limit| format!(" {key}={limit}"))
                .unwrap_or_default()
        };
        let handles = of("hca_handle", limits.hca_handles());
        let objects = of("hca_object", limits.hca_objects());
        settings.add(
            "rdma",
            "rdma",
            "rdma.max",
            format!("{name}{handles}{objects}"),
        );
    }
}

fn gather(
    resources: Option<&LinuxResources>,
    unified: bool,
    host: &dyn ControllerSet,
) -> Result<(Vec<Setting>, Vec<String>), PlanError> {
    let mut settings = Settings::new(host);
    match resources {
        None => {}
        Some(resources) if unified => version_2::settings(resources, &mut settings)?,
        Some(resources) => version_1::settings(resources, &mut settings)?,
    }
    settings.finish()
}

/// Plans the groups of a document's container.
///
/// # Errors
/// What the host cannot enforce, or the document says wrongly; see [`PlanError`].
pub fn plan(
    spec: &Spec,
    id: &str,
    host: &HostCgroups,
    driver: &Driver,
    rootless: bool,
) -> Result<CgroupPlan, PlanError> {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
    let path = path
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| !path.is_empty());
    let unified = host.is_unified();
    let (settings, mut notes) = gather(resources, unified, host)?;
    let devices = restrict_devices(resources, host, rootless, &mut notes)?;
    let unit = match driver {
        Driver::Files => None,
        Driver::Systemd(bus) => Some(UnitPlan::new(
            spec,
            id,
            path.as_deref(),
            bus,
            resources,
            unified,
        )?),
    };
    let place = match &unit {
        Some(unit) => Place::Absolute(unit.group_path()),
        None => Place::new(path.as_deref(), id)?,
    };
    let optional = rootless
        && unit.is_none()
        && settings
            .iter()
            .all(|setting| matches!(setting.action, Action::Wish(_)));
    Ok(CgroupPlan {
        unified,
        groups: groups(host, &place, unified),
        settings,
        devices,
        unit,
        notes,
        optional,
    })
}

/// What a change of limits sets in groups that are there.
///
/// # Errors
/// What the host cannot enforce.
pub fn update(
    resources: &LinuxResources,
    unified: bool,
    groups: &[GroupPlan],
) -> Result<(Vec<Setting>, Vec<String>), PlanError> {
    gather(Some(resources), unified, &GroupSet(groups))
}

/// Unsized types are no trait objects.
#[derive(Debug)]
struct GroupSet<'a>(&'a [GroupPlan]);

impl ControllerSet for GroupSet<'_> {
    fn has(&self, controller: &str) -> bool {
        self.0.has(controller)
    }
}

fn restrict_devices(
    resources: Option<&LinuxResources>,
    host: &HostCgroups,
    rootless: bool,
    notes: &mut Vec<String>,
) -> Result<Option<Devices>, PlanError> {
    let listed = resources
        .and_then(|resources| resources.devices().as_deref())
        .unwrap_or_default();
    let rules = devices::rules(listed)?;
    let unified = host.is_unified();
    let decided = unified || ControllerSet::has(host, "devices");
    if rootless || !decided {
        if listed.iter().any(|rule| !rule.allow()) && !rootless {
            return Err(PlanError::NoController {
                member: "devices".to_owned(),
                controller: "devices".to_owned(),
            });
        }
        if rootless && !listed.is_empty() {
            notes.push(
                "devices: without privileges nobody restricts their use; file permissions do"
                    .to_owned(),
            );
        }
        return Ok(None);
    }
    Ok(Some(if unified {
        Devices::Program(devices::version_2(&rules))
    } else {
        let lines = devices::version_1(&rules)?.into_iter();
        Devices::Lists(
            lines
                .map(|(file, value)| FileValue {
                    file: file.to_owned(),
                    value,
                })
                .collect(),
        )
    }))
}

/// Where the groups are.
enum Place {
    /// Below each hierarchy's root.
    Absolute(String),
    /// Below the caller's own group, or beside it.
    Relative(String),
}

impl Place {
    fn new(path: Option<&str>, id: &str) -> Result<Self, PlanError> {
        let Some(path) = path else {
            return Ok(Self::Relative(id.to_owned()));
        };
        let clean = without_steps(path);
        if clean.is_empty() || path.contains('\0') {
            return Err(PlanError::Path {
                path: path.to_owned(),
                problem: "it names no group of its own".to_owned(),
            });
        }
        Ok(if path.starts_with('/') {
            Self::Absolute(clean)
        } else {
            Self::Relative(clean)
        })
    }
}

/// What a container may need; others are left to whoever wants them.
const ENABLED: [&str; 8] = [
    "cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc",
];

fn groups(host: &HostCgroups, place: &Place, unified: bool) -> Vec<GroupPlan> {
    let below = |base: &str| match place {
        Place::Absolute(path) => path.clone(),
        Place::Relative(path) if base.is_empty() => path.clone(),
        Place::Relative(path) => format!("{base}/{path}"),
    };
    if unified {
        let wanted = |hierarchy: &super::host::Hierarchy| {
            let names = hierarchy
                .controllers
                .iter()
                .filter(|name| ENABLED.contains(&name.as_str()));
            names.cloned().collect()
        };
        return host
            .unified
            .iter()
            .map(|hierarchy| GroupPlan {
                controllers: wanted(hierarchy),
                mount: hierarchy.mount.clone(),
                // One's own group has processes, so that it can have no limited groups below it.
                path: below(
                    hierarchy
                        .own
                        .rsplit_once('/')
                        .map_or("", |(parent, _)| parent),
                ),
            })
            .collect();
    }
    host.hierarchies
        .iter()
        .filter(|hierarchy| !hierarchy.is_named() || hierarchy.has("name=systemd"))
        .map(|hierarchy| GroupPlan {
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            path: below(&hierarchy.own),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{hybrid, unified};
    use super::*;
    use serde_json::{Value, json};

    fn spec(path: Option<&str>, resources: &Value) -> Spec {
        let mut document = json!({"ociVersion": "1.2.0", "linux": {"resources": resources}});
        if let Some(path) = path {
            document["linux"]["cgroupsPath"] = path.into();
        }
        serde_json::from_value(document).unwrap()
    }

    fn everything() -> Value {
        json!({
            "memory": {"limit": 1000, "swap": 1500, "reservation": 500},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100_000, "burst": 10, "cpus": "0", "mems": "0"},
            "pids": {"limit": 7},
            "blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 100}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 5}]},
        })
    }

    fn told(plan: &CgroupPlan) -> Vec<String> {
        let write = |value: &FileValue| format!("{}={}", value.file, value.value);
        plan.settings
            .iter()
            .map(|setting| match &setting.action {
                Action::Write(choices) => {
                    choices.iter().map(write).collect::<Vec<_>>().join(" or ")
                }
                Action::Wish(value) => format!("{}?", write(value)),
                Action::CheckUse { file, limit_bytes } => format!("{file}<={limit_bytes}"),
            })
            .collect()
    }

    #[test]
    fn version_1_writes_each_limit_to_its_hierarchy() {
        let plan = plan(
            &spec(Some("/c/x"), &everything()),
            "id",
            &hybrid(),
            &Driver::Files,
            false,
        )
        .unwrap();
        let want = [
            "memory.limit_in_bytes=1000",
            "memory.memsw.limit_in_bytes=1500",
            "memory.soft_limit_in_bytes=500",
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=10",
            "cpuset.cpus=0",
            "cpuset.mems=0",
            "pids.max=7",
            "blkio.bfq.weight=500 or blkio.weight=500",
            "blkio.bfq.weight_device=8:0 100 or blkio.weight_device=8:0 100",
            "blkio.throttle.read_bps_device=8:0 600",
            "blkio.throttle.write_iops_device=8:0 5",
        ];
        assert_eq!(told(&plan), want);
        assert!(plan.groups.iter().all(|group| group.path == "c/x"));
        assert!(matches!(plan.devices, Some(Devices::Lists(_))));
    }

    #[test]
    fn version_2_converts() {
        let mut resources = everything();
        resources["unified"] = json!({"memory.high": "900", "io.max": "8:0 rbps=1\n8:16 rbps=2", "cgroup.max.depth": "3"});
        resources["rdma"] = json!({"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}});
        resources["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4096}]);
        let plan = plan(
            &spec(None, &resources),
            "id",
            &unified(),
            &Driver::Files,
            false,
        )
        .unwrap();
        let want = [
            "memory.swap.max=500",
            "memory.max=1000",
            "memory.low=500",
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "cpu.max.burst=10",
            "cpuset.cpus=0",
            "cpuset.mems=0",
            "pids.max=7",
            "io.bfq.weight=500 or io.weight=4950",
            "io.bfq.weight=8:0 100 or io.weight=8:0 910",
            "io.max=8:0 rbps=600",
            "io.max=8:0 wiops=5",
            "hugetlb.2MB.max=4096",
            "hugetlb.2MB.rsvd.max=4096?",
            "rdma.max=mlx5_1 hca_handle=3 hca_object=10",
            "cgroup.max.depth=3",
            "io.max=8:0 rbps=1",
            "io.max=8:16 rbps=2",
            "memory.high=900",
        ];
        assert_eq!(told(&plan), want);
        // Beside the caller's own group.
        assert_eq!(plan.groups[0].path, "user.slice/id");
        assert!(matches!(plan.devices, Some(Devices::Program(_))));
    }

    #[test]
    fn paths_are_below_the_root_or_below_the_callers_group() {
        let place = |path: Option<&str>| {
            let plan = plan(
                &spec(path, &json!({})),
                "id",
                &hybrid(),
                &Driver::Files,
                false,
            )
            .unwrap();
            let of = |name: &str| {
                plan.groups
                    .iter()
                    .find(|g| g.controllers.iter().any(|c| c == name))
                    .unwrap()
                    .path
                    .clone()
            };
            (of("memory"), of("pids"), of("name=systemd"))
        };
        let same = |path: &str| (path.to_owned(), path.to_owned(), path.to_owned());
        assert_eq!(place(Some("/a/../../b//c/.")), same("b/c"));
        assert_eq!(
            place(None),
            (
                "process/b2fe/id".to_owned(),
                "id".to_owned(),
                "id".to_owned()
            )
        );
        assert_eq!(place(Some("a/b")).0, "process/b2fe/a/b");
        for path in ["/", "/..", "a/.."] {
            let error = plan(
                &spec(Some(path), &json!({})),
                "id",
                &hybrid(),
                &Driver::Files,
                false,
            )
            .unwrap_err();
            assert!(matches!(error, PlanError::Path { .. }), "{path}");
        }
    }

    #[test]
    fn limit_that_nobody_enforces_is_refused() {
        for (host, resources, why) in [
            (
                hybrid(),
                json!({"rdma": {"a": {"hcaHandles": 1}}}),
                "no usable rdma controller",
            ),
            (
                hybrid(),
                json!({"network": {"classID": 5}}),
                "no usable net_cls controller",
            ),
            (
                hybrid(),
                json!({"unified": {"memory.high": "1"}}),
                "version 2 of control groups",
            ),
            (
                unified(),
                json!({"network": {"classID": 5}}),
                "does not mark packets",
            ),
            (
                unified(),
                json!({"cpu": {"realtimeRuntime": 5}}),
                "real-time",
            ),
            (
                unified(),
                json!({"memory": {"swap": 5}}),
                "memory has no limit",
            ),
            (
                unified(),
                json!({"unified": {"../x.y": "1"}}),
                "names no file",
            ),
            (
                unified(),
                json!({"unified": {"nothing.x": "1"}}),
                "no usable nothing controller",
            ),
            (
                HostCgroups::default(),
                json!({"pids": {"limit": 3}}),
                "no usable pids controller",
            ),
        ] {
            let error =
                plan(&spec(None, &resources), "id", &host, &Driver::Files, false).unwrap_err();
            assert!(error.to_string().contains(why), "{error}: {resources}");
        }
    }

    #[test]
    fn what_limits_nothing_is_left_out_and_said() {
        let resources = json!({"memory": {"swappiness": 5, "disableOOMKiller": true, "kernel": 5}});
        let plan = plan(
            &spec(None, &resources),
            "id",
            &unified(),
            &Driver::Files,
            false,
        )
        .unwrap();
        assert_eq!((plan.settings.len(), plan.notes.len()), (0, 3));
    }

    #[test]
    fn groups_may_be_missing_only_where_nothing_is_limited() {
        let of = |resources, rootless| {
            plan(
                &spec(None, &resources),
                "id",
                &unified(),
                &Driver::Files,
                rootless,
            )
            .unwrap()
            .optional
        };
        assert!(of(json!({}), true));
        assert!(!of(json!({"pids": {"limit": 4}}), true));
        assert!(!of(json!({}), false));
    }
}
