// SPDX-License-Identifier: Apache-2.0
//! Creating and opening a store.
//!
//! A store is a directory with a marker. Opening for writing reclaims what dead processes left in
//! staging. Opening read-only writes nothing, takes no lock, and asks only for what readers need:
//! it works on a read-only mount of another host's store.

use crate::error::{Doing as _, StoreError};
use crate::layout;
use gantry_oci::{Host, Limits};
use gantry_sys::probe::KernelFeatures;
use gantry_sys::proc::Proc;
use gantry_sys::publish;
use gantry_sys::root::RootDir;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const FORMAT: u64 = 1;
/// A marker is far smaller; a bigger file is something else.
const MARKER_MAX_BYTES: u64 = 64 << 10;

/// How a store is created.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The registry (`host:port`) whose names stand in `images/`.
    pub registry: Option<Host>,
    /// Whether other users, and so clients of a network file system, may read it.
    pub shared: bool,
}

/// A directory that holds objects, images and their names.
///
/// Cheap to clone; may be used by many threads and processes at once.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) path: PathBuf,
    pub(crate) root: RootDir,
    pub(crate) marker: Marker,
    pub(crate) writable: bool,
    pub(crate) limits: Limits,
    features: OnceLock<KernelFeatures>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) format: u64,
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registry: Option<Host>,
    #[serde(default)]
    pub(crate) shared: bool,
    #[serde(default)]
    pub(crate) seal: Seal,
}

/// Whether what comes into a store is sealed with fs-verity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seal {
    /// No: contents are verified when they come in, and by checks.
    #[default]
    Off,
    /// Where the file system can.
    Try,
    /// Always: an image that cannot be sealed does not come in.
    Require,
}

