// SPDX-License-Identifier: Apache-2.0
//! Listening on a socket of this host or on TLS, until told to stop.

use std::convert::Infallible;
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use gantry_oci::Kind;
use http::{Request, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::decision::Bounds;

/// A certificate chain and its key, and whose clients may connect; PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Authorities of which a client must show a certificate; anybody may connect without.
    pub client_authorities: Option<PathBuf>,
}

/// Where to listen.
#[derive(Debug, Clone)]
pub enum Listen {
    /// On a socket in the file system, for its owner alone.
    Socket(PathBuf),
    /// On an address; plain HTTP without TLS, which only a loopback address may speak.
    Address(SocketAddr, Option<Tls>),
}

/// Whoever answers requests.
#[async_trait]
pub trait Service: Send + Sync + fmt::Debug {
    /// Answers one request whose body is whole.
    async fn answer(&self, request: Request<Bytes>) -> Response<Body>;
}

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Whoever sits between could change the verdicts.
    #[error("refuse to serve plain HTTP on {address}, which other hosts can reach")]
    PlainHttp {
        /// The address.
        address: SocketAddr,
    },
    /// The place is taken, or is not this host's.
    #[error("listen on {place}")]
    Listen {
        /// An address or a path.
        place: String,
        /// The cause.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
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

/// How long a client may be silent in the middle of a request.
const IDLE: Duration = Duration::from_secs(30);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before accepting again where that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` ends; requests in progress are finished first.
///
/// `ready` is called once connections are accepted, with the address if it is one.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    service: Arc<dyn Service>,
    listen: &Listen,
    bounds: &Bounds,
    ready: impl FnOnce(Option<SocketAddr>) -> io::Result<()>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let listener = Listener::bind(listen).await?;
    ready(listener.address()).map_err(ServeError::Serve)?;
    let connections = Arc::new(Semaphore::new(bounds.connections));
    let server = Arc::new(Server {
        service,
        body_bytes: bounds.body_bytes,
    });
    let (stopping, stopped) = watch::channel(());
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
            Ok(connection) => {
                let (server, stopped) = (Arc::clone(&server), stopped.clone());
                tokio::spawn(async move {
                    server.connection(connection, stopped).await;
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

enum Listener {
    Socket {
        listener: UnixListener,
        /// Removed when the listener goes.
        _file: SocketFile,
    },
    Address(TcpListener, Option<TlsAcceptor>),
}

enum Connection {
    Socket(UnixStream),
    Plain(TcpStream),
    Tls(TcpStream, TlsAcceptor),
}

/// The file of a socket, removed with it unless somebody else has put another there.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found != self.identity) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("remove {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Listener {
    async fn bind(listen: &Listen) -> Result<Self, ServeError> {
        match listen {
            Listen::Socket(path) => {
                let failed = |source| ServeError::Listen {
                    place: path.display().to_string(),
                    source,
                };
                bind_socket(path).await.map_err(failed)
            }
            Listen::Address(address, tls) => {
                let address = *address;
                if tls.is_none() && !address.ip().is_loopback() {
                    return Err(ServeError::PlainHttp { address });
                }
                let acceptor = tls.as_ref().map(acceptor).transpose()?;
                let bound = TcpListener::bind(address).await;
                let listener = bound.map_err(|source| ServeError::Listen {
                    place: address.to_string(),
                    source,
                })?;
                Ok(Self::Address(listener, acceptor))
            }
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket { .. } => None,
            Self::Address(listener, _) => listener.local_addr().ok(),
        }
    }

    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Socket { listener, .. } => listener
                .accept()
                .await
                .map(|(stream, _)| Connection::Socket(stream)),
            Self::Address(listener, acceptor) => {
                let (stream, _) = listener.accept().await?;
                Ok(match acceptor {
                    Some(acceptor) => Connection::Tls(stream, acceptor.clone()),
                    None => Connection::Plain(stream),
                })
            }
        }
    }
}

/// Makes the socket and the directory that it is to lie in. A socket that nobody listens on any more is replaced.
async fn bind_socket(path: &Path) -> io::Result<Listener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(Listener::Socket {
        listener,
        _file: file,
    })
}

struct Server {
    service: Arc<dyn Service>,
    body_bytes: usize,
}

impl Server {
    async fn connection(&self, connection: Connection, stopped: watch::Receiver<()>) {
        match connection {
            // Its daemon keeps connections for as long as it likes.
            Connection::Socket(stream) => self.requests(stream, None, stopped).await,
            Connection::Plain(stream) => self.requests(stream, Some(IDLE), stopped).await,
            Connection::Tls(stream, acceptor) => {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => self.requests(stream, Some(IDLE), stopped).await,
                    Ok(Err(error)) => tracing::info!("TLS handshake: {error}"),
                    Err(_) => tracing::info!("TLS handshake took too long"),
                }
            }
        }
    }

    async fn requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        idle: Option<Duration>,
        mut stopped: watch::Receiver<()>,
    ) {
        let service = service_fn(|request: Request<hyper::body::Incoming>| async {
            Ok::<_, Infallible>(self.answer(request).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
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
            tracing::debug!("connection: {error}");
        }
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let whole = axum::body::to_bytes(Body::new(body), self.body_bytes);
        match tokio::time::timeout(IDLE, whole).await {
            Ok(Ok(body)) => self.service.answer(Request::from_parts(head, body)).await,
            Ok(Err(_)) => plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request's body is too large or broke off",
            ),
            Err(_) => plain(
                StatusCode::REQUEST_TIMEOUT,
                "the request's body did not arrive in time",
            ),
        }
    }
}

/// An answer that is one sentence.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// An answer that is JSON.
pub(crate) fn json(content_type: &'static str, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            let value = header::HeaderValue::from_static(content_type);
            response.headers_mut().insert(header::CONTENT_TYPE, value);
            response
        }
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer cannot be written",
        ),
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ServeError> {
    let failed = |why: String| ServeError::Tls {
        certificate: tls.certificate.display().to_string(),
        key: tls.key.display().to_string(),
        why,
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| failed(error.to_string()))?;
    let chain = certificates(&tls.certificate).map_err(failed)?;
    let builder = match &tls.client_authorities {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path).map_err(failed)? {
                roots
                    .add(certificate)
                    .map_err(|error| failed(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .map_err(|error| failed(error.to_string()))?;
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|error| failed(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}", path.display()))
}
