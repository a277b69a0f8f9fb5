// SPDX-License-Identifier: Apache-2.0
//! From an image's configuration and an operator's options to an OCI runtime
//! document.
//!
//! ```text
//!  ImageConfig ─┐
//!  RunOptions ──┼─ generate ──► Draft ── finish(RootfsFacts) ──► Spec ── to_bytes ──► config.json
//!  HostFacts ───┤    pure                     pure
//!  Placement ───┘
//! ```
//!
//! The document cannot be made in one step, because who the process is (`USER`
//! by name, home, groups) stands in files of the rootfs, and the rootfs is
//! mounted only inside the monitor's private mount namespace. So [`generate`]
//! decides everything else and leaves a [`Draft`]; the monitor reads the two
//! files under the mounted root, resolves the identity, and lets
//! [`Draft::finish`] fill it in. Both steps are pure, and [`to_bytes`] orders
//! what the document's own types leave unordered: same input, same bytes.
//!
//! What comes from the image is untrusted. It names a program, variables, a
//! directory, a user, volumes and a signal; each goes through the checks of its
//! kind here, and nothing else of it (labels above all) reaches the document.
//!
//! # Source
//! runtime-spec 1.2; image-spec v1.1 "Conversion to OCI Runtime Configuration".

mod mounts;
mod profile;
mod resources;
mod seccomp;

use std::collections::HashMap;
use std::path::PathBuf;

use gantry_oci::{ImageConfig, Kind, ProcessConfig};
use oci_spec::runtime::{
    LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, LinuxSeccomp, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec, User,
};
use serde::{Deserialize, Serialize};

use crate::capability::CapabilitySet;
use crate::driver::control_group;
use crate::host::{Cgroups, HostFacts};
use crate::identity::{IdOrName, Identity, ParseIdError, UserRequest};
use crate::options::{
    EnvVar, Network, RunOptions, SecurityOption, SignalNumber, Ulimit, normalize_absolute,
};
use profile::Defaults;

/// The version of the specification that documents say they follow: the oldest that has all they use.
/// Runtimes refuse versions that they do not know (Debian 12's crun every one but 1.0), and newer
/// ones take older documents.
pub const OCI_VERSION: &str = "1.0.2";

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a container's own files lie, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// 64 hexadecimal digits.
    pub id: String,
    /// State in memory: the bundle, managed files.
    pub state_dir: PathBuf,
    /// State on disk: the writable layer, volumes.
    pub data_dir: PathBuf,
    /// Where the rootfs is mounted, in the monitor's own mount namespace: one place for all containers,
    /// so that nothing has to be unmounted before a container's directory can be removed.
    pub rootfs: PathBuf,
    /// Which limits the chosen runtime can set on this host.
    pub limits: LimitSupport,
}

impl Placement {
    /// The first twelve digits of the id.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// Which limits can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "one independent fact per controller"
)]
pub struct LimitSupport {
    /// Control groups are managed by the runtime at all.
    pub managed: bool,
    /// Memory.
    pub memory: bool,
    /// Memory and swap.
    pub swap: bool,
    /// Processor time.
    pub cpu: bool,
    /// Number of processes.
    pub pids: bool,
    /// Which devices may be opened.
    pub devices: bool,
}

impl LimitSupport {
    /// What a runtime that knows both versions of control groups can set.
    #[must_use]
    pub fn of_host(host: &HostFacts) -> Self {
        let cgroups = &host.cgroups;
        Self {
            managed: *cgroups != Cgroups::None,
            memory: cgroups.has("memory"),
            swap: cgroups.has("memory") && cgroups.has_swap(),
            cpu: cgroups.has("cpu"),
            pids: cgroups.has("pids"),
            // Version 2 has no controller for devices; programs of the kernel stand in.
            devices: cgroups.has("devices") || matches!(cgroups, Cgroups::V2 { .. }),
        }
    }
}

/// Where one part of a document came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The same in every container.
    Fixed,
    /// The profile.
    Profile,
    /// The image's configuration.
    Image,
    /// An option of the operator.
    Option,
    /// What the host can do.
    Host,
}

/// One part of a document explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The control, in the words of the documentation.
    pub control: String,
    /// What it is set to.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
    /// The option that relaxes or changes it.
    pub relaxed_by: Option<String>,
}

/// A directory that the image declares writable under a read-only root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVolume {
    /// Where in the container.
    pub target: String,
    /// Where its own layer lies on the host.
    pub dir: PathBuf,
}

/// A small file that is made for the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedFile {
    /// Its name in the state directory.
    pub name: String,
    /// What it says.
    pub content: String,
}

