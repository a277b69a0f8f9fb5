// SPDX-License-Identifier: Apache-2.0
//! A Docker authorization plug-in: dockerd asks about each call of its API.
//!
//! ```text
//!  client ── POST /containers/create ──▶ dockerd ── AuthZReq {method, target, body} ──▶ call ── create ─┐
//!                                          ▲                                                            │ image's name
//!                                          └────────────── GET /images/NAME/json ◀── daemon ◀───────────┘
//!                                             ID, digests ──▶ origin ──▶ Asked ──▶ Clerk ──▶ allow or not
//!  client ── POST /containers/ID/start ──▶ the same again, from the container's image ID
//! ```
//!
//! The creation is judged so that a user hears no early; the start is judged
//! because it decides: a container keeps the image ID that it was made of,
//! whatever has happened to names since.
//!
//! # Source
//! Docker Engine "Access authorization plugin", "Docker Plugin API".

pub mod call;
pub mod create;
pub mod daemon;
pub mod names;
pub mod origin;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::decision::{Answer, Case, Clerk, Finding};
use crate::judge::Asked;
use crate::serve::{Service, json, plain};
use call::Call;
use daemon::{AskDaemonError, ContainerFacts, Daemon};
use names::{Names, Use};

const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// How to be a plug-in.
#[derive(Debug, Clone)]
pub struct Options {
    /// The socket of the daemon's API.
    pub daemon: PathBuf,
    /// Whether builds may run, which run images that nobody judges.
    pub builds: bool,
}

/// The plug-in.
#[derive(Debug)]
pub struct DockerAuthz {
    clerk: Arc<Clerk>,
    daemon: Daemon,
    builds: bool,
    names: Names,
}

