// SPDX-License-Identifier: Apache-2.0
//! Which hierarchies are mounted, and where this process is in them.

use std::path::PathBuf;

use gantry_sys::SysError;
use gantry_sys::proc::Proc;
use serde::{Deserialize, Serialize};

/// The control groups of this host, as this process sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCgroups {
    /// Those of version 1.
    pub hierarchies: Vec<Hierarchy>,
    /// The one of version 2.
    pub unified: Option<Hierarchy>,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What it counts and limits; for a named one, its name (`name=systemd`). Of version 2: what its root offers.
    pub controllers: Vec<String>,
    /// This process's group, below the mount, without a leading slash.
    pub own: String,
}

impl Hierarchy {
    /// True for one of version 1 that only groups.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.controllers
            .iter()
            .any(|name| name.starts_with("name="))
    }

    /// True when it has a controller.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

impl HostCgroups {
    /// Looks.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn probe() -> Result<Self, SysError> {
        let proc = Proc::open()?;
        let mut host = Self::parse(&proc.read("self/mountinfo")?, &proc.read("self/cgroup")?);
        if let Some(unified) = &mut host.unified {
            let file = unified.mount.join(&unified.own).join("cgroup.controllers");
            let root = unified.mount.join("cgroup.controllers");
            // In a namespace whose root one may not read, one's own group tells.
            let listed = std::fs::read_to_string(root).or_else(|_| std::fs::read_to_string(file));
            unified.controllers = listed
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect();
        }
        Ok(host)
    }

    /// True when version 2 is what limits here.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.unified.is_some() && self.hierarchies.iter().all(Hierarchy::is_named)
    }

    /// Reads `/proc/PID/mountinfo` and `/proc/PID/cgroup`.
    #[must_use]
    pub fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut host = Self::default();
        for line in mountinfo.lines() {
            let Some(mount) = Mount::parse(line) else {
                continue;
            };
            if mount.version == 2 && host.unified.is_none() {
                let own = own_path(cgroup, |id, names| id == "0" && names.is_empty());
                host.unified = Some(Hierarchy {
                    own: below(&own, &mount.root),
                    mount: mount.point,
                    controllers: Vec::new(),
                });
            } else if mount.version == 1
                && !host
                    .hierarchies
                    .iter()
                    .any(|known| known.controllers == mount.controllers)
            {
                let own = own_path(cgroup, |_, names| {
                    names
                        .split(',')
                        .any(|name| mount.controllers.iter().any(|have| have == name))
                });
                host.hierarchies.push(Hierarchy {
                    own: below(&own, &mount.root),
                    mount: mount.point,
                    controllers: mount.controllers,
                });
            }
        }
        host
    }
}

struct Mount {
    point: PathBuf,
    root: String,
    version: u8,
    controllers: Vec<String>,
}

impl Mount {
    /// A line of `mountinfo`: id, parent, device, root, point, options, optional fields, `-`, type, source, super options.
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let version = match right.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let controllers = right
            .nth(1)?
            .split(',')
            .filter(|word| word.starts_with("name=") || CONTROLLERS_1.contains(word))
            .map(str::to_owned)
            .collect();
        Some(Self {
            point: PathBuf::from(unescape(point)),
            root: unescape(root),
            version,
            controllers,
        })
    }
}

/// The controllers of version 1, which stand among a mount's other options.
const CONTROLLERS_1: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// Space, tab, newline and backslash are octal in `mountinfo`.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, letter) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        plain = plain.replace(code, letter);
    }
    plain
}

/// The path of a line `id:names:path` of `/proc/PID/cgroup`.
pub(super) fn own_path(cgroup: &str, wanted: impl Fn(&str, &str) -> bool) -> String {
    let mut lines = cgroup.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    lines
        .find(|(id, names, _)| wanted(id, names))
        .map_or_else(|| "/".to_owned(), |(_, _, path)| path.to_owned())
}

/// A path of the hierarchy, below what a mount shows of it.
fn below(path: &str, root: &str) -> String {
    let root = root.trim_end_matches('/');
    let rest = match path.strip_prefix(root) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        // Out of sight, as with a bind of another group.
        _ => "",
    };
    // A group beyond the namespace's root is shown by "..", and cannot be reached.
    let rest = rest.trim_matches('/');
    if rest.split('/').any(|part| part == "..") {
        String::new()
    } else {
        rest.to_owned()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,noprefix,cpuset
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    pub(crate) const HYBRID_OWN: &str = "\
9:name=systemd:/
5:cpu,cpuacct:/a b
4:memory:/process/b2fe
0::/session.scope
";

    pub(crate) fn hybrid() -> HostCgroups {
        HostCgroups::parse(HYBRID_MOUNTS, HYBRID_OWN)
    }

    pub(crate) fn unified() -> HostCgroups {
        let mounts =
            "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let mut host = HostCgroups::parse(mounts, "0::/user.slice/session.scope\n");
        let names = [
            "cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc",
        ];
        host.unified.as_mut().unwrap().controllers = names.map(str::to_owned).to_vec();
        host
    }

    #[test]
    fn version_1_beside_version_2_is_what_limits() {
        let host = hybrid();
        assert!(!host.is_unified());
        let of = |name: &str| host.hierarchies.iter().find(|h| h.has(name)).unwrap();
        assert_eq!(
            (of("cpuacct").own.as_str(), of("memory").own.as_str()),
            ("a b", "process/b2fe")
        );
        assert!(of("name=systemd").is_named() && of("cpuset").own.is_empty());
        assert_eq!(host.unified.unwrap().own, "session.scope");
    }

    #[test]
    fn version_2_alone_limits_also_beside_a_named_hierarchy() {
        assert!(unified().is_unified());
        let mounts = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(HostCgroups::parse(mounts, "0::/\n").is_unified());
        assert!(!HostCgroups::default().is_unified());
    }

    #[test]
    fn own_group_is_below_what_the_mount_shows() {
        for (path, root, want) in [
            ("/docker/abc/x", "/docker/abc", "x"),
            ("/docker/abcd", "/docker/abc", ""),
            ("/", "/", ""),
            ("/../other", "/", ""),
            ("/a", "/", "a"),
        ] {
            assert_eq!(below(path, root), want, "{path} {root}");
        }
    }

    #[test]
    fn this_host_is_read() {
        let host = HostCgroups::probe().unwrap();
        for hierarchy in host.hierarchies.iter().chain(&host.unified) {
            assert!(
                hierarchy
                    .mount
                    .join(&hierarchy.own)
                    .join("cgroup.procs")
                    .exists(),
                "{hierarchy:?}"
            );
        }
    }
}
