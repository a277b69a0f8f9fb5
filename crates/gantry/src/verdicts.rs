// SPDX-License-Identifier: Apache-2.0
//! Admissions that are still in force: `RUNROOT/verdicts/<64 hexadecimal digits>`.
//!
//! What stands here saves checking signatures at each start, so whoever can write here decides what runs. The
//! directory and each file must belong to the user who runs the command, and be closed to everybody else; anything
//! else is as if nothing were remembered. RUNROOT goes with the next boot, and the verdicts with it.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_sys::publish;
use gantry_sys::root::RootDir;
use gantry_trust::Memory;
use gantry_trust::admit::{QuestionKey, Remembered};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::commands::container::launch::random_id;

const FORMAT: u64 = 1;
/// What a file has at most.
const FILE_MAX_BYTES: u64 = 1024;
/// With more than these, those of old policies are surely among them.
const FILES_MAX: usize = 4096;

/// The admissions of one RUNROOT.
#[derive(Debug)]
pub struct Verdicts {
    path: PathBuf,
}

/// One file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    format: u64,
    key: String,
    decided_ns: u64,
    holds_until_ns: Option<u64>,
    made_ns: Option<u64>,
}

impl Verdicts {
    /// The admissions below `runroot`. Nothing is made before the first is kept.
    pub fn new(runroot: &Path) -> Self {
        Self {
            path: runroot.join("verdicts"),
        }
    }

    /// The directory, if it can be relied on.
    fn open(&self) -> io::Result<RootDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        if !is_ours(&dir.metadata()?) {
            let why = format!("{} is not ours alone", self.path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(RootDir::from_fd(dir.into()))
    }

    fn read(&self, key: &QuestionKey) -> Option<Remembered> {
        let path = key.hex();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self.open().ok()?;
        let file = File::from(file.open(path.as_bytes(), flags, Mode::empty()).ok()?);
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || !is_ours(&metadata) || metadata.len() > FILE_MAX_BYTES {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX_BYTES).read_to_end(&mut bytes).ok()?;
        let verdict: Verdict = serde_json::from_slice(&bytes).ok()?;
        if verdict.format != FORMAT || verdict.key != path {
            return None;
        }
        let time = |ns: u64| UNIX_EPOCH.checked_add(Duration::from_nanos(ns));
        let optional = |ns: Option<u64>| ns.map_or(Some(None), |ns| time(ns).map(Some));
        Some(Remembered {
            decided: time(verdict.decided_ns)?,
            holds_until: optional(verdict.holds_until_ns)?,
            made: optional(verdict.made_ns)?,
        })
    }

    fn write(&self, key: &QuestionKey, admission: &Remembered) -> io::Result<()> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(&self.path)?;
        let dir = self.open()?;
        let names = dir.list(b".")?;
        if names.len() > FILES_MAX {
            for name in names {
                dir.remove_file(&name)?;
            }
        }
        let temporary = format!(
            ".{}",
            random_id().map_err(|failure| io::Error::other(failure.sentence()))?
        );
        let mode = Mode::RUSR | Mode::WUSR;
        let bytes = serde_json::to_vec(&Verdict::of(key, admission)?)?;
        publish::atomic_write_volatile(
            &dir,
            key.hex().as_bytes(),
            temporary.as_bytes(),
            mode,
            &bytes,
        )?;
        Ok(())
    }
}

impl Verdict {
    fn of(key: &QuestionKey, admission: &Remembered) -> io::Result<Self> {
        let optional = |time: Option<SystemTime>| time.map(ns).transpose();
        Ok(Self {
            format: FORMAT,
            key: key.hex(),
            decided_ns: ns(admission.decided)?,
            holds_until_ns: optional(admission.holds_until)?,
            made_ns: optional(admission.made)?,
        })
    }
}

impl Memory for Verdicts {
    fn recall(&self, key: &QuestionKey) -> Option<Remembered> {
        self.read(key)
    }

    fn remember(&self, key: &QuestionKey, admission: &Remembered) {
        if let Err(error) = self.write(key, admission) {
            tracing::debug!("keep a verdict: {error}");
        }
    }
}

fn ns(time: SystemTime) -> io::Result<u64> {
    let since = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    u64::try_from(since.as_nanos()).map_err(io::Error::other)
}

