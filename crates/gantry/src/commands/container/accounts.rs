// SPDX-License-Identifier: Apache-2.0
//! The users and groups of a root file system or an image, without mounting anything.

use std::path::{Path, PathBuf};

use gantry_layer::erofs;
use gantry_layer::tree::{FileContent, NodeKind, Tree};
use gantry_oci::{Kind, Limits};
use gantry_runtime::identity::MAX_FILE_BYTES;
use gantry_runtime::prepare::{Accounts, read_accounts};
use gantry_store::{DigestChoice, FaceChoice};
use gantry_sys::root::RootDir;
use gantry_sys::rootfs::RootfsLower;

use super::find::FoundImage;
use crate::exit::Failure;
use crate::input::read_capped;

/// Metadata of an image are read up to this size.
const IMAGE_MAX_BYTES: u64 = 1 << 30;

/// Those of a directory.
///
/// # Errors
/// It cannot be opened, or a file is too large.
pub fn of_directory(path: &Path) -> Result<Accounts, Failure> {
    let look = || format!("look up users in {}", path.display());
    let root = RootDir::open_trusted(path).map_err(|error| Failure::from(error).context(look()))?;
    read_accounts(&root).map_err(|error| Failure::new(error.kind(), error).context(look()))
}

/// Those of an image in a store: from the tree of hard links if it has one, else from its metadata
/// and the objects.
///
/// # Errors
/// The image has no face, or is damaged.
pub fn of_image(found: &FoundImage) -> Result<Accounts, Failure> {
    let plan = |face| {
        found
            .store
            .rootfs_plan(&found.record, face, DigestChoice::Best, None)
    };
    let plan = plan(FaceChoice::Hardlink).or_else(|_| plan(FaceChoice::Composefs))?;
    match plan.lower {
        RootfsLower::Directory { path } => of_directory(&path),
        RootfsLower::Composefs { image, objects, .. } => {
            let bytes = read_capped(&image, IMAGE_MAX_BYTES)?;
            let tree = erofs::read(&bytes, &Limits::default())
                .map_err(|error| Failure::new(error.kind(), error))?;
            let read = |name: &[u8]| read_account(&tree, &objects, name);
            Ok(Accounts {
                passwd: read(b"passwd")?,
                group: read(b"group")?,
            })
        }
    }
}

/// A regular file of `etc`; what is absent or anything else is empty.
fn read_account(tree: &Tree, objects: &[PathBuf], name: &[u8]) -> Result<Vec<u8>, Failure> {
    let node = tree
        .child(tree.root(), b"etc")
        .and_then(|etc| tree.child(etc, name));
    match node.map(|node| &tree.node(node).kind) {
        Some(NodeKind::File(FileContent::Inline(bytes))) => Ok(bytes.to_vec()),
        Some(NodeKind::File(FileContent::Object { id, .. })) => {
            let hex = id.digest().hex();
            let (dir, rest) = hex.split_at(2);
            let place = objects
                .iter()
                .map(|objects| objects.join(dir).join(rest))
                .find(|path| path.exists())
                .ok_or_else(|| {
                    Failure::message(Kind::Corrupt, format!("find object {id} in the store"))
                })?;
            read_capped(&place, MAX_FILE_BYTES)
        }
        _ => Ok(Vec::new()),
    }
}
