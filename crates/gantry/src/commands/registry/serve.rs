// SPDX-License-Identifier: Apache-2.0
//! `gantry registry serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use gantry_oci::{Host, Kind, Limits};
use gantry_registry::{Keeping, Registry, Rules, ServeOptions, SignatureRules, Tls, Treatment};
use gantry_store::{CreateOptions, Faces, Store};
use gantry_trust::lookaside::Base;
use tokio::signal::unix::{SignalKind, signal};

use super::gate;
use crate::config::{Face, RegistryConfig};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::memory::HostMemory;

/// Serve images, and explode each one that is pushed into the shared tree.
///
/// The tree is the store itself (see --root): images/NAMESPACE/NAME/TAG leads to digests/DIGEST/, which any host that
/// mounts the store read-only runs without pulling. Where the configuration says policy = "enforce" or "staged", the
/// policy is asked first, with --name, repository and tag as the image's name.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Write the port to this file once connections are accepted
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// The certificate chain, PEM; plain HTTP without
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve plain HTTP even where other hosts can reach it
    #[arg(long)]
    insecure_http: bool,
    /// What clients call this registry, and policies [default: registry.name of the configuration]
    #[arg(long, value_name = "HOST[:PORT]")]
    name: Option<Host>,
}

impl Serve {
    /// Serves until a signal.
    pub fn run(self, context: &Context) -> Outcome {
        let options = CreateOptions {
            shared: true,
            ..CreateOptions::default()
        };
        let store = Store::open_or_create(&context.root, &options)?;
        let limits = Limits::DEFAULT;
        let config = &context.config.registry;
        let name = self.name.as_ref().or(config.name.as_ref());
        let gate = gate::options(config, name)?;
        let signatures = signature_rules(config)?;
        let merges = signatures.merges();
        let mut registry = Registry::new(store, rules(config), limits)
            .map_err(|error| {
                Failure::from(error)
                    .context(format!("open the registry in {}", context.root.display()))
            })?
            .with_signatures(signatures);
        if gate.is_some() || merges {
            registry = registry.with_lookasides(Arc::new(gate::Beside::new(context, name)?));
        }
        if let Some(options) = gate {
            let policy = gate::OwnPolicy(context.clone());
            let memory = Arc::new(HostMemory::new(context));
            registry = registry.with_gate(options, Arc::new(policy), memory);
        }
        raise_descriptor_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::from(error).context("start the threads of the server"))?;
        runtime.block_on(self.serve(Arc::new(registry)))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self, registry: Arc<Registry>) -> Result<(), Failure> {
        let tls = self
            .tls_cert
            .zip(self.tls_key)
            .map(|(certificate, key)| Tls { certificate, key });
        let secure = tls.is_some();
        let options = ServeOptions {
            listen: self.listen,
            tls,
            insecure_http: self.insecure_http,
        };
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let port_file = self.port_file;
        let ready = |address: SocketAddr| {
            let scheme = if secure { "https" } else { "http" };
            crate::output::note_line(&format!("serving {scheme}://{address}"));
            port_file
                .as_deref()
                .map_or(Ok(()), |path| write_port(path, address.port()))
        };
        let served = gantry_registry::serve(registry, &options, ready, stop).await;
        served.map_err(|error| {
            let failure = Failure::new(error.kind(), error);
            match failure.kind() {
                Kind::Denied => failure.hint(
                    "give --tls-cert and --tls-key, or --insecure-http on a network you trust",
                ),
                _ => failure,
            }
        })
    }
}

/// Connections and the files behind them are more than the 1024 descriptors that a login gives; as many as the
/// administrator allows are taken, without asking for more.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("raise the limit of open files: {error}");
    }
}

/// Whoever waits for the file finds all of it.
fn write_port(path: &Path, port: u16) -> std::io::Result<()> {
    let staged = path.with_extension("new");
    std::fs::write(&staged, format!("{port}\n"))?;
    std::fs::rename(staged, path)
}

fn faces(list: &[Face]) -> Faces {
    Faces {
        composefs: list.contains(&Face::Composefs),
        hardlink: list.contains(&Face::Hardlink),
    }
}

fn treatment(explode: Option<bool>, list: Option<&[Face]>, otherwise: Treatment) -> Treatment {
    match (explode, list, otherwise) {
        (Some(false), ..) | (None, None, Treatment::Keep) => Treatment::Keep,
        (_, Some(list), _) => Treatment::Explode(faces(list)),
        (_, None, Treatment::Explode(faces)) => Treatment::Explode(faces),
        (Some(true), None, Treatment::Keep) => Treatment::Explode(Faces::BOTH),
    }
}

/// What is done with signatures; a lookaside that is named means that they are kept.
fn keeping(
    signatures: Option<bool>,
    lookaside: Option<&str>,
    otherwise: &Keeping,
) -> Result<Keeping, Failure> {
    match (signatures, lookaside) {
        (Some(false), _) => Ok(Keeping::Off),
        (_, Some(text)) => match Base::parse(text) {
            Ok(base) => Ok(Keeping::Merged(base)),
            Err(error) => Err(Failure::new(Kind::InvalidInput, error)),
        },
        (Some(true), None) if *otherwise == Keeping::Off => Ok(Keeping::Own),
        (Some(true) | None, None) => Ok(otherwise.clone()),
    }
}

fn signature_rules(config: &RegistryConfig) -> Result<SignatureRules, Failure> {
    let default = keeping(
        config.signatures,
        config.lookaside.as_deref(),
        &Keeping::Off,
    )?;
    let own = |(name, rule): (&String, &crate::config::RepositoryConfig)| {
        let own = keeping(rule.signatures, rule.lookaside.as_deref(), &default)
            .map_err(|failure| failure.context(format!("read the rules of repository {name}")))?;
        Ok((name.clone(), own))
    };
    Ok(SignatureRules {
        repositories: config
            .repository
            .iter()
            .map(own)
            .collect::<Result<_, Failure>>()?,
        default,
    })
}

fn rules(config: &RegistryConfig) -> Rules {
    let default = treatment(
        config.explode,
        config.faces.as_deref(),
        Treatment::Explode(Faces::BOTH),
    );
    let own = |(name, rule): (&String, &crate::config::RepositoryConfig)| {
        let own = treatment(rule.explode, rule.faces.as_deref(), default);
        (name.clone(), own)
    };
    Rules {
        default,
        repositories: config.repository.iter().map(own).collect(),
    }
}
