// SPDX-License-Identifier: Apache-2.0
//! Names, labels and signals.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseOptionError;

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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn names_and_hosts_refuse_line_breaks_and_paths() {
        for text in ["../x", "a/b", "", ".a", "a b", "a\n"] {
            assert!(text.parse::<ContainerName>().is_err(), "{text:?}");
        }
        for text in ["", "a\nb", "a b", "-a", "a..b", "a:b"] {
            assert!(parse_hostname(text).is_err(), "{text:?}");
        }
    }
}
