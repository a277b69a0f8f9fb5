// SPDX-License-Identifier: Apache-2.0
//! Layers made by GNU tar, read, and made again from their record.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as the tests do"
)]

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::process::Command;

use gantry_layer::changes::{Changeset, Operation};
use gantry_layer::record::{self, ObjectSource, ReadSeek};
use gantry_layer::tar::{ObjectSink, read_layer};
use gantry_layer::tree::{FileContent, Metadata, NodeKind};
use gantry_layer::verity::ObjectHasher;
use gantry_oci::{Algorithm, Digest, Limits, ObjectId};

#[derive(Default)]
struct Objects(HashMap<ObjectId, Vec<u8>>);

impl ObjectSink for Objects {
    fn put(
        &mut self,
        _: &Metadata,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> io::Result<ObjectId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size_bytes);
        let id = ObjectHasher::hash(&bytes);
        self.0.insert(id, bytes);
        Ok(id)
    }
}

impl ObjectSource for Objects {
    fn open(&self, id: &ObjectId) -> io::Result<Box<dyn ReadSeek + '_>> {
        let bytes = self.0.get(id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes)))
    }
}

/// A directory with what tars find hard.
fn fill(dir: &Path) {
    let script = r#"
        set -eu
        mkdir -p sub/deeper
        printf small > sub/small
        head -c 5000 /dev/urandom > sub/file
        : > sub/empty
        ln sub/file sub/hard
        ln -s ../target sub/link
        touch -d '1969-12-31 23:59:58.25' sub/old
        touch -d '2026-01-02 03:04:05.123456789' sub/nanos
        long=$(printf 'n%.0s' $(seq 200)); echo text > "sub/$long"; ln -s "$long$long" "sub/link-$long"
        truncate -s 3M sparse; printf data | dd of=sparse bs=1 seek=1000000 conv=notrunc status=none
        head -c 9000 /dev/urandom | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
        truncate -s 50 tiny-sparse
        mkfifo sub/fifo
        chmod 4755 sub/file; chmod 1777 sub/deeper
    "#;
    let status = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(status.success());
}

fn tar(dir: &Path, options: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(options)
        .args(["-cf", "-", "-C"])
        .arg(dir)
        .arg(".")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn find<'a>(changes: &'a Changeset, path: &str) -> &'a Operation {
    let found = changes
        .changes
        .iter()
        .find(|change| change.path.to_string() == path);
    &found
        .unwrap_or_else(|| panic!("{path} is missing"))
        .operation
}

#[test]
fn a_layer_in_any_dialect_is_read_and_made_again_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        let bytes = tar(dir.path(), options);
        let mut objects = Objects::default();
        let mut stored = Vec::new();
        let layer = read_layer(&bytes[..], &Limits::DEFAULT, &mut objects, &mut stored)
            .unwrap_or_else(|error| panic!("{options:?}: {error:?}"));
        assert_eq!(layer.size_bytes, bytes.len() as u64);
        assert_eq!(
            *layer.diff_id.digest(),
            Digest::of(Algorithm::Sha256, &bytes),
            "{options:?}"
        );

        let content = |path: &str| match find(&layer.changes, path) {
            Operation::Upsert {
                kind: NodeKind::File(FileContent::Object { id, .. }),
                ..
            } => objects.0[id].clone(),
            Operation::Upsert {
                kind: NodeKind::File(FileContent::Inline(bytes)),
                ..
            } => bytes.to_vec(),
            other => panic!("{path} is {other:?}"),
        };
        for file in ["sparse", "tiny-sparse", "sub/small", "sub/empty"] {
            assert_eq!(
                content(&format!("/{file}")),
                std::fs::read(dir.path().join(file)).unwrap(),
                "{options:?}"
            );
        }
        if options[0] == "--format=posix" {
            let time = |path: &str| match find(&layer.changes, path) {
                Operation::Upsert { metadata, .. } => (metadata.mtime_s, metadata.mtime_ns),
                other => panic!("{path} is {other:?}"),
            };
            assert_eq!(time("/sub/old").1, 250_000_000);
            assert_eq!(time("/sub/nanos").1, 123_456_789);
        }

        assert_eq!(
            record::load(&stored[..], &Limits::DEFAULT).unwrap(),
            layer.changes,
            "{options:?}"
        );
        let mut again = Vec::new();
        record::rebuild_tar(&stored[..], &objects, &Limits::DEFAULT, &mut again).unwrap();
        assert!(again == bytes, "{options:?}: the tar made again differs");

        // Damage is told, wherever it is.
        for at in (0..stored.len()).step_by(stored.len() / 97 + 1) {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x20;
            // A bit that the decompressor ignores changes nothing.
            if let Ok(changes) = record::load(&damaged[..], &Limits::DEFAULT) {
                assert_eq!(
                    changes, layer.changes,
                    "byte {at} of the record was changed"
                );
            }
            assert!(
                record::load(&stored[..at], &Limits::DEFAULT).is_err(),
                "the record was cut at {at}"
            );
        }
        // So is a tar that ends early, unless it ends between two entries or in the zeros behind them.
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap() - 1024;
        for at in (1..last)
            .step_by(bytes.len() / 61 + 1)
            .filter(|at| at % 512 != 0)
        {
            let cut = read_layer(
                &bytes[..at],
                &Limits::DEFAULT,
                &mut Objects::default(),
                io::sink(),
            );
            assert!(cut.is_err(), "{options:?}: a tar cut at {at} was accepted");
        }
    }
}

