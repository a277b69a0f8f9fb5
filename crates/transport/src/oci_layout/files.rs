// SPDX-License-Identifier: Apache-2.0
//! The files of a layout. Blocking; called on the blocking pool.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_image::EndpointError;
use gantry_oci::{Digest, Index, Kind, Limits};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::LayoutOptions;

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A layout's directory and where its blobs lie.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: PathBuf,
    blobs: PathBuf,
    pub(super) limits: Limits,
    sync: bool,
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> EndpointError {
    let message = format!("{action} {}", path.display());
    move |error| EndpointError::io(message, error)
}

impl Files {
    pub(super) fn new(dir: PathBuf, options: &LayoutOptions) -> Self {
        let blobs = options
            .shared_blob_dir
            .clone()
            .unwrap_or_else(|| dir.join("blobs"));
        Self {
            dir,
            blobs,
            limits: options.limits,
            sync: !options.no_sync,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a blob lies; made from a parsed digest.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    /// Checks `oci-layout` and reads `index.json`.
    pub(super) fn load_index(&self) -> Result<Index, EndpointError> {
        self.check_version()?;
        let path = self.dir.join("index.json");
        super::parse_index(
            &read_small(&path, self.limits.manifest_bytes)?,
            &self.limits,
        )
    }

    fn check_version(&self) -> Result<(), EndpointError> {
        const LARGEST: u64 = 64 << 10;
        let path = self.dir.join(LAYOUT_FILE);
        let data = read_small(&path, LARGEST)?;
        let version = serde_json::from_slice::<serde_json::Value>(&data)
            .ok()
            .and_then(|value| value.get("imageLayoutVersion")?.as_str().map(str::to_owned));
        match version.as_deref() {
            Some("1.0.0") => Ok(()),
            Some(other) => Err(EndpointError::new(
                Kind::Unsupported,
                format!(
                    "layout {} has version {:?} instead of 1.0.0",
                    self.dir.display(),
                    crate::registry::error::printable(other)
                ),
            )),
            None => Err(EndpointError::new(
                Kind::Corrupt,
                format!("{} states no layout version", path.display()),
            )),
        }
    }

    /// Makes the directory a layout, or checks that it is one.
    pub(super) fn create(&self) -> Result<(), EndpointError> {
        for dir in [&self.dir, &self.blobs] {
            std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
        }
        let path = self.dir.join(LAYOUT_FILE);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => file.write_all(LAYOUT).map_err(failed("write", &path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Another writer may stand between creating and filling it.
                let empty = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0);
                if empty {
                    std::fs::write(&path, LAYOUT).map_err(failed("write", &path))
                } else {
                    self.check_version()
                }
            }
            Err(error) => Err(failed("create", &path)(error)),
        }
    }

    /// Opens a blob for reading; its size is what the file system says.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<(File, u64), EndpointError> {
        open_regular(&self.blob_path(digest))
    }

    /// Whether a blob of this size is there. Its contents are not read: they
    /// were verified before it got its name, or are by whoever reads it.
    pub(super) fn has_blob(&self, digest: &Digest, size_bytes: u64) -> bool {
        std::fs::metadata(self.blob_path(digest))
            .is_ok_and(|found| found.is_file() && found.len() == size_bytes)
    }

