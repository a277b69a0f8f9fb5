// SPDX-License-Identifier: Apache-2.0
//! As much of the SQLite file format as it takes to read all blobs of one table.
//!
//! A database of an image is hostile: every offset is checked, every page is visited once, and what is put together from
//! overflow pages is never longer than the file.
//!
//! # Source
//! "Database File Format" of sqlite.org: sections 1.3 (header), 1.6 (b-tree pages), 2.1 (record format), 2.6 (schema).

/// Why a file is not such a database.
pub(crate) type Why = &'static str;

const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const TABLE_INTERIOR: u8 = 5;
const TABLE_LEAF: u8 = 13;
/// Deeper than any file of 2³² pages.
const DEPTH_MAX: usize = 40;

pub(crate) struct Database<'a> {
    bytes: &'a [u8],
    page_bytes: usize,
    /// Of each page, without what is reserved at its end.
    usable_bytes: usize,
}

/// A column of a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Integer(i64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
    Other,
}

impl<'a> Database<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, Why> {
        if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
            return Err("it is no SQLite database");
        }
        let page_bytes = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65_536,
            size if size >= 512 && size.is_power_of_two() => usize::from(size),
            _ => return Err("its page size makes no sense"),
        };
        let usable_bytes = page_bytes - usize::from(bytes[20]);
        if usable_bytes < 480 {
            return Err("its pages reserve more than they may");
        }
        Ok(Self {
            bytes,
            page_bytes,
            usable_bytes,
        })
    }

    /// Calls `visit` with the columns of each row of a table, in order.
    pub(crate) fn rows(
        &self,
        table: &str,
        visit: &mut dyn FnMut(&[Value<'_>]) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let mut root = None;
        self.walk(1, &mut |row| {
            if let [
                Value::Text(b"table"),
                Value::Text(name),
                _,
                Value::Integer(page),
                ..,
            ] = row
                && name.eq_ignore_ascii_case(table.as_bytes())
            {
                root = usize::try_from(*page).ok();
            }
            Ok(())
        })?;
        self.walk(root.ok_or("the table is not there")?, visit)
    }

    /// Walks the b-tree at a page. Its pages are fewer than the file's, or it has a loop.
    fn walk(
        &self,
        root: usize,
        visit: &mut dyn FnMut(&[Value<'_>]) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let mut pending = vec![(root, 0)];
        let mut budget = self.bytes.len() / self.page_bytes + 1;
        while let Some((number, depth)) = pending.pop() {
            budget = budget.checked_sub(1).ok_or("its pages form a loop")?;
            if depth > DEPTH_MAX {
                return Err("its pages are nested too deeply");
            }
            let (page, header) = self.page(number)?;
            let cells = usize::from(u16_at(page, header + 3)?);
            match page.get(header) {
                Some(&TABLE_LEAF) => {
                    for cell in 0..cells {
                        let at = usize::from(u16_at(page, header + 8 + cell * 2)?);
                        self.row(page.get(at..).ok_or("a cell lies outside its page")?, visit)?;
                    }
                }
                Some(&TABLE_INTERIOR) => {
                    let mut children = vec![u32_at(page, header + 8)?];
                    for cell in (0..cells).rev() {
                        let at = usize::from(u16_at(page, header + 12 + cell * 2)?);
                        children.push(u32_at(page, at)?);
                    }
                    pending.extend(children.into_iter().map(|child| (child, depth + 1)));
                    if pending.len() > budget + 1 {
                        return Err("its pages form a loop");
                    }
                }
                _ => return Err("a page is of no kind that a table has"),
            }
        }
        Ok(())
    }

    /// A page by its number, from 1, and where its b-tree header is.
    fn page(&self, number: usize) -> Result<(&'a [u8], usize), Why> {
        let start = number
            .checked_sub(1)
            .and_then(|before| before.checked_mul(self.page_bytes))
            .ok_or("a page number makes no sense")?;
        let page = self
            .bytes
            .get(start..start + self.page_bytes)
            .ok_or("a page lies outside the file")?;
        Ok((page, if number == 1 { HEADER_BYTES } else { 0 }))
    }

    fn row(
        &self,
        cell: &[u8],
        visit: &mut dyn FnMut(&[Value<'_>]) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let (payload_bytes, cell) = varint(cell)?;
        let (_row_id, cell) = varint(cell)?;
        let payload_bytes = usize::try_from(payload_bytes)
            .ok()
            .filter(|bytes| *bytes <= self.bytes.len())
            .ok_or("a row is longer than the file")?;
        let max_local = self.usable_bytes - 35;
        if payload_bytes <= max_local {
            let payload = cell.get(..payload_bytes).ok_or("a row is cut off")?;
            return visit(&columns(payload)?);
        }
        let min_local = (self.usable_bytes - 12) * 32 / 255 - 23;
        let surplus = min_local + (payload_bytes - min_local) % (self.usable_bytes - 4);
        let local = if surplus <= max_local {
            surplus
        } else {
            min_local
        };
        let mut payload = cell.get(..local).ok_or("a row is cut off")?.to_vec();
        let mut next = u32_at(cell, local)?;
        while payload.len() < payload_bytes {
            let (page, _) = self.page(next)?;
            next = u32_at(page, 0)?;
            let take = (payload_bytes - payload.len()).min(self.usable_bytes - 4);
            payload.extend_from_slice(&page[4..4 + take]);
        }
        visit(&columns(&payload)?)
    }
}

fn columns(payload: &[u8]) -> Result<Vec<Value<'_>>, Why> {
    let (header_bytes, rest) = varint(payload)?;
    let header_bytes = usize::try_from(header_bytes).map_err(|_| "a row's header is too long")?;
    let start = payload.len() - rest.len();
    let mut header = payload
        .get(start..header_bytes)
        .ok_or("a row's header is cut off")?;
    let mut body = payload.get(header_bytes..).unwrap_or_default();
    let mut values = Vec::new();
    while !header.is_empty() {
        let (kind, rest) = varint(header)?;
        header = rest;
        let length = match kind {
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            0 | 8 | 9 => 0,
            10 | 11 => return Err("a column is of a reserved kind"),
            blob_or_text => (blob_or_text - 12) / 2,
        };
        let length = usize::try_from(length).map_err(|_| "a column is too long")?;
        let (bytes, rest) = body.split_at_checked(length).ok_or("a column is cut off")?;
        body = rest;
        values.push(match kind {
            1..=6 => Value::Integer(integer(bytes)),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            0 | 7 => Value::Other,
            even if even % 2 == 0 => Value::Blob(bytes),
            _ => Value::Text(bytes),
        });
    }
    Ok(values)
}

/// Two's complement, the highest byte first, at most eight.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let start = if negative { -1 } else { 0 };
    bytes
        .iter()
        .fold(start, |value: i64, byte| (value << 8) | i64::from(*byte))
}

/// At most nine bytes; the ninth counts whole.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Why> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return Ok(((value << 8) | u64::from(*byte), &bytes[9..]));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err("a number is cut off")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Why> {
    let found = bytes
        .get(at..at + 2)
        .ok_or("a number lies outside its page")?;
    Ok(u16::from_be_bytes([found[0], found[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize, Why> {
    let found = bytes
        .get(at..at + 4)
        .ok_or("a number lies outside its page")?;
    Ok(u32::from_be_bytes([found[0], found[1], found[2], found[3]]) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_any_length() {
        assert_eq!(varint(&[0x7f]).unwrap().0, 127);
        assert_eq!(varint(&[0x81, 0x00, 9]).unwrap(), (128, &[9][..]));
        assert_eq!(varint(&[0xff; 9]).unwrap().0, u64::MAX);
        assert!(varint(&[0x80]).is_err());
        assert_eq!(integer(&[0xff]), -1);
        assert_eq!(integer(&[0x01, 0x00]), 256);
    }

    #[test]
    fn what_is_no_database_is_refused() {
        assert!(Database::open(b"").is_err());
        let mut bytes = [0_u8; HEADER_BYTES];
        bytes[..16].copy_from_slice(MAGIC);
        assert!(Database::open(&bytes).is_err(), "page size 0");
        bytes[16] = 2;
        bytes[20] = 255;
        assert!(Database::open(&bytes).is_err(), "reserved space");
        bytes[20] = 0;
        let database = Database::open(&bytes).unwrap();
        assert!(database.rows("Packages", &mut |_| Ok(())).is_err());
    }
}
