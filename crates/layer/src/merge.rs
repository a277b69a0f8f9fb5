// SPDX-License-Identifier: Apache-2.0
//! Layers put on top of each other. Pure.
//!
//! Whiteouts and opaque directories act on what lower layers brought, wherever
//! they stand in their own layer; then the layer's entries are applied in
//! order. A parent that is a symlink is followed inside the tree, never out of
//! it; a last component is never followed. A missing parent is made, owned by
//! root with mode 0755: image-spec leaves that open and builders rely on it.
//!
//! What a directory lost or gained does not change its modification time, only
//! an entry of its own does.
//!
//! # Source
//! image-spec v1.1 "Applying Changesets".

use gantry_oci::{Kind, Limits, PathComponent, RelPath};

use crate::changes::{Changeset, Operation};
use crate::tree::{Metadata, Node, NodeId, NodeKind, Tree, TreeError};

/// Symlinks followed for one path, as many as the kernel does.
const SYMLINKS_MAX: usize = 40;

/// Why a layer does not fit on a tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A parent is neither a directory nor a symlink to one.
    #[error("apply entry {path}: {parent} is a {kind}, not a directory")]
    NotADirectory {
        /// The entry.
        path: RelPath,
        /// Its parent.
        parent: String,
        /// What the parent is.
        kind: &'static str,
    },
    /// Symlinks lead in a circle.
    #[error("apply entry {path}: too many symlinks on the way")]
    SymlinkLoop {
        /// The entry.
        path: RelPath,
    },
    /// A hard link's target is not there.
    #[error("apply hard link {path}: its target {target} does not exist")]
    NoTarget {
        /// The link.
        path: RelPath,
        /// The target.
        target: RelPath,
    },
    /// A hard link to a directory.
    #[error("apply hard link {path}: its target {target} is a directory")]
    DirectoryTarget {
        /// The link.
        path: RelPath,
        /// The target.
        target: RelPath,
    },
    /// Something else than a directory would replace the root.
    #[error("apply entry {path}: the root can only be a directory")]
    Root {
        /// The entry.
        path: RelPath,
    },
    /// More nodes than the table of limits allows.
    #[error("apply entry {path}: the image has more than {limit} files")]
    TooManyNodes {
        /// The entry.
        path: RelPath,
        /// The cap.
        limit: u64,
    },
    /// The tree refused.
    #[error("apply entry {path}")]
    Tree {
        /// The entry.
        path: RelPath,
        /// Why.
        source: TreeError,
    },
}

impl MergeError {
    /// What looks like an attack is `Unsafe`; what does not fit is `Corrupt`.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::SymlinkLoop { .. } | Self::Root { .. } | Self::TooManyNodes { .. } => {
                Kind::Unsafe
            }
            _ => Kind::Corrupt,
        }
    }
}

/// Applies one layer.
///
/// # Errors
/// [`MergeError`]; the tree is then half changed and of no use.
///
/// # Source
/// image-spec v1.1 "Applying Changesets", "Whiteouts", "Opaque Whiteout".
pub fn apply(tree: &mut Tree, layer: &Changeset, limits: &Limits) -> Result<(), MergeError> {
    for change in &layer.changes {
        match change.operation {
            Operation::Whiteout => whiteout(tree, &change.path)?,
            Operation::Opaque => opaque(tree, &change.path)?,
            Operation::Upsert { .. } | Operation::HardLink { .. } => {}
        }
    }
    for change in &layer.changes {
        match &change.operation {
            Operation::Upsert { metadata, kind } => upsert(tree, &change.path, metadata, kind)?,
            Operation::HardLink { target } => hard_link(tree, &change.path, target)?,
            Operation::Whiteout | Operation::Opaque => {}
        }
        if tree.len() as u64 > limits.nodes {
            return Err(MergeError::TooManyNodes {
                path: change.path.clone(),
                limit: limits.nodes,
            });
        }
    }
    Ok(())
}

