// SPDX-License-Identifier: Apache-2.0
//! Layers that try something.

use std::io::Write as _;

use gantry_oci::Kind::{Corrupt, Unsafe};

use super::{Case, accept, reject};
use crate::image::{self, Image, LAYER, LAYER_GZIP, LAYER_ZSTD, Layer};
use crate::tar::{
    char_device, data, dir, extended, file, hard_link, header, join, long, mode, owner, pax,
    record, set, symlink,
};

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        symlinks(),
        hard_links(),
        names(),
        whiteouts(),
        headers(),
        metadata(),
        compression(),
        compatibility(),
    ]
    .concat()
}

fn one(parts: &[Vec<u8>]) -> Image {
    Image::new(&[Layer::gzip(&join(parts))])
}

fn two(lower: &[Vec<u8>], upper: &[Vec<u8>]) -> Image {
    Image::new(&[Layer::gzip(&join(lower)), Layer::gzip(&join(upper))])
}

/// A tar without the end that `join` gives it.
fn raw(tar: Vec<u8>) -> Image {
    Image::new(&[Layer::plain(tar)])
}

fn blob(media_type: &str, blob: Vec<u8>, tar: &[u8]) -> Image {
    Image::new(&[Layer::new(media_type, blob, tar)])
}

fn symlinks() -> Vec<Case> {
    vec![
        accept(
            "S1",
            "a file through a symlink out of the root, which stays inside",
            |c| one(&[symlink("l", c.path()), file("l/new", "x")]),
            &["/l -> /CANARY", "/CANARY/", "/CANARY/new \"x\""],
        ),
        accept(
            "S1b",
            "an existing file of the host through a symlink, which stays inside",
            |c| one(&[symlink("l", c.path()), file("l/secret", "x")]),
            &["/l -> /CANARY", "/CANARY/", "/CANARY/secret \"x\""],
        ),
        accept(
            "S2",
            "an absolute symlink is a target like any other",
            |c| one(&[symlink("l", c.path())]),
            &["/l -> /CANARY"],
        ),
        accept(
            "S3",
            "a file through a chain of .., which stays inside",
            |c| {
                let target = format!("{}{}", "../".repeat(20), c.path());
                one(&[dir("d/"), symlink("d/l", target), file("d/l/secret", "x")])
            },
            &[
                "/d/",
                "/d/l -> ../../../../../../../../../../../../../../../../../../../..//CANARY",
                "/CANARY/",
                "/CANARY/secret \"x\"",
            ],
        ),
        accept(
            "S4",
            "a directory through a symlink to the parent stays inside",
            |_| one(&[dir("d/"), symlink("d/l", "../.."), dir("d/l/x/")]),
            &["/d/", "/d/l -> ../..", "/x/"],
        ),
        accept(
            "S5",
            "a symlink replaced by a directory leads nowhere any more",
            |c| one(&[symlink("d", c.path()), dir("d/"), file("d/secret", "x")]),
            &["/d/", "/d/secret \"x\""],
        ),
        accept(
            "S6",
            "a file through /proc/self/cwd, which stays inside",
            |_| one(&[symlink("l", "/proc/self/cwd"), file("l/x", "x")]),
            &[
                "/l -> /proc/self/cwd",
                "/proc/",
                "/proc/self/",
                "/proc/self/cwd/",
                "/proc/self/cwd/x \"x\"",
            ],
        ),
        accept(
            "S6b",
            "a file through /proc/self/fd, which stays inside",
            |_| one(&[symlink("l", "/proc/self/fd/3"), file("l/x", "x")]),
            &[
                "/l -> /proc/self/fd/3",
                "/proc/",
                "/proc/self/",
                "/proc/self/fd/",
                "/proc/self/fd/3/",
                "/proc/self/fd/3/x \"x\"",
            ],
        ),
        accept(
            "S6c",
            "a file through /proc/1/root, which stays inside",
            |_| one(&[symlink("l", "/proc/1/root"), file("l/x", "x")]),
            &[
                "/l -> /proc/1/root",
                "/proc/",
                "/proc/1/",
                "/proc/1/root/",
                "/proc/1/root/x \"x\"",
            ],
        ),
        reject("S7", "symlinks in a circle", Unsafe, |_| {
            one(&[symlink("a", "b"), symlink("b", "a"), file("a/f", "x")])
        }),
        reject("S8", "a chain of 41 symlinks", Unsafe, |_| one(&chain(41))),
        accept(
            "S8b",
            "a chain of a few symlinks",
            |_| one(&chain(3)),
            &["/l0 -> l1", "/l1 -> l2", "/l2 -> t", "/t/", "/t/f \"x\""],
        ),
        reject("S9", "a symlink to nothing", Unsafe, |_| {
            one(&[symlink("l", "")])
        }),
        reject("S9b", "a target of 4096 bytes", Unsafe, |_| {
            one(&[long(b'K', &[b't'; 4096]), symlink("l", "x")])
        }),
        reject("S9c", "a target with a NUL", Unsafe, |_| {
            one(&[pax(&[("linkpath", "a\0b")]), symlink("l", "x")])
        }),
        accept(
            "S10",
            "a symlink of a lower layer, a file of the upper, which stays inside",
            |c| two(&[symlink("l", c.path())], &[file("l/secret", "x")]),
            &["/l -> /CANARY", "/CANARY/", "/CANARY/secret \"x\""],
        ),
        accept(
            "S10b",
            "an upper layer replaces a lower symlink itself, not what it leads to",
            |c| two(&[symlink("l", c.path())], &[file("l", "x")]),
            &["/l \"x\""],
        ),
        accept(
            "S11",
            "symlinks in place of files that an engine manages are only names",
            |c| {
                let to = |name: &str| symlink(name, format!("{}/secret", c.path()));
                one(&[
                    to("dev"),
                    to("proc"),
                    to("sys"),
                    dir("etc/"),
                    to("etc/passwd"),
                    to("etc/mtab"),
                    to("etc/resolv.conf"),
                    to(".krun_config.json"),
                ])
            },
            &[
                "/.krun_config.json -> /CANARY/secret",
                "/dev -> /CANARY/secret",
                "/etc/",
                "/etc/mtab -> /CANARY/secret",
                "/etc/passwd -> /CANARY/secret",
                "/etc/resolv.conf -> /CANARY/secret",
                "/proc -> /CANARY/secret",
                "/sys -> /CANARY/secret",
            ],
        ),
        accept(
            "S13",
            "the mode of a directory entry does not go through a symlink of its name",
            |c| {
                one(&[
                    symlink("d", format!("{}/dir", c.path())),
                    mode(dir("d/"), 0o777),
                ])
            },
            &["/d/ 777"],
        ),
        accept(
            "S14",
            "a symlink in place of a full directory",
            |_| one(&[dir("d/"), file("d/f", "x"), symlink("d", "e")]),
            &["/d -> e"],
        ),
        accept(
            "S15",
            "a device through a symlink stays inside",
            |_| {
                one(&[
                    dir("dev/"),
                    symlink("l", "/dev"),
                    char_device("l/null", 1, 3),
                ])
            },
            &["/dev/", "/dev/null c 1:3", "/l -> /dev"],
        ),
        reject("S16", "a file through a symlink to a file", Corrupt, |_| {
            one(&[file("f", "x"), symlink("l", "f"), file("l/g", "x")])
        }),
    ]
}

