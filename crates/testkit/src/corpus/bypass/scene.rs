// SPDX-License-Identifier: Apache-2.0
//! What decides over an image, as plain data: policy, rules, keys and signatures.
//!
//! ```text
//! DIR/policy.json                                         PolicyFile; @DIR@ in it is DIR
//! DIR/<name>                                              files: keys and certificates
//! DIR/home/.config/gantry/trust.d/10.toml                 rules
//! DIR/home/.config/containers/registries.d/test.yaml      where signatures are
//! DIR/lookaside/team/app@sha256=…/signature-N             signatures
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Family;
use super::maker::Maker;

/// What stands in a [`Scene`]'s policy and rules for its directory.
pub const DIR: &str = "@DIR@";

/// What decides over an image.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The image's registry.
    pub host: String,
    /// The manifest's digest, which signatures lie under.
    pub digest: String,
    /// The image's whole name, as it is asked for: with a tag or with a digest.
    pub asked: String,
    /// The policy.
    pub policy: PolicyFile,
    /// Files beside it.
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// A file of `trust.d`.
    pub rules: Option<Vec<u8>>,
    /// Whether everybody may write to that file.
    pub rules_are_open: bool,
    /// The signatures in the lookaside, as they are stored.
    pub signatures: Vec<Vec<u8>>,
}

/// The file of a policy, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyFile {
    /// A file with this text.
    Text(Vec<u8>),
    /// A file with this text that everybody may write to.
    Open(Vec<u8>),
    /// None.
    Missing,
    /// A directory.
    Directory,
    /// A symbolic link to nothing.
    Dangling,
    /// A symbolic link to itself.
    Loop,
    /// A symbolic link to a file without end.
    Endless,
}

impl Scene {
    /// The policy as JSON, to be changed.
    ///
    /// # Errors
    /// It is none any more.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut policy: Value = serde_json::from_slice(self.text()?)?;
        edit(&mut policy);
        self.policy = PolicyFile::Text(policy.to_string().into());
        Ok(())
    }

    /// The requirements of the image's scope, to be changed.
    ///
    /// # Errors
    /// The policy is none any more.
    pub fn edit_requirements(&mut self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let scope = format!("/transports/docker/{}", self.host);
        self.edit(|policy| {
            if let Some(requirements) = policy.pointer_mut(&scope) {
                edit(requirements);
            }
        })
    }

    /// The policy's text with something in it exchanged, once.
    ///
    /// # Errors
    /// It is not in it.
    pub fn replace(&mut self, from: &str, to: &str) -> Result<()> {
        let text = String::from_utf8(self.text()?.to_owned())?;
        anyhow::ensure!(text.contains(from), "{from} is not in {text}");
        self.policy = PolicyFile::Text(text.replacen(from, to, 1).into());
        Ok(())
    }

    /// The policy's text.
    ///
    /// # Errors
    /// The policy is no plain file.
    pub fn text(&self) -> Result<&[u8]> {
        match &self.policy {
            PolicyFile::Text(text) | PolicyFile::Open(text) => Ok(text),
            other => anyhow::bail!("{other:?} has no text"),
        }
    }

    /// Rules as text, with `@DIR@` for the scene's directory.
    pub fn rule(&mut self, text: impl Into<Vec<u8>>) {
        self.rules = Some(text.into());
    }

    /// Where the rules stand, below a scene's directory.
    pub const RULES: &str = "home/.config/gantry/trust.d";

    /// Writes all of it into an empty directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir.join("home"))?;
        for (name, bytes) in &self.files {
            fs::write(dir.join(name), bytes)?;
        }
        self.write_policy(dir)?;
        if let Some(rules) = &self.rules {
            let below = dir.join(Self::RULES);
            fs::create_dir_all(&below)?;
            let file = below.join("10.toml");
            fs::write(&file, placed(rules, dir))?;
            let mode = if self.rules_are_open { 0o666 } else { 0o644 };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        }
        let repository = self.asked.split_once('/').context("a name with a host")?.1;
        let repository = repository.split(['@', ':']).next().unwrap_or_default();
        let kept = format!("{repository}@{}", self.digest.replacen(':', "=", 1));
        let kept = dir.join("lookaside").join(kept);
        fs::create_dir_all(&kept)?;
        for (number, signature) in self.signatures.iter().enumerate() {
            fs::write(kept.join(format!("signature-{}", number + 1)), signature)?;
        }
        let places = dir.join("home/.config/containers/registries.d");
        fs::create_dir_all(&places)?;
        let place = dir.join("lookaside");
        let text = format!("default-docker:\n  lookaside: file://{}\n", place.display());
        fs::write(places.join("test.yaml"), text)?;
        Ok(())
    }

    fn write_policy(&self, dir: &Path) -> Result<()> {
        let path = dir.join("policy.json");
        let write = |text: &[u8], mode| -> Result<()> {
            fs::write(&path, placed(text, dir))?;
            Ok(fs::set_permissions(
                &path,
                fs::Permissions::from_mode(mode),
            )?)
        };
        match &self.policy {
            PolicyFile::Text(text) => write(text, 0o644)?,
            PolicyFile::Open(text) => write(text, 0o666)?,
            PolicyFile::Missing => {}
            PolicyFile::Directory => fs::create_dir(&path)?,
            PolicyFile::Dangling => symlink(dir.join("nowhere"), &path)?,
            PolicyFile::Loop => symlink(&path, &path)?,
            PolicyFile::Endless => symlink("/dev/zero", &path)?,
        }
        Ok(())
    }
}

