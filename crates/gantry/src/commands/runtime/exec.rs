// SPDX-License-Identifier: Apache-2.0
//! `exec`.

use std::path::Path;

use gantry_runtime::oci::Context;
use gantry_runtime::oci::exec::{ExecOptions, document, exec as go};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec, User};

use super::words::Words;
use super::{Answer, Failure, id_and_rest, socket_activation};

/// The largest id: one more means "none" to the kernel.
const ID_MAX: u32 = u32::MAX - 1;

pub(super) fn exec(context: &Context<'_>, words: &Words) -> Answer {
    let (id, args) = id_and_rest(words)?;
    let spec = document(context, id)?;
    let process = match words.get("process") {
        Some(path) => read_process(path.as_ref())?,
        None => describe(&spec, words, args)?,
    };
    let (sockets, extra_env) = socket_activation();
    let options = ExecOptions {
        console_socket: words
            .get("console-socket")
            .filter(|path| !path.is_empty())
            .map(Into::into),
        pid_file: words
            .get("pid-file")
            .filter(|path| !path.is_empty())
            .map(Into::into),
        detach: words.has("detach"),
        preserve_fds: words.number("preserve-fds")?.unwrap_or(0) + sockets,
        extra_env,
        cgroup: words.text("cgroup")?.map(str::to_owned),
        ignore_paused: words.has("ignore-paused"),
    };
    Ok(go(context, id, &spec, &process, &options)?)
}

fn read_process(path: &Path) -> Result<Process, Failure> {
    let said =
        |error: &dyn std::fmt::Display| Failure::Usage(format!("read {}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| said(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| said(&error))
}

/// The container's own process, with what the flags change.
fn describe(spec: &Spec, words: &Words, args: &[std::ffi::OsString]) -> Result<Process, Failure> {
    let mut process = spec.process().clone().unwrap_or_default();
    let args = args
        .iter()
        .map(|word| word.to_str().map(str::to_owned))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Failure::Usage("an argument is not UTF-8".to_owned()))?;
    if args.is_empty() {
        return Err(Failure::Usage("a program is missing".to_owned()));
    }
    process.set_args(Some(args));
    process.set_terminal(Some(words.has("tty")));
    if let Some(cwd) = words.get("cwd") {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    for variable in words.all("env") {
        let text = variable
            .to_str()
            .ok_or_else(|| Failure::Usage("a variable is not UTF-8".to_owned()))?;
        // The last one of a name counts, for programs that read the first.
        if let Some((name, _)) = text.split_once('=') {
            let same = format!("{name}=");
            env.retain(|held| !held.starts_with(&same));
        }
        env.push(text.to_owned());
    }
    process.set_env(Some(env));
    if let Some(user) = words.text("user")? {
        process.set_user(parse_user(user)?);
    }
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    for group in words.all("additional-gids") {
        groups.push(parse_id(&group.to_string_lossy())?);
    }
    if !groups.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    if let Some(label) = words.text("process-label")? {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = words.text("apparmor")? {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if words.has("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    let added = words
        .all("cap")
        .map(|name| {
            let name = name.to_string_lossy();
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            bare.parse()
                .map_err(|_| Failure::Usage(format!("--cap: {name:?} is no capability")))
        })
        .collect::<Result<Capabilities, Failure>>()?;
    if !added.is_empty() {
        let held = process.capabilities().clone();
        process.set_capabilities(Some(with(held, &added)));
    }
    Ok(process)
}

/// Adds to what bounds, is permitted and is in effect; nothing is ever inherited by it.
fn with(held: Option<LinuxCapabilities>, added: &Capabilities) -> LinuxCapabilities {
    let mut sets = held.unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        none.set_bounding(None)
            .set_effective(None)
            .set_permitted(None);
        none.set_inheritable(None).set_ambient(None);
        none
    });
    let more = |set: &Option<Capabilities>| {
        Some(
            set.iter()
                .flatten()
                .chain(added)
                .copied()
                .collect::<Capabilities>(),
        )
    };
    let (bounding, effective, permitted) = (
        more(sets.bounding()),
        more(sets.effective()),
        more(sets.permitted()),
    );
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted);
    sets
}

/// Reads `UID[:GID]`: decimal digits and nothing else, never a name.
fn parse_user(text: &str) -> Result<User, Failure> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (parse_id(uid)?, parse_id(gid)?),
        None => (parse_id(text)?, 0),
    };
    let mut user = User::default();
    user.set_uid(uid).set_gid(gid);
    Ok(user)
}

fn parse_id(text: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if digits {
        text.parse::<u32>().ok()
    } else {
        None
    };
    value
        .filter(|id| *id <= ID_MAX)
        .ok_or_else(|| Failure::Usage(format!("{text:?} is no id: decimal digits up to {ID_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_refused() {
        for (text, uid, gid) in [
            ("1", 1, 0),
            ("1:2", 1, 2),
            ("01", 1, 0),
            ("0", 0, 0),
            ("4294967294", ID_MAX, 0),
        ] {
            let user = parse_user(text).unwrap();
            assert_eq!((user.uid(), user.gid()), (uid, gid), "{text}");
        }
        for bad in [
            "",
            "1:",
            ":2",
            "1 ",
            "+1",
            "-1",
            "٣",
            "4294967295",
            "root",
            "1:2:3",
            "0x1",
        ] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
