// SPDX-License-Identifier: Apache-2.0
//! OCI runtimes, through their command lines.
//!
//! A driver only *plans*: it answers command lines and what the host must look like for them. The
//! monitor executes them. Nothing is linked, so a runtime of any language and version serves, and a
//! crash of it is an exit status.
//!
//! `run --detach` is used rather than `create` and `start`: one process instead of two, and the
//! container's process becomes the child of the monitor, which is a subreaper, in either case.
//!
//! # Source
//! runtime-spec 1.2 "Operations"; the command lines of runc 1.1 and crun 1.8 and newer.

use std::fmt;
use std::path::{Path, PathBuf};

use gantry_oci::Kind;
use serde::{Deserialize, Serialize};

use crate::host::{Cgroups, HostFacts};
use crate::spec::LimitSupport;

/// The socket by which a runtime hands over the terminal, relative to the bundle, in which runtimes
/// are started: an absolute path is easily longer than a socket's address may be.
pub const CONSOLE_SOCKET: &str = "console.sock";
/// Where a runtime writes the pid of the program, relative to where it is started.
pub const PID_FILE: &str = "pid";
/// Where a runtime writes what went wrong, as lines of JSON, likewise.
pub const RUNTIME_LOG: &str = "runtime.log";
/// What one more program in a container shall be, likewise.
pub const PROCESS_FILE: &str = "process.json";

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// Absolute.
    pub program: PathBuf,
    /// Without the program's own name.
    pub args: Vec<String>,
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

/// Where a container's files lie, as a runtime is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimePlaces {
    /// The container's id.
    pub id: String,
    /// The bundle: `config.json` and the rootfs.
    pub bundle: PathBuf,
}

impl RuntimePlaces {
    /// Where the runtime keeps its own state: one directory a container, so that nothing is left
    /// to collide or to leak once the container's directory is gone.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.bundle.join("oci")
    }
}

/// A runtime that can be asked to run containers.
pub trait OciRuntime: fmt::Debug + Send + Sync {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// Which limits it can set on such a host.
    fn limits(&self, host: &HostFacts) -> LimitSupport;

    /// Mount points that must be gone from the monitor's own mount namespace before it is called.
    fn hidden_mounts(&self, host: &HostFacts) -> Vec<PathBuf>;

    /// Starts the container of a bundle and returns once its process executes the program.
    fn run(&self, places: &RuntimePlaces, host: &HostFacts, terminal: bool) -> CommandLine;

    /// Starts one more program, which `process.json` in `dir` describes, in a container that runs.
    fn exec(
        &self,
        places: &RuntimePlaces,
        dir: &Path,
        host: &HostFacts,
        terminal: bool,
    ) -> CommandLine;

    /// Removes what the runtime keeps of a container, killing it if it still runs.
    fn delete(&self, places: &RuntimePlaces, host: &HostFacts) -> CommandLine;

    /// The name of the control group that, beside its directory, is all that the runtime keeps of a
    /// container whose program has ended; `None` if only the runtime itself knows what it keeps.
    fn control_group(&self, places: &RuntimePlaces) -> Option<String>;
}

/// The control group of a container, at the root of each hierarchy.
#[must_use]
pub fn control_group(id: &str) -> String {
    format!("gantry-{id}")
}

/// A runtime with the command line that runc introduced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuncLike {
    program: PathBuf,
    name: String,
    flavour: Flavour,
    /// Before everything else: our own runtime is a verb of the command.
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    /// Reads control groups by itself; knows no hierarchy where both versions are mounted.
    Crun,
    /// Our own.
    Ours,
    /// runc, youki and whatever imitates them.
    Other,
}

impl RuncLike {
    /// Describes a program by its file name.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        let name = program
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let flavour = if name.starts_with("crun") {
            Flavour::Crun
        } else {
            Flavour::Other
        };
        Self {
            program,
            name,
            flavour,
            words: Vec::new(),
        }
    }

    /// Our own runtime, a verb of the command `gantry`.
    #[must_use]
    pub fn ours(gantry: PathBuf) -> Self {
        Self {
            program: gantry,
            name: OURS.to_owned(),
            flavour: Flavour::Ours,
            words: vec!["runtime".to_owned()],
        }
    }

    /// The runtime that a command line is one of.
    #[must_use]
    pub fn of(line: &CommandLine) -> Self {
        let ours = Self::ours(line.program.clone());
        if line.args.starts_with(&ours.words) {
            ours
        } else {
            Self::new(line.program.clone())
        }
    }

    fn command(&self, places: &RuntimePlaces, dir: &Path, host: &HostFacts) -> CommandLine {
        let mut args = self.words.clone();
        args.extend(["--root".to_owned(), text(&places.root())]);
        args.extend(["--log".to_owned(), text(&dir.join(RUNTIME_LOG))]);
        args.extend(["--log-format", "json"].map(str::to_owned));
        let knows_none = matches!(self.flavour, Flavour::Crun | Flavour::Ours);
        if knows_none && host.cgroups == Cgroups::None {
            args.push("--cgroup-manager=disabled".to_owned());
        }
        CommandLine {
            program: self.program.clone(),
            args,
        }
    }
}

