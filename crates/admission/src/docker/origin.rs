// SPDX-License-Identifier: Apache-2.0
//! From what a daemon says of an image to what the policy is asked.
//!
//! | the image was asked for by | the daemon has for it | judged as |
//! |---|---|---|
//! | a name | a digest from that repository | that name and tag, that digest |
//! | a name with a digest | that digest from that repository | that repository and digest |
//! | a name that was given to it here, or an ID | digests from other repositories | each of these; one must be admitted |
//! | anything | no digest | [`LOCAL`], which no signature speaks for |
//!
//! A name alone proves nothing: `docker tag` gives any image any name. What
//! the daemon notes when it pulls, the digest, is compared with the registry
//! by the judge.

use gantry_oci::{Digest, Host, ImageId, ManifestDigest, Reference, Repository};

use super::call::is_hex;
use super::daemon::ImageFacts;
use crate::judge::{Asked, Content};

/// The host and repository under which images are judged that a daemon built,
/// imported or loaded. Their own names do not matter: whoever may make such
/// an image may name it.
pub const LOCAL: (&str, &str) = ("localhost", "docker-daemon");

/// How an image was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Id,
    Reference(Reference),
}

/// The alternatives to put before the judge for the image that `asked` names.
///
/// # Errors
/// A sentence, where the name and the daemon's facts do not go together.
pub fn alternatives(asked: &str, facts: &ImageFacts) -> Result<Vec<Asked>, String> {
    let origins = facts
        .digests
        .iter()
        .map(|text| origin(text))
        .collect::<Result<Vec<_>, _>>()?;
    let held = |reference: Reference, manifest| Asked {
        reference,
        content: Content::Held {
            manifest,
            image: facts.id,
        },
        namespace: None,
    };
    if origins.is_empty() {
        return Ok(vec![local(facts.id)?]);
    }
    if let Named::Reference(reference) = named(asked, facts)? {
        let of_name: Vec<_> = origins
            .iter()
            .filter(|(origin, _)| is_same_repository(origin, &reference))
            .filter(|(_, digest)| reference.digest.is_none_or(|wanted| wanted == *digest))
            .map(|(_, digest)| held(reference.clone(), *digest))
            .collect();
        if !of_name.is_empty() {
            return Ok(of_name);
        }
        if reference.digest.is_some() {
            return Err(format!("the daemon does not have {reference} as such"));
        }
    }
    Ok(origins
        .into_iter()
        .map(|(origin, digest)| held(origin, digest))
        .collect())
}

fn local(image: ImageId) -> Result<Asked, String> {
    let (host, repository) = LOCAL;
    let internal = |error: gantry_oci::reference::ParseReferenceError| error.to_string();
    Ok(Asked {
        reference: Reference {
            host: host.parse::<Host>().map_err(internal)?,
            repository: repository.parse::<Repository>().map_err(internal)?,
            tag: None,
            digest: None,
        }
        .or_latest(),
        content: Content::Local { image },
        namespace: None,
    })
}

/// Reads `repository@digest`.
fn origin(text: &str) -> Result<(Reference, ManifestDigest), String> {
    let reference = Reference::parse_normalized(text)
        .map_err(|error| format!("the daemon's digest {text:?}: {error}"))?;
    match (reference.digest, &reference.tag) {
        (Some(digest), None) => Ok((reference, digest)),
        _ => Err(format!("the daemon's digest {text:?} is none")),
    }
}

fn is_same_repository(one: &Reference, other: &Reference) -> bool {
    one.host == other.host && one.repository == other.repository
}

/// Tells a name from an ID. What may be either is taken for an ID if the image has it: that says which image, and
/// nothing about names.
fn named(asked: &str, facts: &ImageFacts) -> Result<Named, String> {
    let hex = asked.strip_prefix("sha256:").unwrap_or(asked);
    if is_hex(hex) && facts.id.hex().starts_with(hex) {
        return Ok(Named::Id);
    }
    if asked.parse::<Digest>().is_ok() {
        return Err(format!("the daemon takes {asked} for another image"));
    }
    let reference = Reference::parse_normalized(asked).map_err(|error| error.to_string())?;
    Ok(Named::Reference(if reference.digest.is_some() {
        Reference {
            tag: None,
            ..reference
        }
    } else {
        reference.or_latest()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const ID: &str = "sha256:cafecafecafecafecafecafecafecafecafecafecafecafecafecafecafecafe";

    fn facts(digests: &[&str]) -> ImageFacts {
        ImageFacts {
            id: ID.parse().unwrap(),
            digests: digests.iter().map(|&text| text.into()).collect(),
        }
    }

    /// `reference digest` of each alternative.
    fn judged(asked: &str, digests: &[&str]) -> Result<Vec<String>, String> {
        let alternatives = alternatives(asked, &facts(digests))?;
        Ok(alternatives
            .into_iter()
            .map(|asked| match asked.content {
                Content::Held { manifest, image } => {
                    assert_eq!(image.to_string(), ID);
                    format!("{} {}", asked.reference, &manifest.to_string()[7..9])
                }
                content => format!("{} {content:?}", asked.reference),
            })
            .collect())
    }

    #[test]
    fn a_name_is_judged_with_the_digest_from_its_repository() {
        let (a, b) = (format!("r.example/app@{A}"), format!("busybox@{B}"));
        let both = [a.as_str(), b.as_str()];
        for (asked, wanted) in [
            ("r.example/app:v1", vec!["r.example/app:v1 aa".to_owned()]),
            ("r.example/app", vec!["r.example/app:latest aa".into()]),
            (
                "busybox",
                vec!["docker.io/library/busybox:latest bb".into()],
            ),
            (&a, vec![format!("r.example/app@{A} aa")]),
            (
                &format!("r.example/app:v1@{A}"),
                vec![format!("r.example/app@{A} aa")],
            ),
        ] {
            assert_eq!(judged(asked, &both), Ok(wanted), "{asked}");
        }
    }

    #[test]
    fn an_id_and_a_name_given_here_are_judged_by_origin() {
        let a = format!("r.example/app@{A}");
        let wanted = vec![format!("r.example/app@{A} aa")];
        for asked in [
            ID,
            &ID[7..],
            "cafe",
            "sha256:cafe",
            "busybox",
            "other.example/app:v1",
        ] {
            assert_eq!(judged(asked, &[&a]), Ok(wanted.clone()), "{asked}");
        }
    }

    #[test]
    fn an_image_without_origin_has_one_name_only() {
        for asked in [ID, "cafe", "busybox", "r.example/app:v1", "localhost/x"] {
            let judged = judged(asked, &[]).unwrap();
            assert_eq!(judged.len(), 1);
            assert!(
                judged[0].starts_with("localhost/docker-daemon:latest Local"),
                "{judged:?}"
            );
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let a = format!("r.example/app@{A}");
        for (asked, digests) in [
            (format!("r.example/app@{B}"), vec![a.as_str()]),
            (B.to_owned(), vec![&a]),
            ("Not A Name".to_owned(), vec![&a]),
            ("r.example/app:v1".to_owned(), vec!["r.example/app"]),
            ("r.example/app:v1".to_owned(), vec!["<none>@<none>"]),
        ] {
            assert!(judged(&asked, &digests).is_err(), "{asked}");
        }
    }
}
