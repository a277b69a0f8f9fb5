// SPDX-License-Identifier: Apache-2.0
use super::*;
use serde_json::{Value, json};

fn facts() -> Facts {
    Facts {
        rootless: false,
        nested: false,
        may_raise_limits: false,
        hard_limits: BTreeMap::from([("RLIMIT_NOFILE".to_owned(), 4096)]),
        own_oom_score_adj: 0,
        selinux: false,
        apparmor: false,
    }
}

fn document() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "h",
        "process": {
            "args": ["sh"], "cwd": "/", "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1_000_000}],
            "oomScoreAdj": -500,
            "capabilities": {"bounding": ["CAP_KILL"]},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "none", "source": "data", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network", "path": "/run/n"}],
            "sysctl": {"kernel.sem": "1 2 3 4", "net/ipv4/conf/eth0.1/forwarding": "1"},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn decide(document: &Value) -> Result<Plan, PlanError> {
    let spec = serde_json::from_value(document.clone()).unwrap();
    plan(&spec, "/b".as_ref(), &facts())
}

#[test]
fn plan_reads_in_the_order_of_its_steps() {
    let lines = decide(&document()).unwrap().lines();
    let expected = [
        "new ipc namespace    # .linux.namespaces",
        "new uts namespace    # .linux.namespaces",
        "join net namespace /run/n    # .linux.namespaces",
        "new mnt namespace    # .linux.namespaces",
        "set hostname \"h\"    # .hostname",
        "root /b/rootfs    # .root.path",
        "mount proc at /proc    # .mounts[0]",
        "rbind /b/data at /data    # .mounts[1]",
        "device /dev/null Character 1:3 666    # a default device",
    ];
    assert_eq!(lines[..expected.len()], expected);
    let expected = [
        "link /dev/ptmx to pts/ptmx    # a default link",
        "write 1 2 3 4 to kernel/sem    # .linux.sysctl[\"kernel.sem\"]",
        "write 1 to net/ipv4/conf/eth0.1/forwarding    # .linux.sysctl[\"net/ipv4/conf/eth0.1/forwarding\"]",
        "read-only /proc/sys    # .linux.readonlyPaths[0]",
        "hide /proc/kcore    # .linux.maskedPaths[0]",
        "pivot into the root",
        "read-only root    # .root.readonly",
        "RLIMIT_NOFILE 1024 of 4096    # .process.rlimits",
        "bound capabilities to: KILL    # .process.capabilities",
        "become 5:6, groups [7]    # .process.user",
        "execute [\"sh\"] in /    # .process.args",
    ];
    assert_eq!(lines[lines.len() - expected.len()..], expected);
}

#[test]
fn what_the_host_lacks_is_clamped_and_said_once() {
    let plan = decide(&document()).unwrap();
    assert_eq!(plan.process.oom_score_adj, Some(0));
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
}

#[test]
fn nonsense_is_refused_with_its_place() {
    for (pointer, value, place) in [
        ("/ociVersion", json!("2.0.0"), ".ociVersion"),
        ("/ociVersion", json!("1"), ".ociVersion"),
        ("/root", Value::Null, ".root"),
        ("/process", Value::Null, ".process"),
        ("/process/args", json!([]), ".process.args"),
        ("/process/args", json!(["a\u{0}b"]), ".process"),
        ("/process/cwd", json!("here"), ".process.cwd"),
        (
            "/process/apparmorProfile",
            json!("p"),
            ".process.apparmorProfile",
        ),
        (
            "/process/rlimits/0/soft",
            json!(2_000_000),
            ".process.rlimits[0]",
        ),
        ("/hostname", json!("x"), ".hostname"),
        ("/mounts/1/source", json!(""), ".mounts[1].source"),
        ("/mounts/1/options", json!(["rbind", "idmap"]), ".mounts[1]"),
        ("/linux", Value::Null, ".linux"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            ".linux.namespaces[1]",
        ),
        (
            "/linux/namespaces/3/path",
            json!("n"),
            ".linux.namespaces[3].path",
        ),
        (
            "/linux/namespaces/3",
            json!({"type": "user"}),
            ".linux.uidMappings",
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            ".linux.uidMappings",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.panic": "1"}),
            ".linux.sysctl[\"kernel.panic\"]",
        ),
        (
            "/linux/sysctl",
            json!({"net.ipv4/../x": "1"}),
            ".linux.sysctl[\"net.ipv4/../x\"]",
        ),
        (
            "/linux/sysctl",
            json!({"user.max_user_namespaces": "1"}),
            ".linux.sysctl[\"user.max_user_namespaces\"]",
        ),
        (
            "/linux/maskedPaths/0",
            json!("proc/kcore"),
            ".linux.maskedPaths[0]",
        ),
        (
            "/linux/rootfsPropagation",
            json!("some"),
            ".linux.rootfsPropagation",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            ".linux.timeOffsets[\"boottime\"]",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 0}]),
            ".linux.devices[0].major",
        ),
    ] {
        let mut document = document();
        if pointer == "/hostname" {
            document["linux"]["namespaces"] = json!([{"type": "mount"}]);
            document["linux"]["sysctl"] = json!({});
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let holder = document.pointer_mut(parent).unwrap();
        match holder {
            Value::Object(members) => drop(members.insert(name.to_owned(), value.clone())),
            Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
            _ => panic!("{pointer}"),
        }
        let error = decide(&document).expect_err(pointer);
        assert_eq!(error.path, place, "{pointer} {value}: {error}");
    }
}

