// SPDX-License-Identifier: Apache-2.0
//! From bytes to a [`Policy`]: each object is read member by member, and what
//! is left over is an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_oci::{Limits, Reference, strict_json};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    KeyType, ParsePolicyError, Place, Policy, Requirement, Scopes, SignedBy, SigstoreSigned,
    SigstoreSigners, Source,
};
use crate::identity::{RemapPrefix, SignedIdentity};
use crate::scope;

type Parsed<T> = Result<T, ParsePolicyError>;

pub(super) fn parse(text: Bytes, limits: &Limits) -> Parsed<Policy> {
    if text.len() > limits.policy_bytes {
        return Err(ParsePolicyError::TooLarge {
            size_bytes: text.len(),
            max_bytes: limits.policy_bytes,
        });
    }
    // Once for all objects at every depth: no member twice.
    strict_json::check(&text, limits.json_depth).map_err(ParsePolicyError::Json)?;
    let (default, transports) = {
        let raw: &RawValue = serde_json::from_slice(&text).map_err(ParsePolicyError::Json)?;
        let mut object = Object::read(raw, Place::default())?;
        let default = object.require("default")?;
        let default = requirements(default, &object.place.below("default"))?;
        let transports = match object.take("transports") {
            Some(raw) => transports(raw, &object.place.below("transports"))?,
            None => BTreeMap::new(),
        };
        object.finish()?;
        (default, transports)
    };
    Ok(Policy {
        text,
        default,
        transports,
    })
}

fn transports(raw: &RawValue, place: &Place) -> Parsed<BTreeMap<String, Scopes>> {
    let transports = Object::read(raw, place.clone())?;
    let read = |(name, raw): (String, &RawValue)| {
        let place = place.below(&name);
        let scopes = Object::read(raw, place.clone())?;
        let scopes = scopes.members.into_iter().map(|(scope, raw)| {
            let place = place.below(format!("scope {scope:?}"));
            scope::validate(&name, &scope).map_err(|problem| at(&place, problem))?;
            let requirements = requirements(raw, &place)?;
            Ok((scope, requirements))
        });
        Ok((name.clone(), scopes.collect::<Parsed<Scopes>>()?))
    };
    transports.members.into_iter().map(read).collect()
}

fn requirements(raw: &RawValue, place: &Place) -> Parsed<Vec<Requirement>> {
    let list: Vec<&RawValue> = value(raw, place)?;
    if list.is_empty() {
        return Err(at(place, "the list of requirements is empty"));
    }
    let numbered = (1..).zip(list);
    numbered
        .map(|(number, raw)| requirement(raw, &place.below(format!("requirement {number}"))))
        .collect()
}

fn requirement(raw: &RawValue, place: &Place) -> Parsed<Requirement> {
    let mut object = Object::read(raw, place.clone())?;
    let name: String = object.require_value("type")?;
    let requirement = match name.as_str() {
        "insecureAcceptAnything" => Requirement::InsecureAcceptAnything,
        "reject" => Requirement::Reject,
        "signedBy" => Requirement::SignedBy(signed_by(&mut object)?),
        "signedBaseLayer" => {
            let raw = object.require("baseLayerIdentity")?;
            Requirement::SignedBaseLayer(identity(raw, &place.below("baseLayerIdentity"))?)
        }
        "sigstoreSigned" => Requirement::SigstoreSigned(Box::new(sigstore_signed(&mut object)?)),
        _ => return Err(at(place, format!("type {name:?} is not known"))),
    };
    object.finish()?;
    Ok(requirement)
}

fn signed_by(object: &mut Object<'_>) -> Parsed<SignedBy> {
    let word: String = object.require_value("keyType")?;
    let key_type = KeyType::parse(&word)
        .ok_or_else(|| at(&object.place, format!("keyType {word:?} is not known")))?;
    let sources = [
        object.path("keyPath")?,
        object.paths("keyPaths")?,
        object.data("keyData")?,
    ];
    let keys = exactly_one(sources)
        .ok_or_else(|| at(&object.place, "wants one of keyPath, keyPaths and keyData"))?;
    Ok(SignedBy {
        key_type,
        keys,
        identity: signed_identity(object)?,
    })
}

