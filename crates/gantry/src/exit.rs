// SPDX-License-Identifier: Apache-2.0
//! From a failure to one sentence on standard error and an exit status.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed for a reason without a status of its own |
//! | 2 | the command line or another input does not make sense |
//! | 3 | the image, container or file named does not exist |
//! | 4 | denied, by permissions, credentials or policy |
//! | 5 | data is corrupt or looks like an attack |
//! | 6 | this kernel or the other side lacks what is needed |
//! | 7 | the other side is down or overloaded; trying again may work |
//! | 8 | no space left |
//! | 9 | exists already, or is in use |
//! | 70 | a bug in Gantry |
//! | 130, 143 | interrupted, terminated |
//! | 141 | whoever read the output closed it; nothing is said |
//!
//! `run`, `exec` and their kin use podman's statuses instead: the container's
//! own, 128 + n for signal n, 125 when Gantry failed, 126 when the program
//! could not be executed, 127 when it was not found.

use std::process::ExitCode;

use gantry_oci::Kind;

/// A failed command: the chain of what was being done, and why it is over.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    status: Option<u8>,
    error: anyhow::Error,
    hint: Option<String>,
    silent: bool,
}

impl Failure {
    /// A failure with its reason.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self {
            kind,
            status: None,
            error: error.into(),
            hint: None,
            silent: false,
        }
    }

    /// A failure that is one sentence.
    pub fn message(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(kind, anyhow::Error::msg(message.into()))
    }

    /// Says what was being done, in front of what failed.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.error = self.error.context(what.into());
        self
    }

    /// Says what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit status, where a verb has statuses of its own.
    #[must_use]
    pub fn status(mut self, status: u8) -> Self {
        self.status = Some(status);
        self
    }

    /// Ends with this status and no word.
    #[must_use]
    pub fn silent(mut self, status: u8) -> Self {
        self.silent = true;
        self.status(status)
    }

    /// Sets the exit status unless it has one.
    #[must_use]
    pub fn or_status(mut self, status: u8) -> Self {
        self.status = self.status.or(Some(status));
        self
    }

    /// The reason.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The whole chain as one sentence.
    pub fn sentence(&self) -> String {
        let mut sentence = String::new();
        for cause in self.error.chain() {
            let text = cause.to_string();
            // Some libraries repeat their source in their own words.
            if !sentence.is_empty() && sentence.ends_with(&text) {
                continue;
            }
            if !sentence.is_empty() {
                sentence.push_str(": ");
            }
            sentence.push_str(&text);
        }
        sentence
    }
}

/// Wraps a library's error with its own `kind()`.
macro_rules! failure_from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.kind(), error)
            }
        }
    )*};
}

failure_from!(
    gantry_oci::reference::ParseReferenceError,
    gantry_oci::ParseDigestError,
    gantry_oci::platform::ParsePlatformError,
    gantry_store::StoreError,
    gantry_runtime::container::ContainerError,
    gantry_store::IngestError,
    gantry_image::EndpointError,
    gantry_image::unverified::VerifyManifestError,
    gantry_transport::ParseNameError,
    gantry_trust::ReadKeysError,
    gantry_trust::registries_d::ReadRegistriesDError,
    gantry_trust::sigstore::ParseParamsError,
    gantry_trust::sigstore::private_key::ReadPrivateKeyError,
    gantry_trust::sigstore::private_key::SignError,
    gantry_transport::copy::CopyError,
    gantry_transport::registry::RegistryError,
    gantry_trust::policy::LoadPolicyError,
    gantry_trust::policy::EditPolicyError,
    gantry_trust::extra::LoadExtraError,
);

impl From<gantry_sys::SysError> for Failure {
    fn from(error: gantry_sys::SysError) -> Self {
        Self::new(Kind::of_io(&error.source), error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Kind::of_io(&error), error)
    }
}

/// What a verb returns.
pub type Outcome = Result<ExitCode, Failure>;

fn status_of(kind: Kind) -> u8 {
    match kind {
        Kind::Os(_) => 1,
        Kind::InvalidInput => 2,
        Kind::NotFound => 3,
        Kind::Denied => 4,
        Kind::Corrupt | Kind::Unsafe => 5,
        Kind::Unsupported => 6,
        Kind::Unavailable => 7,
        Kind::NoSpace => 8,
        Kind::AlreadyExists | Kind::Busy => 9,
        Kind::Cancelled => 130,
        Kind::Internal => 70,
    }
}

/// Prints a failure as one sentence and answers its status.
pub fn report(failure: &Failure) -> ExitCode {
    if !failure.silent {
        crate::output::error_line(&failure.sentence());
    }
    if let Some(hint) = &failure.hint {
        crate::output::hint_line(hint);
    }
    ExitCode::from(failure.status.unwrap_or_else(|| status_of(failure.kind)))
}

/// Prints clap's message (help and version go to standard output).
pub fn of_usage(error: &clap::Error, verb: Option<&str>) -> ExitCode {
    // Nothing is left to do when even the terminal is gone.
    drop(error.print());
    ExitCode::from(match (error.use_stderr(), verb) {
        (false, _) => 0,
        (true, Some("run" | "exec")) => 125,
        (true, _) => 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_documented_statuses() {
        for (kind, status) in [
            (Kind::InvalidInput, 2),
            (Kind::NotFound, 3),
            (Kind::Denied, 4),
            (Kind::Unsafe, 5),
            (Kind::Unavailable, 7),
            (Kind::NoSpace, 8),
            (Kind::Internal, 70),
        ] {
            assert_eq!(status_of(kind), status, "{kind:?}");
        }
    }
}
