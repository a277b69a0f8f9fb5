// SPDX-License-Identifier: Apache-2.0
//! The runtime's command line: runc's, read by a table.
//!
//! Not by clap: what podman and its kin call thousands of times should cost nothing to read, and Go's
//! way of reading flags (one dash or two, and none after the first word) is not clap's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its long name, then others.
    pub names: &'static [&'static str],
    /// What its value is, if it has one.
    pub value: Option<&'static str>,
    /// One line.
    pub help: &'static str,
}

/// A flag without a value.
pub const fn switch(names: &'static [&'static str], help: &'static str) -> Flag {
    Flag {
        names,
        value: None,
        help,
    }
}

/// A flag with one.
pub const fn value(names: &'static [&'static str], what: &'static str, help: &'static str) -> Flag {
    Flag {
        names,
        value: Some(what),
        help,
    }
}

/// What was said.
#[derive(Debug, Default)]
pub struct Words {
    flags: Vec<(&'static str, OsString)>,
    /// What follows the flags.
    pub rest: Vec<OsString>,
}

impl Words {
    /// Reads flags up to the first other word.
    ///
    /// # Errors
    /// A sentence: no such flag, no value, or one too many.
    pub fn parse(words: &[OsString], table: &[Flag]) -> Result<Self, String> {
        let mut said = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            if bytes == b"--" {
                break;
            }
            let Some(body) = bytes.strip_prefix(b"-").filter(|body| !body.is_empty()) else {
                said.rest.push(word.clone());
                break;
            };
            let body = body.strip_prefix(b"-").unwrap_or(body);
            let (name, given) = match body.iter().position(|byte| *byte == b'=') {
                Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]))),
                None => (body, None),
            };
            let shown = String::from_utf8_lossy(name);
            let flag = table
                .iter()
                .find(|flag| flag.names.iter().any(|known| known.as_bytes() == name))
                .ok_or_else(|| format!("unknown flag --{shown}"))?;
            let value = match (flag.value, given) {
                (None, Some(text)) if text == "false" => continue,
                (None, Some(text)) if text != "true" => {
                    return Err(format!("flag --{shown} takes no value"));
                }
                (None, _) => OsString::new(),
                (Some(_), Some(text)) => text.to_owned(),
                (Some(_), None) => words
                    .next()
                    .ok_or_else(|| format!("flag --{shown} needs a value"))?
                    .clone(),
            };
            said.flags.push((flag.names[0], value));
        }
        said.rest.extend(words.cloned());
        Ok(said)
    }

    /// Whether a flag was given.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(known, _)| *known == name)
    }

    /// The last value of a flag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.all(name).last()
    }

    /// Every value of a flag, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a OsStr> {
        self.flags
            .iter()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value.as_os_str())
    }

    /// The last value of a flag, as text.
    ///
    /// # Errors
    /// It is no UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, String> {
        self.get(name)
            .map(|value| {
                value
                    .to_str()
                    .ok_or_else(|| format!("flag --{name}: not UTF-8"))
            })
            .transpose()
    }

    /// The last value of a flag, as a number.
    ///
    /// # Errors
    /// It is none.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        self.text(name)?
            .map(|text| {
                text.parse()
                    .map_err(|_| format!("flag --{name}: {text:?} is no such number"))
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [Flag; 3] = [
        switch(&["detach", "d"], ""),
        value(&["bundle", "b"], "DIR", ""),
        value(&["env", "e"], "VAR", ""),
    ];

    fn parse(line: &str) -> Result<Words, String> {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        Words::parse(&words, &TABLE)
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for line in [
            "--bundle /b -d id -x",
            "-bundle=/b --detach id -x",
            "-b /b --detach=true id -x",
            "--bundle /a -d -b=/b -- id -x",
        ] {
            let words = parse(line).unwrap();
            assert_eq!(words.get("bundle").unwrap(), "/b", "{line}");
            assert!(words.has("detach"), "{line}");
            assert_eq!(words.rest, ["id", "-x"], "{line}");
        }
        assert!(!parse("--detach=false").unwrap().has("detach"));
        assert_eq!(
            parse("-e A=1 -e=B=2")
                .unwrap()
                .all("env")
                .collect::<Vec<_>>(),
            ["A=1", "B=2"]
        );
    }

    #[test]
    fn nonsense_is_a_sentence() {
        for (line, said) in [
            ("--nope", "unknown flag --nope"),
            ("--bundle", "needs a value"),
            ("-d=yes", "takes no value"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
