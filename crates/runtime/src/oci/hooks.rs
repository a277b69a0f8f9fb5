// SPDX-License-Identifier: Apache-2.0
//! Programs that the document wants run at its stages.
//!
//! | stage | who runs it | when | a failure |
//! |---|---|---|---|
//! | prestart, createRuntime | the runtime | mounts made, root not pivoted | ends the container |
//! | createContainer | init | the same, after them, in the container's namespaces | likewise |
//! | startContainer | init | after `start`, in the container's root | likewise |
//! | poststart | the runtime | the program runs | is a warning |
//! | poststop | the runtime | after `delete` | is a warning |
//!
//! # Source
//! runtime-spec 1.2 "POSIX-platform Hooks", "Lifecycle".

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_sys::Errno;
use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::RuntimeError;

/// Runs the hooks of a stage in order, each with the state on its standard input and, where one is given, in the directory
/// `dir`; stops at the first that fails.
///
/// # Errors
/// A hook could not be run, did not end with 0, or not in its time.
pub fn run(
    stage: &'static str,
    hooks: Option<&Vec<Hook>>,
    state: &[u8],
    dir: Option<&Path>,
) -> Result<(), RuntimeError> {
    hooks
        .into_iter()
        .flatten()
        .try_for_each(|hook| run_one(stage, hook, state, dir))
}

/// Runs every hook of a stage; the sentences of those that failed.
#[must_use]
pub fn run_all(stage: &'static str, hooks: Option<&Vec<Hook>>, state: &[u8]) -> Vec<String> {
    hooks
        .into_iter()
        .flatten()
        .filter_map(|hook| run_one(stage, hook, state, None).err())
        .map(|error| error.sentence())
        .collect()
}

fn run_one(
    stage: &'static str,
    hook: &Hook,
    state: &[u8],
    dir: Option<&Path>,
) -> Result<(), RuntimeError> {
    let failed = |reason: String| RuntimeError::Hook {
        stage,
        path: hook.path().clone(),
        reason,
    };
    if !hook.path().is_absolute() {
        return Err(failed("the path is not absolute".to_owned()));
    }
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(args);
    }
    if let Some(variables) = hook.env() {
        command.env_clear();
        command.envs(variables.iter().filter_map(|text| text.split_once('=')));
    }
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read; its status says whether it minded.
        stdin.write_all(state).ok();
    }
    if let Some(seconds) = hook.timeout() {
        let pid = Pid::from_child(&child);
        let ended = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|errno| failed(std::io::Error::from(errno).to_string()))
            .and_then(|process| wait_for(&process, seconds).map_err(|e| failed(e.to_string())));
        if !matches!(ended, Ok(true)) {
            child.kill().ok();
            child.wait().ok();
            return Err(ended
                .err()
                .unwrap_or_else(|| failed(format!("did not end within {seconds} seconds"))));
        }
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(status.to_string()))
    }
}

/// Whether the process ended in that time.
fn wait_for(process: &impl std::os::fd::AsFd, seconds: i64) -> std::io::Result<bool> {
    let timeout = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hooks(list: serde_json::Value) -> Vec<Hook> {
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn hook_reads_the_state_and_gets_its_arguments_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat > {0}; echo \"$0 $1 $A\" >> {0}", out.display());
        let list = hooks(json!([
            {"path": "/bin/sh", "args": ["sh", "-c", script, "name", "one"], "env": ["A=b", "PATH=/bin:/usr/bin"]}
        ]));
        run("prestart", Some(&list), b"{state}", None).unwrap();
        assert_eq!(std::fs::read_to_string(out).unwrap(), "{state}name one b\n");
    }

    #[test]
    fn failing_slow_and_absent_hooks_are_told() {
        for (hook, reason) in [
            (json!({"path": "/bin/false"}), "exit status: 1"),
            (json!({"path": "/nowhere"}), "No such file"),
            (json!({"path": "false"}), "not absolute"),
            (
                json!({"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}),
                "within 1 seconds",
            ),
        ] {
            let list = hooks(json!([hook]));
            let error = run("prestart", Some(&list), b"{}", None).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn first_failure_ends_a_stage_unless_all_shall_run() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let list = hooks(json!([
            {"path": "/bin/false"},
            {"path": "/bin/touch", "args": ["touch", mark]}
        ]));
        run("prestart", Some(&list), b"{}", None).unwrap_err();
        assert!(!mark.exists());
        assert_eq!(run_all("poststop", Some(&list), b"{}").len(), 1);
        assert!(mark.exists());
    }
}
