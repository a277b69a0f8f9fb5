// SPDX-License-Identifier: Apache-2.0
//! A tree's files for whoever reads package databases.

use std::fs::File;
use std::io::{self, Read as _};

use gantry_layer::tree::{FileContent, NodeId, NodeKind, Tree};
use gantry_packages::Files;
use gantry_store::Store;
use gantry_sys::Errno;
use gantry_sys::root::RootDir;

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;

/// An image's files, out of its tree and the store's objects.
pub(super) struct ImageFiles<'a> {
    pub(super) tree: &'a Tree,
    pub(super) store: &'a Store,
}

impl ImageFiles<'_> {
    /// The node at a path, following symlinks within the tree.
    fn find(&self, path: &str) -> Option<NodeId> {
        let mut pending: Vec<Vec<u8>> = components(path.as_bytes());
        let mut at = vec![self.tree.root()];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            let here = *at.last()?;
            if name == b".." {
                if at.len() > 1 {
                    at.pop();
                }
                continue;
            }
            let node = self.tree.child(here, &name)?;
            if let NodeKind::Symlink(target) = &self.tree.node(node).kind {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                if target.starts_with(b"/") {
                    at.truncate(1);
                }
                pending.extend(components(target));
                continue;
            }
            at.push(node);
        }
        at.pop()
    }
}

/// The components of a path, the last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}

impl Files for ImageFiles<'_> {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let children = self.find(dir).and_then(|id| self.tree.node(id).children());
        Ok(children
            .into_iter()
            .flat_map(|children| children.keys().map(ToString::to_string))
            .collect())
    }

    fn read(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(id) = self.find(path) else {
            return Ok(None);
        };
        match &self.tree.node(id).kind {
            NodeKind::File(FileContent::Inline(bytes)) => Ok(Some(bytes.to_vec())),
            NodeKind::File(FileContent::Object { id, .. }) => {
                let object = self.store.object(id).map_err(io::Error::other)?;
                read_within(&object, max_bytes).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// A container's files, out of its mounted root.
pub(super) struct ContainerFiles<'a>(pub(super) &'a RootDir);

impl Files for ContainerFiles<'_> {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        match self.0.list(dir.as_bytes()) {
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::NOTDIR) => Ok(Vec::new()),
            other => Ok(other?
                .into_iter()
                .map(|name| String::from_utf8_lossy(&name).into_owned())
                .collect()),
        }
    }

    fn read(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        match self.0.open_file(path.as_bytes()) {
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::NOTDIR) => Ok(None),
            other => read_within(&other?, max_bytes).map(Some),
        }
    }
}

fn read_within(file: &File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {max_bytes} bytes"),
        ));
    }
    Ok(bytes)
}
