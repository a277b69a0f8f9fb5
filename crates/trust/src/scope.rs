// SPDX-License-Identifier: Apache-2.0
//! Scopes: under which names a policy may speak of an image, the most
//! specific first.
//!
//! | transport | candidates |
//! |---|---|
//! | `docker`, `atomic`, `docker-daemon` by name | `host:port/ns/repo:tag` or `…@digest`, `host:port/ns/repo`, `host:port/ns`, `host:port`, then without the port `*.parent` and on to the last label |
//! | `docker-daemon` by ID, `docker-archive`, `tarball` | none |
//! | `dir`, `oci`, `oci-archive`, `sif` | the absolute path without symbolic links, then each directory above it but `/` |
//! | `containers-storage` | `[driver@root]name:tag@id`, the same without ID, without digest, without tag, each parent, `[driver@root]`, `[root]` |
//!
//! After these comes `""`, the transport's own default, and where the
//! transport has none, the policy's.
//!
//! # Source
//! containers-policy.json(5), "Supported transports and their scopes".

use std::path::Path;

use gantry_oci::{Digest, Reference};
use serde::Serialize;

use crate::identity;

/// What a policy is asked about: an image at a place, by the names that scopes may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    transport: &'static str,
    candidates: Vec<String>,
    reference: Option<Reference>,
}

/// Transports whose scopes are paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathTransport {
    /// A directory with a manifest and blobs.
    Dir,
    /// An OCI layout; the reference in it is no part of the scope.
    Oci,
    /// A tar of an OCI layout.
    OciArchive,
    /// A Singularity image file.
    Sif,
}

impl PathTransport {
    fn name(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::Sif => "sif",
        }
    }
}

/// Which scope of a policy holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Matched {
    /// This one of the transport's; empty for the transport's default.
    Scope(String),
    /// None: the policy's default.
    Default,
}

impl Subject {
    /// An image in a registry, by its logical reference; a tag beside a digest decides nothing.
    #[must_use]
    pub fn docker(reference: &Reference) -> Self {
        Self::named("docker", reference)
    }

    /// An image of a store of ours that has no name there, only an ID.
    #[must_use]
    pub fn docker_unnamed() -> Self {
        Self::nameless("docker")
    }

    /// An image stream of OpenShift.
    #[must_use]
    pub fn atomic(reference: &Reference) -> Self {
        Self::named("atomic", reference)
    }

    /// An image of a Docker daemon; by ID it has no name.
    #[must_use]
    pub fn docker_daemon(reference: Option<&Reference>) -> Self {
        match reference {
            Some(reference) => Self::named("docker-daemon", reference),
            None => Self::nameless("docker-daemon"),
        }
    }

    /// An image in a `docker save` archive, and what it is called in there.
    #[must_use]
    pub fn docker_archive(reference: Option<&Reference>) -> Self {
        Self {
            reference: reference.cloned(),
            ..Self::nameless("docker-archive")
        }
    }

    /// An image made of plain tar files.
    #[must_use]
    pub fn tarball() -> Self {
        Self::nameless("tarball")
    }

    /// An image at a path, which is absolute and has no symbolic links; the caller resolves it.
    #[must_use]
    pub fn path(transport: PathTransport, resolved: &Path) -> Self {
        let above = resolved.ancestors();
        // A name that is no text can stand in no policy; the directories above it can.
        let candidates = above
            .filter(|path| path.parent().is_some())
            .filter_map(|path| path.to_str().map(ToOwned::to_owned))
            .collect();
        Self {
            transport: transport.name(),
            candidates,
            reference: None,
        }
    }

    /// An image in a store of the containers/storage library, by name, ID or both.
    #[must_use]
    pub fn containers_storage(
        driver: &str,
        root: &str,
        named: Option<&Reference>,
        id: Option<&str>,
    ) -> Self {
        let store = format!("[{driver}@{root}]");
        let mut candidates = Vec::new();
        if let Some(id) = id {
            let named = named.map(ToString::to_string).unwrap_or_default();
            candidates.push(format!("{store}{named}@{id}"));
        }
        if let Some(named) = named {
            candidates.push(format!("{store}{named}"));
            if let (Some(tag), Some(_)) = (&named.tag, &named.digest) {
                candidates.push(format!("{store}{}:{tag}", named.name()));
            }
            candidates.extend(parents(&named.name()).map(|name| format!("{store}{name}")));
        }
        candidates.extend([store, format!("[{root}]")]);
        Self {
            transport: "containers-storage",
            candidates,
            reference: named.cloned(),
        }
    }

