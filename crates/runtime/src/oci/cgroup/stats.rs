// SPDX-License-Identifier: Apache-2.0
//! What a container's groups count, in the shape of runc's `events`.
//!
//! # Source
//! runc's `types` package; `cgroup-v1`, `cgroup-v2.rst`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Cgroup, CgroupError};

/// One look at a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Processors and memory nodes.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Processes.
    pub pids: Pids,
    /// Transfers to and from block devices.
    pub blkio: BlockIo,
    /// Huge pages, by size.
    pub hugetlb: BTreeMap<String, HugePages>,
    /// Caches and memory bandwidth; nothing here.
    pub intel_rdt: BTreeMap<String, u64>,
    /// Interfaces; nobody counts them by group.
    pub network_interfaces: Option<Vec<u64>>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// What was used, in nanoseconds.
    pub usage: CpuUsage,
    /// What was held back.
    pub throttling: Throttling,
    /// How long processes waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// All.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// By processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// By processor, in the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// By processor, outside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// Outside it.
    pub user: u64,
}

/// What a quota held back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those in which something was held back.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// For how many nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Pressure stall information.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some processes waited.
    pub some: Stall,
    /// All did.
    pub full: Stall,
}

/// How long processes waited.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stall {
    /// In the last ten seconds, in percent.
    pub avg10: f64,
    /// In the last minute.
    pub avg60: f64,
    /// In the last five minutes.
    pub avg300: f64,
    /// Since the beginning, in microseconds.
    pub total: u64,
}

/// Processors and memory nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuSet {
    /// Those that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// The file's number.
    pub cpu_exclusive: u64,
    /// Those that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// The file's number.
    pub mem_hardwall: u64,
    /// The file's number.
    pub mem_exclusive: u64,
    /// The file's number.
    pub memory_migrate: u64,
    /// The file's number.
    pub memory_spread_page: u64,
    /// The file's number.
    pub memory_spread_slab: u64,
    /// The file's number.
    pub memory_pressure: u64,
    /// The file's number.
    pub sched_load_balance: u64,
    /// The file's number.
    pub sched_relax_domain_level: i64,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Of files.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// All.
    pub usage: MemoryEntry,
    /// With swap (version 1), or of swap alone.
    pub swap: MemoryEntry,
    /// Of the kernel.
    pub kernel: MemoryEntry,
    /// Of its sockets.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// How long processes waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A use of memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// The limit; none is the largest number.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// At most, so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// At most; nothing for no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Transfers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    /// How long processes waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Transfers of one kind with one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlockIoEntry {
    /// The device.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// The device.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// How much.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HugePages {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// At most, so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `key value` lines.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// A number, or `max` for none.
fn number(text: &str) -> u64 {
    text.trim()
        .parse()
        .unwrap_or(if text.trim() == "max" { u64::MAX } else { 0 })
}

/// `0-2,5`
fn members(list: &str) -> Vec<u16> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

fn pressure(text: &str) -> Pressure {
    let of = |kind: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(kind))
            .unwrap_or_default();
        let field = |name: &str| {
            let pairs = line
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
                .next()
                .unwrap_or_default()
        };
        Stall {
            avg10: field("avg10").parse().unwrap_or_default(),
            avg60: field("avg60").parse().unwrap_or_default(),
            avg300: field("avg300").parse().unwrap_or_default(),
            total: field("total").parse().unwrap_or_default(),
        }
    };
    Pressure {
        some: of("some "),
        full: of("full "),
    }
}