impl Store {
    /// Creates a store in `path`, a directory that is missing or empty.
    ///
    /// # Concurrency
    /// Of several creators one makes the marker; the others open its store.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the directory holds something else.
    pub fn create(path: &Path, options: &CreateOptions) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).doing(|| format!("create directory {}", path.display()))?;
        let root = open_root(path)?;
        if read_marker(&root, path)?.is_none() {
            let names = root
                .list(b".")
                .doing(|| format!("list {}", path.display()))?;
            // A creator that was killed may have left directories of ours and no marker, and who only runs images
            // of shares has no store yet.
            let ours = |name: &Vec<u8>| {
                layout::PUBLIC_DIRS
                    .iter()
                    .chain(&layout::PRIVATE_DIRS)
                    .chain([&layout::TRUST])
                    .any(|ours| ours.as_bytes() == name.as_slice())
                    || name.starts_with(b".gantry-store.")
                    || name == b"lost+found"
            };
            if let Some(foreign) = names.iter().find(|name| !ours(name)) {
                return Err(StoreError::Conflict {
                    what: format!("store {}", path.display()),
                    why: format!("directory holds {:?}", String::from_utf8_lossy(foreign)),
                });
            }
            write_skeleton(&root, path, options)?;
        }
        Self::open(path)
    }

    /// Opens the store in `path` for reading and writing.
    ///
    /// # Errors
    /// [`StoreError::NotAStore`], [`StoreError::Format`], or the kernel's refusal.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_limited(path, Limits::DEFAULT)
    }

    /// Opens the store in `path` for reading and writing, with other caps on images than the usual ones.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_limited(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let store = Self::open_with(path, true, limits)?;
        store.reclaim_staging()?;
        Ok(store)
    }

    /// Opens the store in `path`, creating it if there is none.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`open`](Self::open).
    pub fn open_or_create(path: &Path, options: &CreateOptions) -> Result<Self, StoreError> {
        match Self::open(path) {
            Err(error) if error.kind() == gantry_oci::Kind::NotFound => Self::create(path, options),
            other => other,
        }
    }

    /// Opens the store in `path` without ever writing to it.
    ///
    /// # Errors
    /// [`StoreError::NotAStore`], [`StoreError::Format`], or the kernel's refusal.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, false, Limits::DEFAULT)
    }

    fn open_with(path: &Path, writable: bool, limits: Limits) -> Result<Self, StoreError> {
        let root = match open_root(path) {
            Err(error) if error.kind() == gantry_oci::Kind::NotFound => {
                return Err(StoreError::NotAStore { path: path.into() });
            }
            other => other?,
        };
        let marker =
            read_marker(&root, path)?.ok_or_else(|| StoreError::NotAStore { path: path.into() })?;
        let path = absolute(path)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                root,
                marker,
                writable,
                limits,
                features: OnceLock::new(),
            }),
        })
    }

    /// Where the store lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The id that the store was created with.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.marker.id
    }

    /// The version of the layout on disk.
    #[must_use]
    pub fn format(&self) -> u64 {
        self.inner.marker.format
    }

    /// The registry whose own store this is.
    #[must_use]
    pub fn registry(&self) -> Option<&Host> {
        self.inner.marker.registry.as_ref()
    }

    /// Whether images are sealed when they come in.
    #[must_use]
    pub fn seal(&self) -> Seal {
        self.inner.marker.seal
    }

    /// Decides for all who write to this store, from their next opening on, whether images are sealed.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]; the kernel's refusal.
    pub fn set_seal(&self, seal: Seal) -> Result<(), StoreError> {
        let action = || format!("change store {}", self.path().display());
        self.must_be_writable(action)?;
        let marker = Marker {
            seal,
            ..self.inner.marker.clone()
        };
        publish::atomic_write(
            &self.inner.root,
            layout::MARKER.as_bytes(),
            format!(".gantry-store.{}", random_id()?).as_bytes(),
            layout::PUBLIC_FILE,
            &encode_marker(&marker).doing(action)?,
        )
        .doing(action)
    }

    /// Whether this handle may change the store.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.inner.writable
    }

    /// The store's directory, for those that keep state of their own below it.
    #[must_use]
    pub fn root(&self) -> &RootDir {
        &self.inner.root
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// What the kernel can do, asked when the store was opened.
    #[must_use]
    pub fn features(&self) -> &KernelFeatures {
        self.inner.features.get_or_init(KernelFeatures::probe)
    }

    pub(crate) fn must_be_writable(
        &self,
        action: impl FnOnce() -> String,
    ) -> Result<(), StoreError> {
        if self.inner.writable {
            Ok(())
        } else {
            Err(StoreError::ReadOnly { action: action() })
        }
    }

    pub(crate) fn dir(&self, name: &str) -> Result<RootDir, StoreError> {
        self.inner
            .root
            .open_dir(name.as_bytes())
            .doing(|| format!("open {}", self.inner.path.join(name).display()))
    }

    /// Lists a directory of the store that a read-only mount may lack.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, StoreError> {
        match self.inner.root.list(name.as_bytes()) {
            Ok(names) => Ok(names
                .into_iter()
                .filter_map(|name| String::from_utf8(name).ok())
                .collect()),
            Err(error) if error.is(rustix::io::Errno::NOENT) => Ok(Vec::new()),
            Err(error) => Err(error).doing(|| format!("list {}", self.path().join(name).display())),
        }
    }

    /// Reads a small file of the store; `None` if it is missing.
    pub(crate) fn read_small(
        &self,
        path: &str,
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        read_small(&self.inner.root, path, limit_bytes)
    }

    pub(crate) fn boot_id() -> Result<String, StoreError> {
        Proc::open()
            .and_then(|proc| proc.boot_id())
            .doing(|| "read the boot id".to_owned())
    }
}

fn open_root(path: &Path) -> Result<RootDir, StoreError> {
    RootDir::open_trusted(path).doing(|| format!("open store {}", path.display()))
}

fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).doing(|| format!("resolve {}", path.display()))
}

