use serde_json::{Value, json};

use super::*;

/// A document with nothing to complain about.
fn sound() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "cwd": "/", "args": ["sh"], "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"],
                "effective": ["CAP_CHOWN"], "inheritable": [], "ambient": [],
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 }],
        },
        "hostname": "x",
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "pid", "path": "/proc/1/ns/pid" }],
            "resources": { "memory": { "limit": 10, "swap": -1 } },
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38 },
        },
    })
}

/// Sets what a pointer names, making objects on the way.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    for part in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(list) => &mut list[part.parse::<usize>().unwrap()],
            other => &mut other[part],
        };
    }
    *place = value;
}

#[test]
fn sound_document_has_no_findings() {
    assert_eq!(validate(&sound()), []);
}

/// One change each, and where the error must be.
#[test]
fn each_rule_names_the_place_that_breaks_it() {
    let table: Vec<(&str, Value, &str)> = vec![
        ("/ociVersion", json!("1.2"), ".ociVersion"),
        ("/ociVersion", json!("01.2.0"), ".ociVersion"),
        ("/ociVersion", json!("2.0.0"), ".ociVersion"),
        ("/ociVersion", json!(null), ".ociVersion"),
        ("/root", json!({}), ".root.path"),
        ("/root/path", json!(""), ".root.path"),
        ("/process/cwd", json!("tmp"), ".process.cwd"),
        ("/process/args", json!([]), ".process.args"),
        ("/process/args", json!([""]), ".process.args[0]"),
        ("/process/args", json!(["a\u{0}"]), ".process.args[0]"),
        ("/process/env", json!(["A=1", "B"]), ".process.env[1]"),
        ("/process/env", json!(["=x"]), ".process.env[0]"),
        ("/process/oomScoreAdj", json!(1001), ".process.oomScoreAdj"),
        ("/process/user/uid", json!(-1), ".process.user.uid"),
        ("/process/user/uid", json!(1.5), ".process.user.uid"),
        (
            "/process/rlimits/0/soft",
            json!(3),
            ".process.rlimits[0].soft",
        ),
        (
            "/process/rlimits/0/type",
            json!("RLIMIT_X"),
            ".process.rlimits[0].type",
        ),
        (
            "/process/capabilities/effective",
            json!(["CAP_KILL"]),
            ".process.capabilities.effective[0]",
        ),
        (
            "/process/capabilities/permitted",
            json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]),
            ".process.capabilities.permitted[1]",
        ),
        (
            "/process/capabilities/ambient",
            json!(["CAP_CHOWN"]),
            ".process.capabilities.ambient[0]",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO"}),
            ".process.scheduler.priority",
        ),
        ("/domainname", json!("x".repeat(65)), ".domainname"),
        (
            "/linux/namespaces/1/type",
            json!("mount"),
            ".linux.namespaces[1].type",
        ),
        ("/linux/namespaces/1/type", json!("ipc"), ".hostname"),
        (
            "/linux/namespaces/1/path",
            json!("run/ns"),
            ".linux.namespaces[1].path",
        ),
        (
            "/linux/namespaces/2/path",
            json!("/proc/1/ns/net"),
            ".linux.namespaces[2].path",
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            ".linux.uidMappings",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {}}),
            ".linux.timeOffsets.boottime",
        ),
        (
            "/linux/sysctl",
            json!({"net.x": "1"}),
            ".linux.sysctl[\"net.x\"]",
        ),
        (
            "/linux/sysctl",
            json!({"a..b": "1"}),
            ".linux.sysctl[\"a..b\"]",
        ),
        (
            "/linux/devices",
            json!([{"type": "c", "path": "/dev/x", "major": 1}]),
            ".linux.devices[0].minor",
        ),
        (
            "/linux/devices",
            json!([{"type": "a", "path": "/dev/x"}]),
            ".linux.devices[0].type",
        ),
        (
            "/linux/maskedPaths",
            json!(["proc"]),
            ".linux.maskedPaths[0]",
        ),
        (
            "/linux/rootfsPropagation",
            json!("public"),
            ".linux.rootfsPropagation",
        ),
        (
            "/linux/intelRdt",
            json!({"closID": "../x"}),
            ".linux.intelRdt.closID",
        ),
        (
            "/linux/seccomp/syscalls",
            json!([{"names": [], "action": "SCMP_ACT_ALLOW"}]),
            ".linux.seccomp.syscalls[0].names",
        ),
        (
            "/linux/seccomp/syscalls",
            json!([{"names": ["x"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]),
            ".linux.seccomp.syscalls[0].errnoRet",
        ),
        (
            "/linux/seccomp/syscalls",
            json!([{"names": ["x"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]),
            ".linux.seccomp.syscalls[0].args[0].index",
        ),
        (
            "/linux/seccomp/syscalls",
            json!([{"names": ["x"], "action": "SCMP_ACT_NOTIFY"}]),
            ".linux.seccomp.listenerPath",
        ),
        (
            "/linux/seccomp/listenerMetadata",
            json!("x"),
            ".linux.seccomp.listenerMetadata",
        ),
        (
            "/linux/resources/memory/swap",
            json!(5),
            ".linux.resources.memory.limit",
        ),
        (
            "/linux/resources/memory/limit",
            json!(-2),
            ".linux.resources.memory.limit",
        ),
        (
            "/linux/resources/cpu",
            json!({"cpus": "3-1"}),
            ".linux.resources.cpu.cpus",
        ),
        (
            "/linux/resources/devices",
            json!([{"allow": true, "access": "x"}]),
            ".linux.resources.devices[0].access",
        ),
        (
            "/linux/resources/blockIO",
            json!({"weight": 9}),
            ".linux.resources.blockIO.weight",
        ),
        (
            "/linux/resources/blockIO",
            json!({"weightDevice": [{"major": 1, "minor": 1}]}),
            ".linux.resources.blockIO.weightDevice[0]",
        ),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2M", "limit": 1}]),
            ".linux.resources.hugepageLimits[0].pageSize",
        ),
        (
            "/linux/resources/rdma",
            json!({"mlx5": {}}),
            ".linux.resources.rdma.mlx5",
        ),
        (
            "/linux/resources/unified",
            json!({"../x.max": "1"}),
            ".linux.resources.unified[\"../x.max\"]",
        ),
        (
            "/mounts/0",
            json!({"destination": "/x", "options": ["bind"]}),
            ".mounts[0].source",
        ),
        ("/mounts/0", json!({"destination": "/x"}), ".mounts[0].type"),
        (
            "/mounts/0",
            json!({"destination": "/x", "type": "bind", "source": "/x", "options": ["idmap"]}),
            ".mounts[0].options",
        ),
        (
            "/mounts/0/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            ".mounts[0]",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "x"}]}),
            ".hooks.poststop[0].path",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "/x", "timeout": 0}]}),
            ".hooks.poststop[0].timeout",
        ),
        ("/annotations", json!({"": "x"}), ".annotations[\"\"]"),
        ("/annotations", json!({"a": 1}), ".annotations.a"),
    ];
    for (pointer, value, expected) in table {
        let mut document = sound();
        set(&mut document, pointer, value.clone());
        let findings = validate(&document);
        let errors: Vec<_> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.path.to_string())
            .collect();
        assert!(
            errors.contains(&expected.to_owned()),
            "{pointer} = {value}: {findings:#?}"
        );
        assert!(!is_valid(&findings));
    }
}

