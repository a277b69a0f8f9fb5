// SPDX-License-Identifier: Apache-2.0
//! Rules on the process.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Document, Findings, JsonPath};
use crate::capability::Capability;

pub(super) fn arguments(document: Document<'_>, findings: &mut Findings) {
    let Some(process) = document.at("/process") else {
        return;
    };
    let path = JsonPath::of_pointer("/process/args");
    let rule = "config.md, POSIX process";
    if process.is_object() && process.get("args").is_none() {
        findings.error(path, rule, "it is required for a container of Linux");
    } else if document.text("/process/args/0") == Some("") {
        findings.error(path.index(0), rule, "the program's name is empty");
    }
}

pub(super) fn environment(document: Document<'_>, findings: &mut Findings) {
    if let Some(env) = document.at("/process/env") {
        check_environment(&JsonPath::of_pointer("/process/env"), env, findings);
    }
}

/// `NAME=value`, as `environ(7)` has it.
pub(super) fn check_environment(path: &JsonPath, env: &Value, findings: &mut Findings) {
    const RULE: &str = "config.md, Process (environ)";
    let mut seen = BTreeSet::new();
    for (index, entry) in env.as_array().into_iter().flatten().enumerate() {
        let Some(text) = entry.as_str() else {
            continue;
        };
        match text.split_once('=') {
            None | Some(("", _)) => {
                let problem = format!("{text:?} is not NAME=value");
                findings.error(path.index(index), RULE, problem);
            }
            Some((name, _)) if !seen.insert(name) => {
                let problem = format!("{name:?} is set twice; which one counts is open");
                findings.warn(path.index(index), RULE, problem);
            }
            Some(_) => {}
        }
    }
}

pub(super) fn console(document: Document<'_>, findings: &mut Findings) {
    let terminal = document.at("/process/terminal") == Some(&Value::Bool(true));
    if document.at("/process/consoleSize").is_some() && !terminal {
        let path = JsonPath::of_pointer("/process/consoleSize");
        let problem = "it is ignored without a terminal";
        findings.warn(path, "config.md, Process", problem);
    }
}

pub(super) fn limits(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config.md, POSIX process";
    let mut seen = BTreeSet::new();
    for (path, limit) in document.list("/process/rlimits") {
        if let Some(kind) = limit["type"].as_str()
            && !seen.insert(kind)
        {
            findings.error(
                path.key("type"),
                RULE,
                format!("{kind} occurs more than once"),
            );
        }
        if let (Some(soft), Some(hard)) = (limit["soft"].as_u64(), limit["hard"].as_u64())
            && soft > hard
        {
            let problem = format!("the soft limit {soft} is above the hard limit {hard}");
            findings.error(path.key("soft"), "setrlimit(2)", problem);
        }
    }
}

/// What the kernel refuses, and permitted capabilities that no program would get.
const SUBSETS: [(&str, &str); 4] = [
    ("effective", "permitted"),
    ("permitted", "bounding"),
    ("ambient", "permitted"),
    ("ambient", "inheritable"),
];

pub(super) fn capabilities(document: Document<'_>, findings: &mut Findings) {
    const RULE: &str = "config.md, Linux Process";
    let at = |set: &str| format!("/process/capabilities/{set}");
    for (_, set, _) in document.map("/process/capabilities") {
        for (path, word) in document.list(&at(set)) {
            let Some(name) = word.as_str() else { continue };
            if Capability::find(name).is_none_or(|known| known.name() != name) {
                let problem = format!("{name:?} is no capability that is known here");
                findings.warn(path, RULE, problem);
            }
        }
    }
    for (inner, outer) in SUBSETS {
        let whole: BTreeSet<_> = document
            .list(&at(outer))
            .filter_map(|(_, word)| word.as_str())
            .collect();
        for (path, word) in document.list(&at(inner)) {
            if let Some(name) = word.as_str().filter(|name| !whole.contains(name)) {
                let problem = format!("{name} is {inner} and not {outer}");
                findings.error(path, "capabilities(7)", problem);
            }
        }
    }
}

/// Which members go with which policy.
pub(super) fn scheduler(document: Document<'_>, findings: &mut Findings) {
    let Some(policy) = document.text("/process/scheduler/policy") else {
        return;
    };
    let realtime = ["SCHED_FIFO", "SCHED_RR"].contains(&policy);
    let deadline = policy == "SCHED_DEADLINE";
    for (path, name, value) in document.map("/process/scheduler") {
        let fits = match name.as_str() {
            "nice" => ["SCHED_OTHER", "SCHED_BATCH"].contains(&policy),
            "priority" => realtime,
            "runtime" | "deadline" | "period" => deadline,
            _ => true,
        };
        if !fits && value.as_i64() != Some(0) {
            let problem = format!("{name} means nothing to {policy}");
            findings.error(path, "sched_setattr(2)", problem);
        }
    }
    let priority = document
        .at("/process/scheduler/priority")
        .and_then(Value::as_i64);
    if realtime && !(1..=99).contains(&priority.unwrap_or(0)) {
        let path = JsonPath::of_pointer("/process/scheduler/priority");
        let problem = format!("{policy} needs a priority between 1 and 99");
        findings.error(path, "sched(7)", problem);
    }
}
