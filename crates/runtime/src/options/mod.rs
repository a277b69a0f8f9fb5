// SPDX-License-Identifier: Apache-2.0
//! What an operator may ask of a container, as checked values.
//!
//! Each option has one type and one strict parser (`FromStr`), so that a
//! command line, a configuration file and the Kubernetes daemon all go through
//! the same door. The spelling is that of docker and podman. Nothing here
//! reads the environment, the clock or the file system: relative host paths,
//! `-e NAME` without a value and `--env-file` are resolved by the program.

mod amount;
mod device;
mod env;
mod hosts;
mod limit;
mod mount;
mod name;
mod namespace;
mod resource;
mod security;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gantry_oci::Kind;
use serde::{Deserialize, Serialize};

use crate::capability::CapabilitySet;
use crate::identity::{IdOrName, UserRequest};

pub use amount::{ByteSize, Cpus};
pub use device::{Device, DeviceKind, DeviceRequest};
pub use env::{EnvVar, parse_env_file};
pub use hosts::{HostEntry, Hosts, Resolver, parse_resolver_word};
pub use limit::{Sysctl, Ulimit};
pub(crate) use mount::without_steps;
pub use mount::{Access, ImageVolumes, MountRequest, normalize_absolute};
pub use name::{ContainerName, KeyValue, SignalNumber, parse_hostname};
pub use namespace::{IdRange, Ipc, Namespaces, Sharing, Users};
pub use resource::{
    BlockSetting, DeviceNumber, DeviceRule, NumberSet, Resources, SwapLimit, Throttled,
    parse_cgroup_conf, parse_cgroup_parent,
};
pub use security::{CapabilityWords, SecurityOption};

/// An option's value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {value:?}: {problem}")]
pub struct ParseOptionError {
    /// Which option.
    pub option: &'static str,
    /// What was given.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ParseOptionError {
    pub(crate) fn new(option: &'static str, value: &str, problem: impl Into<String>) -> Self {
        Self {
            option,
            value: value.into(),
            problem: problem.into(),
        }
    }

    /// Always `InvalidInput`.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

/// The set of defaults that confine a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Read-only image, few capabilities, no new privileges, allow-list seccomp.
    #[default]
    Production,
    /// What podman's users expect: writable root, eleven capabilities.
    Compat,
}

impl FromStr for Profile {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match text {
            "production" => Ok(Self::Production),
            "compat" => Ok(Self::Compat),
            _ => Err(ParseOptionError::new(
                "--profile",
                text,
                "profiles are production and compat",
            )),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Production => "production",
            Self::Compat => "compat",
        })
    }
}

/// Which network the container sees.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A network of its own with nothing but a loopback device.
    #[default]
    None,
    /// The host's.
    Host,
    /// The one at this path.
    Path(PathBuf),
    /// That of another container; the program looks its path up.
    Container(String),
}

impl FromStr for Network {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => match text.split_once(':') {
                Some(("ns", path)) if path.starts_with('/') && !path.contains('\0') => {
                    Ok(Self::Path(path.into()))
                }
                Some(("container", name)) if !name.is_empty() => Ok(Self::Container(name.into())),
                _ => Err(ParseOptionError::new(
                    "--network",
                    text,
                    "networks are none, host, ns:PATH and container:NAME; others are not here yet",
                )),
            },
        }
    }
}

/// `--personality`: what the kernel says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personality {
    /// Itself.
    Linux,
    /// A 32-bit one.
    Linux32,
}

impl FromStr for Personality {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match text.to_ascii_lowercase().as_str() {
            "linux" => Ok(Self::Linux),
            "linux32" => Ok(Self::Linux32),
            _ => {
                let problem = "personalities are linux and linux32";
                Err(ParseOptionError::new("--personality", text, problem))
            }
        }
    }
}

