// SPDX-License-Identifier: Apache-2.0
//! Kills and power cuts at chosen moments: afterwards it is the old state or the new.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use gantry_store::{CheckOptions, Faces, Store};
use gantry_testkit::scratch::scratch;
use gantry_testkit::skip::is_root;
use gantry_testkit::tool;
use std::path::Path;
use std::process::Command;

/// Set for the program that is killed: the directory to work in.
const VICTIM: &str = "GANTRY_STORE_TEST_VICTIM";

/// Calls by which staged things become visible, or durable, and the calls around them.
const CALLS: [&str; 10] = [
    "renameat2",
    "renameat",
    "symlinkat",
    "linkat",
    "fsync",
    "syncfs",
    "mkdirat",
    "unlinkat",
    "openat",
    "write",
];

fn small_image(version: u8) -> TestImage {
    let base = layer(
        Tar::default()
            .dir("etc/", mode(0o755))
            .file("etc/a", mode(0o4755), &[1; 3000])
            .file("etc/b", mode(0o644), &[2; 100])
            .symlink("etc/c", "a"),
    );
    let own = layer(Tar::default().file("own", mode(0o644), &[version; 200_000]));
    image(vec![base, own])
}

/// Not a test by itself: what the others start again as another process.
#[test]
fn victim() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        let store = store(Path::new(&dir));
        let faces = if is_root() {
            Faces::BOTH
        } else {
            Faces::COMPOSEFS
        };
        import(&store, &small_image(2), faces, &[name("demo/app:now")]).unwrap();
    }
}

fn prepare(dir: &Path) -> Store {
    let store = store(dir);
    let faces = if is_root() {
        Faces::BOTH
    } else {
        Faces::COMPOSEFS
    };
    import(&store, &small_image(1), faces, &[name("demo/app:now")]).unwrap();
    store
}

/// The old image or the new, whole; nothing staged; and the same import works now.
fn assert_old_or_new(dir: &Path, what: &str) {
    let store = Store::open(&dir.join("store")).unwrap();
    assert!(
        staging_is_empty(&store),
        "{what}: staging was not reclaimed"
    );
    let report = store.check(&CheckOptions::default(), &|_, _| {}).unwrap();
    assert!(report.is_clean(), "{what}: {:#?}", report.problems);
    let target = store.target(&name("demo/app:now")).unwrap();
    let states = [small_image(1), small_image(2)].map(|image| *image.manifest.digest());
    assert!(
        target.is_some_and(|target| states.contains(&target)),
        "{what}: {target:?}"
    );
    let record = store.resolve(&name("demo/app:now")).unwrap().unwrap();
    for layer in &record.image().unwrap().layers {
        let mut tar = Vec::new();
        store.write_layer_tar(&layer.diff_id, &mut tar).unwrap();
        let digest = gantry_oci::Digest::of(gantry_oci::Algorithm::Sha256, &tar);
        assert_eq!(&digest, layer.diff_id.digest(), "{what}");
    }
    let faces = if is_root() {
        Faces::BOTH
    } else {
        Faces::COMPOSEFS
    };
    import(&store, &small_image(2), faces, &[name("demo/app:now")]).unwrap();
    assert_sound(&store);
}

fn victim_command(dir: &Path, strace: &[String]) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(strace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--test-threads=1"])
        .env(VICTIM, dir);
    command
}

#[test]
fn killed_at_any_call_it_is_the_old_state_or_the_new() {
    if let Some(missing) = tool::missing(&["strace"]).first() {
        gantry_testkit::skip!("{missing} is not installed");
    }
    let full = std::env::var_os("GANTRY_TORTURE").is_some();
    let mut kills = 0;
    for call in CALLS {
        // A few early points, then sparser ones, until the program survives.
        let mut when = 1;
        loop {
            let dir = scratch();
            drop(prepare(dir.path()));
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let args = [
                "-e".to_owned(),
                format!("trace={call}"),
                "-e".to_owned(),
                inject,
            ];
            let status = victim_command(dir.path(), &args).output().unwrap().status;
            assert_old_or_new(dir.path(), &format!("killed at {call} {when}"));
            if status.success() {
                break;
            }
            kills += 1;
            when += if full { 1 } else { (when / 2).max(1) };
        }
    }
    assert!(kills > 20, "only {kills} kills happened");
}

