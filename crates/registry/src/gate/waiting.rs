// SPDX-License-Identifier: Apache-2.0
//! The manifests that were pushed and wait for a signature.
//!
//! ```text
//! <root>/registry/waiting/<repository, / as +>/
//!     manifests/<alg>:<hex>     media type, depth, bytes
//!     digests/<alg>:<hex>       pushed by digest: since when, why not published
//!     tags/<tag>                the same for a tag, and which manifest
//! ```
//!
//! Nothing that answers a client or is seen on the share looks here but the gate. A tag waits for one manifest: the
//! last that was pushed. The manifest is written before what names it, and goes with the last that does, so that after
//! a cut there is at most a manifest too many, which [`Waiting::sweep`] removes.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gantry_image::{ManifestBytes, UnverifiedManifest};
use gantry_oci::{Limits, ManifestDigest, Repository, Tag};
use serde::{Deserialize, Serialize};

use crate::gate::decide::Naming;
use crate::state::{State, file_name, list_dir, optional, repository_of};

/// How much may wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingLimits {
    /// Names of one repository that wait.
    pub per_repository: usize,
    /// Names that wait in all.
    pub in_all: usize,
    /// How long one may wait.
    pub age: Duration,
}

impl Default for WaitingLimits {
    fn default() -> Self {
        Self {
            per_repository: 256,
            in_all: 4096,
            age: Duration::from_secs(7 * 86_400),
        }
    }
}

/// Where something waits: one place for each tag, and for each digest that has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    repository: Repository,
    /// Those without a tag first: an index needs its members.
    tag: Option<Tag>,
    digest: Option<ManifestDigest>,
}

impl Slot {
    /// The place of a naming.
    pub fn of(naming: &Naming) -> Self {
        Self {
            repository: naming.repository.clone(),
            tag: naming.tag.clone(),
            digest: naming.tag.is_none().then_some(naming.digest),
        }
    }
}

/// One name that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingImage {
    /// The repository.
    pub repository: Repository,
    /// The tag; pushed by digest without.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: ManifestDigest,
    /// When it was pushed.
    pub since: SystemTime,
    /// Why it is not published.
    pub reason: String,
}

impl WaitingImage {
    /// What it shall be published as.
    pub fn naming(&self) -> Naming {
        Naming {
            repository: self.repository.clone(),
            tag: self.tag.clone(),
            digest: self.digest,
        }
    }
}

/// A manifest that waits, as it was pushed.
#[derive(Debug, Clone)]
pub struct WaitingManifest {
    /// The document.
    pub manifest: ManifestBytes,
    /// Over how many indexes it leads to images.
    pub depth: usize,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    manifest: ManifestDigest,
    since_s: u64,
    reason: String,
}

/// Why something cannot wait.
#[derive(Debug)]
pub enum AddError {
    /// The list is full.
    Full,
    /// The file system's.
    Io(io::Error),
}

impl From<io::Error> for AddError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The list.
#[derive(Debug)]
pub struct Waiting {
    root: PathBuf,
    limits: WaitingLimits,
    /// Whoever changes the list: counts stay true, and no manifest is removed that somebody names just now.
    changing: Mutex<()>,
}

const MANIFESTS: &str = "manifests";
const DIGESTS: &str = "digests";
const TAGS: &str = "tags";

impl Waiting {
    /// The list of the store at `root`.
    pub fn new(root: &Path, limits: WaitingLimits) -> Self {
        Self {
            root: root.join("registry/waiting"),
            limits,
            changing: Mutex::new(()),
        }
    }

