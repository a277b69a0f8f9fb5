// SPDX-License-Identifier: Apache-2.0
//! `gantry trust serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_admission::docker::{self, DockerAuthz};
use gantry_admission::kubernetes::{self, Webhooks};
use gantry_admission::{
    Bounds, Clerk, Decision, Journal, Listen, PolicyJudge, Rules, Service, Sources, Tls,
};
use gantry_image::{EndpointError, ImageSource};
use gantry_oci::{Kind, Limits, Platform, Reference};
use gantry_transport::registry::RegistrySource;
use gantry_trust::Authority;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::image::endpoint::{PlainArgs, Side};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::memory::HostMemory;
use crate::trust::Trust;

/// Tell a Docker daemon or a Kubernetes cluster which images are admitted.
///
/// Policy, rules and keys are read anew for each verdict. Each decision is a line of JSON on standard output. What is not
/// understood, or not decided in time, is refused.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("asker").required(true).args(["docker_authz", "admission"])))]
pub struct Serve {
    /// Be the authorization plug-in of a Docker daemon
    #[arg(long)]
    docker_authz: bool,
    /// Where dockerd finds the plug-in: the file's name is the plug-in's
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/run/docker/plugins/gantry.sock",
        conflicts_with = "admission"
    )]
    socket: PathBuf,
    /// The socket of dockerd's API, to ask what an image or a container is
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/docker.sock",
        conflicts_with = "admission"
    )]
    docker_socket: PathBuf,
    /// Let builds run, whose images nobody judges
    #[arg(long, conflicts_with = "admission")]
    allow_builds: bool,
    /// Be webhooks of a Kubernetes API server, at /validate and /image-policy
    #[arg(long)]
    admission: bool,
    /// Where to listen; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8443",
        conflicts_with = "docker_authz"
    )]
    listen: SocketAddr,
    /// Write the port to this file once connections are accepted
    #[arg(long, value_name = "FILE", conflicts_with = "docker_authz")]
    port_file: Option<PathBuf>,
    /// The certificate chain, PEM; plain HTTP without, on a loopback address only
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "docker_authz"
    )]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        conflicts_with = "docker_authz"
    )]
    tls_key: Option<PathBuf>,
    /// Answer only clients with a certificate of one of these authorities, PEM
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        conflicts_with = "docker_authz"
    )]
    tls_client_ca: Option<PathBuf>,
    /// Refuse images that are not named by their digest
    #[arg(long, conflicts_with = "docker_authz")]
    require_digest: bool,
    /// A platform of the cluster's nodes, each of which must be able to run the image [default: this machine's]
    #[arg(
        long = "platform",
        value_name = "OS/ARCH[/VARIANT]",
        conflicts_with = "docker_authz"
    )]
    platforms: Vec<String>,
    /// Allow everything, and write down what would have been refused
    #[arg(long)]
    audit: bool,
    /// How many seconds a verdict may take
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    deadline: u64,
    /// How registries are reached.
    #[command(flatten)]
    side: PlainArgs,
}

impl Serve {
    /// Serves until a signal.
    pub fn run(self, context: &Context) -> Outcome {
        let rules = OwnRules(context.clone());
        // What cannot be used now is said now, and not to the first who asks.
        rules.load_now()?;
        let platforms = self
            .platforms
            .iter()
            .map(|text| Platform::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let judge = PolicyJudge {
            rules: Arc::new(rules),
            memory: Arc::new(HostMemory::new(context)),
            sources: Box::new(Registries(self.side.clone().resolve()?)),
            platforms: if platforms.is_empty() {
                vec![Platform::host()]
            } else {
                platforms
            },
            limits: Limits::DEFAULT,
        };
        let bounds = Bounds {
            deadline: Duration::from_secs(self.deadline),
            ..Bounds::default()
        };
        let clerk = Clerk::new(Arc::new(judge), Arc::new(Lines), bounds, self.audit);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::from(error).context("start the threads of the server"))?;
        runtime.block_on(self.serve(Arc::new(clerk), &bounds))?;
        Ok(ExitCode::SUCCESS)
    }

    fn door(&self, clerk: Arc<Clerk>) -> (Arc<dyn Service>, Listen) {
        if self.docker_authz {
            let options = docker::Options {
                daemon: self.docker_socket.clone(),
                builds: self.allow_builds,
            };
            let listen = Listen::Socket(self.socket.clone());
            return (Arc::new(DockerAuthz::new(clerk, options)), listen);
        }
        let options = kubernetes::Options {
            require_digest: self.require_digest,
        };
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = files.map(|(certificate, key)| Tls {
            certificate,
            key,
            client_authorities: self.tls_client_ca.clone(),
        });
        let listen = Listen::Address(self.listen, tls);
        (Arc::new(Webhooks::new(clerk, options)), listen)
    }

    async fn serve(&self, clerk: Arc<Clerk>, bounds: &Bounds) -> Result<(), Failure> {
        let (service, listen) = self.door(clerk);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let ready = |address: Option<SocketAddr>| {
            let place = address.map_or_else(
                || self.socket.display().to_string(),
                |address| {
                    let scheme = if self.tls_cert.is_some() {
                        "https"
                    } else {
                        "http"
                    };
                    format!("{scheme}://{address}")
                },
            );
            crate::output::note_line(&format!("serving {place}"));
            match (&self.port_file, address) {
                (Some(path), Some(address)) => write_port(path, address.port()),
                _ => Ok(()),
            }
        };
        let served = gantry_admission::serve(service, &listen, bounds, ready, stop).await;
        served.map_err(|error| {
            let failure = Failure::new(error.kind(), error);
            match failure.kind() {
                Kind::Denied if self.admission => failure.hint("give --tls-cert and --tls-key"),
                _ => failure,
            }
        })
    }
}

/// Whoever waits for the file finds all of it.
fn write_port(path: &Path, port: u16) -> std::io::Result<()> {
    let staged = path.with_extension("new");
    std::fs::write(&staged, format!("{port}\n"))?;
    std::fs::rename(staged, path)
}

/// Where policy and rules are, as options and environment said when the server started.
#[derive(Debug)]
struct OwnRules(Context);

impl OwnRules {
    fn load_now(&self) -> Result<Authority, Failure> {
        Ok(Trust::load(&self.0)?.authority())
    }
}

impl Rules for OwnRules {
    fn load(&self) -> Result<Authority, String> {
        self.load_now().map_err(|failure| failure.sentence())
    }
}

#[derive(Debug)]
struct Registries(Side);

impl Sources for Registries {
    fn open(&self, reference: &Reference) -> Result<Box<dyn ImageSource>, EndpointError> {
        let source = RegistrySource::new(reference.clone(), &self.0.options, &self.0.conf)?;
        Ok(Box::new(source))
    }
}

/// Decisions as lines of JSON.
#[derive(Debug)]
struct Lines;

#[derive(Serialize)]
struct Line<'a> {
    /// In milliseconds of the Unix epoch.
    time_ms: u64,
    #[serde(flatten)]
    decision: &'a Decision,
}

impl Journal for Lines {
    fn record(&self, decision: &Decision) {
        let time_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        let line = Line { time_ms, decision };
        let written = serde_json::to_string(&line)
            .map_err(|error| Failure::new(Kind::Internal, error))
            .and_then(|text| crate::output::line(crate::output::escape_json(&text)));
        if let Err(failure) = written {
            tracing::error!("write down a decision: {}", failure.sentence());
        }
    }
}