#[test]
fn advice_is_no_error() {
    for (pointer, value) in [
        ("/process/args2", json!(1)),
        ("/mounts/0/destination", json!("proc")),
        ("/linux/sysctl", json!({"vm.swappiness": "1"})),
        ("/process/consoleSize", json!({"height": 1, "width": 1})),
        ("/linux/rootfsPropagation", json!("rslave")),
        ("/process/env", json!(["A=1", "A=2"])),
    ] {
        let mut document = sound();
        set(&mut document, pointer, value);
        let findings = validate(&document);
        assert!(!findings.is_empty() && is_valid(&findings), "{findings:?}");
    }
}

#[test]
fn mappings_must_not_overlap() {
    let mut document = sound();
    set(
        &mut document,
        "/linux/namespaces/0",
        json!({"type": "user"}),
    );
    let map = |container: u32, host: u32, size: u32| json!({"containerID": container, "hostID": host, "size": size});
    for (list, good) in [
        (json!([map(0, 1000, 10), map(10, 2000, 10)]), true),
        (json!([map(0, 1000, 10), map(9, 2000, 10)]), false),
        (json!([map(0, 1000, 10), map(10, 1009, 10)]), false),
        (json!([map(0, 1000, 0)]), false),
        (json!([map(1, u32::MAX, 1)]), false),
    ] {
        set(&mut document, "/linux/uidMappings", list.clone());
        assert_eq!(is_valid(&validate(&document)), good, "{list}");
    }
}

