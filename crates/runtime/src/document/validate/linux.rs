// SPDX-License-Identifier: Apache-2.0
//! Rules on namespaces, mappings, devices, settings, paths and the system call filter.

use std::collections::BTreeSet;

use serde_json::Value;

use super::shapes::NAMESPACE_TYPES;
use super::{Document, Findings, JsonPath};

/// The name of a namespace's link in `/proc/PID/ns`.
fn link_name(kind: &str) -> &str {
    match kind {
        "network" => "net",
        "mount" => "mnt",
        other => other,
    }
}

pub(super) fn namespaces(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, Namespaces";
    let mut seen = BTreeSet::new();
    for (path, namespace) in document.list("/linux/namespaces") {
        let Some(kind) = namespace["type"].as_str() else {
            continue;
        };
        if !seen.insert(kind) {
            findings.error(
                path.key("type"),
                RULE,
                format!("{kind} occurs more than once"),
            );
        }
        let link = namespace["path"]
            .as_str()
            .filter(|text| text.starts_with("/proc/"))
            .and_then(|text| text.split_once("/ns/"))
            .map(|(_, link)| link.trim_end_matches("_for_children"));
        if let Some(link) = link
            && link != link_name(kind)
            && NAMESPACE_TYPES.iter().any(|other| link_name(other) == link)
        {
            let problem = format!("it names a namespace of another type than {kind}");
            findings.error(path.key("path"), RULE, problem);
        }
    }
}

/// The kernel's rules for `uid_map`: nothing empty, past the end or twice.
pub(super) fn check_mappings(path: &JsonPath, list: &Value, findings: &mut Findings) {
    const MAX_LINES: usize = 340;
    const RULE: &str = "user_namespaces(7)";
    let mappings = list.as_array().map_or(&[][..], Vec::as_slice);
    if mappings.len() > MAX_LINES {
        let problem = format!("the kernel takes {MAX_LINES} mappings");
        findings.error(path.clone(), RULE, problem);
        return;
    }
    for side in ["containerID", "hostID"] {
        let mut ranges = Vec::new();
        for (index, mapping) in mappings.iter().enumerate() {
            let (Some(start), Some(size)) = (mapping[side].as_u64(), mapping["size"].as_u64())
            else {
                continue;
            };
            if size == 0 && side == "hostID" {
                findings.error(path.index(index).key("size"), RULE, "it is 0");
            }
            let end = start.saturating_add(size);
            if end > u64::from(u32::MAX) {
                findings.error(path.index(index), RULE, "it reaches past the last id");
            }
            ranges.push((start, end, index));
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            if pair[1].0 < pair[0].1 {
                let problem = format!("its {side} range overlaps that of number {}", pair[0].2);
                findings.error(path.index(pair[1].2), RULE, problem);
            }
        }
    }
}

pub(super) fn mappings(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, User namespace mappings";
    for name in ["uidMappings", "gidMappings"] {
        let pointer = format!("/linux/{name}");
        let path = JsonPath::of_pointer(&pointer);
        let given = document.list(&pointer).next().is_some();
        if given && !document.has_namespace("user") {
            findings.error(path.clone(), RULE, "it needs a namespace of type user");
        }
        let made = document
            .list("/linux/namespaces")
            .any(|(_, n)| n["type"] == "user" && n["path"].as_str().is_none_or(str::is_empty));
        if made && !given {
            let problem = "a new user namespace without mappings can hold no process of an image";
            findings.warn(path.clone(), RULE, problem);
        }
        if let Some(list) = document.at(&pointer) {
            check_mappings(&path, list, findings);
        }
    }
}

pub(super) fn time_offsets(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, Offset for Time Namespace";
    for (path, clock, _) in document.map("/linux/timeOffsets") {
        if !document.has_namespace("time") {
            findings.error(path.clone(), RULE, "it needs a namespace of type time");
        }
        if !["boottime", "monotonic"].contains(&clock.as_str()) {
            let problem = format!("clocks are boottime and monotonic, not {clock:?}");
            findings.error(path, RULE, problem);
        }
    }
}

