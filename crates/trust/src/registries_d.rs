// SPDX-License-Identifier: Apache-2.0
//! `registries.d`: where the signatures of a registry's images are kept.
//!
//! ```yaml
//! default-docker:
//!   lookaside: file:///var/lib/containers/sigstore
//! docker:
//!   registry.example/team:
//!     lookaside: https://signatures.example
//!     lookaside-staging: file:///srv/signatures
//!     use-sigstore-attachments: true
//! ```
//!
//! The most specific scope that says something of a member decides it. A
//! scope that stands in two files is an error, whatever they say. Members that
//! we do not know are passed over, as the family does.
//!
//! # Source
//! containers-registries.d(5).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use gantry_oci::{Kind, Reference};
use yaml_rust2::{Yaml, YamlLoader};

use crate::file::read_regular;
use crate::lookaside::{Base, ParseBaseError};
use crate::scope::Subject;

/// The largest file that is read, in bytes: it is an administrator's.
const FILE_BYTES: usize = 1 << 20;

/// What all files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesD {
    default: Option<Entry>,
    docker: BTreeMap<String, Entry>,
}

/// What is said of one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    lookaside: Option<Base>,
    staging: Option<Base>,
    use_sigstore_attachments: Option<bool>,
    file: PathBuf,
}

/// Why the configuration of signatures cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadRegistriesDError {
    /// A file or directory cannot be read.
    #[error("read {path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is no YAML of the right shape.
    #[error("read {path}: {why}")]
    Malformed {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An address in a file makes no sense.
    #[error("read {path}")]
    Base {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ParseBaseError,
    },
    /// Two files speak of one scope.
    #[error("{scope} stands in {first} and in {second}")]
    Twice {
        /// The scope, or `default-docker`.
        scope: String,
        /// The file that was read first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

impl ReadRegistriesDError {
    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Malformed { .. } | Self::Base { .. } | Self::Twice { .. } => Kind::InvalidInput,
        }
    }
}

/// The directories of a user, the one that hides the others' files first.
#[must_use]
pub fn directories(config_home: Option<&Path>, uid: u32) -> Vec<PathBuf> {
    let own = config_home.map(|home| home.join("containers"));
    let places = own
        .into_iter()
        .chain(["/etc/containers", "/usr/share/containers"].map(PathBuf::from));
    places
        .flat_map(|place| {
            let flavour = if uid == 0 {
                vec![place.join("registries.rootful.d")]
            } else {
                let rootless = place.join("registries.rootless.d");
                vec![rootless.join(uid.to_string()), rootless]
            };
            flavour.into_iter().chain([place.join("registries.d")])
        })
        .collect()
}

/// Where signatures are without any configuration.
#[must_use]
pub fn default_lookaside(home: Option<&Path>, uid: u32) -> Option<Base> {
    if uid == 0 {
        return Some(Base::Directory("/var/lib/containers/sigstore".into()));
    }
    home.map(|home| Base::Directory(home.join(".local/share/containers/sigstore")))
}

