// SPDX-License-Identifier: Apache-2.0
//! Metadata images against other people's tools.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use gantry_layer::tree::{DeviceNumber, FileContent, NodeKind, Tree};
use gantry_layer::verity::ObjectHasher;
use gantry_layer::{dump, erofs};
use gantry_oci::{Algorithm, Digest, Limits};
use gantry_testkit::scratch::scratch;
use gantry_testkit::tool;
use gantry_testkit::tree::{Entry, Ignore, Kind, Snapshot, compare, snapshot};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn image(tree: &Tree) -> Vec<u8> {
    let mut image = Vec::new();
    erofs::write(tree, &mut image).unwrap();
    image
}

fn text(tree: &Tree) -> Vec<u8> {
    let mut text = Vec::new();
    dump::write(tree, &mut text).unwrap();
    text
}

/// What `mkcomposefs` makes of the same tree. It refuses some: its account of
/// attribute sizes (1.0.8) goes wrong where it replaces one.
fn composefs_image(dir: &Path, tree: &Tree) -> Option<Vec<u8>> {
    std::fs::write(dir.join("dump"), text(tree)).unwrap();
    let made = Command::new("mkcomposefs")
        .arg("--from-file")
        .arg(dir.join("dump"))
        .arg(dir.join("image"))
        .output()
        .unwrap();
    made.status
        .success()
        .then(|| std::fs::read(dir.join("image")).unwrap())
}

fn assert_same_image(dir: &Path, tree: &Tree) {
    let (ours, theirs) = (image(tree), composefs_image(dir, tree).unwrap());
    if ours != theirs {
        let at = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        std::fs::write(dir.join("ours"), &ours).unwrap();
        panic!(
            "images of {} and {} bytes differ first at {at:?}",
            ours.len(),
            theirs.len()
        );
    }
}

#[test]
fn image_is_byte_for_byte_that_of_mkcomposefs() {
    if !tool::missing(&["mkcomposefs"]).is_empty() {
        gantry_testkit::skip!("mkcomposefs is not installed");
    }
    let scratch = scratch();
    assert_same_image(scratch.path(), &Tree::new(metadata(0o755, &[])));
    assert_same_image(scratch.path(), &overlay_escapes());
    assert_same_image(scratch.path(), &everything());
}

#[test]
fn image_of_any_tree_is_that_of_mkcomposefs() {
    if !tool::missing(&["mkcomposefs"]).is_empty() {
        gantry_testkit::skip!("mkcomposefs is not installed");
    }
    let scratch = scratch();
    let compared = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 200,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&any_tree(), |tree| {
            prop_assert_eq!(&dump::parse(&text(&tree), &Limits::DEFAULT).unwrap(), &tree);
            let Some(theirs) = composefs_image(scratch.path(), &tree) else {
                return Ok(());
            };
            compared.set(compared.get() + 1);
            let ours = image(&tree);
            prop_assert!(
                ours == theirs,
                "{} and {} bytes, first difference at {:?}",
                ours.len(),
                theirs.len(),
                ours.iter().zip(&theirs).position(|(a, b)| a != b)
            );
            Ok(())
        })
        .unwrap();
    assert!(
        compared.get() >= 100,
        "only {} trees were compared",
        compared.get()
    );
}

#[test]
fn image_satisfies_fsck_erofs() {
    if !tool::missing(&["fsck.erofs"]).is_empty() {
        gantry_testkit::skip!("fsck.erofs is not installed");
    }
    let scratch = scratch();
    for tree in [
        everything(),
        overlay_escapes(),
        Tree::new(metadata(0o755, &[])),
    ] {
        let path = scratch.join("image");
        std::fs::write(&path, image(&tree)).unwrap();
        tool::run(Command::new("fsck.erofs").arg(&path)).unwrap();
    }
}

/// Unmounts when the test ends, however it ends.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, options: &str, source: &Path, target: PathBuf) -> Self {
        std::fs::create_dir(&target).unwrap();
        tool::run(
            Command::new("mount")
                .args(["-t", kind, "-o", options])
                .args([source, &target]),
        )
        .unwrap();
        Self(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the scratch directory then stays.
        let _status = Command::new("umount").arg(&self.0).status();
    }
}

/// What a process should see of a tree.
fn expected(tree: &Tree, contents: &HashMap<gantry_oci::ObjectId, Vec<u8>>) -> Snapshot {
    let mut first: HashMap<_, PathBuf> = HashMap::new();
    let device = |DeviceNumber { major, minor }: DeviceNumber| {
        u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12
    };
    let mut entries = BTreeMap::new();
    for entry in tree.walk() {
        let path = PathBuf::from(OsStr::from_bytes(&entry.path));
        let node = tree.node(entry.id);
        let file = |bytes: &[u8]| Kind::File {
            size_bytes: bytes.len() as u64,
            sha256: Digest::of(Algorithm::Sha256, bytes).hex(),
        };
        let kind = match &node.kind {
            NodeKind::Directory { .. } => Kind::Directory,
            NodeKind::File(FileContent::Inline(bytes)) => file(bytes),
            NodeKind::File(FileContent::Object { id, .. }) => file(&contents[id]),
            NodeKind::Symlink(target) => Kind::Symlink(OsStr::from_bytes(target).into()),
            NodeKind::CharDevice(number) => Kind::CharDevice(device(*number)),
            NodeKind::BlockDevice(number) => Kind::BlockDevice(device(*number)),
            NodeKind::Fifo => Kind::Fifo,
            NodeKind::Socket => Kind::Socket,
        };
        let hard_link_of = (tree.names(entry.id) > 1).then(|| {
            first
                .entry(entry.id)
                .or_insert_with(|| path.clone())
                .clone()
        });
        let metadata = &node.metadata;
        let xattrs = metadata
            .xattrs
            .iter()
            .map(|(name, value)| (OsStr::from_bytes(name).into(), value.to_vec()))
            .collect();
        entries.insert(
            path,
            Entry {
                kind,
                mode: u32::from(metadata.mode),
                uid: metadata.uid,
                gid: metadata.gid,
                mtime: (metadata.mtime_s, i64::from(metadata.mtime_ns)),
                xattrs,
                hard_link_of,
            },
        );
    }
    Snapshot(entries)
}

#[test]
fn privileged_mounted_image_shows_the_tree() {
    if !gantry_testkit::skip::is_root() {
        gantry_testkit::skip!("mounting needs root");
    }
    let scratch = scratch();
    let tree = everything();
    let mut contents = HashMap::new();
    for bytes in object_contents() {
        let id = ObjectHasher::hash(&bytes);
        let dir = scratch.join("objects").join(&id.hex()[..2]);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(&id.hex()[2..]), &bytes).unwrap();
        contents.insert(id, bytes);
    }
    let path = scratch.join("image");
    std::fs::write(&path, image(&tree)).unwrap();
    let lower = Mounted::new("erofs", "ro", &path, scratch.join("lower"));
    let options = format!(
        "ro,metacopy=on,redirect_dir=on,lowerdir={}::{}",
        lower.0.display(),
        scratch.join("objects").display()
    );
    let mounted = Mounted::new(
        "overlay",
        &options,
        Path::new("overlay"),
        scratch.join("mounted"),
    );

    let differences = compare(
        &snapshot(&mounted.0).unwrap(),
        &expected(&tree, &contents),
        &Ignore::default(),
    );
    assert!(differences.is_empty(), "{differences:#?}");
}
