// SPDX-License-Identifier: Apache-2.0
//! Docker's and podman's spelling of what a container shall be, into checked values.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_oci::Kind;
use gantry_runtime::capability::CapabilitySet;
use gantry_runtime::identity::{IdOrName, UserRequest};
use gantry_runtime::options::{
    ByteSize, CapabilityWords, Cpus, Device, DeviceKind, DeviceRequest, EnvVar, KeyValue,
    MountRequest, Network, Profile, RunOptions, SecurityOption, SignalNumber, Sysctl, Ulimit,
    parse_env_file, parse_hostname,
};

use crate::exit::Failure;
use crate::input::read_capped;

/// Files that options name are read up to this size.
const OPTION_FILE_MAX_BYTES: u64 = 4 << 20;

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
    /// Mount a directory or file of this host
    #[arg(long, short, value_name = "HOST:CONTAINER[:OPTIONS]", value_parser = MountRequest::parse_volume)]
    volume: Vec<MountRequest>,
    /// Mount: type=bind,src=…,dst=…,ro or type=tmpfs,dst=…
    #[arg(long, value_name = "SPEC", value_parser = MountRequest::parse_mount)]
    mount: Vec<MountRequest>,
    /// Mount a file system in memory
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = MountRequest::parse_tmpfs)]
    tmpfs: Vec<MountRequest>,
    /// Start the program in this directory
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Run the program as this user of the image, or by number
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<UserRequest>,
    /// Add a supplementary group
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<IdOrName>,
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
    /// Which network the container sees: none or host
    #[arg(
        long,
        visible_alias = "net",
        value_name = "NETWORK",
        default_value = "none"
    )]
    network: Network,
    /// Limit memory
    #[arg(long, short, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Limit processor time, in processors
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
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
    /// no-new-privileges=BOOL, seccomp=FILE|unconfined, apparmor=PROFILE, label=disable
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<SecurityOption>,
    /// Confine nothing: every capability, every device, no filter
    #[arg(long, value_name = "BOOL", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    privileged: bool,
    /// Give the container a device of this host
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]")]
    device: Vec<DeviceRequest>,
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
}

impl ContainerArgs {
    /// Reads what the options name on this host, and answers them as checked values.
    ///
    /// # Errors
    /// A file or device that is not there, or a file that is malformed.
    pub fn resolve(self, args: Vec<String>) -> Result<RunOptions, Failure> {
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
        Ok(RunOptions {
            profile: self.profile,
            args,
            entrypoint: self.entrypoint.as_deref().map(entrypoint).transpose()?,
            env: environment(&self.env_file, &self.env)?,
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
            mounts,
            hostname: self.hostname,
            network: self.network,
            memory_max: self.memory,
            cpus: self.cpus,
            pids_limit: self.pids_limit,
            cap_add: capabilities(&self.cap_add),
            cap_drop: capabilities(&self.cap_drop),
            ulimits: self.ulimit,
            shm_size: self.shm_size,
            seccomp_document: seccomp_document(&self.security_opt)?,
            security: self.security_opt,
            privileged: self.privileged,
            devices: self
                .device
                .iter()
                .map(find_device)
                .collect::<Result<_, _>>()?,
            sysctls: self.sysctl,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout.map(Duration::from_secs),
            annotations: self.annotation,
            labels: self.label,
        })
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_capped(path, OPTION_FILE_MAX_BYTES)?).map_err(|error| {
        Failure::new(Kind::InvalidInput, error).context(format!("read {}", path.display()))
    })
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

/// Files first, so that options win.
pub fn environment(files: &[PathBuf], options: &[String]) -> Result<Vec<EnvVar>, Failure> {
    let mut found = Vec::new();
    let of_shell = |name: &str| {
        let value = std::env::var(name).ok()?;
        EnvVar::parse_pair(&format!("{name}={value}"))
    };
    for path in files {
        let pairs = parse_env_file(&read_file(path)?).map_err(|error| {
            Failure::new(Kind::InvalidInput, error).context(format!("read {}", path.display()))
        })?;
        for pair in pairs {
            found.extend(pair.map_or_else(|name| of_shell(&name), Some));
        }
    }
    for option in options {
        if EnvVar::is_name(option) && !option.contains('=') {
            found.extend(of_shell(option));
        } else {
            let pair: EnvVar = option
                .parse()
                .map_err(|error| Failure::new(Kind::InvalidInput, error))?;
            found.push(pair);
        }
    }
    Ok(found)
}

fn seccomp_document(options: &[SecurityOption]) -> Result<Option<String>, Failure> {
    let file = options.iter().rev().find_map(|option| match option {
        SecurityOption::SeccompFile(path) => Some(path),
        _ => None,
    });
    file.map(|path| read_file(path)).transpose()
}

fn find_device(request: &DeviceRequest) -> Result<Device, Failure> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let context = |failure: Failure| {
        failure.context(format!("give the container {}", request.source.display()))
    };
    let metadata = fs::metadata(&request.source).map_err(|error| context(error.into()))?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => {
            return Err(context(Failure::message(
                Kind::InvalidInput,
                "it is not a device",
            )));
        }
    };
    Ok(Device {
        target: request.target.clone(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: request.access.clone(),
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

    #[test]
    fn variables_of_files_come_before_those_of_options() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        fs::write(&file, "# a comment\nA=1\nNOT_SET_ANYWHERE\nB=2\n").unwrap();
        let options = ["B=3", "PATH", "NOT_SET_EITHER"].map(str::to_owned);
        let found = environment(&[file], &options).unwrap();
        let names: Vec<_> = found.iter().map(|pair| pair.name.as_str()).collect();
        assert_eq!(names, ["A", "B", "B", "PATH"]);
        assert!(environment(&[], &["=x".to_owned()]).is_err());
    }

    #[test]
    fn only_devices_are_given_as_devices() {
        let device = |text: &str| find_device(&text.parse().unwrap());
        let null = device("/dev/null:/dev/nothing:r").unwrap();
        assert_eq!(
            (null.major, null.minor, null.kind),
            (1, 3, DeviceKind::Char)
        );
        assert_eq!(
            device("/etc/passwd:/dev/x").unwrap_err().kind(),
            Kind::InvalidInput
        );
        assert_eq!(
            device("/dev/nope:/dev/y").unwrap_err().kind(),
            Kind::NotFound
        );
    }
}
