// SPDX-License-Identifier: Apache-2.0
//! One more program in a container that runs: never wider than the container itself.

use gantry_oci::Kind;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, UserRequest};
use crate::options::{EnvVar, normalize_absolute};
use crate::supervise::WindowSize;

/// What may be asked of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOptions {
    /// The program with its arguments.
    pub args: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<EnvVar>,
    /// Replaces the container's working directory.
    pub workdir: Option<String>,
    /// Replaces the container's user.
    pub user: Option<UserRequest>,
    /// A terminal of this size for the program.
    pub terminal: Option<WindowSize>,
}

/// Why a program cannot be described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The container's document describes no process.
    #[error("read the container's document: it describes no process")]
    NoProcess,
    /// Nothing to execute.
    #[error("execute nothing in the container: name a program")]
    NoCommand,
    /// A string that goes to the kernel holds a NUL.
    #[error("an argument or a variable holds a NUL character")]
    Nul,
    /// The working directory cannot be one.
    #[error("working directory {path:?} is not an absolute path")]
    Workdir {
        /// As written.
        path: String,
    },
}

impl ExecError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoProcess => Kind::Corrupt,
            _ => Kind::InvalidInput,
        }
    }
}

/// Describes the program, after the container's own process. `identity` is the user that was asked for,
/// resolved.
///
/// The capabilities of another user than the container's follow from its number: root gets what
/// bounds the container, anybody else none. Limits, labels and "no new privileges" stay as they are.
///
/// # Errors
/// Words that make no sense.
pub fn describe(
    container: &Spec,
    options: &ExecOptions,
    identity: Option<&Identity>,
) -> Result<Process, ExecError> {
    let mut process = container.process().clone().ok_or(ExecError::NoProcess)?;
    if options.args.first().is_none_or(String::is_empty) {
        return Err(ExecError::NoCommand);
    }
    let values = options.env.iter().map(|var| &var.value);
    if options
        .args
        .iter()
        .chain(values)
        .any(|text| text.contains('\0'))
    {
        return Err(ExecError::Nul);
    }
    let mut env = process.env().clone().unwrap_or_default();
    let mut put = |name: &str, value: &str| {
        let pair = format!("{name}={value}");
        let prefix = format!("{name}=");
        match env.iter_mut().find(|old| old.starts_with(&prefix)) {
            Some(old) => *old = pair,
            None => env.push(pair),
        }
    };
    if options.terminal.is_some() {
        put("TERM", "xterm");
    }
    if let Some(identity) = identity {
        put("HOME", &identity.home);
    }
    for var in &options.env {
        put(&var.name, &var.value);
    }
    if let Some(path) = &options.workdir {
        let normal = path
            .starts_with('/')
            .then(|| normalize_absolute(path))
            .flatten()
            .ok_or_else(|| ExecError::Workdir { path: path.clone() })?;
        process.set_cwd(normal.into());
    }
    if let Some(identity) = identity.filter(|identity| identity.uid != process.user().uid()) {
        let sets = process.capabilities().clone().unwrap_or_default();
        process.set_capabilities(Some(capabilities_of(&sets, identity.uid)));
    }
    if let Some(identity) = identity {
        process.set_user(identity.to_oci());
    }
    process
        .set_args(Some(options.args.clone()))
        .set_env(Some(env))
        .set_terminal(Some(options.terminal.is_some()))
        .set_console_size(options.terminal.map(WindowSize::to_document));
    Ok(process)
}

fn capabilities_of(container: &LinuxCapabilities, uid: u32) -> LinuxCapabilities {
    let none: std::collections::HashSet<Capability> = std::collections::HashSet::new();
    let bounding = container.bounding().clone().unwrap_or_default();
    let held = if uid == 0 {
        bounding.clone()
    } else {
        none.clone()
    };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding))
        .set_effective(Some(held.clone()))
        .set_permitted(Some(held))
        .set_inheritable(Some(none.clone()))
        .set_ambient(Some(none));
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container() -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["first"], "cwd": "/srv", "env": ["PATH=/bin", "A=1"], "user": {"uid": 1000, "gid": 1000},
                "noNewPrivileges": true,
                "capabilities": {
                    "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                    "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
                },
            },
        }))
        .unwrap()
    }

    fn options(args: &[&str]) -> ExecOptions {
        ExecOptions {
            args: args.iter().map(ToString::to_string).collect(),
            ..ExecOptions::default()
        }
    }

    fn as_user(uid: u32) -> serde_json::Value {
        let identity = Identity {
            uid,
            gid: 7,
            groups: vec![7],
            home: "/h".into(),
        };
        let process = describe(&container(), &options(&["second"]), Some(&identity)).unwrap();
        serde_json::to_value(process).unwrap()
    }

    #[test]
    fn program_is_as_confined_as_the_first_one() {
        let process = describe(&container(), &options(&["second", "x"]), None).unwrap();
        let value = serde_json::to_value(process).unwrap();
        assert_eq!(value["args"], json!(["second", "x"]));
        assert_eq!(value["noNewPrivileges"], json!(true));
        assert_eq!(value["capabilities"]["effective"], json!(["CAP_KILL"]));
        assert_eq!(value["cwd"], "/srv");
    }

    #[test]
    fn another_user_gets_no_more_than_what_bounds_the_container() {
        let root = as_user(0);
        let mut held: Vec<_> = root["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .clone();
        held.sort_by_key(ToString::to_string);
        assert_eq!(held, [json!("CAP_CHOWN"), json!("CAP_KILL")]);
        assert_eq!(root["capabilities"]["inheritable"], json!([]));
        assert_eq!(as_user(5)["capabilities"]["effective"], json!([]));
        assert_eq!(as_user(5)["capabilities"]["ambient"], json!([]));
        assert_eq!(as_user(5)["env"], json!(["PATH=/bin", "A=1", "HOME=/h"]));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            describe(&container(), &options(&[]), None),
            Err(ExecError::NoCommand)
        );
        assert_eq!(
            describe(&container(), &options(&["a\0b"]), None),
            Err(ExecError::Nul)
        );
        let mut relative = options(&["x"]);
        relative.workdir = Some("srv".into());
        assert!(matches!(
            describe(&container(), &relative, None),
            Err(ExecError::Workdir { .. })
        ));
    }
}
