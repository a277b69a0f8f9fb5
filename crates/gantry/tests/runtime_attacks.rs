// SPDX-License-Identifier: Apache-2.0
//! What images and containers have done to runtimes, done to ours: each test names the record that it is about.
#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod bundles;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bundles::Host;
use serde_json::{Value, json};

/// A directory of the host that no container may touch.
struct Canary(PathBuf);

impl Canary {
    fn new(host: &Host) -> Self {
        let path = host.path("canary");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "untouched").unwrap();
        Self(path)
    }

    fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["file"]);
        assert_eq!(
            fs::read_to_string(self.0.join("file")).unwrap(),
            "untouched"
        );
    }
}

fn add_mount(document: &mut Value, mount: Value) {
    document["mounts"].as_array_mut().unwrap().push(mount);
}

/// CVE-2023-27561, -28642, CVE-2025-54867, CVE-2026-41579, -47766: an image whose /proc, /sys or /dev is a symlink.
#[test]
fn privileged_symlinked_kernel_directories_are_refused() {
    let host = host!();
    let canary = Canary::new(&host);
    for (place, below) in [
        ("proc", None),
        ("sys", None),
        ("dev", None),
        ("dev", Some("pts")),
        ("dev", Some("shm")),
        ("dev", Some("mqueue")),
    ] {
        let place = host.rootfs().join(place);
        let (link, edit): (PathBuf, fn(&mut Value)) = match below {
            None => (place.clone(), |_| ()),
            // Without a file system of its own, /dev is the image's.
            Some(name) => (place.join(name), |document| {
                let mounts = document["mounts"].as_array_mut().unwrap();
                mounts.retain(|mount| mount["destination"] != "/dev");
            }),
        };
        fs::remove_dir_all(&link).ok();
        for target in [canary.0.to_str().unwrap(), "../../../../canary", "/tmp"] {
            symlink(target, &link).unwrap();
            let output = host.run("true", edit);
            assert_eq!(output.status.code(), Some(1), "{link:?} -> {target}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("symbolic link"), "{said}");
            fs::remove_file(&link).unwrap();
        }
        fs::create_dir_all(&link).unwrap();
        canary.assert_untouched();
        host.assert_nothing_left();
    }
}

/// CVE-2019-18837: mount targets that are symlinks out of the root are made inside it.
#[test]
fn privileged_mount_targets_stay_in_the_root() {
    let host = host!();
    let canary = Canary::new(&host);
    symlink(&canary.0, host.rootfs().join("etc/hosts")).unwrap();
    symlink("../../../../../../", host.rootfs().join("up")).unwrap();
    let source = host.path("source");
    fs::write(&source, "shown").unwrap();
    let inside = canary.0.strip_prefix("/").unwrap();
    let told = host.output(&format!("cat /{0}; cat /a", inside.display()), |document| {
        for target in ["/etc/hosts", "/up/a"] {
            add_mount(
                document,
                json!({"destination": target, "type": "bind", "source": source, "options": ["bind"]}),
            );
        }
    });
    assert_eq!(told, "shownshown");
    canary.assert_untouched();
    host.assert_nothing_left();
}

/// CVE-2024-21626: a working directory that is a descriptor of the host's.
#[test]
fn privileged_working_directory_is_in_the_container() {
    let host = host!();
    for cwd in (0..32)
        .map(|number| format!("/proc/self/fd/{number}"))
        .chain([
            "/proc/thread-self/cwd/..".to_owned(),
            "/proc/1/cwd".to_owned(),
        ])
    {
        let output = host.run("pwd -P; ls", |document| {
            document["process"]["cwd"] = json!(cwd)
        });
        let told = String::from_utf8(output.stdout).unwrap();
        // Where it is a directory at all it is one of the container's.
        if output.status.success() {
            assert!(told.starts_with('/'), "{cwd}: {told}");
            assert!(
                !told.contains("canary") && !told.contains("config.json"),
                "{cwd}: {told}"
            );
        }
        host.assert_nothing_left();
    }
}

/// CVE-2025-31133, -62161: what masks files is the host's null device, whatever the image has there.
#[test]
fn privileged_masks_do_not_come_from_the_image() {
    let host = host!();
    let without_dev = |document: &mut Value| {
        let mounts = document["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        document["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/timer_list"]);
        document["root"]["readonly"] = json!(false);
    };
    let null = host.rootfs().join("dev/null");
    let plant: [fn(&Path); 2] = [
        |null| symlink("/proc/sys/kernel/core_pattern", null).unwrap(),
        |null| fs::write(null, "planted").unwrap(),
    ];
    for plant in plant {
        fs::remove_file(&null).ok();
        plant(&null);
        // A default device that cannot be made is a refusal.
        let output = host.run("cat /proc/keys", without_dev);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
        fs::remove_file(&null).unwrap();
        host.assert_nothing_left();
    }
    let told = host.output(
        "cat /proc/keys /proc/timer_list; stat -c %t:%T /proc/keys",
        without_dev,
    );
    assert_eq!(told, "1:3");
}

/// CVE-2019-5736: nothing in the container can write to the runtime, by its own program or by exec.
#[test]
fn privileged_runtime_cannot_be_overwritten() {
    let host = host!();
    // A copy, which the test may lose.
    let program = host.path("gantry-runtime");
    fs::copy(env!("CARGO_BIN_EXE_gantry"), &program).unwrap();
    let before = fs::metadata(&program).unwrap();
    fs::write(host.rootfs().join("bin/self"), "#!/proc/self/exe\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(host.rootfs().join("bin/self"), mode).unwrap();
    let all: Vec<String> = all_capabilities();
    let bundle = host.bundle(
        "while :; do for p in /proc/[0-9]*; do [ $p = /proc/$$ ] && continue; \
         { exec 3<$p/exe && case $(readlink /proc/self/fd/3) in *gantry*) echo seen >> /seen; \
           echo x > /proc/self/fd/3 && echo written >> /written;; esac; exec 3<&-; } 2>/dev/null; done; done",
        |document| {
            // The most that a container can be given.
            document["process"]["capabilities"] = json!({
                "bounding": all, "effective": all, "permitted": all,
            });
            document["root"]["readonly"] = json!(false);
        },
    );
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.arg("--root").arg(host.root()).args(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().unwrap()
    };
    assert!(run(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]).success());
    for round in 0..40 {
        let program = if round % 2 == 0 { "true" } else { "/bin/self" };
        run(&["exec", "c", program]);
    }
    assert!(!host.rootfs().join("written").exists());
    assert!(run(&["delete", "--force", "c"]).success());
    let after = fs::metadata(&program).unwrap();
    assert_eq!(after.len(), before.len());
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    host.assert_nothing_left();
}

fn all_capabilities() -> Vec<String> {
    gantry_runtime::capability::CapabilitySet::ALL
        .iter()
        .map(gantry_runtime::capability::Capability::name)
        .collect()
}

/// CVE-2022-29162 and its kin, CVE-2025-27612: nothing is inheritable, and exec gives no more than the container has.
#[test]
fn privileged_exec_is_as_confined_as_the_container() {
    let host = host!();
    let bundle = host.bundle("exec sleep 600", |_| ());
    let mut run = host.command(&["run", "--detach", "--bundle"]);
    run.arg(bundle)
        .arg("c")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(run.status().unwrap().success());
    let read = "grep -E 'Cap|NoNewPrivs|Groups' /proc/self/status";
    let first = host.ok(&[
        "exec",
        "c",
        "grep",
        "-E",
        "Cap|NoNewPrivs",
        "/proc/1/status",
    ]);
    let second = host.ok(&[
        "exec",
        "c",
        "grep",
        "-E",
        "Cap|NoNewPrivs",
        "/proc/self/status",
    ]);
    assert_eq!(first, second);
    assert!(first.contains("CapInh:\t0000000000000000"), "{first}");
    assert!(first.contains("CapAmb:\t0000000000000000"), "{first}");
    let other = host.ok(&["exec", "-u", "5", "c", "sh", "-c", read]);
    assert!(other.contains("CapEff:\t0000000000000000"), "{other}");
    assert!(other.contains("CapPrm:\t0000000000000000"), "{other}");
    host.ok(&["delete", "--force", "c"]);
    host.assert_nothing_left();
}

/// Killed at whatever moment, the runtime leaves what `delete` removes.
#[test]
fn privileged_killed_runtime_is_cleaned_up_after() {
    let host = host!();
    let bundle = host.bundle("exec sleep 600", |_| ());
    for round in 0..60_u64 {
        let mut create = host.command(&["create", "--bundle"]);
        create
            .arg(&bundle)
            .arg("c")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = create.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(round * 700));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "{status}");
        host.ok(&["delete", "--force", "c"]);
        host.assert_nothing_left();
    }
    host.assert_nobody_left();
}