/// A document that lacks only what the rootfs itself must tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    spec: Spec,
    user: UserRequest,
    extra_groups: Vec<IdOrName>,
    asked_capabilities: CapabilitySet,
    wants_home: bool,
    /// Directories that the image declares writable.
    pub volumes: Vec<ImageVolume>,
    /// Files that the document's mounts take from the state directory.
    pub files: Vec<ManagedFile>,
    /// Whether the root may be written.
    pub writable: bool,
    /// The signal that asks the process to end.
    pub stop_signal: SignalNumber,
    /// What had to be left out or lowered, a sentence each.
    pub notes: Vec<String>,
}

/// What only the rootfs can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsFacts {
    /// Who the process is.
    pub identity: Identity,
    /// Targets of memory file systems that hold files in the rootfs, which
    /// are then copied up.
    pub occupied: Vec<String>,
}

/// Why no document can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Neither the image nor the operator names a program.
    #[error("no command: the image has neither entry point nor command, and none was given")]
    NoCommand,
    /// A string that goes to the kernel holds a NUL.
    #[error("{what} holds a NUL character")]
    Nul {
        /// Which string.
        what: &'static str,
    },
    /// The user is written in no form that we accept.
    #[error("user of the image")]
    User(#[source] ParseIdError),
    /// The working directory cannot be one.
    #[error("working directory {path:?} is not an absolute path outside /proc")]
    Workdir {
        /// As written.
        path: String,
    },
    /// A volume of the image or a mount lies where the kernel's own file systems are.
    #[error("{origin} wants a mount at {target}, which belongs to the runtime")]
    MountTarget {
        /// Whose wish it is.
        origin: &'static str,
        /// Where.
        target: String,
    },
    /// Two mounts at one place.
    #[error("two mounts at {target}")]
    DuplicateMount {
        /// Where.
        target: String,
    },
    /// A setting that is not the container's own to change.
    #[error("setting {key} belongs to the host: {why}")]
    Sysctl {
        /// Which.
        key: String,
        /// Why.
        why: &'static str,
    },
    /// A limit that this host or runtime cannot set.
    #[error("{option} cannot be enforced on this host with this runtime: {why}")]
    Limit {
        /// Which option.
        option: &'static str,
        /// What is missing.
        why: String,
    },
    /// Capabilities that the host itself lacks.
    #[error("capabilities {missing} are not the host's to give")]
    Capabilities {
        /// Their names.
        missing: CapabilitySet,
    },
    /// The operator's system call filter is none.
    #[error("the seccomp profile is not a valid document")]
    Seccomp(#[source] serde_json::Error),
    /// The document does not serialise; a bug.
    #[error("serialise the runtime document")]
    Serialize(#[source] serde_json::Error),
}

impl GenerateError {
    /// What an edge branches on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::MountTarget { .. } => Kind::Unsafe,
            Self::Limit { .. } | Self::Capabilities { .. } => Kind::Unsupported,
            Self::Serialize(_) => Kind::Internal,
            _ => Kind::InvalidInput,
        }
    }

    /// What the operator may try.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCommand => Some("name a program after the image, or give --entrypoint"),
            Self::Limit { .. } => Some("--runtime runc can set limits on version 1 control groups"),
            Self::User(_) => Some("--user names another user"),
            Self::Workdir { .. } => Some("--workdir names another directory"),
            _ => None,
        }
    }
}

/// Collects what the generator learns besides the document.
#[derive(Debug, Default)]
struct Report {
    explanations: Vec<Explanation>,
    notes: Vec<String>,
}