/// A header block, for archives that no honest tool writes.
fn header(name: &str, type_flag: u8, size: u64, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[type_flag]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    checksum(&mut block);
    block
}

fn checksum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn extended(type_flag: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (body..)
            .find(|length| *length == body + length.to_string().len())
            .unwrap();
        data.extend(format!("{length} {key}={value}\n").bytes());
    }
    data_entry(header("pax", type_flag, data.len() as u64, ""), &data)
}

fn data_entry(header: Vec<u8>, data: &[u8]) -> Vec<u8> {
    let mut entry = [&header[..], data].concat();
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn with(mut block: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    checksum(&mut block);
    block
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    data_entry(header(name, b'0', data.len() as u64, ""), data)
}

fn read(parts: &[Vec<u8>]) -> Result<Changeset, String> {
    let bytes = [parts.concat(), vec![0; 1024]].concat();
    read_layer(
        &bytes[..],
        &Limits::DEFAULT,
        &mut Objects::default(),
        io::sink(),
    )
    .map(|layer| layer.changes)
    .map_err(|error| error.to_string())
}

#[test]
fn hostile_archives_are_refused() {
    let end = || vec![0; 1024];
    let long = "x".repeat(256);
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("N1 root as a symlink", vec![header("/.", b'2', 0, "x")]),
        ("N2 root as a file", vec![file(".", b"x")]),
        ("N3 empty name as a file", vec![file("", b"x")]),
        (
            "N5 name that leaves the root",
            vec![file("a/../../b", b"x")],
        ),
        ("N5b name that is ..", vec![header("..", b'5', 0, "")]),
        (
            "N7 component of 256 bytes",
            vec![extended(b'x', &[("path", &long)]), file("x", b"")],
        ),
        (
            "N10 file with a slash behind and data",
            vec![file("a/", b"x")],
        ),
        ("N10b file with a slash behind", vec![file("a/", b"")]),
        (
            "N10c symlink with a slash behind",
            vec![header("a/", b'2', 0, "x")],
        ),
        (
            "P-magic unknown",
            vec![with(header("a", b'0', 0, ""), 257, b"ustax")],
        ),
        (
            "P-old extension in an archive before POSIX",
            vec![
                data_entry(with(header("l", b'L', 2, ""), 257, &[0; 8]), b"x\0"),
                file("a", b""),
            ],
        ),
        (
            "P-empty path",
            vec![extended(b'x', &[("path", "")]), header("a", b'5', 0, "")],
        ),
        (
            "P11e sparse name alone",
            vec![extended(b'x', &[("GNU.sparse.name", "b")]), file("a", b"")],
        ),
        (
            "P11f two sparse maps",
            vec![
                extended(
                    b'x',
                    &[
                        ("GNU.sparse.size", "4"),
                        ("GNU.sparse.map", "0,4"),
                        ("GNU.sparse.offset", "0"),
                        ("GNU.sparse.numbytes", "4"),
                    ],
                ),
                file("a", b"abcd"),
            ],
        ),
        (
            "P20 another character set",
            vec![extended(b'x', &[("hdrcharset", "KOI8-R")]), file("a", b"")],
        ),
        ("N14 whiteout of nothing", vec![file(".wh.", b"")]),
        ("W1 whiteout of ..", vec![file(".wh...", b"")]),
        ("W3 whiteout of .", vec![file(".wh..", b"")]),
        ("W-data whiteout with data", vec![file(".wh.x", &[0; 100])]),
        ("W-parent whiteout as a parent", vec![file(".wh.x/y", b"")]),
        (
            "H2 hard link out of the root",
            vec![header("a", b'1', 0, "../../etc/passwd")],
        ),
        (
            "H-root hard link to the root",
            vec![header("a", b'1', 0, "/")],
        ),
        (
            "H-data hard link with data",
            vec![data_entry(header("a", b'1', 3, "b"), b"abc")],
        ),
        ("S9 symlink to nothing", vec![header("a", b'2', 0, "")]),
        (
            "P1 size in the extended header alone",
            vec![extended(b'x', &[("size", "512")]), header("a", b'0', 0, "")],
        ),
        (
            "P2 two sizes",
            vec![extended(b'x', &[("size", "3")]), file("a", b"abcd")],
        ),
        (
            "P3 size twice",
            vec![
                extended(b'x', &[("size", "3"), ("size", "3")]),
                file("a", b"abc"),
            ],
        ),
        (
            "P4 negative size",
            vec![extended(b'x', &[("size", "-1")]), file("a", b"")],
        ),
        (
            "P4b negative size in the header",
            vec![with(header("a", b'0', 0, ""), 124, &[0xff; 12])],
        ),
        (
            "P5 malformed record",
            vec![
                data_entry(header("p", b'x', 6, ""), b"99 a=b"),
                file("a", b""),
            ],
        ),
        (
            "P6 global path",
            vec![extended(b'g', &[("path", "x")]), file("a", b"")],
        ),
        (
            "P6b global size",
            vec![extended(b'g', &[("size", "5")]), file("a", b"")],
        ),
        (
            "P7 two long names",
            vec![
                data_entry(header("l", b'L', 2, ""), b"x\0"),
                extended(b'x', &[("path", "y")]),
                file("a", b""),
            ],
        ),
        (
            "P8 long name with a NUL inside",
            vec![
                data_entry(header("l", b'L', 4, ""), b"a\0b\0"),
                file("a", b""),
            ],
        ),
        (
            "P9 huge extended header",
            vec![header("p", b'x', 1 << 30, "")],
        ),
        (
            "P10 record with a NUL",
            vec![extended(b'x', &[("a\0b", "c")]), file("a", b"")],
        ),
        (
            "P11 sparse map that overlaps",
            vec![
                extended(
                    b'x',
                    &[("GNU.sparse.size", "100"), ("GNU.sparse.map", "5,2,4,2")],
                ),
                file("a", b"abcd"),
            ],
        ),
        (
            "P11b sparse map beyond the file",
            vec![
                extended(b'x', &[("GNU.sparse.size", "4"), ("GNU.sparse.map", "2,4")]),
                file("a", b"abcd"),
            ],
        ),
        (
            "P11c sparse file of 8 EiB",
            vec![
                extended(
                    b'x',
                    &[
                        ("GNU.sparse.size", "9223372036854775807"),
                        ("GNU.sparse.map", "0,4"),
                    ],
                ),
                file("a", b"abcd"),
            ],
        ),
        (
            "P11d endless sparse map",
            vec![
                extended(
                    b'x',
                    &[
                        ("GNU.sparse.major", "1"),
                        ("GNU.sparse.minor", "0"),
                        ("GNU.sparse.realsize", "9"),
                    ],
                ),
                file("a", b"99999999999\n"),
            ],
        ),
        ("P12 unknown type", vec![header("a", b'Z', 0, "")]),
        ("P12b volume label", vec![header("a", b'V', 0, "")]),
        ("P12c multi-volume", vec![header("a", b'M', 0, "")]),
        (
            "P12d extended header at the end",
            vec![extended(b'x', &[("path", "x")])],
        ),
        (
            "P13 wrong checksum",
            vec![{
                let mut h = header("a", b'0', 0, "");
                h[0] = b'b';
                h
            }],
        ),
        (
            "P14 data after the end",
            vec![file("a", b""), end(), file("hidden", b"x")],
        ),
        (
            "P14b one zero block, then more",
            vec![file("a", b""), vec![0; 512], file("hidden", b"x")],
        ),
        ("P15 truncated data", vec![header("a", b'0', 1 << 20, "")]),
        (
            "P16 uid of 2^32-1",
            vec![extended(b'x', &[("uid", "4294967295")]), file("a", b"")],
        ),
        (
            "P16b uid of 2^63",
            vec![
                extended(b'x', &[("uid", "9223372036854775808")]),
                file("a", b""),
            ],
        ),
        (
            "P16c negative uid",
            vec![with(header("a", b'0', 0, ""), 108, &[0xff; 8])],
        ),
        (
            "P17 time that is none",
            vec![extended(b'x', &[("mtime", "NaN")]), file("a", b"")],
        ),
        (
            "P17b time far away",
            vec![
                extended(b'x', &[("mtime", "1000000000000000000")]),
                file("a", b""),
            ],
        ),
        (
            "P18 device number too large",
            vec![with(header("a", b'3', 0, ""), 329, b"7777777\0")],
        ),
        (
            "M4 xattr too large",
            vec![
                extended(b'x', &[("SCHILY.xattr.user.x", &"v".repeat(65537))]),
                file("a", b""),
            ],
        ),
        (
            "D directory with data",
            vec![data_entry(header("a/", b'5', 3, ""), b"abc")],
        ),
    ];
    for (name, parts) in cases {
        assert!(read(&parts).is_err(), "{name} was accepted");
    }
}

