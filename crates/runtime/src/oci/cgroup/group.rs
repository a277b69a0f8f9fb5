// SPDX-License-Identifier: Apache-2.0
//! A container's control groups, alive.
//!
//! Directories are held by descriptors from the moment they are made; a group found again is opened below the root of
//! its hierarchy, which is proved to be one.

use std::time::Duration;

use gantry_sys::{Errno, SysError};
use oci_spec::runtime::LinuxResources;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::plan::{Action, CgroupPlan, Devices, FileValue, GroupPlan, Setting};
use super::systemd::{UnitPlan, UnitRef};
use super::{CgroupError, PlanError};

/// What is remembered of a container's groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupState {
    /// True where version 2 limits.
    pub unified: bool,
    /// One in each hierarchy.
    pub groups: Vec<GroupPlan>,
    /// The unit, where systemd made them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitRef>,
}

/// A container's control groups.
#[derive(Debug)]
pub struct Cgroup {
    state: CgroupState,
    members: Vec<Member>,
    /// What remains to be done with the first process, since systemd makes no unit without one.
    pending: Option<CgroupPlan>,
    /// What was done without, and why: to be said once.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Member {
    controllers: Vec<String>,
    dir: Dir,
}

impl Member {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|have| have == controller)
    }
}

impl CgroupPlan {
    /// What to remember before anything is made, so that whoever cleans up after us finds it.
    #[must_use]
    pub fn expected(&self) -> CgroupState {
        CgroupState {
            unified: self.unified,
            groups: self.groups.clone(),
            unit: self.unit.as_ref().map(UnitPlan::reference),
        }
    }

    /// Makes the groups and sets what is to be set in them.
    ///
    /// Where systemd makes them this waits for the first process to [`Cgroup::join`].
    ///
    /// # Privileges
    /// Write access to the hierarchies (root, or a delegated group); `CAP_BPF` for devices in version 2.
    ///
    /// # Errors
    /// The kernel's refusal; what was made is removed again.
    pub fn create(&self) -> Result<Cgroup, CgroupError> {
        let mut cgroup = Cgroup {
            state: CgroupState {
                unified: self.unified,
                groups: Vec::new(),
                unit: None,
            },
            members: Vec::new(),
            pending: None,
            notes: self.notes.clone(),
        };
        if self.unit.is_some() {
            cgroup.pending = Some(self.clone());
            return Ok(cgroup);
        }
        match cgroup.make(self) {
            Ok(()) => Ok(cgroup),
            Err(error) if self.optional && error.is_refused() => {
                cgroup.discard();
                cgroup
                    .notes
                    .push(format!("no control group is made: {error}"));
                Ok(cgroup)
            }
            Err(error) => {
                cgroup.discard();
                Err(error)
            }
        }
    }
}

/// The signal that no process survives.
const KILL: u8 = 9;
/// How long a group may take to become what it is told to.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(2);

impl Cgroup {
    fn make(&mut self, plan: &CgroupPlan) -> Result<(), CgroupError> {
        for group in &plan.groups {
            let needed = plan
                .settings
                .iter()
                .any(|setting| group.controllers.contains(&setting.controller))
                || (plan.devices.is_some()
                    && group.controllers.iter().any(|name| name == "devices"));
            match make_group(group, plan) {
                Ok(dir) => {
                    self.members.push(Member {
                        controllers: group.controllers.clone(),
                        dir,
                    });
                    self.state.groups.push(group.clone());
                }
                // A hierarchy of version 1 in which nothing is limited.
                Err(error) if !plan.unified && !needed && error.is_refused() => {
                    self.notes
                        .push(format!("{error}; done without, nothing is limited there"));
                }
                Err(error) => return Err(error),
            }
        }
        self.limit(plan)
    }

    fn limit(&self, plan: &CgroupPlan) -> Result<(), CgroupError> {
        if let Some(devices) = &plan.devices {
            self.restrict_devices(devices)?;
        }
        self.set(&plan.settings)
    }

