// SPDX-License-Identifier: Apache-2.0
//! Damaged archives, by other people's readers: whatever we accept, GNU tar and Python read as we do.
//!
//! An archive that two readers understand differently shows a scanner one image and runs another. The archives here are
//! honest ones with a few bytes changed where it matters, and checksums mended; most are refused, and may be.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as the tests do"
)]

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_layer::changes::Operation;
use gantry_layer::tar::{ObjectSink, read_layer};
use gantry_layer::tree::{FileContent, Metadata, NodeKind};
use gantry_layer::verity::ObjectHasher;
use gantry_oci::{Limits, ObjectId};
use gantry_testkit::tar::{self, BLOCK};
use gantry_testkit::{skip, tool};

/// Archives to make; GANTRY_TAR_MUTANTS asks for more.
const MUTANTS: u64 = 4000;

struct Hashed;

impl ObjectSink for Hashed {
    fn put(
        &mut self,
        _: &Metadata,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> io::Result<ObjectId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size_bytes);
        Ok(ObjectHasher::hash(&bytes))
    }
}

/// A few lines of xorshift: the same archives every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Honest archives, one for each dialect and extension.
fn seeds() -> Vec<Vec<u8>> {
    let long_name = "n".repeat(150);
    let content = [b'c'; 700];
    let plain = [
        tar::dir("d/"),
        tar::file("d/a", "x"),
        tar::file("d/b", content),
        tar::symlink("d/l", "a"),
        tar::hard_link("d/h", "d/a"),
        tar::char_device("d/c", 1, 3),
        tar::header(b'6', "d/p", "", 0),
    ];
    let pax = [
        tar::pax(&[("path", "d/long"), ("mtime", "12.5")]),
        tar::file("d/short", content),
        tar::pax(&[("size", "700"), ("uid", "70000")]),
        tar::file("e", content),
        tar::pax(&[("linkpath", "d/long")]),
        tar::hard_link("f", "x"),
        tar::extended(b'g', &[("comment", "c")]),
        tar::file("g", "y"),
    ];
    let gnu = [
        tar::long(b'L', format!("{long_name}\0").as_bytes()),
        tar::file("n", content),
        tar::long(b'K', format!("{long_name}\0").as_bytes()),
        tar::symlink("l", "x"),
        tar::file("after", "z"),
    ];
    let posix = [
        tar::set(
            tar::set(tar::file("name", content), 263, b"00"),
            345,
            b"prefix",
        ),
        tar::set(tar::dir("other/"), 263, b"00"),
        tar::file("last", "x"),
    ];
    let old = [
        tar::set(tar::header(0, "d/", "", 0), 257, &[0; 8]),
        tar::set(tar::file("d/f", content), 257, &[0; 8]),
    ];
    [&plain[..], &pax, &gnu, &posix, &old]
        .map(tar::join)
        .to_vec()
}

