// SPDX-License-Identifier: Apache-2.0
//! One request to a registry: retries, redirects, authorisation, caps.
//!
//! ```text
//! send        temporary failures are tried again, after a growing pause or
//!  │          the one that the registry asks for
//!  └ once     a 401 is answered with a token (a fresh one, once)
//!     └ hop   redirects are followed by our rules; the Authorization header
//!             goes to the registry's origin and the repository's paths only
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use gantry_oci::{Host, Limits, Reference, Repository as RepositoryName};
use gantry_trust::lookaside::Base;
use gantry_trust::registries_d::RegistriesD;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Response, Url};
use tokio::sync::OnceCell;

use super::auth::{self, AuthError, Scope, Token};
use super::challenge::{self, Challenge};
use super::credentials::{self, Credentials};
use super::error::{RegistryError, is_temporary_status, parse_reasons};
use super::redirect::{self, Origin};
use super::tls::{CertificatePlaces, Clients};

/// Whether a registry must prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVerify {
    /// It must, but a loopback address may speak plain HTTP.
    #[default]
    Default,
    /// It must, loopback or not (`--tls-verify=true`).
    Required,
    /// It need not, and may speak plain HTTP (`--tls-verify=false`).
    Off,
}

/// Which credentials are used.
#[derive(Debug, Clone, Default)]
pub enum Login {
    /// Those that the files have.
    #[default]
    Search,
    /// None, whatever the files have.
    Anonymous,
    /// These.
    Given(Credentials),
    /// This bearer token, as it is.
    Token(String),
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often after the first time.
    pub attempts: u32,
    /// The first pause; each further one is twice as long.
    pub delay: Duration,
    /// The longest pause; a registry that asks for more is given up.
    pub longest_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            delay: Duration::from_millis(300),
            longest_delay: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// The pause before attempt `number`, from 1.
    #[must_use]
    pub fn pause(&self, number: u32) -> Duration {
        let factor = 1_u32 << number.saturating_sub(1).min(16);
        self.delay.saturating_mul(factor).min(self.longest_delay)
    }
}

/// How slow a registry may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Until an answer begins.
    pub answer: Duration,
    /// Until an answer to a committed manifest begins: the registry may
    /// unpack and scan first.
    pub commit: Duration,
    /// Until a small body (manifest, token, tag list) has ended.
    pub small_body: Duration,
    /// A blob must bring `window_bytes` in each `window`, however long it takes in all.
    pub window: Duration,
    /// See `window`.
    pub window_bytes: u64,
    /// Before a token that was refused as invalid is asked for once more: two
    /// servers' clocks may be a second apart.
    pub token_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            commit: Duration::from_secs(30 * 60),
            small_body: Duration::from_secs(120),
            window: Duration::from_secs(30),
            window_bytes: 64 << 10,
            token_pause: Duration::from_secs(2),
        }
    }
}

/// How to speak to one registry.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether it must prove who it is.
    pub tls_verify: TlsVerify,
    /// Where certificates lie.
    pub certificates: CertificatePlaces,
    /// Which credentials are used.
    pub login: Login,
    /// Where credentials lie, in the order of the search.
    pub auth_files: Vec<PathBuf>,
    /// Hosts whose token services may see credentials of any registry.
    pub trusted_realms: Vec<String>,
    /// When to try again.
    pub retry: RetryPolicy,
    /// How slow it may be.
    pub pace: Pace,
    /// Caps on what it sends.
    pub limits: Limits,
    /// How we introduce ourselves; `gantry/<version>` if empty.
    pub user_agent: String,
    /// Where signatures are kept beside it.
    pub lookaside: LookasidePlaces,
}

/// Where signatures are kept outside of registries.
#[derive(Debug, Clone, Default)]
pub struct LookasidePlaces {
    /// What `registries.d` says.
    pub configured: Arc<RegistriesD>,
    /// Where they are if it says nothing.
    pub default: Option<Base>,
}

