// SPDX-License-Identifier: Apache-2.0
//! How much of the machine a container may use, beyond the three limits that everybody sets.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ByteSize, KeyValue, ParseOptionError};

/// `--memory-swap`: memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwapLimit {
    /// As much swap as there is.
    Unlimited,
    /// So much of both.
    Bytes(ByteSize),
}

impl FromStr for SwapLimit {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        if text == "-1" {
            return Ok(Self::Unlimited);
        }
        text.parse().map(Self::Bytes)
    }
}

/// A set of processors or memory nodes, `0-3,7`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberSet(String);

impl NumberSet {
    /// As the kernel reads it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NumberSet {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let number = |part: &str| -> Option<u16> {
            let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if plain { part.parse().ok() } else { None }
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        };
        if text.split(',').all(range) {
            return Ok(Self(text.into()));
        }
        let problem = "expected numbers and ranges, 0-3,7";
        Err(ParseOptionError::new(
            "--cpuset-cpus/--cpuset-mems",
            text,
            problem,
        ))
    }
}

/// What a block device is limited in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Throttled {
    /// Bytes read in a second.
    ReadBytes,
    /// Bytes written in a second.
    WriteBytes,
    /// Reads in a second.
    Reads,
    /// Writes in a second.
    Writes,
}

/// `DEVICE:NUMBER` before the device was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNumber {
    /// The device on the host.
    pub device: PathBuf,
    /// Bytes, operations or a weight.
    pub number: u64,
}

impl DeviceNumber {
    fn parse(
        option: &'static str,
        text: &str,
        number: impl Fn(&str) -> Option<u64>,
    ) -> Result<Self, ParseOptionError> {
        let wrong = || ParseOptionError::new(option, text, "expected DEVICE:NUMBER");
        let (device, value) = text.rsplit_once(':').ok_or_else(wrong)?;
        if !device.starts_with('/') {
            return Err(wrong());
        }
        Ok(Self {
            device: device.into(),
            number: number(value).ok_or_else(wrong)?,
        })
    }

    /// Parses `--device-read-bps` and `--device-write-bps`.
    ///
    /// # Errors
    /// Anything but a device and a size.
    pub fn parse_bytes(text: &str) -> Result<Self, ParseOptionError> {
        Self::parse("--device-…-bps", text, |value| {
            value.parse::<ByteSize>().ok().map(|size| size.0)
        })
    }

    /// Parses `--device-read-iops` and `--device-write-iops`.
    ///
    /// # Errors
    /// Anything but a device and a number.
    pub fn parse_operations(text: &str) -> Result<Self, ParseOptionError> {
        Self::parse("--device-…-iops", text, |value| value.parse().ok())
    }

    /// Parses `--blkio-weight-device`.
    ///
    /// # Errors
    /// Anything but a device and a weight.
    pub fn parse_weight(text: &str) -> Result<Self, ParseOptionError> {
        Self::parse("--blkio-weight-device", text, |value| {
            value
                .parse()
                .ok()
                .filter(|weight| (10..=1000).contains(weight))
        })
    }
}

/// A block device of the host by its numbers, and what is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSetting {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes, operations or a weight.
    pub number: u64,
}

/// `--device-cgroup-rule`: `TYPE MAJOR:MINOR ACCESS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// Every one where there is none.
    pub major: Option<u32>,
    /// Likewise.
    pub minor: Option<u32>,
    /// `r`, `w` and `m`.
    pub access: String,
}

impl FromStr for DeviceRule {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let problem = "expected a, b or c, then MAJOR:MINOR with numbers or *, then some of rwm";
        let wrong = || ParseOptionError::new("--device-cgroup-rule", text, problem);
        let parts: Vec<&str> = text.split(' ').collect();
        let [kind @ ("a" | "b" | "c"), numbers, access] = parts[..] else {
            return Err(wrong());
        };
        let number = |part: &str| match part {
            "*" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| wrong()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
        let known = |access: &str| access.bytes().all(|byte| b"rwm".contains(&byte));
        if access.is_empty() || access.len() > 3 || !known(access) {
            return Err(wrong());
        }
        Ok(Self {
            kind: kind.chars().next().unwrap_or('a'),
            major: number(major)?,
            minor: number(minor)?,
            access: access.into(),
        })
    }
}

