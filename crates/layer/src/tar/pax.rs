// SPDX-License-Identifier: Apache-2.0
//! PAX extended headers: records `length key=value\n`.

use std::collections::BTreeMap;

use gantry_oci::Limits;

use crate::tree::Xattrs;

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    /// Seconds rounded down, and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Xattrs,
    pub dropped_xattrs: u64,
    pub sparse: PaxSparse,
}

/// GNU's sparse records, all versions.
#[derive(Debug, Default)]
pub struct PaxSparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// 0.1: `offset,length,offset,length…`.
    pub map: Option<Vec<u8>>,
    /// 0.0: offset and length, alternating, one record each.
    pub pairs: Vec<u64>,
    pub blocks: Option<u64>,
}

impl PaxSparse {
    pub fn is_used(&self) -> bool {
        self.major.is_some()
            || self.minor.is_some()
            || self.name.is_some()
            || self.real_size.is_some()
            || self.map.is_some()
            || self.blocks.is_some()
            || !self.pairs.is_empty()
    }
}

/// Reads the records; the error is what is wrong.
pub fn parse(data: &[u8], limits: &Limits) -> Result<Pax, String> {
    let mut pax = Pax::default();
    let mut seen: BTreeMap<&[u8], ()> = BTreeMap::new();
    for_each_record(data, |key, value| {
        let repeats = matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
        if !repeats && seen.insert(key, ()).is_some() {
            return Err(format!(
                "the extended header record {} twice",
                String::from_utf8_lossy(key)
            ));
        }
        pax.take(key, value, limits)
    })?;
    let total: usize = pax
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if pax.xattrs.len() > limits.xattrs || total > limits.xattr_total_bytes {
        return Err("more extended attributes than allowed".into());
    }
    Ok(pax)
}

/// Checks a global header: only comments may stand there. A global name or
/// size would change entries behind the back of readers that skip it.
pub fn check_global(data: &[u8]) -> Result<(), String> {
    for_each_record(data, |key, _| match key {
        b"comment" | b"charset" | b"hdrcharset" => Ok(()),
        _ => Err(format!(
            "the global record {}",
            String::from_utf8_lossy(key)
        )),
    })
}

fn for_each_record<'a>(
    data: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = data;
    while !rest.is_empty() {
        let malformed = || "a malformed extended header".to_owned();
        let space = rest
            .iter()
            .take(20)
            .position(|b| *b == b' ')
            .ok_or_else(malformed)?;
        let length = decimal(&rest[..space])
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(malformed)?;
        if length <= space + 1 || length > rest.len() {
            return Err(malformed());
        }
        let body = rest[space + 1..length]
            .strip_suffix(b"\n")
            .ok_or_else(malformed)?;
        let equals = body.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err(malformed());
        }
        each(key, value)?;
        rest = &rest[length..];
    }
    Ok(())
}

pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `-12.5` as seconds rounded down and nanoseconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?)
        .ok()
        .filter(|s| *s < 1 << 53)?;
    let digit = |at: usize| fraction.get(at).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0, |value, at| value * 10 + digit(at));
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

/// Extended attributes that are not taken over: what steers the overlay file
/// system, and what is the host's to give (labels, signatures of its own
/// integrity subsystem) or not known at all.
fn is_dropped(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => false,
        _ if name.starts_with(b"user.") => name.starts_with(b"user.overlay."),
        _ if name.starts_with(b"trusted.") => name.starts_with(b"trusted.overlay."),
        _ => true,
    }
}

