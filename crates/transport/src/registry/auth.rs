// SPDX-License-Identifier: Apache-2.0
//! From a challenge to an `Authorization` header.
//!
//! # What is promised
//! A secret goes to the registry's own origin, or to its token service, and
//! only over TLS unless the registry itself is reached by plain HTTP. A token
//! service is the registry's own if it has the same origin, or if it is
//! reached by TLS on its usual port and its host lies in the domain that the
//! registry's host lies in (`auth.docker.io` for `registry-1.docker.io`).
//! Any other realm is asked without a secret; the caller may trust more by
//! [`Options::trusted_realms`](super::Options::trusted_realms).
//!
//! # Source
//! The token authentication specification of the Docker distribution
//! project; RFC 6749 §6 for refresh tokens.

use std::time::{Duration, Instant};

use gantry_oci::{Kind, Repository};
use http::StatusCode;
use reqwest::Url;
use serde::Deserialize;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The registry wants to know who we are, and we have nothing for it.
    #[error(
        "the registry requires a login for {repository}, and no credentials are configured for {host}"
    )]
    NoCredentials {
        /// The registry.
        host: String,
        /// The repository.
        repository: Repository,
    },
    /// What we have is not taken.
    #[error("the registry does not accept the credentials for {repository}{}", suffix(.why))]
    Rejected {
        /// The repository.
        repository: Repository,
        /// What it says.
        why: String,
    },
    /// The challenge leads from TLS to plain HTTP, or is not a URL.
    #[error("the registry names {realm:?} as its token service, which {why}")]
    Realm {
        /// As it was sent.
        realm: String,
        /// The rule.
        why: &'static str,
    },
    /// The token service is not the registry's own.
    #[error(
        "credentials are withheld from token service {realm_host}, which is not in the domain of registry {host}, \
         and it gives no token without"
    )]
    Withheld {
        /// The registry.
        host: String,
        /// The token service.
        realm_host: String,
    },
    /// The token service failed.
    #[error("token service {realm_host} answers {status}")]
    Status {
        /// The token service.
        realm_host: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The token service cannot be reached.
    #[error("reach token service {realm_host}")]
    Unreachable {
        /// The token service.
        realm_host: String,
        /// Why.
        source: super::error::HttpError,
    },
    /// The token service's answer makes no sense.
    #[error("token service {realm_host}: {why}")]
    Malformed {
        /// The token service.
        realm_host: String,
        /// What is wrong.
        why: &'static str,
    },
}

fn suffix(why: &str) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!(" ({why})")
    }
}

impl AuthError {
    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoCredentials { .. } | Self::Rejected { .. } | Self::Withheld { .. } => {
                Kind::Denied
            }
            Self::Realm { .. } => Kind::Unsafe,
            Self::Status { .. } | Self::Unreachable { .. } => Kind::Unavailable,
            Self::Malformed { .. } => Kind::Corrupt,
        }
    }

    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Status { status, .. } => super::error::is_temporary_status(*status),
            Self::Unreachable { .. } => true,
            _ => false,
        }
    }
}

/// What a request wants to do, and where: the right that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// The repository that the request is about.
    pub(crate) repository: Repository,
    /// `pull`, `pull,push`, `delete`.
    pub(crate) actions: &'static str,
    /// A repository of the same registry that a blob is mounted from.
    pub(crate) mount_from: Option<Repository>,
}

impl Scope {
    /// The words that the token service expects, one for each repository.
    pub(crate) fn words(&self) -> Vec<String> {
        let own = format!("repository:{}:{}", self.repository, self.actions);
        let from = self
            .mount_from
            .iter()
            .map(|from| format!("repository:{from}:pull"));
        std::iter::once(own).chain(from).collect()
    }
}

/// A token and until when we use it.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) value: String,
    pub(crate) expires: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Reads a token service's answer.
pub(crate) fn parse_token(body: &[u8], now: Instant) -> Result<Token, &'static str> {
    // What the specification says to assume, and less than any that it allows.
    const SHORTEST: u64 = 60;
    const LONGEST: u64 = 24 * 3600;
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_| "its answer is not of the expected form")?;
    let value = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token.filter(|token| !token.is_empty()))
        .ok_or("its answer has no token")?;
    if !value.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        return Err("its token has characters that no header can carry");
    }
    let life = answer
        .expires_in
        .unwrap_or(SHORTEST)
        .clamp(SHORTEST, LONGEST);
    Ok(Token {
        value,
        expires: now + Duration::from_secs(life),
    })
}

/// Checks a realm: a URL that the registry may send us to at all.
pub(crate) fn parse_realm(realm: &str, registry: &Url) -> Result<Url, AuthError> {
    let refuse = |why| AuthError::Realm {
        realm: super::error::printable(realm),
        why,
    };
    let absolute = Url::parse(realm).map_err(|_| refuse("is not a URL"))?;
    super::redirect::resolve(registry, absolute.as_str()).map_err(|why| match why {
        "it leads from TLS to plain HTTP" => refuse("is plain HTTP although the registry has TLS"),
        _ => refuse("is not an address to send a request to"),
    })
}

