// SPDX-License-Identifier: Apache-2.0
//! `registries.conf`: which places to try for a name.
//!
//! One table applies to a reference: the one with the longest matching prefix.
//! Its mirrors come first, in the order written, then the place itself. This
//! is for reading; a push goes where the reference says.
//!
//! # Source
//! containers-registries.conf(5), version 2; version 1 is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_oci::{Host, Reference, Repository};
use serde::Deserialize;

use super::credentials::Environment;
use super::error::RegistryError;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    registry: Vec<Entry>,
    /// Version 1.
    registries: Option<toml::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: PullFromMirror,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

/// What the files say, merged.
#[derive(Debug, Clone, Default)]
pub struct RegistriesConf {
    entries: BTreeMap<String, Entry>,
    unqualified: Vec<String>,
}

/// One place to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The registry.
    pub host: Host,
    /// The repository there.
    pub repository: Repository,
    /// Whether it may speak plain HTTP or have a bad certificate.
    pub insecure: bool,
    /// Whether it stands in for the place that the reference names.
    pub is_mirror: bool,
}

impl RegistriesConf {
    /// Reads the main file and the drop-ins of a user's places.
    ///
    /// # Errors
    /// A file that is there cannot be read or parsed.
    pub fn load(environment: &Environment) -> Result<Self, RegistryError> {
        let mut conf = Self::default();
        if let Some(only) = &environment.registries_conf {
            conf.read(only)?;
            return Ok(conf);
        }
        let own = environment
            .config_home
            .iter()
            .map(|dir| dir.join("containers"));
        let places: Vec<PathBuf> = own
            .chain(["/etc/containers", "/usr/share/containers"].map(PathBuf::from))
            .collect();
        if let Some(main) = places
            .iter()
            .map(|dir| dir.join("registries.conf"))
            .find(|path| path.exists())
        {
            conf.read(&main)?;
        }
        for path in drop_ins(&places, environment.uid)?.values() {
            conf.read(path)?;
        }
        Ok(conf)
    }

    fn read(&mut self, path: &Path) -> Result<(), RegistryError> {
        let error = |why: String| RegistryError::Config {
            what: format!("read {}", path.display()),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        self.merge(&text).map_err(error)
    }

    /// Adds one file's text; a later table hides an earlier one of the same
    /// prefix.
    fn merge(&mut self, text: &str) -> Result<(), String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if file.registries.is_some() {
            return Err("it is in the old format, version 1 ([registries.…])".into());
        }
        if let Some(unqualified) = file.unqualified_search_registries {
            self.unqualified = unqualified;
        }
        for mut entry in file.registry {
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            if entry.prefix.is_empty() {
                return Err("a [[registry]] has neither prefix nor location".into());
            }
            if entry.location.is_empty() && !entry.prefix.starts_with("*.") {
                entry.location.clone_from(&entry.prefix);
            }
            self.entries.insert(entry.prefix.clone(), entry);
        }
        Ok(())
    }

    /// Registries to try for a name without one.
    #[must_use]
    pub fn unqualified_search(&self) -> &[String] {
        &self.unqualified
    }

    /// The places to read `reference` from, in order.
    ///
    /// # Errors
    /// [`RegistryError::Blocked`]; or a location that makes no reference.
    pub fn places(&self, reference: &Reference) -> Result<Vec<Place>, RegistryError> {
        let own = |insecure| Place {
            host: reference.host.clone(),
            repository: reference.repository.clone(),
            insecure,
            is_mirror: false,
        };
        let Some((entry, end)) = self.find(reference) else {
            return Ok(vec![own(false)]);
        };
        if entry.blocked {
            return Err(RegistryError::Blocked {
                name: reference.to_string(),
            });
        }
        let name = reference.name();
        let by_digest = reference.digest.is_some();
        let rewritten = |location: &str, insecure, is_mirror| {
            let rest = name.get(end.min(name.len())..).unwrap_or_default();
            place(&format!("{location}{rest}"), insecure, is_mirror)
        };
        let mirrors = entry
            .mirror
            .iter()
            .filter(|mirror| match mirror.pull_from_mirror {
                PullFromMirror::All => by_digest || !entry.mirror_by_digest_only,
                PullFromMirror::DigestOnly => by_digest,
                PullFromMirror::TagOnly => !by_digest,
            });
        let mut places = mirrors
            .map(|mirror| rewritten(&mirror.location, mirror.insecure, true))
            .collect::<Result<Vec<_>, _>>()?;
        places.push(if entry.location.is_empty() {
            own(entry.insecure)
        } else {
            rewritten(&entry.location, entry.insecure, false)?
        });
        Ok(places)
    }

    /// Whether a push to `reference` may use plain HTTP.
    #[must_use]
    pub fn is_insecure(&self, reference: &Reference) -> bool {
        self.find(reference)
            .is_some_and(|(entry, _)| entry.insecure)
    }

    /// The entry with the longest matching prefix, and where the match ends.
    fn find(&self, reference: &Reference) -> Option<(&Entry, usize)> {
        let full = reference.to_string();
        self.entries
            .values()
            .filter_map(|entry| Some((entry, match_end(&entry.prefix, &full)?)))
            .max_by_key(|(entry, _)| entry.prefix.len())
    }
}

