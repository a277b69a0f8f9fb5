// SPDX-License-Identifier: Apache-2.0
//! Rules on what a container may use.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Document, Findings, JsonPath};

/// Two limits and what holds between them, where both are set.
const ORDER: [(&str, &str, &str); 4] = [
    ("memory/limit", "memory/swap", "config-linux.md, Memory"),
    (
        "memory/reservation",
        "memory/limit",
        "config-linux.md, Memory",
    ),
    ("cpu/burst", "cpu/quota", "config-linux.md, CPU"),
    (
        "cpu/realtimeRuntime",
        "cpu/realtimePeriod",
        "config-linux.md, CPU",
    ),
];

pub(super) fn memory_and_cpu(document: Document<'_>, findings: &mut Findings) {
    let number = |name: &str| {
        let value = document.at(&format!("/linux/resources/{name}"))?;
        value.as_i64().filter(|number| *number > 0)
    };
    for (low, high, rule) in ORDER {
        if let (Some(lower), Some(upper)) = (number(low), number(high))
            && lower > upper
        {
            let path = JsonPath::of_pointer(&format!("/linux/resources/{low}"));
            let problem = format!(
                "{lower} is above {}, which is {upper}",
                high.replace('/', ".")
            );
            findings.error(path, rule, problem);
        }
    }
    for name in ["cpus", "mems"] {
        let pointer = format!("/linux/resources/cpu/{name}");
        if let Some(text) = document.text(&pointer)
            && !is_cpu_list(text)
        {
            let problem = format!("{text:?} is no list of numbers and ranges");
            findings.error(JsonPath::of_pointer(&pointer), "cpuset(7)", problem);
        }
    }
}

/// `0-3,7`; nothing is a list, too.
pub(super) fn is_cpu_list(text: &str) -> bool {
    text.is_empty()
        || text.trim_end_matches('\n').split(',').all(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            match (low.trim().parse::<u32>(), high.trim().parse::<u32>()) {
                (Ok(low), Ok(high)) => low <= high,
                _ => false,
            }
        })
}

/// A number with a unit, as in the file names of the controller.
fn is_page_size(text: &str) -> bool {
    let number = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| text.strip_suffix(unit));
    number.is_some_and(|number| {
        !number.starts_with('0')
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

pub(super) fn controllers(document: Document<'_>, findings: &mut Findings) {
    device_rules(document, findings);
    block_io(document, findings);
    let mut sizes = BTreeSet::new();
    for (path, limit) in document.list("/linux/resources/hugepageLimits") {
        let Some(size) = limit["pageSize"].as_str() else {
            continue;
        };
        let rule = "config-linux.md, Huge page limits";
        if !is_page_size(size) {
            let problem = format!("{size:?} is not a number with KB, MB or GB");
            findings.error(path.key("pageSize"), rule, problem);
        } else if !sizes.insert(size) {
            let problem = format!("{size} occurs more than once");
            findings.warn(path.key("pageSize"), rule, problem);
        }
    }
    for (path, _, device) in document.map("/linux/resources/rdma") {
        if device.as_object().is_some_and(serde_json::Map::is_empty) {
            let problem = "hcaHandles or hcaObjects must be given";
            findings.error(path, "config-linux.md, RDMA", problem);
        }
    }
    for (path, name, _) in document.map("/linux/resources/unified") {
        if name.contains('/') || name.starts_with("cgroup.") || !name.contains('.') {
            let problem = format!("{name:?} is no file of a controller");
            findings.error(path, "config-linux.md, Unified", problem);
        }
    }
}

fn device_rules(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config-linux.md, Allowed Device list";
    for (path, rule) in document.list("/linux/resources/devices") {
        if let Some(access) = rule["access"].as_str()
            && (access.is_empty() || !access.chars().all(|c| "rwm".contains(c)))
        {
            let problem = format!("{access:?} is not made of r, w and m");
            findings.error(path.key("access"), RULE, problem);
        }
    }
}

fn block_io(document: Document<'_>, findings: &mut Findings) {
    for (path, device) in document.list("/linux/resources/blockIO/weightDevice") {
        let given = |name| device.get(name).is_some_and(Value::is_number);
        if device.is_object() && !given("weight") && !given("leafWeight") {
            let problem = "weight or leafWeight must be given";
            findings.error(path, "config-linux.md, Block IO", problem);
        }
    }
}