#[test]
fn mapping_longer_than_the_kernel_takes_is_refused() {
    let mut document = document();
    document["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}]);
    document["linux"]["sysctl"] = json!({});
    document["hostname"] = Value::Null;
    let line = |index: u32| json!({"containerID": index, "hostID": index, "size": 1});
    for lines in [340, 341] {
        let list: Vec<Value> = (0..lines).map(line).collect();
        document["linux"]["uidMappings"] = json!(list);
        document["linux"]["gidMappings"] = json!(list);
        assert_eq!(decide(&document).is_ok(), lines == 340);
    }
    document["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": u32::MAX, "size": 2}]);
    document["linux"]["gidMappings"] = json!([line(0)]);
    assert_eq!(decide(&document).unwrap_err().path, ".linux.uidMappings[0]");
}

#[test]
fn a_name_said_twice_is_refused_only_where_it_differs() {
    let mut document = document();
    document["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
    document["hostname"] = json!("h");
    document["domainname"] = json!("d");
    for (value, refused) in [("d", false), ("e", true)] {
        document["linux"]["sysctl"] = json!({"kernel.domainname": value, "kernel.hostname": "h"});
        let place = decide(&document).err().map(|error| error.path);
        let wanted = refused.then(|| ".linux.sysctl[\"kernel.domainname\"]".to_owned());
        assert_eq!(place, wanted);
    }
}

#[test]
fn network_devices_need_names_and_a_network() {
    let with = |devices: Value| {
        let mut document = document();
        document["linux"]["netDevices"] = devices;
        decide(&document)
    };
    let plan = with(json!({"eth1": {"name": "wan%d"}, "eth0": {}})).unwrap();
    let names: Vec<_> = plan
        .net_devices
        .iter()
        .map(|step| (step.host.as_str(), step.name.as_str()))
        .collect();
    assert_eq!(names, [("eth0", "eth0"), ("eth1", "wan%d")]);
    let line = "move network device eth0 in as eth0    # .linux.netDevices[\"eth0\"]";
    assert!(plan.lines().iter().any(|told| told == line));
    for devices in [
        json!({"": {}}),
        json!({"a/b": {}}),
        json!({"sixteen-letters-": {}}),
        json!({"a": {"name": "%s"}}),
        json!({"a": {"name": "%d%d"}}),
        json!({"a": {"name": "b"}, "b": {}}),
    ] {
        assert!(with(devices.clone()).is_err(), "{devices}");
    }
    let mut shared = document();
    shared["linux"]["netDevices"] = json!({"eth0": {}});
    shared["linux"]["sysctl"] = json!({});
    shared["linux"]["namespaces"].as_array_mut().unwrap().pop();
    assert!(
        decide(&shared)
            .unwrap_err()
            .rule
            .contains("network namespace")
    );
}

#[test]
fn memory_policies_have_nodes_or_none() {
    for (policy, fine) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0-1"}), true),
        (json!({"mode": "MPOL_PREFERRED"}), true),
        (json!({"mode": "MPOL_BIND"}), false),
        (json!({"mode": "MPOL_LOCAL", "nodes": "0"}), false),
        (json!({"mode": "MPOL_BIND", "nodes": "1-0"}), false),
    ] {
        let mut document = document();
        document["linux"]["memoryPolicy"] = policy.clone();
        assert_eq!(decide(&document).is_ok(), fine, "{policy}");
    }
}