    /// Puts something into its place, instead of what waited there.
    ///
    /// # Durability
    /// It is on stable storage on return.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add(
        &self,
        state: &State,
        naming: &Naming,
        document: &WaitingManifest,
        reason: &str,
        now: SystemTime,
    ) -> Result<(), AddError> {
        let _changing = self.lock();
        let former = self.find(&Slot::of(naming))?;
        if former.is_none() {
            let all = self.all()?;
            let own = all.iter().filter(|one| one.repository == naming.repository);
            if all.len() >= self.limits.in_all || own.count() >= self.limits.per_repository {
                return Err(AddError::Full);
            }
        }
        let manifest = &document.manifest;
        let mut bytes = format!("{}\n{}\n", manifest.media_type(), document.depth).into_bytes();
        bytes.extend_from_slice(manifest.bytes());
        let path = self.manifest_path(&naming.repository, manifest.digest());
        state.write_durably(&path, &bytes)?;
        self.write(state, naming, reason, now)?;
        if let Some(former) = former {
            self.drop_unnamed(&former.repository, &former.digest)?;
        }
        Ok(())
    }

    /// Says another reason for what waits already.
    ///
    /// # Errors
    /// The file system's.
    pub fn explain(&self, state: &State, waiting: &WaitingImage, reason: &str) -> io::Result<()> {
        if waiting.reason == reason {
            return Ok(());
        }
        let _changing = self.lock();
        let naming = waiting.naming();
        let same = self.find(&Slot::of(&naming))?;
        if same.is_some_and(|same| same.digest == waiting.digest) {
            self.write(state, &naming, reason, waiting.since)?;
        }
        Ok(())
    }

    fn write(
        &self,
        state: &State,
        naming: &Naming,
        reason: &str,
        since: SystemTime,
    ) -> io::Result<()> {
        let since_s = since
            .duration_since(UNIX_EPOCH)
            .map_or(0, |it| it.as_secs());
        let entry = Entry {
            manifest: naming.digest,
            since_s,
            reason: reason.to_owned(),
        };
        let text = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        state.write_durably(&self.path(&Slot::of(naming)), &text)
    }

    /// Takes something from the list; whether it was there.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove(&self, naming: &Naming) -> io::Result<bool> {
        let _changing = self.lock();
        self.remove_slot(&Slot::of(naming))
    }

    fn remove_slot(&self, slot: &Slot) -> io::Result<bool> {
        let Some(found) = self.find(slot)? else {
            return Ok(optional(std::fs::remove_file(self.path(slot)))?.is_some());
        };
        optional(std::fs::remove_file(self.path(slot)))?;
        self.drop_unnamed(&found.repository, &found.digest)?;
        Ok(true)
    }

    /// What waits in a place.
    ///
    /// # Errors
    /// The file system's.
    pub fn find(&self, slot: &Slot) -> io::Result<Option<WaitingImage>> {
        let Some(text) = optional(std::fs::read(self.path(slot)))? else {
            return Ok(None);
        };
        // Written by one rename, so that one that does not parse was damaged; nothing can be done with it.
        let entry: Option<Entry> = serde_json::from_slice(&text).ok();
        let fits = |entry: &Entry| slot.digest.is_none_or(|digest| digest == entry.manifest);
        Ok(entry.filter(fits).map(|entry| WaitingImage {
            repository: slot.repository.clone(),
            tag: slot.tag.clone(),
            digest: entry.manifest,
            since: UNIX_EPOCH + Duration::from_secs(entry.since_s),
            reason: entry.reason,
        }))
    }

    /// A manifest that waits in a repository.
    ///
    /// # Errors
    /// The file system's, or it was damaged.
    pub fn manifest(
        &self,
        repository: &Repository,
        digest: &ManifestDigest,
        limits: &Limits,
    ) -> io::Result<Option<WaitingManifest>> {
        let Some(file) = optional(std::fs::read(self.manifest_path(repository, digest)))? else {
            return Ok(None);
        };
        let damaged = || io::Error::other(format!("waiting manifest {digest} is damaged"));
        let mut parts = file.splitn(3, |byte| *byte == b'\n');
        let mut line = || {
            let line = parts.next().and_then(|line| std::str::from_utf8(line).ok());
            line.map(str::to_owned).ok_or_else(damaged)
        };
        let media_type = line()?;
        let depth = line()?.parse().map_err(|_| damaged())?;
        let bytes = Bytes::copy_from_slice(parts.next().ok_or_else(damaged)?);
        let manifest = UnverifiedManifest::new(bytes, Some(media_type), None)
            .verify(Some(digest), limits)
            .map_err(io::Error::other)?;
        Ok(Some(WaitingManifest { manifest, depth }))
    }

    /// All that waits: by repository, what was pushed by digest before what was pushed by tag.
    ///
    /// # Errors
    /// The file system's.
    pub fn all(&self) -> io::Result<Vec<WaitingImage>> {
        let mut all = Vec::new();
        for name in list_dir(&self.root)? {
            if let Some(repository) = repository_of(&name) {
                all.extend(self.of(&repository)?);
            }
        }
        Ok(all)
    }

    /// What waits in a repository, in the same order.
    ///
    /// # Errors
    /// The file system's.
    pub fn of(&self, repository: &Repository) -> io::Result<Vec<WaitingImage>> {
        let mut slots = Vec::new();
        for name in list_dir(&self.repo(repository).join(DIGESTS))? {
            slots.extend(name.parse().ok().map(|digest| (None, Some(digest))));
        }
        for name in list_dir(&self.repo(repository).join(TAGS))? {
            slots.extend(name.parse().ok().map(|tag| (Some(tag), None)));
        }
        let mut slots: Vec<Slot> = slots
            .into_iter()
            .map(|(tag, digest)| Slot {
                repository: repository.clone(),
                tag,
                digest,
            })
            .collect();
        slots.sort();
        let mut found = Vec::new();
        for slot in &slots {
            found.extend(self.find(slot)?);
        }
        Ok(found)
    }

    /// Removes what has waited for too long, and manifests that nothing names; answers the former.
    ///
    /// # Errors
    /// The file system's.
    pub fn sweep(&self, now: SystemTime) -> io::Result<Vec<WaitingImage>> {
        let _changing = self.lock();
        let mut expired = Vec::new();
        for name in list_dir(&self.root)? {
            let Some(repository) = repository_of(&name) else {
                continue;
            };
            for waiting in self.of(&repository)? {
                // A clock that was set back makes nothing old.
                let age = now.duration_since(waiting.since).unwrap_or_default();
                if age >= self.limits.age {
                    self.remove_slot(&Slot::of(&waiting.naming()))?;
                    expired.push(waiting);
                }
            }
            let left = self.of(&repository)?;
            let named: HashSet<ManifestDigest> = left.iter().map(|one| one.digest).collect();
            for name in list_dir(&self.repo(&repository).join(MANIFESTS))? {
                let digest = name.parse::<ManifestDigest>();
                if digest.is_ok_and(|digest| !named.contains(&digest)) {
                    let path = self.repo(&repository).join(MANIFESTS).join(name);
                    optional(std::fs::remove_file(path))?;
                }
            }
        }
        Ok(expired)
    }

    /// Removes a manifest that nothing names any more.
    fn drop_unnamed(&self, repository: &Repository, digest: &ManifestDigest) -> io::Result<()> {
        let named = self.of(repository)?.iter().any(|one| one.digest == *digest);
        if !named {
            optional(std::fs::remove_file(self.manifest_path(repository, digest)))?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repo(&self, repository: &Repository) -> PathBuf {
        self.root.join(file_name(repository))
    }

    fn manifest_path(&self, repository: &Repository, digest: &ManifestDigest) -> PathBuf {
        self.repo(repository)
            .join(MANIFESTS)
            .join(digest.to_string())
    }

    fn path(&self, slot: &Slot) -> PathBuf {
        let repo = self.repo(&slot.repository);
        match (&slot.tag, &slot.digest) {
            (Some(tag), _) => repo.join(TAGS).join(tag.as_str()),
            (None, Some(digest)) => repo.join(DIGESTS).join(digest.to_string()),
            (None, None) => repo.join(DIGESTS).join("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: usize = 3;

    fn list(root: &Path) -> (State, Waiting) {
        let limits = WaitingLimits {
            per_repository: CAP,
            in_all: CAP + 1,
            age: Duration::from_secs(100),
        };
        (State::new(root).unwrap(), Waiting::new(root, limits))
    }

    fn document(text: &str) -> WaitingManifest {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let bytes = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2}},
            "layers":[],"annotations":{{"a":"{text}"}}}}"#
        );
        let manifest = UnverifiedManifest::new(bytes.into_bytes().into(), None, None)
            .verify(None, &Limits::DEFAULT)
            .unwrap();
        WaitingManifest { manifest, depth: 2 }
    }

    fn naming(repository: &str, tag: Option<&str>, document: &WaitingManifest) -> Naming {
        Naming {
            repository: repository.parse().unwrap(),
            tag: tag.map(|tag| tag.parse().unwrap()),
            digest: *document.manifest.digest(),
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn what_waits_is_found_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let (state, waiting) = list(dir.path());
        let (one, two) = (document("1"), document("2"));
        let tagged = naming("team/app", Some("v1"), &one);
        let plain = naming("team/app", None, &two);
        waiting
            .add(&state, &tagged, &one, "no signature", at(5))
            .unwrap();
        waiting
            .add(&state, &plain, &two, "no signature", at(6))
            .unwrap();
        let (_, again) = list(dir.path());
        let all = again.all().unwrap();
        let names: Vec<Naming> = all.iter().map(WaitingImage::naming).collect();
        assert_eq!(names, [plain, tagged.clone()]);
        assert_eq!(
            (all[1].since, all[1].reason.as_str()),
            (at(5), "no signature")
        );
        let found = again
            .manifest(&tagged.repository, &tagged.digest, &Limits::DEFAULT)
            .unwrap()
            .unwrap();
        assert_eq!(found.manifest.bytes(), one.manifest.bytes());
        assert_eq!(found.depth, 2);
        assert!(again.remove(&tagged).unwrap());
        assert!(!again.remove(&tagged).unwrap());
        assert!(
            again
                .manifest(&tagged.repository, &tagged.digest, &Limits::DEFAULT)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_tag_waits_for_what_was_pushed_last() {
        let dir = tempfile::tempdir().unwrap();
        let (state, waiting) = list(dir.path());
        let (one, two) = (document("1"), document("2"));
        let (first, second) = (naming("a", Some("v1"), &one), naming("a", Some("v1"), &two));
        waiting.add(&state, &first, &one, "why", at(1)).unwrap();
        waiting.add(&state, &second, &two, "why", at(2)).unwrap();
        let all = waiting.all().unwrap();
        assert_eq!((all.len(), all[0].digest), (1, second.digest));
        assert!(
            waiting
                .manifest(&first.repository, &first.digest, &Limits::DEFAULT)
                .unwrap()
                .is_none()
        );
        // A reason for what waited before is not one for what waits now.
        let mut former = all[0].clone();
        former.digest = first.digest;
        waiting.explain(&state, &former, "other").unwrap();
        assert_eq!(waiting.all().unwrap(), all);
        waiting.explain(&state, &all[0], "other").unwrap();
        assert_eq!(waiting.all().unwrap()[0].reason, "other");
        assert_eq!(waiting.all().unwrap()[0].since, at(2));
    }

    #[test]
    fn the_list_is_bounded_in_count_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let (state, waiting) = list(dir.path());
        let one = document("1");
        let add = |repository: &str, tag: &str, now| {
            let naming = naming(repository, Some(tag), &one);
            waiting.add(&state, &naming, &one, "why", now)
        };
        for number in 0..CAP {
            add("a", &format!("v{number}"), at(10)).unwrap();
        }
        assert!(matches!(add("a", "more", at(10)), Err(AddError::Full)));
        add("a", "v0", at(50)).unwrap();
        add("b", "v0", at(10)).unwrap();
        assert!(matches!(add("c", "v0", at(10)), Err(AddError::Full)));
        assert_eq!(waiting.sweep(at(5)).unwrap(), []);
        assert_eq!(waiting.sweep(at(110)).unwrap().len(), CAP);
        let left = waiting.all().unwrap();
        assert_eq!((left.len(), left[0].since), (1, at(50)));
        let manifests = |repository: &str| {
            let dir = dir
                .path()
                .join("registry/waiting")
                .join(repository)
                .join(MANIFESTS);
            std::fs::read_dir(dir).unwrap().count()
        };
        assert_eq!((manifests("a"), manifests("b")), (1, 0));
        add("c", "v0", at(110)).unwrap();
    }

    #[test]
    fn a_cut_leaves_no_more_than_a_manifest_that_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let (state, waiting) = list(dir.path());
        let one = document("1");
        let tagged = naming("a", Some("v1"), &one);
        waiting.add(&state, &tagged, &one, "why", at(1)).unwrap();
        std::fs::remove_file(waiting.path(&Slot::of(&tagged))).unwrap();
        assert_eq!(waiting.all().unwrap(), []);
        waiting.sweep(at(2)).unwrap();
        let left = waiting.manifest(&tagged.repository, &tagged.digest, &Limits::DEFAULT);
        assert!(left.unwrap().is_none());
        // One that is damaged waits for nothing, and is in nobody's way.
        std::fs::write(waiting.path(&Slot::of(&tagged)), b"{").unwrap();
        assert_eq!(waiting.all().unwrap(), []);
        waiting.add(&state, &tagged, &one, "why", at(3)).unwrap();
        assert_eq!(waiting.all().unwrap().len(), 1);
    }
}
