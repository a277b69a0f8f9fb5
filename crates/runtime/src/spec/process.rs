// SPDX-License-Identifier: Apache-2.0
//! The process: what is executed, as whom, with which rights, limits and variables.

use gantry_oci::{ImageConfig, ProcessConfig};
use oci_spec::runtime::{
    LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User,
};

use super::profile::Defaults;
use super::{GenerateError, Origin, Placement, Report};
use crate::capability::CapabilitySet;
use crate::host::HostFacts;
use crate::identity::UserRequest;
use crate::options::{EnvVar, Network, RunOptions, SecurityOption, Ulimit, normalize_absolute};

/// Where `--init` puts the first process.
pub(super) const INIT_PATH: &str = "/dev/init";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn no_nul(text: &str, what: &'static str) -> Result<(), GenerateError> {
    if text.contains('\0') {
        Err(GenerateError::Nul { what })
    } else {
        Ok(())
    }
}

pub(super) fn pick_user(
    image: &ProcessConfig,
    options: &RunOptions,
    report: &mut Report,
) -> Result<UserRequest, GenerateError> {
    let (user, origin) = match (&options.user, image.user.as_str()) {
        (Some(user), _) => (user.clone(), Origin::Option),
        (None, "") => (UserRequest::default(), Origin::Fixed),
        (None, text) => (text.parse().map_err(GenerateError::User)?, Origin::Image),
    };
    report.explain("user", &user, origin, Some("--user"));
    Ok(user)
}

pub(super) fn pick_hostname(
    options: &RunOptions,
    host: &HostFacts,
    placement: &Placement,
) -> String {
    let shared = options.network == Network::Host || !options.namespaces.uts.is_private();
    match &options.hostname {
        Some(name) => name.clone(),
        None if shared && !host.hostname.is_empty() => host.hostname.clone(),
        None => placement.short_id().to_owned(),
    }
}

pub(super) fn pick_capabilities(
    options: &RunOptions,
    host: &HostFacts,
    defaults: &Defaults,
    report: &mut Report,
) -> Result<CapabilitySet, GenerateError> {
    if options.privileged || options.cap_add == CapabilitySet::ALL {
        let set = host.capabilities.difference(options.cap_drop);
        report.explain("capabilities", set, Origin::Option, None);
        return Ok(set);
    }
    let missing = options.cap_add.difference(host.capabilities);
    if !missing.is_empty() {
        return Err(GenerateError::Capabilities { missing });
    }
    // A capability that is added wins over `--cap-drop all`, as in podman.
    let kept = if options.cap_drop == CapabilitySet::ALL {
        options.cap_add
    } else {
        defaults
            .capabilities
            .union(options.cap_add)
            .difference(options.cap_drop)
    };
    let clamped = kept.intersection(host.capabilities);
    if clamped != kept {
        let lost = kept.difference(clamped);
        report.note(format!(
            "capabilities {lost} are not the host's to give and are left out"
        ));
    }
    let origin = if options.cap_add.is_empty() && options.cap_drop.is_empty() {
        Origin::Profile
    } else {
        Origin::Option
    };
    report.explain("capabilities", clamped, origin, Some("--cap-add NAME"));
    Ok(clamped)
}

/// Defaults, then the image's, then the operator's; the last of a name wins
/// and keeps the first one's place.
pub(super) fn environment(
    image: &ProcessConfig,
    options: &RunOptions,
    hostname: &str,
    report: &mut Report,
) -> Result<Vec<EnvVar>, GenerateError> {
    let var = |name: &str, value: &str| EnvVar {
        name: name.into(),
        value: value.into(),
    };
    let mut env = vec![
        var("PATH", DEFAULT_PATH),
        var("container", "gantry"),
        var("HOSTNAME", hostname),
    ];
    if options.terminal {
        env.push(var("TERM", "xterm"));
    }
    let mut put = |new: EnvVar| put_variable(&mut env, new);
    for text in &image.env {
        match EnvVar::parse_pair(text) {
            // Both end up in files and messages that are read line by line.
            Some(new) if new.name == "HOME" && new.value.contains(|c: char| c.is_control()) => {
                report.note("the image's HOME holds control characters and is left out");
            }
            Some(new) => put(new),
            None => report.note(format!(
                "the image's variable {text:?} is not NAME=value and is left out"
            )),
        }
    }
    if options.unset_env_all {
        env.clear();
    }
    env.retain(|var| !options.unset_env.contains(&var.name));
    let mut put = |new: EnvVar| put_variable(&mut env, new);
    for new in &options.env {
        no_nul(&new.value, "a variable")?;
        put(new.clone());
    }
    Ok(env)
}

fn put_variable(env: &mut Vec<EnvVar>, new: EnvVar) {
    match env.iter_mut().find(|old| old.name == new.name) {
        Some(old) => old.value = new.value,
        None => env.push(new),
    }
}

