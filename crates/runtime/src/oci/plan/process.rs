// SPDX-License-Identifier: Apache-2.0
//! What a process of the container is and may do: the first one and those of `exec` alike.

use std::path::PathBuf;

use gantry_sys::task::Scheduling;
use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimit, Process,
    Scheduler, Spec,
};
use serde::Serialize;

use super::{Facts, PlanError};
use crate::capability::{Capability, CapabilitySet};

/// The five sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CapabilityMasks {
    /// What can ever be gained.
    pub bounding: CapabilitySet,
    /// What is used.
    pub effective: CapabilitySet,
    /// What may be used.
    pub permitted: CapabilitySet,
    /// What programs with capabilities of their own may inherit.
    pub inheritable: CapabilitySet,
    /// What every program inherits.
    pub ambient: CapabilitySet,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RlimitStep {
    /// `RLIMIT_…`.
    pub name: String,
    /// What holds.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// Where memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPolicy {
    /// Mode and flags, as the call takes them.
    pub mode: u32,
    /// Nodes.
    pub nodes: Vec<u32>,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Affinity {
    /// Before the process is in the container's control group; none leaves them as they are.
    pub initial: Option<Vec<u32>>,
    /// After that.
    pub last: Option<Vec<u32>>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessPlan {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// The directory, in the container.
    pub cwd: PathBuf,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Creation mask.
    pub umask: u32,
    /// A terminal, with its height and width if those are known.
    pub terminal: Option<Option<(u16, u16)>>,
    /// Capabilities; none leaves those of the runtime, as runc does.
    pub capabilities: Option<CapabilityMasks>,
    /// Limits.
    pub rlimits: Vec<RlimitStep>,
    /// Nothing executed ever gains privileges.
    pub no_new_privileges: bool,
    /// The score.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile.
    pub apparmor: Option<String>,
    /// The SELinux label.
    pub selinux: Option<String>,
    /// Class and level.
    pub io_priority: Option<(u8, u8)>,
    /// Policy and priority.
    pub scheduling: Option<Scheduling>,
    /// Processors of a process of `exec`, before and after it is in the control group.
    pub cpu_affinity: Affinity,
    /// The execution domain.
    pub personality: Option<u32>,
    /// Where memory comes from.
    pub memory_policy: Option<MemoryPolicy>,
}

fn masks(process: &Process) -> Option<CapabilityMasks> {
    let listed = process.capabilities().as_ref()?;
    let set = |list: &Option<Capabilities>| {
        let mut set = CapabilitySet::EMPTY;
        for name in list.iter().flatten() {
            // Every name that the document's type knows is one of the kernel's.
            if let Some(capability) = Capability::find(&name.to_string()) {
                set.insert(capability);
            }
        }
        set
    };
    Some(CapabilityMasks {
        bounding: set(listed.bounding()),
        effective: set(listed.effective()),
        permitted: set(listed.permitted()),
        inheritable: set(listed.inheritable()),
        ambient: set(listed.ambient()),
    })
}

fn rlimit(
    limit: &PosixRlimit,
    index: usize,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> Result<RlimitStep, PlanError> {
    let name = limit.typ().to_string();
    let (mut soft, mut hard) = (limit.soft(), limit.hard());
    if soft > hard {
        let place = format!(".process.rlimits[{index}]");
        return Err(PlanError::new(
            place,
            format!("{name}: soft {soft} above hard {hard}"),
        ));
    }
    if let Some(&most) = facts.hard_limits.get(&name).filter(|most| hard > **most) {
        warnings.push(format!(
            "{name}: clamped to {most}, the limit of the runtime itself, which has no CAP_SYS_RESOURCE"
        ));
        hard = most;
        soft = soft.min(most);
    }
    Ok(RlimitStep { name, soft, hard })
}

fn scheduling(wanted: &Scheduler) -> Scheduling {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    Scheduling {
        policy,
        flags,
        nice: wanted.nice().unwrap_or(0),
        priority: wanted.priority().unwrap_or(0).unsigned_abs(),
        runtime_ns: wanted.runtime().unwrap_or(0),
        deadline_ns: wanted.deadline().unwrap_or(0),
        period_ns: wanted.period().unwrap_or(0),
    }
}

/// Reads `0-3,7`, with a cap on what it may hold.
fn number_list(text: &str, place: &str) -> Result<Vec<u32>, PlanError> {
    const MOST: u32 = 8191;
    let wrong = || {
        PlanError::new(
            place,
            format!("{text:?} is no list of numbers up to {MOST}"),
        )
    };
    let number = |text: &str| -> Result<u32, PlanError> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value: Option<u32> = if plain { text.parse().ok() } else { None };
        value.filter(|value| *value <= MOST).ok_or_else(wrong)
    };
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.trim().split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part.trim())?, number(part.trim())?),
        };
        if first > last {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

const MPOL_DEFAULT: u32 = 0;
const MPOL_PREFERRED: u32 = 1;
const MPOL_LOCAL: u32 = 4;

fn memory_policy(spec: &Spec) -> Result<Option<MemoryPolicy>, PlanError> {
    let Some(wanted) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.memory_policy().as_ref())
    else {
        return Ok(None);
    };
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => MPOL_DEFAULT,
        MemoryPolicyModeType::MpolPreferred => MPOL_PREFERRED,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => MPOL_LOCAL,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let nodes = match wanted.nodes().as_deref().filter(|text| !text.is_empty()) {
        Some(text) => number_list(text, ".linux.memoryPolicy.nodes")?,
        None => Vec::new(),
    };
    let rule = match (mode, nodes.is_empty()) {
        (MPOL_DEFAULT | MPOL_LOCAL, false) => "takes no nodes",
        (MPOL_DEFAULT | MPOL_LOCAL | MPOL_PREFERRED, _) | (_, false) => "",
        (_, true) => "needs nodes",
    };
    if !rule.is_empty() {
        let place = ".linux.memoryPolicy.nodes";
        return Err(PlanError::new(place, format!("{} {rule}", wanted.mode())));
    }
    Ok(Some(MemoryPolicy {
        mode: mode | flags,
        nodes,
    }))
}

