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
use gantry_layer::compress::{self, Decoder};
use gantry_layer::merge;
use gantry_layer::record::{self, ObjectSource, ReadSeek};
use gantry_layer::tar::{ObjectSink, read_layer};
use gantry_layer::tree::{FileContent, Metadata, NodeKind, Tree};
use gantry_layer::verity::ObjectHasher;
use gantry_oci::{Algorithm, Digest, Kind, Limits, ObjectId};
use gantry_testkit::corpus::{self, Verdict};
use gantry_testkit::tar::{dir, file, set};

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

/// Reads and merges the layers of a case; the kind of what is wrong with them.
fn read_case(image: &gantry_testkit::image::Image) -> Result<(), (Kind, String)> {
    let limits = corpus::limits();
    let mut tree = Tree::new(Metadata::default());
    for blob in &image.blobs[1..] {
        let bytes = &blob[..];
        let decoder = Decoder::new(bytes, compress::detect(bytes), limits).unwrap();
        let layer = read_layer(decoder, &limits, &mut Objects::default(), io::sink())
            .map_err(|error| (error.kind(), error.to_string()))?;
        merge::apply(&mut tree, &layer.changes, &limits)
            .map_err(|error| (error.kind(), error.to_string()))?;
    }
    Ok(())
}

/// The corpus by the reader and the merger alone; the registry's tests bring it in by every other way.
#[test]
fn hostile_layers_get_their_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let context = corpus::Context::new(dir.path()).unwrap();
    for case in corpus::layers::all() {
        // Not of these bytes, but of what a configuration says of them.
        if case.id == "B12" {
            continue;
        }
        let found = read_case(&(case.build)(&context));
        match (case.verdict, &found) {
            (Verdict::Accept(_), Ok(())) => {}
            (Verdict::Reject(wanted), Err((kind, _))) if wanted == *kind => {}
            (wanted, _) => panic!(
                "{} ({}): {found:?} instead of {wanted:?}",
                case.id, case.what
            ),
        }
    }
}

#[test]
fn prefixes_and_whiteouts_are_read_as_their_dialects_mean_them() {
    // The prefix counts whatever version stands behind the magic, star's to its shorter end.
    let prefixed = |version: &[u8], trailer: &[u8]| {
        let block = set(file("name", ""), 345, b"prefix");
        set(set(block, 263, version), 508, trailer)
    };
    for block in [
        prefixed(b"00", b""),
        prefixed(b"\0\0", b""),
        prefixed(b"00", b"tar\0"),
    ] {
        find(&read(&[block]).unwrap(), "/prefix/name");
    }
    let changes = read(&[
        dir("d/"),
        file("d/.wh..wh..opq", ""),
        file("d/.wh.gone", ""),
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
