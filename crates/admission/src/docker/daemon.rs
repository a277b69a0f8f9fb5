// SPDX-License-Identifier: Apache-2.0
//! Questions to the daemon: which image is that, which container.
//!
//! Only GETs. The daemon asks the plug-in about each of them, which lets
//! reads pass without a second look, so that nothing here needs to be
//! recognised as our own.

use std::io;
use std::path::PathBuf;

use axum::body::Body;
use gantry_oci::ImageId;
use http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::UnixStream;

use super::create;

/// More than any image's or container's description has.
const ANSWER_BYTES: usize = 8 << 20;

/// The daemon's API, behind its socket.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// The socket.
    pub socket: PathBuf,
}

/// What the daemon says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its ID.
    pub id: ImageId,
    /// `repository@digest` in Docker's short form.
    pub digests: Vec<String>,
}

/// What the daemon says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its whole ID.
    pub id: String,
    /// Its name, without the slash in front.
    pub name: String,
    /// The ID of its image.
    pub image: ImageId,
    /// The image as its maker named it.
    pub image_name: String,
    /// Whether it is removed when it ends.
    pub is_removed_at_end: bool,
    /// The images that are mounted into it.
    pub mounted: Vec<String>,
}

/// Why the daemon's word could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskDaemonError {
    /// It has no such image or container.
    #[error("the daemon has no {what} {name:?}")]
    Absent {
        /// Image or container.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Nobody answers on the socket, or breaks off.
    #[error("ask the daemon: {0}")]
    Unreachable(String),
    /// It answers something else.
    #[error("the daemon's answer makes no sense: {0}")]
    Senseless(String),
}

fn unreachable(error: impl std::fmt::Display) -> AskDaemonError {
    AskDaemonError::Unreachable(error.to_string())
}

fn senseless(error: impl std::fmt::Display) -> AskDaemonError {
    AskDaemonError::Senseless(error.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawImage {
    id: String,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawContainer {
    id: String,
    name: String,
    image: String,
    config: RawConfig,
    host_config: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    image: String,
}

impl Daemon {
    /// What is meant by `name`, by the daemon's own rules of names and IDs.
    pub async fn image(&self, name: &str) -> Result<ImageFacts, AskDaemonError> {
        let raw: RawImage =
            serde_json::from_slice(&self.get("image", name).await?).map_err(senseless)?;
        Ok(ImageFacts {
            id: raw.id.parse().map_err(senseless)?,
            digests: raw.repo_digests.unwrap_or_default(),
        })
    }

    /// What is meant by `name`, by the daemon's own rules of names and IDs.
    pub async fn container(&self, name: &str) -> Result<ContainerFacts, AskDaemonError> {
        let raw: RawContainer =
            serde_json::from_slice(&self.get("container", name).await?).map_err(senseless)?;
        let auto_remove = match raw.host_config.get("AutoRemove") {
            None => false,
            Some(value) => value
                .as_bool()
                .ok_or_else(|| senseless("AutoRemove is neither true nor false"))?,
        };
        Ok(ContainerFacts {
            id: raw.id,
            name: raw.name.trim_start_matches('/').to_owned(),
            image: raw.image.parse().map_err(senseless)?,
            image_name: raw.config.image,
            is_removed_at_end: auto_remove,
            mounted: create::mounted(&raw.host_config).map_err(senseless)?,
        })
    }

    async fn get(&self, what: &'static str, name: &str) -> Result<bytes::Bytes, AskDaemonError> {
        let path = format!("/{what}s/{}/json", escape(name));
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error: io::Error| {
                unreachable(format_args!("{}: {error}", self.socket.display()))
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(unreachable)?;
        let request = Request::get(path)
            .header(header::HOST, "docker")
            .body(Body::empty())
            .map_err(senseless)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(unreachable)?;
            let status = response.status();
            let body = Body::new(response.into_body());
            let body = axum::body::to_bytes(body, ANSWER_BYTES)
                .await
                .map_err(senseless)?;
            match status {
                StatusCode::OK => Ok(body),
                StatusCode::NOT_FOUND => Err(AskDaemonError::Absent {
                    what,
                    name: name.to_owned(),
                }),
                other => Err(senseless(format_args!(
                    "status {other} for {what} {name:?}"
                ))),
            }
        };
        // The connection ends with the exchange: nothing runs on when the caller gives up.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                // All that was sent has been read; the answer is in the exchange's hands.
                Ok(()) => exchange.await,
                Err(error) => Err(unreachable(error)),
            },
        }
    }
}

/// A name as one or more segments of a path, so that the daemon decodes exactly this name.
fn escape(name: &str) -> String {
    use std::fmt::Write as _;
    name.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => write!(out, "%{byte:02X}").unwrap_or_default(),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(
            escape("registry.example:5000/a@sha256:0?x#y z"),
            "registry.example%3A5000/a%40sha256%3A0%3Fx%23y%20z"
        );
    }
}
