// SPDX-License-Identifier: Apache-2.0
//! Who we are to a registry: `auth.json`, Docker's `config.json`, and
//! credential helpers.
//!
//! Files are tried in the order given; within one, the most specific key
//! (`host/namespace/repository`, then shorter, then `host`) wins, and a helper
//! named for the host before a plain entry. The first file with an answer
//! ends the search.
//!
//! # Source
//! containers-auth.json(5); the credential helper protocol of Docker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use gantry_oci::Repository;
use serde::Deserialize;

use super::error::RegistryError;

/// A secret for one registry. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token for the registry's token service.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => f
                .debug_struct("Basic")
                .field("username", username)
                .finish_non_exhaustive(),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
        }
    }
}

impl Credentials {
    /// Reads `user:password`, as `--creds` takes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (username, password) = text.split_once(':')?;
        (!username.is_empty()).then(|| Self::Basic {
            username: username.into(),
            password: password.into(),
        })
    }
}

/// The places of configuration files for one user. The program fills it in;
/// this crate reads no environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, or `.config` below the home.
    pub config_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$REGISTRY_AUTH_FILE`.
    pub auth_file: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`.
    pub registries_conf: Option<PathBuf>,
    /// The effective user.
    pub uid: u32,
}

impl Environment {
    /// Reads the variables through `get`, mostly [`std::env::var_os`].
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let path = |name: &str| {
            get(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        Self {
            config_home: absolute("XDG_CONFIG_HOME")
                .or_else(|| home.as_ref().map(|home| home.join(".config"))),
            home,
            runtime_dir: absolute("XDG_RUNTIME_DIR"),
            auth_file: path("REGISTRY_AUTH_FILE"),
            registries_conf: path("CONTAINERS_REGISTRIES_CONF"),
            uid,
        }
    }

    /// The files that may hold credentials, in the order of their search.
    #[must_use]
    pub fn auth_files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.auth_file {
            return vec![file.clone()];
        }
        let runtime = match &self.runtime_dir {
            Some(dir) => dir.join("containers/auth.json"),
            None => PathBuf::from(format!("/run/containers/{}/auth.json", self.uid)),
        };
        let config = self
            .config_home
            .iter()
            .map(|dir| dir.join("containers/auth.json"));
        let docker = self
            .home
            .iter()
            .flat_map(|home| [home.join(".docker/config.json"), home.join(".dockercfg")]);
        std::iter::once(runtime)
            .chain(config)
            .chain(docker)
            .collect()
    }

    /// The directories that may hold a `host[:port]` directory of
    /// certificates, in the order of their search.
    #[must_use]
    pub fn cert_roots(&self) -> Vec<PathBuf> {
        let own = self
            .config_home
            .iter()
            .map(|dir| dir.join("containers/certs.d"));
        let flavour = if self.uid == 0 {
            "certs.rootful.d"
        } else {
            "certs.rootless.d"
        };
        let shared = ["/etc/containers", "/usr/share/containers"]
            .into_iter()
            .flat_map(|dir| [Path::new(dir).join(flavour), Path::new(dir).join("certs.d")]);
        own.chain(shared)
            .chain([PathBuf::from("/etc/docker/certs.d")])
            .collect()
    }
}

/// `auth.json`. Unknown members are ignored, as everybody does.
#[derive(Debug, Default, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
}

