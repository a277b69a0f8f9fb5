// SPDX-License-Identifier: Apache-2.0
//! Where failures and warnings go: runc's log, which conmon and containerd read, and standard error.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use super::words::Words;

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    format: Format,
    /// Standard error is that of somebody's program, for whom our warnings are not.
    shared: bool,
}

impl Log {
    /// As the flags say.
    ///
    /// # Errors
    /// There is no such format.
    pub fn new(words: &Words) -> Result<Self, String> {
        let format = match words.text("log-format")? {
            None | Some("text" | "") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(format!("--log-format: {other:?} is none of text and json")),
        };
        let path = words.get("log").filter(|path| !path.is_empty());
        // crun's spelling of where to.
        let path = path.map(|path| {
            let text = path.to_string_lossy();
            text.strip_prefix("file:")
                .map_or_else(|| path.into(), PathBuf::from)
        });
        Ok(Self {
            path,
            format,
            shared: false,
        })
    }

    /// The same for a verb that lends its standard streams to a program of a container (`shared`). podman names no log to a
    /// runtime that it does not know by name.
    #[must_use]
    pub fn sharing_streams(self, shared: bool) -> Self {
        Self { shared, ..self }
    }

    /// Something was done less than asked: to the log alone where there is one; else to standard error, which has to be a
    /// person's where it is the program's, too.
    pub fn warn(&self, sentence: &str) {
        if self.path.is_none() && (!self.shared || std::io::stderr().is_terminal()) {
            show("warning", sentence);
        }
        self.write("warning", sentence);
    }

    /// The verb failed.
    pub fn fail(&self, sentence: &str) {
        show("error", sentence);
        self.write("error", sentence);
    }

    fn write(&self, level: &str, sentence: &str) {
        let Some(path) = &self.path else { return };
        let seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let time = gantry_oci::rfc3339::format(seconds);
        let line = match self.format {
            Format::Json => {
                serde_json::json!({"level": level, "msg": sentence, "time": time}).to_string()
            }
            Format::Text => format!("time=\"{time}\" level={level} msg={sentence:?}"),
        };
        let opened = OpenOptions::new().create(true).append(true).open(path);
        if let Ok(mut file) = opened {
            // One write a line, so that lines of several runtimes do not mix.
            file.write_all(format!("{line}\n").as_bytes()).ok();
        }
    }
}

fn show(level: &str, sentence: &str) {
    let shown = crate::output::escape_controls(sentence);
    // Nobody reads it: there is nobody else to tell.
    writeln!(std::io::stderr(), "gantry runtime: {level}: {shown}").ok();
}
