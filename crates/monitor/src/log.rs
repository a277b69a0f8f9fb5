// SPDX-License-Identifier: Apache-2.0
//! The container's output on disk, in the form that the kubelet reads:
//!
//! ```text
//! 2026-01-02T03:04:05.123456789Z stdout F a whole line
//! 2026-01-02T03:04:05.123456789Z stderr P the beginning of one
//! ```
//!
//! # Source
//! Kubernetes, "CRI: Log format"; the same as podman's `k8s-file`.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_runtime::supervise::LogPlan;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamName {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct Log {
    plan: LogPlan,
    file: File,
    size_bytes: u64,
    /// One write's worth, kept to be filled again.
    entry: Vec<u8>,
}

impl Log {
    /// Opens the file for appending.
    pub(crate) fn open(plan: &LogPlan) -> io::Result<Self> {
        let file = open(&plan.path)?;
        Ok(Self {
            size_bytes: file.metadata()?.len(),
            plan: plan.clone(),
            file,
            entry: Vec::with_capacity(128 << 10),
        })
    }

    /// Writes bytes of one stream; what cannot be written is lost, and the program goes on.
    pub(crate) fn write(&mut self, stream: StreamName, bytes: &[u8]) {
        let stamp = timestamp(SystemTime::now());
        self.entry.clear();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (tag, text) = match line.strip_suffix(b"\n") {
                Some(text) => ("F", text),
                None => ("P", line),
            };
            for part in [&stamp, stream.as_str(), tag] {
                self.entry.extend_from_slice(part.as_bytes());
                self.entry.push(b' ');
            }
            self.entry.extend_from_slice(text);
            self.entry.push(b'\n');
        }
        if self.size_bytes >= self.plan.file_max_bytes {
            self.rotate().ok();
        }
        if self.file.write_all(&self.entry).is_ok() {
            self.size_bytes += self.entry.len() as u64;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let older = |number: u32| {
            let mut name = self.plan.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.plan.older_files).rev() {
            match std::fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.plan.older_files == 0 {
            std::fs::remove_file(&self.plan.path)?;
        } else {
            std::fs::rename(&self.plan.path, older(1))?;
        }
        self.file = open(&self.plan.path)?;
        self.size_bytes = 0;
        Ok(())
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// RFC 3339 in UTC with nanoseconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = String::with_capacity(30);
    // Writing to a string cannot fail.
    write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        since.subsec_nanos()
    )
    .ok();
    text
}

/// The Gregorian date of a day, counted from 1970-01-01. Years begin in March here, so that the
/// leap day is the last of one.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / ERA, shifted % ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::new(seconds, 7);
            assert_eq!(timestamp(time), text);
        }
    }

    #[test]
    fn lines_are_whole_or_partial_and_files_are_turned() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan {
            path: dir.path().join("log"),
            file_max_bytes: 100,
            older_files: 2,
        };
        let mut log = Log::open(&plan).unwrap();
        log.write(StreamName::Stdout, b"one\ntwo");
        log.write(StreamName::Stderr, b"\n");
        let text = std::fs::read_to_string(&plan.path).unwrap();
        let parts: Vec<_> = text.lines().map(|line| &line[31..]).collect();
        assert_eq!(parts, ["stdout F one", "stdout P two", "stderr F "]);
        for number in 0..10 {
            log.write(StreamName::Stdout, format!("{number:080}\n").as_bytes());
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
    }
}