fn sigstore_signed(object: &mut Object<'_>) -> Parsed<SigstoreSigned> {
    let keys = [
        object.path("keyPath")?,
        object.paths("keyPaths")?,
        object.data("keyData")?,
        object.datas("keyDatas")?,
    ];
    let keys = keys.map(|source| source.map(SigstoreSigners::Keys));
    let fulcio = object.nested("fulcio", fulcio)?;
    let pki = object.nested("pki", pki)?;
    let signers = exactly_one(keys.into_iter().chain([fulcio, pki])).ok_or_else(|| {
        let problem = "wants one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki";
        at(&object.place, problem)
    })?;
    let rekor = [
        object.path("rekorPublicKeyPath")?,
        object.paths("rekorPublicKeyPaths")?,
        object.data("rekorPublicKeyData")?,
        object.datas("rekorPublicKeyDatas")?,
    ];
    let rekor = at_most_one(rekor).map_err(|()| {
        let problem = "has more than one of rekorPublicKeyPath, -Paths, -Data and -Datas";
        at(&object.place, problem)
    })?;
    match (&signers, &rekor) {
        (SigstoreSigners::Fulcio { .. }, None) => Err(at(
            &object.place,
            "fulcio wants the public key of a log, as rekorPublicKeyPath, -Paths, -Data or -Datas",
        )),
        (SigstoreSigners::Pki { .. }, Some(_)) => {
            Err(at(&object.place, "pki goes with no public key of a log"))
        }
        _ => Ok(SigstoreSigned {
            signers,
            rekor,
            identity: signed_identity(object)?,
        }),
    }
}

fn fulcio(object: &mut Object<'_>) -> Parsed<SigstoreSigners> {
    let sources = [object.path("caPath")?, object.data("caData")?];
    Ok(SigstoreSigners::Fulcio {
        ca: exactly_one(sources)
            .ok_or_else(|| at(&object.place, "wants one of caPath and caData"))?,
        oidc_issuer: object.require_text("oidcIssuer")?,
        subject_email: object.require_text("subjectEmail")?,
    })
}

fn pki(object: &mut Object<'_>) -> Parsed<SigstoreSigners> {
    let roots = [object.path("caRootsPath")?, object.data("caRootsData")?];
    let roots = exactly_one(roots)
        .ok_or_else(|| at(&object.place, "wants one of caRootsPath and caRootsData"))?;
    let intermediates = [
        object.path("caIntermediatesPath")?,
        object.data("caIntermediatesData")?,
    ];
    let intermediates = at_most_one(intermediates).map_err(|()| {
        let problem = "has both caIntermediatesPath and caIntermediatesData";
        at(&object.place, problem)
    })?;
    let subject_hostname = object.text("subjectHostname")?;
    let subject_email = object.text("subjectEmail")?;
    if subject_hostname.is_none() && subject_email.is_none() {
        return Err(at(
            &object.place,
            "wants subjectHostname, subjectEmail or both",
        ));
    }
    Ok(SigstoreSigners::Pki {
        roots,
        intermediates,
        subject_hostname,
        subject_email,
    })
}

fn signed_identity(object: &mut Object<'_>) -> Parsed<SignedIdentity> {
    match object.take("signedIdentity") {
        None => Ok(SignedIdentity::default()),
        Some(raw) => identity(raw, &object.place.below("signedIdentity")),
    }
}

fn identity(raw: &RawValue, place: &Place) -> Parsed<SignedIdentity> {
    let mut object = Object::read(raw, place.clone())?;
    let name: String = object.require_value("type")?;
    let identity = match name.as_str() {
        "matchExact" => SignedIdentity::MatchExact,
        "matchRepoDigestOrExact" => SignedIdentity::MatchRepoDigestOrExact,
        "matchRepository" => SignedIdentity::MatchRepository,
        "exactReference" => {
            let reference = object.reference("dockerReference")?;
            if reference.tag.is_none() && reference.digest.is_none() {
                return Err(at(place, "dockerReference has neither a tag nor a digest"));
            }
            SignedIdentity::ExactReference(reference)
        }
        "exactRepository" => SignedIdentity::ExactRepository(object.reference("dockerRepository")?),
        "remapIdentity" => SignedIdentity::Remap {
            prefix: object.remap_prefix("prefix")?,
            signed_prefix: object.remap_prefix("signedPrefix")?,
        },
        _ => return Err(at(place, format!("type {name:?} is not known"))),
    };
    object.finish()?;
    Ok(identity)
}