/// What starting a container and starting a program in one have in common.
fn start_words(places: &RuntimePlaces, dir: &Path, terminal: bool) -> Vec<String> {
    let mut words = vec!["--pid-file".to_owned(), text(&dir.join(PID_FILE))];
    if terminal {
        words.extend(["--console-socket".to_owned(), CONSOLE_SOCKET.to_owned()]);
    }
    words.push(places.id.clone());
    words
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl OciRuntime for RuncLike {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self, host: &HostFacts) -> LimitSupport {
        LimitSupport::of_host(host)
    }

    fn hidden_mounts(&self, host: &HostFacts) -> Vec<PathBuf> {
        match (&host.cgroups, self.flavour) {
            // crun refuses a host that has both versions mounted; with version 1 alone in sight it
            // sets every limit.
            (Cgroups::V1 { hybrid: true, .. }, Flavour::Crun) => {
                vec![PathBuf::from("/sys/fs/cgroup/unified")]
            }
            _ => Vec::new(),
        }
    }

    fn run(&self, places: &RuntimePlaces, host: &HostFacts, terminal: bool) -> CommandLine {
        let mut command = self.command(places, &places.bundle, host);
        command
            .args
            .extend(["run".to_owned(), "--detach".to_owned()]);
        command
            .args
            .extend(["--bundle".to_owned(), text(&places.bundle)]);
        command
            .args
            .extend(start_words(places, &places.bundle, terminal));
        command
    }

    fn exec(
        &self,
        places: &RuntimePlaces,
        dir: &Path,
        host: &HostFacts,
        terminal: bool,
    ) -> CommandLine {
        let mut command = self.command(places, dir, host);
        command
            .args
            .extend(["exec".to_owned(), "--detach".to_owned()]);
        command
            .args
            .extend(["--process".to_owned(), text(&dir.join(PROCESS_FILE))]);
        command.args.extend(start_words(places, dir, terminal));
        command
    }

    fn delete(&self, places: &RuntimePlaces, host: &HostFacts) -> CommandLine {
        let mut command = self.command(places, &places.bundle, host);
        command
            .args
            .extend(["delete".to_owned(), "--force".to_owned(), places.id.clone()]);
        command
    }

    fn control_group(&self, places: &RuntimePlaces) -> Option<String> {
        // Our documents have no hooks, which are the only other thing that deleting is about.
        let known = matches!(self.flavour, Flavour::Crun | Flavour::Ours) || self.name == "runc";
        known.then(|| control_group(&places.id))
    }
}

/// Why no runtime was chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindRuntimeError {
    /// The one that was asked for is not there.
    #[error("find OCI runtime {name:?}: no such program in {searched}")]
    Unknown {
        /// As given.
        name: String,
        /// Where it was looked for.
        searched: String,
    },
    /// None at all.
    #[error("find an OCI runtime: neither {tried} is in {searched}")]
    None {
        /// The names that were tried.
        tried: String,
        /// Where they were looked for.
        searched: String,
    },
}

impl FindRuntimeError {
    /// Always `Unsupported`: the host lacks what is needed.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Unsupported
    }
}

/// The name of our own.
pub const OURS: &str = "gantry";

/// Names that are tried, in this order, when none is asked for and our own cannot be found.
pub const DEFAULT_RUNTIMES: [&str; 3] = ["crun", "runc", "youki"];

