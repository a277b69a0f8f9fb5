// SPDX-License-Identifier: Apache-2.0
//! Skipping a test without hiding it.
//!
//! The harness has no notion of "skipped at run time", and it swallows what a passing test prints. A skip is therefore
//! written to the process's standard error itself, and, when `GANTRY_SKIPS` names a file, appended there, so that
//! `make test` can end with the list.

use std::io::Write as _;

/// Prints that `test` is skipped and why. Use [`skip!`](crate::skip!), which also returns.
pub fn report(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    let mut stderr = std::io::stderr();
    // A skip that cannot be printed is no reason to fail.
    drop(stderr.write_all(line.as_bytes()));
    if let Some(path) = std::env::var_os("GANTRY_SKIPS") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
    }
}

/// Ends the calling test (or any function that returns `()`) as skipped; takes what `format!` takes.
///
/// `skip!(Ok(()); "reason")` returns a value, for tests that return `Result`.
#[macro_export]
macro_rules! skip {
    ($value:expr; $($reason:tt)+) => {{
        $crate::skip::report(
            ::std::thread::current().name().unwrap_or(module_path!()),
            &format!($($reason)+),
        );
        return $value;
    }};
    ($($reason:tt)+) => {
        $crate::skip!((); $($reason)+)
    };
}

/// True for the superuser: mounts, device nodes, foreign owners and `trusted.*` attributes are possible.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