fn whiteout(tree: &mut Tree, path: &RelPath) -> Result<(), MergeError> {
    let Some((parent, name)) = path.split_last() else {
        return Err(MergeError::Root { path: path.clone() });
    };
    if let Some(directory) = find_directory(tree, &parent, path)? {
        tree.remove(directory, name.as_bytes());
    }
    Ok(())
}

fn opaque(tree: &mut Tree, path: &RelPath) -> Result<(), MergeError> {
    // Only a real directory can be emptied: what a symlink of that name leads to is another entry's.
    let directory = match path.split_last() {
        None => Some(tree.root()),
        Some((parent, name)) => find_directory(tree, &parent, path)?
            .and_then(|parent| tree.child(parent, name.as_bytes())),
    };
    if let Some(directory) = directory {
        tree.clear(directory);
    }
    Ok(())
}

fn upsert(
    tree: &mut Tree,
    path: &RelPath,
    metadata: &Metadata,
    kind: &NodeKind,
) -> Result<(), MergeError> {
    let Some((parent, name)) = path.split_last() else {
        if !kind.is_directory() {
            return Err(MergeError::Root { path: path.clone() });
        }
        let root = tree.root();
        *tree.metadata_mut(root) = metadata.clone();
        return Ok(());
    };
    let directory = make_directory(tree, &parent, path)?;
    if kind.is_directory() {
        if let Some(there) = tree
            .child(directory, name.as_bytes())
            .filter(|id| tree.node(*id).kind.is_directory())
        {
            *tree.metadata_mut(there) = metadata.clone();
            return Ok(());
        }
    }
    tree.replace(directory, name, Node::new(metadata.clone(), kind.clone()))
        .map(drop)
        .map_err(|source| MergeError::Tree {
            path: path.clone(),
            source,
        })
}

fn hard_link(tree: &mut Tree, path: &RelPath, target: &RelPath) -> Result<(), MergeError> {
    let no_target = || MergeError::NoTarget {
        path: path.clone(),
        target: target.clone(),
    };
    let (target_parent, target_name) = target.split_last().ok_or_else(no_target)?;
    let (parent, name) = path
        .split_last()
        .ok_or_else(|| MergeError::Root { path: path.clone() })?;
    let node = find_directory(tree, &target_parent, path)?
        .and_then(|directory| tree.child(directory, target_name.as_bytes()))
        .ok_or_else(no_target)?;
    if tree.node(node).kind.is_directory() {
        return Err(MergeError::DirectoryTarget {
            path: path.clone(),
            target: target.clone(),
        });
    }
    let directory = make_directory(tree, &parent, path)?;
    match tree.child(directory, name.as_bytes()) {
        Some(there) if there == node => return Ok(()),
        Some(there) => {
            // What is removed to make room must not take the target with it.
            if is_below(tree, there, node) {
                return Err(no_target());
            }
            tree.remove(directory, name.as_bytes());
        }
        None => {}
    }
    tree.link(directory, name, node)
        .map_err(|source| MergeError::Tree {
            path: path.clone(),
            source,
        })
}

/// Whether every name of `node` is at or below `top`.
fn is_below(tree: &Tree, top: NodeId, node: NodeId) -> bool {
    let mut names = 0;
    let mut stack = vec![top];
    while let Some(id) = stack.pop() {
        for (_, child) in tree.children(id) {
            if child == node {
                names += 1;
            }
            if tree.node(child).kind.is_directory() {
                stack.push(child);
            }
        }
    }
    names > 0 && names == tree.names(node)
}

/// What a walk does where a directory is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Stop,
    Make,
}

fn find_directory(
    tree: &mut Tree,
    path: &RelPath,
    entry: &RelPath,
) -> Result<Option<NodeId>, MergeError> {
    walk(tree, path, entry, Missing::Stop)
}

fn make_directory(tree: &mut Tree, path: &RelPath, entry: &RelPath) -> Result<NodeId, MergeError> {
    // `Missing::Make` always arrives.
    walk(tree, path, entry, Missing::Make).map(|found| found.unwrap_or_else(|| tree.root()))
}

