// SPDX-License-Identifier: Apache-2.0
//! Devices by the names that CDI files give them, and `--gpus`.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use gantry_oci::Kind;
use gantry_runtime::cdi::{self, CdiError, CdiName, CdiSpec};
use gantry_runtime::options::{DeviceRequest, RunOptions};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use super::host::{find_device, read_file};
use crate::exit::Failure;

/// Later ones count where both describe a device.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/run/cdi"];
/// Under which name makers' tools describe GPUs for `--gpus`, as docker asks for them.
const GPU_CLASS: &str = "nvidia.com/gpu";
const YAML_DEPTH_MAX: usize = 32;

/// `--device`: a node of the host, or a name of CDI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceWord {
    /// A node.
    Node(DeviceRequest),
    /// A name.
    Cdi(CdiName),
}

impl FromStr for DeviceWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            let request = text.parse::<DeviceRequest>();
            return request.map(Self::Node).map_err(|error| error.to_string());
        }
        text.parse()
            .map(Self::Cdi)
            .map_err(|error: CdiError| error.to_string())
    }
}

/// `--gpus all`, `--gpus device=0,1`: names of CDI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus(pub Vec<CdiName>);

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim_matches('"');
        let devices = match text.split_once('=') {
            None if text == "all" => "all",
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err("a number does not say which; device=0,1 or all does".to_owned());
            }
            Some(("device", devices)) => devices,
            _ => {
                let problem = "expected all or device=NAME,…; which of a driver's parts come along \
                     is said by its CDI file, so neither count nor capabilities can be chosen";
                return Err(problem.to_owned());
            }
        };
        devices
            .split(',')
            .map(|device| format!("{GPU_CLASS}={device}").parse())
            .collect::<Result<_, CdiError>>()
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// Gives the container what belongs to these devices.
///
/// # Errors
/// A device that no file describes, a file that is none.
pub(super) fn give(names: &[CdiName], options: &mut RunOptions) -> Result<(), Failure> {
    give_of(&DIRECTORIES.map(Path::new), names, options)
}

fn give_of(dirs: &[&Path], names: &[CdiName], options: &mut RunOptions) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let failed = |error: CdiError| {
        let hint = (error.kind() == Kind::NotFound)
            .then(|| format!("CDI files lie in {}", DIRECTORIES.join(" and ")));
        let failure = Failure::new(error.kind(), error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    };
    let mut specs = Vec::new();
    for (place, dir) in dirs.iter().enumerate() {
        specs.extend(read_directory(dir)?.into_iter().map(|spec| (place, spec)));
    }
    for name in names {
        for edits in cdi::find(&specs, name).map_err(failed)? {
            cdi::apply(name, edits, options, |node| {
                let source = node.host_path.as_ref().unwrap_or(&node.path);
                let access = node.permissions.as_deref().unwrap_or("rwm");
                let word = format!("{source}:{}:{access}", node.path);
                let request = word.parse::<DeviceRequest>();
                let request = request.map_err(|error| Failure::new(error.kind(), error))?;
                let mut device = find_device(&request)?;
                device.mode = node.file_mode.map_or(device.mode, |mode| mode & 0o777);
                device.uid = node.uid.unwrap_or(device.uid);
                device.gid = node.gid.unwrap_or(device.gid);
                Ok::<_, Failure>(device)
            })?;
        }
    }
    Ok(())
}

impl From<CdiError> for Failure {
    fn from(error: CdiError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn read_directory(dir: &Path) -> Result<Vec<CdiSpec>, Failure> {
    let doing = |failure: Failure| failure.context(format!("read {}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| doing(error.into()))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| doing(error.into()))?.path());
    }
    paths.sort();
    let mut specs = Vec::new();
    for path in paths {
        let of_yaml = match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("json") => false,
            Some("yaml" | "yml") => true,
            _ => continue,
        };
        let text = read_file(&path)?;
        let spec = if of_yaml {
            parse_yaml(&text)
                .and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()))
        } else {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        };
        specs.push(spec.map_err(|problem| {
            let sentence = format!("read {}: {problem}", path.display());
            Failure::message(Kind::InvalidInput, sentence)
        })?);
    }
    Ok(specs)
}

fn parse_yaml(text: &str) -> Result<Value, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    match &documents[..] {
        [document] => {
            of_yaml(document, 0).ok_or_else(|| "not the YAML that JSON can say".to_owned())
        }
        _ => Err("not one YAML document".to_owned()),
    }
}

fn of_yaml(value: &Yaml, depth: usize) -> Option<Value> {
    if depth > YAML_DEPTH_MAX {
        return None;
    }
    Some(match value {
        Yaml::String(text) => text.as_str().into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Boolean(truth) => (*truth).into(),
        Yaml::Null => Value::Null,
        Yaml::Array(items) => items
            .iter()
            .map(|item| of_yaml(item, depth + 1))
            .collect::<Option<Vec<_>>>()?
            .into(),
        Yaml::Hash(members) => {
            let pairs = members.iter().map(|(key, value)| {
                let key = key.as_str()?.to_owned();
                Some((key, of_yaml(value, depth + 1)?))
            });
            Value::Object(pairs.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
- name: \"0\"
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/null
      permissions: rw
      gid: 44
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - hookName: createContainer
    path: /usr/bin/cdi-hook
    args: [cdi-hook, update-ldcache]
";

    #[test]
    fn gpus_are_what_their_file_says() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nvidia.yaml"), FILE).unwrap();
        fs::write(dir.path().join("README"), "not one").unwrap();
        let places = [dir.path(), Path::new("/no/such/directory")];
        let give = |word: &str| {
            let mut options = RunOptions::default();
            let names: Gpus = word.parse().unwrap();
            give_of(&places, &names.0, &mut options).map(|()| options)
        };
        let options = give("device=0").unwrap();
        let device = &options.devices[0];
        assert_eq!(
            (device.target.as_str(), device.major, device.minor),
            ("/dev/gpu0", 1, 3)
        );
        assert_eq!((device.access.as_str(), device.gid), ("rw", 44));
        assert_eq!(options.env[0].to_string(), "NVIDIA_VISIBLE_DEVICES=void");
        assert_eq!(options.hooks[0].args, ["cdi-hook", "update-ldcache"]);
        let missing = give("all").unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        fs::write(dir.path().join("broken.json"), "{").unwrap();
        assert_eq!(give("device=0").unwrap_err().kind(), Kind::InvalidInput);
    }

    #[test]
    fn gpus_that_nobody_named_are_refused() {
        assert_eq!("\"device=0,1\"".parse::<Gpus>().unwrap().0.len(), 2);
        for text in ["", "2", "count=2", "all,capabilities=utility", "device="] {
            assert!(text.parse::<Gpus>().is_err(), "{text}");
        }
    }
}
