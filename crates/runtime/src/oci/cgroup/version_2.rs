// SPDX-License-Identifier: Apache-2.0
//! What limits are called in version 2, and how the numbers of version 1 are converted.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::PlanError;
use super::plan::Settings;

pub(super) fn settings(
    resources: &LinuxResources,
    settings: &mut Settings,
) -> Result<(), PlanError> {
    if let Some(memory) = resources.memory() {
        memory_settings(memory, settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_settings(cpu, settings)?;
    }
    if let Some(pids) = resources.pids() {
        settings.add(
            "pids",
            "pids.limit",
            "pids.max",
            super::plan::pids_max(pids.limit()),
        );
    }
    if let Some(io) = resources.block_io() {
        block_io_settings(io, settings)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, value) = (limit.page_size(), max_or(limit.limit()));
        settings.add(
            "hugetlb",
            "hugepageLimits",
            format!("hugetlb.{size}.max"),
            &value,
        );
        settings.wish(
            "hugetlb",
            "hugepageLimits",
            format!("hugetlb.{size}.rsvd.max"),
            &value,
        );
    }
    if let Some(network) = resources.network() {
        let asked = network.class_id().is_some_and(|class| class != 0)
            || network
                .priorities()
                .as_ref()
                .is_some_and(|list| !list.is_empty());
        if asked {
            return Err(unsupported(
                "network",
                "version 2 of control groups does not mark packets",
            ));
        }
    }
    super::plan::rdma(resources, settings);
    for (file, value) in sorted(resources.unified().iter().flatten()) {
        unified(file, value, settings)?;
    }
    Ok(())
}

fn unsupported(member: &str, problem: &str) -> PlanError {
    PlanError::Unsupported {
        member: member.to_owned(),
        problem: problem.to_owned(),
    }
}

fn sorted<'a>(
    map: impl Iterator<Item = (&'a String, &'a String)>,
) -> Vec<(&'a String, &'a String)> {
    let mut list: Vec<_> = map.collect();
    list.sort();
    list
}

/// A file of version 2, as the operator names it.
fn unified(file: &str, value: &str, settings: &mut Settings) -> Result<(), PlanError> {
    let member = format!("unified[{file:?}]");
    let Some((controller, rest)) = file.split_once('.') else {
        return Err(unsupported(&member, "it names no file of a controller"));
    };
    if rest.is_empty() || file.contains('/') || file.contains('\0') {
        return Err(unsupported(&member, "it names no file of a controller"));
    }
    for line in value.lines() {
        settings.add(controller, &member, file, line);
    }
    Ok(())
}

fn max_or(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

/// Swap alone, which is what version 2 limits, from memory and swap together.
///
/// # Errors
/// A limit on both that is less than that on memory, or is of nothing.
pub fn swap_max(limit: Option<i64>, swap: i64) -> Result<String, PlanError> {
    match (limit, swap) {
        (_, ..=-1) => Ok("max".to_owned()),
        // Zero was no answer in version 1.
        (_, 0) => Ok("max".to_owned()),
        (None | Some(..=0), _) => Err(unsupported(
            "memory.swap",
            "it counts memory and swap together, and memory has no limit",
        )),
        (Some(limit), swap) if swap < limit => Err(unsupported(
            "memory.swap",
            "it counts memory and swap together, and is less than memory.limit",
        )),
        (Some(limit), swap) => Ok((swap - limit).to_string()),
    }
}

fn memory_settings(memory: &LinuxMemory, settings: &mut Settings) -> Result<(), PlanError> {
    if memory.check_before_update() == Some(true)
        && let Some(limit) = memory.limit()
    {
        settings.check_use("memory", "memory.limit", "memory.current", limit);
    }
    match memory.swap() {
        Some(swap) if swap != 0 => {
            let value = swap_max(memory.limit(), swap)?;
            if ["0", "max"].contains(&value.as_str()) {
                // Where swap is not counted there is none to limit.
                settings.wish("memory", "memory.swap", "memory.swap.max", value);
            } else {
                settings.add("memory", "memory.swap", "memory.swap.max", value);
            }
        }
        _ => {
            if memory.limit() == Some(-1) {
                settings.wish("memory", "memory.limit", "memory.swap.max", "max");
            }
        }
    }
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        settings.add("memory", "memory.limit", "memory.max", max_or(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        settings.add(
            "memory",
            "memory.reservation",
            "memory.low",
            max_or(reservation),
        );
    }
    for (asked, what) in [
        (
            memory.kernel().is_some(),
            "memory.kernel: kernels do not limit it by itself any more",
        ),
        (
            memory.kernel_tcp().is_some(),
            "memory.kernelTCP: version 2 of control groups counts it as memory",
        ),
        (
            memory.swappiness().is_some(),
            "memory.swappiness: version 2 of control groups has none of its own",
        ),
        (
            memory.disable_oom_killer() == Some(true),
            "memory.disableOOMKiller: version 2 of control groups always kills",
        ),
    ] {
        if asked {
            settings.note(format!("{what}; left out"));
        }
    }
    Ok(())
}

/// The weight, 1 to 10000, for shares, 2 to 262144: the ends and the defaults (100 for 1024) meet.
///
/// The quadratic in the logarithm is the one that crun and runc came to use together; the linear one before it gave the
/// default shares a weight of 39.
#[must_use]
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let shares = u32::try_from(shares).expect("it is less than 262144");
            let log = f64::from(shares).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is between 1 and 10000"
            )]
            let weight = 10_f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

