// SPDX-License-Identifier: Apache-2.0
//! `gantry diff`.

mod files;
mod side;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use gantry_layer::diff::{self, Aspect, Change, Difference};
use gantry_layer::tree::{NodeKind, Tree};
use gantry_packages::{Manager, Package};
use serde::Serialize;

use self::side::{Kind, Side};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output;

/// What a container gets mounted whatever its image: where the image had no such place, an empty one was made.
const MOUNT_POINTS: [&str; 8] = [
    "dev",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "proc",
    "run",
    "sys",
    "tmp",
];

/// Show what differs between two images or containers, or what a container changed in its image.
///
/// Files are compared by path, kind, contents, owner, mode and attributes; packages as dpkg, apk and rpm list them; metadata
/// is the image's configuration. Of one container alone, the files that it changed are listed as docker lists them: A for
/// added, C for changed, D for deleted. Nothing is run, and images need no mount.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "one for each option")]
pub struct Diff {
    /// Compare files
    #[arg(long)]
    files: bool,
    /// Compare installed packages
    #[arg(long)]
    packages: bool,
    /// Compare the configurations
    #[arg(long)]
    metadata: bool,
    /// List files, too, of which only the modification time differs
    #[arg(long)]
    times: bool,
    /// Exit with status 1 if anything differs
    #[arg(long)]
    exit_code: bool,
    /// Look for images in this tree of another host first
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// An image or a container
    from: String,
    /// What to compare it with [default: the image that the container was made of]
    to: Option<String>,
}

/// What was asked for of all that differs.
#[derive(Serialize)]
struct Report {
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packages: Option<Vec<PackageRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Vec<MetadataRow>>,
}

#[derive(Serialize)]
struct FileRow {
    path: String,
    change: Change,
    kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differs: Vec<Aspect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_bytes: Option<u64>,
}

#[derive(Serialize)]
struct PackageRow {
    manager: Manager,
    name: String,
    architecture: String,
    /// Versions; several of one name may be installed.
    from: Vec<String>,
    to: Vec<String>,
}

#[derive(Serialize)]
struct MetadataRow {
    member: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<serde_json::Value>,
}

