// SPDX-License-Identifier: Apache-2.0
//! Options of limits and shares.

use std::path::Path;

use gantry_oci::Kind;
use gantry_runtime::options::{
    BlockSetting, ByteSize, DeviceKind, DeviceNumber, DeviceRule, KeyValue, NumberSet, Resources,
    SwapLimit, Throttled, parse_cgroup_conf, parse_cgroup_parent,
};

use super::host::numbers;
use crate::exit::Failure;

/// How much of the machine the container may use.
#[derive(Debug, Clone, clap::Args)]
pub struct ResourceArgs {
    /// Leave the container this much memory when memory is scarce
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<ByteSize>,
    /// Limit memory and swap together; -1 for as much swap as there is
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<SwapLimit>,
    /// How readily memory is swapped out, 0 to 100; -1 as the host has it
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=100))]
    memory_swappiness: Option<i64>,
    /// Kill nothing when memory runs out
    #[arg(long)]
    oom_kill_disable: bool,
    /// Share of processors, 2 to 262144
    #[arg(long, short = 'c', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    cpu_shares: Option<u64>,
    /// The period of --cpu-quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// The period for real-time processes, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Time of real-time processes in each such period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Use these processors only
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<NumberSet>,
    /// Use these memory nodes only
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<NumberSet>,
    /// Share of block devices, 10 to 1000; 0 as the host has it
    #[arg(long, value_name = "NUMBER", value_parser = parse_weight)]
    blkio_weight: Option<u16>,
    /// Share of one block device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = DeviceNumber::parse_weight)]
    blkio_weight_device: Vec<DeviceNumber>,
    /// Limit how many bytes are read from a block device in a second
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = DeviceNumber::parse_bytes)]
    device_read_bps: Vec<DeviceNumber>,
    /// Limit how many bytes are written to a block device in a second
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = DeviceNumber::parse_bytes)]
    device_write_bps: Vec<DeviceNumber>,
    /// Limit how often a block device is read in a second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = DeviceNumber::parse_operations)]
    device_read_iops: Vec<DeviceNumber>,
    /// Limit how often a block device is written in a second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = DeviceNumber::parse_operations)]
    device_write_iops: Vec<DeviceNumber>,
    /// Let devices be opened by type and numbers: 'c 10:* rw'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<DeviceRule>,
    /// Write a file of a controller of control groups, version 2
    #[arg(long, value_name = "FILE=VALUE", value_parser = parse_cgroup_conf)]
    cgroup_conf: Vec<KeyValue>,
    /// Make the container's control group in this one
    #[arg(long, value_name = "PATH", value_parser = parse_cgroup_parent)]
    cgroup_parent: Option<String>,
    /// The class of cache and memory bandwidth (resctrl)
    #[arg(long, value_name = "CLASS")]
    rdt_class: Option<String>,
}

/// Nothing is what docker calls 0.
fn parse_weight(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(weight @ (0 | 10..=1000)) => Ok(weight),
        _ => Err("expected a number from 10 to 1000, or 0".to_owned()),
    }
}

impl ResourceArgs {
    /// Looks devices up.
    pub(super) fn resolve(self) -> Result<Resources, Failure> {
        let mut throttles = Vec::new();
        for (kind, list) in [
            (Throttled::ReadBytes, &self.device_read_bps),
            (Throttled::WriteBytes, &self.device_write_bps),
            (Throttled::Reads, &self.device_read_iops),
            (Throttled::Writes, &self.device_write_iops),
        ] {
            for limit in list {
                throttles.push((kind, block_setting(limit)?));
            }
        }
        Ok(Resources {
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            memory_swappiness: self
                .memory_swappiness
                .and_then(|level| level.try_into().ok()),
            oom_kill_disable: self.oom_kill_disable,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_rt_period: self.cpu_rt_period,
            cpu_rt_runtime: self.cpu_rt_runtime,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            blkio_weight: self.blkio_weight.filter(|weight| *weight > 0),
            blkio_weight_devices: self
                .blkio_weight_device
                .iter()
                .map(block_setting)
                .collect::<Result<_, _>>()?,
            throttles,
            device_rules: self.device_cgroup_rule,
            unified: self.cgroup_conf,
            cgroup_parent: self.cgroup_parent,
            rdt_class: self.rdt_class,
        })
    }
}

fn block_setting(wanted: &DeviceNumber) -> Result<BlockSetting, Failure> {
    let path: &Path = &wanted.device;
    let found =
        numbers(path).map_err(|failure| failure.context(format!("limit {}", path.display())))?;
    if found.kind != DeviceKind::Block {
        return Err(Failure::message(
            Kind::InvalidInput,
            format!("limit {}: it is not a block device", path.display()),
        ));
    }
    Ok(BlockSetting {
        major: found.major,
        minor: found.minor,
        number: wanted.number,
    })
}
