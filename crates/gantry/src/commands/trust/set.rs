// SPDX-License-Identifier: Apache-2.0
//! `gantry trust set`.

use std::path::PathBuf;

use gantry_oci::{Kind, Reference};
use gantry_trust::identity::{RemapPrefix, SignedIdentity};
use gantry_trust::policy::{
    Edit, KeyType, Requirement, SignedBy, SigstoreSigned, SigstoreSigners, Source,
};

use super::edit::EditArgs;
use crate::context::Context;
use crate::exit::{Failure, Outcome};

/// Say what images under a scope need.
///
/// A scope is a registry, a namespace, a repository or an image in it, or *.domain; "" stands for
/// the whole transport. What stood for the scope is replaced, and the rest of the file stays as it is.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// The scope, such as registry.example/team
    scope: String,
    /// What images need
    #[arg(long = "type", short = 't', value_enum, default_value_t = Type::SignedBy, ignore_case = false)]
    kind: Type,
    /// A file with keys that may sign; several times, any of them
    #[arg(
        long = "pubkeysfile",
        short = 'f',
        visible_alias = "key-file",
        value_name = "FILE"
    )]
    key_files: Vec<PathBuf>,
    /// Every key file must have signed, not any of them
    #[arg(long)]
    each: bool,
    /// Which name a signature must have: matchRepoDigestOrExact, matchExact, matchRepository,
    /// exactReference=REFERENCE, exactRepository=REPOSITORY or remapIdentity=PREFIX=SIGNED-PREFIX
    #[arg(long, value_name = "RULE")]
    identity: Option<String>,
    /// A file with the public key of a log in which a sigstore signature must be recorded
    #[arg(long, value_name = "FILE")]
    rekor_key: Vec<PathBuf>,
    /// The transport
    #[arg(long, value_name = "NAME", default_value = "docker")]
    transport: String,
    /// Whether it is done.
    #[command(flatten)]
    edit: EditArgs,
}

/// What images may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Type {
    /// Nothing
    #[value(name = "accept", alias = "insecureAcceptAnything")]
    Accept,
    /// None is admitted
    Reject,
    /// A simple signature
    #[value(name = "signedBy")]
    SignedBy,
    /// A sigstore signature
    #[value(name = "sigstoreSigned")]
    SigstoreSigned,
}

impl Set {
    /// Changes the policy.
    pub fn run(self, context: &Context) -> Outcome {
        let edit = Edit::Set {
            requirements: self.requirements()?,
            transport: self.transport,
            scope: self.scope,
        };
        self.edit.apply(context, &edit)
    }

    fn requirements(&self) -> Result<Vec<Requirement>, Failure> {
        let plain = match self.kind {
            Type::Accept => Some(Requirement::InsecureAcceptAnything),
            Type::Reject => Some(Requirement::Reject),
            Type::SignedBy | Type::SigstoreSigned => None,
        };
        if let Some(plain) = plain {
            if !self.key_files.is_empty() || self.identity.is_some() || !self.rekor_key.is_empty() {
                return Err(invalid("accept and reject go with no keys and no identity"));
            }
            return Ok(vec![plain]);
        }
        if self.key_files.is_empty() {
            return Err(invalid("which keys? name a file with --pubkeysfile"));
        }
        let keys = self
            .key_files
            .iter()
            .map(std::path::absolute)
            .collect::<Result<Vec<_>, _>>()?;
        let sources: Vec<Source> = if self.each {
            let each = keys.into_iter().map(|key| Source::Files(vec![key]));
            each.collect()
        } else {
            vec![Source::Files(keys)]
        };
        let requirements = sources.into_iter().map(|keys| self.signed(keys));
        requirements.collect()
    }

    fn signed(&self, keys: Source) -> Result<Requirement, Failure> {
        let identity = match &self.identity {
            Some(text) => parse_identity(text)?,
            None => SignedIdentity::default(),
        };
        if self.kind == Type::SigstoreSigned {
            let rekor = self.rekor_key.iter().map(std::path::absolute);
            let rekor = rekor.collect::<Result<Vec<_>, _>>()?;
            return Ok(Requirement::SigstoreSigned(Box::new(SigstoreSigned {
                signers: SigstoreSigners::Keys(keys),
                rekor: (!rekor.is_empty()).then_some(Source::Files(rekor)),
                identity,
            })));
        }
        if !self.rekor_key.is_empty() {
            return Err(invalid(
                "simple signatures are in no log: --rekor-key goes with sigstoreSigned",
            ));
        }
        Ok(Requirement::SignedBy(SignedBy {
            key_type: KeyType::GpgKeys,
            keys,
            identity,
        }))
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::message(Kind::InvalidInput, message)
}

fn parse_identity(text: &str) -> Result<SignedIdentity, Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let prefix = |text: &str| RemapPrefix::parse(text).map_err(invalid);
    Ok(match (name, value) {
        ("matchRepoDigestOrExact", None) => SignedIdentity::MatchRepoDigestOrExact,
        ("matchExact", None) => SignedIdentity::MatchExact,
        ("matchRepository", None) => SignedIdentity::MatchRepository,
        ("exactReference", Some(value)) => {
            SignedIdentity::ExactReference(Reference::parse_normalized(value)?)
        }
        ("exactRepository", Some(value)) => {
            SignedIdentity::ExactRepository(Reference::parse_normalized(value)?)
        }
        ("remapIdentity", Some(value)) => {
            let (from, to) = value
                .split_once('=')
                .ok_or_else(|| invalid("remapIdentity wants PREFIX=SIGNED-PREFIX"))?;
            SignedIdentity::Remap {
                prefix: prefix(from)?,
                signed_prefix: prefix(to)?,
            }
        }
        _ => return Err(invalid(format!("identity rule {text:?} is not known"))),
    })
}
