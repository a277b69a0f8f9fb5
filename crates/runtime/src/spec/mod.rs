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

mod linux;
mod mounts;
mod process;
mod profile;
mod resources;
mod seccomp;

use std::collections::HashMap;
use std::path::PathBuf;

use gantry_oci::{ImageConfig, Kind, ProcessConfig};
use oci_spec::runtime::{Hook, Hooks, Root, Spec};
use serde::{Deserialize, Serialize};

use crate::capability::CapabilitySet;
use crate::host::{Cgroups, HostFacts};
use crate::identity::{IdOrName, Identity, ParseIdError, UserRequest};
use crate::options::{HookRequest, RunOptions, SignalNumber};
use linux::linux;
use process::{environment, pick_capabilities, pick_hostname, pick_user, process};

/// The version of the specification that documents say they follow: the oldest that has all they use.
/// Runtimes refuse versions that they do not know (Debian 12's crun every one but 1.0), and newer
/// ones take older documents.
pub const OCI_VERSION: &str = "1.0.2";

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
    /// Which processors and memory nodes.
    pub cpuset: bool,
    /// Block devices.
    pub block_io: bool,
    /// Files of version 2 by name.
    pub unified: bool,
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
            cpuset: cgroups.has("cpuset"),
            block_io: cgroups.has("io") || cgroups.has("blkio"),
            unified: matches!(cgroups, Cgroups::V2 { .. }),
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
    /// Options that contradict each other, or what the document can say.
    #[error("{option}: {why}")]
    Conflict {
        /// Which option.
        option: &'static str,
        /// What speaks against it.
        why: &'static str,
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
    check_names(options)?;
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
        .set_hostname(options.namespaces.uts.is_private().then_some(hostname))
        .set_domainname(options.domainname.clone())
        .set_hooks(hooks(&options.hooks)?)
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
            let umask = process.user().umask();
            process.set_user(identity.to_oci());
            process.user_mut().set_umask(umask);
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

/// A name can be given to a machine of the container's own only.
fn check_names(options: &RunOptions) -> Result<(), GenerateError> {
    let why = "the container shares its machine's name with others";
    let asked = [
        ("--hostname", &options.hostname),
        ("--domainname", &options.domainname),
    ];
    match asked.iter().find(|(_, name)| name.is_some()) {
        Some((option, _)) if !options.namespaces.uts.is_private() => {
            Err(GenerateError::Conflict { option, why })
        }
        _ => Ok(()),
    }
}

/// Programs that run on the way, by their stages.
fn hooks(requests: &[HookRequest]) -> Result<Option<Hooks>, GenerateError> {
    if requests.is_empty() {
        return Ok(None);
    }
    let of_stage = |stage: &str| {
        let listed = requests.iter().filter(|request| request.stage == stage);
        let made: Vec<Hook> = listed.map(hook).collect();
        (!made.is_empty()).then_some(made)
    };
    let stages = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    if requests
        .iter()
        .any(|request| !stages.contains(&request.stage.as_str()))
    {
        let why = "a hook is of no stage that the specification knows";
        return Err(GenerateError::Conflict {
            option: "--device",
            why,
        });
    }
    let mut hooks = Hooks::default();
    hooks
        .set_prestart(of_stage("prestart"))
        .set_create_runtime(of_stage("createRuntime"))
        .set_create_container(of_stage("createContainer"))
        .set_start_container(of_stage("startContainer"))
        .set_poststart(of_stage("poststart"))
        .set_poststop(of_stage("poststop"));
    Ok(Some(hooks))
}

fn hook(request: &HookRequest) -> Hook {
    let mut hook = Hook::default();
    hook.set_path(request.path.clone())
        .set_args((!request.args.is_empty()).then(|| request.args.clone()))
        .set_env((!request.env.is_empty()).then(|| request.env.clone()))
        .set_timeout(request.timeout_s);
    hook
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
