// SPDX-License-Identifier: Apache-2.0
//! What is in an image, as data: its tree, and the contents of its files, without mounting anything;
//! and what a container made of it.

use crate::error::{Doing as _, StoreError};
use crate::layout::{self, object_name};
use crate::open::Store;
use crate::record::ImageRecord;
use gantry_layer::merge;
use gantry_layer::tree::{
    DeviceNumber, FileContent, INLINE_MAX_BYTES, Metadata, Node, NodeId, NodeKind, Tree,
};
use gantry_layer::verity::ObjectHasher;
use gantry_oci::{Kind, ObjectId, PathComponent};
use gantry_sys::root::{RootDir, type_at};
use gantry_sys::xattr;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;

/// How deep a container's directories may be.
const DEPTH_MAX: usize = 256;
/// On a directory of an overlay's upper layer: it does not continue the one below.
const OPAQUE: &[u8] = b"overlay.opaque";
/// On a directory of an overlay's upper layer: it continues another one than that of its own name.
const REDIRECT: &[u8] = b"overlay.redirect";

impl Store {
    /// The merged tree of an image; an index stands for its image of this platform.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] or [`StoreError::Layer`] if a layer is missing, damaged, or does not fit the others.
    pub fn tree(&self, record: &ImageRecord) -> Result<Tree, StoreError> {
        let record = self.as_image(record.clone())?;
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        for layer in record.image().iter().flat_map(|facts| &facts.layers) {
            let diff_id = layer.diff_id;
            let changes = self
                .layer_changes(&diff_id)?
                .ok_or_else(|| StoreError::NotFound {
                    what: format!("layer {diff_id}"),
                })?;
            merge::apply(&mut tree, &changes, self.limits()).map_err(|source| {
                StoreError::Layer {
                    action: format!("apply layer {diff_id}"),
                    kind: source.kind(),
                    source: source.into(),
                }
            })?;
        }
        Ok(tree)
    }

    /// Opens the contents of a file. They are not verified again.
    ///
    /// # Errors
    /// The object is missing; the kernel's refusal.
    pub fn object(&self, id: &ObjectId) -> Result<File, StoreError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = self.dir(layout::OBJECTS)?;
        rustix::fs::openat(&dir, object_name(id), flags, Mode::empty())
            .map(File::from)
            .doing(|| format!("open object {id}"))
    }
}

/// The objects that a tree's files need.
pub(crate) fn objects_of(tree: &Tree) -> BTreeSet<ObjectId> {
    let mut objects = BTreeSet::new();
    let mut open = vec![tree.root()];
    while let Some(id) = open.pop() {
        match &tree.node(id).kind {
            NodeKind::Directory { children } => open.extend(children.values().copied()),
            NodeKind::File(FileContent::Object { id, .. }) => {
                objects.insert(*id);
            }
            _ => {}
        }
    }
    objects
}

/// The tree of a container: its image's `tree`, changed to what the mounted `merged` root shows
/// wherever the overlay's `upper` layer has something.
///
/// Only what the container wrote is read. What it writes meanwhile may be in the answer or not.
///
/// # Privileges
/// Those that reading the container's files, and the overlay's own attributes, need.
///
/// # Errors
/// The kernel's refusal; [`StoreError::Layer`] if directories are nested too deeply.
pub fn container_tree(
    mut tree: Tree,
    merged: &RootDir,
    upper: &RootDir,
) -> Result<Tree, StoreError> {
    let root = tree.root();
    *tree.metadata_mut(root) = metadata(merged, b".", &stat(merged, b".")?)?;
    update(&mut tree, root, merged, Some(upper), 0)?;
    Ok(tree)
}

