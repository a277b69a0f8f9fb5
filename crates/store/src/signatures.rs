// SPDX-License-Identifier: Apache-2.0
//! The signatures that stand beside an image, as bytes.
//!
//! ```text
//! digests/<alg>:<hex>/signatures/<sha256 of the signature>
//! ```
//!
//! They come and go without the image's record: one is added when somebody
//! signs, whenever that is, and all go with the image's directory. A file's
//! name is the digest of its bytes, so that adding is idempotent and a reader
//! needs no lock. What they say is nobody's business here.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::open::{Store, ensure_dir};
use bytes::Bytes;
use gantry_image::SignatureBlob;
use gantry_oci::{Algorithm, Digest, ManifestDigest};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::publish;
use rustix::fs::OFlags;

/// Held, in `locks/`, by who adds signatures to whatever image.
const LOCK: &str = "signatures";
/// The format of a signature without a frame.
const UNFRAMED: &str = "simple-signing";

impl Store {
    /// Reads the signatures of a manifest or an index, in the order of their digests.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one is damaged, or if there are more than the limits allow.
    pub fn signatures(&self, digest: &ManifestDigest) -> Result<Vec<SignatureBlob>, StoreError> {
        let directory = directory(digest);
        let limits = *self.limits();
        let mut signatures = Vec::new();
        for name in self.signature_names(digest)? {
            let path = format!("{directory}/{name}");
            if signatures.len() == limits.signatures {
                return Err(StoreError::Corrupt {
                    what: directory,
                    why: format!("it has more than {} signatures", limits.signatures),
                });
            }
            // Removed with its image meanwhile.
            let Some(bytes) = self.read_small(&path, limits.signature_bytes)? else {
                continue;
            };
            let found = Digest::of(Algorithm::Sha256, &bytes).hex();
            if found != name {
                return Err(StoreError::Corrupt {
                    what: path,
                    why: format!("its digest is {found}"),
                });
            }
            signatures.push(blob(bytes.into()));
        }
        Ok(signatures)
    }

    /// Adds signatures to a manifest or an index that is here; those that it has are left.
    ///
    /// # Durability
    /// They are on stable storage on return.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without the image; [`StoreError::Conflict`] past the limits.
    pub fn add_signatures(
        &self,
        digest: &ManifestDigest,
        signatures: &[SignatureBlob],
    ) -> Result<(), StoreError> {
        let action = || format!("add signatures to {digest}");
        self.must_be_writable(action)?;
        if signatures.is_empty() {
            return Ok(());
        }
        if self.image(digest)?.is_none() {
            return Err(StoreError::NotFound {
                what: format!("image {digest}"),
            });
        }
        // Held open: if the image is removed meanwhile, they go with it.
        let image = self
            .dir(layout::DIGESTS)?
            .open_dir(layout::digest_name(digest).as_bytes())
            .doing(action)?;
        let dir = image
            .ensure_dir(layout::SIGNATURES.as_bytes(), layout::PUBLIC)
            .doing(action)?;
        // Of two that add at once the later counts what the earlier added.
        let _counting = self.lock_signatures()?;
        let mut known = self.signature_names(digest)?;
        let limits = self.limits();
        for signature in signatures {
            let name = Digest::of(Algorithm::Sha256, &signature.bytes).hex();
            if known.contains(&name) {
                continue;
            }
            let full = known.len() >= limits.signatures;
            if full || signature.bytes.len() as u64 > limits.signature_bytes {
                return Err(StoreError::Conflict {
                    what: format!("signature of {digest}"),
                    why: "an image has at most as many and as large ones as are read".to_owned(),
                });
            }
            let temporary = format!(".new-{}-{name}", std::process::id());
            dir.remove_file(temporary.as_bytes()).doing(action)?;
            publish::atomic_write(
                &dir,
                name.as_bytes(),
                temporary.as_bytes(),
                layout::PUBLIC_FILE,
                &signature.bytes,
            )
            .doing(action)?;
            known.push(name);
        }
        publish::sync_dir(&image).doing(action)
    }

    /// The files that are named as signatures and are none, with what is wrong with each.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn damaged_signatures(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let directory = directory(digest);
        let mut damaged = Vec::new();
        for name in self.signature_names(digest)? {
            let path = format!("{directory}/{name}");
            match self.read_small(&path, self.limits().signature_bytes) {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    let found = Digest::of(Algorithm::Sha256, &bytes).hex();
                    if found != name {
                        damaged.push((path, format!("its digest is {found}")));
                    }
                }
                Err(StoreError::Corrupt { why, .. }) => damaged.push((path, why)),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    fn lock_signatures(&self) -> Result<OfdLock, StoreError> {
        let action = || "take the lock on signatures".to_owned();
        let locks = ensure_dir(self.root(), layout::LOCKS, layout::PRIVATE)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        let file = locks
            .open(LOCK.as_bytes(), flags, layout::PRIVATE_FILE)
            .doing(action)?;
        OfdLock::lock(file, LockMode::Exclusive).doing(action)
    }

    /// The names of complete signatures.
    fn signature_names(&self, digest: &ManifestDigest) -> Result<Vec<String>, StoreError> {
        let names = self.list(&directory(digest))?;
        Ok(names.into_iter().filter(|name| is_name(name)).collect())
    }
}

fn directory(digest: &ManifestDigest) -> String {
    format!(
        "{}/{}/{}",
        layout::DIGESTS,
        layout::digest_name(digest),
        layout::SIGNATURES
    )
}

fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The frame begins with a zero and the format's name; without one it is a
/// simple signature.
fn blob(bytes: Bytes) -> SignatureBlob {
    let framed = bytes.strip_prefix(b"\0").and_then(|rest| {
        let end = rest.iter().take(64).position(|byte| *byte == b'\n')?;
        std::str::from_utf8(&rest[..end]).ok()
    });
    SignatureBlob {
        format: framed.unwrap_or(UNFRAMED).into(),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_names_the_format() {
        for (bytes, format) in [
            (&b"\xA3x"[..], "simple-signing"),
            (b"\0sigstore-json\n{}", "sigstore-json"),
            (b"\0no end", "simple-signing"),
            (b"", "simple-signing"),
        ] {
            assert_eq!(&*blob(Bytes::from_static(bytes)).format, format);
        }
    }
}