fn chain(length: usize) -> Vec<Vec<u8>> {
    let mut parts = vec![dir("t/")];
    for number in 0..length {
        let target = match number + 1 {
            next if next == length => "t".to_owned(),
            next => format!("l{next}"),
        };
        parts.push(symlink(format!("l{number}"), target));
    }
    parts.push(file("l0/f", "x"));
    parts
}

fn hard_links() -> Vec<Case> {
    vec![
        reject("H1", "a hard link to a file of the host", Corrupt, |c| {
            one(&[hard_link("h", format!("{}/secret", c.path()))])
        }),
        reject("H2", "a hard link through ..", Unsafe, |_| {
            one(&[hard_link("h", "../../etc/passwd")])
        }),
        accept(
            "H3",
            "a hard link to a symlink is that symlink",
            |c| one(&[symlink("l", c.path()), hard_link("h", "l")]),
            &["/h -> /CANARY", "/l -> /CANARY"],
        ),
        accept(
            "H4",
            "a target is resolved at the root, whatever the working directory",
            |_| {
                one(&[
                    dir("d/"),
                    file("f", "root"),
                    file("d/f", "dir"),
                    hard_link("d/h", "f"),
                ])
            },
            &["/d/", "/d/f \"dir\"", "/d/h \"root\"", "/f \"root\""],
        ),
        reject(
            "H5",
            "a hard link to a file that was taken away",
            Corrupt,
            |_| two(&[file("f", "x")], &[file(".wh.f", ""), hard_link("h", "f")]),
        ),
        reject("H6", "a hard link to a directory", Corrupt, |_| {
            one(&[dir("d/"), hard_link("h", "d")])
        }),
        accept(
            "H6b",
            "a hard link to a device",
            |_| one(&[char_device("n", 1, 3), hard_link("h", "n")]),
            &["/h c 1:3", "/n c 1:3"],
        ),
        reject("H6c", "a hard link to itself", Corrupt, |_| {
            one(&[hard_link("h", "h")])
        }),
        reject("H6d", "a hard link to the root", Unsafe, |_| {
            one(&[hard_link("h", "/")])
        }),
        reject("H6e", "a hard link in place of the root", Unsafe, |_| {
            one(&[file("f", "x"), hard_link(".", "f")])
        }),
        accept(
            "H8",
            "a hard link to a file of a lower layer",
            |_| two(&[file("f", "x")], &[hard_link("h", "f")]),
            &["/f \"x\"", "/h \"x\""],
        ),
        accept(
            "H8b",
            "replacing one name of a lower layer leaves the other",
            |_| two(&[file("f", "x"), hard_link("h", "f")], &[file("f", "y")]),
            &["/f \"y\"", "/h \"x\""],
        ),
        reject(
            "H9",
            "a hard link through a symlink out of the root",
            Corrupt,
            |c| one(&[symlink("l", c.path()), hard_link("h", "l/secret")]),
        ),
        reject("H10", "a hard link to what comes later", Corrupt, |_| {
            one(&[hard_link("h", "f"), file("f", "x")])
        }),
        reject("H11", "a hard link with data", Unsafe, |_| {
            one(&[file("f", "x"), data(header(b'1', "h", "f", 3), b"abc")])
        }),
        reject("H12", "a hard link to nothing", Unsafe, |_| {
            one(&[hard_link("h", "")])
        }),
    ]
}

