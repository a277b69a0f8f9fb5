// SPDX-License-Identifier: Apache-2.0
//! Sparse files: which bytes are on the tape, the rest being zeros.

use std::io::{self, Read};

use gantry_oci::Limits;

/// A run of bytes of a file that is on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub size_bytes: u64,
}

/// Where a file's bytes are: its size, and the runs on the tape in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    pub size_bytes: u64,
    pub segments: Vec<Segment>,
}

impl Extent {
    /// A file without holes.
    pub fn whole(size_bytes: u64) -> Self {
        let segments = if size_bytes == 0 {
            Vec::new()
        } else {
            vec![Segment {
                offset: 0,
                size_bytes,
            }]
        };
        Self {
            size_bytes,
            segments,
        }
    }

    /// Checks a map: in order, without overlap, inside the file, as many bytes
    /// as are on the tape.
    pub fn checked(
        size_bytes: u64,
        packed_bytes: u64,
        map: &[u64],
        limits: &Limits,
    ) -> Result<Self, String> {
        if map.len() % 2 != 0 || map.len() / 2 > limits.sparse_segments {
            return Err("a malformed sparse map".into());
        }
        let mut segments = Vec::with_capacity(map.len() / 2);
        let (mut end, mut packed) = (0_u64, 0_u64);
        for pair in map.chunks_exact(2) {
            let segment = Segment {
                offset: pair[0],
                size_bytes: pair[1],
            };
            let stop = segment
                .offset
                .checked_add(segment.size_bytes)
                .filter(|stop| *stop <= size_bytes);
            let (true, Some(stop)) = (segment.offset >= end, stop) else {
                return Err("a sparse map that overlaps or leaves the file".into());
            };
            end = stop;
            packed += segment.size_bytes;
            // The last one is often empty and only marks the end.
            if segment.size_bytes > 0 {
                segments.push(segment);
            }
        }
        if packed != packed_bytes {
            return Err("a sparse map that does not fit its data".into());
        }
        Ok(Self {
            size_bytes,
            segments,
        })
    }

    /// Bytes on the tape.
    pub fn packed_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size_bytes).sum()
    }
}

/// Reads a file in full, zeros for its holes, from a reader of its runs.
pub struct Expand<'a, R> {
    tape: &'a mut R,
    extent: &'a Extent,
    next: usize,
    position: u64,
}

impl<'a, R: Read> Expand<'a, R> {
    pub fn new(tape: &'a mut R, extent: &'a Extent) -> Self {
        Self {
            tape,
            extent,
            next: 0,
            position: 0,
        }
    }
}

impl<R: Read> Read for Expand<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let clip =
            |want: u64| usize::try_from(want).map_or(buffer.len(), |want| want.min(buffer.len()));
        let Some(segment) = self.extent.segments.get(self.next) else {
            let count = clip(self.extent.size_bytes - self.position);
            buffer[..count].fill(0);
            self.position += count as u64;
            return Ok(count);
        };
        if self.position < segment.offset {
            let count = clip(segment.offset - self.position);
            buffer[..count].fill(0);
            self.position += count as u64;
            return Ok(count);
        }
        let end = segment.offset + segment.size_bytes;
        let want = clip(end - self.position);
        if want == 0 {
            return Ok(0);
        }
        let count = self.tape.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        if self.position == end {
            self.next += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_come_out_as_zeros() {
        let extent = Extent::checked(10, 4, &[1, 2, 5, 2, 10, 0], &Limits::DEFAULT).unwrap();
        let mut out = Vec::new();
        Expand::new(&mut &b"abcd"[..], &extent)
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, b"\0ab\0\0cd\0\0\0");
    }

    #[test]
    fn maps_that_lie_are_refused() {
        for (size, packed, map) in [
            (10, 4, &[5, 2, 1, 2][..]),
            (10, 4, &[0, 3, 2, 1]),
            (10, 4, &[8, 4]),
            (10, 3, &[0, 4]),
            (10, 4, &[0]),
            (10, 4, &[u64::MAX, 4]),
        ] {
            assert!(
                Extent::checked(size, packed, map, &Limits::DEFAULT).is_err(),
                "{map:?} was accepted"
            );
        }
    }
}
