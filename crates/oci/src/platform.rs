// SPDX-License-Identifier: Apache-2.0
//! Platforms: operating system, architecture and variant.
//!
//! # Source
//! image-spec v1.1 "Image Index", `platform`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a manifest of an index runs on. Values use Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture, `amd64`, `arm64` …
    pub architecture: String,
    /// Operating system, `linux`.
    pub os: String,
    /// Windows build, and the like.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Mandatory features of the operating system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// CPU variant, `v7`, `v8` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// A platform of two words.
    #[must_use]
    pub fn new(os: &str, architecture: &str) -> Self {
        Self {
            architecture: architecture.into(),
            os: os.into(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        }
    }

    /// What this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        let mut host = Self::new("linux", architecture);
        match architecture {
            "arm64" => host.variant = Some("v8".into()),
            "arm" => host.variant = Some("v7".into()),
            _ => {}
        }
        host
    }

    /// Parses `os/architecture[/variant]`.
    ///
    /// # Errors
    /// The text has another number of words, or an empty one.
    pub fn parse(text: &str) -> Result<Self, ParsePlatformError> {
        let words: Vec<&str> = text.split('/').collect();
        match words[..] {
            [os, architecture] if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self::new(os, architecture))
            }
            [os, architecture, variant] if ![os, architecture, variant].contains(&"") => Ok(Self {
                variant: Some(variant.into()),
                ..Self::new(os, architecture)
            }),
            _ => Err(ParsePlatformError {
                text: crate::digest::excerpt(text),
            }),
        }
    }
}

/// A platform text that is not `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {text:?} is not of the form os/architecture or os/architecture/variant")]
pub struct ParsePlatformError {
    text: String,
}

impl ParsePlatformError {
    /// Always invalid input.
    #[must_use]
    pub fn kind(&self) -> crate::Kind {
        crate::Kind::InvalidInput
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}