/// Parses `--umask`: octal digits.
///
/// # Errors
/// Anything else.
pub fn parse_umask(text: &str) -> Result<u32, ParseOptionError> {
    let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mask = if octal {
        u32::from_str_radix(text, 8).ok()
    } else {
        None
    };
    mask.filter(|mask| *mask <= 0o777)
        .ok_or_else(|| ParseOptionError::new("--umask", text, "expected octal digits up to 777"))
}

/// A program that the runtime runs at a stage of the container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRequest {
    /// As the runtime document calls it, `createContainer` for example.
    pub stage: String,
    /// The program, on the host.
    pub path: PathBuf,
    /// Its arguments, its name first.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// How many seconds it may take.
    pub timeout_s: Option<i64>,
}

/// Everything that can be asked of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// The defaults to start from.
    pub profile: Profile,
    /// Replaces the image's command.
    pub args: Vec<String>,
    /// Replaces the image's entry point, and drops its command; empty clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Added to the environment, later ones win.
    pub env: Vec<EnvVar>,
    /// Variables of the image and the defaults that are left out.
    pub unset_env: Vec<String>,
    /// All of these are.
    pub unset_env_all: bool,
    /// Replaces the image's working directory.
    pub workdir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<UserRequest>,
    /// Supplementary groups on top.
    pub group_add: Vec<IdOrName>,
    /// A terminal for the process.
    pub terminal: bool,
    /// Keep standard input open.
    pub interactive: bool,
    /// The root may be written, into a layer of the container's own; the
    /// profile decides if unset.
    pub writable: Option<bool>,
    /// Without memory on `/run`, `/tmp` and `/var/tmp` under a read-only root.
    pub without_scratch: bool,
    /// What becomes of the directories that the image declares as volumes.
    pub image_volumes: ImageVolumes,
    /// Bind mounts and memory file systems.
    pub mounts: Vec<MountRequest>,
    /// The host name; by default made of the id.
    pub hostname: Option<String>,
    /// The NIS domain.
    pub domainname: Option<String>,
    /// What the container's files say of other machines.
    pub hosts: Hosts,
    /// The network.
    pub network: Network,
    /// Network devices of the host that move into the container, with their names there.
    pub net_devices: Vec<(String, Option<String>)>,
    /// The other namespaces.
    pub namespaces: Namespaces,
    /// Most memory, swap included.
    pub memory_max: Option<ByteSize>,
    /// Most processor time.
    pub cpus: Option<Cpus>,
    /// Most processes; -1 or 0 for no limit.
    pub pids_limit: Option<i64>,
    /// Further limits.
    pub resources: Resources,
    /// How gladly the kernel ends the process when memory runs out.
    pub oom_score_adj: Option<i32>,
    /// Capabilities on top of the profile's.
    pub cap_add: CapabilitySet,
    /// Capabilities taken from the profile's.
    pub cap_drop: CapabilitySet,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm`.
    pub shm_size: Option<ByteSize>,
    /// Security options, later ones win.
    pub security: Vec<SecurityOption>,
    /// The contents of the file that a [`SecurityOption::SeccompFile`] names.
    pub seccomp_document: Option<String>,
    /// Every capability, no filter, nothing masked, all devices.
    pub privileged: bool,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Kernel settings of the container's namespaces.
    pub sysctls: Vec<Sysctl>,
    /// The creation mask.
    pub umask: Option<u32>,
    /// The execution domain.
    pub personality: Option<Personality>,
    /// A program of the host that is the container's first process, starts the command and reaps.
    pub init: Option<PathBuf>,
    /// Programs of the host that run on the way.
    pub hooks: Vec<HookRequest>,
    /// Replaces the image's stop signal.
    pub stop_signal: Option<SignalNumber>,
    /// How long `stop` waits before it kills.
    pub stop_timeout: Option<Duration>,
    /// Annotations of the runtime document.
    pub annotations: Vec<KeyValue>,
    /// Labels of the container.
    pub labels: Vec<KeyValue>,
}
