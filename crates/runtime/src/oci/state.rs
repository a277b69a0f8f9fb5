// SPDX-License-Identifier: Apache-2.0
//! Containers of this runtime on disk.
//!
//! ```text
//! ROOT/ID/config.json   the document, byte for byte as it was read
//!         state.json    who and where: written before anything else is made, and again with the pid
//!         start.sock    while the container is created and not started
//! ```
//!
//! What a container is doing is not stored but looked up: a pid with its start time names a process for
//! good.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gantry_sys::Errno;
use gantry_sys::proc::Proc;
use gantry_sys::root::{RootDir, remove_tree};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::error::{Doing as _, RuntimeError};

const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
/// The socket on which a created container waits.
pub(super) const START_SOCKET: &str = "start.sock";
const ID_MAX: usize = 1024;

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made, or left behind by a runtime that died while making it.
    Creating,
    /// Made; its program waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// What `state.json` holds: runc's members, and ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The version of the document.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Its first process; 0 before there is one.
    pub pid: u32,
    /// The bundle.
    pub bundle: PathBuf,
    /// The root file system on the host.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Whoever made it.
    pub owner: String,
    /// As in the document.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When its first process was started, in ticks since boot.
    #[serde(default)]
    pub start_time: u64,
    /// Its class of cache and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resctrl: Option<super::resctrl::Resctrl>,
    /// Its control group, as [`super::cgroup`] describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<serde_json::Value>,
}

/// What `state` prints: runc's document.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateDocument<'a> {
    /// The version of the document.
    pub oci_version: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Its first process; 0 when it has ended.
    pub pid: u32,
    /// What it is doing.
    pub status: Status,
    /// The bundle.
    pub bundle: &'a Path,
    /// The root file system.
    pub rootfs: &'a Path,
    /// When it was made.
    pub created: &'a str,
    /// As in the document.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    /// Whoever made it.
    pub owner: &'a str,
}

impl Record {
    /// The document for hooks and for `state`.
    #[must_use]
    pub fn document(&self, status: Status) -> StateDocument<'_> {
        StateDocument {
            oci_version: &self.oci_version,
            id: &self.id,
            pid: if status == Status::Stopped {
                0
            } else {
                self.pid
            },
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner: &self.owner,
        }
    }
}

/// The directory of one container.
#[derive(Debug)]
pub struct StateDir {
    dir: OwnedFd,
    root: PathBuf,
    id: String,
}

/// Accepts what runc accepts as an id.
///
/// # Errors
/// It is none.
pub fn check_id(id: &str) -> Result<(), RuntimeError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if !id.is_empty() && id.len() <= ID_MAX && id != "." && id != ".." && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(RuntimeError::InvalidId { id: id.to_owned() })
}

