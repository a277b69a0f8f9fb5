// SPDX-License-Identifier: Apache-2.0
//! A kernel or a filter that lacks a system call: each call of a run is taken away in turn. Another way is found, or the call is named.
#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod bundles;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use bundles::Host;

/// Those without which the run still succeeds. A call that is not here may be missing only with a word about it.
const REPLACED: [&str; 7] = [
    "clone3",
    "close_range",
    "faccessat2",
    "keyctl",
    "openat2",
    "pidfd_open",
    "statx",
];

/// Those without which no program of Rust comes as far as our first line, or can say anything: the loader's, the allocator's and
/// the library's own. All that is asked of them is that nothing hangs and nothing stays.
const BASIC: [&str; 19] = [
    "arch_prctl",
    "brk",
    "close",
    "execve",
    "getpid",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "poll",
    "pread64",
    "prlimit64",
    "read",
    "rt_sigaction",
    "sigaltstack",
    "umask",
    "uname",
    "write",
];

/// The status of the container's program.
const STATUS: i32 = 7;

fn strace(host: &Host, bundle: &Path, words: &[&str], id: &str) -> Command {
    let run = host.command(&["run", "--bundle"]);
    let mut command = Command::new("timeout");
    // What hangs is a failure, not a wait.
    command
        .args(["--kill-after=1", "60", "strace", "-f"])
        .args(words)
        .arg(run.get_program())
        .args(run.get_args())
        .arg(bundle)
        .arg(id)
        .stdin(std::process::Stdio::null());
    command
}

/// Every system call of the runtime and of init, by strace's lines.
fn calls(trace: &Path) -> BTreeSet<String> {
    let text = fs::read(trace).unwrap();
    let text = String::from_utf8_lossy(&text);
    let names = text.lines().filter_map(|line| {
        let (_, call) = line.split_once(' ')?;
        let (name, _) = call.trim_start().split_once('(')?;
        let is_name = |text: &str| {
            text.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        is_name(name).then(|| name.to_owned())
    });
    names.filter(|name| !name.starts_with("exit")).collect()
}

#[test]
fn privileged_every_call_of_a_run_is_replaced_or_named() {
    let host = host!();
    if gantry_testkit::tool::find("strace").is_none() {
        gantry_testkit::skip!("strace not installed");
    }
    let bundle = host.bundle("exit 7", |document| {
        // Each container has a group of its own: that of its id.
        document["linux"]
            .as_object_mut()
            .unwrap()
            .remove("cgroupsPath");
    });
    let trace = host.path("trace");
    let words = ["-o", trace.to_str().unwrap()];
    let status = strace(&host, &bundle, &words, "gantry-test-all")
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(STATUS));
    let mut calls = calls(&trace);
    assert!(
        calls.contains("move_mount") && calls.len() > 60,
        "{calls:?}"
    );
    // Those that stand behind another, and are not reached while that is there.
    calls.extend(REPLACED.map(str::to_owned));
    let left = Mutex::new(calls);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(call) = left.lock().unwrap().pop_first() else {
                        return;
                    };
                    if let Err(sentence) = without(&host, &bundle, &call) {
                        wrong.lock().unwrap().push(sentence);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    host.assert_nothing_left();
    host.assert_nobody_left();
}

fn without(host: &Host, bundle: &Path, call: &str) -> Result<(), String> {
    let id = format!("gantry-test-{call}");
    let inject = format!("inject={call}:error=ENOSYS");
    let trace = format!("trace={call}");
    let words = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
    let output = strace(host, bundle, &words, &id).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What the missing call kept from being undone, the next call undoes.
    host.ok(&["delete", "--force", &id]);
    let verdict = match output.status.code() {
        Some(STATUS) => Ok(()),
        // timeout's own.
        Some(124 | 137) => Err("hung"),
        _ if BASIC.contains(&call) => Ok(()),
        _ if REPLACED.contains(&call) => Err("is not replaced"),
        Some(1) if said.contains("not implemented") => Ok(()),
        _ => Err("no reason"),
    };
    verdict.map_err(|fault| format!("{call}: {fault}: {:?} {said}", output.status))
}