    /// Starts a blob that nobody can see yet.
    ///
    /// Where the file system can, it has no name at all, so that a writer that
    /// is killed leaves nothing behind; else it has a private one.
    pub(super) fn stage(&self) -> Result<Staged, EndpointError> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::open(&self.blobs, flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => Ok(Staged {
                path: None,
                file: file.into(),
            }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                self.stage_named()
            }
            Err(error) => Err(failed("create a file in", &self.blobs)(error.into())),
        }
    }

    fn stage_named(&self) -> Result<Staged, EndpointError> {
        let path = self.private_name();
        let file = create(&path)?;
        Ok(Staged {
            path: Some(path),
            file,
        })
    }

    fn private_name(&self) -> PathBuf {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.blobs
            .join(format!(".gantry-{}-{number}", std::process::id()))
    }

    /// Gives a staged file the name of its digest. What had that name before
    /// is replaced: it was either the same or wrong.
    pub(super) fn publish(&self, mut staged: Staged, digest: &Digest) -> Result<(), EndpointError> {
        let target = self.blob_path(digest);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
        }
        if staged.path.is_none() {
            match staged.link(&target) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("name blob", &target)(error)),
            }
            let path = self.private_name();
            staged.link(&path).map_err(failed("create", &path))?;
            staged.path = Some(path);
        }
        if let Some(path) = &staged.path {
            std::fs::rename(path, &target).map_err(failed("name blob", &target))?;
        }
        staged.path = None;
        Ok(())
    }

    /// Writes a small blob.
    pub(super) fn put_small(&self, digest: &Digest, data: &[u8]) -> Result<(), EndpointError> {
        if self.has_blob(digest, data.len() as u64) {
            return Ok(());
        }
        let mut staged = self.stage()?;
        staged.write_all(data)?;
        self.publish(staged, digest)
    }

    /// Changes `index.json` under the layout's lock, after the blobs are on
    /// the disk.
    pub(super) fn change_index(
        &self,
        change: impl FnOnce(&mut Index),
    ) -> Result<(), EndpointError> {
        let lock_path = self.dir.join(LAYOUT_FILE);
        let lock = File::open(&lock_path).map_err(failed("open", &lock_path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| failed("lock", &lock_path)(error.into()))?;
        let path = self.dir.join("index.json");
        let mut index = match read_small(&path, self.limits.manifest_bytes) {
            Ok(data) => super::parse_index(&data, &self.limits)?,
            Err(error) if error.kind() == Kind::NotFound => empty_index(),
            Err(error) => return Err(error),
        };
        change(&mut index);
        let data = serde_json::to_vec(&index).map_err(|error| {
            EndpointError::with_source(Kind::Internal, "encode index.json", error)
        })?;
        if data.len() as u64 > self.limits.manifest_bytes {
            return Err(EndpointError::new(
                Kind::Unsafe,
                format!("{} would become too large", path.display()),
            ));
        }
        self.sync_blobs()?;
        let mut staged = self.stage_index()?;
        staged.write_all(&data)?;
        if self.sync {
            staged.file.sync_all().map_err(failed("sync", &path))?;
        }
        if let Some(from) = staged.path.take() {
            std::fs::rename(&from, &path).map_err(failed("replace", &path))?;
        }
        if self.sync {
            File::open(&self.dir)
                .and_then(|dir| dir.sync_all())
                .map_err(failed("sync", &self.dir))?;
        }
        Ok(())
    }

    /// One sync for all blobs of an image, not one each.
    fn sync_blobs(&self) -> Result<(), EndpointError> {
        if !self.sync {
            return Ok(());
        }
        let dir = File::open(&self.blobs).map_err(failed("open", &self.blobs))?;
        rustix::fs::syncfs(&dir).map_err(|error| failed("sync", &self.blobs)(error.into()))
    }

    /// The new `index.json`; its lock is held, so its name is free.
    fn stage_index(&self) -> Result<Staged, EndpointError> {
        let path = self.dir.join(".index.json.gantry");
        let file = create(&path)?;
        Ok(Staged {
            path: Some(path),
            file,
        })
    }
}

fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(gantry_oci::MediaType::OciIndex),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: Default::default(),
    }
}

/// A file without its final name, or without any; gone if it never gets one.
#[derive(Debug)]
pub(super) struct Staged {
    path: Option<PathBuf>,
    file: File,
}

impl Staged {
    /// Names a file that has no name.
    fn link(&self, path: &Path) -> io::Result<()> {
        // The magic link is the way that needs no privilege; linkat(2).
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::linkat(
            CWD,
            own,
            CWD,
            path,
            AtFlags::SYMLINK_FOLLOW,
        )?)
    }

    pub(super) fn write_all(&mut self, data: &[u8]) -> Result<(), EndpointError> {
        self.file
            .write_all(data)
            .map_err(|error| EndpointError::io("write a file of the layout", error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A leftover is harmless: it has no name that anybody looks for.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Creates or empties a file that is no symlink.
fn create(path: &Path) -> Result<File, EndpointError> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::open(path, flags, mode)
        .map(File::from)
        .map_err(|error| failed("create", path)(error.into()))
}

/// Opens a regular file. A symlink is followed (some builders link blobs); a
/// FIFO or device behind it is not waited for.
fn open_regular(path: &Path) -> Result<(File, u64), EndpointError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|error| failed("open", path)(error.into()))?;
    let metadata = file.metadata().map_err(failed("look at", path))?;
    if !metadata.is_file() {
        return Err(EndpointError::new(
            Kind::Unsafe,
            format!("{} is not a regular file", path.display()),
        ));
    }
    Ok((file, metadata.len()))
}

/// Reads a file of at most `limit_bytes`.
pub(super) fn read_small(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, EndpointError> {
    let (file, size_bytes) = open_regular(path)?;
    let too_large = || {
        EndpointError::new(
            Kind::Unsafe,
            format!(
                "{} is larger than the {limit_bytes} bytes allowed",
                path.display()
            ),
        )
    };
    if size_bytes > limit_bytes {
        return Err(too_large());
    }
    let mut data = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut data)
        .map_err(failed("read", path))?;
    if data.len() as u64 > limit_bytes {
        Err(too_large())
    } else {
        Ok(data)
    }
}
