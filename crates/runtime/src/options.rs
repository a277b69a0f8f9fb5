// SPDX-License-Identifier: Apache-2.0
//! What an operator may ask of a container, as checked values.
//!
//! Each option has one type and one strict parser (`FromStr`), so that a
//! command line, a configuration file and the Kubernetes daemon all go through
//! the same door. The spelling is that of docker and podman. Nothing here
//! reads the environment, the clock or the file system: relative host paths,
//! `-e NAME` without a value and `--env-file` are resolved by the program.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gantry_oci::Kind;
use serde::{Deserialize, Serialize};

use crate::capability::{Capability, CapabilitySet};
use crate::identity::{IdOrName, UserRequest};

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
    fn new(option: &'static str, value: &str, problem: impl Into<String>) -> Self {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A network of its own with nothing but a loopback device.
    #[default]
    None,
    /// The host's.
    Host,
}

impl FromStr for Network {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => Err(ParseOptionError::new(
                "--network",
                text,
                "networks are none and host",
            )),
        }
    }
}

/// One variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// The name: not empty, no `=`, no NUL.
    pub name: String,
    /// The value: no NUL.
    pub value: String,
}

impl EnvVar {
    /// Checks a name as one that may be asked of the host's environment.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        !name.is_empty() && !name.contains(|c: char| c == '=' || c == '*' || c.is_control())
    }

    /// Reads `NAME=value`; anything else is nothing.
    #[must_use]
    pub fn parse_pair(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        (Self::is_name(name) && !value.contains('\0')).then(|| Self {
            name: name.into(),
            value: value.into(),
        })
    }
}

impl FromStr for EnvVar {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        Self::parse_pair(text)
            .ok_or_else(|| ParseOptionError::new("--env", text, "expected NAME=value"))
    }
}

impl fmt::Display for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Reads the text of an env file: `NAME=value` or `NAME` a line, `#` comments.
///
/// A bare name asks for the host's value, which the program supplies.
///
/// # Errors
/// A line that is neither, with its number.
pub fn parse_env_file(text: &str) -> Result<Vec<Result<EnvVar, String>>, ParseOptionError> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(pair) = EnvVar::parse_pair(line) {
            found.push(Ok(pair));
        } else if EnvVar::is_name(line.trim_end()) {
            found.push(Err(line.trim_end().into()));
        } else {
            let problem = format!("line {} is neither NAME=value nor NAME", index + 1);
            return Err(ParseOptionError::new("--env-file", line, problem));
        }
    }
    Ok(found)
}

/// A number of bytes: `512`, `64k`, `512m`, `2g`, `1.5g`, with `b` or `iB` after it if one likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong =
            || ParseOptionError::new("size", text, "expected a number with b, k, m, g or t");
        let lower = text.to_ascii_lowercase();
        let digits = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let shift = match unit {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        scale_decimal(number, 1 << shift)
            .map(Self)
            .ok_or_else(wrong)
    }
}

/// Multiplies a plain decimal (`12`, `0.5`) by `factor` in whole numbers, rounding down.
fn scale_decimal(text: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !plain(whole) || !plain(fraction) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let total = u128::from(whole) * u128::from(factor) + parts * u128::from(factor) / scale;
    u64::try_from(total)
        .ok()
        .filter(|total| *total <= i64::MAX.unsigned_abs())
}

/// A number of processors, in thousandths: `0.5` is 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    /// Thousandths of one processor.
    pub milli: u64,
}

impl FromStr for Cpus {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match scale_decimal(text, 1000) {
            Some(milli @ 10..=8_192_000) => Ok(Self { milli }),
            _ => Err(ParseOptionError::new(
                "--cpus",
                text,
                "expected a number of processors from 0.01 to 8192",
            )),
        }
    }
}

/// Whether a mount may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// A mount that the operator asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum MountRequest {
    /// A directory or file of the host.
    Bind {
        /// Where on the host; absolute once the program has resolved it.
        source: PathBuf,
        /// Where in the container; absolute and normal.
        target: String,
        /// Whether it may be written.
        access: Access,
        /// Further mount options, checked against a list.
        options: Vec<String>,
    },
    /// A file system in memory.
    Tmpfs {
        /// Where in the container.
        target: String,
        /// Mount options, checked against a list.
        options: Vec<String>,
    },
}

impl MountRequest {
    /// Where in the container.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }

