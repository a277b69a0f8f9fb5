// SPDX-License-Identifier: Apache-2.0
//! rpm's database: a table of headers.
//!
//! # Source
//! rpm's documentation of the header format (index entries of tag, type, offset, count, then a store), and the schema of
//! its sqlite backend: `Packages(hnum, blob)`.

use crate::sqlite::{Database, Value};
use crate::{Files, Manager, Package, ReadPackagesError, open, push};

const PLACES: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];
const SQLITE: &str = "rpmdb.sqlite";
const OLDER: [(&str, &str); 2] = [
    ("Packages", "a Berkeley database of rpm"),
    ("Packages.db", "an ndb database of rpm"),
];

const TAG_NAME: u32 = 1000;
const TAG_VERSION: u32 = 1001;
const TAG_RELEASE: u32 = 1002;
const TAG_EPOCH: u32 = 1003;
const TAG_ARCH: u32 = 1022;
const TAG_SOURCERPM: u32 = 1044;
const TYPE_INT32: u32 = 4;
const TYPE_STRING: u32 = 6;
/// Keys that were imported stand among the packages.
const KEYS: &str = "gpg-pubkey";

pub(crate) fn read(files: &dyn Files) -> Result<Vec<Package>, ReadPackagesError> {
    let mut packages = Vec::new();
    for place in PLACES {
        let path = format!("{place}/{SQLITE}");
        if let Some(bytes) = open(files, &path)? {
            let log = open(files, &format!("{path}-wal"))?;
            if log.is_some_and(|log| !log.is_empty()) {
                return Err(ReadPackagesError::Unsupported {
                    path,
                    what: "a database with a write-ahead log beside it",
                });
            }
            parse(&bytes, &path, &mut packages)?;
            continue;
        }
        for (name, what) in OLDER {
            let path = format!("{place}/{name}");
            if open(files, &path)?.is_some() {
                return Err(ReadPackagesError::Unsupported { path, what });
            }
        }
    }
    Ok(packages)
}

fn parse(bytes: &[u8], path: &str, packages: &mut Vec<Package>) -> Result<(), ReadPackagesError> {
    let malformed = |why: &str| ReadPackagesError::Malformed {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let mut too_many = Ok(());
    Database::open(bytes)
        .and_then(|database| {
            database.rows("Packages", &mut |row| {
                let Some(Value::Blob(header)) = row.last() else {
                    return Err("a package has no header");
                };
                let package = package(header).ok_or("a package's header is malformed")?;
                if package.name != KEYS && too_many.is_ok() {
                    too_many = push(packages, package, path);
                }
                Ok(())
            })
        })
        .map_err(malformed)?;
    too_many
}

fn package(header: &[u8]) -> Option<Package> {
    let header = Header::parse(header)?;
    let version = format!(
        "{}-{}",
        header.text(TAG_VERSION)?,
        header.text(TAG_RELEASE)?
    );
    let source = header.text(TAG_SOURCERPM).and_then(|file| {
        // NAME-VERSION-RELEASE.src.rpm
        let (rest, _release) = file.rsplit_once('-')?;
        rest.rsplit_once('-')
            .map(|(name, _version)| name.to_owned())
    });
    let name = header.text(TAG_NAME)?;
    Some(Package {
        manager: Manager::Rpm,
        architecture: header.text(TAG_ARCH).unwrap_or_default(),
        version: match header.number(TAG_EPOCH) {
            Some(epoch) => format!("{epoch}:{version}"),
            None => version,
        },
        source: source.filter(|source| *source != name),
        name,
    })
}

/// An index of fixed entries, and the store that they point into.
struct Header<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let entries = usize::try_from(number(bytes, 0)?).ok()?;
        let store_bytes = usize::try_from(number(bytes, 4)?).ok()?;
        let store_at = entries.checked_mul(16)?.checked_add(8)?;
        Some(Self {
            index: bytes.get(8..store_at)?,
            store: bytes.get(store_at..store_at.checked_add(store_bytes)?)?,
        })
    }

    fn find(&self, tag: u32, kind: u32) -> Option<&'a [u8]> {
        let entry = self
            .index
            .chunks_exact(16)
            .find(|entry| number(entry, 0) == Some(tag) && number(entry, 4) == Some(kind))?;
        self.store.get(usize::try_from(number(entry, 8)?).ok()?..)
    }

    fn text(&self, tag: u32) -> Option<String> {
        let bytes = self.find(tag, TYPE_STRING)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn number(&self, tag: u32) -> Option<u32> {
        number(self.find(tag, TYPE_INT32)?, 0)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let found = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([found[0], found[1], found[2], found[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;
    use gantry_oci::Kind;

    #[test]
    fn older_databases_are_named() {
        let error = read(&Memory::of("var/lib/rpm/Packages", b"x")).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("Berkeley"), "{error}");
    }

    #[test]
    fn a_log_beside_the_database_is_not_overlooked() {
        let mut files = Memory::of("var/lib/rpm/rpmdb.sqlite", b"x");
        files
            .0
            .insert("var/lib/rpm/rpmdb.sqlite-wal".into(), b"y".to_vec());
        assert_eq!(read(&files).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        assert!(Header::parse(&[0xff; 8]).is_none());
        assert!(Header::parse(&[0; 7]).is_none());
        let empty = Header::parse(&[0; 8]).unwrap();
        assert_eq!(empty.text(TAG_NAME), None);
    }
}