/// Every value of a sound document replaced by each kind of value: findings, and no panic.
#[test]
fn values_of_any_type_anywhere_are_judged() {
    fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match value {
            Value::Object(members) => members
                .iter()
                .for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), all)),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), all)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    pointers(&sound(), "", &mut all);
    for pointer in all {
        for value in [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
            json!("\u{0}"),
            json!([]),
            json!({}),
            json!([[{}]]),
            json!({"": {"": []}}),
        ] {
            let mut document = sound();
            *document.pointer_mut(&pointer).unwrap() = value;
            assert!(validate(&document).len() <= MAX_FINDINGS);
        }
    }
}

#[test]
fn number_of_findings_is_capped() {
    let mut document = sound();
    let many: Vec<_> = (0..5000).map(|_| json!(1)).collect();
    set(&mut document, "/process/env", Value::Array(many));
    assert_eq!(validate(&document).len(), MAX_FINDINGS);
}

/// As large as a document may be, and such that a rule that looks at each namespace for each
/// setting would take minutes.
#[test]
fn large_documents_are_judged_in_their_time() {
    let mut document = sound();
    let settings = (0..100_000).map(|at| (format!("net.{at}"), json!("1")));
    set(
        &mut document,
        "/linux/sysctl",
        Value::Object(settings.collect()),
    );
    let namespaces = vec![json!({"type": "uts"}); 100_000];
    set(&mut document, "/linux/namespaces", Value::Array(namespaces));
    let begun = std::time::Instant::now();
    assert_eq!(validate(&document).len(), MAX_FINDINGS);
    assert!(begun.elapsed().as_secs() < 10);
}

#[test]
fn root_of_a_bundle_must_be_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let missing = check_root(&sound(), dir.path()).unwrap();
    assert_eq!(missing.path.to_string(), ".root.path");
    std::fs::create_dir(dir.path().join("rootfs")).unwrap();
    assert_eq!(check_root(&sound(), dir.path()), None);
}

