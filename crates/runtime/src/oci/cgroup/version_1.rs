// SPDX-License-Identifier: Apache-2.0
//! What limits are called in version 1.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::PlanError;
use super::plan::Settings;

pub(super) fn settings(
    resources: &LinuxResources,
    settings: &mut Settings,
) -> Result<(), PlanError> {
    if resources
        .unified()
        .as_ref()
        .is_some_and(|unified| !unified.is_empty())
    {
        return Err(PlanError::Unsupported {
            member: "unified".to_owned(),
            problem: "it is for version 2 of control groups, and this host has version 1"
                .to_owned(),
        });
    }
    if let Some(memory) = resources.memory() {
        memory_settings(memory, settings);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_settings(cpu, settings);
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
        block_io_settings(io, settings);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, bytes) = (limit.page_size(), limit.limit());
        settings.add(
            "hugetlb",
            "hugepageLimits",
            format!("hugetlb.{size}.limit_in_bytes"),
            bytes,
        );
        settings.wish(
            "hugetlb",
            "hugepageLimits",
            format!("hugetlb.{size}.rsvd.limit_in_bytes"),
            bytes,
        );
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            settings.add("net_cls", "network.classID", "net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            settings.add(
                "net_prio",
                "network.priorities",
                "net_prio.ifpriomap",
                value,
            );
        }
    }
    super::plan::rdma(resources, settings);
    Ok(())
}

fn memory_settings(memory: &LinuxMemory, settings: &mut Settings) {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    // Swap counts both, and may at no time be less than memory: a new group begins without limits, so memory goes first.
    if let Some(limit) = memory.limit() {
        settings.add("memory", "memory.limit", LIMIT, limit);
    }
    if let Some(swap) = memory.swap() {
        settings.add("memory", "memory.swap", SWAP, swap);
    } else if memory.limit() == Some(-1) {
        // No limit on memory means none on both, where both are limited at all.
        settings.wish("memory", "memory.limit", SWAP, -1);
    }
    if let Some(reservation) = memory.reservation() {
        settings.add(
            "memory",
            "memory.reservation",
            "memory.soft_limit_in_bytes",
            reservation,
        );
    }
    if let Some(tcp) = memory.kernel_tcp() {
        settings.add(
            "memory",
            "memory.kernelTCP",
            "memory.kmem.tcp.limit_in_bytes",
            tcp,
        );
    }
    if memory.kernel().is_some() {
        settings.note("memory.kernel: kernels do not limit it by itself any more; left out");
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.add("memory", "memory.disableOOMKiller", "memory.oom_control", 1);
    }
    if let Some(swappiness) = memory.swappiness() {
        settings.add(
            "memory",
            "memory.swappiness",
            "memory.swappiness",
            swappiness,
        );
    }
    if memory.use_hierarchy() == Some(true) {
        settings.wish("memory", "memory.useHierarchy", "memory.use_hierarchy", 1);
    }
    if memory.check_before_update() == Some(true)
        && let Some(limit) = memory.limit()
    {
        settings.check_use("memory", "memory.limit", "memory.usage_in_bytes", limit);
    }
}

fn cpu_settings(cpu: &LinuxCpu, settings: &mut Settings) {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        settings.add("cpu", "cpu.shares", "cpu.shares", shares);
    }
    // A quota is of a period; an empty burst first, since it may not exceed the quota.
    if cpu.burst() == Some(0) {
        settings.wish("cpu", "cpu.burst", "cpu.cfs_burst_us", 0);
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        settings.add("cpu", "cpu.period", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        settings.add("cpu", "cpu.quota", "cpu.cfs_quota_us", quota);
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        settings.add("cpu", "cpu.burst", "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        settings.add("cpu", "cpu.realtimePeriod", "cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        settings.add("cpu", "cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime);
    }
    if let Some(idle) = cpu.idle() {
        settings.add("cpu", "cpu.idle", "cpu.idle", idle);
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        settings.add("cpuset", "cpu.cpus", "cpuset.cpus", cpus);
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
        settings.add("cpuset", "cpu.mems", "cpuset.mems", mems);
    }
}

fn block_io_settings(io: &LinuxBlockIo, settings: &mut Settings) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        settings.either(
            "blkio",
            "blockIO.weight",
            [
                ("blkio.bfq.weight", weight.to_string()),
                ("blkio.weight", weight.to_string()),
            ],
        );
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        let value = weight.to_string();
        settings.either(
            "blkio",
            "blockIO.leafWeight",
            [
                ("blkio.bfq.leaf_weight", value.clone()),
                ("blkio.leaf_weight", value),
            ],
        );
    }
    for device in io.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            let value = line(weight);
            settings.either(
                "blkio",
                "blockIO.weightDevice",
                [
                    ("blkio.bfq.weight_device", value.clone()),
                    ("blkio.weight_device", value),
                ],
            );
        }
        if let Some(weight) = device.leaf_weight() {
            settings.add(
                "blkio",
                "blockIO.weightDevice",
                "blkio.leaf_weight_device",
                line(weight),
            );
        }
    }
    for (member, file, devices) in [
        (
            "blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            io.throttle_read_bps_device(),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            io.throttle_write_bps_device(),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            io.throttle_read_iops_device(),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            io.throttle_write_iops_device(),
        ),
    ] {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            settings.add("blkio", member, file, value);
        }
    }
}
