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
use gantry_trust::sigstore::{PrivateKey, SigningParams, sign as sigstore_sign};
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
    /// Sign with the sigstore private key in this file, as cosign does
    #[arg(long, alias = "key", value_name = "FILE")]
    sign_by_sigstore_private_key: Vec<PathBuf>,
    /// Sign with the sigstore private key that this file of parameters names
    #[arg(long, value_name = "PARAMS")]
    sign_by_sigstore: Vec<PathBuf>,
    /// Make sigstore signatures as bundles, which cosign 3 reads, rather than as attachments
    #[arg(long, alias = "bundle")]
    sign_bundle: bool,
    /// The passphrase of these keys is the first line of this file [default: the GnuPG agent asks; $COSIGN_PASSWORD]
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
        self.sign_by.is_empty()
            && self.sign_by_key_file.is_empty()
            && self.sign_by_sigstore_private_key.is_empty()
            && self.sign_by_sigstore.is_empty()
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
    pub fn signers(&self) -> Result<Signers, Failure> {
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
        Ok(Signers {
            simple: signers,
            sigstore: self.sigstore_keys(passphrase.as_deref())?.into(),
            bundle: self.sign_bundle,
        })
    }

    fn sigstore_keys(&self, passphrase: Option<&str>) -> Result<Vec<PrivateKey>, Failure> {
        let mut keys = Vec::new();
        for path in &self.sign_by_sigstore_private_key {
            keys.push(private_key(path, passphrase)?);
        }
        for path in &self.sign_by_sigstore {
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            let params = SigningParams::parse(&text).map_err(|error| {
                Failure::from(error).context(format!("read {}", path.display()))
            })?;
            let own = params
                .private_key_passphrase_file
                .as_deref()
                .map(first_line);
            let own = own.transpose()?;
            let passphrase = own.as_deref().or(passphrase);
            keys.push(private_key(&params.private_key_file, passphrase)?);
        }
        Ok(keys)
    }

    /// The same for the copy engine; nobody if no key was named.
    ///
    /// # Errors
    /// As [`identity`](Self::identity) and [`signers`](Self::signers).
    pub fn resolve(&self, place: Option<&Reference>) -> Result<Vec<Arc<dyn Sign>>, Failure> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let signing = Signing {
            signers: self.signers()?,
            reference: self.identity(place)?,
        };
        Ok(vec![Arc::new(signing)])
    }
}

/// The keys of all kinds.
#[derive(Debug, Clone)]
pub struct Signers {
    simple: Vec<Signer>,
    sigstore: Arc<[PrivateKey]>,
    /// Whether sigstore signatures are made as bundles.
    bundle: bool,
}

/// What cosign's users keep a passphrase in.
#[must_use]
pub fn sigstore_passphrase() -> Option<String> {
    std::env::var("COSIGN_PASSWORD").ok()
}

fn private_key(path: &Path, passphrase: Option<&str>) -> Result<PrivateKey, Failure> {
    let environment = sigstore_passphrase();
    let passphrase = passphrase.or(environment.as_deref());
    PrivateKey::parse(&read(path)?, passphrase.map(str::as_bytes))
        .map_err(|error| Failure::from(error).context(format!("read {}", path.display())))
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
        let now = SystemTime::now();
        let payload = make_payload(&self.reference, digest, CREATOR, now);
        let made = self.signers.iter().map(|signer| {
            let message = signer.sign(&payload, now, &Limits::DEFAULT);
            let message = message.map_err(|error| {
                let what = format!("sign {digest} as {}", self.reference);
                EndpointError::with_source(error.kind(), what, error)
            })?;
            Ok(StoredSignature::Simple(message).to_blob())
        });
        made.collect()
    }
}

/// Signing of manifests for one reference, in every way that was asked for.
#[derive(Debug)]
pub struct Signing {
    /// Who signs; each makes a signature.
    pub signers: Signers,
    /// What is signed for.
    pub reference: Reference,
}

impl Signing {
    /// Signs a manifest by its digest.
    ///
    /// # Errors
    /// A signer makes no signature.
    pub fn sign_digest(
        &self,
        digest: &ManifestDigest,
    ) -> Result<Vec<SignatureBlob>, EndpointError> {
        let simple = SimpleSigning {
            signers: self.signers.simple.clone(),
            reference: self.reference.clone(),
        };
        let mut signatures = simple.sign_digest(digest)?;
        let reference = self.reference.to_string();
        for key in &*self.signers.sigstore {
            let made = if self.signers.bundle {
                sigstore_sign::bundle(key, &reference, digest)
            } else {
                sigstore_sign::attachment(key, &reference, digest, CREATOR, SystemTime::now())
            };
            let signature = made.map_err(|error| {
                let what = format!("sign {digest} as {reference}");
                EndpointError::with_source(error.kind(), what, error)
            })?;
            signatures.push(StoredSignature::Sigstore(signature).to_blob());
        }
        Ok(signatures)
    }
}

#[async_trait]
impl Sign for Signing {
    async fn sign(&self, manifest: &ManifestBytes) -> Result<Vec<SignatureBlob>, EndpointError> {
        // A person may be asked for a passphrase; nothing else is to do meanwhile.
        self.sign_digest(manifest.digest())
    }
}
