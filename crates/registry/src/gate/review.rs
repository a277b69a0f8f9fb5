// SPDX-License-Identifier: Apache-2.0
//! What follows from a decision, and deciding again.
//!
//! Publishing comes before the entry in the list goes: whoever is killed between the two finds both at the next
//! start, publishes again, which changes nothing, and removes the entry. A tag has one holder at a time, so that what
//! waited for it cannot replace what was pushed later.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use gantry_image::ManifestBytes;
use gantry_oci::{Document, ManifestDigest, Repository};
use gantry_trust::Authority;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::decide::{Decision, Naming, Opinion, Permit, decide};
use super::judge::{authority, judge};
use super::waiting::{AddError, Slot, WaitingImage, WaitingManifest};
use super::{Gate, PushPolicy};
use crate::errors::{ApiError, Code};
use crate::manifests;
use crate::routes::ManifestName;
use crate::serve::Registry;
use crate::state::Member;

/// What became of a push that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Every host has it.
    Published,
    /// Nobody has it until a signature arrives; why.
    Waits(String),
}

fn listing(error: io::Error) -> ApiError {
    ApiError::io("keep the list of what waits", &error)
}

/// Judges a manifest whose members are here, and does what follows. Blocks, and must run beside the runtime's threads.
///
/// # Errors
/// Refused, or what failed; nothing of it is left then.
pub fn push(
    registry: &Registry,
    gate: &Gate,
    naming: Naming,
    document: WaitingManifest,
) -> Result<Pushed, ApiError> {
    let manifest = &document.manifest;
    if let Some(permit) = Permit::for_evidence(naming.clone(), manifest) {
        publish(registry, gate, &permit, manifest)?;
        return Ok(Pushed::Published);
    }
    let arrived_before = gate.arrivals.load(Ordering::SeqCst);
    let opinion = match authority(gate) {
        Ok(authority) => judge(registry, gate, &authority, &naming, manifest),
        Err(trouble) => Opinion::Unknown(trouble),
    };
    log_trouble(&naming, &opinion);
    let reason = match decide(gate.policy(&naming.repository), &naming, opinion) {
        Decision::Refuse(reason) => return Err(ApiError::new(Code::Denied, reason)),
        Decision::Wait(reason) => reason,
        Decision::Publish(permits) => {
            let (last, members) = permits.split_last().ok_or_else(nothing_to_publish)?;
            publish_members(registry, gate, members)?;
            publish(registry, gate, last, manifest)?;
            return Ok(Pushed::Published);
        }
    };
    {
        let _turn = gate.turns.take(Slot::of(&naming));
        let added = gate.waiting.add(
            &registry.state,
            &naming,
            &document,
            &reason,
            SystemTime::now(),
        );
        added.map_err(|error| match error {
            AddError::Io(error) => listing(error),
            AddError::Full => {
                let message = format!("as much waits for signatures as may; {reason}");
                ApiError::new(Code::TooManyRequests, message)
            }
        })?;
    }
    tracing::info!(repository = %naming.repository, digest = %naming.digest, "waits: {reason}");
    // A signature that came while this was judged found nothing that waited for it.
    if gate.arrivals.load(Ordering::SeqCst) != arrived_before {
        let waiting = gate.waiting.find(&Slot::of(&naming)).map_err(listing)?;
        if let Some(waiting) = waiting.filter(|waiting| waiting.digest == naming.digest) {
            if let Ok(authority) = authority(gate) {
                if review(registry, gate, &authority, &waiting)? {
                    return Ok(Pushed::Published);
                }
            }
        }
    }
    Ok(Pushed::Waits(reason))
}

fn nothing_to_publish() -> ApiError {
    ApiError::new(Code::Unknown, "the registry lost what it was to publish")
}

fn log_trouble(naming: &Naming, opinion: &Opinion) {
    if let Opinion::Unknown(trouble) = opinion {
        let Naming {
            repository, digest, ..
        } = naming;
        tracing::warn!(%repository, %digest, "{}: {}", trouble.outward, trouble.internal);
    }
}

/// Publishes, and takes what waited for the same name from the list.
fn publish(
    registry: &Registry,
    gate: &Gate,
    permit: &Permit,
    manifest: &ManifestBytes,
) -> Result<(), ApiError> {
    let _turn = gate.turns.take(Slot::of(permit.naming()));
    publish_in_turn(registry, gate, permit, manifest)
}

fn publish_in_turn(
    registry: &Registry,
    gate: &Gate,
    permit: &Permit,
    manifest: &ManifestBytes,
) -> Result<(), ApiError> {
    let explosions = Arc::clone(&registry.explosions).acquire_owned();
    let _exploding = Handle::current().block_on(explosions);
    manifests::publish(registry, permit, manifest)?;
    gate.waiting.remove(permit.naming()).map_err(listing)?;
    Ok(())
}