fn command(image: &ProcessConfig, options: &RunOptions) -> Result<Vec<String>, GenerateError> {
    let mut command = match &options.entrypoint {
        Some(entrypoint) => entrypoint.clone(),
        None => image.entrypoint.clone(),
    };
    if !options.args.is_empty() {
        command.extend(options.args.iter().cloned());
    } else if options.entrypoint.is_none() {
        command.extend(image.cmd.iter().cloned());
    }
    for argument in &command {
        no_nul(argument, "an argument")?;
    }
    if command.first().is_none_or(String::is_empty) {
        return Err(GenerateError::NoCommand);
    }
    if options.init.is_some() {
        command.splice(0..0, [INIT_PATH.to_owned(), "--".to_owned()]);
    }
    Ok(command)
}

fn workdir(image: &ProcessConfig, options: &RunOptions) -> Result<String, GenerateError> {
    let text = match &options.workdir {
        Some(path) => path.as_str(),
        None if image.working_dir.is_empty() => "/",
        None => image.working_dir.as_str(),
    };
    let refused = || GenerateError::Workdir { path: text.into() };
    // An image may say `app` and means `/app`; an operator may not.
    let absolute = if text.starts_with('/') || options.workdir.is_some() {
        text.to_owned()
    } else {
        format!("/{text}")
    };
    let path = normalize_absolute(&absolute).ok_or_else(refused)?;
    if path == "/proc" || path.starts_with("/proc/") {
        return Err(refused());
    }
    Ok(path)
}

pub(super) fn process(
    image: &ImageConfig,
    options: &RunOptions,
    host: &HostFacts,
    defaults: &Defaults,
    env: Vec<EnvVar>,
    capabilities: CapabilitySet,
    report: &mut Report,
) -> Result<Process, GenerateError> {
    let args = command(&image.config, options)?;
    report.explain(
        "command",
        format!("{args:?}"),
        if options.args.is_empty() && options.entrypoint.is_none() {
            Origin::Image
        } else {
            Origin::Option
        },
        Some("--entrypoint"),
    );
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(capabilities.to_oci()))
        .set_effective(Some(capabilities.to_oci()))
        .set_permitted(Some(capabilities.to_oci()))
        .set_inheritable(Some(CapabilitySet::EMPTY.to_oci()))
        .set_ambient(Some(CapabilitySet::EMPTY.to_oci()));

    let mut no_new_privileges = defaults.no_new_privileges && !options.privileged;
    let mut apparmor = None;
    for option in &options.security {
        match option {
            SecurityOption::NoNewPrivileges(on) => no_new_privileges = *on,
            SecurityOption::Apparmor(profile) if host.apparmor => apparmor = Some(profile.clone()),
            SecurityOption::Apparmor(_) => {
                report.note("this host has no AppArmor; the profile is not used");
            }
            _ => {}
        }
    }
    report.explain(
        "new privileges by set-id files",
        if no_new_privileges {
            "never"
        } else {
            "possible"
        },
        Origin::Profile,
        no_new_privileges.then_some("--security-opt no-new-privileges=false"),
    );
    let mut process = Process::default();
    process
        .set_terminal(Some(options.terminal))
        .set_user(masked_user(options))
        .set_args(Some(args))
        .set_env(Some(env.iter().map(ToString::to_string).collect()))
        .set_cwd(workdir(&image.config, options)?.into())
        .set_capabilities(Some(sets))
        .set_rlimits(Some(rlimits(options, host, defaults, report)))
        .set_no_new_privileges(Some(no_new_privileges))
        .set_apparmor_profile(apparmor)
        .set_oom_score_adj(options.oom_score_adj)
        .set_selinux_label(None);
    Ok(process)
}

/// Who it is comes later; what masks the modes of its files is known.
fn masked_user(options: &RunOptions) -> User {
    let mut user = User::default();
    user.set_umask(options.umask);
    user
}

/// The profile's limits with the operator's over them, lowered to what the
/// host allows.
fn rlimits(
    options: &RunOptions,
    host: &HostFacts,
    defaults: &Defaults,
    report: &mut Report,
) -> Vec<PosixRlimit> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for limit in defaults.ulimits.iter().chain(&options.ulimits) {
        match limits.iter_mut().find(|old| old.name == limit.name) {
            Some(old) => old.clone_from(limit),
            None => limits.push(limit.clone()),
        }
    }
    limits.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rlimits = Vec::new();
    for limit in limits {
        let ceiling = host
            .rlimits_hard
            .get(&limit.name)
            .copied()
            .unwrap_or(u64::MAX);
        let (soft, hard) = (limit.soft.min(ceiling), limit.hard.min(ceiling));
        if (soft, hard) != (limit.soft, limit.hard) {
            report.note(format!(
                "limit {} is lowered to {soft}:{hard}, as this host does not let it be raised",
                limit.name
            ));
        }
        report.explain(
            &format!("limit {}", limit.name),
            format!("{soft}:{hard}"),
            Origin::Profile,
            Some("--ulimit NAME=SOFT:HARD"),
        );
        let kind: PosixRlimitType = format!("RLIMIT_{}", limit.name.to_ascii_uppercase())
            .parse()
            .expect("options take no name that documents do not know");
        rlimits.push(
            PosixRlimitBuilder::default()
                .typ(kind)
                .soft(soft)
                .hard(hard)
                .build()
                .expect("every member of the builder has a default"),
        );
    }
    rlimits
}
