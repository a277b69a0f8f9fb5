// SPDX-License-Identifier: Apache-2.0
//! Layers put on top of each other. Pure.
//!
//! Entries are applied one after the other. A whiteout or an opaque mark takes
//! away what lower layers brought and leaves what its own layer brought, on
//! whichever side of it in the tar that stands: a directory that the layer
//! entered stays, and loses its lower entries.
//!
//! A parent that is a symlink is followed inside the tree, never out of it; a
//! last component is never followed. A missing parent is made, owned by root
//! with mode 0755: image-spec leaves that open and builders rely on it. A hard
//! link shares the node of its target, of a lower layer too.
//!
//! What a directory lost or gained does not change its modification time, only
//! an entry of its own does.
//!
//! All this is what `umoci unpack` leaves on a disk; a test compares the two.
//! Unlike there, the work is bounded: symlinks followed for one path, steps
//! taken through symlinks by one layer, the depth of the tree, its nodes.
//!
//! # Source
//! image-spec v1.1 "Applying Changesets".

use std::collections::HashSet;

use gantry_oci::{Kind, Limits, PathComponent, RelPath};

use crate::changes::{Change, Changeset, Operation};
use crate::tree::{Metadata, Node, NodeId, NodeKind, Tree, TreeError};

/// Symlinks followed for one path, as many as the kernel does.
const SYMLINKS_MAX: usize = 40;
/// Components of symlink targets that a layer may walk, for each of its
/// entries and at least: honest ones need a few for each.
const STEPS_PER_ENTRY: u64 = 64;
const STEPS_MIN: u64 = 1 << 20;

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
    /// Symlinks that lead through symlinks, again and again.
    #[error("apply entry {path}: the layer's paths take more than {limit} steps through symlinks")]
    TooManySteps {
        /// The entry.
        path: RelPath,
        /// The cap.
        limit: u64,
    },
    /// Symlinks that lead deep down, and a path from there.
    #[error("apply entry {path}: it would be more than {limit} directories deep")]
    TooDeep {
        /// The entry.
        path: RelPath,
        /// The cap.
        limit: usize,
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
            Self::SymlinkLoop { .. }
            | Self::TooManySteps { .. }
            | Self::TooDeep { .. }
            | Self::Root { .. }
            | Self::TooManyNodes { .. } => Kind::Unsafe,
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
    let mut merge = Merge::new(tree, layer.changes.len() as u64, limits);
    layer
        .changes
        .iter()
        .try_for_each(|change| merge.apply(change))
}

/// A layer on its way onto a tree.
struct Merge<'t> {
    tree: &'t mut Tree,
    limits: &'t Limits,
    /// Nodes from here on are this layer's.
    first_own: usize,
    /// Directories of lower layers that this layer entered or described.
    entered: HashSet<NodeId>,
    /// Names that this layer gave to nodes of lower layers.
    linked: HashSet<(NodeId, PathComponent)>,
    /// Directories that hold nothing of lower layers any more.
    pruned: HashSet<NodeId>,
    steps: u64,
    steps_max: u64,
}

/// Where a path's directory is.
struct Place {
    /// From the root to the last directory that exists.
    trail: Vec<NodeId>,
    /// Names from there on that do not exist.
    missing: Vec<PathComponent>,
    /// The first of them exists, but is this.
    blocked: Option<&'static str>,
}

impl Place {
    /// The directory, if it exists.
    fn found(&self) -> Option<NodeId> {
        match self.missing[..] {
            [] => self.trail.last().copied(),
            _ => None,
        }
    }
}

impl<'t> Merge<'t> {
    fn new(tree: &'t mut Tree, entries: u64, limits: &'t Limits) -> Self {
        Self {
            first_own: tree.arena_len(),
            tree,
            limits,
            entered: HashSet::new(),
            linked: HashSet::new(),
            pruned: HashSet::new(),
            steps: 0,
            steps_max: entries.saturating_mul(STEPS_PER_ENTRY).max(STEPS_MIN),
        }
    }

