// SPDX-License-Identifier: Apache-2.0
//! Names of other machines.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ParseOptionError, parse_hostname};

/// `--add-host NAME[;NAME]…:ADDRESS`, or with `=`: a line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The names.
    pub names: Vec<String>,
    /// The address.
    pub address: IpAddr,
}

impl FromStr for HostEntry {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        let wrong = |problem: &str| ParseOptionError::new("--add-host", text, problem);
        let (names, address) = text
            .split_once(['=', ':'])
            .ok_or_else(|| wrong("expected NAME:ADDRESS"))?;
        if address == "host-gateway" {
            return Err(wrong("there is no network with a gateway yet"));
        }
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        Ok(Self {
            names: names
                .split(';')
                .map(parse_hostname)
                .collect::<Result<_, _>>()
                .map_err(|error| wrong(&error.problem))?,
            address: bare
                .unwrap_or(address)
                .parse()
                .map_err(|_| wrong("that is no address"))?,
        })
    }
}

/// Parses a domain of `--dns-search`, or a word of `--dns-option`.
///
/// # Errors
/// What would end up as more than one word of `/etc/resolv.conf`.
pub fn parse_resolver_word(text: &str) -> Result<String, ParseOptionError> {
    let clean = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b';';
    if !text.is_empty() && text.len() < 256 && text.bytes().all(clean) {
        return Ok(text.into());
    }
    let problem = "expected one word without blanks";
    Err(ParseOptionError::new(
        "--dns-search/--dns-option",
        text,
        problem,
    ))
}

/// Who is asked for names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolver {
    /// `--dns`
    pub servers: Vec<IpAddr>,
    /// `--dns-search`
    pub search: Vec<String>,
    /// `--dns-option`
    pub options: Vec<String>,
}

impl Resolver {
    /// The file that says it; none if nothing was asked.
    #[must_use]
    pub fn file(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let mut text = String::new();
        let mut line = |word: &str, rest: &[String]| {
            if !rest.is_empty() {
                text.push_str(&format!("{word} {}\n", rest.join(" ")));
            }
        };
        line("search", &self.search);
        for server in &self.servers {
            line("nameserver", &[server.to_string()]);
        }
        line("options", &self.options);
        Some(text)
    }
}

/// What the container's files say of other machines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts {
    /// Lines of `/etc/hosts`.
    pub entries: Vec<HostEntry>,
    /// The image's own `/etc/hosts` is left alone.
    pub leave: bool,
    /// `/etc/resolv.conf`.
    pub resolver: Resolver,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_addresses_or_are_refused() {
        for (text, names, address) in [
            ("db:10.0.0.1", vec!["db"], "10.0.0.1"),
            ("a;b:::1", vec!["a", "b"], "::1"),
            ("a=[::1]", vec!["a"], "::1"),
        ] {
            let entry: HostEntry = text.parse().unwrap();
            assert_eq!(
                (entry.names, entry.address.to_string()),
                (
                    names.into_iter().map(str::to_owned).collect(),
                    address.to_owned()
                )
            );
        }
        for text in [
            "",
            "a",
            "a:",
            "a:b",
            "a b:1.2.3.4",
            "a:host-gateway",
            ":1.1.1.1",
        ] {
            assert!(text.parse::<HostEntry>().is_err(), "{text}");
        }
    }

    #[test]
    fn resolver_file_has_one_line_for_each() {
        let resolver = Resolver {
            servers: vec!["1.1.1.1".parse().unwrap(), "::1".parse().unwrap()],
            search: vec!["a.example".into(), "b".into()],
            options: vec!["ndots:2".into()],
        };
        let text = "search a.example b\nnameserver 1.1.1.1\nnameserver ::1\noptions ndots:2\n";
        assert_eq!(resolver.file().as_deref(), Some(text));
        assert_eq!(Resolver::default().file(), None);
        for text in ["", "a b", "a\n", "#x"] {
            assert!(parse_resolver_word(text).is_err(), "{text:?}");
        }
    }
}
