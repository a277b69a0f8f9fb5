// SPDX-License-Identifier: Apache-2.0
//! Limits, devices and kernel settings.

use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxCpu, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids,
    LinuxResources,
};

use super::profile::Defaults;
use super::{GenerateError, LimitSupport, Origin, Placement, Report};
use crate::options::{DeviceKind, Network, RunOptions};

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
    resources.set_devices(device_rules(options, support));
    if let Some(size) = options.memory_max {
        require(support.memory, "--memory", "memory")?;
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(to_i64(size.0)));
        if support.swap {
            // Memory and swap together: so much and no swap.
            memory.set_swap(Some(to_i64(size.0)));
        } else {
            report.note("this host does not limit swap; --memory limits memory alone");
        }
        resources.set_memory(Some(memory));
        report.explain("memory", size.0, Origin::Option, Some("--memory"));
    }
    if let Some(cpus) = options.cpus {
        require(support.cpu, "--cpus", "cpu")?;
        let mut cpu = LinuxCpu::default();
        cpu.set_period(Some(CPU_PERIOD_US))
            .set_quota(Some(to_i64(cpus.milli * CPU_PERIOD_US / 1000)));
        resources.set_cpu(Some(cpu));
        report.explain("processor time", cpus.milli, Origin::Option, Some("--cpus"));
    }
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
    for device in &options.devices {
        let mut allowed = rule(true, &device.access);
        allowed
            .set_typ(Some(device_type(device.kind)))
            .set_major(Some(device.major.into()))
            .set_minor(Some(device.minor.into()));
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
fn check_sysctl(key: &str, network: Network) -> Result<(), GenerateError> {
    let refuse = |why| {
        Err(GenerateError::Sysctl {
            key: key.into(),
            why,
        })
    };
    if key.starts_with("net.") {
        return match network {
            Network::None => Ok(()),
            Network::Host => refuse("the network is the host's"),
        };
    }
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    if ipc.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(());
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
        check_sysctl(&setting.key, options.network)?;
        settings.insert(setting.key.clone(), setting.value.clone());
        report.explain(&setting.key, &setting.value, Origin::Option, None);
    }
    Ok((!settings.is_empty()).then_some(settings))
}
