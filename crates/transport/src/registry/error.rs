// SPDX-License-Identifier: Apache-2.0
//! Why a registry could not be used.

use std::time::Duration;

use gantry_image::EndpointError;
use gantry_oci::Kind;
use http::StatusCode;

/// A failure of the HTTP client, shown by its innermost cause alone: the
/// layers above say no more than that there was a request.
#[derive(Debug)]
pub struct HttpError(reqwest::Error);

impl HttpError {
    pub(crate) fn is_builder(&self) -> bool {
        self.0.is_builder()
    }
}

impl From<reqwest::Error> for HttpError {
    fn from(error: reqwest::Error) -> Self {
        // An address may carry a signature that is as good as a password.
        Self(error.without_url())
    }
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut innermost: &dyn std::error::Error = &self.0;
        while let Some(next) = innermost.source() {
            innermost = next;
        }
        f.write_str(&printable(&innermost.to_string()))
    }
}

impl std::error::Error for HttpError {}

/// Why a request to a registry did not lead to an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No connection, or one that broke.
    #[error("{what}")]
    Http {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: HttpError,
    },
    /// The registry said no.
    #[error("{what}: the registry answers {status}{}", reasons_suffix(.reasons))]
    Status {
        /// What was being done.
        what: String,
        /// The status.
        status: StatusCode,
        /// What its error body says, made printable.
        reasons: Vec<Reason>,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// A redirect or a `Location` that must not be followed.
    #[error("{what}: refuse to follow the registry to {target:?}: {why}")]
    Redirect {
        /// What was being done.
        what: String,
        /// Where to.
        target: String,
        /// The rule.
        why: &'static str,
    },
    /// The registry wants a longer pause than anybody would sit through.
    #[error("{what}: the registry asks to wait {} s", .wait.as_secs())]
    WaitTooLong {
        /// What was being done.
        what: String,
        /// How long.
        wait: Duration,
    },
    /// More bytes than the cap.
    #[error("{what}: the answer is larger than the {limit_bytes} bytes allowed")]
    TooLarge {
        /// What was being done.
        what: String,
        /// The cap.
        limit_bytes: u64,
    },
    /// Too few bytes in too much time.
    #[error("{what}: no progress for {} s", .after.as_secs())]
    Stalled {
        /// What was being done.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The answer makes no sense.
    #[error("{what}: {why}")]
    Malformed {
        /// What was being done.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// No token, or none that the registry takes.
    #[error("{what}")]
    Auth {
        /// What was being done.
        what: String,
        /// Why not.
        source: Box<super::auth::AuthError>,
    },
    /// Certificates or credentials on this host cannot be read.
    #[error("{what}: {why}")]
    Config {
        /// What was being read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration forbids this registry.
    #[error("registry {name} is blocked by configuration")]
    Blocked {
        /// The name as the user gave it.
        name: String,
    },
}

/// One entry of a distribution error body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `MANIFEST_UNKNOWN`, `DENIED`, …
    pub code: String,
    /// The sentence beside it.
    pub message: String,
    /// Further detail, where it is text.
    pub detail: String,
}

fn reasons_suffix(reasons: &[Reason]) -> String {
    let texts: Vec<String> = reasons
        .iter()
        .map(|reason| {
            let words = [&reason.code, &reason.message, &reason.detail];
            let words: Vec<&str> = words
                .into_iter()
                .map(String::as_str)
                .filter(|word| !word.is_empty())
                .collect();
            words.join(": ")
        })
        .collect();
    if texts.is_empty() {
        String::new()
    } else {
        format!(" ({})", texts.join("; "))
    }
}

/// Text from a registry, without characters that move a cursor, cut short.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// The reasons in an error body; empty if it is not of the specified form.
pub(crate) fn parse_reasons(body: &[u8]) -> Vec<Reason> {
    const MOST: usize = 8;
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Vec::new();
    };
    let Some(errors) = value.get("errors").and_then(|errors| errors.as_array()) else {
        return Vec::new();
    };
    let text = |entry: &serde_json::Value, member: &str| match entry.get(member) {
        Some(serde_json::Value::String(text)) => printable(text),
        Some(value @ (serde_json::Value::Array(_) | serde_json::Value::Object(_)))
            if member == "detail" =>
        {
            printable(&value.to_string())
        }
        _ => String::new(),
    };
    errors
        .iter()
        .take(MOST)
        .map(|entry| Reason {
            code: text(entry, "code"),
            message: text(entry, "message"),
            detail: text(entry, "detail"),
        })
        .collect()
}

impl RegistryError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Http { source, .. } if source.is_builder() => Kind::Internal,
            Self::Http { .. } | Self::WaitTooLong { .. } | Self::Stalled { .. } => {
                Kind::Unavailable
            }
            Self::Status { status, .. } => kind_of_status(*status),
            Self::Redirect { .. } | Self::TooLarge { .. } => Kind::Unsafe,
            Self::Malformed { .. } => Kind::Corrupt,
            Self::Auth { source, .. } => source.kind(),
            Self::Config { .. } => Kind::InvalidInput,
            Self::Blocked { .. } => Kind::Denied,
        }
    }

    /// Whether to try the same request again by itself.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Http { source, .. } => !source.is_builder(),
            Self::Stalled { .. } => true,
            Self::Status { status, .. } => is_temporary_status(*status),
            Self::Auth { source, .. } => source.is_temporary(),
            _ => false,
        }
    }

    /// How long the registry asks to wait before that.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Statuses after which the same request may succeed.
pub(crate) fn is_temporary_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn kind_of_status(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 | 407 | 451 => Kind::Denied,
        404 | 410 => Kind::NotFound,
        405 | 406 | 415 | 501 => Kind::Unsupported,
        409 => Kind::Busy,
        413 => Kind::Unsafe,
        507 => Kind::NoSpace,
        408 | 429 | 500..=599 => Kind::Unavailable,
        400..=499 => Kind::InvalidInput,
        _ => Kind::Corrupt,
    }
}

impl From<RegistryError> for EndpointError {
    fn from(error: RegistryError) -> Self {
        let kind = error.kind();
        let message = match &error {
            RegistryError::Http { what, .. } | RegistryError::Auth { what, .. } => what.clone(),
            other => other.to_string(),
        };
        match error {
            RegistryError::Http { source, .. } => Self::with_source(kind, message, source),
            RegistryError::Auth { source, .. } => Self::with_source(kind, message, source),
            _ => Self::new(kind, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_body_becomes_one_sentence() {
        let reasons = parse_reasons(
            br#"{"errors":[{"code":"DENIED","message":"scan: CVE-1","detail":["a"]},{"code":"X\u001b[1m"}]}"#,
        );
        let error = RegistryError::Status {
            what: "push manifest".into(),
            status: StatusCode::FORBIDDEN,
            reasons,
            retry_after: None,
        };
        assert_eq!(
            error.to_string(),
            "push manifest: the registry answers 403 Forbidden (DENIED: scan: CVE-1: [\"a\"]; X [1m)"
        );
        assert_eq!(error.kind(), Kind::Denied);
    }

    #[test]
    fn garbage_error_bodies_are_ignored() {
        for body in [
            &b"<html>"[..],
            b"",
            b"[]",
            b"{\"errors\":3}",
            b"{\"errors\":[3]}",
        ] {
            assert!(
                parse_reasons(body)
                    .iter()
                    .all(|reason| reason.code.is_empty())
            );
        }
    }
}
