// SPDX-License-Identifier: Apache-2.0
//! Bytes from one thread to another, in a fixed number of buffers that go round.
//!
//! ```text
//!   Feed (inflate) ──full──▶ Drain: Read (tar)
//!                  ◀─empty──
//! ```

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Large enough that waking the other side costs little, small enough to stay in cache.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers on the way: what one side may be ahead of the other.
const BUFFERS: usize = 8;

/// The writing end.
pub(crate) struct Feed {
    full: SyncSender<io::Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
}

/// The reading end.
pub(crate) struct Drain {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

pub(crate) fn pipe() -> (Feed, Drain) {
    let (full_in, full_out) = sync_channel(BUFFERS);
    let (empty_in, empty_out) = sync_channel(BUFFERS + 1);
    for _ in 0..BUFFERS {
        // There is room for every buffer.
        empty_in.try_send(Vec::new()).ok();
    }
    let feed = Feed {
        full: full_in,
        empty: empty_out,
    };
    let drain = Drain {
        full: full_out,
        empty: empty_in,
        buffer: Vec::new(),
        at: 0,
        ended: false,
    };
    (feed, drain)
}

impl Feed {
    /// Passes on everything that `reader` gives. Ends early, without an error, when the other side
    /// has gone: it knows why.
    ///
    /// # Errors
    /// The reader's error; the other side then sees its stream break off.
    pub(crate) fn pump(self, mut reader: impl Read) -> io::Result<()> {
        loop {
            let Ok(mut buffer) = self.empty.recv() else {
                return Ok(());
            };
            buffer.resize(BUFFER_BYTES, 0);
            let outcome = fill(&mut reader, &mut buffer);
            let length = match outcome {
                Ok(length) => length,
                Err(error) => {
                    let broken = io::Error::new(io::ErrorKind::UnexpectedEof, "blob broke off");
                    self.full.send(Err(broken)).ok();
                    return Err(error);
                }
            };
            if length == 0 {
                return Ok(());
            }
            buffer.truncate(length);
            if self.full.send(Ok(buffer)).is_err() {
                return Ok(());
            }
        }
    }

    /// Makes the other side see its stream break off.
    pub(crate) fn break_off(self) {
        let broken = io::Error::new(io::ErrorKind::UnexpectedEof, "blob broke off");
        self.full.send(Err(broken)).ok();
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

impl Read for Drain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.buffer.len() && !self.ended {
            let next = match self.full.recv() {
                Ok(next) => next,
                Err(_) => {
                    self.ended = true;
                    break;
                }
            };
            let spent =
                std::mem::replace(&mut self.buffer, next.inspect_err(|_| self.ended = true)?);
            self.at = 0;
            if spent.capacity() > 0 {
                self.empty.send(spent).ok();
            }
        }
        let rest = &self.buffer[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_whole() {
        let bytes: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (feed, mut drain) = pipe();
        std::thread::scope(|scope| {
            scope.spawn(|| feed.pump(bytes.as_slice()).unwrap());
            let mut got = Vec::new();
            drain.read_to_end(&mut got).unwrap();
            assert!(got == bytes);
        });
    }

    #[test]
    fn a_broken_source_breaks_the_drain_and_a_gone_drain_stops_the_source() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let (feed, mut drain) = pipe();
        assert_eq!(
            feed.pump(Broken).unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert_eq!(
            drain.read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(drain.read(&mut [0]).unwrap(), 0);

        let (feed, drain) = pipe();
        drop(drain);
        feed.pump(io::repeat(1)).unwrap();
    }
}