fn names() -> Vec<Case> {
    vec![
        reject("N1", "the root as a symlink", Unsafe, |c| {
            one(&[symlink("/.", c.path())])
        }),
        reject("N2", "the root as a file", Unsafe, |_| {
            one(&[file(".", "x")])
        }),
        reject("N3", "a file without a name", Unsafe, |_| {
            one(&[file("", "x")])
        }),
        accept(
            "N4",
            "two slashes",
            |_| one(&[file("//a", "x")]),
            &["/a \"x\""],
        ),
        reject("N5", "a name that leaves the root", Unsafe, |_| {
            one(&[file("a/../../b", "x")])
        }),
        reject("N5b", "a name that is ..", Unsafe, |_| one(&[dir("..")])),
        reject("N5c", "a name that leaves a directory only", Unsafe, |_| {
            one(&[file("a/../b", "x")])
        }),
        reject("N5d", "a prefix that leaves the root", Unsafe, |_| {
            one(&[set(file("b", "x"), 345, b"../a")])
        }),
        accept(
            "N6",
            "names that are no text are kept bit for bit",
            |_| {
                one(&[
                    pax(&[("path", b"a\nb\xff\x1b[2J".as_slice())]),
                    file("x", "x"),
                ])
            },
            &["/a\\nb\\xff\\x1b[2J \"x\""],
        ),
        reject("N6b", "a name with a NUL", Unsafe, |_| {
            one(&[pax(&[("path", "a\0/../b")]), file("x", "x")])
        }),
        accept(
            "N7",
            "a component of 255 bytes",
            |_| one(&[pax(&[("path", &"n".repeat(255))]), file("x", "x")]),
            &[concat!(
                "/nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
                "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
                "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn \"x\"",
            )],
        ),
        reject("N7b", "a component of 256 bytes", Unsafe, |_| {
            one(&[pax(&[("path", &"n".repeat(256))]), file("x", "x")])
        }),
        reject("N7c", "a path of 4096 bytes", Unsafe, |_| {
            one(&[long(b'L', "n/".repeat(2048).as_bytes()), dir("x")])
        }),
        reject("N8", "10,000 directories deep", Unsafe, |_| {
            one(&[pax(&[("path", &"d/".repeat(10_000))]), dir("x")])
        }),
        reject("N8b", "ever deeper through a symlink", Unsafe, |_| {
            let deep = "d/".repeat(900);
            one(&[
                pax(&[("path", &deep)]),
                dir("x"),
                pax(&[("linkpath", &deep)]),
                symlink("l", "x"),
                pax(&[("path", &format!("l/{deep}"))]),
                dir("x"),
            ])
        }),
        accept(
            "N9",
            "names that differ in case or in how a letter is composed",
            |_| {
                one(&[
                    file("A", "1"),
                    file("a", "2"),
                    file("\u{e9}", "3"),
                    file("e\u{301}", "4"),
                ])
            },
            &[
                "/A \"1\"",
                "/a \"2\"",
                "/e\\xcc\\x81 \"4\"",
                "/\\xc3\\xa9 \"3\"",
            ],
        ),
        reject("N10", "a file with a slash behind", Unsafe, |_| {
            one(&[file("a/", "")])
        }),
        reject(
            "N10b",
            "a file with a slash behind and data",
            Unsafe,
            |_| one(&[file("a/", "x")]),
        ),
        reject("N10c", "a symlink with a slash behind", Unsafe, |_| {
            one(&[symlink("a/", "x")])
        }),
        accept(
            "N11",
            "the last of several entries of one name counts",
            |_| one(&[file("a", "1"), file("a", "2"), file("./a", "3")]),
            &["/a \"3\""],
        ),
        reject("N11b", "the same name without end", Unsafe, |_| {
            one(&vec![file("a", ""); 20_001])
        }),
        accept(
            "N12",
            "a file, then a directory of the same name",
            |_| one(&[file("a", "1"), dir("a/"), file("a/b", "2")]),
            &["/a/", "/a/b \"2\""],
        ),
        accept(
            "N12b",
            "a full directory, then a file of the same name",
            |_| one(&[dir("a/"), file("a/b", "2"), file("a", "1")]),
            &["/a \"1\""],
        ),
        reject("N12c", "a file as a parent", Corrupt, |_| {
            one(&[file("a", "1"), file("a/b", "2")])
        }),
        accept(
            "N13",
            "backslashes separate nothing",
            |_| one(&[file("..\\..\\a", "x")]),
            &["/..\\\\..\\\\a \"x\""],
        ),
        reject("N14", "a whiteout of no name", Unsafe, |_| {
            one(&[file(".wh.", "")])
        }),
        accept(
            "N15",
            "names that only look special",
            |_| {
                one(&[
                    file("...", "1"),
                    file(".wh", "2"),
                    file("..a", "3"),
                    file("a..", "4"),
                    file("~", "5"),
                ])
            },
            &[
                "/... \"1\"",
                "/..a \"3\"",
                "/.wh \"2\"",
                "/a.. \"4\"",
                "/~ \"5\"",
            ],
        ),
        accept(
            "N16",
            "dots and slashes anywhere",
            |_| one(&[dir("./"), dir("./a/./"), file(".//a//b", "x")]),
            &["/a/", "/a/b \"x\""],
        ),
        accept(
            "N17",
            "parents that no entry made",
            |_| one(&[file("a/b/c", "x")]),
            &["/a/", "/a/b/", "/a/b/c \"x\""],
        ),
    ]
}

