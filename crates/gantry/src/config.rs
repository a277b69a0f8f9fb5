// SPDX-License-Identifier: Apache-2.0
//! `gantry.toml`: what is Gantry's own to configure.
//!
//! ```toml
//! # Trees of other hosts whose images can be run from here.
//! shares = ["/srv/gantry", { path = "/srv/other", registry = "registry.example:5000" }]
//!
//! [trust]
//! # Where cosign's bundles count, which say what was signed and not as what.
//! unnamed-bundles = ["registry.example/team"]
//! # More directories with rules beside the policy.
//! rules = ["/etc/company/trust.d"]
//!
//! # Which names stay when garbage is collected; the first rule that matches decides, and what none matches stays.
//! [[retention]]
//! names = "*:release-*"
//! keep-all = true
//! [[retention]]
//! names = "team/*"
//! keep-newest = 10
//! keep-younger = "30d"
//!
//! [registry]
//! # The faces made of each pushed image; per repository below.
//! faces = ["composefs", "hardlink"]
//! # Keep signatures, and say so to clients, who then look into no lookaside.
//! signatures = true
//!
//! [registry.repository."old/*"]
//! # Those that lie in a lookaside (file:, http:, https:) are given as well.
//! lookaside = "file:///srv/signatures"
//!
//! # Ask the policy before anything is published: off, enforce or staged.
//! [registry.repository."prod/*"]
//! policy = "staged"
//!
//! # What may wait for a signature there, and how often it is judged again.
//! [registry.waiting]
//! per-repository = 256
//! in-all = 4096
//! max-age = "7d"
//! look-every = "60s"
//!
//! [registry.repository."team/*"]
//! faces = ["composefs"]
//!
//! # Kept and served as pushed, without a tree and without looking inside.
//! [registry.repository."archive/*"]
//! explode = false
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_oci::{Age, Host, Kind};
use gantry_store::retention::{Keep, RetentionRule};
use serde::Deserialize;

use crate::exit::Failure;

/// The configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the store lies.
    pub root: Option<PathBuf>,
    /// Where the state of running containers lies.
    pub runroot: Option<PathBuf>,
    /// Trees of other hosts.
    pub shares: Vec<ShareConfig>,
    /// The OCI runtime, by name or path.
    pub runtime: Option<String>,
    /// The registry.
    pub registry: RegistryConfig,
    /// Which images are admitted, where policy.json has no words for it.
    pub trust: TrustConfig,
    /// Which names the store keeps when garbage is collected.
    pub retention: Vec<RetentionConfig>,
}

/// A `[[retention]]` table. The first whose pattern matches a name decides about it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RetentionTable")]
pub struct RetentionConfig(pub RetentionRule);

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RetentionTable {
    /// The names that it is about: `repository:tag`, with the registry before it if it was pulled.
    names: String,
    #[serde(default)]
    keep_all: bool,
    keep_newest: Option<usize>,
    keep_younger: Option<String>,
}

impl TryFrom<RetentionTable> for RetentionConfig {
    type Error = String;

    fn try_from(table: RetentionTable) -> Result<Self, String> {
        let younger = table.keep_younger.map(|text| {
            let age: Result<Age, _> = text.parse();
            age.map_err(|error| error.to_string())
        });
        let keep = match (table.keep_all, table.keep_newest, younger.transpose()?) {
            (true, None, None) => Keep::All,
            (false, None, None) | (true, ..) => {
                return Err(
                    "needs keep-newest, keep-younger or both, or keep-all = true alone".to_owned(),
                );
            }
            (false, newest, younger) => Keep::Some {
                newest: newest.unwrap_or(0),
                younger: younger.map(Age::duration),
            },
        };
        let names = table.names;
        Ok(Self(RetentionRule { names, keep }))
    }
}

/// A tree of another host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "ShareText")]
pub struct ShareConfig {
    /// Where it is mounted.
    pub path: PathBuf,
    /// The registry whose images its own names are, for policies. What the
    /// tree says of itself decides nothing.
    pub registry: Option<Host>,
}

/// As it stands in the file: a path, or a table.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a path, or a table with `path` and `registry`")]
enum ShareText {
    Path(PathBuf),
    Table(ShareTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareTable {
    path: PathBuf,
    registry: Option<Host>,
}

impl From<ShareText> for ShareConfig {
    fn from(text: ShareText) -> Self {
        match text {
            ShareText::Path(path) => Self {
                path,
                registry: None,
            },
            ShareText::Table(ShareTable { path, registry }) => Self { path, registry },
        }
    }
}

/// The `[trust]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TrustConfig {
    /// Scopes of `docker` in which sigstore bundles count that name no image.
    pub unnamed_bundles: Vec<String>,
    /// Directories with rules, besides the usual ones.
    pub rules: Vec<PathBuf>,
}

/// The `[registry]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// What clients call it, and policies: a host, with its port unless that is 443.
    pub name: Option<Host>,
    /// The faces made of each pushed image; both if absent.
    pub faces: Option<Vec<Face>>,
    /// Whether pushed images are verified and unpacked; they are if absent.
    pub explode: Option<bool>,
    /// Whether signatures are kept, by the extension of the containers family.
    pub signatures: Option<bool>,
    /// A lookaside whose signatures are given as well.
    pub lookaside: Option<String>,
    /// Whether the policy is asked before a pushed image is published; it is not if absent.
    pub policy: Option<PushPolicyText>,
    /// What may wait for a signature.
    pub waiting: WaitingConfig,
    /// Per repository, by name or by a prefix that ends in `/*`.
    pub repository: BTreeMap<String, RepositoryConfig>,
}