/// What came with 1.3, in documents of its own.
#[test]
fn network_devices_memory_and_caches_are_judged() {
    let with = |name: &str, value: Value| {
        let mut document = sound();
        document["ociVersion"] = "1.3.0".into();
        document["linux"]["namespaces"] =
            json!([{ "type": "network" }, { "type": "mount" }, { "type": "uts" }]);
        document["linux"][name] = value;
        document
    };
    for (name, value) in [
        (
            "netDevices",
            json!({ "eth0": {}, "eth1": { "name": "wan" }, "eth2": { "name": "v%d" }, "eth3": { "name": "v%d" } }),
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "0-1,3", "flags": ["MPOL_F_NUMA_BALANCING"] }),
        ),
        ("memoryPolicy", json!({ "mode": "MPOL_PREFERRED" })),
        ("memoryPolicy", json!({ "mode": "MPOL_LOCAL" })),
        (
            "intelRdt",
            json!({ "closID": "/", "schemata": ["L3:0=f", "MB:0=20"], "enableMonitoring": true }),
        ),
        (
            "intelRdt",
            json!({ "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20" }),
        ),
    ] {
        assert_eq!(validate(&with(name, value.clone())), [], "{value}");
    }
    for (name, value, place) in [
        (
            "netDevices",
            json!({ "eth0": [] }),
            ".linux.netDevices.eth0",
        ),
        (
            "netDevices",
            json!({ "eth0": { "name": 7 } }),
            ".linux.netDevices.eth0.name",
        ),
        ("netDevices", json!({ "lo": {} }), ".linux.netDevices.lo"),
        (
            "netDevices",
            json!({ "a/b": {} }),
            ".linux.netDevices[\"a/b\"]",
        ),
        (
            "netDevices",
            json!({ "sixteen-letters-": {} }),
            ".linux.netDevices[\"sixteen-letters-\"]",
        ),
        (
            "netDevices",
            json!({ "a": { "name": "lo" } }),
            ".linux.netDevices.a.name",
        ),
        (
            "netDevices",
            json!({ "a": { "name": "x" }, "b": { "name": "x" } }),
            ".linux.netDevices.b.name",
        ),
        (
            "netDevices",
            json!({ "a": { "name": "%d%d" } }),
            ".linux.netDevices.a.name",
        ),
        (
            "netDevices",
            json!({ "a": { "name": "%s" } }),
            ".linux.netDevices.a.name",
        ),
        ("memoryPolicy", json!({}), ".linux.memoryPolicy.mode"),
        (
            "memoryPolicy",
            json!({ "mode": "BIND" }),
            ".linux.memoryPolicy.mode",
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_BIND" }),
            ".linux.memoryPolicy.nodes",
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_LOCAL", "nodes": "0" }),
            ".linux.memoryPolicy.nodes",
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "3-1" }),
            ".linux.memoryPolicy.nodes",
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["STATIC"] }),
            ".linux.memoryPolicy.flags[0]",
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
            ".linux.memoryPolicy.flags",
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_PREFERRED", "flags": ["MPOL_F_STATIC_NODES"] }),
            ".linux.memoryPolicy.flags",
        ),
        (
            "memoryPolicy",
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] }),
            ".linux.memoryPolicy.flags",
        ),
        (
            "intelRdt",
            json!({ "closID": "a/b" }),
            ".linux.intelRdt.closID",
        ),
        (
            "intelRdt",
            json!({ "closID": "info" }),
            ".linux.intelRdt.closID",
        ),
        (
            "intelRdt",
            json!({ "memBwSchema": "L3:0=1" }),
            ".linux.intelRdt.memBwSchema",
        ),
        (
            "intelRdt",
            json!({ "memBwSchema": "MB:0=1\n" }),
            ".linux.intelRdt.memBwSchema",
        ),
        (
            "intelRdt",
            json!({ "schemata": ["L3:0=1\nMB:0=1"] }),
            ".linux.intelRdt.schemata[0]",
        ),
        (
            "intelRdt",
            json!({ "schemata": "L3:0=1" }),
            ".linux.intelRdt.schemata",
        ),
        (
            "intelRdt",
            json!({ "enableMonitoring": "yes" }),
            ".linux.intelRdt.enableMonitoring",
        ),
    ] {
        let findings = validate(&with(name, value.clone()));
        let errors: Vec<_> = findings
            .iter()
            .filter(|one| one.severity == Severity::Error)
            .collect();
        assert!(
            matches!(&errors[..], [one] if one.path.to_string() == place),
            "{value}: {errors:?}"
        );
    }
    for (value, place) in [
        (
            json!({ "l3CacheSchema": "L2:0=1" }),
            ".linux.intelRdt.l3CacheSchema",
        ),
        (json!({ "enableCMT": true }), ".linux.intelRdt.enableCMT"),
        (
            json!({ "enableEverything": true }),
            ".linux.intelRdt.enableEverything",
        ),
    ] {
        let findings = validate(&with("intelRdt", value));
        assert!(
            is_valid(&findings) && findings[0].path.to_string() == place,
            "{findings:?}"
        );
    }
    let mut document = with("netDevices", json!({ "eth0": {} }));
    document["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "uts" }]);
    assert!(!is_valid(&validate(&document)), "the host's own network");
}
