// SPDX-License-Identifier: Apache-2.0
//! Counting and hashing bytes on their way, and the proof that comes of it.
//!
//! [`Checker`] is the rule; [`Verifying`] applies it to a synchronous reader,
//! [`VerifyingStream`] to a stream. All three hand out the last bytes only
//! after digest and size were found right, so that a consumer which stops at
//! its own end mark (a tar's, a gzip member's) never sees a complete forgery.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use gantry_oci::{Algorithm, Descriptor, Digest, Digester, Kind};

use crate::blob::BlobStream;
use crate::error::EndpointError;

/// Bytes that are not what they were said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// More bytes than described.
    #[error("blob {digest} is longer than the {size_bytes} bytes described")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// Bytes described.
        size_bytes: u64,
    },
    /// Fewer bytes than described.
    #[error("blob {digest} ends after {found_bytes} of {size_bytes} bytes")]
    TooShort {
        /// The blob.
        digest: Digest,
        /// Bytes described.
        size_bytes: u64,
        /// Bytes that came.
        found_bytes: u64,
    },
    /// The right number of other bytes.
    #[error("blob {expected} has digest {found}")]
    Digest {
        /// What was described.
        expected: Digest,
        /// What came.
        found: Digest,
    },
}

impl VerifyError {
    /// Always [`Kind::Corrupt`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

impl From<VerifyError> for EndpointError {
    fn from(error: VerifyError) -> Self {
        Self::with_source(error.kind(), "verify blob", error)
    }
}

/// A blob whose every byte was hashed and counted.
///
/// Holding one says: somewhere in this process, `size_bytes` bytes that hash
/// to `digest` passed. It does not say where they went. Made by [`Checker`]
/// only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedBlob {
    digest: Digest,
    size_bytes: u64,
}

impl VerifiedBlob {
    /// The bytes' digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Their number.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// The rule: hash, count, compare.
#[derive(Debug, Clone)]
pub struct Checker {
    digester: Digester,
    seen_bytes: u64,
    expected: Option<Digest>,
    size_bytes: Option<u64>,
}

impl Checker {
    /// Expects the digest and size of a descriptor.
    #[must_use]
    pub fn of(descriptor: &Descriptor) -> Self {
        Self::new(descriptor.digest, Some(descriptor.size_bytes))
    }

    /// Expects a digest, and a size if it is known. A diffID comes without.
    #[must_use]
    pub fn new(expected: Digest, size_bytes: Option<u64>) -> Self {
        Self {
            digester: Digester::new(expected.algorithm()),
            seen_bytes: 0,
            expected: Some(expected),
            size_bytes,
        }
    }

    /// Expects nothing: finds out digest and size.
    #[must_use]
    pub fn computing(algorithm: Algorithm) -> Self {
        Self {
            digester: Digester::new(algorithm),
            seen_bytes: 0,
            expected: None,
            size_bytes: None,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`VerifyError::TooLong`], before more than the described bytes are hashed.
    pub fn update(&mut self, data: &[u8]) -> Result<(), VerifyError> {
        let seen_bytes = self.seen_bytes.saturating_add(data.len() as u64);
        if let (Some(digest), Some(size_bytes)) = (self.expected, self.size_bytes) {
            if seen_bytes > size_bytes {
                return Err(VerifyError::TooLong { digest, size_bytes });
            }
        }
        self.seen_bytes = seen_bytes;
        self.digester.update(data);
        Ok(())
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn seen_bytes(&self) -> u64 {
        self.seen_bytes
    }

    /// Whether every described byte was taken. Never, if no size is known.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.size_bytes == Some(self.seen_bytes)
    }

    /// Compares.
    ///
    /// # Errors
    /// [`VerifyError::TooShort`] or [`VerifyError::Digest`].
    pub fn finish(self) -> Result<VerifiedBlob, VerifyError> {
        if let (Some(digest), Some(size_bytes)) = (self.expected, self.size_bytes) {
            if self.seen_bytes != size_bytes {
                return Err(VerifyError::TooShort {
                    digest,
                    size_bytes,
                    found_bytes: self.seen_bytes,
                });
            }
        }
        let digest = self.digester.finish();
        if let Some(expected) = self.expected.filter(|expected| *expected != digest) {
            return Err(VerifyError::Digest {
                expected,
                found: digest,
            });
        }
        Ok(VerifiedBlob {
            digest,
            size_bytes: self.seen_bytes,
        })
    }
}

/// Where a check stands: the rule being applied, or its outcome.
#[derive(Debug)]
enum State {
    Open(Checker),
    Closed(Result<VerifiedBlob, VerifyError>),
}

impl State {
    /// Takes bytes; compares as soon as the last described byte is in, so
    /// that it is not handed out before.
    fn take(&mut self, data: &[u8]) -> Result<(), VerifyError> {
        match self {
            Self::Open(checker) => {
                let outcome = checker.update(data);
                let full = checker.is_full();
                if let Err(error) = outcome {
                    *self = Self::Closed(Err(error.clone()));
                    return Err(error);
                }
                if full { self.close().map(drop) } else { Ok(()) }
            }
            Self::Closed(Ok(blob)) if !data.is_empty() => {
                let error = VerifyError::TooLong {
                    digest: blob.digest,
                    size_bytes: blob.size_bytes,
                };
                *self = Self::Closed(Err(error.clone()));
                Err(error)
            }
            Self::Closed(outcome) => outcome.clone().map(drop),
        }
    }

