// SPDX-License-Identifier: Apache-2.0
//! Who signs: the options that several verbs share, and what they lead to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_image::{EndpointError, ManifestBytes, SignatureBlob};
use gantry_oci::{Kind, Limits, ManifestDigest, Reference};
use gantry_transport::copy::Sign;
use gantry_trust::StoredSignature;
use gantry_trust::sign::Signer;
use gantry_trust::simple::make_payload;

use crate::exit::Failure;

/// What signatures say made them.
const CREATOR: &str = concat!("gantry ", env!("CARGO_PKG_VERSION"));

/// Keys to sign with.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SignersArgs {
    /// Sign with this key of the GnuPG home; each one makes a signature of its own
    #[arg(long, value_name = "FINGERPRINT")]
    sign_by: Vec<String>,
    /// Sign with the secret OpenPGP key in this file
    #[arg(long, value_name = "FILE")]
    sign_by_key_file: Vec<PathBuf>,
    /// The passphrase of these keys is the first line of this file [default: the GnuPG agent asks]
    #[arg(long, value_name = "FILE")]
    sign_passphrase_file: Option<PathBuf>,
    /// Sign for this reference, rather than for the one where the image is
    #[arg(long, value_name = "REFERENCE")]
    sign_identity: Option<String>,
}

impl SignersArgs {
    /// Whether nobody signs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sign_by.is_empty() && self.sign_by_key_file.is_empty()
    }

    /// The reference that is signed for, if the image is at `place`.
    ///
    /// # Errors
    /// There is none, or it does not parse.
    pub fn identity(&self, place: Option<&Reference>) -> Result<Reference, Failure> {
        match (&self.sign_identity, place) {
            (Some(text), _) => Reference::parse_normalized(text)
                .map(Reference::or_latest)
                .map_err(|error| Failure::from(error).context(format!("parse identity {text:?}"))),
            (None, Some(place)) => Ok(place.clone().or_latest()),
            (None, None) => Err(Failure::message(
                Kind::InvalidInput,
                "sign an image that is in no registry: say for which reference, with --sign-identity",
            )),
        }
    }

    /// The signers, in the order of the options.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn signers(&self) -> Result<Vec<Signer>, Failure> {
        let passphrase = self.sign_passphrase_file.as_deref().map(first_line);
        let passphrase = passphrase.transpose()?;
        let mut signers: Vec<Signer> = self
            .sign_by
            .iter()
            .map(|key| by_gpg(key, passphrase.clone()))
            .collect();
        for path in &self.sign_by_key_file {
            signers.push(Signer::KeyFile {
                key: read(path)?.into(),
                passphrase: passphrase.clone(),
            });
        }
        Ok(signers)
    }

    /// The same for the copy engine; nobody if no key was named.
    ///
    /// # Errors
    /// As [`identity`](Self::identity) and [`signers`](Self::signers).
    pub fn resolve(&self, place: Option<&Reference>) -> Result<Vec<Arc<dyn Sign>>, Failure> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let simple = SimpleSigning {
            signers: self.signers()?,
            reference: self.identity(place)?,
        };
        Ok(vec![Arc::new(simple)])
    }
}

/// A key of the user's GnuPG home.
#[must_use]
pub fn by_gpg(key: &str, passphrase: Option<String>) -> Signer {
    Signer::Gpg {
        program: PathBuf::from("gpg"),
        home: None,
        key: key.to_owned(),
        passphrase,
    }
}

/// Reads a file whole.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::from(error).context(format!("read {}", path.display())))
}

/// The first line of a file, as a passphrase.
///
/// # Errors
/// It cannot be read, or is no text.
pub fn first_line(path: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(read(path)?).map_err(|_| {
        Failure::message(
            Kind::InvalidInput,
            format!("read {}: a passphrase is UTF-8 text", path.display()),
        )
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Simple signing of manifests for one reference.
#[derive(Debug)]
pub struct SimpleSigning {
    /// Who signs; each makes a signature.
    pub signers: Vec<Signer>,
    /// What is signed for.
    pub reference: Reference,
}

impl SimpleSigning {
    /// Signs a manifest by its digest.
    ///
    /// # Errors
    /// A signer makes no signature.
    pub fn sign_digest(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        let payload = make_payload(&self.reference, digest, CREATOR, SystemTime::now());
        let made = self.signers.iter().map(|signer| {
            let message = signer.sign(&payload, &Limits::DEFAULT).map_err(|error| {
                let what = format!("sign {digest} as {}", self.reference);
                EndpointError::with_source(error.kind(), what, error)
            })?;
            Ok(StoredSignature::Simple(message).to_blob())
        });
        made.collect()
    }
}

#[async_trait]
impl Sign for SimpleSigning {
    async fn sign(&self, manifest: &ManifestBytes) -> Result<Vec<SignatureBlob>, EndpointError> {
        // A person may be asked for a passphrase; nothing else is to do meanwhile.
        self.sign_digest(manifest.digest())
    }
}
