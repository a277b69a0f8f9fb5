// SPDX-License-Identifier: Apache-2.0
//! What was last admitted under each name, for rules against stepping back: `ROOT/trust/<SHA-256 of the name>`.
//!
//! It lies with the store, since it must outlive a boot. Readers take no lock; a file is replaced in one step by who
//! holds the lock of the directory, and only if it still says what was asked about.

use std::fs::File;
use std::io;
use std::path::Path;

use gantry_oci::{Algorithm, Digest};
use gantry_sys::lock::{LockMode, OfdLock};
use gantry_sys::publish;
use gantry_sys::root::RootDir;
use gantry_trust::extra::{Last, Record};
use gantry_trust::{Advance, Subject};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::private::{self, FILE_MODE, PrivateDir};

const FORMAT: u64 = 1;
/// What a file has at most: a name and a digest.
const FILE_MAX_BYTES: u64 = 4096;
const LOCK: &str = "lock";
const TEMPORARY: &str = ".new";

/// The last admissions of one store.
#[derive(Debug)]
pub(super) struct History(PrivateDir);

/// One file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    format: u64,
    name: String,
    digest: String,
    made_ns: Option<u64>,
}

impl History {
    /// The history of the store at `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self(PrivateDir::new(root.join("trust")))
    }

    /// What was last admitted under this name.
    ///
    /// # Errors
    /// Nobody can tell.
    pub(super) fn last(&self, subject: &Subject) -> io::Result<Last> {
        match self.0.open()? {
            None => Ok(Last::Nothing),
            Some(dir) => last_in(&dir, &name_of(subject)),
        }
    }

    /// Puts `next` in the place of `last`, if that is still there.
    ///
    /// # Durability
    /// It is on stable storage on return.
    ///
    /// # Errors
    /// It is not kept.
    pub(super) fn advance(
        &self,
        subject: &Subject,
        last: &Last,
        next: &Record,
    ) -> io::Result<Advance> {
        let name = name_of(subject);
        let dir = self.0.ensure()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        let file = dir.open(LOCK.as_bytes(), flags, FILE_MODE)?;
        let _lock = OfdLock::lock(file, LockMode::Exclusive)?;
        if last_in(&dir, &name)? != *last {
            return Ok(Advance::Overtaken);
        }
        let bytes = serde_json::to_vec(&Entry {
            format: FORMAT,
            digest: next.manifest_digest.to_string(),
            made_ns: next.made.map(private::to_ns).transpose()?,
            name: name.clone(),
        })?;
        if bytes.len() as u64 > FILE_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // Of one that was killed here.
        dir.remove_file(TEMPORARY.as_bytes())?;
        publish::atomic_write(
            &dir,
            file_of(&name).as_bytes(),
            TEMPORARY.as_bytes(),
            FILE_MODE,
            &bytes,
        )?;
        // The directory itself may be new, too.
        if let Some(root) = self.0.path().parent() {
            File::open(root)?.sync_all()?;
        }
        Ok(Advance::Done)
    }
}

