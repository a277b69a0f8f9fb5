// SPDX-License-Identifier: Apache-2.0
//! What images and containers have done to runtimes, done to ours: each test names the record that it is about.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bundles;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bundles::Host;
use serde_json::{Value, json};

/// Ends the test unless containers can be run here.
macro_rules! host {
    () => {
        match Host::new() {
            Ok(host) => host,
            Err(reason) => gantry_testkit::skip!("{reason}"),
        }
    };
}

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

/// CVE-2021-30465, CVE-2024-45310: a volume whose directory becomes a symlink while mounts are made in it.
#[test]
fn privileged_racing_renames_lead_nowhere() {
    let host = host!();
    let canary = Canary::new(&host);
    let volume = host.path("volume");
    fs::create_dir_all(volume.join("a")).unwrap();
    symlink(&canary.0, volume.join("trap")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let racer = {
        let (stop, volume) = (Arc::clone(&stop), volume.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    volume.join("a"),
                    rustix::fs::CWD,
                    volume.join("trap"),
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        })
    };
    for round in 0..60 {
        let output = host.run("cat /proc/self/mountinfo", |document| {
            add_mount(document, json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind"]}));
            let target = format!("/v/a/b{}", round % 7);
            add_mount(document, json!({"destination": target, "type": "tmpfs", "source": "t"}));
        });
        // It may fail; it may not lead out.
        let mounts = String::from_utf8(output.stdout).unwrap();
        // The link's target, taken inside the root, is a fine place; the host's is never what is shown.
        let shown = |line: &str| line.split(' ').nth(3).map(str::to_owned);
        let leads_out = |root: String| root.contains("/canary");
        assert!(!mounts.lines().filter_map(shown).any(leads_out), "{mounts}");
        canary.assert_untouched();
    }
    stop.store(true, Ordering::Relaxed);
    racer.join().unwrap();
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

/// A kernel or a filter without one of the newer calls: another way that works, or a refusal that names the call.
#[test]
fn privileged_missing_system_calls_are_replaced_or_refused() {
    let host = host!();
    let Some(strace) = gantry_testkit::tool::find("strace") else {
        gantry_testkit::skip!("strace not installed");
    };
    let bundle = host.bundle("exit 7", |_| ());
    let replaced = [
        "clone3",
        "openat2",
        "close_range",
        "pidfd_open",
        "statx",
        "keyctl",
    ];
    let refused = [
        "mount_setattr",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsmount",
        "fsconfig",
    ];
    for (call, works) in replaced
        .map(|call| (call, true))
        .into_iter()
        .chain(refused.map(|call| (call, false)))
    {
        let plain = host.command(&["run", "--bundle"]);
        let output = std::process::Command::new(&strace)
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:error=ENOSYS")])
            .arg(plain.get_program())
            .args(plain.get_args())
            .arg(&bundle)
            .arg("c")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if works {
            assert_eq!(output.status.code(), Some(7), "{call}: {said}");
        } else {
            assert_eq!(output.status.code(), Some(1), "{call}: {said}");
            assert!(
                said.contains(call) && said.contains("not implemented"),
                "{call}: {said}"
            );
        }
        host.assert_nothing_left();
    }
}