impl Cgroup {
    /// Looks at what the groups count.
    ///
    /// What this kernel does not count is nothing.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        if self.state().unified {
            self.stats_2()
        } else {
            self.stats_1()
        }
    }

    fn text(&self, controller: &str, file: &str) -> Result<String, CgroupError> {
        Ok(self.read(controller, file)?.unwrap_or_default())
    }

    fn count(&self, controller: &str, file: &str) -> Result<u64, CgroupError> {
        Ok(number(&self.text(controller, file)?))
    }

    fn pressure(&self, file: &str) -> Option<Pressure> {
        // A kernel that was started without answers with an error.
        let text = self.read("cgroup", file).ok()??;
        (!text.is_empty()).then(|| pressure(&text))
    }

    fn stats_2(&self) -> Result<Stats, CgroupError> {
        const NANOSECONDS: u64 = 1000;
        let mut stats = Stats::default();
        let cpu = pairs(&self.text("cpu", "cpu.stat")?);
        let of = |key: &str| cpu.get(key).copied().unwrap_or_default();
        stats.cpu.usage = CpuUsage {
            total: of("usage_usec") * NANOSECONDS,
            kernel: of("system_usec") * NANOSECONDS,
            user: of("user_usec") * NANOSECONDS,
            ..CpuUsage::default()
        };
        stats.cpu.throttling = Throttling {
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_time: of("throttled_usec") * NANOSECONDS,
        };
        stats.cpu.psi = self.pressure("cpu.pressure");
        stats.memory = self.memory_2()?;
        stats.pids = self.pids_stats()?;
        let (bytes, operations) = io_2(&self.text("io", "io.stat")?);
        stats.blkio.io_service_bytes_recursive = bytes;
        stats.blkio.io_serviced_recursive = operations;
        stats.blkio.psi = self.pressure("io.pressure");
        for size in self.page_sizes() {
            if let Some(usage) = self.read("hugetlb", &format!("hugetlb.{size}.current"))? {
                let events = pairs(&self.text("hugetlb", &format!("hugetlb.{size}.events"))?);
                let pages = HugePages {
                    usage: number(&usage),
                    max: 0,
                    failcnt: events.get("max").copied().unwrap_or_default(),
                };
                stats.hugetlb.insert(size, pages);
            }
        }
        Ok(stats)
    }

    fn memory_2(&self) -> Result<Memory, CgroupError> {
        let raw = pairs(&self.text("memory", "memory.stat")?);
        let events = pairs(&self.text("memory", "memory.events")?);
        let usage = MemoryEntry {
            limit: self.count("memory", "memory.max")?,
            usage: self.count("memory", "memory.current")?,
            max: self.count("memory", "memory.peak")?,
            failcnt: events.get("max").copied().unwrap_or_default(),
        };
        let swap = MemoryEntry {
            limit: self.count("memory", "memory.swap.max")?,
            usage: self.count("memory", "memory.swap.current")?,
            max: self.count("memory", "memory.swap.peak")?,
            failcnt: 0,
        };
        Ok(Memory {
            cache: raw.get("file").copied().unwrap_or_default(),
            usage,
            // As in version 1, memory and swap together.
            swap: MemoryEntry {
                limit: swap
                    .limit
                    .saturating_add(self.count("memory", "memory.max")?),
                usage: swap.usage + self.count("memory", "memory.current")?,
                ..swap
            },
            psi: self.pressure("memory.pressure"),
            raw,
            ..Memory::default()
        })
    }

    fn pids_stats(&self) -> Result<Pids, CgroupError> {
        let limit = self.count("pids", "pids.max")?;
        Ok(Pids {
            current: self.count("pids", "pids.current")?,
            limit: if limit == u64::MAX { 0 } else { limit },
        })
    }

    fn stats_1(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats {
            cpu: self.cpu_1()?,
            cpuset: self.cpuset_1()?,
            ..Stats::default()
        };
        let memory = |name: &str| -> Result<MemoryEntry, CgroupError> {
            let of = |what: &str| self.count("memory", &format!("memory.{name}{what}"));
            Ok(MemoryEntry {
                limit: of("limit_in_bytes")?,
                usage: of("usage_in_bytes")?,
                max: of("max_usage_in_bytes")?,
                failcnt: of("failcnt")?,
            })
        };
        let raw = pairs(&self.text("memory", "memory.stat")?);
        stats.memory = Memory {
            cache: raw.get("cache").copied().unwrap_or_default(),
            usage: memory("")?,
            swap: memory("memsw.")?,
            kernel: memory("kmem.")?,
            kernel_tcp: memory("kmem.tcp.")?,
            raw,
            psi: None,
        };
        stats.pids = self.pids_stats()?;
        let transfers = |what: &str| -> Result<Vec<BlockIoEntry>, CgroupError> {
            for file in [
                format!("blkio.bfq.{what}_recursive"),
                format!("blkio.throttle.{what}_recursive"),
                format!("blkio.throttle.{what}"),
            ] {
                let entries = io_1(&self.text("blkio", &file)?);
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            Ok(Vec::new())
        };
        stats.blkio.io_service_bytes_recursive = transfers("io_service_bytes")?;
        stats.blkio.io_serviced_recursive = transfers("io_serviced")?;
        for size in self.page_sizes() {
            let of = |what: &str| self.read("hugetlb", &format!("hugetlb.{size}.{what}"));
            if let Some(usage) = of("usage_in_bytes")? {
                let pages = HugePages {
                    usage: number(&usage),
                    max: number(&of("max_usage_in_bytes")?.unwrap_or_default()),
                    failcnt: number(&of("failcnt")?.unwrap_or_default()),
                };
                stats.hugetlb.insert(size.clone(), pages);
            }
        }
        Ok(stats)
    }

    fn cpu_1(&self) -> Result<Cpu, CgroupError> {
        /// `USER_HZ`, which is a hundred on every machine that counts here.
        const TICK_NS: u64 = 10_000_000;
        let stat = pairs(&self.text("cpu", "cpu.stat")?);
        let of = |key: &str| stat.get(key).copied().unwrap_or_default();
        let ticks = pairs(&self.text("cpuacct", "cpuacct.stat")?);
        let ticks = |key: &str| ticks.get(key).copied().unwrap_or_default() * TICK_NS;
        let list = |text: &str| {
            text.split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect::<Vec<u64>>()
        };
        let all = self.text("cpuacct", "cpuacct.usage_all")?;
        let column = |index: usize| {
            let lines = all.lines().skip(1);
            lines
                .filter_map(|line| line.split_whitespace().nth(index)?.parse().ok())
                .collect::<Vec<u64>>()
        };
        Ok(Cpu {
            usage: CpuUsage {
                total: self.count("cpuacct", "cpuacct.usage")?,
                percpu: list(&self.text("cpuacct", "cpuacct.usage_percpu")?),
                percpu_kernel: column(2),
                percpu_user: column(1),
                kernel: ticks("system"),
                user: ticks("user"),
            },
            throttling: Throttling {
                periods: of("nr_periods"),
                throttled_periods: of("nr_throttled"),
                throttled_time: of("throttled_time"),
            },
            psi: None,
        })
    }

    fn cpuset_1(&self) -> Result<CpuSet, CgroupError> {
        let count = |file: &str| self.count("cpuset", &format!("cpuset.{file}"));
        let level = self.text("cpuset", "cpuset.sched_relax_domain_level")?;
        Ok(CpuSet {
            cpus: members(&self.text("cpuset", "cpuset.cpus")?),
            cpu_exclusive: count("cpu_exclusive")?,
            mems: members(&self.text("cpuset", "cpuset.mems")?),
            mem_hardwall: count("mem_hardwall")?,
            mem_exclusive: count("mem_exclusive")?,
            memory_migrate: count("memory_migrate")?,
            memory_spread_page: count("memory_spread_page")?,
            memory_spread_slab: count("memory_spread_slab")?,
            memory_pressure: count("memory_pressure")?,
            sched_load_balance: count("sched_load_balance")?,
            sched_relax_domain_level: level.trim().parse().unwrap_or_default(),
        })
    }
}

/// `8:0 Read 1024` lines; the sum at the end belongs to no device.
fn io_1(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        Some(BlockIoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 …` lines: bytes and operations.
fn io_2(text: &str) -> (Vec<BlockIoEntry>, Vec<BlockIoEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in words.filter_map(|pair| pair.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            list.push(BlockIoEntry {
                major,
                minor,
                op: op.to_owned(),
                value: value.parse().unwrap_or_default(),
            });
        }
    }
    (bytes, operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_versions_are_read() {
        let (bytes, operations) =
            io_2("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n254:1 \n");
        assert_eq!((bytes.len(), operations.len()), (3, 3));
        assert_eq!((bytes[1].op.as_str(), bytes[1].value), ("Write", 2));
        assert_eq!(io_1("8:16 Read 5\n8:16 Total 5\nTotal 5\n").len(), 2);
        assert_eq!(members("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(
            (number("max\n"), number("7\n"), number("")),
            (u64::MAX, 7, 0)
        );
        let stall = pressure(
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n",
        );
        assert_eq!((stall.some.total, stall.full.total), (9, 4));
        assert!((stall.some.avg10 - 1.5).abs() < 1e-9);
    }
}