/// Many containers, one after the other: nothing is left of any.
#[test]
fn privileged_two_hundred_containers_leave_nothing() {
    let host = host!();
    let bundle = host.bundle("exit 0", |_| ());
    for _ in 0..200 {
        let mut run = host.command(&["run", "--bundle"]);
        assert!(run.arg(&bundle).arg("c").status().unwrap().success());
    }
    host.assert_nothing_left();
    host.assert_nobody_left();
}

/// Eight callers at once: nobody waits for another for ever, and nothing is left of anybody's.
#[test]
fn privileged_eight_callers_at_once_leave_nothing() {
    let host = host!();
    let bundle = host.bundle("exit 7", |document| {
        // Each container has a group of its own: that of its id.
        document["linux"]
            .as_object_mut()
            .unwrap()
            .remove("cgroupsPath");
    });
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (host, bundle) = (&host, &bundle);
            scope.spawn(move || {
                for number in 0..15 {
                    let mut run = host.command(&["run", "--bundle"]);
                    run.arg(bundle)
                        .arg(format!("gantry-test-c{caller}-{number}"));
                    assert_eq!(run.status().unwrap().code(), Some(7));
                }
            });
        }
    });
    host.assert_nothing_left();
    host.assert_nobody_left();
}

/// CVE-2026-30892: who an exec runs as is what was written, or it is refused; never root by mistake.
#[test]
fn privileged_users_of_exec_are_read_strictly() {
    let host = host!();
    let bundle = host.bundle("exec sleep 600", |_| ());
    let mut run = host.command(&["run", "--detach", "--bundle"]);
    run.arg(bundle).arg("c").stdout(Stdio::null());
    assert!(run.status().unwrap().success());
    for (words, ids) in [("1", "1 0"), ("1:2", "1 2"), ("0:2", "0 2")] {
        let told = host.ok(&[
            "exec",
            "-u",
            words,
            "c",
            "sh",
            "-c",
            "echo $(id -u) $(id -g)",
        ]);
        assert_eq!(told, ids, "{words}");
    }
    for words in [
        "1:",
        ":2",
        "1 ",
        " 1",
        "+1",
        "-1",
        "\u{663}",
        "4294967295",
        "4294967296",
        "root",
        "",
        "1:x",
    ] {
        assert_eq!(
            host.status(&["exec", "-u", words, "c", "true"]),
            1,
            "{words:?}"
        );
    }
    host.ok(&["delete", "--force", "c"]);
    host.assert_nothing_left();
}

