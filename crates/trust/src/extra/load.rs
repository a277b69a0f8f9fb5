// SPDX-License-Identifier: Apache-2.0
//! From directories of files to [`Extra`], and from its keys to what checks signatures.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gantry_oci::{Algorithm, Digester, Kind, Limits};

use super::file::{AttestationRule, RuleFile, RuleText, SignersRule};
use super::{Attestations, Extra, PreparedSigners, Rule, Signers};
use crate::keys::{Keys, absorb};
use crate::mechanism::Mechanism;
use crate::policy::{self, Policy, Source};
use crate::prepared::{Mechanisms, PreparedPolicy, SigstoreMaterial};
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
pub fn load_dirs<M: Mechanisms + Clone + 'static>(
    dirs: &[PathBuf],
    mechanisms: &M,
    limits: &Limits,
) -> Result<Extra, LoadExtraError> {
    let mut loading = Loading {
        extra: Extra::default(),
        digester: Digester::new(Algorithm::Sha256),
        mechanisms: Arc::new(mechanisms.clone()),
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
    mechanisms: Arc<dyn Mechanisms>,
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
        Policy::load(path, self.limits)
            .map(|policy| PreparedPolicy::with(policy, &self.mechanisms))
            .map_err(|error| {
                let mut message = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    message = format!("{message}: {cause}");
                    source = cause.source();
                }
                Refusal::new(Reason::Rejected, message)
            })
    }

    fn rule(&self, path: &Path, text: RuleText) -> Result<Rule, String> {
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

    fn signers(&self, rule: SignersRule) -> Result<Signers, String> {
        let files = [&rule.keys, &rule.sigstore_keys].map(|paths| Source::Files(paths.clone()));
        Ok(Signers {
            identity: rule.identity()?,
            keys: Arc::new(Keys::new(files.to_vec(), &self.mechanisms)),
            rule,
        })
    }

    fn attestation(&self, rule: AttestationRule) -> Attestations {
        let files = vec![Source::Files(rule.keys.clone())];
        Attestations {
            keys: Arc::new(Keys::new(files, &self.mechanisms)),
            rule,
        }
    }
}

impl Signers {
    /// The keys, read and prepared.
    pub(super) fn prepared(&self) -> &PreparedSigners {
        self.keys.prepared(|material, mechanisms| {
            // Two, in the order of the sources.
            let (mut material, none) = (material.iter(), Ok(Vec::new()));
            let mut next = || material.next().unwrap_or(&none);
            let (openpgp, sigstore) = (next(), next());
            let count = |file: &Bytes| mechanisms.count_openpgp(file);
            let one_key_each = match openpgp {
                Ok(files) => files.iter().all(|file| count(file) == 1),
                Err(_) => false,
            };
            let prepare = || {
                let mut prepared = Vec::new();
                let (openpgp, sigstore) = (openpgp.clone()?, sigstore.clone()?);
                if !openpgp.is_empty() {
                    prepared.push(mechanisms.openpgp(&openpgp)?);
                }
                if !sigstore.is_empty() {
                    prepared.push(by_keys(mechanisms, sigstore)?);
                }
                Ok(prepared)
            };
            PreparedSigners {
                mechanisms: prepare(),
                one_key_each,
            }
        })
    }
}

impl Attestations {
    /// What checks it, its keys read and prepared.
    pub(super) fn mechanism(&self) -> &Result<Arc<dyn Mechanism>, Refusal> {
        self.keys.prepared(|material, mechanisms| {
            let keys = material.iter().cloned().collect::<Result<Vec<_>, _>>()?;
            by_keys(mechanisms, keys.concat())
        })
    }
}

fn by_keys(mechanisms: &dyn Mechanisms, keys: Vec<Bytes>) -> Result<Arc<dyn Mechanism>, Refusal> {
    mechanisms.sigstore(SigstoreMaterial::Keys(keys), None)
}
