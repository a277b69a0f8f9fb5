// SPDX-License-Identifier: Apache-2.0
//! The gate: which of the manifests that are pushed are published.
//!
//! ```text
//!  PUT ──▶ judge     the policy of this host, asked about the name that clients pull by        (nothing written)
//!            └▶ decide    publish · wait · refuse                                              (pure)
//!                 ├▶ Permit ──▶ pipeline ──▶ every host
//!                 └▶ waiting ◀── review: a signature arrived, or it is time to look again
//! ```
//!
//! A signature may be here before its image: uploaded by the extension, attached under `sha256-….sig` or as a
//! referrer, or in a lookaside. All of them are looked at, wherever the image's clients would look.
//!
//! What cannot be judged is not admitted: a policy that cannot be read, a lookaside that does not answer, an error of
//! the disk refuse or let wait.

mod decide;
mod evidence;
mod judge;
mod review;
mod turns;
mod waiting;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_oci::{Host, ManifestDigest, Reference, Repository};
use gantry_trust::lookaside::Base;
use gantry_trust::{Authority, Memory};
use tokio::sync::Semaphore;

use crate::pipeline::longest_match;

pub use decide::{Naming, Permit};
pub use review::{Pushed, look_again, push, review_about, withdraw};
pub use waiting::{WaitingImage, WaitingLimits, WaitingManifest};

pub(crate) use decide::evidence_about;

/// Manifests that are judged at once, each with its signatures in memory.
const JUDGED_AT_ONCE: usize = 16;

/// What a repository asks of a manifest before it is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PushPolicy {
    /// Nothing.
    #[default]
    Off,
    /// The policy admits it, or the push fails.
    Enforce,
    /// The policy admits it, now or once more signatures are here; until then nobody sees it.
    Staged,
}

/// Which repositories ask the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRules {
    /// Where nothing else is said.
    pub default: PushPolicy,
    /// By repository, or by a prefix that ends in `/*`; the longest match counts.
    pub repositories: BTreeMap<String, PushPolicy>,
}

impl PolicyRules {
    /// What a repository asks.
    #[must_use]
    pub fn of(&self, repository: &Repository) -> PushPolicy {
        longest_match(&self.repositories, repository).map_or(self.default, |own| *own)
    }

    /// Whether any repository asks the policy.
    #[must_use]
    pub fn any(&self) -> bool {
        let mut all = self.repositories.values().chain([&self.default]);
        all.any(|policy| *policy != PushPolicy::Off)
    }
}

/// How the gate judges.
#[derive(Debug, Clone)]
pub struct GateOptions {
    /// What clients call this registry, and policies.
    pub name: Host,
    /// Which repositories ask the policy.
    pub rules: PolicyRules,
    /// How much may wait.
    pub waiting: WaitingLimits,
    /// How often what waits is judged again without a reason; lookasides say nothing when they change.
    pub look_every: Duration,
}

/// Where the policy comes from.
pub trait Authorities: Send + Sync + fmt::Debug {
    /// Reads what holds now.
    ///
    /// # Errors
    /// A sentence for the log; nothing is admitted then.
    fn load(&self) -> Result<Authority, String>;
}

/// Where signatures are that are not kept here.
#[async_trait]
pub trait Lookasides: Send + Sync + fmt::Debug {
    /// Where `registries.d` says that those of a reference are; it is read now.
    ///
    /// # Errors
    /// A sentence for the log.
    fn place_of(&self, reference: &Reference) -> Result<Option<Base>, String>;

    /// Reads those of a manifest.
    ///
    /// # Errors
    /// A sentence for the log. That there are none is not an error.
    async fn read(
        &self,
        base: &Base,
        repository: &Repository,
        digest: &ManifestDigest,
    ) -> Result<Vec<Bytes>, String>;
}

/// For programs that know of none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLookasides;

#[async_trait]
impl Lookasides for NoLookasides {
    fn place_of(&self, _reference: &Reference) -> Result<Option<Base>, String> {
        Ok(None)
    }

    async fn read(
        &self,
        base: &Base,
        _repository: &Repository,
        _digest: &ManifestDigest,
    ) -> Result<Vec<Bytes>, String> {
        Err(format!("this program cannot read the lookaside {base:?}"))
    }
}

/// The gate of one registry.
#[derive(Debug)]
pub struct Gate {
    options: GateOptions,
    authorities: Arc<dyn Authorities>,
    memory: Arc<dyn Memory + Send + Sync>,
    waiting: waiting::Waiting,
    /// Of each tag, and each digest that was pushed without one.
    turns: turns::Turns<waiting::Slot>,
    /// Grows whenever a signature arrives.
    arrivals: AtomicU64,
    judging: Arc<Semaphore>,
}

impl Gate {
    /// The gate of the store at `root`.
    pub fn new(
        root: &Path,
        options: GateOptions,
        authorities: Arc<dyn Authorities>,
        memory: Arc<dyn Memory + Send + Sync>,
    ) -> Self {
        Self {
            waiting: waiting::Waiting::new(root, options.waiting),
            options,
            authorities,
            memory,
            turns: turns::Turns::default(),
            arrivals: AtomicU64::new(0),
            judging: Arc::new(Semaphore::new(JUDGED_AT_ONCE)),
        }
    }

    /// What a repository asks.
    pub fn policy(&self, repository: &Repository) -> PushPolicy {
        self.options.rules.of(repository)
    }

    /// How often to look at what waits.
    pub fn look_every(&self) -> Duration {
        self.options.look_every
    }

    /// Who judges takes one of these.
    pub fn judging(&self) -> Arc<Semaphore> {
        Arc::clone(&self.judging)
    }

    /// Whether a repository may keep signatures of one more manifest that it has not.
    ///
    /// # Errors
    /// They cannot be counted.
    pub fn has_room_for_pending(
        &self,
        registry: &crate::serve::Registry,
        repository: &Repository,
        digest: &ManifestDigest,
    ) -> io::Result<bool> {
        let pending = review::pending(registry, self, repository)?;
        let others = pending.iter().filter(|(other, _)| other != digest);
        Ok(others.count() < self.options.waiting.per_repository)
    }

    /// A manifest that waits in a repository, for the index that names it.
    pub fn waiting_manifest(
        &self,
        repository: &Repository,
        digest: &ManifestDigest,
        limits: &gantry_oci::Limits,
    ) -> io::Result<Option<WaitingManifest>> {
        self.waiting.manifest(repository, digest, limits)
    }
}

/// All that waits in the registry of the store at `root`, whether or not it is being served.
///
/// # Errors
/// The list cannot be read.
pub fn list_waiting(root: &Path) -> io::Result<Vec<WaitingImage>> {
    waiting::Waiting::new(root, WaitingLimits::default()).all()
}
