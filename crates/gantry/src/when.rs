// SPDX-License-Identifier: Apache-2.0
//! Times of images: RFC 3339 text in, seconds and words out.

use std::time::{SystemTime, UNIX_EPOCH};

pub use gantry_oci::rfc3339::{format, parse};

const DAY: i64 = 86_400;

/// How long ago that was, in the words of podman and docker.
#[must_use]
pub fn ago(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    words(now.saturating_sub(seconds))
}

fn words(elapsed: i64) -> String {
    let many = |count: i64, unit: &str| match count {
        1 => format!("1 {unit} ago"),
        _ => format!("{count} {unit}s ago"),
    };
    match elapsed {
        ..1 => "less than a second ago".to_owned(),
        1..60 => many(elapsed, "second"),
        60..3600 => many(elapsed / 60, "minute"),
        3600..DAY => many(elapsed / 3600, "hour"),
        _ => match elapsed / DAY {
            days @ ..14 => many(days, "day"),
            days @ ..60 => many(days / 7, "week"),
            days @ ..730 => many(days / 30, "month"),
            days => many(days / 365, "year"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_has_one_unit() {
        for (elapsed, wanted) in [
            (-5, "less than a second ago"),
            (1, "1 second ago"),
            (120, "2 minutes ago"),
            (3600, "1 hour ago"),
            (13 * DAY, "13 days ago"),
            (21 * DAY, "3 weeks ago"),
            (90 * DAY, "3 months ago"),
            (1000 * DAY, "2 years ago"),
        ] {
            assert_eq!(words(elapsed), wanted);
        }
    }
}
