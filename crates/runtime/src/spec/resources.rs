// SPDX-License-Identifier: Apache-2.0
//! Limits, devices and kernel settings.

use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory,
    LinuxPids, LinuxResources, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDeviceBuilder,
};

use super::profile::Defaults;
use super::{GenerateError, LimitSupport, Origin, Placement, Report};
use crate::options::{DeviceKind, Network, NumberSet, RunOptions, SwapLimit, Throttled};

const CPU_PERIOD_US: u64 = 100_000;

/// An operator's limit must be enforced or refused.
fn require(supported: bool, option: &'static str, controller: &str) -> Result<(), GenerateError> {
    if supported {
        return Ok(());
    }
    Err(GenerateError::Limit {
        option,
        why: format!("no usable {controller} controller"),
    })
}

fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn resources(
    options: &RunOptions,
    placement: &Placement,
    defaults: &Defaults,
    report: &mut Report,
) -> Result<Option<LinuxResources>, GenerateError> {
    let support = placement.limits;
    let mut resources = LinuxResources::default();
    resources
        .set_devices(device_rules(options, support))
        .set_memory(memory(options, support, report)?)
        .set_cpu(processors(options, support, report)?)
        .set_block_io(block_io(options, support, report)?)
        .set_unified(unified(options, support, report)?);
    let (limit, origin) = match options.pids_limit {
        Some(limit) => {
            if limit > 0 {
                require(support.pids, "--pids-limit", "pids")?;
            }
            (limit, Origin::Option)
        }
        None => (defaults.pids_limit, Origin::Profile),
    };
    if limit > 0 && support.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
        report.explain("processes", limit, origin, Some("--pids-limit"));
    } else if limit > 0 {
        report.note(format!(
            "the profile's limit of {limit} processes is not enforced: no usable pids controller"
        ));
    }
    Ok(support.managed.then_some(resources))
}

fn memory(
    options: &RunOptions,
    support: LimitSupport,
    report: &mut Report,
) -> Result<Option<LinuxMemory>, GenerateError> {
    let asked = &options.resources;
    let mut memory = LinuxMemory::default();
    if let Some(size) = options.memory_max {
        require(support.memory, "--memory", "memory")?;
        memory.set_limit(Some(to_i64(size.0)));
        if asked.memory_swap.is_some() {
            // Said below.
        } else if support.swap {
            // Memory and swap together: so much and no swap.
            memory.set_swap(Some(to_i64(size.0)));
        } else {
            report.note("this host does not limit swap; --memory limits memory alone");
        }
        report.explain("memory", size.0, Origin::Option, Some("--memory"));
    }
    if let Some(size) = asked.memory_reservation {
        require(support.memory, "--memory-reservation", "memory")?;
        if options.memory_max.is_some_and(|most| size > most) {
            return Err(GenerateError::Conflict {
                option: "--memory-reservation",
                why: "it is above --memory",
            });
        }
        memory.set_reservation(Some(to_i64(size.0)));
        report.explain("memory when scarce", size.0, Origin::Option, None);
    }
    if let Some(limit) = asked.memory_swap {
        require(support.swap, "--memory-swap", "swap")?;
        let (bytes, enough) = match (limit, options.memory_max) {
            (SwapLimit::Unlimited, _) => (-1, true),
            (SwapLimit::Bytes(size), most) => (to_i64(size.0), most.is_some_and(|m| size >= m)),
        };
        if !enough {
            return Err(GenerateError::Conflict {
                option: "--memory-swap",
                why: "it counts memory, too, so it needs --memory and is at least that",
            });
        }
        memory.set_swap(Some(bytes));
        report.explain("memory and swap", bytes, Origin::Option, None);
    }
    if let Some(level) = asked.memory_swappiness {
        require(support.memory, "--memory-swappiness", "memory")?;
        memory.set_swappiness(Some(level));
        report.explain("swappiness", level, Origin::Option, None);
    }
    if asked.oom_kill_disable {
        require(support.memory, "--oom-kill-disable", "memory")?;
        memory.set_disable_oom_killer(Some(true));
        report.explain(
            "killing when memory runs out",
            "never",
            Origin::Option,
            None,
        );
    }
    Ok((memory != LinuxMemory::default()).then_some(memory))
}