fn write_skeleton(root: &RootDir, path: &Path, options: &CreateOptions) -> Result<(), StoreError> {
    let mode = if options.shared {
        layout::PUBLIC
    } else {
        layout::PRIVATE
    };
    let action = || format!("create store {}", path.display());
    rustix::fs::fchmod(root, mode).doing(action)?;
    for (names, mode) in [
        (layout::PUBLIC_DIRS.as_slice(), layout::PUBLIC),
        (layout::PRIVATE_DIRS.as_slice(), layout::PRIVATE),
    ] {
        for name in names {
            let dir = root.ensure_dir(name.as_bytes(), mode).doing(action)?;
            rustix::fs::fchmod(&dir, mode).doing(action)?;
        }
    }
    let id = random_id()?;
    let marker = Marker {
        format: FORMAT,
        id: id.clone(),
        registry: options.registry.clone(),
        shared: options.shared,
        seal: Seal::Off,
    };
    let bytes = encode_marker(&marker).doing(action)?;
    let temporary = format!(".gantry-store.{id}");
    publish::write_new_file(root, temporary.as_bytes(), layout::PUBLIC_FILE, &bytes)
        .doing(action)?;
    publish::rename_noreplace(root, temporary.as_bytes(), root, layout::MARKER.as_bytes())
        .doing(action)?;
    // Another creator may have been quicker; its marker stands.
    root.remove_file(temporary.as_bytes()).doing(action)?;
    publish::sync_dir(root).doing(action)
}

fn encode_marker(marker: &Marker) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(marker)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn read_marker(root: &RootDir, path: &Path) -> Result<Option<Marker>, StoreError> {
    let Some(bytes) = read_small(root, layout::MARKER, MARKER_MAX_BYTES)? else {
        return Ok(None);
    };
    let marker: Marker = serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt {
        what: path.join(layout::MARKER).display().to_string(),
        why: error.to_string(),
    })?;
    if marker.format != FORMAT {
        return Err(StoreError::Format {
            path: path.into(),
            found: marker.format,
        });
    }
    Ok(Some(marker))
}

pub(crate) fn read_small(
    root: &RootDir,
    path: &str,
    limit_bytes: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match root.open_file(path.as_bytes()) {
        Err(error) if error.is(rustix::io::Errno::NOENT) => return Ok(None),
        other => other.doing(|| format!("open {path}"))?,
    };
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .doing(|| format!("read {path}"))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(StoreError::Corrupt {
            what: path.to_owned(),
            why: format!("longer than {limit_bytes} bytes"),
        });
    }
    Ok(Some(bytes))
}

/// Sixteen random bytes in hexadecimal.
pub(crate) fn random_id() -> Result<String, StoreError> {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 16];
    let length = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .doing(|| "read random bytes".to_owned())?;
    if length != bytes.len() {
        return Err(StoreError::Io {
            action: "read random bytes".to_owned(),
            source: std::io::ErrorKind::UnexpectedEof.into(),
        });
    }
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    }))
}

/// Makes sure that `mode` is what the directory has, whatever the umask.
pub(crate) fn ensure_dir(root: &RootDir, path: &str, mode: Mode) -> Result<RootDir, StoreError> {
    let dir = root
        .ensure_dir(path.as_bytes(), mode)
        .doing(|| format!("create directory {path}"))?;
    let stat = rustix::fs::fstat(dir.as_fd()).doing(|| format!("stat {path}"))?;
    if Mode::from_raw_mode(stat.st_mode) != mode {
        rustix::fs::fchmod(&dir, mode).doing(|| format!("set the mode of {path}"))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_oci::Kind;

    #[test]
    fn creating_twice_opens_the_same_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let one = Store::create(&path, &CreateOptions::default()).unwrap();
        let two = Store::open_or_create(&path, &CreateOptions::default()).unwrap();
        assert_eq!(one.id(), two.id());
    }

    #[test]
    fn foreign_directories_are_neither_taken_nor_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "x").unwrap();
        let error = Store::create(dir.path(), &CreateOptions::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyExists);
        assert_eq!(Store::open(dir.path()).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(
            Store::open(&dir.path().join("no")).unwrap_err().kind(),
            Kind::NotFound
        );
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        Store::create(&path, &CreateOptions::default()).unwrap();
        std::fs::write(path.join(layout::MARKER), r#"{"format":2,"id":"x"}"#).unwrap();
        assert_eq!(Store::open(&path).unwrap_err().kind(), Kind::Unsupported);
    }
}