#[test]
fn failing_calls_leave_the_old_state() {
    if let Some(missing) = tool::missing(&["strace"]).first() {
        gantry_testkit::skip!("{missing} is not installed");
    }
    for (call, errno) in [
        ("syncfs", "EIO"),
        ("renameat2", "EIO"),
        ("linkat", "EIO"),
        ("symlinkat", "ENOSPC"),
        ("fsync", "EIO"),
    ] {
        let dir = scratch();
        let store = prepare(dir.path());
        let before = store.target(&name("demo/app:now")).unwrap();
        let inject = format!("inject={call}:error={errno}:when=1+");
        let args = [
            "-e".to_owned(),
            format!("trace={call}"),
            "-e".to_owned(),
            inject,
        ];
        let status = victim_command(dir.path(), &args).output().unwrap().status;
        assert!(!status.success(), "{call} {errno}: import claims success");
        assert_eq!(
            store.target(&name("demo/app:now")).unwrap(),
            before,
            "{call}"
        );
        drop(store);
        assert_old_or_new(dir.path(), &format!("{call} gave {errno}"));
    }
}

#[test]
fn without_no_replace_renames_links_stand_in() {
    if let Some(missing) = tool::missing(&["strace"]).first() {
        gantry_testkit::skip!("{missing} is not installed");
    }
    for errno in ["EINVAL", "ENOSYS"] {
        let dir = scratch();
        drop(prepare(dir.path()));
        let inject = format!("inject=renameat2:error={errno}");
        let args = [
            "-e".to_owned(),
            "trace=renameat2".to_owned(),
            "-e".to_owned(),
            inject,
        ];
        let output = victim_command(dir.path(), &args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let store = Store::open(&dir.join("store")).unwrap();
        let new = *small_image(2).manifest.digest();
        assert_eq!(store.target(&name("demo/app:now")).unwrap(), Some(new));
        assert_sound(&store);
    }
}

/// Stops the file system as a power cut would. The nasty kind flushes the journal, so names and
/// sizes survive and contents that were not synced do not.
const CUT: &str = r"
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587D, struct.pack('I', int(sys.argv[2])))
";

#[test]
fn privileged_power_cut_after_commit_loses_nothing() {
    if !is_root() {
        gantry_testkit::skip!("a file system of its own needs root");
    }
    if let Some(missing) = tool::missing(&["python3", "losetup", "mkfs.ext4"]).first() {
        gantry_testkit::skip!("{missing} is not installed");
    }
    for flush in ["1", "2"] {
        let dir = scratch();
        let (disk, mnt) = (dir.join("disk"), dir.join("mnt"));
        std::fs::create_dir(&mnt).unwrap();
        std::fs::File::create(&disk)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        tool::run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk)).unwrap();
        let mount = || {
            tool::run(
                Command::new("mount")
                    .args(["-o", "loop"])
                    .arg(&disk)
                    .arg(&mnt),
            )
            .unwrap()
        };
        mount();
        drop(prepare(&mnt));
        let store = store(&mnt);
        let faces = Faces::BOTH;
        import(&store, &small_image(2), faces, &[name("demo/app:now")]).unwrap();
        drop(store);
        tool::run(
            Command::new("python3")
                .args(["-c", CUT])
                .arg(&mnt)
                .arg(flush),
        )
        .unwrap();
        tool::run(Command::new("umount").arg(&mnt)).unwrap();
        mount();
        let store = Store::open(&mnt.join("store")).unwrap();
        assert_sound(&store);
        let new = *small_image(2).manifest.digest();
        assert_eq!(
            store.target(&name("demo/app:now")).unwrap(),
            Some(new),
            "cut {flush}"
        );
        drop(store);
        assert_old_or_new(&mnt, &format!("power cut {flush}"));
        tool::run(Command::new("umount").arg(&mnt)).unwrap();
    }
}
