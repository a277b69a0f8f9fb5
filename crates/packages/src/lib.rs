// SPDX-License-Identifier: Apache-2.0
//! Which packages are installed in a tree, read from the package managers' own databases.
//!
//! ```text
//! Files (a tree, somehow) ─┬─ dpkg: var/lib/dpkg/status, var/lib/dpkg/status.d/*   (Debian, Ubuntu, distroless)
//!                          ├─ apk:  lib/apk/db/installed                             (Alpine, Wolfi)
//!                          └─ rpm:  rpmdb.sqlite                                     (Fedora, RHEL 9 and newer)
//! ```
//!
//! Nothing of the tree is executed, and no library of the package managers is used: the databases are an image's own
//! bytes and as hostile as the rest of it. Older databases of rpm (Berkeley DB, ndb) are named in an error rather than
//! overlooked.

#![forbid(unsafe_code)]

mod apk;
mod dpkg;
mod rpm;
mod sqlite;
mod text;

use std::fmt;
use std::io;

use gantry_oci::Kind;
use serde::Serialize;

/// The largest database that is read, in bytes.
pub const DATABASE_MAX_BYTES: u64 = 256 << 20;
/// The most packages that one tree may have.
pub const PACKAGES_MAX: usize = 200_000;

/// Who installed a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Alpine's.
    Apk,
    /// Debian's.
    Dpkg,
    /// Red Hat's and SUSE's.
    Rpm,
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apk => "apk",
            Self::Dpkg => "dpkg",
            Self::Rpm => "rpm",
        })
    }
}

/// One installed package, in the words of its manager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// Who installed it.
    pub manager: Manager,
    /// Its name.
    pub name: String,
    /// Its architecture; empty if the database does not say.
    pub architecture: String,
    /// Its whole version: epoch, version, release.
    pub version: String,
    /// The name of what it was built from, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A tree's files, by path without a leading slash. Implementations confine: no path leads out of the tree.
pub trait Files {
    /// Names in a directory; none if there is no such directory.
    ///
    /// # Errors
    /// It could not be read.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// A regular file's contents; `None` if there is no such file.
    ///
    /// # Errors
    /// It could not be read, or is larger than `max_bytes`.
    fn read(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>>;
}

/// Why the packages of a tree are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadPackagesError {
    /// A database could not be read.
    #[error("read package database {path}")]
    Read {
        /// In the tree.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A database that breaks its own format.
    #[error("read package database {path}: {why}")]
    Malformed {
        /// In the tree.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A database of a kind that this version does not read.
    #[error("read package database {path}: {what} is not supported")]
    Unsupported {
        /// In the tree.
        path: String,
        /// The kind.
        what: &'static str,
    },
    /// More packages than any image has.
    #[error("read package database {path}: more than {PACKAGES_MAX} packages")]
    TooMany {
        /// In the tree.
        path: String,
    },
}

impl ReadPackagesError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => Kind::of_io(source),
            Self::Malformed { .. } => Kind::Corrupt,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::TooMany { .. } => Kind::Unsafe,
        }
    }
}

/// Reads every database that the tree has; sorted by manager, name, architecture and version.
///
/// # Errors
/// [`ReadPackagesError`]; a tree without a database has no packages, which is none.
pub fn read(files: &dyn Files) -> Result<Vec<Package>, ReadPackagesError> {
    let mut packages = dpkg::read(files)?;
    packages.extend(apk::read(files)?);
    packages.extend(rpm::read(files)?);
    packages.sort();
    packages.dedup();
    Ok(packages)
}

fn open(files: &dyn Files, path: &str) -> Result<Option<Vec<u8>>, ReadPackagesError> {
    files
        .read(path, DATABASE_MAX_BYTES)
        .map_err(|source| ReadPackagesError::Read {
            path: path.to_owned(),
            source,
        })
}

fn list(files: &dyn Files, dir: &str) -> Result<Vec<String>, ReadPackagesError> {
    files.list(dir).map_err(|source| ReadPackagesError::Read {
        path: dir.to_owned(),
        source,
    })
}

/// Adds one package, within the cap.
fn push(
    packages: &mut Vec<Package>,
    package: Package,
    path: &str,
) -> Result<(), ReadPackagesError> {
    if packages.len() == PACKAGES_MAX {
        return Err(ReadPackagesError::TooMany {
            path: path.to_owned(),
        });
    }
    packages.push(package);
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Files;
    use std::collections::BTreeMap;
    use std::io;

    /// A tree in memory.
    #[derive(Default)]
    pub(crate) struct Memory(pub(crate) BTreeMap<String, Vec<u8>>);

    impl Memory {
        pub(crate) fn of(path: &str, contents: &[u8]) -> Self {
            Self([(path.to_owned(), contents.to_vec())].into())
        }
    }

    impl Files for Memory {
        fn list(&self, dir: &str) -> io::Result<Vec<String>> {
            let prefix = format!("{dir}/");
            let names = self.0.keys().filter_map(|path| path.strip_prefix(&prefix));
            Ok(names.map(str::to_owned).collect())
        }

        fn read(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
            match self.0.get(path) {
                Some(bytes) if bytes.len() as u64 > max_bytes => {
                    Err(io::ErrorKind::FileTooLarge.into())
                }
                other => Ok(other.cloned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Memory;
    use super::*;

    #[test]
    fn a_tree_without_a_database_has_no_packages() {
        assert_eq!(read(&Memory::default()).unwrap(), []);
    }

    #[test]
    fn a_database_that_is_too_large_is_an_error() {
        struct Large;
        impl Files for Large {
            fn list(&self, _: &str) -> io::Result<Vec<String>> {
                Ok(Vec::new())
            }
            fn read(&self, _: &str, _: u64) -> io::Result<Option<Vec<u8>>> {
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
        assert_eq!(read(&Large).unwrap_err().kind(), Kind::NoSpace);
    }
}
