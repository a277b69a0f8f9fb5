// SPDX-License-Identifier: Apache-2.0
//! What becomes of a manifest that was pushed: a decision without effects.
//!
//! | policy | admitted | refused for now | refused for good | cannot be judged |
//! |---|---|---|---|---|
//! | enforce | published | refused | refused | refused |
//! | staged | published | waits | refused | waits |
//!
//! What publishes takes a [`Permit`], and nothing but this module makes one.

use gantry_image::{ManifestBytes, SignatureBlob};
use gantry_oci::{Document, ManifestDigest, MediaType, Repository, Tag};
use gantry_trust::sigstore::{
    BUNDLE_MEDIA_TYPE, ENVELOPE_MEDIA_TYPE, PAYLOAD_MEDIA_TYPE, attachment_tag,
};
use gantry_trust::{AdmittedImage, Denied};

use crate::gate::PushPolicy;

/// A manifest, and the name that it shall have: a tag, or its digest alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Naming {
    /// The repository.
    pub repository: Repository,
    /// The tag; pushed by digest without.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: ManifestDigest,
}

/// Leave to publish one manifest under one name.
///
/// Holding one says: the repository asks no policy, or the manifest holds nothing but signatures of another, or the
/// policy admitted it under this name just now. It does not say that its blobs are here or fit together.
#[derive(Debug)]
pub struct Permit {
    naming: Naming,
    signatures: Vec<SignatureBlob>,
}

impl Permit {
    /// For a repository that asks no policy.
    ///
    /// `None` if it does ask one.
    pub fn without_policy(policy: PushPolicy, naming: Naming) -> Option<Self> {
        (policy == PushPolicy::Off).then(|| Self::new(naming, Vec::new()))
    }

    /// For what holds nothing but signatures and attestations of another manifest, and stands where these stand. It
    /// has nothing to run, and the image could not be admitted without it.
    ///
    /// `None` if it is anything else.
    pub fn for_evidence(naming: Naming, manifest: &ManifestBytes) -> Option<Self> {
        let fits = naming.digest == *manifest.digest();
        let about = evidence_about(manifest, naming.tag.as_ref());
        (fits && about.is_some()).then(|| Self::new(naming, Vec::new()))
    }

    fn new(naming: Naming, signatures: Vec<SignatureBlob>) -> Self {
        Self { naming, signatures }
    }

    /// What may be published, and as what.
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// The signatures that it was judged by, to be kept with it.
    pub fn signatures(&self) -> &[SignatureBlob] {
        &self.signatures
    }
}

/// By which word a manifest is admitted.
#[derive(Debug)]
pub enum Proof {
    /// It was admitted itself, or chosen from an index that is signed.
    Itself(Box<AdmittedImage>),
    /// It is an index, and each of the manifests that it lists was admitted under its name.
    Members(ManifestDigest, Vec<AdmittedImage>),
}

/// What the policy says of a manifest.
#[derive(Debug)]
pub enum Opinion {
    /// Admitted, with what is to be published before it: the members of an index that wait because only the index is
    /// signed.
    Admitted(Admission, Vec<Admission>),
    /// Refused.
    Denied(Box<Denied>),
    /// It cannot be judged.
    Unknown(Trouble),
}

/// An admission, and the signatures that were looked at.
#[derive(Debug)]
pub struct Admission {
    /// The word of the policy.
    pub proof: Proof,
    /// All of them, also those that did not count.
    pub signatures: Vec<SignatureBlob>,
}

/// Why something cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// For the client.
    pub outward: &'static str,
    /// For the log: names of files and hosts may be in it.
    pub internal: String,
}

/// What is to be done.
#[derive(Debug)]
pub enum Decision {
    /// Publish these, in this order; the last one is what was asked about.
    Publish(Vec<Permit>),
    /// Keep it until a signature arrives.
    Wait(String),
    /// Keep nothing of it.
    Refuse(String),
}

/// Decides.
pub fn decide(policy: PushPolicy, naming: &Naming, opinion: Opinion) -> Decision {
    let wait_or_refuse = |reason: String| match policy {
        PushPolicy::Staged => Decision::Wait(reason),
        PushPolicy::Enforce | PushPolicy::Off => Decision::Refuse(reason),
    };
    match opinion {
        Opinion::Admitted(admission, members) => {
            let members = members.into_iter().map(|member| permit(naming, member));
            let permits: Option<Vec<Permit>> = members.chain([permit(naming, admission)]).collect();
            match permits {
                Some(permits) if permits.last().map(Permit::naming) == Some(naming) => {
                    Decision::Publish(permits)
                }
                _ => Decision::Refuse("the policy answered about another image".to_owned()),
            }
        }
        Opinion::Denied(denied) if denied.is_final() => Decision::Refuse(denied.outward()),
        Opinion::Denied(denied) => wait_or_refuse(denied.outward()),
        Opinion::Unknown(trouble) => {
            let digest = naming.digest;
            wait_or_refuse(format!(
                "image {digest} cannot be judged, and what is not judged is not admitted: {}",
                trouble.outward
            ))
        }
    }
}

