// SPDX-License-Identifier: Apache-2.0
//! Distinct types for the digests that name different things.
//!
//! There is no conversion between two of them but by name: `from_digest` and
//! `digest`. Confusing a layer's blob digest with its diffID is then a type
//! error.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest, ParseDigestError};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// States that a digest is of this kind.
            #[must_use]
            pub const fn from_digest(digest: Digest) -> Self {
                Self(digest)
            }

            /// The digest as such.
            #[must_use]
            pub const fn digest(&self) -> &Digest {
                &self.0
            }

            /// The hexadecimal part.
            #[must_use]
            pub fn hex(&self) -> String {
                self.0.hex()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// The digest of a manifest's or an index's bytes.
    ManifestDigest;
    /// The digest of an image configuration's bytes: the image ID.
    ImageId;
    /// The digest of a layer blob as a registry serves it, mostly compressed.
    LayerDigest;
    /// The digest of a layer's uncompressed tar.
    DiffId;
    /// The digest of a chain of layers (image-spec v1.1 "Layer ChainID").
    ChainId;
    /// The fs-verity digest (SHA-256, 4096-byte blocks, no salt) of one
    /// file's contents in the store.
    ObjectId;
}

impl ChainId {
    /// The chain of `layers` from the base up; `None` for no layers.
    #[must_use]
    pub fn of(layers: &[DiffId]) -> Option<Self> {
        let (first, rest) = layers.split_first()?;
        let chain = rest.iter().fold(*first.digest(), |parent, layer| {
            Digest::of(Algorithm::Sha256, format!("{parent} {layer}").as_bytes())
        });
        Some(Self(chain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_of_one_layer_is_that_layer() {
        let a = DiffId::from_digest(Digest::of(Algorithm::Sha256, b"a"));
        let b = DiffId::from_digest(Digest::of(Algorithm::Sha256, b"b"));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[a]).unwrap().digest(), a.digest());
        let both = Digest::of(Algorithm::Sha256, format!("{a} {b}").as_bytes());
        assert_eq!(*ChainId::of(&[a, b]).unwrap().digest(), both);
    }
}
