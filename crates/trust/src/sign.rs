// SPDX-License-Identifier: Apache-2.0
//! Making simple signatures: with the `gpg` program, which knows agents and
//! cards, or with a key file that lies there plainly.
//!
//! What was made is read back by the rules of [`crate::openpgp`], so that no
//! signature leaves here that we would refuse for its form.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use bytes::Bytes;
use gantry_oci::{Kind, Limits};
use pgp::composed::{Deserializable as _, MessageBuilder, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::SignatureType;
use pgp::ser::Serialize as _;
use pgp::types::{Password, SigningKey};

use crate::openpgp::{self, Keyring};
use crate::refusal::Refusal;

/// Why no signature was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The program cannot be run.
    #[error("run {program}")]
    Run {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The program made no signature.
    #[error("sign with key {key}: {program} says: {why}")]
    Gpg {
        /// The program.
        program: PathBuf,
        /// The key that was asked for.
        key: String,
        /// The last line that it said.
        why: String,
    },
    /// The key file is none, or its key is for something else.
    #[error("sign with a key file: {why}")]
    KeyFile {
        /// What is wrong.
        why: String,
    },
    /// What was made would count nowhere.
    #[error("the signature that was made does not count")]
    Useless {
        /// Why not.
        source: Refusal,
    },
}

impl SignError {
    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Run { source, .. } => Kind::of_io(source),
            Self::Gpg { .. } => Kind::Denied,
            Self::KeyFile { .. } | Self::Useless { .. } => Kind::InvalidInput,
        }
    }
}

/// Who signs.
#[derive(Clone)]
pub enum Signer {
    /// A key of a GnuPG home.
    Gpg {
        /// The program, mostly `gpg`.
        program: PathBuf,
        /// The home, if not the user's own.
        home: Option<PathBuf>,
        /// The key, by fingerprint or any other name that gpg knows.
        key: String,
        /// The passphrase; without one the user's agent asks.
        passphrase: Option<String>,
    },
    /// A secret key, binary or armoured.
    KeyFile {
        /// The file's contents.
        key: Bytes,
        /// Its passphrase, if it has one.
        passphrase: Option<String>,
    },
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gpg { home, key, .. } => f
                .debug_struct("Gpg")
                .field("home", home)
                .field("key", key)
                .finish_non_exhaustive(),
            Self::KeyFile { .. } => f.debug_struct("KeyFile").finish_non_exhaustive(),
        }
    }
}

impl Signer {
    /// Makes the message that signs `payload`. A key file signs only if its key may at `now`, by the rules of
    /// [`Keyring::verify`]; gpg sees to that itself.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(
        &self,
        payload: &[u8],
        now: SystemTime,
        limits: &Limits,
    ) -> Result<Bytes, SignError> {
        let message = match self {
            Self::Gpg {
                program,
                home,
                key,
                passphrase,
            } => {
                let mut command = Command::new(program);
                if let Some(home) = home {
                    command.arg("--homedir").arg(home);
                }
                with_gpg(command, program, key, passphrase.as_deref(), payload)?
            }
            Self::KeyFile { key, passphrase } => {
                with_key_file(key, passphrase.as_deref(), payload, now, limits)?
            }
        };
        openpgp::check_message(&message, limits).map_err(|source| SignError::Useless { source })?;
        Ok(message)
    }
}

fn with_gpg(
    mut command: Command,
    program: &std::path::Path,
    key: &str,
    passphrase: Option<&str>,
    payload: &[u8],
) -> Result<Bytes, SignError> {
    let run = |source| SignError::Run {
        program: program.to_owned(),
        source,
    };
    command.args(["--batch", "--quiet", "--yes"]);
    let mut input = Vec::new();
    if let Some(passphrase) = passphrase {
        // gpg takes the first line off its input, and signs the rest.
        command.args(["--pinentry-mode", "loopback", "--passphrase-fd", "0"]);
        input.extend_from_slice(passphrase.as_bytes());
        input.push(b'\n');
    }
    input.extend_from_slice(payload);
    let mut child = command
        .args(["--local-user", key, "--output", "-", "--sign"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    let mut stdin = child.stdin.take();
    // It is small enough for the pipe; a program that does not read it says why.
    let fed = stdin.as_mut().map(|stdin| stdin.write_all(&input));
    drop(stdin);
    let output = child.wait_with_output().map_err(run)?;
    if output.status.success() {
        if let Some(Err(source)) = fed {
            return Err(run(source));
        }
        return Ok(output.stdout.into());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(SignError::Gpg {
        program: program.to_owned(),
        key: key.to_owned(),
        why: said.lines().last().unwrap_or("nothing").to_owned(),
    })
}

fn with_key_file(
    key: &Bytes,
    passphrase: Option<&str>,
    payload: &[u8],
    now: SystemTime,
    limits: &Limits,
) -> Result<Bytes, SignError> {
    let failed = |error: pgp::errors::Error| SignError::KeyFile {
        why: error.to_string(),
    };
    let key = if key.first().is_some_and(|first| first & 0x80 != 0) {
        SignedSecretKey::from_bytes(&key[..]).map_err(failed)?
    } else {
        SignedSecretKey::from_armor_single(&key[..])
            .map_err(failed)?
            .0
    };
    let public = key.to_public_key().to_bytes().map_err(failed)?;
    let ring = Keyring::parse(&[public.into()], limits).map_err(|error| SignError::KeyFile {
        why: error.to_string(),
    })?;
    let password = || passphrase.map_or_else(Password::empty, Password::from);
    let mut refused = None;
    for makes in signing_keys(&key) {
        let message = makes(password(), payload).map_err(failed)?;
        match ring.verify(&message, now, limits) {
            Ok(_) => return Ok(message),
            Err(refusal) => refused.get_or_insert(refusal),
        };
    }
    Err(match refused {
        Some(source) => SignError::Useless { source },
        None => SignError::KeyFile {
            why: "none of its keys is for signing".to_owned(),
        },
    })
}

type MakeMessage<'a> = Box<dyn Fn(Password, &[u8]) -> Result<Bytes, pgp::errors::Error> + 'a>;

/// The keys that say that they sign, the newest subkey first and the primary key last, as gpg takes them.
fn signing_keys(key: &SignedSecretKey) -> impl Iterator<Item = MakeMessage<'_>> {
    let signs = |signatures: &[pgp::packet::Signature]| {
        let newest = signatures
            .iter()
            .filter(|signature| signature.typ() != Some(SignatureType::SubkeyRevocation))
            .max_by_key(|signature| signature.created());
        newest.is_some_and(|newest| newest.key_flags().sign())
    };
    let subkeys = key.secret_subkeys.iter().rev();
    let subkeys = subkeys.filter(move |subkey| signs(&subkey.signatures));
    let subkeys = subkeys.map(|subkey| -> MakeMessage<'_> {
        Box::new(|password, payload| sign_with(&subkey.key, password, payload))
    });
    let mut users = key.details.users.iter();
    let primary = users
        .any(|user| signs(&user.signatures))
        .then(|| -> MakeMessage<'_> {
            Box::new(|password, payload| sign_with(&key.primary_key, password, payload))
        });
    subkeys.chain(primary)
}

fn sign_with<K: SigningKey>(
    key: &K,
    password: Password,
    payload: &[u8],
) -> Result<Bytes, pgp::errors::Error> {
    let mut message = MessageBuilder::from_bytes("", payload.to_vec());
    message.sign(key, password, HashAlgorithm::Sha512);
    Ok(message.to_vec(rand::thread_rng())?.into())
}