/// Where the headers are in an honest archive.
fn headers(archive: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let mut found = Vec::new();
    while archive[at] != 0 {
        found.push(at);
        let size = std::str::from_utf8(&archive[at + 124..at + 135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap();
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
    found
}

/// Fields of a header, and values that a field may get in place of its own.
const FIELDS: [(usize, usize); 12] = [
    (0, 100),
    (100, 8),
    (108, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 6),
    (263, 2),
    (329, 8),
    (345, 155),
    (500, 12),
];
const VALUES: [&[u8]; 22] = [
    b"",
    b"\0",
    b" ",
    b"0",
    b"00000000001\0",
    b"00000001000\0",
    b"     12 \0",
    b"0000000700 ",
    b"-1",
    b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"a/b",
    b"../x",
    b"/abs",
    b"./",
    b"d/",
    b"x",
    b"ustar\0",
    b"ustar  \0",
    b"7",
    b"5",
    b"S",
];

/// Changes one to three places.
fn mutant(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut archive = seed.to_vec();
    let headers = headers(seed);
    for _ in 0..=random.below(3) {
        let at = *random.one_of(&headers);
        let contents = at + BLOCK;
        match random.below(8) {
            // Contents of an extension, or of a file.
            0 if contents < archive.len() => {
                let byte = contents + random.below(40.min(archive.len() - contents));
                archive[byte] = *random.one_of(b"0123456789 =\n/.xs\0");
            }
            // A block comes, goes, or comes twice.
            1 => drop(archive.drain(at..at + BLOCK)),
            2 => {
                let block = archive[at..at + BLOCK].to_vec();
                archive.splice(at..at, block);
            }
            3 => drop(archive.splice(at..at, vec![0; BLOCK])),
            4 => {
                let (from, length) = *random.one_of(&FIELDS);
                archive[at + from + random.below(length)] =
                    *random.one_of(b"01257xgLKSD \0/.\x80\xff");
            }
            _ => {
                let (from, length) = *random.one_of(&FIELDS);
                let value = *random.one_of(&VALUES);
                let field = &mut archive[at + from..at + from + length];
                field.fill(0);
                let count = value.len().min(length);
                field[..count].copy_from_slice(&value[..count]);
            }
        }
        // Headers may have moved: whatever looks like one by its place gets its checksum.
        let end = archive.len().min(at + BLOCK);
        if end == at + BLOCK && archive[at..end].iter().any(|byte| *byte != 0) {
            let part = tar::set(archive[at..end].to_vec(), 0, &archive[at..=at]);
            archive[at..end].copy_from_slice(&part);
        }
        if archive.len() < seed.len() / 2 {
            break;
        }
    }
    archive
}

/// An entry as all readers tell it: what it is, its name, its size, its target.
type Entry = (char, String, u64, String);

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn ours(archive: &[u8]) -> Option<Vec<Entry>> {
    let layer = read_layer(archive, &Limits::DEFAULT, &mut Hashed, io::sink()).ok()?;
    let entries = layer.changes.changes.iter().map(|change| {
        let (kind, size, target) = match &change.operation {
            Operation::Upsert { kind, .. } => match kind {
                NodeKind::File(FileContent::Inline(bytes)) => {
                    ('f', bytes.len() as u64, String::new())
                }
                NodeKind::File(FileContent::Object { size_bytes, .. }) => {
                    ('f', *size_bytes, String::new())
                }
                NodeKind::Symlink(target) => ('l', 0, printable(target)),
                NodeKind::CharDevice(_) => ('c', 0, String::new()),
                NodeKind::BlockDevice(_) => ('b', 0, String::new()),
                NodeKind::Fifo => ('p', 0, String::new()),
                _ => ('d', 0, String::new()),
            },
            Operation::HardLink { target } => ('h', 0, printable(target.as_bytes())),
            other => panic!("no seed has {other:?}"),
        };
        (kind, printable(change.path.as_bytes()), size, target)
    });
    Some(entries.collect())
}

/// Prints, for each file named in the arguments, a line for each member, then an empty one; `!` where it fails.
const PYTHON: &str = r#"
import sys, tarfile
def clean(name):
    raw = name.encode("utf-8", "surrogateescape")
    return b"/".join(part for part in raw.split(b"/") if part not in (b"", b"."))
def escape(raw):
    special = {9: "\\t", 10: "\\n", 13: "\\r", 34: "\\\"", 39: "\\'", 92: "\\\\"}
    return "".join(special.get(b) or (chr(b) if 32 <= b < 127 else "\\x%02x" % b) for b in raw)
kinds = {tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p", tarfile.DIRTYPE: "d"}
for path in sys.argv[1:]:
    try:
        lines = []
        with tarfile.open(path, "r:", errors="surrogateescape", encoding="utf-8") as archive:
            for m in archive:
                kind = kinds.get(m.type, "f")
                target = b""
                if kind == "l":
                    target = m.linkname.encode("utf-8", "surrogateescape")
                if kind == "h":
                    target = clean(m.linkname)
                lines.append("\x1f".join([kind, escape(clean(m.name)), str(m.size if kind == "f" else 0), escape(target)]))
        print("\n".join(lines + [""]))
    except Exception as error:
        print("!" + repr(error))
        print()
"#;

fn by_python(paths: &[String]) -> Vec<Result<Vec<Entry>, String>> {
    let mut command = Command::new("python3");
    let output = tool::run(command.args(["-c", PYTHON]).args(paths)).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut all = Vec::new();
    let mut entries = Vec::new();
    let mut failed = None;
    for line in text.lines() {
        match (line, line.strip_prefix('!')) {
            ("", _) => {
                let entries = std::mem::take(&mut entries);
                all.push(failed.take().map_or(Ok(entries), Err));
            }
            (_, Some(error)) => failed = Some(error.to_owned()),
            _ => {
                let parts: Vec<&str> = line.split('\u{1f}').collect();
                let kind = parts[0].chars().next().unwrap();
                entries.push((
                    kind,
                    parts[1].to_owned(),
                    parts[2].parse().unwrap(),
                    parts[3].to_owned(),
                ));
            }
        }
    }
    all
}

/// The names as GNU tar lists them; an error if it warns of anything.
fn by_gnu(archive: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("tar")
        .args([
            "--list",
            "--absolute-names",
            "--quoting-style=escape",
            "--file",
        ])
        .arg(archive)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let clean = |line: &str| {
        let parts = line.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.collect::<Vec<_>>().join("/")
    };
    Ok(text.lines().map(clean).collect())
}

#[test]
fn what_is_accepted_is_read_alike_by_others() {
    let missing = tool::missing(&["python3", "tar"]);
    if !missing.is_empty() {
        skip!("{} not installed", missing.join(", "));
    }
    let wanted = std::env::var("GANTRY_TAR_MUTANTS").map_or(MUTANTS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    let seeds = seeds();
    let mut accepted = Vec::new();
    for number in 0..wanted {
        let seed = &seeds[random.below(seeds.len())];
        let archive = mutant(seed, &mut random);
        if archive == *seed {
            continue;
        }
        if let Some(entries) = ours(&archive) {
            let path = dir.path().join(format!("{number}.tar"));
            std::fs::write(&path, &archive).unwrap();
            accepted.push((path.display().to_string(), entries));
        }
    }
    assert!(
        accepted.len() as u64 > wanted / 20,
        "only {} were accepted",
        accepted.len()
    );
    let paths: Vec<String> = accepted.iter().map(|(path, _)| path.clone()).collect();
    let python: Vec<_> = paths.chunks(500).flat_map(by_python).collect();
    assert_eq!(python.len(), accepted.len());
    let mut disagreements = Vec::new();
    for ((path, ours), python) in accepted.iter().zip(python) {
        // It wants something behind a global header; an archive of git's may have nothing.
        let empty = matches!(&python, Err(error) if error.contains("end of file header"));
        if !empty && python.as_ref() != Ok(ours) {
            disagreements.push(format!("{path}: Python: {python:?}\n  instead of {ours:?}"));
        }
        let names: Vec<&String> = ours.iter().map(|entry| &entry.1).collect();
        match by_gnu(Path::new(path)) {
            // What is not printable is escaped otherwise there.
            Ok(gnu) if names.iter().any(|name| name.contains('\\')) && gnu.len() == names.len() => {
            }
            Ok(gnu) if gnu.iter().collect::<Vec<_>>() == names => {}
            gnu => disagreements.push(format!("{path}: GNU tar: {gnu:?}\n  instead of {names:?}")),
        }
    }
    if !disagreements.is_empty() {
        let kept = dir.keep();
        panic!(
            "{} of {} accepted archives are read otherwise by others (kept in {}):\n{}",
            disagreements.len(),
            accepted.len(),
            kept.display(),
            disagreements[..disagreements.len().min(40)].join("\n")
        );
    }
}