fn cpu_settings(cpu: &LinuxCpu, settings: &mut Settings) -> Result<(), PlanError> {
    const PERIOD_US: u64 = 100_000;
    let realtime = cpu.realtime_period().is_some_and(|period| period != 0)
        || cpu.realtime_runtime().is_some_and(|runtime| runtime != 0);
    if realtime {
        return Err(unsupported(
            "cpu.realtimeRuntime",
            "version 2 of control groups does not limit real-time tasks",
        ));
    }
    // The group of idle tasks has no weight of its own.
    if let Some(idle) = cpu.idle() {
        settings.add("cpu", "cpu.idle", "cpu.idle", idle);
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        settings.add("cpu", "cpu.shares", "cpu.weight", cpu_weight(shares));
    }
    if cpu.burst() == Some(0) {
        settings.wish("cpu", "cpu.burst", "cpu.max.burst", 0);
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        let value = format!("{quota} {}", period.unwrap_or(PERIOD_US));
        let member = if cpu.quota().is_some() {
            "cpu.quota"
        } else {
            "cpu.period"
        };
        settings.add("cpu", member, "cpu.max", value);
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        settings.add("cpu", "cpu.burst", "cpu.max.burst", burst);
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        settings.add("cpuset", "cpu.cpus", "cpuset.cpus", cpus);
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
        settings.add("cpuset", "cpu.mems", "cpuset.mems", mems);
    }
    Ok(())
}

/// The weight, 1 to 10000, for one of version 1, 10 to 1000.
#[must_use]
pub fn io_weight(weight: u16) -> u64 {
    match weight {
        0 => 0,
        weight => 1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990,
    }
}

fn block_io_settings(io: &LinuxBlockIo, settings: &mut Settings) -> Result<(), PlanError> {
    let leaf = io.leaf_weight().is_some_and(|weight| weight != 0)
        || io
            .weight_device()
            .iter()
            .flatten()
            .any(|device| device.leaf_weight().is_some_and(|weight| weight != 0));
    if leaf {
        return Err(unsupported(
            "blockIO.leafWeight",
            "version 2 of control groups has no weight of a group's own tasks",
        ));
    }
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        settings.either(
            "io",
            "blockIO.weight",
            [
                ("io.bfq.weight", weight.to_string()),
                ("io.weight", io_weight(weight).to_string()),
            ],
        );
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let line = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
            settings.either(
                "io",
                "blockIO.weightDevice",
                [
                    ("io.bfq.weight", line(u64::from(weight))),
                    ("io.weight", line(io_weight(weight))),
                ],
            );
        }
    }
    for (member, key, devices) in [
        (
            "blockIO.throttleReadBpsDevice",
            "rbps",
            io.throttle_read_bps_device(),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "wbps",
            io.throttle_write_bps_device(),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "riops",
            io.throttle_read_iops_device(),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "wiops",
            io.throttle_write_iops_device(),
        ),
    ] {
        for device in devices.iter().flatten() {
            let rate = match device.rate() {
                // In version 1 that takes the limit away.
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            settings.add(
                "io",
                member,
                "io.max",
                format!("{}:{} {key}={rate}", device.major(), device.minor()),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weights_meet_at_the_ends_and_at_the_defaults() {
        for (shares, weight) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (1_000_000, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert!(
            (2..262_144)
                .step_by(97)
                .all(|shares| cpu_weight(shares) <= cpu_weight(shares + 97))
        );
        for (weight, want) in [(0, 0), (10, 1), (1000, 10_000), (500, 4950), (5, 1)] {
            assert_eq!(io_weight(weight), want, "{weight}");
        }
    }

    #[test]
    fn swap_is_what_exceeds_memory() {
        assert_eq!(swap_max(Some(100), 250).unwrap(), "150");
        assert_eq!(swap_max(Some(100), 100).unwrap(), "0");
        assert_eq!(swap_max(Some(100), -1).unwrap(), "max");
        for (limit, swap) in [(None, 10), (Some(-1), 10), (Some(100), 99)] {
            assert!(swap_max(limit, swap).is_err(), "{limit:?} {swap}");
        }
    }
}
