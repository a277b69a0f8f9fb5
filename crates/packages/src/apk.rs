// SPDX-License-Identifier: Apache-2.0
//! apk's list of what is installed.
//!
//! # Source
//! apk-package(5) and the installed database of apk-tools 2: one letter, a colon, a value.

use crate::text::{field, paragraphs};
use crate::{Files, Manager, Package, ReadPackagesError, open, push};

const PLACES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

pub(crate) fn read(files: &dyn Files) -> Result<Vec<Package>, ReadPackagesError> {
    let mut packages = Vec::new();
    for path in PLACES {
        let Some(installed) = open(files, path)? else {
            continue;
        };
        for paragraph in paragraphs(&installed) {
            // Letters of either case mean different things here.
            let exact = |letter: &str| {
                let lines: Vec<&[u8]> = paragraph
                    .iter()
                    .copied()
                    .filter(|line| line.starts_with(letter.as_bytes()))
                    .collect();
                field(&lines, letter)
            };
            let (Some(name), Some(version)) = (exact("P"), exact("V")) else {
                continue;
            };
            let package = Package {
                manager: Manager::Apk,
                architecture: exact("A").unwrap_or_default(),
                source: exact("o").filter(|origin| *origin != name),
                name,
                version,
            };
            push(&mut packages, package, path)?;
        }
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    #[test]
    fn letters_are_read_in_their_case() {
        let installed = b"C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\np:so:libc.so=1\no:musl\n\nP:musl-utils\nV:1.2.4-r2\no:musl\n";
        let packages = read(&Memory::of(PLACES[0], installed)).unwrap();
        assert_eq!(packages.len(), 2);
        assert_eq!(
            (packages[0].name.as_str(), packages[0].architecture.as_str()),
            ("musl", "x86_64")
        );
        assert_eq!(packages[0].source, None);
        assert_eq!(packages[1].source.as_deref(), Some("musl"));
    }
}
