// SPDX-License-Identifier: Apache-2.0
//! The command lines: pure.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use gantry_sys::clone::Namespace;

use super::super::plan::{MountKind, Plan, PlanError};
use super::CriuOptions;

/// What becomes of control groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ManageCgroups {
    /// They are the runtime's: CRIU leaves them alone.
    #[default]
    Ignore,
    /// One of CRIU's own modes.
    Mode(&'static str),
}

impl FromStr for ManageCgroups {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MODES: [&str; 4] = ["soft", "full", "strict", "props"];
        if text == "ignore" {
            return Ok(Self::Ignore);
        }
        let known = MODES.into_iter().find(|mode| *mode == text);
        known.map(Self::Mode).ok_or_else(|| {
            format!(
                "--manage-cgroups-mode: {text:?} is none of ignore, {}",
                MODES.join(", ")
            )
        })
    }
}

impl ManageCgroups {
    fn word(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Mode(mode) => mode,
        }
    }
}

/// Where memory is sent instead of into the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageServer {
    /// Address.
    pub address: String,
    /// Port.
    pub port: u16,
}

impl FromStr for PageServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("--page-server: {text:?} is not ADDRESS:PORT");
        let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        if address.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            address: address.to_owned(),
            port,
        })
    }
}

/// How a namespace of others is called between the two.
fn outside(kind: Namespace) -> &'static str {
    match kind {
        Namespace::Network => "extRootNetNS",
        _ => "extRootPidNS",
    }
}

/// The namespaces of others that a container is in.
pub(super) fn joined(plan: &Plan) -> Result<Vec<(Namespace, &PathBuf)>, PlanError> {
    plan.namespaces
        .joined()
        .map(|(kind, path)| match kind {
            Namespace::Network | Namespace::Pid => Ok((kind, path)),
            other => Err(PlanError::new(
                ".linux.namespaces",
                format!(
                    "CRIU cannot leave out a {} namespace of others",
                    other.link()
                ),
            )),
        })
        .collect()
}

/// What a container shows of the host, and where it is there: what CRIU takes from outside.
pub(super) fn shown(plan: &Plan) -> Vec<(PathBuf, PathBuf)> {
    let binds = plan.mounts.iter().filter_map(|step| match &step.kind {
        MountKind::Bind { source, .. } => Some((step.target.clone(), source.clone())),
        _ => None,
    });
    let hidden = plan
        .masked_paths
        .iter()
        .map(|step| (step.path.clone(), "/dev/null".into()));
    // Where nodes may not be made the host's are shown.
    let nodes = plan
        .devices
        .iter()
        .map(|step| (step.path.clone(), step.path.clone()));
    binds.chain(hidden).chain(nodes).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn common(options: &CriuOptions, verb: &str, log: &str) -> Vec<String> {
    let mut words: Vec<String> = [
        verb,
        "--images-dir",
        &text(&options.images),
        "--work-dir",
        &text(options.work()),
        "--log-file",
        log,
        "-v4",
        &format!("--manage-cgroups={}", options.manage_cgroups.word()),
    ]
    .map(str::to_owned)
    .into();
    for (asked, word) in [
        (options.tcp_established, "--tcp-established"),
        (options.tcp_skip_in_flight, "--skip-in-flight"),
        (options.ext_unix_sockets, "--ext-unix-sk"),
        (options.shell_job, "--shell-job"),
        (options.file_locks, "--file-locks"),
        (options.auto_dedup, "--auto-dedup"),
        (options.lazy_pages, "--lazy-pages"),
    ] {
        if asked {
            words.push(word.to_owned());
        }
    }
    if options.empty_network {
        words.extend(["--empty-ns", "net"].map(str::to_owned));
    }
    words
}

/// What a dump has beside.
#[derive(Debug, Clone, Default)]
pub(super) struct Dump<'a> {
    pub pid: u32,
    /// Memory only, in advance.
    pub in_advance: bool,
    pub leave_running: bool,
    pub link_remap: bool,
    /// An earlier image, relative to the images.
    pub parent: Option<&'a Path>,
    pub page_server: Option<&'a PageServer>,
    /// What is mounted in the container.
    pub mounted: &'a [PathBuf],
    /// Numbers of namespaces of others.
    pub outside: &'a [(Namespace, u64)],
}

pub(super) const DUMP_LOG: &str = "dump.log";
pub(super) const RESTORE_LOG: &str = "restore.log";

pub(super) fn dump(options: &CriuOptions, plan: &Plan, dump: &Dump<'_>) -> Vec<String> {
    let verb = if dump.in_advance { "pre-dump" } else { "dump" };
    let mut words = common(options, verb, DUMP_LOG);
    words.extend(["--tree".to_owned(), dump.pid.to_string()]);
    if dump.in_advance || dump.parent.is_some() {
        words.push("--track-mem".to_owned());
    }
    if dump.leave_running && !dump.in_advance {
        words.push("--leave-running".to_owned());
    }
    if dump.link_remap {
        words.push("--link-remap".to_owned());
    }
    if let Some(parent) = dump.parent {
        words.extend(["--prev-images-dir".to_owned(), text(parent)]);
    }
    if let Some(server) = dump.page_server {
        let port = server.port.to_string();
        words.extend(
            [
                "--page-server",
                "--address",
                &server.address,
                "--port",
                &port,
            ]
            .map(str::to_owned),
        );
    }
    for (target, _) in shown(plan) {
        if dump.mounted.contains(&target) {
            external(&mut words, format!("mnt[{0}]:{0}", target.display()));
        }
    }
    for (kind, number) in dump.outside {
        external(
            &mut words,
            format!("{}[{number}]:{}", kind.link(), outside(*kind)),
        );
    }
    words
}

