// SPDX-License-Identifier: Apache-2.0
//! What a call of Docker's API would do, as far as images go.
//!
//! Every call that is not listed is refused: an API that grows a way to run
//! something must not run it past the policy.
//!
//! # Source
//! Docker Engine API v1.24 to v1.52.

/// What a call would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Reads only, or brings, names and removes things without running any.
    Passes,
    /// Makes a container.
    CreatesContainer {
        /// Whether its name reads as the start of an ID.
        named_as_id: bool,
    },
    /// Starts a container that was made before.
    StartsContainer {
        /// The name, ID or start of an ID that was given.
        container: String,
    },
    /// May give a container's name to another one.
    FreesNames,
    /// Runs containers of images that a build names, unasked.
    Builds,
    /// Runs what no plug-in is asked about, or is not known.
    Refused(&'static str),
}

const UNKNOWN: &str = "this call is not one that the policy knows to be harmless";
const SWARM: &str =
    "a swarm starts containers without asking plug-ins, so the policy would not be asked";
const PLUGINS: &str = "a managed plug-in is run as the daemon's own and without asking plug-ins, so the policy would not be asked";

impl Call {
    /// Reads the method and the request target as dockerd would.
    pub fn read(method: &str, uri: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" => Self::Passes,
            "POST" | "PUT" | "DELETE" => {
                let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
                match segments(path) {
                    Some(segments) => Self::of(method, &segments, query),
                    None => Self::Refused("the path has more than one reading"),
                }
            }
            _ => Self::Refused(UNKNOWN),
        }
    }

    fn of(method: &str, segments: &[String], query: &str) -> Self {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let path = match segments.as_slice() {
            [version, rest @ ..] if is_version(version) => rest,
            path => path,
        };
        // Names may have slashes in them, so that the last segment is the verb.
        match (method, path) {
            ("POST", ["containers", "create"]) => Self::CreatesContainer {
                named_as_id: names_as_id(query),
            },
            ("POST", ["containers", "prune"]) | ("DELETE", ["containers", _, ..]) => {
                Self::FreesNames
            }
            ("POST", ["containers", name @ .., verb]) if !name.is_empty() => match *verb {
                "start" | "restart" => Self::StartsContainer {
                    container: name.join("/"),
                },
                "rename" => Self::FreesNames,
                "attach" | "exec" | "kill" | "pause" | "resize" | "stop" | "unpause" | "update"
                | "wait" | "copy" | "checkpoints" => Self::Passes,
                _ => Self::Refused(UNKNOWN),
            },
            ("PUT", ["containers", _, .., "archive"])
            | ("POST", ["exec", _, .., "start" | "resize"])
            | ("POST", ["auth" | "commit"])
            | ("POST", ["images", "create" | "load" | "prune"])
            | ("POST", ["images", _, .., "push" | "tag"])
            | ("DELETE", ["images" | "volumes" | "networks" | "plugins", _, ..])
            | ("POST", ["networks" | "volumes", "create" | "prune"])
            | ("POST", ["networks", _, .., "connect" | "disconnect"])
            | ("PUT", ["volumes", _, ..])
            | ("POST", ["build", "prune" | "cancel"])
            | ("POST", ["plugins", _, .., "disable" | "push"])
            | ("POST", ["swarm", "leave"])
            | ("DELETE", ["services" | "nodes" | "secrets" | "configs", _]) => Self::Passes,
            ("POST", ["build" | "session" | "grpc"]) => Self::Builds,
            ("POST", ["plugins", _, ..]) => Self::Refused(PLUGINS),
            (
                "POST",
                [
                    "swarm" | "services" | "nodes" | "secrets" | "configs",
                    _,
                    ..,
                ],
            ) => Self::Refused(SWARM),
            _ => Self::Refused(UNKNOWN),
        }
    }
}

/// The path's segments, decoded once as the daemon's server does. `None` where servers differ: another form than
/// `/…`, bad escapes, empty and dot segments, control characters.
fn segments(path: &str) -> Option<Vec<String>> {
    let decoded = decode(path.strip_prefix('/')?)?;
    let plain = |segment: &&str| !matches!(*segment, "" | "." | "..");
    decoded
        .split('/')
        .map(|segment| Some(segment).filter(plain).map(str::to_owned))
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    let decoded = String::from_utf8(decoded).ok()?;
    let odd = |c: char| c.is_control() || matches!(c, '\\' | '#' | '%');
    (!decoded.contains(odd)).then_some(decoded)
}

/// `v1.41`; anything that a lenient router could take for a version, too.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    })
}

