// SPDX-License-Identifier: Apache-2.0
//! What options name on this host: files, variables, devices, the first process.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use gantry_oci::Kind;
use gantry_runtime::options::{
    Device, DeviceKind, DeviceRequest, EnvVar, KeyValue, SecurityOption, parse_env_file,
};

use crate::exit::Failure;
use crate::input::read_capped;

/// Files that options name are read up to this size.
const OPTION_FILE_MAX_BYTES: u64 = 4 << 20;

pub(super) fn read_file(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_capped(path, OPTION_FILE_MAX_BYTES)?).map_err(|error| {
        Failure::new(Kind::InvalidInput, error).context(format!("read {}", path.display()))
    })
}

/// Files first, so that options win.
pub(in crate::commands::container) fn environment(
    files: &[PathBuf],
    options: &[String],
) -> Result<Vec<EnvVar>, Failure> {
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

pub(super) fn seccomp_document(options: &[SecurityOption]) -> Result<Option<String>, Failure> {
    let file = options.iter().rev().find_map(|option| match option {
        SecurityOption::SeccompFile(path) => Some(path),
        _ => None,
    });
    file.map(|path| read_file(path)).transpose()
}

/// A device of this host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Looks at a device's node.
pub(super) fn numbers(path: &Path) -> Result<Numbers, Failure> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let metadata = fs::metadata(path).map_err(Failure::from)?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => {
            return Err(Failure::message(Kind::InvalidInput, "it is not a device"));
        }
    };
    Ok(Numbers {
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

pub(super) fn find_device(request: &DeviceRequest) -> Result<Device, Failure> {
    let found = numbers(&request.source).map_err(|failure| {
        failure.context(format!("give the container {}", request.source.display()))
    })?;
    Ok(Device {
        target: request.target.clone(),
        kind: found.kind,
        major: found.major,
        minor: found.minor,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        access: request.access.clone(),
    })
}

/// Directories of `/dev` that are the container's own.
const OWN_DIRECTORIES: [&str; 5] = ["pts", "shm", "mqueue", "fd", "hugepages"];

/// Nodes that lead to the container's own terminals.
const OWN_NODES: [&str; 2] = ["/dev/console", "/dev/ptmx"];

/// Gives the container every device of this host that is not given yet, as engines do for `--privileged`.
pub(super) fn add_every_device(devices: &mut Vec<Device>) -> Result<(), Failure> {
    let doing = |error: std::io::Error| Failure::from(error).context("list the host's devices");
    let (mut left, mut found) = (vec![PathBuf::from("/dev")], Vec::new());
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(doing)? {
            let entry = entry.map_err(doing)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(doing)?);
            if kind.is_dir() {
                let own = OWN_DIRECTORIES
                    .iter()
                    .any(|name| path == Path::new("/dev").join(name));
                left.extend((!own).then_some(path));
                continue;
            }
            let Some(target) = path.to_str().filter(|path| !OWN_NODES.contains(path)) else {
                continue;
            };
            // What is none, or went meanwhile, is passed over.
            let Ok(request) = target.parse::<DeviceRequest>() else {
                continue;
            };
            if kind.is_symlink() || devices.iter().any(|given| given.target == target) {
                continue;
            }
            found.extend(find_device(&request).ok());
        }
    }
    found.sort_by(|one, other| one.target.cmp(&other.target));
    devices.append(&mut found);
    Ok(())
}

/// Variables by which programs find a proxy.
const PROXY: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
];

/// All variables of this shell, those of proxies, or none.
pub(super) fn shell_variables_if(all: bool, proxies: bool) -> Vec<EnvVar> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| all || proxies && PROXY.contains(&name.as_str()))
        .filter_map(|(name, value)| EnvVar::parse_pair(&format!("{name}={value}")))
        .collect()
}

/// Labels that files list, a line each.
pub(super) fn labels(files: &[PathBuf]) -> Result<Vec<KeyValue>, Failure> {
    let mut found = Vec::new();
    for path in files {
        let text = read_file(path)?;
        let lines = text.lines().map(str::trim_start);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let label = line.parse::<KeyValue>().map_err(|error| {
                Failure::new(Kind::InvalidInput, error).context(format!("read {}", path.display()))
            })?;
            found.push(label);
        }
    }
    Ok(found)
}

/// Where distributions put programs that can be a container's first process: podman's, docker's, and those that stand
/// for themselves.
const INITS: [&str; 5] = [
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/docker-init",
    "/usr/bin/tini-static",
    "/usr/libexec/docker/docker-init",
];

/// The first process of `--init`: the one that is named, or the first one that is there.
///
/// # Errors
/// None is there; the named one needs libraries, which the image may not have.
pub(super) fn find_init(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(path) = named else {
        let known = INITS.map(PathBuf::from);
        return known
            .into_iter()
            .find(|path| is_static(path).unwrap_or(false))
            .ok_or_else(|| {
                Failure::message(Kind::NotFound, "find a program for --init")
                    .hint("apt-get install catatonit, or --init-path FILE")
            });
    };
    let shown = format!("--init-path {}", path.display());
    let said = |failure: Failure| failure.context(shown.clone());
    let path = std::path::absolute(path).map_err(|error| said(error.into()))?;
    if is_static(&path).map_err(|error| said(error.into()))? {
        return Ok(path);
    }
    let problem = "it is no program that runs without libraries, which images may not have";
    Err(said(Failure::message(Kind::InvalidInput, problem)))
}

/// An ELF program that names no interpreter.
fn is_static(path: &Path) -> std::io::Result<bool> {
    const INTERPRETER: u32 = 3;
    let mut head = Vec::new();
    fs::File::open(path)?.take(4096).read_to_end(&mut head)?;
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = head.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    };
    // 64 bits, little-endian: every machine that Gantry runs on.
    if head.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    let place = |at, length| number(at, length).and_then(|value| usize::try_from(value).ok());
    let (Some(first), Some(size), Some(count)) = (place(32, 8), place(54, 2), place(56, 2)) else {
        return Ok(false);
    };
    let mut kinds = (0..count).map(|index| number(first.checked_add(index * size)?, 4));
    Ok(kinds.all(|kind| kind.is_some_and(|kind| kind != u64::from(INTERPRETER))))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn first_process_needs_no_libraries() {
        let own = std::env::current_exe().unwrap();
        assert!(!is_static(&own).unwrap());
        assert!(!is_static(Path::new("/etc/passwd")).unwrap());
        let error = find_init(Some(&own)).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
        let missing = find_init(Some(Path::new("/no/such/init"))).unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
    }

    #[test]
    fn labels_are_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("labels");
        fs::write(&file, "# none\na=1\n\nb\n").unwrap();
        let found = labels(std::slice::from_ref(&file)).unwrap();
        let keys: Vec<_> = found.iter().map(|label| label.key.as_str()).collect();
        assert_eq!(keys, ["a", "b"]);
        fs::write(&file, "=x\n").unwrap();
        assert_eq!(labels(&[file]).unwrap_err().kind(), Kind::InvalidInput);
    }
}
