// SPDX-License-Identifier: Apache-2.0
//! Listening, with or without TLS, until told to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::body::Body;
use gantry_oci::{Kind, Limits, Repository};
use gantry_store::Store;
use gantry_trust::Memory;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::gate::{self, Authorities, Gate, GateOptions, Lookasides, NoLookasides, PushPolicy};
use crate::pipeline::{Pipeline, Rules};
use crate::routes;
use crate::signatures::SignatureRules;
use crate::state::State;
use crate::upload::Uploads;

/// What clients may ask of this process, whatever they push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// How long a client may be silent in the middle of a request, or not take what it asked for.
    pub idle: Duration,
    /// Uploads that have begun and not ended.
    pub uploads: usize,
    /// Images unpacked at once; each uses about two cores and 100 MiB.
    pub explosions: usize,
    /// Bytes of manifests that are arriving, of all clients together; each is held in memory.
    pub manifest_bytes: u64,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 2048,
            idle: Duration::from_secs(60),
            uploads: 10_000,
            explosions: 4,
            manifest_bytes: 256 << 20,
        }
    }
}

/// Of [`Registry::lookups`].
const LOOKUPS: usize = 32;

/// Everything that answering requests needs.
#[derive(Debug)]
pub struct Registry {
    pub(crate) state: State,
    pub(crate) uploads: Uploads,
    pub(crate) pipeline: Pipeline,
    pub(crate) signatures: SignatureRules,
    pub(crate) lookasides: Arc<dyn Lookasides>,
    /// Lookasides that are read at once for clients.
    pub(crate) lookups: Semaphore,
    pub(crate) gate: Option<Gate>,
    pub(crate) limits: Limits,
    pub(crate) clients: ClientLimits,
    pub(crate) explosions: Arc<Semaphore>,
    /// Of [`ClientLimits::manifest_bytes`].
    pub(crate) manifest_bytes: AtomicU64,
}

impl Registry {
    /// A registry over a writable store.
    ///
    /// # Errors
    /// The registry's directories cannot be made in the store's.
    pub fn new(store: Store, rules: Rules, limits: Limits) -> io::Result<Self> {
        let state = State::new(store.path())?;
        let clients = ClientLimits::default();
        Ok(Self {
            uploads: Uploads::new(&state, limits, clients)?,
            pipeline: Pipeline::new(store, rules, limits),
            signatures: SignatureRules::default(),
            lookasides: Arc::new(NoLookasides),
            lookups: Semaphore::new(LOOKUPS),
            gate: None,
            state,
            limits,
            clients,
            explosions: Arc::new(Semaphore::new(clients.explosions)),
            manifest_bytes: AtomicU64::new(0),
        })
    }

    /// The same, keeping signatures as these rules say.
    #[must_use]
    pub fn with_signatures(self, signatures: SignatureRules) -> Self {
        Self { signatures, ..self }
    }

    /// The same, reading lookasides.
    #[must_use]
    pub fn with_lookasides(self, lookasides: Arc<dyn Lookasides>) -> Self {
        Self { lookasides, ..self }
    }

    /// The same, asking the policy before it publishes.
    #[must_use]
    pub fn with_gate(
        self,
        options: GateOptions,
        authorities: Arc<dyn Authorities>,
        memory: Arc<dyn Memory + Send + Sync>,
    ) -> Self {
        let gate = Gate::new(self.pipeline.root(), options, authorities, memory);
        Self {
            gate: Some(gate),
            ..self
        }
    }

    /// The gate, if a repository asks the policy.
    pub(crate) fn gate_of(&self, repository: &Repository) -> Option<&Gate> {
        let gate = self.gate.as_ref();
        gate.filter(|gate| gate.policy(repository) != PushPolicy::Off)
    }

    /// The same with other bounds on clients.
    #[must_use]
    pub fn with_clients(self, clients: ClientLimits) -> Self {
        Self {
            uploads: self.uploads.with_clients(clients),
            explosions: Arc::new(Semaphore::new(clients.explosions)),
            clients,
            ..self
        }
    }
}

/// A certificate chain and its key, PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate; plain HTTP without.
    pub tls: Option<Tls>,
    /// Whether plain HTTP is allowed on an address that other hosts reach.
    pub insecure_http: bool,
}

/// Why the registry does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Passwords and images would cross a network in clear.
    #[error("refuse to serve plain HTTP on {address}, which other hosts can reach")]
    PlainHttp {
        /// The address.
        address: SocketAddr,
    },
    /// The port is taken, or the address is not this host's.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The certificate or key cannot be used.
    #[error("load TLS certificate {certificate} and key {key}: {why}")]
    Tls {
        /// The chain's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The server ended.
    #[error("serve")]
    Serve(#[source] io::Error),
}

impl ServeError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::PlainHttp { .. } => Kind::Denied,
            Self::Listen { source, .. } | Self::Serve(source) => Kind::of_io(source),
            Self::Tls { .. } => Kind::InvalidInput,
        }
    }
}

/// Serves until `stop` ends; requests in progress are finished first.
///
/// `ready` is called with the address once connections are accepted. Must run
/// in a multi-threaded tokio runtime: uploads are hashed in place.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    registry: Arc<Registry>,
    options: &ServeOptions,
    ready: impl FnOnce(SocketAddr) -> io::Result<()>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let address = options.listen;
    if options.tls.is_none() && !options.insecure_http && !address.ip().is_loopback() {
        return Err(ServeError::PlainHttp { address });
    }
    let tls = options.tls.as_ref().map(acceptor).transpose()?;
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    ready(listener.local_addr().map_err(listen)?).map_err(ServeError::Serve)?;
    let server = Arc::new(Server { registry, tls });
    let connections = Arc::new(Semaphore::new(server.registry.clients.connections));
    let (stopping, stopped) = watch::channel(());
    tokio::spawn(gate::look_again(
        Arc::clone(&server.registry),
        stopped.clone(),
    ));
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, stopped) = (Arc::clone(&server), stopped.clone());
                tokio::spawn(async move {
                    server.connection(stream, peer, stopped).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the client is gone already.
            Err(error) => {
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(stopped);
    stopping.send(()).ok();
    // Every connection holds a receiver until it has ended.
    stopping.closed().await;
    Ok(())
}

/// How long to wait before accepting again where that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

struct Server {
    registry: Arc<Registry>,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// One connection to its end. A client that stalls in its handshake, in a head, in a body or in taking an answer
    /// holds nobody else up, and is let go after a while.
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, stopped: watch::Receiver<()>) {
        if let Err(error) = self.tune(&stream) {
            tracing::debug!(%peer, "tune the connection: {error}");
        }
        let Some(acceptor) = &self.tls else {
            return self.requests(stream, peer, stopped).await;
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.requests(stream, peer, stopped).await,
            Ok(Err(error)) => tracing::info!(%peer, "TLS handshake: {error}"),
            Err(_) => tracing::info!(%peer, "TLS handshake took too long"),
        }
    }

    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // Also ends a connection whose client keeps its window shut.
        let idle_ms = u32::try_from(self.registry.clients.idle.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, idle_ms)?;
        Ok(())
    }

    async fn requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: SocketAddr,
        mut stopped: watch::Receiver<()>,
    ) {
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
            let request = request.map(Body::new);
            Ok::<_, Infallible>(routes::handle(&self.registry, request).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.registry.clients.idle)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            // Also if the sender is gone.
            _ = stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, "connection: {error}");
        }
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ServeError> {
    let failed = |why: String| ServeError::Tls {
        certificate: tls.certificate.display().to_string(),
        key: tls.key.display().to_string(),
        why,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| failed(error.to_string()))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| failed(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