#[test]
fn unusual_archives_that_are_meant_well_are_accepted() {
    for (name, parts) in [
        (
            "C1 absolute hard link target",
            vec![file("a", b"x"), header("b", b'1', 0, "/a")],
        ),
        ("N4 two slashes", vec![file("//a", b"x")]),
        (
            "N6 names that are no text",
            vec![extended(b'x', &[("path", "a\nb")]), file("x", b"")],
        ),
        (
            "N11 the same name again",
            vec![file("a", b"1"), file("a", b"2")],
        ),
        ("N13 backslashes", vec![file("a\\..\\b", b"")]),
        ("P13 no end blocks are needed", vec![file("a", b"")]),
        (
            "G comment of git",
            vec![extended(b'g', &[("comment", "0123")]), file("a", b"")],
        ),
        (
            "W9 litter of aufs",
            vec![
                header(".wh..wh.plnk/", b'5', 0, ""),
                file(".wh..wh.plnk/1.2", b"x"),
            ],
        ),
        (
            "M3 security labels",
            vec![
                extended(b'x', &[("SCHILY.xattr.security.selinux", "x")]),
                file("a", b""),
            ],
        ),
        ("7 contiguous file", vec![header("a", b'7', 0, "")]),
        ("old directory", vec![header("a/", 0, 0, "")]),
    ] {
        read(&parts).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // The prefix counts whatever version stands behind the magic, star's to its shorter end.
    let prefixed = |version: &[u8], trailer: &[u8]| {
        let block = with(header("name", b'0', 0, ""), 345, b"prefix");
        with(with(block, 263, version), 508, trailer)
    };
    for block in [
        prefixed(b"00", b""),
        prefixed(b"\0\0", b""),
        prefixed(b"00", b"tar\0"),
    ] {
        find(&read(&[block]).unwrap(), "/prefix/name");
    }
    let changes = read(&[
        header("d/", b'5', 0, ""),
        file("d/.wh..wh..opq", b""),
        file("d/.wh.gone", b""),
    ])
    .unwrap();
    let text: Vec<_> = changes
        .changes
        .iter()
        .map(|change| change.path.to_string())
        .collect();
    assert_eq!(text, ["/d", "/d", "/d/gone"]);
    assert_eq!(*find(&changes, "/d/gone"), Operation::Whiteout);
}