impl Report {
    fn explain(
        &mut self,
        control: &str,
        value: impl ToString,
        origin: Origin,
        relaxed_by: Option<&str>,
    ) {
        self.explanations.push(Explanation {
            control: control.into(),
            value: value.to_string(),
            origin,
            relaxed_by: relaxed_by.map(Into::into),
        });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// A draft with the explanation of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The document without its identity.
    pub draft: Draft,
    /// Where each part came from and what relaxes it.
    pub explanations: Vec<Explanation>,
}

/// Makes a document, all but what the rootfs must tell.
///
/// # Errors
/// Words that make no sense, wishes that the host cannot grant, and image
/// configurations that look like an attack.
///
/// # Source
/// Entry point and command combine as docker's and podman's do: arguments
/// replace the command; `--entrypoint` replaces the entry point and drops the
/// image's command.
pub fn generate(
    image: &ImageConfig,
    options: &RunOptions,
    host: &HostFacts,
    placement: &Placement,
) -> Result<Generated, GenerateError> {
    let defaults = profile::defaults(options.profile);
    let mut report = Report::default();
    report.explain(
        "profile",
        options.profile,
        Origin::Option,
        Some("--profile compat"),
    );
    let writable = options
        .writable
        .unwrap_or(defaults.writable || options.privileged);
    report.explain(
        "root file system",
        if writable { "writable" } else { "read-only" },
        if options.writable.is_some() {
            Origin::Option
        } else {
            Origin::Profile
        },
        (!writable).then_some("--writable, or --tmpfs DIR, or --volume HOST:DIR"),
    );
    let user = pick_user(&image.config, options, &mut report)?;
    let capabilities = pick_capabilities(options, host, &defaults, &mut report)?;
    let hostname = pick_hostname(options, host, placement);
    let env = environment(&image.config, options, &hostname, &mut report)?;
    let wants_home = !env.iter().any(|var| var.name == "HOME");
    let process = process(
        image,
        options,
        host,
        &defaults,
        env,
        capabilities,
        &mut report,
    )?;
    let layout = mounts::layout(
        &image.config,
        options,
        host,
        placement,
        &hostname,
        writable,
        &mut report,
    )?;
    let linux = linux(
        options,
        host,
        placement,
        &defaults,
        capabilities,
        &mut report,
    )?;

    let mut root = Root::default();
    root.set_path(placement.rootfs.clone())
        .set_readonly(Some(!writable));
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.into())
        .set_root(Some(root))
        .set_process(Some(process))
        .set_hostname(Some(hostname))
        .set_mounts(Some(layout.mounts))
        .set_annotations((!options.annotations.is_empty()).then(|| {
            let pairs = options.annotations.iter();
            pairs
                .map(|pair| (pair.key.clone(), pair.value.clone()))
                .collect()
        }))
        .set_linux(Some(linux));
    let stop_signal = match options.stop_signal {
        Some(signal) => signal,
        None => match image.config.stop_signal.as_str() {
            "" => SignalNumber::TERM,
            text => text.parse().unwrap_or_else(|_| {
                report.note("the image's stop signal is no signal; SIGTERM is used");
                SignalNumber::TERM
            }),
        },
    };
    Ok(Generated {
        draft: Draft {
            spec,
            user,
            extra_groups: options.group_add.clone(),
            asked_capabilities: options.cap_add.intersection(capabilities),
            wants_home,
            volumes: layout.volumes,
            files: layout.files,
            writable,
            stop_signal,
            notes: report.notes,
        },
        explanations: report.explanations,
    })
}

impl Draft {
    /// The user as written, to be resolved against the rootfs.
    #[must_use]
    pub fn user(&self) -> &UserRequest {
        &self.user
    }

    /// Supplementary groups as written.
    #[must_use]
    pub fn extra_groups(&self) -> &[IdOrName] {
        &self.extra_groups
    }

    /// The document so far.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Fills in what the rootfs told.
    ///
    /// A user other than root gets the capabilities that were *asked for*, and
    /// none of the profile's; only then are the inheritable and ambient sets
    /// not empty, since otherwise executing the program would drop them.
    #[must_use]
    pub fn finish(mut self, facts: &RootfsFacts) -> Spec {
        let identity = &facts.identity;
        if let Some(process) = self.spec.process_mut() {
            process.set_user(identity.to_oci());
            if self.wants_home
                && let Some(env) = process.env_mut()
            {
                env.push(format!("HOME={}", identity.home));
            }
            if identity.uid != 0 {
                let asked = self.asked_capabilities.to_oci();
                let mut sets = process.capabilities().clone().unwrap_or_default();
                sets.set_effective(Some(asked.clone()))
                    .set_permitted(Some(asked.clone()))
                    .set_inheritable(Some(asked.clone()))
                    .set_ambient(Some(asked));
                process.set_capabilities(Some(sets));
            }
        }
        for mount in self.spec.mounts_mut().iter_mut().flatten() {
            let target = mount.destination().to_string_lossy().into_owned();
            if !facts.occupied.contains(&target)
                && let Some(options) = mount.options_mut()
            {
                options.retain(|option| option != "tmpcopyup");
            }
        }
        self.spec
    }
}

fn no_nul(text: &str, what: &'static str) -> Result<(), GenerateError> {
    if text.contains('\0') {
        Err(GenerateError::Nul { what })
    } else {
        Ok(())
    }
}