/// CVE-2016-3697: a number is a number, whatever the image's accounts call it.
#[test]
fn privileged_number_of_a_user_is_no_name() {
    let host = host!();
    let accounts = "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n";
    fs::write(host.rootfs().join("etc/passwd"), accounts).unwrap();
    let told = host.output("id -u; id -g", |document| {
        document["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    assert_eq!(told, "1000\n1000");
}

/// CVE-2022-36109 and its kin: a group's permission that is less than everybody's holds, and groups are those of the document.
#[test]
fn privileged_permission_of_a_group_cannot_be_evaded() {
    let host = host!();
    let file = host.rootfs().join("etc/secret");
    fs::write(&file, "secret").unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(6)).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o704)).unwrap();
    for (gid, groups, shown) in [
        (6, json!([]), ""),
        (7, json!([6]), "6"),
        (6, json!([6, 8]), "6 8"),
    ] {
        let script = "cat /etc/secret 2>/dev/null || echo denied; grep Groups /proc/self/status";
        let told = host.output(script, |document| {
            document["process"]["user"] = json!({"uid": 5, "gid": gid, "additionalGids": groups});
        });
        let told: Vec<&str> = told.split_whitespace().collect();
        assert_eq!(told.join(" "), format!("denied Groups: {shown}").trim_end());
    }
    host.assert_nothing_left();
}

/// CVE-2021-43784: mappings of any length are carried out, or refused; they change nothing else.
#[test]
fn privileged_mappings_that_are_too_long_are_refused() {
    let host = host!();
    let with = |count: u32| {
        move |document: &mut Value| {
            let lines: Vec<Value> = (0..count)
                .map(|id| json!({"containerID": id, "hostID": 100_000 + 2 * id, "size": 1}))
                .collect();
            document["linux"]["uidMappings"] = json!(lines);
            document["linux"]["gidMappings"] = json!(lines);
            let namespaces = document["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user"}));
        }
    };
    assert_eq!(host.output("wc -l < /proc/self/uid_map", with(200)), "200");
    // Past the kernel's own bound of lines, and past 64 KiB of text.
    for count in [341, 6000] {
        let output = host.run("true", with(count));
        assert_eq!(output.status.code(), Some(1), "{count}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("uidMappings"), "{said}");
        host.assert_nothing_left();
    }
}

