// SPDX-License-Identifier: Apache-2.0
//! Classes of cache and memory bandwidth: the `resctrl` file system.
//!
//! ```text
//! spec, id, where it is mounted ── plan ──► Resctrl ── create ── join(pid) … remove
//!                                  pure
//! /sys/fs/resctrl/CLASS/schemata                    what the class may use
//!                 CLASS/tasks                       who is in it
//!                 CLASS/mon_groups/ID/tasks         who is counted apart
//! ```
//!
//! # Source
//! runtime-spec 1.3 "IntelRdt"; the kernel's `Documentation/filesystems/resctrl.rst`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::error::{Doing as _, RuntimeError};
use super::plan::PlanError;

const PLACE: &str = ".linux.intelRdt";
const SCHEMATA: &str = "schemata";
const TASKS: &str = "tasks";
/// Names that the file system has for itself.
const RESERVED: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// What is done for one container, and what remains of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resctrl {
    /// The class.
    class: PathBuf,
    /// It is the container's own, and goes with it.
    own: bool,
    /// Lines that a class which is there already must have.
    compared: Vec<String>,
    /// Lines that are written, in this order.
    written: Vec<String>,
    /// The class must be there.
    expected: bool,
    /// Where it is counted apart.
    monitor: Option<PathBuf>,
}

/// Where the file system is mounted, by a text in the form of `/proc/self/mountinfo`.
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some("resctrl"))
            .then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Where it is mounted here.
pub(super) fn mounted() -> Option<PathBuf> {
    // What cannot be read is not there for us either.
    find_mount(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Decides; nothing if the document asks for nothing.
pub(super) fn plan(
    spec: &Spec,
    id: &str,
    mounted: impl FnOnce() -> Option<PathBuf>,
) -> Result<Option<Resctrl>, PlanError> {
    let asked = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.intel_rdt().as_ref());
    let Some(asked) = asked else {
        return Ok(None);
    };
    let refuse = |member: &str, rule: &str| {
        let place = if member.is_empty() {
            PLACE.to_owned()
        } else {
            format!("{PLACE}.{member}")
        };
        PlanError::new(place, rule)
    };
    let root = mounted().ok_or_else(|| {
        refuse("", "no resctrl file system is mounted; mount -t resctrl resctrl /sys/fs/resctrl, where the processor has one")
    })?;
    let given = asked.clos_id().as_deref().filter(|id| !id.is_empty());
    let name = given.unwrap_or(id);
    let is_root = given == Some("/");
    if !is_root
        && (name.contains(['/', '\n', '\0'])
            || [".", ".."].contains(&name)
            || RESERVED.contains(&name))
    {
        return Err(refuse("closID", "is no name of a class"));
    }
    let line = |member: &str, text: &Option<String>, start: &str| match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) if text.contains('\n') => Err(refuse(member, "has more than one line")),
        Some(text) if !text.starts_with(start) => {
            Err(refuse(member, &format!("does not start with {start}")))
        }
        Some(text) => Ok(Some(text.to_owned())),
    };
    // What the kernel reads as cache may have another level in front.
    let cache = line("l3CacheSchema", asked.l3_cache_schema(), "")?;
    let bandwidth = line("memBwSchema", asked.mem_bw_schema(), "MB:")?;
    let compared: Vec<String> = cache.into_iter().chain(bandwidth).collect();
    let rest = asked.schemata().iter().flatten();
    if rest.clone().any(|line| line.contains('\n')) {
        return Err(refuse("schemata", "has a line that is more than one"));
    }
    let written: Vec<String> = rest.cloned().collect();
    let class = if is_root { root } else { root.join(name) };
    let monitor = asked.enable_monitoring().unwrap_or(false);
    Ok(Some(Resctrl {
        own: given.is_none(),
        expected: is_root || given.is_some() && compared.is_empty() && written.is_empty(),
        monitor: monitor.then(|| class.join("mon_groups").join(id)),
        compared,
        written,
        class,
    }))
}

impl Resctrl {
    /// Makes the class where it is not there, says what it may use, and where it is counted apart.
    pub(super) fn create(&self) -> Result<(), RuntimeError> {
        let class = self.class.display();
        let new = if self.expected {
            if !self.class.is_dir() {
                let rule = format!("there is no class {class}, and nothing says what it may use");
                return Err(PlanError::new(format!("{PLACE}.closID"), rule).into());
            }
            false
        } else {
            match fs::create_dir(&self.class) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(error)
                        .doing(|| format!("make {class}: the processor has no more classes"));
                }
                Err(error) => return Err(error).doing(|| format!("make {class}")),
            }
        };
        if !new && !self.compared.is_empty() {
            self.compare()?;
        }
        let lines = if new { &self.compared[..] } else { &[] };
        for line in lines.iter().chain(&self.written) {
            fs::write(self.class.join(SCHEMATA), format!("{line}\n"))
                .doing(|| format!("write {line:?} to {class}/{SCHEMATA}"))?;
        }
        if let Some(monitor) = &self.monitor {
            fs::create_dir(monitor).doing(|| format!("make {}", monitor.display()))?;
        }
        Ok(())
    }

    /// A class that is there has to be what the document says.
    fn compare(&self) -> Result<(), RuntimeError> {
        let path = self.class.join(SCHEMATA);
        let held = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        let held: BTreeMap<String, BTreeMap<String, String>> =
            held.lines().filter_map(parse).collect();
        for line in &self.compared {
            let same = parse(line).is_some_and(|(resource, domains)| {
                held.get(&resource).is_some_and(|held| {
                    domains
                        .iter()
                        .all(|(domain, value)| held.get(domain) == Some(value))
                })
            });
            if !same {
                let rule = format!(
                    "class {} is there, and is not {line:?}",
                    self.class.display()
                );
                return Err(PlanError::new(format!("{PLACE}.closID"), rule).into());
            }
        }
        Ok(())
    }

    /// Puts a process, which has no children yet, into it.
    pub(super) fn join(&self, pid: u32) -> Result<(), RuntimeError> {
        let groups = [Some(&self.class), self.monitor.as_ref()];
        for group in groups.into_iter().flatten() {
            fs::write(group.join(TASKS), format!("{pid}\n"))
                .doing(|| format!("put process {pid} into {}", group.display()))?;
        }
        Ok(())
    }

    /// Removes what was made for the container alone.
    pub(super) fn remove(&self) -> Result<(), RuntimeError> {
        let own = self.own.then_some(&self.class);
        for dir in self.monitor.iter().chain(own) {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.doing(|| format!("remove {}", dir.display()))?,
            }
        }
        Ok(())
    }
}

