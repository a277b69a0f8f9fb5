// SPDX-License-Identifier: Apache-2.0
//! Nodes and links in the container's `/dev`.
//!
//! # Source
//! runtime-spec 1.2 "Default Devices", "Dev symbolic links".

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, Spec};
use serde::Serialize;

use super::mounts::{MountKind, MountStep};
use super::{PlanError, absolute};

/// What kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceStep {
    /// Absolute, in the container.
    pub path: PathBuf,
    /// Its kind.
    pub kind: DeviceKind,
    /// Its number.
    pub major: u32,
    /// Likewise.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner in the container.
    pub uid: u32,
    /// Group in the container.
    pub gid: u32,
    /// Why.
    pub reason: String,
}

/// One symlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkStep {
    /// Absolute, in the container.
    pub path: &'static str,
    /// What it says.
    pub target: &'static str,
}

const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [LinkStep; 6] = [
    LinkStep {
        path: "/dev/fd",
        target: "/proc/self/fd",
    },
    LinkStep {
        path: "/dev/stdin",
        target: "/proc/self/fd/0",
    },
    LinkStep {
        path: "/dev/stdout",
        target: "/proc/self/fd/1",
    },
    LinkStep {
        path: "/dev/stderr",
        target: "/proc/self/fd/2",
    },
    LinkStep {
        path: "/dev/core",
        target: "/proc/kcore",
    },
    LinkStep {
        path: "/dev/ptmx",
        target: "pts/ptmx",
    },
];

fn default_devices() -> impl Iterator<Item = DeviceStep> {
    DEFAULT_DEVICES
        .into_iter()
        .map(|(path, major, minor)| DeviceStep {
            path: path.into(),
            kind: DeviceKind::Character,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
            reason: "a default device".to_owned(),
        })
}

pub(super) fn plan(
    spec: &Spec,
    mounts: &[MountStep],
) -> Result<(Vec<DeviceStep>, Vec<LinkStep>), PlanError> {
    let of_host = mounts.iter().any(|mount| {
        mount.target == Path::new("/dev") && matches!(mount.kind, MountKind::Bind { .. })
    });
    if of_host {
        return Ok((Vec::new(), Vec::new()));
    }
    let listed = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.devices().as_ref());
    let mut devices: Vec<DeviceStep> = Vec::new();
    for (index, device) in listed.into_iter().flatten().enumerate() {
        let reason = format!(".linux.devices[{index}]");
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Character,
            LinuxDeviceType::B => DeviceKind::Block,
            LinuxDeviceType::P => DeviceKind::Fifo,
            LinuxDeviceType::A => {
                return Err(PlanError::new(reason, "no node is of every type"));
            }
        };
        let number = |value: i64, name: &str| {
            u32::try_from(value)
                .map_err(|_| PlanError::new(format!("{reason}.{name}"), "is no device number"))
        };
        devices.push(DeviceStep {
            path: absolute(device.path(), &reason)?,
            kind,
            major: number(device.major(), "major")?,
            minor: number(device.minor(), "minor")?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            reason,
        });
    }
    // What the document says of a default device is what counts.
    let defaults: Vec<_> = default_devices()
        .filter(|default| devices.iter().all(|device| device.path != default.path))
        .collect();
    devices.splice(0..0, defaults);
    Ok((devices, LINKS.to_vec()))
}