/// GHSA-g54h-m393-cpwq: without a rule, no device but every container's, whoever makes the node.
#[test]
fn privileged_devices_are_denied_unless_allowed() {
    let host = host!();
    let script = "for t in b c; do n=1; while [ $n -lt 256 ]; do mknod /tmp/d $t $n 0 && \
        { (exec 3< /tmp/d) 2>&1 | grep -q 'Operation not permitted' || echo $t $n; }; rm -f /tmp/d; n=$((n+1)); done; done; \
        for n in 1 2 3 4 5 7 8 9 11; do mknod /tmp/d c 1 $n; (exec 3< /tmp/d) 2>&1 | grep -q 'Operation not permitted' || echo mem $n; rm /tmp/d; done";
    let told = host.output(script, |document| {
        let capabilities = document["process"]["capabilities"].as_object_mut().unwrap();
        for set in ["bounding", "effective", "permitted"] {
            capabilities[set]
                .as_array_mut()
                .unwrap()
                .push(json!("CAP_MKNOD"));
        }
        document["root"]["readonly"] = json!(false);
        document["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    });
    // Terminals (5:0 and those of devpts); null, zero, full, random and urandom.
    assert_eq!(told, "c 5\nc 136\nmem 3\nmem 5\nmem 7\nmem 8\nmem 9");
    host.assert_nothing_left();
}

/// CVE-2018-10892, GHSA-6fw5-f8r9-fgfm: what the document hides is empty, and what it makes read-only is so.
#[test]
fn privileged_hidden_and_read_only_paths_cannot_be_written() {
    let host = host!();
    let hidden = [
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/sys/firmware",
    ];
    let read_only = ["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let script = "for p in /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/timer_list /sys/firmware; do \
        [ -e $p ] || continue; [ -d $p ] && ls -A $p || cat $p; done; \
        for p in /proc/sysrq-trigger /proc/sys/kernel/panic /proc/sys/kernel/core_pattern /sys/firmware/x /proc/acpi/x; do \
        (echo 0 > $p) 2>/dev/null && echo written $p; done; exit 0";
    let told = host.output(script, |document| {
        document["linux"]["maskedPaths"] = json!(hidden);
        document["linux"]["readonlyPaths"] = json!(read_only);
    });
    assert_eq!(told, "");
    host.assert_nothing_left();
}

/// CVE-2019-16884: a volume on `/proc` takes nothing of what is written for the program below it.
#[test]
fn privileged_volume_on_proc_is_not_written_to() {
    let host = host!();
    let volume = host.path("volume");
    fs::create_dir_all(volume.join("sys/net/ipv4")).unwrap();
    fs::create_dir_all(volume.join("self/attr")).unwrap();
    fs::write(volume.join("sys/net/ipv4/ping_group_range"), "untouched").unwrap();
    let output = host.run("true", |document| {
        add_mount(
            document,
            json!({"destination": "/proc", "type": "bind", "source": volume, "options": ["bind"]}),
        );
        document["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "5 7"});
        document["linux"]["maskedPaths"] = json!([]);
        document["linux"]["readonlyPaths"] = json!([]);
    });
    // It may be refused; where it is not the kernel's parameter was written.
    assert!(
        output.status.success() || output.status.code() == Some(1),
        "{output:?}"
    );
    let kept = fs::read_to_string(volume.join("sys/net/ipv4/ping_group_range")).unwrap();
    assert_eq!(kept, "untouched");
    host.assert_nothing_left();
}

/// Annotations name no program, no handler and no file of the host's to this runtime.
#[test]
fn privileged_annotations_are_only_told() {
    let host = host!();
    let mark = host.path("mark");
    let told = host.output("echo ran", |document| {
        document["annotations"] = json!({
            "run.oci.handler": "krun",
            "run.oci.hooks.stdout": mark,
            "run.oci.keep_original_groups": "1",
            "run.oci.mount_context_type": "context",
            "io.kubernetes.cri-o.Devices": "/dev/kmsg",
            "org.criu.config": mark,
            "module.wasm.image/variant": "compat",
        });
    });
    assert_eq!(told, "ran");
    assert!(!mark.exists());
    host.assert_nothing_left();
}