impl LookasidePlaces {
    /// Where the signatures of a reference are read.
    #[must_use]
    pub fn reads(&self, reference: &Reference) -> Option<&Base> {
        self.configured
            .lookaside(reference)
            .or(self.default.as_ref())
    }

    /// Whether sigstore's signatures are attached in the registry.
    pub(crate) fn attaches(&self, reference: &Reference) -> bool {
        self.configured.uses_sigstore_attachments(reference)
    }

    /// Where the signatures of a reference are written.
    pub(crate) fn writes(&self, reference: &Reference) -> Option<&Base> {
        self.configured.staging(reference).or(self.default.as_ref())
    }
}

/// Caps of this protocol, beside those of [`Limits`].
const TOKEN_BYTES: u64 = 1 << 20;
const ERROR_BYTES: u64 = 64 << 10;

/// A registry: its host, our connections to it, and who we are there.
///
/// Cheap to clone; clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Host,
    options: Options,
    clients: Clients,
    base: OnceCell<Url>,
    /// Whether it keeps signatures itself.
    keeps_signatures: OnceCell<bool>,
    tokens: Mutex<HashMap<Scope, Token>>,
    /// Whether the registry asked for Basic; then every request carries it.
    basic: Mutex<bool>,
    found: Mutex<HashMap<RepositoryName, Option<Credentials>>>,
}

/// One repository of a registry.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) registry: Registry,
    pub(crate) name: RepositoryName,
}

impl Repository {
    /// `host/repository`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.registry.host(), self.name)
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn scope(&self, actions: &'static str) -> Scope {
        Scope {
            repository: self.name.clone(),
            actions,
            mount_from: None,
        }
    }

    /// The address of something below `/v2/<name>/`. `tail` is made of parsed
    /// digests, tags and fixed words only.
    pub(crate) async fn url(&self, tail: &str) -> Result<Url, RegistryError> {
        self.url_below("/v2", tail).await
    }

    /// The same below another top than `/v2`.
    pub(crate) async fn url_below(&self, top: &str, tail: &str) -> Result<Url, RegistryError> {
        let base = self.registry.base().await?;
        base.join(&format!("{top}/{}/{tail}", self.name))
            .map_err(|error| RegistryError::Malformed {
                what: format!("address {}", self.full_name()),
                why: error.to_string(),
            })
    }
}

/// One request, without a body that would have to be streamed.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// For messages: "fetch manifest …".
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) scope: Scope,
    /// Until the answer begins; the pace's `answer` if `None`.
    pub(crate) patience: Option<Duration>,
}

impl Request {
    pub(crate) fn new(what: String, method: Method, url: Url, scope: Scope) -> Self {
        Self {
            what,
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            scope,
            patience: None,
        }
    }

    pub(crate) fn header(
        mut self,
        name: header::HeaderName,
        value: &str,
    ) -> Result<Self, RegistryError> {
        let value = HeaderValue::from_str(value).map_err(|_| RegistryError::Malformed {
            what: self.what.clone(),
            why: format!("{name} cannot carry {:?}", super::error::printable(value)),
        })?;
        self.headers.append(name, value);
        Ok(self)
    }
}

/// What a 401 led to.
enum Answer {
    /// Send the request again.
    Again,
    /// Send the request again after this pause: the token was fresh.
    AgainLater(Duration),
}

impl Registry {
    /// A registry by its host. No connection is made.
    #[must_use]
    pub fn new(host: Host, mut options: Options) -> Self {
        if options.user_agent.is_empty() {
            options.user_agent = concat!("gantry/", env!("CARGO_PKG_VERSION")).to_owned();
        }
        let clients = Clients::new(options.certificates.clone(), options.user_agent.clone());
        Self(Arc::new(Inner {
            host,
            options,
            clients,
            base: OnceCell::new(),
            keeps_signatures: OnceCell::new(),
            tokens: Mutex::default(),
            basic: Mutex::default(),
            found: Mutex::default(),
        }))
    }

    /// One of its repositories.
    #[must_use]
    pub fn repository(&self, name: RepositoryName) -> Repository {
        Repository {
            registry: self.clone(),
            name,
        }
    }