    /// The end of the bytes.
    fn close(&mut self) -> Result<VerifiedBlob, VerifyError> {
        if let Self::Open(checker) = self {
            *self = Self::Closed(checker.clone().finish());
        }
        match self {
            Self::Closed(outcome) => outcome.clone(),
            Self::Open(checker) => checker.clone().finish(),
        }
    }
}

/// A reader that checks digest and size of what passes through it.
///
/// A wrong blob ends in an [`io::ErrorKind::InvalidData`] error that carries a
/// [`VerifyError`]. Only [`finish`](Self::finish) gives the proof.
#[derive(Debug)]
pub struct Verifying<R> {
    inner: R,
    state: State,
}

impl<R: Read> Verifying<R> {
    /// Applies `checker` to `inner`.
    pub fn new(inner: R, checker: Checker) -> Self {
        Self {
            inner,
            state: State::Open(checker),
        }
    }

    /// Reads what is left, and compares.
    ///
    /// A consumer may stop before the last byte (a decompressor behind the
    /// last frame); those bytes count too.
    ///
    /// # Errors
    /// The inner reader's, or one that carries a [`VerifyError`].
    pub fn finish(mut self) -> io::Result<VerifiedBlob> {
        let mut scratch = [0; 8192];
        while self.read(&mut scratch)? > 0 {}
        self.state.close().map_err(invalid_data)
    }
}

fn invalid_data(error: VerifyError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            self.state.close().map_err(invalid_data)?;
        } else {
            self.state.take(&buffer[..count]).map_err(invalid_data)?;
        }
        Ok(count)
    }
}

/// Tells what a [`VerifyingStream`] found, after it was given away.
///
/// Known as soon as the last described byte was handed out.
#[derive(Debug, Clone, Default)]
pub struct Outcome(Arc<OnceLock<VerifiedBlob>>);

impl Outcome {
    /// The proof, once the stream has ended well.
    #[must_use]
    pub fn get(&self) -> Option<VerifiedBlob> {
        self.0.get().copied()
    }
}

/// A stream that checks digest and size of what passes through it.
///
/// The chunk with the last described byte is handed out only if the digest is
/// right. After an error the stream is over.
#[derive(Debug)]
pub struct VerifyingStream {
    inner: Option<BlobStream>,
    state: State,
    outcome: Outcome,
}

impl VerifyingStream {
    /// Applies `checker` to `inner`.
    #[must_use]
    pub fn new(inner: BlobStream, checker: Checker) -> Self {
        Self {
            inner: Some(inner),
            state: State::Open(checker),
            outcome: Outcome::default(),
        }
    }

    /// A handle that learns the outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// The same as a [`BlobStream`].
    #[must_use]
    pub fn into_blob(self) -> BlobStream {
        let size_bytes = self.inner.as_ref().and_then(BlobStream::size_bytes);
        BlobStream::new(size_bytes, self)
    }