fn pick_user(
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

fn pick_hostname(options: &RunOptions, host: &HostFacts, placement: &Placement) -> String {
    match (&options.hostname, options.network) {
        (Some(name), _) => name.clone(),
        (None, Network::Host) if !host.hostname.is_empty() => host.hostname.clone(),
        (None, _) => placement.short_id().to_owned(),
    }
}

fn pick_capabilities(
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
fn environment(
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
    let mut put = |new: EnvVar| match env.iter_mut().find(|old| old.name == new.name) {
        Some(old) => old.value = new.value,
        None => env.push(new),
    };
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
    for new in &options.env {
        no_nul(&new.value, "a variable")?;
        put(new.clone());
    }
    Ok(env)
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

fn process(
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
        .set_user(User::default())
        .set_args(Some(args))
        .set_env(Some(env.iter().map(ToString::to_string).collect()))
        .set_cwd(workdir(&image.config, options)?.into())
        .set_capabilities(Some(sets))
        .set_rlimits(Some(rlimits(options, host, defaults, report)))
        .set_no_new_privileges(Some(no_new_privileges))
        .set_apparmor_profile(apparmor)
        .set_oom_score_adj(None)
        .set_selinux_label(None);
    Ok(process)
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

fn pick_seccomp(
    options: &RunOptions,
    host: &HostFacts,
    capabilities: CapabilitySet,
    report: &mut Report,
) -> Result<Option<LinuxSeccomp>, GenerateError> {
    let last = options.security.iter().rev().find(|option| {
        matches!(
            option,
            SecurityOption::SeccompUnconfined | SecurityOption::SeccompFile(_)
        )
    });
    match last {
        Some(SecurityOption::SeccompUnconfined) => {
            report.explain("system calls", "not filtered", Origin::Option, None);
            return Ok(None);
        }
        Some(SecurityOption::SeccompFile(path)) => {
            let text = options.seccomp_document.as_deref().unwrap_or_default();
            let seccomp = serde_json::from_str(text).map_err(GenerateError::Seccomp)?;
            report.explain("system calls", path.display(), Origin::Option, None);
            return Ok(Some(seccomp));
        }
        _ if options.privileged => return Ok(None),
        _ => {}
    }
    report.explain(
        "system calls",
        format!("allow-list of the {} profile", options.profile),
        Origin::Profile,
        Some("--cap-add, --profile compat, or --security-opt seccomp=FILE"),
    );
    Ok(Some(seccomp::filter(options.profile, capabilities, host)))
}

fn linux(
    options: &RunOptions,
    host: &HostFacts,
    placement: &Placement,
    defaults: &Defaults,
    capabilities: CapabilitySet,
    report: &mut Report,
) -> Result<oci_spec::runtime::Linux, GenerateError> {
    let mut kinds = vec![
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    match options.network {
        Network::None => kinds.push(LinuxNamespaceType::Network),
        Network::Host => {}
    }
    report.explain(
        "network",
        match options.network {
            Network::None => "loopback only",
            Network::Host => "the host's",
        },
        Origin::Option,
        (options.network == Network::None).then_some("--network host"),
    );
    let namespaces = kinds
        .into_iter()
        .map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind).set_path(None);
            namespace
        })
        .collect();
    let (masked, readonly) = if options.privileged {
        (Vec::new(), Vec::new())
    } else {
        let thermal = (0..host.thermal_cpus)
            .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
        let masked = defaults.masked_paths.iter().map(ToString::to_string);
        (
            masked.chain(thermal).collect(),
            defaults
                .readonly_paths
                .iter()
                .map(ToString::to_string)
                .collect(),
        )
    };
    report.explain(
        "hidden paths",
        masked.len(),
        Origin::Profile,
        (!options.privileged).then_some("--privileged"),
    );
    let mut linux = oci_spec::runtime::Linux::default();
    linux
        .set_namespaces(Some(namespaces))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly))
        .set_sysctl(resources::sysctls(options, defaults, report)?)
        .set_resources(resources::resources(options, placement, defaults, report)?)
        .set_cgroups_path(
            placement
                .limits
                .managed
                .then(|| PathBuf::from(format!("/{}", control_group(&placement.id)))),
        )
        .set_devices(resources::devices(options))
        .set_seccomp(pick_seccomp(options, host, capabilities, report)?);
    Ok(linux)
}

/// Serialises a document with every unordered part in order.
///
/// # Errors
/// Only if the document cannot be expressed in JSON, which is a bug.
pub fn to_bytes(spec: &Spec) -> Result<Vec<u8>, GenerateError> {
    let mut value = serde_json::to_value(spec).map_err(GenerateError::Serialize)?;
    if let Some(sets) = value
        .pointer_mut("/process/capabilities")
        .and_then(serde_json::Value::as_object_mut)
    {
        for set in sets
            .values_mut()
            .filter_map(serde_json::Value::as_array_mut)
        {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    serde_json::to_vec_pretty(&value).map_err(GenerateError::Serialize)
}

/// The image's labels that may stand beside a container, without those that
/// mean something to a program that reads containers.
#[must_use]
pub fn container_labels(image: &ProcessConfig, options: &RunOptions) -> HashMap<String, String> {
    const RESERVED: [&str; 10] = [
        "io.gantry.",
        "io.containerd.",
        "containerd.io/",
        "io.cri-containerd",
        "io.kubernetes.",
        "io.container.manager",
        "io.podman.",
        "run.oci.",
        "org.systemd.",
        "cdi.k8s.io/",
    ];
    let image = image
        .labels
        .iter()
        .filter(|(key, _)| !RESERVED.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()));
    let own = options
        .labels
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()));
    image.chain(own).collect()
}

#[cfg(test)]
pub(crate) mod tests;
