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
use gantry_layer::tree::{DeviceNumber, FileContent, Metadata, NodeKind, Tree};
use gantry_layer::verity::ObjectHasher;
use gantry_layer::{dump, erofs};
use gantry_oci::{Algorithm, Digest, Limits, RelPath};
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

fn path(text: &str) -> RelPath {
    RelPath::from_archive_name(text.as_bytes(), &Limits::DEFAULT).unwrap()
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

#[test]
fn image_reads_back_as_the_tree_it_was_written_from() {
    assert_eq!(
        erofs::read(&image(&everything()), &Limits::DEFAULT).unwrap(),
        everything()
    );
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&any_tree(), |tree| {
            prop_assert!(erofs::read(&image(&tree), &Limits::DEFAULT).unwrap() == tree);
            Ok(())
        })
        .unwrap();
}

#[test]
fn image_with_damage_is_an_error_or_a_tree_but_never_a_panic() {
    let images = [image(&everything()), image(&overlay_escapes())];
    let damage = (
        0..2_usize,
        prop::collection::vec((any::<u32>(), any::<u8>()), 1..8),
        any::<u32>(),
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&damage, |(which, bytes, end)| {
            let mut image = images[which].clone();
            for (at, value) in bytes {
                // Most of the meaning is in the first kilobytes.
                let len = if at % 4 == 0 { image.len() } else { 8192 };
                image[1024 + at as usize % (len - 1024)] = value;
            }
            if end % 8 == 0 {
                image.truncate(end as usize % image.len());
            }
            if let Ok(tree) = erofs::read(&image, &Limits::DEFAULT) {
                prop_assert!(tree.len() < 10_000);
            }
            Ok(())
        })
        .unwrap();
}

/// Many names, deep nesting and many links at once.
fn large() -> Tree {
    let mut tree = Tree::new(metadata(0o755, &[]));
    let plain = || metadata(0o644, &[]);
    let root = tree.root();
    let many = add(
        &mut tree,
        root,
        "many",
        metadata(0o755, &[]),
        NodeKind::directory(),
    );
    for number in 0..12_000 {
        add(
            &mut tree,
            many,
            &format!("file {number:05}"),
            plain(),
            inline(b""),
        );
    }
    let linked = add(&mut tree, root, "linked", plain(), object(&[7; 70]));
    let links = add(
        &mut tree,
        root,
        "links",
        metadata(0o755, &[]),
        NodeKind::directory(),
    );
    for number in 0..70_000 {
        tree.link(links, name(number.to_string().as_bytes()), linked)
            .unwrap();
    }
    let mut deep = root;
    for _ in 0..1000 {
        deep = add(
            &mut tree,
            deep,
            "d",
            metadata(0o755, &[]),
            NodeKind::directory(),
        );
    }
    let wide = vec![b'v'; 15_000];
    add(
        &mut tree,
        deep,
        "wide",
        metadata(0o644, &[("user.wide", &wide)]),
        inline(b"w"),
    );
    let sparse = FileContent::Object {
        id: ObjectHasher::hash(b"sparse"),
        size_bytes: 1 << 43,
    };
    add(&mut tree, root, "huge", plain(), NodeKind::File(sparse));
    tree
}

#[test]
fn large_tree_is_written_as_by_mkcomposefs_and_read_back() {
    let tree = large();
    assert_eq!(
        tree.link_count(tree.lookup(&path("linked")).unwrap()),
        70_001
    );
    assert!(erofs::read(&image(&tree), &Limits::DEFAULT).unwrap() == tree);
    assert!(dump::parse(&text(&tree), &Limits::DEFAULT).unwrap() == tree);
    if !tool::missing(&["mkcomposefs"]).is_empty() {
        gantry_testkit::skip!("mkcomposefs is not installed");
    }
    assert_same_image(scratch().path(), &tree);
}

