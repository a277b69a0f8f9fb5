// SPDX-License-Identifier: Apache-2.0
//! Control groups of this machine, and what the kernel does with what we write.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;
use std::process::{Child, Command};

use gantry_runtime::oci::cgroup::host::Hierarchy;
use gantry_runtime::oci::cgroup::{Cgroup, CgroupPlan, Driver, HostCgroups, plan};
use gantry_testkit::skip;
use gantry_testkit::skip::is_root;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

fn spec(path: &str, resources: &Value) -> Spec {
    serde_json::from_value(json!({
        "ociVersion": "1.2.0", "linux": {"cgroupsPath": path, "resources": resources},
    }))
    .unwrap()
}

/// A group that is removed whatever happens.
struct Made(Cgroup);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.delete().ok();
    }
}

fn made(plan: &CgroupPlan) -> Made {
    Made(plan.create().unwrap())
}

fn name(test: &str) -> String {
    format!("/gantry-test-{}-{test}", std::process::id())
}

fn has(host: &HostCgroups, controller: &str) -> bool {
    let unified = host.unified.as_ref().filter(|_| host.is_unified());
    host.hierarchies
        .iter()
        .chain(unified)
        .any(|hierarchy| hierarchy.has(controller))
}

/// A process that sleeps, in the group.
fn sleeper(cgroup: &mut Cgroup) -> Child {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    cgroup.join(child.id()).unwrap();
    child
}