fn whiteouts() -> Vec<Case> {
    vec![
        reject("W1", "a whiteout of ..", Unsafe, |_| {
            one(&[file(".wh...", "")])
        }),
        accept(
            "W2",
            "an opaque root",
            |_| {
                two(
                    &[file("a", "1"), dir("d/"), file("d/b", "2")],
                    &[file(".wh..wh..opq", ""), file("c", "3")],
                )
            },
            &["/c \"3\""],
        ),
        reject("W3", "a whiteout of .", Unsafe, |_| {
            one(&[file(".wh..", "")])
        }),
        accept(
            "W4",
            "an opaque mark takes what is below, on whichever side of its siblings it stands",
            |_| {
                two(
                    &[dir("d/"), file("d/a", "1"), file("d/b", "2")],
                    &[
                        dir("d/"),
                        file("d/a", "3"),
                        file("d/.wh..wh..opq", ""),
                        file("d/c", "4"),
                    ],
                )
            },
            &["/d/", "/d/a \"3\"", "/d/c \"4\""],
        ),
        accept(
            "W4b",
            "a whiteout takes what is below, and leaves what its own layer brings",
            |_| two(&[file("a", "1")], &[file("a", "2"), file(".wh.a", "")]),
            &["/a \"2\""],
        ),
        accept(
            "W5",
            "a whiteout through a symlink stays inside",
            |_| {
                two(
                    &[dir("e/"), file("e/f", "1"), symlink("d", "/e")],
                    &[file("d/.wh.f", "")],
                )
            },
            &["/d -> /e", "/e/"],
        ),
        accept(
            "W5b",
            "a whiteout through a symlink out of the root takes nothing",
            |c| two(&[symlink("d", c.path())], &[file("d/.wh.secret", "")]),
            &["/d -> /CANARY"],
        ),
        accept(
            "W5c",
            "a whiteout of a symlink takes the symlink",
            |c| two(&[symlink("d", c.path())], &[file(".wh.d", "")]),
            &[],
        ),
        accept(
            "W6",
            "a whiteout in the lowest layer takes nothing",
            |_| two(&[file(".wh.x", ""), file("a", "1")], &[file("b", "2")]),
            &["/a \"1\"", "/b \"2\""],
        ),
        accept(
            "W7",
            "a device 0:0 is a device, though overlay would take it for a whiteout",
            |_| two(&[file("a", "1")], &[char_device("a", 0, 0)]),
            &["/a c 0:0"],
        ),
        accept(
            "W8",
            "attributes that steer overlay are dropped",
            |_| {
                one(&[
                    pax(&[
                        ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
                        ("SCHILY.xattr.trusted.overlay.opaque", "y"),
                        ("SCHILY.xattr.trusted.overlay.metacopy", ""),
                        ("SCHILY.xattr.user.overlay.opaque", "y"),
                        ("SCHILY.xattr.user.overlay.whiteout", "y"),
                        ("SCHILY.xattr.user.kept", "k"),
                    ]),
                    dir("d/"),
                ])
            },
            &["/d/ user.kept=k"],
        ),
        accept(
            "W9",
            "what aufs left behind is left out",
            |_| {
                one(&[
                    file(".wh..wh.aufs", ""),
                    dir(".wh..wh.plnk/"),
                    file(".wh..wh.plnk/1.2", "x"),
                    file("a", "x"),
                ])
            },
            &["/a \"x\""],
        ),
        reject("W10", "a whiteout with contents", Unsafe, |_| {
            one(&[file(".wh.x", [0; 100])])
        }),
        reject("W11", "a whiteout as a parent", Unsafe, |_| {
            one(&[file(".wh.x/y", "")])
        }),
        accept(
            "W12",
            "an opaque directory that was a file below",
            |_| {
                two(
                    &[file("d", "1")],
                    &[dir("d/"), file("d/.wh..wh..opq", ""), file("d/a", "2")],
                )
            },
            &["/d/", "/d/a \"2\""],
        ),
    ]
}

