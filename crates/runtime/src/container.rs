// SPDX-License-Identifier: Apache-2.0
//! Containers on disk: where their files lie, what is written about them, and how one tells whether
//! they still run.
//!
//! ```text
//! RUNROOT/containers/ID/         0700, in memory: the bundle
//!   lock                         held (OFD) as long as somebody is responsible for the container
//!   plan.json                    what the monitor was told
//!   config.json                  the OCI bundle, without its rootfs
//!   pid, oci/, runtime.log       the OCI runtime's
//!   process.json                 the program's process, once it runs
//! ROOT/containers/ID/            on disk, for what must outlive the program
//!   log, upper/, work/, volumes/
//! RUNROOT/containers/names/NAME  symlink to ID: the reservation of a name
//! RUNROOT/containers/rootfs/     empty; each monitor mounts its container's rootfs there, in a namespace
//! RUNROOT/containers/scaffold/   of its own
//! record.json, exit.json         in the directory on disk if there is one, else in the one in memory
//! ```
//!
//! ```text
//!            lock held, no process.json   lock held        lock free
//! record ──► Starting ──────────────────► Running ──────┐
//!                 └──────────────────────────┴──────────┼─► exit.json? Exited
//!                                                       ├─► the process lives? Unwatched
//!                                                       └─► Lost
//! ```
//!
//! Nobody writes a status: it is derived, so a killed monitor or a power cut cannot leave a wrong one.
mod error;
mod files;
mod home;
mod record;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_sys::lock::{LockMode, OfdLock};
use rustix::fs::OFlags;

use crate::options::ContainerName;
use error::{Result, io_error, sys_error};
use files::{PRIVATE_FILE, make_private_dirs, read_json, remove_stale, write_json};
use home::LOCK;

pub use error::ContainerError;
pub use home::{Container, Home};
pub use record::{ContainerRecord, ExitRecord, ProcessRecord, Status, unix_seconds};

const CONTAINERS: &str = "containers";
const NAMES: &str = "names";
const RECORD: &str = "record.json";

/// Where containers lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containers {
    root: PathBuf,
    runroot: PathBuf,
}

/// A container that was made; the lock is held as long as the value, or whoever got its descriptor, lives.
#[derive(Debug)]
pub struct NewContainer {
    /// Its places.
    pub home: Home,
    /// The reservation of its name.
    pub name_link: Option<PathBuf>,
    /// The lock.
    pub lock: OfdLock,
}

impl Containers {
    /// Names the places; nothing is touched.
    #[must_use]
    pub fn new(root: &Path, runroot: &Path) -> Self {
        Self {
            root: root.to_owned(),
            runroot: runroot.to_owned(),
        }
    }

    /// Where a container of this id would lie.
    #[must_use]
    pub fn home(&self, id: &str, on_disk: bool) -> Home {
        Home {
            state_dir: self.runroot.join(CONTAINERS).join(id),
            data_dir: on_disk.then(|| self.root.join(CONTAINERS).join(id)),
        }
    }

    /// Where monitors mount rootfs, each in a namespace of its own.
    #[must_use]
    pub fn rootfs_dir(&self) -> PathBuf {
        self.runroot.join(CONTAINERS).join("rootfs")
    }

    /// Where monitors mount memory for what an image lacks.
    #[must_use]
    pub fn scaffold_dir(&self) -> PathBuf {
        self.runroot.join(CONTAINERS).join("scaffold")
    }

    /// The reservation of a name.
    #[must_use]
    pub fn name_link(&self, name: &ContainerName) -> PathBuf {
        self.names().join(name.as_str())
    }

    fn names(&self) -> PathBuf {
        self.runroot.join(CONTAINERS).join(NAMES)
    }

    /// Makes a container's directories, reserves its name, and writes its record.
    ///
    /// # Errors
    /// [`ContainerError::NameTaken`]; the kernel's refusal. Nothing is left behind.
    pub fn create(&self, record: &ContainerRecord, on_disk: bool) -> Result<NewContainer> {
        let home = self.home(&record.id, on_disk);
        for dir in [Some(&home.state_dir), home.data_dir.as_ref()]
            .into_iter()
            .flatten()
        {
            make_private_dirs(dir)?;
        }
        for dir in [self.rootfs_dir(), self.scaffold_dir()] {
            make_private_dirs(&dir)?;
        }
        let made = self.fill(&home, record);
        if made.is_err() {
            // The first failure is the one to tell.
            home.remove(None).ok();
        }
        made
    }

