// SPDX-License-Identifier: Apache-2.0
//! The file that skopeo's `--sign-by-sigstore` names.
//!
//! A private key and its passphrase file are what is known of it. Certificates
//! of Fulcio and entries in Rekor are made by asking servers; a file that wants
//! them is refused, rather than followed by half.
//!
//! # Source
//! containers-sigstore-signing-params.yaml(5).

use std::path::PathBuf;

use gantry_oci::Kind;
use yaml_rust2::{Yaml, YamlLoader};

/// What a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningParams {
    /// The private key.
    pub private_key_file: PathBuf,
    /// A file whose first line is its passphrase.
    pub private_key_passphrase_file: Option<PathBuf>,
}

/// Why a file cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseParamsError {
    /// It is not YAML, or of another shape.
    #[error("read signing parameters: {why}")]
    Malformed {
        /// In what way.
        why: String,
    },
    /// It asks for what we do not do.
    #[error(
        "signing parameters: {member} is not supported: this version asks no server for certificates or log entries"
    )]
    Unsupported {
        /// Which member.
        member: &'static str,
    },
}

impl ParseParamsError {
    /// Invalid input, or unsupported.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Malformed { .. } => Kind::InvalidInput,
            Self::Unsupported { .. } => Kind::Unsupported,
        }
    }
}

impl SigningParams {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`ParseParamsError`]
    pub fn parse(text: &str) -> Result<Self, ParseParamsError> {
        let malformed = |why: String| ParseParamsError::Malformed { why };
        let documents =
            YamlLoader::load_from_str(text).map_err(|error| malformed(error.to_string()))?;
        let [Yaml::Hash(members)] = documents.as_slice() else {
            return Err(malformed("it is not one mapping".into()));
        };
        let (mut key, mut passphrase) = (None, None);
        for (name, value) in members {
            let place = match name.as_str() {
                Some("privateKeyFile") => &mut key,
                Some("privateKeyPassphraseFile") => &mut passphrase,
                Some("fulcio") => return Err(ParseParamsError::Unsupported { member: "fulcio" }),
                Some("rekorURL") => {
                    return Err(ParseParamsError::Unsupported { member: "rekorURL" });
                }
                _ => return Err(malformed(format!("member {name:?} is not known"))),
            };
            let path = value
                .as_str()
                .ok_or_else(|| malformed(format!("member {name:?} is no path")))?;
            *place = Some(PathBuf::from(path));
        }
        Ok(Self {
            private_key_file: key.ok_or_else(|| malformed("privateKeyFile is missing".into()))?,
            private_key_passphrase_file: passphrase,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_followed_and_servers_refused() {
        let text = "privateKeyFile: /k\nprivateKeyPassphraseFile: /p\n";
        let wanted = SigningParams {
            private_key_file: "/k".into(),
            private_key_passphrase_file: Some("/p".into()),
        };
        assert_eq!(SigningParams::parse(text).unwrap(), wanted);
        for (text, kind) in [
            (
                "privateKeyFile: /k\nrekorURL: https://r.example\n",
                Kind::Unsupported,
            ),
            (
                "fulcio:\n  fulcioURL: https://f.example\n",
                Kind::Unsupported,
            ),
            ("privateKeyFile: /k\nmore: 1\n", Kind::InvalidInput),
            ("privateKeyFile: [a]\n", Kind::InvalidInput),
            ("privateKeyPassphraseFile: /p\n", Kind::InvalidInput),
            ("", Kind::InvalidInput),
            ("- a\n", Kind::InvalidInput),
        ] {
            assert_eq!(
                SigningParams::parse(text).unwrap_err().kind(),
                kind,
                "{text}"
            );
        }
    }
}
