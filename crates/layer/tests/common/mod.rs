// SPDX-License-Identifier: Apache-2.0
//! Trees that the tests of this crate share: one with everything, and random ones.

use std::collections::BTreeMap;

use gantry_layer::tree::{DeviceNumber, FileContent, Metadata, Node, NodeId, NodeKind, Tree};
use gantry_layer::verity::ObjectHasher;
use gantry_oci::PathComponent;
use proptest::prelude::*;

pub fn name(text: &[u8]) -> PathComponent {
    PathComponent::try_from(text).unwrap()
}

pub fn object(contents: &[u8]) -> NodeKind {
    NodeKind::File(FileContent::Object {
        id: ObjectHasher::hash(contents),
        size_bytes: contents.len() as u64,
    })
}

pub fn inline(contents: &[u8]) -> NodeKind {
    NodeKind::File(FileContent::Inline(contents.into()))
}

pub fn metadata(mode: u16, xattrs: &[(&str, &[u8])]) -> Metadata {
    let xattrs: BTreeMap<_, _> = xattrs
        .iter()
        .map(|(name, value)| (name.as_bytes().into(), (*value).into()))
        .collect();
    Metadata {
        mode,
        uid: 0,
        gid: 0,
        mtime_s: 1_700_000_000,
        mtime_ns: 5,
        xattrs,
    }
}

pub fn add(
    tree: &mut Tree,
    parent: NodeId,
    text: &str,
    metadata: Metadata,
    kind: NodeKind,
) -> NodeId {
    tree.insert(parent, name(text.as_bytes()), Node::new(metadata, kind))
        .unwrap()
}

/// The contents of the objects in [`everything`].
pub fn object_contents() -> Vec<Vec<u8>> {
    vec![vec![b's'; 5000], b"ping\n".repeat(20)]
}

/// A tree with each kind of node, attribute and oddity that a kernel can show.
pub fn everything() -> Tree {
    let mut tree = Tree::new(metadata(0o751, &[("user.root", b"yes")]));
    let root = tree.root();
    let plain = || metadata(0o644, &[]);
    let cap: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let bin = add(
        &mut tree,
        root,
        "bin",
        metadata(0o755, &[]),
        NodeKind::directory(),
    );
    let sh = add(
        &mut tree,
        bin,
        "sh",
        metadata(0o4755, &[("security.capability", cap)]),
        object(&[b's'; 5000]),
    );
    add(
        &mut tree,
        bin,
        "ping",
        metadata(0o755, &[("security.capability", cap), ("user.own", b"1")]),
        object(b"ping\n".repeat(20).as_slice()),
    );
    add(&mut tree, bin, "copy", plain(), object(&[b's'; 5000]));
    tree.link(root, name(b"again"), sh).unwrap();
    tree.link(bin, name(b"zsh"), sh).unwrap();
    add(&mut tree, root, "empty", plain(), inline(b""));
    add(
        &mut tree,
        root,
        "small",
        metadata(0o600, &[("user.text", b"a=b c\n")]),
        inline(b"in the image\n"),
    );
    add(
        &mut tree,
        root,
        "link",
        metadata(0o777, &[]),
        NodeKind::Symlink(b"bin/sh".as_slice().into()),
    );
    add(
        &mut tree,
        root,
        "long link",
        metadata(0o777, &[]),
        NodeKind::Symlink(vec![b'l'; 4095].into()),
    );
    add(
        &mut tree,
        root,
        "dash",
        metadata(0o777, &[]),
        NodeKind::Symlink(b"-".as_slice().into()),
    );
    let dev = add(
        &mut tree,
        root,
        "dev",
        metadata(0o755, &[]),
        NodeKind::directory(),
    );
    let device = |major, minor| DeviceNumber { major, minor };
    add(
        &mut tree,
        dev,
        "null",
        metadata(0o666, &[]),
        NodeKind::CharDevice(device(1, 3)),
    );
    add(
        &mut tree,
        dev,
        "sda300",
        metadata(0o660, &[]),
        NodeKind::BlockDevice(device(259, 70_000)),
    );
    add(&mut tree, dev, "pipe", plain(), NodeKind::Fifo);
    add(&mut tree, dev, "sock", plain(), NodeKind::Socket);
    let times = add(
        &mut tree,
        root,
        "times",
        metadata(0o1777, &[]),
        NodeKind::directory(),
    );
    for (text, mtime_s, mtime_ns) in [
        ("old", -1_000_000_000, 999_999_999),
        ("epoch", 0, 0),
        ("far", 1 << 40, 1),
    ] {
        add(
            &mut tree,
            times,
            text,
            Metadata {
                mtime_s,
                mtime_ns,
                ..plain()
            },
            inline(b"t"),
        );
    }
    for (text, uid, gid) in [
        ("u16", 65_535, 65_535),
        ("u17", 65_536, 0),
        ("most", u32::MAX - 1, u32::MAX - 1),
    ] {
        add(
            &mut tree,
            times,
            text,
            Metadata {
                uid,
                gid,
                ..plain()
            },
            inline(b"t"),
        );
    }
    let names = add(
        &mut tree,
        root,
        "names",
        metadata(0o755, &[]),
        NodeKind::directory(),
    );
    for byte in 1..=255_u8 {
        if byte != b'/' && byte != b'.' {
            tree.insert(names, name(&[byte]), Node::new(plain(), inline(&[byte])))
                .unwrap();
            tree.insert(names, name(&[byte; 255]), Node::new(plain(), inline(b"")))
                .unwrap();
        }
    }
    let acl: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    add(
        &mut tree,
        root,
        "acl",
        metadata(0o644, &[("system.posix_acl_access", acl)]),
        inline(b"acl"),
    );
    tree
}