fn personality(spec: &Spec) -> Result<Option<u32>, PlanError> {
    const PER_LINUX: u32 = 0;
    const PER_LINUX32: u32 = 8;
    let Some(wanted) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.personality().as_ref())
    else {
        return Ok(None);
    };
    if wanted
        .flags()
        .as_ref()
        .is_some_and(|flags| !flags.is_empty())
    {
        return Err(PlanError::new(
            ".linux.personality.flags",
            "the specification names none",
        ));
    }
    Ok(Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => PER_LINUX,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    }))
}

fn oom_score(process: &Process, facts: &Facts, warnings: &mut Vec<String>) -> Option<i32> {
    let wanted = process.oom_score_adj()?;
    if facts.may_raise_limits || wanted >= facts.own_oom_score_adj {
        return Some(wanted);
    }
    warnings.push(format!(
        "oomScoreAdj: {wanted} clamped to {}, that of the runtime itself, which has no CAP_SYS_RESOURCE",
        facts.own_oom_score_adj
    ));
    Some(facts.own_oom_score_adj)
}

/// Decides about one process of a container.
///
/// # Errors
/// The document asks for what makes no sense or cannot be had here.
pub(super) fn plan(
    spec: &Spec,
    wanted: &Process,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> Result<ProcessPlan, PlanError> {
    let args = wanted.args().clone().unwrap_or_default();
    if args.is_empty() {
        return Err(PlanError::new(".process.args", "missing"));
    }
    let words = args.iter().chain(wanted.env().iter().flatten());
    if words.clone().any(|word| word.contains('\0')) {
        return Err(PlanError::new(
            ".process",
            "an argument or variable holds a NUL",
        ));
    }
    let cwd = super::absolute(wanted.cwd(), ".process.cwd")?;
    let named = |name: &Option<String>, known: bool, place: &str| match name {
        Some(name) if !name.is_empty() && !known => Err(PlanError::new(
            place,
            format!("{name:?} asks for what this kernel does not enforce"),
        )),
        other => Ok(other.clone().filter(|name| !name.is_empty())),
    };
    let user = wanted.user();
    let side = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
    let affinity = wanted
        .exec_cpu_affinity()
        .as_ref()
        .map(|affinity| {
            let list = |text: &Option<String>| {
                text.as_deref()
                    .filter(|text| !text.is_empty())
                    .map(|text| number_list(text, ".process.execCPUAffinity"))
                    .transpose()
            };
            Ok(Affinity {
                initial: list(affinity.initial())?,
                last: list(affinity.cpu_affinity_final())?,
            })
        })
        .transpose()?
        .unwrap_or_default();
    Ok(ProcessPlan {
        args,
        env: wanted.env().clone().unwrap_or_default(),
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022) & 0o777,
        terminal: wanted.terminal().unwrap_or(false).then(|| {
            wanted
                .console_size()
                .map(|size| (side(size.height()), side(size.width())))
        }),
        capabilities: masks(wanted),
        rlimits: wanted
            .rlimits()
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, limit)| rlimit(limit, index, facts, warnings))
            .collect::<Result<_, _>>()?,
        no_new_privileges: wanted.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score(wanted, facts, warnings),
        apparmor: named(
            wanted.apparmor_profile(),
            facts.apparmor,
            ".process.apparmorProfile",
        )?,
        selinux: named(
            wanted.selinux_label(),
            facts.selinux,
            ".process.selinuxLabel",
        )?,
        io_priority: wanted
            .io_priority()
            .map(|priority| {
                let class = match priority.class() {
                    IOPriorityClass::IoprioClassRt => 1,
                    IOPriorityClass::IoprioClassBe => 2,
                    IOPriorityClass::IoprioClassIdle => 3,
                };
                match u8::try_from(priority.priority()) {
                    Ok(level @ 0..=7) => Ok((class, level)),
                    _ => Err(PlanError::new(
                        ".process.ioPriority.priority",
                        "is none of 0 to 7",
                    )),
                }
            })
            .transpose()?,
        scheduling: wanted.scheduler().as_ref().map(scheduling),
        cpu_affinity: affinity,
        personality: personality(spec)?,
        memory_policy: memory_policy(spec)?,
    })
}

/// Decides about one more process of a container, whose document `spec` is.
///
/// # Errors
/// The process asks for what makes no sense or cannot be had here.
pub fn process(
    spec: &Spec,
    wanted: &Process,
    facts: &Facts,
) -> Result<(ProcessPlan, Vec<String>), PlanError> {
    let mut warnings = Vec::new();
    let plan = plan(spec, wanted, facts, &mut warnings)?;
    Ok((plan, warnings))
}
