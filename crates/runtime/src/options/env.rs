// SPDX-License-Identifier: Apache-2.0
//! Variables of the environment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseOptionError;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