/// Makes the entries of a directory what `merged` has. Without `upper` all of them are read, else
/// those that it has: the others are the image's.
fn update(
    tree: &mut Tree,
    directory: NodeId,
    merged: &RootDir,
    upper: Option<&RootDir>,
    depth: usize,
) -> Result<(), StoreError> {
    if depth > DEPTH_MAX {
        return Err(StoreError::Layer {
            action: "read what a container wrote".to_owned(),
            kind: Kind::Unsafe,
            source: format!("directories are nested more than {DEPTH_MAX} deep").into(),
        });
    }
    let names = merged.list(b".").doing(reading)?;
    let gone: Vec<Vec<u8>> = tree
        .children(directory)
        .map(|(name, _)| name.as_bytes().to_vec())
        .filter(|name| names.binary_search(name).is_err())
        .collect();
    for name in gone {
        tree.remove(directory, &name);
    }
    for name in names {
        let touched = match upper {
            Some(upper) => type_at(upper, &name).doing(reading)?,
            None => None,
        };
        if upper.is_some() && touched.is_none() {
            continue;
        }
        let stat = stat(merged, &name)?;
        let component =
            PathComponent::try_from(name.as_slice()).map_err(|source| StoreError::Layer {
                action: reading(),
                kind: source.kind(),
                source: source.into(),
            })?;
        let attributes = metadata(merged, &name, &stat)?;
        let Some(kind) = kind(merged, &name, &stat)? else {
            continue;
        };
        let known = tree
            .child(directory, &name)
            .filter(|known| kind.is_directory() && tree.node(*known).kind.is_directory());
        let node = match known {
            Some(known) => {
                *tree.metadata_mut(known) = attributes;
                known
            }
            None => tree
                .replace(directory, component, Node::new(attributes, kind.clone()))
                .map_err(|source| StoreError::Layer {
                    action: reading(),
                    kind: source.kind(),
                    source: source.into(),
                })?,
        };
        if kind.is_directory() {
            let below = match upper.filter(|_| known.is_some()) {
                Some(upper) => continued(upper, &name)?,
                None => None,
            };
            let merged = enter(merged, &name)?;
            update(tree, node, &merged, below.as_ref(), depth + 1)?;
        }
    }
    Ok(())
}

/// The upper layer's part of a directory that continues the image's of the same name.
fn continued(upper: &RootDir, name: &[u8]) -> Result<Option<RootDir>, StoreError> {
    let attributes = xattr::list_at(upper, name).doing(reading)?;
    let steers = |key: &[u8]| key.ends_with(OPAQUE) || key.ends_with(REDIRECT);
    if attributes.keys().any(|key| steers(key)) {
        return Ok(None);
    }
    enter(upper, name).map(Some)
}

fn reading() -> String {
    "read what a container wrote".to_owned()
}

fn stat(dir: &RootDir, name: &[u8]) -> Result<Stat, StoreError> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).doing(reading)
}

fn enter(dir: &RootDir, name: &[u8]) -> Result<RootDir, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map(RootDir::from_fd)
        .doing(reading)
}

fn metadata(dir: &RootDir, name: &[u8], stat: &Stat) -> Result<Metadata, StoreError> {
    let mut xattrs = xattr::list_at(dir, name).doing(reading)?;
    xattrs.retain(|key, _| !key.starts_with(b"trusted.overlay.") && !key.starts_with(b"system."));
    Ok(Metadata {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_s: stat.st_mtime,
        mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        xattrs,
    })
}

/// What an entry is; `None` if it went away meanwhile.
fn kind(dir: &RootDir, name: &[u8], stat: &Stat) -> Result<Option<NodeKind>, StoreError> {
    let device = || DeviceNumber {
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
    };
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => NodeKind::directory(),
        FileType::RegularFile => NodeKind::File(content(dir, name)?),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).doing(reading)?;
            NodeKind::Symlink(target.into_bytes().into())
        }
        FileType::CharacterDevice => NodeKind::CharDevice(device()),
        FileType::BlockDevice => NodeKind::BlockDevice(device()),
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        _ => return Ok(None),
    }))
}

fn content(dir: &RootDir, name: &[u8]) -> Result<FileContent, StoreError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).doing(reading)?;
    let mut file = File::from(file);
    let mut hasher = ObjectHasher::new();
    let mut small = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer).doing(reading)?;
        if count == 0 {
            break;
        }
        if small.len() <= INLINE_MAX_BYTES {
            let room = INLINE_MAX_BYTES + 1 - small.len();
            small.extend_from_slice(&buffer[..count.min(room)]);
        }
        hasher.update(&buffer[..count]);
    }
    if small.len() <= INLINE_MAX_BYTES {
        return Ok(FileContent::Inline(small.into()));
    }
    let size_bytes = hasher.size_bytes();
    Ok(FileContent::Object {
        id: hasher.finish(),
        size_bytes,
    })
}