/// Publishes the members of an index that waited for it.
fn publish_members(registry: &Registry, gate: &Gate, permits: &[Permit]) -> Result<(), ApiError> {
    for permit in permits {
        let Naming {
            repository, digest, ..
        } = permit.naming();
        let document = gate.waiting.manifest(repository, digest, &registry.limits);
        match document.map_err(listing)? {
            Some(document) => publish(registry, gate, permit, &document.manifest)?,
            // Somebody else was faster.
            None if registry
                .state
                .has(repository, Member::Manifest, digest.digest()) => {}
            None => return Err(nothing_to_publish()),
        }
    }
    Ok(())
}

/// Judges something that waits once more; whether it is published now.
fn review(
    registry: &Registry,
    gate: &Gate,
    authority: &Authority,
    waiting: &WaitingImage,
) -> Result<bool, ApiError> {
    let naming = waiting.naming();
    let policy = gate.policy(&naming.repository);
    if policy != PushPolicy::Staged {
        let reason = "its repository lets nothing wait any more; push it again";
        explain(registry, gate, waiting, reason)?;
        return Ok(false);
    }
    let document = gate
        .waiting
        .manifest(&naming.repository, &naming.digest, &registry.limits)
        .map_err(listing)?;
    let Some(document) = document else {
        explain(
            registry,
            gate,
            waiting,
            "its manifest is lost; push it again",
        )?;
        return Ok(false);
    };
    let opinion = judge(registry, gate, authority, &naming, &document.manifest);
    log_trouble(&naming, &opinion);
    let permits = match decide(policy, &naming, opinion) {
        Decision::Publish(permits) => permits,
        Decision::Wait(reason) | Decision::Refuse(reason) => {
            explain(registry, gate, waiting, &reason)?;
            return Ok(false);
        }
    };
    let published = publish_waiting(registry, gate, &permits, &document.manifest);
    if let Err(error) = &published {
        explain(registry, gate, waiting, error.message())?;
    }
    published
}

fn publish_waiting(
    registry: &Registry,
    gate: &Gate,
    permits: &[Permit],
    manifest: &ManifestBytes,
) -> Result<bool, ApiError> {
    let (last, members) = permits.split_last().ok_or_else(nothing_to_publish)?;
    publish_members(registry, gate, members)?;
    let Naming {
        repository, digest, ..
    } = last.naming();
    let slot = Slot::of(last.naming());
    let _turn = gate.turns.take(slot.clone());
    // Something else may have been pushed in its place, or published.
    let now = gate.waiting.find(&slot).map_err(listing)?;
    if now.is_none_or(|now| now.digest != *digest) {
        return Ok(false);
    }
    publish_in_turn(registry, gate, last, manifest)?;
    tracing::info!(%repository, %digest, "published after waiting");
    Ok(true)
}

fn explain(
    registry: &Registry,
    gate: &Gate,
    waiting: &WaitingImage,
    reason: &str,
) -> Result<(), ApiError> {
    let explained = gate.waiting.explain(&registry.state, waiting, reason);
    explained.map_err(listing)
}

/// Judges again what may depend on signatures of one manifest: itself, and indexes that list it. Answers after what
/// is admitted now is published.
///
/// # Errors
/// What waited is admitted and cannot be published.
pub async fn review_about(
    registry: &Arc<Registry>,
    repository: &Repository,
    digest: &ManifestDigest,
) -> Result<(), ApiError> {
    let Some(gate) = &registry.gate else {
        return Ok(());
    };
    gate.arrivals.fetch_add(1, Ordering::SeqCst);
    let turn = Arc::clone(&gate.judging).acquire_owned().await;
    let registry = Arc::clone(registry);
    let (repository, digest) = (repository.clone(), *digest);
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let Some(gate) = &registry.gate else {
            return Ok(());
        };
        let mut all = gate.waiting.of(&repository).map_err(listing)?;
        all.retain(|one| one.digest == digest || lists(&registry, gate, one, &digest));
        review_all(&registry, gate, &all, &|| false)
    });
    work.await
        .unwrap_or_else(|error| Err(ApiError::internal("judge what waits", &error)))
}

/// Whether what waits is an index that names a manifest.
fn lists(
    registry: &Registry,
    gate: &Gate,
    waiting: &WaitingImage,
    digest: &ManifestDigest,
) -> bool {
    let found = gate
        .waiting
        .manifest(&waiting.repository, &waiting.digest, &registry.limits);
    let Ok(Some(found)) = found else {
        return false;
    };
    match found.manifest.document() {
        Document::Index(index) => {
            let mut entries = index.manifests.iter();
            entries.any(|entry| entry.digest == *digest.digest())
        }
        Document::Manifest(_) => false,
    }
}

