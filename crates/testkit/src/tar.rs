// SPDX-License-Identifier: Apache-2.0
//! A tar writer that can say anything, also what no honest tool would.
//!
//! An archive is a list of parts, each a `Vec<u8>` of whole blocks: [`header`] makes a block, [`set`] and its kin change
//! one and mend the checksum, [`data`] puts contents behind it, [`pax`] and [`long`] make extensions to stand in front.
//! [`join`] ends the archive; to end it wrongly, concatenate the parts.

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// A header block: mode 0644 (0755 for directories, 0777 for symlinks), owner root, time 0.
///
/// # Panics
/// If a name is longer than 100 bytes: use [`pax`].
#[must_use]
pub fn header(type_flag: u8, name: impl AsRef<[u8]>, link: impl AsRef<[u8]>, size: u64) -> Vec<u8> {
    let mode: &[u8] = match type_flag {
        b'5' => b"0000755\0",
        b'2' => b"0000777\0",
        _ => b"0000644\0",
    };
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    assert!(
        name.as_ref().len() <= 100 && link.as_ref().len() <= 100,
        "a long name needs an extension"
    );
    put(0, name.as_ref());
    put(100, mode);
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(156, &[type_flag]);
    put(157, link.as_ref());
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    checksum(&mut block);
    block
}

fn checksum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block[..BLOCK].iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Replaces bytes of a part's first block, and mends its checksum.
#[must_use]
pub fn set(mut part: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    part[at..at + bytes.len()].copy_from_slice(bytes);
    checksum(&mut part);
    part
}

/// Sets the permission bits.
#[must_use]
pub fn mode(part: Vec<u8>, mode: u32) -> Vec<u8> {
    set(part, 100, format!("{mode:07o}\0").as_bytes())
}

/// Sets the owner.
#[must_use]
pub fn owner(part: Vec<u8>, uid: u32, gid: u32) -> Vec<u8> {
    set(
        set(part, 108, format!("{uid:07o}\0").as_bytes()),
        116,
        format!("{gid:07o}\0").as_bytes(),
    )
}

/// Puts contents behind a header, padded to whole blocks. The size in the header stays as it is.
#[must_use]
pub fn data(header: Vec<u8>, contents: &[u8]) -> Vec<u8> {
    let mut part = [&header[..], contents].concat();
    part.resize(part.len().next_multiple_of(BLOCK), 0);
    part
}

/// A directory.
#[must_use]
pub fn dir(name: impl AsRef<[u8]>) -> Vec<u8> {
    header(b'5', name, "", 0)
}

/// A file.
#[must_use]
pub fn file(name: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> Vec<u8> {
    let contents = contents.as_ref();
    data(header(b'0', name, "", contents.len() as u64), contents)
}

/// A symbolic link, with an extension for a long target.
#[must_use]
pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    link(b'2', name, target.as_ref())
}

/// A hard link, with an extension for a long target.
#[must_use]
pub fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    link(b'1', name, target.as_ref())
}

fn link(type_flag: u8, name: impl AsRef<[u8]>, target: &[u8]) -> Vec<u8> {
    if target.len() <= 100 {
        return header(type_flag, name, target, 0);
    }
    let extension = long(b'K', &[target, b"\0"].concat());
    [extension, header(type_flag, name, "", 0)].concat()
}

/// A character device.
#[must_use]
pub fn char_device(name: impl AsRef<[u8]>, major: u32, minor: u32) -> Vec<u8> {
    let part = set(
        header(b'3', name, "", 0),
        329,
        format!("{major:07o}\0").as_bytes(),
    );
    set(part, 337, format!("{minor:07o}\0").as_bytes())
}

/// An extended header (`x`) of well-formed records.
#[must_use]
pub fn pax<K: AsRef<[u8]>, V: AsRef<[u8]>>(records: &[(K, V)]) -> Vec<u8> {
    extended(b'x', records)
}

/// An extended header of either type, `x` or `g`.
#[must_use]
pub fn extended<K: AsRef<[u8]>, V: AsRef<[u8]>>(type_flag: u8, records: &[(K, V)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        body.extend(record(key.as_ref(), value.as_ref()));
    }
    data(header(type_flag, "pax", "", body.len() as u64), &body)
}

/// One record, `length key=value\n`.
#[must_use]
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

/// GNU's extension for a long name (`L`) or link target (`K`), with whatever bytes.
#[must_use]
pub fn long(type_flag: u8, text: &[u8]) -> Vec<u8> {
    data(
        header(type_flag, "././@LongLink", "", text.len() as u64),
        text,
    )
}

/// The archive of these parts, with the two empty blocks that end it.
#[must_use]
pub fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = parts.concat();
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}
