// SPDX-License-Identifier: Apache-2.0
//! Docker's and podman's spelling of what a container shall be, into checked values.

mod cdi;
mod host;
mod namespaces;
mod resources;
pub mod spellings;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use gantry_oci::Kind;
use gantry_runtime::capability::CapabilitySet;
use gantry_runtime::identity::{IdOrName, UserRequest};
use gantry_runtime::options::{
    ByteSize, CapabilityWords, Cpus, HostEntry, Hosts, ImageVolumes, KeyValue, MountRequest,
    Personality, Profile, Resolver, RunOptions, SecurityOption, SignalNumber, Sysctl, Ulimit,
    parse_hostname, parse_resolver_word, parse_umask,
};

use crate::context::Context;
use crate::exit::Failure;
use cdi::{DeviceWord, Gpus};
pub(super) use host::environment;
use namespaces::NamespaceArgs;
use resources::ResourceArgs;
use spellings::OtherOptions;

/// What the container shall be.
#[derive(Debug, Clone, clap::Args)]
pub struct ContainerArgs {
    /// The defaults to start from: production (read-only root, few privileges) or compat (as podman's)
    #[arg(long, value_name = "NAME", default_value = "production")]
    profile: Profile,
    /// Keep standard input open
    #[arg(long, short)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(long, short)]
    tty: bool,
    /// Set a variable; NAME alone takes this shell's value
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables that a file lists
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Leave out a variable of the image or the defaults
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Leave out all of them
    #[arg(long)]
    unsetenv_all: bool,
    /// Set all variables of this shell
    #[arg(long)]
    env_host: bool,
    /// Set this shell's variables of proxies
    #[arg(long, value_name = "BOOL", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    http_proxy: bool,
    /// Mount a directory or file of this host
    #[arg(long, short, value_name = "HOST:CONTAINER[:OPTIONS]", value_parser = MountRequest::parse_volume)]
    volume: Vec<MountRequest>,
    /// Mount: type=bind,src=…,dst=…,ro or type=tmpfs,dst=…
    #[arg(long, value_name = "SPEC", value_parser = MountRequest::parse_mount)]
    mount: Vec<MountRequest>,
    /// Mount a file system in memory
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = MountRequest::parse_tmpfs)]
    tmpfs: Vec<MountRequest>,
    /// What becomes of the image's volumes: bind (a layer of the container's own), tmpfs or ignore
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "bind",
        hide_default_value = true
    )]
    image_volume: ImageVolumes,
    /// Mount memory on /run, /tmp and /var/tmp under a read-only root
    #[arg(long, value_name = "BOOL", default_value_t = true, hide_default_value = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only_tmpfs: bool,
    /// Start the program in this directory
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Run the program as this user of the image, or by number
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<UserRequest>,
    /// Add a supplementary group
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<IdOrName>,
    /// Mask the modes of files that the program makes
    #[arg(long, value_name = "OCTAL", value_parser = parse_umask)]
    umask: Option<u32>,
    /// What the kernel says that it is: linux or linux32
    #[arg(long, value_name = "WHAT")]
    personality: Option<Personality>,
    /// Start the program under a first process that reaps and passes signals on
    #[arg(long)]
    init: bool,
    /// The program for --init [default: catatonit or tini-static of this host]
    #[arg(long, value_name = "FILE")]
    init_path: Option<PathBuf>,
    /// Run this program instead of the image's; a JSON list gives it arguments
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Make the root read-only (the production profile's default)
    #[arg(long, conflicts_with = "writable")]
    read_only: bool,
    /// Put a writable layer of the container's own over the image
    #[arg(long)]
    writable: bool,
    /// Name the machine, as the container sees it
    #[arg(long, short = 'h', value_name = "NAME", value_parser = parse_hostname)]
    hostname: Option<String>,
    /// Add a line to /etc/hosts (`run`)
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<HostEntry>,
    /// Leave the image's /etc/hosts as it is
    #[arg(long, conflicts_with = "add_host")]
    no_hosts: bool,
    /// Ask this server for names (`run`)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Look names up in this domain, too (`run`)
    #[arg(long, value_name = "DOMAIN", value_parser = parse_resolver_word)]
    dns_search: Vec<String>,
    /// An option of the resolver (`run`)
    #[arg(long, visible_alias = "dns-opt", value_name = "WORD", value_parser = parse_resolver_word)]
    dns_option: Vec<String>,
    /// With whom it shares what.
    #[command(flatten)]
    namespaces: NamespaceArgs,
    /// Limit memory
    #[arg(long, short, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Limit processor time, in processors
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Further limits.
    #[command(flatten)]
    resources: ResourceArgs,
    /// How gladly the kernel ends the program when memory runs out, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,
    /// Limit the number of processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<ByteSize>,
    /// Add capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<CapabilityWords>,
    /// Take capabilities away
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<CapabilityWords>,
    /// Set a resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// no-new-privileges=BOOL, seccomp=FILE|unconfined, apparmor=PROFILE, label=disable, mask=PATHS, unmask=PATHS|ALL,
    /// systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<SecurityOption>,
    /// Confine nothing: every capability, every device, no filter
    #[arg(long, value_name = "BOOL", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    privileged: bool,
    /// Give the container a device of this host, or what a CDI file describes as VENDOR/CLASS=DEVICE
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]|CDI")]
    device: Vec<DeviceWord>,
    /// Give the container GPUs that a CDI file describes as nvidia.com/gpu: all, or device=NAME,…
    #[arg(long, value_name = "WHICH")]
    gpus: Vec<Gpus>,
    /// Set a kernel setting of the container's own namespaces
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<Sysctl>,
    /// Which signal asks the program to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<SignalNumber>,
    /// How long `stop` waits before it kills
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// Add an annotation to the runtime document
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<KeyValue>,
    /// Add a label
    #[arg(long, short, value_name = "KEY=VALUE")]
    label: Vec<KeyValue>,
    /// Add the labels that a file lists
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Options of docker and podman that are refused, or taken with some values only.
    #[command(flatten)]
    others: OtherOptions,
}

