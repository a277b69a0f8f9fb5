// SPDX-License-Identifier: Apache-2.0
//! A plan as lines for people: what is done, in order, and why.

use std::fmt::Write as _;

use super::{MountKind, Plan};

impl Plan {
    /// One line a step, in the order in which they are taken.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |what: String, why: &str| {
            let mut line = what;
            if !why.is_empty() {
                write!(line, "    # {why}").ok();
            }
            lines.push(line);
        };
        for step in &self.namespaces.steps {
            match &step.path {
                None => say(
                    format!("new {} namespace", step.kind.link()),
                    ".linux.namespaces",
                ),
                Some(path) => say(
                    format!("join {} namespace {}", step.kind.link(), path.display()),
                    ".linux.namespaces",
                ),
            }
        }
        for (what, list, why) in [
            ("users", &self.namespaces.uid_mappings, ".linux.uidMappings"),
            (
                "groups",
                &self.namespaces.gid_mappings,
                ".linux.gidMappings",
            ),
        ] {
            for map in list {
                let (inside, outside, size) = (map.container, map.host, map.size);
                say(
                    format!("map {what} {inside} to {outside}, {size} of them"),
                    why,
                );
            }
        }
        for (what, name) in [
            ("hostname", &self.hostname),
            ("domainname", &self.domainname),
        ] {
            if let Some(name) = name {
                say(format!("set {what} {name:?}"), &format!(".{what}"));
            }
        }
        for device in &self.net_devices {
            say(
                format!("move network device {} in as {}", device.host, device.name),
                &device.reason,
            );
        }
        say(format!("root {}", self.rootfs.path.display()), ".root.path");
        for mount in &self.mounts {
            let what = match &mount.kind {
                MountKind::Bind { source, recursive } => format!(
                    "{} {}",
                    if *recursive { "rbind" } else { "bind" },
                    source.display()
                ),
                MountKind::FileSystem { name, .. } => format!("mount {name}"),
                MountKind::ControlGroups { .. } => "mount control groups".to_owned(),
            };
            say(
                format!("{what} at {}", mount.target.display()),
                &mount.reason,
            );
        }
        for device in &self.devices {
            say(
                format!(
                    "device {} {:?} {}:{} {:o}",
                    device.path.display(),
                    device.kind,
                    device.major,
                    device.minor,
                    device.mode
                ),
                &device.reason,
            );
        }
        for link in &self.links {
            say(
                format!("link {} to {}", link.path, link.target),
                "a default link",
            );
        }
        for sysctl in &self.sysctls {
            say(
                format!("write {} to {}", sysctl.value, sysctl.path),
                &sysctl.reason,
            );
        }
        for step in &self.readonly_paths {
            say(format!("read-only {}", step.path.display()), &step.reason);
        }
        for step in &self.masked_paths {
            say(format!("hide {}", step.path.display()), &step.reason);
        }
        say("pivot into the root".to_owned(), "");
        if self.rootfs.readonly {
            say("read-only root".to_owned(), ".root.readonly");
        }
        let process = &self.process;
        for limit in &process.rlimits {
            say(
                format!("{} {} of {}", limit.name, limit.soft, limit.hard),
                ".process.rlimits",
            );
        }
        if let Some(policy) = &process.memory_policy {
            say(
                format!(
                    "memory by policy {:#x} of nodes {:?}",
                    policy.mode, policy.nodes
                ),
                ".linux.memoryPolicy",
            );
        }
        if let Some(masks) = &process.capabilities {
            say(
                format!("bound capabilities to: {}", masks.bounding),
                ".process.capabilities",
            );
        }
        say(
            format!(
                "become {}:{}, groups {:?}",
                process.uid, process.gid, process.groups
            ),
            ".process.user",
        );
        if process.no_new_privileges {
            say("gain no privileges".to_owned(), ".process.noNewPrivileges");
        }
        say(
            format!("execute {:?} in {}", process.args, process.cwd.display()),
            ".process.args",
        );
        lines
    }
}