/// The name is that of the proof, as far as the proof has one.
fn permit(asked: &Naming, admission: Admission) -> Option<Permit> {
    let (digest, admitted) = match &admission.proof {
        Proof::Itself(admitted) => (*admitted.manifest_digest(), &**admitted),
        Proof::Members(index, members) => (*index, members.first()?),
    };
    let reference = admitted.reference()?;
    let naming = Naming {
        repository: reference.repository.clone(),
        tag: reference.tag.clone(),
        digest,
    };
    let fits = naming.repository == asked.repository
        && reference.digest.is_none_or(|pinned| pinned == digest);
    fits.then(|| Permit::new(naming, admission.signatures))
}

/// The manifest that a manifest holds signatures of, if it holds nothing else.
///
/// All its layers are signatures or attestations, and it stands under the tag that attachments of that manifest have, or
/// has no tag and names it as its subject.
pub fn evidence_about(manifest: &ManifestBytes, tag: Option<&Tag>) -> Option<ManifestDigest> {
    const KINDS: [&str; 3] = [PAYLOAD_MEDIA_TYPE, ENVELOPE_MEDIA_TYPE, BUNDLE_MEDIA_TYPE];
    let Document::Manifest(document) = manifest.document() else {
        return None;
    };
    let mut layers = document.layers.iter();
    let signatures_only = !document.layers.is_empty()
        && layers.all(|layer| KINDS.contains(&layer.media_type.as_str()))
        && manifest.media_type() == MediaType::OciManifest;
    if !signatures_only {
        return None;
    }
    match tag {
        None => {
            let subject = document.subject.as_ref()?;
            Some(ManifestDigest::from_digest(subject.digest))
        }
        Some(tag) => attached_to(tag),
    }
}

/// The manifest that `sha256-….sig` and `sha256-….att` are attached to.
fn attached_to(tag: &Tag) -> Option<ManifestDigest> {
    let text = tag.as_str();
    let (name, suffix) = [".sig", ".att"]
        .iter()
        .find_map(|suffix| Some((text.strip_suffix(suffix)?, suffix)))?;
    let (algorithm, hex) = name.split_once('-')?;
    let digest = format!("{algorithm}:{hex}").parse().ok()?;
    (attachment_tag(&digest, suffix) == text).then_some(digest)
}

#[cfg(test)]
mod tests {
    use gantry_image::UnverifiedManifest;
    use gantry_oci::{Limits, Reference};
    use gantry_trust::{Authority, Extra, FoundSignature, NoMemory, Policy, Question, Subject};
    use serde_json::{Value, json};
    use std::time::SystemTime;

    use super::*;

    const HEX: &str = "abababababababababababababababababababababababababababababababab";

