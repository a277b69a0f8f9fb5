// SPDX-License-Identifier: Apache-2.0
//! Attempts to get past signatures and policy, each a named case; every one must end in a refusal, at every way in.
//!
//! ```text
//! message   M what surrounds a signature · K whose key it is
//! statement P the signed JSON · I the reference that it names
//! sigstore  S attachments · B bundles · C certificates · L the log
//! decision  F the policy's file · R scopes · A several requirements · U rules of trust.d
//! places    T what changes between verdict and use: stores, tags, transports, lookasides ([`STORIES`])
//! ```
//!
//! A case is an attack on a [`Scene`] that is admitted without it: its [`Family`] makes the scene, the attack changes
//! it, [`Because`] says what the refusal must be for. So whoever runs the cases first runs the families' own scenes,
//! which must be admitted: no case is refused because nothing would be admitted.
//!
//! What cannot be tried here because nothing is there to try it on stands in [`NOT_YET`]. A case's id is its name for
//! ever; a new one goes to the end of its table.

mod decision;
mod identity;
mod keys;
mod maker;
mod message;
mod payload;
mod policy;
mod scene;
mod sigstore;

pub use maker::Maker;
pub use scene::{PolicyFile, Scene};

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name for ever.
    pub id: &'static str,
    /// What it tries.
    pub what: &'static str,
    /// What it starts from.
    pub family: Family,
    /// What it must be refused for.
    pub because: Because,
    /// Changes the scene.
    pub attack: fn(&mut Maker, &mut Scene) -> Result<()>,
}

/// What a refusal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// There is no signature.
    Unsigned,
    /// No signature counts, and one of them for one of these reasons.
    Signature(&'static [&'static str]),
    /// A requirement that no signature meets, for this reason.
    Requirement(&'static str),
    /// A condition of `trust.d`, by its name.
    Condition(&'static str),
    /// There is no policy, or no rules, that could admit anything; the sentence has these words.
    Nothing(&'static str),
}

/// A scene that is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `signedBy` one key; asked for by tag.
    Signed,
    /// The same, asked for by digest.
    Pinned,
    /// The same, by either of two keys; the second signed.
    Either,
    /// Two requirements and two signers.
    Both,
    /// Signed as another's image, which `remapIdentity` maps.
    Remapped,
    /// On Docker's hub, whose names have short forms. Nothing listens there in tests.
    Hub,
    /// `sigstoreSigned` by a key.
    Attached,
    /// The same, as a bundle.
    Bundled,
    /// `sigstoreSigned` by certificates of an authority.
    Certified,
    /// `sigstoreSigned` by a key, and in a log.
    Logged,
    /// No signature: the scope accepts anything.
    Accepted,
    /// `signedBy`, and a rule of `trust.d` that is met.
    Ruled,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Signed,
        Self::Pinned,
        Self::Either,
        Self::Both,
        Self::Remapped,
        Self::Hub,
        Self::Attached,
        Self::Bundled,
        Self::Certified,
        Self::Logged,
        Self::Accepted,
        Self::Ruled,
    ];

    /// Whether an image of this name can be had from a registry in a test.
    #[must_use]
    pub fn is_reachable(self) -> bool {
        self != Self::Hub
    }
}

/// Every case.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        message::CASES,
        keys::CASES,
        payload::CASES,
        identity::CASES,
        sigstore::CASES,
        policy::CASES,
        decision::CASES,
    ]
    .into_iter()
    .flatten()
}