    fn apply(&mut self, change: &Change) -> Result<(), MergeError> {
        let path = &change.path;
        match &change.operation {
            Operation::Whiteout => self.whiteout(path),
            Operation::Opaque => self.opaque(path),
            Operation::Upsert { metadata, kind } => self.upsert(path, metadata, kind),
            Operation::HardLink { target } => self.hard_link(path, target),
        }?;
        if self.tree.len() as u64 > self.limits.nodes {
            return Err(MergeError::TooManyNodes {
                path: path.clone(),
                limit: self.limits.nodes,
            });
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &RelPath) -> Result<(), MergeError> {
        let (parent, name) = split(path)?;
        let Some(directory) = self.find(&parent, path)?.found() else {
            return Ok(());
        };
        let Some(node) = self.tree.child(directory, name.as_bytes()) else {
            return Ok(());
        };
        if self.is_own(directory, &name, node) {
            self.prune(node);
        } else {
            self.tree.remove(directory, name.as_bytes());
        }
        Ok(())
    }

    fn opaque(&mut self, path: &RelPath) -> Result<(), MergeError> {
        if let Some(directory) = self.find(path, path)?.found() {
            self.prune(directory);
        }
        Ok(())
    }

    fn upsert(
        &mut self,
        path: &RelPath,
        metadata: &Metadata,
        kind: &NodeKind,
    ) -> Result<(), MergeError> {
        if path.is_root() {
            if !kind.is_directory() {
                return Err(MergeError::Root { path: path.clone() });
            }
            let root = self.tree.root();
            *self.tree.metadata_mut(root) = metadata.clone();
            return Ok(());
        }
        let (parent, name) = split(path)?;
        let directory = self.enter(&parent, path)?;
        let there = self
            .tree
            .child(directory, name.as_bytes())
            .filter(|there| kind.is_directory() && self.tree.node(*there).kind.is_directory());
        if let Some(there) = there {
            *self.tree.metadata_mut(there) = metadata.clone();
            self.entered.insert(there);
            return Ok(());
        }
        let node = Node::new(metadata.clone(), kind.clone());
        self.tree
            .replace(directory, name, node)
            .map(drop)
            .map_err(|source| refused(path, source))
    }

    fn hard_link(&mut self, path: &RelPath, target: &RelPath) -> Result<(), MergeError> {
        let no_target = || MergeError::NoTarget {
            path: path.clone(),
            target: target.clone(),
        };
        let (target_parent, target_name) = target.split_last().ok_or_else(no_target)?;
        let (parent, name) = split(path)?;
        let directory = self.enter(&parent, path)?;
        // What makes room may take the target with it; then there is none.
        self.tree.remove(directory, name.as_bytes());
        let node = self
            .find(&target_parent, path)?
            .found()
            .and_then(|directory| self.tree.child(directory, target_name.as_bytes()))
            .ok_or_else(no_target)?;
        if self.tree.node(node).kind.is_directory() {
            return Err(MergeError::DirectoryTarget {
                path: path.clone(),
                target: target.clone(),
            });
        }
        if node.index() < self.first_own {
            self.linked.insert((directory, name.clone()));
        }
        self.tree
            .link(directory, name, node)
            .map_err(|source| refused(path, source))
    }

    /// Whether this layer brought, described or entered what has this name.
    fn is_own(&self, directory: NodeId, name: &PathComponent, node: NodeId) -> bool {
        node.index() >= self.first_own
            || self.entered.contains(&node)
            || self.linked.contains(&(directory, name.clone()))
    }

    /// Takes away what lower layers have at and below a directory; nothing if
    /// it is not one.
    ///
    /// Once done nothing of theirs can come back, so no directory is searched
    /// twice, however many marks a layer has.
    fn prune(&mut self, directory: NodeId) {
        let mut pending = vec![directory];
        while let Some(directory) = pending.pop() {
            if !self.pruned.insert(directory) {
                continue;
            }
            let (own, lower): (Vec<_>, Vec<_>) = self
                .tree
                .children(directory)
                .map(|(name, node)| (name.clone(), node))
                .partition(|(name, node)| self.is_own(directory, name, *node));
            for (name, _) in lower {
                self.tree.remove(directory, name.as_bytes());
            }
            pending.extend(own.into_iter().map(|(_, node)| node));
        }
    }

    /// Finds a directory and makes what is missing of it; it and all above it
    /// are this layer's from now on.
    fn enter(&mut self, path: &RelPath, entry: &RelPath) -> Result<NodeId, MergeError> {
        let place = self.find(path, entry)?;
        if let (Some(kind), Some(name)) = (place.blocked, place.missing.first()) {
            return Err(MergeError::NotADirectory {
                path: entry.clone(),
                parent: name.to_string(),
                kind,
            });
        }
        for directory in place.trail.iter().rev() {
            // Whoever is in, is so with all above.
            if directory.index() >= self.first_own {
                continue;
            }
            if !self.entered.insert(*directory) {
                break;
            }
        }
        let last = place.trail.last().copied();
        place
            .missing
            .into_iter()
            .try_fold(last.unwrap_or(self.tree.root()), |here, name| {
                let node = Node::new(Metadata::with_mode(0o755), NodeKind::directory());
                self.tree
                    .insert(here, name, node)
                    .map_err(|source| refused(entry, source))
            })
    }

    /// Resolves a directory inside the tree: `..` of the root is the root, an
    /// absolute symlink starts there, what does not exist is taken by its name.
    fn find(&mut self, path: &RelPath, entry: &RelPath) -> Result<Place, MergeError> {
        let mut place = Place {
            trail: vec![self.tree.root()],
            missing: Vec::new(),
            blocked: None,
        };
        // Components of symlinks' targets, the next one last.
        let mut links: Vec<Box<[u8]>> = Vec::new();
        let mut followed = 0;
        let mut rest = path.components();
        loop {
            let target = match links.pop() {
                Some(name) => {
                    self.step(entry)?;
                    self.descend(&mut place, &name, entry)?
                }
                None => match rest.next() {
                    Some(name) => self.descend(&mut place, name, entry)?,
                    None => return Ok(place),
                },
            };
            let Some(target) = target else { continue };
            followed += 1;
            if followed > SYMLINKS_MAX {
                return Err(MergeError::SymlinkLoop {
                    path: entry.clone(),
                });
            }
            if target.first() == Some(&b'/') {
                place.trail.truncate(1);
            }
            links.extend(target.rsplit(|b| *b == b'/').map(Box::from));
        }
    }

    /// Counts a component of a symlink's target.
    fn step(&mut self, entry: &RelPath) -> Result<(), MergeError> {
        self.steps += 1;
        if self.steps > self.steps_max {
            return Err(MergeError::TooManySteps {
                path: entry.clone(),
                limit: self.steps_max,
            });
        }
        Ok(())
    }

    /// Goes one component on; the target if it is a symlink.
    fn descend(
        &self,
        place: &mut Place,
        name: &[u8],
        entry: &RelPath,
    ) -> Result<Option<Box<[u8]>>, MergeError> {
        match name {
            b"" | b"." => return Ok(None),
            b".." => {
                if place.missing.pop().is_none() && place.trail.len() > 1 {
                    place.trail.pop();
                } else if place.missing.is_empty() {
                    place.blocked = None;
                }
                return Ok(None);
            }
            _ => {}
        }
        if place.trail.len() + place.missing.len() > self.limits.path_depth {
            return Err(MergeError::TooDeep {
                path: entry.clone(),
                limit: self.limits.path_depth,
            });
        }
        let here = place.found();
        let there = here.and_then(|here| self.tree.child(here, name));
        match there.map(|there| (there, &self.tree.node(there).kind)) {
            Some((there, NodeKind::Directory { .. })) => {
                place.trail.push(there);
                return Ok(None);
            }
            Some((_, NodeKind::Symlink(target))) => return Ok(Some(target.clone())),
            Some((_, other)) => place.blocked = Some(other.name()),
            None => {}
        }
        let name = PathComponent::try_from(name).map_err(|_| MergeError::NotADirectory {
            path: entry.clone(),
            parent: String::from_utf8_lossy(name).into_owned(),
            kind: "name that no directory can have",
        })?;
        place.missing.push(name);
        Ok(None)
    }
}

/// The parent and the last component; the root has none.
fn split(path: &RelPath) -> Result<(RelPath, PathComponent), MergeError> {
    path.split_last()
        .ok_or_else(|| MergeError::Root { path: path.clone() })
}

fn refused(path: &RelPath, source: TreeError) -> MergeError {
    MergeError::Tree {
        path: path.clone(),
        source,
    }
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
            // A mark leaves what its own layer brought, before and after it.
            (&[&["f a=1"], &["h b => a", "w a"]], "/b=1"),
            (&[&["f a=1"], &["h b => a", "w b"]], "/a=1*2 /b=1*2"),
            (
                &[
                    &["d d", "f d/x=1", "d d/e", "f d/e/y=1"],
                    &["f d/e/z=2", "w d"],
                ],
                "/d/ /d/e/ /d/e/z=2",
            ),
            (&[&["d d", "f d/x=1"], &["o d", "o d", "w d"]], ""),
            (&[&["f x=1", "d d"], &["f y=2", "o "]], "/y=2"),
            // Marks go through symlinks as entries do, those of their own layer too.
            (&[&["d d", "f d/x=1", "l l -> d"], &["o l"]], "/d/ /l->d"),
            (&[&["d d", "f d/x=1"], &["l l -> d", "w l/x"]], "/d/ /l->d"),
            (&[&["f a=1"], &["w a/b", "o a/b"]], "/a=1"),
            (
                &[&["l l -> no/../t"], &["f l/x=1"]],
                "/l->no/../t /t/ /t/x=1",
            ),
            (
                &[&["f f=1", "l l -> f/../t"], &["f l/x=1"]],
                "/f=1 /l->f/../t /t/ /t/x=1",
            ),
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
            &[&["f a=1", "h a => a"]],
            &[&["f f=1", "l l -> f/t"], &["f l/x=1"]],
        ] {
            assert!(merged(layers).is_err(), "{layers:?} was accepted");
        }
    }

    fn apply_owned(lines: &[String], limits: &Limits) -> Result<(), MergeError> {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        apply(&mut tree, &layer(&lines), limits)
    }

    #[test]
    fn depth_is_capped_though_each_path_is_short() {
        let limits = Limits {
            path_depth: 8,
            ..Limits::DEFAULT
        };
        let deeper = |times: usize| -> Vec<String> {
            let mut lines = vec!["d a/a/a/a".to_owned(), "l l0 -> a/a/a/a".to_owned()];
            for at in 1..=times {
                lines.push(format!("d l{}/a", at - 1));
                lines.push(format!("l l{at} -> l{}/a", at - 1));
            }
            lines
        };
        apply_owned(&deeper(5), &limits).unwrap();
        let error = apply_owned(&deeper(6), &limits).unwrap_err();
        assert!(matches!(error, MergeError::TooDeep { .. }), "{error}");
        assert_eq!(error.kind(), Kind::Unsafe);
    }

    #[test]
    fn steps_through_symlinks_and_nodes_are_capped() {
        let mut lines = vec!["d d".to_owned()];
        let dots = "./".repeat(2000);
        for at in 0..30 {
            let next = if at == 0 {
                "d".into()
            } else {
                format!("l{}", at - 1)
            };
            lines.push(format!("l l{at} -> {dots}{next}"));
        }
        apply_owned(&lines, &Limits::DEFAULT).unwrap();
        lines.extend((0..100).map(|at| format!("f l29/{at}=x")));
        let error = apply_owned(&lines, &Limits::DEFAULT).unwrap_err();
        assert!(matches!(error, MergeError::TooManySteps { .. }), "{error}");
        let limits = Limits {
            nodes: 3,
            ..Limits::DEFAULT
        };
        let error = apply_owned(&["f a=1".into(), "f b/c=1".into()], &limits).unwrap_err();
        assert!(matches!(error, MergeError::TooManyNodes { .. }), "{error}");
    }

    #[test]
    fn marks_over_and_over_cost_no_more_than_one() {
        let mut lines = vec!["d d".to_owned()];
        for at in 0..20_000 {
            lines.push(format!("f d/{at}=x"));
            lines.push("w d".to_owned());
            lines.push("o d".to_owned());
        }
        // Quadratic, this would be 4·10⁸ looks at names.
        apply_owned(&lines, &Limits::DEFAULT).unwrap();
    }
}
