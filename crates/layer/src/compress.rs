// SPDX-License-Identifier: Apache-2.0
//! Layer compression: telling it by its first bytes, undoing it within caps,
//! and making it again.
//!
//! A decoder never holds more than its window and one buffer. It refuses a
//! blob that grows past the caps of [`Limits`], one that ends early, and one
//! that goes on after its last member: bytes that one reader sees and another
//! does not are a way past a scanner.
//!
//! # Source
//! RFC 1952 (gzip), RFC 8878 (zstd).

use std::io::{self, BufRead, Read, Write};

use flate2::bufread::GzDecoder;
use gantry_oci::{Kind, Limits};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Tells the compression by the first bytes, of which four suffice.
#[must_use]
pub fn detect(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may stand first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Why a blob cannot be decompressed. Carried inside an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// More bytes come out than a layer may have.
    #[error("layer is larger than {limit_bytes} bytes when decompressed")]
    TooLarge {
        /// The cap.
        limit_bytes: u64,
    },
    /// More bytes come out of each byte than any honest layer has.
    #[error("layer decompresses to more than {ratio} times its size")]
    Ratio {
        /// The cap.
        ratio: u64,
    },
    /// More gzip members than any honest layer has.
    #[error("layer has more than {limit} compressed members")]
    TooManyMembers {
        /// The cap.
        limit: u64,
    },
    /// Bytes follow the last gzip member.
    #[error("layer goes on after the end of its compressed data")]
    TrailingGarbage,
    /// The compressed data is not what the algorithm makes.
    #[error("layer does not decompress: {why}")]
    Damaged {
        /// What the decompressor says.
        why: String,
    },
}