/// Looks for credentials. Blocks on files and on helpers.
///
/// # Errors
/// A file that is there cannot be read or parsed, or a helper fails.
pub fn find(
    files: &[PathBuf],
    host: &str,
    repository: &Repository,
) -> Result<Option<Credentials>, RegistryError> {
    for path in files {
        let Some(file) = load(path)? else { continue };
        if let Some(found) = find_in(&file, path, host, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn config_error(path: &Path, why: impl fmt::Display) -> RegistryError {
    RegistryError::Config {
        what: format!("read credentials from {}", path.display()),
        why: why.to_string(),
    }
}

fn load(path: &Path) -> Result<Option<AuthFile>, RegistryError> {
    const LARGEST: u64 = 4 << 20;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(config_error(path, error)),
    };
    let mut data = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut data)
        .map_err(|error| config_error(path, error))?;
    if data.len() as u64 > LARGEST {
        return Err(config_error(path, "it is larger than 4 MiB"));
    }
    if data.trim_ascii().is_empty() {
        return Ok(None);
    }
    // The position is enough: the text around it may be a secret.
    let parsed = if path.file_name().is_some_and(|name| name == ".dockercfg") {
        serde_json::from_slice(&data).map(|auths| AuthFile {
            auths,
            ..AuthFile::default()
        })
    } else {
        serde_json::from_slice(&data)
    };
    parsed.map(Some).map_err(|error| {
        config_error(
            path,
            format!(
                "it is not of the expected form, near line {} column {}",
                error.line(),
                error.column()
            ),
        )
    })
}

fn find_in(
    file: &AuthFile,
    path: &Path,
    host: &str,
    repository: &Repository,
) -> Result<Option<Credentials>, RegistryError> {
    if let Some(helper) = file.helpers.get(host) {
        if let Some(found) = ask_helper(helper, host)? {
            return Ok(Some(found));
        }
    }
    for key in keys(host, repository) {
        if let Some(entry) = file.auths.get(&key) {
            if let Some(found) = decode(entry, path)? {
                return Ok(Some(found));
            }
        }
    }
    // Docker writes whole URLs as keys; they stand for their host.
    let legacy = file
        .auths
        .iter()
        .find(|(key, _)| host_of_url(key).is_some_and(|found| same_host(found, host)));
    if let Some((_, entry)) = legacy {
        if let Some(found) = decode(entry, path)? {
            return Ok(Some(found));
        }
    }
    match &file.store {
        Some(helper) => ask_helper(
            helper,
            if host == "docker.io" {
                "https://index.docker.io/v1/"
            } else {
                host
            },
        ),
        None => Ok(None),
    }
}

/// `host/a/b`, `host/a`, `host`.
fn keys(host: &str, repository: &Repository) -> Vec<String> {
    let full = format!("{host}/{repository}");
    let cuts = full
        .match_indices('/')
        .map(|(at, _)| full[..at].to_owned())
        .collect::<Vec<_>>();
    std::iter::once(full)
        .chain(cuts.into_iter().rev())
        .collect()
}

fn host_of_url(key: &str) -> Option<&str> {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))?;
    rest.split('/').next()
}

fn same_host(found: &str, host: &str) -> bool {
    found == host
        || host == "docker.io" && matches!(found, "index.docker.io" | "registry-1.docker.io")
}

