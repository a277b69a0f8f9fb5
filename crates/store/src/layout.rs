// SPDX-License-Identifier: Apache-2.0
//! Where everything lies: the one place that knows paths.
//!
//! ```text
//! <root>/                          0700; 0755 for a share
//!   gantry-store.json              marker: format, id, the registry that this tree belongs to
//!   objects/xx/<62 hex>            file contents by ObjectId, as composefs lays them out
//!   variants/xx/<62 hex>-<32 hex>  the same contents with other metadata, for the hard-link face;
//!                                  ".N" behind it once the link ceiling is reached
//!   layers/<alg>:<hex>             layer record by diffID: gives back the exact tar
//!   digests/<alg>:<hex>/           one image: manifest.json config.json record.json
//!                                  image.erofs (composefs face) rootfs/ (hard-link face);
//!                                  signatures/<sha256 hex> what others say of it, added at any time
//!                                  signatures/of/<repository>/<sha256 hex>  pushed to that repository of a registry
//!                                  an index: manifest.json record.json rootfs -> ../<chosen>/rootfs
//!   images/<repository>/<tag>      symlink to digests/…; this store's own names
//!   remotes/<host>/<repository>/<tag>   the same for what came from elsewhere; "@<digest>" by digest
//!   blobs/<alg>/xx/<hex>           compressed blobs, only where a registry serves them
//!   registry/                      a registry's own state
//!   trust/                         what was last admitted under each name, kept by the command
//!   staging/<boot id>/<id>/        private work, owned by the lock on its file `lock`
//!   locks/                         locks that save duplicate work
//!   leases/                        what must not be collected
//! ```
//!
//! Names are made from validated types only: digests, tags, repositories, hosts.

use gantry_oci::{DiffId, Digest, LayerDigest, ManifestDigest, ObjectId};
use rustix::fs::Mode;

pub(crate) const MARKER: &str = "gantry-store.json";
pub(crate) const OBJECTS: &str = "objects";
pub(crate) const VARIANTS: &str = "variants";
pub(crate) const LAYERS: &str = "layers";
pub(crate) const DIGESTS: &str = "digests";
pub(crate) const IMAGES: &str = "images";
pub(crate) const REMOTES: &str = "remotes";
pub(crate) const BLOBS: &str = "blobs";
pub(crate) const REGISTRY: &str = "registry";
pub(crate) const TRUST: &str = "trust";
pub(crate) const STAGING: &str = "staging";
pub(crate) const LOCKS: &str = "locks";
pub(crate) const LEASES: &str = "leases";

pub(crate) const MANIFEST_JSON: &str = "manifest.json";
pub(crate) const CONFIG_JSON: &str = "config.json";
pub(crate) const RECORD_JSON: &str = "record.json";
pub(crate) const IMAGE_EROFS: &str = "image.erofs";
pub(crate) const ROOTFS: &str = "rootfs";
pub(crate) const SIGNATURES: &str = "signatures";
/// Below it, a directory for each repository of a registry.
pub(crate) const OF: &str = "of";
pub(crate) const LOCK: &str = "lock";

/// Directories that only this host's writers use.
pub(crate) const PRIVATE_DIRS: [&str; 3] = [STAGING, LOCKS, LEASES];
/// Directories that readers on other hosts use.
pub(crate) const PUBLIC_DIRS: [&str; 6] = [OBJECTS, VARIANTS, LAYERS, DIGESTS, IMAGES, REMOTES];

pub(crate) const PRIVATE: Mode = Mode::RWXU;
pub(crate) const PUBLIC: Mode = Mode::from_raw_mode(0o755);
pub(crate) const PUBLIC_FILE: Mode = Mode::from_raw_mode(0o644);
pub(crate) const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);

/// `xx/<62 hex>`, relative to `objects/`.
pub(crate) fn object_name(id: &ObjectId) -> String {
    split_hex(id.digest())
}

/// `<alg>:<hex>`, relative to `layers/`.
pub(crate) fn layer_name(id: &DiffId) -> String {
    id.to_string()
}

/// `<alg>:<hex>`, relative to `digests/`.
pub(crate) fn digest_name(id: &ManifestDigest) -> String {
    id.to_string()
}

/// The path of a compressed blob below the store's root.
#[must_use]
pub fn blob_path(digest: &LayerDigest) -> String {
    let digest = digest.digest();
    let hex = digest.hex();
    format!("{BLOBS}/{}/{}/{hex}", digest.algorithm().name(), &hex[..2])
}

/// The path of the registry's own state below the store's root.
#[must_use]
pub fn registry_path() -> &'static str {
    REGISTRY
}

/// Reads an object's id from its directory and name, `None` for what is no object.
pub(crate) fn parse_object_name(dir: &[u8], name: &[u8]) -> Option<ObjectId> {
    let (dir, name) = (
        std::str::from_utf8(dir).ok()?,
        std::str::from_utf8(name).ok()?,
    );
    if dir.len() != 2 || name.len() != 62 {
        return None;
    }
    format!("sha256:{dir}{name}").parse().ok()
}

/// Reads from a variant's directory and name whose contents it has, `None` for what is no variant.
pub(crate) fn parse_variant_name(dir: &[u8], name: &[u8]) -> Option<ObjectId> {
    let (contents, rest) = name.split_at_checked(62)?;
    let (key, turn) = rest.strip_prefix(b"-")?.split_at_checked(32)?;
    let is_turn = |turn: &[u8]| {
        turn.strip_prefix(b".")
            .is_some_and(|turn| !turn.is_empty() && turn.iter().all(u8::is_ascii_digit))
    };
    let whole = key.iter().all(u8::is_ascii_hexdigit) && (turn.is_empty() || is_turn(turn));
    whole.then(|| parse_object_name(dir, contents)).flatten()
}

fn split_hex(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}/{}", &hex[..2], &hex[2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_round_trip() {
        let id: ObjectId = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let name = object_name(&id);
        assert_eq!(name, format!("ab/{}", "ab".repeat(31)));
        assert_eq!(parse_object_name(b"ab", &name.as_bytes()[3..]), Some(id));
        assert_eq!(parse_object_name(b"ab", b"short"), None);
        assert_eq!(parse_object_name(b"AB", &name.as_bytes()[3..]), None);
    }

    #[test]
    fn variant_names_tell_whose_contents_they_have() {
        let id: ObjectId = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let name = |tail: &str| format!("{}{tail}", "ab".repeat(31)).into_bytes();
        let key = "0f".repeat(16);
        for (tail, whole) in [
            (format!("-{key}"), true),
            (format!("-{key}.1"), true),
            (format!("-{key}."), false),
            (format!("-{key}.x"), false),
            (format!("-{}", &key[1..]), false),
            (key.clone(), false),
            (String::new(), false),
        ] {
            let found = parse_variant_name(b"ab", &name(&tail));
            assert_eq!(found, whole.then_some(id), "{tail}");
        }
    }
}