    fn named(transport: &'static str, reference: &Reference) -> Self {
        let reference = reference.clone().or_latest();
        let name = reference.name();
        let mut candidates = vec![identity::logical(&reference).to_string()];
        candidates.extend(parents(&name).map(ToOwned::to_owned));
        candidates.extend(wildcards(reference.host.as_str()));
        Self {
            transport,
            candidates,
            reference: Some(reference),
        }
    }

    fn nameless(transport: &'static str) -> Self {
        Self {
            transport,
            candidates: Vec::new(),
            reference: None,
        }
    }

    /// The transport, as policies spell it.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        self.transport
    }

    /// The scopes that may hold, the most specific first; the last is `""`.
    pub fn candidates(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().map(String::as_str).chain([""])
    }

    /// The image's logical reference in a registry, if it has one.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        self.reference.as_ref()
    }
}

/// A name and what remains as components are taken off its end.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| Some(name.rsplit_once('/')?.0))
}

/// `*.parent` for each domain above a host, whose port does not matter.
fn wildcards(host: &str) -> impl Iterator<Item = String> {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let domains = std::iter::successors(Some(name), |name| Some(name.split_once('.')?.1));
    domains.skip(1).map(|parent| format!("*.{parent}"))
}

/// A scope and all that are wider, up to `""`: what else holds wherever it does.
#[must_use]
pub fn wider(transport: &str, scope: &str) -> Vec<String> {
    let mut scopes: Vec<String> = match transport {
        "dir" | "oci" | "oci-archive" | "sif" => Path::new(scope)
            .ancestors()
            .filter_map(Path::to_str)
            .map(ToOwned::to_owned)
            .filter(|path| path != "/")
            .collect(),
        "containers-storage" => wider_in_store(scope),
        _ => wider_name(scope).collect(),
    };
    scopes.retain(|scope| !scope.is_empty());
    scopes.push(String::new());
    scopes
}

/// `host/ns/repo:tag` and on to the last domain.
fn wider_name(scope: &str) -> impl Iterator<Item = String> {
    let (name, _) = split_pointer(scope);
    let full = (name != scope).then(|| scope.to_owned());
    let host = name.split_once('/').map_or(name, |(host, _)| host);
    let wild: Vec<String> = match host.strip_prefix("*.") {
        Some(domain) => wildcards(domain).collect(),
        None => wildcards(host).collect(),
    };
    let names = parents(name).map(ToOwned::to_owned);
    full.into_iter().chain(names).chain(wild)
}

fn wider_in_store(scope: &str) -> Vec<String> {
    let Some((store, name)) = scope.split_once(']') else {
        return vec![scope.to_owned()];
    };
    let mut scopes = vec![scope.to_owned()];
    let ends = std::iter::successors(Some(name), |name| Some(name.rsplit_once('@')?.0));
    let (plain, _) = split_pointer(name);
    let names = ends.chain(parents(plain)).filter(|name| !name.is_empty());
    scopes.extend(names.map(|name| format!("{store}]{name}")));
    scopes.push(format!("{store}]"));
    if let Some((_, root)) = store.split_once('@') {
        scopes.push(format!("[{root}]"));
    }
    scopes.dedup();
    scopes
}

/// A name, and the tag or digest behind it. The colon of a port stands before any slash.
fn split_pointer(scope: &str) -> (&str, &str) {
    let (name, digest) = scope.split_once('@').unwrap_or((scope, ""));
    match name.rsplit_once(':') {
        Some((shorter, tag)) if shorter.contains('/') && !tag.contains('/') => (shorter, tag),
        _ => (name, digest),
    }
}

/// Whether a scope may be a repository: a host, a path, and nothing behind it.
#[must_use]
pub(crate) fn is_name(scope: &str) -> bool {
    scope.contains('/') && split_pointer(scope).0 == scope
}