fn last_in(dir: &RootDir, name: &str) -> io::Result<Last> {
    let Some(bytes) = private::read(dir, &file_of(name), FILE_MAX_BYTES)? else {
        return Ok(Last::Nothing);
    };
    let entry: Entry = serde_json::from_slice(&bytes)?;
    if entry.format != FORMAT || entry.name != name {
        let why = format!("the file of {name} is about something else");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let made = entry.made_ns.map(|ns| {
        let time = private::from_ns(ns);
        time.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    });
    Ok(Last::Image(Record {
        manifest_digest: entry.digest.parse().map_err(io::Error::other)?,
        made: made.transpose()?,
    }))
}

/// The place and name that an image is judged by.
fn name_of(subject: &Subject) -> String {
    let transport = subject.transport();
    match (subject.reference(), subject.candidates().next()) {
        (Some(reference), _) => format!("{transport} {reference}"),
        (None, place) => format!("{transport} {}", place.unwrap_or_default()),
    }
}

fn file_of(name: &str) -> String {
    Digest::of(Algorithm::Sha256, name.as_bytes()).hex()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use gantry_oci::Reference;

    use super::*;

    fn subject(text: &str) -> Subject {
        Subject::docker(&Reference::parse_normalized(text).unwrap())
    }

    fn record(salt: &str, made: u64) -> Record {
        let digest = Digest::of(Algorithm::Sha256, salt.as_bytes());
        Record {
            manifest_digest: digest.to_string().parse().unwrap(),
            made: Some(UNIX_EPOCH + Duration::new(made, 9)),
        }
    }

    #[test]
    fn each_name_has_its_own_last_image() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let history = History::new(&root);
        let (one, other) = (subject("h.io/a:v1"), subject("h.io/a:v2"));
        assert_eq!(history.last(&one).unwrap(), Last::Nothing);
        assert!(!root.exists());
        let (first, second) = (record("1", 1), record("2", 2));
        let advance = |last: Last, next: &Record| history.advance(&one, &last, next).unwrap();
        assert_eq!(advance(Last::Nothing, &first), Advance::Done);
        assert_eq!(history.last(&one).unwrap(), Last::Image(first));
        assert_eq!(history.last(&other).unwrap(), Last::Nothing);
        assert_eq!(advance(Last::Nothing, &second), Advance::Overtaken);
        assert_eq!(advance(Last::Image(second), &second), Advance::Overtaken);
        assert_eq!(advance(Last::Image(first), &second), Advance::Done);
        // Another process sees it.
        let again = History::new(&root);
        assert_eq!(again.last(&one).unwrap(), Last::Image(second));
        // What a killed one left is no hindrance.
        fs::write(root.join("trust").join(TEMPORARY), "half").unwrap();
        assert_eq!(advance(Last::Image(second), &first), Advance::Done);
    }

    #[test]
    fn a_history_that_is_not_ours_alone_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path());
        let one = subject("h.io/a:v1");
        history
            .advance(&one, &Last::Nothing, &record("1", 1))
            .unwrap();
        let trust = dir.path().join("trust");
        let file = trust.join(file_of(&name_of(&one)));
        let text = fs::read_to_string(&file).unwrap();
        let spoil = |how: &dyn Fn()| {
            how();
            assert!(history.last(&one).is_err());
            let next = history.advance(&one, &Last::Nothing, &record("2", 2));
            assert!(next.is_err());
            fs::set_permissions(&trust, Permissions::from_mode(0o700)).unwrap();
            fs::write(&file, &text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        };
        let chmod =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let edit = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            fs::write(&file, text.replace(from, to)).unwrap();
        };
        spoil(&|| chmod(&file, 0o620));
        spoil(&|| chmod(&trust, 0o770));
        spoil(&|| edit("\"format\":1", "\"format\":2"));
        spoil(&|| edit("a:v1", "a:v2"));
        spoil(&|| edit("sha256:", "md5:"));
        spoil(&|| edit("{", "{\"more\":1,"));
        spoil(&|| fs::write(&file, "").unwrap());
        spoil(&|| fs::write(&file, " ".repeat(5000)).unwrap());
        assert_eq!(history.last(&one).unwrap(), Last::Image(record("1", 1)));
    }

    #[test]
    fn of_many_at_once_each_has_seen_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let history = Arc::new(History::new(dir.path()));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let history = Arc::clone(&history);
                std::thread::spawn(move || {
                    let one = subject("h.io/a:v1");
                    let mut done = 0;
                    while done < 25 {
                        let last = history.last(&one).unwrap();
                        // Each counts on from what it saw.
                        let made = match last {
                            Last::Image(record) => record.made.unwrap(),
                            _ => UNIX_EPOCH,
                        };
                        let next = Record {
                            made: Some(made + Duration::from_secs(1)),
                            ..record(&format!("{thread}"), 0)
                        };
                        if history.advance(&one, &last, &next).unwrap() == Advance::Done {
                            done += 1;
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let Last::Image(last) = history.last(&subject("h.io/a:v1")).unwrap() else {
            panic!("nothing was kept");
        };
        assert_eq!(last.made, Some(UNIX_EPOCH + Duration::from_secs(100)));
    }
}