/// Owned by the user of this process and by nobody else to read or write.
fn is_ours(metadata: &std::fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use gantry_oci::Limits;
    use gantry_trust::admit::Authority;
    use gantry_trust::policy::Policy;
    use gantry_trust::{Extra, Question, Subject};

    use super::*;

    fn key(salt: &str) -> QuestionKey {
        let policy = Policy::insecure().load_keys(&Limits::DEFAULT);
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],
            "annotations":{{"salt":"{salt}"}}}}"#
        );
        let manifest = gantry_image::UnverifiedManifest::new(text.into(), None, None);
        let question = Question {
            subject: &Subject::tarball(),
            manifest: &manifest.verify(None, &Limits::DEFAULT).unwrap(),
            chosen_from: None,
            signatures: &[],
            now: SystemTime::now(),
            circumstances: gantry_trust::extra::Circumstances::default(),
        };
        Authority::new(policy, Extra::default()).key(&question)
    }

    fn some() -> Remembered {
        let at = |s| UNIX_EPOCH + Duration::new(s, 7);
        Remembered {
            decided: at(1000),
            holds_until: Some(at(2000)),
            made: None,
        }
    }

    #[test]
    fn what_is_remembered_comes_back_and_nothing_is_made_before() {
        let dir = tempfile::tempdir().unwrap();
        let runroot = dir.path().join("run");
        let verdicts = Verdicts::new(&runroot);
        assert_eq!(verdicts.recall(&key("a")), None);
        assert!(!runroot.exists());
        verdicts.remember(&key("a"), &some());
        assert_eq!(verdicts.recall(&key("a")), Some(some()));
        assert_eq!(verdicts.recall(&key("b")), None);
        let names = fs::read_dir(runroot.join("verdicts")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [key("a").hex().as_str()]);
    }

    #[test]
    fn times_that_no_file_can_hold_are_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::new(dir.path());
        let early = Remembered {
            made: UNIX_EPOCH.checked_sub(Duration::from_secs(1)),
            ..some()
        };
        verdicts.remember(&key("a"), &early);
        assert_eq!(verdicts.recall(&key("a")), None);
    }

    #[test]
    fn files_that_are_not_ours_alone_say_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::new(dir.path());
        let file = dir.path().join("verdicts").join(key("a").hex());
        let spoil = |how: &dyn Fn()| {
            verdicts.remember(&key("a"), &some());
            assert!(verdicts.recall(&key("a")).is_some());
            how();
            assert_eq!(verdicts.recall(&key("a")), None);
            fs::set_permissions(dir.path().join("verdicts"), Permissions::from_mode(0o700))
                .unwrap();
        };
        let chmod =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let edit = |from: &str, to: &str| {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&file, text.replace(from, to)).unwrap();
        };
        spoil(&|| chmod(&file, 0o620));
        spoil(&|| chmod(&file, 0o602));
        spoil(&|| chmod(file.parent().unwrap(), 0o770));
        spoil(&|| edit(&key("a").hex(), &key("b").hex()));
        spoil(&|| edit("\"format\":1", "\"format\":2"));
        spoil(&|| edit("{", "{\"more\":1,"));
        spoil(&|| edit("}", ""));
        spoil(&|| fs::write(&file, "").unwrap());
        spoil(&|| fs::write(&file, " ".repeat(2000)).unwrap());
        spoil(&|| {
            let elsewhere = dir.path().join("elsewhere");
            fs::rename(&file, &elsewhere).unwrap();
            symlink(&elsewhere, &file).unwrap();
        });
        if rustix::process::geteuid().is_root() {
            spoil(&|| std::os::unix::fs::chown(&file, Some(65534), None).unwrap());
            let dir = file.parent().unwrap();
            spoil(&|| std::os::unix::fs::chown(dir, Some(65534), None).unwrap());
        }
    }

    #[test]
    fn a_directory_that_is_a_link_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::new(dir.path());
        verdicts.remember(&key("a"), &some());
        fs::rename(dir.path().join("verdicts"), dir.path().join("other")).unwrap();
        symlink("other", dir.path().join("verdicts")).unwrap();
        assert_eq!(verdicts.recall(&key("a")), None);
    }

    #[test]
    fn too_many_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::new(dir.path());
        verdicts.remember(&key("a"), &some());
        for number in 0..=FILES_MAX {
            fs::write(dir.path().join(format!("verdicts/{number}")), "").unwrap();
        }
        verdicts.remember(&key("b"), &some());
        assert_eq!(verdicts.recall(&key("a")), None);
        assert_eq!(verdicts.recall(&key("b")), Some(some()));
        let left = fs::read_dir(dir.path().join("verdicts")).unwrap().count();
        assert_eq!(left, 1);
    }
}