    fn fill(&self, home: &Home, record: &ContainerRecord) -> Result<NewContainer> {
        let path = home.state_dir.join(LOCK);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, PRIVATE_FILE)
            .map_err(|errno| io_error("create", &path)(errno.into()))?;
        let lock = OfdLock::lock(file, LockMode::Exclusive)
            .map_err(sys_error(format!("lock {}", path.display())))?;
        write_json(home.records(), RECORD, record, home.data_dir.is_some())?;
        let name_link = match &record.name {
            Some(name) => Some(self.reserve(name, &record.id)?),
            None => None,
        };
        Ok(NewContainer {
            home: home.clone(),
            name_link,
            lock,
        })
    }

    fn reserve(&self, name: &ContainerName, id: &str) -> Result<PathBuf> {
        let names = self.names();
        make_private_dirs(&names)?;
        let link = self.name_link(name);
        // Reservations end with the boot; a container that is kept does not, nor does its name.
        for other in self.list()? {
            let same = other.record.id != id && other.record.name.as_ref() == Some(name);
            if same && !other.record.remove {
                return Err(ContainerError::NameTaken {
                    name: name.to_string(),
                    holder: other.record.short_id().to_owned(),
                });
            }
        }
        for _ in 0..2 {
            match std::os::unix::fs::symlink(id, &link) {
                Ok(()) => return Ok(link),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("reserve", &link)(error)),
            }
            let holder = fs::read_link(&link)
                .map(|target| target.to_string_lossy().into_owned())
                .unwrap_or_default();
            match self.load(&holder)? {
                // Its monitor was killed before it could clean up, or the machine went down.
                None => remove_stale(&link)?,
                Some(found) if found.record.remove && found.status()? == Status::Lost => {
                    found.home.remove(Some(&link))?;
                }
                Some(_) => {
                    return Err(ContainerError::NameTaken {
                        name: name.to_string(),
                        holder: holder.chars().take(12).collect(),
                    });
                }
            }
        }
        Err(ContainerError::NameTaken {
            name: name.to_string(),
            holder: "another".to_owned(),
        })
    }

    /// Reads a container's record; `None` if there is no such id.
    ///
    /// # Errors
    /// A damaged record, the kernel's refusal.
    pub fn load(&self, id: &str) -> Result<Option<Container>> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        for on_disk in [true, false] {
            let home = self.home(id, on_disk);
            if let Some(record) = read_json(&home.records().join(RECORD))? {
                return Ok(Some(Container { record, home }));
            }
        }
        Ok(None)
    }

    /// Lists all containers, the newest first.
    ///
    /// # Errors
    /// A damaged record, the kernel's refusal.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut ids = BTreeSet::new();
        for base in [&self.root, &self.runroot] {
            let dir = base.join(CONTAINERS);
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io_error("list", &dir))?,
            };
            for entry in entries {
                let entry = entry.map_err(io_error("list", &dir))?;
                ids.extend(entry.file_name().into_string().ok());
            }
        }
        let mut found = Vec::new();
        for id in ids {
            found.extend(self.load(&id)?);
        }
        found.sort_by(|a, b| {
            let key = |c: &Container| (c.record.created_unix_s, c.record.id.clone());
            key(b).cmp(&key(a))
        });
        Ok(found)
    }

    /// Finds a container by its name, its id, or the first digits of its id.
    ///
    /// # Errors
    /// [`ContainerError::Unknown`], [`ContainerError::Ambiguous`], a damaged record.
    pub fn find(&self, wanted: &str) -> Result<Container> {
        if let Some(found) = self.load(wanted)? {
            return Ok(found);
        }
        let all = self.list()?;
        let named = |c: &&Container| c.record.name.as_ref().is_some_and(|n| n.as_str() == wanted);
        if let Some(found) = all.iter().find(named) {
            return Ok(found.clone());
        }
        let mut begins = all
            .into_iter()
            .filter(|container| !wanted.is_empty() && container.record.id.starts_with(wanted));
        match (begins.next(), begins.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(ContainerError::Ambiguous {
                wanted: wanted.to_owned(),
            }),
            (None, _) => Err(ContainerError::Unknown {
                wanted: wanted.to_owned(),
            }),
        }
    }

    /// Removes a container that does not run.
    ///
    /// # Errors
    /// [`ContainerError::Running`]; the kernel's refusal.
    pub fn remove(&self, container: &Container) -> Result<()> {
        if container.status()?.is_alive() {
            return Err(ContainerError::Running {
                id: container.record.short_id().to_owned(),
            });
        }
        let link = container
            .record
            .name
            .as_ref()
            .map(|name| self.name_link(name));
        // The name may have been given away since a reboot emptied the reservations.
        let ours = link.filter(|link| {
            fs::read_link(link)
                .is_ok_and(|target| target.as_os_str() == container.record.id.as_str())
        });
        container.home.remove(ours.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::Exit;
    use gantry_oci::Kind;
    use gantry_sys::proc::Proc;

    fn record(id: char, name: Option<&str>, remove: bool) -> ContainerRecord {
        ContainerRecord {
            id: id.to_string().repeat(64),
            name: name.map(|name| name.parse().unwrap()),
            image: "demo/app:latest".into(),
            digest: "sha256:00".into(),
            reference: None,
            command: vec!["true".into()],
            created_unix_s: 1,
            remove,
            stop_signal: 15,
            stop_timeout_s: 10,
        }
    }

    fn containers() -> (tempfile::TempDir, Containers) {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::new(&dir.path().join("root"), &dir.path().join("run"));
        (dir, containers)
    }

    #[test]
    fn status_is_derived_from_lock_and_files() {
        let (_dir, containers) = containers();
        let new = containers.create(&record('a', None, false), true).unwrap();
        let found = containers.find("aaa").unwrap();
        assert_eq!(found.status().unwrap(), Status::Starting);
        let process = ProcessRecord {
            pid: 1,
            start_time: 2,
            started_unix_s: 3,
        };
        new.home.put_process(&process).unwrap();
        assert_eq!(found.status().unwrap(), Status::Running(process));
        assert_eq!(containers.remove(&found).unwrap_err().kind(), Kind::Busy);
        let home = new.home.clone();
        drop(new.lock);
        assert_eq!(found.status().unwrap(), Status::Lost);
        let me = std::process::id();
        let alive = ProcessRecord {
            pid: me,
            start_time: Proc::open().unwrap().start_time(me).unwrap().unwrap(),
            started_unix_s: 3,
        };
        home.put_process(&alive).unwrap();
        assert_eq!(found.status().unwrap(), Status::Unwatched(alive));
        assert_eq!(containers.remove(&found).unwrap_err().kind(), Kind::Busy);
        home.put_process(&process).unwrap();
        let exit = ExitRecord {
            exit: Exit::Code(3),
            ended_unix_s: 4,
        };
        home.put_exit(&exit).unwrap();
        assert_eq!(found.status().unwrap(), Status::Exited(exit));
        containers.remove(&found).unwrap();
        assert!(containers.list().unwrap().is_empty());
        assert_eq!(containers.find("aaa").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn name_is_reserved_until_its_container_is_gone() {
        let (_dir, containers) = containers();
        let first = containers
            .create(&record('a', Some("web"), true), false)
            .unwrap();
        let taken = containers
            .create(&record('b', Some("web"), true), true)
            .unwrap_err();
        assert_eq!(
            taken.to_string(),
            "name container web: the name is in use by container aaaaaaaaaaaa"
        );
        assert_eq!(containers.list().unwrap().len(), 1, "nothing is left of b");
        // The monitor is killed: whoever wants the name clears up behind it.
        drop(first.lock);
        let second = containers
            .create(&record('b', Some("web"), true), true)
            .unwrap();
        assert_eq!(containers.find("web").unwrap().record.id, "b".repeat(64));
        second.home.remove(second.name_link.as_deref()).unwrap();
        assert!(containers.list().unwrap().is_empty());
    }

    #[test]
    fn stopped_container_that_is_kept_keeps_its_name() {
        let (_dir, containers) = containers();
        let first = containers
            .create(&record('a', Some("web"), false), true)
            .unwrap();
        drop(first.lock);
        let taken = || containers.create(&record('b', Some("web"), true), false);
        assert_eq!(taken().unwrap_err().kind(), Kind::AlreadyExists);
        // The machine was started anew: what lay in memory is gone.
        fs::remove_dir_all(&containers.runroot).unwrap();
        assert_eq!(taken().unwrap_err().kind(), Kind::AlreadyExists);
        let kept = containers.find("web").unwrap();
        assert_eq!(kept.status().unwrap(), Status::Lost);
        containers.remove(&kept).unwrap();
        taken().unwrap();
    }

    #[test]
    fn ids_are_found_by_their_beginning_if_there_is_one_such() {
        let (_dir, containers) = containers();
        let mut other = record('a', None, false);
        other.id.replace_range(10.., &"b".repeat(54));
        let _first = containers.create(&record('a', None, false), false).unwrap();
        let _second = containers.create(&other, false).unwrap();
        assert!(matches!(
            containers.find("aaaa"),
            Err(ContainerError::Ambiguous { .. })
        ));
        assert_eq!(
            containers.find(&other.id[..11]).unwrap().record.id,
            other.id
        );
        for wanted in ["", "..", "../..", "names", "c"] {
            assert!(
                matches!(containers.find(wanted), Err(ContainerError::Unknown { .. })),
                "{wanted}"
            );
        }
    }
}
