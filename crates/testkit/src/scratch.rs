// SPDX-License-Identifier: Apache-2.0
//! Temporary directories on a file system with known properties.
//!
//! A container store leans on its file system: xattrs, hard links, device nodes, the cost of a small file, being usable
//! under an EROFS file mount. What `/tmp` is differs from machine to machine (a tmpfs, an overlay, something slow), so
//! tests and benches run on an ext4 of their own:
//!
//! ```text
//! $GANTRY_SCRATCH_BACKING | $TMPDIR | /var/tmp
//!   └─ gantry-scratch-XXXX/disk      sparse file, ext4, loop device
//!      gantry-scratch-XXXX/mnt/      mounted here; one per process
//!         └─ XXXX/                   one per Scratch, deleted with it
//! ```
//!
//! The mount ends with the process, however it ends: a janitor (a small shell) waits for the end of a pipe that only
//! the process holds, then unmounts and deletes. `GANTRY_SCRATCH=DIR` uses a directory that exists, without any mount;
//! so does a process without privileges, which falls back to the temporary directory and says so once.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};

/// Apparent size of the file system; the backing file is sparse.
const DISK_SIZE_BYTES: u64 = 24 << 30;

/// A directory that is deleted when the value is dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
    stock_ext4: bool,
}

impl Scratch {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether this is the ext4 made for the purpose, and not the machine's temporary directory.
    pub fn is_stock_ext4(&self) -> bool {
        self.stock_ext4
    }
}

/// Makes a temporary directory on the process's scratch file system, which the first call mounts.
///
/// # Panics
/// If no directory can be made at all.
#[expect(clippy::expect_used, reason = "every test would end here anyway")]
pub fn scratch() -> Scratch {
    let base = base();
    let dir = tempfile::TempDir::new_in(&base.path).expect("make a temporary directory");
    Scratch {
        dir,
        stock_ext4: base.stock_ext4,
    }
}

/// Where the process's scratch directories lie.
struct Base {
    path: PathBuf,
    stock_ext4: bool,
    /// Never dropped (a static is not); its janitor sees the process end.
    _disk: Option<Disk>,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        if let Some(dir) = std::env::var_os("GANTRY_SCRATCH") {
            return Base {
                path: dir.into(),
                stock_ext4: true,
                _disk: None,
            };
        }
        if !crate::skip::is_root() {
            return fallback("not root, so no loop mount");
        }
        match Disk::create(&backing_dir(), DISK_SIZE_BYTES) {
            Ok(disk) => {
                let path = disk.mount_point.clone();
                Base {
                    path,
                    stock_ext4: true,
                    _disk: Some(disk),
                }
            }
            Err(error) => fallback(&format!("{error:#}")),
        }
    })
}

fn fallback(reason: &str) -> Base {
    let path = std::env::temp_dir();
    let line = format!("scratch: using {}: {reason}\n", path.display());
    drop(std::io::stderr().write_all(line.as_bytes()));
    Base {
        path,
        stock_ext4: false,
        _disk: None,
    }
}

fn backing_dir() -> PathBuf {
    ["GANTRY_SCRATCH_BACKING", "TMPDIR"]
        .iter()
        .find_map(std::env::var_os)
        .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// An ext4 of a given size in a sparse file, mounted until the value is dropped or the process ends.
///
/// For tests that need a file system of their own: a full disk, a read-only one, another device.
#[derive(Debug)]
pub struct Disk {
    mount_point: PathBuf,
    janitor: Child,
}

impl Disk {
    /// Makes and mounts an ext4 of `size_bytes` in the scratch backing directory.
    ///
    /// # Privileges
    /// Needs `CAP_SYS_ADMIN` and a free loop device.
    pub fn new(size_bytes: u64) -> Result<Self> {
        Self::create(&backing_dir(), size_bytes)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    fn create(backing: &Path, size_bytes: u64) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("gantry-scratch-")
            .tempdir_in(backing)
            .with_context(|| format!("make a directory in {}", backing.display()))?
            .keep();
        let (disk, mount_point) = (dir.join("disk"), dir.join("mnt"));
        // Started before anything that it would have to undo.
        let janitor = start_janitor(&dir)?;
        let made = Self {
            mount_point,
            janitor,
        };
        std::fs::create_dir(&made.mount_point)?;
        std::fs::File::create(&disk)?.set_len(size_bytes)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1"])
            .arg(&disk))?;
        // Direct I/O keeps the pages from being cached twice; not every backing file system offers it.
        let device = losetup(&disk, true).or_else(|_| losetup(&disk, false))?;
        let mounted = run(Command::new("mount")
            .args(["-t", "ext4", "-o", "noatime", &device])
            .arg(&made.mount_point));
        // The device lives as long as the mount from here on.
        run(Command::new("losetup").args(["-d", &device]))?;
        mounted?;
        Ok(made)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        drop(self.janitor.wait());
    }
}

fn losetup(disk: &Path, direct_io: bool) -> Result<String> {
    let mut command = Command::new("losetup");
    command.args(["-f", "--show"]);
    if direct_io {
        command.arg("--direct-io=on");
    }
    run(command.arg(disk))
}

/// Starts the process that unmounts `dir/mnt` and deletes `dir` once our end of its standard input is closed.
fn start_janitor(dir: &Path) -> Result<Child> {
    const SCRIPT: &str = r#"trap '' INT TERM HUP QUIT
read -r _ || :
cd /
umount "$1/mnt" 2>/dev/null || umount -l "$1/mnt" 2>/dev/null
rm -rf --one-file-system "$1""#;
    Command::new("sh")
        .args(["-c", SCRIPT, "scratch-janitor"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the scratch janitor")
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let stdout = String::from_utf8(output.stdout)?;
    ensure!(stdout.len() < 4096, "{command:?} printed too much");
    Ok(stdout.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_writable_and_deleted() {
        let scratch = scratch();
        let path = scratch.path().to_owned();
        std::fs::write(scratch.join("a"), b"a").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn privileged_disk_is_limited_and_unmounted() {
        if !crate::skip::is_root() {
            crate::skip!("needs root to mount a loop device");
        }
        let disk = match Disk::new(16 << 20) {
            Ok(disk) => disk,
            Err(error) => crate::skip!("no loop mounts here: {error:#}"),
        };
        let path = disk.path().to_owned();
        let error = std::fs::write(path.join("big"), vec![0; 32 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        drop(disk);
        assert!(!path.exists());
    }
}