impl RegistriesD {
    /// Reads the `*.yaml` files of `directories`. Of files with one name, that
    /// of the first directory counts.
    ///
    /// # Errors
    /// [`ReadRegistriesDError`]; a directory that is absent is not an error.
    pub fn load(directories: &[PathBuf]) -> Result<Self, ReadRegistriesDError> {
        let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
        for directory in directories {
            let error = |source| ReadRegistriesDError::Io {
                path: directory.clone(),
                source,
            };
            let entries = match std::fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(error(source)),
            };
            for entry in entries {
                let entry = entry.map_err(error)?;
                let path = entry.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "yaml")
                {
                    files.entry(entry.file_name()).or_insert(path);
                }
            }
        }
        let mut all = Self::default();
        for path in files.into_values() {
            let read = |source| ReadRegistriesDError::Io {
                path: path.clone(),
                source,
            };
            let malformed = |why: String| ReadRegistriesDError::Malformed {
                path: path.clone(),
                why,
            };
            let (bytes, _) = read_regular(&path, FILE_BYTES).map_err(read)?;
            if bytes.len() > FILE_BYTES {
                return Err(malformed(format!("it has more than {FILE_BYTES} bytes")));
            }
            let text = String::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
            all.merge(&text, &path)?;
        }
        Ok(all)
    }

    /// What one file's text says; `path` is what its errors call it.
    ///
    /// # Errors
    /// [`ReadRegistriesDError`], but for reading.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ReadRegistriesDError> {
        let mut all = Self::default();
        all.merge(text, path)?;
        Ok(all)
    }

    /// Adds one file's text.
    fn merge(&mut self, text: &str, path: &Path) -> Result<(), ReadRegistriesDError> {
        let malformed = |why: String| ReadRegistriesDError::Malformed {
            path: path.to_owned(),
            why,
        };
        let twice = |scope: &str, first: &Entry| ReadRegistriesDError::Twice {
            scope: scope.to_owned(),
            first: first.file.clone(),
            second: path.to_owned(),
        };
        let documents =
            YamlLoader::load_from_str(text).map_err(|error| malformed(error.to_string()))?;
        let file = match &documents[..] {
            [] | [Yaml::Null] => return Ok(()),
            [file @ Yaml::Hash(_)] => file,
            _ => return Err(malformed("it is not one mapping".into())),
        };
        let default = &file["default-docker"];
        if is_there(default) {
            if let Some(first) = &self.default {
                return Err(twice("default-docker", first));
            }
            self.default = Some(Entry::read(default, "default-docker", path)?);
        }
        match &file["docker"] {
            Yaml::Hash(scopes) => {
                for (scope, value) in scopes {
                    let scope = scope
                        .as_str()
                        .ok_or_else(|| malformed("a scope is not a string".into()))?;
                    if let Some(first) = self.docker.get(scope) {
                        return Err(twice(scope, first));
                    }
                    let entry = Entry::read(value, scope, path)?;
                    self.docker.insert(scope.to_owned(), entry);
                }
                Ok(())
            }
            other if is_there(other) => Err(malformed("docker is not a mapping".into())),
            _ => Ok(()),
        }
    }

    /// What is said of a reference, the most specific first.
    fn entries(&self, reference: &Reference) -> Vec<&Entry> {
        let subject = Subject::docker(reference);
        let scopes = subject.candidates().filter(|scope| !scope.is_empty());
        scopes
            .filter_map(|scope| self.docker.get(scope))
            .chain(&self.default)
            .collect()
    }

    /// Where signatures of a reference are read.
    #[must_use]
    pub fn lookaside(&self, reference: &Reference) -> Option<&Base> {
        self.entries(reference)
            .into_iter()
            .find_map(|entry| entry.lookaside.as_ref())
    }

    /// Where signatures of a reference are written.
    #[must_use]
    pub fn staging(&self, reference: &Reference) -> Option<&Base> {
        self.entries(reference)
            .into_iter()
            .find_map(|entry| entry.staging.as_ref().or(entry.lookaside.as_ref()))
    }

    /// Whether signatures that sigstore's tools attach in the registry are
    /// read and written.
    #[must_use]
    pub fn uses_sigstore_attachments(&self, reference: &Reference) -> bool {
        self.entries(reference)
            .into_iter()
            .find_map(|entry| entry.use_sigstore_attachments)
            .unwrap_or(false)
    }
}

fn is_there(value: &Yaml) -> bool {
    !matches!(value, Yaml::BadValue | Yaml::Null)
}

