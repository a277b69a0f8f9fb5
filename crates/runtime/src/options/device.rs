// SPDX-License-Identifier: Apache-2.0
//! Devices of the host.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ParseOptionError, normalize_absolute};

/// Whether a device is a block or a character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// Block.
    Block,
    /// Character.
    Char,
}

/// A device of the host that the container gets, its numbers already read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where in the container.
    pub target: String,
    /// Block or character.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits of the node.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// `r`, `w` and `m`, as allowed.
    pub access: String,
}

/// `--device HOST[:CONTAINER][:rwm]` before the numbers were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Where on the host.
    pub source: PathBuf,
    /// Where in the container.
    pub target: String,
    /// `r`, `w` and `m`, as allowed.
    pub access: String,
}

impl FromStr for DeviceRequest {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--device", text, problem);
        let parts: Vec<&str> = text.split(':').collect();
        let is_access = |part: &str| {
            !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| b"rwm".contains(&byte))
        };
        let (source, target, access) = match parts.as_slice() {
            [source] => (*source, *source, "rwm"),
            [source, access] if is_access(access) => (*source, *source, *access),
            [source, target] => (*source, *target, "rwm"),
            [source, target, access] if is_access(access) => (*source, *target, *access),
            _ => return Err(wrong("expected HOST[:CONTAINER][:rwm]")),
        };
        let target = normalize_absolute(target)
            .filter(|target| target.starts_with("/dev/"))
            .ok_or_else(|| wrong("the node in the container must be below /dev"))?;
        if !source.starts_with('/') {
            return Err(wrong("the host's device must be an absolute path"));
        }
        Ok(Self {
            source: source.into(),
            target,
            access: access.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_paths_below_dev() {
        assert_eq!(
            "/dev/fuse:rw".parse::<DeviceRequest>().unwrap().access,
            "rw"
        );
        for text in [
            "fuse",
            "/dev/fuse:/etc/x",
            "/dev/fuse:/dev/../etc:rw",
            "/dev/a:/dev/b:x",
        ] {
            assert!(text.parse::<DeviceRequest>().is_err(), "{text}");
        }
    }
}