impl Diff {
    /// Compares.
    pub fn run(self, context: &Context) -> Outcome {
        let first = Side::find(context, &self.share, &self.from)?;
        let (from, to, alone) = match &self.to {
            Some(to) => (first, Side::find(context, &self.share, to)?, false),
            None => (first.image_below()?, first, true),
        };
        let to_kind = to.kind();
        // A container's configuration is its image's; its packages are asked for by name.
        let all = !self.files && !self.packages && !self.metadata;
        let (want_files, want_others) = (self.files || all, all && !alone);
        let trees = match want_files {
            true => Some((from.tree()?, to.tree()?)),
            false => None,
        };
        let files = trees
            .as_ref()
            .map(|(from, to)| self.compare_files(from, to, to_kind));
        let packages = match self.packages || want_others {
            true => Some(compare_packages(from.packages()?, to.packages()?)),
            false => None,
        };
        let metadata = match self.metadata || want_others {
            true => Some(compare_metadata(from.metadata()?, to.metadata()?)),
            false => None,
        };
        let report = Report {
            from: from.describe(),
            to: to.describe(),
            files,
            packages,
            metadata,
        };
        let differs = report.differs();
        if self.json {
            output::json(&report)?;
        } else {
            report.print(alone)?;
        }
        Ok(match differs && self.exit_code {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }

    fn compare_files(&self, from: &Tree, to: &Tree, to_kind: Kind) -> Vec<FileRow> {
        let shown = |difference: &Difference| match difference.change {
            Change::Changed => self.times || difference.aspects != [Aspect::Time],
            Change::Added => to_kind == Kind::Image || !is_mount_point(to, difference),
            Change::Removed => true,
        };
        diff::diff(from, to)
            .into_iter()
            .filter(shown)
            .map(|difference| file_row(from, to, difference))
            .collect()
    }
}

/// Whether something was made for a mount alone, and nothing was put into it.
fn is_mount_point(tree: &Tree, added: &Difference) -> bool {
    let known = MOUNT_POINTS
        .iter()
        .any(|path| path.as_bytes() == &*added.path);
    let empty = added.to.is_some_and(|id| match &tree.node(id).kind {
        NodeKind::Directory { children } => children.is_empty(),
        NodeKind::File(content) => content.size_bytes() == 0,
        _ => false,
    });
    known && empty
}

fn file_row(from: &Tree, to: &Tree, difference: Difference) -> FileRow {
    let old = difference.from.map(|id| &from.node(id).kind);
    let new = difference.to.map(|id| &to.node(id).kind);
    let bytes = |kind: Option<&NodeKind>| match kind {
        Some(NodeKind::File(content)) => Some(content.size_bytes()),
        _ => None,
    };
    FileRow {
        path: format!("/{}", String::from_utf8_lossy(&difference.path)),
        change: difference.change,
        kind: new.or(old).map_or("", NodeKind::name),
        differs: difference.aspects,
        from_bytes: bytes(old),
        to_bytes: bytes(new),
    }
}

fn compare_packages(from: Vec<Package>, to: Vec<Package>) -> Vec<PackageRow> {
    type Key = (Manager, String, String);
    let mut versions: BTreeMap<Key, [Vec<String>; 2]> = BTreeMap::new();
    for (side, packages) in [from, to].into_iter().enumerate() {
        for package in packages {
            let key = (package.manager, package.name, package.architecture);
            versions.entry(key).or_default()[side].push(package.version);
        }
    }
    versions
        .into_iter()
        .filter(|(_, [from, to])| from != to)
        .map(|((manager, name, architecture), [from, to])| PackageRow {
            manager,
            name,
            architecture,
            from,
            to,
        })
        .collect()
}

fn compare_metadata(
    from: BTreeMap<String, serde_json::Value>,
    mut to: BTreeMap<String, serde_json::Value>,
) -> Vec<MetadataRow> {
    let mut rows: Vec<MetadataRow> = from
        .into_iter()
        .map(|(member, from)| MetadataRow {
            to: to.remove(&member),
            from: Some(from),
            member,
        })
        .filter(|row| row.from != row.to)
        .collect();
    rows.extend(to.into_iter().map(|(member, to)| MetadataRow {
        member,
        from: None,
        to: Some(to),
    }));
    rows.sort_by(|a, b| a.member.cmp(&b.member));
    rows
}

impl Report {
    fn differs(&self) -> bool {
        let any = |len: Option<usize>| len.is_some_and(|len| len > 0);
        any(self.files.as_ref().map(Vec::len))
            || any(self.packages.as_ref().map(Vec::len))
            || any(self.metadata.as_ref().map(Vec::len))
    }

    /// As docker prints a container's changes if `plain`, else a table for each thing compared.
    fn print(&self, plain: bool) -> Result<(), Failure> {
        if plain && self.packages.is_none() && self.metadata.is_none() {
            let mut rows = self.files.iter().flatten();
            return rows.try_for_each(|row| {
                let path = output::escape_controls(&row.path);
                output::line(format_args!("{} {path}", letter(row.change)))
            });
        }
        let mut first = true;
        let mut table = |title: &str, header: &[&str], rows: Vec<Vec<String>>| {
            if rows.is_empty() {
                return Ok(());
            }
            if !std::mem::take(&mut first) {
                output::line("")?;
            }
            output::line(title)?;
            output::table(header, &rows)
        };
        let absent = || "-".to_owned();
        if let Some(metadata) = &self.metadata {
            let text = |value: &Option<serde_json::Value>| {
                value.as_ref().map_or_else(absent, ToString::to_string)
            };
            let rows = metadata
                .iter()
                .map(|row| vec![row.member.clone(), text(&row.from), text(&row.to)]);
            table("Metadata", &["MEMBER", "FROM", "TO"], rows.collect())?;
        }
        if let Some(packages) = &self.packages {
            let text = |versions: &[String]| match versions {
                [] => absent(),
                versions => versions.join(", "),
            };
            let rows = packages.iter().map(|row| {
                let (from, to) = (text(&row.from), text(&row.to));
                vec![row.name.clone(), row.architecture.clone(), from, to]
            });
            let header = ["PACKAGE", "ARCHITECTURE", "FROM", "TO"];
            table("Packages", &header, rows.collect())?;
        }
        if let Some(files) = &self.files {
            let size = |bytes: Option<u64>| bytes.map_or_else(absent, output::human_bytes);
            let rows = files.iter().map(|row| {
                let differs: Vec<&str> = row.differs.iter().map(|aspect| word(*aspect)).collect();
                vec![
                    letter(row.change).to_owned(),
                    row.path.clone(),
                    row.kind.to_owned(),
                    size(row.from_bytes),
                    size(row.to_bytes),
                    differs.join(","),
                ]
            });
            let header = ["", "PATH", "KIND", "FROM", "TO", "DIFFERS IN"];
            table("Files", &header, rows.collect())?;
        }
        Ok(())
    }
}

/// As docker and podman write it.
fn letter(change: Change) -> &'static str {
    match change {
        Change::Added => "A",
        Change::Changed => "C",
        Change::Removed => "D",
    }
}

fn word(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Kind => "kind",
        Aspect::Content => "content",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Xattrs => "xattrs",
        Aspect::Time => "time",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            manager: Manager::Dpkg,
            name: name.to_owned(),
            architecture: "amd64".to_owned(),
            version: version.to_owned(),
            source: None,
        }
    }

    #[test]
    fn packages_are_compared_by_name_and_architecture() {
        let from = vec![
            package("a", "1"),
            package("b", "1"),
            package("kernel", "1"),
            package("kernel", "2"),
        ];
        let to = vec![package("a", "1"), package("c", "1"), package("kernel", "2")];
        let rows: Vec<String> = compare_packages(from, to)
            .iter()
            .map(|row| format!("{} {:?} {:?}", row.name, row.from, row.to))
            .collect();
        assert_eq!(
            rows,
            [
                r#"b ["1"] []"#,
                r#"c [] ["1"]"#,
                r#"kernel ["1", "2"] ["2"]"#
            ]
        );
    }

    #[test]
    fn metadata_is_compared_by_member() {
        let of = |members: &[(&str, i64)]| {
            let json = |(name, value): &(&str, i64)| ((*name).to_owned(), (*value).into());
            members.iter().map(json).collect()
        };
        let rows: Vec<String> = compare_metadata(
            of(&[("a", 1), ("b", 1), ("d", 4)]),
            of(&[("a", 1), ("b", 2), ("c", 3)]),
        )
        .iter()
        .map(|row| row.member.clone())
        .collect();
        assert_eq!(rows, ["b", "c", "d"]);
    }
}
