// SPDX-License-Identifier: Apache-2.0
//! Requirements as they stand in a file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Policy, Requirement, SigstoreSigners, Source};
use crate::identity::SignedIdentity;

/// The members that a source may have: one file, several, one content, several.
struct Names {
    path: &'static str,
    paths: &'static str,
    data: &'static str,
    datas: &'static str,
}

const KEYS: Names = Names {
    path: "keyPath",
    paths: "keyPaths",
    data: "keyData",
    datas: "keyDatas",
};
const REKOR: Names = Names {
    path: "rekorPublicKeyPath",
    paths: "rekorPublicKeyPaths",
    data: "rekorPublicKeyData",
    datas: "rekorPublicKeyDatas",
};
/// Certificates come as one file or one content; the parser lets nothing else through.
const CA: Names = certificates("caPath", "caData");
const ROOTS: Names = certificates("caRootsPath", "caRootsData");
const INTERMEDIATES: Names = certificates("caIntermediatesPath", "caIntermediatesData");

const fn certificates(path: &'static str, data: &'static str) -> Names {
    Names {
        path,
        paths: path,
        data,
        datas: data,
    }
}

fn write_source<M: SerializeMap>(
    map: &mut M,
    names: &Names,
    source: &Source,
) -> Result<(), M::Error> {
    let encode = |data: &bytes::Bytes| STANDARD.encode(data);
    match source {
        Source::Files(paths) => match paths.as_slice() {
            [path] => map.serialize_entry(names.path, path),
            paths => map.serialize_entry(names.paths, paths),
        },
        Source::Inline(datas) => match datas.as_slice() {
            [data] => map.serialize_entry(names.data, &encode(data)),
            datas => {
                let datas: Vec<String> = datas.iter().map(encode).collect();
                map.serialize_entry(names.datas, &datas)
            }
        },
    }
}

/// A rule that stands in the file only if it is not what absence means.
fn write_identity<M: SerializeMap>(map: &mut M, identity: &SignedIdentity) -> Result<(), M::Error> {
    if *identity == SignedIdentity::default() {
        return Ok(());
    }
    map.serialize_entry("signedIdentity", identity)
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("type", self.type_name())?;
        match self {
            Self::InsecureAcceptAnything | Self::Reject => {}
            Self::SignedBaseLayer(identity) => {
                map.serialize_entry("baseLayerIdentity", identity)?;
            }
            Self::SignedBy(signed_by) => {
                map.serialize_entry("keyType", signed_by.key_type.as_str())?;
                write_source(&mut map, &KEYS, &signed_by.keys)?;
                write_identity(&mut map, &signed_by.identity)?;
            }
            Self::SigstoreSigned(sigstore) => {
                match &sigstore.signers {
                    SigstoreSigners::Keys(source) => write_source(&mut map, &KEYS, source)?,
                    SigstoreSigners::Fulcio { .. } => {
                        map.serialize_entry("fulcio", &Certified(&sigstore.signers))?;
                    }
                    SigstoreSigners::Pki { .. } => {
                        map.serialize_entry("pki", &Certified(&sigstore.signers))?;
                    }
                }
                if let Some(rekor) = &sigstore.rekor {
                    write_source(&mut map, &REKOR, rekor)?;
                }
                write_identity(&mut map, &sigstore.identity)?;
            }
        }
        map.end()
    }
}

/// The nested object of who may hold a certificate.
struct Certified<'a>(&'a SigstoreSigners);

impl Serialize for Certified<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match self.0 {
            SigstoreSigners::Keys(_) => {}
            SigstoreSigners::Fulcio {
                ca,
                oidc_issuer,
                subject_email,
            } => {
                write_source(&mut map, &CA, ca)?;
                map.serialize_entry("oidcIssuer", oidc_issuer)?;
                map.serialize_entry("subjectEmail", subject_email)?;
            }
            SigstoreSigners::Pki {
                roots,
                intermediates,
                subject_hostname,
                subject_email,
            } => {
                write_source(&mut map, &ROOTS, roots)?;
                if let Some(intermediates) = intermediates {
                    write_source(&mut map, &INTERMEDIATES, intermediates)?;
                }
                if let Some(hostname) = subject_hostname {
                    map.serialize_entry("subjectHostname", hostname)?;
                }
                if let Some(email) = subject_email {
                    map.serialize_entry("subjectEmail", email)?;
                }
            }
        }
        map.end()
    }
}

impl Serialize for SignedIdentity {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("type", self.type_name())?;
        match self {
            Self::MatchRepoDigestOrExact | Self::MatchExact | Self::MatchRepository => {}
            Self::ExactReference(reference) => {
                map.serialize_entry("dockerReference", &reference.to_string())?;
            }
            Self::ExactRepository(reference) => {
                map.serialize_entry("dockerRepository", &reference.to_string())?;
            }
            Self::Remap {
                prefix,
                signed_prefix,
            } => {
                map.serialize_entry("prefix", &prefix.to_string())?;
                map.serialize_entry("signedPrefix", &signed_prefix.to_string())?;
            }
        }
        map.end()
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("default", &self.default)?;
        map.serialize_entry("transports", &self.transports)?;
        map.end()
    }
}
