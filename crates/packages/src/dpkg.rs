// SPDX-License-Identifier: Apache-2.0
//! dpkg's status file, and the one file a package that distroless images have instead.
//!
//! # Source
//! dpkg(1), deb822(5), dpkg-query(1) on the words of the field Status.

use crate::text::{field, paragraphs};
use crate::{Files, Manager, Package, ReadPackagesError, list, open, push};

const STATUS: &str = "var/lib/dpkg/status";
const STATUS_D: &str = "var/lib/dpkg/status.d";
/// Files beside those of the packages, with the checksums of their files.
const SUMS: &str = ".md5sums";

pub(crate) fn read(files: &dyn Files) -> Result<Vec<Package>, ReadPackagesError> {
    let mut packages = Vec::new();
    if let Some(status) = open(files, STATUS)? {
        parse(&status, STATUS, &mut packages)?;
    }
    for name in list(files, STATUS_D)? {
        if name.ends_with(SUMS) {
            continue;
        }
        let path = format!("{STATUS_D}/{name}");
        if let Some(status) = open(files, &path)? {
            parse(&status, &path, &mut packages)?;
        }
    }
    Ok(packages)
}

fn parse(bytes: &[u8], path: &str, packages: &mut Vec<Package>) -> Result<(), ReadPackagesError> {
    for paragraph in paragraphs(bytes) {
        let Some(name) = field(&paragraph, "Package") else {
            continue;
        };
        // Removed packages whose configuration was kept stand here, too. Distroless packages have no status.
        let status = field(&paragraph, "Status");
        let installed = status.is_none_or(|status| {
            let state = status.split_ascii_whitespace().next_back();
            !matches!(state, Some("not-installed" | "config-files"))
        });
        let Some(version) = field(&paragraph, "Version").filter(|_| installed) else {
            continue;
        };
        let source = field(&paragraph, "Source").map(|source| {
            // The version of the source may stand behind, in parentheses.
            source.split(' ').next().unwrap_or_default().to_owned()
        });
        let package = Package {
            manager: Manager::Dpkg,
            architecture: field(&paragraph, "Architecture").unwrap_or_default(),
            source: source.filter(|source| *source != name),
            name,
            version,
        };
        push(packages, package, path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    const STATUS_FILE: &[u8] = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\n\
        Version: 2.36-9\nDescription: library\n more text\n Version: not this\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
        Package: half\nStatus: install reinstreq half-installed\nVersion: 2:1-1\nSource: other (3)\n";

    #[test]
    fn what_is_installed_is_listed() {
        let packages = read(&Memory::of(STATUS, STATUS_FILE)).unwrap();
        let found: Vec<_> = packages
            .iter()
            .map(|p| (p.name.as_str(), p.version.as_str(), p.source.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("libc6", "2.36-9", Some("glibc")),
                ("half", "2:1-1", Some("other"))
            ]
        );
    }

    #[test]
    fn distroless_packages_are_listed() {
        let mut files = Memory::of(
            "var/lib/dpkg/status.d/base",
            b"Package: base-files\nVersion: 12\n",
        );
        files.0.insert(
            "var/lib/dpkg/status.d/base.md5sums".into(),
            b"Package: x\nVersion: 1\n".to_vec(),
        );
        let packages = read(&files).unwrap();
        assert_eq!(
            (packages.len(), packages[0].name.as_str()),
            (1, "base-files")
        );
    }
}
