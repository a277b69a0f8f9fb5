// SPDX-License-Identifier: Apache-2.0
//! The hard-link face: a tree that any tool can use, made of links to objects.
//!
//! An inode has one owner, mode, time and set of xattrs. An object whose own happen to be the right
//! ones is linked; for any others a variant stands beside it, named by the contents *and* a digest
//! of that metadata, so the next image with the same file finds it. A variant whose inode has as
//! many names as the file system allows is followed by another, ".1", ".2", …
//!
//! Empty files are never linked: a link saves no room, and there are so many of them that the
//! ceiling would be met at once. Directories get their times last, when nothing changes them more.
//!
//! Everything goes through directory descriptors and single names in a private directory; nothing
//! of the image is followed.

use crate::error::StoreError;
use crate::ingest::writer::{create_in_fan, times};
use crate::layout::{self, object_name};
use crate::open::Store;
use gantry_layer::tree::{DeviceNumber, FileContent, Metadata, Node, NodeId, NodeKind, Tree};
use gantry_layer::verity::ObjectHasher;
use gantry_oci::{Algorithm, Digester, ObjectId, PathComponent};
use gantry_sys::root::RootDir;
use gantry_sys::{reflink, xattr};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Open directories held at once; deeper ones are found again by `..`.
const HELD_DEPTH: usize = 64;

/// Where linked files come from, and where new ones go.
pub(crate) struct Pool<'a> {
    pub(crate) staged_objects: &'a RootDir,
    pub(crate) staged_variants: &'a RootDir,
    pub(crate) store: &'a Store,
    pub(crate) may_chown: bool,
    pub(crate) sync_each: bool,
}

/// Builds the tree as `rootfs` in `stage`.
pub(crate) fn build(tree: &Tree, pool: &Pool<'_>, stage: &RootDir) -> Result<(), StoreError> {
    let mut builder = Builder {
        tree,
        pool,
        objects: open_if_there(pool.store, layout::OBJECTS)?,
        variants: open_if_there(pool.store, layout::VARIANTS)?,
        fresh: HashSet::new(),
        full: HashMap::new(),
        first_names: HashMap::new(),
        path: Vec::new(),
        root: None,
    };
    builder.build(stage).map_err(|source| StoreError::Io {
        action: format!("build tree at /{}", builder.path_lossy()),
        source,
    })
}

fn open_if_there(store: &Store, name: &str) -> Result<Option<RootDir>, StoreError> {
    match store.dir(name) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.kind() == gantry_oci::Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

struct Builder<'a> {
    tree: &'a Tree,
    pool: &'a Pool<'a>,
    objects: Option<RootDir>,
    variants: Option<RootDir>,
    /// Variants that this build, or an earlier one of the same ingest, staged.
    fresh: HashSet<String>,
    /// How many inodes of a variant are full.
    full: HashMap<String, u32>,
    /// Where nodes with several names, which no pool holds, got the first one.
    first_names: HashMap<NodeId, Vec<PathComponent>>,
    /// Where the builder is.
    path: Vec<PathComponent>,
    root: Option<OwnedFd>,
}

