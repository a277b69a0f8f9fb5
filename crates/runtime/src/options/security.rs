// SPDX-License-Identifier: Apache-2.0
//! What a process may do: capabilities and security options.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ParseOptionError, normalize_absolute};
use crate::capability::{Capability, CapabilitySet};

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
    /// Paths that are hidden, too.
    Mask(Vec<String>),
    /// Paths of the profile that are neither hidden nor read-only; `ALL` for every one.
    Unmask(Vec<String>),
}

const PATHS: &str = "expected absolute paths with : between them";

fn paths(list: &str) -> Option<Vec<String>> {
    list.split(':').map(normalize_absolute).collect()
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
            ("systempaths", Some("unconfined")) => Ok(Self::Unmask(vec!["ALL".into()])),
            ("mask", Some(list)) => paths(list).map(Self::Mask).ok_or_else(|| wrong(PATHS)),
            ("unmask", Some("all" | "ALL")) => Ok(Self::Unmask(vec!["ALL".into()])),
            ("unmask", Some(list)) => paths(list).map(Self::Unmask).ok_or_else(|| wrong(PATHS)),
            ("apparmor", Some(profile)) if !profile.is_empty() => {
                Ok(Self::Apparmor(profile.into()))
            }
            _ => Err(wrong("not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_seccomp_profile_is_not_unconfined() {
        assert!("seccomp=".parse::<SecurityOption>().is_err());
    }
}