/// Whether a token service may see the registry's credentials.
pub(crate) fn is_own_realm(registry: &Url, realm: &Url, trusted: &[String]) -> bool {
    use super::redirect::Origin;
    if Origin::of(registry) == Origin::of(realm) {
        return true;
    }
    let (Some(registry_host), Some(realm_host)) = (registry.host_str(), realm.host_str()) else {
        return false;
    };
    if realm.scheme() != "https" {
        return false;
    }
    if trusted
        .iter()
        .any(|host| host.eq_ignore_ascii_case(realm_host))
    {
        return true;
    }
    let is_name = |host: &str| host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[');
    if realm.port().is_some() || !is_name(registry_host) || !is_name(realm_host) {
        return false;
    }
    parent_domain(registry_host)
        .is_some_and(|domain| realm_host == domain || realm_host.ends_with(&format!(".{domain}")))
}

/// The domain above a registry's host, if one owner can be assumed for it.
///
/// Without a list of public suffixes, what looks like one (`co.uk`) is left
/// out: two labels of which the first has at most three letters and the last
/// two.
fn parent_domain(host: &str) -> Option<&str> {
    let (_, parent) = host.split_once('.')?;
    let labels: Vec<&str> = parent.split('.').collect();
    match labels[..] {
        [_] => None,
        [second, top] if top.len() == 2 && second.len() <= 3 => None,
        _ => Some(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn table_of_realms_that_may_see_credentials() {
        for (registry, realm, own) in [
            (
                "https://r.example.org/v2/",
                "https://r.example.org/token",
                true,
            ),
            (
                "https://registry-1.docker.io",
                "https://auth.docker.io/token",
                true,
            ),
            (
                "https://registry.gitlab.com",
                "https://gitlab.com/jwt/auth",
                true,
            ),
            ("https://r.example.org", "https://evil.test/token", false),
            (
                "https://r.example.org",
                "https://r.example.org:444/token",
                false,
            ),
            (
                "https://r.example.org",
                "https://example.org.evil.test/token",
                false,
            ),
            (
                "https://r.example.org",
                "https://evilexample.org/token",
                false,
            ),
            ("https://shop.co.uk", "https://evil.co.uk/token", false),
            ("https://ghcr.io", "https://evil.io/token", false),
            ("https://10.0.0.1", "https://10.0.0.2/token", false),
            (
                "https://10.0.0.1:5000",
                "https://10.0.0.1:5001/token",
                false,
            ),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", true),
            (
                "http://127.0.0.1:5000",
                "http://127.0.0.1:5001/token",
                false,
            ),
            (
                "http://r.example.org",
                "http://auth.example.org/token",
                false,
            ),
        ] {
            assert_eq!(
                is_own_realm(&url(registry), &url(realm), &[]),
                own,
                "{registry} -> {realm}"
            );
        }
        let trusted = ["auth.evil.test".to_owned()];
        assert!(is_own_realm(
            &url("https://r.example.org"),
            &url("https://auth.evil.test/"),
            &trusted
        ));
        assert!(!is_own_realm(
            &url("http://r.example.org"),
            &url("http://auth.evil.test/"),
            &trusted
        ));
    }

    #[test]
    fn realm_of_a_tls_registry_needs_tls() {
        let https = url("https://r.example");
        assert!(parse_realm("https://a.example/t?x=1", &https).is_ok());
        for realm in [
            "http://r.example/t",
            "file:///t",
            "/token",
            "https://u:p@r.example/t",
            "https://169.254.169.254/",
        ] {
            assert!(
                matches!(parse_realm(realm, &https), Err(AuthError::Realm { .. })),
                "{realm}"
            );
        }
        assert!(parse_realm("http://r.example/t", &url("http://r.example")).is_ok());
    }

    #[test]
    fn token_answers() {
        let now = Instant::now();
        let life =
            |body: &[u8]| parse_token(body, now).map(|token| (token.expires - now).as_secs());
        assert_eq!(life(br#"{"token":"a"}"#), Ok(60));
        assert_eq!(life(br#"{"access_token":"a","expires_in":300}"#), Ok(300));
        assert_eq!(
            life(br#"{"token":"a","expires_in":99999999999}"#),
            Ok(24 * 3600)
        );
        for body in [
            &b"{}"[..],
            b"",
            b"[]",
            br#"{"token":""}"#,
            br#"{"token":"a\nb"}"#,
        ] {
            assert!(life(body).is_err());
        }
    }

    #[test]
    fn scope_names_both_ends_of_a_mount() {
        let scope = Scope {
            repository: "a/b".parse().unwrap(),
            actions: "pull,push",
            mount_from: Some("c".parse().unwrap()),
        };
        assert_eq!(
            scope.words(),
            ["repository:a/b:pull,push", "repository:c:pull"]
        );
    }
}