impl StateDir {
    /// Makes the directory of a container that does not exist yet.
    ///
    /// # Errors
    /// There is one; the kernel's refusal.
    pub fn create(root: &Path, id: &str) -> Result<Self, RuntimeError> {
        check_id(id)?;
        let path = root.join(id);
        let make = || rustix::fs::mkdir(&path, Mode::RWXU);
        let made = match make() {
            Err(Errno::NOENT) => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(root)
                    .doing(|| format!("create {}", root.display()))?;
                make()
            }
            other => other,
        };
        match made {
            Err(Errno::EXIST) => return Err(RuntimeError::Exists { id: id.to_owned() }),
            other => other.doing(|| format!("create {}", path.display()))?,
        }
        Self::open(root, id)
    }

    /// Opens the directory of a container.
    ///
    /// # Errors
    /// There is none; the kernel's refusal.
    pub fn open(root: &Path, id: &str) -> Result<Self, RuntimeError> {
        check_id(id)?;
        let path = root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Self {
                dir,
                root: root.to_owned(),
                id: id.to_owned(),
            }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(RuntimeError::NotFound { id: id.to_owned() }),
            Err(errno) => Err(errno).doing(|| format!("open {}", path.display())),
        }
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RuntimeError> {
        let doing = || format!("write {name} of container {}", self.id);
        let staged = format!("{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&self.dir, &staged, flags, Mode::RUSR | Mode::WUSR).doing(doing)?;
        fs::File::from(file).write_all(bytes).doing(doing)?;
        rustix::fs::renameat(&self.dir, &staged, &self.dir, name).doing(doing)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, RuntimeError> {
        use std::io::Read as _;
        let doing = || format!("read {name} of container {}", self.id);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.doing(doing)?,
        };
        let mut bytes = Vec::new();
        fs::File::from(file).read_to_end(&mut bytes).doing(doing)?;
        Ok(Some(bytes))
    }

    /// Keeps the document.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn write_config(&self, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.write(CONFIG, bytes)
    }

    /// The document as it was when the container was made.
    ///
    /// # Errors
    /// The kernel's refusal; it is not there, since the runtime died while making the container.
    pub fn config(&self) -> Result<Vec<u8>, RuntimeError> {
        self.read(CONFIG)?.ok_or_else(|| RuntimeError::Status {
            verb: "use",
            id: self.id.clone(),
            status: Status::Creating,
        })
    }

    /// Writes what is known; replaces at once.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn write_record(&self, record: &Record) -> Result<(), RuntimeError> {
        let bytes = serde_json::to_vec(record)
            .map_err(std::io::Error::from)
            .doing(|| format!("write the state of container {}", self.id))?;
        self.write(STATE, &bytes)
    }

    /// Reads what is known; `None` when the runtime died before it knew anything.
    ///
    /// # Errors
    /// The kernel's refusal; what is there makes no sense.
    pub fn record(&self) -> Result<Option<Record>, RuntimeError> {
        let Some(bytes) = self.read(STATE)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(std::io::Error::from)
            .doing(|| format!("read the state of container {}", self.id))
    }

    /// The record of a container that is complete.
    ///
    /// # Errors
    /// As [`record`](Self::record), or there is none.
    pub fn expect_record(&self) -> Result<Record, RuntimeError> {
        self.record()?.ok_or_else(|| RuntimeError::NotFound {
            id: self.id.clone(),
        })
    }

    /// What the container is doing, as far as processes tell.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn status(&self, record: &Record) -> Result<Status, RuntimeError> {
        if record.pid == 0 {
            return Ok(Status::Creating);
        }
        if !is_alive(record)? {
            return Ok(Status::Stopped);
        }
        let waits = rustix::fs::statat(
            &self.dir,
            START_SOCKET,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        );
        Ok(match waits {
            Ok(_) => Status::Created,
            Err(_) => Status::Running,
        })
    }

    /// Removes everything that is kept of the container; somebody else may have done it meanwhile.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(self) -> Result<(), RuntimeError> {
        let root = RootDir::open_trusted(&self.root).doing(|| "open the state directory")?;
        match remove_tree(root.as_fd(), self.id.as_bytes()) {
            Err(error) if error.is(Errno::NOENT) => Ok(()),
            other => other.doing(|| format!("remove the state of container {}", self.id)),
        }
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Whether the container's first process is there and has not ended.
///
/// # Errors
/// The kernel's refusal.
pub fn is_alive(record: &Record) -> Result<bool, RuntimeError> {
    let proc = Proc::open().doing(|| "open /proc")?;
    let found = proc
        .process(record.pid)
        .doing(|| format!("look at process {}", record.pid))?;
    Ok(found.is_some_and(|found| found.start_time == record.start_time && !found.is_zombie()))
}

/// The ids of all containers below `root`.
///
/// # Errors
/// The kernel's refusal.
pub fn list(root: &Path) -> Result<Vec<String>, RuntimeError> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("list {}", root.display()))?,
    };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| check_id(name).is_ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Writes a pid file: complete, or not there.
///
/// # Errors
/// The kernel's refusal.
pub fn write_pid_file(path: &Path, pid: u32) -> Result<(), RuntimeError> {
    let doing = || format!("write the pid to {}", path.display());
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let staged = path.with_file_name(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&staged)
        .doing(doing)?;
    file.write_all(pid.to_string().as_bytes()).doing(doing)?;
    fs::rename(&staged, path).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            oci_version: "1.0.2".into(),
            id: "c1".into(),
            pid: std::process::id(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            owner: String::new(),
            annotations: BTreeMap::new(),
            start_time: 0,
            resctrl: None,
            cgroup: None,
        }
    }

    #[test]
    fn ids_are_those_of_runc() {
        for good in ["a", "A-b_c+d.e", "0", "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"x".repeat(1025)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn container_lives_once_and_is_gone_after() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/root");
        let state = StateDir::create(&root, "c1").unwrap();
        assert!(matches!(
            StateDir::create(&root, "c1"),
            Err(RuntimeError::Exists { .. })
        ));
        assert_eq!(state.record().unwrap(), None);
        state.write_record(&record()).unwrap();
        assert_eq!(state.expect_record().unwrap(), record());
        // The pid is somebody's, but not of that time.
        assert_eq!(state.status(&record()).unwrap(), Status::Stopped);
        assert_eq!(list(&root).unwrap(), ["c1"]);
        state.remove().unwrap();
        assert!(matches!(
            StateDir::open(&root, "c1"),
            Err(RuntimeError::NotFound { .. })
        ));
    }
}
