// SPDX-License-Identifier: Apache-2.0
//! Where things lie for this call: the places from options, configuration
//! and environment, decided once.

use std::path::PathBuf;

use gantry_oci::Kind;
use gantry_trust::policy::PolicyPlaces;

use crate::args::{Global, ProgressMode};
use crate::config::Config;
use crate::exit::Failure;
use crate::trust::PolicyChoice;

/// The places and choices that verbs share.
#[derive(Debug, Clone)]
pub struct Context {
    /// The store.
    pub root: PathBuf,
    /// The state of running containers.
    pub runroot: PathBuf,
    /// Where it says where signatures are kept, instead of the usual places.
    pub registries_d: Option<PathBuf>,
    /// How to show progress.
    pub progress: ProgressMode,
    /// Where the policy is.
    pub policy: PolicyChoice,
    /// Where rules that are stricter than the policy are.
    pub rule_dirs: Vec<PathBuf>,
    /// The configuration file's contents.
    pub config: Config,
}

impl Context {
    /// Decides the places.
    ///
    /// # Errors
    /// The configuration file cannot be read, or a user has no home.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let user = User::current();
        let config = match &global.config {
            Some(path) => Config::load(path, true)?,
            None => Config::load(&user.config_file()?, false)?,
        };
        let root = match global.root.as_ref().or(config.root.as_ref()) {
            Some(root) => root.clone(),
            None => user.root()?,
        };
        let runroot = match global.runroot.as_ref().or(config.runroot.as_ref()) {
            Some(runroot) => runroot.clone(),
            None => user.runroot()?,
        };
        let absolute = |path: PathBuf| std::path::absolute(&path).map_err(Failure::from);
        Ok(Self {
            root: absolute(root)?,
            runroot: absolute(runroot)?,
            registries_d: global.registries_d.clone(),
            progress: global.progress,
            policy: User::policy(global),
            rule_dirs: User::rule_dirs(&config),
            config,
        })
    }
}

/// The default places of root and of everybody else.
enum User {
    Root,
    Other,
}

impl User {
    fn current() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Root
        } else {
            Self::Other
        }
    }

    fn xdg(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
        let of = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        of(variable)
            .or_else(|| of("HOME").map(|home| home.join(below_home)))
            .ok_or_else(|| {
                Failure::message(
                    Kind::InvalidInput,
                    format!("neither {variable} nor HOME is set to an absolute path"),
                )
            })
    }

    /// Where there is no home, nothing of the user's is to be found.
    fn config_home() -> Option<PathBuf> {
        Self::xdg("XDG_CONFIG_HOME", ".config").ok()
    }

    fn policy(global: &Global) -> PolicyChoice {
        if global.insecure_policy {
            return PolicyChoice::Insecure;
        }
        PolicyChoice::Search(PolicyPlaces {
            explicit: global.policy.clone(),
            environment: std::env::var_os("CONTAINERS_POLICY_JSON").map(PathBuf::from),
            config_home: Self::config_home(),
        })
    }

    fn rule_dirs(config: &Config) -> Vec<PathBuf> {
        let system = PathBuf::from("/etc/gantry/trust.d");
        let user = Self::config_home().map(|home| home.join("gantry/trust.d"));
        let more = config.trust.rules.iter().cloned();
        std::iter::once(system).chain(user).chain(more).collect()
    }

    fn config_file(&self) -> Result<PathBuf, Failure> {
        Ok(match self {
            Self::Root => PathBuf::from("/etc/gantry/gantry.toml"),
            Self::Other => Self::xdg("XDG_CONFIG_HOME", ".config")?.join("gantry/gantry.toml"),
        })
    }

    fn root(&self) -> Result<PathBuf, Failure> {
        Ok(match self {
            Self::Root => PathBuf::from("/var/lib/gantry"),
            Self::Other => Self::xdg("XDG_DATA_HOME", ".local/share")?.join("gantry"),
        })
    }

    fn runroot(&self) -> Result<PathBuf, Failure> {
        Ok(match self {
            Self::Root => PathBuf::from("/run/gantry"),
            Self::Other => Self::xdg("XDG_RUNTIME_DIR", ".local/state")?.join("gantry"),
        })
    }
}