    fn discard(&mut self) {
        // The error at hand is the one to tell.
        if let Err(error) = self.delete() {
            self.notes.push(error.to_string());
        }
        self.members.clear();
        self.state.groups.clear();
    }

    /// Finds a container's groups again; those that are gone are left out.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(state: &CgroupState) -> Result<Self, CgroupError> {
        let mut members = Vec::new();
        for group in &state.groups {
            if let Some(dir) = Dir::root(&group.mount)?.descendant(&group.path)? {
                members.push(Member {
                    controllers: group.controllers.clone(),
                    dir,
                });
            }
        }
        Ok(Self {
            state: state.clone(),
            members,
            pending: None,
            notes: Vec::new(),
        })
    }

    /// What to remember.
    #[must_use]
    pub fn state(&self) -> &CgroupState {
        &self.state
    }

    /// True where systemd has yet to make the groups, with the first process.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Puts a process into every group.
    ///
    /// # Errors
    /// The kernel's or systemd's refusal.
    pub fn join(&mut self, pid: u32) -> Result<(), CgroupError> {
        if let Some(plan) = self.pending.take()
            && let Some(unit) = &plan.unit
        {
            return self.start_unit(&plan, unit, pid);
        }
        self.enter(pid)
    }

    fn enter(&self, pid: u32) -> Result<(), CgroupError> {
        self.members
            .iter()
            .try_for_each(|member| join_dir(&member.dir, pid))
    }

    /// Does something with each group, or with the one of that name below it, as `exec --cgroup` asks.
    pub(super) fn at<T>(
        &self,
        below: Option<&str>,
        act: impl Fn(&Dir) -> Result<T, CgroupError>,
    ) -> Result<Vec<T>, CgroupError> {
        let at = |member: &Member| {
            let Some(below) = below else {
                return act(&member.dir);
            };
            let path = below.trim_matches('/');
            let leads_out = path.split('/').any(|part| part == "..");
            let found = if leads_out {
                None
            } else {
                member.dir.descendant(path)?
            };
            let dir = found.ok_or_else(|| CgroupError::NoFile {
                member: "--cgroup".to_owned(),
                file: below.to_owned(),
                path: member.dir.path.clone(),
            })?;
            act(&dir)
        };
        self.members.iter().map(at).collect()
    }

    fn start_unit(
        &mut self,
        plan: &CgroupPlan,
        unit: &UnitPlan,
        pid: u32,
    ) -> Result<(), CgroupError> {
        let failed = |action| {
            let unit = unit.name.clone();
            move |source| CgroupError::Systemd {
                action,
                unit,
                source,
            }
        };
        self.state.unit = Some(unit.start(pid).map_err(failed("start"))?);
        if plan.unified {
            // Where the unit is, only the process can tell: the manager may itself be anywhere.
            let cgroup = gantry_sys::proc::Proc::open()
                .and_then(|proc| proc.read(&format!("{pid}/cgroup")))
                .map_err(|source| CgroupError::File {
                    action: "read the group of process",
                    path: pid.to_string().into(),
                    source,
                })?;
            let path = super::host::own_path(&cgroup, |id, names| id == "0" && names.is_empty());
            let path = path.trim_matches('/');
            for group in &plan.groups {
                let dir = Dir::root(&group.mount)?.descendant(path)?;
                let dir = dir.ok_or_else(|| CgroupError::Stuck {
                    action: "find the control group of",
                    path: unit.name.clone().into(),
                })?;
                self.members.push(Member {
                    controllers: group.controllers.clone(),
                    dir,
                });
                self.state.groups.push(GroupPlan {
                    path: path.to_owned(),
                    ..group.clone()
                });
            }
            self.limit(plan)
        } else {
            self.make(plan)?;
            self.enter(pid)
        }
    }

    fn restrict_devices(&self, devices: &Devices) -> Result<(), CgroupError> {
        match devices {
            Devices::Lists(lines) => {
                for member in self.members.iter().filter(|member| member.has("devices")) {
                    let failed = |source| CgroupError::Devices {
                        path: member.dir.path.clone(),
                        source,
                    };
                    for same in lines.chunk_by(|one, other| one.file == other.file) {
                        let file = &same[0].file;
                        let values = same.iter().map(|line| line.value.as_str());
                        member.dir.write_each(file, values).map_err(failed)?;
                    }
                }
            }
            Devices::Program(instructions) => {
                for member in &self.members {
                    let failed = |source| CgroupError::Devices {
                        path: member.dir.path.clone(),
                        source,
                    };
                    let before = gantry_sys::bpf::device_programs(&member.dir).unwrap_or_default();
                    let program =
                        gantry_sys::bpf::load_device_program(instructions).map_err(failed)?;
                    gantry_sys::bpf::attach_device_program(&member.dir, &program)
                        .map_err(failed)?;
                    // All that are attached must agree, so a change of rules takes the old ones away, after the new are there.
                    for old in before {
                        gantry_sys::bpf::detach_device_program(&member.dir, &old)
                            .map_err(failed)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes settings in order. What is refused for the present value of another is tried again after the others.
    fn set(&self, settings: &[Setting]) -> Result<(), CgroupError> {
        let mut later = Vec::new();
        for setting in settings {
            match self.set_one(setting) {
                Err(CgroupError::Limit { source, .. }) if source.is(Errno::INVAL) => {
                    later.push(setting)
                }
                other => other?,
            }
        }
        later
            .into_iter()
            .try_for_each(|setting| self.set_one(setting))
    }

    fn set_one(&self, setting: &Setting) -> Result<(), CgroupError> {
        let pseudo = setting.controller == "cgroup";
        let Some(member) = self
            .members
            .iter()
            .find(|member| pseudo || member.has(&setting.controller))
        else {
            return match setting.action {
                Action::Wish(_) => Ok(()),
                _ => Err(CgroupError::NotEnabled {
                    controller: setting.controller.clone(),
                    path: self
                        .members
                        .first()
                        .map(|member| member.dir.path.clone())
                        .unwrap_or_default(),
                }),
            };
        };
        let write = |choice: &FileValue| {
            member
                .dir
                .write(&choice.file, &choice.value)
                .map_err(|source| CgroupError::Limit {
                    member: setting.member.clone(),
                    value: choice.value.clone(),
                    path: member.dir.path.join(&choice.file),
                    source,
                })
        };
        match &setting.action {
            Action::Wish(choice) => write(choice).map(|_| ()),
            Action::Write(choices) => {
                for choice in choices {
                    if write(choice)? {
                        return Ok(());
                    }
                }
                Err(CgroupError::NoFile {
                    member: setting.member.clone(),
                    file: choices
                        .first()
                        .map(|choice| choice.file.clone())
                        .unwrap_or_default(),
                    path: member.dir.path.clone(),
                })
            }
            Action::CheckUse { file, limit_bytes } => {
                let used_bytes = member
                    .dir
                    .read(file)?
                    .and_then(|text| text.trim().parse().ok());
                match used_bytes {
                    Some(used_bytes) if used_bytes > *limit_bytes => Err(CgroupError::InUse {
                        member: setting.member.clone(),
                        used_bytes,
                    }),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Changes limits; answers what was left out.
    ///
    /// # Errors
    /// What the host cannot enforce, and the kernel's refusal.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<String>, UpdateError> {
        let (settings, notes) =
            super::plan::update(resources, self.state.unified, &self.state.groups)?;
        if let Some(unit) = &self.state.unit {
            let properties = super::systemd::properties(resources, self.state.unified);
            unit.set(&properties)
                .map_err(|source| CgroupError::Systemd {
                    action: "change",
                    unit: unit.name.clone(),
                    source,
                })?;
        }
        self.set(&settings)?;
        if let Some(listed) = resources
            .devices()
            .as_deref()
            .filter(|listed| !listed.is_empty())
        {
            let rules = super::devices::rules(listed)?;
            let devices = if self.state.unified {
                Devices::Program(super::devices::version_2(&rules))
            } else {
                let lines = super::devices::version_1(&rules)?.into_iter();
                Devices::Lists(
                    lines
                        .map(|(file, value)| FileValue {
                            file: file.to_owned(),
                            value,
                        })
                        .collect(),
                )
            };
            self.restrict_devices(&devices)?;
        }
        Ok(notes)
    }

    /// True when the groups are there and hold no process at all.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn is_empty(&self) -> Result<bool, CgroupError> {
        Ok(self.pids()?.is_empty())
    }

    /// The processes of the container, those of groups below its own too.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let member = self
            .members
            .iter()
            .find(|member| !member.controllers.iter().any(|name| name == "cpuset"));
        let mut pids = Vec::new();
        if let Some(member) = member.or(self.members.first()) {
            gather_pids(&member.dir, &mut pids)?;
        }
        pids.sort_unstable();
        Ok(pids)
    }

    fn freezer(&self) -> Option<&Member> {
        let unified = self.state.unified;
        self.members
            .iter()
            .find(|member| unified || member.has("freezer"))
    }

    /// Stops every process where it stands. Without a freezer this is an error.
    ///
    /// # Errors
    /// The kernel's refusal; a group that does not come to rest is thawed again.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.turn(true)
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.turn(false)
    }

    fn turn(&self, frozen: bool) -> Result<(), CgroupError> {
        let action = if frozen { "freeze" } else { "thaw" };
        let Some(member) = self.freezer() else {
            return Err(CgroupError::NotEnabled {
                controller: "freezer".to_owned(),
                path: self
                    .members
                    .first()
                    .map(|member| member.dir.path.clone())
                    .unwrap_or_default(),
            });
        };
        let write = |frozen: bool| {
            let (file, value) = match (self.state.unified, frozen) {
                (true, true) => ("cgroup.freeze", "1"),
                (true, false) => ("cgroup.freeze", "0"),
                (false, true) => ("freezer.state", "FROZEN"),
                (false, false) => ("freezer.state", "THAWED"),
            };
            let written = member
                .dir
                .write(file, value)
                .map_err(|source| CgroupError::File {
                    action,
                    path: member.dir.path.clone(),
                    source,
                })?;
            if written {
                return Ok(());
            }
            Err(CgroupError::NoFile {
                member: action.to_owned(),
                file: file.to_owned(),
                path: member.dir.path.clone(),
            })
        };
        write(frozen)?;
        let mut waited = Duration::ZERO;
        while self.is_frozen()? != frozen {
            if waited >= PATIENCE {
                if frozen {
                    write(false)?;
                }
                let path = member.dir.path.clone();
                return Err(CgroupError::Stuck { action, path });
            }
            std::thread::sleep(STEP);
            waited += STEP;
            if frozen && !self.state.unified {
                // A process that forked meanwhile is caught by the next try only.
                write(true)?;
            }
        }
        Ok(())
    }

    /// True when every process stands still.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let Some(member) = self.freezer() else {
            return Ok(false);
        };
        Ok(if self.state.unified {
            let events = member.dir.read("cgroup.events")?.unwrap_or_default();
            events.lines().any(|line| line == "frozen 1")
        } else {
            member
                .dir
                .read("freezer.state")?
                .is_some_and(|state| state.trim() == "FROZEN")
        })
    }

    /// Ends every process. They are gone only after a moment; [`delete`](Self::delete) waits for it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if self.state.unified
            && let [member] = self.members.as_slice()
        {
            let killed =
                member
                    .dir
                    .write("cgroup.kill", "1")
                    .map_err(|source| CgroupError::File {
                        action: "kill",
                        path: member.dir.path.clone(),
                        source,
                    })?;
            if killed {
                // Frozen processes die, too.
                return Ok(());
            }
        }
        self.signal(KILL)
    }

    /// Sends a signal to every process, which stand still meanwhile: none can fork away from it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn signal(&self, number: u8) -> Result<(), CgroupError> {
        let was_frozen = self.is_frozen()?;
        let holds = self.freezer().is_some() && self.freeze().is_ok();
        let sent = self.pids().and_then(|pids| {
            pids.into_iter()
                .try_for_each(|pid| match send(pid, number) {
                    Err(source) if !source.is(Errno::SRCH) => Err(CgroupError::File {
                        action: "send a signal to process",
                        path: pid.to_string().into(),
                        source,
                    }),
                    _ => Ok(()),
                })
        });
        // A fatal signal reaches a process of version 1's freezer only when it goes on.
        if holds && (!was_frozen || number == KILL) {
            self.thaw()?;
        }
        sent
    }

    /// As [`CgroupState::delete`].
    ///
    /// # Errors
    /// The same.
    pub fn delete(&self) -> Result<(), CgroupError> {
        self.state.delete()
    }

    /// How many processes the kernel has killed here for want of memory.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn killed_for_memory(&self) -> Result<u64, CgroupError> {
        let file = if self.state.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = self.read("memory", file)?.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or_default())
    }

    /// A file of the group that has a controller.
    pub(super) fn read(&self, controller: &str, file: &str) -> Result<Option<String>, CgroupError> {
        let unified = self.state.unified;
        match self
            .members
            .iter()
            .find(|member| unified || member.has(controller))
        {
            Some(member) => member.dir.read(file),
            None => Ok(None),
        }
    }

    /// The hugepage sizes that the kernel counts: `2MB`.
    pub(super) fn page_sizes(&self) -> Vec<String> {
        let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages")
            .into_iter()
            .flatten();
        let mut names: Vec<String> = sizes
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let kilobytes: u64 = name
                    .strip_prefix("hugepages-")?
                    .strip_suffix("kB")?
                    .parse()
                    .ok()?;
                Some(match kilobytes {
                    size if size >= 1 << 20 => format!("{}GB", size >> 20),
                    size if size >= 1 << 10 => format!("{}MB", size >> 10),
                    size => format!("{size}KB"),
                })
            })
            .collect();
        names.sort();
        names
    }

    /// Where the groups are, for events: the one with a controller.
    #[must_use]
    pub fn path_of(&self, controller: &str) -> Option<std::path::PathBuf> {
        let unified = self.state.unified;
        let found = self
            .members
            .iter()
            .find(|member| unified || member.has(controller));
        found.map(|member| member.dir.path.clone())
    }
}