/// Whether a transport can have this scope; the error is a sentence's end.
/// Scopes of unknown transports are anything.
///
/// # Errors
/// The file is no policy then.
pub fn validate(transport: &str, scope: &str) -> Result<(), String> {
    if scope.is_empty() {
        return Ok(());
    }
    match transport {
        "dir" | "oci" | "oci-archive" | "sif" => validate_path(scope),
        "docker-archive" | "tarball" => Err(format!("{transport} has no scope but \"\"")),
        "docker-daemon" if scope.parse::<Digest>().is_ok() => {
            Err("docker-daemon has no scopes for image IDs but \"\"".into())
        }
        "atomic" => validate_stream(scope),
        "containers-storage" => validate_storage(scope),
        _ => Ok(()),
    }
}

fn validate_path(scope: &str) -> Result<(), String> {
    if !scope.starts_with('/') {
        return Err("is no absolute path".into());
    }
    if scope == "/" {
        return Err("\"/\" would mean the same as \"\", which is to be used".into());
    }
    let mut components = scope[1..].split('/');
    if components.any(|component| matches!(component, "" | "." | "..")) {
        return Err("is no plain path: it has an empty, `.` or `..` component".into());
    }
    Ok(())
}

/// `host[/namespace[/stream[:tag]]]`
fn validate_stream(scope: &str) -> Result<(), String> {
    let components: Vec<&str> = scope.split('/').collect();
    let colons = |text: &str| text.matches(':').count();
    let good = match components.as_slice() {
        [_host] => true,
        [_host, namespace] => colons(namespace) == 0,
        [_host, namespace, stream] => colons(namespace) == 0 && colons(stream) <= 1,
        _ => false,
    };
    if good {
        Ok(())
    } else {
        Err("is not of the form host/namespace/stream:tag".into())
    }
}