    /// Reads all of it, up to `limit_bytes`, into memory.
    ///
    /// # Errors
    /// The stream's, or [`Kind::Unsafe`] past the limit.
    pub async fn collect_small(mut self, limit_bytes: u64) -> Result<VerifiedBytes, EndpointError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await {
            let chunk = chunk?;
            if (bytes.len() as u64).saturating_add(chunk.len() as u64) > limit_bytes {
                return Err(EndpointError::new(
                    Kind::Unsafe,
                    format!("blob is larger than the {limit_bytes} bytes allowed here"),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        let blob = self.outcome.get().ok_or_else(|| {
            EndpointError::new(Kind::Internal, "blob stream ended without an outcome")
        })?;
        Ok(VerifiedBytes {
            bytes: bytes.into(),
            blob,
        })
    }
}

impl Stream for VerifyingStream {
    type Item = Result<Bytes, EndpointError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else {
            return Poll::Ready(None);
        };
        let item = std::task::ready!(inner.poll_next_unpin(cx));
        let checked = match item {
            Some(Ok(chunk)) => match this.state.take(&chunk) {
                Ok(()) => {
                    // Told with the last chunk: a consumer that counts (an
                    // HTTP body of known length) may never ask for more.
                    if let State::Closed(Ok(blob)) = this.state {
                        this.outcome.0.get_or_init(|| blob);
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Err(error) => Err(error.into()),
            },
            Some(Err(error)) => Err(error),
            None => this.state.close().map_err(EndpointError::from),
        };
        this.inner = None;
        match checked {
            Ok(blob) => {
                this.outcome.0.get_or_init(|| blob);
                Poll::Ready(None)
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

/// A small blob, whole in memory, whose digest and size are right.
///
/// Made by [`VerifiedBytes::verify`] and [`VerifyingStream::collect_small`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBytes {
    bytes: Bytes,
    blob: VerifiedBlob,
}

impl VerifiedBytes {
    /// Checks bytes at hand against a descriptor.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(bytes: Bytes, descriptor: &Descriptor) -> Result<Self, VerifyError> {
        let mut checker = Checker::of(descriptor);
        checker.update(&bytes)?;
        let blob = checker.finish()?;
        Ok(Self { bytes, blob })
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.blob.digest()
    }

    /// The proof as such.
    #[must_use]
    pub fn blob(&self) -> VerifiedBlob {
        self.blob
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use gantry_oci::MediaType;

    fn described(data: &[u8]) -> Descriptor {
        Descriptor::of(MediaType::OciLayer, data)
    }

    /// What was handed out, and how it ended, reading in chunks of `chunk`.
    fn read_all(data: &[u8], descriptor: &Descriptor, chunk: usize) -> (Vec<u8>, io::Result<()>) {
        let mut reader = Verifying::new(data, Checker::of(descriptor));
        let (mut out, mut buffer) = (Vec::new(), vec![0; chunk]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return (out, Ok(())),
                Ok(count) => out.extend_from_slice(&buffer[..count]),
                Err(error) => return (out, Err(error)),
            }
        }
    }

    fn cause(error: &io::Error) -> VerifyError {
        error
            .get_ref()
            .unwrap()
            .downcast_ref::<VerifyError>()
            .unwrap()
            .clone()
    }

    #[test]
    fn right_bytes_pass_in_chunks_of_any_size() {
        for chunk in [1, 2, 5, 100] {
            let (out, end) = read_all(b"hello world", &described(b"hello world"), chunk);
            assert_eq!(out, b"hello world");
            end.unwrap();
        }
    }

    #[test]
    fn wrong_bytes_never_come_out_whole() {
        let descriptor = described(b"hello world");
        for (data, chunk) in [
            (&b"hello worlD"[..], 1),
            (b"hello worlD", 64),
            (b"hello world!", 1),
            (b"hello", 2),
        ] {
            let (out, end) = read_all(data, &descriptor, chunk);
            assert!(
                out.len() < 11 || data.len() > 11 && out.len() == 11,
                "{data:?} gave {out:?}"
            );
            let error = end.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(cause(&error).kind(), Kind::Corrupt);
        }
    }

    #[test]
    fn each_fault_is_told_apart() {
        let descriptor = described(b"abcdef");
        let fault = |data: &[u8]| cause(&read_all(data, &descriptor, 64).1.unwrap_err());
        assert!(matches!(
            fault(b"abc"),
            VerifyError::TooShort { found_bytes: 3, .. }
        ));
        assert!(matches!(fault(b"abcdeX"), VerifyError::Digest { .. }));
        assert!(matches!(fault(b"abcdefg"), VerifyError::TooLong { .. }));
    }

    #[test]
    fn finish_reads_what_a_decompressor_left() {
        let mut reader = Verifying::new(&b"abcdef"[..], Checker::of(&described(b"abcdef")));
        let mut half = [0; 3];
        reader.read_exact(&mut half).unwrap();
        let blob = reader.finish().unwrap();
        assert_eq!(blob.size_bytes(), 6);
        let longer = Verifying::new(&b"abcdefgh"[..], Checker::of(&described(b"abcdef")));
        assert!(longer.finish().is_err());
    }

    #[test]
    fn empty_blob_verifies() {
        assert_eq!(
            Verifying::new(&b""[..], Checker::of(&described(b"")))
                .finish()
                .unwrap()
                .size_bytes(),
            0
        );
        assert!(
            Verifying::new(&b"x"[..], Checker::of(&described(b"")))
                .finish()
                .is_err()
        );
    }

    #[test]
    fn digest_without_size_is_compared_at_the_end() {
        let digest = described(b"tar").digest;
        assert!(
            Verifying::new(&b"tar"[..], Checker::new(digest, None))
                .finish()
                .is_ok()
        );
        assert!(
            Verifying::new(&b"rat"[..], Checker::new(digest, None))
                .finish()
                .is_err()
        );
    }

    #[test]
    fn computing_finds_digest_and_size() {
        let blob = Verifying::new(&b"tar"[..], Checker::computing(Algorithm::Sha256))
            .finish()
            .unwrap();
        assert_eq!(*blob.digest(), described(b"tar").digest);
        assert_eq!(blob.size_bytes(), 3);
    }

    fn chunks(parts: &'static [&'static [u8]]) -> BlobStream {
        BlobStream::new(
            None,
            stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part)))),
        )
    }

    async fn stream_all(
        parts: &'static [&'static [u8]],
        descriptor: &Descriptor,
    ) -> (Vec<u8>, Option<EndpointError>) {
        let mut stream = VerifyingStream::new(chunks(parts), Checker::of(descriptor));
        let mut out = Vec::new();
        while let Some(item) = stream.next().await {
            match item {
                Ok(chunk) => out.extend_from_slice(&chunk),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "over after an error");
                    return (out, Some(error));
                }
            }
        }
        assert!(stream.outcome().get().is_some());
        (out, None)
    }

    #[test]
    fn stream_holds_back_the_chunk_that_would_complete_a_forgery() {
        futures_executor_lite(async {
            let descriptor = described(b"abcdef");
            assert_eq!(
                stream_all(&[b"abc", b"def"], &descriptor).await.0,
                b"abcdef"
            );
            let (out, error) = stream_all(&[b"abc", b"deX"], &descriptor).await;
            assert_eq!(out, b"abc");
            assert_eq!(error.unwrap().kind(), Kind::Corrupt);
            let (_, error) = stream_all(&[b"abc", b"def", b"", b"g"], &descriptor).await;
            assert_eq!(error.unwrap().kind(), Kind::Corrupt);
            let (_, error) = stream_all(&[b"abc"], &descriptor).await;
            assert_eq!(error.unwrap().kind(), Kind::Corrupt);
        });
    }

    #[test]
    fn collect_stops_at_its_limit() {
        futures_executor_lite(async {
            let descriptor = described(b"abcdef");
            let all = |limit| {
                VerifyingStream::new(chunks(&[b"abc", b"def"]), Checker::of(&descriptor))
                    .collect_small(limit)
            };
            assert_eq!(
                all(6).await.unwrap().bytes(),
                &Bytes::from_static(b"abcdef")
            );
            assert_eq!(all(5).await.unwrap_err().kind(), Kind::Unsafe);
        });
    }

    /// Runs a future that never waits.
    fn futures_executor_lite<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        match future
            .as_mut()
            .poll(&mut Context::from_waker(std::task::Waker::noop()))
        {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the streams of these tests are always ready"),
        }
    }
}
