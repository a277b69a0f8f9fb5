// SPDX-License-Identifier: Apache-2.0
//! HTTP clients, one for each set of certificates.
//!
//! A client is built when the first request needs it. One for plain HTTP knows
//! no roots, so that a pull over loopback does not read the system's bundle.
//! A host with a directory in `certs.d`, or whose certificate is not checked,
//! gets a client of its own, which is used for no other host.
//!
//! # Source
//! containers-certs.d(5).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};

use super::error::RegistryError;

/// Where to look for certificates.
#[derive(Debug, Clone, Default)]
pub struct CertificatePlaces {
    /// A directory with the files themselves, as `--cert-dir` names it.
    pub dir: Option<PathBuf>,
    /// Directories with a `host[:port]` directory each.
    pub roots: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Plain,
    System,
    Host { host: String, verify: bool },
}

/// Builds and keeps clients.
#[derive(Debug)]
pub(crate) struct Clients {
    places: CertificatePlaces,
    user_agent: String,
    built: Mutex<HashMap<Key, Client>>,
}

impl Clients {
    pub(crate) fn new(places: CertificatePlaces, user_agent: String) -> Self {
        Self {
            places,
            user_agent,
            built: Mutex::default(),
        }
    }

    /// The client for a URL. `verify` may be false for the registry itself only.
    pub(crate) fn get(&self, url: &Url, verify: bool) -> Result<Client, RegistryError> {
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            _ => return Err(build_error(url, "the address has no host")),
        };
        let dir = || self.directory(&host);
        let key = match (url.scheme(), verify, dir()) {
            ("http", ..) => Key::Plain,
            (_, true, None) => Key::System,
            _ => Key::Host {
                host: host.clone(),
                verify,
            },
        };
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = built.get(&key) {
            return Ok(client.clone());
        }
        let builder = self.base();
        let builder = match &key {
            Key::Plain => builder.tls_certs_only([]),
            Key::System => builder,
            Key::Host { verify, .. } => with_directory(builder, dir().as_deref(), *verify)?,
        };
        let client = builder.build().map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            build_error(url, &cause.unwrap_or_else(|| error.to_string()))
        })?;
        built.insert(key, client.clone());
        Ok(client)
    }

    fn base(&self) -> ClientBuilder {
        Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(20))
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_keepalive(Duration::from_secs(30))
            .user_agent(&self.user_agent)
    }

    fn directory(&self, host: &str) -> Option<PathBuf> {
        match &self.places.dir {
            Some(dir) => Some(dir.clone()),
            None => self
                .places
                .roots
                .iter()
                .map(|root| root.join(host))
                .find(|dir| dir.is_dir()),
        }
    }
}

fn build_error(url: &Url, why: &str) -> RegistryError {
    RegistryError::Config {
        what: format!(
            "prepare a connection to {}",
            url.host_str().unwrap_or_default()
        ),
        why: why.to_owned(),
    }
}

fn with_directory(
    mut builder: ClientBuilder,
    dir: Option<&Path>,
    verify: bool,
) -> Result<ClientBuilder, RegistryError> {
    if !verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    let Some(dir) = dir else { return Ok(builder) };
    let files = Files::load(dir)?;
    if verify && !files.roots.is_empty() {
        builder = builder.tls_certs_merge(files.roots);
    }
    if let Some(identity) = files.identity {
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// What a `certs.d` directory holds.
struct Files {
    roots: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Files {
    fn load(dir: &Path) -> Result<Self, RegistryError> {
        let error = |path: &Path, why: String| RegistryError::Config {
            what: format!("read certificates from {}", path.display()),
            why,
        };
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| error(path, source.to_string()));
        let entries = std::fs::read_dir(dir).map_err(|source| error(dir, source.to_string()))?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| error(dir, source.to_string()))?;
        paths.sort();
        let mut files = Self {
            roots: Vec::new(),
            identity: None,
        };
        for path in &paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let found = Certificate::from_pem_bundle(&read(path)?)
                        .map_err(|source| error(path, source.to_string()))?;
                    files.roots.extend(found);
                }
                Some("cert") if files.identity.is_none() => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        return Err(error(path, format!("its key {} is missing", key.display())));
                    }
                    let mut pem = read(path)?;
                    pem.push(b'\n');
                    pem.extend(read(&key)?);
                    let identity = Identity::from_pem(&pem)
                        .map_err(|source| error(path, source.to_string()))?;
                    files.identity = Some(identity);
                }
                Some("key") if !path.with_extension("cert").exists() => {
                    return Err(error(
                        path,
                        "its certificate (the same name with .cert) is missing".into(),
                    ));
                }
                _ => {}
            }
        }
        Ok(files)
    }
}
