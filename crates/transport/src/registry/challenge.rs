// SPDX-License-Identifier: Apache-2.0
//! `WWW-Authenticate`: what the registry wants to see.
//!
//! # Source
//! RFC 9110 §11.6.1.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// A challenge that we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from a token service.
    Bearer {
        realm: String,
        service: Option<String>,
        /// Why a token that we sent was not taken.
        error: Option<String>,
    },
    /// Name and password.
    Basic,
}

/// The challenges of an answer, the ones we prefer first.
pub(crate) fn parse(headers: &HeaderMap) -> Vec<Challenge> {
    const MOST: usize = 8;
    let mut out: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .take(MOST)
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse_value)
        .take(MOST)
        .collect();
    out.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    out
}

fn parse_value(value: &str) -> Vec<Challenge> {
    let mut out = Vec::new();
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    for item in split_items(value) {
        // A new scheme is a word, a space, and its first parameter, or a word alone.
        let before_equals = item.split('=').next().unwrap_or_default();
        if let Some((word, rest)) = item
            .split_once(' ')
            .filter(|_| before_equals.trim_end().contains(' '))
        {
            out.extend(finish(&scheme, &parameters));
            scheme = word.to_ascii_lowercase();
            parameters.clear();
            parameters.extend(parameter(rest.trim_start()));
        } else if !item.contains('=') {
            out.extend(finish(&scheme, &parameters));
            scheme = item.to_ascii_lowercase();
            parameters.clear();
        } else {
            parameters.extend(parameter(item));
        }
    }
    out.extend(finish(&scheme, &parameters));
    out
}

/// Splits at commas outside quotes.
fn split_items(value: &str) -> Vec<&str> {
    let (mut out, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in value.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                out.push(value[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(value[start..].trim());
    out.retain(|item| !item.is_empty());
    out
}

fn parameter(item: &str) -> Option<(String, String)> {
    let (name, value) = item.split_once('=')?;
    let value = value.trim();
    let value = match value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(quoted) => unescape(quoted),
        None => value.to_owned(),
    };
    Some((name.trim().to_ascii_lowercase(), value))
}

fn unescape(quoted: &str) -> String {
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next())
        } else {
            out.push(c)
        }
    }
    out
}

fn finish(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let find = |name: &str| {
        parameters
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.clone())
    };
    match scheme {
        "bearer" => Some(Challenge::Bearer {
            realm: find("realm")?,
            service: find("service"),
            error: find("error"),
        }),
        "basic" => Some(Challenge::Basic),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, error: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            error: error.map(Into::into),
        }
    }

    #[test]
    fn table_of_headers() {
        let cases: &[(&str, Vec<Challenge>)] = &[
            (
                r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a:pull,push""#,
                vec![bearer(
                    "https://auth.example/token",
                    Some("r.example"),
                    None,
                )],
            ),
            (
                r#"bearer Realm="x" , error = "invalid_token""#,
                vec![bearer("x", None, Some("invalid_token"))],
            ),
            (r#"Basic realm="r""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (r#"Negotiate, Basic realm="a, b""#, vec![Challenge::Basic]),
            (
                r#"Digest realm="d", nonce="1", Bearer realm="b\"q""#,
                vec![bearer("b\"q", None, None)],
            ),
            ("Bearer service=x", vec![]),
            ("", vec![]),
            (",,,", vec![]),
            (
                "Bearer realm=\"unterminated",
                vec![bearer("\"unterminated", None, None)],
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(parse_value(value), *expected, "{value}");
        }
    }

    #[test]
    fn bearer_is_preferred_over_basic() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, r#"Basic realm="a""#.parse().unwrap());
        headers.append(WWW_AUTHENTICATE, r#"Bearer realm="b""#.parse().unwrap());
        assert_eq!(parse(&headers), [bearer("b", None, None), Challenge::Basic]);
    }
}