/// The text with its directory in it. What is no UTF-8 is left as it is.
fn placed(text: &[u8], dir: &Path) -> Vec<u8> {
    match std::str::from_utf8(text) {
        Ok(text) => text.replace(DIR, &dir.display().to_string()).into(),
        Err(_) => text.to_owned(),
    }
}

/// A requirement of simple signatures by keys in these files of the scene.
fn signed_by(files: &[&str]) -> Value {
    let paths: Vec<String> = files.iter().map(|file| format!("{DIR}/{file}")).collect();
    match &paths[..] {
        [path] => json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": path}),
        paths => json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": paths}),
    }
}

/// What each family starts from.
pub(super) fn of(family: Family, maker: &mut Maker) -> Result<Scene> {
    let host = match family {
        Family::Hub => "docker.io",
        _ => maker.host(),
    }
    .to_owned();
    let digest = maker.digest();
    let tagged = match family {
        Family::Hub => format!("{host}/library/app:v1"),
        _ => maker.name(),
    };
    let mut scene = Scene {
        asked: match family {
            Family::Pinned => format!("{host}/team/app@{digest}"),
            _ => tagged.clone(),
        },
        policy: PolicyFile::Missing,
        files: BTreeMap::from([("key.gpg", maker.alice.public.clone())]),
        rules: None,
        rules_are_open: false,
        signatures: Vec::new(),
        host,
        digest,
    };
    let requirements = match family {
        Family::Signed | Family::Pinned | Family::Hub | Family::Ruled => {
            scene.signatures = vec![maker.sign(&maker.payload_for(&tagged))?];
            json!([signed_by(&["key.gpg"])])
        }
        Family::Either => {
            scene.files.insert("other.gpg", maker.bob.public.clone());
            scene.signatures = vec![maker.sign_by(&maker.bob, &maker.payload())?];
            json!([signed_by(&["key.gpg", "other.gpg"])])
        }
        Family::Both => {
            scene.files.insert("other.gpg", maker.bob.public.clone());
            scene.signatures = vec![
                maker.sign(&maker.payload())?,
                maker.sign_by(&maker.bob, &maker.payload())?,
            ];
            json!([signed_by(&["key.gpg"]), signed_by(&["other.gpg"])])
        }
        Family::Remapped => {
            scene.signatures = vec![maker.sign(&maker.payload_for("vendor.example/team/app:v1"))?];
            let mut requirement = signed_by(&["key.gpg"]);
            requirement["signedIdentity"] = json!({"type": "remapIdentity",
                "prefix": format!("{}/team", scene.host), "signedPrefix": "vendor.example/team"});
            json!([requirement])
        }
        Family::Attached | Family::Bundled | Family::Certified | Family::Logged => {
            json!([super::sigstore::scene(family, maker, &mut scene)?])
        }
        Family::Accepted => json!([{"type": "insecureAcceptAnything"}]),
    };
    if family == Family::Ruled {
        scene.rule("[[rule]]\nnot-before = 2020-01-01T00:00:00Z\n");
    }
    let policy = json!({"default": [{"type": "reject"}],
        "transports": {"docker": {&scene.host: requirements}}});
    scene.policy = PolicyFile::Text(policy.to_string().into());
    Ok(scene)
}
