// SPDX-License-Identifier: Apache-2.0
//! The one error that crosses the seam between a transport and its user.
//!
//! A source or a destination has causes of its own (HTTP, the file system, a
//! store); behind the trait they are boxed, and what a caller branches on is
//! the [`Kind`].

use std::error::Error;
use std::fmt;

use gantry_oci::Kind;

/// Why a source or a destination could not do what it was asked.
///
/// The message says action and object (`fetch blob sha256:… from host/repo`)
/// and leaves the cause to [`Error::source`].
pub struct EndpointError {
    kind: Kind,
    message: Box<str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl EndpointError {
    /// An error without a deeper cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into().into(),
            source: None,
        }
    }

    /// An error with the cause that it was made from.
    pub fn with_source(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            message: message.into().into(),
            source: Some(source.into()),
        }
    }

    /// An error whose kind is that of the I/O error beneath it.
    ///
    /// An [`EndpointError`] that travelled inside the I/O error (as it does
    /// through a [`std::io::Read`]) keeps its kind.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        Self::with_source(kind_of_io(&source), message, source)
    }

    /// The coarse reason.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same request may well succeed a little later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Busy)
    }
}

/// The kind of an I/O error, looking through it at what it may carry.
#[must_use]
pub fn kind_of_io(error: &std::io::Error) -> Kind {
    let inner = error.get_ref();
    if let Some(endpoint) = inner.and_then(|inner| inner.downcast_ref::<EndpointError>()) {
        return endpoint.kind();
    }
    if let Some(verify) = inner.and_then(|inner| inner.downcast_ref::<crate::VerifyError>()) {
        return verify.kind();
    }
    Kind::of_io(error)
}

impl fmt::Debug for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for EndpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

impl From<EndpointError> for std::io::Error {
    fn from(error: EndpointError) -> Self {
        use std::io::ErrorKind as E;
        let kind = match error.kind() {
            Kind::NotFound => E::NotFound,
            Kind::Denied => E::PermissionDenied,
            Kind::Corrupt | Kind::Unsafe => E::InvalidData,
            Kind::Unavailable => E::ConnectionAborted,
            Kind::NoSpace => E::StorageFull,
            Kind::Unsupported => E::Unsupported,
            _ => E::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_survives_the_way_through_an_io_error() {
        for kind in [
            Kind::Corrupt,
            Kind::Unsafe,
            Kind::Unavailable,
            Kind::Os(5),
            Kind::Cancelled,
        ] {
            let io: std::io::Error = EndpointError::new(kind, "fetch blob").into();
            assert_eq!(EndpointError::io("store layer", io).kind(), kind);
        }
    }

    #[test]
    fn message_does_not_repeat_its_source() {
        let error = EndpointError::with_source(
            Kind::Unavailable,
            "fetch blob",
            std::io::Error::other("reset"),
        );
        assert_eq!(error.to_string(), "fetch blob");
        assert_eq!(error.source().unwrap().to_string(), "reset");
    }
}