    /// The host, as references spell it.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// How we speak to it.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Scheme, host and port; finds out whether it speaks TLS, where that is open.
    pub(crate) async fn base(&self) -> Result<&Url, RegistryError> {
        self.0.base.get_or_try_init(|| self.find_base()).await
    }

    async fn find_base(&self) -> Result<Url, RegistryError> {
        let host = match self.0.host.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let url = |scheme: &str| {
            format!("{scheme}://{host}/")
                .parse::<Url>()
                .map_err(|error| RegistryError::Malformed {
                    what: format!("address registry {host}"),
                    why: error.to_string(),
                })
        };
        let (first, second) = match (self.0.options.tls_verify, self.0.host.is_loopback()) {
            (TlsVerify::Required, _) | (TlsVerify::Default, false) => return url("https"),
            (TlsVerify::Default | TlsVerify::Off, true) => (url("http")?, url("https")?),
            (TlsVerify::Off, false) => (url("https")?, url("http")?),
        };
        let mut failures = 0;
        loop {
            let error = match self.probe(&first).await {
                Ok(true) => return Ok(first),
                Ok(false) => return Ok(second),
                Err(error) => error,
            };
            if self.probe(&second).await.is_ok() {
                return Ok(second);
            }
            failures += 1;
            if failures > self.0.options.retry.attempts || !error.is_temporary() {
                return Err(error);
            }
            self.pause_before_retry(failures, &error).await?;
        }
    }

    /// Whether a server answers here in the right protocol. Sends no secret.
    async fn probe(&self, base: &Url) -> Result<bool, RegistryError> {
        let what = || format!("reach registry {}", self.0.host);
        let url = base
            .join("/v2/")
            .map_err(|error| RegistryError::Malformed {
                what: what(),
                why: error.to_string(),
            })?;
        let request = self.client(&url)?.get(url);
        let response = self
            .await_head(request, &what(), self.0.options.pace.answer)
            .await?;
        // A TLS server says 400 to plain HTTP.
        Ok(response.status() != StatusCode::BAD_REQUEST)
    }

    /// Whether the registry says that it keeps signatures. It says so to
    /// everybody, before it asks who we are.
    pub(crate) async fn keeps_signatures(&self, scope: Scope) -> Result<bool, RegistryError> {
        let ask = || async move {
            let what = format!("ask registry {} what it can do", self.0.host);
            let url =
                self.base()
                    .await?
                    .join("/v2/")
                    .map_err(|error| RegistryError::Malformed {
                        what: what.clone(),
                        why: error.to_string(),
                    })?;
            let response = self.send_unknown(&what, url, scope).await?;
            let header = response.headers().get("x-registry-supports-signatures");
            Ok(header.is_some_and(|value| value.as_bytes() == b"1"))
        };
        self.0.keeps_signatures.get_or_try_init(ask).await.copied()
    }