impl SignedIdentity {
    /// Parses the JSON of a `signedIdentity` that stands outside a policy.
    ///
    /// # Errors
    /// [`ParsePolicyError`].
    pub fn parse_json(text: &str) -> Result<Self, ParsePolicyError> {
        let raw: &RawValue = serde_json::from_str(text).map_err(ParsePolicyError::Json)?;
        identity(raw, &Place::default())
    }
}

/// The one that is there; none if there are none or several.
fn exactly_one<T>(choices: impl IntoIterator<Item = Option<T>>) -> Option<T> {
    at_most_one(choices).ok().flatten()
}

fn at_most_one<T>(choices: impl IntoIterator<Item = Option<T>>) -> Result<Option<T>, ()> {
    let mut present = choices.into_iter().flatten();
    let first = present.next();
    match present.next() {
        Some(_) => Err(()),
        None => Ok(first),
    }
}

fn at(place: &Place, problem: impl Into<String>) -> ParsePolicyError {
    ParsePolicyError::Value {
        place: place.clone(),
        problem: problem.into(),
    }
}

fn value<'a, T: Deserialize<'a>>(raw: &'a RawValue, place: &Place) -> Parsed<T> {
    serde_json::from_str(raw.get()).map_err(|error| at(place, error.to_string()))
}

/// The members of an object that were not asked for yet.
struct Object<'a> {
    members: BTreeMap<String, &'a RawValue>,
    place: Place,
}

impl<'a> Object<'a> {
    fn read(raw: &'a RawValue, place: Place) -> Parsed<Self> {
        let members = value(raw, &place)?;
        Ok(Self { members, place })
    }

