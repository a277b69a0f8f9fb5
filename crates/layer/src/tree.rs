// SPDX-License-Identifier: Apache-2.0
//! A file system as data: what a mounted image will look like.
//!
//! Owns [`Tree`], an arena of nodes. A directory maps names to [`NodeId`]s; a
//! hard link is a second name with the same id. Contents are not here: a file
//! either carries a few bytes itself or names an object of the store.
//!
//! ```text
//! Tree ── root ─┬ "bin"  ─ Directory ─┬ "sh"   ─┐
//!               │                     └ "bash" ─┴ File(Object{id, size})
//!               └ "tmp"  ─ Directory (mode 1777)
//! ```
//!
//! What it promises: names are [`PathComponent`]s; every node but the root has
//! at least one name while it is live; a directory has exactly one, so there
//! are no cycles; names within a directory come in byte order. Two trees are
//! equal when a process inside could not tell them apart (inode numbers
//! aside), however they were made.
//!
//! What it does not: resolve symlinks, or apply layers (see `merge`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use gantry_oci::{Kind, ObjectId, PathComponent, RelPath};

/// Contents up to this size are kept in the tree, and so in the metadata
/// image, instead of an object. composefs draws the line at the same place.
pub const INLINE_MAX_BYTES: usize = 64;

/// The extended attributes of a node, by full name (`security.capability`).
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What `stat` and `listxattr` report of a node, less its kind and size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with set-user-ID, set-group-ID and sticky: `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, whole seconds since 1970, rounded down.
    pub mtime_s: i64,
    /// Nanoseconds to add to `mtime_s`; below 10⁹.
    pub mtime_ns: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// Metadata of root's own, without time or extended attributes.
    #[must_use]
    pub fn with_mode(mode: u16) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }
}

/// Where a regular file's contents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// Here. At most [`INLINE_MAX_BYTES`]; an empty file is always inline.
    Inline(Box<[u8]>),
    /// In the store.
    Object {
        /// Name of the object.
        id: ObjectId,
        /// Length of the contents.
        size_bytes: u64,
    },
}

impl FileContent {
    /// An empty file's contents.
    #[must_use]
    pub fn empty() -> Self {
        Self::Inline(Box::default())
    }

    /// Length of the contents.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Object { size_bytes, .. } => *size_bytes,
        }
    }
}

/// A device number, apart as major and minor so that no encoding is implied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Which driver: 12 bits in the kernel.
    pub major: u32,
    /// Which device of it: 20 bits in the kernel.
    pub minor: u32,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory and its names.
    Directory {
        /// The entries, without `.` and `..`.
        children: BTreeMap<PathComponent, NodeId>,
    },
    /// A regular file.
    File(FileContent),
    /// A symbolic link and its target, which may be any bytes but zero.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

impl NodeKind {
    /// A directory without entries.
    #[must_use]
    pub fn directory() -> Self {
        Self::Directory {
            children: BTreeMap::new(),
        }
    }

    /// Whether this is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// The name of the kind, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "directory",
            Self::File(_) => "file",
            Self::Symlink(_) => "symlink",
            Self::CharDevice(_) => "character device",
            Self::BlockDevice(_) => "block device",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }
}

/// One inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, mode, time, extended attributes.
    pub metadata: Metadata,
    /// What it is, with its contents.
    pub kind: NodeKind,
}

impl Node {
    /// Joins the two halves.
    #[must_use]
    pub fn new(metadata: Metadata, kind: NodeKind) -> Self {
        Self { metadata, kind }
    }

    /// The entries, if this is a directory.
    #[must_use]
    pub fn children(&self) -> Option<&BTreeMap<PathComponent, NodeId>> {
        match &self.kind {
            NodeKind::Directory { children } => Some(children),
            _ => None,
        }
    }
}

/// A node of one [`Tree`]. Not an inode number, and of no meaning in another
/// tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// Position in the arena: dense, below [`Tree::arena_len`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

/// Why a tree refused to change or to be read in a certain way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A name was to be made or looked up below something else.
    #[error("enter {name}: parent is a {kind}, not a directory")]
    NotADirectory {
        /// The name asked for.
        name: PathComponent,
        /// What the parent is.
        kind: &'static str,
    },
    /// The name is taken.
    #[error("insert {name}: name exists")]
    AlreadyExists {
        /// The name asked for.
        name: PathComponent,
    },
    /// A second name for a directory, or for a node that has none left.
    #[error("link {name}: target is a {kind} that cannot be linked")]
    NotLinkable {
        /// The name asked for.
        name: PathComponent,
        /// What the target is.
        kind: &'static str,
    },
    /// A directory was given with children of its own, which belong to no
    /// tree yet.
    #[error("insert {name}: new directory has entries already")]
    NotEmpty {
        /// The name asked for.
        name: PathComponent,
    },
    /// More nodes than the arena can count.
    #[error("insert {name}: tree has too many nodes")]
    TooManyNodes {
        /// The name asked for.
        name: PathComponent,
    },
}

impl TreeError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotADirectory { .. } | Self::NotLinkable { .. } | Self::NotEmpty { .. } => {
                Kind::InvalidInput
            }
            Self::AlreadyExists { .. } => Kind::AlreadyExists,
            Self::TooManyNodes { .. } => Kind::Unsafe,
        }
    }
}

struct Slot {
    node: Node,
    /// How many directory entries point here; 1 for the root; 0 once removed.
    names: u32,
}

/// A file system as data. See the module for its shape and promises.
pub struct Tree {
    slots: Vec<Slot>,
    live: usize,
}

impl Tree {
    /// A tree of nothing but an empty root directory.
    #[must_use]
    pub fn new(root: Metadata) -> Self {
        let slot = Slot {
            node: Node::new(root, NodeKind::directory()),
            names: 1,
        };
        Self {
            slots: vec![slot],
            live: 1,
        }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// How many nodes (inodes, not names) the tree has, root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 1
    }

    /// One more than the highest [`NodeId::index`] ever given, for side tables
    /// indexed by node.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.slots.len()
    }

    /// The node with this id.
    ///
    /// A removed node reads as an empty directory without metadata.
    ///
    /// # Panics
    /// If `id` is from another, larger tree.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.slots[id.index()].node
    }

    /// The metadata of a node, to change in place.
    ///
    /// # Panics
    /// If `id` is from another, larger tree.
    pub fn metadata_mut(&mut self, id: NodeId) -> &mut Metadata {
        &mut self.slots[id.index()].node.metadata
    }

    /// How many names lead to a node: 0 after its removal, 1 for directories
    /// and the root.
    ///
    /// # Panics
    /// If `id` is from another, larger tree.
    #[must_use]
    pub fn names(&self, id: NodeId) -> u32 {
        self.slots[id.index()].names
    }

    /// The link count that `stat` reports: names of a file, two and the number
    /// of subdirectories of a directory.
    ///
    /// # Panics
    /// If `id` is from another, larger tree.
    #[must_use]
    pub fn link_count(&self, id: NodeId) -> u32 {
        let slot = &self.slots[id.index()];
        match &slot.node.kind {
            NodeKind::Directory { children } => children
                .values()
                .filter(|child| self.node(**child).kind.is_directory())
                .fold(2, |count, _| count.saturating_add(1)),
            _ => slot.names,
        }
    }

    /// The entry of a directory; `None` also if `directory` is not one.
    #[must_use]
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(directory).children()?.get(name).copied()
    }

    /// The entries of a directory in byte order; nothing if it is not one.
    pub fn children(&self, directory: NodeId) -> impl Iterator<Item = (&PathComponent, NodeId)> {
        self.node(directory)
            .children()
            .into_iter()
            .flatten()
            .map(|(name, id)| (name, *id))
    }

    /// The node at a path. Symlinks are not followed, anywhere.
    #[must_use]
    pub fn lookup(&self, path: &RelPath) -> Option<NodeId> {
        path.components()
            .try_fold(self.root(), |at, name| self.child(at, name))
    }

    /// Makes a new node under a free name.
    ///
    /// # Errors
    /// The parent is not a directory, the name is taken, or the new node is a
    /// directory with entries.
    pub fn insert(
        &mut self,
        directory: NodeId,
        name: PathComponent,
        node: Node,
    ) -> Result<NodeId, TreeError> {
        if node.children().is_some_and(|children| !children.is_empty()) {
            return Err(TreeError::NotEmpty { name });
        }
        let Ok(index) = u32::try_from(self.slots.len()) else {
            return Err(TreeError::TooManyNodes { name });
        };
        let id = NodeId(index);
        self.bind(directory, name, id)?;
        self.slots.push(Slot { node, names: 1 });
        self.live += 1;
        Ok(id)
    }

    /// Makes a new node under a name, removing what had it, with all below.
    ///
    /// # Errors
    /// As [`Tree::insert`], but for a taken name.
    pub fn replace(
        &mut self,
        directory: NodeId,
        name: PathComponent,
        node: Node,
    ) -> Result<NodeId, TreeError> {
        self.remove(directory, name.as_bytes());
        self.insert(directory, name, node)
    }

    /// Turns a node into another kind in place: all its names stay.
    ///
    /// What was below it, if it was a directory, is removed.
    ///
    /// # Errors
    /// [`TreeError::NotLinkable`] if the node has several names, or is the
    /// root, and would become or stay what may not have that;
    /// [`TreeError::NotEmpty`] as for [`Tree::insert`]. The name in the error
    /// is the one given.
    ///
    /// # Panics
    /// If `id` is from another, larger tree.
    pub fn set_node(
        &mut self,
        id: NodeId,
        name: &PathComponent,
        node: Node,
    ) -> Result<(), TreeError> {
        if node.children().is_some_and(|children| !children.is_empty()) {
            return Err(TreeError::NotEmpty { name: name.clone() });
        }
        let directory = node.kind.is_directory();
        if (directory && self.names(id) != 1) || (!directory && id == self.root()) {
            return Err(TreeError::NotLinkable {
                name: name.clone(),
                kind: node.kind.name(),
            });
        }
        self.clear(id);
        self.slots[id.index()].node = node;
        Ok(())
    }

    /// Gives a node that is not a directory another name.
    ///
    /// # Errors
    /// The parent is not a directory, the name is taken, or the target is a
    /// directory or removed.
    pub fn link(
        &mut self,
        directory: NodeId,
        name: PathComponent,
        target: NodeId,
    ) -> Result<(), TreeError> {
        let slot = &self.slots[target.index()];
        if slot.names == 0 || slot.names == u32::MAX || slot.node.kind.is_directory() {
            return Err(TreeError::NotLinkable {
                name,
                kind: slot.node.kind.name(),
            });
        }
        self.bind(directory, name, target)?;
        self.slots[target.index()].names += 1;
        Ok(())
    }

    /// Takes a name away, with everything below it if it names a directory.
    ///
    /// Nodes that have another name elsewhere stay under that one. Answers
    /// whether the name was there.
    pub fn remove(&mut self, directory: NodeId, name: &[u8]) -> bool {
        let NodeKind::Directory { children } = &mut self.slots[directory.index()].node.kind else {
            return false;
        };
        let Some(id) = children.remove(name) else {
            return false;
        };
        self.release(vec![id]);
        true
    }

    /// Empties a directory; does nothing to other nodes.
    ///
    /// # Panics
    /// If `id` is from another, larger tree.
    pub fn clear(&mut self, directory: NodeId) {
        let NodeKind::Directory { children } = &mut self.slots[directory.index()].node.kind else {
            return;
        };
        let children = std::mem::take(children);
        self.release(children.into_values().collect());
    }

    /// Every name in the tree with its path, parents before children and in
    /// byte order within a directory. The root comes first, with an empty
    /// path.
    #[must_use]
    pub fn walk(&self) -> Walk<'_> {
        Walk {
            tree: self,
            open: Vec::new(),
            path: Vec::new(),
            started: false,
        }
    }

    fn bind(
        &mut self,
        directory: NodeId,
        name: PathComponent,
        target: NodeId,
    ) -> Result<(), TreeError> {
        match &mut self.slots[directory.index()].node.kind {
            NodeKind::Directory { children } => match children.entry(name) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(target);
                    Ok(())
                }
                std::collections::btree_map::Entry::Occupied(entry) => {
                    Err(TreeError::AlreadyExists {
                        name: entry.key().clone(),
                    })
                }
            },
            other => Err(TreeError::NotADirectory {
                name,
                kind: other.name(),
            }),
        }
    }

    /// Drops one name of each node, and of what lies below nodes that lose
    /// their last. A stack, not recursion: depth comes from outside.
    fn release(&mut self, mut pending: Vec<NodeId>) {
        while let Some(id) = pending.pop() {
            let slot = &mut self.slots[id.index()];
            slot.names -= 1;
            if slot.names > 0 {
                continue;
            }
            self.live -= 1;
            let node = std::mem::replace(
                &mut slot.node,
                Node::new(Metadata::default(), NodeKind::directory()),
            );
            if let NodeKind::Directory { children } = node.kind {
                pending.extend(children.into_values());
            }
        }
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        if self.live != other.live {
            return false;
        }
        let mut pairs: HashMap<NodeId, NodeId> = HashMap::with_capacity(self.live);
        let mut pending = vec![(self.root(), other.root())];
        while let Some((ours, theirs)) = pending.pop() {
            match pairs.insert(ours, theirs) {
                Some(known) if known == theirs => continue,
                Some(_) => return false,
                None => {}
            }
            let (a, b) = (self.node(ours), other.node(theirs));
            if a.metadata != b.metadata {
                return false;
            }
            match (a.children(), b.children()) {
                (Some(a), Some(b)) => {
                    if !a.keys().eq(b.keys()) {
                        return false;
                    }
                    pending.extend(a.values().copied().zip(b.values().copied()));
                }
                (None, None) if a.kind == b.kind && self.names(ours) == other.names(theirs) => {}
                _ => return false,
            }
        }
        true
    }
}

impl Eq for Tree {}

impl Clone for Tree {
    fn clone(&self) -> Self {
        let slots = self
            .slots
            .iter()
            .map(|slot| Slot {
                node: slot.node.clone(),
                names: slot.names,
            })
            .collect();
        Self {
            slots,
            live: self.live,
        }
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.walk()
                    .map(|entry| (entry.path_lossy(), (entry.id, self.node(entry.id)))),
            )
            .finish()
    }
}

/// One name met by [`Tree::walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// The path from the root, without a leading slash; empty for the root.
    pub path: Box<[u8]>,
    /// The node.
    pub id: NodeId,
    /// The directory the name is in; the root for itself.
    pub parent: NodeId,
}

