// SPDX-License-Identifier: Apache-2.0
//! Where the policy is: the first of these that is there.
//!
//! 1. the file that an option names;
//! 2. `CONTAINERS_POLICY_JSON`;
//! 3. `containers/policy.json` below `XDG_CONFIG_HOME` or `~/.config`;
//! 4. `/etc/containers/policy.json`;
//! 5. `/usr/share/containers/policy.json`.
//!
//! One that is named (1, 2) must be there. A file that everybody may write to
//! is nobody's policy, and is refused. With no file anywhere nothing is admitted.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gantry_oci::{Kind, Limits};

use super::{ParsePolicyError, Policy};
use crate::file::read_regular;

/// Where a policy may be.
#[derive(Debug, Clone, Default)]
pub struct PolicyPlaces {
    /// The file that an option names.
    pub explicit: Option<PathBuf>,
    /// The value of `CONTAINERS_POLICY_JSON`.
    pub environment: Option<PathBuf>,
    /// The user's directory of configuration: `~/.config`.
    pub config_home: Option<PathBuf>,
}

/// Why there is no policy; nothing may be admitted then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadPolicyError {
    /// No file is there.
    #[error("find a policy: none of {} exists", list(looked_for))]
    NotFound {
        /// All the places.
        looked_for: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error("read policy {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be relied on.
    #[error("read policy {}: {problem}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file is no policy.
    #[error("parse policy {}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ParsePolicyError,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

impl LoadPolicyError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::Refused { .. } => Kind::Denied,
            Self::Read { source, .. } => Kind::of_io(source),
            Self::Parse { source, .. } => source.kind(),
        }
    }
}

impl PolicyPlaces {
    /// The files to look for, the first that is there wins.
    #[must_use]
    pub fn candidates(&self) -> Vec<PathBuf> {
        if let Some(path) = self.explicit.as_ref().or(self.environment.as_ref()) {
            return vec![path.clone()];
        }
        let user = self.config_home.as_ref();
        let user = user.map(|home| home.join("containers/policy.json"));
        let system = [
            "/etc/containers/policy.json",
            "/usr/share/containers/policy.json",
        ];
        user.into_iter().chain(system.map(PathBuf::from)).collect()
    }

    /// The file that holds; none if there is none.
    ///
    /// # Errors
    /// [`LoadPolicyError::Read`] where it cannot be told whether a file is there.
    pub fn find(&self) -> Result<Option<PathBuf>, LoadPolicyError> {
        for path in self.candidates() {
            match std::fs::metadata(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(LoadPolicyError::Read { path, source }),
            }
        }
        Ok(None)
    }

    /// Loads the policy that holds.
    ///
    /// # Errors
    /// [`LoadPolicyError`]; there is no policy then.
    pub fn load(&self, limits: &Limits) -> Result<(PathBuf, Policy), LoadPolicyError> {
        let path = self.find()?.ok_or_else(|| LoadPolicyError::NotFound {
            looked_for: self.candidates(),
        })?;
        let policy = Policy::load(&path, limits)?;
        Ok((path, policy))
    }
}

impl Policy {
    /// Reads and parses one file.
    ///
    /// # Errors
    /// [`LoadPolicyError`].
    pub fn load(path: &Path, limits: &Limits) -> Result<Self, LoadPolicyError> {
        let path = path.to_owned();
        let text = match read_guarded(&path, limits) {
            Ok(text) => text,
            Err(ReadError::Io(source)) => return Err(LoadPolicyError::Read { path, source }),
            Err(ReadError::Refused(problem)) => {
                return Err(LoadPolicyError::Refused { path, problem });
            }
        };
        Self::parse(text, limits).map_err(|source| LoadPolicyError::Parse { path, source })
    }
}

/// Why a file that decides on trust was not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The system says so.
    Io(std::io::Error),
    /// It cannot be relied on.
    Refused(String),
}

/// Reads a file that decides on trust: a regular one, not one that everybody may write to, and no more than the cap.
pub(crate) fn read_guarded(path: &Path, limits: &Limits) -> Result<Bytes, ReadError> {
    let (bytes, metadata) = read_regular(path, limits.policy_bytes).map_err(ReadError::Io)?;
    if metadata.mode() & 0o002 != 0 {
        let problem = "everybody may write to it, so that it is nobody's word";
        return Err(ReadError::Refused(problem.into()));
    }
    if bytes.len() > limits.policy_bytes {
        let problem = format!("it has more than {} bytes", limits.policy_bytes);
        return Err(ReadError::Refused(problem));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_named_wins_and_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let users = at("config/containers/policy.json");
        let mut places = PolicyPlaces {
            explicit: Some(at("explicit")),
            environment: Some(at("environment")),
            config_home: Some(at("config")),
        };
        write(&users, REJECT);
        write(&at("environment"), REJECT);
        assert_eq!(places.candidates(), [at("explicit")]);
        let error = places.load(&Limits::DEFAULT).unwrap_err();
        assert!(error.to_string().ends_with("explicit exists"), "{error}");
        assert_eq!(error.kind(), Kind::Denied);
        places.explicit = None;
        assert_eq!(places.find().unwrap(), Some(at("environment")));
        places.environment = None;
        assert_eq!(places.load(&Limits::DEFAULT).unwrap().0, users);
        assert_eq!(places.candidates().len(), 3);
    }

    #[test]
    fn a_pipe_is_no_policy_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.json");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let error = Policy::load(&path, &Limits::DEFAULT).unwrap_err();
        assert!(matches!(error, LoadPolicyError::Read { .. }), "{error}");
        assert_eq!(error.kind(), Kind::InvalidInput);
    }

    #[test]
    fn files_that_are_no_policy_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.json");
        let load = || Policy::load(&path, &Limits::DEFAULT);
        assert!(matches!(load(), Err(LoadPolicyError::Read { .. })));
        write(&path, "");
        let error = load().unwrap_err();
        assert!(matches!(error, LoadPolicyError::Parse { .. }));
        assert_eq!(error.kind(), Kind::InvalidInput);
        write(&path, REJECT);
        assert!(load().is_ok());
        let chmod = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).unwrap();
        };
        chmod(0o666);
        assert!(matches!(load(), Err(LoadPolicyError::Refused { .. })));
        chmod(0o660);
        assert!(load().is_ok());
        let limits = Limits {
            policy_bytes: REJECT.len() - 1,
            ..Limits::DEFAULT
        };
        let error = Policy::load(&path, &limits).unwrap_err();
        assert!(matches!(error, LoadPolicyError::Refused { .. }));
        assert!(Policy::load(dir.path(), &Limits::DEFAULT).is_err());
    }
}