    /// Parses `--volume HOST:CONTAINER[:OPTIONS]`.
    ///
    /// # Errors
    /// Malformed text, a named volume, or an option that we do not have.
    pub fn parse_volume(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--volume", text, problem);
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            return Err(wrong("expected HOST:CONTAINER[:OPTIONS]"));
        };
        let options = parts.next().unwrap_or_default();
        if parts.next().is_some() {
            return Err(wrong("more than three parts"));
        }
        if !source.starts_with(['/', '.']) {
            return Err(wrong(
                "named volumes are not supported; give a path that starts with / or .",
            ));
        }
        let mut request = Self::bind("--volume", text, source, target)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            request.add_bind_option("--volume", text, option)?;
        }
        Ok(request)
    }

    /// Parses `--tmpfs CONTAINER[:OPTIONS]`.
    ///
    /// # Errors
    /// Malformed text or an option that we do not have.
    pub fn parse_tmpfs(text: &str) -> Result<Self, ParseOptionError> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut checked = Vec::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            checked.push(check_tmpfs_option("--tmpfs", text, option)?);
        }
        Ok(Self::Tmpfs {
            target: parse_target("--tmpfs", text, target)?,
            options: checked,
        })
    }

    /// Parses `--mount type=bind|tmpfs,src=…,dst=…[,ro][,…]`.
    ///
    /// # Errors
    /// Malformed text, or a key that we do not have.
    pub fn parse_mount(text: &str) -> Result<Self, ParseOptionError> {
        const OPTION: &str = "--mount";
        let wrong = |problem: String| ParseOptionError::new(OPTION, text, problem);
        let (mut kind, mut source, mut target) = ("bind", None, None);
        let mut rest = Vec::new();
        for field in text.split(',') {
            match field.split_once('=').unwrap_or((field, "")) {
                ("type", value) => kind = value,
                ("src" | "source", value) => source = Some(value),
                ("dst" | "destination" | "target", value) => target = Some(value),
                other => rest.push(other),
            }
        }
        let target = target.ok_or_else(|| wrong("dst= is missing".into()))?;
        let switch = |value: &str| match value {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong(format!("{value:?} is neither true nor false"))),
        };
        match kind {
            "bind" => {
                let source = source.ok_or_else(|| wrong("src= is missing".into()))?;
                let mut request = Self::bind(OPTION, text, source, target)?;
                for (key, value) in rest {
                    let option = match key {
                        "ro" | "readonly" if switch(value)? => "ro",
                        "ro" | "readonly" => "rw",
                        "rw" if switch(value)? => "rw",
                        "rw" => "ro",
                        "bind-propagation" => value,
                        "relabel" if value == "shared" => "z",
                        "relabel" if value == "private" => "Z",
                        _ => return Err(wrong(format!("{key:?} is not known for type=bind"))),
                    };
                    request.add_bind_option(OPTION, text, option)?;
                }
                Ok(request)
            }
            "tmpfs" => {
                let mut options = Vec::new();
                for (key, value) in rest {
                    let option = match key {
                        "tmpfs-size" | "size" => format!("size={value}"),
                        "tmpfs-mode" | "mode" => format!("mode={value}"),
                        "ro" | "readonly" if switch(value)? => "ro".into(),
                        "ro" | "readonly" => "rw".into(),
                        "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" => key.into(),
                        _ => return Err(wrong(format!("{key:?} is not known for type=tmpfs"))),
                    };
                    options.push(check_tmpfs_option(OPTION, text, &option)?);
                }
                Ok(Self::Tmpfs {
                    target: parse_target(OPTION, text, target)?,
                    options,
                })
            }
            other => Err(wrong(format!("types are bind and tmpfs, not {other:?}"))),
        }
    }

    fn bind(
        option: &'static str,
        text: &str,
        source: &str,
        target: &str,
    ) -> Result<Self, ParseOptionError> {
        if source.is_empty() || source.contains('\0') {
            return Err(ParseOptionError::new(
                option,
                text,
                "the host path is empty",
            ));
        }
        Ok(Self::Bind {
            source: source.into(),
            target: parse_target(option, text, target)?,
            access: Access::ReadWrite,
            options: Vec::new(),
        })
    }

    fn add_bind_option(
        &mut self,
        option: &'static str,
        text: &str,
        word: &str,
    ) -> Result<(), ParseOptionError> {
        let Self::Bind {
            access, options, ..
        } = self
        else {
            return Ok(());
        };
        match word {
            "ro" => *access = Access::ReadOnly,
            "rw" => *access = Access::ReadWrite,
            "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "private" | "rprivate"
            | "slave" | "rslave" | "shared" | "rshared" | "bind" | "rbind" | "z" | "Z" => {
                options.push(word.into());
            }
            "nocopy" => {}
            "U" | "O" | "idmap" => {
                let problem = format!("option {word:?} is not supported yet");
                return Err(ParseOptionError::new(option, text, problem));
            }
            _ => {
                let problem = format!("{word:?} is not an option of a bind mount");
                return Err(ParseOptionError::new(option, text, problem));
            }
        }
        Ok(())
    }
}