/// Whether a value is one that the kernel would take for this name.
fn is_well_formed(name: &[u8], value: &[u8]) -> bool {
    let word = |at: usize| {
        let bytes = value.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    match name {
        // The revision is the top byte; each has its length: capability.h.
        b"security.capability" => matches!(
            (word(0).map(|magic| magic >> 24), value.len()),
            (Some(1), 12) | (Some(2), 20) | (Some(3), 24)
        ),
        // Version 2 and entries of 8 bytes: posix_acl_xattr.h.
        b"system.posix_acl_access" | b"system.posix_acl_default" => {
            word(0) == Some(2) && value.len() % 8 == 4
        }
        _ => true,
    }
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), String> {
        let bad = || format!("a malformed value of {}", String::from_utf8_lossy(key));
        let number = || decimal(value).ok_or_else(bad);
        // An empty value takes the header's away for some readers, and is
        // nothing for others.
        let text = || match value {
            b"" => Err(bad()),
            _ => Ok(Some(value.to_vec())),
        };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link_path = text()?,
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse.name = text()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                let size = number()?;
                if self.sparse.real_size.is_some_and(|known| known != size) {
                    return Err("two sizes of a sparse file".into());
                }
                self.sparse.real_size = Some(size);
            }
            b"GNU.sparse.map" => self.sparse.map = Some(value.to_vec()),
            b"GNU.sparse.numblocks" => self.sparse.blocks = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let wants_offset = self.sparse.pairs.len() % 2 == 0;
                if wants_offset != (key == b"GNU.sparse.offset")
                    || self.sparse.pairs.len() / 2 >= limits.sparse_segments
                {
                    return Err(bad());
                }
                self.sparse.pairs.push(number()?);
            }
            // Both of POSIX's character sets leave bytes as they are.
            b"hdrcharset" if !matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {
                return Err("names in a character set that is not supported".into());
            }
            // star's sparse files, and what GNU may add to its own.
            b"SCHILY.realsize" => {
                return Err("a sparse file in a form that is not supported".into());
            }
            _ if key.starts_with(b"GNU.sparse.") => return Err(bad()),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    return self.take_xattr(name, value, limits);
                }
                // Access times, user names, comments, vendors' own: nothing here depends on them.
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<(), String> {
        if is_dropped(name) {
            self.dropped_xattrs += 1;
            return Ok(());
        }
        if name.len() > 255 || value.len() > limits.xattr_value_bytes {
            return Err("an extended attribute that is larger than allowed".into());
        }
        if name.contains(&0)
            || matches!(name, b"user." | b"trusted.")
            || !is_well_formed(name, value)
        {
            return Err(format!(
                "a malformed extended attribute {}",
                String::from_utf8_lossy(name)
            ));
        }
        self.xattrs.insert(name.into(), value.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn records_are_read_to_the_byte() {
        let data = [
            record("path", b"a/b"),
            record("SCHILY.xattr.user.x", b"one\ntwo\0three"),
            record("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            record("mtime", b"-1.25"),
        ]
        .concat();
        let pax = parse(&data, &Limits::DEFAULT).unwrap();
        assert_eq!(pax.path.unwrap(), b"a/b");
        assert_eq!(pax.xattrs[&b"user.x"[..]].as_ref(), b"one\ntwo\0three");
        assert_eq!((pax.xattrs.len(), pax.dropped_xattrs), (1, 1));
        assert_eq!(pax.mtime, Some((-2, 750_000_000)));
    }

    #[test]
    fn times_are_rounded_down() {
        for (text, wanted) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1", Some((-1, 0))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1000000000000000000", None),
            ("NaN", None),
            ("1e9", None),
            ("", None),
            ("1.x", None),
            ("--1", None),
        ] {
            assert_eq!(time(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn extended_attributes_are_the_images_own_or_dropped() {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let with_root = [&[1, 0, 0, 3][..], &[0; 20]].concat();
        let acl = [2, 0, 0, 0, 1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff];
        for (name, value, wanted) in [
            ("user.x", &b""[..], Some(true)),
            ("trusted.x", b"1", Some(true)),
            ("user.overlay.opaque", b"y", Some(false)),
            ("trusted.overlay.metacopy", b"", Some(false)),
            ("trusted.overlay.overlay.opaque", b"y", Some(false)),
            ("security.capability", &capability, Some(true)),
            ("security.capability", &with_root, Some(true)),
            ("security.capability", b"", None),
            ("security.capability", &capability[..19], None),
            ("system.posix_acl_access", &acl, Some(true)),
            ("system.posix_acl_default", &acl[..11], None),
            ("security.selinux", b"x", Some(false)),
            ("security.ima", b"x", Some(false)),
            ("system.nfs4_acl", b"x", Some(false)),
            ("nonsense", b"x", Some(false)),
            ("user.", b"x", None),
        ] {
            let data = record(&format!("SCHILY.xattr.{name}"), value);
            let got = parse(&data, &Limits::DEFAULT).ok();
            let kept = got.map(|pax| pax.xattrs.contains_key(name.as_bytes()));
            assert_eq!(kept, wanted, "{name}={value:?}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let twice = [record("size", b"1"), record("size", b"1")].concat();
        for bad in [
            &b"x"[..],
            b"0 a=b\n",
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 a=b",
            b"6 a b\n",
            b"99 a=b\n",
            b"-6 a=b\n",
            b" a=b\n",
            b"06a=b\n",
            b"5 =b\n",
            &record("size", b"-1"),
            &record("size", b"0x1"),
            &record("size", b""),
            &record("uid", b"99999999999999999999999"),
            &twice,
            &record("a\0b", b""),
            &record("path", b""),
            &record("linkpath", b""),
            &record("hdrcharset", b"ISO-IR 8859 1 1998"),
            &record("SCHILY.realsize", b"9"),
            &record("GNU.sparse.other", b"9"),
            &record("GNU.sparse.numbytes", b"1"),
        ] {
            assert!(
                parse(bad, &Limits::DEFAULT).is_err(),
                "{:?} was accepted",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(check_global(&record("comment", b"x")).is_ok());
        assert!(check_global(&record("path", b"x")).is_err());
    }
}