/// The `[registry.waiting]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct WaitingConfig {
    /// Names of one repository that may wait.
    pub per_repository: Option<usize>,
    /// Names that may wait in all.
    pub in_all: Option<usize>,
    /// How long one may wait: a number and `s`, `m`, `h` or `d`.
    pub max_age: Option<DurationText>,
    /// How often what waits is judged again, whether or not a signature came.
    pub look_every: Option<DurationText>,
}

/// Whether the policy is asked about what is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushPolicyText {
    /// It is not.
    Off,
    /// What it does not admit is refused.
    Enforce,
    /// What it does not admit yet waits.
    Staged,
}

/// A time span as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DurationText(pub Duration);

impl TryFrom<String> for DurationText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let age: Age = text.parse().map_err(|error| format!("{error}"))?;
        Ok(Self(age.duration()))
    }
}

/// One `[registry.repository."…"]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepositoryConfig {
    /// The faces made of each image pushed here.
    pub faces: Option<Vec<Face>>,
    /// Whether images pushed here are verified and unpacked.
    pub explode: Option<bool>,
    /// Whether signatures of images pushed here are kept.
    pub signatures: Option<bool>,
    /// A lookaside whose signatures are given as well.
    pub lookaside: Option<String>,
    /// Whether the policy is asked before an image is published here.
    pub policy: Option<PushPolicyText>,
}

/// A view of an image's tree that a store can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Face {
    /// An EROFS metadata image over the shared objects.
    Composefs,
    /// A plain tree of hard links.
    Hardlink,
}

impl Config {
    /// Reads the file, or answers the defaults if a default place has none.
    ///
    /// # Errors
    /// The file cannot be read, or has unknown members or wrong values.
    pub fn load(path: &Path, explicit: bool) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(
                    Failure::from(error).context(format!("read configuration {}", path.display()))
                );
            }
        };
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            Failure::message(
                Kind::InvalidInput,
                error.to_string().trim_end().replace('\n', " "),
            )
            .context(format!("parse configuration {}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_are_refused() {
        assert!(toml::from_str::<Config>("rooot = \"/x\"").is_err());
        assert!(toml::from_str::<Config>("[registry]\nfaces = [\"other\"]").is_err());
        let config: Config =
            toml::from_str("shares = [\"/a\"]\n[registry.repository.\"t/*\"]\nfaces = []").unwrap();
        assert_eq!(config.registry.repository["t/*"].faces, Some(vec![]));
    }

    #[test]
    fn retention_rules_say_what_stays() {
        let rules = |text: &str| {
            let config =
                toml::from_str::<Config>(&format!("[[retention]]\nnames = \"a*\"\n{text}"));
            config.map(|config| config.retention[0].0.keep)
        };
        assert_eq!(rules("keep-all = true"), Ok(Keep::All));
        let some = |newest, days: Option<u64>| Keep::Some {
            newest,
            younger: days.map(|days| std::time::Duration::from_secs(days * 86_400)),
        };
        assert_eq!(rules("keep-newest = 3"), Ok(some(3, None)));
        assert_eq!(rules("keep-younger = \"30d\""), Ok(some(0, Some(30))));
        assert_eq!(
            rules("keep-newest = 1\nkeep-younger = \"1d\""),
            Ok(some(1, Some(1)))
        );
        for bad in [
            "",
            "keep-all = false",
            "keep-all = true\nkeep-newest = 1",
            "keep-younger = \"soon\"",
            "keep-newest = -1",
            "keep = 3",
        ] {
            assert!(rules(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_may_have_a_registry() {
        let shares = |text: &str| toml::from_str::<Config>(text).map(|config| config.shares);
        let text = "shares = [\"/a\", { path = \"/b\", registry = \"h.example:5000\" }]";
        let of = |path: &str, registry: Option<&str>| ShareConfig {
            path: path.into(),
            registry: registry.map(|host| host.parse().unwrap()),
        };
        assert_eq!(
            shares(text).unwrap(),
            [of("/a", None), of("/b", Some("h.example:5000"))]
        );
        for bad in [
            "{ registry = \"h.example\" }",
            "{ path = \"/a\", registry = \"a/b\" }",
            "{ path = \"/a\", other = 1 }",
            "1",
        ] {
            assert!(shares(&format!("shares = [{bad}]")).is_err(), "{bad}");
        }
    }
}