impl Builder<'_> {
    fn path_lossy(&self) -> String {
        let parts: Vec<_> = self
            .path
            .iter()
            .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
            .collect();
        parts.join("/")
    }

    fn build(&mut self, stage: &RootDir) -> io::Result<()> {
        rustix::fs::mkdirat(stage, layout::ROOTFS, Mode::RWXU)?;
        let root = open_dir(stage.as_fd(), layout::ROOTFS.as_bytes())?;
        self.root = Some(rustix::io::fcntl_dupfd_cloexec(&root, 0)?);
        let root = self.directory(root, self.tree.root(), 0)?;
        self.finish_directory(&root, self.tree.root())
    }

    /// Fills an open directory and gives it back.
    fn directory(&mut self, mut dir: OwnedFd, id: NodeId, depth: usize) -> io::Result<OwnedFd> {
        let tree = self.tree;
        for (name, child) in tree.children(id) {
            self.path.push(name.clone());
            let node = tree.node(child);
            if node.kind.is_directory() {
                rustix::fs::mkdirat(&dir, name.as_bytes(), Mode::RWXU)?;
                let inner = open_dir(dir.as_fd(), name.as_bytes())?;
                if depth < HELD_DEPTH {
                    let inner = self.directory(inner, child, depth + 1)?;
                    self.finish_directory(&inner, child)?;
                } else {
                    drop(dir);
                    let inner = self.directory(inner, child, depth + 1)?;
                    // Nobody else moves directories of a private place.
                    dir = open_dir(inner.as_fd(), b"..")?;
                    self.finish_directory(&inner, child)?;
                }
            } else {
                self.entry(dir.as_fd(), name, child, node)?;
            }
            self.path.pop();
        }
        Ok(dir)
    }

    fn finish_directory(&self, dir: &OwnedFd, id: NodeId) -> io::Result<()> {
        let metadata = &self.tree.node(id).metadata;
        self.own(dir.as_fd(), metadata)?;
        rustix::fs::fchmod(dir, mode_of(metadata))?;
        for (key, value) in &metadata.xattrs {
            xattr::set(dir, key, value)?;
        }
        rustix::fs::futimens(dir, &times(metadata.mtime_s, metadata.mtime_ns))?;
        if self.pool.sync_each {
            rustix::fs::fsync(dir)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &PathComponent,
        id: NodeId,
        node: &Node,
    ) -> io::Result<()> {
        if let NodeKind::File(content) = &node.kind
            && content.size_bytes() > 0
        {
            return self.link_from_pool(dir, name, content, &node.metadata);
        }
        if self.tree.names(id) > 1 {
            if let Some(first) = self.first_names.get(&id) {
                return self.link_again(first, dir, name);
            }
            self.first_names.insert(id, self.path.clone());
        }
        self.create_special(dir, name, node)
    }

    fn create_special(
        &self,
        dir: BorrowedFd<'_>,
        name: &PathComponent,
        node: &Node,
    ) -> io::Result<()> {
        let metadata = &node.metadata;
        match &node.kind {
            NodeKind::Symlink(target) => {
                rustix::fs::symlinkat(target.as_ref(), dir, name.as_bytes())?;
            }
            NodeKind::CharDevice(number) => {
                make_node(dir, name, FileType::CharacterDevice, Some(*number))?;
            }
            NodeKind::BlockDevice(number) => {
                make_node(dir, name, FileType::BlockDevice, Some(*number))?;
            }
            NodeKind::Fifo => make_node(dir, name, FileType::Fifo, None)?,
            NodeKind::Socket => make_node(dir, name, FileType::Socket, None)?,
            NodeKind::File(_) => make_node(dir, name, FileType::RegularFile, None)?,
            NodeKind::Directory { .. } => return Err(io::ErrorKind::InvalidInput.into()),
        }
        if self.pool.may_chown && (metadata.uid, metadata.gid) != (0, 0) {
            rustix::fs::chownat(
                dir,
                name.as_bytes(),
                Some(Uid::from_raw(metadata.uid)),
                Some(Gid::from_raw(metadata.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        if !matches!(node.kind, NodeKind::Symlink(_)) {
            // The entry was made a moment ago in a private directory: it is no symlink.
            rustix::fs::chmodat(dir, name.as_bytes(), mode_of(metadata), AtFlags::empty())?;
        }
        for (key, value) in &metadata.xattrs {
            xattr::set_at(dir, name.as_bytes(), key, value)?;
        }
        let stamps = times(metadata.mtime_s, metadata.mtime_ns);
        Ok(rustix::fs::utimensat(
            dir,
            name.as_bytes(),
            &stamps,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn link_again(
        &self,
        first: &[PathComponent],
        dir: BorrowedFd<'_>,
        name: &PathComponent,
    ) -> io::Result<()> {
        let (Some(root), Some((last, parents))) = (&self.root, first.split_last()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut parent = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
        for component in parents {
            parent = open_dir(parent.as_fd(), component.as_bytes())?;
        }
        Ok(rustix::fs::linkat(
            &parent,
            last.as_bytes(),
            dir,
            name.as_bytes(),
            AtFlags::empty(),
        )?)
    }

    fn link_from_pool(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &PathComponent,
        content: &FileContent,
        metadata: &Metadata,
    ) -> io::Result<()> {
        let id = match content {
            FileContent::Inline(bytes) => ObjectHasher::hash(bytes),
            FileContent::Object { id, .. } => {
                if self.link_object(id, dir, name, metadata)? {
                    return Ok(());
                }
                *id
            }
        };
        self.link_variant(&id, dir, name, content, metadata)
    }

    /// Links the object itself, if its inode says what it should and has room for a name.
    fn link_object(
        &self,
        id: &ObjectId,
        dir: BorrowedFd<'_>,
        name: &PathComponent,
        metadata: &Metadata,
    ) -> io::Result<bool> {
        if !metadata.xattrs.is_empty() {
            return Ok(false);
        }
        let object = object_name(id);
        for place in [Some(self.pool.staged_objects), self.objects.as_ref()]
            .into_iter()
            .flatten()
        {
            let stat = match rustix::fs::statat(place, object.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let same = Mode::from_raw_mode(stat.st_mode) == mode_of(metadata)
                && (stat.st_uid, stat.st_gid) == (metadata.uid, metadata.gid)
                && stat.st_mtime == metadata.mtime_s
                && u64::from(metadata.mtime_ns) == stat.st_mtime_nsec;
            if !same {
                return Ok(false);
            }
            return link(place, &object, dir, name).map(|linked| linked == Linked::Yes);
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("object {id} is missing"),
        ))
    }

    fn link_variant(
        &mut self,
        id: &ObjectId,
        dir: BorrowedFd<'_>,
        name: &PathComponent,
        content: &FileContent,
        metadata: &Metadata,
    ) -> io::Result<()> {
        let base = format!("{}-{}", object_name(id), metadata_key(metadata));
        loop {
            let turn = self.full.get(&base).copied().unwrap_or(0);
            let variant = if turn == 0 {
                base.clone()
            } else {
                format!("{base}.{turn}")
            };
            let linked = self.link_existing_variant(&variant, dir, name)?;
            match linked {
                Linked::Yes => return Ok(()),
                Linked::Full => {
                    self.full.insert(base.clone(), turn + 1);
                }
                Linked::Missing => {
                    self.create_variant(&variant, id, content, metadata)?;
                    self.fresh.insert(variant);
                }
            }
        }
    }

    fn link_existing_variant(
        &self,
        variant: &str,
        dir: BorrowedFd<'_>,
        name: &PathComponent,
    ) -> io::Result<Linked> {
        if !self.fresh.contains(variant)
            && let Some(variants) = &self.variants
        {
            let linked = link(variants, variant, dir, name)?;
            if linked != Linked::Missing {
                return Ok(linked);
            }
        }
        // An earlier commit of the same ingest may have staged it, too.
        link(self.pool.staged_variants, variant, dir, name)
    }

    fn create_variant(
        &self,
        variant: &str,
        id: &ObjectId,
        content: &FileContent,
        metadata: &Metadata,
    ) -> io::Result<()> {
        let mut file = File::from(create_in_fan(self.pool.staged_variants, variant, 0o600)?);
        match content {
            FileContent::Inline(bytes) => file.write_all(bytes)?,
            FileContent::Object { .. } => {
                reflink::copy_contents(self.open_object(id)?, &file)?;
            }
        }
        self.own(file.as_fd(), metadata)?;
        // After the owner: a chown clears setuid, and file capabilities.
        rustix::fs::fchmod(&file, mode_of(metadata))?;
        for (key, value) in &metadata.xattrs {
            xattr::set(&file, key, value)?;
        }
        rustix::fs::futimens(&file, &times(metadata.mtime_s, metadata.mtime_ns))?;
        if self.pool.sync_each {
            file.sync_all()?;
        }
        Ok(())
    }

    fn open_object(&self, id: &ObjectId) -> io::Result<OwnedFd> {
        let object = object_name(id);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(
            self.pool.staged_objects,
            object.as_str(),
            flags,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let objects = self.objects.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::fs::openat(
            objects,
            object.as_str(),
            flags,
            Mode::empty(),
        )?)
    }

    fn own(&self, fd: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
        if self.pool.may_chown && (metadata.uid, metadata.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linked {
    Yes,
    Missing,
    Full,
}

fn link(
    from: &RootDir,
    path: &str,
    dir: BorrowedFd<'_>,
    name: &PathComponent,
) -> io::Result<Linked> {
    match rustix::fs::linkat(from, path, dir, name.as_bytes(), AtFlags::empty()) {
        Ok(()) => Ok(Linked::Yes),
        Err(Errno::NOENT) => Ok(Linked::Missing),
        Err(Errno::MLINK) => Ok(Linked::Full),
        Err(errno) => Err(errno.into()),
    }
}

fn make_node(
    dir: BorrowedFd<'_>,
    name: &PathComponent,
    kind: FileType,
    number: Option<DeviceNumber>,
) -> io::Result<()> {
    let device = number.map_or(0, |number| rustix::fs::makedev(number.major, number.minor));
    Ok(rustix::fs::mknodat(
        dir,
        name.as_bytes(),
        kind,
        Mode::RUSR,
        device,
    )?)
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn mode_of(metadata: &Metadata) -> Mode {
    Mode::from_raw_mode(u32::from(metadata.mode) & 0o7777)
}

/// The 32 digits that tell variants of one content apart.
fn metadata_key(metadata: &Metadata) -> String {
    let Metadata {
        mode,
        uid,
        gid,
        mtime_s,
        mtime_ns,
        xattrs,
    } = metadata;
    let mut digester = Digester::new(Algorithm::Sha256);
    digester.update(b"gantry variant 1\0");
    digester.update(&mode.to_le_bytes());
    digester.update(&uid.to_le_bytes());
    digester.update(&gid.to_le_bytes());
    digester.update(&mtime_s.to_le_bytes());
    digester.update(&mtime_ns.to_le_bytes());
    digest_xattrs(&mut digester, xattrs);
    let mut hex = digester.finish().hex();
    hex.truncate(32);
    hex
}

fn digest_xattrs(digester: &mut Digester, xattrs: &BTreeMap<Box<[u8]>, Box<[u8]>>) {
    for bytes in xattrs.iter().flat_map(|(key, value)| [key, value]) {
        digester.update(&(bytes.len() as u64).to_le_bytes());
        digester.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_metadata_makes_another_variant() {
        let plain = Metadata::with_mode(0o644);
        let mut with_xattr = plain.clone();
        with_xattr
            .xattrs
            .insert(b"user.a".as_slice().into(), b"b".as_slice().into());
        let mut moved_boundary = plain.clone();
        moved_boundary
            .xattrs
            .insert(b"user.ab".as_slice().into(), b"".as_slice().into());
        let all = [
            plain.clone(),
            Metadata::with_mode(0o4644),
            Metadata {
                uid: 1,
                ..plain.clone()
            },
            Metadata {
                gid: 1,
                ..plain.clone()
            },
            Metadata {
                mtime_s: 1,
                ..plain.clone()
            },
            Metadata {
                mtime_ns: 1,
                ..plain
            },
            with_xattr,
            moved_boundary,
        ];
        let keys: HashSet<_> = all.iter().map(metadata_key).collect();
        assert_eq!(keys.len(), all.len());
        assert!(keys.iter().all(|key| key.len() == 32));
    }
}
