// SPDX-License-Identifier: Apache-2.0
//! What differs between two trees.
//!
//! Contents are compared by the names of their objects, so no file is read however large it is.

use gantry_oci::PathComponent;
use serde::Serialize;

use crate::tree::{Node, NodeId, NodeKind, Tree};

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only in the second tree.
    Added,
    /// Only in the first tree.
    Removed,
    /// In both, and different.
    Changed,
}

/// In which respect a path that both trees have differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// What it is: a file, a directory, a link …
    Kind,
    /// A file's contents, a link's target, a device's number.
    Content,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// Extended attributes.
    Xattrs,
    /// Modification time.
    Time,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// From the root, without a leading slash; empty for the root.
    pub path: Box<[u8]>,
    /// How.
    pub change: Change,
    /// In which respects, in order; empty unless it changed.
    pub aspects: Vec<Aspect>,
    /// The node of the first tree.
    pub from: Option<NodeId>,
    /// The node of the second tree.
    pub to: Option<NodeId>,
}

/// Lists the paths that differ, each directory before what is in it, names in byte order.
///
/// Everything below a directory that only one tree has is listed, too. Which names are hard links of
/// each other is not compared.
#[must_use]
pub fn diff(from: &Tree, to: &Tree) -> Vec<Difference> {
    let mut found = Vec::new();
    // A stack, not recursion: depth comes from outside. What is pushed last is looked at first.
    let mut pending = vec![(Box::<[u8]>::default(), Some(from.root()), Some(to.root()))];
    while let Some((path, a, b)) = pending.pop() {
        let aspects = match (a, b) {
            (Some(a), Some(b)) => compare(from.node(a), to.node(b)),
            _ => Vec::new(),
        };
        let change = match (a, b) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        pending.extend(below(from, to, &path, a, b));
        if change != Change::Changed || !aspects.is_empty() {
            found.push(Difference {
                path,
                change,
                aspects,
                from: a,
                to: b,
            });
        }
    }
    found
}

type Pair = (Box<[u8]>, Option<NodeId>, Option<NodeId>);

/// The names of two directories, the last one first.
fn below(from: &Tree, to: &Tree, path: &[u8], a: Option<NodeId>, b: Option<NodeId>) -> Vec<Pair> {
    let child = |tree: &Tree, directory: Option<NodeId>, name: &PathComponent| {
        directory.and_then(|directory| tree.child(directory, name.as_bytes()))
    };
    let names = |tree: &Tree, directory: Option<NodeId>| -> Vec<PathComponent> {
        let children = directory.and_then(|directory| tree.node(directory).children());
        children
            .into_iter()
            .flat_map(|names| names.keys().cloned())
            .collect()
    };
    let mut all = names(from, a);
    all.extend(names(to, b));
    all.sort_by(|one, other| other.cmp(one));
    all.dedup();
    all.into_iter()
        .map(|name| {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name.as_bytes());
            let pair = (child(from, a, &name), child(to, b, &name));
            (below.into(), pair.0, pair.1)
        })
        .collect()
}

fn compare(a: &Node, b: &Node) -> Vec<Aspect> {
    let (old, new) = (&a.metadata, &b.metadata);
    let kind = a.kind.name() != b.kind.name();
    let content = !kind
        && match (&a.kind, &b.kind) {
            (NodeKind::Directory { .. }, NodeKind::Directory { .. }) => false,
            // Contents of the same bytes are in the same place: small ones inline, others by their digest.
            (a, b) => a != b,
        };
    [
        (Aspect::Kind, kind),
        (Aspect::Content, content),
        (Aspect::Mode, old.mode != new.mode),
        (Aspect::Owner, (old.uid, old.gid) != (new.uid, new.gid)),
        (Aspect::Xattrs, old.xattrs != new.xattrs),
        (
            Aspect::Time,
            (old.mtime_s, old.mtime_ns) != (new.mtime_s, new.mtime_ns),
        ),
    ]
    .into_iter()
    .filter_map(|(aspect, differs)| differs.then_some(aspect))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{FileContent, Metadata};
    use gantry_oci::PathComponent;

    fn name(text: &str) -> PathComponent {
        PathComponent::try_from(text).unwrap()
    }

    fn file(contents: &[u8], mode: u16) -> Node {
        let content = FileContent::Inline(contents.into());
        Node::new(Metadata::with_mode(mode), NodeKind::File(content))
    }

    fn directory() -> Node {
        Node::new(Metadata::with_mode(0o755), NodeKind::directory())
    }

    fn tree(entries: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        for (path, node) in entries {
            let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = parent
                .split('/')
                .filter(|part| !part.is_empty())
                .fold(tree.root(), |at, part| {
                    tree.child(at, part.as_bytes()).unwrap()
                });
            tree.insert(parent, name(last), node.clone()).unwrap();
        }
        tree
    }

    fn lines(from: &Tree, to: &Tree) -> Vec<String> {
        diff(from, to)
            .iter()
            .map(|d| {
                let path = String::from_utf8_lossy(&d.path);
                format!("{:?} {path} {:?}", d.change, d.aspects)
            })
            .collect()
    }

    #[test]
    fn equal_trees_do_not_differ() {
        let one = tree(&[("a", directory()), ("a/b", file(b"x", 0o644))]);
        assert_eq!(lines(&one, &one.clone()), [""; 0]);
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let from = tree(&[
            ("a", directory()),
            ("a/b", file(b"x", 0o644)),
            ("z", file(b"", 0o644)),
        ]);
        let to = tree(&[
            ("a", directory()),
            ("a/b", file(b"y", 0o600)),
            ("new", directory()),
            ("new/file", file(b"", 0o644)),
        ]);
        assert_eq!(
            lines(&from, &to),
            [
                "Changed a/b [Content, Mode]",
                "Added new []",
                "Added new/file []",
                "Removed z []"
            ]
        );
    }

    #[test]
    fn what_a_directory_hid_is_listed_when_a_file_takes_its_place() {
        let from = tree(&[("a", directory()), ("a/b", file(b"x", 0o644))]);
        let to = tree(&[("a", file(b"x", 0o755))]);
        assert_eq!(lines(&from, &to), ["Changed a [Kind]", "Removed a/b []"]);
    }

    #[test]
    fn every_respect_is_told_apart() {
        let mut other = file(b"x", 0o644);
        other.metadata.uid = 1;
        other.metadata.mtime_ns = 1;
        other
            .metadata
            .xattrs
            .insert((*b"user.a").into(), (*b"1").into());
        let (from, to) = (tree(&[("f", file(b"x", 0o644))]), tree(&[("f", other)]));
        assert_eq!(lines(&from, &to), ["Changed f [Owner, Xattrs, Time]"]);
    }
}
