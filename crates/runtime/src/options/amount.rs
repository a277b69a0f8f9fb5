// SPDX-License-Identifier: Apache-2.0
//! Numbers with units: bytes and processors.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseOptionError;

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
    fn processors_are_plain_decimals() {
        assert_eq!("0.5".parse::<Cpus>().unwrap().milli, 500);
        for text in ["0", "-1", "1e3", "0.001", "9000"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }
}