/// The host, if groups can be made on it.
fn host() -> Option<HostCgroups> {
    let host = HostCgroups::probe().unwrap();
    let usable = |hierarchy: &Hierarchy| {
        let probe = hierarchy.mount.join(format!(
            "gantry-probe-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir(&probe).is_ok_and(|()| std::fs::remove_dir(&probe).is_ok())
    };
    let first = if host.is_unified() {
        host.unified.as_ref()
    } else {
        host.hierarchies.first()
    };
    (is_root() && first.is_some_and(usable)).then_some(host)
}

/// Only the hierarchy of version 2, wherever it is mounted.
fn unified_alone(host: &HostCgroups) -> Option<HostCgroups> {
    Some(HostCgroups {
        hierarchies: Vec::new(),
        unified: Some(host.unified.clone()?),
    })
}

fn file(cgroup: &Cgroup, controller: &str, name: &str) -> String {
    let path = cgroup.path_of(controller).unwrap().join(name);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn privileged_limits_arrive_and_change() {
    let Some(host) = host() else {
        skip!("control groups cannot be made here");
    };
    let mut resources = json!({});
    if has(&host, "memory") {
        resources["memory"] = json!({"limit": 64 << 20, "swap": 64 << 20});
    }
    if has(&host, "pids") {
        resources["pids"] = json!({"limit": 17});
    }
    if has(&host, "cpu") {
        resources["cpu"] = json!({"shares": 512, "quota": 20000, "period": 50000});
    }
    if has(&host, "cpuset") {
        resources["cpu"]["cpus"] = "0".into();
    }
    let plan = plan(
        &spec(&name("limits"), &resources),
        "id",
        &host,
        &Driver::Files,
        false,
    )
    .unwrap();
    let mut made = made(&plan);
    let unified = host.is_unified();
    let check = |cgroup: &Cgroup, memory: u64, shares: u64| {
        if has(&host, "memory") {
            let file_name = if unified {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            assert_eq!(file(cgroup, "memory", file_name), memory.to_string());
        }
        if has(&host, "pids") {
            assert_eq!(file(cgroup, "pids", "pids.max"), "17");
        }
        if has(&host, "cpu") && !unified {
            assert_eq!(file(cgroup, "cpu", "cpu.shares"), shares.to_string());
            assert_eq!(file(cgroup, "cpu", "cpu.cfs_quota_us"), "20000");
        }
    };
    check(&made.0, 64 << 20, 512);
    let mut child = sleeper(&mut made.0);
    assert_eq!(made.0.pids().unwrap(), [child.id()]);

    // Up and down again: each order of memory and swap is refused one way.
    for memory in [128_u64 << 20, 32 << 20] {
        let mut change = json!({});
        if has(&host, "memory") {
            change["memory"] = json!({"limit": memory, "swap": memory});
        }
        if has(&host, "cpu") {
            change["cpu"] = json!({"shares": 2048});
        }
        let notes = made
            .0
            .update(&serde_json::from_value(change).unwrap())
            .unwrap();
        assert!(notes.is_empty());
        check(&made.0, memory, 2048);
    }
    let stats = serde_json::to_value(made.0.stats().unwrap()).unwrap();
    if has(&host, "pids") {
        assert_eq!(stats["pids"], json!({"current": 1, "limit": 17}));
    }
    if has(&host, "memory") {
        assert_eq!(stats["memory"]["usage"]["limit"], json!(32 << 20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn privileged_processes_stand_still_and_end() {
    let Some(host) = host() else {
        skip!("control groups cannot be made here");
    };
    let hosts = [Some(host.clone()), unified_alone(&host)];
    for (index, host) in hosts.into_iter().flatten().enumerate() {
        let path = name(&format!("freeze{index}"));
        // The program for devices is another test's.
        let mut plan = plan(&spec(&path, &json!({})), "id", &host, &Driver::Files, false).unwrap();
        plan.devices = None;
        let mut made = made(&plan);
        let mut children: Vec<Child> = (0..3).map(|_| sleeper(&mut made.0)).collect();
        assert_eq!(made.0.pids().unwrap().len(), 3);
        made.0.freeze().unwrap();
        assert!(made.0.is_frozen().unwrap());
        made.0.thaw().unwrap();
        assert!(!made.0.is_frozen().unwrap());

        // Found again by what is remembered, as another program does it; and killed though frozen.
        let text = serde_json::to_string(made.0.state()).unwrap();
        let again = Cgroup::open(&serde_json::from_str(&text).unwrap()).unwrap();
        again.freeze().unwrap();
        again.kill().unwrap();
        for child in &mut children {
            assert!(!child.wait().unwrap().success());
        }
        let groups: Vec<PathBuf> = plan
            .groups
            .iter()
            .map(|group| group.mount.join(&group.path))
            .collect();
        std::fs::create_dir(groups[0].join("below")).unwrap();
        again.delete().unwrap();
        again.delete().unwrap();
        assert!(groups.iter().all(|group| !group.exists()));
    }
}

#[test]
fn privileged_a_group_in_use_is_not_shared() {
    let Some(host) = host() else {
        skip!("control groups cannot be made here");
    };
    let plan = plan(
        &spec(&name("shared"), &json!({})),
        "id",
        &host,
        &Driver::Files,
        false,
    )
    .unwrap();
    let mut made = made(&plan);
    let mut child = sleeper(&mut made.0);
    let error = plan.create().unwrap_err().to_string();
    assert!(error.contains("processes run in it already"), "{error}");
    assert_eq!(
        made.0.pids().unwrap(),
        [child.id()],
        "what was there is left alone"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    made.0.freeze().unwrap();
    let error = plan.create().unwrap_err().to_string();
    assert!(error.contains("it is frozen"), "{error}");
    made.0.thaw().unwrap();
}

#[test]
fn privileged_a_thread_enters_by_itself_and_below() {
    let Some(host) = host() else {
        skip!("control groups cannot be made here");
    };
    let empty = spec(&name("enter"), &json!({}));
    let plan = plan(&empty, "id", &host, &Driver::Files, false).unwrap();
    let made = made(&plan);
    let below = "below";
    assert!(made.0.entrance(Some("../..")).is_err(), "leads out");
    assert!(made.0.entrance(Some(below)).is_err(), "is not there");
    for group in &made.0.state().groups {
        let own = group.mount.join(&group.path);
        std::fs::create_dir(own.join(below)).unwrap();
        if group.controllers.iter().any(|name| name == "cpuset") && !host.is_unified() {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = std::fs::read(own.join(file)).unwrap();
                std::fs::write(own.join(below).join(file), inherited).unwrap();
            }
        }
    }
    let groups = made.0.state().groups.clone();
    for (below, suffix) in [(None, ""), (Some(below), "/below")] {
        let (group, doors) = made.0.entrance(below).unwrap().split();
        let Some(doors) = doors else {
            assert!(host.is_unified() && group.is_some(), "it is cloned there");
            continue;
        };
        let seen = std::thread::spawn(move || {
            doors.enter().unwrap();
            std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
        });
        let seen = seen.join().unwrap();
        for group in &groups {
            let (_, last) = group.path.rsplit_once('/').unwrap_or(("", &group.path));
            let ends = format!("{last}{suffix}");
            let mut lines = seen.lines().filter(|line| line.ends_with(&ends));
            let is_there = |line: &str| group.controllers.iter().any(|name| line.contains(name));
            assert!(lines.any(is_there), "{group:?} in {seen}");
        }
        let main = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(!main.contains(&name("enter")), "the others stay: {main}");
    }
}

/// True when a process of the group can do it.
fn allowed(made: &mut Made, script: &str) -> bool {
    // The process waits until it is in the group.
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    made.0.join(child.id()).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap().success()
}

#[test]
fn privileged_devices_are_refused_by_both_versions() {
    let Some(host) = host() else {
        skip!("control groups cannot be made here");
    };
    let devices = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"},
    ]);
    let resources = json!({"devices": devices});
    let hosts = [
        Some(host.clone()).filter(|host| has(host, "devices") || host.is_unified()),
        unified_alone(&host),
    ];
    // Other places are mounted without devices on some hosts.
    let dir = tempfile::tempdir_in("/dev").unwrap();
    for (index, host) in hosts.into_iter().flatten().enumerate() {
        let path = name(&format!("devices{index}"));
        let plan = plan(&spec(&path, &resources), "id", &host, &Driver::Files, false).unwrap();
        let cgroup = match plan.create() {
            Err(error) if error.is_refused() && host.is_unified() => {
                skip!("programs for devices cannot be attached here: {error}")
            }
            other => other.unwrap(),
        };
        let mut made = Made(cgroup);
        let node = |name: &str| {
            dir.path()
                .join(format!("{name}{index}"))
                .display()
                .to_string()
        };
        let (kmsg, mem) = (node("kmsg"), node("mem"));
        assert!(allowed(
            &mut made,
            ": > /dev/null && head -c1 /dev/zero > /dev/null"
        ));
        assert!(
            allowed(
                &mut made,
                &format!("mknod {kmsg} c 1 11 && mknod {mem} c 1 1")
            ),
            "making nodes is everybody's"
        );
        assert!(!allowed(&mut made, &format!(": < {mem}")));
        assert!(!allowed(&mut made, &format!(": > {kmsg}")));
        let reads = allowed(&mut made, &format!(": < {kmsg}"));
        assert!(reads);
        // A change of rules replaces them.
        let change = json!({"devices": [{"allow": false, "access": "rwm"}]});
        made.0
            .update(&serde_json::from_value(change).unwrap())
            .unwrap();
        assert!(!allowed(&mut made, &format!(": < {kmsg}")));
        assert!(allowed(&mut made, ": > /dev/null"));
    }
}

#[test]
fn privileged_a_refused_limit_leaves_nothing_behind() {
    let Some(host) = host() else {
        skip!("control groups cannot be made here");
    };
    let resources = if has(&host, "cpuset") {
        json!({"cpu": {"cpus": "8000"}})
    } else {
        json!({"memory": {"limit": 1}})
    };
    let plan = plan(
        &spec(&name("refused"), &resources),
        "id",
        &host,
        &Driver::Files,
        false,
    )
    .unwrap();
    let error = plan.create().unwrap_err();
    assert!(error.to_string().starts_with("set "), "{error}");
    assert!(
        plan.groups
            .iter()
            .all(|group| !group.mount.join(&group.path).exists())
    );
}