/// Whether a `name` in the query could be read as the start of a container's ID.
fn names_as_id(query: &str) -> bool {
    let values = query.split(['&', ';']).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name).is_none_or(|name| name == "name")).then_some(value)
    });
    values
        .into_iter()
        .any(|value| decode(value).is_none_or(|name| is_hex(name.trim_start_matches('/'))))
}

/// Whether a text is made of the digits that IDs are made of.
pub fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(container: &str) -> Call {
        Call::StartsContainer {
            container: container.into(),
        }
    }

    const CREATES: Call = Call::CreatesContainer { named_as_id: false };

    #[test]
    fn every_spelling_of_a_path_is_the_same_call() {
        for uri in [
            "/containers/create",
            "/v1.41/containers/create",
            "/v1/containers/create",
            "/v1.41.0/containers/create?name=web",
            "/v1.41/containers/%63reate",
            "/v1.41%2Fcontainers%2fcreate",
            "/v1.41/containers/create?",
        ] {
            assert_eq!(Call::read("POST", uri), CREATES, "{uri}");
        }
        for (uri, container) in [
            ("/containers/a/start", "a"),
            ("/v1.24/containers/a/restart?t=0", "a"),
            ("/containers/%61/start", "a"),
            ("/containers/a%2Fb/start", "a/b"),
            ("/containers/create/start", "create"),
            ("/containers/kill/start", "kill"),
        ] {
            assert_eq!(Call::read("POST", uri), starts(container), "{uri}");
        }
    }

    #[test]
    fn names_that_read_as_ids_are_seen() {
        for (query, named) in [
            ("name=web", false),
            ("", false),
            ("platform=linux%2Farm64", false),
            ("name=cafe", true),
            ("name=/cafe", true),
            ("n%61me=c%61fe", true),
            ("name=web&name=cafe", true),
            ("x=1;name=db", true),
            ("name=%zz", true),
        ] {
            assert_eq!(names_as_id(query), named, "{query}");
        }
    }

    #[test]
    fn paths_with_two_readings_are_refused() {
        for uri in [
            "//containers/create",
            "/containers//create",
            "/./containers/create",
            "/x/../containers/create",
            "/containers/create/",
            "http://docker/containers/create",
            "containers/create",
            "/containers/cre%2",
            "/containers/create%00",
            "/containers/%ff/start",
            "/containers\\create",
            "/containers/create#x",
            "/containers/%2563reate",
            "/containers/../start",
            "",
        ] {
            let call = Call::read("POST", uri);
            assert!(matches!(call, Call::Refused(_)), "{uri}: {call:?}");
        }
    }

    #[test]
    fn what_runs_images_unasked_is_refused_or_a_build() {
        for (method, uri) in [
            ("POST", "/services/create"),
            ("POST", "/v1.41/services/x/update"),
            ("POST", "/swarm/init"),
            ("POST", "/swarm/join"),
            ("POST", "/plugins/pull"),
            ("POST", "/plugins/create"),
            ("POST", "/plugins/x/y/enable"),
            ("POST", "/plugins/x/upgrade"),
            ("POST", "/containers/x/launch"),
            ("POST", "/Containers/create"),
            ("POST", "/v1.41/v1.41/containers/create"),
            ("POST", "/moby.buildkit.v1.Control/Solve"),
            ("PATCH", "/containers/create"),
            ("CONNECT", "/"),
            ("post", "/containers/create"),
            ("", ""),
        ] {
            let call = Call::read(method, uri);
            assert!(matches!(call, Call::Refused(_)), "{method} {uri}: {call:?}");
        }
        for uri in ["/build?t=x", "/v1.41/session", "/grpc"] {
            assert_eq!(Call::read("POST", uri), Call::Builds, "{uri}");
        }
    }

    #[test]
    fn what_runs_nothing_passes() {
        for (method, uri) in [
            ("GET", "/v1.41/containers/json"),
            ("HEAD", "/_ping"),
            ("POST", "/images/create?fromImage=a&tag=b"),
            ("POST", "/images/load"),
            ("POST", "/images/registry.example/a/b/tag?repo=c"),
            ("POST", "/commit?container=x"),
            ("POST", "/auth"),
            ("POST", "/containers/x/stop"),
            ("POST", "/containers/x/exec"),
            ("POST", "/exec/x/start"),
            ("PUT", "/containers/x/archive?path=/"),
            ("DELETE", "/images/a/b:c"),
            ("POST", "/networks/create"),
            ("POST", "/build/prune"),
        ] {
            assert_eq!(Call::read(method, uri), Call::Passes, "{method} {uri}");
        }
        for (method, uri) in [
            ("DELETE", "/containers/x?force=1"),
            ("POST", "/containers/prune"),
            ("POST", "/containers/x/rename?name=y"),
        ] {
            assert_eq!(Call::read(method, uri), Call::FreesNames, "{method} {uri}");
        }
    }
}