/// The drop-in files by base name: a higher place hides a lower one.
fn drop_ins(
    places: &[PathBuf],
    uid: u32,
) -> Result<BTreeMap<std::ffi::OsString, PathBuf>, RegistryError> {
    let flavour = if uid == 0 {
        "registries.rootful.conf.d"
    } else {
        "registries.rootless.conf.d"
    };
    let mut found = BTreeMap::new();
    for dir in places
        .iter()
        .rev()
        .flat_map(|place| [place.join("registries.conf.d"), place.join(flavour)])
    {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
                ) =>
            {
                continue;
            }
            Err(error) => {
                return Err(RegistryError::Config {
                    what: format!("read {}", dir.display()),
                    why: error.to_string(),
                });
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "conf")
            {
                found.insert(entry.file_name(), path);
            }
        }
    }
    Ok(found)
}

/// Where the match of `prefix` in a full reference ends.
fn match_end(prefix: &str, full: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(domain) => {
            let host_end = full.find('/').unwrap_or(full.len());
            let at = full.get(..host_end)?.find(domain).filter(|at| *at > 0)?;
            at + domain.len()
        }
        None => full.starts_with(prefix).then_some(prefix.len())?,
    };
    let boundary = full
        .as_bytes()
        .get(end)
        .is_none_or(|byte| matches!(byte, b':' | b'/' | b'@'));
    // `host:5000` must not match under the prefix `host`: another registry.
    let port = full.as_bytes().get(end) == Some(&b':')
        && !full.get(..end)?.contains('/')
        && !prefix.starts_with('*');
    (boundary && !port).then_some(end)
}

fn place(name: &str, insecure: bool, is_mirror: bool) -> Result<Place, RegistryError> {
    let error = |why: String| RegistryError::Config {
        what: format!("use location {name:?} of registries.conf"),
        why,
    };
    let (host, repository) = name
        .split_once('/')
        .ok_or_else(|| error("it has no repository".into()))?;
    Ok(Place {
        host: host
            .parse()
            .map_err(|source: gantry_oci::reference::ParseReferenceError| {
                error(source.to_string())
            })?,
        repository: repository.parse().map_err(
            |source: gantry_oci::reference::ParseReferenceError| error(source.to_string()),
        )?,
        insecure,
        is_mirror,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> RegistriesConf {
        let mut conf = RegistriesConf::default();
        conf.merge(text).unwrap();
        conf
    }

    fn places(conf: &RegistriesConf, reference: &str) -> Vec<String> {
        conf.places(&Reference::parse_normalized(reference).unwrap())
            .unwrap()
            .iter()
            .map(|place| {
                let marks = format!(
                    "{}{}",
                    if place.is_mirror { " mirror" } else { "" },
                    if place.insecure { " insecure" } else { "" }
                );
                format!("{}/{}{marks}", place.host, place.repository)
            })
            .collect()
    }

    #[test]
    fn without_an_entry_the_reference_is_the_place() {
        assert_eq!(places(&conf(""), "r.example/a/b:v1"), ["r.example/a/b"]);
    }

    #[test]
    fn longest_prefix_wins_and_mirrors_come_first() {
        let conf = conf(
            r#"
            [[registry]]
            location = "r.example"
            insecure = true
            [[registry]]
            prefix = "r.example/team"
            location = "other.example/moved"
            [[registry.mirror]]
            location = "m1.example/t"
            insecure = true
            [[registry.mirror]]
            location = "m2.example"
            pull-from-mirror = "digest-only"
            "#,
        );
        assert_eq!(places(&conf, "r.example/a"), ["r.example/a insecure"]);
        assert_eq!(
            places(&conf, "r.example/team/app"),
            [
                "m1.example/t/app mirror insecure",
                "other.example/moved/app"
            ]
        );
        assert_eq!(
            places(&conf, "r.example/teams/app"),
            ["r.example/teams/app insecure"]
        );
        let digest = format!("r.example/team/app@sha256:{}", "0".repeat(64));
        assert_eq!(places(&conf, &digest).len(), 3);
        assert_eq!(places(&conf, "r.example:5000/a"), ["r.example:5000/a"]);
    }

    #[test]
    fn wildcard_matches_subdomains_of_any_depth() {
        let conf = conf("[[registry]]\nprefix = \"*.example.com\"\nblocked = true");
        for blocked in [
            "a.example.com/x",
            "a.b.example.com/x",
            "a.example.com:5000/x",
        ] {
            let error = conf
                .places(&Reference::parse_normalized(blocked).unwrap())
                .unwrap_err();
            assert!(matches!(error, RegistryError::Blocked { .. }));
        }
        for free in [
            "example.com/x",
            "a.example.community/x",
            "r.test/a.example.com",
        ] {
            assert_eq!(places(&conf, free).len(), 1, "{free}");
        }
    }

    #[test]
    fn later_files_hide_equal_prefixes() {
        let mut conf = conf(
            "unqualified-search-registries = [\"a\"]\n[[registry]]\nlocation = \"r.example\"\nblocked = true",
        );
        conf.merge("[[registry]]\nlocation = \"r.example\"")
            .unwrap();
        assert_eq!(places(&conf, "r.example/x"), ["r.example/x"]);
        assert_eq!(conf.unqualified_search(), ["a"]);
    }

    #[test]
    fn old_format_is_refused_by_name() {
        let error = RegistriesConf::default()
            .merge("[registries.search]\nregistries = ['a']")
            .unwrap_err();
        assert!(error.contains("version 1"));
    }
}
