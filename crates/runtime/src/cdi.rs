// SPDX-License-Identifier: Apache-2.0
//! Devices that need more than a node: the Container Device Interface.
//!
//! Whoever installs a device writes a file that says, for each name `VENDOR/CLASS=DEVICE`, which nodes,
//! mounts, variables, groups, network devices and hooks belong to it.
//!
//! ```text
//!  /etc/cdi, /run/cdi ── the program reads ──► CdiSpec… ── find ──► ContainerEdits ── apply ──► RunOptions
//! ```
//!
//! What a file asks for goes through the checks of the options that it becomes, and what cannot be
//! honoured is refused: a device that works in part is worse than none.
//!
//! # Source
//! Container Device Interface specification, 1.0.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use gantry_oci::Kind;
use serde::Deserialize;

use crate::identity::IdOrName;
use crate::options::{Device, EnvVar, HookRequest, MountRequest, RunOptions};

/// Why a device cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CdiError {
    /// The name is none.
    #[error("device {text:?}: expected VENDOR/CLASS=DEVICE")]
    Name {
        /// As given.
        text: String,
    },
    /// No file knows it.
    #[error("device {name}: no CDI file describes it")]
    Unknown {
        /// Which.
        name: CdiName,
    },
    /// Two files of one directory do.
    #[error("device {name}: two CDI files of one directory describe it")]
    Ambiguous {
        /// Which.
        name: CdiName,
    },
    /// A file asks for what a container cannot be given.
    #[error("device {name}: its CDI file asks for {what}")]
    Unsupported {
        /// Which.
        name: CdiName,
        /// What.
        what: String,
    },
}

impl CdiError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name { .. } | Self::Ambiguous { .. } => Kind::InvalidInput,
            Self::Unknown { .. } => Kind::NotFound,
            Self::Unsupported { .. } => Kind::Unsupported,
        }
    }
}

/// A device's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CdiName {
    /// `VENDOR/CLASS`.
    pub class: String,
    /// Which of them.
    pub device: String,
}

impl FromStr for CdiName {
    type Err = CdiError;

    fn from_str(text: &str) -> Result<Self, CdiError> {
        let wrong = || CdiError::Name { text: text.into() };
        let word = |part: &str, also: &[u8]| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.ends_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(inner)
        };
        let (class, device) = text.split_once('=').ok_or_else(wrong)?;
        let (vendor, kind) = class.split_once('/').ok_or_else(wrong)?;
        if word(vendor, b"_-.") && word(kind, b"_-") && word(device, b"_-.:") {
            return Ok(Self {
                class: class.into(),
                device: device.into(),
            });
        }
        Err(wrong())
    }
}

impl std::fmt::Display for CdiName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.class, self.device)
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiSpec {
    /// `VENDOR/CLASS` of its devices.
    pub kind: String,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<CdiDevice>,
    /// What comes with each of them.
    #[serde(default)]
    pub container_edits: ContainerEdits,
}

/// One device of a file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiDevice {
    /// Its name.
    pub name: String,
    /// What comes with it.
    #[serde(default)]
    pub container_edits: ContainerEdits,
}

