// SPDX-License-Identifier: Apache-2.0
//! Mounts that an operator asks for, in the spellings of `--volume`, `--mount` and `--tmpfs`.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ByteSize, ParseOptionError};
use crate::identity::IdOrName;

/// `--image-volume`: what becomes of directories that the image declares as volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageVolumes {
    /// Each is writable, into a layer of the container's own.
    #[default]
    Bind,
    /// Each is memory.
    Tmpfs,
    /// Nothing.
    Ignore,
}

impl FromStr for ImageVolumes {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match text {
            "bind" | "anonymous" => Ok(Self::Bind),
            "tmpfs" => Ok(Self::Tmpfs),
            "ignore" => Ok(Self::Ignore),
            _ => {
                let problem = "expected bind, tmpfs or ignore";
                Err(ParseOptionError::new("--image-volume", text, problem))
            }
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
    Some(format!("/{}", without_steps(path)))
}

/// A path without its slashes at both ends, dots and steps upwards: nothing leads out.
pub(crate) fn without_steps(path: &str) -> String {
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
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