/// Why limits were not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// They cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl UpdateError {
    /// The reason, coarsely.
    #[must_use]
    pub fn kind(&self) -> gantry_oci::Kind {
        match self {
            Self::Plan(error) => error.kind(),
            Self::Cgroup(error) => error.kind(),
        }
    }
}

/// By way of a descriptor, which real-time signals pass, too.
fn send(pid: u32, number: u8) -> Result<(), SysError> {
    let failed = |errno| SysError::new("pidfd_open", pid.to_string(), errno);
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or(Errno::SRCH).map_err(failed)?;
    let process = pidfd_open(process, PidfdFlags::empty()).map_err(failed)?;
    gantry_sys::signal::send(&process, number)
}

fn join_dir(dir: &Dir, pid: u32) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::File {
        action: "join control group",
        path: dir.path.clone(),
        source,
    };
    match dir.write("cgroup.procs", &pid.to_string()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(gantry_sys::SysError::new(
            "openat",
            "\"cgroup.procs\"".to_owned(),
            Errno::NOENT,
        ))),
        Err(source) => Err(failed(source)),
    }
}

/// Makes a group and those above it, with what processes need to be in it.
fn make_group(group: &GroupPlan, plan: &CgroupPlan) -> Result<Dir, CgroupError> {
    let mut dir = Dir::root(&group.mount)?;
    let is_cpuset = !plan.unified && group.controllers.iter().any(|name| name == "cpuset");
    let mut parts = group.path.split('/').peekable();
    while let Some(part) = parts.next() {
        if plan.unified {
            enable(&dir, group, plan)?;
        }
        let (child, made) = dir.ensure_child(part)?;
        if parts.peek().is_none() && !made {
            refuse_unfit(&child)?;
        }
        if is_cpuset {
            inherit(&dir, &child)?;
        }
        dir = child;
    }
    if plan.unified {
        prepare_unified(&dir, plan)?;
    }
    Ok(dir)
}

