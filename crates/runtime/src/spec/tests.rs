use std::collections::BTreeMap;

use super::*;
use crate::host::{Architecture, Cgroups};
use crate::options::{MountRequest, Network, Profile};

/// A host that can do everything, always the same.
pub(crate) fn host() -> HostFacts {
    HostFacts {
        capabilities: CapabilitySet::ALL,
        cgroups: Cgroups::V2 {
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(),
            swap: true,
        },
        rlimits_hard: BTreeMap::new(),
        architecture: Architecture::X86_64,
        thermal_cpus: 1,
        ptrace_scope: 1,
        selinux: false,
        apparmor: false,
        hostname: "host.example".into(),
        resolv_conf: true,
    }
}

fn placement() -> Placement {
    Placement {
        id: "0123456789abcdef".repeat(4),
        state_dir: "/run/gantry/containers/x".into(),
        data_dir: "/var/lib/gantry/containers/x".into(),
        rootfs: "/run/gantry/containers/x/rootfs".into(),
        limits: LimitSupport {
            managed: true,
            memory: true,
            swap: true,
            cpu: true,
            pids: true,
            cpuset: true,
            block_io: true,
            unified: true,
            devices: true,
        },
    }
}

fn image(config: serde_json::Value) -> ImageConfig {
    serde_json::from_value(serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [] },
    }))
    .unwrap()
}

pub(crate) fn shell_image() -> ImageConfig {
    image(serde_json::json!({
        "Entrypoint": ["/bin/entry"],
        "Cmd": ["serve"],
        "Env": ["PATH=/bin", "LANG=C", "broken", "=x", "*", "AWS_*=y"],
        "WorkingDir": "/srv/../app",
        "User": "app",
        "Volumes": { "/data": {} },
        "StopSignal": "SIGQUIT",
        "Labels": { "run.oci.handler": "krun", "org.example": "x" },
    }))
}

fn facts(uid: u32) -> RootfsFacts {
    RootfsFacts {
        identity: Identity {
            uid,
            gid: uid,
            groups: vec![uid],
            home: "/home/app".into(),
        },
        occupied: vec!["/run".into()],
    }
}

fn document(image: &ImageConfig, options: &RunOptions) -> serde_json::Value {
    let generated = generate(image, options, &host(), &placement()).unwrap();
    let bytes = to_bytes(&generated.draft.finish(&facts(1000))).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The document without the filter, which is long and has a golden file of its own.
fn golden_text(options: &RunOptions, uid: u32) -> String {
    let generated = generate(&shell_image(), options, &host(), &placement()).unwrap();
    let notes = generated.draft.notes.clone();
    let mut value = serde_json::to_value(generated.draft.finish(&facts(uid))).unwrap();
    let sorted: serde_json::Value =
        serde_json::from_slice(&to_bytes(&serde_json::from_value(value.clone()).unwrap()).unwrap())
            .unwrap();
    value = sorted;
    value["linux"].as_object_mut().unwrap().remove("seccomp");
    let explained: String = generated
        .explanations
        .iter()
        .map(|line| {
            format!(
                "{}: {} ({:?}){}\n",
                line.control,
                line.value,
                line.origin,
                line.relaxed_by
                    .as_ref()
                    .map(|by| format!("; {by}"))
                    .unwrap_or_default()
            )
        })
        .collect();
    format!(
        "{}\n--- notes\n{}\n--- explained\n{explained}",
        serde_json::to_string_pretty(&value).unwrap(),
        notes.join("\n")
    )
}

pub(crate) fn check_golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{name} differs; run with GANTRY_BLESS=1 and read the diff"
    );
}

fn options(edit: impl FnOnce(&mut RunOptions)) -> RunOptions {
    let mut options = RunOptions::default();
    edit(&mut options);
    options
}

#[test]
fn documents_are_as_agreed() {
    let table = [
        ("production.txt", 0, options(|_| {})),
        ("compat.txt", 0, options(|o| o.profile = Profile::Compat)),
        (
            "user-terminal.txt",
            1000,
            options(|o| {
                o.terminal = true;
                o.user = Some("1000".parse().unwrap());
                o.cap_add = CapabilitySet::of(&["NET_RAW"]);
                o.env = vec!["LANG=de_DE".parse().unwrap(), "X=1".parse().unwrap()];
                o.args = vec!["sh".into()];
                o.workdir = Some("/tmp".into());
            }),
        ),
        (
            "mounts-limits.txt",
            0,
            options(|o| {
                o.mounts = vec![
                    MountRequest::parse_volume("/srv/data:/data:ro").unwrap(),
                    MountRequest::parse_volume("/srv/x:/tmp/deep/x:exec").unwrap(),
                    MountRequest::parse_tmpfs("/cache:size=1m,mode=700").unwrap(),
                ];
                o.memory_max = Some("64m".parse().unwrap());
                o.cpus = Some("0.5".parse().unwrap());
                o.pids_limit = Some(10);
                o.ulimits = vec!["nofile=10:20".parse().unwrap()];
                o.network = Network::Host;
                o.cap_drop = CapabilitySet::ALL;
            }),
        ),
        (
            "writable-privileged.txt",
            0,
            options(|o| {
                o.writable = Some(true);
                o.privileged = true;
            }),
        ),
    ];
    for (name, uid, options) in table {
        check_golden(name, &golden_text(&options, uid));
    }
}

#[test]
fn filters_are_as_agreed() {
    for (name, profile) in [
        ("seccomp-production.json", Profile::Production),
        ("seccomp-compat.json", Profile::Compat),
    ] {
        let defaults = profile::defaults(profile);
        let filter = seccomp::filter(profile, defaults.capabilities, &host());
        check_golden(name, &serde_json::to_string_pretty(&filter).unwrap());
    }
}