/// What all cases start from, and what each makes of it.
#[derive(Debug)]
pub struct Scenes {
    /// Each family's own, which is admitted.
    pub families: BTreeMap<Family, Scene>,
    /// Each case's, which is refused.
    pub attacks: Vec<(&'static Case, Scene)>,
}

impl Scenes {
    /// Makes all of them; no more signatures than these need.
    ///
    /// # Errors
    /// A case cannot be made.
    pub fn new(maker: &mut Maker) -> Result<Self> {
        let mut families = BTreeMap::new();
        for family in Family::ALL {
            families.insert(family, scene::of(family, maker)?);
        }
        let mut attacks = Vec::new();
        for case in cases() {
            let mut scene = families[&case.family].clone();
            (case.attack)(maker, &mut scene)
                .with_context(|| format!("make {} ({})", case.id, case.what))?;
            attacks.push((case, scene));
        }
        Ok(Self { families, attacks })
    }
}

/// Attempts that change a place between a verdict and the use of the image. Each is a test of the crate that owns the
/// place, named by the id; here so that none is forgotten.
pub const STORIES: &[(&str, &str)] = &[
    ("T01", "the tag is moved after it was verified"),
    ("T02", "the registry serves another manifest for the digest"),
    ("T03", "the registry serves another layer"),
    ("T04", "the registry serves another configuration"),
    (
        "T05",
        "the store has the image unsigned, then the policy is tightened",
    ),
    ("T06", "a permissive tool brings it into the shared store"),
    ("T07", "the store's record is another image's"),
    ("T08", "the store's manifest is another"),
    ("T09", "the store's name is bent to another image"),
    ("T10", "an alias has the name that is trusted"),
    (
        "T11",
        "an OCI layout brings the image under the trusted name",
    ),
    (
        "T12",
        "an image that was copied in the store inherits no name",
    ),
    ("T13", "a share without signatures has the image"),
    ("T14", "a share's tree claims to be the trusted registry"),
    ("T15", "an index of which only one other image is signed"),
    ("T16", "an index that lists the image only in the store"),
    ("T17", "a mirror's name stands in the signature"),
    ("T18", "the lookaside redirects to a signature elsewhere"),
    ("T19", "the lookaside has endless signatures"),
    ("T20", "the lookaside fails in the middle of the list"),
    (
        "T21",
        "a signature in the lookaside is a pipe, or a directory",
    ),
    ("T22", "a verdict is forged, or left over from before"),
    ("T23", "the environment names a policy that is not there"),
    ("T24", "options that contradict each other, or are empty"),
    ("T25", "a policy is exchanged while images are asked for"),
    (
        "T26",
        "the verifier is killed, starved of memory, or its time is up",
    ),
    (
        "T27",
        "an image is run by its ID, and only another name is trusted",
    ),
    ("T28", "a signature of the store is damaged"),
];

/// What §4.9 of the security reference names and what there is nothing for yet.
pub const NOT_YET: &[(&str, &str)] = &[
    (
        "the interface for Kubernetes (CRI)",
        "not written: init and pause images, pod annotations that name a policy",
    ),
    ("checkpoint and restore", "not written"),
    (
        "commit, rename",
        "there are no such verbs; copy and tag within a store are T10 and T12",
    ),
    (
        "artifact and volume images",
        "an image is mounted into a container by no verb; `mount` is a way in",
    ),
    (
        "dir:, archives, containers-storage:",
        "these transports are not written; copy and pull refuse the names",
    ),
    ("systemd containers", "not written"),
];

const fn case(
    id: &'static str,
    family: Family,
    what: &'static str,
    because: Because,
    attack: fn(&mut Maker, &mut Scene) -> Result<()>,
) -> Case {
    Case {
        id,
        what,
        family,
        because,
        attack,
    }
}

const MALFORMED: Because = Because::Signature(&["malformed"]);
const UNKNOWN: Because = Because::Signature(&["unknown-key"]);
const UNFIT: Because = Because::Signature(&["key-unfit"]);
const EXPIRED: Because = Because::Signature(&["expired"]);
const REVOKED: Because = Because::Signature(&["revoked"]);
const WEAK: Because = Because::Signature(&["weak"]);
const UNSUPPORTED: Because = Because::Signature(&["unsupported"]);
const PAYLOAD: Because = Because::Signature(&["payload"]);
const OTHER_DIGEST: Because = Because::Signature(&["other-digest"]);
const OTHER_IDENTITY: Because = Because::Signature(&["other-identity"]);
const NO_KEYS: Because = Because::Requirement("no-keys");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_the_table_is_large() {
        let ids: Vec<&str> = cases().map(|case| case.id).collect();
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{ids:?}");
        assert!(ids.len() >= 120, "{}", ids.len());
        let stories: BTreeSet<&str> = STORIES.iter().map(|(id, _)| *id).collect();
        assert_eq!(stories.len(), STORIES.len());
    }
}
