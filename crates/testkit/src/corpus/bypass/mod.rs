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
    /// One family's scene.
    ///
    /// # Errors
    /// A tool that makes keys or signatures fails.
    pub fn of(family: Family, maker: &mut Maker) -> Result<Scene> {
        scene::of(family, maker)
    }

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

/// An attempt that changes a place between a verdict and the use of the image: a test of its own.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    /// Its name for ever.
    pub id: &'static str,
    /// What it tries.
    pub what: &'static str,
    /// The test in `crates/gantry/tests` that tries it: file and function.
    pub test: &'static str,
}

const fn story(id: &'static str, what: &'static str, test: &'static str) -> Story {
    Story { id, what, test }
}

/// All of these, so that none is forgotten.
pub const STORIES: &[Story] = &[
    story(
        "T01",
        "the tag is moved after it was verified",
        "bypass_places.rs::a_tag_that_is_moved_is_judged_anew",
    ),
    story(
        "T02",
        "the registry serves another manifest for the digest",
        "bypass_places.rs::a_registry_that_serves_other_bytes_is_not_believed",
    ),
    story(
        "T03",
        "the registry serves another layer",
        "bypass_places.rs::a_registry_that_serves_other_bytes_is_not_believed",
    ),
    story(
        "T04",
        "the registry serves another configuration",
        "bypass_places.rs::a_registry_that_serves_other_bytes_is_not_believed",
    ),
    story(
        "T05",
        "the store has the image, then the policy is tightened",
        "admission.rs::a_verdict_is_remembered_and_a_tightened_policy_is_not_fooled",
    ),
    story(
        "T06",
        "a permissive tool brings it into the shared store",
        "admission.rs::what_a_permissive_tool_brought_is_refused_at_the_start",
    ),
    story(
        "T07",
        "the store's record is another image's",
        "admission.rs::a_record_that_is_not_the_manifests_is_refused",
    ),
    story(
        "T08",
        "the store's manifest is another",
        "bypass_places.rs::what_is_changed_in_a_store_does_not_run",
    ),
    story(
        "T09",
        "the store's name is bent to another image",
        "bypass_places.rs::a_name_that_is_bent_to_another_image_is_judged_by_that_image",
    ),
    story(
        "T10",
        "an alias has the name that is trusted",
        "bypass_places.rs::an_alias_with_the_trusted_name_brings_no_trust",
    ),
    story(
        "T11",
        "an OCI layout brings the image under the trusted name",
        "bypass_places.rs::a_layout_brings_no_trust_to_a_name",
    ),
    story(
        "T12",
        "an image that was copied in the store inherits no name",
        "bypass_places.rs::a_copy_in_the_store_inherits_no_name",
    ),
    story(
        "T13",
        "a share without signatures has the image",
        "bypass_places.rs::a_share_without_signatures_is_not_believed",
    ),
    story(
        "T14",
        "a share's tree claims to be the trusted registry",
        "admission.rs::a_share_has_the_name_that_this_host_gives_it",
    ),
    story(
        "T15",
        "an index of which only one other image is signed",
        "bypass_places.rs::one_image_of_an_index_signs_for_itself_alone",
    ),
    story(
        "T16",
        "an index that nobody signed lists the image in the store",
        "bypass_places.rs::one_image_of_an_index_signs_for_itself_alone",
    ),
    story(
        "T17",
        "a mirror's name stands in the signature",
        "bypass_places.rs::a_mirror_has_no_say_in_the_name",
    ),
    story(
        "T18",
        "the lookaside redirects to another kind of place, or to itself",
        "bypass_places.rs::a_lookaside_leads_to_no_other_kind_of_place",
    ),
    story(
        "T19",
        "the lookaside has endless signatures",
        "bypass_places.rs::a_lookaside_without_end_is_left",
    ),
    story(
        "T20",
        "the lookaside fails in the middle of the list",
        "bypass_places.rs::a_lookaside_that_fails_says_nothing",
    ),
    story(
        "T21",
        "a signature in the lookaside is a pipe, a directory, a device",
        "bypass_places.rs::a_signature_that_is_no_file_is_none",
    ),
    story(
        "T22",
        "a verdict is left over from before",
        "admission.rs::a_verdict_is_remembered_and_a_tightened_policy_is_not_fooled",
    ),
    story(
        "T23",
        "the environment names a policy that is not there",
        "bypass_places.rs::no_environment_and_no_option_loosens_the_policy_by_accident",
    ),
    story(
        "T24",
        "options contradict each other, or are empty",
        "bypass_places.rs::no_environment_and_no_option_loosens_the_policy_by_accident",
    ),
    story(
        "T25",
        "a policy is exchanged while images are asked for",
        "bypass_places.rs::a_policy_that_is_exchanged_meanwhile_is_one_or_the_other",
    ),
    story(
        "T26",
        "the verifier is killed, starved of memory, or its time is up",
        "fail_closed.rs::a_verifier_that_is_killed_starved_or_late_admits_nothing",
    ),
    story(
        "T27",
        "an image is run by its ID, and only another name is trusted",
        "admission.rs::an_image_without_a_name_is_judged_by_all_that_lead_to_it",
    ),
    story(
        "T28",
        "a signature of the store is damaged",
        "admission.rs::a_verdict_is_remembered_and_a_tightened_policy_is_not_fooled",
    ),
    story(
        "T29",
        "any system call of the verification fails",
        "fail_closed.rs::a_failing_system_call_never_admits_an_image",
    ),
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
        let stories: BTreeSet<&str> = STORIES.iter().map(|story| story.id).collect();
        assert_eq!(stories.len(), STORIES.len());
    }
}