fn check_tmpfs_option(
    option: &'static str,
    text: &str,
    word: &str,
) -> Result<String, ParseOptionError> {
    let wrong = |problem: String| ParseOptionError::new(option, text, problem);
    match word.split_once('=') {
        None if matches!(
            word,
            "ro" | "rw"
                | "exec"
                | "noexec"
                | "suid"
                | "nosuid"
                | "dev"
                | "nodev"
                | "tmpcopyup"
                | "notmpcopyup"
                | "noatime"
        ) =>
        {
            Ok(word.into())
        }
        Some(("size", value)) if value.ends_with('%') => {
            match value.trim_end_matches('%').parse() {
                Ok(1u8..=100) => Ok(word.into()),
                _ => Err(wrong(format!("size {value:?} is no share of memory"))),
            }
        }
        Some(("size", value)) => value
            .parse::<ByteSize>()
            .map(|size| format!("size={}", size.0))
            .map_err(|error| wrong(error.problem)),
        Some(("mode", value)) => match u32::from_str_radix(value, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(format!("mode={mode:o}")),
            _ => Err(wrong(format!("mode {value:?} is no octal file mode"))),
        },
        Some(("uid" | "gid", value)) => match value.parse() {
            Ok(IdOrName::Id(_)) => Ok(word.into()),
            _ => Err(wrong(format!("{value:?} is no id"))),
        },
        Some(("nr_inodes", value)) if value.parse::<u64>().is_ok() => Ok(word.into()),
        _ => Err(wrong(format!("{word:?} is not an option of a tmpfs"))),
    }
}

fn parse_target(
    option: &'static str,
    text: &str,
    target: &str,
) -> Result<String, ParseOptionError> {
    normalize_absolute(target)
        .filter(|path| path != "/")
        .ok_or_else(|| {
            ParseOptionError::new(
                option,
                text,
                "the path in the container must be absolute and below /",
            )
        })
}

/// Cleans an absolute path of the container lexically: no `.`, no `..`, no
/// doubled or trailing slash, no control characters.
///
/// `..` never climbs above the root. Symlinks are not the matter of this
/// function: whoever resolves the result does so confined to the rootfs.
#[must_use]
pub fn normalize_absolute(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.len() >= 4096 || path.contains(|c: char| c.is_control()) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// A resource limit of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The kernel's name in lower case without `RLIMIT_`, for example `nofile`.
    pub name: String,
    /// Where the kernel begins to refuse; `u64::MAX` is no limit.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// The names of resource limits, as `ulimit` options spell them.
pub(crate) const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl FromStr for Ulimit {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--ulimit", text, problem);
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| wrong("expected NAME=SOFT[:HARD]"))?;
        if !ULIMITS.contains(&name) {
            return Err(wrong("no such limit"));
        }
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            _ => text
                .parse::<u64>()
                .map_err(|_| wrong("expected numbers, -1 for none")),
        };
        let (soft, hard) = match values.split_once(':') {
            None => (number(values)?, number(values)?),
            Some((soft, hard)) => (number(soft)?, number(hard)?),
        };
        if soft > hard {
            return Err(wrong("the soft limit is above the hard one"));
        }
        Ok(Self {
            name: name.into(),
            soft,
            hard,
        })
    }
}

/// Capabilities named by `--cap-add` or `--cap-drop`, `ALL` among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityWords(pub CapabilitySet);

impl FromStr for CapabilityWords {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let mut set = CapabilitySet::EMPTY;
        for word in text.split(',') {
            if word.eq_ignore_ascii_case("all") {
                return Ok(Self(CapabilitySet::ALL));
            }
            set.insert(Capability::find(word).ok_or_else(|| {
                ParseOptionError::new("--cap-add/--cap-drop", text, "no such capability")
            })?);
        }
        Ok(Self(set))
    }
}