impl ContainerArgs {
    /// Refuses options of docker and podman that mean what is not here.
    ///
    /// # Errors
    /// The first of them, with its reason.
    pub fn check(&self) -> Result<(), Failure> {
        self.others.check()
    }

    /// Reads what the options name on this host, and answers them as checked values.
    ///
    /// # Errors
    /// A file or device that is not there, or a file that is malformed.
    pub fn resolve(self, context: &Context, args: Vec<String>) -> Result<RunOptions, Failure> {
        let capabilities = |words: &[CapabilityWords]| {
            words
                .iter()
                .fold(CapabilitySet::EMPTY, |all, words| all.union(words.0))
        };
        let mut mounts = self.volume;
        mounts.extend(self.mount);
        mounts.extend(self.tmpfs);
        for mount in &mut mounts {
            if let MountRequest::Bind { source, .. } = mount {
                *source = std::path::absolute(&*source)?;
                fs::metadata(&*source).map_err(|error| {
                    Failure::from(error).context(format!("mount {}", source.display()))
                })?;
            }
        }
        let (network, namespaces) = self.namespaces.resolve(context)?;
        let mut env = host::shell_variables_if(self.env_host, self.http_proxy);
        env.extend(environment(&self.env_file, &self.env)?);
        let (mut devices, mut described) = (Vec::new(), Vec::new());
        for word in self.device {
            match word {
                DeviceWord::Node(request) => devices.push(host::find_device(&request)?),
                DeviceWord::Cdi(name) => described.push(name),
            }
        }
        if self.privileged {
            host::add_every_device(&mut devices)?;
        }
        described.extend(self.gpus.into_iter().flat_map(|gpus| gpus.0));
        let mut labels = host::labels(&self.label_file)?;
        labels.extend(self.label);
        let mut options = RunOptions {
            profile: self.profile,
            args,
            entrypoint: self.entrypoint.as_deref().map(entrypoint).transpose()?,
            env,
            unset_env: self.unsetenv,
            unset_env_all: self.unsetenv_all,
            workdir: self.workdir,
            user: self.user,
            group_add: self.group_add,
            terminal: self.tty,
            interactive: self.interactive,
            writable: match (self.writable, self.read_only) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            without_scratch: !self.read_only_tmpfs,
            image_volumes: self.image_volume,
            mounts,
            hostname: self.hostname,
            domainname: None,
            hosts: Hosts {
                entries: self.add_host,
                leave: self.no_hosts,
                resolver: Resolver {
                    servers: self.dns,
                    search: self.dns_search,
                    options: self.dns_option,
                },
            },
            network,
            net_devices: Vec::new(),
            namespaces,
            memory_max: self.memory,
            cpus: self.cpus,
            pids_limit: self.pids_limit,
            resources: self.resources.resolve()?,
            oom_score_adj: self.oom_score_adj,
            cap_add: capabilities(&self.cap_add),
            cap_drop: capabilities(&self.cap_drop),
            ulimits: self.ulimit,
            shm_size: self.shm_size,
            seccomp_document: host::seccomp_document(&self.security_opt)?,
            security: self.security_opt,
            privileged: self.privileged,
            devices,
            sysctls: self.sysctl,
            umask: self.umask,
            personality: self.personality,
            init: match (self.init, &self.init_path) {
                (false, None) => None,
                (_, path) => Some(host::find_init(path.as_deref())?),
            },
            hooks: Vec::new(),
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout.map(Duration::from_secs),
            annotations: self.annotation,
            labels,
        };
        cdi::give(&described, &mut options)?;
        Ok(options)
    }
}

/// A word, or a JSON list of words; nothing clears the image's entry point.
fn entrypoint(text: &str) -> Result<Vec<String>, Failure> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if !text.starts_with('[') {
        return Ok(vec![text.to_owned()]);
    }
    serde_json::from_str(text).map_err(|error| {
        Failure::new(Kind::InvalidInput, error).context(format!("--entrypoint {text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entrypoint_is_a_word_or_a_list() {
        assert_eq!(entrypoint("").unwrap(), [""; 0]);
        assert_eq!(entrypoint("/bin/sh").unwrap(), ["/bin/sh"]);
        assert_eq!(entrypoint(r#"["sh","-c"]"#).unwrap(), ["sh", "-c"]);
        assert_eq!(entrypoint("[sh").unwrap_err().kind(), Kind::InvalidInput);
    }
}
