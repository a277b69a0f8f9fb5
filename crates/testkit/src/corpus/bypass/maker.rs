// SPDX-License-Identifier: Apache-2.0
//! Who signs, and what with: GnuPG and OpenSSL, so that no signature of the corpus is made by the code that judges it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gpg::Gpg;
use crate::image::{self, Image};
use crate::{tar, tool};

/// Makes signatures, good and bad ones, of one image.
#[derive(Debug)]
pub struct Maker {
    /// The OpenPGP keys.
    pub gpg: Gpg,
    /// Who is trusted.
    pub alice: Person,
    /// Who is trusted where two are.
    pub bob: Person,
    /// Who is not.
    pub mallory: Person,
    host: String,
    image: Image,
    dir: TempDir,
}

/// Somebody with an OpenPGP key.
#[derive(Debug, Clone)]
pub struct Person {
    /// The key's fingerprint.
    pub key: String,
    /// As it is exported.
    pub public: Vec<u8>,
}

impl Maker {
    /// Keys for everybody, and an image in the repository `team/app` of `host`, tag `v1`; `None` where a tool is missing.
    ///
    /// # Errors
    /// A tool fails.
    pub fn new(host: &str) -> Result<Option<Self>> {
        let Some(gpg) = Gpg::new()? else {
            return Ok(None);
        };
        if tool::find("openssl").is_none() {
            return Ok(None);
        }
        let person = |name: &str| -> Result<Person> {
            let key = gpg.make_key(name, "ed25519", "sign,cert", "0")?;
            let public = gpg.export(&key)?;
            Ok(Person { key, public })
        };
        let (alice, bob, mallory) = (person("alice")?, person("bob")?, person("mallory")?);
        let layer = image::Layer::gzip(&tar::join(&[tar::file("who", "the image")]));
        Ok(Some(Self {
            gpg,
            alice,
            bob,
            mallory,
            host: host.to_owned(),
            image: Image::new(&[layer]),
            dir: tempfile::tempdir()?,
        }))
    }

    /// The registry.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The image that is signed.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Its manifest's digest.
    #[must_use]
    pub fn digest(&self) -> String {
        self.image.digest()
    }

    /// Its name, with the registry and the tag.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/team/app:v1", self.host)
    }

    /// What is to be signed: that this digest is this reference.
    #[must_use]
    pub fn statement(&self, digest: &str, reference: &str) -> Value {
        json!({
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": digest},
                "identity": {"docker-reference": reference},
            },
            "optional": {"creator": "corpus", "timestamp": 1_600_000_000},
        })
    }

    /// The good payload.
    #[must_use]
    pub fn payload(&self) -> String {
        self.payload_for(&self.name())
    }

    /// The good payload, but for another reference.
    #[must_use]
    pub fn payload_for(&self, reference: &str) -> String {
        self.statement(&self.digest(), reference).to_string()
    }

    /// Alice's message around a payload.
    ///
    /// # Errors
    /// gpg fails.
    pub fn sign(&self, payload: &str) -> Result<Vec<u8>> {
        self.sign_by(&self.alice, payload)
    }

    /// Somebody's message around a payload.
    ///
    /// # Errors
    /// gpg fails.
    pub fn sign_by(&self, person: &Person, payload: &str) -> Result<Vec<u8>> {
        self.gpg.sign(&person.key, payload.as_bytes(), &[])
    }

    /// The packets of Alice's message, not compressed: one-pass, literal data, signature.
    ///
    /// # Errors
    /// gpg fails, or makes something else.
    pub fn packets(&self) -> Result<[Vec<u8>; 3]> {
        self.packets_by(&self.alice)
    }

    /// As [`packets`](Self::packets), of somebody's message.
    ///
    /// # Errors
    /// gpg fails, or makes something else.
    pub fn packets_by(&self, person: &Person) -> Result<[Vec<u8>; 3]> {
        let options = ["-z0", "--set-filename", ""];
        let message = self
            .gpg
            .sign(&person.key, self.payload().as_bytes(), &options)?;
        let packets = crate::openpgp::packets(&message)?;
        packets
            .try_into()
            .map_err(|other| anyhow::anyhow!("not three packets: {other:?}"))
    }

    /// What gpg makes of the good payload with these arguments, Alice's key among them.
    ///
    /// # Errors
    /// gpg fails.
    pub fn by_gpg(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let fixed = ["--local-user", &self.alice.key, "--output", "-"];
        self.gpg
            .run(&[&fixed, arguments].concat(), self.payload().as_bytes())
    }

    /// A path in a directory of the maker's own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs OpenSSL in that directory.
    ///
    /// # Errors
    /// It fails.
    pub fn openssl(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let program = tool::find("openssl").context("openssl is not installed")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.dir.path());
        Ok(tool::run(&mut command)?.stdout)
    }

    /// The public key `NAME` as PEM; its private half is made when it is first asked for.
    ///
    /// # Errors
    /// OpenSSL fails.
    pub fn public_pem(&self, name: &str) -> Result<Vec<u8>> {
        let key = self.private_key(name)?;
        self.openssl(&["pkey", "-in", &key, "-pubout"])
    }

    /// The public key `NAME` as DER.
    ///
    /// # Errors
    /// OpenSSL fails.
    pub fn public_der(&self, name: &str) -> Result<Vec<u8>> {
        let key = self.private_key(name)?;
        self.openssl(&["pkey", "-in", &key, "-pubout", "-outform", "DER"])
    }

    /// The file of a P-256 key, made when it is first asked for.
    ///
    /// # Errors
    /// OpenSSL fails.
    pub fn private_key(&self, name: &str) -> Result<String> {
        let file = format!("{name}.key");
        if !self.path(&file).exists() {
            self.openssl(&[
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
                &file,
            ])?;
        }
        Ok(file)
    }

    /// A signature over bytes by the key `NAME`.
    ///
    /// # Errors
    /// OpenSSL fails.
    pub fn sign_bytes(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
        let key = self.private_key(name)?;
        std::fs::write(self.path("to-sign"), bytes)?;
        self.openssl(&["dgst", "-sha256", "-sign", &key, "to-sign"])
    }
}

/// Standard base64.
pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}