/// What comes with a device; what a newer version of the interface adds is kept, to be refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerEdits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    net_devices: Vec<NetDevice>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    additional_gids: Vec<u32>,
    intel_rdt: Option<IntelRdt>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// A node in the container's `/dev`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceNode {
    /// Where in the container.
    pub path: String,
    /// Where on the host, if not there.
    pub host_path: Option<String>,
    /// `r`, `w` and `m`.
    pub permissions: Option<String>,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetDevice {
    host_interface_name: String,
    name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntelRdt {
    #[serde(rename = "closID")]
    clos_id: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// Finds what belongs to a device. `specs` has, with each file, the place of its directory in the
/// search: of two that describe a device the later directory's counts.
///
/// # Errors
/// Nobody describes it, or two of the same place do.
pub fn find<'a>(
    specs: &'a [(usize, CdiSpec)],
    name: &CdiName,
) -> Result<[&'a ContainerEdits; 2], CdiError> {
    let mut found: Vec<_> = specs
        .iter()
        .filter(|(_, spec)| spec.kind == name.class)
        .flat_map(|(place, spec)| {
            spec.devices
                .iter()
                .map(move |device| (*place, spec, device))
        })
        .filter(|(_, _, device)| device.name == name.device)
        .collect();
    found.sort_by_key(|(place, ..)| std::cmp::Reverse(*place));
    match found[..] {
        [] => Err(CdiError::Unknown { name: name.clone() }),
        [(first, ..), (second, ..), ..] if first == second => {
            Err(CdiError::Ambiguous { name: name.clone() })
        }
        [(_, spec, device), ..] => Ok([&spec.container_edits, &device.container_edits]),
    }
}

/// Makes options of what belongs to a device; `look_up` reads the numbers of a node on the host.
///
/// # Errors
/// What cannot be honoured; what `look_up` says.
pub fn apply<E: From<CdiError>>(
    name: &CdiName,
    edits: &ContainerEdits,
    options: &mut RunOptions,
    mut look_up: impl FnMut(&DeviceNode) -> Result<Device, E>,
) -> Result<(), E> {
    let refuse = |what: String| CdiError::Unsupported {
        name: name.clone(),
        what,
    };
    if let Some(member) = edits.other.keys().next() {
        return Err(refuse(format!("{member}, which is not known")).into());
    }
    for pair in &edits.env {
        let var =
            EnvVar::parse_pair(pair).ok_or_else(|| refuse(format!("the variable {pair:?}")))?;
        options.env.push(var);
    }
    for node in &edits.device_nodes {
        let device = look_up(node)?;
        // Several devices of a class bring the class's own nodes along.
        if !options.devices.contains(&device) {
            options.devices.push(device);
        }
    }
    for wanted in &edits.mounts {
        let mount = mount(wanted).map_err(&refuse)?;
        if !options.mounts.contains(&mount) {
            options.mounts.push(mount);
        }
    }
    for wanted in &edits.hooks {
        let hook = HookRequest {
            stage: wanted.hook_name.clone(),
            path: wanted.path.clone(),
            args: wanted.args.clone(),
            env: wanted.env.clone(),
            timeout_s: wanted.timeout,
        };
        if !hook.path.is_absolute() {
            return Err(refuse(format!("the hook {:?}", hook.path)).into());
        }
        if !options.hooks.contains(&hook) {
            options.hooks.push(hook);
        }
    }
    let gids = edits.additional_gids.iter().filter(|gid| **gid != 0);
    options.group_add.extend(gids.map(|gid| IdOrName::Id(*gid)));
    let moved = edits.net_devices.iter();
    options
        .net_devices
        .extend(moved.map(|device| (device.host_interface_name.clone(), device.name.clone())));
    if let Some(rdt) = &edits.intel_rdt {
        if let Some(member) = rdt.other.keys().next() {
            return Err(refuse(format!("intelRdt with {member}")).into());
        }
        options.resources.rdt_class.clone_from(&rdt.clos_id);
    }
    Ok(())
}

fn mount(wanted: &Mount) -> Result<MountRequest, String> {
    let shown = || format!("the mount {:?}", wanted.container_path);
    if wanted
        .kind
        .as_deref()
        .is_some_and(|kind| !["", "none", "bind"].contains(&kind))
    {
        return Err(shown());
    }
    let text = format!(
        "{}:{}:{}",
        wanted.host_path,
        wanted.container_path,
        wanted.options.join(",")
    );
    MountRequest::parse_volume(&text).map_err(|error| format!("{}: {}", shown(), error.problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Access, DeviceKind};
    use serde_json::json;

    fn spec(device: serde_json::Value) -> CdiSpec {
        serde_json::from_value(json!({
            "cdiVersion": "0.6.0",
            "kind": "vendor.example/gpu",
            "devices": [{"name": "0", "containerEdits": device}],
            "containerEdits": {"env": ["VENDOR=1"], "deviceNodes": [{"path": "/dev/ctl"}]},
        }))
        .unwrap()
    }

    fn name() -> CdiName {
        "vendor.example/gpu=0".parse().unwrap()
    }

    fn device(node: &DeviceNode) -> Result<Device, CdiError> {
        Ok(Device {
            target: node.path.clone(),
            kind: DeviceKind::Char,
            major: 1,
            minor: 3,
            mode: node.file_mode.unwrap_or(0o600),
            uid: 0,
            gid: 0,
            access: node.permissions.clone().unwrap_or_else(|| "rwm".into()),
        })
    }

    fn applied(edits: serde_json::Value) -> Result<RunOptions, CdiError> {
        let specs = [(0, spec(edits))];
        let mut options = RunOptions::default();
        for edits in find(&specs, &name())? {
            apply(&name(), edits, &mut options, device)?;
        }
        Ok(options)
    }

    #[test]
    fn device_brings_what_its_file_says() {
        let options = applied(json!({
            "deviceNodes": [{"path": "/dev/gpu0", "permissions": "rw"}, {"path": "/dev/ctl"}],
            "mounts": [{"hostPath": "/usr/lib/x.so", "containerPath": "/usr/lib/x.so", "options": ["ro", "nosuid", "bind"]}],
            "hooks": [{"hookName": "createContainer", "path": "/usr/bin/ldcache", "args": ["ldcache"]}],
            "additionalGids": [44, 0],
            "netDevices": [{"hostInterfaceName": "ib0"}],
            "intelRdt": {"closID": "gold"},
        }))
        .unwrap();
        let nodes: Vec<_> = options
            .devices
            .iter()
            .map(|one| one.target.as_str())
            .collect();
        assert_eq!(nodes, ["/dev/ctl", "/dev/gpu0"]);
        assert_eq!(options.env[0].to_string(), "VENDOR=1");
        assert!(matches!(
            &options.mounts[..],
            [MountRequest::Bind {
                access: Access::ReadOnly,
                ..
            }]
        ));
        assert_eq!(options.hooks[0].stage, "createContainer");
        assert_eq!(options.group_add, [IdOrName::Id(44)]);
        assert_eq!(options.net_devices, [("ib0".to_owned(), None)]);
        assert_eq!(options.resources.rdt_class.as_deref(), Some("gold"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for edits in [
            json!({"env": ["NONE"]}),
            json!({"mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["upperdir=/"]}]}),
            json!({"mounts": [{"hostPath": "x", "containerPath": "/b", "type": "tmpfs"}]}),
            json!({"hooks": [{"hookName": "prestart", "path": "relative"}]}),
            json!({"intelRdt": {"l3CacheSchema": "L3:0=f"}}),
            json!({"newThing": 1}),
        ] {
            let error = applied(edits.clone()).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{edits}: {error}");
        }
    }

    #[test]
    fn later_directory_counts_and_one_directory_says_it_once() {
        let empty = || spec(json!({}));
        let other = spec(json!({"env": ["LATER=1"]}));
        let specs = [(1, other), (0, empty())];
        assert_eq!(find(&specs, &name()).unwrap()[1].env, ["LATER=1"]);
        let twice = [(0, empty()), (0, empty())];
        assert_eq!(
            find(&twice, &name()).unwrap_err().kind(),
            Kind::InvalidInput
        );
        assert_eq!(find(&[], &name()).unwrap_err().kind(), Kind::NotFound);
        for text in [
            "gpu=0",
            "vendor.example/gpu",
            "v/c=",
            "v/c=a b",
            "/c=a",
            "v/c/d=x",
            "v./c=x",
        ] {
            assert!(text.parse::<CdiName>().is_err(), "{text}");
        }
    }
}