fn external(words: &mut Vec<String>, what: String) {
    words.extend(["--external".to_owned(), what]);
}

/// What a restore has beside.
#[derive(Debug, Clone)]
pub(super) struct Restore<'a> {
    /// Where the root is mounted.
    pub root: &'a Path,
    pub pid_file: &'a Path,
    /// What standard streams were.
    pub streams: &'a [String],
    /// Namespaces of others, by descriptor.
    pub outside: &'a [(Namespace, i32)],
    pub lsm_profile: Option<&'a str>,
    pub lsm_mount_context: Option<&'a str>,
}

pub(super) fn restore(options: &CriuOptions, plan: &Plan, restore: &Restore<'_>) -> Vec<String> {
    let mut words = common(options, "restore", RESTORE_LOG);
    words.extend(["--restore-detached", "--restore-sibling"].map(str::to_owned));
    words.extend(["--pidfile".to_owned(), text(restore.pid_file)]);
    words.extend(["--root".to_owned(), text(restore.root)]);
    for (target, source) in shown(plan) {
        external(
            &mut words,
            format!("mnt[{}]:{}", target.display(), source.display()),
        );
    }
    for (index, stream) in restore.streams.iter().enumerate() {
        if stream.starts_with("pipe:") || stream.starts_with("socket:") {
            words.extend(["--inherit-fd".to_owned(), format!("fd[{index}]:{stream}")]);
        }
    }
    for (kind, fd) in restore.outside {
        words.extend([
            "--inherit-fd".to_owned(),
            format!("fd[{fd}]:{}", outside(*kind)),
        ]);
    }
    for (flag, value) in [
        ("--lsm-profile", restore.lsm_profile),
        ("--lsm-mount-context", restore.lsm_mount_context),
    ] {
        if let Some(value) = value {
            words.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::plan::{Facts, plan};
    use serde_json::json;
    use std::collections::BTreeMap;

    fn planned(namespaces: serde_json::Value) -> Plan {
        let facts = Facts {
            rootless: false,
            may_raise_limits: true,
            hard_limits: BTreeMap::new(),
            own_oom_score_adj: 0,
            nested: false,
            selinux: false,
            apparmor: false,
        };
        let spec = serde_json::from_value(json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs"},
            "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/data", "source": "/srv", "options": ["rbind"]}],
            "linux": {"namespaces": namespaces, "maskedPaths": ["/proc/kcore"]},
        }))
        .unwrap();
        plan(&spec, "/b".as_ref(), &facts).unwrap()
    }

    fn options() -> CriuOptions {
        CriuOptions {
            images: "/i".into(),
            tcp_established: true,
            ..CriuOptions::default()
        }
    }

    #[test]
    fn what_the_container_shows_of_the_host_is_outside() {
        let plan = planned(json!([{"type": "mount"}, {"type": "network", "path": "/run/n"}]));
        let mounted = ["/data".into(), "/proc/kcore".into()];
        let asked = Dump {
            pid: 7,
            leave_running: true,
            mounted: &mounted,
            outside: &[(Namespace::Network, 99)],
            ..Dump::default()
        };
        let words = dump(&options(), &plan, &asked).join(" ");
        let expected = "dump --images-dir /i --work-dir /i --log-file dump.log -v4 --manage-cgroups=ignore \
                        --tcp-established --tree 7 --leave-running --external mnt[/data]:/data \
                        --external mnt[/proc/kcore]:/proc/kcore --external net[99]:extRootNetNS";
        assert_eq!(words, expected);
        let streams = ["/dev/null", "pipe:[5]", "pipe:[6]"].map(str::to_owned);
        let asked = Restore {
            root: "/root".as_ref(),
            pid_file: "/pid".as_ref(),
            streams: &streams,
            outside: &[(Namespace::Network, 9)],
            lsm_profile: None,
            lsm_mount_context: None,
        };
        let words = restore(&options(), &plan, &asked).join(" ");
        for part in [
            "--external mnt[/data]:/srv",
            "--external mnt[/proc/kcore]:/dev/null",
            "--inherit-fd fd[1]:pipe:[5] --inherit-fd fd[2]:pipe:[6] --inherit-fd fd[9]:extRootNetNS",
        ] {
            assert!(words.contains(part), "{words}");
        }
        assert!(!words.contains("fd[0]"), "{words}");
    }

    #[test]
    fn memory_in_advance_is_tracked_and_leaves_everything_running() {
        let plan = planned(json!([{"type": "mount"}]));
        let asked = Dump {
            in_advance: true,
            leave_running: true,
            parent: Some("../1".as_ref()),
            ..Dump::default()
        };
        let words = dump(&options(), &plan, &asked).join(" ");
        assert!(
            words.starts_with("pre-dump ") && words.contains("--track-mem"),
            "{words}"
        );
        assert!(
            words.contains("--prev-images-dir ../1") && !words.contains("--leave-running"),
            "{words}"
        );
    }

    #[test]
    fn namespaces_that_cannot_be_left_out_are_refused() {
        let plan = planned(json!([{"type": "mount"}, {"type": "ipc", "path": "/run/i"}]));
        assert!(joined(&plan).is_err());
        assert!(
            "soft".parse() == Ok(ManageCgroups::Mode("soft"))
                && "none".parse::<ManageCgroups>().is_err()
        );
        for text in ["", ":1", "host", "host:x", "host:99999"] {
            assert!(text.parse::<PageServer>().is_err(), "{text}");
        }
    }
}
