// SPDX-License-Identifier: Apache-2.0
//! Everything that gantry prints. Results go to standard output and nothing
//! else does; errors, hints, logs and progress go to standard error.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::args::Global;
use crate::exit::Failure;

/// What a shell reports for a program that a closed pipe ended.
const SIGPIPE_STATUS: u8 = 141;

/// Writes one line of a result.
///
/// # Errors
/// Standard output is closed or full.
pub fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").map_err(unwritten)
}

/// Writes lines of a result; control characters in them are escaped.
///
/// # Errors
/// Standard output is closed or full.
pub fn lines(text: &str) -> Result<(), Failure> {
    text.lines()
        .try_for_each(|text| line(escape_controls(text)))
}

/// Writes bytes as they are, to the last one.
///
/// # Errors
/// Standard output is closed or full.
pub fn exact(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(unwritten)
}

/// Whoever closed the pipe has seen enough and wants no explanation.
fn unwritten(error: std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Failure::from(error).silent(SIGPIPE_STATUS);
    }
    Failure::from(error).context("write to standard output")
}

/// Writes a result as indented JSON.
///
/// # Errors
/// Standard output is closed or full.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(gantry_oci::Kind::Internal, e))?;
    json_text(&text)
}

/// Writes a result that is JSON already.
///
/// # Errors
/// Standard output is closed or full.
pub fn json_text(text: &str) -> Result<(), Failure> {
    line(escape_json(text))
}

/// JSON escapes the control characters of ASCII only, and not all of these. The others stand in
/// strings, where an escape means the same.
pub fn escape_json(text: &str) -> String {
    use std::fmt::Write as _;
    text.chars().fold(String::new(), |mut out, c| {
        match u32::from(c) {
            code @ 0x7f..=0x9f => write!(out, "\\u{code:04x}").unwrap_or_default(),
            _ => out.push(c),
        }
        out
    })
}

/// Writes rows in columns as wide as their widest cell, two spaces apart. Control characters in
/// cells are escaped.
///
/// # Errors
/// Standard output is closed or full.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let escape = |row: &Vec<String>| row.iter().map(|cell| escape_controls(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(escape).collect();
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: Vec<&str>| {
        let mut out = String::new();
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            out.push_str(cell);
            if i + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
            }
        }
        out
    };
    line(render(header.to_vec()))?;
    rows.iter()
        .try_for_each(|row| line(render(row.iter().map(String::as_str).collect())))
}

/// Bytes for people: decimal units, as podman prints them.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn stderr_line(prefix: &str, colour: &str, text: &str) {
    let mut err = std::io::stderr().lock();
    let text = escape_controls(text);
    // Nothing is left to do when standard error is gone.
    drop(
        if err.is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            writeln!(err, "\x1b[{colour}m{prefix}\x1b[0m {text}")
        } else {
            writeln!(err, "{prefix} {text}")
        },
    );
}

/// Terminal control characters in a message may come from an image or a
/// registry; a terminal must not obey them.
pub fn escape_controls(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// Prints why the command failed.
pub fn error_line(sentence: &str) {
    stderr_line("gantry:", "31", sentence);
}

/// Prints what a person who watches wants to know.
pub fn note_line(note: &str) {
    stderr_line("gantry:", "32", note);
}

/// Prints what to try.
pub fn hint_line(hint: &str) {
    stderr_line("hint:", "36", hint);
}

/// Starts logging to standard error, as the options ask.
pub fn start_logging(global: &Global) {
    use tracing_subscriber::filter::EnvFilter;
    let filter = EnvFilter::try_new(&global.log).unwrap_or_else(|_| EnvFilter::new("warn"));
    let ansi = match global.color {
        clap::ColorChoice::Always => true,
        clap::ColorChoice::Never => false,
        clap::ColorChoice::Auto => {
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_to_one_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (126_000_000, "126.0 MB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn controls_are_escaped() {
        assert_eq!(escape_controls("a\x1b[31mb\nc"), "a\\u{1b}[31mb\\nc");
        let hostile = "a\u{9b}31m\u{7f}é";
        let text = escape_json(&serde_json::to_string(hostile).unwrap());
        assert_eq!(text, "\"a\\u009b31m\\u007fé\"");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }
}
