// SPDX-License-Identifier: Apache-2.0
//! `events`: what a container uses.

use std::time::Duration;

use gantry_runtime::oci::{Context, events};

use super::words::Words;
use super::{Answer, Failure, one_id};
use crate::output;

pub(super) fn events(context: &Context<'_>, words: &Words) -> Answer {
    let id = one_id(words)?;
    let interval = interval(words.text("interval")?.unwrap_or("5s"))?;
    let interval = (!words.has("stats")).then_some(interval);
    let mut failed = None;
    events::events(context, id, interval, |event| {
        let told = serde_json::to_string(event)
            .map_err(|error| Failure::Usage(error.to_string()))
            .and_then(|text| {
                output::line(text).map_err(|failure| Failure::Usage(failure.sentence()))
            });
        failed = told.err();
        failed.is_none()
    })?;
    failed.map_or(Ok(0), Err)
}

/// As Go writes durations, `1m30s`; a number alone is of seconds.
fn interval(text: &str) -> Result<Duration, Failure> {
    let refuse = || {
        Failure::Usage(format!(
            "--interval: {text:?} is no span of time above zero"
        ))
    };
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| refuse())?;
        rest = &rest[end..];
        let units = [
            ("ms", 0.001),
            ("us", 1e-6),
            ("ns", 1e-9),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let (unit, factor) = match units.into_iter().find(|(unit, _)| rest.starts_with(unit)) {
            Some(found) => found,
            None if rest.is_empty() => ("", 1.0),
            None => return Err(refuse()),
        };
        rest = &rest[unit.len()..];
        seconds += number * factor;
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_go_writes_them() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("1m30s", 90_000),
            ("100ms", 100),
            ("2", 2000),
            ("1.5s", 1500),
        ] {
            assert_eq!(
                interval(text).unwrap_or_default(),
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        for text in ["", "0", "s", "5x", "-1s", "1e300h"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
