// SPDX-License-Identifier: Apache-2.0
//! Signatures as opaque bytes.
//!
//! Transports carry them beside a manifest; what they say and whether it is
//! believed is decided elsewhere.

use bytes::Bytes;

/// One signature of one manifest, unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureBlob {
    /// What kind of signature the bytes are, in the transport's words.
    pub format: Box<str>,
    /// The bytes, as they are stored.
    pub bytes: Bytes,
}