/// `L3:0=7f0;1=1f`, as the kernel writes it, too: with blanks in front and zeros.
fn parse(line: &str) -> Option<(String, BTreeMap<String, String>)> {
    let (resource, rest) = line.trim().split_once(':')?;
    let domains = rest.trim().split(';').map(|part| {
        let (domain, value) = part.split_once('=')?;
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((domain.trim().to_owned(), value))
    });
    Some((resource.to_owned(), domains.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn planned(dir: &Path, rdt: Value) -> Result<Resctrl, PlanError> {
        let spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.3.0", "root": {"path": "r"}, "linux": {"intelRdt": rdt},
        }))
        .unwrap();
        plan(&spec, "c1", || Some(dir.to_owned())).map(Option::unwrap)
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn class_of_the_container_comes_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let rdt = planned(
            dir.path(),
            json!({"memBwSchema": "MB:0=20", "schemata": ["L3:0=f"]}),
        )
        .unwrap();
        rdt.create().unwrap();
        // A plain file keeps what was written last: the schemata after the bandwidth.
        assert_eq!(read(dir.path().join("c1/schemata")), "L3:0=f\n");
        rdt.join(7).unwrap();
        assert_eq!(read(dir.path().join("c1/tasks")), "7\n");
        // The kernel removes the files with the directory; here it takes a hand.
        for name in [TASKS, SCHEMATA] {
            fs::remove_file(dir.path().join("c1").join(name)).unwrap();
        }
        rdt.remove().unwrap();
        rdt.remove().unwrap();
        assert!(!dir.path().join("c1").exists());
    }

    #[test]
    fn named_class_is_compared_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let gold = dir.path().join("gold");
        let absent = planned(dir.path(), json!({"closID": "gold"})).unwrap();
        assert!(
            absent
                .create()
                .unwrap_err()
                .sentence()
                .contains("there is no class")
        );
        assert!(!gold.exists());
        fs::create_dir_all(gold.join("mon_groups")).unwrap();
        fs::write(
            gold.join(SCHEMATA),
            "    MB:0= 20;1=100\n    L3:0=07F0;1=1f\n",
        )
        .unwrap();
        for (rdt, fine) in [
            (json!({"closID": "gold", "l3CacheSchema": "L3:0=7f0"}), true),
            (
                json!({"closID": "gold", "memBwSchema": "MB:0=20;1=100"}),
                true,
            ),
            (json!({"closID": "gold", "l3CacheSchema": "L3:0=1"}), false),
            (json!({"closID": "gold", "l3CacheSchema": "L2:0=1"}), false),
        ] {
            let outcome = planned(dir.path(), rdt.clone()).unwrap().create();
            assert_eq!(outcome.is_ok(), fine, "{rdt}: {outcome:?}");
        }
        let counted = planned(
            dir.path(),
            json!({"closID": "gold", "enableMonitoring": true}),
        )
        .unwrap();
        counted.create().unwrap();
        counted.join(9).unwrap();
        assert_eq!(read(gold.join("mon_groups/c1/tasks")), "9\n");
        fs::remove_file(gold.join("mon_groups/c1/tasks")).unwrap();
        counted.remove().unwrap();
        assert!(gold.is_dir() && !gold.join("mon_groups/c1").exists());
    }

    #[test]
    fn root_class_takes_tasks_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = planned(dir.path(), json!({"closID": "/"})).unwrap();
        root.create().unwrap();
        root.join(3).unwrap();
        root.remove().unwrap();
        assert_eq!(read(dir.path().join(TASKS)), "3\n");
    }

    #[test]
    fn what_is_no_class_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for rdt in [
            json!({"closID": "../x"}),
            json!({"closID": ".."}),
            json!({"closID": "info"}),
            json!({"memBwSchema": "L3:0=1"}),
            json!({"memBwSchema": "MB:0=1\nL3:0=1"}),
            json!({"schemata": ["L3:0=1\nMB:0=1"]}),
        ] {
            assert!(planned(dir.path(), rdt.clone()).is_err(), "{rdt}");
        }
        let spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.3.0", "root": {"path": "r"}, "linux": {"intelRdt": {}},
        }))
        .unwrap();
        let error = plan(&spec, "c1", || None).unwrap_err();
        assert_eq!(error.path, PLACE);
        assert!(error.rule.contains("mount -t resctrl"), "{}", error.rule);
        let line = "30 20 0:27 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw";
        assert_eq!(find_mount(line), Some("/sys/fs/resctrl".into()));
        assert_eq!(find_mount("30 20 0:27 / /proc rw - proc proc rw"), None);
    }
}
