// SPDX-License-Identifier: Apache-2.0
//! `gantry runtime`: what documents of version 1.3 ask for.
#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod bundles;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use bundles::Host;
use gantry_testkit::tool;
use serde_json::{Value, json};

/// Runs the bundle in a network of the test's own, in which `setup` was done before.
fn in_network(
    host: &Host,
    setup: &str,
    script: &str,
    edit: impl FnOnce(&mut Value),
) -> (bool, String) {
    let bundle = host.bundle(script, edit);
    let line = format!("{setup} && exec \"$0\" runtime --root \"$1\" run --bundle \"$2\" c 2>&1");
    let output = Command::new("unshare")
        .args(["--net", "sh", "-ec", &line, env!("CARGO_BIN_EXE_gantry")])
        .arg(host.root())
        .arg(bundle)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

const PAIR: &str = "ip link add gt0 type veth peer name gt1 && ip link set gt0 address 02:00:00:00:00:07 mtu 1400 \
     && ip addr add 10.9.0.2/24 dev gt0 && ip addr add fd00:9::2/64 dev gt0 nodad && ip link set gt0 up && ip link set gt1 up";

#[test]
fn privileged_network_device_moves_with_name_address_and_state() {
    let host = host!();
    let missing = tool::missing(&["ip", "unshare"]);
    if !missing.is_empty() {
        gantry_testkit::skip!("{} not installed", missing.join(", "));
    }
    let made = Command::new("unshare")
        .args([
            "--net", "ip", "link", "add", "gt0", "type", "veth", "peer", "name", "gt1",
        ])
        .status();
    if !made.unwrap().success() {
        gantry_testkit::skip!("this kernel has no veth");
    }
    let script = "grep -c wan /proc/net/dev; cat /sys/class/net/wan0/address /sys/class/net/wan0/mtu; \
         cat /sys/class/net/wan0/flags; grep -c 10.9.0.2 /proc/net/fib_trie; grep wan0 /proc/net/if_inet6; \
         ls /sys/class/net";
    let (fine, said) = in_network(&host, PAIR, script, |document| {
        document["linux"]["netDevices"] = json!({ "gt0": { "name": "wan%d" } });
    });
    assert!(fine, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["1", "02:00:00:00:00:07", "1400"], "{said}");
    let flags = u32::from_str_radix(lines[3].trim_start_matches("0x"), 16).unwrap();
    assert_eq!(flags & 1, 1, "it is up: {said}");
    assert!(said.contains("fd000009000000000000000000000002"), "{said}");
    assert!(lines[lines.len() - 2..] == ["lo", "wan0"], "{said}");
    // Neither is there a device of that name, nor may a name be taken.
    for (devices, problem) in [
        (json!({ "gt7": {} }), "there is no such network device"),
        (json!({ "gt0": { "name": "lo" } }), "already"),
        (json!({ "lo": {} }), "already"),
    ] {
        let (fine, said) = in_network(&host, PAIR, "true", |document| {
            document["linux"]["netDevices"] = devices.clone();
        });
        assert!(!fine && said.contains(problem), "{devices}: {said}");
        assert!(said.contains(".linux.netDevices"), "{said}");
    }
    host.assert_nothing_left();
}

#[test]
fn privileged_memory_comes_from_the_nodes_of_the_document() {
    let host = host!();
    if !PathBuf::from("/proc/self/numa_maps").exists() {
        gantry_testkit::skip!("this kernel knows no memory nodes");
    }
    for (policy, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "interleave=static:0",
        ),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        let told = host.output("head -n 1 /proc/self/numa_maps", |document| {
            document["linux"]["memoryPolicy"] = policy.clone();
        });
        assert_eq!(told.split(' ').nth(1), Some(shown), "{policy}: {told}");
    }
    let output = host.run("true", |document| {
        document["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "4000"});
    });
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains(".linux.memoryPolicy"),
        "{said}"
    );
    host.assert_nothing_left();
}

#[test]
fn privileged_class_of_caches_is_had_or_refused() {
    let host = host!();
    let asked =
        |document: &mut Value| document["linux"]["intelRdt"] = json!({"enableMonitoring": true});
    let mounted = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .contains(" - resctrl ");
    let output = host.run("echo runs", asked);
    let said = String::from_utf8(output.stderr).unwrap();
    if mounted {
        assert!(output.status.success(), "{said}");
    } else {
        assert!(
            !output.status.success()
                && said.contains(".linux.intelRdt: no resctrl file system is mounted"),
            "{said}"
        );
    }
    host.assert_nothing_left();
}