/// `[driver@root]` or `[root]`, then nothing or a name with what may follow it.
fn validate_storage(scope: &str) -> Result<(), String> {
    let form = || "is not of the form [driver@root]name@id".to_owned();
    let (store, name) = scope
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .ok_or_else(form)?;
    let root = match store.split_once('@') {
        Some(("", _)) => return Err(form()),
        Some((_, root)) => root,
        None => store,
    };
    if !root.starts_with('/') {
        return Err("names a store whose root is no absolute path".into());
    }
    let id = |text: &str| format!("sha256:{text}").parse::<Digest>().is_ok();
    let digest = |text: &str| text.parse::<Digest>().is_ok();
    let good = match name.splitn(3, '@').collect::<Vec<_>>().as_slice() {
        [_name, last] => id(last) || digest(last),
        [_name, middle, last] => digest(middle) && id(last),
        _ => true,
    };
    if good {
        Ok(())
    } else {
        Err("ends in neither a digest nor an image ID".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn candidates(subject: &Subject) -> Vec<&str> {
        subject.candidates().collect()
    }

    fn reference(text: &str) -> Reference {
        Reference::parse_normalized(text).unwrap()
    }

    #[test]
    fn docker_scopes_go_from_the_reference_to_the_last_domain() {
        let digest = format!("sha256:{HEX}");
        let by_digest = format!("h.io/a@{digest}");
        let by_both = format!("h.io/a:v1@{digest}");
        for (text, wanted) in [
            (
                "r.eu.example.com:5000/ns/sub/app:v1",
                &[
                    "r.eu.example.com:5000/ns/sub/app:v1",
                    "r.eu.example.com:5000/ns/sub/app",
                    "r.eu.example.com:5000/ns/sub",
                    "r.eu.example.com:5000/ns",
                    "r.eu.example.com:5000",
                    "*.eu.example.com",
                    "*.example.com",
                    "*.com",
                    "",
                ][..],
            ),
            (
                "busybox",
                &[
                    "docker.io/library/busybox:latest",
                    "docker.io/library/busybox",
                    "docker.io/library",
                    "docker.io",
                    "*.io",
                    "",
                ],
            ),
            (&by_digest, &[&by_digest, "h.io/a", "h.io", "*.io", ""]),
            (&by_both, &[&by_digest, "h.io/a", "h.io", "*.io", ""]),
            (
                "localhost/a",
                &["localhost/a:latest", "localhost/a", "localhost", ""],
            ),
            (
                "localhost:5000/a:b",
                &[
                    "localhost:5000/a:b",
                    "localhost:5000/a",
                    "localhost:5000",
                    "",
                ],
            ),
            (
                "127.0.0.1:5000/a:b",
                &[
                    "127.0.0.1:5000/a:b",
                    "127.0.0.1:5000/a",
                    "127.0.0.1:5000",
                    "*.0.0.1",
                    "*.0.1",
                    "*.1",
                    "",
                ],
            ),
            (
                "[::1]:5000/a:b",
                &["[::1]:5000/a:b", "[::1]:5000/a", "[::1]:5000", ""],
            ),
        ] {
            let subject = Subject::docker(&reference(text));
            assert_eq!(candidates(&subject), wanted, "{text}");
            assert_eq!(subject.transport(), "docker");
        }
    }

    #[test]
    fn path_scopes_go_up_to_below_the_root() {
        for (transport, name) in [
            (PathTransport::Dir, "dir"),
            (PathTransport::Oci, "oci"),
            (PathTransport::OciArchive, "oci-archive"),
            (PathTransport::Sif, "sif"),
        ] {
            let subject = Subject::path(transport, Path::new("/srv/images/a"));
            assert_eq!(
                candidates(&subject),
                ["/srv/images/a", "/srv/images", "/srv", ""]
            );
            assert_eq!(subject.transport(), name);
            assert_eq!(subject.reference(), None);
        }
        let root = Subject::path(PathTransport::Dir, Path::new("/"));
        assert_eq!(candidates(&root), [""]);
        let unnamed = Subject::docker_unnamed();
        assert_eq!(
            (candidates(&unnamed), unnamed.reference()),
            (vec![""], None)
        );
    }

    #[test]
    fn path_that_is_no_text_has_the_scopes_above_it() {
        use std::os::unix::ffi::OsStrExt as _;
        let path = Path::new("/srv").join(std::ffi::OsStr::from_bytes(b"\xff/a"));
        let subject = Subject::path(PathTransport::Oci, &path);
        assert_eq!(candidates(&subject), ["/srv", ""]);
    }

    #[test]
    fn storage_scopes_begin_with_the_store() {
        let digest = format!("sha256:{HEX}");
        let of = |named: Option<&str>, id| {
            let named = named.map(reference);
            let subject = Subject::containers_storage("overlay", "/g", named.as_ref(), id);
            candidates(&subject).join(" ")
        };
        assert_eq!(
            of(Some("h.io/ns/a:v1"), Some(HEX)),
            format!(
                "[overlay@/g]h.io/ns/a:v1@{HEX} [overlay@/g]h.io/ns/a:v1 [overlay@/g]h.io/ns/a \
                 [overlay@/g]h.io/ns [overlay@/g]h.io [overlay@/g] [/g] "
            )
        );
        assert_eq!(
            of(Some(&format!("h.io/a:v1@{digest}")), None),
            format!(
                "[overlay@/g]h.io/a:v1@{digest} [overlay@/g]h.io/a:v1 [overlay@/g]h.io/a \
                 [overlay@/g]h.io [overlay@/g] [/g] "
            )
        );
        assert_eq!(
            of(None, Some(HEX)),
            format!("[overlay@/g]@{HEX} [overlay@/g] [/g] ")
        );
    }

    #[test]
    fn other_transports_have_names_or_only_their_default() {
        let named = reference("h.io/a/b:v1");
        for (subject, transport, wanted, has_reference) in [
            (
                Subject::atomic(&named),
                "atomic",
                "h.io/a/b:v1 h.io/a/b h.io/a h.io *.io ",
                true,
            ),
            (
                Subject::docker_daemon(Some(&named)),
                "docker-daemon",
                "h.io/a/b:v1 h.io/a/b h.io/a h.io *.io ",
                true,
            ),
            (Subject::docker_daemon(None), "docker-daemon", "", false),
            (
                Subject::docker_archive(Some(&named)),
                "docker-archive",
                "",
                true,
            ),
            (Subject::docker_archive(None), "docker-archive", "", false),
            (Subject::tarball(), "tarball", "", false),
        ] {
            assert_eq!(subject.transport(), transport);
            assert_eq!(candidates(&subject).join(" "), wanted, "{transport}");
            assert_eq!(subject.reference().is_some(), has_reference);
        }
    }

    #[test]
    fn wider_scopes_are_those_that_hold_wherever_one_does() {
        for (transport, scope, wanted) in [
            (
                "docker",
                "h.eu.io:5000/a/b:t",
                "h.eu.io:5000/a/b:t h.eu.io:5000/a/b h.eu.io:5000/a h.eu.io:5000 *.eu.io *.io ",
            ),
            (
                "docker",
                "h.io/a@sha256:0",
                "h.io/a@sha256:0 h.io/a h.io *.io ",
            ),
            (
                "docker",
                "h.io/a:t@sha256:0",
                "h.io/a:t@sha256:0 h.io/a h.io *.io ",
            ),
            ("docker", "h.io:5000", "h.io:5000 *.io "),
            ("docker", "*.eu.io", "*.eu.io *.io "),
            ("docker", "localhost", "localhost "),
            ("docker", "", ""),
            ("dir", "/a/b", "/a/b /a "),
            ("oci", "", ""),
            (
                "containers-storage",
                "[overlay@/g]h/a:t@id",
                "[overlay@/g]h/a:t@id [overlay@/g]h/a:t [overlay@/g]h/a [overlay@/g]h [overlay@/g] [/g] ",
            ),
            ("containers-storage", "[/g]", "[/g] "),
            ("containers-storage", "", ""),
        ] {
            assert_eq!(wider(transport, scope).join(" "), wanted, "{scope}");
        }
        // What holds for an image is what its candidates say.
        let subject = Subject::docker(&reference("r.eu.io:5000/a/b:t"));
        assert_eq!(wider("docker", "r.eu.io:5000/a/b:t"), candidates(&subject));
        for (scope, name) in [
            ("h.io/a", true),
            ("h.io", false),
            ("h.io/a:t", false),
            ("h.io/a:5000/b", true),
            ("*.io", false),
        ] {
            assert_eq!(is_name(scope), name, "{scope}");
        }
    }

    #[test]
    fn scopes_that_a_transport_cannot_have_are_refused() {
        let id = format!("[overlay@/g]n@{HEX}");
        let digest_and_id = format!("[/g]n:t@sha256:{HEX}@{HEX}");
        let digest_twice = format!("[/g]n@sha256:{HEX}@sha256:{HEX}");
        let digest = format!("sha256:{HEX}");
        let two_ids = format!("[/g]n@{HEX}@{HEX}");
        for (transport, scope, good) in [
            ("docker", "anything at all", true),
            ("docker", "*.example.com", true),
            ("nobody-knows", "x", true),
            ("dir", "", true),
            ("dir", "/a/b", true),
            ("dir", "/", false),
            ("oci", "a", false),
            ("oci", "/a//b", false),
            ("oci", "/a/", false),
            ("oci-archive", "/a/../b", false),
            ("sif", "/a/./b", false),
            ("oci", "/a:ref", true),
            ("docker-archive", "", true),
            ("docker-archive", "/a", false),
            ("tarball", "/a", false),
            ("docker-daemon", "h.io/a:b", true),
            ("docker-daemon", &digest, false),
            ("atomic", "h:8443", true),
            ("atomic", "h:8443/ns", true),
            ("atomic", "h/n:s", false),
            ("atomic", "h/ns/stream:tag", true),
            ("atomic", "h/n:s/stream", false),
            ("atomic", "h/ns/stream:t:t", false),
            ("atomic", "h/ns/stream/more", false),
            ("containers-storage", "[/g]", true),
            ("containers-storage", "[overlay@/g]n:t", true),
            ("containers-storage", &id, true),
            ("containers-storage", &digest_and_id, true),
            ("containers-storage", &digest_twice, false),
            ("containers-storage", "[overlay@/g]n@x", false),
            ("containers-storage", &two_ids, false),
            ("containers-storage", "[@/g]n", false),
            ("containers-storage", "[overlay@g]n", false),
            ("containers-storage", "[]", false),
            ("containers-storage", "[/g", false),
            ("containers-storage", "n", false),
        ] {
            assert_eq!(
                validate(transport, scope).is_ok(),
                good,
                "{transport} {scope:?}"
            );
        }
    }
}