/// `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityOption {
    /// Whether the process may gain privileges by executing set-id files.
    NoNewPrivileges(bool),
    /// No system call filter.
    SeccompUnconfined,
    /// A filter of the operator's own, as a file of the host.
    SeccompFile(PathBuf),
    /// No SELinux label.
    LabelDisable,
    /// No AppArmor profile, or this one.
    Apparmor(String),
}

impl FromStr for SecurityOption {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--security-opt", text, problem);
        let (key, value) = text
            .split_once(['=', ':'])
            .map_or((text, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(Self::NoNewPrivileges(false)),
            ("seccomp", Some("unconfined")) => Ok(Self::SeccompUnconfined),
            ("seccomp", Some("")) => Err(wrong("an empty profile would mean none; say unconfined")),
            ("seccomp", Some(path)) => Ok(Self::SeccompFile(path.into())),
            ("label", Some("disable")) => Ok(Self::LabelDisable),
            ("apparmor", Some(profile)) if !profile.is_empty() => {
                Ok(Self::Apparmor(profile.into()))
            }
            _ => Err(wrong("not known")),
        }
    }
}

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

/// `KEY=value` of `--sysctl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// With dots.
    pub key: String,
    /// Written as it is.
    pub value: String,
}

impl FromStr for Sysctl {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--sysctl", text, problem);
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| wrong("expected KEY=value"))?;
        let key = key.replace('/', ".");
        let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if key.is_empty() || !key.bytes().all(clean) || key.split('.').any(str::is_empty) {
            return Err(wrong("that is no name of a kernel setting"));
        }
        if value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(wrong("the value holds control characters"));
        }
        Ok(Self {
            key,
            value: value.into(),
        })
    }
}

/// `KEY=value` of `--annotation` and `--label`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Not empty.
    pub key: String,
    /// May be empty.
    pub value: String,
}

impl FromStr for KeyValue {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() || text.contains('\0') {
            return Err(ParseOptionError::new(
                "--label/--annotation",
                text,
                "expected KEY=value",
            ));
        }
        Ok(Self {
            key: key.into(),
            value: value.into(),
        })
    }
}

/// A signal by number, `TERM`, `SIGTERM` or `RTMIN+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalNumber(pub u8);

impl SignalNumber {
    /// `SIGTERM`.
    pub const TERM: Self = Self(15);
    /// `SIGKILL`.
    pub const KILL: Self = Self(9);
}

impl FromStr for SignalNumber {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        const NAMES: [&str; 31] = [
            "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV",
            "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN",
            "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
        ];
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let offset = |rest: &str, sign: char| match rest {
            "" => Some(0u8),
            rest => rest.strip_prefix(sign)?.parse().ok().filter(|n| *n <= 30),
        };
        let number = if name.bytes().all(|byte| byte.is_ascii_digit()) {
            name.parse().ok().filter(|number| (1..=64).contains(number))
        } else if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest, '+').map(|n| 34 + n)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest, '-').map(|n| 64 - n)
        } else {
            NAMES
                .iter()
                .position(|known| *known == name)
                .and_then(|index| u8::try_from(index + 1).ok())
        };
        number
            .map(Self)
            .ok_or_else(|| ParseOptionError::new("signal", text, "no such signal"))
    }
}

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 200 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = text.len() <= 200
            && text
                .bytes()
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text.bytes().all(inner);
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(ParseOptionError::new(
                "--name",
                text,
                "names are letters, digits, '_', '.' and '-', and start with a letter or digit",
            ))
        }
    }
}

impl TryFrom<String> for ContainerName {
    type Error = ParseOptionError;

