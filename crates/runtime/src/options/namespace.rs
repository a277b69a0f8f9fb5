// SPDX-License-Identifier: Apache-2.0
//! Whose processes, message queues, names, control groups and users a container sees.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseOptionError;

/// Whose namespace of one kind the container is in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// The one at this path, `/proc/PID/ns/…` or a mount of such a file.
    Path(PathBuf),
    /// That of another container, by name or id; the program looks its path up.
    Container(String),
}

impl Sharing {
    /// Whether the container has one that nobody else is in.
    #[must_use]
    pub fn is_private(&self) -> bool {
        *self == Self::Private
    }

    fn parse(option: &'static str, text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new(option, text, problem);
        match text.split_once(':').unwrap_or((text, "")) {
            ("private", "") => Ok(Self::Private),
            ("host", "") => Ok(Self::Host),
            ("ns", path) if path.starts_with('/') && !path.contains('\0') => {
                Ok(Self::Path(path.into()))
            }
            ("ns", _) => Err(wrong("expected ns: and an absolute path")),
            ("container", name) if !name.is_empty() => Ok(Self::Container(name.into())),
            _ => Err(wrong("expected private, host, ns:PATH or container:NAME")),
        }
    }

    /// Parses `--pid`.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn parse_pid(text: &str) -> Result<Self, ParseOptionError> {
        Self::parse("--pid", text)
    }

    /// Parses `--uts`.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn parse_uts(text: &str) -> Result<Self, ParseOptionError> {
        Self::parse("--uts", text)
    }

    /// Parses `--cgroupns`.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn parse_cgroupns(text: &str) -> Result<Self, ParseOptionError> {
        Self::parse("--cgroupns", text)
    }
}

/// `--ipc`: message queues and shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ipc {
    /// Whose.
    pub sharing: Sharing,
    /// Without `/dev/shm`.
    pub without_shm: bool,
}

impl FromStr for Ipc {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let word = match text {
            // Whoever is to share it joins by the process, which any container allows.
            "shareable" | "none" => "private",
            other => other,
        };
        Ok(Self {
            sharing: Sharing::parse("--ipc", word)?,
            without_shm: text == "none",
        })
    }
}

/// Ids of the container that are ids of the host: `CONTAINER:HOST:SIZE` of `--uidmap` and `--gidmap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first one in the container.
    pub container: u32,
    /// The first one on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

impl FromStr for IdRange {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--uidmap/--gidmap", text, problem);
        let numbers: Option<Vec<u32>> = text
            .split(':')
            .map(|part| {
                let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                if plain { part.parse().ok() } else { None }
            })
            .collect();
        let (container, host, size) = match numbers.as_deref() {
            Some([container, host]) => (*container, *host, 1),
            Some([container, host, size]) => (*container, *host, *size),
            _ => return Err(wrong("expected CONTAINER:HOST[:SIZE], three numbers")),
        };
        let fits = |first: u32| first.checked_add(size).is_some();
        if size == 0 || !fits(container) || !fits(host) {
            return Err(wrong("the range is empty, or ends beyond the last id"));
        }
        Ok(Self {
            container,
            host,
            size,
        })
    }
}

/// Who the container's users are on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Users {
    /// The host's own.
    #[default]
    Host,
    /// Those of a new user namespace.
    Mapped {
        /// Users.
        uids: Vec<IdRange>,
        /// Groups.
        gids: Vec<IdRange>,
    },
    /// Those of an existing user namespace.
    Path(PathBuf),
    /// Those of another container.
    Container(String),
}

impl Users {
    /// Puts `--userns`, `--uidmap` and `--gidmap` together; the one map serves for the other where
    /// only one is given, as with podman.
    ///
    /// # Errors
    /// A word that we do not have, or maps beside a namespace that has its own.
    pub fn of_options(
        word: Option<&str>,
        uids: &[IdRange],
        gids: &[IdRange],
    ) -> Result<Self, ParseOptionError> {
        let text = word.unwrap_or_default();
        let wrong = |problem: &str| ParseOptionError::new("--userns", text, problem);
        let mapped = !uids.is_empty() || !gids.is_empty();
        match text.split_once(':').unwrap_or((text, "")) {
            ("" | "private", "") if mapped => Ok(Self::Mapped {
                uids: if uids.is_empty() { gids } else { uids }.to_vec(),
                gids: if gids.is_empty() { uids } else { gids }.to_vec(),
            }),
            _ if mapped => Err(wrong("--uidmap and --gidmap describe a new user namespace")),
            ("" | "host", "") => Ok(Self::Host),
            ("ns", path) if path.starts_with('/') => Ok(Self::Path(path.into())),
            ("container", name) if !name.is_empty() => Ok(Self::Container(name.into())),
            ("private" | "auto" | "keep-id" | "nomap", _) => Err(wrong(
                "ids are not chosen for you; --uidmap and --gidmap say them",
            )),
            _ => Err(wrong("expected host, private, ns:PATH or container:NAME")),
        }
    }
}

/// Every namespace but the network's, which is an option of its own kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Processes.
    pub pid: Sharing,
    /// Message queues and shared memory.
    pub ipc: Ipc,
    /// The machine's name.
    pub uts: Sharing,
    /// Control groups.
    pub cgroup: Sharing,
    /// Users.
    pub users: Users,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_own_shared_or_refused() {
        for (text, sharing) in [
            ("private", Sharing::Private),
            ("host", Sharing::Host),
            ("ns:/proc/7/ns/pid", Sharing::Path("/proc/7/ns/pid".into())),
            ("container:web", Sharing::Container("web".into())),
        ] {
            assert_eq!(Sharing::parse_pid(text), Ok(sharing), "{text}");
        }
        for text in ["", "ns:", "ns:proc", "container:", "pod", "host:x", "auto"] {
            assert!(Sharing::parse_uts(text).is_err(), "{text}");
        }
        let none: Ipc = "none".parse().unwrap();
        assert!(none.sharing.is_private() && none.without_shm);
        assert_eq!("shareable".parse(), Ok(Ipc::default()));
    }

    #[test]
    fn users_are_mapped_by_number_only() {
        let map = |text: &str| text.parse::<IdRange>();
        let one = map("0:100000:65536").unwrap();
        let both = Users::of_options(None, &[one], &[]).unwrap();
        assert_eq!(
            both,
            Users::Mapped {
                uids: vec![one],
                gids: vec![one]
            }
        );
        for text in [
            "",
            "0",
            "0:1:0",
            "0:4294967295:2",
            "a:1:1",
            "0:1:1:1",
            "+0:1:1",
            "@1:1:1",
        ] {
            assert!(map(text).is_err(), "{text}");
        }
        for word in [
            "auto",
            "keep-id",
            "keep-id:uid=7",
            "nomap",
            "private",
            "pod",
            "ns:x",
        ] {
            assert!(Users::of_options(Some(word), &[], &[]).is_err(), "{word}");
        }
        assert!(Users::of_options(Some("host"), &[one], &[]).is_err());
        assert_eq!(Users::of_options(Some("host"), &[], &[]), Ok(Users::Host));
    }
}
