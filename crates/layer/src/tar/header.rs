// SPDX-License-Identifier: Apache-2.0
//! One 512-byte header.
//!
//! ```text
//! name 100 │ mode 8 │ uid 8 │ gid 8 │ size 12 │ mtime 12 │ checksum 8 │ type 1 │ link 100
//! magic 8 │ user 32 │ group 32 │ major 8 │ minor 8 │ ustar: prefix 155
//!                                                  │ GNU: … sparse map at 386, real size at 483
//! ```

/// The size of a block.
pub const BLOCK: usize = 512;

/// A block that is a header.
pub struct Header<'a>(pub &'a [u8; BLOCK]);

/// Which dialect the magic tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Ustar,
    /// Ustar with times where the end of the prefix would be.
    Star,
    Gnu,
    /// No magic: before POSIX.
    Old,
    /// A magic that readers take for one or the other of the above.
    Unknown,
}

impl<'a> Header<'a> {
    fn field(&self, start: usize, length: usize) -> &'a [u8] {
        &self.0[start..start + length]
    }

    fn text(&self, start: usize, length: usize) -> &'a [u8] {
        let field = self.field(start, length);
        &field[..field.iter().position(|b| *b == 0).unwrap_or(length)]
    }

    pub fn dialect(&self) -> Dialect {
        // Some writers put another version than "00" behind ustar's magic;
        // nobody reads that differently.
        match self.field(257, 8) {
            [b'u', b's', b't', b'a', b'r', 0, ..] => match self.field(508, 4) {
                b"tar\0" => Dialect::Star,
                _ => Dialect::Ustar,
            },
            b"ustar  \0" => Dialect::Gnu,
            [0, 0, 0, 0, 0, 0, 0, 0] => Dialect::Old,
            _ => Dialect::Unknown,
        }
    }

    /// Whether the checksum is right, by unsigned or (as old tars did) signed bytes.
    pub fn checksum_fits(&self) -> bool {
        let Some(Ok(stated)) = number(self.field(148, 8)).map(i64::try_from) else {
            return false;
        };
        let with_spaces = |sum: i64, (at, byte): (usize, i64)| {
            sum + if (148..156).contains(&at) { 32 } else { byte }
        };
        let unsigned = self
            .0
            .iter()
            .map(|b| i64::from(*b))
            .enumerate()
            .fold(0, with_spaces);
        let signed = self
            .0
            .iter()
            .map(|b| i64::from(i8::from_ne_bytes([*b])))
            .enumerate()
            .fold(0, with_spaces);
        stated == unsigned || stated == signed
    }

    /// The name, with the prefix of ustar.
    pub fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = match self.dialect() {
            Dialect::Ustar => self.text(345, 155),
            Dialect::Star => self.text(345, 131),
            _ => b"",
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub fn link_name(&self) -> &'a [u8] {
        self.text(157, 100)
    }

    pub fn type_flag(&self) -> u8 {
        self.0[156]
    }

    pub fn mode(&self) -> Option<i128> {
        number(self.field(100, 8))
    }

    pub fn uid(&self) -> Option<i128> {
        number(self.field(108, 8))
    }

    pub fn gid(&self) -> Option<i128> {
        number(self.field(116, 8))
    }

    pub fn size(&self) -> Option<i128> {
        number(self.field(124, 12))
    }

    pub fn mtime(&self) -> Option<i128> {
        number(self.field(136, 12))
    }

    pub fn device(&self) -> Option<(i128, i128)> {
        Some((number(self.field(329, 8))?, number(self.field(337, 8))?))
    }

    /// Whether every number reads, also those that mean nothing for this type or that an extension replaces: some
    /// readers take a header with a malformed one for the archive's end.
    pub fn numbers_are_well_formed(&self) -> bool {
        let bounded = |number: Option<i128>, bound: i128| {
            number.is_some_and(|number| (0..=bound).contains(&number))
        };
        bounded(self.mode(), i128::MAX)
            && bounded(self.uid(), u32::MAX.into())
            && bounded(self.gid(), u32::MAX.into())
            && bounded(self.size(), i128::MAX)
            && self.mtime().is_some()
            && (self.dialect() == Dialect::Old || self.device().is_some())
    }

    /// Whether nothing stands where only later dialects have something: some readers look there without a magic.
    pub fn is_plain_old(&self) -> bool {
        self.0[265..].iter().all(|byte| *byte == 0)
    }

    /// GNU's old sparse form: the four descriptors here, whether more follow,
    /// and the real size.
    pub fn sparse(&self) -> (&'a [u8], bool, Option<i128>) {
        (
            self.field(386, 96),
            self.0[482] != 0,
            number(self.field(483, 12)),
        )
    }
}

/// A number: octal with spaces and NULs around it, or base-256 behind a byte 0x80
/// (or 0xff, if negative). Nothing at all is 0. `None` if malformed.
pub fn number(field: &[u8]) -> Option<i128> {
    match field.first() {
        // star and others would take bits of the first byte too; no reader agrees on them.
        Some(0x81..=0xfe) => None,
        Some(first @ (0x80 | 0xff)) => {
            let start = if *first == 0xff { -1_i128 } else { 0 };
            // Two's complement; 12 bytes fit with room to spare.
            Some(
                field[1..]
                    .iter()
                    .fold(start, |value, byte| value << 8 | i128::from(*byte)),
            )
        }
        _ => {
            let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
            let digits = field[..end].trim_ascii();
            // What follows the terminator must be padding.
            if field[end..].iter().any(|b| !matches!(b, 0 | b' ')) {
                return None;
            }
            digits.iter().try_fold(0_i128, |value, digit| match digit {
                b'0'..=b'7' => Some(value << 3 | i128::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, wanted) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777", Some(0o77_777_777_777)),
            (b"\0\0\0\0", Some(0)),
            (b"    ", Some(0)),
            (b"8", None),
            (b"-1\0", None),
            (b"12\x0034", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x81\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), wanted, "{field:?}");
        }
    }
}
