use std::collections::BTreeSet;

use serde_json::json;

use super::*;

fn run(document: &mut Value, flags: &[(&str, &str)]) -> Result<(), FlagError> {
    let given: Vec<_> = flags
        .iter()
        .map(|(name, value)| Given {
            flag: FLAGS.iter().find(|flag| flag.name == *name).unwrap(),
            value: (*value).to_owned(),
        })
        .collect();
    apply(document, &given)
}

/// A value that the flag takes, found by what its value is called.
fn sample(flag: &Flag) -> &'static str {
    match (flag.name, flag.value) {
        (_, None) => "true",
        ("os", _) => "linux",
        ("linux-rootfs-propagation", _) => "rslave",
        ("linux-mem-swappiness", _) => "60",
        ("linux-network-classid" | "linux-pids-limit", _) => "1048577",
        (_, Some("NAME" | "PATH" | "PROFILE" | "LABEL" | "SCHEMA")) => "/x",
        (_, Some("WIDTH:HEIGHT")) => "80:25",
        (_, Some("UID" | "GID" | "NUMBER" | "BYTES" | "MICROSECONDS" | "WEIGHT")) => "100",
        (_, Some("MODE")) => "0022",
        (_, Some("RLIMIT:HARD:SOFT")) => "RLIMIT_CORE:2:1",
        (_, Some("RLIMIT")) => "RLIMIT_CORE",
        (_, Some("CAP,…")) => "CAP_KILL,chown",
        (name, Some("JSON")) if name.starts_with("hooks") => r#"{"path": "/x"}"#,
        (_, Some("JSON")) => r#"{"destination": "/x", "type": "tmpfs"}"#,
        (_, Some("KEY=VALUE")) => "net.x=1",
        (_, Some("TYPE[:PATH]")) => "uts:/proc/1/ns/uts",
        (_, Some("TYPE")) => "pid",
        (_, Some("HOST:CONTAINER:SIZE")) => "1000:0:10",
        (_, Some("TYPE:MAJOR:MINOR:PATH[:OPTION…]")) => "c:10:229:/dev/fuse:fileMode=0666:uid=0",
        (_, Some("allow|deny[,KEY=VALUE…]")) => "allow,type=c,major=1,access=rw",
        (_, Some("LIST")) => "0-3,7",
        (_, Some("MAJOR:MINOR:WEIGHT" | "MAJOR:MINOR:RATE")) => "8:0:100",
        (_, Some("PAGESIZE:LIMIT")) => "2MB:4096",
        (_, Some("PAGESIZE")) => "2MB",
        (_, Some("NAME:PRIORITY")) => "eth0:-1",
        (_, Some("ACTION")) => "errno",
        (_, Some("ARCH,…")) => "amd64,x86",
        (_, Some("CALL,…")) => "mkdir,rmdir",
        (_, Some(other)) => panic!("no sample for {other}"),
    }
}

#[test]
fn names_are_sorted_out_and_places_exist() {
    let names: BTreeSet<_> = FLAGS.iter().map(|flag| flag.name).collect();
    assert_eq!(names.len(), FLAGS.len());
    for flag in FLAGS {
        assert!(flag.pointer.is_empty() || flag.pointer.starts_with('/'));
        assert!(
            !flag.help.ends_with('.') && !flag.help.is_empty(),
            "{}",
            flag.name
        );
    }
}

/// Every flag, on an empty document and on one that it has been applied to, and nothing unknown comes of it.
#[test]
fn every_flag_writes_what_the_specification_knows() {
    for flag in FLAGS {
        let mut document = json!({ "linux": { "seccomp": { "defaultAction": "SCMP_ACT_ALLOW" } } });
        let before = document.clone();
        run(&mut document, &[(flag.name, sample(flag))]).unwrap();
        let adds = flag.name.ends_with("-add") || matches!(flag.edit, Set(_) | Members(_));
        assert!(!adds || document != before, "{}", flag.name);
        if flag.when != Last {
            let unknown: Vec<_> = crate::document::validate::validate(&document)
                .into_iter()
                .filter(|finding| finding.rule.contains("Extensibility"))
                .collect();
            assert!(unknown.is_empty(), "{}: {unknown:?}", flag.name);
        }
        let once = document.clone();
        let adds_again = ["cgroup-add"].iter().any(|word| flag.name.contains(word));
        if flag.when != Last {
            run(&mut document, &[(flag.name, sample(flag))]).unwrap();
            assert!(
                adds_again || document == once,
                "{} twice: {document}",
                flag.name
            );
        }
    }
}