/// Finds a runtime by name in the directories of `search`, or by a path with a slash in it; without a name, our own,
/// which is the program `own`.
///
/// # Errors
/// Nothing is there.
pub fn find_runtime(
    name: Option<&str>,
    search: &[PathBuf],
    own: Option<PathBuf>,
) -> Result<Box<dyn OciRuntime>, FindRuntimeError> {
    if let Some(own) = own.filter(|_| matches!(name, None | Some(OURS))) {
        return Ok(Box::new(RuncLike::ours(own)));
    }
    let candidates = match name {
        Some(path) if path.contains('/') => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
            return if path.is_file() {
                Ok(Box::new(RuncLike::new(path)))
            } else {
                Err(FindRuntimeError::Unknown {
                    name: text(&path),
                    searched: "that place".to_owned(),
                })
            };
        }
        Some(name) => vec![name],
        None => DEFAULT_RUNTIMES.to_vec(),
    };
    let found = candidates
        .iter()
        .flat_map(|name| search.iter().map(move |dir| dir.join(name)))
        .find(|path| path.is_file());
    if let Some(path) = found {
        return Ok(Box::new(RuncLike::new(path)));
    }
    let searched = search
        .iter()
        .map(|dir| text(dir))
        .collect::<Vec<_>>()
        .join(":");
    Err(match name {
        Some(name) => FindRuntimeError::Unknown {
            name: name.to_owned(),
            searched,
        },
        None => FindRuntimeError::None {
            tried: DEFAULT_RUNTIMES.join(" nor "),
            searched,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::CapabilitySet;
    use crate::host::Architecture;
    use std::collections::{BTreeMap, BTreeSet};

    fn host(cgroups: Cgroups) -> HostFacts {
        HostFacts {
            capabilities: CapabilitySet::ALL,
            cgroups,
            rlimits_hard: BTreeMap::new(),
            architecture: Architecture::X86_64,
            thermal_cpus: 0,
            ptrace_scope: 0,
            selinux: false,
            apparmor: false,
            hostname: "h".into(),
            resolv_conf: true,
        }
    }

    fn hybrid() -> HostFacts {
        host(Cgroups::V1 {
            controllers: BTreeSet::from(["memory".into(), "pids".into(), "devices".into()]),
            hybrid: true,
            swap: false,
        })
    }

    fn places() -> RuntimePlaces {
        RuntimePlaces {
            id: "c1".into(),
            bundle: "/run/gantry/containers/c1".into(),
        }
    }

    #[test]
    fn command_lines_are_those_of_runc() {
        let runc = RuncLike::new("/usr/sbin/runc".into());
        assert_eq!(
            runc.run(&places(), &hybrid(), true).to_string(),
            "/usr/sbin/runc --root /run/gantry/containers/c1/oci --log /run/gantry/containers/c1/runtime.log \
             --log-format json run --detach --bundle /run/gantry/containers/c1 \
             --pid-file /run/gantry/containers/c1/pid --console-socket console.sock c1"
        );
        assert_eq!(
            runc.delete(&places(), &hybrid()).to_string(),
            "/usr/sbin/runc --root /run/gantry/containers/c1/oci --log /run/gantry/containers/c1/runtime.log \
             --log-format json delete --force c1"
        );
        assert_eq!(
            runc.exec(&places(), Path::new("/e"), &hybrid(), false)
                .to_string(),
            "/usr/sbin/runc --root /run/gantry/containers/c1/oci --log /e/runtime.log --log-format json \
             exec --detach --process /e/process.json --pid-file /e/pid c1"
        );
    }

    #[test]
    fn crun_sees_one_version_of_control_groups_or_none() {
        let (crun, runc) = (
            RuncLike::new("/usr/bin/crun".into()),
            RuncLike::new("/usr/sbin/runc".into()),
        );
        let unified = [PathBuf::from("/sys/fs/cgroup/unified")];
        assert_eq!(crun.hidden_mounts(&hybrid()), unified);
        assert!(runc.hidden_mounts(&hybrid()).is_empty());
        let none = host(Cgroups::None);
        let line = crun.run(&places(), &none, false).to_string();
        assert!(line.contains("--cgroup-manager=disabled"), "{line}");
        assert!(!crun.limits(&none).managed);
        assert!(crun.limits(&hybrid()).memory && !crun.limits(&hybrid()).cpu);
    }

    #[test]
    fn runtime_is_found_by_name_or_path_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let search = [dir.path().to_owned()];
        let error = find_runtime(None, &search, None).unwrap_err();
        assert!(error.to_string().contains("crun nor runc"), "{error}");
        std::fs::write(dir.path().join("runc"), "").unwrap();
        assert_eq!(find_runtime(None, &search, None).unwrap().name(), "runc");
        std::fs::write(dir.path().join("crun"), "").unwrap();
        assert_eq!(find_runtime(None, &search, None).unwrap().name(), "crun");
        assert_eq!(
            find_runtime(Some("runc"), &search, None).unwrap().name(),
            "runc"
        );
        let own = Some(PathBuf::from("/usr/bin/gantry"));
        for name in [None, Some("gantry")] {
            let ours = find_runtime(name, &search, own.clone()).unwrap();
            let line = ours.run(&places(), &hybrid(), false);
            assert!(
                line.to_string()
                    .starts_with("/usr/bin/gantry runtime --root "),
                "{line}"
            );
            assert_eq!(RuncLike::of(&line).name(), "gantry");
            assert!(ours.hidden_mounts(&hybrid()).is_empty());
        }
        assert_eq!(
            find_runtime(Some("crun"), &search, own).unwrap().name(),
            "crun"
        );
        assert!(find_runtime(Some("gantry"), &search, None).is_err());
        assert!(find_runtime(Some("kata"), &search, None).is_err());
        assert!(find_runtime(Some("/nowhere/crun"), &search, None).is_err());
    }
}