    fn manifest(layer: &str, more: &Value) -> ManifestBytes {
        let digest = format!("sha256:{HEX}");
        let mut document = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2},
            "layers": [{"mediaType": layer, "digest": digest, "size": 2}],
        });
        for (name, value) in more.as_object().unwrap() {
            document[name] = value.clone();
        }
        UnverifiedManifest::new(document.to_string().into_bytes().into(), None, None)
            .verify(None, &Limits::DEFAULT)
            .unwrap()
    }

    fn naming(tag: Option<&str>, manifest: &ManifestBytes) -> Naming {
        Naming {
            repository: "team/app".parse().unwrap(),
            tag: tag.map(|tag| tag.parse().unwrap()),
            digest: *manifest.digest(),
        }
    }

    fn opinion(policy: &str, reference: &str, manifest: &ManifestBytes) -> Opinion {
        let policy = Policy::parse(policy.as_bytes().to_vec().into(), &Limits::DEFAULT).unwrap();
        let authority = Authority::new(policy.load_keys(&Limits::DEFAULT), Extra::default());
        let subject = Subject::docker(&Reference::parse_normalized(reference).unwrap());
        let signatures: Vec<FoundSignature> = Vec::new();
        let question = Question {
            subject: &subject,
            manifest,
            chosen_from: None,
            signatures: &signatures,
            now: SystemTime::UNIX_EPOCH,
            circumstances: Default::default(),
        };
        match authority.admit(&question, &NoMemory) {
            Ok(admitted) => {
                let proof = Proof::Itself(Box::new(admitted));
                let signatures = Vec::new();
                Opinion::Admitted(Admission { proof, signatures }, Vec::new())
            }
            Err(denied) => Opinion::Denied(Box::new(denied)),
        }
    }

    const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;
    const SIGNED: &str =
        r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/nowhere/key"}]}"#;

    #[test]
    fn every_opinion_has_one_consequence() {
        let image = manifest("application/vnd.oci.image.layer.v1.tar", &json!({}));
        let naming = naming(Some("v1"), &image);
        let of = |policy, opinion| match decide(policy, &naming, opinion) {
            Decision::Publish(permits) => format!("publish {}", permits.len()),
            Decision::Wait(reason) => format!("wait: {reason}"),
            Decision::Refuse(reason) => format!("refuse: {reason}"),
        };
        let trouble = || {
            Opinion::Unknown(Trouble {
                outward: "the signatures cannot be read",
                internal: "/secret".to_owned(),
            })
        };
        for (policy, verb) in [
            (PushPolicy::Enforce, "refuse"),
            (PushPolicy::Staged, "wait"),
        ] {
            let name = "r.example/team/app:v1";
            assert_eq!(of(policy, opinion(ACCEPT, name, &image)), "publish 1");
            let denied = of(policy, opinion(SIGNED, name, &image));
            assert!(denied.starts_with(verb), "{denied}");
            assert!(denied.contains("requires signedBy"), "{denied}");
            assert!(!denied.contains("/nowhere"), "{denied}");
            let unknown = of(policy, trouble());
            assert!(unknown.starts_with(verb), "{unknown}");
            assert!(!unknown.contains("/secret"), "{unknown}");
            let rejected = of(policy, opinion(REJECT, name, &image));
            assert!(rejected.starts_with("refuse: "), "{rejected}");
            // An admission of something else permits nothing.
            for other in [
                "r.example/team/app:v2",
                "r.example/team/other:v1",
                "r.example/team/app",
            ] {
                let other = of(policy, opinion(ACCEPT, other, &image));
                assert!(other.starts_with("refuse: "), "{other}");
            }
        }
    }

    #[test]
    fn only_off_needs_no_policy() {
        let image = manifest("application/vnd.oci.image.layer.v1.tar", &json!({}));
        for (policy, permitted) in [
            (PushPolicy::Off, true),
            (PushPolicy::Enforce, false),
            (PushPolicy::Staged, false),
        ] {
            let permit = Permit::without_policy(policy, naming(None, &image));
            assert_eq!(permit.is_some(), permitted, "{policy:?}");
        }
    }

    #[test]
    fn evidence_is_signatures_where_signatures_stand() {
        let tag = format!("sha256-{HEX}.sig");
        let subject = json!({"subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{HEX}"), "size": 2}});
        let tar = "application/vnd.oci.image.layer.v1.tar";
        let two = json!({"layers": [
            {"mediaType": PAYLOAD_MEDIA_TYPE, "digest": format!("sha256:{HEX}"), "size": 2},
            {"mediaType": tar, "digest": format!("sha256:{HEX}"), "size": 2}]});
        for (layer, more, tag, is_evidence) in [
            (PAYLOAD_MEDIA_TYPE, json!({}), Some(tag.as_str()), true),
            (ENVELOPE_MEDIA_TYPE, json!({}), Some(tag.as_str()), true),
            (BUNDLE_MEDIA_TYPE, subject.clone(), None, true),
            // Under any other name it would stand in an image's place.
            (PAYLOAD_MEDIA_TYPE, json!({}), Some("v1"), false),
            (PAYLOAD_MEDIA_TYPE, json!({}), Some("sha256-ab.sig"), false),
            (PAYLOAD_MEDIA_TYPE, json!({}), None, false),
            (BUNDLE_MEDIA_TYPE, subject.clone(), Some("v1"), false),
            // Anything that somebody could unpack is an image.
            (tar, subject, None, false),
            (tar, json!({}), Some(tag.as_str()), false),
            (PAYLOAD_MEDIA_TYPE, two, Some(tag.as_str()), false),
            (
                PAYLOAD_MEDIA_TYPE,
                json!({"layers": []}),
                Some(tag.as_str()),
                false,
            ),
        ] {
            let manifest = manifest(layer, &more);
            let name = naming(tag, &manifest);
            let about = evidence_about(&manifest, name.tag.as_ref());
            let permit = Permit::for_evidence(name, &manifest);
            assert_eq!(about.is_some(), is_evidence, "{layer} {more} {tag:?}");
            assert_eq!(permit.is_some(), is_evidence, "{layer} {more} {tag:?}");
        }
    }
}