fn headers() -> Vec<Case> {
    vec![
        reject(
            "P1",
            "a size in the extended header alone hides entries",
            Corrupt,
            |_| {
                one(&[
                    pax(&[("size", "1024")]),
                    header(b'0', "a", "", 0),
                    file("hidden", "x"),
                ])
            },
        ),
        reject("P2", "two sizes", Corrupt, |_| {
            one(&[pax(&[("size", "3")]), file("a", "abcd")])
        }),
        reject("P3", "a size twice", Unsafe, |_| {
            one(&[pax(&[("size", "3"), ("size", "3")]), file("a", "abc")])
        }),
        reject("P4", "a negative size", Unsafe, |_| {
            one(&[pax(&[("size", "-1")]), file("a", "")])
        }),
        reject("P4b", "a negative size in base 256", Corrupt, |_| {
            one(&[set(header(b'0', "a", "", 0), 124, &[0xff; 12])])
        }),
        reject("P4c", "a size of 2^63 in base 256", Unsafe, |_| {
            one(&[set(
                header(b'0', "a", "", 0),
                124,
                &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
            )])
        }),
        reject("P4d", "a size with a sign", Unsafe, |_| {
            one(&[pax(&[("size", "+3")]), file("a", "abc")])
        }),
        reject("P5", "a record longer than the header", Unsafe, |_| {
            one(&[data(header(b'x', "p", "", 6), b"99 a=b"), file("a", "")])
        }),
        reject("P5b", "a record of length 0", Unsafe, |_| {
            one(&[data(header(b'x', "p", "", 6), b"0 a=b\n"), file("a", "")])
        }),
        reject("P5c", "a record without its line break", Unsafe, |_| {
            one(&[data(header(b'x', "p", "", 6), b"6 a=bc"), file("a", "")])
        }),
        reject("P5d", "a record without a key", Unsafe, |_| {
            one(&[data(header(b'x', "p", "", 5), b"5 =b\n"), file("a", "")])
        }),
        reject("P6", "a global path", Unsafe, |_| {
            one(&[extended(b'g', &[("path", "x")]), file("a", "")])
        }),
        reject("P6b", "a global size", Unsafe, |_| {
            one(&[extended(b'g', &[("size", "5")]), file("a", "")])
        }),
        accept(
            "P6c",
            "a global comment, as git writes it",
            |_| one(&[extended(b'g', &[("comment", "0123")]), file("a", "x")]),
            &["/a \"x\""],
        ),
        reject("P7", "a name of GNU and one of PAX", Corrupt, |_| {
            one(&[long(b'L', b"x\0"), pax(&[("path", "y")]), file("a", "")])
        }),
        reject("P8", "a long name with a NUL inside", Corrupt, |_| {
            one(&[long(b'L', b"a\0b\0"), file("a", "")])
        }),
        reject("P8b", "two long names", Corrupt, |_| {
            one(&[long(b'L', b"x\0"), long(b'L', b"y\0"), file("a", "")])
        }),
        reject("P8c", "a long name of nothing", Corrupt, |_| {
            one(&[long(b'L', b"\0"), file("a", "")])
        }),
        reject("P9", "an extended header of 1 GiB", Corrupt, |_| {
            one(&[header(b'x', "p", "", 1 << 30)])
        }),
        reject("P9b", "a long name of 1 GiB", Corrupt, |_| {
            one(&[header(b'L', "p", "", 1 << 30)])
        }),
        reject("P10", "a key with a NUL", Unsafe, |_| {
            one(&[pax(&[("a\0b", "c")]), file("a", "")])
        }),
        reject("P10b", "a path twice", Unsafe, |_| {
            one(&[pax(&[("path", "x"), ("path", "y")]), file("a", "")])
        }),
        reject(
            "P10c",
            "two extended headers for one entry",
            Corrupt,
            |_| one(&[pax(&[("path", "x")]), pax(&[("path", "y")]), file("a", "")]),
        ),
        reject("P10d", "an empty path", Unsafe, |_| {
            one(&[pax(&[("path", "")]), dir("a")])
        }),
        reject("P11", "a sparse map that overlaps", Unsafe, |_| {
            one(&[
                sparse(&[("GNU.sparse.size", "100"), ("GNU.sparse.map", "5,2,4,2")]),
                file("a", "abcd"),
            ])
        }),
        reject("P11b", "a sparse map beyond its file", Unsafe, |_| {
            one(&[
                sparse(&[("GNU.sparse.size", "4"), ("GNU.sparse.map", "2,4")]),
                file("a", "abcd"),
            ])
        }),
        reject("P11c", "a sparse map without end", Unsafe, |_| {
            one(&[
                sparse(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "9"),
                ]),
                file("a", "99999999999\n"),
            ])
        }),
        reject("P11d", "two sparse maps", Unsafe, |_| {
            one(&[
                sparse(&[
                    ("GNU.sparse.size", "4"),
                    ("GNU.sparse.map", "0,4"),
                    ("GNU.sparse.offset", "0"),
                    ("GNU.sparse.numbytes", "4"),
                ]),
                file("a", "abcd"),
            ])
        }),
        reject(
            "P11e",
            "a sparse map of more data than there is",
            Unsafe,
            |_| {
                one(&[
                    sparse(&[("GNU.sparse.size", "100"), ("GNU.sparse.map", "0,50")]),
                    file("a", "abcd"),
                ])
            },
        ),
        accept(
            "P11f",
            "an honest sparse file",
            |_| {
                one(&[
                    sparse(&[
                        ("GNU.sparse.size", "9"),
                        ("GNU.sparse.numblocks", "2"),
                        ("GNU.sparse.map", "2,2,6,1"),
                        ("GNU.sparse.name", "real"),
                    ]),
                    file("GNUSparseFile.0/a", "abc"),
                ])
            },
            &["/real \"\\x00\\x00ab\\x00\\x00c\\x00\\x00\""],
        ),
        reject("P11g", "a sparse name that leaves the root", Unsafe, |_| {
            one(&[
                sparse(&[
                    ("GNU.sparse.size", "4"),
                    ("GNU.sparse.map", "0,4"),
                    ("GNU.sparse.name", "../a"),
                ]),
                file("a", "abcd"),
            ])
        }),
        reject("P11h", "a sparse name without a map", Unsafe, |_| {
            one(&[sparse(&[("GNU.sparse.name", "b")]), file("a", "")])
        }),
        reject("P12", "an unknown type", Unsafe, |_| {
            one(&[header(b'Z', "a", "", 0)])
        }),
        reject("P12b", "a volume label", Unsafe, |_| {
            one(&[header(b'V', "a", "", 0)])
        }),
        reject("P12c", "the rest of another volume", Unsafe, |_| {
            one(&[header(b'M', "a", "", 0)])
        }),
        reject("P12d", "an extended header at the end", Corrupt, |_| {
            one(&[pax(&[("path", "x")])])
        }),
        reject("P13", "a wrong checksum", Corrupt, |_| {
            let mut part = file("a", "x");
            part[0] = b'b';
            one(&[part])
        }),
        reject("P14", "entries after the end", Unsafe, |_| {
            one(&[file("a", ""), vec![0; 1024], file("hidden", "x")])
        }),
        reject("P14b", "one empty block, then more", Unsafe, |_| {
            one(&[file("a", ""), vec![0; 512], file("hidden", "x")])
        }),
        accept(
            "P14c",
            "no end at all",
            |_| raw(file("a", "x")),
            &["/a \"x\""],
        ),
        accept(
            "P14d",
            "an end of many empty blocks",
            |_| raw([file("a", "x"), vec![0; 10_240]].concat()),
            &["/a \"x\""],
        ),
        reject("P14e", "two archives in a row", Unsafe, |_| {
            raw([join(&[file("a", "")]), join(&[file("b", "")])].concat())
        }),
        reject("P15", "data that ends early", Corrupt, |_| {
            raw(header(b'0', "a", "", 1 << 20))
        }),
        reject("P15b", "a header that ends early", Corrupt, |_| {
            raw(header(b'0', "a", "", 0)[..300].to_vec())
        }),
        reject("P16", "a user that no system has", Corrupt, |_| {
            one(&[pax(&[("uid", "4294967295")]), file("a", "")])
        }),
        reject("P16b", "a user beyond 64 bits", Unsafe, |_| {
            one(&[pax(&[("uid", "99999999999999999999")]), file("a", "")])
        }),
        reject("P16c", "a negative user", Corrupt, |_| {
            one(&[set(header(b'0', "a", "", 0), 108, &[0xff; 8])])
        }),
        accept(
            "P16d",
            "the largest user there is",
            |_| {
                one(&[
                    pax(&[("uid", "4294967294"), ("gid", "4294967294")]),
                    file("a", "x"),
                ])
            },
            &["/a \"x\" 4294967294:4294967294"],
        ),
        reject("P17", "a time that is none", Unsafe, |_| {
            one(&[pax(&[("mtime", "NaN")]), file("a", "")])
        }),
        reject("P17b", "a time far away", Unsafe, |_| {
            one(&[pax(&[("mtime", "1000000000000000000")]), file("a", "")])
        }),
        accept(
            "P17c",
            "a time before 1970, with a fraction finer than nanoseconds",
            |_| one(&[pax(&[("mtime", "-1.2500000009")]), file("a", "x")]),
            &["/a \"x\" @-2.750000000"],
        ),
        reject("P18", "a device number that no kernel has", Corrupt, |_| {
            one(&[set(header(b'3', "a", "", 0), 329, b"7777777\0")])
        }),
        reject("P19", "a directory with data", Unsafe, |_| {
            one(&[data(header(b'5', "a/", "", 3), b"abc")])
        }),
        reject("P20", "names in another character set", Unsafe, |_| {
            one(&[pax(&[("hdrcharset", "KOI8-R")]), file("a", "")])
        }),
        reject("P21", "an unknown magic", Corrupt, |_| {
            one(&[set(header(b'0', "a", "", 0), 257, b"ustax")])
        }),
        reject(
            "P22",
            "a long name in an archive older than long names",
            Corrupt,
            |_| one(&[set(long(b'L', b"x\0"), 257, &[0; 8]), file("a", "")]),
        ),
        reject(
            "P23",
            "a malformed time that an extension replaces",
            Corrupt,
            |_| {
                one(&[
                    pax(&[("mtime", "1")]),
                    set(file("a", "x"), 136, b"0000g000000\0"),
                    file("hidden", "x"),
                ])
            },
        ),
        reject(
            "P24",
            "a malformed device number of what is no device",
            Corrupt,
            |_| {
                one(&[
                    set(file("a", "x"), 329, b"../x\0\0\0\0"),
                    file("hidden", "x"),
                ])
            },
        ),
        reject(
            "P25",
            "more of a name behind the end of a long name",
            Corrupt,
            |_| {
                let part = set(long(b'L', &[b'n'; 150]), 124, b"00000000012\0");
                one(&[part, file("a", "x")])
            },
        ),
        reject(
            "P26",
            "a prefix where no magic says that there is one",
            Corrupt,
            |_| one(&[set(set(file("a", "x"), 345, b"etc"), 257, &[0; 8])]),
        ),
        reject(
            "P27",
            "a size in base 256 with bits in its first byte",
            Corrupt,
            |_| {
                one(&[set(
                    file("a", "x"),
                    124,
                    &[0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                )])
            },
        ),
        reject(
            "P28",
            "a negative user that an extension replaces",
            Corrupt,
            |_| one(&[pax(&[("uid", "0")]), set(file("a", "x"), 108, &[0xff; 8])]),
        ),
    ]
}