/// Judges again; the first failure to publish is answered after all were judged.
fn review_all(
    registry: &Registry,
    gate: &Gate,
    all: &[WaitingImage],
    stopped: &dyn Fn() -> bool,
) -> Result<(), ApiError> {
    if all.is_empty() {
        return Ok(());
    }
    let authority = match authority(gate) {
        Ok(authority) => authority,
        Err(trouble) => {
            tracing::warn!("{}: {}", trouble.outward, trouble.internal);
            return Ok(());
        }
    };
    let mut outcome = Ok(());
    for waiting in all {
        if stopped() {
            break;
        }
        let reviewed = review(registry, gate, &authority, waiting).map(drop);
        outcome = outcome.and(reviewed);
    }
    outcome
}

/// Looks at all that waits from time to time, beginning now, until told to stop.
pub async fn look_again(registry: Arc<Registry>, mut stopped: watch::Receiver<()>) {
    let Some(gate) = &registry.gate else {
        return;
    };
    loop {
        let (registry, stop) = (Arc::clone(&registry), stopped.clone());
        let looked = tokio::task::spawn_blocking(move || look(&registry, &stop)).await;
        if let Err(error) = looked {
            tracing::error!("look at what waits: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(gate.look_every()) => {}
            // Also if the sender is gone.
            _ = stopped.changed() => return,
        }
    }
}

fn look(registry: &Registry, stop: &watch::Receiver<()>) {
    let Some(gate) = &registry.gate else {
        return;
    };
    if let Err(error) = sweep(registry, gate, SystemTime::now()) {
        tracing::error!("sweep what waits: {error}");
    }
    let all = match gate.waiting.all() {
        Ok(all) => all,
        Err(error) => return tracing::error!("list what waits: {error}"),
    };
    let stopped = || stop.has_changed().unwrap_or(true);
    if let Err(error) = review_all(registry, gate, &all, &stopped) {
        tracing::warn!("publish what waited: {}", error.for_log());
    }
}

/// Removes what has waited for too long, and signatures whose manifest never came.
fn sweep(registry: &Registry, gate: &Gate, now: SystemTime) -> io::Result<()> {
    for expired in gate.waiting.sweep(now)? {
        let WaitingImage {
            repository, digest, ..
        } = &expired;
        tracing::info!(%repository, %digest, "waited for too long: {}", expired.reason);
    }
    let age = gate.options.waiting.age;
    for repository in registry.state.repositories()? {
        if gate.policy(&repository) == PushPolicy::Off {
            continue;
        }
        for (digest, since) in pending(registry, gate, &repository)? {
            if now.duration_since(since).unwrap_or_default() >= age {
                registry
                    .state
                    .remove_signatures(&repository, digest.digest())?;
            }
        }
    }
    Ok(())
}

/// The manifests that a repository has signatures of and neither has nor lets wait, and since when.
pub(super) fn pending(
    registry: &Registry,
    gate: &Gate,
    repository: &Repository,
) -> io::Result<Vec<(ManifestDigest, SystemTime)>> {
    let mut signed = registry.state.signed(repository)?;
    signed.retain(|(digest, _)| !registry.state.has(repository, Member::Manifest, digest));
    if signed.is_empty() {
        return Ok(Vec::new());
    }
    let waiting = gate.waiting.of(repository)?;
    let signed = signed
        .into_iter()
        .map(|(digest, since)| (ManifestDigest::from_digest(digest), since));
    Ok(signed
        .filter(|(digest, _)| !waiting.iter().any(|one| one.digest == *digest))
        .collect())
}

/// Takes from the list what a client deletes; whether there was anything.
///
/// # Errors
/// The list cannot be changed.
pub fn withdraw(
    registry: &Registry,
    repository: &Repository,
    name: &ManifestName,
) -> Result<bool, ApiError> {
    let Some(gate) = &registry.gate else {
        return Ok(false);
    };
    let mut found = false;
    for waiting in gate.waiting.of(repository).map_err(listing)? {
        let meant = match name {
            ManifestName::Tag(tag) => waiting.tag.as_ref() == Some(tag),
            ManifestName::Digest(digest) => waiting.digest == *digest,
        };
        if meant {
            let naming = waiting.naming();
            let _turn = gate.turns.take(Slot::of(&naming));
            found |= gate.waiting.remove(&naming).map_err(listing)?;
        }
    }
    Ok(found)
}
