// SPDX-License-Identifier: Apache-2.0
//! Signatures as opaque bytes.
//!
//! Transports carry them beside a manifest; what they say and whether it is
//! believed is decided elsewhere.

use bytes::Bytes;

/// One signature of one manifest, unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureBlob {
    /// The name of the format: `simple-signing` or `sigstore-json`.
    pub format: Box<str>,
    /// The bytes, as a lookaside or a store keeps them: framed as
    /// `gantry_trust::stored` says.
    pub bytes: Bytes,
}