/// A group that was there before: others' processes would be limited and killed with the container, and in a frozen one the
/// container's first process would never come to itself.
fn refuse_unfit(group: &Dir) -> Result<(), CgroupError> {
    let says = |file, wanted: fn(&str) -> bool| {
        group
            .read(file)
            .map(|text| text.is_some_and(|text| wanted(text.trim())))
    };
    let why = if says("cgroup.procs", |pids| !pids.is_empty())? {
        "processes run in it already"
    } else if says("freezer.state", |state| state != "THAWED")?
        || says("cgroup.freeze", |state| state == "1")?
    {
        "it is frozen"
    } else {
        return Ok(());
    };
    Err(CgroupError::Unfit {
        path: group.path.clone(),
        why,
    })
}

/// Enables controllers for the groups below `dir`: the limits that are asked for, and what else can be had.
fn enable(dir: &Dir, group: &GroupPlan, plan: &CgroupPlan) -> Result<(), CgroupError> {
    let listed = |file| dir.read(file).map(|text| text.unwrap_or_default());
    let (offered, enabled) = (
        listed("cgroup.controllers")?,
        listed("cgroup.subtree_control")?,
    );
    let has = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    let missing: Vec<&String> = group
        .controllers
        .iter()
        .filter(|name| has(&offered, name) && !has(&enabled, name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all = missing
        .iter()
        .map(|name| format!("+{name}"))
        .collect::<Vec<_>>()
        .join(" ");
    if dir.write("cgroup.subtree_control", &all).is_ok() {
        return Ok(());
    }
    // One that cannot be enabled shall not keep the others away.
    for name in missing {
        let asked = plan
            .settings
            .iter()
            .any(|setting| setting.controller == *name);
        if let Err(source) = dir.write("cgroup.subtree_control", &format!("+{name}"))
            && asked
        {
            return Err(CgroupError::File {
                action: "enable controllers below",
                path: dir.path.clone(),
                source,
            });
        }
    }
    Ok(())
}

/// The group's own files, before a process comes.
fn prepare_unified(dir: &Dir, plan: &CgroupPlan) -> Result<(), CgroupError> {
    if dir
        .read("cgroup.type")?
        .is_some_and(|kind| kind.trim() == "domain invalid")
    {
        // Below a group of threads there are only groups of threads.
        dir.write("cgroup.type", "threaded")
            .map_err(|source| CgroupError::File {
                action: "make a threaded group of",
                path: dir.path.clone(),
                source,
            })?;
    }
    let enabled = dir.read("cgroup.controllers")?.unwrap_or_default();
    for setting in &plan.settings {
        let controller = &setting.controller;
        let needed = controller != "cgroup" && !matches!(setting.action, Action::Wish(_));
        if needed && !enabled.split_whitespace().any(|name| name == controller) {
            return Err(CgroupError::NotEnabled {
                controller: controller.clone(),
                path: dir.path.clone(),
            });
        }
    }
    Ok(())
}

/// In version 1 a group of cpuset begins without processors and memory, and takes no process so.
fn inherit(parent: &Dir, child: &Dir) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(file)?.is_some_and(|own| own.trim().is_empty()) {
            let inherited = parent.read(file)?.unwrap_or_default();
            child
                .write(file, inherited.trim())
                .map_err(|source| CgroupError::File {
                    action: "hand processors and memory down to",
                    path: child.path.clone(),
                    source,
                })?;
        }
    }
    Ok(())
}

fn gather_pids(dir: &Dir, pids: &mut Vec<u32>) -> Result<(), CgroupError> {
    let listed = dir.read("cgroup.procs")?.unwrap_or_default();
    pids.extend(
        listed
            .lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    for name in dir.children()? {
        if let Some(child) = dir.child(&name)? {
            gather_pids(&child, pids)?;
        }
    }
    Ok(())
}