#[test]
fn same_input_gives_same_bytes() {
    let once = || {
        let draft = generate(&shell_image(), &options(|_| {}), &host(), &placement())
            .unwrap()
            .draft;
        // Through the monitor's wire form and back.
        let wire = serde_json::to_vec(&draft).unwrap();
        let draft: Draft = serde_json::from_slice(&wire).unwrap();
        to_bytes(&draft.finish(&facts(0))).unwrap()
    };
    let first = once();
    for _ in 0..20 {
        assert_eq!(once(), first);
    }
}

#[test]
fn entrypoint_and_command_combine_as_in_docker() {
    let args = |edit: fn(&mut RunOptions)| {
        document(&shell_image(), &options(edit))["process"]["args"].clone()
    };
    assert_eq!(args(|_| {}), serde_json::json!(["/bin/entry", "serve"]));
    assert_eq!(
        args(|o| o.args = vec!["a".into()]),
        serde_json::json!(["/bin/entry", "a"])
    );
    assert_eq!(
        args(|o| o.entrypoint = Some(vec!["/x".into()])),
        serde_json::json!(["/x"])
    );
    assert_eq!(
        args(|o| {
            o.entrypoint = Some(vec![]);
            o.args = vec!["a".into()];
        }),
        serde_json::json!(["a"])
    );
    let empty = options(|o| o.entrypoint = Some(vec![]));
    let error = generate(&shell_image(), &empty, &host(), &placement()).unwrap_err();
    assert!(matches!(error, GenerateError::NoCommand));
}

#[test]
fn image_variables_that_are_none_are_dropped_and_noted() {
    let generated = generate(&shell_image(), &options(|_| {}), &host(), &placement()).unwrap();
    assert_eq!(generated.draft.notes.len(), 4);
    let value = document(&shell_image(), &options(|_| {}));
    assert_eq!(
        value["process"]["env"],
        serde_json::json!([
            "PATH=/bin",
            "container=gantry",
            "HOSTNAME=0123456789ab",
            "LANG=C",
            "HOME=/home/app"
        ])
    );
    assert_eq!(
        value.get("annotations"),
        None,
        "no label reaches the document"
    );
}

#[test]
fn hostile_images_are_refused() {
    for config in [
        serde_json::json!({"Cmd": ["x"], "Volumes": {"/proc": {}}}),
        serde_json::json!({"Cmd": ["x"], "Volumes": {"/proc/self/attr": {}}}),
        serde_json::json!({"Cmd": ["x"], "Volumes": {"/..": {}}}),
        serde_json::json!({"Cmd": ["x"], "Volumes": {"/a/../sys": {}}}),
        serde_json::json!({"Cmd": ["x"], "Volumes": {"relative": {}}}),
        serde_json::json!({"Cmd": ["x"], "Volumes": {"/a\nb": {}}}),
        serde_json::json!({"Cmd": ["x"], "WorkingDir": "/proc/self/fd/7"}),
        serde_json::json!({"Cmd": ["x"], "WorkingDir": "/a/../proc/thread-self/cwd"}),
        serde_json::json!({"Cmd": ["x"], "WorkingDir": "/a\nb"}),
        serde_json::json!({"Cmd": ["x"], "User": "4294967296"}),
        serde_json::json!({"Cmd": ["x"], "User": "0x0"}),
        serde_json::json!({"Cmd": ["x\u{0}y"]}),
        serde_json::json!({"Cmd": [""]}),
        serde_json::json!({}),
    ] {
        let result = generate(
            &image(config.clone()),
            &options(|_| {}),
            &host(),
            &placement(),
        );
        assert!(result.is_err(), "{config}");
    }
}

#[test]
fn wishes_that_cannot_be_granted_are_errors_and_defaults_are_notes() {
    let mut poor = host();
    poor.capabilities = CapabilitySet::of(&["CHOWN", "SETUID"]);
    poor.rlimits_hard = [("nofile".to_owned(), 100)].into();
    let mut place = placement();
    place.limits = LimitSupport::default();
    let image = image(serde_json::json!({"Cmd": ["x"]}));
    let generated = generate(&image, &options(|_| {}), &poor, &place).unwrap();
    assert_eq!(
        generated.draft.notes.len(),
        3,
        "{:?}",
        generated.draft.notes
    );
    for wish in [
        options(|o| o.memory_max = Some("1m".parse().unwrap())),
        options(|o| o.pids_limit = Some(5)),
        options(|o| o.cpus = Some("1".parse().unwrap())),
        options(|o| o.cap_add = CapabilitySet::of(&["SYS_ADMIN"])),
    ] {
        let error = generate(&image, &wish, &poor, &place).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}

#[test]
fn settings_of_the_host_are_refused() {
    for (key, network) in [
        ("kernel.core_pattern", Network::None),
        ("net.ipv4.ip_forward", Network::Host),
        ("vm.swappiness", Network::None),
    ] {
        let wish = options(|o| {
            o.network = network;
            o.sysctls = vec![format!("{key}=1").parse().unwrap()];
        });
        let image = image(serde_json::json!({"Cmd": ["x"]}));
        assert!(
            generate(&image, &wish, &host(), &placement()).is_err(),
            "{key}"
        );
    }
}

#[test]
fn reserved_labels_are_dropped() {
    let labels = container_labels(&shell_image().config, &options(|_| {}));
    assert_eq!(labels.len(), 1);
    assert!(labels.contains_key("org.example"));
}

#[test]
fn sets_of_capabilities_are_narrow_for_other_users() {
    let value = document(&shell_image(), &options(|_| {}));
    for set in ["effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(
            value["process"]["capabilities"][set],
            serde_json::json!([]),
            "{set}"
        );
    }
}