    fn finish(self) -> Parsed<()> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(at(&self.place, format!("member {name:?} is not known"))),
        }
    }

    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.members.remove(name)
    }

    fn require(&mut self, name: &str) -> Parsed<&'a RawValue> {
        self.take(name)
            .ok_or_else(|| at(&self.place, format!("member {name:?} is missing")))
    }

    fn value<T: Deserialize<'a>>(&mut self, name: &str) -> Parsed<Option<T>> {
        let place = self.place.below(name);
        self.take(name).map(|raw| value(raw, &place)).transpose()
    }

    fn require_value<T: Deserialize<'a>>(&mut self, name: &str) -> Parsed<T> {
        let place = self.place.below(name);
        value(self.require(name)?, &place)
    }

    /// A text that is there must not be empty: it would mean "anybody".
    fn text(&mut self, name: &str) -> Parsed<Option<String>> {
        let text: Option<String> = self.value(name)?;
        match text {
            Some(text) if text.is_empty() => Err(at(&self.place.below(name), "is empty")),
            text => Ok(text),
        }
    }

    fn require_text(&mut self, name: &str) -> Parsed<String> {
        self.text(name)?
            .ok_or_else(|| at(&self.place, format!("member {name:?} is missing")))
    }

    fn path(&mut self, name: &str) -> Parsed<Option<Source>> {
        let path = self.text(name)?;
        Ok(path.map(|path| Source::Files(vec![PathBuf::from(path)])))
    }

    fn paths(&mut self, name: &str) -> Parsed<Option<Source>> {
        let paths: Option<Vec<PathBuf>> = self.value(name)?;
        match paths {
            Some(paths) if paths.is_empty() => Err(at(&self.place.below(name), "is empty")),
            paths => Ok(paths.map(Source::Files)),
        }
    }

    fn data(&mut self, name: &str) -> Parsed<Option<Source>> {
        let data: Option<String> = self.value(name)?;
        let data = data.map(|text| self.decode(name, &text)).transpose()?;
        Ok(data.map(|data| Source::Inline(vec![data])))
    }

    fn datas(&mut self, name: &str) -> Parsed<Option<Source>> {
        let texts: Option<Vec<String>> = self.value(name)?;
        let Some(texts) = texts else {
            return Ok(None);
        };
        if texts.is_empty() {
            return Err(at(&self.place.below(name), "is empty"));
        }
        let datas = texts.iter().map(|text| self.decode(name, text));
        Ok(Some(Source::Inline(datas.collect::<Parsed<_>>()?)))
    }

    /// Base64 with padding; line breaks inside do not matter.
    fn decode(&self, name: &str, text: &str) -> Parsed<Bytes> {
        let text = text.replace(['\r', '\n'], "");
        let data = STANDARD.decode(text);
        data.map(Bytes::from)
            .map_err(|error| at(&self.place.below(name), format!("is not base64: {error}")))
    }

    fn nested<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Object<'_>) -> Parsed<T>,
    ) -> Parsed<Option<T>> {
        let Some(raw) = self.take(name) else {
            return Ok(None);
        };
        let mut object = Object::read(raw, self.place.below(name))?;
        let value = read(&mut object)?;
        object.finish()?;
        Ok(Some(value))
    }

    fn reference(&mut self, name: &str) -> Parsed<Reference> {
        let text: String = self.require_value(name)?;
        Reference::parse_normalized(&text)
            .map_err(|error| at(&self.place.below(name), error.to_string()))
    }

    fn remap_prefix(&mut self, name: &str) -> Parsed<RemapPrefix> {
        let text: String = self.require_value(name)?;
        RemapPrefix::parse(&text).map_err(|problem| at(&self.place.below(name), problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Policy, ParsePolicyError> {
        Policy::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::DEFAULT)
    }

    /// A policy with one requirement.
    fn with(requirement: &str) -> Result<Requirement, ParsePolicyError> {
        let policy = parse_text(&format!(r#"{{"default":[{requirement}]}}"#))?;
        Ok(policy.default_requirements()[0].clone())
    }

    const ACCEPT: &str = r#"{"type":"insecureAcceptAnything"}"#;

    #[test]
    fn a_whole_policy_is_read() {
        let policy = parse_text(
            r#"{ "default": [{"type":"reject"}],
                 "transports": {
                    "docker": {
                        "": [{"type":"insecureAcceptAnything"}],
                        "h.io/ns": [{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"},
                                    {"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k","/l"],
                                     "signedIdentity":{"type":"matchRepository"}}]},
                    "nobody-knows": {"x": [{"type":"reject"}]},
                    "dir": {}}}"#,
        )
        .unwrap();
        assert_eq!(policy.default_requirements(), [Requirement::Reject]);
        let docker = &policy.transports()["docker"];
        assert_eq!(docker[""], [Requirement::InsecureAcceptAnything]);
        let signed_by = |paths: &[&str], identity| {
            Requirement::SignedBy(SignedBy {
                key_type: KeyType::GpgKeys,
                keys: Source::Files(paths.iter().map(PathBuf::from).collect()),
                identity,
            })
        };
        assert_eq!(
            docker["h.io/ns"],
            [
                signed_by(&["/k"], SignedIdentity::MatchRepoDigestOrExact),
                signed_by(&["/k", "/l"], SignedIdentity::MatchRepository)
            ]
        );
        assert!(policy.transports()["dir"].is_empty());
    }

    #[test]
    fn requirements_of_each_type_are_read() {
        for good in [
            ACCEPT,
            r#"{"type":"reject"}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"aGk="}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"aG\nk="}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyData":""}"#,
            r#"{"type":"signedBy","keyType":"signedByGPGKeys","keyPath":"/k"}"#,
            r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k"}"#,
            r#"{"type":"signedBy","keyType":"signedByX509CAs","keyPath":"/k"}"#,
            r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#,
            r#"{"type":"sigstoreSigned","keyPath":"/k"}"#,
            r#"{"type":"sigstoreSigned","keyPaths":["/k"],"rekorPublicKeyPath":"/r"}"#,
            r#"{"type":"sigstoreSigned","keyData":"aGk=","rekorPublicKeyPaths":["/r","/s"]}"#,
            r#"{"type":"sigstoreSigned","keyDatas":["aGk=","aGk="],"rekorPublicKeyData":"aGk="}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyDatas":["aGk="],
                "fulcio":{"caPath":"/c","oidcIssuer":"https://i","subjectEmail":"a@b"}}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyPath":"/r",
                "fulcio":{"caData":"aGk=","oidcIssuer":"https://i","subjectEmail":"a@b"}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectHostname":"h"}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsData":"aGk=","caIntermediatesPath":"/i","subjectEmail":"a@b"}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsData":"aGk=","caIntermediatesData":"aGk=",
                "subjectEmail":"a@b","subjectHostname":"h"}}"#,
        ] {
            assert!(with(good).is_ok(), "{good}: {:?}", with(good));
        }
    }

    #[test]
    fn identities_of_each_type_are_read() {
        let read = |identity: &str| {
            let requirement = format!(
                r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{identity}}}"#
            );
            match with(&requirement) {
                Ok(Requirement::SignedBy(signed_by)) => Ok(signed_by.identity.type_name()),
                other => Err(format!("{other:?}")),
            }
        };
        for (name, rest) in [
            ("matchExact", ""),
            ("matchRepoDigestOrExact", ""),
            ("matchRepository", ""),
            ("exactReference", r#","dockerReference":"busybox:1""#),
            ("exactRepository", r#","dockerRepository":"h.io/a""#),
            (
                "remapIdentity",
                r#","prefix":"h.io","signedPrefix":"m.io/a""#,
            ),
        ] {
            assert_eq!(read(&format!(r#"{{"type":"{name}"{rest}}}"#)), Ok(name));
            let unknown = format!(r#"{{"type":"{name}"{rest},"x":1}}"#);
            assert!(read(&unknown).is_err(), "{unknown}");
            let cased = format!(r#"{{"Type":"{name}"{rest}}}"#);
            assert!(read(&cased).is_err(), "{cased}");
        }
        for bad in [
            "null",
            "\"matchExact\"",
            "{}",
            r#"{"type":"MatchExact"}"#,
            r#"{"type":"exactReference"}"#,
            r#"{"type":"exactReference","dockerReference":"h.io/a"}"#,
            r#"{"type":"exactReference","dockerReference":"h.io/A:1"}"#,
            r#"{"type":"exactRepository","dockerReference":"h.io/a"}"#,
            r#"{"type":"exactRepository","dockerRepository":""}"#,
            r#"{"type":"remapIdentity","prefix":"h.io"}"#,
            r#"{"type":"remapIdentity","prefix":"h.io:1/a:t","signedPrefix":"h.io"}"#,
            r#"{"type":"remapIdentity","prefix":"h.io","signedPrefix":""}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_by_the_rules_is_no_policy() {
        let one = |requirement: &str| format!(r#"{{"default":[{requirement}]}}"#);
        let scoped = |rest: &str| format!(r#"{{"default":[{ACCEPT}],"transports":{rest}}}"#);
        let mut bad = vec![
            String::new(),
            " ".into(),
            "{}".into(),
            "[]".into(),
            "null".into(),
            format!("\u{feff}{}", one(ACCEPT)),
            format!("{} x", one(ACCEPT)),
            format!(r#"{{"Default":[{ACCEPT}]}}"#),
            format!(r#"{{"default":[{ACCEPT}],"default":[{ACCEPT}]}}"#),
            format!(r#"{{"default":[{ACCEPT}],"comment":""}}"#),
            format!(r#"{{"default":{ACCEPT}}}"#),
            r#"{"default":[]}"#.into(),
            r#"{"default":null}"#.into(),
            r#"{"transports":{}}"#.into(),
            scoped("null"),
            scoped("[]"),
            scoped(r#"{"docker":null}"#),
            scoped(r#"{"docker":{"":[]}}"#),
            scoped(r#"{"docker":{"a":null}}"#),
            scoped(&format!(
                r#"{{"docker":{{"a":[{ACCEPT}],"a":[{ACCEPT}]}}}}"#
            )),
            scoped(&format!(
                r#"{{"docker":{{"a":[{ACCEPT}],"\u0061":[{ACCEPT}]}}}}"#
            )),
            scoped(r#"{"docker":{},"docker":{}}"#),
            scoped(&format!(r#"{{"dir":{{"relative":[{ACCEPT}]}}}}"#)),
            scoped(&format!(r#"{{"docker-archive":{{"/a":[{ACCEPT}]}}}}"#)),
        ];
        for requirement in [
            "null",
            "[]",
            "{}",
            r#"{"type":null}"#,
            r#"{"type":"Reject"}"#,
            r#"{"Type":"reject"}"#,
            r#"{"type":"reject","type":"reject"}"#,
            r#"{"type":"reject","TYPE":"reject"}"#,
            r#"{"type":"reject","keyPath":"/k"}"#,
            r#"{"type":"insecureAcceptAnything","x":{}}"#,
            r#"{"type":"signedBy"}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys"}"#,
            r#"{"type":"signedBy","keyPath":"/k"}"#,
            r#"{"type":"signedBy","keyType":"gpgkeys","keyPath":"/k"}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":""}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":null}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":null,"keyData":"aGk="}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyPaths":["/k"]}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":[]}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k"],"keyData":"aGk="}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"%"}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"aGk"}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyDatas":["aGk="]}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keypath":"/k"}"#,
            r#"{"type":"signedBaseLayer"}"#,
            r#"{"type":"signedBaseLayer","baseLayerIdentity":null}"#,
            r#"{"type":"sigstoreSigned"}"#,
            r#"{"type":"sigstoreSigned","keyType":"GPGKeys","keyPath":"/k"}"#,
            r#"{"type":"sigstoreSigned","keyPath":"/k","keyData":"aGk="}"#,
            r#"{"type":"sigstoreSigned","keyDatas":[]}"#,
            r#"{"type":"sigstoreSigned","keyDatas":["aGk=","%"]}"#,
            r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r","rekorPublicKeyData":"aGk="}"#,
            r#"{"type":"sigstoreSigned","keyPath":"/k","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"},
                "rekorPublicKeyPath":"/r"}"#,
            r#"{"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"}}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyPath":"/r","fulcio":{}}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyPath":"/r",
                "fulcio":{"caPath":"/c","caData":"aGk=","oidcIssuer":"i","subjectEmail":"e"}}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyPath":"/r","fulcio":{"caPath":"/c","oidcIssuer":"i"}}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyPath":"/r","fulcio":{"caPath":"/c","subjectEmail":"e"}}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyPath":"/r",
                "fulcio":{"caPath":"/c","oidcIssuer":"","subjectEmail":"e"}}"#,
            r#"{"type":"sigstoreSigned","rekorPublicKeyPath":"/r",
                "fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e","x":1}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c"}}"#,
            r#"{"type":"sigstoreSigned","pki":{"subjectEmail":"e"}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","caRootsData":"aGk=","subjectEmail":"e"}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectEmail":"e",
                "caIntermediatesPath":"/i","caIntermediatesData":"aGk="}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectEmail":"e"},"rekorPublicKeyPath":"/r"}"#,
            r#"{"type":"sigstoreSigned","pki":null,"keyPath":"/k"}"#,
        ] {
            bad.push(one(requirement));
        }
        for text in bad {
            let error = parse_text(&text).expect_err(&text);
            assert_eq!(error.kind(), gantry_oci::Kind::InvalidInput);
        }
    }

    #[test]
    fn not_utf8_is_no_policy() {
        let text = Bytes::from_static(
            b"{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"\xff\":{}}}",
        );
        assert!(Policy::parse(text, &Limits::DEFAULT).is_err());
    }

    #[test]
    fn errors_say_where() {
        let error = parse_text(
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"h.io":[{"type":"reject"},{"type":"x"}]}}}"#,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "transports, docker, scope \"h.io\", requirement 2: type \"x\" is not known"
        );
    }

    #[test]
    fn a_policy_past_the_caps_is_refused() {
        let limits = Limits {
            policy_bytes: 60,
            ..Limits::DEFAULT
        };
        let text = format!(r#"{{"default":[{ACCEPT}]}}"#);
        let padded = |size: usize| Bytes::from(format!("{text:size$}"));
        assert!(Policy::parse(padded(60), &limits).is_ok());
        assert!(matches!(
            Policy::parse(padded(61), &limits),
            Err(ParsePolicyError::TooLarge { size_bytes: 61, .. })
        ));
        let deep = format!(
            r#"{{"default":[{{"type":"reject","x":{}{}}}]}}"#,
            "[".repeat(70),
            "]".repeat(70)
        );
        assert!(matches!(parse_text(&deep), Err(ParsePolicyError::Json(_))));
    }
}