/// What dockerd says of a call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AuthzRequest {
    #[serde(default)]
    user: String,
    request_method: String,
    request_uri: String,
    #[serde(default)]
    request_body: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AuthzResponse {
    allow: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    msg: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Activation {
    implements: [&'static str; 1],
}

impl DockerAuthz {
    /// A plug-in; no connection is made.
    #[must_use]
    pub fn new(clerk: Arc<Clerk>, options: Options) -> Self {
        Self {
            clerk,
            daemon: Daemon {
                socket: options.daemon,
            },
            builds: options.builds,
            names: Names::default(),
        }
    }

    /// Whether a call may happen.
    async fn request(&self, asked: &AuthzRequest) -> AuthzResponse {
        let call = Call::read(&asked.request_method, &asked.request_uri);
        let line = format!("{} {}", asked.request_method, asked.request_uri);
        if matches!(call, Call::Passes) {
            return AuthzResponse::allowed();
        }
        let case = Case {
            entry: entry(&call),
            // A query may hold what is nobody's business, like the arguments of a build.
            subject: line.split('?').next().unwrap_or_default().to_owned(),
            user: Some(asked.user.clone()).filter(|user| !user.is_empty()),
            namespace: None,
        };
        let mut held = false;
        let answer = match call {
            Call::FreesNames => {
                // Nothing to judge, and nothing to write down.
                let limit = self.clerk.bounds().deadline;
                match tokio::time::timeout(limit, self.names.begin(Use::Changes, &line)).await {
                    Ok(()) => return AuthzResponse::allowed(),
                    Err(_) => {
                        let busy = "a container is being started by its name; try again";
                        self.clerk
                            .decide(case, async { Finding::Refused(busy.to_owned()) })
                            .await
                    }
                }
            }
            call => {
                let find = self.find(call, asked, &line, &mut held);
                self.clerk.decide(case, find).await
            }
        };
        if held && !answer.allowed {
            self.names.end(&line).await;
        }
        AuthzResponse::from(answer)
    }

    async fn find(&self, call: Call, asked: &AuthzRequest, line: &str, held: &mut bool) -> Finding {
        match call {
            Call::Passes | Call::FreesNames => Finding::Harmless("no image is run".to_owned()),
            Call::Refused(reason) => Finding::Refused(reason.to_owned()),
            Call::Builds if self.builds => {
                Finding::Harmless("builds are allowed, whatever images they run".to_owned())
            }
            Call::Builds => Finding::Refused(
                "a build runs images that its instructions name, and these cannot be judged"
                    .to_owned(),
            ),
            Call::CreatesContainer { named_as_id } => {
                if named_as_id {
                    self.names.begin(Use::Changes, line).await;
                    *held = true;
                }
                self.created(asked.request_body.as_deref()).await
            }
            Call::StartsContainer { container } => {
                if !is_whole_id(&container) {
                    self.names.begin(Use::Starts, line).await;
                    *held = true;
                }
                self.started(&container)
                    .await
                    .map_or_else(Finding::Refused, Finding::Judged)
            }
        }
    }

    async fn created(&self, body: Option<&str>) -> Finding {
        let body = match STANDARD.decode(body.unwrap_or_default()) {
            Ok(body) => body,
            Err(error) => return Finding::Refused(format!("read the request's body: {error}")),
        };
        let wanted = match create::read(&body) {
            Ok(wanted) => wanted,
            Err(unclear) => return Finding::Refused(unclear),
        };
        let mut images = Vec::new();
        for name in std::iter::once(&wanted.image).chain(&wanted.mounted) {
            match self.origins(name).await {
                Ok(alternatives) => images.push(alternatives),
                // The client pulls it when it hears this from the daemon. If it comes in this very moment instead, the
                // container is made and its start is judged.
                Err(NoOrigin::Absent(reason)) if images.is_empty() => {
                    return Finding::Harmless(reason);
                }
                Err(NoOrigin::Absent(reason) | NoOrigin::Unclear(reason)) => {
                    return Finding::Refused(reason);
                }
            }
        }
        Finding::Judged(images)
    }

    async fn started(&self, name: &str) -> Result<Vec<Vec<Asked>>, String> {
        let container = self
            .daemon
            .container(name)
            .await
            .map_err(|error| error.to_string())?;
        check_name(name, &container)?;
        // By ID, as names may have moved; then what its maker called it.
        let facts = self
            .daemon
            .image(&container.image.to_string())
            .await
            .map_err(|error| error.to_string())?;
        if facts.id != container.image {
            return Err(format!(
                "the daemon shows image {} for {}",
                facts.id, container.image
            ));
        }
        let mut images = vec![origin::alternatives(&container.image_name, &facts)?];
        for name in &container.mounted {
            let alternatives = self.origins(name).await.map_err(NoOrigin::into_reason)?;
            images.push(alternatives);
        }
        Ok(images)
    }

    async fn origins(&self, name: &str) -> Result<Vec<Asked>, NoOrigin> {
        match self.daemon.image(name).await {
            Ok(facts) => origin::alternatives(name, &facts).map_err(NoOrigin::Unclear),
            Err(error @ AskDaemonError::Absent { .. }) => Err(NoOrigin::Absent(error.to_string())),
            Err(error) => Err(NoOrigin::Unclear(error.to_string())),
        }
    }
}

enum NoOrigin {
    Absent(String),
    Unclear(String),
}

impl NoOrigin {
    fn into_reason(self) -> String {
        match self {
            Self::Absent(reason) | Self::Unclear(reason) => reason,
        }
    }
}

fn entry(call: &Call) -> &'static str {
    match call {
        Call::CreatesContainer { .. } => "docker-create",
        Call::StartsContainer { .. } => "docker-start",
        Call::Builds => "docker-build",
        Call::Passes | Call::FreesNames | Call::Refused(_) => "docker-call",
    }
}

fn is_whole_id(name: &str) -> bool {
    name.len() == 64 && call::is_hex(name)
}

/// Refuses a name that could come to mean another container before the daemon looks it up again.
fn check_name(name: &str, container: &ContainerFacts) -> Result<(), String> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let is_name = plain == container.name;
    let is_id = call::is_hex(plain) && container.id.starts_with(plain);
    if !is_name && !is_id {
        return Err(format!("the daemon takes {name:?} for another container"));
    }
    if is_name && container.is_removed_at_end {
        return Err(
            "the container gives its name away when it ends; start it by its whole ID".to_owned(),
        );
    }
    Ok(())
}

impl AuthzResponse {
    fn allowed() -> Self {
        Self {
            allow: true,
            msg: String::new(),
        }
    }
}

impl From<Answer> for AuthzResponse {
    fn from(answer: Answer) -> Self {
        Self {
            allow: answer.allowed,
            msg: answer.reason,
        }
    }
}

#[async_trait]
impl Service for DockerAuthz {
    async fn answer(&self, request: Request<Bytes>) -> Response<Body> {
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        }
        match request.uri().path() {
            "/Plugin.Activate" => json(
                CONTENT_TYPE,
                &Activation {
                    implements: ["authz"],
                },
            ),
            "/AuthZPlugin.AuthZReq" => match serde_json::from_slice(request.body()) {
                Ok(asked) => json(CONTENT_TYPE, &self.request(&asked).await),
                Err(_) => plain(StatusCode::BAD_REQUEST, "this is no authorization request"),
            },
            "/AuthZPlugin.AuthZRes" => match serde_json::from_slice::<AuthzRequest>(request.body())
            {
                Ok(asked) => {
                    let line = format!("{} {}", asked.request_method, asked.request_uri);
                    self.names.end(&line).await;
                    json(CONTENT_TYPE, &AuthzResponse::allowed())
                }
                Err(_) => plain(StatusCode::BAD_REQUEST, "this is no authorization request"),
            },
            _ => plain(StatusCode::NOT_FOUND, "no such method"),
        }
    }
}