/// What composefs must escape: overlay's own attributes, and whiteouts.
pub fn overlay_escapes() -> Tree {
    let mut tree = Tree::new(metadata(
        0o755,
        &[("security.selinux", b"system_u:object_r:root_t:s0\0")],
    ));
    let root = tree.root();
    add(
        &mut tree,
        root,
        "00",
        metadata(0o755, &[]),
        NodeKind::directory(),
    );
    add(
        &mut tree,
        root,
        "ff",
        metadata(0o644, &[("trusted.overlay.redirect", b"/away")]),
        inline(b"x"),
    );
    let dir = add(
        &mut tree,
        root,
        "dir",
        metadata(
            0o755,
            &[
                ("trusted.overlay.opaque", b"y"),
                ("user.overlay.whiteouts", b"?"),
            ],
        ),
        NodeKind::directory(),
    );
    add(
        &mut tree,
        dir,
        "gone",
        metadata(0o600, &[("user.x", b"1")]),
        NodeKind::CharDevice(DeviceNumber::default()),
    );
    add(
        &mut tree,
        dir,
        "twice",
        metadata(0o644, &[("trusted.overlay.overlay.metacopy", b"")]),
        object(&[1; 100]),
    );
    tree
}

#[derive(Debug, Clone)]
struct Plan {
    steps: Vec<(u8, u16, Vec<u8>, Metadata, u16, u32)>,
    root: Metadata,
}

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let id = prop_oneof![4 => Just(0_u32), 1 => 0..70_000_u32, 1 => any::<u32>()];
    let time = prop_oneof![4 => Just((9_i64, 9_u32)), 1 => (any::<i32>().prop_map(i64::from), 0..1_000_000_000_u32)];
    let key = prop_oneof![
        Just("user.a"),
        Just("user.bb"),
        Just("security.selinux"),
        Just("trusted.x"),
        Just("trusted.overlay.redirect"),
        Just("system.posix_acl_access"),
        Just("system.other"),
        Just("user.overlay.metacopy"),
    ];
    let value = prop_oneof![
        2 => Just(b"same".to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..20), 1 => prop::collection::vec(any::<u8>(), 0..3000)
    ];
    let xattrs = prop::collection::btree_map(
        key.prop_map(|key| key.as_bytes().into()),
        value.prop_map(Vec::into_boxed_slice),
        0..4,
    );
    (0..0o10000_u16, id.clone(), id, time, xattrs).prop_map(
        |(mode, uid, gid, (mtime_s, mtime_ns), xattrs)| Metadata {
            mode,
            uid,
            gid,
            mtime_s,
            mtime_ns,
            xattrs,
        },
    )
}

/// Trees of up to some hundred nodes of every kind, with hard links.
pub fn any_tree() -> impl Strategy<Value = Tree> {
    let name = prop_oneof![
        3 => "[a-f0-9]{1,2}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>().prop_map(|b| if b == 0 || b == b'/' { b'_' } else { b }), 1..12),
        1 => prop::collection::vec(1..=46_u8, 200..256),
    ];
    let step = (
        0..24_u8,
        any::<u16>(),
        name,
        any_metadata(),
        any::<u16>(),
        any::<u32>(),
    );
    (prop::collection::vec(step, 0..300), any_metadata())
        .prop_map(|(steps, root)| grow(Plan { steps, root }))
}

fn grow(plan: Plan) -> Tree {
    let mut tree = Tree::new(plan.root);
    let mut directories = vec![tree.root()];
    let mut others = Vec::new();
    for (what, parent, text, metadata, number, device) in plan.steps {
        let parent = directories[usize::from(parent) % directories.len()];
        let Ok(name) = PathComponent::try_from(text.as_slice()) else {
            continue;
        };
        let kind = match what {
            0..=5 => NodeKind::directory(),
            6..=10 => object(&number.to_le_bytes().repeat(40)),
            11 => NodeKind::File(FileContent::Object {
                id: ObjectHasher::hash(&text),
                size_bytes: u64::from(device) << 10 | 1,
            }),
            12..=14 => inline(&text[..text.len().min(64)]),
            15..=16 => NodeKind::Symlink(vec![b's'; usize::from(number % 4095) + 1].into()),
            17 => NodeKind::CharDevice(DeviceNumber {
                major: u32::from(number % 3),
                minor: device % 3,
            }),
            18 => NodeKind::BlockDevice(DeviceNumber {
                major: u32::from(number % 4096),
                minor: device % (1 << 20),
            }),
            19 => NodeKind::Fifo,
            20 => NodeKind::Socket,
            _ => {
                if let Some(target) = others.get(usize::from(number) % others.len().max(1)) {
                    // A taken name is skipped, like any other.
                    let _taken = tree.link(parent, name, *target);
                }
                continue;
            }
        };
        let directory = kind.is_directory();
        if let Ok(id) = tree.insert(parent, name, Node::new(metadata, kind)) {
            if directory {
                directories.push(id)
            } else {
                others.push(id)
            }
        }
    }
    tree
}
