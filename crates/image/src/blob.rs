// SPDX-License-Identifier: Apache-2.0
//! A blob on its way: bytes that nobody has checked yet.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

use crate::error::EndpointError;

/// The bytes of one blob, in order, as they arrive.
///
/// An allegation: neither length nor contents were compared with anything.
/// Pass it through [`crate::VerifyingStream`] or, on a thread of its own,
/// [`crate::Verifying`]. After an error the stream is over.
pub struct BlobStream {
    size_bytes: Option<u64>,
    inner: BoxStream<'static, Result<Bytes, EndpointError>>,
}

impl BlobStream {
    /// Wraps a stream of chunks; `size_bytes` is how many bytes the peer
    /// announced, where it did.
    pub fn new(
        size_bytes: Option<u64>,
        stream: impl Stream<Item = Result<Bytes, EndpointError>> + Send + 'static,
    ) -> Self {
        Self {
            size_bytes,
            inner: stream.boxed(),
        }
    }

    /// A stream of bytes that are at hand.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self::new(
            Some(bytes.len() as u64),
            stream::once(async move { Ok(bytes) }),
        )
    }

    /// How many bytes the peer announced.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// The same stream, telling `seen` the length of each chunk as it passes.
    #[must_use]
    pub fn counted(self, mut seen: impl FnMut(usize) + Send + 'static) -> Self {
        let size_bytes = self.size_bytes;
        Self::new(
            size_bytes,
            self.inner.inspect(move |chunk| {
                if let Ok(chunk) = chunk {
                    seen(chunk.len());
                }
            }),
        )
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, EndpointError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}