    /// Fetches a small thing from an address that may be any server's: no
    /// secret goes along. `None` if there is none.
    pub(crate) async fn fetch_elsewhere(
        &self,
        what: &str,
        url: Url,
        scope: Scope,
        limit_bytes: u64,
    ) -> Result<Option<Bytes>, RegistryError> {
        let response = self.send_unknown(what, url, scope).await?;
        match response.status() {
            StatusCode::OK => self.read_small(response, limit_bytes, what).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.status_error(response, what).await),
        }
    }

    /// Sends a GET without saying who we are, until there is an answer that is
    /// not a temporary failure.
    async fn send_unknown(
        &self,
        what: &str,
        url: Url,
        scope: Scope,
    ) -> Result<Response, RegistryError> {
        let request = Request::new(what.to_owned(), Method::GET, url, scope);
        let mut failures = 0;
        loop {
            let error = match self.follow(&request, None).await {
                Ok(response) if is_temporary_status(response.status()) => {
                    self.status_error(response, what).await
                }
                Err(error) if error.is_temporary() => error,
                outcome => return outcome,
            };
            failures += 1;
            if failures > self.0.options.retry.attempts {
                return Err(error);
            }
            self.pause_before_retry(failures, &error).await?;
        }
    }

    fn client(&self, url: &Url) -> Result<reqwest::Client, RegistryError> {
        // Only the registry's own host is excused from proving itself.
        let own = url
            .host_str()
            .is_some_and(|host| host.eq_ignore_ascii_case(self.0.host.name()));
        let verify = !(own && self.0.options.tls_verify == TlsVerify::Off);
        self.0.clients.get(url, verify)
    }

    async fn await_head(
        &self,
        request: reqwest::RequestBuilder,
        what: &str,
        patience: Duration,
    ) -> Result<Response, RegistryError> {
        match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(RegistryError::Http {
                what: what.into(),
                source: source.into(),
            }),
            Err(_) => Err(RegistryError::Stalled {
                what: what.into(),
                after: patience,
            }),
        }
    }

    /// Sends a request until there is an answer that is not a temporary
    /// failure. The caller judges its status.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, RegistryError> {
        let mut failures = 0;
        loop {
            let error = match self.send_once(request).await {
                Ok(response) if is_temporary_status(response.status()) => {
                    self.status_error(response, &request.what).await
                }
                Err(error) if error.is_temporary() => error,
                outcome => return outcome,
            };
            failures += 1;
            if failures > self.0.options.retry.attempts {
                return Err(error);
            }
            self.pause_before_retry(failures, &error).await?;
        }
    }

    /// Waits before attempt `number` after `error`.
    pub(crate) async fn pause_before_retry(
        &self,
        number: u32,
        error: &RegistryError,
    ) -> Result<(), RegistryError> {
        let retry = &self.0.options.retry;
        let pause = retry
            .pause(number)
            .max(error.retry_after().unwrap_or_default());
        if pause > retry.longest_delay {
            return Err(RegistryError::WaitTooLong {
                what: what_of(error),
                wait: pause,
            });
        }
        tracing::debug!(attempt = number, pause_ms = pause.as_millis(), %error, "try again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends a request once, for what is only a courtesy.
    pub(crate) async fn send_once_quietly(&self, request: &Request) -> Result<(), RegistryError> {
        self.send_once(request).await.map(drop)
    }

    async fn send_once(&self, request: &Request) -> Result<Response, RegistryError> {
        let mut challenged = 0;
        loop {
            let authorization = self.authorization(&request.scope);
            let response = self.follow(request, authorization.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED || !self.is_own(response.url()) {
                return Ok(response);
            }
            challenged += 1;
            match self.answer_challenge(request, response, challenged).await? {
                Answer::Again => {}
                Answer::AgainLater(pause) => tokio::time::sleep(pause).await,
            }
        }
    }

    fn is_own(&self, url: &Url) -> bool {
        self.0
            .base
            .get()
            .is_some_and(|base| Origin::of(base) == Origin::of(url))
    }

    /// Whether the credentials for `scope` may go to `url`.
    fn may_authorize(&self, url: &Url, scope: &Scope) -> bool {
        let below = |top: &str| {
            let of_repository = format!("{top}{}/", scope.repository);
            url.path().starts_with(&of_repository)
        };
        self.is_own(url) && (below("/v2/") || below("/extensions/v2/"))
    }

    /// Sends a request and follows redirects. A request with a body, or one
    /// that changes something, is redirected within the registry only.
    async fn follow(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        let mut url = request.url.clone();
        for _ in 0..=redirect::MOST_HOPS {
            let response = self.hop(request, &url, authorization).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let next = self.resolve_location(&response, &request.what)?;
            if !reads && (!self.is_own(&next) || !matches!(response.status().as_u16(), 307 | 308)) {
                return Err(RegistryError::Redirect {
                    what: request.what.clone(),
                    target: super::error::printable(next.as_str()),
                    why: "a request that changes something stays with the registry",
                });
            }
            url = next;
        }
        Err(RegistryError::Redirect {
            what: request.what.clone(),
            target: super::error::printable(url.as_str()),
            why: "there were too many redirects",
        })
    }

    async fn hop(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut builder = self
            .client(url)?
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone())
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(authorization) =
            authorization.filter(|_| self.may_authorize(url, &request.scope))
        {
            builder = builder.header(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let patience = request.patience.unwrap_or(self.0.options.pace.answer);
        self.await_head(builder, &request.what, patience).await
    }

    /// Sends a request whose body is a stream: once, with the token at hand,
    /// following nothing.
    pub(crate) async fn send_stream(
        &self,
        request: &Request,
        body: reqwest::Body,
    ) -> Result<Response, RegistryError> {
        let mut builder = self
            .client(&request.url)?
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone())
            .body(body);
        let authorization = self.authorization(&request.scope);
        if let Some(authorization) =
            authorization.filter(|_| self.may_authorize(&request.url, &request.scope))
        {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        // The stream has deadlines of its own; the answer comes after its end.
        builder.send().await.map_err(|source| RegistryError::Http {
            what: request.what.clone(),
            source: source.into(),
        })
    }

    /// Where an answer sends us, if our rules allow it.
    pub(crate) fn resolve_location(
        &self,
        response: &Response,
        what: &str,
    ) -> Result<Url, RegistryError> {
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| RegistryError::Malformed {
                what: what.into(),
                why: format!(
                    "the registry answers {} without a usable Location",
                    response.status()
                ),
            })?;
        redirect::resolve(response.url(), location).map_err(|why| RegistryError::Redirect {
            what: what.into(),
            target: super::error::printable(location),
            why,
        })
    }

    /// The header for a scope, if we know one already.
    fn authorization(&self, scope: &Scope) -> Option<HeaderValue> {
        const MARGIN: Duration = Duration::from_secs(10);
        if let Login::Token(token) = &self.0.options.login {
            return bearer_header(token);
        }
        let mut tokens = self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.get(scope) {
            Some(token) if token.expires > Instant::now() + MARGIN => {
                return bearer_header(&token.value);
            }
            Some(_) => drop(tokens.remove(scope)),
            None => {}
        }
        drop(tokens);
        if !*self.0.basic.lock().unwrap_or_else(PoisonError::into_inner) {
            return None;
        }
        let found = self.0.found.lock().unwrap_or_else(PoisonError::into_inner);
        match found.get(&scope.repository) {
            Some(Some(Credentials::Basic { username, password })) => {
                basic_header(username, password)
            }
            _ => None,
        }
    }

    /// Answers a 401: fetches a token, or decides for Basic.
    async fn answer_challenge(
        &self,
        request: &Request,
        response: Response,
        challenged: u32,
    ) -> Result<Answer, RegistryError> {
        let auth_error = |source| RegistryError::Auth {
            what: request.what.clone(),
            source: Box::new(source),
        };
        let scope = &request.scope;
        let challenge = challenge::parse(response.headers()).into_iter().next();
        let carried = self.authorization(scope).is_some();
        let credentials = self.credentials(&scope.repository).await?;
        let refused = |why: String| {
            let repository = scope.repository.clone();
            if credentials.is_some() || matches!(self.0.options.login, Login::Token(_)) {
                auth_error(AuthError::Rejected { repository, why })
            } else {
                auth_error(AuthError::NoCredentials {
                    host: self.0.host.to_string(),
                    repository,
                })
            }
        };
        let Some(challenge) = challenge else {
            return Err(self.status_error(response, &request.what).await);
        };
        let why = || super::error::printable(&response_words(&challenge));
        if matches!(self.0.options.login, Login::Token(_)) {
            return Err(refused(why()));
        }
        match &challenge {
            Challenge::Basic => {
                if carried || !matches!(credentials, Some(Credentials::Basic { .. })) {
                    return Err(refused(why()));
                }
                *self.0.basic.lock().unwrap_or_else(PoisonError::into_inner) = true;
                Ok(Answer::Again)
            }
            Challenge::Bearer {
                realm,
                service,
                error,
            } => {
                // A token that was not taken is fetched anew: at once, since it
                // may have expired, and a last time after a pause, since it
                // may not be valid yet.
                if challenged > 2 || carried && error.as_deref() == Some("insufficient_scope") {
                    return Err(refused(why()));
                }
                let token = self
                    .fetch_token(realm, service.as_deref(), scope, credentials.as_ref())
                    .await
                    .map_err(auth_error)?;
                self.0
                    .tokens
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(scope.clone(), token);
                Ok(match challenged {
                    1 => Answer::Again,
                    _ => Answer::AgainLater(self.0.options.pace.token_pause),
                })
            }
        }
    }

    /// The credentials for a repository; looked up once.
    async fn credentials(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<Credentials>, RegistryError> {
        let known = self
            .0
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(repository)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = match &self.0.options.login {
            Login::Anonymous | Login::Token(_) => None,
            Login::Given(credentials) => Some(credentials.clone()),
            Login::Search => {
                let (files, host, name) = (
                    self.0.options.auth_files.clone(),
                    self.0.host.to_string(),
                    repository.clone(),
                );
                tokio::task::spawn_blocking(move || credentials::find(&files, &host, &name))
                    .await
                    .map_err(|error| RegistryError::Config {
                        what: "look for credentials".into(),
                        why: error.to_string(),
                    })??
            }
        };
        self.0
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(repository.clone(), found.clone());
        Ok(found)
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &Scope,
        credentials: Option<&Credentials>,
    ) -> Result<Token, AuthError> {
        let registry = self.0.base.get().ok_or(AuthError::Malformed {
            realm_host: String::new(),
            why: "the registry's address is not known yet",
        })?;
        let mut url = auth::parse_realm(realm, registry)?;
        let own = auth::is_own_realm(registry, &url, &self.0.options.trusted_realms);
        let credentials_sent = credentials.filter(|_| own);
        let realm_host = url.host_str().unwrap_or_default().to_owned();
        let unreachable = |source: super::error::HttpError| AuthError::Unreachable {
            realm_host: realm_host.clone(),
            source,
        };
        let client = self.client(&url).map_err(|_| AuthError::Malformed {
            realm_host: realm_host.clone(),
            why: "its certificates cannot be read",
        })?;
        let mut fields: Vec<(&str, String)> = service
            .iter()
            .map(|service| ("service", (*service).to_owned()))
            .collect();
        let request = if let Some(Credentials::IdentityToken(token)) = credentials_sent {
            fields.extend([
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", "gantry".to_owned()),
                ("scope", scope.words().join(" ")),
                ("refresh_token", token.clone()),
            ]);
            let form = url_encode(&fields);
            client
                .post(url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form)
        } else {
            fields.extend(scope.words().into_iter().map(|words| ("scope", words)));
            if let Some(Credentials::Basic { username, .. }) = credentials_sent {
                fields.push(("account", username.clone()));
            }
            url.query_pairs_mut().extend_pairs(&fields);
            let request = client.get(url);
            match credentials_sent {
                Some(Credentials::Basic { username, password }) => {
                    match basic_header(username, password) {
                        Some(value) => request.header(header::AUTHORIZATION, value),
                        None => request,
                    }
                }
                _ => request,
            }
        };
        let what = format!("fetch a token from {realm_host}");
        let response = match self
            .await_head(request, &what, self.0.options.pace.answer)
            .await
        {
            Ok(response) => response,
            Err(RegistryError::Http { source, .. }) => return Err(unreachable(source)),
            Err(_) => {
                return Err(AuthError::Status {
                    realm_host,
                    status: StatusCode::GATEWAY_TIMEOUT,
                });
            }
        };
        // A redirect is not followed: it would have to be judged like a realm.
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) {
            let repository = scope.repository.clone();
            let host = self.0.host.to_string();
            return Err(match (credentials, own) {
                (Some(_), true) => AuthError::Rejected {
                    repository,
                    why: format!("its token service answers {status}"),
                },
                (Some(_), false) => AuthError::Withheld { host, realm_host },
                (None, _) => AuthError::NoCredentials { host, repository },
            });
        }
        if status != StatusCode::OK {
            return Err(AuthError::Status { realm_host, status });
        }
        let body =
            match read_body(response, TOKEN_BYTES, &what, self.0.options.pace.small_body).await {
                Ok(body) => body,
                Err(RegistryError::Http { source, .. }) => return Err(unreachable(source)),
                Err(_) => {
                    return Err(AuthError::Malformed {
                        realm_host,
                        why: "its answer is too large or too slow",
                    });
                }
            };
        auth::parse_token(&body, Instant::now())
            .map_err(|why| AuthError::Malformed { realm_host, why })
    }

    /// Reads a small body, at most `limit_bytes`.
    pub(crate) async fn read_small(
        &self,
        response: Response,
        limit_bytes: u64,
        what: &str,
    ) -> Result<Bytes, RegistryError> {
        read_body(response, limit_bytes, what, self.0.options.pace.small_body).await
    }

    /// Turns an answer that is not the one wanted into an error with the
    /// registry's reasons.
    pub(crate) async fn status_error(&self, response: Response, what: &str) -> RegistryError {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let patience = self.0.options.pace.small_body.min(Duration::from_secs(10));
        // Reasons are a courtesy; an answer without them is still an answer.
        let reasons = match read_body(response, ERROR_BYTES, what, patience).await {
            Ok(body) => parse_reasons(&body),
            Err(_) => Vec::new(),
        };
        RegistryError::Status {
            what: what.into(),
            status,
            reasons,
            retry_after,
        }
    }
}

fn what_of(error: &RegistryError) -> String {
    match error {
        RegistryError::Status { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

fn response_words(challenge: &Challenge) -> String {
    match challenge {
        Challenge::Bearer {
            error: Some(error), ..
        } => error.clone(),
        _ => String::new(),
    }
}

fn bearer_header(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn basic_header(username: &str, password: &str) -> Option<HeaderValue> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    sensitive(&format!("Basic {pair}"))
}

/// A header value that is never printed, nor kept in a compression table.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn url_encode(fields: &[(&str, String)]) -> String {
    let mut scratch = Url::parse("http://form/").ok();
    scratch.as_mut().map_or_else(String::new, |url| {
        url.query_pairs_mut().extend_pairs(fields);
        url.query().unwrap_or_default().to_owned()
    })
}

/// How long the registry asks us to wait: seconds, or a date, which is taken
/// relative to the answer's own `Date` so that our clock does not matter.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: header::HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let value = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = super::tags::http_date_seconds(value)?;
    let now = super::tags::http_date_seconds(text(header::DATE)?)?;
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// Reads a body to its end, within a cap and a deadline.
async fn read_body(
    mut response: Response,
    limit_bytes: u64,
    what: &str,
    patience: Duration,
) -> Result<Bytes, RegistryError> {
    let too_large = || RegistryError::TooLarge {
        what: what.into(),
        limit_bytes,
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit_bytes)
    {
        return Err(too_large());
    }
    let all = async {
        let mut body = Vec::new();
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|source| RegistryError::Http {
                    what: what.into(),
                    source: source.into(),
                })?;
            let Some(chunk) = chunk else {
                return Ok(Bytes::from(body));
            };
            if (body.len() as u64).saturating_add(chunk.len() as u64) > limit_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
    };
    match tokio::time::timeout(patience, all).await {
        Ok(outcome) => outcome,
        Err(_) => Err(RegistryError::Stalled {
            what: what.into(),
            after: patience,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retry = RetryPolicy {
            attempts: 9,
            delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(5),
        };
        let pauses: Vec<u64> = (1..=5)
            .map(|number| retry.pause(number).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(retry.pause(u32::MAX).as_secs(), 5);
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            headers.insert(
                header::DATE,
                "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap(),
            );
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("0"), Some(0));
        assert_eq!(wait("1000000000"), Some(1_000_000_000));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1993 08:50:37 GMT"), Some(0));
        for garbage in ["soon", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(wait(garbage), None, "{garbage}");
        }
    }
}
