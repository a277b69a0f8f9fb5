// SPDX-License-Identifier: Apache-2.0
//! Distinguished encoding of ASN.1, as much as keys and certificates need.
//!
//! One value has one encoding: lengths are definite and as short as can be,
//! tags are of one byte, and what a caller does not read to the end is an
//! error. Whatever is not written in that way is refused, not understood.

/// SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// BOOLEAN.
pub(super) const BOOLEAN: u8 = 0x01;
/// INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(super) const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub(super) const OCTET_STRING: u8 = 0x04;
/// NULL.
pub(super) const NULL: u8 = 0x05;
/// OBJECT IDENTIFIER.
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
/// UTF8String.
pub(super) const UTF8_STRING: u8 = 0x0C;
/// UTCTime.
pub(super) const UTC_TIME: u8 = 0x17;
/// GeneralizedTime.
pub(super) const GENERALIZED_TIME: u8 = 0x18;

/// The tag of `[number] EXPLICIT`, or of an implicit constructed value.
pub(super) const fn context_constructed(number: u8) -> u8 {
    0xA0 | number
}

/// The tag of an implicit primitive `[number]`.
pub(super) const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// Why bytes are not the encoding that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the expected DER: {0}")]
pub(super) struct DerError(pub(super) &'static str);

/// Reads values one after the other.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads all of `bytes` as one value with this tag, and returns its contents.
    pub(super) fn only(bytes: &'a [u8], tag: u8) -> Result<&'a [u8], DerError> {
        let mut reader = Self::new(bytes);
        let contents = reader.expect(tag)?;
        reader.end()?;
        Ok(contents)
    }

    /// The tag of the value that comes next.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Reads any value: its tag and its contents.
    pub(super) fn any(&mut self) -> Result<(u8, &'a [u8]), DerError> {
        let (&tag, rest) = self.0.split_first().ok_or(DerError("it ends early"))?;
        if tag & 0x1F == 0x1F {
            return Err(DerError("a tag of several bytes"));
        }
        let (&first, rest) = rest.split_first().ok_or(DerError("it ends early"))?;
        let (size, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest
                    .split_at_checked(usize::from(first & 0x7F))
                    .ok_or(DerError("it ends early"))?;
                let size = bytes
                    .iter()
                    .fold(0_usize, |size, &byte| size << 8 | usize::from(byte));
                let shortest = match bytes.len() {
                    1 => size > 0x7F,
                    more => size >> (8 * (more - 1)) > 0,
                };
                if !shortest {
                    return Err(DerError("a length that could be shorter"));
                }
                (size, rest)
            }
            _ => return Err(DerError("an indefinite or giant length")),
        };
        let (contents, rest) = rest
            .split_at_checked(size)
            .ok_or(DerError("it ends early"))?;
        self.0 = rest;
        Ok((tag, contents))
    }

    /// Reads the contents of a value that must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        match self.any()? {
            (found, contents) if found == tag => Ok(contents),
            _ => Err(DerError("a value of another type")),
        }
    }

    /// Reads the next value if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerError> {
        match self.peek() {
            Some(found) if found == tag => self.expect(tag).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads a value that must have this tag, with its head.
    pub(super) fn whole(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        let before = self.0;
        self.expect(tag)?;
        Ok(&before[..before.len() - self.0.len()])
    }

    /// Reads a BIT STRING of whole bytes.
    pub(super) fn bit_string(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(BIT_STRING)?.split_first() {
            Some((0, bytes)) => Ok(bytes),
            _ => Err(DerError("a bit string that is not of whole bytes")),
        }
    }

    /// States that nothing follows.
    pub(super) fn end(&self) -> Result<(), DerError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(DerError("something follows it")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_order() {
        let mut reader = Reader::new(&[0x30, 0x03, 0x02, 0x01, 0x05, 0x05, 0x00]);
        assert_eq!(reader.peek(), Some(SEQUENCE));
        assert_eq!(
            Reader::only(reader.expect(SEQUENCE).unwrap(), INTEGER),
            Ok(&[5][..])
        );
        assert_eq!(reader.optional(INTEGER), Ok(None));
        assert_eq!(reader.whole(NULL), Ok(&[5, 0][..]));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn long_lengths_are_read() {
        let mut bytes = vec![OCTET_STRING, 0x82, 0x01, 0x00];
        bytes.extend([7; 256]);
        assert_eq!(Reader::only(&bytes, OCTET_STRING).unwrap().len(), 256);
    }

    #[test]
    fn what_has_another_encoding_is_refused() {
        for bad in [
            &[][..],
            &[0x04],
            &[0x04, 0x01],
            &[0x04, 0x80, 0x00, 0x00],
            &[0x04, 0x81, 0x01, 0x00],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x84, 0x00, 0x00, 0x00, 0x01, 0x00],
            &[0x1F, 0x81, 0x01, 0x00],
            &[0x04, 0x01, 0x00, 0x00],
            &[0x05, 0x00],
        ] {
            assert!(Reader::only(bad, OCTET_STRING).is_err(), "{bad:?}");
        }
        for bad in [&[0x03, 0x00][..], &[0x03, 0x02, 0x01, 0x02]] {
            assert!(Reader::new(bad).bit_string().is_err(), "{bad:?}");
        }
    }
}