impl WalkEntry {
    /// The path as text, for messages.
    #[must_use]
    pub fn path_lossy(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// The iterator of [`Tree::walk`].
pub struct Walk<'t> {
    tree: &'t Tree,
    open: Vec<OpenDirectory<'t>>,
    path: Vec<u8>,
    started: bool,
}

struct OpenDirectory<'t> {
    id: NodeId,
    entries: std::collections::btree_map::Iter<'t, PathComponent, NodeId>,
    path_len: usize,
}

impl<'t> Walk<'t> {
    fn enter(&mut self, id: NodeId) {
        if let Some(children) = self.tree.node(id).children() {
            self.open.push(OpenDirectory {
                id,
                entries: children.iter(),
                path_len: self.path.len(),
            });
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = WalkEntry;

    fn next(&mut self) -> Option<WalkEntry> {
        if !self.started {
            self.started = true;
            let root = self.tree.root();
            self.enter(root);
            return Some(WalkEntry {
                path: Box::default(),
                id: root,
                parent: root,
            });
        }
        loop {
            let directory = self.open.last_mut()?;
            let (parent, path_len) = (directory.id, directory.path_len);
            let Some((name, id)) = directory.entries.next() else {
                self.open.pop();
                continue;
            };
            self.path.truncate(path_len);
            if path_len > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            self.enter(*id);
            return Some(WalkEntry {
                path: self.path.as_slice().into(),
                id: *id,
                parent,
            });
        }
    }
}

impl fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("at", &String::from_utf8_lossy(&self.path))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use gantry_oci::Limits;

    use super::*;

    fn name(text: &str) -> PathComponent {
        PathComponent::try_from(text).unwrap()
    }

    fn path(text: &str) -> RelPath {
        RelPath::from_archive_name(text.as_bytes(), &Limits::DEFAULT).unwrap()
    }

    fn directory() -> Node {
        Node::new(Metadata::with_mode(0o755), NodeKind::directory())
    }

    fn file(text: &str) -> Node {
        Node::new(
            Metadata::with_mode(0o644),
            NodeKind::File(FileContent::Inline(text.as_bytes().into())),
        )
    }

    /// `a/b` holding "x", `c` a second name of it, `d` a directory.
    fn sample() -> Tree {
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        let a = tree.insert(tree.root(), name("a"), directory()).unwrap();
        let b = tree.insert(a, name("b"), file("x")).unwrap();
        tree.link(tree.root(), name("c"), b).unwrap();
        tree.insert(tree.root(), name("d"), directory()).unwrap();
        tree
    }

    #[test]
    fn hard_link_is_one_node_with_two_names() {
        let tree = sample();
        let b = tree.lookup(&path("a/b")).unwrap();
        assert_eq!(tree.lookup(&path("c")), Some(b));
        assert_eq!((tree.names(b), tree.link_count(b)), (2, 2));
        assert_eq!(tree.link_count(tree.root()), 4);
        assert_eq!(tree.len(), 4);
    }

    #[test]
    fn removing_a_directory_keeps_what_has_a_name_elsewhere() {
        let mut tree = sample();
        assert!(tree.remove(tree.root(), b"a"));
        assert!(!tree.remove(tree.root(), b"a"));
        let b = tree.lookup(&path("c")).unwrap();
        assert_eq!((tree.link_count(b), tree.len()), (1, 3));
        assert!(tree.remove(tree.root(), b"c"));
        assert_eq!((tree.names(b), tree.len()), (0, 2));
        let error = tree.link(tree.root(), name("e"), b).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
    }

    #[test]
    fn impossible_changes_are_refused() {
        let mut tree = sample();
        let (a, c) = (
            tree.lookup(&path("a")).unwrap(),
            tree.lookup(&path("c")).unwrap(),
        );
        assert_eq!(
            tree.insert(a, name("b"), file("y")).unwrap_err().kind(),
            Kind::AlreadyExists
        );
        assert_eq!(
            tree.insert(c, name("z"), file("y"))
                .unwrap_err()
                .to_string(),
            "enter z: parent is a file, not a directory"
        );
        assert!(matches!(
            tree.link(tree.root(), name("a2"), a),
            Err(TreeError::NotLinkable { .. })
        ));
        assert!(matches!(
            tree.set_node(c, &name("c"), directory()),
            Err(TreeError::NotLinkable { .. })
        ));
        assert!(matches!(
            tree.set_node(tree.root(), &name("r"), file("")),
            Err(TreeError::NotLinkable { .. })
        ));
        assert_eq!(tree, sample());
    }

    #[test]
    fn walk_gives_parents_first_in_byte_order() {
        let paths: Vec<_> = sample().walk().map(|entry| entry.path_lossy()).collect();
        assert_eq!(paths, ["", "a", "a/b", "c", "d"]);
    }

    #[test]
    fn replace_and_set_node_drop_what_was_below() {
        let mut tree = sample();
        tree.replace(tree.root(), name("a"), file("now a file"))
            .unwrap();
        assert_eq!(tree.lookup(&path("a/b")), None);
        assert_eq!(tree.link_count(tree.lookup(&path("c")).unwrap()), 1);
        let a = tree.lookup(&path("a")).unwrap();
        tree.set_node(a, &name("a"), directory()).unwrap();
        tree.insert(a, name("new"), file("")).unwrap();
        tree.clear(a);
        assert_eq!(tree.children(a).count(), 0);
        assert_eq!(tree.len(), 4);
    }

    #[test]
    fn equality_is_of_what_a_process_would_see() {
        // The same, made in another order and with a detour.
        let mut other = Tree::new(Metadata::with_mode(0o755));
        let c = other.insert(other.root(), name("c"), file("x")).unwrap();
        other.insert(other.root(), name("d"), directory()).unwrap();
        let a = other.insert(other.root(), name("a"), directory()).unwrap();
        other.insert(a, name("gone"), file("")).unwrap();
        other.link(a, name("b"), c).unwrap();
        other.remove(a, b"gone");
        assert_eq!(other, sample());
        assert_eq!(other.clone(), other);

        // Two files alike are not one file with two names.
        let mut apart = sample();
        apart.replace(apart.root(), name("c"), file("x")).unwrap();
        assert_ne!(apart, sample());
    }

    #[test]
    fn very_deep_trees_are_walked_and_removed_without_recursion() {
        let mut tree = Tree::new(Metadata::default());
        let mut at = tree.root();
        for _ in 0..50_000 {
            at = tree.insert(at, name("d"), directory()).unwrap();
        }
        assert_eq!(tree.clone(), tree);
        assert!(tree.remove(tree.root(), b"d"));
        assert!(tree.is_empty());
    }
}
