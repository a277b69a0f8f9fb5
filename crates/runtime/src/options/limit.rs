// SPDX-License-Identifier: Apache-2.0
//! Resource limits and kernel settings.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseOptionError;
use crate::rlimit;

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

impl FromStr for Ulimit {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--ulimit", text, problem);
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| wrong("expected NAME=SOFT[:HARD]"))?;
        if !rlimit::is_option(name) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_in_order() {
        assert!("nofile=10:20".parse::<Ulimit>().is_ok());
        assert_eq!("core=-1".parse::<Ulimit>().unwrap().hard, u64::MAX);
        for text in ["nofile", "nofile=2:1", "bogus=1", "nofile=x"] {
            assert!(text.parse::<Ulimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn settings_are_names_and_one_line() {
        for text in ["a", "kernel.core_pattern+x=1", "net..x=1", "a=b\n", "=x"] {
            assert!(text.parse::<Sysctl>().is_err(), "{text:?}");
        }
    }
}