fn sparse(records: &[(&str, &str)]) -> Vec<u8> {
    pax(records)
}

fn metadata() -> Vec<Case> {
    vec![
        accept(
            "M1",
            "set-id and sticky bits",
            |_| {
                one(&[
                    mode(file("u", "x"), 0o4755),
                    mode(file("g", "y"), 0o2755),
                    mode(dir("t/"), 0o1777),
                    owner(file("o", "z"), 1000, 100),
                ])
            },
            &[
                "/g \"y\" 2755",
                "/o \"z\" 1000:100",
                "/t/ 1777",
                "/u \"x\" 4755",
            ],
        ),
        accept(
            "M1b",
            "bits of the mode that say what kind of file it is say nothing",
            |_| one(&[mode(file("a", "x"), 0o120_644)]),
            &["/a \"x\""],
        ),
        accept(
            "M2",
            "file capabilities",
            |_| {
                let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                one(&[
                    pax(&[("SCHILY.xattr.security.capability", value)]),
                    file("a", "x"),
                ])
            },
            &[
                "/a \"x\" security.capability=\\x01\\x00\\x00\\x02\\x00\\x04\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00",
            ],
        ),
        reject("M2b", "file capabilities of a wrong length", Unsafe, |_| {
            one(&[
                pax(&[("SCHILY.xattr.security.capability", [1, 0, 0, 2, 0])]),
                file("a", "x"),
            ])
        }),
        accept(
            "M3",
            "labels and signatures are the host's to give",
            |_| {
                one(&[
                    pax(&[
                        (
                            "SCHILY.xattr.security.selinux",
                            "system_u:object_r:shadow_t:s0",
                        ),
                        ("SCHILY.xattr.security.ima", "x"),
                        ("SCHILY.xattr.security.evm", "x"),
                        ("SCHILY.xattr.system.nfs4_acl", "x"),
                    ]),
                    file("a", "x"),
                ])
            },
            &["/a \"x\""],
        ),
        reject("M4", "an attribute of 64 KiB and a byte", Unsafe, |_| {
            one(&[
                pax(&[("SCHILY.xattr.user.x", "v".repeat(65_537))]),
                file("a", "x"),
            ])
        }),
        reject("M4b", "a thousand attributes", Unsafe, |_| {
            let records: Vec<_> = (0..1000)
                .map(|n| (format!("SCHILY.xattr.user.x{n}"), "v"))
                .collect();
            one(&[pax(&records), file("a", "x")])
        }),
        reject("M4c", "an attribute without a name", Unsafe, |_| {
            one(&[pax(&[("SCHILY.xattr.user.", "v")]), file("a", "x")])
        }),
        reject("M4d", "an attribute twice", Unsafe, |_| {
            one(&[
                pax(&[("SCHILY.xattr.user.a", "1"), ("SCHILY.xattr.user.a", "2")]),
                file("a", "x"),
            ])
        }),
        accept(
            "M5",
            "device nodes of any number are only nodes here",
            |_| {
                one(&[
                    char_device("mem", 1, 1),
                    set(header(b'4', "sda", "", 0), 329, b"0000010\0"),
                ])
            },
            &["/mem c 1:1", "/sda b 8:0"],
        ),
        accept(
            "M6",
            "a FIFO",
            |_| one(&[header(b'6', "p", "", 0)]),
            &["/p p"],
        ),
        accept(
            "M7",
            "a directory that nobody may enter, with children",
            |_| one(&[mode(dir("d/"), 0), mode(file("d/f", "x"), 0)]),
            &["/d/ 0", "/d/f \"x\" 0"],
        ),
    ]
}

