// SPDX-License-Identifier: Apache-2.0
//! From directories of files to [`Extra`], keys read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_oci::{Algorithm, Digester, Kind, Limits};

use super::file::{AttestationRule, RuleFile, RuleText, SignersRule};
use super::{Attestations, Extra, Rule, Signers};
use crate::mechanism::Mechanism;
use crate::policy::{self, Policy};
use crate::prepared::{Mechanisms, PreparedPolicy, SigstoreMaterial, absorb};
use crate::refusal::{Reason, Refusal};

/// Why rules could not be loaded; nothing may be admitted then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadExtraError {
    /// A directory or a file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file may be changed by anybody, is too large, or is no file of rules.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl LoadExtraError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => Kind::of_io(source),
            Self::File { .. } => Kind::InvalidInput,
        }
    }
}

/// Loads all `*.toml` of these directories, each directory by name. One that
/// is not there has no rules.
///
/// # Errors
/// [`LoadExtraError`] for the first file that cannot be used.
pub fn load_dirs(
    dirs: &[PathBuf],
    mechanisms: &dyn Mechanisms,
    limits: &Limits,
) -> Result<Extra, LoadExtraError> {
    let mut loading = Loading {
        extra: Extra::default(),
        digester: Digester::new(Algorithm::Sha256),
        mechanisms,
        limits,
    };
    for dir in dirs {
        for path in rule_files(dir)? {
            loading.file(&path)?;
        }
    }
    let Loading {
        mut extra,
        digester,
        ..
    } = loading;
    extra.digest = digester.finish();
    Ok(extra)
}

fn rule_files(dir: &Path) -> Result<Vec<PathBuf>, LoadExtraError> {
    let unread = |source| LoadExtraError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unread)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

struct Loading<'a> {
    extra: Extra,
    digester: Digester,
    mechanisms: &'a dyn Mechanisms,
    limits: &'a Limits,
}

impl Loading<'_> {
    fn file(&mut self, path: &Path) -> Result<(), LoadExtraError> {
        let refused = |problem: String| LoadExtraError::File {
            path: path.to_owned(),
            problem,
        };
        let text = policy::read_guarded(path, self.limits).map_err(|error| match error {
            policy::ReadError::Io(source) => LoadExtraError::Read {
                path: path.to_owned(),
                source,
            },
            policy::ReadError::Refused(problem) => refused(problem),
        })?;
        absorb(&mut self.digester, &text);
        let text = std::str::from_utf8(&text).map_err(|error| refused(error.to_string()))?;
        let file = RuleFile::parse(text).map_err(refused)?;
        for rule in file.rule {
            let rule = self.rule(path, rule).map_err(refused)?;
            self.extra.rules.push(rule);
        }
        let keys = file.revoked.keys.into_iter().map(|id| id.0);
        self.extra.revoked_keys.extend(keys);
        self.extra.revoked_digests.extend(file.revoked.digests);
        for (name, namespace) in file.namespace {
            let beside = path.parent().unwrap_or(Path::new("/"));
            let policy = self.namespace(&beside.join(namespace.policy));
            if self.extra.namespaces.insert(name.clone(), policy).is_some() {
                return Err(refused(format!("namespace {name:?} has a policy already")));
            }
        }
        Ok(())
    }

    /// A namespace without a usable policy admits nothing; others are not its fault.
    fn namespace(&mut self, path: &Path) -> Result<PreparedPolicy, Refusal> {
        let policy = Policy::load(path, self.limits)
            .map(|policy| PreparedPolicy::new(policy, self.mechanisms))
            .map_err(|error| {
                let mut message = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    message = format!("{message}: {cause}");
                    source = cause.source();
                }
                Refusal::new(Reason::Rejected, message)
            });
        match &policy {
            Ok(policy) => absorb(&mut self.digester, policy.digest().as_bytes()),
            Err(_) => absorb(&mut self.digester, b"-"),
        }
        policy
    }

    fn rule(&mut self, path: &Path, text: RuleText) -> Result<Rule, String> {
        let signers = text.signers.map(|rule| self.signers(rule)).transpose()?;
        let attestations = text.attestation.into_iter();
        let attestations = attestations.map(|rule| self.attestation(rule)).collect();
        Ok(Rule {
            file: path.to_owned(),
            transport: text.transport,
            scope: text.scope,
            signers,
            not_before: text.not_before,
            max_age: text.max_age,
            monotonic: text.monotonic,
            attestations,
            max_severity: text.max_severity,
        })
    }

    fn signers(&mut self, rule: SignersRule) -> Result<Signers, String> {
        let identity = rule.identity()?;
        let openpgp = self.read(&rule.keys);
        let sigstore = self.read(&rule.sigstore_keys);
        let one_key_each = match &openpgp {
            Ok(files) => files
                .iter()
                .all(|file| self.mechanisms.count_openpgp(file) == 1),
            Err(_) => false,
        };
        let prepare = || {
            let mut mechanisms = Vec::new();
            let (openpgp, sigstore) = (openpgp?, sigstore?);
            if !openpgp.is_empty() {
                mechanisms.push(self.mechanisms.openpgp(&openpgp)?);
            }
            if !sigstore.is_empty() {
                mechanisms.push(self.sigstore(sigstore)?);
            }
            Ok(mechanisms)
        };
        Ok(Signers {
            mechanisms: prepare(),
            rule,
            identity,
            one_key_each,
        })
    }

    fn attestation(&mut self, rule: AttestationRule) -> Attestations {
        let keys = self.read(&rule.keys);
        Attestations {
            mechanism: keys.and_then(|keys| self.sigstore(keys)),
            rule,
        }
    }

    fn sigstore(&self, keys: Vec<bytes::Bytes>) -> Result<Arc<dyn Mechanism>, Refusal> {
        self.mechanisms.sigstore(SigstoreMaterial::Keys(keys), None)
    }

    fn read(&mut self, paths: &[PathBuf]) -> Result<Vec<bytes::Bytes>, Refusal> {
        let material = paths
            .iter()
            .map(|path| self.mechanisms.read(path))
            .collect();
        crate::prepared::absorb_material(&mut self.digester, &material);
        material
    }
}
