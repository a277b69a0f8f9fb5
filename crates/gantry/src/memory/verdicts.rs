// SPDX-License-Identifier: Apache-2.0
//! Admissions that are still in force: `RUNROOT/verdicts/<64 hexadecimal digits>`.
//!
//! What stands here saves checking signatures at each start. RUNROOT goes with the next boot, and the verdicts with it.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use gantry_sys::publish;
use gantry_trust::admit::{QuestionKey, Remembered};
use serde::{Deserialize, Serialize};

use super::private::{self, FILE_MODE, PrivateDir};
use crate::commands::container::launch::random_id;

const FORMAT: u64 = 2;
/// What a file has at most: most of it are names of signers.
const FILE_MAX_BYTES: u64 = 16 << 10;
/// With more than these, those of old policies are surely among them.
const FILES_MAX: usize = 4096;

/// The admissions of one RUNROOT.
#[derive(Debug)]
pub(super) struct Verdicts(PrivateDir);

/// One file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    format: u64,
    key: String,
    decided_ns: u64,
    holds_until_ns: Option<u64>,
    made_ns: Option<u64>,
    signers: Vec<String>,
}

impl Verdicts {
    /// The admissions below `runroot`. Nothing is made before the first is kept.
    pub(super) fn new(runroot: &Path) -> Self {
        Self(PrivateDir::new(runroot.join("verdicts")))
    }

    /// The admission under this key, if there is one that can be relied on.
    pub(super) fn recall(&self, key: &QuestionKey) -> Option<Remembered> {
        let name = key.hex();
        let dir = self.0.open().ok()??;
        let bytes = private::read(&dir, &name, FILE_MAX_BYTES).ok()??;
        let verdict: Verdict = serde_json::from_slice(&bytes).ok()?;
        if verdict.format != FORMAT || verdict.key != name {
            return None;
        }
        let time = private::from_ns;
        let optional = |ns: Option<u64>| ns.map_or(Some(None), |ns| time(ns).map(Some));
        Some(Remembered {
            decided: time(verdict.decided_ns)?,
            holds_until: optional(verdict.holds_until_ns)?,
            made: optional(verdict.made_ns)?,
            signers: verdict.signers,
        })
    }

    /// Keeps an admission, if that can be done.
    pub(super) fn remember(&self, key: &QuestionKey, admission: &Remembered) {
        if let Err(error) = self.write(key, admission) {
            tracing::debug!("keep a verdict: {error}");
        }
    }

    fn write(&self, key: &QuestionKey, admission: &Remembered) -> io::Result<()> {
        let dir = self.0.ensure()?;
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
        let bytes = serde_json::to_vec(&Verdict::of(key, admission)?)?;
        publish::atomic_write_volatile(
            &dir,
            key.hex().as_bytes(),
            temporary.as_bytes(),
            FILE_MODE,
            &bytes,
        )?;
        Ok(())
    }
}

impl Verdict {
    fn of(key: &QuestionKey, admission: &Remembered) -> io::Result<Self> {
        let optional = |time: Option<SystemTime>| time.map(private::to_ns).transpose();
        Ok(Self {
            format: FORMAT,
            key: key.hex(),
            decided_ns: private::to_ns(admission.decided)?,
            holds_until_ns: optional(admission.holds_until)?,
            made_ns: optional(admission.made)?,
            signers: admission.signers.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::{Duration, UNIX_EPOCH};

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
            signers: vec!["KEY".into()],
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
        spoil(&|| edit("\"format\":2", "\"format\":1"));
        spoil(&|| edit("{", "{\"more\":1,"));
        spoil(&|| edit("}", ""));
        spoil(&|| fs::write(&file, "").unwrap());
        spoil(&|| fs::write(&file, " ".repeat(20_000)).unwrap());
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
