// SPDX-License-Identifier: Apache-2.0
//! Where a registry may send us.
//!
//! A redirect or a `Location` is a wish of the peer. One pure function decides
//! whether it is granted; whether credentials go along is decided by
//! [`Origin`] alone.

use std::net::IpAddr;

use reqwest::Url;

/// Hops after which a chain is a loop.
pub(crate) const MOST_HOPS: usize = 10;

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` URL.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_ascii_lowercase(),
            port: url.port_or_known_default()?,
        })
    }
}

/// Resolves what `current` answered as `location`.
///
/// # Errors
/// The rule that forbids it, as a phrase.
pub(crate) fn resolve(current: &Url, location: &str) -> Result<Url, &'static str> {
    let target = current.join(location).map_err(|_| "it is not a URL")?;
    match (current.scheme(), target.scheme()) {
        ("https", "https") | ("http", "http" | "https") => {}
        ("https", "http") => return Err("it leads from TLS to plain HTTP"),
        _ => return Err("its scheme is neither http nor https"),
    }
    if !target.username().is_empty() || target.password().is_some() {
        return Err("it carries credentials");
    }
    let reach = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        Reach::of(host.trim_start_matches('[').trim_end_matches(']'))
    };
    match (reach(current), reach(&target)) {
        (_, Reach::LinkLocal) => Err("it leads to a link-local or unspecified address"),
        (Reach::Other, Reach::Loopback) => Err("it leads to this host's loopback address"),
        _ => Ok(target),
    }
}

#[derive(PartialEq)]
enum Reach {
    Loopback,
    LinkLocal,
    Other,
}

impl Reach {
    /// By name or literal address; names are not looked up.
    fn of(host: &str) -> Self {
        if host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost")
        {
            return Self::Loopback;
        }
        match host.parse::<IpAddr>() {
            Ok(address) => Self::of_address(address.to_canonical()),
            Err(_) => Self::Other,
        }
    }

    fn of_address(address: IpAddr) -> Self {
        let link_local = match address {
            IpAddr::V4(v4) => {
                v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()
            }
            IpAddr::V6(v6) => {
                v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()
            }
        };
        match (address.is_loopback(), link_local) {
            (true, _) => Self::Loopback,
            (_, true) => Self::LinkLocal,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn table_of_targets() {
        for (current, location, granted) in [
            (
                "https://r.example/v2/a",
                "https://cdn.example/b?sig=1",
                true,
            ),
            ("https://r.example/v2/a", "/v2/b", true),
            ("https://r.example/v2/a", "//cdn.example/b", true),
            ("https://r.example/v2/a", "http://cdn.example/b", false),
            ("http://r.example/v2/a", "https://cdn.example/b", true),
            ("https://r.example/v2/a", "file:///etc/passwd", false),
            ("https://r.example/v2/a", "ftp://r.example/", false),
            (
                "https://r.example/v2/a",
                "https://user:pass@r.example/",
                false,
            ),
            ("https://r.example/v2/a", "https://user@r.example/", false),
            (
                "https://r.example/v2/a",
                "https://169.254.169.254/latest/meta-data",
                false,
            ),
            ("https://r.example/v2/a", "https://[fe80::1]/", false),
            (
                "https://r.example/v2/a",
                "https://[::ffff:169.254.169.254]/",
                false,
            ),
            ("https://r.example/v2/a", "https://0.0.0.0/", false),
            ("https://r.example/v2/a", "https://127.0.0.1/", false),
            ("https://r.example/v2/a", "https://[::1]/", false),
            ("https://r.example/v2/a", "https://localhost/", false),
            ("https://r.example/v2/a", "https://2130706433/", false),
            (
                "http://127.0.0.1:5000/v2/a",
                "http://127.0.0.1:5001/b",
                true,
            ),
            (
                "http://localhost:5000/v2/a",
                "http://127.0.0.1:5001/b",
                true,
            ),
            ("https://r.example/v2/a", "http://[", false),
        ] {
            assert_eq!(
                resolve(&url(current), location).is_ok(),
                granted,
                "{current} -> {location}"
            );
        }
    }

    #[test]
    fn origin_tells_port_and_scheme_apart() {
        let of = |text| Origin::of(&url(text)).unwrap();
        assert_eq!(of("https://r.example/a"), of("https://R.example:443/b"));
        assert_ne!(of("https://r.example/a"), of("https://r.example:444/a"));
        assert_ne!(of("https://r.example:80/a"), of("http://r.example/a"));
    }
}