impl DecompressError {
    /// What looks like a bomb or a trick is `Unsafe`, damage `Corrupt`.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Damaged { .. } => Kind::Corrupt,
            _ => Kind::Unsafe,
        }
    }

    /// The decompression error inside an I/O error, if that is what it is.
    #[must_use]
    pub fn find(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<DecompressError> for io::Error {
    fn from(error: DecompressError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Counts what was taken from the compressed side, and knows whose errors are whose.
#[derive(Debug)]
struct Counted<R> {
    inner: R,
    taken: u64,
    failed: bool,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        self.failed |= result.is_err();
        let count = result?;
        self.taken += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let result = self.inner.fill_buf();
        self.failed |= result.is_err();
        result
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.taken += count as u64;
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "one exists per layer that is being read"
)]
enum Inner<R: BufRead> {
    Plain(Counted<R>),
    Gzip {
        decoder: GzDecoder<Counted<R>>,
        members: u64,
    },
    Zstd(zstd::stream::read::Decoder<'static, Counted<R>>),
    /// Between two gzip members, or after an error there.
    Broken,
}

/// A reader of the uncompressed tar.
pub struct Decoder<R: BufRead> {
    inner: Inner<R>,
    limits: Limits,
    produced: u64,
}

impl<R: BufRead> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("produced", &self.produced)
            .finish_non_exhaustive()
    }
}

impl<R: BufRead> Decoder<R> {
    /// Decompresses `blob`.
    ///
    /// # Errors
    /// The decompressor cannot be set up.
    pub fn new(blob: R, compression: Compression, limits: Limits) -> io::Result<Self> {
        let blob = Counted {
            inner: blob,
            taken: 0,
            failed: false,
        };
        let inner = match compression {
            Compression::None => Inner::Plain(blob),
            Compression::Gzip => Inner::Gzip {
                decoder: GzDecoder::new(blob),
                members: 1,
            },
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
                decoder.window_log_max(limits.zstd_window_log)?;
                Inner::Zstd(decoder)
            }
        };
        Ok(Self {
            inner,
            limits,
            produced: 0,
        })
    }

    fn blob(&self) -> Option<&Counted<R>> {
        match &self.inner {
            Inner::Plain(blob) => Some(blob),
            Inner::Gzip { decoder, .. } => Some(decoder.get_ref()),
            Inner::Zstd(decoder) => Some(decoder.get_ref()),
            Inner::Broken => None,
        }
    }

    fn taken(&self) -> u64 {
        self.blob().map_or(0, |blob| blob.taken)
    }

    /// Gives a name to what a decompressor says of damaged data; what the blob's own reader says stays as it is.
    fn named(&self, error: io::Error) -> io::Error {
        let ours = self.blob().is_none_or(|blob| !blob.failed)
            && DecompressError::find(&error).is_none()
            && error.kind() != io::ErrorKind::Interrupted;
        if ours {
            let why = error.to_string();
            DecompressError::Damaged { why }.into()
        } else {
            error
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.inner {
                Inner::Plain(blob) => return blob.read(buffer),
                Inner::Zstd(decoder) => return decoder.read(buffer),
                Inner::Broken => return Err(DecompressError::TrailingGarbage.into()),
                Inner::Gzip { decoder, .. } => match decoder.read(buffer)? {
                    0 if !self.next_member()? => return Ok(0),
                    0 => {}
                    count => return Ok(count),
                },
            }
        }
    }

    /// Goes on to the next gzip member; whether there is one.
    fn next_member(&mut self) -> io::Result<bool> {
        let Inner::Gzip { decoder, members } = &mut self.inner else {
            return Ok(false);
        };
        let rest = decoder.get_mut().fill_buf()?;
        if rest.is_empty() {
            return Ok(false);
        }
        if rest[0] != 0x1f {
            return Err(DecompressError::TrailingGarbage.into());
        }
        let members = *members + 1;
        if members > self.limits.members {
            return Err(DecompressError::TooManyMembers {
                limit: self.limits.members,
            }
            .into());
        }
        if let Inner::Gzip { decoder, .. } = std::mem::replace(&mut self.inner, Inner::Broken) {
            self.inner = Inner::Gzip {
                decoder: GzDecoder::new(decoder.into_inner()),
                members,
            };
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.read_some(buffer).map_err(|error| self.named(error))?;
        self.produced += count as u64;
        if self.produced > self.limits.layer_bytes {
            return Err(DecompressError::TooLarge {
                limit_bytes: self.limits.layer_bytes,
            }
            .into());
        }
        let beyond_floor = self.produced > self.limits.ratio_floor_bytes;
        if beyond_floor && self.produced / self.limits.ratio > self.taken() {
            return Err(DecompressError::Ratio {
                ratio: self.limits.ratio,
            }
            .into());
        }
        Ok(count)
    }
}

/// A writer that compresses; [`Encoder::finish`] ends it.
pub struct Encoder<W: Write>(EncoderInner<W>);

enum EncoderInner<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl<W: Write> Encoder<W> {
    /// Compresses into `out`: gzip at 6 without name or time, zstd at 3, or
    /// another level.
    ///
    /// # Errors
    /// The compressor cannot be set up.
    pub fn new(out: W, compression: Compression, level: Option<u8>) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => EncoderInner::Plain(out),
            Compression::Gzip => {
                let level = flate2::Compression::new(u32::from(level.unwrap_or(6).min(9)));
                EncoderInner::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Compression::Zstd => EncoderInner::Zstd(zstd::stream::write::Encoder::new(
                out,
                i32::from(level.unwrap_or(3).min(22)),
            )?),
        }))
    }

    /// Writes what is left and gives the destination back.
    ///
    /// # Errors
    /// The destination refuses.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            EncoderInner::Plain(out) => Ok(out),
            EncoderInner::Gzip(encoder) => encoder.finish(),
            EncoderInner::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            EncoderInner::Plain(out) => out.write(bytes),
            EncoderInner::Gzip(encoder) => encoder.write(bytes),
            EncoderInner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            EncoderInner::Plain(out) => out.flush(),
            EncoderInner::Gzip(encoder) => encoder.flush(),
            EncoderInner::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(data: &[u8], compression: Compression) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), compression, None).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(blob: &[u8], limits: Limits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(blob, detect(blob), limits)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let data = b"some tar".repeat(10_000);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let blob = pack(&data, compression);
            assert_eq!(detect(&blob), compression);
            assert_eq!(unpack(&blob, Limits::DEFAULT).unwrap(), data);
            let two = [blob.clone(), blob.clone()].concat();
            assert_eq!(
                unpack(&two, Limits::DEFAULT).unwrap(),
                data.repeat(2),
                "{compression:?} members"
            );
            if compression != Compression::None {
                assert!(
                    unpack(&blob[..blob.len() - 1], Limits::DEFAULT).is_err(),
                    "{compression:?} truncated"
                );
                for tail in [&b"x"[..], b"\0", b"\x1f\x8b"] {
                    let long = [&blob[..], tail].concat();
                    assert!(
                        unpack(&long, Limits::DEFAULT).is_err(),
                        "{compression:?} with {tail:?} behind"
                    );
                }
            }
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let zeros = vec![0; 4 << 20];
        let limits = Limits {
            layer_bytes: 1 << 20,
            ..Limits::DEFAULT
        };
        let ratio = Limits {
            ratio_floor_bytes: 1 << 20,
            ratio: 100,
            ..Limits::DEFAULT
        };
        for compression in [Compression::Gzip, Compression::Zstd] {
            let blob = pack(&zeros, compression);
            assert!(
                unpack(&blob, limits)
                    .unwrap_err()
                    .to_string()
                    .contains("larger than")
            );
            assert!(
                unpack(&blob, ratio)
                    .unwrap_err()
                    .to_string()
                    .contains("times its size")
            );
            assert!(unpack(&blob, Limits::DEFAULT).is_ok());
        }
        let empty = pack(b"", Compression::Gzip).repeat(50);
        let members = Limits {
            members: 40,
            ..Limits::DEFAULT
        };
        assert!(
            unpack(&empty, members)
                .unwrap_err()
                .to_string()
                .contains("members")
        );
    }

    #[test]
    fn large_zstd_windows_are_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![7; 1 << 20]).unwrap();
        let blob = encoder.finish().unwrap();
        assert!(unpack(&blob, Limits::DEFAULT).is_ok());
        assert!(
            unpack(
                &blob,
                Limits {
                    zstd_window_log: 20,
                    ..Limits::DEFAULT
                }
            )
            .is_err()
        );
    }
}
