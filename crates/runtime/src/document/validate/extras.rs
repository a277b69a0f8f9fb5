// SPDX-License-Identifier: Apache-2.0
//! Rules on what a container gets of network devices, memory nodes and caches.

use std::collections::BTreeSet;

use gantry_sys::netlink::is_device_name;

use super::resources::is_cpu_list;
use super::{Document, Findings, JsonPath};

pub(super) fn net_devices(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, Network Devices";
    let mut taken = BTreeSet::from(["lo"]);
    for (path, host, device) in document.map("/linux/netDevices") {
        if !document.has_namespace("network") {
            let problem = "it needs a namespace of type network to move into";
            findings.error(path.clone(), RULE, problem);
        }
        if !is_device_name(host) || host.contains('%') {
            findings.error(path, RULE, "that is no name of a network device");
            continue;
        }
        if host == "lo" {
            findings.error(
                path,
                RULE,
                "loopback belongs to its namespace and cannot be moved",
            );
            continue;
        }
        let given = device["name"].as_str().filter(|name| !name.is_empty());
        let place = if given.is_some() {
            path.key("name")
        } else {
            path
        };
        let name = given.unwrap_or(host);
        let template = name.contains('%');
        if !is_device_name(name)
            || template && (!name.ends_with("%d") || name.matches('%').count() != 1)
        {
            let problem =
                format!("{name:?} is no name of a network device, nor one that ends in %d");
            findings.error(place, RULE, problem);
        } else if !template && !taken.insert(name) {
            findings.error(
                place,
                RULE,
                format!("the container has a device {name} already"),
            );
        }
    }
}

/// Which modes of memory need nodes, and which cannot have any.
const NODES: [(&str, bool); 6] = [
    ("MPOL_DEFAULT", false),
    ("MPOL_LOCAL", false),
    ("MPOL_BIND", true),
    ("MPOL_INTERLEAVE", true),
    ("MPOL_WEIGHTED_INTERLEAVE", true),
    ("MPOL_PREFERRED_MANY", true),
];

pub(super) fn memory_policy(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "set_mempolicy(2)";
    let at = |name: &str| JsonPath::of_pointer("/linux/memoryPolicy").key(name);
    let text = |name: &str| document.text(&format!("/linux/memoryPolicy/{name}"));
    let (mode, nodes) = (
        text("mode").unwrap_or_default(),
        text("nodes").unwrap_or_default(),
    );
    if !is_cpu_list(nodes) {
        findings.error(
            at("nodes"),
            RULE,
            format!("{nodes:?} is no list of numbers and ranges"),
        );
    }
    match NODES.iter().find(|(known, _)| *known == mode) {
        Some((_, true)) if nodes.is_empty() => {
            findings.error(at("nodes"), RULE, format!("{mode} needs nodes"));
        }
        Some((_, false)) if !nodes.is_empty() => {
            findings.error(at("nodes"), RULE, format!("{mode} takes no nodes"));
        }
        _ => {}
    }
    let flags: BTreeSet<&str> = document
        .list("/linux/memoryPolicy/flags")
        .filter_map(|(_, flag)| flag.as_str())
        .collect();
    let of_nodes = ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"];
    if of_nodes.iter().all(|flag| flags.contains(flag)) {
        findings.error(
            at("flags"),
            RULE,
            "static and relative nodes exclude each other",
        );
    }
    if nodes.is_empty() && of_nodes.iter().any(|flag| flags.contains(flag)) {
        findings.error(
            at("flags"),
            RULE,
            "it says what nodes mean, and there are none",
        );
    }
    let balanced = ["MPOL_BIND", "MPOL_PREFERRED_MANY"].contains(&mode);
    if flags.contains("MPOL_F_NUMA_BALANCING") && !balanced {
        let problem = format!("MPOL_F_NUMA_BALANCING does not go with {mode}");
        findings.error(at("flags"), RULE, problem);
    }
}

pub(super) fn intel_rdt(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, IntelRdt";
    const RESERVED: [&str; 6] = ["", ".", "..", "info", "mon_groups", "mon_data"];
    let at = |name: &str| JsonPath::of_pointer("/linux/intelRdt").key(name);
    let text = |name: &str| document.text(&format!("/linux/intelRdt/{name}"));
    if let Some(id) = text("closID")
        && id != "/"
        && (RESERVED.contains(&id) || id.contains(['/', '\n']))
    {
        findings.error(at("closID"), RULE, format!("{id:?} is no name of a class"));
    }
    for (name, start, strict) in [
        ("l3CacheSchema", "L3:", false),
        ("memBwSchema", "MB:", true),
    ] {
        let Some(line) = text(name) else { continue };
        let problem = if line.contains('\n') {
            "it has more than one line".to_owned()
        } else if line.starts_with(start) {
            continue;
        } else {
            format!("it does not start with {start}")
        };
        if strict {
            findings.error(at(name), RULE, problem);
        } else {
            findings.warn(at(name), RULE, problem);
        }
    }
    for (path, line) in document.list("/linux/intelRdt/schemata") {
        if line.as_str().is_some_and(|line| line.contains('\n')) {
            findings.error(path, RULE, "it has more than one line");
        }
    }
    for name in ["enableCMT", "enableMBM"] {
        if document.at(&format!("/linux/intelRdt/{name}")).is_some() {
            let problem = "it never had a meaning; enableMonitoring replaces it from 1.3 on";
            findings.warn(at(name), RULE, problem);
        }
    }
}