/// A file of zeros, as tar: its header, and the zeros.
const BOMB_BYTES: usize = 8 << 20;

fn zeros() -> Vec<u8> {
    [
        header(b'0', "zeros", "", BOMB_BYTES as u64),
        vec![0; BOMB_BYTES],
        vec![0; 1024],
    ]
    .concat()
}

/// A small layer that no other case has: a store does not read again what it knows.
fn small(id: &str) -> Vec<u8> {
    join(&[file("a", id)])
}

/// gzip at its best, which a bomb needs.
#[expect(clippy::expect_used, reason = "a Vec takes everything")]
fn tight(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("write to memory");
    encoder.finish().expect("write to memory")
}

fn compression() -> Vec<Case> {
    vec![
        reject("B1", "a gzip bomb", Unsafe, |_| {
            blob(LAYER_GZIP, tight(&zeros()), &zeros())
        }),
        reject("B1b", "a gzip bomb in many members", Unsafe, |_| {
            let tar = header(b'0', "zeros", "", 1 << 40);
            let member = tight(&vec![0; 1 << 20]);
            blob(
                LAYER_GZIP,
                [image::gzip(&tar), member.repeat(900)].concat(),
                b"",
            )
        }),
        reject("B2", "gzip inside gzip", Corrupt, |_| {
            let inner = image::gzip(&small("B2"));
            blob(LAYER_GZIP, image::gzip(&inner), &inner)
        }),
        reject("B3", "empty gzip members without end", Unsafe, |_| {
            let members = image::gzip(b"").repeat(1001);
            blob(
                LAYER_GZIP,
                [members, image::gzip(&small("B3"))].concat(),
                &small("B3"),
            )
        }),
        accept(
            "B3b",
            "a gzip blob of several members",
            |_| {
                let tar = small("B3b");
                blob(
                    LAYER_GZIP,
                    [image::gzip(&tar[..700]), image::gzip(&tar[700..])].concat(),
                    &tar,
                )
            },
            &["/a \"B3b\""],
        ),
        reject("B4", "a zstd bomb", Unsafe, |_| {
            blob(LAYER_ZSTD, image::zstd(&zeros()), &zeros())
        }),
        reject(
            "B4b",
            "a zstd frame that wants a window of 2 GiB",
            Corrupt,
            |_| {
                // Magic; no checksum, no size; window descriptor 2^31; one last raw block of one byte.
                let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, b'x'];
                blob(LAYER_ZSTD, frame.to_vec(), b"x")
            },
        ),
        accept(
            "B4c",
            "skippable frames around a zstd frame, as zstd:chunked writes them",
            |_| {
                let skip = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"toc!"].concat();
                blob(
                    LAYER_ZSTD,
                    [&skip[..], &image::zstd(&small("B4c")), &skip].concat(),
                    &small("B4c"),
                )
            },
            &["/a \"B4c\""],
        ),
        reject("B5", "xz, which nobody may have asked for", Corrupt, |_| {
            blob(
                LAYER_GZIP,
                b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F".to_vec(),
                &small("B5"),
            )
        }),
        reject("B5b", "bzip2", Corrupt, |_| {
            blob(LAYER_GZIP, b"BZh91AY&SY".to_vec(), &small("B5b"))
        }),
        reject("B6", "a gzip header whose name never ends", Corrupt, |_| {
            let head = [0x1f, 0x8b, 8, 0x08, 0, 0, 0, 0, 0, 0xff];
            blob(
                LAYER_GZIP,
                [&head[..], &vec![b'n'; 32 << 20]].concat(),
                &small("B6"),
            )
        }),
        reject("B7", "more files than any image has", Unsafe, |_| {
            let parts: Vec<_> = (0..20_001)
                .map(|n| header(b'0', format!("f{n}"), "", 0))
                .collect();
            one(&parts)
        }),
        reject("B8", "a sparse file of 8 EiB", Unsafe, |_| {
            one(&[
                sparse(&[
                    ("GNU.sparse.size", "9223372036854775807"),
                    ("GNU.sparse.map", "0,4"),
                ]),
                file("a", "abcd"),
            ])
        }),
        reject(
            "B8b",
            "many sparse files, each within the bounds",
            Unsafe,
            |_| {
                let part = |n: usize| {
                    [
                        sparse(&[("GNU.sparse.size", "33554432"), ("GNU.sparse.map", "0,0")]),
                        header(b'0', format!("a{n}"), "", 0),
                    ]
                    .concat()
                };
                // The last of five is one too many; all of them together would fill a disk.
                one(&[part(0), part(1), part(2), part(3), part(4)])
            },
        ),
        accept(
            "B9",
            "annotations of zstd:chunked that lie are not followed",
            |_| {
                let mut layer = Layer::zstd(&small("B9"));
                let annotate = |name: &str, value: &str| (name.to_owned(), value.to_owned());
                layer.annotations = vec![
                    annotate(
                        "io.github.containers.zstd-chunked.manifest-checksum",
                        &image::digest(b"other"),
                    ),
                    annotate(
                        "io.github.containers.zstd-chunked.manifest-position",
                        "9999999:100:100:1",
                    ),
                    annotate(
                        "containerd.io/snapshot/stargz/toc.digest",
                        &image::digest(b"other"),
                    ),
                ];
                Image::new(&[layer])
            },
            &["/a \"B9\""],
        ),
        reject(
            "B12",
            "a diffID that is wrong in its last digit",
            Corrupt,
            |_| {
                let mut layer = Layer::gzip(&small("B12"));
                let last = if layer.diff_id.ends_with('0') {
                    "1"
                } else {
                    "0"
                };
                layer.diff_id.replace_range(layer.diff_id.len() - 1.., last);
                Image::new(&[layer])
            },
        ),
        reject("B13", "bytes after the end of gzip", Unsafe, |_| {
            blob(
                LAYER_GZIP,
                [image::gzip(&small("B13")), b"garbage".to_vec()].concat(),
                &small("B13"),
            )
        }),
        reject("B13b", "bytes after the end of zstd", Corrupt, |_| {
            blob(
                LAYER_ZSTD,
                [image::zstd(&small("B13b")), b"garbage".to_vec()].concat(),
                &small("B13b"),
            )
        }),
        reject("B14", "gzip that ends early", Corrupt, |_| {
            let whole = image::gzip(&small("B14"));
            blob(LAYER_GZIP, whole[..whole.len() - 9].to_vec(), &small("B14"))
        }),
        reject("B14b", "zstd that ends early", Corrupt, |_| {
            let whole = image::zstd(&small("B14b"));
            blob(
                LAYER_ZSTD,
                whole[..whole.len() - 3].to_vec(),
                &small("B14b"),
            )
        }),
        reject("B15", "gzip with a wrong checksum", Corrupt, |_| {
            let mut whole = image::gzip(&small("B15"));
            let at = whole.len() - 8;
            whole[at] ^= 1;
            blob(LAYER_GZIP, whole, &small("B15"))
        }),
        accept(
            "B16",
            "a layer of no bytes",
            |_| blob(LAYER, Vec::new(), b""),
            &[],
        ),
        accept("B17", "a layer of nothing but its end", |_| one(&[]), &[]),
        accept(
            "B18",
            "a blob that is compressed otherwise than its type says is told by its bytes",
            |_| blob(LAYER_GZIP, image::zstd(&small("B18")), &small("B18")),
            &["/a \"B18\""],
        ),
        reject("B19", "a blob that is no archive", Corrupt, |_| {
            blob(LAYER, vec![b'x'; 1024], &[b'x'; 1024])
        }),
    ]
}