impl Entry {
    fn read(value: &Yaml, scope: &str, path: &Path) -> Result<Self, ReadRegistriesDError> {
        let malformed = |why: &str| ReadRegistriesDError::Malformed {
            path: path.to_owned(),
            why: format!("{scope}: {why}"),
        };
        if is_there(value) && value.as_hash().is_none() {
            return Err(malformed("it is not a mapping"));
        }
        let base = |names: [&str; 2]| {
            for name in names {
                match &value[name] {
                    Yaml::String(text) if text.is_empty() => {}
                    Yaml::String(text) => {
                        let base = Base::parse(text);
                        return base.map(Some).map_err(|source| ReadRegistriesDError::Base {
                            path: path.to_owned(),
                            source,
                        });
                    }
                    other if is_there(other) => {
                        return Err(malformed("an address is not a string"));
                    }
                    _ => {}
                }
            }
            Ok(None)
        };
        Ok(Self {
            lookaside: base(["lookaside", "sigstore"])?,
            staging: base(["lookaside-staging", "sigstore-staging"])?,
            use_sigstore_attachments: match &value["use-sigstore-attachments"] {
                Yaml::Boolean(wanted) => Some(*wanted),
                other if is_there(other) => {
                    return Err(malformed("use-sigstore-attachments is not a truth value"));
                }
                _ => None,
            },
            file: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        Reference::parse_normalized(text).unwrap()
    }

    fn parse(text: &str) -> Result<RegistriesD, ReadRegistriesDError> {
        RegistriesD::parse(text, Path::new("a.yaml"))
    }

    #[test]
    fn the_most_specific_scope_that_says_something_decides() {
        let all = parse(
            "default-docker:\n  sigstore: file:///default\n  sigstore-staging: file:///staging\n\
             docker:\n\
             \x20 r.example:5000:\n    lookaside: https://host\n\
             \x20 r.example:5000/team:\n    lookaside: https://team\n    lookaside-staging: file:///team\n    use-sigstore-attachments: true\n\
             \x20 r.example:5000/team/app:v1:\n    lookaside: https://tag\n    later: [1]\n\
             \x20 '*.wild.example':\n    lookaside: https://wild\n\
             \x20 empty.example:\n",
        )
        .unwrap();
        let directory = |path: &str| Base::Directory(path.into());
        for (text, read, write, attached) in [
            (
                "r.example:5000/team/app:v1",
                Base::Web("https://tag".into()),
                Base::Web("https://tag".into()),
                true,
            ),
            (
                "r.example:5000/team/app:v2",
                Base::Web("https://team".into()),
                directory("/team"),
                true,
            ),
            (
                "r.example:5000/other",
                Base::Web("https://host".into()),
                Base::Web("https://host".into()),
                false,
            ),
            (
                "r.example/other",
                directory("/default"),
                directory("/staging"),
                false,
            ),
            (
                "a.wild.example:1/x",
                Base::Web("https://wild".into()),
                Base::Web("https://wild".into()),
                false,
            ),
            (
                "empty.example/x",
                directory("/default"),
                directory("/staging"),
                false,
            ),
        ] {
            let reference = reference(text);
            assert_eq!(all.lookaside(&reference), Some(&read), "{text}");
            assert_eq!(all.staging(&reference), Some(&write), "{text}");
            assert_eq!(
                all.uses_sigstore_attachments(&reference),
                attached,
                "{text}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for text in [
            "docker: 1",
            "[1]",
            "a: 1\n---\nb: 1",
            "docker:\n  a: 1",
            "docker:\n  a:\n    lookaside: [x]",
            "docker:\n  a:\n    lookaside: /x",
            "docker:\n  a:\n    use-sigstore-attachments: maybe",
            "docker:\n  a: {}\n  a: {}",
            "docker: {}\ndocker: {}",
            "docker:\n  1: {}",
            "{",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["", "# nothing", "docker:", "other: 1", "default-docker:"] {
            assert_eq!(parse(text).unwrap(), RegistriesD::default(), "{text}");
        }
    }

    #[test]
    fn a_file_hides_one_of_its_name_and_a_scope_stands_once() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, scope: &str, base: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(
                path,
                format!("docker:\n  {scope}:\n    lookaside: https://{base}\n"),
            )
            .unwrap();
        };
        let directories = ["own", "etc", "absent"].map(|name| dir.path().join(name));
        write("own/a.yaml", "a.example", "own");
        write("etc/a.yaml", "a.example", "etc");
        write("etc/b.yaml", "b.example", "b");
        write("etc/c.yml", "b.example", "c");
        let all = RegistriesD::load(&directories).unwrap();
        let web = |base: &str| Base::Web(format!("https://{base}"));
        assert_eq!(all.lookaside(&reference("a.example/x")), Some(&web("own")));
        assert_eq!(all.lookaside(&reference("b.example/x")), Some(&web("b")));
        write("own/z.yaml", "b.example", "b");
        let error = RegistriesD::load(&directories).unwrap_err();
        assert!(
            matches!(error, ReadRegistriesDError::Twice { .. }),
            "{error}"
        );
    }

    #[test]
    fn directories_are_those_of_the_family() {
        let names = |home: Option<&str>, uid| -> Vec<String> {
            directories(home.map(Path::new), uid)
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        assert_eq!(
            names(None, 0),
            [
                "/etc/containers/registries.rootful.d",
                "/etc/containers/registries.d",
                "/usr/share/containers/registries.rootful.d",
                "/usr/share/containers/registries.d",
            ]
        );
        assert_eq!(
            names(Some("/c"), 7)[..3],
            [
                "/c/containers/registries.rootless.d/7",
                "/c/containers/registries.rootless.d",
                "/c/containers/registries.d",
            ]
        );
    }
}