/// Resolves a directory inside the tree: `..` of the root is the root, an
/// absolute symlink starts there.
fn walk(
    tree: &mut Tree,
    path: &RelPath,
    entry: &RelPath,
    missing: Missing,
) -> Result<Option<NodeId>, MergeError> {
    // The way so far, the root first: where `..` leads back to.
    let mut trail = vec![tree.root()];
    let mut todo: Vec<Box<[u8]>> = path.components().rev().map(Box::from).collect();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        match &*name {
            b"" | b"." => continue,
            b".." => {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            _ => {}
        }
        let here = trail.last().copied().unwrap_or_else(|| tree.root());
        let Some(child) = tree.child(here, &name) else {
            if missing == Missing::Stop {
                return Ok(None);
            }
            trail.push(make_missing(tree, here, &name, entry)?);
            continue;
        };
        match &tree.node(child).kind {
            NodeKind::Directory { .. } => trail.push(child),
            NodeKind::Symlink(target) => {
                links += 1;
                if links > SYMLINKS_MAX {
                    return Err(MergeError::SymlinkLoop {
                        path: entry.clone(),
                    });
                }
                if target.first() == Some(&b'/') {
                    trail.truncate(1);
                }
                todo.extend(target.split(|b| *b == b'/').rev().map(Box::from));
            }
            _ if missing == Missing::Stop => return Ok(None),
            other => {
                return Err(MergeError::NotADirectory {
                    path: entry.clone(),
                    parent: String::from_utf8_lossy(&name).into_owned(),
                    kind: other.name(),
                });
            }
        }
    }
    Ok(trail.last().copied())
}

