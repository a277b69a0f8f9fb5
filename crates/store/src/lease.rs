// SPDX-License-Identifier: Apache-2.0
//! Leases: what must not be deleted although no name leads to it.
//!
//! A lease is a small file that names an image and a process. It holds while that process lives:
//! same boot, same pid, same start time, whether or not anybody has asked yet how it ended. A lease of another boot holds until it expires; without a
//! time of expiry it ended with its boot. So a container's image stays as long as its monitor runs,
//! and a killed monitor needs no cleaning up.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use crate::open::{Store, ensure_dir, random_id};
use crate::record::{decode, encode};
use gantry_oci::ManifestDigest;
use gantry_sys::proc::Proc;
use gantry_sys::publish;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LEASE_MAX_BYTES: u64 = 64 << 10;

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// For people: a container's name, say.
    pub label: String,
    /// The process.
    pub pid: u32,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseBody {
    digest: ManifestDigest,
    owner: Owner,
    start_time: u64,
    boot_id: String,
    expires_unix_s: Option<u64>,
}

/// A lease that was taken. It stays when this value is dropped: the owner may be another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    id: String,
    digest: ManifestDigest,
}

impl Lease {
    /// The lease's id, by which another process may release it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it holds.
    #[must_use]
    pub fn digest(&self) -> &ManifestDigest {
        &self.digest
    }
}

impl Store {
    /// Holds an image for as long as `owner` runs, or, beyond the machine's next boot, until
    /// `expires`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the image or the process is not there;
    /// [`StoreError::ReadOnly`]: a client of a read-only share leases nothing.
    pub fn lease(
        &self,
        digest: &ManifestDigest,
        owner: Owner,
        expires: Option<SystemTime>,
    ) -> Result<Lease, StoreError> {
        self.lease_as(&random_id()?, digest, owner, expires)
    }

    /// As [`lease`](Self::lease), under an id of the caller's that nobody else uses.
    pub(crate) fn lease_as(
        &self,
        id: &str,
        digest: &ManifestDigest,
        owner: Owner,
        expires: Option<SystemTime>,
    ) -> Result<Lease, StoreError> {
        self.must_be_writable(|| format!("lease {digest}"))?;
        let action = || format!("lease {digest}");
        let proc = Proc::open().doing(action)?;
        let start_time =
            proc.start_time(owner.pid)
                .doing(action)?
                .ok_or_else(|| StoreError::NotFound {
                    what: format!("process {}", owner.pid),
                })?;
        let body = LeaseBody {
            digest: *digest,
            owner,
            start_time,
            boot_id: proc.boot_id().doing(action)?,
            expires_unix_s: expires.map(unix_seconds),
        };
        let leases = ensure_dir(&self.inner.root, layout::LEASES, layout::PRIVATE)?;
        let temporary = format!(".{id}");
        // A lease without a time of expiry ends with its boot: it need not survive a power cut.
        let write = match expires {
            Some(_) => publish::atomic_write,
            None => publish::atomic_write_volatile,
        };
        write(
            &leases,
            format!("{id}.json").as_bytes(),
            temporary.as_bytes(),
            layout::PRIVATE_FILE,
            &encode(&body)?,
        )
        .doing(action)?;
        // Only now: whoever deletes looks at leases first and at the image after.
        if self.image(digest)?.is_none() {
            self.release(id)?;
            return Err(StoreError::NotFound {
                what: format!("image {digest}"),
            });
        }
        Ok(Lease {
            id: id.to_owned(),
            digest: *digest,
        })
    }

    /// Ends a lease; false if there was none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn release(&self, id: &str) -> Result<bool, StoreError> {
        self.must_be_writable(|| format!("release lease {id}"))?;
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(false);
        }
        self.inner
            .root
            .remove_file(format!("{}/{id}.json", layout::LEASES).as_bytes())
            .doing(|| format!("release lease {id}"))
    }

    /// Lists the images that leases hold, with their owners' labels; forgets leases that ended.
    pub(crate) fn leased(&self) -> Result<Vec<(ManifestDigest, String)>, StoreError> {
        let action = || "read leases".to_owned();
        let proc = Proc::open().doing(action)?;
        let boot_id = proc.boot_id().doing(action)?;
        let mut held = Vec::new();
        for file in self.list(layout::LEASES)? {
            let Some(id) = file.strip_suffix(".json") else {
                continue;
            };
            let path = format!("{}/{file}", layout::LEASES);
            let Some(bytes) = self.read_small(&path, LEASE_MAX_BYTES)? else {
                continue;
            };
            if bytes.is_empty() {
                // A power cut took what was never synced; its owner went with it.
                if self.is_writable() {
                    self.release(id)?;
                }
                continue;
            }
            let body: LeaseBody = decode(&bytes, &path)?;
            let holds = if body.boot_id == boot_id {
                let owner = proc.process(body.owner.pid).doing(action)?;
                owner.is_some_and(|owner| owner.start_time == body.start_time && !owner.is_zombie())
            } else {
                body.expires_unix_s > Some(unix_seconds(SystemTime::now()))
            };
            if holds {
                held.push((body.digest, body.owner.label));
            } else if self.is_writable() {
                self.release(id)?;
            }
        }
        Ok(held)
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}
