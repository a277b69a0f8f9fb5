// SPDX-License-Identifier: Apache-2.0
//! Whatever fails while an image is judged: it is refused. The long run is `cargo xtask fail-closed`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use gantry_testkit::faults;
use gantry_testkit::scratch::scratch;

#[test]
fn a_failing_system_call_never_admits_an_image() {
    needs!(
        [""; 0],
        ["docker-registry", "skopeo", "gpg", "openssl", "strace"]
    );
    let dir = scratch();
    let gantry = Path::new(env!("CARGO_BIN_EXE_gantry"));
    let denials = faults::denials(gantry, dir.path()).unwrap().unwrap();
    let report = faults::campaign(&denials.all, dir.path(), 4, 4).unwrap();
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert!(report.runs > 50, "{} runs", report.runs);
}

#[test]
fn a_verifier_that_is_killed_starved_or_late_admits_nothing() {
    needs!(
        [""; 0],
        ["docker-registry", "skopeo", "gpg", "openssl", "strace"]
    );
    let dir = scratch();
    let gantry = Path::new(env!("CARGO_BIN_EXE_gantry"));
    let denials = faults::denials(gantry, dir.path()).unwrap().unwrap();
    for denial in &denials.all {
        let mut ends = Vec::new();
        for bytes in [
            16 << 20,
            32 << 20,
            48 << 20,
            64 << 20,
            96 << 20,
            128 << 20,
            256 << 20,
        ] {
            let limit = format!("--as={bytes}");
            ends.push(denial.below(&["prlimit", &limit]).output().unwrap());
        }
        for after in ["1", "20", "40", "80"] {
            let inject = format!("inject=openat,read:signal=KILL:when={after}");
            ends.push(
                denial
                    .below(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject])
                    .output()
                    .unwrap(),
            );
        }
        for time in ["0.002", "0.005", "0.01"] {
            ends.push(
                denial
                    .below(&["timeout", "-s", "KILL", time])
                    .output()
                    .unwrap(),
            );
        }
        ends.push(denial.below(&["prlimit", "--nofile=4"]).output().unwrap());
        ends.push(denial.below(&["prlimit", "--nofile=6"]).output().unwrap());
        for output in ends {
            assert!(
                output.status.code() != Some(0),
                "{}: {output:?}",
                denial.name
            );
        }
    }
}