    fn try_from(text: String) -> Result<Self, ParseOptionError> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> Self {
        name.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a host name: labels of letters, digits and hyphens, at most 64 bytes.
///
/// # Errors
/// Anything else; it ends up in files that are read line by line.
pub fn parse_hostname(text: &str) -> Result<String, ParseOptionError> {
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() <= 64 && text.split('.').all(label) {
        Ok(text.into())
    } else {
        Err(ParseOptionError::new(
            "--hostname",
            text,
            "that is no host name",
        ))
    }
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
    /// Bind mounts and memory file systems.
    pub mounts: Vec<MountRequest>,
    /// The host name; by default made of the id.
    pub hostname: Option<String>,
    /// The network.
    pub network: Network,
    /// Most memory, swap included.
    pub memory_max: Option<ByteSize>,
    /// Most processor time.
    pub cpus: Option<Cpus>,
    /// Most processes; -1 or 0 for no limit.
    pub pids_limit: Option<i64>,
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
    /// Replaces the image's stop signal.
    pub stop_signal: Option<SignalNumber>,
    /// How long `stop` waits before it kills.
    pub stop_timeout: Option<Duration>,
    /// Annotations of the runtime document.
    pub annotations: Vec<KeyValue>,
    /// Labels of the container.
    pub labels: Vec<KeyValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_or_refused() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("10b", 10),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "-1",
            "1e9",
            "0x10",
            "k",
            "1kk",
            "1 k",
            "99999999999t",
            "1.2.3",
            ".",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn volumes_name_paths_and_known_options() {
        let volume = MountRequest::parse_volume("/srv/../data:/var//lib/x/:ro,noexec").unwrap();
        assert_eq!(
            volume,
            MountRequest::Bind {
                source: "/srv/../data".into(),
                target: "/var/lib/x".into(),
                access: Access::ReadOnly,
                options: vec!["noexec".into()],
            }
        );
        for text in [
            "",
            "/a",
            "data:/x",
            "/a:x",
            "/a:/",
            "/a:/../..",
            "/a:/b:bogus",
            "/a:/b:ro:rw",
            "/a:/b\n:ro",
            "/a:/b:upperdir=/etc",
        ] {
            assert!(MountRequest::parse_volume(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn mounts_and_tmpfs_know_their_keys() {
        assert_eq!(
            MountRequest::parse_mount("type=bind,src=/a,dst=/b,ro"),
            MountRequest::parse_volume("/a:/b:ro")
        );
        assert_eq!(
            MountRequest::parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"),
            MountRequest::parse_tmpfs("/t:size=1m,mode=0700")
        );
        for text in [
            "type=volume,src=a,dst=/b",
            "src=/a",
            "type=bind,src=/a,dst=/b,upper=/x",
        ] {
            assert!(MountRequest::parse_mount(text).is_err(), "{text}");
        }
        for text in [
            "t",
            "/t:size=lots",
            "/t:mode=9",
            "/t:lowerdir=/",
            "/t:size=101%",
        ] {
            assert!(MountRequest::parse_tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn environment_entries_without_name_or_sign_are_nothing() {
        assert!(EnvVar::parse_pair("A=b=c").is_some_and(|var| var.value == "b=c"));
        for text in ["", "=", "=x", "A", "*", "AWS_*=x", "A\n=x", "A=x\0y"] {
            assert_eq!(EnvVar::parse_pair(text), None, "{text:?}");
        }
        let file = "# c\nA=1\n\n  B=2 \nHOME\n";
        let found = parse_env_file(file).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[2], Err("HOME".into()));
        assert!(parse_env_file("=x").is_err());
    }

    #[test]
    fn signals_have_many_spellings() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(text.parse(), Ok(SignalNumber(number)), "{text}");
        }
        for text in ["", "0", "65", "SIG", "FOO", "RTMIN+40", "-9", "9 "] {
            assert!(text.parse::<SignalNumber>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_hosts_and_settings_refuse_line_breaks_and_paths() {
        for text in ["../x", "a/b", "", ".a", "a b", "a\n"] {
            assert!(text.parse::<ContainerName>().is_err(), "{text:?}");
        }
        for text in ["", "a\nb", "a b", "-a", "a..b", "a:b"] {
            assert!(parse_hostname(text).is_err(), "{text:?}");
        }
        for text in ["a", "kernel.core_pattern+x=1", "net..x=1", "a=b\n", "=x"] {
            assert!(text.parse::<Sysctl>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn limits_and_devices_parse() {
        assert!("nofile=10:20".parse::<Ulimit>().is_ok());
        assert_eq!("core=-1".parse::<Ulimit>().unwrap().hard, u64::MAX);
        for text in ["nofile", "nofile=2:1", "bogus=1", "nofile=x"] {
            assert!(text.parse::<Ulimit>().is_err(), "{text}");
        }
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
        assert_eq!("0.5".parse::<Cpus>().unwrap().milli, 500);
        for text in ["0", "-1", "1e3", "0.001", "9000"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }

    #[test]
    fn empty_seccomp_profile_is_not_unconfined() {
        assert!("seccomp=".parse::<SecurityOption>().is_err());
    }
}