/// Parses `--cgroup-conf FILE=VALUE`: a file of a controller of version 2.
///
/// # Errors
/// What is no such file: those of the group itself are the runtime's.
pub fn parse_cgroup_conf(text: &str) -> Result<KeyValue, ParseOptionError> {
    let wrong = |problem: &str| ParseOptionError::new("--cgroup-conf", text, problem);
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| wrong("expected FILE=VALUE"))?;
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_file = key.contains('.') && !key.starts_with(['.', '-']) && key.bytes().all(clean);
    if !is_file || key.starts_with("cgroup.") {
        return Err(wrong("that is no file of a controller"));
    }
    Ok(KeyValue {
        key: key.into(),
        value: value.into(),
    })
}

/// Parses `--cgroup-parent`: a path below each hierarchy's root.
///
/// # Errors
/// A path that leads elsewhere.
pub fn parse_cgroup_parent(text: &str) -> Result<String, ParseOptionError> {
    let path = text.trim_matches('/');
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(|c: char| c.is_control() || c == ':')
    };
    if !path.is_empty() && path.len() < 1024 && path.split('/').all(plain) {
        return Ok(format!("/{path}"));
    }
    let problem = "expected the path of a control group";
    Err(ParseOptionError::new("--cgroup-parent", text, problem))
}

/// Limits and shares; what is not said is as the profile or the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Memory that is left when it becomes scarce.
    pub memory_reservation: Option<ByteSize>,
    /// Memory and swap together; so much as memory alone if memory is limited.
    pub memory_swap: Option<SwapLimit>,
    /// How readily memory is swapped out, 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Nothing is killed when memory runs out.
    pub oom_kill_disable: bool,
    /// Share of processors.
    pub cpu_shares: Option<u64>,
    /// The period of the quota, in microseconds.
    pub cpu_period: Option<u64>,
    /// Processor time in each.
    pub cpu_quota: Option<i64>,
    /// The period for real-time processes.
    pub cpu_rt_period: Option<u64>,
    /// Their time in each.
    pub cpu_rt_runtime: Option<i64>,
    /// Processors.
    pub cpuset_cpus: Option<NumberSet>,
    /// Memory nodes.
    pub cpuset_mems: Option<NumberSet>,
    /// Share of block devices.
    pub blkio_weight: Option<u16>,
    /// Share of single ones.
    pub blkio_weight_devices: Vec<BlockSetting>,
    /// Limits of single ones.
    pub throttles: Vec<(Throttled, BlockSetting)>,
    /// Devices that may be opened, beside those that are given.
    pub device_rules: Vec<DeviceRule>,
    /// Files of version 2 as they are.
    pub unified: Vec<KeyValue>,
    /// The control group in which the container's own is made.
    pub cgroup_parent: Option<String>,
    /// The class of cache and memory bandwidth.
    pub rdt_class: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sets_are_read_or_refused() {
        for text in ["0", "0-3,7", "1,2"] {
            assert!(text.parse::<NumberSet>().is_ok(), "{text}");
        }
        for text in ["", "3-1", "a", "1,", "-1", "0-99999", " 1"] {
            assert!(text.parse::<NumberSet>().is_err(), "{text}");
        }
        let rate = DeviceNumber::parse_bytes("/dev/sda:1mb").unwrap();
        assert_eq!((rate.device, rate.number), ("/dev/sda".into(), 1 << 20));
        for text in ["/dev/sda", "sda:1", "/dev/sda:x", "/dev/sda:-1"] {
            assert!(DeviceNumber::parse_bytes(text).is_err(), "{text}");
            assert!(DeviceNumber::parse_operations(text).is_err(), "{text}");
        }
        assert!(DeviceNumber::parse_weight("/dev/sda:9").is_err());
        assert_eq!("-1".parse(), Ok(SwapLimit::Unlimited));
        assert!("-2".parse::<SwapLimit>().is_err());
    }

    #[test]
    fn rules_and_files_name_what_they_mean() {
        let rule: DeviceRule = "c 10:* rw".parse().unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor), ('c', Some(10), None));
        for text in [
            "c 10:1",
            "x 1:1 r",
            "c 1 r",
            "c 1:1 x",
            "c 1:1 rwmr",
            "c  1:1 r",
        ] {
            assert!(text.parse::<DeviceRule>().is_err(), "{text}");
        }
        assert!(parse_cgroup_conf("memory.high=1").is_ok());
        for text in [
            "memory.high",
            "cgroup.procs=1",
            "../x.y=1",
            "a/b.c=1",
            "x=1",
            ".a=1",
        ] {
            assert!(parse_cgroup_conf(text).is_err(), "{text}");
        }
        assert_eq!(parse_cgroup_parent("a/b/").unwrap(), "/a/b");
        for text in ["", "/", "../a", "a//b", "a/./b", "a:b"] {
            assert!(parse_cgroup_parent(text).is_err(), "{text}");
        }
    }
}
