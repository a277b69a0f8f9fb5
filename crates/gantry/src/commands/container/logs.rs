// SPDX-License-Identifier: Apache-2.0
//! `gantry logs`.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use gantry_oci::Kind;
use gantry_runtime::container::{Container, Containers};

use crate::context::Context;
use crate::exit::{Failure, Outcome};

/// How often is looked for more.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Older files are `.1`, `.2` … behind the name; nobody keeps more than these.
const OLDER_MAX: u32 = 100;

/// Print what a container has written.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Its name, ID, or the beginning of its ID
    container: String,
    /// Go on until the container has ended
    #[arg(long, short)]
    follow: bool,
    /// When each line was written
    #[arg(long, short)]
    timestamps: bool,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// One entry of the file.
struct Entry<'a> {
    time: &'a [u8],
    to_stderr: bool,
    whole: bool,
    text: &'a [u8],
}

impl Logs {
    /// Prints them.
    pub fn run(self, context: &Context) -> Outcome {
        let container = Containers::new(&context.root, &context.runroot).find(&self.container)?;
        let path = container.home.log().ok_or_else(|| {
            let message = format!(
                "print the log of {}: none is kept of a container that was run with --rm and stayed attached",
                self.container
            );
            Failure::message(Kind::NotFound, message)
        })?;
        let doing = |error: io::Error| {
            Failure::from(error).context(format!("print the log {}", path.display()))
        };
        let mut tail = Tail::new(path.clone());
        let mut lines = older_lines(&path).map_err(doing)?;
        while let Some(line) = tail.next_line().map_err(doing)? {
            lines.push(line);
        }
        if let Some(count) = self.tail {
            lines.drain(..lines.len().saturating_sub(count));
        }
        lines
            .iter()
            .try_for_each(|line| self.print(line))
            .map_err(doing)?;
        if self.follow {
            loop {
                // Looked at before the file: what was written until the end is then read.
                let ended = has_ended(&container)?;
                while let Some(line) = tail.next_line().map_err(doing)? {
                    self.print(&line).map_err(doing)?;
                }
                if ended {
                    break;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, line: &[u8]) -> io::Result<()> {
        let Some(entry) = parse(line) else {
            return Ok(());
        };
        let mut out: Box<dyn Write> = if entry.to_stderr {
            Box::new(io::stderr().lock())
        } else {
            Box::new(io::stdout().lock())
        };
        if self.timestamps {
            out.write_all(entry.time)?;
            out.write_all(b" ")?;
        }
        out.write_all(entry.text)?;
        if entry.whole {
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

fn has_ended(container: &Container) -> Result<bool, Failure> {
    Ok(!container.home.state_dir.exists() || !container.status()?.is_alive())
}

/// The entries of files that are full, the oldest first.
fn older_lines(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let older = (1..=OLDER_MAX).map(|number| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    });
    let files: Vec<_> = older.take_while(|path| path.exists()).collect();
    let mut lines = Vec::new();
    for file in files.into_iter().rev() {
        let mut tail = Tail::new(file);
        while let Some(line) = tail.next_line()? {
            lines.push(line);
        }
    }
    Ok(lines)
}

/// The whole lines of a file that may still grow, or not be there yet.
struct Tail {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    /// The beginning of a line whose end is not written yet.
    half: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            reader: None,
            half: Vec::new(),
        }
    }

    /// `None` if no whole line is there now.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.reader.is_none() {
            match File::open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => self.reader = Some(BufReader::new(other?)),
            }
        }
        if let Some(reader) = &mut self.reader {
            reader.read_until(b'\n', &mut self.half)?;
        }
        Ok(self
            .half
            .ends_with(b"\n")
            .then(|| std::mem::take(&mut self.half)))
    }
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    Some(Entry {
        time: parts.next()?,
        to_stderr: parts.next()? == b"stderr",
        whole: parts.next()? == b"F",
        text: parts.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_out_once_they_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.next_line().unwrap(), None);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.next_line().unwrap().unwrap(), b"one\n");
        assert_eq!(tail.next_line().unwrap(), None);
        file.write_all(b"o\n").unwrap();
        assert_eq!(tail.next_line().unwrap().unwrap(), b"two\n");
    }

    #[test]
    fn entries_are_taken_apart() {
        let entry = parse(b"2026-01-02T03:04:05Z stderr F a line  with spaces\n").unwrap();
        assert!(entry.to_stderr && entry.whole);
        assert_eq!(entry.text, b"a line  with spaces");
        let entry = parse(b"2026-01-02T03:04:05Z stdout P \n").unwrap();
        assert!(!entry.to_stderr && !entry.whole && entry.text.is_empty());
        assert!(parse(b"garbage\n").is_none());
    }
}
