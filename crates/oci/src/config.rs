// SPDX-License-Identifier: Apache-2.0
//! Image configurations: what to run, and the diffIDs of the layers.
//!
//! Everything in a configuration was written by whoever made the image. It is
//! well-formed here and hostile still: no field may be used as a path on the
//! host, a label of ours, or an identity without the check that its user owes.
//!
//! # Source
//! image-spec v1.1 "Image Configuration"; Docker image specification v1.2 for
//! `Healthcheck`, `OnBuild`, `Shell`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::null_is_default;
use crate::ids::DiffId;
use crate::limits::Limits;
use crate::platform::Platform;
use crate::strict_json;

/// An image configuration.
///
/// Only the members that Gantry reads are kept; the bytes as received are what
/// is stored and digested.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, as RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// CPU architecture.
    #[serde(default)]
    pub architecture: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Docker's version that made it, which `inspect` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_version: Option<String>,
    /// What to run.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ProcessConfig,
    /// The layers by content.
    pub rootfs: RootFs,
    /// How each layer came about.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub history: Vec<History>,
}

/// The layers by content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The uncompressed layers' digests, base first.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

/// One step of the image's making.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

/// How the image wants its process to be started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessConfig {
    /// `user[:group]`, by name or number.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `NAME=value` each.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub entrypoint: Vec<String>,
    /// Arguments that the user may replace.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cmd: Vec<String>,
    /// The working directory.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Directories that are to be writable and to outlive the container's root.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// `port[/protocol]` each.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Arbitrary metadata.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the process to end.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Docker's health check, carried as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
}

/// Why bytes are not an image configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseConfigError {
    /// More bytes than the table of limits allows.
    #[error("image config of {size_bytes} bytes is larger than the {limit_bytes} allowed")]
    TooLarge {
        /// How many there are.
        size_bytes: u64,
        /// How many may be.
        limit_bytes: u64,
    },
    /// Not JSON, or JSON with two meanings.
    #[error("image config is not strict JSON")]
    Json(#[source] serde_json::Error),
    /// Valid JSON that lacks members or has ones of the wrong type.
    #[error("image config does not have the members that it needs")]
    Shape(#[source] serde_json::Error),
    /// `rootfs.type` is not `layers`.
    #[error("image config has a rootfs of type {kind:?} instead of \"layers\"")]
    RootFsType {
        /// What it says.
        kind: String,
    },
    /// The number of diffIDs is not the number of layers.
    #[error("image config lists {diff_ids} diffIDs for a manifest of {layers} layers")]
    LayerCount {
        /// In the configuration.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
}

impl ParseConfigError {
    /// `Unsafe` if too large, else `Corrupt`.
    #[must_use]
    pub fn kind(&self) -> crate::Kind {
        match self {
            Self::TooLarge { .. } => crate::Kind::Unsafe,
            _ => crate::Kind::Corrupt,
        }
    }
}

impl ImageConfig {
    /// Parses a configuration that belongs to a manifest of `layers` layers.
    ///
    /// # Errors
    /// [`ParseConfigError`]: too large, not strict JSON, or not as many diffIDs
    /// as layers.
    pub fn parse(data: &[u8], layers: usize, limits: &Limits) -> Result<Self, ParseConfigError> {
        let size_bytes = data.len() as u64;
        if size_bytes > limits.config_bytes {
            return Err(ParseConfigError::TooLarge {
                size_bytes,
                limit_bytes: limits.config_bytes,
            });
        }
        strict_json::check(data, limits.json_depth).map_err(ParseConfigError::Json)?;
        let config: Self = serde_json::from_slice(data).map_err(ParseConfigError::Shape)?;
        if config.rootfs.kind != "layers" {
            return Err(ParseConfigError::RootFsType {
                kind: crate::digest::excerpt(&config.rootfs.kind),
            });
        }
        if config.rootfs.diff_ids.len() != layers {
            return Err(ParseConfigError::LayerCount {
                diff_ids: config.rootfs.diff_ids.len(),
                layers,
            });
        }
        Ok(config)
    }

    /// What the image says it runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            variant: self.variant.clone(),
            ..Platform::new(&self.os, &self.architecture)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn config_of_docker_with_nulls_is_read() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"User":"","Env":["A=b"],"Cmd":["sh"],"Entrypoint":null,
            "Volumes":null,"Labels":null,"Healthcheck":{{"Test":["NONE"]}},"OnBuild":null}},
            "rootfs":{{"type":"layers","diff_ids":["{ID}"]}},"history":null}}"#
        );
        let config = ImageConfig::parse(text.as_bytes(), 1, &Limits::DEFAULT).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.entrypoint.is_empty());
        assert!(ImageConfig::parse(text.as_bytes(), 2, &Limits::DEFAULT).is_err());
    }

    #[test]
    fn config_that_is_malformed_is_refused() {
        for bad in [
            "",
            "{}",
            "null",
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}"#,
            r#"{"rootfs":{"type":"other","diff_ids":[]}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":[]},"os":1}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Env":[1]}}"#,
            r#"{"os":"a","os":"b","rootfs":{"type":"layers","diff_ids":[]}}"#,
        ] {
            assert!(
                ImageConfig::parse(bad.as_bytes(), 0, &Limits::DEFAULT).is_err(),
                "{bad} was accepted"
            );
        }
    }
}