pub(super) fn devices(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, Devices";
    let (mut paths, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (path, device) in document.list("/linux/devices") {
        let kind = device["type"].as_str();
        for number in ["major", "minor"] {
            if kind.is_some_and(|kind| kind != "p") && device.get(number).is_none() {
                let problem = "it is required unless the type is p";
                findings.error(path.key(number), RULE, problem);
            }
        }
        if let Some(place) = device["path"].as_str()
            && !paths.insert(place)
        {
            let problem = format!("{place} occurs more than once");
            findings.error(path.key("path"), RULE, problem);
        }
        let pair = (device["major"].as_u64(), device["minor"].as_u64());
        if let (Some(kind), (Some(major), Some(minor))) = (kind, pair)
            && kind != "p"
            && !numbers.insert((kind, major, minor))
        {
            let problem = format!("{kind} {major}:{minor} should not be used for two devices");
            findings.warn(path, RULE, problem);
        }
    }
}

/// Prefixes of settings, and the namespace that keeps them; the first that fits counts.
const SETTINGS: [(&str, &str); 8] = [
    ("net.", "network"),
    ("fs.mqueue.", "ipc"),
    ("kernel.msg", "ipc"),
    ("kernel.sem", "ipc"),
    ("kernel.shm", "ipc"),
    ("kernel.hostname", "uts"),
    ("kernel.domainname", "uts"),
    ("user.", "user"),
];

pub(super) fn sysctls(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, Sysctl";
    for (path, key, _) in document.map("/linux/sysctl") {
        let dotted = key.replace('/', ".");
        if dotted.split('.').any(str::is_empty) {
            findings.error(path, RULE, format!("{key:?} is no name of a setting"));
            continue;
        }
        match SETTINGS
            .iter()
            .find(|(prefix, _)| dotted.starts_with(prefix))
        {
            Some((_, namespace)) if document.has_namespace(namespace) => {}
            Some((_, namespace)) => {
                let problem = format!("it needs a namespace of type {namespace}");
                findings.error(path, RULE, problem);
            }
            None => {
                let problem = "it is the whole host's; runtimes refuse it";
                findings.warn(path, RULE, problem);
            }
        }
    }
}

pub(super) fn paths(document: Document<'_>, findings: &mut Findings) {
    if let Some(word) = document.text("/linux/rootfsPropagation")
        && word.starts_with('r')
    {
        let path = JsonPath::of_pointer("/linux/rootfsPropagation");
        let problem = format!("{word} is not of the specification, though runtimes know it");
        findings.warn(path, "config-linux.md, Rootfs Mount Propagation", problem);
    }
    for (pointer, rule) in [
        ("/linux/maskedPaths", "config-linux.md, Masked Paths"),
        ("/linux/readonlyPaths", "config-linux.md, Readonly Paths"),
    ] {
        if document.list(pointer).next().is_some() && !document.has_namespace("mount") {
            let problem = "without a mount namespace it would change the host";
            findings.warn(JsonPath::of_pointer(pointer), rule, problem);
        }
    }
}

const SECCOMP: &str = "config-linux.md, Seccomp";

/// Error numbers go with the actions that return one.
pub(super) fn seccomp(document: Document<'_>, findings: &mut Findings) {
    let takes_errno = |action: &Value| {
        action
            .as_str()
            .is_none_or(|word| ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&word))
    };
    let filter = document.at("/linux/seccomp").unwrap_or(&Value::Null);
    if filter.get("defaultErrnoRet").is_some() && !takes_errno(&filter["defaultAction"]) {
        let path = JsonPath::of_pointer("/linux/seccomp/defaultErrnoRet");
        findings.error(path, SECCOMP, "the default action takes no error number");
    }
    for (path, rule) in document.list("/linux/seccomp/syscalls") {
        if rule.get("errnoRet").is_some() && !takes_errno(&rule["action"]) {
            let problem = "the action takes no error number";
            findings.error(path.key("errnoRet"), SECCOMP, problem);
        }
        let same_as_default = rule["action"] == filter["defaultAction"]
            && rule.get("errnoRet") == filter.get("defaultErrnoRet")
            && rule["action"].is_string();
        if same_as_default {
            let problem = "it does what the default action does already";
            findings.warn(path.key("action"), SECCOMP, problem);
        }
    }
}

/// A filter that asks a listener needs one, and only such a filter.
pub(super) fn seccomp_listener(document: Document<'_>, findings: &mut Findings) {
    let at = |name: &str| JsonPath::of_pointer("/linux/seccomp").key(name);
    let listener = document.text("/linux/seccomp/listenerPath").unwrap_or("");
    let notify = |action: &Value| action == "SCMP_ACT_NOTIFY";
    if document
        .at("/linux/seccomp/defaultAction")
        .is_some_and(notify)
    {
        let problem = "the listener could not be reached, as sending to it is a system call, too";
        findings.error(at("defaultAction"), SECCOMP, problem);
    }
    let asks = document
        .list("/linux/seccomp/syscalls")
        .any(|(_, rule)| notify(&rule["action"]));
    if asks && listener.is_empty() {
        let problem = "SCMP_ACT_NOTIFY needs a listener";
        findings.error(at("listenerPath"), SECCOMP, problem);
    }
    let metadata = document
        .text("/linux/seccomp/listenerMetadata")
        .unwrap_or("");
    if listener.is_empty() && !metadata.is_empty() {
        let problem = "it must not be set without listenerPath";
        findings.error(at("listenerMetadata"), SECCOMP, problem);
    }
}