#[test]
fn nonsense_is_refused_with_the_flags_name() {
    for flag in FLAGS {
        let text =
            matches!(flag.edit, Set(parse) | Put(parse) | Drop(parse) if parse("\u{1}x").is_ok());
        if text
            || matches!(flag.edit, Clear)
            || flag.name.contains("seccomp")
            || flag.value.is_none()
        {
            continue;
        }
        let error = run(&mut json!({}), &[(flag.name, "\u{1}x")]).unwrap_err();
        assert_eq!(error.flag, flag.name);
    }
    for (name, value) in [
        ("process-uid", "4294967296"),
        ("linux-pids-limit", "1e3"),
        ("mounts-add", "{}"),
        ("mounts-add", "[]"),
        ("linux-namespace-add", "net"),
        ("linux-seccomp-allow", "a:1"),
        ("linux-seccomp-default", "deny"),
        ("process-terminal", "yes"),
        ("linux-uidmappings", "1:2"),
        ("linux-seccomp-allow", "open"),
    ] {
        assert!(
            run(&mut json!({}), &[(name, value)]).is_err(),
            "{name} {value}"
        );
    }
    assert!(run(&mut json!({"process": 1}), &[("process-uid", "1")]).is_err());
    assert!(run(&mut json!({"mounts": {}}), &[("mounts-remove", "/x")]).is_err());
}

/// A template may hold anything anywhere: an error or a document, never a panic.
#[test]
fn flags_meet_values_of_any_type() {
    let junk = [
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!({}),
        json!([null, 1, "x", [], {}]),
        json!([{"names": 1, "action": "SCMP_ACT_ALLOW"}, {"names": [1, null]}, {"major": "x"}]),
        json!({"syscalls": [1, "x", {}], "defaultAction": 7}),
    ];
    let mut rounds = 0;
    for flag in FLAGS {
        let parts: Vec<_> = flag.pointer.split('/').skip(1).collect();
        for depth in 0..=parts.len() {
            for value in &junk {
                let mut document = parts[..depth]
                    .iter()
                    .rev()
                    .fold(value.clone(), |inner, part| json!({ *part: inner }));
                rounds += usize::from(run(&mut document, &[(flag.name, sample(flag))]).is_ok());
            }
        }
    }
    assert!(rounds > 100);
}

#[test]
fn removing_all_comes_first_whatever_the_order() {
    let mut document = json!({"mounts": [{"destination": "/old"}]});
    let add = ("mounts-add", r#"{"destination": "/new"}"#);
    run(&mut document, &[add, ("mounts-remove-all", "true")]).unwrap();
    assert_eq!(document, json!({"mounts": [{"destination": "/new"}]}));
    run(&mut document, &[("mounts-remove-all", "false")]).unwrap();
    assert_eq!(document, json!({"mounts": [{"destination": "/new"}]}));
}

#[test]
fn filters_are_edited_rule_by_rule() {
    let mut document = json!({"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "syscalls": [{"names": ["mkdir", "open"], "action": "SCMP_ACT_ALLOW"}],
    }}});
    run(
        &mut document,
        &[
            ("linux-seccomp-kill", "mkdir"),
            ("linux-seccomp-allow", "read"),
            ("linux-seccomp-trap", "clone:0:131072:131072:MASKED_EQ"),
            ("linux-seccomp-remove", "open"),
            ("linux-seccomp-default-force", "log"),
            ("linux-seccomp-only", "true"),
        ],
    )
    .unwrap();
    assert_eq!(
        document,
        json!({
            "defaultAction": "SCMP_ACT_LOG",
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mkdir"], "action": "SCMP_ACT_KILL"},
                {"names": ["clone"], "action": "SCMP_ACT_TRAP",
                 "args": [{"index": 0, "value": 131_072, "valueTwo": 131_072, "op": "SCMP_CMP_MASKED_EQ"}]},
            ],
        })
    );
}

#[test]
fn rule_that_is_the_default_only_removes_others() {
    let allow = json!({"names": ["open", "read"], "action": "SCMP_ACT_ALLOW"});
    let mut document =
        json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allow]}}});
    run(&mut document, &[("linux-seccomp-errno", "read,bpf")]).unwrap();
    let rules = &document["linux"]["seccomp"]["syscalls"];
    assert_eq!(
        *rules,
        json!([{"names": ["open"], "action": "SCMP_ACT_ALLOW"}])
    );
}

#[test]
fn devices_keep_both_weights_and_lose_them_one_by_one() {
    let mut document = json!({});
    let at = |document: &Value| document["linux"]["resources"]["blockIO"]["weightDevice"].clone();
    run(
        &mut document,
        &[
            ("linux-blkio-weight-device", "8:0:100"),
            ("linux-blkio-leaf-weight-device", "8:0:200"),
        ],
    )
    .unwrap();
    assert_eq!(
        at(&document),
        json!([{"major": 8, "minor": 0, "weight": 100, "leafWeight": 200}])
    );
    run(&mut document, &[("linux-blkio-weight-device", "8:0:-1")]).unwrap();
    assert_eq!(
        at(&document),
        json!([{"major": 8, "minor": 0, "leafWeight": 200}])
    );
    run(
        &mut document,
        &[("linux-blkio-leaf-weight-device", "8:0:-1")],
    )
    .unwrap();
    assert_eq!(at(&document), json!([]));
}
