// SPDX-License-Identifier: Apache-2.0
//! Listening, with or without TLS, until told to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_oci::{Kind, Limits};
use gantry_store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::pipeline::{Pipeline, Rules};
use crate::routes;
use crate::state::State;
use crate::upload::Uploads;

/// Everything that answering requests needs.
#[derive(Debug)]
pub struct Registry {
    pub(crate) state: State,
    pub(crate) uploads: Uploads,
    pub(crate) pipeline: Pipeline,
    pub(crate) limits: Limits,
}

impl Registry {
    /// A registry over a writable store.
    ///
    /// # Errors
    /// The registry's directories cannot be made in the store's.
    pub fn new(store: Store, rules: Rules, limits: Limits) -> io::Result<Self> {
        let state = State::new(store.path())?;
        let uploads = Uploads::new(&state, limits)?;
        Ok(Self {
            uploads,
            pipeline: Pipeline::new(store, rules, limits),
            state,
            limits,
        })
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
    let app = axum::Router::new()
        .fallback(routes::handle)
        .with_state(registry);
    match tls {
        None => {
            let listener = axum::serve::ListenerExt::tap_io(listener, |stream: &mut TcpStream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("set TCP_NODELAY: {error}");
                }
            });
            axum::serve(listener, app)
                .with_graceful_shutdown(stop)
                .await
        }
        Some(acceptor) => {
            let listener = TlsListener::start(listener, acceptor);
            axum::serve(listener, app)
                .with_graceful_shutdown(stop)
                .await
        }
    }
    .map_err(ServeError::Serve)
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

/// Handshakes run beside each other, so that a client that stalls in its own
/// holds nobody up.
struct TlsListener {
    ready: tokio::sync::mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: io::Result<SocketAddr>,
}

const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

impl TlsListener {
    fn start(listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let (sender, ready) = tokio::sync::mpsc::channel(64);
        let address = listener.local_addr();
        tokio::spawn(async move {
            while !sender.is_closed() {
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        // The receiver is gone when the server stops.
                        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::info!(%peer, "TLS handshake: {error}"),
                        Err(_) => tracing::info!(%peer, "TLS handshake took too long"),
                    }
                });
            }
        });
        Self { ready, address }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task ends with this listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}
