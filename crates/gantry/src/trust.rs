// SPDX-License-Identifier: Apache-2.0
//! The policy and the rules that hold for this call, with their keys.

use std::path::{Path, PathBuf};

use gantry_oci::Limits;
use gantry_trust::policy::{LoadPolicyError, PolicyPlaces};
use gantry_trust::prepared::Real;
use gantry_trust::{Authority, Extra, Policy, PreparedPolicy, extra};

use crate::context::Context;
use crate::exit::Failure;

/// Where the policy is, as options and environment say.
#[derive(Debug, Clone)]
pub enum PolicyChoice {
    /// Nowhere: this user admits anything, for this call.
    Insecure,
    /// In the first of these places that is there.
    Search(PolicyPlaces),
}

/// What decides whether an image is admitted.
#[derive(Debug)]
pub struct Trust {
    /// The policy with its keys.
    pub policy: PreparedPolicy,
    /// Where it was found.
    pub path: Option<PathBuf>,
    /// The rules of `trust.d`.
    pub extra: Extra,
}

impl Trust {
    /// Loads policy, rules and keys.
    ///
    /// # Errors
    /// There is no policy, or a file is none: nothing is admitted then.
    pub fn load(context: &Context) -> Result<Self, Failure> {
        let limits = Limits::DEFAULT;
        let places = match &context.policy {
            PolicyChoice::Insecure => {
                return Ok(Self {
                    policy: Policy::insecure().load_keys(&limits),
                    path: None,
                    extra: Extra::default(),
                });
            }
            PolicyChoice::Search(places) => places,
        };
        let (path, policy) = places.load(&limits).map_err(no_policy)?;
        let unnamed = context.config.trust.unnamed_bundles.clone();
        Ok(Self {
            policy: policy.load_keys(&limits).with_unnamed_bundles(unnamed),
            path: Some(path),
            extra: extra::load_dirs(&context.rule_dirs, &Real { limits }, &limits)?,
        })
    }
}

impl Trust {
    /// Who decides.
    pub fn authority(self) -> Authority {
        Authority::new(self.policy, self.extra)
    }
}

/// Says how to get a policy where there is none.
pub fn no_policy(error: LoadPolicyError) -> Failure {
    let missing = matches!(error, LoadPolicyError::NotFound { .. });
    let failure = Failure::from(error);
    if missing {
        return failure.hint("write one with: gantry trust default reject (or accept)");
    }
    failure
}

/// The absolute path without symbolic links, as scopes have it.
///
/// # Errors
/// The path cannot be resolved.
#[expect(
    clippy::disallowed_methods,
    reason = "a path of the user's own on this machine, to be compared and not to be opened"
)]
pub fn resolve(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path)
        .map_err(|error| Failure::from(error).context(format!("resolve {}", path.display())))
}
