// SPDX-License-Identifier: Apache-2.0
//! Rules on the version, the root, mounts, names and hooks.

use serde_json::Value;

use super::{Document, Findings, JsonPath};

/// Three numbers, a first release line that is 1, and what semantic versioning lets follow.
pub(super) fn version(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config.md, Specification version";
    let Some(text) = document.text("/ociVersion") else {
        return;
    };
    let path = JsonPath::of_pointer("/ociVersion");
    let (core, rest) = text
        .find(['-', '+'])
        .map_or((text, ""), |at| text.split_at(at));
    let numbers: Vec<_> = core.split('.').collect();
    let plain = |number: &&str| {
        number.bytes().all(|b| b.is_ascii_digit())
            && !number.is_empty()
            && (*number == "0" || !number.starts_with('0'))
    };
    let tail = |c: char| c.is_ascii_alphanumeric() || "-+.".contains(c);
    if numbers.len() != 3
        || !numbers.iter().all(plain)
        || rest.len() == 1
        || !rest.chars().all(tail)
    {
        let problem = format!("{text:?} is no version in SemVer 2.0.0 form");
        findings.error(path, RULE, problem);
    } else if numbers[0] != "1" {
        let problem = format!("these are the rules of 1.x, and the document follows {text}");
        findings.error(path, RULE, problem);
    }
}

pub(super) fn root(document: Document<'_>, findings: &mut Findings) {
    if document.text("/root/path") == Some("") {
        let path = JsonPath::of_pointer("/root/path");
        findings.error(path, "config.md, Root", "it is empty");
    }
}

fn options(mount: &Value) -> impl Iterator<Item = &str> {
    mount["options"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn is_bind(mount: &Value) -> bool {
    mount["type"] == "bind" || options(mount).any(|o| o == "bind" || o == "rbind")
}

/// Each mount has a place and, if it is one of the host's paths, a source.
pub(super) fn mounts(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config.md, Mounts";
    const OPTIONS: &str = "config.md, Linux mount options";
    for (path, mount) in document.list("/mounts") {
        match mount["destination"].as_str() {
            Some("") => findings.error(path.key("destination"), RULE, "it is empty"),
            Some(place) if !place.starts_with('/') => {
                let problem = format!("{place:?} is relative, which runtimes need not take");
                findings.warn(path.key("destination"), RULE, problem);
            }
            _ => {}
        }
        if is_bind(mount) {
            if mount["source"].as_str().is_none_or(str::is_empty) {
                findings.error(path.key("source"), RULE, "a bind mount needs a source");
            }
        } else if mount.get("type").is_none() {
            let problem = "a mount that is no bind mount needs a type";
            findings.error(path.key("type"), RULE, problem);
        }
        let pairs = [("ro", "rw"), ("suid", "nosuid"), ("exec", "noexec")];
        for (one, other) in pairs.into_iter().chain([("dev", "nodev")]) {
            if options(mount).any(|o| o == one) && options(mount).any(|o| o == other) {
                let problem = format!("{one} and {other} contradict each other; the last one wins");
                findings.warn(path.key("options"), OPTIONS, problem);
            }
        }
    }
    if document.list("/mounts").next().is_some() && !document.has_namespace("mount") {
        let path = JsonPath::of_pointer("/mounts");
        let problem = "without a mount namespace these would be mounts of the host";
        findings.warn(path, "config-linux.md, Namespaces", problem);
    }
}

/// Mappings of a mount come in pairs, on bind mounts, with the option that says so.
pub(super) fn mount_mappings(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config.md, POSIX-platform Mounts";
    for (path, mount) in document.list("/mounts") {
        let has = |name: &str| mount[name].as_array().is_some_and(|list| !list.is_empty());
        let (uids, gids) = (has("uidMappings"), has("gidMappings"));
        let asked = options(mount).any(|o| o == "idmap" || o == "ridmap");
        if uids != gids {
            let problem = "uidMappings and gidMappings must be given together";
            findings.error(path.clone(), RULE, problem);
        }
        if (uids || gids) && !asked {
            let problem = "mappings should come with the option idmap or ridmap";
            findings.warn(path.key("options"), RULE, problem);
        }
        if asked && !uids && !gids && !document.has_namespace("user") {
            let problem = "idmap needs mappings of the mount or a user namespace";
            findings.error(
                path.key("options"),
                "config.md, Linux mount options",
                problem,
            );
        }
        if (uids || gids || asked) && !is_bind(mount) {
            let problem = "runtimes map the ids of bind mounts only";
            findings.warn(path.clone(), RULE, problem);
        }
        for name in ["uidMappings", "gidMappings"] {
            super::linux::check_mappings(&path.key(name), &mount[name], findings);
        }
    }
}

/// The host's own names must not be set.
pub(super) fn names(document: Document<'_>, findings: &mut Findings) {
    for (name, rule) in [
        ("hostname", "config.md, Hostname"),
        ("domainname", "config.md, Domainname"),
    ] {
        let pointer = format!("/{name}");
        let Some(text) = document.text(&pointer) else {
            continue;
        };
        let path = JsonPath::of_pointer(&pointer);
        if !text.is_empty() && !document.has_namespace("uts") {
            let problem = "it needs a namespace of type uts";
            findings.error(path.clone(), rule, problem);
        }
        if text.len() > 64 {
            findings.error(path, "sethostname(2)", "the kernel takes 64 bytes");
        }
    }
}

pub(super) fn hooks(document: Document<'_>, findings: &mut Findings) {
    if document.list("/hooks/prestart").next().is_some() {
        let path = JsonPath::of_pointer("/hooks/prestart");
        let problem = "prestart is deprecated in favour of createRuntime and its kin";
        findings.warn(path, "config.md, Prestart", problem);
    }
    for (_, stage, list) in document.map("/hooks") {
        for (index, hook) in list.as_array().into_iter().flatten().enumerate() {
            let path = JsonPath::of_pointer("/hooks").key(stage).index(index);
            super::process::check_environment(&path.key("env"), &hook["env"], findings);
        }
    }
}