fn processors(
    options: &RunOptions,
    support: LimitSupport,
    report: &mut Report,
) -> Result<Option<LinuxCpu>, GenerateError> {
    let asked = &options.resources;
    let mut cpu = LinuxCpu::default();
    if let Some(cpus) = options.cpus {
        require(support.cpu, "--cpus", "cpu")?;
        if asked.cpu_period.is_some() || asked.cpu_quota.is_some() {
            return Err(GenerateError::Conflict {
                option: "--cpus",
                why: "--cpu-period and --cpu-quota say the same in other words",
            });
        }
        cpu.set_period(Some(CPU_PERIOD_US))
            .set_quota(Some(to_i64(cpus.milli * CPU_PERIOD_US / 1000)));
        report.explain("processor time", cpus.milli, Origin::Option, Some("--cpus"));
    }
    let mut asks = |option: &'static str, controller: bool, value: Option<String>| {
        let Some(value) = value else { return Ok(()) };
        report.explain(&option[2..], value, Origin::Option, None);
        let name = if option.starts_with("--cpuset") {
            "cpuset"
        } else {
            "cpu"
        };
        require(controller, option, name)
    };
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    let signed = |number: Option<i64>| number.map(|number| number.to_string());
    asks("--cpu-shares", support.cpu, text(asked.cpu_shares))?;
    asks("--cpu-period", support.cpu, text(asked.cpu_period))?;
    asks("--cpu-quota", support.cpu, signed(asked.cpu_quota))?;
    asks("--cpu-rt-period", support.cpu, text(asked.cpu_rt_period))?;
    asks(
        "--cpu-rt-runtime",
        support.cpu,
        signed(asked.cpu_rt_runtime),
    )?;
    let set = |set: &Option<NumberSet>| set.as_ref().map(|set| set.as_str().to_owned());
    let (cpus, mems) = (set(&asked.cpuset_cpus), set(&asked.cpuset_mems));
    asks("--cpuset-cpus", support.cpuset, cpus.clone())?;
    asks("--cpuset-mems", support.cpuset, mems.clone())?;
    cpu.set_shares(asked.cpu_shares)
        .set_realtime_period(asked.cpu_rt_period)
        .set_realtime_runtime(asked.cpu_rt_runtime)
        .set_cpus(cpus)
        .set_mems(mems);
    if options.cpus.is_none() {
        cpu.set_period(asked.cpu_period).set_quota(asked.cpu_quota);
    }
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

fn block_io(
    options: &RunOptions,
    support: LimitSupport,
    report: &mut Report,
) -> Result<Option<LinuxBlockIo>, GenerateError> {
    let asked = &options.resources;
    let mut io = LinuxBlockIo::default();
    if let Some(weight) = asked.blkio_weight {
        require(support.block_io, "--blkio-weight", "io")?;
        io.set_weight(Some(weight));
        report.explain("share of block devices", weight, Origin::Option, None);
    }
    if !asked.blkio_weight_devices.is_empty() {
        require(support.block_io, "--blkio-weight-device", "io")?;
        let weights = asked.blkio_weight_devices.iter().map(|setting| {
            LinuxWeightDeviceBuilder::default()
                .major(setting.major)
                .minor(setting.minor)
                .weight(u16::try_from(setting.number).unwrap_or(u16::MAX))
                .build()
                .expect("every member of the builder has a default")
        });
        io.set_weight_device(Some(weights.collect()));
    }
    let throttled = |what: Throttled| {
        let of_kind = asked.throttles.iter().filter(|(kind, _)| *kind == what);
        let list: Vec<LinuxThrottleDevice> = of_kind
            .map(|(_, setting)| {
                LinuxThrottleDeviceBuilder::default()
                    .major(setting.major)
                    .minor(setting.minor)
                    .rate(setting.number)
                    .build()
                    .expect("every member of the builder has a default")
            })
            .collect();
        (!list.is_empty()).then_some(list)
    };
    if !asked.throttles.is_empty() {
        require(support.block_io, "--device-read-bps and its kin", "io")?;
        let count = asked.throttles.len();
        report.explain("limits of block devices", count, Origin::Option, None);
    }
    io.set_throttle_read_bps_device(throttled(Throttled::ReadBytes))
        .set_throttle_write_bps_device(throttled(Throttled::WriteBytes))
        .set_throttle_read_iops_device(throttled(Throttled::Reads))
        .set_throttle_write_iops_device(throttled(Throttled::Writes));
    Ok((io != LinuxBlockIo::default()).then_some(io))
}