fn make_missing(
    tree: &mut Tree,
    here: NodeId,
    name: &[u8],
    entry: &RelPath,
) -> Result<NodeId, MergeError> {
    let not_a_name = || MergeError::NotADirectory {
        path: entry.clone(),
        parent: String::from_utf8_lossy(name).into_owned(),
        kind: "name that no directory can have",
    };
    let name = PathComponent::try_from(name).map_err(|_| not_a_name())?;
    tree.insert(
        here,
        name,
        Node::new(Metadata::with_mode(0o755), NodeKind::directory()),
    )
    .map_err(|source| MergeError::Tree {
        path: entry.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Change;
    use crate::tree::FileContent;

    fn path(text: &str) -> RelPath {
        RelPath::from_archive_name(text.as_bytes(), &Limits::DEFAULT).unwrap()
    }

    /// `d a/b`, `f a/b=text`, `l a -> target`, `h a => target`, `w a`, `o a`.
    fn layer(lines: &[&str]) -> Changeset {
        let change = |line: &&str| {
            let (kind, rest) = line.split_once(' ').unwrap();
            let node = |name: &str, kind: NodeKind| {
                (
                    name.to_owned(),
                    Operation::Upsert {
                        metadata: Metadata::with_mode(0o700),
                        kind,
                    },
                )
            };
            let (name, operation) = match kind {
                "d" => node(rest, NodeKind::directory()),
                "f" => {
                    let (name, text) = rest.split_once('=').unwrap();
                    node(
                        name,
                        NodeKind::File(FileContent::Inline(text.as_bytes().into())),
                    )
                }
                "l" => {
                    let (name, target) = rest.split_once(" -> ").unwrap();
                    node(name, NodeKind::Symlink(target.as_bytes().into()))
                }
                "h" => {
                    let (name, target) = rest.split_once(" => ").unwrap();
                    (
                        name.to_owned(),
                        Operation::HardLink {
                            target: path(target),
                        },
                    )
                }
                "w" => (rest.to_owned(), Operation::Whiteout),
                _ => (rest.to_owned(), Operation::Opaque),
            };
            Change {
                path: path(&name),
                operation,
            }
        };
        Changeset {
            changes: lines.iter().map(change).collect(),
        }
    }

    fn merged(layers: &[&[&str]]) -> Result<String, MergeError> {
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        for lines in layers {
            apply(&mut tree, &layer(lines), &Limits::DEFAULT)?;
        }
        let mut out = Vec::new();
        for entry in tree.walk().skip(1) {
            let node = tree.node(entry.id);
            let text = match &node.kind {
                NodeKind::File(FileContent::Inline(bytes)) => {
                    format!("={}", String::from_utf8_lossy(bytes))
                }
                NodeKind::Symlink(target) => format!("->{}", String::from_utf8_lossy(target)),
                _ => "/".to_owned(),
            };
            let links = tree.names(entry.id);
            let links = if links > 1 {
                format!("*{links}")
            } else {
                String::new()
            };
            out.push(format!("/{}{text}{links}", entry.path_lossy()));
        }
        Ok(out.join(" "))
    }

    #[test]
    fn layers_merge_as_the_specification_says() {
        for (layers, wanted) in [
            (&[&["f a=1"][..], &["f a=2"]][..], "/a=2"),
            (&[&["d a", "f a/b=1"], &["w a/b"]], "/a/"),
            (&[&["d a", "f a/b=1"], &["w a"]], ""),
            (
                &[
                    &["d a", "f a/b=1", "f a/c=1"],
                    &["f a/n=2", "o a", "f a/m=2"],
                ],
                "/a/ /a/m=2 /a/n=2",
            ),
            (&[&["f a=1"], &["f a=2", "w a"]], "/a=2"),
            (
                &[&["d a", "f a/b=1"], &["w a", "d a", "f a/c=2"]],
                "/a/ /a/c=2",
            ),
            (&[&["d a", "f a/b=1"], &["f a=2"]], "/a=2"),
            (&[&["f a=1"], &["d a", "f a/b=2"]], "/a/ /a/b=2"),
            (&[&["d a", "f a/b=1"], &["d a"]], "/a/ /a/b=1"),
            (&[&["f a/b/c=1"]], "/a/ /a/b/ /a/b/c=1"),
            (
                &[&["d usr", "d usr/lib", "l lib -> usr/lib"], &["f lib/x=1"]],
                "/lib->usr/lib /usr/ /usr/lib/ /usr/lib/x=1",
            ),
            (&[&["d d", "l l -> /d"], &["f l/x=1"]], "/d/ /d/x=1 /l->/d"),
            (
                &[&["l l -> ../../../etc"], &["f l/x=1"]],
                "/etc/ /etc/x=1 /l->../../../etc",
            ),
            (&[&["d d", "f d/x=1", "l l -> d"], &["w l/x"]], "/d/ /l->d"),
            (&[&["l l -> /t"], &["d l"]], "/l/"),
            (&[&["l l -> /t"], &["f l=1"]], "/l=1"),
            (&[&["f a=1", "h b => a"]], "/a=1*2 /b=1*2"),
            (&[&["f a=1"], &["h b => /a"]], "/a=1*2 /b=1*2"),
            (&[&["f a=1", "h b => a"], &["f a=2"]], "/a=2 /b=1"),
            (&[&["f a=1", "h b => a"], &["h b => a"]], "/a=1*2 /b=1*2"),
            (&[&["l s -> x", "h t => s"]], "/s->x*2 /t->x*2"),
            (&[&["f a=1"], &["w nothing", "w no/where"]], "/a=1"),
        ] {
            assert_eq!(merged(layers).unwrap(), wanted, "{layers:?}");
        }
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        for layers in [
            &[&["f a=1"][..], &["f a/b=2"]][..],
            &[&["h b => a"]],
            &[&["d a", "h b => a"]],
            &[&["f a=1"], &["w a", "h b => a"]],
            &[&["l a -> b", "l b -> a", "f a/x=1"]],
            &[&["d d", "f d/x=1", "h d => d/x"]],
        ] {
            assert!(merged(layers).is_err(), "{layers:?} was accepted");
        }
    }
}
