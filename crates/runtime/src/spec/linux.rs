// SPDX-License-Identifier: Apache-2.0
//! What is Linux's own: namespaces, users, hidden paths, the filter of system calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxIntelRdt, LinuxNamespace, LinuxNamespaceType,
    LinuxNetDevice, LinuxPersonality, LinuxPersonalityDomain, LinuxSeccomp,
};

use super::profile::Defaults;
use super::{GenerateError, Origin, Placement, Report, resources, seccomp};
use crate::capability::CapabilitySet;
use crate::driver::control_group;
use crate::host::HostFacts;
use crate::options::{IdRange, Network, Personality, RunOptions, SecurityOption, Sharing, Users};

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

fn namespace(kind: LinuxNamespaceType, path: Option<&Path>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path.map(Into::into));
    namespace
}

/// A namespace of another container whose path nobody looked up is the program's mistake.
const UNRESOLVED: &str = "the other container was not looked up";

/// Which namespaces the container has: its own, those of others, none where it is in the host's.
fn namespaces(
    options: &RunOptions,
    report: &mut Report,
) -> Result<Vec<LinuxNamespace>, GenerateError> {
    use LinuxNamespaceType as Kind;
    let asked = &options.namespaces;
    let mut list = vec![namespace(Kind::Mount, None)];
    for (kind, option, what, sharing) in [
        (Kind::Pid, "--pid", "processes", &asked.pid),
        (Kind::Ipc, "--ipc", "message queues", &asked.ipc.sharing),
        (Kind::Uts, "--uts", "the machine's name", &asked.uts),
        (Kind::Cgroup, "--cgroupns", "control groups", &asked.cgroup),
    ] {
        let why = UNRESOLVED;
        let (said, path) = match sharing {
            Sharing::Private => {
                list.push(namespace(kind, None));
                continue;
            }
            Sharing::Host => ("the host's".to_owned(), None),
            Sharing::Path(path) => (path.display().to_string(), Some(path.as_path())),
            Sharing::Container(_) => return Err(GenerateError::Conflict { option, why }),
        };
        list.extend(path.map(|path| namespace(kind, Some(path))));
        report.explain(what, said, Origin::Option, Some(option));
    }
    let said = match &options.network {
        Network::None => {
            list.push(namespace(Kind::Network, None));
            "loopback only".to_owned()
        }
        Network::Host => "the host's".to_owned(),
        Network::Path(path) => {
            list.push(namespace(Kind::Network, Some(path)));
            path.display().to_string()
        }
        Network::Container(_) => {
            return Err(GenerateError::Conflict {
                option: "--network",
                why: UNRESOLVED,
            });
        }
    };
    let relaxed = (options.network == Network::None).then_some("--network host");
    report.explain("network", said, Origin::Option, relaxed);
    match &asked.users {
        Users::Host => {}
        Users::Mapped { .. } => list.push(namespace(Kind::User, None)),
        Users::Path(path) => list.push(namespace(Kind::User, Some(path))),
        Users::Container(_) => {
            return Err(GenerateError::Conflict {
                option: "--userns",
                why: UNRESOLVED,
            });
        }
    }
    Ok(list)
}

/// What is hidden and what is read-only: the profile's, less and more as options say.
fn hidden_paths(
    options: &RunOptions,
    host: &HostFacts,
    defaults: &Defaults,
    report: &mut Report,
) -> (Vec<String>, Vec<String>) {
    let (mut masked, mut readonly): (Vec<String>, Vec<String>) = if options.privileged {
        (Vec::new(), Vec::new())
    } else {
        let thermal = (0..host.thermal_cpus)
            .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
        let masked = defaults.masked_paths.iter().map(ToString::to_string);
        let readonly = defaults.readonly_paths.iter().map(ToString::to_string);
        (masked.chain(thermal).collect(), readonly.collect())
    };
    let mut origin = Origin::Profile;
    for option in &options.security {
        match option {
            SecurityOption::Unmask(paths) => {
                let named = |path: &String| paths.iter().any(|one| one == path || one == "ALL");
                masked.retain(|path| !named(path));
                readonly.retain(|path| !named(path));
            }
            SecurityOption::Mask(paths) => {
                let new = paths.iter().filter(|path| !masked.contains(path));
                let new: Vec<String> = new.cloned().collect();
                masked.extend(new);
            }
            _ => continue,
        }
        origin = Origin::Option;
    }
    report.explain(
        "hidden paths",
        masked.len(),
        origin,
        (!masked.is_empty()).then_some("--privileged, or --security-opt unmask=PATH"),
    );
    (masked, readonly)
}

fn control_group_path(options: &RunOptions, placement: &Placement) -> PathBuf {
    let parent = options.resources.cgroup_parent.as_deref().unwrap_or("");
    PathBuf::from(format!("{parent}/{}", control_group(&placement.id)))
}

fn mappings(ranges: &[IdRange]) -> Vec<LinuxIdMapping> {
    let line = |range: &IdRange| {
        LinuxIdMappingBuilder::default()
            .container_id(range.container)
            .host_id(range.host)
            .size(range.size)
            .build()
            .expect("every member of the builder has a default")
    };
    ranges.iter().map(line).collect()
}

fn net_devices(options: &RunOptions) -> Result<HashMap<String, LinuxNetDevice>, GenerateError> {
    if options.network == Network::Host {
        return Err(GenerateError::Conflict {
            option: "--device",
            why: "a network device cannot move into the network in which it is, the host's",
        });
    }
    let device = |(host, name): &(String, Option<String>)| {
        let mut device = LinuxNetDevice::default();
        device.set_name(name.clone());
        (host.clone(), device)
    };
    Ok(options.net_devices.iter().map(device).collect())
}

pub(super) fn linux(
    options: &RunOptions,
    host: &HostFacts,
    placement: &Placement,
    defaults: &Defaults,
    capabilities: CapabilitySet,
    report: &mut Report,
) -> Result<oci_spec::runtime::Linux, GenerateError> {
    let (masked, readonly) = hidden_paths(options, host, defaults, report);
    let mut linux = oci_spec::runtime::Linux::default();
    linux
        .set_namespaces(Some(namespaces(options, report)?))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly))
        .set_sysctl(resources::sysctls(options, defaults, report)?)
        .set_resources(resources::resources(options, placement, defaults, report)?)
        .set_cgroups_path(
            placement
                .limits
                .managed
                .then(|| control_group_path(options, placement)),
        )
        .set_devices(resources::devices(options))
        .set_seccomp(pick_seccomp(options, host, capabilities, report)?);
    if let Users::Mapped { uids, gids } = &options.namespaces.users {
        linux
            .set_uid_mappings(Some(mappings(uids)))
            .set_gid_mappings(Some(mappings(gids)));
    }
    if let Some(domain) = options.personality {
        let mut personality = LinuxPersonality::default();
        personality.set_domain(match domain {
            Personality::Linux => LinuxPersonalityDomain::PerLinux,
            Personality::Linux32 => LinuxPersonalityDomain::PerLinux32,
        });
        linux.set_personality(Some(personality));
    }
    if let Some(class) = &options.resources.rdt_class {
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_clos_id(Some(class.clone()));
        linux.set_intel_rdt(Some(rdt));
        report.explain("cache and memory bandwidth", class, Origin::Option, None);
    }
    if !options.net_devices.is_empty() {
        linux.set_net_devices(Some(net_devices(options)?));
    }
    Ok(linux)
}