fn unified(
    options: &RunOptions,
    support: LimitSupport,
    report: &mut Report,
) -> Result<Option<HashMap<String, String>>, GenerateError> {
    let files = &options.resources.unified;
    if files.is_empty() {
        return Ok(None);
    }
    if !support.unified {
        return Err(GenerateError::Limit {
            option: "--cgroup-conf",
            why: "its files are those of version 2 of control groups".into(),
        });
    }
    for file in files {
        report.explain(&file.key, &file.value, Origin::Option, None);
    }
    let pairs = files
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()));
    Ok(Some(pairs.collect()))
}

/// Nothing but what the runtime itself allows, plus what was asked for.
fn device_rules(options: &RunOptions, support: LimitSupport) -> Option<Vec<LinuxDeviceCgroup>> {
    if !support.devices {
        return None;
    }
    let rule = |allow: bool, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow)
            .set_typ(None)
            .set_major(None)
            .set_minor(None)
            .set_access(Some(access.into()));
        rule
    };
    let mut rules = vec![rule(options.privileged, "rwm")];
    for device in options.devices.iter().filter(|_| !options.privileged) {
        let mut allowed = rule(true, &device.access);
        allowed
            .set_typ(Some(device_type(device.kind)))
            .set_major(Some(device.major.into()))
            .set_minor(Some(device.minor.into()));
        rules.push(allowed);
    }
    for wanted in &options.resources.device_rules {
        let mut allowed = rule(true, &wanted.access);
        allowed
            .set_typ(Some(match wanted.kind {
                'b' => LinuxDeviceType::B,
                'c' => LinuxDeviceType::C,
                _ => LinuxDeviceType::A,
            }))
            .set_major(wanted.major.map(Into::into))
            .set_minor(wanted.minor.map(Into::into));
        rules.push(allowed);
    }
    Some(rules)
}

fn device_type(kind: DeviceKind) -> LinuxDeviceType {
    match kind {
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Char => LinuxDeviceType::C,
    }
}

pub(super) fn devices(options: &RunOptions) -> Option<Vec<LinuxDevice>> {
    if options.devices.is_empty() {
        return None;
    }
    let nodes = options.devices.iter().map(|device| {
        let mut node = LinuxDevice::default();
        node.set_path(device.target.clone().into())
            .set_typ(device_type(device.kind))
            .set_major(device.major.into())
            .set_minor(device.minor.into())
            .set_file_mode(Some(device.mode & 0o777))
            .set_uid(Some(device.uid))
            .set_gid(Some(device.gid));
        node
    });
    Some(nodes.collect())
}

/// Whether a setting belongs to a namespace that the container has to itself.
fn check_sysctl(key: &str, options: &RunOptions) -> Result<(), GenerateError> {
    let refuse = |why| {
        Err(GenerateError::Sysctl {
            key: key.into(),
            why,
        })
    };
    if key.starts_with("net.") {
        return match options.network {
            Network::None => Ok(()),
            Network::Host => refuse("the network is the host's"),
            _ => refuse("the network is another container's"),
        };
    }
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    if ipc.iter().any(|prefix| key.starts_with(prefix)) {
        return match options.namespaces.ipc.sharing.is_private() {
            true => Ok(()),
            false => refuse("message queues are not the container's own"),
        };
    }
    refuse("only net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.* are a container's own")
}

pub(super) fn sysctls(
    options: &RunOptions,
    defaults: &Defaults,
    report: &mut Report,
) -> Result<Option<HashMap<String, String>>, GenerateError> {
    let mut settings = HashMap::new();
    if options.network == Network::None {
        for (key, value) in defaults.sysctls {
            settings.insert((*key).to_owned(), (*value).to_owned());
            report.explain(key, value, Origin::Profile, Some("--sysctl"));
        }
    }
    for setting in &options.sysctls {
        check_sysctl(&setting.key, options)?;
        settings.insert(setting.key.clone(), setting.value.clone());
        report.explain(&setting.key, &setting.value, Origin::Option, None);
    }
    Ok((!settings.is_empty()).then_some(settings))
}