fn compatibility() -> Vec<Case> {
    vec![
        accept(
            "C1",
            "an absolute target of a hard link is inside",
            |_| one(&[file("a", "x"), hard_link("b", "/a")]),
            &["/a \"x\"", "/b \"x\""],
        ),
        accept(
            "C2",
            "dev/ptmx with its mode",
            |_| one(&[dir("dev/"), mode(char_device("dev/ptmx", 5, 2), 0o666)]),
            &["/dev/", "/dev/ptmx c 5:2 666"],
        ),
        accept(
            "C3",
            "an old tar's directory, a contiguous file, a time of access",
            |_| {
                one(&[
                    header(0, "d/", "", 0),
                    data(header(b'7', "c", "", 1), b"x"),
                    pax(&[
                        ("atime", "12.5"),
                        ("ctime", "1"),
                        ("uname", "me"),
                        ("VENDOR.x", "y"),
                    ]),
                    file("f", "z"),
                ])
            },
            &["/c \"x\"", "/d/ 644", "/f \"z\""],
        ),
        accept(
            "C4",
            "a directory of a symlink's name below: the symlink of a merged /usr stays",
            |_| {
                two(
                    &[dir("usr/"), dir("usr/bin/"), symlink("bin", "usr/bin")],
                    &[file("bin/tool", "x")],
                )
            },
            &[
                "/bin -> usr/bin",
                "/usr/",
                "/usr/bin/",
                "/usr/bin/tool \"x\"",
            ],
        ),
        accept(
            "C5",
            "a long name as GNU writes it, and one as PAX does",
            |_| {
                let name = "n".repeat(120);
                let other = format!("{name}/file");
                one(&[
                    long(b'L', format!("{name}\0").as_bytes()),
                    dir("n"),
                    data(
                        header(
                            b'x',
                            "pax",
                            "",
                            record(b"path", other.as_bytes()).len() as u64,
                        ),
                        &record(b"path", other.as_bytes()),
                    ),
                    file("n", "x"),
                ])
            },
            &[
                concat!(
                    "/nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
                    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn/",
                ),
                concat!(
                    "/nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
                    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn/file \"x\"",
                ),
            ],
        ),
        accept(
            "C6",
            "a hundred and twenty layers",
            |_| {
                let layer = |n: usize| Layer::gzip(&join(&[file("n", n.to_string())]));
                Image::new(&(0..120).map(layer).collect::<Vec<_>>())
            },
            &["/n \"119\""],
        ),
        accept("C7", "an image without layers", |_| Image::new(&[]), &[]),
    ]
}
