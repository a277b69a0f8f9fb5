// SPDX-License-Identifier: Apache-2.0
//! Spans of time as people write them in configuration: `45s`, `30m`, `12h`, `90d`.

use std::fmt;
use std::time::Duration;

/// A span of time: a whole number above zero and a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age(Duration);

/// The text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a whole number with s, m, h or d behind it")]
pub struct ParseAgeError(String);

impl Age {
    /// The span.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl std::str::FromStr for Age {
    type Err = ParseAgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (at, unit) = text.char_indices().next_back()?;
            let seconds_each = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86400,
                _ => return None,
            };
            let count: u64 = text[..at].parse().ok().filter(|count| *count > 0)?;
            Some(Self(Duration::from_secs(count.checked_mul(seconds_each)?)))
        };
        parse().ok_or_else(|| ParseAgeError(text.to_owned()))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86400, 'd'), (3600, 'h'), (60, 'm')];
        let (each, unit) = units
            .into_iter()
            .find(|(each, _)| seconds % each == 0)
            .unwrap_or((1, 's'));
        write!(f, "{}{unit}", seconds / each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        for (text, seconds) in [
            ("45s", 45),
            ("30m", 1800),
            ("12h", 43_200),
            ("90d", 7_776_000),
        ] {
            let age: Age = text.parse().unwrap();
            assert_eq!(age.duration().as_secs(), seconds);
            assert_eq!(age.to_string(), text);
        }
        for bad in [
            "",
            "d",
            "90",
            "0d",
            "-1d",
            "1y",
            "1.5h",
            " 1h",
            "99999999999999999d",
            "é",
        ] {
            assert!(bad.parse::<Age>().is_err(), "{bad:?}");
        }
    }
}
