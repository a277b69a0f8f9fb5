// SPDX-License-Identifier: Apache-2.0
//! The tar as it comes: buffered, digested, its parts handed on.

use std::io::{self, Read, Write};

use gantry_oci::{Algorithm, Digest, Digester, Limits};

use super::reader::Source;
use super::sparse::{Expand, Extent};
use super::{ObjectSink, ReadLayerError};
use crate::record;
use crate::tree::{FileContent, Metadata};

const BUFFER: usize = 256 << 10;

/// A buffered reader that digests every byte as it enters the buffer.
struct Tape<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    digester: Digester,
    /// Bytes handed out.
    position: u64,
}

impl<R: Read> Tape<R> {
    fn fill(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let count = loop {
                match self.inner.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
            self.digester.update(&self.buffer[..count]);
            (self.start, self.end) = (0, count);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }
}

impl<R: Read> Read for Tape<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let data = self.fill()?;
        let count = data.len().min(out.len());
        out[..count].copy_from_slice(&data[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// A layer that arrives: contents go to the sink, the rest to the record.
pub struct Live<'a, R, S: ?Sized, W: Write> {
    tape: Tape<R>,
    sink: &'a mut S,
    record: record::Writer<W>,
}

impl<'a, R: Read, S: ObjectSink + ?Sized, W: Write> Live<'a, R, S, W> {
    pub fn new(tar: R, sink: &'a mut S, record: record::Writer<W>) -> Self {
        let tape = Tape {
            inner: tar,
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            digester: Digester::new(Algorithm::Sha256),
            position: 0,
        };
        Self { tape, sink, record }
    }

    /// Ends the record; digest and size of the whole.
    pub fn finish(self) -> Result<(Digest, u64), ReadLayerError> {
        self.record.finish()?;
        Ok((self.tape.digester.finish(), self.tape.position))
    }
}

impl<R: Read, S: ObjectSink + ?Sized, W: Write> Source for Live<'_, R, S, W> {
    fn position(&self) -> u64 {
        self.tape.position
    }

    fn raw(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.tape.read(&mut out[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        self.record.raw(&out[..filled])?;
        Ok(filled)
    }

    fn object(
        &mut self,
        metadata: &Metadata,
        extent: &Extent,
        _: &Limits,
    ) -> Result<FileContent, ReadLayerError> {
        let end = self.tape.position + extent.packed_bytes();
        let mut content = Expand::new(&mut self.tape, extent);
        let size_bytes = extent.size_bytes;
        let id = self
            .sink
            .put(metadata, size_bytes, &mut content)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => ReadLayerError::Truncated {
                    offset: self.tape.position,
                },
                _ => ReadLayerError::Io(error),
            })?;
        if self.tape.position != end {
            return Err(io::Error::other("the sink did not take all of a file's contents").into());
        }
        self.record.object(&id, extent)?;
        Ok(FileContent::Object { id, size_bytes })
    }
}