fn decode(entry: &Entry, path: &Path) -> Result<Option<Credentials>, RegistryError> {
    if let Some(token) = entry
        .identity_token
        .as_ref()
        .filter(|token| !token.is_empty())
    {
        return Ok(Some(Credentials::IdentityToken(token.clone())));
    }
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else {
        return Ok(None);
    };
    let malformed = || {
        config_error(
            path,
            "an entry's auth is not the base64 form of user:password",
        )
    };
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth.trim())
        .map_err(|_| malformed())?;
    let text = String::from_utf8(decoded).map_err(|_| malformed())?;
    // Some writers pad the password with zero bytes.
    Credentials::parse(text.trim_end_matches('\0'))
        .map(Some)
        .ok_or_else(malformed)
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks `docker-credential-<suffix>`.
fn ask_helper(suffix: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    const PATIENCE: Duration = Duration::from_secs(60);
    const LONGEST: u64 = 1 << 20;
    let error = |why: String| RegistryError::Config {
        what: format!("ask credential helper {suffix:?}"),
        why,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if suffix.is_empty() || !suffix.bytes().all(plain) {
        return Err(error(
            "its name has other characters than letters, digits, dash, dot and underscore".into(),
        ));
    }
    let mut child = Command::new(format!("docker-credential-{suffix}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| error(source.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input says so by its answer.
        drop(writeln!(stdin, "{server}"));
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = String::new();
            let result = stdout.take(LONGEST).read_to_string(&mut text).map(|_| text);
            drop(sender.send(result));
        });
    }
    let Ok(answer) = receiver.recv_timeout(PATIENCE) else {
        drop(child.kill());
        drop(child.wait());
        return Err(error(format!(
            "it did not answer within {} s",
            PATIENCE.as_secs()
        )));
    };
    let status = child.wait().map_err(|source| error(source.to_string()))?;
    let text = answer.map_err(|source| error(source.to_string()))?;
    if !status.success() {
        return if text.contains("credentials not found") {
            Ok(None)
        } else {
            Err(error(format!(
                "it ended with {status}: {}",
                super::error::printable(text.trim())
            )))
        };
    }
    let answer: HelperAnswer = serde_json::from_str(&text)
        .map_err(|_| error("its answer is not of the expected form".into()))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", secret) => Some(Credentials::IdentityToken(secret)),
        (username, password) => Some(Credentials::Basic {
            username: username.into(),
            password,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic {
            username: username.into(),
            password: password.into(),
        })
    }

    fn with_file(content: &str, test: impl FnOnce(&[PathBuf])) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, content).unwrap();
        test(&[dir.path().join("absent.json"), path]);
    }

    #[test]
    fn most_specific_key_wins() {
        // YTpi is a:b, Yzpk is c:d, ZTpmOmc= is e:f:g.
        let content = r#"{"auths":{
            "r.example":{"auth":"YTpi"},
            "r.example/team":{"auth":"Yzpk"},
            "r.example/team/app":{"auth":"ZTpmOmc="},
            "https://index.docker.io/v1/":{"auth":"YTpi"},
            "t.example":{"identitytoken":"refresh"},
            "empty.example":{}
        }}"#;
        with_file(content, |files| {
            let found = |host: &str, repository: &str| {
                find(files, host, &repository.parse().unwrap()).unwrap()
            };
            assert_eq!(found("r.example", "team/app"), basic("e", "f:g"));
            assert_eq!(found("r.example", "team/other"), basic("c", "d"));
            assert_eq!(found("r.example", "teams"), basic("a", "b"));
            assert_eq!(found("r.example:5000", "team/app"), None);
            assert_eq!(found("docker.io", "library/debian"), basic("a", "b"));
            assert_eq!(
                found("t.example", "x"),
                Some(Credentials::IdentityToken("refresh".into()))
            );
            assert_eq!(found("empty.example", "x"), None);
        });
    }

    #[test]
    fn unreadable_files_are_errors_and_show_no_secret() {
        for content in [
            "{",
            r#"{"auths":{"r":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"r":{"auth":"%%secret"}}}"#,
        ] {
            with_file(content, |files| {
                let error = find(files, "r", &"x".parse().unwrap())
                    .unwrap_err()
                    .to_string();
                assert!(
                    !error.contains("secret") && !error.contains("c2VjcmV0"),
                    "{error}"
                );
            });
        }
    }

    #[test]
    fn helper_names_cannot_be_paths() {
        with_file(r#"{"credHelpers":{"r":"../../bin/sh"}}"#, |files| {
            assert!(find(files, "r", &"x".parse().unwrap()).is_err());
        });
    }

    #[test]
    fn search_order_is_that_of_the_family() {
        let variables = |name: &str| {
            let value = match name {
                "HOME" => "/home/u",
                "XDG_RUNTIME_DIR" => "/run/user/7",
                _ => return None,
            };
            Some(OsString::from(value))
        };
        let environment = Environment::from_variables(variables, 7);
        let expected = [
            "/run/user/7/containers/auth.json",
            "/home/u/.config/containers/auth.json",
            "/home/u/.docker/config.json",
            "/home/u/.dockercfg",
        ];
        assert_eq!(environment.auth_files(), expected.map(PathBuf::from));
        let explicit = Environment {
            auth_file: Some("/x".into()),
            ..environment
        };
        assert_eq!(explicit.auth_files(), [PathBuf::from("/x")]);
    }

    #[test]
    fn debug_form_hides_secrets() {
        let text = format!(
            "{:?} {:?}",
            basic("name", "hunter2"),
            Credentials::IdentityToken("hunter2".into())
        );
        assert!(text.contains("name") && !text.contains("hunter2"), "{text}");
    }
}