#[test]
fn what_the_format_cannot_hold_is_refused_with_its_path() {
    let long = vec![0; 65_536];
    let half = vec![0; 40_000];
    let plain = || metadata(0o644, &[]);
    let name_256 = format!("user.{}", "n".repeat(251));
    let object = |size_bytes| FileContent::Object {
        id: ObjectHasher::hash(b""),
        size_bytes,
    };
    for (metadata, kind, problem) in [
        (
            metadata(0, &[("user.a", &long)]),
            inline(b""),
            "extended attribute longer than",
        ),
        (
            metadata(0, &[("user.a", &half), ("user.b", &half)]),
            inline(b""),
            "65535 bytes together",
        ),
        (
            metadata(0, &[(&name_256, b"")]),
            inline(b""),
            "invalid name",
        ),
        (metadata(0, &[("", b"")]), inline(b""), "invalid name"),
        (plain(), NodeKind::Symlink(Box::default()), "symlink target"),
        (
            plain(),
            NodeKind::Symlink(vec![b's'; 4096].into()),
            "symlink target",
        ),
        (
            plain(),
            NodeKind::Symlink(b"a\0b".as_slice().into()),
            "symlink target",
        ),
        (
            plain(),
            NodeKind::CharDevice(DeviceNumber {
                major: 4096,
                minor: 0,
            }),
            "device number",
        ),
        (plain(), inline(&[0; 5000]), "too long to be inline"),
        (plain(), NodeKind::File(object(u64::MAX)), "is too long"),
        (
            Metadata {
                mtime_ns: 1_000_000_000,
                ..plain()
            },
            inline(b""),
            "modification time",
        ),
    ] {
        let mut tree = Tree::new(common::metadata(0o755, &[]));
        let root = tree.root();
        add(&mut tree, root, "bad one", metadata, kind);
        let error = erofs::write(&tree, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), gantry_oci::Kind::InvalidInput);
        let message = error.to_string();
        assert!(
            message.contains("/bad one") && message.contains(problem),
            "{message}"
        );
    }
}

#[test]
fn image_id_is_the_verity_digest_of_the_image() {
    let mut bytes = Vec::new();
    let summary = erofs::write(&everything(), &mut bytes).unwrap();
    assert_eq!(summary.id, ObjectHasher::hash(&bytes));
    assert_eq!(summary.size_bytes, bytes.len() as u64);
    assert_eq!(bytes.len() % 4096, 0);
}

/// Not a test of correctness: prints how long an image of 50,000 files takes.
#[test]
#[ignore = "a measurement; run in release mode"]
fn measure_writing_fifty_thousand_files() {
    let mut tree = Tree::new(metadata(0o755, &[]));
    let mut directory = tree.root();
    for number in 0..50_000_u32 {
        if number % 25 == 0 {
            let root = tree.root();
            directory = add(
                &mut tree,
                root,
                &format!("dir{number}"),
                metadata(0o755, &[]),
                NodeKind::directory(),
            );
        }
        let times = Metadata {
            mtime_s: i64::from(number),
            ..metadata(0o644, &[])
        };
        add(
            &mut tree,
            directory,
            &format!("some file {number}"),
            times,
            object(&number.to_le_bytes().repeat(20)),
        );
    }
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.clear();
        let started = std::time::Instant::now();
        erofs::write(&tree, &mut bytes).unwrap();
        let written = started.elapsed();
        let read = erofs::read(&bytes, &Limits::DEFAULT).unwrap();
        let (total, equal) = (started.elapsed(), read == tree);
        assert!(equal);
        gantry_testkit::skip::report(
            "measure",
            &format!(
                "{} bytes: write {written:?}, read {:?}",
                bytes.len(),
                total - written
            ),
        );
    }
}

#[test]
fn image_over_the_limits_is_refused_as_unsafe() {
    let limits = Limits {
        nodes: 100,
        ..Limits::DEFAULT
    };
    let error = erofs::read(&image(&everything()), &limits).unwrap_err();
    assert_eq!(error.kind(), gantry_oci::Kind::Unsafe);
}

/// The lines of a dump with the attributes of each sorted: in images those that
/// several nodes share come last.
fn sorted_xattrs(dump: &str) -> Vec<Vec<&str>> {
    let mut lines: Vec<Vec<_>> = dump.lines().map(|line| line.split(' ').collect()).collect();
    for fields in &mut lines {
        fields[11..].sort_unstable();
    }
    lines
}

#[test]
fn dump_is_what_composefs_info_prints_of_the_image() {
    if !tool::missing(&["composefs-info"]).is_empty() {
        gantry_testkit::skip!("composefs-info is not installed");
    }
    let scratch = scratch();
    let file = scratch.join("image");
    // A very deep tree would overflow that program's stack.
    for tree in [everything(), Tree::new(metadata(0o755, &[]))] {
        std::fs::write(&file, image(&tree)).unwrap();
        let theirs = tool::text("composefs-info", [OsStr::new("dump"), file.as_os_str()]).unwrap();
        let ours = String::from_utf8(text(&tree)).unwrap();
        for (ours, theirs) in sorted_xattrs(&ours).iter().zip(&sorted_xattrs(&theirs)) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.lines().count(), theirs.lines().count());
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
